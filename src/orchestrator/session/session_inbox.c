#include "orchestrator/session/session_inbox.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"

/* ---- policies ---- */

static const char *const names[] = {
    [DOUBLE_TEXT_REJECT] = "reject",
    [DOUBLE_TEXT_ENQUEUE] = "enqueue",
    [DOUBLE_TEXT_INTERRUPT] = "interrupt",
    [DOUBLE_TEXT_STEER] = "steer",
};

const char *double_text_name(enum double_text policy)
{
    ensure((size_t) policy < ARRAY_COUNT(names));
    return names[policy];
}

bool double_text_parse(str text, enum double_text *out)
{
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (str_equal(text, str_from_cstr(names[i]))) {
            *out = (enum double_text) i;
            return true;
        }
    return false;
}

/* ---- rows ---- */

static bool list_inbox(struct orchestrator *o, struct context *ctx, uuid tenant_id, uuid session_id,
                       struct records *out, struct error *e)
{
    struct query query = query_of(TABLE_SESSION_INBOX);
    query_where_uuid(&query, SESSION_INBOX_SESSION_ID, session_id);
    query.limit = STORE_PAGE_MAX;
    return store_list(o->parts.store, ctx, tenant_id, &query, out, e) ||
           error_wrap(e, "messages that wait");
}

static bool is_mode(const struct record *entry, enum double_text mode)
{
    return str_equal(record_text(entry, SESSION_INBOX_MODE), str_from_cstr(names[mode]));
}

static bool is_of(const struct record *entry, uuid run_id)
{
    return uuid_equal(record_uuid(entry, SESSION_INBOX_RUN_ID), run_id);
}

/* Whose turn is next: who interrupts, then in the order they came.  NULL: nobody. */
static const struct record *first_but(const struct records *inbox, uuid run_id)
{
    const struct record *first = NULL;
    for (size_t i = 0; i < inbox->count; i++) {
        const struct record *entry = &inbox->items[i];
        if (is_of(entry, run_id))
            continue;
        if (is_mode(entry, DOUBLE_TEXT_INTERRUPT))
            return entry;
        if (!first || FAULT("plant.queue-jump")) /* a bug put in on purpose: the last comes first */
            first = entry;
    }
    return first;
}

static const struct record *find_entry(const struct records *inbox, uuid run_id)
{
    for (size_t i = 0; i < inbox->count; i++)
        if (is_of(&inbox->items[i], run_id))
            return &inbox->items[i];
    return NULL;
}

/* The last UPDATE of SESSIONS holds only while nobody has come or gone. */
static void where_count(struct batch *batch, const struct record *session)
{
    struct write *write = &batch->writes[batch->count - 1];
    write->where_column = SESSIONS_INBOX_COUNT;
    write->where_value = session->values[SESSIONS_INBOX_COUNT];
    if (!record_has(session, SESSIONS_INBOX_COUNT))
        write->where_value = (struct value){.is_null = true};
}

static void add_to_count(struct batch *batch, uuid session_id, int64_t change)
{
    struct record *row = batch_add(batch, WRITE_ADD, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, session_id);
    record_set_integer(row, SESSIONS_INBOX_COUNT, change);
}

static void remove_entry(struct batch *batch, const struct record *entry)
{
    struct record *row = batch_add(batch, WRITE_DELETE, TABLE_SESSION_INBOX);
    record_set_uuid(row, SESSION_INBOX_SESSION_ID, record_uuid(entry, SESSION_INBOX_SESSION_ID));
    record_set_uuid(row, SESSION_INBOX_ID, record_uuid(entry, SESSION_INBOX_ID));
}

struct pending_row {
    uuid run_id, session_id;
    str agent, model, user_id;
    enum priority priority;
    int64_t now_us;
};
static void add_pending_run(struct batch *batch, const struct pending_row *pending)
{
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, pending->run_id);
    record_set_uuid(row, AGENT_RUNS_SESSION_ID, pending->session_id);
    record_set_text(row, AGENT_RUNS_STATUS, S("pending"));
    record_set_integer(row, AGENT_RUNS_STARTED_AT, pending->now_us);
    record_set_text(row, AGENT_RUNS_COST,
                    S("{\"tokens\":0,\"time_ms\":0,\"cost_nanousd\":\"0\",\"tool_calls\":0}"));
    record_set_text(row, AGENT_RUNS_AGENT, pending->agent);
    record_set_text(row, AGENT_RUNS_MODEL, pending->model);
    record_set_text(row, AGENT_RUNS_USER_ID, pending->user_id);
    record_set_text(
        row, AGENT_RUNS_METADATA, /* the rest when it begins */
        str_printf(batch->arena, "{\"priority\":\"%s\"}", priority_name(pending->priority)));
    record_set_integer(row, AGENT_RUNS_LAST_SEQ, 0);
}

