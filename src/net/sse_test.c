#include "net/sse.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* All events of a stream as text, fed in the pieces that `cuts` (a seed) gives. */
static str events_of(struct arena *arena, str stream, unsigned cuts, bool *has_partial)
{
    struct strbuf b;
    struct error e;
    struct sse_event event;
    OWNED(sse_parser) parser = sse_parser_create(0);
    strbuf_init(&b, arena, 1 << 20);
    while (stream.len > 0) {
        size_t piece = cuts ? 1 + (size_t) rand_r(&cuts) % 7 : stream.len;
        char *copy = malloc(piece); /* exact, so that a sanitizer sees reads past the end */
        piece = piece < stream.len ? piece : stream.len;
        memcpy(copy, stream.ptr, piece);
        assert_true(sse_parser_feed(parser, str_of(copy, piece), &e));
        while (sse_parser_next(parser, &event))
            strbuf_printf(&b, "[" STR_FMT "|" STR_FMT "|" STR_FMT "]", STR_ARG(event.id),
                          STR_ARG(event.event), STR_ARG(event.data));
        free(copy);
        stream = str_from(stream, piece);
    }
    *has_partial = sse_parser_has_partial(parser);
    return strbuf_str(&b);
}

static const struct {
    str stream, events;
    bool has_partial;
} cases[] = {
    {S_INIT("data: a\n\n"), S_INIT("[||a]"), false},
    {S_INIT("data: a\r\n\r\ndata: b\r\n\r\n"), S_INIT("[||a][||b]"), false},
    {S_INIT("data: a\r\rdata: b\r\r"), S_INIT("[||a][||b]"), false},
    {S_INIT("data: a\ndata: b\ndata\ndata:  c\n\n"), S_INIT("[||a\nb\n\n c]"), false},
    {S_INIT("event: e\nid: 7\ndata: a\n\ndata: b\n\n"), S_INIT("[7|e|a][7||b]"), false},
    {S_INIT("id: 7\n\ndata: b\n\nid\ndata: c\n\n"), S_INIT("[7||b][||c]"), false},
    {S_INIT("id: a\0b\ndata: b\n\n"), S_INIT("[||b]"), false},
    {S_INIT(": comment\n\n\n\nretry: 5\nunknown: x\ndata: a\n\n"), S_INIT("[||a]"), false},
    {S_INIT("event: e\n\ndata: a\n\n"), S_INIT("[||a]"), false},
    {S_INIT("data\n\n"), S_INIT("[||]"), false},
    {S_INIT("data:\ndata:\n\n"), S_INIT("[||\n]"), false},
    {S_INIT("\xef\xbb\xbf"
            "data: a\n\n"),
     S_INIT("[||a]"), false},
    {S_INIT("\xef\xbb"
            "data: a\n\ndata: b\n\n"),
     S_INIT("[||b]"), false},
    {S_INIT("data: a\n\ndata: b\n"), S_INIT("[||a]"), true},
    {S_INIT("data: a\n\nda"), S_INIT("[||a]"), true},
    {S_INIT("data: a\r\n\r\n\r\n\r\ndata:b\n\r\ndata: c\r\n\n"), S_INIT("[||a][||b][||c]"), false},
    {S_INIT("data: [DONE]\n\n"), S_INIT("[||[DONE]]"), false},
    {S_INIT("event:x\ndata: 1\nevent:y\ndata: 2\n\n"), S_INIT("[|y|1\n2]"), false},
};

static void test_reads_the_format_however_it_is_cut(void **state)
{
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        for (unsigned cuts = 0; cuts < 200; cuts++) {
            OWNED(arena) arena = arena_create(0);
            bool has_partial;
            str events = events_of(arena, cases[i].stream, cuts, &has_partial);
            if (!str_equal(events, cases[i].events) || has_partial != cases[i].has_partial)
                fail_msg("case %zu, cuts %u: " STR_FMT, i, cuts, STR_ARG(events));
        }
    }
}

static void test_what_is_written_is_read_back(void **state)
{
    (void) state;
    static const char letters[] = "ab \n:\r\xc3\xa4";
    for (unsigned seed = 1; seed < 2000; seed++) {
        OWNED(arena) arena = arena_create(0);
        unsigned random = seed;
        struct strbuf stream, wanted;
        strbuf_init(&stream, arena, 1 << 16);
        strbuf_init(&wanted, arena, 1 << 16);
        for (int n = rand_r(&random) % 4; n >= 0; n--) {
            char data[32];
            size_t len = (size_t) rand_r(&random) % sizeof(data);
            for (size_t i = 0; i < len; i++)
                data[i] = letters[(size_t) rand_r(&random) % (sizeof(letters) - 1)];
            sse_write(&stream, S("9"), S("e"), str_of(data, len));
            strbuf_add(&wanted, S("[9|e|"));
            for (size_t i = 0; i < len; i++) { /* line ends of all kinds come back as LF */
                bool is_crlf = data[i] == '\r' && i + 1 < len && data[i + 1] == '\n';
                if (!is_crlf)
                    strbuf_add_char(&wanted, data[i] == '\r' ? '\n' : data[i]);
            }
            strbuf_add(&wanted, S("]"));
            if (n % 2)
                sse_write_comment(&stream, S("keep-alive"));
        }
        bool has_partial;
        str events = events_of(arena, strbuf_str(&stream), seed, &has_partial);
        assert_true(str_equal(events, strbuf_str(&wanted)));
        assert_false(has_partial);
    }
}

static void test_a_name_cannot_smuggle_a_field(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct strbuf b;
    strbuf_init(&b, arena, 1 << 16);
    sse_write(&b, S("1\ndata: evil"), S("e\r\nid: 5"), S("x"));
    assert_true(str_equal(strbuf_str(&b), S("id: 1\nevent: e\ndata: x\n\n")));
}

static bool feed_filled(struct sse_parser *parser, size_t len)
{
    struct error e;
    char *bytes = malloc(len);
    memset(bytes, 'a', len);
    bool is_fine = sse_parser_feed(parser, str_of(bytes, len), &e);
    assert_true(is_fine || e.reason == REASON_TOO_LARGE);
    free(bytes);
    return is_fine;
}

static void test_bounds_one_event_but_not_the_stream(void **state)
{
    (void) state;
    struct error e;
    struct sse_event event;
    OWNED(sse_parser) parser = sse_parser_create(1000);
    for (int i = 0; i < 50; i++) {
        assert_true(feed_filled(parser, 500));
        assert_true(feed_filled(parser, 499));
        assert_true(
            sse_parser_feed(parser, S("\n\ndata: x\n\n"), &e)); /* 1000 bytes with its line end */
        assert_true(sse_parser_next(parser, &event));
        assert_false(sse_parser_next(parser, &event));
    }
    assert_true(feed_filled(parser, 1000));
    assert_false(feed_filled(parser, 1));
    OWNED(sse_parser) other = sse_parser_create(1000);
    assert_false(feed_filled(other, 1001));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_the_format_however_it_is_cut),
        cmocka_unit_test(test_what_is_written_is_read_back),
        cmocka_unit_test(test_a_name_cannot_smuggle_a_field),
        cmocka_unit_test(test_bounds_one_event_but_not_the_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
