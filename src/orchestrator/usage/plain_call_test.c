#include "orchestrator/orchestrator_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/orchestrator_testkit.h"
#include "orchestrator/usage/plain_call.h"

static struct plain_request request_of(const char *model, uuid session_id)
{
    return (struct plain_request){.model = str_from_cstr(model),
                                  .session_id = session_id,
                                  .input_tokens_bound = 100,
                                  .choices = 1};
}

/* A call and its first attempt. */
struct made {
    struct plain_call call;
    struct plain_attempt attempt;
};

static enum error_reason begin(struct testkit *kit, struct context *ctx,
                               const struct principal *principal, struct plain_request request,
                               struct made *out)
{
    struct error e = {0};
    (void) !context_sleep_ms(ctx, 2, &e); /* so that the entries' ids are in order */
    if (!plain_call_begin(kit->o, ctx, principal, &request, &out->call, &e))
        return e.reason;
    if (plain_attempt_begin(kit->o, ctx, &out->call, NULL, &out->attempt, &e))
        return REASON_NONE;
    plain_call_end(kit->o, &out->call, PLAIN_CACHE_NONE, &e);
    return e.reason;
}

static void end(struct testkit *kit, struct made *made, const struct usage *usage,
                int64_t estimated_output, const struct error *failure)
{
    struct plain_result result = {
        .usage = usage, .estimated_output = estimated_output, .failure = failure};
    plain_attempt_end(kit->o, &made->attempt, &result);
    plain_call_end(kit->o, &made->call, PLAIN_CACHE_NONE, failure);
}

static struct record newest_entry(struct testkit *kit, struct context *ctx)
{
    struct query query = query_of(TABLE_LEDGER);
    struct records rows;
    struct error e = {0};
    assert_true(usage_log_sync(kit->o->usage, ctx, &e));
    query.is_descending = true;
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_true(rows.count > 0);
    return rows.items[0];
}

static void assert_entry(struct testkit *kit, struct context *ctx, const char *basis,
                         int64_t tokens)
{
    struct record row = newest_entry(kit, ctx);
    if (!str_equal(record_text(&row, LEDGER_BASIS), str_from_cstr(basis)) ||
        record_integer(&row, LEDGER_TOKENS) != tokens)
        fail_msg(STR_FMT " %lld, wanted %s %lld", STR_ARG(record_text(&row, LEDGER_BASIS)),
                 (long long) record_integer(&row, LEDGER_TOKENS), basis, (long long) tokens);
}

static uuid session_with(struct testkit *kit, struct context *ctx, int64_t tokens)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    cost budget = COST_LIMITLESS;
    budget.tokens = tokens;
    return testkit_session(kit, ctx, &ada, budget);
}

static void test_what_the_provider_reports_settles_the_call(struct testkit *kit,
                                                            struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage usage = {.input_tokens = 40, .output_tokens = 7, .is_reported = true};
    struct made call;
    struct error e;
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    assert_int_equal(call.attempt.max_output_tokens, 300);
    assert_int_equal(call.attempt.reserved.tokens, 400);
    assert_false(call.attempt.is_lowered);
    assert_true(context_sleep_ms(ctx, 25, &e));
    end(kit, &call, &usage, -1, NULL);
    assert_entry(kit, ctx, "reported", 47);
    struct record row = newest_entry(kit, ctx);
    assert_int_equal(record_integer(&row, LEDGER_TIME_MS), 25);
    assert_int_equal(record_integer(&row, LEDGER_NANOUSD), 54);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_a_key_asks_for_the_names_on_its_list_only(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct made call;
    ada.limits.models = S("agent:*\nother");
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_DENIED);
    ada.limits.models = S("fa*");
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    end(kit, &call, NULL, 1, NULL);
}

static void test_without_a_report_the_estimate_or_else_the_reservation_counts(struct testkit *kit,
                                                                              struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage silent = {0};
    struct error cut = {0};
    struct made call;
    error_set(&cut, REASON_PROVIDER_NETWORK, "cut");
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    end(kit, &call, &silent, 12, NULL);
    assert_entry(kit, ctx, "estimated", 112);
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    end(kit, &call, NULL, -1, &cut);
    assert_entry(kit, ctx, "reserved", 400);
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    end(kit, &call, NULL, 0, &cut);
    assert_entry(kit, ctx, "estimated", 100);
    testkit_check_ledger(kit, ctx, session_id);
}

