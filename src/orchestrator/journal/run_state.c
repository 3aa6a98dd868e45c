#include "orchestrator/journal/run_state.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/journal/child_table.h"
#include "orchestrator/journal/workflow_state.h"

void run_state_init(struct run_state *state, struct arena *arena)
{
    *state = (struct run_state){.arena = arena};
}

struct call *run_state_call(const struct run_state *state, uuid id)
{
    for (size_t i = 0; i < state->call_count; i++)
        if (uuid_equal(state->calls[i].id, id))
            return &state->calls[i];
    for (size_t i = 0; i < state->nested_count; i++)
        if (uuid_equal(state->nested[i]->id, id))
            return state->nested[i];
    return state->workflow ? workflow_state_call(state->workflow, id) : NULL;
}

struct open_reservation *run_state_reservation(const struct run_state *state, uuid id)
{
    for (size_t i = 0; i < state->reservation_count; i++)
        if (uuid_equal(state->reservations[i].id, id))
            return &state->reservations[i];
    return NULL;
}

int64_t run_state_votes(const struct run_state *state, uuid approval_id)
{
    for (size_t i = 0; i < state->tally_count; i++)
        if (uuid_equal(state->tallies[i].approval_id, approval_id))
            return state->tallies[i].count;
    return 0;
}

/* ---- reading an event's members ---- */

/* What the fold needs of an event beside its type: where it is for a message, and the reading of members. */
struct reader {
    struct run_state *state;
    const struct event *event;
    struct error *e;
};

static bool broken(const struct reader *r, const char *what)
{
    return error_set(r->e, REASON_CORRUPT, "journal event %lld (%s): %s", (long long) r->event->seq,
                     event_type_name(r->event->type), what);
}

static bool read_id(const struct reader *r, const char *member, uuid *out)
{
    str text = json_str_or(r->event->data, str_from_cstr(member), STR_NONE);
    return uuid_parse(text, out) || broken(r, "an id is missing or malformed");
}

static bool read_cost(const struct reader *r, const char *member, cost *out)
{
    cost read;
    if (!cost_read_json(json_get(r->event->data, str_from_cstr(member)), &read) ||
        !cost_fits((cost){0}, read))
        return broken(r, "its amount is no cost");
    *out = read;
    return true;
}

static str read_text(const struct reader *r, const char *member)
{
    return str_copy(r->state->arena, json_str_or(r->event->data, str_from_cstr(member), STR_NONE));
}

/* A member that is kept as the JSON it is; empty when it is not there. */
static str print_member(const struct reader *r, const char *member)
{
    const struct json *value = json_get(r->event->data, str_from_cstr(member));
    return value ? json_print(r->state->arena, value) : STR_NONE;
}

static bool read_call(const struct reader *r, struct call **out)
{
    uuid id;
    if (!read_id(r, "tool_call_id", &id))
        return false;
    *out = run_state_call(r->state, id);
    return *out != NULL ||
           broken(r, "it names a tool call that the last model answer did not ask for");
}

/*
 * ---- one function per type that changes the state ----
 * Each checks everything first and then changes: a refused event leaves no trace.
 */

static bool apply_run_started(const struct reader *r)
{
    struct run_state *state = r->state;
    if (state->status != RUN_PENDING)
        return broken(r, "the run has already started");
    if (!read_id(r, "message_id", &state->question_id))
        return false;
    state->status = RUN_RUNNING;
    state->agent = read_text(r, "agent");
    state->model = read_text(r, "model");
    state->user_id = read_text(r, "user_id");
    state->client_tools = print_member(r, "client_tools");
    state->response_format = print_member(r, "response_format");
    state->max_output_tokens = json_i64_or(r->event->data, S("max_output_tokens"), 0);
    state->epoch = json_i64_or(r->event->data, S("epoch"), 0);
    state->node = read_text(r, "node");
    const struct json *workflow = json_get(r->event->data, S("workflow"));
    if (workflow)
        state->workflow = workflow_state_create(state->arena, workflow);
    return true;
}

