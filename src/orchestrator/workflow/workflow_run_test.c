/* Whole instances over simulated parts: what the journal says, what happened outside, what came out. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/workflow/workflow_run.h"
#include "orchestrator/workflow/workflow_store.h"

static struct {
    const char *definition, *input;
    str output;
} play;

static void put(struct context *ctx, const char *text)
{
    struct workflow_entry *entry;
    struct definition_problems problems = {0};
    struct error e = {0};
    bool is_new;
    if (!workflow_put(scene.kit->o, ctx, &scene.user, str_from_cstr(text), &problems, &entry,
                      &is_new, &e))
        fail_msg("%s", e.message);
    workflow_entry_release(entry);
}

/* Puts the definition, named `w`, and starts it. */
static void begin(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    put(ctx, play.definition);
    struct workflow_request request = {.name = S("w"),
                                       .input = str_from_cstr(play.input ? play.input : "{}"),
                                       .budget = COST_LIMITLESS};
    if (!workflow_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &scene.session_id,
                        &e))
        fail_msg("%s", e.message);
}

/* Labels have a test of their own. */
static void set_play(struct testkit *kit, const char *definition, const char *input)
{
    kit->defaults.containment.mode = CONTAINMENT_OFF;
    testkit_crash_only(kit);
    scene_start(kit);
    play.definition = definition;
    play.input = input;
}

static void start(struct testkit *kit, const char *definition, const char *input)
{
    set_play(kit, definition, input);
    testkit_do(kit, begin, NULL);
}

static str steps_text(struct context *ctx)
{
    struct strbuf text;
    struct json_writer w;
    struct error e = {0};
    strbuf_init(&text, ctx->arena, 4 << 20);
    json_writer_init(&w, &text);
    if (!workflow_write_steps(scene.kit->o, ctx, &scene.user, scene.run_id, &w, &e))
        fail_msg("%s", e.message);
    return strbuf_str(&text);
}

/* The output of an instance that has completed. */
static str output_of(struct context *ctx)
{
    struct record key = record_of(TABLE_MESSAGES), row;
    struct error e = {0};
    uuid id;
    assert_at_rest(ctx, "completed");
    assert_true(
        uuid_parse(json_str_or(event(ctx, EVENT_RUN_COMPLETED), S("message_id"), STR_NONE), &id));
    record_set_uuid(&key, MESSAGES_ID, id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &row, &e));
    str parts = record_text(&row, MESSAGES_PARTS);
    return str_slice(parts, 10, parts.len - 1); /* {"output":...} */
}

static void assert_output(struct context *ctx, const char *wanted)
{
    assert_str(output_of(ctx), wanted);
}

static void assert_holds(struct context *ctx, const char *wanted)
{
    str text = steps_text(ctx);
    if (str_find(text, str_from_cstr(wanted)) == STR_NOT_FOUND)
        fail_msg("%s is not in " STR_FMT, wanted, STR_ARG(text));
}

#define STEP_TOOL_BEGUN " run.step_started policy.decided budget.reserved tool.intended"
#define STEP_TOOL_ENDED " tool.completed budget.settled run.step_completed"

/* ---- one after the other ---- */

static void check_sequence(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN STEP_TOOL_BEGUN STEP_TOOL_ENDED STEP_TOOL_BEGUN STEP_TOOL_ENDED
                   " run.completed");
    assert_output(ctx, "{\"first\":{\"ok\":true},\"who\":\"ada\"}");
    assert_str(scene.kit->tool_input, "{\"for\":\"ada\",\"found\":true}");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->effects, 1);
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
}

static void test_steps_go_one_after_the_other_and_see_what_came_before(struct testkit *kit)
{
    start(kit,
          "name: w\nversion: 1.0.0\n"
          "output: {first: '${steps.look.output}', who: '${input.name}'}\n"
          "steps:\n"
          "  - {id: look, tool: lookup, input: {q: 1}}\n"
          "  - {id: pay, tool: pay, input: {found: '${steps.look.output.ok}', for: "
          "'${input.name}'}}\n",
          "{\"name\":\"ada\"}");
    testkit_do(kit, check_sequence, NULL);
}

