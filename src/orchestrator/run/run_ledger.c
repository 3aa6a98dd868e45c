#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/approval/approval.h"
#include "orchestrator/session/session_inbox.h"

static void put_id(struct json_writer *w, const char *key, uuid id)
{
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(id, text);
    json_put_str(w, str_from_cstr(key), str_of(text, UUID_TEXT_BYTES));
}

static void hold(struct run *run, uuid id, cost amount, const struct ledger_cover *cover)
{
    if (run->held_count == run->held_capacity) {
        size_t capacity = run->held_capacity ? run->held_capacity * 2 : 8;
        run->held = arena_grow(run->keep, run->held, run->held_capacity * sizeof *run->held,
                               capacity * sizeof *run->held);
        run->held_capacity = capacity;
    }
    run->held[run->held_count++] =
        (struct held_reservation){.id = id, .amount = amount, .cover = *cover};
}

static struct held_reservation *find_held(struct run *run, uuid id)
{
    for (size_t i = 0; i < run->held_count; i++)
        if (uuid_equal(run->held[i].id, id))
            return &run->held[i];
    return NULL;
}

static void unhold(struct run *run, struct held_reservation *held)
{
    *held = run->held[--run->held_count];
}

/* What was used and is not durable yet counts at its reservation: it is made durable before there is too little. */
static bool reserve(struct run *run, cost amount, struct ledger_cover *cover, struct error *e)
{
    struct ledger *ledger = run->o->ledger;
    struct error refusal = {0};
    if (ledger_reserve_in(ledger, &run->shield, &run->path, amount, cover, &refusal))
        return true;
    if (refusal.reason != REASON_BUDGET || run->unsure_count == 0 ||
        !journal_has_pending(&run->journal))
        return error_copy(e, &refusal);
    return run_flush(run, "budget", e) &&
           ledger_reserve_in(ledger, &run->shield, &run->path, amount, cover, e);
}

bool run_has_room(struct run *run)
{
    cost pending = {0}, left;
    if (run->unsure_count == 0)
        return true;
    for (size_t i = 0; i < run->unsure_count; i++) {
        const struct settlement *settlement = &run->unsure[i].settlement;
        cost used = cost_min(settlement->used, settlement->reserved);
        pending = cost_add(pending, cost_subtract(settlement->reserved, used));
    }
    left = run_remaining(run);
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t of_field = *cost_field(&left, i);
        if (of_field != COST_UNLIMITED && of_field / RUN_ROOM_FACTOR < *cost_field(&pending, i))
            return false;
    }
    return true;
}

bool run_reserve(struct run *run, const char *purpose, uuid tool_call_id, cost amount, uuid *id,
                 struct error *e)
{
    struct ledger *ledger = run->o->ledger;
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle && !oracle->reserve(oracle->owner, e))
        return false;
    cost before = oracle ? run_remaining(run) : COST_LIMITLESS;
    struct error refusal = {0};
    struct ledger_cover cover;
    bool is_reserved =
        run->is_last_call && ledger_reserve_last(ledger, &run->path, amount, &cover, &refusal);
    if (!is_reserved && !reserve(run, amount, &cover, e))
        return false;
    *id = run_new_id(run, RUN_ID_RESERVATION, 0, STR_NONE);
    hold(run, *id, amount, &cover);
    struct json_writer *w = journal_event(&run->journal, EVENT_BUDGET_RESERVED);
    put_id(w, "reservation_id", *id);
    json_put_str(w, S("for"), str_from_cstr(purpose));
    json_key(w, S("amount"));
    cost_write_json(w, amount);
    json_key(w, S("remaining"));
    cost_write_json(w,
                    oracle ? cost_subtract(before, amount) : ledger_remaining(ledger, &run->path));
    if (!uuid_is_none(tool_call_id))
        put_id(w, "tool_call_id", tool_call_id);
    str shares = ledger_cover_text(run->turn, &cover);
    if (str_is_empty(shares))
        return true;
    json_put_str(w, S("shares"), shares);
    journal_close_event(&run->journal);
    ledger_reserved_write(ledger, &run->path, amount, &cover, &run->journal.batch);
    return true;
}

