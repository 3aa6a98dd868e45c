#include "gateway/mcp/mcp_envelope.h"
#include "base/arena.h"
#include "base/limits.h"

struct reading {
    struct arena *arena;
    const struct mcp_head *head;
    struct mcp_envelope *out;
    struct mcp_refusal *refusal;
    struct error *e;
};

/* ---- refusing ---- */

static bool refuse(struct reading *r, int64_t code, enum error_reason reason, const char *message,
                   str about)
{
    r->refusal->status = 400;
    r->refusal->code = code;
    return error_set(r->e, reason, "%s" STR_FMT, message, STR_ARG(str_cut_utf8(about, 200)));
}

static bool refuse_version(struct reading *r, str version)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, r->arena, 2048);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, S("supported"));
    json_array_begin(&w);
    for (size_t i = 0; i < mcp_revision_count; i++)
        json_write_str(&w, mcp_revisions[i].name);
    json_array_end(&w);
    json_put_str(&w, S("requested"), str_cut_utf8(version, 100));
    json_object_end(&w);
    r->refusal->data = strbuf_str(&text);
    return refuse(r, MCP_UNSUPPORTED_VERSION, REASON_UNSUPPORTED,
                  "unsupported protocol version: ", version);
}

/* ---- mirrored header fields ---- */

static bool refuse_mismatch(struct reading *r, const char *field, str value, str wanted)
{
    if (str_is_empty(value))
        return refuse(r, MCP_HEADER_MISMATCH, REASON_INVALID, "the request needs the header field ",
                      str_from_cstr(field));
    r->refusal->status = 400;
    r->refusal->code = MCP_HEADER_MISMATCH;
    return error_set(r->e, REASON_INVALID,
                     "header mismatch: %s is \"" STR_FMT "\" and the body says \"" STR_FMT "\"",
                     field, STR_ARG(str_cut_utf8(value, 100)), STR_ARG(str_cut_utf8(wanted, 100)));
}

/* tools/call and prompts/get mirror params.name, resources/read params.uri. */
static bool check_name(struct reading *r)
{
    const struct mcp_message *m = &r->out->message;
    bool is_named = str_equal(m->method, S("tools/call")) || str_equal(m->method, S("prompts/get"));
    bool is_read = str_equal(m->method, S("resources/read"));
    str wanted = STR_NONE, value = STR_NONE;
    if (!is_named && !is_read)
        return true;
    const struct json *member = json_get(m->params, is_read ? S("uri") : S("name"));
    if (!json_to_str(member, &wanted))
        return refuse(r, MCP_INVALID_PARAMS, REASON_SCHEMA, "params need the text member ",
                      is_read ? S("uri") : S("name"));
    if (r->head->name.len > MCP_SERVER_HEADER_BYTES_MAX ||
        !mcp_header_decode(r->arena, r->head->name, &value))
        return refuse(r, MCP_HEADER_MISMATCH, REASON_INVALID,
                      "Mcp-Name is malformed: plain ASCII, or =?base64?...?=", STR_NONE);
    return str_equal(value, wanted) || refuse_mismatch(r, "Mcp-Name", value, wanted);
}

static bool read_stateless(struct reading *r)
{
    const struct mcp_message *m = &r->out->message;
    str version = STR_NONE;
    bool has_version = json_to_str(json_get(m->meta, MCP_META_VERSION), &version);
    if (str_is_empty(r->head->version))
        return refuse_mismatch(r, "MCP-Protocol-Version", STR_NONE, version);
    if (has_version && !str_equal(version, r->head->version))
        return refuse_mismatch(r, "MCP-Protocol-Version", r->head->version, version);
    r->out->revision = mcp_revision_find(r->head->version);
    if (!r->out->revision || r->out->revision->era != MCP_ERA_STATELESS)
        return refuse_version(r, r->head->version);
    if (!has_version)
        return refuse(r, MCP_INVALID_PARAMS, REASON_SCHEMA, "params._meta needs ",
                      MCP_META_VERSION);
    const struct json *capabilities = json_get(m->meta, MCP_META_CLIENT_CAPABILITIES);
    if (json_type(capabilities) != JSON_OBJECT)
        return refuse(r, MCP_INVALID_PARAMS, REASON_SCHEMA, "params._meta needs the object ",
                      MCP_META_CLIENT_CAPABILITIES);
    r->out->can_open_urls = json_path(capabilities, S("/elicitation/url")) != NULL;
    if (!str_equal(m->method, r->head->method))
        return refuse_mismatch(r, "Mcp-Method", r->head->method, m->method);
    return check_name(r);
}

