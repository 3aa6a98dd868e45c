/*
 * A live instance: what the files of workflow/ share, and what a replay looks into.
 *
 * workflow_run.c    the loop: looks at what came, asks workflow_next, does it, appends, waits
 * workflow_steps.c  begins, ends and stops steps
 * workflow_tools.c  tool steps: planned, executed, recovered
 * workflow_wait.c   approvals, signals, children: what comes from outside
 * workflow_scope.c  outputs, labels and the filling of templates
 * workflow_session.c what was said in the session before
 */
#ifndef NEXUS_ORCHESTRATOR_WORKFLOW_INTERNAL_H
#define NEXUS_ORCHESTRATOR_WORKFLOW_INTERNAL_H

#include "orchestrator/journal/workflow_state.h"
#include "orchestrator/run_tools_internal.h"
#include "orchestrator/workflow/workflow_run.h"
#include "orchestrator/workflow/workflow_store.h"

/* Of one append: one more command, or one more end of a call, never passes STORE_BATCH_ROWS_MAX. */
enum { WORKFLOW_BATCH_ROWS = 300 };

/* A tool call at work; on the run's turn arena. */
struct workflow_work {
    struct workflow_instance *instance;
    struct workflow_node *node;
    struct tool_step step;
    struct planned planned;
    struct context *ctx; /* while it runs */
    bool is_live;        /* its coroutine is there */
    bool is_stopped;
};

struct workflow_instance {
    struct run *run;
    struct workflow_state *state;
    struct workflow_entry *entry;        /* of the cache, held */
    const struct definition *definition; /* NULL: it could not be had, see `ending` */
    struct agent_definition agent;
    const struct json *input, *about; /* `about`: the variable `run` */
    const struct json *session;       /* the variable; NULL: nobody has asked for it yet */
    struct label input_label, session_label;
    struct error ending; /* why the instance must end; OK: it need not */
    bool is_cancelled;   /* ... because somebody asked for it */

    /* of one workflow_step; */
    struct group group;
    struct workflow_commands commands;
    struct workflow_work **works;
    size_t work_count, work_capacity;
    uuid *children; /* to spawn once they are stored */
    size_t child_count, child_capacity;
    int64_t due_us;  /* the nearest time; INT64_MAX: none */
    int64_t held_ns; /* until when the pending batch may wait for more; 0: it does not */
    bool has_closed; /* the final event is in the journal's batch */
    bool has_turned; /* run.compensating is */
    bool
        is_letting_go; /* nothing new begins: the turn's memory is given back once nothing is at work */
    bool is_leaving; /* the run waits */
    bool has_noted,
        is_note_stored; /* what it runs with, which stays the same while it is in memory */
};

/* The time of the turn: of all that is decided and written in it. */
int64_t workflow_now_us(const struct workflow_instance *w);

/* ---- workflow_scope.c ---- */
struct workflow_evaluation { /* what a template read */
    struct label label;
    struct workflow_node **read;
    size_t read_count, read_capacity;
};
/* `lane`: where the step stands; `of`: what is undone, or NULL.  Results are on the run's turn arena, or parts of what it keeps.
   `evaluation` may be NULL. */
may_suspend bool workflow_fill(struct workflow_instance *w, struct workflow_lane *lane,
                               const struct template *tree, struct workflow_evaluation *evaluation,
                               const struct json **out, struct error *e);
may_suspend bool workflow_test(struct workflow_instance *w, struct workflow_lane *lane,
                               const struct expression *expression, bool *out, struct error *e);
may_suspend bool workflow_evaluate(struct workflow_instance *w, struct workflow_lane *lane,
                                   const struct expression *expression,
                                   struct workflow_evaluation *evaluation, const struct json **out,
                                   struct error *e);
/* The output of a node; JSON null where there is none. */
may_suspend bool workflow_value(struct workflow_instance *w, struct workflow_node *node,
                                const struct json **out, struct error *e);
/* Is this, which `node` got, what it expects?  False: `why` tells. */
may_suspend bool workflow_is_expected(struct workflow_instance *w, struct workflow_node *node,
                                      const struct json *output, struct error *why);
/* The items of a map. */
may_suspend bool workflow_items(struct workflow_instance *w, struct workflow_node *node,
                                struct error *e);
may_suspend bool workflow_output(struct workflow_instance *w, const struct json **out,
                                 struct error *e);
/* Text of a JSON text that is known to be good, as a tree on the run's arena. */
must_check bool workflow_keep(struct workflow_instance *w, str text, const struct json **out,
                              struct error *e);

/* ---- workflow_pause.c ---- */
/* Its session is paused: nothing begins, and what others bring is not looked at, for it may begin something. */
bool workflow_is_held_back(const struct workflow_instance *w);
/* Nothing is at work.  Once it has said that it pauses it comes to rest before it goes on, though the session be resumed by then: whoever
   did that brings it back. */
