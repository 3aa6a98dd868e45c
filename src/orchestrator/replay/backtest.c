#include "orchestrator/replay/backtest.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/timefmt.h"
#include "orchestrator/replay/backtest_internal.h"
#include "runtime/scratch_folder.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- counting ---- */

struct tally *backtest_tally(struct backtest *b, struct tallies *list, str a, str b_, str c, str d)
{
    const str keys[4] = {a, b_, c, d};
    for (size_t i = 0; i < list->count; i++) {
        bool is_it = true;
        for (size_t k = 0; k < ARRAY_COUNT(keys) && is_it; k++)
            is_it = str_equal(list->items[i].key[k], keys[k]);
        if (is_it)
            return &list->items[i];
    }
    if (list->count == BACKTEST_GROUPS_MAX) {
        list->left_out++;
        return NULL;
    }
    if (!list->items)
        list->items = ARENA_ARRAY(b->arena, struct tally, BACKTEST_GROUPS_MAX);
    struct tally *made = &list->items[list->count++];
    for (size_t k = 0; k < ARRAY_COUNT(keys); k++)
        made->key[k] = str_copy(b->arena, keys[k]);
    return made;
}

/* ---- candidates ---- */

static bool lay_down(struct backtest *b, const struct json *policy, struct scratch_folder *scratch,
                     struct error *e)
{
    struct json_iter it = json_iter(json_get(policy, S("modules")));
    const struct json *module, *data = json_get(policy, S("data"));
    if (it.count == 0)
        return error_set(e, REASON_CONFIG, "policy: there is no module");
    while (json_next(&it, NULL, &module)) {
        str name = json_str_or(module, S("name"), STR_NONE);
        if (!str_ends_with(name, S(".rego")))
            return error_set(e, REASON_CONFIG, "policy: \"" STR_FMT "\" is no name of a module",
                             STR_ARG(str_cut_utf8(name, 100)));
        if (!scratch_folder_write(scratch, name, json_str_or(module, S("source"), STR_NONE), e))
            return error_wrap(e, "policy");
    }
    return !data || scratch_folder_write(scratch, S("data.json"), json_print(b->arena, data), e) ||
           error_wrap(e, "policy");
}

/* Whoever sent the modules knows them by their names, and nothing of the folder. */
static bool name_module(struct error *e, str folder)
{
    char text[ERROR_MESSAGE_BYTES];
    str message = str_from_cstr(e->message), rest;
    size_t at = str_find(message, folder);
    if (at == STR_NOT_FOUND)
        return false;
    rest = str_from(message, at + folder.len);
    const char *whole = str_strip_prefix(rest, S("/"), &rest) ? "" : "policy";
    (void) snprintf(text, sizeof text, STR_FMT "%s" STR_FMT, STR_ARG(str_slice(message, 0, at)),
                    whole, STR_ARG(rest));
    memcpy(e->message, text, sizeof text);
    return false;
}

/* The engine reads folders: the modules lie in one for as long as it takes to compile them. */
static bool open_policy(struct backtest *b, const struct json *policy, struct error *e)
{
    struct scratch_folder scratch;
    if (!scratch_folder_make(&scratch, S("backtest"), e))
        return error_wrap(e, "policy");
    struct policy_rego_options options = {.dir = scratch_folder_path(&scratch)};
    bool ok = lay_down(b, policy, &scratch, e) && (policy_rego_create(&options, &b->policy, e) ||
                                                   name_module(e, scratch_folder_path(&scratch)));
    scratch_folder_remove(&scratch);
    return ok;
}

static bool open_candidates(struct backtest *b, const struct json *request, struct error *e)
{
    const struct json *policy = json_get(request, S("policy")),
                      *router = json_get(request, S("router")),
                      *filter = json_get(request, S("filter"));
    str prices;
    bool has_prices = json_to_str(json_get(request, S("prices")), &prices);
    if (!policy && !router && !filter && !has_prices)
        return error_set(e, REASON_SCHEMA,
                         "nothing to try: give a policy, prices, router or filter");
    return (!policy || open_policy(b, policy, e)) &&
           (!has_prices || prices_parse(S("prices"), prices, &b->prices, e)) &&
           (!router || backtest_routes_read(b, router, e)) &&
           (!filter || backtest_filter_read(b, filter, e));
}

