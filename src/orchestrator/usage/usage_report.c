/*
 * Sums of usage by what one asks for, and A/B reports.
 */
#include "orchestrator/usage/usage_report.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/map.h"
#include "base/timefmt.h"
#include "orchestrator/orchestrator_internal.h"
#include <math.h>

enum { DAY_BYTES = 10 };
#define DAY_US (86400ll * 1000000)

bool usage_by_parse(str name, unsigned *out)
{
    static const struct {
        str name;
        unsigned bit;
    } names[] = {{S_INIT("day"), USAGE_BY_DAY},           {S_INIT("user"), USAGE_BY_USER},
                 {S_INIT("key"), USAGE_BY_KEY},           {S_INIT("model"), USAGE_BY_MODEL},
                 {S_INIT("provider"), USAGE_BY_PROVIDER}, {S_INIT("variant"), USAGE_BY_VARIANT},
                 {S_INIT("kind"), USAGE_BY_KIND}};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (str_equal(name, names[i].name)) {
            *out = names[i].bit;
            return true;
        }
    return false;
}

/* ---- groups ---- */

struct summing {
    struct arena *arena; /* of the groups: pages come and go on the call's */
    struct map *groups;
    struct usage_sums *out;
    size_t capacity;
    unsigned by;
    bool has_daily; /* plain calls are in USAGE_DAILY: their ledger rows are passed over */
    int64_t rows;
};

static void group_names(struct usage_group *group, str *names[7])
{
    str *all[] = {&group->day,      &group->user_id, &group->key_id, &group->model,
                  &group->provider, &group->variant, &group->kind};
    memcpy(names, all, sizeof all);
}

static str key_of(struct arena *arena, struct usage_group *group)
{
    str *names[7];
    struct strbuf text;
    strbuf_init(&text, arena, 8192);
    group_names(group, names);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        strbuf_add(&text, *names[i]);
        strbuf_add_char(&text, '\n');
    }
    return strbuf_str(&text);
}

/* Only what was asked for tells groups apart. */
static void forget_others(struct usage_group *group, unsigned by)
{
    str *names[7];
    group_names(group, names);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (!(by & 1u << i))
            *names[i] = STR_NONE;
}

static struct usage_group *make_group(struct summing *s, const struct usage_group *found)
{
    str *names[7];
    if (s->out->count == s->capacity) {
        size_t capacity = s->capacity ? 2 * s->capacity : 16;
        s->out->groups = arena_grow(s->arena, s->out->groups, s->capacity * sizeof *s->out->groups,
                                    capacity * sizeof *s->out->groups);
        s->capacity = capacity;
    }
    struct usage_group *made = &s->out->groups[s->out->count++];
    *made = *found;
    group_names(made, names);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        *names[i] = str_copy(s->arena, *names[i]);
    return made;
}

static void add_group(struct usage_group *sum, const struct usage_group *more)
{
    sum->sum = cost_add(sum->sum, more->sum);
    sum->entries += more->entries;
    sum->requests += more->requests;
    sum->errors += more->errors;
    sum->cache_hits += more->cache_hits;
    sum->input_tokens += more->input_tokens;
    sum->output_tokens += more->output_tokens;
    sum->cached_tokens += more->cached_tokens;
    sum->cache_write_tokens += more->cache_write_tokens;
    sum->reasoning_tokens += more->reasoning_tokens;
    sum->duration_us += more->duration_us;
    sum->first_token_us += more->first_token_us;
    sum->first_tokens += more->first_tokens;
    sum->feedback_count += more->feedback_count;
    sum->feedback_sum += more->feedback_sum;
    sum->feedback_squares += more->feedback_squares;
}

static bool add(struct summing *s, struct usage_group *found, struct error *e)
{
    forget_others(found, s->by);
    arena_mark mark = arena_save(s->arena);
    str key = key_of(s->arena, found);
    size_t *position = map_find(s->groups, key);
    if (position) {
        arena_rewind(s->arena, mark);
        add_group(&s->out->groups[*position], found);
    } else {
        if (s->out->count == USAGE_GROUPS_MAX)
            return error_set(e, REASON_LIMIT,
                             "more than %d groups: narrow ?from= and ?to=", USAGE_GROUPS_MAX);
        position = ARENA_NEW(s->arena, size_t);
        *position = s->out->count;
        map_put(s->groups, key, position);
        (void) make_group(s, found);
    }
    add_group(&s->out->total, found);
    return true;
}

