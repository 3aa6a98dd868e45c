/*
 * Run state: the fold of a run's journal.  Pure C, no I/O: unit-tested, simulated, fuzzed; replay, fork and diff are the same fold.
 *
 *   state = fold(event 1 .. n)        run_state_apply, one event at a time, in order
 *   command = next(state)             run_state_next: what the shell (run.c) should do now
 *
 *      PENDING --run.started--> RUNNING --(approvals open, nothing else to do)--> WAITING --approval.decided--> RUNNING
 *      RUNNING | WAITING --run.completed|failed|cancelled--> final; nothing follows a final event
 *
 * Rules the fold keeps (a violation is REASON_CORRUPT, the event changes nothing):
 *   seq rises by one; nothing after a final event; one model attempt in flight at most; attempts rise;
 *   a call made by a guest is intended while its parent is, and done before it;
 *   a tool call is intended only after its model.completed and not twice for one attempt; it completes once;
 *   no model call is made before the last answer's tool calls are done;
 *   a reservation is settled at most once; a tool call has one open reservation at most; no amount is negative;
 *   a run that waits has no open reservation (so a start need not look at it), one that ends has none and no live child.
 * At a resume, what was in flight shows: a model attempt in flight is lost (settle at its reservation, attempt n+1); a tool call
 * intended but not completed may have happened: repeat when safe (pure or idempotent by its effect key), else `unknown`.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_STATE_H
#define NEXUS_ORCHESTRATOR_RUN_STATE_H

#include "orchestrator/journal/event.h"

struct workflow_state;

enum run_status { RUN_PENDING, RUN_RUNNING, RUN_WAITING, RUN_COMPLETED, RUN_FAILED, RUN_CANCELLED };
const char *run_status_name(enum run_status status);
bool run_status_parse(str text, enum run_status *out);
bool run_status_is_final(enum run_status status);

enum call_state {
    CALL_REQUESTED, /* the model asked; not decided */
    CALL_AWAITING,  /* approval requested */
    CALL_APPROVED,  /* approval given, not consumed yet */
    CALL_CLIENT,    /* the client's own: its result is waited for */
    CALL_INTENDED,  /* journaled, may have happened */
    CALL_CHILD,     /* an agent's: its run is begun and its end is waited for */
    CALL_DONE,      /* tool.completed, whatever its status */
};
struct call {
    uuid id;
    str call_id; /* the model's */
    str name;
    enum call_state state;
    int attempts;
    uuid approval_id;
    str digest; /* of what the approval was asked for */
    str approver;
    uuid reservation_id;
    str effect_key;
    str status;              /* of tool.completed: succeeded, failed, denied, unknown */
    struct call *parent;     /* the call whose guest made this one; NULL: the model's */
    bool has_nested_effects; /* its guest made calls that must not happen twice: never repeat it */
    uuid child_run_id;       /* of an agent's call */
    bool is_handoff;         /* ... whose answer is the run's */
};
struct child {
    uuid run_id, tool_call_id; /* tool_call_id: UUID_NONE when it is a step's */
    struct child *next_free;
};
/* A run that this one began: what is left of it when it has ended, so that it is not begun twice. */
struct child_place {
    uuid run_id;         /* UUID_NONE: a free place */
    struct child *child; /* NULL: it has ended */
};
struct open_reservation {
    uuid id;
    cost amount;
    str shares; /* ledger_cover_text: what of it is counted as leased, where nodes share a store */
    bool is_model;
    uuid tool_call_id;
    int64_t at_us; /* when it was made */
};

struct vote_tally { /* of one approval: votes that the journal has */
    uuid approval_id;
    int64_t count;
};

struct run_state {
    struct arena *arena; /* where strings and arrays live: longer than the events' own trees */
    enum run_status status;
    int64_t last_seq;
    str agent, model, user_id;
    str client_tools, response_format; /* JSON text, or empty */
    int64_t max_output_tokens;         /* of one model call; 0: the agent's */
    uuid question_id, answer_id;
    bool is_cancelling;
    bool is_pausing; /* an instance whose session is paused while its steps are at work */
    str cancelled_by;
    int step;    /* model calls completed */
    int attempt; /* newest model attempt, over all steps */
    bool model_in_flight;
    uuid model_reservation_id;
    int failed_in_a_row; /* failed attempts of this step */
    bool step_is_final;  /* the last model.completed asked for no tool */
    str finish;
    struct call *calls; /* of the last step, in the model's order */
    size_t call_count;
    struct call **nested; /* calls that guests of these made; they never move */
    size_t nested_count, nested_capacity;
    struct child **children; /* that are alive, in the order in which they were begun */
    size_t child_count, child_capacity;
    struct child *child_free;         /* of one that has ended: used again */
    struct child_place *child_places; /* of the whole run, by id; a power of two of them */
    size_t child_place_count, children_begun;
    struct workflow_state
        *workflow; /* of a workflow's instance (workflow_state.h); NULL: an agent's run */
    int64_t tool_calls_total;
    int64_t approvals_asked;
    struct vote_tally *tallies;
    size_t tally_count, tally_capacity;
    struct open_reservation *reservations;
    size_t reservation_count, reservation_capacity;
    cost spent;              /* sum of settlements */
    str node;                /* that began or resumed it last */
    bool is_winding_down;    /* the budget is spent: one last call sums up */
    unsigned degraded_steps; /* a bit for each of the agent's that was taken */
    bool is_toolless;        /* the model is offered no tools any more */
    bool has_earlier_answer; /* its answer is an earlier one's */
    str degraded;            /* what was taken and why, for people */
    str wind_down_why;
    str loop_stopped; /* what was repeated too often; the run ends with what it has */
    int64_t epoch;
    str error, error_message;
};

void run_state_init(struct run_state *state, struct arena *arena);
must_check bool run_state_apply(struct run_state *state, const struct event *event,
                                struct error *e);

enum run_command_kind {
    RUN_DO_NOTHING,      /* final */
    RUN_DO_LOSE_ATTEMPT, /* at a resume: settle the attempt in flight at its reservation */
    RUN_DO_RECOVER_CALL, /* at a resume: `call` was intended: repeat it or call it unknown */
    RUN_DO_CALLS,        /* decide and run the calls in state REQUESTED or APPROVED */
    RUN_DO_WAIT,         /* for approvals, results of the client and child runs */
    RUN_DO_MODEL,        /* the next model call */
    RUN_DO_COMPLETE,
    RUN_DO_CANCEL,   /* append run.cancelled */
    RUN_DO_WORKFLOW, /* everything, of a workflow's instance (workflow_run.h) */
};
struct run_command {
    enum run_command_kind kind;
    struct call *call;
};
struct run_command run_state_next(const struct run_state *state);
struct call *run_state_call(const struct run_state *state, uuid id);
struct open_reservation *run_state_reservation(const struct run_state *state, uuid id);
int64_t run_state_votes(const struct run_state *state, uuid approval_id);
struct child *run_state_child(const struct run_state *state,
                              uuid run_id); /* that is alive; NULL: none */
size_t run_state_live_children(const struct run_state *state);

#endif
