/*
 * Orchestrator: sessions, runs, approvals and budgets over the contracts below it.
 *
 * It knows the world only through what `struct orchestrator_parts` holds, so the simulation links the same object files with simulated
 * parts.  A session's runs live on one lane (loop hash(session)); every function here may be called from a coroutine of any lane and
 * hops where it must.
 *
 *      session_create --> run_start (202 after the journal is durable) --> journal events ... --> run.completed
 *
 * Configuration that can change (catalog, agents, defaults) is one immutable snapshot: orchestrator_acquire/_release.
 */
#ifndef NEXUS_ORCHESTRATOR_ORCHESTRATOR_H
#define NEXUS_ORCHESTRATOR_ORCHESTRATOR_H

#include "agent/executor.h"
#include "agent/tool/registry.h"
#include "llm/catalog.h"
#include "observe/trace.h"
#include "orchestrator/journal/journal.h"
#include "orchestrator/ledger/ledger.h"
#include "orchestrator/policy/audit.h"
#include "orchestrator/policy/containment.h"
#include "orchestrator/policy/policy.h"
#include "orchestrator/run/agent_definition.h"

/* Where a session's work runs.  post: from any thread, soon, on that lane (not on a coroutine). */
struct lane {
    struct scheduler *scheduler;
    void (*post)(struct lane *lane, void (*fn)(void *argument), void *argument);
    void *owner;
};

/*
 * What becomes of a message that comes while a run of its session is live.  The session says it (session_request, session_change), a
 * message may say otherwise, else the configuration does.
 */
enum double_text {
    DOUBLE_TEXT_REJECT,    /* SESSION_BUSY */
    DOUBLE_TEXT_ENQUEUE,   /* it waits for its turn */
    DOUBLE_TEXT_INTERRUPT, /* the live run is cancelled, then it has its turn, before all that wait */
    DOUBLE_TEXT_STEER,  /* the live run hears it before its next model call; else it has its turn */
    DOUBLE_TEXT_UNSAID, /* as the session says */
};
const char *double_text_name(enum double_text policy);
bool double_text_parse(str text, enum double_text *out); /* not UNSAID */

/* How long what is kept, retention.h. */
struct retention_rules {
    int64_t runs_ms;   /* 0: for ever */
    int64_t deltas_ms; /* 0: RETENTION_DELTAS_MS; -1: for ever */
};

/* The part of the configuration that SIGHUP swaps. */
struct settings {
    struct catalog *catalog;  /* owned by the snapshot */
    struct agent_set *agents; /* owned by the snapshot */
    struct workflow_set
        *workflows; /* of folders, owned by the snapshot; NULL: none (workflow_store.h) */
    int alerts[BUDGET_ALERTS_MAX]; /* thresholds of budgets in thousandths, rising */
    int alert_count;
    cost session_budget;          /* default: 200,000 tokens, 3,600 s, money and calls unlimited */
    int64_t session_expiry_ms;    /* idle; 0: never */
    enum double_text double_text; /* of sessions that do not say */
    int64_t approval_expiry_ms;
    int64_t approval_remind_ms; /* where no rule says it; 0: never */
    const str *registrars;      /* persons who hand out keys to others (approval.h) */
    size_t registrar_count;
    int64_t call_timeout_ms; /* of one model call, total: 120 s */
    int64_t session_files_bytes_max;
    struct retention_rules retention;
    struct containment containment; /* all zero: enforced as shipped */
    const struct guard_rules
        *memory_guard; /* content filter of memories; NULL: the embedding model's, if it has one */
    struct arena *arena; /* owned: what the rules point to; may be NULL */
    uint64_t
        version; /* no other snapshot of this process has it; set by _create and _reconfigure */
    _Atomic int references;
};

/* With all it owns; of one that was given to no orchestrator.  NULL is fine. */
void settings_destroy(struct settings *settings);

