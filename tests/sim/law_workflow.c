/* Laws of workflows: what is undone, and in which order; signals; sleeps; pauses. */
#include "base/arena.h"
#include "laws_internal.h"
#include "store/check.h"

enum { SIGNAL_SLACK_S = 240 }; /* a node may sleep and be cut off between its look and its commit */

/* Which steps say how they are undone is told by their ids, so that nobody has to ask the code. */
static bool is_undoable(str path)
{
    static const str shipped[] = {S_INIT("flight"), S_INIT("hotel"), S_INIT("car")};
    str id = path;
    for (size_t dot; (dot = str_find_char(id, '.')) != STR_NOT_FOUND;)
        id = str_from(id, dot + 1);
    for (size_t i = 0; i < ARRAY_COUNT(shipped); i++)
        if (str_equal(id, shipped[i]))
            return true;
    return str_starts_with(id, S("u_"));
}

static struct law_step *step_of(struct world *world, struct law_run *run, str path)
{
    struct law_step *step = map_find(run->steps, path);
    if (step)
        return step;
    step = ARENA_NEW(world->arena, struct law_step);
    step->path = str_copy(world->arena, path);
    step->is_undoable = is_undoable(path);
    map_put(run->steps, path, step);
    run->list = law_grow(world, run->list, run->step_count, &run->step_capacity, sizeof *run->list);
    run->list[run->step_count++] = step;
    return step;
}

static bool is_undo(str path)
{
    return str_ends_with(path, S("~"));
}

static enum step_kind kind_of(str text)
{
    for (int i = 0; i < STEP_KIND_COUNT; i++)
        if (str_equal(text, str_from_cstr(step_kind_name((enum step_kind) i))))
            return (enum step_kind) i;
    return STEP_KIND_COUNT;
}

/* ---- undoing ---- */

/* The newest completed step that nobody has tried to undo. */
static struct law_step *next_to_undo(const struct law_run *run)
{
    struct law_step *newest = NULL;
    for (size_t i = 0; i < run->step_count; i++) {
        struct law_step *step = run->list[i];
        if (step->is_undoable && step->order > 0 && !step->is_undone &&
            (!newest || step->order > newest->order))
            newest = step;
    }
    return newest;
}

static void undo_started(struct world *world, const struct law_event *event, str path)
{
    struct law_run *run = event->run;
    struct law_step *step = map_find(run->steps, str_slice(path, 0, path.len - 1));
    struct law_step *next = next_to_undo(run);
    int64_t attempt = json_i64_or(event->data, S("attempt"), 0);
    cover(world, COVER_UNDO_STEP);
    if (!run->is_undoing || !step || step->order == 0) {
        world_violation(world, "step " STR_FMT " is undone and had not been done", STR_ARG(path));
        return;
    }
    if (step->is_undone || step->is_undoing || attempt != step->undo_attempts + 1)
        world_violation(world, "step " STR_FMT " is undone again", STR_ARG(step->path));
    else if (step != next)
        world_violation(
            world, "step " STR_FMT " is undone before " STR_FMT ", which was completed after it",
            STR_ARG(step->path), STR_ARG(next ? next->path : S("none")));
    step->is_undoing = true;
    step->undo_attempts = (int) attempt;
}

static void undo_ended(struct world *world, const struct law_event *event, str path, bool is_again)
{
    struct law_step *step = map_find(event->run->steps, str_slice(path, 0, path.len - 1));
    if (!step || !step->is_undoing) {
        world_violation(world, "the undoing " STR_FMT " ended and had not begun", STR_ARG(path));
        return;
    }
    step->is_undoing = false;
    step->is_undone = !is_again;
    if (event->type == EVENT_RUN_STEP_FAILED && !is_again)
        cover(world, COVER_UNDO_BROKEN);
}

/* Steps that hold others end without a word when the instance does. */
static bool is_leaf(enum step_kind kind)
{
    return kind != STEP_BRANCH && kind != STEP_MAP && kind != STEP_PARALLEL && kind != STEP_LOOP;
}

static void instance_ended(struct world *world, const struct law_event *event)
{
    struct law_run *run = event->run;
    struct law_step *left = next_to_undo(run);
    if (event->type != EVENT_RUN_COMPLETED && left)
        world_violation(world, "an instance ended (%s) and step " STR_FMT " was not undone",
                        event_type_name(event->type), STR_ARG(left->path));
    if (event->type == EVENT_RUN_COMPLETED && run->is_undoing)
        world_violation(world, "an instance that was undone says completed");
    for (size_t i = 0; i < run->step_count; i++)
        if ((run->list[i]->is_open && is_leaf(run->list[i]->kind)) || run->list[i]->is_undoing)
            world_violation(world, "an instance ended while its step " STR_FMT " was open",
                            STR_ARG(run->list[i]->path));
}

