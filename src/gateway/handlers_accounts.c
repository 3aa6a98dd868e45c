/* Budgets. */
#include "base/arena.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"

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

static bool reply_budget(struct api_call *call, enum account_level level, str subject,
                         struct error *e)
{
    struct ledger *ledger = orchestrator_ledger(call->gateway->orchestrator);
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    struct ledger_path path;
    struct reply_writer writer;
    str user = level == ACCOUNT_USER ? subject : call->principal.user_id;
    if (level == ACCOUNT_KEY && !uuid_parse(subject, &limits.key_id))
        return error_set(e, REASON_NOT_FOUND, "a key is named by its id");
    if (!ledger_open_path(ledger, call->ctx, call->principal.tenant_id, user, UUID_NONE, UUID_NONE,
                          limits, &path, e))
        return false;
    struct ledger_view view = ledger_view(ledger, &path, level);
    ledger_close_path(ledger, &path);
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    put_cost(w, S("limit"), view.limit);
    put_cost(w, S("spent"), view.spent);
    put_cost(w, S("reserved"), view.reserved);
    put_cost(w, S("remaining"), view.remaining);
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
    cost limit;
    return read_subject(call, &level, &subject, e) && body_read_limits(call->json, &limit, e) &&
           audit_limit(call, level, subject, e) &&
           ledger_set_limit(orchestrator_ledger(call->gateway->orchestrator), call->ctx,
                            call->principal.tenant_id, level, subject, limit, e) &&
           reply_budget(call, level, subject, e);
}
