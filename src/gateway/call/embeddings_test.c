/* POST /v1/embeddings, and answers found by meaning, over an upstream that counts. */
#include "gateway/call/embeddings.h"
#include "gateway/gateway_testkit.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/embed_format.h"
#include "net/net_testkit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define EMBEDDINGS S("/v1/embeddings")

/* ---- the upstream: a text's vector is {its length, its first byte, 0.1, how many texts came}; its usage is the bytes ---- */

static _Atomic int calls, chats, texts_seen;
static char seen[1 << 16]; /* body of the newest request */

static void say(int fd, int status, str body)
{
    char head[256];
    snprintf(head, sizeof head,
             "HTTP/1.1 %d X\r\nContent-Type: application/json\r\nConnection: close\r\n"
             "Content-Length: %zu\r\n\r\n",
             status, body.len);
    raw_send(fd, str_from_cstr(head));
    raw_send(fd, body);
}

/* Texts about height lie near each other, all else far away. */
static void vector_of(str text, size_t count, float out[4])
{
    bool is_height =
        str_find(text, S("tall")) != STR_NOT_FOUND || str_find(text, S("height")) != STR_NOT_FOUND;
    out[0] = (float) text.len;
    out[1] = text.len > 0 ? (float) (unsigned char) text.ptr[0] : 0;
    out[2] = 0.1f;
    out[3] = (float) count;
    if (str_ends_with(text, S("?"))) {
        out[0] = is_height ? 1 : 0;
        out[1] = is_height ? 0 : 1;
        out[2] = out[3] = 0;
    }
}

static bool write_answer(struct arena *arena, const struct json *body, struct strbuf *out)
{
    const struct json *input = json_get(body, S("input")), *item;
    size_t count = json_count(input), index = 0, bytes = 0;
    struct json_iter it = json_iter(input);
    strbuf_add(out, S("{\"object\":\"list\",\"model\":\"up\",\"data\":["));
    while (json_next(&it, NULL, &item)) {
        str text = STR_NONE;
        float vector[4];
        char packed[sizeof vector];
        if (!json_to_str(item, &text))
            text = json_print(arena, item);
        if (str_equal(text, S("poison")))
            return false;
        vector_of(text, count, vector);
        embed_pack(vector, 4, packed);
        bytes += text.len;
        strbuf_printf(out, "%s{\"index\":%zu,\"embedding\":\"" STR_FMT "\"}", index ? "," : "",
                      index, STR_ARG(base64_encode(arena, str_of(packed, sizeof packed))));
        index++;
    }
    strbuf_printf(out, "],\"usage\":{\"prompt_tokens\":%zu,\"total_tokens\":%zu}}", bytes, bytes);
    texts_seen += (int) count;
    return true;
}

static void serve_embedding(int fd, str text)
{
    OWNED(arena) arena = arena_create(64u << 20);
    struct strbuf out;
    struct error e;
    const struct json *body;
    ensure(json_parse(arena, text, (struct json_limits){0}, &body, &e));
    strbuf_init(&out, arena, 32u << 20);
    str model = json_str_or(body, S("model"), STR_NONE);
    calls++;
    usleep(20000);
    if (str_equal(model, S("up-dead")))
        say(fd, 503, S("{\"error\":{\"message\":\"down\"}}"));
    else if (write_answer(arena, body, &out))
        say(fd, 200, strbuf_str(&out));
    else
        say(fd, 400, S("{\"error\":{\"message\":\"poison is no input\"}}"));
}

static void serve(int fd, size_t index, void *argument)
{
    (void) index, (void) argument;
    str request = raw_read_request(fd);
    size_t at = str_find(request, S("\r\n\r\n"));
    if (at == STR_NOT_FOUND)
        return;
    str body = str_from(request, at + 4);
    snprintf(seen, sizeof seen, STR_FMT, STR_ARG(str_slice(body, 0, sizeof seen - 1)));
    if (str_starts_with(request, S("POST /v1/embeddings "))) {
        serve_embedding(fd, body);
        return;
    }
    char text[256];
    snprintf(text, sizeof text,
             "{\"id\":\"c%d\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":"
             "{\"role\":\"assistant\",\"content\":\"Hi\"},\"finish_reason\":\"stop\"}],\"usage\":{"
             "\"prompt_tokens\":5,\"completion_tokens\":3,\"total_tokens\":8}}",
             ++chats);
    say(fd, 200, str_from_cstr(text));
}

/* ---- a catalog in front of it ---- */

static struct raw_server upstream;
static struct provider *provider, *stand_in;
static struct gateway_testkit *current;

