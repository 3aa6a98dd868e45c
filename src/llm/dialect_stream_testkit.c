/* Streams of the dialects' contract: written, cut, read. */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format.h"
#include "llm/dialect_testkit_internal.h"
#include "llm/openai_format.h"
#include "llm/responses_format.h"
#include "net/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

/* ---- a reply from deltas ---- */

void dialect_collector_init(struct dialect_collector *collector, struct arena *arena)
{
    *collector = (struct dialect_collector){.arena = arena};
    collector->reply.parts = ARENA_ARRAY(arena, struct part, 256);
    collector->texts = ARENA_ARRAY(arena, struct strbuf, 256);
}

static struct strbuf *begin_part(struct dialect_collector *c, struct part part)
{
    assert_true(c->reply.part_count < 256);
    struct strbuf *text = &c->texts[c->reply.part_count];
    strbuf_init(text, c->arena, PROVIDER_ANSWER_BYTES_MAX);
    c->reply.parts[c->reply.part_count++] = part;
    c->is_closed = false;
    return text;
}

static void add_piece(struct dialect_collector *c, enum part_kind kind, const struct delta *delta)
{
    bool is_whole = str_starts_with(delta->opaque, S("{\"type\""));
    struct part *last = c->reply.part_count > 0 ? &c->reply.parts[c->reply.part_count - 1] : NULL;
    if (!last || last->kind != kind || c->is_closed || is_whole)
        begin_part(c, (struct part){.kind = kind});
    last = &c->reply.parts[c->reply.part_count - 1];
    strbuf_add(&c->texts[c->reply.part_count - 1], delta->text);
    if (delta->opaque.len > 0)
        last->opaque = str_copy(c->arena, delta->opaque);
    c->is_closed = str_starts_with(delta->opaque, S("{"));
}

void dialect_collector_add(struct dialect_collector *c, const struct delta *delta)
{
    switch (delta->kind) {
    case DELTA_TEXT: add_piece(c, PART_TEXT, delta); break;
    case DELTA_REASONING: add_piece(c, PART_REASONING, delta); break;
    case DELTA_TOOL_CALL:
        assert_int_equal(delta->index, c->call_count); /* in order, each begun once */
        c->calls[c->call_count++] = c->reply.part_count;
        begin_part(c, (struct part){.kind = PART_TOOL_CALL,
                                    .call_id = str_copy(c->arena, delta->call_id),
                                    .name = str_copy(c->arena, delta->name)});
        break;
    case DELTA_TOOL_ARGUMENTS:
        assert_true(delta->index >= 0 && (size_t) delta->index < c->call_count);
        strbuf_add(&c->texts[c->calls[delta->index]], delta->text);
        break;
    case DELTA_END:
        c->reply.finish = delta->finish;
        c->reply.usage = delta->usage;
        c->reply.id = str_copy(c->arena, delta->id);
        c->reply.model = str_copy(c->arena, delta->model);
        break;
    }
}

struct reply dialect_collector_reply(struct dialect_collector *c)
{
    for (size_t i = 0; i < c->reply.part_count; i++) {
        struct part *part = &c->reply.parts[i];
        str text = strbuf_str(&c->texts[i]);
        if (part->kind == PART_TOOL_CALL)
            part->arguments = text.len > 0 ? text : S("{}");
        else
            part->text = text;
    }
    return c->reply;
}

/* ---- streams ---- */

static void write_cut(const struct dialect *dialect, void *writer, struct delta delta,
                      uint64_t *state, struct strbuf *out)
{
    str rest = delta.text, opaque = delta.opaque;
    while (rest.len > 0) {
        str piece = str_cut_utf8(rest, 4 + dialect_testkit_below(state, 12));
        rest = str_from(rest, piece.len);
        delta.text = piece;
        delta.opaque = rest.len == 0 ? opaque : STR_NONE;
        dialect->writer_delta(writer, &delta, out);
        if (dialect_testkit_below(state, 8) == 0)
            dialect->write_ping(out);
    }
}