/* ---- control ---- */

static void check_control(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"both\":{\"left\":{\"ok\":true},\"right\":{\"ok\":true}},"
                       "\"list\":[10,20,30],\"rounds\":\"completed\",\"status\":\"skipped\"}");
    assert_holds(ctx, "\"step\":\"which[1].b\",\"kind\":\"tool\",\"status\":\"completed\"");
    assert_holds(ctx, "\"step\":\"again[2].x\"");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->effects, 1 + 3 + 1 + 3);
    assert_int_equal(testkit_tool(scene.kit, "notify")->effects, 1);
}

static void test_branches_maps_loops_and_arms_give_what_their_steps_give(struct testkit *kit)
{
    start(kit,
          "name: w\nversion: 1.0.0\n"
          "output: {list: '${steps.each.output}', both: '${steps.both.output}', "
          "status: '${steps.never.status}', rounds: '${steps.again.status}'}\n"
          "steps:\n"
          "  - id: which\n"
          "    branch:\n"
          "      - {when: '${input.n > 5}', steps: [{id: a, tool: pay}]}\n"
          "      - {steps: [{id: b, tool: lookup}]}\n"
          "  - {id: never, tool: pay, when: '${input.n > 5}'}\n"
          "  - id: each\n"
          "    map: {over: '${input.items}', as: it, parallel: 2, output: '${it * 10}', "
          "steps: [{id: x, tool: lookup, input: {v: '${it}', i: '${index}'}}]}\n"
          "  - id: both\n"
          "    parallel: {left: [{id: x, tool: lookup}], right: [{id: y, tool: notify}]}\n"
          "  - id: again\n"
          "    loop: {while: '${loop.index < 3}', max: 5, steps: [{id: x, tool: lookup}]}\n",
          "{\"n\":3,\"items\":[1,2,3]}");
    testkit_do(kit, check_control, NULL);
}

/* ---- failure ---- */

static void check_retried(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 3);
    assert_member(ctx, EVENT_RUN_FAILED, "error", "tool_failed");
    assert_holds(ctx, "\"attempt\":3");
}

static void test_a_step_is_tried_again_as_often_as_it_says(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: x, tool: lookup, retry: {attempts: 3, backoff: 100ms, jitter: 0.5}}\n",
             NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_retried, NULL);
}

static void check_not_retried(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"error\":\"tool_failed\",\"output\":null}");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 1);
    assert_int_equal(testkit_tool(scene.kit, "pay")->effects, 1);
}

static void test_a_class_that_is_not_tried_again_and_a_failure_that_may_be_passed_by(
    struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\n"
             "output: {error: '${steps.x.error.type}', output: '${steps.x.output}'}\nsteps:\n"
             "  - {id: x, tool: lookup, on_error: continue, retry: {attempts: 3, backoff: 100ms, "
             "except: [tool_failed]}}\n"
             "  - {id: y, tool: pay}\n",
             NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_not_retried, NULL);
}

static const char saga[] =
    "name: w\nversion: 1.0.0\nsteps:\n"
    "  - {id: a, tool: pay, input: {n: 1}, compensate: {tool: notify, input: "
    "{undo: a, was: '${steps.a.output.ok}', why: '${error.type}'}}}\n"
    "  - {id: b, tool: pay, input: {n: 2}, compensate: {tool: notify, input: "
    "{undo: b}}}\n"
    "  - {id: c, tool: lookup}\n";

static void check_undone(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(testkit_tool(scene.kit, "notify")->effects, 2);
    assert_str(scene.kit->tool_input, "{\"undo\":\"a\",\"was\":true,\"why\":\"tool_failed\"}");
    assert_member(ctx, EVENT_RUN_COMPENSATING, "reason", "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "tool_failed");
    assert_holds(ctx, "\"undone_by\":{\"step\":\"b~\"");
}

static void test_what_was_done_is_undone_in_reverse_order(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_undone, NULL);
}

static void check_asked(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_int_equal(testkit_tool(scene.kit, "pay")->begun, 1);
    assert_holds(ctx, "\"step\":\"b\",\"kind\":\"tool\",\"status\":\"waiting\"");
}

