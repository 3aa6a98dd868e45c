/*
 * Damage: the journal does not fold, or is not appended to though the store works.  The run can neither go on nor end by its journal.
 *
 *      its children end --> [ its rows: `failed`, error `corrupt`; what it may have used is booked; its session is free ] one commit
 *
 * The events stay as they are, for whoever looks into it.  When not even that can be stored it is parked: it leaves memory, and the next
 * start tries again.
 * Children are found by their rows, for what begun them may be what cannot be read.
 * What was reserved is found in the events that can be read, each for itself: what of it no settlement is readable of is booked at its
 * worst, so that spent + reserved never was less than what may have been spent.  A reservation whose settlement cannot be read is booked
 * twice; what stands in a `budget.reserved` that cannot be read is known to nobody: it is not booked, and where nodes share a store it stays
 * leased.  Where its own rows are what cannot be read nobody knows its accounts: nothing is booked.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/run/run_child.h"
#include "orchestrator/session/session_inbox.h"

/* ---- its children ---- */

struct ending {
    struct run *run;
    size_t live;
};

/* In their rows first: who dies now goes on with it at the next start. */
static bool note_cancel(struct run *run, const struct records *children, struct error *e)
{
    struct batch batch;
    batch_init(&batch, run->turn, run->tenant_id);
    for (size_t i = 0; i < children->count; i++) {
        if (record_has(&children->items[i], AGENT_RUNS_CANCEL_BY))
            continue;
        struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
        record_set_uuid(row, AGENT_RUNS_ID, record_uuid(&children->items[i], AGENT_RUNS_ID));
        record_set_text(row, AGENT_RUNS_CANCEL_BY, RUN_CANCELLED_BY_PARENT);
    }
    return batch.count == 0 || store_commit(run->o->parts.store, &run->shield, &batch, e);
}

static never_inline bool cancel_page(struct ending *ending, struct query *query, struct error *e)
{
    struct run *run = ending->run;
    struct records children;
    if (!store_list(run->o->parts.store, &run->shield, run->tenant_id, query, &children, e) ||
        !note_cancel(run, &children, e))
        return false;
    for (size_t i = 0; i < children.count; i++)
        run_spawn_cancelled(
            run->o, run->tenant_id, record_uuid(&children.items[i], AGENT_RUNS_SESSION_ID),
            record_uuid(&children.items[i], AGENT_RUNS_ID), RUN_CANCELLED_BY_PARENT);
    ending->live += children.count;
    query->cursor = children.next_cursor;
    return true;
}

static never_inline bool cancel_live(struct ending *ending, struct error *e)
{
    static const enum run_status live[] = {RUN_PENDING, RUN_RUNNING, RUN_WAITING};
    ending->live = 0;
    for (size_t i = 0; i < ARRAY_COUNT(live); i++) {
        struct query query = query_of(TABLE_AGENT_RUNS);
        query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, ending->run->run_id);
        query_where_text(&query, AGENT_RUNS_STATUS, str_from_cstr(run_status_name(live[i])));
        do {
            if (!cancel_page(ending, &query, e))
                return false;
        } while (!str_is_empty(query.cursor));
    }
    return true;
}

/* A replay is of one run: there are no others. */
static bool end_children(struct run *run, struct error *e)
{
    struct ending ending = {.run = run, .live = 1};
    run_is_loaded(run); /* children that end must load: it may not stand in their way */
    while (!run->o->oracle) {
        struct error woken;
        arena_mark mark = arena_save(run->turn);
        run->is_woken = false;
        if (!cancel_live(&ending, e))
            return false;
        arena_rewind(run->turn, mark);
        if (ending.live == 0)
            return true;
        if (run->is_draining)
            return error_set(e, REASON_CANCELLED, "the node stops before the child runs have");
        if (!run->is_woken)
            (void) !condition_wait_until(&run->woken, &run->shield,
                                         context_deadline_in(&run->shield, RUN_CHILD_LOOK_MS),
                                         &woken);
    }
    return true;
}

/* ---- what it has reserved ---- */

static void take_reserved(struct run_state *state, const struct json *data)
{
    struct open_reservation open = {0};
    str shares = json_str_or(data, S("shares"), STR_NONE);
    if (!uuid_parse(json_str_or(data, S("reservation_id"), STR_NONE), &open.id) ||
        run_state_reservation(state, open.id) ||
        !cost_read_json(json_get(data, S("amount")), &open.amount))
        return;
    if (state->reservation_count == state->reservation_capacity) {
        size_t capacity = state->reservation_capacity ? state->reservation_capacity * 2 : 4;
        state->reservations =
            arena_grow(state->arena, state->reservations, state->reservation_capacity * sizeof open,
                       capacity * sizeof open);
        state->reservation_capacity = capacity;
    }
    open.shares = str_copy(state->arena, shares);
    open.is_model = str_equal(json_str_or(data, S("for"), STR_NONE), S("model"));
    state->reservations[state->reservation_count++] = open;
}

static void take_settled(struct run_state *state, const struct json *data)
{
    uuid id;
    struct open_reservation *open =
        uuid_parse(json_str_or(data, S("reservation_id"), STR_NONE), &id)
            ? run_state_reservation(state, id)
            : NULL;
    if (open)
        *open = state->reservations[--state->reservation_count];
}

static void take_event(struct run_state *state, const struct event *event)
{
    if (event->type == EVENT_BUDGET_RESERVED)
        take_reserved(state, event->data);
    else if (event->type == EVENT_BUDGET_SETTLED)
        take_settled(state, event->data);
    if (event->type == EVENT_RUN_STARTED)
        state->model = str_copy(state->arena, json_str_or(event->data, S("model"), STR_NONE));
    if (event->type == EVENT_RUN_STARTED || event->type == EVENT_RUN_RESUMED)
        state->node = str_copy(state->arena, json_str_or(event->data, S("node"), state->node));
}

