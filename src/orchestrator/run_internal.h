/*
 * One live run: what its coroutine keeps in memory.  Everything that must survive is in the journal; this can be dropped at any time.
 *
 * run.c       loads, folds, decides what is next, ends
 * run_model.c one model call: policy, reservation, intent, stream, settlement
 * run_answer.c its answer: deltas -> parts -> row -> parts
 * run_offer.c which tools the model is offered, and which one it means
 * run_tools.c the tool calls of one answer: decide all, one append, run beside each other, settle
 * run_awaited.c calls that others end: approvals, clients, other agents
 * run_client_tools.c tools that the caller runs itself
 * run_damage.c what becomes of it when its journal is damaged
 * run_child.c runs that this one starts and waits for
 * run_agents.c other agents, called as tools or handed the run to
 * run_prompt.c rows -> prompt
 * run_summary.c what becomes of it when it outgrows the model's window
 * run_labels.c what the prompt holds of whom, and what may be done therefore
 * run_ledger.c the run's share of the ledger, reconciled with the journal after a failed commit
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_INTERNAL_H
#define NEXUS_ORCHESTRATOR_RUN_INTERNAL_H

#include "llm/guard_tally.h"
#include "llm/router.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/run/run_oracle.h"

struct held_reservation {
    uuid id;
    cost amount;
    struct ledger_cover cover;
    bool
        is_doubted; /* nobody knows whether its append was applied; after the next one everybody does */
};
/* A settlement whose commit is not known to have happened. */
struct unsure_settlement {
    uuid reservation_id;
    struct settlement settlement;
    int64_t
        seq; /* of its event: the reservation may be of the same commit, so its absence alone tells nothing */
    bool is_doubted; /* nobody knows whether its append was applied */
};

/* A run above a child. */
struct run_ancestor {
    uuid run_id, session_id;
    cost budget; /* its ceiling; COST_LIMITLESS: none */
    enum priority priority;
};

/* A model call of a run that is no step of it: its words go to whoever asked, no delta is told, no tool is offered. */
struct run_aside {
    const char *purpose; /* "summary": said in the journal */
    struct prompt_message *messages;
    size_t message_count;
    int64_t output_tokens_max;
    uuid message_id;    /* of the row that the caller makes of it */
    struct label label; /* of what it is given */
    str text;           /* the answer, on turn; empty: there is none, see failure */
    struct error failure;
};

struct run {
    struct list link;
    struct orchestrator *o;
    size_t lane;
    uuid tenant_id, session_id, run_id;

    struct arena *keep;    /* lifetime of this coroutine: the share of the ledger, who cancelled */
    struct arena *arena;   /* what was loaded or heard since: emptied by a reload */
    struct arena *turn;    /* rewound after each step */
    struct context ctx;    /* of the run: cancelled by cancel and drain */
    struct context shield; /* never cancelled: appends that must be made anyway */
    int64_t retry_ms;      /* of the next reload */
    int refusals; /* in a row: not even its failure is appended, though the store works ... */
    struct error refusal;      /* ... and why */
    struct condition woken;    /* somebody brings news */
    bool has_lost_sight;       /* loaded again: children may have been begun without our knowing */
    bool is_parked, is_buried; /* how its coroutine ended */
    bool has_place;            /* of the admission's: given back when it leaves memory */
    enum priority place_priority; /* as the place was asked for */
    bool is_linked, is_loading;   /* found by its lane; in its first load */
    bool is_woken, is_cancel_asked, is_draining;
    str cancelled_by;

    const struct settings *settings;
    const struct agent_definition *agent;
    const struct registry_snapshot *tools;
    const struct model *model;
    str environment;    /* digest of the one journaled last (run_environment.h), on keep */
    struct route route; /* of this step's attempts */
    bool has_route;
    struct error model_failure; /* why the attempt before failed */

    struct record session;     /* on arena */
    bool is_inbox_told;        /* its inbox_count, or its status, may have changed */
    bool is_pending;           /* its row says that it has not begun */
    bool is_out_of_turn;       /* ... and it may not: whoever it waits for spawns it again */
    const struct record *next; /* of the inbox: whose turn is next; on turn */
    uuid next_run_id;          /* the same once this run's end is stored */
    enum priority next_priority;
    struct principal principal; /* whose run it is, from the session's row */
    str policy_context;
    uuid root_session_id; /* whose account and files the run uses: its own, unless it is a child */
    str root_budget;      /* of that session, JSON */
    cost ceiling;         /* its own; COST_LIMITLESS: none */
    struct run_ancestor ancestors[RUN_CHILD_DEPTH_MAX]; /* the parent first */
    int depth;                                          /* how many of them; 0: has no parent */
    int64_t started_us, started_ns;
    trace_context trace;

