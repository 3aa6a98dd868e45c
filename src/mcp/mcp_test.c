#include "mcp/mcp.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(256u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const struct json *parse(str text)
{
    struct error e;
    const struct json *root;
    assert_true(json_parse(arena, text, (struct json_limits){0}, &root, &e));
    return root;
}

static void assert_str(str actual, str expected)
{
    if (!str_equal(actual, expected))
        fail_msg("\"" STR_FMT "\" != \"" STR_FMT "\"", STR_ARG(actual), STR_ARG(expected));
}

/* ---- messages ---- */

static void test_messages_of_each_kind_are_read(void **state)
{
    struct error e;
    int64_t code, id;
    struct mcp_message m;
    (void) state;
    assert_true(
        mcp_read(arena,
                 S("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"_meta\":{"
                   "\"progressToken\":1},\"name\":\"x\"}}"),
                 &m, &code, &e));
    assert_int_equal(m.kind, MCP_REQUEST);
    assert_true(json_to_i64(m.id, &id) && id == 7);
    assert_str(m.method, S("tools/call"));
    assert_non_null(json_get(m.meta, MCP_META_PROGRESS_TOKEN));

    assert_true(mcp_read(arena, S("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}"),
                         &m, &code, &e));
    assert_int_equal(m.kind, MCP_NOTIFICATION);
    assert_null(m.id);
    assert_null(m.params);

    assert_true(
        mcp_read(arena, S("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{}}"), &m, &code, &e));
    assert_int_equal(m.kind, MCP_RESULT);

    assert_true(
        mcp_read(arena,
                 S("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":"
                   "\"no\",\"data\":[1]}}"),
                 &m, &code, &e));
    assert_int_equal(m.kind, MCP_ERROR);
    assert_null(m.id);
    assert_int_equal(m.error_code, -32700);
    assert_str(m.error_message, S("no"));
    assert_int_equal(json_count(m.error_data), 1);
}

static void test_what_is_no_message_gets_the_right_code(void **state)
{
    static const struct {
        str text;
        int64_t code;
    } cases[] = {
        {S_INIT("{"), MCP_PARSE_ERROR},
        {S_INIT(""), MCP_PARSE_ERROR},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"jsonrpc\":\"2.0\"}"), MCP_PARSE_ERROR},
        {S_INIT("[]"), MCP_INVALID_REQUEST},
        {S_INIT("[{\"jsonrpc\":\"2.0\",\"method\":\"ping\",\"id\":1}]"), MCP_INVALID_REQUEST},
        {S_INIT("{}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"1.0\",\"method\":\"x\"}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"method\":1}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"id\":null}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"id\":1.5}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"id\":1,\"params\":[]}"),
         MCP_INVALID_PARAMS},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"id\":1,\"result\":{}}"),
         MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"id\":1}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"result\":{}}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":3}"), MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{},\"error\":{\"code\":1}}"),
         MCP_INVALID_REQUEST},
        {S_INIT("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":\"x\"}}"), MCP_INVALID_REQUEST},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct error e;
        int64_t code = 0;
        struct mcp_message m;
        assert_false(mcp_read(arena, cases[i].text, &m, &code, &e));
        if (code != cases[i].code)
            fail_msg(STR_FMT ": %lld", STR_ARG(cases[i].text), (long long) code);
    }
}

static void test_a_refused_request_still_tells_its_id(void **state)
{
    struct error e;
    int64_t code, id = 0;
    struct mcp_message m;
    (void) state;
    assert_false(mcp_read(arena, S("{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"x\",\"params\":3}"),
                          &m, &code, &e));
    assert_true(json_to_i64(m.id, &id) && id == 9);
}

static void test_depth_is_bounded(void **state)
{
    for (size_t over = 0; over < 2; over++) {
        struct error e;
        int64_t code = 0;
        struct mcp_message m;
        struct strbuf b;
        size_t levels = MCP_DEPTH_MAX - 2 + over; /* the message and params are two */
        strbuf_init(&b, arena, 4096);
        strbuf_add(&b, S("{\"jsonrpc\":\"2.0\",\"method\":\"x\",\"params\":{\"a\":"));
        for (size_t i = 0; i < levels; i++)
            strbuf_add_char(&b, '[');
        for (size_t i = 0; i < levels; i++)
            strbuf_add_char(&b, ']');
        strbuf_add(&b, S("}}"));
        (void) state;
        assert_int_equal(mcp_read(arena, strbuf_str(&b), &m, &code, &e), over == 0);
        if (over)
            assert_int_equal(code, MCP_PARSE_ERROR);
    }
}

