#include "agent/tool/tool.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/strbuf.h"

struct tool tool_with_module(const struct tool *tool, const struct tool_module *module)
{
    struct tool narrow = *tool;
    if (tool->module_count == 0)
        return narrow;
    digest both[2] = {tool->identity, module->digest};
    narrow.abi = module->abi;
    narrow.module_path = module->path;
    narrow.module_digest = module->digest;
    narrow.module_member = STR_NONE;
    narrow.modules = NULL;
    narrow.module_count = 0;
    narrow.identity = digest_sha256(str_of((const char *) both, sizeof both));
    return narrow;
}

bool tool_names_notebook(const struct tool *tool, const struct json *input, str *name)
{
    return str_equal(tool->category, S("code")) &&
           json_to_str(json_get(input, S("notebook")), name);
}

const struct tool *tool_of_call(struct arena *arena, const struct tool *tool, str input)
{
    str name;
    struct error ignored;
    const struct json *parsed;
    if (!tool || !tool->notebooks.is_enabled ||
        !json_parse(arena, input, (struct json_limits){.allow_duplicates = true}, &parsed,
                    &ignored) ||
        !tool_names_notebook(tool, parsed, &name))
        return tool;
    struct tool *copy = ARENA_NEW(arena, struct tool);
    *copy = *tool;
    copy->is_pure = copy->is_idempotent = false;
    copy->is_output_public = copy->is_output_trusted = false;
    return copy;
}

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

const struct tool_module *tool_find_module(const struct tool *tool, str value)
{
    for (size_t i = 0; i < tool->module_count; i++)
        if (str_equal(tool->modules[i].value, value))
            return &tool->modules[i];
    return NULL;
}

bool tool_choose_module(struct arena *arena, const struct tool *tool, const struct json *input,
                        struct tool_module *out, struct error *e)
{
    str value;
    if (tool->module_count == 0) {
        *out = (struct tool_module){
            .abi = tool->abi, .path = tool->module_path, .digest = tool->module_digest};
        return true;
    }
    *out = tool->modules[0];
    if (!json_to_str(json_get(input, tool->module_member), &value))
        return true;
    const struct tool_module *module = tool_find_module(tool, value);
    if (module) {
        *out = *module;
        return true;
    }
    struct strbuf known;
    strbuf_init(&known, arena, ERROR_MESSAGE_BYTES);
    for (size_t i = 0; i < tool->module_count; i++)
        strbuf_printf(&known, "%s" STR_FMT, i > 0 ? ", " : "", STR_ARG(tool->modules[i].value));
    return error_set(e, REASON_SCHEMA,
                     "the input of tool " STR_FMT " does not fit its schema: /" STR_FMT ": " STR_FMT
                     " is not there; one of " STR_FMT,
                     STR_ARG(tool->name), STR_ARG(tool->module_member),
                     STR_ARG(str_cut_utf8(value, 40)), STR_ARG(strbuf_str(&known)));
}

static str abi_name(enum tool_abi abi)
{
    switch (abi) {
    case TOOL_ABI_WASI_COMMAND: return S("wasi-command");
    case TOOL_ABI_NEXUS_EXPORT: return S("nexus-export");
    case TOOL_ABI_COMPONENT: return S("component");
    case TOOL_ABI_MCP: return S("mcp");
    }
    unreachable_state();
}

static void add_digest(struct digest_stream *stream, const digest *d)
{
    add_text(stream, str_of((const char *) d->bytes, sizeof d->bytes));
}

digest tool_modules_digest(const struct tool *tool)
{
    struct digest_stream *stream = digest_stream_create();
    add_text(stream, tool->module_member);
    for (size_t i = 0; i < tool->module_count; i++) {
        add_text(stream, tool->modules[i].value);
        add_text(stream, abi_name(tool->modules[i].abi));
        add_digest(stream, &tool->modules[i].digest);
    }
    digest all = digest_stream_finish(stream);
    digest_stream_destroy(stream);
    return all;
}

