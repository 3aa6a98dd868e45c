/*
 * Rates: how much a tenant, a user or a key may ask for in a minute, and how many streams a key may hold open.
 *
 * rate: one window of 60 s per subject and kind in a table of GATEWAY_RATE_SLOTS; when a bucket of the table is full, the window that
 * ends first makes room, so a flood of users can shorten others' windows but never lock anyone out.  Tokens are taken by an estimate
 * before a call and corrected by what it used: a window may end overdrawn by what was under way, and then nothing more fits.
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

enum rate_kind {
    RATE_ADDRESS_REQUESTS, /* of callers without a key, by their address */
    RATE_USER_REQUESTS,
    RATE_KEY_REQUESTS,
    RATE_TENANT_REQUESTS,
    RATE_USER_TOKENS,
    RATE_KEY_TOKENS,
    RATE_TENANT_TOKENS,
};
struct rate_subject {
    enum rate_kind kind;
    uuid tenant_id;
    str name; /* user id, key id's bytes or address; empty for a tenant */
};

struct rate *rate_create(void);
void rate_destroy(struct rate *rate);
/* Takes `amount` of `per_minute` (> 0).  REASON_RATE_LIMIT with retry_after_ms when it does not fit, and then nothing is taken; an
   amount over the whole limit fits an unused window.  The view is set either way. */
must_check bool rate_take(struct rate *rate, const struct rate_subject *subject, int64_t per_minute,
                          int64_t amount, int64_t now_ns, struct rate_view *view, struct error *e);
/* What was taken was not what was used: `difference` more (or less, negative).  Without a window of now it is forgotten. */
void rate_correct(struct rate *rate, const struct rate_subject *subject, int64_t difference,
                  int64_t now_ns);

struct streams;
struct streams *streams_create(size_t per_key);
void streams_destroy(struct streams *streams);
/* key_max 0: the configured number.  REASON_RATE_LIMIT. */
must_check bool streams_take(struct streams *streams, uuid key_id, int64_t key_max,
                             struct error *e);
void streams_give(struct streams *streams, uuid key_id);
size_t streams_count(struct streams *streams);

#endif
