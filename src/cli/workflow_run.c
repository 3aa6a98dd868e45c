/*
 * nexus workflow run: an instance, on a server or with a platform of its own in this process.
 *
 * In a platform of its own nobody else is there: the instance runs for the user `workflow`, and whoever sits at the terminal decides about its
 * approvals as the platform's administrator.  Without a terminal an approval ends the command (exit code 5).
 */
#include "cli/embedded.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "cli/workflow_files.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"

#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#define EMBEDDED_USER S("workflow")
enum { POLL_MS = 10, LOOK_MS = 300, HEALTH_MS = 1000, VOTES_MAX = 64, ID_BYTES = 40 };

/* One approval that somebody has to decide; its texts are on the command's arena. */
struct question {
    char id[ID_BYTES];
    str digest, title, shown;
};

struct instance {
    struct cli *cli;
    const struct arguments *arguments;
    struct client client;         /* whose instance it is */
    struct client *judge;         /* who decides about approvals; NULL: somebody else, somewhere */
    struct workflow_paths beside; /* sub-workflows in files, to be stored first */
    bool is_followed;
    struct workflow_following following;
    char run_id[ID_BYTES];
    _Atomic bool has_run;

    str begun_at; /* older approvals are of other runs */
    char voted[VOTES_MAX][ID_BYTES];
    size_t voted_count;
    struct question question;
    bool has_question, is_stuck; /* is_stuck: what is open is nothing that can be decided here */
    bool is_approved;            /* the answer at hand */
};

/* ---- on the client's coroutine ---- */

static bool is_file(str operand)
{
    return str_find_char(operand, '/') != STR_NOT_FOUND || workflow_is_file_name(operand);
}

static str start_body(struct context *ctx, const struct arguments *arguments, str version,
                      str input)
{
    struct strbuf body;
    struct json_writer w;
    str session = arguments_get(arguments, "session");
    strbuf_init(&body, ctx->arena, 4 * WORKFLOW_OUTPUT_BYTES_MAX);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    if (!str_is_empty(version))
        json_put_str(&w, S("version"), version);
    if (!str_is_empty(session))
        json_put_str(&w, S("session_id"), session);
    json_put_raw(&w, S("input"), input);
    json_object_end(&w);
    return strbuf_str(&body);
}

static bool start(struct instance *i, struct context *ctx, struct error *e)
{
    str operand = arguments_operand(i->arguments, 0), name, version, input;
    const struct json *stored, *answer;
    if (!workflow_read_input(ctx, arguments_get(i->arguments, "input"), &input, e))
        return false;
    str_cut(operand, '@', &name, &version);
    for (size_t k = 0; k < i->beside.count; k++)
        if (!workflow_put_file(&i->client, ctx, i->beside.items[k], &stored, e))
            return false;
    if (is_file(operand)) {
        if (!workflow_put_file(&i->client, ctx, operand, &stored, e))
            return false;
        name = json_str_or(stored, S("name"), STR_NONE);
        version = json_str_or(stored, S("version"), STR_NONE);
    }
    str path = client_path(ctx, "/api/v1/workflows/{}/runs", &name);
    if (!client_call(&i->client, ctx, HTTP_POST, path,
                     start_body(ctx, i->arguments, version, input), &answer, e))
        return false;
    snprintf(i->run_id, sizeof i->run_id, STR_FMT,
             STR_ARG(json_str_or(answer, S("run_id"), STR_NONE)));
    atomic_store(&i->has_run, true);
    if (!i->is_followed && i->client.is_json)
        output_json(ctx->arena, answer);
    else if (!i->is_followed)
        printf("%s\n", i->run_id);
    return true;
}

static bool start_and_follow(struct context *ctx, void *argument, struct error *e)
{
    struct instance *i = argument;
    return start(i, ctx, e) &&
           (!i->is_followed ||
            follow_run(&i->client, ctx, str_from_cstr(i->run_id), 0, workflow_show_event,
                       workflow_show_wait, &i->following, e));
}

static bool cancel_run(struct context *ctx, void *argument, struct error *e)
{
    struct instance *i = argument;
    str id = str_from_cstr(i->run_id);
    str path = client_path(ctx, "/api/v1/runs/{}/cancel", &id);
    return client_call(&i->client, ctx, HTTP_POST, path, STR_NONE, NULL, e);
}

/* ---- on the judge's coroutine ---- */

static bool has_voted(const struct instance *i, str id)
{
    for (size_t k = 0; k < i->voted_count; k++)
        if (str_equal(str_from_cstr(i->voted[k]), id))
            return true;
    return false;
}

