/* Stored answers read back: one, the chain behind it, and its items. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/responses/responses_internal.h"

/* ---- reading ---- */

static bool not_found(str id, struct error *e)
{
    return error_set(e, REASON_NOT_FOUND, "Response with id '" STR_FMT "' not found.",
                     STR_ARG(str_cut_utf8(id, 120)));
}

static bool parse(struct arena *arena, str text, const struct json **out, struct error *e)
{
    struct json_limits limits = {.bytes_max = STORE_VALUE_BYTES_MAX, .allow_duplicates = true};
    return json_parse(arena, text, limits, out, e);
}

bool responses_load(const struct responses_owner *owner, struct context *ctx, str id,
                    struct responses_link *out, struct error *e)
{
    struct error failure = {0};
    struct record *key = ARENA_NEW(ctx->arena, struct record),
                  *row = ARENA_NEW(ctx->arena, struct record);
    if (str_is_empty(id) || id.len > RESPONSES_ID_BYTES_MAX)
        return not_found(id, e);
    *key = record_of(TABLE_RESPONSES);
    record_set_text(key, RESPONSES_ID, id);
    if (!store_get(owner->gateway->store, ctx, owner->tenant_id, key, row, &failure))
        return failure.code == ERROR_NOT_FOUND ? not_found(id, e) : error_copy(e, &failure);
    bool is_theirs = str_equal(record_text(row, RESPONSES_USER_ID), owner->user_id);
    if (!is_theirs ||
        record_integer(row, RESPONSES_EXPIRES_AT) <= clock_unix_us(owner->gateway->clock))
        return not_found(id, e);
    *out = (struct responses_link){
        .id = record_text(row, RESPONSES_ID),
        .previous_id = record_text(row, RESPONSES_PREVIOUS_ID),
        .provider = record_text(row, RESPONSES_PROVIDER),
        .session_id = record_uuid(row, RESPONSES_SESSION_ID),
        .response_text = record_text(row, RESPONSES_RESPONSE),
    };
    return parse(ctx->arena, record_text(row, RESPONSES_INPUT), &out->input, e) &&
           parse(ctx->arena, out->response_text, &out->response, e);
}

static size_t bytes_of(const struct responses_link *link, struct arena *arena)
{
    str text;
    if (json_to_str(link->input, &text))
        return link->response_text.len + text.len;
    arena_mark mark = arena_save(arena);
    size_t bytes = json_print(arena, link->input).len + link->response_text.len;
    arena_rewind(arena, mark);
    return bytes;
}

static bool add_link(struct responses_chain *chain, struct arena *arena,
                     const struct responses_link *link, size_t *room, struct error *e)
{
    if (chain->count == RESPONSES_CHAIN_MAX)
        return error_set(e, REASON_LIMIT,
                         "the conversation has more than %u answers; begin anew with a summary",
                         RESPONSES_CHAIN_MAX);
    chain->bytes += bytes_of(link, arena);
    if (chain->bytes > RESPONSES_CHAIN_BYTES_MAX)
        return error_set(e, REASON_LIMIT,
                         "the conversation is over %u bytes; begin anew with a summary",
                         RESPONSES_CHAIN_BYTES_MAX);
    if (chain->count == *room) {
        size_t more = *room == 0 ? 16 : 2 * *room;
        chain->links = arena_grow(arena, chain->links, *room * sizeof *chain->links,
                                  more * sizeof *chain->links);
        *room = more;
    }
    chain->links[chain->count++] = *link;
    return true;
}

bool responses_load_chain(const struct responses_owner *owner, struct context *ctx, str id,
                          struct responses_chain *out, struct error *e)
{
    struct responses_chain chain = {0};
    struct responses_link *link = ARENA_NEW(ctx->arena, struct responses_link);
    size_t room = 0;
    while (!str_is_empty(id)) {
        struct error failure = {0};
        if (!responses_load(owner, ctx, id, link, &failure)) {
            if (failure.code != ERROR_NOT_FOUND || chain.count == 0)
                return error_copy(e, &failure);
            chain.is_cut = true;
            break;
        }
        if (!add_link(&chain, ctx->arena, link, &room, e))
            return false;
        id = link->previous_id;
    }
    *out = chain;
    return true;
}

