/*
 * The tool calls of one answer while they are being made: what run_tools.c and run_nested.c share.
 *
 *   run_tools.c    the step: plans the model's calls, appends, settles; it alone writes to the journal
 *   run_nested.c   calls that guests make: they ask the step, wait for the intent to be durable, and run on the guest's own coroutine
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_TOOLS_INTERNAL_H
#define NEXUS_ORCHESTRATOR_RUN_TOOLS_INTERNAL_H

#include "agent/tool/payload.h"
#include "orchestrator/run_internal.h"

struct tool_step;

struct planned {
    struct run *run;
    const struct context_view
        *view; /* of a workflow's step: what its input was made of; NULL: the conversation */
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
    /* of another agent's */
    uuid child_run_id; /* begun in the pending batch */
    uuid message_id;   /* of a handoff's answer, in this run's session */
    /* its row in the pending batch: what ends before that is stored is one row */
    size_t row_index;
    int64_t row_batch; /* 0: it has none */
};

/* On the run's turn arena; ends when the last of its calls has. */
struct tool_step {
    struct planned *items[RUN_TOOL_CALLS_PARALLEL_MAX + RUN_NESTED_CALLS_MAX];
    size_t count;
    cost
        agent_share; /* of each other agent that is called in this answer; COST_LIMITLESS: no ceiling */
    struct condition changed; /* a call ended, or a guest asks for one */
    struct condition decided; /* calls that guests asked for were planned */
};

/* ---- run_tools.c ---- */
/* Decides, reserves, journals the intent; refused: is_done with `failure`. */
void run_tools_plan(struct planned *p);
/*
 * May it begin before its intent is durable?  Only what can be done again as if it had never been: a pure tool that reaches nothing, whose
 * call nobody approved.  Lost in a crash together with its intent, it is simply done anew.  What is idempotent is not: its effect would
 * be outside without a word about it in the journal, and the second time its arguments may be others, hence another effect.
 */
bool run_tools_may_precede(const struct planned *p);
/* At a resume, of a call that was intended: *is_again: it stands as an intent in the pending batch once more; else it is ended, unknown
   or failed. */
must_check bool run_tools_resume(struct planned *p, bool *is_again, struct error *e);
/* Journals the ends of those that are done. */
void run_tools_settle(struct tool_step *step);
may_suspend bool run_tools_check_approval(struct run *run, struct call *call, bool *is_decided,
                                          struct error *e);
/* A call that never ran ends, and its open approval with it. */
may_suspend bool run_tools_abandon_call(struct run *run, struct call *call, struct error *e);
/* Of a call that ends without the executor: everything that its end brings along.  `failure` is set, or `result`. */
void run_tools_end(struct planned *p, const char *status);
/* Of a call that never ran; it may have no row yet. */
void run_tools_end_unrun(struct planned *p, const char *status, bool has_row);
/* The same for whatever reason `failure` tells; a guest just hears it. */
void run_tools_refuse(struct planned *p, bool has_row);
void run_tools_write_row(struct planned *p, enum write_op op, str status);
/* The arguments of the model's (or a step's) call, and the tool that it means; NULL: there is none. */
str run_tools_arguments(const struct run *run, const struct call *call);
const struct tool *run_tools_find(struct run *run, const struct call *call);
/* tool.completed; its label comes into p->label. */
void run_tools_journal_end(struct planned *p, const char *status);
/* Executes it below `ctx`; the result is on the run's turn arena. */
may_suspend_void void run_tools_execute(struct planned *p, struct context *ctx);

/* ---- run_agents.c: other agents as tools ---- */
/* The agent's tool of that name as policy, approvals and labels see it ("agent:NAME", category "agent"), on the turn arena; NULL: none. */
const struct tool *run_agents_find(struct run *run, str name);
struct tool_spec run_agents_spec(struct run *run, const struct agent_link *link); /* on the arena */
/* Shares what is left among the agents that this step calls. */
void run_agents_share(struct tool_step *step);
/* The call is allowed: begins the other agent's run in the pending batch, or ends the call with why not. */
void run_agents_plan(struct planned *p, bool has_row);
/* The batch is durable: they may run. */
void run_agents_release(struct tool_step *step);
/* Has its run ended?  Then the call has, in the pending batch. */
may_suspend bool run_agents_look(struct run *run, struct call *call, bool *has_come,
                                 struct error *e);

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
