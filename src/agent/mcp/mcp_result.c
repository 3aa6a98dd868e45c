/* A result of tools/call as one JSON value that a model reads: {"text"?, "structured"?, "blocks"?}. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"

static bool fail(str tool, struct error *e, const char *what, str more)
{
    return error_set(e, REASON_TOOL_FAILED, "tool " STR_FMT ": %s" STR_FMT, STR_ARG(tool), what,
                     STR_ARG(str_cut_utf8(more, ERROR_MESSAGE_BYTES - 160)));
}

/* What the server would ask a person, so that the model can give it at once. */
static bool fail_for_input(struct arena *arena, str tool, const struct json *result,
                           struct error *e)
{
    struct strbuf asked;
    const struct json *request;
    struct json_iter it = json_iter(json_get(result, S("inputRequests")));
    strbuf_init(&asked, arena, ERROR_MESSAGE_BYTES);
    while (json_next(&it, NULL, &request)) {
        str message = json_str_or(json_get(request, S("params")), S("message"), STR_NONE);
        strbuf_printf(&asked, "%s" STR_FMT "%s" STR_FMT, asked.len ? "; " : "",
                      STR_ARG(json_str_or(request, S("method"), S("?"))),
                      str_is_empty(message) ? "" : ": ", STR_ARG(str_cut_utf8(message, 200)));
    }
    return fail(
        tool, e,
        "the server wants more input than the call had, and nothing more is given here; call "
        "again with all of it in the arguments. It asks: ",
        strbuf_str(&asked));
}

static bool collect_text(struct arena *arena, const struct json *content, size_t max, str tool,
                         str *out, size_t *others, struct error *e)
{
    struct strbuf text;
    const struct json *item;
    struct json_iter it = json_iter(content);
    bool is_first = true;
    strbuf_init(&text, arena, max);
    while (json_next(&it, NULL, &item)) {
        struct mcp_content block;
        struct error why;
        if (!mcp_content_read(item, &block, &why))
            return fail(tool, e, "the server's answer is malformed: ", str_from_cstr(why.message));
        if (block.kind != MCP_CONTENT_TEXT) {
            ++*others;
            continue;
        }
        strbuf_add(&text, is_first ? STR_NONE : S("\n"));
        strbuf_add(&text, block.text);
        is_first = false;
    }
    if (strbuf_is_over(&text))
        return error_set(e, REASON_OUTPUT_LIMIT, "tool " STR_FMT ": its output is over %zu bytes",
                         STR_ARG(tool), max);
    *out = strbuf_str(&text);
    return true;
}

static void put_text(struct json_writer *w, str key, str value)
{
    if (!str_is_empty(value))
        json_put_str(w, key, value);
}

static void write_block(struct json_writer *w, const struct mcp_content *block,
                        const struct json *raw)
{
    json_object_begin(w);
    json_put_str(w, S("type"), json_str_or(raw, S("type"), S("unknown")));
    put_text(w, S("uri"), block->uri);
    put_text(w, S("name"), block->name);
    put_text(w, S("mime_type"), block->mime_type);
    put_text(w, S("text"), block->text);
    put_text(w, S("data"), block->data);
    json_object_end(w);
}

static void write_blocks(struct json_writer *w, const struct json *content)
{
    const struct json *item;
    struct json_iter it = json_iter(content);
    json_key(w, S("blocks"));
    json_array_begin(w);
    while (json_next(&it, NULL, &item)) {
        struct mcp_content block;
        struct error ignored;
        if (mcp_content_read(item, &block, &ignored) && block.kind != MCP_CONTENT_TEXT)
            write_block(w, &block, item);
    }
    json_array_end(w);
}

/* Servers repeat structured content as text for older clients. */
static bool is_repetition(struct arena *arena, str text, const struct json *structured)
{
    struct error ignored;
    const struct json *parsed;
    struct json_limits limits = {.depth_max = MCP_DEPTH_MAX};
    return json_parse(arena, text, limits, &parsed, &ignored) &&
           str_equal(json_canonical(arena, parsed), json_canonical(arena, structured));
}

static bool check_type(str tool, struct arena *arena, const struct json *result, struct error *e)
{
    str type = json_str_or(result, S("resultType"), S("complete"));
    if (str_equal(type, S("input_required")))
        return fail_for_input(arena, tool, result, e);
    if (!str_equal(type, S("complete")))
        return fail(tool, e, "the server gives a kind of result that is not known here: ", type);
    const struct json *content = json_get(result, S("content"));
    if (content && json_type(content) != JSON_ARRAY)
        return fail(tool, e, "the server's answer is malformed: content is no list", STR_NONE);
    return true;
}

bool mcp_result_map(struct arena *arena, str tool, const struct json *result, str *out,
                    str *structured, struct error *e)
{
    str text = STR_NONE;
    size_t others = 0;
    struct strbuf b;
    struct json_writer w;
    const struct json *content = json_get(result, S("content"));
    const struct json *data = json_get(result, S("structuredContent"));
    if (!check_type(tool, arena, result, e) ||
        !collect_text(arena, content, MCP_OUTPUT_BYTES_MAX, tool, &text, &others, e))
        return false;
    if (json_bool_or(result, S("isError"), false))
        return fail(tool, e, "",
                    str_is_empty(text) ? S("the server says that it failed, and not why") : text);
    strbuf_init(&b, arena, MCP_OUTPUT_BYTES_MAX);
    json_writer_init(&w, &b);
    json_object_begin(&w);
    if (!data || (!str_is_empty(text) && !is_repetition(arena, text, data)))
        json_put_str(&w, S("text"), text);
    if (data)
        json_put_value(&w, S("structured"), data);
    if (others > 0)
        write_blocks(&w, content);
    json_object_end(&w);
    if (strbuf_is_over(&b))
        return error_set(e, REASON_OUTPUT_LIMIT, "tool " STR_FMT ": its output is over %u bytes",
                         STR_ARG(tool), MCP_OUTPUT_BYTES_MAX);
    *out = strbuf_str(&b);
    *structured = data ? json_print(arena, data) : STR_NONE;
    return true;
}
