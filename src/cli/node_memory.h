/*
 * Node memory: what is remembered of conversations, and the host calls by which tools reach it.
 *
 * offer (before the executors start) --> start (the orchestrator is there) --> stop.  Thread: the main thread.
 */
#ifndef NEXUS_CLI_NODE_MEMORY_H
#define NEXUS_CLI_NODE_MEMORY_H

#include "cli/node_tools.h"
#include "orchestrator/memory/host_memory.h"

struct node_memory {
    struct memory *memory; /* NULL until started */
    struct host_memory host;
};

void node_memory_offer(struct node_memory *memory, struct node_tools *tools);
/* Asks the embedder once: another dimension than the store's ends the start. */
must_check bool node_memory_start(struct node_memory *memory, const struct config *config,
                                  struct orchestrator *o, struct vector_index *index,
                                  struct loop *loop, struct error *e);
void node_memory_stop(struct node_memory *memory);

#endif
