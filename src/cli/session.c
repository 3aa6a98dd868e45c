/* nexus session ... */
#include "cli/api.h"
#include "cli/tool/upload.h"

#include "base/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static const struct column session_columns[] = {
    {"ID", "/id", 36},        {"STATUS", "/status", 8},      {"AGENT", "/agent", 16},
    {"USER", "/user_id", 16}, {"CREATED", "/created_at", 0},
};
static const struct column message_columns[] = {
    {"TIME", "/created_at", 27},
    {"ROLE", "/role", 9},
    {"TOKENS", "/tokens", 7},
    {"CONTENT", "/content", 0},
};
static const struct column file_columns[] = {
    {"NAME", "/name", 32},      {"BYTES", "/bytes", 12},       {"TYPE", "/content_type", 24},
    {"SHA-256", "/sha256", 16}, {"CREATED", "/created_at", 0},
};

/* ---- create ---- */

static bool write_budget(const struct arguments *arguments, struct json_writer *w, struct error *e)
{
    static const struct {
        const char *option, *member;
    } amounts[] = {
        {"tokens", "tokens"}, {"time-seconds", "time_seconds"}, {"tool-calls", "tool_calls"}};
    json_key(w, S("budget"));
    json_object_begin(w);
    for (size_t i = 0; i < ARRAY_COUNT(amounts); i++) {
        int64_t value = -1;
        if (!arguments_number(arguments, amounts[i].option, 0, INT64_MAX / 1000 - 1, &value, e))
            return false;
        if (value >= 0)
            json_put_i64(w, str_from_cstr(amounts[i].member), value);
    }
    if (arguments_has(arguments, "cost-usd"))
        json_put_str(w, S("cost_usd"), arguments_get(arguments, "cost-usd"));
    json_object_end(w);
    return true;
}

static bool create(struct client *client, struct context *ctx, struct error *e)
{
    const struct arguments *arguments = client->arguments;
    const struct json *session;
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, ctx->arena, 64u << 10);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    if (arguments_has(arguments, "agent"))
        json_put_str(&w, S("agent"), arguments_get(arguments, "agent"));
    if (arguments_has(arguments, "user"))
        json_put_str(&w, S("user_id"), arguments_get(arguments, "user"));
    if (arguments_has(arguments, "double-text"))
        json_put_str(&w, S("double_text"), arguments_get(arguments, "double-text"));
    if (!write_budget(arguments, &w, e))
        return false;
    json_object_end(&w);
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/sessions"), strbuf_str(&body), &session, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, session);
    else
        printf(STR_FMT "\n", STR_ARG(json_str_or(session, S("id"), STR_NONE)));
    return true;
}

/* ---- the others ---- */

static bool list(struct client *client, struct context *ctx, struct error *e)
{
    struct strbuf query;
    strbuf_init(&query, ctx->arena, 4096);
    api_query_add(&query, S("status"), arguments_get(client->arguments, "status"));
    return api_list(client, ctx, S("/api/v1/sessions"), strbuf_str(&query), session_columns,
                    ARRAY_COUNT(session_columns), e);
}

static bool show(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_GET, api_path(client, ctx, "/api/v1/sessions/{}"), STR_NONE,
                    e);
}

static bool close_session(struct client *client, struct context *ctx, struct error *e)
{
    return api_do(client, ctx, HTTP_DELETE, api_path(client, ctx, "/api/v1/sessions/{}"), STR_NONE,
                  "closed", arguments_operand(client->arguments, 0), e);
}

static bool messages(struct client *client, struct context *ctx, struct error *e)
{
    str view = arguments_has(client->arguments, "context") ? S("view=context") : STR_NONE;
    return api_list(client, ctx, api_path(client, ctx, "/api/v1/sessions/{}/messages"), view,
                    message_columns, ARRAY_COUNT(message_columns), e);
}

static bool pause_session(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/sessions/{}/pause"),
                    STR_NONE, e);
}

static bool resume_session(struct client *client, struct context *ctx, struct error *e)
{
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/sessions/{}/resume"),
                    STR_NONE, e);
}

/* A session that was made: its id, as create prints it. */
static bool print_made(struct client *client, struct context *ctx, str path, str body,
                       struct error *e)
{
    const struct json *session;
    if (!client_call(client, ctx, HTTP_POST, path, body, &session, e))
        return false;
    if (client->is_json)
        output_json(ctx->arena, session);
    else
        printf(STR_FMT "\n", STR_ARG(json_str_or(session, S("id"), STR_NONE)));
    return true;
}

