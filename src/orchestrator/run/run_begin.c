#include "orchestrator/run/run_begin.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_internal.h"
#include "orchestrator/webhook/webhook_tell.h"

struct beginning {
    const struct run_beginning *b;
    struct orchestrator *o;
    struct arena *arena;
    struct batch *batch;
    struct label label;
    uuid message_id;
    int64_t seq; /* of the newest event */
    struct strbuf text;
    struct json_writer w;
};

static struct json_writer *json_begin(struct beginning *s, size_t bytes_max)
{
    strbuf_init(&s->text, s->arena, bytes_max);
    json_writer_init(&s->w, &s->text);
    json_object_begin(&s->w);
    return &s->w;
}

static str json_end(struct beginning *s)
{
    json_object_end(&s->w);
    return strbuf_str(&s->text);
}

static bool ends_at_once(const struct run_beginning *b)
{
    return b->failure || !str_is_empty(b->cancelled_by);
}

/* ---- events ---- */

static void add_event(struct beginning *s, enum event_type type)
{
    struct record *row = batch_add(s->batch, WRITE_INSERT, TABLE_RUN_EVENTS);
    record_set_uuid(row, RUN_EVENTS_RUN_ID, s->b->run_id);
    record_set_integer(row, RUN_EVENTS_SEQ, ++s->seq);
    record_set_text(row, RUN_EVENTS_TYPE, str_from_cstr(event_type_name(type)));
    record_set_integer(row, RUN_EVENTS_VERSION, event_type_version(type));
    record_set_integer(row, RUN_EVENTS_AT, s->b->now_us);
    record_set_text(row, RUN_EVENTS_DATA, json_end(s));
}

static bool is_workflow(const struct run_beginning *b)
{
    return !str_is_empty(b->workflow.name);
}

static void put_workflow(struct json_writer *w, const struct run_workflow *workflow)
{
    json_key(w, S("workflow"));
    json_object_begin(w);
    json_put_str(w, S("name"), workflow->name);
    json_put_str(w, S("version"), workflow->version);
    json_put_str(w, S("digest"), workflow->digest);
    if (workflow->takes_message)
        json_put_bool(w, S("takes_message"), true);
    json_object_end(w);
}

/* Where the run comes from, when it is not a person's message. */
static void put_origin(struct beginning *s, struct json_writer *w)
{
    const struct run_beginning *b = s->b;
    if (!uuid_is_none(b->parent_run_id)) {
        json_put_str(w, S("parent_run_id"), uuid_str(s->arena, b->parent_run_id));
        json_put_i64(w, S("depth"), b->depth);
    }
    if (!cost_equal(b->budget, COST_LIMITLESS)) {
        json_key(w, S("budget"));
        cost_write_json(w, b->budget);
    }
    if (!uuid_is_none(b->forked_from)) {
        json_put_str(w, S("forked_from"), uuid_str(s->arena, b->forked_from));
        json_put_i64(w, S("forked_at"), b->forked_at);
    }
}

static void add_started(struct beginning *s)
{
    const struct run_beginning *b = s->b;
    struct json_writer *w = json_begin(s, SSE_EVENT_BYTES_MAX);
    json_put_str(w, S("agent"), b->agent);
    json_put_str(w, S("agent_version"), b->agent_version);
    json_put_str(w, S("model"), b->model);
    json_put_str(w, S("user_id"), b->user_id);
    json_put_str(w, S("message_id"), uuid_str(s->arena, s->message_id));
    json_put_i64(w, S("epoch"), b->epoch);
    json_put_str(w, S("node"), s->o->parts.node);
    if (is_workflow(b))
        put_workflow(w, &b->workflow);
    put_origin(s, w);
    if (!str_is_empty(b->client_tools))
        json_put_raw(w, S("client_tools"), b->client_tools);
    if (!str_is_empty(b->response_format))
        json_put_raw(w, S("response_format"), b->response_format);
    if (b->max_output_tokens > 0)
        json_put_i64(w, S("max_output_tokens"), b->max_output_tokens);
    add_event(s, EVENT_RUN_STARTED);
}

/* A run that ends before it did anything. */
static void add_end(struct beginning *s)
{
    const struct run_beginning *b = s->b;
    if (!ends_at_once(b))
        return;
    struct json_writer *w = json_begin(s, SSE_EVENT_BYTES_MAX);
    if (b->failure) {
        json_put_str(w, S("error"), str_from_cstr(error_problem(b->failure->reason)));
        json_put_str(w, S("message"), str_from_cstr(b->failure->message));
    } else {
        json_put_str(w, S("by"), b->cancelled_by);
    }
    json_key(w, S("cost"));
    cost_write_json(w, (cost){0});
    add_event(s, b->failure ? EVENT_RUN_FAILED : EVENT_RUN_CANCELLED);
    webhook_tell_unbegun(s->o, s->batch, b);
}

