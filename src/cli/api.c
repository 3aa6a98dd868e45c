#include "cli/api.h"

#include "base/arena.h"

const struct option page_options[] = {
    {"limit", 'n', "COUNT", false, "how many at most; else 50"},
    {"all", 0, NULL, false, "all of them"},
};

enum { PAGE_ITEMS = 50, PAGE_ITEMS_MAX = 200 };

static str page_path(struct context *ctx, str path, str query, int64_t limit, str cursor)
{
    str text = str_printf(ctx->arena, STR_FMT "?limit=%lld%s" STR_FMT, STR_ARG(path),
                          (long long) limit, str_is_empty(query) ? "" : "&", STR_ARG(query));
    if (str_is_empty(cursor))
        return text;
    return str_printf(ctx->arena, STR_FMT "&cursor=" STR_FMT, STR_ARG(text),
                      STR_ARG(http_percent_encode(ctx->arena, cursor)));
}

bool api_list(struct client *client, struct context *ctx, str path, str query,
              const struct column *columns, size_t column_count, struct error *e)
{
    bool is_all = arguments_has(client->arguments, "all");
    int64_t limit = is_all ? PAGE_ITEMS_MAX : PAGE_ITEMS;
    str cursor = STR_NONE;
    if (!arguments_number(client->arguments, "limit", 1, PAGE_ITEMS_MAX, &limit, e))
        return false;
    do {
        const struct json *page;
        if (!client_call(client, ctx, HTTP_GET, page_path(ctx, path, query, limit, cursor),
                         STR_NONE, &page, e))
            return false;
        cursor = json_str_or(page, S("next_cursor"), STR_NONE);
        if (client->is_json)
            output_json(ctx->arena, page);
        else
            output_table(client->cli, ctx->arena, columns, column_count,
                         json_get(page, S("items")));
    } while (is_all && !str_is_empty(cursor));
    if (!client->is_json && !str_is_empty(cursor))
        printf("(there are more: --all)\n");
    return true;
}

bool api_list_whole(struct client *client, struct context *ctx, str path, str query,
                    const struct column *columns, size_t column_count, struct error *e)
{
    const struct json *page;
    if (!str_is_empty(query))
        path = str_printf(ctx->arena, STR_FMT "?" STR_FMT, STR_ARG(path), STR_ARG(query));
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &page, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, page);
    else
        output_table(client->cli, ctx->arena, columns, column_count, json_get(page, S("items")));
    return true;
}

void api_query_add(struct strbuf *query, str name, str value)
{
    if (!str_is_empty(value))
        strbuf_printf(query, "%s" STR_FMT "=" STR_FMT, query->len ? "&" : "", STR_ARG(name),
                      STR_ARG(http_percent_encode(query->arena, value)));
}

bool api_show(struct client *client, struct context *ctx, enum http_method method, str path,
              str body, struct error *e)
{
    const struct json *answer;
    if (!client_call(client, ctx, method, path, body, &answer, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, answer);
    else
        output_members(ctx->arena, answer);
    return true;
}

bool api_do(struct client *client, struct context *ctx, enum http_method method, str path, str body,
            const char *done, str id, struct error *e)
{
    if (!client_call(client, ctx, method, path, body, NULL, e))
        return false;
    if (client->is_json)
        printf("{\"id\":\"" STR_FMT "\",\"done\":true}\n", STR_ARG(id));
    else
        printf("%s " STR_FMT "\n", done, STR_ARG(id));
    return true;
}

str api_path(struct client *client, struct context *ctx, const char *pattern)
{
    enum { IDS_MAX = 4 };
    str ids[IDS_MAX];
    for (size_t i = 0; i < IDS_MAX; i++)
        ids[i] = arguments_operand(client->arguments, i);
    return client_path(ctx, pattern, ids);
}