/* The input is exact then, and only the output is bounded: by what was seen, or by all that it was allowed. */
static void test_what_a_provider_said_at_the_begin_is_not_lost_with_the_rest(struct testkit *kit,
                                                                             struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage begun = {.input_tokens = 40, .output_tokens = 1};
    struct error cut = {0};
    struct made call;
    error_set(&cut, REASON_PROVIDER_NETWORK, "cut");
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    end(kit, &call, &begun, 12, &cut);
    assert_entry(kit, ctx, "estimated", 52);
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    end(kit, &call, &begun, -1, &cut);
    assert_entry(kit, ctx, "estimated", 340);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_a_provider_that_passes_the_reservation_is_an_overdraft(struct testkit *kit,
                                                                        struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage usage = {.input_tokens = 400, .output_tokens = 100, .is_reported = true};
    struct made call;
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    end(kit, &call, &usage, -1, NULL);
    assert_entry(kit, ctx, "overdraft", 500);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_the_output_is_lowered_to_what_fits_for_every_choice(struct testkit *kit,
                                                                     struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct plain_request request = request_of("fake", session_with(kit, ctx, 500));
    struct made call;
    request.choices = 4;
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_NONE);
    assert_true(call.attempt.is_lowered);
    assert_int_equal(call.attempt.max_output_tokens, 100);
    assert_int_equal(call.attempt.reserved.tokens, 500);
    end(kit, &call, NULL, 0, NULL);
    request.choices = 1;
    request.max_output_tokens = 50; /* the caller asks for less */
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_NONE);
    assert_int_equal(call.attempt.max_output_tokens, 50);
    end(kit, &call, NULL, 0, NULL);
    request.max_output_tokens = 9999; /* or more than the model may */
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_NONE);
    assert_true(call.attempt.max_output_tokens <= 300);
    end(kit, &call, NULL, 0, NULL);
    testkit_check_ledger(kit, ctx, request.session_id);
}

static void test_what_is_refused_leaves_no_reservation(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER),
                     eve = testkit_principal(kit, "eve", ROLE_LEVEL_USER);
    struct principal viewer = testkit_principal(kit, "ada", ROLE_LEVEL_VIEWER);
    uuid poor = session_with(kit, ctx, 115), rich = session_with(kit, ctx, 10000);
    struct made call;
    struct error e;
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", poor), &call),
                     REASON_BUDGET); /* 16 tokens of output at least */
    assert_int_equal(begin(kit, ctx, &ada, request_of("nonsense", rich), &call),
                     REASON_UNKNOWN_MODEL);
    assert_int_equal(begin(kit, ctx, &eve, request_of("fake", rich), &call), REASON_NOT_FOUND);
    assert_int_equal(begin(kit, ctx, &viewer, request_of("fake", rich), &call), REASON_DENIED);
    kit->denied[0] = S("model.call");
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", rich), &call), REASON_POLICY_DENIED);
    kit->denied[0] = STR_NONE;
    assert_true(session_close(kit->o, ctx, &ada, rich, &e));
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", rich), &call), REASON_SESSION_CLOSED);
    testkit_check_ledger(kit, ctx, poor);
    testkit_check_ledger(kit, ctx, rich);
}

static void test_another_target_follows_a_failure(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct made call;
    struct plain_attempt second;
    struct error failure = {0}, e = {0};
    assert_int_equal(begin(kit, ctx, &ada, request_of("pair", UUID_NONE), &call), REASON_NONE);
    const struct model_target *first = call.attempt.attempt.target;
    error_set(&failure, REASON_PROVIDER_AUTH, "the key is dead");
    struct plain_result refused = {.was_refused = true, .failure = &failure};
    plain_attempt_end(kit->o, &call.attempt, &refused);
    assert_true(plain_attempt_begin(kit->o, ctx, &call.call, &failure, &second, &e));
    assert_ptr_not_equal(second.attempt.target, first);
    plain_attempt_end(kit->o, &second, &refused);
    assert_false(plain_attempt_begin(kit->o, ctx, &call.call, &failure, &second, &e));
    plain_call_end(kit->o, &call.call, PLAIN_CACHE_NONE, &e);
    assert_true(cost_is_zero(call.call.spent));
}

