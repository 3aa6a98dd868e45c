/* The sandbox of a tool's author: one tool, host calls and files as a test says. */
#include "cli/tool/tool_author.h"

#include "base/arena.h"
#include "base/limits.h"
#include "cli/on_loop.h"
#include "cli/shipped.h"
#include "cli/tool/tool_cases.h"
#include "cli/tool/tool_pack.h"
#include "net/egress.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIAL_FOLDER_BYTES = 512 };

/* A host call that the manifest grants. */
struct door {
    struct tool_trial *trial;
    str name;
};

struct tool_trial {
    struct arena *arena;
    struct tool tool;
    struct executor *sandbox;
    struct loop *loop;
    bool is_running; /* the loop's thread */
    struct host_call calls[TOOL_HOST_CALL_NAMES_MAX];
    struct door doors[TOOL_HOST_CALL_NAMES_MAX];
    char folder[TRIAL_FOLDER_BYTES]; /* cache and files; removed at the end */
    /* Of the test at work; the loop's while it runs. */
    struct arena *test_arena;
    const struct tool_case *test;
    bool was_made[TOOL_TEST_CALLS_MAX];
    struct tool_verdict *verdict;
    struct error error;
};

static void tell(struct tool_trial *trial, str line)
{
    struct tool_verdict *verdict = trial->verdict;
    if (verdict->difference_count < TOOL_TEST_DIFFERENCES_MAX)
        verdict->differences[verdict->difference_count++] = line;
}

/* ---- host calls ---- */

static bool call_fits(struct tool_trial *trial, const struct tool_case_call *call, str name,
                      const struct json *request)
{
    str lines[TOOL_TEST_DIFFERENCES_MAX];
    return str_equal(call->name, name) &&
           (!call->request ||
            json_differences(trial->test_arena, call->request, request, true, lines) == 0);
}

/* What the real host checks before anything leaves: the manifest's own list.  An empty one is the operator's to fill. */
static bool may_reach(const struct tool *tool, const struct json *request, struct error *e)
{
    const struct permissions *permissions = &tool->permissions;
    OWNED(egress_rules) rules = NULL;
    struct http_url url;
    struct egress_options options = {
        .allowed_hosts = permissions->network.allowed_hosts.items,
        .allowed_host_count = permissions->network.allowed_hosts.count,
    };
    if (!permissions->network.is_set ||
        (str_equal(tool->category, S("code")) && !permissions->network_access))
        return error_set(e, REASON_PERMISSION, "tool " STR_FMT " has no access to the network",
                         STR_ARG(tool->name));
    if (options.allowed_host_count == 0)
        return true;
    return egress_rules_create(&options, &rules, e) &&
           http_url_parse(json_str_or(request, S("url"), STR_NONE), &url, e) &&
           egress_check_host(rules, url.host, e);
}

may_suspend static bool answer_call(void *owner, struct context *ctx,
                                    const struct tool_request *call, str input_json,
                                    str *output_json, struct error *e)
{
    struct door *door = owner;
    struct tool_trial *trial = door->trial;
    const struct json *request;
    if (!json_parse(ctx->arena, input_json, (struct json_limits){0}, &request, e))
        return false;
    if (str_equal(door->name, S("http_request")) && !may_reach(call->tool, request, e))
        return false;
    for (size_t i = 0; i < trial->test->call_count; i++) {
        const struct tool_case_call *told = &trial->test->calls[i];
        if (trial->was_made[i] || !call_fits(trial, told, door->name, request))
            continue;
        trial->was_made[i] = true;
        if (!told->answer)
            return error_set(e, told->reason, STR_FMT, STR_ARG(told->message));
        *output_json = json_print(ctx->arena, told->answer);
        return true;
    }
    if (str_equal(door->name, S("clock"))) {
        *output_json =
            str_printf(ctx->arena, "{\"unix_us\":%lld}", (long long) context_now_us(ctx));
        return true;
    }
    tell(trial, str_printf(trial->test_arena,
                           "host call " STR_FMT ": the test says no answer for " STR_FMT,
                           STR_ARG(door->name), STR_ARG(str_cut_utf8(input_json, 300))));
    return error_set(e, REASON_UNAVAILABLE, "the test says no answer for this call");
}

static bool is_import(str name)
{
    return str_equal(name, S("file_size")) || str_equal(name, S("file_read")) ||
           str_equal(name, S("file_write")) || str_equal(name, S("log"));
}

static size_t make_doors(struct tool_trial *trial)
{
    size_t count = 0;
    for (size_t i = 0; i < trial->tool.host_call_count; i++) {
        str name = trial->tool.host_calls[i];
        if (is_import(name))
            continue;
        trial->doors[count] = (struct door){trial, name};
        trial->calls[count] = (struct host_call){.name = str_to_cstr(trial->arena, name),
                                                 .run = answer_call,
                                                 .owner = &trial->doors[count]};
        count++;
    }
    return count;
}

