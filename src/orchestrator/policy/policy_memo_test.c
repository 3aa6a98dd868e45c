/* The memo must never change an answer: the same questions to a policy with a memo and without. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "orchestrator/policy/policy_memo_internal.h"
#include "runtime/simulated.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    QUESTIONS_SHIPPED = 3000,
    QUESTIONS_VARIED = 500,
    POLICY_TEXT_BYTES_MAX = 8192,
    THREADS = 4,
    RELOADS = 20
};

struct world {
    char dir[64], path[96];
    struct policy *remembering, *forgetful;
    unsigned draw;
    int questions, allowed, denied, waiting;
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
    *world = (struct world){.dir = "/tmp/nexus-policy-XXXXXX", .draw = 20250117};
    assert_non_null(mkdtemp(world->dir));
    snprintf(world->path, sizeof world->path, "%s/p.rego", world->dir);
    write_policy(world, text);
    struct policy_rego_options options = {.dir = str_from_cstr(world->dir), .time_limit_ms = 5000};
    if (!policy_rego_create(&options, &world->remembering, &e))
        fail_msg("%s: %s", text, e.message);
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
    void *argument;
    struct scheduler *scheduler;
    void (*body)(void *argument, struct context *ctx);
};

static void call_main(void *argument)
{
    struct call *call = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, call->scheduler, arena, DEADLINE_NONE);
    call->body(call->argument, &ctx);
    context_deinit(&ctx);
}

static void in_coroutine(void *argument, void (*body)(void *argument, struct context *ctx))
{
    struct error e;
    struct scheduler *scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    struct call call = {argument, scheduler, body};
    ensure(coroutine_start(scheduler, "test", call_main, &call, &e));
    scheduler_run_ready(scheduler, SIZE_MAX);
    scheduler_destroy(scheduler);
}

/* ---- random questions ---- */

static unsigned draw(struct world *world, size_t below)
{
    world->draw = world->draw * 1103515245u + 12345u;
    return (unsigned) ((world->draw >> 16) % below);
}

static const char *pick(struct world *world, const char *const *from, size_t count)
{
    return from[draw(world, count)];
}
#define PICK(world, from) str_from_cstr(pick(world, from, ARRAY_COUNT(from)))

static const char *const actions[] = {"run.start", "model.call", "tool.call", "memory.read"};
static const char *const roles[] = {"viewer", "user", "operator", "admin", ""};
static const char *const users[] = {"ada",   "bob",   "\x01somebody else",
                                    "a\xff", "a\xfe", "a\xef\xbf\xbd"};
static const char *const categories[] = {"http", "system", "code", "data_analysis"};
static const char *const contexts[] = {"",
                                       "",
                                       "{\"region\":\"eu\"}",
                                       "{\"region\":\"us\",\"level\":3}",
                                       "{\"level\":7}",
                                       "{\"region\":"};
static const char *const arguments[] = {
    "",
    "{}",
    "{\"amount\":5}",
    "{\"amount\":99}",
    "{\"amount\":100}",
    "{\"amount\":101}",
    "{\"amount\":100.0}",
    "{\"amount\":1e2}",
    "{\"amount\":99.99999999999999}",
    "{\"amount\":0}",
    "{\"amount\":-0}",
    "{\"amount\":-0.0}",
    "{\"amount\":-1}",
    "{\"amount\":9223372036854775807}",
    "{\"amount\":18446744073709551615}",
    "{\"amount\":100000000000000000000}",
    "{\"amount\":100000000000000000001}",
    "{\"amount\":\"100\"}",
    "{\"amount\":null}",
    "{\"amount\":true}",
    "{\"amount\":[100]}",
    "{\"amount\":{\"value\":7}}",
    "{\"amount\":5,\"amount\":500}",
    "{\"amount\":500,\"amount\":5}",
    "{\"am\\u006funt\":5}",
    "{\"host\":\"example.com\",\"amount\":5}",
    "{\"host\":\"example\\u002ecom\"}",
    "{\"host\":\"evil.example\"}",
    "{\"host\":\"EXAMPLE.com\",\"list\":[1,2,3]}",
    "{\"list\":[\"a\",\"b\"],\"amount\":150}",
    "{\"list\":[]}",
    "[5]",
    "5",
    "null",
    "{\"amount\":",
    "{\"$serde_json::private::Number\":\"5\"}",
    "{\"amount\":{\"$serde_json::private::Number\":\"5\"}}",
};
static const int64_t amounts[] = {
    INT64_MIN,
    -5,
    0,
    1,
    999,
    1000,
    1001,
    5000,
    (1ll << 53) - 1,
    1ll << 53,
    (1ll << 53) + 1,
    INT64_MAX - 1,
    COST_UNLIMITED,
};

