#include "agent/executor_guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "runtime/simulated.h"

/* An executor that takes as long as it is told and fails as it is told. */
struct fake {
    struct executor base;
    int64_t delay_ms;
    enum error_reason failure;
    int calls, inside, inside_max;
};

may_suspend static bool fake_execute(struct executor *executor, struct context *ctx,
                                     const struct tool_request *request, struct tool_result *out,
                                     struct error *e)
{
    struct fake *fake = CONTAINER_OF(executor, struct fake, base);
    (void) request;
    fake->calls++;
    fake->inside++;
    fake->inside_max = fake->inside > fake->inside_max ? fake->inside : fake->inside_max;
    bool ok = fake->delay_ms == 0 || context_sleep_ms(ctx, fake->delay_ms, e);
    fake->inside--;
    *out = (struct tool_result){.output = S("{}")};
    if (ok && fake->failure != REASON_NONE)
        return error_set(e, fake->failure, "as told");
    return ok;
}

static void fake_destroy(struct executor *executor)
{
    (void) executor;
}

static const struct executor_ops fake_ops = {"fake", fake_execute, fake_destroy};

struct scene {
    struct clock *clock;
    struct random *random;
    struct scheduler *scheduler;
    struct fake fake;
    struct executor_guard *guard;
    struct tool plain, fetching, remote, sibling;
};

static const str fetch_calls[] = {S_INIT("http_request")};

static void scene_init(struct scene *s, int32_t places, int32_t queue)
{
    *s = (struct scene){.fake = {.base = {&fake_ops}}};
    s->clock = clock_manual_create(1700000000000000, 1000000000);
    s->random = random_seeded_create(7);
    s->scheduler = scheduler_create(s->clock, s->random, (struct scheduler_hooks){0});
    s->plain = (struct tool){.name = S("plain")};
    s->fetching = (struct tool){
        .name = S("fetching"), .host_calls = (str *) (uintptr_t) fetch_calls, .host_call_count = 1};
    s->remote = (struct tool){
        .name = S("remote"), .abi = TOOL_ABI_MCP, .source_name = S("erp"), .is_idempotent = true};
    s->sibling = s->remote;
    s->sibling.name = S("sibling");
    s->guard = executor_guard_create(&(struct executor_guard_options){.give_next = &s->fake.base,
                                                                      .clock = s->clock,
                                                                      .random = s->random,
                                                                      .places = places,
                                                                      .server_places = places,
                                                                      .queue_max = queue,
                                                                      .wait_ms = 1000});
}

struct one_call {
    struct scene *scene;
    uuid tenant_id;
    const struct tool *tool;
    bool is_nested, is_ok;
    struct error e;
    int64_t ended_ms;
};

static void make_call(void *argument)
{
    struct one_call *call = argument;
    struct context ctx;
    OWNED(arena) arena = arena_create(0);
    struct tool_result result;
    struct tool_request request = {.tool = call->tool,
                                   .input = S("{}"),
                                   .is_nested = call->is_nested,
                                   .tenant_id = call->tenant_id};
    context_init(&ctx, call->scene->scheduler, arena, DEADLINE_NONE);
    call->is_ok = executor_execute(executor_guard_executor(call->scene->guard), &ctx, &request,
                                   &result, &call->e);
    call->ended_ms = context_now_ns(&ctx) / 1000000;
    context_deinit(&ctx);
}

static void begin(struct scene *s, struct one_call *call, const struct tool *tool)
{
    struct error e = {0};
    call->scene = s;
    call->tool = tool;
    assert_true(coroutine_start(s->scheduler, "call", make_call, call, &e));
}

static enum error_reason run_one(struct scene *s, const struct tool *tool)
{
    struct one_call call = {0};
    begin(s, &call, tool);
    assert_true(simulated_run(s->scheduler, s->clock, 1000000));
    return call.is_ok ? REASON_NONE : call.e.reason;
}

static void pass_ms(struct scene *s, int64_t ms)
{
    clock_manual_advance_ns(s->clock, ms * 1000000);
}

static void scene_deinit(struct scene *s)
{
    executor_destroy(executor_guard_executor(s->guard));
    scheduler_destroy(s->scheduler);
    random_seeded_destroy(s->random);
    clock_manual_destroy(s->clock);
}

