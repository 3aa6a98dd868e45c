/*
 * Follow: a run's events from a server, each once and in order, across lost connections and server restarts (Last-Event-ID).
 *
 * Ends after a final event, when the reader says so, or when the server could not be reached for FOLLOW_PATIENCE_MS.
 * A run says nothing while runs below it wait for an approval.  So once it has begun others and is silent (or at the latest every
 * FOLLOW_LOOK_MS_MAX), the server is asked what they wait for, by a coroutine of its own beside the one that reads.
 */
#ifndef NEXUS_CLI_FOLLOW_H
#define NEXUS_CLI_FOLLOW_H

#include "cli/client.h"

enum { FOLLOW_PATIENCE_MS = 60 * 1000, FOLLOW_LOOK_MS = 500, FOLLOW_LOOK_MS_MAX = 4000 };

struct run_event {
    int64_t seq;
    str type;
    str text;                /* of data, JSON */
    const struct json *data; /* lives for the call */
};
/* False: that was enough. */
typedef bool follow_fn(void *owner, struct context *ctx, const struct run_event *event);

/* An approval that the run, or one below it, waits for. */
struct awaited_approval {
    str id, run_id;
    bool is_below; /* the run's own journal has nothing of it */
};
/* Each once.  False: that was enough. */
typedef bool follow_wait_fn(void *owner, struct context *ctx,
                            const struct awaited_approval *approval);

/* `after`: number of the last event that is known; 0: from the beginning. */
may_suspend bool follow_run(struct client *client, struct context *ctx, str run_id, int64_t after,
                            follow_fn *fn, follow_wait_fn *wait, void *owner, struct error *e);

bool run_event_is_final(str type); /* run.completed, run.failed, run.cancelled */

#endif
