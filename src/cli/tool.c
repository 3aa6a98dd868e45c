/* nexus tool ... */
#include "cli/api.h"

#include "base/arena.h"
#include "base/limits.h"

static const struct column tool_columns[] = {
    {"NAME", "/name", 20},
    {"VERSION", "/version", 10},
    {"CATEGORY", "/category", 16},
    {"DESCRIPTION", "/description", 0},
};

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    return api_list(client, ctx, S("/api/v1/tools"), STR_NONE, tool_columns,
                    ARRAY_COUNT(tool_columns), e);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    str path = api_path(client, ctx, "/api/v1/tools/{}"),
        version = arguments_get(client->arguments, "version");
    if (!str_is_empty(version))
        path = str_printf(ctx->arena, STR_FMT "?version=" STR_FMT, STR_ARG(path),
                          STR_ARG(http_percent_encode(ctx->arena, version)));
    return api_show(client, ctx, HTTP_GET, path, STR_NONE, e);
}

/* INPUT is JSON; "-" reads it from the standard input. */
static bool read_input(struct client *client, struct context *ctx, str *out, struct error *e)
{
    const struct json *checked;
    struct strbuf b;
    *out = arguments_operand(client->arguments, 1);
    if (str_equal(*out, S("-"))) {
        char *room;
        size_t got;
        strbuf_init(&b, ctx->arena, TOOL_INPUT_BYTES_MAX);
        while ((room = strbuf_reserve(&b, 4096)) != NULL && (got = fread(room, 1, 4096, stdin)) > 0)
            strbuf_commit(&b, got);
        if (strbuf_is_over(&b))
            return error_set(e, REASON_USAGE, "the input is over %u bytes", TOOL_INPUT_BYTES_MAX);
        *out = strbuf_str(&b);
    }
    if (str_is_empty(*out))
        *out = S("{}");
    return json_parse(ctx->arena, *out, (struct json_limits){0}, &checked, e) ||
           error_wrap(e, "the input");
}

static bool invoke(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *answer;
    struct strbuf body;
    struct json_writer w;
    str input;
    if (!read_input(client, ctx, &input, e))
        return false;
    strbuf_init(&body, ctx->arena, 2 * TOOL_INPUT_BYTES_MAX);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_raw(&w, S("input"), input);
    if (arguments_has(client->arguments, "version"))
        json_put_str(&w, S("version"), arguments_get(client->arguments, "version"));
    if (arguments_has(client->arguments, "session"))
        json_put_str(&w, S("session_id"), arguments_get(client->arguments, "session"));
    json_object_end(&w);
    if (!client_call(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/tools/{}/invoke"),
                     strbuf_str(&body), &answer, e))
        return false;
    output_json(ctx->arena, client->is_json ? answer : json_get(answer, S("output")));
    return true;
}

static const struct option show_options[] = {
    {"version", 0, "RANGE", false, "1.2.3 or ^1.2; else the newest"}};
static const struct option invoke_options[] = {
    {"version", 0, "RANGE", false, "1.2.3 or ^1.2; else the newest"},
    {"session", 0, "ID", false, "with this session's files, on its budget"},
};
static const struct command commands[] = {
    {.name = "tool list",
     .operands = "",
     .summary = "Tools at every version",
     .example = "tool list",
     .work = list},
    {.name = "tool show",
     .operands = "TOOL",
     .summary = "One tool: schemas, permissions, limits",
     .example = "tool show data_analysis --json",
     .options = show_options,
     .option_count = ARRAY_COUNT(show_options),
     .work = show},
    {.name = "tool invoke",
     .operands = "TOOL [INPUT]",
     .summary = "Call a tool under policy and budget; INPUT is JSON, - reads it",
     .example = "tool invoke text_processing '{\"operation\": \"word_count\", \"text\": \"to be or "
                "not to be\"}'",
     .options = invoke_options,
     .option_count = ARRAY_COUNT(invoke_options),
     .work = invoke},
};
const struct command_group tool_commands = {commands, ARRAY_COUNT(commands)};
