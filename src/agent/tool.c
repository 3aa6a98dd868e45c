#include "agent/tool.h"

bool tool_has_effect(const struct tool *tool)
{
    return str_equal(tool->category, S("system")) || (!tool->is_pure && !tool->is_idempotent);
}

bool tool_may_call(const struct tool *tool, str host_call)
{
    for (size_t i = 0; i < tool->host_call_count; i++)
        if (str_equal(tool->host_calls[i], host_call))
            return true;
    return false;
}

/* Length before text, so that no two tools can spell the same bytes. */
static void add_text(struct digest_stream *stream, str text)
{
    uint64_t bytes = text.len;
    digest_stream_add(stream, str_of((const char *) &bytes, sizeof bytes));
    digest_stream_add(stream, text);
}

digest tool_identity(const struct tool *tool)
{
    struct digest_stream *stream = digest_stream_create();
    add_text(stream, tool->name);
    add_text(stream, tool->version);
    add_text(stream, tool->abi == TOOL_ABI_WASI_COMMAND ? S("wasi-command") : S("nexus-export"));
    add_text(stream, tool->input_schema);
    add_text(stream, tool->output_schema);
    add_text(stream,
             str_of((const char *) tool->module_digest.bytes, sizeof tool->module_digest.bytes));
    digest identity = digest_stream_finish(stream);
    digest_stream_destroy(stream);
    return identity;
}

static void write_limits(struct json_writer *w, const struct tool_limits *limits)
{
    json_object_begin(w);
    json_put_i64(w, S("fuel"), (int64_t) limits->fuel);
    json_put_i64(w, S("time_ms"), limits->time_ms);
    json_put_i64(w, S("memory_bytes"), (int64_t) limits->memory_bytes);
    json_put_i64(w, S("output_bytes"), (int64_t) limits->output_bytes);
    json_put_i64(w, S("table_elements"), limits->table_elements);
    json_object_end(w);
}

static void write_digest(struct json_writer *w, digest d)
{
    static const char digits[] = "0123456789abcdef";
    char text[2 * sizeof d.bytes];
    for (size_t i = 0; i < sizeof d.bytes; i++) {
        text[2 * i] = digits[d.bytes[i] >> 4];
        text[2 * i + 1] = digits[d.bytes[i] & 15];
    }
    json_put_str(w, S("digest"), str_of(text, sizeof text));
}

void tool_write_json(struct json_writer *w, const struct tool *tool)
{
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    json_put_str(w, S("version"), tool->version);
    json_put_str(w, S("category"), tool->category);
    json_put_str(w, S("description"), tool->description);
    if (!str_is_empty(tool->author))
        json_put_str(w, S("author"), tool->author);
    json_put_raw(w, S("input_schema"), tool->input_schema);
    json_put_raw(w, S("output_schema"), tool->output_schema);
    json_key(w, S("permissions"));
    permissions_write_json(w, &tool->permissions);
    json_key(w, S("limits"));
    write_limits(w, &tool->limits);
    json_key(w, S("host_calls"));
    json_array_begin(w);
    for (size_t i = 0; i < tool->host_call_count; i++)
        json_write_str(w, tool->host_calls[i]);
    json_array_end(w);
    json_put_bool(w, S("pure"), tool->is_pure);
    json_put_bool(w, S("idempotent"), tool->is_idempotent);
    write_digest(w, tool->module_digest);
    json_object_end(w);
}
