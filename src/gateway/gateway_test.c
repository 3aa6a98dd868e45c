#include "gateway/gateway_testkit.h"

#include "base/arena.h"
#include "base/limits.h"
#include "gateway/routes.h"
#include "store/memory.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void check_status(struct answer answer, int wanted, int line)
{
    if (answer.status != wanted)
        fail_msg("line %d: %d instead of %d: " STR_FMT, line, answer.status, wanted,
                 STR_ARG(answer.body));
}
#define STATUS(given, wanted) check_status(given, wanted, __LINE__)

static void check_has(str text, str needle, int line)
{
    if (str_find(text, needle) == STR_NOT_FOUND)
        fail_msg("line %d: no " STR_FMT " in " STR_FMT, line, STR_ARG(needle), STR_ARG(text));
}
#define HAS(text, needle) check_has(text, S(needle), __LINE__)

static str session_path(struct context *ctx, struct gateway_testkit *kit, str key, const char *rest)
{
    struct answer made = ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), key, S("{}"));
    STATUS(made, 201);
    return str_printf(ctx->arena, "/api/v1/sessions/" STR_FMT "%s",
                      STR_ARG(answer_text(&made, S("id"))), rest);
}

/* ---- before a handler ---- */

static void health(struct context *ctx, struct gateway_testkit *kit)
{
    STATUS(ask(ctx, kit, HTTP_GET, S("/healthz"), STR_NONE, STR_NONE), 200);
    STATUS(ask(ctx, kit, HTTP_GET, S("/readyz"), STR_NONE, STR_NONE), 200);
    kit->is_ready = false;
    struct answer answer = ask(ctx, kit, HTTP_GET, S("/readyz"), STR_NONE, STR_NONE);
    STATUS(answer, 503);
    HAS(answer_text(&answer, S("detail")), "the test is not ready");
    STATUS(ask(ctx, kit, HTTP_GET, S("/"), STR_NONE, STR_NONE), 200);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/openapi.json"), STR_NONE, STR_NONE), 200);
}
static void test_health_needs_no_key_and_readiness_gives_its_reason(void **state)
{
    (void) state;
    gateway_testkit_run(health);
}

static enum commit_outcome no_room(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) owner, (void) ctx, (void) batch;
    return COMMIT_FAIL;
}

static void a_store_that_fails(struct context *ctx, struct gateway_testkit *kit)
{
    struct store *store = kit->base->store;
    memory_store_set_hooks(store, (struct memory_store_hooks){.before_commit = no_room});
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{}")), 503);
    struct answer answer = ask(ctx, kit, HTTP_GET, S("/readyz"), STR_NONE, STR_NONE);
    STATUS(answer, 503);
    HAS(answer_text(&answer, S("detail")), "the store cannot commit since 20");
    HAS(answer_text(&answer, S("detail")), "The store failed");
    STATUS(ask(ctx, kit, HTTP_GET, S("/healthz"), STR_NONE, STR_NONE), 200);
    memory_store_set_hooks(store, (struct memory_store_hooks){0});
    struct error e;
    assert_true(context_sleep_ms(ctx, STORE_SETTLE_MS, &e));
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{}")), 201);
    STATUS(ask(ctx, kit, HTTP_GET, S("/readyz"), STR_NONE, STR_NONE), 200);
}
static void test_a_store_that_cannot_commit_is_not_ready_until_it_can(void **state)
{
    (void) state;
    gateway_testkit_run(a_store_that_fails);
}

/* "/a/{id}/b" with something for each parameter. */
static str filled(struct arena *arena, str path)
{
    str rest = str_from(path, 1), segment, out = STR_NONE;
    while (str_next(&rest, '/', &segment))
        out = str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(out),
                         STR_ARG(str_equal(segment, S("{id}"))
                                     ? S("0190b7a4-5b1e-7c3a-8f2d-3a1b2c3d4e5f")
                                 : str_starts_with(segment, S("{")) ? S("user")
                                                                    : segment));
    return out;
}

static void misspelt(struct context *ctx, struct gateway_testkit *kit)
{
    int seen = 0;
    for (size_t i = 0; i < routes_count(); i++) {
        const struct api_route *route = routes_at(i);
        if (route->dialect != ROUTE_NATIVE ||
            (route->body != BODY_JSON && route->body != BODY_CHAT) || route->scopes)
            continue;
        struct answer answer = ask(ctx, kit, route->method, filled(ctx->arena, route->path),
                                   kit->admin_key, S("{\"zzz\":1}"));
        if (answer.status != 422)
            fail_msg(STR_FMT " took it: %d", STR_ARG(route->path), answer.status);
        HAS(answer_text(&answer, S("detail")), "unknown member \"zzz\"; known are: ");
        seen++;
    }
    assert_true(seen > 25);
    struct answer answer = ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key,
                               S("{\"double_txt\":\"steer\"}"));
    STATUS(answer, 422);
    HAS(answer_text(&answer, S("detail")),
        "unknown member \"double_txt\": is \"double_text\" meant? Known are: user_id ");
}
static void test_a_misspelt_member_of_any_native_body_is_refused_with_the_known_ones(void **state)
{
    (void) state;
    gateway_testkit_run(misspelt);
}

