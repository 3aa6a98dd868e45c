/* Memory: store, search, forget.  Who may what is the orchestrator's business (orchestrator/memory/memory.h). */
#include "base/arena.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"

static bool find_memory(struct api_call *call, struct memory **out, struct error *e)
{
    *out = call->gateway->memory;
    return *out != NULL || error_set(e, REASON_UNAVAILABLE, "this node has no memory");
}

/* The tokens of its embedding count in the caller's rate, by their upper bound. */
static bool take_rate(struct api_call *call, const struct memory *memory, str text, struct error *e)
{
    int64_t tokens = memory_tokens_bound(memory, text);
    return tokens == 0 || middleware_take_tokens(call, tokens, e);
}

bool route_memory_store(struct api_call *call, struct error *e)
{
    struct memory *memory;
    struct memory_entry *entry = ARENA_NEW(call->ctx->arena, struct memory_entry);
    struct memory_item *item = ARENA_NEW(call->ctx->arena, struct memory_item);
    struct reply_writer writer;
    if (!find_memory(call, &memory, e) ||
        !body_read_memory(call->ctx->arena, call->json, entry, e) ||
        !take_rate(call, memory, entry->content, e) ||
        !memory_store(memory, call->ctx, &call->principal, entry, item, e))
        return false;
    reply_header(call, S("Location"),
                 str_printf(call->ctx->arena, "/api/v1/memory/" STR_FMT,
                            STR_ARG(uuid_str(call->ctx->arena, item->id))));
    memory_item_write_json(reply_writer_init(&writer, call), call->ctx->arena, item);
    return reply_writer_send(&writer, call, 201, e);
}

bool route_memory_search(struct api_call *call, struct error *e)
{
    struct memory *memory;
    struct memory_query query;
    struct memory_answer answer;
    struct reply_writer writer;
    if (!find_memory(call, &memory, e) || !body_read_memory_query(call->json, &query, e) ||
        !take_rate(call, memory, query.text, e) ||
        !memory_search(memory, call->ctx, &call->principal, &query, &answer, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    memory_answer_write_json(memory, w, call->ctx->arena, &answer);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_memory_forget(struct api_call *call, struct error *e)
{
    struct memory *memory;
    uuid id;
    if (!find_memory(call, &memory, e) || !param_uuid(call, 0, "memory", &id, e) ||
        !memory_forget(memory, call->ctx, &call->principal, id, e))
        return false;
    reply_empty(call, 204);
    return true;
}

bool route_memory_forget_session(struct api_call *call, struct error *e)
{
    struct memory *memory;
    uuid id;
    if (!find_memory(call, &memory, e) || !param_uuid(call, 0, "session", &id, e) ||
        !memory_forget_session(memory, call->ctx, &call->principal, id, e))
        return false;
    reply_empty(call, 204);
    return true;
}
