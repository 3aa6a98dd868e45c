/* The tools that the simulated models ask for.  The registry reads manifests from a folder; nothing of a module is ever run. */
#ifndef NEXUS_TESTS_SIM_TOOLS_H
#define NEXUS_TESTS_SIM_TOOLS_H

#include "agent/tool/registry.h"

/* Shared by all worlds.  What it writes below `folder` is gone when it returns. */
struct registry *tools_registry(const char *folder);

#endif
