#include "agent/tool/labels.h"
#include "agent/tool/tool.h"
#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static struct label label_of_bits(unsigned bits)
{
    return (struct label){
        .origins = bits & 127, .is_untrusted = (bits & 128) != 0, .is_private = (bits & 256) != 0};
}

static bool is_same(struct label a, struct label b)
{
    return label_covers(a, b) && label_covers(b, a);
}

static void test_a_join_covers_both_and_is_the_least_that_does(void **state)
{
    (void) state;
    for (unsigned a = 0; a < 512; a++)
        for (unsigned b = 0; b < 512; b += 7) {
            struct label x = label_of_bits(a), y = label_of_bits(b), joined = label_join(x, y);
            assert_true(label_covers(joined, x) && label_covers(joined, y));
            assert_true(is_same(joined, label_join(y, x)));
            assert_true(is_same(label_join(joined, x), joined));
            assert_true(is_same(joined, label_of_bits(a | b)));
        }
}

static struct label written_and_read(struct arena *arena, struct label label)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1024);
    json_writer_init(&w, &text);
    label_write_json(&w, label);
    return label_read_text(arena, strbuf_str(&text), LABEL_TOOL);
}

static void test_every_label_is_read_as_it_was_written(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    for (unsigned bits = 0; bits < 512; bits++)
        assert_true(is_same(written_and_read(arena, label_of_bits(bits)), label_of_bits(bits)));
}

static void test_what_is_absent_or_unknown_is_read_as_the_higher_label(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    const char *const texts[] = {"",
                                 "{}",
                                 "[]",
                                 "null",
                                 "{",
                                 "{\"origins\":[\"user\"]}",
                                 "{\"origins\":[\"mars\"],\"untrusted\":false,\"private\":false}",
                                 "{\"origins\":[7],\"untrusted\":false,\"private\":false}",
                                 "{\"origins\":[\"user\"],\"untrusted\":\"no\",\"private\":0}"};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
        struct label label = label_read_text(arena, str_from_cstr(texts[i]), LABEL_FILE);
        assert_true(label.is_untrusted && label.is_private);
    }
}

static void test_a_tool_without_labels_is_taken_for_the_worst(void **state)
{
    (void) state;
    struct tool tool = {.category = S("crm")};
    label_tool_defaults(&tool);
    struct label label = label_of_tool(&tool);
    assert_true(label.is_untrusted && label.is_private && tool.is_sink);
    label = label_of_tool(NULL);
    assert_true(label.is_untrusted && label.is_private);
}

static void test_a_pure_tool_without_network_is_no_sink_and_the_web_is_public(void **state)
{
    (void) state;
    struct tool pure = {.category = S("text_processing"), .is_pure = true};
    label_tool_defaults(&pure);
    assert_false(pure.is_sink);
    assert_true(label_of_tool(&pure).is_untrusted && !label_of_tool(&pure).is_private);
    struct tool http = {.category = S("http"), .is_pure = true};
    http.permissions.network.is_set = true;
    label_tool_defaults(&http);
    assert_true(http.is_sink && label_of_tool(&http).is_untrusted);
    assert_true((label_of_tool(&http).origins & LABEL_WEB) && !label_of_tool(&http).is_private);
}

static void test_no_manifest_can_talk_away_what_its_host_calls_bring_in(void **state)
{
    (void) state;
    static str web[] = {S_INIT("http_request")}, files[] = {S_INIT("file_system")};
    struct tool tool = {.category = S("code"), .is_output_public = true, .is_output_trusted = true};
    assert_false(label_of_tool(&tool).is_untrusted || label_of_tool(&tool).is_private);
    tool.host_calls = web;
    tool.host_call_count = 1;
    assert_true(label_of_tool(&tool).is_untrusted && !label_of_tool(&tool).is_private);
    tool.host_calls = files;
    assert_true(label_of_tool(&tool).is_untrusted && label_of_tool(&tool).is_private);
}

/* A random history: each text is made from some of those before it.  Its label covers those of all that went into it. */
static void test_what_is_derived_covers_all_that_it_was_derived_from(void **state)
{
    (void) state;
    enum { TEXTS = 40, HISTORIES = 500 };
    uint64_t seed = 88172645463325252ull;
    for (int history = 0; history < HISTORIES; history++) {
        struct label labels[TEXTS], own[TEXTS];
        bool is_made_of[TEXTS][TEXTS] = {0};
        for (int i = 0; i < TEXTS; i++) {
            labels[i] = own[i] = label_of_bits((unsigned) (seed >> 20) & 511 & (unsigned) seed);
            is_made_of[i][i] = true;
            for (int j = 0; j < i; j++) {
                seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
                if (seed % 8 != 0)
                    continue;
                labels[i] = label_join(labels[i], labels[j]);
                for (int k = 0; k <= j; k++)
                    is_made_of[i][k] = is_made_of[i][k] || is_made_of[j][k];
            }
        }
        for (int i = 0; i < TEXTS; i++)
            for (int k = 0; k <= i; k++)
                assert_true(!is_made_of[i][k] || label_covers(labels[i], own[k]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_join_covers_both_and_is_the_least_that_does),
        cmocka_unit_test(test_every_label_is_read_as_it_was_written),
        cmocka_unit_test(test_what_is_absent_or_unknown_is_read_as_the_higher_label),
        cmocka_unit_test(test_a_tool_without_labels_is_taken_for_the_worst),
        cmocka_unit_test(test_a_pure_tool_without_network_is_no_sink_and_the_web_is_public),
        cmocka_unit_test(test_no_manifest_can_talk_away_what_its_host_calls_bring_in),
        cmocka_unit_test(test_what_is_derived_covers_all_that_it_was_derived_from),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
