#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/workflow/workflow_agent.h"
#include "store/sift.h"
#include <stdatomic.h>

/* ---- the budget column: {"tokens", "time_seconds", "cost_usd"?, "tool_calls"?} ---- */

static bool read_limit(const struct json *budget, str member, int64_t scale, int64_t *out,
                       struct error *e)
{
    const struct json *value = json_get(budget, member);
    int64_t amount;
    if (!value || json_type(value) == JSON_NULL)
        return true;
    if (!json_to_i64(value, &amount) || amount < 0 || amount > COST_UNLIMITED / scale)
        return error_set(e, REASON_SCHEMA, "budget." STR_FMT " must be a whole number, 0 or more",
                         STR_ARG(member));
    *out = amount * scale;
    return true;
}

static bool read_money(const struct json *budget, int64_t *out, struct error *e)
{
    const struct json *value = json_get(budget, S("cost_usd"));
    str text;
    double number;
    if (!value || json_type(value) == JSON_NULL)
        return true;
    if (json_to_str(value, &text) && money_parse_usd(text, out))
        return true;
    if (!json_to_double(value, &number) || number < 0 || number > 9e9)
        return error_set(e, REASON_SCHEMA,
                         "budget.cost_usd must be a decimal such as \"2.50\", 0 or more");
    *out = (int64_t) (number * 1e9 + 0.5);
    return true;
}

bool session_budget_read(str budget_json, cost *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    const struct json *budget;
    cost limit = COST_LIMITLESS;
    if (!json_parse(arena, budget_json, (struct json_limits){0}, &budget, e) ||
        !read_limit(budget, S("tokens"), 1, &limit.tokens, e) ||
        !read_limit(budget, S("time_seconds"), 1000, &limit.time_ms, e) ||
        !read_limit(budget, S("tool_calls"), 1, &limit.tool_calls, e) ||
        !read_money(budget, &limit.cost_nanousd, e))
        return false;
    *out = limit;
    return true;
}

str session_budget_text(struct arena *arena, cost limit)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 512);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    if (limit.tokens != COST_UNLIMITED)
        json_put_i64(&w, S("tokens"), limit.tokens);
    if (limit.time_ms != COST_UNLIMITED)
        json_put_i64(&w, S("time_seconds"), limit.time_ms / 1000);
    if (limit.cost_nanousd != COST_UNLIMITED)
        json_put_str(&w, S("cost_usd"), money_format_usd(arena, limit.cost_nanousd));
    if (limit.tool_calls != COST_UNLIMITED)
        json_put_i64(&w, S("tool_calls"), limit.tool_calls);
    json_object_end(&w);
    return strbuf_str(&text);
}

bool session_is_paused(const struct record *session)
{
    return str_equal(record_text(session, SESSIONS_STATUS), S("paused"));
}

bool session_check_open(struct orchestrator *o, struct context *ctx, const struct record *session,
                        struct error *e)
{
    str status = record_text(session, SESSIONS_STATUS);
    int64_t expires_us = record_integer(session, SESSIONS_EXPIRES_AT);
    if (session_is_paused(session))
        return error_set(e, REASON_SESSION_PAUSED,
                         "the session is paused; resume it with POST /api/v1/sessions/" STR_FMT
                         "/resume",
                         STR_ARG(uuid_str(ctx->arena, record_uuid(session, SESSIONS_ID))));
    if (!str_equal(status, S("active")))
        return error_set(e, REASON_SESSION_CLOSED, "the session is " STR_FMT "; open a new one",
                         STR_ARG(status));
    if (expires_us != 0 && expires_us < clock_unix_us(o->parts.clock))
        return error_set(e, REASON_SESSION_CLOSED,
                         "the session expired at " STR_FMT "; open a new one",
                         STR_ARG(time_str(ctx->arena, expires_us)));
    return true;
}

/* ---- opening ---- */

/* What is stored as JSON and later stands in policy inputs must be one JSON object. */
static bool check_object(struct arena *arena, const char *member, str text, struct error *e)
{
    const struct json *tree;
    if (str_is_empty(text))
        return true;
    if (!json_parse(arena, text, (struct json_limits){0}, &tree, e))
        return error_wrap(e, "%s", member);
    return json_type(tree) == JSON_OBJECT ||
           error_set(e, REASON_SCHEMA, "%s must be an object", member);
}

