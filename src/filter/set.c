/* rules to a set */
#include "filter/filter_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <ctype.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#define BLOCK FILTER_BLOCK
#define FLAG FILTER_FLAG
#define SECRETS FILTER_SECRETS
#define PII FILTER_PII
#define INJECTION FILTER_INJECTION
static const struct builtin {
    str name;
    enum filter_group group;
    str mask;
    filter_check *check;
    enum filter_action strictest;
    str pattern;
} builtins[] = {
#define FILTER_RULE(name_, group_, mask_, check_, strictest_, pattern_)                            \
    {S_INIT(name_), group_, S_INIT("[" mask_ "]"), check_, strictest_, S_INIT(pattern_)},
#include "filter/rules.def"
#undef FILTER_RULE
};
#undef BLOCK
#undef FLAG
#undef SECRETS
#undef PII
#undef INJECTION

static const char *const action_names[] = {"off", "flag", "mask", "block"};
static const char *const group_names[] = {"secrets", "pii", "injection"};

const char *filter_action_name(enum filter_action action)
{
    return action_names[action];
}

bool filter_action_parse(str text, enum filter_action *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(action_names); i++)
        if (str_equal(text, str_from_cstr(action_names[i]))) {
            *out = (enum filter_action) i;
            return true;
        }
    return false;
}

const char *filter_group_name(enum filter_group group)
{
    return group_names[group];
}

bool filter_group_parse(str text, enum filter_group *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(group_names); i++)
        if (str_equal(text, str_from_cstr(group_names[i]))) {
            *out = (enum filter_group) i;
            return true;
        }
    return false;
}

/* ---- rules ---- */

static bool add_rule(struct filter_set *set, const struct rule *rule, str pattern, struct error *e)
{
    struct rule *added = &set->rules[set->rule_count];
    *added = *rule;
    if (!pattern_parse(set->arena, pattern, &added->pattern, e) ||
        !pattern_compile(set->arena, added->pattern, &added->program, e))
        return error_wrap(e, "filter rule " STR_FMT, STR_ARG(rule->name));
    if (pattern_bytes_min(added->pattern) > FILTER_MATCH_BYTES_MAX)
        return error_set(e, REASON_CONFIG,
                         "filter rule " STR_FMT ": its shortest match is longer than %u bytes",
                         STR_ARG(rule->name), FILTER_MATCH_BYTES_MAX);
    pattern_first_bytes(added->pattern, &added->first);
    added->before = pattern_before(added->pattern);
    set->rule_count++;
    return true;
}

static bool check_name(str name, struct error *e)
{
    bool is_fine = name.len > 0 && name.len <= FILTER_RULE_NAME_BYTES_MAX;
    for (size_t i = 0; i < name.len && is_fine; i++)
        is_fine = isalnum((unsigned char) name.ptr[i]) || name.ptr[i] == '_' || name.ptr[i] == '-';
    if (!is_fine)
        return error_set(e, REASON_CONFIG,
                         "filter rule " STR_FMT ": a name has 1 to %u letters, digits, - and _",
                         STR_ARG(str_cut_utf8(name, FILTER_RULE_NAME_BYTES_MAX)),
                         FILTER_RULE_NAME_BYTES_MAX);
    return true;
}

/* "ticket-id" -> "[TICKET_ID]" */
static str mask_of(struct arena *arena, str name)
{
    str mask = str_printf(arena, "[" STR_FMT "]", STR_ARG(name));
    char *text = str_to_cstr(arena, mask);
    for (size_t i = 0; i < mask.len; i++)
        text[i] = text[i] == '-' ? '_' : (char) toupper((unsigned char) text[i]);
    return str_of(text, mask.len);
}

