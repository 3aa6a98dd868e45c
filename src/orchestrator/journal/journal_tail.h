/*
 * Tail: the newest events of one run, in memory, for those who follow it: a follower that keeps up never asks the store.
 *
 *      writer: offer(seq, ...) as a batch is sent --> the store: durable --> commit(seq)        reader: read(after): committed events only
 *
 * It is a cache and nothing else: what it does not hold, or not yet as committed, is read from the store.  An event offered again under
 * a number (its batch was lost, the run wrote another one) takes the place of the older one and of all behind it; a gap empties it.
 * What a writer offered and did not get to store is forgotten as the next writer begins: another node may have stored something else there.
 * A commit says whose events it made durable: a batch of an earlier writer that was late took the numbers of what a later one offered, so
 * those are forgotten, not shown.
 * Bounds: JOURNAL_TAIL_EVENTS, JOURNAL_TAIL_BYTES; the oldest go first.
 * Thread: whoever holds the hub's lock.
 */
#ifndef NEXUS_ORCHESTRATOR_JOURNAL_TAIL_H
#define NEXUS_ORCHESTRATOR_JOURNAL_TAIL_H

#include "orchestrator/journal/event.h"

struct journal_tail;

struct journal_tail *journal_tail_create(void);
void journal_tail_destroy(struct journal_tail *tail); /* NULL is fine */
/* A writer begins: nothing is on its way any more. */
void journal_tail_begin(struct journal_tail *tail);
/* Copies `data`, the JSON text of the event.  `writer`: who, by a number that no other writer of the run has. */
void journal_tail_offer(struct journal_tail *tail, int64_t writer, const struct event *event,
                        str data);
/* The writer's events up to `seq` are durable. */
void journal_tail_commit(struct journal_tail *tail, int64_t writer, int64_t seq);
/* Committed events from after_seq + 1 on, at most `limit`; their data as text on the arena (event.data is NULL).  0: ask the store. */
size_t journal_tail_read(const struct journal_tail *tail, int64_t after_seq, size_t limit,
                         struct arena *arena, struct event *events, str *data);

#endif
