/*
 * What the tests of replays share: the scene's run (run_testkit.h), exported, and played again.
 */
#ifndef NEXUS_ORCHESTRATOR_RUN_REPLAY_TESTKIT_H
#define NEXUS_ORCHESTRATOR_RUN_REPLAY_TESTKIT_H

#include "orchestrator/replay/run_replay.h"
#include "orchestrator/run_testkit.h"

/* The scene's run as it stands; on the kit's arena. */
str replay_export(struct testkit *kit);
str replay_export_of(struct testkit *kit, uuid run_id);
struct replay_report *replay_text(struct testkit *kit, str text);
/* The scene's run replays to the same bytes; shows what does not.  Gives the export. */
str assert_replays(struct testkit *kit);
str assert_replays_run(struct testkit *kit, uuid run_id);

#endif
