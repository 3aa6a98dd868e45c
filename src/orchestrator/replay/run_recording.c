#include "orchestrator/replay/run_recording.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/journal/event_upgrade.h"
#include "orchestrator/journal/run_state.h"
#include "orchestrator/replay/run_export.h"
#include "orchestrator/row_json.h"

static bool read_rows(struct arena *arena, const struct json *document, const char *member,
                      enum table table, struct recorded_rows *out, struct error *e)
{
    const struct json *list = json_get(document, str_from_cstr(member)), *item;
    struct json_iter it = json_iter(list);
    *out = (struct recorded_rows){.items = ARENA_ARRAY(arena, struct record, json_count(list) + 1)};
    while (json_next(&it, NULL, &item))
        if (!row_read_json(arena, table, item, &out->items[out->count++], e))
            return error_wrap(e, "\"%s\"", member);
    return true;
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

static void mark_crashes(struct run_recording *r)
{
    bool is_waiting = false;
    for (size_t i = 0; i < r->solid_count; i++) {
        if (r->solid[i].type == EVENT_RUN_RESUMED) {
            r->is_crash[i] = !is_waiting;
            is_waiting = false;
        }
        is_waiting = is_waiting || r->solid[i].type == EVENT_RUN_WAITING;
    }
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
    while (json_next(&it, NULL, &item)) {
        struct event *event = &r->events[r->event_count++];
        if (!read_event(r->arena, item, event, e))
            return false;
        if (event->type != EVENT_MODEL_DELTA)
            r->solid[r->solid_count++] = *event;
    }
    mark_crashes(r);
    find_beginning(r);
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
        !read_rows(arena, document, "files", TABLE_SESSION_FILES, &out->files, e))
        return false;
    out->children = json_get(document, S("children"));
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

const struct record *recording_row(const struct recorded_rows *rows, int column, uuid id)
{
    for (size_t i = 0; i < rows->count; i++)
        if (uuid_equal(rows->items[i].values[column].id, id))
            return &rows->items[i];
    return NULL;
}

bool recording_environment(const struct run_recording *r, size_t at, struct run_environment *out,
                           struct error *e)
{
    str name = STR_NONE;
    for (size_t i = at; i < r->solid_count && str_is_empty(name); i++)
        if (r->solid[i].type == EVENT_MODEL_REQUESTED)
            name = json_str_or(r->solid[i].data, S("environment"), STR_NONE);
    for (size_t i = at; i > 0 && str_is_empty(name); i--)
        if (r->solid[i - 1].type == EVENT_MODEL_REQUESTED)
            name = json_str_or(r->solid[i - 1].data, S("environment"), STR_NONE);
    const struct json *all = json_get(r->document, S("environments")), *environment;
    struct json_iter it = json_iter(all);
    if (str_is_empty(name) && json_next(&it, NULL, &environment))
        return run_environment_read(r->arena, environment, out, e);
    environment = str_is_empty(name) ? NULL : json_get(all, name);
    if (!environment)
        return error_set(e, REASON_INVALID,
                         "the recording does not say what the run ran with (no environment): it "
                         "made no model call, or it is older than this record");
    return run_environment_read(r->arena, environment, out, e);
}
