/* nexus key ... */
#include "cli/api.h"

#include "base/arena.h"
#include "base/timefmt.h"

static const struct column key_columns[] = {
    {"ID", "/id", 36},
    {"NAME", "/name", 18},
    {"PREFIX", "/prefix", 14},
    {"USER", "/user_id", 14},
    {"ROLE", "/role", 9},
    {"EXPIRES", "/expires_at", 20},
    {"REVOKED", "/revoked_at", 0},
};

/* ---- limits ---- */

static bool put_number(struct client *client, struct json_writer *w, const char *option,
                       const char *member, struct error *e)
{
    int64_t value = -1;
    if (!arguments_number(client->arguments, option, 0, INT32_MAX, &value, e))
        return false;
    if (value > 0)
        json_put_i64(w, str_from_cstr(member), value);
    else if (value == 0)
        json_put_raw(w, str_from_cstr(member), S("null"));
    return true;
}

static void put_models(struct client *client, struct json_writer *w)
{
    str name;
    if (!arguments_has(client->arguments, "model"))
        return;
    json_key(w, S("models"));
    json_array_begin(w);
    for (size_t i = 0; arguments_nth(client->arguments, "model", i, &name); i++)
        if (!str_equal(name, S("any")))
            json_write_str(w, name);
    json_array_end(w);
}

static bool put_budget(struct client *client, struct json_writer *w, struct error *e)
{
    int64_t tokens = -1;
    str usd = arguments_get(client->arguments, "budget-usd");
    if (!arguments_number(client->arguments, "budget-tokens", 0, INT64_MAX - 1, &tokens, e))
        return false;
    if (tokens < 0 && str_is_empty(usd))
        return true;
    json_key(w, S("budget"));
    json_object_begin(w);
    if (tokens >= 0)
        json_put_i64(w, S("tokens"), tokens);
    if (!str_is_empty(usd))
        json_put_str(w, S("cost_usd"), usd);
    json_object_end(w);
    return true;
}

static bool put_limits(struct client *client, struct json_writer *w, struct error *e)
{
    str priority = arguments_get(client->arguments, "priority");
    put_models(client, w);
    if (str_equal(priority, S("any")))
        json_put_raw(w, S("priority"), S("null"));
    else if (!str_is_empty(priority))
        json_put_str(w, S("priority"), priority);
    return put_number(client, w, "rpm", "requests_per_minute", e) &&
           put_number(client, w, "tpm", "tokens_per_minute", e) &&
           put_number(client, w, "streams", "streams", e) && put_budget(client, w, e);
}

/* ---- commands ---- */

static bool write_expiry(struct client *client, struct context *ctx, struct json_writer *w,
                         struct error *e)
{
    str text = arguments_get(client->arguments, "expires");
    int64_t ms;
    if (str_is_empty(text))
        return true;
    if (!duration_parse(text, &ms) || ms <= 0)
        return error_set(e, REASON_USAGE,
                         "--expires " STR_FMT ": write a duration, as in 12h or 90d",
                         STR_ARG(str_cut_utf8(text, 40)));
    json_put_str(w, S("expires_at"), time_str(ctx->arena, context_now_us(ctx) + ms * 1000));
    return true;
}

/* The key alone on standard output, so that a script can take it. */
static bool show_key(struct client *client, struct context *ctx, const struct json *answer)
{
    if (client->is_json) {
        output_json(ctx->arena, answer);
        return true;
    }
    fprintf(stderr, "Key " STR_FMT "; it is shown this once:\n",
            STR_ARG(json_str_or(answer, S("id"), STR_NONE)));
    printf(STR_FMT "\n", STR_ARG(json_str_or(answer, S("key"), STR_NONE)));
    return true;
}

static bool create(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *answer;
    struct strbuf body;
    struct json_writer w;
    str scope;
    strbuf_init(&body, ctx->arena, 16384);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("name"), arguments_operand(client->arguments, 0));
    if (arguments_has(client->arguments, "user"))
        json_put_str(&w, S("user_id"), arguments_get(client->arguments, "user"));
    if (arguments_has(client->arguments, "role"))
        json_put_str(&w, S("role"), arguments_get(client->arguments, "role"));
    json_key(&w, S("scopes"));
    json_array_begin(&w);
    for (size_t i = 0; arguments_nth(client->arguments, "scope", i, &scope); i++)
        json_write_str(&w, scope);
    json_array_end(&w);
    if (!write_expiry(client, ctx, &w, e) || !put_limits(client, &w, e))
        return false;
    json_object_end(&w);
    return client_call(client, ctx, HTTP_POST, S("/api/v1/keys"), strbuf_str(&body), &answer, e) &&
           show_key(client, ctx, answer);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/keys/{}"), STR_NONE, e);
}

