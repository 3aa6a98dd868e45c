#include "agent/sandbox/sandbox_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include <stdlib.h>
#include <string.h>

enum { NS_PER_US = 1000, NS_PER_MS = 1000000 };

static struct sandbox *sandbox_of(struct executor *executor)
{
    return (struct sandbox *) executor;
}

/* ---- before the guest: what the permissions say ---- */

static bool list_has(const struct str_list *list, str item)
{
    for (size_t i = 0; i < list->count; i++)
        if (str_equal(list->items[i], item))
            return true;
    return false;
}

static struct tool_module only_module(const struct tool *tool)
{
    return (struct tool_module){
        .abi = tool->abi, .path = tool->module_path, .digest = tool->module_digest};
}

/* Tools that run code: only in the languages granted.  An input without a language is the schema's
   business. */
static bool check_language(const struct tool *tool, const struct json *input, struct error *e)
{
    str language;
    if (!json_to_str(json_get(input, S("language")), &language) ||
        list_has(&tool->permissions.languages, language))
        return true;
    return error_set(e, REASON_PERMISSION,
                     "tool " STR_FMT " may not run " STR_FMT ": its permissions list %s languages",
                     STR_ARG(tool->name), STR_ARG(str_cut_utf8(language, 40)),
                     tool->permissions.languages.count ? "other" : "no");
}

/* What of the input decides before the guest starts: the language, and with it the module. */
static bool look_at_input(struct context *ctx, const struct tool_request *request,
                          struct tool_module *out, struct notebook_wish *notebook, struct error *e)
{
    const struct tool *tool = request->tool;
    const struct json *input;
    bool runs_code = str_equal(tool->category, S("code")) || tool->permissions.languages.count > 0;
    if (!runs_code && tool->module_count == 0)
        return tool_choose_module(ctx->arena, tool, NULL, out, e);
    if (!json_parse(ctx->arena, request->input, (struct json_limits){.allow_duplicates = true},
                    &input, e))
        return false;
    return tool_choose_module(ctx->arena, tool, input, out, e) &&
           (!runs_code || check_language(tool, input, e)) &&
           notebook_of_call(request, input, out, notebook, e);
}

static void lower_limits(struct guest *guest, const struct tool_notebook *notebook)
{
    const struct permissions *permissions = &guest->request->tool->permissions;
    guest->limits = guest->request->tool->limits;
    if (permissions->max_memory_bytes > 0 &&
        (uint64_t) permissions->max_memory_bytes < guest->limits.memory_bytes)
        guest->limits.memory_bytes = (size_t) permissions->max_memory_bytes;
    if (notebook && notebook->memory_bytes < guest->limits.memory_bytes)
        guest->limits.memory_bytes = notebook->memory_bytes;
    guest->cpu_limit_ns = permissions->max_cpu_time_ms * NS_PER_MS;
}

/* Names become paths here, on the loop; the guest can then name these files and nothing else. */
may_suspend static bool resolve_file(struct context *ctx, const struct tool_request *request,
                                     struct guest_file *file, struct error *e)
{
    const struct permissions *permissions = &request->tool->permissions;
    str path;
    if (!permissions_allow_read(permissions, file->name)) {
        file->is_denied = true;
        return true;
    }
    if (!request->files->resolve(request->files->owner, ctx, file->name, &path, &file->bytes, e))
        return error_wrap(e, "file " STR_FMT " for tool " STR_FMT, STR_ARG(file->name),
                          STR_ARG(request->tool->name));
    file->path = str_to_cstr(ctx->arena, path);
    file->is_denied = permissions->max_file_bytes > 0 && file->bytes > permissions->max_file_bytes;
    return true;
}

may_suspend static bool resolve_files(struct context *ctx, struct guest *guest, struct error *e)
{
    const struct tool_request *request = guest->request;
    if (!request->files || !tool_may_call(request->tool, S("file_read")))
        return true;
    if (request->file_name_count > SANDBOX_FILES_MAX)
        return error_set(e, REASON_LIMIT, "%zu files for one tool call: at most %u",
                         request->file_name_count, SANDBOX_FILES_MAX);
    guest->files = ARENA_ARRAY(ctx->arena, struct guest_file, request->file_name_count);
    for (size_t i = 0; i < request->file_name_count; i++) {
        struct guest_file *file = &guest->files[guest->file_count];
        *file = (struct guest_file){.name = request->file_names[i], .fd = -1};
        if (!resolve_file(ctx, request, file, e))
            return false;
        guest->file_count++;
    }
    return true;
}

