/* reply -> Response, error -> error body; and what streams share with them */
#include "base/arena.h"
#include "base/ensure.h"
#include "llm/responses_format_internal.h"

#define ITEM_OPAQUE_BEGIN S("{\"openai_item\":")

/* ---- items that travel as they are ---- */

str responses_item_opaque(struct arena *arena, str item_json)
{
    return str_printf(arena, "{\"openai_item\":" STR_FMT "}", STR_ARG(item_json));
}

bool responses_item_of_opaque(str opaque, str *item_json)
{
    str rest;
    if (!str_strip_prefix(opaque, ITEM_OPAQUE_BEGIN, &rest) || !str_ends_with(rest, S("}")))
        return false;
    *item_json = str_slice(rest, 0, rest.len - 1);
    return true;
}

/* ---- the head ---- */

static void put_or(struct json_writer *w, const struct json *request, str key, str otherwise)
{
    if (responses_is_given(request, key))
        json_put_value(w, key, json_get(request, key));
    else
        json_put_raw(w, key, otherwise);
}

/* A function tool has to say strict and parameters in an answer, though not in a request. */
static void write_tool(struct json_writer *w, const struct json *tool)
{
    str key;
    const struct json *item;
    bool is_function = str_equal(json_str_or(tool, S("type"), STR_NONE), S("function"));
    if (!is_function || json_type(tool) != JSON_OBJECT) {
        json_write_value(w, tool);
        return;
    }
    json_object_begin(w);
    struct json_iter it = json_iter(tool);
    while (json_next(&it, &key, &item))
        if (!str_equal(key, S("strict")) && !str_equal(key, S("parameters")))
            json_put_value(w, key, item);
    put_or(w, tool, S("parameters"), S("null"));
    put_or(w, tool, S("strict"), S("false"));
    json_object_end(w);
}

static void write_tools(struct json_writer *w, const struct json *request)
{
    const struct json *tool, *tools = json_get(request, S("tools"));
    json_key(w, S("tools"));
    json_array_begin(w);
    struct json_iter it = json_iter(json_type(tools) == JSON_ARRAY ? tools : NULL);
    while (json_next(&it, NULL, &tool))
        write_tool(w, tool);
    json_array_end(w);
}

static void write_text(struct json_writer *w, const struct json *request)
{
    const struct json *text = json_get(request, S("text")), *item;
    str key;
    json_key(w, S("text"));
    json_object_begin(w);
    put_or(w, text, S("format"), S("{\"type\":\"text\"}"));
    struct json_iter it = json_iter(json_type(text) == JSON_OBJECT ? text : NULL);
    while (json_next(&it, &key, &item))
        if (!str_equal(key, S("format")) && json_type(item) != JSON_NULL)
            json_put_value(w, key, item);
    json_object_end(w);
}

