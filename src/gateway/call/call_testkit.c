#include "gateway/call/call_testkit.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/guard.h"
#include "llm/response_cache.h"
#include "net/net_testkit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the upstreams: the model's name says what to do ---- */

char seen[1 << 16];
char seen_head[1 << 12];
_Atomic bool saw_disconnect;
_Atomic int request_count;

static void say(int fd, const char *text)
{
    raw_send(fd, str_from_cstr(text));
}

static void say_json(int fd, int status, const char *more, const char *body)
{
    char head[512];
    snprintf(head, sizeof head,
             "HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n",
             status, more, strlen(body));
    say(fd, head);
    say(fd, body);
}

/* A reset in place of an end. */
static void reset(int fd)
{
    struct linger linger = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

static void drip(int fd, const char *chunk)
{
    say(fd, STREAM_HEAD);
    for (int i = 0; i < 100 && send(fd, chunk, strlen(chunk), MSG_NOSIGNAL) > 0; i++)
        usleep(20000);
    atomic_store(&saw_disconnect, raw_is_closed(fd));
}

/* Silence until the peer has enough. */
static void hang(int fd)
{
    atomic_store(&saw_disconnect, raw_is_closed(fd));
}

/* What each upstream model says; `hangs` and `resets` tell what comes behind it. */
static const struct script {
    const char *model, *text;
    bool is_json, hangs, resets;
    int status;
    const char *more, *later;
} scripts[] = {
    {.model = "up-whole", .text = WHOLE, .is_json = true, .status = 200},
    {.model = "up-busy",
     .text = "{\"error\":{\"message\":\"slow down sk-abcdefgh12345678\",\"type\":\"rate\"}}",
     .is_json = true,
     .status = 429,
     .more = "Retry-After: 30\r\n"},
    {.model = "up-bad",
     .text = "{\"error\":{\"message\":\"no such parameter\"}}",
     .is_json = true,
     .status = 400},
    {.model = "up-broken",
     .text = "{\"error\":{\"message\":\"boom\"}}",
     .is_json = true,
     .status = 500},
    {.model = "up-garbage", .text = "<html>", .is_json = true, .status = 200},
    {.model = "up-short",
     .text =
         "HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"id\""},
    {.model = "up-inband",
     .text = STREAM_HEAD
     "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"overloaded_error\"}}\n\n"},
    {.model = "up-stream",
     .text = STREAM_HEAD ": note\n\n" CHUNK_ONE CHUNK_TWO CHUNK_USAGE "data: [DONE]\n\n"},
    {.model = "up-role-cut", .text = STREAM_HEAD CHUNK_ROLE},
    {.model = "up-role-reset", .text = STREAM_HEAD CHUNK_ROLE, .resets = true},
    {.model = "up-role-stall", .text = STREAM_HEAD CHUNK_ROLE, .hangs = true},
    {.model = "up-role-error",
     .text = STREAM_HEAD CHUNK_ROLE "data: {\"error\":{\"message\":\"x\",\"code\":503}}\n\n"},
    {.model = "up-role-garbage", .text = STREAM_HEAD CHUNK_ROLE "data: <html>\n\n"},
    {.model = "up-mute", .text = "", .hangs = true},
    {.model = "up-gone", .text = "", .resets = true},
    {.model = "up-json", .text = WHOLE, .is_json = true, .status = 200},
    {.model = "up-cut", .text = STREAM_HEAD CHUNK_ONE},
    {.model = "up-reset", .text = STREAM_HEAD CHUNK_ONE, .resets = true},
    {.model = "up-stall", .text = STREAM_HEAD CHUNK_ONE, .hangs = true},
    {.model = "up-late-garbage",
     .text = STREAM_HEAD CHUNK_ONE,
     .later = "data: \x01\n\n",
     .hangs = true},
    {.model = "up-burst",
     .text = STREAM_HEAD CHUNK_ONE "data: {\"error\":{\"message\":\"x\",\"code\":503}}\n\n"},
    {.model = "up-message-burst",
     .text = STREAM_HEAD MESSAGE_START
     "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{"
     "\"type\":\"text_delta\",\"text\":\"bob@exam\"}}\n\n"
     "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":"
     "\"x\"}}\n\n"},
    {.model = "up-message", .text = STREAM_HEAD MESSAGE_START, .later = MESSAGE_REST},
    {.model = "up-message-cut", .text = STREAM_HEAD MESSAGE_START},
    {.model = "up-count", .text = "{\"input_tokens\":17}", .is_json = true, .status = 200},
    {.model = "up-late-error",
     .text = STREAM_HEAD CHUNK_ONE,
     .later = "data: {\"error\":{\"message\":\"x\",\"code\":503}}\n\n",
     .hangs = true},
};

static bool asks_for(const char *model)
{
    char text[64];
    snprintf(text, sizeof text, "\"model\":\"%s\"", model);
    return strstr(seen, text) != NULL;
}

/* True: the connection stays open. */
static bool act(int fd)
{
    if (asks_for("up-slow")) {
        drip(fd, CHUNK_ONE);
        return false;
    }
    for (size_t i = 0; i < ARRAY_COUNT(scripts); i++) {
        const struct script *script = &scripts[i];
        if (!asks_for(script->model))
            continue;
        if (script->is_json)
            say_json(fd, script->status, script->more ? script->more : "", script->text);
        else
            say(fd, script->text);
        if (script->later) {
            usleep(50000);
            say(fd, script->later);
        }
        if (script->resets) {
            usleep(20000); /* what was said arrives first */
            reset(fd);
        }
        if (script->hangs)
            hang(fd);
        return script->is_json && strstr(seen, "\"stream\":true") == NULL;
    }
    return false;
}

static void serve(int fd, size_t index, void *argument)
{
    (void) index, (void) argument;
    for (;;) {
        str request = raw_read_request(fd);
        if (request.len == 0)
            return;
        size_t at = str_find(request, S("\r\n\r\n"));
        str body = str_from(request, at + 4);
        ensure(body.len < sizeof seen);
        memcpy(seen, body.ptr, body.len);
        seen[body.len] = 0;
        size_t head = at < sizeof seen_head - 1 ? at : sizeof seen_head - 1;
        memcpy(seen_head, request.ptr, head);
        seen_head[head] = 0;
        atomic_fetch_add(&request_count, 1);
        if (!act(fd))
            return;
    }
}

/* ---- a catalog in front of them ---- */

struct guard_rules masking, blocking;
static struct raw_server upstream, second_upstream;
static struct provider *provider, *second_provider, *anthropic;
static struct gateway_testkit *current;

static struct http_client *client_of_loop(void *owner)
{
    (void) owner;
    return current->client;
}

/* `second`: of the other provider, when the first has failed. */
static void add(struct catalog *catalog, const char *name, const char *first, const char *second,
                const struct model *rules)
{
    struct error e = {0};
    struct model_price price = {
        .is_known = true, .input_picousd_per_token = 1000, .output_picousd_per_token = 2000};
    struct model_target targets[] = {
        {.provider = provider, .model = str_from_cstr(first), .weight = 1, .price = price},
        {.provider = second_provider,
         .model = str_from_cstr(second ? second : ""),
         .weight = 1,
         .priority = 1,
         .price = price},
    };
    struct model model = *rules;
    model.name = str_from_cstr(name);
    model.targets = targets;
    model.target_count = second ? 2 : 1;
    model.max_output_tokens = 500;
    ensure(catalog_add(catalog, &model, &e));
}

/* Both targets of the provider that speaks Messages. */
static void add_anthropic(struct catalog *catalog, const char *name, const char *first,
                          const char *second, const struct guard_rules *guard)
{
    struct error e = {0};
    struct model_price price = {
        .is_known = true, .input_picousd_per_token = 1000, .output_picousd_per_token = 2000};
    struct model_target targets[] = {
        {.provider = anthropic, .model = str_from_cstr(first), .weight = 1, .price = price},
        {.provider = anthropic,
         .model = str_from_cstr(second ? second : ""),
         .weight = 1,
         .priority = 1,
         .price = price},
    };
    struct model model = {.name = str_from_cstr(name),
                          .guard = guard,
                          .targets = targets,
                          .target_count = second ? 2 : 1,
                          .max_output_tokens = 500};
    ensure(catalog_add(catalog, &model, &e));
}

static void configure(struct gateway_testkit *kit)
{
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = kit->base->defaults;
    settings->catalog = catalog_create();
    settings->agents = agent_set_create();
    struct model rules = {
        .deadlines = {.first_token_ms = 300, .between_tokens_ms = 300, .total_ms = 5000}};
    for (size_t i = 0; i < ARRAY_COUNT(scripts); i++) {
        const char *name = scripts[i].model + 3;
        char text[48];
        add(settings->catalog, name, scripts[i].model, NULL, &rules);
        snprintf(text, sizeof text, "%s-then-whole", name);
        add(settings->catalog, text, scripts[i].model, "up-whole", &rules);
        snprintf(text, sizeof text, "%s-then-stream", name);
        add(settings->catalog, text, scripts[i].model, "up-stream", &rules);
    }
    add(settings->catalog, "slow", "up-slow", NULL, &rules);
    struct model hedged = {.hedge_after_ms = 50, .deadlines = {.total_ms = 5000}};
    add(settings->catalog, "hedged", "up-role-stall", "up-stream", &hedged);
    add(settings->catalog, "hedged-whole", "up-mute", "up-whole", &hedged);
    struct model brief = {.deadlines = {.total_ms = 200}};
    add(settings->catalog, "brief", "up-mute", NULL, &brief);
    struct model impatient = {.deadlines = {.attempt_ms = 150, .total_ms = 5000}};
    add(settings->catalog, "impatient", "up-mute", "up-whole", &impatient);
    add(settings->catalog, "impatient-alone", "up-mute", NULL, &impatient);
    struct model cached = {.cache = {.mode = MODEL_CACHE_EXACT, .ttl_ms = 60000}};
    add(settings->catalog, "cached", "up-whole", NULL, &cached);
    add(settings->catalog, "cached-stream", "up-stream", NULL, &cached);
    struct model masked = {.guard = &masking}, blocked = {.guard = &blocking};
    add(settings->catalog, "masked", "up-whole", NULL, &masked);
    add(settings->catalog, "masked-stream", "up-stream", NULL, &masked);
    add(settings->catalog, "blocked", "up-whole", NULL, &blocked);
    add(settings->catalog, "blocked-stream", "up-stream", NULL, &blocked);
    struct model patient = {.deadlines = {.between_tokens_ms = 2000}};
    add(settings->catalog, "patient", "up-stall", NULL, &patient);
    add_anthropic(settings->catalog, "claude", "up-message-cut", "up-message", NULL);
    add_anthropic(settings->catalog, "masked-burst", "up-message-burst", NULL, &masking);
    add_anthropic(settings->catalog, "claude-count", "up-count", NULL, NULL);
    add_anthropic(settings->catalog, "blocked-count", "up-count", NULL, &blocking);
    orchestrator_reconfigure(kit->base->o, settings);
}

static void (*scenario)(struct context *ctx, struct gateway_testkit *kit);

static void make_provider(struct context *ctx, const struct raw_server *server, str name,
                          struct provider **out)
{
    struct error e = {0};
    str url = str_printf(ctx->arena, "http://127.0.0.1:%u/v1", server->port);
    struct provider_options options = {
        .name = name, .base_url = url, .client_of_loop = client_of_loop};
    ensure(provider_openai_create(&options, out, &e));
}

static void with_upstream(struct context *ctx, struct gateway_testkit *kit)
{
    current = kit;
    make_provider(ctx, &upstream, S("up"), &provider);
    make_provider(ctx, &second_upstream, S("second"), &second_provider);
    struct error e = {0};
    struct provider_options options = {
        .name = S("anthropic"),
        .base_url = str_printf(ctx->arena, "http://127.0.0.1:%u/v1", upstream.port),
        .client_of_loop = client_of_loop};
    ensure(provider_anthropic_create(&options, &anthropic, &e));
    configure(kit);
    scenario(ctx, kit);
}

void call_testkit_run_with(void (*body)(struct context *ctx, struct gateway_testkit *kit),
                           struct gateway_options options)
{
    scenario = body;
    atomic_store(&request_count, 0);
    raw_server_start(&upstream, serve, NULL);
    raw_server_start(&second_upstream, serve, NULL);
    gateway_testkit_run_with(with_upstream, options);
    raw_server_stop(&upstream);
    raw_server_stop(&second_upstream);
    raw_free_all();
    provider_destroy(provider);
    provider_destroy(second_provider);
    provider_destroy(anthropic);
}

void call_testkit_run(void (*body)(struct context *ctx, struct gateway_testkit *kit))
{
    call_testkit_run_with(body, (struct gateway_options){0});
}

str body_of(struct context *ctx, const char *model, const char *more)
{
    return str_printf(ctx->arena,
                      "{\"model\":\"%s\",\"x_unknown\":{\"b\": "
                      "1.0},\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]%s}",
                      model, more);
}

struct answer chat(struct context *ctx, struct gateway_testkit *kit, const char *model,
                   const char *more)
{
    return ask(ctx, kit, HTTP_POST, CHAT, kit->user_key, body_of(ctx, model, more));
}

int64_t spent_tokens(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer =
        ask(ctx, kit, HTTP_GET, S("/api/v1/budgets/user/alice"), kit->admin_key, STR_NONE);
    assert_int_equal(json_i64_or(json_get(answer.json, S("reserved")), S("tokens"), -1), 0);
    return json_i64_or(json_get(answer.json, S("spent")), S("tokens"), -1);
}

void expect(str text, const char *needle)
{
    if (str_find(text, str_from_cstr(needle)) == STR_NOT_FOUND)
        fail_msg("no %s in " STR_FMT, needle, STR_ARG(text));
}

/* A stream to its end.  *is_clean: it ended as HTTP says, not by a cut. */
str stream_all(struct context *ctx, struct gateway_testkit *kit, str path, str body, bool *is_clean)
{
    struct strbuf text;
    struct error e = {0};
    str piece;
    struct http_exchange *exchange = ask_stream(ctx, kit, HTTP_POST, path, kit->user_key, body);
    strbuf_init(&text, ctx->arena, 16u << 20);
    while ((*is_clean = http_exchange_read(exchange, ctx, &piece, &e)) && !str_is_empty(piece))
        strbuf_add(&text, piece);
    http_exchange_close(exchange);
    return strbuf_str(&text);
}