/* ---- the module ---- */

struct load {
    struct sandbox *sandbox;
    const struct tool *tool;
    const struct tool_module *module;
    struct prepared *prepared;
    bool is_busy, is_ok;
    struct error error;
};

static void load_now(void *argument)
{
    struct load *load = argument;
    load->is_ok = module_cache_load(load->sandbox->modules, load->tool, load->module,
                                    &load->prepared, &load->is_busy, &load->error);
}

static bool say_compiling(const struct tool *tool, struct error *e)
{
    return error_wrap(e,
                      "tool " STR_FMT " is being compiled, once per version and machine; try again "
                      "in a minute",
                      STR_ARG(tool->name));
}

/* Compiling happens once per module, on the blocking pool; who comes meanwhile looks again every
   few ms instead of holding a thread of the pool. */
may_suspend static bool prepare(struct sandbox *sandbox, struct context *ctx, struct guest *guest,
                                struct error *e)
{
    const struct tool *tool = guest->request->tool;
    for (;;) {
        guest->prepared = module_cache_find(sandbox->modules, tool, &guest->module);
        if (guest->prepared)
            return true;
        guest->is_cold = true;
        struct load load = {.sandbox = sandbox, .tool = tool, .module = &guest->module};
        if (!blocking_call(ctx, load_now, &load, e)) {
            prepared_release(load.prepared);
            return say_compiling(tool, e);
        }
        if (!load.is_ok)
            return error_copy(e, &load.error);
        guest->prepared = load.prepared;
        if (!load.is_busy)
            return true;
        if (!context_sleep_ms(ctx, SANDBOX_LOAD_POLL_MS, e))
            return say_compiling(tool, e);
    }
}

/* ---- the notebook ---- */

/* Calls of one notebook come one after the other, each within its own deadline. */
may_suspend static bool take_notebook(struct sandbox *sandbox, struct context *ctx,
                                      const struct notebook_wish *wish, struct guest *guest,
                                      struct error *e)
{
    bool is_busy = false;
    if (!wish->is_there)
        return true;
    do {
        if (is_busy && !context_sleep_ms(ctx, SANDBOX_LOAD_POLL_MS, e))
            return error_wrap(e, "another call uses this notebook");
        if (!notebook_take(sandbox->notebooks, &wish->of, &guest->notebook, &is_busy, e))
            return false;
    } while (is_busy);
    return true;
}

/* ---- a host call, on the loop ---- */

static str answer_json(struct arena *arena, bool is_ok, str output, const struct error *failure)
{
    static const char *const codes[] = {
        [ERROR_INVALID] = "invalid_input", [ERROR_DENIED] = "denied",
        [ERROR_NOT_FOUND] = "not_found",   [ERROR_CONFLICT] = "conflict",
        [ERROR_LIMIT] = "limit",           [ERROR_TIMEOUT] = "timeout",
        [ERROR_CANCELLED] = "cancelled",   [ERROR_UNAVAILABLE] = "unavailable",
        [ERROR_INTERNAL] = "internal",
    };
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, output.len + 4 * ERROR_MESSAGE_BYTES);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    if (is_ok) {
        json_put_raw(&w, S("ok"), output);
    } else {
        json_key(&w, S("error"));
        json_object_begin(&w);
        json_put_str(&w, S("code"), str_from_cstr(codes[failure->code]));
        json_put_str(&w, S("message"), str_from_cstr(failure->message));
        json_object_end(&w);
    }
    json_object_end(&w);
    return strbuf_str(&text);
}

static void answer(struct guest *guest, bool is_ok, str output, struct error *failure,
                   struct arena *arena)
{
    if (is_ok && output.len > SANDBOX_HOST_CALL_BYTES_MAX)
        is_ok = error_set(failure, REASON_TOO_LARGE, "the answer of the host call is over %u MiB",
                          SANDBOX_HOST_CALL_BYTES_MAX >> 20);
    if (!is_ok && failure->code == ERROR_DENIED)
        guest->denied_reason = failure->reason;
    str json = answer_json(arena, is_ok, output, failure);
    guest->call.answer = malloc(json.len + 1);
    ensure(guest->call.answer != NULL);
    memcpy(guest->call.answer, json.ptr, json.len);
    guest->call.answer_bytes = json.len;
    threads_resume(guest->sandbox->threads, guest); /* from here on it is not ours */
}