static enum priority priority_of_entry(const struct record *entry)
{
    return priority_of_text(record_text(entry, SESSION_INBOX_PRINCIPAL));
}

/* A message that was to steer has no run's row until its turn has come. */
static void add_row_of_next(struct orchestrator *o, struct batch *batch,
                            const struct record *session, const struct record *next)
{
    if (!is_mode(next, DOUBLE_TEXT_STEER))
        return;
    add_pending_run(batch, &(struct pending_row){
                               .run_id = record_uuid(next, SESSION_INBOX_RUN_ID),
                               .session_id = record_uuid(session, SESSIONS_ID),
                               .agent = record_text(session, SESSIONS_AGENT),
                               .model = record_text(next, SESSION_INBOX_MODEL),
                               .user_id = record_text(session, SESSIONS_USER_ID),
                               .priority = priority_of_entry(next),
                               .now_us = clock_unix_us(o->parts.clock),
                           });
}

/* ---- a message comes ---- */

static str principal_text(struct arena *arena, const struct inbox_message *message)
{
    const struct principal *principal = message->principal;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 8192);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("user_id"), principal->user_id);
    json_put_str(&w, S("caller_id"), principal->caller_id);
    json_put_str(&w, S("role"), message->role);
    json_put_str(&w, S("priority"), str_from_cstr(priority_name(message->priority)));
    if (principal->has_key_budget)
        json_put_str(&w, S("key_id"), uuid_str(arena, principal->key_id));
    json_object_end(&w);
    return strbuf_str(&text);
}

static void add_entry(struct arena *arena, struct batch *batch, const struct inbox_message *message,
                      uuid id)
{
    const struct run_request *request = message->request;
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_SESSION_INBOX);
    record_set_uuid(row, SESSION_INBOX_SESSION_ID, request->session_id);
    record_set_uuid(row, SESSION_INBOX_ID, id);
    record_set_text(row, SESSION_INBOX_MODE, str_from_cstr(names[message->mode]));
    record_set_text(row, SESSION_INBOX_CONTENT, request->content);
    if (!str_is_empty(request->parts))
        record_set_text(row, SESSION_INBOX_PARTS,
                        str_printf(arena, "{\"content\":" STR_FMT "}", STR_ARG(request->parts)));
    record_set_text(row, SESSION_INBOX_MODEL, message->model);
    record_set_text(row, SESSION_INBOX_PRINCIPAL, principal_text(arena, message));
    record_set_uuid(row, SESSION_INBOX_RUN_ID, message->run_id);
    record_set_integer(row, SESSION_INBOX_CREATED_AT, message->now_us);
}

static void gather_message(struct orchestrator *o, struct context *ctx, struct batch *batch,
                           const struct inbox_message *message, uuid id)
{
    uuid session_id = message->request->session_id;
    struct record *session = batch_add(batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, session_id);
    record_set_integer(session, SESSIONS_UPDATED_AT, message->now_us);
    batch_where_uuid(batch, SESSIONS_LIVE_RUN_ID,
                     record_uuid(message->session, SESSIONS_LIVE_RUN_ID));
    session = batch_add(batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, session_id);
    record_set_integer(session, SESSIONS_INBOX_COUNT,
                       record_integer(message->session, SESSIONS_INBOX_COUNT) + 1);
    where_count(batch, message->session);
    add_entry(ctx->arena, batch, message, id);
    if (message->mode != DOUBLE_TEXT_STEER)
        add_pending_run(batch, &(struct pending_row){.run_id = message->run_id,
                                                     .session_id = session_id,
                                                     .agent = message->agent,
                                                     .model = message->model,
                                                     .user_id = message->user_id,
                                                     .priority = message->priority,
                                                     .now_us = message->now_us});
    audit_add(batch, o->parts.clock, o->parts.random, message->principal,
              &(struct audit_entry){
                  .action = S("message.wait"),
                  .resource_type = S("session"),
                  .resource_id = uuid_str(ctx->arena, session_id),
                  .details = str_printf(ctx->arena, "{\"mode\":\"%s\",\"run_id\":\"" STR_FMT "\"}",
                                        names[message->mode],
                                        STR_ARG(uuid_str(ctx->arena, message->run_id))),
              });
}

