/* Endpoints that are told, and what is on its way to them. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/webhook/webhook_internal.h"

/* ---- events ---- */

static const char *const event_names[WEBHOOK_EVENT_COUNT] = {
    [WEBHOOK_RUN_COMPLETED] = "run.completed",
    [WEBHOOK_RUN_FAILED] = "run.failed",
    [WEBHOOK_RUN_CANCELLED] = "run.cancelled",
    [WEBHOOK_APPROVAL_REQUESTED] = "approval.requested",
    [WEBHOOK_APPROVAL_REMINDED] = "approval.reminded",
    [WEBHOOK_BUDGET_ALERTED] = "budget.alerted",
    [WEBHOOK_TESTED] = "webhook.test",
};

const char *webhook_event_name(enum webhook_event event)
{
    return event_names[event];
}

static bool event_bits(str name, uint32_t *bits)
{
    if (str_equal(name, S("*"))) {
        *bits |= (1u << WEBHOOK_TESTED) - 1;
        return true;
    }
    for (int i = 0; i < WEBHOOK_TESTED; i++) {
        if (!str_equal(name, str_from_cstr(event_names[i])))
            continue;
        *bits |= 1u << i;
        return true;
    }
    return false;
}

uint32_t webhook_events_read(struct arena *arena, str text)
{
    const struct json *list, *item;
    struct error ignored = {0};
    uint32_t bits = 0;
    if (!json_parse(arena, text, (struct json_limits){0}, &list, &ignored))
        return 0;
    struct json_iter it = json_iter(list);
    str name;
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &name))
            (void) event_bits(name, &bits); /* one that is not known any more */
    return bits;
}

static bool check_events(struct arena *arena, const struct json *list, str *out, struct error *e)
{
    const struct json *item;
    uint32_t bits = 0;
    str name;
    *out = S("[\"*\"]");
    if (json_type(list) == JSON_ABSENT || json_type(list) == JSON_NULL)
        return true;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item))
        if (!json_to_str(item, &name) || !event_bits(name, &bits))
            return error_set(e, REASON_SCHEMA,
                             "events: run.completed, run.failed, run.cancelled, "
                             "approval.requested, approval.reminded, budget.alerted or *");
    if (json_type(list) != JSON_ARRAY || bits == 0)
        return error_set(e, REASON_SCHEMA, "events must be a list with at least one name");
    *out = json_print(arena, list);
    return true;
}

static bool check_include(struct arena *arena, const struct json *list, str *out, struct error *e)
{
    const struct json *item;
    str name;
    *out = STR_NONE;
    if (json_type(list) == JSON_ABSENT || json_type(list) == JSON_NULL)
        return true;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item))
        if (!json_to_str(item, &name) || !str_equal(name, S("answer")))
            return error_set(e, REASON_SCHEMA, "include: what can be asked for is \"answer\"");
    if (json_type(list) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "include must be a list");
    *out = json_print(arena, list);
    return true;
}

/* ---- rows ---- */

static bool find(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name,
                 struct record *out, struct error *e)
{
    struct record key = record_of(TABLE_WEBHOOK_ENDPOINTS);
    record_set_text(&key, WEBHOOK_ENDPOINTS_NAME, name);
    if (name.len > 0 && store_get(o->parts.store, ctx, tenant_id, &key, out, e))
        return true;
    if (name.len > 0 && e->code != ERROR_NOT_FOUND)
        return false;
    return error_set(e, REASON_NOT_FOUND, "there is no endpoint \"" STR_FMT "\"",
                     STR_ARG(str_cut_utf8(name, WEBHOOK_NAME_BYTES_MAX)));
}

static bool may(struct orchestrator *o, const struct principal *principal, struct error *e)
{
    if (!webhooks_there(o, e))
        return false;
    return principal->level >= ROLE_LEVEL_OPERATOR ||
           error_set(e, REASON_DENIED,
                     "endpoints hear of everybody's runs: they need the role operator");
}

bool webhook_endpoint_get(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, str name, struct record *out,
                          struct error *e)
{
    return may(o, principal, e) && find(o, ctx, principal->tenant_id, name, out, e);
}

