#include "orchestrator/journal/journal.h"

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_testkit.h"

/* A session with a run that has no event yet, and a writer for it. */
struct bench {
    struct testkit *kit;
    struct journal_hub *hub;
    uuid session_id, run_id, message_id;
    int64_t epoch;
    struct run_state state;
    struct journal_writer writer;
};

static void open_writer(struct bench *bench, struct context *ctx)
{
    run_state_init(&bench->state, ctx->arena);
    journal_writer_init(&bench->writer, bench->kit->store, bench->hub, bench->kit->clock,
                        &bench->state, bench->kit->tenant_id, bench->session_id, bench->run_id,
                        S("node-0"), bench->epoch);
}

static void set_up(struct bench *bench, struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct batch batch;
    struct error e;
    *bench = (struct bench){.kit = kit, .hub = journal_hub_create(), .epoch = 1};
    bench->session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    bench->run_id = uuid_new(kit->clock, kit->random);
    bench->message_id = uuid_new(kit->clock, kit->random);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *run = batch_add(&batch, WRITE_INSERT, TABLE_AGENT_RUNS);
    record_set_uuid(run, AGENT_RUNS_ID, bench->run_id);
    record_set_uuid(run, AGENT_RUNS_SESSION_ID, bench->session_id);
    record_set_text(run, AGENT_RUNS_STATUS, S("running"));
    record_set_text(run, AGENT_RUNS_COST, S("{}"));
    record_set_text(run, AGENT_RUNS_AGENT, S("assistant"));
    record_set_text(run, AGENT_RUNS_USER_ID, S("ada"));
    record_set_integer(run, AGENT_RUNS_LAST_SEQ, 0);
    record_set_integer(run, AGENT_RUNS_STARTED_AT, clock_unix_us(kit->clock));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    open_writer(bench, ctx);
}

static void tear_down(struct bench *bench)
{
    journal_writer_deinit(&bench->writer);
    journal_hub_destroy(bench->hub);
}

static void write_started(struct bench *bench, struct context *ctx)
{
    struct json_writer *w = journal_event(&bench->writer, EVENT_RUN_STARTED);
    json_put_str(w, S("message_id"), uuid_str(ctx->arena, bench->message_id));
    json_put_str(w, S("agent"), S("assistant"));
}

static void write_note(struct bench *bench, const char *text)
{
    json_put_str(journal_event(&bench->writer, EVENT_BUDGET_REFUSED), S("message"),
                 str_from_cstr(text));
}

static void flush_ok(struct bench *bench, struct context *ctx)
{
    struct error e = {0};
    if (!journal_flush(&bench->writer, ctx, "", &e))
        fail_msg("%s", e.message);
}

static enum error_reason flush(struct bench *bench, struct context *ctx)
{
    struct error e = {0};
    return journal_flush(&bench->writer, ctx, "", &e) ? REASON_NONE : e.reason;
}

static struct events read_after(struct bench *bench, struct context *ctx, int64_t after)
{
    struct events events;
    struct error e = {0};
    if (!journal_read(bench->kit->store, ctx, bench->kit->tenant_id, bench->run_id, after,
                      STORE_PAGE_MAX, &events, &e))
        fail_msg("%s", e.message);
    return events;
}

static int64_t stored_seq(struct bench *bench, struct context *ctx)
{
    struct record run = testkit_run(bench->kit, ctx, bench->run_id);
    return record_integer(&run, AGENT_RUNS_LAST_SEQ);
}

/* ---- writing ---- */

