/* Instances of workflows, recorded and played again: the same bytes, whichever of their steps ended first. */
#include "orchestrator/replay/run_replay_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/replay/run_diff.h"
#include "orchestrator/replay/run_fork.h"
#include "orchestrator/workflow/workflow_run.h"
#include "orchestrator/workflow/workflow_store.h"

static struct {
    const char *definition, *input, *other; /* other: of a workflow that this one starts */
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

static void begin(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    put(ctx, play.definition);
    if (play.other)
        put(ctx, play.other);
    struct workflow_request request = {.name = S("w"),
                                       .input = str_from_cstr(play.input ? play.input : "{}"),
                                       .budget = COST_LIMITLESS};
    if (!workflow_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &scene.session_id,
                        &e))
        fail_msg("%s", e.message);
}

static void set_play(struct testkit *kit, const char *definition, const char *input)
{
    kit->defaults.containment.mode = CONTAINMENT_OFF;
    testkit_crash_only(kit);
    scene_start(kit);
    play.definition = definition;
    play.input = input;
    play.other = NULL;
}

static void wake(struct context *ctx, void *unused)
{
    struct error e = {0};
    size_t woken;
    (void) unused;
    if (!workflows_wake(scene.kit->o, ctx, &woken, &e))
        fail_msg("%s", e.message);
}

/* Time goes on, and with it the sweep. */
static void run_on(struct testkit *kit, int64_t ms)
{
    for (; ms > 0; ms -= 500) {
        testkit_run_ms(kit, ms < 500 ? ms : 500);
        testkit_do(kit, wake, NULL);
    }
}

static void assert_status(struct context *ctx, void *wanted)
{
    assert_str(testkit_status(scene.kit, ctx, scene.run_id), wanted);
}

#define STATUS(text) ((char[]){text})

/* Whole, and then as it was told: it ended so. */
static void assert_played(struct testkit *kit, const char *status)
{
    testkit_do(kit, assert_status, (char *) (uintptr_t) status);
    (void) assert_replays(kit);
}

/* ---- control ---- */

static void test_steps_of_every_control_kind_replay(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\n"
             "output: {list: '${steps.each.output}', rounds: '${steps.again.status}'}\n"
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
    testkit_do(kit, begin, NULL);
    assert_played(kit, "completed");
}

/* Ends in another order than the one they were begun in, some in one turn. */
static void test_a_wide_map_replays_whoever_ends_first(struct testkit *kit)
{
    set_play(
        kit,
        "name: w\nversion: 1.0.0\nsteps:\n"
        "  - id: both\n"
        "    parallel:\n"
        "      slow: [{id: x, tool: notify}, {id: y, tool: lookup}]\n"
        "      list:\n"
        "        - id: each\n"
        "          map: {over: '[1, 2, 3, 4, 5, 6, 7]', parallel: 3, steps: [{id: x, tool: lookup, "
        "input: {v: '${item}'}}, {id: y, tool: pay, input: {v: '${item}'}}]}\n"
        "      late: [{id: x, tool: pay}, {id: y, tool: notify}]\n",
        NULL);
    testkit_tool(kit, "lookup")->delay_ms = 30;
    testkit_tool(kit, "notify")->delay_ms = 75;
    testkit_tool(kit, "pay")->delay_ms = 20;
    testkit_begin(kit, begin, NULL);
    run_on(kit, 3000);
    assert_played(kit, "completed");
}

/* ---- failure ---- */

static void test_retries_replay_with_the_waits_that_were_drawn(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: x, tool: lookup, retry: {attempts: 4, backoff: 200ms, jitter: 0.9}}\n",
             NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_begin(kit, begin, NULL);
    run_on(kit, 10000);
    assert_played(kit, "failed");
}

static const char saga[] =
    "name: w\nversion: 1.0.0\nsteps:\n"
    "  - {id: a, tool: pay, input: {n: 1}, compensate: {tool: notify, input: "
    "{undo: a, was: '${steps.a.output.ok}', why: '${error.type}'}}}\n"
    "  - {id: b, tool: pay, input: {n: 2}, compensate: {tool: notify, input: "
    "{undo: b}}}\n"
    "  - {id: c, tool: lookup}\n";

