/*
 * Node loops: the loops of a node with what each of them owns (an HTTP client, a lane of the orchestrator).
 *
 *      create (no thread yet: a server may already listen) --> start threads --> stop threads --> destroy
 *
 * Thread: the main thread; node_loops_client also from the loops themselves.
 */
#ifndef NEXUS_CLI_NODE_LOOPS_H
#define NEXUS_CLI_NODE_LOOPS_H

#include "base/limits.h"
#include "orchestrator/orchestrator.h"
#include "runtime/loop.h"

struct http_client;

struct node_loops {
    struct loop *loops[LOOP_COUNT_MAX];
    struct http_client *clients[LOOP_COUNT_MAX];
    struct lane lanes[LOOP_COUNT_MAX];
    size_t count, thread_count;
    str dns_servers; /* set by whoever creates it, before; empty: the system's way (net/dns.h) */
};

/* wanted 0: one per core.  What was made before a failure is destroyed by node_loops_destroy. */
must_check bool node_loops_create(struct node_loops *node, size_t wanted, struct error *e);
void node_loops_destroy(struct node_loops *node); /* threads stopped; ends the blocking pool too */
/* All or none. */
must_check bool node_loops_start_threads(struct node_loops *node, struct error *e);
void node_loops_stop_threads(struct node_loops *node);

/* The HTTP client of the loop that calls (owner: the node_loops); NULL elsewhere. */
struct http_client *node_loops_client(void *owner);

#endif
