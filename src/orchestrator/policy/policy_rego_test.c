#include "orchestrator/policy/policy.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/simulated.h"

#ifdef __SANITIZE_THREAD__
enum { RELOADS = 5, DECISIONS = 200, DECIDERS = 3 };
#else
enum { RELOADS = 30, DECISIONS = 2000, DECIDERS = 3 };
#endif

static const char example[] =
    "package nexus.agent.policy\n"
    "\n"
    "default allow = false\n"
    "\n"
    "allow {\n"
    "    input.user.role == \"user\"\n"
    "    input.tool.category in [\"http\", \"text_processing\", \"data_analysis\"]\n"
    "    input.session.budget.tokens > 1000\n"
    "}\n"
    "\n"
    "allow {\n"
    "    input.user.role == \"admin\"\n"
    "}\n"
    "\n"
    "allow {\n"
    "    input.tool.category == \"system\"\n"
    "    input.approval.status == \"approved\"\n"
    "    input.approval.approver != input.user.id\n"
    "}\n";

struct fixture {
    struct arena *arena;
    struct scheduler *scheduler;
    struct context ctx;
    struct policy *policy;
    char dir[64];
};

static void write_policy(const struct fixture *fixture, const char *name, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fixture->dir, name);
    FILE *file = fopen(path, "we");
    ensure(file != NULL);
    ensure(fputs(text, file) >= 0 && fclose(file) == 0);
}

static void remove_policy(const struct fixture *fixture, const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", fixture->dir, name);
    unlink(path);
}

static bool open_dir(struct fixture *fixture, const char *dir, int64_t time_limit_ms,
                     struct error *e)
{
    struct policy_rego_options options = {.dir = str_from_cstr(dir),
                                          .time_limit_ms = time_limit_ms};
    return policy_rego_create(&options, &fixture->policy, e);
}

static void open_written(struct fixture *fixture, int64_t time_limit_ms)
{
    struct error e = {0};
    if (!open_dir(fixture, fixture->dir, time_limit_ms, &e))
        fail_msg("%s", e.message);
}

static void open_shipped(struct fixture *fixture)
{
    struct error e = {0};
    if (!open_dir(fixture, NEXUS_SOURCE_DIR "/policies", 1000, &e))
        fail_msg("%s", e.message);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    ensure(fixture != NULL);
    fixture->arena = arena_create(256u << 20);
    fixture->scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    context_init(&fixture->ctx, fixture->scheduler, fixture->arena, DEADLINE_NONE);
    snprintf(fixture->dir, sizeof fixture->dir, "/tmp/nexus-policy-XXXXXX");
    ensure(mkdtemp(fixture->dir) != NULL);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"a.rego", "b.rego", "c_test.rego", "data.json"};
    struct fixture *fixture = *state;
    policy_destroy(fixture->policy);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        remove_policy(fixture, names[i]);
    rmdir(fixture->dir);
    context_deinit(&fixture->ctx);
    scheduler_destroy(fixture->scheduler);
    arena_destroy(fixture->arena);
    free(fixture);
    return 0;
}

static struct policy_input tool_call(const char *role, const char *category, int64_t tokens)
{
    struct policy_input input = {
        .action = S("tool.call"),
        .resource = S("t"),
        .user_id = S("ada"),
        .role = str_from_cstr(role),
        .tenant = S("acme"),
        .tool_name = S("t"),
        .tool_version = S("1.0.0"),
        .tool_category = str_from_cstr(category),
        .remaining = COST_LIMITLESS,
        .arguments = S("{}"),
    };
    input.remaining.tokens = tokens;
    return input;
}

static struct policy_input action_of(const char *action, const char *role)
{
    struct policy_input input = {
        .action = str_from_cstr(action),
        .resource = S("r"),
        .user_id = S("ada"),
        .role = str_from_cstr(role),
        .tenant = S("acme"),
        .remaining = COST_LIMITLESS,
    };
    return input;
}

static struct policy_decision decide(struct fixture *fixture, const struct policy_input *input)
{
    struct policy_decision decision;
    policy_decide(fixture->policy, &fixture->ctx, input, &decision);
    return decision;
}

