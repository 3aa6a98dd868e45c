/*
 * deltas -> the events of a streamed Response.
 *
 *      response.created, response.in_progress
 *        output_item.added, content_part.added, output_text.delta ..., output_text.done, content_part.done, output_item.done
 *        output_item.added, function_call_arguments.delta ..., function_call_arguments.done, output_item.done
 *      response.completed | .incomplete | .failed
 *
 * An item of text or reasoning ends when the next item begins.  Calls stay open until the end: a provider may write pieces of several
 * by turns.  All of it is repeated at the end, so the texts are kept, on an arena of the writer's own.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/responses_format_internal.h"

struct output {
    struct responses_item item;
    struct strbuf text;
    int call; /* the delta's index of a call, else -1 */
    bool is_open;
};
struct writer {
    const struct dialect_answer *answer;
    struct arena *arena;
    struct output *outputs; /* RESPONSES_OUTPUT_ITEMS_MAX */
    size_t count;
    int64_t sequence;
    bool has_begun, has_ended;
};
static_assert(sizeof(struct writer) <= RESPONSES_WRITER_BYTES, "the dialect's table says so");

void responses_writer_open(void *memory, const struct dialect_answer *answer)
{
    *(struct writer *) memory = (struct writer){.answer = answer};
}

void responses_writer_close(void *memory)
{
    struct writer *writer = memory;
    arena_destroy(writer->arena);
    writer->arena = NULL;
    writer->has_ended = true;
}

/* ---- one event ---- */

static void event_begin(struct writer *writer, struct strbuf *out, str type, struct json_writer *w)
{
    dialect_data_begin(out, type, w);
    json_object_begin(w);
    json_put_str(w, S("type"), type);
    json_put_i64(w, S("sequence_number"), writer->sequence++);
}

static void event_end(struct strbuf *out, struct json_writer *w)
{
    json_object_end(w);
    dialect_data_end(out);
}

static size_t place_of(const struct writer *writer, const struct output *output)
{
    return (size_t) (output - writer->outputs);
}

/* An event about an item's content: its id and place, and content_index, which is always 0. */
static void content_begin(struct writer *writer, const struct output *output, struct strbuf *out,
                          str type, struct json_writer *w)
{
    event_begin(writer, out, type, w);
    json_put_str(w, S("item_id"), output->item.id);
    json_put_i64(w, S("output_index"), (int64_t) place_of(writer, output));
    if (output->item.kind != RESPONSES_ITEM_CALL)
        json_put_i64(w, S("content_index"), 0);
}

static bool has_logprobs(const struct output *output)
{
    return output->item.kind == RESPONSES_ITEM_MESSAGE;
}

/* ---- the answer as a whole ---- */

static void write_output(struct writer *writer, struct json_writer *w, bool is_whole)
{
    json_key(w, S("output"));
    json_array_begin(w);
    for (size_t i = 0; i < writer->count; i++) {
        bool is_last = i + 1 == writer->count;
        responses_write_item(w, &writer->outputs[i].item,
                             is_whole || !is_last ? S("completed") : S("incomplete"));
    }
    json_array_end(w);
}

static void write_lifecycle(struct writer *writer, struct strbuf *out, str type,
                            const struct responses_head *head)
{
    struct json_writer w;
    event_begin(writer, out, type, &w);
    json_key(&w, S("response"));
    responses_write_head(&w, head);
    write_output(writer, &w, head->status == RESPONSES_COMPLETED);
    json_object_end(&w);
    event_end(out, &w);
}

static void begin(struct writer *writer, struct strbuf *out)
{
    struct responses_head head = {.answer = writer->answer, .status = RESPONSES_IN_PROGRESS};
    if (writer->has_begun)
        return;
    writer->has_begun = true;
    writer->arena = arena_create(4 * (size_t) PROVIDER_ANSWER_BYTES_MAX);
    writer->outputs = ARENA_ARRAY(writer->arena, struct output, RESPONSES_OUTPUT_ITEMS_MAX);
    write_lifecycle(writer, out, S("response.created"), &head);
    write_lifecycle(writer, out, S("response.in_progress"), &head);
}

/* ---- items ---- */

static void write_item_event(struct writer *writer, const struct output *output, struct strbuf *out,
                             str type, str status)
{
    struct json_writer w;
    event_begin(writer, out, type, &w);
    json_put_i64(&w, S("output_index"), (int64_t) place_of(writer, output));
    json_key(&w, S("item"));
    responses_write_item(&w, &output->item, status);
    event_end(out, &w);
}

static void write_part_event(struct writer *writer, const struct output *output, struct strbuf *out,
                             str type, str text)
{
    struct json_writer w;
    content_begin(writer, output, out, type, &w);
    json_key(&w, S("part"));
    responses_write_content(&w, output->item.kind, text);
    event_end(out, &w);
}

