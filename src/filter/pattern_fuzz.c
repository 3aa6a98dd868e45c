/*
 * Patterns: whatever is accepted compiles or says why not; and what the program matches, the automaton of beginnings has held back at
 * every byte before.  Input: a pattern, a NUL, a text.
 */
#include "filter/filter.h"
#include "filter/hold_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

enum { TEXT_BYTES_MAX = 60 };

static struct pattern_run run;
static uint16_t now[FILTER_PROGRAM_MAX], later[FILTER_PROGRAM_MAX],
    stack[2 * FILTER_PROGRAM_MAX + 1];
static uint32_t seen[FILTER_PROGRAM_MAX];

static struct place place_of(const unsigned char *text, size_t len, size_t at)
{
    return (struct place){at > 0 ? text[at - 1] : BYTE_NONE, at < len ? text[at] : BYTE_NONE,
                          at + 1 < len ? text[at + 1] : BYTE_NONE};
}

static void check_match(const struct hold *hold, const struct byteset *first,
                        const struct byteset *before, const unsigned char *text, size_t from,
                        size_t to)
{
    ensure(to > from && byteset_has(first, text[from]));
    ensure(from == 0 || byteset_has(before, text[from - 1]));
    for (size_t cut = from + 1; cut <= to; cut++)
        ensure(hold_start(hold, text, 0, cut) <= from);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e;
    const struct node *node;
    struct program program;
    struct hold hold;
    str pattern, text;
    struct byteset first = {{0}};
    OWNED(arena) arena = arena_create(SIZE_MAX);
    str_cut(str_of((const char *) data, size), '\0', &pattern, &text);
    text = str_slice(text, 0, TEXT_BYTES_MAX);
    if (pattern.len > 200 || !pattern_parse(arena, pattern, &node, &e) ||
        !pattern_compile(arena, node, &program, &e) || program.count > 400)
        return 0;
    struct strbuf printed;
    strbuf_init(&printed, arena, SIZE_MAX);
    pattern_print(node, &printed);
    if (!hold_create(arena, &node, 1, &hold))
        return 0;
    pattern_first_bytes(node, &first);
    struct byteset before = pattern_before(node);
    run = (struct pattern_run){.now = now, .later = later, .stack = stack, .seen = seen};
    memset(seen, 0, sizeof seen);
    const unsigned char *bytes = (const unsigned char *) text.ptr;
    for (size_t from = 0; from < text.len; from++) {
        pattern_run_start(&run, &program, place_of(bytes, text.len, from));
        ensure(!run.is_accepting);
        for (size_t at = from; at < text.len; at++) {
            bool is_alive =
                pattern_run_step(&run, &program, bytes[at], place_of(bytes, text.len, at + 1));
            if (run.is_accepting)
                check_match(&hold, &first, &before, bytes, from, at + 1);
            if (!is_alive)
                break;
        }
    }
    return 0;
}
