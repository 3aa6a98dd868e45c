/* reply -> answer, deltas -> events */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/anthropic_format_internal.h"

/* The API has no word for "other"; every client understands "end_turn". */
str anthropic_finish_word(enum finish finish)
{
    switch (finish) {
    case FINISH_LENGTH: return S("max_tokens");
    case FINISH_TOOL_CALLS: return S("tool_use");
    case FINISH_CONTENT_FILTER: return S("refusal");
    case FINISH_NONE:
    case FINISH_STOP:
    case FINISH_OTHER: break;
    }
    return S("end_turn");
}

void anthropic_write_usage(struct json_writer *w, const struct usage *usage)
{
    int64_t uncached = usage->input_tokens - usage->cached_tokens - usage->cache_write_tokens;
    json_object_begin(w);
    json_put_i64(w, S("input_tokens"), uncached > 0 ? uncached : 0);
    json_put_i64(w, S("cache_creation_input_tokens"), usage->cache_write_tokens);
    json_put_i64(w, S("cache_read_input_tokens"), usage->cached_tokens);
    json_put_i64(w, S("output_tokens"), usage->output_tokens);
    if (usage->reasoning_tokens > 0) {
        json_key(w, S("output_tokens_details"));
        json_object_begin(w);
        json_put_i64(w, S("thinking_tokens"), usage->reasoning_tokens);
        json_object_end(w);
    }
    json_object_end(w);
}

/* ---- whole ---- */

static void write_thinking(struct json_writer *w, const struct part *part)
{
    struct arena *arena = w->out->arena;
    if (anthropic_is_whole(arena, part->opaque)) {
        json_write_raw(w, part->opaque);
        return;
    }
    json_object_begin(w);
    json_put_str(w, S("type"), S("thinking"));
    json_put_str(w, S("thinking"), part->text);
    json_put_str(w, S("signature"), anthropic_opaque_signature(arena, part->opaque));
    json_object_end(w);
}

static void write_tool_use(struct json_writer *w, const struct part *part)
{
    json_object_begin(w);
    json_put_str(w, S("type"), S("tool_use"));
    json_put_str(w, S("id"), part->call_id);
    json_put_str(w, S("name"), part->name);
    anthropic_put_input(w, part->arguments);
    json_object_end(w);
}

static void write_part(struct json_writer *w, const struct part *part)
{
    switch (part->kind) {
    case PART_TEXT:
        if (part->text.len == 0)
            return;
        json_object_begin(w);
        json_put_str(w, S("type"), S("text"));
        json_put_str(w, S("text"), part->text);
        json_object_end(w);
        return;
    case PART_REASONING: write_thinking(w, part); return;
    case PART_TOOL_CALL: write_tool_use(w, part); return;
    case PART_IMAGE:
    case PART_TOOL_RESULT: return; /* no model answers with these */
    }
}

static void write_head(struct json_writer *w, const struct dialect_answer *answer)
{
    json_put_str(w, S("id"), answer->id);
    json_put_str(w, S("type"), S("message"));
    json_put_str(w, S("role"), S("assistant"));
    json_put_str(w, S("model"), answer->model);
}

void anthropic_write_reply(struct json_writer *w, const struct dialect_answer *answer,
                           const struct reply *reply)
{
    json_object_begin(w);
    write_head(w, answer);
    json_key(w, S("content"));
    json_array_begin(w);
    for (size_t i = 0; i < reply->part_count; i++)
        write_part(w, &reply->parts[i]);
    json_array_end(w);
    json_put_str(w, S("stop_reason"), anthropic_finish_word(reply->finish));
    json_put_raw(w, S("stop_sequence"), S("null"));
    json_key(w, S("usage"));
    anthropic_write_usage(w, &reply->usage);
    json_object_end(w);
}

/* ---- events ---- */