/* ---- signals ---- */

static void add_signal(struct world *world, struct law_signal *signal)
{
    struct law_run *run = law_run_of(world, signal->run_id);
    run->signals = law_grow(world, run->signals, run->signal_count, &run->signal_capacity,
                            sizeof(struct law_signal *));
    run->signals[run->signal_count++] = signal;
}

static bool waits_for(const struct law_run *run, str name)
{
    for (size_t i = 0; i < run->step_count; i++)
        if (run->list[i]->is_open && str_equal(run->list[i]->signal, name))
            return true;
    return false;
}

void law_signal_row(struct world *world, const struct record *row)
{
    struct law_signal *signal = ARENA_NEW(world->arena, struct law_signal);
    *signal = (struct law_signal){
        .id = record_uuid(row, RUN_SIGNALS_ID),
        .run_id = record_uuid(row, RUN_SIGNALS_RUN_ID),
        .name = str_copy(world->arena, record_text(row, RUN_SIGNALS_NAME)),
        .stored_ns = world_now_ns(world),
    };
    if (!waits_for(law_run_of(world, signal->run_id), signal->name))
        cover(world, COVER_SIGNAL_EARLY);
    add_signal(world, signal);
}

static void signalled(struct world *world, const struct law_event *event)
{
    struct law_run *run = event->run;
    uuid id = law_id(event, "signal_id");
    for (size_t i = 0; i < run->signal_count; i++) {
        struct law_signal *signal = run->signals[i];
        if (!uuid_equal(signal->id, id))
            continue;
        if (signal->is_taken)
            world_violation(world, "a signal was taken twice");
        signal->is_taken = true;
        struct law_step *step = map_find(run->steps, law_text(event, "step"));
        if (!step || !step->is_open || !str_equal(step->signal, signal->name))
            world_violation(world, "a signal was taken by a step that does not wait for it");
        else
            step->is_signalled = true;
        return;
    }
    world_violation(world, "a signal was taken that nobody sent to this run");
}

/* It did not come in time, says the step: was it there? */
static void signal_missed(struct world *world, const struct law_event *event, struct law_step *step)
{
    const struct law_run *run = event->run;
    cover(world, COVER_SIGNAL_TIMEOUT);
    for (size_t i = 0; i < run->signal_count; i++) {
        const struct law_signal *signal = run->signals[i];
        int64_t age_ns = world_now_ns(world) - signal->stored_ns;
        if (!signal->is_taken && str_equal(signal->name, step->signal) &&
            age_ns > SIGNAL_SLACK_S * 1000000000ll && !laws_of(world)->is_reading &&
            !world->database)
            world_violation(world,
                            "a signal is lost: step " STR_FMT
                            " ran out of time, and it had been there for %lld s",
                            STR_ARG(step->path), (long long) (age_ns / 1000000000ll));
    }
}

/* ---- steps ---- */

static void step_started(struct world *world, const struct law_event *event, str path)
{
    struct law_step *step = step_of(world, event->run, path);
    enum step_kind kind = kind_of(law_text(event, "kind"));
    int64_t attempt = json_i64_or(event->data, S("attempt"), 0);
    uuid call_id = law_id(event, "tool_call_id");
    if (kind == STEP_KIND_COUNT) {
        world_violation(world, "a step of an unknown kind has begun");
        return;
    }
    world->coverage.steps[kind]++;
    if (attempt > 1)
        cover(world, COVER_STEP_RETRIED);
    if (!uuid_is_none(call_id)) {
        struct law_call *call = ARENA_NEW(world->arena, struct law_call);
        *call = (struct law_call){.path = step->path, .run_id = event->run->id};
        map_put(laws_of(world)->calls, law_key(&call_id), call);
    }
    if (is_undo(path)) {
        undo_started(world, event, path);
        return;
    }
    if (event->run->is_undoing)
        world_violation(world, "step " STR_FMT " has begun while the instance is undone",
                        STR_ARG(path));
    if (step->is_open || step->order > 0 || attempt != step->attempts + 1)
        world_violation(world, "step " STR_FMT " has begun again", STR_ARG(path));
    step->kind = kind;
    step->is_open = true;
    step->attempts = (int) attempt;
    step->wakes_us = json_i64_or(event->data, S("wakes_at"), 0);
    step->signal = str_copy(world->arena, law_text(event, "name"));
    if (kind != STEP_WAIT_SIGNAL)
        step->signal = STR_NONE;
    if (kind == STEP_SLEEP && step->wakes_us - event->at_us > 5000000)
        cover(world, COVER_SLEEP_LONG);
}

