/*
 * Workflow state: the part of a run's fold that belongs to a workflow's instance.  Pure C, no I/O, no evaluation of expressions.
 *
 *      definition (what may happen)  +  journal (what has happened)  -->  tree of steps  -->  workflow_next: what can be done now
 *
 * The tree.  A list of steps that is being worked through is a lane; its nodes stand in the order of the list, each begins when the one
 * before has ended.  The instance has one lane; a branch has the lane of its arm, a map one per item, a loop one per round, a parallel
 * step one per arm.  The path names the place:
 *
 *      flight                      a step of the instance's own list
 *      which[1].pay                of arm 1 of the branch `which`          (from 0)
 *      each[3].book                of item 3 of the map `each`; of round 3 of a loop likewise
 *      both.left.book              of the arm `left` of the parallel step `both`
 *      each#2[3].book              in the second attempt of `each`
 *      flight~                     what undoes `flight`
 *
 * What depends on values is journaled by whoever evaluated it: a step that is skipped (run.step_completed with `skipped`), the arm of a
 * branch (`arm`, -1: none), the number of items (`count`).  A round of a loop is there when its first step is.
 *
 *      (not there) --run.step_started--> RUNNING --run.step_completed--> COMPLETED
 *           |                             |  ^ '--run.step_failed--> FAILED   (`continues`: the lane goes on)
 *           '--completed, skipped--> SKIPPED '--run.step_failed with retry_at--> RETRYING --run.step_started, attempt + 1--> RUNNING
 *
 * Rules the fold keeps (a violation is REASON_CORRUPT and changes nothing): the step around is RUNNING and no other step of the lane is
 * open; attempts rise by one; a step ends once; nothing but undoing begins after run.compensating, and only completed steps are undone,
 * each once; a signal is taken once.
 * Thread: the run's.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_WORKFLOW_STATE_H
#define NEXUS_ORCHESTRATOR_WORKFLOW_STATE_H

#include "agent/tool/labels.h"
#include "orchestrator/journal/run_state.h"
#include "workflow/definition.h"

enum step_status { STEP_RUNNING, STEP_RETRYING, STEP_COMPLETED, STEP_SKIPPED, STEP_FAILED };
const char *step_status_name(enum step_status status);

struct workflow_lane;
struct workflow_node {
    str path, id;
    enum step_kind kind;
    enum step_status status;
    int attempt;
    int overloads;  /* attempts that this node had no room for: they count for no `retry` */
    bool continues; /* FAILED, and the lane goes on */
    struct workflow_lane *lane; /* where it stands; of what undoes a step: that step's */
    struct workflow_node *undoes, *undo;
    int64_t order;                    /* of completion, from 1; 0: not completed */
    int64_t started_us, ended_us;     /* of the newest attempt; 0: not yet */
    int64_t timeout_us;               /* when the attempt ends unfinished; 0: never */
    int64_t wakes_us;                 /* RETRYING: the next attempt; a sleep: its end; 0: nothing */
    struct call *call;                /* tool: of the newest attempt */
    uuid child_run_id, child_message; /* child runs; the answer's message once it has ended */
    bool is_child_ended;
    enum run_status child_status;
    uuid approval_id;
    int64_t arm, count;           /* branch, map */
    str output;                   /* JSON text that stands in no other row; empty: none */
    str output_label;             /* of it, JSON text; empty: a user's own words */
    str error, message;           /* why it failed, or its newest attempt did */
    str key;                      /* of its effect: the definition's own; empty: its place */
    struct workflow_lane **lanes; /* of the newest attempt, by number; NULL: not begun */
    size_t lane_count, lane_capacity;
    struct workflow_lane **past; /* of attempts before */
    size_t past_count, past_capacity;

    /* Kept by workflow_next: lanes before `first_open` are over. */
    size_t first_open, done_count, failed_count;
    const struct step *step; /* of the definition */
    /* The shell's, not of the journal: see workflow_run.c. */
    bool is_stopping; /* it must end: its time is over, or something around it fails */
    bool has_cancelled_child;
    struct workflow_work *work;
    const struct json *value; /* its output, once somebody asked for it */
    struct label label;       /* of it */
    str arguments;            /* tool: of the newest attempt */
    const struct json *items; /* map: what it goes over */
    struct label items_label;
};
struct workflow_lane {
    struct workflow_node *owner; /* NULL: the instance's own */
    int attempt;                 /* of the owner */
    str name;                    /* of an arm of a parallel step */
    int64_t number;
    struct workflow_node **nodes;
    size_t count, capacity;
    bool is_over, is_failed;  /* kept by workflow_next */
    const struct json *value; /* the shell's: a round's output, once the next round asked for it */
    struct label label;       /* of it */
};