static void write_start(const struct anthropic_writer *writer, struct strbuf *out)
{
    struct json_writer w;
    struct usage usage = {.input_tokens = writer->answer->input_tokens_bound};
    dialect_data_begin(out, S("message_start"), &w);
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("message_start"));
    json_key(&w, S("message"));
    json_object_begin(&w);
    write_head(&w, writer->answer);
    json_put_raw(&w, S("content"), S("[]"));
    json_put_raw(&w, S("stop_reason"), S("null"));
    json_put_raw(&w, S("stop_sequence"), S("null"));
    json_key(&w, S("usage"));
    anthropic_write_usage(&w, &usage);
    json_object_end(&w);
    json_object_end(&w);
    dialect_data_end(out);
}

static void begin_event(struct json_writer *w, struct strbuf *out, str type, int index)
{
    dialect_data_begin(out, type, w);
    json_object_begin(w);
    json_put_str(w, S("type"), type);
    json_put_i64(w, S("index"), index);
}

static void end_event(struct json_writer *w, struct strbuf *out)
{
    json_object_end(w);
    dialect_data_end(out);
}

static void write_block_start(struct strbuf *out, int index, str block_json)
{
    struct json_writer w;
    begin_event(&w, out, S("content_block_start"), index);
    json_put_raw(&w, S("content_block"), block_json);
    end_event(&w, out);
}

static void write_block_stop(struct strbuf *out, int index)
{
    struct json_writer w;
    begin_event(&w, out, S("content_block_stop"), index);
    end_event(&w, out);
}

/* {"type": type, member: text} */
static void write_piece(struct strbuf *out, int index, str type, str member, str text)
{
    struct json_writer w;
    begin_event(&w, out, S("content_block_delta"), index);
    json_key(&w, S("delta"));
    json_object_begin(&w);
    json_put_str(&w, S("type"), type);
    json_put_str(&w, member, text);
    json_object_end(&w);
    end_event(&w, out);
}

/* ---- which blocks are open ---- */

static void close_open(struct anthropic_writer *writer, struct strbuf *out)
{
    if (writer->open == ANTHROPIC_BLOCK_SKIPPED)
        return;
    write_block_stop(out, writer->open_index);
    writer->open = ANTHROPIC_BLOCK_SKIPPED;
}

static bool is_complete(const struct anthropic_written_call *call)
{
    return call->is_begun && call->depth == 0 && !call->is_in_string;
}

static void close_calls(struct anthropic_writer *writer, bool only_complete, struct strbuf *out)
{
    for (int i = 0; i < writer->call_count; i++) {
        struct anthropic_written_call *call = &writer->calls[i];
        if (!call->is_open || (only_complete && !is_complete(call)))
            continue;
        write_block_stop(out, call->index);
        call->is_open = false;
    }
}

static void open_block(struct anthropic_writer *writer, enum anthropic_block kind,
                       struct strbuf *out)
{
    if (writer->open == kind)
        return;
    close_open(writer, out);
    close_calls(writer, true, out);
    writer->open = kind;
    writer->open_index = writer->next_index++;
    write_block_start(out, writer->open_index,
                      kind == ANTHROPIC_BLOCK_TEXT
                          ? S("{\"type\":\"text\",\"text\":\"\"}")
                          : S("{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}"));
}

/* ---- deltas ---- */

static void write_text(struct anthropic_writer *writer, str text, struct strbuf *out)
{
    if (text.len == 0)
        return;
    open_block(writer, ANTHROPIC_BLOCK_TEXT, out);
    write_piece(out, writer->open_index, S("text_delta"), S("text"), text);
}

