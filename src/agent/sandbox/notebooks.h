/*
 * Notebooks: interpreters that live on between calls, of tools that run code.
 *
 * A notebook belongs to one user of one session of one tenant and to one module of one tool; its name is the user's.  All
 * that is one digest, so two of them never meet.  It lives in this process only: a restart, a call that is stopped in
 * the middle (time, memory, cancel), being idle for too long or making room for another one ends it, and the next call
 * of that name gets a new one.
 *
 *      notebook_take --> (a call runs) --> notebook_put_back
 *
 * One call at a time has it.  What is kept is opaque here: `drop` frees it, on the keeper's thread or in notebooks_destroy.
 * Bounds: live ones per session (the operator's), per tenant and in all (limits.h); the idle one that was used longest ago
 * makes room in its own scope, and when all are in use the call is refused.
 *
 * Thread: any, several at once.  Suspends: never.
 */
#ifndef NEXUS_AGENT_NOTEBOOKS_H
#define NEXUS_AGENT_NOTEBOOKS_H

#include "agent/executor.h"

struct notebooks;
struct notebook {
    struct list link; /* least recently used first */
    struct tool_notebook of;
    int64_t idle_since_ns;
    bool is_taken;
    void *kept; /* NULL until a call has left something */
};

/* `drop` frees what was kept. */
struct notebooks *notebooks_create(struct clock *clock, void (*drop)(void *kept));
/* None may be taken. */
void notebooks_destroy(struct notebooks *notebooks);
/* Gives the notebook, new or kept; is_busy: another call has it, ask again later.  LIMIT: no room. */
must_check bool notebook_take(struct notebooks *notebooks, const struct tool_notebook *wanted,
                              struct notebook **out, bool *is_busy, struct error *e);
/* With kept == NULL it is gone. */
void notebook_put_back(struct notebooks *notebooks, struct notebook *notebook);
size_t notebooks_count(struct notebooks *notebooks);

#endif
