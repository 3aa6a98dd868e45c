/* Webhooks over simulated parts: what starts, what is told, how often, and what a crash leaves. */
#include "orchestrator/webhook/webhook.h"
#include "store/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/secret.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/orchestrator_testkit.h"
#include "orchestrator/workflow/workflow_store.h"

#define NOTE "name: note\nversion: 1.0.0\nsteps: [{id: a, sleep: 0s}]\noutput: ${input.body.text}\n"
#define WAITS "name: waits\nversion: 1.0.0\nsteps: [{id: w, wait_signal: {name: go}}]\n"

/* ---- the receiver ---- */

enum { HEARD_MAX = 64, STATUSES_MAX = 16 };

static struct receiver {
    struct arena *arena;
    int statuses
        [STATUSES_MAX]; /* answered in turn, then 200; 0: it cannot be reached; -1: it never answers */
    int status_count, status_next;
    int64_t retry_after_ms;
    struct {
        str id, timestamp, signature, body;
        int64_t at_us;
    } heard[HEARD_MAX];
    int heard_count;
    bool is_refused; /* check_url says no */
} receiver;

static bool check_url(void *owner, str url, struct error *e)
{
    (void) owner;
    (void) url;
    return !receiver.is_refused || error_set(e, REASON_EGRESS_BLOCKED, "not there");
}

static bool fake_send(void *owner, struct context *ctx, const struct webhook_send *request,
                      struct webhook_answer *out, struct error *e)
{
    (void) owner;
    ensure(receiver.heard_count < HEARD_MAX);
    int i = receiver.heard_count++;
    receiver.heard[i].at_us = context_now_us(ctx);
    receiver.heard[i].body = str_copy(receiver.arena, request->body);
    for (size_t j = 0; j < request->header_count; j++) {
        str value = str_copy(receiver.arena, request->headers[j].value);
        if (str_equal(request->headers[j].name, S("webhook-id")))
            receiver.heard[i].id = value;
        if (str_equal(request->headers[j].name, S("webhook-timestamp")))
            receiver.heard[i].timestamp = value;
        if (str_equal(request->headers[j].name, S("webhook-signature")))
            receiver.heard[i].signature = value;
    }
    int status = receiver.status_next < receiver.status_count
                     ? receiver.statuses[receiver.status_next++]
                     : 200;
    if (status == 0)
        return error_set(e, REASON_UNAVAILABLE, "connection refused");
    if (status < 0) {
        ensure(!context_sleep_until(ctx, DEADLINE_NONE, e));
        return false;
    }
    *out = (struct webhook_answer){.status = status, .retry_after_ms = receiver.retry_after_ms};
    return true;
}

static struct secret *seal_key;
static struct webhook_options options;

/* The kit's node begins anew, with webhooks. */
static void open_doors(struct testkit *kit)
{
    options = (struct webhook_options){.seal_key = seal_key,
                                       .check_url = check_url,
                                       .send = fake_send,
                                       .retry_ms = {1000, 10000, 100000},
                                       .retry_count = 3,
                                       .timeout_ms = 5000};
    arena_destroy(receiver.arena);
    receiver = (struct receiver){.arena = arena_create(0)};
    kit->webhooks = &options;
    testkit_crash(kit);
}

/* ---- small words ---- */

static struct principal ada(struct testkit *kit)
{
    return testkit_principal(kit, "ada", ROLE_LEVEL_USER);
}

static struct principal olga(struct testkit *kit)
{
    return testkit_principal(kit, "olga", ROLE_LEVEL_OPERATOR);
}

static void must(bool ok, const struct error *e)
{
    if (!ok)
        fail_msg("%s", e->message);
}

static void wait_ms(struct context *ctx, int64_t ms)
{
    struct error e = {0};
    assert_true(context_sleep_ms(ctx, ms, &e));
}

/* As the sweeper does, for so long. */
static void sweep_for(struct testkit *kit, struct context *ctx, int64_t ms)
{
    for (int64_t past_ms = 0; past_ms <= ms; past_ms += 250) {
        struct error e = {0};
        must(webhooks_sweep(kit->o, ctx, &e), &e);
        wait_ms(ctx, 250);
    }
}