static bool apply_run_resumed(const struct reader *r)
{
    int64_t epoch = json_i64_or(r->event->data, S("epoch"), 0);
    if (epoch < r->state->epoch)
        return broken(r, "the writer's epoch goes back");
    r->state->epoch = epoch;
    r->state->node = read_text(r, "node");
    r->state->status = RUN_RUNNING;
    r->state->is_pausing = false;
    return true;
}

static bool apply_run_waiting(const struct reader *r)
{
    if (r->state->reservation_count > 0)
        return broken(r, "the run waits with an open reservation");
    r->state->status = RUN_WAITING;
    return true;
}

/* Another run goes on from here: what was spent, asked for and cancelled is not its own.  A new question makes the answer before it
   a part of the conversation. */
static bool apply_run_forked(const struct reader *r)
{
    struct run_state *state = r->state;
    uuid question_id;
    if (state->model_in_flight || state->reservation_count > 0)
        return broken(r, "something was in flight");
    if (json_get(r->event->data, S("message_id"))) {
        if (!read_id(r, "message_id", &question_id))
            return false;
        state->question_id = question_id;
        state->step_is_final = false;
        state->call_count = state->nested_count = 0;
    }
    state->status = RUN_RUNNING;
    state->spent = (cost){0};
    state->is_cancelling = false;
    state->epoch = json_i64_or(r->event->data, S("epoch"), 0);
    if (json_get(r->event->data, S("node")))
        state->node = read_text(r, "node");
    if (json_get(r->event->data, S("model")))
        state->model = read_text(r, "model");
    if (json_get(r->event->data, S("user_id")))
        state->user_id = read_text(r, "user_id");
    return true;
}

static bool apply_run_final(const struct reader *r)
{
    struct run_state *state = r->state;
    uuid answer_id;
    if (state->model_in_flight)
        return broken(r, "the run ends with a model call in flight");
    for (size_t i = 0; i < state->call_count; i++)
        if (state->calls[i].state == CALL_INTENDED)
            return broken(r, "the run ends with a tool call in flight");
    if (state->reservation_count > 0)
        return broken(r, "the run ends with an open reservation");
    if (run_state_live_children(state) > 0)
        return broken(r, "the run ends with a child run alive");
    if (state->workflow && state->workflow->open_count > 0)
        return broken(r, "the instance ends with a step open");
    if (r->event->type == EVENT_RUN_COMPLETED) {
        if (!read_id(r, "message_id", &answer_id))
            return false;
        state->answer_id = answer_id;
        state->status = RUN_COMPLETED;
        return true;
    }
    state->status = r->event->type == EVENT_RUN_FAILED ? RUN_FAILED : RUN_CANCELLED;
    state->error = read_text(r, "error");
    state->error_message = read_text(r, "message");
    return true;
}

static bool apply_budget_reserved(const struct reader *r)
{
    struct run_state *state = r->state;
    struct open_reservation reservation = {.at_us = r->event->at_us};
    if (!read_id(r, "reservation_id", &reservation.id))
        return false;
    if (run_state_reservation(state, reservation.id))
        return broken(r, "the reservation exists already");
    if (!read_cost(r, "amount", &reservation.amount))
        return false;
    str shares = json_str_or(r->event->data, S("shares"), STR_NONE);
    if (!str_is_empty(shares))
        reservation.shares = str_copy(state->arena, shares);
    str purpose = json_str_or(r->event->data, S("for"), STR_NONE);
    reservation.is_model = str_equal(purpose, S("model"));
    bool is_guests = str_equal(purpose, S("guest")); /* its call begins with its intent */
    if (!reservation.is_model && !is_guests) {
        struct call *call = NULL;
        if (!read_call(r, &call))
            return false;
        if (run_state_reservation(state, call->reservation_id))
            return broken(r, "the tool call has an open reservation");
        call->reservation_id = reservation.id;
        reservation.tool_call_id = call->id;
    }
    if (state->reservation_count == state->reservation_capacity) {
        size_t capacity = state->reservation_capacity ? state->reservation_capacity * 2 : 4;
        state->reservations = arena_grow(state->arena, state->reservations,
                                         state->reservation_capacity * sizeof reservation,
                                         capacity * sizeof reservation);
        state->reservation_capacity = capacity;
    }
    state->reservations[state->reservation_count++] = reservation;
    return true;
}

