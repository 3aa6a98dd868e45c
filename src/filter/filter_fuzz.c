/* Filter: the same verdict however the text is cut; what is held stays within its bound; a blocked stream says nothing more. */
#include "filter/filter.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <stdlib.h>

static struct filter_set *sets[3]; /* by action: flag, mask, block */

static void make_sets(void)
{
    static const struct filter_rule rules[] = {
        {S_INIT("words"), S_INIT("(?i)fuzz[a-z]*ing|a+b|(?<!x)yy(?!\\.[0-9])"), {0}, FILTER_MASK},
        {S_INIT("line"), S_INIT("^top.*secret$"), {0}, FILTER_MASK},
    };
    struct error e;
    for (size_t i = 0; i < ARRAY_COUNT(sets); i++) {
        enum filter_action action = (enum filter_action)(FILTER_FLAG + i);
        struct filter_options options = {
            .groups = {action, action, action}, .rules = rules, .rule_count = ARRAY_COUNT(rules)};
        ensure(filter_set_create(&options, &sets[i], &e));
    }
}

/* Seconds of work under a sanitizer: not the first input's. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void) argc, (void) argv;
    make_sets();
    return 0;
}

struct verdict {
    struct strbuf out;
    uint64_t hash;
    bool is_open;
};

static void add(void *owner, const struct filter_finding *finding)
{
    struct verdict *verdict = owner;
    uint64_t parts[] = {(uint64_t) (uintptr_t) finding->rule.ptr, finding->offset, finding->length,
                        (uint64_t) finding->action};
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++)
        verdict->hash = (verdict->hash ^ parts[i]) * 0x100000001b3u;
}

static struct verdict filter(const struct filter_set *set, struct arena *arena, str text,
                             size_t step)
{
    struct verdict verdict = {.is_open = true};
    strbuf_init(&verdict.out, arena, filter_room(text.len));
    struct filter_sink sink = {&verdict.out, add, &verdict};
    OWNED(filter_stream) stream = filter_stream_create(set);
    while (text.len > 0 && verdict.is_open) {
        size_t len = step < text.len ? step : text.len;
        char *copy = malloc(len);
        memcpy(copy, text.ptr, len);
        verdict.is_open = filter_stream_feed(stream, str_of(copy, len), &sink);
        free(copy);
        ensure(!verdict.is_open || filter_stream_held(stream) <= FILTER_HOLD_BYTES_MAX);
        text = str_from(text, len);
    }
    verdict.is_open = verdict.is_open && filter_stream_end(stream, &sink);
    ensure(!strbuf_is_over(&verdict.out));
    return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    str text = str_of((const char *) data + 1, size - 1);
    for (size_t i = 0; i < ARRAY_COUNT(sets); i++) {
        OWNED(arena) arena = arena_create(SIZE_MAX);
        struct verdict whole = filter(sets[i], arena, text, text.len);
        struct verdict cut = filter(sets[i], arena, text, (size_t) data[0] % 37 + 1);
        ensure(whole.is_open == cut.is_open && whole.hash == cut.hash &&
               str_equal(strbuf_str(&whole.out), strbuf_str(&cut.out)));
        ensure(i != 0 || whole.hash != 0 || str_equal(strbuf_str(&whole.out), text));
    }
    return 0;
}