/* Ids are the order: behind all that wait, also those that a node with another wall time took. */
static bool draw_id(struct orchestrator *o, struct context *ctx,
                    const struct inbox_message *message, uuid *out, struct error *e)
{
    struct records inbox;
    *out = uuid_new(o->parts.clock, o->parts.random);
    if (record_integer(message->session, SESSIONS_INBOX_COUNT) == 0)
        return true;
    if (!list_inbox(o, ctx, message->principal->tenant_id, message->request->session_id, &inbox, e))
        return false;
    for (size_t i = 0; i < inbox.count; i++)
        *out = uuid_after(*out, record_uuid(&inbox.items[i], SESSION_INBOX_ID));
    return true;
}

bool session_inbox_add(struct orchestrator *o, struct context *ctx,
                       const struct inbox_message *message, struct error *e)
{
    const struct run_request *request = message->request;
    struct batch batch;
    uuid id;
    if (request->content.len + request->parts.len > SESSION_INBOX_MESSAGE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE,
                         "a message that waits may have %u bytes; send it when the live run has "
                         "ended",
                         SESSION_INBOX_MESSAGE_BYTES_MAX);
    if (record_integer(message->session, SESSIONS_INBOX_COUNT) >= SESSION_INBOX_MAX)
        return error_set(e, REASON_SESSION_BUSY,
                         "%d messages wait in this session already; wait for them or cancel them",
                         SESSION_INBOX_MAX);
    batch_init(&batch, ctx->arena, message->principal->tenant_id);
    batch.fault = "inbox_add";
    if (!draw_id(o, ctx, message, &id, e))
        return false;
    gather_message(o, ctx, &batch, message, id);
    if (!store_commit(o->parts.store, ctx, &batch, e))
        return false;
    uuid live = record_uuid(message->session, SESSIONS_LIVE_RUN_ID);
    if (message->mode == DOUBLE_TEXT_INTERRUPT)
        run_spawn_cancelled(o, message->principal->tenant_id, request->session_id, live,
                            message->principal->user_id);
    run_tell_inbox(o, message->principal->tenant_id, request->session_id, live);
    return true;
}

bool session_waiting(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                     uuid session_id, struct records *out, struct error *e)
{
    struct record *session = ARENA_NEW(ctx->arena, struct record);
    return session_get(o, ctx, principal, session_id, session, e) &&
           list_inbox(o, ctx, principal->tenant_id, session_id, out, e);
}

/* ---- the live run hears of it ---- */

static bool is_removed_by(const struct batch *batch, const struct record *entry)
{
    uuid id = record_uuid(entry, SESSION_INBOX_ID);
    for (size_t i = 0; i < batch->count; i++) {
        const struct write *write = &batch->writes[i];
        if (write->op == WRITE_DELETE && write->record.table == TABLE_SESSION_INBOX &&
            uuid_equal(record_uuid(&write->record, SESSION_INBOX_ID), id))
            return true;
    }
    return false;
}

/* What waits but for what the live run has taken: the store has that until its next append. */
static bool list_untaken(struct run *run, struct records *out, struct error *e)
{
    size_t kept = 0;
    if (!list_inbox(run->o, &run->shield, run->tenant_id, run->session_id, out, e))
        return false;
    for (size_t i = 0; i < out->count; i++)
        if (!is_removed_by(&run->journal.batch, &out->items[i]))
            out->items[kept++] = out->items[i];
    out->count = kept;
    return true;
}

bool session_inbox_hear(struct run *run, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS), *row;
    if (!run->is_inbox_told)
        return true;
    run->is_inbox_told = false; /* before the look: what is told during it is looked at again */
    row = ARENA_NEW(run->arena, struct record);
    record_set_uuid(&key, SESSIONS_ID, run->session_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, row, e))
        return error_wrap(e, "session of the run");
    run->session.values[SESSIONS_INBOX_COUNT] = row->values[SESSIONS_INBOX_COUNT];
    run->session.has |= row->has & 1u << SESSIONS_INBOX_COUNT;
    record_set_text(&run->session, SESSIONS_STATUS,
                    str_copy(run->arena, record_text(row, SESSIONS_STATUS)));
    return true;
}

