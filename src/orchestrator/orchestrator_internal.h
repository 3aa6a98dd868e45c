/*
 * The orchestrator's inside: shared by the files of this folder only.
 */
#ifndef NEXUS_ORCHESTRATOR_ORCHESTRATOR_INTERNAL_H
#define NEXUS_ORCHESTRATOR_ORCHESTRATOR_INTERNAL_H

#include "orchestrator/admission.h"
#include "orchestrator/orchestrator.h"
#include "orchestrator/overload.h"
#include "orchestrator/usage/usage_log.h"
#include <pthread.h>

/* Touched on its lane only. */
struct lane_state {
    struct list runs; /* of run.link */
    size_t run_count;
    struct map *by_id;    /* the same by id */
    struct list spawns;   /* of spawn.link: runs that wait until another one is loaded, in order */
    size_t loading_count; /* at most RUN_LOADS_MAX */
    struct condition became_idle;
    struct run_environments *environments; /* run_environment.h; NULL: none yet */
    bool
        is_closed; /* drained: what is spawned from now on is only stored, and goes on at the next start */
};

struct orchestrator {
    struct orchestrator_parts parts;
    struct ledger *ledger;
    struct usage_log *usage;
    struct workflow_cache *workflows;          /* compiled definitions (workflow_store.h) */
    struct webhooks *webhooks;                 /* NULL: none (webhook/webhook.h) */
    struct metric_series *model_calls_allowed; /* decisions of the policy */
    struct journal_hub *hub;
    const struct run_oracle *oracle; /* of a replay; NULL: none */
    struct node_watch *watch;        /* NULL: the store is ours alone */
    pthread_mutex_t settings_lock;
    struct settings *settings;
    struct lane_state *lanes;
    struct admission *admission; /* whose turn it is to run */
    struct overload *overload;
    uint64_t user_seed;
    struct { /* changes of tools, one at a time; on lane 0 only */
        bool is_busy;
        struct condition became_idle;
    } tool_admin;
    _Atomic int64_t approvals_due_us; /* before it no approval expires that this node knows of */
    int64_t approvals_looked_us;      /* when all of them were looked at */
    _Atomic size_t active_runs;
    _Atomic bool is_draining;
    struct restored_runs *restored; /* run_recover.c: reservations whose runs are not loaded yet */
    bool has_settled_leases;        /* of the last life */
};

size_t lane_of_session(const struct orchestrator *o, uuid session_id);

/* Runs fn on a coroutine of that lane and waits until it has returned (cancellation does not cut this short: `argument` may be on the
   caller's stack).  A plain call when it is the caller's own lane. */
void lane_call(struct orchestrator *o, size_t lane, struct context *ctx,
               void (*fn)(struct context *ctx, void *argument), void *argument);

/* Brings a run to life on its lane: loads its journal and goes on; wakes it when it is alive already.  At most RUN_LOADS_MAX of a lane
   load at once, the others wait in line.  Any thread. */
void run_spawn(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id);
/* The same for one whose turn is known: whose it is and how urgent, where there is no place (admission.h).  run_spawn: nobody's, normal. */
struct run_turn {
    uuid tenant_id, session_id, run_id;
    str user_id; /* empty: nobody's in particular */
    enum priority priority;
};
void run_spawn_as(struct orchestrator *o, const struct run_turn *turn);
/* The same for one that goes on, with its own priority: of its row, or of one that is read here.  One whose row cannot be read goes on as
   a normal one. */
void run_spawn_row(struct orchestrator *o, uuid tenant_id, const struct record *row);
may_suspend_void void run_wake(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                               uuid session_id, uuid run_id);
/* AGENT_RUNS.WAKES_AT of an instance whose session is paused: the clock passes it over, a start looks at it. */
#define RUN_WAKES_WITH_SESSION INT64_MAX
/* As the run's row keeps it; normal where it says nothing. */
enum priority run_row_priority(const struct record *row);
enum priority priority_of_text(str metadata); /* the same of the JSON text */
void run_spawn_cancelled(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id,
                         str cancelled_by);

/* The run may have a message in its session's inbox: a live one looks.  Any thread. */
void run_tell_inbox(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id);

/* ---- run_spawn.c ---- */
void lane_init(struct lane_state *lane);
void lane_deinit(struct lane_state *lane);

/* ---- run_recover.c ---- */
struct restored_runs *restored_runs_create(void);
void restored_runs_destroy(struct orchestrator *o); /* before the ledger */
/* At a start: every open reservation of an interrupted run stands again, then the runs go on; of those that wait, only whoever has news. */
may_suspend bool runs_recover(struct orchestrator *o, struct context *ctx, size_t *resumed,
                              struct error *e);

bool session_is_paused(const struct record *session);
/* SESSION_CLOSED unless the session is active and has not expired. */
must_check bool session_check_open(struct orchestrator *o, struct context *ctx,
                                   const struct record *session, struct error *e);

/* The accounts that a call without a run is charged to: those of the session and its user when one is named (which must be open),
   else the caller's.  *policy_context stays as it is without a session. */
may_suspend bool session_open_path(struct orchestrator *o, struct context *ctx,
                                   const struct principal *principal, uuid session_id,
                                   struct ledger_path *path, str *policy_context, struct error *e);

/* Session limits as stored in its budget column. */
must_check bool session_budget_read(str budget_json, cost *out, struct error *e);
str session_budget_text(struct arena *arena, cost limit); /* the same the other way */

/* sha256 over canonical JSON of everything an approval binds.  `subject` gets that JSON. */
struct approval_subject {
    uuid tenant_id, run_id, tool_call_id;
    const struct tool *tool;
    str arguments;
};
must_check bool approval_digest(struct arena *arena, const struct approval_subject *subject,
                                str *subject_json, str *digest_hex, struct error *e);

/* Files of a session for a tool call: resolves names to paths of ours. */
struct session_files {
    struct orchestrator *o;
    uuid tenant_id, session_id;
};
int64_t tool_deadline_ns(struct context *ctx, const struct tool *tool, int64_t reserved_ms);
struct tool_files session_files_of(struct session_files *files);
may_suspend bool session_file_rows(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                   uuid session_id, struct records *out, struct error *e);

/* Files that tools wrote: rows of SESSION_FILES that are in no table, with an empty digest and path. */
may_suspend bool session_workspace_add(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                       uuid session_id, struct records *files, struct error *e);
may_suspend bool session_workspace_open(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                        uuid session_id, str name, int *fd, struct record *row,
                                        struct error *e);
may_suspend bool session_workspace_remove(struct orchestrator *o, struct context *ctx,
                                          uuid tenant_id, uuid session_id, str name,
                                          struct error *e);

/* The JSON array of run.started; empty when there are none or they are over RUN_CLIENT_TOOLS_BYTES_MAX. */
str client_tools_text(struct arena *arena, const struct tool_spec *tools, size_t count);

#endif