static struct policy_input random_input(struct world *world)
{
    struct policy_input input = {
        .action = PICK(world, actions),
        .resource = PICK(world, users),
        .user_id = PICK(world, users),
        .role = PICK(world, roles),
        .tenant = draw(world, 2) ? S("t") : S("u"),
        .policy_context = PICK(world, contexts),
        .remaining = COST_LIMITLESS,
        .skips_rule = draw(world, 3) == 0,
    };
    for (int i = 0; i < COST_FIELD_COUNT; i++)
        *cost_field(&input.remaining, i) = amounts[draw(world, ARRAY_COUNT(amounts))];
    if (draw(world, 2))
        input.session_id.bytes[0] = (uint8_t) (1 + draw(world, 2));
    if (str_equal(input.action, S("tool.call"))) {
        input.tool_name = S("tool");
        input.tool_version = draw(world, 2) ? S("1.0.0") : S("2.0.0");
        input.tool_category = PICK(world, categories);
    }
    if (draw(world, 2))
        input.arguments = PICK(world, arguments);
    if (draw(world, 3) == 0)
        input.approver = PICK(world, users);
    return input;
}

static void assert_same(const struct policy_input *input, const struct policy_decision *with,
                        const struct policy_decision *without)
{
    if (with->verdict != without->verdict || !str_equal(with->rule, without->rule) ||
        !str_equal(with->reason, without->reason))
        print_message("arguments " STR_FMT "\n  with:    " STR_FMT " | " STR_FMT
                      "\n  without: " STR_FMT " | " STR_FMT "\n",
                      STR_ARG(input->arguments), STR_ARG(with->rule), STR_ARG(with->reason),
                      STR_ARG(without->rule), STR_ARG(without->reason));
    assert_int_equal(with->verdict, without->verdict);
    assert_true(str_equal(with->version, without->version));
    assert_true(str_equal(with->rule, without->rule));
    assert_true(str_equal(with->reason, without->reason));
}

static void compare_many(void *argument, struct context *ctx)
{
    struct world *world = argument;
    for (int i = 0; i < world->questions; i++) {
        struct policy_decision with, without;
        arena_mark mark = arena_save(ctx->arena);
        struct policy_input input = random_input(world);
        policy_decide(world->remembering, ctx, &input, &with);
        policy_decide(world->forgetful, ctx, &input, &without);
        assert_same(&input, &with, &without);
        policy_decide(world->remembering, ctx, &input, &with); /* now from memory, if it may be */
        assert_same(&input, &with, &without);
        world->allowed += with.verdict == POLICY_ALLOW;
        world->denied += with.verdict == POLICY_DENY;
        world->waiting += with.verdict == POLICY_NEEDS_APPROVAL;
        arena_rewind(ctx->arena, mark);
        coroutine_yield();
    }
}

static struct policy_memo_counts compare(const char *text, int questions)
{
    struct world world;
    open_world(&world, text);
    world.questions = questions;
    in_coroutine(&world, compare_many);
    if (world.allowed == 0 || world.denied == 0)
        fail_msg("%s: allowed %d, denied %d", text, world.allowed, world.denied);
    struct policy_memo_counts counts = policy_rego_memo_counts(world.remembering);
    close_world(&world);
    return counts;
}

/* ---- memory against none ---- */

static void read_shipped(const char *name, char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/policies/%s", NEXUS_SOURCE_DIR, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    size_t size = fread(text, 1, POLICY_TEXT_BYTES_MAX - 1, file);
    assert_int_equal(fclose(file), 0);
    text[size] = 0;
}

