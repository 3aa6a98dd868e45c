#include "base/fault.h"
#include "orchestrator/run_internal.h"

/* Ids are the order of a conversation, whichever node with whichever clock goes on with it. */
static bool is_message(enum run_id_kind kind)
{
    return kind == RUN_ID_MESSAGE || kind == RUN_ID_STOPPED || kind == RUN_ID_SUMMARY ||
           kind == RUN_ID_STEERING || kind == RUN_ID_OUTPUT;
}

uuid run_new_id(struct run *run, enum run_id_kind kind, size_t index, str name)
{
    const struct run_oracle *oracle = run->o->oracle;
    if (FAULT("plant.replay-drift")) /* a bug put in on purpose: chance that the record has not */
        oracle = NULL;
    if (oracle)
        return oracle->new_id(oracle->owner, kind, index, name);
    uuid id = uuid_new(run->o->parts.clock, run->o->parts.random);
    return is_message(kind) ? uuid_after(id, run->newest_message_id) : id;
}

cost run_remaining(struct run *run)
{
    const struct run_oracle *oracle = run->o->oracle;
    return oracle ? oracle->remaining(oracle->owner) : ledger_remaining(run->o->ledger, &run->path);
}

cost run_room(struct run *run)
{
    const struct run_oracle *oracle = run->o->oracle;
    return oracle ? oracle->room(oracle->owner) : ledger_remaining(run->o->ledger, &run->path);
}

cost run_takes(struct run *run)
{
    const struct run_oracle *oracle = run->o->oracle;
    return oracle ? oracle->takes(oracle->owner) : ledger_remaining(run->o->ledger, &run->path);
}

bool run_keep_outcomes(struct run *run, struct error *e)
{
    const struct run_oracle *oracle = run->o->oracle;
    bool is_due = oracle ? oracle->is_cut(oracle->owner) : run->is_draining;
    return !is_due || run_flush(run, "run_drained", e);
}

int64_t run_new_wait(struct run *run, int64_t least_ms, int64_t most_ms)
{
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle)
        return oracle->wait_ms(oracle->owner, least_ms, most_ms);
    return most_ms -
           (int64_t) random_below(run->o->parts.random, (uint64_t) (most_ms - least_ms) + 1);
}
