/* nexus approval ... */
#include "cli/api.h"

#include "base/arena.h"
#include "base/timefmt.h"

static const struct column approval_columns[] = {
    {"ID", "/id", 36},
    {"STATUS", "/status", 9},
    {"GIVEN", "/given", 5},
    {"OF", "/quorum", 3},
    {"ACTION", "/action", 16},
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

static void print_line(struct context *ctx, const char *name, const struct json *value)
{
    printf("%-13s ", name);
    output_text(stdout, output_value(ctx->arena, value), false);
    fputc('\n', stdout);
}

static void print_vote(struct context *ctx, const struct json *vote)
{
    static const char *const members[] = {"decision", "approver", "delegated_by", "reason",
                                          "created_at"};
    static const char *const words[] = {"", "by ", "in the place of ", "because ", ""};
    printf("vote %-8lld ", (long long) json_i64_or(vote, S("number"), 0));
    for (size_t i = 0; i < ARRAY_COUNT(members); i++) {
        const struct json *value = json_get(vote, str_from_cstr(members[i]));
        if (!value)
            continue;
        printf("%s%s", i > 0 ? ", " : "", words[i]);
        output_text(stdout, output_value(ctx->arena, value), false);
    }
    fputc('\n', stdout);
}

/* What is decided about comes last and whole; what could hide in it is escaped by the server, and nothing else is printed of it. */
static void print_approval(struct context *ctx, const struct json *approval)
{
    static const char *const members[] = {
        "id",     "status",     "action",     "run_id",     "requested_by", "user_id",
        "digest", "quorum",     "given",      "needed",     "approvers",    "approver",
        "reason", "created_at", "decided_at", "expires_at", "reminders"};
    const struct json *item;
    for (size_t i = 0; i < ARRAY_COUNT(members); i++) {
        const struct json *value = json_get(approval, str_from_cstr(members[i]));
        str text = output_value(ctx->arena, value);
        if (value && json_type(value) != JSON_NULL && !str_is_empty(text))
            print_line(ctx, members[i], value);
    }
    struct json_iter it = json_iter(json_get(approval, S("votes")));
    while (json_next(&it, NULL, &item))
        print_vote(ctx, item);
    print_line(ctx, "subject", json_get(approval, S("shown")));
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *approval;
    if (!client_call(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/approvals/{}"), STR_NONE,
                     &approval, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, approval);
    else
        print_approval(ctx, approval);
    return true;
}

static void print_decision(const struct json *approval, bool is_approve)
{
    long long needed = (long long) json_i64_or(approval, S("needed"), 0);
    printf("%s ", !is_approve ? "denied" : needed > 0 ? "your vote is counted:" : "approved");
    output_text(stdout, json_str_or(approval, S("id"), STR_NONE), false);
    if (needed > 0)
        printf(" needs %lld more of %lld", needed,
               (long long) json_i64_or(approval, S("quorum"), 1));
    fputc('\n', stdout);
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
    if (arguments_has(client->arguments, "for"))
        json_put_str(&w, S("in_place_of"), arguments_get(client->arguments, "for"));
    json_object_end(&w);
    if (!client_call(client, ctx, HTTP_POST, path, strbuf_str(&body), &approval, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, approval);
    else
        print_decision(approval, *decision == 'a');
    return true;
}

static bool approve(struct client *client, struct context *ctx, struct error *e)
{
    return decide(client, ctx, "approve", e);
}

static bool deny(struct client *client, struct context *ctx, struct error *e)
{
    return decide(client, ctx, "deny", e);
}

/* ---- delegation ---- */

static const struct column delegation_columns[] = {
    {"FROM", "/from", 20},
    {"TO", "/to", 20},
    {"UNTIL", "/expires_at", 27},
    {"REASON", "/reason", 0},
};

static bool delegate(struct client *client, struct context *ctx, struct error *e)
{
    int64_t ms;
    str text = arguments_get(client->arguments, "until");
    struct strbuf body;
    struct json_writer w;
    if (!duration_parse(text, &ms) || ms <= 0)
        return error_set(e, REASON_USAGE, "--until needs a time from now, as in 8h or 14d");
    strbuf_init(&body, ctx->arena, 16384);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("to"), arguments_operand(client->arguments, 0));
    json_put_str(&w, S("expires_at"), time_str(ctx->arena, context_now_us(ctx) + ms * 1000));
    if (arguments_has(client->arguments, "reason"))
        json_put_str(&w, S("reason"), arguments_get(client->arguments, "reason"));
    json_object_end(&w);
    return api_show(client, ctx, HTTP_POST, S("/api/v1/approval-delegations"), strbuf_str(&body),
                    e);
}

static bool delegations(struct client *client, struct context *ctx, struct error *e)
{
    return api_list(client, ctx, S("/api/v1/approval-delegations"), STR_NONE, delegation_columns,
                    ARRAY_COUNT(delegation_columns), e);
}

static bool revoke(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE,
                  api_path(client, ctx, "/api/v1/approval-delegations/{}/{}"), STR_NONE, "revoked",
                  arguments_operand(client->arguments, 1), e);
}

static const struct option list_options[] = {
    {"status", 0, "pending|approved|denied|expired|consumed|all", false,
     "of this status only; else pending"},
    {"limit", 'n', "COUNT", false, "how many at most; else 50"},
    {"all", 0, NULL, false, "every page"},
};
static const struct option decide_options[] = {
    {"digest", 0, "HEX", false, "of what you saw: a call that changed since is refused"},
    {"reason", 0, "TEXT", false, "kept with the decision"},
    {"for", 0, "USER", false, "in the place of this person, by their delegation"},
};
static const struct option delegate_options[] = {
    {"until", 0, "TIME", false, "how long from now: 8h, 14d; at most 90d"},
    {"reason", 0, "TEXT", false, "kept with it"},
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
    {.name = "approval delegate",
     .operands = "USER",
     .summary = "Let USER approve in your place for a while; never what you asked for yourself",
     .example = "approval delegate bob --until 14d --reason \"on leave\"",
     .options = delegate_options,
     .option_count = ARRAY_COUNT(delegate_options),
     .work = delegate},
    {.name = "approval delegations",
     .operands = "",
     .summary = "Who may approve in whose place: from you and to you; an admin sees all",
     .example = "approval delegations",
     .options = page_options,
     .option_count = PAGE_OPTION_COUNT,
     .work = delegations},
    {.name = "approval revoke",
     .operands = "FROM TO",
     .summary = "End the delegation from FROM to TO",
     .example = "approval revoke alice bob",
     .work = revoke},
};
const struct command_group approval_commands = {commands, ARRAY_COUNT(commands)};
