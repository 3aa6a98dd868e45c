/* reply -> answer, delta -> chunk, error -> error body */
#include "base/ensure.h"
#include "llm/openai_format_internal.h"

/* The dialect knows no "other"; every client understands "stop". */
static str finish_word(enum finish finish)
{
    if (finish == FINISH_NONE || finish == FINISH_OTHER)
        return S("stop");
    return str_from_cstr(finish_name(finish));
}

static void write_usage(struct json_writer *w, const struct usage *usage)
{
    json_key(w, S("usage"));
    json_object_begin(w);
    json_put_i64(w, S("prompt_tokens"), usage->input_tokens);
    json_put_i64(w, S("completion_tokens"), usage->output_tokens);
    json_put_i64(w, S("total_tokens"), usage->input_tokens + usage->output_tokens);
    json_key(w, S("prompt_tokens_details"));
    json_object_begin(w);
    json_put_i64(w, S("cached_tokens"), usage->cached_tokens);
    if (usage->cache_write_tokens > 0)
        json_put_i64(w, S("cache_write_tokens"), usage->cache_write_tokens);
    json_object_end(w);
    json_key(w, S("completion_tokens_details"));
    json_object_begin(w);
    json_put_i64(w, S("reasoning_tokens"), usage->reasoning_tokens);
    json_object_end(w);
    json_object_end(w);
}

static void write_head(struct json_writer *w, const struct openai_answer *answer, str object)
{
    json_put_str(w, S("id"), answer->id);
    json_put_str(w, S("object"), object);
    json_put_i64(w, S("created"), answer->created);
    json_put_str(w, S("model"), answer->model);
    if (answer->system_fingerprint.len)
        json_put_str(w, S("system_fingerprint"), answer->system_fingerprint);
}

/* ---- whole ---- */

static bool is_of(const struct part *part, enum part_kind kind, bool is_refusal)
{
    return part->kind == kind && str_equal(part->opaque, OPENAI_MEMBER_REFUSAL) == is_refusal;
}

/* Parts of one kind joined; null (or nothing at all) when there are none. */
static void write_joined(struct json_writer *w, str key, const struct reply *reply,
                         enum part_kind kind, bool is_refusal, bool null_when_none)
{
    struct strbuf text;
    size_t count = 0;
    strbuf_init(&text, w->out->arena, PROVIDER_ANSWER_BYTES_MAX);
    for (size_t i = 0; i < reply->part_count; i++) {
        if (!is_of(&reply->parts[i], kind, is_refusal))
            continue;
        strbuf_add(&text, reply->parts[i].text);
        count++;
    }
    if (count > 0)
        json_put_str(w, key, strbuf_str(&text));
    else if (null_when_none)
        json_put_raw(w, key, S("null"));
}

enum { NO_INDEX = -1 };

/* One of another API's thinking blocks, made of a part's or a delta's opaque. */
static void write_thinking_block(struct json_writer *w, str text, str opaque, int index)
{
    const struct json *tree = NULL;
    struct error ignored = {0};
    struct json_limits limits = {.allow_duplicates = true};
    str signature;
    if (!str_starts_with(opaque, S("{")) ||
        !json_parse(w->out->arena, opaque, limits, &tree, &ignored))
        return;
    bool is_whole = json_type(json_get(tree, S("type"))) == JSON_STRING;
    if (!is_whole && !json_to_str(json_get(tree, S("signature")), &signature))
        return;
    json_object_begin(w);
    if (index != NO_INDEX)
        json_put_i64(w, S("index"), index);
    if (is_whole) {
        openai_write_members(w, tree);
    } else {
        json_put_str(w, S("type"), S("thinking"));
        json_put_str(w, S("thinking"), text);
        json_put_str(w, S("signature"), signature);
    }
    json_object_end(w);
}

static void write_thinking_blocks(struct json_writer *w, const struct reply *reply)
{
    bool has_any = false;
    for (size_t i = 0; i < reply->part_count; i++)
        has_any = has_any || (reply->parts[i].kind == PART_REASONING &&
                              str_starts_with(reply->parts[i].opaque, S("{")));
    if (!has_any)
        return;
    json_key(w, S("thinking_blocks"));
    json_array_begin(w);
    for (size_t i = 0; i < reply->part_count; i++) {
        if (reply->parts[i].kind == PART_REASONING)
            write_thinking_block(w, reply->parts[i].text, reply->parts[i].opaque, NO_INDEX);
    }
    json_array_end(w);
}

static void write_calls(struct json_writer *w, const struct reply *reply)
{
    bool has_begun = false;
    for (size_t i = 0; i < reply->part_count; i++) {
        const struct part *part = &reply->parts[i];
        if (part->kind != PART_TOOL_CALL)
            continue;
        if (!has_begun) {
            json_key(w, S("tool_calls"));
            json_array_begin(w);
            has_begun = true;
        }
        json_object_begin(w);
        json_put_str(w, S("id"), part->call_id);
        json_put_str(w, S("type"), S("function"));
        json_key(w, S("function"));
        json_object_begin(w);
        json_put_str(w, S("name"), part->name);
        json_put_str(w, S("arguments"), part->arguments);
        json_object_end(w);
        json_object_end(w);
    }
    if (has_begun)
        json_array_end(w);
}

