/* nexus webhook ...: doors for signed requests, endpoints that are told, deliveries */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "cli/api.h"
#include "cli/tool/tool_pack.h"

enum { BODY_BYTES_MAX = 2 * WEBHOOK_BODY_BYTES_MAX };

static const struct column columns[] = {
    {"NAME", "/name", 20},          {"SCHEME", "/scheme", 8}, {"WORKFLOW", "/workflow", 20},
    {"SIGNAL", "/signal_name", 14}, {"USER", "/user_id", 16}, {"PATH", "/path", 0},
};
static const struct column endpoint_columns[] = {
    {"NAME", "/name", 20},
    {"PAUSED", "/paused", 6},
    {"WHY", "/paused_why", 6},
    {"URL", "/url", 0},
};
static const struct column delivery_columns[] = {
    {"ID", "/id", 36},
    {"ENDPOINT", "/endpoint", 16},
    {"EVENT", "/event", 18},
    {"STATUS", "/status", 9},
    {"ATTEMPTS", "/attempts", 8},
    {"NEXT", "/next_at", 27},
    {"LAST ERROR", "/last_error", 0},
};

/* ---- bodies ---- */

struct body {
    struct strbuf text;
    struct json_writer w;
};

static struct json_writer *body_begin(struct body *body, struct context *ctx)
{
    strbuf_init(&body->text, ctx->arena, BODY_BYTES_MAX);
    json_writer_init(&body->w, &body->text);
    json_object_begin(&body->w);
    return &body->w;
}

static str body_end(struct body *body)
{
    json_object_end(&body->w);
    return strbuf_str(&body->text);
}

static void put_option(struct client *client, struct json_writer *w, const char *option,
                       const char *member)
{
    if (arguments_has(client->arguments, option))
        json_put_str(w, str_from_cstr(member), arguments_get(client->arguments, option));
}

/* A secret comes from a file: what stands on a command line, others on the machine can read. */
static bool put_secret(struct client *client, struct context *ctx, struct json_writer *w,
                       struct error *e)
{
    str text;
    if (!arguments_has(client->arguments, "secret-file"))
        return true;
    if (!tool_pack_read_file(ctx->arena, arguments_get(client->arguments, "secret-file"), 4096,
                             &text, e))
        return false;
    json_put_str(w, S("secret"), str_trim(text));
    return true;
}

/* "a,b" as a list. */
static void put_list(struct client *client, struct json_writer *w, const char *option)
{
    str rest = arguments_get(client->arguments, option), item;
    if (!arguments_has(client->arguments, option))
        return;
    json_key(w, str_from_cstr(option));
    json_array_begin(w);
    while (str_next(&rest, ',', &item))
        json_write_str(w, str_trim(item));
    json_array_end(w);
}

/* ---- doors ---- */

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    return api_list(client, ctx, S("/api/v1/webhooks"), STR_NONE, columns, ARRAY_COUNT(columns), e);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/webhooks/{}"), STR_NONE,
                    e);
}

static bool create(struct client *client, struct context *ctx, struct error *e)
{
    struct body body;
    struct json_writer *w = body_begin(&body, ctx);
    json_put_str(w, S("name"), arguments_operand(client->arguments, 0));
    put_option(client, w, "workflow", "workflow");
    put_option(client, w, "signal", "signal_name");
    put_option(client, w, "run-pointer", "run_pointer");
    put_option(client, w, "scheme", "scheme");
    return put_secret(client, ctx, w, e) &&
           api_show(client, ctx, HTTP_POST, S("/api/v1/webhooks"), body_end(&body), e);
}

static bool delete_it(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE, api_path(client, ctx, "/api/v1/webhooks/{}"), STR_NONE,
                  "deleted", arguments_operand(client->arguments, 0), e);
}

static bool do_rotate(struct client *client, struct context *ctx, const char *path, struct error *e)
{
    struct body body;
    int64_t overlap_ms = 0;
    struct json_writer *w = body_begin(&body, ctx);
    if (arguments_has(client->arguments, "overlap") &&
        !duration_parse(arguments_get(client->arguments, "overlap"), &overlap_ms))
        return error_set(e, REASON_USAGE, "--overlap is a duration such as 12h");
    if (arguments_has(client->arguments, "overlap"))
        json_put_i64(w, S("overlap_seconds"), overlap_ms / 1000);
    return put_secret(client, ctx, w, e) &&
           api_show(client, ctx, HTTP_POST, api_path(client, ctx, path), body_end(&body), e);
}

static bool rotate(struct client *client, struct context *ctx, struct error *e)
{
    return do_rotate(client, ctx, "/api/v1/webhooks/{}/rotate", e);
}