bool webhook_endpoint_list(struct orchestrator *o, struct context *ctx,
                           const struct principal *principal, str cursor, size_t limit,
                           struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOK_ENDPOINTS);
    query.cursor = cursor;
    query.limit = limit;
    return may(o, principal, e) &&
           store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

static bool count_is_free(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                          struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOK_ENDPOINTS);
    struct records page;
    query.limit = WEBHOOK_ENDPOINTS_MAX;
    if (!store_list(o->parts.store, ctx, tenant_id, &query, &page, e))
        return false;
    return page.count < WEBHOOK_ENDPOINTS_MAX ||
           error_set(e, REASON_LIMIT, "at most %u endpoints may be kept", WEBHOOK_ENDPOINTS_MAX);
}

struct endpoint_row {
    const struct webhook_endpoint_request *request;
    str events, include, secret;
};

static bool insert(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   const struct endpoint_row *made, struct error *e)
{
    struct batch batch;
    str name = made->request->name;
    str place = webhook_place(ctx->arena, "endpoint", principal->tenant_id, name);
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_WEBHOOK_ENDPOINTS);
    record_set_text(row, WEBHOOK_ENDPOINTS_NAME, name);
    record_set_text(row, WEBHOOK_ENDPOINTS_URL, made->request->url);
    record_set_text(row, WEBHOOK_ENDPOINTS_EVENTS, made->events);
    if (!str_is_empty(made->include))
        record_set_text(row, WEBHOOK_ENDPOINTS_INCLUDE, made->include);
    record_set_text(row, WEBHOOK_ENDPOINTS_SECRET,
                    webhook_seal(o->webhooks, ctx->arena, place, made->secret));
    record_set_integer(row, WEBHOOK_ENDPOINTS_IS_PAUSED, 0);
    record_set_text(row, WEBHOOK_ENDPOINTS_USER_ID, principal->user_id);
    record_set_integer(row, WEBHOOK_ENDPOINTS_CREATED_AT, clock_unix_us(o->parts.clock));
    webhook_audit(o, &batch, principal, "webhook_endpoint.create", "webhook_endpoint", name,
                  STR_NONE);
    if (webhook_commit(o, ctx, &batch, e))
        return true;
    return e->reason != REASON_CONFLICT
               ? false
               : error_set(e, REASON_CONFLICT, "the name \"" STR_FMT "\" is taken", STR_ARG(name));
}

bool webhook_endpoint_create(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal,
                             const struct webhook_endpoint_request *request, struct record *out,
                             str *secret, struct error *e)
{
    struct endpoint_row made = {.request = request};
    if (!may(o, principal, e) || !webhook_check_name("an endpoint", request->name, e))
        return false;
    if (request->url.len > WEBHOOK_URL_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "a url has at most %u bytes", WEBHOOK_URL_BYTES_MAX);
    if (!o->webhooks->options.check_url(o->webhooks->options.owner, request->url, e) ||
        !check_events(ctx->arena, request->events, &made.events, e) ||
        !check_include(ctx->arena, request->include, &made.include, e) ||
        !webhook_secret_choose(ctx->arena, WEBHOOK_STANDARD, request->secret, &made.secret, e) ||
        !count_is_free(o, ctx, principal->tenant_id, e) || !insert(o, ctx, principal, &made, e))
        return false;
    if (!find(o, ctx, principal->tenant_id, request->name, out, e)) {
        webhooks_doubt(o->webhooks);
        return false;
    }
    webhook_target_set(o->webhooks, principal->tenant_id, out);
    *secret = made.secret;
    return true;
}

static bool change(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                   struct batch *batch, str name, struct record *out, struct error *e)
{
    if (!webhook_commit(o, ctx, batch, e))
        return false;
    if (!find(o, ctx, principal->tenant_id, name, out, e)) {
        webhooks_doubt(o->webhooks);
        return false;
    }
    webhook_target_set(o->webhooks, principal->tenant_id, out);
    return true;
}