static str make_endpoint(struct testkit *kit, struct context *ctx, const char *name)
{
    struct principal person = olga(kit);
    struct webhook_endpoint_request request = {.name = str_from_cstr(name),
                                               .url = S("https://hooks.example.com/")};
    struct record row;
    struct error e = {0};
    str secret;
    must(webhook_endpoint_create(kit->o, ctx, &person, &request, &row, &secret, &e), &e);
    return secret;
}

static struct records deliveries(struct testkit *kit, struct context *ctx)
{
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    struct records rows;
    struct error e = {0};
    must(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e), &e);
    return rows;
}

static bool has_status(const struct record *row, const char *status)
{
    return str_equal(record_text(row, WEBHOOK_DELIVERIES_STATUS), str_from_cstr(status));
}

static uuid run_once(struct testkit *kit, struct context *ctx)
{
    struct principal user = ada(kit);
    uuid session = testkit_session(kit, ctx, &user, COST_LIMITLESS);
    uuid run = testkit_start(kit, ctx, &user, session, "hi");
    wait_ms(ctx, 1000);
    assert_true(str_equal(testkit_status(kit, ctx, run), S("completed")));
    return run;
}

static bool is_signed_with(int i, str secret)
{
    struct error e = {0};
    str key;
    struct webhook_signed request = {.id = receiver.heard[i].id,
                                     .timestamp = receiver.heard[i].timestamp,
                                     .signature = receiver.heard[i].signature,
                                     .body = receiver.heard[i].body};
    must(webhook_secret_key(receiver.arena, WEBHOOK_STANDARD, secret, &key, &e), &e);
    return webhook_verify(receiver.arena, WEBHOOK_STANDARD, key, &request,
                          receiver.heard[i].at_us / 1000000);
}

/* ---- out ---- */

static void tell_an_end(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    uuid nobody_heard = run_once(kit, ctx);
    (void) nobody_heard;
    assert_int_equal(deliveries(kit, ctx).count, 0);
    str secret = make_endpoint(kit, ctx, "pager");
    uuid run = run_once(kit, ctx);
    struct records rows = deliveries(kit, ctx);
    assert_int_equal(rows.count, 1);
    assert_true(has_status(&rows.items[0], "pending"));
    assert_int_equal(receiver.heard_count, 0);
    sweep_for(kit, ctx, 500);
    assert_int_equal(receiver.heard_count, 1);
    assert_true(is_signed_with(0, secret));
    assert_true(str_find(receiver.heard[0].body, S("\"type\":\"run.completed\"")) != STR_NOT_FOUND);
    assert_true(str_find(receiver.heard[0].body, uuid_str(ctx->arena, run)) != STR_NOT_FOUND);
    assert_true(str_find(receiver.heard[0].body, S("done")) == STR_NOT_FOUND);
    rows = deliveries(kit, ctx);
    assert_true(has_status(&rows.items[0], "delivered"));
    assert_false(record_has(&rows.items[0], WEBHOOK_DELIVERIES_NEXT_AT));
    struct batch batch; /* the same event again is the same delivery */
    struct error e = {0};
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct webhook_emission emission = {
        .event = WEBHOOK_RUN_COMPLETED, .from = run, .at_us = 1, .data = S("{}")};
    webhook_emit(kit->o, &batch, kit->tenant_id, &emission);
    assert_int_equal(batch.count, 1);
    must(store_commit(kit->store, ctx, &batch, &e), &e);
    assert_int_equal(deliveries(kit, ctx).count, 1);
    assert_false(webhook_wants(kit->o, kit->other_tenant_id, WEBHOOK_RUN_COMPLETED));
    assert_false(webhook_wants(kit->o, kit->tenant_id, WEBHOOK_TESTED));
}

static void test_the_end_of_a_run_is_told_to_who_asked(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, tell_an_end, kit);
}