static const struct option update_options[] = {
    {"name", 0, "NAME", false, "what it is called"},
    {"expires", 0, "DURATION", false, "from now: 90d, 12h"},
    {"model", 0, "NAME", true, "may ask for these only; agent:NAME too, * at the end; any: all"},
    {"rpm", 0, "COUNT", false, "requests a minute; 0: no limit of its own"},
    {"tpm", 0, "COUNT", false, "tokens a minute; 0: no limit of its own"},
    {"streams", 0, "COUNT", false, "streams open at once; 0: the server's number"},
    {"priority", 0, "batch|normal|interactive|any", false, "the most urgent it may ask for"},
    {"budget-usd", 0, "AMOUNT", false, "what the key may spend in all"},
    {"budget-tokens", 0, "COUNT", false, "tokens it may use in all"},
};

static bool update(struct client *client, struct context *ctx, struct error *e)
{
    struct strbuf body;
    struct json_writer w;
    bool has_change = false;
    for (size_t i = 0; i < ARRAY_COUNT(update_options); i++)
        has_change = has_change || arguments_has(client->arguments, update_options[i].name);
    if (!has_change)
        return error_set(e, REASON_USAGE,
                         "what is to change? --name, --expires, --model, --rpm, --tpm, --streams, "
                         "--priority, --budget-usd, --budget-tokens");
    strbuf_init(&body, ctx->arena, 16384);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    if (arguments_has(client->arguments, "name"))
        json_put_str(&w, S("name"), arguments_get(client->arguments, "name"));
    if (!write_expiry(client, ctx, &w, e) || !put_limits(client, &w, e))
        return false;
    json_object_end(&w);
    return api_show(client, ctx, HTTP_PATCH, api_path(client, ctx, "/api/v1/keys/{}"),
                    strbuf_str(&body), e);
}

static bool rotate(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *answer;
    int64_t overlap_ms = 0;
    str text = arguments_get(client->arguments, "overlap");
    if (!str_is_empty(text) && !duration_parse(text, &overlap_ms))
        return error_set(e, REASON_USAGE, "--overlap " STR_FMT ": write a duration, as in 1h",
                         STR_ARG(str_cut_utf8(text, 40)));
    str body = str_printf(ctx->arena, "{\"overlap_seconds\":%lld}", (long long) overlap_ms / 1000);
    return client_call(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/keys/{}/rotate"),
                       body, &answer, e) &&
           show_key(client, ctx, answer);
}

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    return api_list(client, ctx, S("/api/v1/keys"), STR_NONE, key_columns, ARRAY_COUNT(key_columns),
                    e);
}

static bool revoke(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE, api_path(client, ctx, "/api/v1/keys/{}"), STR_NONE,
                  "revoked", arguments_operand(client->arguments, 0), e);
}

static const struct option create_options[] = {
    {"user", 0, "ID", false, "whose key it is; else your own"},
    {"role", 0, "admin|operator|user|viewer", false, "at most your own"},
    {"scope", 0, "platform|act_as|approve", true, "only those you have"},
    {"expires", 0, "DURATION", false, "90d, 12h; else never"},
    {"model", 0, "NAME", true, "may ask for these only; agent:NAME too, * at the end; any: all"},
    {"rpm", 0, "COUNT", false, "requests a minute; 0: no limit of its own"},
    {"tpm", 0, "COUNT", false, "tokens a minute; 0: no limit of its own"},
    {"streams", 0, "COUNT", false, "streams open at once"},
    {"priority", 0, "batch|normal|interactive", false, "the most urgent it may ask for"},
    {"budget-usd", 0, "AMOUNT", false, "what the key may spend in all, as in 5 or 0.50"},
    {"budget-tokens", 0, "COUNT", false, "tokens it may use in all"},
};
static const struct option rotate_options[] = {
    {"overlap", 0, "DURATION", false,
     "the old text stays good that long, at most 7d; else it ends now"},
};
static const struct command commands[] = {
    {.name = "key create",
     .operands = "NAME",
     .summary = "Make an API key; it is shown once",
     .example = "key create laptop --user ada --role user --expires 90d --model fast --rpm 60 "
                "--budget-usd 5",
     .options = create_options,
     .option_count = ARRAY_COUNT(create_options),
     .work = create},
    {.name = "key list",
     .operands = "",
     .summary = "API keys, without the keys themselves",
     .example = "key list",
     .options = page_options,
     .option_count = PAGE_OPTION_COUNT,
     .work = list},
    {.name = "key show",
     .operands = "KEY",
     .summary = "One key with its limits",
     .example = "key show 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .work = show},
    {.name = "key update",
     .operands = "KEY",
     .summary = "Change a key's name, end, limits or budget; what is not named stays",
     .example = "key update 01a206dd-432e-765f-bd23-516cfbe0aed5 --rpm 120 --model fast",
     .options = update_options,
     .option_count = ARRAY_COUNT(update_options),
     .work = update},
    {.name = "key rotate",
     .operands = "KEY",
     .summary = "A new text for the same key; it is shown once",
     .example = "key rotate 01a206dd-432e-765f-bd23-516cfbe0aed5 --overlap 1h",
     .options = rotate_options,
     .option_count = ARRAY_COUNT(rotate_options),
     .work = rotate},
    {.name = "key revoke",
     .operands = "KEY",
     .summary = "End a key; its open streams end within seconds",
     .example = "key revoke 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .work = revoke},
};
const struct command_group key_commands = {commands, ARRAY_COUNT(commands)};
