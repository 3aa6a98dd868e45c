#include "llm/router_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/map.h"

#include <stdio.h>
#include <stdlib.h>

/* Fixed, so that a sticky text means the same target on every node and after every start. */
enum { HASH_SEED = 0x6e78 };
enum { FORBIDDEN = 403 };

/* ---- life ---- */

struct router *router_create(struct clock *clock, struct random *random, struct metrics *metrics)
{
    struct router *router = calloc(1, sizeof *router);
    ensure(router != NULL);
    router->clock = clock;
    router->random = random;
    router->metrics = metrics;
    router->by_name = map_create();
    router->arena = arena_create(0);
    pthread_mutex_init(&router->lock, NULL);
    return router;
}

void router_destroy(struct router *router)
{
    if (!router)
        return;
    for (struct target_health *health = router->targets; health;) {
        struct target_health *next = health->next;
        breaker_deinit(&health->breaker);
        free(health);
        health = next;
    }
    for (struct provider_health *owner = router->providers; owner; owner = owner->next)
        places_deinit(owner);
    for (struct key_pool *pool = router->pools; pool;) {
        struct key_pool *next = pool->next;
        free(pool);
        pool = next;
    }
    map_destroy(router->by_name);
    pthread_mutex_destroy(&router->lock);
    arena_destroy(router->arena);
    free(router);
}

/* ---- targets of a catalog; the lock is held ---- */

static struct key_pool *add_pool(struct router *router, size_t key_count)
{
    struct key_pool *pool = key_pool_create(key_count);
    pool->next = router->pools; /* kept for good: attempts of an older snapshot may hold it */
    router->pools = pool;
    return pool;
}

static void renew_keys(struct router *router, struct provider_health *owner, size_t key_count)
{
    atomic_store_explicit(&owner->keys, add_pool(router, key_count), memory_order_release);
    for (struct target_health *health = router->targets; health; health = health->next) {
        if (health->owner == owner)
            atomic_store_explicit(&health->keys, add_pool(router, key_count), memory_order_release);
    }
}

static struct provider_health *provider_of(struct router *router, const struct provider *provider)
{
    struct provider_health *owner = router->providers;
    while (owner && !str_equal(owner->name, provider->name))
        owner = owner->next;
    if (!owner) {
        owner = ARENA_NEW(router->arena, struct provider_health);
        owner->name = str_copy(router->arena, provider->name);
        places_init(owner, router->metrics);
        owner->next = router->providers;
        router->providers = owner;
    }
    if (owner->provider != provider) {
        owner->provider = provider;
        renew_keys(router, owner, provider->key_count);
        places_bound(owner, provider);
    }
    return owner;
}

static struct metric_series *series_of(struct router *router, enum metric metric, str provider,
                                       str detail)
{
    if (!router->metrics)
        return NULL;
    return metrics_series(router->metrics, metric, (str[]){provider, detail}, 2);
}

static struct target_health *add_target(struct router *router, struct provider_health *owner,
                                        const struct model_target *target)
{
    struct target_health *health = calloc(1, sizeof *health);
    ensure(health != NULL);
    health->provider = owner->name;
    health->model = str_copy(router->arena, target->model);
    health->owner = owner;
    health->identity = str_hash(target->model, str_hash(owner->name, HASH_SEED));
    breaker_init(&health->breaker);
    health->retry_milli = ROUTER_RETRY_MILLI_MAX;
    health->hedge_milli = 1000;
    atomic_store_explicit(&health->keys, add_pool(router, target->provider->key_count),
                          memory_order_relaxed);
    health->passed_series = series_of(router, METRIC_MODEL_ATTEMPTS, owner->name, S("ok"));
    health->state_series = series_of(router, METRIC_TARGET_STATE, owner->name, target->model);
    health->name = str_printf(router->arena, STR_FMT "/" STR_FMT, STR_ARG(owner->name),
                              STR_ARG(target->model));
    health->circuit_series =
        series_of(router, METRIC_CIRCUIT_STATE, S("model_target"), health->name);
    health->next = router->targets;
    router->targets = health;
    return health;
}

