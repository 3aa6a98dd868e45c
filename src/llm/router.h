/*
 * Router: which target and which key a call takes next, and what becomes known of them.
 *
 *      route_begin --> route_next --> (sleep wait_ms) --> (attempt_enter) --> send with attempt.how
 *                          ^              --> attempt_first_token --> attempt_end
 *                          |                                              |
 *                          +------ on a failure that may be retried ------+
 *
 * - Order: the lowest priority that has a target which is not tried out; within it power-of-two
 *   choice by weight, on calls in flight and the moving average of the time to the first token.
 *   Weights say the shares while the targets are about equally loaded; a clearly more loaded one
 *   loses draws.  Sticky: the same `sticky` text takes the same variant, and the same target while
 *   it is healthy (provider caches stay warm).  A split's targets are left for those of no variant,
 *   and these for another variant's, only when none of them is left.
 * - Keys: every key of a target's pool is tried once before the target is given up; a key that
 *   answered 401/403 or has no quota is out for a time, one that answered 429 until its Retry-After
 *   (or its rate fields) says; keys with most remaining quota go first.
 * - Failures by class: invalid requests are never retried; auth and quota go to the next key or
 *   target at once; rate limits wait for Retry-After only when nothing else is left and it is
 *   short; overload, network, protocol, time-outs go to a fresh target of the same priority at
 *   once, else back off with full jitter on one that failed.  What says nothing of the target (a
 *   budget that refuses its price, a dialect it does not speak) passes it over.
 *   A retry budget per target (a share of its calls) keeps retries from making an outage worse.
 * - Places per provider (provider.h: places), where they are bounded: a provider without a free one is
 *   passed over while anything else is left; else the attempt waits in a queue that is fair between
 *   tenants (runtime/bulkhead.h), for as long as the provider says.  Calls of runs have places of
 *   their own besides, so that a slow provider does not hold all of a node's runs.
 * - Circuit breaker per target: opens on a share of failures within a window or on a row of them,
 *   half-open lets single probes through, then ramps up.
 * - Everything known is per (provider, model) and lives across reloads, but what is known of keys
 *   is forgotten when the provider's configuration changed.  `struct route` and `struct attempt`
 *   are the caller's memory, do not move while in use and need no clean-up but attempt_end for each
 *   attempt that was given.
 * Given the same clock and random, the same choices.
 * Thread: any; short locks and atomics.  One route: one thread at a time.  Suspends: attempt_enter.
 */
#ifndef NEXUS_LLM_ROUTER_H
#define NEXUS_LLM_ROUTER_H

#include "base/limits.h"
#include "llm/catalog.h"
#include "observe/metrics.h"
#include "runtime/clock.h"
#include "runtime/context.h"

struct router;
struct router *router_create(struct clock *clock, struct random *random,
                             struct metrics *metrics); /* metrics may be NULL */
void router_destroy(struct router *router);
OWNED_DEFINE(router)
/* Gives every target of a catalog its health, kept from before where (provider, model) is the same.
   Once per catalog, before use. */
void router_adopt(struct router *router, struct catalog *catalog);

struct route_request {
    const struct model *model;
    str sticky; /* session, user or key: what an A/B split and a warm cache stick to; empty: none */
    /* A provider's name: it holds the conversation, so of one priority it is asked first while it is
       healthy; empty: none.  Read by route_begin only. */
    str prefer;
    /* Targets with a smaller context are passed over while another fits. */
    int64_t input_tokens_bound, output_tokens_max;
    uuid tenant_id; /* whose turn it uses where calls wait for a place */
    bool is_run;    /* a run's call: see places */
};
/* One key of one target that this call has asked. */
struct route_step {
    uint8_t target, key;
};
struct route {
    struct router *router;
    struct route_request request;
    const struct model_variant *variant; /* of a split; NULL: none */
    uint64_t sticky_hash;                /* 0: not sticky */
    uint64_t preferred;                  /* a bit per target of the preferred provider */
    uint64_t exhausted;                  /* a bit per target: not to be asked again */
    uint64_t backed_off;                 /* failed for the target's own reasons */
    uint64_t open_targets;               /* with an attempt in flight (two when hedging) */
    uint64_t full;                       /* found without a free place by the last route_next */
    struct route_step steps[ROUTER_ATTEMPTS_MAX];
    uint8_t attempts, waits;
    uint8_t last_target;    /* ROUTE_NO_TARGET: none */
    enum error_reason told; /* the failure so far that tells the caller most; NONE: no failure */
    uint8_t told_target;    /* where it happened */
    int64_t told_retry_after_ms; /* 0: nobody said */
};
enum { ROUTE_NO_TARGET = MODEL_TARGETS_MAX };

