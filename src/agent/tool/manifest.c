#include "agent/tool/manifest_internal.h"

#include "agent/tool/labels.h"
#include "agent/tool/registry.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"

enum { TABLE_ELEMENTS_DEFAULT = 10000 };

struct manifest {
    struct arena *arena;
    struct yaml_document document;
    struct tool tool;
    int64_t timeout_ms; /* 0: not given */
    struct {
        bool has_output, has_trusted, has_sink;
        bool is_public, is_trusted, is_sink;
    } labels;
    struct error *e;
};

static bool is_name(str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_letter = c >= 'a' && c <= 'z',
             is_later = (c >= '0' && c <= '9') || c == '_' || c == '-';
        if (!is_letter && !(is_later && i > 0))
            return false;
    }
    return text.len > 0 && text.len <= TOOL_NAME_BYTES_MAX;
}

static bool read_text(struct manifest *m, const struct json *value, const char *what, size_t max,
                      str *out)
{
    str text;
    if (!json_to_str(value, &text) || str_is_empty(str_trim(text)) || text.len > max)
        return yaml_error(&m->document, value, m->e, "%s must be a text of 1 to %zu bytes", what,
                          max);
    *out = str_copy(m->arena, str_trim(text));
    return true;
}

static bool read_name(struct manifest *m, const struct json *value, const char *what, str *out)
{
    if (!read_text(m, value, what, TOOL_NAME_BYTES_MAX, out))
        return false;
    return is_name(*out) ||
           yaml_error(&m->document, value, m->e,
                      "%s must begin with a lower-case letter and hold only a-z, 0-9, _ and -",
                      what);
}

static bool read_version(struct manifest *m, const struct json *value)
{
    if (!read_text(m, value, "version", TOOL_NAME_BYTES_MAX, &m->tool.version))
        return false;
    return semver_is_valid(m->tool.version) ||
           yaml_error(&m->document, value, m->e,
                      "version must be MAJOR.MINOR.PATCH, such as 1.0.0");
}

static bool read_abi(struct manifest *m, const struct json *value, enum tool_abi *out)
{
    static const struct {
        str name;
        enum tool_abi abi;
    } abis[] = {
        {S_INIT("wasi-command"), TOOL_ABI_WASI_COMMAND},
        {S_INIT("nexus-export"), TOOL_ABI_NEXUS_EXPORT},
        {S_INIT("component"), TOOL_ABI_COMPONENT},
    };
    str text = STR_NONE;
    json_to_str(value, &text);
    for (size_t i = 0; i < ARRAY_COUNT(abis); i++)
        if (str_equal(abis[i].name, text)) {
            *out = abis[i].abi;
            return true;
        }
    return yaml_error(&m->document, value, m->e,
                      "abi must be wasi-command, nexus-export or component");
}

static bool read_path(struct manifest *m, const struct json *value, str *out)
{
    if (!read_text(m, value, "module", 255, out))
        return false;
    bool is_bare = str_find_char(*out, '/') == STR_NOT_FOUND && out->ptr[0] != '.' &&
                   str_find_char(*out, '\0') == STR_NOT_FOUND;
    return is_bare || yaml_error(&m->document, value, m->e,
                                 "module must be the name of a file beside the manifest");
}

static bool read_flag(struct manifest *m, const struct json *value, const char *what, bool *out)
{
    return json_to_bool(value, out) ||
           yaml_error(&m->document, value, m->e, "%s must be true or false", what);
}

static bool read_number(struct manifest *m, const struct json *value, const char *what, int64_t max,
                        int64_t *out)
{
    return (json_to_i64(value, out) && *out > 0 && *out <= max) ||
           yaml_error(&m->document, value, m->e, "%s must be a number from 1 to %lld", what,
                      (long long) max);
}

static bool read_size(struct manifest *m, const struct json *value, const char *what, int64_t max,
                      size_t *out)
{
    str text;
    int64_t bytes = 0;
    bool is_ok = json_to_str(value, &text) ? bytes_parse(text, &bytes) : json_to_i64(value, &bytes);
    if (!is_ok || bytes <= 0 || bytes > max)
        return yaml_error(&m->document, value, m->e,
                          "%s must be a size such as \"64MB\", at most %lld bytes", what,
                          (long long) max);
    *out = (size_t) bytes;
    return true;
}

