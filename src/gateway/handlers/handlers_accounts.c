/* Budgets. */
#include "base/arena.h"
#include "base/timefmt.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/usage/usage_log.h"

static bool read_subject(struct api_call *call, enum account_level *level, str *subject,
                         struct error *e)
{
    str name, tenant = uuid_str(call->ctx->arena, call->principal.tenant_id);
    if (!param_text(call, 0, &name, e) || !param_text(call, 1, subject, e))
        return false;
    if (str_equal(name, S("user"))) {
        *level = ACCOUNT_USER;
        return true;
    }
    if (str_equal(name, S("key"))) {
        uuid id;
        *level = ACCOUNT_KEY;
        if (!uuid_parse(*subject, &id))
            return error_set(e, REASON_NOT_FOUND, "a key is named by its id");
        *subject = uuid_str(call->ctx->arena, id);
        return true;
    }
    if (!str_equal(name, S("tenant")))
        return error_set(e, REASON_NOT_FOUND,
                         "budgets are kept for key, user and tenant; a session's is at "
                         "/api/v1/sessions/{id}/budget");
    *level = ACCOUNT_TENANT;
    if (!str_equal(*subject, S("self")) && !str_equal(*subject, tenant))
        return error_set(e, REASON_NOT_FOUND,
                         "there is no tenant \"" STR_FMT "\"; your own is \"self\"",
                         STR_ARG(*subject));
    *subject = tenant;
    return true;
}

static void put_cost(struct json_writer *w, str name, cost amount)
{
    json_key(w, name);
    cost_write_json(w, amount);
}

static void put_period(struct json_writer *w, const struct ledger_view *view, struct arena *arena)
{
    if (view->period == PERIOD_NONE)
        return;
    json_put_str(w, S("period"), str_from_cstr(period_text(view->period)));
    json_put_str(w, S("period_start"), time_str(arena, view->period_start_us));
    json_put_str(w, S("resets_at"), time_str(arena, view->period_end_us));
}

static void put_alerts(struct json_writer *w, const struct ledger_view *view)
{
    json_key(w, S("alerts"));
    json_array_begin(w);
    for (int i = 0; i < view->threshold_count; i++)
        json_write_i64(w, view->thresholds[i] / 10);
    json_array_end(w);
    if (view->alerted > 0)
        json_put_i64(w, S("alerted"), view->alerted / 10);
}

