#include "orchestrator/journal/run_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

#define ID(n) "00000000-0000-7000-8000-00000000000" #n
#define MESSAGE "\"message_id\":\"" ID(1) "\""
#define RESERVATION(n) "\"reservation_id\":\"" ID(n) "\""
#define CALL(n) "\"tool_call_id\":\"" ID(n) "\""
#define APPROVAL "\"approval_id\":\"" ID(9) "\""
#define AMOUNT "\"amount\":{\"tokens\":100,\"time_ms\":10,\"cost_nanousd\":\"7\",\"tool_calls\":0}"

#define STARTED                                                                                    \
    "{" MESSAGE ",\"agent\":\"assistant\",\"model\":\"fast\",\"user_id\":\"ada\",\"epoch\":3}"
#define RESERVED "{\"for\":\"model\"," RESERVATION(2) "," AMOUNT "}"
#define REQUESTED "{\"attempt\":1," RESERVATION(2) "}"
#define ANSWERED "{\"attempt\":1," MESSAGE ",\"finish\":\"stop\",\"tool_calls\":[]}"
#define ASKED_TWO                                                                                  \
    "{\"attempt\":1," MESSAGE ",\"finish\":\"tool_calls\",\"tool_calls\":[{" CALL(                 \
        5) ",\"call_id\":\"a\","                                                                   \
           "\"name\":\"pay\"},{" CALL(6) ",\"call_id\":\"b\",\"name\":\"wipe\"}]}"
#define SETTLED(n) "{" RESERVATION(n) "," AMOUNT "}"
#define RESERVED_TOOL "{\"for\":\"tool\"," RESERVATION(3) "," CALL(5) "," AMOUNT "}"
#define INTENDED "{" CALL(5) ",\"attempt\":1,\"effect_key\":\"k\"," RESERVATION(3) "}"
#define TOOL_DONE(n) "{" CALL(n) ",\"status\":\"succeeded\"}"
#define APPROVAL_ASKED "{" APPROVAL "," CALL(6) "}"
#define APPROVED "{" APPROVAL "," CALL(6) ",\"decision\":\"approved\",\"approver\":\"bob\"}"
#define FAILED "{\"attempt\":1,\"error\":\"network\"}"

struct history {
    struct arena *arena;
    struct run_state state;
};

static int set_up(void **state)
{
    struct history *history = calloc(1, sizeof *history);
    assert_non_null(history);
    history->arena = arena_create(0);
    run_state_init(&history->state, history->arena);
    *state = history;
    return 0;
}

static int tear_down(void **state)
{
    struct history *history = *state;
    arena_destroy(history->arena);
    free(history);
    return 0;
}

static struct event event_of(struct history *history, enum event_type type, const char *data)
{
    struct event event = {.seq = history->state.last_seq + 1, .type = type};
    struct error e;
    if (!json_parse(history->arena, str_from_cstr(data), (struct json_limits){0}, &event.data, &e))
        fail_msg("%s: %s", data, e.message);
    return event;
}

static void take(struct history *history, enum event_type type, const char *data)
{
    struct event event = event_of(history, type, data);
    struct error e;
    if (!run_state_apply(&history->state, &event, &e))
        fail_msg("%s", e.message);
}

/* The whole state, to see that nothing has changed. */
struct snapshot {
    struct run_state state;
    struct call calls[4];
    struct open_reservation reservations[4];
};

static void take_snapshot(const struct run_state *state, struct snapshot *out)
{
    memset(out, 0, sizeof *out);
    memcpy(&out->state, state, sizeof *state);
    if (state->call_count > 0)
        memcpy(out->calls, state->calls, state->call_count * sizeof *state->calls);
    if (state->reservation_count > 0)
        memcpy(out->reservations, state->reservations,
               state->reservation_count * sizeof *state->reservations);
}

static void refuse_event(struct history *history, const struct event *event, const char *why)
{
    struct snapshot before, after;
    struct error e = {0};
    take_snapshot(&history->state, &before);
    assert_false(run_state_apply(&history->state, event, &e));
    take_snapshot(&history->state, &after);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(e.reason, REASON_CORRUPT);
    if (!strstr(e.message, why))
        fail_msg("\"%s\" does not say \"%s\"", e.message, why);
}

static void refuse(struct history *history, enum event_type type, const char *data, const char *why)
{
    struct event event = event_of(history, type, data);
    refuse_event(history, &event, why);
}

static enum run_command_kind next(const struct history *history)
{
    return run_state_next(&history->state).kind;
}

static void start(struct history *history)
{
    take(history, EVENT_RUN_STARTED, STARTED);
}

static void call_model(struct history *history)
{
    take(history, EVENT_BUDGET_RESERVED, RESERVED);
    take(history, EVENT_MODEL_REQUESTED, REQUESTED);
}

static void ask_for_two_tools(struct history *history)
{
    start(history);
    call_model(history);
    take(history, EVENT_MODEL_COMPLETED, ASKED_TWO);
    take(history, EVENT_BUDGET_SETTLED, SETTLED(2));
}