static bool read_time(struct manifest *m, const struct json *value, const char *what,
                      int64_t *out_ms)
{
    str text;
    if (!json_to_str(value, &text) || !duration_parse(text, out_ms) || *out_ms <= 0 ||
        *out_ms > TOOL_TIME_MS_MAX)
        return yaml_error(&m->document, value, m->e,
                          "%s must be a time such as \"10s\", at most %lld s", what,
                          (long long) (TOOL_TIME_MS_MAX / 1000));
    return true;
}

static bool read_limit(struct manifest *m, str key, const struct json *value)
{
    struct tool_limits *limits = &m->tool.limits;
    int64_t number = 0;
    if (str_equal(key, S("memory")))
        return read_size(m, value, "memory", (int64_t) TOOL_MEMORY_BYTES_MAX,
                         &limits->memory_bytes);
    if (str_equal(key, S("output")))
        return read_size(m, value, "output", TOOL_OUTPUT_BYTES_MAX, &limits->output_bytes);
    if (str_equal(key, S("time")))
        return read_time(m, value, "time", &limits->time_ms);
    if (str_equal(key, S("fuel"))) {
        if (!read_number(m, value, "fuel", (int64_t) TOOL_FUEL_MAX, &number))
            return false;
        limits->fuel = (uint64_t) number;
        return true;
    }
    if (str_equal(key, S("table"))) {
        if (!read_number(m, value, "table", TOOL_TABLE_ELEMENTS_MAX, &number))
            return false;
        limits->table_elements = (uint32_t) number;
        return true;
    }
    return yaml_error(&m->document, value, m->e,
                      "unknown limit " STR_FMT "; known: fuel, memory, time, output, table",
                      STR_ARG(str_cut_utf8(key, 60)));
}

static bool read_limits(struct manifest *m, const struct json *value)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (json_type(value) != JSON_OBJECT)
        return yaml_error(&m->document, value, m->e, "limits must have members");
    while (json_next(&it, &key, &item))
        if (!read_limit(m, key, item))
            return false;
    const struct tool_limits *limits = &m->tool.limits;
    if (limits->fuel == 0 || limits->memory_bytes == 0 || limits->output_bytes == 0)
        return yaml_error(&m->document, value, m->e, "limits must say fuel, memory and output");
    return true;
}

static bool read_host_calls(struct manifest *m, const struct json *value)
{
    if (json_type(value) != JSON_ARRAY || json_count(value) > TOOL_HOST_CALL_NAMES_MAX)
        return yaml_error(&m->document, value, m->e,
                          "host_calls must be a list of at most %u names",
                          TOOL_HOST_CALL_NAMES_MAX);
    m->tool.host_calls = ARENA_ARRAY(m->arena, str, json_count(value) + 1);
    const struct json *item;
    struct json_iter it = json_iter(value);
    while (json_next(&it, NULL, &item))
        if (!read_name(m, item, "a host call", &m->tool.host_calls[m->tool.host_call_count++]))
            return false;
    return true;
}

/* Whether it is a sound schema is found out when the tool is prepared. */
static bool read_schema(struct manifest *m, const struct json *value, const char *what, str *out)
{
    if (json_type(value) != JSON_OBJECT)
        return yaml_error(&m->document, value, m->e, "%s must be a JSON Schema (an object)", what);
    *out = json_print(m->arena, value);
    return out->len <= TOOL_SCHEMA_BYTES_MAX ||
           yaml_error(&m->document, value, m->e, "%s is over %u KiB", what,
                      TOOL_SCHEMA_BYTES_MAX >> 10);
}

/* ---- members: one table says what is known, what is needed and how it is read ---- */

static bool member_name(struct manifest *m, const struct json *value)
{
    return read_name(m, value, "name", &m->tool.name);
}

static bool member_category(struct manifest *m, const struct json *value)
{
    return read_name(m, value, "category", &m->tool.category);
}

static bool member_author(struct manifest *m, const struct json *value)
{
    return read_text(m, value, "author", 200, &m->tool.author);
}

static bool member_description(struct manifest *m, const struct json *value)
{
    return read_text(m, value, "description", TOOL_DESCRIPTION_BYTES_MAX, &m->tool.description);
}

