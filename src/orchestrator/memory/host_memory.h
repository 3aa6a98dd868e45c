/*
 * Host calls "memory_search" and "memory_store": the memory of the call's user, for guests.
 *
 *   memory_search  {"query", "limit"?, "scope"?: "user" | "session"}   -> {"results": [...], "embedder": {...}}   (memory.h)
 *   memory_store   {"content", "metadata"?, "content_type"?}           -> {"id", "stored": true}
 *
 * The request carries tenant, user, role and session: a guest names none of them.  Searching asks the policy (memory.read) besides the
 * tool.call that let the tool run; embedding is booked on the session.  What is stored has the label of the tool's input; what is found
 * tells its label to tool_request.heard.  A store is repeated harmlessly: its id comes of the effect key and the content.
 * Thread: the loop of the call.  Suspends: yes.
 */
#ifndef NEXUS_ORCHESTRATOR_HOST_MEMORY_H
#define NEXUS_ORCHESTRATOR_HOST_MEMORY_H

#include "orchestrator/memory/memory.h"

/* Set before the first call (the sandbox is there before the memory is); NULL: UNAVAILABLE. */
struct host_memory {
    struct memory *memory;
};
/* `memory` lives as long as the sandbox does. */
struct host_call host_memory_search(struct host_memory *memory);
struct host_call host_memory_store(struct host_memory *memory);

#endif
