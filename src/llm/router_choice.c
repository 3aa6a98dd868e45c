/* which target and which key: reads what is known, changes only the probe flag, the key's turn and the retry budget */
#include "llm/router_internal.h"

#include <math.h>

/* Targets of another variant come after all of the call's own and those of none. */
#define FOREIGN_VARIANT (INT64_MAX / 2)
#define LEVEL_NONE INT64_MAX

struct candidates {
    uint8_t items[MODEL_TARGETS_MAX];
    size_t count;
};

static uint64_t bit(size_t index)
{
    return (uint64_t) 1 << index;
}

static int64_t load(const _Atomic int64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

/* ---- variants ---- */

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = a ^ (b + 0x9e3779b97f4a7c15ull + (a << 6) + (a >> 2));
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ull;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

/* Weighted rendezvous: each one draws by hash, the shares are the weights', and who joins or leaves moves only his own share. */
static double rendezvous(uint64_t hash, int64_t weight)
{
    double unit = ((double) (hash >> 11) + 0.5) / 9007199254740992.0; /* (0, 1) */
    return -(double) weight / log(unit);
}

void choose_variant(struct route *route)
{
    const struct model *model = route->request.model;
    uint64_t sticky = route->sticky_hash;
    route->variant = NULL;
    if (model->variant_count == 0)
        return;
    if (!sticky)
        sticky = random_u64(route->router->random);
    double best = -1;
    for (size_t i = 0; i < model->variant_count; i++) {
        uint64_t name = str_hash(model->variants[i].name, 0);
        double score = rendezvous(mix(sticky, name), model->variants[i].weight);
        if (score > best) {
            best = score;
            route->variant = &model->variants[i];
        }
    }
}

/* ---- order ---- */

static int64_t level_of(const struct route *route, const struct model_target *target)
{
    bool is_foreign = route->variant && !str_is_empty(target->variant) &&
                      !str_equal(target->variant, route->variant->name);
    return target->priority + (is_foreign ? FOREIGN_VARIANT : 0);
}

/* The lowest level above `after` that has a target which is not exhausted; LEVEL_NONE: none. */
static int64_t next_level(const struct route *route, int64_t after)
{
    const struct model *model = route->request.model;
    int64_t best = LEVEL_NONE;
    for (size_t i = 0; i < model->target_count; i++) {
        if (route->exhausted & bit(i))
            continue;
        int64_t level = level_of(route, &model->targets[i]);
        if (level > after && level < best)
            best = level;
    }
    return best;
}

/* ---- keys ---- */

static uint64_t tried_keys(const struct route *route, size_t target)
{
    uint64_t tried = 0;
    for (size_t i = 0; i < route->attempts; i++) {
        if (route->steps[i].target == target)
            tried |= bit(route->steps[i].key);
    }
    return tried;
}

static int64_t times_tried(const struct route *route, size_t target)
{
    int64_t times = 0;
    for (size_t i = 0; i < route->attempts; i++)
        times += route->steps[i].target == target;
    return times;
}

static struct key_question question_of(const struct route *route, size_t target, uint64_t without,
                                       int64_t now_ns)
{
    const struct target_health *health = route->request.model->targets[target].health;
    return (struct key_question){
        .keys = atomic_load_explicit(&health->keys, memory_order_acquire),
        .shared = atomic_load_explicit(&health->owner->keys, memory_order_acquire),
        .without = without,
        .sticky_hash = route->sticky_hash,
        .now_ns = now_ns,
        .tokens = route->request.input_tokens_bound,
    };
}

/* Keys of the snapshot's own provider only: after a reload the pool may be larger. */
static uint64_t keys_beyond(const struct route *route, size_t target)
{
    size_t count = route->request.model->targets[target].provider->key_count;
    return count > 0 && count < 64 ? ~(bit(count) - 1) : 0;
}

static bool pick_key(const struct route *route, size_t target, bool again, int64_t now_ns, int *key)
{
    uint64_t without = keys_beyond(route, target);
    struct key_question q = question_of(route, target, without | tried_keys(route, target), now_ns);
    *key = key_pool_pick(&q);
    if (*key < 0 && again) {
        q.without = without;
        *key = key_pool_pick(&q);
    }
    return *key >= 0;
}

/* ---- a fresh target ---- */

static int64_t retries_max(const struct route *route)
{
    int64_t max = route->request.model->retries_max;
    return max < 0 ? ROUTER_RETRIES_DEFAULT : max;
}

static bool has_fresh_key(const struct route *route, size_t target, int64_t now_ns)
{
    const struct target_health *health = route->request.model->targets[target].health;
    if (load(&health->not_before_ns) > now_ns)
        return false;
    struct key_question q =
        question_of(route, target, keys_beyond(route, target) | tried_keys(route, target), now_ns);
    return key_pool_has(&q);
}

/* Without a free place now?  Where nothing is bounded that is one reading. */
static bool is_full(const struct route *route, size_t target)
{
    struct target_health *health = route->request.model->targets[target].health;
    unsigned wanted = choose_places(route, health);
    return unlikely(wanted != 0) &&
           ((route->full & bit(target)) || !places_are_left(health->owner, wanted));
}

/* Those a fresh attempt may go to.  A half-open one takes the call as its probe: true, *probe says which. */
static bool collect(const struct route *route, int64_t level, int64_t now_ns, bool may_be_full,
                    struct candidates *out, struct candidates *ramping, size_t *probe)
{
    const struct model *model = route->request.model;
    out->count = ramping->count = 0;
    for (size_t i = 0; i < model->target_count; i++) {
        const struct model_target *target = &model->targets[i];
        if (((route->exhausted | route->backed_off | route->open_targets) & bit(i)) ||
            level_of(route, target) != level || !has_fresh_key(route, i, now_ns) ||
            (!may_be_full && is_full(route, i)))
            continue;
        struct breaker *breaker = &target->health->breaker;
        switch (breaker_look(breaker, now_ns)) {
        case BREAKER_OPEN: break;
        case BREAKER_HALF_OPEN:
            if (may_be_full || !breaker_take_probe(breaker)) /* a probe does not wait */
                break;
            *probe = i;
            return true;
        case BREAKER_RAMPING:
            if ((int64_t) random_below(route->router->random, 1000) >=
                breaker_share_per_mille(breaker, now_ns)) {
                ramping->items[ramping->count++] = (uint8_t) i;
                break;
            }
            out->items[out->count++] = (uint8_t) i;
            break;
        case BREAKER_CLOSED: out->items[out->count++] = (uint8_t) i; break;
        }
    }
    return false;
}

static size_t draw(const struct route *route, const struct candidates *from, int64_t total)
{
    const struct model_target *targets = route->request.model->targets;
    int64_t point = (int64_t) random_below(route->router->random, (uint64_t) total);
    for (size_t i = 0; i + 1 < from->count; i++) {
        point -= targets[from->items[i]].weight;
        if (point < 0)
            return from->items[i];
    }
    return from->items[from->count - 1];
}

/* Calls in flight against its share, times how long it takes; a cold one is taken to be as quick as the other. */
static double load_of(const struct model_target *target, double mean_weight, int64_t other_ns)
{
    int64_t first_token_ns = load(&target->health->first_token_ns);
    if (first_token_ns == 0 || other_ns == 0)
        first_token_ns = 1;
    int64_t in_flight = load(&target->health->in_flight);
    return (1 + (double) in_flight * mean_weight / (double) target->weight) *
           (double) first_token_ns;
}

/* Two draws by weight; the first stands unless its load is clearly higher, so that weights keep their meaning. */
static size_t choose_of_two(const struct route *route, const struct candidates *from)
{
    const struct model_target *targets = route->request.model->targets;
    int64_t total = 0;
    for (size_t i = 0; i < from->count; i++)
        total += targets[from->items[i]].weight;
    size_t a = draw(route, from, total), b = draw(route, from, total);
    if (a == b)
        return a;
    double mean = (double) total / (double) from->count;
    int64_t a_ns = load(&targets[a].health->first_token_ns);
    int64_t b_ns = load(&targets[b].health->first_token_ns);
    return load_of(&targets[a], mean, b_ns) > 1.25 * load_of(&targets[b], mean, a_ns) ? b : a;
}

static size_t choose_sticky(const struct route *route, const struct candidates *from)
{
    const struct model_target *targets = route->request.model->targets;
    size_t chosen = from->items[0];
    double best = -1;
    for (size_t i = 0; i < from->count; i++) {
        const struct model_target *target = &targets[from->items[i]];
        double score =
            rendezvous(mix(route->sticky_hash, target->health->identity), target->weight);
        if (score > best) {
            best = score;
            chosen = from->items[i];
        }
    }
    return chosen;
}

static bool find_preferred(const struct route *route, const struct candidates *from, size_t *out)
{
    for (size_t i = 0; i < from->count; i++) {
        *out = from->items[i];
        if (route->preferred & bit(*out))
            return true;
    }
    return false;
}

static bool holds(const struct candidates *candidates, size_t target)
{
    for (size_t i = 0; i < candidates->count; i++) {
        if (candidates->items[i] == target)
            return true;
    }
    return false;
}

static bool choose_fresh(const struct route *route, int64_t level, int64_t now_ns, bool may_be_full,
                         struct choice *out)
{
    struct candidates ready, ramping;
    size_t probe = 0, preferred = 0;
    *out = (struct choice){.must_wait = may_be_full};
    if (collect(route, level, now_ns, may_be_full, &ready, &ramping, &probe)) {
        out->target = probe;
        out->is_probe = true;
        if (pick_key(route, probe, false, now_ns, &out->key))
            return true;
        breaker_release_probe(&route->request.model->targets[probe].health->breaker);
        return false;
    }
    if (ready.count == 0) /* better than a failure */
        ready = ramping;
    if (ready.count == 0)
        return false;
    if (holds(&ready, route->last_target)) /* its next key */
        out->target = route->last_target;
    else if (ready.count == 1)
        out->target = ready.items[0];
    else if (find_preferred(route, &ready, &preferred))
        out->target = preferred;
    else if (route->sticky_hash)
        out->target = choose_sticky(route, &ready);
    else
        out->target = choose_of_two(route, &ready);
    return pick_key(route, out->target, false, now_ns, &out->key);
}

/* ---- one that failed, again ---- */

static int64_t backoff_ms(const struct route *route, int64_t retry)
{
    int64_t ceiling = ROUTER_BACKOFF_MS;
    for (int64_t i = 1; i < retry && ceiling < ROUTER_BACKOFF_MS_MAX; i++)
        ceiling *= 2;
    if (ceiling > ROUTER_BACKOFF_MS_MAX)
        ceiling = ROUTER_BACKOFF_MS_MAX;
    return (int64_t) random_below(route->router->random, (uint64_t) ceiling + 1);
}

static bool may_retry(const struct route *route, size_t target, int64_t now_ns)
{
    struct target_health *health = route->request.model->targets[target].health;
    enum breaker_state state = breaker_look(&health->breaker, now_ns);
    return times_tried(route, target) <= retries_max(route) &&
           (state == BREAKER_CLOSED || state == BREAKER_RAMPING) &&
           load(&health->not_before_ns) <= now_ns;
}

/* The one that was asked least. */
static bool choose_again(const struct route *route, int64_t level, int64_t now_ns,
                         struct choice *out)
{
    const struct model *model = route->request.model;
    uint64_t refused = 0;
    for (;;) {
        size_t best = ROUTE_NO_TARGET;
        for (size_t i = 0; i < model->target_count; i++) {
            if (!(route->backed_off & ~route->exhausted & ~route->open_targets & ~refused &
                  bit(i)) ||
                level_of(route, &model->targets[i]) != level || !may_retry(route, i, now_ns))
                continue;
            if (best == ROUTE_NO_TARGET || times_tried(route, i) < times_tried(route, best))
                best = i;
        }
        if (best == ROUTE_NO_TARGET)
            return false;
        *out = (struct choice){.target = best, .is_retry = true};
        if (pick_key(route, best, true, now_ns, &out->key) &&
            retry_budget_take(model->targets[best].health, now_ns)) {
            out->wait_ms = backoff_ms(route, times_tried(route, best));
            return true;
        }
        refused |= bit(best);
    }
}

/* ---- nothing but waiting is left ---- */

/* When a target that limits its rate may be asked again; INT64_MAX: not by waiting. */
static int64_t usable_ns(const struct route *route, size_t target, int64_t now_ns)
{
    struct target_health *health = route->request.model->targets[target].health;
    enum breaker_state state = breaker_look(&health->breaker, now_ns);
    if (state == BREAKER_OPEN || state == BREAKER_HALF_OPEN)
        return INT64_MAX;
    struct key_question q = question_of(route, target, keys_beyond(route, target), now_ns);
    int64_t at = key_pool_usable_ns(&q);
    int64_t not_before = load(&health->not_before_ns);
    return at > not_before ? at : not_before;
}

/* The one that is usable first, if that is soon enough to wait for; INT64_MAX: none. */
static int64_t soonest(const struct route *route, int64_t now_ns, size_t *target)
{
    const struct model *model = route->request.model;
    int64_t best_ns = INT64_MAX;
    if (route->waits >= retries_max(route))
        return INT64_MAX;
    for (size_t i = 0; i < model->target_count; i++) {
        bool is_tried_out =
            (route->backed_off & bit(i)) && times_tried(route, i) > retries_max(route);
        if (((route->exhausted | route->open_targets) & bit(i)) || is_tried_out)
            continue;
        int64_t at = usable_ns(route, i, now_ns);
        if (at > now_ns && at < best_ns) {
            best_ns = at;
            *target = i;
        }
    }
    return best_ns - now_ns > ROUTER_WAIT_MS_MAX * 1000000ll ? INT64_MAX : best_ns;
}

static bool choose_to_wait(const struct route *route, int64_t now_ns, struct choice *out)
{
    *out = (struct choice){.is_retry = true};
    int64_t at_ns = soonest(route, now_ns, &out->target);
    if (at_ns == INT64_MAX)
        return false;
    /* A little later than the first moment, so that not all who wait come at once. */
    int64_t wait_ms = (at_ns - now_ns + 999999) / 1000000;
    wait_ms += (int64_t) random_below(route->router->random, (uint64_t) (wait_ms / 4 + 1));
    out->wait_ms = wait_ms < ROUTER_WAIT_MS_MAX ? wait_ms : ROUTER_WAIT_MS_MAX;
    return pick_key(route, out->target, true, at_ns, &out->key);
}

/* Fresh but for its places: the attempt waits for one. */
static bool choose_full(const struct route *route, int64_t now_ns, struct choice *out)
{
    for (int64_t level = next_level(route, -1); level != LEVEL_NONE;
         level = next_level(route, level)) {
        if (choose_fresh(route, level, now_ns, true, out))
            return true;
    }
    return false;
}

/* ---- */

bool choose_target(struct route *route, int64_t now_ns, bool is_hedge, struct choice *out)
{
    for (int64_t level = next_level(route, -1); level != LEVEL_NONE;
         level = next_level(route, level)) {
        if (is_hedge && level >= FOREIGN_VARIANT) /* a split is left to answer, not to be quicker */
            return false;
        if (choose_fresh(route, level, now_ns, false, out) ||
            (!is_hedge && choose_again(route, level, now_ns, out)))
            return true;
    }
    return !is_hedge && (choose_full(route, now_ns, out) || choose_to_wait(route, now_ns, out));
}

bool choose_would_find(const struct route *route, int64_t now_ns)
{
    const struct model *model = route->request.model;
    size_t target;
    for (size_t i = 0; i < model->target_count; i++) {
        struct target_health *health = model->targets[i].health;
        if ((route->exhausted | route->open_targets) & bit(i))
            continue;
        if (route->backed_off & bit(i)) {
            if (may_retry(route, i, now_ns) && retry_budget_has(health, now_ns))
                return true;
        } else if (has_fresh_key(route, i, now_ns) &&
                   breaker_look(&health->breaker, now_ns) != BREAKER_OPEN) {
            return true;
        }
    }
    return soonest(route, now_ns, &target) != INT64_MAX;
}

bool choose_has_other(const struct route *route)
{
    const struct model *model = route->request.model;
    for (size_t i = 0; i < model->target_count; i++) {
        if (!((route->exhausted | route->backed_off | route->open_targets) & bit(i)))
            return true;
    }
    return false;
}
