/* Conversations that outgrow their model's window. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/orchestrator_internal.h"

enum { WINDOW = 20000, TURNS = 60 };

/* What the provider was given. */
static struct {
    size_t summaries, largest_messages;
    int64_t largest_tokens;
    bool has_task, has_summary, is_orphan;
    char question[32];
} seen;

static bool has_call(const struct prompt *prompt, size_t before, str call_id)
{
    for (size_t i = 0; i < before; i++)
        for (size_t k = 0; k < prompt->messages[i].part_count; k++)
            if (prompt->messages[i].parts[k].kind == PART_TOOL_CALL &&
                str_equal(prompt->messages[i].parts[k].call_id, call_id))
                return true;
    return false;
}

static void look(struct testkit *kit, const struct prompt *prompt)
{
    (void) kit;
    int64_t tokens = prompt_input_tokens_bound(prompt);
    OWNED(arena) arena = arena_create(0);
    str system = prompt_message_text(arena, &prompt->messages[0]);
    seen.summaries += str_starts_with(system, S("You condense"));
    if (tokens > seen.largest_tokens)
        seen.largest_tokens = tokens;
    if (prompt->message_count > seen.largest_messages)
        seen.largest_messages = prompt->message_count;
    seen.has_task = seen.has_summary = false;
    for (size_t i = 0; i < prompt->message_count; i++) {
        str text = prompt_message_text(arena, &prompt->messages[i]);
        seen.has_task = seen.has_task || str_find(text, S("turn 0:")) != STR_NOT_FOUND;
        seen.has_summary =
            seen.has_summary || str_find(text, S("[What was said before")) != STR_NOT_FOUND;
        for (size_t k = 0; k < prompt->messages[i].part_count; k++) {
            const struct part *part = &prompt->messages[i].parts[k];
            if (part->kind == PART_TOOL_RESULT && !has_call(prompt, i, part->call_id))
                seen.is_orphan = true;
        }
    }
}

static void open_session(struct context *ctx, void *unused)
{
    (void) unused;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
}

static void say(struct context *ctx, void *turn)
{
    char text[700];
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    snprintf(text, sizeof text, "turn %d: what about it?", *(int *) turn);
    size_t length = strlen(text);
    text[length] = ' ';
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, text);
}

static void begin(struct testkit *kit, int64_t window)
{
    memset(&seen, 0, sizeof seen);
    scene_start(kit);
    kit->context_tokens_max = window;
    kit->defaults.session_budget = (cost){100000000, 360000000, COST_UNLIMITED, COST_UNLIMITED};
    testkit_crash(kit);
    kit->on_prompt = look;
    testkit_do(kit, open_session, NULL);
}

static void talk(struct testkit *kit, int turns)
{
    for (int turn = 0; turn < turns; turn++)
        testkit_do(kit, say, &turn);
}

static int64_t count_messages(struct context *ctx, struct record *summary)
{
    struct query query = query_of(TABLE_MESSAGES);
    int64_t count = 0;
    query_where_uuid(&query, MESSAGES_SESSION_ID, scene.session_id);
    for (;;) {
        struct records rows;
        struct error e = {0};
        assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
        for (size_t i = 0; i < rows.count; i++) {
            if (!str_equal(record_text(&rows.items[i], MESSAGES_ROLE), S("system")))
                count++;
            else
                *summary = rows.items[i];
        }
        if (str_is_empty(rows.next_cursor))
            return count;
        query.cursor = rows.next_cursor;
    }
}

static void check_long_talk(struct context *ctx, void *unused)
{
    (void) unused;
    struct record *summary = ARENA_NEW(ctx->arena, struct record);
    struct records view;
    struct error e = {0};
    assert_at_rest(ctx, "completed");
    assert_int_equal(count_messages(ctx, summary), 2 * TURNS); /* nothing is lost */
    assert_true(record_has(summary, MESSAGES_METADATA));
    assert_true(session_context(scene.kit->o, ctx, &scene.user, scene.session_id, &view, &e));
    assert_true(view.count < 40 && view.count > 2);
    assert_non_null(
        strstr(str_to_cstr(ctx->arena, record_text(&view.items[0], MESSAGES_CONTENT)), "turn 0:"));
    assert_str(record_text(&view.items[1], MESSAGES_ROLE), "system");
}

static void test_a_long_conversation_is_summarised_and_stays_within_its_window(struct testkit *kit)
{
    begin(kit, WINDOW);
    talk(kit, TURNS);
    assert_true(seen.summaries > 0 && seen.summaries < TURNS / 5);
    assert_true(seen.largest_tokens <= WINDOW);
    assert_true(seen.has_task && seen.has_summary && !seen.is_orphan);
    testkit_do(kit, check_long_talk, NULL);
}

static void test_a_summary_outlives_a_crash(struct testkit *kit)
{
    begin(kit, WINDOW);
    talk(kit, TURNS / 2);
    size_t summaries = seen.summaries;
    assert_true(summaries > 0);
    testkit_crash(kit);
    int turn = TURNS;
    testkit_do(kit, say, &turn);
    assert_true(seen.has_task && seen.has_summary);
    assert_true(seen.summaries <= summaries + 1);
    assert_true(seen.largest_messages < TURNS);
}

