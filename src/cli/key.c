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
    if (!write_expiry(client, ctx, &w, e))
        return false;
    json_object_end(&w);
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/keys"), strbuf_str(&body), &answer, e))
        return false;
    if (client->is_json) {
        output_json(ctx->arena, answer);
        return true;
    }
    fprintf(stderr, "Key " STR_FMT "; it is shown this once:\n",
            STR_ARG(json_str_or(answer, S("id"), STR_NONE)));
    printf(STR_FMT "\n", STR_ARG(json_str_or(answer, S("key"), STR_NONE)));
    return true;
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
    {"role", 0, "ROLE", false, "admin, operator, user, viewer; at most your own"},
    {"scope", 0, "SCOPE", true, "platform, act_as, approve; only those you have"},
    {"expires", 0, "DURATION", false, "90d, 12h; else never"},
};
static const struct command commands[] = {
    {.name = "key create",
     .operands = "NAME",
     .summary = "Make an API key; it is shown once",
     .example = "key create laptop --user ada --role user --expires 90d",
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
    {.name = "key revoke",
     .operands = "KEY",
     .summary = "End a key; its open streams end within seconds",
     .example = "key revoke 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .work = revoke},
};
const struct command_group key_commands = {commands, ARRAY_COUNT(commands)};