static void misspelt_below(struct context *ctx, struct gateway_testkit *kit)
{
    static const struct {
        str path, body;
        const char *told;
    } wrong[] = {
        {S_INIT("/api/v1/sessions"), S_INIT("{\"budget\":{\"token\":5}}"),
         "budget: unknown member \"token\": is \"tokens\" meant? Known are: tokens time_seconds "},
        {S_INIT("/api/v1/policies/decide"),
         S_INIT("{\"action\":\"output\",\"user\":{\"rol\":\"x\"}}"),
         "user: unknown member \"rol\": is \"role\" meant? "},
        {S_INIT("/api/v1/backtests"), S_INIT("{\"policy\":{\"modules\":[{\"nam\":\"x\"}]}}"),
         "policy: modules: unknown member \"nam\": "},
        {S_INIT("/api/v1/policies/decide"),
         S_INIT("{\"action\":\"output\",\"user\":{\"tenant\":\"other\"}}"),
         "user.tenant can only be"},
        {S_INIT("/api/v1/policies/decide"),
         S_INIT("{\"action\":\"output\",\"approval\":{\"status\":\"denied\"}}"),
         "approval.status can only be"}};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct answer answer =
            ask(ctx, kit, HTTP_POST, wrong[i].path, kit->admin_key, wrong[i].body);
        STATUS(answer, 422);
        check_has(answer_text(&answer, S("detail")), str_from_cstr(wrong[i].told), (int) i);
    }
}
static void test_a_misspelt_member_deeper_down_is_refused_too(void **state)
{
    (void) state;
    gateway_testkit_run(misspelt_below);
}

static void asked_again(struct context *ctx, struct gateway_testkit *kit)
{
    str path = S("/api/v1/policies/decide");
    struct answer answer = ask(ctx, kit, HTTP_POST, path, kit->admin_key,
                               S("{\"action\":\"tool.call\",\"tool\":{\"name\":\"x\"},"
                                 "\"session\":{\"budget\":{\"tokens\":7,\"time_ms\":5}},"
                                 "\"approval\":{\"approver\":\"bob\"}}"));
    STATUS(answer, 200);
    str shown = json_print(ctx->arena, json_get(answer.json, S("input")));
    HAS(shown, "\"time_ms\":5");
    answer = ask(ctx, kit, HTTP_POST, path, kit->admin_key, shown);
    STATUS(answer, 200);
    assert_true(str_equal(json_print(ctx->arena, json_get(answer.json, S("input"))), shown));
}
static void test_a_policy_input_that_was_shown_can_be_asked_again(void **state)
{
    (void) state;
    gateway_testkit_run(asked_again);
}

static void strangers(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = ask(ctx, kit, HTTP_GET, S("/api/v1/sessions"), STR_NONE, STR_NONE);
    STATUS(answer, 401);
    HAS(answer_header(&answer, S("WWW-Authenticate")), "Bearer");
    HAS(answer_text(&answer, S("type")), "/problems/unauthenticated");
    HAS(answer_header(&answer, S("Content-Type")), "application/problem+json");
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/sessions"), S("nxk_wrong"), STR_NONE), 401);
    STATUS(ask(ctx, kit, HTTP_GET, S("/metrics"), kit->user_key, STR_NONE), 403);
    STATUS(ask(ctx, kit, HTTP_GET, S("/metrics"), kit->admin_key, STR_NONE), 200);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->viewer_key, S("{}")), 403);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/audit"), kit->user_key, STR_NONE), 403);
    struct http_header own[] = {{S_INIT("x-api-key"), kit->user_key}};
    STATUS(ask_with(ctx, kit, HTTP_GET, S("/api/v1/me"), STR_NONE, STR_NONE, own, 1), 200);
}
static void test_who_has_no_key_no_role_or_no_scope_is_refused(void **state)
{
    (void) state;
    gateway_testkit_run(strangers);
}

static void wrong_paths(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = ask(ctx, kit, HTTP_GET, S("/api/v1/nothing"), kit->user_key, STR_NONE);
    STATUS(answer, 404);
    answer = ask(ctx, kit, HTTP_DELETE, S("/api/v1/sessions"), kit->user_key, STR_NONE);
    STATUS(answer, 405);
    HAS(answer_header(&answer, S("Allow")), "POST");
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/sessions/not-an-id"), kit->user_key, STR_NONE), 404);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{\"agent\":")), 400);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{\"agent\":7}")), 422);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("[]")), 422);
    struct http_header form[] = {
        {S_INIT("Content-Type"), S_INIT("application/x-www-form-urlencoded")}};
    STATUS(ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("a=b"), form, 1),
           415);
}
static void test_unknown_paths_methods_and_bodies_get_their_own_status(void **state)
{
    (void) state;
    gateway_testkit_run(wrong_paths);
}

