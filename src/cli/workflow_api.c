/* nexus workflow put|list|show|signal|deprecate: instances and definitions on a server */
#include "cli/api.h"
#include "cli/follow.h"
#include "cli/tool/tool_pack.h"
#include "cli/workflow_files.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/uuid.h"

/* ---- definitions ---- */

static const struct column list_columns[] = {
    {"NAME", "/name", 28},        {"VERSION", "/version", 10},        {"FROM", "/origin", 10},
    {"STATE", "/deprecated", 14}, {"DESCRIPTION", "/description", 0},
};

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    str name = arguments_operand(client->arguments, 0);
    str query = str_is_empty(name) ? STR_NONE
                                   : str_printf(ctx->arena, "name=" STR_FMT,
                                                STR_ARG(http_percent_encode(ctx->arena, name)));
    return api_list_whole(client, ctx, S("/api/v1/workflows"), query, list_columns,
                          ARRAY_COUNT(list_columns), e);
}

static bool read_answer(struct context *ctx, struct http_exchange *exchange,
                        const struct json **out, struct error *e)
{
    str text;
    bool ok = http_exchange_read_all(exchange, ctx, WORKFLOW_BYTES_MAX * 4, &text, e);
    http_exchange_close(exchange);
    return ok && json_parse(ctx->arena, text, (struct json_limits){0}, out, e);
}

bool workflow_put_file(struct client *client, struct context *ctx, str path,
                       const struct json **out, struct error *e)
{
    struct http_exchange *exchange;
    str text;
    if (!workflow_file_read(ctx->arena, &path, &text, e))
        return false;
    if (!client_send(client, ctx,
                     &(struct client_request){.method = HTTP_PUT,
                                              .path = S("/api/v1/workflows"),
                                              .content_type = S("application/yaml"),
                                              .body = text},
                     &exchange, e))
        return error_wrap(e, STR_FMT, STR_ARG(path));
    return read_answer(ctx, exchange, out, e);
}

static bool put(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *stored;
    str path;
    for (size_t i = 0; !str_is_empty(path = arguments_operand(client->arguments, i)); i++) {
        if (!workflow_put_file(client, ctx, path, &stored, e))
            return false;
        if (client->is_json)
            output_json(ctx->arena, stored);
        else
            printf(STR_FMT "@" STR_FMT "  " STR_FMT "\n",
                   STR_ARG(json_str_or(stored, S("name"), STR_NONE)),
                   STR_ARG(json_str_or(stored, S("version"), STR_NONE)),
                   STR_ARG(str_slice(json_str_or(stored, S("digest"), STR_NONE), 0, 12)));
    }
    return true;
}

static bool deprecate(struct client *client, struct context *ctx, struct error *e)
{
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, ctx->arena, 8192);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("reason"), arguments_get(client->arguments, "reason"));
    json_object_end(&w);
    return api_do(client, ctx, HTTP_POST,
                  api_path(client, ctx, "/api/v1/workflows/{}/versions/{}/deprecate"),
                  strbuf_str(&body), "deprecated", arguments_operand(client->arguments, 0), e);
}

/* ---- the tree of an instance ---- */

struct tree {
    struct client *client;
    struct context *ctx;
};

static enum style style_of(str status)
{
    if (str_equal(status, S("completed")))
        return STYLE_GREEN;
    if (str_equal(status, S("failed")))
        return STYLE_RED;
    return str_equal(status, S("skipped")) || str_equal(status, S("cancelled")) ? STYLE_DIM
                                                                                : STYLE_YELLOW;
}

