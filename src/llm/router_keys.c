/* pools of keys: which is usable, which has most left, how long one stays out */
#include "llm/router_internal.h"

#include "base/ensure.h"

#include <stdlib.h>

struct key_pool *key_pool_create(size_t key_count)
{
    size_t count = key_count == 0                   ? 1
                   : key_count <= PROVIDER_KEYS_MAX ? key_count
                                                    : PROVIDER_KEYS_MAX;
    struct key_pool *pool = calloc(1, sizeof *pool + count * sizeof(struct key_state));
    ensure(pool != NULL);
    pool->count = count;
    pool->is_keyless = key_count == 0;
    for (size_t i = 0; i < count; i++) {
        pool->keys[i].requests_left = KEY_UNKNOWN;
        pool->keys[i].tokens_left = KEY_UNKNOWN;
    }
    return pool;
}

static int64_t load(const _Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

/* What is left, as the provider said; unknown counts as plenty, so that every key becomes known. */
static int64_t left(const _Atomic int64_t *amount, const _Atomic int64_t *reset_ns, int64_t now_ns)
{
    int64_t value = load(amount);
    return value == KEY_UNKNOWN || load(reset_ns) <= now_ns ? INT64_MAX : value;
}

/* One that the provider said has nothing left is out until then, without a 429. */
static int64_t usable_from_ns(const struct key_state *key, int64_t now_ns)
{
    int64_t out_until = load(&key->out_until_ns);
    if (left(&key->requests_left, &key->requests_reset_ns, now_ns) == 0 &&
        load(&key->requests_reset_ns) > out_until)
        out_until = load(&key->requests_reset_ns);
    if (left(&key->tokens_left, &key->tokens_reset_ns, now_ns) == 0 &&
        load(&key->tokens_reset_ns) > out_until)
        out_until = load(&key->tokens_reset_ns);
    return out_until;
}

static bool is_usable(const struct key_question *q, size_t i)
{
    return (q->without >> i & 1) == 0 &&
           usable_from_ns(&q->keys->keys[i], q->now_ns) <= q->now_ns &&
           (i >= q->shared->count || load(&q->shared->keys[i].out_until_ns) <= q->now_ns);
}

bool key_pool_has(const struct key_question *q)
{
    for (size_t i = 0; i < q->keys->count; i++) {
        if (is_usable(q, i))
            return true;
    }
    return false;
}

/* Requests left; a key whose tokens look too few for this call comes after all others. */
static int64_t score_of(const struct key_question *q, const struct key_state *key)
{
    int64_t requests = left(&key->requests_left, &key->requests_reset_ns, q->now_ns);
    int64_t tokens = left(&key->tokens_left, &key->tokens_reset_ns, q->now_ns);
    return tokens < q->tokens ? -1 : requests;
}

/* As if it were answered already. */
static void take_one(struct key_state *key)
{
    int64_t has = load(&key->requests_left);
    while (has > 0 &&
           !atomic_compare_exchange_weak_explicit(&key->requests_left, &has, has - 1,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

int key_pool_pick(const struct key_question *q)
{
    struct key_pool *pool = q->keys;
    size_t first = 0;
    if (pool->count > 1)
        first = q->sticky_hash
                    ? (size_t) (q->sticky_hash >> 7) % pool->count
                    : atomic_fetch_add_explicit(&pool->turn, 1, memory_order_relaxed) % pool->count;
    int best = -1;
    int64_t best_score = 0;
    for (size_t n = 0; n < pool->count; n++) {
        size_t i = (first + n) % pool->count;
        if (!is_usable(q, i))
            continue;
        int64_t score = score_of(q, &pool->keys[i]);
        if (q->sticky_hash && score > 0)
            return (int) i; /* the caller's own key keeps its cache warm while it has quota */
        if (best < 0 || score > best_score) {
            best = (int) i;
            best_score = score;
        }
    }
    if (best >= 0 && best_score > 0 && best_score != INT64_MAX)
        take_one(&pool->keys[best]);
    return best;
}

int64_t key_pool_usable_ns(const struct key_question *q)
{
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < q->keys->count; i++) {
        int64_t at = usable_from_ns(&q->keys->keys[i], q->now_ns);
        int64_t shared = i < q->shared->count ? load(&q->shared->keys[i].out_until_ns) : 0;
        if (shared > at)
            at = shared;
        if ((q->without >> i & 1) == 0 && at < first)
            first = at;
    }
    return first;
}

void key_passed(struct key_pool *pool, size_t key)
{
    if (key < pool->count &&
        atomic_load_explicit(&pool->keys[key].strikes, memory_order_relaxed) != 0)
        atomic_store_explicit(&pool->keys[key].strikes, 0, memory_order_relaxed);
}

void key_out(struct key_pool *pool, size_t key, int64_t until_ns, enum error_reason reason)
{
    if (key >= pool->count)
        return;
    struct key_state *state = &pool->keys[key];
    int64_t old = load(&state->out_until_ns);
    while (old < until_ns &&
           !atomic_compare_exchange_weak_explicit(&state->out_until_ns, &old, until_ns,
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
    atomic_store_explicit(&state->reason, (int) reason, memory_order_relaxed);
}

int64_t key_out_ms(enum error_reason reason, uint32_t strikes, bool is_alone)
{
    bool is_limited = reason == REASON_PROVIDER_RATE_LIMITED;
    int64_t ms = is_limited ? ROUTER_KEY_LIMITED_MS : ROUTER_KEY_REFUSED_MS;
    int64_t max = is_limited ? ROUTER_KEY_LIMITED_MS_MAX
                  : is_alone ? ROUTER_KEY_ALONE_MS_MAX
                             : ROUTER_KEY_REFUSED_MS_MAX;
    for (uint32_t i = 1; i < strikes && ms < max; i++)
        ms *= 2;
    return ms < max ? ms : max;
}