static void origins(struct context *ctx, struct gateway_testkit *kit)
{
    struct http_header foreign[] = {{S_INIT("Origin"), S_INIT("https://evil.example")}};
    STATUS(ask_with(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->user_key, STR_NONE, foreign, 1), 403);
    struct http_header none[] = {{S_INIT("Origin"), S_INIT("null")}};
    STATUS(ask_with(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->user_key, STR_NONE, none, 1), 403);
    str same = str_printf(ctx->arena, "http://127.0.0.1:%u", http_server_port(kit->server));
    struct http_header own[] = {{S_INIT("Origin"), same}};
    STATUS(ask_with(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->user_key, STR_NONE, own, 1), 200);
}
static void test_pages_of_other_origins_get_nothing(void **state)
{
    (void) state;
    gateway_testkit_run(origins);
}

static void identities(struct context *ctx, struct gateway_testkit *kit)
{
    struct http_header sent[] = {
        {S_INIT("X-Request-Id"), S_INIT("my-request.1")},
        {S_INIT("traceparent"), S_INIT("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")},
    };
    struct answer answer =
        ask_with(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->user_key, STR_NONE, sent, 2);
    assert_true(str_equal(answer_header(&answer, S("X-Request-Id")), S("my-request.1")));
    HAS(answer_header(&answer, S("traceparent")), "00-0af7651916cd43dd8448eb211c80319c-");
    assert_true(str_find(answer_header(&answer, S("traceparent")), S("b7ad6b7169203331")) ==
                STR_NOT_FOUND);
    sent[0].value = S("not sane\x01");
    sent[1].value = S("00-00000000000000000000000000000000-b7ad6b7169203331-01");
    sent[0].value = S("no spaces please");
    answer = ask_with(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->user_key, STR_NONE, sent, 2);
    assert_int_equal(answer_header(&answer, S("X-Request-Id")).len, UUID_TEXT_BYTES);
    assert_true(str_find(answer_header(&answer, S("traceparent")),
                         S("00-00000000000000000000000000000000")) == STR_NOT_FOUND);
}
static void test_request_ids_and_traces_are_taken_over_when_they_are_sane(void **state)
{
    (void) state;
    gateway_testkit_run(identities);
}

static void rates(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = {0};
    for (int i = 0; i < 3; i++) {
        answer = ask(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->user_key, STR_NONE);
        STATUS(answer, 200);
    }
    assert_true(str_equal(answer_header(&answer, S("RateLimit-Limit")), S("3")));
    assert_true(str_equal(answer_header(&answer, S("RateLimit-Remaining")), S("0")));
    answer = ask(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->user_key, STR_NONE);
    STATUS(answer, 429);
    assert_true(answer_header(&answer, S("Retry-After")).len > 0);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/me"), kit->other_key, STR_NONE), 200);
}
static void test_one_user_over_the_rate_does_not_slow_another(void **state)
{
    (void) state;
    gateway_testkit_run_with(rates, (struct gateway_options){.requests_per_minute = 3});
}

/* ---- sessions and runs ---- */

static void sessions(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer made =
        ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key,
            S("{\"budget\":{\"tokens\":5000,\"cost_usd\":\"1.50\"},\"metadata\":{\"a\":1}}"));
    STATUS(made, 201);
    str path =
        str_printf(ctx->arena, "/api/v1/sessions/" STR_FMT, STR_ARG(answer_text(&made, S("id"))));
    assert_true(str_equal(answer_header(&made, S("Location")), path));
    assert_true(str_equal(answer_text(&made, S("user_id")), S("alice")));
    STATUS(ask(ctx, kit, HTTP_GET, path, kit->user_key, STR_NONE), 200);
    STATUS(ask(ctx, kit, HTTP_GET, path, kit->other_key, STR_NONE), 404);
    struct answer budget =
        ask(ctx, kit, HTTP_GET, str_printf(ctx->arena, STR_FMT "/budget", STR_ARG(path)),
            kit->user_key, STR_NONE);
    STATUS(budget, 200);
    assert_int_equal(json_i64_or(json_get(budget.json, S("limit")), S("tokens"), 0), 5000);
    struct answer list =
        ask(ctx, kit, HTTP_GET, S("/api/v1/sessions?limit=1"), kit->user_key, STR_NONE);
    STATUS(list, 200);
    assert_int_equal(json_count(json_get(list.json, S("items"))), 1);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/sessions?limit=0"), kit->user_key, STR_NONE), 400);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/sessions?cursor=zzz"), kit->user_key, STR_NONE), 400);
    STATUS(ask(ctx, kit, HTTP_DELETE, path, kit->user_key, STR_NONE), 204);
    struct answer refused =
        ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{\"user_id\":\"bob\"}"));
    STATUS(refused, 403);
    STATUS(
        ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->admin_key, S("{\"user_id\":\"bob\"}")),
        201);
}
static void test_a_session_is_opened_shown_to_its_owner_and_closed(void **state)
{
    (void) state;
    gateway_testkit_run(sessions);
}

