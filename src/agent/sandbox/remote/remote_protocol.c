#include "agent/sandbox/remote/remote_protocol.h"

#include "base/arena.h"
#include "base/limits.h"

/* ---- values ---- */

static void put_bytes(struct strbuf *b, const void *bytes, size_t count)
{
    strbuf_add(b, str_of(bytes, count));
}

static void put_u32(struct strbuf *b, uint32_t value)
{
    put_bytes(b, &value, sizeof value);
}

static void put_u64(struct strbuf *b, uint64_t value)
{
    put_bytes(b, &value, sizeof value);
}

static void put_i64(struct strbuf *b, int64_t value)
{
    put_bytes(b, &value, sizeof value);
}

static void put_str(struct strbuf *b, str value)
{
    put_u32(b, (uint32_t) value.len);
    strbuf_add(b, value);
}

/* A cursor that stops at the first thing that does not fit; later reads give nothing. */
struct reader {
    str rest;
    bool is_bad;
};

static void get_bytes(struct reader *r, void *out, size_t count)
{
    if (r->is_bad || r->rest.len < count) {
        r->is_bad = true;
        memset(out, 0, count);
        return;
    }
    memcpy(out, r->rest.ptr, count);
    r->rest = str_from(r->rest, count);
}

static uint32_t get_u32(struct reader *r)
{
    uint32_t value;
    get_bytes(r, &value, sizeof value);
    return value;
}

static uint64_t get_u64(struct reader *r)
{
    uint64_t value;
    get_bytes(r, &value, sizeof value);
    return value;
}

static int64_t get_i64(struct reader *r)
{
    int64_t value;
    get_bytes(r, &value, sizeof value);
    return value;
}

static bool get_bool(struct reader *r)
{
    uint32_t value = get_u32(r);
    if (value > 1)
        r->is_bad = true;
    return value == 1;
}

static str get_str(struct reader *r, size_t bytes_max)
{
    uint32_t len = get_u32(r);
    if (r->is_bad || len > bytes_max || len > r->rest.len) {
        r->is_bad = true;
        return STR_NONE;
    }
    str value = str_slice(r->rest, 0, len);
    r->rest = str_from(r->rest, len);
    return value;
}

static uint32_t get_below(struct reader *r, uint32_t bound)
{
    uint32_t value = get_u32(r);
    if (value >= bound)
        r->is_bad = true;
    return r->is_bad ? 0 : value;
}

/* A list that was left out (no items) is not an empty one. */
static void put_list(struct strbuf *b, const str *items, size_t count)
{
    put_u32(b, items != NULL);
    put_u32(b, (uint32_t) count);
    for (size_t i = 0; i < count; i++)
        put_str(b, items[i]);
}

static struct str_list get_list(struct reader *r, struct arena *arena, size_t count_max)
{
    struct str_list list = {0};
    bool is_given = get_bool(r);
    uint32_t count = get_u32(r);
    if (count > count_max || count > r->rest.len / sizeof(uint32_t) || (!is_given && count > 0))
        r->is_bad = true;
    if (r->is_bad || !is_given)
        return list;
    list.items = ARENA_ARRAY(arena, str, count + 1);
    for (; list.count < count; list.count++)
        list.items[list.count] = get_str(r, r->rest.len);
    return list;
}

static bool done(const struct reader *r, const char *what, struct error *e)
{
    if (!r->is_bad && r->rest.len == 0)
        return true;
    return error_set(e, REASON_INVALID, "the other process broke the protocol: %s", what);
}

/* ---- hello, ready ---- */

void remote_write_hello(struct strbuf *b, const struct remote_hello *hello)
{
    put_u32(b, REMOTE_VERSION);
    put_u32(b, hello->mode);
    put_u32(b, (uint32_t) hello->thread_count);
    put_u32(b, (uint32_t) hello->parallel_max);
    put_list(b, hello->host_calls, hello->host_call_count);
}

bool remote_read_hello(struct arena *arena, str body, struct remote_hello *out, struct error *e)
{
    struct reader r = {.rest = body};
    if (get_u32(&r) != REMOTE_VERSION)
        r.is_bad = true;
    out->mode = get_below(&r, REMOTE_COMPILES + 1);
    out->thread_count = (int32_t) get_below(&r, SANDBOX_THREADS_MAX + 1);
    out->parallel_max = (int32_t) get_below(&r, SANDBOX_PARALLEL_MAX + 1);
    struct str_list names = get_list(&r, arena, REMOTE_HOST_CALLS_MAX);
    out->host_calls = names.items;
    out->host_call_count = names.count;
    return done(&r, "hello", e);
}

void remote_write_ready(struct strbuf *b, const struct remote_ready *ready)
{
    put_u32(b, REMOTE_VERSION);
    put_u32(b, ready->walls);
    put_str(b, ready->code_version);
}

static bool is_file_part(str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        bool is_fine =
            (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || (c == '.' && i > 0);
        if (!is_fine)
            return false;
    }
    return text.len > 0;
}

