#include "agent/tool/labels.h"
#include "agent/tool/tool.h"

#define LABEL_JSON_BYTES_MAX 4096u

static const struct {
    uint32_t bit;
    const char *name;
} origins[] = {
    {LABEL_SYSTEM, "system"}, {LABEL_USER, "user"}, {LABEL_TOOL, "tool"},   {LABEL_WEB, "web"},
    {LABEL_MEMORY, "memory"}, {LABEL_FILE, "file"}, {LABEL_AGENT, "agent"},
};

struct label label_join(struct label a, struct label b)
{
    return (struct label){
        .origins = a.origins | b.origins,
        .is_untrusted = a.is_untrusted || b.is_untrusted,
        .is_private = a.is_private || b.is_private,
    };
}

bool label_covers(struct label a, struct label b)
{
    struct label joined = label_join(a, b);
    return joined.origins == a.origins && joined.is_untrusted == a.is_untrusted &&
           joined.is_private == a.is_private;
}

struct label label_unknown(uint32_t from)
{
    return (struct label){.origins = from, .is_untrusted = true, .is_private = true};
}

void label_write_json(struct json_writer *w, struct label label)
{
    json_object_begin(w);
    json_key(w, S("origins"));
    json_array_begin(w);
    for (size_t i = 0; i < ARRAY_COUNT(origins); i++)
        if (label.origins & origins[i].bit)
            json_write_str(w, str_from_cstr(origins[i].name));
    json_array_end(w);
    json_put_bool(w, S("untrusted"), label.is_untrusted);
    json_put_bool(w, S("private"), label.is_private);
    json_object_end(w);
}

/* An origin that this version does not know says nothing good of the text. */
static void read_origin(const struct json *item, struct label *label)
{
    str name = STR_NONE;
    json_to_str(item, &name);
    for (size_t i = 0; i < ARRAY_COUNT(origins); i++)
        if (str_equal(name, str_from_cstr(origins[i].name))) {
            label->origins |= origins[i].bit;
            return;
        }
    label->is_untrusted = label->is_private = true;
}

struct label label_read_json(const struct json *value)
{
    struct label label = {
        .is_untrusted = json_bool_or(value, S("untrusted"), true),
        .is_private = json_bool_or(value, S("private"), true),
    };
    struct json_iter it = json_iter(json_get(value, S("origins")));
    const struct json *item;
    while (json_next(&it, NULL, &item))
        read_origin(item, &label);
    return label;
}

struct label label_read_text(struct arena *arena, str text, uint32_t from)
{
    const struct json *value = NULL;
    struct json_limits limits = {.bytes_max = LABEL_JSON_BYTES_MAX};
    if (str_is_empty(text) || !json_parse(arena, text, limits, &value, NULL) ||
        json_type(value) != JSON_OBJECT)
        return label_unknown(from);
    return label_read_json(value);
}

/* ---- tools ---- */

static uint32_t origin_of(const struct tool *tool)
{
    if (str_equal(tool->category, S("http")))
        return LABEL_TOOL | LABEL_WEB;
    if (str_equal(tool->category, S("memory")))
        return LABEL_TOOL | LABEL_MEMORY;
    if (tool_may_call(tool, S("file_system")))
        return LABEL_TOOL | LABEL_FILE;
    return LABEL_TOOL;
}

/* What a guest can bring in by its host calls, whatever its manifest says of it. */
static bool meets_outside(const struct tool *tool)
{
    return tool_may_call(tool, S("http_request")) || tool_may_call(tool, S("web_extract"));
}

static bool meets_private(const struct tool *tool)
{
    return tool_may_call(tool, S("file_system")) || tool_may_call(tool, S("memory_search"));
}

struct label label_of_tool(const struct tool *tool)
{
    if (!tool)
        return label_unknown(LABEL_TOOL);
    return (struct label){
        .origins = origin_of(tool),
        .is_untrusted = !tool->is_output_trusted || meets_outside(tool) || meets_private(tool),
        .is_private = !tool->is_output_public || meets_private(tool),
    };
}

void label_tool_defaults(struct tool *tool)
{
    tool->is_output_public = str_equal(tool->category, S("http")) ||
                             str_equal(tool->category, S("time")) ||
                             str_equal(tool->category, S("text_processing"));
    tool->is_output_trusted = false;
    tool->is_sink = tool_has_effect(tool) || tool->permissions.network.is_set ||
                    tool->permissions.network_access;
}