static const char *mark_of(str status)
{
    static const struct {
        str status;
        const char *mark;
    } marks[] = {
        {S_INIT("completed"), "+"}, {S_INIT("failed"), "!"},  {S_INIT("skipped"), "-"},
        {S_INIT("cancelled"), "x"}, {S_INIT("waiting"), "?"}, {S_INIT("retrying"), "~"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(marks); i++)
        if (str_equal(marks[i].status, status))
            return marks[i].mark;
    return ">";
}

static void print_steps(struct tree *tree, const struct json *steps, int depth);

static void print_step(struct tree *tree, const struct json *step, int depth)
{
    const struct cli *cli = tree->client->cli;
    bool colours = cli->is_terminal_out && cli->has_colours;
    str status = json_str_or(step, S("status"), STR_NONE);
    int64_t attempt = json_i64_or(step, S("attempt"), 1);
    const struct json *error = json_get(step, S("error")), *output = json_get(step, S("output"));
    printf("%*s%s%s%s ", 2 * depth, "", style_on(colours, style_of(status)), mark_of(status),
           style_off(colours));
    output_text(stdout, json_str_or(step, S("step"), STR_NONE), false);
    printf("  " STR_FMT " " STR_FMT, STR_ARG(json_str_or(step, S("kind"), STR_NONE)),
           STR_ARG(status));
    if (attempt > 1)
        printf(" (attempt %lld)", (long long) attempt);
    if (error) {
        printf("  ");
        output_text(stdout,
                    output_short(tree->ctx->arena, json_str_or(error, S("message"), STR_NONE), 100),
                    false);
    } else if (output) {
        printf("  ");
        output_text(stdout,
                    output_short(tree->ctx->arena, output_value(tree->ctx->arena, output), 80),
                    false);
    }
    printf("\n");
    struct json_iter it = json_iter(json_get(step, S("lanes")));
    const struct json *lane;
    while (json_next(&it, NULL, &lane))
        print_steps(tree, json_get(lane, S("steps")), depth + 1);
    if (json_get(step, S("undone_by")))
        print_step(tree, json_get(step, S("undone_by")), depth + 1);
}

static void print_steps(struct tree *tree, const struct json *steps, int depth)
{
    struct json_iter it = json_iter(steps);
    const struct json *step;
    while (json_next(&it, NULL, &step))
        print_step(tree, step, depth);
}

static bool print_tree(struct client *client, struct context *ctx, str run_id, struct error *e)
{
    const struct json *answer;
    str path = client_path(ctx, "/api/v1/runs/{}/steps", &run_id);
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &answer, e))
        return false;
    if (client->is_json) {
        output_json(ctx->arena, answer);
        return true;
    }
    const struct json *workflow = json_get(answer, S("workflow"));
    printf(STR_FMT "@" STR_FMT "  " STR_FMT "%s\n",
           STR_ARG(json_str_or(workflow, S("name"), STR_NONE)),
           STR_ARG(json_str_or(workflow, S("version"), STR_NONE)),
           STR_ARG(json_str_or(answer, S("status"), STR_NONE)),
           json_bool_or(answer, S("is_compensating"), false) ? ", being undone" : "");
    print_steps(&(struct tree){client, ctx}, json_get(answer, S("steps")), 1);
    const struct json *error = json_get(answer, S("error"));
    if (error) {
        output_text(stdout, json_str_or(error, S("type"), STR_NONE), false);
        printf(": ");
        output_text(stdout, json_str_or(error, S("message"), STR_NONE), false);
        printf("\n");
    }
    return true;
}

/* ---- following ---- */

static bool is_of_steps(str type)
{
    return str_starts_with(type, S("run.step_")) || str_equal(type, S("run.compensating")) ||
           str_equal(type, S("run.signalled")) || str_equal(type, S("approval.requested"));
}

/* How somebody else sees it, and decides. */
static void tell_approval(const struct json *data)
{
    fprintf(stderr, " nexus approval show ");
    output_text(stderr, json_str_or(data, S("approval_id"), STR_NONE), false);
}

bool workflow_show_event(void *owner, struct context *ctx, const struct run_event *event)
{
    struct workflow_following *f = owner;
    if (f->view.is_json && (f->stops_at_wait || !str_equal(event->type, S("run.waiting"))))
        return run_view_event(&f->view, ctx, event);
    if (is_of_steps(event->type)) {
        fprintf(stderr, "%-20.*s ", (int) event->type.len, event->type.ptr);
        output_text(stderr, json_str_or(event->data, S("step"), STR_NONE), false);
        fprintf(stderr, " ");
        output_text(stderr, json_str_or(event->data, S("message"), STR_NONE), false);
        if (str_equal(event->type, S("approval.requested")) && !f->is_asked_here)
            tell_approval(event->data);
        fprintf(stderr, "\n");
        return true;
    }
    if (str_equal(event->type, S("run.failed"))) {
        fprintf(stderr, "%-20s ", "run.failed");
        output_text(stderr, json_str_or(event->data, S("error"), STR_NONE), false);
        fprintf(stderr, ": ");
        output_text(stderr, json_str_or(event->data, S("message"), STR_NONE), false);
        fprintf(stderr, "\n");
    }
    if (str_equal(event->type, S("run.waiting")) && !f->stops_at_wait)
        return true;
    return run_event_is_final(event->type) || str_equal(event->type, S("run.waiting"))
               ? run_view_event(&f->view, ctx, event)
               : true;
}

bool workflow_show_wait(void *owner, struct context *ctx, const struct awaited_approval *approval)
{
    struct workflow_following *f = owner;
    if (f->is_asked_here)
        return true;
    if (f->stops_at_wait)
        return run_view_wait(&f->view, ctx, approval);
    if (!approval->is_below) /* its event told it */
        return true;
    fprintf(stderr, "%-20s (by run ", "approval.requested");
    output_text(stderr, approval->run_id, false);
    fprintf(stderr, ") nexus approval show ");
    output_text(stderr, approval->id, false);
    fprintf(stderr, "\n");
    return true;
}

