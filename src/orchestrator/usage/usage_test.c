#include "orchestrator/usage/usage_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_testkit.h"
#include "orchestrator/usage/plain_call.h"
#include "orchestrator/usage/usage_log.h"
#include <pthread.h>

/* ---- the chunk ---- */

static struct usage_record record_of_number(int number)
{
    return (struct usage_record){
        .shape = {.user_id = number % 2 ? S("ada") : S("bob"),
                  .dialect = S("openai"),
                  .kind = S("chat"),
                  .model = S("fast"),
                  .provider = S("local"),
                  .target_model = S("llama"),
                  .status = number % 5 ? S("ok") : S("rate_limited"),
                  .basis = S("reported")},
        .call_id = {{1, 2, 3, (uint8_t) number}},
        .session_id = number % 3 ? UUID_NONE : (uuid){{9, (uint8_t) number}},
        .started_us = 1700000000000000ll + (number % 7) * 1000 - number,
        .duration_us = 1000 * number,
        .first_token_us = number % 4 ? 10 * number : -1,
        .input_tokens = number,
        .output_tokens = (int64_t) number << 20,
        .cost_nanousd = INT64_MAX - number,
        .attempts = 1,
        .cache = (enum usage_cache)(number % 3),
        .is_stream = number % 2,
    };
}

static void test_a_chunk_gives_back_what_was_written(struct testkit *kit, struct context *ctx)
{
    struct usage_writer w;
    struct usage_reader r;
    struct usage_record got;
    struct error e = {0};
    uint32_t numbers[4] = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX};
    (void) kit;
    usage_writer_init(&w, ctx->arena);
    for (int i = 0; i < 200; i++) {
        struct usage_record record = record_of_number(i);
        usage_write(&w, &record, &numbers[i % 2 + 2 * (i % 5 == 0)]);
    }
    assert_int_equal(w.shape_count, 4);
    assert_true(w.len < 200 * 64);
    assert_true(usage_reader_init(&r, ctx->arena, str_of((char *) w.bytes, w.len), &e));
    for (int i = 0; i < 200; i++) {
        struct usage_record want = record_of_number(i);
        assert_true(usage_read(&r, &got, &e));
        assert_true(str_equal(got.shape.user_id, want.shape.user_id));
        assert_true(str_equal(got.shape.status, want.shape.status));
        assert_true(uuid_equal(got.call_id, want.call_id));
        assert_true(uuid_equal(got.session_id, want.session_id));
        assert_int_equal(got.started_us, want.started_us);
        assert_int_equal(got.first_token_us, want.first_token_us);
        assert_int_equal(got.output_tokens, want.output_tokens);
        assert_int_equal(got.cost_nanousd, want.cost_nanousd);
        assert_int_equal(got.cache, want.cache);
        assert_int_equal(got.is_stream, want.is_stream);
    }
    assert_false(usage_read(&r, &got, &e));
    assert_int_equal(e.code, ERROR_OK);
}

static void test_a_chunk_that_was_cut_is_an_error_not_a_crash(struct testkit *kit,
                                                              struct context *ctx)
{
    struct usage_writer w;
    uint32_t number = UINT32_MAX;
    struct usage_record record = record_of_number(3), got;
    (void) kit;
    usage_writer_init(&w, ctx->arena);
    usage_write(&w, &record, &number);
    for (size_t len = 0; len < w.len; len++) {
        struct usage_reader r;
        struct error e = {0};
        if (usage_reader_init(&r, ctx->arena, str_of((char *) w.bytes, len), &e))
            while (usage_read(&r, &got, &e))
                continue;
        assert_true(e.reason == REASON_STORE || len == 4);
    }
}

