#include "orchestrator/orchestrator_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/orchestrator_testkit.h"

static struct plain_request request_of(const char *model, uuid session_id)
{
    return (struct plain_request){.model = str_from_cstr(model),
                                  .session_id = session_id,
                                  .input_tokens_bound = 100,
                                  .choices = 1};
}

static enum error_reason begin(struct testkit *kit, struct context *ctx,
                               const struct principal *principal, struct plain_request request,
                               struct plain_call *call)
{
    struct error e = {0};
    (void) !context_sleep_ms(ctx, 2, &e); /* so that the entries' ids are in order */
    return plain_call_begin(kit->o, ctx, principal, &request, call, &e) ? REASON_NONE : e.reason;
}

static struct record newest_entry(struct testkit *kit, struct context *ctx)
{
    struct query query = query_of(TABLE_LEDGER);
    struct records rows;
    struct error e;
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
    struct plain_call call;
    struct error e;
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    assert_int_equal(call.max_output_tokens, 300);
    assert_int_equal(call.reserved.tokens, 400);
    assert_false(call.is_lowered);
    assert_true(context_sleep_ms(ctx, 25, &e));
    plain_call_end(kit->o, &call, &usage, -1, NULL);
    assert_entry(kit, ctx, "reported", 47);
    struct record row = newest_entry(kit, ctx);
    assert_int_equal(record_integer(&row, LEDGER_TIME_MS), 25);
    assert_int_equal(record_integer(&row, LEDGER_NANOUSD), 54);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_without_a_report_the_estimate_or_else_the_reservation_counts(struct testkit *kit,
                                                                              struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage silent = {0};
    struct error cut = {0};
    struct plain_call call;
    error_set(&cut, REASON_PROVIDER_NETWORK, "cut");
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    plain_call_end(kit->o, &call, &silent, 12, NULL);
    assert_entry(kit, ctx, "estimated", 112);
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    plain_call_end(kit->o, &call, NULL, -1, &cut);
    assert_entry(kit, ctx, "reserved", 400);
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    plain_call_end(kit->o, &call, NULL, 0, &cut);
    assert_entry(kit, ctx, "estimated", 100);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_a_provider_that_passes_the_reservation_is_an_overdraft(struct testkit *kit,
                                                                        struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = session_with(kit, ctx, 10000);
    struct usage usage = {.input_tokens = 400, .output_tokens = 100, .is_reported = true};
    struct plain_call call;
    assert_int_equal(begin(kit, ctx, &ada, request_of("fake", session_id), &call), REASON_NONE);
    plain_call_end(kit->o, &call, &usage, -1, NULL);
    assert_entry(kit, ctx, "overdraft", 500);
    testkit_check_ledger(kit, ctx, session_id);
}

static void test_the_output_is_lowered_to_what_fits_for_every_choice(struct testkit *kit,
                                                                     struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct plain_request request = request_of("fake", session_with(kit, ctx, 500));
    struct plain_call call;
    request.choices = 4;
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_NONE);
    assert_true(call.is_lowered);
    assert_int_equal(call.max_output_tokens, 100);
    assert_int_equal(call.reserved.tokens, 500);
    plain_call_end(kit->o, &call, NULL, 0, NULL);
    request.choices = 1;
    request.max_output_tokens = 50; /* the caller asks for less */
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_NONE);
    assert_int_equal(call.max_output_tokens, 50);
    plain_call_end(kit->o, &call, NULL, 0, NULL);
    request.max_output_tokens = 9999; /* or more than the model may */
    assert_int_equal(begin(kit, ctx, &ada, request, &call), REASON_NONE);
    assert_true(call.max_output_tokens <= 300);
    plain_call_end(kit->o, &call, NULL, 0, NULL);
    testkit_check_ledger(kit, ctx, request.session_id);
}

static void test_what_is_refused_leaves_no_reservation(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER),
                     eve = testkit_principal(kit, "eve", ROLE_LEVEL_USER);
    struct principal viewer = testkit_principal(kit, "ada", ROLE_LEVEL_VIEWER);
    uuid poor = session_with(kit, ctx, 115), rich = session_with(kit, ctx, 10000);
    struct plain_call call;
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

static void test_each_target_is_tried_once(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    struct plain_call call;
    assert_int_equal(begin(kit, ctx, &ada, request_of("pair", UUID_NONE), &call), REASON_NONE);
    const struct model_target *first = call.target;
    assert_true(plain_call_next_target(kit->o, &call));
    assert_ptr_not_equal(call.target, first);
    assert_false(plain_call_next_target(kit->o, &call));
    plain_call_end(kit->o, &call, NULL, 0, NULL);
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
    struct plain_call call;
    struct error ignored;
    for (int i = 0; i < 5; i++) {
        enum error_reason reason =
            begin(crowd->kit, ctx, &ada, request_of("fake", crowd->session_id), &call);
        assert_true(reason == REASON_NONE || reason == REASON_BUDGET);
        *(reason == REASON_NONE ? &crowd->made : &crowd->refused) += 1;
        (void) !context_sleep_ms(ctx, 20, &ignored);
        if (reason == REASON_NONE)
            plain_call_end(crowd->kit->o, &call, &usage, -1, NULL);
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
        TESTKIT_BODY(test_without_a_report_the_estimate_or_else_the_reservation_counts),
        TESTKIT_BODY(test_a_provider_that_passes_the_reservation_is_an_overdraft),
        TESTKIT_BODY(test_the_output_is_lowered_to_what_fits_for_every_choice),
        TESTKIT_BODY(test_what_is_refused_leaves_no_reservation),
        TESTKIT_BODY(test_each_target_is_tried_once),
        TESTKIT_BODY(test_sixty_four_at_once_on_one_session_never_pass_its_budget),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