struct orchestrator_parts {
    struct store *store;
    struct router
        *router; /* borrowed; every catalog of a snapshot is adopted here (llm/router.h) */
    struct policy *policy;
    struct registry *registry;
    struct executor *executor;
    struct metrics *metrics;
    struct tracer *tracer; /* NULL: no traces */
    struct clock *clock;
    struct random *random;
    struct lane *lanes;
    size_t lane_count;
    size_t run_places,
        run_queue_max; /* runs at work at once, and waiting (admission.h); 0: the usual */
    int64_t shed_lag_ms, shed_memory_bytes,
        shed_commit_ms; /* from where on work is refused (overload.h); 0: not looked at */
    str node;           /* this node's name: writer of its sessions; another one at each start */
    bool is_shared;     /* other nodes use the store too: node_watch.h */
    /* Where it is shared: the others took this node for dead; the process has to end.  NULL: nobody is told. */
    void (*expelled)(void *owner);
    void *expelled_owner;
    str data_dir; /* session files live in data_dir/files, installed tools in data_dir/tools */
    /* Compiles a tool's modules, blocking, before it is installed; NULL: they are not compiled (the simulation). */
    bool (*prepare_tool)(void *owner, const struct tool *tool, struct error *e);
    void *prepare_owner;
    /* A reminder of an approval is durable: tells those outside; on a coroutine, bounded by ctx.  NULL: nobody. */
    void (*approval_reminded)(void *owner, struct context *ctx, uuid tenant_id,
                              const struct record *approval);
    void *reminded_owner;
    const struct webhook_options *webhooks; /* copied; NULL: none come in or go out (webhook.h) */
    struct settings *settings;              /* first snapshot, given away */
};
struct orchestrator;

must_check bool orchestrator_create(const struct orchestrator_parts *parts,
                                    struct orchestrator **out, struct error *e);
void orchestrator_destroy(struct orchestrator *o);
/* Swaps the snapshot (given away); the old one goes when its last user does. */
void orchestrator_reconfigure(struct orchestrator *o, struct settings *give_settings);
const struct settings *orchestrator_acquire(struct orchestrator *o);
void orchestrator_release(const struct settings *settings);
const struct orchestrator_parts *orchestrator_parts(const struct orchestrator *o);
struct ledger *orchestrator_ledger(struct orchestrator *o);
struct usage_log;
struct usage_log *orchestrator_usage(struct orchestrator *o); /* usage_log.h */
struct journal_hub *orchestrator_hub(struct orchestrator *o);

/* At start, on a coroutine: recovers leases and goes on with every run that is not final.  Gives how many.  CONFLICT: a commit of the last
   life arrived meanwhile; to be called again, which repeats nothing that was done. */
may_suspend bool orchestrator_recover(struct orchestrator *o, struct context *ctx, size_t *resumed,
                                      struct error *e);
/* Refuses new runs (REASON_DRAINING), waits for those in work until ctx's deadline; the rest resume at the next start. */
may_suspend bool orchestrator_drain(struct orchestrator *o, struct context *ctx, struct error *e);
size_t orchestrator_active_runs(struct orchestrator *o);
struct admission;
struct admission *orchestrator_admission(struct orchestrator *o);
struct overload;
struct overload *orchestrator_overload(struct orchestrator *o);

/* ---- sessions ---- */
struct session_request {
    str user_id;                  /* empty: the caller; another one needs SCOPE_ACT_AS */
    str agent;                    /* empty: assistant */
    cost budget;                  /* caller's; only lowers the ceiling; COST_UNLIMITED: not said */
    str policy_context, metadata; /* JSON text or empty */
    str double_text;              /* a name; empty: as configured */
    str priority;                 /* a name: its runs are no more urgent; empty: not said */
};
may_suspend bool session_create(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal,
                                const struct session_request *request, struct record *out,
                                struct error *e);
/* NOT_FOUND for sessions of another tenant, and of another user unless operator or admin. */
may_suspend bool session_get(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, uuid session_id, struct record *out,
                             struct error *e);
/* Newest first; status empty: all.  With one a page may have fewer rows than `limit` and still go on (store/sift.h). */
may_suspend bool session_list(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal, str status, str cursor,
                              size_t limit, struct records *out, struct error *e);
may_suspend bool session_close(struct orchestrator *o, struct context *ctx,
                               const struct principal *principal, uuid session_id, struct error *e);
/* Messages that wait for their turn: rows of SESSION_INBOX, in the order they came. */
may_suspend bool session_waiting(struct orchestrator *o, struct context *ctx,
                                 const struct principal *principal, uuid session_id,
                                 struct records *out, struct error *e);
/* What is empty stays as it is. */
struct session_change {
    str double_text; /* a name */
    str metadata;    /* JSON text */
};
may_suspend bool session_update(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, uuid session_id,
                                const struct session_change *change, struct record *out,
                                struct error *e);
