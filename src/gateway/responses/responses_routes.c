/* Stored answers by id: look, list their input, delete; and cancel, which only answers in the background know. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"
#include "gateway/responses/responses_internal.h"
#include "net/http_client.h"

static struct responses_owner owner_of(const struct api_call *call)
{
    return (struct responses_owner){.gateway = call->gateway,
                                    .tenant_id = call->principal.tenant_id,
                                    .user_id = call->principal.user_id};
}

/* This API says "not found" in its own words. */
static bool refuse(struct api_call *call, const struct error *failure, struct error *e)
{
    struct reply_writer writer;
    if (failure->reason != REASON_NOT_FOUND)
        return error_copy(e, failure);
    openai_responses_dialect.write_error(reply_writer_init(&writer, call), failure,
                                         call->request_id);
    return reply_writer_send(&writer, call, 404, e);
}

static bool load(struct api_call *call, struct responses_link *link, struct error *failure)
{
    str id;
    struct responses_owner owner = owner_of(call);
    return param_text(call, 0, &id, failure) &&
           responses_load(&owner, call->ctx, id, link, failure);
}

/* ---- look ---- */

bool route_response_get(struct api_call *call, struct error *e)
{
    struct error failure = {0};
    struct responses_link *link = ARENA_NEW(call->ctx->arena, struct responses_link);
    if (str_equal(query_text(call, S("stream")), S("true")))
        return error_set(e, REASON_UNSUPPORTED,
                         "only answers in the background can be streamed again: leave out stream");
    if (!load(call, link, &failure))
        return refuse(call, &failure, e);
    reply_json(call, 200, link->response_text);
    return true;
}

/* ---- input items ---- */

static size_t find_after(const struct responses_items *items, str after)
{
    for (size_t i = 0; i < items->count; i++)
        if (str_equal(items->ids[i], after))
            return i;
    return items->count;
}

/* Positions count from the end of the list that is asked for first. */
static void write_page(struct json_writer *w, const struct responses_items *items,
                       bool is_descending, size_t from, size_t to)
{
    str first = S("\"\""), last = S("\"\"");
    json_object_begin(w);
    json_put_str(w, S("object"), S("list"));
    json_key(w, S("data"));
    json_array_begin(w);
    for (size_t i = from; i < to; i++)
        json_write_raw(w, items->texts[is_descending ? items->count - 1 - i : i]);
    json_array_end(w);
    json_put_bool(w, S("has_more"), to < items->count);
    if (from == to) {
        json_put_raw(w, S("first_id"), first);
        json_put_raw(w, S("last_id"), last);
    } else {
        json_put_str(w, S("first_id"), items->ids[is_descending ? items->count - 1 - from : from]);
        json_put_str(w, S("last_id"), items->ids[is_descending ? items->count - to : to - 1]);
    }
    json_object_end(w);
}

static bool reply_items(struct api_call *call, const struct responses_items *items, struct error *e)
{
    struct reply_writer writer;
    str order = query_text(call, S("order")), after = query_text(call, S("after"));
    int64_t limit = RESPONSES_ITEMS_PAGE_DEFAULT;
    bool is_descending = !str_equal(order, S("asc"));
    size_t from = 0;
    if (!str_is_empty(order) && is_descending && !str_equal(order, S("desc")))
        return error_set(e, REASON_INVALID, "?order= must be asc or desc");
    if (!query_i64(call, S("limit"), 1, RESPONSES_ITEMS_PAGE_MAX, &limit, e))
        return false;
    if (!str_is_empty(after)) {
        size_t place = find_after(items, after);
        if (place == items->count)
            return error_set(e, REASON_INVALID, "?after= is not the id of an input item");
        from = (is_descending ? items->count - 1 - place : place) + 1;
    }
    size_t left = items->count - from;
    size_t to = from + ((size_t) limit < left ? (size_t) limit : left);
    write_page(reply_writer_init(&writer, call), items, is_descending, from, to);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_response_input_items(struct api_call *call, struct error *e)
{
    str id;
    struct context ctx;
    struct error failure = {0};
    struct responses_chain chain;
    struct responses_items items;
    struct responses_owner owner = owner_of(call);
    OWNED(arena) work = arena_create(4 * (size_t) GATEWAY_REPLY_BYTES_MAX);
    if (!param_text(call, 0, &id, e))
        return false;
    context_init_child(&ctx, call->ctx, DEADLINE_NONE);
    ctx.arena = work;
    bool ok = responses_load_chain(&owner, &ctx, id, &chain, &failure);
    context_deinit(&ctx);
    if (!ok)
        return refuse(call, &failure, e);
    return responses_list_items(work, &chain, &items, e) && reply_items(call, &items, e);
}

/* ---- delete ---- */

static bool is_plain_id(str id)
{
    for (size_t i = 0; i < id.len; i++) {
        char c = id.ptr[i];
        bool is_letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!is_letter && !(c >= '0' && c <= '9') && c != '_' && c != '-')
            return false;
    }
    return id.len > 0;
}

