/*
 * What an instance of a workflow hears, and when.
 *
 * Its steps are at work beside each other, so which of them ended first is chance; the journal has what came of it.  A turn of the
 * instance first journals the ends of its tool calls in the order in which they were begun, then looks at what others brought in the
 * order of its open steps, and then goes on, which depends on nothing but what is journaled.  So what was heard in one turn stands in the
 * journal as one piece in this very order, before anything that goes on:
 *
 *      ... | tool.completed B, run.step_completed B, tool.completed D ..., run.child_completed X ... | run.step_started E ...
 *           `------------------------- one piece: it is told before the next turn ------------------'
 *
 * Where the order breaks, or the time changes, the piece ends: that was heard in another turn.  (In older journals, where a turn has no
 * time of its own, two turns between which nothing went on are one as well as two.)
 * Calls at work wait until the piece has come to their end; rows of others come into the scratch store with their piece; what time brings
 * (a sleep, a retry, a timeout) needs nothing but to be woken at the time of the event.
 */
#include "base/arena.h"
#include "orchestrator/replay/run_replay_internal.h"
#include "orchestrator/workflow_internal.h"

enum { PLACE_UNKNOWN = -1, PLACE_OTHERS = 1 << 24 /* behind all calls at work */ };

static const struct workflow_instance *instance_of(const struct replay *r)
{
    const struct run *run = replay_live(r);
    return run ? run->workflow : NULL;
}

/* ---- whose turn an event is of ---- */

static int64_t place_of_work(const struct workflow_instance *w, const struct call *call)
{
    for (size_t i = 0; i < w->work_count; i++)
        if (w->works[i]->node->call == call)
            return (int64_t) i;
    return PLACE_UNKNOWN;
}

static int64_t place_of_node(const struct workflow_instance *w, const struct workflow_node *node)
{
    for (size_t i = 0; node && i < w->state->open_count; i++)
        if (w->state->open[i] == node)
            return PLACE_OTHERS + (int64_t) i;
    return PLACE_UNKNOWN;
}

static struct workflow_node *node_with(const struct workflow_instance *w, uuid call_id,
                                       uuid child_id, uuid approval_id)
{
    for (size_t i = 0; i < w->state->open_count; i++) {
        struct workflow_node *node = w->state->open[i];
        bool is_call = node->call && !uuid_is_none(call_id) && uuid_equal(node->call->id, call_id);
        bool is_child = !uuid_is_none(child_id) && uuid_equal(node->child_run_id, child_id);
        bool is_approval = !uuid_is_none(approval_id) &&
                           (uuid_equal(node->approval_id, approval_id) ||
                            (node->call && uuid_equal(node->call->approval_id, approval_id)));
        if (is_call || is_child || is_approval)
            return node;
    }
    return NULL;
}

/* Of a guest's call: the call that its guest belongs to. */
static const struct call *call_above(const struct replay *r, struct run *run, uuid call_id)
{
    const struct run_recording *record = r->record;
    const struct call *call = run_state_call(&run->state, call_id);
    uuid parent = UUID_NONE;
    if (call)
        return call->parent ? call->parent : call;
    for (size_t i = recording_named(record, call_id); i < record->solid_count; i++) {
        const struct json *data = record->solid[i].data;
        if (!uuid_equal(replay_id_member(data, "tool_call_id"), call_id))
            continue;
        parent = replay_id_member(data, "parent_id");
        if (!uuid_is_none(parent) || record->solid[i].type == EVENT_TOOL_COMPLETED)
            break;
    }
    const struct workflow_node *node =
        node_with(run->workflow, parent, UUID_NONE, UUID_NONE); /* none for no id */
    return node ? node->call : NULL;
}

/* What is heard: an outcome, with all events that tell of it. */
struct heard {
    uuid id; /* of the call, child run, approval or signal */
    const struct workflow_node *node;
    int64_t place;
    int64_t
        turn; /* within a call at work: what its guest asks for, then the ends of its guest's calls, the newest first, then its own */
};

static int64_t turn_of(const struct workflow_work *work, const struct event *event, uuid call_id)
{
    size_t most = ARRAY_COUNT(work->step.items);
    if (event->type != EVENT_TOOL_COMPLETED)
        return 0;
    for (size_t i = 0; i < work->step.count; i++)
        if (uuid_equal(work->step.items[i]->call->id, call_id))
            return (int64_t) (most - i);
    return PLACE_UNKNOWN; /* asked for in this piece: it ends in another one */
}