static void test_events_are_numbered_folded_and_read_back(struct testkit *kit, struct context *ctx)
{
    struct bench bench;
    set_up(&bench, kit, ctx);
    assert_false(journal_has_pending(&bench.writer));
    write_started(&bench, ctx);
    assert_true(journal_has_pending(&bench.writer));
    write_note(&bench, "one");
    assert_int_equal(read_after(&bench, ctx, 0).count, 0); /* committed events only */
    flush_ok(&bench, ctx);
    assert_false(journal_has_pending(&bench.writer));
    write_note(&bench, "two");
    flush_ok(&bench, ctx);
    struct events events = read_after(&bench, ctx, 0);
    assert_int_equal(events.count, 3);
    for (size_t i = 0; i < events.count; i++)
        assert_int_equal(events.items[i].seq, i + 1);
    assert_int_equal(events.items[0].type, EVENT_RUN_STARTED);
    assert_true(str_equal(json_str_or(events.items[2].data, S("message"), STR_NONE), S("two")));
    assert_int_equal(bench.state.last_seq, 3);
    assert_int_equal(bench.state.status, RUN_RUNNING);
    assert_int_equal(stored_seq(&bench, ctx), 3);
    assert_int_equal(read_after(&bench, ctx, 2).count, 1);
    assert_int_equal(read_after(&bench, ctx, 3).count, 0);
    tear_down(&bench);
}

static void test_rows_travel_with_the_events_of_their_batch(struct testkit *kit,
                                                            struct context *ctx)
{
    struct bench bench;
    struct record key = record_of(TABLE_MESSAGES), row;
    struct error e = {0};
    set_up(&bench, kit, ctx);
    write_started(&bench, ctx);
    struct record *message = journal_row(&bench.writer, WRITE_INSERT, TABLE_MESSAGES);
    record_set_uuid(message, MESSAGES_ID, bench.message_id);
    record_set_uuid(message, MESSAGES_SESSION_ID, bench.session_id);
    record_set_text(message, MESSAGES_ROLE, S("user"));
    record_set_text(message, MESSAGES_CONTENT, S("hello"));
    record_set_uuid(&key, MESSAGES_ID, bench.message_id);
    assert_false(store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e));
    flush_ok(&bench, ctx);
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e));
    tear_down(&bench);
}

static void test_a_flush_of_nothing_is_nothing(struct testkit *kit, struct context *ctx)
{
    struct bench bench;
    struct error e;
    set_up(&bench, kit, ctx);
    flush_ok(&bench, ctx);
    assert_true(journal_post(&bench.writer, &e));
    assert_int_equal(stored_seq(&bench, ctx), 0);
    tear_down(&bench);
}

static void test_posted_events_keep_their_order_with_flushed_ones(struct testkit *kit,
                                                                  struct context *ctx)
{
    struct bench bench;
    struct error e;
    set_up(&bench, kit, ctx);
    write_started(&bench, ctx);
    flush_ok(&bench, ctx);
    for (int i = 0; i < 10; i++) {
        write_note(&bench, "posted");
        assert_true(journal_post(&bench.writer, &e));
    }
    write_note(&bench, "flushed");
    flush_ok(&bench, ctx);
    struct events events = read_after(&bench, ctx, 0);
    assert_int_equal(events.count, 12);
    assert_true(
        str_equal(json_str_or(events.items[11].data, S("message"), STR_NONE), S("flushed")));
    tear_down(&bench);
}

static void test_an_event_that_does_not_fold_is_never_written(struct testkit *kit,
                                                              struct context *ctx)
{
    struct bench bench;
    set_up(&bench, kit, ctx);
    write_note(&bench, "before the start");
    write_started(&bench, ctx);
    assert_int_equal(flush(&bench, ctx), REASON_CORRUPT);
    assert_int_equal(flush(&bench, ctx),
                     REASON_CORRUPT); /* for good: memory and journal may have parted */
    assert_int_equal(read_after(&bench, ctx, 0).count, 0);
    tear_down(&bench);
}

static void test_an_event_over_its_size_is_refused(struct testkit *kit, struct context *ctx)
{
    struct bench bench;
    char *text = calloc(1, SSE_EVENT_BYTES_MAX + 1);
    ensure(text != NULL);
    memset(text, 'x', SSE_EVENT_BYTES_MAX);
    set_up(&bench, kit, ctx);
    write_started(&bench, ctx);
    flush_ok(&bench, ctx);
    text[SSE_EVENT_BYTES_MAX - sizeof "{\"message\":\"\"}" + 1] = 0; /* the largest that fits */
    write_note(&bench, text);
    flush_ok(&bench, ctx);
    text[SSE_EVENT_BYTES_MAX - sizeof "{\"message\":\"\"}" + 1] = 'x'; /* and more */
    write_note(&bench, text);
    assert_int_equal(flush(&bench, ctx), REASON_TOO_LARGE);
    assert_int_equal(read_after(&bench, ctx, 0).count, 2);
    tear_down(&bench);
    free(text);
}