static void messages(struct context *ctx, struct gateway_testkit *kit)
{
    str path = session_path(ctx, kit, kit->user_key, "/messages");
    struct answer started =
        ask(ctx, kit, HTTP_POST, path, kit->user_key, S("{\"content\":\"hello\"}"));
    STATUS(started, 202);
    str run = str_printf(ctx->arena, "/api/v1/runs/" STR_FMT,
                         STR_ARG(answer_text(&started, S("run_id"))));
    str events = str_printf(ctx->arena, STR_FMT "/events", STR_ARG(run));
    struct answer stream = ask(ctx, kit, HTTP_GET, events, kit->user_key, STR_NONE);
    STATUS(stream, 200);
    HAS(answer_header(&stream, S("Content-Type")), "text/event-stream");
    HAS(stream.body, "id: 1\nevent: run.started\ndata: {");
    HAS(stream.body, "event: run.completed\n");
    HAS(stream.body, "\"content\":\"done\"");
    struct answer shown = ask(ctx, kit, HTTP_GET, run, kit->user_key, STR_NONE);
    assert_true(str_equal(answer_text(&shown, S("status")), S("completed")));
    STATUS(ask(ctx, kit, HTTP_GET, run, kit->other_key, STR_NONE), 404);
    STATUS(ask(ctx, kit, HTTP_GET, events, kit->other_key, STR_NONE), 404);
    struct answer list = ask(ctx, kit, HTTP_GET, path, kit->user_key, STR_NONE);
    assert_int_equal(json_count(json_get(list.json, S("items"))), 2);
    STATUS(ask(ctx, kit, HTTP_POST, path, kit->user_key, S("{\"content\":\"\"}")), 422);
    STATUS(ask(ctx, kit, HTTP_POST, path, kit->user_key, S("{\"content\":5}")), 422);
    STATUS(
        ask(ctx, kit, HTTP_POST, path, kit->user_key, S("{\"content\":\"x\",\"model\":\"nope\"}")),
        404);
}
static void test_a_message_starts_a_run_whose_events_tell_all(void **state)
{
    (void) state;
    gateway_testkit_run(messages);
}

static str events_from(struct context *ctx, struct gateway_testkit *kit, str events,
                       const char *last)
{
    struct http_header from[] = {{S_INIT("Last-Event-ID"), str_from_cstr(last)}};
    struct answer answer = ask_with(ctx, kit, HTTP_GET, events, kit->user_key, STR_NONE, from, 1);
    return answer.status == 204 ? S("204") : answer.body;
}

static void resumes(struct context *ctx, struct gateway_testkit *kit)
{
    str path = session_path(ctx, kit, kit->user_key, "/messages");
    struct answer whole =
        ask(ctx, kit, HTTP_POST, path, kit->user_key, S("{\"content\":\"hello\",\"stream\":true}"));
    STATUS(whole, 200);
    str run_id = answer_header(&whole, S("Nexus-Run-Id"));
    str events = str_printf(ctx->arena, "/api/v1/runs/" STR_FMT "/events", STR_ARG(run_id));
    size_t third = str_find(whole.body, S("id: 3\n"));
    assert_true(third != STR_NOT_FOUND);
    str rest = events_from(ctx, kit, events, "2");
    assert_true(
        str_equal(str_from(rest, str_find(rest, S("id: 3\n"))), str_from(whole.body, third)));
    struct http_header json[] = {{S_INIT("Accept"), S_INIT("application/json")}};
    struct answer list = ask_with(ctx, kit, HTTP_GET, events, kit->user_key, STR_NONE, json, 1);
    size_t count = json_count(json_get(list.json, S("events")));
    assert_true(count >= 6);
    assert_int_equal(json_type(json_get(list.json, S("next"))), JSON_NULL);
    assert_true(
        str_equal(events_from(ctx, kit, events,
                              str_to_cstr(ctx->arena, str_printf(ctx->arena, "%zu", count))),
                  S("204")));
    struct http_header wrong[] = {{S_INIT("Last-Event-ID"), S_INIT("x")}};
    STATUS(ask_with(ctx, kit, HTTP_GET, events, kit->user_key, STR_NONE, wrong, 1), 400);
}
static void test_a_reader_goes_on_where_it_was_and_misses_nothing(void **state)
{
    (void) state;
    gateway_testkit_run(resumes);
}

