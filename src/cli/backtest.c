/* nexus backtest */
#include "cli/api.h"
#include "cli/run_files.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/yaml.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

/* ---- what is tried ---- */

static bool put_module(struct arena *arena, struct json_writer *w, str path, str name,
                       struct error *e)
{
    str source;
    if (!run_file_read(arena, path, &source, e))
        return false;
    json_object_begin(w);
    json_put_str(w, S("name"), name);
    json_put_str(w, S("source"), source);
    json_object_end(w);
    return true;
}

static str last_part(str path)
{
    for (size_t i = path.len; i > 0; i--)
        if (path.ptr[i - 1] == '/')
            return str_from(path, i);
    return path;
}

static bool put_policy(struct arena *arena, struct json_writer *w, str path, struct error *e)
{
    DIR *folder = opendir(str_to_cstr(arena, path));
    bool ok = true;
    str data = STR_NONE;
    json_key(w, S("policy"));
    json_object_begin(w);
    json_key(w, S("modules"));
    json_array_begin(w);
    if (!folder)
        ok = put_module(arena, w, path, last_part(path), e);
    for (struct dirent *entry; ok && folder && (entry = readdir(folder));) {
        str name = str_copy(arena, str_from_cstr(entry->d_name));
        str file = str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(path), STR_ARG(name));
        if (str_ends_with(name, S(".rego")) && !str_ends_with(name, S("_test.rego")))
            ok = put_module(arena, w, file, name, e);
        else if (str_equal(name, S("data.json")))
            ok = run_file_read(arena, file, &data, e);
    }
    if (folder)
        (void) closedir(folder);
    json_array_end(w);
    const struct json *tree;
    if (ok && !str_is_empty(data)) {
        ok = json_parse(arena, data, (struct json_limits){0}, &tree, e);
        if (ok)
            json_put_value(w, S("data"), tree);
    }
    json_object_end(w);
    return ok;
}

/* A piece of configuration: YAML or JSON, whole or the section alone. */
static bool put_section(struct arena *arena, struct json_writer *w, const char *member, str path,
                        struct error *e)
{
    struct yaml_document document;
    str text;
    if (!run_file_read(arena, path, &text, e) || !yaml_parse(arena, path, text, &document, e))
        return false;
    const struct json *section = json_get(document.root, str_from_cstr(member));
    json_put_value(w, str_from_cstr(member), section ? section : document.root);
    return true;
}

static bool read_since(str text, int64_t *ms, struct error *e)
{
    static const struct {
        char unit;
        int64_t ms;
    } units[] = {{'m', 60000}, {'h', 3600000}, {'d', 86400000}, {'w', 604800000}};
    int64_t count = 0;
    for (size_t i = 0; i < ARRAY_COUNT(units) && text.len > 1; i++)
        if (text.ptr[text.len - 1] == units[i].unit &&
            str_to_i64(str_slice(text, 0, text.len - 1), &count) && count > 0 &&
            count <= BACKTEST_DAYS_MAX * 24 * 60) {
            *ms = count * units[i].ms;
            return true;
        }
    return error_set(e, REASON_USAGE, "--since 7d: a number and m, h, d or w");
}

static bool write_request(struct client *client, struct context *ctx, struct strbuf *text,
                          struct error *e)
{
    const struct arguments *arguments = client->arguments;
    struct json_writer w;
    int64_t since_ms = 0;
    str path, prices;
    if (!arguments_has(arguments, "policy") && !arguments_has(arguments, "prices") &&
        !arguments_has(arguments, "router") && !arguments_has(arguments, "filter"))
        return error_set(e, REASON_USAGE,
                         "nothing to try: give --policy, --prices, --router or --filter");
    json_writer_init(&w, text);
    json_object_begin(&w);
    if (arguments_has(arguments, "since")) {
        if (!read_since(arguments_get(arguments, "since"), &since_ms, e))
            return false;
        json_put_i64(&w, S("since_ms"), since_ms);
    }
    path = arguments_get(arguments, "policy");
    if (!str_is_empty(path) && !put_policy(ctx->arena, &w, path, e))
        return false;
    path = arguments_get(arguments, "prices");
    if (!str_is_empty(path)) {
        if (!run_file_read(ctx->arena, path, &prices, e))
            return false;
        json_put_str(&w, S("prices"), prices);
    }
    path = arguments_get(arguments, "router");
    if (!str_is_empty(path) && !put_section(ctx->arena, &w, "router", path, e))
        return false;
    path = arguments_get(arguments, "filter");
    if (!str_is_empty(path) && !put_section(ctx->arena, &w, "filter", path, e))
        return false;
    json_object_end(&w);
    return !strbuf_is_over(text) ||
           error_set(e, REASON_TOO_LARGE, "what is tried is over %u bytes", BACKTEST_BYTES_MAX);
}

