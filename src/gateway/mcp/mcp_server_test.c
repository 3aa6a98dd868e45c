#include "gateway/gateway_testkit.h"

#include "base/arena.h"
#include "base/limits.h"
#include "mcp/mcp.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define META                                                                                       \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                       \
    "\"io.modelcontextprotocol/clientCapabilities\":{}}"
#define META_URLS                                                                                  \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                       \
    "\"io.modelcontextprotocol/clientCapabilities\":{\"elicitation\":{\"url\":{}}}}"

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
#define HAS_NOT(text, needle) assert_true(str_find(text, S(needle)) == STR_NOT_FOUND)

/* ---- asking ---- */

static struct answer post(struct context *ctx, struct gateway_testkit *kit, str key, str session,
                          str body)
{
    struct http_header headers[] = {{S_INIT("Accept"), S_INIT("application/json")},
                                    {S_INIT("Mcp-Session-Id"), session},
                                    {S_INIT("MCP-Protocol-Version"), S_INIT("2025-11-25")}};
    return ask_with(ctx, kit, HTTP_POST, S("/mcp"), key, body, headers,
                    str_is_empty(session) ? 1 : ARRAY_COUNT(headers));
}

static str initialize(struct context *ctx, struct gateway_testkit *kit, str key)
{
    struct answer answer =
        post(ctx, kit, key, STR_NONE,
             S("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{"
               "\"protocolVersion\":\"2025-11-25\",\"capabilities\":{},"
               "\"clientInfo\":{\"name\":\"test\",\"version\":\"1\"}}}"));
    STATUS(answer, 200);
    HAS(answer.body, "\"protocolVersion\":\"2025-11-25\"");
    return answer_header(&answer, S("Mcp-Session-Id"));
}

/* In the stateless era; name empty: the method names nothing. */
static struct answer ask_stateless(struct context *ctx, struct gateway_testkit *kit, str key,
                                   str method, str name, const char *params)
{
    str body = str_printf(
        ctx->arena, "{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"" STR_FMT "\",\"params\":{%s}}",
        STR_ARG(method), params);
    struct http_header headers[] = {{S_INIT("MCP-Protocol-Version"), S_INIT("2026-07-28")},
                                    {S_INIT("Mcp-Method"), method},
                                    {S_INIT("Accept"), S_INIT("application/json")},
                                    {S_INIT("Mcp-Name"), name}};
    return ask_with(ctx, kit, HTTP_POST, S("/mcp"), key, body, headers,
                    str_is_empty(name) ? 3 : ARRAY_COUNT(headers));
}

static int64_t error_code(const struct answer *answer)
{
    int64_t code = 0;
    (void) json_to_i64(json_path(answer->json, S("/error/code")), &code);
    return code;
}

/* ---- before a method ---- */

static void strangers(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = post(ctx, kit, STR_NONE, STR_NONE, S("{}"));
    STATUS(answer, 401);
    HAS(answer_header(&answer, S("WWW-Authenticate")),
        "/.well-known/oauth-protected-resource/mcp\"");
    HAS(answer.body, "\"jsonrpc\"");
    answer =
        ask(ctx, kit, HTTP_GET, S("/.well-known/oauth-protected-resource/mcp"), STR_NONE, STR_NONE);
    STATUS(answer, 200);
    HAS(answer.body, "/mcp\"");
    struct http_header evil[] = {{S_INIT("Origin"), S_INIT("https://evil.example.com")}};
    STATUS(ask_with(ctx, kit, HTTP_POST, S("/mcp"), kit->user_key, S("{}"), evil, 1), 403);
    struct http_header picky[] = {{S_INIT("Accept"), S_INIT("text/html")}};
    STATUS(ask_with(ctx, kit, HTTP_POST, S("/mcp"), kit->user_key, S("{}"), picky, 1), 406);
    STATUS(ask(ctx, kit, HTTP_GET, S("/mcp"), kit->user_key, STR_NONE), 405);
    STATUS(ask(ctx, kit, HTTP_DELETE, S("/mcp"), kit->user_key, STR_NONE), 405);
    STATUS(ask(ctx, kit, HTTP_PUT, S("/mcp"), kit->user_key, S("{}")), 405);
}
static void test_who_has_no_key_or_comes_from_elsewhere_is_refused(void **state)
{
    (void) state;
    gateway_testkit_run(strangers);
}

