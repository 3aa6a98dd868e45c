/* Accounts in memory: as many as are needed, and what they hold survives their going. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/map.h"
#include "orchestrator/ledger/ledger_internal.h"
#include "orchestrator/orchestrator_testkit.h"

static void open_and_close(struct testkit *kit, struct context *ctx, uuid session_id, cost reserve,
                           struct ledger_path *keep)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    struct ledger_path path;
    struct error e;
    limits.session.tokens = 1000;
    assert_true(ledger_open_path(ledger, ctx, kit->tenant_id, S("ada"), session_id, UUID_NONE,
                                 limits, &path, &e));
    assert_true(ledger_reserve(ledger, &path, reserve, &e));
    if (keep)
        *keep = path;
    ledger_close_path(ledger, &path);
}

static void many_sessions(struct context *ctx, void *argument)
{
    struct testkit *kit = argument;
    for (int i = 0; i < 50; i++)
        open_and_close(kit, ctx, uuid_new(kit->clock, kit->random), (cost){0}, NULL);
}

static void test_accounts_that_nobody_needs_leave_the_memory(struct testkit *kit)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    for (int i = 0; i < 20; i++) {
        testkit_do(kit, many_sessions, kit);
        testkit_run_ms(kit, LEDGER_ACCOUNT_IDLE_MS / 2);
    }
    assert_true(map_count(ledger->accounts) < 300); /* of 1,000 */
    assert_true(map_count(ledger->accounts) > 50);
}

/* A node that nobody asks anything of any more is as small as before: by the clock, a little at a time. */
static void test_they_leave_it_by_the_clock_too(struct testkit *kit)
{
    struct ledger *ledger = orchestrator_ledger(kit->o);
    for (int i = 0; i < 40; i++)
        testkit_do(kit, many_sessions, kit);
    testkit_run_ms(kit, LEDGER_ACCOUNT_IDLE_MS + 1000);
    size_t before = map_count(ledger->accounts);
    assert_true(before >= 2000);
    assert_true(ledger_sweep_idle(ledger));
    assert_true(map_count(ledger->accounts) < before);
    assert_true(map_count(ledger->accounts) > 0);
    while (ledger_sweep_idle(ledger))
        ;
    assert_true(map_count(ledger->accounts) < 5);
}

struct waiting {
    struct testkit *kit;
    uuid session_id;
};

static void reserve_and_leave(struct context *ctx, void *argument)
{
    struct waiting *waiting = argument;
    open_and_close(waiting->kit, ctx, waiting->session_id, (cost){.tokens = 900}, NULL);
}

static void reserve_too_much(struct context *ctx, void *argument)
{
    struct waiting *waiting = argument;
    struct ledger *ledger = orchestrator_ledger(waiting->kit->o);
    struct ledger_limits limits = {.session = COST_LIMITLESS, .run = COST_LIMITLESS};
    struct ledger_path path;
    struct error e;
    assert_true(ledger_open_path(ledger, ctx, waiting->kit->tenant_id, S("ada"),
                                 waiting->session_id, UUID_NONE, limits, &path, &e));
    assert_false(ledger_reserve(ledger, &path, (cost){.tokens = 101}, &e));
    assert_true(ledger_reserve(ledger, &path, (cost){.tokens = 100}, &e));
    ledger_close_path(ledger, &path);
}

static void test_what_is_reserved_stays_however_long_nobody_looks(struct testkit *kit)
{
    struct waiting waiting = {kit, uuid_new(kit->clock, kit->random)};
    testkit_do(kit, reserve_and_leave, &waiting);
    for (int i = 0; i < 10; i++) {
        testkit_run_ms(kit, LEDGER_ACCOUNT_IDLE_MS);
        testkit_do(kit, many_sessions, kit);
    }
    testkit_do(kit, reserve_too_much, &waiting);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_accounts_that_nobody_needs_leave_the_memory),
        TESTKIT_SCRIPT(test_they_leave_it_by_the_clock_too),
        TESTKIT_SCRIPT(test_what_is_reserved_stays_however_long_nobody_looks),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
