/* A round: what is due at one endpoint now is sent, a few at a time, and what became of each is stored. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/webhook/webhook_internal.h"
#include <stdlib.h>

struct round {
    struct orchestrator *o;
    struct webhooks *w;
    struct context *ctx;
    uuid tenant_id;
    str name;
    struct record *endpoint;
    bool includes_answer;
    str keys[2]; /* to sign with: the secret's, and the one before while it is good */
    size_t key_count;
    struct records due;
    size_t next;
    int32_t found;   /* how many wait, where it was seen that there are no more; -1: it was not */
    bool has_failed; /* the store did */
    struct error failure;
};

struct sending {
    struct round *round;
    struct context *ctx;
    const struct record *row;
    uuid id;
    int64_t due_us; /* next_at as it stands in the row */
    int64_t now_us; /* of the outcome */
    struct webhook_answer answer;
    struct error failure; /* why there is no answer */
};

/* ---- the body ---- */

/* The answer of the run that the event tells of; a row that is gone adds nothing. */
static bool find_answer(struct sending *s, const struct json *data, str *out, struct error *e)
{
    struct record *key = ARENA_NEW(s->ctx->arena, struct record),
                  *message = ARENA_NEW(s->ctx->arena, struct record);
    struct error missing = {0};
    uuid id;
    *out = STR_NONE;
    if (!uuid_parse(json_str_or(data, S("message_id"), STR_NONE), &id))
        return true;
    *key = record_of(TABLE_MESSAGES);
    record_set_uuid(key, MESSAGES_ID, id);
    if (!store_get(s->round->o->parts.store, s->ctx, s->round->tenant_id, key, message, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    *out = record_text(message, MESSAGES_CONTENT);
    return true;
}

static str with_answer(struct sending *s, const struct json *body, str answer)
{
    struct strbuf text;
    struct json_writer w;
    str name, cut = str_cut_utf8(answer, WEBHOOK_ANSWER_BYTES_MAX);
    const struct json *item;
    strbuf_init(&text, s->ctx->arena, WEBHOOK_EVENT_BYTES_MAX + 8 * WEBHOOK_ANSWER_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("type"), json_str_or(body, S("type"), STR_NONE));
    json_put_str(&w, S("timestamp"), json_str_or(body, S("timestamp"), STR_NONE));
    json_key(&w, S("data"));
    json_object_begin(&w);
    struct json_iter it = json_iter(json_get(body, S("data")));
    while (json_next(&it, &name, &item))
        json_put_value(&w, name, item);
    json_put_str(&w, S("answer"), cut);
    if (cut.len < answer.len)
        json_put_bool(&w, S("answer_is_cut"), true);
    json_object_end(&w);
    json_object_end(&w);
    return strbuf_str(&text);
}

static bool make_body(struct sending *s, str *out, struct error *e)
{
    const struct json *body;
    str answer;
    *out = record_text(s->row, WEBHOOK_DELIVERIES_BODY);
    if (!s->round->includes_answer ||
        !str_equal(record_text(s->row, WEBHOOK_DELIVERIES_EVENT), S("run.completed")))
        return true;
    if (!json_parse(s->ctx->arena, *out, (struct json_limits){0}, &body, e) ||
        !find_answer(s, json_get(body, S("data")), &answer, e))
        return false;
    if (answer.ptr)
        *out = with_answer(s, body, answer);
    return true;
}

/* ---- one request ---- */

static never_inline bool post(struct sending *s, str body, struct error *e)
{
    struct round *r = s->round;
    struct arena *arena = s->ctx->arena;
    struct webhook_signed request = {
        .id = uuid_str(arena, s->id),
        .timestamp = str_i64(arena, clock_unix_us(r->o->parts.clock) / 1000000),
        .body = body,
    };
    const struct webhook_header headers[] = {
        {S_INIT("Content-Type"), S_INIT("application/json")},
        {S_INIT("User-Agent"), S_INIT("nexus-webhook/1")},
        {S_INIT("webhook-id"), request.id},
        {S_INIT("webhook-timestamp"), request.timestamp},
        {S_INIT("webhook-signature"), webhook_sign(arena, &request, r->keys, r->key_count)},
    };
    struct webhook_send send = {.url = record_text(r->endpoint, WEBHOOK_ENDPOINTS_URL),
                                .body = body,
                                .headers = headers,
                                .header_count = ARRAY_COUNT(headers)};
    struct context limited;
    int64_t began_ns = context_now_ns(s->ctx);
    context_init_child(&limited, s->ctx, context_deadline_in(s->ctx, r->w->options.timeout_ms));
    bool ok = r->w->options.send(r->w->options.owner, &limited, &send, &s->answer, e);
    context_deinit(&limited);
    metrics_observe(r->w->metrics, METRIC_WEBHOOK_DURATION,
                    (double) (context_now_ns(s->ctx) - began_ns) / 1e9, NULL, 0);
    return ok;
}

/* ---- what became of it ---- */

static struct record *outcome_row(struct sending *s, struct batch *batch, const char *status)
{
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_WEBHOOK_DELIVERIES);
    record_set_uuid(row, WEBHOOK_DELIVERIES_ID, s->id);
    record_set_text(row, WEBHOOK_DELIVERIES_STATUS, str_from_cstr(status));
    record_set_integer(row, WEBHOOK_DELIVERIES_ATTEMPTS,
                       record_integer(s->row, WEBHOOK_DELIVERIES_ATTEMPTS) + 1);
    batch_where_integer(batch, WEBHOOK_DELIVERIES_NEXT_AT, s->due_us);
    return row;
}

static void set_over(struct sending *s, struct record *row)
{
    record_set_null(row, WEBHOOK_DELIVERIES_NEXT_AT);
    record_set_integer(row, WEBHOOK_DELIVERIES_DONE_AT, s->now_us);
}

static int64_t wait_ms(struct sending *s, int attempt)
{
    const struct webhook_options *options = &s->round->w->options;
    int64_t base_ms = options->retry_ms[attempt - 1], asked_ms = s->answer.retry_after_ms;
    /* A tenth to both sides: what failed together does not come back together. */
    int64_t spread_ms =
        (int64_t) random_below(s->round->o->parts.random, (uint64_t) base_ms / 5 + 1);
    int64_t wait = base_ms - base_ms / 10 + spread_ms;
    if (asked_ms > WEBHOOK_RETRY_AFTER_MS_MAX)
        asked_ms = WEBHOOK_RETRY_AFTER_MS_MAX;
    return wait > asked_ms ? wait : asked_ms;
}

static const struct principal platform = {.user_id = S_INIT("nexus"), .caller_id = S_INIT("nexus")};

static void write_dead(struct sending *s, struct batch *batch, str why)
{
    struct principal node = platform;
    node.tenant_id = s->round->tenant_id;
    struct record *row = outcome_row(s, batch, "dead");
    set_over(s, row);
    record_set_text(row, WEBHOOK_DELIVERIES_LAST_ERROR, why);
    webhook_audit(
        s->round->o, batch, &node, "webhook_delivery.dead", "webhook_delivery",
        uuid_str(s->ctx->arena, s->id),
        str_printf(s->ctx->arena, "{\"endpoint\":\"" STR_FMT "\"}", STR_ARG(s->round->name)));
}

/* It is no longer wanted: nothing is sent there until somebody says so. */
static void write_gone(struct sending *s, struct batch *batch)
{
    write_dead(s, batch, S("the receiver answered 410: it wants no more; the endpoint is paused"));
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_WEBHOOK_ENDPOINTS);
    record_set_text(row, WEBHOOK_ENDPOINTS_NAME, s->round->name);
    record_set_integer(row, WEBHOOK_ENDPOINTS_IS_PAUSED, 1);
    record_set_text(row, WEBHOOK_ENDPOINTS_PAUSED_WHY, S("gone"));
}