static void assert_verdict(struct fixture *fixture, const struct policy_input *input,
                           enum policy_verdict wanted)
{
    struct policy_decision decision = decide(fixture, input);
    if (decision.verdict != wanted)
        fail_msg(STR_FMT " " STR_FMT " " STR_FMT " %lld: %s, wanted %s (" STR_FMT ")",
                 STR_ARG(input->action), STR_ARG(input->role), STR_ARG(input->tool_category),
                 (long long) input->remaining.tokens, policy_verdict_name(decision.verdict),
                 policy_verdict_name(wanted), STR_ARG(decision.reason));
    assert_false(str_is_empty(decision.reason));
    assert_false(str_is_empty(decision.rule));
    assert_int_equal(decision.version.len, 16);
}

/* ---- the example of the specification ---- */

static void test_the_shipped_example_is_the_specifications_byte_for_byte(void **state)
{
    char text[4096] = "";
    (void) state;
    FILE *file = fopen(NEXUS_SOURCE_DIR "/policies/example.rego", "re");
    assert_non_null(file);
    size_t got = fread(text, 1, sizeof text, file);
    fclose(file);
    assert_true(str_equal(str_trim(str_of(text, got)), str_trim(str_from_cstr(example))));
}

static void test_the_example_alone_decides_as_it_reads(void **state)
{
    struct fixture *fixture = *state;
    write_policy(fixture, "a.rego", example);
    open_written(fixture, 1000);
    static const struct {
        const char *role, *category;
        int64_t tokens;
        enum policy_verdict verdict;
    } cases[] = {
        {"user", "http", 1001, POLICY_ALLOW},
        {"user", "text_processing", 1001, POLICY_ALLOW},
        {"user", "data_analysis", 5000, POLICY_ALLOW},
        {"user", "http", 1000, POLICY_DENY},
        {"user", "http", 0, POLICY_DENY},
        {"user", "code", 5000, POLICY_DENY},
        {"user", "system", 5000, POLICY_NEEDS_APPROVAL},
        {"user", "system", 0, POLICY_NEEDS_APPROVAL},
        {"viewer", "http", 5000, POLICY_DENY},
        {"viewer", "system", 5000, POLICY_NEEDS_APPROVAL},
        {"admin", "system", 0, POLICY_ALLOW},
        {"admin", "anything", 0, POLICY_ALLOW},
        {"", "http", 5000, POLICY_DENY},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct policy_input input = tool_call(cases[i].role, cases[i].category, cases[i].tokens);
        assert_verdict(fixture, &input, cases[i].verdict);
    }
}

static void test_the_rule_that_decided_is_named_with_its_line(void **state)
{
    struct fixture *fixture = *state;
    write_policy(fixture, "a.rego", example);
    open_written(fixture, 1000);
    struct policy_input input = tool_call("admin", "http", 0);
    assert_true(str_equal(decide(fixture, &input).rule, S("a.rego:11 allow")));
    input = tool_call("user", "system", 0);
    assert_true(str_equal(decide(fixture, &input).rule, S("a.rego:15 allow")));
    input = tool_call("user", "http", 0);
    assert_true(str_find(decide(fixture, &input).rule, S("default")) != STR_NOT_FOUND);
}

/* ---- the shipped set ---- */

static enum policy_verdict expected(const char *role, const char *category, int64_t tokens,
                                    bool has_approval)
{
    bool is_system = strcmp(category, "system") == 0,
         is_work = !is_system && strcmp(category, "other") != 0;
    bool is_worker = strcmp(role, "user") == 0 || strcmp(role, "operator") == 0;
    if (strcmp(role, "admin") == 0)
        return POLICY_ALLOW;
    if (is_system)
        return has_approval ? POLICY_ALLOW : POLICY_NEEDS_APPROVAL;
    return is_worker && is_work && tokens > 1000 ? POLICY_ALLOW : POLICY_DENY;
}