static void test_so_many_at_once_so_many_wait_and_the_rest_is_told(void **state)
{
    (void) state;
    struct scene s;
    struct one_call calls[6] = {0};
    int ok = 0, refused = 0;
    scene_init(&s, 2, 3);
    s.fake.delay_ms = 100;
    for (size_t i = 0; i < ARRAY_COUNT(calls); i++)
        begin(&s, &calls[i], &s.plain);
    assert_true(simulated_run(s.scheduler, s.clock, 1000000));
    for (size_t i = 0; i < ARRAY_COUNT(calls); i++) {
        ok += calls[i].is_ok;
        refused += calls[i].e.reason == REASON_OVERLOADED_HERE;
    }
    assert_int_equal(ok, 5);
    assert_int_equal(refused, 1);
    assert_int_equal(s.fake.inside_max, 2);
    assert_true(calls[2].ended_ms <= calls[4].ended_ms); /* first come, first served */
    scene_deinit(&s);
}

static void test_who_waits_too_long_is_told_and_one_tool_takes_no_places_of_another(void **state)
{
    (void) state;
    struct scene s;
    struct one_call slow = {0}, late = {0}, other = {0};
    scene_init(&s, 1, 3);
    s.fake.delay_ms = 5000;
    begin(&s, &slow, &s.plain);
    begin(&s, &late, &s.plain);
    begin(&s, &other, &s.fetching);
    assert_true(simulated_run(s.scheduler, s.clock, 1000000));
    assert_true(slow.is_ok);
    assert_int_equal(late.e.reason, REASON_OVERLOADED_HERE);
    assert_true(late.e.retry_after_ms > 0);
    assert_true(other.is_ok);
    assert_int_equal(s.fake.calls, 2);
    scene_deinit(&s);
}

static void test_a_tenant_with_many_calls_delays_anothers_by_one(void **state)
{
    (void) state;
    struct scene s;
    struct one_call many[6] = {0}, one = {.tenant_id = {.bytes = {9}}};
    scene_init(&s, 1, 100);
    s.fake.delay_ms = 100;
    for (size_t i = 0; i < ARRAY_COUNT(many); i++)
        begin(&s, &many[i], &s.plain);
    begin(&s, &one, &s.plain);
    assert_true(simulated_run(s.scheduler, s.clock, 1000000));
    assert_true(one.is_ok);
    assert_true(one.ended_ms <= many[2].ended_ms);
    assert_true(one.ended_ms < many[3].ended_ms);
    scene_deinit(&s);
}

static void test_a_guests_own_call_waits_for_no_place(void **state)
{
    (void) state;
    struct scene s;
    struct one_call outer = {0}, nested = {.is_nested = true};
    scene_init(&s, 1, 1);
    s.fake.delay_ms = 100;
    begin(&s, &outer, &s.plain);
    begin(&s, &nested, &s.plain);
    assert_true(simulated_run(s.scheduler, s.clock, 1000000));
    assert_true(outer.is_ok && nested.is_ok);
    assert_int_equal(s.fake.inside_max, 2);
    scene_deinit(&s);
}

static int opened_lines, tried_lines, closed_lines;

static void count_line(void *context, enum log_level level, str line)
{
    (void) context, (void) level;
    bool is_server = str_find(line, S("mcp_server")) != STR_NOT_FOUND;
    opened_lines += is_server && str_find(line, S("circuit opened")) != STR_NOT_FOUND;
    tried_lines += is_server && str_find(line, S("circuit half-open")) != STR_NOT_FOUND;
    closed_lines += is_server && str_find(line, S("circuit closed")) != STR_NOT_FOUND;
}