static void test_ids_are_equal_by_type_and_value(void **state)
{
    (void) state;
    assert_true(mcp_id_equal(parse(S("1")), parse(S("1"))));
    assert_true(mcp_id_equal(parse(S("\"1\"")), parse(S("\"1\""))));
    assert_false(mcp_id_equal(parse(S("1")), parse(S("\"1\""))));
    assert_false(mcp_id_equal(NULL, parse(S("1"))));
    assert_false(mcp_id_equal(parse(S("1")), NULL));
}

static void test_what_is_written_is_read_again(void **state)
{
    struct error e;
    int64_t code, id;
    struct mcp_message m;
    struct strbuf b;
    struct json_writer w;
    (void) state;
    strbuf_init(&b, arena, 4096);
    json_writer_init(&w, &b);
    mcp_begin_request(&w, NULL, 3, S("ping"));
    json_object_begin(&w);
    json_object_end(&w);
    mcp_end(&w);
    assert_str(strbuf_str(&b),
               S("{\"jsonrpc\":\"2.0\",\"id\":3,\"method\":\"ping\",\"params\":{}}"));
    assert_true(mcp_read(arena, strbuf_str(&b), &m, &code, &e));
    assert_true(json_to_i64(m.id, &id) && id == 3);

    strbuf_truncate(&b, 0);
    json_writer_init(&w, &b);
    mcp_begin_request(&w, NULL, 0, S("notifications/cancelled"));
    json_object_begin(&w);
    json_object_end(&w);
    mcp_end(&w);
    assert_true(mcp_read(arena, strbuf_str(&b), &m, &code, &e));
    assert_int_equal(m.kind, MCP_NOTIFICATION);

    strbuf_truncate(&b, 0);
    json_writer_init(&w, &b);
    mcp_write_error_data(&w, parse(S("\"q\"")), MCP_UNSUPPORTED_VERSION, S("no"), S("{\"a\":1}"));
    assert_true(mcp_read(arena, strbuf_str(&b), &m, &code, &e));
    assert_int_equal(m.error_code, MCP_UNSUPPORTED_VERSION);
    assert_true(mcp_error_is_stateless(m.error_code));
    assert_false(mcp_error_is_stateless(MCP_METHOD_NOT_FOUND));
    assert_non_null(json_get(m.error_data, S("a")));
}

static void test_revisions_are_known_by_name(void **state)
{
    (void) state;
    assert_int_equal(mcp_revision_find(S("2026-07-28"))->era, MCP_ERA_STATELESS);
    assert_int_equal(mcp_revision_find(S("2025-06-18"))->era, MCP_ERA_SESSION);
    assert_null(mcp_revision_find(S("2024-11-05")));
    for (size_t i = 1; i < mcp_revision_count; i++)
        assert_true(str_compare(mcp_revisions[i - 1].name, mcp_revisions[i].name) > 0);
}

/* ---- tools and content ---- */

static void test_a_definition_is_read_within_its_bounds(void **state)
{
    struct error e;
    struct mcp_tool tool;
    (void) state;
    assert_true(mcp_tool_read(parse(S("{\"name\":\"a.b\",\"description\":\"d\",\"inputSchema\":{},"
                                      "\"outputSchema\":null}")),
                              &tool, &e));
    assert_str(tool.name, S("a.b"));
    assert_null(tool.output_schema);
    assert_false(mcp_tool_read(parse(S("{\"name\":\"a\"}")), &tool, &e));
    assert_false(mcp_tool_read(parse(S("{\"name\":\"\",\"inputSchema\":{}}")), &tool, &e));
    assert_false(mcp_tool_read(parse(S("{\"name\":\"a\\nb\",\"inputSchema\":{}}")), &tool, &e));
    assert_false(mcp_tool_read(parse(S("{\"name\":\"a\",\"inputSchema\":[]}")), &tool, &e));
    assert_false(mcp_tool_read(parse(S("7")), &tool, &e));
    for (size_t over = 0; over < 2; over++) {
        struct strbuf b;
        strbuf_init(&b, arena, 1 << 20);
        strbuf_add(&b, S("{\"name\":\"a\",\"inputSchema\":{},\"description\":\""));
        for (size_t i = 0; i < MCP_TOOL_DESCRIPTION_BYTES_MAX + over; i++)
            strbuf_add_char(&b, 'x');
        strbuf_add(&b, S("\"}"));
        assert_int_equal(mcp_tool_read(parse(strbuf_str(&b)), &tool, &e), over == 0);
    }
}

