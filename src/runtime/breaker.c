/* Counts without a lock, changes of state with one. */
#include "runtime/breaker.h"

#include "base/str.h"

#include <string.h>

/* A bucket is one word: which time it counts, how many passed, how many failed. */
enum { COUNT_BITS = 20, EPOCH_SHIFT = 2 * COUNT_BITS };
#define COUNT_MASK ((1ull << COUNT_BITS) - 1)
#define EPOCH_MASK ((1ull << (64 - EPOCH_SHIFT)) - 1)

void breaker_init(struct breaker *breaker)
{
    pthread_mutex_init(&breaker->lock, NULL);
}

void breaker_deinit(struct breaker *breaker)
{
    pthread_mutex_destroy(&breaker->lock);
}

const char *breaker_state_name(enum breaker_state state)
{
    switch (state) {
    case BREAKER_CLOSED: return "ok";
    case BREAKER_RAMPING: return "ramping";
    case BREAKER_HALF_OPEN: return "probing";
    case BREAKER_OPEN: return "open";
    }
    return "unknown";
}

/* ---- the window ---- */

static uint64_t epoch_of(int64_t now_ns)
{
    return (uint64_t) now_ns / (BREAKER_BUCKET_MS * 1000000ull) & EPOCH_MASK;
}

static void count(struct breaker *breaker, int64_t now_ns, uint64_t one)
{
    uint64_t epoch = epoch_of(now_ns);
    _Atomic uint64_t *bucket = &breaker->buckets[epoch % BREAKER_BUCKETS];
    uint64_t old = atomic_load_explicit(bucket, memory_order_relaxed);
    uint64_t next;
    do {
        next = old >> EPOCH_SHIFT == epoch ? old : epoch << EPOCH_SHIFT;
        if ((next & one * COUNT_MASK) == one * COUNT_MASK)
            return; /* full: a million in three seconds say enough */
        next += one;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &old, next, memory_order_relaxed,
                                                    memory_order_relaxed));
}

void breaker_counts(struct breaker *breaker, int64_t now_ns, int64_t *passed, int64_t *failed)
{
    uint64_t epoch = epoch_of(now_ns);
    *passed = *failed = 0;
    for (size_t i = 0; i < BREAKER_BUCKETS; i++) {
        uint64_t word = atomic_load_explicit(&breaker->buckets[i], memory_order_relaxed);
        if (((epoch - (word >> EPOCH_SHIFT)) & EPOCH_MASK) >= BREAKER_BUCKETS)
            continue;
        *passed += (int64_t) (word & COUNT_MASK);
        *failed += (int64_t) (word >> COUNT_BITS & COUNT_MASK);
    }
}

static void forget_counts(struct breaker *breaker)
{
    for (size_t i = 0; i < BREAKER_BUCKETS; i++)
        atomic_store_explicit(&breaker->buckets[i], 0, memory_order_relaxed);
    atomic_store_explicit(&breaker->failures_in_row, 0, memory_order_relaxed);
}

/* ---- states; the lock is held ---- */

static enum breaker_state state_of(struct breaker *breaker)
{
    return (enum breaker_state) atomic_load_explicit(&breaker->state, memory_order_relaxed);
}

static void enter(struct breaker *breaker, enum breaker_state state, int64_t now_ns)
{
    breaker->since_ns = now_ns;
    if (state == BREAKER_HALF_OPEN) {
        breaker->probes_passed = 0;
        atomic_store_explicit(&breaker->is_probing, false, memory_order_relaxed);
        atomic_store_explicit(&breaker->is_probe_told, false, memory_order_relaxed);
    }
    if (state == BREAKER_RAMPING)
        forget_counts(breaker);
    if (state == BREAKER_CLOSED)
        breaker->opened_count = 0;
    atomic_store_explicit(&breaker->state, (int) state, memory_order_release);
}

/* Each time in a row twice as long, and up to a quarter more, so that many nodes do not ask at once. */
static void trip(struct breaker *breaker, int64_t now_ns, uint64_t jitter)
{
    int64_t open_ms = BREAKER_OPEN_MS;
    for (uint32_t i = 0; i < breaker->opened_count && open_ms < BREAKER_OPEN_MS_MAX; i++)
        open_ms *= 2;
    if (open_ms > BREAKER_OPEN_MS_MAX)
        open_ms = BREAKER_OPEN_MS_MAX;
    open_ms += (int64_t) (jitter % (uint64_t) (open_ms / 4 + 1));
    breaker->opened_count++;
    breaker->until_ns = now_ns + open_ms * 1000000;
    enter(breaker, BREAKER_OPEN, now_ns);
}

static bool is_too_much(struct breaker *breaker, int64_t now_ns)
{
    int64_t passed, failed;
    if (atomic_load_explicit(&breaker->failures_in_row, memory_order_relaxed) >=
        BREAKER_FAILURES_IN_ROW)
        return true;
    breaker_counts(breaker, now_ns, &passed, &failed);
    return passed + failed >= BREAKER_CALLS_MIN &&
           failed * 1000 >= (passed + failed) * BREAKER_FAILED_PER_MILLE;
}

