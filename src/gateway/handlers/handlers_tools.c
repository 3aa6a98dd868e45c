/* Tools: found, explained, installed, and what an administrator decides about them.  (Calling one: handlers_catalog.c.) */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/gateway_internal.h"
#include "orchestrator/tools/tool_admin.h"

enum { FOUND_DEFAULT = 10, FOUND_MAX = 100, PERMISSIONS_BYTES_MAX = 256 << 10 };

static struct orchestrator *orchestrator_of(struct api_call *call)
{
    return call->gateway->orchestrator;
}

static const struct registry_snapshot *tools_of(struct api_call *call)
{
    return registry_acquire(orchestrator_parts(orchestrator_of(call))->registry);
}

/* As it counts for the caller's tenant. */
static void write_tool(struct api_call *call, struct json_writer *w,
                       const struct registry_snapshot *tools, const struct tool *tool)
{
    tool_write_json(
        w, registry_effective(tools, call->ctx->arena, tool, call->principal.tenant_id, NULL));
}

/* ---- reading ---- */

static void write_found(struct api_call *call, struct json_writer *w,
                        const struct registry_snapshot *tools, str words, size_t max)
{
    struct registry_search search = {.tenant_id = call->principal.tenant_id,
                                     .canary_key = call->principal.key_id,
                                     .query = words};
    struct registry_hit *hits = ARENA_ARRAY(call->ctx->arena, struct registry_hit, max);
    size_t count = registry_find_words(tools, &search, hits, max);
    for (size_t i = 0; i < count; i++)
        write_tool(call, w, tools, hits[i].tool);
}

static void write_shown(struct api_call *call, struct json_writer *w,
                        const struct registry_snapshot *tools)
{
    for (size_t i = 0; i < registry_count(tools); i++)
        if (registry_shows(tools, registry_at(tools, i), call->principal.tenant_id))
            write_tool(call, w, tools, registry_at(tools, i));
}

