/*
 * Degradation: what an agent's definition lets a run do when it cannot have what it wants (agent_definition.h: degrade).
 *
 *      no provider | little budget left | an overloaded node --> run.degraded --> another model | an earlier answer | no tools
 *
 * Each step is taken once, in the definition's order, is journaled before anything follows from it, and stands in the run's `degraded`:
 * never silently.  The policy is asked for, and the budget is reserved for, the model that is really called.
 * An earlier answer is one to the same words, of the same user in the same role, by the same version of the same agent, whole and not
 * degraded itself, of the last day; and only for a session's first message.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_internal.h"

static const char *const when_names[] = {[DEGRADE_PROVIDER_UNAVAILABLE] = "provider_unavailable",
                                         [DEGRADE_BUDGET_LOW] = "budget_low",
                                         [DEGRADE_OVERLOADED] = "overloaded"};
static const char *const use_names[] = {
    [DEGRADE_MODEL] = "model", [DEGRADE_CACHED] = "cached", [DEGRADE_TOOLLESS] = "tools"};

/* ---- an earlier answer ---- */

struct earlier {
    uuid run_id;
    str answer, metadata;
};

static bool list_messages(struct run *run, uuid session_id, struct records *out)
{
    struct query query = query_of(TABLE_MESSAGES);
    struct error ignored = {0};
    query_where_uuid(&query, MESSAGES_SESSION_ID, session_id);
    query.limit = 3;
    return store_list(run->o->parts.store, &run->shield, run->tenant_id, &query, out, &ignored);
}

static bool is_of(const struct record *message, str role)
{
    return str_equal(record_text(message, MESSAGES_ROLE), role);
}

/* Its answer is its own words alone. */
static bool used_no_tool(struct run *run, uuid run_id)
{
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records calls;
    struct error ignored = {0};
    query_where_uuid(&query, TOOL_CALLS_RUN_ID, run_id);
    query.limit = 1;
    return store_list(run->o->parts.store, &run->shield, run->tenant_id, &query, &calls,
                      &ignored) &&
           calls.count == 0;
}

static str member_of(struct run *run, str json, str name)
{
    const struct json *tree;
    struct error ignored = {0};
    return json_parse(run->turn, json, (struct json_limits){0}, &tree, &ignored)
               ? json_str_or(tree, name, STR_NONE)
               : STR_NONE;
}

/* As its first event says. */
static str version_of(struct run *run, uuid run_id)
{
    struct record key = record_of(TABLE_RUN_EVENTS), *row = ARENA_NEW(run->turn, struct record);
    struct error ignored = {0};
    record_set_uuid(&key, RUN_EVENTS_RUN_ID, run_id);
    record_set_integer(&key, RUN_EVENTS_SEQ, 1);
    return store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, row, &ignored)
               ? member_of(run, record_text(row, RUN_EVENTS_DATA), S("agent_version"))
               : STR_NONE;
}

/* Question and answer, and nothing else. */
static never_inline bool answers(struct run *run, const struct record *row, str question,
                                 struct earlier *out)
{
    struct records messages;
    uuid session_id = record_uuid(row, AGENT_RUNS_SESSION_ID);
    bool is_fit = !record_has(row, AGENT_RUNS_DEGRADED) && !record_has(row, AGENT_RUNS_WORKFLOW) &&
                  !record_has(row, AGENT_RUNS_PARENT_RUN_ID) &&
                  str_equal(record_text(row, AGENT_RUNS_MODEL), run->state.model) &&
                  str_equal(member_of(run, record_text(row, AGENT_RUNS_METADATA), S("role")),
                            run->principal.role);
    if (!is_fit || !list_messages(run, session_id, &messages) || messages.count != 2 ||
        !is_of(&messages.items[0], S("user")) || !is_of(&messages.items[1], S("assistant")) ||
        record_has(&messages.items[0], MESSAGES_PARTS) ||
        !used_no_tool(run, record_uuid(row, AGENT_RUNS_ID)) ||
        !str_equal(record_text(&messages.items[0], MESSAGES_CONTENT), question))
        return false;
    if (!str_equal(version_of(run, record_uuid(row, AGENT_RUNS_ID)), run->agent->version))
        return false;
    *out = (struct earlier){.run_id = record_uuid(row, AGENT_RUNS_ID),
                            .answer = record_text(&messages.items[1], MESSAGES_CONTENT),
                            .metadata = record_text(&messages.items[1], MESSAGES_METADATA)};
    return true;
}

