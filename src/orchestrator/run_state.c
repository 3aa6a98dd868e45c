#include "orchestrator/run_state.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

static const char *const status_names[] = {
    [RUN_PENDING] = "pending",     [RUN_RUNNING] = "running", [RUN_WAITING] = "waiting",
    [RUN_COMPLETED] = "completed", [RUN_FAILED] = "failed",   [RUN_CANCELLED] = "cancelled",
};

const char *run_status_name(enum run_status status)
{
    return status_names[status];
}

bool run_status_parse(str text, enum run_status *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(status_names); i++) {
        if (!str_equal(text, str_from_cstr(status_names[i])))
            continue;
        *out = (enum run_status) i;
        return true;
    }
    return false;
}

bool run_status_is_final(enum run_status status)
{
    return status == RUN_COMPLETED || status == RUN_FAILED || status == RUN_CANCELLED;
}

void run_state_init(struct run_state *state, struct arena *arena)
{
    *state = (struct run_state){.arena = arena};
}

struct call *run_state_call(const struct run_state *state, uuid id)
{
    for (size_t i = 0; i < state->call_count; i++)
        if (uuid_equal(state->calls[i].id, id))
            return &state->calls[i];
    return NULL;
}

struct open_reservation *run_state_reservation(const struct run_state *state, uuid id)
{
    for (size_t i = 0; i < state->reservation_count; i++)
        if (uuid_equal(state->reservations[i].id, id))
            return &state->reservations[i];
    return NULL;
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

static str read_text(const struct reader *r, const char *member)
{
    return str_copy(r->state->arena, json_str_or(r->event->data, str_from_cstr(member), STR_NONE));
}

static bool read_call(const struct reader *r, struct call **out)
{
    uuid id;
    if (!read_id(r, "tool_call_id", &id))
        return false;
    *out = run_state_call(r->state, id);
    return *out != NULL || broken(r, "it names a tool call that the last model answer did not ask for");
}

/* ---- one function per type that changes the state ---- */

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
    state->epoch = json_i64_or(r->event->data, S("epoch"), 0);
    return true;
}

static bool apply_run_resumed(const struct reader *r)
{
    int64_t epoch = json_i64_or(r->event->data, S("epoch"), 0);
    if (epoch < r->state->epoch)
        return broken(r, "the writer's epoch goes back");
    r->state->epoch = epoch;
    r->state->status = RUN_RUNNING;
    return true;
}

static bool apply_run_final(const struct reader *r)
{
    struct run_state *state = r->state;
    if (state->model_in_flight)
        return broken(r, "the run ends with a model call in flight");
    for (size_t i = 0; i < state->call_count; i++)
        if (state->calls[i].state == CALL_INTENDED)
            return broken(r, "the run ends with a tool call in flight");
    if (state->reservation_count > 0)
        return broken(r, "the run ends with an open reservation");
    if (r->event->type == EVENT_RUN_COMPLETED) {
        state->status = RUN_COMPLETED;
        return read_id(r, "message_id", &state->answer_id);
    }
    state->status = r->event->type == EVENT_RUN_FAILED ? RUN_FAILED : RUN_CANCELLED;
    state->error = read_text(r, "error");
    state->error_message = read_text(r, "message");
    return true;
}

