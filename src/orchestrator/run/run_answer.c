#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/run_answer_internal.h"

void run_answer_init(struct run_answer *answer, struct arena *arena)
{
    *answer = (struct run_answer){.arena = arena};
}

/* ---- deltas -> parts ---- */

static bool begin_part(struct run_answer *answer, struct part part, struct error *e)
{
    if (answer->part_count == RUN_ANSWER_PARTS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the model's answer has more than %d parts",
                         RUN_ANSWER_PARTS_MAX);
    if (answer->part_count == answer->part_capacity) {
        size_t capacity = answer->part_capacity ? answer->part_capacity * 2 : 4;
        answer->parts =
            arena_grow(answer->arena, answer->parts, answer->part_capacity * sizeof *answer->parts,
                       capacity * sizeof *answer->parts);
        answer->part_capacity = capacity;
    }
    struct run_answer_part *made = &answer->parts[answer->part_count++];
    *made = (struct run_answer_part){.part = part};
    strbuf_init(&made->text, answer->arena, MESSAGE_BYTES_MAX);
    answer->is_closed = false;
    return true;
}

/* Before anything is kept: a refused piece leaves nothing behind. */
static bool take_room(size_t *used, size_t bytes, struct error *e)
{
    if (bytes > MESSAGE_BYTES_MAX - *used)
        return error_set(e, REASON_TOO_LARGE, "the model's answer is over %u bytes",
                         MESSAGE_BYTES_MAX);
    *used += bytes;
    return true;
}

static bool add_piece(struct run_answer *answer, enum part_kind kind, const struct delta *delta,
                      struct error *e)
{
    bool is_whole = str_starts_with(delta->opaque, S("{\"type\""));
    size_t *used = kind == PART_TEXT ? &answer->text_bytes : &answer->thought_bytes;
    struct run_answer_part *last =
        answer->part_count > 0 ? &answer->parts[answer->part_count - 1] : NULL;
    if (delta->text.len == 0 && delta->opaque.len == 0)
        return true;
    if (!take_room(used, delta->text.len, e) ||
        !take_room(&answer->thought_bytes, delta->opaque.len, e))
        return false;
    bool is_new = !last || last->part.kind != kind || answer->is_closed || is_whole;
    if (is_new && !begin_part(answer, (struct part){.kind = kind}, e))
        return false;
    last = &answer->parts[answer->part_count - 1];
    strbuf_add(&last->text, delta->text);
    if (delta->opaque.len > 0)
        last->part.opaque = str_copy(answer->arena, delta->opaque);
    answer->is_closed = str_starts_with(delta->opaque, S("{"));
    return true;
}

static bool add_call(struct run_answer *answer, const struct delta *delta, struct error *e)
{
    if (delta->index < 0 || delta->index >= RUN_TOOL_CALLS_PARALLEL_MAX ||
        (size_t) delta->index > answer->call_count)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "the model asked for more than %d tool calls at once",
                         RUN_TOOL_CALLS_PARALLEL_MAX);
    if ((size_t) delta->index < answer->call_count)
        return true;
    if (delta->name.len > RUN_CALL_NAME_BYTES_MAX || delta->call_id.len > RUN_CALL_NAME_BYTES_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "the name or id of a tool call is over %u bytes", RUN_CALL_NAME_BYTES_MAX);
    struct part part = {
        .kind = PART_TOOL_CALL,
        .call_id = str_copy(answer->arena, delta->call_id),
        .name = str_copy(answer->arena, delta->name),
    };
    if (!begin_part(answer, part, e))
        return false;
    answer->calls[answer->call_count++] = answer->part_count - 1;
    return true;
}

static bool add_arguments(struct run_answer *answer, const struct delta *delta, struct error *e)
{
    if (delta->index < 0 || (size_t) delta->index >= answer->call_count)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "the provider sent arguments of a tool call that has not begun");
    if (!take_room(&answer->argument_bytes, delta->text.len, e))
        return false;
    strbuf_add(&answer->parts[answer->calls[delta->index]].text, delta->text);
    return true;
}