static void commit_late(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct batch batch;
    struct error e = {0};
    (void) make_endpoint(kit, ctx, "pager");
    sweep_for(kit, ctx, 1000);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct webhook_emission emission = {.event = WEBHOOK_RUN_FAILED,
                                        .from = uuid_new(kit->clock, kit->random),
                                        .at_us = clock_unix_us(kit->clock),
                                        .data = S("{}")};
    webhook_emit(kit->o, &batch, kit->tenant_id, &emission);
    sweep_for(kit, ctx, 3000);
    assert_int_equal(receiver.heard_count, 0);
    must(store_commit(kit->store, ctx, &batch, &e), &e);
    sweep_for(kit, ctx, 500);
    assert_int_equal(receiver.heard_count, 1);
}

static void test_what_is_committed_after_we_looked_for_it_is_found_soon(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, commit_late, kit);
}

static void try_again(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    (void) make_endpoint(kit, ctx, "pager");
    memcpy(receiver.statuses, (int[]){500, 0, -1}, 3 * sizeof(int));
    receiver.status_count = 3;
    (void) run_once(kit, ctx);
    sweep_for(kit, ctx, 130000);
    assert_int_equal(receiver.heard_count, 4);
    for (int i = 1; i < 4; i++) {
        static const int64_t least_ms[] = {900, 9000, 95000};
        int64_t apart_us = receiver.heard[i].at_us - receiver.heard[i - 1].at_us;
        assert_true(apart_us >= least_ms[i - 1] * 1000);
        assert_true(apart_us <= (least_ms[i - 1] * 10 / 9 + 7000) * 1100);
        assert_true(str_equal(receiver.heard[i].id, receiver.heard[0].id));
        assert_true(str_equal(receiver.heard[i].body, receiver.heard[0].body));
    }
    struct records rows = deliveries(kit, ctx);
    assert_true(has_status(&rows.items[0], "delivered"));
    assert_int_equal(record_integer(&rows.items[0], WEBHOOK_DELIVERIES_ATTEMPTS), 4);
}

static void test_a_receiver_that_fails_refuses_and_hangs_is_tried_again_later_each_time(
    struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, try_again, kit);
}

static void give_up(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal person = olga(kit), user = ada(kit);
    struct record row;
    struct error e = {0};
    int64_t count;
    bool is_more;
    (void) make_endpoint(kit, ctx, "pager");
    for (int i = 0; i < 9; i++)
        receiver.statuses[i] = 503;
    receiver.status_count = 9;
    (void) run_once(kit, ctx);
    sweep_for(kit, ctx, 130000);
    struct records rows = deliveries(kit, ctx);
    assert_true(has_status(&rows.items[0], "dead"));
    assert_int_equal(receiver.heard_count, 4);
    assert_true(str_equal(record_text(&rows.items[0], WEBHOOK_DELIVERIES_LAST_ERROR),
                          S("the receiver answered 503")));
    uuid id = record_uuid(&rows.items[0], WEBHOOK_DELIVERIES_ID);
    assert_false(webhook_delivery_retry(kit->o, ctx, &user, id, &row, &e));
    assert_int_equal(e.code, ERROR_DENIED);
    must(webhook_delivery_retry(kit->o, ctx, &person, id, &row, &e), &e);
    assert_true(has_status(&row, "pending"));
    sweep_for(kit, ctx, 130000);
    assert_int_equal(receiver.heard_count, 8);
    must(webhook_redeliver(kit->o, ctx, &person, S("pager"), &count, &is_more, &e), &e);
    assert_true(count == 1 && !is_more);
    sweep_for(kit, ctx, 3000);
    assert_int_equal(receiver.heard_count, 10);
    rows = deliveries(kit, ctx);
    assert_true(has_status(&rows.items[0], "delivered"));
}

static void test_what_cannot_be_delivered_is_dead_until_somebody_asks_for_it(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, give_up, kit);
}

