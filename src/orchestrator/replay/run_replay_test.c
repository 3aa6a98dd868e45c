#include "orchestrator/replay/run_diff.h"
#include "orchestrator/replay/run_fork.h"
#include "orchestrator/replay/run_replay_testkit.h"
#include "orchestrator/retention.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

/* ---- a run, exported and replayed ---- */

static str exported;

static struct replay_report *replay(str text)
{
    return replay_text(scene.kit, text);
}

static void assert_same(void)
{
    exported = assert_replays(scene.kit);
    assert_true(replay(exported)->compared > 3);
}

static void export_now(void)
{
    exported = replay_export(scene.kit);
}

static void test_a_run_without_tools_replays_to_the_same_bytes(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "warm", .delay_ms = 120, .pause_ms = 7});
    testkit_do(kit, scene_begin, NULL);
    assert_same();
}

static void test_tool_calls_beside_each_other_replay_in_their_order(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 50;
    testkit_tool(kit, "notify")->delay_ms = 20;
    testkit_reply(kit, (struct fake_reply){
                           .calls = {{"lookup", "{\"q\":1}"}, {"notify", "{}"}, {"nothing", "{}"}},
                           .call_count = 3});
    testkit_do(kit, scene_begin, NULL);
    assert_same();
}

static void test_a_tool_that_fails_and_one_that_is_denied_replay(struct testkit *kit)
{
    scene_start(kit);
    kit->denied[0] = S("pay");
    testkit_tool(kit, "lookup")->failure = REASON_TRAP;
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"lookup", "{}"}, {"pay", "{}"}}, .call_count = 2});
    testkit_do(kit, scene_begin, NULL);
    assert_same();
}

static void test_calls_that_a_guest_makes_replay(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "notify")->calls[0] = "lookup";
    testkit_tool(kit, "notify")->calls[1] = "lookup";
    testkit_tool(kit, "lookup")->delay_ms = 5;
    testkit_reply(kit, (struct fake_reply){.calls = {{"notify", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    assert_same();
}

static void test_a_call_that_is_refused_to_a_guest_replays(struct testkit *kit)
{
    scene_start(kit);
    kit->denied[0] = S("pay");
    testkit_tool(kit, "notify")->calls[0] = "pay";
    testkit_reply(kit, (struct fake_reply){.calls = {{"notify", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    assert_same();
}

static void test_a_provider_that_fails_is_replayed_with_its_failures(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.refusal = REASON_PROVIDER_OVERLOADED});
    testkit_reply(kit, (struct fake_reply){.cut = REASON_PROVIDER_NETWORK, .text = "half"});
    testkit_do(kit, scene_begin, NULL);
    assert_same();
}

static void begin_poor(struct context *ctx, void *unused)
{
    (void) unused;
    cost budget = COST_LIMITLESS;
    budget.tokens = 100;
    scene_begin_with(ctx, budget);
}

static void test_a_run_that_had_no_budget_fails_the_same_way(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, begin_poor, NULL);
    export_now();
    struct replay_report report;
    struct error e = {0};
    /* It made no model call: nothing says what it would have run with. */
    assert_false(run_replay(kit->arena, exported, &report, &e));
    assert_int_equal(e.reason, REASON_INVALID);
}

static void test_an_approval_replays_and_so_does_the_wait_for_it(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{\"all\":true}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    assert_same(); /* as far as it is */
    testkit_do(kit, scene_approve, NULL);
    assert_same();
}

static void test_a_run_goes_on_after_its_node_stopped_and_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "lookup")->delay_ms = 1000;
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 500);
    testkit_crash(kit);
    testkit_run_ms(kit, 100000);
    assert_same();
    assert_int_equal(replay(exported)->resumes, 1);
}

static void test_a_model_call_that_a_crash_cut_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "slow", .delay_ms = 1000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 500);
    testkit_crash(kit);
    testkit_run_ms(kit, 100000);
    assert_same();
}

static void cancel(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    assert_true(run_cancel(scene.kit->o, ctx, &scene.user, scene.run_id, &e));
}

static void test_a_cancel_in_the_middle_of_an_answer_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.text = "slow", .delay_ms = 1000});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 500);
    testkit_do(kit, cancel, NULL);
    assert_same();
}