/* Nothing goes on between the two ends, and yet each has the time of its own turn. */
static void test_ends_that_were_heard_in_two_turns_keep_their_times(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - id: p\n"
             "    parallel: {a: [{id: x, tool: notify}], b: [{id: y, tool: lookup, on_error: "
             "continue, retry: {attempts: 2, backoff: 1s}}]}\n",
             NULL);
    testkit_tool(kit, "notify")->delay_ms = 100;
    testkit_tool(kit, "lookup")->delay_ms = 150;
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_begin(kit, begin, NULL);
    run_on(kit, 8000);
    assert_played(kit, "completed");
}

static void test_what_was_undone_in_reverse_order_replays(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, begin, NULL);
    assert_played(kit, "failed");
}

static void test_a_compensation_that_failed_replays(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_tool(kit, "notify")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, begin, NULL);
    assert_played(kit, "failed");
}

static void cancel(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    assert_true(run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e));
}

static void test_a_cancel_and_what_was_undone_for_it_replay(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_tool(kit, "lookup")->delay_ms = 5000;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_do(kit, cancel, NULL);
    assert_played(kit, "cancelled");
}

static void test_timeouts_of_steps_and_of_what_holds_them_replay(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - id: both\n"
             "    timeout: 3s\n"
             "    on_error: continue\n"
             "    parallel:\n"
             "      a: [{id: x, tool: lookup, timeout: 1s, on_error: continue}, {id: s, sleep: "
             "1h}]\n"
             "      b: [{id: y, wait_signal: {name: never}}]\n"
             "  - {id: z, wait_signal: {name: never, timeout: 2s}}\n",
             NULL);
    testkit_tool(kit, "lookup")->delay_ms = 20000;
    testkit_begin(kit, begin, NULL);
    run_on(kit, 60000);
    assert_played(kit, "failed");
}

static void test_a_tool_that_is_denied_and_one_that_is_not_there_replay(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: a, tool: pay, on_error: continue}\n"
             "  - {id: b, tool: nothing, on_error: continue}\n"
             "  - {id: c, tool: lookup}\n",
             NULL);
    kit->denied[0] = S("pay");
    testkit_do(kit, begin, NULL);
    assert_played(kit, "completed");
}

static void test_calls_that_guests_of_steps_make_replay(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: never, tool: pay, when: 'false'}\n" /* so it belongs to the instance */
             "  - id: both\n"
             "    parallel: {left: [{id: x, tool: notify}], right: [{id: y, tool: notify}, {id: z, "
             "tool: lookup}]}\n",
             NULL);
    kit->denied[0] = S("pay");
    testkit_tool(kit, "notify")->calls[0] = "lookup";
    testkit_tool(kit, "notify")->calls[1] = "pay";
    testkit_tool(kit, "lookup")->delay_ms = 15;
    testkit_begin(kit, begin, NULL);
    run_on(kit, 2000);
    assert_played(kit, "completed");
}

/* ---- the node dies ---- */

static void test_an_effect_that_was_in_flight_at_a_crash_replays(struct testkit *kit)
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
    assert_played(kit, "failed");
}

/* The intent is stored, and who asked for that is told that it was not. */
static enum commit_outcome lose_answer(void *owner, struct context *ctx, const struct batch *batch)
{
    int *times = owner;
    (void) ctx;
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        bool is_intent = row->table == TABLE_RUN_EVENTS &&
                         str_equal(record_text(row, RUN_EVENTS_TYPE), S("tool.intended"));
        if (is_intent && (*times)++ == 0)
            return COMMIT_APPLIED_BUT_FAIL;
    }
    return COMMIT_OK;
}

static void test_an_effect_that_was_given_up_when_an_append_failed_replays(struct testkit *kit)
{
    int times = 0;
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - id: p\n"
             "    parallel: {a: [{id: x, tool: pay, on_error: continue}], b: [{id: y, tool: "
             "lookup}]}\n"
             "  - {id: z, tool: lookup}\n",
             NULL);
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &times, .before_commit = lose_answer});
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 20000);
    assert_true(times > 0);
    str text = replay_export(kit);
    assert_true(str_find(text, S("\"run.resumed\"")) == STR_NOT_FOUND);
    assert_played(kit, "completed");
}

static void test_what_went_on_after_two_crashes_replays(struct testkit *kit)
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
    assert_played(kit, "completed");
    assert_int_equal(replay_text(kit, replay_export(kit))->resumes, 2);
}

static void test_undoing_across_crashes_replays(struct testkit *kit)
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
    assert_played(kit, "failed");
}

/* ---- waiting ---- */