static bool apply_budget_settled(const struct reader *r)
{
    struct run_state *state = r->state;
    uuid id;
    cost used;
    if (!read_id(r, "reservation_id", &id))
        return false;
    struct open_reservation *reservation = run_state_reservation(state, id);
    if (!reservation)
        return broken(r, "the reservation is unknown or already settled");
    if (!read_cost(r, "amount", &used))
        return false;
    *reservation = state->reservations[--state->reservation_count];
    state->spent = cost_add(state->spent, used);
    return true;
}

static bool apply_degraded(const struct reader *r)
{
    struct run_state *state = r->state;
    const struct json *data = r->event->data;
    int64_t step = json_i64_or(data, S("step"), -1);
    if (step < 0 || step >= DEGRADE_STEPS_MAX || (state->degraded_steps & 1u << step) ||
        state->model_in_flight)
        return broken(r, "its step is none, was taken before, or comes during a model call");
    if (json_get(data, S("message_id"))) { /* an earlier answer is this run's */
        if (!read_id(r, "message_id", &state->answer_id))
            return false;
        state->has_earlier_answer = state->step_is_final = true;
        state->finish = str_copy(state->arena, S("stop"));
    }
    if (json_get(data, S("model")))
        state->model = read_text(r, "model");
    if (str_equal(json_str_or(data, S("use"), STR_NONE), S("tools")))
        state->is_toolless = true;
    state->degraded_steps |= 1u << step;
    state->degraded = str_printf(state->arena, STR_FMT "%s" STR_FMT, STR_ARG(state->degraded),
                                 str_is_empty(state->degraded) ? "" : "; ",
                                 STR_ARG(json_str_or(data, S("what"), STR_NONE)));
    return true;
}

static bool apply_wind_down(const struct reader *r)
{
    r->state->is_winding_down = true;
    r->state->wind_down_why = read_text(r, "why");
    return true;
}

static bool apply_looping(const struct reader *r)
{
    uuid message_id;
    if (!str_equal(json_str_or(r->event->data, S("action"), STR_NONE), S("stopped")))
        return true;
    if (!read_id(r, "message_id", &message_id))
        return false;
    r->state->answer_id = message_id;
    r->state->loop_stopped = read_text(r, "what");
    r->state->finish = S("stop");
    return true;
}

static struct call *find_nested_intended(const struct run_state *state)
{
    for (size_t i = 0; i < state->nested_count; i++)
        if (state->nested[i]->state == CALL_INTENDED)
            return state->nested[i];
    return NULL;
}

static bool has_open_call(const struct run_state *state)
{
    for (size_t i = 0; i < state->call_count; i++)
        if (state->calls[i].state != CALL_DONE)
            return true;
    return find_nested_intended(state) != NULL;
}

static bool apply_model_requested(const struct reader *r)
{
    struct run_state *state = r->state;
    int64_t attempt = json_i64_or(r->event->data, S("attempt"), 0);
    uuid reservation_id;
    if (state->model_in_flight)
        return broken(r, "another model call is in flight");
    if (has_open_call(state))
        return broken(r, "a tool call of the last answer is not done");
    if (attempt <= state->attempt || attempt > INT32_MAX)
        return broken(r, "the attempt does not rise");
    if (!read_id(r, "reservation_id", &reservation_id))
        return false;
    if (!run_state_reservation(state, reservation_id))
        return broken(r, "its reservation is not open");
    state->model_reservation_id = reservation_id;
    state->attempt = (int) attempt;
    state->model_in_flight = true;
    return true;
}

static bool attempt_is_in_flight(const struct reader *r)
{
    return r->state->model_in_flight &&
           json_i64_or(r->event->data, S("attempt"), 0) == r->state->attempt;
}

static bool read_asked_call(const struct reader *r, const struct json *item, struct call *calls,
                            size_t count)
{
    struct call *call = &calls[count];
    if (!uuid_parse(json_str_or(item, S("tool_call_id"), STR_NONE), &call->id))
        return broken(r, "a tool call has no id");
    for (size_t i = 0; i < count; i++)
        if (uuid_equal(calls[i].id, call->id))
            return broken(r, "two tool calls have the same id");
    call->call_id = str_copy(r->state->arena, json_str_or(item, S("call_id"), STR_NONE));
    call->name = str_copy(r->state->arena, json_str_or(item, S("name"), STR_NONE));
    call->state = CALL_REQUESTED;
    return true;
}