    struct run_state state;
    int64_t epoch;      /* of this node as its session's writer; 0: it is not, or not yet */
    bool has_wake;      /* its row says when to bring it back ... */
    bool has_wake_time; /* ... by the clock, and not with its session */
    struct workflow_instance *workflow; /* on arena; NULL: an agent's run (workflow_internal.h) */
    struct journal_writer journal;
    struct ledger_path path;
    bool has_path;

    struct prompt_message *messages; /* on arena: the whole conversation so far */
    struct context_item *items;      /* their labels, place by place */
    uuid *rows; /* their rows, place by place; UUID_NONE: a tool's result, or instructions */
    uuid newest_message_id;        /* of those that were in memory: the run's own come behind it */
    uuid summary_id;               /* the one that is among them; UUID_NONE: none */
    uuid summary_from, summary_to; /* rows that it stands for */
    size_t message_count, message_capacity;
    bool has_instructions; /* the first message is the agent's own: instructions and file_list */
    bool is_history_cut;   /* older messages of the session are not in memory */
    str file_list;         /* what of it names the session's files */
    struct tool_spec *offered; /* tools the policy may allow, and the client's */
    size_t offered_count;
    bool is_offer_searched; /* there are more tools than are offered: `tool_search` is there */
    struct tool_spec *client_tools; /* what the caller runs itself */
    size_t client_tool_count;
    struct run_aside *aside; /* the model call at hand is this one; NULL: it is a step */
    int64_t room;         /* tokens that the budget left for the prompt; COST_UNLIMITED: no limit */
    bool is_degraded;     /* an answer was cut by the budget */
    bool is_last_call;    /* the one that sums up: it may use what was held back */
    bool is_reserve_kept; /* what is held back was looked at */
    struct error
        fatal; /* what the journal cannot hold: the run ends with it once it is reconciled */

    struct held_reservation *held;
    size_t held_count, held_capacity;
    struct unsure_settlement *unsure;
    size_t unsure_count, unsure_capacity;
};

/* ---- run_spawn.c ---- */
/* On a lane's thread; nobody finds it, and it may be dropped again. */
struct run *run_create(struct orchestrator *o, size_t lane, struct scheduler *scheduler,
                       uuid tenant_id, uuid session_id, uuid run_id);
void run_destroy(struct run *run);
/* Its first load is over: the next in line may load. */
void run_is_loaded(struct run *run);

/* ---- run_recover.c ---- */
/* What a start has found reserved by the run becomes the run's own. */
void run_adopt_restored(struct run *run);

/* ---- run.c ---- */
/* From load to end, on the run's coroutine. */
may_suspend_void void run_live(struct run *run);
/* Its rows and its journal; and if anything is reserved in it, the same in the ledger (has_path). */
may_suspend bool run_load_accounts(struct run *run, struct error *e);
/* The ledger holds what run->state has open (has_path then). */
may_suspend bool run_hold_reserved(struct run *run, struct error *e);
/* The rows that every final event brings along; `failure` NULL: none.  run_end_look before the event is begun. */
may_suspend bool run_end_look(struct run *run, struct error *e);
void run_end_write(struct run *run, enum run_status status, const struct error *failure);
/* Appends run.failed with everything that a final event brings along, and flushes. */
may_suspend bool run_fail(struct run *run, const struct error *failure, struct error *e);

/* ---- run_damage.c ---- */
/* The journal is damaged: the run ends by its rows (is_buried), after its children; or it is parked.  `is_read`: it is folded, and only not
   appended to. */
may_suspend_void void run_bury(struct run *run, const struct error *failure, bool is_read);

/* ---- run_chance.c: what comes from outside, or from the oracle of a replay ---- */
uuid run_new_id(struct run *run, enum run_id_kind kind, size_t index, str name);
cost run_remaining(struct run *run); /* tightest of its accounts */
cost run_room(struct run *run);      /* the same, when a conversation is made to fit it */
cost run_takes(struct run *run);     /* the same, when a reservation is made to fit it */
/* Where a run may leave memory because its node stops: what has happened is stored then, and known to the next start. */
may_suspend bool run_keep_outcomes(struct run *run, struct error *e);
/* How long is waited before another attempt. */
int64_t run_new_wait(struct run *run, int64_t least_ms, int64_t most_ms);