static void test_sleeps_short_and_long_replay(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: s, sleep: 300ms}\n"
             "  - {id: t, sleep: '${0.4}'}\n"
             "  - {id: l, sleep: 1h}\n  - {id: x, tool: lookup}\n",
             NULL);
    testkit_begin(kit, begin, NULL);
    run_on(kit, 3000);
    assert_played(kit, "waiting");
    testkit_run_ms(kit, 3600 * 1000);
    testkit_do(kit, wake, NULL);
    assert_played(kit, "completed");
}

static void send_signal(struct context *ctx, void *unused)
{
    struct error e = {0};
    uuid id;
    (void) unused;
    if (!workflow_signal(scene.kit->o, ctx, &scene.user, scene.run_id, S("go"), S("{\"n\":7}"), &id,
                         &e))
        fail_msg("%s", e.message);
}

static void test_signals_replay_whether_they_came_before_or_after(struct testkit *kit)
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
    assert_played(kit, "waiting");
    testkit_do(kit, send_signal, NULL);
    assert_played(kit, "completed");
}

/* Somebody has news for the instance while it says that it waits. */
static enum commit_outcome stir_who_waits(void *owner, struct context *ctx,
                                          const struct batch *batch)
{
    int *times = owner;
    struct error late = {0};
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        bool waits = row->table == TABLE_RUN_EVENTS &&
                     str_equal(record_text(row, RUN_EVENTS_TYPE), S("run.waiting"));
        if (!waits || (*times)++ > 0)
            continue;
        run_spawn(scene.kit->o, scene.kit->tenant_id, scene.session_id, scene.run_id);
        (void) !context_sleep_ms(ctx, 5, &late); /* it hears of it before it has left memory */
    }
    return COMMIT_OK;
}

static void test_a_wait_that_was_broken_off_before_it_began_replays(struct testkit *kit)
{
    int times = 0;
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: a, wait_signal: {name: go}}\n",
             NULL);
    memory_store_set_hooks(
        kit->store, (struct memory_store_hooks){.owner = &times, .before_commit = stir_who_waits});
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 8000);
    assert_true(times > 1);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_true(str_find(replay_export(kit), S("\"run.resumed\"")) == STR_NOT_FOUND);
    testkit_do(kit, send_signal, NULL);
    assert_played(kit, "completed");
}

static void test_an_approval_of_two_persons_and_a_tool_that_needs_one_replay(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\noutput: '${steps.ok.output}'\nsteps:\n"
             "  - {id: ok, approval: {title: 'Pay ${input.n}?', quorum: 2}}\n"
             "  - {id: x, tool: wipe, input: {all: true}}\n"
             "  - {id: no, approval: {title: really}, on_error: continue}\n",
             "{\"n\":5}");
    testkit_do(kit, begin, NULL);
    assert_played(kit, "waiting");
    testkit_do(kit, scene_vote, STATUS("bob"));
    assert_played(kit, "waiting");
    testkit_do(kit, scene_vote, STATUS("carol"));
    assert_played(kit, "waiting");
    testkit_do(kit, scene_vote, STATUS("bob"));
    testkit_do(kit, scene_vote, STATUS("nay"));
    assert_played(kit, "completed");
}

/* ---- children ---- */

static uuid child_of(struct context *ctx, size_t index)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_true(rows.count > index);
    return record_uuid(&rows.items[index], AGENT_RUNS_ID);
}

static uuid children[3];

static void find_children(struct context *ctx, void *count)
{
    for (size_t i = 0; i < *(size_t *) count; i++)
        children[i] = child_of(ctx, i);
}

static void test_model_agent_and_workflow_steps_replay_and_so_do_the_runs_they_started(
    struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\noutput: '${steps.m.output.text}'\nsteps:\n"
             "  - {id: m, model: {prompt: 'say hello to ${input.name}', system: 'You are kind.'}}\n"
             "  - {id: a, agent: {name: assistant, prompt: 'and then?', budget: {tokens: 9000}}}\n"
             "  - {id: sub, workflow: {name: v, input: {n: 1}}}\n",
             "{\"name\":\"ada\"}");
    play.other = "name: v\nversion: 2.1.0\nsteps:\n  - {id: x, tool: lookup}\n";
    testkit_reply(kit, (struct fake_reply){.text = "hello", .delay_ms = 50});
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, begin, NULL);
    run_on(kit, 5000);
    assert_played(kit, "completed");
    size_t count = 3;
    testkit_do(kit, find_children, &count);
    for (size_t i = 0; i < count; i++)
        (void) assert_replays_run(kit, children[i]);
}