static void pause_gone(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal person = olga(kit);
    struct record row;
    struct error e = {0};
    (void) make_endpoint(kit, ctx, "pager");
    receiver.statuses[0] = 429;
    receiver.statuses[1] = 410;
    receiver.status_count = 2;
    receiver.retry_after_ms = 60000;
    (void) run_once(kit, ctx);
    sweep_for(kit, ctx, 58000);
    assert_int_equal(receiver.heard_count, 1);
    sweep_for(kit, ctx, 5000);
    assert_int_equal(receiver.heard_count, 2);
    must(webhook_endpoint_get(kit->o, ctx, &person, S("pager"), &row, &e), &e);
    assert_true(record_integer(&row, WEBHOOK_ENDPOINTS_IS_PAUSED));
    assert_true(str_equal(record_text(&row, WEBHOOK_ENDPOINTS_PAUSED_WHY), S("gone")));
    (void) run_once(kit, ctx);
    sweep_for(kit, ctx, 2000);
    assert_int_equal(receiver.heard_count, 2);
    must(webhook_endpoint_pause(kit->o, ctx, &person, S("pager"), false, &row, &e), &e);
    sweep_for(kit, ctx, 1000);
    assert_int_equal(receiver.heard_count, 3);
    must(webhook_endpoint_pause(kit->o, ctx, &person, S("pager"), true, &row, &e), &e);
    (void) run_once(kit, ctx);
    must(webhook_endpoint_remove(kit->o, ctx, &person, S("pager"), &e), &e);
    struct records rows = deliveries(kit, ctx);
    size_t dead = 0;
    for (size_t i = 0; i < rows.count; i++)
        dead += has_status(&rows.items[i], "dead");
    assert_int_equal(dead, 2);
}

static void test_410_pauses_and_retry_after_is_obeyed(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, pause_gone, kit);
}

static void emit_many(struct testkit *kit, struct context *ctx, int count)
{
    struct error e = {0};
    while (count > 0) {
        struct batch batch;
        arena_mark mark = arena_save(ctx->arena);
        batch_init(&batch, ctx->arena, kit->tenant_id);
        for (int i = 0; i < 200 && count > 0; i++, count--) {
            struct webhook_emission emission = {.event = WEBHOOK_RUN_COMPLETED,
                                                .from = uuid_new(kit->clock, kit->random),
                                                .at_us = clock_unix_us(kit->clock),
                                                .data = S("{}")};
            webhook_emit(kit->o, &batch, kit->tenant_id, &emission);
        }
        if (batch.count > 0)
            must(store_commit(kit->store, ctx, &batch, &e), &e);
        arena_rewind(ctx->arena, mark);
    }
}

static size_t count_with(struct testkit *kit, struct context *ctx, const char *status)
{
    struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
    size_t count = 0;
    query_where_text(&query, WEBHOOK_DELIVERIES_STATUS, str_from_cstr(status));
    do {
        struct records rows;
        struct error e = {0};
        must(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e), &e);
        count += rows.count;
        query.cursor = rows.next_cursor;
    } while (!str_is_empty(query.cursor));
    return count;
}

static void fill_up(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal person = olga(kit);
    struct record row;
    struct error e = {0};
    (void) make_endpoint(kit, ctx, "pager");
    must(webhook_endpoint_pause(kit->o, ctx, &person, S("pager"), true, &row, &e), &e);
    emit_many(kit, ctx, WEBHOOK_PENDING_MAX);
    assert_int_equal(count_with(kit, ctx, "pending"), WEBHOOK_PENDING_MAX);
    assert_int_equal(count_with(kit, ctx, "dropped"), 0);
    emit_many(kit, ctx, 250);
    assert_int_equal(count_with(kit, ctx, "pending"), WEBHOOK_PENDING_MAX);
    assert_int_equal(count_with(kit, ctx, "dropped"), 1);
    wait_ms(ctx, 3600000);
    emit_many(kit, ctx, 3);
    assert_int_equal(count_with(kit, ctx, "dropped"), 2);
    wait_ms(ctx, WEBHOOK_KEEP_MS + 1000); /* and what waits too long ends */
    for (int i = 0; i < 30; i++) {
        must(webhooks_sweep(kit->o, ctx, &e), &e);
        wait_ms(ctx, WEBHOOK_LOOK_MS);
    }
    assert_int_equal(count_with(kit, ctx, "pending"), 0);
    assert_int_equal(count_with(kit, ctx, "dropped"), 0);
}

static void test_so_many_may_wait_for_one_endpoint_and_what_is_dropped_is_said(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, fill_up, kit);
}

