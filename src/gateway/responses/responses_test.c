/*
 * /v1/responses with its memory: over a provider of another dialect (the testkit's), agents, and an upstream that speaks Responses.
 * With NEXUS_SAMPLES set to a folder, lists of input items are kept there for tests/openai_schema.py and tests/responses_types.py.
 */
#include "gateway/gateway_testkit.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "net/net_testkit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RESPONSES S("/v1/responses")

static void expect(str text, const char *needle)
{
    if (str_find(text, str_from_cstr(needle)) == STR_NOT_FOUND)
        fail_msg("no %s in " STR_FMT, needle, STR_ARG(text));
}

static void expect_no(str text, const char *needle)
{
    if (str_find(text, str_from_cstr(needle)) != STR_NOT_FOUND)
        fail_msg("%s in " STR_FMT, needle, STR_ARG(text));
}

format_like(4, 5) static struct answer
    post(struct context *ctx, struct gateway_testkit *kit, str key, const char *format, ...)
{
    struct strbuf body;
    va_list arguments;
    strbuf_init(&body, ctx->arena, 1u << 20);
    va_start(arguments, format);
    strbuf_vprintf(&body, format, arguments);
    va_end(arguments);
    return ask(ctx, kit, HTTP_POST, RESPONSES, key, strbuf_str(&body));
}

static void status(const struct answer *answer, int want)
{
    if (answer->status != want)
        fail_msg("status %d: " STR_FMT, answer->status, STR_ARG(answer->body));
}

static const char *id_of(struct context *ctx, const struct answer *answer)
{
    status(answer, 200);
    return str_to_cstr(ctx->arena, answer_text(answer, S("id")));
}

static struct answer call_id(struct context *ctx, struct gateway_testkit *kit, str key,
                             enum http_method method, const char *id, const char *more)
{
    return ask(ctx, kit, method, str_printf(ctx->arena, "/v1/responses/%s%s", id, more), key,
               STR_NONE);
}

static str output_text(const struct answer *answer)
{
    return json_str_or(json_path(answer->json, S("/output/0/content/0")), S("text"), STR_NONE);
}

/* ---- one answer ---- */

static void stored(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "noon"});
    struct answer made = post(ctx, kit, kit->user_key,
                              "{\"model\":\"fake\",\"input\":\"what time is it?\",\"metadata\":{"
                              "\"k\":\"v\"}}");
    const char *id = id_of(ctx, &made);
    assert_true(str_equal(output_text(&made), S("noon")));
    assert_true(str_starts_with(str_from_cstr(id), S("resp_")));
    struct answer again = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "");
    status(&again, 200);
    assert_true(str_equal(again.body, made.body));
    /* nobody else's, and nothing that is not there */
    struct answer other = call_id(ctx, kit, kit->other_key, HTTP_GET, id, "");
    status(&other, 404);
    expect(other.body, "\"type\":\"invalid_request_error\"");
    expect(other.body, "not found");
    other = call_id(ctx, kit, kit->admin_key, HTTP_GET, id, "");
    status(&other, 404);
    other = call_id(ctx, kit, kit->user_key, HTTP_GET, "resp_none", "");
    status(&other, 404);
    other = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "?stream=true");
    status(&other, 400);
    other = call_id(ctx, kit, kit->user_key, HTTP_POST, id, "/cancel");
    status(&other, 400);
    expect(other.body, "background");
    other = call_id(ctx, kit, STR_NONE, HTTP_GET, id, "");
    status(&other, 401);
    other = call_id(ctx, kit, kit->other_key, HTTP_DELETE, id, "");
    status(&other, 404);
    other = call_id(ctx, kit, kit->user_key, HTTP_DELETE, id, "");
    status(&other, 200);
    expect(other.body, "\"deleted\":true");
    other = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "");
    status(&other, 404);
}
static void test_an_answer_is_found_by_its_id_until_it_is_deleted(void **state)
{
    (void) state;
    gateway_testkit_run(stored);
}

