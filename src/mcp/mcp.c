#include "mcp/mcp.h"

#include "base/arena.h"
#include "base/limits.h"

const struct mcp_revision mcp_revisions[] = {
    {S_INIT("2026-07-28"), MCP_ERA_STATELESS},
    {S_INIT("2025-11-25"), MCP_ERA_SESSION},
    {S_INIT("2025-06-18"), MCP_ERA_SESSION},
};
const size_t mcp_revision_count = ARRAY_COUNT(mcp_revisions);

const struct mcp_revision *mcp_revision_find(str name)
{
    for (size_t i = 0; i < mcp_revision_count; i++)
        if (str_equal(mcp_revisions[i].name, name))
            return &mcp_revisions[i];
    return NULL;
}

bool mcp_error_is_stateless(int64_t code)
{
    return code == MCP_HEADER_MISMATCH || code == MCP_MISSING_CAPABILITY ||
           code == MCP_UNSUPPORTED_VERSION;
}

/* ---- reading ---- */

static bool refuse(int64_t *error_code, int64_t code, struct error *e, const char *what)
{
    *error_code = code;
    return error_set(e, REASON_INVALID, "the message is not one of MCP: %s", what);
}

static bool id_is_lawful(const struct json *id)
{
    str text;
    int64_t number;
    return (json_to_str(id, &text) && text.len <= MCP_ID_BYTES_MAX) ||
           (json_type(id) == JSON_INTEGER && json_to_i64(id, &number));
}

static bool read_call(const struct json *root, struct mcp_message *out, int64_t *error_code,
                      struct error *e)
{
    if (!json_to_str(json_get(root, S("method")), &out->method) || str_is_empty(out->method) ||
        out->method.len > MCP_METHOD_BYTES_MAX)
        return refuse(error_code, MCP_INVALID_REQUEST, e, "method must be a short text");
    out->kind = json_get(root, S("id")) ? MCP_REQUEST : MCP_NOTIFICATION;
    if (out->kind == MCP_REQUEST && !out->id)
        return refuse(error_code, MCP_INVALID_REQUEST, e,
                      "the id of a request must be a short text or an integer");
    if (json_get(root, S("result")) || json_get(root, S("error")))
        return refuse(error_code, MCP_INVALID_REQUEST, e, "it is a request and a response at once");
    out->params = json_get(root, S("params"));
    if (out->params && json_type(out->params) != JSON_OBJECT)
        return refuse(error_code, MCP_INVALID_PARAMS, e, "params must be an object");
    out->meta = json_get(out->params, S("_meta"));
    return true;
}

static bool read_answer(const struct json *root, struct mcp_message *out, int64_t *error_code,
                        struct error *e)
{
    const struct json *failure = json_get(root, S("error"));
    out->result = json_get(root, S("result"));
    if (failure && out->result)
        return refuse(error_code, MCP_INVALID_REQUEST, e, "it has both a result and an error");
    if (!failure && !out->result)
        return refuse(error_code, MCP_INVALID_REQUEST, e,
                      "it has none of method, result and error");
    if (out->result) {
        out->kind = MCP_RESULT;
        if (!out->id)
            return refuse(error_code, MCP_INVALID_REQUEST, e, "a result without an id");
        if (json_type(out->result) != JSON_OBJECT)
            return refuse(error_code, MCP_INVALID_REQUEST, e, "result must be an object");
        out->meta = json_get(out->result, S("_meta"));
        return true;
    }
    out->kind = MCP_ERROR;
    if (!json_to_i64(json_get(failure, S("code")), &out->error_code))
        return refuse(error_code, MCP_INVALID_REQUEST, e, "error.code must be an integer");
    out->error_message = json_str_or(failure, S("message"), STR_NONE);
    out->error_data = json_get(failure, S("data"));
    return true;
}

bool mcp_read(struct arena *arena, str text, struct mcp_message *out, int64_t *error_code,
              struct error *e)
{
    const struct json *root;
    struct error why = {0};
    *out = (struct mcp_message){0};
    struct json_limits limits = {.bytes_max = MCP_MESSAGE_BYTES_MAX, .depth_max = MCP_DEPTH_MAX};
    if (!json_parse(arena, text, limits, &root, &why)) {
        *error_code = why.reason == REASON_TOO_LARGE ? MCP_INVALID_REQUEST : MCP_PARSE_ERROR;
        return error_copy(e, &why);
    }
    if (json_type(root) != JSON_OBJECT)
        return refuse(error_code, MCP_INVALID_REQUEST, e,
                      json_type(root) == JSON_ARRAY ? "batches are not part of it"
                                                    : "it is no object");
    const struct json *id = json_get(root, S("id"));
    out->id = id_is_lawful(id) ? id : NULL;
    if (!str_equal(json_str_or(root, S("jsonrpc"), STR_NONE), S("2.0")))
        return refuse(error_code, MCP_INVALID_REQUEST, e, "jsonrpc must be \"2.0\"");
    if (json_get(root, S("method")))
        return read_call(root, out, error_code, e);
    return read_answer(root, out, error_code, e);
}

bool mcp_id_equal(const struct json *a, const struct json *b)
{
    str x, y;
    int64_t m, n;
    if (json_to_str(a, &x))
        return json_to_str(b, &y) && str_equal(x, y);
    return json_to_i64(a, &m) && json_to_i64(b, &n) && m == n;
}

/* ---- writing ---- */

static void begin(struct json_writer *w)
{
    json_object_begin(w);
    json_put_str(w, S("jsonrpc"), S("2.0"));
}

void mcp_begin_request(struct json_writer *w, const struct json *id, int64_t id_number, str method)
{
    begin(w);
    if (id)
        json_put_value(w, S("id"), id);
    else if (id_number > 0)
        json_put_i64(w, S("id"), id_number);
    json_put_str(w, S("method"), method);
    json_key(w, S("params"));
}

void mcp_begin_result(struct json_writer *w, const struct json *id)
{
    begin(w);
    json_put_value(w, S("id"), id);
    json_key(w, S("result"));
}

void mcp_end(struct json_writer *w)
{
    json_object_end(w);
}

void mcp_write_error_data(struct json_writer *w, const struct json *id, int64_t code, str message,
                          str data_json)
{
    begin(w);
    json_put_value(w, S("id"), id); /* null when there is none, as JSON-RPC wants it */
    json_key(w, S("error"));
    json_object_begin(w);
    json_put_i64(w, S("code"), code);
    json_put_str(w, S("message"), message);
    if (!str_is_empty(data_json))
        json_put_raw(w, S("data"), data_json);
    json_object_end(w);
    json_object_end(w);
}

void mcp_write_error(struct json_writer *w, const struct json *id, int64_t code, str message)
{
    mcp_write_error_data(w, id, code, message, STR_NONE);
}

void mcp_write_implementation(struct json_writer *w, str name, str version)
{
    json_object_begin(w);
    json_put_str(w, S("name"), name);
    json_put_str(w, S("version"), version);
    json_object_end(w);
}
