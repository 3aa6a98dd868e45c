/* nexus audit ... */
#include "cli/api.h"

#include "base/arena.h"
#include "base/limits.h"

static const struct column audit_columns[] = {
    {"TIME", "/created_at", 27},    {"USER", "/user_id", 14},        {"ACTION", "/action", 20},
    {"TYPE", "/resource_type", 12}, {"RESOURCE", "/resource_id", 0},
};

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    static const char *const filters[] = {"action", "user_id", "resource_id"};
    static const char *const names[] = {"action", "user", "resource"};
    struct strbuf query;
    strbuf_init(&query, ctx->arena, 4096);
    for (size_t i = 0; i < ARRAY_COUNT(filters); i++)
        if (arguments_has(client->arguments, names[i]))
            strbuf_printf(&query, "%s%s=" STR_FMT, query.len ? "&" : "", filters[i],
                          STR_ARG(http_percent_encode(ctx->arena,
                                                      arguments_get(client->arguments, names[i]))));
    return api_list(client, ctx, S("/api/v1/audit"), strbuf_str(&query), audit_columns,
                    ARRAY_COUNT(audit_columns), e);
}

/* ---- verify ---- */

static void print_report(bool is_json, bool is_ok, int64_t entries, str first_bad)
{
    if (is_json)
        printf("{\"ok\":%s,\"entries\":%lld%s" STR_FMT "%s}\n", is_ok ? "true" : "false",
               (long long) entries, is_ok ? "" : ",\"first_bad\":\"", STR_ARG(first_bad),
               is_ok ? "" : "\"");
    else if (is_ok)
        printf("ok: %lld entries, nothing was changed, cut or rewritten\n", (long long) entries);
    else
        printf("NOT OK: the first entry that does not fit is " STR_FMT " (of %lld)\n",
               STR_ARG(first_bad), (long long) entries);
}

static bool verify_server(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *report;
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/audit/verify"), STR_NONE, &report, e))
        return false;
    bool is_ok = json_bool_or(report, S("ok"), false);
    print_report(client->is_json, is_ok, json_i64_or(report, S("entries"), 0),
                 json_str_or(report, S("first_bad"), STR_NONE));
    client->exit_code = is_ok ? EXIT_DONE : EXIT_FAILED;
    return true;
}

struct verification {
    struct arena *arena;
    struct store *store;
    struct audit_report report; /* of all tenants together */
};

static bool verify_tenants(struct context *ctx, void *argument, struct error *e)
{
    struct verification *work = argument;
    struct query query = query_of(TABLE_TENANTS);
    struct records page;
    uuid *tenants;
    work->report.ok = true;
    do {
        if (!store_list_any_tenant(work->store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count && work->report.ok; i++) {
            struct audit_report report;
            if (!store_audit_verify(work->store, ctx, record_uuid(&page.items[i], TENANTS_ID),
                                    &report, e))
                return false;
            work->report.ok = report.ok;
            work->report.entries += report.entries;
            work->report.first_bad = str_copy(work->arena, report.first_bad);
        }
        query.cursor = page.next_cursor;
    } while (!str_is_empty(page.next_cursor));
    return true;
}

/* Reads the store itself; no server may own it meanwhile. */
static int verify_folder(struct cli *cli, const struct arguments *arguments, str folder)
{
    struct error e = {0};
    struct verification work = {.arena = cli->arena};
    void *owner;
    struct loop *loop = loop_create(clock_system(), random_system(), &e);
    if (!loop)
        return command_fail(cli, "audit verify", &e);
    if (!cli->parts->open_store(folder, &work.store, &owner, &e)) {
        loop_destroy(loop);
        if (e.reason == REASON_IN_USE)
            (void) error_wrap(&e, "a server runs on this folder: ask it, with --server URL");
        return command_fail(cli, "audit verify", &e);
    }
    bool is_ok = loop_start_thread(loop, "nexus-cli", &e);
    if (is_ok) {
        is_ok = on_loop_call(loop, "audit verify", 0, verify_tenants, &work, &e);
        loop_stop(loop);
        loop_join_thread(loop);
    }
    cli->parts->close_store(owner);
    loop_destroy(loop);
    if (!is_ok)
        return command_fail(cli, "audit verify", &e);
    print_report(arguments_has(arguments, "json"), work.report.ok, work.report.entries,
                 work.report.first_bad);
    return work.report.ok ? EXIT_DONE : EXIT_FAILED;
}

static int verify(struct cli *cli, const struct arguments *arguments)
{
    str folder = arguments_get(arguments, "data");
    if (!str_is_empty(folder) && str_is_empty(client_server_named(arguments)))
        return verify_folder(cli, arguments, folder);
    return client_main(cli, "audit verify", arguments, verify_server);
}

static const struct option list_options[] = {
    {"action", 0, "NAME", false, "of this action only: session.create, key.revoke"},
    {"user", 0, "ID", false, "of this user only"},
    {"resource", 0, "ID", false, "of this resource only"},
    {"limit", 'n', "COUNT", false, "how many at most; else 50"},
    {"all", 0, NULL, false, "all of them"},
};
static const struct option verify_options[] = {
    {"data", 'd', "DIR", false,
     "check this folder itself, without a server; with a server: its folder, for the admin key"},
    {"server", 's', "URL", false, "the server; else $NEXUS_SERVER, else http://127.0.0.1:8080"},
    {"key", 'k', "KEY", false, "API key; better in $NEXUS_API_KEY"},
    {"json", 'j', NULL, false, "JSON instead of text"},
};
static const struct command commands[] = {
    {.name = "audit list",
     .operands = "",
     .summary = "Who did what to which resource, newest first",
     .example = "audit list --action key.create",
     .options = list_options,
     .option_count = ARRAY_COUNT(list_options),
     .work = list},
    {.name = "audit verify",
     .operands = "",
     .summary = "Check the hash chains and their signatures; exit 1 when they do not hold",
     .example = "audit verify --data ./data",
     .options = verify_options,
     .option_count = ARRAY_COUNT(verify_options),
     .run = verify},
};
const struct command_group audit_commands = {commands, ARRAY_COUNT(commands)};