static bool clone_session(struct client *client, struct context *ctx, struct error *e)
{
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, ctx->arena, 1024);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    if (arguments_has(client->arguments, "at-message"))
        json_put_str(&w, S("at_message"), arguments_get(client->arguments, "at-message"));
    json_object_end(&w);
    return print_made(client, ctx, api_path(client, ctx, "/api/v1/sessions/{}/clone"),
                      strbuf_str(&body), e);
}

static bool read_document(struct context *ctx, str path, str *out, struct error *e)
{
    struct strbuf text;
    char buffer[1024];
    ssize_t count;
    int fd = str_equal(path, S("-")) ? STDIN_FILENO
                                     : open(str_to_cstr(ctx->arena, path), O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_set(e, REASON_USAGE, "file " STR_FMT ": %s", STR_ARG(path),
                         strerrordesc_np(errno));
    strbuf_init(&text, ctx->arena, SESSION_DOCUMENT_BYTES_MAX);
    while ((count = read(fd, buffer, sizeof buffer)) > 0 && !strbuf_is_over(&text))
        strbuf_add(&text, str_of(buffer, (size_t) count));
    if (fd != STDIN_FILENO)
        close(fd);
    *out = strbuf_str(&text);
    return (count == 0 && !strbuf_is_over(&text)) ||
           error_set(e, REASON_USAGE, "file " STR_FMT " cannot be read, or is over %u bytes",
                     STR_ARG(path), SESSION_DOCUMENT_BYTES_MAX);
}

static bool import_session(struct client *client, struct context *ctx, struct error *e)
{
    str document, path = arguments_operand(client->arguments, 0);
    if (!read_document(ctx, path, &document, e))
        return false;
    return print_made(client, ctx, S("/api/v1/sessions/import"), document, e) ||
           (e->code == ERROR_INVALID && error_wrap(e, STR_FMT, STR_ARG(str_cut_utf8(path, 200))));
}

static bool files_list(struct client *client, struct context *ctx, struct error *e)
{
    return api_list_whole(client, ctx, api_path(client, ctx, "/api/v1/sessions/{}/files"), STR_NONE,
                          file_columns, ARRAY_COUNT(file_columns), e);
}

static bool files_put(struct client *client, struct context *ctx, struct error *e)
{
    for (size_t i = 1; i < client->arguments->operand_count; i++) {
        const struct json *file;
        if (!upload_file(client, ctx, arguments_operand(client->arguments, 0), STR_NONE,
                         arguments_operand(client->arguments, i), &file, e))
            return false;
        if (client->is_json)
            output_json(ctx->arena, file);
        else
            printf("stored " STR_FMT "\n", STR_ARG(json_str_or(file, S("name"), STR_NONE)));
    }
    return true;
}

static bool write_all(int fd, str bytes)
{
    while (bytes.len > 0) {
        ssize_t written = write(fd, bytes.ptr, bytes.len);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes = str_from(bytes, (size_t) written);
    }
    return true;
}

/* A body as it is, to --output or the standard output. */
static bool fetch(struct client *client, struct context *ctx, const char *pattern, struct error *e)
{
    OWNED(http_exchange) exchange = NULL;
    str path = arguments_get(client->arguments, "output"), piece;
    struct client_request request = {
        .method = HTTP_GET, .path = api_path(client, ctx, pattern), .accept = S("*/*")};
    if (!client_send(client, ctx, &request, &exchange, e))
        return false;
    int fd = str_is_empty(path) ? STDOUT_FILENO
                                : open(str_to_cstr(ctx->arena, path),
                                       O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return error_set(e, REASON_USAGE, "file " STR_FMT ": %s", STR_ARG(path),
                         strerrordesc_np(errno));
    bool is_read, is_written = true;
    while ((is_read = http_exchange_read(exchange, ctx, &piece, e)) && !str_is_empty(piece) &&
           is_written)
        is_written = write_all(fd, piece);
    if (fd != STDOUT_FILENO && close(fd) != 0)
        is_written = false;
    if (!is_written && errno == EPIPE)
        return true; /* who reads has seen enough */
    return is_read && (is_written || error_set(e, REASON_UNAVAILABLE, "writing failed: %s",
                                               strerrordesc_np(errno)));
}

static bool files_get(struct client *client, struct context *ctx, struct error *e)
{
    return fetch(client, ctx, "/api/v1/sessions/{}/files/{}", e);
}

static bool export_session(struct client *client, struct context *ctx, struct error *e)
{
    return fetch(client, ctx, "/api/v1/sessions/{}/export", e);
}

/* ---- rows ---- */

static const struct option create_options[] = {
    {"agent", 'a', "NAME", false, "which agent; else the built-in assistant"},
    {"user", 0, "ID", false, "for whom; another user than oneself needs the scope act_as"},
    {"tokens", 0, "COUNT", false, "budget: only lowers the ceiling that is configured"},
    {"time-seconds", 0, "COUNT", false, "budget: running time"},
    {"cost-usd", 0, "AMOUNT", false, "budget: money, as in 0.25"},
    {"tool-calls", 0, "COUNT", false, "budget: calls of tools"},
    {"double-text", 0, "reject|enqueue|interrupt|steer", false,
     "what a message does while a run is live"},
};
static const struct option list_options[] = {
    {"status", 0, "active|paused|closed|expired", false, "of this state only"},
    {"limit", 'n', "COUNT", false, "how many at most; else 50"},
    {"all", 0, NULL, false, "all of them"},
};
static const struct option clone_options[] = {
    {"at-message", 0, "ID", false, "the last message that is taken along; else all are"}};
static const struct option message_options[] = {
    {"limit", 0, "COUNT", false, "rows of one page"},
    {"all", 0, NULL, false, "every page"},
    {"context", 0, NULL, false, "only those a model would be given now"},
};
static const struct option get_options[] = {
    {"output", 'o', "PATH", false, "where to write it; else the standard output"}};

static const struct command commands[] = {
    {.name = "session create",
     .operands = "",
     .summary = "Open a session; prints its id",
     .example = "session create --tokens 50000",
     .options = create_options,
     .option_count = ARRAY_COUNT(create_options),
     .work = create},
    {.name = "session list",
     .operands = "",
     .summary = "Sessions, newest first",
     .example = "session list --status active --limit 10",
     .options = list_options,
     .option_count = ARRAY_COUNT(list_options),
     .work = list},
    {.name = "session show",
     .operands = "SESSION",
     .summary = "One session",
     .example = "session show 01a206dd-42e0-7e22-b13d-739c495c5018",
     .work = show},
    {.name = "session close",
     .operands = "SESSION",
     .summary = "Close a session: no more messages",
     .example = "session close 01a206dd-42e0-7e22-b13d-739c495c5018",
     .work = close_session},
    {.name = "session messages",
     .operands = "SESSION",
     .summary = "Messages of a session, oldest first",
     .example = "session messages 01a206dd-42e0-7e22-b13d-739c495c5018 --all",
     .options = message_options,
     .option_count = ARRAY_COUNT(message_options),
     .work = messages},
    {.name = "session pause",
     .operands = "SESSION",
     .summary = "Pause a session: its live run stops before its next step",
     .example = "session pause 01a206dd-42e0-7e22-b13d-739c495c5018",
     .work = pause_session},
    {.name = "session resume",
     .operands = "SESSION",
     .summary = "Go on with a paused session",
     .example = "session resume 01a206dd-42e0-7e22-b13d-739c495c5018",
     .work = resume_session},
    {.name = "session clone",
     .operands = "SESSION",
     .summary = "A new session with the same history; prints its id",
     .example = "session clone 01a206dd-42e0-7e22-b13d-739c495c5018",
     .options = clone_options,
     .option_count = ARRAY_COUNT(clone_options),
     .work = clone_session},
    {.name = "session export",
     .operands = "SESSION",
     .summary = "A session as one JSON document",
     .example = "session export 01a206dd-42e0-7e22-b13d-739c495c5018 --output session.json",
     .options = get_options,
     .option_count = ARRAY_COUNT(get_options),
     .work = export_session},
    {.name = "session import",
     .operands = "PATH",
     .summary = "A session from such a document (- for standard input); prints its id",
     .example = "session import session.json",
     .work = import_session},
    {.name = "session files list",
     .operands = "SESSION",
     .summary = "Files of a session",
     .example = "session files list 01a206dd-42e0-7e22-b13d-739c495c5018",
     .work = files_list},
    {.name = "session files put",
     .operands = "SESSION PATH...",
     .summary = "Store files in a session, by their names",
     .example = "session files put 01a206dd-42e0-7e22-b13d-739c495c5018 sales.csv",
     .work = files_put},
    {.name = "session files get",
     .operands = "SESSION NAME",
     .summary = "A file's bytes",
     .example =
         "session files get 01a206dd-42e0-7e22-b13d-739c495c5018 sales.csv --output copy.csv",
     .options = get_options,
     .option_count = ARRAY_COUNT(get_options),
     .work = files_get},
};
const struct command_group session_commands = {commands, ARRAY_COUNT(commands)};