static uuid take(struct run *run, const struct record *entry)
{
    uuid id = run_new_id(run, RUN_ID_STEERING, 0, STR_NONE);
    str content = record_text(entry, SESSION_INBOX_CONTENT);
    struct json_writer *w = journal_event(&run->journal, EVENT_MESSAGE_ADDED);
    json_put_str(w, S("message_id"), uuid_str(run->turn, id));
    json_put_str(w, S("role"), S("user"));
    json_key(w, S("label"));
    label_write_json(w, (struct label){.origins = LABEL_USER});
    json_put_bool(w, S("steers"), true);
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_MESSAGES);
    run_message_row(row, run, id, ROLE_USER, content, (int64_t) (content.len + 3) / 4,
                    record_text(entry, SESSION_INBOX_PARTS));
    remove_entry(&run->journal.batch, entry);
    add_to_count(&run->journal.batch, run->session_id, -1);
    return id;
}

bool session_inbox_steer(struct run *run, struct error *e)
{
    struct records inbox;
    int64_t taken = 0;
    if (!session_inbox_hear(run, e))
        return false;
    if (record_integer(&run->session, SESSIONS_INBOX_COUNT) == 0)
        return true;
    if (!list_untaken(run, &inbox, e))
        return false;
    for (size_t i = 0; i < inbox.count; i++) {
        const struct record *entry = &inbox.items[i];
        if (!is_mode(entry, DOUBLE_TEXT_STEER))
            continue;
        size_t first = run->message_count;
        uuid id = take(run, entry);
        if (!run_prompt_add_user(run, record_text(entry, SESSION_INBOX_CONTENT),
                                 record_text(entry, SESSION_INBOX_PARTS), e))
            return false;
        run_prompt_rows(run, first, id);
        taken++;
    }
    record_set_integer(&run->session, SESSIONS_INBOX_COUNT,
                       record_integer(&run->session, SESSIONS_INBOX_COUNT) - taken);
    return true;
}

/* ---- the live run ends ---- */

bool session_inbox_look(struct run *run, struct error *e)
{
    struct records *inbox = ARENA_NEW(run->turn, struct records);
    run->next = NULL;
    if (!session_inbox_hear(run, e))
        return false;
    if (record_integer(&run->session, SESSIONS_INBOX_COUNT) == 0)
        return true;
    if (!list_untaken(run, inbox, e))
        return false;
    run->next = first_but(inbox, run->run_id);
    return true;
}

/* `session` stands in the batch, which may move it. */
static void name_next(struct run *run, struct batch *batch, struct record *session)
{
    run->next_run_id = UUID_NONE;
    if (!run->next)
        return;
    run->next_run_id = record_uuid(run->next, SESSION_INBOX_RUN_ID);
    run->next_priority = priority_of_entry(run->next);
    record_set_uuid(session, SESSIONS_LIVE_RUN_ID, run->next_run_id);
    add_row_of_next(run->o, batch, &run->session, run->next);
}

void session_inbox_pass_on(struct run *run, struct record *session)
{
    struct batch *batch = &run->journal.batch;
    record_set_null(session, SESSIONS_LIVE_RUN_ID);
    where_count(batch, &run->session);
    name_next(run, batch, session);
}

/* The row of the session by whose count of messages the batch may be stored; NULL: it ends no run. */
static struct write *session_write(const struct batch *batch)
{
    for (size_t i = 0; i < batch->count; i++)
        if (batch->writes[i].record.table == TABLE_SESSIONS &&
            batch->writes[i].op == WRITE_UPDATE &&
            batch->writes[i].where_column == SESSIONS_INBOX_COUNT)
            return &batch->writes[i];
    return NULL;
}

/* What was to steer got its run's row with its turn, which is another one's now. */
static void take_row_back(struct batch *batch, uuid run_id)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct write *write = &batch->writes[i];
        if (write->op != WRITE_INSERT || write->record.table != TABLE_AGENT_RUNS ||
            !uuid_equal(record_uuid(&write->record, AGENT_RUNS_ID), run_id))
            continue;
        memmove(&batch->writes[i], &batch->writes[i + 1],
                (batch->count - i - 1) * sizeof *batch->writes);
        batch->count--;
        return;
    }
}