static void add_decision(struct beginning *s)
{
    const struct run_beginning *b = s->b;
    struct json_writer *w = json_begin(s, SSE_EVENT_BYTES_MAX);
    json_put_str(w, S("action"), S("run.start"));
    json_put_str(w, S("resource"), b->agent);
    json_put_str(w, S("verdict"), str_from_cstr(policy_verdict_name(b->decision->verdict)));
    json_put_str(w, S("reason"), b->decision->reason);
    json_put_str(w, S("rule"), b->decision->rule);
    json_put_str(w, S("version"), b->decision->version);
    if (!cost_is_zero(b->decision->remaining)) {
        json_key(w, S("remaining"));
        cost_write_json(w, b->decision->remaining);
    }
    add_event(s, EVENT_POLICY_DECIDED);
}

static void add_first_events(struct beginning *s)
{
    const struct run_beginning *b = s->b;
    add_started(s);
    struct json_writer *w = json_begin(s, SSE_EVENT_BYTES_MAX);
    json_put_str(w, S("message_id"), uuid_str(s->arena, s->message_id));
    json_put_str(w, S("role"), S("user"));
    json_key(w, S("label"));
    label_write_json(w, s->label);
    add_event(s, EVENT_MESSAGE_ADDED);
    if (b->decision)
        add_decision(s);
    add_end(s);
}

/* ---- messages ---- */

/* A user's own words need no label in their row: that is what their role says. */
static bool is_own_words(struct label label)
{
    return label.origins == LABEL_USER && !label.is_untrusted && !label.is_private;
}

static void add_message(struct beginning *s, uuid id, str role, str content, str parts,
                        struct label label)
{
    struct record *row = batch_add(s->batch, WRITE_INSERT, TABLE_MESSAGES);
    record_set_uuid(row, MESSAGES_ID, id);
    record_set_uuid(row, MESSAGES_SESSION_ID, s->b->session_id);
    record_set_uuid(row, MESSAGES_RUN_ID, s->b->run_id);
    record_set_text(row, MESSAGES_ROLE, role);
    record_set_text(row, MESSAGES_CONTENT, content);
    record_set_integer(row, MESSAGES_TOKENS, (int64_t) (content.len + 3) / 4);
    record_set_integer(row, MESSAGES_CREATED_AT, s->b->now_us);
    if (!str_is_empty(parts))
        record_set_text(row, MESSAGES_PARTS, parts);
    if (!str_is_empty(s->b->cancelled_by))
        record_set_text(row, MESSAGES_METADATA, S("{\"is_withdrawn\":true}"));
    else if (!is_own_words(label))
        record_set_text(row, MESSAGES_METADATA, run_label_metadata(s->arena, label));
}

/* One turn of the caller's own: its text is the content; calls and results travel in parts. */
static void add_history_message(struct beginning *s, const struct prompt_message *message,
                                struct label label)
{
    struct strbuf content, parts;
    struct json_writer w;
    strbuf_init(&content, s->arena, MESSAGE_BYTES_MAX);
    strbuf_init(&parts, s->arena, MESSAGE_BYTES_MAX);
    json_writer_init(&w, &parts);
    json_object_begin(&w);
    json_put_bool(&w, S("from_client"), true);
    json_key(&w, S("tool_calls"));
    json_array_begin(&w);
    str call_id = STR_NONE, name = STR_NONE;
    for (size_t i = 0; i < message->part_count; i++) {
        const struct part *part = &message->parts[i];
        if (part->kind == PART_TEXT || part->kind == PART_TOOL_RESULT)
            strbuf_add(&content, part->text);
        if (part->kind == PART_TOOL_RESULT) {
            call_id = part->call_id;
            name = part->name;
        }
        if (part->kind != PART_TOOL_CALL)
            continue;
        json_object_begin(&w);
        json_put_str(&w, S("call_id"), part->call_id);
        json_put_str(&w, S("name"), part->name);
        json_put_str(&w, S("arguments"), part->arguments);
        json_object_end(&w);
    }
    json_array_end(&w);
    json_put_str(&w, S("call_id"), call_id);
    json_put_str(&w, S("name"), name);
    json_object_end(&w);
    add_message(s, uuid_new(s->o->parts.clock, s->o->parts.random),
                str_from_cstr(role_name(message->role)), strbuf_str(&content), strbuf_str(&parts),
                label);
}

/* ---- rows ---- */

static enum priority priority_of(const struct run_beginning *b)
{
    return b->priority != PRIORITY_UNSAID
               ? (enum priority)(b->priority - 1)
               : principal_priority(b->principal, PRIORITY_UNSAID, PRIORITY_UNSAID);
}

static str metadata_text(struct beginning *s)
{
    const struct run_beginning *b = s->b;
    struct json_writer *w = json_begin(s, 4096);
    json_put_str(w, S("role"), b->role);
    json_put_str(w, S("caller_id"), b->principal->caller_id);
    json_put_str(w, S("priority"), str_from_cstr(priority_name(priority_of(b))));
    if (b->principal->has_key_budget) /* what the run uses counts against the key too */
        json_put_str(w, S("key_id"), uuid_str(s->arena, b->principal->key_id));
    return json_end(s);
}

static str cost_text(struct arena *arena, cost amount)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 512);
    json_writer_init(&w, &text);
    cost_write_json(&w, amount);
    return strbuf_str(&text);
}