static struct target_health *adopt_target(struct router *router, const struct model_target *target)
{
    OWNED(arena) scratch = arena_create(0);
    struct provider_health *owner = provider_of(router, target->provider);
    str name =
        str_printf(scratch, STR_FMT "\n" STR_FMT, STR_ARG(owner->name), STR_ARG(target->model));
    struct target_health *health = map_find(router->by_name, name);
    if (health)
        return health;
    health = add_target(router, owner, target);
    map_put(router->by_name, name, health);
    return health;
}

void router_adopt(struct router *router, struct catalog *catalog)
{
    pthread_mutex_lock(&router->lock);
    for (size_t i = 0; i < catalog_count(catalog); i++) {
        const struct model *model = catalog_at(catalog, i);
        for (size_t j = 0; j < model->target_count; j++)
            model->targets[j].health = adopt_target(router, &model->targets[j]);
    }
    pthread_mutex_unlock(&router->lock);
}

/* ---- a route ---- */

/* An upper bound of the input against the context: those too small are left out unless all are. */
static uint64_t too_small(const struct route_request *request)
{
    const struct model *model = request->model;
    uint64_t small = 0;
    size_t count = 0;
    int64_t tokens;
    if (__builtin_add_overflow(request->input_tokens_bound, request->output_tokens_max, &tokens))
        tokens = INT64_MAX;
    for (size_t i = 0; i < model->target_count; i++) {
        int64_t room = model->targets[i].context_tokens_max;
        if (room > 0 && room < tokens) {
            small |= (uint64_t) 1 << i;
            count++;
        }
    }
    return count < model->target_count ? small : 0;
}

static uint64_t preferred_of(const struct route_request *request)
{
    uint64_t preferred = 0;
    for (size_t i = 0; !str_is_empty(request->prefer) && i < request->model->target_count; i++)
        if (str_equal(request->model->targets[i].provider->name, request->prefer))
            preferred |= (uint64_t) 1 << i;
    return preferred;
}

void route_begin(struct route *route, struct router *router, const struct route_request *request)
{
    ensure(request->model->target_count <= MODEL_TARGETS_MAX);
    route->router = router;
    route->request = *request;
    route->sticky_hash =
        str_is_empty(request->sticky) ? 0 : str_hash(request->sticky, HASH_SEED) | 1;
    route->preferred = preferred_of(request);
    route->exhausted = too_small(request);
    route->backed_off = route->open_targets = route->full = 0;
    route->attempts = route->waits = 0;
    route->last_target = route->told_target = ROUTE_NO_TARGET;
    route->told = REASON_NONE;
    route->told_retry_after_ms = 0;
    choose_variant(route);
}

/* ---- what failures mean ---- */

enum failure_class {
    FAILURE_FINAL,     /* whoever is asked will say the same */
    FAILURE_CANCELLED, /* nobody's */
    FAILURE_PASS_OVER, /* of this pair of call and target */
    FAILURE_KEY,
    FAILURE_LIMITED,
    FAILURE_TARGET,
};

static enum failure_class class_of(const struct error *failure)
{
    switch ((int) failure->reason) {
    case REASON_PROVIDER_AUTH:
    case REASON_PROVIDER_QUOTA: return FAILURE_KEY;
    case REASON_PROVIDER_RATE_LIMITED: return FAILURE_LIMITED;
    case REASON_PROVIDER_OVERLOADED:
    case REASON_PROVIDER_TIMEOUT:
    case REASON_PROVIDER_NETWORK:
    case REASON_PROVIDER_PROTOCOL: return FAILURE_TARGET;
    case REASON_UNSUPPORTED:
    case REASON_EGRESS_BLOCKED:
    case REASON_OVERLOADED_HERE: /* no place at this provider */
    case REASON_BUDGET: return FAILURE_PASS_OVER;
    case REASON_TIMEOUT: return FAILURE_TARGET;
    default: return failure->code == ERROR_CANCELLED ? FAILURE_CANCELLED : FAILURE_FINAL;
    }
}

