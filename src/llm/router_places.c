/* places of a provider: how many calls it may have at once, and who waits for one */
#include "llm/router_internal.h"

static const str kind_names[PLACES_KINDS] = {
    [PLACES_CALLS] = S_INIT("provider"), [PLACES_RUNS] = S_INIT("provider_runs")};

/* ---- bounds ---- */

static int32_t least(int64_t a, int64_t b)
{
    int64_t value = a == 0 ? b : b == 0 || a < b ? a : b;
    return (int32_t) (value < INT32_MAX ? value : INT32_MAX);
}

/* Of everybody: what the provider may have, and what its pool of keys carries. */
static int32_t bound_of(const struct provider_places *places, size_t key_count,
                        enum places_kind kind)
{
    int64_t by_keys = (int64_t) places->calls_per_key * (int64_t) (key_count > 0 ? key_count : 1);
    int32_t calls = least(places->calls, by_keys);
    return kind == PLACES_CALLS ? calls : places->run_calls;
}

void places_init(struct provider_health *owner, struct metrics *metrics)
{
    for (int i = 0; i < PLACES_KINDS; i++) {
        struct places *places = &owner->places[i];
        str labels[] = {kind_names[i], owner->name};
        bulkhead_init(&places->bulkhead, INT32_MAX, 0);
        if (!metrics)
            continue;
        places->in_use_series = metrics_series(metrics, METRIC_BULKHEAD_IN_USE, labels, 2);
        places->queued_series = metrics_series(metrics, METRIC_BULKHEAD_QUEUED, labels, 2);
        places->refused_series = metrics_series(metrics, METRIC_BULKHEAD_REFUSED, labels, 2);
    }
}

void places_deinit(struct provider_health *owner)
{
    for (int i = 0; i < PLACES_KINDS; i++)
        bulkhead_deinit(&owner->places[i].bulkhead);
}

void places_bound(struct provider_health *owner, const struct provider *provider)
{
    const struct provider_places *limits = &provider->places;
    unsigned bounded = 0;
    for (int i = 0; i < PLACES_KINDS; i++) {
        int32_t most = bound_of(limits, provider->key_count, (enum places_kind) i);
        bulkhead_resize(&owner->places[i].bulkhead, most > 0 ? most : INT32_MAX,
                        most > 0 ? limits->queue_max : 0);
        bounded |= most > 0 ? 1u << i : 0;
    }
    atomic_store_explicit(&owner->places_wait_ms, limits->wait_ms, memory_order_relaxed);
    atomic_store_explicit(&owner->bounded_places, bounded, memory_order_relaxed);
}

/* ---- taking and leaving ---- */

bool places_are_left(struct provider_health *owner, unsigned wanted)
{
    for (int i = 0; i < PLACES_KINDS; i++) {
        if (!(wanted >> i & 1))
            continue;
        struct bulkhead_counts counts = bulkhead_look(&owner->places[i].bulkhead);
        if (counts.in_use >= counts.places)
            return false;
    }
    return true;
}

bool places_try(struct provider_health *owner, unsigned wanted)
{
    unsigned held = 0;
    for (int i = 0; i < PLACES_KINDS; i++) {
        if (!(wanted >> i & 1))
            continue;
        if (!bulkhead_try(&owner->places[i].bulkhead)) {
            places_leave(owner, held);
            return false;
        }
        held |= 1u << i;
    }
    return true;
}

void places_leave(struct provider_health *owner, unsigned held)
{
    for (int i = 0; held >> i; i++) {
        if (held >> i & 1)
            bulkhead_leave(&owner->places[i].bulkhead);
    }
}

static bool enter(struct provider_health *owner, struct places *places, struct context *ctx,
                  uuid tenant_id, struct error *e)
{
    struct error own = {0};
    struct bulkhead_entry entry = {
        .name = owner->name,
        .owner = tenant_id,
        .wait_ms = atomic_load_explicit(&owner->places_wait_ms, memory_order_relaxed)};
    bool is_in = bulkhead_enter(&places->bulkhead, ctx, &entry, &own);
    if (!is_in && own.reason == REASON_OVERLOADED_HERE) {
        str text = str_from_cstr(own.message);
        if (places->refused_series)
            metric_add(places->refused_series, 1);
        error_set(e, own.reason, "provider " STR_FMT, STR_ARG(text));
        if (e)
            e->retry_after_ms = own.retry_after_ms;
    } else if (!is_in) {
        (void) error_copy(e, &own);
    }
    return is_in;
}

/* Those of runs first: who waits there keeps nothing from the others. */
bool attempt_enter(struct attempt *attempt, struct context *ctx, struct error *e)
{
    struct provider_health *owner = attempt->target->health->owner;
    for (int i = PLACES_KINDS - 1; i >= 0; i--) {
        if (!(attempt->places_wanted >> i & 1) || (attempt->places_held >> i & 1))
            continue;
        if (!enter(owner, &owner->places[i], ctx, attempt->route->request.tenant_id, e))
            return false;
        attempt->places_held |= (uint8_t) (1u << i);
    }
    attempt->must_wait = false;
    attempt->started_ns = clock_monotonic_ns(attempt->route->router->clock);
    return true;
}

/* ---- what is known ---- */

void places_show(struct provider_health *owner)
{
    for (int i = 0; i < PLACES_KINDS; i++) {
        struct places *places = &owner->places[i];
        struct bulkhead_counts counts = bulkhead_look(&places->bulkhead);
        if (!places->in_use_series)
            continue;
        metric_set(places->in_use_series, (double) counts.in_use);
        metric_set(places->queued_series, (double) counts.queued);
    }
}

static void write_places(struct json_writer *w, struct places *places, bool is_bounded,
                         int64_t in_flight)
{
    struct bulkhead_counts counts = bulkhead_look(&places->bulkhead);
    json_put_i64(w, S("in_use"), is_bounded ? counts.in_use : in_flight);
    json_key(w, S("places"));
    if (is_bounded)
        json_write_i64(w, counts.places);
    else
        json_write_null(w);
    json_put_i64(w, S("queued"), counts.queued);
    json_put_i64(w, S("queue_max"), counts.queue_max);
    json_put_i64(w, S("refused"), counts.refused);
}

/* One item for each kind: that of everybody always, that of runs where it is bounded. */
void places_write_json(struct provider_health *owner, int64_t in_flight, struct json_writer *w)
{
    unsigned bounded = atomic_load_explicit(&owner->bounded_places, memory_order_relaxed);
    for (int i = 0; i < PLACES_KINDS; i++) {
        bool is_bounded = bounded >> i & 1;
        if (i != PLACES_CALLS && !is_bounded)
            continue;
        json_object_begin(w);
        json_put_str(w, S("kind"), kind_names[i]);
        json_put_str(w, S("name"), owner->name);
        json_put_str(w, S("provider"), owner->name);
        write_places(w, &owner->places[i], is_bounded, in_flight);
        json_object_end(w);
    }
}