static bool check_request(struct context *ctx, const struct principal *principal,
                          const struct session_request *request, struct error *e)
{
    if (principal->level < ROLE_LEVEL_USER)
        return error_set(e, REASON_DENIED, "a viewer may not open sessions");
    if (!str_is_empty(request->user_id) && !str_equal(request->user_id, principal->user_id) &&
        !(principal->scopes & SCOPE_ACT_AS))
        return error_set(e, REASON_DENIED,
                         "opening a session for another user_id needs the scope act_as");
    if (!check_object(ctx->arena, "policy_context", request->policy_context, e) ||
        !check_object(ctx->arena, "metadata", request->metadata, e))
        return false;
    enum double_text policy;
    if (!str_is_empty(request->double_text) && !double_text_parse(request->double_text, &policy))
        return error_set(e, REASON_SCHEMA,
                         "double_text must be reject, enqueue, interrupt or steer");
    if (!str_is_empty(request->priority) && priority_said(request->priority) == PRIORITY_UNSAID)
        return error_set(e, REASON_SCHEMA, "priority must be batch, normal or interactive");
    if (request->user_id.len > 255)
        return error_set(e, REASON_SCHEMA, "user_id is over 255 bytes");
    return true;
}

static bool check_agent(struct orchestrator *o, struct context *ctx,
                        const struct settings *settings, const struct principal *principal,
                        str name, struct error *e)
{
    const struct agent_definition *agent =
        agent_set_find(settings->agents, str_is_empty(name) ? S("assistant") : name);
    if (!agent)
        return error_set(e, REASON_NOT_FOUND,
                         "there is no agent \"" STR_FMT "\"; see GET /api/v1/agents",
                         STR_ARG(name));
    return agent_workflow_check(o, ctx, principal->tenant_id, agent, e);
}

static void fill_session(struct record *row, struct orchestrator *o, struct context *ctx,
                         const struct settings *settings, const struct principal *principal,
                         const struct session_request *request)
{
    int64_t now_us = clock_unix_us(o->parts.clock);
    bool is_acting = !str_is_empty(request->user_id);
    record_set_uuid(row, SESSIONS_ID, uuid_new(o->parts.clock, o->parts.random));
    record_set_text(row, SESSIONS_USER_ID, is_acting ? request->user_id : principal->user_id);
    record_set_text(row, SESSIONS_REQUESTED_BY, principal->caller_id);
    /* Acting for someone never gives more than a user's rights, nor more than the caller's own. */
    bool is_other = is_acting && !str_equal(request->user_id, principal->user_id);
    record_set_text(row, SESSIONS_ROLE, is_other ? S("user") : principal->role);
    record_set_integer(row, SESSIONS_CREATED_AT, now_us);
    record_set_integer(row, SESSIONS_UPDATED_AT, now_us);
    record_set_text(row, SESSIONS_STATUS, S("active"));
    record_set_text(
        row, SESSIONS_BUDGET,
        session_budget_text(ctx->arena, cost_min(settings->session_budget, request->budget)));
    if (!str_is_empty(request->policy_context))
        record_set_text(row, SESSIONS_POLICY_CONTEXT, request->policy_context);
    if (!str_is_empty(request->double_text))
        record_set_text(row, SESSIONS_DOUBLE_TEXT, request->double_text);
    if (!str_is_empty(request->priority))
        record_set_text(row, SESSIONS_PRIORITY, request->priority);
    if (!str_is_empty(request->metadata))
        record_set_text(row, SESSIONS_METADATA, request->metadata);
    record_set_text(row, SESSIONS_AGENT,
                    str_is_empty(request->agent) ? S("assistant") : request->agent);
    if (settings->session_expiry_ms > 0)
        record_set_integer(row, SESSIONS_EXPIRES_AT, now_us + settings->session_expiry_ms * 1000);
    record_set_text(row, SESSIONS_OWNER_NODE, o->parts.node);
    record_set_integer(row, SESSIONS_OWNER_EPOCH, 1);
}

bool session_create(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct session_request *request, struct record *out, struct error *e)
{
    const struct settings *settings = orchestrator_acquire(o);
    bool ok = check_request(ctx, principal, request, e) &&
              check_agent(o, ctx, settings, principal, request->agent, e);
    if (ok) {
        struct batch batch;
        batch_init(&batch, ctx->arena, principal->tenant_id);
        struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_SESSIONS);
        fill_session(row, o, ctx, settings, principal, request);
        struct record made = *row;
        ledger_add_account_row(o->ledger, &batch, ACCOUNT_SESSION,
                               uuid_str(ctx->arena, record_uuid(&made, SESSIONS_ID)),
                               cost_min(settings->session_budget, request->budget));
        struct principal who = *principal;
        who.user_id = record_text(&made, SESSIONS_USER_ID);
        audit_add(&batch, o->parts.clock, o->parts.random, &who,
                  &(struct audit_entry){.action = S("session.create"),
                                        .resource_type = S("session"),
                                        .resource_id =
                                            uuid_str(ctx->arena, record_uuid(&made, SESSIONS_ID))});
        ok = store_commit(o->parts.store, ctx, &batch, e);
        if (ok)
            *out = made;
    }
    orchestrator_release(settings);
    return ok;
}

/* ---- reading ---- */

