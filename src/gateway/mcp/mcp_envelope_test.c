#include "gateway/mcp/mcp_envelope.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define META                                                                                       \
    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","                       \
    "\"io.modelcontextprotocol/clientCapabilities\":{}}"
#define LIST "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/list\",\"params\":{" META "}}"
#define CALL                                                                                       \
    "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":\"tools/"                                        \
    "call\",\"params\":{\"name\":\"lookup\"," META "}}"

struct reading {
    struct arena *arena;
    struct mcp_envelope out;
    struct mcp_refusal refusal;
    struct error e;
    bool ok;
};

static struct reading *read_one(struct arena *arena, struct mcp_head head, str body)
{
    struct reading *r = ARENA_NEW(arena, struct reading);
    r->ok = mcp_envelope_read(arena, &head, body, &r->out, &r->refusal, &r->e);
    return r;
}

static struct mcp_head modern(str method, str name)
{
    return (struct mcp_head){.version = S("2026-07-28"), .method = method, .name = name};
}

static void refuses(struct mcp_head head, const char *body, int64_t code)
{
    OWNED(arena) arena = arena_create(0);
    struct reading *r = read_one(arena, head, str_from_cstr(body));
    assert_false(r->ok);
    if (r->refusal.code != code)
        fail_msg("%lld instead of %lld: %s", (long long) r->refusal.code, (long long) code,
                 r->e.message);
    assert_int_equal(r->refusal.status, 400);
    assert_true(r->e.message[0] != 0);
}

static void test_a_stateless_request_is_known_by_its_meta(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct reading *r = read_one(arena, modern(S("tools/list"), STR_NONE), S(LIST));
    assert_true(r->ok);
    assert_int_equal(r->out.era, MCP_ERA_STATELESS);
    assert_true(str_equal(r->out.revision->name, S("2026-07-28")));
    assert_false(r->out.can_open_urls);
    r = read_one(arena, modern(S("tools/call"), S("lookup")), S(CALL));
    assert_true(r->ok);
    r = read_one(arena, modern(S("tools/call"), S("=?base64?bG9va3Vw?=")), S(CALL));
    assert_true(r->ok);
}

static void test_headers_that_differ_from_the_body_are_refused(void **state)
{
    (void) state;
    refuses(modern(S("prompts/list"), STR_NONE), LIST, MCP_HEADER_MISMATCH);
    refuses(modern(S("TOOLS/LIST"), STR_NONE), LIST, MCP_HEADER_MISMATCH);
    refuses(modern(STR_NONE, STR_NONE), LIST, MCP_HEADER_MISMATCH);
    refuses(modern(S("tools/call"), STR_NONE), CALL, MCP_HEADER_MISMATCH);
    refuses(modern(S("tools/call"), S("Lookup")), CALL, MCP_HEADER_MISMATCH);
    refuses(modern(S("tools/call"), S("=?base64?***?=")), CALL, MCP_HEADER_MISMATCH);
    refuses((struct mcp_head){.method = S("tools/list")}, LIST, MCP_HEADER_MISMATCH);
    refuses((struct mcp_head){.version = S("2025-11-25"), .method = S("tools/list")}, LIST,
            MCP_HEADER_MISMATCH);
}

