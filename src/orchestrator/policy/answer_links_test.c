#include "orchestrator/policy/answer_links.h"
#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static bool only_good(void *owner, str url)
{
    (void) owner;
    return str_starts_with(url, S("https://good.test/"));
}

static str passed(struct arena *arena, str text, size_t piece_bytes, int *defused)
{
    struct answer_links *links = ARENA_NEW(arena, struct answer_links);
    struct strbuf out;
    *links = (struct answer_links){.may_link = only_good};
    strbuf_init(&out, arena, 16 * text.len + 4096);
    for (size_t at = 0; at < text.len; at += piece_bytes)
        answer_links_feed(links, str_slice(text, at, at + piece_bytes), &out);
    answer_links_end(links, &out);
    *defused = links->defused;
    return strbuf_str(&out);
}

static const struct {
    const char *from, *to;
} cases[] = {
    {"plain words, 3:2 and a/b", NULL},
    {"see https://good.test/x.", NULL},
    {"![a](https://good.test/x) and <https://good.test/y>", NULL},
    {"// a comment; x = a // b;", NULL},
    {"![a](https://evil.test/?d=1)", "![a](hxxps[:]//evil.test/?d=1)"},
    {"[a](HTTP://evil.test)", "[a](hxxp[:]//evil.test)"},
    {"[r]: http://evil.test/x", "[r]: hxxp[:]//evil.test/x"},
    {"![a](//evil.test/x)", "![a]([//]evil.test/x)"},
    {"![a](/\\evil.test/x)", "![a]([//]evil.test/x)"},
    {"![a](https:\\\\evil.test)", "![a](hxxps[:]//evil.test)"},
    {"![a](https:evil.test)", "![a](hxxps[:]evil.test)"},
    {"<img src='https://evil.test/x'>", "&lt;img src='hxxps[:]//evil.test/x'>"},
    {"<img\nsrc=//evil.test/x>", "&lt;img\nsrc=[//]evil.test/x>"},
    {"![a](&#104;ttp://evil.test)", "![a](&amp;#104;ttp[:]//evil.test)"},
    {"[a](javascript:alert(1))", "[a](javascript[:]alert(1))"},
    {"www.evil.test/x", "www[.]evil.test/x"},
    {"ftp://evil.test", "ftp[:]//evil.test"},
};

static void test_what_nobody_named_is_made_harmless_and_the_rest_stays(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        int defused;
        str out = passed(arena, str_from_cstr(cases[i].from), 1000, &defused);
        const char *wanted = cases[i].to ? cases[i].to : cases[i].from;
        assert_string_equal(str_to_cstr(arena, out), wanted);
        assert_int_equal(defused > 0, cases[i].to != NULL);
    }
}

static void test_every_cut_gives_the_same_text(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        int whole, cut;
        str text = str_from_cstr(cases[i].from);
        str wanted = passed(arena, text, 1000, &whole);
        for (size_t bytes = 1; bytes < 9; bytes++) {
            assert_true(str_equal(passed(arena, text, bytes, &cut), wanted));
            assert_int_equal(whole, cut);
        }
    }
}

static void test_a_word_without_end_passes_only_when_it_can_hold_no_address(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    int defused;
    size_t bytes = 3 * ANSWER_LINK_BYTES_MAX;
    char *text = arena_alloc(arena, bytes);
    memset(text, 'a', bytes);
    assert_true(str_equal(passed(arena, str_of(text, bytes), 7, &defused), str_of(text, bytes)));
    memcpy(text + 5000, "https://evil.test/", 18);
    str out = passed(arena, str_of(text, bytes), 7, &defused);
    assert_int_equal(str_find(out, S("https://evil")), STR_NOT_FOUND);
    assert_int_equal(defused, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_nobody_named_is_made_harmless_and_the_rest_stays),
        cmocka_unit_test(test_every_cut_gives_the_same_text),
        cmocka_unit_test(test_a_word_without_end_passes_only_when_it_can_hold_no_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