static void run_host_call(void *argument)
{
    struct guest *guest = argument;
    const struct host_call *host = guest->call.host;
    OWNED(arena) arena = arena_create(4 * (size_t) SANDBOX_HOST_CALL_BYTES_MAX);
    struct context ctx;
    struct error e = {0};
    str output = S("null");
    context_init_child(&ctx, guest->ctx, guest->deadline_ns);
    ctx.arena = arena;
    bool is_ok = host->run(host->owner, &ctx, guest->request,
                           str_of(guest->call.request, guest->call.request_bytes), &output, &e);
    context_deinit(&ctx);
    answer(guest, is_ok, output, &e, arena);
}

static void start_on_loop(void *argument)
{
    struct guest *guest = argument;
    struct error e = {0};
    if (coroutine_start(guest->ctx->scheduler, guest->call.host->name, run_host_call, guest, &e))
        return;
    OWNED(arena) arena = arena_create(0);
    answer(guest, false, STR_NONE, &e, arena);
}

void sandbox_start_host_call(struct guest *guest)
{
    loop_post(guest->loop, start_on_loop, guest);
}

/* ---- the guest's end ---- */

static void finish_on_loop(void *argument)
{
    struct guest *guest = argument;
    guest->is_finished = true;
    condition_broadcast(&guest->finished);
}

void sandbox_guest_ended(struct guest *guest)
{
    loop_post(guest->loop, finish_on_loop, guest);
}

/* Returns when the guest has ended, whatever happens to ctx: it borrows from our caller.  A
   cancelled one ends at once (a host call of its is cancelled with ctx). */
may_suspend static bool await_end(struct context *ctx, struct guest *guest, struct error *e)
{
    struct error stop;
    while (!guest->is_finished && condition_wait(&guest->finished, ctx, &stop))
        ;
    if (guest->is_finished)
        return true;
    threads_cancel(guest->sandbox->threads, guest);
    struct context patient;
    context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    while (!guest->is_finished) {
        struct error never;
        if (!condition_wait(&guest->finished, &patient, &never))
            unreachable_state(); /* nobody cancels it and it has no deadline */
    }
    context_deinit(&patient);
    if (guest->is_ok)
        return true; /* it ended well in the meantime */
    return error_copy(e, guest->error.code == stop.code ? &guest->error : &stop);
}

may_suspend static bool run(struct context *ctx, struct guest *guest,
                            const struct notebook_wish *wish, struct error *e)
{
    struct sandbox *sandbox = guest->sandbox;
    if (!resolve_files(ctx, guest, e) || !prepare(sandbox, ctx, guest, e) ||
        !take_notebook(sandbox, ctx, wish, guest, e))
        return false;
    bool is_ok = threads_submit(sandbox->threads, guest, e) && await_end(ctx, guest, e);
    if (guest->notebook)
        notebook_put_back(sandbox->notebooks, guest->notebook);
    if (!is_ok)
        return false;
    return guest->is_ok ? true : error_copy(e, &guest->error);
}

static void give_result(struct context *ctx, const struct guest *guest, struct tool_result *out)
{
    out->fuel = guest->fuel_used;
    out->memory_bytes = guest->memory_bytes;
    out->cpu_us = guest->cpu_ns / NS_PER_US;
    out->is_cold = guest->is_cold;
    out->profile = guest_profile(guest, ctx->arena);
    out->log = str_copy(ctx->arena, str_of(guest->log, guest->log_bytes));
    if (guest->is_ok)
        out->output = str_copy(ctx->arena, str_of(guest->output, guest->output_bytes));
}

