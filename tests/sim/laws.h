/*
 * Laws: what must hold of everything that is stored, looked at with each commit as it is applied, and once more at rest.
 *
 *   runs       nothing is written behind a run's end; a child ends before its parent; what a run and all below it use is within its ceiling
 *   workflows  completed steps are undone in the reverse of their completion, each once; a signal is taken once, and what took it goes on
 *   approvals  pending, then decided by enough persons who are no party, on its digest, then used once and for that only
 *   schedules  a time starts one instance; none is passed over but as its policy says
 *   webhooks   every end is told to who wants it, by rows of its commit; to nobody else; delivered or dead in the end
 *   messages   each is in its session once, in the order that its policy gives
 *
 * It reads rows and events only: nothing of what it believes comes from the code that it watches.
 */
#ifndef NEXUS_TESTS_SIM_LAWS_H
#define NEXUS_TESTS_SIM_LAWS_H

#include "world.h"

struct laws;
struct webhook_signed;

void laws_init(struct world *world);
void laws_deinit(struct world *world);
/* It has been stored. */
void laws_batch(struct world *world, const struct node *node, const struct batch *batch);
/* A disk came back from a crash: what was seen may be less than what survived, so that is read.  Outside a coroutine. */
void laws_read_again(struct world *world);
/* A tool has done it; `is_answered`: and says so, or that it failed for certain. */
void laws_effect(struct world *world, const struct tool_request *request);
void laws_effect_failed(struct world *world, const struct tool_request *request);
/* Its wall time is about to be set. */
void law_clock_changes(struct world *world, const struct node *node);
/* Some run has begun and not ended. */
bool laws_have_live_runs(const struct world *world);
/* An endpoint's receiver has it, and answers `status`. */
may_suspend_void void law_webhook_heard(struct world *world, struct context *ctx, int hook,
                                        const struct webhook_signed *request, int status);
/* A node read the list of endpoints that it asked for then (true time, unix). */
void law_webhook_listed(struct node *node, int64_t asked_us);
bool law_webhooks_wait(const struct world *world); /* deliveries are on their way */
/* At rest. */
may_suspend_void void laws_end(struct world *world, struct context *ctx);

#endif