bool workflow_follow(struct client *client, struct context *ctx, str run_id, struct error *e)
{
    struct workflow_following f = {.stops_at_wait = client->is_json};
    run_view_init(&f.view, client->cli, client->is_json, true);
    if (!follow_run(client, ctx, run_id, 0, workflow_show_event, workflow_show_wait, &f, e))
        return false;
    client->exit_code = run_view_exit_code(&f.view);
    return true;
}

/* A name where an instance's id is asked for. */
static bool refuse_definition(struct client *client, struct context *ctx, str name, struct error *e)
{
    uuid id;
    const struct json *definition;
    struct error ignored = {0}; /* then it is no definition: who looks for the run tells more */
    if (uuid_parse(name, &id) ||
        !client_call(client, ctx, HTTP_GET, client_path(ctx, "/api/v1/workflows/{}", &name),
                     STR_NONE, &definition, &ignored))
        return true;
    return error_set(e, REASON_USAGE,
                     "\"" STR_FMT
                     "\" is a definition, not an instance's id: nexus workflow list " STR_FMT
                     " shows its versions, nexus runs list --workflow " STR_FMT " its instances",
                     STR_ARG(name), STR_ARG(name), STR_ARG(name));
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    str run_id = arguments_operand(client->arguments, 0);
    if (!refuse_definition(client, ctx, run_id, e))
        return false;
    if (arguments_has(client->arguments, "follow") && !workflow_follow(client, ctx, run_id, e))
        return false;
    return print_tree(client, ctx, run_id, e);
}

/* ---- instances ---- */

/* JSON text, or @FILE. */
bool workflow_read_input(struct context *ctx, str given, str *out, struct error *e)
{
    const struct json *tree;
    str text = str_is_empty(given) ? S("{}") : given;
    if (str_starts_with(text, S("@")) &&
        !tool_pack_read_file(ctx->arena, str_from(text, 1), WORKFLOW_OUTPUT_BYTES_MAX, &text, e))
        return false;
    if (!json_parse(ctx->arena, text, (struct json_limits){0}, &tree, e))
        return error_wrap(e, "--input");
    *out = json_print(ctx->arena, tree);
    return true;
}

static bool send_signal(struct client *client, struct context *ctx, struct error *e)
{
    struct strbuf body;
    struct json_writer w;
    str data;
    if (!workflow_read_input(ctx, arguments_get(client->arguments, "input"), &data, e))
        return false;
    strbuf_init(&body, ctx->arena, 4 * RUN_SIGNAL_BYTES_MAX);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("name"), arguments_operand(client->arguments, 1));
    json_put_raw(&w, S("data"), data);
    json_object_end(&w);
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/runs/{}/signals"),
                    strbuf_str(&body), e);
}

static const struct option signal_options[] = {
    {"input", 'i', "JSON", false, "what the step gets, or @FILE with it; else {}"},
};
static const struct option show_options[] = {
    {"follow", 'f', NULL, false, "along with what happens, until it ends"},
};
static const struct option deprecate_options[] = {
    {"reason", 0, "TEXT", false, "why; empty takes it back"},
};
static const struct command commands[] = {
    {.name = "workflow put",
     .operands = "FILE...",
     .summary = "Store definitions; a version never changes",
     .example = "workflow put order.yaml",
     .work = put},
    {.name = "workflow list",
     .operands = "[NAME]",
     .summary = "Workflows that can be started; of one name all versions",
     .example = "workflow list",
     .work = list},
    {.name = "workflow show",
     .operands = "RUN",
     .summary = "The steps of an instance: + done, > at work, ? waiting, ~ tried again, ! failed, "
                "- skipped, x stopped",
     .example = "workflow show 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .options = show_options,
     .option_count = ARRAY_COUNT(show_options),
     .work = show},
    {.name = "workflow signal",
     .operands = "RUN NAME",
     .summary = "Send a signal to an instance",
     .example =
         "workflow signal 01a206dd-432e-765f-bd23-516cfbe0aed5 paid --input '{\"ok\": true}'",
     .options = signal_options,
     .option_count = ARRAY_COUNT(signal_options),
     .work = send_signal},
    {.name = "workflow deprecate",
     .operands = "NAME VERSION",
     .summary = "No new instance uses this version unless it is named",
     .example = "workflow deprecate order 1.0.0 --reason 'use 2'",
     .options = deprecate_options,
     .option_count = ARRAY_COUNT(deprecate_options),
     .work = deprecate},
};
const struct command_group workflow_api_commands = {commands, ARRAY_COUNT(commands)};
