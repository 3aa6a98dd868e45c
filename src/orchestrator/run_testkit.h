/*
 * What the scripts of whole runs share: one run of ada's, begun by scene_begin, and what its journal and tables must say.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_TESTKIT_H
#define NEXUS_ORCHESTRATOR_RUN_TESTKIT_H

#include "orchestrator/orchestrator_testkit.h"

/* Pieces of a history (testkit_history). */
#define BEGUN "run.started message.added policy.decided"
#define INTENT " policy.decided budget.reserved model.requested"
#define ANSWERED " model.completed budget.settled"
#define TOOL " policy.decided budget.reserved tool.intended"
#define TOOL_ENDED " tool.completed budget.settled"

extern struct scene {
    struct testkit *kit;
    struct principal user;
    uuid session_id, run_id, approval_id;
    str digest;
} scene;

void scene_start(struct testkit *kit); /* forgets the one before */
/* So, with two agents: "assistant", who may ask the helper (its name outlives the test); each may use every tool. */
void scene_start_pair(struct testkit *kit, const char *helper);
/* Opens a session and starts a run in it. */
void scene_begin_with(struct context *ctx, cost budget);
void scene_begin(struct context *ctx, void *unused);
/* An admin of that name (a C string) decides one pending approval: allows it, or denies it if the name is "nay". */
void scene_vote(struct context *ctx, void *who);
void scene_approve(struct context *ctx, void *unused); /* allows the only one that is pending */
/* Its session is resumed by somebody who dies before anybody is told. */
void scene_resume_unheard(struct context *ctx, void *unused);

void assert_str(str got, const char *wanted);
const struct json *event(struct context *ctx, enum event_type type); /* the newest of the run */
void assert_member(struct context *ctx, enum event_type type, const char *member,
                   const char *wanted);
void assert_history(struct context *ctx, const char *wanted);
/* The session is free, the accounts add up, and the run's row says what its journal says. */
void assert_at_rest(struct context *ctx, const char *status);

#endif