static void test_a_cancel_in_the_middle_of_a_tool_call_replays(struct testkit *kit)
{
    scene_start(kit);
    testkit_tool(kit, "pay")->delay_ms = 1000;
    testkit_reply(kit, (struct fake_reply){.calls = {{"pay", "{}"}}, .call_count = 1});
    testkit_begin(kit, scene_begin, NULL);
    testkit_run_ms(kit, 500);
    testkit_do(kit, cancel, NULL);
    assert_same();
}

static void second_turn(struct context *ctx, void *unused)
{
    (void) unused;
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "and yesterday?");
}

static void test_a_second_turn_replays_with_its_history(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, second_turn, NULL);
    assert_same();
}

/* ---- what a client runs itself ---- */

static void begin_with_client_tool(struct context *ctx, void *unused)
{
    static struct tool_spec tool = {.name = S_INIT("open_door"),
                                    .description = S_INIT("Opens a door."),
                                    .parameters = S_INIT("{\"type\":\"object\"}")};
    struct error e = {0};
    (void) unused;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, COST_LIMITLESS);
    struct run_request request = {.session_id = scene.session_id,
                                  .content = S("open up"),
                                  .client_tools = &tool,
                                  .client_tool_count = 1};
    if (!run_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &e))
        fail_msg("%s", e.message);
}

static void give_result(struct context *ctx, void *unused)
{
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct records rows;
    struct error e = {0};
    uuid run_id, session_id;
    int64_t last_seq;
    (void) unused;
    query_where_uuid(&query, TOOL_CALLS_RUN_ID, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    struct client_result result = {.tool_call_id = record_uuid(&rows.items[0], TOOL_CALLS_ID),
                                   .content = S("it is open")};
    if (!run_give_results(scene.kit->o, ctx, &scene.user, &result, 1, &run_id, &session_id,
                          &last_seq, &e))
        fail_msg("%s", e.message);
}

static void test_the_result_of_a_client_comes_where_the_record_has_it(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit,
                  (struct fake_reply){.calls = {{"open_door", "{\"door\":1}"}}, .call_count = 1});
    testkit_do(kit, begin_with_client_tool, NULL);
    assert_same();
    testkit_run_ms(kit, 1234);
    testkit_do(kit, give_result, NULL);
    assert_same();
}

/* ---- linear space ---- */

enum { TURNS = 200 };

static void another_turn(struct context *ctx, void *number)
{
    int *turn = number;
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id,
                                 *turn % 2 ? "and the day before?" : "and on that day?");
}

static size_t bytes_of_run(struct context *ctx, uuid run_id)
{
    struct query query = query_of(TABLE_RUN_EVENTS);
    size_t bytes = 0;
    query_where_uuid(&query, RUN_EVENTS_RUN_ID, run_id);
    for (;;) {
        struct records rows;
        struct error e = {0};
        assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
        for (size_t i = 0; i < rows.count; i++)
            bytes += record_text(&rows.items[i], RUN_EVENTS_DATA).len;
        if (str_is_empty(rows.next_cursor))
            return bytes;
        query.cursor = rows.next_cursor;
    }
}

static size_t measured;

static void measure(struct context *ctx, void *unused)
{
    (void) unused;
    measured = bytes_of_run(ctx, scene.run_id);
}

static void test_a_turn_of_a_long_session_takes_the_bytes_of_the_first(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    size_t first = 0, last = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        testkit_do(kit, another_turn, &turn);
        testkit_do(kit, measure, NULL);
        if (turn == 2)
            first = measured;
        last = measured;
    }
    print_message("note: bytes of events: turn 3 %zu, turn %d %zu\n", first, TURNS, last);
    assert_true(last < first + first / 10);
}

static void test_a_run_of_many_tool_calls_takes_the_same_bytes_for_each(struct testkit *kit)
{
    static char arguments[12][32];
    size_t bytes[3];
    int calls[3] = {2, 5, 11};
    for (int i = 0; i < 3; i++) {
        scene_start(kit);
        kit->reply_count = kit->reply_next = 0;
        for (int k = 0; k < calls[i]; k++) {
            snprintf(arguments[k], sizeof arguments[k], "{\"n\":%d}", k + 100);
            testkit_reply(
                kit, (struct fake_reply){.calls = {{"lookup", arguments[k]}}, .call_count = 1});
        }
        testkit_do(kit, scene_begin, NULL);
        testkit_do(kit, measure, NULL);
        bytes[i] = measured;
    }
    double early = (double) (bytes[1] - bytes[0]) / 3, late = (double) (bytes[2] - bytes[1]) / 6;
    print_message("note: bytes of events for each tool call: %.0f at first, %.0f later\n", early,
                  late);
    assert_true(late > 500 && late < early * 1.1);
}