static void test_the_shipped_policies_are_answered_the_same_from_memory(void **state)
{
    (void) state;
    char example[POLICY_TEXT_BYTES_MAX], base[POLICY_TEXT_BYTES_MAX], path[128];
    struct error e;
    struct world world;
    read_shipped("example.rego", example);
    read_shipped("base.rego", base);
    open_world(&world, example);
    snprintf(path, sizeof path, "%s/base.rego", world.dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(base, file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_true(policy_reload(world.remembering, &e) && policy_reload(world.forgetful, &e));
    world.questions = QUESTIONS_SHIPPED;
    in_coroutine(&world, compare_many);
    assert_true(world.allowed > 0 && world.denied > 0 && world.waiting > 0);
    struct policy_memo_counts counts = policy_rego_memo_counts(world.remembering);
    assert_true(counts.hits > 5 * counts.misses);
    unlink(path);
    close_world(&world);
}

#define NEW "package nexus.agent.policy\nimport rego.v1\ndefault allow := false\n"
#define OLD "package nexus.agent.policy\n\ndefault allow = false\n"

static const char *const varied[] = {
    NEW "allow if input.arguments.amount < 100\n",
    NEW "allow if input.arguments.amount == 100\n",
    NEW "allow if 0 <= input.arguments.amount\nallow if input.arguments.amount != 5\n",
    NEW "allow if input.arguments.amount == 0\nallow if input.arguments.amount.value == 7\n",
    NEW "allow if input.arguments.host == \"example.com\"\n",
    NEW "allow if { input.arguments.host != \"evil.example\"; input.arguments.amount > 1 "
        "}\nallow if input.arguments.amount == \"100\"\n",
    NEW "allow if startswith(input.arguments.host, \"example\")\nallow if input.arguments.host "
        "== \"x\"\n",
    NEW "allow if { count(input.arguments.list) > 1 }\n",
    NEW "allow if { some x in input.arguments.list; x == 2 }\nallow if input.arguments == 5\n",
    NEW "allow if json.marshal(input.arguments.amount) in {\"100\", \"-0\", \"-0.0\", \"5\"}\n",
    NEW "allow if input.session.budget.tokens > 1000\n",
    NEW "allow if { input.session.budget.tokens >= 1000; input.session.budget.time_ms <= "
        "9007199254740992 }\n",
    NEW "allow if input.session.budget.cost_nanousd == 9223372036854775807\nallow if "
        "input.session.budget.tool_calls < -4\n",
    NEW "allow if input.session.budget.tokens < 9223372036854775807.0\nallow if "
        "input.session.budget.tokens > 1000.5\n",
    NEW "allow if input.session.budget.tokens < input.session.budget.time_ms\n",
    NEW "allow if input.session.budget.tokens == input.arguments.amount\nallow if "
        "input.session.budget.tokens == 1000\n",
    NEW "enough(n) if n > 1000\nallow if { enough(input.session.budget.tokens); "
        "input.session.budget.tokens < 5000 }\n",
    NEW "allow if { b := input.session.budget; b.tokens > 1000 }\nallow if "
        "input.session.budget.tokens == 999\n",
    NEW "allow if not input.session.budget.tokens > 1000\n",
    NEW "allow if { x := input.session.budget.tokens > 1000; x == false }\n",
    NEW "allow if input.session.budget.tokens > \"a\"\nallow if input.user.role < \"b\"\n",
    NEW "allow if input.session.policy_context.region == \"eu\"\nallow if "
        "input.session.policy_context.level > 5\n",
    NEW "allow if { input.session.policy_context; not input.session.policy_context.region }\n",
    NEW "allow if input.session.id\n",
    NEW "allow if input.resource == input.user.id\n",
    NEW "allow if input.resource != input.user.id\n",
    NEW "allow if { input.approval.approver == input.user.id }\n",
    NEW "allow if { input.approval.approver != input.user.id; input.approval.status == "
        "\"approved\" }\nallow if input.user.id == \"bob\"\n",
    NEW "allow if input.approval.status != \"approved\"\nallow if { not input.approval; "
        "input.user.role == \"admin\" }\n",
    NEW "allow if input.approval\n",
    NEW "allow if { input.approval.approver == \"bob\" }\nallow if input.user.id == "
        "\"a\xef\xbf\xbd\"\n",
    NEW "allow if { input.user; not input.tool }\n",
    NEW "allow if { some part in [\"role\", \"id\"]; input.user[part] == \"bob\" }\n",
    NEW "allow if { i := input; i.user.role == \"admin\" }\n",
    NEW "allow if count(object.keys(input)) > 4\n",
    NEW "allow if { walk(input.arguments, [p, v]); v == 5; p }\n",
    NEW "rich if input.session.budget.tokens > 1000\nallow if rich with "
        "input.session.budget.tokens as 1001\nallow if { rich; input.tool }\n",
    NEW "allow if { input.tool.version == \"1.0.0\"; input.tool.category != \"system\" "
        "}\nallow if input.user.tenant != \"t\"\n",
    NEW "names := {n | n := [input.user.id, input.resource][_]; n != \"ada\"}\nallow if "
        "count(names) == 2\n",
    NEW "limits := {\"user\": 1000, \"admin\": 5}\nallow if input.session.budget.tokens > "
        "limits[input.user.role]\n",
    NEW "allow if every x in [input.user.role, input.user.id] { x != \"bob\" }\n",
    NEW "level := 1 if input.user.role == \"user\" else := 2 if input.session.budget.tokens >= "
        "5000 else := 3\nallow if level == 2\n"
        "allow if { level == 3; input.arguments.amount > 50 }\n",
    "package nexus.agent.policy\nimport rego.v1\nimport input.session.budget as purse\ndefault "
    "allow := false\nallow if purse.tokens > 1000\n",
    NEW "allow := \"yes\" if input.user.role == \"user\"\nelse := true if input.user.role == "
        "\"admin\"\n",
    NEW "allow if input.user.role == \"user\"\nallow := false if { input.user.role == "
        "\"user\"; input.action == \"run.start\" }\n"
        "allow if input.action == \"memory.read\"\n",
    "package nexus.agent.policy\nimport rego.v1\nallow if input[\"user\"][\"role\"] == "
    "\"user\"\n",
    OLD "allow { input.user.role == \"user\"; input.session.budget.tokens > 1000 }\nallow { "
        "input.arguments.amount <= 99 }\n",
    OLD "allow { input.user.role = \"user\" }\nallow { not blocked }\nblocked { input.user.id "
        "!= \"ada\" }\n",
    OLD "allow { input.tool.category in [\"http\", \"code\"]\n    1000 < "
        "input.session.budget.tokens }\n",
    OLD "seen[x] { x := input.arguments.list[_] }\nallow { seen[\"a\"] }\nallow { seen[3]; "
        "input.arguments.host == \"EXAMPLE.com\" }\n",
};

static void test_varied_policies_are_answered_the_same_from_memory(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(varied); i++)
        compare(varied[i], QUESTIONS_VARIED);
}

/* ---- what is remembered ---- */

struct sameness {
    struct world *world;
    void (*vary)(struct policy_input *input, int i, struct arena *arena);
};

static void ask_many(void *argument, struct context *ctx)
{
    struct sameness *sameness = argument;
    for (int i = 0; i < 1000; i++) {
        arena_mark mark = arena_save(ctx->arena);
        struct policy_decision decision;
        struct policy_input input = {.action = S("model.call"),
                                     .user_id = S("ada"),
                                     .role = S("user"),
                                     .remaining = COST_LIMITLESS};
        sameness->vary(&input, i, ctx->arena);
        policy_decide(sameness->world->remembering, ctx, &input, &decision);
        sameness->world->allowed += decision.verdict == POLICY_ALLOW;
        arena_rewind(ctx->arena, mark);
        coroutine_yield();
    }
}

static struct policy_memo_counts counts_of(const char *text,
                                           void (*vary)(struct policy_input *input, int i,
                                                        struct arena *arena))
{
    struct world world;
    open_world(&world, text);
    in_coroutine(&(struct sameness){&world, vary}, ask_many);
    struct policy_memo_counts counts = policy_rego_memo_counts(world.remembering);
    close_world(&world);
    assert_int_equal(counts.hits + counts.misses + counts.unaskable, 1000);
    return counts;
}

static void spend(struct policy_input *input, int i, struct arena *arena)
{
    (void) arena;
    input->remaining.tokens = 1500 - i;
}

static void other_user(struct policy_input *input, int i, struct arena *arena)
{
    input->user_id = str_printf(arena, "user %d", i);
}

static void other_amount(struct policy_input *input, int i, struct arena *arena)
{
    input->arguments = str_printf(arena, "{\"amount\": %d, \"note\": \"number %d\"}", i + 1, i);
}

static void test_a_shrinking_budget_asks_nothing_new(void **state)
{
    (void) state;
    assert_int_equal(counts_of(NEW "allow if input.session.budget.tokens > 1000\n", spend).misses,
                     2);
    assert_int_equal(
        counts_of(NEW "allow if input.session.budget.tokens * 2 > 1000\n", spend).misses, 1000);
}

static void test_users_who_are_only_compared_share_an_answer(void **state)
{
    (void) state;
    assert_int_equal(
        counts_of(NEW "allow if input.approval.approver != input.user.id\n", other_user).misses, 1);
    assert_int_equal(
        counts_of(NEW "allow if startswith(input.user.id, \"user\")\n", other_user).misses, 1000);
}

static void test_only_the_members_that_are_read_count(void **state)
{
    (void) state;
    assert_int_equal(counts_of(NEW "allow if input.arguments.amount < 100\n", other_amount).misses,
                     2);
    assert_int_equal(counts_of(NEW "allow if input.arguments.kind == \"x\"\n", other_amount).misses,
                     1);
    assert_int_equal(
        counts_of(NEW "allow if input.arguments.amount * 2 < 100\n", other_amount).misses, 1000);
}

static void test_what_cannot_be_remembered_is_asked_each_time(void **state)
{
    (void) state;
    static const char *const texts[] = {
        NEW "allow if time.now_ns() > 0\n",
        NEW "allow if count(input) > 1\n",
        NEW "rich if input.session.budget.tokens > 10\nallow if rich with "
            "input.session.budget.tokens as 5\n",
    };
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        assert_int_equal(counts_of(texts[i], spend).unaskable, 1000);
}

static void ask_once(void *argument, struct context *ctx)
{
    struct world *world = argument;
    struct policy_decision decision;
    struct policy_input input = {
        .action = S("model.call"), .role = S("user"), .remaining = COST_LIMITLESS};
    policy_decide(world->remembering, ctx, &input, &decision);
    world->allowed = decision.verdict == POLICY_ALLOW;
}

static void test_a_reload_forgets_what_was_decided(void **state)
{
    (void) state;
    struct error e;
    struct world world;
    open_world(&world, NEW "allow if input.user.role == \"user\"\n");
    in_coroutine(&world, ask_once);
    in_coroutine(&world, ask_once);
    assert_true(world.allowed);
    assert_int_equal(policy_rego_memo_counts(world.remembering).hits, 1);
    write_policy(&world, NEW "allow if input.user.role == \"admin\"\n");
    assert_true(policy_reload(world.remembering, &e));
    in_coroutine(&world, ask_once);
    assert_false(world.allowed);
    assert_int_equal(policy_rego_memo_counts(world.remembering).hits, 1);
    close_world(&world);
}

/* ---- many threads ---- */

struct contest {
    struct world *world;
    str first_version; /* of the set that allows users */
    _Atomic bool is_over;
};

static void decide_often(void *argument, struct context *ctx)
{
    struct contest *contest = argument;
    for (int i = 0; !contest->is_over; i++) {
        arena_mark mark = arena_save(ctx->arena);
        struct policy_decision decision;
        struct policy_input input = {.action = S("model.call"),
                                     .role = i % 2 ? S("user") : S("admin"),
                                     .remaining = {.tokens = i % 1500}};
        policy_decide(contest->world->remembering, ctx, &input, &decision);
        bool is_first = str_equal(decision.version, contest->first_version);
        ensure((decision.verdict == POLICY_ALLOW) ==
               (input.remaining.tokens > 1000 && (i % 2 == 1) == is_first));
        arena_rewind(ctx->arena, mark);
        coroutine_yield();
    }
}

static void *thread_main(void *argument)
{
    in_coroutine(argument, decide_often);
    return NULL;
}

static void test_threads_are_never_given_the_answer_of_another_version(void **state)
{
    (void) state;
    struct error e;
    struct world world;
    pthread_t threads[THREADS];
    OWNED(arena) arena = arena_create(0);
    static const char *const texts[] = {
        NEW "allow if { input.user.role == \"user\"; input.session.budget.tokens > 1000 }\n",
        NEW "allow if { input.user.role == \"admin\"; input.session.budget.tokens > 1000 }\n",
    };
    open_world(&world, texts[0]);
    struct contest contest = {.world = &world,
                              .first_version = policy_rego_version(world.remembering, arena)};
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, &contest), 0);
    for (size_t i = 1; i <= RELOADS; i++) {
        write_policy(&world, texts[i % 2]);
        assert_true(policy_reload(world.remembering, &e));
        usleep(2000);
    }
    contest.is_over = true;
    for (size_t i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    close_world(&world);
}

