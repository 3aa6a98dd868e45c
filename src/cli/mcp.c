/* nexus mcp ... */
#include "cli/api.h"

#include "base/arena.h"

static const struct column server_columns[] = {
    {"SERVER", "/name", 20},
    {"STATE", "/state", 11},
    {"REVISION", "/revision", 10},
    {"OFFERED", "/offered", 7},
    {"QUARANTINED", "/quarantined", 11},
    {"WHY", "/reason", 0},
};
static const struct column tool_columns[] = {
    {"TOOL", "/tool", 28},
    {"STATE", "/state", 8},
    {"NAME", "/name", 40},
    {"DIGEST", "/digest", 0},
};

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    return api_list_whole(client, ctx, S("/api/v1/mcp/servers"), STR_NONE, server_columns,
                          ARRAY_COUNT(server_columns), e);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *server;
    str path = api_path(client, ctx, "/api/v1/mcp/servers/{}");
    if (client->is_json)
        return api_show(client, ctx, HTTP_GET, path, STR_NONE, e);
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &server, e))
        return false;
    str reason = json_str_or(server, S("reason"), STR_NONE);
    output_text(stdout, json_str_or(server, S("state"), STR_NONE), false);
    if (!str_is_empty(reason)) {
        fputs(": ", stdout);
        output_text(stdout, reason, false);
    }
    fputc('\n', stdout);
    output_table(client->cli, ctx->arena, tool_columns, ARRAY_COUNT(tool_columns),
                 json_get(server, S("tools")));
    return true;
}

static str tool_path(struct client *client, struct context *ctx, const char *rest)
{
    return str_printf(ctx->arena, STR_FMT "%s",
                      STR_ARG(api_path(client, ctx, "/api/v1/mcp/servers/{}/tools/{}")), rest);
}

static void print_member(struct arena *arena, const char *title, const struct json *value)
{
    printf("%s\n  ", title);
    output_text(stdout, output_value(arena, value), true);
    fputc('\n', stdout);
}

static void print_tool(struct arena *arena, const struct json *tool)
{
    const struct json *change, *changes = json_get(tool, S("changes"));
    str renamed = json_str_or(tool, S("renamed_from"), STR_NONE);
    output_text(stdout, json_str_or(tool, S("tool"), STR_NONE), false);
    printf(" (" STR_FMT ", offered as ", STR_ARG(json_str_or(tool, S("state"), STR_NONE)));
    output_text(stdout, json_str_or(tool, S("name"), STR_NONE), false);
    printf(")\ndigest " STR_FMT "\n", STR_ARG(json_str_or(tool, S("digest"), S("none"))));
    if (!str_is_empty(renamed)) {
        fputs("the same as the approved tool ", stdout);
        output_text(stdout, renamed, false);
        fputs(", which the server has no more, but for its name\n", stdout);
    }
    if (json_count(changes) == 0 && json_type(json_get(tool, S("current"))) == JSON_OBJECT)
        print_member(arena, "definition", json_get(tool, S("current")));
    struct json_iter it = json_iter(changes);
    while (json_next(&it, NULL, &change)) {
        printf("\n" STR_FMT "\n", STR_ARG(json_str_or(change, S("member"), STR_NONE)));
        print_member(arena, "- approved", json_get(change, S("from")));
        print_member(arena, "+ now", json_get(change, S("to")));
    }
}

static bool diff(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *tool;
    if (client->is_json)
        return api_show(client, ctx, HTTP_GET, tool_path(client, ctx, ""), STR_NONE, e);
    if (!client_call(client, ctx, HTTP_GET, tool_path(client, ctx, ""), STR_NONE, &tool, e))
        return false;
    print_tool(ctx->arena, tool);
    return true;
}

/* The decision names the digest of what was seen; without --digest the definition is fetched, shown and approved as it is now. */
static bool approve(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *tool;
    str seen = arguments_get(client->arguments, "digest");
    if (str_is_empty(seen)) {
        if (!client_call(client, ctx, HTTP_GET, tool_path(client, ctx, ""), STR_NONE, &tool, e))
            return false;
        seen = json_str_or(tool, S("digest"), STR_NONE);
        if (!client->is_json)
            print_tool(ctx->arena, tool);
    }
    str body = str_printf(ctx->arena, "{\"digest\":\"" STR_FMT "\"}", STR_ARG(seen));
    str path = tool_path(client, ctx, "/approve");
    if (client->is_json)
        return api_show(client, ctx, HTTP_POST, path, body, e);
    if (!client_call(client, ctx, HTTP_POST, path, body, &tool, e))
        return false;
    printf("approved: ");
    output_text(stdout, json_str_or(tool, S("name"), STR_NONE), false);
    fputc('\n', stdout);
    return true;
}

