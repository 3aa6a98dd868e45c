/* Answers with a memory: before the model call, and after it. */
#include "gateway/responses/responses.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "gateway/responses/responses_internal.h"
#include "llm/responses_format.h"

#include <stdatomic.h>
#include <stdlib.h>

struct responses_call {
    struct arena *kept;    /* what is needed until the answer is stored */
    struct arena *sending; /* the history; NULL: none */
    struct responses_owner owner;
    str model, previous_id;
    str chain_provider; /* who has the history as well */
    str provider;       /* whose answer is passed through */
    uuid session_id;
    str input; /* to be stored; empty: it is too long */
    bool may_store;
    struct responses_chain chain;
    const struct json *body, *tree;
    str body_text;
};

enum { SENDING_BYTES = 8 * (int) RESPONSES_CHAIN_BYTES_MAX, KEPT_BYTES = 64 << 20 };

/* ---- before ---- */

/* Asked for, and not false, null or empty. */
static bool is_wanted(const struct json *body, str key)
{
    bool is_on = true;
    const struct json *value = json_get(body, key);
    if (json_type(value) == JSON_ABSENT || json_type(value) == JSON_NULL)
        return false;
    return !json_to_bool(value, &is_on) || is_on;
}

static bool check_served(const struct json *body, const struct dialect_request *request,
                         struct error *e)
{
    if (is_wanted(body, S("background")))
        return error_set(e, REASON_UNSUPPORTED,
                         "background is not served here: answers are given while you wait; leave "
                         "it out or stream");
    if (is_wanted(body, S("conversation")))
        return error_set(e, REASON_UNSUPPORTED,
                         "conversation is not served here: continue by previous_response_id");
    if (request->previous_id.len > RESPONSES_ID_BYTES_MAX)
        return error_set(e, REASON_PREVIOUS_RESPONSE, "Previous response with that id not found.");
    return true;
}

static bool load_history(struct responses_call *r, struct context *parent, struct error *e)
{
    struct context ctx;
    struct error failure = {0};
    r->sending = arena_create(SENDING_BYTES);
    context_init_child(&ctx, parent, DEADLINE_NONE);
    ctx.arena = r->sending;
    bool ok = responses_load_chain(&r->owner, &ctx, r->previous_id, &r->chain, &failure);
    context_deinit(&ctx);
    if (ok && r->chain.is_cut)
        error_set(&failure, REASON_PREVIOUS_RESPONSE,
                  "Previous response with id '" STR_FMT
                  "' builds on one that was deleted or has expired.",
                  STR_ARG(str_cut_utf8(r->previous_id, 120)));
    else if (!ok && failure.code == ERROR_NOT_FOUND)
        error_set(&failure, REASON_PREVIOUS_RESPONSE,
                  "Previous response with id '" STR_FMT "' not found.",
                  STR_ARG(str_cut_utf8(r->previous_id, 120)));
    if (failure.code != ERROR_OK)
        return error_copy(e, &failure);
    r->chain_provider = str_copy(r->kept, r->chain.links[0].provider);
    r->session_id = r->chain.links[0].session_id;
    return true;
}