static void test_meta_without_version_or_capabilities_is_refused(void **state)
{
    (void) state;
    refuses(modern(S("tools/list"), STR_NONE),
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", MCP_INVALID_PARAMS);
    refuses(modern(S("tools/list"), STR_NONE),
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{\"_meta\":{"
            "\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}",
            MCP_INVALID_PARAMS);
    refuses(modern(S("tools/call"), S("x")),
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":5," META
            "}}",
            MCP_INVALID_PARAMS);
}

static void test_an_unknown_version_is_told_the_known_ones(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct mcp_head head = {.version = S("2031-01-01"), .method = S("tools/list")};
    struct reading *r =
        read_one(arena, head,
                 S("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/list\",\"params\":{\"_meta\":{"
                   "\"io.modelcontextprotocol/protocolVersion\":\"2031-01-01\"}}}"));
    assert_false(r->ok);
    assert_int_equal(r->refusal.code, MCP_UNSUPPORTED_VERSION);
    assert_true(str_find(r->refusal.data, S("2026-07-28")) != STR_NOT_FOUND);
    assert_true(str_find(r->refusal.data, S("2031-01-01")) != STR_NOT_FOUND);
    int64_t id;
    assert_true(json_to_i64(r->refusal.id, &id) && id == 3);
    head.session = S("some session");
    refuses(head, "{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"tools/list\"}",
            MCP_UNSUPPORTED_VERSION);
}

static void test_without_meta_it_is_the_session_era(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct mcp_head head = {.version = S("2025-06-18"), .session = S("s")};
    struct reading *r =
        read_one(arena, head, S("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}"));
    assert_true(r->ok);
    assert_int_equal(r->out.era, MCP_ERA_SESSION);
    r = read_one(arena, (struct mcp_head){0},
                 S("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{"
                   "\"_meta\":{\"progressToken\":\"t\"}}}"));
    assert_true(r->ok);
    assert_non_null(r->out.progress_token);
}

static void test_batches_garbage_and_answers_are_refused(void **state)
{
    (void) state;
    refuses((struct mcp_head){0}, "[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]",
            MCP_INVALID_REQUEST);
    refuses((struct mcp_head){0}, "{", MCP_PARSE_ERROR);
    refuses((struct mcp_head){0}, "{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"ping\"}",
            MCP_INVALID_REQUEST);
    refuses(modern(STR_NONE, STR_NONE), "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}",
            MCP_INVALID_REQUEST);
}

static void check_argument(const char *value, const char *header, bool is_good)
{
    OWNED(arena) arena = arena_create(0);
    struct error e = {0};
    struct http_headers headers = {0};
    const struct json *schema, *arguments;
    str text = S("{\"type\":\"object\",\"properties\":{\"region\":{\"type\":\"string\","
                 "\"x-mcp-header\":\"Region\"},\"deep\":{\"type\":\"object\",\"properties\":{"
                 "\"count\":{\"type\":\"integer\",\"x-mcp-header\":\"Count\"}}}}}");
    assert_true(json_parse(arena, text, (struct json_limits){0}, &schema, &e));
    assert_true(json_parse(arena, str_from_cstr(value), (struct json_limits){0}, &arguments, &e));
    if (header)
        http_headers_add(&headers, arena,
                         str_find(str_from_cstr(value), S("deep")) != STR_NOT_FOUND
                             ? S("mcp-param-count")
                             : S("Mcp-Param-Region"),
                         str_from_cstr(header));
    assert_int_equal(mcp_header_check_arguments(arena, &headers, schema, arguments, &e), is_good);
}

static void test_mirrored_arguments_must_be_what_the_body_says(void **state)
{
    (void) state;
    check_argument("{\"region\":\"us\"}", "us", true);
    check_argument("{\"region\":\"us\"}", "=?base64?dXM=?=", true);
    check_argument("{\"region\":\"us\"}", "eu", false);
    check_argument("{\"region\":\"us\"}", NULL, false);
    check_argument("{\"region\":\"us\"}", "=?base64?!?=", false);
    check_argument("{\"region\":null}", NULL, true);
    check_argument("{}", NULL, true);
    check_argument("{}", "us", false);
    check_argument("{\"deep\":{\"count\":42}}", "42", true);
    check_argument("{\"deep\":{\"count\":42}}", "42.0", true);
    check_argument("{\"deep\":{\"count\":42}}", "43", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stateless_request_is_known_by_its_meta),
        cmocka_unit_test(test_headers_that_differ_from_the_body_are_refused),
        cmocka_unit_test(test_meta_without_version_or_capabilities_is_refused),
        cmocka_unit_test(test_an_unknown_version_is_told_the_known_ones),
        cmocka_unit_test(test_without_meta_it_is_the_session_era),
        cmocka_unit_test(test_batches_garbage_and_answers_are_refused),
        cmocka_unit_test(test_mirrored_arguments_must_be_what_the_body_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
