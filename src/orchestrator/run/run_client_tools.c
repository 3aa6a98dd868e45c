/*
 * Tools of the client: the model asks for them, the caller runs them, the results resume the same run.
 *
 *   the model asks --> tool.requested, the row is `pending` --> run.waiting --> (the caller has the calls)
 *   run_give_results: the rows get their output, `running` --> the run is woken --> tool.completed --> the next model call
 *
 * A result is what a caller says: nothing of it is trusted more than any other tool's output, and the content filter of the run's model
 * sees it before it is stored.  A client that never comes back is
 * not waited for longer than RUN_CLIENT_RESULT_WAIT_MS.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/content_audit.h"
#include "orchestrator/run_internal.h"

/* ---- what the client brought ---- */

bool run_client_tools_offer(struct run *run, struct error *e)
{
    const struct json *tools, *item;
    run->client_tools = NULL;
    run->client_tool_count = 0;
    if (str_is_empty(run->state.client_tools))
        return true;
    if (!json_parse(run->arena, run->state.client_tools, (struct json_limits){0}, &tools, e))
        return error_wrap(e, "the client's tools");
    run->client_tools = ARENA_ARRAY(run->arena, struct tool_spec, json_count(tools));
    struct json_iter it = json_iter(tools);
    while (json_next(&it, NULL, &item))
        run->client_tools[run->client_tool_count++] = (struct tool_spec){
            .name = json_str_or(item, S("name"), STR_NONE),
            .description = json_str_or(item, S("description"), STR_NONE),
            .parameters = json_print(run->arena, json_get(item, S("parameters"))),
            .is_strict = json_bool_or(item, S("strict"), false),
        };
    return true;
}

bool run_has_client_tool(const struct run *run, str name)
{
    for (size_t i = 0; i < run->client_tool_count; i++)
        if (str_equal(run->client_tools[i].name, name))
            return true;
    return false;
}

str client_tools_text(struct arena *arena, const struct tool_spec *tools, size_t count)
{
    struct strbuf text;
    struct json_writer w;
    if (count == 0)
        return STR_NONE;
    strbuf_init(&text, arena, RUN_CLIENT_TOOLS_BYTES_MAX);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (size_t i = 0; i < count; i++) {
        json_object_begin(&w);
        json_put_str(&w, S("name"), tools[i].name);
        json_put_str(&w, S("description"), tools[i].description);
        json_put_raw(&w, S("parameters"),
                     str_is_empty(tools[i].parameters) ? S("{\"type\":\"object\"}")
                                                       : tools[i].parameters);
        json_put_bool(&w, S("strict"), tools[i].is_strict);
        json_object_end(&w);
    }
    json_array_end(&w);
    return strbuf_is_over(&text) ? STR_NONE : strbuf_str(&text);
}

/* ---- results as rows hold them: {"content": text, "is_error": false} ---- */

static str result_text(struct arena *arena, const struct client_result *result)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 8 * (size_t) MESSAGE_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("content"), result->content);
    json_put_bool(&w, S("is_error"), result->is_error);
    json_object_end(&w);
    return strbuf_str(&text);
}

bool client_result_read(struct arena *arena, str output, str *content, bool *is_error,
                        struct error *e)
{
    const struct json *json;
    if (!json_parse(arena, output, (struct json_limits){0}, &json, e))
        return error_wrap(e, "a client's result");
    *content = json_str_or(json, S("content"), STR_NONE);
    *is_error = json_bool_or(json, S("is_error"), false);
    return true;
}

/* ---- giving them ---- */

struct giving {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    uuid run_id;
    struct record run;
};

/* The same answer for calls that are not there and for calls of others. */
static bool unknown_call(struct context *ctx, uuid id, struct error *e)
{
    return error_set(e, REASON_NOT_FOUND, "there is no tool call %.*s that waits for a result",
                     STR_ARG(uuid_str(ctx->arena, id)));
}

static bool find_run_of(struct giving *g, const struct client_result *result, struct error *e)
{
    struct record key = record_of(TABLE_TOOL_CALLS);
    struct record *row = ARENA_NEW(g->ctx->arena, struct record);
    struct error missing = {0};
    record_set_uuid(&key, TOOL_CALLS_ID, result->tool_call_id);
    if (!store_get(g->o->parts.store, g->ctx, g->principal->tenant_id, &key, row, &missing))
        return missing.code == ERROR_NOT_FOUND ? unknown_call(g->ctx, result->tool_call_id, e)
                                               : error_copy(e, &missing);
    if (!str_equal(record_text(row, TOOL_CALLS_TOOL_VERSION), CLIENT_TOOL_VERSION))
        return unknown_call(g->ctx, result->tool_call_id, e);
    uuid run_id = record_uuid(row, TOOL_CALLS_RUN_ID);
    if (uuid_is_none(g->run_id))
        g->run_id = run_id;
    return uuid_equal(g->run_id, run_id) ||
           error_set(e, REASON_SCHEMA, "the results belong to different runs");
}

static bool check_run(struct giving *g, struct error *e)
{
    if (!run_get(g->o, g->ctx, g->principal, g->run_id, &g->run, e))
        return false;
    /* A run is its owner's: an operator may look at it, and may not speak for its client. */
    if (!str_equal(record_text(&g->run, AGENT_RUNS_USER_ID), g->principal->user_id))
        return error_set(e, REASON_DENIED, "the run belongs to another user");
    str status = record_text(&g->run, AGENT_RUNS_STATUS);
    return str_equal(status, S("waiting")) || str_equal(status, S("running")) ||
           error_set(e, REASON_CONFLICT, "run " STR_FMT " is " STR_FMT ": it takes no results",
                     STR_ARG(uuid_str(g->ctx->arena, g->run_id)), STR_ARG(status));
}