static bool reply_budget(struct api_call *call, enum account_level level, str subject,
                         struct error *e)
{
    struct ledger *ledger = orchestrator_ledger(call->gateway->orchestrator);
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    struct ledger_path path;
    struct ledger_view view;
    struct reply_writer writer;
    str user = level == ACCOUNT_USER ? subject : call->principal.user_id;
    if (level == ACCOUNT_KEY && !uuid_parse(subject, &limits.key_id))
        return error_set(e, REASON_NOT_FOUND, "a key is named by its id");
    if (!ledger_open_path(ledger, call->ctx, call->principal.tenant_id, user, UUID_NONE, UUID_NONE,
                          limits, &path, e))
        return false;
    bool ok = ledger_view_in(ledger, call->ctx, &path, level, &view, e);
    ledger_close_path(ledger, &path);
    if (!ok)
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    put_cost(w, S("limit"), view.limit);
    put_cost(w, S("spent"), view.spent);
    put_cost(w, S("reserved"), view.reserved);
    put_cost(w, S("remaining"), view.remaining);
    put_period(w, &view, call->ctx->arena);
    put_alerts(w, &view);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_budget_get(struct api_call *call, struct error *e)
{
    enum account_level level;
    str subject;
    return read_subject(call, &level, &subject, e) && reply_budget(call, level, subject, e);
}

static bool audit_limit(struct api_call *call, enum account_level level, str subject,
                        struct error *e)
{
    struct batch batch;
    struct gateway *gateway = call->gateway;
    batch_init(&batch, call->ctx->arena, call->principal.tenant_id);
    str kind = str_from_cstr(account_level_name(level));
    audit_add(&batch, gateway->clock, gateway->random, &call->principal,
              &(struct audit_entry){.action = S("budget.set"),
                                    .resource_type = S("budget"),
                                    .resource_id = str_printf(call->ctx->arena, STR_FMT ":" STR_FMT,
                                                              STR_ARG(kind), STR_ARG(subject)),
                                    .details = json_print(call->ctx->arena, call->json)});
    return store_commit(gateway->store, call->ctx, &batch, e);
}

bool route_budget_put(struct api_call *call, struct error *e)
{
    enum account_level level;
    str subject;
    struct ledger_setting setting;
    return read_subject(call, &level, &subject, e) &&
           body_read_limits(call->ctx->arena, call->json, &setting, e) &&
           audit_limit(call, level, subject, e) &&
           ledger_set(orchestrator_ledger(call->gateway->orchestrator), call->ctx,
                      call->principal.tenant_id, level, subject, &setting, e) &&
           reply_budget(call, level, subject, e);
}

/* ---- the books ---- */

/* What was gathered of plain calls is stored first: what has ended is in the books. */
static bool sync_books(struct api_call *call, struct error *e)
{
    return usage_log_sync(orchestrator_usage(call->gateway->orchestrator), call->ctx, e);
}

static void put_row_id(struct json_writer *w, str name, const struct record *row, int column)
{
    char text[UUID_TEXT_BYTES + 1];
    if (!record_has(row, column))
        return;
    uuid_format(record_uuid(row, column), text);
    json_put_str(w, name, str_of(text, UUID_TEXT_BYTES));
}

static cost entry_cost(const struct record *row)
{
    return (cost){
        .tokens = record_integer(row, LEDGER_TOKENS),
        .time_ms = record_integer(row, LEDGER_TIME_MS),
        .cost_nanousd = record_integer(row, LEDGER_NANOUSD),
        .tool_calls = record_integer(row, LEDGER_TOOL_CALLS),
    };
}

/* One transaction, as this account sees it: its debit, and which counter has the credit. */
static bool write_entry(struct api_call *call, struct json_writer *w, const struct record *row,
                        struct error *e)
{
    struct arena *arena = call->ctx->arena;
    str level, subject;
    if (!param_text(call, 0, &level, e) || !param_text(call, 1, &subject, e))
        return false;
    json_object_begin(w);
    put_row_id(w, S("id"), row, LEDGER_ID);
    json_put_str(w, S("at"), time_str(arena, record_integer(row, LEDGER_AT)));
    json_put_str(w, S("debit"),
                 str_printf(arena, STR_FMT ":" STR_FMT, STR_ARG(level), STR_ARG(subject)));
    json_put_str(w, S("credit"), ledger_counter_name(arena, row));
    json_put_str(w, S("basis"), record_text(row, LEDGER_BASIS));
    put_cost(w, S("amount"), entry_cost(row));
    json_put_str(w, S("user_id"), record_text(row, LEDGER_USER_ID));
    put_row_id(w, S("session_id"), row, LEDGER_SESSION_ID);
    put_row_id(w, S("run_id"), row, LEDGER_RUN_ID);
    put_row_id(w, S("key_id"), row, LEDGER_KEY_ID);
    json_object_end(w);
    return true;
}

static bool name_subject(struct api_call *call, struct query *query, enum account_level *level,
                         struct error *e)
{
    str name, subject;
    uuid id;
    if (!param_text(call, 0, &name, e) || !param_text(call, 1, &subject, e))
        return false;
    bool is_session = str_equal(name, S("session")), is_run = str_equal(name, S("run"));
    if (is_session || is_run) {
        if (!uuid_parse(subject, &id))
            return error_set(e, REASON_NOT_FOUND, "a session and a run are named by their id");
        query_where_uuid(query, is_run ? LEDGER_RUN_ID : LEDGER_SESSION_ID, id);
        *level = is_run ? ACCOUNT_RUN : ACCOUNT_SESSION;
        return true;
    }
    if (!str_equal(name, S("key")) && !str_equal(name, S("user")) && !str_equal(name, S("tenant")))
        return error_set(e, REASON_NOT_FOUND,
                         "the ledger is kept for run, session, key, user and tenant, not \"" STR_FMT
                         "\"",
                         STR_ARG(text_made_visible(call->ctx->arena, str_cut_utf8(name, 40))));
    if (!read_subject(call, level, &subject, e))
        return false;
    if (*level == ACCOUNT_USER)
        query_where_text(query, LEDGER_USER_ID, subject);
    else if (*level == ACCOUNT_KEY && uuid_parse(subject, &id))
        query_where_uuid(query, LEDGER_KEY_ID, id);
    return true;
}

/* A forfeited lease is an entry of the one account that `kind` names. */
static void keep_own(struct records *rows, enum account_level level)
{
    size_t kept = 0;
    str own = str_from_cstr(account_level_name(level));
    for (size_t i = 0; i < rows->count; i++)
        if (!str_equal(record_text(&rows->items[i], LEDGER_BASIS), S("forfeited")) ||
            str_equal(record_text(&rows->items[i], LEDGER_KIND), own))
            rows->items[kept++] = rows->items[i];
    rows->count = kept;
}

bool route_budget_ledger(struct api_call *call, struct error *e)
{
    struct query query = query_of(TABLE_LEDGER);
    struct records rows;
    enum account_level level;
    query.order_column = LEDGER_AT;
    query.is_descending = true;
    if (!name_subject(call, &query, &level, e) ||
        !query_page(call, &query.cursor, &query.limit, e) || !sync_books(call, e) ||
        !store_list(call->gateway->store, call->ctx, call->principal.tenant_id, &query, &rows, e))
        return false;
    keep_own(&rows, level);
    return reply_page(call, &rows, write_entry, e);
}

bool route_budget_verify(struct api_call *call, struct error *e)
{
    struct ledger_report report;
    struct reply_writer writer;
    if (!sync_books(call, e) || !ledger_check(orchestrator_ledger(call->gateway->orchestrator),
                                              call->ctx, call->principal.tenant_id, &report, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_bool(w, S("ok"), str_is_empty(report.first_bad));
    json_put_i64(w, S("entries"), report.entries);
    json_put_i64(w, S("accounts"), report.accounts);
    json_put_i64(w, S("periods"), report.periods);
    put_cost(w, S("debits"), report.debits);
    put_cost(w, S("credits"), report.credits);
    json_key(w, S("counters"));
    json_object_begin(w);
    for (size_t i = 0; i < report.counter_count; i++)
        put_cost(w, report.counters[i].name, report.counters[i].amount);
    json_object_end(w);
    if (!str_is_empty(report.first_bad))
        json_put_str(w, S("first_bad"), report.first_bad);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}