static bool apply_budget_reserved(const struct reader *r)
{
    struct run_state *state = r->state;
    struct open_reservation reservation = {0};
    if (!read_id(r, "reservation_id", &reservation.id))
        return false;
    if (run_state_reservation(state, reservation.id))
        return broken(r, "the reservation exists already");
    if (!cost_read_json(json_get(r->event->data, S("amount")), &reservation.amount))
        return broken(r, "its amount is no cost");
    reservation.is_model = str_equal(json_str_or(r->event->data, S("for"), STR_NONE), S("model"));
    if (!reservation.is_model) {
        struct call *call = NULL;
        if (!read_call(r, &call))
            return false;
        call->reservation_id = reservation.id;
        reservation.tool_call_id = call->id;
    }
    if (state->reservation_count == state->reservation_capacity) {
        size_t capacity = state->reservation_capacity ? state->reservation_capacity * 2 : 4;
        state->reservations =
            arena_grow(state->arena, state->reservations, state->reservation_capacity * sizeof reservation,
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
    if (!cost_read_json(json_get(r->event->data, S("amount")), &used))
        return broken(r, "its amount is no cost");
    *reservation = state->reservations[--state->reservation_count];
    state->spent = cost_add(state->spent, used);
    return true;
}

static bool apply_model_requested(const struct reader *r)
{
    struct run_state *state = r->state;
    int64_t attempt = json_i64_or(r->event->data, S("attempt"), 0);
    if (state->model_in_flight)
        return broken(r, "another model call is in flight");
    if (attempt <= state->attempt)
        return broken(r, "the attempt does not rise");
    if (!read_id(r, "reservation_id", &state->model_reservation_id))
        return false;
    if (!run_state_reservation(state, state->model_reservation_id))
        return broken(r, "its reservation is not open");
    state->attempt = (int) attempt;
    state->model_in_flight = true;
    return true;
}

static bool attempt_is_in_flight(const struct reader *r)
{
    return r->state->model_in_flight && json_i64_or(r->event->data, S("attempt"), 0) == r->state->attempt;
}

static bool read_calls(const struct reader *r)
{
    struct run_state *state = r->state;
    const struct json *list = json_get(r->event->data, S("tool_calls"));
    size_t count = json_count(list);
    state->calls = ARENA_ARRAY(state->arena, struct call, count);
    state->call_count = 0;
    struct json_iter it = json_iter(list);
    const struct json *item;
    while (json_next(&it, NULL, &item)) {
        struct call *call = &state->calls[state->call_count];
        if (!uuid_parse(json_str_or(item, S("tool_call_id"), STR_NONE), &call->id))
            return broken(r, "a tool call has no id");
        call->call_id = str_copy(state->arena, json_str_or(item, S("call_id"), STR_NONE));
        call->name = str_copy(state->arena, json_str_or(item, S("name"), STR_NONE));
        call->state = CALL_REQUESTED;
        state->call_count++;
    }
    return true;
}

static bool apply_model_completed(const struct reader *r)
{
    struct run_state *state = r->state;
    if (!attempt_is_in_flight(r))
        return broken(r, "no such attempt is in flight");
    if (!read_id(r, "message_id", &state->answer_id) || !read_calls(r))
        return false;
    state->model_in_flight = false;
    state->failed_in_a_row = 0;
    state->step++;
    state->step_is_final = state->call_count == 0;
    state->finish = read_text(r, "finish");
    return true;
}

static bool apply_model_failed(const struct reader *r)
{
    if (!attempt_is_in_flight(r))
        return broken(r, "no such attempt is in flight");
    r->state->model_in_flight = false;
    r->state->failed_in_a_row++;
    return true;
}

static bool apply_tool_intended(const struct reader *r)
{
    struct call *call = NULL;
    if (!read_call(r, &call))
        return false;
    int64_t attempt = json_i64_or(r->event->data, S("attempt"), 1);
    if (call->state == CALL_DONE)
        return broken(r, "the tool call is already done");
    if (call->state == CALL_AWAITING)
        return broken(r, "the tool call waits for its approval");
    if (attempt <= call->attempts)
        return broken(r, "the tool call was already intended at this attempt");
    if (call->attempts == 0)
        r->state->tool_calls_total++;
    call->attempts = (int) attempt;
    call->state = CALL_INTENDED;
    call->effect_key = read_text(r, "effect_key");
    return true;
}

static bool apply_tool_completed(const struct reader *r)
{
    struct call *call = NULL;
    if (!read_call(r, &call))
        return false;
    if (call->state == CALL_DONE)
        return broken(r, "the tool call is already done");
    call->state = CALL_DONE;
    call->status = read_text(r, "status");
    return true;
}

static bool apply_approval_requested(const struct reader *r)
{
    struct call *call = NULL;
    if (!read_call(r, &call) || !read_id(r, "approval_id", &call->approval_id))
        return false;
    if (call->state != CALL_REQUESTED)
        return broken(r, "the tool call is past its decision");
    call->state = CALL_AWAITING;
    return true;
}

static bool apply_approval_decided(const struct reader *r)
{
    struct call *call = NULL;
    uuid approval_id;
    if (!read_call(r, &call) || !read_id(r, "approval_id", &approval_id))
        return false;
    if (call->state != CALL_AWAITING || !uuid_equal(approval_id, call->approval_id))
        return broken(r, "no such approval is awaited");
    if (!str_equal(json_str_or(r->event->data, S("decision"), STR_NONE), S("approved")))
        return true; /* the tool.completed of the same batch ends the call */
    call->state = CALL_APPROVED;
    call->approver = read_text(r, "approver");
    return !str_is_empty(call->approver) || broken(r, "an approval without an approver");
}

static bool apply_by_type(const struct reader *r)
{
    switch (r->event->type) {
    case EVENT_RUN_STARTED: return apply_run_started(r);
    case EVENT_RUN_RESUMED: return apply_run_resumed(r);
    case EVENT_RUN_WAITING: r->state->status = RUN_WAITING; return true;
    case EVENT_RUN_CANCELLING:
        r->state->is_cancelling = true;
        r->state->cancelled_by = read_text(r, "by");
        return true;
    case EVENT_RUN_COMPLETED:
    case EVENT_RUN_FAILED:
    case EVENT_RUN_CANCELLED: return apply_run_final(r);
    case EVENT_BUDGET_RESERVED: return apply_budget_reserved(r);
    case EVENT_BUDGET_SETTLED: return apply_budget_settled(r);
    case EVENT_MODEL_REQUESTED: return apply_model_requested(r);
    case EVENT_MODEL_COMPLETED: return apply_model_completed(r);
    case EVENT_MODEL_FAILED: return apply_model_failed(r);
    case EVENT_TOOL_INTENDED: return apply_tool_intended(r);
    case EVENT_TOOL_COMPLETED: return apply_tool_completed(r);
    case EVENT_APPROVAL_REQUESTED: return apply_approval_requested(r);
    case EVENT_APPROVAL_DECIDED: return apply_approval_decided(r);
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
    if (state->model_in_flight)
        return (struct run_command){.kind = RUN_DO_LOSE_ATTEMPT};
    struct call *call = find_call(state, CALL_INTENDED);
    if (call)
        return (struct run_command){.kind = RUN_DO_RECOVER_CALL, .call = call};
    if (state->is_cancelling)
        return (struct run_command){.kind = RUN_DO_CANCEL};
    if (find_call(state, CALL_REQUESTED) || find_call(state, CALL_APPROVED))
        return (struct run_command){.kind = RUN_DO_CALLS};
    if (find_call(state, CALL_AWAITING))
        return (struct run_command){.kind = RUN_DO_WAIT};
    if (state->step > 0 && state->step_is_final)
        return (struct run_command){.kind = RUN_DO_COMPLETE};
    return (struct run_command){.kind = RUN_DO_MODEL};
}
