#include "orchestrator/replay/run_recording.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/journal/event_upgrade.h"
#include "orchestrator/journal/run_state.h"
#include "orchestrator/replay/run_export.h"
#include "orchestrator/row_json.h"
#include <stdlib.h>

/* ---- indexes ---- */

static int by_id(const void *a, const void *b)
{
    const struct recorded_place *x = a, *y = b;
    int order = uuid_compare(x->id, y->id);
    return order != 0 ? order : (x->at > y->at) - (x->at < y->at);
}

static void index_init(struct arena *arena, struct recorded_index *index, size_t most)
{
    *index = (struct recorded_index){.items = ARENA_ARRAY(arena, struct recorded_place, most + 1)};
}

static void index_add(struct recorded_index *index, uuid id, size_t at)
{
    if (!uuid_is_none(id))
        index->items[index->count++] = (struct recorded_place){id, at};
}

static void index_sort(struct recorded_index *index)
{
    if (index->count > 1)
        qsort(index->items, index->count, sizeof *index->items, by_id);
}

/* The first place of the id; SIZE_MAX: none. */
static size_t index_find(const struct recorded_index *index, uuid id)
{
    size_t low = 0, high = index->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (uuid_compare(index->items[middle].id, id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    bool is_there = low < index->count && uuid_equal(index->items[low].id, id);
    return is_there ? index->items[low].at : SIZE_MAX;
}

static uuid id_of(const struct json *data, const char *member)
{
    uuid id;
    return uuid_parse(json_str_or(data, str_from_cstr(member), STR_NONE), &id) ? id : UUID_NONE;
}

/* ---- reading ---- */

static bool read_rows(struct arena *arena, const struct json *document, const char *member,
                      enum table table, struct recorded_rows *out, struct error *e)
{
    const struct json *list = json_get(document, str_from_cstr(member)), *item;
    struct json_iter it = json_iter(list);
    *out = (struct recorded_rows){.items = ARENA_ARRAY(arena, struct record, json_count(list) + 1)};
    while (json_next(&it, NULL, &item))
        if (!row_read_json(arena, table, item, &out->items[out->count++], e))
            return error_wrap(e, "\"%s\"", member);
    index_init(arena, &out->by_id, out->count);
    for (size_t i = 0; i < out->count && table_def(table)->columns[0].type == COLUMN_UUID; i++)
        index_add(&out->by_id, out->items[i].values[0].id, i);
    index_sort(&out->by_id);
    return true;
}

static void read_children(struct run_recording *r)
{
    const struct json *list = json_get(r->document, S("children")), *item;
    struct json_iter it = json_iter(list);
    r->children = ARENA_ARRAY(r->arena, const struct json *, json_count(list) + 1);
    index_init(r->arena, &r->by_child, json_count(list));
    while (json_next(&it, NULL, &item)) {
        index_add(&r->by_child, id_of(json_get(item, S("run")), "id"), r->child_count);
        r->children[r->child_count++] = item;
    }
    index_sort(&r->by_child);
}

static bool read_event(struct arena *arena, const struct json *json, struct event *out,
                       struct error *e)
{
    const struct json *data = json_get(json, S("data"));
    str type = json_str_or(json, S("type"), STR_NONE);
    out->seq = json_i64_or(json, S("seq"), 0);
    out->at_us = json_i64_or(json, S("at"), 0);
    if (!event_type_parse(type, &out->type))
        return error_set(e, REASON_CORRUPT, "event %lld has the unknown type \"" STR_FMT "\"",
                         (long long) out->seq, STR_ARG(type));
    return event_upgrade(arena, out->type, json_i64_or(json, S("v"), 1), data, &out->data, e);
}

/* The events of a journal follow each other and make sense. */
static bool check_fold(const struct run_recording *r, struct error *e)
{
    struct run_state state;
    run_state_init(&state, r->arena);
    for (size_t i = 0; i < r->event_count; i++)
        if (!run_state_apply(&state, &r->events[i], e))
            return error_wrap(e, "the recording does not fold");
    return r->event_count > 0 || error_set(e, REASON_INVALID, "the recording has no event");
}

static void index_events(struct run_recording *r)
{
    size_t asked = 0;
    for (size_t i = 0; i < r->solid_count; i++)
        asked += r->solid[i].type == EVENT_MODEL_COMPLETED
                     ? json_count(json_get(r->solid[i].data, S("tool_calls")))
                     : r->solid[i].type == EVENT_RUN_STEP_STARTED;
    index_init(r->arena, &r->named, 2 * r->solid_count);
    index_init(r->arena, &r->ended, r->solid_count);
    index_init(r->arena, &r->asked, asked);
    for (size_t i = 0; i < r->solid_count; i++) {
        const struct event *event = &r->solid[i];
        struct json_iter it = json_iter(json_get(event->data, S("tool_calls")));
        const struct json *call;
        if (i >= r->begun) {
            index_add(&r->named, id_of(event->data, "message_id"), i);
            index_add(&r->named, id_of(event->data, "tool_call_id"), i);
        }
        if (event->type == EVENT_RUN_STEP_STARTED)
            index_add(&r->asked, id_of(event->data, "tool_call_id"), i);
        if (event->type == EVENT_TOOL_COMPLETED)
            index_add(&r->ended, id_of(event->data, "tool_call_id"), i);
        while (event->type == EVENT_MODEL_COMPLETED && json_next(&it, NULL, &call))
            index_add(&r->asked, id_of(call, "tool_call_id"), i);
    }
    index_sort(&r->named);
    index_sort(&r->ended);
    index_sort(&r->asked);
}

/* ---- lives ---- */

/*
 * A run lives in memory until its node stops, or until an append fails and it is loaded again.  The first says run.resumed (which after a
 * wait says nothing of the kind); the second nothing at all, but it shows in what no other life does: what was in flight is made once
 * more or given up, and what had ended the run is passed over.
 */
struct lives {
    const struct run_recording *record;
    size_t *
        begun; /* of each call, at the event that names it first: the life that it is at work in, from 1; 0: it is not */
    size_t model; /* the same of the model's call */
    size_t life;
    bool is_waiting;  /* in a wait that run.resumed ends */
    size_t awaited;   /* of its approvals: those that are not decided; SIZE_MAX: more than these */
    bool is_given_up; /* the model's call failed for good */
    bool is_shorter;  /* the conversation was summarised, and nothing was made of it yet */
};

/* Does the event tell of something in flight that this life can know only by its journal? */
static bool is_recovery(struct lives *l, const struct event *event)
{
    size_t at = recording_named(l->record, id_of(event->data, "tool_call_id"));
    bool is_lost = str_find(json_str_or(event->data, S("message"), STR_NONE),
                            S("the node stopped while ")) == 0;
    switch ((int) event->type) {
    case EVENT_TOOL_INTENDED: return l->begun[at] == l->life + 1;
    case EVENT_TOOL_COMPLETED: return l->begun[at] == l->life + 1 && is_lost;
    case EVENT_MODEL_FAILED: return l->model == l->life + 1 && is_lost;
    case EVENT_MESSAGE_SUMMARISED: return l->is_shorter;
    case EVENT_MESSAGE_ADDED: return l->is_given_up; /* it steers what should have ended */
    case EVENT_POLICY_DECIDED:
        return l->is_given_up && recording_is(event, "action", S("model.call"));
    default: return false;
    }
}

static void note_work(struct lives *l, const struct event *event)
{
    size_t at = recording_named(l->record, id_of(event->data, "tool_call_id"));
    bool is_aside = json_get(event->data, S("purpose")) != NULL;
    l->is_shorter = event->type == EVENT_MESSAGE_SUMMARISED;
    switch ((int) event->type) {
    case EVENT_TOOL_INTENDED: l->begun[at] = l->life + 1; break;
    case EVENT_TOOL_COMPLETED: l->begun[at] = 0; break;
    case EVENT_MODEL_REQUESTED: l->model = l->life + 1; break;
    case EVENT_MODEL_COMPLETED: l->model = 0; break;
    case EVENT_MODEL_FAILED:
        l->model = 0;
        l->is_given_up = !is_aside && !json_bool_or(event->data, S("will_retry"), true);
        return;
    case EVENT_BUDGET_SETTLED:
    case EVENT_BUDGET_ALERTED: return;
    default: break;
    }
    l->is_given_up = false;
}

/* A run may hear of something, and wait on without a word.  An instance says so again. */
static void note_wait(struct lives *l, const struct event *event, bool is_instance)
{
    bool goes_on = is_instance || event->type == EVENT_RUN_RESUMED ||
                   event->type == EVENT_MODEL_REQUESTED || event->type == EVENT_TOOL_INTENDED;
    if (event->type == EVENT_RUN_WAITING) {
        bool is_for_others = json_count(json_get(event->data, S("client_calls"))) > 0;
        l->awaited = json_count(json_get(event->data, S("approvals")));
        if (is_for_others || l->awaited == 0)
            l->awaited = SIZE_MAX;
        l->is_waiting = true;
        return;
    }
    if (event->type == EVENT_APPROVAL_DECIDED && l->awaited != SIZE_MAX && l->awaited > 0)
        goes_on = goes_on || --l->awaited == 0;
    l->is_waiting = l->is_waiting && !goes_on;
}

static void count_lives(struct run_recording *r)
{
    for (size_t i = 0; i < r->solid_count; i++)
        r->lives[i] = (i > 0 ? r->lives[i - 1] : 0) + r->is_crash[i];
}

static void mark_lives(struct run_recording *r)
{
    struct lives l = {.record = r, .begun = ARENA_ARRAY(r->arena, size_t, r->solid_count + 1)};
    bool is_instance = record_has(&r->run, AGENT_RUNS_WORKFLOW);
    for (size_t i = 0; i < r->solid_count; i++) {
        const struct event *event = &r->solid[i];
        bool is_resumed = event->type == EVENT_RUN_RESUMED;
        bool is_own = i >= r->begun;
        if (is_resumed)
            l.life += r->is_crash[i] = !l.is_waiting;
        if (is_own && is_recovery(&l, event)) { /* a cancel is heard before anything else */
            r->is_crash[r->solid[i - 1].type == EVENT_RUN_CANCELLING ? i - 1 : i] = true;
            l.life++;
        }
        note_wait(&l, event, is_instance);
        if (is_own)
            note_work(&l, event);
    }
    count_lives(r);
}

void recording_set_crash(struct run_recording *r, size_t at, bool is_crash)
{
    r->is_crash[at] = is_crash;
    count_lives(r);
}

void delta_index_init(struct delta_index *index, struct arena *arena, const struct event *events,
                      size_t count)
{
    size_t *last = ARENA_ARRAY(arena, size_t, count + 1);
    index->attempt_count = count + 1; /* each begins with an event of its own */
    index->first = ARENA_ARRAY(arena, size_t, count + 1);
    index->after = ARENA_ARRAY(arena, size_t, count + 1);
    for (size_t i = 0; i < count; i++) {
        int64_t attempt = json_i64_or(events[i].data, S("attempt"), 0);
        if (events[i].type != EVENT_MODEL_DELTA || attempt < 0 || attempt > (int64_t) count)
            continue;
        if (last[attempt] > 0)
            index->after[last[attempt] - 1] = i + 1;
        else
            index->first[attempt] = i + 1;
        last[attempt] = i + 1;
    }
}

size_t delta_index_next(const struct delta_index *index, int64_t attempt, size_t at)
{
    if (at > 0)
        return index->after[at - 1];
    return attempt >= 0 && attempt < (int64_t) index->attempt_count ? index->first[attempt] : 0;
}

/* What the beginner of a run writes: up to the decision about it, or the fork. */
static void find_beginning(struct run_recording *r)
{
    for (size_t i = 0; i < r->solid_count; i++) {
        const struct event *event = &r->solid[i];
        bool is_start =
            event->type == EVENT_POLICY_DECIDED && recording_is(event, "action", S("run.start"));
        bool is_begun =
            i < 3 && (event->type == EVENT_RUN_STARTED || event->type == EVENT_MESSAGE_ADDED);
        if (is_start || is_begun || event->type == EVENT_RUN_FORKED)
            r->begun = i + 1;
    }
    bool is_over = r->begun == r->solid_count;
    int64_t last = r->begun > 0 ? r->solid[r->begun - 1].seq : 0;
    for (size_t i = 0; !is_over && i < r->event_count; i++)
        if (r->events[i].seq < last && r->events[i].type == EVENT_MODEL_DELTA)
            r->deltas_begun++;
}

static bool read_events(struct run_recording *r, struct error *e)
{
    const struct json *list = json_get(r->document, S("events")), *item;
    struct json_iter it = json_iter(list);
    size_t count = json_count(list);
    if (count > RUN_EXPORT_EVENTS_MAX)
        return error_set(e, REASON_TOO_LARGE, "the recording has more than %u events",
                         RUN_EXPORT_EVENTS_MAX);
    r->events = ARENA_ARRAY(r->arena, struct event, count + 1);
    r->solid = ARENA_ARRAY(r->arena, struct event, count + 1);
    r->is_crash = ARENA_ARRAY(r->arena, bool, count + 1);
    r->lives = ARENA_ARRAY(r->arena, size_t, count + 1);
    while (json_next(&it, NULL, &item)) {
        struct event *event = &r->events[r->event_count++];
        if (!read_event(r->arena, item, event, e))
            return false;
        if (event->type != EVENT_MODEL_DELTA)
            r->solid[r->solid_count++] = *event;
    }
    find_beginning(r);
    index_events(r);
    mark_lives(r);
    delta_index_init(&r->deltas, r->arena, r->events, r->event_count);
    return check_fold(r, e);
}

bool run_recording_read(struct arena *arena, str text, struct run_recording *out, struct error *e)
{
    const struct json *document;
    struct json_limits limits = {.bytes_max = RUN_EXPORT_BYTES_MAX + (1u << 20)};
    *out = (struct run_recording){.arena = arena};
    if (!json_parse(arena, text, limits, &document, e))
        return error_wrap(e, "the recording");
    if (json_get(document, S("recording")))
        document = json_get(document, S("recording"));
    out->document = document;
    if (!str_equal(json_str_or(document, S("format"), STR_NONE), S("nexus.run")))
        return error_set(e, REASON_INVALID,
                         "this is no export of a run (\"format\": \"nexus.run\"); make one with "
                         "`nexus runs export RUN`");
    if (json_i64_or(document, S("version"), 0) > RUN_EXPORT_VERSION)
        return error_set(e, REASON_INVALID, "the export was written by a newer version");
    if (!row_read_json(arena, TABLE_AGENT_RUNS, json_get(document, S("run")), &out->run, e) ||
        !row_read_json(arena, TABLE_SESSIONS, json_get(document, S("session")), &out->session, e) ||
        !read_rows(arena, document, "messages", TABLE_MESSAGES, &out->messages, e) ||
        !read_rows(arena, document, "tool_calls", TABLE_TOOL_CALLS, &out->tool_calls, e) ||
        !read_rows(arena, document, "approvals", TABLE_APPROVALS, &out->approvals, e) ||
        !read_rows(arena, document, "votes", TABLE_APPROVAL_VOTES, &out->votes, e) ||
        !read_rows(arena, document, "files", TABLE_SESSION_FILES, &out->files, e) ||
        !read_rows(arena, document, "workflows", TABLE_WORKFLOWS, &out->workflows, e) ||
        !read_rows(arena, document, "signals", TABLE_RUN_SIGNALS, &out->signals, e))
        return false;
    read_children(out);
    if (!uuid_parse(json_str_or(document, S("tenant_id"), STR_NONE), &out->tenant_id))
        return error_set(e, REASON_INVALID, "the export names no tenant");
    out->run_id = record_uuid(&out->run, AGENT_RUNS_ID);
    out->session_id = record_uuid(&out->session, SESSIONS_ID);
    return read_events(out, e);
}

/* ---- questions ---- */

bool recording_is(const struct event *event, const char *member, str value)
{
    return str_equal(json_str_or(event->data, str_from_cstr(member), STR_NONE), value);
}

size_t recording_find(const struct run_recording *r, size_t from, enum event_type type)
{
    while (from < r->solid_count && r->solid[from].type != type)
        from++;
    return from < r->solid_count ? from : r->solid_count;
}

size_t recording_find_alive(const struct run_recording *r, size_t from, enum event_type type,
                            const char *member, str value)
{
    for (; from < r->solid_count && !r->is_crash[from]; from++)
        if (r->solid[from].type == type && recording_is(&r->solid[from], member, value))
            return from;
    return r->solid_count;
}

size_t recording_end_of(const struct run_recording *r, size_t life, uuid call_id)
{
    size_t at = index_find(&r->ended, call_id);
    bool is_alive = at < r->solid_count && r->lives[at] == life;
    return is_alive ? at : r->solid_count;
}

size_t recording_named(const struct run_recording *r, uuid id)
{
    size_t at = index_find(&r->named, id);
    return at < r->solid_count ? at : r->solid_count;
}

bool recording_is_asked(const struct run_recording *r, uuid call_id)
{
    return index_find(&r->asked, call_id) != SIZE_MAX;
}

const struct json *recording_child(const struct run_recording *r, uuid run_id)
{
    size_t at = index_find(&r->by_child, run_id);
    return at < r->child_count ? r->children[at] : NULL;
}

const struct record *recording_row(const struct recorded_rows *rows, uuid id)
{
    size_t at = index_find(&rows->by_id, id);
    return at < rows->count ? &rows->items[at] : NULL;
}

bool recording_names_environment(enum event_type type)
{
    return type == EVENT_MODEL_REQUESTED || type == EVENT_RUN_STEP_STARTED;
}

const struct json *recording_environment(const struct run_recording *r, size_t at, struct error *e)
{
    str name = STR_NONE;
    for (size_t i = at; i < r->solid_count && str_is_empty(name); i++)
        if (recording_names_environment(r->solid[i].type))
            name = json_str_or(r->solid[i].data, S("environment"), STR_NONE);
    for (size_t i = at; i > 0 && str_is_empty(name); i--)
        if (recording_names_environment(r->solid[i - 1].type))
            name = json_str_or(r->solid[i - 1].data, S("environment"), STR_NONE);
    const struct json *all = json_get(r->document, S("environments")), *environment = NULL;
    struct json_iter it = json_iter(all);
    if (!str_is_empty(name))
        environment = json_get(all, name);
    else if (!json_next(&it, NULL, &environment))
        environment = NULL;
    if (!environment)
        (void) error_set(
            e, REASON_INVALID,
            "the recording does not say what the run ran with (no environment): it made no model "
            "call and began no step, or it is older than this record");
    return environment;
}