/* What the batch itself makes of the count, by what the run has taken. */
static int64_t count_change(const struct batch *batch)
{
    int64_t change = 0;
    for (size_t i = 0; i < batch->count; i++)
        if (batch->writes[i].record.table == TABLE_SESSIONS && batch->writes[i].op == WRITE_ADD)
            change += record_integer(&batch->writes[i].record, SESSIONS_INBOX_COUNT);
    return change;
}

bool session_inbox_mend(struct run *run, struct batch *batch)
{
    struct error e = {0};
    if (!session_write(batch))
        return false;
    run->is_inbox_told = true;
    if (!session_inbox_look(run, &e))
        return false;
    int64_t count = record_integer(&run->session, SESSIONS_INBOX_COUNT) + count_change(batch);
    struct value *known = &session_write(batch)->where_value;
    if (count == (known->is_null ? 0 : known->integer))
        return false; /* it was something else */
    record_set_integer(&run->session, SESSIONS_INBOX_COUNT, count);
    if (!uuid_is_none(run->next_run_id))
        take_row_back(batch, run->next_run_id);
    struct write *write = session_write(batch);
    write->where_value = run->session.values[SESSIONS_INBOX_COUNT];
    record_set_null(&write->record, SESSIONS_LIVE_RUN_ID);
    name_next(run, batch, &write->record);
    return true;
}

/* ---- its turn ---- */

struct turn {
    struct run *run;
    const struct records *inbox;
    const struct record *entry; /* its own */
    struct principal principal;
    struct run_grant grant;
    struct fence fence;
    struct batch batch;
    struct error refusal;
};

static void publish(const struct batch_notice *notice)
{
    journal_publish(notice->owner, notice->id, notice->source, notice->number);
}

static bool read_principal(struct turn *t, struct error *e)
{
    const struct json *tree;
    struct run *run = t->run;
    str key_id;
    if (!json_parse(run->turn, record_text(t->entry, SESSION_INBOX_PRINCIPAL),
                    (struct json_limits){0}, &tree, e))
        return error_wrap(e, "who sent a message that waits");
    t->principal = (struct principal){
        .tenant_id = run->tenant_id,
        .user_id = json_str_or(tree, S("user_id"), run->principal.user_id),
        .caller_id = json_str_or(tree, S("caller_id"), run->principal.caller_id),
        .role = json_str_or(tree, S("role"), run->principal.role),
        .priority = priority_said(json_str_or(tree, S("priority"), STR_NONE)),
    };
    key_id = json_str_or(tree, S("key_id"), STR_NONE);
    t->principal.has_key_budget = !str_is_empty(key_id) && uuid_parse(key_id, &t->principal.key_id);
    return role_level_parse(t->principal.role, &t->principal.level) ||
           error_set(e, REASON_CORRUPT, "message of the unknown role \"" STR_FMT "\"",
                     STR_ARG(t->principal.role));
}

static void begin_batch(struct turn *t, const char *fault)
{
    struct run *run = t->run;
    batch_init(&t->batch, run->turn, run->tenant_id);
    t->batch.fault = fault;
    t->batch.notice =
        (struct batch_notice){.run = publish, .owner = run->o->hub, .id = run->run_id, .number = 1};
}

static void write_beginning(struct turn *t, struct run_beginning *b)
{
    struct run *run = t->run;
    uuid message_id;
    b->run_id = run->run_id;
    b->session_id = run->session_id;
    b->principal = &t->principal;
    b->user_id = run->principal.user_id;
    b->role = t->principal.role;
    b->agent =
        str_is_empty(t->grant.agent) ? record_text(&run->session, SESSIONS_AGENT) : t->grant.agent;
    b->agent_version = t->grant.agent_version;
    b->model =
        str_is_empty(t->grant.model) ? record_text(t->entry, SESSION_INBOX_MODEL) : t->grant.model;
    b->workflow = t->grant.workflow.pinned;
    b->content = record_text(t->entry, SESSION_INBOX_CONTENT);
    b->parts = record_text(t->entry, SESSION_INBOX_PARTS);
    b->budget = t->grant.workflow.entry ? t->grant.workflow.budget : COST_LIMITLESS;
    b->now_us = clock_unix_us(run->o->parts.clock);
    b->decision = t->grant.is_decided ? &t->grant.decision : NULL;
    b->is_pending = true;
    b->trace = run->trace;
    remove_entry(&t->batch, t->entry);
    agent_workflow_pin(run->o, run->turn, &t->batch, &t->grant.workflow);
    run_begin_write(run->o, run->turn, &t->batch, b, &message_id);
}

