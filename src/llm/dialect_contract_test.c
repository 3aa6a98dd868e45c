/*
 * Each dialect, and each pair of them, against the contract; NEXUS_SEEDS sets how many random prompts and replies are tried.  With
 * NEXUS_SAMPLES set to a folder, what the dialects write is kept there as files, for tests/anthropic_schema.py and
 * tests/openai_schema.py.
 */
#include "llm/dialect_contract.h"

#include "base/arena.h"
#include "net/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static uint64_t seed_count(void)
{
    uint64_t count;
    return str_to_u64(str_from_cstr(getenv("NEXUS_SEEDS")), &count) ? count : 200;
}

static void test_each_dialect_keeps_the_contract(void **state)
{
    (void) state;
    for (int i = 0; i < DIALECT_COUNT; i++)
        dialect_contract(dialect_of((enum dialect_id) i), 0);
}

static void test_each_pair_loses_nothing_that_both_can_say(void **state)
{
    (void) state;
    for (int i = 0; i < DIALECT_COUNT; i++) {
        for (int k = 0; k < DIALECT_COUNT; k++)
            dialect_contract_pair(dialect_of((enum dialect_id) i), dialect_of((enum dialect_id) k),
                                  0);
    }
}

static void test_random_prompts_and_replies_keep_the_contract(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= seed_count(); seed++) {
        for (int i = 0; i < DIALECT_COUNT; i++)
            dialect_contract(dialect_of((enum dialect_id) i), seed);
    }
}

static void test_random_prompts_and_replies_survive_each_pair(void **state)
{
    (void) state;
    for (uint64_t seed = 1; seed <= seed_count(); seed++) {
        for (int i = 0; i < DIALECT_COUNT * DIALECT_COUNT; i++)
            dialect_contract_pair(dialect_of((enum dialect_id)(i / DIALECT_COUNT)),
                                  dialect_of((enum dialect_id)(i % DIALECT_COUNT)), seed);
    }
}

/* ---- samples ---- */

enum { SAMPLE_SEEDS = 60 };

static struct json_writer *writer(struct arena *arena, struct strbuf *text)
{
    struct json_writer *w = ARENA_NEW(arena, struct json_writer);
    strbuf_init(text, arena, 16u << 20);
    json_writer_init(w, text);
    return w;
}

static void keep(struct arena *arena, const char *prefix, const char *kind, int seed,
                 const struct strbuf *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s%s_contract_%d.json", getenv("NEXUS_SAMPLES"), prefix, kind,
             seed);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(str_to_cstr(arena, strbuf_str(text)), file);
    fclose(file);
}

/* All events as one list, for the Messages API; each a file of its own for chunks. */
static void keep_events(struct arena *arena, const struct dialect *dialect, const char *prefix,
                        int seed)
{
    bool is_chat = dialect->id == DIALECT_OPENAI_CHAT;
    const struct reply *reply = dialect_contract_reply(arena, (uint64_t) seed);
    str bytes = dialect_contract_write_stream(arena, dialect, reply, (uint64_t) seed);
    struct strbuf text;
    struct json_writer *w = writer(arena, &text);
    struct sse_event event;
    struct error e = {0};
    OWNED(sse_parser) parser = sse_parser_create(0);
    assert_true(sse_parser_feed(parser, bytes, &e));
    json_array_begin(w);
    for (int i = 0; sse_parser_next(parser, &event); i++) {
        struct strbuf one;
        if (event.data.len == 0 || str_equal(event.data, S("[DONE]")))
            continue;
        json_write_raw(w, event.data);
        strbuf_init(&one, arena, 1u << 20);
        strbuf_add(&one, event.data);
        if (is_chat)
            keep(arena, prefix, "chunk", seed * 1000 + i, &one);
    }
    json_array_end(w);
    if (!is_chat)
        keep(arena, prefix, "events", seed, &text);
}

static void keep_samples(const struct dialect *dialect, const char *prefix)
{
    for (int seed = 0; seed < SAMPLE_SEEDS; seed++) {
        OWNED(arena) arena = arena_create(64u << 20);
        struct strbuf text;
        struct dialect_answer answer = {.id = S("id-1"), .model = S("m"), .created = 1700000000};
        const struct prompt *prompt = dialect_contract_prompt(arena, (uint64_t) seed);
        dialect->write_request(writer(arena, &text), prompt, false);
        keep(arena, prefix, "request", seed, &text);
        dialect->write_reply(writer(arena, &text), &answer,
                             dialect_contract_reply(arena, (uint64_t) seed));
        keep(arena, prefix, "reply", seed, &text);
        keep_events(arena, dialect, prefix, seed);
    }
}

static void test_samples_are_kept_when_asked_for(void **state)
{
    (void) state;
    if (!getenv("NEXUS_SAMPLES"))
        skip();
    keep_samples(&anthropic_messages_dialect, "anthropic_");
    keep_samples(&openai_chat_dialect, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_dialect_keeps_the_contract),
        cmocka_unit_test(test_each_pair_loses_nothing_that_both_can_say),
        cmocka_unit_test(test_random_prompts_and_replies_keep_the_contract),
        cmocka_unit_test(test_random_prompts_and_replies_survive_each_pair),
        cmocka_unit_test(test_samples_are_kept_when_asked_for),
    };
    return cmocka_run_group_tests_name("dialect_contract", tests, NULL, NULL);
}