static void intend_first(struct history *history)
{
    ask_for_two_tools(history);
    take(history, EVENT_BUDGET_RESERVED, RESERVED_TOOL);
    take(history, EVENT_TOOL_INTENDED, INTENDED);
}

/* ---- names ---- */

static void test_every_status_and_event_type_has_a_name_that_reads_back(void **state)
{
    (void) state;
    for (int i = RUN_PENDING; i <= RUN_CANCELLED; i++) {
        enum run_status status;
        assert_true(run_status_parse(str_from_cstr(run_status_name((enum run_status) i)), &status));
        assert_int_equal(status, i);
    }
    for (int i = 0; i < EVENT_TYPE_COUNT; i++) {
        enum event_type type;
        assert_true(event_type_parse(str_from_cstr(event_type_name((enum event_type) i)), &type));
        assert_int_equal(type, i);
        assert_true(event_type_version(type) >= 1);
    }
    enum event_type type;
    enum run_status status;
    assert_false(event_type_parse(S("run.exploded"), &type));
    assert_false(run_status_parse(S("asleep"), &status));
}

static void test_exactly_the_three_ends_are_final(void **state)
{
    (void) state;
    int final_types = 0, final_statuses = 0;
    for (int i = 0; i < EVENT_TYPE_COUNT; i++)
        final_types += event_is_final((enum event_type) i);
    for (int i = RUN_PENDING; i <= RUN_CANCELLED; i++)
        final_statuses += run_status_is_final((enum run_status) i);
    assert_int_equal(final_types, 3);
    assert_int_equal(final_statuses, 3);
}

/* ---- the golden journal: a question, two tools (one approved by a person), an answer ---- */

static const struct {
    enum event_type type;
    const char *data;
    enum run_status status;
    enum run_command_kind next;
} golden[] = {
    {EVENT_RUN_STARTED, STARTED, RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_MESSAGE_ADDED, "{" MESSAGE ",\"role\":\"user\"}", RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_POLICY_DECIDED, "{\"action\":\"run.start\",\"verdict\":\"allow\"}", RUN_RUNNING,
     RUN_DO_MODEL},
    {EVENT_BUDGET_RESERVED, RESERVED, RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_MODEL_REQUESTED, REQUESTED, RUN_RUNNING, RUN_DO_LOSE_ATTEMPT},
    {EVENT_MODEL_DELTA, "{\"attempt\":1,\"text\":\"hm\"}", RUN_RUNNING, RUN_DO_LOSE_ATTEMPT},
    {EVENT_MODEL_FAILED, FAILED, RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_BUDGET_SETTLED, SETTLED(2), RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_BUDGET_RESERVED, RESERVED, RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_MODEL_REQUESTED, "{\"attempt\":2," RESERVATION(2) "}", RUN_RUNNING, RUN_DO_LOSE_ATTEMPT},
    {EVENT_MODEL_COMPLETED,
     "{\"attempt\":2," MESSAGE ",\"finish\":\"tool_calls\",\"tool_calls\":[{" CALL(
         5) ",\"call_id\":\"a\",\"name\":\"pay\"},"
            "{" CALL(6) ",\"call_id\":\"b\",\"name\":\"wipe\"}]}",
     RUN_RUNNING, RUN_DO_CALLS},
    {EVENT_BUDGET_SETTLED, SETTLED(2), RUN_RUNNING, RUN_DO_CALLS},
    {EVENT_BUDGET_RESERVED, RESERVED_TOOL, RUN_RUNNING, RUN_DO_CALLS},
    {EVENT_TOOL_INTENDED, INTENDED, RUN_RUNNING, RUN_DO_RECOVER_CALL},
    {EVENT_APPROVAL_REQUESTED, APPROVAL_ASKED, RUN_RUNNING, RUN_DO_RECOVER_CALL},
    {EVENT_TOOL_COMPLETED, TOOL_DONE(5), RUN_RUNNING, RUN_DO_WAIT},
    {EVENT_BUDGET_SETTLED, SETTLED(3), RUN_RUNNING, RUN_DO_WAIT},
    {EVENT_RUN_WAITING, "{\"approvals\":[\"" ID(9) "\"]}", RUN_WAITING, RUN_DO_WAIT},
    {EVENT_RUN_RESUMED, "{\"epoch\":4,\"node\":\"b\"}", RUN_RUNNING, RUN_DO_WAIT},
    {EVENT_APPROVAL_DECIDED, APPROVED, RUN_RUNNING, RUN_DO_CALLS},
    {EVENT_BUDGET_RESERVED, "{\"for\":\"tool\"," RESERVATION(4) "," CALL(6) "," AMOUNT "}",
     RUN_RUNNING, RUN_DO_CALLS},
    {EVENT_TOOL_INTENDED, "{" CALL(6) ",\"attempt\":1,\"effect_key\":\"w\"," RESERVATION(4) "}",
     RUN_RUNNING, RUN_DO_RECOVER_CALL},
    {EVENT_TOOL_COMPLETED, TOOL_DONE(6), RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_BUDGET_SETTLED, SETTLED(4), RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_BUDGET_RESERVED, RESERVED, RUN_RUNNING, RUN_DO_MODEL},
    {EVENT_MODEL_REQUESTED, "{\"attempt\":3," RESERVATION(2) "}", RUN_RUNNING, RUN_DO_LOSE_ATTEMPT},
    {EVENT_MODEL_COMPLETED, "{\"attempt\":3," MESSAGE ",\"finish\":\"stop\"}", RUN_RUNNING,
     RUN_DO_COMPLETE},
    {EVENT_BUDGET_SETTLED, SETTLED(2), RUN_RUNNING, RUN_DO_COMPLETE},
    {EVENT_RUN_COMPLETED, "{" MESSAGE "}", RUN_COMPLETED, RUN_DO_NOTHING},
};

