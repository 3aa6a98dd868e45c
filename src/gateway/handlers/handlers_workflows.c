/* Workflows: definitions, instances, signals, and how far an instance is. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/workflow/workflow_store.h"

static struct orchestrator *orchestrator_of(struct api_call *call)
{
    return call->gateway->orchestrator;
}

/* ---- definitions ---- */

static void put_text(struct json_writer *w, const char *name, str text)
{
    if (str_is_empty(text)) {
        json_key(w, str_from_cstr(name));
        json_write_null(w);
        return;
    }
    json_put_str(w, str_from_cstr(name), text);
}

static void write_row(struct json_writer *w, const struct workflow_row *row)
{
    json_object_begin(w);
    json_put_str(w, S("name"), row->name);
    json_put_str(w, S("version"), row->version);
    json_put_str(w, S("digest"), row->digest);
    put_text(w, "description", row->description);
    json_put_str(w, S("origin"), row->origin);
    put_text(w, "deprecated", row->deprecated);
    put_time(w, S("created_at"), row->created_us);
    json_object_end(w);
}

bool route_workflow_list(struct api_call *call, struct error *e)
{
    struct workflow_row *rows;
    struct reply_writer writer;
    size_t count;
    if (!workflow_list(orchestrator_of(call), call->ctx, &call->principal,
                       query_text(call, S("name")), &rows, &count, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_key(w, S("items"));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++)
        write_row(w, &rows[i]);
    json_array_end(w);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

static void write_definition(struct json_writer *w, const struct definition *definition)
{
    json_object_begin(w);
    json_put_str(w, S("name"), definition->name);
    json_put_str(w, S("version"), definition->version);
    json_put_str(w, S("digest"), definition->digest);
    json_put_raw(w, S("definition"), definition->canonical);
    json_object_end(w);
}

static bool reply_entry(struct api_call *call, struct workflow_entry *entry, int status,
                        struct error *e)
{
    struct reply_writer writer;
    write_definition(reply_writer_init(&writer, call), workflow_entry_definition(entry));
    workflow_entry_release(entry);
    return reply_writer_send(&writer, call, status, e);
}

/* All that is wrong, not the first only: each on a line of its own. */
static bool tell_problems(struct api_call *call, const struct definition_problems *problems,
                          struct error *e)
{
    struct strbuf text;
    strbuf_init(&text, call->ctx->arena, ERROR_MESSAGE_BYTES);
    for (size_t i = 0; i < problems->count; i++)
        strbuf_printf(&text, "%sline %u: " STR_FMT, i > 0 ? "; " : "", problems->items[i].line,
                      STR_ARG(problems->items[i].message));
    if (problems->count == 0)
        return false;
    return error_set(e, REASON_SCHEMA, STR_FMT, STR_ARG(strbuf_str(&text)));
}

bool route_workflow_put(struct api_call *call, struct error *e)
{
    struct definition_problems problems = {0};
    struct workflow_entry *entry;
    bool is_new = false;
    str text;
    if (!http_request_read_all(call->request, WORKFLOW_BYTES_MAX, &text, e))
        return false;
    if (workflow_put(orchestrator_of(call), call->ctx, &call->principal, text, &problems, &entry,
                     &is_new, e))
        return reply_entry(call, entry, is_new ? 201 : 200, e);
    return problems.count > 1 ? tell_problems(call, &problems, e) : false;
}

static bool resolve(struct api_call *call, struct workflow_entry **out, struct error *e)
{
    str name;
    return param_text(call, 0, &name, e) &&
           workflow_resolve(orchestrator_of(call), call->ctx, call->principal.tenant_id, name,
                            query_text(call, S("version")), out, e);
}

bool route_workflow_get(struct api_call *call, struct error *e)
{
    struct workflow_entry *entry;
    return resolve(call, &entry, e) && reply_entry(call, entry, 200, e);
}

bool route_workflow_graph(struct api_call *call, struct error *e)
{
    struct workflow_entry *entry;
    bool is_svg = str_equal(query_text(call, S("format")), S("svg"));
    if (!resolve(call, &entry, e))
        return false;
    const struct definition *definition = workflow_entry_definition(entry);
    str text = is_svg ? definition_svg(call->ctx->arena, definition)
                      : definition_mermaid(call->ctx->arena, definition);
    workflow_entry_release(entry);
    reply_send(call, 200, is_svg ? S("image/svg+xml") : S("text/plain; charset=utf-8"), text);
    return true;
}

bool route_workflow_deprecate(struct api_call *call, struct error *e)
{
    str name, version, why = STR_NONE;
    if (!param_text(call, 0, &name, e) || !param_text(call, 1, &version, e) ||
        !json_read_str(call->json, S("reason"), &why, e))
        return false;
    if (why.len > ERROR_MESSAGE_BYTES)
        return error_set(e, REASON_SCHEMA, "reason is over %d bytes", ERROR_MESSAGE_BYTES);
    if (!workflow_deprecate(orchestrator_of(call), call->ctx, &call->principal, name, version, why,
                            e))
        return false;
    reply_empty(call, 204);
    return true;
}

/* ---- instances ---- */

static bool read_run(struct api_call *call, struct workflow_request *out, struct error *e)
{
    str session = STR_NONE;
    const struct json *input = json_get(call->json, S("input"));
    *out = (struct workflow_request){.budget = COST_LIMITLESS};
    if (!param_text(call, 0, &out->name, e) ||
        !json_read_str(call->json, S("version"), &out->range, e) ||
        !json_read_str(call->json, S("session_id"), &session, e) ||
        !json_read_str(call->json, S("user_id"), &out->user_id, e) ||
        !body_read_budget(call->ctx->arena, call->json, &out->budget, e))
        return false;
    if (!str_is_empty(session) && !uuid_parse(session, &out->session_id))
        return error_set(e, REASON_SCHEMA, "session_id must be a UUID");
    if (input)
        out->input = json_print(call->ctx->arena, input);
    return true;
}

bool route_workflow_run(struct api_call *call, struct error *e)
{
    struct workflow_request request;
    struct reply_writer writer;
    uuid run_id, session_id;
    if (!read_run(call, &request, e) ||
        !workflow_start(orchestrator_of(call), call->ctx, &call->principal, &request, &run_id,
                        &session_id, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    str id = uuid_str(call->ctx->arena, run_id);
    json_object_begin(w);
    json_put_str(w, S("run_id"), id);
    put_id(w, S("session_id"), session_id);
    json_put_str(w, S("events"),
                 str_printf(call->ctx->arena, "/api/v1/runs/" STR_FMT "/events", STR_ARG(id)));
    json_object_end(w);
    return reply_writer_send(&writer, call, 202, e);
}

bool route_run_signal(struct api_call *call, struct error *e)
{
    uuid run_id, signal_id;
    str name;
    const struct json *data = json_get(call->json, S("data"));
    if (!param_uuid(call, 0, "run", &run_id, e) ||
        !json_need_str(call->json, S("name"), &name, e) ||
        !workflow_signal(orchestrator_of(call), call->ctx, &call->principal, run_id, name,
                         data ? json_print(call->ctx->arena, data) : STR_NONE, &signal_id, e))
        return false;
    reply_json(call, 202,
               str_printf(call->ctx->arena, "{\"signal_id\":\"" STR_FMT "\"}",
                          STR_ARG(uuid_str(call->ctx->arena, signal_id))));
    return true;
}

bool route_run_steps(struct api_call *call, struct error *e)
{
    uuid run_id;
    struct reply_writer writer;
    if (!param_uuid(call, 0, "run", &run_id, e))
        return false;
    return workflow_write_steps(orchestrator_of(call), call->ctx, &call->principal, run_id,
                                reply_writer_init(&writer, call), e) &&
           reply_writer_send(&writer, call, 200, e);
}