static void step_completed(struct world *world, const struct law_event *event, str path)
{
    struct law_step *step = step_of(world, event->run, path);
    if (json_bool_or(event->data, S("skipped"), false)) {
        cover(world, COVER_STEP_SKIPPED);
        step->is_undoable = false;
        return;
    }
    if (is_undo(path)) {
        undo_ended(world, event, path, false);
        return;
    }
    if (!step->is_open || step->order > 0)
        world_violation(world, "step " STR_FMT " was completed and is not open", STR_ARG(path));
    if (step->kind == STEP_SLEEP && event->at_us < step->wakes_us && !world->has_clock_jumps)
        world_violation(world, "step " STR_FMT " woke before its time", STR_ARG(path));
    step->is_open = step->is_signalled = false;
    step->order = ++event->run->completed;
}

static void step_failed(struct world *world, const struct law_event *event, str path)
{
    struct law_step *step = step_of(world, event->run, path);
    bool is_again = json_get(event->data, S("retry_at")) != NULL;
    str error = law_text(event, "error");
    if (str_equal(error, S("timeout")))
        cover(world, COVER_STEP_TIMEOUT);
    if (str_equal(error, S("outcome_unknown")))
        cover(world, COVER_STEP_UNKNOWN);
    if (json_bool_or(event->data, S("continues"), false))
        cover(world, COVER_STEP_CONTINUED);
    if (is_undo(path)) {
        undo_ended(world, event, path, is_again);
        return;
    }
    if (!step->is_open && !is_again && step->order > 0)
        world_violation(world, "step " STR_FMT " failed and had been completed", STR_ARG(path));
    if (step->kind == STEP_WAIT_SIGNAL && step->is_open && str_equal(error, S("timeout")))
        signal_missed(world, event, step);
    step->is_open = step->is_signalled = false;
}

/* From the event that says so until the run is resumed, or cancelled. */
static void look_at_pause(struct world *world, const struct law_event *event)
{
    struct law_run *run = event->run;
    bool is_said = event->type == EVENT_RUN_PAUSING || event->type == EVENT_RUN_WAITING;
    bool is_paused = is_said && json_bool_or(event->data, S("is_paused"), false);
    if (event->type == EVENT_RUN_STEP_STARTED && run->is_paused)
        world_violation(world, "step " STR_FMT " begins while the session is paused",
                        STR_ARG(law_text(event, "step")));
    if (is_paused && event->type == EVENT_RUN_PAUSING)
        cover(world, COVER_INSTANCE_PAUSING);
    if (is_paused || event->type == EVENT_RUN_PAUSING || event->type == EVENT_RUN_RESUMED ||
        event->type == EVENT_RUN_CANCELLING)
        run->is_paused = is_paused;
}

void law_workflow_event(struct world *world, const struct law_event *event)
{
    str path = law_text(event, "step");
    look_at_pause(world, event);
    if (event->type == EVENT_RUN_STEP_STARTED)
        step_started(world, event, path);
    else if (event->type == EVENT_RUN_STEP_COMPLETED)
        step_completed(world, event, path);
    else if (event->type == EVENT_RUN_STEP_FAILED)
        step_failed(world, event, path);
    else if (event->type == EVENT_RUN_SIGNALLED)
        signalled(world, event);
    else if (event->type == EVENT_RUN_COMPENSATING) {
        if (event->run->is_undoing)
            world_violation(world, "an instance began to be undone twice");
        event->run->is_undoing = true;
        cover(world, str_equal(law_text(event, "reason"), S("failed")) ? COVER_UNDO_FAILED
                                                                       : COVER_UNDO_CANCELLED);
    } else if (event_is_final(event->type))
        instance_ended(world, event);
}

/* What takes a signal goes on with it in the same commit: else a crash in between would lose it. */
void law_workflow_end_of_batch(struct world *world, const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        if (row->table != TABLE_RUN_EVENTS || !write_is_insert(batch->writes[i].op) ||
            !str_equal(record_text(row, RUN_EVENTS_TYPE), S("run.signalled")))
            continue;
        struct law_run *run = law_run_of(world, record_uuid(row, RUN_EVENTS_RUN_ID));
        for (size_t k = 0; k < run->step_count; k++)
            if (run->list[k]->is_signalled)
                world_violation(world, "a signal is lost: step " STR_FMT " took it and waits on",
                                STR_ARG(run->list[k]->path));
    }
}
