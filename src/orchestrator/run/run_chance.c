#include "orchestrator/run_internal.h"

uuid run_new_id(struct run *run, enum run_id_kind kind, size_t index, str name)
{
    const struct run_oracle *oracle = run->o->oracle;
    return oracle ? oracle->new_id(oracle->owner, kind, index, name)
                  : uuid_new(run->o->parts.clock, run->o->parts.random);
}

cost run_remaining(struct run *run)
{
    const struct run_oracle *oracle = run->o->oracle;
    return oracle ? oracle->remaining(oracle->owner) : ledger_remaining(run->o->ledger, &run->path);
}

int64_t run_new_wait(struct run *run, int64_t least_ms, int64_t most_ms)
{
    const struct run_oracle *oracle = run->o->oracle;
    if (oracle)
        return oracle->wait_ms(oracle->owner, least_ms, most_ms);
    return most_ms -
           (int64_t) random_below(run->o->parts.random, (uint64_t) (most_ms - least_ms) + 1);
}