static void garbage(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = post(ctx, kit, kit->user_key, STR_NONE, S("{\"jsonrpc\""));
    STATUS(answer, 400);
    assert_int_equal(error_code(&answer), MCP_PARSE_ERROR);
    answer = post(ctx, kit, kit->user_key, STR_NONE,
                  S("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]"));
    STATUS(answer, 400);
    assert_int_equal(error_code(&answer), MCP_INVALID_REQUEST);
    answer = post(ctx, kit, kit->user_key, STR_NONE,
                  S("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}"));
    STATUS(answer, 400);
    HAS(answer.body, "initialize");
    struct http_header plain[] = {{S_INIT("Content-Type"), S_INIT("text/plain")}};
    STATUS(ask_with(ctx, kit, HTTP_POST, S("/mcp"), kit->user_key, S("{}"), plain, 1), 415);
    STATUS(ask(ctx, kit, HTTP_POST, S("/mcp"), kit->user_key, STR_NONE), 400);
}
static void test_garbage_batches_and_requests_without_a_session_are_refused(void **state)
{
    (void) state;
    gateway_testkit_run(garbage);
}

/* ---- the session era ---- */

static void sessions(struct context *ctx, struct gateway_testkit *kit)
{
    str session = initialize(ctx, kit, kit->user_key);
    assert_int_equal(session.len, 43);
    struct answer answer =
        post(ctx, kit, kit->user_key, session,
             S("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"));
    STATUS(answer, 202);
    assert_int_equal(answer.body.len, 0);
    answer = post(ctx, kit, kit->user_key, session,
                  S("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}"));
    STATUS(answer, 200);
    HAS(answer.body, "\"result\":{}");
    answer = post(ctx, kit, kit->user_key, session,
                  S("{\"jsonrpc\":\"2.0\",\"id\":\"3\",\"method\":\"logging/setLevel\"}"));
    STATUS(answer, 200);
    assert_int_equal(error_code(&answer), MCP_METHOD_NOT_FOUND);
    HAS(answer.body, "\"id\":\"3\"");
    STATUS(post(ctx, kit, kit->other_key, session,
                S("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}")),
           404);
    struct http_header end[] = {{S_INIT("Mcp-Session-Id"), session}};
    STATUS(ask_with(ctx, kit, HTTP_DELETE, S("/mcp"), kit->other_key, STR_NONE, end, 1), 404);
    STATUS(ask_with(ctx, kit, HTTP_DELETE, S("/mcp"), kit->user_key, STR_NONE, end, 1), 204);
    STATUS(post(ctx, kit, kit->user_key, session,
                S("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}")),
           404);
}
static void test_a_session_lives_from_initialize_to_delete_for_one_principal(void **state)
{
    (void) state;
    gateway_testkit_run(sessions);
}

/* ---- tools ---- */