static bool member_abi(struct manifest *m, const struct json *value)
{
    return read_abi(m, value, &m->tool.abi);
}

static bool member_module(struct manifest *m, const struct json *value)
{
    return read_path(m, value, &m->tool.module_path);
}

/* NAME: {abi: ..., module: ...} */
static bool read_one_module(struct manifest *m, str name, const struct json *value)
{
    struct tool_module *module = &m->tool.modules[m->tool.module_count];
    const struct json *abi = json_get(value, S("abi")), *path = json_get(value, S("module"));
    if (json_type(value) != JSON_OBJECT || json_count(value) != 2 || !abi || !path)
        return yaml_error(&m->document, value, m->e,
                          "modules." STR_FMT " must be {abi: ..., module: ...}",
                          STR_ARG(str_cut_utf8(name, 60)));
    if (!is_name(name))
        return yaml_error(&m->document, value, m->e,
                          "a name in modules must begin with a lower-case letter and hold only "
                          "a-z, 0-9, _ and -");
    *module = (struct tool_module){.value = str_copy(m->arena, name)};
    m->tool.module_count++;
    return read_abi(m, abi, &module->abi) && read_path(m, path, &module->path);
}

static bool member_modules(struct manifest *m, const struct json *value)
{
    if (json_type(value) != JSON_OBJECT || json_count(value) < 2 ||
        json_count(value) > TOOL_MODULES_MAX + 1)
        return yaml_error(&m->document, value, m->e,
                          "modules must be {by: MEMBER OF THE INPUT, VALUE: {abi, module}, ...} "
                          "with at most %u values",
                          TOOL_MODULES_MAX);
    m->tool.modules = ARENA_ARRAY(m->arena, struct tool_module, json_count(value));
    str key;
    const struct json *item;
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &item))
        if (str_equal(key, S("by")) ? !read_name(m, item, "modules.by", &m->tool.module_member)
                                    : !read_one_module(m, key, item))
            return false;
    if (str_is_empty(m->tool.module_member))
        return yaml_error(&m->document, value, m->e,
                          "modules must say by which member of the input one is chosen (by: ...)");
    m->tool.abi = m->tool.modules[0].abi;
    return true;
}

static bool member_pure(struct manifest *m, const struct json *value)
{
    return read_flag(m, value, "pure", &m->tool.is_pure);
}

static bool member_idempotent(struct manifest *m, const struct json *value)
{
    return read_flag(m, value, "idempotent", &m->tool.is_idempotent);
}

static bool member_timeout(struct manifest *m, const struct json *value)
{
    return read_time(m, value, "timeout", &m->timeout_ms);
}

static bool member_permissions(struct manifest *m, const struct json *value)
{
    return permissions_read(m->arena, &m->document, value, &m->tool.permissions, m->e);
}

static bool member_input(struct manifest *m, const struct json *value)
{
    return read_schema(m, value, "input", &m->tool.input_schema);
}

static bool member_output(struct manifest *m, const struct json *value)
{
    return read_schema(m, value, "output", &m->tool.output_schema);
}

static bool read_label(struct manifest *m, str key, const struct json *value)
{
    str text = STR_NONE;
    if (str_equal(key, S("output"))) {
        json_to_str(value, &text);
        m->labels.has_output = true;
        m->labels.is_public = str_equal(text, S("public"));
        return m->labels.is_public || str_equal(text, S("private")) ||
               yaml_error(&m->document, value, m->e, "labels.output must be public or private");
    }
    if (str_equal(key, S("trusted"))) {
        m->labels.has_trusted = true;
        return read_flag(m, value, "labels.trusted", &m->labels.is_trusted);
    }
    if (str_equal(key, S("sink"))) {
        m->labels.has_sink = true;
        return read_flag(m, value, "labels.sink", &m->labels.is_sink);
    }
    return yaml_error(&m->document, value, m->e,
                      "unknown label " STR_FMT "; known: output, trusted, sink",
                      STR_ARG(str_cut_utf8(key, 60)));
}

static bool member_labels(struct manifest *m, const struct json *value)
{
    str key;
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (json_type(value) != JSON_OBJECT)
        return yaml_error(&m->document, value, m->e,
                          "labels must have members (output, trusted, sink)");
    while (json_next(&it, &key, &item))
        if (!read_label(m, key, item))
            return false;
    return true;
}

