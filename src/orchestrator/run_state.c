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
    for (size_t i = 0; i < state->nested_count; i++)
        if (uuid_equal(state->nested[i]->id, id))
            return state->nested[i];
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
    uuid answer_id;
    if (state->model_in_flight)
        return broken(r, "the run ends with a model call in flight");
    for (size_t i = 0; i < state->call_count; i++)
        if (state->calls[i].state == CALL_INTENDED)
            return broken(r, "the run ends with a tool call in flight");
    if (state->reservation_count > 0)
        return broken(r, "the run ends with an open reservation");
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
    struct open_reservation reservation = {0};
    if (!read_id(r, "reservation_id", &reservation.id))
        return false;
    if (run_state_reservation(state, reservation.id))
        return broken(r, "the reservation exists already");
    if (!read_cost(r, "amount", &reservation.amount))
        return false;
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
    r->state->model_in_flight = false;
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

static bool apply_tool_intended(const struct reader *r)
{
    struct call *call = NULL;
    if (json_get(r->event->data, S("parent_id")))
        return apply_nested_intended(r);
    if (!read_call(r, &call))
        return false;
    int64_t attempt = json_i64_or(r->event->data, S("attempt"), 1);
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
    uuid approval_id;
    if (!read_call(r, &call) || !read_id(r, "approval_id", &approval_id))
        return false;
    if (call->state != CALL_REQUESTED)
        return broken(r, "the tool call is past its decision");
    call->approval_id = approval_id;
    call->state = CALL_AWAITING;
    r->state->approvals_asked++;
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
    case EVENT_TOOL_REQUESTED: return apply_tool_requested(r);
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
    struct call *call = find_nested_intended(state); /* before the call that made it */
    if (!call)
        call = find_call(state, CALL_INTENDED);
    if (call)
        return (struct run_command){.kind = RUN_DO_RECOVER_CALL, .call = call};
    if (state->is_cancelling)
        return (struct run_command){.kind = RUN_DO_CANCEL};
    if (find_call(state, CALL_REQUESTED) || find_call(state, CALL_APPROVED))
        return (struct run_command){.kind = RUN_DO_CALLS};
    if (find_call(state, CALL_AWAITING) || find_call(state, CALL_CLIENT))
        return (struct run_command){.kind = RUN_DO_WAIT};
    if (state->step > 0 && state->step_is_final)
        return (struct run_command){.kind = RUN_DO_COMPLETE};
    return (struct run_command){.kind = RUN_DO_MODEL};
}