static void check_fallback(struct context *ctx, void *unused)
{
    (void) unused;
    struct record *summary = ARENA_NEW(ctx->arena, struct record);
    count_messages(ctx, summary);
    str text = record_text(summary, MESSAGES_CONTENT);
    assert_true(str_find(text, S("what each was about")) != STR_NOT_FOUND);
    assert_true(str_find(record_text(summary, MESSAGES_METADATA), S("\"is_fallback\":true")) !=
                STR_NOT_FOUND);
}

static void refuse_summaries(struct testkit *kit, const struct prompt *prompt)
{
    look(kit, prompt);
    OWNED(arena) arena = arena_create(0);
    kit->reply_next = kit->reply_count = 0;
    if (str_starts_with(prompt_message_text(arena, &prompt->messages[0]), S("You condense")))
        testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_INVALID});
}

static void test_a_model_that_does_not_summarise_is_done_without(struct testkit *kit)
{
    begin(kit, WINDOW);
    kit->on_prompt = refuse_summaries;
    talk(kit, TURNS / 2);
    assert_true(seen.summaries > 0 && seen.has_summary);
    testkit_do(kit, check_fallback, NULL);
}

/* The budget is nearly out: no model is asked to summarise. */
static void look_slowly(struct testkit *kit, const struct prompt *prompt)
{
    size_t before = seen.summaries;
    look(kit, prompt);
    kit->reply_next = kit->reply_count = 0;
    if (seen.summaries > before)
        testkit_reply(kit, (struct fake_reply){.text = "too late", .delay_ms = 60000});
}

static void cancel_it(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    if (!run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void check_cancelled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
    assert_history(ctx, BEGUN INTENT " model.failed budget.settled run.cancelling run.cancelled");
}

static void test_a_run_that_is_cancelled_while_it_summarises_asks_its_model_nothing_more(
    struct testkit *kit)
{
    begin(kit, WINDOW);
    kit->on_prompt = look_slowly;
    for (int turn = 0; seen.summaries == 0 && turn < TURNS; turn++) {
        testkit_begin(kit, say, &turn);
        testkit_run_ms(kit, 1000);
    }
    assert_int_equal(seen.summaries, 1);
    testkit_begin(kit, cancel_it, NULL);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, check_cancelled, NULL);
}

static void test_a_tight_budget_is_met_without_a_model(struct testkit *kit)
{
    memset(&seen, 0, sizeof seen);
    scene_start(kit);
    kit->defaults.session_budget = (cost){30000, 360000000, COST_UNLIMITED, COST_UNLIMITED};
    testkit_crash(kit);
    kit->on_prompt = look;
    testkit_do(kit, open_session, NULL);
    talk(kit, TURNS);
    assert_int_equal(seen.summaries, 0);
    assert_true(seen.has_summary);
    testkit_do(kit, check_fallback, NULL);
}

/* ---- one run with many calls ---- */

static char huge[16000];

static void call_again(struct testkit *kit, const struct prompt *prompt)
{
    look(kit, prompt);
    OWNED(arena) arena = arena_create(0);
    kit->reply_next = kit->reply_count = 0;
    bool is_summary =
        str_starts_with(prompt_message_text(arena, &prompt->messages[0]), S("You condense"));
    if (is_summary)
        testkit_reply(kit, (struct fake_reply){.text = "short"});
    else if (testkit_tool(kit, "lookup")->effects < 12)
        testkit_reply(kit,
                      (struct fake_reply){.calls = {{"lookup", "{\"q\":1}"}}, .call_count = 1});
}

static struct label label_of_row(struct context *ctx, const struct record *row)
{
    const struct json *metadata;
    struct error e = {0};
    assert_true(json_parse(ctx->arena, record_text(row, MESSAGES_METADATA), (struct json_limits){0},
                           &metadata, &e));
    return label_read_json(json_get(metadata, S("label")));
}

static void check_many_calls(struct context *ctx, void *unused)
{
    (void) unused;
    struct record *summary = ARENA_NEW(ctx->arena, struct record);
    assert_at_rest(ctx, "completed");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->effects, 12);
    count_messages(ctx, summary);
    struct label label = label_of_row(ctx, summary); /* as untrusted as what the tools said */
    assert_true(label.is_untrusted && (label.origins & LABEL_TOOL) &&
                (label.origins & LABEL_AGENT));
}

static void test_a_run_of_many_large_results_fits_its_window(struct testkit *kit)
{
    begin(kit, 40000);
    memset(huge, 'y', sizeof huge - 1);
    memcpy(huge, "{\"text\":\"", 9);
    memcpy(huge + sizeof huge - 3, "\"}", 3);
    testkit_tool(kit, "lookup")->output = huge;
    kit->on_prompt = call_again;
    int turn = 0;
    testkit_do(kit, say, &turn);
    testkit_do(kit, check_many_calls, NULL);
    assert_true(seen.summaries > 0);
    assert_true(seen.largest_tokens <= 40000);
    assert_true(!seen.is_orphan);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_long_conversation_is_summarised_and_stays_within_its_window),
        TESTKIT_SCRIPT(test_a_summary_outlives_a_crash),
        TESTKIT_SCRIPT(test_a_model_that_does_not_summarise_is_done_without),
        TESTKIT_SCRIPT(
            test_a_run_that_is_cancelled_while_it_summarises_asks_its_model_nothing_more),
        TESTKIT_SCRIPT(test_a_tight_budget_is_met_without_a_model),
        TESTKIT_SCRIPT(test_a_run_of_many_large_results_fits_its_window),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
