/* What people are told of circuits and keys: lines of the log, each once, and what a refused caller reads. */
#include "base/log.h"
#include "base/timefmt.h"
#include "llm/router_internal.h"

#include <stdio.h>

/* ---- circuits ---- */

/* Of what a provider answered nothing is kept: it may hold what one caller said, and others read this. */
const char *router_why(const struct error *failure)
{
    return failure->reason == REASON_PROVIDER_NETWORK ? failure->message
                                                      : error_title(failure->reason);
}

void router_tell_opened(const struct target_health *health, const struct error *failure)
{
    LOG_WARN("llm.router", S("circuit opened: nothing is sent to this target for a while"),
             LOG_STR("nexus.provider.name", health->provider),
             LOG_STR("nexus.model.name", health->model),
             LOG_STR("error.message", str_from_cstr(router_why(failure))),
             LOG_STR("error.type", str_from_cstr(error_problem(failure->reason))));
}

void router_tell_probe(struct target_health *health)
{
    if (breaker_is_first_probe(&health->breaker))
        LOG_INFO("llm.router", S("circuit half-open: single calls try this target"),
                 LOG_STR("nexus.provider.name", health->provider),
                 LOG_STR("nexus.model.name", health->model));
}

void router_tell_closed(const struct target_health *health)
{
    LOG_INFO("llm.router", S("circuit closed: calls go to this target again"),
             LOG_STR("nexus.provider.name", health->provider),
             LOG_STR("nexus.model.name", health->model));
}

static str next_try(const struct breaker_story *story, int64_t now_ns, char *text, size_t size)
{
    if (story->until_ns == 0)
        return S("a call is trying it now");
    int64_t after_ms = ms_until(story->until_ns, now_ns);
    snprintf(text, size, "the next try is in %lld s", (long long) ((after_ms + 999) / 1000));
    return str_from_cstr(text);
}

bool router_circuit_error(const struct route *route, const struct model_target *target,
                          int64_t now_ns, struct error *e)
{
    struct breaker_story story;
    char since[TIME_TEXT_BYTES + 1], next[64];
    (void) breaker_tell(&target->health->breaker, &story);
    time_format(clock_unix_us(route->router->clock) - (now_ns - story.opened_ns) / 1000, since);
    return error_set(
        e, REASON_PROVIDER_CIRCUIT,
        "provider \"" STR_FMT "\", model \"" STR_FMT
        "\": its circuit is open since %.19sZ and nothing is sent to it; the last failure "
        "was \"%s\"; " STR_FMT,
        STR_ARG(target->provider->name), STR_ARG(target->model), since, story.why,
        STR_ARG(next_try(&story, now_ns, next, sizeof next)));
}

/* ---- keys ---- */

static int64_t load(const _Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void tell_none_left(struct attempt *attempt, const struct error *failure, int64_t now_ns)
{
    struct key_pool *pool = attempt->keys;
    struct key_question question = {.keys = pool, .shared = attempt->shared_keys, .now_ns = now_ns};
    int64_t told_ns = load(&pool->told_ns);
    bool is_told_lately = told_ns != 0 && now_ns - told_ns < ROUTER_KEYS_TOLD_MS * 1000000ll;
    if (is_told_lately || key_pool_has(&question) ||
        !atomic_compare_exchange_strong_explicit(&pool->told_ns, &told_ns, now_ns,
                                                 memory_order_relaxed, memory_order_relaxed))
        return;
    atomic_store_explicit(&pool->is_out_told, true, memory_order_relaxed);
    LOG_WARN("llm.router", S("no key is left for this target: nothing is sent to it for a while"),
             LOG_STR("nexus.provider.name", attempt->target->health->provider),
             LOG_STR("nexus.model.name", attempt->target->health->model),
             LOG_I64("nexus.keys", (int64_t) pool->count),
             LOG_STR("error.type", str_from_cstr(error_problem(failure->reason))));
}

void router_tell_key_out(struct attempt *attempt, const struct error *failure, uint32_t strikes,
                         int64_t now_ns)
{
    /* A rate is limited every day; credentials that are refused want somebody to look. */
    if (strikes == 1 && failure->reason != REASON_PROVIDER_RATE_LIMITED)
        LOG_WARN("llm.router", S("a key was refused: it is left out for a while"),
                 LOG_STR("nexus.provider.name", attempt->target->health->provider),
                 LOG_I64("nexus.key.index", attempt->how.key),
                 LOG_STR("error.type", str_from_cstr(error_problem(failure->reason))));
    tell_none_left(attempt, failure, now_ns);
}

void router_tell_keys_back(struct attempt *attempt)
{
    struct key_pool *pool = attempt->keys;
    if (likely(!atomic_load_explicit(&pool->is_out_told, memory_order_relaxed)) ||
        !atomic_exchange_explicit(&pool->is_out_told, false, memory_order_relaxed))
        return;
    LOG_INFO("llm.router", S("a key of this target works again"),
             LOG_STR("nexus.provider.name", attempt->target->health->provider),
             LOG_STR("nexus.model.name", attempt->target->health->model));
}
