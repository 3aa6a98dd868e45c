#include "llm/prompt.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static void test_roles_have_names_and_developer_is_system(void **state)
{
    (void) state;
    enum role role;
    for (int i = ROLE_SYSTEM; i <= ROLE_TOOL; i++) {
        assert_true(role_parse(str_from_cstr(role_name((enum role) i)), &role));
        assert_int_equal(role, i);
    }
    assert_true(role_parse(S("developer"), &role));
    assert_int_equal(role, ROLE_SYSTEM);
    assert_false(role_parse(S("function"), &role));
    assert_string_equal(finish_name(FINISH_TOOL_CALLS), "tool_calls");
}

static void test_the_bound_counts_every_byte_and_a_constant_for_each_thing(void **state)
{
    (void) state;
    struct part parts[] = {
        {.kind = PART_TEXT, .text = S("0123456789")},
        {.kind = PART_TOOL_CALL, .call_id = S("c1"), .name = S("time"), .arguments = S("{}")},
        {.kind = PART_TOOL_RESULT, .call_id = S("c1"), .name = S("time"), .text = S("now")},
        {.kind = PART_IMAGE, .text = S("data:image/png;base64,AAAA")},
    };
    struct prompt_message message = {.role = ROLE_USER, .parts = parts, .part_count = 1};
    struct prompt prompt = {.messages = &message, .message_count = 1};
    assert_int_equal(prompt_input_tokens_bound(&prompt), PROMPT_TOKENS_BASE +
                                                             PROMPT_TOKENS_PER_MESSAGE +
                                                             PROMPT_TOKENS_PER_MESSAGE + 10);
    int64_t before = prompt_input_tokens_bound(&prompt);
    message.part_count = 2;
    assert_int_equal(prompt_input_tokens_bound(&prompt),
                     before + PROMPT_TOKENS_PER_TOOL + 2 + 4 + 2 * 2);
    message.part_count = 4;
    assert_true(prompt_input_tokens_bound(&prompt) > before + PROMPT_TOKENS_PER_IMAGE);
    struct tool_spec tool = {.name = S("t"), .description = S("dd"), .parameters = S("{}")};
    before = prompt_input_tokens_bound(&prompt);
    prompt.tools = &tool;
    prompt.tool_count = 1;
    assert_int_equal(prompt_input_tokens_bound(&prompt),
                     before + PROMPT_TOKENS_TOOLS + PROMPT_TOKENS_PER_TOOL + 1 + 2 + 2 * 2);
}

static void test_extra_members_count_and_say_how_many_answers(void **state)
{
    (void) state;
    struct arena *arena = arena_create(0);
    struct error e = {0};
    struct prompt prompt = {0};
    int64_t before = prompt_input_tokens_bound(&prompt);
    assert_int_equal(prompt_choice_count(&prompt), 1);
    assert_true(json_parse(arena, S("{\"n\":3,\"stop\":[\"abc\"],\"x\":{\"y\":\"zz\"}}"),
                           (struct json_limits){0}, &prompt.extra, &e));
    assert_int_equal(prompt_choice_count(&prompt), 3);
    assert_true(prompt_input_tokens_bound(&prompt) >= before + 40);
    arena_destroy(arena);
}

static void test_the_text_of_a_message_is_its_text_parts_joined(void **state)
{
    (void) state;
    struct arena *arena = arena_create(0);
    struct part parts[] = {{.kind = PART_TEXT, .text = S("a")},
                           {.kind = PART_IMAGE, .text = S("x")},
                           {.kind = PART_TEXT, .text = S("b")}};
    struct prompt_message message = {.parts = parts, .part_count = 3};
    assert_true(str_equal(prompt_message_text(arena, &message), S("ab")));
    message.part_count = 1;
    assert_ptr_equal(prompt_message_text(arena, &message).ptr, parts[0].text.ptr);
    message.part_count = 0;
    assert_int_equal(prompt_message_text(arena, &message).len, 0);
    arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_roles_have_names_and_developer_is_system),
        cmocka_unit_test(test_the_bound_counts_every_byte_and_a_constant_for_each_thing),
        cmocka_unit_test(test_extra_members_count_and_say_how_many_answers),
        cmocka_unit_test(test_the_text_of_a_message_is_its_text_parts_joined),
    };
    return cmocka_run_group_tests_name("prompt", tests, NULL, NULL);
}