static void not_stored(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer made =
        post(ctx, kit, kit->user_key, "{\"model\":\"fake\",\"input\":\"x\",\"store\":false}");
    const char *id = id_of(ctx, &made);
    expect(made.body, "\"store\":false");
    struct answer got = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "");
    status(&got, 404);
    /* a failure leaves nothing either */
    testkit_reply(kit->base, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID});
    got = post(ctx, kit, kit->user_key, "{\"model\":\"fake\",\"input\":\"x\"}");
    status(&got, 400);
    struct answer refused =
        post(ctx, kit, kit->user_key, "{\"model\":\"fake\",\"input\":\"x\",\"background\":true}");
    status(&refused, 400);
    expect(refused.body, "background is not served");
    refused = post(ctx, kit, kit->user_key,
                   "{\"model\":\"fake\",\"input\":\"x\",\"conversation\":\"conv_1\"}");
    status(&refused, 400);
    expect(refused.body, "previous_response_id");
    refused = post(ctx, kit, kit->user_key,
                   "{\"model\":\"fake\",\"input\":\"x\",\"tools\":[{\"type\":\"web_search\"}]}");
    status(&refused, 400);
    expect(refused.body, "web_search");
}
static void test_what_is_not_to_be_stored_or_not_served_leaves_nothing(void **state)
{
    (void) state;
    gateway_testkit_run(not_stored);
}

/* ---- conversations ---- */

static void chains(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "one"});
    testkit_reply(kit->base, (struct fake_reply){.text = "two"});
    testkit_reply(kit->base, (struct fake_reply){.text = "three"});
    struct answer first =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"fake\",\"instructions\":\"be brief\",\"input\":\"a\"}");
    const char *id1 = id_of(ctx, &first);
    assert_int_equal(kit->base->prompt_messages, 2);
    struct answer second =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":[{\"role\":\"user\","
             "\"content\":\"b\"}]}",
             id1);
    const char *id2 = id_of(ctx, &second);
    /* a, one, b: instructions are not carried on */
    assert_int_equal(kit->base->prompt_messages, 3);
    assert_true(str_equal(answer_text(&second, S("previous_response_id")), str_from_cstr(id1)));
    struct answer third =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":\"c\",\"stream\":true}",
             id2);
    status(&third, 200);
    expect(third.body, "event: response.completed");
    assert_int_equal(kit->base->prompt_messages, 5);
    assert_true(str_equal(kit->base->prompt_last, S("c")));
    /* two may go on from the same answer */
    struct answer fork =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":\"d\"}", id1);
    status(&fork, 200);
    assert_int_equal(kit->base->prompt_messages, 3);
    /* a chain with a hole is not silently shorter */
    struct answer gone = call_id(ctx, kit, kit->user_key, HTTP_DELETE, id1, "");
    status(&gone, 200);
    gone = post(ctx, kit, kit->user_key,
                "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":\"e\"}", id2);
    status(&gone, 400);
    expect(gone.body, "deleted or has expired");
}
static void test_a_follow_up_builds_on_the_whole_conversation(void **state)
{
    (void) state;
    gateway_testkit_run(chains);
}

static void expire(struct context *ctx, struct gateway_testkit *kit, const char *id)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, keys_default_tenant());
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_RESPONSES);
    record_set_text(row, RESPONSES_ID, str_from_cstr(id));
    record_set_integer(row, RESPONSES_EXPIRES_AT, clock_unix_us(kit->base->clock) - 1);
    if (!store_commit(kit->base->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static void strangers(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer made = post(ctx, kit, kit->user_key, "{\"model\":\"fake\",\"input\":\"a\"}");
    const char *id = id_of(ctx, &made);
    int calls = kit->base->model_calls;
    struct answer refused =
        post(ctx, kit, kit->other_key,
             "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":\"b\"}", id);
    status(&refused, 400);
    expect(refused.body, "\"code\":\"previous_response_not_found\"");
    refused = post(ctx, kit, kit->user_key,
                   "{\"model\":\"fake\",\"previous_response_id\":\"resp_x\",\"input\":\"b\"}");
    status(&refused, 400);
    expect(refused.body, "Previous response with id 'resp_x' not found.");
    expect(refused.body, "\"param\":\"previous_response_id\"");
    expire(ctx, kit, id);
    refused = post(ctx, kit, kit->user_key,
                   "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":\"b\"}", id);
    status(&refused, 400);
    refused = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "");
    status(&refused, 404);
    assert_int_equal(kit->base->model_calls, calls);
}
static void test_ids_that_are_unknown_expired_or_anothers_are_the_same_refusal(void **state)
{
    (void) state;
    gateway_testkit_run(strangers);
}

static void purges(struct context *ctx, struct gateway_testkit *kit)
{
    struct records rows;
    struct error e = {0};
    struct answer made = post(ctx, kit, kit->user_key, "{\"model\":\"fake\",\"input\":\"a\"}");
    expire(ctx, kit, id_of(ctx, &made));
    for (int i = 0; i < RESPONSES_PURGE_EVERY; i++)
        (void) post(ctx, kit, kit->user_key, "{\"model\":\"fake\",\"input\":\"a\"}");
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_RESPONSES);
    query_where_integer(query, RESPONSES_EXPIRES_AT, FILTER_LESS, clock_unix_us(kit->base->clock));
    if (!store_list(kit->base->store, ctx, keys_default_tenant(), query, &rows, &e))
        fail_msg("%s", e.message);
    assert_int_equal(rows.count, 0);
}
static void test_expired_answers_are_removed_after_a_while(void **state)
{
    (void) state;
    gateway_testkit_run(purges);
}