/* Every call that the run waits for must have its result: the model gets all of them together. */
static bool check_complete(struct giving *g, const struct client_result *results, size_t count,
                           struct error *e)
{
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    query_where_uuid(&query, TOOL_CALLS_RUN_ID, g->run_id);
    query_where_text(&query, TOOL_CALLS_STATUS, S("pending"));
    query.limit = RUN_TOOL_CALLS_PARALLEL_MAX + 1;
    if (!store_list(g->o->parts.store, g->ctx, g->principal->tenant_id, &query, &rows, e))
        return false;
    for (size_t i = 0; i < rows.count; i++) {
        bool is_given = false;
        for (size_t j = 0; j < count && !is_given; j++)
            is_given =
                uuid_equal(results[j].tool_call_id, record_uuid(&rows.items[i], TOOL_CALLS_ID));
        if (!is_given)
            return error_set(e, REASON_SCHEMA,
                             "the result of the call of \"" STR_FMT "\" is missing; give the "
                             "results of all calls of the answer together",
                             STR_ARG(record_text(&rows.items[i], TOOL_CALLS_TOOL_NAME)));
    }
    return true;
}

static bool commit_results(struct giving *g, const struct client_result *results, size_t count,
                           struct error *e)
{
    struct batch batch;
    batch_init(&batch, g->ctx->arena, g->principal->tenant_id);
    batch.fault = "client_results";
    for (size_t i = 0; i < count; i++) {
        struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_TOOL_CALLS);
        record_set_uuid(row, TOOL_CALLS_ID, results[i].tool_call_id);
        record_set_text(row, TOOL_CALLS_STATUS, S("running"));
        record_set_text(row, TOOL_CALLS_OUTPUT, result_text(g->ctx->arena, &results[i]));
        batch_where_text(&batch, TOOL_CALLS_STATUS, S("pending")); /* once */
    }
    audit_add(&batch, g->o->parts.clock, g->o->parts.random, g->principal,
              &(struct audit_entry){.action = S("run.results"),
                                    .resource_type = S("run"),
                                    .resource_id = uuid_str(g->ctx->arena, g->run_id)});
    if (store_commit(g->o->parts.store, g->ctx, &batch, e))
        return true;
    return e->reason == REASON_CONFLICT
               ? error_set(e, REASON_CONFLICT, "a call of this answer has its result already")
               : false;
}

/* By the filter of the run's model, before a byte of them is stored. */
static bool filter_results(struct giving *g, const struct client_result **results, size_t count,
                           struct error *e)
{
    struct guard_tally found = {0};
    str name = record_text(&g->run, AGENT_RUNS_MODEL);
    const struct settings *settings = orchestrator_acquire(g->o);
    const struct model *model = catalog_find(settings->catalog, name);
    bool ok = run_guard_results(g->ctx, model, results, count, &found, e);
    content_audit_post(g->o,
                       &(struct content_audit){
                           .principal = g->principal,
                           .model = name,
                           .run_id = g->run_id,
                           .session_id = record_uuid(&g->run, AGENT_RUNS_SESSION_ID),
                       },
                       &found);
    orchestrator_release(settings);
    return ok;
}

static bool find_run(struct giving *g, const struct client_result *results, size_t count,
                     struct error *e)
{
    if (count == 0 || count > RUN_TOOL_CALLS_PARALLEL_MAX)
        return error_set(e, REASON_SCHEMA, "give 1 to %d results", RUN_TOOL_CALLS_PARALLEL_MAX);
    for (size_t i = 0; i < count; i++)
        if (!find_run_of(g, &results[i], e))
            return false;
    return check_run(g, e);
}

bool run_of_results(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct client_result *results, size_t count, struct record *run,
                    struct error *e)
{
    struct giving *g = ARENA_NEW(ctx->arena, struct giving);
    *g = (struct giving){.o = o, .ctx = ctx, .principal = principal};
    if (!find_run(g, results, count, e))
        return false;
    *run = g->run;
    return true;
}

bool run_give_results(struct orchestrator *o, struct context *ctx,
                      const struct principal *principal, const struct client_result *results,
                      size_t count, uuid *run_id, uuid *session_id, int64_t *last_seq,
                      struct error *e)
{
    struct giving *g = ARENA_NEW(ctx->arena, struct giving);
    *g = (struct giving){.o = o, .ctx = ctx, .principal = principal};
    if (!find_run(g, results, count, e) || !check_complete(g, results, count, e) ||
        !filter_results(g, &results, count, e) || !commit_results(g, results, count, e))
        return false;
    *run_id = g->run_id;
    *session_id = record_uuid(&g->run, AGENT_RUNS_SESSION_ID);
    *last_seq = record_integer(&g->run, AGENT_RUNS_LAST_SEQ);
    run_spawn_row(o, principal->tenant_id, &g->run);
    return true;
}

/* ---- clients that never come back ---- */

bool runs_expire(struct orchestrator *o, struct context *ctx, size_t *expired, struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    query_where_integer(&query, AGENT_RUNS_WAITS_UNTIL, FILTER_LESS, clock_unix_us(o->parts.clock));
    *expired = 0;
    for (;;) {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(o->parts.store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count; i++, ++*expired)
            run_spawn_cancelled(o, tenants[i], record_uuid(&page.items[i], AGENT_RUNS_SESSION_ID),
                                record_uuid(&page.items[i], AGENT_RUNS_ID),
                                S("the client brought no result in time"));
        if (str_is_empty(page.next_cursor))
            return true;
        query.cursor = page.next_cursor;
    }
}
