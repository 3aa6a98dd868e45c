#include "gateway/gateway_testkit.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "gateway/keys_internal.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static void no_log(void *context, enum log_level level, str line)
{
    (void) context, (void) level, (void) line;
}

static bool is_ready(void *owner, struct error *e)
{
    struct gateway_testkit *kit = owner;
    return kit->is_ready || error_set(e, REASON_UNAVAILABLE, "the test is not ready");
}

static void check(bool ok, const struct error *e)
{
    if (!ok)
        fail_msg("%s", e->message);
}

static str issue(struct context *ctx, struct gateway_testkit *kit, const char *user,
                 const char *role)
{
    struct error e = {0};
    struct principal admin = {0};
    struct record *row = ARENA_NEW(kit->base->arena, struct record);
    str key;
    check(keys_authenticate(kit->keys, ctx, kit->admin_key, &admin, &e), &e);
    struct key_request request = {
        .name = S("test"), .user_id = str_from_cstr(user), .role = str_from_cstr(role)};
    check(keys_issue(kit->keys, ctx, &admin, &request, &key, row, &e), &e);
    return str_copy(kit->base->arena, key);
}

static void make_keys(struct context *ctx, struct gateway_testkit *kit)
{
    struct error e = {0};
    char path[96], text[KEY_BYTES_MAX];
    size_t len;
    bool created;
    snprintf(path, sizeof path, "%s/admin.key", kit->dir);
    check(keys_bootstrap(kit->keys, ctx, str_from_cstr(path), &created, &e), &e);
    assert_true(created);
    check(keys_read_secret_file(path, text, sizeof text, &len, &e), &e);
    kit->admin_key = str_copy(kit->base->arena, str_trim(str_of(text, len)));
    kit->user_key = issue(ctx, kit, "alice", "user");
    kit->other_key = issue(ctx, kit, "bob", "user");
    kit->viewer_key = issue(ctx, kit, "eve", "viewer");
    unlink(path);
}

static void open_keys(struct gateway_testkit *kit)
{
    struct error e = {0};
    char pepper[96];
    snprintf(pepper, sizeof pepper, "%s/keys.pepper", kit->dir);
    struct keys_options options = {.store = kit->base->store,
                                   .clock = kit->base->clock,
                                   .random = kit->base->random,
                                   .pepper_path = str_from_cstr(pepper),
                                   .may_create_pepper = true};
    check(keys_create(&options, &kit->keys, &e), &e);
    unlink(pepper);
}

static void run_body(struct context *ctx, void *argument)
{
    struct gateway_testkit *kit = argument;
    struct error e = {0};
    make_keys(ctx, kit);
    struct http_server_options options = {
        .address = S("127.0.0.1"), .handler = gateway_handle, .owner = kit->gateway};
    check(http_server_open(&kit->base->loop, 1, &options, &kit->server, &e), &e);
    check(http_client_create(kit->base->loop, &(struct http_client_options){0}, &kit->client, &e),
          &e);
    kit->body(ctx, kit);
    struct context drain;
    context_init_child(&drain, ctx, context_now_ns(ctx) + INT64_C(5000000000));
    gateway_set_draining(kit->gateway);
    check(http_server_drain(kit->server, &drain, &e), &e);
    context_deinit(&drain);
    http_client_destroy(kit->client); /* a handler may have used it for an upstream */
}

void gateway_testkit_run_with(void (*body)(struct context *ctx, struct gateway_testkit *kit),
                              struct gateway_options options)
{
    struct error e = {0};
    struct gateway_testkit *kit = calloc(1, sizeof *kit);
    ensure(kit != NULL);
    log_set_sink(no_log, NULL);
    kit->body = body;
    kit->is_ready = true;
    snprintf(kit->dir, sizeof kit->dir, "/tmp/nexus-gateway-XXXXXX");
    ensure(mkdtemp(kit->dir) != NULL);
    kit->base = testkit_create_on_loop();
    open_keys(kit);
    options.orchestrator = kit->base->o;
    options.keys = kit->keys;
    options.metrics = kit->base->metrics;
    options.clock = kit->base->clock;
    options.random = kit->base->random;
    options.is_ready = is_ready;
    options.ready_owner = kit;
    check(gateway_create(&options, &kit->gateway, &e), &e);
    testkit_do(kit->base, run_body, kit);
    http_server_destroy(kit->server);
    gateway_destroy(kit->gateway);
    keys_destroy(kit->keys);
    testkit_destroy(kit->base);
    rmdir(kit->dir);
    free(kit);
}

