/* nexus memory ... */
#include "cli/api.h"

#include "base/arena.h"

static const struct column result_columns[] = {
    {"SCORE", "/score", 6},     {"ID", "/id", 36},          {"TYPE", "/content_type", 11},
    {"TIME", "/timestamp", 27}, {"CONTENT", "/content", 0},
};

enum { BODY_BYTES_MAX = 1 << 20 };

static struct json_writer *body_begin(struct client *client, struct context *ctx,
                                      struct strbuf *body, struct json_writer *w)
{
    strbuf_init(body, ctx->arena, BODY_BYTES_MAX);
    json_writer_init(w, body);
    json_object_begin(w);
    if (arguments_has(client->arguments, "session"))
        json_put_str(w, S("session_id"), arguments_get(client->arguments, "session"));
    return w;
}

/* Its own text, or what another command brings along. */
static bool put_metadata(struct client *client, struct context *ctx, struct json_writer *w,
                         struct error *e)
{
    const struct json *metadata;
    str text = arguments_get(client->arguments, "metadata");
    if (str_is_empty(text))
        return true;
    if (!json_parse(ctx->arena, text, (struct json_limits){0}, &metadata, e))
        return error_wrap(e, "--metadata");
    json_put_value(w, S("metadata"), metadata);
    return true;
}

static bool store(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *memory;
    struct strbuf body;
    struct json_writer w;
    body_begin(client, ctx, &body, &w);
    json_put_str(&w, S("content"), arguments_operand(client->arguments, 0));
    if (arguments_has(client->arguments, "type"))
        json_put_str(&w, S("content_type"), arguments_get(client->arguments, "type"));
    if (!put_metadata(client, ctx, &w, e))
        return false;
    json_object_end(&w);
    if (strbuf_is_over(&body))
        return error_set(e, REASON_USAGE, "the text is over %d bytes", BODY_BYTES_MAX);
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/memory"), strbuf_str(&body), &memory, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, memory);
    else
        printf(STR_FMT "\n", STR_ARG(json_str_or(memory, S("id"), STR_NONE)));
    return true;
}

static void print_answer(struct client *client, struct context *ctx, const struct json *answer)
{
    str note = json_str_or(json_get(answer, S("embedder")), S("note"), STR_NONE);
    output_table(client->cli, ctx->arena, result_columns, ARRAY_COUNT(result_columns),
                 json_get(answer, S("results")));
    if (!str_is_empty(note))
        fprintf(stderr, "note: " STR_FMT "\n", STR_ARG(note));
}

static bool search(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *answer;
    struct strbuf body;
    struct json_writer w;
    int64_t limit = 0;
    if (!arguments_number(client->arguments, "limit", 1, 100, &limit, e))
        return false;
    body_begin(client, ctx, &body, &w);
    json_put_str(&w, S("query"), arguments_operand(client->arguments, 0));
    if (arguments_has(client->arguments, "user"))
        json_put_str(&w, S("user_id"), arguments_get(client->arguments, "user"));
    if (limit > 0)
        json_put_i64(&w, S("limit"), limit);
    json_object_end(&w);
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/memory/search"), strbuf_str(&body), &answer,
                     e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, answer);
    else
        print_answer(client, ctx, answer);
    return true;
}

static bool forget(struct client *client, struct context *ctx, struct error *e)
{
    bool is_session = arguments_has(client->arguments, "session");
    bool has_id = client->arguments->operand_count > 0;
    if (is_session == has_id)
        return error_set(e, REASON_USAGE, "name one: the ID of a memory, or --session ID");
    str id = is_session ? arguments_get(client->arguments, "session")
                        : arguments_operand(client->arguments, 0);
    str path =
        client_path(ctx, is_session ? "/api/v1/sessions/{}/memory" : "/api/v1/memory/{}", &id);
    return api_do(client, ctx, HTTP_DELETE, path, STR_NONE, "forgotten", id, e);
}

static const struct option store_options[] = {
    {"session", 0, "ID", false, "the session it belongs to; none: the user's, over all sessions"},
    {"type", 0, "message|tool_result|summary", false, "what it is; else message"},
    {"metadata", 0, "JSON", false, "an object to keep beside it"},
};
static const struct option search_options[] = {
    {"session", 0, "ID", false, "only what this session holds"},
    {"user", 0, "ID", false, "another user's memory; needs the role operator"},
    {"limit", 0, "COUNT", false, "results, 10 unless told"},
};
static const struct option forget_options[] = {
    {"session", 0, "ID", false, "everything of this session"},
};
static const struct command commands[] = {
    {.name = "memory store",
     .operands = "TEXT",
     .summary = "Keep a text, to be found by meaning",
     .example = "memory store \"The invoice goes to the Lyon office.\"",
     .options = store_options,
     .option_count = ARRAY_COUNT(store_options),
     .work = store},
    {.name = "memory search",
     .operands = "QUERY",
     .summary = "What is kept that is nearest to a text",
     .example = "memory search \"where do invoices go?\" --limit 3",
     .options = search_options,
     .option_count = ARRAY_COUNT(search_options),
     .work = search},
    {.name = "memory forget",
     .operands = "[ID]",
     .summary = "Forget one memory, or all of a session",
     .example = "memory forget --session 0197c2a4-8f4e-7c1b-9d3a-2f6b8e5d7a10",
     .options = forget_options,
     .option_count = ARRAY_COUNT(forget_options),
     .work = forget},
};
const struct command_group memory_commands = {commands, ARRAY_COUNT(commands)};
