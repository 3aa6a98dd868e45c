#include "agent/tool/approval_rule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static bool read_rule(struct arena *arena, const char *text, struct approval_rule *out,
                      struct error *e)
{
    const struct json *tree;
    assert_true(json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &tree, e));
    return approval_rule_read(arena, tree, out, e);
}

static void test_a_rule_says_how_many_who_and_until_when(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct approval_rule rule;
    struct error e = {0};
    assert_true(read_rule(arena,
                          "{\"quorum\":2,\"approvers\":{\"users\":[\"bob\"],\"roles\":[\"admin\"]},"
                          "\"expires\":\"2h\",\"remind\":\"10m\"}",
                          &rule, &e));
    assert_int_equal(rule.quorum, 2);
    assert_int_equal(rule.expires_ms, 7200000);
    assert_int_equal(rule.remind_ms, 600000);
    assert_true(str_equal(rule.approvers, S("[{\"roles\":[\"admin\"],\"users\":[\"bob\"]}]")));
    assert_true(read_rule(arena, "null", &rule, &e));
    assert_int_equal(rule.quorum, 0);
    assert_true(str_is_empty(rule.approvers));
}

static void test_what_could_never_be_given_is_refused(void **state)
{
    static const char *const wrong[] = {
        "[]",
        "{\"quorum\":0}",
        "{\"quorum\":17}",
        "{\"quorum\":\"2\"}",
        "{\"quorum\":3,\"approvers\":{\"users\":[\"a\",\"b\"]}}",
        "{\"approvers\":{}}",
        "{\"approvers\":[]}",
        "{\"approvers\":{\"users\":[]}}",
        "{\"approvers\":{\"groups\":[\"x\"]}}",
        "{\"approvers\":{\"roles\":[\"king\"]}}",
        "{\"approvers\":{\"users\":[7]}}",
        "{\"approvers\":{\"users\":\"bob\"}}",
        "{\"expires\":\"soon\"}",
        "{\"expires\":7}",
        "{\"remind\":\"1ms\"}",
        "{\"qorum\":2}",
    };
    (void) state;
    OWNED(arena) arena = arena_create(0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct approval_rule rule;
        struct error e = {0};
        assert_false(read_rule(arena, wrong[i], &rule, &e));
        assert_int_equal(e.reason, REASON_SCHEMA);
    }
}

static void test_two_rules_together_are_the_stricter_of_each(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct approval_rule a = {0}, b, c;
    struct error e = {0};
    assert_true(read_rule(
        arena,
        "{\"quorum\":2,\"approvers\":{\"roles\":[\"admin\",\"operator\"]},\"expires\":\"2h\"}", &b,
        &e));
    assert_true(read_rule(arena,
                          "{\"quorum\":1,\"approvers\":{\"users\":[\"bob\"]},\"expires\":\"1h\","
                          "\"remind\":\"5m\"}",
                          &c, &e));
    assert_true(approval_rule_join(arena, &a, &b, &e));
    assert_true(approval_rule_join(arena, &a, &c, &e));
    assert_true(approval_rule_join(arena, &a, &(struct approval_rule){0}, &e));
    assert_int_equal(a.quorum, 2);
    assert_int_equal(a.expires_ms, 3600000);
    assert_int_equal(a.remind_ms, 300000);
    assert_true(approval_rule_names(arena, a.approvers, S("bob"), S("admin")));
    assert_false(approval_rule_names(arena, a.approvers, S("bob"), S("user")));
    assert_false(approval_rule_names(arena, a.approvers, S("carl"), S("admin")));
}

static void test_a_list_that_cannot_be_read_names_nobody(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_true(approval_rule_names(arena, STR_NONE, S("bob"), S("user")));
    assert_false(approval_rule_names(arena, S("{"), S("bob"), S("user")));
    assert_false(approval_rule_names(arena, S("{}"), S("bob"), S("user")));
    assert_false(approval_rule_names(arena, S("[1]"), S("bob"), S("user")));
}

static void test_lists_that_together_are_too_long_are_refused(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct approval_rule a = {0};
    struct error e = {0};
    char *text = arena_alloc(arena, APPROVAL_APPROVERS_BYTES_MAX / 2 + 64);
    str name = str_printf(arena, "[{\"users\":[\"%s\"]}]", "bob");
    memset(text, 'x', APPROVAL_APPROVERS_BYTES_MAX / 2 + 63);
    struct approval_rule one = {.approvers = str_of(text, APPROVAL_APPROVERS_BYTES_MAX / 2 + 1)},
                         two = {.approvers = str_of(text, APPROVAL_APPROVERS_BYTES_MAX / 2 + 2)},
                         small = {.approvers = name};
    assert_true(approval_rule_join(arena, &a, &one, &e));
    assert_true(approval_rule_join(arena, &a, &small, &e));
    assert_false(approval_rule_join(arena, &a, &two, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_rule_says_how_many_who_and_until_when),
        cmocka_unit_test(test_what_could_never_be_given_is_refused),
        cmocka_unit_test(test_two_rules_together_are_the_stricter_of_each),
        cmocka_unit_test(test_a_list_that_cannot_be_read_names_nobody),
        cmocka_unit_test(test_lists_that_together_are_too_long_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