static bool read_question(struct instance *i, struct context *ctx, str id, struct error *e)
{
    const struct json *approval;
    struct arena *arena = i->cli->arena;
    str path = client_path(ctx, "/api/v1/approvals/{}", &id);
    if (!client_call(i->judge, ctx, HTTP_GET, path, STR_NONE, &approval, e))
        return false;
    i->question = (struct question){
        .digest = str_copy(arena, json_str_or(approval, S("digest"), STR_NONE)),
        .title = str_copy(arena, json_str_or(json_get(approval, S("subject")), S("title"),
                                             json_str_or(approval, S("action"), STR_NONE))),
        .shown = str_copy(arena, json_str_or(approval, S("shown"), STR_NONE)),
    };
    snprintf(i->question.id, sizeof i->question.id, STR_FMT, STR_ARG(id));
    i->has_question = true;
    return true;
}

/* The first open approval of this instance, or of what it started, that was not decided here; is_stuck when all that are open were. */
static bool look_for_question(struct context *ctx, void *argument, struct error *e)
{
    struct instance *i = argument;
    const struct json *page, *item;
    i->has_question = i->is_stuck = false;
    if (!client_call(i->judge, ctx, HTTP_GET, S("/api/v1/approvals?status=pending"), STR_NONE,
                     &page, e))
        return false;
    struct json_iter it = json_iter(json_get(page, S("items")));
    while (json_next(&it, NULL, &item)) {
        str id = json_str_or(item, S("id"), STR_NONE);
        bool is_ours = str_equal(json_str_or(item, S("user_id"), STR_NONE), EMBEDDED_USER) &&
                       str_compare(json_str_or(item, S("created_at"), STR_NONE), i->begun_at) >= 0;
        if (is_ours && !has_voted(i, id))
            return read_question(i, ctx, id, e);
        i->is_stuck = i->is_stuck || is_ours;
    }
    return true;
}

static bool decide(struct context *ctx, void *argument, struct error *e)
{
    struct instance *i = argument;
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, ctx->arena, 4096);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("decision"), i->is_approved ? S("approve") : S("deny"));
    json_put_str(&w, S("digest"), i->question.digest);
    json_put_str(&w, S("reason"), S("decided at the terminal"));
    json_object_end(&w);
    str id = str_from_cstr(i->question.id);
    str path = client_path(ctx, "/api/v1/approvals/{}", &id);
    return client_call(i->judge, ctx, HTTP_POST, path, strbuf_str(&body), NULL, e);
}

struct minting {
    struct instance *instance;
    str key; /* on the command's arena */
};
/* A key for the instance's user, with the administrator's. */
static bool mint_key(struct context *ctx, void *argument, struct error *e)
{
    enum { KEY_LIFE_S = 86400 };
    struct minting *m = argument;
    const struct json *answer;
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, ctx->arena, 4096);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("name"), S("nexus workflow run"));
    json_put_str(&w, S("user_id"), EMBEDDED_USER);
    json_put_str(&w, S("role"), S("admin"));
    json_put_str(
        &w, S("expires_at"),
        time_str(ctx->arena, clock_unix_us(clock_system()) + KEY_LIFE_S * INT64_C(1000000)));
    json_object_end(&w);
    if (!client_call(m->instance->judge, ctx, HTTP_POST, S("/api/v1/keys"), strbuf_str(&body),
                     &answer, e))
        return false;
    m->key = str_copy(m->instance->cli->arena, json_str_or(answer, S("key"), STR_NONE));
    return true;
}

static bool ask_health(struct context *ctx, void *argument, struct error *e)
{
    return client_call(argument, ctx, HTTP_GET, S("/readyz"), STR_NONE, NULL, e);
}

/* ---- on the main thread ---- */

/* A line from the terminal; false: it was closed, or Ctrl-C. */
static bool read_line(char *out, size_t size)
{
    size_t count = 0;
    struct pollfd terminal = {.fd = STDIN_FILENO, .events = POLLIN};
    for (;;) {
        char c;
        if (signals_wait(POLL_MS) == SIGINT)
            return false;
        if (poll(&terminal, 1, 0) <= 0)
            continue;
        if (read(STDIN_FILENO, &c, 1) != 1)
            return false;
        if (c == '\n')
            break;
        if (count + 1 < size)
            out[count++] = c;
    }
    out[count] = '\0';
    return true;
}

static bool ask(struct instance *i)
{
    char line[16];
    fprintf(stderr, "\nApproval needed: ");
    output_text(stderr, i->question.title, false);
    fprintf(stderr, "\n");
    output_text(stderr, i->question.shown, true);
    fprintf(stderr, "\nApprove? [y/N] ");
    if (!read_line(line, sizeof line))
        return false;
    str word = str_trim(str_from_cstr(line));
    i->is_approved = str_equal_nocase(word, S("y")) || str_equal_nocase(word, S("yes"));
    return true;
}

