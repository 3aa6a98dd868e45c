/* nexus schedule ...: workflows by the clock */
#include "base/arena.h"
#include "base/limits.h"
#include "cli/api.h"
#include "cli/tool/tool_pack.h"

static const struct column columns[] = {
    {"NAME", "/name", 20},
    {"WORKFLOW", "/workflow", 20},
    {"CRON", "/cron", 16},
    {"TIME ZONE", "/time_zone", 16},
    {"PAUSED", "/paused", 6},
    {"NEXT", "/next_at", 27},
    {"LAST ERROR", "/last_error", 0},
};

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    return api_list(client, ctx, S("/api/v1/schedules"), STR_NONE, columns, ARRAY_COUNT(columns),
                    e);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/schedules/{}"), STR_NONE,
                    e);
}

/* --input is JSON, or @FILE with JSON in it. */
static bool read_input(struct client *client, struct context *ctx, const struct json **out,
                       struct error *e)
{
    str text = arguments_get(client->arguments, "input");
    if (str_strip_prefix(text, S("@"), &text) &&
        !tool_pack_read_file(ctx->arena, text, SCHEDULE_INPUT_BYTES_MAX, &text, e))
        return false;
    if (str_is_empty(text))
        text = S("{}");
    return json_parse(ctx->arena, text, (struct json_limits){0}, out, e) ||
           error_wrap(e, "--input");
}

static bool put(struct client *client, struct context *ctx, struct error *e)
{
    static const struct {
        const char *option, *member;
    } members[] = {
        {"cron", "cron"}, {"time-zone", "time_zone"}, {"missed", "missed"}, {"overlap", "overlap"}};
    const struct json *input;
    struct strbuf body;
    struct json_writer w;
    if (!arguments_has(client->arguments, "cron"))
        return error_set(e, REASON_USAGE, "--cron is needed, as in --cron \"30 9 * * mon-fri\"");
    if (!read_input(client, ctx, &input, e))
        return false;
    strbuf_init(&body, ctx->arena, 2 * SCHEDULE_INPUT_BYTES_MAX);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("workflow"), arguments_operand(client->arguments, 1));
    for (size_t i = 0; i < ARRAY_COUNT(members); i++)
        if (arguments_has(client->arguments, members[i].option))
            json_put_str(&w, str_from_cstr(members[i].member),
                         arguments_get(client->arguments, members[i].option));
    json_put_value(&w, S("input"), input);
    json_put_bool(&w, S("paused"), arguments_has(client->arguments, "paused"));
    json_object_end(&w);
    return api_show(client, ctx, HTTP_PUT, api_path(client, ctx, "/api/v1/schedules/{}"),
                    strbuf_str(&body), e);
}

static bool pause_it(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/schedules/{}/pause"),
                    STR_NONE, e);
}

static bool resume(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/schedules/{}/resume"),
                    STR_NONE, e);
}

static bool run_now(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/schedules/{}/run"),
                    STR_NONE, e);
}

static bool remove_it(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE, api_path(client, ctx, "/api/v1/schedules/{}"), STR_NONE,
                  "removed", arguments_operand(client->arguments, 0), e);
}

static const struct option put_options[] = {
    {"cron", 0, "FIELDS", false, "minute hour day month weekday, or @hourly, @daily, ..."},
    {"time-zone", 0, "NAME", false, "as Europe/Berlin; else UTC"},
    {"input", 'i', "JSON", false, "of each instance; @FILE reads it from a file"},
    {"missed", 0, "skip|one|all", false, "of what was not started in time; else one"},
    {"overlap", 0, "skip|allow|cancel", false, "while the one before runs; else skip"},
    {"paused", 0, NULL, false, "keep it, but do not start anything yet"},
};
static const struct command commands[] = {
    {.name = "schedule list",
     .operands = "",
     .summary = "Workflows that begin by the clock",
     .example = "schedule list",
     .options = page_options,
     .option_count = PAGE_OPTION_COUNT,
     .work = list},
    {.name = "schedule show",
     .operands = "NAME",
     .summary = "One schedule: next time, last instance, last error",
     .example = "schedule show nightly",
     .work = show},
    {.name = "schedule put",
     .operands = "NAME WORKFLOW",
     .summary = "Make or replace a schedule; WORKFLOW is NAME or NAME@RANGE",
     .example = "schedule put nightly report@^1 --cron \"30 2 * * *\" --time-zone Europe/Berlin",
     .options = put_options,
     .option_count = ARRAY_COUNT(put_options),
     .work = put},
    {.name = "schedule pause",
     .operands = "NAME",
     .summary = "Start nothing until it is resumed",
     .example = "schedule pause nightly",
     .work = pause_it},
    {.name = "schedule resume",
     .operands = "NAME",
     .summary = "Go on, counted from now",
     .example = "schedule resume nightly",
     .work = resume},
    {.name = "schedule run",
     .operands = "NAME",
     .summary = "Start an instance now, besides those that are due",
     .example = "schedule run nightly",
     .work = run_now},
    {.name = "schedule remove",
     .operands = "NAME",
     .summary = "Forget a schedule; instances that run go on",
     .example = "schedule remove nightly",
     .work = remove_it},
};
const struct command_group schedule_commands = {commands, ARRAY_COUNT(commands)};
