/*
 * Follow: a run's events from a server, each once and in order, across lost connections and server restarts (Last-Event-ID).
 *
 * Ends after a final event, when the reader says so, or when the server could not be reached for FOLLOW_PATIENCE_MS.
 */
#ifndef NEXUS_CLI_FOLLOW_H
#define NEXUS_CLI_FOLLOW_H

#include "cli/client.h"

enum { FOLLOW_PATIENCE_MS = 60 * 1000 };

struct run_event {
    int64_t seq;
    str type;
    str text;                /* of data, JSON */
    const struct json *data; /* lives for the call */
};
/* False: that was enough. */
typedef bool follow_fn(void *owner, struct context *ctx, const struct run_event *event);

/* `after`: number of the last event that is known; 0: from the beginning. */
may_suspend bool follow_run(struct client *client, struct context *ctx, str run_id, int64_t after,
                            follow_fn *fn, void *owner, struct error *e);

bool run_event_is_final(str type); /* run.completed, run.failed, run.cancelled */

#endif
