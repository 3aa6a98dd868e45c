#include "base/error.h"

#include "base/ensure.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

static void test_set_fills_code_reason_and_message(void **state)
{
    (void) state;
    struct error e = {.retry_after_ms = 5};
    assert_false(error_set(&e, REASON_BUDGET, "needs %d tokens", 7));
    assert_int_equal(e.code, ERROR_LIMIT);
    assert_int_equal(e.reason, REASON_BUDGET);
    assert_int_equal(e.retry_after_ms, 0);
    assert_string_equal(e.message, "needs 7 tokens");
}

static void test_wrap_puts_context_in_front_and_keeps_the_rest(void **state)
{
    (void) state;
    struct error e = {0};
    error_set(&e, REASON_RATE_LIMIT, "slow down");
    e.retry_after_ms = 50;
    assert_false(error_wrap(&e, "call %s", "x"));
    assert_string_equal(e.message, "call x: slow down");
    assert_int_equal(e.reason, REASON_RATE_LIMIT);
    assert_int_equal(e.retry_after_ms, 50);
}

static void test_an_error_may_quote_its_own_message(void **state)
{
    (void) state;
    struct error e = {0};
    error_set(&e, REASON_INTERNAL, "inner");
    error_set(&e, REASON_UNAVAILABLE, "outer (%s)", e.message);
    assert_string_equal(e.message, "outer (inner)");
}

static void test_long_messages_are_cut_at_a_character(void **state)
{
    (void) state;
    struct error e = {0};
    char text[1000];
    for (size_t shift = 0; shift < 4; shift++) {
        memset(text, 'x', shift);
        for (size_t i = shift; i + 4 < sizeof(text); i += 4)
            memcpy(text + i, "😀", 5);
        error_set(&e, REASON_INTERNAL, "%s", text);
        assert_true(str_is_utf8(str_from_cstr(e.message)));
        assert_in_range(strlen(e.message), ERROR_MESSAGE_BYTES - 4, ERROR_MESSAGE_BYTES - 1);
        error_wrap(&e, "%s", text);
        assert_true(str_is_utf8(str_from_cstr(e.message)));
        assert_in_range(strlen(e.message), ERROR_MESSAGE_BYTES - 4, ERROR_MESSAGE_BYTES - 1);
    }
}

static void test_nobody_needs_to_ask_for_the_details(void **state)
{
    (void) state;
    struct error e;
    error_set(&e, REASON_DENIED, "no");
    assert_false(error_set(NULL, REASON_DENIED, "no"));
    assert_false(error_wrap(NULL, "x"));
    assert_false(error_copy(NULL, &e));
}

static void test_copy_is_whole(void **state)
{
    (void) state;
    struct error a = {0}, b = {0};
    error_set(&a, REASON_TIMEOUT, "late");
    assert_false(error_copy(&b, &a));
    assert_memory_equal(&a, &b, sizeof(a));
}

static void test_every_row_of_the_table_makes_sense(void **state)
{
    (void) state;
    for (int i = 0; i < REASON_COUNT; i++) {
        enum error_reason reason = (enum error_reason) i, found;
        assert_in_range(error_http_status(reason), 400, 599);
        assert_in_range(error_exit_code(reason), 1, 5);
        assert_int_not_equal(error_reason_code(reason), ERROR_OK);
        assert_true(strlen(error_title(reason)) > 3);
        assert_true(error_reason_find(str_from_cstr(error_problem(reason)), &found));
        if (reason != REASON_NONE)
            assert_int_equal(found, reason); /* a problem name means one reason */
    }
    enum error_reason found;
    assert_true(error_reason_find(S("over_budget"), &found) && found == REASON_BUDGET);
    assert_true(error_reason_find(S("internal"), &found) && found == REASON_INTERNAL);
    assert_false(error_reason_find(S("nonsense"), &found));
}

static void test_only_unavailable_and_timeout_may_be_retried(void **state)
{
    (void) state;
    for (int code = ERROR_INVALID; code <= ERROR_INTERNAL; code++) {
        struct error e = {.code = (enum error_code) code};
        assert_int_equal(error_may_retry(&e), code == ERROR_UNAVAILABLE || code == ERROR_TIMEOUT);
    }
    assert_string_equal(error_code_name(ERROR_NOT_FOUND), "NOT_FOUND");
}

static void test_what_is_not_in_the_tables_reads_as_internal(void **state)
{
    (void) state;
    assert_string_equal(error_problem((enum error_reason) 9999), "internal");
    assert_string_equal(error_code_name((enum error_code) 9999), "INTERNAL");
}

static void test_ensure_ends_the_process_with_file_and_line(void **state)
{
    (void) state;
    int ends[2], status;
    char text[200] = {0};
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        ensure(1 + 1 == 3);
        _exit(0);
    }
    close(ends[1]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(read(ends[0], text, sizeof(text) - 1) > 0);
    close(ends[0]);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "error_test.c:"));
    assert_non_null(strstr(text, "1 + 1 == 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_fills_code_reason_and_message),
        cmocka_unit_test(test_wrap_puts_context_in_front_and_keeps_the_rest),
        cmocka_unit_test(test_an_error_may_quote_its_own_message),
        cmocka_unit_test(test_long_messages_are_cut_at_a_character),
        cmocka_unit_test(test_nobody_needs_to_ask_for_the_details),
        cmocka_unit_test(test_copy_is_whole),
        cmocka_unit_test(test_every_row_of_the_table_makes_sense),
        cmocka_unit_test(test_only_unavailable_and_timeout_may_be_retried),
        cmocka_unit_test(test_what_is_not_in_the_tables_reads_as_internal),
        cmocka_unit_test(test_ensure_ends_the_process_with_file_and_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