/* The caller's request with the history in front of its input. */
static bool write_expanded(const struct responses_call *r, bool with_reasoning, str *out)
{
    struct strbuf text;
    struct json_writer w;
    str key;
    const struct json *member;
    strbuf_init(&text, r->sending, 2 * (size_t) RESPONSES_CHAIN_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    struct json_iter it = json_iter(r->body);
    while (json_next(&it, &key, &member))
        if (!str_equal(key, S("input")) && !str_equal(key, S("previous_response_id")))
            json_put_value(&w, key, member);
    json_key(&w, S("input"));
    responses_write_history(&w, &r->chain, json_get(r->body, S("input")), with_reasoning);
    json_object_end(&w);
    *out = strbuf_str(&text);
    return !strbuf_is_over(&text);
}

static bool expand(struct responses_call *r, struct dialect_request *request, struct error *e)
{
    str text;
    struct dialect_request whole;
    struct json_limits limits = {.bytes_max = 2 * (size_t) RESPONSES_CHAIN_BYTES_MAX,
                                 .allow_duplicates = true};
    if (!write_expanded(r, true, &text))
        return error_set(e, REASON_TOO_LARGE, "the conversation is over %u bytes",
                         RESPONSES_CHAIN_BYTES_MAX);
    if (!json_parse(r->sending, text, limits, &r->tree, e) ||
        !openai_responses_dialect.read(r->sending, r->tree, &whole, e))
        return false;
    request->input_tokens_bound = whole.input_tokens_bound;
    request->has_images = whole.has_images;
    return true;
}

/* Stored as it came: what a listing adds is made when it is asked for. */
static void keep_input(struct responses_call *r, const struct json *body)
{
    const struct json *input = json_get(body, S("input"));
    str text = json_type(input) == JSON_ABSENT ? S("[]") : json_print(r->kept, input);
    if (text.len <= RESPONSES_INPUT_BYTES_MAX)
        r->input = text;
}

bool responses_begin(struct api_call *call, const struct json *body,
                     struct dialect_request *request, struct responses_call **out, struct error *e)
{
    if (!check_served(body, request, e))
        return false;
    OWNED(responses_call) r = calloc(1, sizeof *r);
    ensure(r != NULL);
    r->kept = arena_create(KEPT_BYTES);
    r->owner = (struct responses_owner){.gateway = call->gateway,
                                        .tenant_id = call->principal.tenant_id,
                                        .user_id = str_copy(r->kept, call->principal.user_id)};
    r->model = str_copy(r->kept, request->model);
    r->previous_id = str_copy(r->kept, request->previous_id);
    r->may_store = request->may_store;
    r->body = r->tree = body;
    r->body_text = call->body;
    if (r->may_store)
        keep_input(r, body);
    if (r->may_store && str_is_empty(r->input))
        reply_header(call, S("Nexus-Degraded"), S("the input is too long to be stored"));
    if (!str_is_empty(r->previous_id) && (!load_history(r, call->ctx, e) || !expand(r, request, e)))
        return false;
    *out = GIVE(r);
    return true;
}

void responses_end(struct responses_call *r)
{
    if (!r)
        return;
    arena_destroy(r->sending);
    arena_destroy(r->kept);
    free(r);
}

str responses_provider(const struct responses_call *r)
{
    return r->chain_provider;
}

uuid responses_session(const struct responses_call *r)
{
    return r->session_id;
}

/* The approval's id is the item's, so that a person finds it under /api/v1/approvals. */
bool responses_approval(struct api_call *call, uuid approval_id, str *opaque, struct error *e)
{
    struct strbuf text;
    struct json_writer w;
    const struct json *subject;
    struct arena *arena = call->ctx->arena;
    struct record *row = ARENA_NEW(arena, struct record);
    if (!approval_get(call->gateway->orchestrator, call->ctx, &call->principal, approval_id, row,
                      e) ||
        !json_parse(arena, record_text(row, APPROVALS_SUBJECT), (struct json_limits){0}, &subject,
                    e))
        return false;
    const struct json *arguments = json_get(subject, S("arguments"));
    strbuf_init(&text, arena, JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("id"),
                 str_printf(arena, "mcpr_" STR_FMT, STR_ARG(uuid_str(arena, approval_id))));
    json_put_str(&w, S("type"), S("mcp_approval_request"));
    json_put_str(&w, S("server_label"), S("nexus"));
    json_put_str(&w, S("name"), json_str_or(subject, S("tool"), S("unknown")));
    json_put_str(&w, S("arguments"), arguments ? json_print(arena, arguments) : S("{}"));
    json_object_end(&w);
    *opaque = responses_item_opaque(arena, strbuf_str(&text));
    return !strbuf_is_over(&text) || error_set(e, REASON_TOO_LARGE, "the approval is too large");
}

const struct json *responses_tree(const struct responses_call *r)
{
    return r->tree;
}

str responses_forward_body(const struct responses_call *r, str provider)
{
    str text;
    bool is_there = !str_is_empty(r->chain_provider) && str_equal(provider, r->chain_provider);
    if (str_is_empty(r->previous_id) || is_there || !r->sending)
        return r->body_text;
    (void) write_expanded(r, false, &text); /* shorter than what was read from it before */
    return text;
}

void responses_park(struct responses_call *r)
{
    arena_destroy(r->sending);
    r->sending = NULL;
    r->chain = (struct responses_chain){0};
    r->body = r->tree = NULL;
    r->body_text = STR_NONE;
}

bool responses_is_kept(const struct responses_call *r)
{
    return r->may_store && r->input.len > 0;
}

void responses_set_provider(struct responses_call *r, str provider)
{
    r->provider = str_copy(r->kept, provider);
}

void responses_set_session(struct responses_call *r, uuid session_id)
{
    r->session_id = session_id;
}

/* ---- after ---- */

/* The data of the last event of a text of events. */
static str last_data(str events)
{
    str line, data = STR_NONE, rest;
    while (str_next(&events, '\n', &line))
        if (str_strip_prefix(line, S("data:"), &rest) && str_starts_with(str_trim(rest), S("{")))
            data = str_trim(rest);
    return data;
}

/* False: there is nothing to store. */
static bool find_document(struct arena *arena, str answer, str *text, str *id)
{
    struct error ignored = {0};
    const struct json *tree, *response;
    struct json_limits limits = {.bytes_max = RESPONSES_DOCUMENT_BYTES_MAX,
                                 .allow_duplicates = true};
    answer = str_trim(answer);
    if (!str_starts_with(answer, S("{")))
        answer = last_data(answer);
    if (!json_parse(arena, answer, limits, &tree, &ignored))
        return false;
    response = json_get(tree, S("response"));
    bool is_event = json_type(response) == JSON_OBJECT;
    if (!is_event)
        response = tree;
    str status = json_str_or(response, S("status"), S("completed"));
    *id = json_str_or(response, S("id"), STR_NONE);
    if (str_is_empty(*id) || id->len > RESPONSES_ID_BYTES_MAX ||
        json_type(json_get(response, S("output"))) != JSON_ARRAY ||
        (!str_equal(status, S("completed")) && !str_equal(status, S("incomplete"))))
        return false;
    *text = is_event ? json_print(arena, response) : answer;
    return true;
}

static void fill_row(const struct responses_call *r, struct record *row, str id, str text)
{
    int64_t now_us = clock_unix_us(r->owner.gateway->clock);
    int64_t expiry_ms = r->owner.gateway->options.responses_expiry_ms;
    record_set_text(row, RESPONSES_ID, id);
    record_set_text(row, RESPONSES_USER_ID, r->owner.user_id);
    if (!str_is_empty(r->previous_id))
        record_set_text(row, RESPONSES_PREVIOUS_ID, r->previous_id);
    record_set_text(row, RESPONSES_MODEL, r->model);
    if (!str_is_empty(r->provider))
        record_set_text(row, RESPONSES_PROVIDER, r->provider);
    if (!uuid_is_none(r->session_id))
        record_set_uuid(row, RESPONSES_SESSION_ID, r->session_id);
    record_set_integer(row, RESPONSES_CREATED_AT, now_us);
    record_set_integer(row, RESPONSES_EXPIRES_AT,
                       now_us + (expiry_ms > 0 ? expiry_ms : RESPONSES_EXPIRY_MS) * 1000);
    record_set_text(row, RESPONSES_INPUT, r->input);
    record_set_text(row, RESPONSES_RESPONSE, text);
}

/* Expired answers go a few at a time, on the way of those who store new ones. */
static void purge(const struct responses_call *r, struct context *ctx)
{
    struct gateway *gateway = r->owner.gateway;
    struct records rows;
    struct batch batch;
    struct error e = {0};
    if (atomic_fetch_add_explicit(&gateway->responses_kept, 1, memory_order_relaxed) %
            RESPONSES_PURGE_EVERY !=
        RESPONSES_PURGE_EVERY - 1)
        return;
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_RESPONSES);
    query_where_integer(query, RESPONSES_EXPIRES_AT, FILTER_LESS, clock_unix_us(gateway->clock));
    query->limit = RESPONSES_PURGE_ROWS;
    if (!store_list(gateway->store, ctx, r->owner.tenant_id, query, &rows, &e) || rows.count == 0)
        return;
    batch_init(&batch, ctx->arena, r->owner.tenant_id);
    for (size_t i = 0; i < rows.count; i++)
        record_set_text(batch_add(&batch, WRITE_DELETE, TABLE_RESPONSES), RESPONSES_ID,
                        record_text(&rows.items[i], RESPONSES_ID));
    (void) !store_submit(gateway->store, &batch, &e); /* what stays is seen again */
}

