#include "llm/splice.h"

#include "base/arena.h"
#include "base/json.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static const struct splice_table chat = {
    .limits = {S_INIT("max_tokens"), S_INIT("max_completion_tokens")},
    .stream_options = S_INIT("stream_options"),
};

static str spliced(struct arena *arena, const char *body, struct dialect_edits edits)
{
    str out;
    struct error e = {0};
    if (!splice_request(arena, str_from_cstr(body), &chat, &edits, &out, &e))
        fail_msg("%s: %s", body, e.message);
    return out;
}

static void check(const char *body, struct dialect_edits edits, const char *wanted)
{
    OWNED(arena) arena = arena_create(0);
    str out = spliced(arena, body, edits);
    if (!str_equal(out, str_from_cstr(wanted)))
        fail_msg(STR_FMT " instead of %s", STR_ARG(out), wanted);
}

static void test_only_the_model_changes_and_every_other_byte_stays(void **state)
{
    (void) state;
    struct dialect_edits edits = {.model = S("big \"x\"")};
    check("{\"model\":\"a\"}", edits, "{\"model\":\"big \\\"x\\\"\"}");
    check(" { \"x\" : [1, {\"model\":\"in\\\"ner\"}] ,\n\"model\" : \"a\" , \"y\":1.50e1 } ", edits,
          " { \"x\" : [1, {\"model\":\"in\\\"ner\"}] ,\n\"model\" : \"big \\\"x\\\"\" , "
          "\"y\":1.50e1 } ");
    check("{\"mod\\u0065l\":\"a\",\"\\u006dodel2\":1}", edits,
          "{\"mod\\u0065l\":\"big \\\"x\\\"\",\"\\u006dodel2\":1}");
}

static void test_the_output_limit_is_lowered_never_raised(void **state)
{
    (void) state;
    struct dialect_edits edits = {.model = S("m"), .max_output_tokens = 50};
    check("{\"model\":\"a\",\"max_tokens\":70}", edits, "{\"model\":\"m\",\"max_tokens\":50}");
    check("{\"model\":\"a\",\"max_tokens\":20}", edits, "{\"model\":\"m\",\"max_tokens\":20}");
    check("{\"max_completion_tokens\":1e3,\"max_tokens\":9}", edits,
          "{\"max_completion_tokens\":50,\"max_tokens\":9}");
    check("{\"model\":\"a\"}", edits, "{\"model\":\"m\",\"max_tokens\":50}");
    check("{\"max_tokens\":null,\"model\":\"a\"}", edits, "{\"max_tokens\":50,\"model\":\"m\"}");
    check("{\"max_tokens\":null,\"max_completion_tokens\":80}", edits,
          "{\"max_tokens\":null,\"max_completion_tokens\":50}");
    check("{}", edits, "{\"max_tokens\":50}");
    edits.is_new_limit_name = true;
    check("{\"model\":\"a\"}", edits, "{\"model\":\"m\",\"max_completion_tokens\":50}");
}

static void test_usage_is_asked_for_beside_the_other_stream_options(void **state)
{
    (void) state;
    struct dialect_edits edits = {.model = S("m"), .include_usage = true};
    check("{\"stream\":true}", edits,
          "{\"stream\":true,\"stream_options\":{\"include_usage\":true}}");
    check("{}", edits, "{\"stream_options\":{\"include_usage\":true}}");
    check("{\"stream_options\":null}", edits, "{\"stream_options\":{\"include_usage\":true}}");
    check("{\"stream_options\":{}}", edits, "{\"stream_options\":{\"include_usage\":true}}");
    check("{\"stream_options\":{ \"a\":1}}", edits,
          "{\"stream_options\":{\"include_usage\":true, \"a\":1}}");
    check("{\"stream_options\":{\"include_usage\":false,\"a\":[2]}}", edits,
          "{\"stream_options\":{\"include_usage\":true,\"a\":[2]}}");
    edits.max_output_tokens = 5;
    check("{\"a\":1}", edits,
          "{\"a\":1,\"max_tokens\":5,\"stream_options\":{\"include_usage\":true}}");
}

static void test_what_is_no_object_is_refused(void **state)
{
    (void) state;
    static const char *const bodies[] = {"",       " ",           "[]",        "{",
                                         "{\"a\"", "{\"a\":",     "{\"a\":1",  "{\"a",
                                         "{a:1}",  "{\"a\":\"x}", "{\"a\":[1}"};
    struct dialect_edits edits = {.model = S("m")};
    OWNED(arena) arena = arena_create(0);
    for (size_t i = 0; i < ARRAY_COUNT(bodies); i++) {
        str out;
        struct error e = {0};
        assert_false(splice_request(arena, str_from_cstr(bodies[i]), &chat, &edits, &out, &e));
        assert_int_equal(e.reason, REASON_JSON);
    }
}

static void test_another_dialect_has_its_own_names(void **state)
{
    (void) state;
    static const struct splice_table responses = {.limits = {S_INIT("max_output_tokens")}};
    struct dialect_edits edits = {.model = S("m"), .max_output_tokens = 5, .include_usage = true};
    struct error e = {0};
    str out;
    OWNED(arena) arena = arena_create(0);
    assert_true(splice_request(arena, S("{\"model\":\"a\",\"max_tokens\":9}"), &responses, &edits,
                               &out, &e));
    assert_true(str_equal(out, S("{\"model\":\"m\",\"max_tokens\":9,\"max_output_tokens\":5}")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_model_changes_and_every_other_byte_stays),
        cmocka_unit_test(test_the_output_limit_is_lowered_never_raised),
        cmocka_unit_test(test_usage_is_asked_for_beside_the_other_stream_options),
        cmocka_unit_test(test_another_dialect_has_its_own_names),
        cmocka_unit_test(test_what_is_no_object_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