static void test_the_golden_journal_folds_and_tells_what_is_next_at_each_event(void **state)
{
    struct history *history = *state;
    assert_int_equal(next(history), RUN_DO_NOTHING);
    for (size_t i = 0; i < ARRAY_COUNT(golden); i++) {
        take(history, golden[i].type, golden[i].data);
        if (history->state.status != golden[i].status || next(history) != golden[i].next)
            fail_msg("event %zu: status %d, next %d", i + 1, history->state.status, next(history));
    }
    const struct run_state *s = &history->state;
    assert_int_equal(s->last_seq, ARRAY_COUNT(golden));
    assert_int_equal(s->step, 2);
    assert_int_equal(s->attempt, 3);
    assert_int_equal(s->tool_calls_total, 2);
    assert_int_equal(s->epoch, 4);
    assert_int_equal(s->reservation_count, 0);
    assert_int_equal(s->spent.tokens, 500);
    assert_int_equal(s->spent.cost_nanousd, 35);
    assert_true(str_equal(s->agent, S("assistant")) && str_equal(s->model, S("fast")) &&
                str_equal(s->user_id, S("ada")));
    assert_true(str_equal(s->finish, S("stop")));
}

static void test_every_prefix_of_the_golden_journal_folds_to_the_same_as_step_by_step(void **state)
{
    struct history *whole = *state;
    for (size_t cut = 0; cut <= ARRAY_COUNT(golden); cut++) {
        struct history *again = NULL;
        set_up((void **) &again);
        for (size_t i = 0; i < cut; i++)
            take(again, golden[i].type, golden[i].data);
        assert_int_equal(again->state.last_seq, whole->state.last_seq);
        assert_int_equal(again->state.status, whole->state.status);
        assert_int_equal(again->state.reservation_count, whole->state.reservation_count);
        assert_int_equal(next(again), next(whole));
        tear_down((void **) &again);
        if (cut < ARRAY_COUNT(golden))
            take(whole, golden[cut].type, golden[cut].data);
    }
}

/* ---- commands ---- */

static void test_a_lost_attempt_comes_before_everything_even_a_cancel(void **state)
{
    struct history *history = *state;
    start(history);
    call_model(history);
    take(history, EVENT_RUN_CANCELLING, "{\"by\":\"ada\"}");
    assert_int_equal(next(history), RUN_DO_LOSE_ATTEMPT);
    take(history, EVENT_MODEL_FAILED, FAILED);
    take(history, EVENT_BUDGET_SETTLED, SETTLED(2));
    assert_int_equal(next(history), RUN_DO_CANCEL);
    take(history, EVENT_RUN_CANCELLED, "{\"by\":\"ada\"}");
    assert_int_equal(history->state.status, RUN_CANCELLED);
    assert_int_equal(next(history), RUN_DO_NOTHING);
}

static void test_a_call_in_flight_is_recovered_before_a_cancel(void **state)
{
    struct history *history = *state;
    intend_first(history);
    take(history, EVENT_RUN_CANCELLING, "{\"by\":\"ada\"}");
    struct run_command command = run_state_next(&history->state);
    assert_int_equal(command.kind, RUN_DO_RECOVER_CALL);
    assert_ptr_equal(command.call, &history->state.calls[0]);
    take(history, EVENT_TOOL_COMPLETED, "{" CALL(5) ",\"status\":\"unknown\"}");
    take(history, EVENT_BUDGET_SETTLED, SETTLED(3));
    assert_int_equal(next(history), RUN_DO_CANCEL);
    assert_true(str_equal(history->state.cancelled_by, S("ada")));
}

static void test_calls_that_can_run_come_before_waiting_for_the_others(void **state)
{
    struct history *history = *state;
    ask_for_two_tools(history);
    take(history, EVENT_APPROVAL_REQUESTED, APPROVAL_ASKED);
    assert_int_equal(next(history), RUN_DO_CALLS);
    take(history, EVENT_TOOL_COMPLETED, "{" CALL(5) ",\"status\":\"denied\"}");
    assert_int_equal(next(history), RUN_DO_WAIT);
}