/* ---- linear time ---- */

static double seconds_now(void)
{
    struct timespec now;
    (void) clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double) now.tv_sec + (double) now.tv_nsec / 1e9;
}

/* Exported, replayed and compared: so much CPU time. */
static double time_of_whole(struct testkit *kit)
{
    struct error e = {0};
    bool is_same = false;
    str diff;
    double begun = seconds_now();
    str text = replay_export(kit);
    assert_true(replay(text)->is_same);
    assert_true(run_diff_json(kit->arena, text, text, &diff, &is_same, &e));
    assert_true(is_same);
    return seconds_now() - begun;
}

static void test_a_thousand_turns_are_exported_replayed_and_compared_in_linear_time(
    struct testkit *kit)
{
    enum { FEW = 250, MANY = 1000 };
    double few = 0, many = 0;
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    for (int turn = 1; turn < MANY; turn++) {
        testkit_do(kit, another_turn, &turn);
        if (turn == FEW - 1)
            few = time_of_whole(kit);
    }
    many = time_of_whole(kit);
    const struct json *document;
    assert_true(json_parse(kit->arena, replay_export(kit),
                           (struct json_limits){.bytes_max = RUN_EXPORT_BYTES_MAX}, &document,
                           NULL));
    size_t messages = json_count(json_get(document, S("messages")));
    print_message("note: %d turns %.3f s, %d turns %.3f s, %zu messages\n", FEW, few, MANY, many,
                  messages);
    assert_true(messages >= 2 * MANY); /* all of them, and summaries */
    assert_true(many < 3 * (MANY / FEW) * few + 0.5);
}

static void test_a_run_of_a_hundred_tool_calls_replays(struct testkit *kit)
{
    static char arguments[10][10][24];
    scene_start(kit);
    for (int step = 0; step < 10; step++) {
        struct fake_reply reply = {.call_count = 10};
        for (int call = 0; call < 10; call++) {
            snprintf(arguments[step][call], sizeof arguments[step][call], "{\"n\":%d}",
                     10 * step + call);
            reply.calls[call] =
                (struct fake_call){call % 2 ? "lookup" : "notify", arguments[step][call]};
        }
        testkit_reply(kit, reply);
    }
    testkit_do(kit, scene_begin, NULL);
    assert_same();
    assert_int_equal(replay(exported)->tool_calls, 100);
}

/* ---- forks ---- */

static struct forked_run forked;
static struct error refused;
static int64_t fork_at;

static void fork_now(struct context *ctx, void *message)
{
    struct fork_request request = {
        .run_id = scene.run_id, .at = fork_at, .message = str_from_cstr(message)};
    refused = (struct error){0};
    (void) !run_fork(scene.kit->o, ctx, &scene.user, &request, &forked, &refused);
}

static void assert_forked_history(struct context *ctx, void *wanted)
{
    assert_str(testkit_history(scene.kit, ctx, forked.run_id), wanted);
    assert_str(testkit_status(scene.kit, ctx, forked.run_id), "completed");
}

#define WORDS(text) ((char[]){text})
#define TOOL_TURN INTENT ANSWERED TOOL TOOL_ENDED

static void test_a_fork_shares_the_first_events_and_goes_on_by_itself(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"pay", "{}"}}, .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "first"});
    testkit_reply(kit, (struct fake_reply){.text = "second"});
    testkit_do(kit, scene_begin, NULL);
    fork_at = 13; /* the tool's settlement */
    testkit_do(kit, fork_now, WORDS("and now?"));
    assert_str(str_from_cstr(refused.message), "");
    testkit_do(kit, assert_forked_history,
               WORDS(BEGUN TOOL_TURN " run.forked message.added policy.decided" INTENT ANSWERED
                                     " run.completed"));
    assert_int_equal(testkit_tool(kit, "pay")->effects, 1); /* not made again */
    assert_str(kit->prompt_last, "and now?");
    assert_int_equal(kit->prompt_messages, 5); /* instructions, question, call, result, question */
    scene.run_id = forked.run_id;
    scene.session_id = forked.session_id;
    assert_same();
}

