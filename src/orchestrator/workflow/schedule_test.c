/* Schedules over simulated parts: what starts, when, how often. */
#include "orchestrator/workflow/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/orchestrator_testkit.h"
#include "orchestrator/workflow/workflow_store.h"

#define MINUTE_MS INT64_C(60000)
#define HOUR_MS (60 * MINUTE_MS)

static struct principal ada(struct testkit *kit)
{
    return testkit_principal(kit, "ada", ROLE_LEVEL_USER);
}

static void put_workflow(struct testkit *kit, struct context *ctx, const char *text)
{
    struct principal user = ada(kit);
    struct workflow_entry *entry;
    struct definition_problems problems = {0};
    struct error e = {0};
    bool is_new;
    if (!workflow_put(kit->o, ctx, &user, str_from_cstr(text), &problems, &entry, &is_new, &e))
        fail_msg("%s", e.message);
    workflow_entry_release(entry);
}

#define QUICK "name: quick\nversion: 1.0.0\nsteps: [{id: a, sleep: 0s}]\noutput: done\n"
#define SLOW "name: slow\nversion: 1.0.0\nsteps: [{id: a, sleep: 30d}]\n"

static struct record put(struct testkit *kit, struct context *ctx,
                         const struct schedule_request *request)
{
    struct principal user = ada(kit);
    struct record row;
    struct error e = {0};
    bool is_new;
    if (!schedule_put(kit->o, ctx, &user, request, &row, &is_new, &e))
        fail_msg("%s", e.message);
    return row;
}

static struct error refuse(struct testkit *kit, struct context *ctx,
                           const struct schedule_request *request)
{
    struct principal user = ada(kit);
    struct record row;
    struct error e = {0};
    bool is_new;
    assert_false(schedule_put(kit->o, ctx, &user, request, &row, &is_new, &e));
    return e;
}

static struct record get(struct testkit *kit, struct context *ctx, const char *name)
{
    struct principal user = ada(kit);
    struct record row;
    struct error e = {0};
    if (!schedule_get(kit->o, ctx, &user, str_from_cstr(name), &row, &e))
        fail_msg("%s", e.message);
    return row;
}

static size_t sweep_on(struct testkit *kit, struct context *ctx, struct schedule_progress *progress)
{
    size_t started = 0;
    struct error e = {0};
    if (!schedules_sweep(kit->o, ctx, progress, &started, &e))
        fail_msg("%s", e.message);
    return started;
}

static size_t sweep(struct testkit *kit, struct context *ctx)
{
    OWNED(arena) keep = arena_create(0);
    return sweep_on(kit, ctx, &(struct schedule_progress){.keep = keep});
}

static void wait_ms(struct context *ctx, int64_t ms)
{
    struct error e = {0};
    assert_true(context_sleep_ms(ctx, ms, &e));
}

/* To 5 seconds past the next full hour, so that what follows does not depend on when the simulated world began. */
static void to_the_hour(struct testkit *kit, struct context *ctx)
{
    int64_t past_ms = clock_unix_us(kit->clock) / 1000 % HOUR_MS;
    wait_ms(ctx, HOUR_MS - past_ms + 5000);
}

static size_t run_count(struct testkit *kit, struct context *ctx)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    return rows.count;
}

static void test_an_instance_starts_at_each_time_and_once(struct testkit *kit, struct context *ctx)
{
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    struct record row = put(kit, ctx,
                            &(struct schedule_request){.name = S("s"),
                                                       .workflow = S("quick@^1"),
                                                       .cron = S("*/10 * * * *"),
                                                       .input = S("{\"a\":1}")});
    assert_true(str_equal(record_text(&row, SCHEDULES_MISSED), S("one")) &&
                str_equal(record_text(&row, SCHEDULES_OVERLAP), S("skip")) &&
                str_equal(record_text(&row, SCHEDULES_TIME_ZONE), S("UTC")) &&
                str_equal(record_text(&row, SCHEDULES_ROLE), S("user")));
    assert_int_equal(sweep(kit, ctx), 0);
    for (int64_t i = 1; i <= 3; i++) {
        int64_t due = record_integer(&row, SCHEDULES_NEXT_AT);
        wait_ms(ctx, 10 * MINUTE_MS);
        assert_int_equal(sweep(kit, ctx), 1);
        assert_int_equal(sweep(kit, ctx), 0);
        row = get(kit, ctx, "s");
        assert_int_equal(record_integer(&row, SCHEDULES_LAST_AT), due);
        assert_int_equal(record_integer(&row, SCHEDULES_NEXT_AT), due + 600000000);
        assert_int_equal(run_count(kit, ctx), i);
        wait_ms(ctx, 1);
        struct record run = testkit_run(kit, ctx, record_uuid(&row, SCHEDULES_LAST_RUN_ID));
        assert_true(str_equal(record_text(&run, AGENT_RUNS_USER_ID), S("ada")));
        assert_true(str_equal(record_text(&run, AGENT_RUNS_STATUS), S("completed")));
    }
}