bool webhook_endpoint_pause(struct orchestrator *o, struct context *ctx,
                            const struct principal *principal, str name, bool is_paused,
                            struct record *out, struct error *e)
{
    struct batch batch;
    if (!webhook_endpoint_get(o, ctx, principal, name, out, e))
        return false;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_WEBHOOK_ENDPOINTS);
    record_set_text(row, WEBHOOK_ENDPOINTS_NAME, name);
    record_set_integer(row, WEBHOOK_ENDPOINTS_IS_PAUSED, is_paused);
    if (is_paused)
        record_set_text(row, WEBHOOK_ENDPOINTS_PAUSED_WHY, S("asked"));
    else
        record_set_null(row, WEBHOOK_ENDPOINTS_PAUSED_WHY);
    webhook_audit(o, &batch, principal,
                  is_paused ? "webhook_endpoint.pause" : "webhook_endpoint.resume",
                  "webhook_endpoint", name, STR_NONE);
    return change(o, ctx, principal, &batch, name, out, e);
}

bool webhook_endpoint_rotate(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, str name,
                             const struct webhook_rotation *rotation, struct record *out,
                             str *secret, struct error *e)
{
    struct record old;
    struct batch batch;
    int64_t until_us, now_us = clock_unix_us(o->parts.clock);
    if (!webhook_endpoint_get(o, ctx, principal, name, &old, e) ||
        !webhook_secret_choose(ctx->arena, WEBHOOK_STANDARD, rotation->secret, secret, e) ||
        !webhook_overlap(rotation, now_us, &until_us, e))
        return false;
    str place = webhook_place(ctx->arena, "endpoint", principal->tenant_id, name);
    batch_init(&batch, ctx->arena, principal->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_WEBHOOK_ENDPOINTS);
    record_set_text(row, WEBHOOK_ENDPOINTS_NAME, name);
    record_set_text(row, WEBHOOK_ENDPOINTS_SECRET,
                    webhook_seal(o->webhooks, ctx->arena, place, *secret));
    record_set_text(row, WEBHOOK_ENDPOINTS_PREVIOUS_SECRET,
                    record_text(&old, WEBHOOK_ENDPOINTS_SECRET));
    record_set_integer(row, WEBHOOK_ENDPOINTS_PREVIOUS_UNTIL, until_us);
    batch_where_text(&batch, WEBHOOK_ENDPOINTS_SECRET, record_text(&old, WEBHOOK_ENDPOINTS_SECRET));
    webhook_audit(o, &batch, principal, "webhook_endpoint.rotate", "webhook_endpoint", name,
                  STR_NONE);
    return change(o, ctx, principal, &batch, name, out, e);
}

/* ---- deliveries ---- */

void webhook_delivery_row(struct record *row, uuid id, str endpoint, str event, str body,
                          int64_t now_us)
{
    record_set_uuid(row, WEBHOOK_DELIVERIES_ID, id);
    record_set_text(row, WEBHOOK_DELIVERIES_ENDPOINT, endpoint);
    record_set_text(row, WEBHOOK_DELIVERIES_EVENT, event);
    record_set_text(row, WEBHOOK_DELIVERIES_BODY, body);
    record_set_text(row, WEBHOOK_DELIVERIES_STATUS, S("pending"));
    record_set_integer(row, WEBHOOK_DELIVERIES_ATTEMPTS, 0);
    record_set_integer(row, WEBHOOK_DELIVERIES_NEXT_AT, now_us);
    record_set_integer(row, WEBHOOK_DELIVERIES_CREATED_AT, now_us);
}

str webhook_body(struct arena *arena, const struct webhook_emission *emission)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, WEBHOOK_EVENT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("type"), str_from_cstr(webhook_event_name(emission->event)));
    json_put_str(&w, S("timestamp"), time_str(arena, emission->at_us));
    json_put_raw(&w, S("data"), emission->data);
    json_object_end(&w);
    return strbuf_str(&text);
}

bool webhook_endpoint_test(struct orchestrator *o, struct context *ctx,
                           const struct principal *principal, str name, uuid *delivery_id,
                           struct error *e)
{
    struct record endpoint;
    struct batch batch;
    if (!webhook_endpoint_get(o, ctx, principal, name, &endpoint, e))
        return false;
    struct webhook_emission emission = {
        .event = WEBHOOK_TESTED,
        .at_us = clock_unix_us(o->parts.clock),
        .data = str_printf(ctx->arena, "{\"endpoint\":\"" STR_FMT "\"}", STR_ARG(name)),
    };
    *delivery_id = uuid_new(o->parts.clock, o->parts.random);
    batch_init(&batch, ctx->arena, principal->tenant_id);
    webhook_delivery_row(batch_add(&batch, WRITE_INSERT, TABLE_WEBHOOK_DELIVERIES), *delivery_id,
                         name, S("webhook.test"), webhook_body(ctx->arena, &emission),
                         emission.at_us);
    if (!webhook_commit(o, ctx, &batch, e))
        return false;
    webhook_target_done(o->webhooks, principal->tenant_id, name, -1);
    webhook_target_wake(o->webhooks, principal->tenant_id, name);
    return true;
}

