/* nexus budget ... */
#include "cli/api.h"

#include "base/arena.h"
#include "base/timefmt.h"

#define BUDGET_LEVELS "session|key|user|tenant"
#define LEDGER_LEVELS "run|session|key|user|tenant"

static bool check_level(const struct client *client, const char *levels, struct error *e)
{
    return arguments_choice("LEVEL", levels, arguments_operand(client->arguments, 0), e);
}

static const struct column budget_columns[] = {
    {"", "/what", 10},
    {"TOKENS", "/tokens", 14},
    {"SECONDS", "/time_ms", 14},
    {"USD", "/cost_nanousd", 18},
    {"TOOL CALLS", "/tool_calls", 0},
};

/* When somebody is told, and what they were told of last. */
static void print_alerts(const struct json *view)
{
    struct json_iter it = json_iter(json_get(view, S("alerts")));
    const struct json *item;
    int64_t percent, alerted = json_i64_or(view, S("alerted"), 0);
    for (size_t i = 0; json_next(&it, NULL, &item); i++)
        if (json_to_i64(item, &percent))
            printf("%s%lld", i ? ", " : "alerts at ", (long long) percent);
    if (it.count > 0)
        printf(" per cent of a limit");
    if (alerted > 0)
        printf("; told: %lld", (long long) alerted);
    if (it.count > 0)
        printf("\n");
}

/* {limit, spent, reserved, remaining} as four lines. */
static bool print_view(struct client *client, struct context *ctx, const struct json *view,
                       struct error *e)
{
    static const str parts[] = {S_INIT("limit"), S_INIT("spent"), S_INIT("reserved"),
                                S_INIT("remaining")};
    const struct json *rows, *value;
    struct strbuf text;
    struct json_writer w;
    str name;
    if (client->is_json) {
        output_json(ctx->arena, view);
        return true;
    }
    strbuf_init(&text, ctx->arena, 16384);
    json_writer_init(&w, &text);
    json_array_begin(&w);
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        struct json_iter it = json_iter(json_get(view, parts[i]));
        json_object_begin(&w);
        json_put_str(&w, S("what"), parts[i]);
        while (json_next(&it, &name, &value))
            if (json_type(value) != JSON_NULL)
                json_put_value(&w, name, value);
            else
                json_put_str(&w, name, S("unlimited"));
        json_object_end(&w);
    }
    json_array_end(&w);
    if (!json_parse(ctx->arena, strbuf_str(&text), (struct json_limits){0}, &rows, e))
        return false;
    output_table(client->cli, ctx->arena, budget_columns, ARRAY_COUNT(budget_columns), rows);
    str period = json_str_or(view, S("period"), STR_NONE);
    if (!str_is_empty(period))
        printf("per " STR_FMT " (UTC), begins anew at " STR_FMT "\n", STR_ARG(period),
               STR_ARG(json_str_or(view, S("resets_at"), STR_NONE)));
    print_alerts(view);
    return true;
}

static bool get_view(struct client *client, struct context *ctx, str level, str subject,
                     const struct json **out, struct error *e)
{
    str path = str_equal(level, S("session"))
                   ? client_path(ctx, "/api/v1/sessions/{}/budget", &subject)
                   : client_path(ctx, "/api/v1/budgets/{}/{}", (str[]){level, subject});
    return client_call(client, ctx, HTTP_GET, path, STR_NONE, out, e);
}

/* ---- all of them ---- */

static const struct column all_columns[] = {
    {"LEVEL", "/level", 8},
    {"SUBJECT", "/subject", 38},
    {"TOKENS SPENT", "/spent/tokens", 14},
    {"LIMIT", "/limit/tokens", 14},
    {"USD SPENT", "/spent/cost_nanousd", 18},
    {"LIMIT", "/limit/cost_nanousd", 18},
    {"PER", "/period", 0},
};
enum { BUDGETS_SHOWN_MAX = 500 };

