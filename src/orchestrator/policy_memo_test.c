/* The memo must never change an answer: the same questions to a policy with a memo and to one without. */
#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/policy_memo_internal.h"
#include "runtime/simulated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum { QUESTIONS = 3000, POLICY_TEXT_BYTES_MAX = 4096 };

struct world {
    char dir[64], path[96];
    struct policy *remembering, *forgetful;
    unsigned draw;
    int allowed, denied, waiting;
};

static void write_policy(struct world *world, const char *text)
{
    FILE *file = fopen(world->path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void open_world(struct world *world, const char *text)
{
    struct error e;
    *world = (struct world){.dir = "/tmp/nexus-policy-XXXXXX"};
    assert_non_null(mkdtemp(world->dir));
    snprintf(world->path, sizeof world->path, "%s/p.rego", world->dir);
    write_policy(world, text);
    struct policy_rego_options options = {.dir = str_from_cstr(world->dir), .time_limit_ms = 5000};
    assert_true(policy_rego_create(&options, &world->remembering, &e));
    options.has_no_memo = true;
    assert_true(policy_rego_create(&options, &world->forgetful, &e));
}

static void close_world(struct world *world)
{
    policy_destroy(world->remembering);
    policy_destroy(world->forgetful);
    unlink(world->path);
    rmdir(world->dir);
}

/* Runs `body` on a coroutine. */
struct call {
    struct world *world;
    struct scheduler *scheduler;
    void (*body)(struct world *world, struct context *ctx);
};

static void call_main(void *argument)
{
    struct call *call = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, call->scheduler, arena, DEADLINE_NONE);
    call->body(call->world, &ctx);
    context_deinit(&ctx);
}

static void in_coroutine(struct world *world, void (*body)(struct world *world, struct context *ctx))
{
    struct error e;
    struct scheduler *scheduler = scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    struct call call = {world, scheduler, body};
    ensure(coroutine_start(scheduler, "test", call_main, &call, &e));
    scheduler_run_ready(scheduler, SIZE_MAX);
    scheduler_destroy(scheduler);
}

static unsigned draw(struct world *world, unsigned below)
{
    world->draw = world->draw * 1103515245u + 12345u;
    return (world->draw >> 16) % below;
}

static struct policy_input random_input(struct world *world)
{
    static const str actions[] = {S_INIT("run.start"), S_INIT("model.call"), S_INIT("tool.call")};
    static const str roles[] = {S_INIT("viewer"), S_INIT("user"), S_INIT("operator"), S_INIT("admin")};
    static const str users[] = {S_INIT("ada"), S_INIT("bob")};
    static const str categories[] = {S_INIT("http"), S_INIT("system"), S_INIT("code")};
    static const str arguments[] = {S_INIT(""), S_INIT("{\"amount\":5}"), S_INIT("{\"amount\":500}"), S_INIT("{\"amount\":")};
    static const str contexts[] = {S_INIT(""), S_INIT("{\"region\":\"eu\"}"), S_INIT("{\"region\":\"us\"}")};
    static const int64_t tokens[] = {10, 1000, 1001, 5000, COST_UNLIMITED};
    struct policy_input input = {
        .action = actions[draw(world, ARRAY_COUNT(actions))],
        .resource = users[draw(world, 2)],
        .user_id = users[draw(world, 2)],
        .role = roles[draw(world, ARRAY_COUNT(roles))],
        .tenant = S("t"),
        .policy_context = contexts[draw(world, ARRAY_COUNT(contexts))],
        .remaining = COST_LIMITLESS,
        .skips_rule = draw(world, 2),
    };
    input.remaining.tokens = tokens[draw(world, ARRAY_COUNT(tokens))];
    if (draw(world, 2))
        input.session_id.bytes[0] = (uint8_t) (1 + draw(world, 2));
    if (!str_equal(input.action, S("tool.call")))
        return input;
    input.tool_name = S("tool");
    input.tool_version = S("1.0.0");
    input.tool_category = categories[draw(world, ARRAY_COUNT(categories))];
    input.arguments = arguments[draw(world, ARRAY_COUNT(arguments))];
    if (draw(world, 3) == 0)
        input.approver = users[draw(world, 2)];
    return input;
}

static void compare_many(struct world *world, struct context *ctx)
{
    for (int i = 0; i < QUESTIONS; i++) {
        struct policy_decision with, without;
        arena_mark mark = arena_save(ctx->arena);
        struct policy_input input = random_input(world);
        policy_decide(world->remembering, ctx, &input, &with);
        policy_decide(world->forgetful, ctx, &input, &without);
        assert_int_equal(with.verdict, without.verdict);
        assert_true(str_equal(with.version, without.version));
        if (!input.skips_rule) {
            assert_true(str_equal(with.rule, without.rule));
            assert_true(str_equal(with.reason, without.reason));
        }
        world->allowed += with.verdict == POLICY_ALLOW;
        world->denied += with.verdict == POLICY_DENY;
        world->waiting += with.verdict == POLICY_NEEDS_APPROVAL;
        arena_rewind(ctx->arena, mark);
    }
}

static void compare(const char *text)
{
    struct world world;
    open_world(&world, text);
    in_coroutine(&world, compare_many);
    assert_true(world.allowed > 0 && world.denied > 0);
    close_world(&world);
}

static void test_the_shipped_example_is_answered_the_same_from_memory(void **state)
{
    (void) state;
    static char text[POLICY_TEXT_BYTES_MAX];
    FILE *file = fopen(NEXUS_SOURCE_DIR "/policies/example.rego", "r");
    assert_non_null(file);
    size_t size = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[size] = 0;
    struct world world;
    open_world(&world, text);
    in_coroutine(&world, compare_many);
    assert_true(world.allowed > 0 && world.denied > 0 && world.waiting > 0);
    close_world(&world);
}

static void test_policies_that_read_each_part_are_answered_the_same_from_memory(void **state)
{
    (void) state;
    static const char head[] = "package nexus.agent.policy\nimport rego.v1\ndefault allow := false\n";
    static const char *const rules[] = {
        "allow if input.arguments.amount < 100\n",
        "allow if input.session.policy_context.region == \"eu\"\n",
        "allow if input.session.budget.tokens > 1000\n",
        "allow if input.session.id\n",
        "allow if input.resource == input.user.id\n",
        "allow if { input.user; not input.tool }\n",
        "allow if { some part in [\"role\", \"id\"]; input.user[part] == \"bob\" }\n",
        "allow if { i := input; i.user.role == \"admin\" }\n",
        "allow if count(object.keys(input)) > 4\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(rules); i++) {
        char text[POLICY_TEXT_BYTES_MAX];
        snprintf(text, sizeof text, "%s%s", head, rules[i]);
        compare(text);
    }
}

static void test_a_policy_that_asks_for_the_time_is_not_remembered(void **state)
{
    (void) state;
    struct error e;
    OWNED(arena) arena = arena_create(0);
    const struct json *inputs;
    assert_true(json_parse(arena, S("{\"paths\":[],\"is_volatile\":true}"), (struct json_limits){0}, &inputs, &e));
    assert_null(policy_memo_create(inputs));
}

static void ask_once(struct world *world, struct context *ctx)
{
    struct policy_decision decision;
    struct policy_input input = {.action = S("model.call"), .role = S("user"), .remaining = COST_LIMITLESS};
    policy_decide(world->remembering, ctx, &input, &decision);
    world->allowed = decision.verdict == POLICY_ALLOW;
}

static void test_a_reload_forgets_what_was_decided(void **state)
{
    (void) state;
    struct error e;
    struct world world;
    open_world(&world, "package nexus.agent.policy\nimport rego.v1\nallow if input.user.role == \"user\"\n");
    in_coroutine(&world, ask_once);
    in_coroutine(&world, ask_once);
    assert_true(world.allowed);
    write_policy(&world, "package nexus.agent.policy\nimport rego.v1\nallow if input.user.role == \"admin\"\n");
    assert_true(policy_reload(world.remembering, &e));
    in_coroutine(&world, ask_once);
    assert_false(world.allowed);
    close_world(&world);
}

static void test_an_overlong_question_is_not_remembered(void **state)
{
    (void) state;
    struct error e;
    static char name[POLICY_QUESTION_BYTES_MAX + 1];
    OWNED(arena) arena = arena_create(0);
    const struct json *inputs;
    struct policy_question question;
    memset(name, 'n', sizeof name);
    assert_true(json_parse(arena, S("{\"paths\":[[\"resource\"]],\"is_volatile\":false}"), (struct json_limits){0}, &inputs, &e));
    struct policy_memo *memo = policy_memo_create(inputs);
    /* one byte of parts and four of length go along */
    struct policy_input input = {.resource = str_of(name, POLICY_QUESTION_BYTES_MAX - 5)};
    assert_true(policy_memo_ask(memo, &input, &question));
    input.resource.len++;
    assert_false(policy_memo_ask(memo, &input, &question));
    policy_memo_destroy(memo);
}

static void test_off_allows_everything_and_says_so(void **state)
{
    (void) state;
    struct policy_decision decision;
    struct policy_input input = {.action = S("tool.call"), .tool_category = S("system")};
    struct policy *policy = policy_off_create();
    policy_decide(policy, NULL, &input, &decision);
    assert_int_equal(decision.verdict, POLICY_ALLOW);
    assert_true(str_equal(decision.rule, S("policy off")));
    policy_destroy(policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_shipped_example_is_answered_the_same_from_memory),
        cmocka_unit_test(test_policies_that_read_each_part_are_answered_the_same_from_memory),
        cmocka_unit_test(test_a_policy_that_asks_for_the_time_is_not_remembered),
        cmocka_unit_test(test_a_reload_forgets_what_was_decided),
        cmocka_unit_test(test_an_overlong_question_is_not_remembered),
        cmocka_unit_test(test_off_allows_everything_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