/* ---- rows ---- */

static struct usage_group group_of_day(const struct record *row)
{
    struct usage_group group = {
        .day = record_text(row, USAGE_DAILY_DAY),
        .user_id = record_text(row, USAGE_DAILY_USER_ID),
        .key_id = record_text(row, USAGE_DAILY_KEY_ID),
        .model = record_text(row, USAGE_DAILY_MODEL),
        .provider = record_text(row, USAGE_DAILY_PROVIDER),
        .variant = record_text(row, USAGE_DAILY_VARIANT),
        .kind = record_text(row, USAGE_DAILY_KIND),
        .requests = record_integer(row, USAGE_DAILY_REQUESTS),
        .errors = record_integer(row, USAGE_DAILY_ERRORS),
        .cache_hits = record_integer(row, USAGE_DAILY_CACHE_HITS),
        .input_tokens = record_integer(row, USAGE_DAILY_INPUT_TOKENS),
        .output_tokens = record_integer(row, USAGE_DAILY_OUTPUT_TOKENS),
        .cached_tokens = record_integer(row, USAGE_DAILY_CACHED_TOKENS),
        .cache_write_tokens = record_integer(row, USAGE_DAILY_CACHE_WRITE_TOKENS),
        .reasoning_tokens = record_integer(row, USAGE_DAILY_REASONING_TOKENS),
        .duration_us = record_integer(row, USAGE_DAILY_DURATION_US),
        .first_token_us = record_integer(row, USAGE_DAILY_FIRST_TOKEN_US),
        .first_tokens = record_integer(row, USAGE_DAILY_FIRST_TOKENS),
        .feedback_count = record_integer(row, USAGE_DAILY_FEEDBACK_COUNT),
        .feedback_sum = record_integer(row, USAGE_DAILY_FEEDBACK_SUM),
        .feedback_squares = record_integer(row, USAGE_DAILY_FEEDBACK_SQUARES),
    };
    group.entries = group.requests;
    group.sum = (cost){.tokens = group.input_tokens + group.output_tokens,
                       .time_ms = record_integer(row, USAGE_DAILY_TIME_MS),
                       .cost_nanousd = record_integer(row, USAGE_DAILY_NANOUSD)};
    return group;
}

static bool add_day(struct summing *s, const struct record *row, struct error *e)
{
    struct usage_group group = group_of_day(row);
    return add(s, &group, e);
}

static bool is_plain(const struct record *row)
{
    return !record_has(row, LEDGER_RUN_ID) &&
           str_equal(record_text(row, LEDGER_KIND), S("model")) &&
           !str_equal(record_text(row, LEDGER_BASIS), S("forfeited"));
}

static int64_t calls_of(struct arena *arena, const struct record *row)
{
    const struct json *details;
    struct error ignored;
    int64_t calls;
    arena_mark mark = arena_save(arena);
    bool has = record_has(row, LEDGER_DETAILS) &&
               json_parse(arena, record_text(row, LEDGER_DETAILS), (struct json_limits){0},
                          &details, &ignored) &&
               json_to_i64(json_path(details, S("/calls")), &calls);
    arena_rewind(arena, mark);
    return has ? calls : 1;
}

static bool add_entry(struct summing *s, const struct record *row, struct error *e)
{
    char when[TIME_TEXT_BYTES + 1], key[UUID_TEXT_BYTES + 1];
    if (s->has_daily && is_plain(row))
        return true;
    time_format(record_integer(row, LEDGER_AT), when);
    uuid_format(record_uuid(row, LEDGER_KEY_ID), key);
    struct usage_group group = {
        .day = str_of(when, DAY_BYTES),
        .user_id = record_text(row, LEDGER_USER_ID),
        .key_id = record_has(row, LEDGER_KEY_ID) ? str_of(key, UUID_TEXT_BYTES) : STR_NONE,
        .model = record_text(row, LEDGER_MODEL),
        .kind = record_text(row, LEDGER_KIND),
        .entries = calls_of(s->arena, row),
        .sum = {record_integer(row, LEDGER_TOKENS), record_integer(row, LEDGER_TIME_MS),
                record_integer(row, LEDGER_NANOUSD), record_integer(row, LEDGER_TOOL_CALLS)},
    };
    return add(s, &group, e);
}

typedef bool add_row_fn(struct summing *s, const struct record *row, struct error *e);

