/*
 * Tool administration: install, remove, pin, canary, deprecate, hide, narrow; durable, and told to the registry.
 *
 *   upload --> files of ours --> checked, compiled (pool) --> row + audit (one commit) --> registry snapshot
 *
 * A tool becomes visible with its row: before the commit nobody sees it, and a crash leaves at most a folder without a row, which the
 * next start removes.  Versions are immutable: the same name and version with other bytes is a CONFLICT.
 * An administrator acts for their own tenant, or with the scope `platform` for all (is_platform).
 * Changes of one node run one after another (lane 0).  Thread: any coroutine of any lane.
 */
#ifndef NEXUS_ORCHESTRATOR_TOOL_ADMIN_H
#define NEXUS_ORCHESTRATOR_TOOL_ADMIN_H

#include "orchestrator/orchestrator.h"

/* At start, before anything runs: what the store says of tools goes to the registry. */
may_suspend bool tools_load(struct orchestrator *o, struct context *ctx, struct error *e);

/* ---- a package, as its bytes come in ---- */
struct tool_upload;
struct tool_installed {
    str name, version, seal, signer; /* signer: of the trusted keys, or empty */
    bool is_new;                     /* false: the very same was there */
};
may_suspend bool tool_upload_begin(struct orchestrator *o, struct context *ctx,
                                   const struct principal *principal, bool is_platform,
                                   struct tool_upload **out, struct error *e);
may_suspend bool tool_upload_write(struct tool_upload *upload, struct context *ctx, str bytes,
                                   struct error *e);
/* Checks, compiles, installs; the upload is gone afterwards either way. */
may_suspend bool tool_upload_finish(struct tool_upload *give_upload, struct context *ctx,
                                    struct tool_installed *out, struct error *e);
void tool_upload_abort(struct tool_upload *give_upload); /* NULL is fine */

/* ---- what is there ---- */
struct tool_target {
    str name, version; /* version: only for tool_remove */
    bool is_platform;
    str if_match; /* an ETag without quotes; empty: whatever it is */
};
/* Only what was installed, by exact version.  Calls in flight end as they would have. */
may_suspend bool tool_remove(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, const struct tool_target *target,
                             struct error *e);

/*
 * `change`: {current?: version or null, canary?: {version, percent} or null, hidden?: bool, visible_to?: [tenant ids] or null,
 * deprecated?: {version: text or null}}; what is not named stays.  *state is the row afterwards.
 */
may_suspend bool tool_change_state(struct orchestrator *o, struct context *ctx,
                                   const struct principal *principal,
                                   const struct tool_target *target, const struct json *change,
                                   struct record *state, struct error *e);
/* A tenant's narrowing, YAML or JSON as under tools.NAME.permissions; empty members: none any more. */
may_suspend bool tool_set_permissions(struct orchestrator *o, struct context *ctx,
                                      const struct principal *principal,
                                      const struct tool_target *target, str text,
                                      struct record *state, struct error *e);
/* The row; an empty one of revision 0 when nothing was decided. */
may_suspend bool tool_state_row(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, const struct tool_target *target,
                                struct record *out, struct error *e);
void tool_state_write_json(struct json_writer *w, const struct record *state);

/* ---- explained ---- */
struct tool_question {
    str name, version, agent, user_id; /* agent and user_id may be empty */
};
/* The effective permissions, for each value which level set it, and what the policy says: JSON on ctx's arena. */
may_suspend bool tool_explain(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal,
                              const struct tool_question *question, str *out, struct error *e);

#endif