/* ---- questions and the table ---- */

static struct policy_reads *reads_of(struct arena *arena, const char *inputs_text)
{
    struct error e;
    const struct json *inputs;
    assert_true(
        json_parse(arena, str_from_cstr(inputs_text), (struct json_limits){0}, &inputs, &e));
    return policy_reads_create(inputs);
}

static void test_an_analysis_that_says_too_little_gives_no_memo(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_null(reads_of(arena, "{}"));
    assert_null(reads_of(arena, "{\"paths\":[],\"has_with\":false}"));
    assert_null(reads_of(arena, "{\"paths\":[],\"is_volatile\":false}"));
    assert_null(reads_of(arena, "{\"paths\":[],\"has_with\":false,\"is_volatile\":true}"));
    assert_null(reads_of(arena, "{\"paths\":[[]],\"has_with\":false,\"is_volatile\":false}"));
}

static void test_an_overlong_question_is_not_remembered(void **state)
{
    (void) state;
    static char name[POLICY_QUESTION_BYTES_MAX + 1];
    OWNED(arena) arena = arena_create(0);
    struct policy_question question;
    memset(name, 'n', sizeof name);
    struct policy_reads *reads =
        reads_of(arena, "{\"paths\":[[\"resource\"]],\"values\":[[\"resource\"]],\"has_with\":"
                        "false,\"is_volatile\":false}");
    /* four bytes of what is there and four of length go along */
    struct policy_input input = {.resource = str_of(name, POLICY_QUESTION_BYTES_MAX - 8)};
    assert_true(policy_reads_ask(reads, arena, &input, &question));
    assert_int_equal(question.bytes, POLICY_QUESTION_BYTES_MAX);
    input.resource.len++;
    assert_false(policy_reads_ask(reads, arena, &input, &question));
    policy_reads_destroy(reads);
}

