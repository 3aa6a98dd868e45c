#include "agent/sandbox/sandbox_testkit.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NS_PER_MS = 1000000 };

static struct arena *heap(void)
{
    static struct arena *arena;
    if (!arena)
        arena = arena_create(1u << 30);
    return arena;
}

const char *agent_testkit_dir(void)
{
    static char dir[64];
    if (!dir[0]) {
        snprintf(dir, sizeof dir, "/tmp/nexus-agent-test.XXXXXX");
        ensure(mkdtemp(dir) != NULL);
    }
    return dir;
}

void agent_testkit_remove(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", agent_testkit_dir());
    ensure(system(command) == 0); /* banned-ok: a fixed command of a test */
}

str agent_testkit_write_file(const char *name, str content)
{
    str path = str_printf(heap(), "%s/%s", agent_testkit_dir(), name);
    FILE *file = fopen(path.ptr, "wb");
    ensure(file && fwrite(content.ptr, 1, content.len, file) == content.len && fclose(file) == 0);
    return path;
}

str agent_testkit_read_file(str path)
{
    char *name = str_to_cstr(heap(), path);
    struct stat status;
    ensure(stat(name, &status) == 0);
    char *bytes = arena_alloc(heap(), (size_t) status.st_size + 1);
    FILE *file = fopen(name, "rb");
    ensure(file && fread(bytes, 1, (size_t) status.st_size, file) == (size_t) status.st_size);
    fclose(file);
    return str_of(bytes, (size_t) status.st_size);
}

bool agent_testkit_compile(const char *source, const char *flags, str *module_path)
{
    static int count;
    str out = str_printf(heap(), "%s/guest%d.wasm", agent_testkit_dir(), ++count);
    str command = str_printf(
        heap(),
        "clang --target=wasm32-wasi -O1 -D_GNU_SOURCE -Wl,-z,stack-size=65536 %s -o " STR_FMT
        " %s >&2",
        flags, STR_ARG(out), source);
    *module_path = out;
    const char *has_wasm32 = "clang --print-targets 2>/dev/null | grep -q wasm32";
    if (system(has_wasm32) != 0) /* banned-ok: a fixed command of a test */
        return false;
    return system(str_to_cstr(heap(), command)) == 0; /* banned-ok: a fixed command of a test */
}

struct tool agent_testkit_tool(const char *name, enum tool_abi abi, str module_path)
{
    struct tool tool = {
        .name = str_from_cstr(name),
        .version = S("1.0.0"),
        .category = S("test"),
        .abi = abi,
        .limits = {.fuel = UINT64_C(1) << 40,
                   .time_ms = 10000,
                   .memory_bytes = 64u << 20,
                   .output_bytes = 1u << 20,
                   .table_elements = 1000},
        .input_schema = S("{\"type\":\"object\",\"properties\":{\"do\":{\"type\":\"string\"}}}"),
        .output_schema = S("{\"type\":\"object\"}"),
        .module_path = module_path,
    };
    tool.module_digest = digest_sha256(agent_testkit_read_file(module_path));
    tool.identity = tool_identity(&tool);
    return tool;
}

void agent_testkit_skip_under_tsan(void)
{
#if defined(__SANITIZE_THREAD__)
    fprintf(stderr, "SKIPPED: ThreadSanitizer does not know the Rust library's synchronisation\n");
    exit(0);
#endif
}

/* ---- signals ---- */

static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
static struct sigaction handlers[ARRAY_COUNT(faults)];
static bool has_handlers;

void agent_testkit_keep_fault_handlers(void)
{
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
        ensure(sigaction(faults[i], NULL, &handlers[i]) == 0);
    has_handlers = true;
}

static void restore_fault_handlers(void)
{
    for (size_t i = 0; has_handlers && i < ARRAY_COUNT(faults); i++)
        ensure(sigaction(faults[i], &handlers[i], NULL) == 0);
}

/* ---- calls ---- */

struct running {
    struct agent_testkit_call *call;
    struct loop *loop;
    struct context ctx;
};

static void cancel_later(struct context *ctx, void *argument)
{
    struct running *running = argument;
    struct error e;
    if (context_sleep_ms(ctx, running->call->cancel_ms, &e))
        context_cancel(&running->ctx);
}

static void execute(void *argument)
{
    struct running *running = argument;
    struct agent_testkit_call *call = running->call;
    OWNED(arena) arena = arena_create(256u << 20);
    struct context *ctx = &running->ctx, beside;
    struct group group;
    struct error e;
    int64_t deadline_ms = call->deadline_ms ? call->deadline_ms : 60000;
    int64_t start_ns = clock_monotonic_ns(clock_system());
    context_init(ctx, loop_scheduler(running->loop), arena, start_ns + deadline_ms * NS_PER_MS);
    context_init(&beside, ctx->scheduler, arena, DEADLINE_NONE);
    group_init(&group, &beside);
    if (call->cancel_ms)
        ensure(group_start(&group, "canceller", cancel_later, running, &e));

    struct tool_request request = {
        .tool = call->tool,
        .input = call->input,
        .effect_key = S("effect-1"),
        .files = call->files,
        .file_names = call->file_names,
        .file_name_count = call->file_name_count,
        .notebook = call->notebook,
    };
    call->is_ok = executor_execute(call->executor, ctx, &request, &call->result, &call->error);
    call->took_ms = (clock_monotonic_ns(clock_system()) - start_ns) / NS_PER_MS;
    call->result.output = str_copy(heap(), call->result.output);
    call->result.log = str_copy(heap(), call->result.log);
    call->result.profile = str_copy(heap(), call->result.profile);
    group_cancel(&group);
    group_wait(&group);
    context_deinit(&beside);
    context_deinit(ctx);
    loop_stop(running->loop);
}

void agent_testkit_execute(struct agent_testkit_call *call)
{
    struct error e;
    restore_fault_handlers();
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    ensure(loop != NULL);
    struct running running = {.call = call, .loop = loop};
    ensure(coroutine_start(loop_scheduler(loop), "test call", execute, &running, &e));
    loop_run(loop);
    loop_destroy(loop);
}
