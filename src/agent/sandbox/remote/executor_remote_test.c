/*
 * The sandbox in a process of its own: the contract, its end in all forms, and processes that lie.
 * The program starts itself: as the sandbox process, and as ones that break the rules.
 */
#include "agent/sandbox/remote/executor_remote.h"
#include "agent/sandbox/executor_contract.h"
#include "agent/sandbox/remote/remote_process.h"
#include "agent/sandbox/remote/remote_server.h"
#include "agent/sandbox/remote/wall.h"
#include "agent/sandbox/sandbox_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BEHAVE NEXUS_SOURCE_DIR "/tests/guests/behave.c"

static struct tool behave;
static int host_runs;

static bool host_test(void *owner, struct context *ctx, const struct tool_request *request,
                      str input, str *output, struct error *e)
{
    (void) owner, (void) request, (void) e;
    host_runs++;
    *output = str_printf(ctx->arena, "{\"got\":" STR_FMT "}", STR_ARG(input));
    return true;
}

static bool host_slow(void *owner, struct context *ctx, const struct tool_request *request,
                      str input, str *output, struct error *e)
{
    (void) owner, (void) request, (void) input, (void) output;
    return context_sleep_ms(ctx, 60000, e);
}

static const struct host_call host_calls[] = {{"test", host_test, NULL}, {"slow", host_slow, NULL}};
static str granted[] = {S_INIT("test"), S_INIT("slow")};

/* ---- executors ---- */

static struct executor *open_as(const char *role, const char *cache_dir,
                                const struct host_call *calls, size_t count)
{
    const char *command[] = {"test", role, NULL};
    struct executor_remote_options options = {.cache_dir = str_from_cstr(cache_dir),
                                              .command = command,
                                              .host_calls = calls,
                                              .host_call_count = count};
    struct executor *executor;
    struct error e;
    if (!executor_remote_create(&options, &executor, &e))
        fail_msg("%s", e.message);
    return executor;
}

static struct executor *open_sandbox(const char *cache_dir, const struct host_call *calls,
                                     size_t count)
{
    return open_as("--sandbox", cache_dir, calls, count);
}

static struct executor *open_role(const char *role)
{
    static char dir[128];
    snprintf(dir, sizeof dir, "%s/cache", agent_testkit_dir());
    return open_as(role, dir, host_calls, ARRAY_COUNT(host_calls));
}

static struct agent_testkit_call call_of(struct executor *executor, const struct tool *tool,
                                         const char *input)
{
    return (struct agent_testkit_call){
        .executor = executor, .tool = tool, .input = str_from_cstr(input)};
}

static struct agent_testkit_call run(struct executor *executor, const char *input)
{
    struct agent_testkit_call call = call_of(executor, &behave, input);
    agent_testkit_execute(&call);
    if (!call.is_ok)
        print_message("  %s\n", call.error.message);
    return call;
}

static size_t descriptor_count(void)
{
    size_t count = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* ---- the end of the process ---- */

static void kill_sandbox(struct executor *executor)
{
    struct executor_remote_state state = executor_remote_state(executor);
    if (state.pid > 0)
        assert_int_equal(kill((pid_t) state.pid, SIGKILL), 0);
}

static void test_the_wall_stands(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct executor *executor = open_role("--sandbox");
    struct executor_remote_state now = executor_remote_state(executor);
    print_message("  " STR_FMT "\n", STR_ARG(wall_names(arena, now.walls)));
    assert_int_equal(now.walls & WALL_NEEDED, WALL_NEEDED);
    assert_true(now.walls & WALL_NO_EXEC_MEMORY);
    assert_true(now.walls & WALL_DIES_WITH_PARENT);
    executor_destroy(executor);
}

/* Of its own: no environment, and only the descriptors it was given. */
static void test_the_process_has_nothing_of_ours(void **state)
{
    (void) state;
    struct executor *executor = open_role("--sandbox");
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    char path[64], text[256], pages[64]; /* its own map of pages, which tells nothing of others */
    int64_t pid = executor_remote_state(executor).pid;
    snprintf(pages, sizeof pages, "/proc/%lld/pagemap", (long long) pid);
    snprintf(path, sizeof path, "/proc/%lld/environ", (long long) pid);
    FILE *file = fopen(path, "r"); /* may be closed to us too: it cannot be dumped */
    if (file) {
        assert_int_equal(fread(text, 1, sizeof text, file), 0);
        fclose(file);
    }
    snprintf(path, sizeof path, "/proc/%lld/fd", (long long) pid);
    DIR *dir = opendir(path);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char target[256];
        ssize_t len = readlinkat(dirfd(dir), entry->d_name, target, sizeof target - 1);
        if (len <= 0)
            continue;
        target[len] = 0;
        bool is_known = strstr(target, "socket:") || strstr(target, "pipe:") ||
                        strstr(target, "anon_inode") || strstr(target, "memfd:") ||
                        strstr(target, ".wasm") || strstr(target, ".cwasm") ||
                        strcmp(target, "/dev/null") == 0 || strcmp(target, pages) == 0;
        if (!is_known)
            fail_msg("descriptor %s is %s", entry->d_name, target);
    }
    if (dir)
        closedir(dir);
    executor_destroy(executor);
}