static digest digest_of(str text)
{
    struct error e;
    struct mcp_tool tool;
    assert_true(mcp_tool_read(parse(text), &tool, &e));
    return mcp_tool_digest(arena, &tool);
}

static void test_the_digest_covers_meaning_and_not_spelling(void **state)
{
    digest a =
        digest_of(S("{\"name\":\"a\",\"description\":\"d\",\"inputSchema\":{\"x\":1,\"y\":2}}"));
    (void) state;
    assert_true(digest_equal(
        a, digest_of(S("{ \"inputSchema\":{\"y\":2,\"x\":1},\"description\":\"\\u0064\",\"name\":"
                       "\"a\",\"icons\":[]}"))));
    assert_false(
        digest_equal(a, digest_of(S("{\"name\":\"a\",\"description\":\"d \",\"inputSchema\":{"
                                    "\"x\":1,\"y\":2}}"))));
    assert_false(
        digest_equal(a, digest_of(S("{\"name\":\"a\",\"description\":\"d\",\"inputSchema\":{"
                                    "\"x\":1,\"y\":3}}"))));
    assert_false(
        digest_equal(a, digest_of(S("{\"name\":\"a\",\"description\":\"d\",\"inputSchema\":{"
                                    "\"x\":1,\"y\":2},\"annotations\":{}}"))));
    assert_false(
        digest_equal(a, digest_of(S("{\"name\":\"a\",\"description\":\"d\",\"title\":\"t\","
                                    "\"inputSchema\":{\"x\":1,\"y\":2}}"))));
}

static void test_tool_names_are_checked(void **state)
{
    (void) state;
    assert_true(mcp_tool_name_is_valid(S("admin.tools-list_2")));
    assert_false(mcp_tool_name_is_valid(S("")));
    assert_false(mcp_tool_name_is_valid(S("a b")));
    char text[MCP_TOOL_NAME_BYTES_MAX + 1];
    memset(text, 'a', sizeof text);
    assert_true(mcp_tool_name_is_valid(str_of(text, MCP_TOOL_NAME_BYTES_MAX)));
    assert_false(mcp_tool_name_is_valid(str_of(text, sizeof text)));
}

static void test_content_blocks_of_each_kind_are_read(void **state)
{
    struct error e;
    struct mcp_content c;
    (void) state;
    assert_true(mcp_content_read(parse(S("{\"type\":\"text\",\"text\":\"t\"}")), &c, &e));
    assert_str(c.text, S("t"));
    assert_true(mcp_content_read(
        parse(S("{\"type\":\"image\",\"data\":\"QQ==\",\"mimeType\":\"image/png\"}")), &c, &e));
    assert_int_equal(c.kind, MCP_CONTENT_IMAGE);
    assert_true(
        mcp_content_read(parse(S("{\"type\":\"resource\",\"resource\":{\"uri\":\"a:b\",\"text\":"
                                 "\"t\"}}")),
                         &c, &e));
    assert_str(c.uri, S("a:b"));
    assert_true(mcp_content_read(parse(S("{\"type\":\"hologram\"}")), &c, &e));
    assert_int_equal(c.kind, MCP_CONTENT_UNKNOWN);
    assert_false(mcp_content_read(parse(S("{\"type\":\"text\"}")), &c, &e));
    assert_false(mcp_content_read(parse(S("{\"type\":\"resource\"}")), &c, &e));
    assert_false(mcp_content_read(parse(S("\"text\"")), &c, &e));
}

/* ---- header fields ---- */