/* ---- what comes back ---- */

static const struct column change_columns[] = {
    {"COUNT", "/count", 7},   {"ACTION", "/action", 12}, {"RESOURCE", "/resource", 20},
    {"USER", "/user_id", 14}, {"CHANGE", "/change", 0},
};
static const struct column day_columns[] = {
    {"DAY", "/day", 11},
    {"CALLS", "/calls", 8},
    {"WAS", "/was_nanousd", 16},
    {"WOULD BE", "/would_be_nanousd", 16},
    {"DIFFERENCE (USD)", "/difference_nanousd", 0},
};
static const struct column model_columns[] = {
    {"MODEL", "/model", 18},
    {"CALLS", "/calls", 8},
    {"WAS", "/was_nanousd", 16},
    {"WOULD BE", "/would_be_nanousd", 16},
    {"DIFFERENCE (USD)", "/difference_nanousd", 0},
};
static const struct column unknown_columns[] = {
    {"CALLS", "/calls", 8}, {"PROVIDER", "/provider", 20}, {"MODEL WITHOUT A PRICE", "/target", 0}};
static const struct column move_columns[] = {
    {"CALLS", "/calls", 8}, {"MODEL", "/model", 18}, {"FROM", "/from", 30}, {"TO", "/to", 0}};
static const struct column rule_columns[] = {
    {"FINDINGS", "/findings", 9}, {"GROUP", "/group", 12}, {"RULE", "/rule", 24},
    {"ACTION", "/action", 8},     {"ROLE", "/role", 0},
};

static void show_table(struct client *client, struct context *ctx, const struct json *items,
                       const struct column *columns, size_t count)
{
    if (json_count(items) > 0)
        output_table(client->cli, ctx->arena, columns, count, items);
}

static void show_count(const struct json *section, const char *member, const char *words)
{
    int64_t count = json_i64_or(section, str_from_cstr(member), 0);
    if (count > 0)
        printf("  %lld %s\n", (long long) count, words);
}

static str amount_of(struct context *ctx, const struct json *object, str name)
{
    return output_amount(ctx->arena, name, json_get(object, name));
}

static void show(struct client *client, struct context *ctx, const struct json *report)
{
    const struct json *policy = json_get(report, S("policy")),
                      *prices = json_get(report, S("prices")),
                      *router = json_get(report, S("router")),
                      *filter = json_get(report, S("filter"));
    printf("since " STR_FMT ": %lld runs, %lld model calls",
           STR_ARG(json_str_or(report, S("since"), STR_NONE)),
           (long long) json_i64_or(report, S("runs"), 0),
           (long long) json_i64_or(report, S("calls"), 0));
    if (filter) /* else nobody counted them */
        printf(", %lld messages", (long long) json_i64_or(report, S("messages"), 0));
    printf("\n");
    if (policy) {
        printf("policy: %lld decisions\n", (long long) json_i64_or(policy, S("decisions"), 0));
        show_count(policy, "same", "the same");
        show_count(policy, "newly_denied", "would now be denied");
        show_count(policy, "newly_allowed", "would now be allowed");
        show_count(policy, "newly_needs_approval", "would now need an approval");
        show_count(policy, "unanswered", "cannot be told: the record does not hold the question");
        show_table(client, ctx, json_get(policy, S("changes")), change_columns,
                   ARRAY_COUNT(change_columns));
    }
    if (prices) {
        printf("prices: %lld calls, " STR_FMT " -> " STR_FMT " USD (" STR_FMT ")\n",
               (long long) json_i64_or(prices, S("priced"), 0),
               STR_ARG(amount_of(ctx, prices, S("was_nanousd"))),
               STR_ARG(amount_of(ctx, prices, S("would_be_nanousd"))),
               STR_ARG(amount_of(ctx, prices, S("difference_nanousd"))));
        show_table(client, ctx, json_get(prices, S("days")), day_columns, ARRAY_COUNT(day_columns));
        show_table(client, ctx, json_get(prices, S("models")), model_columns,
                   ARRAY_COUNT(model_columns));
        show_table(client, ctx, json_get(prices, S("unknown")), unknown_columns,
                   ARRAY_COUNT(unknown_columns));
    }
    if (router) {
        printf("router: %lld calls\n", (long long) json_i64_or(router, S("routed"), 0));
        show_table(client, ctx, json_get(router, S("moves")), move_columns,
                   ARRAY_COUNT(move_columns));
    }
    if (filter) {
        printf("filter: %lld texts\n", (long long) json_i64_or(filter, S("texts"), 0));
        show_count(filter, "blocked", "would be blocked");
        show_count(filter, "masked", "would be masked");
        show_count(filter, "flagged", "would be flagged");
        show_table(client, ctx, json_get(filter, S("rules")), rule_columns,
                   ARRAY_COUNT(rule_columns));
    }
}