static void journal_alert(struct run *run, const struct ledger_alert *alert)
{
    struct json_writer *w = journal_event(&run->journal, EVENT_BUDGET_ALERTED);
    json_put_str(w, S("level"), str_from_cstr(account_level_name(alert->level)));
    json_put_str(w, S("subject"), alert->subject);
    json_put_str(w, S("resource"), str_from_cstr(alert->resource));
    json_put_i64(w, S("threshold"), alert->threshold);
    journal_close_event(&run->journal);
}

void run_settle(struct run *run, uuid reservation_id, const struct settlement *settlement)
{
    struct settlement booked = *settlement;
    struct ledger_alerts *alerts = ARENA_NEW(run->turn, struct ledger_alerts);
    struct json_writer *w = journal_event(&run->journal, EVENT_BUDGET_SETTLED);
    put_id(w, "reservation_id", reservation_id);
    json_put_str(w, S("for"), str_from_cstr(settlement->kind));
    json_key(w, S("amount"));
    cost_write_json(w, settlement->used);
    json_put_str(w, S("basis"), str_from_cstr(settlement->basis));

    const struct held_reservation *held = find_held(run, reservation_id);
    ensure(held != NULL);
    booked.cover = held->cover;
    journal_close_event(&run->journal);
    ledger_settle(run->o->ledger, &run->path, &booked, &run->journal.batch, alerts);
    if (run->o->oracle)
        run->o->oracle->alerts(run->o->oracle->owner, alerts);
    if (run->unsure_count == run->unsure_capacity) {
        size_t capacity = run->unsure_capacity ? run->unsure_capacity * 2 : 8;
        run->unsure = arena_grow(run->keep, run->unsure, run->unsure_capacity * sizeof *run->unsure,
                                 capacity * sizeof *run->unsure);
        run->unsure_capacity = capacity;
    }
    bool is_folded = run->journal.failure.code == ERROR_OK;
    run->unsure[run->unsure_count++] = (struct unsure_settlement){
        .reservation_id = reservation_id,
        .settlement = booked,
        .seq = is_folded ? run->state.last_seq : INT64_MAX,
    };
    for (int i = 0; i < alerts->count; i++)
        journal_alert(run, &alerts->items[i]);
}

static void confirm(struct run *run, const struct unsure_settlement *unsure)
{
    ledger_settled(run->o->ledger, &run->path, &unsure->settlement);
    unhold(run, find_held(run, unsure->reservation_id));
}

/* An append has succeeded: those before it that were not seen in the journal can not be applied any more, their numbers are taken. */
static void settle_doubts(struct run *run)
{
    for (size_t i = 0; i < run->held_count;) {
        struct held_reservation *held = &run->held[i];
        bool is_journaled = run_state_reservation(&run->state, held->id) != NULL;
        if (!held->is_doubted || is_journaled) {
            held->is_doubted = false;
            i++;
            continue;
        }
        ledger_release(run->o->ledger, &run->path, held->amount);
        unhold(run, held);
    }
}

void run_ledger_sure(struct run *run)
{
    for (size_t i = 0; i < run->unsure_count; i++)
        if (!run->unsure[i].is_doubted)
            confirm(run, &run->unsure[i]);
    run->unsure_count = 0;
    settle_doubts(run);
}

/* ---- after a reload, one node ---- */

static void reconcile_settlements(struct run *run)
{
    for (size_t i = 0; i < run->unsure_count; i++)
        if (run->unsure[i].seq <= run->state.last_seq &&
            !run_state_reservation(&run->state, run->unsure[i].reservation_id))
            confirm(run, &run->unsure[i]); /* the journal has it: it was applied */
        else
            ledger_not_settled(run->o->ledger, &run->path);
    run->unsure_count = 0;
}

static void reconcile_held(struct run *run)
{
    for (size_t i = 0; i < run->held_count;) {
        if (run_state_reservation(&run->state, run->held[i].id)) {
            i++;
            continue;
        }
        ledger_release(run->o->ledger, &run->path, run->held[i].amount);
        unhold(run, &run->held[i]);
    }
}

/*
 * ---- after a reload, where nodes share a store ----
 * There a commit that was given up may still be applied, until the next append takes its place; and another node may have gone on with
 * the run.  What is not known is taken at its worst: the node may count less of its share than it has, never more.
 */

/* Which of several settlements of it was applied is not told: the one that leaves least. */
static void confirm_worst(struct run *run, const struct unsure_settlement *first)
{
    struct unsure_settlement worst = *first;
    for (size_t i = 0; i < run->unsure_count; i++)
        if (uuid_equal(run->unsure[i].reservation_id, worst.reservation_id))
            worst.settlement.used = cost_max(worst.settlement.used, run->unsure[i].settlement.used);
    confirm(run, &worst);
}