/* What else a state is made of stays empty: the run ends here.  Events that cannot be read are passed over. */
static never_inline bool scan_journal(struct run *run, struct error *e)
{
    struct query query = query_of(TABLE_RUN_EVENTS);
    arena_reset(run->arena);
    run_state_init(&run->state, run->arena);
    run->messages = NULL;
    run->message_count = run->message_capacity = run->offered_count = 0;
    query_where_uuid(&query, RUN_EVENTS_RUN_ID, run->run_id);
    query.order_column = RUN_EVENTS_SEQ;
    do {
        struct records rows;
        struct event event;
        arena_mark mark = arena_save(run->turn);
        if (!store_list(run->o->parts.store, &run->shield, run->tenant_id, &query, &rows, e))
            return false;
        for (size_t i = 0; i < rows.count; i++) {
            struct error unreadable = {0};
            run->state.last_seq = record_integer(&rows.items[i], RUN_EVENTS_SEQ);
            if (journal_decode(run->turn, &rows.items[i], &event, &unreadable))
                take_event(&run->state, &event);
        }
        query.cursor = str_copy(run->arena, rows.next_cursor);
        arena_rewind(run->turn, mark);
    } while (!str_is_empty(query.cursor));
    return true;
}

/* What it may have used is booked at its worst: the ledger holds what its journal has open. */
static struct settlement *settle_all(struct run *run, struct batch *batch)
{
    struct settlement *all = ARENA_ARRAY(run->turn, struct settlement, run->held_count);
    for (size_t i = 0; i < run->held_count; i++) {
        const struct open_reservation *open = run_state_reservation(&run->state, run->held[i].id);
        bool is_model = open && open->is_model;
        all[i] = (struct settlement){
            .reserved = run->held[i].amount,
            .used = run->held[i].amount,
            .cover = run->held[i].cover,
            .kind = is_model ? "model" : "tool",
            .basis = "reserved",
            .model = is_model ? run->state.model : STR_NONE,
        };
        ledger_settle(run->o->ledger, &run->path, &all[i], batch, NULL);
    }
    return all;
}

/* ---- its rows ---- */

static void write_rows(struct run *run, const struct error *failure, struct batch *batch)
{
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
    record_set_text(row, AGENT_RUNS_STATUS, str_from_cstr(run_status_name(RUN_FAILED)));
    record_set_integer(row, AGENT_RUNS_COMPLETED_AT, clock_unix_us(run->o->parts.clock));
    record_set_text(row, AGENT_RUNS_ERROR, str_from_cstr(error_problem(REASON_CORRUPT)));
    record_set_text(row, AGENT_RUNS_ERROR_MESSAGE,
                    str_copy(run->turn, str_from_cstr(failure->message)));
    row = batch_add(batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, run->session_id);
    record_set_null(row, SESSIONS_LIVE_RUN_ID);
    batch_where_uuid(batch, SESSIONS_LIVE_RUN_ID, run->run_id);
}

static never_inline bool commit_end(struct run *run, const struct error *failure, struct error *e)
{
    struct batch batch;
    struct fence fence = {run->session_id, run->o->parts.node, run->epoch};
    bool is_writer = run->epoch > 0;
    batch_init(&batch, run->turn, run->tenant_id);
    batch.fence = is_writer ? &fence : NULL;
    write_rows(run, failure, &batch);
    struct settlement *settlements = is_writer && run->has_path ? settle_all(run, &batch) : NULL;
    if (!store_commit(run->o->parts.store, &run->shield, &batch, e))
        return false;
    for (size_t i = 0; settlements && i < run->held_count; i++)
        ledger_settled(run->o->ledger, &run->path, &settlements[i]);
    if (settlements)
        run->held_count = 0;
    return true;
}

/* Its row may say that it ended long ago: of that nothing is taken back. */
static bool has_ended(struct run *run, bool *out, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS), *row = ARENA_NEW(run->turn, struct record);
    enum run_status status;
    record_set_uuid(&key, AGENT_RUNS_ID, run->run_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, row, e))
        return false;
    *out = run_status_parse(record_text(row, AGENT_RUNS_STATUS), &status) &&
           run_status_is_final(status);
    return true;
}

static never_inline bool end_damaged(struct run *run, const struct error *failure, bool is_read,
                                     struct error *e)
{
    bool is_known = is_read || run->epoch == 0; /* or its own rows are what is damaged */
    return end_children(run, e) &&
           (is_known || (scan_journal(run, e) && run_hold_reserved(run, e))) &&
           commit_end(run, failure, e);
}

void run_bury(struct run *run, const struct error *failure, bool is_read)
{
    struct error e = {0};
    bool is_over = false;
    if (has_ended(run, &is_over, &e) && is_over) {
        LOG_ERROR("orchestrator.run", S("the journal of a run that has ended is damaged"), failure,
                  LOG_STR("nexus.run.id", uuid_str(run->turn, run->run_id)));
        return;
    }
    e = (struct error){0};
    run->is_buried = end_damaged(run, failure, is_read, &e);
    LOG_ERROR("orchestrator.run", S("a run is damaged"), failure,
              LOG_STR("nexus.run.id", uuid_str(run->turn, run->run_id)),
              LOG_STR("nexus.run.outcome", run->is_buried ? S("failed") : S("parked")));
    if (!run->is_buried)
        LOG_ERROR("orchestrator.run", S("the end of a damaged run was not stored"), &e);
    metrics_add(run->o->parts.metrics, METRIC_RUNS_DAMAGED, 1,
                (str[]){run->is_buried ? S("failed") : S("parked")}, 1);
    if (run->is_buried)
        session_inbox_rescue(run);
}
