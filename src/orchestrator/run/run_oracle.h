/*
 * Run oracle: what a replay puts in place of chance.
 *
 * A run is determined by its journal but for a few things that come from outside: ids, what the accounts have left, which target the router
 * takes, how long is waited.  Live, they come from the random source, the ledger and the router; in a replay (run_replay.h) from the recording.  An
 * orchestrator has no oracle, or one, and then it lives for one run alone.
 * Thread: the run's loop.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_ORACLE_H
#define NEXUS_ORCHESTRATOR_RUN_ORACLE_H

#include "base/cost.h"
#include "base/error.h"
#include "base/uuid.h"
#include "orchestrator/journal/journal.h"
#include "orchestrator/ledger/ledger.h"
#include "orchestrator/run/agent_definition.h"

enum run_id_kind {
    RUN_ID_RESERVATION,
    RUN_ID_MESSAGE,   /* of the answer that ends now */
    RUN_ID_TOOL_CALL, /* `index` of its calls */
    RUN_ID_APPROVAL,
    RUN_ID_NESTED_CALL, /* of a guest, to the tool `name` */
    RUN_ID_STOPPED,     /* what a run that went in circles ends with */
    RUN_ID_SUMMARY,     /* message of a summary */
    RUN_ID_STEERING,    /* message that steers the run */
    RUN_ID_OUTPUT,      /* message of a workflow's output */
};

struct run_oracle {
    void *owner;
    uuid run_id; /* no other run comes to life */
    struct journal_tap tap;
    uuid (*new_id)(void *owner, enum run_id_kind kind, size_t index, str name);
    /* What the accounts have left before the reservation or decision that comes next. */
    cost (*remaining)(void *owner);
    /* What they had left when the conversation of the next model call was made to fit. */
    cost (*room)(void *owner);
    /* The same for the size of the next reservation: no more than it took. */
    cost (*takes)(void *owner);
    /* May the next reservation be made?  REASON_BUDGET as it was recorded. */
    bool (*reserve)(void *owner, struct error *e);
    /* The target of the next attempt: provider and the provider's name of the model. */
    bool (*target)(void *owner, str *provider, str *model, struct error *e);
    /* Was the call to that target made, once it was decided on?  False: why not, as far as the record has it. */
    bool (*may_call)(void *owner, struct error *e);
    str (*environment)(void *owner); /* that the next event which may name one does; empty: none */
    /* Milliseconds until another attempt, `least` to `most`. */
    int64_t (*wait_ms)(void *owner, int64_t least, int64_t most);
    /* Thresholds that the settlement told just now has passed. */
    void (*alerts)(void *owner, struct ledger_alerts *out);
    /* Did the run do this next, when it was refused what it asked for? */
    bool (*does)(void *owner, enum event_type type);
    /* Is the next model call not even tried, because little is left or the node is overloaded? */
    bool (*degrades)(void *owner, enum degrade_when *when);
    /* The earlier answer that the run gives; texts as its message's row keeps them. */
    bool (*earlier)(void *owner, uuid *run_id, str *answer, str *metadata);
    /* Did the node stop or die here, with all that is journaled so far in the store? */
    bool (*is_cut)(void *owner);
    /* Was this run begun, that a step asks for?  True: *range names the version of its workflow, where that is known; false: why not. */
    bool (*child)(void *owner, uuid child_run_id, str *range, struct error *e);
    bool (*may_go_on)(
        void *owner); /* is another attempt made after the failure that is told now? */
};

#endif