bool session_get(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                 uuid session_id, struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS);
    record_set_uuid(&key, SESSIONS_ID, session_id);
    if (!store_get(o->parts.store, ctx, principal->tenant_id, &key, out, e) ||
        !principal_sees_user(principal, record_text(out, SESSIONS_USER_ID))) {
        if (e->code != ERROR_OK && e->code != ERROR_NOT_FOUND)
            return false;
        return error_set(e, REASON_NOT_FOUND, "there is no session " STR_FMT,
                         STR_ARG(uuid_str(ctx->arena, session_id)));
    }
    return true;
}

static bool has_status(const void *owner, const struct record *session)
{
    const str *status = owner;
    return str_equal(record_text(session, SESSIONS_STATUS), *status);
}

bool session_list(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                  str status, str cursor, size_t limit, struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_SESSIONS);
    query_where_null(&query, SESSIONS_PARENT_RUN_ID, true); /* a child's is found by its run */
    if (principal->level < ROLE_LEVEL_OPERATOR)
        query_where_text(&query, SESSIONS_USER_ID, principal->user_id);
    query.is_descending = true;
    query.cursor = cursor;
    query.limit = limit;
    if (!str_is_empty(status))
        return store_sift(o->parts.store, ctx, principal->tenant_id, &query, has_status, &status,
                          out, e);
    return store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

bool session_close(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   uuid session_id, struct error *e)
{
    struct record session;
    if (!session_get(o, ctx, principal, session_id, &session, e))
        return false;
    if (record_has(&session, SESSIONS_LIVE_RUN_ID))
        return error_set(
            e, REASON_SESSION_BUSY, "the session has the live run " STR_FMT "; cancel it first",
            STR_ARG(uuid_str(ctx->arena, record_uuid(&session, SESSIONS_LIVE_RUN_ID))));
    struct batch batch;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, session_id);
    record_set_text(row, SESSIONS_STATUS, S("closed"));
    record_set_null(row, SESSIONS_EXPIRES_AT);
    record_set_integer(row, SESSIONS_UPDATED_AT, clock_unix_us(o->parts.clock));
    batch_where_null(&batch, SESSIONS_LIVE_RUN_ID); /* a run may have begun since the look above */
    audit_add(&batch, o->parts.clock, o->parts.random, principal,
              &(struct audit_entry){.action = S("session.close"),
                                    .resource_type = S("session"),
                                    .resource_id = uuid_str(ctx->arena, session_id)});
    if (store_commit(o->parts.store, ctx, &batch, e))
        return true;
    if (e->reason == REASON_CONFLICT)
        return error_set(e, REASON_SESSION_BUSY,
                         "a run of the session has just begun; cancel it first");
    return false;
}

/* ---- budget ---- */

bool session_open_path(struct orchestrator *o, struct context *ctx,
                       const struct principal *principal, uuid session_id, struct ledger_path *path,
                       str *policy_context, struct error *e)
{
    struct ledger_limits limits = {
        .session = COST_LIMITLESS,
        .run = COST_LIMITLESS,
        .key_id = principal->has_key_budget ? principal->key_id : UUID_NONE,
    };
    str user_id = principal->user_id;
    struct record session;
    if (!uuid_is_none(session_id)) {
        if (!session_get(o, ctx, principal, session_id, &session, e) ||
            !session_check_open(o, ctx, &session, e) ||
            !session_budget_read(record_text(&session, SESSIONS_BUDGET), &limits.session, e))
            return false;
        *policy_context = record_text(&session, SESSIONS_POLICY_CONTEXT);
        user_id = record_text(&session, SESSIONS_USER_ID);
    }
    return ledger_open_path(o->ledger, ctx, principal->tenant_id, user_id, session_id, UUID_NONE,
                            limits, path, e);
}

static void put_cost(struct json_writer *w, const char *name, cost amount)
{
    json_key(w, str_from_cstr(name));
    cost_write_json(w, amount);
}

bool session_budget_json(struct orchestrator *o, struct context *ctx,
                         const struct principal *principal, uuid session_id, str *out,
                         struct error *e)
{
    struct record session;
    struct ledger_limits limits = {.run = COST_LIMITLESS};
    struct ledger_path path;
    if (!session_get(o, ctx, principal, session_id, &session, e) ||
        !session_budget_read(record_text(&session, SESSIONS_BUDGET), &limits.session, e) ||
        !ledger_open_path(o->ledger, ctx, principal->tenant_id,
                          record_text(&session, SESSIONS_USER_ID), session_id, UUID_NONE, limits,
                          &path, e))
        return false;
    struct ledger_view view;
    bool is_read = ledger_view_in(o->ledger, ctx, &path, ACCOUNT_SESSION, &view, e);
    ledger_close_path(o->ledger, &path);
    if (!is_read)
        return false;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, ctx->arena, 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    put_cost(&w, "limit", view.limit);
    put_cost(&w, "spent", view.spent);
    put_cost(&w, "reserved", view.reserved);
    put_cost(&w, "remaining", view.remaining);
    json_object_end(&w);
    *out = strbuf_str(&text);
    return true;
}