static str say_failure(struct sending *s)
{
    struct arena *arena = s->ctx->arena;
    if (s->answer.status > 0)
        return str_printf(arena, "the receiver answered %d", s->answer.status);
    if (s->failure.code == ERROR_TIMEOUT)
        return str_printf(arena, "the receiver did not answer in time (%lld ms)",
                          (long long) s->round->w->options.timeout_ms);
    return str_copy(arena, str_cut_utf8(str_from_cstr(s->failure.message), 500));
}

/* Gives what it was: "delivered", "dead", "failed". */
static const char *write_outcome(struct sending *s, struct batch *batch)
{
    int attempt = (int) record_integer(s->row, WEBHOOK_DELIVERIES_ATTEMPTS) + 1;
    if (s->answer.status >= 200 && s->answer.status < 300) {
        struct record *row = outcome_row(s, batch, "delivered");
        set_over(s, row);
        record_set_null(row, WEBHOOK_DELIVERIES_LAST_ERROR);
        return "delivered";
    }
    if (s->answer.status == 410) {
        write_gone(s, batch);
        return "dead";
    }
    str why = say_failure(s);
    if (attempt > s->round->w->options.retry_count) {
        write_dead(s, batch, why);
        return "dead";
    }
    struct record *row = outcome_row(s, batch, "pending");
    record_set_text(row, WEBHOOK_DELIVERIES_LAST_ERROR, why);
    record_set_integer(row, WEBHOOK_DELIVERIES_NEXT_AT, s->now_us + wait_ms(s, attempt) * 1000);
    return "failed";
}