struct workflow_state {
    struct arena *arena;
    str name, version, digest;
    bool
        takes_message; /* of an agent's run: the first message is input.message, not the input itself */
    struct workflow_lane root;
    size_t node_count;
    int64_t completed_count;
    struct workflow_node **open; /* leaves that are RUNNING or RETRYING, the oldest first */
    size_t open_count, open_capacity;
    bool is_undoing;
    bool is_cancelled; /* why it is undone */
    str failure, failure_message;
    uuid *signals; /* taken */
    size_t signal_count, signal_capacity;

    /* Kept by workflow_next: what can be undone, the newest first, and how far it got. */
    struct workflow_node **undo_list;
    size_t undo_count, undo_index;
    bool has_undo_list;
};

/* `workflow` is the member of run.started. */
struct workflow_state *workflow_state_create(struct arena *arena, const struct json *workflow);
/* run.step_*, run.child_completed, run.compensating, run.signalled; any other type changes nothing. */
must_check bool workflow_state_apply(struct workflow_state *state, const struct event *event,
                                     struct error *e);
/* The open tool call of this id; NULL. */
struct call *workflow_state_call(const struct workflow_state *state, uuid id);
/* The node at a path; NULL: none. */
struct workflow_node *workflow_state_find(struct workflow_state *state, str path);
bool workflow_state_has_signal(const struct workflow_state *state, uuid id);
bool step_kind_is_leaf(
    enum step_kind kind); /* tool, model, agent, approval, sleep, wait_signal, workflow */
/* Does it keep the instance at work itself, or wait for something outside? */
bool step_kind_is_work(enum step_kind kind);
/* The lane of a running control step: `number` of a branch, map or loop, `name` of a parallel step; made when it is not there yet. */
struct workflow_lane *workflow_lane_of(struct workflow_state *state, struct workflow_node *node,
                                       int64_t number, str name);
/* Is `node` the step around, at any depth? */
bool workflow_node_is_in(const struct workflow_node *node, const struct workflow_node *around);
/* The path of the step `id` in this lane. */
str workflow_path(struct arena *arena, const struct workflow_lane *lane, str id);

/* ---- what can be done ---- */
enum workflow_command_kind {
    WORKFLOW_BEGIN,    /* `step` as the next of `lane` */
    WORKFLOW_ROUND,    /* loop `node`: is there another round (`number`)? */
    WORKFLOW_RETRY,    /* `node` again, when its time has come */
    WORKFLOW_WAIT,     /* leaf `node` is at work or waits */
    WORKFLOW_STOP,     /* leaf `node` must end */
    WORKFLOW_COMPLETE, /* `node` is done: its lanes are over */
    WORKFLOW_FAIL,     /* `node` fails: `failed` did, or its time is over (NULL) */
    WORKFLOW_UNDO,     /* undo `node` */
    WORKFLOW_DONE,     /* the instance is done */
    WORKFLOW_FAILED, /* it has failed (`failed`: the step that did), or was stopped (NULL), and nothing is open */
    WORKFLOW_UNDONE, /* all that could be undone was tried */
};
struct workflow_command {
    enum workflow_command_kind kind;
    const struct step *step;
    struct workflow_lane *lane;
    int64_t number;
    struct workflow_node *node, *failed;
};
struct workflow_commands {
    struct workflow_command *items;
    size_t count, capacity;
    struct arena *arena; /* the caller's: where the list grows */
    size_t work_count; /* leaves at work: what would be begun beyond WORKFLOW_PARALLEL_MAX waits */
};
/*
 * Everything that can be done now, in the order of the definition.  `is_stopping`: the instance must end.  The caller does it, which
 * appends events, and asks again until nothing but WAIT is left.  CORRUPT: the journal does not fit the definition.
 */
must_check bool workflow_next(struct workflow_state *state, const struct definition *definition,
                              bool is_stopping, struct workflow_commands *out, struct error *e);
/* Is there a completed step that says how it is undone? */
bool workflow_can_undo(struct workflow_state *state, const struct definition *definition);
/* Loop `node` has another round: its lane is there from now on. */
void workflow_grant_round(struct workflow_state *state, struct workflow_node *node);
/* The definition's step of a node. */
const struct step *workflow_step_of(const struct definition *definition,
                                    const struct workflow_node *node);

#endif
