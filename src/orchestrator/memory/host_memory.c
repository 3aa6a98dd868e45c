#include "orchestrator/memory/host_memory.h"

#include "base/arena.h"
#include "base/limits.h"

/* ---- the caller ---- */

/* Everything of the person but the key's own limits, which were looked at when the tool was called. */
static bool principal_of(const struct tool_request *request, struct principal *out, struct error *e)
{
    *out = (struct principal){
        .tenant_id = request->tenant_id,
        .user_id = request->user_id,
        .caller_id = request->user_id,
        .is_run = true,
        .role = request->role,
        .key_id = request->key_id,
        .has_key_budget = !uuid_is_none(request->key_id),
    };
    return role_level_parse(request->role, &out->level) ||
           error_set(e, REASON_DENIED, "the memory is for callers with a role");
}

static bool begin(const struct host_memory *door, const struct tool_request *request,
                  struct context *ctx, str input_json, const struct json **input,
                  struct principal *principal, struct error *e)
{
    if (!door->memory)
        return error_set(e, REASON_UNAVAILABLE, "this node has no memory");
    return json_parse(ctx->arena, input_json, (struct json_limits){0}, input, e) &&
           principal_of(request, principal, e);
}

static struct json_writer *answer_begin(struct strbuf *text, struct json_writer *w,
                                        struct arena *arena)
{
    strbuf_init(text, arena, SANDBOX_HOST_CALL_BYTES_MAX - 1024);
    json_writer_init(w, text);
    json_object_begin(w);
    return w;
}

static bool answer_end(struct strbuf *text, struct json_writer *w, str *output_json,
                       struct error *e)
{
    json_object_end(w);
    if (strbuf_is_over(text))
        return error_set(e, REASON_TOO_LARGE, "the answer is over %u MiB: ask for fewer results",
                         SANDBOX_HOST_CALL_BYTES_MAX >> 20);
    *output_json = strbuf_str(text);
    return true;
}

/* ---- memory_search ---- */

static bool read_query(const struct json *input, const struct tool_request *request,
                       struct memory_query *out, struct error *e)
{
    str scope = S("user");
    int64_t limit = MEMORY_RESULTS_DEFAULT;
    *out = (struct memory_query){.account_id = request->session_id};
    if (!json_need_str(input, S("query"), &out->text, e) ||
        !json_read_i64(input, S("limit"), 1, MEMORY_RESULTS_MAX, &limit, e) ||
        !json_read_str(input, S("scope"), &scope, e))
        return false;
    out->limit = (size_t) limit;
    if (str_equal(scope, S("user")))
        return true;
    if (!str_equal(scope, S("session")))
        return error_set(e, REASON_SCHEMA, "scope is user or session");
    out->session_id = request->session_id;
    return !uuid_is_none(request->session_id) ||
           error_set(e, REASON_SCHEMA, "scope session: this call belongs to no session");
}

static void tell_label(const struct tool_request *request, struct label label)
{
    if (!request->heard)
        return;
    request->heard->label = label_join(request->heard->label, label);
    request->heard->is_told = true;
}

may_suspend static bool search(void *owner, struct context *ctx, const struct tool_request *request,
                               str input_json, str *output_json, struct error *e)
{
    struct host_memory *door = owner;
    const struct json *input;
    struct principal principal;
    struct memory_query query;
    struct memory_answer answer;
    struct strbuf text;
    struct json_writer w;
    if (!begin(door, request, ctx, input_json, &input, &principal, e) ||
        !read_query(input, request, &query, e) ||
        !memory_search(door->memory, ctx, &principal, &query, &answer, e))
        return error_wrap(e, "memory_search");
    tell_label(request, answer.label);
    memory_answer_write_json(door->memory, answer_begin(&text, &w, ctx->arena), ctx->arena,
                             &answer);
    return answer_end(&text, &w, output_json, e) || error_wrap(e, "memory_search");
}

struct host_call host_memory_search(struct host_memory *memory)
{
    return (struct host_call){.name = "memory_search", .run = search, .owner = memory};
}

/* ---- memory_store ---- */

/* The same effect has the same id, so that a repeat after a crash stores nothing twice. */
static uuid id_of_effect(struct arena *arena, const struct tool_request *request, str content)
{
    uuid id = UUID_NONE;
    if (str_is_empty(request->effect_key))
        return id;
    digest hash = digest_sha256(str_printf(arena, "memory|" STR_FMT "|" STR_FMT,
                                           STR_ARG(request->effect_key), STR_ARG(content)));
    memcpy(id.bytes, hash.bytes, sizeof id.bytes);
    id.bytes[6] = (uint8_t) ((id.bytes[6] & 0x0f) | 0x80); /* version 8: made by a rule of ours */
    id.bytes[8] = (uint8_t) ((id.bytes[8] & 0x3f) | 0x80);
    return id;
}

static bool read_entry(struct context *ctx, const struct json *input,
                       const struct tool_request *request, struct memory_entry *out,
                       struct error *e)
{
    const struct json *metadata = json_get(input, S("metadata"));
    *out = (struct memory_entry){
        .session_id = request->session_id,
        .label = request->label.origins ? request->label : label_unknown(LABEL_TOOL),
    };
    if (!json_need_str(input, S("content"), &out->content, e) ||
        !json_read_str(input, S("content_type"), &out->content_type, e))
        return false;
    if (metadata && json_type(metadata) != JSON_NULL)
        out->metadata = json_print(ctx->arena, metadata);
    out->id = id_of_effect(ctx->arena, request, out->content);
    return true;
}

may_suspend static bool store(void *owner, struct context *ctx, const struct tool_request *request,
                              str input_json, str *output_json, struct error *e)
{
    struct host_memory *door = owner;
    const struct json *input;
    struct principal principal;
    struct memory_entry entry;
    struct memory_item item;
    struct strbuf text;
    struct json_writer w;
    if (!begin(door, request, ctx, input_json, &input, &principal, e) ||
        !read_entry(ctx, input, request, &entry, e) ||
        !memory_store(door->memory, ctx, &principal, &entry, &item, e))
        return error_wrap(e, "memory_store");
    answer_begin(&text, &w, ctx->arena);
    json_put_str(&w, S("id"), uuid_str(ctx->arena, item.id));
    json_put_bool(&w, S("stored"), true);
    return answer_end(&text, &w, output_json, e) || error_wrap(e, "memory_store");
}

struct host_call host_memory_store(struct host_memory *memory)
{
    return (struct host_call){.name = "memory_store", .run = store, .owner = memory};
}
