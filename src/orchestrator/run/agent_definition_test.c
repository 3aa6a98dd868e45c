#include "orchestrator/run/agent_definition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/limits.h"

static struct agent_definition lawful(const char *name)
{
    return (struct agent_definition){
        .name = str_from_cstr(name), .steps_max = 3, .run_timeout_ms = 1000};
}

static void test_a_new_set_holds_the_assistant_with_every_tool(void **state)
{
    (void) state;
    OWNED(agent_set) set = agent_set_create();
    const struct agent_definition *assistant = agent_set_find(set, S("assistant"));
    assert_non_null(assistant);
    assert_int_equal(agent_set_count(set), 1);
    assert_ptr_equal(agent_set_at(set, 0), assistant);
    assert_null(agent_set_at(set, 1));
    assert_int_equal(assistant->tool_count, 1);
    assert_true(str_equal(assistant->tools[0], S("*")));
    assert_true(str_is_empty(assistant->model));
    assert_null(agent_set_find(set, S("nobody")));
}

static void test_a_definition_is_copied_whole(void **state)
{
    (void) state;
    OWNED(agent_set) set = agent_set_create();
    char name[] = "research", tool[] = "lookup@^1.2";
    str tools[] = {str_from_cstr(tool)};
    struct agent_definition definition = lawful(name);
    struct error e;
    definition.tools = tools;
    definition.tool_count = 1;
    assert_true(agent_set_add(set, &definition, &e));
    memset(name, '?', sizeof name - 1);
    memset(tool, '?', sizeof tool - 1);
    const struct agent_definition *found = agent_set_find(set, S("research"));
    assert_non_null(found);
    assert_true(str_equal(found->tools[0], S("lookup@^1.2")));
    assert_true(str_equal(found->version, S("1.0.0")));
}

static void test_the_assistant_can_be_replaced_and_others_stand_once(void **state)
{
    (void) state;
    OWNED(agent_set) set = agent_set_create();
    struct agent_definition mine = lawful("assistant"), other = lawful("other");
    struct error e = {0};
    mine.instructions = S("be brief");
    assert_true(agent_set_add(set, &mine, &e));
    assert_true(str_equal(agent_set_find(set, S("assistant"))->instructions, S("be brief")));
    assert_int_equal(agent_set_count(set), 1);
    assert_true(agent_set_add(set, &other, &e));
    assert_false(agent_set_add(set, &other, &e));
    assert_non_null(strstr(e.message, "defined twice"));
}

static void assert_refused(struct agent_definition definition, const char *why)
{
    OWNED(agent_set) set = agent_set_create();
    struct error e = {0};
    assert_false(agent_set_add(set, &definition, &e));
    assert_int_equal(e.reason, REASON_CONFIG);
    if (!strstr(e.message, why))
        fail_msg("\"%s\" does not say \"%s\"", e.message, why);
    assert_int_equal(agent_set_count(set), 1);
}

static void test_each_member_is_checked_at_its_bound(void **state)
{
    (void) state;
    static const char *const names[] = {
        "",    "a b",      "a/b",
        "a:b", "\xc3\xa4", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        assert_refused(lawful(names[i]), "agent name");
    struct agent_definition definition = lawful("a");
    definition.steps_max = 0;
    assert_refused(definition, "max_steps");
    definition.steps_max = RUN_STEPS_MAX + 1;
    assert_refused(definition, "max_steps");
    definition = lawful("a");
    definition.run_timeout_ms = 999;
    assert_refused(definition, "timeout");
    definition = lawful("a");
    definition.tool_count = 257;
    assert_refused(definition, "more than 256 tools");
    OWNED(agent_set) set = agent_set_create();
    struct error e;
    definition = lawful("A-z_0.9");
    definition.steps_max = RUN_STEPS_MAX;
    assert_true(agent_set_add(set, &definition, &e));
}

static void test_a_set_holds_a_bounded_number(void **state)
{
    (void) state;
    OWNED(agent_set) set = agent_set_create();
    struct error e = {0};
    char name[16];
    for (int i = 1; i < 256; i++) {
        snprintf(name, sizeof name, "a%d", i);
        struct agent_definition definition = lawful(name);
        assert_true(agent_set_add(set, &definition, &e));
    }
    struct agent_definition one_more = lawful("one-more");
    assert_false(agent_set_add(set, &one_more, &e));
    assert_int_equal(agent_set_count(set), 256);
}

static void refuse_links(const struct agent_link *links, size_t count, const char *why)
{
    OWNED(agent_set) set = agent_set_create();
    struct agent_definition definition = lawful("a");
    struct error e = {0};
    definition.agents = links;
    definition.agent_count = count;
    assert_false(agent_set_add(set, &definition, &e));
    if (!strstr(e.message, why))
        fail_msg("%s", e.message);
}

static void test_other_agents_are_named_once_and_lawfully(void **state)
{
    (void) state;
    struct agent_link many[65];
    for (size_t i = 0; i < ARRAY_COUNT(many); i++)
        many[i] = (struct agent_link){.name = S("b"), .budget = COST_LIMITLESS};
    refuse_links(many, 65, "more than 64");
    refuse_links(many, 2, "named twice");
    many[0].name = S("b.c");
    many[1].name = S("b_c");
    refuse_links(many, 2, "named twice");
    many[1].is_handoff = true;
    many[0].is_sticky = true;
    refuse_links(many, 2, "only a handoff can be sticky");
    many[0].name = S("b c");
    refuse_links(many, 1, "not \"b c\"");
    many[0].name = S("nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn");
    refuse_links(many, 1, "1 to 56");
}

static void test_a_set_is_whole_when_all_that_are_named_are_there(void **state)
{
    (void) state;
    OWNED(agent_set) set = agent_set_create();
    struct agent_link links[] = {{.name = S("b"), .budget = COST_LIMITLESS}};
    struct agent_definition a = lawful("a"), b = lawful("b");
    struct error e = {0};
    a.agents = links;
    a.agent_count = 1;
    assert_true(agent_set_add(set, &a, &e));
    assert_false(agent_set_check(set, &e));
    assert_non_null(strstr(e.message, "there is no agent \"b\""));
    assert_true(agent_set_add(set, &b, &e));
    assert_true(agent_set_check(set, &e));
    assert_true(str_equal(agent_set_find(set, S("a"))->agents[0].name, S("b")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_new_set_holds_the_assistant_with_every_tool),
        cmocka_unit_test(test_a_definition_is_copied_whole),
        cmocka_unit_test(test_the_assistant_can_be_replaced_and_others_stand_once),
        cmocka_unit_test(test_each_member_is_checked_at_its_bound),
        cmocka_unit_test(test_a_set_holds_a_bounded_number),
        cmocka_unit_test(test_other_agents_are_named_once_and_lawfully),
        cmocka_unit_test(test_a_set_is_whole_when_all_that_are_named_are_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