/* ---- run_degrade.c ---- */
/* Takes the agent's next step for this; true: run.degraded is in the batch, and the next command is another one. */
may_suspend bool run_degrade(struct run *run, enum degrade_when when);
bool run_may_degrade(const struct run *run, enum degrade_when when);
/* Before a model call: little is left, or the node is overloaded. */
may_suspend bool run_degrade_ahead(struct run *run);
bool run_degrade_cause(const struct error *failure, enum degrade_when *out);

/* ---- run_prompt.c ---- */
may_suspend bool run_prompt_load(struct run *run, struct error *e);
void run_prompt_add(struct run *run, struct prompt_message message);
/* The messages from this place on come from that row. */
void run_prompt_rows(struct run *run, size_t first, uuid row);
must_check bool run_prompt_add_row(struct run *run, const struct record *row, struct error *e);
/* Rows of the session's messages, the newest first: of each node of a fork those that it began with, too. */
struct session_span {
    uuid after, before; /* ids of messages, these left out; UUID_NONE: no bound */
    size_t max;
};
may_suspend bool run_session_rows(struct run *run, const struct session_span *span,
                                  struct record *rows, size_t *count, struct error *e);
/* Of a row that no model is given: summaries other than the newest, which stands in front, and what was withdrawn. */
bool run_prompt_leaves_out(struct run *run, const struct record *row);
/* A person's message; parts as a row keeps them. */
must_check bool run_prompt_add_user(struct run *run, str content, str parts, struct error *e);
/* The tool's answer as the model sees it. */
struct prompt_message run_prompt_tool_result(struct arena *arena, str call_id, str name,
                                             str content, bool is_error);
str run_prompt_error_content(struct arena *arena, const struct error *e);
void run_message_row(struct record *row, struct run *run, uuid id, enum role role, str content,
                     int64_t tokens, str parts);

/* ---- run_summary.c ---- */
/* Before a model call: what does not fit its window, or the budget, is summarised; results that are too long are cut. */
may_suspend bool run_context_fit(struct run *run, struct error *e);
/* Of the session's newest summary: the task, the summary, the run's question if it is older.  Sets summary_to: rows up to it are not
   loaded. */
may_suspend bool run_summary_load(struct run *run, struct error *e);
void run_prompt_add_summary(struct run *run, uuid id, str content, struct label label);

/* ---- run_labels.c ---- */
/* A message was added: it gets the label of its role. */
void run_label_added(struct run *run);
/* What is known of the newest message: its id, where it came from. */
void run_label_last(struct run *run, str id, str source, struct label label);
struct label run_label_context(const struct run *run);
struct planned;
/* What the model (and, of a guest's call, the guest) has seen; on the turn arena.  `of` may be NULL. */
struct context_view run_label_view(struct run *run, const struct planned *of);
/* A URL, or the tool and the file that it was called for. */
str run_label_source(struct arena *arena, str tool, str arguments);
str run_label_text(struct arena *arena, struct label label);     /* as a row keeps it */
str run_label_metadata(struct arena *arena, struct label label); /* {"label": ...} */

/* ---- run_agents.c ---- */
/* Words that no model call of this run said, told to its readers. */
void run_journal_text(struct run *run, str text);

/* ---- run_model.c ---- */
may_suspend bool run_model_step(struct run *run, struct error *e);
/* At a resume: the attempt in flight is lost and settled at its reservation. */
must_check bool run_model_lose_attempt(struct run *run, struct error *e);

/* ---- run_tools.c ---- */
may_suspend bool run_tools_step(struct run *run, struct error *e);
may_suspend bool run_tools_recover(struct run *run, struct call *call, struct error *e);
/* Looks at what the run waits for (approvals, results of the client): appends what has come.  *is_waiting: nothing has. */
may_suspend bool run_tools_check_awaited(struct run *run, bool *is_waiting, struct error *e);
/* The run ends: calls that never ran are ended too, and their open approvals expire with them. */
may_suspend bool run_tools_abandon(struct run *run, struct error *e);

/* ---- run_offer.c ---- */
may_suspend bool run_tools_offer(struct run *run, struct error *e); /* fills run->offered */
/* The agent's tool of that name at the version and with the permissions that this run gets; NULL: none.  On the turn arena, or the
   snapshot's own. */
const struct tool *run_find_tool(struct run *run, str name);
/* Is this the built-in by which a model of many tools finds others?  It answers {"query"} with [{name, description, input_schema}]. */
bool run_is_tool_search(const struct run *run, str name);
may_suspend bool run_tool_search(struct run *run, str arguments, str *output, struct error *e);
/* Before a model call: of many tools those that fit the newest message. */
may_suspend bool run_tools_refresh(struct run *run, struct error *e);

