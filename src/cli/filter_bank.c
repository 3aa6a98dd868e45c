#include "cli/filter_bank.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"

#include <stdatomic.h>
#include <stdlib.h>

struct filter_bank {
    _Atomic int references;
    struct arena *arena;
    digest identity; /* of the filters' configuration */
    struct metrics *metrics;
    struct guard_rules *items;
    struct filter_set **sets;
    size_t count;
};

static void add_text(struct digest_stream *stream, str text)
{
    digest_stream_add(stream, text);
    digest_stream_add(stream, str_of("", 1));
}

static digest identity_of(const struct config *config)
{
    struct digest_stream *stream = digest_stream_create();
    for (size_t i = 0; i < config->filter_count; i++) {
        const struct config_filter *f = &config->filters[i];
        const str texts[] = {f->name, f->direction, f->secrets, f->pii, f->injection};
        for (size_t j = 0; j < ARRAY_COUNT(texts); j++)
            add_text(stream, texts[j]);
        for (size_t j = 0; j < f->rule_count; j++) {
            add_text(stream, f->rules[j].name);
            add_text(stream, f->rules[j].pattern);
            add_text(stream, f->rules[j].group);
            add_text(stream, f->rules[j].action);
        }
        digest_stream_add(stream, str_of("\1", 1));
    }
    digest identity = digest_stream_finish(stream);
    digest_stream_destroy(stream);
    return identity;
}

static enum filter_action action_of(str text)
{
    enum filter_action action = FILTER_OFF;
    ensure(filter_action_parse(text, &action)); /* the table of settings has looked */
    return action;
}

static bool add_filter(struct filter_bank *bank, const struct config_filter *from, struct error *e)
{
    struct filter_rule *rules = ARENA_ARRAY(bank->arena, struct filter_rule, from->rule_count + 1);
    for (size_t i = 0; i < from->rule_count; i++)
        rules[i] = (struct filter_rule){from->rules[i].name, from->rules[i].pattern,
                                        from->rules[i].group, action_of(from->rules[i].action)};
    struct filter_options options = {
        .groups = {[FILTER_SECRETS] = action_of(from->secrets),
                   [FILTER_PII] = action_of(from->pii),
                   [FILTER_INJECTION] = action_of(from->injection)},
        .rules = rules,
        .rule_count = from->rule_count,
    };
    struct filter_set *set;
    if (!filter_set_create(&options, &set, e))
        return error_wrap(e, "filter \"" STR_FMT "\"", STR_ARG(from->name));
    bank->sets[bank->count] = set;
    struct guard_rules *item = &bank->items[bank->count++];
    item->name = str_copy(bank->arena, from->name);
    item->metrics = bank->metrics;
    if (filter_set_rule_count(set) > 0 && !str_equal(from->direction, S("response")))
        item->sets[GUARD_REQUEST] = set;
    if (filter_set_rule_count(set) > 0 && !str_equal(from->direction, S("request")))
        item->sets[GUARD_REPLY] = set;
    return true;
}

static bool create(const struct config *config, struct metrics *metrics, struct filter_bank **out,
                   struct error *e)
{
    struct filter_bank *bank = calloc(1, sizeof *bank);
    ensure(bank != NULL);
    bank->references = 1;
    bank->arena = arena_create(0);
    bank->identity = identity_of(config);
    bank->metrics = metrics;
    bank->items = ARENA_ARRAY(bank->arena, struct guard_rules, config->filter_count + 1);
    bank->sets = ARENA_ARRAY(bank->arena, struct filter_set *, config->filter_count + 1);
    for (size_t i = 0; i < config->filter_count; i++)
        if (!add_filter(bank, &config->filters[i], e)) {
            filter_bank_release(bank);
            return false;
        }
    *out = bank;
    return true;
}

bool filter_bank_take(struct filter_bank **kept, const struct config *config,
                      struct metrics *metrics, struct filter_bank **out, struct error *e)
{
    bool fits = kept && *kept && (*kept)->metrics == metrics &&
                digest_equal((*kept)->identity, identity_of(config));
    struct filter_bank *bank = fits ? *kept : NULL;
    if (!fits) {
        if (!create(config, metrics, &bank, e))
            return false;
        if (!kept) {
            *out = bank;
            return true;
        }
        filter_bank_release(*kept);
        *kept = bank;
    }
    atomic_fetch_add(&bank->references, 1);
    *out = bank;
    return true;
}

void filter_bank_release(struct filter_bank *bank)
{
    if (!bank || atomic_fetch_sub(&bank->references, 1) > 1)
        return;
    for (size_t i = 0; i < bank->count; i++)
        filter_set_destroy(bank->sets[i]);
    arena_destroy(bank->arena);
    free(bank);
}

void filter_bank_drop(void *bank)
{
    filter_bank_release(bank);
}

const struct guard_rules *filter_bank_find(const struct filter_bank *bank, str name)
{
    for (size_t i = 0; i < bank->count; i++)
        if (str_equal(bank->items[i].name, name))
            return &bank->items[i];
    return NULL;
}