/* --body is JSON, or @FILE with JSON in it. */
static bool test(struct client *client, struct context *ctx, struct error *e)
{
    struct body body;
    const struct json *json;
    str text = arguments_get(client->arguments, "body");
    if (str_strip_prefix(text, S("@"), &text) &&
        !tool_pack_read_file(ctx->arena, text, WEBHOOK_BODY_BYTES_MAX, &text, e))
        return false;
    if (str_is_empty(text))
        text = S("{}");
    if (!json_parse(ctx->arena, text, (struct json_limits){0}, &json, e))
        return error_wrap(e, "--body");
    struct json_writer *w = body_begin(&body, ctx);
    json_put_value(w, S("body"), json);
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/webhooks/{}/test"),
                    body_end(&body), e);
}

/* ---- endpoints ---- */

static bool endpoint_list(struct client *client, struct context *ctx, struct error *e)
{
    return api_list(client, ctx, S("/api/v1/webhook-endpoints"), STR_NONE, endpoint_columns,
                    ARRAY_COUNT(endpoint_columns), e);
}

static bool endpoint_show(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/webhook-endpoints/{}"),
                    STR_NONE, e);
}

static bool endpoint_create(struct client *client, struct context *ctx, struct error *e)
{
    struct body body;
    struct json_writer *w = body_begin(&body, ctx);
    json_put_str(w, S("name"), arguments_operand(client->arguments, 0));
    json_put_str(w, S("url"), arguments_operand(client->arguments, 1));
    put_list(client, w, "events");
    put_list(client, w, "include");
    return put_secret(client, ctx, w, e) &&
           api_show(client, ctx, HTTP_POST, S("/api/v1/webhook-endpoints"), body_end(&body), e);
}

static bool endpoint_delete(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE, api_path(client, ctx, "/api/v1/webhook-endpoints/{}"),
                  STR_NONE, "deleted", arguments_operand(client->arguments, 0), e);
}

static bool endpoint_rotate(struct client *client, struct context *ctx, struct error *e)
{
    return do_rotate(client, ctx, "/api/v1/webhook-endpoints/{}/rotate", e);
}

static bool endpoint_pause(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST,
                    api_path(client, ctx, "/api/v1/webhook-endpoints/{}/pause"), STR_NONE, e);
}

static bool endpoint_resume(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST,
                    api_path(client, ctx, "/api/v1/webhook-endpoints/{}/resume"), STR_NONE, e);
}

static bool endpoint_test(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST,
                    api_path(client, ctx, "/api/v1/webhook-endpoints/{}/test"), STR_NONE, e);
}

/* ---- deliveries ---- */

static bool deliveries(struct client *client, struct context *ctx, struct error *e)
{
    str endpoint = arguments_get(client->arguments, "endpoint"),
        status = arguments_get(client->arguments, "status");
    str query = str_printf(ctx->arena, "endpoint=" STR_FMT "&status=" STR_FMT,
                           STR_ARG(http_percent_encode(ctx->arena, endpoint)),
                           STR_ARG(http_percent_encode(ctx->arena, status)));
    return api_list(client, ctx, S("/api/v1/webhook-deliveries"), query, delivery_columns,
                    ARRAY_COUNT(delivery_columns), e);
}

static bool retry(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST,
                    api_path(client, ctx, "/api/v1/webhook-deliveries/{}/retry"), STR_NONE, e);
}

static bool redeliver(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST,
                    api_path(client, ctx, "/api/v1/webhook-endpoints/{}/redeliver"), STR_NONE, e);
}

/* ---- the table ---- */

#define SECRET_OPTION                                                                              \
    {                                                                                              \
        "secret-file", 0, "FILE", false,                                                           \
            "the secret, if the other side has chosen it; else one "                               \
            "is made and shown this once"                                                          \
    }