static never_inline bool store_outcome(struct sending *s, struct error *e)
{
    struct round *r = s->round;
    struct batch batch;
    struct error failure = {0};
    s->now_us = clock_unix_us(r->o->parts.clock);
    batch_init(&batch, s->ctx->arena, r->tenant_id);
    batch.fault = "webhook_sent";
    const char *outcome = write_outcome(s, &batch);
    bool ok = webhook_commit(r->o, s->ctx, &batch, &failure);
    if (!ok && failure.code == ERROR_CONFLICT) /* somebody asked for it again meanwhile */
        return true;
    if (!ok)
        return error_copy(e, &failure);
    str label = str_from_cstr(outcome);
    metrics_add(r->w->metrics, METRIC_WEBHOOK_DELIVERIES, 1, &label, 1);
    if (!str_equal(label, S("failed")))
        webhook_target_done(r->w, r->tenant_id, r->name, 1);
    if (s->answer.status == 410) {
        record_set_integer(r->endpoint, WEBHOOK_ENDPOINTS_IS_PAUSED, 1);
        webhook_target_set(r->w, r->tenant_id, r->endpoint);
    }
    return true;
}

/* Where others send too: whoever moves next_at on sends it.  *is_mine false: another node was first. */
static never_inline bool claim(struct sending *s, bool *is_mine, struct error *e)
{
    struct round *r = s->round;
    struct batch batch;
    struct error failure = {0};
    *is_mine = true;
    if (!r->o->parts.is_shared)
        return true;
    int64_t until_us =
        clock_unix_us(r->o->parts.clock) + (r->w->options.timeout_ms + WEBHOOK_CLAIM_MS) * 1000;
    batch_init(&batch, s->ctx->arena, r->tenant_id);
    batch.fault = "webhook_claim";
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_WEBHOOK_DELIVERIES);
    record_set_uuid(row, WEBHOOK_DELIVERIES_ID, s->id);
    record_set_integer(row, WEBHOOK_DELIVERIES_NEXT_AT, until_us);
    batch_where_integer(&batch, WEBHOOK_DELIVERIES_NEXT_AT, s->due_us);
    *is_mine = store_commit(r->o->parts.store, s->ctx, &batch, &failure);
    s->due_us = until_us;
    return *is_mine || failure.code == ERROR_CONFLICT || error_copy(e, &failure);
}

static never_inline bool deliver(struct round *r, struct context *ctx, const struct record *row,
                                 struct error *e)
{
    struct sending *s = ARENA_NEW(ctx->arena, struct sending);
    *s = (struct sending){.round = r,
                          .ctx = ctx,
                          .row = row,
                          .id = record_uuid(row, WEBHOOK_DELIVERIES_ID),
                          .due_us = record_integer(row, WEBHOOK_DELIVERIES_NEXT_AT)};
    bool is_mine;
    str body;
    if (!claim(s, &is_mine, e))
        return false;
    if (!is_mine)
        return true;
    if (!make_body(s, &body, e))
        return false;
    (void) !post(s, body, &s->failure);
    if (context_is_cancelled(ctx)) /* the node stops: nobody knows what became of it */
        return error_set(e, REASON_CANCELLED, "the node stops");
    return store_outcome(s, e);
}

/* One of a few that take the next one until there is none. */
static void worker(struct context *ctx, void *argument)
{
    struct round *r = argument;
    while (r->next < r->due.count && !r->has_failed && !context_is_cancelled(ctx) &&
           record_integer(r->endpoint, WEBHOOK_ENDPOINTS_IS_PAUSED) == 0) {
        arena_mark mark = arena_save(ctx->arena);
        struct error failure = {0};
        if (!deliver(r, ctx, &r->due.items[r->next++], &failure)) {
            r->has_failed = true;
            r->failure = failure;
        }
        arena_rewind(ctx->arena, mark);
    }
}