struct killer {
    struct executor *executor;
    int after_ms;
};

static void *kill_later(void *argument)
{
    struct killer *killer = argument;
    struct timespec pause = {.tv_nsec = killer->after_ms * 1000000l};
    nanosleep(&pause, NULL);
    kill_sandbox(killer->executor);
    return NULL;
}

static struct agent_testkit_call run_and_kill(struct executor *executor, const struct tool *tool,
                                              const char *input)
{
    pthread_t thread;
    struct killer killer = {executor, 60};
    struct agent_testkit_call call = call_of(executor, tool, input);
    assert_int_equal(pthread_create(&thread, NULL, kill_later, &killer), 0);
    agent_testkit_execute(&call);
    pthread_join(thread, NULL);
    assert_false(call.is_ok);
    print_message("  %s (%lld ms)\n", call.error.message, (long long) call.took_ms);
    return call;
}

static void test_its_end_costs_the_call_in_flight_one_clear_error(void **state)
{
    (void) state;
    struct executor *executor = open_role("--sandbox");
    struct tool tool = behave;
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    tool.is_pure = true;
    struct agent_testkit_call call = run_and_kill(executor, &tool, "{\"do\":\"loop\"}");
    assert_int_equal(call.error.reason, REASON_UNAVAILABLE);
    assert_true(error_may_retry(&call.error));
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    tool.is_pure = false;
    call = run_and_kill(executor, &tool, "{\"do\":\"loop\"}");
    assert_int_equal(call.error.reason, REASON_OUTCOME_UNKNOWN);
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    executor_destroy(executor);
}

static void test_a_host_call_in_flight_ends_with_the_process(void **state)
{
    (void) state;
    struct executor *executor = open_role("--sandbox");
    struct tool tool = behave;
    tool.host_calls = granted;
    tool.host_call_count = ARRAY_COUNT(granted);
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    struct agent_testkit_call call = run_and_kill(executor, &tool, "{\"do\":\"host_slow\"}");
    assert_int_equal(call.error.code, ERROR_UNAVAILABLE);
    assert_true(call.took_ms < 2000);
    executor_destroy(executor);
}

static void test_fifty_deaths_leak_nothing(void **state)
{
    (void) state;
    struct executor *executor = open_role("--sandbox");
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    size_t before = descriptor_count();
    for (int i = 0; i < 50; i++) {
        kill_sandbox(executor);
        struct agent_testkit_call call = call_of(executor, &behave, "{\"do\":\"echo\"}");
        agent_testkit_execute(&call);
        if (!call.is_ok)
            assert_int_equal(call.error.code, ERROR_UNAVAILABLE);
    }
    for (int i = 0; i < 5 && !run(executor, "{\"do\":\"echo\"}").is_ok; i++)
        ;
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    assert_in_range(descriptor_count(), before - 1, before + 1);
    struct executor_remote_state now = executor_remote_state(executor);
    print_message("  %lld restarts\n", (long long) now.restart_count);
    executor_destroy(executor);
}

static void test_a_stopped_process_is_noticed_and_replaced(void **state)
{
    (void) state;
    struct executor *executor = open_role("--sandbox");
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    int64_t pid = executor_remote_state(executor).pid;
    assert_int_equal(kill((pid_t) pid, SIGSTOP), 0);
    struct agent_testkit_call call = run(executor, "{\"do\":\"echo\"}");
    assert_int_equal(call.error.code, ERROR_UNAVAILABLE);
    assert_true(call.took_ms < REMOTE_HUNG_MS + 4000);
    assert_true(run(executor, "{\"do\":\"echo\"}").is_ok);
    executor_destroy(executor);
}