/* ---- what was wrong, in the words of whoever has the files ---- */

static bool is_folder(struct arena *arena, str path)
{
    struct stat status;
    return stat(str_to_cstr(arena, path), &status) == 0 && S_ISDIR(status.st_mode);
}

/* The server knows a module by its name, the others by what they are: "b.rego:3:14: ...", "prices:2:1: ...". */
static bool name_file(struct client *client, struct context *ctx, struct error *e)
{
    static const char *const parts[] = {"policy", "prices", "router", "filter"};
    str message = str_copy(ctx->arena, str_from_cstr(e->message)), name, rest;
    if (e->code != ERROR_INVALID || !str_cut(message, ':', &name, &rest))
        return false;
    str policy = arguments_get(client->arguments, "policy");
    if (!str_is_empty(policy) && str_ends_with(name, S(".rego"))) {
        bool is_one = !is_folder(ctx->arena, policy);
        bool has_slash = str_ends_with(policy, S("/"));
        return error_set(e, e->reason, STR_FMT "%s" STR_FMT ":" STR_FMT, STR_ARG(policy),
                         is_one || has_slash ? "" : "/", STR_ARG(is_one ? STR_NONE : name),
                         STR_ARG(rest));
    }
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        str path = arguments_get(client->arguments, parts[i]), where;
        if (str_is_empty(path) || !str_strip_prefix(name, str_from_cstr(parts[i]), &where))
            continue;
        if (!str_is_empty(where)) /* "filter.groups: ..." */
            return error_wrap(e, STR_FMT, STR_ARG(path));
        return error_set(e, e->reason, STR_FMT ":" STR_FMT, STR_ARG(path), STR_ARG(rest));
    }
    return false;
}

static bool backtest(struct client *client, struct context *ctx, struct error *e)
{
    struct strbuf text;
    const struct json *report;
    strbuf_init(&text, ctx->arena, BACKTEST_BYTES_MAX);
    if (!write_request(client, ctx, &text, e))
        return false;
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/backtests"), strbuf_str(&text), &report, e))
        return name_file(client, ctx, e);
    if (client->is_json)
        output_json(ctx->arena, report);
    else
        show(client, ctx, report);
    return true;
}

static const struct option options[] = {
    {"policy", 0, "PATH", false, "a folder of *.rego (and data.json), or one module"},
    {"prices", 0, "FILE", false, "a price list (docs/prices.md)"},
    {"router", 0, "FILE", false, "models with their targets, as in the configuration"},
    {"filter", 0, "FILE", false, "secrets, pii, injection and rules, as in the configuration"},
    {"since", 0, "TIME", false, "how far back: 90m, 24h, 7d, 4w; else 7d"},
};
static const struct command commands[] = {
    {.name = "backtest",
     .operands = "",
     .summary = "What the recorded traffic would have been with another policy, price list, "
                "router or filter",
     .details = "Nothing is changed and nothing is sent.  Needs the role admin.",
     .example = "backtest --policy policies/ --prices prices.yaml --since 7d",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .work = backtest},
};
const struct command_group backtest_commands = {commands, ARRAY_COUNT(commands)};