static void test_a_denied_approval_leaves_the_end_of_the_call_to_its_own_event(void **state)
{
    struct history *history = *state;
    ask_for_two_tools(history);
    take(history, EVENT_APPROVAL_REQUESTED, APPROVAL_ASKED);
    take(history, EVENT_APPROVAL_DECIDED,
         "{" APPROVAL "," CALL(6) ",\"decision\":\"denied\",\"approver\":\"bob\"}");
    assert_int_equal(history->state.calls[1].state, CALL_AWAITING);
    take(history, EVENT_TOOL_COMPLETED, "{" CALL(6) ",\"status\":\"denied\"}");
    assert_int_equal(history->state.calls[1].state, CALL_DONE);
    assert_true(str_equal(history->state.calls[1].status, S("denied")));
}

static void test_a_repeated_call_counts_once_and_rises_by_attempt(void **state)
{
    struct history *history = *state;
    intend_first(history);
    take(history, EVENT_TOOL_INTENDED,
         "{" CALL(5) ",\"attempt\":2,\"effect_key\":\"k\"," RESERVATION(3) "}");
    assert_int_equal(history->state.tool_calls_total, 1);
    assert_int_equal(history->state.calls[0].attempts, 2);
}

static void test_failed_attempts_in_a_row_are_counted_until_one_answers(void **state)
{
    struct history *history = *state;
    start(history);
    call_model(history);
    take(history, EVENT_MODEL_FAILED, FAILED);
    assert_int_equal(history->state.failed_in_a_row, 1);
    take(history, EVENT_MODEL_REQUESTED, "{\"attempt\":2," RESERVATION(2) "}");
    take(history, EVENT_MODEL_FAILED, "{\"attempt\":2}");
    assert_int_equal(history->state.failed_in_a_row, 2);
    take(history, EVENT_MODEL_REQUESTED, "{\"attempt\":3," RESERVATION(2) "}");
    take(history, EVENT_MODEL_COMPLETED, "{\"attempt\":3," MESSAGE "}");
    assert_int_equal(history->state.failed_in_a_row, 0);
}

static void test_a_failed_run_keeps_its_error(void **state)
{
    struct history *history = *state;
    start(history);
    take(history, EVENT_BUDGET_REFUSED, "{\"message\":\"no\"}");
    take(history, EVENT_RUN_FAILED, "{\"error\":\"over_budget\",\"message\":\"no\"}");
    assert_int_equal(history->state.status, RUN_FAILED);
    assert_true(str_equal(history->state.error, S("over_budget")));
    assert_true(str_equal(history->state.error_message, S("no")));
}

/* ---- refusals ---- */

static void test_numbers_must_rise_by_exactly_one(void **state)
{
    struct history *history = *state;
    start(history);
    static const int64_t wrong[] = {0, 1, 3, -1, INT64_MAX};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct event event = event_of(history, EVENT_MESSAGE_ADDED, "{}");
        event.seq = wrong[i];
        refuse_event(history, &event, "does not follow");
    }
}

static void test_nothing_but_a_start_begins_a_run_and_only_once(void **state)
{
    struct history *history = *state;
    for (int i = 0; i < EVENT_TYPE_COUNT; i++)
        if (i != EVENT_RUN_STARTED)
            refuse(history, (enum event_type) i, "{}", "has not started");
    refuse(history, EVENT_RUN_STARTED, "{}", "an id is missing");
    start(history);
    refuse(history, EVENT_RUN_STARTED, STARTED, "already started");
}

static void test_nothing_follows_the_end(void **state)
{
    static const char *const ends[][2] = {
        {"{" MESSAGE "}", ""}, {"{\"error\":\"x\"}", ""}, {"{}", ""}};
    (void) state;
    for (int end = 0; end < 3; end++) {
        struct history *history = NULL;
        set_up((void **) &history);
        start(history);
        take(history, (enum event_type)(EVENT_RUN_COMPLETED + end), ends[end][0]);
        for (int i = 0; i < EVENT_TYPE_COUNT; i++)
            refuse(history, (enum event_type) i, STARTED, "after the run's end");
        tear_down((void **) &history);
    }
}

static void test_a_run_does_not_end_with_anything_in_flight(void **state)
{
    struct history *history = *state;
    start(history);
    take(history, EVENT_BUDGET_RESERVED, RESERVED);
    refuse(history, EVENT_RUN_FAILED, "{}", "an open reservation");
    take(history, EVENT_MODEL_REQUESTED, REQUESTED);
    refuse(history, EVENT_RUN_COMPLETED, "{" MESSAGE "}", "a model call in flight");
    refuse(history, EVENT_RUN_CANCELLED, "{}", "a model call in flight");
    take(history, EVENT_MODEL_COMPLETED, ASKED_TWO);
    take(history, EVENT_BUDGET_SETTLED, SETTLED(2));
    take(history, EVENT_BUDGET_RESERVED, RESERVED_TOOL);
    take(history, EVENT_TOOL_INTENDED, INTENDED);
    refuse(history, EVENT_RUN_FAILED, "{}", "a tool call in flight");
}