static void test_the_shipped_set_over_roles_categories_budgets_and_approvals(void **state)
{
    static const char *const roles[] = {"admin", "operator", "user", "viewer", "nobody"};
    static const char *const categories[] = {"http", "text_processing", "data_analysis", "code",
                                             "time", "memory",          "system",        "other"};
    static const int64_t tokens[] = {0, 1000, 1001, COST_UNLIMITED};
    struct fixture *fixture = *state;
    open_shipped(fixture);
    for (size_t r = 0; r < ARRAY_COUNT(roles); r++)
        for (size_t c = 0; c < ARRAY_COUNT(categories); c++)
            for (size_t t = 0; t < ARRAY_COUNT(tokens); t++)
                for (int has_approval = 0; has_approval < 2; has_approval++) {
                    struct policy_input input = tool_call(roles[r], categories[c], tokens[t]);
                    input.approver = has_approval ? S("bob") : STR_NONE;
                    assert_verdict(fixture, &input,
                                   expected(roles[r], categories[c], tokens[t], has_approval));
                }
}

static void test_working_roles_start_runs_and_call_models_and_viewers_do_not(void **state)
{
    static const char *const actions[] = {"run.start", "model.call", "memory.read"};
    static const char *const roles[] = {"admin", "operator", "user"};
    struct fixture *fixture = *state;
    open_shipped(fixture);
    for (size_t a = 0; a < ARRAY_COUNT(actions); a++) {
        for (size_t r = 0; r < ARRAY_COUNT(roles); r++) {
            struct policy_input input = action_of(actions[a], roles[r]);
            assert_verdict(fixture, &input, POLICY_ALLOW);
        }
        struct policy_input input = action_of(actions[a], "viewer");
        assert_verdict(fixture, &input, POLICY_DENY);
    }
    struct policy_input unknown = action_of("format.disk", "user");
    assert_verdict(fixture, &unknown, POLICY_DENY);
}

/* ---- needs approval ---- */

static void test_the_callers_own_approval_is_a_denial_not_a_request_for_another(void **state)
{
    struct fixture *fixture = *state;
    open_shipped(fixture);
    struct policy_input input = tool_call("user", "system", 5000);
    assert_verdict(fixture, &input, POLICY_NEEDS_APPROVAL);
    input.approver = input.user_id;
    assert_verdict(fixture, &input, POLICY_DENY);
    input.approver = S("bob");
    assert_verdict(fixture, &input, POLICY_ALLOW);
}

static void test_an_input_without_an_approval_has_no_such_member(void **state)
{
    struct fixture *fixture = *state;
    struct policy_input input = tool_call("user", "system", 5000);
    const struct json *document;
    struct error e;
    assert_true(json_parse(fixture->arena, policy_input_json(fixture->arena, &input, false),
                           (struct json_limits){0}, &document, &e));
    assert_null(json_get(document, S("approval")));
    assert_null(json_path(document, S("/session/id")));
    assert_true(json_parse(fixture->arena, policy_input_json(fixture->arena, &input, true),
                           (struct json_limits){0}, &document, &e));
    assert_true(str_equal(json_str_or(json_get(document, S("approval")), S("status"), STR_NONE),
                          S("approved")));
    assert_false(str_equal(json_str_or(json_get(document, S("approval")), S("approver"), STR_NONE),
                           input.user_id));
}

