#include "gateway/keys/rate.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"
#include <pthread.h>
#include <stdlib.h>

enum { BUCKET_SLOTS = 4 };
#define WINDOW_NS (INT64_C(60) * 1000000000)
#define STREAM_RETRY_MS 1000

struct window {
    uint64_t subject; /* keyed hash; 0: free */
    int64_t ends_ns;
    int64_t count;
};
struct rate {
    pthread_mutex_t lock;
    uint64_t seed;
    struct window windows[GATEWAY_RATE_SLOTS];
};

struct rate *rate_create(void)
{
    struct rate *rate = calloc(1, sizeof *rate);
    ensure(rate != NULL);
    pthread_mutex_init(&rate->lock, NULL);
    rate->seed = map_seed();
    return rate;
}

void rate_destroy(struct rate *rate)
{
    if (!rate)
        return;
    pthread_mutex_destroy(&rate->lock);
    free(rate);
}

static struct window *find_window(struct rate *rate, uint64_t subject, int64_t now_ns)
{
    struct window *bucket =
        &rate->windows[subject % (GATEWAY_RATE_SLOTS / BUCKET_SLOTS) * BUCKET_SLOTS];
    struct window *oldest = &bucket[0];
    for (size_t i = 0; i < BUCKET_SLOTS; i++) {
        if (bucket[i].subject == subject && bucket[i].ends_ns > now_ns)
            return &bucket[i];
        if (bucket[i].subject == subject || bucket[i].ends_ns < oldest->ends_ns)
            oldest = &bucket[i];
        if (oldest->subject == subject)
            break;
    }
    *oldest = (struct window){.subject = subject, .ends_ns = now_ns + WINDOW_NS};
    return oldest;
}

static uint64_t hash_of(const struct rate *rate, const struct rate_subject *subject)
{
    const uuid *tenant = &subject->tenant_id;
    uint64_t seed = str_hash(str_of((const char *) tenant->bytes, sizeof tenant->bytes),
                             rate->seed + (uint64_t) subject->kind);
    return str_hash(subject->name, seed) | 1;
}

static bool refuse(enum rate_kind kind, const struct rate_view *view, struct error *e)
{
    static const char *const of_kind[] = {
        [RATE_ADDRESS_REQUESTS] = "requests of this address",
        [RATE_USER_REQUESTS] = "requests of this user",
        [RATE_KEY_REQUESTS] = "requests of this key",
        [RATE_TENANT_REQUESTS] = "requests of this tenant",
        [RATE_USER_TOKENS] = "tokens of this user",
        [RATE_KEY_TOKENS] = "tokens of this key",
        [RATE_TENANT_TOKENS] = "tokens of this tenant",
    };
    error_set(e, REASON_RATE_LIMIT,
              "more than %lld %s in a minute; the next window begins in %lld s",
              (long long) view->limit, of_kind[kind], (long long) (view->reset_ms + 999) / 1000);
    e->retry_after_ms = view->reset_ms;
    return false;
}

bool rate_take(struct rate *rate, const struct rate_subject *subject, int64_t per_minute,
               int64_t amount, int64_t now_ns, struct rate_view *view, struct error *e)
{
    ensure(per_minute > 0 && amount >= 0);
    uint64_t hash = hash_of(rate, subject);
    pthread_mutex_lock(&rate->lock);
    struct window *window = find_window(rate, hash, now_ns);
    bool fits = window->count == 0 || amount <= per_minute - window->count;
    if (fits)
        window->count += amount;
    int64_t left = per_minute - window->count;
    *view =
        (struct rate_view){per_minute, left > 0 ? left : 0, (window->ends_ns - now_ns) / 1000000};
    pthread_mutex_unlock(&rate->lock);
    return fits || refuse(subject->kind, view, e);
}

void rate_correct(struct rate *rate, const struct rate_subject *subject, int64_t difference,
                  int64_t now_ns)
{
    uint64_t hash = hash_of(rate, subject);
    struct window *bucket =
        &rate->windows[hash % (GATEWAY_RATE_SLOTS / BUCKET_SLOTS) * BUCKET_SLOTS];
    pthread_mutex_lock(&rate->lock);
    for (size_t i = 0; i < BUCKET_SLOTS; i++) {
        if (bucket[i].subject != hash || bucket[i].ends_ns <= now_ns)
            continue;
        bucket[i].count += difference;
        if (bucket[i].count < 0)
            bucket[i].count = 0;
    }
    pthread_mutex_unlock(&rate->lock);
}

/* ---- streams ---- */

struct streams {
    pthread_mutex_t lock;
    size_t per_key, total;
    struct map *counts; /* key id -> size_t on the heap */
};

struct streams *streams_create(size_t per_key)
{
    struct streams *streams = calloc(1, sizeof *streams);
    ensure(streams != NULL);
    pthread_mutex_init(&streams->lock, NULL);
    streams->per_key = per_key;
    streams->counts = map_create();
    return streams;
}

void streams_destroy(struct streams *streams)
{
    if (!streams)
        return;
    ensure(streams->total == 0);
    map_destroy(streams->counts);
    pthread_mutex_destroy(&streams->lock);
    free(streams);
}

static str id_key(const uuid *id)
{
    return str_of((const char *) id->bytes, sizeof id->bytes);
}

bool streams_take(struct streams *streams, uuid key_id, int64_t key_max, struct error *e)
{
    size_t max = key_max > 0 ? (size_t) key_max : streams->per_key;
    pthread_mutex_lock(&streams->lock);
    size_t *count = map_find(streams->counts, id_key(&key_id));
    if (!count) {
        count = calloc(1, sizeof *count);
        ensure(count != NULL);
        map_put(streams->counts, id_key(&key_id), count);
    }
    bool fits = *count < max;
    if (fits) {
        ++*count;
        streams->total++;
    }
    pthread_mutex_unlock(&streams->lock);
    if (fits)
        return true;
    error_set(e, REASON_RATE_LIMIT,
              "the key has %zu streams open, which is its limit; close one first", max);
    e->retry_after_ms = STREAM_RETRY_MS;
    return false;
}

void streams_give(struct streams *streams, uuid key_id)
{
    pthread_mutex_lock(&streams->lock);
    size_t *count = map_find(streams->counts, id_key(&key_id));
    ensure(count != NULL && *count > 0);
    streams->total--;
    if (--*count == 0) {
        map_remove(streams->counts, id_key(&key_id));
        free(count);
    }
    pthread_mutex_unlock(&streams->lock);
}

size_t streams_count(struct streams *streams)
{
    pthread_mutex_lock(&streams->lock);
    size_t count = streams->total;
    pthread_mutex_unlock(&streams->lock);
    return count;
}