static void revoked(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.delay_ms = 20000});
    struct answer made =
        ask(ctx, kit, HTTP_POST, S("/api/v1/keys"), kit->user_key, S("{\"name\":\"laptop\"}"));
    STATUS(made, 201);
    str key = answer_text(&made, S("key")), path = session_path(ctx, kit, key, "/messages");
    struct http_exchange *stream =
        ask_stream(ctx, kit, HTTP_POST, path, key, S("{\"content\":\"x\",\"stream\":true}"));
    read_until(ctx, stream, STR_NONE, S("run.started"));
    str one = str_printf(ctx->arena, "/api/v1/keys/" STR_FMT, STR_ARG(answer_text(&made, S("id"))));
    STATUS(ask(ctx, kit, HTTP_DELETE, one, kit->user_key, STR_NONE), 204);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/me"), key, STR_NONE), 401);
    int64_t since_ns = context_now_ns(ctx);
    read_until(ctx, stream, STR_NONE, STR_NONE);
    assert_true(context_now_ns(ctx) - since_ns < INT64_C(5000000000));
    http_exchange_close(stream);
    struct answer again = ask(ctx, kit, HTTP_DELETE, one, kit->other_key, STR_NONE);
    STATUS(again, 404);
}
static void test_a_revoked_key_ends_its_streams_within_five_seconds(void **state)
{
    (void) state;
    gateway_testkit_run(revoked);
}

static void idempotent(struct context *ctx, struct gateway_testkit *kit)
{
    struct http_header key[] = {{S_INIT("Idempotency-Key"), S_INIT("k1")}};
    struct answer first = ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key,
                                   S("{\"agent\":\"assistant\"}"), key, 1);
    STATUS(first, 201);
    struct answer second = ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key,
                                    S("{\"agent\":\"assistant\"}"), key, 1);
    STATUS(second, 201);
    assert_true(str_equal(first.body, second.body));
    assert_true(str_equal(answer_header(&second, S("Idempotency-Replayed")), S("true")));
    struct answer other =
        ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{}"), key, 1);
    STATUS(other, 409);
    HAS(answer_text(&other, S("type")), "idempotency_mismatch");
    struct answer bob =
        ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->other_key, S("{}"), key, 1);
    STATUS(bob, 201);
    key[0].value = S("k2"); /* a refused request is forgotten */
    STATUS(ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key,
                    S("{\"agent\":\"nope\"}"), key, 1),
           404);
    STATUS(ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key,
                    S("{\"agent\":\"nope\"}"), key, 1),
           404);
}
static void remembered_too_long(struct context *ctx, struct gateway_testkit *kit)
{
    struct http_header key[] = {{S_INIT("Idempotency-Key"), S_INIT("k1")}};
    struct batch batch;
    struct error e = {0};
    struct answer first =
        ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{}"), key, 1);
    STATUS(first, 201);
    batch_init(&batch, ctx->arena, keys_default_tenant());
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_IDEMPOTENCY);
    record_set_text(row, IDEMPOTENCY_PRINCIPAL, S("alice"));
    record_set_text(row, IDEMPOTENCY_IDEMPOTENCY_KEY, S("k1"));
    record_set_integer(row, IDEMPOTENCY_CREATED_AT,
                       clock_unix_us(kit->base->clock) - GATEWAY_IDEMPOTENCY_MS * 1000 - 1000000);
    assert_true(store_commit(kit->base->store, ctx, &batch, &e));
    struct answer second =
        ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{}"), key, 1);
    STATUS(second, 201);
    assert_false(str_equal(answer_text(&first, S("id")), answer_text(&second, S("id"))));
    struct answer third =
        ask_with(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key, S("{}"), key, 1);
    assert_true(str_equal(second.body, third.body));
}
static void test_an_idempotency_key_is_new_again_after_a_day(void **state)
{
    (void) state;
    gateway_testkit_run(remembered_too_long);
}

static void test_the_same_key_and_request_make_one_session(void **state)
{
    (void) state;
    gateway_testkit_run(idempotent);
}

/* ---- approvals ---- */

static str approval_of(struct context *ctx, struct gateway_testkit *kit, struct answer *approval)
{
    struct answer list = {0};
    for (int i = 0; i < 100 && json_count(json_get(list.json, S("items"))) == 0; i++) {
        assert_true(context_sleep_ms(ctx, 20, NULL));
        list = ask(ctx, kit, HTTP_GET, S("/api/v1/approvals?status=pending"), kit->admin_key,
                   STR_NONE);
    }
    *approval = list;
    approval->json = json_at(json_get(list.json, S("items")), 0);
    return str_printf(ctx->arena, "/api/v1/approvals/" STR_FMT,
                      STR_ARG(answer_text(approval, S("id"))));
}

