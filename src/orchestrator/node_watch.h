/*
 * Node watch: which nodes of a shared store live, and who goes on with the runs of one that does not.
 *
 *      join --> [ turn: beat; look at the others; a late one is removed; runs that nobody has are taken ]*
 *
 * Each node counts up its row in NODES.  A count that stands still for NODE_LATE_MS of the looker's own monotonic time means death: the
 * row is removed, by one of the others only (the removal is conditional on the count).  A session whose owner has no row belongs to
 * nobody: whoever finds a live run in one spawns it, and the claim that begins its loading fences the old owner out.  So to be wrong
 * about a death is safe: the one taken for dead loses its sessions (FENCED) and its shares of budgets, finds its row gone at its next
 * beat and is told so (orchestrator_parts.expelled): it has to end, and may come back under another name.
 * Clocks of different nodes are never compared.  A looker that was asleep itself looks anew before it judges anybody.
 * With one owner of the store (SQLite) there is no watch.
 * Thread: the sweeps' coroutine; join before the first sweep.  Bound: NODES_MAX rows are looked at.
 */
#ifndef NEXUS_ORCHESTRATOR_NODE_WATCH_H
#define NEXUS_ORCHESTRATOR_NODE_WATCH_H

#include "orchestrator/orchestrator.h"

struct node_watch;
struct node_watch *node_watch_create(struct orchestrator *o);
void node_watch_destroy(struct node_watch *watch); /* NULL is fine */
/* The first beat; then takes what nobody has.  Gives how many runs. */
may_suspend bool node_watch_join(struct node_watch *watch, struct context *ctx, size_t *resumed,
                                 struct error *e);
may_suspend bool node_watch_turn(struct node_watch *watch, struct context *ctx, struct error *e);

#endif
