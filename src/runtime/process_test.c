#include "runtime/process.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static char last_error_line[256];

static void keep_error_line(void *owner, str line)
{
    (void) owner;
    snprintf(last_error_line, sizeof last_error_line, STR_FMT, STR_ARG(line));
}

/* Runs fn as a coroutine on a loop of its own until everything has ended. */
struct job {
    void (*fn)(struct context *ctx);
};

static void run_job(void *argument)
{
    struct job *job = argument;
    struct context ctx;
    OWNED(arena) arena = arena_create(64u << 20);
    context_init(&ctx, loop_scheduler(loop), arena, DEADLINE_NONE);
    ctx.deadline_ns = context_deadline_in(&ctx, 20000);
    job->fn(&ctx);
    context_deinit(&ctx);
    loop_stop(loop);
}

static void on_a_loop(void (*fn)(struct context *ctx))
{
    struct error e;
    struct job job = {fn};
    loop = loop_create(clock_system(), random_system(), &e);
    assert_non_null(loop);
    assert_true(coroutine_start(loop_scheduler(loop), "test", run_job, &job, &e));
    loop_run(loop);
    loop_destroy(loop);
}

static struct process *start(const char *script, size_t line_bytes_max)
{
    struct error e;
    struct process *process;
    str arguments[] = {S("sh"), S("-c"), str_from_cstr(script)};
    str environment[] = {S("PATH=/usr/bin:/bin"), S("TOKEN=t0p")};
    struct process_options options = {.arguments = arguments,
                                      .argument_count = 3,
                                      .environment = environment,
                                      .environment_count = 2,
                                      .line_bytes_max = line_bytes_max,
                                      .queue_bytes_max = 1 << 20,
                                      .stop_ms = 100,
                                      .on_error_line = keep_error_line};
    assert_true(process_start(loop, &options, &process, &e));
    return process;
}

static void expect_line(struct process *process, struct context *ctx, const char *expected)
{
    struct error e = {0};
    str line;
    if (!process_read_line(process, ctx, &line, &e))
        fail_msg("%s", e.message);
    assert_int_equal(line.len, strlen(expected));
    assert_memory_equal(line.ptr, expected, line.len);
}

static void talk(struct context *ctx)
{
    struct error e;
    struct process *process = start("while read x; do echo \"got $x\"; done; echo end", 1000);
    assert_true(process_write(process, S("one\ntwo\n"), &e));
    expect_line(process, ctx, "got one");
    expect_line(process, ctx, "got two");
    process_stop(process);
}

static void test_lines_go_in_and_come_out(void **state)
{
    (void) state;
    on_a_loop(talk);
}

static void look_at_environment(struct context *ctx)
{
    struct process *process = start("env | grep -v -e ^_= -e ^PWD= -e ^SHLVL= | sort", 1000);
    expect_line(process, ctx, "PATH=/usr/bin:/bin");
    expect_line(process, ctx, "TOKEN=t0p");
    struct error e;
    str line;
    assert_false(process_read_line(process, ctx, &line, &e));
    assert_int_equal(e.code, ERROR_UNAVAILABLE);
    process_stop(process);
}

static void test_nothing_but_the_given_environment_gets_in(void **state)
{
    (void) state;
    setenv("NEXUS_TEST_SECRET", "x", 1);
    on_a_loop(look_at_environment);
}

static void see_the_end(struct context *ctx)
{
    struct error e;
    str line;
    struct process *process = start("echo oops >&2; printf partial; exit 3", 1000);
    expect_line(process, ctx, "partial");
    assert_false(process_read_line(process, ctx, &line, &e));
    assert_non_null(strstr(e.message, "status 3"));
    assert_string_equal(last_error_line, "oops");
    assert_false(process_is_running(process));
    assert_false(process_write(process, S("x\n"), &e));
    process_stop(process);
}

static void test_the_end_is_told_with_its_status(void **state)
{
    (void) state;
    on_a_loop(see_the_end);
}