static struct http_client *client_of_loop(void *owner)
{
    (void) owner;
    return current->client;
}

static void add(struct catalog *catalog, struct model model, const char *first, const char *second)
{
    struct error e = {0};
    struct model_price price = {.is_known = true, .input_picousd_per_token = 1000000};
    struct model_target targets[] = {
        {.provider = model.is_embedder || second ? provider : stand_in,
         .model = str_from_cstr(first),
         .weight = 1,
         .price = price},
        {.provider = provider,
         .model = str_from_cstr(second ? second : ""),
         .weight = 1,
         .priority = 1,
         .price = price},
    };
    model.targets = targets;
    model.target_count = second ? 2 : 1;
    model.max_output_tokens = 500;
    ensure(catalog_add(catalog, &model, &e));
}

static void configure(struct gateway_testkit *kit)
{
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = kit->base->defaults;
    settings->catalog = catalog_create();
    settings->agents = agent_set_create();
    struct model_cache exact = {.mode = MODEL_CACHE_EXACT, .ttl_ms = 60000};
    struct model_cache semantic = {
        .mode = MODEL_CACHE_SEMANTIC, .ttl_ms = 60000, .similarity = 0.9, .embedder = S("vectors")};
    struct model_cache orphan = semantic;
    orphan.embedder = S("dead");
    add(settings->catalog, (struct model){.name = S("vectors"), .is_embedder = true}, "up", NULL);
    add(settings->catalog, (struct model){.name = S("kept"), .is_embedder = true, .cache = exact},
        "up", NULL);
    add(settings->catalog, (struct model){.name = S("dead"), .is_embedder = true}, "up-dead", NULL);
    add(settings->catalog, (struct model){.name = S("failover"), .is_embedder = true}, "up-dead",
        "up");
    add(settings->catalog, (struct model){.name = S("offline")}, "offline", NULL);
    add(settings->catalog, (struct model){.name = S("chatty"), .cache = semantic}, "up-chat",
        "up-chat");
    add(settings->catalog, (struct model){.name = S("orphan"), .cache = orphan}, "up-chat",
        "up-chat");
    orchestrator_reconfigure(kit->base->o, settings);
}

static void (*scenario)(struct context *ctx, struct gateway_testkit *kit);

static void with_upstream(struct context *ctx, struct gateway_testkit *kit)
{
    struct error e = {0};
    current = kit;
    calls = chats = texts_seen = 0;
    struct provider_options options = {
        .name = S("up"),
        .base_url = str_printf(ctx->arena, "http://127.0.0.1:%u/v1", upstream.port),
        .client_of_loop = client_of_loop};
    ensure(provider_openai_create(&options, &provider, &e));
    ensure(provider_offline_create(S("offline"), &stand_in, &e));
    configure(kit);
    scenario(ctx, kit);
}

static void run(void (*body)(struct context *ctx, struct gateway_testkit *kit))
{
    OWNED(response_cache) cache =
        response_cache_create(&(struct response_cache_options){.clock = clock_system()});
    scenario = body;
    raw_server_start(&upstream, serve, NULL);
    gateway_testkit_run_with(with_upstream, (struct gateway_options){.cache = cache});
    raw_server_stop(&upstream);
    raw_free_all();
    provider_destroy(provider);
    provider_destroy(stand_in);
}

static struct answer embed(struct context *ctx, struct gateway_testkit *kit, str key,
                           const char *body)
{
    return ask(ctx, kit, HTTP_POST, EMBEDDINGS, key, str_from_cstr(body));
}

static int64_t spent_tokens(struct context *ctx, struct gateway_testkit *kit, const char *user)
{
    struct answer answer =
        ask(ctx, kit, HTTP_GET, str_printf(ctx->arena, "/api/v1/budgets/user/%s", user),
            kit->admin_key, STR_NONE);
    assert_int_equal(json_i64_or(json_get(answer.json, S("reserved")), S("tokens"), -1), 0);
    return json_i64_or(json_get(answer.json, S("spent")), S("tokens"), -1);
}

static void expect(str text, const char *needle)
{
    if (str_find(text, str_from_cstr(needle)) == STR_NOT_FOUND)
        fail_msg("no %s in " STR_FMT, needle, STR_ARG(text));
}

/* ---- scenarios ---- */