/* Which failure tells the caller most: what he can mend or wait for goes before what only the operator can. */
static int rank_of(enum error_reason reason)
{
    switch ((int) reason) {
    case REASON_NONE: return 0;
    case REASON_UNSUPPORTED:
    case REASON_EGRESS_BLOCKED: return 1;
    case REASON_PROVIDER_AUTH: return 2;
    case REASON_PROVIDER_QUOTA: return 3;
    case REASON_BUDGET: return 4; /* of this target: what failed before may be worth another try */
    case REASON_PROVIDER_PROTOCOL: return 5;
    case REASON_PROVIDER_NETWORK: return 6;
    case REASON_PROVIDER_TIMEOUT:
    case REASON_TIMEOUT: return 7;
    case REASON_OVERLOADED_HERE:
    case REASON_PROVIDER_CIRCUIT:
    case REASON_PROVIDER_OVERLOADED: return 8;
    case REASON_PROVIDER_RATE_LIMITED: return 9;
    default: return 10;
    }
}

/* ---- nothing is left ---- */

static str plural(int count)
{
    return count == 1 ? STR_NONE : S("s");
}

/* Why a target cannot be asked now though this call did not fail on it. */
static enum error_reason why_out(const struct model_target *target, int64_t now_ns,
                                 int64_t *until_ns)
{
    struct target_health *health = target->health;
    struct key_pool *keys = atomic_load_explicit(&health->keys, memory_order_acquire);
    struct key_pool *shared = atomic_load_explicit(&health->owner->keys, memory_order_acquire);
    *until_ns = breaker_opens_again_ns(&health->breaker);
    if (*until_ns > 0 || breaker_look(&health->breaker, now_ns) == BREAKER_HALF_OPEN)
        return REASON_PROVIDER_CIRCUIT;
    *until_ns = atomic_load_explicit(&health->not_before_ns, memory_order_relaxed);
    if (*until_ns > now_ns)
        return REASON_PROVIDER_OVERLOADED;
    *until_ns = key_pool_usable_ns(
        &(struct key_question){.keys = keys, .shared = shared, .now_ns = now_ns});
    if (*until_ns <= now_ns)
        return REASON_NONE;
    for (size_t i = 0; i < keys->count; i++) { /* a limited key will be back sooner: it is told */
        if (i >= shared->count ||
            atomic_load_explicit(&shared->keys[i].out_until_ns, memory_order_relaxed) <= now_ns) {
            int reason = atomic_load_explicit(&keys->keys[i].reason, memory_order_relaxed);
            return reason == REASON_PROVIDER_AUTH ? REASON_PROVIDER_AUTH
                                                  : REASON_PROVIDER_RATE_LIMITED;
        }
    }
    return (enum error_reason) atomic_load_explicit(&shared->keys[0].reason, memory_order_relaxed);
}

static bool is_waited_for(enum error_reason reason)
{
    return reason == REASON_PROVIDER_RATE_LIMITED || reason == REASON_PROVIDER_OVERLOADED ||
           reason == REASON_PROVIDER_CIRCUIT || reason == REASON_OVERLOADED_HERE;
}

static void tell(struct route *route, enum error_reason reason, size_t target,
                 int64_t retry_after_ms)
{
    bool may_wait = is_waited_for(reason);
    if (may_wait && retry_after_ms > 0 &&
        (route->told_retry_after_ms == 0 || retry_after_ms < route->told_retry_after_ms))
        route->told_retry_after_ms = retry_after_ms;
    if (rank_of(reason) < rank_of(route->told))
        return;
    route->told = reason;
    route->told_target = (uint8_t) target;
}

/* Targets that were not asked at all say why, where that tells more than what was asked. */
static void tell_of_those_out(struct route *route, int64_t now_ns)
{
    const struct model *model = route->request.model;
    for (size_t i = 0; i < model->target_count; i++) {
        int64_t until_ns = 0;
        if (route->exhausted >> i & 1)
            continue;
        enum error_reason reason = why_out(&model->targets[i], now_ns, &until_ns);
        if (reason != REASON_NONE && (route->told == REASON_NONE || !(route->backed_off >> i & 1)))
            tell(route, reason, i, ms_until(until_ns, now_ns));
    }
}