static bool sum_rows(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                     struct query *query, add_row_fn *add_row, struct summing *s, struct error *e)
{
    OWNED(arena) cursors = arena_create(0);
    do {
        struct records page;
        arena_mark mark = arena_save(ctx->arena);
        bool ok = store_list(o->parts.store, ctx, tenant_id, query, &page, e);
        for (size_t i = 0; ok && i < page.count; i++)
            ok = add_row(s, &page.items[i], e);
        query->cursor = ok ? str_copy(cursors, page.next_cursor) : STR_NONE;
        s->rows += ok ? (int64_t) page.count : 0;
        arena_rewind(ctx->arena, mark);
        if (!ok)
            return false;
        if (s->rows > GATEWAY_USAGE_ROWS_MAX)
            return error_set(e, REASON_LIMIT,
                             "more than %u rows: narrow ?from= and ?to=", GATEWAY_USAGE_ROWS_MAX);
    } while (!str_is_empty(query->cursor));
    return true;
}

/* ---- the question ---- */

static void where_day(struct arena *arena, struct query *query, int column, int64_t from_us,
                      int64_t to_us)
{
    struct filter *filter;
    if (from_us > 0) { /* from the day itself: greater than the day before */
        query_where_text(query, column, str_slice(time_str(arena, from_us - DAY_US), 0, DAY_BYTES));
        filter = &query->filters[query->filter_count - 1];
        filter->op = FILTER_GREATER;
    }
    if (to_us > 0) {
        query_where_text(query, column, str_slice(time_str(arena, to_us), 0, DAY_BYTES));
        filter = &query->filters[query->filter_count - 1];
        filter->op = FILTER_LESS;
    }
}

static bool sum_days(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                     const struct usage_question *question, struct summing *s, struct error *e)
{
    struct query *query = ARENA_NEW(s->arena, struct query);
    *query = query_of(TABLE_USAGE_DAILY);
    where_day(s->arena, query, USAGE_DAILY_DAY, question->from_us, question->to_us);
    if (!str_is_empty(question->user_id))
        query_where_text(query, USAGE_DAILY_USER_ID, question->user_id);
    return sum_rows(o, ctx, tenant_id, query, add_day, s, e);
}

static bool sum_ledger(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                       const struct usage_question *question, struct summing *s, struct error *e)
{
    struct query *query = ARENA_NEW(s->arena, struct query);
    *query = query_of(TABLE_LEDGER);
    if (!str_is_empty(question->user_id))
        query_where_text(query, LEDGER_USER_ID, question->user_id);
    if (question->from_us > 0)
        query_where_integer(query, LEDGER_AT, FILTER_GREATER, question->from_us - 1);
    if (question->to_us > 0)
        query_where_integer(query, LEDGER_AT, FILTER_LESS, question->to_us);
    return sum_rows(o, ctx, tenant_id, query, add_entry, s, e);
}

static bool check_question(const struct principal *principal, struct usage_question *question,
                           bool is_whole, struct error *e)
{
    unsigned finer = USAGE_BY_PROVIDER | USAGE_BY_VARIANT | USAGE_BY_KEY;
    if (!is_whole && question->by & finer)
        return error_set(e, REASON_INVALID,
                         "by key, provider and variant there are whole days (UTC) only: give "
                         "?from= and ?to= as midnights");
    if (principal->level >= ROLE_LEVEL_OPERATOR)
        return true;
    if (!str_is_empty(question->user_id) && !str_equal(question->user_id, principal->user_id))
        return error_set(e, REASON_DENIED, "the usage of others needs the role operator");
    question->user_id = principal->user_id;
    return true;
}

bool usage_sums(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                const struct usage_question *question, struct usage_sums *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    OWNED(map) groups = map_create();
    struct usage_question own = *question;
    bool is_whole = question->from_us % DAY_US == 0 && question->to_us % DAY_US == 0;
    struct usage_sums *found = ARENA_NEW(arena, struct usage_sums);
    struct summing s = {
        .arena = arena, .groups = groups, .out = found, .by = question->by, .has_daily = is_whole};
    if (!check_question(principal, &own, is_whole, e) || !usage_log_sync(o->usage, ctx, e) ||
        (is_whole && !sum_days(o, ctx, principal->tenant_id, &own, &s, e)) ||
        !sum_ledger(o, ctx, principal->tenant_id, &own, &s, e))
        return false;
    *out = *found;
    out->groups = ARENA_ARRAY(ctx->arena, struct usage_group, found->count);
    for (size_t i = 0; i < found->count; i++) {
        str *names[7];
        out->groups[i] = found->groups[i];
        group_names(&out->groups[i], names);
        for (size_t n = 0; n < ARRAY_COUNT(names); n++)
            *names[n] = str_copy(ctx->arena, *names[n]);
    }
    return true;
}