static void read_long_lines(struct context *ctx)
{
    struct error e;
    str line;
    struct process *process = start("head -c 100 /dev/zero | tr '\\0' a; echo; head -c 101 "
                                    "/dev/zero | tr '\\0' b; echo",
                                    100);
    assert_true(process_read_line(process, ctx, &line, &e));
    assert_int_equal(line.len, 100);
    assert_false(process_read_line(process, ctx, &line, &e));
    assert_int_equal(e.reason, REASON_TOO_LARGE);
    assert_false(process_read_line(process, ctx, &line, &e));
    process_stop(process);
}

static void test_a_line_past_its_bound_ends_the_reading(void **state)
{
    (void) state;
    on_a_loop(read_long_lines);
}

static void flood(struct context *ctx)
{
    struct error e;
    struct process *process = start("yes abcdefgh", 4096);
    assert_true(context_sleep_ms(ctx, 200, &e)); /* nobody reads: it must wait, not fill memory */
    for (size_t i = 0; i < 100000; i++)
        expect_line(process, ctx, "abcdefgh");
    process_stop(process);
}

static void test_a_flood_waits_for_its_reader(void **state)
{
    (void) state;
    on_a_loop(flood);
}

static pid_t stubborn_child;

static void stop_a_stubborn_one(struct context *ctx)
{
    struct error e;
    str line;
    struct process *process =
        start("trap '' TERM; sleep 1000 & echo $!; while :; do sleep 1; done", 1000);
    assert_true(process_read_line(process, ctx, &line, &e));
    int64_t id = 0;
    assert_true(str_to_i64(line, &id));
    stubborn_child = (pid_t) id;
    process_stop(process);
}

static void test_one_that_ignores_everything_is_killed_with_its_children(void **state)
{
    (void) state;
    on_a_loop(stop_a_stubborn_one); /* returns when the process is gone */
    for (int i = 0; i < 100 && kill(stubborn_child, 0) == 0; i++)
        usleep(20000);
    FILE *status = NULL;
    char path[64], state_line[256] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int) stubborn_child);
    status = fopen(path, "r");
    if (status) { /* nobody may have reaped it: a zombie is dead */
        assert_non_null(fgets(state_line, sizeof state_line, status));
        fclose(status);
        assert_non_null(strstr(state_line, ") Z "));
    }
}

static void start_nothing(struct context *ctx)
{
    struct error e;
    struct process *process;
    str arguments[] = {S("/nowhere/at/all")};
    struct process_options options = {.arguments = arguments, .argument_count = 1};
    (void) ctx;
    assert_false(process_start(loop, &options, &process, &e));
    assert_int_equal(e.reason, REASON_CONFIG);
}

static void test_a_program_that_is_not_there_is_told(void **state)
{
    (void) state;
    on_a_loop(start_nothing);
}

static void write_to_one_that_does_not_read(struct context *ctx)
{
    struct error e;
    struct process *process = start("sleep 1000", 1000);
    str piece = str_of(arena_alloc(ctx->arena, 1 << 18), 1 << 18);
    bool is_fine = true;
    for (int i = 0; i < 16 && is_fine; i++)
        is_fine = process_write(process, piece, &e);
    assert_false(is_fine);
    assert_int_equal(e.reason, REASON_OVERLOADED_HERE);
    process_stop(process);
}

static void test_what_waits_for_a_deaf_child_is_bounded(void **state)
{
    (void) state;
    on_a_loop(write_to_one_that_does_not_read);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_go_in_and_come_out),
        cmocka_unit_test(test_nothing_but_the_given_environment_gets_in),
        cmocka_unit_test(test_the_end_is_told_with_its_status),
        cmocka_unit_test(test_a_line_past_its_bound_ends_the_reading),
        cmocka_unit_test(test_a_flood_waits_for_its_reader),
        cmocka_unit_test(test_one_that_ignores_everything_is_killed_with_its_children),
        cmocka_unit_test(test_a_program_that_is_not_there_is_told),
        cmocka_unit_test(test_what_waits_for_a_deaf_child_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