static bool is_later(const struct heard *next, const struct heard *last)
{
    return next->place > last->place || (next->place == last->place && next->turn > last->turn);
}

static bool hears(const struct replay *r, const struct event *event, struct heard *out)
{
    struct run *run = replay_live(r);
    const struct workflow_instance *w = run->workflow;
    uuid call_id = replay_id_member(event->data, "tool_call_id"),
         approval_id = replay_id_member(event->data, "approval_id"), child_id = UUID_NONE;
    *out = (struct heard){.place = PLACE_UNKNOWN};
    if (event->type == EVENT_RUN_SIGNALLED) {
        out->id = replay_id_member(event->data, "signal_id");
        out->node = workflow_state_find(w->state, json_str_or(event->data, S("step"), STR_NONE));
        out->place = place_of_node(w, out->node);
        return out->place != PLACE_UNKNOWN;
    }
    if (event->type == EVENT_RUN_CHILD_COMPLETED)
        child_id = replay_id_member(event->data, "child_run_id");
    out->node = node_with(w, call_id, child_id, approval_id);
    out->id = !uuid_is_none(child_id) ? child_id
              : out->node             ? (out->node->call ? out->node->call->id : approval_id)
                                      : call_id;
    const struct call *call = out->node ? out->node->call : call_above(r, run, call_id);
    if (call)
        out->place = place_of_work(w, call);
    if (out->place != PLACE_UNKNOWN)
        out->turn = turn_of(w->works[out->place], event, call_id);
    else
        out->place = place_of_node(w, out->node);
    return out->place != PLACE_UNKNOWN && out->turn != PLACE_UNKNOWN;
}

/* Events that an outcome brings along, and that name nobody. */
static bool is_nameless(enum event_type type)
{
    return type == EVENT_BUDGET_SETTLED || type == EVENT_BUDGET_REFUSED ||
           type == EVENT_BUDGET_ALERTED;
}

static bool is_outcome(const struct event *event)
{
    switch ((int) event->type) {
    case EVENT_TOOL_COMPLETED:
    case EVENT_TOOL_INTENDED:
    case EVENT_BUDGET_RESERVED:
    case EVENT_APPROVAL_REQUESTED:
    case EVENT_APPROVAL_DECIDED:
    case EVENT_APPROVAL_VOTED:
    case EVENT_RUN_CHILD_COMPLETED:
    case EVENT_RUN_SIGNALLED: return true;
    case EVENT_POLICY_DECIDED: return recording_is(event, "action", S("tool.call"));
    default: return false;
    }
}

/* Does the step's own event tell of what was heard last? */
static bool is_of(const struct heard *last, const struct event *event)
{
    bool is_end = event->type == EVENT_RUN_STEP_COMPLETED || event->type == EVENT_RUN_STEP_FAILED;
    return is_end && last->node && recording_is(event, "step", last->node->path);
}

/* Where the piece that begins at `from` ends; *is_of_calls: it begins with calls at work. */
static size_t piece_end(const struct replay *r, size_t from, bool *is_of_calls)
{
    const struct run_recording *record = r->record;
    struct heard last = {.place = PLACE_UNKNOWN};
    size_t i = from;
    *is_of_calls = false;
    for (; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        struct heard heard;
        if (is_nameless(event->type) && i > from)
            continue;
        if (last.place != PLACE_UNKNOWN && is_of(&last, event))
            continue;
        if (!is_outcome(event) || !hears(r, event, &heard))
            break;
        if (r->has_turn_times && event->at_us != record->solid[from].at_us)
            break;
        bool is_same = uuid_equal(heard.id, last.id) && heard.turn == last.turn;
        if (!is_same && !is_later(&heard, &last))
            break;
        if (i == from)
            *is_of_calls = heard.place < PLACE_OTHERS;
        last = heard;
    }
    return i;
}

/* What a call that ended costs is settled in the same turn. */
bool replay_workflow_has_turn_times(const struct run_recording *record)
{
    for (size_t i = 1; i < record->solid_count; i++)
        if (record->solid[i].type == EVENT_BUDGET_SETTLED &&
            record->solid[i - 1].type == EVENT_TOOL_COMPLETED &&
            record->solid[i].at_us != record->solid[i - 1].at_us)
            return false;
    return true;
}

/* ---- telling ---- */