str dialect_contract_write_stream(struct arena *arena, const struct dialect *dialect,
                                  const struct reply *reply, uint64_t seed)
{
    uint64_t state = seed * 2 + 3;
    struct dialect_answer *answer = ARENA_NEW(arena, struct dialect_answer);
    struct strbuf out;
    int calls = 0;
    *answer = (struct dialect_answer){
        .id = reply->id, .model = reply->model, .created = 1700000000, .wants_usage = true};
    void *writer = arena_alloc(arena, dialect->writer_bytes);
    strbuf_init(&out, arena, 32u << 20);
    dialect->writer_open(writer, answer);
    for (size_t i = 0; i < reply->part_count; i++) {
        const struct part *part = &reply->parts[i];
        struct delta delta = {.kind = part->kind == PART_TEXT ? DELTA_TEXT : DELTA_REASONING,
                              .text = part->text,
                              .opaque = part->opaque};
        if (part->kind == PART_TOOL_CALL) {
            delta = (struct delta){.kind = DELTA_TOOL_CALL,
                                   .index = calls,
                                   .call_id = part->call_id,
                                   .name = part->name};
            dialect->writer_delta(writer, &delta, &out);
            delta = (struct delta){
                .kind = DELTA_TOOL_ARGUMENTS, .index = calls++, .text = part->arguments};
        } else if (part->text.len == 0)
            dialect->writer_delta(writer, &delta, &out);
        write_cut(dialect, writer, delta, &state, &out);
    }
    struct delta end = {.kind = DELTA_END,
                        .finish = reply->finish,
                        .usage = reply->usage,
                        .id = reply->id,
                        .model = reply->model};
    dialect->writer_delta(writer, &end, &out);
    assert_false(strbuf_is_over(&out));
    return strbuf_str(&out);
}

/* The adapters' readers of events, by dialect. */
struct stream_state {
    struct openai_stream_state chat;
    struct responses_stream_state responses;
    struct anthropic_stream_state messages;
    bool is_done;
};

#define DELTAS_MAX 512
static_assert(DELTAS_MAX >= (int) OPENAI_CHUNK_DELTAS_MAX, "room for any event");
static_assert(DELTAS_MAX >= (int) RESPONSES_EVENT_DELTAS_MAX, "room for any event");

static bool read_event(struct arena *arena, const struct dialect *dialect, str data,
                       struct stream_state *state, struct delta *out, size_t *count,
                       struct error *e)
{
    *count = 0;
    if (dialect->id == DIALECT_OPENAI_CHAT && str_equal(data, S("[DONE]"))) {
        state->is_done = true;
        return true;
    }
    const struct json *event = dialect_testkit_parse(arena, data);
    bool is_ok = false;
    switch (dialect->id) {
    case DIALECT_OPENAI_CHAT:
        return openai_read_chunk(arena, event, &state->chat, out, DELTAS_MAX, count, e);
    case DIALECT_OPENAI_RESPONSES:
        is_ok = responses_read_event(arena, event, &state->responses, out, DELTAS_MAX, count, e);
        state->is_done = state->responses.has_ended;
        return is_ok;
    case DIALECT_ANTHROPIC_MESSAGES:
        is_ok = anthropic_read_event(arena, event, &state->messages, out, DELTAS_MAX, count, e);
        state->is_done = state->messages.has_ended;
        return is_ok;
    case DIALECT_COUNT: break;
    }
    unreachable_state();
}

static struct delta end_delta(const struct dialect *dialect, const struct stream_state *state)
{
    switch (dialect->id) {
    case DIALECT_OPENAI_CHAT: return openai_end_delta(&state->chat);
    case DIALECT_OPENAI_RESPONSES: return responses_end_delta(&state->responses);
    case DIALECT_ANTHROPIC_MESSAGES: return anthropic_end_delta(&state->messages);
    case DIALECT_COUNT: break;
    }
    unreachable_state();
}

bool dialect_contract_read_stream(struct arena *arena, const struct dialect *dialect, str bytes,
                                  uint64_t seed, struct reply *out, struct error *e)
{
    uint64_t random = seed * 2 + 4;
    struct stream_state *state = ARENA_NEW(arena, struct stream_state);
    struct delta *deltas = ARENA_ARRAY(arena, struct delta, DELTAS_MAX);
    struct dialect_collector collector;
    OWNED(sse_parser) parser = sse_parser_create(0);
    size_t count;
    dialect_collector_init(&collector, arena);
    while (bytes.len > 0) {
        struct sse_event event;
        str piece = str_slice(bytes, 0, 1 + dialect_testkit_below(&random, 200));
        bytes = str_from(bytes, piece.len);
        if (!sse_parser_feed(parser, piece, e))
            return false;
        while (sse_parser_next(parser, &event)) {
            if (event.data.len == 0)
                continue;
            if (!read_event(arena, dialect, event.data, state, deltas, &count, e))
                return false;
            for (size_t i = 0; i < count; i++)
                dialect_collector_add(&collector, &deltas[i]);
        }
    }
    if (!state->is_done)
        return error_set(e, REASON_PROVIDER_NETWORK, "the stream has no end");
    struct delta end = end_delta(dialect, state);
    dialect_collector_add(&collector, &end);
    *out = dialect_collector_reply(&collector);
    return true;
}