bool backtest_open(const struct json *request, int64_t now_us, struct backtest **out,
                   struct error *e)
{
    struct backtest *b = calloc(1, sizeof *b);
    int64_t since_ms = 7ll * 24 * 3600 * 1000;
    ensure(b != NULL);
    b->arena = arena_create(0);
    bool ok = json_read_i64(request, S("since_ms"), 1, BACKTEST_DAYS_MAX * 24ll * 3600 * 1000,
                            &since_ms, e) &&
              open_candidates(b, request, e);
    if (!ok) {
        backtest_close(b);
        return false;
    }
    b->since_us = now_us - since_ms * 1000;
    *out = b;
    return true;
}

void backtest_close(struct backtest *b)
{
    if (!b)
        return;
    if (b->policy)
        policy_destroy(b->policy);
    prices_destroy(b->prices);
    filter_set_destroy(b->filter);
    arena_destroy(b->arena);
    free(b);
}

/* ---- the traffic ---- */

static void take_model_call(struct backtest *b, const struct backtest_run *run,
                            const struct event *event, const struct json *completed)
{
    cost used;
    const struct json *usage = json_get(completed, S("usage"));
    if (!run->asked || !cost_read_json(json_get(event->data, S("amount")), &used))
        return;
    backtest_call(b,
                  &(struct backtest_call){
                      .model = json_str_or(run->asked, S("model"), STR_NONE),
                      .provider = json_str_or(run->asked, S("provider"), STR_NONE),
                      .target = json_str_or(run->asked, S("provider_model"), STR_NONE),
                      .at_us = event->at_us,
                      .nanousd = used.cost_nanousd,
                      .usage =
                          {
                              .input_tokens = json_i64_or(usage, S("input_tokens"), 0),
                              .output_tokens = json_i64_or(usage, S("output_tokens"), 0),
                              .cached_tokens = json_i64_or(usage, S("cached_tokens"), 0),
                              .cache_write_tokens = json_i64_or(usage, S("cache_write_tokens"), 0),
                              .reasoning_tokens = json_i64_or(usage, S("reasoning_tokens"), 0),
                              .is_reported = true,
                          },
                  });
}

/* Pages of one run's journal; the model call that a page cuts in two is kept for the next one. */
static never_inline bool walk_events(struct backtest *b, struct backtest_run *run, struct error *e)
{
    OWNED(arena) kept = arena_create(0);
    int64_t after =
        record_integer(run->row, AGENT_RUNS_FORKED_AT); /* what it shares is the other's */
    const struct json *completed = NULL;
    for (size_t read = STORE_PAGE_MAX; read == STORE_PAGE_MAX;) {
        struct events events;
        arena_mark mark = arena_save(b->ctx->arena);
        if (!journal_read(b->o->parts.store, b->ctx, b->tenant_id,
                          record_uuid(run->row, AGENT_RUNS_ID), after, STORE_PAGE_MAX, &events, e))
            return false;
        read = events.count;
        for (size_t i = 0; i < events.count; i++) {
            const struct event *event = &events.items[i];
            after = event->seq;
            if (event->type == EVENT_POLICY_DECIDED && b->policy &&
                !backtest_policy_event(b, run, event, e))
                return false;
            if (event->type == EVENT_MODEL_REQUESTED || event->type == EVENT_MODEL_COMPLETED) {
                struct error never = {0};
                const struct json *copy = NULL;
                if (!json_parse(kept, json_print(kept, event->data), (struct json_limits){0}, &copy,
                                &never))
                    continue;
                *(event->type == EVENT_MODEL_REQUESTED ? &run->asked : &completed) = copy;
            }
            if (event->type == EVENT_MODEL_FAILED)
                completed = NULL;
            if (event->type == EVENT_BUDGET_SETTLED && completed &&
                str_equal(json_str_or(event->data, S("for"), STR_NONE), S("model"))) {
                take_model_call(b, run, event, completed);
                completed = NULL;
            }
        }
        arena_rewind(b->ctx->arena, mark);
    }
    return true;
}