static void cancel(struct context *ctx, void *unused);

static void check_asked_no_more(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
    assert_int_equal(testkit_tool(scene.kit, "pay")->begun, 1);
}

static void test_words_of_others_reach_a_sink_by_a_person_only(struct testkit *kit)
{
    scene_start(kit);
    play.definition = "name: w\nversion: 1.0.0\nsteps:\n"
                      "  - {id: a, tool: pay, input: {n: '${input.n}'}}\n"
                      "  - {id: b, tool: pay, input: {n: '${steps.a.output.ok}'}}\n";
    play.input = "{\"n\":1}";
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_asked, NULL);
    testkit_do(kit, cancel, NULL);
    testkit_do(kit, check_asked_no_more, NULL);
}

static void cancel(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    assert_true(run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e));
}

static void check_cancelled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
    assert_int_equal(testkit_tool(scene.kit, "notify")->effects, 2);
    assert_member(ctx, EVENT_RUN_COMPENSATING, "reason", "cancelled");
}

static void test_a_cancelled_instance_is_undone_too(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_tool(kit, "lookup")->delay_ms = 5000;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, cancel, NULL);
    testkit_do(kit, check_cancelled, NULL);
}

static void check_broken(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "compensation_failed");
    assert_int_equal(testkit_tool(scene.kit, "notify")->begun, 2);
}

static void test_a_compensation_that_fails_does_not_stop_the_others(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_tool(kit, "notify")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_broken, NULL);
}

static void check_timeout(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "timeout");
}

static void test_a_step_and_a_workflow_end_at_their_timeout(struct testkit *kit)
{
    set_play(kit, "name: w\nversion: 1.0.0\nsteps:\n  - {id: x, tool: lookup, timeout: 1s}\n",
             NULL);
    testkit_tool(kit, "lookup")->delay_ms = 20000;
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_timeout, NULL);
}

/* ---- the node dies ---- */

static void check_crash(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "outcome_unknown");
    assert_int_equal(testkit_tool(scene.kit, "pay")->begun, 1);
}

static void test_an_effect_in_flight_is_not_repeated_after_a_crash(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: x, tool: pay, retry: {attempts: 3, backoff: 1s}}\n",
             NULL);
    testkit_tool(kit, "pay")->after_ms = 5000;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_crash(kit);
    testkit_run_ms(kit, 20000);
    testkit_do(kit, check_crash, NULL);
}

static void check_repeated(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "[{\"ok\":true},{\"ok\":true},{\"ok\":true},{\"ok\":true}]");
}

static void test_what_is_idempotent_or_pure_goes_on_after_a_crash(struct testkit *kit)
{
    set_play(
        kit,
        "name: w\nversion: 1.0.0\nsteps:\n"
        "  - {id: a, tool: lookup, input: {a: 1}}\n"
        "  - id: each\n"
        "    map: {over: '[1, 2, 3, 4]', parallel: 2, steps: [{id: x, tool: notify, input: {v: "
        "'${item}', a: '${steps.a.output}'}}]}\n",
        NULL);
    testkit_tool(kit, "notify")->delay_ms = 400;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 600);
    testkit_crash(kit);
    testkit_run_ms(kit, 300);
    testkit_crash(kit);
    testkit_run_ms(kit, 20000);
    testkit_do(kit, check_repeated, NULL);
    assert_int_equal(testkit_tool(kit, "lookup")->effects, 1);
}

static void check_saga_crash(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_member(ctx, EVENT_RUN_FAILED, "error", "tool_failed");
    assert_str(scene.kit->tool_input, "{\"undo\":\"a\",\"was\":true,\"why\":\"tool_failed\"}");
}

static void test_undoing_goes_on_after_a_crash(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_tool(kit, "notify")->delay_ms = 500;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 300);
    testkit_crash(kit);
    testkit_run_ms(kit, 700);
    testkit_crash(kit);
    testkit_run_ms(kit, 20000);
    testkit_do(kit, check_saga_crash, NULL);
}

/* ---- waiting ---- */

