/* nexus run: one message to an agent, followed to its end, on a server or with a platform of its own in this process */
#include "cli/embedded.h"
#include "cli/follow.h"
#include "cli/output.h"
#include "cli/run_view.h"
#include "cli/signals.h"
#include "cli/tool/upload.h"

#include "base/arena.h"
#include "base/limits.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum { POLL_MS = 10, PROMPT_BYTES_MAX = 4 << 20 };

struct run_work {
    struct cli *cli;
    const struct arguments *arguments;
    struct client client;
    struct run_view view;
    str prompt;
    char session_id[40], run_id[40];
    _Atomic bool has_run;
};

/* ---- on the client's coroutine ---- */

static bool open_session(struct run_work *work, struct context *ctx, struct error *e)
{
    str given = arguments_get(work->arguments, "session"),
        agent = arguments_get(work->arguments, "agent");
    const struct json *session;
    struct strbuf body;
    struct json_writer w;
    if (!str_is_empty(given)) {
        if (!str_is_empty(agent))
            return error_set(e, REASON_USAGE,
                             "--agent and --session exclude each other: a session has its agent");
        snprintf(work->session_id, sizeof work->session_id, STR_FMT, STR_ARG(given));
        return true;
    }
    strbuf_init(&body, ctx->arena, 4096);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    if (!str_is_empty(agent))
        json_put_str(&w, S("agent"), agent);
    json_object_end(&w);
    if (!client_call(&work->client, ctx, HTTP_POST, S("/api/v1/sessions"), strbuf_str(&body),
                     &session, e))
        return false;
    snprintf(work->session_id, sizeof work->session_id, STR_FMT,
             STR_ARG(json_str_or(session, S("id"), STR_NONE)));
    return true;
}

static bool upload_files(struct run_work *work, struct context *ctx, struct error *e)
{
    str path;
    for (size_t i = 0; arguments_nth(work->arguments, "file", i, &path); i++) {
        const struct json *file;
        if (!upload_file(&work->client, ctx, str_from_cstr(work->session_id), STR_NONE, path, &file,
                         e))
            return false;
        if (!work->view.is_json && !work->view.is_quiet)
            fprintf(stderr, "%-9s " STR_FMT "  (%lld bytes)\n", "file",
                    STR_ARG(json_str_or(file, S("name"), path)),
                    (long long) json_i64_or(file, S("bytes"), 0));
    }
    return true;
}

static bool send_message(struct run_work *work, struct context *ctx, struct error *e)
{
    str model = arguments_get(work->arguments, "model");
    const struct json *answer;
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, ctx->arena, 8 * (size_t) PROMPT_BYTES_MAX);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("content"), work->prompt);
    if (!str_is_empty(model))
        json_put_str(&w, S("model"), model);
    json_object_end(&w);
    str session_id = str_from_cstr(work->session_id);
    str path = client_path(ctx, "/api/v1/sessions/{}/messages", &session_id);
    if (!client_call(&work->client, ctx, HTTP_POST, path, strbuf_str(&body), &answer, e))
        return false;
    snprintf(work->run_id, sizeof work->run_id, STR_FMT,
             STR_ARG(json_str_or(answer, S("run_id"), STR_NONE)));
    atomic_store(&work->has_run, true);
    return true;
}

static bool show_event(void *owner, struct context *ctx, const struct run_event *event)
{
    struct run_work *work = owner;
    return run_view_event(&work->view, ctx, event);
}

static bool show_wait(void *owner, struct context *ctx, const struct awaited_approval *approval)
{
    struct run_work *work = owner;
    return run_view_wait(&work->view, ctx, approval);
}

static bool run_on_server(struct context *ctx, void *argument, struct error *e)
{
    struct run_work *work = argument;
    bool ok = open_session(work, ctx, e) && upload_files(work, ctx, e) &&
              send_message(work, ctx, e) &&
              follow_run(&work->client, ctx, str_from_cstr(work->run_id), 0, show_event, show_wait,
                         work, e);
    if (ok)
        run_view_total(&work->view, &work->client, ctx, str_from_cstr(work->run_id));
    return ok;
}

static bool cancel_run(struct context *ctx, void *argument, struct error *e)
{
    struct run_work *work = argument;
    str run_id = str_from_cstr(work->run_id);
    str path = client_path(ctx, "/api/v1/runs/{}/cancel", &run_id);
    return client_call(&work->client, ctx, HTTP_POST, path, STR_NONE, NULL, e);
}

/* ---- on the main thread ---- */

/* The first Ctrl-C asks the server to cancel and waits for the run's own end; the second leaves at once. */
static bool wait_for_end(struct run_work *work, struct on_loop *job, struct error *e)
{
    bool is_cancelling = false;
    while (!on_loop_is_done(job)) {
        int signal_number = signals_wait(POLL_MS);
        if (signal_number != SIGINT && signal_number != SIGTERM)
            continue;
        if (is_cancelling)
            signals_die(signal_number);
        is_cancelling = true;
        struct error failure = {0};
        if (!atomic_load(&work->has_run))
            on_loop_cancel(job);
        else if (!on_loop_call(work->client.loop, "cancel", UPSTREAM_CONNECT_TIMEOUT_MS, cancel_run,
                               work, &failure))
            (void) command_fail(work->cli, "run: cancel", &failure);
    }
    return on_loop_wait(job, e);
}

