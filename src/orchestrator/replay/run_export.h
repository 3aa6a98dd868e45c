/*
 * Run export: one run as one document: everything that a replay, a comparison or a person needs, and nothing that must stay secret.
 *
 *   {"format": "nexus.run", "version": 1, "tenant_id", "run": row, "session": row, "events": [{"seq", "type", "at", "data"}],
 *    "messages": [row], "tool_calls": [row], "approvals": [row], "votes": [row], "files": [row], "environments": {digest: {...}},
 *    "children": [{"run": row, "messages": [row], "events": [the last one]}]}
 * Rows are of row_json.h; messages are those the run could see, older ones of the session included.  Keys of providers and of callers
 * are in none of these tables; files are named, not held.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_EXPORT_H
#define NEXUS_ORCHESTRATOR_RUN_EXPORT_H

#include "orchestrator/orchestrator.h"

enum { RUN_EXPORT_VERSION = 1 };

/* On ctx's arena.  NOT_FOUND for runs the principal does not see; TOO_LARGE past RUN_EXPORT_BYTES_MAX. */
may_suspend bool run_export(struct orchestrator *o, struct context *ctx,
                            const struct principal *principal, uuid run_id, str *out,
                            struct error *e);

#endif