static void test_a_completed_run_names_its_answer(void **state)
{
    struct history *history = *state;
    start(history);
    refuse(history, EVENT_RUN_COMPLETED, "{\"message_id\":\"nonsense\"}", "an id is missing");
    refuse(history, EVENT_RUN_COMPLETED, "{}", "an id is missing");
}

static void test_the_epoch_does_not_go_back(void **state)
{
    struct history *history = *state;
    start(history);
    refuse(history, EVENT_RUN_RESUMED, "{\"epoch\":2}", "goes back");
    take(history, EVENT_RUN_RESUMED, "{\"epoch\":3}");
}

static void test_reservations_are_made_once_settled_once_and_are_costs(void **state)
{
    struct history *history = *state;
    start(history);
    refuse(history, EVENT_BUDGET_RESERVED, "{\"for\":\"model\"," AMOUNT "}", "an id is missing");
    refuse(history, EVENT_BUDGET_RESERVED, "{\"for\":\"model\"," RESERVATION(2) "}", "no cost");
    refuse(history, EVENT_BUDGET_RESERVED,
           "{\"for\":\"model\"," RESERVATION(2) ",\"amount\":{\"tokens\":-1}}", "no cost");
    refuse(history, EVENT_BUDGET_RESERVED,
           "{\"for\":\"model\"," RESERVATION(2) ",\"amount\":{\"tokens\":\"many\"}}", "no cost");
    refuse(history, EVENT_BUDGET_RESERVED, RESERVED_TOOL, "did not ask for");
    take(history, EVENT_BUDGET_RESERVED, RESERVED);
    refuse(history, EVENT_BUDGET_RESERVED, RESERVED, "exists already");
    refuse(history, EVENT_BUDGET_SETTLED, SETTLED(3), "unknown or already settled");
    refuse(history, EVENT_BUDGET_SETTLED, "{" RESERVATION(2) "}", "no cost");
    refuse(history, EVENT_BUDGET_SETTLED, "{" RESERVATION(2) ",\"amount\":{\"tokens\":-5}}",
           "no cost");
    take(history, EVENT_BUDGET_SETTLED, SETTLED(2));
    refuse(history, EVENT_BUDGET_SETTLED, SETTLED(2), "unknown or already settled");
}

static void test_a_tool_call_has_one_open_reservation_at_most(void **state)
{
    struct history *history = *state;
    intend_first(history);
    refuse(history, EVENT_BUDGET_RESERVED,
           "{\"for\":\"tool\"," RESERVATION(4) "," CALL(5) "," AMOUNT "}",
           "has an open reservation");
}

static void test_many_reservations_are_kept(void **state)
{
    struct history *history = *state;
    start(history);
    for (int i = 0; i < 40; i++) {
        char data[256];
        snprintf(data, sizeof data,
                 "{\"for\":\"model\",\"reservation_id\":\"00000000-0000-7000-8000-0000000000%"
                 "02d\"," AMOUNT "}",
                 i + 10);
        take(history, EVENT_BUDGET_RESERVED, data);
    }
    assert_int_equal(history->state.reservation_count, 40);
}

static void test_one_model_attempt_is_in_flight_at_most_and_attempts_rise(void **state)
{
    struct history *history = *state;
    start(history);
    refuse(history, EVENT_MODEL_REQUESTED, REQUESTED, "not open");
    refuse(history, EVENT_MODEL_COMPLETED, ANSWERED, "no such attempt");
    refuse(history, EVENT_MODEL_FAILED, FAILED, "no such attempt");
    take(history, EVENT_BUDGET_RESERVED, RESERVED);
    refuse(history, EVENT_MODEL_REQUESTED, "{" RESERVATION(2) "}", "does not rise");
    refuse(history, EVENT_MODEL_REQUESTED, "{\"attempt\":4294967297," RESERVATION(2) "}",
           "does not rise");
    refuse(history, EVENT_MODEL_REQUESTED, "{\"attempt\":1}", "an id is missing");
    take(history, EVENT_MODEL_REQUESTED, REQUESTED);
    refuse(history, EVENT_MODEL_REQUESTED, "{\"attempt\":2," RESERVATION(2) "}",
           "another model call");
    refuse(history, EVENT_MODEL_COMPLETED, "{\"attempt\":2," MESSAGE "}", "no such attempt");
    refuse(history, EVENT_MODEL_FAILED, "{\"attempt\":2}", "no such attempt");
    take(history, EVENT_MODEL_FAILED, FAILED);
    refuse(history, EVENT_MODEL_REQUESTED, REQUESTED, "does not rise");
}

