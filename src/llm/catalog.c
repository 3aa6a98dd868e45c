#include "llm/catalog.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"

struct kept {
    void *thing;
    void (*destroy)(void *thing);
    struct kept *next;
};

struct catalog {
    struct arena *arena;
    struct kept *kept;
    struct map *by_name;   /* aliases too */
    struct model **models; /* in the order they were added */
    size_t count, capacity;
};

struct catalog *catalog_create(void)
{
    struct arena *arena = arena_create(0);
    struct catalog *catalog = ARENA_NEW(arena, struct catalog);
    catalog->arena = arena;
    catalog->by_name = map_create();
    return catalog;
}

void catalog_destroy(struct catalog *catalog)
{
    if (!catalog)
        return;
    for (struct kept *kept = catalog->kept; kept; kept = kept->next)
        kept->destroy(kept->thing);
    map_destroy(catalog->by_name);
    arena_destroy(catalog->arena);
}

void catalog_keep(struct catalog *catalog, void *give_thing, void (*destroy)(void *thing))
{
    struct kept *kept = ARENA_NEW(catalog->arena, struct kept);
    *kept = (struct kept){give_thing, destroy, catalog->kept};
    catalog->kept = kept;
}

/* ---- what is refused ---- */

static bool check_name(const struct catalog *catalog, str name, struct error *e)
{
    if (str_is_empty(name))
        return error_set(e, REASON_CONFIG, "a model needs a name");
    if (catalog_find(catalog, name))
        return error_set(e, REASON_CONFIG, "the model '" STR_FMT "' is defined twice",
                         STR_ARG(name));
    return true;
}

static bool check_names(const struct catalog *catalog, const struct model *model, struct error *e)
{
    if (!check_name(catalog, model->name, e))
        return false;
    for (size_t i = 0; i < model->alias_count; i++) {
        if (!check_name(catalog, model->aliases[i], e))
            return error_wrap(e, "aliases of '" STR_FMT "'", STR_ARG(model->name));
        bool is_twice = str_equal(model->aliases[i], model->name);
        for (size_t j = 0; j < i; j++)
            is_twice = is_twice || str_equal(model->aliases[i], model->aliases[j]);
        if (is_twice)
            return error_set(e, REASON_CONFIG, "the model '" STR_FMT "' names itself twice",
                             STR_ARG(model->name));
    }
    return true;
}

static bool is_price(const struct model_price *price)
{
    return price->input_picousd_per_token >= 0 && price->output_picousd_per_token >= 0 &&
           price->cached_picousd_per_token >= PRICE_LIKE_INPUT &&
           price->cache_write_picousd_per_token >= PRICE_LIKE_INPUT &&
           price->reasoning_picousd_per_token >= PRICE_LIKE_INPUT;
}

static bool has_variant(const struct model *model, str name)
{
    for (size_t i = 0; i < model->variant_count; i++) {
        if (str_equal(model->variants[i].name, name))
            return true;
    }
    return false;
}

static bool check_target(const struct model *model, size_t i, struct error *e)
{
    const struct model_target *target = &model->targets[i];
    ensure(target->provider != NULL);
    if (target->weight < 1)
        return error_set(e, REASON_CONFIG,
                         "the model '" STR_FMT "': target %zu needs a weight of at least 1",
                         STR_ARG(model->name), i + 1);
    if (target->priority < 0)
        return error_set(e, REASON_CONFIG,
                         "the model '" STR_FMT "': target %zu needs a priority of at least 0",
                         STR_ARG(model->name), i + 1);
    if (!is_price(&target->price))
        return error_set(e, REASON_CONFIG,
                         "the model '" STR_FMT "': target %zu has a negative price",
                         STR_ARG(model->name), i + 1);
    if (!str_is_empty(target->variant) && !has_variant(model, target->variant))
        return error_set(e, REASON_CONFIG,
                         "the model '" STR_FMT "': target %zu is of variant '" STR_FMT
                         "', which `split` does not name",
                         STR_ARG(model->name), i + 1, STR_ARG(target->variant));
    return true;
}

static bool check_variant(const struct model *model, size_t i, struct error *e)
{
    const struct model_variant *variant = &model->variants[i];
    for (size_t j = 0; j < model->target_count; j++) {
        if (str_equal(model->targets[j].variant, variant->name) && variant->weight > 0)
            return true;
    }
    return error_set(e, REASON_CONFIG,
                     "the model '" STR_FMT "': variant '" STR_FMT
                     "' needs a weight of at least 1 and a target",
                     STR_ARG(model->name), STR_ARG(variant->name));
}

static bool check_model(const struct catalog *catalog, const struct model *model, struct error *e)
{
    if (!check_names(catalog, model, e))
        return false;
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
        if (!check_target(model, i, e))
            return false;
    }
    for (size_t i = 0; i < model->variant_count; i++) {
        if (!check_variant(model, i, e))
            return false;
    }
    return true;
}

/* ---- */

static struct model *copy_model(struct arena *arena, const struct model *model)
{
    struct model *copy = ARENA_NEW(arena, struct model);
    *copy = *model;
    copy->name = str_copy(arena, model->name);
    copy->aliases = ARENA_ARRAY(arena, str, model->alias_count);
    for (size_t i = 0; i < model->alias_count; i++)
        copy->aliases[i] = str_copy(arena, model->aliases[i]);
    copy->targets = ARENA_ARRAY(arena, struct model_target, model->target_count);
    for (size_t i = 0; i < model->target_count; i++) {
        copy->targets[i] = model->targets[i];
        copy->targets[i].model = str_copy(arena, model->targets[i].model);
        copy->targets[i].variant = str_copy(arena, model->targets[i].variant);
    }
    copy->variants = ARENA_ARRAY(arena, struct model_variant, model->variant_count);
    for (size_t i = 0; i < model->variant_count; i++) {
        copy->variants[i] = model->variants[i];
        copy->variants[i].name = str_copy(arena, model->variants[i].name);
    }
    copy->cache.embedder = str_copy(arena, model->cache.embedder);
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
    struct model *copy = copy_model(catalog->arena, model);
    catalog->models[catalog->count++] = copy;
    map_put(catalog->by_name, copy->name, copy);
    for (size_t i = 0; i < copy->alias_count; i++)
        map_put(catalog->by_name, copy->aliases[i], copy);
    return true;
}

const struct model *catalog_find(const struct catalog *catalog, str name)
{
    return map_find(catalog->by_name, name);
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