struct all {
    struct client *client;
    struct context *ctx;
    struct json_writer *w;
    str users[BUDGETS_SHOWN_MAX]; /* shown already */
    size_t user_count, count;
};

static bool add_one(struct all *all, str level, str subject, struct error *e)
{
    const struct json *view, *value;
    str name;
    if (++all->count > BUDGETS_SHOWN_MAX)
        return error_set(e, REASON_LIMIT, "more than %d budgets; ask for single ones",
                         BUDGETS_SHOWN_MAX);
    if (!get_view(all->client, all->ctx, level, subject, &view, e))
        return false;
    struct json_iter it = json_iter(view);
    json_object_begin(all->w);
    json_put_str(all->w, S("level"), level);
    json_put_str(all->w, S("subject"), subject);
    while (json_next(&it, &name, &value))
        json_put_value(all->w, name, value);
    json_object_end(all->w);
    return true;
}

static bool add_user(struct all *all, str user, struct error *e)
{
    for (size_t i = 0; i < all->user_count; i++)
        if (str_equal(all->users[i], user))
            return true;
    if (all->user_count < BUDGETS_SHOWN_MAX)
        all->users[all->user_count++] = user;
    return add_one(all, S("user"), user, e);
}

/* Keys, and who they are of: there is no spending but by them. */
static bool add_keys(struct all *all, struct error *e)
{
    str cursor = STR_NONE;
    do {
        const struct json *page, *key;
        str path = str_is_empty(cursor)
                       ? S("/api/v1/keys")
                       : str_printf(all->ctx->arena, "/api/v1/keys?cursor=" STR_FMT,
                                    STR_ARG(http_percent_encode(all->ctx->arena, cursor)));
        if (!client_call(all->client, all->ctx, HTTP_GET, path, STR_NONE, &page, e))
            return false;
        struct json_iter it = json_iter(json_get(page, S("items")));
        while (json_next(&it, NULL, &key))
            if (!add_user(all, json_str_or(key, S("user_id"), STR_NONE), e) ||
                (json_bool_or(key, S("has_budget"), false) &&
                 !add_one(all, S("key"), json_str_or(key, S("id"), STR_NONE), e)))
                return false;
        cursor = json_str_or(page, S("next_cursor"), STR_NONE);
    } while (!str_is_empty(cursor));
    return true;
}