static void lists(struct context *ctx, struct gateway_testkit *kit)
{
    kit->base->denied[0] = S("pay");
    struct answer answer = ask_stateless(ctx, kit, kit->user_key, S("tools/list"), STR_NONE, META);
    STATUS(answer, 200);
    HAS(answer.body, "\"resultType\":\"complete\"");
    HAS(answer.body, "\"ttlMs\":");
    HAS(answer.body, "\"cacheScope\":\"private\"");
    HAS(answer.body, "\"name\":\"agent_assistant\"");
    HAS(answer.body, "\"name\":\"lookup\"");
    HAS(answer.body, "\"readOnlyHint\":true");
    HAS_NOT(answer.body, "\"name\":\"pay\"");
    str first = answer.body;
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/list"), STR_NONE, META);
    assert_true(str_equal(first, answer.body));
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/list"), STR_NONE,
                           META ",\"cursor\":\"t.lookup\"");
    STATUS(answer, 200);
    HAS_NOT(answer.body, "\"name\":\"lookup\"");
    HAS(answer.body, "\"name\":\"notify\"");
    answer =
        ask_stateless(ctx, kit, kit->user_key, S("tools/list"), STR_NONE, META ",\"cursor\":\"x\"");
    assert_int_equal(error_code(&answer), MCP_INVALID_PARAMS);
    answer = ask_stateless(ctx, kit, kit->viewer_key, S("tools/list"), STR_NONE, META);
    HAS(answer.body, "\"tools\":[]");
}
static void test_a_list_has_what_the_caller_may_use_always_in_one_order(void **state)
{
    (void) state;
    gateway_testkit_run(lists);
}

static void calls(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_tool(kit->base, "lookup")->output = "{\"found\":7}";
    struct answer answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("lookup"),
                                         META ",\"name\":\"lookup\",\"arguments\":{\"q\":1}");
    STATUS(answer, 200);
    HAS(answer.body, "\"structuredContent\":{\"found\":7}");
    HAS(answer.body, "\"isError\":false");
    assert_true(str_equal(kit->base->tool_user, S("alice")));
    HAS(kit->base->tool_input, "\"q\":1");
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("wipe"),
                           META ",\"name\":\"wipe\",\"arguments\":{}");
    STATUS(answer, 200);
    HAS(answer.body, "\"isError\":true");
    HAS(answer.body, "needs_approval: ");
    answer = ask_stateless(ctx, kit, kit->viewer_key, S("tools/call"), S("lookup"),
                           META ",\"name\":\"lookup\",\"arguments\":{}");
    HAS(answer.body, "\"isError\":true");
    HAS(answer.body, "viewer");
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("nothing"),
                           META ",\"name\":\"nothing\"");
    assert_int_equal(error_code(&answer), MCP_INVALID_PARAMS);
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("lookup"),
                           META ",\"name\":\"lookup\",\"arguments\":[1]");
    assert_int_equal(error_code(&answer), MCP_INVALID_PARAMS);
    testkit_tool(kit->base, "lookup")->failure = REASON_FUEL;
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("lookup"),
                           META ",\"name\":\"lookup\",\"arguments\":{}");
    HAS(answer.body, "fuel_limit: ");
}
static void test_calls_go_through_policy_and_their_failures_are_for_a_model_to_read(void **state)
{
    (void) state;
    gateway_testkit_run(calls);
}

static void poor(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer made = ask(ctx, kit, HTTP_POST, S("/api/v1/sessions"), kit->user_key,
                             S("{\"budget\":{\"tool_calls\":0}}"));
    STATUS(made, 201);
    const char *params = str_to_cstr(
        ctx->arena,
        str_printf(ctx->arena,
                   "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":"
                   "\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{},"
                   "\"nexus/session_id\":\"" STR_FMT "\"},\"name\":\"lookup\",\"arguments\":{}",
                   STR_ARG(answer_text(&made, S("id")))));
    struct answer answer =
        ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("lookup"), params);
    HAS(answer.body, "over_budget: ");
    answer = ask_stateless(ctx, kit, kit->other_key, S("tools/call"), S("lookup"), params);
    HAS(answer.body, "not_found: ");
}
static void test_a_call_in_a_session_counts_against_its_budget(void **state)
{
    (void) state;
    gateway_testkit_run(poor);
}

/* ---- agents ---- */