static void test_a_fan_out_of_runs_replays_in_the_order_in_which_they_ended(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - id: each\n"
             "    map: {over: '[1, 2, 3, 4, 5]', parallel: 3, steps: [{id: m, model: {prompt: "
             "'${item}'}}, {id: x, tool: lookup}]}\n",
             NULL);
    for (int i = 0; i < 5; i++)
        testkit_reply(kit,
                      (struct fake_reply){.text = "ok", .delay_ms = i % 2 ? 40 : 250 - 50 * i});
    testkit_begin(kit, begin, NULL);
    run_on(kit, 5000);
    assert_played(kit, "completed");
}

static void test_a_run_that_the_policy_did_not_let_a_step_start_replays(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: a, agent: {name: assistant, prompt: hi}, on_error: continue}\n"
             "  - {id: b, agent: {name: nobody, prompt: hi}, on_error: continue}\n"
             "  - {id: c, model: {model: unheard-of, prompt: hi}, on_error: continue}\n"
             "  - {id: d, workflow: {name: nowhere}, on_error: continue}\n"
             "  - {id: x, tool: lookup}\n",
             NULL);
    kit->denied[0] = S("assistant");
    testkit_do(kit, begin, NULL);
    assert_played(kit, "completed");
}

/* Nobody began one, so the recording has no definition of it. */
static void assert_refused(struct testkit *kit, str why)
{
    assert_played(kit, "completed");
    str text = replay_export(kit);
    assert_true(str_find(text, why) != STR_NOT_FOUND);
    assert_true(str_find(text, S("2.1.0")) == STR_NOT_FOUND);
}

static void test_a_workflow_for_which_nothing_was_left_replays(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nbudget: {tokens: 9000}\nsteps:\n"
             "  - {id: m, model: {prompt: hi}}\n"
             "  - {id: sub, workflow: {name: v}, on_error: continue}\n"
             "  - {id: x, tool: lookup}\n",
             NULL);
    play.other = "name: v\nversion: 2.1.0\nsteps:\n  - {id: x, tool: lookup}\n";
    testkit_reply(kit,
                  (struct fake_reply){
                      .text = "much",
                      .usage = {.is_reported = true, .input_tokens = 20000, .output_tokens = 9}});
    testkit_begin(kit, begin, NULL);
    run_on(kit, 2000);
    assert_refused(kit, S("nothing is left of the budget for a run of \\\"workflow:v\\\""));
}

static void test_a_workflow_that_the_policy_did_not_let_a_step_start_replays(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: wait, sleep: 20s}\n"
             "  - {id: sub, workflow: {name: v}, on_error: continue}\n",
             NULL);
    play.other = "name: v\nversion: 2.1.0\nsteps:\n  - {id: x, tool: lookup}\n";
    testkit_begin(kit, begin, NULL);
    run_on(kit, 500);
    kit->denied[0] = S("run.start");
    run_on(kit, 30000);
    assert_refused(kit, S("does not allow a run of agent \\\"workflow:v\\\""));
}

static void put_newer(struct context *ctx, void *unused)
{
    struct error e = {0};
    struct principal admin = testkit_principal(scene.kit, "root", ROLE_LEVEL_ADMIN);
    (void) unused;
    put(ctx, "name: v\nversion: 2.2.0\n"
             "input: {type: object, required: [m]}\nsteps:\n  - {id: x, tool: lookup}\n");
    if (!workflow_deprecate(scene.kit->o, ctx, &admin, S("v"), S("2.1.0"), S("old"), &e))
        fail_msg("%s", e.message);
}

/* One step found 2.1.0, the next one 2.2.0, which wants another input: each keeps to what its child was begun with. */
static void test_two_versions_of_a_workflow_in_one_instance_replay(struct testkit *kit)
{
    set_play(kit,
             "name: w\nversion: 1.0.0\nsteps:\n"
             "  - {id: old, workflow: {name: v, input: {n: 1}}}\n"
             "  - {id: pause, sleep: 2s}\n"
             "  - {id: new, workflow: {name: v, input: {m: 1}}}\n",
             NULL);
    play.other = "name: v\nversion: 2.1.0\nsteps:\n  - {id: x, tool: lookup}\n";
    testkit_begin(kit, begin, NULL);
    run_on(kit, 1000);
    testkit_begin(kit, put_newer, NULL);
    run_on(kit, 4000);
    assert_played(kit, "completed");
    str text = replay_export(kit);
    assert_true(str_find(text, S("v@2.1.0")) != STR_NOT_FOUND);
    assert_true(str_find(text, S("v@2.2.0")) != STR_NOT_FOUND);
}