static void plain(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer =
        embed(ctx, kit, kit->user_key, "{\"model\":\"vectors\",\"input\":[\"abc\",\"de\"]}");
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(
        answer.body,
        S("{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":"
          "[3,97,0.1,2]},{\"object\":\"embedding\",\"index\":1,\"embedding\":[2,100,0.1,2]}],"
          "\"model\":\"vectors\",\"usage\":{\"prompt_tokens\":5,\"total_tokens\":5}}")));
    assert_string_equal(seen, "{\"model\":\"up\",\"input\":[\"abc\",\"de\"],\"encoding_format\":"
                              "\"base64\"}");
    assert_int_equal(spent_tokens(ctx, kit, "alice"), 5);
    answer = embed(ctx, kit, kit->user_key,
                   "{\"model\":\"vectors\",\"input\":\"abc\",\"encoding_format\":\"base64\"}");
    expect(answer.body, "\"embedding\":\"AABAQAAAwkLNzMw9AACAPw==\"");
    answer = embed(ctx, kit, kit->user_key, "{\"model\":\"vectors\",\"input\":[7,8,9]}");
    assert_int_equal(answer.status, 200);
    expect(str_from_cstr(seen), "\"input\":[[7,8,9]]");
    answer =
        embed(ctx, kit, kit->user_key,
              "{\"model\":\"vectors\",\"input\":[[7],[8,9]],\"truncate\":true,\"user\":\"u\"}");
    expect(answer.body, "\"index\":1");
    expect(str_from_cstr(seen), "\"input\":[[7],[8,9]]");
    expect(str_from_cstr(seen), "\"user\":\"u\",\"truncate\":true");
}

static void test_texts_and_tokens_become_vectors(void **state)
{
    (void) state;
    run(plain);
}

static void refusals(struct context *ctx, struct gateway_testkit *kit)
{
    static const char *const bad[] = {
        "{\"model\":\"vectors\"}",
        "{\"model\":\"vectors\",\"input\":\"\"}",
        "{\"model\":\"vectors\",\"input\":[]}",
        "{\"model\":\"vectors\",\"input\":[\"a\",\"\"]}",
        "{\"model\":\"vectors\",\"input\":[\"a\",1]}",
        "{\"model\":\"vectors\",\"input\":[1,\"a\"]}",
        "{\"model\":\"vectors\",\"input\":[[1],[]]}",
        "{\"model\":\"vectors\",\"input\":[-1]}",
        "{\"model\":\"vectors\",\"input\":[1.5]}",
        "{\"model\":\"vectors\",\"input\":{}}",
        "{\"model\":\"vectors\",\"input\":\"a\",\"dimensions\":0}",
        "{\"model\":\"vectors\",\"input\":\"a\",\"dimensions\":8193}",
        "{\"model\":\"vectors\",\"input\":\"a\",\"encoding_format\":\"int8\"}",
        "{\"input\":\"a\"}",
        "[]",
        "{",
        "{\"model\":\"fake-chat\",\"input\":\"a\"",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct answer answer = embed(ctx, kit, kit->user_key, bad[i]);
        if (answer.status != 400 || !json_get(answer.json, S("error")))
            fail_msg("%s: %d " STR_FMT, bad[i], answer.status, STR_ARG(answer.body));
    }
    struct answer answer =
        embed(ctx, kit, kit->user_key, "{\"model\":\"nothing\",\"input\":\"a\"}");
    assert_int_equal(answer.status, 404);
    expect(answer.body, "vectors");
    answer = embed(ctx, kit, kit->user_key, "{\"model\":\"chatty\",\"input\":\"a\"}");
    assert_int_equal(answer.status, 400);
    expect(answer.body, "makes no embeddings");
    answer = embed(ctx, kit, kit->viewer_key, "{\"model\":\"vectors\",\"input\":\"a\"}");
    assert_int_equal(answer.status, 403);
    answer = embed(ctx, kit, STR_NONE, "{\"model\":\"vectors\",\"input\":\"a\"}");
    assert_int_equal(answer.status, 401);
    assert_int_equal(calls, 0);
    answer = embed(ctx, kit, kit->user_key, "{\"model\":\"vectors\",\"input\":\"poison\"}");
    assert_int_equal(answer.status, 400);
    expect(answer.body, "poison is no input");
    assert_int_equal(spent_tokens(ctx, kit, "alice"), 0);
}

static void test_what_is_no_embedding_request_is_refused_in_openais_words(void **state)
{
    (void) state;
    run(refusals);
}