static void test_overlong_arguments_are_not_remembered(void **state)
{
    (void) state;
    static char text[POLICY_MEMO_ARGUMENTS_BYTES_MAX + 1];
    OWNED(arena) arena = arena_create(0);
    struct policy_question question;
    memset(text, ' ', sizeof text);
    memcpy(text, "{}", 2);
    struct policy_reads *reads =
        reads_of(arena, "{\"paths\":[],\"has_with\":false,\"is_volatile\":false}");
    struct policy_input input = {.arguments = str_of(text, sizeof text - 1)};
    assert_true(policy_reads_ask(reads, arena, &input, &question));
    input.arguments.len++;
    assert_false(policy_reads_ask(reads, arena, &input, &question));
    policy_reads_destroy(reads);
}

/* More comparisons and members than there is room for: the rest counts by value. */
static void test_more_comparisons_than_fit_are_read_as_values(void **state)
{
    (void) state;
    char text[POLICY_TEXT_BYTES_MAX] = NEW;
    size_t used = strlen(text);
    for (int i = 0; i < 70; i++)
        used += (size_t) snprintf(text + used, sizeof text - used,
                                  "allow if input.session.budget.tokens == %d\n", i * 71);
    for (int i = 0; i < 20; i++)
        used += (size_t) snprintf(text + used, sizeof text - used,
                                  "allow if input.arguments.m%d == %d\n", i, i);
    snprintf(text + used, sizeof text - used, "allow if input.arguments.amount == 5\n");
    compare(text, QUESTIONS_VARIED);
    assert_int_equal(counts_of(text, spend).misses, 1000);
}