bool remote_read_ready(str body, struct remote_ready *out, struct error *e)
{
    struct reader r = {.rest = body};
    if (get_u32(&r) != REMOTE_VERSION)
        r.is_bad = true;
    out->walls = get_u32(&r);
    out->code_version = get_str(&r, REMOTE_CODE_VERSION_BYTES_MAX);
    if (!is_file_part(out->code_version))
        r.is_bad = true;
    return done(&r, "ready", e);
}

/* ---- tools ---- */

size_t remote_module_count(const struct tool *tool)
{
    return tool->module_count > 0 ? tool->module_count : 1;
}

digest remote_module_digest(const struct tool *tool, size_t index)
{
    return tool->module_count > 0 ? tool->modules[index].digest : tool->module_digest;
}

str remote_module_path(const struct tool *tool, size_t index)
{
    return tool->module_count > 0 ? tool->modules[index].path : tool->module_path;
}

void remote_module_set_path(struct tool *tool, size_t index, str path)
{
    if (tool->module_count > 0)
        tool->modules[index].path = path;
    else
        tool->module_path = path;
}

void remote_write_tool(struct strbuf *b, const struct tool *tool)
{
    put_bytes(b, tool->identity.bytes, sizeof tool->identity.bytes);
    put_bytes(b, tool->module_digest.bytes, sizeof tool->module_digest.bytes);
    put_u32(b, tool->abi);
    put_str(b, tool->name);
    put_str(b, tool->version);
    put_str(b, tool->input_schema);
    put_str(b, tool->output_schema);
    put_str(b, tool->module_member);
    put_u32(b, (uint32_t) tool->module_count);
    for (size_t i = 0; i < tool->module_count; i++) {
        put_str(b, tool->modules[i].value);
        put_u32(b, tool->modules[i].abi);
        put_bytes(b, tool->modules[i].digest.bytes, sizeof(digest));
    }
}

bool remote_read_tool(struct arena *arena, str body, struct tool *out, struct error *e)
{
    struct reader r = {.rest = body};
    *out = (struct tool){0};
    get_bytes(&r, out->identity.bytes, sizeof out->identity.bytes);
    get_bytes(&r, out->module_digest.bytes, sizeof out->module_digest.bytes);
    out->abi = get_below(&r, TOOL_ABI_MCP);
    out->name = str_copy(arena, get_str(&r, TOOL_NAME_BYTES_MAX));
    out->version = str_copy(arena, get_str(&r, TOOL_NAME_BYTES_MAX));
    out->input_schema = str_copy(arena, get_str(&r, TOOL_SCHEMA_BYTES_MAX));
    out->output_schema = str_copy(arena, get_str(&r, TOOL_SCHEMA_BYTES_MAX));
    out->module_member = str_copy(arena, get_str(&r, TOOL_NAME_BYTES_MAX));
    out->module_count = get_below(&r, REMOTE_MODULES_MAX + 1);
    out->modules = ARENA_ARRAY(arena, struct tool_module, out->module_count + 1);
    for (size_t i = 0; i < out->module_count && !r.is_bad; i++) {
        struct tool_module *module = &out->modules[i];
        module->value = str_copy(arena, get_str(&r, TOOL_NAME_BYTES_MAX));
        module->abi = get_below(&r, TOOL_ABI_MCP);
        get_bytes(&r, module->digest.bytes, sizeof module->digest.bytes);
    }
    return done(&r, "tool", e);
}

void remote_write_piece(struct strbuf *b, const struct remote_piece *piece)
{
    put_u32(b, piece->index);
    put_u32(b, piece->is_wanted);
}

bool remote_read_piece(str body, struct remote_piece *out, struct error *e)
{
    struct reader r = {.rest = body};
    out->index = get_below(&r, REMOTE_MODULES_MAX + 1);
    out->is_wanted = get_bool(&r);
    return done(&r, "piece", e);
}

/* ---- calls ---- */

void remote_write_file(struct strbuf *b, const struct remote_file *file)
{
    put_str(b, file->name);
    put_i64(b, file->bytes);
}

bool remote_read_file(str body, struct remote_file *out, struct error *e)
{
    struct reader r = {.rest = body};
    out->name = get_str(&r, body.len);
    out->bytes = get_i64(&r);
    return done(&r, "file", e);
}

/* As far as the sandbox looks at them: network rules and paths to write stay at home. */
static void put_permissions(struct strbuf *b, const struct permissions *p)
{
    put_u32(b, p->paths.is_set);
    put_list(b, p->paths.read.items, p->paths.read.count);
    put_list(b, p->allowed_extensions.items, p->allowed_extensions.count);
    put_list(b, p->languages.items, p->languages.count);
    put_i64(b, p->max_file_bytes);
    put_i64(b, p->max_cpu_time_ms);
    put_i64(b, p->max_memory_bytes);
}