static void test_code_is_compiled_once_and_kept_by_us(void **state)
{
    (void) state;
    struct error e;
    struct executor *executor = open_role("--sandbox");
    struct agent_testkit_call call = run(executor, "{\"do\":\"echo\"}");
    assert_true(call.is_ok && call.result.is_cold);
    call = run(executor, "{\"do\":\"echo\"}");
    /* Another loop is another link, which must be told of the tool. */
    assert_true(call.is_ok);
    int64_t begun_ns = clock_monotonic_ns(clock_system());
    assert_true(executor_remote_prepare(executor, &behave, &e));
    print_message("  prepared again in %lld us\n",
                  (long long) (clock_monotonic_ns(clock_system()) - begun_ns) / 1000);
    executor_destroy(executor);
}

/* ---- processes that lie ---- */

static void assert_is_refused(const char *role, const char *text)
{
    struct executor *executor = open_role(role);
    struct tool tool = behave;
    tool.is_pure = true;
    tool.host_calls = granted;
    tool.host_call_count = 1; /* "test", not "slow" */
    host_runs = 0;
    struct agent_testkit_call call = call_of(executor, &tool, "{\"do\":\"echo\"}");
    agent_testkit_execute(&call);
    assert_false(call.is_ok);
    print_message("  %s: %s\n", text, call.error.message);
    assert_int_equal(call.error.code, ERROR_UNAVAILABLE);
    assert_int_equal(host_runs, 0);
    executor_destroy(executor);
}

static void test_a_process_that_breaks_the_rules_is_killed_and_nothing_is_done_for_it(void **state)
{
    (void) state;
    size_t before = descriptor_count();
    assert_is_refused("--lie=ungranted", "a host call that the manifest does not grant");
    assert_is_refused("--lie=unknown", "a host call for a call that does not live");
    assert_is_refused("--lie=result", "a result for a call that does not live");
    assert_is_refused("--lie=huge", "a packet of 4 GiB");
    assert_is_refused("--lie=noise", "bytes that are no packet");
    assert_is_refused("--lie=descriptor", "a descriptor");
    assert_is_refused("--lie=announced", "a descriptor announced and missing");
    assert_is_refused("--lie=output", "an output that is no JSON");
    assert_is_refused("--lie=reason", "a reason that is not a sandbox's");
    assert_is_refused("--lie=cut", "a result cut short");
    assert_in_range(descriptor_count(), before - 1, before + 1);
}

static void test_a_process_that_floods_with_host_calls_is_killed(void **state)
{
    (void) state;
    struct executor *executor = open_role("--lie=flood");
    struct tool tool = behave;
    tool.host_calls = granted;
    tool.host_call_count = 1;
    struct agent_testkit_call call = call_of(executor, &tool, "{\"do\":\"echo\"}");
    agent_testkit_execute(&call);
    assert_false(call.is_ok);
    assert_in_range(host_runs, 0, SANDBOX_HOST_CALLS_MAX);
    executor_destroy(executor);
}

static void test_a_process_whose_wall_does_not_stand_is_not_used(void **state)
{
    (void) state;
    const char *command[] = {"test", "--lie=no-wall", NULL};
    struct executor_remote_options options = {.cache_dir = str_from_cstr(agent_testkit_dir()),
                                              .command = command};
    struct executor *executor;
    struct error e;
    assert_false(executor_remote_create(&options, &executor, &e));
    print_message("  %s\n", e.message);
    assert_non_null(strstr(e.message, "wall"));
}

/* ---- what the wall refuses: each in a child of the test ---- */