static struct output *open_item(struct writer *writer, struct strbuf *out,
                                enum responses_item_kind kind, const struct delta *delta)
{
    struct output *output = &writer->outputs[writer->count];
    output->item = (struct responses_item){
        .kind = kind,
        .id = responses_item_id(writer->arena, kind, writer->answer->id, writer->count),
        .call_id = str_copy(writer->arena, delta->call_id),
        .name = str_copy(writer->arena, delta->name),
        .opaque = str_copy(writer->arena, delta->opaque),
    };
    output->call = kind == RESPONSES_ITEM_CALL ? delta->index : -1;
    output->is_open = true;
    strbuf_init(&output->text, writer->arena, PROVIDER_ANSWER_BYTES_MAX);
    writer->count++;
    write_item_event(writer, output, out, S("response.output_item.added"), S("in_progress"));
    if (kind != RESPONSES_ITEM_CALL && kind != RESPONSES_ITEM_RAW)
        write_part_event(writer, output, out, S("response.content_part.added"), S(""));
    return output;
}

static str delta_type(enum responses_item_kind kind)
{
    switch (kind) {
    case RESPONSES_ITEM_MESSAGE: return S("response.output_text.delta");
    case RESPONSES_ITEM_REFUSAL: return S("response.refusal.delta");
    case RESPONSES_ITEM_REASONING: return S("response.reasoning_text.delta");
    case RESPONSES_ITEM_CALL: return S("response.function_call_arguments.delta");
    case RESPONSES_ITEM_RAW: break;
    }
    unreachable_state();
}

static str done_type(enum responses_item_kind kind)
{
    switch (kind) {
    case RESPONSES_ITEM_MESSAGE: return S("response.output_text.done");
    case RESPONSES_ITEM_REFUSAL: return S("response.refusal.done");
    case RESPONSES_ITEM_REASONING: return S("response.reasoning_text.done");
    case RESPONSES_ITEM_CALL: return S("response.function_call_arguments.done");
    case RESPONSES_ITEM_RAW: break;
    }
    unreachable_state();
}

static str text_member(enum responses_item_kind kind)
{
    return kind == RESPONSES_ITEM_CALL      ? S("arguments")
           : kind == RESPONSES_ITEM_REFUSAL ? S("refusal")
                                            : S("text");
}

static void close_item(struct writer *writer, struct output *output, struct strbuf *out, str status)
{
    struct json_writer w;
    enum responses_item_kind kind = output->item.kind;
    if (!output->is_open)
        return;
    output->is_open = false;
    output->item.text = strbuf_str(&output->text);
    if (kind == RESPONSES_ITEM_CALL && output->item.text.len == 0 &&
        str_equal(status, S("completed")))
        output->item.text = S("{}");
    if (kind != RESPONSES_ITEM_RAW) {
        content_begin(writer, output, out, done_type(kind), &w);
        json_put_str(&w, text_member(kind), output->item.text);
        if (kind == RESPONSES_ITEM_CALL)
            json_put_str(&w, S("name"), output->item.name);
        if (has_logprobs(output))
            json_put_raw(&w, S("logprobs"), S("[]"));
        event_end(out, &w);
        if (kind != RESPONSES_ITEM_CALL)
            write_part_event(writer, output, out, S("response.content_part.done"),
                             output->item.text);
    }
    write_item_event(writer, output, out, S("response.output_item.done"), status);
}

/* All but calls, or all; the last one is incomplete when the answer is. */
static void close_items(struct writer *writer, struct strbuf *out, bool with_calls, bool is_whole)
{
    for (size_t i = 0; i < writer->count; i++) {
        struct output *output = &writer->outputs[i];
        bool is_last = i + 1 == writer->count;
        if (with_calls || output->item.kind != RESPONSES_ITEM_CALL)
            close_item(writer, output, out,
                       is_whole || !is_last ? S("completed") : S("incomplete"));
    }
}

/* ---- deltas ---- */

static bool is_member_name(str opaque)
{
    return str_starts_with(opaque, S("\""));
}

/* What is sealed (a signature came) is whole; more is the next one's. */
static bool goes_on(const struct output *output, enum responses_item_kind kind,
                    const struct delta *delta)
{
    if (!output->is_open || output->item.kind != kind)
        return false;
    if (kind != RESPONSES_ITEM_REASONING)
        return true;
    str had = output->item.opaque;
    return had.len == 0 || is_member_name(had) || str_equal(had, delta->opaque);
}

static struct output *last_item(struct writer *writer)
{
    for (size_t i = writer->count; i-- > 0;)
        if (writer->outputs[i].item.kind != RESPONSES_ITEM_CALL)
            return &writer->outputs[i];
    return NULL;
}

static struct output *find_call(struct writer *writer, int index)
{
    for (size_t i = writer->count; i-- > 0;)
        if (writer->outputs[i].call == index)
            return &writer->outputs[i];
    return NULL;
}

