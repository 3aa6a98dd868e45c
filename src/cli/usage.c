/* nexus usage ... */
#include "cli/api.h"

#include "base/arena.h"

static void add_query(struct strbuf *query, struct arena *arena, const char *name, str value)
{
    if (!str_is_empty(value))
        strbuf_printf(query, "%s%s=" STR_FMT, query->len ? "&" : "", name,
                      STR_ARG(http_percent_encode(arena, value)));
}

static void add_options(struct strbuf *query, struct client *client, struct context *ctx,
                        const char *const names[][2], size_t count)
{
    for (size_t i = 0; i < count; i++)
        add_query(query, ctx->arena, names[i][1], arguments_get(client->arguments, names[i][0]));
}

/* ---- sums: only the columns that were asked for are there to show ---- */

static size_t sum_columns(str by, struct column *columns)
{
    static const struct {
        str name;
        struct column column;
    } names[] = {
        {S_INIT("day"), {"DAY", "/day", 11}},
        {S_INIT("user"), {"USER", "/user_id", 16}},
        {S_INIT("key"), {"KEY", "/key_id", 37}},
        {S_INIT("model"), {"MODEL", "/model", 24}},
        {S_INIT("provider"), {"PROVIDER", "/provider", 14}},
        {S_INIT("variant"), {"VARIANT", "/variant", 12}},
        {S_INIT("kind"), {"KIND", "/kind", 10}},
    };
    static const struct column amounts[] = {
        {"CALLS", "/entries", 9},
        {"ERRORS", "/errors", 8},
        {"TOKENS", "/cost/tokens", 12},
        {"USD", "/cost/cost_nanousd", 16},
        {"MEAN MS", "/duration_ms_mean", 0},
    };
    size_t count = 0;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        str rest = by, name;
        while (!str_is_empty(rest) && str_next(&rest, ',', &name))
            if (str_equal(name, names[i].name)) {
                columns[count++] = names[i].column;
                break;
            }
    }
    for (size_t i = 0; i < ARRAY_COUNT(amounts); i++)
        columns[count++] = amounts[i];
    return count;
}

static bool sums(struct client *client, struct context *ctx, struct error *e)
{
    static const char *const names[][2] = {{"from", "from"}, {"to", "to"}, {"user", "user_id"}};
    struct column columns[12];
    struct strbuf query;
    const struct json *report;
    str by = arguments_get(client->arguments, "by");
    if (str_is_empty(by))
        by = S("model");
    strbuf_init(&query, ctx->arena, 4096);
    add_query(&query, ctx->arena, "by", by);
    add_options(&query, client, ctx, names, ARRAY_COUNT(names));
    str path = str_printf(ctx->arena, "/api/v1/usage?" STR_FMT, STR_ARG(strbuf_str(&query)));
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &report, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, report);
    else
        output_table(client->cli, ctx->arena, columns, sum_columns(by, columns),
                     json_get(report, S("items")));
    return true;
}

/* ---- calls ---- */

static const struct column call_columns[] = {
    {"STARTED", "/started_at", 27}, {"CALL", "/call_id", 37},  {"USER", "/user_id", 12},
    {"MODEL", "/model", 16},        {"STATUS", "/status", 14}, {"USD", "/cost_nanousd", 14},
    {"MS", "/duration_ms", 0},
};

static bool calls(struct client *client, struct context *ctx, struct error *e)
{
    static const char *const names[][2] = {
        {"user", "user_id"},  {"model", "model"},   {"variant", "variant"},
        {"from", "from"},     {"to", "to"},         {"session", "session_id"},
        {"key-id", "key_id"}, {"status", "status"},
    };
    struct strbuf query;
    strbuf_init(&query, ctx->arena, 4096);
    add_options(&query, client, ctx, names, ARRAY_COUNT(names));
    return api_list(client, ctx, S("/api/v1/usage/calls"), strbuf_str(&query), call_columns,
                    ARRAY_COUNT(call_columns), e);
}

/* ---- A/B ---- */

static const struct column variant_columns[] = {
    {"VARIANT", "/variant", 14},
    {"REQUESTS", "/requests", 10},
    {"ERRORS", "/errors", 8},
    {"P50 MS", "/duration_ms/p50", 9},
    {"P95 MS", "/duration_ms/p95", 9},
    {"FIRST P50", "/first_token_ms/p50", 10},
    {"USD EACH", "/cost_nanousd_per_request", 15},
    {"SCORE", "/feedback/mean", 8},
    {"OF", "/feedback/count", 0},
};

static bool experiment(struct client *client, struct context *ctx, struct error *e)
{
    static const char *const names[][2] = {{"from", "from"}, {"to", "to"}};
    struct strbuf query;
    const struct json *report;
    strbuf_init(&query, ctx->arena, 4096);
    add_options(&query, client, ctx, names, ARRAY_COUNT(names));
    str path = api_path(client, ctx, "/api/v1/experiments/{}");
    if (query.len > 0)
        path =
            str_printf(ctx->arena, STR_FMT "?" STR_FMT, STR_ARG(path), STR_ARG(strbuf_str(&query)));
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &report, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, report);
    else
        output_table(client->cli, ctx->arena, variant_columns, ARRAY_COUNT(variant_columns),
                     json_get(report, S("variants")));
    return true;
}

static const struct option sum_options[] = {
    {"by", 0, "day|user|key|model|provider|variant|kind,...", false,
     "what the sums are of, with commas between; else model"},
    {"from", 0, "TIME", false, "RFC 3339; midnights when by key, provider or variant"},
    {"to", 0, "TIME", false, "up to it, without it"},
    {"user", 0, "USER", false, "of one user"},
};
static const struct option call_options[] = {
    {"user", 0, "USER", false, "of one user"},
    {"key-id", 0, "ID", false, "of one API key"},
    {"model", 0, "MODEL", false, "of one model"},
    {"variant", 0, "NAME", false, "of one variant of an A/B split"},
    {"status", 0, "STATUS", false, "ok, error, or a problem's name"},
    {"session", 0, "ID", false, "of one session"},
    {"from", 0, "TIME", false, "begun then or later, RFC 3339"},
    {"to", 0, "TIME", false, "begun before"},
    {"limit", 'n', "COUNT", false, "how many at most; else 50"},
    {"all", 0, NULL, false, "all of them"},
};
static const struct option experiment_options[] = {
    {"from", 0, "TIME", false, "a midnight (UTC), RFC 3339"},
    {"to", 0, "TIME", false, "a midnight, without that day"},
};
static const struct command commands[] = {
    {.name = "usage",
     .operands = "",
     .summary = "What was used: calls, tokens, cost",
     .details = "Also: nexus usage calls, nexus usage experiment.",
     .example = "usage --by day,model",
     .options = sum_options,
     .option_count = ARRAY_COUNT(sum_options),
     .work = sums},
    {.name = "usage calls",
     .operands = "",
     .summary = "Single calls of models, newest first",
     .details = "The calls that a run makes are in its journal: nexus runs events RUN.",
     .example = "usage calls --status error",
     .options = call_options,
     .option_count = ARRAY_COUNT(call_options),
     .work = calls},
    {.name = "usage experiment",
     .operands = "MODEL",
     .summary = "A/B report of a model by variant",
     .example = "usage experiment support-bot",
     .options = experiment_options,
     .option_count = ARRAY_COUNT(experiment_options),
     .work = experiment},
};
const struct command_group usage_commands = {commands, ARRAY_COUNT(commands)};