static void end_a_run(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    (void) make_endpoint(kit, ctx, "pager");
    receiver.statuses[0] = -1;
    receiver.status_count = 1;
    (void) run_once(kit, ctx);
    sweep_for(kit, ctx, 500); /* it is under way when the node dies */
    assert_int_equal(receiver.heard_count, 1);
}

/* The store keeps it and the acknowledgement is lost. */
static enum commit_outcome lose_the_word(void *owner, struct context *ctx,
                                         const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    (void) batch;
    return COMMIT_APPLIED_BUT_FAIL;
}

static void resume_unheard(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal person = olga(kit);
    struct record row;
    struct error e = {0};
    (void) make_endpoint(kit, ctx, "pager");
    must(webhook_endpoint_pause(kit->o, ctx, &person, S("pager"), true, &row, &e), &e);
    (void) run_once(kit, ctx);
    sweep_for(kit, ctx, 2000);
    assert_int_equal(receiver.heard_count, 0);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = lose_the_word});
    assert_false(webhook_endpoint_pause(kit->o, ctx, &person, S("pager"), false, &row, &e));
    assert_int_equal(e.reason, REASON_OUTCOME_UNKNOWN);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    sweep_for(kit, ctx, 2000);
    assert_int_equal(receiver.heard_count, 1);
}

static void test_what_may_have_been_stored_is_read_again(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, resume_unheard, kit);
}

static void sweep_some(struct context *ctx, void *argument)
{
    sweep_for(argument, ctx, 2000);
}

static void test_a_node_that_dies_loses_no_delivery(struct testkit *kit)
{
    open_doors(kit);
    testkit_begin(kit, end_a_run, kit);
    testkit_run_ms(kit, 2000);
    testkit_crash(kit);
    testkit_do(kit, sweep_some, kit);
    assert_int_equal(receiver.heard_count, 2);
    assert_true(str_equal(receiver.heard[0].id, receiver.heard[1].id));
}

static void wait_out_the_claim(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    sweep_for(kit, ctx, 30000);
    assert_int_equal(receiver.heard_count, 1); /* who claimed it may still be at it */
    sweep_for(kit, ctx, WEBHOOK_CLAIM_MS);
    assert_int_equal(receiver.heard_count, 2);
}

static void test_where_nodes_share_a_store_only_who_claimed_a_delivery_sends_it(struct testkit *kit)
{
    kit->is_shared = true;
    open_doors(kit);
    testkit_begin(kit, end_a_run, kit);
    testkit_run_ms(kit, 2000);
    testkit_crash(kit);
    testkit_do(kit, wait_out_the_claim, kit);
}

/* ---- in ---- */

struct door {
    str name, secret;
};

static void put_workflow(struct testkit *kit, struct context *ctx, const char *text)
{
    struct principal user = ada(kit);
    struct workflow_entry *entry;
    struct definition_problems problems = {0};
    struct error e = {0};
    bool is_new;
    must(workflow_put(kit->o, ctx, &user, str_from_cstr(text), &problems, &entry, &is_new, &e), &e);
    workflow_entry_release(entry);
}

static struct door make_door(struct testkit *kit, struct context *ctx,
                             const struct webhook_request *request)
{
    struct principal user = ada(kit);
    struct record row;
    struct error e = {0};
    struct door door = {.name = request->name};
    must(webhook_create(kit->o, ctx, &user, request, &row, &door.secret, &e), &e);
    assert_true(str_find(record_text(&row, WEBHOOKS_SECRET), str_from(door.secret, 6)) ==
                STR_NOT_FOUND);
    return door;
}

static bool knock(struct testkit *kit, struct context *ctx, const struct door *door, const char *id,
                  const char *body, struct webhook_outcome *out, struct error *e)
{
    struct webhook_signed request;
    str key;
    must(webhook_secret_key(ctx->arena, WEBHOOK_STANDARD, door->secret, &key, e), e);
    webhook_sign_as(ctx->arena, WEBHOOK_STANDARD, key, str_from_cstr(id),
                    clock_unix_us(kit->clock) / 1000000, str_from_cstr(body), &request);
    const struct webhook_header headers[] = {
        {S_INIT("Webhook-Id"), request.id},
        {S_INIT("Webhook-Timestamp"), request.timestamp},
        {S_INIT("Webhook-Signature"), request.signature},
        {S_INIT("Content-Type"), S_INIT("application/json")},
    };
    struct webhook_post post = {.tenant = uuid_str(ctx->arena, kit->tenant_id),
                                .name = door->name,
                                .body = request.body,
                                .headers = headers,
                                .header_count = ARRAY_COUNT(headers)};
    *e = (struct error){0};
    return webhook_receive(kit->o, ctx, &post, out, e);
}

