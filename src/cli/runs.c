/* nexus runs ... */
#include "cli/api.h"
#include "cli/run_view.h"

#include "base/arena.h"

static const struct column run_columns[] = {
    {"ID", "/id", 36},       {"STATUS", "/status", 10},     {"AGENT", "/agent", 14},
    {"MODEL", "/model", 18}, {"TOKENS", "/cost/tokens", 8}, {"STARTED", "/started_at", 0},
};

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    str session = arguments_get(client->arguments, "session");
    str query = str_is_empty(session)
                    ? STR_NONE
                    : str_printf(ctx->arena, "session_id=" STR_FMT,
                                 STR_ARG(http_percent_encode(ctx->arena, session)));
    return api_list(client, ctx, S("/api/v1/runs"), query, run_columns, ARRAY_COUNT(run_columns),
                    e);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/runs/{}"), STR_NONE, e);
}

static bool cancel(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/runs/{}/cancel"), STR_NONE,
                  "cancelling", arguments_operand(client->arguments, 0), e);
}

static bool show_event(void *owner, struct context *ctx, const struct run_event *event)
{
    return run_view_event(owner, ctx, event);
}

/* From the first event, or from --after, until the run ends or waits. */
static bool events(struct client *client, struct context *ctx, struct error *e)
{
    struct run_view view;
    int64_t after = 0;
    run_view_init(&view, client->cli, client->is_json, false);
    if (!arguments_number(client->arguments, "after", 0, INT64_MAX, &after, e) ||
        !follow_run(client, ctx, arguments_operand(client->arguments, 0), after, show_event, &view,
                    e))
        return false;
    client->exit_code = run_view_exit_code(&view);
    return true;
}

static const struct option list_options[] = {
    {"session", 0, "ID", false, "of this session only"},
    {"limit", 'n', "COUNT", false, "how many at most; else 50"},
    {"all", 0, NULL, false, "all of them"},
};
static const struct option event_options[] = {
    {"after", 0, "NUMBER", false, "only events with a higher number"}};
static const struct command commands[] = {
    {.name = "runs list",
     .operands = "",
     .summary = "Runs, newest first",
     .example = "runs list --limit 10",
     .options = list_options,
     .option_count = ARRAY_COUNT(list_options),
     .work = list},
    {.name = "runs show",
     .operands = "RUN",
     .summary = "One run: status, cost, error",
     .example = "runs show 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .work = show},
    {.name = "runs cancel",
     .operands = "RUN",
     .summary = "Ask a run to stop",
     .example = "runs cancel 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .work = cancel},
    {.name = "runs events",
     .operands = "RUN",
     .summary = "A run's journal, followed to its end; the exit code is the run's",
     .example = "runs events 01a206dd-432e-765f-bd23-516cfbe0aed5 --json",
     .options = event_options,
     .option_count = ARRAY_COUNT(event_options),
     .work = events},
};
const struct command_group runs_commands = {commands, ARRAY_COUNT(commands)};
