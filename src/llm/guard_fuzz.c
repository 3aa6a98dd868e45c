/* Arguments through the filter: the same however they are cut; what was JSON stays JSON. */
#include "llm/guard_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <stdlib.h>

static struct guard_rules rules;

static void make_rules(void)
{
    static const struct filter_rule given[] = {
        {S_INIT("name"), S_INIT("(?i)mal+ory"), {0}, FILTER_MASK},
        {S_INIT("digits"), S_INIT("[0-9]{3}"), {0}, FILTER_MASK},
        {S_INIT("escaped"), S_INIT("\"x\\\\|\\ny|\xc3\xa4+|\xf0\x9f\x98\x80"), {0}, FILTER_MASK},
        {S_INIT("never"), S_INIT("no{2,}pe"), {0}, FILTER_BLOCK},
    };
    struct error e;
    struct filter_set *set;
    struct filter_options options = {.rules = given, .rule_count = ARRAY_COUNT(given)};
    ensure(filter_set_create(&options, &set, &e));
    rules = (struct guard_rules){.sets = {set, set}};
}

static bool filter(struct arena *arena, str text, size_t step, struct strbuf *out)
{
    struct guard_watch watch;
    struct guard_channel channel;
    guard_watch_init(&watch, &rules, GUARD_REPLY, NULL);
    guard_channel_init(&channel, rules.sets[GUARD_REPLY], true);
    strbuf_init(out, arena, SIZE_MAX);
    bool is_open = true;
    while (is_open && text.len > 0) {
        str piece = str_slice(text, 0, step);
        char *copy = malloc(piece.len);
        memcpy(copy, piece.ptr, piece.len);
        is_open = guard_channel_feed(&channel, &watch, str_of(copy, piece.len), out);
        free(copy);
        text = str_from(text, piece.len);
    }
    is_open = is_open && guard_channel_end(&channel, &watch, out);
    guard_channel_deinit(&channel);
    return is_open;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct strbuf whole, cut;
    struct error e;
    const struct json *tree;
    if (size < 2)
        return 0;
    if (!rules.sets[GUARD_REPLY])
        make_rules();
    OWNED(arena) arena = arena_create(64u << 20);
    str text = str_of((const char *) data + 1, size - 1);
    bool is_open = filter(arena, text, text.len, &whole);
    ensure(filter(arena, text, (size_t) data[0] % 11 + 1, &cut) == is_open);
    ensure(str_equal(strbuf_str(&whole), strbuf_str(&cut)));
    struct json_limits limits = {.allow_duplicates = true};
    if (is_open && json_parse(arena, text, limits, &tree, &e))
        ensure(json_parse(arena, strbuf_str(&whole), limits, &tree, &e));
    return 0;
}
