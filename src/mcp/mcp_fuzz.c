/* MCP messages: whatever is read as one can be written and read again; definitions, content blocks and header fields within. */
#include "mcp/mcp.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

static void look_at_tool(struct arena *arena, const struct json *value)
{
    struct error e;
    struct mcp_tool tool;
    struct mcp_param *params;
    size_t count;
    str field, back;
    if (!mcp_tool_read(value, &tool, &e))
        return;
    ensure(digest_equal(mcp_tool_digest(arena, &tool), mcp_tool_digest(arena, &tool)));
    ensure(mcp_header_decode(arena, mcp_header_encode(arena, tool.name), &back));
    ensure(str_equal(back, tool.name));
    if (!mcp_params_read(arena, tool.input_schema, &params, &count, &e))
        return;
    for (size_t i = 0; i < count; i++)
        if (mcp_param_value(arena, &params[i], value, &field))
            ensure(mcp_header_decode(arena, field, &back));
}

static void look_inside(struct arena *arena, const struct json *object)
{
    struct error e;
    struct mcp_content content;
    const struct json *item;
    struct json_iter tools = json_iter(json_get(object, S("tools")));
    while (json_next(&tools, NULL, &item))
        look_at_tool(arena, item);
    struct json_iter blocks = json_iter(json_get(object, S("content")));
    while (json_next(&blocks, NULL, &item))
        if (mcp_content_read(item, &content, &e))
            ensure(content.kind <= MCP_CONTENT_UNKNOWN);
}

static void write_again(struct arena *arena, const struct mcp_message *m)
{
    struct error e;
    int64_t code;
    struct strbuf b;
    struct json_writer w;
    struct mcp_message again;
    strbuf_init(&b, arena, 64u << 20);
    json_writer_init(&w, &b);
    if (m->kind == MCP_ERROR) {
        mcp_write_error(&w, m->id, m->error_code, m->error_message);
    } else {
        if (m->kind == MCP_RESULT)
            mcp_begin_result(&w, m->id);
        else
            mcp_begin_request(&w, m->id, 0, m->method);
        if (m->kind == MCP_RESULT || m->params) {
            json_write_value(&w, m->kind == MCP_RESULT ? m->result : m->params);
        } else {
            json_object_begin(&w);
            json_object_end(&w);
        }
        mcp_end(&w);
    }
    if (b.len > MCP_MESSAGE_BYTES_MAX)
        return;
    ensure(mcp_read(arena, strbuf_str(&b), &again, &code, &e));
    ensure(again.kind == m->kind);
    ensure(m->id ? mcp_id_equal(again.id, m->id) : again.id == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e;
    int64_t code = 0;
    struct mcp_message m;
    str back;
    OWNED(arena) arena = arena_create(256u << 20);
    str text = str_of((const char *) data, size);
    if (mcp_header_decode(arena, text, &back))
        ensure(str_equal(back, text) || str_starts_with(text, S("=?base64?")));
    if (!mcp_read(arena, text, &m, &code, &e)) {
        ensure(code == MCP_PARSE_ERROR || code == MCP_INVALID_REQUEST ||
               code == MCP_INVALID_PARAMS);
        return 0;
    }
    look_inside(arena, m.params);
    look_inside(arena, m.result);
    write_again(arena, &m);
    return 0;
}