static void wake(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    size_t woken;
    if (!workflows_wake(scene.kit->o, ctx, &woken, &e))
        fail_msg("%s", e.message);
}

static void check_parked(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "waiting");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

/* Its child takes its time to undo what it did: the wait for it needs no memory, whoever cancelled. */
static const char slow_to_undo[] =
    "name: inner\nversion: 1.0.0\nsteps:\n"
    "  - {id: a, tool: pay, compensate: {tool: notify, retry: {attempts: 2, backoff: 10m, "
    "max_backoff: 10m, jitter: 0}}}\n"
    "  - {id: b, sleep: 1h}\n";

static void begin_family(struct context *ctx, void *unused)
{
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    put(ctx, slow_to_undo);
    begin(ctx, unused);
}

static void check_left(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "running");
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
}

static void check_cancelled_late(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "cancelled");
    assert_int_equal(testkit_tool(scene.kit, "notify")->effects, 2); /* of two attempts */
}

static void test_a_cancelled_instance_waits_for_its_child_without_memory(struct testkit *kit)
{
    set_play(kit, "name: w\nversion: 1.0.0\nsteps:\n  - {id: sub, workflow: {name: inner}}\n",
             NULL);
    testkit_tool(kit, "notify")->failure = REASON_TOOL_FAILED;
    testkit_begin(kit, begin_family, NULL);
    testkit_run_ms(kit, 1000);
    testkit_begin(kit, cancel, NULL);
    testkit_run_ms(kit, 2 * WORKFLOW_CHILD_LINGER_MS);
    testkit_do(kit, check_left, NULL);
    testkit_tool(kit, "notify")->failure = REASON_NONE;
    testkit_run_ms(kit, 10 * 60 * 1000);
    testkit_do(kit, wake, NULL);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, check_cancelled_late, NULL);
}

static void check_done(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
}

static void test_a_sleep_holds_no_memory_and_ends_in_time(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n  - {id: s, sleep: 1h}\n  - {id: x, tool: lookup}\n",
             NULL);
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 3000);
    testkit_do(kit, check_parked, NULL);
    testkit_do(kit, wake, NULL);
    testkit_do(kit, check_parked, NULL);
    testkit_run_ms(kit, 3600 * 1000);
    testkit_do(kit, wake, NULL);
    testkit_do(kit, check_done, NULL);
}

static void send_signal(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    uuid id;
    if (!workflow_signal(scene.kit->o, ctx, &scene.user, scene.run_id, S("go"), S("{\"n\":7}"), &id,
                         &e))
        fail_msg("%s", e.message);
}

static void check_signalled(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "[{\"n\":7},{\"n\":7}]");
}

static void test_signals_are_taken_once_whether_they_came_before_or_after(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\noutput: ['${steps.a.output}', '${steps.b.output}']\nsteps:\n"
             "  - {id: pause, sleep: 1s}\n"
             "  - {id: a, wait_signal: {name: go}}\n"
             "  - {id: b, wait_signal: {name: go, timeout: 1h}}\n",
             NULL);
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 100);
    testkit_begin(kit, send_signal, NULL);
    testkit_run_ms(kit, 4000);
    testkit_do(kit, check_parked, NULL);
    testkit_do(kit, send_signal, NULL);
    testkit_do(kit, check_signalled, NULL);
}

static void check_model(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"text\":\"hello\"}");
    assert_str(scene.kit->prompt_last, "say hello to ada");
}

static void test_a_model_step_is_a_child_run(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: m, model: {prompt: 'say hello to ${input.name}'}}\n",
             "{\"name\":\"ada\"}");
    testkit_reply(kit, (struct fake_reply){.text = "hello"});
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_model, NULL);
}

static void test_an_instance_whose_time_is_over_lets_its_children_end(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\ntimeout: 1s\nsteps:\n  - {id: m, model: {prompt: hello}}\n",
             NULL);
    testkit_reply(kit, (struct fake_reply){.text = "hello", .delay_ms = 10000});
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_timeout, NULL);
}

