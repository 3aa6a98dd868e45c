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