static void test_quantiles_lie_within_their_bucket(struct testkit *kit, struct context *ctx)
{
    int64_t counts[USAGE_LATENCY_BUCKETS] = {0};
    (void) kit, (void) ctx;
    assert_true(usage_latency_quantile(counts, 0.5) == 0);
    for (int i = 1; i <= 100; i++)
        counts[usage_latency_bucket(i * 10000)]++; /* 10, 20, ... 1000 ms */
    assert_true(usage_latency_quantile(counts, 0.5) > 400 &&
                usage_latency_quantile(counts, 0.5) <= 700);
    assert_true(usage_latency_quantile(counts, 0.95) > 700 &&
                usage_latency_quantile(counts, 0.95) <= 1000);
    assert_int_equal(usage_latency_bucket(0), 0);
    assert_int_equal(usage_latency_bucket(INT64_MAX), USAGE_LATENCY_BUCKETS - 1);
}

/* ---- calls that are made ---- */

struct done {
    uuid id;
    struct error e;
};

static struct done make_call(struct testkit *kit, struct context *ctx, const char *user,
                             uuid session_id, int64_t output, enum error_reason failure)
{
    struct principal who = testkit_principal(kit, user, ROLE_LEVEL_USER);
    struct plain_request request = {.model = S("fake"),
                                    .session_id = session_id,
                                    .input_tokens_bound = 100,
                                    .dialect = "openai",
                                    .kind = "chat"};
    struct usage usage = {.input_tokens = 40, .output_tokens = output, .is_reported = true};
    struct done done = {.id = UUID_NONE};
    struct plain_call call;
    struct plain_attempt attempt;
    struct plain_result result = {.usage = &usage, .estimated_output = -1};
    assert_true(plain_call_begin(kit->o, ctx, &who, &request, &call, &done.e));
    assert_true(plain_attempt_begin(kit->o, ctx, &call, NULL, &attempt, &done.e));
    assert_true(context_sleep_ms(ctx, 30, &done.e));
    attempt_first_token(&attempt.attempt);
    assert_true(context_sleep_ms(ctx, 20, &done.e));
    if (failure != REASON_NONE) {
        error_set(&done.e, failure, "the test says so");
        result.failure = &done.e;
    }
    plain_attempt_end(kit->o, &attempt, &result);
    done.id = call.id;
    plain_call_end(kit->o, &call, PLAIN_CACHE_NONE, result.failure);
    return done;
}

static size_t rows_of(struct testkit *kit, struct context *ctx, enum table table)
{
    struct query query = query_of(table);
    struct records rows;
    struct error e;
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    return rows.count;
}

static void sync(struct testkit *kit, struct context *ctx)
{
    struct error e = {0};
    if (!usage_log_sync(orchestrator_usage(kit->o), ctx, &e))
        fail_msg("%s", e.message);
}

static void test_many_calls_cost_a_handful_of_rows(struct testkit *kit, struct context *ctx)
{
    struct audit_report report;
    struct error e = {0};
    for (int i = 0; i < 5; i++) /* 50 ms each: simulated time flushes in between */
        (void) make_call(kit, ctx, "ada", UUID_NONE, 7, REASON_NONE);
    struct record *row;
    sync(kit, ctx);
    size_t chunks = rows_of(kit, ctx, TABLE_USAGE_CHUNKS);
    assert_true(chunks > 0 && chunks <= 6);
    assert_int_equal(rows_of(kit, ctx, TABLE_USAGE_DAILY), 1);
    assert_int_equal(rows_of(kit, ctx, TABLE_USAGE_LATENCY), 2);
    assert_int_equal(rows_of(kit, ctx, TABLE_LEDGER), chunks);
    struct query query = query_of(TABLE_USAGE_DAILY);
    struct records rows;
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    row = &rows.items[0];
    assert_int_equal(record_integer(row, USAGE_DAILY_REQUESTS), 5);
    assert_int_equal(record_integer(row, USAGE_DAILY_INPUT_TOKENS), 200);
    assert_int_equal(record_integer(row, USAGE_DAILY_OUTPUT_TOKENS), 35);
    assert_int_equal(record_integer(row, USAGE_DAILY_FIRST_TOKEN_US), 5 * 30000);
    assert_int_equal(record_integer(row, USAGE_DAILY_DURATION_US), 5 * 50000);
    assert_true(store_audit_verify(kit->store, ctx, kit->tenant_id, &report, &e));
    assert_true(report.ok);
    query = query_of(TABLE_AUDIT_LOGS);
    query_where_text(&query, AUDIT_LOGS_ACTION, S("model.calls"));
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, chunks);
}