static void test_a_child_whose_beginning_was_not_acknowledged_is_brought_to_life(
    struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: m, model: {prompt: 'say hello to ${input.name}'}}\n",
             "{\"name\":\"ada\"}");
    testkit_reply(kit, (struct fake_reply){.text = "hello"});
    fault_arm(S("workflow_step.after:1"));
    testkit_do(kit, begin, NULL);
    fault_arm(S(""));
    testkit_do(kit, check_model, NULL);
}

/* ---- pure steps: stored together ---- */

static size_t count_rows(struct context *ctx, enum table table, int column, const char *kind)
{
    struct query query = query_of(table);
    struct records page;
    struct error e = {0};
    size_t count = 0;
    query_where_uuid(&query, column, scene.run_id);
    do {
        assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &page, &e));
        for (size_t i = 0; i < page.count; i++)
            count +=
                !kind || str_equal(record_text(&page.items[i], LEDGER_KIND), str_from_cstr(kind));
        query.cursor = page.next_cursor;
    } while (!str_is_empty(page.next_cursor));
    return count;
}

static void check_together(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(count_rows(ctx, TABLE_TOOL_CALLS, TOOL_CALLS_RUN_ID, NULL), 40);
    assert_in_range(count_rows(ctx, TABLE_LEDGER, LEDGER_RUN_ID, "tool"), 1, 4);
    assert_int_equal(testkit_tool(scene.kit, "lookup")->effects, 40);
    struct record key = record_of(TABLE_TOOL_CALLS), row;
    struct error e = {0};
    uuid id;
    assert_true(uuid_parse(
        json_str_or(event(ctx, EVENT_TOOL_COMPLETED), S("tool_call_id"), STR_NONE), &id));
    record_set_uuid(&key, TOOL_CALLS_ID, id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &row, &e));
    assert_str(record_text(&row, TOOL_CALLS_STATUS), "succeeded");
    assert_str(record_text(&row, TOOL_CALLS_OUTPUT), "{\"ok\":true}");
}

/* Every event of every step is there; what they share is the append and the entry in the ledger. */
static void test_pure_steps_are_stored_together(struct testkit *kit)
{
    start(kit,
          "name: w\nversion: 1.0.0\nsteps:\n"
          "  - {id: each, loop: {max: 40, steps: [{id: x, tool: lookup, input: {n: 1}}]}}\n",
          NULL);
    testkit_do(kit, check_together, NULL);
}

static void check_done_anew(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_int_equal(count_rows(ctx, TABLE_TOOL_CALLS, TOOL_CALLS_RUN_ID, NULL), 40);
}

/* What a crash takes along of them is done again: no step is missing, none is there twice, and the books add up. */
static void test_pure_steps_that_a_crash_took_are_done_again(struct testkit *kit)
{
    for (int after_ms = 5; after_ms < 500; after_ms += 45) {
        set_play(kit,
                 "name: w\nversion: 1.0.0\nsteps:\n"
                 "  - {id: each, loop: {max: 40, steps: [{id: x, tool: lookup, input: {n: 1}}]}}\n",
                 NULL);
        testkit_tool(kit, "lookup")->delay_ms = 10;
        int before = testkit_tool(kit, "lookup")->effects;
        testkit_begin(kit, begin, NULL);
        testkit_run_ms(kit, after_ms);
        testkit_crash(kit);
        testkit_run_ms(kit, 20);
        testkit_crash(kit);
        testkit_run_ms(kit, 20000);
        testkit_do(kit, check_done_anew, NULL);
        assert_in_range(testkit_tool(kit, "lookup")->effects - before, 40, 40 + 2 * 12);
    }
}

static void check_known_before_effect(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN STEP_TOOL_BEGUN STEP_TOOL_ENDED STEP_TOOL_BEGUN);
}

/* What an effect was made from stands in the journal before the effect happens. */
static void test_an_effect_waits_for_the_outcomes_before_it(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: look, tool: lookup, input: {q: 1}}\n"
             "  - {id: pay, tool: notify, input: {found: '${steps.look.output.ok}'}}\n",
             NULL);
    testkit_tool(kit, "notify")->delay_ms = 60000;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 1);
    testkit_do(kit, check_known_before_effect, NULL);
}