static void tools(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.calls = {{"time", "{}"}, {"add", "{\"a\":1}"}},
                                                 .call_count = 2});
    testkit_reply(kit->base, (struct fake_reply){.text = "noon"});
    struct answer made = post(
        ctx, kit, kit->user_key,
        "{\"model\":\"fake\",\"input\":\"time?\",\"tools\":[{\"type\":\"function\",\"name\":"
        "\"time\",\"parameters\":{\"type\":\"object\"}},{\"type\":\"function\",\"name\":\"add\","
        "\"parameters\":null}]}");
    const char *id = id_of(ctx, &made);
    const struct json *output = json_get(made.json, S("output"));
    assert_int_equal(json_count(output), 2);
    const char *call1 =
        str_to_cstr(ctx->arena, json_str_or(json_at(output, 0), S("call_id"), STR_NONE));
    const char *call2 =
        str_to_cstr(ctx->arena, json_str_or(json_at(output, 1), S("call_id"), STR_NONE));
    struct answer next =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":[{\"type\":"
             "\"function_call_output\",\"call_id\":\"%s\",\"output\":\"12:00\"},{\"type\":"
             "\"function_call_output\",\"call_id\":\"%s\",\"output\":\"2\"}]}",
             id, call1, call2);
    status(&next, 200);
    assert_true(str_equal(output_text(&next), S("noon")));
    /* the question, the calls as one message, two results */
    assert_int_equal(kit->base->prompt_messages, 4);
    assert_true(str_equal(kit->base->prompt_last_result, S("2")));
}
static void test_results_of_tools_go_on_from_the_calls(void **state)
{
    (void) state;
    gateway_testkit_run(tools);
}

static void items(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "one"});
    struct answer first = post(ctx, kit, kit->user_key, "{\"model\":\"fake\",\"input\":\"a\"}");
    struct answer second =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"fake\",\"previous_response_id\":\"%s\",\"input\":[{\"role\":\"user\","
             "\"content\":\"b\"},{\"type\":\"message\",\"role\":\"user\",\"content\":[{\"type\":"
             "\"input_image\",\"image_url\":\"data:image/png;base64,AA\"}]}]}",
             id_of(ctx, &first));
    const char *id = id_of(ctx, &second);
    struct answer list = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "/input_items?order=asc");
    status(&list, 200);
    const char *folder = getenv("NEXUS_SAMPLES");
    if (folder) {
        FILE *file = fopen(
            str_to_cstr(ctx->arena, str_printf(ctx->arena, "%s/items_chain.json", folder)), "w");
        assert_non_null(file);
        fwrite(list.body.ptr, 1, list.body.len, file);
        fclose(file);
    }
    const struct json *data = json_get(list.json, S("data"));
    assert_int_equal(json_count(data), 4); /* a, one, b, the image */
    assert_true(
        str_equal(json_str_or(json_path(data, S("/1/content/0")), S("text"), STR_NONE), S("one")));
    assert_true(str_equal(json_str_or(json_path(data, S("/3/content/0")), S("detail"), STR_NONE),
                          S("auto")));
    str last = answer_text(&list, S("last_id"));
    struct answer page = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "/input_items?limit=1");
    status(&page, 200);
    assert_true(
        str_equal(answer_text(&page, S("first_id")), last)); /* newest first, ids are stable */
    expect(page.body, "\"has_more\":true");
    page = call_id(
        ctx, kit, kit->user_key, HTTP_GET, id,
        str_to_cstr(ctx->arena, str_printf(ctx->arena, "/input_items?limit=100&after=" STR_FMT,
                                           STR_ARG(last))));
    status(&page, 200);
    assert_int_equal(json_count(json_get(page.json, S("data"))), 3);
    expect(page.body, "\"has_more\":false");
    page = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "/input_items?limit=101");
    status(&page, 400);
    page = call_id(ctx, kit, kit->user_key, HTTP_GET, id, "/input_items?after=x");
    status(&page, 400);
    page = call_id(ctx, kit, kit->other_key, HTTP_GET, id, "/input_items");
    status(&page, 404);
}
static void test_input_items_are_listed_by_pages(void **state)
{
    (void) state;
    gateway_testkit_run(items);
}