bool run_answer_add(struct run_answer *answer, const struct delta *delta, struct error *e)
{
    switch (delta->kind) {
    case DELTA_TEXT: return add_piece(answer, PART_TEXT, delta, e);
    case DELTA_REASONING: return add_piece(answer, PART_REASONING, delta, e);
    case DELTA_TOOL_CALL: return add_call(answer, delta, e);
    case DELTA_TOOL_ARGUMENTS: return add_arguments(answer, delta, e);
    case DELTA_END: break;
    }
    return true;
}

/* ---- what it came to ---- */

static struct part part_of(const struct run_answer_part *from)
{
    struct part part = from->part;
    str text = strbuf_str(&from->text);
    if (part.kind == PART_TOOL_CALL)
        part.arguments = text.len > 0 ? text : S("{}");
    else
        part.text = text;
    return part;
}

struct part run_answer_call(const struct run_answer *answer, size_t index)
{
    ensure(index < answer->call_count);
    return part_of(&answer->parts[answer->calls[index]]);
}

static str join(const struct run_answer *answer, enum part_kind kind)
{
    struct strbuf text;
    const struct run_answer_part *only = NULL;
    size_t count = 0;
    for (size_t i = 0; i < answer->part_count; i++)
        if (answer->parts[i].part.kind == kind && answer->parts[i].text.len > 0) {
            only = &answer->parts[i];
            count++;
        }
    if (count < 2)
        return only ? strbuf_str(&only->text) : STR_NONE;
    strbuf_init(&text, answer->arena, MESSAGE_BYTES_MAX);
    for (size_t i = 0; i < answer->part_count; i++)
        if (answer->parts[i].part.kind == kind)
            strbuf_add(&text, strbuf_str(&answer->parts[i].text));
    return strbuf_str(&text);
}

str run_answer_text(const struct run_answer *answer)
{
    return join(answer, PART_TEXT);
}

struct prompt_message run_answer_message(const struct run_answer *answer, struct arena *arena)
{
    struct prompt_message message = {.role = ROLE_ASSISTANT, .part_count = answer->part_count};
    message.parts = ARENA_ARRAY(arena, struct part, answer->part_count + 1);
    for (size_t i = 0; i < answer->part_count; i++) {
        struct part part = part_of(&answer->parts[i]);
        message.parts[i] = (struct part){
            .kind = part.kind,
            .text = str_copy(arena, part.text),
            .call_id = str_copy(arena, part.call_id),
            .name = str_copy(arena, part.name),
            .arguments = str_copy(arena, part.arguments),
            .opaque = str_copy(arena, part.opaque),
        };
    }
    return message;
}

/* ---- parts -> the row ---- */

/* At most one thought, then at most one text, then calls, and nothing that a provider must get back. */
static bool tells_order(const struct run_answer *answer)
{
    static const int ranks[] = {[PART_REASONING] = 1, [PART_TEXT] = 2, [PART_TOOL_CALL] = 3};
    int last = 0;
    for (size_t i = 0; i < answer->part_count; i++) {
        const struct part *part = &answer->parts[i].part;
        int rank = ranks[part->kind];
        if (part->opaque.len > 0 || rank < last || (rank == last && rank < 3))
            return true;
        last = rank;
    }
    return false;
}

static void write_order(struct json_writer *w, const struct run_answer *answer)
{
    json_key(w, S("order"));
    json_array_begin(w);
    for (size_t i = 0; i < answer->part_count; i++) {
        const struct run_answer_part *from = &answer->parts[i];
        json_object_begin(w);
        if (from->part.kind == PART_TOOL_CALL) {
            json_put_str(w, S("type"), S("tool_call"));
        } else if (from->part.kind == PART_TEXT) {
            json_put_str(w, S("type"), S("text"));
            json_put_i64(w, S("bytes"), (int64_t) from->text.len);
        } else {
            json_put_str(w, S("type"), S("reasoning"));
            json_put_str(w, S("text"), strbuf_str(&from->text));
        }
        if (from->part.opaque.len > 0) /* as a string: byte for byte */
            json_put_str(w, S("opaque"), from->part.opaque);
        json_object_end(w);
    }
    json_array_end(w);
}

