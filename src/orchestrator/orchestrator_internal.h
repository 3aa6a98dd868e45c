/*
 * The orchestrator's inside: shared by the files of this folder only.
 */
#ifndef NEXUS_ORCHESTRATOR_ORCHESTRATOR_INTERNAL_H
#define NEXUS_ORCHESTRATOR_ORCHESTRATOR_INTERNAL_H

#include "orchestrator/orchestrator.h"
#include "orchestrator/usage_log.h"
#include <pthread.h>

/* Touched on its lane only. */
struct lane_state {
    struct list runs; /* of run.link */
    size_t run_count;
    struct condition became_idle;
    bool
        is_closed; /* drained: what is spawned from now on is only stored, and goes on at the next start */
};

struct orchestrator {
    struct orchestrator_parts parts;
    struct ledger *ledger;
    struct usage_log *usage;
    struct metric_series *model_calls_allowed; /* decisions of the policy */
    struct journal_hub *hub;
    pthread_mutex_t settings_lock;
    struct settings *settings;
    struct lane_state *lanes;
    struct { /* changes of tools, one at a time; on lane 0 only */
        bool is_busy;
        struct condition became_idle;
    } tool_admin;
    _Atomic size_t active_runs;
    _Atomic bool is_draining;
    _Atomic size_t
        recovering; /* runs of the last start whose journal is not loaded yet: nothing reserves before they have */
};

size_t lane_of_session(const struct orchestrator *o, uuid session_id);

/* Runs fn on a coroutine of that lane and waits until it has returned (cancellation does not cut this short: `argument` may be on the
   caller's stack).  A plain call when it is the caller's own lane. */
void lane_call(struct orchestrator *o, size_t lane, struct context *ctx,
               void (*fn)(struct context *ctx, void *argument), void *argument);

/* Brings a run to life on its lane: loads its journal and goes on; wakes it when it is alive already.  Any thread. */
void run_spawn(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id);
/* At a start: counted in o->recovering until its open reservations are back in the ledger; it goes on when all are. */
void run_spawn_recovering(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id);
void run_spawn_cancelled(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id,
                         str cancelled_by);

/* Is the principal allowed to see what this user owns? */
bool principal_sees_user(const struct principal *principal, str user_id);

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