static void set_origin(struct beginning *s, struct record *row)
{
    const struct run_beginning *b = s->b;
    if (!uuid_is_none(b->parent_run_id)) {
        record_set_uuid(row, AGENT_RUNS_PARENT_RUN_ID, b->parent_run_id);
        record_set_integer(row, AGENT_RUNS_DEPTH, b->depth);
    }
    if (is_workflow(b))
        record_set_text(row, AGENT_RUNS_WORKFLOW,
                        str_printf(s->arena, STR_FMT "@" STR_FMT, STR_ARG(b->workflow.name),
                                   STR_ARG(b->workflow.version)));
    if (!uuid_is_none(b->forked_from)) {
        record_set_uuid(row, AGENT_RUNS_FORKED_FROM, b->forked_from);
        record_set_integer(row, AGENT_RUNS_FORKED_AT, b->forked_at);
    }
    if (!cost_equal(b->budget, COST_LIMITLESS))
        record_set_text(row, AGENT_RUNS_BUDGET, cost_text(s->arena, b->budget));
}

static void add_run_row(struct beginning *s)
{
    const struct run_beginning *b = s->b;
    struct record *row =
        batch_add(s->batch, b->is_pending ? WRITE_UPDATE : WRITE_INSERT, TABLE_AGENT_RUNS);
    uint8_t trace[16];
    memcpy(trace, b->trace.trace_id, sizeof trace);
    record_set_uuid(row, AGENT_RUNS_ID, b->run_id);
    record_set_uuid(row, AGENT_RUNS_SESSION_ID, b->session_id);
    record_set_text(row, AGENT_RUNS_STATUS,
                    b->failure                       ? S("failed")
                    : !str_is_empty(b->cancelled_by) ? S("cancelled")
                                                     : S("running"));
    if (ends_at_once(b))
        record_set_integer(row, AGENT_RUNS_COMPLETED_AT, b->now_us);
    if (b->failure) {
        record_set_text(row, AGENT_RUNS_ERROR, str_from_cstr(error_problem(b->failure->reason)));
        record_set_text(row, AGENT_RUNS_ERROR_MESSAGE, str_from_cstr(b->failure->message));
    }
    record_set_integer(row, AGENT_RUNS_STARTED_AT, b->now_us);
    record_set_text(row, AGENT_RUNS_COST, cost_text(s->arena, (cost){0}));
    record_set_text(row, AGENT_RUNS_TRACE_ID, str_hex(s->arena, trace, sizeof trace));
    record_set_text(row, AGENT_RUNS_AGENT, b->agent);
    record_set_text(row, AGENT_RUNS_MODEL, b->model);
    record_set_text(row, AGENT_RUNS_USER_ID, b->user_id);
    record_set_integer(row, AGENT_RUNS_LAST_SEQ,
                       2 + (b->decision != NULL) + (ends_at_once(b) ? 1 : 0));
    record_set_text(row, AGENT_RUNS_METADATA, metadata_text(s));
    set_origin(s, row);
    if (b->is_pending)
        batch_where_text(s->batch, AGENT_RUNS_STATUS, S("pending"));
    if (!cost_equal(b->budget, COST_LIMITLESS))
        ledger_add_account_row(s->o->ledger, s->batch, ACCOUNT_RUN, uuid_str(s->arena, b->run_id),
                               b->budget);
}

static void take_session(struct beginning *s)
{
    struct record *row = batch_add(s->batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, s->b->session_id);
    record_set_uuid(row, SESSIONS_LIVE_RUN_ID, s->b->run_id);
    record_set_integer(row, SESSIONS_UPDATED_AT, s->b->now_us);
    if (s->b->is_pending)
        batch_where_uuid(s->batch, SESSIONS_LIVE_RUN_ID, s->b->run_id);
    else
        batch_where_null(s->batch, SESSIONS_LIVE_RUN_ID);
}

void run_begin_write(struct orchestrator *o, struct arena *arena, struct batch *batch,
                     const struct run_beginning *beginning, uuid *message_id)
{
    struct beginning *s = ARENA_NEW(arena, struct beginning);
    *s = (struct beginning){
        .b = beginning, .o = o, .arena = arena, .batch = batch, .label = beginning->label};
    if (s->label.origins == 0)
        s->label.origins = LABEL_USER;
    if (!beginning->keeps_session)
        take_session(s);
    add_run_row(s);
    for (size_t i = 0; i < beginning->history_count; i++)
        add_history_message(s, &beginning->history[i],
                            beginning->history_labels ? beginning->history_labels[i] : s->label);
    s->message_id = uuid_new(o->parts.clock, o->parts.random);
    add_message(s, s->message_id, S("user"), beginning->content, beginning->parts, s->label);
    add_first_events(s);
    audit_add(batch, o->parts.clock, o->parts.random, beginning->principal,
              &(struct audit_entry){.action = str_is_empty(beginning->cancelled_by)
                                                  ? S("run.start")
                                                  : S("run.withdraw"),
                                    .resource_type = S("run"),
                                    .resource_id = uuid_str(arena, beginning->run_id)});
    *message_id = s->message_id;
}