bool webhook_delivery_list(struct orchestrator *o, struct context *ctx,
                           const struct principal *principal,
                           const struct webhook_delivery_filter *filter, str cursor, size_t limit,
                           struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    query.is_descending = true;
    query.cursor = cursor;
    query.limit = limit;
    if (!str_is_empty(filter->endpoint))
        query_where_text(&query, WEBHOOK_DELIVERIES_ENDPOINT, filter->endpoint);
    if (!str_is_empty(filter->status))
        query_where_text(&query, WEBHOOK_DELIVERIES_STATUS, filter->status);
    return may(o, principal, e) &&
           store_list(o->parts.store, ctx, principal->tenant_id, &query, out, e);
}

bool webhook_delivery_get(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, uuid id, struct record *out,
                          struct error *e)
{
    struct record key = record_of(TABLE_WEBHOOK_DELIVERIES);
    record_set_uuid(&key, WEBHOOK_DELIVERIES_ID, id);
    if (!may(o, principal, e))
        return false;
    if (store_get(o->parts.store, ctx, principal->tenant_id, &key, out, e))
        return true;
    return e->code != ERROR_NOT_FOUND
               ? false
               : error_set(e, REASON_NOT_FOUND, "there is no delivery with this id");
}

/* From the first attempt on; only while it is what was read. */
static void write_again(struct batch *batch, const struct record *old, int64_t now_us)
{
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_WEBHOOK_DELIVERIES);
    record_set_uuid(row, WEBHOOK_DELIVERIES_ID, record_uuid(old, WEBHOOK_DELIVERIES_ID));
    record_set_text(row, WEBHOOK_DELIVERIES_STATUS, S("pending"));
    record_set_integer(row, WEBHOOK_DELIVERIES_ATTEMPTS, 0);
    record_set_integer(row, WEBHOOK_DELIVERIES_NEXT_AT, now_us);
    record_set_null(row, WEBHOOK_DELIVERIES_DONE_AT);
    if (record_has(old, WEBHOOK_DELIVERIES_NEXT_AT))
        batch_where_integer(batch, WEBHOOK_DELIVERIES_NEXT_AT,
                            record_integer(old, WEBHOOK_DELIVERIES_NEXT_AT));
    else
        batch_where_null(batch, WEBHOOK_DELIVERIES_NEXT_AT);
}

bool webhook_delivery_retry(struct orchestrator *o, struct context *ctx,
                            const struct principal *principal, uuid id, struct record *out,
                            struct error *e)
{
    struct record old;
    struct batch batch;
    int64_t now_us = clock_unix_us(o->parts.clock);
    if (!webhook_delivery_get(o, ctx, principal, id, &old, e))
        return false;
    str endpoint = record_text(&old, WEBHOOK_DELIVERIES_ENDPOINT);
    bool was_over = !record_has(&old, WEBHOOK_DELIVERIES_NEXT_AT);
    if (str_equal(record_text(&old, WEBHOOK_DELIVERIES_STATUS), S("dropped")))
        return error_set(e, REASON_CONFLICT, "this says that events were dropped: it holds none");
    if (!find(o, ctx, principal->tenant_id, endpoint, out, e))
        return false;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    write_again(&batch, &old, now_us);
    webhook_audit(o, &batch, principal, "webhook_delivery.retry", "webhook_delivery",
                  uuid_str(ctx->arena, id), STR_NONE);
    if (!webhook_commit(o, ctx, &batch, e))
        return false;
    if (was_over)
        webhook_target_done(o->webhooks, principal->tenant_id, endpoint, -1);
    webhook_target_wake(o->webhooks, principal->tenant_id, endpoint);
    return webhook_delivery_get(o, ctx, principal, id, out, e);
}