bool responses_keep(struct responses_call *r, struct context *ctx, str answer, struct error *e)
{
    str text, id;
    struct context shield; /* a client that leaves does not undo what it was given */
    struct batch batch;
    struct error failure = {0};
    if (!responses_is_kept(r))
        return true;
    OWNED(arena) work = arena_create(8 * (size_t) RESPONSES_DOCUMENT_BYTES_MAX);
    if (answer.len > RESPONSES_DOCUMENT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "an answer over %u bytes is not stored",
                         RESPONSES_DOCUMENT_BYTES_MAX);
    if (!find_document(work, answer, &text, &id))
        return true;
    batch_init(&batch, work, r->owner.tenant_id);
    fill_row(r, batch_add(&batch, WRITE_INSERT, TABLE_RESPONSES), id, text);
    context_init(&shield, ctx->scheduler, work,
                 context_now_ns(ctx) + RESPONSES_KEEP_MS * INT64_C(1000000));
    shield.tenant_id = ctx->tenant_id;
    shield.trace = ctx->trace;
    bool ok = store_commit(r->owner.gateway->store, &shield, &batch, &failure);
    if (ok)
        purge(r, &shield);
    else
        LOG_ERROR("gateway.responses", S("an answer could not be stored"), &failure);
    context_deinit(&shield);
    return ok || error_copy(e, &failure);
}