static void test_a_cancel_that_reached_the_children_replays(struct testkit *kit)
{
    set_play(
        kit,
        "name: w\nversion: 1.0.0\nsteps:\n"
        "  - id: both\n"
        "    parallel: {a: [{id: m, model: {prompt: hi}}], b: [{id: n, model: {prompt: ho}}]}\n",
        NULL);
    testkit_reply(kit, (struct fake_reply){.text = "slow", .delay_ms = 5000});
    testkit_reply(kit, (struct fake_reply){.text = "slow", .delay_ms = 5000});
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 1000);
    testkit_begin(kit, cancel, NULL);
    run_on(kit, 5000);
    assert_played(kit, "cancelled");
}

/* ---- what cannot be, and comparisons ---- */

static void fork_now(struct context *ctx, void *out)
{
    struct fork_request request = {.run_id = scene.run_id, .at = 5};
    struct forked_run forked;
    assert_false(run_fork(scene.kit->o, ctx, &scene.user, &request, &forked, out));
}

static void test_a_fork_of_an_instance_is_refused_with_what_to_do_instead(struct testkit *kit)
{
    struct error e = {0};
    set_play(kit, saga, NULL);
    testkit_do(kit, begin, NULL);
    testkit_do(kit, fork_now, &e);
    assert_int_equal(e.reason, REASON_UNSUPPORTED);
    assert_true(str_find(str_from_cstr(e.message), S("start it again")) != STR_NOT_FOUND);
}

static void test_two_instances_are_compared_step_by_step(struct testkit *kit)
{
    str out;
    bool is_same;
    struct error e = {0};
    set_play(kit, saga, NULL);
    testkit_do(kit, begin, NULL);
    str a = replay_export(kit);
    assert_true(run_diff_json(kit->arena, a, a, &out, &is_same, &e));
    assert_true(is_same);
    testkit_tool(kit, "lookup")->failure = REASON_TOOL_FAILED;
    testkit_do(kit, begin, NULL);
    str b = replay_export(kit);
    assert_true(run_diff_json(kit->arena, a, b, &out, &is_same, &e));
    assert_false(is_same);
    assert_true(str_find(out, S("\"path\":\"c\"")) != STR_NOT_FOUND);
    assert_true(str_find(out, S("\"status\"")) != STR_NOT_FOUND);
}

static void test_an_end_that_was_changed_in_the_record_is_found(struct testkit *kit)
{
    set_play(kit, saga, NULL);
    testkit_do(kit, begin, NULL);
    str text = replay_export(kit), from = S("\"effect_key\":\"");
    size_t at = str_find(text, from);
    assert_true(at != STR_NOT_FOUND);
    str parts[] = {str_slice(text, 0, at + from.len), S("0000"), str_from(text, at + from.len + 4)};
    assert_false(replay_text(kit, str_join(kit->arena, parts, 3))->is_same);
}

/* ---- an agent that is a workflow: what was said before ---- */

static struct agent_definition planner[] = {
    {.name = S_INIT("planner"), .workflow = S_INIT("w"), .steps_max = 8, .run_timeout_ms = 600000},
};

static void ask_twice(struct context *ctx, void *unused)
{
    struct session_request session = {.agent = S("planner"), .budget = COST_LIMITLESS};
    struct run_request first = {.content = S("how warm is it?")}, second = {.content = S("why?")};
    struct message_outcome outcome;
    struct record row;
    struct error e = {0};
    (void) unused;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    put(ctx, play.definition);
    if (!session_create(scene.kit->o, ctx, &scene.user, &session, &row, &e))
        fail_msg("%s", e.message);
    scene.session_id = first.session_id = second.session_id = record_uuid(&row, SESSIONS_ID);
    second.on_busy = DOUBLE_TEXT_ENQUEUE;
    if (!message_send(scene.kit->o, ctx, &scene.user, &first, &outcome, &e) ||
        !message_send(scene.kit->o, ctx, &scene.user, &second, &outcome, &e))
        fail_msg("%s", e.message);
    scene.run_id = outcome.run_id;
}