static size_t missed_of(struct testkit *kit, struct context *ctx, const char *cron,
                        const char *missed, int64_t hours)
{
    size_t started = 0, now;
    to_the_hour(kit, ctx);
    (void) put(kit, ctx,
               &(struct schedule_request){.name = str_from_cstr(missed),
                                          .workflow = S("quick"),
                                          .cron = str_from_cstr(cron),
                                          .overlap = S("allow"),
                                          .missed = str_from_cstr(missed)});
    wait_ms(ctx, hours * HOUR_MS + 10 * MINUTE_MS);
    do {
        now = sweep(kit, ctx);
        started += now;
    } while (now > 0);
    struct record row = get(kit, ctx, missed);
    struct principal user = ada(kit);
    struct error e = {0};
    assert_true(record_integer(&row, SCHEDULES_NEXT_AT) > clock_unix_us(kit->clock));
    assert_true(record_integer(&row, SCHEDULES_NEXT_AT) <
                clock_unix_us(kit->clock) + HOUR_MS * 1000);
    if (started == 0)
        assert_non_null(
            strstr(str_to_cstr(ctx->arena, record_text(&row, SCHEDULES_LAST_ERROR)), "missed"));
    assert_true(schedule_remove(kit->o, ctx, &user, str_from_cstr(missed), &e));
    return started;
}

static size_t missed_after(struct testkit *kit, struct context *ctx, const char *missed,
                           int64_t hours)
{
    return missed_of(kit, ctx, "0 * * * *", missed, hours);
}

static void test_what_was_missed_is_made_up_for_as_the_schedule_says(struct testkit *kit,
                                                                     struct context *ctx)
{
    put_workflow(kit, ctx, QUICK);
    assert_int_equal(missed_after(kit, ctx, "skip", 5), 0);
    assert_int_equal(missed_after(kit, ctx, "one", 5), 1);
    assert_int_equal(missed_after(kit, ctx, "all", 5), 5);
}

static void test_a_long_time_of_missed_ones_is_bounded(struct testkit *kit, struct context *ctx)
{
    put_workflow(kit, ctx, QUICK);
    assert_int_equal(missed_after(kit, ctx, "all", 24 * 20), SCHEDULE_MISSED_MAX);
    assert_int_equal(missed_of(kit, ctx, "* * * * *", "all", 24 * 20), SCHEDULE_MISSED_MAX);
}

static void test_those_with_a_long_past_hold_up_nobody(struct testkit *kit, struct context *ctx)
{
    OWNED(arena) keep = arena_create(0);
    struct schedule_progress progress = {.keep = keep};
    struct schedule_request request = {
        .workflow = S("quick"), .cron = S("0 * * * *"), .overlap = S("allow"), .missed = S("all")};
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    for (unsigned i = 0; i < SCHEDULE_SWEEP_MAX; i++) {
        request.name = str_printf(ctx->arena, "a%u", i);
        (void) put(kit, ctx, &request);
    }
    request.name = S("z");
    (void) put(kit, ctx, &request);
    wait_ms(ctx, 3 * HOUR_MS);
    assert_int_equal(sweep_on(kit, ctx, &progress), SCHEDULE_SWEEP_MAX);
    assert_int_equal(sweep_on(kit, ctx, &progress), 1);
    struct record row = get(kit, ctx, "z");
    assert_true(record_has(&row, SCHEDULES_LAST_AT));
    assert_int_equal(sweep_on(kit, ctx, &progress), SCHEDULE_SWEEP_MAX);
}

