#include "llm/catalog.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/clock.h"

struct catalog {
    struct arena *arena;
    struct model **models; /* in the order they were added */
    size_t count, capacity;
};

struct catalog *catalog_create(void)
{
    struct arena *arena = arena_create(0);
    struct catalog *catalog = ARENA_NEW(arena, struct catalog);
    catalog->arena = arena;
    return catalog;
}

void catalog_destroy(struct catalog *catalog)
{
    if (catalog)
        arena_destroy(catalog->arena);
}

static bool check_model(const struct catalog *catalog, const struct model *model, struct error *e)
{
    if (str_is_empty(model->name))
        return error_set(e, REASON_CONFIG, "a model needs a name");
    if (catalog_find(catalog, model->name))
        return error_set(e, REASON_CONFIG, "the model '" STR_FMT "' is defined twice",
                         STR_ARG(model->name));
    if (model->target_count == 0)
        return error_set(e, REASON_CONFIG,
                         "the model '" STR_FMT "' has no target; name a provider and its model",
                         STR_ARG(model->name));
    if (model->target_count > MODEL_TARGETS_MAX)
        return error_set(e, REASON_CONFIG,
                         "the model '" STR_FMT "' has %zu targets, at most %d are possible",
                         STR_ARG(model->name), model->target_count, MODEL_TARGETS_MAX);
    if (model->max_output_tokens <= 0)
        return error_set(e, REASON_CONFIG,
                         "the model '" STR_FMT "' needs max_output_tokens above 0",
                         STR_ARG(model->name));
    for (size_t i = 0; i < model->target_count; i++) {
        const struct model_target *target = &model->targets[i];
        ensure(target->provider != NULL);
        if (target->weight < 1)
            return error_set(e, REASON_CONFIG,
                             "the model '" STR_FMT "': target %zu needs a weight of at least 1",
                             STR_ARG(model->name), i + 1);
        const struct model_price *price = &target->price;
        if (price->input_picousd_per_token < 0 || price->cached_picousd_per_token < 0 ||
            price->output_picousd_per_token < 0)
            return error_set(e, REASON_CONFIG,
                             "the model '" STR_FMT "': target %zu has a negative price",
                             STR_ARG(model->name), i + 1);
    }
    return true;
}

static struct model *copy_model(struct arena *arena, const struct model *model)
{
    struct model *copy = ARENA_NEW(arena, struct model);
    *copy = *model;
    copy->name = str_copy(arena, model->name);
    copy->targets = ARENA_ARRAY(arena, struct model_target, model->target_count);
    for (size_t i = 0; i < model->target_count; i++) {
        copy->targets[i] = model->targets[i];
        copy->targets[i].model = str_copy(arena, model->targets[i].model);
    }
    return copy;
}

bool catalog_add(struct catalog *catalog, const struct model *model, struct error *e)
{
    if (!check_model(catalog, model, e))
        return false;
    if (catalog->count == catalog->capacity) {
        size_t capacity = catalog->capacity ? catalog->capacity * 2 : 8;
        catalog->models =
            arena_grow(catalog->arena, catalog->models, catalog->capacity * sizeof(struct model *),
                       capacity * sizeof(struct model *));
        catalog->capacity = capacity;
    }
    catalog->models[catalog->count++] = copy_model(catalog->arena, model);
    return true;
}

const struct model *catalog_find(const struct catalog *catalog, str name)
{
    for (size_t i = 0; i < catalog->count; i++) {
        if (str_equal(catalog->models[i]->name, name))
            return catalog->models[i];
    }
    return NULL;
}

size_t catalog_count(const struct catalog *catalog)
{
    return catalog->count;
}

const struct model *catalog_at(const struct catalog *catalog, size_t index)
{
    ensure(index < catalog->count);
    return catalog->models[index];
}

const struct model *catalog_default(const struct catalog *catalog)
{
    return catalog->count > 0 ? catalog->models[0] : NULL;
}

bool catalog_error_unknown(const struct catalog *catalog, str name, struct error *e)
{
    char names[ERROR_MESSAGE_BYTES] = "";
    size_t used = 0, listed = 0;
    while (listed < catalog->count && listed < UNKNOWN_MODEL_NAMES_MAX) {
        str known = catalog->models[listed]->name;
        if (used + known.len + 3 > 300) /* the rest of the message must fit too */
            break;
        if (listed > 0) {
            names[used++] = ',';
            names[used++] = ' ';
        }
        memcpy(names + used, known.ptr, known.len);
        used += known.len;
        listed++;
    }
    name = str_cut_utf8(name, 80);
    if (catalog->count == 0)
        return error_set(e, REASON_UNKNOWN_MODEL, "no model '" STR_FMT "': none is configured",
                         STR_ARG(name));
    if (listed < catalog->count)
        return error_set(e, REASON_UNKNOWN_MODEL,
                         "no model '" STR_FMT "'; known are: %s and %zu more", STR_ARG(name), names,
                         catalog->count - listed);
    return error_set(e, REASON_UNKNOWN_MODEL, "no model '" STR_FMT "'; known are: %s",
                     STR_ARG(name), names);
}

static bool is_tried(uint64_t tried, size_t index)
{
    return (tried >> index & 1) != 0;
}

const struct model_target *catalog_pick(const struct model *model, uint64_t tried,
                                        struct random *random, size_t *index)
{
    uint64_t total = 0;
    for (size_t i = 0; i < model->target_count; i++) {
        if (!is_tried(tried, i) &&
            __builtin_add_overflow(total, (uint64_t) model->targets[i].weight, &total))
            total = UINT64_MAX;
    }
    if (total == 0)
        return NULL;
    uint64_t point = random_below(random, total);
    for (size_t i = 0; i < model->target_count; i++) {
        if (is_tried(tried, i))
            continue;
        uint64_t weight = (uint64_t) model->targets[i].weight;
        if (point < weight) {
            *index = i;
            return &model->targets[i];
        }
        point -= weight;
    }
    unreachable_state();
}

/* ---- money ---- */

/* 128 bits hold any sum of three products of 64-bit numbers. */
typedef __int128 wide;

static wide product(int64_t tokens, int64_t price)
{
    return tokens > 0 && price > 0 ? (wide) tokens * price : 0;
}

static int64_t nanousd_rounded_up(wide picousd)
{
    wide nanousd = (picousd + 999) / 1000;
    return nanousd > INT64_MAX ? INT64_MAX : (int64_t) nanousd;
}

/* What is written to the provider's cache is charged as plain input; a provider that charges more
 * has its own rate. */
int64_t price_nanousd(const struct model_price *price, const struct usage *usage)
{
    if (!price->is_known)
        return 0;
    int64_t input = usage->input_tokens > 0 ? usage->input_tokens : 0;
    int64_t cached = usage->cached_tokens > 0 ? usage->cached_tokens : 0;
    if (cached > input)
        cached = input;
    return nanousd_rounded_up(product(input - cached, price->input_picousd_per_token) +
                              product(cached, price->cached_picousd_per_token) +
                              product(usage->output_tokens, price->output_picousd_per_token));
}

int64_t price_bound_nanousd(const struct model_price *price, int64_t input_tokens,
                            int64_t output_tokens)
{
    if (!price->is_known)
        return 0;
    int64_t input_price = price->input_picousd_per_token > price->cached_picousd_per_token
                              ? price->input_picousd_per_token
                              : price->cached_picousd_per_token;
    return nanousd_rounded_up(product(input_tokens, input_price) +
                              product(output_tokens, price->output_picousd_per_token));
}