static bool find_earlier(struct run *run, struct earlier *out)
{
    struct query *query = ARENA_NEW(run->turn, struct query);
    struct records rows, own;
    struct error ignored = {0};
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle)
        return oracle->earlier(oracle->owner, &out->run_id, &out->answer, &out->metadata);
    if (!list_messages(run, run->session_id, &own) || own.count != 1 ||
        !is_of(&own.items[0], S("user")) || record_has(&own.items[0], MESSAGES_PARTS))
        return false;
    str question = record_text(&own.items[0], MESSAGES_CONTENT);
    *query = query_of(TABLE_AGENT_RUNS);
    query_where_text(query, AGENT_RUNS_STATUS, S("completed"));
    query_where_text(query, AGENT_RUNS_USER_ID, run->principal.user_id);
    query_where_text(query, AGENT_RUNS_AGENT, run->state.agent);
    query_where_integer(query, AGENT_RUNS_STARTED_AT, FILTER_GREATER,
                        clock_unix_us(run->o->parts.clock) - DEGRADE_CACHED_MS * 1000);
    query->is_descending = true;
    query->limit = DEGRADE_CACHED_RUNS;
    if (!store_list(run->o->parts.store, &run->shield, run->tenant_id, query, &rows, &ignored))
        return false;
    for (size_t i = 0; i < rows.count; i++)
        if (answers(run, &rows.items[i], question, out))
            return true;
    return false;
}

/* ---- one step ---- */

static struct json_writer *begin_event(struct run *run, size_t index, str what)
{
    const struct degrade_step *step = &run->agent->degrade[index];
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_DEGRADED);
    json_put_i64(w, S("step"), (int64_t) index);
    json_put_str(w, S("what"),
                 str_printf(run->turn, "%s: " STR_FMT, when_names[step->when], STR_ARG(what)));
    json_put_str(w, S("why"), str_from_cstr(when_names[step->when]));
    json_put_str(w, S("use"), str_from_cstr(use_names[step->use]));
    return w;
}

static bool use_model(struct run *run, size_t index)
{
    const struct degrade_step *step = &run->agent->degrade[index];
    const struct model *model = catalog_find(run->settings->catalog, step->model);
    if (!model || model == run->model)
        return false;
    struct json_writer *w = begin_event(
        run, index, str_printf(run->turn, "answered by model " STR_FMT, STR_ARG(model->name)));
    json_put_str(w, S("model"), model->name);
    json_put_str(w, S("instead_of"), run->model->name);
    run->model = model;
    return true;
}

/* As those who follow the run expect an answer: in pieces, then as a message. */
static void journal_answer(struct run *run, uuid message_id, str text)
{
    struct json_writer *w;
    for (str piece; !str_is_empty(text); text = str_from(text, piece.len)) {
        piece = str_cut_utf8(text, SSE_EVENT_BYTES_MAX / 8);
        w = journal_event(&run->journal, EVENT_MODEL_DELTA);
        json_put_i64(w, S("attempt"), run->state.attempt + 1);
        json_put_str(w, S("text"), piece);
    }
    w = journal_event(&run->journal, EVENT_MESSAGE_ADDED);
    json_put_str(w, S("message_id"), uuid_str(run->turn, message_id));
    json_put_str(w, S("role"), S("assistant"));
}