static int try_behind_wall(void (*deed)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        uint32_t walls;
        struct error e;
        if (!wall_prepare(0, &walls, &e) || !wall_raise(&walls, &e))
            _exit(100);
        deed();
        _exit(0); /* it was allowed */
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static void deed_socket(void)
{
    (void) !socket(AF_INET, SOCK_STREAM, 0);
}
static void deed_unix_socket(void)
{
    (void) !socket(AF_UNIX, SOCK_STREAM, 0);
}
static void deed_exec(void)
{
    char *arguments[] = {NULL};
    execve("/bin/true", arguments, arguments);
}
static void deed_fork(void)
{
    pid_t pid = fork();
    _exit(pid < 0 ? 50 : 0);
}
static void deed_trace(void)
{
    ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}
static void deed_open(void)
{
    _exit(open("/etc/passwd", O_RDONLY) < 0 ? 50 : 0);
}
static void deed_write(void)
{
    _exit(open("/tmp/nexus-wall-test", O_WRONLY | O_CREAT, 0600) < 0 ? 50 : 0);
}
static void deed_unlink(void)
{
    _exit(unlink("/tmp/nexus-wall-test") < 0 && errno == EPERM ? 50 : 0);
}
static void deed_kill(void)
{
    _exit(kill(getppid(), 0) < 0 ? 50 : 0);
}
static void deed_writable_code(void)
{
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    _exit(mprotect(memory, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) != 0 ? 50 : 0);
}
static void deed_again(void) /* what remains: a descriptor of one's own */
{
    int fd = open("/proc/self/fd/2", O_RDONLY | O_CLOEXEC);
    _exit(fd >= 0 && open("/proc/self/fd/77", O_RDONLY) < 0 && errno == EBADF &&
                  open("/proc/self/fd/2/../../environ", O_RDONLY) < 0
              ? 50
              : 0);
}

static void test_the_wall_refuses_what_a_guest_that_escaped_would_try(void **state)
{
    (void) state;
    assert_int_equal(try_behind_wall(deed_socket), -SIGSYS);
    assert_int_equal(try_behind_wall(deed_unix_socket), -SIGSYS);
    assert_int_equal(try_behind_wall(deed_exec), -SIGSYS);
    assert_int_equal(try_behind_wall(deed_trace), -SIGSYS);
    assert_int_equal(try_behind_wall(deed_fork), 50);
    assert_int_equal(try_behind_wall(deed_open), 50);
    assert_int_equal(try_behind_wall(deed_write), 50);
    assert_int_equal(try_behind_wall(deed_unlink), 50);
    assert_int_equal(try_behind_wall(deed_kill), 50);
    assert_int_equal(try_behind_wall(deed_writable_code), 50);
    assert_int_equal(try_behind_wall(deed_again), 50);
}

/* ---- the liar ---- */

static void say(int fd, uint16_t type, uint64_t id, const struct strbuf *body, int descriptor)
{
    struct error e;
    struct packet packet = {.type = type, .id = id, .descriptor = descriptor};
    if (body)
        packet.body = strbuf_str(body);
    (void) !packet_write(fd, &packet, INT64_MAX, &e);
}

static void say_raw(int fd, const void *bytes, size_t count)
{
    ssize_t ignored = write(fd, bytes, count);
    (void) ignored;
}

static void lie_about(const char *what, int fd, uint64_t id)
{
    OWNED(arena) arena = arena_create(0);
    struct strbuf body;
    struct remote_host_call slow = {S("slow"), S("{}")}, test = {S("test"), S("{}")};
    struct remote_result result = {.is_ok = true, .result.output = S("not json")};
    uint32_t header[6] = {0x3150584e, UINT32_MAX, REMOTE_RESULT, 0, (uint32_t) id, 0};
    strbuf_init(&body, arena, 4096);
    if (strcmp(what, "ungranted") == 0) {
        remote_write_host_call(&body, &slow);
        say(fd, REMOTE_HOST_CALL, id, &body, -1);
    } else if (strcmp(what, "unknown") == 0) {
        remote_write_host_call(&body, &test);
        say(fd, REMOTE_HOST_CALL, id + 1, &body, -1);
    } else if (strcmp(what, "flood") == 0) {
        remote_write_host_call(&body, &test);
        for (int i = 0; i < 2000; i++)
            say(fd, REMOTE_HOST_CALL, id, &body, -1);
    } else if (strcmp(what, "huge") == 0) {
        say_raw(fd, header, sizeof header);
    } else if (strcmp(what, "noise") == 0) {
        say_raw(fd, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 35);
    } else if (strcmp(what, "announced") == 0) {
        header[1] = 0;
        header[2] |= 1u << 16;
        say_raw(fd, header, sizeof header);
    } else {
        if (strcmp(what, "reason") == 0) {
            result.is_ok = false;
            error_set(&result.error, REASON_FENCED, "you are not the writer");
        }
        if (strcmp(what, "descriptor") == 0)
            result.result.output = S("{}");
        remote_write_result(&body, &result);
        if (strcmp(what, "cut") == 0)
            strbuf_truncate(&body, body.len - 3);
        say(fd, REMOTE_RESULT, strcmp(what, "result") == 0 ? id + 7 : id, &body,
            strcmp(what, "descriptor") == 0 ? 2 : -1);
    }
}

/* As a compiler it gives back rubbish. */
static void compile_rubbish(struct packet_reader *control)
{
    OWNED(arena) arena = arena_create(0);
    struct packet packet;
    struct remote_piece piece;
    struct remote_result result = {.is_ok = true};
    struct strbuf body;
    struct error e;
    while (packet_read_until(control, INT64_MAX, &packet, &e)) {
        if (packet.type == REMOTE_CODE && remote_read_piece(packet.body, &piece, &e) &&
            piece.is_wanted)
            say_raw(packet.descriptor, "rubbish", 7);
        if (packet.type != REMOTE_COMPILE)
            continue;
        strbuf_init(&body, arena, 4096);
        remote_write_result(&body, &result);
        say(REMOTE_CONTROL_FD, REMOTE_COMPILED, 0, &body, -1);
    }
}

static int open_link(struct packet_reader *control)
{
    struct packet packet;
    struct error e;
    while (packet_read_until(control, INT64_MAX, &packet, &e)) {
        if (packet.type == REMOTE_LINK)
            return packet.descriptor;
        if (packet.type == REMOTE_PING)
            say(REMOTE_CONTROL_FD, REMOTE_PONG, packet.id, NULL, -1);
    }
    _exit(1);
}

static int lie(const char *what)
{
    OWNED(arena) arena = arena_create(0);
    struct packet packet;
    struct error e;
    struct remote_hello hello;
    struct strbuf body;
    struct packet_reader *control = packet_reader_create(REMOTE_CONTROL_FD, REMOTE_BODY_BYTES_MAX);
    struct remote_ready ready = {.code_version = S("lies"),
                                 .walls = strcmp(what, "no-wall") == 0 ? 0 : WALL_NEEDED};
    if (!packet_read_until(control, INT64_MAX, &packet, &e) ||
        !remote_read_hello(arena, packet.body, &hello, &e))
        return 1;
    strbuf_init(&body, arena, 4096);
    remote_write_ready(&body, &ready);
    say(REMOTE_CONTROL_FD, REMOTE_READY, 0, &body, -1);
    if (hello.mode == REMOTE_COMPILES) {
        compile_rubbish(control);
        return 0;
    }
    int fd = open_link(control);
    struct packet_reader *reader = packet_reader_create(fd, REMOTE_BODY_BYTES_MAX);
    while (packet_read_until(reader, INT64_MAX, &packet, &e))
        if (packet.type == REMOTE_EXECUTE)
            lie_about(what, fd, packet.id);
    return 0;
}

static int setup(void **state)
{
    (void) state;
    str module;
    assert_true(agent_testkit_compile(BEHAVE, "-mexec-model=reactor", &module));
    behave = agent_testkit_tool("behave", TOOL_ABI_NEXUS_EXPORT, module);
    agent_testkit_keep_fault_handlers();
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "--sandbox") == 0)
        return remote_server_run(REMOTE_CONTROL_FD);
    if (argc > 1 && strncmp(argv[1], "--lie=", 6) == 0)
        return lie(argv[1] + 6);
    agent_testkit_skip_under_tsan();
    str module;
    if (!agent_testkit_compile(BEHAVE, "-mexec-model=reactor", &module)) {
        print_message("SKIPPED: no clang for wasm32-wasi (packages clang lld wasi-libc "
                      "libclang-rt-14-dev-wasm32)\n");
        return 0;
    }
    const struct executor_fixture fixture = {
        .name = "sandbox process", .guest_source = BEHAVE, .open = open_sandbox};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_wall_refuses_what_a_guest_that_escaped_would_try),
        cmocka_unit_test(test_the_wall_stands),
        cmocka_unit_test(test_the_process_has_nothing_of_ours),
        cmocka_unit_test(test_code_is_compiled_once_and_kept_by_us),
        cmocka_unit_test(test_its_end_costs_the_call_in_flight_one_clear_error),
        cmocka_unit_test(test_a_host_call_in_flight_ends_with_the_process),
        cmocka_unit_test(test_fifty_deaths_leak_nothing),
        cmocka_unit_test(test_a_stopped_process_is_noticed_and_replaced),
        cmocka_unit_test(test_a_process_that_breaks_the_rules_is_killed_and_nothing_is_done_for_it),
        cmocka_unit_test(test_a_process_that_floods_with_host_calls_is_killed),
        cmocka_unit_test(test_a_process_whose_wall_does_not_stand_is_not_used),
    };
    int failed = executor_contract_run(&fixture);
    failed += cmocka_run_group_tests_name("its end, its lies", tests, setup, NULL);
    blocking_pool_stop();
    agent_testkit_remove();
    return failed;
}