/* After all members: what a missing one means depends on the others. */
static void set_labels(struct manifest *m)
{
    label_tool_defaults(&m->tool);
    if (m->labels.has_output)
        m->tool.is_output_public = m->labels.is_public;
    if (m->labels.has_trusted)
        m->tool.is_output_trusted = m->labels.is_trusted;
    if (m->labels.has_sink)
        m->tool.is_sink = m->labels.is_sink;
}

static const struct member {
    str name;
    bool is_needed;
    bool (*read)(struct manifest *m, const struct json *value);
} members[] = {
    {S_INIT("name"), true, member_name},
    {S_INIT("version"), true, read_version},
    {S_INIT("category"), true, member_category},
    {S_INIT("description"), true, member_description},
    {S_INIT("author"), false, member_author},
    {S_INIT("abi"), false, member_abi}, /* abi and module, or modules: check_modules */
    {S_INIT("module"), false, member_module},
    {S_INIT("modules"), false, member_modules},
    {S_INIT("pure"), true, member_pure},
    {S_INIT("idempotent"), true, member_idempotent},
    {S_INIT("timeout"), false, member_timeout},
    {S_INIT("limits"), true, read_limits},
    {S_INIT("host_calls"), false, read_host_calls},
    {S_INIT("permissions"), true, member_permissions},
    {S_INIT("input"), true, member_input},
    {S_INIT("output"), true, member_output},
    {S_INIT("labels"), false, member_labels},
};

static bool read_member(struct manifest *m, str key, const struct json *value)
{
    for (size_t i = 0; i < ARRAY_COUNT(members); i++)
        if (str_equal(members[i].name, key))
            return members[i].read(m, value);
    return yaml_error(&m->document, value, m->e, "unknown member " STR_FMT,
                      STR_ARG(str_cut_utf8(key, 60)));
}

static bool check_modules(struct manifest *m, const struct json *root)
{
    bool has_abi = json_get(root, S("abi")), has_module = json_get(root, S("module"));
    if (m->tool.module_count > 0)
        return (!has_abi && !has_module) ||
               yaml_error(&m->document, root, m->e,
                          "a manifest has either abi and module, or modules");
    return (has_abi && has_module) || yaml_error(&m->document, root, m->e, "the manifest lacks %s",
                                                 has_abi ? "module" : "abi");
}

static bool check_whole(struct manifest *m, const struct json *root)
{
    for (size_t i = 0; i < ARRAY_COUNT(members); i++)
        if (members[i].is_needed && !json_get(root, members[i].name))
            return yaml_error(&m->document, root, m->e, "the manifest lacks " STR_FMT,
                              STR_ARG(members[i].name));
    if (!check_modules(m, root))
        return false;
    struct tool_limits *limits = &m->tool.limits;
    if (limits->time_ms == 0 || (m->timeout_ms > 0 && m->timeout_ms < limits->time_ms))
        limits->time_ms = m->timeout_ms;
    if (limits->time_ms == 0)
        return yaml_error(&m->document, json_get(root, S("limits")), m->e, "limits must say time");
    if (limits->table_elements == 0)
        limits->table_elements = TABLE_ELEMENTS_DEFAULT;
    set_labels(m);
    return true;
}

bool manifest_read(struct arena *arena, str file, str text, struct tool *out, struct error *e)
{
    struct manifest m = {.arena = arena, .e = e};
    if (text.len > MANIFEST_BYTES_MAX)
        return error_set(e, REASON_CONFIG, STR_FMT ":1: a manifest is at most %u KiB",
                         STR_ARG(file), MANIFEST_BYTES_MAX >> 10);
    if (!yaml_parse(arena, file, text, &m.document, e))
        return false;
    const struct json *root = m.document.root;
    if (json_type(root) != JSON_OBJECT)
        return yaml_error(&m.document, root, e, "a manifest has members (name, version, ...)");
    str key;
    const struct json *value;
    struct json_iter it = json_iter(root);
    while (json_next(&it, &key, &value))
        if (!read_member(&m, key, value))
            return false;
    if (!check_whole(&m, root))
        return false;
    *out = m.tool;
    return true;
}