static bool fail(struct route *route, const struct error *last, int64_t now_ns, struct error *e)
{
    tell_of_those_out(route, now_ns);
    int64_t retry_after_ms = is_waited_for(route->told) ? route->told_retry_after_ms : 0;
    if (last && rank_of(last->reason) >= rank_of(route->told)) {
        error_copy(e, last);
    } else if (route->told == REASON_NONE) { /* passed over by the caller */
        return error_set(e, REASON_UNAVAILABLE, "model \"" STR_FMT "\" has no other target",
                         STR_ARG(route->request.model->name));
    } else {
        const struct model_target *target = &route->request.model->targets[route->told_target];
        if (route->told == REASON_PROVIDER_CIRCUIT)
            router_circuit_error(route, target, now_ns, e);
        else
            error_set(e, route->told,
                      "%s: provider \"" STR_FMT "\", model \"" STR_FMT
                      "\"; nothing else is left after %d attempt" STR_FMT,
                      error_title(route->told), STR_ARG(target->provider->name),
                      STR_ARG(target->model), (int) route->attempts,
                      STR_ARG(plural(route->attempts)));
    }
    if (e && e->retry_after_ms == 0)
        e->retry_after_ms = retry_after_ms;
    return false;
}

/* ---- an attempt ---- */

static void head_came(void *owner, int status, const struct http_headers *headers)
{
    struct attempt *attempt = owner;
    struct router *router = attempt->route->router;
    struct quota quota;
    attempt->status = status;
    quota_read(headers, clock_unix_us(router->clock), &quota);
    attempt->retry_after_ms = quota.retry_after_ms;
    if (quota.requests_left == KEY_UNKNOWN && quota.tokens_left == KEY_UNKNOWN)
        return;
    int64_t now_ns = clock_monotonic_ns(router->clock);
    size_t index = attempt->how.key >= 0 ? (size_t) attempt->how.key : 0;
    if (index >= attempt->keys->count)
        return;
    struct key_state *key = &attempt->keys->keys[index];
    atomic_store_explicit(&key->requests_reset_ns, now_ns + quota.requests_reset_ms * 1000000,
                          memory_order_relaxed);
    atomic_store_explicit(&key->tokens_reset_ns, now_ns + quota.tokens_reset_ms * 1000000,
                          memory_order_relaxed);
    atomic_store_explicit(&key->requests_left, quota.requests_left, memory_order_relaxed);
    atomic_store_explicit(&key->tokens_left, quota.tokens_left, memory_order_relaxed);
}

static void start(struct route *route, const struct choice *choice, bool is_hedge, int64_t now_ns,
                  struct attempt *out)
{
    const struct model *model = route->request.model;
    const struct model_target *target = &model->targets[choice->target];
    struct target_health *health = target->health;
    *out = (struct attempt){
        .route = route,
        .target = target,
        .target_index = choice->target,
        .started_ns = now_ns + choice->wait_ms * 1000000,
        .keys = atomic_load_explicit(&health->keys, memory_order_acquire),
        .shared_keys = atomic_load_explicit(&health->owner->keys, memory_order_acquire),
        .number = route->attempts + 1,
        .is_open = true,
        .is_probe = choice->is_probe,
        .is_hedge = is_hedge,
        .is_retry = choice->is_retry,
        .must_wait = choice->must_wait,
        .places_wanted = (uint8_t) choice->places_wanted,
        .places_held = (uint8_t) choice->places_held,
    };
    out->how = (struct provider_call){
        .key = target->provider->key_count > 0 ? choice->key : PROVIDER_KEY_ANY,
        .connect_timeout_ms = model->deadlines.connect_ms,
        .first_byte_timeout_ms = model->deadlines.first_token_ms,
        .idle_timeout_ms = model->deadlines.between_tokens_ms,
        .on_head = head_came,
        .owner = out,
    };
    route->steps[route->attempts++] =
        (struct route_step){(uint8_t) choice->target, (uint8_t) choice->key};
    route->last_target = (uint8_t) choice->target;
    route->open_targets |= (uint64_t) 1 << choice->target;
    atomic_fetch_add_explicit(&health->in_flight, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&health->attempts, 1, memory_order_relaxed);
}