static struct policy_question question_of(int i)
{
    struct policy_question question = {.hash = (uint64_t) i * 0x9e3779b97f4a7c15u + 1,
                                       .bytes = sizeof i};
    memcpy(question.text, &i, sizeof i);
    return question;
}

static void test_the_table_keeps_the_newest_and_never_grows(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct policy_memo *memo = policy_memo_create();
    struct policy_decision out;
    int found = 0;
    for (int i = 0; i < 4 * POLICY_MEMO_PLACES; i++) {
        struct policy_question question = question_of(i);
        struct policy_decision decision = {.verdict = (enum policy_verdict)(i % 3),
                                           .rule = str_printf(arena, "rule %d", i)};
        policy_memo_keep(memo, &question, true, &decision);
        assert_true(policy_memo_find(memo, arena, &question, false, &out));
    }
    for (int i = 0; i < 4 * POLICY_MEMO_PLACES; i++) {
        struct policy_question question = question_of(i);
        if (!policy_memo_find(memo, arena, &question, false, &out))
            continue;
        assert_int_equal(out.verdict, i % 3);
        assert_true(str_equal(out.rule, str_printf(arena, "rule %d", i)));
        found++;
    }
    assert_in_range(found, POLICY_MEMO_PLACES / 2, POLICY_MEMO_PLACES);
    policy_memo_destroy(memo);
}