static bool drop(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE, tool_path(client, ctx, ""), STR_NONE, "removed",
                  arguments_operand(client->arguments, 1), e);
}

/* ---- logins ---- */

enum { POLL_MS = 1000 };

/* Until it came back from the browser or ran out. */
may_suspend static bool await_login(struct client *client, struct context *ctx, str path,
                                    str before, struct error *e)
{
    for (;;) {
        const struct json *now;
        if (!context_sleep_ms(ctx, POLL_MS, e) ||
            !client_call(client, ctx, HTTP_GET, path, STR_NONE, &now, e))
            return false;
        str at = json_str_or(now, S("logged_in_at"), STR_NONE);
        if (!str_is_empty(at) && !str_equal(at, before)) {
            printf("logged in at " STR_FMT " as " STR_FMT "\n",
                   STR_ARG(json_str_or(now, S("server"), STR_NONE)),
                   STR_ARG(json_str_or(now, S("user_id"), STR_NONE)));
            return true;
        }
        if (!json_bool_or(now, S("is_waiting"), false))
            return error_set(e, REASON_LOGIN_NEEDED,
                             "the login did not come about; the browser says why");
    }
}

static bool login(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *begun, *state;
    str path = api_path(client, ctx, "/api/v1/mcp/servers/{}/login");
    bool waits = !arguments_has(client->arguments, "no-wait");
    if (client->is_json)
        return api_show(client, ctx, HTTP_POST, path, STR_NONE, e);
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &state, e) ||
        !client_call(client, ctx, HTTP_POST, path, STR_NONE, &begun, e))
        return false;
    fputs("Open this address in your browser; it is for you and nobody else:\n\n", stdout);
    output_text(stdout, json_str_or(begun, S("authorization_url"), STR_NONE), false);
    printf("\n\nIt is good until " STR_FMT ".\n",
           STR_ARG(json_str_or(begun, S("expires_at"), STR_NONE)));
    fflush(stdout);
    return !waits ||
           await_login(client, ctx, path, json_str_or(state, S("logged_in_at"), STR_NONE), e);
}

static bool logout(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE, api_path(client, ctx, "/api/v1/mcp/servers/{}/login"),
                  STR_NONE, "logged out", arguments_operand(client->arguments, 0), e);
}

static const struct option login_options[] = {
    {"no-wait", 0, NULL, false, "print the address and end"},
};
static const struct option approve_options[] = {
    {"digest", 0, "HEX", false, "of what you saw: a definition that changed since is refused"},
};
static const struct command commands[] = {
    {.name = "mcp list",
     .operands = "",
     .summary = "MCP servers whose tools are used",
     .example = "mcp list",
     .work = list},
    {.name = "mcp show",
     .operands = "SERVER",
     .summary = "An MCP server with its tools, offered and quarantined",
     .example = "mcp show notes",
     .work = show},
    {.name = "mcp diff",
     .operands = "SERVER TOOL",
     .summary = "What a tool's definition says now, and said when it was approved",
     .example = "mcp diff notes search",
     .work = diff},
    {.name = "mcp approve",
     .operands = "SERVER TOOL",
     .summary = "Offer a tool with exactly this definition",
     .example = "mcp approve notes search",
     .options = approve_options,
     .option_count = ARRAY_COUNT(approve_options),
     .work = approve},
    {.name = "mcp remove",
     .operands = "SERVER TOOL",
     .summary = "Take an approval back",
     .example = "mcp remove notes search",
     .work = drop},
    {.name = "mcp login",
     .operands = "SERVER",
     .summary = "Log in at an MCP server as yourself, in a browser",
     .example = "mcp login tracker",
     .options = login_options,
     .option_count = ARRAY_COUNT(login_options),
     .work = login},
    {.name = "mcp logout",
     .operands = "SERVER",
     .summary = "End your login at an MCP server",
     .example = "mcp logout tracker",
     .work = logout},
};
const struct command_group mcp_commands = {commands, ARRAY_COUNT(commands)};