/* A page of an endpoint's dead ones in one commit; false when the store failed. */
static bool redeliver_page(struct orchestrator *o, struct context *ctx,
                           const struct principal *principal, str endpoint, int64_t *count,
                           bool *is_more, struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    struct records page;
    struct batch batch;
    query_where_text(&query, WEBHOOK_DELIVERIES_ENDPOINT, endpoint);
    query_where_text(&query, WEBHOOK_DELIVERIES_STATUS, S("dead"));
    if (!store_list(o->parts.store, ctx, principal->tenant_id, &query, &page, e))
        return false;
    *is_more = !str_is_empty(page.next_cursor);
    if (page.count == 0)
        return true;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    for (size_t i = 0; i < page.count; i++)
        write_again(&batch, &page.items[i], clock_unix_us(o->parts.clock));
    webhook_audit(o, &batch, principal, "webhook_endpoint.redeliver", "webhook_endpoint", endpoint,
                  str_printf(ctx->arena, "{\"count\":%zu}", page.count));
    if (!webhook_commit(o, ctx, &batch, e))
        return false;
    webhook_target_done(o->webhooks, principal->tenant_id, endpoint, -(int32_t) page.count);
    *count += (int64_t) page.count;
    return true;
}

bool webhook_redeliver(struct orchestrator *o, struct context *ctx,
                       const struct principal *principal, str endpoint, int64_t *count,
                       bool *is_more, struct error *e)
{
    struct record row;
    *count = 0;
    *is_more = true;
    if (!webhook_endpoint_get(o, ctx, principal, endpoint, &row, e))
        return false;
    while (*is_more && *count < WEBHOOK_REDELIVER_MAX)
        if (!redeliver_page(o, ctx, principal, endpoint, count, is_more, e))
            return false;
    webhook_target_wake(o->webhooks, principal->tenant_id, endpoint);
    return true;
}

/* ---- removing ---- */

static bool bury_page(struct orchestrator *o, struct context *ctx,
                      const struct principal *principal, str name, bool *is_more, struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    struct records page;
    struct batch batch;
    query_where_text(&query, WEBHOOK_DELIVERIES_ENDPOINT, name);
    query_where_null(&query, WEBHOOK_DELIVERIES_NEXT_AT, false);
    if (!store_list(o->parts.store, ctx, principal->tenant_id, &query, &page, e))
        return false;
    *is_more = !str_is_empty(page.next_cursor);
    batch_init(&batch, ctx->arena, principal->tenant_id);
    for (size_t i = 0; i < page.count; i++) {
        struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_WEBHOOK_DELIVERIES);
        record_set_uuid(row, WEBHOOK_DELIVERIES_ID,
                        record_uuid(&page.items[i], WEBHOOK_DELIVERIES_ID));
        record_set_text(row, WEBHOOK_DELIVERIES_STATUS, S("dead"));
        record_set_null(row, WEBHOOK_DELIVERIES_NEXT_AT);
        record_set_integer(row, WEBHOOK_DELIVERIES_DONE_AT, clock_unix_us(o->parts.clock));
        record_set_text(row, WEBHOOK_DELIVERIES_LAST_ERROR, S("the endpoint was removed"));
    }
    return page.count == 0 || webhook_commit(o, ctx, &batch, e);
}

bool webhook_endpoint_remove(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, str name, struct error *e)
{
    struct record row;
    struct batch batch;
    bool is_more = true;
    if (!webhook_endpoint_get(o, ctx, principal, name, &row, e))
        return false;
    batch_init(&batch, ctx->arena, principal->tenant_id);
    record_set_text(batch_add(&batch, WRITE_DELETE, TABLE_WEBHOOK_ENDPOINTS),
                    WEBHOOK_ENDPOINTS_NAME, name);
    webhook_audit(o, &batch, principal, "webhook_endpoint.remove", "webhook_endpoint", name,
                  STR_NONE);
    if (!webhook_commit(o, ctx, &batch, e))
        return false;
    webhook_target_forget(o->webhooks, principal->tenant_id, name);
    while (is_more)
        if (!bury_page(o, ctx, principal, name, &is_more, e))
            return false;
    return true;
}
