/* What stays of a conversation: properties over random ones, and the texts that stand for the rest. */
#include "orchestrator/run/run_context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

enum { MESSAGES_MAX = 400 };

static uint64_t seed;

static uint64_t next_random(uint64_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static str words(struct arena *arena, size_t bytes)
{
    char *text = arena_alloc_raw(arena, bytes + 1);
    for (size_t i = 0; i < bytes; i++)
        text[i] = (char) (i % 7 == 6 ? ' ' : 'a' + (char) next_random(26));
    text[bytes] = '\0';
    return str_of(text, bytes);
}

static struct prompt_message *add(struct arena *arena, struct conversation *c, enum role role,
                                  size_t parts)
{
    struct prompt_message *message = &c->messages[c->count++];
    *message = (struct prompt_message){.role = role, .part_count = parts};
    message->parts = ARENA_ARRAY(arena, struct part, parts + 1);
    return message;
}

static void add_text(struct arena *arena, struct conversation *c, enum role role)
{
    add(arena, c, role, 1)->parts[0] =
        (struct part){.kind = PART_TEXT, .text = words(arena, 1 + next_random(600))};
}

/* An answer that calls tools, and their results. */
static void add_calls(struct arena *arena, struct conversation *c)
{
    size_t calls = 1 + next_random(3);
    struct prompt_message *answer = add(arena, c, ROLE_ASSISTANT, calls);
    for (size_t i = 0; i < calls; i++)
        answer->parts[i] = (struct part){.kind = PART_TOOL_CALL,
                                         .name = S("lookup"),
                                         .call_id = words(arena, 24),
                                         .arguments = S("{\"q\":1}")};
    for (size_t i = 0; i < calls; i++)
        add(arena, c, ROLE_TOOL, 1)->parts[0] =
            (struct part){.kind = PART_TOOL_RESULT,
                          .name = S("lookup"),
                          .call_id = answer->parts[i].call_id,
                          .is_error = next_random(5) == 0,
                          .text = words(arena, 1 + next_random(next_random(8) ? 900 : 20000))};
}

static struct conversation random_conversation(struct arena *arena)
{
    struct conversation c = {.messages = ARENA_ARRAY(arena, struct prompt_message, MESSAGES_MAX)};
    size_t wanted = 1 + next_random(MESSAGES_MAX - 8);
    if (next_random(4))
        add_text(arena, &c, ROLE_SYSTEM);
    c.first = c.count;
    c.task = c.count;
    add_text(arena, &c, ROLE_USER);
    c.question = c.task;
    while (c.count < wanted) {
        uint64_t kind = next_random(4);
        if (kind == 0)
            c.question = c.count;
        if (kind == 0)
            add_text(arena, &c, ROLE_USER);
        else if (kind == 1)
            add_text(arena, &c, ROLE_ASSISTANT);
        else
            add_calls(arena, &c);
    }
    return c;
}

static bool has_call(const struct prompt_message *message, str call_id)
{
    for (size_t i = 0; i < message->part_count; i++)
        if (message->parts[i].kind == PART_TOOL_CALL &&
            str_equal(message->parts[i].call_id, call_id))
            return true;
    return false;
}

/* A result is on the side of its call. */
static void check_pairs(const struct conversation *c, size_t cut)
{
    for (size_t i = c->first; i < c->count; i++) {
        if (c->messages[i].role != ROLE_TOOL)
            continue;
        size_t call = i;
        while (!has_call(&c->messages[call], c->messages[i].parts[0].call_id))
            call--;
        assert_int_equal(context_stays(c, cut, i), context_stays(c, cut, call));
    }
}

static size_t start_of_last_unit(const struct conversation *c)
{
    size_t place = c->count - 1;
    while (place > c->first && c->messages[place].role == ROLE_TOOL)
        place--;
    return place;
}

static void check_size(const struct conversation *c, size_t cut, const struct context_limits *kept)
{
    int64_t tokens = 0;
    for (size_t i = 0; i < c->count; i++)
        if (context_stays(c, cut, i))
            tokens += context_message_tokens(&c->messages[i]);
    assert_true((tokens <= kept->tokens_max && c->count - cut <= kept->messages_max) ||
                cut == start_of_last_unit(c));
}

static void test_pairs_stay_together_the_task_stays_and_the_rest_fits(void **state)
{
    (void) state;
    for (seed = 1; seed < 4000; seed += 2) {
        uint64_t first = seed;
        OWNED(arena) arena = arena_create(0);
        struct conversation c = random_conversation(arena);
        struct context_limits limits = {(int64_t) (500 + next_random(200000)),
                                        10 + next_random(400)};
        struct context_limits kept = {limits.tokens_max / 2, limits.messages_max / 2};
        size_t cut = context_cut(&c, &limits, &kept);
        bool fits = context_tokens(c.messages, c.count) <= limits.tokens_max &&
                    c.count - c.first <= limits.messages_max;
        assert_true(cut >= c.first && cut < c.count);
        assert_true(!fits || cut == c.first);
        assert_true(context_stays(&c, cut, c.task) && context_stays(&c, cut, c.question));
        check_pairs(&c, cut);
        if (cut > c.first)
            check_size(&c, cut, &kept);
        size_t bytes = 300 + next_random(4000);
        str text = context_fallback(arena, &c, cut, bytes);
        assert_true(text.len > 0 && text.len <= bytes);
        assert_true(str_equal(text, context_fallback(arena, &c, cut, bytes)));
        assert_true(context_transcript(arena, &c, cut, bytes).len <= bytes);
        seed = first;
    }
}

static void test_long_results_are_cut_until_all_fits(void **state)
{
    (void) state;
    for (seed = 2; seed < 1000; seed += 2) {
        uint64_t first = seed;
        OWNED(arena) arena = arena_create(0);
        struct conversation c = random_conversation(arena);
        int64_t before = context_tokens(c.messages, c.count), wanted = before / 2;
        bool fits = context_shorten_results(arena, &c, wanted, S(""));
        int64_t after = context_tokens(c.messages, c.count);
        assert_true(after <= before && fits == (after <= wanted));
        seed = first;
    }
}

static void test_a_text_is_cut_in_its_middle_and_says_so(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    seed = 7;
    str text = str_printf(arena, "BEGIN" STR_FMT "END", STR_ARG(words(arena, 5000)));
    str cut = context_shorten(arena, text, 1000, S("; ask for less"));
    assert_true(cut.len <= 1000 && cut.len > 800);
    assert_true(str_starts_with(cut, S("BEGIN")) && str_ends_with(cut, S("END")));
    assert_true(str_find(cut, S(" bytes left out here; ask for less]")) != STR_NOT_FOUND);
    assert_true(str_equal(context_shorten(arena, S("short"), 1000, S("")), S("short")));
    str umlauts = S("\xc3\xa4\xc3\xb6\xc3\xbc");
    struct strbuf many;
    strbuf_init(&many, arena, 4096);
    for (int i = 0; i < 200; i++)
        strbuf_add(&many, umlauts);
    for (size_t bytes = 200; bytes < 300; bytes++)
        assert_true(str_is_utf8(context_shorten(arena, strbuf_str(&many), bytes, S(""))));
}

static void test_a_summary_without_a_model_names_tools_and_first_sentences(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct part parts[] = {
        {.kind = PART_TEXT, .text = S("Find the bill. Then pay it.")},
        {.kind = PART_TOOL_CALL, .name = S("lookup"), .call_id = S("1"), .arguments = S("{}")},
        {.kind = PART_TOOL_RESULT, .name = S("lookup"), .call_id = S("1"), .text = S("12 EUR")},
        {.kind = PART_TEXT, .text = S("# It is 12 EUR\nof which ...")},
        {.kind = PART_TEXT, .text = S("And now?")},
    };
    enum role roles[] = {ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_ASSISTANT, ROLE_USER};
    struct prompt_message messages[5];
    for (size_t i = 0; i < 5; i++)
        messages[i] =
            (struct prompt_message){.role = roles[i], .parts = &parts[i], .part_count = 1};
    struct conversation c = {.messages = messages, .count = 5, .task = 5, .question = 4};
    str text = context_fallback(arena, &c, 4, 4096);
    assert_true(str_equal(text, S("4 messages, what each was about:\n"
                                  "- user: Find the bill.\n"
                                  "- assistant:  (called lookup)\n"
                                  "- tool lookup succeeded: 12 EUR\n"
                                  "- assistant: # It is 12 EUR\n")));
    text = context_fallback(arena, &c, 4, 190);
    assert_true(str_find(text, S("oldest nothing is said")) != STR_NOT_FOUND);
    assert_true(str_find(text, S("# It is 12 EUR")) != STR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pairs_stay_together_the_task_stays_and_the_rest_fits),
        cmocka_unit_test(test_long_results_are_cut_until_all_fits),
        cmocka_unit_test(test_a_text_is_cut_in_its_middle_and_says_so),
        cmocka_unit_test(test_a_summary_without_a_model_names_tools_and_first_sentences),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