/* False: this approval ends the command. */
static bool attend_approvals(struct instance *i)
{
    struct error e = {0};
    bool may_ask = isatty(STDIN_FILENO) && i->cli->is_terminal_error;
    if (!on_loop_call(i->judge->loop, "approvals", UPSTREAM_CONNECT_TIMEOUT_MS, look_for_question,
                      i, &e))
        return true; /* it is asked again; the run's own end is told by its events */
    if (!i->has_question)
        return !i->is_stuck;
    if (!may_ask || i->voted_count == VOTES_MAX || !ask(i))
        return false;
    memcpy(i->voted[i->voted_count++], i->question.id, ID_BYTES);
    if (!on_loop_call(i->judge->loop, "decide", UPSTREAM_CONNECT_TIMEOUT_MS, decide, i, &e))
        (void) command_fail(i->cli, "workflow run: approval", &e);
    return true;
}

/* True: a signal came, and the second one ends the process. */
static void hear_signal(struct instance *i, struct on_loop *job, bool *is_cancelling)
{
    struct error e = {0};
    int number = signals_wait(POLL_MS);
    if (number != SIGINT && number != SIGTERM)
        return;
    if (*is_cancelling)
        signals_die(number);
    *is_cancelling = true;
    if (!i->is_followed || !atomic_load(&i->has_run))
        on_loop_cancel(job);
    else if (!on_loop_call(i->client.loop, "cancel", UPSTREAM_CONNECT_TIMEOUT_MS, cancel_run, i,
                           &e))
        (void) command_fail(i->cli, "workflow run: cancel", &e);
}

/* *is_waiting: it needs a decision that cannot be had here. */
static bool attend(struct instance *i, bool *is_waiting, struct error *e)
{
    struct on_loop job;
    bool is_cancelling = false;
    int64_t waited_ms = 0;
    *is_waiting = false;
    on_loop_begin(&job, i->client.loop, "workflow run", 0, start_and_follow, i);
    while (!on_loop_is_done(&job)) {
        hear_signal(i, &job, &is_cancelling);
        waited_ms += POLL_MS;
        if (!i->judge || *is_waiting || !atomic_load(&i->has_run) || waited_ms < LOOK_MS)
            continue;
        waited_ms = 0;
        *is_waiting = !attend_approvals(i);
        if (*is_waiting)
            on_loop_cancel(&job);
    }
    return on_loop_wait(&job, e) || *is_waiting;
}

static void tell_waiting(const struct instance *i, const struct embedded *embedded)
{
    if (i->following.view.is_json)
        return;
    fprintf(stderr, "\nIt waits for an approval: %s\n", i->question.id);
    if (embedded->is_temporary)
        fprintf(stderr, "What it did is not kept: run it at a terminal, or with --data DIR\n");
    else
        fprintf(
            stderr,
            "  nexus serve --data " STR_FMT "\n  nexus approval approve %s --data " STR_FMT "\n",
            STR_ARG(embedded->info->data_dir), i->question.id, STR_ARG(embedded->info->data_dir));
}

static int run_with(struct instance *i, str server, str key, const struct embedded *embedded)
{
    struct error e = {0};
    bool is_waiting;
    if (!client_open(&i->client, i->cli, i->arguments, server, key, &e))
        return command_fail(i->cli, "workflow run", &e);
    i->following.stops_at_wait = !embedded && i->client.is_json;
    i->following.is_asked_here = embedded != NULL;
    run_view_init(&i->following.view, i->cli, i->client.is_json, true);
    bool is_ok = attend(i, &is_waiting, &e);
    int exit_code = !is_ok           ? command_fail(i->cli, "workflow run", &e)
                    : is_waiting     ? EXIT_WAITING
                    : i->is_followed ? run_view_exit_code(&i->following.view)
                                     : EXIT_DONE;
    if (is_waiting)
        tell_waiting(i, embedded);
    client_close(&i->client);
    return exit_code;
}

static int run_as_user(struct instance *i, const struct embedded *embedded)
{
    struct error e = {0};
    struct client judge;
    struct minting minting = {.instance = i};
    str admin_key;
    if (!embedded_key(embedded, &admin_key, &e) ||
        !client_open(&judge, i->cli, i->arguments, embedded->info->url, admin_key, &e))
        return command_fail(i->cli, "workflow run", &e);
    i->judge = &judge;
    i->begun_at = time_str(i->cli->arena, clock_unix_us(clock_system()));
    int exit_code;
    if (on_loop_call(judge.loop, "key", UPSTREAM_CONNECT_TIMEOUT_MS, mint_key, &minting, &e))
        exit_code = run_with(i, embedded->info->url, minting.key, embedded);
    else
        exit_code = command_fail(i->cli, "workflow run", &e);
    client_close(&judge);
    return exit_code;
}