static void get_permissions(struct reader *r, struct arena *arena, struct permissions *out)
{
    out->paths.is_set = get_bool(r);
    out->paths.read = get_list(r, arena, PERMISSION_LIST_MAX);
    out->allowed_extensions = get_list(r, arena, PERMISSION_LIST_MAX);
    out->languages = get_list(r, arena, PERMISSION_LIST_MAX);
    out->max_file_bytes = get_i64(r);
    out->max_cpu_time_ms = get_i64(r);
    out->max_memory_bytes = get_i64(r);
}

void remote_write_call(struct strbuf *b, const struct remote_call *call)
{
    const struct tool *tool = &call->tool;
    put_u64(b, call->tool_number);
    put_i64(b, call->left_ms);
    put_str(b, tool->category);
    put_u64(b, tool->limits.fuel);
    put_i64(b, tool->limits.time_ms);
    put_u64(b, tool->limits.memory_bytes);
    put_u64(b, tool->limits.output_bytes);
    put_u32(b, tool->limits.table_elements);
    put_permissions(b, &tool->permissions);
    put_list(b, tool->host_calls, tool->host_call_count);
    put_u32(b, call->has_notebook);
    if (call->has_notebook)
        put_bytes(b, &call->notebook, sizeof call->notebook);
    put_str(b, call->input);
}

bool remote_read_call(struct arena *arena, str body, struct remote_call *out, struct error *e)
{
    struct reader r = {.rest = body};
    struct tool *tool = &out->tool;
    *out = (struct remote_call){.tool_number = get_u64(&r)};
    out->left_ms = get_i64(&r);
    tool->category = get_str(&r, TOOL_NAME_BYTES_MAX);
    tool->limits.fuel = get_u64(&r);
    tool->limits.time_ms = get_i64(&r);
    tool->limits.memory_bytes = (size_t) get_u64(&r);
    tool->limits.output_bytes = (size_t) get_u64(&r);
    tool->limits.table_elements = get_u32(&r);
    get_permissions(&r, arena, &tool->permissions);
    struct str_list names = get_list(&r, arena, TOOL_HOST_CALL_NAMES_MAX);
    tool->host_calls = names.items;
    tool->host_call_count = names.count;
    out->has_notebook = get_u32(&r) != 0;
    if (out->has_notebook)
        get_bytes(&r, &out->notebook, sizeof out->notebook);
    out->input = get_str(&r, TOOL_INPUT_BYTES_MAX);
    return done(&r, "call", e);
}

void remote_write_host_call(struct strbuf *b, const struct remote_host_call *call)
{
    put_str(b, call->name);
    put_str(b, call->input);
}

bool remote_read_host_call(str body, struct remote_host_call *out, struct error *e)
{
    struct reader r = {.rest = body};
    out->name = get_str(&r, SANDBOX_HOST_CALL_NAME_BYTES_MAX);
    out->input = get_str(&r, SANDBOX_HOST_CALL_BYTES_MAX);
    return done(&r, "host call", e);
}

void remote_write_result(struct strbuf *b, const struct remote_result *result)
{
    const struct tool_result *figures = &result->result;
    put_u32(b, result->is_ok);
    put_u32(b, result->is_ok ? 0 : result->error.reason);
    put_i64(b, result->is_ok ? 0 : result->error.retry_after_ms);
    put_str(b, result->is_ok ? STR_NONE : str_from_cstr(result->error.message));
    put_i64(b, figures->fuel);
    put_u64(b, figures->memory_bytes);
    put_i64(b, figures->cpu_us);
    put_u32(b, figures->is_cold);
    put_str(b, figures->log);
    put_str(b, figures->profile);
    put_str(b, result->is_ok ? figures->output : STR_NONE);
}

static void get_error(struct reader *r, bool is_ok, struct error *out)
{
    enum error_reason reason = get_below(r, REASON_COUNT);
    int64_t retry_after_ms = get_i64(r);
    str message = get_str(r, ERROR_MESSAGE_BYTES - 1);
    if ((reason == REASON_NONE) != is_ok || retry_after_ms < 0 || !str_is_utf8(message))
        r->is_bad = true;
    if (is_ok || r->is_bad)
        return;
    error_set(out, reason, STR_FMT, STR_ARG(message));
    out->retry_after_ms = retry_after_ms;
}

bool remote_read_result(str body, struct remote_result *out, struct error *e)
{
    struct reader r = {.rest = body};
    struct tool_result *figures = &out->result;
    *out = (struct remote_result){.is_ok = get_bool(&r)};
    get_error(&r, out->is_ok, &out->error);
    figures->fuel = get_i64(&r);
    figures->memory_bytes = (size_t) get_u64(&r);
    figures->cpu_us = get_i64(&r);
    figures->is_cold = get_bool(&r);
    figures->log = get_str(&r, SANDBOX_LOG_BYTES_MAX);
    figures->profile = get_str(&r, SANDBOX_PROFILE_BYTES_MAX);
    figures->output = get_str(&r, REMOTE_BODY_BYTES_MAX);
    if (figures->fuel < 0 || figures->cpu_us < 0)
        r.is_bad = true;
    return done(&r, "result", e);
}