static bool use_cached(struct run *run, size_t index)
{
    struct earlier earlier;
    if (run->state.step > 0 || !find_earlier(run, &earlier))
        return false;
    uuid message_id = run_new_id(run, RUN_ID_MESSAGE, 0, STR_NONE);
    struct json_writer *w = begin_event(run, index, S("an earlier answer to the same question"));
    json_put_str(w, S("message_id"), uuid_str(run->turn, message_id));
    json_put_str(w, S("from_run_id"), uuid_str(run->turn, earlier.run_id));
    journal_answer(run, message_id, earlier.answer);
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_MESSAGES);
    run_message_row(row, run, message_id, ROLE_ASSISTANT, earlier.answer, 0, STR_NONE);
    if (!str_is_empty(earlier.metadata)) /* its label comes along */
        record_set_text(row, MESSAGES_METADATA, earlier.metadata);
    return true;
}

static bool use_no_tools(struct run *run, size_t index)
{
    if (run->offered_count == 0 || run->state.is_toolless)
        return false;
    (void) begin_event(run, index, S("answered without tools"));
    return true;
}

static bool take(struct run *run, size_t index)
{
    switch (run->agent->degrade[index].use) {
    case DEGRADE_MODEL: return use_model(run, index);
    case DEGRADE_CACHED: return use_cached(run, index);
    case DEGRADE_TOOLLESS: return use_no_tools(run, index);
    }
    return false;
}

static bool is_open(const struct run *run, size_t index, enum degrade_when when)
{
    return run->agent->degrade[index].when == when && !(run->state.degraded_steps & 1u << index);
}

bool run_may_degrade(const struct run *run, enum degrade_when when)
{
    for (size_t i = 0; i < run->agent->degrade_count && !run->aside; i++)
        if (is_open(run, i, when))
            return true;
    return false;
}

bool run_degrade(struct run *run, enum degrade_when when)
{
    for (size_t i = 0; i < run->agent->degrade_count && !run->aside; i++) {
        if (!is_open(run, i, when) || !take(run, i))
            continue;
        journal_close_event(&run->journal);
        run->has_route = false;
        run->model_failure = (struct error){0};
        metrics_add(run->o->parts.metrics, METRIC_RUNS_DEGRADED, 1,
                    (str[]){str_from_cstr(when_names[when]),
                            str_from_cstr(use_names[run->agent->degrade[i].use])},
                    2);
        return true;
    }
    return false;
}

/* ---- when ---- */

static bool is_low(const struct run *run)
{
    struct ledger_view view = ledger_view(run->o->ledger, &run->path, ACCOUNT_SESSION);
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t limit = *cost_field(&view.limit, i), left = *cost_field(&view.remaining, i);
        if (limit != COST_UNLIMITED && limit > 0 && left < limit / DEGRADE_BUDGET_PART)
            return true;
    }
    return false;
}

bool run_degrade_ahead(struct run *run)
{
    const struct run_oracle *oracle = run->o->oracle;
    enum degrade_when when;
    if (oracle) /* a replay has no accounts and no load of its own */
        return oracle->degrades(oracle->owner, &when) && run_degrade(run, when);
    if (run->is_last_call || run->state.is_winding_down)
        return false;
    if (run_may_degrade(run, DEGRADE_OVERLOADED) &&
        overload_look(run->o->overload).pressure_milli >= 1000 &&
        run_degrade(run, DEGRADE_OVERLOADED))
        return true;
    return run_may_degrade(run, DEGRADE_BUDGET_LOW) && is_low(run) &&
           run_degrade(run, DEGRADE_BUDGET_LOW);
}

bool run_degrade_cause(const struct error *failure, enum degrade_when *out)
{
    static const enum error_reason providers[] = {
        REASON_PROVIDER_RATE_LIMITED, REASON_PROVIDER_QUOTA,      REASON_PROVIDER_AUTH,
        REASON_PROVIDER_CIRCUIT,      REASON_PROVIDER_OVERLOADED, REASON_PROVIDER_TIMEOUT,
        REASON_PROVIDER_NETWORK,      REASON_PROVIDER_PROTOCOL,   REASON_UNAVAILABLE,
        REASON_OVERLOADED_HERE};
    *out = DEGRADE_BUDGET_LOW;
    if (failure->reason == REASON_BUDGET)
        return true;
    *out = DEGRADE_PROVIDER_UNAVAILABLE;
    for (size_t i = 0; i < ARRAY_COUNT(providers); i++)
        if (failure->reason == providers[i])
            return true;
    return false;
}
