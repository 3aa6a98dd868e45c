/* A provider of another dialect (or of none): the request becomes a prompt, the reply becomes an answer. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/chat_internal.h"

static bool send_whole(struct chat_call *c, const struct prompt *prompt, struct error *e)
{
    struct arena *arena = c->call->ctx->arena;
    struct reply *reply = ARENA_NEW(arena, struct reply);
    struct reply_writer writer;
    if (!provider_complete(c->plain.target->provider, &c->ctx, prompt, reply, e))
        return false;
    struct openai_answer answer = chat_answer(c->call, c->chat->model);
    openai_write_reply(reply_writer_init(&writer, c->call), &answer, reply);
    c->usage = reply->usage;
    c->estimated_output = (int64_t) writer.text.len / 4 + 1;
    return reply_writer_send(&writer, c->call, 200, e);
}

static bool send_delta(struct chat_call *c, const struct openai_answer *answer,
                       const struct delta *delta, bool is_first, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    arena_mark mark = arena_save(c->call->ctx->arena);
    strbuf_init(&text, c->call->ctx->arena, GATEWAY_REPLY_BYTES_MAX);
    json_writer_init(&w, &text);
    openai_write_chunk(&w, answer, delta, is_first);
    bool ok = chat_send_data(c->call, strbuf_str(&text), e);
    arena_rewind(c->call->ctx->arena, mark);
    return ok;
}

static bool send_usage(struct chat_call *c, const struct openai_answer *answer, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    if (!c->chat->wants_usage)
        return true;
    strbuf_init(&text, c->call->ctx->arena, 4096);
    json_writer_init(&w, &text);
    openai_write_usage_chunk(&w, answer, &c->usage);
    return chat_send_data(c->call, strbuf_str(&text), e);
}

static bool send_deltas(struct chat_call *c, struct reply_stream *stream, struct error *e)
{
    struct delta *delta = ARENA_NEW(c->call->ctx->arena, struct delta);
    struct openai_answer answer = chat_answer(c->call, c->chat->model);
    int64_t bytes = 0;
    bool is_first = true;
    /* The reply begins here: what is on the arena from now on is rewound chunk by chunk. */
    do {
        if (!reply_stream_next(stream, &c->ctx, delta, e))
            return false;
        if (!chat_stream_begin(c->call, e) || !send_delta(c, &answer, delta, is_first, e))
            return false;
        bytes += (int64_t) delta->text.len;
        c->estimated_output = bytes / 4 + 1;
        is_first = false;
    } while (delta->kind != DELTA_END);
    c->usage = delta->usage;
    if (!send_usage(c, &answer, e) || !chat_send_data(c->call, S("[DONE]"), e))
        return false;
    http_reply_end(c->call->request);
    return true;
}

bool chat_local(struct chat_call *c, struct error *e)
{
    bool is_stream, include_usage;
    struct prompt *prompt = ARENA_NEW(c->call->ctx->arena, struct prompt);
    c->was_sent = false;
    if (!openai_read_request(c->chat->arena, c->chat->json, prompt, &is_stream, &include_usage, e))
        return false;
    prompt->model = c->plain.target->model;
    prompt->max_output_tokens = c->plain.max_output_tokens;
    c->was_sent = true;
    if (!c->chat->is_stream)
        return send_whole(c, prompt, e);
    OWNED(reply_stream) stream = NULL;
    return provider_stream(c->plain.target->provider, &c->ctx, prompt, &stream, e) &&
           send_deltas(c, stream, e);
}