/* ---- files ---- */

static str file_path(const struct tool_trial *trial, struct arena *arena, size_t index)
{
    return str_printf(arena, "%s/file-%zu", trial->folder, index);
}

static bool write_files(const struct tool_trial *trial, const struct tool_case *test,
                        struct arena *arena, struct error *e)
{
    for (size_t i = 0; i < test->file_count; i++)
        if (!tool_pack_write_file(file_path(trial, arena, i), test->files[i].text, 0600, e))
            return false;
    return true;
}

may_suspend static bool resolve_file(void *owner, struct context *ctx, str name, str *path,
                                     int64_t *bytes, struct error *e)
{
    struct tool_trial *trial = owner;
    for (size_t i = 0; i < trial->test->file_count; i++)
        if (str_equal(trial->test->files[i].name, name)) {
            *path = file_path(trial, ctx->arena, i);
            *bytes = (int64_t) trial->test->files[i].text.len;
            return true;
        }
    return error_set(e, REASON_NOT_FOUND, "the test has no file \"" STR_FMT "\"",
                     STR_ARG(str_cut_utf8(name, 100)));
}

/* ---- open and close ---- */

/* The folder's tool, with modules where they lie. */
static bool read_tool(struct tool_trial *trial, str folder, struct error *e)
{
    struct package package;
    struct tool *tool = &trial->tool;
    if (!tool_pack_folder(trial->arena, folder, &package, tool, e))
        return false;
    for (size_t i = 0; i < tool->module_count; i++)
        tool->modules[i].path = str_printf(trial->arena, STR_FMT "/" STR_FMT, STR_ARG(folder),
                                           STR_ARG(tool->modules[i].path));
    if (tool->module_count == 0)
        tool->module_path = str_printf(trial->arena, STR_FMT "/" STR_FMT, STR_ARG(folder),
                                       STR_ARG(tool->module_path));
    tool->source = TOOL_INSTALLED;
    tool->identity = tool_identity(tool);
    return true;
}

static bool explain_module(const struct tool *tool, struct error *e)
{
    str message = str_from_cstr(e->message);
    if (str_find(message, S("unknown import")) != STR_NOT_FOUND)
        return error_wrap(e, "the module asks for what the sandbox does not have (there are "
                             "wasi_snapshot_preview1 and nexus; other imports are mostly functions "
                             "that were declared and not linked)");
    if (str_find(message, S("does not export")) != STR_NOT_FOUND)
        return error_wrap(e, "is `abi` right, and was it linked for it (%s)",
                          tool->abi == TOOL_ABI_NEXUS_EXPORT ? "-mexec-model=reactor"
                                                             : "a program with main");
    return false;
}

static bool make_place(struct tool_trial *trial, struct error *e)
{
    const char *temporary = getenv("TMPDIR");
    int len = snprintf(trial->folder, sizeof trial->folder, "%s/nexus-tool.XXXXXX",
                       temporary && *temporary ? temporary : "/tmp");
    if (len > 0 && (size_t) len < sizeof trial->folder && mkdtemp(trial->folder))
        return true;
    trial->folder[0] = '\0';
    return error_set(e, REASON_UNAVAILABLE,
                     "no folder for a trial in %.100s: make room there, or set TMPDIR",
                     temporary && *temporary ? temporary : "/tmp");
}

bool tool_trial_create(struct arena *arena, str folder, struct tool_trial **out, struct error *e)
{
    OWNED(tool_trial) trial = calloc(1, sizeof *trial);
    if (!trial)
        return error_set(e, REASON_UNAVAILABLE, "no memory");
    trial->arena = arena;
    if (!read_tool(trial, folder, e))
        return false;
    if (!make_place(trial, e))
        return false;
    struct sandbox_options options = {
        .cache_dir = str_printf(arena, "%s/cache", trial->folder),
        .thread_count = 1,
        .parallel_max = 1,
        .host_calls = trial->calls,
        .host_call_count = make_doors(trial),
        .clock = clock_system(),
    };
    if (!sandbox_create(&options, &trial->sandbox, e))
        return false;
    if (!sandbox_prepare(trial->sandbox, &trial->tool, e))
        return explain_module(&trial->tool, e);
    trial->loop = loop_create(clock_system(), random_system(), e);
    if (!trial->loop || !loop_start_thread(trial->loop, "nexus-trial", e))
        return false;
    trial->is_running = true;
    *out = GIVE(trial);
    return true;
}

void tool_trial_destroy(struct tool_trial *trial)
{
    if (!trial)
        return;
    if (trial->is_running) {
        loop_stop(trial->loop);
        loop_join_thread(trial->loop);
    }
    executor_destroy(trial->sandbox);
    loop_destroy(trial->loop);
    if (trial->folder[0])
        folder_remove(trial->folder);
    free(trial);
}

