/*
 * The tool calls of one answer while they are being made: what run_tools.c and run_nested.c share.
 *
 *   run_tools.c    the step: plans the model's calls, appends, settles; it alone writes to the journal
 *   run_nested.c   calls that guests make: they ask the step, wait for the intent to be durable, and run on the guest's own coroutine
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_TOOLS_INTERNAL_H
#define NEXUS_ORCHESTRATOR_RUN_TOOLS_INTERNAL_H

#include "agent/payload.h"
#include "orchestrator/run_internal.h"

struct tool_step;

struct planned {
    struct run *run;
    struct tool_step *step;
    struct call *call;
    const struct tool *tool;
    str arguments;
    uuid reservation_id;
    cost reserved;
    /* while it runs, and after */
    struct tool_result result;
    struct error failure;
    int64_t started_ns;
    bool is_running, is_done, is_settled;
    struct label arguments_label, label; /* label: of the result */
    struct tool_heard heard;             /* by its guest */
    struct payload_findings payloads;    /* in the result */
    size_t file_count;                   /* of the session, when it began */
    /* of a guest's call */
    struct planned *parent;
    struct call asked; /* what `call` is until the intent is journaled */
    int nested_count;  /* calls that this one's guest has asked for */
    bool is_asked;     /* not planned yet */
    bool is_ready;     /* its intent is durable: it may run */
    bool has_begun;    /* the executor had it: only then may an effect have happened */
};

/* On the run's turn arena; ends when the last of its calls has. */
struct tool_step {
    struct planned *items[RUN_TOOL_CALLS_PARALLEL_MAX + RUN_NESTED_CALLS_MAX];
    size_t count;
    struct condition changed; /* a call ended, or a guest asks for one */
    struct condition decided; /* calls that guests asked for were planned */
};

/* ---- run_tools.c ---- */
/* Decides, reserves, journals the intent; refused: is_done with `failure`. */
void run_tools_plan(struct planned *p);
/* Executes it below `ctx`; the result is on the run's turn arena. */
may_suspend_void void run_tools_execute(struct planned *p, struct context *ctx);

/* ---- run_labels.c ---- */
/* Labels beside the policy: may make an allowed call wait for a person, or refuse it.  Journals why. */
void run_contain(struct planned *p, struct policy_decision *policy);
struct label run_label_of_result(const struct planned *p);
/* What hides in the result is made visible, or the result is refused, as the configuration says; never silently. */
void run_label_reveal(struct planned *p);

/* ---- run_nested.c ---- */
/* The door through which the guest of `p` calls other tools. */
struct tool_calls run_nested_calls(struct planned *p);
bool run_nested_is_asked(const struct tool_step *step);
/* Plans what guests ask for; after the flush, run_nested_release lets them run. */
void run_nested_plan(struct tool_step *step);
void run_nested_release(struct tool_step *step);

#endif
