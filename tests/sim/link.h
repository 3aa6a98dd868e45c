/*
 * Link: how one incarnation of a node reaches the store: the store's contract over a network.
 *
 * A request travels, is applied, and its answer travels back; each way takes time.  It may be refused, lost, delayed for as long as a cut
 * lasts, or applied long after the asker gave up; an answer may be lost (REASON_OUTCOME_UNKNOWN).  What was submitted without waiting is
 * applied before any later commit of the same node, and dies with the node while it is still under way.
 * A store on the node's own disk has no network: the link only looks on.
 * Everything that was applied is told to the witness (witness.h).
 */
#ifndef NEXUS_TESTS_SIM_LINK_H
#define NEXUS_TESTS_SIM_LINK_H

#include "world.h"

struct link *link_create(struct node *node);
struct store *link_store(struct link *link);

#endif