static void test_an_overlap_is_skipped_allowed_or_ends_the_one_before(struct testkit *kit,
                                                                      struct context *ctx)
{
    static const char *const overlaps[] = {"skip", "allow", "cancel"};
    put_workflow(kit, ctx, SLOW);
    for (size_t i = 0; i < ARRAY_COUNT(overlaps); i++) {
        struct record row;
        str name = str_from_cstr(overlaps[i]);
        to_the_hour(kit, ctx);
        (void) put(
            kit, ctx,
            &(struct schedule_request){
                .name = name, .workflow = S("slow"), .cron = S("0 * * * *"), .overlap = name});
        wait_ms(ctx, HOUR_MS);
        assert_int_equal(sweep(kit, ctx), 1);
        row = get(kit, ctx, overlaps[i]);
        uuid first = record_uuid(&row, SCHEDULES_LAST_RUN_ID);
        wait_ms(ctx, HOUR_MS);
        assert_int_equal(sweep(kit, ctx), i == 0 ? 0 : 1);
        wait_ms(ctx, 1000);
        row = get(kit, ctx, overlaps[i]);
        struct record run = testkit_run(kit, ctx, first);
        bool is_ended = str_equal(record_text(&run, AGENT_RUNS_STATUS), S("cancelled"));
        assert_int_equal(is_ended, i == 2);
        assert_int_equal(uuid_equal(first, record_uuid(&row, SCHEDULES_LAST_RUN_ID)), i == 0);
        struct principal user = ada(kit);
        struct error e = {0};
        assert_true(schedule_remove(kit->o, ctx, &user, name, &e));
    }
}

static void test_a_pause_holds_it_and_what_fell_into_it_is_not_missed(struct testkit *kit,
                                                                      struct context *ctx)
{
    struct principal user = ada(kit), other = testkit_principal(kit, "bob", ROLE_LEVEL_USER);
    struct record row;
    struct error e = {0};
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    (void) put(
        kit, ctx,
        &(struct schedule_request){.name = S("s"), .workflow = S("quick"), .cron = S("0 * * * *")});
    assert_false(schedule_pause(kit->o, ctx, &other, S("s"), true, &row, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_true(schedule_pause(kit->o, ctx, &user, S("s"), true, &row, &e));
    assert_false(record_has(&row, SCHEDULES_NEXT_AT));
    wait_ms(ctx, 5 * HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 0);
    assert_true(schedule_pause(kit->o, ctx, &user, S("s"), false, &row, &e));
    assert_int_equal(sweep(kit, ctx), 0);
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 1);
    assert_false(schedule_remove(kit->o, ctx, &other, S("s"), &e));
    assert_true(schedule_remove(kit->o, ctx, &user, S("s"), &e));
    assert_false(schedule_get(kit->o, ctx, &user, S("s"), &row, &e));
}

/* A client asks again when the answer to its first request was lost. */
static void test_going_on_twice_does_not_pass_over_a_time_that_is_due(struct testkit *kit,
                                                                      struct context *ctx)
{
    struct principal user = ada(kit);
    struct record row;
    struct error e = {0};
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    (void) put(
        kit, ctx,
        &(struct schedule_request){.name = S("s"), .workflow = S("quick"), .cron = S("0 * * * *")});
    assert_true(schedule_pause(kit->o, ctx, &user, S("s"), true, &row, &e));
    assert_true(schedule_pause(kit->o, ctx, &user, S("s"), false, &row, &e));
    int64_t due_us = record_integer(&row, SCHEDULES_NEXT_AT);
    wait_ms(ctx, HOUR_MS);
    assert_true(schedule_pause(kit->o, ctx, &user, S("s"), false, &row, &e));
    assert_int_equal(record_integer(&row, SCHEDULES_NEXT_AT), due_us);
    assert_int_equal(sweep(kit, ctx), 1);
    row = get(kit, ctx, "s");
    assert_int_equal(record_integer(&row, SCHEDULES_LAST_AT), due_us);
}

/* Out of files, say: the zone is not gone, and neither is the schedule. */
static void test_a_time_zone_that_cannot_be_read_now_leaves_the_time_due(struct testkit *kit,
                                                                         struct context *ctx)
{
    OWNED(arena) keep = arena_create(0);
    struct schedule_progress progress = {.keep = keep};
    struct rlimit before, none;
    struct error e = {0};
    size_t started;
    if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK) != 0)
        return; /* this system has no zones */
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    struct record row = put(kit, ctx,
                            &(struct schedule_request){.name = S("s"),
                                                       .workflow = S("quick"),
                                                       .cron = S("0 * * * *"),
                                                       .time_zone = S("Europe/Berlin")});
    int64_t due_us = record_integer(&row, SCHEDULES_NEXT_AT);
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    bool ok = schedules_sweep(kit->o, ctx, &progress, &started, &e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_false(ok);
    assert_int_equal(e.code, ERROR_UNAVAILABLE);
    row = get(kit, ctx, "s");
    assert_int_equal(record_integer(&row, SCHEDULES_NEXT_AT), due_us);
    assert_int_equal(sweep(kit, ctx), 1);
}

