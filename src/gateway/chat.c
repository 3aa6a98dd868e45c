/* POST /v1/chat/completions and GET /v1/models. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/chat_internal.h"
#include "net/sse.h"

#define AGENT_PREFIX S("agent:")
enum { CHAT_CHOICES_MAX = 128, CHAT_BODY_SMALL_BYTES = 1 << 20, CHAT_ARENA_BYTES = 160 << 20 };

/* ---- the bound of the input ---- */

static int64_t text_bound(const struct json *value)
{
    str text, key;
    const struct json *item;
    switch (json_type(value)) {
    case JSON_STRING: return json_to_str(value, &text) ? (int64_t) text.len : 0;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    case JSON_ABSENT:
    case JSON_NULL:
    case JSON_BOOL:
    case JSON_INTEGER:
    case JSON_REAL: return 24; /* digits of the longest number */
    }
    int64_t total = 4;
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &item)) {
        bool is_image = str_equal(key, S("image_url")) || str_equal(key, S("input_image"));
        total += (int64_t) key.len + 4 + (is_image ? PROMPT_TOKENS_PER_IMAGE : text_bound(item));
    }
    return total;
}

int64_t chat_input_tokens_bound(const struct json *request)
{
    const struct json *tools = json_get(request, S("tools"));
    size_t tool_count = json_count(tools) + json_count(json_get(request, S("functions")));
    return PROMPT_TOKENS_BASE + text_bound(request) +
           (int64_t) json_count(json_get(request, S("messages"))) * PROMPT_TOKENS_PER_MESSAGE +
           (int64_t) tool_count * PROMPT_TOKENS_PER_TOOL +
           (tool_count > 0 ? PROMPT_TOKENS_TOOLS : 0);
}

/* ---- the request ---- */

static bool read_limits(struct chat_request *chat, struct error *e)
{
    int64_t max_tokens = 0, max_completion = 0;
    chat->choices = 1;
    if (!json_read_i64(chat->json, S("max_tokens"), 1, INT32_MAX, &max_tokens, e) ||
        !json_read_i64(chat->json, S("max_completion_tokens"), 1, INT32_MAX, &max_completion, e) ||
        !json_read_i64(chat->json, S("n"), 1, CHAT_CHOICES_MAX, &chat->choices, e))
        return false;
    chat->max_output_tokens = max_tokens;
    if (max_completion > 0 && (max_tokens == 0 || max_completion < max_tokens))
        chat->max_output_tokens = max_completion;
    return true;
}

static bool read_session(struct api_call *call, struct chat_request *chat, struct error *e)
{
    str text = http_request_header(call->request, S("X-Nexus-Session"));
    if (str_is_empty(text) || uuid_parse(text, &chat->session_id))
        return true;
    return error_set(e, REASON_INVALID, "X-Nexus-Session must be a session's id");
}

