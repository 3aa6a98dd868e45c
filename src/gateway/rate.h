/*
 * Rates: how often a user may ask in a minute, and how many streams a key may hold open.
 *
 * rate: one window of 60 s per subject in a table of GATEWAY_RATE_SLOTS; when a bucket of the table is full, the window that ends
 * first makes room, so a flood of users can shorten others' windows but never lock anyone out.
 * streams: exact counts, one entry per key that has streams open.
 * Thread: any; one short lock each.  Suspends: never.
 */
#ifndef NEXUS_GATEWAY_RATE_H
#define NEXUS_GATEWAY_RATE_H

#include "base/error.h"
#include "base/uuid.h"

struct rate;
struct rate_view {
    int64_t limit, remaining;
    int64_t reset_ms; /* until the window ends */
};

struct rate *rate_create(int64_t per_minute);
void rate_destroy(struct rate *rate);
/* Counts one.  REASON_RATE_LIMIT with retry_after_ms when the window is used up; the view is set either way. */
must_check bool rate_take(struct rate *rate, uuid tenant_id, str subject, int64_t now_ns,
                          struct rate_view *view, struct error *e);

struct streams;
struct streams *streams_create(size_t per_key);
void streams_destroy(struct streams *streams);
must_check bool streams_take(struct streams *streams, uuid key_id,
                             struct error *e); /* REASON_RATE_LIMIT */
void streams_give(struct streams *streams, uuid key_id);
size_t streams_count(struct streams *streams);

#endif