static void test_what_cannot_start_is_noted_and_passed_over(struct testkit *kit,
                                                            struct context *ctx)
{
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    (void) put(
        kit, ctx,
        &(struct schedule_request){.name = S("s"), .workflow = S("quick"), .cron = S("0 * * * *")});
    kit->denied[0] = S("run.start");
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 0);
    struct record row = get(kit, ctx, "s");
    assert_non_null(strstr(str_to_cstr(ctx->arena, record_text(&row, SCHEDULES_LAST_ERROR)),
                           "policy does not allow"));
    assert_true(record_integer(&row, SCHEDULES_NEXT_AT) > clock_unix_us(kit->clock));
    kit->denied[0] = STR_NONE;
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 1);
    row = get(kit, ctx, "s");
    assert_false(record_has(&row, SCHEDULES_LAST_ERROR));
}

static void test_what_is_no_schedule_is_refused(struct testkit *kit, struct context *ctx)
{
    static const struct {
        struct schedule_request request;
        const char *message;
    } cases[] = {
        {{.name = S_INIT("a b"), .workflow = S_INIT("quick"), .cron = S_INIT("@daily")}, "name"},
        {{.name = S_INIT("s"), .workflow = S_INIT("nope"), .cron = S_INIT("@daily")}, "nope"},
        {{.name = S_INIT("s"), .workflow = S_INIT("quick"), .cron = S_INIT("61 * * * *")},
         "cron: \"61\" is no minute"},
        {{.name = S_INIT("s"), .workflow = S_INIT("quick"), .cron = S_INIT("0 0 31 2 *")},
         "no such day ever comes"},
        {{.name = S_INIT("s"),
          .workflow = S_INIT("quick"),
          .cron = S_INIT("@daily"),
          .time_zone = S_INIT("../../etc/passwd")},
         "time_zone must be a name"},
        {{.name = S_INIT("s"),
          .workflow = S_INIT("quick"),
          .cron = S_INIT("@daily"),
          .time_zone = S_INIT("Mars/Olympus")},
         "is not known to this system"},
        {{.name = S_INIT("s"),
          .workflow = S_INIT("quick"),
          .cron = S_INIT("@daily"),
          .missed = S_INIT("none")},
         "missed must be one, skip or all"},
        {{.name = S_INIT("s"),
          .workflow = S_INIT("quick"),
          .cron = S_INIT("@daily"),
          .overlap = S_INIT("both")},
         "overlap must be skip, allow or cancel"},
    };
    put_workflow(kit, ctx, QUICK);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct error e = refuse(kit, ctx, &cases[i].request);
        if (!strstr(e.message, cases[i].message))
            fail_msg("%s", e.message);
    }
}

static void test_a_put_again_replaces_it_and_counts_from_now(struct testkit *kit,
                                                             struct context *ctx)
{
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    struct schedule_request request = {
        .name = S("s"), .workflow = S("quick"), .cron = S("0 * * * *")};
    (void) put(kit, ctx, &request);
    wait_ms(ctx, 3 * HOUR_MS);
    request.cron = S("30 * * * *");
    struct record row = put(kit, ctx, &request);
    assert_int_equal(record_integer(&row, SCHEDULES_REVISION), 2);
    assert_int_equal(sweep(kit, ctx), 0);
    wait_ms(ctx, 30 * MINUTE_MS);
    assert_int_equal(sweep(kit, ctx), 1);
}

static void test_one_may_be_run_at_once(struct testkit *kit, struct context *ctx)
{
    struct principal user = ada(kit);
    struct error e = {0};
    uuid run_id, session_id;
    put_workflow(kit, ctx, QUICK);
    (void) put(
        kit, ctx,
        &(struct schedule_request){.name = S("s"), .workflow = S("quick"), .cron = S("@yearly")});
    assert_true(schedule_run_now(kit->o, ctx, &user, S("s"), &run_id, &session_id, &e));
    wait_ms(ctx, 1);
    assert_true(str_equal(testkit_status(kit, ctx, run_id), S("completed")));
}