static void test_an_answer_without_a_rule_serves_only_who_skips_it(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct policy_memo *memo = policy_memo_create();
    struct policy_question question = question_of(1), same_hash = question_of(2);
    struct policy_decision decision = {.verdict = POLICY_ALLOW}, out = {.rule = S("untouched")};
    same_hash.hash = question.hash;
    policy_memo_keep(memo, &question, false, &decision);
    assert_true(policy_memo_find(memo, arena, &question, true, &out));
    assert_false(policy_memo_find(memo, arena, &question, false, &out));
    assert_false(policy_memo_find(memo, arena, &same_hash, true, &out));
    decision.rule = S("p.rego:4 allow");
    policy_memo_keep(memo, &question, true, &decision);
    policy_memo_keep(memo, &question, false, &decision); /* a slower thread that knew less */
    assert_true(policy_memo_find(memo, arena, &question, true, &out));
    assert_true(str_equal(out.rule, S("untouched")));
    assert_true(policy_memo_find(memo, arena, &question, false, &out));
    assert_true(str_equal(out.rule, S("p.rego:4 allow")));
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
    log_set_level(LOG_LEVEL_ERROR); /* an interpreted decision may hold its loop */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_shipped_policies_are_answered_the_same_from_memory),
        cmocka_unit_test(test_varied_policies_are_answered_the_same_from_memory),
        cmocka_unit_test(test_a_shrinking_budget_asks_nothing_new),
        cmocka_unit_test(test_users_who_are_only_compared_share_an_answer),
        cmocka_unit_test(test_only_the_members_that_are_read_count),
        cmocka_unit_test(test_what_cannot_be_remembered_is_asked_each_time),
        cmocka_unit_test(test_a_reload_forgets_what_was_decided),
        cmocka_unit_test(test_threads_are_never_given_the_answer_of_another_version),
        cmocka_unit_test(test_an_analysis_that_says_too_little_gives_no_memo),
        cmocka_unit_test(test_an_overlong_question_is_not_remembered),
        cmocka_unit_test(test_overlong_arguments_are_not_remembered),
        cmocka_unit_test(test_more_comparisons_than_fit_are_read_as_values),
        cmocka_unit_test(test_the_table_keeps_the_newest_and_never_grows),
        cmocka_unit_test(test_an_answer_without_a_rule_serves_only_who_skips_it),
        cmocka_unit_test(test_off_allows_everything_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