static bool add_user_rules(struct filter_set *set, const struct filter_options *options,
                           struct error *e)
{
    if (options->rule_count > FILTER_USER_RULES_MAX)
        return error_set(e, REASON_CONFIG, "a filter has at most %u rules", FILTER_USER_RULES_MAX);
    for (size_t i = 0; i < options->rule_count; i++) {
        const struct filter_rule *given = &options->rules[i];
        if (!check_name(given->name, e))
            return false;
        for (size_t j = 0; j < i; j++)
            if (str_equal(options->rules[j].name, given->name))
                return error_set(e, REASON_CONFIG, "filter rule " STR_FMT ": there are two of them",
                                 STR_ARG(given->name));
        if (given->action == FILTER_OFF)
            continue;
        str group = str_is_empty(given->group) ? S("custom") : given->group;
        struct rule rule = {.name = str_copy(set->arena, given->name),
                            .group = str_copy(set->arena, group),
                            .mask = mask_of(set->arena, given->name),
                            .action = given->action};
        if (!add_rule(set, &rule, given->pattern, e))
            return false;
    }
    return true;
}

static bool add_builtins(struct filter_set *set, const struct filter_options *options,
                         struct error *e)
{
    static_assert(ARRAY_COUNT(builtins) + FILTER_USER_RULES_MAX <= FILTER_RULES_MAX, "rules");
    for (size_t i = 0; i < ARRAY_COUNT(builtins); i++) {
        const struct builtin *builtin = &builtins[i];
        enum filter_action action = options->groups[builtin->group];
        struct rule rule = {.name = builtin->name,
                            .group = str_from_cstr(group_names[builtin->group]),
                            .mask = builtin->mask,
                            .action = action < builtin->strictest ? action : builtin->strictest,
                            .check = builtin->check};
        if (rule.action != FILTER_OFF && !add_rule(set, &rule, builtin->pattern, e))
            return false;
    }
    return true;
}

bool filter_rule_check(const struct filter_rule *rule, struct error *e)
{
    OWNED(arena) arena = arena_create(SIZE_MAX);
    struct rule read;
    struct filter_set set = {.arena = arena, .rules = &read};
    struct rule given = {.name = rule->name};
    return check_name(rule->name, e) && add_rule(&set, &given, rule->pattern, e);
}

/* ---- the matcher ---- */

static bool compile_database(struct filter_set *set, struct error *e)
{
    OWNED(arena) scratch = arena_create(SIZE_MAX);
    size_t count = set->rule_count;
    const char **texts = ARENA_ARRAY(scratch, const char *, count);
    unsigned *flags = ARENA_ARRAY(scratch, unsigned, count);
    unsigned *ids = ARENA_ARRAY(scratch, unsigned, count);
    for (size_t i = 0; i < count; i++) {
        struct strbuf text;
        strbuf_init(&text, scratch, SIZE_MAX);
        pattern_print(set->rules[i].pattern, &text);
        texts[i] = str_to_cstr(scratch, strbuf_str(&text));
        flags[i] = HS_FLAG_DOTALL;
        ids[i] = (unsigned) i;
    }
    hs_compile_error_t *failed = NULL;
    if (hs_compile_multi(texts, flags, ids, (unsigned) count, HS_MODE_STREAM, NULL, &set->database,
                         &failed) != HS_SUCCESS) {
        if (failed->expression >= 0)
            error_set(e, REASON_CONFIG, "filter rule " STR_FMT ": %s",
                      STR_ARG(set->rules[failed->expression].name), failed->message);
        else
            error_set(e, REASON_CONFIG, "the filter's rules do not compile: %s", failed->message);
        hs_free_compile_error(failed);
        return false;
    }
    hs_stream_size(set->database, &set->stream_bytes);
    hs_database_size(set->database, &set->database_bytes);
    return true;
}

/* Together, or in halves when that is too much: states multiply, halves only add up. */
static bool add_holds(struct filter_set *set, const struct node **patterns, size_t from, size_t to,
                      struct error *e)
{
    struct hold hold;
    if (from == to)
        return true;
    if (set->hold_count < FILTER_HOLDS_MAX &&
        hold_create(set->arena, patterns + from, to - from, &hold)) {
        set->holds[set->hold_count++] = hold;
        return true;
    }
    if (to - from == 1 || set->hold_count >= FILTER_HOLDS_MAX)
        return error_set(e, REASON_CONFIG,
                         "filter rule " STR_FMT ": too many different beginnings of a match",
                         STR_ARG(set->rules[from].name));
    size_t half = from + (to - from) / 2;
    return add_holds(set, patterns, from, half, e) && add_holds(set, patterns, half, to, e);
}