/* ---- streams ---- */

static void streams(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "a few words"});
    struct http_exchange *exchange =
        ask_stream(ctx, kit, HTTP_POST, RESPONSES, kit->user_key,
                   S("{\"model\":\"fake\",\"input\":\"x\",\"stream\":true}"));
    str text = read_until(ctx, exchange, STR_NONE, S("event: response.completed"));
    expect(text, "event: response.created");
    expect(text, "event: response.output_text.delta");
    /* who has seen the end finds the answer */
    size_t at = str_find(text, S("\"id\":\"resp_"));
    assert_int_not_equal(at, STR_NOT_FOUND);
    str rest = str_from(text, at + 6), id, tail;
    assert_true(str_cut(rest, '"', &id, &tail));
    struct answer got = call_id(ctx, kit, kit->user_key, HTTP_GET, str_to_cstr(ctx->arena, id), "");
    status(&got, 200);
    assert_true(str_equal(output_text(&got), S("a few words")));
    (void) read_until(ctx, exchange, STR_NONE, STR_NONE);
    http_exchange_close(exchange);
    /* cut after the first piece: told in band, and not stored */
    testkit_reply(kit->base,
                  (struct fake_reply){.text = "more words", .cut = REASON_PROVIDER_NETWORK});
    exchange = ask_stream(ctx, kit, HTTP_POST, RESPONSES, kit->user_key,
                          S("{\"model\":\"fake\",\"input\":\"x\",\"stream\":true}"));
    text = read_until(ctx, exchange, STR_NONE, STR_NONE);
    http_exchange_close(exchange);
    expect(text, "event: error");
    expect_no(text, "response.completed");
}
static void test_a_streamed_answer_is_stored_before_its_end_is_told(void **state)
{
    (void) state;
    gateway_testkit_run(streams);
}

/* ---- agents ---- */

static void agents(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "one"});
    testkit_reply(kit->base, (struct fake_reply){.text = "two"});
    struct answer first =
        post(ctx, kit, kit->user_key, "{\"model\":\"agent:assistant\",\"input\":\"a\"}");
    const char *id = id_of(ctx, &first);
    str session = answer_header(&first, S("X-Nexus-Session"));
    (void) !context_sleep_ms(ctx, 5,
                             &(struct error){0}); /* a session's messages are in order of time */
    assert_int_equal(session.len, UUID_TEXT_BYTES);
    struct answer second =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"agent:assistant\",\"previous_response_id\":\"%s\",\"input\":\"b\"}", id);
    status(&second, 200);
    assert_true(str_equal(answer_header(&second, S("X-Nexus-Session")), session));
    assert_true(str_equal(output_text(&second), S("two")));
    assert_true(str_equal(kit->base->prompt_last, S("b")));
    testkit_reply(kit->base,
                  (struct fake_reply){.calls = {{"wipe", "{\"all\":true}"}}, .call_count = 1});
    struct answer waits = post(
        ctx, kit, kit->user_key,
        "{\"model\":\"agent:assistant\",\"previous_response_id\":\"%s\",\"input\":\"wipe it\"}",
        id_of(ctx, &second));
    status(&waits, 200);
    assert_true(str_equal(answer_header(&waits, S("Nexus-Status")), S("waiting")));
    expect(waits.body, "/api/v1/approvals/");
    expect(waits.body, "\"type\":\"mcp_approval_request\"");
    expect(waits.body, "\"name\":\"wipe\"");
    expect(waits.body, "\"server_label\":\"nexus\"");
}
static void test_an_agent_goes_on_in_its_session(void **state)
{
    (void) state;
    gateway_testkit_run(agents);
}