static void add_piece(struct writer *writer, struct output *output, str text, struct strbuf *out)
{
    struct json_writer w;
    if (str_is_empty(text))
        return;
    strbuf_add(&output->text, text);
    content_begin(writer, output, out, delta_type(output->item.kind), &w);
    json_put_str(&w, S("delta"), text);
    if (has_logprobs(output))
        json_put_raw(&w, S("logprobs"), S("[]"));
    event_end(out, &w);
}

static void add_text(struct writer *writer, const struct delta *delta, struct strbuf *out)
{
    bool is_reasoning = delta->kind == DELTA_REASONING;
    enum responses_item_kind kind =
        is_reasoning ? RESPONSES_ITEM_REASONING : responses_kind_of_text(delta->opaque);
    struct output *output = last_item(writer);
    if (!is_reasoning && kind != RESPONSES_ITEM_RAW && str_is_empty(delta->text))
        return;
    if (!output || !goes_on(output, kind, delta) || kind == RESPONSES_ITEM_RAW) {
        close_items(writer, out, false, true);
        output = open_item(writer, out, kind, delta);
    } else if (is_reasoning && delta->opaque.len > 0) {
        output->item.opaque = str_copy(writer->arena, delta->opaque);
    }
    if (kind == RESPONSES_ITEM_RAW)
        close_item(writer, output, out, S("completed"));
    else
        add_piece(writer, output, delta->text, out);
}

static bool is_too_much(const struct writer *writer, const struct delta *delta)
{
    if (arena_bytes_left(writer->arena) < 4 * delta->text.len + (64u << 10))
        return true;
    for (size_t i = 0; i < writer->count; i++)
        if (strbuf_is_over(&writer->outputs[i].text))
            return true;
    /* a text may begin an item, and so may a call */
    return writer->count == RESPONSES_OUTPUT_ITEMS_MAX && delta->kind != DELTA_TOOL_ARGUMENTS &&
           delta->kind != DELTA_END;
}

static void end(struct writer *writer, const struct delta *delta, struct strbuf *out)
{
    enum responses_status status = responses_status_of(delta->finish);
    struct responses_head head = {.answer = writer->answer,
                                  .status = status,
                                  .finish = delta->finish,
                                  .usage = &delta->usage};
    close_items(writer, out, true, status == RESPONSES_COMPLETED);
    write_lifecycle(
        writer, out,
        status == RESPONSES_COMPLETED ? S("response.completed") : S("response.incomplete"), &head);
    responses_writer_close(writer);
}

void responses_writer_delta(void *memory, const struct delta *delta, struct strbuf *out)
{
    struct writer *writer = memory;
    struct output *call;
    if (writer->has_ended)
        return;
    begin(writer, out);
    if (is_too_much(writer, delta)) {
        struct error e = {0};
        error_set(&e, REASON_PROVIDER_PROTOCOL, "the answer is too long to be repeated at its end");
        responses_writer_error(writer, &e, out);
        return;
    }
    switch (delta->kind) {
    case DELTA_TEXT:
    case DELTA_REASONING: add_text(writer, delta, out); return;
    case DELTA_TOOL_CALL:
        close_items(writer, out, false, true);
        (void) open_item(writer, out, RESPONSES_ITEM_CALL, delta);
        return;
    case DELTA_TOOL_ARGUMENTS:
        call = find_call(writer, delta->index);
        if (call)
            add_piece(writer, call, delta->text, out);
        return;
    case DELTA_END: end(writer, delta, out); return;
    }
    unreachable_state();
}

/* ---- errors in band ---- */

static void write_error_event(int64_t sequence, const struct error *e, struct strbuf *out)
{
    struct json_writer w;
    dialect_data_begin(out, S("error"), &w);
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("error"));
    json_put_i64(&w, S("sequence_number"), sequence);
    json_put_str(&w, S("code"), responses_error_code(e));
    json_put_str(&w, S("message"),
                 str_from_cstr(e->message[0] ? e->message : error_title(e->reason)));
    json_put_raw(&w, S("param"), S("null"));
    json_object_end(&w);
    dialect_data_end(out);
}

void responses_writer_error(void *memory, const struct error *e, struct strbuf *out)
{
    struct writer *writer = memory;
    struct responses_head head = {
        .answer = writer->answer, .status = RESPONSES_FAILED, .failure = e};
    if (writer->has_ended)
        return;
    begin(writer, out);
    write_error_event(writer->sequence++, e, out);
    for (size_t i = 0; i < writer->count; i++)
        if (writer->outputs[i].is_open)
            writer->outputs[i].item.text = strbuf_str(&writer->outputs[i].text);
    write_lifecycle(writer, out, S("response.failed"), &head);
    responses_writer_close(writer);
}

/* The events before it were the provider's: their numbers are not known. */
void responses_write_stream_error(const struct error *e, struct strbuf *out)
{
    write_error_event(0, e, out);
}
