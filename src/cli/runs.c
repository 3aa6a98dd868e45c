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
    static const char *const filters[] = {"status", "agent", "workflow"};
    struct strbuf query;
    strbuf_init(&query, ctx->arena, 16384);
    api_query_add(&query, S("session_id"), arguments_get(client->arguments, "session"));
    for (size_t i = 0; i < ARRAY_COUNT(filters); i++)
        api_query_add(&query, str_from_cstr(filters[i]),
                      arguments_get(client->arguments, filters[i]));
    return api_list(client, ctx, S("/api/v1/runs"), strbuf_str(&query), run_columns,
                    ARRAY_COUNT(run_columns), e);
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

static bool show_wait(void *owner, struct context *ctx, const struct awaited_approval *approval)
{
    return run_view_wait(owner, ctx, approval);
}

/* From the first event, or from --after, until the run ends, or it or one below it waits. */
static bool events(struct client *client, struct context *ctx, struct error *e)
{
    struct run_view view;
    int64_t after = 0;
    str run_id = arguments_operand(client->arguments, 0);
    run_view_init(&view, client->cli, client->is_json, false);
    if (!arguments_number(client->arguments, "after", 0, INT64_MAX, &after, e))
        return false;
    view.has_children = after > 0; /* it may have: what came before is not read */
    if (!follow_run(client, ctx, run_id, after, show_event, show_wait, &view, e))
        return false;
    run_view_total(&view, client, ctx, run_id);
    run_view_tell_waiting(&view, client->base_url, STR_NONE);
    client->exit_code = run_view_exit_code(&view);
    return true;
}

static const struct option list_options[] = {
    {"status", 0, "pending|running|waiting|completed|failed|cancelled", false,
     "of this state only"},
    {"agent", 'a', "NAME", false, "of this agent only"},
    {"workflow", 'w', "NAME", false, "instances of this workflow; NAME@VERSION for one version"},
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