static void test_an_answer_with_broken_calls_changes_nothing(void **state)
{
    struct history *history = *state;
    start(history);
    call_model(history);
    refuse(history, EVENT_MODEL_COMPLETED, "{\"attempt\":1}", "an id is missing");
    refuse(history, EVENT_MODEL_COMPLETED,
           "{\"attempt\":1," MESSAGE ",\"tool_calls\":[{" CALL(5) "},{\"name\":\"x\"}]}", "no id");
    refuse(history, EVENT_MODEL_COMPLETED,
           "{\"attempt\":1," MESSAGE ",\"tool_calls\":[{" CALL(5) "},{" CALL(5) "}]}", "same id");
    struct strbuf many;
    strbuf_init(&many, history->arena, 4096);
    strbuf_add(&many, S("{\"attempt\":1," MESSAGE ",\"tool_calls\":["));
    for (int i = 0; i < 17; i++)
        strbuf_printf(&many, "%s{\"tool_call_id\":\"00000000-0000-7000-8000-0000000000%02d\"}",
                      i ? "," : "", i);
    strbuf_add(&many, S("]}"));
    refuse(history, EVENT_MODEL_COMPLETED, str_to_cstr(history->arena, strbuf_str(&many)),
           "too many");
    take(history, EVENT_MODEL_COMPLETED, ASKED_TWO);
}

static void test_no_model_call_before_the_tools_are_done(void **state)
{
    struct history *history = *state;
    ask_for_two_tools(history);
    take(history, EVENT_BUDGET_RESERVED, RESERVED);
    refuse(history, EVENT_MODEL_REQUESTED, "{\"attempt\":2," RESERVATION(2) "}", "is not done");
}

static void test_a_tool_call_moves_only_forward(void **state)
{
    struct history *history = *state;
    start(history);
    refuse(history, EVENT_TOOL_INTENDED, INTENDED, "did not ask for");
    refuse(history, EVENT_TOOL_COMPLETED, TOOL_DONE(5), "did not ask for");
    call_model(history);
    take(history, EVENT_MODEL_COMPLETED, ASKED_TWO);
    refuse(history, EVENT_TOOL_INTENDED, "{\"tool_call_id\":\"5\"}", "an id is missing");
    refuse(history, EVENT_TOOL_INTENDED, "{" CALL(5) ",\"attempt\":0}", "already intended");
    refuse(history, EVENT_TOOL_INTENDED, "{" CALL(5) ",\"attempt\":4294967297}",
           "already intended");
    take(history, EVENT_TOOL_INTENDED, INTENDED);
    refuse(history, EVENT_TOOL_INTENDED, INTENDED, "already intended");
    take(history, EVENT_TOOL_COMPLETED, TOOL_DONE(5));
    refuse(history, EVENT_TOOL_COMPLETED, TOOL_DONE(5), "already done");
    refuse(history, EVENT_TOOL_INTENDED, "{" CALL(5) ",\"attempt\":2}", "already done");
}

static void test_approvals_are_asked_for_once_and_decided_by_someone(void **state)
{
    struct history *history = *state;
    ask_for_two_tools(history);
    refuse(history, EVENT_APPROVAL_REQUESTED, "{" CALL(6) "}", "an id is missing");
    refuse(history, EVENT_APPROVAL_DECIDED, APPROVED, "no such approval");
    take(history, EVENT_APPROVAL_REQUESTED, APPROVAL_ASKED);
    refuse(history, EVENT_APPROVAL_REQUESTED, "{\"approval_id\":\"" ID(8) "\"," CALL(6) "}",
           "past its decision");
    refuse(history, EVENT_TOOL_INTENDED, "{" CALL(6) ",\"attempt\":1}", "waits for its approval");
    refuse(history, EVENT_APPROVAL_DECIDED,
           "{\"approval_id\":\"" ID(8) "\"," CALL(6) ",\"decision\":\"approved\"}", "no such");
    refuse(history, EVENT_APPROVAL_DECIDED, "{" APPROVAL "," CALL(6) ",\"decision\":\"approved\"}",
           "without an approver");
    take(history, EVENT_APPROVAL_DECIDED, APPROVED);
    assert_int_equal(history->state.calls[1].state, CALL_APPROVED);
    assert_true(str_equal(history->state.calls[1].approver, S("bob")));
    refuse(history, EVENT_APPROVAL_DECIDED, APPROVED, "no such approval");
}

static void test_a_cost_reads_back_and_null_is_unlimited(void **state)
{
    struct history *history = *state;
    struct event event = event_of(history, EVENT_MESSAGE_ADDED,
                                  "{\"tokens\":null,\"cost_nanousd\":\"9007199254740993\"}");
    cost read;
    assert_true(cost_read_json(event.data, &read));
    assert_true(read.tokens == COST_UNLIMITED);
    assert_true(read.cost_nanousd == 9007199254740993ll);
    event = event_of(history, EVENT_MESSAGE_ADDED, "{\"tokens\":true}");
    assert_false(cost_read_json(event.data, &read));
    event = event_of(history, EVENT_MESSAGE_ADDED, "[]");
    assert_false(cost_read_json(event.data, &read));
    assert_false(cost_read_json(NULL, &read));
}

/* ---- children ---- */

#define CHILD(n) "\"child_run_id\":\"" ID(n) "\""
#define CHILD_STARTED(n, call) "{" CHILD(n) "," CALL(call) ",\"purpose\":\"tool\"}"
#define CHILD_ENDED(n) "{" CHILD(n) ",\"status\":\"completed\"}"
#define AGENT_INTENDED(n, call) "{" CALL(call) ",\"attempt\":1," CHILD(n) "}"