void openai_write_reply(struct json_writer *w, const struct openai_answer *answer,
                        const struct reply *reply)
{
    json_object_begin(w);
    write_head(w, answer, S("chat.completion"));
    json_key(w, S("choices"));
    json_array_begin(w);
    json_object_begin(w);
    json_put_i64(w, S("index"), 0);
    json_key(w, S("message"));
    json_object_begin(w);
    json_put_str(w, S("role"), S("assistant"));
    write_joined(w, S("content"), reply, PART_TEXT, false, true);
    write_joined(w, S("refusal"), reply, PART_TEXT, true, true);
    write_joined(w, S("reasoning_content"), reply, PART_REASONING, false, false);
    write_thinking_blocks(w, reply);
    write_calls(w, reply);
    json_object_end(w);
    json_put_raw(w, S("logprobs"), S("null"));
    json_put_str(w, S("finish_reason"), finish_word(reply->finish));
    json_object_end(w);
    json_array_end(w);
    write_usage(w, &reply->usage);
    json_object_end(w);
}

/* ---- chunks ---- */

static void write_call_delta(struct json_writer *w, const struct delta *delta)
{
    json_key(w, S("tool_calls"));
    json_array_begin(w);
    json_object_begin(w);
    json_put_i64(w, S("index"), delta->index);
    if (delta->kind == DELTA_TOOL_CALL) {
        json_put_str(w, S("id"), delta->call_id);
        json_put_str(w, S("type"), S("function"));
    }
    json_key(w, S("function"));
    json_object_begin(w);
    if (delta->kind == DELTA_TOOL_CALL)
        json_put_str(w, S("name"), delta->name);
    json_put_str(w, S("arguments"), delta->kind == DELTA_TOOL_CALL ? S("") : delta->text);
    json_object_end(w);
    json_object_end(w);
    json_array_end(w);
}

static void write_reasoning_delta(struct json_writer *w, const struct delta *delta,
                                  const struct openai_thinking *thinking)
{
    if (delta->text.len > 0 || !str_starts_with(delta->opaque, S("{")))
        json_put_str(w, S("reasoning_content"), delta->text);
    if (!str_starts_with(delta->opaque, S("{")))
        return;
    json_key(w, S("thinking_blocks"));
    json_array_begin(w);
    write_thinking_block(w, thinking ? thinking->text : delta->text, delta->opaque,
                         thinking ? thinking->index : 0);
    json_array_end(w);
}

static void write_delta(struct json_writer *w, const struct delta *delta,
                        const struct openai_thinking *thinking, bool is_first)
{
    json_object_begin(w);
    if (is_first)
        json_put_str(w, S("role"), S("assistant"));
    switch (delta->kind) {
    case DELTA_TEXT:
        json_put_str(w,
                     str_equal(delta->opaque, OPENAI_MEMBER_REFUSAL) ? S("refusal") : S("content"),
                     delta->text);
        break;
    case DELTA_REASONING: write_reasoning_delta(w, delta, thinking); break;
    case DELTA_TOOL_CALL:
    case DELTA_TOOL_ARGUMENTS: write_call_delta(w, delta); break;
    case DELTA_END: break;
    }
    json_object_end(w);
}

void openai_write_chunk(struct json_writer *w, const struct openai_answer *answer,
                        const struct delta *delta, const struct openai_thinking *thinking,
                        bool is_first)
{
    json_object_begin(w);
    write_head(w, answer, S("chat.completion.chunk"));
    json_key(w, S("choices"));
    json_array_begin(w);
    json_object_begin(w);
    json_put_i64(w, S("index"), 0);
    json_key(w, S("delta"));
    write_delta(w, delta, thinking, is_first);
    json_put_raw(w, S("logprobs"), S("null"));
    if (delta->kind == DELTA_END)
        json_put_str(w, S("finish_reason"), finish_word(delta->finish));
    else
        json_put_raw(w, S("finish_reason"), S("null"));
    json_object_end(w);
    json_array_end(w);
    json_object_end(w);
}

void openai_write_usage_chunk(struct json_writer *w, const struct openai_answer *answer,
                              const struct usage *usage)
{
    json_object_begin(w);
    write_head(w, answer, S("chat.completion.chunk"));
    json_key(w, S("choices"));
    json_array_begin(w);
    json_array_end(w);
    write_usage(w, usage);
    json_object_end(w);
}

/* ---- errors ---- */

/* The words that OpenAI's own SDKs look at; the HTTP status decides the rest. */
static str error_type(const struct error *e)
{
    int status = error_http_status(e->reason);
    if (status == 401)
        return S("authentication_error");
    if (status == 402)
        return S("insufficient_quota");
    if (status == 403)
        return S("permission_error");
    if (status == 429)
        return S("rate_limit_error");
    return status >= 500 ? S("server_error") : S("invalid_request_error");
}

static str error_code_word(const struct error *e)
{
    if (e->reason == REASON_UNKNOWN_MODEL)
        return S("model_not_found");
    if (e->reason == REASON_UNAUTHENTICATED)
        return S("invalid_api_key");
    return str_from_cstr(error_problem(e->reason));
}

void openai_write_error(struct json_writer *w, const struct error *e)
{
    json_object_begin(w);
    json_key(w, S("error"));
    json_object_begin(w);
    json_put_str(w, S("message"),
                 str_from_cstr(e->message[0] ? e->message : error_title(e->reason)));
    json_put_str(w, S("type"), error_type(e));
    json_put_raw(w, S("param"),
                 e->reason == REASON_PREVIOUS_RESPONSE ? S("\"previous_response_id\"") : S("null"));
    json_put_str(w, S("code"), error_code_word(e));
    json_object_end(w);
    json_object_end(w);
}