/* ---- run_client_tools.c ---- */
#define CLIENT_TOOL_VERSION S("client") /* of tool_calls rows of the client's tools */
must_check bool run_client_tools_offer(struct run *run, struct error *e);
bool run_has_client_tool(const struct run *run, str name);
/* {"content", "is_error"} of a row's output; content on the arena. */
must_check bool client_result_read(struct arena *arena, str output, str *content, bool *is_error,
                                   struct error *e);

/* ---- run_guard.c: the content filter, where text enters the run ---- */
/* Of a request on its way in; rewrites it (the caller's own copy).  CONTENT_BLOCKED.  The findings come into the caller's tally. */
may_suspend bool run_guard_request(struct context *ctx, const struct model *model,
                                   struct run_request *request, struct guard_tally *found,
                                   struct error *e);
/* Of results that a client brings: copies whose content may be stored.  CONTENT_BLOCKED: none may be. */
may_suspend bool run_guard_results(struct context *ctx, const struct model *model,
                                   const struct client_result **results, size_t count,
                                   struct guard_tally *found, struct error *e);
/* Of a tool's result, which is JSON.  CONTENT_BLOCKED: it must not be stored. */
may_suspend bool run_guard_output(struct run *run, struct context *ctx, str *output,
                                  struct error *e);
/* Of a client's tool result on its way into the prompt; a blocked one becomes an error's text. */
may_suspend_void void run_guard_content(struct run *run, str *content, bool *is_error);
/* Audits what the filter found in the run's texts; the tally is empty then. */
void run_guard_audit(struct run *run, struct guard_tally *found);

/* ---- run_policy.c ---- */
void run_decide(struct run *run, struct context *ctx, const struct policy_input *partial,
                struct policy_decision *out);
/* As the policy's approval_demands, of this run. */
may_suspend bool run_approval_demands(struct run *run, const struct policy_input *partial,
                                      str *rules, struct error *e);
void run_journal_decision(struct run *run, const struct policy_input *input,
                          const struct policy_decision *decision, uuid tool_call_id);

/* ---- run_winddown.c: the last call of a run whose budget is spent ---- */
/* Before each call: sets the agent's rate, and from the second on a little is held back. */
void run_hold_back(struct run *run);
/* A call was refused: does the run go on to its last one?  Then budget.wind_down is journaled and `e` empty; else `e` stays. */
may_suspend bool run_wind_down(struct run *run, struct error *e);
/* Of the last call: *prompt becomes one that sums up and fits what is left.  Others stay as they are. */
void run_last_prompt(struct run *run, struct prompt *prompt, int64_t *output_tokens_max);
cost run_remaining_now(
    struct run *run); /* run_remaining, for the last call with what was held back */
/* Why run.completed is less than what was asked for, on turn: "budget: ...", "loop: ..."; empty: it is not. */
str run_degraded_why(struct run *run);
/* "ended_by": "budget" or "loop", of a run that had to end before it was done. */
void run_put_ended_by(const struct run *run, struct json_writer *w);

/* ---- run_loop.c: the same thing again and again ---- */
/* Before a step: tells the model in *prompt, or ends the run (*is_stopped: RUN_DO_COMPLETE is next). */
may_suspend bool run_loop_check(struct run *run, struct prompt *prompt, bool *is_stopped,
                                struct error *e);

/* ---- run_ledger.c ---- */
/* Reserves in the ledger and appends budget.reserved; gives the reservation's id.  REASON_BUDGET: nothing has changed. */
must_check bool run_reserve(struct run *run, const char *purpose, uuid tool_call_id, cost amount,
                            uuid *id, struct error *e);
/* Appends budget.settled and the ledger's rows.  `used` may pass the reservation (booked as overdraft). */
void run_settle(struct run *run, uuid reservation_id, const struct settlement *settlement);
/* Is so much left that it makes no difference to anybody that what is not durable yet counts at its reservation? */
bool run_has_room(struct run *run);
/* After a flush succeeded: nothing is unsure any more. */
void run_ledger_sure(struct run *run);
/* After the journal was (re)loaded: the ledger holds exactly what the journal has open. */
void run_ledger_reconcile(struct run *run);
/* After a reload did not find its rows: it had ended and was removed, so what this node wrote last had been stored. */
void run_ledger_removed(struct run *run);
/* When the run is dropped from memory: what it holds goes back (the next load restores it from the journal). */
void run_ledger_drop(struct run *run);

/* Flush with the run's bookkeeping. */
may_suspend bool run_flush(struct run *run, const char *fault, struct error *e);
/* Of the batch with the run's final event: a message that came since the last look is next, and the end stays as it is. */
may_suspend bool run_flush_end(struct run *run, const char *fault, struct error *e);

#endif
