#include "orchestrator/journal/journal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/timefmt.h"

enum { BATCH_ARENA_BYTES = 32 << 20 };

/* ---- writing ---- */

static void start_batch(struct journal_writer *w)
{
    batch_init(&w->batch, w->arena, w->tenant_id);
    w->batch_number++;
    w->fence = (struct fence){.session_id = w->session_id, .node = w->node, .epoch = w->epoch};
    w->batch.fence = &w->fence;
}

/* The store calls it once the events are durable: only then may readers look for them. */
static void publish(const struct batch_notice *notice)
{
    journal_publish(notice->owner, notice->id, notice->source, notice->number);
}

static void offer_events(struct journal_writer *w)
{
    if (!journal_is_followed(w->hub, w->run_id))
        return;
    for (size_t i = 0; i < w->batch.count; i++) {
        const struct record *row = &w->batch.writes[i].record;
        struct event event = {0};
        if (row->table != TABLE_RUN_EVENTS ||
            !event_type_parse(record_text(row, RUN_EVENTS_TYPE), &event.type))
            continue;
        event.seq = record_integer(row, RUN_EVENTS_SEQ);
        event.at_us = record_integer(row, RUN_EVENTS_AT);
        journal_offer(w->hub, w->run_id, w->number, &event, record_text(row, RUN_EVENTS_DATA));
    }
}

/*
 * Each batch moves the run's last_seq from where the batch before left it.  So when a posted batch was lost, the next one fails with
 * CONFLICT instead of leaving a gap in the journal.
 */
