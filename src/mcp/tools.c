#include "mcp/mcp.h"

#include "base/arena.h"
#include "base/limits.h"

bool mcp_tool_name_is_valid(str name)
{
    if (str_is_empty(name) || name.len > MCP_TOOL_NAME_BYTES_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '_' && c != '-' && c != '.')
            return false;
    }
    return true;
}

static bool has_control(str text)
{
    for (size_t i = 0; i < text.len; i++)
        if ((unsigned char) text.ptr[i] < 0x20 || text.ptr[i] == 0x7f)
            return true;
    return false;
}

static bool read_object(const struct json *value, str key, const struct json **out, struct error *e)
{
    const struct json *item = json_get(value, key);
    if (json_type(item) == JSON_NULL)
        item = NULL;
    if (item && json_type(item) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, STR_FMT " must be an object", STR_ARG(key));
    *out = item;
    return true;
}

bool mcp_tool_read(const struct json *value, struct mcp_tool *out, struct error *e)
{
    struct mcp_tool tool = {0};
    if (json_type(value) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "a tool's definition must be an object");
    if (!json_need_str(value, S("name"), &tool.name, e) ||
        !json_read_str(value, S("title"), &tool.title, e) ||
        !json_read_str(value, S("description"), &tool.description, e))
        return error_wrap(e, "a tool's definition");
    if (str_is_empty(tool.name) || tool.name.len > MCP_TOOL_NAME_BYTES_MAX ||
        has_control(tool.name))
        return error_set(e, REASON_SCHEMA, "a tool's name must be 1 to %u bytes of text",
                         MCP_TOOL_NAME_BYTES_MAX);
    if (tool.description.len > MCP_TOOL_DESCRIPTION_BYTES_MAX ||
        tool.title.len > MCP_TOOL_TITLE_BYTES_MAX)
        return error_set(
            e, REASON_LIMIT, "tool " STR_FMT ": a description is at most %u bytes, a title %u",
            STR_ARG(tool.name), MCP_TOOL_DESCRIPTION_BYTES_MAX, MCP_TOOL_TITLE_BYTES_MAX);
    if (!read_object(value, S("inputSchema"), &tool.input_schema, e) ||
        !read_object(value, S("outputSchema"), &tool.output_schema, e) ||
        !read_object(value, S("annotations"), &tool.annotations, e))
        return error_wrap(e, "tool " STR_FMT, STR_ARG(tool.name));
    if (!tool.input_schema)
        return error_set(e, REASON_SCHEMA, "tool " STR_FMT " has no inputSchema",
                         STR_ARG(tool.name));
    *out = tool;
    return true;
}

str mcp_tool_canonical(struct arena *arena, const struct mcp_tool *tool)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, MCP_MESSAGE_BYTES_MAX);
    json_writer_init(&w, &text);
    /* Members in the order of their names, each in canonical form: so is the whole. */
    json_object_begin(&w);
    if (tool->annotations)
        json_put_raw(&w, S("annotations"), json_canonical(arena, tool->annotations));
    json_put_str(&w, S("description"), tool->description);
    json_put_raw(&w, S("inputSchema"), json_canonical(arena, tool->input_schema));
    json_put_str(&w, S("name"), tool->name);
    if (tool->output_schema)
        json_put_raw(&w, S("outputSchema"), json_canonical(arena, tool->output_schema));
    json_put_str(&w, S("title"), tool->title);
    json_object_end(&w);
    return strbuf_str(&text);
}

digest mcp_tool_digest(struct arena *arena, const struct mcp_tool *tool)
{
    arena_mark mark = arena_save(arena);
    digest result = digest_sha256(mcp_tool_canonical(arena, tool));
    arena_rewind(arena, mark);
    return result;
}

void mcp_tool_write(struct json_writer *w, const struct mcp_tool_text *tool)
{
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    if (!str_is_empty(tool->title))
        json_put_str(w, S("title"), tool->title);
    if (!str_is_empty(tool->description))
        json_put_str(w, S("description"), tool->description);
    json_put_raw(w, S("inputSchema"), tool->input_schema);
    if (!str_is_empty(tool->output_schema))
        json_put_raw(w, S("outputSchema"), tool->output_schema);
    if (!str_is_empty(tool->annotations))
        json_put_raw(w, S("annotations"), tool->annotations);
    json_object_end(w);
}

/* ---- content ---- */

static const struct {
    str name;
    enum mcp_content_kind kind;
} content_kinds[] = {
    {S_INIT("text"), MCP_CONTENT_TEXT},
    {S_INIT("image"), MCP_CONTENT_IMAGE},
    {S_INIT("audio"), MCP_CONTENT_AUDIO},
    {S_INIT("resource_link"), MCP_CONTENT_RESOURCE_LINK},
    {S_INIT("resource"), MCP_CONTENT_RESOURCE},
};

static bool read_resource(const struct json *resource, struct mcp_content *out, struct error *e)
{
    if (json_type(resource) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "content: resource must be an object");
    return json_need_str(resource, S("uri"), &out->uri, e) &&
           json_read_str(resource, S("text"), &out->text, e) &&
           json_read_str(resource, S("blob"), &out->data, e) &&
           json_read_str(resource, S("mimeType"), &out->mime_type, e);
}

bool mcp_content_read(const struct json *value, struct mcp_content *out, struct error *e)
{
    str type;
    *out = (struct mcp_content){.kind = MCP_CONTENT_UNKNOWN};
    if (json_type(value) != JSON_OBJECT || !json_to_str(json_get(value, S("type")), &type))
        return error_set(e, REASON_SCHEMA, "a content block must be an object with a type");
    for (size_t i = 0; i < ARRAY_COUNT(content_kinds); i++)
        if (str_equal(content_kinds[i].name, type))
            out->kind = content_kinds[i].kind;
    switch (out->kind) {
    case MCP_CONTENT_TEXT: return json_need_str(value, S("text"), &out->text, e);
    case MCP_CONTENT_IMAGE:
    case MCP_CONTENT_AUDIO:
        return json_need_str(value, S("data"), &out->data, e) &&
               json_read_str(value, S("mimeType"), &out->mime_type, e);
    case MCP_CONTENT_RESOURCE_LINK:
        return json_need_str(value, S("uri"), &out->uri, e) &&
               json_read_str(value, S("name"), &out->name, e) &&
               json_read_str(value, S("mimeType"), &out->mime_type, e);
    case MCP_CONTENT_RESOURCE: return read_resource(json_get(value, S("resource")), out, e);
    case MCP_CONTENT_UNKNOWN: return true;
    }
    return true;
}

void mcp_content_write_text(struct json_writer *w, str text)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("text"));
    json_put_str(w, S("text"), text);
    json_object_end(w);
}

void mcp_content_write_image(struct json_writer *w, str base64, str mime_type)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("image"));
    json_put_str(w, S("data"), base64);
    json_put_str(w, S("mimeType"), mime_type);
    json_object_end(w);
}