/* ---- two writers, lost batches ---- */

static void test_a_second_writer_of_the_same_run_conflicts_and_leaves_no_gap(struct testkit *kit,
                                                                             struct context *ctx)
{
    struct bench first, second;
    set_up(&first, kit, ctx);
    second = first;
    open_writer(&second, ctx);
    write_started(&first, ctx);
    write_started(&second, ctx);
    flush_ok(&first, ctx);
    assert_int_equal(flush(&second, ctx), REASON_CONFLICT);
    assert_int_equal(read_after(&first, ctx, 0).count, 1);
    assert_int_equal(stored_seq(&first, ctx), 1);
    journal_writer_deinit(&second.writer);
    tear_down(&first);
}

static enum commit_outcome lose(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    (void) batch;
    return COMMIT_LOST;
}

static void test_after_a_lost_batch_the_next_one_conflicts_instead_of_leaving_a_gap(
    struct testkit *kit, struct context *ctx)
{
    struct bench bench;
    set_up(&bench, kit, ctx);
    write_started(&bench, ctx);
    flush_ok(&bench, ctx);
    write_note(&bench, "lost");
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = lose});
    assert_int_equal(flush(&bench, ctx), REASON_OUTCOME_UNKNOWN);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    write_note(&bench, "after it");
    assert_int_equal(flush(&bench, ctx), REASON_CONFLICT);
    assert_int_equal(read_after(&bench, ctx, 0).count, 1);
    tear_down(&bench);
}

static void test_a_writer_whose_session_was_claimed_by_another_is_fenced(struct testkit *kit,
                                                                         struct context *ctx)
{
    struct bench bench;
    struct error e;
    int64_t epoch = 0;
    set_up(&bench, kit, ctx);
    write_started(&bench, ctx);
    flush_ok(&bench, ctx);
    assert_true(
        store_claim(kit->store, ctx, kit->tenant_id, bench.session_id, S("node-1"), &epoch, &e));
    assert_true(epoch > bench.epoch);
    write_note(&bench, "too late");
    assert_int_equal(flush(&bench, ctx), REASON_FENCED);
    assert_int_equal(read_after(&bench, ctx, 0).count, 1);
    tear_down(&bench);
}

/* ---- what readers see ---- */

static str shown(struct bench *bench, struct context *ctx, const struct event *event,
                 bool data_only)
{
    struct strbuf text;
    struct json_writer w;
    struct error e = {0};
    strbuf_init(&text, ctx->arena, 1 << 20);
    json_writer_init(&w, &text);
    if (!journal_write_event(bench->kit->store, ctx, bench->kit->tenant_id, event, data_only, &w,
                             &e))
        fail_msg("%s", e.message);
    return strbuf_str(&text);
}

static void test_readers_get_the_content_joined_and_a_missing_row_is_no_error(struct testkit *kit,
                                                                              struct context *ctx)
{
    struct bench bench;
    set_up(&bench, kit, ctx);
    write_started(&bench, ctx);
    struct json_writer *w = journal_event(&bench.writer, EVENT_MESSAGE_ADDED);
    json_put_str(w, S("message_id"), uuid_str(ctx->arena, bench.message_id));
    flush_ok(&bench, ctx);
    struct events events = read_after(&bench, ctx, 1);
    assert_true(str_find(shown(&bench, ctx, &events.items[0], true), S("content")) ==
                STR_NOT_FOUND);
    struct record *message = journal_row(&bench.writer, WRITE_INSERT, TABLE_MESSAGES);
    record_set_uuid(message, MESSAGES_ID, bench.message_id);
    record_set_uuid(message, MESSAGES_SESSION_ID, bench.session_id);
    record_set_text(message, MESSAGES_ROLE, S("user"));
    record_set_text(message, MESSAGES_CONTENT, S("he said \"hi\""));
    flush_ok(&bench, ctx);
    assert_true(str_find(shown(&bench, ctx, &events.items[0], true),
                         S("\"content\":\"he said \\\"hi\\\"\"")) != STR_NOT_FOUND);
    str whole = shown(&bench, ctx, &events.items[0], false);
    assert_true(str_starts_with(whole, S("{\"seq\":2,\"type\":\"message.added\",\"at\":\"")));
    const struct json *tree;
    struct error e;
    assert_true(json_parse(ctx->arena, whole, (struct json_limits){0}, &tree, &e));
    tear_down(&bench);
}