static bool read_calls(const struct reader *r, struct call **out, size_t *count)
{
    const struct json *list = json_get(r->event->data, S("tool_calls"));
    if (json_count(list) > RUN_TOOL_CALLS_PARALLEL_MAX)
        return broken(r, "it asks for too many tool calls");
    struct call *calls = ARENA_ARRAY(r->state->arena, struct call, json_count(list));
    struct json_iter it = json_iter(list);
    const struct json *item;
    size_t read = 0;
    while (json_next(&it, NULL, &item))
        if (!read_asked_call(r, item, calls, read++))
            return false;
    *out = calls;
    *count = read;
    return true;
}

/* A model call that is no step of the run: for a summary. */
static bool is_aside(const struct reader *r)
{
    return json_get(r->event->data, S("purpose")) != NULL;
}

static bool apply_model_completed(const struct reader *r)
{
    struct run_state *state = r->state;
    uuid answer_id;
    struct call *calls;
    size_t call_count;
    if (!attempt_is_in_flight(r))
        return broken(r, "no such attempt is in flight");
    if (!read_id(r, "message_id", &answer_id) || !read_calls(r, &calls, &call_count))
        return false;
    if (is_aside(r)) {
        state->model_in_flight = false;
        return true;
    }
    state->answer_id = answer_id;
    state->calls = calls;
    state->call_count = call_count;
    state->nested_count = 0;
    state->model_in_flight = false;
    state->failed_in_a_row = 0;
    state->step++;
    state->step_is_final = call_count == 0;
    state->finish = read_text(r, "finish");
    return true;
}

static bool apply_model_failed(const struct reader *r)
{
    if (!attempt_is_in_flight(r))
        return broken(r, "no such attempt is in flight");
    bool is_interrupted =
        str_equal(json_str_or(r->event->data, S("error"), STR_NONE), S("interrupted"));
    r->state->model_in_flight = false;
    if (!is_aside(r) && !is_interrupted) /* that is not the provider's failure */
        r->state->failed_in_a_row++;
    return true;
}

static bool apply_tool_requested(const struct reader *r)
{
    struct call *call = NULL;
    if (!read_call(r, &call))
        return false;
    if (call->state != CALL_REQUESTED)
        return broken(r, "the tool call is past its decision");
    call->state = CALL_CLIENT;
    r->state->tool_calls_total++;
    return true;
}

static void add_nested(struct run_state *state, struct call *call)
{
    if (state->nested_count == state->nested_capacity) {
        size_t capacity = state->nested_capacity ? state->nested_capacity * 2 : 8;
        state->nested =
            arena_grow(state->arena, state->nested, state->nested_capacity * sizeof *state->nested,
                       capacity * sizeof *state->nested);
        state->nested_capacity = capacity;
    }
    state->nested[state->nested_count++] = call;
}

/* Steps of a workflow end at different times: the calls that one's guest made go with it. */
static void forget_nested(struct run_state *state, const struct call *parent)
{
    size_t kept = 0;
    for (size_t i = 0; i < state->nested_count; i++)
        if (state->nested[i]->parent != parent)
            state->nested[kept++] = state->nested[i];
    state->nested_count = kept;
}

