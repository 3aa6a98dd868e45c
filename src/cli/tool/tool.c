/* nexus tool: to look at and to call.  (What changes tools: tool_registry.c.) */
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
    return api_list_whole(client, ctx, S("/api/v1/tools"), STR_NONE, tool_columns,
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

/* ---- found and explained ---- */

static bool search(struct client *client, struct context *ctx, struct error *e)
{
    struct strbuf words;
    const struct json *answer;
    strbuf_init(&words, ctx->arena, 4096);
    for (size_t i = 0; i < client->arguments->operand_count; i++) {
        strbuf_add(&words, i ? S(" ") : S(""));
        strbuf_add(&words, arguments_operand(client->arguments, i));
    }
    int64_t limit = 10;
    if (!arguments_number(client->arguments, "limit", 1, 100, &limit, e))
        return false;
    str path =
        str_printf(ctx->arena, "/api/v1/tools?search=" STR_FMT "&limit=%lld",
                   STR_ARG(http_percent_encode(ctx->arena, strbuf_str(&words))), (long long) limit);
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &answer, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, answer);
    else
        output_table(client->cli, ctx->arena, tool_columns, ARRAY_COUNT(tool_columns),
                     json_get(answer, S("items")));
    return true;
}

static const struct column value_columns[] = {
    {"PERMISSION", "/name", 26},
    {"DECIDED BY", "/decided_by", 14},
    {"VALUE", "/value", 0},
};

/* What is denied, and how that would change. */
static void print_mends(struct arena *arena, const struct json *explained)
{
    const struct json *item;
    struct json_iter it = json_iter(json_get(explained, S("values")));
    while (json_next(&it, NULL, &item)) {
        if (!json_get(item, S("to_allow")))
            continue;
        output_text(stdout, json_str_or(item, S("name"), STR_NONE), false);
        printf(" allows nothing: ");
        output_text(stdout, json_str_or(item, S("to_allow"), STR_NONE), false);
        printf("\n");
    }
    printf("\npolicy\n");
    output_members(arena, json_get(explained, S("policy")));
}

static bool explain(struct client *client, struct context *ctx, struct error *e)
{
    static const char *const names[] = {"agent", "user", "version"};
    const struct json *answer;
    struct strbuf path;
    strbuf_init(&path, ctx->arena, 8192);
    strbuf_add(&path, api_path(client, ctx, "/api/v1/tools/{}/explain"));
    for (size_t i = 0, count = 0; i < ARRAY_COUNT(names); i++) {
        str value = arguments_get(client->arguments, names[i]);
        if (!str_is_empty(value))
            strbuf_printf(&path, "%s%s=" STR_FMT, count++ ? "&" : "?", names[i],
                          STR_ARG(http_percent_encode(ctx->arena, value)));
    }
    if (!client_call(client, ctx, HTTP_GET, strbuf_str(&path), STR_NONE, &answer, e))
        return false;
    if (client->is_json) {
        output_json(ctx->arena, answer);
        return true;
    }
    output_text(stdout, json_str_or(answer, S("name"), STR_NONE), false);
    printf(" ");
    output_text(stdout, json_str_or(answer, S("version"), STR_NONE), false);
    printf(" (");
    output_text(stdout, json_str_or(answer, S("source"), STR_NONE), false);
    printf(")\n\n");
    output_table(client->cli, ctx->arena, value_columns, ARRAY_COUNT(value_columns),
                 json_get(answer, S("values")));
    printf("\n");
    print_mends(ctx->arena, answer);
    return true;
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
static const struct option search_options[] = {
    {"limit", 'n', "COUNT", false, "how many at most; else 10"}};
static const struct option explain_options[] = {
    {"agent", 'a', "AGENT", false, "as this agent would use it"},
    {"user", 'u', "USER", false, "as the policy sees this user; needs the role operator"},
    {"version", 0, "RANGE", false, "1.2.3 or ^1.2; else the one you would get"},
};
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
    {.name = "tool search",
     .operands = "WORDS...",
     .summary = "Tools by what they do, the best first",
     .example = "tool search count words in a text",
     .options = search_options,
     .option_count = ARRAY_COUNT(search_options),
     .work = search},
    {.name = "tool explain",
     .operands = "TOOL",
     .summary = "What a tool may do, which level decided it, and what the policy says",
     .example = "tool explain http_request --agent assistant",
     .options = explain_options,
     .option_count = ARRAY_COUNT(explain_options),
     .work = explain},
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