static void tell(struct replay *r, size_t end)
{
    r->told_at = r->next + 1;
    for (size_t i = r->next; i < end; i++)
        replay_deliver_event(r, &r->record->solid[i]);
    r->heard = end;
    struct run *run = replay_live(r);
    if (end > r->next && run)
        run->is_woken = true; /* calls that end now wake it: then it looks at all of the piece */
}

/* The run is about to wait: what others bring must be there before it leaves memory. */
void replay_workflow_flushed(struct replay *r)
{
    bool is_of_calls;
    if (!instance_of(r) || r->told_at == r->next + 1)
        return;
    const struct run_recording *record = r->record;
    if (r->next > 0 && r->next < record->solid_count && !replay_is_crash_next(r) &&
        record->solid[r->next].type == EVENT_RUN_CANCELLING) {
        (void) replay_cancel(r); /* it came while that was written: the instance stays */
        return;
    }
    size_t end = piece_end(r, r->next, &is_of_calls);
    if (end > r->next && !is_of_calls)
        tell(r, end);
}

/*
 * The first turn of a life tells what became of the calls that were in flight, looks at what others brought meanwhile, and goes on, all
 * at once: that must be there before it begins.
 */
void replay_workflow_recovers(struct replay *r)
{
    const struct run_recording *record = r->record;
    size_t from = r->next + (record->solid[r->next].type == EVENT_RUN_RESUMED);
    int64_t heard_us = 0; /* the turn's time */
    bool may_end = false; /* the step of what was told last */
    for (size_t i = from; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        switch ((int) event->type) {
        case EVENT_RUN_CANCELLING:
        case EVENT_TOOL_INTENDED:
        case EVENT_BUDGET_RESERVED:
        case EVENT_BUDGET_SETTLED:
        case EVENT_BUDGET_ALERTED: break;
        case EVENT_TOOL_COMPLETED: may_end = true; break;
        case EVENT_RUN_STEP_COMPLETED:
        case EVENT_RUN_STEP_FAILED:
            if (!may_end)
                return;
            may_end = false;
            break;
        case EVENT_APPROVAL_VOTED:
        case EVENT_APPROVAL_DECIDED:
        case EVENT_RUN_CHILD_COMPLETED:
        case EVENT_RUN_SIGNALLED:
            if (heard_us > 0 && event->at_us != heard_us)
                return;
            heard_us = event->at_us;
            may_end = true;
            replay_deliver_event(r, event);
            break;
        default: return;
        }
    }
}

/* By its time, or by what it was told. */
static void wake(struct replay *r)
{
    struct run *run = replay_live(r);
    int64_t then_ns = replay_ns(r, r->record->solid[r->next].at_us);
    r->poked_at = r->next + 1;
    if (then_ns > r->mono_ns)
        r->mono_ns = then_ns;
    run->is_woken = true;
    condition_broadcast(&run->woken);
}

/* The session is resumed: what the instance hears in that turn it hears before it goes on. */
static void resume_session(struct replay *r)
{
    bool is_of_calls;
    const struct run_recording *record = r->record;
    size_t end = r->next + 1;
    if (!r->has_turn_times ||
        (end < record->solid_count && record->solid[end].at_us == record->solid[r->next].at_us))
        end = piece_end(r, end, &is_of_calls);
    replay_resume_session(r);
    tell(r, end);
    condition_broadcast(&r->released);
    wake(r);
}

bool replay_workflow_act(struct replay *r)
{
    const struct event *next = &r->record->solid[r->next];
    bool is_of_calls;
    if (!instance_of(
            r)) { /* it left memory while its children were at work, and says nothing of it */
        bool is_first = r->poked_at != r->next + 1;
        r->poked_at = r->next + 1;
        if (is_first)
            run_spawn(r->o, r->record->tenant_id, r->record->session_id, r->record->run_id);
        return is_first;
    }
    if (next->type == EVENT_RUN_CANCELLING && replay_cancel(r))
        return true;
    if (next->type == EVENT_RUN_PAUSING && !json_bool_or(next->data, S("is_paused"), false) &&
        r->told_at != r->next + 1) {
        resume_session(r);
        return true;
    }
    if (r->told_at != r->next + 1) {
        tell(r, piece_end(r, r->next, &is_of_calls));
        condition_broadcast(&r->released);
        return true;
    }
    if (next->type == EVENT_RUN_WAITING || r->poked_at == r->next + 1)
        return false; /* it waits a little, and then for long */
    wake(r);
    return true;
}