static void test_the_call_of_an_agent_waits_for_its_run(void **state)
{
    struct history *history = *state;
    ask_for_two_tools(history);
    refuse(history, EVENT_TOOL_INTENDED, AGENT_INTENDED(7, 5), "was not begun");
    refuse(history, EVENT_RUN_CHILD_STARTED, "{}", "an id is missing");
    refuse(history, EVENT_RUN_CHILD_COMPLETED, CHILD_ENDED(7), "no such child");
    take(history, EVENT_RUN_CHILD_STARTED, CHILD_STARTED(7, 5));
    refuse(history, EVENT_RUN_CHILD_STARTED, CHILD_STARTED(7, 5), "of this id");
    refuse(history, EVENT_TOOL_INTENDED, AGENT_INTENDED(7, 6), "was not begun");
    take(history, EVENT_TOOL_INTENDED, AGENT_INTENDED(7, 5));
    refuse(history, EVENT_TOOL_INTENDED, AGENT_INTENDED(7, 5), "already called");
    refuse(history, EVENT_TOOL_INTENDED, INTENDED, "another agent");
    assert_int_equal(next(history), RUN_DO_CALLS); /* the other one */
    take(history, EVENT_TOOL_COMPLETED, TOOL_DONE(6));
    assert_int_equal(next(history), RUN_DO_WAIT);
    refuse(history, EVENT_TOOL_COMPLETED, TOOL_DONE(5), "is alive");
    refuse(history, EVENT_RUN_CANCELLED, "{}", "alive");
    take(history, EVENT_RUN_CHILD_COMPLETED, CHILD_ENDED(7));
    refuse(history, EVENT_RUN_CHILD_COMPLETED, CHILD_ENDED(7), "no such child");
    take(history, EVENT_TOOL_COMPLETED, TOOL_DONE(5));
    assert_int_equal(next(history), RUN_DO_MODEL);
    assert_int_equal(run_state_live_children(&history->state), 0);
}

static void test_the_answer_of_a_handoff_is_the_runs(void **state)
{
    struct history *history = *state;
    ask_for_two_tools(history);
    take(history, EVENT_TOOL_COMPLETED, TOOL_DONE(6));
    take(history, EVENT_RUN_CHILD_STARTED, CHILD_STARTED(7, 5));
    take(history, EVENT_TOOL_INTENDED, "{" CALL(5) ",\"handoff\":true," CHILD(7) "}");
    take(history, EVENT_RUN_CHILD_COMPLETED, CHILD_ENDED(7));
    refuse(history, EVENT_TOOL_COMPLETED,
           "{" CALL(5) ",\"status\":\"succeeded\",\"message_id\":\"?\"}", "an id is missing");
    take(history, EVENT_TOOL_COMPLETED,
         "{" CALL(5) ",\"status\":\"succeeded\",\"message_id\":\"" ID(8) "\"}");
    assert_int_equal(next(history), RUN_DO_COMPLETE);
}

static void test_a_handoff_that_failed_leaves_the_run_to_its_model(void **state)
{
    struct history *history = *state;
    ask_for_two_tools(history);
    take(history, EVENT_TOOL_COMPLETED, TOOL_DONE(6));
    take(history, EVENT_RUN_CHILD_STARTED, CHILD_STARTED(7, 5));
    take(history, EVENT_TOOL_INTENDED, "{" CALL(5) ",\"handoff\":true," CHILD(7) "}");
    take(history, EVENT_RUN_CHILD_COMPLETED, "{" CHILD(7) ",\"status\":\"failed\"}");
    take(history, EVENT_TOOL_COMPLETED, "{" CALL(5) ",\"status\":\"failed\"}");
    assert_int_equal(next(history), RUN_DO_MODEL);
}

static void test_a_run_starts_a_bounded_number_of_runs(void **state)
{
    struct history *history = *state;
    char data[160];
    start(history);
    for (int i = 0; i < RUN_CHILDREN_LIVE_MAX; i++) {
        snprintf(data, sizeof data,
                 "{\"child_run_id\":\"00000000-0000-7000-8000-%012d\",\"step\":\"s\"}", i + 1);
        take(history, EVENT_RUN_CHILD_STARTED, data);
    }
    refuse(history, EVENT_RUN_CHILD_STARTED,
           "{\"child_run_id\":\"00000000-0000-7000-9000-000000000000\"}", "too many child runs");
    assert_int_equal(run_state_live_children(&history->state), RUN_CHILDREN_LIVE_MAX);
}