static void agents(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "forty-two"});
    struct answer answer =
        ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("agent_assistant"),
                      META ",\"name\":\"agent_assistant\",\"arguments\":{\"message\":\"what?\"}");
    STATUS(answer, 200);
    HAS(answer.body, "\"answer\":\"forty-two\"");
    HAS(answer.body, "\"status\":\"completed\"");
    str run = STR_NONE, session = STR_NONE;
    assert_true(json_to_str(json_path(answer.json, S("/result/structuredContent/run_id")), &run));
    assert_true(
        json_to_str(json_path(answer.json, S("/result/structuredContent/session_id")), &session));
    str uri = str_printf(ctx->arena, "nexus://runs/" STR_FMT, STR_ARG(run));
    const char *params = str_to_cstr(
        ctx->arena, str_printf(ctx->arena, META ",\"uri\":\"" STR_FMT "\"", STR_ARG(uri)));
    answer = ask_stateless(ctx, kit, kit->user_key, S("resources/read"), uri, params);
    HAS(answer.body, "\\\"answer\\\":\\\"forty-two\\\"");
    answer = ask_stateless(ctx, kit, kit->other_key, S("resources/read"), uri, params);
    assert_int_equal(error_code(&answer), MCP_INVALID_PARAMS);
    params = str_to_cstr(ctx->arena,
                         str_printf(ctx->arena,
                                    META ",\"name\":\"agent_assistant\",\"arguments\":{"
                                         "\"message\":\"again\",\"session_id\":\"" STR_FMT "\"}",
                                    STR_ARG(session)));
    answer = ask_stateless(ctx, kit, kit->other_key, S("tools/call"), S("agent_assistant"), params);
    HAS(answer.body, "not_found: ");
    testkit_reply(kit->base, (struct fake_reply){.text = "still"});
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("agent_assistant"), params);
    HAS(answer.body, "\"answer\":\"still\"");
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("agent_assistant"),
                           META ",\"name\":\"agent_assistant\",\"arguments\":{\"text\":\"x\"}");
    HAS(answer.body, "schema: ");
}
static void test_an_agent_answers_and_its_run_can_be_read_by_its_owner(void **state)
{
    (void) state;
    gateway_testkit_run(agents);
}

static void approve(struct context *ctx, struct gateway_testkit *kit, str approval)
{
    str path = str_printf(ctx->arena, "/api/v1/approvals/" STR_FMT, STR_ARG(approval));
    struct answer seen = ask(ctx, kit, HTTP_GET, path, kit->admin_key, STR_NONE);
    STATUS(seen, 200);
    STATUS(ask(ctx, kit, HTTP_POST, path, kit->admin_key,
               str_printf(ctx->arena, "{\"decision\":\"approve\",\"digest\":\"" STR_FMT "\"}",
                          STR_ARG(answer_text(&seen, S("digest"))))),
           200);
}

static void waits(struct context *ctx, struct gateway_testkit *kit)
{
    static const char arguments[] =
        ",\"name\":\"agent_assistant\",\"arguments\":{\"message\":\"wipe it\"}";
    testkit_reply(kit->base, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
    testkit_reply(kit->base, (struct fake_reply){.text = "wiped"});
    struct answer answer =
        ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("agent_assistant"),
                      str_to_cstr(ctx->arena, str_printf(ctx->arena, META_URLS "%s", arguments)));
    STATUS(answer, 200);
    HAS(answer.body, "\"resultType\":\"input_required\"");
    HAS(answer.body, "\"mode\":\"url\"");
    str state = STR_NONE, approval = STR_NONE;
    assert_true(json_to_str(json_path(answer.json, S("/result/requestState")), &state));
    struct json_iter it = json_iter(json_path(answer.json, S("/result/inputRequests")));
    assert_true(json_next(&it, &approval, NULL));
    const char *again = str_to_cstr(
        ctx->arena, str_printf(ctx->arena, META_URLS "%s,\"requestState\":\"" STR_FMT "\"",
                               arguments, STR_ARG(state)));
    struct answer stolen =
        ask_stateless(ctx, kit, kit->other_key, S("tools/call"), S("agent_assistant"), again);
    assert_int_equal(error_code(&stolen), MCP_INVALID_PARAMS);
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("agent_assistant"), again);
    HAS(answer.body, "input_required");
    const char *declined = str_to_cstr(
        ctx->arena,
        str_printf(ctx->arena, "%s,\"inputResponses\":{\"x\":{\"action\":\"decline\"}}", again));
    answer =
        ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("agent_assistant"), declined);
    HAS(answer.body, "\"status\":\"waiting\"");
    approve(ctx, kit, approval);
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("agent_assistant"), again);
    HAS(answer.body, "\"answer\":\"wiped\"");
    assert_int_equal(testkit_tool(kit->base, "wipe")->effects, 1);
}
static void test_a_run_that_waits_asks_for_input_and_goes_on_with_its_state(void **state)
{
    (void) state;
    gateway_testkit_run(waits);
}

