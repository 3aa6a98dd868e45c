#include "cli/run_view.h"

#include "base/arena.h"
#include "cli/output.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static struct arena *arena;
static struct cli cli;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(0);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

/* The exit code after a last event of this type and data. */
static int code_after(const char *type, const char *data)
{
    struct run_view view;
    struct error e = {0};
    struct context ctx = {.arena = arena};
    struct run_event event = {.seq = 1, .type = str_from_cstr(type), .text = str_from_cstr(data)};
    assert_true(json_parse(arena, event.text, (struct json_limits){0}, &event.data, &e));
    run_view_init(&view, &cli, false, true);
    assert_false(run_view_event(&view, &ctx, &event));
    return run_view_exit_code(&view);
}

static void test_the_exit_code_tells_how_the_run_ended(void **state)
{
    (void) state;
    assert_int_equal(code_after("run.completed", "{\"content\":\"\",\"cost\":{\"tokens\":1}}"), 0);
    assert_int_equal(code_after("run.failed", "{\"error\":\"overloaded\",\"message\":\"m\"}"), 1);
    assert_int_equal(code_after("run.failed", "{\"error\":\"no-such-name\",\"message\":\"m\"}"), 1);
    assert_int_equal(code_after("run.failed", "{\"error\":\"schema\",\"message\":\"m\"}"), 1);
    assert_int_equal(code_after("run.failed", "{\"error\":\"policy_denied\",\"message\":\"m\"}"),
                     3);
    assert_int_equal(code_after("run.failed", "{\"error\":\"over_budget\",\"message\":\"m\"}"), 4);
    assert_int_equal(
        code_after("run.waiting", "{\"approvals\":[\"01a206dd-432e-765f-bd23-516cfbe0aed5\"]}"), 5);
    assert_int_equal(code_after("run.cancelled", "{\"by\":\"ada\"}"), 1);
}

static void test_a_run_that_goes_on_is_followed(void **state)
{
    (void) state;
    struct run_view view;
    struct context ctx = {.arena = arena};
    struct run_event event = {
        .seq = 1, .type = S("model.requested"), .text = S("{}"), .data = NULL};
    run_view_init(&view, &cli, false, true);
    assert_true(run_view_event(&view, &ctx, &event));
    event.type = S("a.type.of.later.versions");
    assert_true(run_view_event(&view, &ctx, &event));
    assert_int_equal(run_view_exit_code(&view), 1);
}

static void assert_output(str text, bool is_multiline, const char *expected)
{
    char *bytes = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&bytes, &len);
    output_text(out, text, is_multiline);
    fclose(out);
    assert_string_equal(bytes, expected);
    free(bytes);
}

static void test_an_approval_below_ends_the_view_as_its_own_does(void **state)
{
    (void) state;
    struct run_view view;
    struct context ctx = {.arena = arena};
    struct awaited_approval first = {.id = S("01a20ae7-fffd-7ab4-a782-e284cc3d3497"),
                                     .run_id = S("01a20ae7-fffd-7384-a842-c27fed36c49a"),
                                     .is_below = true};
    struct awaited_approval second = first;
    second.id = S("01a20ae8-0400-7223-a39f-74cd7fad6dbf");
    run_view_init(&view, &cli, false, true);
    assert_false(run_view_wait(&view, &ctx, &first));
    assert_false(run_view_wait(&view, &ctx, &second));
    assert_int_equal(run_view_exit_code(&view), EXIT_WAITING);
    assert_string_equal(view.approval_id, "01a20ae7-fffd-7ab4-a782-e284cc3d3497");
}

static void test_text_from_elsewhere_cannot_drive_the_terminal(void **state)
{
    (void) state;
    assert_output(S("a\033[31mb\a"), true, "a?[31mb?");
    assert_output(S("a\nb\tc"), true, "a\nb\tc");
    assert_output(S("a\nb\rc"), false, "a b c");
    assert_output(S("caf\xc3\xa9 \xc2\x9b"
                    "31m"),
                  true, "caf\xc3\xa9 ?31m");
    assert_output(S("x\xe2\x80\xaey"), true, "x?y");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_exit_code_tells_how_the_run_ended),
        cmocka_unit_test(test_a_run_that_goes_on_is_followed),
        cmocka_unit_test(test_an_approval_below_ends_the_view_as_its_own_does),
        cmocka_unit_test(test_text_from_elsewhere_cannot_drive_the_terminal),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