static void test_a_server_that_cannot_be_reached_is_left_alone_probed_and_taken_back(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, 4, 4);
    log_set_sink(count_line, NULL);
    s.fake.failure = REASON_UNAVAILABLE;
    for (int i = 0; i < BREAKER_FAILURES_IN_ROW; i++)
        assert_int_equal(run_one(&s, &s.remote), REASON_UNAVAILABLE);
    int calls = s.fake.calls;
    assert_int_equal(run_one(&s, &s.remote), REASON_UNAVAILABLE);
    assert_int_equal(run_one(&s, &s.sibling), REASON_UNAVAILABLE); /* it is the server's circuit */
    assert_int_equal(s.fake.calls, calls);
    assert_int_equal(run_one(&s, &s.plain), REASON_UNAVAILABLE); /* tools of others are asked */
    assert_int_equal(s.fake.calls, calls + 1);
    pass_ms(&s, BREAKER_OPEN_MS * 5 / 4 + 1);
    assert_int_equal(run_one(&s, &s.sibling), REASON_UNAVAILABLE); /* a probe: still broken */
    assert_int_equal(s.fake.calls, calls + 2);
    pass_ms(&s, 2 * (BREAKER_OPEN_MS * 5 / 4 + 1));
    s.fake.failure = REASON_NONE;
    for (int i = 0; i < BREAKER_PROBES; i++)
        assert_int_equal(run_one(&s, &s.sibling), REASON_NONE);
    pass_ms(&s, BREAKER_RAMP_MS + 1);
    for (int i = 0; i < 10; i++)
        assert_int_equal(run_one(&s, &s.sibling), REASON_NONE);
    assert_int_equal(opened_lines, 2);
    assert_int_equal(tried_lines, 2);
    assert_int_equal(closed_lines, 1);
    scene_deinit(&s);
}

static void test_what_callers_do_wrong_opens_no_circuit(void **state)
{
    static const enum error_reason faults[] = {
        REASON_SCHEMA,     REASON_PERMISSION,  REASON_TRAP,      REASON_FUEL,
        REASON_TIME_LIMIT, REASON_TOOL_FAILED, REASON_CANCELLED, REASON_LOGIN_NEEDED};
    (void) state;
    struct scene s;
    scene_init(&s, 4, 4);
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
        for (int k = 0; k < 2 * BREAKER_FAILURES_IN_ROW; k++) {
            s.fake.failure = faults[i];
            assert_int_equal(run_one(&s, &s.plain), faults[i]);
        }
    s.fake.failure = REASON_UNAVAILABLE; /* a host that a caller named does not answer */
    for (int k = 0; k < 4 * BREAKER_FAILURES_IN_ROW; k++)
        assert_int_equal(run_one(&s, &s.fetching), REASON_UNAVAILABLE);
    s.fake.failure = REASON_NONE;
    assert_int_equal(run_one(&s, &s.fetching), REASON_NONE);
    assert_int_equal(run_one(&s, &s.plain), REASON_NONE);
    scene_deinit(&s);
}

static void test_its_state_is_told_and_a_tenants_tools_to_that_tenant_only(void **state)
{
    (void) state;
    struct scene s;
    OWNED(arena) arena = arena_create(0);
    struct strbuf text;
    struct json_writer w;
    scene_init(&s, 4, 4);
    struct tool own = s.plain;
    own.name = S("own");
    own.tenant_id = (uuid){.bytes = {1}};
    s.fake.failure = REASON_INTERNAL;
    for (int i = 0; i < BREAKER_FAILURES_IN_ROW; i++)
        (void) run_one(&s, &s.plain);
    s.fake.failure = REASON_NONE;
    (void) run_one(&s, &own);
    strbuf_init(&text, arena, 65536);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    executor_guard_write_json(s.guard, UUID_NONE, &w);
    json_array_end(&w);
    assert_true(str_find(strbuf_str(&text), S("\"circuit\":\"open\"")) != STR_NOT_FOUND);
    assert_true(str_find(strbuf_str(&text), S("\"own\"")) == STR_NOT_FOUND);
    scene_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_so_many_at_once_so_many_wait_and_the_rest_is_told),
        cmocka_unit_test(test_who_waits_too_long_is_told_and_one_tool_takes_no_places_of_another),
        cmocka_unit_test(test_a_tenant_with_many_calls_delays_anothers_by_one),
        cmocka_unit_test(test_a_guests_own_call_waits_for_no_place),
        cmocka_unit_test(test_a_server_that_cannot_be_reached_is_left_alone_probed_and_taken_back),
        cmocka_unit_test(test_what_callers_do_wrong_opens_no_circuit),
        cmocka_unit_test(test_its_state_is_told_and_a_tenants_tools_to_that_tenant_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