static void approvals(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer approval;
    testkit_reply(kit->base, (struct fake_reply){.calls = {{"wipe", "{\"x\":\"a\\u202eb\"}"}},
                                                 .call_count = 1});
    str path = session_path(ctx, kit, kit->user_key, "/messages");
    struct answer started =
        ask(ctx, kit, HTTP_POST, path, kit->user_key, S("{\"content\":\"wipe it\"}"));
    STATUS(started, 202);
    str one = approval_of(ctx, kit, &approval);
    HAS(answer_text(&approval, S("shown")), "\\u{202e}");
    str yes = str_printf(ctx->arena, "{\"decision\":\"approve\",\"digest\":\"" STR_FMT "\"}",
                         STR_ARG(answer_text(&approval, S("digest"))));
    STATUS(ask(ctx, kit, HTTP_POST, one, kit->user_key, yes), 403);
    STATUS(ask(ctx, kit, HTTP_POST, one, kit->admin_key,
               S("{\"decision\":\"approve\",\"digest\":\"00\"}")),
           409);
    STATUS(ask(ctx, kit, HTTP_POST, one, kit->admin_key,
               S("{\"decision\":\"perhaps\",\"digest\":\"00\"}")),
           422);
    struct answer decided = ask(ctx, kit, HTTP_POST, one, kit->admin_key, yes);
    STATUS(decided, 200);
    STATUS(ask(ctx, kit, HTTP_POST, one, kit->admin_key, yes), 409);
    str events = str_printf(ctx->arena, "/api/v1/runs/" STR_FMT "/events",
                            STR_ARG(answer_text(&started, S("run_id"))));
    struct answer stream = ask(ctx, kit, HTTP_GET, events, kit->user_key, STR_NONE);
    HAS(stream.body, "event: approval.decided");
    HAS(stream.body, "event: run.completed");
}
static void test_an_approval_is_shown_whole_and_decided_by_another_person(void **state)
{
    (void) state;
    gateway_testkit_run(approvals);
}

/* ---- chat completions ---- */

#define CHAT S("/v1/chat/completions")

static void agent_chat(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                               S("{\"model\":\"agent:assistant\",\"messages\":[{\"role\":"
                                 "\"system\",\"content\":\"be brief\"},"
                                 "{\"role\":\"user\",\"content\":\"hi\"}]}"));
    STATUS(answer, 200);
    HAS(answer.body, "\"content\":\"done\"");
    HAS(answer.body, "\"finish_reason\":\"stop\"");
    assert_int_equal(json_i64_or(json_get(answer.json, S("usage")), S("prompt_tokens"), 0), 10);
    assert_int_equal(answer_header(&answer, S("Nexus-Run-Id")).len, UUID_TEXT_BYTES);
    answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                 S("{\"model\":\"agent:assistant\",\"stream\":true,\"stream_options\":{\"include_"
                   "usage\":true},"
                   "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    STATUS(answer, 200);
    HAS(answer.body, "\"content\":\"done\"");
    HAS(answer.body, "\"usage\":{");
    assert_true(str_ends_with(answer.body, S("data: [DONE]\n\n")));
    struct answer missing =
        ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
            S("{\"model\":\"agent:nope\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    STATUS(missing, 404);
    HAS(missing.body, "{\"error\":{");
    missing = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                  S("{\"model\":\"nope\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    STATUS(missing, 404);
    HAS(missing.body, "fake");
    STATUS(ask(ctx, kit, HTTP_POST, CHAT, STR_NONE, S("{}")), 401);
    STATUS(ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
               S("{\"model\":\"fake\",\"model\":\"pair\",\"messages\":[1]}")),
           400);
    STATUS(ask(ctx, kit, HTTP_POST, CHAT, kit->user_key, S("{\"model\":\"fake\",\"messages\":[]}")),
           400);
}
static void test_an_agent_answers_as_a_model(void **state)
{
    (void) state;
    gateway_testkit_run(agent_chat);
}

static void agent_waits(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
    struct answer answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                               S("{\"model\":\"agent:assistant\",\"messages\":[{\"role\":\"user\","
                                 "\"content\":\"wipe\"}]}"));
    STATUS(answer, 200);
    assert_true(str_equal(answer_header(&answer, S("Nexus-Status")), S("waiting")));
    HAS(answer.body, "/api/v1/approvals/");
    testkit_reply(kit->base, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID});
    answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                 S("{\"model\":\"agent:assistant\",\"stream\":true,\"messages\":[{\"role\":"
                   "\"user\",\"content\":\"x\"}]}"));
    STATUS(answer, 400);
    HAS(answer.body, "{\"error\":{");
}
static void test_a_run_that_waits_or_fails_ends_the_reply_with_its_status(void **state)
{
    (void) state;
    gateway_testkit_run(agent_waits);
}