/* One after the other: what counts is how many are alive; what has ended leaves its id and no more. */
static void test_a_run_that_ended_makes_room_for_another_and_is_not_begun_again(void **state)
{
    struct history *history = *state;
    char data[160];
    start(history);
    for (int i = 0; i < 20 * RUN_CHILDREN_LIVE_MAX; i++) {
        snprintf(data, sizeof data,
                 "{\"child_run_id\":\"00000000-0000-7000-8000-%012d\",\"step\":\"s\"}", i + 1);
        take(history, EVENT_RUN_CHILD_STARTED, data);
        assert_int_equal(run_state_live_children(&history->state), 1);
        snprintf(data, sizeof data,
                 "{\"child_run_id\":\"00000000-0000-7000-8000-%012d\",\"status\":\"completed\"}",
                 i + 1);
        take(history, EVENT_RUN_CHILD_COMPLETED, data);
    }
    assert_int_equal(run_state_live_children(&history->state), 0);
    refuse(history, EVENT_RUN_CHILD_STARTED,
           "{\"child_run_id\":\"00000000-0000-7000-8000-000000000007\",\"step\":\"s\"}",
           "there is a child run of this id");
    refuse(history, EVENT_RUN_CHILD_COMPLETED,
           "{\"child_run_id\":\"00000000-0000-7000-8000-000000000007\",\"status\":\"failed\"}",
           "no such child run is alive");
    assert_in_range(history->state.child_place_count * sizeof(struct child_place), 1,
                    20 * RUN_CHILDREN_LIVE_MAX * 64);
}

static void test_a_run_that_waits_has_nothing_reserved(void **state)
{
    struct history *history = *state;
    start(history);
    take(history, EVENT_BUDGET_RESERVED, RESERVED);
    refuse(history, EVENT_RUN_WAITING, "{}", "open reservation");
    take(history, EVENT_BUDGET_SETTLED, SETTLED(2));
    take(history, EVENT_RUN_WAITING, "{}");
}

/* A call for a summary is no step: what the run does next is what it would have done without it. */
static void test_an_aside_is_no_step_of_the_run(void **state)
{
    struct history *history = *state;
    take(history, EVENT_RUN_STARTED, STARTED);
    take(history, EVENT_BUDGET_RESERVED, RESERVED);
    take(history, EVENT_MODEL_REQUESTED, "{\"attempt\":1," RESERVATION(2) "}");
    assert_int_equal(run_state_next(&history->state).kind, RUN_DO_LOSE_ATTEMPT);
    take(history, EVENT_MODEL_COMPLETED,
         "{\"attempt\":1,\"purpose\":\"summary\"," MESSAGE
         ",\"finish\":\"stop\",\"tool_calls\":[]}");
    take(history, EVENT_BUDGET_SETTLED, SETTLED(2));
    take(history, EVENT_MESSAGE_SUMMARISED, "{" MESSAGE ",\"is_fallback\":false}");
    assert_int_equal(run_state_next(&history->state).kind, RUN_DO_MODEL);
    assert_int_equal(history->state.step, 0);
    assert_int_equal(history->state.attempt, 1);
    assert_true(uuid_is_none(history->state.answer_id));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_aside_is_no_step_of_the_run),
        TEST(test_every_status_and_event_type_has_a_name_that_reads_back),
        TEST(test_exactly_the_three_ends_are_final),
        TEST(test_the_golden_journal_folds_and_tells_what_is_next_at_each_event),
        TEST(test_every_prefix_of_the_golden_journal_folds_to_the_same_as_step_by_step),
        TEST(test_a_lost_attempt_comes_before_everything_even_a_cancel),
        TEST(test_a_call_in_flight_is_recovered_before_a_cancel),
        TEST(test_calls_that_can_run_come_before_waiting_for_the_others),
        TEST(test_a_denied_approval_leaves_the_end_of_the_call_to_its_own_event),
        TEST(test_a_repeated_call_counts_once_and_rises_by_attempt),
        TEST(test_failed_attempts_in_a_row_are_counted_until_one_answers),
        TEST(test_a_failed_run_keeps_its_error),
        TEST(test_numbers_must_rise_by_exactly_one),
        TEST(test_nothing_but_a_start_begins_a_run_and_only_once),
        TEST(test_nothing_follows_the_end),
        TEST(test_a_run_does_not_end_with_anything_in_flight),
        TEST(test_a_completed_run_names_its_answer),
        TEST(test_the_epoch_does_not_go_back),
        TEST(test_reservations_are_made_once_settled_once_and_are_costs),
        TEST(test_a_tool_call_has_one_open_reservation_at_most),
        TEST(test_many_reservations_are_kept),
        TEST(test_one_model_attempt_is_in_flight_at_most_and_attempts_rise),
        TEST(test_an_answer_with_broken_calls_changes_nothing),
        TEST(test_no_model_call_before_the_tools_are_done),
        TEST(test_a_tool_call_moves_only_forward),
        TEST(test_approvals_are_asked_for_once_and_decided_by_someone),
        TEST(test_a_cost_reads_back_and_null_is_unlimited),
        TEST(test_the_call_of_an_agent_waits_for_its_run),
        TEST(test_the_answer_of_a_handoff_is_the_runs),
        TEST(test_a_handoff_that_failed_leaves_the_run_to_its_model),
        TEST(test_a_run_starts_a_bounded_number_of_runs),
        TEST(test_a_run_that_ended_makes_room_for_another_and_is_not_begun_again),
        TEST(test_a_run_that_waits_has_nothing_reserved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