const struct tool *tool_trial_tool(const struct tool_trial *trial)
{
    return &trial->tool;
}

/* ---- one test ---- */

static bool execute(struct context *ctx, void *argument, struct error *e)
{
    struct tool_trial *trial = argument;
    const struct tool_case *test = trial->test;
    struct tool_files files = {.owner = trial, .resolve = resolve_file};
    str names[TOOL_TEST_CALLS_MAX];
    for (size_t i = 0; i < test->file_count; i++)
        names[i] = test->files[i].name;
    struct tool_request request = {.tool = &trial->tool,
                                   .input = test->input,
                                   .user_id = S("author"),
                                   .effect_key = S("test"),
                                   .files = &files,
                                   .file_names = names,
                                   .file_name_count = test->file_count};
    struct tool_result *result = &trial->verdict->result;
    bool is_ok = executor_execute(trial->sandbox, ctx, &request, result, e);
    result->output = str_copy(trial->test_arena, result->output);
    result->log = str_copy(trial->test_arena, result->log);
    result->profile = STR_NONE;
    return is_ok;
}

static void judge_failure(struct tool_trial *trial, bool is_ok, const struct error *failure)
{
    const struct tool_case *test = trial->test;
    struct arena *arena = trial->test_arena;
    if (is_ok) {
        tell(trial, str_printf(arena, "expected to fail, and it answered " STR_FMT,
                               STR_ARG(str_cut_utf8(trial->verdict->result.output, 200))));
        return;
    }
    str reason = str_from_cstr(error_problem(failure->reason)),
        message = str_copy(arena, str_from_cstr(failure->message));
    if (!str_is_empty(test->reason) && !str_equal(test->reason, reason))
        tell(trial, str_printf(arena, "reason: expected " STR_FMT ", got " STR_FMT " (" STR_FMT ")",
                               STR_ARG(test->reason), STR_ARG(reason), STR_ARG(message)));
    if (str_find(message, test->message) == STR_NOT_FOUND)
        tell(trial,
             str_printf(arena, "message: expected \"" STR_FMT "\" in it, got \"" STR_FMT "\"",
                        STR_ARG(test->message), STR_ARG(message)));
}

static void judge_output(struct tool_trial *trial)
{
    const struct tool_case *test = trial->test;
    struct tool_verdict *verdict = trial->verdict;
    const struct json *found, *wanted = test->output ? test->output : test->contains;
    struct error e = {0};
    str lines[TOOL_TEST_DIFFERENCES_MAX];
    if (!wanted)
        return;
    if (!json_parse(trial->test_arena, verdict->result.output,
                    (struct json_limits){.allow_duplicates = true}, &found, &e)) {
        tell(trial, str_copy(trial->test_arena, str_from_cstr(e.message)));
        return;
    }
    size_t count =
        json_differences(trial->test_arena, wanted, found, test->contains != NULL, lines);
    for (size_t i = 0; i < count; i++)
        tell(trial, lines[i]);
}

static void judge(struct tool_trial *trial, bool is_ok, const struct error *failure)
{
    const struct tool_case *test = trial->test;
    struct arena *arena = trial->test_arena;
    if (test->is_failure)
        judge_failure(trial, is_ok, failure);
    else if (!is_ok)
        tell(trial, str_printf(arena, "it failed (%s): %s", error_problem(failure->reason),
                               failure->message));
    else
        judge_output(trial);
    if (str_find(trial->verdict->result.log, test->log) == STR_NOT_FOUND)
        tell(trial, str_printf(arena, "log: expected \"" STR_FMT "\" in it, got \"" STR_FMT "\"",
                               STR_ARG(test->log),
                               STR_ARG(str_cut_utf8(trial->verdict->result.log, 200))));
    for (size_t i = 0; i < test->call_count; i++)
        if (!trial->was_made[i])
            tell(trial, str_printf(arena, "host call %zu (" STR_FMT ") was not made", i + 1,
                                   STR_ARG(test->calls[i].name)));
}

void tool_trial_run(struct tool_trial *trial, struct arena *arena, const struct tool_case *test,
                    struct tool_verdict *out)
{
    struct error e = {0};
    *out = (struct tool_verdict){.differences = ARENA_ARRAY(arena, str, TOOL_TEST_DIFFERENCES_MAX)};
    trial->test_arena = arena;
    trial->test = test;
    trial->verdict = out;
    memset(trial->was_made, 0, sizeof trial->was_made);
    bool is_ok = write_files(trial, test, arena, &e) &&
                 on_loop_call(trial->loop, "tool test", TOOL_TEST_MS_MAX, execute, trial, &e);
    judge(trial, is_ok, &e);
    out->is_ok = out->difference_count == 0;
}