may_suspend static bool sandbox_execute(struct executor *executor, struct context *ctx,
                                        const struct tool_request *request, struct tool_result *out,
                                        struct error *e)
{
    int64_t start_ns = context_now_ns(ctx);
    if (request->input.len > TOOL_INPUT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the input of tool " STR_FMT " is over %u MiB",
                         STR_ARG(request->tool->name), TOOL_INPUT_BYTES_MAX >> 20);
    struct tool_module module;
    struct notebook_wish notebook = {0};
    if (!context_check(ctx, e) || !look_at_input(ctx, request, &module, &notebook, e))
        return false;
    /* On the heap: it is too large for a coroutine's stack and other threads work on it. */
    struct guest *guest = calloc(1, sizeof *guest);
    ensure(guest != NULL);
    guest->sandbox = sandbox_of(executor);
    guest->request = request;
    guest->module = module;
    guest->loop = loop_current();
    guest->ctx = ctx;
    guest->deadline_ns = ctx->deadline_ns;
    ensure(guest->loop != NULL);
    condition_init(&guest->finished);
    lower_limits(guest, notebook.is_there ? &notebook.of : NULL);

    bool is_ok = run(ctx, guest, &notebook, e);
    give_result(ctx, guest, out);
    out->latency_us = (context_now_ns(ctx) - start_ns) / NS_PER_US;
    out->latency_ms = out->latency_us / 1000;
    prepared_release(guest->prepared);
    guest_dispose(guest);
    free(guest);
    return is_ok;
}

/* ---- the sandbox ---- */

static void sandbox_destroy(struct executor *executor)
{
    struct sandbox *sandbox = sandbox_of(executor);
    threads_destroy(sandbox->threads);
    notebooks_destroy(sandbox->notebooks);
    module_cache_destroy(sandbox->modules);
    engine_destroy(sandbox->engine);
    free(sandbox);
}

static const struct executor_ops sandbox_ops = {
    .name = "sandbox",
    .execute = sandbox_execute,
    .destroy = sandbox_destroy,
};

bool sandbox_create(const struct sandbox_options *options, struct executor **out, struct error *e)
{
    int parallel_max = options->parallel_max > 0 ? options->parallel_max : SANDBOX_PARALLEL_DEFAULT;
    if (parallel_max > SANDBOX_PARALLEL_MAX || options->thread_count < 0 ||
        options->thread_count > SANDBOX_THREADS_MAX)
        return error_set(e, REASON_CONFIG, "the sandbox: at most %d parallel calls and %d threads",
                         SANDBOX_PARALLEL_MAX, SANDBOX_THREADS_MAX);
    struct sandbox *sandbox = calloc(1, sizeof *sandbox);
    ensure(sandbox != NULL);
    sandbox->base.ops = &sandbox_ops;
    sandbox->clock = options->clock;
    sandbox->host_calls = options->host_calls;
    sandbox->notebooks = notebooks_create(options->clock, guest_drop_kept);
    sandbox->host_call_count = options->host_call_count;
    if (!engine_create(parallel_max, &sandbox->engine, e) ||
        !module_cache_create(sandbox->engine, options->cache_dir, options->code, &sandbox->modules,
                             e) ||
        !threads_create(options->clock, options->thread_count, parallel_max, sandbox->engine,
                        &sandbox->threads, e)) {
        sandbox_destroy(&sandbox->base);
        return false;
    }
    *out = &sandbox->base;
    return true;
}

static bool prepare_module(struct sandbox *sandbox, const struct tool *tool,
                           const struct tool_module *module, struct error *e)
{
    struct prepared *prepared;
    bool is_busy;
    /* Busy: another thread compiles it this moment, which is as good. */
    if (!module_cache_load(sandbox->modules, tool, module, &prepared, &is_busy, e))
        return false;
    prepared_release(prepared);
    return true;
}

bool sandbox_prepare(struct executor *executor, const struct tool *tool, struct error *e)
{
    struct tool_module only = only_module(tool);
    ensure(executor->ops == &sandbox_ops);
    if (tool->module_count == 0)
        return prepare_module(sandbox_of(executor), tool, &only, e);
    for (size_t i = 0; i < tool->module_count; i++)
        if (!prepare_module(sandbox_of(executor), tool, &tool->modules[i], e))
            return false;
    return true;
}

str sandbox_code_version(struct executor *executor)
{
    ensure(executor->ops == &sandbox_ops);
    return engine_version(sandbox_of(executor)->engine);
}
