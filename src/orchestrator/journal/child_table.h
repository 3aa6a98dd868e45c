/*
 * Child table: the runs that a run has begun, as its fold keeps them.
 *
 * Those alive stand in a list, in the order in which they were begun; all of them, by id, in a table of which an ended one keeps its id and
 * nothing else, so that it is not begun twice.  Everything lies on the state's arena; what an ended one took is used again.
 * Thread: the run's.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_JOURNAL_CHILD_TABLE_H
#define NEXUS_ORCHESTRATOR_JOURNAL_CHILD_TABLE_H

#include "orchestrator/journal/run_state.h"

/* Was a run of this id ever begun? */
bool child_table_knows(const struct run_state *state, uuid run_id);
/* One that the table does not know. */
void child_table_add(struct run_state *state, struct child child);
/* It has ended; `child` is not valid any more. */
void child_table_remove(struct run_state *state, struct child *child);

#endif