bool route_tool_list(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    str words = query_text(call, S("search"));
    int64_t max = FOUND_DEFAULT;
    if (!str_is_empty(words) && !query_i64(call, S("limit"), 1, FOUND_MAX, &max, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_key(w, S("items"));
    json_array_begin(w);
    const struct registry_snapshot *tools = tools_of(call);
    if (str_is_empty(words))
        write_shown(call, w, tools);
    else
        write_found(call, w, tools, words, (size_t) max);
    registry_release(tools);
    json_array_end(w);
    json_key(w, S("next_cursor"));
    json_write_null(w);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_tool_get(struct api_call *call, struct error *e)
{
    str name;
    struct reply_writer writer;
    if (!param_text(call, 0, &name, e))
        return false;
    const struct registry_snapshot *tools = tools_of(call);
    struct registry_question question = {.tenant_id = call->principal.tenant_id,
                                         .name = name,
                                         .range = query_text(call, S("version"))};
    const struct tool *tool = registry_resolve(tools, &question);
    if (tool) {
        struct json_writer *w = reply_writer_init(&writer, call);
        json_object_begin(w);
        tool_write_members(
            w, registry_effective(tools, call->ctx->arena, tool, call->principal.tenant_id, NULL));
        tool_usage_write(call, tool, w);
        json_object_end(w);
    }
    registry_release(tools);
    if (!tool)
        return error_set(e, REASON_NOT_FOUND,
                         "there is no tool \"" STR_FMT "\" at that version; see GET /api/v1/tools",
                         STR_ARG(str_cut_utf8(name, 64)));
    return reply_writer_send(&writer, call, 200, e);
}

bool route_tool_explain(struct api_call *call, struct error *e)
{
    struct tool_question question = {.version = query_text(call, S("version")),
                                     .agent = query_text(call, S("agent")),
                                     .user_id = query_text(call, S("user"))};
    str text;
    if (!param_text(call, 0, &question.name, e) ||
        !tool_explain(orchestrator_of(call), call->ctx, &call->principal, &question, &text, e))
        return false;
    reply_json(call, 200, text);
    return true;
}

/* ---- the target of a change ---- */

/* "abc", or abc; "*" is any. */
static str if_match(struct api_call *call)
{
    str tag = str_trim(http_request_header(call->request, S("If-Match")));
    if (tag.len >= 2 && tag.ptr[0] == '"' && tag.ptr[tag.len - 1] == '"')
        tag = str_slice(tag, 1, tag.len - 1);
    return str_equal(tag, S("*")) ? STR_NONE : tag;
}

static bool is_for_platform(struct api_call *call)
{
    return str_equal(query_text(call, S("scope")), S("platform"));
}

static bool read_target(struct api_call *call, struct tool_target *out, struct error *e)
{
    *out = (struct tool_target){.version = query_text(call, S("version")),
                                .if_match = if_match(call),
                                .is_platform = is_for_platform(call)};
    return param_text(call, 0, &out->name, e);
}

static bool reply_state(struct api_call *call, const struct record *state, struct error *e)
{
    struct reply_writer writer;
    reply_header(call, S("ETag"),
                 str_printf(call->ctx->arena, "\"%lld\"",
                            (long long) record_integer(state, TOOL_STATES_REVISION)));
    tool_state_write_json(reply_writer_init(&writer, call), state);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_tool_state(struct api_call *call, struct error *e)
{
    struct tool_target target;
    struct record *state = ARENA_NEW(call->ctx->arena, struct record);
    return read_target(call, &target, e) &&
           tool_state_row(orchestrator_of(call), call->ctx, &call->principal, &target, state, e) &&
           reply_state(call, state, e);
}

bool route_tool_state_change(struct api_call *call, struct error *e)
{
    struct tool_target target;
    struct record *state = ARENA_NEW(call->ctx->arena, struct record);
    if (!call->json)
        return error_set(e, REASON_SCHEMA, "send what is to change as a JSON object");
    return read_target(call, &target, e) &&
           tool_change_state(orchestrator_of(call), call->ctx, &call->principal, &target,
                             call->json, state, e) &&
           reply_state(call, state, e);
}

bool route_tool_permissions(struct api_call *call, struct error *e)
{
    struct tool_target target;
    struct record *state = ARENA_NEW(call->ctx->arena, struct record);
    str text;
    if (!read_target(call, &target, e) ||
        !http_request_read_all(call->request, PERMISSIONS_BYTES_MAX, &text, e))
        return false;
    if (!tool_set_permissions(orchestrator_of(call), call->ctx, &call->principal, &target, text,
                              state, e)) {
        if (e->reason == REASON_CONFIG) {
            e->reason = REASON_SCHEMA; /* the caller's document, not our configuration */
            e->code = error_reason_code(e->reason);
        }
        return false;
    }
    return reply_state(call, state, e);
}

bool route_tool_remove(struct api_call *call, struct error *e)
{
    struct tool_target target;
    if (!read_target(call, &target, e))
        return false;
    if (str_is_empty(target.version))
        return error_set(e, REASON_INVALID, "say which version: ?version=1.2.3");
    if (!tool_remove(orchestrator_of(call), call->ctx, &call->principal, &target, e))
        return false;
    reply_empty(call, 204);
    return true;
}

/* ---- installing ---- */

static bool receive(struct api_call *call, struct tool_upload *upload, struct error *e)
{
    for (;;) {
        str piece;
        if (!http_request_read(call->request, &piece, e))
            return false;
        if (str_is_empty(piece))
            return true;
        if (!tool_upload_write(upload, call->ctx, piece, e))
            return false;
    }
}

static bool reply_installed(struct api_call *call, const struct tool_installed *installed,
                            struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("name"), installed->name);
    json_put_str(w, S("version"), installed->version);
    json_put_str(w, S("seal"), installed->seal);
    json_key(w, S("signer"));
    if (str_is_empty(installed->signer))
        json_write_null(w);
    else
        json_write_str(w, installed->signer);
    json_put_bool(w, S("is_new"), installed->is_new);
    json_object_end(w);
    reply_header(call, S("ETag"),
                 str_printf(call->ctx->arena, "\"" STR_FMT "\"", STR_ARG(installed->seal)));
    return reply_writer_send(&writer, call, installed->is_new ? 201 : 200, e);
}

bool route_tool_install(struct api_call *call, struct error *e)
{
    struct tool_upload *upload;
    struct tool_installed *installed = ARENA_NEW(call->ctx->arena, struct tool_installed);
    if (call->request->content_length > (int64_t) PACKAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "a package is at most %u MiB",
                         PACKAGE_BYTES_MAX >> 20);
    if (!tool_upload_begin(orchestrator_of(call), call->ctx, &call->principal,
                           is_for_platform(call), &upload, e))
        return false;
    if (!receive(call, upload, e)) {
        tool_upload_abort(upload);
        return false;
    }
    return tool_upload_finish(upload, call->ctx, installed, e) &&
           reply_installed(call, installed, e);
}