struct key_pool;
struct attempt {
    struct route *route;
    const struct model_target *target;
    size_t target_index;
    /* Key, and deadlines of a stream (the head of a whole answer comes late: who asks for one sets
       first_byte_timeout_ms); on_head reads quota fields. */
    struct provider_call how;
    int64_t started_ns, first_token_ns; /* monotonic; 0: no token yet */
    int64_t retry_after_ms;             /* as on_head saw it; 0: not said */
    struct key_pool *keys, *shared_keys;
    int status; /* as on_head saw it; 0: no head yet */
    int number; /* 1.. of this call */
    bool is_open, is_probe, is_hedge, is_retry;
    bool must_wait; /* no place is free: attempt_enter before it is sent */
    uint8_t places_wanted, places_held;
};

void route_begin(struct route *route, struct router *router, const struct route_request *request);
/* The next attempt, marked in flight.  `last`: why the one before failed (attempt_end has had it);
   NULL at the first and for a hedge.  wait_ms: how long to wait before sending (0 mostly; bounded
   by ROUTER_WAIT_MS_MAX).  False: nothing is left; *e is the failure that tells the caller most
   (never a mere "no target left"), with retry_after_ms when waiting would help. */
must_check bool route_next(struct route *route, const struct error *last, struct attempt *out,
                           int64_t *wait_ms, struct error *e);
/* For an attempt that must_wait, after wait_ms: waits for its places.  OVERLOADED_HERE when none came in
   time or too many wait: attempt_end it with that error, and route_next takes another target if one is
   left.  Also CANCELLED, TIMEOUT. */
may_suspend bool attempt_enter(struct attempt *attempt, struct context *ctx, struct error *e);
/* The first piece of a streamed answer.  Not for whole answers: their time says how long they are. */
void attempt_first_token(struct attempt *attempt);
/* failure NULL: it went well.  A cancelled attempt (client left, hedge lost) says nothing about the
   target's health.  A second call for the same attempt does nothing. */
void attempt_end(struct attempt *attempt, const struct error *failure);
/* Would route_next find something after this failure (attempt_end has had it)?  For those who must say
   so before they ask; what others do meanwhile may change the answer. */
bool route_may_go_on(const struct route *route, const struct error *last);
/* When a hedge should go out after `first` was sent, 0: never (also when there is no second target,
   or hedges are a large share of calls already). */
int64_t route_hedge_after_ms(const struct route *route, const struct attempt *first);

/* Shows places to the metrics: whoever is about to read these calls it. */
void router_show(struct router *router);
/* What is known, for API and doctor: an array of {kind: "model_target", name, circuit, retry_after_ms,
   passed, failed, in_use, provider, provider_model, state, in_flight, ewma_first_token_ms, failures,
   keys: [...]}; of a model its targets, with their weights. */
void router_write_json(struct router *router, struct json_writer *w);
/* An array of {kind: "provider" | "provider_runs", name, in_use, places (null: no bound), queued,
   queue_max, refused}. */
void router_write_places_json(struct router *router, struct json_writer *w);
void router_write_model_json(struct router *router, const struct model *model,
                             struct json_writer *w);

#endif