static void test_another_tenant_reads_nothing(struct testkit *kit, struct context *ctx)
{
    struct bench bench;
    struct events events;
    struct error e;
    set_up(&bench, kit, ctx);
    write_started(&bench, ctx);
    flush_ok(&bench, ctx);
    assert_true(
        journal_read(kit->store, ctx, kit->other_tenant_id, bench.run_id, 0, 10, &events, &e));
    assert_int_equal(events.count, 0);
    tear_down(&bench);
}

/* ---- following ---- */

struct follower {
    struct bench *bench;
    int64_t seen;
    int wakes;
    enum error_code ended;
};

static void follow(struct context *ctx, void *argument)
{
    struct follower *follower = argument;
    struct journal_follower *f = journal_follow(follower->bench->hub, ctx, follower->bench->run_id);
    struct error e = {0};
    while (follower->seen < 20 &&
           journal_wait(f, ctx, follower->seen, context_deadline_in(ctx, 1000), &e)) {
        struct events events = read_after(follower->bench, ctx, follower->seen);
        for (size_t i = 0; i < events.count; i++)
            assert_int_equal(events.items[i].seq, ++follower->seen); /* each once, in order */
        follower->wakes++;
    }
    follower->ended = e.code;
    journal_unfollow(f);
}

static void test_followers_see_every_event_once_and_in_order(struct testkit *kit,
                                                             struct context *ctx)
{
    enum { FOLLOWERS = 5 };
    struct bench bench;
    struct follower followers[FOLLOWERS];
    struct group group;
    struct error e;
    set_up(&bench, kit, ctx);
    group_init(&group, ctx);
    for (int i = 0; i < FOLLOWERS; i++) {
        followers[i] = (struct follower){.bench = &bench};
        assert_true(group_start(&group, "follower", follow, &followers[i], &e));
    }
    write_started(&bench, ctx);
    flush_ok(&bench, ctx);
    for (int i = 2; i <= 20; i++) {
        write_note(&bench, "n");
        assert_true(i % 3 ? flush(&bench, ctx) == REASON_NONE : journal_post(&bench.writer, &e));
        if (i % 2)
            assert_true(context_sleep_ms(ctx, 5, &e));
    }
    group_wait(&group);
    for (int i = 0; i < FOLLOWERS; i++) {
        assert_int_equal(followers[i].seen, 20);
        assert_int_equal(followers[i].ended, ERROR_OK);
    }
    tear_down(&bench);
}

static size_t follower_sees(struct bench *bench, struct context *ctx, struct journal_follower *f)
{
    struct events events;
    struct error e = {0};
    if (!journal_follower_read(f, bench->kit->store, ctx, bench->kit->tenant_id, 0, STORE_PAGE_MAX,
                               &events, &e))
        fail_msg("%s", e.message);
    return events.count;
}

/* A row that is there already: the batch is not stored. */
static void spoil(struct bench *bench)
{
    struct record *row = journal_row(&bench->writer, WRITE_INSERT, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, bench->run_id);
    record_set_uuid(row, AGENT_RUNS_SESSION_ID, bench->session_id);
    record_set_text(row, AGENT_RUNS_STATUS, S("running"));
    record_set_text(row, AGENT_RUNS_COST, S("{}"));
    record_set_text(row, AGENT_RUNS_AGENT, S("assistant"));
    record_set_text(row, AGENT_RUNS_USER_ID, S("ada"));
    record_set_integer(row, AGENT_RUNS_LAST_SEQ, 0);
    record_set_integer(row, AGENT_RUNS_STARTED_AT, 1);
}

