#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "orchestrator/run_internal.h"

static void put_id(struct json_writer *w, const char *key, uuid id)
{
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(id, text);
    json_put_str(w, str_from_cstr(key), str_of(text, UUID_TEXT_BYTES));
}

static void hold(struct run *run, uuid id, cost amount)
{
    if (run->held_count == run->held_capacity) {
        size_t capacity = run->held_capacity ? run->held_capacity * 2 : 8;
        run->held = arena_grow(run->keep, run->held, run->held_capacity * sizeof *run->held,
                               capacity * sizeof *run->held);
        run->held_capacity = capacity;
    }
    run->held[run->held_count++] = (struct held_reservation){id, amount};
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

bool run_reserve(struct run *run, const char *purpose, uuid tool_call_id, cost amount, uuid *id,
                 struct error *e)
{
    struct ledger *ledger = run->o->ledger;
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle && !oracle->reserve(oracle->owner, e))
        return false;
    cost before = oracle ? run_remaining(run) : COST_LIMITLESS;
    struct error refusal = {0};
    bool is_reserved =
        run->is_last_call && ledger_reserve_last(ledger, &run->path, amount, &refusal);
    if (!is_reserved && !ledger_reserve_in(ledger, &run->shield, &run->path, amount, e))
        return false;
    *id = run_new_id(run, RUN_ID_RESERVATION, 0, STR_NONE);
    hold(run, *id, amount);
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

    ensure(find_held(run, reservation_id) != NULL);
    journal_close_event(&run->journal);
    ledger_settle(run->o->ledger, &run->path, &booked, &run->journal.batch, alerts);
    if (run->unsure_count == run->unsure_capacity) {
        size_t capacity = run->unsure_capacity ? run->unsure_capacity * 2 : 8;
        run->unsure = arena_grow(run->keep, run->unsure, run->unsure_capacity * sizeof *run->unsure,
                                 capacity * sizeof *run->unsure);
        run->unsure_capacity = capacity;
    }
    run->unsure[run->unsure_count++] = (struct unsure_settlement){reservation_id, booked};
    for (int i = 0; i < alerts->count; i++)
        journal_alert(run, &alerts->items[i]);
}

static void confirm(struct run *run, const struct unsure_settlement *unsure)
{
    ledger_settled(run->o->ledger, &run->path, &unsure->settlement);
    unhold(run, find_held(run, unsure->reservation_id));
}

void run_ledger_sure(struct run *run)
{
    for (size_t i = 0; i < run->unsure_count; i++)
        confirm(run, &run->unsure[i]);
    run->unsure_count = 0;
}

/* Where nodes share a store: the run was another node's, which has the room of what is open in its share. */
static void adopt(struct run *run, cost amount)
{
    struct error e = {0};
    if (!ledger_adopt(run->o->ledger, &run->shield, &run->path, amount, run->state.node, &e))
        LOG_WARN("orchestrator.budget",
                 S("a reservation of another node stays in its share until it comes back"),
                 LOG_STR("error.message", str_from_cstr(e.message)));
}

void run_ledger_reconcile(struct run *run)
{
    struct ledger *ledger = run->o->ledger;
    /* Another node went on with it meanwhile, and took what was held here from our share. */
    if (ledger_is_shared(ledger) && !str_equal(run->state.node, run->o->parts.node))
        run->unsure_count = run->held_count = 0;
    for (size_t i = 0; i < run->unsure_count; i++)
        if (!run_state_reservation(&run->state, run->unsure[i].reservation_id))
            confirm(run, &run->unsure[i]); /* the journal has it: it was applied */
        else
            ledger_not_settled(ledger, &run->path);
    run->unsure_count = 0;
    for (size_t i = 0; i < run->held_count;) {
        if (run_state_reservation(&run->state, run->held[i].id)) {
            i++;
            continue;
        }
        ledger_release(ledger, &run->path, run->held[i].amount);
        unhold(run, &run->held[i]);
    }
    for (size_t i = 0; i < run->state.reservation_count; i++) {
        struct open_reservation *open = &run->state.reservations[i];
        if (find_held(run, open->id))
            continue;
        ledger_restore(ledger, &run->path, open->amount);
        hold(run, open->id, open->amount);
        adopt(run, open->amount); /* what it brings is reserved already: nobody takes it for idle */
    }
}

/* Where nodes share a store the room stays set aside here: whoever goes on with the run takes it from this node's share. */
void run_ledger_drop(struct run *run)
{
    if (run->held_count > 0 && ledger_is_shared(run->o->ledger))
        run->held_count = 0;
    for (size_t i = 0; i < run->held_count; i++)
        ledger_release(run->o->ledger, &run->path, run->held[i].amount);
    run->unsure_count = run->held_count = 0;
}

bool run_flush(struct run *run, const char *fault, struct error *e)
{
    if (!journal_flush(&run->journal, &run->shield, fault, e))
        return false;
    run_ledger_sure(run);
    return true;
}
