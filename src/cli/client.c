#include "cli/client.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/json.h"
#include "base/limits.h"
#include "base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    ANSWER_BYTES_MAX = 64 << 20,
    PROBLEM_BYTES_MAX = 64 << 10,
    KEY_FILE_BYTES_MAX = 256,
    PATH_BYTES_MAX = 16384
};

const struct option client_options[] = {
    {"server", 's', "URL", false, "the server; else $NEXUS_SERVER, else http://127.0.0.1:8080"},
    {"key", 'k', "KEY", false,
     "API key; better in $NEXUS_API_KEY, where other users do not see it"},
    {"data", 'd', "DIR", false, "data folder of a server on this machine: its admin.key is used"},
    {"json", 'j', NULL, false, "JSON instead of text"},
};
const size_t client_option_count = ARRAY_COUNT(client_options);

/* ---- where, and as whom ---- */

str client_server_named(const struct arguments *arguments)
{
    str server = arguments_get(arguments, "server");
    return str_is_empty(server) ? str_from_cstr(getenv("NEXUS_SERVER")) : server;
}

bool client_read_key_file(struct arena *arena, str path, str *out, struct error *e)
{
    char text[KEY_FILE_BYTES_MAX];
    int fd = open(str_to_cstr(arena, path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(e, REASON_USAGE, "key file " STR_FMT ": %s; give a key by NEXUS_API_KEY",
                         STR_ARG(path), strerrordesc_np(errno));
    ssize_t len = read(fd, text, sizeof text);
    close(fd);
    *out = str_copy(arena, str_trim(str_of(text, len > 0 ? (size_t) len : 0)));
    explicit_bzero(text, sizeof text);
    if (str_is_empty(*out))
        return error_set(e, REASON_USAGE, "key file " STR_FMT " is empty", STR_ARG(path));
    return true;
}

str client_key_given(const struct arguments *arguments)
{
    str key = arguments_get(arguments, "key");
    return str_is_empty(key) ? str_trim(str_from_cstr(getenv("NEXUS_API_KEY"))) : key;
}

bool client_find_key(struct arena *arena, const struct arguments *arguments, str *out,
                     struct error *e)
{
    str data = arguments_get(arguments, "data");
    *out = client_key_given(arguments);
    if (!str_is_empty(*out) || str_is_empty(data))
        return true;
    return client_read_key_file(arena, str_printf(arena, STR_FMT "/admin.key", STR_ARG(data)), out,
                                e);
}

/* ---- requests ---- */

/* The reason that the server meant, by the name at the end of the problem's type. */
static bool problem_error(struct context *ctx, struct http_exchange *exchange, struct error *e)
{
    int status = http_exchange_status(exchange);
    const struct json *problem = NULL;
    enum error_reason reason = status == 401   ? REASON_UNAUTHENTICATED
                               : status == 403 ? REASON_DENIED
                               : status == 404 ? REASON_NOT_FOUND
                               : status < 500  ? REASON_INVALID
                                               : REASON_UNAVAILABLE;
    struct error ignored;
    str body = STR_NONE;
    if (http_exchange_read_all(exchange, ctx, PROBLEM_BYTES_MAX, &body, &ignored) &&
        !json_parse(ctx->arena, body, (struct json_limits){0}, &problem, &ignored))
        problem = NULL;
    str type = json_str_or(problem, S("type"), STR_NONE),
        detail = json_str_or(problem, S("detail"), STR_NONE), head;
    while (str_cut(type, '/', &head, &type))
        continue;
    if (str_is_empty(type))
        type = head;
    (void) error_reason_find(type, &reason);
    if (str_is_empty(detail))
        return error_set(e, reason, "the server answered %d %s", status, http_status_text(status));
    const char *hint = reason == REASON_UNAUTHENTICATED
                           ? " (give a key by NEXUS_API_KEY, or --data DIR for a local admin.key)"
                           : "";
    return error_set(e, reason, STR_FMT "%s", STR_ARG(detail), hint);
}

static void add_headers(const struct client *client, struct context *ctx,
                        const struct client_request *request, struct http_headers *headers)
{
    if (client->key)
        http_headers_add(
            headers, ctx->arena, S("Authorization"),
            str_printf(ctx->arena, "Bearer " STR_FMT, STR_ARG(secret_reveal(client->key))));
    http_headers_add(headers, ctx->arena, S("Accept"),
                     str_is_empty(request->accept) ? S("application/json") : request->accept);
    http_headers_add(headers, ctx->arena, S("User-Agent"), S("nexus-cli"));
    if (!str_is_empty(request->body) || !str_is_empty(request->content_type))
        http_headers_add(headers, ctx->arena, S("Content-Type"),
                         str_is_empty(request->content_type) ? S("application/json")
                                                             : request->content_type);
    if (!str_is_empty(request->last_event_id))
        http_headers_add(headers, ctx->arena, S("Last-Event-ID"), request->last_event_id);
}

bool client_send(struct client *client, struct context *ctx, const struct client_request *request,
                 struct http_exchange **out, struct error *e)
{
    struct http_headers headers = {0};
    OWNED(http_exchange) exchange = NULL;
    struct http_client_request sent = {
        .method = request->method, .url = client->base, .headers = &headers, .body = request->body};
    sent.url.path_query = request->path;
    add_headers(client, ctx, request, &headers);
    if (!http_client_send(client->http, ctx, &sent, &exchange, e))
        return error_wrap(e, "server " STR_FMT, STR_ARG(client->base_url));
    if (http_exchange_status(exchange) >= 400)
        return problem_error(ctx, exchange, e);
    *out = GIVE(exchange);
    return true;
}

bool client_call(struct client *client, struct context *ctx, enum http_method method, str path,
                 str body, const struct json **out, struct error *e)
{
    OWNED(http_exchange) exchange = NULL;
    struct client_request request = {.method = method, .path = path, .body = body};
    str answer;
    if (out)
        *out = NULL;
    if (!client_send(client, ctx, &request, &exchange, e) ||
        !http_exchange_read_all(exchange, ctx, ANSWER_BYTES_MAX, &answer, e))
        return false;
    if (!out || str_is_empty(answer))
        return true;
    return json_parse(ctx->arena, answer,
                      (struct json_limits){.bytes_max = ANSWER_BYTES_MAX, .allow_duplicates = true},
                      out, e) ||
           error_wrap(e, "the answer of " STR_FMT, STR_ARG(path));
}

/* ---- life ---- */

static bool make_http(struct context *ctx, void *argument, struct error *e)
{
    (void) ctx;
    struct client *client = argument;
    return http_client_create(client->loop, NULL, &client->http, e);
}

bool client_open(struct client *client, struct cli *cli, const struct arguments *arguments,
                 str server, str key, struct error *e)
{
    *client = (struct client){
        .cli = cli, .arguments = arguments, .is_json = arguments_has(arguments, "json")};
    while (server.len > 0 && server.ptr[server.len - 1] == '/')
        server.len--;
    client->base_url = server;
    if (!http_url_parse(server, &client->base, e))
        return error_wrap(e, "server \"" STR_FMT "\"", STR_ARG(str_cut_utf8(server, 100)));
    if (!str_equal(client->base.path_query, S("/")))
        return error_set(e, REASON_USAGE, "server \"" STR_FMT "\": write no path behind the port",
                         STR_ARG(str_cut_utf8(server, 100)));
    if (!str_is_empty(key) && !http_header_is_safe(S("Authorization"), key))
        return error_set(e, REASON_USAGE, "the key has characters that no key has");
    client->loop = loop_create(clock_system(), random_system(), e);
    if (!client->loop)
        return false;
    if (!loop_start_thread(client->loop, "nexus-cli", e)) {
        loop_destroy(client->loop);
        return false;
    }
    client->key = str_is_empty(key) ? NULL : secret_create(key);
    if (on_loop_call(client->loop, "client", 0, make_http, client, e))
        return true;
    client_close(client);
    return false;
}

static bool drop_http(struct context *ctx, void *argument, struct error *e)
{
    (void) ctx;
    (void) e;
    http_client_destroy(argument);
    return true;
}

void client_close(struct client *client)
{
    struct on_loop job;
    on_loop_begin(&job, client->loop, "client", 0, drop_http, client->http);
    on_loop_join(&job);
    loop_stop(client->loop);
    loop_join_thread(client->loop);
    loop_destroy(client->loop);
    secret_destroy(client->key);
}

str client_path(struct context *ctx, const char *pattern, const str *ids)
{
    struct strbuf path;
    str rest = str_from_cstr(pattern);
    size_t at;
    strbuf_init(&path, ctx->arena, PATH_BYTES_MAX);
    while ((at = str_find(rest, S("{}"))) != STR_NOT_FOUND) {
        strbuf_add(&path, str_slice(rest, 0, at));
        strbuf_add(&path, http_percent_encode(ctx->arena, *ids++));
        rest = str_from(rest, at + 2);
    }
    strbuf_add(&path, rest);
    return strbuf_str(&path);
}

struct client_work {
    struct client *client;
    client_fn *fn;
};

static bool do_work(struct context *ctx, void *argument, struct error *e)
{
    struct client_work *work = argument;
    return work->fn(work->client, ctx, e);
}

int client_main(struct cli *cli, const char *command, const struct arguments *arguments,
                client_fn *fn)
{
    struct error e = {0};
    struct client client;
    str server = client_server_named(arguments), key;
    if (!client_find_key(cli->arena, arguments, &key, &e) ||
        !client_open(&client, cli, arguments, str_is_empty(server) ? CLIENT_SERVER_DEFAULT : server,
                     key, &e))
        return command_fail(cli, command, &e);
    struct client_work work = {&client, fn};
    bool is_ok = on_loop_call(client.loop, command, 0, do_work, &work, &e);
    int exit_code = client.exit_code;
    client_close(&client);
    blocking_pool_stop();
    fflush(stdout);
    return is_ok ? exit_code : command_fail(cli, command, &e);
}