static bool walk_run(struct backtest *b, const struct record *row, struct error *e)
{
    struct backtest_run *run = ARENA_NEW(b->ctx->arena, struct backtest_run);
    struct record *key = ARENA_NEW(b->ctx->arena, struct record);
    struct error missing = {0};
    const struct json *metadata = NULL;
    if (record_has(row, AGENT_RUNS_REMOVED_AT))
        return true;
    run->row = row;
    key->table = run->session.table = TABLE_SESSIONS;
    record_set_uuid(key, SESSIONS_ID, record_uuid(row, AGENT_RUNS_SESSION_ID));
    if (!store_get(b->o->parts.store, b->ctx, b->tenant_id, key, &run->session, &missing) &&
        missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    str text = record_text(row, AGENT_RUNS_METADATA);
    if (!str_is_empty(text) &&
        !json_parse(b->ctx->arena, text, (struct json_limits){0}, &metadata, e))
        return error_wrap(e, "metadata of a run");
    run->role = json_str_or(metadata, S("role"), record_text(&run->session, SESSIONS_ROLE));
    b->runs++;
    return walk_events(b, run, e);
}

/* Every page of a table whose rows are young enough. */
static bool walk_rows(struct backtest *b, enum table table, int time_column,
                      bool (*take)(struct backtest *b, const struct record *row, struct error *e),
                      struct error *e)
{
    OWNED(arena) kept = arena_create(0);
    struct query query = query_of(table);
    query_where_integer(&query, time_column, FILTER_GREATER, b->since_us - 1);
    query.limit = 50;
    for (;;) {
        struct records rows;
        arena_mark mark = arena_save(b->ctx->arena);
        if (!store_list(b->o->parts.store, b->ctx, b->tenant_id, &query, &rows, e))
            return false;
        for (size_t i = 0; i < rows.count; i++)
            if (!take(b, &rows.items[i], e))
                return false;
        arena_reset(kept);
        query.cursor = str_copy(kept, rows.next_cursor);
        arena_rewind(b->ctx->arena, mark);
        if (str_is_empty(query.cursor))
            return true;
    }
}

static bool take_chunk(struct backtest *b, const struct record *row, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct usage_reader reader;
    struct usage_record record;
    struct error failure = {0};
    if (!usage_reader_init(&reader, arena, record_text(row, USAGE_CHUNKS_DATA), e))
        return false;
    while (usage_read(&reader, &record, &failure)) {
        if (record.started_us < b->since_us || record.cache != USAGE_CACHE_NONE ||
            !str_equal(record.shape.status, S("ok")))
            continue;
        backtest_call(b, &(struct backtest_call){
                             .model = record.shape.model,
                             .provider = record.shape.provider,
                             .target = record.shape.target_model,
                             .at_us = record.started_us,
                             .nanousd = record.cost_nanousd,
                             .usage = {.input_tokens = record.input_tokens,
                                       .output_tokens = record.output_tokens,
                                       .cached_tokens = record.cached_tokens,
                                       .cache_write_tokens = record.cache_write_tokens,
                                       .reasoning_tokens = record.reasoning_tokens,
                                       .is_reported = true},
                         });
    }
    return failure.code == ERROR_OK || error_copy(e, &failure);
}

static bool take_message(struct backtest *b, const struct record *row, struct error *e)
{
    (void) e;
    str role = record_text(row, MESSAGES_ROLE);
    if (!str_equal(role, S("user")) && !str_equal(role, S("assistant")))
        return true;
    b->messages++;
    backtest_message(b, row);
    return true;
}

static bool walk(struct backtest *b, struct error *e)
{
    bool has_calls = b->prices || b->route_count > 0;
    return ((!b->policy && !has_calls) ||
            walk_rows(b, TABLE_AGENT_RUNS, AGENT_RUNS_STARTED_AT, walk_run, e)) &&
           (!has_calls ||
            (usage_log_sync(b->o->usage, b->ctx, e) &&
             walk_rows(b, TABLE_USAGE_CHUNKS, USAGE_CHUNKS_LAST_AT, take_chunk, e))) &&
           (!b->filter || walk_rows(b, TABLE_MESSAGES, MESSAGES_CREATED_AT, take_message, e));
}

static void write_report(const struct backtest *b, struct json_writer *w)
{
    json_object_begin(w);
    json_put_str(w, S("since"), time_str(b->ctx->arena, b->since_us));
    json_put_i64(w, S("runs"), b->runs);
    json_put_i64(w, S("calls"), b->calls);
    json_put_i64(w, S("messages"), b->messages);
    if (b->policy)
        backtest_policy_write(b, w);
    backtest_calls_write(b, w);
    if (b->filter)
        backtest_filter_write(b, w);
    json_object_end(w);
}

bool backtest_run(struct backtest *b, struct orchestrator *o, struct context *ctx,
                  const struct principal *principal, str *out, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    b->o = o;
    b->ctx = ctx;
    b->tenant_id = principal->tenant_id;
    if (!walk(b, e))
        return false;
    strbuf_init(&text, ctx->arena, 16u << 20);
    json_writer_init(&w, &text);
    write_report(b, &w);
    *out = strbuf_str(&text);
    return !strbuf_is_over(&text) || error_set(e, REASON_TOO_LARGE, "the report is too long");
}