digest tool_identity(const struct tool *tool)
{
    struct digest_stream *stream = digest_stream_create();
    add_text(stream, tool->name);
    add_text(stream, tool->version);
    add_text(stream, abi_name(tool->abi));
    add_text(stream, tool->input_schema);
    add_text(stream, tool->output_schema);
    add_digest(stream, &tool->module_digest);
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

static void write_modules(struct json_writer *w, const struct tool *tool)
{
    json_key(w, S("modules"));
    json_object_begin(w);
    json_put_str(w, S("by"), tool->module_member);
    for (size_t i = 0; i < tool->module_count; i++) {
        json_key(w, tool->modules[i].value);
        json_object_begin(w);
        json_put_str(w, S("abi"), abi_name(tool->modules[i].abi));
        write_digest(w, tool->modules[i].digest);
        json_object_end(w);
    }
    json_object_end(w);
}

static void write_origin(struct json_writer *w, const struct tool *tool)
{
    static const char *const sources[] = {"shipped", "installed", "mcp"};
    json_put_str(w, S("source"), str_from_cstr(sources[tool->source]));
    json_put_str(w, S("owner"), uuid_is_none(tool->tenant_id) ? S("platform") : S("tenant"));
    if (!str_is_empty(tool->signer))
        json_put_str(w, S("signer"), tool->signer);
    if (tool->is_deprecated)
        json_put_str(w, S("deprecated"), tool->deprecation);
}

void tool_write_members(struct json_writer *w, const struct tool *tool)
{
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
    if (tool->module_count > 0)
        write_modules(w, tool);
    write_origin(w, tool);
}

void tool_write_json(struct json_writer *w, const struct tool *tool)
{
    json_object_begin(w);
    tool_write_members(w, tool);
    json_object_end(w);
}

/* ---- copying ---- */

static struct str_list copy_list(struct arena *arena, struct str_list from)
{
    struct str_list to = from;
    if (!from.items)
        return to;
    to.items = ARENA_ARRAY(arena, str, from.count + 1);
    for (size_t i = 0; i < from.count; i++)
        to.items[i] = str_copy(arena, from.items[i]);
    return to;
}

void permissions_copy(struct arena *arena, struct permissions *to, const struct permissions *from)
{
    struct permissions copy = *from;
    struct str_list *lists[] = {&copy.network.allowed_hosts, &copy.network.blocked_ips,
                                &copy.network.allowed_ips,   &copy.paths.read,
                                &copy.paths.write,           &copy.paths.execute,
                                &copy.allowed_extensions,    &copy.languages};
    for (size_t i = 0; i < ARRAY_COUNT(lists); i++)
        *lists[i] = copy_list(arena, *lists[i]);
    *to = copy;
}

void tool_copy(struct arena *arena, struct tool *to, const struct tool *from)
{
    struct tool copy = *from;
    str *texts[] = {&copy.name,
                    &copy.version,
                    &copy.category,
                    &copy.description,
                    &copy.author,
                    &copy.input_schema,
                    &copy.output_schema,
                    &copy.module_path,
                    &copy.module_member,
                    &copy.source_name,
                    &copy.signer,
                    &copy.deprecation,
                    &copy.approval.approvers};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        *texts[i] = str_copy(arena, *texts[i]);
    copy.host_calls = ARENA_ARRAY(arena, str, from->host_call_count + 1);
    for (size_t i = 0; i < from->host_call_count; i++)
        copy.host_calls[i] = str_copy(arena, from->host_calls[i]);
    copy.modules = ARENA_ARRAY(arena, struct tool_module, from->module_count + 1);
    for (size_t i = 0; i < from->module_count; i++) {
        copy.modules[i] = from->modules[i];
        copy.modules[i].value = str_copy(arena, from->modules[i].value);
        copy.modules[i].path = str_copy(arena, from->modules[i].path);
    }
    permissions_copy(arena, &copy.permissions, &from->permissions);
    *to = copy;
}