/* ---- an upstream that speaks Responses ---- */

static char seen[1 << 16]; /* the newest request, head and body */
static _Atomic int made_count, deleted_count;

#define UP_USAGE                                                                                   \
    "\"usage\":{\"input_tokens\":5,\"output_tokens\":2,\"total_tokens\":7,\"input_tokens_"         \
    "details\""                                                                                    \
    ":{\"cached_tokens\":1},\"output_tokens_details\":{\"reasoning_tokens\":0}}"
#define UP_OUTPUT                                                                                  \
    "\"output\":[{\"type\":\"web_search_call\",\"id\":\"ws_1\",\"status\":\"completed\"},"         \
    "{\"type\":\"message\",\"id\":\"msg_u\",\"role\":\"assistant\",\"status\":\"completed\","      \
    "\"content\":[{\"type\":\"output_text\",\"text\":\"from up\",\"annotations\":[]}]}]"

static void say_whole(int fd, const char *body)
{
    char head[256];
    snprintf(head, sizeof head,
             "HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             strlen(body));
    raw_send(fd, str_from_cstr(head));
    raw_send(fd, str_from_cstr(body));
}

static void say_stream(int fd, int number)
{
    char text[4096];
    snprintf(
        text, sizeof text,
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":"
        "\"resp_up%d\",\"x_new\":1.50}}\n\n"
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\","
        "\"delta\":\"from up\",\"output_index\":0}\n\n"
        "event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"id\":"
        "\"resp_up%d\",\"status\":\"completed\",\"x_new\":1.50," UP_OUTPUT "," UP_USAGE "}}\n\n",
        number, number);
    raw_send(fd, str_from_cstr(text));
}

static void serve(int fd, size_t index, void *argument)
{
    (void) index, (void) argument;
    for (;;) {
        char body[2048];
        str request = raw_read_request(fd);
        if (request.len == 0)
            return;
        ensure(request.len < sizeof seen);
        memcpy(seen, request.ptr, request.len);
        seen[request.len] = 0;
        if (str_starts_with(request, S("DELETE "))) {
            atomic_fetch_add(&deleted_count, 1);
            say_whole(fd, "{\"deleted\":true}");
            continue;
        }
        int number = atomic_fetch_add(&made_count, 1) + 1;
        if (strstr(seen, "\"stream\":true")) {
            say_stream(fd, number);
            return;
        }
        snprintf(body, sizeof body,
                 "{\"id\":\"resp_up%d\",\"object\":\"response\",\"status\":\"completed\",\"x_new\":"
                 "[1.50]," UP_OUTPUT "," UP_USAGE "}",
                 number);
        say_whole(fd, body);
    }
}

static struct raw_server upstream;
static struct provider *provider;
static struct gateway_testkit *current;

static struct http_client *client_of_loop(void *owner)
{
    (void) owner;
    return current->client;
}

/* "up" speaks Responses; "fake" is the testkit's own, of no dialect. */
static void configure(struct context *ctx, struct gateway_testkit *kit, struct provider *fake)
{
    struct error e = {0};
    str url = str_printf(ctx->arena, "http://127.0.0.1:%u/v1", upstream.port);
    struct provider_options options = {.name = S("up"),
                                       .base_url = url,
                                       .client_of_loop = client_of_loop,
                                       .speaks_responses = true};
    current = kit;
    ensure(provider_openai_create(&options, &provider, &e));
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = kit->base->defaults;
    settings->catalog = catalog_create();
    settings->agents = agent_set_create();
    struct model_target up = {.provider = provider, .model = S("real"), .weight = 1};
    struct model_target local = {.provider = fake, .model = S("fake"), .weight = 1};
    struct model models[] = {
        {.name = S("up"), .targets = &up, .target_count = 1, .max_output_tokens = 500},
        {.name = S("fake"), .targets = &local, .target_count = 1, .max_output_tokens = 500}};
    for (size_t i = 0; i < ARRAY_COUNT(models); i++)
        ensure(catalog_add(settings->catalog, &models[i], &e));
    orchestrator_reconfigure(kit->base->o, settings);
}

static void through(struct context *ctx, struct gateway_testkit *kit)
{
    const struct settings *settings = orchestrator_acquire(kit->base->o);
    struct provider *fake = catalog_at(settings->catalog, 0)->targets[0].provider;
    orchestrator_release(settings);
    configure(ctx, kit, fake);
    struct answer first =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"up\",\"x_mine\":{\"b\": 1.0},\"input\":\"a\",\"tools\":[{"
             "\"type\":\"web_search\"}]}");
    const char *id1 = id_of(ctx, &first);
    assert_string_equal(id1, "resp_up1"); /* the provider's own */
    expect(first.body, "\"x_new\":[1.50]");
    expect(str_from_cstr(seen), "POST /v1/responses ");
    expect(str_from_cstr(seen), "\"model\":\"real\",\"x_mine\":{\"b\": 1.0}");
    /* the same provider has the history: only the id goes up */
    struct answer second = post(ctx, kit, kit->user_key,
                                "{\"model\":\"up\",\"previous_response_id\":\"%s\",\"input\":\"b\","
                                "\"stream\":true}",
                                id1);
    status(&second, 200);
    expect(second.body, "event: response.completed");
    expect(second.body, "\"x_new\":1.50");
    expect(str_from_cstr(seen), "\"previous_response_id\":\"resp_up1\",\"input\":\"b\"");
    struct answer got = call_id(ctx, kit, kit->user_key, HTTP_GET, "resp_up2", "");
    status(&got, 200);
    expect(got.body, "from up");
    got = call_id(ctx, kit, kit->other_key, HTTP_GET, "resp_up2", "");
    status(&got, 404);
    /* another one gets the conversation itself, without what only the first one understands */
    struct answer third =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"fake\",\"previous_response_id\":\"resp_up2\",\"input\":\"c\"}");
    const char *id3 = id_of(ctx, &third);
    assert_int_equal(kit->base->prompt_messages, 5);
    struct answer fourth =
        post(ctx, kit, kit->user_key,
             "{\"model\":\"up\",\"previous_response_id\":\"%s\",\"input\":\"d\"}", id3);
    status(&fourth, 200);
    expect_no(str_from_cstr(seen), "previous_response_id");
    expect(str_from_cstr(seen), "\"content\":\"a\"");
    expect(str_from_cstr(seen), "from up");
    expect(str_from_cstr(seen), "\"content\":\"d\"");
    expect_no(str_from_cstr(seen), "web_search_call");
    /* deleting reaches the provider */
    got = call_id(ctx, kit, kit->user_key, HTTP_DELETE, "resp_up2", "");
    status(&got, 200);
    assert_int_equal(atomic_load(&deleted_count), 1);
    expect(str_from_cstr(seen), "DELETE /v1/responses/resp_up2 ");
    got = call_id(ctx, kit, kit->user_key, HTTP_DELETE, id3, "");
    status(&got, 200);
    assert_int_equal(atomic_load(&deleted_count), 1); /* ours alone */
}
static void test_a_provider_of_the_same_dialect_keeps_its_own_ids(void **state)
{
    (void) state;
    raw_server_start(&upstream, serve, NULL);
    gateway_testkit_run(through);
    raw_server_stop(&upstream);
    raw_free_all();
    provider_destroy(provider);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_is_found_by_its_id_until_it_is_deleted),
        cmocka_unit_test(test_what_is_not_to_be_stored_or_not_served_leaves_nothing),
        cmocka_unit_test(test_a_follow_up_builds_on_the_whole_conversation),
        cmocka_unit_test(test_ids_that_are_unknown_expired_or_anothers_are_the_same_refusal),
        cmocka_unit_test(test_expired_answers_are_removed_after_a_while),
        cmocka_unit_test(test_results_of_tools_go_on_from_the_calls),
        cmocka_unit_test(test_input_items_are_listed_by_pages),
        cmocka_unit_test(test_a_streamed_answer_is_stored_before_its_end_is_told),
        cmocka_unit_test(test_an_agent_goes_on_in_its_session),
        cmocka_unit_test(test_a_provider_of_the_same_dialect_keeps_its_own_ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