static void test_earlier_turns_of_a_session_are_the_same_in_a_replay(struct testkit *kit)
{
    kit->agents = planner;
    kit->agent_count = ARRAY_COUNT(planner);
    set_play(
        kit,
        "name: w\nversion: 1.0.0\noutput: {n: '${size(session.messages)}', text: "
        "'${steps.say.output.text}'}\n"
        "steps:\n"
        "  - id: each\n"
        "    map: {over: '${session.messages}', as: it, steps: [{id: x, tool: lookup, input: "
        "{v: '${it.content}', session: '${session.id}'}}]}\n"
        "  - {id: say, model: {prompt: 'Before: ${session.messages} Now: ${input.message}'}}\n",
        NULL);
    testkit_do(kit, ask_twice, NULL);
    assert_true(str_find(kit->prompt_last, S("how warm is it?")) != STR_NOT_FOUND);
    assert_true(str_find(kit->prompt_last, S("why?")) != STR_NOT_FOUND);
    assert_played(kit, "completed");
}

static void test_an_instance_of_many_lives_replays_in_the_memory_of_one(struct testkit *kit)
{
    struct error e = {0};
    OWNED(arena) arena = arena_create(1536u << 10);
    struct replay_report *report = ARENA_NEW(arena, struct replay_report);
    set_play(kit, "name: w\nversion: 1.0.0\nsteps:\n  - {id: x, tool: lookup}\n", NULL);
    testkit_tool(kit, "lookup")->delay_ms = 60000;
    testkit_begin(kit, begin, NULL);
    testkit_run_ms(kit, 100);
    for (int i = 0; i < 100; i++) {
        testkit_crash(kit);
        testkit_run_ms(kit, 100);
    }
    testkit_run_ms(kit, 100000);
    if (!run_replay(arena, replay_export(kit), report, &e))
        fail_msg("%s", e.message);
    assert_true(report->is_same);
    assert_int_equal(report->resumes, 100);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_earlier_turns_of_a_session_are_the_same_in_a_replay),
        TESTKIT_SCRIPT(test_steps_of_every_control_kind_replay),
        TESTKIT_SCRIPT(test_a_wide_map_replays_whoever_ends_first),
        TESTKIT_SCRIPT(test_retries_replay_with_the_waits_that_were_drawn),
        TESTKIT_SCRIPT(test_ends_that_were_heard_in_two_turns_keep_their_times),
        TESTKIT_SCRIPT(test_what_was_undone_in_reverse_order_replays),
        TESTKIT_SCRIPT(test_a_compensation_that_failed_replays),
        TESTKIT_SCRIPT(test_a_cancel_and_what_was_undone_for_it_replay),
        TESTKIT_SCRIPT(test_timeouts_of_steps_and_of_what_holds_them_replay),
        TESTKIT_SCRIPT(test_a_tool_that_is_denied_and_one_that_is_not_there_replay),
        TESTKIT_SCRIPT(test_calls_that_guests_of_steps_make_replay),
        TESTKIT_SCRIPT(test_an_effect_that_was_in_flight_at_a_crash_replays),
        TESTKIT_SCRIPT(test_an_effect_that_was_given_up_when_an_append_failed_replays),
        TESTKIT_SCRIPT(test_what_went_on_after_two_crashes_replays),
        TESTKIT_SCRIPT(test_undoing_across_crashes_replays),
        TESTKIT_SCRIPT(test_sleeps_short_and_long_replay),
        TESTKIT_SCRIPT(test_signals_replay_whether_they_came_before_or_after),
        TESTKIT_SCRIPT(test_a_wait_that_was_broken_off_before_it_began_replays),
        TESTKIT_SCRIPT(test_an_approval_of_two_persons_and_a_tool_that_needs_one_replay),
        TESTKIT_SCRIPT(test_model_agent_and_workflow_steps_replay_and_so_do_the_runs_they_started),
        TESTKIT_SCRIPT(test_a_fan_out_of_runs_replays_in_the_order_in_which_they_ended),
        TESTKIT_SCRIPT(test_a_run_that_the_policy_did_not_let_a_step_start_replays),
        TESTKIT_SCRIPT(test_a_workflow_for_which_nothing_was_left_replays),
        TESTKIT_SCRIPT(test_a_workflow_that_the_policy_did_not_let_a_step_start_replays),
        TESTKIT_SCRIPT(test_two_versions_of_a_workflow_in_one_instance_replay),
        TESTKIT_SCRIPT(test_a_cancel_that_reached_the_children_replays),
        TESTKIT_SCRIPT(test_a_fork_of_an_instance_is_refused_with_what_to_do_instead),
        TESTKIT_SCRIPT(test_two_instances_are_compared_step_by_step),
        TESTKIT_SCRIPT(test_an_end_that_was_changed_in_the_record_is_found),
        TESTKIT_SCRIPT(test_an_instance_of_many_lives_replays_in_the_memory_of_one),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