static bool commit_beginning(struct turn *t, struct error *e)
{
    struct run *run = t->run;
    struct run_beginning *b = ARENA_NEW(run->turn, struct run_beginning);
    *b = (struct run_beginning){.epoch = t->grant.epoch};
    begin_batch(t, "inbox_begin");
    t->fence = (struct fence){run->session_id, run->o->parts.node, t->grant.epoch};
    t->batch.fence = &t->fence;
    add_to_count(&t->batch, run->session_id, -1);
    write_beginning(t, b);
    return store_commit(run->o->parts.store, &run->shield, &t->batch, e);
}

/* It may not begin (any more): it ends, and the session is the next one's. */
static bool commit_failure(struct turn *t, struct error *e)
{
    struct run *run = t->run;
    struct run_beginning *b = ARENA_NEW(run->turn, struct run_beginning);
    *b = (struct run_beginning){
        .epoch = t->grant.epoch, .keeps_session = true, .failure = &t->refusal};
    if (run->is_cancel_asked) {
        b->failure = NULL;
        b->cancelled_by = run->cancelled_by;
    }
    begin_batch(t, "inbox_begin");
    t->fence = (struct fence){run->session_id, run->o->parts.node, t->grant.epoch};
    t->batch.fence = &t->fence;
    const struct record *next = first_but(t->inbox, run->run_id);
    struct record *session = batch_add(&t->batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, run->session_id);
    record_set_integer(session, SESSIONS_INBOX_COUNT,
                       record_integer(&run->session, SESSIONS_INBOX_COUNT) - 1);
    record_set_null(session, SESSIONS_LIVE_RUN_ID);
    if (next)
        record_set_uuid(session, SESSIONS_LIVE_RUN_ID, record_uuid(next, SESSION_INBOX_RUN_ID));
    where_count(&t->batch, &run->session);
    write_beginning(t, b);
    if (next)
        add_row_of_next(run->o, &t->batch, &run->session, next);
    if (!store_commit(run->o->parts.store, &run->shield, &t->batch, e))
        return false;
    if (next) {
        run->next_run_id = record_uuid(next, SESSION_INBOX_RUN_ID);
        run->next_priority = priority_of_entry(next);
    }
    return true;
}

/* Somebody interrupts the run that is about to begin: it is heard, and ends. */
static void hear_interruption(struct turn *t)
{
    struct run *run = t->run;
    for (size_t i = 0; i < t->inbox->count; i++) {
        const struct record *entry = &t->inbox->items[i];
        if (is_of(entry, run->run_id) || !is_mode(entry, DOUBLE_TEXT_INTERRUPT) ||
            run->is_cancel_asked)
            continue;
        run->cancelled_by = str_copy(run->keep, t->principal.user_id);
        run->is_cancel_asked = true;
        context_cancel(&run->ctx);
    }
}

static bool begin(struct turn *t, struct error *e)
{
    struct run *run = t->run;
    if (!read_principal(t, e))
        return false;
    struct run_question question = {
        .session = &run->session,
        .principal = &t->principal,
        .role = t->principal.role,
        .model = record_text(t->entry, SESSION_INBOX_MODEL),
        .content = record_text(t->entry, SESSION_INBOX_CONTENT),
    };
    bool may_begin = run_ask(run->o, &run->shield, &question, &t->grant, &t->refusal);
    bool is_ours = t->grant.epoch > 0 && t->refusal.code != ERROR_UNAVAILABLE &&
                   t->refusal.code != ERROR_CANCELLED;
    if (may_begin)
        hear_interruption(t);
    bool ok = may_begin ? commit_beginning(t, e)
              : is_ours ? commit_failure(t, e)
                        : error_copy(e, &t->refusal);
    agent_workflow_release(&t->grant.workflow);
    return ok;
}