/* Paused: no message is taken; the live run stops before its next model or tool call, durably, and goes on when it is resumed. */
may_suspend bool session_pause(struct orchestrator *o, struct context *ctx,
                               const struct principal *principal, uuid session_id,
                               struct record *out, struct error *e);
may_suspend bool session_resume(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, uuid session_id,
                                struct record *out, struct error *e);
/* Sessions that nobody spoke in for session_expiry_ms; a paused run of one is cancelled first.  The sweep calls it. */
may_suspend bool sessions_expire(struct orchestrator *o, struct context *ctx, size_t *expired,
                                 struct error *e);
/* A new session with the same history up to and with `at_message` (UUID_NONE: all), the same rules and a budget of its own.  Its messages
   are rows of its own; what tools gave is shared.  Files stay with the old one. */
may_suspend bool session_clone(struct orchestrator *o, struct context *ctx,
                               const struct principal *principal, uuid session_id, uuid at_message,
                               struct record *out, struct error *e);
/* The session as one JSON document, piece by piece: docs/sessions.md. */
struct session_export {
    bool (*write)(void *owner, str piece, struct error *e); /* may suspend */
    void *owner;
};
may_suspend bool session_export(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, uuid session_id,
                                const struct session_export *to, struct error *e);
/* A session from such a document: new ids, the caller's rights, everything in it untrusted. */
may_suspend bool session_import(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, const struct json *document,
                                struct record *out, struct error *e);
/* The rows that a model would be given if a message came now, in order. */
may_suspend bool session_context(struct orchestrator *o, struct context *ctx,
                                 const struct principal *principal, uuid session_id,
                                 struct records *out, struct error *e);
/* {limit, spent, reserved, remaining}, each a cost, as JSON text. */
may_suspend bool session_budget_json(struct orchestrator *o, struct context *ctx,
                                     const struct principal *principal, uuid session_id, str *out,
                                     struct error *e);

/* ---- runs ---- */
struct run_request {
    uuid session_id;
    str content; /* plain text of the user's message */
    str parts; /* JSON array of parts (OpenAI content parts) when it is more than text; or empty */
    str model; /* empty: the agent's */
    const struct prompt_message
        *history; /* compatible routes: the caller's own earlier turns, put before the message */
    size_t history_count;
    const struct tool_spec *client_tools; /* tools that the caller runs itself */
    size_t client_tool_count;
    str response_format;      /* JSON text or empty: the form of the last answer */
    enum double_text on_busy; /* only text and parts can wait: with more, REJECT */
};
/* Durable when it returns.  Policy is asked (run.start) first.  REASON_SESSION_BUSY while another run of the session is live. */
may_suspend bool run_start(struct orchestrator *o, struct context *ctx,
                           const struct principal *principal, const struct run_request *request,
                           uuid *run_id, struct error *e);
/* The same for a message that may have to wait. */
enum message_fate {
    MESSAGE_BEGINS, /* its run has begun */
    MESSAGE_WAITS,  /* its run is pending */
    MESSAGE_STEERS, /* run_id is the live run that hears it; should that end before, `otherwise_run_id` is its own */
};
struct message_outcome {
    enum message_fate fate;
    uuid run_id, otherwise_run_id;
};
may_suspend bool message_send(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal, const struct run_request *request,
                              struct message_outcome *out, struct error *e);
may_suspend bool run_get(struct orchestrator *o, struct context *ctx,
                         const struct principal *principal, uuid run_id, struct record *out,
                         struct error *e);
/* What is empty is not asked for.  Session or status alone has an index; else a page may have fewer rows than `limit`
   and still go on (store/sift.h). */
struct run_filter {
    uuid session_id;
    str status, agent;
    str workflow; /* "name", or "name@version" */
};
/* Newest first. */
may_suspend bool run_list(struct orchestrator *o, struct context *ctx,
                          const struct principal *principal, const struct run_filter *filter,
                          str cursor, size_t limit, struct records *out, struct error *e);
may_suspend bool run_cancel(struct orchestrator *o, struct context *ctx,
                            const struct principal *principal, uuid run_id, struct error *e);
/* Results of client tools: all that one answer of the model asked for, together.  Resumes the run; its events after *last_seq tell how
   it goes on.  NOT_FOUND for calls of others, CONFLICT when a call has its result already. */
