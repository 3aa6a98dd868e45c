/*
 * Node drain: the server lets its connections end and the runs are brought to a point where the next start goes on with them.
 *
 *      begin --> both at once, on a loop --> done
 *
 * Thread: the main thread.
 */
#ifndef NEXUS_CLI_NODE_DRAIN_H
#define NEXUS_CLI_NODE_DRAIN_H

#include "cli/on_loop.h"

struct http_server;
struct orchestrator;

struct node_drain {
    struct http_server *server;
    struct orchestrator *orchestrator; /* NULL: none was started */
    struct on_loop job;
    bool is_begun;
};

/* Once.  After `timeout_ms` (less than 1 counts as 1) what still goes on is interrupted. */
void node_drain_begin(struct node_drain *drain, struct loop *loop, struct http_server *server,
                      struct orchestrator *orchestrator, int64_t timeout_ms);
bool node_drain_is_done(const struct node_drain *drain);
/* After begin: false with what did not end in time. */
must_check bool node_drain_wait(struct node_drain *drain, struct error *e);

#endif