/* ---- A/B ---- */

struct usage_interval usage_feedback_interval(const struct usage_group *group)
{
    double count = (double) group->feedback_count, mean = NAN;
    if (group->feedback_count == 0)
        return (struct usage_interval){NAN, NAN, NAN};
    mean = (double) group->feedback_sum / 1000 / count;
    if (group->feedback_count < 2)
        return (struct usage_interval){mean, NAN, NAN};
    double squares = (double) group->feedback_squares / 1e6;
    double variance = (squares - count * mean * mean) / (count - 1);
    double half = variance > 0 ? 1.96 * sqrt(variance / count) : 0;
    return (struct usage_interval){mean, fmax(0, mean - half), fmin(1, mean + half)};
}

struct experiment {
    struct summing summing;
    struct usage_variant *variants;
    size_t count;
};

static struct usage_variant *variant_of(struct experiment *experiment, str name)
{
    for (size_t i = 0; i < experiment->count; i++)
        if (str_equal(experiment->variants[i].sums.variant, name))
            return &experiment->variants[i];
    if (experiment->count == MODEL_TARGETS_MAX)
        return &experiment->variants[MODEL_TARGETS_MAX - 1];
    struct usage_variant *made = &experiment->variants[experiment->count++];
    made->sums.variant = str_copy(experiment->summing.arena, name);
    return made;
}

static bool add_variant_day(struct summing *s, const struct record *row, struct error *e)
{
    struct experiment *experiment = CONTAINER_OF(s, struct experiment, summing);
    struct usage_group group = group_of_day(row);
    (void) e;
    add_group(&variant_of(experiment, group.variant)->sums, &group);
    return true;
}

static bool add_variant_latency(struct summing *s, const struct record *row, struct error *e)
{
    struct experiment *experiment = CONTAINER_OF(s, struct experiment, summing);
    struct usage_variant *variant = variant_of(experiment, record_text(row, USAGE_LATENCY_VARIANT));
    bool is_first = str_equal(record_text(row, USAGE_LATENCY_MEASURE), S("first_token"));
    int64_t *counts = is_first ? variant->first_token : variant->duration;
    (void) e;
    for (int i = 0; i < USAGE_LATENCY_BUCKETS; i++)
        counts[i] += record_integer(row, USAGE_LATENCY_LE_0 + i);
    return true;
}

bool usage_experiment(struct orchestrator *o, struct context *ctx,
                      const struct principal *principal, str model, int64_t from_us, int64_t to_us,
                      struct usage_variant **out, size_t *count, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct experiment experiment = {
        .summing = {.arena = arena},
        .variants = ARENA_ARRAY(ctx->arena, struct usage_variant, MODEL_TARGETS_MAX),
    };
    if (principal->level < ROLE_LEVEL_OPERATOR)
        return error_set(e, REASON_DENIED, "a report over all users needs the role operator");
    if (from_us % DAY_US != 0 || to_us % DAY_US != 0)
        return error_set(e, REASON_INVALID, "?from= and ?to= must be midnights (UTC)");
    static const struct {
        enum table table;
        int day, model;
        add_row_fn *add;
    } parts[] = {
        {TABLE_USAGE_DAILY, USAGE_DAILY_DAY, USAGE_DAILY_MODEL, add_variant_day},
        {TABLE_USAGE_LATENCY, USAGE_LATENCY_DAY, USAGE_LATENCY_MODEL, add_variant_latency},
    };
    if (!usage_log_sync(o->usage, ctx, e))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        struct query *query = ARENA_NEW(arena, struct query);
        *query = query_of(parts[i].table);
        where_day(arena, query, parts[i].day, from_us, to_us);
        query_where_text(query, parts[i].model, model);
        if (!sum_rows(o, ctx, principal->tenant_id, query, parts[i].add, &experiment.summing, e))
            return false;
    }
    for (size_t i = 0; i < experiment.count; i++) {
        struct usage_group *sums = &experiment.variants[i].sums;
        sums->variant = str_copy(ctx->arena, sums->variant);
        forget_others(sums, USAGE_BY_VARIANT);
    }
    *out = experiment.variants;
    *count = experiment.count;
    return true;
}
