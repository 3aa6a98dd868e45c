/*
 * Router, inside: what is known of a target (its breaker, its keys, its times) and the parts that keep it.
 *
 * All of it is shared by all threads.  The path of a call that goes well reads and adds to atomics only; a lock is taken where a
 * breaker is not closed or changes its state, and where the list of targets is read or grows.
 */
#ifndef NEXUS_LLM_ROUTER_INTERNAL_H
#define NEXUS_LLM_ROUTER_INTERNAL_H

#include "llm/router.h"
#include "net/http.h"
#include "runtime/breaker.h"
#include "runtime/bulkhead.h"

#include <pthread.h>
#include <stdatomic.h>

/* ---- keys (router_keys.c) ---- */

enum { KEY_UNKNOWN = -1 };
struct key_state {
    _Atomic int64_t out_until_ns;               /* 0: in use */
    _Atomic int64_t requests_left, tokens_left; /* KEY_UNKNOWN */
    _Atomic int64_t requests_reset_ns, tokens_reset_ns;
    _Atomic uint32_t strikes; /* times out in a row */
    _Atomic int reason;       /* enum error_reason of the last time out */
};
/* A target without keys has one that is none (provider_call.key = PROVIDER_KEY_ANY). */
struct key_pool {
    struct key_pool *next; /* of all the router made */
    size_t count;
    bool is_keyless;
    _Atomic uint32_t turn;
    _Atomic bool is_out_told; /* that no key is left, and not yet that one works again */
    _Atomic int64_t told_ns;  /* when it was; 0: never */
    struct key_state keys[];
};
struct key_pool *key_pool_create(size_t key_count);
struct key_question {
    struct key_pool *keys, *shared; /* of the target; of its provider */
    uint64_t without;               /* keys that may not be taken */
    uint64_t sticky_hash;           /* 0: none */
    int64_t now_ns, tokens;         /* tokens: what the call may take */
};
/* The key to take, -1: none is usable now. */
int key_pool_pick(const struct key_question *question);
bool key_pool_has(const struct key_question *question);
/* When the first of its rate-limited keys is usable again; INT64_MAX: none ever by waiting. */
int64_t key_pool_usable_ns(const struct key_question *question);
void key_passed(struct key_pool *pool, size_t key);
/* Takes the key out until then; never shortens. */
void key_out(struct key_pool *pool, size_t key, int64_t until_ns, enum error_reason reason);
/* How long a key stays out that was refused `strikes` times in a row. */
int64_t key_out_ms(enum error_reason reason, uint32_t strikes, bool is_alone);

/* ---- rate fields of an answer's head (router_quota.c) ---- */

struct quota {
    int64_t requests_left, tokens_left;         /* KEY_UNKNOWN */
    int64_t requests_reset_ms, tokens_reset_ms; /* from now; 0: not said */
    int64_t retry_after_ms;                     /* 0: not said */
};
/* Reads x-ratelimit-*, anthropic-ratelimit-*, retry-after(-ms).  Pure. */
void quota_read(const struct http_headers *headers, int64_t now_unix_us, struct quota *out);
/* "1s", "6m0s", "120ms", "2m59.56s", "17" (seconds), RFC 3339; false: none of them. */
bool quota_parse_reset(str text, int64_t now_unix_us, int64_t *out_ms);

/* ---- places of a provider (router_places.c) ---- */

enum places_kind { PLACES_CALLS, PLACES_RUNS, PLACES_KINDS }; /* of everybody; of runs alone */
struct places {
    struct bulkhead bulkhead;
    struct metric_series *in_use_series, *queued_series, *refused_series; /* NULL: no metrics */
};
struct provider_health;
void places_init(struct provider_health *owner, struct metrics *metrics);
void places_deinit(struct provider_health *owner);
/* As the provider's configuration says now; who is inside stays. */
void places_bound(struct provider_health *owner, const struct provider *provider);
/* `wanted`, `held`: a bit per kind.  All of them or none; never waits. */
bool places_try(struct provider_health *owner, unsigned wanted);
void places_leave(struct provider_health *owner, unsigned held);
bool places_are_left(struct provider_health *owner, unsigned wanted); /* now */
void places_show(struct provider_health *owner);                      /* to the metrics */
void places_write_json(struct provider_health *owner, int64_t in_flight, struct json_writer *w);