static void seal_batch(struct journal_writer *w)
{
    bool has_events = w->state->last_seq > w->flushed_seq; /* without, it says nothing of them */
    if (has_events) {
        struct record *run = batch_add(&w->batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
        record_set_uuid(run, AGENT_RUNS_ID, w->run_id);
        record_set_integer(run, AGENT_RUNS_LAST_SEQ, w->state->last_seq);
        batch_where_integer(&w->batch, AGENT_RUNS_LAST_SEQ, w->flushed_seq);
        offer_events(w);
        w->flushed_seq = w->state->last_seq;
    }
    w->batch.notice = (struct batch_notice){.run = publish,
                                            .owner = w->hub,
                                            .id = w->run_id,
                                            .number = has_events ? w->state->last_seq : 0,
                                            .source = w->number};
}

void journal_writer_init(struct journal_writer *w, struct store *store, struct journal_hub *hub,
                         struct clock *clock, struct run_state *state, uuid tenant_id,
                         uuid session_id, uuid run_id, str node, int64_t epoch)
{
    *w = (struct journal_writer){
        .store = store,
        .hub = hub,
        .clock = clock,
        .state = state,
        .tenant_id = tenant_id,
        .session_id = session_id,
        .run_id = run_id,
        .node = node,
        .epoch = epoch,
        .flushed_seq = state->last_seq,
        .arena = arena_create(BATCH_ARENA_BYTES),
    };
    w->number = journal_begin(hub, run_id);
    start_batch(w);
}

void journal_writer_deinit(struct journal_writer *w)
{
    arena_destroy(w->arena);
    w->arena = NULL;
}

/* Ends the event being written: it becomes a row of the batch and is folded into the state. */
void journal_close_event(struct journal_writer *w)
{
    if (!w->is_open)
        return;
    w->is_open = false;
    json_object_end(&w->json);
    struct event event = {
        .seq = w->state->last_seq + 1,
        .type = w->open_type,
        .at_us = w->open_at_us,
    };
    str data = strbuf_str(&w->data);
    if (w->failure.code != ERROR_OK)
        return;
    if (strbuf_is_over(&w->data)) {
        error_set(&w->failure, REASON_TOO_LARGE, "journal event %s is over %u bytes",
                  event_type_name(event.type), SSE_EVENT_BYTES_MAX);
        return;
    }
    if (!json_parse(w->arena, data, (struct json_limits){0}, &event.data, &w->failure) ||
        !run_state_apply(w->state, &event, &w->failure))
        return;
    if (FAULT("plant.torn-journal") && event.type == EVENT_MODEL_COMPLETED)
        return; /* a bug put in on purpose: an event is folded and not written */
    struct record *row = batch_add(&w->batch, WRITE_INSERT, TABLE_RUN_EVENTS);
    record_set_uuid(row, RUN_EVENTS_RUN_ID, w->run_id);
    record_set_integer(row, RUN_EVENTS_SEQ, event.seq);
    record_set_text(row, RUN_EVENTS_TYPE, str_from_cstr(event_type_name(event.type)));
    record_set_integer(row, RUN_EVENTS_VERSION, event_type_version(event.type));
    record_set_integer(row, RUN_EVENTS_AT, event.at_us);
    record_set_text(row, RUN_EVENTS_DATA, data);
    if (w->tap)
        w->tap->appended(w->tap->owner, &event);
}

static int64_t now_us(struct journal_writer *w, enum event_type type)
{
    if (w->tap)
        return w->tap->at_us(w->tap->owner, type);
    return w->held_us > 0 ? w->held_us : clock_unix_us(w->clock);
}

void journal_hold_time(struct journal_writer *w)
{
    w->held_us = clock_unix_us(w->clock);
}

void journal_free_time(struct journal_writer *w)
{
    w->held_us = 0;
}

int64_t journal_now_us(struct journal_writer *w)
{
    return w->is_open ? w->open_at_us : now_us(w, EVENT_POLICY_DECIDED);
}

struct json_writer *journal_event(struct journal_writer *w, enum event_type type)
{
    journal_close_event(w);
    w->is_open = true;
    w->open_type = type;
    w->open_at_us = now_us(w, type);
    strbuf_init(&w->data, w->arena, SSE_EVENT_BYTES_MAX);
    json_writer_init(&w->json, &w->data);
    json_object_begin(&w->json);
    return &w->json;
}

struct record *journal_row(struct journal_writer *w, enum write_op op, enum table table)
{
    journal_close_event(w);
    return batch_add(&w->batch, op, table);
}

bool journal_has_pending(const struct journal_writer *w)
{
    return w->is_open || w->batch.count > 0;
}

static bool take_failure(struct journal_writer *w, struct error *e)
{
    journal_close_event(w);
    return w->failure.code == ERROR_OK || error_copy(e, &w->failure);
}

static void forget_batch(struct journal_writer *w)
{
    arena_reset(w->arena);
    start_batch(w);
}

static bool commit(struct journal_writer *w, struct context *ctx, struct journal_mend mend,
                   struct error *e)
{
    for (int mended = 0;; mended++) {
        struct error failure = {0};
        if (store_commit(w->store, ctx, &w->batch, &failure))
            return true;
        if (failure.reason != REASON_CONFLICT || !mend.fn || mended == JOURNAL_MENDS_MAX ||
            !mend.fn(mend.owner, &w->batch))
            return error_copy(e, &failure);
    }
}

bool journal_flush(struct journal_writer *w, struct context *ctx, const char *fault,
                   struct error *e)
{
    return journal_flush_mended(w, ctx, fault, (struct journal_mend){0}, e);
}

bool journal_flush_mended(struct journal_writer *w, struct context *ctx, const char *fault,
                          struct journal_mend mend, struct error *e)
{
    if (!take_failure(w, e))
        return false;
    if (w->batch.count == 0)
        return true;
    w->batch.fault = fault;
    seal_batch(w);
    bool is_durable = commit(w, ctx, mend, e);
    forget_batch(w);
    if (!is_durable)
        return error_wrap(e, "journal");
    if (w->tap)
        w->tap->flushed(w->tap->owner);
    return true;
}

bool journal_post(struct journal_writer *w, struct error *e)
{
    if (!take_failure(w, e))
        return false;
    if (w->batch.count == 0)
        return true;
    w->batch.fault = "";
    seal_batch(w);
    bool is_queued = store_submit(w->store, &w->batch, e);
    forget_batch(w);
    if (!is_queued)
        return error_wrap(e, "journal");
    return true;
}

/* ---- an event as readers see it: content joined from its row ---- */

static bool join_message(struct store *store, struct context *ctx, uuid tenant_id, uuid id,
                         struct json_writer *w, struct error *e)
{
    struct record key = record_of(TABLE_MESSAGES), row;
    record_set_uuid(&key, MESSAGES_ID, id);
    if (!store_get(store, ctx, tenant_id, &key, &row, e))
        return e->code == ERROR_NOT_FOUND; /* retention removed it: the event stays readable */
    json_put_str(w, S("content"), record_text(&row, MESSAGES_CONTENT));
    if (record_has(&row, MESSAGES_PARTS))
        json_put_raw(w, S("parts"), record_text(&row, MESSAGES_PARTS));
    return true;
}

static bool join_tool_call(struct store *store, struct context *ctx, uuid tenant_id, uuid id,
                           bool is_intent, struct json_writer *w, struct error *e)
{
    struct record key = record_of(TABLE_TOOL_CALLS), row;
    record_set_uuid(&key, TOOL_CALLS_ID, id);
    if (!store_get(store, ctx, tenant_id, &key, &row, e))
        return e->code == ERROR_NOT_FOUND;
    if (is_intent)
        json_put_raw(w, S("input"), record_text(&row, TOOL_CALLS_INPUT));
    else if (record_has(&row, TOOL_CALLS_OUTPUT))
        json_put_raw(w, S("output"), record_text(&row, TOOL_CALLS_OUTPUT));
    return true;
}

static bool join_content(struct store *store, struct context *ctx, uuid tenant_id,
                         const struct event *event, struct json_writer *w, struct error *e)
{
    uuid id;
    struct error missing = {0};
    bool is_message = event->type == EVENT_MESSAGE_ADDED || event->type == EVENT_MODEL_COMPLETED ||
                      event->type == EVENT_RUN_COMPLETED;
    bool is_intent = event->type == EVENT_TOOL_INTENDED || event->type == EVENT_TOOL_REQUESTED;
    bool is_call = is_intent || event->type == EVENT_TOOL_COMPLETED;
    if (!is_message && !is_call)
        return true;
    str member = is_message ? S("message_id") : S("tool_call_id");
    if (!uuid_parse(json_str_or(event->data, member, STR_NONE), &id))
        return true;
    bool ok = is_message ? join_message(store, ctx, tenant_id, id, w, &missing)
                         : join_tool_call(store, ctx, tenant_id, id, is_intent, w, &missing);
    return ok || error_copy(e, &missing);
}

bool journal_write_event(struct store *store, struct context *ctx, uuid tenant_id,
                         const struct event *event, bool data_only, struct json_writer *w,
                         struct error *e)
{
    if (!data_only) {
        json_object_begin(w);
        json_put_i64(w, S("seq"), event->seq);
        json_put_str(w, S("type"), str_from_cstr(event_type_name(event->type)));
        json_put_str(w, S("at"), time_str(ctx->arena, event->at_us));
        json_key(w, S("data"));
    }
    json_object_begin(w);
    struct json_iter it = json_iter(event->data);
    str key;
    const struct json *item;
    while (json_next(&it, &key, &item))
        json_put_value(w, key, item);
    if (!join_content(store, ctx, tenant_id, event, w, e))
        return false;
    json_object_end(w);
    if (!data_only)
        json_object_end(w);
    return true;
}