static void waits_plainly(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.calls = {{"wipe", "{}"}}, .call_count = 1});
    str session = initialize(ctx, kit, kit->user_key);
    struct answer answer =
        post(ctx, kit, kit->user_key, session,
             S("{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{"
               "\"name\":\"agent_assistant\",\"arguments\":{\"message\":\"wipe it\"}}}"));
    STATUS(answer, 200);
    HAS(answer.body, "\"status\":\"waiting\"");
    HAS(answer.body, "/api/v1/approvals/");
    HAS(answer.body, "\"isError\":false");
}
static void test_without_urls_a_run_that_waits_says_so_with_the_approvals_link(void **state)
{
    (void) state;
    gateway_testkit_run(waits_plainly);
}

/* ---- streams ---- */

static struct http_exchange *stream(struct context *ctx, struct gateway_testkit *kit,
                                    enum http_method method, str key, str session, str last,
                                    str body)
{
    struct error e = {0};
    struct http_exchange *exchange;
    struct http_headers headers = {0};
    http_headers_add(&headers, ctx->arena, S("Authorization"),
                     str_printf(ctx->arena, "Bearer " STR_FMT, STR_ARG(key)));
    http_headers_add(&headers, ctx->arena, S("Accept"), S("text/event-stream, application/json"));
    if (!str_is_empty(session))
        http_headers_add(&headers, ctx->arena, S("Mcp-Session-Id"), session);
    if (!str_is_empty(last))
        http_headers_add(&headers, ctx->arena, S("Last-Event-ID"), last);
    if (!str_is_empty(body))
        http_headers_add(&headers, ctx->arena, S("Content-Type"), S("application/json"));
    struct http_client_request request = {.method = method, .headers = &headers, .body = body};
    request.url = (struct http_url){
        .host = S("127.0.0.1"), .port = http_server_port(kit->server), .path_query = S("/mcp")};
    if (!http_client_send(kit->client, ctx, &request, &exchange, &e))
        fail_msg("%s", e.message);
    return exchange;
}

#define AGENT_CALL                                                                                 \
    "{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"tools/call\",\"params\":{"                         \
    "\"name\":\"agent_assistant\",\"arguments\":{\"message\":\"go\"},"                             \
    "\"_meta\":{\"progressToken\":\"p1\"}}}"

/* The id of the last whole event in a text. */
static str last_id(str text)
{
    str id = STR_NONE, line;
    while (str_next(&text, '\n', &line))
        (void) str_strip_prefix(line, S("id: "), &id);
    return id;
}

static void progress(struct context *ctx, struct gateway_testkit *kit)
{
    testkit_reply(kit->base, (struct fake_reply){.text = "one two", .pause_ms = 50});
    str session = initialize(ctx, kit, kit->user_key);
    struct http_exchange *exchange =
        stream(ctx, kit, HTTP_POST, kit->user_key, session, STR_NONE, S(AGENT_CALL));
    assert_int_equal(http_exchange_status(exchange), 200);
    str text = read_until(ctx, exchange, STR_NONE, STR_NONE);
    http_exchange_close(exchange);
    HAS(text, "notifications/progress");
    HAS(text, "\"progressToken\":\"p1\"");
    HAS(text, "\"id\":9,\"result\"");
    HAS(text, "one two");
    /* From the beginning once more, by the id of the first event: the end is told again from the journal. */
    str first = str_slice(text, 0, str_find(text, S("\n")));
    assert_true(str_strip_prefix(first, S("id: "), &first));
    exchange = stream(ctx, kit, HTTP_GET, kit->user_key, session, first, STR_NONE);
    assert_int_equal(http_exchange_status(exchange), 200);
    text = read_until(ctx, exchange, STR_NONE, STR_NONE);
    http_exchange_close(exchange);
    HAS(text, "\"id\":9,\"result\"");
    str others = initialize(ctx, kit, kit->other_key);
    exchange = stream(ctx, kit, HTTP_GET, kit->other_key, others, first, STR_NONE);
    assert_int_equal(http_exchange_status(exchange), 404);
    http_exchange_close(exchange);
}
static void test_progress_is_streamed_and_a_stream_goes_on_after_its_last_event(void **state)
{
    (void) state;
    gateway_testkit_run(progress);
}