/* A guest makes a call: its first event is its intent. */
static bool apply_nested_intended(const struct reader *r)
{
    struct run_state *state = r->state;
    uuid id, parent_id, reservation_id;
    if (!read_id(r, "tool_call_id", &id) || !read_id(r, "parent_id", &parent_id) ||
        !read_id(r, "reservation_id", &reservation_id))
        return false;
    struct open_reservation *reservation = run_state_reservation(state, reservation_id);
    if (!reservation || reservation->is_model || !uuid_is_none(reservation->tool_call_id))
        return broken(r, "it has no reservation of its own");
    struct call *parent = run_state_call(state, parent_id);
    if (!parent || parent->state != CALL_INTENDED || parent->parent)
        return broken(r, "the call that makes it is not running");
    if (run_state_call(state, id))
        return broken(r, "there is a tool call of this id");
    if (state->nested_count >= RUN_NESTED_CALLS_MAX)
        return broken(r, "too many calls were made by guests");
    struct call *call = ARENA_NEW(state->arena, struct call);
    *call = (struct call){.id = id,
                          .name = read_text(r, "name"),
                          .state = CALL_INTENDED,
                          .attempts = 1,
                          .effect_key = read_text(r, "effect_key"),
                          .reservation_id = reservation_id,
                          .parent = parent};
    reservation->tool_call_id = id;
    if (json_bool_or(r->event->data, S("has_effect"), true))
        parent->has_nested_effects = true;
    add_nested(state, call);
    state->tool_calls_total++;
    return true;
}

/* ---- children ---- */

static bool apply_child_started(const struct reader *r)
{
    struct run_state *state = r->state;
    struct child child = {0};
    if (!read_id(r, "child_run_id", &child.run_id))
        return false;
    if (json_get(r->event->data, S("tool_call_id")) &&
        !read_id(r, "tool_call_id", &child.tool_call_id))
        return false;
    if (uuid_is_none(child.run_id) || child_table_knows(state, child.run_id))
        return broken(r, "there is a child run of this id");
    if (state->child_count >= RUN_CHILDREN_LIVE_MAX || state->children_begun >= RUN_CHILDREN_MAX)
        return broken(r, "the run has too many child runs");
    child_table_add(state, child);
    return true;
}

static bool apply_child_completed(const struct reader *r)
{
    uuid id;
    if (!read_id(r, "child_run_id", &id))
        return false;
    struct child *child = run_state_child(r->state, id);
    if (!child)
        return broken(r, "no such child run is alive");
    if (r->state->workflow && !workflow_state_apply(r->state->workflow, r->event, r->e))
        return false;
    child_table_remove(r->state, child);
    return true;
}

/* ---- steps of a workflow ---- */

static bool apply_step(const struct reader *r)
{
    if (!r->state->workflow)
        return broken(r, "the run is no workflow's");
    return workflow_state_apply(r->state->workflow, r->event, r->e);
}

/* A step of a workflow asks for an approval or has got it: the step's own events tell the rest. */
static bool is_of_step(const struct reader *r)
{
    return r->state->workflow && json_get(r->event->data, S("step"));
}

/* The call is an agent's: it is done when its run has ended, whatever becomes of this process. */
static bool apply_agent_intended(const struct reader *r, struct call *call)
{
    uuid child_run_id;
    if (!read_id(r, "child_run_id", &child_run_id))
        return false;
    struct child *child = run_state_child(r->state, child_run_id);
    if (!child || !uuid_equal(child->tool_call_id, call->id))
        return broken(r, "its run was not begun");
    if (call->state != CALL_REQUESTED && call->state != CALL_APPROVED)
        return broken(r, "the agent was already called");
    call->child_run_id = child_run_id;
    call->is_handoff = json_bool_or(r->event->data, S("handoff"), false);
    call->state = CALL_CHILD;
    call->attempts = 1;
    r->state->tool_calls_total++;
    return true;
}

static bool apply_tool_intended(const struct reader *r)
{
    struct call *call = NULL;
    if (json_get(r->event->data, S("parent_id")))
        return apply_nested_intended(r);
    if (!read_call(r, &call))
        return false;
    if (json_get(r->event->data, S("child_run_id")))
        return apply_agent_intended(r, call);
    int64_t attempt = json_i64_or(r->event->data, S("attempt"), 1);
    if (call->state == CALL_CHILD)
        return broken(r, "the tool call is another agent's");
    if (call->state == CALL_DONE)
        return broken(r, "the tool call is already done");
    if (call->state == CALL_AWAITING)
        return broken(r, "the tool call waits for its approval");
    if (call->state == CALL_CLIENT)
        return broken(r, "the tool call is the client's");
    if (attempt <= call->attempts || attempt > INT32_MAX)
        return broken(r, "the tool call was already intended at this attempt");
    if (call->attempts == 0)
        r->state->tool_calls_total++;
    call->attempts = (int) attempt;
    call->state = CALL_INTENDED;
    call->effect_key = read_text(r, "effect_key");
    return true;
}