/* Two nodes, or one that died between starting and telling: the second finds that it was done. */
static void test_an_occurrence_that_two_start_is_started_once(struct testkit *kit,
                                                              struct context *ctx)
{
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    struct record before = put(
        kit, ctx,
        &(struct schedule_request){
            .name = S("s"), .workflow = S("quick"), .overlap = S("allow"), .cron = S("0 * * * *")});
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 1);
    struct batch batch; /* as the other node had read it */
    struct error e = {0};
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SCHEDULES);
    record_set_text(row, SCHEDULES_NAME, S("s"));
    record_set_integer(row, SCHEDULES_NEXT_AT, record_integer(&before, SCHEDULES_NEXT_AT));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_int_equal(sweep(kit, ctx), 0);
    assert_int_equal(run_count(kit, ctx), 1);
}

/* The wall time went back, and somebody put the schedule anew: times come again whose instances are there. */
static void test_a_time_whose_instance_is_there_is_passed_and_does_not_stop_the_schedule(
    struct testkit *kit, struct context *ctx)
{
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    struct record before = put(kit, ctx,
                               &(struct schedule_request){.name = S("s"),
                                                          .workflow = S("quick"),
                                                          .overlap = S("allow"),
                                                          .missed = S("all"),
                                                          .cron = S("0 * * * *")});
    int64_t first_us = record_integer(&before, SCHEDULES_NEXT_AT);
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 1);
    struct record done = get(kit, ctx, "s");
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SCHEDULES);
    record_set_text(row, SCHEDULES_NAME, S("s"));
    record_set_integer(row, SCHEDULES_NEXT_AT, first_us);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 0);
    struct record passed = get(kit, ctx, "s");
    assert_int_equal(record_integer(&passed, SCHEDULES_NEXT_AT), first_us + HOUR_MS * 1000);
    assert_int_equal(record_integer(&passed, SCHEDULES_LAST_AT), first_us);
    assert_true(uuid_equal(record_uuid(&passed, SCHEDULES_LAST_RUN_ID),
                           record_uuid(&done, SCHEDULES_LAST_RUN_ID)));
    assert_false(record_has(&passed, SCHEDULES_LAST_ERROR));
    assert_int_equal(sweep(kit, ctx), 1);
    assert_int_equal(run_count(kit, ctx), 2);
}

/* ---- the key that put it ---- */

static struct principal with_key(struct testkit *kit, struct context *ctx, const char *limits)
{
    struct principal user = ada(kit);
    struct batch batch;
    struct error e = {0};
    user.key_id = uuid_new(kit->clock, kit->random);
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, user.key_id);
    record_set_text(row, API_KEYS_NAME, S("k"));
    record_set_text(row, API_KEYS_PREFIX, S("nxk_"));
    record_set_text(row, API_KEYS_HASH, uuid_str(ctx->arena, user.key_id));
    record_set_text(row, API_KEYS_USER_ID, S("ada"));
    record_set_text(row, API_KEYS_CREATED_BY, S("root"));
    record_set_text(row, API_KEYS_ROLE, S("user"));
    record_set_text(row, API_KEYS_SCOPES, S("[]"));
    record_set_integer(row, API_KEYS_CREATED_AT, clock_unix_us(kit->clock));
    if (limits)
        record_set_text(row, API_KEYS_LIMITS, str_from_cstr(limits));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    return user;
}

static void change_key(struct testkit *kit, struct context *ctx, uuid id, int column, int64_t at_us,
                       const char *text)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, id);
    if (text)
        record_set_text(row, column, str_from_cstr(text));
    else
        record_set_integer(row, column, at_us);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
}

static const struct schedule_request hourly = {
    .name = S_INIT("s"), .workflow = S_INIT("quick"), .cron = S_INIT("0 * * * *")};

static struct principal put_with_key(struct testkit *kit, struct context *ctx)
{
    struct principal user = with_key(kit, ctx, NULL);
    struct record row;
    struct error e = {0};
    bool is_new;
    put_workflow(kit, ctx, QUICK);
    to_the_hour(kit, ctx);
    if (!schedule_put(kit->o, ctx, &user, &hourly, &row, &is_new, &e))
        fail_msg("%s", e.message);
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 1);
    wait_ms(ctx, HOUR_MS);
    return user;
}

static void expect_refused(struct testkit *kit, struct context *ctx, const char *why)
{
    assert_int_equal(sweep(kit, ctx), 0);
    struct record row = get(kit, ctx, "s");
    const char *told = str_to_cstr(ctx->arena, record_text(&row, SCHEDULES_LAST_ERROR));
    if (!strstr(told, why))
        fail_msg("%s", told);
}