static void plain_chat(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(
        kit->base,
        (struct fake_reply){.text = "hello there",
                            .usage = {.input_tokens = 4, .output_tokens = 2, .is_reported = true}});
    struct answer answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                               S("{\"model\":\"fake\",\"stream\":true,\"messages\":[{\"role\":"
                                 "\"user\",\"content\":\"hi\"}]}"));
    STATUS(answer, 200);
    HAS(answer.body, "hello there");
    assert_true(str_find(answer.body, S("\"usage\":{")) == STR_NOT_FOUND);
    assert_true(str_ends_with(answer.body, S("data: [DONE]\n\n")));
    struct answer usage =
        ask(ctx, kit, HTTP_GET, S("/api/v1/usage?by=model,user"), kit->user_key, STR_NONE);
    STATUS(usage, 200);
    assert_int_equal(json_i64_or(json_get(usage.json, S("total")), S("tokens"), 0), 6);
    HAS(usage.body, "\"user_id\":\"alice\"");
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/usage?user_id=bob"), kit->user_key, STR_NONE), 403);

    testkit_reply(kit->base, (struct fake_reply){.text = "half", .cut = REASON_PROVIDER_NETWORK});
    struct http_exchange *cut = ask_stream(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                                           S("{\"model\":\"fake\",\"stream\":true,\"messages\":[{"
                                             "\"role\":\"user\",\"content\":\"hi\"}]}"));
    str text = read_until(ctx, cut, STR_NONE, STR_NONE);
    http_exchange_close(cut);
    HAS(text, "half");
    HAS(text, "{\"error\":{");
    assert_true(str_find(text, S("[DONE]")) == STR_NOT_FOUND);

    testkit_reply(kit->base, (struct fake_reply){.refusal = REASON_PROVIDER_OVERLOADED});
    answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                 S("{\"model\":\"pair\",\"stream\":true,\"messages\":[{\"role\":\"user\","
                   "\"content\":\"hi\"}]}"));
    STATUS(answer, 200);
    assert_int_equal(kit->base->model_calls, 4);
}
static void test_a_plain_call_is_settled_cut_in_band_and_fails_over(void **state)
{
    (void) state;
    gateway_testkit_run(plain_chat);
}

static void over_budget(struct context *ctx, struct gateway_testkit *kit)
{
    STATUS(ask(ctx, kit, HTTP_PUT, S("/api/v1/budgets/user/alice"), kit->user_key,
               S("{\"tokens\":5}")),
           403);
    struct answer set = ask(ctx, kit, HTTP_PUT, S("/api/v1/budgets/user/alice"), kit->admin_key,
                            S("{\"tokens\":5}"));
    STATUS(set, 200);
    assert_int_equal(json_i64_or(json_get(set.json, S("remaining")), S("tokens"), 0), 5);
    struct answer answer =
        ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
            S("{\"model\":\"fake\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    STATUS(answer, 402);
    assert_true(str_equal(answer_header(&answer, S("x-should-retry")), S("false")));
    assert_int_equal(kit->base->model_calls, 0);
    struct answer agent = ask(
        ctx, kit, HTTP_POST, CHAT, kit->user_key,
        S("{\"model\":\"agent:assistant\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"));
    STATUS(agent, 402);
    assert_int_equal(kit->base->model_calls, 0);
}
static void test_who_is_over_budget_gets_402_and_nothing_is_sent_upstream(void **state)
{
    (void) state;
    gateway_testkit_run(over_budget);
}

/* ---- the rest of the table ---- */

static void catalogs(struct context *ctx, struct gateway_testkit *kit)
{
    static const str paths[] = {S_INIT("/v1/models"),
                                S_INIT("/v1/models/fake"),
                                S_INIT("/v1/models/agent:assistant"),
                                S_INIT("/api/v1/models"),
                                S_INIT("/api/v1/tools"),
                                S_INIT("/api/v1/tools/lookup"),
                                S_INIT("/api/v1/agents"),
                                S_INIT("/api/v1/agents/assistant"),
                                S_INIT("/api/v1/agents/assistant/capabilities"),
                                S_INIT("/api/v1/policies/rules"),
                                S_INIT("/api/v1/me"),
                                S_INIT("/api/v1/runs"),
                                S_INIT("/api/v1/approvals"),
                                S_INIT("/api/v1/usage"),
                                S_INIT("/api/v1/keys")};
    for (size_t i = 0; i < ARRAY_COUNT(paths); i++) {
        struct answer answer = ask(ctx, kit, HTTP_GET, paths[i], kit->user_key, STR_NONE);
        STATUS(answer, 200);
        assert_non_null(answer.json);
    }
    STATUS(ask(ctx, kit, HTTP_GET, S("/v1/models/nope"), kit->user_key, STR_NONE), 404);
    struct answer targets =
        ask(ctx, kit, HTTP_GET, S("/api/v1/models/fake/targets"), kit->admin_key, STR_NONE);
    STATUS(targets, 200);
    assert_true(str_equal(
        json_str_or(json_path(targets.json, S("/targets/0")), S("state"), STR_NONE), S("ok")));
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/models/fake/targets"), kit->user_key, STR_NONE), 403);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/models/nope/targets"), kit->admin_key, STR_NONE),
           404);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/tools/nope"), kit->user_key, STR_NONE), 404);
    STATUS(ask(ctx, kit, HTTP_GET, S("/api/v1/agents/nope"), kit->user_key, STR_NONE), 404);
    struct answer invoked = ask(ctx, kit, HTTP_POST, S("/api/v1/tools/lookup/invoke"),
                                kit->user_key, S("{\"input\":{}}"));
    STATUS(invoked, 200);
    assert_int_equal(json_i64_or(invoked.json, S("fuel"), 0), 7);
    struct answer verified =
        ask(ctx, kit, HTTP_POST, S("/api/v1/audit/verify"), kit->admin_key, STR_NONE);
    STATUS(verified, 200);
    assert_true(json_bool_or(verified.json, S("ok"), false));
    struct answer audit =
        ask(ctx, kit, HTTP_GET, S("/api/v1/audit?action=key.create"), kit->admin_key, STR_NONE);
    STATUS(audit, 200);
    assert_int_equal(json_count(json_get(audit.json, S("items"))), 4);
    struct answer decided =
        ask(ctx, kit, HTTP_POST, S("/api/v1/policies/decide"), kit->admin_key,
            S("{\"action\":\"tool.call\",\"tool\":{\"name\":\"wipe\",\"category\":\"system\"}}"));
    STATUS(decided, 200);
    assert_true(str_equal(answer_text(&decided, S("verdict")), S("needs_approval")));
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/policies/decide"), kit->user_key,
               S("{\"action\":\"run.start\"}")),
           403);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/policies/reload"), kit->admin_key, STR_NONE), 200);
}
static void test_what_there_is_can_be_listed_shown_and_used(void **state)
{
    (void) state;
    gateway_testkit_run(catalogs);
}