static void write_request_echo(struct json_writer *w, const struct json *request)
{
    static const struct {
        str key, otherwise;
    } members[] = {
        {S_INIT("instructions"), S_INIT("null")},
        {S_INIT("max_output_tokens"), S_INIT("null")},
        {S_INIT("metadata"), S_INIT("{}")},
        {S_INIT("parallel_tool_calls"), S_INIT("true")},
        {S_INIT("previous_response_id"), S_INIT("null")},
        {S_INIT("reasoning"), S_INIT("{\"effort\":null,\"summary\":null}")},
        {S_INIT("store"), S_INIT("true")},
        {S_INIT("temperature"), S_INIT("1.0")},
        {S_INIT("tool_choice"), S_INIT("\"auto\"")},
        {S_INIT("top_p"), S_INIT("1.0")},
        {S_INIT("truncation"), S_INIT("\"disabled\"")},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
        put_or(w, request, members[i].key, members[i].otherwise);
    json_put_bool(w, S("background"), false);
    write_tools(w, request);
    write_text(w, request);
    static const str optional[] = {S_INIT("service_tier"), S_INIT("user"),
                                   S_INIT("safety_identifier"), S_INIT("prompt_cache_key")};
    for (size_t i = 0; i < sizeof optional / sizeof optional[0]; i++)
        if (responses_is_given(request, optional[i]))
            json_put_value(w, optional[i], json_get(request, optional[i]));
}

static void write_usage(struct json_writer *w, const struct usage *usage)
{
    if (!usage)
        return;
    json_key(w, S("usage"));
    json_object_begin(w);
    json_put_i64(w, S("input_tokens"), usage->input_tokens);
    json_key(w, S("input_tokens_details"));
    json_object_begin(w);
    json_put_i64(w, S("cached_tokens"), usage->cached_tokens);
    json_put_i64(w, S("cache_write_tokens"), usage->cache_write_tokens);
    json_object_end(w);
    json_put_i64(w, S("output_tokens"), usage->output_tokens);
    json_key(w, S("output_tokens_details"));
    json_object_begin(w);
    json_put_i64(w, S("reasoning_tokens"), usage->reasoning_tokens);
    json_object_end(w);
    json_put_i64(w, S("total_tokens"), usage->input_tokens + usage->output_tokens);
    json_object_end(w);
}

static void write_outcome(struct json_writer *w, const struct responses_head *head)
{
    static const char *const names[] = {[RESPONSES_IN_PROGRESS] = "in_progress",
                                        [RESPONSES_COMPLETED] = "completed",
                                        [RESPONSES_INCOMPLETE] = "incomplete",
                                        [RESPONSES_FAILED] = "failed"};
    json_put_str(w, S("status"), str_from_cstr(names[head->status]));
    json_key(w, S("error"));
    if (head->status == RESPONSES_FAILED) {
        json_object_begin(w);
        json_put_str(w, S("code"), responses_error_code(head->failure));
        json_put_str(w, S("message"), str_from_cstr(head->failure->message));
        json_object_end(w);
    } else {
        json_write_null(w);
    }
    json_key(w, S("incomplete_details"));
    if (head->status == RESPONSES_INCOMPLETE) {
        json_object_begin(w);
        json_put_str(w, S("reason"),
                     head->finish == FINISH_CONTENT_FILTER ? S("content_filter")
                                                           : S("max_output_tokens"));
        json_object_end(w);
    } else {
        json_write_null(w);
    }
}

void responses_write_head(struct json_writer *w, const struct responses_head *head)
{
    const struct dialect_answer *answer = head->answer;
    json_object_begin(w);
    json_put_str(w, S("id"), answer->id);
    json_put_str(w, S("object"), S("response"));
    json_put_i64(w, S("created_at"), answer->created);
    json_put_str(w, S("model"), answer->model);
    write_outcome(w, head);
    write_request_echo(w, answer->request);
    write_usage(w, head->usage);
}

enum responses_status responses_status_of(enum finish finish)
{
    return finish == FINISH_LENGTH || finish == FINISH_CONTENT_FILTER ? RESPONSES_INCOMPLETE
                                                                      : RESPONSES_COMPLETED;
}

/* ---- items ---- */

str responses_item_id(struct arena *arena, enum responses_item_kind kind, str answer_id,
                      size_t index)
{
    const char *prefix = kind == RESPONSES_ITEM_CALL        ? "fc_"
                         : kind == RESPONSES_ITEM_REASONING ? "rs_"
                                                            : "msg_";
    str rest;
    if (!str_strip_prefix(answer_id, S("resp_"), &rest))
        rest = answer_id;
    return str_printf(arena, "%s" STR_FMT "%03zx", prefix, STR_ARG(rest), index & 0xfff);
}

enum responses_item_kind responses_kind_of_text(str opaque)
{
    str item;
    if (str_equal(opaque, OPENAI_MEMBER_REFUSAL))
        return RESPONSES_ITEM_REFUSAL;
    return responses_item_of_opaque(opaque, &item) ? RESPONSES_ITEM_RAW : RESPONSES_ITEM_MESSAGE;
}

void responses_write_content(struct json_writer *w, enum responses_item_kind kind, str text)
{
    json_object_begin(w);
    if (kind == RESPONSES_ITEM_REFUSAL) {
        json_put_str(w, S("type"), S("refusal"));
        json_put_str(w, S("refusal"), text);
    } else if (kind == RESPONSES_ITEM_REASONING) {
        json_put_str(w, S("type"), S("reasoning_text"));
        json_put_str(w, S("text"), text);
    } else {
        json_put_str(w, S("type"), S("output_text"));
        json_put_str(w, S("text"), text);
        json_put_raw(w, S("annotations"), S("[]"));
        json_put_raw(w, S("logprobs"), S("[]"));
    }
    json_object_end(w);
}

static void write_message(struct json_writer *w, const struct responses_item *item, str status)
{
    json_object_begin(w);
    json_put_str(w, S("id"), item->id);
    json_put_str(w, S("type"), S("message"));
    json_put_str(w, S("status"), status);
    json_put_str(w, S("role"), S("assistant"));
    json_key(w, S("content"));
    json_array_begin(w);
    if (!str_equal(status, S("in_progress")))
        responses_write_content(w, item->kind, item->text);
    json_array_end(w);
    json_object_end(w);
}

static void write_call(struct json_writer *w, const struct responses_item *item, str status)
{
    json_object_begin(w);
    json_put_str(w, S("id"), item->id);
    json_put_str(w, S("type"), S("function_call"));
    json_put_str(w, S("status"), status);
    json_put_str(w, S("call_id"), item->call_id);
    json_put_str(w, S("name"), item->name);
    json_put_str(w, S("arguments"), str_equal(status, S("in_progress")) ? S("") : item->text);
    json_object_end(w);
}

static void write_reasoning(struct json_writer *w, const struct responses_item *item, str status)
{
    str raw;
    bool is_done = !str_equal(status, S("in_progress"));
    if (responses_item_of_opaque(item->opaque, &raw)) {
        json_write_raw(w, raw);
        return;
    }
    json_object_begin(w);
    json_put_str(w, S("id"), item->id);
    json_put_str(w, S("type"), S("reasoning"));
    json_put_raw(w, S("summary"), S("[]"));
    json_key(w, S("content"));
    json_array_begin(w);
    if (is_done && item->text.len > 0)
        responses_write_content(w, RESPONSES_ITEM_REASONING, item->text);
    json_array_end(w);
    if (is_done && item->opaque.len > 0) {
        struct strbuf sealed;
        strbuf_init(&sealed, w->out->arena, PROVIDER_ANSWER_BYTES_MAX);
        strbuf_add(&sealed, RESPONSES_OPAQUE_PREFIX);
        strbuf_add(&sealed, item->opaque);
        json_put_str(w, S("encrypted_content"), strbuf_str(&sealed));
    }
    json_put_str(w, S("status"), status);
    json_object_end(w);
}

void responses_write_item(struct json_writer *w, const struct responses_item *item, str status)
{
    str raw = S("null");
    switch (item->kind) {
    case RESPONSES_ITEM_MESSAGE:
    case RESPONSES_ITEM_REFUSAL: write_message(w, item, status); return;
    case RESPONSES_ITEM_REASONING: write_reasoning(w, item, status); return;
    case RESPONSES_ITEM_CALL: write_call(w, item, status); return;
    case RESPONSES_ITEM_RAW:
        if (!responses_item_of_opaque(item->opaque, &raw))
            unreachable_state();
        json_write_raw(w, raw);
        return;
    }
    unreachable_state();
}

/* ---- whole ---- */

static struct responses_item item_of(struct arena *arena, const struct part *part, str answer_id,
                                     size_t index)
{
    struct responses_item item = {.text = part->text, .opaque = part->opaque};
    switch (part->kind) {
    case PART_REASONING: item.kind = RESPONSES_ITEM_REASONING; break;
    case PART_TOOL_CALL:
        item.kind = RESPONSES_ITEM_CALL;
        item.text = part->arguments;
        item.call_id = part->call_id;
        item.name = part->name;
        break;
    case PART_TEXT:
    case PART_IMAGE:
    case PART_TOOL_RESULT: item.kind = responses_kind_of_text(part->opaque); break;
    }
    item.id = responses_item_id(arena, item.kind, answer_id, index);
    return item;
}

/* Texts that stand together are one message, as Chat's content is. */
static str joined_text(struct arena *arena, const struct reply *reply, size_t *at)
{
    struct strbuf text;
    const struct part *first = &reply->parts[*at];
    enum responses_item_kind kind = responses_kind_of_text(first->opaque);
    size_t next = *at + 1;
    while (next < reply->part_count && reply->parts[next].kind == PART_TEXT &&
           responses_kind_of_text(reply->parts[next].opaque) == kind)
        next++;
    if (next == *at + 1)
        return first->text;
    strbuf_init(&text, arena, PROVIDER_ANSWER_BYTES_MAX);
    for (size_t i = *at; i < next; i++)
        strbuf_add(&text, reply->parts[i].text);
    *at = next - 1;
    return strbuf_str(&text);
}

void responses_write_reply(struct json_writer *w, const struct dialect_answer *answer,
                           const struct reply *reply)
{
    struct arena *arena = w->out->arena;
    enum responses_status status = responses_status_of(reply->finish);
    struct responses_head head = {
        .answer = answer, .status = status, .finish = reply->finish, .usage = &reply->usage};
    str done = status == RESPONSES_COMPLETED ? S("completed") : S("incomplete");
    size_t count = 0;
    responses_write_head(w, &head);
    json_key(w, S("output"));
    json_array_begin(w);
    for (size_t i = 0; i < reply->part_count; i++) {
        struct part part = reply->parts[i];
        bool is_text = part.kind == PART_TEXT;
        if (is_text && responses_kind_of_text(part.opaque) != RESPONSES_ITEM_RAW)
            part.text = joined_text(arena, reply, &i);
        struct responses_item item = item_of(arena, &part, answer->id, count++);
        responses_write_item(w, &item, i + 1 == reply->part_count ? done : S("completed"));
    }
    json_array_end(w);
    json_object_end(w);
}

/* ---- errors ---- */

str responses_error_code(const struct error *e)
{
    switch ((int) e->reason) {
    case REASON_PROVIDER_RATE_LIMITED:
    case REASON_RATE_LIMIT: return S("rate_limit_exceeded");
    case REASON_PROVIDER_INVALID: return S("invalid_prompt");
    default: return S("server_error");
    }
}

/* As openai_write_error, but for what this API says in its own way. */
void responses_write_error(struct json_writer *w, const struct error *e, str request_id)
{
    (void) request_id; /* in the header only */
    if (e->reason != REASON_NOT_FOUND) {
        openai_write_error(w, e);
        return;
    }
    json_object_begin(w);
    json_key(w, S("error"));
    json_object_begin(w);
    json_put_str(w, S("message"), str_from_cstr(e->message));
    json_put_str(w, S("type"), S("invalid_request_error"));
    json_put_raw(w, S("param"), S("null"));
    json_put_raw(w, S("code"), S("null"));
    json_object_end(w);
    json_object_end(w);
}