static void test_a_batch_of_rows_alone_makes_no_lost_event_readable(struct testkit *kit,
                                                                    struct context *ctx)
{
    struct bench bench;
    struct error e = {0};
    set_up(&bench, kit, ctx);
    struct journal_follower *f = journal_follow(bench.hub, ctx, bench.run_id);
    write_started(&bench, ctx);
    spoil(&bench);
    assert_true(journal_post(&bench.writer, &e));
    struct record *row = journal_row(&bench.writer, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, bench.run_id);
    record_set_text(row, AGENT_RUNS_STATUS, S("running"));
    flush_ok(&bench, ctx);
    assert_int_equal(follower_sees(&bench, ctx, f), 0);
    journal_unfollow(f);
    tear_down(&bench);
}

/* Another node stored other events in the place of those that this one could not. */
static void test_what_a_dead_writer_offered_is_not_read_behind_another_nodes_events(
    struct testkit *kit, struct context *ctx)
{
    struct bench dead, other, next;
    set_up(&dead, kit, ctx);
    struct journal_follower *f = journal_follow(dead.hub, ctx, dead.run_id);
    write_started(&dead, ctx);
    write_note(&dead, "lost");
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = lose});
    assert_int_equal(flush(&dead, ctx), REASON_OUTCOME_UNKNOWN);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    other = dead;
    other.hub = journal_hub_create();
    open_writer(&other, ctx);
    write_started(&other, ctx);
    write_note(&other, "stored");
    flush_ok(&other, ctx);
    next = other;
    next.hub = dead.hub;
    journal_writer_init(&next.writer, kit->store, next.hub, kit->clock, &next.state, kit->tenant_id,
                        next.session_id, next.run_id, S("node-0"), next.epoch);
    write_note(&next, "after");
    flush_ok(&next, ctx);
    struct events events;
    struct error e = {0};
    assert_true(journal_follower_read(f, kit->store, ctx, kit->tenant_id, 1, 1, &events, &e));
    assert_true(str_equal(json_str_or(events.items[0].data, S("message"), STR_NONE), S("stored")));
    journal_unfollow(f);
    journal_writer_deinit(&next.writer);
    tear_down(&other);
    tear_down(&dead);
}

static void test_a_follower_waits_no_longer_than_its_deadline_and_ends_when_cancelled(
    struct testkit *kit, struct context *ctx)
{
    struct bench bench;
    struct error e = {0};
    struct context cancelled;
    set_up(&bench, kit, ctx);
    struct journal_follower *f = journal_follow(bench.hub, ctx, bench.run_id);
    journal_publish(bench.hub, uuid_new(kit->clock, kit->random), 0, 99); /* another run's */
    assert_false(journal_wait(f, ctx, 0, context_deadline_in(ctx, 50), &e));
    assert_int_equal(e.code, ERROR_TIMEOUT);
    journal_publish(bench.hub, bench.run_id, 0, 3);
    assert_true(journal_wait(f, ctx, 2, context_deadline_in(ctx, 50), &e));
    e = (struct error){0};
    assert_false(journal_wait(f, ctx, 3, context_deadline_in(ctx, 50), &e));
    context_init_child(&cancelled, ctx, DEADLINE_NONE);
    context_cancel(&cancelled);
    e = (struct error){0};
    assert_false(journal_wait(f, &cancelled, 3, DEADLINE_NONE, &e));
    assert_int_equal(e.code, ERROR_CANCELLED);
    context_deinit(&cancelled);
    journal_unfollow(f);
    tear_down(&bench);
}

/* ---- over threads ---- */

enum { LOOPS = 3, READERS_EACH = 8, LAST = 300 };

struct reader {
    struct journal_hub *hub;
    struct loop *loop;
    uuid run_id;
    _Atomic int64_t *committed;
    _Atomic int *ready;
    _Atomic int *live;
    bool leaves_early;
    int64_t seen;
};