static void key_rules(struct context *ctx, struct gateway_testkit *kit)
{
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/keys"), kit->user_key,
               S("{\"name\":\"x\",\"role\":\"admin\"}")),
           403);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/keys"), kit->user_key,
               S("{\"name\":\"x\",\"scopes\":[\"platform\"]}")),
           403);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/keys"), kit->user_key,
               S("{\"name\":\"x\",\"user_id\":\"bob\"}")),
           403);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/keys"), kit->user_key,
               S("{\"name\":\"x\",\"expires_at\":\"2001-01-01T00:00:00Z\"}")),
           422);
    STATUS(ask(ctx, kit, HTTP_POST, S("/api/v1/keys"), kit->user_key,
               S("{\"name\":\"x\",\"scopes\":[\"root\"]}")),
           422);
    struct answer list = ask(ctx, kit, HTTP_GET, S("/api/v1/keys"), kit->user_key, STR_NONE);
    assert_int_equal(json_count(json_get(list.json, S("items"))), 1);
    assert_true(str_find(list.body, S("\"hash\"")) == STR_NOT_FOUND);
    list = ask(ctx, kit, HTTP_GET, S("/api/v1/keys"), kit->admin_key, STR_NONE);
    assert_int_equal(json_count(json_get(list.json, S("items"))), 4);
}
static void test_nobody_makes_a_key_with_more_rights_than_their_own(void **state)
{
    (void) state;
    gateway_testkit_run(key_rules);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_health_needs_no_key_and_readiness_gives_its_reason),
        cmocka_unit_test(test_a_store_that_cannot_commit_is_not_ready_until_it_can),
        cmocka_unit_test(test_a_misspelt_member_of_any_native_body_is_refused_with_the_known_ones),
        cmocka_unit_test(test_a_misspelt_member_deeper_down_is_refused_too),
        cmocka_unit_test(test_a_policy_input_that_was_shown_can_be_asked_again),
        cmocka_unit_test(test_who_has_no_key_no_role_or_no_scope_is_refused),
        cmocka_unit_test(test_unknown_paths_methods_and_bodies_get_their_own_status),
        cmocka_unit_test(test_pages_of_other_origins_get_nothing),
        cmocka_unit_test(test_request_ids_and_traces_are_taken_over_when_they_are_sane),
        cmocka_unit_test(test_one_user_over_the_rate_does_not_slow_another),
        cmocka_unit_test(test_a_session_is_opened_shown_to_its_owner_and_closed),
        cmocka_unit_test(test_a_message_starts_a_run_whose_events_tell_all),
        cmocka_unit_test(test_a_reader_goes_on_where_it_was_and_misses_nothing),
        cmocka_unit_test(test_a_revoked_key_ends_its_streams_within_five_seconds),
        cmocka_unit_test(test_the_same_key_and_request_make_one_session),
        cmocka_unit_test(test_an_idempotency_key_is_new_again_after_a_day),
        cmocka_unit_test(test_an_approval_is_shown_whole_and_decided_by_another_person),
        cmocka_unit_test(test_an_agent_answers_as_a_model),
        cmocka_unit_test(test_a_run_that_waits_or_fails_ends_the_reply_with_its_status),
        cmocka_unit_test(test_a_plain_call_is_settled_cut_in_band_and_fails_over),
        cmocka_unit_test(test_who_is_over_budget_gets_402_and_nothing_is_sent_upstream),
        cmocka_unit_test(test_what_there_is_can_be_listed_shown_and_used),
        cmocka_unit_test(test_nobody_makes_a_key_with_more_rights_than_their_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