static void test_a_fork_in_the_middle_of_something_names_the_nearest_place(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    fork_at = 6;
    testkit_do(kit, fork_now, NULL);
    assert_int_equal(refused.reason, REASON_CONFLICT);
    assert_true(str_find(str_from_cstr(refused.message), S("is 4")) != STR_NOT_FOUND);
    fork_at = 1000;
    testkit_do(kit, fork_now, NULL);
    assert_int_equal(refused.reason, REASON_CONFLICT);
    assert_true(str_find(str_from_cstr(refused.message), S("no such event")) != STR_NOT_FOUND);
}

static void test_a_fork_of_a_fork_reads_through_both(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    fork_at = 3;
    testkit_do(kit, fork_now, WORDS("second question"));
    assert_str(str_from_cstr(refused.message), "");
    scene.run_id = forked.run_id;
    fork_at = 6;
    testkit_do(kit, fork_now, WORDS("third question"));
    assert_str(str_from_cstr(refused.message), "");
    testkit_do(kit, assert_forked_history,
               WORDS(BEGUN " run.forked message.added policy.decided run.forked message.added "
                           "policy.decided" INTENT ANSWERED " run.completed"));
    assert_int_equal(kit->prompt_messages, 4);
    scene.run_id = forked.run_id;
    assert_same();
}

static enum commit_outcome lose_answer(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) owner;
    (void) ctx;
    return batch->fault && str_equal(str_from_cstr(batch->fault), S("run_fork"))
               ? COMMIT_APPLIED_BUT_FAIL
               : COMMIT_OK;
}

static void assert_fork_ended(struct context *ctx, void *unused)
{
    (void) unused;
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, AGENT_RUNS_FORKED_FROM, scene.run_id);
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    assert_str(record_text(&rows.items[0], AGENT_RUNS_STATUS), "completed");
}

static void test_a_fork_lives_when_nobody_knows_whether_it_was_stored(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = lose_answer});
    fork_at = 3;
    testkit_do(kit, fork_now, WORDS("second question"));
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_int_equal(refused.reason, REASON_OUTCOME_UNKNOWN);
    testkit_do(kit, assert_fork_ended, NULL);
}

/* ---- retention ---- */

static struct retention_progress progress;
static struct retention_counts counts;
static struct retention_rules rules;

static void sweep_once(struct context *ctx, void *unused)
{
    struct error e = {0};
    (void) unused;
    progress.keep = scene.kit->arena;
    struct arena *keep = arena_create(0);
    progress.keep = keep;
    if (!retention_sweep(scene.kit->o, ctx, &rules, &progress, &counts, &e))
        fail_msg("%s", e.message);
    arena_destroy(keep);
    progress = (struct retention_progress){0};
}

static void test_deltas_of_a_stored_answer_become_one_row_and_no_reader_sees_it(struct testkit *kit)
{
    static const struct delta pieces[] = {
        {.kind = DELTA_TEXT, .text = S_INIT("one ")},
        {.kind = DELTA_TEXT, .text = S_INIT("two ")},
        {.kind = DELTA_TEXT, .text = S_INIT("\303\274 three")},
    };
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.deltas = pieces, .delta_count = 3, .pause_ms = 100});
    testkit_do(kit, scene_begin, NULL);
    export_now();
    str before = exported;
    rules = (struct retention_rules){.deltas_ms = 1000};
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.deltas, 0); /* too young */
    testkit_run_ms(kit, 5000);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.deltas, 2);
    export_now();
    assert_true(str_equal(before, exported));
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.deltas, 0);
    assert_same();
}

static void test_an_old_run_is_removed_whole_unless_it_is_held(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    rules = (struct retention_rules){.runs_ms = 1000, .deltas_ms = -1};
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 0);
    testkit_run_ms(kit, 5000);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 1);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 0);
}

