/* nexus tool top, nexus tool profile: what tools cost. */
#include "cli/api.h"

#include "base/arena.h"
#include "base/limits.h"

enum { WATCH_MS = 2000 };

static const struct column columns[] = {
    {"TOOL", "/tool", 20},
    {"VERSION", "/version", 10},
    {"CALLS", "/calls", 9},
    {"ERRORS", "/errors", 7},
    {"COLD", "/cold_starts", 5},
    {"CPU US", "/cpu_us", 12},
    {"US/CALL", "/cpu_us_mean", 9},
    {"P50 US", "/latency_us/p50", 9},
    {"P95 US", "/latency_us/p95", 9},
    {"P99 US", "/latency_us/p99", 9},
    {"MEMORY", "/memory_peak_bytes", 10},
    {"LAST ERROR", "/last_error/reason", 0},
};

static bool show_once(struct client *client, struct context *ctx, str path, struct error *e)
{
    const struct json *answer;
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &answer, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, answer);
    else
        output_table(client->cli, ctx->arena, columns, ARRAY_COUNT(columns),
                     json_get(answer, S("items")));
    fflush(stdout);
    return true;
}

/* On a terminal in place, elsewhere one list after the other; until it is interrupted. */
static bool watch(struct client *client, struct context *ctx, str path, struct error *e)
{
    for (;;) {
        arena_mark mark = arena_save(ctx->arena);
        if (client->cli->is_terminal_out && !client->is_json)
            fputs("\033[H\033[2J", stdout);
        if (!show_once(client, ctx, path, e) || !context_sleep_ms(ctx, WATCH_MS, e))
            return false;
        arena_rewind(ctx->arena, mark);
    }
}

static bool top(struct client *client, struct context *ctx, struct error *e)
{
    int64_t limit = MONITOR_TOP_DEFAULT;
    str by = arguments_get(client->arguments, "by");
    if (!arguments_number(client->arguments, "limit", 1, MONITOR_TOP_MAX, &limit, e))
        return false;
    str path =
        str_printf(ctx->arena, "/api/v1/tools/top?limit=%lld&by=" STR_FMT, (long long) limit,
                   STR_ARG(http_percent_encode(ctx->arena, str_is_empty(by) ? S("cpu") : by)));
    return arguments_has(client->arguments, "watch") ? watch(client, ctx, path, e)
                                                     : show_once(client, ctx, path, e);
}

static bool profile(struct client *client, struct context *ctx, struct error *e)
{
    struct client_request request = {.method = HTTP_GET,
                                     .path = api_path(client, ctx, "/api/v1/tools/{}/profile"),
                                     .accept = S("text/plain")};
    OWNED(http_exchange) exchange = NULL;
    str version = arguments_get(client->arguments, "version"), text;
    if (!str_is_empty(version))
        request.path = str_printf(ctx->arena, STR_FMT "?version=" STR_FMT, STR_ARG(request.path),
                                  STR_ARG(http_percent_encode(ctx->arena, version)));
    if (!client_send(client, ctx, &request, &exchange, e) ||
        !http_exchange_read_all(exchange, ctx, MONITOR_PROFILE_TEXT_BYTES_MAX, &text, e))
        return false;
    output_text(stdout, text, true);
    return true;
}

static const struct option top_options[] = {
    {"by", 'b', "cpu|latency|errors|calls", false,
     "the first in the list has most of it; else cpu"},
    {"limit", 'n', "COUNT", false, "how many at most; else 20"},
    {"watch", 'w', NULL, false, "again every two seconds"},
};
static const struct option profile_options[] = {
    {"version", 0, "RANGE", false, "1.2.3 or ^1.2; else the one you would get"}};
static const struct command commands[] = {
    {.name = "tool top",
     .operands = "",
     .summary = "What tools cost since the server started: calls, errors, CPU, latency",
     .example = "tool top --by latency",
     .options = top_options,
     .option_count = ARRAY_COUNT(top_options),
     .work = top},
    {.name = "tool profile",
     .operands = "TOOL",
     .summary = "Where the long calls of a tool spend their CPU time, function by function",
     .example = "tool profile code_execution",
     .options = profile_options,
     .option_count = ARRAY_COUNT(profile_options),
     .work = profile},
};
const struct command_group tool_monitor_commands = {commands, ARRAY_COUNT(commands)};
