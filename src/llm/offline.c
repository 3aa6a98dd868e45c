/* the offline provider: a stand-in behind the provider contract */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/offline_internal.h"
#include "llm/provider.h"

#include <stdlib.h>

struct offline {
    struct provider base;
    char name[64];
};

/* ---- a turn as a reply ---- */

/* The stand-in's own tokenizer: four bytes are a token, rounded up.  Its usage is by this count and
 * so is its limit. */
enum { BYTES_PER_TOKEN = 4 };

static int64_t tokens_of(size_t bytes)
{
    return (int64_t) ((bytes + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN);
}

static size_t prompt_bytes(const struct prompt *prompt)
{
    size_t bytes = 0;
    for (size_t i = 0; i < prompt->message_count; i++) {
        for (size_t k = 0; k < prompt->messages[i].part_count; k++) {
            const struct part *part = &prompt->messages[i].parts[k];
            bytes += part->kind == PART_IMAGE
                         ? 0
                         : part->text.len + part->arguments.len + part->name.len;
        }
    }
    for (size_t i = 0; i < prompt->tool_count; i++)
        bytes += prompt->tools[i].name.len + prompt->tools[i].description.len +
                 prompt->tools[i].parameters.len;
    return bytes;
}

static str finished_text(struct offline_turn *turn)
{
    str text = strbuf_str(&turn->text);
    if (text.len == 0 || turn->is_plain)
        return text;
    return str_printf(turn->arena, OFFLINE_PREFIX STR_FMT, STR_ARG(text));
}

/* No more than max_output_tokens: a call that does not fit whole is not made at all. */
static void fill_reply(struct offline_turn *turn, struct reply *out)
{
    const struct prompt *prompt = turn->prompt;
    str text = finished_text(turn);
    size_t bytes_left = prompt->max_output_tokens > (int64_t) (SIZE_MAX / 8)
                            ? SIZE_MAX / 8
                            : (size_t) prompt->max_output_tokens * BYTES_PER_TOKEN;
    size_t used = 0;
    *out = (struct reply){
        .id = str_printf(turn->arena, "offline-%zu", prompt->message_count),
        .model = str_copy(turn->arena, prompt->model),
        .finish = turn->call_count > 0 ? FINISH_TOOL_CALLS : FINISH_STOP,
    };
    out->parts = ARENA_ARRAY(turn->arena, struct part, turn->call_count + 1);
    if (text.len > bytes_left) {
        text = str_cut_utf8(text, bytes_left);
        turn->call_count = 0;
        out->finish = FINISH_LENGTH;
    }
    if (text.len > 0)
        out->parts[out->part_count++] = (struct part){.kind = PART_TEXT, .text = text};
    used += text.len;
    for (size_t i = 0; i < turn->call_count; i++) {
        size_t bytes = turn->calls[i].name.len + turn->calls[i].arguments.len;
        if (bytes > bytes_left - used) {
            out->finish = FINISH_LENGTH;
            break;
        }
        used += bytes;
        out->parts[out->part_count++] = turn->calls[i];
    }
    out->usage = (struct usage){
        .input_tokens = tokens_of(prompt_bytes(prompt)),
        .output_tokens = tokens_of(used),
        .is_reported = true,
    };
}

/* Everything of the reply lives on `arena`, for the prompt is gone when a stream is read. */
static may_suspend bool make_reply(struct context *ctx, struct arena *arena,
                                   const struct prompt *prompt, struct reply *out, struct error *e)
{
    struct offline_turn *turn = ARENA_NEW(arena, struct offline_turn);
    turn->arena = arena;
    turn->prompt = prompt;
    strbuf_init(&turn->text, arena, PROVIDER_ANSWER_BYTES_MAX);
    if (!offline_play_script(turn))
        offline_decide(turn);
    if (turn->sleep_ms > 0 && !context_sleep_ms(ctx, turn->sleep_ms, e))
        return false;
    if (turn->has_error)
        return error_copy(e, &turn->error);
    fill_reply(turn, out);
    return true;
}

static bool offline_complete(struct provider *provider, struct context *ctx,
                             const struct provider_call *how, const struct prompt *prompt,
                             struct reply *reply, struct error *e)
{
    (void) how;
    (void) provider;
    return make_reply(ctx, ctx->arena, prompt, reply, e);
}

/* ---- streams ---- */

struct offline_stream {
    struct reply_stream base;
    struct arena *arena;
    struct reply reply;
    size_t part_index; /* part_count: only END is left */
    size_t at;         /* in the part's text or arguments */
    bool has_begun;    /* the call: its name was told */
    int call_index;
    bool is_ended;
};

/* A word with the space behind it. */
static str next_word(str text, size_t at)
{
    size_t end = at;
    while (end < text.len && text.ptr[end] != ' ' && text.ptr[end] != '\n')
        end++;
    while (end < text.len && (text.ptr[end] == ' ' || text.ptr[end] == '\n'))
        end++;
    return str_slice(text, at, end);
}

static str next_piece(str text, size_t at)
{
    enum { PIECE_BYTES = 24 };
    str rest = str_from(text, at);
    str piece = str_cut_utf8(rest, PIECE_BYTES);
    return piece.len > 0 ? piece : rest;
}

static void next_part(struct offline_stream *stream)
{
    stream->part_index++;
    stream->at = 0;
    stream->has_begun = false;
}

static struct delta end_of(const struct offline_stream *stream)
{
    const struct reply *reply = &stream->reply;
    return (struct delta){.kind = DELTA_END,
                          .finish = reply->finish,
                          .usage = reply->usage,
                          .id = reply->id,
                          .model = reply->model};
}

/* False when this part has nothing (left) to tell. */
static bool next_of_part(struct offline_stream *stream, const struct part *part, struct delta *out)
{
    if (part->kind == PART_TOOL_CALL && !stream->has_begun) {
        *out = (struct delta){.kind = DELTA_TOOL_CALL,
                              .index = stream->call_index,
                              .call_id = part->call_id,
                              .name = part->name};
        stream->has_begun = true;
        return true;
    }
    str whole = part->kind == PART_TOOL_CALL ? part->arguments : part->text;
    if (stream->at == whole.len) {
        stream->call_index += part->kind == PART_TOOL_CALL;
        return false;
    }
    str piece =
        part->kind == PART_TOOL_CALL ? next_piece(whole, stream->at) : next_word(whole, stream->at);
    stream->at += piece.len;
    *out = (struct delta){.kind = part->kind == PART_TOOL_CALL ? DELTA_TOOL_ARGUMENTS : DELTA_TEXT,
                          .text = piece,
                          .index = part->kind == PART_TOOL_CALL ? stream->call_index : 0};
    return true;
}

static bool offline_next(struct reply_stream *base, struct context *ctx, struct delta *out,
                         struct error *e)
{
    struct offline_stream *stream = CONTAINER_OF(base, struct offline_stream, base);
    ensure(!stream->is_ended);
    if (!context_check(ctx, e))
        return false;
    while (stream->part_index < stream->reply.part_count) {
        if (next_of_part(stream, &stream->reply.parts[stream->part_index], out))
            return true;
        next_part(stream);
    }
    stream->is_ended = true;
    *out = end_of(stream);
    return true;
}

static void offline_close(struct reply_stream *base)
{
    struct offline_stream *stream = CONTAINER_OF(base, struct offline_stream, base);
    arena_destroy(stream->arena);
    free(stream);
}

static const struct reply_stream_ops stream_ops = {.next = offline_next, .close = offline_close};

/* The reply's strings may point into the prompt, which lives only for the call. */
static void own_strings(struct arena *arena, struct reply *reply)
{
    for (size_t i = 0; i < reply->part_count; i++) {
        struct part *part = &reply->parts[i];
        part->text = str_copy(arena, part->text);
        part->name = str_copy(arena, part->name);
        part->arguments = str_copy(arena, part->arguments);
    }
}

static bool offline_stream(struct provider *provider, struct context *ctx,
                           const struct provider_call *how, const struct prompt *prompt,
                           struct reply_stream **out, struct error *e)
{
    (void) how;
    (void) provider;
    struct offline_stream *stream = calloc(1, sizeof *stream);
    ensure(stream != NULL);
    stream->base.ops = &stream_ops;
    stream->arena = arena_create(0);
    if (!make_reply(ctx, stream->arena, prompt, &stream->reply, e)) {
        offline_close(&stream->base);
        return false;
    }
    own_strings(stream->arena, &stream->reply);
    *out = &stream->base;
    return true;
}

/* ---- the rest of the contract ---- */

static bool offline_forward(struct provider *provider, struct context *ctx,
                            const struct provider_call *how, str path, str body,
                            struct http_exchange **out, struct error *e)
{
    (void) how;
    (void) ctx;
    (void) path;
    (void) body;
    (void) out;
    return error_set(e, REASON_PROVIDER_INVALID,
                     STR_FMT ": the offline stand-in has no address to forward to",
                     STR_ARG(provider->name));
}

static bool offline_models(struct provider *provider, struct context *ctx, str **names,
                           size_t *count, struct error *e)
{
    (void) provider;
    (void) e;
    str *list = ARENA_ARRAY(ctx->arena, str, 1);
    list[0] = S("offline");
    *names = list;
    *count = 1;
    return true;
}

static void offline_destroy(struct provider *provider)
{
    free(CONTAINER_OF(provider, struct offline, base));
}

static const struct provider_ops offline_ops = {
    .name = "offline",
    .is_stand_in = true,
    .complete = offline_complete,
    .stream = offline_stream,
    .forward = offline_forward,
    .embed = offline_embed,
    .models = offline_models,
    .destroy = offline_destroy,
};

bool provider_offline_create(str name, struct provider **out, struct error *e)
{
    struct offline *offline = calloc(1, sizeof *offline);
    ensure(offline != NULL);
    if (name.len == 0 || name.len > sizeof offline->name) {
        free(offline);
        return error_set(e, REASON_CONFIG, "a provider's name must have 1 to %zu bytes",
                         sizeof offline->name);
    }
    memcpy(offline->name, name.ptr, name.len);
    offline->base = (struct provider){.ops = &offline_ops, .name = str_of(offline->name, name.len)};
    *out = &offline->base;
    return true;
}
