#include "base/fault.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#ifdef NEXUS_FAULTS

static void test_nothing_fires_unless_it_was_armed(void **state)
{
    (void) state;
    assert_false(FAULT("store.commit"));
    fault_arm(S("store.commit"));
    assert_false(FAULT("store.open"));
    assert_true(FAULT("store.commit"));
    fault_arm(STR_NONE);
    assert_false(FAULT("store.commit"));
}

static void test_a_point_fires_once_at_the_named_pass(void **state)
{
    (void) state;
    fault_arm(S("store.commit:3"));
    for (int pass = 1; pass <= 10; pass++)
        assert_int_equal(FAULT("store.commit"), pass == 3);
}

static void test_a_star_fires_each_time(void **state)
{
    (void) state;
    fault_arm(S("a:*"));
    for (int pass = 0; pass < 5; pass++)
        assert_true(FAULT("a"));
}

static void test_several_points_are_armed_by_one_text(void **state)
{
    (void) state;
    fault_arm(S("a:1, b:2,"));
    assert_true(FAULT("a"));
    assert_false(FAULT("b"));
    assert_true(FAULT("b"));
}

static void test_a_trace_tells_each_pass_and_fires_nothing(void **state)
{
    (void) state;
    int pipes[2], kept = dup(STDERR_FILENO);
    char told[128] = "";
    assert_int_equal(pipe(pipes), 0);
    dup2(pipes[1], STDERR_FILENO);
    fault_arm(S("trace,b:2"));
    bool has_fired = FAULT("a") || FAULT("b") || !FAULT("b");
    fault_arm(STR_NONE);
    has_fired = FAULT("c") || has_fired;
    dup2(kept, STDERR_FILENO);
    assert_true(read(pipes[0], told, sizeof told - 1) > 0);
    assert_string_equal(told, "fault point a\nfault point b\nfault point b\n");
    assert_false(has_fired);
    close(kept);
    close(pipes[0]);
    close(pipes[1]);
}

static int signal_of_child(const char *specification, const char *point)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        close(STDERR_FILENO);
        fault_arm(str_from_cstr(specification));
        for (int pass = 0; pass < 2; pass++)
            fault_fires(point);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_kill_ends_the_process_at_the_point(void **state)
{
    (void) state;
    assert_int_equal(signal_of_child("a:2:kill", "a"), SIGKILL);
    assert_int_equal(signal_of_child("a:kill", "a"), SIGKILL);
    assert_int_equal(signal_of_child("a:3:kill", "a"), 0);
}

static void test_a_specification_that_cannot_be_read_ends_the_process(void **state)
{
    (void) state;
    const char *const bad[] = {"a:x", "a:0", ":1", "a:1:burn", "a:1:kill:2"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        assert_int_equal(signal_of_child(bad[i], "b"), SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_fires_unless_it_was_armed),
        cmocka_unit_test(test_a_point_fires_once_at_the_named_pass),
        cmocka_unit_test(test_a_star_fires_each_time),
        cmocka_unit_test(test_several_points_are_armed_by_one_text),
        cmocka_unit_test(test_a_trace_tells_each_pass_and_fires_nothing),
        cmocka_unit_test(test_kill_ends_the_process_at_the_point),
        cmocka_unit_test(test_a_specification_that_cannot_be_read_ends_the_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

static void test_release_builds_have_no_points(void **state)
{
    (void) state;
    assert_false(FAULT("store.commit"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_release_builds_have_no_points)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#endif
