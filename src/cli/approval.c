/* nexus approval ... */
#include "cli/api.h"

#include "base/arena.h"

static const struct column approval_columns[] = {
    {"ID", "/id", 36},
    {"STATUS", "/status", 9},
    {"ACTION", "/action", 12},
    {"REQUESTED BY", "/requested_by", 16},
    {"EXPIRES", "/expires_at", 0},
};

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    str status = arguments_get(client->arguments, "status");
    if (str_is_empty(status))
        status = S("pending");
    str query = str_equal(status, S("all"))
                    ? STR_NONE
                    : str_printf(ctx->arena, "status=" STR_FMT,
                                 STR_ARG(http_percent_encode(ctx->arena, status)));
    return api_list(client, ctx, S("/api/v1/approvals"), query, approval_columns,
                    ARRAY_COUNT(approval_columns), e);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/approvals/{}"), STR_NONE,
                    e);
}

/*
 * The decision names the digest of what was shown.  --digest is what the person saw; without it the approval is fetched, shown and
 * decided as it is now.
 */
static bool decide(struct client *client, struct context *ctx, const char *decision,
                   struct error *e)
{
    str path = api_path(client, ctx, "/api/v1/approvals/{}"),
        seen = arguments_get(client->arguments, "digest");
    const struct json *approval;
    struct strbuf body;
    struct json_writer w;
    if (str_is_empty(seen)) {
        if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &approval, e))
            return false;
        seen = json_str_or(approval, S("digest"), STR_NONE);
        if (!client->is_json) {
            output_text(stdout, json_str_or(approval, S("shown"), STR_NONE), true);
            fputc('\n', stdout);
        }
    }
    strbuf_init(&body, ctx->arena, 64u << 10);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("decision"), str_from_cstr(decision));
    json_put_str(&w, S("digest"), seen);
    if (arguments_has(client->arguments, "reason"))
        json_put_str(&w, S("reason"), arguments_get(client->arguments, "reason"));
    json_object_end(&w);
    if (client->is_json)
        return api_show(client, ctx, HTTP_POST, path, strbuf_str(&body), e);
    return api_do(client, ctx, HTTP_POST, path, strbuf_str(&body),
                  *decision == 'a' ? "approved" : "denied", arguments_operand(client->arguments, 0),
                  e);
}

static bool approve(struct client *client, struct context *ctx, struct error *e)
{
    return decide(client, ctx, "approve", e);
}

static bool deny(struct client *client, struct context *ctx, struct error *e)
{
    return decide(client, ctx, "deny", e);
}

static const struct option list_options[] = {
    {"status", 0, "STATUS", false, "pending (else), approved, denied, expired, all"},
    {"limit", 'n', "COUNT", false, "how many at most; else 50"},
    {"all", 0, NULL, false, "every page"},
};
static const struct option decide_options[] = {
    {"digest", 0, "HEX", false, "of what you saw: a call that changed since is refused"},
    {"reason", 0, "TEXT", false, "kept with the decision"},
};
static const struct command commands[] = {
    {.name = "approval list",
     .operands = "",
     .summary = "Approvals that wait for a decision",
     .example = "approval list --status all",
     .options = list_options,
     .option_count = ARRAY_COUNT(list_options),
     .work = list},
    {.name = "approval show",
     .operands = "APPROVAL",
     .summary = "Everything an approval is about",
     .example = "approval show 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .work = show},
    {.name = "approval approve",
     .operands = "APPROVAL",
     .summary = "Allow exactly this call; nobody approves for themselves",
     .example = "approval approve 01a206dd-432e-765f-bd23-516cfbe0aed5 --reason \"checked\"",
     .options = decide_options,
     .option_count = ARRAY_COUNT(decide_options),
     .work = approve},
    {.name = "approval deny",
     .operands = "APPROVAL",
     .summary = "Refuse this call",
     .example = "approval deny 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .options = decide_options,
     .option_count = ARRAY_COUNT(decide_options),
     .work = deny},
};
const struct command_group approval_commands = {commands, ARRAY_COUNT(commands)};