/* The other agent's answer is the run's: nothing is asked of the model any more. */
static bool apply_handoff_answer(const struct reader *r)
{
    uuid answer_id;
    if (!read_id(r, "message_id", &answer_id))
        return false;
    r->state->answer_id = answer_id;
    r->state->step_is_final = true;
    r->state->finish = str_copy(r->state->arena, S("stop"));
    return true;
}

static bool apply_tool_completed(const struct reader *r)
{
    struct call *call = NULL;
    if (!read_call(r, &call))
        return false;
    if (call->state == CALL_DONE)
        return broken(r, "the tool call is already done");
    if (run_state_child(r->state, call->child_run_id))
        return broken(r, "the agent's run is alive");
    if (call->is_handoff && json_get(r->event->data, S("message_id")) && !apply_handoff_answer(r))
        return false;
    call->state = CALL_DONE;
    call->status = read_text(r, "status");
    if (r->state->workflow && !call->parent)
        forget_nested(r->state, call);
    return true;
}

static bool apply_approval_requested(const struct reader *r)
{
    struct call *call = NULL;
    uuid approval_id;
    if (is_of_step(r)) {
        r->state->approvals_asked++;
        return true;
    }
    if (!read_call(r, &call) || !read_id(r, "approval_id", &approval_id))
        return false;
    if (call->state != CALL_REQUESTED)
        return broken(r, "the tool call is past its decision");
    call->approval_id = approval_id;
    call->digest = read_text(r, "digest");
    call->state = CALL_AWAITING;
    r->state->approvals_asked++;
    return true;
}

static bool apply_approval_voted(const struct reader *r)
{
    struct run_state *state = r->state;
    size_t i = 0;
    uuid id;
    if (!read_id(r, "approval_id", &id))
        return false;
    if (json_i64_or(r->event->data, S("number"), 0) != run_state_votes(state, id) + 1)
        return broken(r, "its vote's number does not follow the one before");
    while (i < state->tally_count && !uuid_equal(state->tallies[i].approval_id, id))
        i++;
    if (i == state->tally_capacity) {
        size_t capacity = i ? i * 2 : 4;
        state->tallies = arena_grow(state->arena, state->tallies, i * sizeof *state->tallies,
                                    capacity * sizeof *state->tallies);
        state->tally_capacity = capacity;
    }
    if (i == state->tally_count)
        state->tallies[state->tally_count++] = (struct vote_tally){.approval_id = id};
    state->tallies[i].count++;
    return true;
}

static bool apply_approval_decided(const struct reader *r)
{
    struct call *call = NULL;
    uuid approval_id;
    if (is_of_step(r))
        return true;
    if (!read_call(r, &call) || !read_id(r, "approval_id", &approval_id))
        return false;
    if (call->state != CALL_AWAITING || !uuid_equal(approval_id, call->approval_id))
        return broken(r, "no such approval is awaited");
    if (!str_equal(json_str_or(r->event->data, S("decision"), STR_NONE), S("approved")))
        return true; /* the tool.completed of the same batch ends the call */
    str approver = read_text(r, "approver");
    if (str_is_empty(approver))
        return broken(r, "an approval without an approver");
    call->state = CALL_APPROVED;
    call->approver = approver;
    return true;
}