bool workflow_must_rest(const struct workflow_instance *w);
/* Out of memory, until the session is resumed: times that pass meanwhile count then. */
may_suspend bool workflow_rest(struct workflow_instance *w, bool *is_parked, struct error *e);
/* Tells the journal that the session is paused, or is not any more, while steps are at work: those end. */
void workflow_note_pause(struct workflow_instance *w);
/* Of run.waiting: the approvals that are waited for. */
void workflow_put_approvals(struct workflow_instance *w, struct json_writer *out);
/* Into its row; `wakes_us` 0: no time is known. */
void workflow_set_waiting(struct workflow_instance *w, bool is_waiting, int64_t wakes_us);

/* ---- workflow_session.c ---- */
/* Sets w->session and its label: {"id", "messages": [{"role", "content"}]}, the oldest first.  What it says was settled when the instance
   began: what stands in the session before its own message. */
may_suspend bool workflow_session_load(struct workflow_instance *w, struct error *e);

/* ---- workflow_steps.c ---- */
may_suspend bool workflow_begin(struct workflow_instance *w, const struct workflow_command *command,
                                struct error *e);
may_suspend bool workflow_again(struct workflow_instance *w, struct workflow_node *node,
                                struct error *e);
may_suspend bool workflow_undo(struct workflow_instance *w, struct workflow_node *node,
                               struct error *e);
may_suspend bool workflow_round(struct workflow_instance *w, struct workflow_node *node,
                                struct error *e);
may_suspend bool workflow_complete(struct workflow_instance *w, struct workflow_node *node,
                                   struct error *e);
void workflow_fail(struct workflow_instance *w, struct workflow_node *node,
                   const struct workflow_node *failed);
void workflow_node_completed(struct workflow_instance *w, struct workflow_node *node, str output);
/* The same with an output that is not a user's own words: its label as JSON text. */
void workflow_node_completed_as(struct workflow_instance *w, struct workflow_node *node, str output,
                                str label);
/* The newest attempt failed: another one is due, or the step has failed. */
void workflow_attempt_failed(struct workflow_instance *w, struct workflow_node *node,
                             const struct error *why, bool may_retry);
/* It ends because something around it does, or because its time is over. */
void workflow_node_stopped(struct workflow_instance *w, struct workflow_node *node);
/* Marks it, and what it stands in, where the time is over; a tool call at work has its own deadline. */
void workflow_note_timeout(struct workflow_instance *w, struct workflow_node *node);
struct json_writer *workflow_event(struct workflow_instance *w, enum event_type type,
                                   const struct workflow_node *node);
/* run.step_started, with what all kinds say.  `timeout_ms` 0: none. */
struct json_writer *workflow_started(struct workflow_instance *w, enum step_kind kind, str path,
                                     int attempt, int64_t timeout_ms);
str workflow_attempt_place(struct arena *arena, str path, int attempt);

/* ---- workflow_tools.c ---- */
may_suspend bool workflow_tool_begin(struct workflow_instance *w, struct workflow_lane *lane,
                                     const struct step *step, str path, int attempt,
                                     struct error *e);
/* After a load: a call in flight is repeated or given up; one that waits for its approval gets its arguments back. */
may_suspend bool workflow_tool_recover(struct workflow_instance *w, struct workflow_node *node,
                                       struct error *e);
may_suspend bool workflow_tool_approved(struct workflow_instance *w, struct workflow_node *node,
                                        struct error *e);
void workflow_tools_start(struct workflow_instance *w); /* what stands as an intent */
/* Those that have ended, as many as one append holds. */
may_suspend bool workflow_tools_settle(struct workflow_instance *w, struct error *e);
may_suspend bool workflow_tool_stop(struct workflow_instance *w, struct workflow_node *node,
                                    struct error *e);
bool workflow_tools_have_news(const struct workflow_instance *w);
/* Is something at work, and nothing whose intent, or whose guests' intents, must be durable first (run_tools_may_precede)? */
bool workflow_tools_may_precede(const struct workflow_instance *w);

/* ---- workflow_wait.c ---- */
may_suspend bool workflow_approval_begin(struct workflow_instance *w, struct workflow_lane *lane,
                                         const struct step *step, str path, int attempt,
                                         struct error *e);
may_suspend bool workflow_child_begin(struct workflow_instance *w, struct workflow_lane *lane,
                                      const struct step *step, str path, int attempt,
                                      struct error *e);
/* Looks at everything that somebody else brings. */
may_suspend bool workflow_look(struct workflow_instance *w, struct error *e);
may_suspend bool workflow_signal_take(struct workflow_instance *w, struct workflow_node *node,
                                      struct error *e);
/* *is_closed: nothing of it is alive outside. */
may_suspend bool workflow_wait_stop(struct workflow_instance *w, struct workflow_node *node,
                                    bool *is_closed, struct error *e);
void workflow_spawn_children(struct workflow_instance *w);

#endif
