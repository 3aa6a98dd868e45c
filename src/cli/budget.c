/* nexus budget ... */
#include "cli/api.h"

#include "base/arena.h"
#include "base/timefmt.h"

static bool check_level(const struct client *client, struct error *e)
{
    str level = arguments_operand(client->arguments, 0);
    if (str_equal(level, S("session")) || str_equal(level, S("key")) ||
        str_equal(level, S("user")) || str_equal(level, S("tenant")))
        return true;
    return error_set(e, REASON_USAGE,
                     "\"" STR_FMT "\": a budget is of a session, a key, a user or a tenant",
                     STR_ARG(str_cut_utf8(level, 40)));
}

static const struct column budget_columns[] = {
    {"", "/what", 10},
    {"TOKENS", "/tokens", 14},
    {"TIME MS", "/time_ms", 14},
    {"COST NANO-USD", "/cost_nanousd", 18},
    {"TOOL CALLS", "/tool_calls", 0},
};

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
    return true;
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *view;
    bool is_session = str_equal(arguments_operand(client->arguments, 0), S("session"));
    str id = http_percent_encode(ctx->arena, arguments_operand(client->arguments, 1));
    if (!check_level(client, e))
        return false;
    str path = is_session
                   ? str_printf(ctx->arena, "/api/v1/sessions/" STR_FMT "/budget", STR_ARG(id))
                   : api_path(client, ctx, "/api/v1/budgets/{}/{}");
    return client_call(client, ctx, HTTP_GET, path, STR_NONE, &view, e) &&
           print_view(client, ctx, view, e);
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

static bool set(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *view;
    struct strbuf body;
    struct json_writer w;
    if (!check_level(client, e))
        return false;
    if (str_equal(arguments_operand(client->arguments, 0), S("session")))
        return error_set(
            e, REASON_USAGE,
            "a session's budget is set when it is made: nexus session create --tokens COUNT");
    strbuf_init(&body, ctx->arena, 4096);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    if (!write_limits(client->arguments, &w, e))
        return false;
    json_object_end(&w);
    return client_call(client, ctx, HTTP_PUT, api_path(client, ctx, "/api/v1/budgets/{}/{}"),
                       strbuf_str(&body), &view, e) &&
           print_view(client, ctx, view, e);
}

static const struct option set_options[] = {
    {"tokens", 0, "COUNT", false, "what is left out is unlimited"},
    {"time-seconds", 0, "COUNT", false, "running time"},
    {"cost-usd", 0, "AMOUNT", false, "money, as in 0.25"},
    {"tool-calls", 0, "COUNT", false, "calls of tools"},
};
static const struct command commands[] = {
    {.name = "budget show",
     .operands = "LEVEL SUBJECT",
     .summary = "Limit, spent, reserved, remaining; LEVEL: session, key, user, tenant",
     .example = "budget show user ada",
     .work = show},
    {.name = "budget set",
     .operands = "LEVEL SUBJECT",
     .summary = "Set all limits of a key, user or tenant; they hold at once",
     .example = "budget set user ada --tokens 1000000 --cost-usd 5",
     .options = set_options,
     .option_count = ARRAY_COUNT(set_options),
     .work = set},
};
const struct command_group budget_commands = {commands, ARRAY_COUNT(commands)};