static void at_the_bound(struct context *ctx, struct gateway_testkit *kit)
{
    for (size_t count = EMBED_INPUTS_MAX; count <= EMBED_INPUTS_MAX + 1; count++) {
        struct strbuf body;
        strbuf_init(&body, ctx->arena, 1 << 20);
        strbuf_add(&body, S("{\"model\":\"vectors\",\"input\":["));
        for (size_t i = 0; i < count; i++)
            strbuf_printf(&body, "%s\"%zu\"", i ? "," : "", i);
        strbuf_add(&body, S("]}"));
        struct answer answer =
            ask(ctx, kit, HTTP_POST, EMBEDDINGS, kit->user_key, strbuf_str(&body));
        assert_int_equal(answer.status, count > EMBED_INPUTS_MAX ? 413 : 200);
        if (answer.status == 200)
            assert_int_equal(json_count(json_get(answer.json, S("data"))), count);
    }
    assert_int_equal(calls, 1);
}

static void test_the_most_inputs_and_one_more(void **state)
{
    (void) state;
    run(at_the_bound);
}

/* ---- many callers ---- */

enum { CALLERS = 200 };

struct caller {
    struct gateway_testkit *kit;
    size_t number;
    bool is_poison;
    int status;
    int64_t tokens;
};

static void call_once(struct context *ctx, void *argument)
{
    struct caller *caller = argument;
    char text[64];
    memset(text, 'x', sizeof text);
    size_t len = 10 + caller->number % 50;
    str first = caller->is_poison ? S("poison") : str_of(text, len);
    str body = str_printf(ctx->arena, "{\"model\":\"vectors\",\"input\":[\"" STR_FMT "\",\"%zu\"]}",
                          STR_ARG(first), caller->number);
    str key = caller->number % 2 ? caller->kit->user_key : caller->kit->other_key;
    struct answer answer = ask(ctx, caller->kit, HTTP_POST, EMBEDDINGS, key, body);
    caller->status = answer.status;
    if (answer.status != 200)
        return;
    const struct json *data = json_get(answer.json, S("data"));
    double length, digit;
    assert_true(json_to_double(json_at(json_get(json_at(data, 0), S("embedding")), 0), &length));
    assert_true(json_to_double(json_at(json_get(json_at(data, 1), S("embedding")), 1), &digit));
    assert_true(length == (double) len);
    char wanted = str_printf(ctx->arena, "%zu", caller->number).ptr[0];
    assert_true(digit == (double) wanted);
    caller->tokens = json_i64_or(json_get(answer.json, S("usage")), S("prompt_tokens"), -1);
}

static void many(struct context *ctx, struct gateway_testkit *kit)
{
    static struct caller callers[CALLERS];
    struct group group;
    struct error e = {0};
    int64_t told = 0, sent_bytes = 0;
    group_init(&group, ctx);
    for (size_t i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.kit = kit, .number = i, .is_poison = i == 77};
        assert_true(group_start(&group, "caller", call_once, &callers[i], &e));
    }
    group_wait(&group);
    for (size_t i = 0; i < CALLERS; i++) {
        assert_int_equal(callers[i].status, callers[i].is_poison ? 400 : 200);
        told += callers[i].tokens;
        if (!callers[i].is_poison)
            sent_bytes += (int64_t) (10 + i % 50) + (i < 10 ? 1 : i < 100 ? 2 : 3);
    }
    printf("%d callers, one of them guilty: %d upstream calls\n", CALLERS, calls);
    assert_true(calls < 40);
    assert_int_equal(told, sent_bytes); /* shared out exactly */
    assert_int_equal(spent_tokens(ctx, kit, "alice") + spent_tokens(ctx, kit, "bob"), told);
}

static void test_two_hundred_callers_share_calls_and_only_the_guilty_fails(void **state)
{
    (void) state;
    run(many);
}

/* ---- routing, cache, stand-in ---- */

static void failover(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer =
        embed(ctx, kit, kit->user_key, "{\"model\":\"failover\",\"input\":\"abc\"}");
    assert_int_equal(answer.status, 200);
    assert_true(calls >= 2);
    assert_int_equal(spent_tokens(ctx, kit, "alice"), 3);
    answer = embed(ctx, kit, kit->user_key, "{\"model\":\"dead\",\"input\":\"abc\"}");
    assert_int_equal(answer.status, 503);
    assert_int_equal(spent_tokens(ctx, kit, "alice"), 3);
}

static void test_a_dead_target_is_passed_over(void **state)
{
    (void) state;
    run(failover);
}

static void kept(struct context *ctx, struct gateway_testkit *kit)
{
    const char *body = "{\"model\":\"kept\",\"input\":\"abc\"}";
    struct answer first = embed(ctx, kit, kit->user_key, body);
    struct answer second = embed(ctx, kit, kit->user_key, body);
    assert_true(str_equal(first.body, second.body));
    assert_true(str_equal(answer_header(&first, S("Nexus-Cache")), S("miss")));
    assert_true(str_starts_with(answer_header(&second, S("Nexus-Cache")), S("hit")));
    assert_int_equal(calls, 1);
    assert_int_equal(spent_tokens(ctx, kit, "alice"), 3);
    embed(ctx, kit, kit->other_key, body); /* another user: not his */
    assert_int_equal(calls, 2);
    embed(ctx, kit, kit->user_key, "{\"model\":\"kept\",\"input\":\"abc\",\"dimensions\":4}");
    assert_int_equal(calls, 3);
}