static void count_start(struct route *route, const struct attempt *attempt)
{
    struct target_health *health = attempt->target->health;
    struct metrics *metrics = route->router->metrics;
    if (attempt->is_retry) {
        if (metrics)
            metrics_add(metrics, METRIC_MODEL_RETRIES, 1, &health->provider, 1);
    } else if (attempt->is_hedge) {
        if (metrics)
            metrics_add(metrics, METRIC_MODEL_HEDGES, 1, &health->provider, 1);
    } else {
        retry_budget_earn(health);
        if (route->request.model->hedge_after_ms != 0)
            hedge_budget_earn(health);
    }
}

static struct target_health *open_target(const struct route *route)
{
    size_t index = (size_t) __builtin_ctzll(route->open_targets);
    return route->request.model->targets[index].health;
}

/* Takes the places too.  Who finds them gone since it looked takes another target, or waits if there is none. */
static bool choose_with_places(struct route *route, int64_t now_ns, bool is_hedge,
                               struct choice *choice)
{
    route->full = 0;
    while (choose_target(route, now_ns, is_hedge, choice)) {
        struct target_health *health = route->request.model->targets[choice->target].health;
        unsigned wanted = choice->places_wanted = choose_places(route, health);
        if (choice->must_wait || wanted == 0)
            return true;
        if (places_try(health->owner, wanted)) {
            choice->places_held = wanted;
            return true;
        }
        if (choice->is_retry) { /* no other one was left already */
            choice->must_wait = !is_hedge;
            return !is_hedge;
        }
        if (choice->is_probe)
            breaker_release_probe(&health->breaker);
        route->full |= (uint64_t) 1 << choice->target;
    }
    return false;
}

static void give_choice_back(struct route *route, const struct choice *choice)
{
    struct target_health *health = route->request.model->targets[choice->target].health;
    if (choice->is_probe)
        breaker_release_probe(&health->breaker);
    places_leave(health->owner, choice->places_held);
}

bool route_next(struct route *route, const struct error *last, struct attempt *out,
                int64_t *wait_ms, struct error *e)
{
    struct choice choice;
    bool is_hedge = !last && route->open_targets != 0;
    int64_t now_ns = clock_monotonic_ns(route->router->clock);
    if (last) {
        enum failure_class class = class_of(last);
        if (class == FAILURE_FINAL || class == FAILURE_CANCELLED)
            return error_copy(e, last);
    }
    bool is_found = route->attempts < ROUTER_ATTEMPTS_MAX &&
                    choose_with_places(route, now_ns, is_hedge, &choice);
    if (!is_found && is_hedge)
        return error_set(e, REASON_UNAVAILABLE, "model \"" STR_FMT "\" has no other target free",
                         STR_ARG(route->request.model->name));
    if (!is_found)
        return fail(route, last, now_ns, e);
    if (is_hedge && !hedge_budget_take(open_target(route))) {
        give_choice_back(route, &choice);
        return error_set(e, REASON_UNAVAILABLE, "second attempts are a large share of calls");
    }
    route->waits = (uint8_t) (route->waits + (choice.is_retry && choice.wait_ms > 0));
    if (choice.is_probe)
        router_tell_probe(route->request.model->targets[choice.target].health);
    start(route, &choice, is_hedge, now_ns, out);
    count_start(route, out);
    *wait_ms = choice.wait_ms;
    return true;
}

static void show_state(struct router *router, struct target_health *health)
{
    double state = (double) atomic_load_explicit(&health->breaker.state, memory_order_relaxed);
    if (!router->metrics)
        return;
    metric_set(health->state_series, state);
    metric_set(health->circuit_series, state);
}

static void target_passed(struct router *router, struct target_health *health, int64_t now_ns,
                          bool is_probe)
{
    if (breaker_passed(&health->breaker, now_ns, is_probe))
        router_tell_closed(health);
    if (is_probe)
        show_state(router, health);
}