static void test_a_failed_attempt_that_did_work_is_booked_beside_the_next(struct testkit *kit,
                                                                          struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage usage = {.input_tokens = 40, .output_tokens = 7, .is_reported = true};
    struct made call;
    struct plain_attempt second;
    struct error failure = {0}, e = {0};
    assert_int_equal(begin(kit, ctx, &ada, request_of("pair", session_id), &call), REASON_NONE);
    error_set(&failure, REASON_PROVIDER_NETWORK, "cut at the third token");
    plain_attempt_end(kit->o, &call.attempt,
                      &(struct plain_result){.estimated_output = 3, .failure = &failure});
    assert_true(plain_attempt_begin(kit->o, ctx, &call.call, &failure, &second, &e));
    plain_attempt_end(kit->o, &second,
                      &(struct plain_result){.usage = &usage, .estimated_output = -1});
    plain_call_end(kit->o, &call.call, PLAIN_CACHE_NONE, NULL);
    assert_int_equal(call.call.spent.tokens, 103 + 47);
    assert_int_equal(call.call.attempt_count, 2);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_a_hedge_has_a_reservation_of_its_own(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 1000);
    struct usage usage = {.input_tokens = 40, .output_tokens = 7, .is_reported = true};
    struct made call;
    struct plain_attempt second;
    struct error lost = {0}, e = {0};
    assert_int_equal(begin(kit, ctx, &ada, request_of("pair", session_id), &call), REASON_NONE);
    assert_true(plain_attempt_begin(kit->o, ctx, &call.call, NULL, &second, &e));
    assert_ptr_not_equal(second.attempt.target, call.attempt.attempt.target);
    assert_int_equal(second.reserved.tokens, 400);
    assert_int_equal(ledger_remaining(kit->o->ledger, &call.call.path).tokens, 200);
    error_set(&lost, REASON_CANCELLED, "the hedge lost");
    plain_attempt_end(kit->o, &second,
                      &(struct plain_result){.estimated_output = 0, .failure = &lost});
    end(kit, &call, &usage, -1, NULL);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_an_open_stream_ends_as_its_call_would(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage usage = {.input_tokens = 40, .output_tokens = 7, .is_reported = true};
    struct made call;
    struct plain_open open;
    struct error e;
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    plain_open(&call.call, &call.attempt, &open);
    memset(&call, 0xaa, sizeof call);
    assert_true(context_sleep_ms(ctx, 25, &e));
    plain_open_first_token(kit->o, &open);
    plain_open_end(kit->o, &open, &(struct plain_result){.usage = &usage, .estimated_output = -1});
    assert_int_equal(open.spent.tokens, 47);
    assert_entry(kit, ctx, "reported", 47);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_a_budget_of_money_lowers_the_output_too(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    cost budget = COST_LIMITLESS;
    struct made call;
    budget.cost_nanousd = 100 + 2 * 80; /* 1,000 pico-USD a token in, 2,000 out */
    struct plain_request request = request_of("fake", testkit_session(kit, ctx, &ada, budget));
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_NONE);
    assert_int_equal(call.attempt.max_output_tokens, 80);
    assert_true(call.attempt.is_lowered && call.attempt.must_limit);
    end(kit, &call, NULL, 0, NULL);
    request.input_tokens_bound = 250;
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_BUDGET);
    testkit_check_ledger(kit, ctx, request.session_id);
}

