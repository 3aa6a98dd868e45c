#include "gateway/mcp/mcp_calls.h"

#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_testkit.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct mcp_ticket *enter(struct mcp_calls *calls, str session, str id, struct context *ctx)
{
    struct error e = {0};
    struct mcp_ticket *ticket = NULL;
    if (!mcp_calls_enter(calls, session, id, ctx, &ticket, &e))
        fail_msg("%s", e.message);
    return ticket;
}

static void test_a_call_is_cancelled_by_the_id_its_session_gave_it(struct testkit *kit,
                                                                   struct context *ctx)
{
    (void) kit;
    struct context mine, theirs;
    struct mcp_calls *calls = mcp_calls_create();
    context_init_child(&mine, ctx, DEADLINE_NONE);
    context_init_child(&theirs, ctx, DEADLINE_NONE);
    struct mcp_ticket *a = enter(calls, S("s1"), S("7"), &mine),
                      *b = enter(calls, S("s2"), S("7"), &theirs);
    assert_false(mcp_calls_cancel(calls, S("s1"), S("\"7\"")));
    assert_false(mcp_calls_cancel(calls, S("s3"), S("7")));
    assert_true(mcp_calls_cancel(calls, S("s1"), S("7")));
    assert_true(a->is_cancelled && context_is_cancelled(&mine));
    assert_false(b->is_cancelled || context_is_cancelled(&theirs));
    mcp_calls_leave(a);
    assert_false(mcp_calls_cancel(calls, S("s1"), S("7")));
    assert_int_equal(mcp_calls_cancel_session(calls, S("s2")), 1);
    assert_true(context_is_cancelled(&theirs));
    mcp_calls_leave(b);
    mcp_calls_leave(NULL);
    context_deinit(&mine);
    context_deinit(&theirs);
    mcp_calls_destroy(calls);
}

static void test_a_run_is_taken_over_from_the_call_that_follows_it(struct testkit *kit,
                                                                   struct context *ctx)
{
    struct mcp_calls *calls = mcp_calls_create();
    uuid run = uuid_new(kit->clock, kit->random);
    struct mcp_ticket *ticket = enter(calls, S("s"), S("1"), ctx);
    assert_false(mcp_calls_take_over(calls, S("s"), run));
    mcp_calls_set_run(ticket, run);
    assert_false(mcp_calls_take_over(calls, S("other"), run));
    assert_false(atomic_load(&ticket->is_taken_over));
    assert_true(mcp_calls_take_over(calls, S("s"), run));
    assert_true(atomic_load(&ticket->is_taken_over));
    mcp_calls_leave(ticket);
    mcp_calls_destroy(calls);
}

static void test_a_session_has_so_many_calls_in_work(struct testkit *kit, struct context *ctx)
{
    (void) kit;
    struct error e = {0};
    struct mcp_calls *calls = mcp_calls_create();
    struct mcp_ticket *tickets[MCP_SERVER_CALLS_PER_SESSION], *more;
    for (size_t i = 0; i < ARRAY_COUNT(tickets); i++)
        tickets[i] = enter(calls, S("s"), S("1"), ctx);
    assert_false(mcp_calls_enter(calls, S("s"), S("1"), ctx, &more, &e));
    assert_int_equal(e.reason, REASON_RATE_LIMIT);
    more = enter(calls, S("other"), S("1"), ctx);
    mcp_calls_leave(more);
    for (size_t i = 0; i < ARRAY_COUNT(tickets); i++)
        mcp_calls_leave(tickets[i]);
    mcp_calls_destroy(calls);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_a_call_is_cancelled_by_the_id_its_session_gave_it),
        TESTKIT_BODY(test_a_run_is_taken_over_from_the_call_that_follows_it),
        TESTKIT_BODY(test_a_session_has_so_many_calls_in_work),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
