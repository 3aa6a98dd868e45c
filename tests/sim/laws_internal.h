/* What the laws have seen: shared by the files laws*.c. */
#ifndef NEXUS_TESTS_SIM_LAWS_INTERNAL_H
#define NEXUS_TESTS_SIM_LAWS_INTERNAL_H

#include "base/json.h"
#include "laws.h"
#include "orchestrator/webhook/webhook.h"

struct law_step {
    str path;
    enum step_kind kind;
    bool is_open, is_undoable; /* undoable: by its id, law_workflow.c */
    int64_t order;             /* of completion; 0: not completed */
    int64_t wakes_us;
    int attempts, undo_attempts;
    bool is_undoing, is_undone; /* undone: tried, with whatever success */
    str signal;                 /* that it waits for */
    bool is_signalled;          /* it took one in this commit */
};
struct law_signal {
    uuid id, run_id;
    str name;
    int64_t stored_ns; /* true time */
    bool is_taken;
};
struct law_run {
    uuid id, parent_id, origin_id; /* origin: that it was forked from */
    bool is_removed;               /* by retention: marked, or its row is gone */
    bool is_pending;               /* its message waits for its turn */
    bool is_begun, is_final, is_workflow, is_cancelling;
    enum event_type end;
    int depth;
    cost ceiling, used; /* used: with all runs below it */
    /* a workflow's instance */
    bool is_undoing;
    bool is_paused;    /* of an instance: nothing begins */
    struct map *steps; /* by path */
    struct law_step **list;
    size_t step_count, step_capacity;
    int64_t completed;
    struct law_signal **signals;
    size_t signal_count, signal_capacity;
};
struct law_call { /* of a tool */
    str path;     /* the step's; empty: it is a model's */
    uuid run_id;
};
struct law_clock {      /* of a node */
    int64_t wall_us;    /* how far its wall time was off before it was last set */
    int64_t changed_ns; /* true time; 0: never */
};
struct laws {
    struct map *runs, *calls, *approvals, *approvals_of_calls, *schedules, *undone, *periods,
        *deliveries;
    struct law_run **run_list;
    size_t run_count, run_capacity;
    bool is_reading; /* rows that survived a crash */
    struct law_clock clocks[NODES];
    int64_t unrest_ns; /* the last commit before it was calm */
    struct arena *scratch;
};

struct laws *laws_of(struct world *world);
str law_key(const uuid *id);
struct law_run *law_run_of(struct world *world, uuid id); /* made when it is not there */
struct law_run *law_run_find(struct world *world, uuid id);
void *law_grow(struct world *world, void *items, size_t count, size_t *capacity, size_t bytes);

struct law_event {
    struct law_run *run;
    enum event_type type;
    int64_t seq, at_us;
    const struct json *data;
};
str law_text(const struct law_event *event, const char *member); /* on the scratch */
uuid law_id(const struct law_event *event, const char *member);

void law_workflow_event(struct world *world, const struct law_event *event);
void law_workflow_end_of_batch(struct world *world, const struct batch *batch);
void law_signal_row(struct world *world, const struct record *row);

void law_approval_write(struct world *world, const struct write *write);
void law_vote_row(struct world *world, const struct record *row);
void law_approval_effect(struct world *world, const struct tool_request *request);

/* `node` NULL: it is read again. */
void law_schedule_write(struct world *world, const struct node *node, const struct write *write);

void law_schedules_deinit(struct laws *laws);

void law_webhook_batch(struct world *world, const struct node *node, const struct batch *batch);
void law_webhook_read_again(struct world *world);
void law_webhooks_rest(struct world *world);

void law_message_row(struct world *world, const struct record *row);
void law_messages_rest(struct world *world);

#endif