static void test_the_input_carries_every_member_of_the_contract(void **state)
{
    struct fixture *fixture = *state;
    struct policy_input input = tool_call("user", "http", 77);
    const struct json *document;
    struct error e;
    input.policy_context = S("{\"team\":\"blue\"}");
    input.arguments = S("{\"url\":\"x\"}");
    input.approver = S("bob");
    assert_true(json_parse(fixture->arena, policy_input_json(fixture->arena, &input, false),
                           (struct json_limits){0}, &document, &e));
    static const struct {
        const char *path, *text;
    } members[] = {
        {"/action", "tool.call"},
        {"/resource", "t"},
        {"/user/id", "ada"},
        {"/user/role", "user"},
        {"/user/tenant", "acme"},
        {"/tool/name", "t"},
        {"/tool/version", "1.0.0"},
        {"/tool/category", "http"},
        {"/session/policy_context/team", "blue"},
        {"/arguments/url", "x"},
        {"/approval/approver", "bob"},
        {"/approval/status", "approved"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(members); i++) {
        str text = STR_NONE;
        assert_true(json_to_str(json_path(document, str_from_cstr(members[i].path)), &text));
        assert_true(str_equal(text, str_from_cstr(members[i].text)));
    }
    int64_t tokens = 0;
    assert_true(json_to_i64(json_path(document, S("/session/budget/tokens")), &tokens) &&
                tokens == 77);
    input = action_of("model.call", "user");
    assert_true(json_parse(fixture->arena, policy_input_json(fixture->arena, &input, false),
                           (struct json_limits){0}, &document, &e));
    assert_null(json_get(document, S("tool")));
}

/* ---- what is broken ---- */

static void assert_refused(struct fixture *fixture, const char *text, const char *place)
{
    struct error e = {0};
    write_policy(fixture, "b.rego", text);
    assert_false(policy_reload(fixture->policy, &e));
    print_message("  %s\n", e.message);
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_non_null(strstr(e.message, place));
    remove_policy(fixture, "b.rego");
}

static void test_a_broken_folder_keeps_the_old_set_and_tells_the_place(void **state)
{
    struct fixture *fixture = *state;
    write_policy(fixture, "a.rego", example);
    open_written(fixture, 1000);
    str version = policy_rego_version(fixture->policy, fixture->arena);
    assert_refused(fixture, "package nexus.agent.policy\n\nallow {\n    input.user.role == \n}\n",
                   "b.rego:5:1");
    assert_refused(fixture, "package nexus.agent.policy\nallow { undefined_function(1) }\n",
                   "b.rego:2:");
    assert_refused(fixture, "this is not rego\n", "b.rego:1:");
    write_policy(fixture, "data.json", "{\"a\":");
    struct error e = {0};
    assert_false(policy_reload(fixture->policy, &e));
    remove_policy(fixture, "data.json");
    remove_policy(fixture, "a.rego");
    assert_false(policy_reload(fixture->policy, &e)); /* an empty folder */
    struct policy_input input = tool_call("user", "http", 5000);
    assert_verdict(fixture, &input, POLICY_ALLOW);
    assert_true(str_equal(policy_rego_version(fixture->policy, fixture->arena), version));
}

static void test_a_folder_that_cannot_decide_is_refused_at_the_start(void **state)
{
    struct fixture *fixture = *state;
    struct error e = {0};
    assert_false(open_dir(fixture, "/nonexistent/policies", 0, &e));
    assert_non_null(strstr(e.message, "/nonexistent/policies"));
    assert_false(open_dir(fixture, fixture->dir, 0, &e));
    write_policy(fixture, "a.rego", "package somewhere.else\nallow := true\n");
    assert_false(open_dir(fixture, fixture->dir, 0, &e));
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_non_null(strstr(e.message, "allow"));
}

static void test_a_reload_takes_the_new_rules_and_data_and_has_a_new_version(void **state)
{
    struct fixture *fixture = *state;
    struct error e;
    write_policy(fixture, "a.rego", example);
    open_written(fixture, 1000);
    str version = policy_rego_version(fixture->policy, fixture->arena);
    struct policy_input input = tool_call("viewer", "http", 0);
    assert_verdict(fixture, &input, POLICY_DENY);
    write_policy(
        fixture, "b.rego",
        "package nexus.agent.policy\nimport rego.v1\nallow if input.user.role in data.friends\n");
    write_policy(fixture, "data.json", "{\"friends\":[\"viewer\"]}");
    write_policy(fixture, "c_test.rego", "this is a test of theirs and not loaded");
    assert_true(policy_reload(fixture->policy, &e));
    assert_verdict(fixture, &input, POLICY_ALLOW);
    assert_false(str_equal(policy_rego_version(fixture->policy, fixture->arena), version));
    assert_true(str_equal(decide(fixture, &input).rule, S("b.rego:3 allow")));
}

static void test_no_decision_to_be_had_is_a_denial_that_says_why(void **state)
{
    struct fixture *fixture = *state;
    write_policy(fixture, "a.rego",
                 "package nexus.agent.policy\nimport rego.v1\ndefault allow := false\n"
                 "allow if {\n    input.tool.category == \"slow\"\n"
                 "    x := [a | some i in numbers.range(1, 3000); some j in numbers.range(1, "
                 "3000); a := i * j]\n    count(x) > 0\n}\n"
                 "allow := \"yes\" if input.tool.category == \"text\"\n"
                 "allow if input.tool.category == \"twice\"\nallow := false if input.tool.category "
                 "== \"twice\"\n");
    open_written(fixture, 20);
    struct policy_input input = tool_call("user", "slow", 5000);
    struct policy_decision decision = decide(fixture, &input);
    assert_int_equal(decision.verdict, POLICY_DENY);
    assert_true(str_starts_with(decision.reason, S("no decision could be had")));
    input = tool_call("user", "text", 5000); /* only the boolean true allows */
    assert_verdict(fixture, &input, POLICY_DENY);
    input = tool_call("user", "twice", 5000);
    assert_verdict(fixture, &input, POLICY_DENY);
    input = tool_call("user", "quick", 5000);
    assert_verdict(fixture, &input, POLICY_DENY);
}

static void test_an_input_that_is_no_json_is_a_denial(void **state)
{
    struct fixture *fixture = *state;
    write_policy(fixture, "a.rego", example);
    open_written(fixture, 1000);
    struct policy_input input = tool_call("admin", "http", 5000);
    input.arguments = S("{\"a\":");
    assert_verdict(fixture, &input, POLICY_DENY);
}

/* ---- together ---- */

struct deciding {
    struct fixture *fixture;
    _Atomic bool is_over;
    _Atomic int wrong;
};

static void *decide_many(void *argument)
{
    struct deciding *deciding = argument;
    struct scheduler *scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    struct arena *arena = arena_create(256u << 20);
    struct context ctx;
    context_init(&ctx, scheduler, arena, DEADLINE_NONE);
    struct policy_input allowed = tool_call("user", "http", 5000),
                        denied = tool_call("user", "http", 5);
    for (int i = 0; i < DECISIONS && !atomic_load(&deciding->is_over); i++) {
        struct policy_decision decision;
        policy_decide(deciding->fixture->policy, &ctx, &allowed, &decision);
        deciding->wrong += decision.verdict != POLICY_ALLOW;
        policy_decide(deciding->fixture->policy, &ctx, &denied, &decision);
        deciding->wrong += decision.verdict != POLICY_DENY;
        arena_reset(arena);
    }
    context_deinit(&ctx);
    arena_destroy(arena);
    scheduler_destroy(scheduler);
    return NULL;
}

static void test_threads_decide_while_the_set_is_reloaded(void **state)
{
    struct deciding deciding = {.fixture = *state};
    pthread_t threads[DECIDERS];
    struct error e;
    write_policy(deciding.fixture, "a.rego", example);
    open_written(deciding.fixture, 10000);
    for (int i = 0; i < DECIDERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, decide_many, &deciding), 0);
    for (int i = 0; i < RELOADS; i++) {
        write_policy(deciding.fixture, "b.rego",
                     i % 2 ? "package nexus.agent.policy\nallow { input.x == 1 }\n" : "broken");
        assert_int_equal(policy_reload(deciding.fixture->policy, &e), i % 2);
    }
    atomic_store(&deciding.is_over, true);
    for (int i = 0; i < DECIDERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(deciding.wrong, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_shipped_example_is_the_specifications_byte_for_byte),
        TEST(test_the_example_alone_decides_as_it_reads),
        TEST(test_the_rule_that_decided_is_named_with_its_line),
        TEST(test_the_shipped_set_over_roles_categories_budgets_and_approvals),
        TEST(test_working_roles_start_runs_and_call_models_and_viewers_do_not),
        TEST(test_the_callers_own_approval_is_a_denial_not_a_request_for_another),
        TEST(test_an_input_without_an_approval_has_no_such_member),
        TEST(test_the_input_carries_every_member_of_the_contract),
        TEST(test_a_broken_folder_keeps_the_old_set_and_tells_the_place),
        TEST(test_a_folder_that_cannot_decide_is_refused_at_the_start),
        TEST(test_a_reload_takes_the_new_rules_and_data_and_has_a_new_version),
        TEST(test_no_decision_to_be_had_is_a_denial_that_says_why),
        TEST(test_an_input_that_is_no_json_is_a_denial),
        TEST(test_threads_decide_while_the_set_is_reloaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
