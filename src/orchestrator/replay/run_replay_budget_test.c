/*
 * Budgets and summaries, recorded and played again.  What the accounts had left changes between two looks of a run, because others take from
 * them: what the run decided then is what counts.  Here a recording is changed as if others had.
 */
#include "orchestrator/replay/run_replay_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static void begin_with_tokens(struct context *ctx, void *tokens)
{
    cost budget = COST_LIMITLESS;
    budget.tokens = *(int64_t *) tokens;
    scene_begin_with(ctx, budget);
}

/* The number of tokens that follows `member` after each `event` in the text becomes `tokens`. */
static str with_tokens(struct testkit *kit, str text, str event, str member, int tokens)
{
    struct strbuf out;
    strbuf_init(&out, kit->arena, text.len + (64u << 10));
    for (size_t at; (at = str_find(text, event)) != STR_NOT_FOUND;) {
        size_t from = at + str_find(str_from(text, at), member) + member.len, to = from;
        while (to < text.len && text.ptr[to] >= '0' && text.ptr[to] <= '9')
            to++;
        assert_true(to > from);
        strbuf_add(&out, str_slice(text, 0, from));
        strbuf_printf(&out, "%d", tokens);
        text = str_from(text, to);
    }
    strbuf_add(&out, text);
    return strbuf_str(&out);
}

static void assert_same(struct testkit *kit, str text)
{
    const struct replay_report *report = replay_text(kit, text);
    const struct replay_difference *first = &report->differences[0];
    if (!report->is_same)
        fail_msg("event %lld " STR_FMT "\n  recorded " STR_FMT "\n  replayed " STR_FMT,
                 (long long) first->seq, STR_ARG(first->what), STR_ARG(first->recorded),
                 STR_ARG(first->replayed));
}

static struct fake_reply call_of(const char *tool)
{
    return (struct fake_reply){.calls = {{tool, "{}"}}, .call_count = 1};
}

static bool has(str text, const char *wanted)
{
    return str_find(text, str_from_cstr(wanted)) != STR_NOT_FOUND;
}

static void test_a_call_is_as_large_as_it_was_whatever_came_back_since(struct testkit *kit)
{
    str text = STR_NONE;
    scene_start(kit);
    for (int64_t tokens = 200; !has(text, "\"model.requested\""); tokens += 150) {
        testkit_do(kit, begin_with_tokens, &tokens);
        text = replay_export(kit);
    }
    assert_true(has(text, "\"room\":"));
    assert_false(
        has(text, "\"max_output_tokens\":300,\"reservation_id\"")); /* cut to what was left */
    assert_same(kit, text);
    assert_same(kit, with_tokens(kit, text, S("\"budget.reserved\""),
                                 S("\"remaining\":{\"tokens\":"), 500));
}

static void test_a_conversation_keeps_the_room_it_had_though_others_took_it(struct testkit *kit)
{
    int64_t tokens = 60000;
    scene_start(kit);
    testkit_reply(kit, call_of("lookup"));
    testkit_do(kit, begin_with_tokens, &tokens);
    str text = assert_replays(kit);
    assert_same(kit, with_tokens(kit, text, S("\"action\":\"model.call\""),
                                 S("\"remaining\":{\"tokens\":"), 30));
}

static void test_a_refusal_says_what_it_said(struct testkit *kit)
{
    int64_t tokens = 12000;
    scene_start(kit);
    for (int i = 0; i < 6; i++) {
        struct fake_reply reply = call_of("lookup");
        reply.usage =
            (struct usage){.is_reported = true, .input_tokens = 2500, .output_tokens = 300};
        testkit_reply(kit, reply);
    }
    testkit_do(kit, begin_with_tokens, &tokens);
    str text = assert_replays(kit);
    assert_true(str_find(text, S("\"budget.wind_down\"")) != STR_NOT_FOUND);
    assert_same(kit, with_tokens(kit, text, S("\"action\":\"model.call\""),
                                 S("\"remaining\":{\"tokens\":"), 9000));
}