static void come_in(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct webhook_outcome first, again;
    struct error e = {0}, unknown = {0};
    put_workflow(kit, ctx, NOTE);
    struct door door = make_door(
        kit, ctx, &(struct webhook_request){.name = S("notes"), .workflow = S("note@^1")});
    must(knock(kit, ctx, &door, "msg_1", "{\"text\":\"a\"}", &first, &e), &e);
    wait_ms(ctx, 1000);
    struct record run = testkit_run(kit, ctx, first.run_id);
    assert_true(str_equal(record_text(&run, AGENT_RUNS_USER_ID), S("ada")));
    assert_true(str_equal(record_text(&run, AGENT_RUNS_STATUS), S("completed")));
    must(knock(kit, ctx, &door, "msg_1", "{\"text\":\"a\"}", &again, &e), &e);
    assert_true(again.is_repeat && !first.is_repeat && uuid_equal(again.run_id, first.run_id));
    must(knock(kit, ctx, &door, "msg_2", "{\"text\":\"a\"}", &again, &e), &e);
    assert_false(again.is_repeat);
    struct door wrong = {.name = S("notes"),
                         .secret = webhook_secret_make(ctx->arena, WEBHOOK_STANDARD)};
    assert_false(knock(kit, ctx, &wrong, "msg_3", "{}", &again, &e));
    assert_int_equal(e.reason, REASON_UNAUTHENTICATED);
    wrong = (struct door){.name = S("nothing"), .secret = door.secret};
    assert_false(knock(kit, ctx, &wrong, "msg_3", "{}", &again, &unknown));
    assert_int_equal(unknown.reason, REASON_UNAUTHENTICATED);
    assert_string_equal(unknown.message, e.message);
    wait_ms(ctx, WEBHOOK_RECEIPTS_MS + 1000);
    sweep_for(kit, ctx, 250); /* a receipt is kept so long */
    must(knock(kit, ctx, &door, "msg_1", "{\"text\":\"a\"}", &again, &e), &e);
    assert_false(again.is_repeat);
}

static void test_a_delivery_starts_one_run_and_strangers_learn_nothing(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, come_in, kit);
}

static void change_secrets(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal user = ada(kit), other = testkit_principal(kit, "eve", ROLE_LEVEL_USER);
    struct webhook_outcome outcome;
    struct error e = {0};
    struct record row;
    put_workflow(kit, ctx, NOTE);
    struct door old =
        make_door(kit, ctx, &(struct webhook_request){.name = S("notes"), .workflow = S("note")});
    struct door new = {.name = old.name};
    struct webhook_rotation rotation = {.overlap_ms = 10000};
    assert_false(webhook_rotate(kit->o, ctx, &other, S("notes"), &rotation, &row, &new.secret, &e));
    assert_int_equal(e.code, ERROR_NOT_FOUND);
    e = (struct error){0};
    must(webhook_rotate(kit->o, ctx, &user, S("notes"), &rotation, &row, &new.secret, &e), &e);
    must(knock(kit, ctx, &old, "msg_1", "{\"text\":\"a\"}", &outcome, &e), &e);
    must(knock(kit, ctx, &new, "msg_2", "{\"text\":\"a\"}", &outcome, &e), &e);
    wait_ms(ctx, 10001);
    assert_false(knock(kit, ctx, &old, "msg_3", "{\"text\":\"a\"}", &outcome, &e));
    must(knock(kit, ctx, &new, "msg_4", "{\"text\":\"a\"}", &outcome, &e), &e);
}

static void test_the_secret_before_is_good_for_the_overlap(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, change_secrets, kit);
}