struct client_result {
    uuid tool_call_id;
    str content;
    bool is_error;
};
/* The run they belong to, before they are given. */
may_suspend bool run_of_results(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal,
                                const struct client_result *results, size_t count,
                                struct record *run, struct error *e);
may_suspend bool run_give_results(struct orchestrator *o, struct context *ctx,
                                  const struct principal *principal,
                                  const struct client_result *results, size_t count, uuid *run_id,
                                  uuid *session_id, int64_t *last_seq, struct error *e);
/* Cancels runs whose client brought no results in time; main calls it as approvals_expire. */
may_suspend bool runs_expire(struct orchestrator *o, struct context *ctx, size_t *expired,
                             struct error *e);
/* The runs that this one started, in the order of their beginning. */
may_suspend bool run_children(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal, uuid run_id, str cursor,
                              size_t limit, struct records *out, struct error *e);
/* Run as JSON: parent_run_id, depth, forked_from, forked_at, budget?, id, session_id, status, agent, model, cost, trace_id, error {type,
   message}, times, last_seq. */
void run_write_json(struct json_writer *w, const struct record *run);
void run_write_members(struct json_writer *w,
                       const struct record *run); /* the same inside an object */

/* ---- approvals ---- */
may_suspend bool approval_list(struct orchestrator *o, struct context *ctx,
                               const struct principal *principal, str status, str cursor,
                               size_t limit, struct records *out, struct error *e);
may_suspend bool approval_get(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal, uuid approval_id,
                              struct record *out, struct error *e);
struct approval_decision {
    uuid approval_id;
    bool is_approve;
    str digest; /* must equal the approval's: STALE_DIGEST otherwise */
    str reason;
    str in_place_of; /* by this person's delegation; empty: in one's own right, else by any */
};
/* One vote (approval.h).  SELF_APPROVAL for the user or requester of the run and for keys they own or had a hand in, SAME_PERSON for who
   may be behind another vote already. */
may_suspend bool approval_decide(struct orchestrator *o, struct context *ctx,
                                 const struct principal *principal,
                                 const struct approval_decision *decision, struct error *e);
/* Ends what nobody decided in time and wakes its runs; main calls it every 30 s on a coroutine. */
may_suspend bool approvals_expire(struct orchestrator *o, struct context *ctx, size_t *expired,
                                  struct error *e);

/* ---- one governed call without a run ---- */
/* POST /api/v1/tools/{name}/invoke: policy, budget (of the session when given), execution, audit. */
struct tool_invocation {
    str name, version, input;
    uuid session_id; /* UUID_NONE: none */
};
may_suspend bool tool_invoke(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal,
                             const struct tool_invocation *invocation, struct tool_result *out,
                             str *version, struct error *e);

/* ---- session files ---- */
struct file_upload;
may_suspend bool file_upload_begin(struct orchestrator *o, struct context *ctx,
                                   const struct principal *principal, uuid session_id, str name,
                                   str content_type, int64_t content_length,
                                   struct file_upload **out, struct error *e);
may_suspend bool file_upload_write(struct file_upload *upload, struct context *ctx, str bytes,
                                   struct error *e); /* QUOTA */
may_suspend bool file_upload_finish(struct file_upload *upload, struct context *ctx,
                                    struct record *out, struct error *e);
void file_upload_abort(struct file_upload *upload); /* NULL is fine */
may_suspend bool file_list(struct orchestrator *o, struct context *ctx,
                           const struct principal *principal, uuid session_id, struct records *out,
                           struct error *e);
struct file_download;
may_suspend bool file_download_begin(struct orchestrator *o, struct context *ctx,
                                     const struct principal *principal, uuid session_id, str name,
                                     struct file_download **out, struct record *row,
                                     struct error *e);
/* empty at the end; borrowed until the next call */
may_suspend bool file_download_read(struct file_download *download, struct context *ctx, str *piece,
                                    struct error *e);
void file_download_end(struct file_download *download);
may_suspend bool file_remove(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, uuid session_id, str name,
                             struct error *e);
/* Removes workspaces of sessions that have ended, looking at WORKSPACE_SWEEP_MAX of them; `after` (on `after_arena`, which it resets) is
   where the next call goes on, empty at first and at the end.  main calls it as approvals_expire. */
may_suspend bool session_workspaces_sweep(struct orchestrator *o, struct context *ctx, str *after,
                                          struct arena *after_arena, size_t *removed,
                                          struct error *e);

#endif