static void count_votes(struct context *ctx, void *into)
{
    struct query query = query_of(TABLE_APPROVAL_VOTES);
    struct records rows;
    struct error e = {0};
    if (!store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e))
        fail_msg("%s", e.message);
    *(size_t *) into = rows.count;
}

static void test_an_old_run_takes_the_votes_on_its_approvals_along(struct testkit *kit)
{
    size_t votes = 0;
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"wipe", "{\"all\":true}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, scene_approve, NULL);
    testkit_do(kit, count_votes, &votes);
    assert_int_equal(votes, 1);
    rules = (struct retention_rules){.runs_ms = 1000, .deltas_ms = -1};
    testkit_run_ms(kit, 5000);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 1);
    testkit_do(kit, count_votes, &votes);
    assert_int_equal(votes, 0);
}

static void hold(struct context *ctx, void *unused)
{
    struct batch batch;
    struct error e = {0};
    (void) unused;
    batch_init(&batch, ctx->arena, scene.kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, scene.session_id);
    record_set_text(row, SESSIONS_METADATA, S("{\"hold\":true,\"case\":\"A-17\"}"));
    assert_true(store_commit(scene.kit->store, ctx, &batch, &e));
}

static void test_what_is_held_is_never_removed_however_old_it_is(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    testkit_do(kit, hold, NULL);
    rules = (struct retention_rules){.runs_ms = 1000, .deltas_ms = -1};
    testkit_run_ms(kit, 500000);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 0);
    assert_same();
}

static void test_a_run_that_another_one_was_forked_from_stays(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    fork_at = 3;
    testkit_do(kit, fork_now, WORDS("again"));
    rules = (struct retention_rules){.runs_ms = 1000, .deltas_ms = -1};
    testkit_run_ms(kit, 5000);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 1); /* the fork alone */
}

static const char *parent_status;

/* The run becomes the child of one with this status, which ends when it does. */
static void put_parent(struct context *ctx, void *is_new)
{
    static uuid parent_id;
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, scene.kit->tenant_id);
    if (is_new)
        parent_id = uuid_new(scene.kit->clock, scene.kit->random);
    struct record *row = batch_add(&batch, is_new ? WRITE_INSERT : WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, parent_id);
    record_set_text(row, AGENT_RUNS_STATUS, str_from_cstr(parent_status));
    if (is_new) {
        record_set_uuid(row, AGENT_RUNS_SESSION_ID, scene.session_id);
        record_set_text(row, AGENT_RUNS_COST, S("{}"));
        record_set_text(row, AGENT_RUNS_AGENT, S("assistant"));
        record_set_text(row, AGENT_RUNS_USER_ID, S("ada"));
        record_set_integer(row, AGENT_RUNS_LAST_SEQ, 0);
        record_set_integer(row, AGENT_RUNS_STARTED_AT, clock_unix_us(scene.kit->clock));
    }
    row = batch_add(&batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, scene.run_id);
    record_set_uuid(row, AGENT_RUNS_PARENT_RUN_ID, parent_id);
    if (!store_commit(scene.kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static void test_a_child_stays_while_its_parent_may_ask_for_its_end(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, scene_begin, NULL);
    parent_status = "waiting";
    testkit_do(kit, put_parent, &parent_status);
    rules = (struct retention_rules){.runs_ms = 1000, .deltas_ms = -1};
    testkit_run_ms(kit, 5000);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 0);
    parent_status = "failed";
    testkit_do(kit, put_parent, NULL);
    testkit_do(kit, sweep_once, NULL);
    assert_int_equal(counts.runs, 1); /* before the parent, which does not say when it ended */
}

/* ---- what does not fit is found ---- */

static str replaced(str text, str from, str to)
{
    size_t at = str_find(text, from);
    assert_true(at != STR_NOT_FOUND);
    str parts[] = {str_slice(text, 0, at), to, str_from(text, at + from.len)};
    return str_join(scene.kit->arena, parts, 3);
}

static void test_a_changed_answer_is_told_with_both_sides(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    export_now();
    str changed =
        replaced(exported, S("\"latency_ms\":0,\"fuel\""), S("\"latency_ms\":0,\"fuelx\""));
    struct replay_report *report = replay(changed);
    assert_false(report->is_same);
    assert_true(report->difference_count >= 1);
    assert_true(report->differences[0].seq > 0);
    assert_true(report->differences[0].recorded.len > 0);
    assert_true(report->differences[0].replayed.len > 0);
}