static void comes_back(struct context *ctx, struct gateway_testkit *kit)
{
    struct error e = {0};
    testkit_reply(kit->base, (struct fake_reply){.text = "late", .delay_ms = 400});
    str session = initialize(ctx, kit, kit->user_key);
    struct http_exchange *exchange =
        stream(ctx, kit, HTTP_POST, kit->user_key, session, STR_NONE, S(AGENT_CALL));
    str id = last_id(read_until(ctx, exchange, STR_NONE, S("data: ")));
    assert_true(id.len > 0);
    id = str_copy(ctx->arena, id);
    http_exchange_close(exchange); /* the connection breaks */
    assert_true(context_sleep_ms(ctx, 50, &e));
    exchange = stream(ctx, kit, HTTP_GET, kit->user_key, session, id, STR_NONE);
    str text = read_until(ctx, exchange, STR_NONE, STR_NONE);
    http_exchange_close(exchange);
    HAS(text, "\"answer\":\"late\"");
    assert_true(context_sleep_ms(ctx, 400, &e)); /* the first request notices and lets go */
}
static void test_a_client_that_lost_its_connection_comes_back_for_the_answer(void **state)
{
    (void) state;
    gateway_testkit_run(comes_back);
}

static void cancels(struct context *ctx, struct gateway_testkit *kit)
{
    struct error e = {0};
    testkit_reply(kit->base, (struct fake_reply){.text = "never", .delay_ms = 20000});
    str session = initialize(ctx, kit, kit->user_key);
    struct http_exchange *exchange =
        stream(ctx, kit, HTTP_POST, kit->user_key, session, STR_NONE, S(AGENT_CALL));
    str begun = read_until(ctx, exchange, STR_NONE, S("data: "));
    STATUS(post(ctx, kit, kit->user_key, session,
                S("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{"
                  "\"requestId\":\"9\"}}")),
           202); /* another id: text is no number */
    assert_true(context_sleep_ms(ctx, 30, &e));
    STATUS(post(ctx, kit, kit->user_key, session,
                S("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{"
                  "\"requestId\":9}}")),
           202);
    str text = read_until(ctx, exchange, begun, STR_NONE);
    http_exchange_close(exchange);
    HAS_NOT(text, "\"result\"");
    str runs = ask(ctx, kit, HTTP_GET, S("/api/v1/runs"), kit->user_key, STR_NONE).body;
    for (int i = 0; i < 100 && str_find(runs, S("\"status\":\"cancelled\"")) == STR_NOT_FOUND;
         i++) {
        assert_true(context_sleep_ms(ctx, 20, &e));
        runs = ask(ctx, kit, HTTP_GET, S("/api/v1/runs"), kit->user_key, STR_NONE).body;
    }
    HAS(runs, "\"status\":\"cancelled\"");
}
static void test_a_cancelled_call_cancels_its_run_and_gets_no_answer(void **state)
{
    (void) state;
    gateway_testkit_run(cancels);
}