static bool read_chat(struct api_call *call, struct chat_request *chat, struct error *e)
{
    struct json_limits limits = {.bytes_max = GATEWAY_CHAT_BODY_BYTES_MAX};
    if (!json_parse(chat->arena, call->body, limits, &chat->json, e))
        return false;
    if (json_type(chat->json) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the body must be a JSON object");
    if (!json_need_str(chat->json, S("model"), &chat->model, e) ||
        !json_read_bool(chat->json, S("stream"), &chat->is_stream, e) || !read_limits(chat, e) ||
        !read_session(call, chat, e))
        return false;
    if (json_count(json_get(chat->json, S("messages"))) == 0)
        return error_set(e, REASON_SCHEMA, "messages must be an array with at least one message");
    chat->wants_usage =
        json_bool_or(json_get(chat->json, S("stream_options")), S("include_usage"), false);
    chat->input_tokens_bound = chat_input_tokens_bound(chat->json);
    return true;
}

bool route_chat(struct api_call *call, struct error *e)
{
    OWNED(arena) large =
        call->body.len > CHAT_BODY_SMALL_BYTES ? arena_create(CHAT_ARENA_BYTES) : NULL;
    struct chat_request *chat = ARENA_NEW(call->ctx->arena, struct chat_request);
    chat->arena = large ? large : call->ctx->arena;
    if (!read_chat(call, chat, e))
        return false;
    if (chat->is_stream && !middleware_take_stream(call, e))
        return false;
    return str_starts_with(chat->model, AGENT_PREFIX) ? chat_agent(call, chat, e)
                                                      : chat_plain(call, chat, e);
}

/* ---- answers ---- */

struct openai_answer chat_answer(struct api_call *call, str model)
{
    struct gateway *gateway = call->gateway;
    str id = uuid_str(call->ctx->arena, uuid_new(gateway->clock, gateway->random));
    return (struct openai_answer){
        .id = str_printf(call->ctx->arena, "chatcmpl-" STR_FMT, STR_ARG(id)),
        .model = model,
        .created = clock_unix_us(gateway->clock) / 1000000,
    };
}

bool chat_stream_begin(struct api_call *call, struct error *e)
{
    if (http_reply_has_begun(call->request))
        return true;
    reply_header(call, S("Cache-Control"), S("no-store"));
    reply_header(call, S("X-Accel-Buffering"), S("no"));
    return reply_stream_begin(call, S("text/event-stream"), e);
}

bool chat_send_data(struct api_call *call, str json, struct error *e)
{
    return chat_stream_begin(call, e) && http_reply_write(call->request, S("data: "), e) &&
           http_reply_write(call->request, json, e) &&
           http_reply_write(call->request, S("\n\n"), e);
}

bool chat_stream_fail(struct api_call *call, const struct error *failure)
{
    struct strbuf text;
    struct json_writer w;
    struct error ignored = {0};
    if (http_reply_is_done(call->request))
        return false;
    strbuf_init(&text, call->ctx->arena, 64u << 10);
    json_writer_init(&w, &text);
    openai_write_error(&w, failure);
    if (failure->code != ERROR_CANCELLED && chat_send_data(call, strbuf_str(&text), &ignored))
        (void) !http_reply_flush(call->request, &ignored);
    http_reply_abort(call->request);
    return false;
}

/* ---- models ---- */

static void write_model(struct json_writer *w, str id, int64_t created, str owner)
{
    json_object_begin(w);
    json_put_str(w, S("id"), id);
    json_put_str(w, S("object"), S("model"));
    json_put_i64(w, S("created"), created);
    json_put_str(w, S("owned_by"), owner);
    json_object_end(w);
}

static str agent_model(struct arena *arena, const struct agent_definition *agent)
{
    return str_printf(arena, "agent:" STR_FMT, STR_ARG(agent->name));
}

bool route_openai_models(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("object"), S("list"));
    json_key(w, S("data"));
    json_array_begin(w);
    for (size_t i = 0; i < catalog_count(settings->catalog); i++) {
        const struct model *model = catalog_at(settings->catalog, i);
        write_model(w, model->name, model->created_unix,
                    model->target_count > 0 ? model->targets[0].provider->name : S("nexus"));
    }
    for (size_t i = 0; i < agent_set_count(settings->agents); i++)
        write_model(w, agent_model(call->ctx->arena, agent_set_at(settings->agents, i)), 0,
                    S("nexus"));
    json_array_end(w);
    json_object_end(w);
    orchestrator_release(settings);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_openai_model(struct api_call *call, struct error *e)
{
    str name, agent;
    struct reply_writer writer;
    if (!param_text(call, 0, &name, e))
        return false;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    const struct model *model = catalog_find(settings->catalog, name);
    bool is_agent =
        str_strip_prefix(name, AGENT_PREFIX, &agent) && agent_set_find(settings->agents, agent);
    bool ok = model || is_agent || catalog_error_unknown(settings->catalog, name, e);
    if (ok)
        write_model(reply_writer_init(&writer, call), name, model ? model->created_unix : 0,
                    model && model->target_count > 0 ? model->targets[0].provider->name
                                                     : S("nexus"));
    orchestrator_release(settings);
    return ok && reply_writer_send(&writer, call, 200, e);
}