/* ---- as input of the next turn ---- */

/* Of an answer's items those that a model needs to see again: what its hosted tools did is in its messages. */
static bool is_remembered(const struct json *item, bool with_reasoning)
{
    str type = json_str_or(item, S("type"), STR_NONE);
    if (str_equal(type, S("reasoning")))
        return with_reasoning && json_type(json_get(item, S("encrypted_content"))) == JSON_STRING;
    return str_equal(type, S("message")) || str_equal(type, S("function_call")) ||
           str_equal(type, S("custom_tool_call"));
}

static void write_user_text(struct json_writer *w, str text)
{
    json_object_begin(w);
    json_put_str(w, S("role"), S("user"));
    json_put_str(w, S("content"), text);
    json_object_end(w);
}

static void write_input(struct json_writer *w, const struct json *input, bool with_reasoning)
{
    str text;
    const struct json *item;
    if (json_to_str(input, &text))
        write_user_text(w, text);
    struct json_iter it = json_iter(json_type(input) == JSON_ARRAY ? input : NULL);
    while (json_next(&it, NULL, &item)) {
        bool is_reasoning = str_equal(json_str_or(item, S("type"), STR_NONE), S("reasoning"));
        if (!is_reasoning || with_reasoning)
            json_write_value(w, item);
    }
}

void responses_write_history(struct json_writer *w, const struct responses_chain *chain,
                             const struct json *input, bool with_reasoning)
{
    const struct json *item;
    json_array_begin(w);
    for (size_t i = chain->count; i-- > 0;) {
        const struct responses_link *link = &chain->links[i];
        write_input(w, link->input, with_reasoning);
        struct json_iter it = json_iter(json_get(link->response, S("output")));
        while (json_next(&it, NULL, &item))
            if (is_remembered(item, with_reasoning))
                json_write_value(w, item);
    }
    write_input(w, input, with_reasoning);
    json_array_end(w);
}

/* ---- as a list ---- */

static str prefix_of(str type)
{
    if (str_equal(type, S("function_call")))
        return S("fc_");
    if (str_equal(type, S("function_call_output")))
        return S("fco_");
    return str_equal(type, S("reasoning")) ? S("rs_") : S("msg_");
}

/* The same every time it is asked for: made from the answer's id and the item's place. */
static str item_id(struct arena *arena, const struct json *item, str type, str answer_id,
                   size_t place)
{
    str own = json_str_or(item, S("id"), STR_NONE), rest;
    if (!str_is_empty(own))
        return own;
    if (!str_strip_prefix(answer_id, S("resp_"), &rest))
        rest = answer_id;
    return str_printf(arena, STR_FMT STR_FMT "i%zu", STR_ARG(prefix_of(type)), STR_ARG(rest),
                      place);
}

static void write_part(struct json_writer *w, const struct json *part)
{
    str key, type = json_str_or(part, S("type"), STR_NONE);
    const struct json *member;
    json_object_begin(w);
    struct json_iter it = json_iter(part);
    while (json_next(&it, &key, &member))
        json_put_value(w, key, member);
    if (str_equal(type, S("input_image")) && !json_get(part, S("detail")))
        json_put_str(w, S("detail"), S("auto"));
    if (str_equal(type, S("output_text")) && !json_get(part, S("annotations")))
        json_put_raw(w, S("annotations"), S("[]"));
    if (str_equal(type, S("output_text")) && !json_get(part, S("logprobs")))
        json_put_raw(w, S("logprobs"), S("[]"));
    json_object_end(w);
}