static void reconcile_shared_settlements(struct run *run, bool was_elsewhere)
{
    size_t kept = 0;
    for (size_t i = 0; i < run->unsure_count; i++) {
        struct unsure_settlement *unsure = &run->unsure[i];
        bool is_open = run_state_reservation(&run->state, unsure->reservation_id) != NULL;
        bool is_applied = !is_open && unsure->seq <= run->state.last_seq && !was_elsewhere;
        if (!is_applied)
            ledger_not_settled(run->o->ledger, &run->path);
        else if (find_held(run, unsure->reservation_id))
            confirm_worst(run, unsure);
        unsure->is_doubted = true;
    }
    for (size_t i = 0; i < run->unsure_count; i++)
        if (find_held(run, run->unsure[i].reservation_id))
            run->unsure[kept++] = run->unsure[i];
    run->unsure_count = kept;
}

static void reconcile_shared(struct run *run)
{
    bool was_elsewhere = !str_equal(run->state.node, run->o->parts.node);
    reconcile_shared_settlements(run, was_elsewhere);
    for (size_t i = 0; i < run->held_count;) {
        struct held_reservation *held = &run->held[i];
        bool is_open = run_state_reservation(&run->state, held->id) != NULL;
        if (is_open || !was_elsewhere) {
            held->is_doubted = !is_open;
            i++;
            continue;
        }
        ledger_forget(run->o->ledger, &run->path, held->amount); /* the other node has settled it */
        unhold(run, held);
    }
}

void run_ledger_reconcile(struct run *run)
{
    struct ledger *ledger = run->o->ledger;
    if (ledger_is_shared(ledger)) {
        reconcile_shared(run);
    } else {
        reconcile_settlements(run);
        reconcile_held(run);
    }
    for (size_t i = 0; i < run->state.reservation_count; i++) {
        struct open_reservation *open = &run->state.reservations[i];
        struct ledger_cover cover = ledger_cover_parse(open->shares);
        if (find_held(run, open->id))
            continue;
        ledger_hear_time(ledger, open->at_us);
        ledger_restore(ledger, &run->path, open->amount);
        hold(run, open->id, open->amount, &cover);
    }
}

void run_ledger_removed(struct run *run)
{
    if (ledger_is_shared(run->o->ledger))
        return; /* another node may have ended it: what it held counts as used until its room is given back */
    for (size_t i = 0; i < run->unsure_count; i++)
        if (run->unsure[i].seq < INT64_MAX)
            confirm(run, &run->unsure[i]);
    run->unsure_count = 0;
}

/* Where nodes share a store what the journal has reserved is the run's: it takes its room along. */
void run_ledger_drop(struct run *run)
{
    bool is_shared = ledger_is_shared(run->o->ledger);
    for (size_t i = 0; i < run->held_count; i++)
        (is_shared ? ledger_forget : ledger_release)(run->o->ledger, &run->path,
                                                     run->held[i].amount);
    run->unsure_count = run->held_count = 0;
}

static never_inline bool is_buried(struct run *run)
{
    return run->has_path && ledger_share_is_gone(run->o->ledger, &run->shield, &run->path);
}

static bool flush(struct run *run, const char *fault, struct journal_mend mend, struct error *e)
{
    struct error failure = {0};
    if (journal_flush_mended(&run->journal, &run->shield, fault, mend, &failure)) {
        run_ledger_sure(run);
        return true;
    }
    if (failure.code == ERROR_NOT_FOUND && is_buried(run))
        return error_set(e, REASON_FENCED,
                         "this node was taken for dead: its share of the budget is gone");
    return error_copy(e, &failure);
}

static bool mend(void *owner, struct batch *batch)
{
    return run_approval_mend(owner, batch);
}

bool run_flush(struct run *run, const char *fault, struct error *e)
{
    return flush(run, fault, (struct journal_mend){mend, run}, e);
}

static bool mend_end(void *owner, struct batch *batch)
{
    bool is_mended = run_approval_mend(owner, batch);
    return session_inbox_mend(owner, batch) || is_mended;
}

bool run_flush_end(struct run *run, const char *fault, struct error *e)
{
    return flush(run, fault, (struct journal_mend){mend_end, run}, e);
}