static void test_what_is_pending_counts_against_the_limits(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    cost budget = COST_LIMITLESS;
    budget.tokens = 500;
    uuid session_id = testkit_session(kit, ctx, &ada, budget);
    (void) make_call(kit, ctx, "ada", session_id, 60, REASON_NONE);
    struct plain_request request = {
        .model = S("fake"), .session_id = session_id, .input_tokens_bound = 390};
    struct plain_call call;
    struct plain_attempt attempt;
    struct error e = {0};
    assert_true(plain_call_begin(kit->o, ctx, &ada, &request, &call, &e));
    assert_false(plain_attempt_begin(kit->o, ctx, &call, NULL, &attempt, &e)); /* 400 are left */
    assert_int_equal(e.reason, REASON_BUDGET);
    plain_call_end(kit->o, &call, PLAIN_CACHE_NONE, &e);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_calls_are_listed_newest_first_and_by_page(struct testkit *kit, struct context *ctx)
{
    struct principal op = testkit_principal(kit, "op", ROLE_LEVEL_OPERATOR);
    struct usage_page page;
    struct error e = {0};
    uuid ids[12];
    str cursor = STR_NONE;
    for (int i = 0; i < 12; i++)
        ids[i] = make_call(kit, ctx, i % 3 ? "ada" : "bob", UUID_NONE, i,
                           i % 4 == 3 ? REASON_PROVIDER_OVERLOADED : REASON_NONE)
                     .id;
    size_t seen = 0;
    do {
        assert_true(usage_calls(kit->o, ctx, &op, &(struct usage_filter){0}, cursor, 5, &page, &e));
        for (size_t i = 0; i < page.count; i++, seen++) {
            assert_true(seen < 12);
            assert_true(uuid_equal(page.items[i].call_id, ids[11 - seen]));
        }
        cursor = page.next_cursor;
    } while (!str_is_empty(cursor));
    assert_int_equal(seen, 12);
    struct usage_filter filter = {.status = S("error"), .user_id = S("ada")};
    assert_true(usage_calls(kit->o, ctx, &op, &filter, STR_NONE, 50, &page, &e));
    assert_int_equal(page.count, 2);
    assert_true(str_equal(page.items[0].shape.status, S("overloaded")));
    assert_false(usage_calls(kit->o, ctx, &op, &filter, S("x"), 50, &page, &e));
}

static void test_a_user_sees_only_their_own_calls(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct usage_filter bobs = {.user_id = S("bob")};
    struct usage_record record;
    struct usage_page page;
    struct error e = {0};
    uuid of_bob = make_call(kit, ctx, "bob", UUID_NONE, 1, REASON_NONE).id;
    uuid of_ada = make_call(kit, ctx, "ada", UUID_NONE, 1, REASON_NONE).id;
    assert_true(usage_calls(kit->o, ctx, &ada, &(struct usage_filter){0}, STR_NONE, 9, &page, &e));
    assert_int_equal(page.count, 1);
    assert_true(uuid_equal(page.items[0].call_id, of_ada));
    assert_false(usage_calls(kit->o, ctx, &ada, &bobs, STR_NONE, 9, &page, &e));
    assert_int_equal(e.reason, REASON_DENIED);
    assert_true(usage_find(kit->o, ctx, &ada, of_ada, &record, &e));
    assert_false(usage_find(kit->o, ctx, &ada, of_bob, &record, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
}

static void test_a_later_score_takes_the_place_of_the_first(struct testkit *kit,
                                                            struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER),
                     op = testkit_principal(kit, "op", ROLE_LEVEL_OPERATOR);
    struct usage_variant *variants;
    struct error e = {0};
    size_t count;
    struct usage_score score = {.call_id = make_call(kit, ctx, "ada", UUID_NONE, 7, REASON_NONE).id,
                                .thousandths = 200};
    assert_true(usage_feedback(kit->o, ctx, &ada, &score, &e));
    score.thousandths = 1000;
    score.comment = S("better after all");
    assert_true(usage_feedback(kit->o, ctx, &ada, &score, &e));
    score.thousandths = 500;
    assert_true(usage_feedback(kit->o, ctx, &op, &score, &e)); /* another person */
    assert_true(usage_experiment(kit->o, ctx, &op, S("fake"), 0, 0, &variants, &count, &e));
    assert_int_equal(count, 1);
    assert_int_equal(variants[0].sums.feedback_count, 2);
    assert_int_equal(variants[0].sums.feedback_sum, 1500);
    struct usage_interval interval = usage_feedback_interval(&variants[0].sums);
    assert_true(interval.mean == 0.75 && interval.low < 0.75 && interval.high == 1);
    assert_true(usage_latency_quantile(variants[0].duration, 0.5) <= 50);
    score.call_id = uuid_new(kit->clock, kit->random);
    assert_false(usage_feedback(kit->o, ctx, &ada, &score, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    score.thousandths = 1001;
    assert_false(usage_feedback(kit->o, ctx, &ada, &score, &e));
    assert_false(usage_experiment(kit->o, ctx, &ada, S("fake"), 0, 0, &variants, &count, &e));
}

static void test_sums_of_days_and_of_moments_agree(struct testkit *kit, struct context *ctx)
{
    struct principal op = testkit_principal(kit, "op", ROLE_LEVEL_OPERATOR);
    uuid session_id = testkit_session(kit, ctx, &op, COST_LIMITLESS);
    struct usage_sums days, moments;
    struct error e = {0};
    for (int i = 0; i < 6; i++)
        (void) make_call(kit, ctx, i % 2 ? "ada" : "bob", UUID_NONE, i, REASON_NONE);
    (void) testkit_start(kit, ctx, &op, session_id, "hello"); /* a run beside them */
    assert_true(context_sleep_ms(ctx, 1000, &e));
    struct usage_question question = {.by = USAGE_BY_USER | USAGE_BY_MODEL};
    assert_true(usage_sums(kit->o, ctx, &op, &question, &days, &e));
    question.from_us = 1;
    assert_true(usage_sums(kit->o, ctx, &op, &question, &moments, &e));
    assert_int_equal(days.count, 3);
    assert_int_equal(moments.count, 3);
    assert_true(cost_equal(days.total.sum, moments.total.sum));
    assert_int_equal(days.total.entries, moments.total.entries);
    assert_int_equal(days.total.requests, 6);
    question.by = USAGE_BY_PROVIDER;
    assert_false(usage_sums(kit->o, ctx, &op, &question, &moments, &e));
    assert_int_equal(e.reason, REASON_INVALID);
}

static void test_a_run_counts_against_the_key_it_was_started_with(struct testkit *kit,
                                                                  struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct record key = record_of(TABLE_BUDGETS), row;
    struct error e = {0};
    cost limit = COST_LIMITLESS;
    limit.tokens = 100000;
    ada.key_id = uuid_new(kit->clock, kit->random);
    ada.has_key_budget = true;
    str subject = uuid_str(ctx->arena, ada.key_id);
    struct ledger *ledger = orchestrator_ledger(kit->o);
    assert_true(ledger_set_limit(ledger, ctx, kit->tenant_id, ACCOUNT_KEY, subject, limit, &e));
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS);
    (void) testkit_start(kit, ctx, &ada, session_id, "hello");
    assert_true(context_sleep_ms(ctx, 2000, &e));
    record_set_text(&key, BUDGETS_LEVEL, S("key"));
    record_set_text(&key, BUDGETS_SUBJECT, subject);
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e));
    assert_int_equal(record_integer(&row, BUDGETS_SPENT_TOKENS), 15);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_each_tenant_has_chunks_of_its_own(struct testkit *kit, struct context *ctx)
{
    struct principal other = testkit_principal(kit, "ada", ROLE_LEVEL_OPERATOR);
    struct usage_page page;
    struct error e = {0};
    struct usage_record record = record_of_number(1);
    record.call_id = uuid_new(kit->clock, kit->random);
    usage_log_add(orchestrator_usage(kit->o), kit->other_tenant_id, &record);
    (void) make_call(kit, ctx, "ada", UUID_NONE, 1, REASON_NONE);
    sync(kit, ctx);
    assert_int_equal(rows_of(kit, ctx, TABLE_USAGE_CHUNKS), 1);
    other.tenant_id = kit->other_tenant_id;
    assert_true(
        usage_calls(kit->o, ctx, &other, &(struct usage_filter){0}, STR_NONE, 9, &page, &e));
    assert_int_equal(page.count, 1);
    assert_true(uuid_equal(page.items[0].call_id, record.call_id));
}

/* ---- crashes and a store that does not take it ---- */

static void test_a_store_that_fails_for_a_while_loses_nothing(struct testkit *kit,
                                                              struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    cost budget = COST_LIMITLESS;
    struct error e;
    budget.tokens = 5000;
    uuid session_id = testkit_session(kit, ctx, &ada, budget);
    fault_arm(S("usage.before:1,usage.before:2"));
    for (int i = 0; i < 3; i++)
        (void) make_call(kit, ctx, "ada", session_id, 7, REASON_NONE);
    assert_true(context_sleep_ms(ctx, 3 * USAGE_RETRY_MS, &e));
    fault_arm(S(""));
    sync(kit, ctx);
    struct query query = query_of(TABLE_USAGE_DAILY);
    struct records rows;
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(record_integer(&rows.items[0], USAGE_DAILY_REQUESTS), 3);
    testkit_check_ledger(kit, ctx, session_id);
}

static uuid crash_session;

static void call_and_die(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    cost budget = COST_LIMITLESS;
    struct error e;
    budget.tokens = 1000;
    crash_session = testkit_session(kit, ctx, &ada, budget);
    (void) make_call(kit, ctx, "ada", crash_session, 7, REASON_NONE);
    (void) !context_sleep_ms(ctx, 100, &e); /* the first is stored */
    (void) make_call(kit, ctx, "ada", crash_session, 9, REASON_NONE);
}

static void look_after_crash(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    struct error e;
    assert_true(context_sleep_ms(ctx, 100, &e)); /* recovery is through */
    struct record key = record_of(TABLE_BUDGETS), row;
    record_set_text(&key, BUDGETS_LEVEL, S("session"));
    record_set_text(&key, BUDGETS_SUBJECT, uuid_str(ctx->arena, crash_session));
    assert_true(store_get(kit->store, ctx, kit->tenant_id, &key, &row, &e));
    assert_int_equal(record_integer(&row, BUDGETS_LEASED_TOKENS), 0);
    int64_t spent = record_integer(&row, BUDGETS_SPENT_TOKENS);
    assert_true(spent >= 47 + 49 &&
                spent <= 1000); /* the second is covered by what was forfeited */
    testkit_check_ledger(kit, ctx, crash_session);
}

static void test_a_crash_before_the_flush_forfeits_the_lease(struct testkit *kit)
{
    testkit_begin(kit, call_and_die, kit);
    testkit_run_ms(kit, 50 + 100 + 50 + 10);
    testkit_crash(kit);
    testkit_do(kit, look_after_crash, kit);
}

/* ---- several threads ---- */

enum { THREADS = 4, ADDS = 3000 };

struct adder {
    struct testkit *kit;
    struct usage_log *log;
    int number;
};

static void *add_many(void *argument)
{
    struct adder *adder = argument;
    for (int i = 0; i < ADDS; i++) {
        struct usage_record record = record_of_number(adder->number * 7 + i % 50);
        record.cost_nanousd = 1;
        usage_log_add(adder->log, i % 3 ? adder->kit->tenant_id : adder->kit->other_tenant_id,
                      &record);
        if (i % 500 == 0)
            usage_log_flush(adder->log, i % 1000 == 0);
    }
    return NULL;
}

static void never(struct lane *lane, void (*fn)(void *argument), void *argument)
{
    (void) lane, (void) fn, (void) argument;
}

static void test_four_threads_lose_no_record(struct testkit *kit, struct context *ctx)
{
    struct store *store = memory_store_create(clock_system(), random_system(),
                                              (struct memory_store_hooks){0}, S("t"));
    struct ledger *ledger = ledger_create(store, clock_system(), random_system());
    struct lane lane = {.post = never};
    struct usage_log_parts parts = {.store = store,
                                    .ledger = ledger,
                                    .metrics = kit->metrics,
                                    .clock = clock_system(),
                                    .random = random_system(),
                                    .lane = &lane};
    struct usage_log *log = usage_log_create(&parts);
    struct adder adders[THREADS];
    pthread_t threads[THREADS];
    struct error e;
    int64_t calls = 0, requests = 0;
    for (int i = 0; i < THREADS; i++) {
        adders[i] = (struct adder){kit, log, i};
        assert_int_equal(pthread_create(&threads[i], NULL, add_many, &adders[i]), 0);
    }
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    usage_log_destroy(log);
    for (int t = 0; t < 2; t++) {
        uuid tenant_id = t ? kit->tenant_id : kit->other_tenant_id;
        struct query chunks = query_of(TABLE_USAGE_CHUNKS), days = query_of(TABLE_USAGE_DAILY);
        struct records rows;
        assert_true(store_list(store, ctx, tenant_id, &chunks, &rows, &e));
        for (size_t i = 0; i < rows.count; i++)
            calls += record_integer(&rows.items[i], USAGE_CHUNKS_CALLS);
        assert_true(store_list(store, ctx, tenant_id, &days, &rows, &e));
        for (size_t i = 0; i < rows.count; i++)
            requests += record_integer(&rows.items[i], USAGE_DAILY_REQUESTS);
    }
    assert_int_equal(calls, THREADS * ADDS);
    assert_int_equal(requests, THREADS * ADDS);
    ledger_destroy(ledger);
    store_destroy(store);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_a_chunk_gives_back_what_was_written),
        TESTKIT_BODY(test_a_chunk_that_was_cut_is_an_error_not_a_crash),
        TESTKIT_BODY(test_quantiles_lie_within_their_bucket),
        TESTKIT_BODY(test_many_calls_cost_a_handful_of_rows),
        TESTKIT_BODY(test_what_is_pending_counts_against_the_limits),
        TESTKIT_BODY(test_calls_are_listed_newest_first_and_by_page),
        TESTKIT_BODY(test_a_user_sees_only_their_own_calls),
        TESTKIT_BODY(test_a_later_score_takes_the_place_of_the_first),
        TESTKIT_BODY(test_sums_of_days_and_of_moments_agree),
        TESTKIT_BODY(test_a_run_counts_against_the_key_it_was_started_with),
        TESTKIT_BODY(test_each_tenant_has_chunks_of_its_own),
        TESTKIT_BODY(test_a_store_that_fails_for_a_while_loses_nothing),
        TESTKIT_BODY(test_four_threads_lose_no_record),
        TESTKIT_SCRIPT(test_a_crash_before_the_flush_forfeits_the_lease),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
