/*
 * Guard tally: which rules masked or blocked something in one request or answer, and how often: what one audit entry tells.
 *
 * Flags only count in the metrics.  A tally without findings owns no memory.  Beyond GUARD_TALLY_RULES_MAX rules the others are one sum.
 * Rules are named as long as the filter's set lives.
 * Thread: one at a time; what another thread finds is gathered there and added after.  Suspends: never.
 */
#ifndef NEXUS_LLM_GUARD_TALLY_H
#define NEXUS_LLM_GUARD_TALLY_H

#include "base/json.h"
#include "llm/guard.h"

struct guard_tally_item;
struct guard_tally {
    struct guard_tally_item *items; /* NULL: nothing was found */
    size_t item_count;
};
void guard_tally_deinit(struct guard_tally *tally); /* then it is empty */
/* Its findings come into the tally, which must stay where it is. */
struct guard_sink guard_tally_sink(struct guard_tally *tally);
/* `from` is empty then. */
void guard_tally_move(struct guard_tally *tally, struct guard_tally *from);

/* What was done to texts of this direction: FILTER_BLOCK before FILTER_MASK; FILTER_OFF: nothing. */
enum filter_action guard_tally_action(const struct guard_tally *tally,
                                      enum guard_direction direction);
/* "rules": [{"rule", "group", "action", "count"}], a member of an open object. */
void guard_tally_write(const struct guard_tally *tally, enum guard_direction direction,
                       struct json_writer *w);

#endif