static bool show_all(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *rows;
    struct strbuf text;
    struct json_writer w;
    struct all *all = ARENA_NEW(ctx->arena, struct all);
    strbuf_init(&text, ctx->arena, 4u << 20);
    json_writer_init(&w, &text);
    *all = (struct all){.client = client, .ctx = ctx, .w = &w};
    json_array_begin(&w);
    if (!add_one(all, S("tenant"), S("self"), e) || !add_keys(all, e))
        return false;
    json_array_end(&w);
    if (!json_parse(ctx->arena, strbuf_str(&text), (struct json_limits){0}, &rows, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, rows);
    else
        output_table(client->cli, ctx->arena, all_columns, ARRAY_COUNT(all_columns), rows);
    return true;
}

/* ---- one ---- */

static bool find_self(struct client *client, struct context *ctx, str *user, struct error *e)
{
    const struct json *me;
    if (!client_call(client, ctx, HTTP_GET, S("/api/v1/me"), STR_NONE, &me, e))
        return false;
    *user = json_str_or(me, S("user_id"), STR_NONE);
    return true;
}

/* Without a subject the caller's own; without a level the tenant's. */
static bool show(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *view;
    str level = arguments_operand(client->arguments, 0),
        subject = arguments_operand(client->arguments, 1);
    if (arguments_has(client->arguments, "all"))
        return show_all(client, ctx, e);
    if (str_is_empty(level))
        level = S("tenant");
    else if (!check_level(client, BUDGET_LEVELS, e))
        return false;
    if (str_is_empty(subject) && str_equal(level, S("tenant")))
        subject = S("self");
    if (str_is_empty(subject) && str_equal(level, S("user")) &&
        !find_self(client, ctx, &subject, e))
        return false;
    if (str_is_empty(subject))
        return error_set(e, REASON_USAGE, "which " STR_FMT "? Name its id", STR_ARG(level));
    return get_view(client, ctx, level, subject, &view, e) && print_view(client, ctx, view, e);
}

static bool write_limits(const struct arguments *arguments, struct json_writer *w, struct error *e)
{
    static const struct {
        const char *option, *member;
        int64_t factor;
    } amounts[] = {{"tokens", "tokens", 1},
                   {"time-seconds", "time_ms", 1000},
                   {"tool-calls", "tool_calls", 1}};
    for (size_t i = 0; i < ARRAY_COUNT(amounts); i++) {
        int64_t value = -1;
        if (!arguments_number(arguments, amounts[i].option, 0, INT64_MAX / 1000 - 1, &value, e))
            return false;
        if (value >= 0)
            json_put_i64(w, str_from_cstr(amounts[i].member), value * amounts[i].factor);
    }
    str money = arguments_get(arguments, "cost-usd");
    int64_t nanousd;
    if (str_is_empty(money))
        return true;
    if (!money_parse_usd(money, &nanousd) || nanousd < 0)
        return error_set(e, REASON_USAGE, "--cost-usd " STR_FMT ": write an amount, as in 0.25",
                         STR_ARG(str_cut_utf8(money, 40)));
    json_put_i64_str(w, S("cost_nanousd"), nanousd);
    return true;
}

/* "50,80,100" */
static bool write_alerts(const struct arguments *arguments, struct json_writer *w, struct error *e)
{
    str rest = arguments_get(arguments, "alerts"), item;
    int64_t percent;
    if (str_is_empty(rest))
        return true;
    json_key(w, S("alerts"));
    json_array_begin(w);
    while (str_next(&rest, ',', &item)) {
        if (!str_to_i64(str_trim(item), &percent))
            return error_set(e, REASON_USAGE, "--alerts: write per cents, as in 50,80,100");
        json_write_i64(w, percent);
    }
    json_array_end(w);
    return true;
}

/* What is not named becomes unlimited, so nothing is done by naming nothing. */
static bool check_limits(const struct arguments *arguments, struct error *e)
{
    static const char *const limits[] = {"tokens", "time-seconds", "cost-usd", "tool-calls"};
    bool has_limit = false, is_unlimited = arguments_has(arguments, "unlimited");
    for (size_t i = 0; i < ARRAY_COUNT(limits); i++)
        has_limit = has_limit || arguments_has(arguments, limits[i]);
    if (!has_limit && !is_unlimited)
        return error_set(e, REASON_USAGE,
                         "which limit? --tokens, --time-seconds, --cost-usd, --tool-calls, with "
                         "--period and --alerts; those that are left out are taken away, all of "
                         "them by --unlimited");
    return !has_limit || !is_unlimited ||
           error_set(e, REASON_USAGE, "--unlimited and a limit: give one of them");
}

static bool set(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *view;
    struct strbuf body;
    struct json_writer w;
    if (!check_level(client, BUDGET_LEVELS, e))
        return false;
    if (str_equal(arguments_operand(client->arguments, 0), S("session")))
        return error_set(
            e, REASON_USAGE,
            "a session's budget is set when it is made: nexus session create --tokens COUNT");
    if (!check_limits(client->arguments, e))
        return false;
    strbuf_init(&body, ctx->arena, 4096);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    str period = arguments_get(client->arguments, "period");
    if (!str_is_empty(period))
        json_put_str(&w, S("period"), period);
    if (!write_limits(client->arguments, &w, e) || !write_alerts(client->arguments, &w, e))
        return false;
    json_object_end(&w);
    return client_call(client, ctx, HTTP_PUT, api_path(client, ctx, "/api/v1/budgets/{}/{}"),
                       strbuf_str(&body), &view, e) &&
           print_view(client, ctx, view, e);
}

/* ---- the books ---- */

static const struct column ledger_columns[] = {
    {"AT", "/at", 28},
    {"DEBIT", "/debit", 30},
    {"CREDIT", "/credit", 24},
    {"TOKENS", "/amount/tokens", 10},
    {"USD", "/amount/cost_nanousd", 14},
    {"SECONDS", "/amount/time_ms", 10},
    {"CALLS", "/amount/tool_calls", 6},
    {"BASIS", "/basis", 0},
};

static bool ledger(struct client *client, struct context *ctx, struct error *e)
{
    return check_level(client, LEDGER_LEVELS, e) &&
           api_list(client, ctx, api_path(client, ctx, "/api/v1/budgets/{}/{}/ledger"), STR_NONE,
                    ledger_columns, ARRAY_COUNT(ledger_columns), e);
}

static bool verify(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *report;
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/budgets/verify"), STR_NONE, &report, e))
        return false;
    bool is_ok = json_bool_or(report, S("ok"), false);
    client->exit_code = is_ok ? EXIT_DONE : EXIT_FAILED;
    if (client->is_json)
        output_json(ctx->arena, report);
    else if (is_ok)
        printf("ok: %lld entries, %lld accounts, %lld periods: debits and credits are equal\n",
               (long long) json_i64_or(report, S("entries"), 0),
               (long long) json_i64_or(report, S("accounts"), 0),
               (long long) json_i64_or(report, S("periods"), 0));
    else
        printf("NOT OK: " STR_FMT "\n", STR_ARG(json_str_or(report, S("first_bad"), STR_NONE)));
    return true;
}

static const struct option show_options[] = {
    {"all", 'a', NULL, false, "the tenant, every user with a key, every key with a budget"},
};
static const struct option set_options[] = {
    {"tokens", 0, "COUNT", false, "what is left out is unlimited"},
    {"time-seconds", 0, "COUNT", false, "running time"},
    {"cost-usd", 0, "AMOUNT", false, "money, as in 0.25"},
    {"tool-calls", 0, "COUNT", false, "calls of tools"},
    {"unlimited", 0, NULL, false, "take all limits away"},
    {"period", 0, "day|month", false, "in UTC: begins anew; left out: of all time"},
    {"alerts", 0, "LIST", false, "per cent at which somebody is told, as in 50,80,100"},
};
static const struct command commands[] = {
    {.name = "budget show",
     .operands = "[LEVEL] [SUBJECT]",
     .summary = "Limit, spent, reserved, remaining; LEVEL: session, key, user, tenant",
     .details = "Without LEVEL the tenant's; of user and tenant without SUBJECT the caller's own.",
     .example = "budget show user ada",
     .options = show_options,
     .option_count = ARRAY_COUNT(show_options),
     .work = show},
    {.name = "budget set",
     .operands = "LEVEL SUBJECT",
     .summary = "Set all limits of a key, user or tenant; they hold at once",
     .details = "What is left out becomes unlimited, of all time, with the configured alerts.",
     .example = "budget set user ada --tokens 1000000 --cost-usd 5",
     .options = set_options,
     .option_count = ARRAY_COUNT(set_options),
     .work = set},
    {.name = "budget ledger",
     .operands = "LEVEL SUBJECT",
     .summary = "Entries of a run, session, key, user or tenant, newest first: debit and credit",
     .example = "budget ledger user ada",
     .options = page_options,
     .option_count = PAGE_OPTION_COUNT,
     .work = ledger},
    {.name = "budget verify",
     .operands = "",
     .summary = "Do the books add up? Exit code 1 and the first account that does not",
     .example = "budget verify",
     .work = verify},
};
const struct command_group budget_commands = {commands, ARRAY_COUNT(commands)};