void attempt_first_token(struct attempt *attempt)
{
    if (attempt->first_token_ns != 0)
        return;
    struct router *router = attempt->route->router;
    struct target_health *health = attempt->target->health;
    attempt->first_token_ns = clock_monotonic_ns(router->clock);
    latency_add(health, attempt->first_token_ns - attempt->started_ns);
    if (attempt->is_probe) { /* a long stream must not keep others waiting for the verdict */
        attempt->is_probe = false;
        target_passed(router, health, attempt->first_token_ns, true);
    }
}

/* ---- how it ended ---- */

static size_t key_of(const struct attempt *attempt)
{
    return attempt->how.key >= 0 ? (size_t) attempt->how.key : 0;
}

static void passed(struct attempt *attempt, int64_t now_ns)
{
    struct target_health *health = attempt->target->health;
    target_passed(attempt->route->router, health, now_ns, attempt->is_probe);
    key_passed(attempt->keys, key_of(attempt));
    key_passed(attempt->shared_keys, key_of(attempt));
    router_tell_keys_back(attempt);
    if (health->passed_series)
        metric_add(health->passed_series, 1);
}

/* 401 and quota are the key's everywhere, 403 may be about this model alone, a rate is counted per model mostly. */
static void take_key_out(struct attempt *attempt, const struct error *failure, int64_t now_ns)
{
    struct metrics *metrics = attempt->route->router->metrics;
    bool is_limited = failure->reason == REASON_PROVIDER_RATE_LIMITED;
    struct key_pool *pool =
        is_limited || attempt->status == FORBIDDEN ? attempt->keys : attempt->shared_keys;
    size_t key = key_of(attempt);
    if (key >= pool->count)
        return;
    uint32_t strikes =
        atomic_fetch_add_explicit(&pool->keys[key].strikes, 1, memory_order_relaxed) + 1;
    int64_t said_ms =
        failure->retry_after_ms > 0 ? failure->retry_after_ms : attempt->retry_after_ms;
    int64_t out_ms = key_out_ms(failure->reason, strikes, pool->count == 1);
    if (said_ms > 0 && (is_limited || said_ms > out_ms))
        out_ms = said_ms < PROVIDER_RETRY_AFTER_MS_MAX ? said_ms : PROVIDER_RETRY_AFTER_MS_MAX;
    key_out(pool, key, now_ns + out_ms * 1000000, failure->reason);
    router_tell_key_out(attempt, failure, strikes, now_ns);
    if (metrics)
        metrics_add(metrics, METRIC_PROVIDER_KEYS_OUT, 1,
                    (str[]){attempt->target->health->provider,
                            str_from_cstr(error_problem(failure->reason))},
                    2);
}

static void respect(struct target_health *health, int64_t retry_after_ms, int64_t now_ns)
{
    if (retry_after_ms <= 0)
        return;
    if (retry_after_ms > BREAKER_OPEN_MS_MAX)
        retry_after_ms = BREAKER_OPEN_MS_MAX;
    atomic_store_explicit(&health->not_before_ns, now_ns + retry_after_ms * 1000000,
                          memory_order_relaxed);
}

/* A caller's own short deadline is not the target's fault: else one caller could shut it for all others. */
static bool is_blamed(const struct attempt *attempt, const struct error *failure, int64_t now_ns)
{
    return failure->reason != REASON_TIMEOUT ||
           (attempt->first_token_ns == 0 &&
            now_ns - attempt->started_ns >= ROUTER_BLAMED_MS * 1000000ll);
}

static void blame(struct attempt *attempt, const struct error *failure, int64_t now_ns)
{
    struct router *router = attempt->route->router;
    struct target_health *health = attempt->target->health;
    if (breaker_failed(&health->breaker, now_ns, attempt->is_probe, random_u64(router->random),
                       router_why(failure)))
        router_tell_opened(health, failure);
    respect(health, failure->retry_after_ms, now_ns);
    show_state(router, health);
}

static void target_failed(struct attempt *attempt, const struct error *failure, int64_t now_ns)
{
    struct route *route = attempt->route;
    struct target_health *health = attempt->target->health;
    uint64_t bit = (uint64_t) 1 << attempt->target_index;
    if (is_blamed(attempt, failure, now_ns))
        blame(attempt, failure, now_ns);
    else if (attempt->is_probe)
        breaker_release_probe(&health->breaker);
    route->backed_off |= bit;
    /* Who waited for nothing once does not wait there again while others are left. */
    bool is_timeout =
        failure->reason == REASON_TIMEOUT || failure->reason == REASON_PROVIDER_TIMEOUT;
    if (is_timeout && choose_has_other(route))
        route->exhausted |= bit;
}