static struct provider *find_provider(const struct settings *settings, str name)
{
    for (size_t i = 0; i < catalog_count(settings->catalog); i++) {
        const struct model *model = catalog_at(settings->catalog, i);
        for (size_t k = 0; k < model->target_count; k++) {
            struct provider *provider = model->targets[k].provider;
            if (str_equal(provider->name, name) &&
                provider_speaks(provider, DIALECT_OPENAI_RESPONSES))
                return provider;
        }
    }
    return NULL;
}

static may_suspend bool delete_there(struct api_call *call, struct provider *provider, str id,
                                     struct error *e)
{
    struct context ctx;
    OWNED(http_exchange) exchange = NULL;
    struct provider_call how = {.key = PROVIDER_KEY_ANY, .is_delete = true};
    context_init_child(&ctx, call->ctx, context_deadline_in(call->ctx, RESPONSES_FORWARD_MS));
    bool ok = provider_forward(provider, &ctx, &how,
                               str_printf(call->ctx->arena, "/responses/" STR_FMT, STR_ARG(id)),
                               STR_NONE, &exchange, e);
    int status = ok ? http_exchange_status(exchange) : 0;
    if (ok && status >= 300 && status != 404)
        ok = error_set(e, REASON_PROVIDER_PROTOCOL, "status %d", status);
    context_deinit(&ctx);
    return ok;
}

/* The provider that made an answer keeps it too. */
static may_suspend_void void forward_delete(struct api_call *call,
                                            const struct responses_link *link)
{
    struct error failure = {0};
    if (str_is_empty(link->provider) || !is_plain_id(link->id))
        return;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    struct provider *provider = find_provider(settings, link->provider);
    bool ok = provider ? delete_there(call, provider, link->id, &failure)
                       : error_set(&failure, REASON_NOT_FOUND, "the provider is not configured");
    orchestrator_release(settings);
    if (ok)
        return;
    LOG_ERROR("gateway.responses", S("a provider's copy of an answer could not be deleted"),
              &failure);
    reply_header(call, S("Nexus-Degraded"), S("the provider's copy could not be deleted"));
}

bool route_response_delete(struct api_call *call, struct error *e)
{
    struct batch batch;
    struct error failure = {0};
    struct reply_writer writer;
    struct responses_link *link = ARENA_NEW(call->ctx->arena, struct responses_link);
    if (!load(call, link, &failure))
        return refuse(call, &failure, e);
    batch_init(&batch, call->ctx->arena, call->principal.tenant_id);
    record_set_text(batch_add(&batch, WRITE_DELETE, TABLE_RESPONSES), RESPONSES_ID, link->id);
    if (!store_commit(call->gateway->store, call->ctx, &batch, e))
        return false;
    forward_delete(call, link);
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_str(w, S("id"), link->id);
    json_put_str(w, S("object"), S("response"));
    json_put_bool(w, S("deleted"), true);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

/* ---- cancel ---- */

bool route_response_cancel(struct api_call *call, struct error *e)
{
    struct error failure = {0};
    struct responses_link *link = ARENA_NEW(call->ctx->arena, struct responses_link);
    if (!load(call, link, &failure))
        return refuse(call, &failure, e);
    return error_set(e, REASON_UNSUPPORTED,
                     "Only responses created with background=true can be cancelled; this one has "
                     "ended.");
}