static void check_intended(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN STEP_TOOL_BEGUN);
}

static void check_ended(struct context *ctx, void *unused)
{
    (void) unused;
    assert_history(ctx, BEGUN STEP_TOOL_BEGUN STEP_TOOL_ENDED " run.completed");
    assert_at_rest(ctx, "completed");
}

static void test_a_pure_step_that_takes_long_is_told_while_it_runs(struct testkit *kit)
{
    set_play(kit, "name: w\nversion: 1.0.0\nsteps:\n  - {id: look, tool: lookup}\n", NULL);
    testkit_tool(kit, "lookup")->delay_ms = 5000;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 2 * WORKFLOW_HOLD_MS);
    testkit_begin(kit, check_intended, NULL);
    testkit_run_ms(kit, 20000);
    testkit_do(kit, check_ended, NULL);
}

/* ---- many children, a few at a time ---- */

static void check_children(struct context *ctx, void *unused)
{
    (void) unused;
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), "completed");
    assert_int_equal(scene.kit->model_calls, 2000);
    assert_int_equal(count_rows(ctx, TABLE_AGENT_RUNS, AGENT_RUNS_PARENT_RUN_ID, NULL), 2000);
}

static void test_a_map_begins_more_runs_than_may_live_at_once(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\noutput: '${size(steps.each.output)}'\nsteps:\n"
             "  - id: each\n"
             "    map: {over: 'range(2000)', parallel: 8, output: '1', steps: [{id: m, model: "
             "{prompt: 'say ${item}'}}]}\n",
             NULL);
    testkit_do(kit, begin, NULL);
    testkit_do(kit, check_children, NULL);
}

static const struct testkit_case cases[] = {
    TESTKIT_SCRIPT(test_pure_steps_are_stored_together),
    TESTKIT_SCRIPT(test_pure_steps_that_a_crash_took_are_done_again),
    TESTKIT_SCRIPT(test_an_effect_waits_for_the_outcomes_before_it),
    TESTKIT_SCRIPT(test_a_pure_step_that_takes_long_is_told_while_it_runs),
    TESTKIT_SCRIPT(test_a_map_begins_more_runs_than_may_live_at_once),
    TESTKIT_SCRIPT(test_steps_go_one_after_the_other_and_see_what_came_before),
    TESTKIT_SCRIPT(test_branches_maps_loops_and_arms_give_what_their_steps_give),
    TESTKIT_SCRIPT(test_a_step_is_tried_again_as_often_as_it_says),
    TESTKIT_SCRIPT(test_a_class_that_is_not_tried_again_and_a_failure_that_may_be_passed_by),
    TESTKIT_SCRIPT(test_what_was_done_is_undone_in_reverse_order),
    TESTKIT_SCRIPT(test_words_of_others_reach_a_sink_by_a_person_only),
    TESTKIT_SCRIPT(test_a_cancelled_instance_is_undone_too),
    TESTKIT_SCRIPT(test_a_compensation_that_fails_does_not_stop_the_others),
    TESTKIT_SCRIPT(test_a_step_and_a_workflow_end_at_their_timeout),
    TESTKIT_SCRIPT(test_an_effect_in_flight_is_not_repeated_after_a_crash),
    TESTKIT_SCRIPT(test_what_is_idempotent_or_pure_goes_on_after_a_crash),
    TESTKIT_SCRIPT(test_undoing_goes_on_after_a_crash),
    TESTKIT_SCRIPT(test_a_sleep_holds_no_memory_and_ends_in_time),
    TESTKIT_SCRIPT(test_a_cancelled_instance_waits_for_its_child_without_memory),
    TESTKIT_SCRIPT(test_signals_are_taken_once_whether_they_came_before_or_after),
    TESTKIT_SCRIPT(test_a_model_step_is_a_child_run),
    TESTKIT_SCRIPT(test_an_instance_whose_time_is_over_lets_its_children_end),
    TESTKIT_SCRIPT(test_a_child_whose_beginning_was_not_acknowledged_is_brought_to_life),
};

int main(void)
{
    return testkit_main(cases, ARRAY_COUNT(cases));
}