static void test_a_policy_that_said_no_in_the_record_changes_the_run(struct testkit *kit)
{
    scene_start(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"lookup", "{}"}}, .call_count = 1});
    testkit_do(kit, scene_begin, NULL);
    export_now();
    str changed = replaced(
        exported, S("\"action\":\"tool.call\",\"resource\":\"lookup\",\"verdict\":\"allow\""),
        S("\"action\":\"tool.call\",\"resource\":\"lookup\",\"verdict\":\"deny\""));
    assert_false(replay(changed)->is_same);
}

static void test_what_is_no_export_is_refused(struct testkit *kit)
{
    struct replay_report report;
    struct error e = {0};
    scene_start(kit);
    assert_false(run_replay(kit->arena, S("{}"), &report, &e));
    assert_int_equal(e.reason, REASON_INVALID);
    e = (struct error){0};
    assert_false(run_replay(kit->arena, S("nothing"), &report, &e));
    assert_int_equal(e.reason, REASON_JSON);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_a_run_without_tools_replays_to_the_same_bytes),
        TESTKIT_SCRIPT(test_tool_calls_beside_each_other_replay_in_their_order),
        TESTKIT_SCRIPT(test_a_tool_that_fails_and_one_that_is_denied_replay),
        TESTKIT_SCRIPT(test_calls_that_a_guest_makes_replay),
        TESTKIT_SCRIPT(test_a_call_that_is_refused_to_a_guest_replays),
        TESTKIT_SCRIPT(test_a_provider_that_fails_is_replayed_with_its_failures),
        TESTKIT_SCRIPT(test_a_run_that_had_no_budget_fails_the_same_way),
        TESTKIT_SCRIPT(test_an_approval_replays_and_so_does_the_wait_for_it),
        TESTKIT_SCRIPT(test_a_run_goes_on_after_its_node_stopped_and_replays),
        TESTKIT_SCRIPT(test_a_model_call_that_a_crash_cut_replays),
        TESTKIT_SCRIPT(test_a_cancel_in_the_middle_of_an_answer_replays),
        TESTKIT_SCRIPT(test_a_cancel_in_the_middle_of_a_tool_call_replays),
        TESTKIT_SCRIPT(test_a_second_turn_replays_with_its_history),
        TESTKIT_SCRIPT(test_the_result_of_a_client_comes_where_the_record_has_it),
        TESTKIT_SCRIPT(test_a_turn_of_a_long_session_takes_the_bytes_of_the_first),
        TESTKIT_SCRIPT(test_a_run_of_many_tool_calls_takes_the_same_bytes_for_each),
        TESTKIT_SCRIPT(test_a_thousand_turns_are_exported_replayed_and_compared_in_linear_time),
        TESTKIT_SCRIPT(test_a_run_of_a_hundred_tool_calls_replays),
        TESTKIT_SCRIPT(test_a_fork_shares_the_first_events_and_goes_on_by_itself),
        TESTKIT_SCRIPT(test_a_fork_in_the_middle_of_something_names_the_nearest_place),
        TESTKIT_SCRIPT(test_a_fork_of_a_fork_reads_through_both),
        TESTKIT_SCRIPT(test_a_fork_lives_when_nobody_knows_whether_it_was_stored),
        TESTKIT_SCRIPT(test_deltas_of_a_stored_answer_become_one_row_and_no_reader_sees_it),
        TESTKIT_SCRIPT(test_an_old_run_is_removed_whole_unless_it_is_held),
        TESTKIT_SCRIPT(test_an_old_run_takes_the_votes_on_its_approvals_along),
        TESTKIT_SCRIPT(test_what_is_held_is_never_removed_however_old_it_is),
        TESTKIT_SCRIPT(test_a_run_that_another_one_was_forked_from_stays),
        TESTKIT_SCRIPT(test_a_child_stays_while_its_parent_may_ask_for_its_end),
        TESTKIT_SCRIPT(test_a_changed_answer_is_told_with_both_sides),
        TESTKIT_SCRIPT(test_a_policy_that_said_no_in_the_record_changes_the_run),
        TESTKIT_SCRIPT(test_what_is_no_export_is_refused),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