static void test_header_values_follow_the_examples_of_the_specification(void **state)
{
    static const struct {
        str value, field;
    } cases[] = {
        {S_INIT("us-west1"), S_INIT("us-west1")},
        {S_INIT("Hello, \xe4\xb8\x96\xe7\x95\x8c"), S_INIT("=?base64?SGVsbG8sIOS4lueVjA==?=")},
        {S_INIT(" padded "), S_INIT("=?base64?IHBhZGRlZCA=?=")},
        {S_INIT("line1\nline2"), S_INIT("=?base64?bGluZTEKbGluZTI=?=")},
        {S_INIT("=?base64?literal?="), S_INIT("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=")},
        {S_INIT(""), S_INIT("")},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        str back;
        assert_str(mcp_header_encode(arena, cases[i].value), cases[i].field);
        assert_true(mcp_header_decode(arena, cases[i].field, &back));
        assert_str(back, cases[i].value);
    }
    str none;
    assert_false(mcp_header_decode(arena, S("=?base64?*?="), &none));
    assert_false(mcp_header_decode(arena, S("caf\xc3\xa9"), &none));
}

static void test_annotated_arguments_become_header_fields(void **state)
{
    struct error e;
    struct mcp_param *params;
    size_t count;
    str value;
    const struct json *schema = parse(
        S("{\"type\":\"object\",\"properties\":{\"region\":{\"type\":\"string\",\"x-mcp-header\":"
          "\"Region\"},\"at\":{\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\","
          "\"x-mcp-header\":\"N\"}}}}}"));
    (void) state;
    assert_true(mcp_params_read(arena, schema, &params, &count, &e));
    assert_int_equal(count, 2);
    const struct json *arguments = parse(S("{\"region\":\"eu\",\"at\":{\"n\":-7}}"));
    assert_true(mcp_param_value(arena, &params[0], arguments, &value));
    assert_str(value, S("eu"));
    assert_true(mcp_param_value(arena, &params[1], arguments, &value));
    assert_str(value, S("-7"));
    assert_false(mcp_param_value(arena, &params[0], parse(S("{\"region\":null}")), &value));
    assert_false(mcp_param_value(arena, &params[1], parse(S("{}")), &value));
}

static void test_annotations_against_the_rules_are_refused(void **state)
{
    static const str schemas[] = {
        S_INIT("{\"properties\":{\"a\":{\"type\":\"string\",\"x-mcp-header\":\"\"}}}"),
        S_INIT("{\"properties\":{\"a\":{\"type\":\"string\",\"x-mcp-header\":\"a b\"}}}"),
        S_INIT("{\"properties\":{\"a\":{\"type\":\"number\",\"x-mcp-header\":\"A\"}}}"),
        S_INIT(
            "{\"properties\":{\"a\":{\"type\":\"string\",\"x-mcp-header\":\"A\"},\"b\":{\"type\":"
            "\"string\",\"x-mcp-header\":\"a\"}}}"),
        S_INIT("{\"properties\":{\"a\":{\"items\":{\"type\":\"string\",\"x-mcp-header\":\"A\"}}}}"),
        S_INIT(
            "{\"anyOf\":[{\"properties\":{\"a\":{\"type\":\"string\",\"x-mcp-header\":\"A\"}}}]}"),
        S_INIT("{\"type\":\"string\",\"x-mcp-header\":\"A\"}"),
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(schemas); i++) {
        struct error e;
        struct mcp_param *params;
        size_t count;
        if (mcp_params_read(arena, parse(schemas[i]), &params, &count, &e))
            fail_msg("accepted: " STR_FMT, STR_ARG(schemas[i]));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_messages_of_each_kind_are_read),
        TEST(test_what_is_no_message_gets_the_right_code),
        TEST(test_a_refused_request_still_tells_its_id),
        TEST(test_depth_is_bounded),
        TEST(test_ids_are_equal_by_type_and_value),
        TEST(test_what_is_written_is_read_again),
        TEST(test_revisions_are_known_by_name),
        TEST(test_a_definition_is_read_within_its_bounds),
        TEST(test_the_digest_covers_meaning_and_not_spelling),
        TEST(test_tool_names_are_checked),
        TEST(test_content_blocks_of_each_kind_are_read),
        TEST(test_header_values_follow_the_examples_of_the_specification),
        TEST(test_annotated_arguments_become_header_fields),
        TEST(test_annotations_against_the_rules_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