static void read_on_loop(void *argument)
{
    struct reader *reader = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    struct error e = {0};
    context_init(&ctx, loop_scheduler(reader->loop), arena, DEADLINE_NONE);
    struct journal_follower *f = journal_follow(reader->hub, &ctx, reader->run_id);
    atomic_fetch_add(reader->ready, 1);
    int64_t until = reader->leaves_early ? LAST / 3 : LAST;
    while (reader->seen < until) {
        ensure(journal_wait(f, &ctx, reader->seen, context_deadline_in(&ctx, 20000), &e));
        int64_t now = atomic_load(reader->committed);
        ensure(now >= reader->seen);
        reader->seen = now;
    }
    journal_unfollow(f);
    context_deinit(&ctx);
    if (atomic_fetch_sub(reader->live, 1) == 1)
        loop_stop(reader->loop);
}

static void test_followers_on_other_threads_miss_nothing(void **state)
{
    static struct reader readers[LOOPS * READERS_EACH];
    _Atomic int64_t committed = 0;
    _Atomic int ready = 0, live[LOOPS];
    struct journal_hub *hub = journal_hub_create();
    struct loop *loops[LOOPS];
    struct error e;
    uuid run_id = uuid_new(clock_system(), random_system());
    (void) state;
    for (int l = 0; l < LOOPS; l++) {
        loops[l] = loop_create(clock_system(), random_system(), &e);
        ensure(loops[l] != NULL);
        live[l] = READERS_EACH;
        for (int i = 0; i < READERS_EACH; i++) {
            struct reader *reader = &readers[l * READERS_EACH + i];
            *reader =
                (struct reader){hub, loops[l], run_id, &committed, &ready, &live[l], i % 4 == 0, 0};
            ensure(coroutine_start(loop_scheduler(loops[l]), "reader", read_on_loop, reader, &e));
        }
        ensure(loop_start_thread(loops[l], "reader", &e));
    }
    while (atomic_load(&ready) < LOOPS * READERS_EACH)
        sched_yield();
    for (int64_t seq = 1; seq <= LAST; seq++) {
        atomic_store(&committed, seq);
        journal_publish(hub, run_id, 0, seq);
        if (seq % 16 == 0)
            sched_yield();
    }
    for (int l = 0; l < LOOPS; l++) {
        loop_join_thread(loops[l]);
        loop_destroy(loops[l]);
    }
    for (size_t i = 0; i < ARRAY_COUNT(readers); i++)
        assert_true(readers[i].seen >= (readers[i].leaves_early ? LAST / 3 : LAST));
    journal_hub_destroy(hub);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_events_are_numbered_folded_and_read_back),
        TESTKIT_BODY(test_rows_travel_with_the_events_of_their_batch),
        TESTKIT_BODY(test_a_flush_of_nothing_is_nothing),
        TESTKIT_BODY(test_posted_events_keep_their_order_with_flushed_ones),
        TESTKIT_BODY(test_an_event_that_does_not_fold_is_never_written),
        TESTKIT_BODY(test_an_event_over_its_size_is_refused),
        TESTKIT_BODY(test_a_second_writer_of_the_same_run_conflicts_and_leaves_no_gap),
        TESTKIT_BODY(test_after_a_lost_batch_the_next_one_conflicts_instead_of_leaving_a_gap),
        TESTKIT_BODY(test_a_writer_whose_session_was_claimed_by_another_is_fenced),
        TESTKIT_BODY(test_readers_get_the_content_joined_and_a_missing_row_is_no_error),
        TESTKIT_BODY(test_another_tenant_reads_nothing),
        TESTKIT_BODY(test_followers_see_every_event_once_and_in_order),
        TESTKIT_BODY(test_a_batch_of_rows_alone_makes_no_lost_event_readable),
        TESTKIT_BODY(test_what_a_dead_writer_offered_is_not_read_behind_another_nodes_events),
        TESTKIT_BODY(test_a_follower_waits_no_longer_than_its_deadline_and_ends_when_cancelled),
    };
    const struct CMUnitTest threads[] = {
        cmocka_unit_test(test_followers_on_other_threads_miss_nothing)};
    int failed = testkit_main(cases, ARRAY_COUNT(cases));
    return failed + cmocka_run_group_tests(threads, NULL, NULL);
}