/* Rules of one group have more in common: fewer states. */
static bool build_holds(struct filter_set *set, struct error *e)
{
    const struct node **patterns = ARENA_ARRAY(set->arena, const struct node *, set->rule_count);
    set->holds = ARENA_ARRAY(set->arena, struct hold, FILTER_HOLDS_MAX);
    size_t from = 0;
    for (size_t i = 0; i < set->rule_count; i++) {
        patterns[i] = set->rules[i].pattern;
        bool is_last =
            i + 1 == set->rule_count || !str_equal(set->rules[i].group, set->rules[i + 1].group);
        if (!is_last)
            continue;
        if (!add_holds(set, patterns, from, i + 1, e))
            return false;
        from = i + 1;
    }
    return true;
}

static bool build(struct filter_set *set, const struct filter_options *options, struct error *e)
{
    set->rules = ARENA_ARRAY(set->arena, struct rule, options->rule_count + ARRAY_COUNT(builtins));
    if (!add_user_rules(set, options, e) || !add_builtins(set, options, e))
        return false;
    if (set->rule_count == 0)
        return true;
    return build_holds(set, e) && compile_database(set, e);
}

bool filter_set_create(const struct filter_options *options, struct filter_set **out,
                       struct error *e)
{
    static _Atomic uint64_t last_id;
    struct filter_set *set = calloc(1, sizeof *set);
    ensure(set);
    set->arena = arena_create(SIZE_MAX);
    set->id = atomic_fetch_add(&last_id, 1) + 1;
    if (!build(set, options, e)) {
        filter_set_destroy(set);
        return false;
    }
    *out = set;
    return true;
}

void filter_set_destroy(struct filter_set *set)
{
    if (!set)
        return;
    hs_free_database(set->database);
    arena_destroy(set->arena);
    free(set);
}

size_t filter_set_rule_count(const struct filter_set *set)
{
    return set->rule_count;
}

size_t filter_set_bytes(const struct filter_set *set)
{
    return sizeof *set + arena_bytes(set->arena) + set->database_bytes;
}

/* ---- threads ---- */

static pthread_key_t thread_key;
static pthread_once_t thread_once = PTHREAD_ONCE_INIT;
static __thread struct filter_thread *this_thread;

static void free_thread(void *memory)
{
    struct filter_thread *thread = memory;
    hs_free_scratch(thread->scratch);
    free(thread->run.now);
    free(thread->run.later);
    free(thread->run.stack);
    free(thread->run.seen);
    free(thread);
}

static void make_key(void)
{
    ensure(pthread_key_create(&thread_key, free_thread) == 0);
}

static void *zeroed(size_t count, size_t bytes)
{
    void *memory = calloc(count, bytes);
    ensure(memory);
    return memory;
}

static struct filter_thread *make_thread(void)
{
    struct filter_thread *thread = zeroed(1, sizeof *thread);
    thread->run.now = zeroed(FILTER_PROGRAM_MAX, sizeof(uint16_t));
    thread->run.later = zeroed(FILTER_PROGRAM_MAX, sizeof(uint16_t));
    thread->run.stack = zeroed((size_t) 2 * FILTER_PROGRAM_MAX + 1, sizeof(uint16_t));
    thread->run.seen = zeroed(FILTER_PROGRAM_MAX, sizeof(uint32_t));
    pthread_once(&thread_once, make_key);
    ensure(pthread_setspecific(thread_key, thread) == 0);
    return thread;
}

struct filter_thread *filter_thread_for(const struct filter_set *set)
{
    if (unlikely(!this_thread))
        this_thread = make_thread();
    struct filter_thread *thread = this_thread;
    for (size_t i = 0; i < ARRAY_COUNT(thread->ready); i++)
        if (likely(thread->ready[i] == set->id))
            return thread;
    ensure(hs_alloc_scratch(set->database, &thread->scratch) == HS_SUCCESS);
    thread->ready[thread->ready_at++ % ARRAY_COUNT(thread->ready)] = set->id;
    return thread;
}
