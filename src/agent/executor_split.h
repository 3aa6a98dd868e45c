/*
 * Which executor runs a tool: by its ABI.  Tools with a module go to `sandbox`, those of MCP servers to `mcp`.
 * Thread and suspension: as the one behind.  Both are owned from then on.
 */
#ifndef NEXUS_AGENT_EXECUTOR_SPLIT_H
#define NEXUS_AGENT_EXECUTOR_SPLIT_H

#include "agent/executor.h"

/* `give_mcp` NULL: an MCP tool is UNAVAILABLE. */
struct executor *executor_split_create(struct executor *give_sandbox, struct executor *give_mcp);

#endif
