/*
 * What the scripts of whole instances share: one definition, named `w`, begun for ada; labels are off, they have a test of their own.
 *
 *      play_set(kit, definition, input) --> testkit_do(kit, play_begin, NULL) --> testkit_do(kit, check, NULL): assert_output ...
 */
#ifndef NEXUS_ORCHESTRATOR_WORKFLOW_TESTKIT_H
#define NEXUS_ORCHESTRATOR_WORKFLOW_TESTKIT_H

#include "orchestrator/run_testkit.h"

/* A fresh node; both texts must outlive the play.  `input` NULL: {}. */
void play_set(struct testkit *kit, const char *definition, const char *input);
void play_put(struct context *ctx, const char *definition); /* one more definition, for ada */
void play_begin(struct context *ctx, void *unused);         /* puts it and starts an instance */
/* The runs that come due are brought back. */
void play_wake(struct context *ctx, void *unused);

void assert_output(struct context *ctx, const char *wanted); /* of an instance that has completed */
/* The tree of its steps, as the API shows it, has this text in it; or has not. */
void assert_holds(struct context *ctx, const char *wanted);
void assert_lacks(struct context *ctx, const char *unwanted);

#endif