static void failed(struct attempt *attempt, const struct error *failure, int64_t now_ns)
{
    struct router *router = attempt->route->router;
    struct target_health *health = attempt->target->health;
    enum failure_class class = class_of(failure);
    if (class == FAILURE_TARGET) {
        atomic_fetch_add_explicit(&health->failures, 1, memory_order_relaxed);
        target_failed(attempt, failure, now_ns);
    } else if (failure->reason == REASON_PROVIDER_INVALID) { /* it works: it reads and refuses */
        target_passed(router, health, now_ns, attempt->is_probe);
    } else if (attempt->is_probe) {
        breaker_release_probe(&health->breaker);
    }
    if (class == FAILURE_KEY || class == FAILURE_LIMITED)
        take_key_out(attempt, failure, now_ns);
    if (class == FAILURE_PASS_OVER)
        attempt->route->exhausted |= (uint64_t) 1 << attempt->target_index;
    if (class != FAILURE_CANCELLED)
        tell(attempt->route, failure->reason, attempt->target_index, failure->retry_after_ms);
    if (router->metrics)
        metrics_add(router->metrics, METRIC_MODEL_ATTEMPTS, 1,
                    (str[]){health->provider, str_from_cstr(error_problem(failure->reason))}, 2);
}

void attempt_end(struct attempt *attempt, const struct error *failure)
{
    if (!attempt->is_open)
        return;
    attempt->is_open = false;
    int64_t now_ns = clock_monotonic_ns(attempt->route->router->clock);
    attempt->route->open_targets &= ~((uint64_t) 1 << attempt->target_index);
    atomic_fetch_sub_explicit(&attempt->target->health->in_flight, 1, memory_order_relaxed);
    if (unlikely(attempt->places_held != 0))
        places_leave(attempt->target->health->owner, attempt->places_held);
    if (failure)
        failed(attempt, failure, now_ns);
    else
        passed(attempt, now_ns);
}

bool route_may_go_on(const struct route *route, const struct error *last)
{
    enum failure_class class = class_of(last);
    return class != FAILURE_FINAL && class != FAILURE_CANCELLED &&
           route->attempts < ROUTER_ATTEMPTS_MAX &&
           choose_would_find(route, clock_monotonic_ns(route->router->clock));
}

int64_t route_hedge_after_ms(const struct route *route, const struct attempt *first)
{
    int64_t after_ms = route->request.model->hedge_after_ms;
    struct target_health *health = first->target->health;
    if (after_ms == 0 || !choose_has_other(route) || !hedge_budget_has(health))
        return 0;
    return after_ms > 0 ? after_ms : latency_p95_ms(health);
}

/* ---- what is known ---- */