/* ---- which era ---- */

static bool is_stateless(const struct reading *r)
{
    const struct mcp_revision *revision = mcp_revision_find(r->head->version);
    str version;
    if (json_to_str(json_get(r->out->message.meta, MCP_META_VERSION), &version))
        return true;
    return revision && revision->era == MCP_ERA_STATELESS;
}

static void read_progress_token(struct mcp_envelope *out)
{
    const struct json *token = json_get(out->message.meta, S("progressToken"));
    enum json_type type = json_type(token);
    if (type == JSON_STRING || type == JSON_INTEGER)
        out->progress_token = token;
}

static bool read_message(struct reading *r, str body)
{
    int64_t code = MCP_INVALID_REQUEST;
    bool ok = mcp_read(r->arena, body, &r->out->message, &code, r->e);
    r->refusal->id = r->out->message.id;
    r->refusal->code = code;
    return ok;
}

bool mcp_envelope_read(struct arena *arena, const struct mcp_head *head, str body,
                       struct mcp_envelope *out, struct mcp_refusal *refusal, struct error *e)
{
    struct reading r = {arena, head, out, refusal, e};
    *out = (struct mcp_envelope){.era = MCP_ERA_SESSION};
    *refusal = (struct mcp_refusal){.status = 400, .code = MCP_INVALID_REQUEST};
    if (!read_message(&r, body))
        return false;
    read_progress_token(out);
    if (is_stateless(&r)) {
        out->era = MCP_ERA_STATELESS;
        if (out->message.kind == MCP_NOTIFICATION)
            return true; /* this revision asks nothing of them */
        if (out->message.kind != MCP_REQUEST)
            return refuse(&r, MCP_INVALID_REQUEST, REASON_INVALID,
                          "a client sends requests and notifications, never answers", STR_NONE);
        return read_stateless(&r);
    }
    if (str_is_empty(head->version))
        return true;
    out->revision = mcp_revision_find(head->version);
    return out->revision != NULL || refuse_version(&r, head->version);
}

/* ---- Mcp-Param-* ---- */

/* Both are texts by now; whole numbers are compared as such, so that 42.0 is 42. */
static bool is_same(str a, str b)
{
    double x, y;
    return str_equal(a, b) || (str_to_double(a, &x) && str_to_double(b, &y) && x == y);
}

static bool check_one(struct arena *arena, const struct http_headers *headers,
                      const struct mcp_param *param, const struct json *arguments, struct error *e)
{
    str field = str_printf(arena, "Mcp-Param-" STR_FMT, STR_ARG(param->header));
    str given = http_headers_get(headers, field), wanted = STR_NONE, decoded = STR_NONE;
    bool is_wanted = mcp_param_value(arena, param, arguments, &wanted);
    if (is_wanted != (given.ptr != NULL))
        return error_set(e, REASON_INVALID, "header mismatch: " STR_FMT " is %s the body%s",
                         STR_ARG(field), is_wanted ? "missing;" : "there;",
                         is_wanted ? " has a value for it" : " has none");
    if (!is_wanted)
        return true;
    if (given.len > MCP_SERVER_HEADER_BYTES_MAX || !mcp_header_decode(arena, given, &decoded) ||
        !mcp_header_decode(arena, wanted, &wanted))
        return error_set(e, REASON_INVALID, "header mismatch: " STR_FMT " is malformed",
                         STR_ARG(field));
    return is_same(decoded, wanted) ||
           error_set(e, REASON_INVALID,
                     "header mismatch: " STR_FMT " does not say what the body says",
                     STR_ARG(field));
}

bool mcp_header_check_arguments(struct arena *arena, const struct http_headers *headers,
                                const struct json *schema, const struct json *arguments,
                                struct error *e)
{
    struct mcp_param *params;
    size_t count = 0;
    if (!mcp_params_read(arena, schema, &params, &count, NULL))
        return true; /* such annotations count for nothing, and no client is to heed them */
    for (size_t i = 0; i < count; i++)
        if (!check_one(arena, headers, &params[i], arguments, e))
            return false;
    return true;
}