/* ---- */

enum breaker_state breaker_look(struct breaker *breaker, int64_t now_ns)
{
    if (likely(atomic_load_explicit(&breaker->state, memory_order_acquire) == BREAKER_CLOSED))
        return BREAKER_CLOSED;
    pthread_mutex_lock(&breaker->lock);
    if (state_of(breaker) == BREAKER_OPEN && now_ns >= breaker->until_ns)
        enter(breaker, BREAKER_HALF_OPEN, now_ns);
    if (state_of(breaker) == BREAKER_RAMPING &&
        now_ns - breaker->since_ns >= BREAKER_RAMP_MS * 1000000ll)
        enter(breaker, BREAKER_CLOSED, now_ns);
    enum breaker_state state = state_of(breaker);
    pthread_mutex_unlock(&breaker->lock);
    return state;
}

int64_t breaker_share_per_mille(struct breaker *breaker, int64_t now_ns)
{
    pthread_mutex_lock(&breaker->lock);
    int64_t elapsed_ms = (now_ns - breaker->since_ns) / 1000000;
    pthread_mutex_unlock(&breaker->lock);
    int64_t share = 100 + 900 * elapsed_ms / BREAKER_RAMP_MS;
    return share > 1000 ? 1000 : share;
}

bool breaker_take_probe(struct breaker *breaker)
{
    return !atomic_exchange_explicit(&breaker->is_probing, true, memory_order_relaxed);
}

bool breaker_is_first_probe(struct breaker *breaker)
{
    return !atomic_exchange_explicit(&breaker->is_probe_told, true, memory_order_relaxed);
}

void breaker_release_probe(struct breaker *breaker)
{
    atomic_store_explicit(&breaker->is_probing, false, memory_order_relaxed);
}

bool breaker_passed(struct breaker *breaker, int64_t now_ns, bool is_probe)
{
    bool is_mended = false;
    count(breaker, now_ns, 1);
    if (atomic_load_explicit(&breaker->failures_in_row, memory_order_relaxed) != 0)
        atomic_store_explicit(&breaker->failures_in_row, 0, memory_order_relaxed);
    if (likely(!is_probe))
        return false;
    pthread_mutex_lock(&breaker->lock);
    if (state_of(breaker) == BREAKER_HALF_OPEN) {
        breaker_release_probe(breaker);
        is_mended = ++breaker->probes_passed >= BREAKER_PROBES;
        if (is_mended)
            enter(breaker, BREAKER_RAMPING, now_ns);
    }
    pthread_mutex_unlock(&breaker->lock);
    return is_mended;
}

/* Half a character at the end would be no text. */
static void keep_why(struct breaker *breaker, const char *why)
{
    str kept = str_cut_utf8(str_from_cstr(why), sizeof breaker->why - 1);
    memcpy(breaker->why, kept.ptr, kept.len);
    breaker->why[kept.len] = '\0';
}

bool breaker_failed(struct breaker *breaker, int64_t now_ns, bool is_probe, uint64_t jitter,
                    const char *why)
{
    bool has_opened = false;
    count(breaker, now_ns, 1ull << COUNT_BITS);
    atomic_fetch_add_explicit(&breaker->failures_in_row, 1, memory_order_relaxed);
    pthread_mutex_lock(&breaker->lock);
    keep_why(breaker, why);
    switch (state_of(breaker)) {
    case BREAKER_CLOSED:
    case BREAKER_RAMPING:
        has_opened = is_too_much(breaker, now_ns);
        if (has_opened) {
            trip(breaker, now_ns, jitter);
            breaker->opened_ns = now_ns;
        }
        break;
    case BREAKER_HALF_OPEN:
        has_opened = is_probe;
        if (is_probe)
            trip(breaker, now_ns, jitter);
        break;
    case BREAKER_OPEN: break; /* begun before it opened */
    }
    pthread_mutex_unlock(&breaker->lock);
    return has_opened;
}

int64_t breaker_opens_again_ns(struct breaker *breaker)
{
    pthread_mutex_lock(&breaker->lock);
    int64_t until_ns = state_of(breaker) == BREAKER_OPEN ? breaker->until_ns : 0;
    pthread_mutex_unlock(&breaker->lock);
    return until_ns;
}

bool breaker_tell(struct breaker *breaker, struct breaker_story *out)
{
    pthread_mutex_lock(&breaker->lock);
    enum breaker_state state = state_of(breaker);
    bool is_shut = state == BREAKER_OPEN || state == BREAKER_HALF_OPEN;
    *out = (struct breaker_story){.opened_ns = breaker->opened_ns,
                                  .until_ns = state == BREAKER_OPEN ? breaker->until_ns : 0};
    memcpy(out->why, breaker->why, sizeof out->why);
    pthread_mutex_unlock(&breaker->lock);
    return is_shut;
}