static void test_a_key_with_a_budget_is_charged_too(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct usage usage = {.input_tokens = 40, .output_tokens = 7, .is_reported = true};
    cost limit = COST_LIMITLESS;
    struct made call;
    struct error e = {0};
    ada.key_id = uuid_new(kit->clock, kit->random);
    ada.has_key_budget = true;
    limit.tokens = 600;
    assert_true(ledger_set_limit(kit->o->ledger, ctx, kit->tenant_id, ACCOUNT_KEY,
                                 uuid_str(ctx->arena, ada.key_id), limit, &e));
    uuid session_id = session_with(kit, ctx, 10000);
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    assert_int_equal(ledger_view(kit->o->ledger, &call.call.path, ACCOUNT_KEY).reserved.tokens,
                     400);
    end(kit, &call, &usage, -1, NULL);
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    assert_int_equal(ledger_view(kit->o->ledger, &call.call.path, ACCOUNT_KEY).spent.tokens, 47);
    end(kit, &call, NULL, -1, NULL);
    struct plain_request more = request_of("fake", session_id);
    more.input_tokens_bound = 140;
    assert_int_equal(begin(kit, ctx, &ada, more, &call), REASON_BUDGET);
    testkit_check_ledger(kit, ctx, session_id);
}

struct crowd {
    struct testkit *kit;
    uuid session_id;
    int made, refused;
};

static void call_many(struct context *ctx, void *argument)
{
    struct crowd *crowd = argument;
    struct principal ada = testkit_principal(crowd->kit, "ada", ROLE_LEVEL_USER);
    struct usage usage = {.input_tokens = 40, .output_tokens = 20, .is_reported = true};
    struct made call;
    struct error ignored;
    for (int i = 0; i < 5; i++) {
        enum error_reason reason =
            begin(crowd->kit, ctx, &ada, request_of("fake", crowd->session_id), &call);
        assert_true(reason == REASON_NONE || reason == REASON_BUDGET);
        *(reason == REASON_NONE ? &crowd->made : &crowd->refused) += 1;
        (void) !context_sleep_ms(ctx, 20, &ignored);
        if (reason == REASON_NONE)
            end(crowd->kit, &call, &usage, -1, NULL);
    }
}

static void test_sixty_four_at_once_on_one_session_never_pass_its_budget(struct testkit *kit,
                                                                         struct context *ctx)
{
    struct crowd crowd = {.kit = kit, .session_id = session_with(kit, ctx, 5000)};
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct group group;
    struct error e;
    str budget;
    group_init(&group, ctx);
    for (int i = 0; i < 64; i++)
        assert_true(group_start(&group, "caller", call_many, &crowd, &e));
    group_wait(&group);
    assert_true(crowd.made > 0 && crowd.refused > 0);
    assert_true(session_budget_json(kit->o, ctx, &ada, crowd.session_id, &budget, &e));
    const struct json *tree;
    int64_t spent = 0;
    assert_true(json_parse(ctx->arena, budget, (struct json_limits){0}, &tree, &e));
    assert_true(json_to_i64(json_path(tree, S("/spent/tokens")), &spent));
    assert_int_equal(spent, 60 * crowd.made);
    assert_true(spent <= 5000);
    testkit_check_ledger(kit, ctx, crowd.session_id);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_what_the_provider_reports_settles_the_call),
        TESTKIT_BODY(test_a_key_asks_for_the_names_on_its_list_only),
        TESTKIT_BODY(test_without_a_report_the_estimate_or_else_the_reservation_counts),
        TESTKIT_BODY(test_what_a_provider_said_at_the_begin_is_not_lost_with_the_rest),
        TESTKIT_BODY(test_a_provider_that_passes_the_reservation_is_an_overdraft),
        TESTKIT_BODY(test_the_output_is_lowered_to_what_fits_for_every_choice),
        TESTKIT_BODY(test_what_is_refused_leaves_no_reservation),
        TESTKIT_BODY(test_another_target_follows_a_failure),
        TESTKIT_BODY(test_a_failed_attempt_that_did_work_is_booked_beside_the_next),
        TESTKIT_BODY(test_a_hedge_has_a_reservation_of_its_own),
        TESTKIT_BODY(test_an_open_stream_ends_as_its_call_would),
        TESTKIT_BODY(test_a_budget_of_money_lowers_the_output_too),
        TESTKIT_BODY(test_a_key_with_a_budget_is_charged_too),
        TESTKIT_BODY(test_sixty_four_at_once_on_one_session_never_pass_its_budget),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
