/* What comes from outside, and when: decisions of persons, results of clients, ends of other runs, messages, cancels. */
#include "base/arena.h"
#include "orchestrator/replay/run_replay_internal.h"
#include "orchestrator/row_json.h"

bool replay_cancel(struct replay *r)
{
    const struct run_recording *record = r->record;
    size_t at = recording_find(record, r->next, EVENT_RUN_CANCELLING);
    struct run *run = replay_live(r);
    if (at == record->solid_count || !run || run->is_cancel_asked)
        return false;
    run->cancelled_by = str_copy(run->keep, json_str_or(record->solid[at].data, S("by"), STR_NONE));
    run->is_cancel_asked = true;
    context_cancel(&run->ctx);
    return true;
}

static void deliver_approval(struct replay *r, const struct json *data)
{
    uuid id;
    if (!uuid_parse(json_str_or(data, S("approval_id"), STR_NONE), &id))
        return;
    const struct record *row = recording_row(&r->record->approvals, id);
    if (!row)
        return;
    struct record decided = *row;
    record_set_text(&decided, APPROVALS_STATUS, json_str_or(data, S("decision"), STR_NONE));
    replay_put(r, &decided);
}

static void deliver_vote(struct replay *r, const struct json *data)
{
    uuid id;
    if (!uuid_parse(json_str_or(data, S("approval_id"), STR_NONE), &id))
        return;
    const struct record *approval = recording_row(&r->record->approvals, id);
    for (size_t i = 0; i < r->record->votes.count; i++) {
        const struct record *vote = &r->record->votes.items[i];
        if (uuid_equal(record_uuid(vote, APPROVAL_VOTES_APPROVAL_ID), id) &&
            record_integer(vote, APPROVAL_VOTES_NUMBER) == json_i64_or(data, S("number"), 0))
            replay_put(r, vote);
    }
    if (!approval)
        return;
    struct record row = *approval;
    record_set_text(&row, APPROVALS_STATUS, S("pending"));
    record_set_integer(&row, APPROVALS_VOTES, json_i64_or(data, S("votes"), 0));
    replay_put(r, &row);
}

static void deliver_result(struct replay *r, const struct event *event)
{
    uuid id;
    if (!uuid_parse(json_str_or(event->data, S("tool_call_id"), STR_NONE), &id))
        return;
    const struct record *row = recording_row(&r->record->tool_calls, id);
    if (!row || !str_equal(record_text(row, TOOL_CALLS_TOOL_VERSION), CLIENT_TOOL_VERSION))
        return;
    struct record result = *row;
    record_set_text(&result, TOOL_CALLS_STATUS, S("pending"));
    record_set_integer(&result, TOOL_CALLS_CREATED_AT,
                       event->at_us - json_i64_or(event->data, S("latency_ms"), 0) * 1000);
    record_set_null(&result, TOOL_CALLS_LATENCY_MS);
    replay_put(r, &result);
}

static void put_rows(struct replay *r, const struct json *list, enum table table)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    struct record row;
    struct error e = {0};
    while (json_next(&it, NULL, &item))
        if (row_read_json(r->arena, table, item, &row, &e))
            replay_put(r, &row);
}

/* A run that this one started, as it ended. */
static void deliver_child(struct replay *r, const struct json *data)
{
    const struct json *child = recording_child(r->record, replay_id_member(data, "child_run_id"));
    const struct json *event = json_at(json_get(child, S("events")), 0);
    struct record *row = ARENA_NEW(r->arena, struct record);
    struct error e = {0};
    if (!child || !row_read_json(r->arena, TABLE_AGENT_RUNS, json_get(child, S("run")), row, &e))
        return;
    replay_put(r, row);
    put_rows(r, json_get(child, S("messages")), TABLE_MESSAGES);
    if (!event)
        return;
    struct record written = record_of(TABLE_RUN_EVENTS);
    record_set_uuid(&written, RUN_EVENTS_RUN_ID, record_uuid(row, AGENT_RUNS_ID));
    record_set_integer(&written, RUN_EVENTS_SEQ, json_i64_or(event, S("seq"), 1));
    record_set_text(&written, RUN_EVENTS_TYPE, json_str_or(event, S("type"), STR_NONE));
    record_set_integer(&written, RUN_EVENTS_VERSION, json_i64_or(event, S("v"), 1));
    record_set_integer(&written, RUN_EVENTS_AT, json_i64_or(event, S("at"), 0));
    record_set_text(&written, RUN_EVENTS_DATA, json_print(r->arena, json_get(event, S("data"))));
    replay_put(r, &written);
}

static void deliver_signal(struct replay *r, const struct json *data)
{
    const struct record *row =
        recording_row(&r->record->signals, replay_id_member(data, "signal_id"));
    for (size_t i = 0; !row && i < r->record->signals.count;
         i++) /* its key is the run's id and its own */
        if (uuid_equal(record_uuid(&r->record->signals.items[i], RUN_SIGNALS_ID),
                       replay_id_member(data, "signal_id")))
            row = &r->record->signals.items[i];
    if (row)
        replay_put(r, row);
}

