/*
 * Guard: an executor in front of another one that keeps a tool which is slow or broken from holding up the others.
 *
 *      executor_execute --> [circuit of the MCP server] --> [circuit and places of the tool] --> the executor behind
 *
 * Each tool has a bulkhead (runtime/bulkhead.h: so many calls at once, so many waiting, so long) and a circuit breaker
 * (runtime/breaker.h); each MCP server has both as well, over all its tools.  A circuit opens on what says that the other side is broken
 * and never on what a caller did: a server that cannot be reached or does not answer in time, guests that cannot be run at all.  What a
 * host somewhere answers to a tool that fetches from anywhere says nothing of the tool.  An open circuit refuses at once
 * (UNAVAILABLE with the time to come back) and lets single probes through when its time is over.
 * Calls that guests make (request->is_nested) take no place: their caller holds one, so nobody waits for themselves.
 *
 * Memory is bounded: tools past GUARD_ENTRIES_MAX share one entry without a circuit.  A tool of one tenant is shown to that tenant only.
 * Thread: any; a call that finds place costs about half a microsecond.  Suspends: while it waits for a place, and behind it.
 */
#ifndef NEXUS_AGENT_EXECUTOR_GUARD_H
#define NEXUS_AGENT_EXECUTOR_GUARD_H

#include "agent/executor.h"

struct executor_guard;
struct metrics;

struct executor_guard_options {
    struct executor *give_next; /* owned from then on */
    struct clock *clock;
    struct random *random;
    struct metrics *metrics; /* borrowed; NULL: none */
    int32_t places,
        server_places; /* calls at once of one tool, of one MCP server; 0: GUARD_PLACES, GUARD_SERVER_PLACES */
    int32_t queue_max; /* waiting before each; 0: GUARD_QUEUE_MAX */
    int64_t wait_ms;   /* at most; 0: GUARD_WAIT_MS */
};
struct executor_guard *executor_guard_create(const struct executor_guard_options *options);
/* The executor to call; executor_destroy() on it ends the guard and the executor behind. */
struct executor *executor_guard_executor(struct executor_guard *guard);

/* Items of an array: {kind: "tool" | "mcp_server", name, circuit: "ok" | "open" | "probing" | "ramping", retry_after_ms, passed, failed,
   in_use, places, queued, queue_max, refused}. */
void executor_guard_write_json(struct executor_guard *guard, uuid tenant_id, struct json_writer *w);

#endif
