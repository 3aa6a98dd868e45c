/*
 * Host call "tool_call": a guest calls another tool, {"name": ..., "input": {...}} to that tool's output.
 *
 * Whether it may is decided by who asked for this call: request->calls forwards to the orchestrator, where policy, budget and audit
 * see a call like any of the model's.  Without it: PERMISSION.
 */
#ifndef NEXUS_AGENT_HOST_TOOL_CALL_H
#define NEXUS_AGENT_HOST_TOOL_CALL_H

#include "agent/executor.h"

struct host_call host_tool_call(void);

#endif