/* A message that steers the run waits in the inbox until the run takes it. */
static void deliver_steering(struct replay *r, uuid message_id, int64_t at_us)
{
    const struct record *message = recording_row(&r->record->messages, message_id);
    struct record row = record_of(TABLE_SESSION_INBOX);
    if (!message)
        return;
    record_set_uuid(&row, SESSION_INBOX_SESSION_ID, r->record->session_id);
    record_set_uuid(&row, SESSION_INBOX_ID, message_id);
    record_set_text(&row, SESSION_INBOX_MODE, S("steer"));
    record_set_text(&row, SESSION_INBOX_CONTENT, record_text(message, MESSAGES_CONTENT));
    if (record_has(message, MESSAGES_PARTS))
        record_set_text(&row, SESSION_INBOX_PARTS, record_text(message, MESSAGES_PARTS));
    record_set_text(&row, SESSION_INBOX_PRINCIPAL, S("{}"));
    record_set_integer(&row, SESSION_INBOX_CREATED_AT, at_us);
    replay_put(r, &row);
}

/* The session's row changes, and the live run is told that it did. */
static void change_session(struct replay *r, int64_t inbox_count, str status)
{
    struct run *run = replay_live(r);
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, r->arena, r->record->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, r->record->session_id);
    if (inbox_count > 0)
        record_set_integer(row, SESSIONS_INBOX_COUNT, inbox_count);
    if (!str_is_empty(status))
        record_set_text(row, SESSIONS_STATUS, status);
    if (!store_submit(r->store, &batch, &e))
        replay_differs(r, 0, S("scratch store"), STR_NONE, str_from_cstr(e.message));
    if (run)
        run->is_inbox_told = true;
}

void replay_resume_session(struct replay *r)
{
    change_session(r, 0, S("active"));
}

/* All that steer the run here came before it looked. */
static void deliver_steerings(struct replay *r)
{
    const struct run_recording *record = r->record;
    int64_t count = 0;
    for (size_t i = r->next; i < record->solid_count; i++, count++) {
        const struct event *event = &record->solid[i];
        if (event->type != EVENT_MESSAGE_ADDED || !json_bool_or(event->data, S("steers"), false))
            break;
        deliver_steering(r, replay_id_member(event->data, "message_id"), event->at_us);
    }
    if (count == 0 || r->steered == r->next + 1)
        return;
    r->steered = r->next + 1; /* once: the run takes them in this order, one event for each */
    for (int64_t i = 1; i < count; i++)
        r->steered++;
    change_session(r, count, STR_NONE);
}

static bool is_of_approval(const struct event *event)
{
    return event->type == EVENT_APPROVAL_VOTED || event->type == EVENT_APPROVAL_DECIDED;
}

/* What persons said of one approval, as far as the run heard of it at once. */
static void deliver_votes(struct replay *r)
{
    const struct run_recording *record = r->record;
    uuid id = replay_id_member(record->solid[r->next].data, "approval_id");
    for (size_t i = r->next; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        if (!is_of_approval(event) || !uuid_equal(replay_id_member(event->data, "approval_id"), id))
            return;
        replay_deliver_event(r, event);
    }
}

/* A row that others change is in the store first. */
static bool is_stored(const struct replay *r, uuid id)
{
    const struct run *run = replay_live(r);
    for (size_t i = 0; run && i < run->journal.batch.count; i++) {
        const struct write *write = &run->journal.batch.writes[i];
        if (write->op == WRITE_INSERT && write->record.table != TABLE_RUN_EVENTS &&
            uuid_equal(write->record.values[0].id, id))
            return false;
    }
    return true;
}

void replay_hear_at_once(struct replay *r)
{
    const struct run_recording *record = r->record;
    if (r->next >= record->solid_count)
        return;
    const struct event *event = &record->solid[r->next];
    if (event->type == EVENT_RUN_SIGNALLED)
        deliver_signal(r, event->data);
    if (event->type == EVENT_MESSAGE_ADDED && r->next >= r->steered)
        deliver_steerings(r);
    bool is_of_pause = event->type == EVENT_RUN_WAITING || event->type == EVENT_RUN_PAUSING;
    if (is_of_pause && json_bool_or(event->data, S("is_paused"), false))
        change_session(r, 0, S("paused")); /* whoever resumes the run makes it active again */
    if (r->is_workflow)
        return;
    const char *whose = event->type == EVENT_RUN_CHILD_COMPLETED ? "child_run_id"
                        : is_of_approval(event)                  ? "approval_id"
                                                                 : "tool_call_id";
    if (is_stored(r, replay_id_member(event->data, whose)))
        replay_deliver_next(r);
}

void replay_deliver_event(struct replay *r, const struct event *event)
{
    if (event->type == EVENT_APPROVAL_VOTED)
        deliver_vote(r, event->data);
    if (event->type == EVENT_APPROVAL_DECIDED)
        deliver_approval(r, event->data);
    if (event->type == EVENT_TOOL_COMPLETED)
        deliver_result(r, event);
    if (event->type == EVENT_RUN_CHILD_COMPLETED)
        deliver_child(r, event->data);
    if (event->type == EVENT_RUN_SIGNALLED)
        deliver_signal(r, event->data);
}

void replay_deliver_next(struct replay *r)
{
    const struct run_recording *record = r->record;
    if (r->next >= record->solid_count)
        return;
    const struct event *event = &record->solid[r->next];
    if (is_of_approval(event))
        deliver_votes(r);
    if (event->type == EVENT_RUN_CHILD_COMPLETED || event->type == EVENT_TOOL_COMPLETED)
        replay_deliver_event(r, event);
}
