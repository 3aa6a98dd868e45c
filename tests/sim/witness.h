/*
 * Witness: looks at everything the store has taken, at the moment it took it.
 *
 *   one writer per session   a claim's epoch is the newest, and only its owner appends under it
 *   no gap in a journal      the events of a run come one by one, in a batch under its session's fence
 *   no account over limit    after each change of an account its row is looked at (memory)
 *   what was promised stays  rows whose commit was acknowledged are there after every crash (disk), until somebody asks
 *                            for their removal: from then on a batch's rows are all there or all gone
 */
#ifndef NEXUS_TESTS_SIM_WITNESS_H
#define NEXUS_TESTS_SIM_WITNESS_H

#include "world.h"

void witness_init(struct world *world);
void witness_deinit(struct world *world);
void witness_claim(struct world *world, const struct node *node, uuid session_id, int64_t epoch);
void witness_batch(struct world *world, const struct node *node, const struct batch *batch);
/* It is on its way to the disk: what it removes may be gone before its commit is acknowledged. */
void witness_ask(struct world *world, const struct batch *batch);
/* Its commit was acknowledged. */
void witness_promise(struct world *world, const struct batch *batch);
/* After a crash of the disk: is all that was promised there?  Outside a coroutine. */
void witness_check_promises(struct world *world);
/* What was seen of sessions and journals may be newer than what survived: it is seen anew. */
void witness_forget(struct world *world);

#endif