static void test_it_ends_with_the_key_that_put_it(struct testkit *kit, struct context *ctx)
{
    struct principal user = put_with_key(kit, ctx);
    change_key(kit, ctx, user.key_id, API_KEYS_REVOKED_AT, clock_unix_us(kit->clock), NULL);
    expect_refused(kit, ctx, "expired, revoked or gone");
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 0); /* until somebody puts it again */
    (void) put(kit, ctx, &hourly);
    wait_ms(ctx, HOUR_MS);
    assert_int_equal(sweep(kit, ctx), 1);
}

static void test_an_expired_key_starts_nothing(struct testkit *kit, struct context *ctx)
{
    struct principal user = put_with_key(kit, ctx);
    change_key(kit, ctx, user.key_id, API_KEYS_EXPIRES_AT, clock_unix_us(kit->clock) - 1, NULL);
    expect_refused(kit, ctx, "expired, revoked or gone");
}

static void test_a_key_that_was_lowered_lowers_what_it_put(struct testkit *kit, struct context *ctx)
{
    struct principal user = put_with_key(kit, ctx);
    change_key(kit, ctx, user.key_id, API_KEYS_ROLE, 0, "viewer");
    expect_refused(kit, ctx, "viewer");
    wait_ms(ctx, HOUR_MS);
    change_key(kit, ctx, user.key_id, API_KEYS_ROLE, 0, "admin"); /* never above what it had */
    assert_int_equal(sweep(kit, ctx), 1);
    struct record row = get(kit, ctx, "s");
    struct record run = testkit_run(kit, ctx, record_uuid(&row, SCHEDULES_LAST_RUN_ID));
    struct record wanted = record_of(TABLE_SESSIONS), session;
    struct error e = {0};
    record_set_uuid(&wanted, SESSIONS_ID, record_uuid(&run, AGENT_RUNS_SESSION_ID));
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &wanted, &session, &e));
    assert_true(str_equal(record_text(&session, SESSIONS_ROLE), S("user")));
}

static void test_the_models_of_a_key_hold_for_its_schedules(struct testkit *kit,
                                                            struct context *ctx)
{
    struct principal user = put_with_key(kit, ctx);
    struct principal narrow = with_key(kit, ctx, NULL);
    struct record row;
    struct error e = {0};
    bool is_new;
    narrow.limits.models = S("fast");
    struct schedule_request other = hourly;
    other.name = S("other");
    assert_false(schedule_put(kit->o, ctx, &narrow, &other, &row, &is_new, &e));
    assert_int_equal(e.code, ERROR_DENIED);
    change_key(kit, ctx, user.key_id, API_KEYS_LIMITS, 0, "{\"models\":[\"fast\"]}");
    expect_refused(kit, ctx, "workflow:quick");
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_an_instance_starts_at_each_time_and_once),
        TESTKIT_BODY(test_what_was_missed_is_made_up_for_as_the_schedule_says),
        TESTKIT_BODY(test_a_long_time_of_missed_ones_is_bounded),
        TESTKIT_BODY(test_those_with_a_long_past_hold_up_nobody),
        TESTKIT_BODY(test_an_overlap_is_skipped_allowed_or_ends_the_one_before),
        TESTKIT_BODY(test_a_pause_holds_it_and_what_fell_into_it_is_not_missed),
        TESTKIT_BODY(test_going_on_twice_does_not_pass_over_a_time_that_is_due),
        TESTKIT_BODY(test_a_time_zone_that_cannot_be_read_now_leaves_the_time_due),
        TESTKIT_BODY(test_what_cannot_start_is_noted_and_passed_over),
        TESTKIT_BODY(test_what_is_no_schedule_is_refused),
        TESTKIT_BODY(test_a_put_again_replaces_it_and_counts_from_now),
        TESTKIT_BODY(test_one_may_be_run_at_once),
        TESTKIT_BODY(test_an_occurrence_that_two_start_is_started_once),
        TESTKIT_BODY(test_a_time_whose_instance_is_there_is_passed_and_does_not_stop_the_schedule),
        TESTKIT_BODY(test_it_ends_with_the_key_that_put_it),
        TESTKIT_BODY(test_an_expired_key_starts_nothing),
        TESTKIT_BODY(test_a_key_that_was_lowered_lowers_what_it_put),
        TESTKIT_BODY(test_the_models_of_a_key_hold_for_its_schedules),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