void gateway_testkit_run(void (*body)(struct context *ctx, struct gateway_testkit *kit))
{
    gateway_testkit_run_with(body, (struct gateway_options){0});
}

/* ---- asking ---- */

static struct http_exchange *send_request(struct context *ctx, struct gateway_testkit *kit,
                                          enum http_method method, str path, str key, str body,
                                          const struct http_header *more, size_t count)
{
    struct error e = {0};
    struct http_exchange *exchange;
    struct http_headers headers = {0};
    if (!str_is_empty(key))
        http_headers_add(&headers, ctx->arena, S("Authorization"),
                         str_printf(ctx->arena, "Bearer " STR_FMT, STR_ARG(key)));
    bool has_type = false;
    for (size_t i = 0; i < count; i++) {
        has_type = has_type || str_equal_nocase(more[i].name, S("Content-Type"));
        http_headers_add(&headers, ctx->arena, more[i].name, more[i].value);
    }
    if (!str_is_empty(body) && !has_type)
        http_headers_add(&headers, ctx->arena, S("Content-Type"), S("application/json"));
    struct http_client_request request = {.method = method, .headers = &headers, .body = body};
    request.url = (struct http_url){
        .host = S("127.0.0.1"), .port = http_server_port(kit->server), .path_query = path};
    check(http_client_send(kit->client, ctx, &request, &exchange, &e), &e);
    return exchange;
}

struct http_exchange *ask_stream(struct context *ctx, struct gateway_testkit *kit,
                                 enum http_method method, str path, str key, str body)
{
    return send_request(ctx, kit, method, path, key, body, NULL, 0);
}

struct answer ask_with(struct context *ctx, struct gateway_testkit *kit, enum http_method method,
                       str path, str key, str body, const struct http_header *more, size_t count)
{
    struct error e = {0};
    struct answer answer = {0};
    struct http_exchange *exchange = send_request(ctx, kit, method, path, key, body, more, count);
    struct http_headers *headers = ARENA_NEW(ctx->arena, struct http_headers);
    str text;
    answer.status = http_exchange_status(exchange);
    const struct http_headers *got = http_exchange_headers(exchange);
    for (size_t i = 0; i < got->count; i++)
        http_headers_add(headers, ctx->arena, str_copy(ctx->arena, got->items[i].name),
                         str_copy(ctx->arena, got->items[i].value));
    answer.headers = headers;
    check(http_exchange_read_all(exchange, ctx, 16u << 20, &text, &e), &e);
    answer.body = str_copy(ctx->arena, text);
    http_exchange_close(exchange);
    if (!json_parse(ctx->arena, answer.body, (struct json_limits){0}, &answer.json, &e))
        answer.json = NULL;
    return answer;
}

struct answer ask(struct context *ctx, struct gateway_testkit *kit, enum http_method method,
                  str path, str key, str body)
{
    return ask_with(ctx, kit, method, path, key, body, NULL, 0);
}

str answer_text(const struct answer *answer, str member)
{
    str text;
    if (!json_to_str(json_get(answer->json, member), &text))
        fail_msg("no text " STR_FMT " in %d " STR_FMT, STR_ARG(member), answer->status,
                 STR_ARG(answer->body));
    return text;
}

str answer_header(const struct answer *answer, str name)
{
    return http_headers_get(answer->headers, name);
}

str read_until(struct context *ctx, struct http_exchange *exchange, str before, str needle)
{
    struct strbuf text;
    struct error e = {0};
    strbuf_init(&text, ctx->arena, 16u << 20);
    strbuf_add(&text, before);
    while (str_is_empty(needle) || str_find(strbuf_str(&text), needle) == STR_NOT_FOUND) {
        str piece;
        if (!http_exchange_read(exchange, ctx, &piece, &e) || str_is_empty(piece))
            break;
        strbuf_add(&text, piece);
    }
    return strbuf_str(&text);
}