static const struct option create_options[] = {
    {"workflow", 'w', "NAME", false, "NAME or NAME@RANGE: what a request starts"},
    {"signal", 0, "NAME", false, "or: what a request signals the run that its body names"},
    {"run-pointer", 0, "POINTER", false, "where in the body; /run_id unless told"},
    {"scheme", 0, "standard|github|stripe", false, "how requests are signed; else standard"},
    SECRET_OPTION,
};
static const struct option rotate_options[] = {
    {"overlap", 0, "DURATION", false, "how long the secret before stays good; a day unless told"},
    SECRET_OPTION,
};
static const struct option test_options[] = {
    {"body", 0, "JSON", false, "of the request; @FILE reads it from a file"},
};
static const struct option endpoint_options[] = {
    {"events", 0,
     "run.completed|run.failed|run.cancelled|approval.requested|approval.reminded|"
     "budget.alerted,...",
     false, "what it is told of; all unless told"},
    {"include", 0, "answer", false, "content to be sent along; none unless told"},
    SECRET_OPTION,
};
static const struct option delivery_options[] = {
    {"endpoint", 0, "NAME", false, "of this one only"},
    {"status", 0, "pending|delivered|dead|dropped", false, "of this status only"},
    {"limit", 'n', "N", false, "at most so many"},
    {"all", 0, NULL, false, "every page"},
};
static const struct command commands[] = {
    {.name = "webhook list",
     .operands = "",
     .summary = "Doors for signed requests",
     .example = "webhook list",
     .options = page_options,
     .option_count = PAGE_OPTION_COUNT,
     .work = list},
    {.name = "webhook show",
     .operands = "NAME",
     .summary = "One webhook: its path, what it starts, as whom",
     .example = "webhook show deploys",
     .work = show},
    {.name = "webhook create",
     .operands = "NAME",
     .summary = "Let signed requests start a workflow, or signal a run; it runs as you",
     .example = "webhook create deploys --scheme github --workflow review@^1",
     .options = create_options,
     .option_count = ARRAY_COUNT(create_options),
     .work = create},
    {.name = "webhook delete",
     .operands = "NAME",
     .summary = "Close a webhook; runs that it started go on",
     .example = "webhook delete deploys",
     .work = delete_it},
    {.name = "webhook rotate",
     .operands = "NAME",
     .summary = "A new secret; the one before stays good for a while",
     .example = "webhook rotate deploys --overlap 12h",
     .options = rotate_options,
     .option_count = ARRAY_COUNT(rotate_options),
     .work = rotate},
    {.name = "webhook test",
     .operands = "NAME",
     .summary = "Make the request that its sender would make",
     .example = "webhook test deploys --body @push.json",
     .options = test_options,
     .option_count = ARRAY_COUNT(test_options),
     .work = test},
    {.name = "webhook endpoint list",
     .operands = "",
     .summary = "Who is told of what happens",
     .example = "webhook endpoint list",
     .options = page_options,
     .option_count = PAGE_OPTION_COUNT,
     .work = endpoint_list},
    {.name = "webhook endpoint show",
     .operands = "NAME",
     .summary = "One endpoint",
     .example = "webhook endpoint show pager",
     .work = endpoint_show},
    {.name = "webhook endpoint create",
     .operands = "NAME URL",
     .summary = "Tell a URL of what happens to runs, approvals and budgets",
     .example = "webhook endpoint create pager https://hooks.example.com/nexus --events "
                "run.failed,budget.alerted",
     .options = endpoint_options,
     .option_count = ARRAY_COUNT(endpoint_options),
     .work = endpoint_create},
    {.name = "webhook endpoint delete",
     .operands = "NAME",
     .summary = "Tell it no more; what waits for it ends as dead",
     .example = "webhook endpoint delete pager",
     .work = endpoint_delete},
    {.name = "webhook endpoint pause",
     .operands = "NAME",
     .summary = "Send nothing until it is resumed; events are kept meanwhile",
     .example = "webhook endpoint pause pager",
     .work = endpoint_pause},
    {.name = "webhook endpoint resume",
     .operands = "NAME",
     .summary = "Go on sending",
     .example = "webhook endpoint resume pager",
     .work = endpoint_resume},
    {.name = "webhook endpoint rotate",
     .operands = "NAME",
     .summary = "A new secret; both sign for a while",
     .example = "webhook endpoint rotate pager --overlap 12h",
     .options = rotate_options,
     .option_count = ARRAY_COUNT(rotate_options),
     .work = endpoint_rotate},
    {.name = "webhook endpoint test",
     .operands = "NAME",
     .summary = "Send it an event webhook.test",
     .example = "webhook endpoint test pager",
     .work = endpoint_test},
    {.name = "webhook deliveries",
     .operands = "",
     .summary = "What was sent, waits, or could not be sent, newest first",
     .example = "webhook deliveries --status dead",
     .options = delivery_options,
     .option_count = ARRAY_COUNT(delivery_options),
     .work = deliveries},
    {.name = "webhook retry",
     .operands = "DELIVERY",
     .summary = "Send one again, whatever became of it",
     .example = "webhook retry 0197f3c2-0000-7000-8000-000000000000",
     .work = retry},
    {.name = "webhook redeliver",
     .operands = "ENDPOINT",
     .summary = "Try all dead deliveries of an endpoint again",
     .example = "webhook redeliver pager",
     .work = redeliver},
};
const struct command_group webhook_commands = {commands, ARRAY_COUNT(commands)};