static void tell_waiting(const struct run_work *work, const struct embedded *embedded)
{
    if (work->view.is_json)
        return;
    if (embedded && embedded->is_temporary) {
        fprintf(stderr,
                "\nThe run waits for an approval: %s\n"
                "What it did is not kept: ask a server, or keep it with --data DIR\n",
                work->view.approval_id);
        return;
    }
    run_view_tell_waiting(&work->view, embedded ? CLIENT_SERVER_DEFAULT : work->client.base_url,
                          embedded ? embedded->info->data_dir : STR_NONE);
}

/* `embedded`: the platform in this process; NULL: a server. */
static int run_with(struct run_work *work, str server, str key, const struct embedded *embedded)
{
    struct error e = {0};
    struct on_loop job;
    if (!client_open(&work->client, work->cli, work->arguments, server, key, &e))
        return command_fail(work->cli, "run", &e);
    on_loop_begin(&job, work->client.loop, "run", 0, run_on_server, work);
    bool is_ok = wait_for_end(work, &job, &e);
    int exit_code = is_ok ? run_view_exit_code(&work->view) : command_fail(work->cli, "run", &e);
    if (exit_code == EXIT_WAITING)
        tell_waiting(work, embedded);
    if (is_ok && !work->view.is_json && !work->view.is_quiet)
        fprintf(stderr, "%-9s %s\n%-9s %s\n", "session", work->session_id, "run", work->run_id);
    client_close(&work->client);
    return exit_code;
}

/* ---- embedded ---- */

static int run_embedded(struct run_work *work)
{
    struct error e = {0};
    struct embedded embedded;
    str key = arguments_get(work->arguments, "key");
    int exit_code;
    if (!embedded_open(&embedded, work->cli, "nexus run", work->arguments, &e))
        return command_fail(work->cli, "run", &e);
    if (!work->view.is_json && !work->view.is_quiet)
        embedded_tell_stand_in(&embedded);
    if (str_is_empty(key) && !embedded_key(&embedded, &key, &e))
        exit_code = command_fail(work->cli, "run", &e);
    else
        exit_code = run_with(work, embedded.info->url, key, &embedded);
    embedded_close(&embedded);
    return exit_code;
}

/* ---- the command ---- */

/* The prompt is the words given; "-" reads it from the standard input. */
static bool read_prompt(struct cli *cli, const struct arguments *arguments, str *out,
                        struct error *e)
{
    struct strbuf b;
    strbuf_init(&b, cli->arena, PROMPT_BYTES_MAX);
    if (arguments->operand_count == 1 && str_equal(arguments_operand(arguments, 0), S("-"))) {
        char *room;
        size_t got;
        while ((room = strbuf_reserve(&b, 4096)) != NULL && (got = fread(room, 1, 4096, stdin)) > 0)
            strbuf_commit(&b, got);
    } else {
        for (size_t i = 0; i < arguments->operand_count; i++) {
            strbuf_add(&b, i ? S(" ") : S(""));
            strbuf_add(&b, arguments_operand(arguments, i));
        }
    }
    *out = str_trim(strbuf_str(&b));
    if (strbuf_is_over(&b))
        return error_set(e, REASON_USAGE, "the prompt is over %d bytes; give long texts as --file",
                         PROMPT_BYTES_MAX);
    if (str_is_empty(*out) || !str_is_utf8(*out))
        return error_set(e, REASON_USAGE, "the prompt is empty or no UTF-8 text");
    return true;
}

static int run(struct cli *cli, const struct arguments *arguments)
{
    struct run_work *work = ARENA_NEW(cli->arena, struct run_work);
    struct error e = {0};
    str server = client_server_named(arguments), key;
    work->cli = cli;
    work->arguments = arguments;
    run_view_init(&work->view, cli, arguments_has(arguments, "json"),
                  arguments_has(arguments, "quiet"));
    if (!read_prompt(cli, arguments, &work->prompt, &e))
        return command_fail(cli, "run", &e);
    signals_block();
    int exit_code;
    if (str_is_empty(server))
        exit_code = run_embedded(work);
    else if (client_find_key(cli->arena, arguments, &key, &e))
        exit_code = run_with(work, server, key, NULL);
    else
        exit_code = command_fail(cli, "run", &e);
    blocking_pool_stop();
    fflush(stdout);
    return exit_code;
}

static const struct option options[] = {
    {"server", 's', "URL", false,
     "the server; else $NEXUS_SERVER; without one a platform is started in this process"},
    {"key", 'k', "KEY", false,
     "API key; better in $NEXUS_API_KEY, where other users do not see it"},
    {"data", 'd', "DIR", false,
     "with a server: its data folder, for the admin key; else where to keep everything (not kept "
     "when left out)"},
    {"agent", 'a', "NAME", false, "which agent; else the built-in assistant"},
    {"model", 'm', "NAME", false, "which model; else the agent's"},
    {"file", 'f', "PATH", true, "a file for the session, which tools read by its name"},
    {"session", 0, "ID", false, "go on in this session instead of a new one"},
    {"quiet", 'q', NULL, false, "the answer only"},
    {"json", 'j', NULL, false, "the events, one a line"},
    {"config", 'c', "FILE", false, "configuration of the platform in this process"},
    {"log-level", 0, "LEVEL", false, "of the platform in this process; else error"},
};
static const struct command commands[] = {
    {.name = "run",
     .operands = "PROMPT...",
     .summary = "Send a message to an agent and follow the run to its end",
     .details = "Exit code: 0 completed, 1 failed or cancelled, 2 usage, 3 denied, 4 over budget, "
                "5 waiting for an approval.\n"
                "PROMPT - is read from the standard input.  Ctrl-C cancels the run.",
     .example = "run --file seattle-weather.csv \"Which weather has the highest average wind?\"",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .run = run},
};
const struct command_group run_commands = {commands, ARRAY_COUNT(commands)};