static void write_content(struct json_writer *w, const struct json *content, bool is_answer)
{
    str text;
    const struct json *part;
    json_key(w, S("content"));
    json_array_begin(w);
    if (json_to_str(content, &text)) {
        json_object_begin(w);
        json_put_str(w, S("type"), is_answer ? S("output_text") : S("input_text"));
        json_put_str(w, S("text"), text);
        if (is_answer) {
            json_put_raw(w, S("annotations"), S("[]"));
            json_put_raw(w, S("logprobs"), S("[]"));
        }
        json_object_end(w);
    }
    struct json_iter it = json_iter(json_type(content) == JSON_ARRAY ? content : NULL);
    while (json_next(&it, NULL, &part))
        write_part(w, part);
    json_array_end(w);
}

static void write_listed(struct json_writer *w, const struct json *item, str type, str id)
{
    str key, role = json_str_or(item, S("role"), STR_NONE);
    const struct json *member;
    bool is_message = str_equal(type, S("message"));
    json_object_begin(w);
    json_put_str(w, S("id"), id);
    json_put_str(w, S("type"), type);
    if (!json_get(item, S("status")) && !str_equal(type, S("reasoning")))
        json_put_str(w, S("status"), S("completed"));
    struct json_iter it = json_iter(item);
    while (json_next(&it, &key, &member)) {
        if (str_equal(key, S("id")) || str_equal(key, S("type")))
            continue;
        if (is_message && str_equal(key, S("content")))
            write_content(w, member, str_equal(role, S("assistant")));
        else
            json_put_value(w, key, member);
    }
    json_object_end(w);
}

struct listing {
    struct arena *arena;
    struct responses_items *out;
    size_t room;
};

static void list_item(struct listing *listing, const struct json *item, str answer_id, size_t place)
{
    struct strbuf text;
    struct json_writer w;
    struct responses_items *out = listing->out;
    str type = json_str_or(item, S("type"), S("message"));
    if (out->count == listing->room || json_type(item) != JSON_OBJECT)
        return;
    str id = item_id(listing->arena, item, type, answer_id, place);
    strbuf_init(&text, listing->arena, STORE_VALUE_BYTES_MAX);
    json_writer_init(&w, &text);
    write_listed(&w, item, type, id);
    out->ids[out->count] = id;
    out->texts[out->count++] = strbuf_str(&text);
}

static void list_input(struct listing *listing, const struct responses_link *link)
{
    str text;
    size_t place = 0;
    const struct json *item;
    if (json_to_str(link->input, &text)) {
        struct strbuf message;
        struct json_writer w;
        struct error ignored = {0};
        strbuf_init(&message, listing->arena, STORE_VALUE_BYTES_MAX);
        json_writer_init(&w, &message);
        write_user_text(&w, text);
        if (parse(listing->arena, strbuf_str(&message), &item, &ignored))
            list_item(listing, item, link->id, 0);
    }
    struct json_iter it = json_iter(json_type(link->input) == JSON_ARRAY ? link->input : NULL);
    while (json_next(&it, NULL, &item))
        list_item(listing, item, link->id, place++);
}

static size_t items_of(const struct responses_link *link)
{
    return json_count(json_get(link->response, S("output"))) +
           (json_type(link->input) == JSON_ARRAY ? json_count(link->input) : 1);
}

bool responses_list_items(struct arena *arena, const struct responses_chain *chain,
                          struct responses_items *out, struct error *e)
{
    const struct json *item;
    struct listing listing = {.arena = arena, .out = out};
    *out = (struct responses_items){0};
    for (size_t i = 0; i < chain->count; i++)
        listing.room += items_of(&chain->links[i]);
    out->ids = ARENA_ARRAY(arena, str, listing.room + 1);
    out->texts = ARENA_ARRAY(arena, str, listing.room + 1);
    for (size_t i = chain->count; i-- > 0;) {
        list_input(&listing, &chain->links[i]);
        size_t place = 0;
        struct json_iter it = json_iter(json_get(chain->links[i].response, S("output")));
        while (i > 0 && json_next(&it, NULL, &item)) /* its own output is no input */
            list_item(&listing, item, chain->links[i].id, place++);
    }
    return !arena_is_over(arena) || error_set(e, REASON_LIMIT, "the conversation is too long");
}