static void signal_a_run(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal user = ada(kit);
    struct workflow_request start = {.name = S("waits"), .budget = COST_LIMITLESS};
    struct webhook_outcome outcome, again;
    struct error e = {0};
    uuid run, session;
    put_workflow(kit, ctx, WAITS);
    struct door door =
        make_door(kit, ctx, &(struct webhook_request){.name = S("go"), .signal_name = S("go")});
    must(workflow_start(kit->o, ctx, &user, &start, &run, &session, &e), &e);
    wait_ms(ctx, 5000);
    const char *body =
        str_to_cstr(ctx->arena, str_printf(ctx->arena, "{\"run_id\":\"" STR_FMT "\"}",
                                           STR_ARG(uuid_str(ctx->arena, run))));
    assert_false(knock(kit, ctx, &door, "msg_0", "{\"run_id\":1}", &outcome, &e));
    assert_int_equal(e.reason, REASON_SCHEMA);
    must(knock(kit, ctx, &door, "msg_1", body, &outcome, &e), &e);
    must(knock(kit, ctx, &door, "msg_1", body, &again, &e), &e);
    assert_true(again.is_repeat && uuid_equal(again.signal_id, outcome.signal_id));
    wait_ms(ctx, 5000);
    assert_true(str_equal(testkit_status(kit, ctx, run), S("completed")));
    const struct json *event = testkit_event(kit, ctx, run, EVENT_RUN_STEP_COMPLETED);
    assert_true(json_bool_or(json_get(event, S("label")), S("untrusted"), false));
    must(knock(kit, ctx, &door, "msg_1", body, &again, &e), &e); /* also when the run is over */
    assert_false(knock(kit, ctx, &door, "msg_2", body, &again, &e));
    assert_int_equal(e.code, ERROR_CONFLICT);
}

static void test_a_delivery_signals_the_run_it_names_once(struct testkit *kit)
{
    open_doors(kit);
    testkit_do(kit, signal_a_run, kit);
}

static void without_doors(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal user = ada(kit);
    struct webhook_request request = {.name = S("x"), .workflow = S("note")};
    struct record row;
    struct error e = {0};
    str secret;
    assert_false(webhook_create(kit->o, ctx, &user, &request, &row, &secret, &e));
    assert_int_equal(e.code, ERROR_UNAVAILABLE);
    (void) run_once(kit, ctx);
    must(webhooks_sweep(kit->o, ctx, &(struct error){0}), &e);
}

static void test_a_node_without_webhooks_says_so(struct testkit *kit)
{
    testkit_do(kit, without_doors, kit);
}

int main(void)
{
    seal_key = secret_create(S("0123456789abcdef0123456789abcdef"));
    const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_the_end_of_a_run_is_told_to_who_asked),
        TESTKIT_SCRIPT(test_what_is_committed_after_we_looked_for_it_is_found_soon),
        TESTKIT_SCRIPT(test_a_receiver_that_fails_refuses_and_hangs_is_tried_again_later_each_time),
        TESTKIT_SCRIPT(test_what_cannot_be_delivered_is_dead_until_somebody_asks_for_it),
        TESTKIT_SCRIPT(test_410_pauses_and_retry_after_is_obeyed),
        TESTKIT_SCRIPT(test_so_many_may_wait_for_one_endpoint_and_what_is_dropped_is_said),
        TESTKIT_SCRIPT(test_what_may_have_been_stored_is_read_again),
        TESTKIT_SCRIPT(test_a_node_that_dies_loses_no_delivery),
        TESTKIT_SCRIPT(test_where_nodes_share_a_store_only_who_claimed_a_delivery_sends_it),
        TESTKIT_SCRIPT(test_a_delivery_starts_one_run_and_strangers_learn_nothing),
        TESTKIT_SCRIPT(test_the_secret_before_is_good_for_the_overlap),
        TESTKIT_SCRIPT(test_a_delivery_signals_the_run_it_names_once),
        TESTKIT_SCRIPT(test_a_node_without_webhooks_says_so),
    };
    int failed = testkit_main(cases, ARRAY_COUNT(cases));
    secret_destroy(seal_key);
    arena_destroy(receiver.arena);
    return failed;
}