static int64_t load(const _Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void put_left(struct json_writer *w, str name, const _Atomic int64_t *value)
{
    int64_t left = load(value);
    json_key(w, name);
    if (left == KEY_UNKNOWN)
        json_write_null(w);
    else
        json_write_i64(w, left > 0 ? left : 0);
}

static void write_key(struct json_writer *w, const struct key_pool *pool,
                      const struct key_pool *shared, size_t i, int64_t now_ns)
{
    const struct key_state *key = &pool->keys[i];
    const struct key_state *out = key;
    if (i < shared->count && load(&shared->keys[i].out_until_ns) > load(&key->out_until_ns))
        out = &shared->keys[i];
    int64_t out_ms = ms_until(load(&out->out_until_ns), now_ns);
    int reason = atomic_load_explicit(&out->reason, memory_order_relaxed);
    json_object_begin(w);
    json_put_i64(w, S("index"), (int64_t) i);
    json_put_str(w, S("state"),
                 out_ms > 0 ? str_from_cstr(error_problem((enum error_reason) reason)) : S("ok"));
    json_put_i64(w, S("out_ms"), out_ms);
    put_left(w, S("remaining_requests"), &key->requests_left);
    put_left(w, S("remaining_tokens"), &key->tokens_left);
    json_object_end(w);
}

static void write_target(struct json_writer *w, struct target_health *health, int64_t now_ns)
{
    struct key_pool *pool = atomic_load_explicit(&health->keys, memory_order_acquire);
    struct key_pool *shared = atomic_load_explicit(&health->owner->keys, memory_order_acquire);
    enum breaker_state state = breaker_look(&health->breaker, now_ns);
    int64_t opens_ns = breaker_opens_again_ns(&health->breaker);
    int64_t passed, failed;
    breaker_counts(&health->breaker, now_ns, &passed, &failed);
    json_put_str(w, S("kind"), S("model_target"));
    json_put_str(w, S("name"), health->name);
    json_put_str(w, S("circuit"), str_from_cstr(breaker_state_name(state)));
    json_put_i64(w, S("retry_after_ms"), ms_until(opens_ns, now_ns));
    json_put_i64(w, S("passed"), passed);
    json_put_i64(w, S("failed"), failed);
    json_put_i64(w, S("in_use"), load(&health->in_flight));
    json_put_str(w, S("provider"), health->provider);
    json_put_str(w, S("provider_model"), health->model);
    json_put_str(w, S("state"), str_from_cstr(breaker_state_name(state)));
    json_put_i64(w, S("retry_in_ms"), ms_until(opens_ns, now_ns));
    json_put_i64(w, S("in_flight"), load(&health->in_flight));
    json_put_double(w, S("ewma_first_token_ms"),
                    (double) (load(&health->first_token_ns) / 1000) / 1000);
    json_put_i64(w, S("p95_first_token_ms"), latency_p95_ms(health));
    json_put_i64(w, S("attempts"), load(&health->attempts));
    json_put_i64(w, S("failures"), load(&health->failures));
    json_key(w, S("keys"));
    json_array_begin(w);
    for (size_t i = 0; i < pool->count && !pool->is_keyless; i++)
        write_key(w, pool, shared, i, now_ns);
    json_array_end(w);
}

static int64_t in_flight_of(const struct router *router, const struct provider_health *owner)
{
    int64_t sum = 0;
    for (struct target_health *health = router->targets; health; health = health->next)
        sum += health->owner == owner ? load(&health->in_flight) : 0;
    return sum;
}

void router_write_json(struct router *router, struct json_writer *w)
{
    int64_t now_ns = clock_monotonic_ns(router->clock);
    json_array_begin(w);
    pthread_mutex_lock(&router->lock);
    for (struct target_health *health = router->targets; health; health = health->next) {
        json_object_begin(w);
        write_target(w, health, now_ns);
        json_object_end(w);
    }
    pthread_mutex_unlock(&router->lock);
    json_array_end(w);
}

void router_write_places_json(struct router *router, struct json_writer *w)
{
    json_array_begin(w);
    pthread_mutex_lock(&router->lock);
    for (struct provider_health *owner = router->providers; owner; owner = owner->next)
        places_write_json(owner, in_flight_of(router, owner), w);
    pthread_mutex_unlock(&router->lock);
    json_array_end(w);
}

void router_show(struct router *router)
{
    pthread_mutex_lock(&router->lock);
    for (struct provider_health *owner = router->providers; owner; owner = owner->next)
        places_show(owner);
    pthread_mutex_unlock(&router->lock);
}

void router_write_model_json(struct router *router, const struct model *model,
                             struct json_writer *w)
{
    int64_t now_ns = clock_monotonic_ns(router->clock);
    json_array_begin(w);
    for (size_t i = 0; i < model->target_count; i++) {
        const struct model_target *target = &model->targets[i];
        json_object_begin(w);
        json_put_i64(w, S("priority"), target->priority);
        json_put_i64(w, S("weight"), target->weight);
        if (!str_is_empty(target->variant))
            json_put_str(w, S("variant"), target->variant);
        json_put_bool(w, S("has_price"), target->price.is_known);
        write_target(w, target->health, now_ns);
        json_object_end(w);
    }
    json_array_end(w);
}