/* Not its turn, and it is not wanted any more. */
static bool withdraw(struct turn *t, uuid live, struct error *e)
{
    struct run *run = t->run;
    struct run_beginning *b = ARENA_NEW(run->turn, struct run_beginning);
    *b = (struct run_beginning){.epoch = record_integer(&run->session, SESSIONS_OWNER_EPOCH),
                                .keeps_session = true,
                                .cancelled_by = run->cancelled_by};
    if (!read_principal(t, e))
        return false;
    begin_batch(t, "inbox_withdraw");
    struct record *session = batch_add(&t->batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, run->session_id);
    record_set_integer(session, SESSIONS_UPDATED_AT, clock_unix_us(run->o->parts.clock));
    batch_where_uuid(&t->batch, SESSIONS_LIVE_RUN_ID, live); /* else its turn may have come */
    add_to_count(&t->batch, run->session_id, -1);
    write_beginning(t, b);
    return store_commit(run->o->parts.store, &run->shield, &t->batch, e);
}

static bool wait_for_turn(struct turn *t, uuid live, struct error *e)
{
    struct run *run = t->run;
    if (run->is_cancel_asked)
        return withdraw(t, live, e);
    run->is_out_of_turn = true;
    if (is_mode(t->entry, DOUBLE_TEXT_INTERRUPT)) /* after a crash nobody else would tell it */
        run_spawn_cancelled(run->o, run->tenant_id, run->session_id, live,
                            record_text(&run->session, SESSIONS_USER_ID));
    return true;
}

/* The session belongs to nobody: the first that waits gets it. */
static bool give_to_first(struct run *run, const struct records *inbox, uuid *first_id,
                          struct error *e)
{
    const struct record *first = first_but(inbox, UUID_NONE);
    struct batch batch;
    *first_id = UUID_NONE;
    if (!first)
        return true;
    batch_init(&batch, run->turn, run->tenant_id);
    batch.fault = "inbox_rescue";
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, run->session_id);
    record_set_uuid(row, SESSIONS_LIVE_RUN_ID, record_uuid(first, SESSION_INBOX_RUN_ID));
    batch_where_null(&batch, SESSIONS_LIVE_RUN_ID);
    add_row_of_next(run->o, &batch, &run->session, first);
    if (!store_commit(run->o->parts.store, &run->shield, &batch, e))
        return false;
    *first_id = record_uuid(first, SESSION_INBOX_RUN_ID);
    return true;
}

/* Its message is not in the inbox: the live run may have taken it (steer), or somebody taken it back, since its row was read. */
static never_inline bool was_taken_meanwhile(struct run *run, bool *is_out_of_turn, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS), row;
    record_set_uuid(&key, AGENT_RUNS_ID, run->run_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, &row, e))
        return false;
    *is_out_of_turn = !str_equal(record_text(&row, AGENT_RUNS_STATUS),
                                 str_from_cstr(run_status_name(RUN_PENDING)));
    return *is_out_of_turn || error_set(e, REASON_CORRUPT, "a pending run has no message");
}

bool session_inbox_begin(struct run *run, struct error *e)
{
    struct turn *t = ARENA_NEW(run->turn, struct turn);
    struct records *inbox = ARENA_NEW(run->turn, struct records);
    uuid live = record_uuid(&run->session, SESSIONS_LIVE_RUN_ID);
    run->is_out_of_turn = false;
    if (!list_inbox(run->o, &run->shield, run->tenant_id, run->session_id, inbox, e))
        return false;
    *t = (struct turn){.run = run, .inbox = inbox, .entry = find_entry(inbox, run->run_id)};
    if (!t->entry)
        return was_taken_meanwhile(run, &run->is_out_of_turn, e);
    if (uuid_is_none(live) && !give_to_first(run, inbox, &live, e))
        return false;
    if (!uuid_equal(live, run->run_id)) {
        if (uuid_is_none(record_uuid(&run->session, SESSIONS_LIVE_RUN_ID)))
            run_wake(run->o, &run->shield, run->tenant_id, run->session_id, live);
        return wait_for_turn(t, live, e);
    }
    run->is_out_of_turn = session_is_paused(&run->session);
    return run->is_out_of_turn || begin(t, e);
}

void session_inbox_rescue(struct run *run)
{
    struct records inbox;
    struct error e = {0};
    uuid first = UUID_NONE;
    if (!list_inbox(run->o, &run->shield, run->tenant_id, run->session_id, &inbox, &e) ||
        !give_to_first(run, &inbox, &first, &e))
        LOG_ERROR("orchestrator.session",
                  S("messages wait for a run that is gone; they go on at the next start"), &e);
    else if (!uuid_is_none(first))
        run_wake(run->o, &run->shield, run->tenant_id, run->session_id, first);
}