static void write_calls(struct json_writer *w, const struct run_answer *answer, const uuid *ids)
{
    json_key(w, S("tool_calls"));
    json_array_begin(w);
    for (size_t i = 0; i < answer->call_count; i++) {
        struct part call = run_answer_call(answer, i);
        json_object_begin(w);
        json_put_str(w, S("tool_call_id"), uuid_str(answer->arena, ids[i]));
        json_put_str(w, S("call_id"), call.call_id);
        json_put_str(w, S("name"), call.name);
        json_put_str(w, S("arguments"), call.arguments);
        json_object_end(w);
    }
    json_array_end(w);
}

bool run_answer_write(const struct run_answer *answer, const uuid *ids, str *out, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    str thoughts = join(answer, PART_REASONING);
    bool has_order = tells_order(answer);
    *out = STR_NONE;
    if (answer->call_count == 0 && thoughts.len == 0 && !has_order)
        return true;
    strbuf_init(&text, answer->arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    if (thoughts.len > 0)
        json_put_str(&w, S("reasoning"), thoughts);
    if (has_order)
        write_order(&w, answer);
    write_calls(&w, answer, ids);
    json_object_end(&w);
    *out = strbuf_str(&text);
    return !strbuf_is_over(&text) ||
           error_set(e, REASON_TOO_LARGE, "the model's answer is too large to be kept");
}

/* ---- the row -> parts ---- */

static struct part read_call(struct arena *arena, const struct json *call)
{
    return (struct part){
        .kind = PART_TOOL_CALL,
        .call_id = str_copy(arena, json_str_or(call, S("call_id"), STR_NONE)),
        .name = str_copy(arena, json_str_or(call, S("name"), STR_NONE)),
        .arguments = str_copy(arena, json_str_or(call, S("arguments"), STR_NONE)),
    };
}

static void read_plain(struct arena *arena, str content, const struct json *row,
                       struct prompt_message *out)
{
    str thought = json_str_or(row, S("reasoning"), STR_NONE);
    if (!str_is_empty(thought))
        out->parts[out->part_count++] =
            (struct part){.kind = PART_REASONING, .text = str_copy(arena, thought)};
    if (!str_is_empty(content))
        out->parts[out->part_count++] =
            (struct part){.kind = PART_TEXT, .text = str_copy(arena, content)};
}

static struct part read_item(struct arena *arena, const struct json *item, str *content)
{
    struct part part = {.opaque = str_copy(arena, json_str_or(item, S("opaque"), STR_NONE))};
    if (str_equal(json_str_or(item, S("type"), STR_NONE), S("text"))) {
        int64_t bytes = json_i64_or(item, S("bytes"), 0);
        str text = str_slice(*content, 0, bytes > 0 ? (size_t) bytes : 0);
        *content = str_from(*content, text.len);
        part.kind = PART_TEXT;
        part.text = str_copy(arena, text);
        return part;
    }
    part.kind = PART_REASONING;
    part.text = str_copy(arena, json_str_or(item, S("text"), STR_NONE));
    return part;
}

struct prompt_message run_answer_read(struct arena *arena, str content, const struct json *row)
{
    const struct json *calls = json_get(row, S("tool_calls")), *order = json_get(row, S("order"));
    struct prompt_message message = {.role = ROLE_ASSISTANT};
    struct json_iter it = json_iter(order), calls_it = json_iter(calls);
    const struct json *item, *call;
    message.parts = ARENA_ARRAY(arena, struct part, json_count(order) + json_count(calls) + 2);
    if (json_count(order) == 0)
        read_plain(arena, content, row, &message);
    while (json_next(&it, NULL, &item)) {
        if (!str_equal(json_str_or(item, S("type"), STR_NONE), S("tool_call")))
            message.parts[message.part_count++] = read_item(arena, item, &content);
        else if (json_next(&calls_it, NULL, &call))
            message.parts[message.part_count++] = read_call(arena, call);
    }
    while (json_next(&calls_it, NULL, &call))
        message.parts[message.part_count++] = read_call(arena, call);
    return message;
}