static void test_equal_requests_of_a_user_are_answered_from_the_cache(void **state)
{
    (void) state;
    run(kept);
}

static void offline(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer =
        embed(ctx, kit, kit->user_key, "{\"model\":\"offline\",\"input\":[\"a b\",\"c d\"]}");
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer_header(&answer, S("Nexus-Stand-In")), S("offline")));
    const struct json *first = json_at(json_get(answer.json, S("data")), 0);
    assert_int_equal(json_count(json_get(first, S("embedding"))), 1536);
    struct strbuf body; /* an answer that goes out in pieces */
    strbuf_init(&body, ctx->arena, 1 << 20);
    strbuf_add(&body, S("{\"model\":\"offline\",\"input\":["));
    for (size_t i = 0; i < 300; i++)
        strbuf_printf(&body, "%s\"text %zu\"", i ? "," : "", i);
    strbuf_add(&body, S("]}"));
    answer = ask(ctx, kit, HTTP_POST, EMBEDDINGS, kit->user_key, strbuf_str(&body));
    assert_int_equal(answer.status, 200);
    assert_int_equal(json_count(json_get(answer.json, S("data"))), 300);
}

static void test_without_a_provider_the_stand_in_answers_and_says_so(void **state)
{
    (void) state;
    run(offline);
}

/* ---- by meaning ---- */

static str chat(struct context *ctx, struct gateway_testkit *kit, str key, const char *model,
                const char *more, const char *text)
{
    str body = str_printf(
        ctx->arena, "{\"model\":\"%s\",%s\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}]}",
        model, more, text);
    struct answer answer = ask(ctx, kit, HTTP_POST, S("/v1/chat/completions"), key, body);
    assert_int_equal(answer.status, 200);
    return answer_header(&answer, S("Nexus-Cache"));
}

static void meaning(struct context *ctx, struct gateway_testkit *kit)
{
    str key = kit->user_key;
    assert_true(str_equal(chat(ctx, kit, key, "chatty", "", "How tall is it?"), S("miss")));
    expect(chat(ctx, kit, key, "chatty", "", "What is its height?"), "similarity=1.000");
    assert_int_equal(chats, 1);
    assert_true(str_equal(chat(ctx, kit, key, "chatty", "", "Who made it?"), S("miss")));
    assert_true(str_equal(
        chat(ctx, kit, key, "chatty", "\"temperature\":1,", "What is the height?"), S("miss")));
    assert_true(
        str_equal(chat(ctx, kit, kit->other_key, "chatty", "", "What is the height?"), S("miss")));
    assert_true(str_equal(
        chat(ctx, kit, key, "chatty", "\"tools\":[{\"type\":\"function\"}],", "Its height?"),
        S("miss")));
    assert_int_equal(chats, 5);
    /* Vectors are paid for by who asks: four questions were embedded for alice, one of them a hit. */
    int64_t bytes = (int64_t) (strlen("How tall is it?") + strlen("What is its height?") +
                               strlen("Who made it?") + strlen("What is the height?"));
    assert_int_equal(spent_tokens(ctx, kit, "alice"), 4 * 8 + bytes);
    /* A dead embedder is a miss. */
    assert_true(str_equal(chat(ctx, kit, key, "orphan", "", "How tall is it?"), S("miss")));
    expect(chat(ctx, kit, key, "orphan", "", "How tall is it?"), "hit; age=");
}

static void test_a_question_near_enough_gets_the_answer_there_is(void **state)
{
    (void) state;
    run(meaning);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_and_tokens_become_vectors),
        cmocka_unit_test(test_what_is_no_embedding_request_is_refused_in_openais_words),
        cmocka_unit_test(test_the_most_inputs_and_one_more),
        cmocka_unit_test(test_two_hundred_callers_share_calls_and_only_the_guilty_fails),
        cmocka_unit_test(test_a_dead_target_is_passed_over),
        cmocka_unit_test(test_equal_requests_of_a_user_are_answered_from_the_cache),
        cmocka_unit_test(test_without_a_provider_the_stand_in_answers_and_says_so),
        cmocka_unit_test(test_a_question_near_enough_gets_the_answer_there_is),
    };
    cmocka_set_test_filter(getenv("NEXUS_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