static void listens(struct context *ctx, struct gateway_testkit *kit)
{
    struct http_exchange *exchange;
    struct error e = {0};
    str session = initialize(ctx, kit, kit->user_key);
    exchange = stream(ctx, kit, HTTP_GET, kit->user_key, session, S("lists.0"), STR_NONE);
    assert_int_equal(http_exchange_status(exchange), 200);
    str text = read_until(ctx, exchange, STR_NONE, S("list_changed"));
    HAS(text, "notifications/tools/list_changed");
    struct http_exchange *newer =
        stream(ctx, kit, HTTP_GET, kit->user_key, session, STR_NONE, STR_NONE);
    assert_int_equal(http_exchange_status(newer), 200);
    text = read_until(ctx, exchange, STR_NONE, STR_NONE); /* the older one ends */
    http_exchange_close(exchange);
    http_exchange_close(newer);
    assert_true(context_sleep_ms(ctx, 20, &e));
}
static void test_the_sessions_stream_tells_changed_lists_and_the_newest_wins(void **state)
{
    (void) state;
    gateway_testkit_run(listens);
}

/* ---- the stateless era ---- */

static void stateless(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer =
        ask_stateless(ctx, kit, kit->user_key, S("server/discover"), STR_NONE, META);
    STATUS(answer, 200);
    HAS(answer.body, "\"supportedVersions\":[\"2026-07-28\"");
    HAS(answer.body, "\"capabilities\":{\"tools\"");
    answer = ask_stateless(ctx, kit, kit->user_key, S("ping"), STR_NONE, META);
    STATUS(answer, 404);
    assert_int_equal(error_code(&answer), MCP_METHOD_NOT_FOUND);
    answer = ask_stateless(ctx, kit, kit->user_key, S("initialize"), STR_NONE, META);
    STATUS(answer, 404);
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/list"), STR_NONE, "\"x\":1");
    STATUS(answer, 400);
    assert_int_equal(error_code(&answer), MCP_INVALID_PARAMS);
    answer = ask_stateless(ctx, kit, kit->user_key, S("tools/call"), S("other"),
                           META ",\"name\":\"lookup\",\"arguments\":{}");
    STATUS(answer, 400);
    assert_int_equal(error_code(&answer), MCP_HEADER_MISMATCH);
    answer = ask_stateless(ctx, kit, kit->user_key, S("resources/read"), S("nexus://nothing"),
                           META ",\"uri\":\"nexus://nothing\"");
    assert_int_equal(error_code(&answer), MCP_INVALID_PARAMS);
    answer = ask_stateless(ctx, kit, kit->user_key, S("prompts/list"), STR_NONE, META);
    HAS(answer.body, "\"prompts\":[]");
}
static void test_the_stateless_era_has_its_own_methods_and_statuses(void **state)
{
    (void) state;
    gateway_testkit_run(stateless);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_has_no_key_or_comes_from_elsewhere_is_refused),
        cmocka_unit_test(test_garbage_batches_and_requests_without_a_session_are_refused),
        cmocka_unit_test(test_a_session_lives_from_initialize_to_delete_for_one_principal),
        cmocka_unit_test(test_a_list_has_what_the_caller_may_use_always_in_one_order),
        cmocka_unit_test(test_calls_go_through_policy_and_their_failures_are_for_a_model_to_read),
        cmocka_unit_test(test_a_call_in_a_session_counts_against_its_budget),
        cmocka_unit_test(test_an_agent_answers_and_its_run_can_be_read_by_its_owner),
        cmocka_unit_test(test_a_run_that_waits_asks_for_input_and_goes_on_with_its_state),
        cmocka_unit_test(test_without_urls_a_run_that_waits_says_so_with_the_approvals_link),
        cmocka_unit_test(test_progress_is_streamed_and_a_stream_goes_on_after_its_last_event),
        cmocka_unit_test(test_a_client_that_lost_its_connection_comes_back_for_the_answer),
        cmocka_unit_test(test_a_cancelled_call_cancels_its_run_and_gets_no_answer),
        cmocka_unit_test(test_the_sessions_stream_tells_changed_lists_and_the_newest_wins),
        cmocka_unit_test(test_the_stateless_era_has_its_own_methods_and_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
