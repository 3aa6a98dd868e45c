#include "orchestrator/policy/policy_memo_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    BUCKET_PLACES = 4,
    BUCKETS = POLICY_MEMO_PLACES / BUCKET_PLACES,
    STRIPES = 64,
    RULE_BYTES_MAX = 160
};
static_assert(POLICY_MEMO_PLACES % BUCKET_PLACES == 0 && BUCKETS % STRIPES == 0,
              "places come in whole buckets");

struct place {
    uint64_t hash; /* 0: empty */
    enum policy_verdict verdict;
    bool has_rule;
    uint16_t question_bytes, rule_bytes;
    char question[POLICY_QUESTION_BYTES_MAX];
    char rule[RULE_BYTES_MAX];
};

/* `next` goes round: it names the oldest place. */
struct bucket {
    uint32_t next;
    struct place places[BUCKET_PLACES];
};

/* A cache line each, so that loops do not disturb each other. */
struct stripe {
    pthread_mutex_t lock;
    char padding[64 - sizeof(pthread_mutex_t) % 64];
};

struct policy_memo {
    struct stripe stripes[STRIPES];
    struct bucket buckets[BUCKETS];
};

struct policy_memo *policy_memo_create(void)
{
    struct policy_memo *memo = calloc(1, sizeof *memo); /* pages that nobody writes cost nothing */
    ensure(memo != NULL);
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_init(&memo->stripes[i].lock, NULL);
    return memo;
}

void policy_memo_destroy(struct policy_memo *memo)
{
    if (!memo)
        return;
    for (size_t i = 0; i < STRIPES; i++)
        pthread_mutex_destroy(&memo->stripes[i].lock);
    free(memo);
}

static struct bucket *lock_bucket(struct policy_memo *memo, uint64_t hash)
{
    size_t index = hash % BUCKETS;
    pthread_mutex_lock(&memo->stripes[index % STRIPES].lock);
    return &memo->buckets[index];
}

static void unlock_bucket(struct policy_memo *memo, uint64_t hash)
{
    pthread_mutex_unlock(&memo->stripes[hash % BUCKETS % STRIPES].lock);
}

static struct place *place_of(struct bucket *bucket, const struct policy_question *question)
{
    for (size_t i = 0; i < BUCKET_PLACES; i++) {
        struct place *place = &bucket->places[i];
        if (place->hash == question->hash && place->question_bytes == question->bytes &&
            memcmp(place->question, question->text, question->bytes) == 0)
            return place;
    }
    return NULL;
}

bool policy_memo_find(struct policy_memo *memo, struct arena *arena,
                      const struct policy_question *question, bool skips_rule,
                      struct policy_decision *out)
{
    struct bucket *bucket = lock_bucket(memo, question->hash);
    const struct place *place = place_of(bucket, question);
    bool is_found = place && (place->has_rule || skips_rule);
    if (is_found)
        out->verdict = place->verdict;
    if (is_found && !skips_rule)
        out->rule = str_copy(arena, str_of(place->rule, place->rule_bytes));
    unlock_bucket(memo, question->hash);
    return is_found;
}

static void fill(struct place *place, const struct policy_question *question, bool has_rule,
                 const struct policy_decision *decision)
{
    place->hash = question->hash;
    place->verdict = decision->verdict;
    place->has_rule = has_rule;
    place->question_bytes = (uint16_t) question->bytes;
    memcpy(place->question, question->text, question->bytes);
    place->rule_bytes = has_rule ? (uint16_t) decision->rule.len : 0;
    if (place->rule_bytes > 0)
        memcpy(place->rule, decision->rule.ptr, place->rule_bytes);
}

void policy_memo_keep(struct policy_memo *memo, const struct policy_question *question,
                      bool has_rule, const struct policy_decision *decision)
{
    if (has_rule && decision->rule.len > RULE_BYTES_MAX)
        return;
    struct bucket *bucket = lock_bucket(memo, question->hash);
    struct place *place = place_of(bucket, question);
    bool is_known = place && place->has_rule; /* another thread was quicker */
    if (!place)
        place = &bucket->places[bucket->next++ % BUCKET_PLACES];
    if (!is_known)
        fill(place, question, has_rule, decision);
    unlock_bucket(memo, question->hash);
}