static bool apply_by_type(const struct reader *r)
{
    switch (r->event->type) {
    case EVENT_RUN_STARTED: return apply_run_started(r);
    case EVENT_RUN_RESUMED: return apply_run_resumed(r);
    case EVENT_RUN_FORKED: return apply_run_forked(r);
    case EVENT_RUN_WAITING: return apply_run_waiting(r);
    case EVENT_RUN_CANCELLING:
        r->state->is_cancelling = true;
        r->state->cancelled_by = read_text(r, "by");
        return true;
    case EVENT_RUN_COMPLETED:
    case EVENT_RUN_FAILED:
    case EVENT_RUN_CANCELLED: return apply_run_final(r);
    case EVENT_BUDGET_RESERVED: return apply_budget_reserved(r);
    case EVENT_BUDGET_SETTLED: return apply_budget_settled(r);
    case EVENT_BUDGET_WIND_DOWN: return apply_wind_down(r);
    case EVENT_RUN_DEGRADED: return apply_degraded(r);
    case EVENT_RUN_LOOPING: return apply_looping(r);
    case EVENT_MODEL_REQUESTED: return apply_model_requested(r);
    case EVENT_MODEL_COMPLETED: return apply_model_completed(r);
    case EVENT_MODEL_FAILED: return apply_model_failed(r);
    case EVENT_TOOL_REQUESTED: return apply_tool_requested(r);
    case EVENT_TOOL_INTENDED: return apply_tool_intended(r);
    case EVENT_TOOL_COMPLETED: return apply_tool_completed(r);
    case EVENT_APPROVAL_REQUESTED: return apply_approval_requested(r);
    case EVENT_APPROVAL_DECIDED: return apply_approval_decided(r);
    case EVENT_APPROVAL_VOTED: return apply_approval_voted(r);
    case EVENT_RUN_CHILD_STARTED: return apply_child_started(r);
    case EVENT_RUN_CHILD_COMPLETED: return apply_child_completed(r);
    case EVENT_RUN_STEP_STARTED:
    case EVENT_RUN_STEP_COMPLETED:
    case EVENT_RUN_STEP_FAILED:
    case EVENT_RUN_COMPENSATING:
    case EVENT_RUN_SIGNALLED: return apply_step(r);
    case EVENT_RUN_PAUSING:
        r->state->is_pausing = json_bool_or(r->event->data, S("is_paused"), false);
        return true;
    case EVENT_MESSAGE_SUMMARISED:
    case EVENT_BUDGET_ALERTED:
    case EVENT_MESSAGE_ADDED:
    case EVENT_POLICY_DECIDED:
    case EVENT_BUDGET_REFUSED:
    case EVENT_MODEL_DELTA: return true;
    case EVENT_TYPE_COUNT: break;
    }
    return broken(r, "unknown type");
}

bool run_state_apply(struct run_state *state, const struct event *event, struct error *e)
{
    struct reader r = {state, event, e};
    if (event->seq != state->last_seq + 1)
        return broken(&r, "its number does not follow the one before");
    if (run_status_is_final(state->status))
        return broken(&r, "it stands after the run's end");
    if (state->status == RUN_PENDING && event->type != EVENT_RUN_STARTED)
        return broken(&r, "the run has not started");
    if (!apply_by_type(&r))
        return false;
    state->last_seq = event->seq;
    return true;
}

static struct call *find_call(const struct run_state *state, enum call_state wanted)
{
    for (size_t i = 0; i < state->call_count; i++)
        if (state->calls[i].state == wanted)
            return &state->calls[i];
    return NULL;
}

struct run_command run_state_next(const struct run_state *state)
{
    if (run_status_is_final(state->status) || state->status == RUN_PENDING)
        return (struct run_command){.kind = RUN_DO_NOTHING};
    if (state->workflow)
        return (struct run_command){.kind = RUN_DO_WORKFLOW};
    if (state->model_in_flight)
        return (struct run_command){.kind = RUN_DO_LOSE_ATTEMPT};
    struct call *call = find_nested_intended(state); /* before the call that made it */
    if (!call)
        call = find_call(state, CALL_INTENDED);
    if (call)
        return (struct run_command){.kind = RUN_DO_RECOVER_CALL, .call = call};
    if (state->is_cancelling)
        return (struct run_command){.kind = RUN_DO_CANCEL};
    if (find_call(state, CALL_REQUESTED) || find_call(state, CALL_APPROVED))
        return (struct run_command){.kind = RUN_DO_CALLS};
    if (find_call(state, CALL_AWAITING) || find_call(state, CALL_CLIENT) ||
        find_call(state, CALL_CHILD))
        return (struct run_command){.kind = RUN_DO_WAIT};
    if ((state->step > 0 && state->step_is_final) || state->has_earlier_answer ||
        !str_is_empty(state->loop_stopped))
        return (struct run_command){.kind = RUN_DO_COMPLETE};
    return (struct run_command){.kind = RUN_DO_MODEL};
}
