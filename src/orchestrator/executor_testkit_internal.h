/*
 * The testkit's executor: each tool does what its fake_tool says.
 */
#ifndef NEXUS_ORCHESTRATOR_EXECUTOR_TESTKIT_INTERNAL_H
#define NEXUS_ORCHESTRATOR_EXECUTOR_TESTKIT_INTERNAL_H

#include "orchestrator/orchestrator_testkit.h"

struct fake_executor {
    struct executor base;
    struct testkit *kit;
};
extern const struct executor_ops fake_executor_ops; /* the executor was made with malloc */

#endif
