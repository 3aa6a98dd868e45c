/* a target's times to the first token, and what share of its calls may be retries or hedges */
#include "llm/router_internal.h"

enum { EIGHTHS = 8, AVERAGE_SHIFT = 3 };

/* ---- times ---- */

/* Eighths of an octave from 1 ms, without a logarithm: the octave by the leading bit, the eighth by the next three. */
static size_t bucket_of(int64_t ns)
{
    uint64_t us = (uint64_t) ns / 1000;
    if (us < 1024)
        return 0;
    unsigned top = 63u - (unsigned) __builtin_clzll(us);
    size_t index = (size_t) (top - 10) * EIGHTHS + (size_t) (us >> (top - 3) & 7);
    return index < ROUTER_LATENCY_BUCKETS ? index : ROUTER_LATENCY_BUCKETS - 1;
}

static int64_t bucket_top_us(size_t index)
{
    return ((int64_t) (index % EIGHTHS) + EIGHTHS + 1) << (index / EIGHTHS + 10 - 3);
}

/* Lost counts of a race do not matter: it is a moving picture. */
static void halve(struct target_health *health)
{
    uint32_t total = 0;
    for (size_t i = 0; i < ROUTER_LATENCY_BUCKETS; i++) {
        uint32_t half = atomic_load_explicit(&health->first_tokens[i], memory_order_relaxed) / 2;
        atomic_store_explicit(&health->first_tokens[i], half, memory_order_relaxed);
        total += half;
    }
    atomic_store_explicit(&health->first_token_count, total, memory_order_relaxed);
}

void latency_add(struct target_health *health, int64_t first_token_ns)
{
    int64_t sample = first_token_ns > 0 ? first_token_ns : 1;
    int64_t old = atomic_load_explicit(&health->first_token_ns, memory_order_relaxed);
    int64_t average = old == 0 ? sample : old + (sample - old) / (1 << AVERAGE_SHIFT);
    atomic_store_explicit(&health->first_token_ns, average > 0 ? average : 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&health->first_tokens[bucket_of(sample)], 1, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&health->first_token_count, 1, memory_order_relaxed) + 1 >=
        ROUTER_LATENCY_SAMPLES_MAX)
        halve(health);
}

int64_t latency_p95_ms(struct target_health *health)
{
    uint32_t counts[ROUTER_LATENCY_BUCKETS];
    uint64_t total = 0, seen = 0;
    if (atomic_load_explicit(&health->first_token_count, memory_order_relaxed) <
        ROUTER_LATENCY_SAMPLES_MIN)
        return 0;
    for (size_t i = 0; i < ROUTER_LATENCY_BUCKETS; i++) {
        counts[i] = atomic_load_explicit(&health->first_tokens[i], memory_order_relaxed);
        total += counts[i];
    }
    for (size_t i = 0; i < ROUTER_LATENCY_BUCKETS; i++) {
        seen += counts[i];
        if (seen * 100 >= total * 95)
            return (bucket_top_us(i) + 999) / 1000;
    }
    return 0;
}

/* ---- token buckets ---- */

static void earn(_Atomic int64_t *milli, int64_t amount, int64_t max)
{
    int64_t has = atomic_load_explicit(milli, memory_order_relaxed);
    if (has < max) /* may pass it by what other threads add at once */
        atomic_fetch_add_explicit(milli, amount, memory_order_relaxed);
}

static bool take(_Atomic int64_t *milli)
{
    int64_t has = atomic_load_explicit(milli, memory_order_relaxed);
    while (has >= 1000) {
        if (atomic_compare_exchange_weak_explicit(milli, &has, has - 1000, memory_order_relaxed,
                                                  memory_order_relaxed))
            return true;
    }
    return false;
}

void retry_budget_earn(struct target_health *health)
{
    earn(&health->retry_milli, ROUTER_RETRY_MILLI, ROUTER_RETRY_MILLI_MAX);
}

static bool is_floor_due(int64_t last_ns, int64_t now_ns)
{
    return last_ns == 0 || now_ns - last_ns >= ROUTER_RETRY_FLOOR_MS * 1000000ll;
}

bool retry_budget_has(const struct target_health *health, int64_t now_ns)
{
    return atomic_load_explicit(&health->retry_milli, memory_order_relaxed) >= 1000 ||
           is_floor_due(atomic_load_explicit(&health->retry_floor_ns, memory_order_relaxed),
                        now_ns);
}

bool retry_budget_take(struct target_health *health, int64_t now_ns)
{
    if (take(&health->retry_milli))
        return true;
    int64_t last = atomic_load_explicit(&health->retry_floor_ns, memory_order_relaxed);
    return is_floor_due(last, now_ns) &&
           atomic_compare_exchange_strong_explicit(&health->retry_floor_ns, &last, now_ns,
                                                   memory_order_relaxed, memory_order_relaxed);
}

void hedge_budget_earn(struct target_health *health)
{
    earn(&health->hedge_milli, ROUTER_HEDGE_MILLI, ROUTER_HEDGE_MILLI_MAX);
}

bool hedge_budget_has(const struct target_health *health)
{
    return atomic_load_explicit(&health->hedge_milli, memory_order_relaxed) >= 1000;
}

bool hedge_budget_take(struct target_health *health)
{
    return take(&health->hedge_milli);
}