/* ---- targets ---- */

struct target_health {
    struct target_health *next;
    str provider, model;
    str name;          /* of both */
    uint64_t identity; /* hash of both, the same in every process */
    struct provider_health *owner;
    _Atomic(struct key_pool *) keys;
    struct breaker breaker;
    _Atomic int64_t in_flight;
    _Atomic int64_t first_token_ns; /* moving average; 0: cold */
    _Atomic int64_t not_before_ns;  /* the server asked for that much peace */
    _Atomic int64_t attempts, failures;
    _Atomic int64_t retry_milli, retry_floor_ns, hedge_milli;
    _Atomic uint32_t
        first_tokens[ROUTER_LATENCY_BUCKETS]; /* histogram: eighths of an octave from 1 ms */
    _Atomic uint32_t first_token_count;
    struct metric_series *passed_series, *state_series, *circuit_series;
};
struct provider_health {
    struct provider_health *next;
    str name;
    const struct provider *provider; /* whose keys they are */
    _Atomic(struct key_pool *) keys;
    _Atomic unsigned bounded_places; /* a bit per kind; 0: a call looks no further */
    _Atomic int64_t places_wait_ms;
    struct places places[PLACES_KINDS];
};
struct router {
    struct clock *clock;
    struct random *random;
    struct metrics *metrics;
    pthread_mutex_t lock; /* of the lists */
    struct target_health *targets;
    struct provider_health *providers;
    struct key_pool *pools;
    struct map *by_name; /* "provider\nmodel" */
    struct arena *arena;
};

/* ---- times and budgets (router_budget.c) ---- */

void latency_add(struct target_health *health, int64_t first_token_ns);
int64_t latency_p95_ms(struct target_health *health); /* 0: too few are known */
void retry_budget_earn(struct target_health *health);
bool retry_budget_has(const struct target_health *health, int64_t now_ns);
bool retry_budget_take(struct target_health *health, int64_t now_ns);
void hedge_budget_earn(struct target_health *health);
bool hedge_budget_has(const struct target_health *health);
bool hedge_budget_take(struct target_health *health);

/* ---- choice (router_choice.c) ---- */

struct choice {
    size_t target;
    int key;
    int64_t wait_ms;
    unsigned places_wanted, places_held; /* bits of enum places_kind */
    bool is_probe, is_retry, must_wait;
};
void choose_variant(struct route *route);
/* Which of its provider's bounded places a call of this route takes; 0: none. */
static inline unsigned choose_places(const struct route *route, const struct target_health *health)
{
    unsigned bounded = atomic_load_explicit(&health->owner->bounded_places, memory_order_relaxed);
    return route->request.is_run ? bounded : bounded & ~(1u << PLACES_RUNS);
}
/* False: nothing is left for this call now.  must_wait: its provider has no place for it now, and nothing else is left. */
bool choose_target(struct route *route, int64_t now_ns, bool is_hedge, struct choice *out);
/* The same question without taking anything. */
bool choose_would_find(const struct route *route, int64_t now_ns);
/* Is there a second target that a hedge could take? */
bool choose_has_other(const struct route *route);

/* ---- what people are told (router_tell.c) ---- */

static inline int64_t ms_until(int64_t at_ns, int64_t now_ns)
{
    return at_ns > now_ns ? (at_ns - now_ns + 999999) / 1000000 : 0;
}
/* Of a failure, what others than its caller may read. */
const char *router_why(const struct error *failure);
void router_tell_opened(const struct target_health *health, const struct error *failure);
void router_tell_probe(struct target_health *health);
void router_tell_closed(const struct target_health *health);
/* `strikes`: refusals of this key in a row, this one included. */
void router_tell_key_out(struct attempt *attempt, const struct error *failure, uint32_t strikes,
                         int64_t now_ns);
void router_tell_keys_back(struct attempt *attempt);
/* Sets *e; false.  Nothing was sent to the target: since when, why, and when that will be tried again. */
bool router_circuit_error(const struct route *route, const struct model_target *target,
                          int64_t now_ns, struct error *e);

#endif