/* ---- the round ---- */

static bool add_key(struct round *r, str place, str sealed)
{
    struct error ignored;
    str secret;
    return webhook_unseal(r->w, r->ctx->arena, place, sealed, &secret) &&
           webhook_secret_key(r->ctx->arena, WEBHOOK_STANDARD, secret, &r->keys[r->key_count],
                              &ignored) &&
           ++r->key_count > 0;
}

/* False when it is gone, paused, or cannot be read: then there is nothing to send. */
static bool open_endpoint(struct round *r, bool *is_there, struct error *e)
{
    struct record *key = ARENA_NEW(r->ctx->arena, struct record);
    struct error missing = {0};
    *key = record_of(TABLE_WEBHOOK_ENDPOINTS);
    record_set_text(key, WEBHOOK_ENDPOINTS_NAME, r->name);
    *is_there = store_get(r->o->parts.store, r->ctx, r->tenant_id, key, r->endpoint, &missing);
    if (!*is_there && missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    if (!*is_there) {
        webhook_target_forget(r->w, r->tenant_id, r->name);
        return true;
    }
    webhook_target_set(r->w, r->tenant_id, r->endpoint);
    *is_there = record_integer(r->endpoint, WEBHOOK_ENDPOINTS_IS_PAUSED) == 0;
    r->includes_answer = record_has(r->endpoint, WEBHOOK_ENDPOINTS_INCLUDE) &&
                         str_find(record_text(r->endpoint, WEBHOOK_ENDPOINTS_INCLUDE),
                                  S("\"answer\"")) != STR_NOT_FOUND;
    str place = webhook_place(r->ctx->arena, "endpoint", r->tenant_id, r->name);
    bool is_open = add_key(r, place, record_text(r->endpoint, WEBHOOK_ENDPOINTS_SECRET));
    if (is_open && record_integer(r->endpoint, WEBHOOK_ENDPOINTS_PREVIOUS_UNTIL) >
                       clock_unix_us(r->o->parts.clock))
        (void) add_key(r, place, record_text(r->endpoint, WEBHOOK_ENDPOINTS_PREVIOUS_SECRET));
    return is_open ||
           error_set(e, REASON_CORRUPT,
                     "the secret of endpoint \"" STR_FMT "\" cannot be opened: webhook.key is "
                     "another one; rotate it",
                     STR_ARG(r->name));
}

static bool find_due(struct round *r, struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    query_where_text(&query, WEBHOOK_DELIVERIES_ENDPOINT, r->name);
    query_where_integer(&query, WEBHOOK_DELIVERIES_NEXT_AT, FILTER_LESS,
                        clock_unix_us(r->o->parts.clock) + 1);
    query.limit = WEBHOOK_ROUND_MAX;
    return store_list(r->o->parts.store, r->ctx, r->tenant_id, &query, &r->due, e);
}

/* When the first of those that wait is due; of many, soon: they are not in the order of their time. */
static bool find_next(struct round *r, int64_t *in_ms, struct error *e)
{
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    struct records page;
    int64_t now_us = clock_unix_us(r->o->parts.clock);
    query_where_text(&query, WEBHOOK_DELIVERIES_ENDPOINT, r->name);
    query_where_null(&query, WEBHOOK_DELIVERIES_NEXT_AT, false);
    if (!store_list(r->o->parts.store, r->ctx, r->tenant_id, &query, &page, e))
        return false;
    if (str_is_empty(page.next_cursor))
        r->found = (int32_t) page.count;
    else if (*in_ms > WEBHOOK_LOOK_MANY_MS)
        *in_ms = WEBHOOK_LOOK_MANY_MS;
    for (size_t i = 0; i < page.count; i++) {
        int64_t next_us = record_integer(&page.items[i], WEBHOOK_DELIVERIES_NEXT_AT);
        int64_t wait_ms = next_us > now_us ? (next_us - now_us) / 1000 + 1 : 0;
        *in_ms = wait_ms < *in_ms ? wait_ms : *in_ms;
    }
    return true;
}

static bool send_due(struct round *r, struct error *e)
{
    struct group group;
    bool ok = true;
    group_init(&group, r->ctx);
    for (size_t i = 0; i < WEBHOOK_SENDS_MAX && i < r->due.count && ok; i++)
        ok = group_start(&group, "webhook_send", worker, r, e);
    if (!ok)
        group_cancel(&group);
    group_wait(&group);
    return ok && (!r->has_failed || error_copy(e, &r->failure));
}

/* How many wait, up to the bound. */
static bool count_pending(struct round *r, int32_t *out, struct error *e)
{
    OWNED(arena) keep = arena_create(0);
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    query_where_text(&query, WEBHOOK_DELIVERIES_ENDPOINT, r->name);
    query_where_null(&query, WEBHOOK_DELIVERIES_NEXT_AT, false);
    *out = 0;
    do {
        struct records page;
        arena_mark mark = arena_save(r->ctx->arena);
        if (!store_list(r->o->parts.store, r->ctx, r->tenant_id, &query, &page, e))
            return false;
        *out += (int32_t) page.count;
        arena_reset(keep);
        query.cursor = str_copy(keep, page.next_cursor);
        arena_rewind(r->ctx->arena, mark);
    } while (!str_is_empty(query.cursor) && *out < WEBHOOK_PENDING_MAX);
    return true;
}

static bool work(struct round *r, bool must_count, int32_t *pending, int64_t *look_in_ms,
                 struct error *e)
{
    bool is_there;
    *look_in_ms = r->o->parts.is_shared ? WEBHOOK_LOOK_SHARED_MS : WEBHOOK_LOOK_MS;
    if (!open_endpoint(r, &is_there, e))
        return false;
    if (!is_there)
        return true;
    if ((must_count && !count_pending(r, pending, e)) || !find_due(r, e))
        return false;
    if (r->due.count == 0)
        return find_next(r, look_in_ms, e);
    *look_in_ms = 0; /* there may be more */
    return send_due(r, e);
}

/* An event wakes us before its commit is done: what is not there yet is looked for again, and only what never comes is counted no more. */
static void match_count(const struct round *r, struct webhook_target *target, int32_t counted,
                        int64_t now_ns)
{
    bool is_short = r->found >= 0 && target->pending > r->found;
    if (now_ns < target->awaited_ns) {
        if (is_short)
            target->look_ns = 0;
        return;
    }
    if (counted >= 0) {
        target->pending = counted;
        target->is_counted = true;
        target->counted_ns = now_ns;
    } else if (is_short) {
        target->pending = r->found;
    }
}

/* The target may have gone while we worked. */
static void finish(struct round *r, int32_t pending, int64_t look_in_ms)
{
    struct webhooks *w = r->w;
    int64_t now_ns = clock_monotonic_ns(w->clock);
    pthread_mutex_lock(&w->lock);
    struct webhook_target *target = webhook_target_find(w, r->tenant_id, r->name);
    if (target) {
        int64_t look_ns = now_ns + look_in_ms * 1000000;
        target->is_busy = false;
        if (target->look_ns > look_ns) /* else something came meanwhile */
            target->look_ns = look_ns;
        match_count(r, target, pending, now_ns);
    }
    pthread_mutex_unlock(&w->lock);
    w->round_count--;
}

void webhook_round_run(struct context *ctx, void *give_round)
{
    struct webhook_round *given = give_round;
    struct round *r = ARENA_NEW(ctx->arena, struct round);
    struct error failure = {0};
    int32_t pending = -1;
    int64_t look_in_ms;
    *r = (struct round){.o = given->o,
                        .w = given->o->webhooks,
                        .ctx = ctx,
                        .tenant_id = given->tenant_id,
                        .name = str_copy(ctx->arena, str_from_cstr(given->name)),
                        .endpoint = ARENA_NEW(ctx->arena, struct record),
                        .found = -1};
    bool must_count = given->must_count;
    free(given);
    ctx->tenant_id = r->tenant_id;
    if (!work(r, must_count, &pending, &look_in_ms, &failure)) {
        look_in_ms = WEBHOOK_LOOK_SHARED_MS;
        if (failure.code != ERROR_CANCELLED)
            LOG_ERROR("orchestrator.webhook", S("deliveries wait; it is tried again"), &failure,
                      LOG_STR("nexus.endpoint", r->name));
    }
    for (size_t i = 0; i < r->key_count; i++)
        seal_wipe(r->keys[i]);
    finish(r, pending, look_in_ms);
}