/* A signature ends its block: what comes next is another thought. */
static void write_reasoning(struct anthropic_writer *writer, const struct delta *delta,
                            struct strbuf *out)
{
    if (anthropic_is_whole(out->arena, delta->opaque)) {
        close_open(writer, out);
        close_calls(writer, true, out);
        write_block_start(out, writer->next_index, delta->opaque);
        write_block_stop(out, writer->next_index++);
        return;
    }
    str signature = anthropic_opaque_signature(out->arena, delta->opaque);
    if (delta->text.len == 0 && signature.len == 0)
        return;
    open_block(writer, ANTHROPIC_BLOCK_THINKING, out);
    if (delta->text.len > 0)
        write_piece(out, writer->open_index, S("thinking_delta"), S("thinking"), delta->text);
    if (signature.len == 0)
        return;
    write_piece(out, writer->open_index, S("signature_delta"), S("signature"), signature);
    close_open(writer, out);
}

static void begin_call(struct anthropic_writer *writer, const struct delta *delta,
                       struct strbuf *out)
{
    struct json_writer w;
    if (delta->index != writer->call_count || delta->index >= PROVIDER_TOOL_CALLS_MAX)
        return; /* each is begun once, in order */
    close_open(writer, out);
    close_calls(writer, true, out);
    struct anthropic_written_call *call = &writer->calls[writer->call_count++];
    *call = (struct anthropic_written_call){.index = writer->next_index++, .is_open = true};
    begin_event(&w, out, S("content_block_start"), call->index);
    json_key(&w, S("content_block"));
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("tool_use"));
    json_put_str(&w, S("id"), delta->call_id);
    json_put_str(&w, S("name"), delta->name);
    json_put_raw(&w, S("input"), S("{}"));
    json_object_end(&w);
    end_event(&w, out);
}

/* Follows the depth of the arguments, to know when they are complete. */
static void follow(struct anthropic_written_call *call, str text)
{
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (call->is_in_string) {
            call->is_in_string = call->is_escaped || c != '"';
            call->is_escaped = !call->is_escaped && c == '\\';
            continue;
        }
        if (c == '"')
            call->is_in_string = true;
        else if ((c == '{' || c == '[') && call->depth < UINT16_MAX) {
            call->depth++;
            call->is_begun = true;
        } else if ((c == '}' || c == ']') && call->depth > 0)
            call->depth--;
    }
}

static void write_arguments(struct anthropic_writer *writer, const struct delta *delta,
                            struct strbuf *out)
{
    if (delta->index < 0 || delta->index >= writer->call_count)
        return;
    struct anthropic_written_call *call = &writer->calls[delta->index];
    if (!call->is_open || delta->text.len == 0)
        return; /* white space behind complete arguments */
    write_piece(out, call->index, S("input_json_delta"), S("partial_json"), delta->text);
    follow(call, delta->text);
}

static void write_end(struct anthropic_writer *writer, const struct delta *delta,
                      struct strbuf *out)
{
    struct json_writer w;
    close_open(writer, out);
    close_calls(writer, false, out);
    dialect_data_begin(out, S("message_delta"), &w);
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("message_delta"));
    json_key(&w, S("delta"));
    json_object_begin(&w);
    json_put_str(&w, S("stop_reason"), anthropic_finish_word(delta->finish));
    json_put_raw(&w, S("stop_sequence"), S("null"));
    json_object_end(&w);
    json_key(&w, S("usage"));
    anthropic_write_usage(&w, &delta->usage);
    end_event(&w, out);
    strbuf_add(out, S("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"));
}

void anthropic_writer_open(struct anthropic_writer *writer, const struct dialect_answer *answer)
{
    *writer = (struct anthropic_writer){.answer = answer};
}

void anthropic_writer_delta(struct anthropic_writer *writer, const struct delta *delta,
                            struct strbuf *out)
{
    if (!writer->has_begun)
        write_start(writer, out);
    writer->has_begun = true;
    switch (delta->kind) {
    case DELTA_TEXT: write_text(writer, delta->text, out); break;
    case DELTA_REASONING: write_reasoning(writer, delta, out); break;
    case DELTA_TOOL_CALL: begin_call(writer, delta, out); break;
    case DELTA_TOOL_ARGUMENTS: write_arguments(writer, delta, out); break;
    case DELTA_END: write_end(writer, delta, out); break;
    }
}