static never_inline int run_embedded(struct instance *i)
{
    struct error e = {0};
    struct embedded embedded;
    int exit_code = EXIT_DONE;
    str operand = arguments_operand(i->arguments, 0);
    i->is_followed = true; /* the platform ends with this process */
    if (is_file(operand) && !workflow_find_beside(i->cli, operand, &i->beside, &exit_code))
        return exit_code;
    if (!embedded_open(&embedded, i->cli, "nexus workflow run", i->arguments, &e))
        return command_fail(i->cli, "workflow run", &e);
    if (!arguments_has(i->arguments, "json"))
        embedded_tell_stand_in(&embedded);
    exit_code = run_as_user(i, &embedded);
    embedded_close(&embedded);
    return exit_code;
}

/* ---- where ---- */

/* A key for the server at the usual place; empty: none is known. */
static str usual_key(struct cli *cli, const struct arguments *arguments)
{
    str data = arguments_get(arguments, "data"), key = STR_NONE;
    struct error none = {0};
    str file = str_printf(cli->arena, STR_FMT "/admin.key", STR_ARG(data));
    bool has_file = !str_is_empty(data) && access(str_to_cstr(cli->arena, file), R_OK) == 0;
    bool is_given = arguments_has(arguments, "key") || getenv("NEXUS_API_KEY");
    if (has_file || is_given)
        (void) !client_find_key(cli->arena, arguments, &key, &none);
    return key;
}

/* Is there a server at the usual place that takes this key? */
static bool is_served(struct cli *cli, const struct arguments *arguments, str key)
{
    struct client client;
    struct error none = {0};
    if (str_is_empty(key) ||
        !client_open(&client, cli, arguments, CLIENT_SERVER_DEFAULT, key, &none))
        return false;
    bool is_there = on_loop_call(client.loop, "health", HEALTH_MS, ask_health, &client, &none);
    client_close(&client);
    return is_there;
}

static int run(struct cli *cli, const struct arguments *arguments)
{
    struct instance *i = ARENA_NEW(cli->arena, struct instance);
    struct error e = {0};
    str server = client_server_named(arguments), key;
    *i = (struct instance){
        .cli = cli, .arguments = arguments, .is_followed = arguments_has(arguments, "wait")};
    signals_block();
    int exit_code;
    if (str_is_empty(server)) {
        key = usual_key(cli, arguments);
        exit_code = is_served(cli, arguments, key) ? run_with(i, CLIENT_SERVER_DEFAULT, key, NULL)
                                                   : run_embedded(i);
    } else if (client_find_key(cli->arena, arguments, &key, &e)) {
        exit_code = run_with(i, server, key, NULL);
    } else {
        exit_code = command_fail(cli, "workflow run", &e);
    }
    blocking_pool_stop();
    fflush(stdout);
    return exit_code;
}

static const struct option options[] = {
    {"input", 'i', "JSON", false, "the input, or @FILE with it; else {}"},
    {"session", 0, "ID", false, "in this session; else in one of its own"},
    {"wait", 'w', NULL, false, "follow it to its end; the exit code is the run's"},
    {"server", 's', "URL", false,
     "the server; else $NEXUS_SERVER, else the one at 127.0.0.1:8080 when its key is known, else "
     "a platform is started in this process, which waits"},
    {"key", 'k', "KEY", false,
     "API key; better in $NEXUS_API_KEY, where other users do not see it"},
    {"data", 'd', "DIR", false,
     "with a server: its data folder, for the admin key; else where to keep everything (not kept "
     "when left out)"},
    {"json", 'j', NULL, false, "the events, one a line"},
    {"config", 'c', "FILE", false, "configuration of the platform in this process"},
    {"log-level", 0, "LEVEL", false, "of the platform in this process; else error"},
};
static const struct command commands[] = {
    {.name = "workflow run",
     .operands = "NAME",
     .summary = "Start an instance of a workflow",
     .details =
         "NAME is a workflow (\"name\" or \"name@range\") or a file, which is stored first. Prints "
         "the run's id, or with --wait its output.\n"
         "Without a server it runs in this process, to its end; approvals are asked for at the "
         "terminal, and sub-workflows are found in the files beside the file.\n"
         "With --wait a server's instance is followed through its waits (approvals are told, with "
         "the command to see "
         "them); with --json it ends at the first approval.\n"
         "Exit code: 0 completed, 1 failed or cancelled, 2 usage, 3 denied, 4 over budget, 5 "
         "waiting for an approval (--json, or nobody at a terminal).",
     .example = "workflow run order.yaml --input '{\"sku\": \"a1\"}' --wait",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .run = run},
};
const struct command_group workflow_run_commands = {commands, ARRAY_COUNT(commands)};