static void test_calls_that_a_last_answer_asked_for_are_counted_though_nobody_heard_them(
    struct testkit *kit)
{
    int64_t tokens = 12000;
    scene_start(kit);
    for (int i = 0; i < 6; i++) {
        struct fake_reply reply = {
            .text = "in short", .calls = {{"lookup", "{\"at\":9}"}}, .call_count = 1};
        if (i < 3)
            reply.usage =
                (struct usage){.is_reported = true, .input_tokens = 2500, .output_tokens = 300};
        testkit_reply(kit, reply);
    }
    testkit_do(kit, begin_with_tokens, &tokens);
    str text = assert_replays(kit);
    assert_true(has(text, "\"budget.wind_down\""));
    assert_true(
        has(str_from(text, str_find(text, S("\"budget.wind_down\""))), "\"is_reported\":false"));
}

/* ---- summaries ---- */

static void use_narrow_model(struct testkit *kit)
{
    kit->context_tokens_max = 9000;
    testkit_crash_only(kit);
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
}

static void say_much(struct context *ctx, void *unused)
{
    char text[1500];
    (void) unused;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, text);
}

static bool is_summarised(struct testkit *kit)
{
    return str_find(replay_export(kit), S("\"message.summarised\"")) != STR_NOT_FOUND;
}

static void talk_until_summarised(struct testkit *kit)
{
    for (int turn = 0; turn < 40 && !is_summarised(kit); turn++) {
        kit->reply_count = kit->reply_next = 0;
        testkit_reply(kit, (struct fake_reply){.text = " words with spaces around them  "});
        testkit_reply(kit, (struct fake_reply){.text = " words with spaces around them  "});
        testkit_do(kit, say_much, NULL);
    }
    assert_true(is_summarised(kit));
}

static void test_a_summary_counts_what_the_model_said_of_it(struct testkit *kit)
{
    use_narrow_model(kit);
    talk_until_summarised(kit);
    str text = assert_replays(kit);
    assert_true(str_find(text, S("\"purpose\":\"summary\"")) != STR_NOT_FOUND);
    assert_true(str_find(text, S("\"is_fallback\":false")) != STR_NOT_FOUND);
}

/* While the run goes on. */
static void look(struct context *ctx, void *is_there)
{
    str history = testkit_history(scene.kit, ctx, scene.run_id);
    *(bool *) is_there = has(history, "message.summarised");
}

static void test_a_summary_is_still_there_when_the_node_stopped_after_it(struct testkit *kit)
{
    use_narrow_model(kit);
    for (int turn = 0; turn < 40 && !is_summarised(kit); turn++) {
        kit->reply_count = kit->reply_next = 0;
        testkit_reply(kit, (struct fake_reply){.text = "in short", .delay_ms = 100});
        testkit_reply(kit, (struct fake_reply){.text = "well", .delay_ms = 5000});
        bool is_there = false;
        testkit_begin(kit, say_much, NULL);
        testkit_run_ms(kit, 1000);
        testkit_begin(kit, look, &is_there);
        testkit_run_ms(kit, 1);
        if (is_there) /* and the call after it is in flight */
            testkit_crash(kit);
        testkit_run_ms(kit, 60000);
    }
    str text = assert_replays(kit);
    assert_true(str_find(text, S("\"run.resumed\"")) != STR_NOT_FOUND);
}

static void test_a_summary_that_no_model_wrote_replays(struct testkit *kit)
{
    use_narrow_model(kit);
    for (int turn = 0; turn < 40 && !is_summarised(kit); turn++) {
        kit->reply_count = kit->reply_next = 0;
        testkit_reply(kit, (struct fake_reply){.text = "   "});
        testkit_do(kit, say_much, NULL);
    }
    str text = assert_replays(kit);
    assert_true(str_find(text, S("\"is_fallback\":true")) != STR_NOT_FOUND);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_call_is_as_large_as_it_was_whatever_came_back_since),
        TESTKIT_SCRIPT(test_a_conversation_keeps_the_room_it_had_though_others_took_it),
        TESTKIT_SCRIPT(test_a_refusal_says_what_it_said),
        TESTKIT_SCRIPT(
            test_calls_that_a_last_answer_asked_for_are_counted_though_nobody_heard_them),
        TESTKIT_SCRIPT(test_a_summary_counts_what_the_model_said_of_it),
        TESTKIT_SCRIPT(test_a_summary_is_still_there_when_the_node_stopped_after_it),
        TESTKIT_SCRIPT(test_a_summary_that_no_model_wrote_replays),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
