/* What a node remembers of webhooks: who has endpoints, and how many of their deliveries wait. */
#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/secret.h"
#include "orchestrator/webhook/webhook_internal.h"
#include <stdlib.h>

/* ---- life ---- */

static void take_defaults(struct webhook_options *options)
{
    static const int64_t retry_ms[] = {5000, 300000, 1800000, 7200000, 18000000, 36000000};
    if (options->retry_count == 0) {
        memcpy(options->retry_ms, retry_ms, sizeof retry_ms);
        options->retry_count = ARRAY_COUNT(retry_ms);
    }
    if (options->timeout_ms <= 0)
        options->timeout_ms = WEBHOOK_TIMEOUT_MS;
    if (options->keep_ms <= 0)
        options->keep_ms = WEBHOOK_KEEP_MS;
}

struct webhooks *webhooks_create(const struct orchestrator_parts *parts)
{
    if (!parts->webhooks)
        return NULL;
    struct webhooks *w = calloc(1, sizeof *w);
    ensure(w != NULL && parts->webhooks->retry_count <= WEBHOOK_RETRIES_MAX);
    w->options = *parts->webhooks;
    take_defaults(&w->options);
    w->clock = parts->clock;
    w->metrics = parts->metrics;
    w->arena = arena_create(0);
    w->group_arena = arena_create(0);
    w->by_tenant = map_create();
    pthread_mutex_init(&w->lock, NULL);
    w->decoy = webhook_seal(w, w->arena, webhook_place(w->arena, "decoy", UUID_NONE, STR_NONE),
                            webhook_secret_make(w->arena, WEBHOOK_STANDARD));
    return w;
}

void webhooks_destroy(struct webhooks *w)
{
    if (!w)
        return;
    size_t position = 0;
    void *value;
    while (map_next(w->by_tenant, &position, NULL, &value))
        for (struct webhook_target *target = value, *next; target; target = next) {
            next = target->next;
            free(target);
        }
    map_destroy(w->by_tenant);
    pthread_mutex_destroy(&w->lock);
    arena_destroy(w->group_arena);
    arena_destroy(w->arena);
    free(w);
}

bool webhooks_there(const struct orchestrator *o, struct error *e)
{
    return o->webhooks || error_set(e, REASON_UNAVAILABLE, "this node serves no webhooks");
}

/* ---- targets; the lock is held ---- */

static str tenant_key(const uuid *tenant_id)
{
    return str_of((const char *) tenant_id->bytes, sizeof tenant_id->bytes);
}

static struct webhook_target *first_of(const struct webhooks *w, uuid tenant_id)
{
    return map_find(w->by_tenant, tenant_key(&tenant_id));
}

struct webhook_target *webhook_target_find(const struct webhooks *w, uuid tenant_id, str name)
{
    for (struct webhook_target *target = first_of(w, tenant_id); target; target = target->next)
        if (str_equal(str_from_cstr(target->name), name))
            return target;
    return NULL;
}

static struct webhook_target *add(struct webhooks *w, uuid tenant_id, str name)
{
    struct webhook_target *target = calloc(1, sizeof *target);
    ensure(target != NULL && name.len <= WEBHOOK_NAME_BYTES_MAX);
    target->tenant_id = tenant_id;
    memcpy(target->name, name.ptr, name.len);
    target->made_ns = clock_monotonic_ns(w->clock);
    target->next = first_of(w, tenant_id);
    map_put(w->by_tenant, tenant_key(&tenant_id), target);
    atomic_fetch_add(&w->target_count, 1);
    return target;
}

static void drop(struct webhooks *w, struct webhook_target *target)
{
    struct webhook_target *first = first_of(w, target->tenant_id);
    str key = tenant_key(&target->tenant_id);
    if (first == target && !target->next)
        map_remove(w->by_tenant, key);
    else if (first == target)
        map_put(w->by_tenant, key, target->next);
    for (struct webhook_target *before = first; before; before = before->next)
        if (before->next == target)
            before->next = target->next;
    atomic_fetch_sub(&w->target_count, 1);
    free(target);
}

static void set(struct webhooks *w, uuid tenant_id, const struct record *endpoint, uint32_t events)
{
    str name = record_text(endpoint, WEBHOOK_ENDPOINTS_NAME);
    struct webhook_target *target = webhook_target_find(w, tenant_id, name);
    if (!target)
        target = add(w, tenant_id, name);
    bool was_paused = target->is_paused;
    target->events = events;
    target->is_paused = record_integer(endpoint, WEBHOOK_ENDPOINTS_IS_PAUSED) != 0;
    target->is_seen = true;
    if (was_paused && !target->is_paused)
        target->look_ns = 0;
}

/* ---- targets ---- */

void webhook_target_set(struct webhooks *w, uuid tenant_id, const struct record *endpoint)
{
    OWNED(arena) arena = arena_create(0);
    uint32_t events = webhook_events_read(arena, record_text(endpoint, WEBHOOK_ENDPOINTS_EVENTS));
    pthread_mutex_lock(&w->lock);
    set(w, tenant_id, endpoint, events);
    pthread_mutex_unlock(&w->lock);
}

void webhook_target_forget(struct webhooks *w, uuid tenant_id, str name)
{
    pthread_mutex_lock(&w->lock);
    struct webhook_target *target = webhook_target_find(w, tenant_id, name);
    if (target)
        drop(w, target);
    pthread_mutex_unlock(&w->lock);
}

void webhook_target_wake(struct webhooks *w, uuid tenant_id, str name)
{
    pthread_mutex_lock(&w->lock);
    struct webhook_target *target = webhook_target_find(w, tenant_id, name);
    if (target)
        target->look_ns = 0;
    pthread_mutex_unlock(&w->lock);
}

void webhook_target_done(struct webhooks *w, uuid tenant_id, str name, int32_t count)
{
    pthread_mutex_lock(&w->lock);
    struct webhook_target *target = webhook_target_find(w, tenant_id, name);
    if (target)
        target->pending = target->pending > count ? target->pending - count : 0;
    pthread_mutex_unlock(&w->lock);
}

/* ---- doubt ---- */

void webhooks_doubt(struct webhooks *w)
{
    atomic_store(&w->is_in_doubt, true);
}

bool webhooks_take_doubt(struct webhooks *w)
{
    return atomic_exchange(&w->is_in_doubt, false);
}

bool webhook_commit(struct orchestrator *o, struct context *ctx, const struct batch *batch,
                    struct error *e)
{
    if (store_commit(o->parts.store, ctx, batch, e))
        return true;
    if (e->reason == REASON_OUTCOME_UNKNOWN)
        webhooks_doubt(o->webhooks);
    return false;
}

void webhooks_wake_all(struct webhooks *w)
{
    pthread_mutex_lock(&w->lock);
    size_t position = 0;
    void *value;
    while (map_next(w->by_tenant, &position, NULL, &value))
        for (struct webhook_target *target = value; target; target = target->next)
            target->look_ns = 0;
    pthread_mutex_unlock(&w->lock);
}

/* ---- loading ---- */

/* Begins (false): nobody was seen; ends (true): who was not seen, and is not newer than the load, is gone. */
static void mark_all(struct webhooks *w, bool is_end, int64_t began_ns)
{
    pthread_mutex_lock(&w->lock);
    size_t position = 0;
    void *value;
    struct webhook_target *gone = NULL;
    while (map_next(w->by_tenant, &position, NULL, &value))
        for (struct webhook_target *target = value; target; target = target->next) {
            if (!is_end)
                target->is_seen = false;
            else if (!target->is_seen && target->made_ns < began_ns)
                gone = target;
        }
    if (gone)
        drop(w, gone);
    pthread_mutex_unlock(&w->lock);
    if (gone) /* one at a time: the map must not change while it is walked */
        mark_all(w, is_end, began_ns);
}

bool webhooks_load(struct orchestrator *o, struct context *ctx, struct error *e)
{
    struct webhooks *w = o->webhooks;
    if (!w)
        return true;
    struct query query = query_of(TABLE_WEBHOOK_ENDPOINTS);
    int64_t began_ns = clock_monotonic_ns(w->clock);
    mark_all(w, false, began_ns);
    do {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(o->parts.store, ctx, &query, &page, &tenants, e))
            return error_wrap(e, "webhook endpoints");
        for (size_t i = 0; i < page.count; i++)
            webhook_target_set(w, tenants[i], &page.items[i]);
        query.cursor = page.next_cursor;
    } while (!str_is_empty(query.cursor));
    mark_all(w, true, began_ns);
    w->is_loaded = true;
    w->load_ns = began_ns;
    return true;
}

/* ---- events ---- */

bool webhook_wants(struct orchestrator *o, uuid tenant_id, enum webhook_event event)
{
    struct webhooks *w = o->webhooks;
    bool does = false;
    if (!w || atomic_load_explicit(&w->target_count, memory_order_relaxed) == 0)
        return false;
    pthread_mutex_lock(&w->lock);
    for (const struct webhook_target *t = first_of(w, tenant_id); t && !does; t = t->next)
        does = (t->events >> event & 1) != 0;
    pthread_mutex_unlock(&w->lock);
    return does;
}

enum placing { PLACE_ROW, PLACE_DROPPED, PLACE_NONE };

struct place {
    char name[WEBHOOK_NAME_BYTES_MAX + 1];
    enum placing placing;
};

static enum placing place_in(struct webhook_target *target, int64_t hour, int64_t now_ns)
{
    target->look_ns = 0;
    target->awaited_ns = now_ns + WEBHOOK_AWAITED_MS * INT64_C(1000000);
    if (target->pending < WEBHOOK_PENDING_MAX) {
        target->pending++;
        return PLACE_ROW;
    }
    bool is_told = target->dropping_hour == hour;
    target->dropping_hour = hour;
    return is_told ? PLACE_NONE : PLACE_DROPPED;
}

static size_t find_places(struct webhooks *w, uuid tenant_id, enum webhook_event event,
                          int64_t hour, struct place *places)
{
    size_t count = 0;
    int64_t now_ns = clock_monotonic_ns(w->clock);
    pthread_mutex_lock(&w->lock);
    for (struct webhook_target *t = first_of(w, tenant_id); t; t = t->next) {
        if (!(t->events >> event & 1) || count == WEBHOOK_ENDPOINTS_MAX)
            continue;
        struct place *place = &places[count++];
        memcpy(place->name, t->name, sizeof place->name);
        place->placing = place_in(t, hour, now_ns);
    }
    pthread_mutex_unlock(&w->lock);
    return count;
}

/* One an hour says that events of an endpoint are dropped. */
static void write_dropped(struct batch *batch, uuid tenant_id, str name,
                          const struct webhook_emission *emission)
{
    const int64_t hour_us = INT64_C(3600000000);
    uint8_t salt[10];
    memcpy(salt, tenant_id.bytes + 6, sizeof salt);
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_WEBHOOK_DELIVERIES);
    uuid hour = uuid_make(emission->at_us / hour_us * (hour_us / 1000), salt);
    webhook_delivery_row(
        row, uuid_derive(hour, str_printf(batch->arena, "dropped " STR_FMT, STR_ARG(name))), name,
        str_from_cstr(webhook_event_name(emission->event)), S("{}"), emission->at_us);
    record_set_text(row, WEBHOOK_DELIVERIES_STATUS, S("dropped"));
    record_set_null(row, WEBHOOK_DELIVERIES_NEXT_AT);
    record_set_integer(row, WEBHOOK_DELIVERIES_DONE_AT, emission->at_us);
    record_set_text(row, WEBHOOK_DELIVERIES_LAST_ERROR,
                    str_printf(batch->arena,
                               "%d deliveries wait for this endpoint: events from here on are "
                               "dropped until there is room (said once an hour)",
                               WEBHOOK_PENDING_MAX));
}

void webhook_emit(struct orchestrator *o, struct batch *batch, uuid tenant_id,
                  const struct webhook_emission *emission)
{
    struct webhooks *w = o->webhooks;
    if (!webhook_wants(o, tenant_id, emission->event))
        return;
    if (FAULT("plant.untold-event")) /* a bug put in on purpose: nobody hears of it */
        return;
    struct place *places = ARENA_ARRAY(batch->arena, struct place, WEBHOOK_ENDPOINTS_MAX);
    size_t count =
        find_places(w, tenant_id, emission->event, emission->at_us / INT64_C(3600000000), places);
    str event = str_from_cstr(webhook_event_name(emission->event)),
        body = webhook_body(batch->arena, emission);
    for (size_t i = 0; i < count; i++) {
        str name = str_from_cstr(places[i].name);
        if (places[i].placing != PLACE_ROW) {
            metrics_add(w->metrics, METRIC_WEBHOOK_DELIVERIES, 1, (str[]){S("dropped")}, 1);
            if (places[i].placing == PLACE_DROPPED)
                write_dropped(batch, tenant_id, name, emission);
            continue;
        }
        uuid id = uuid_derive(emission->from,
                              str_printf(batch->arena, "webhook " STR_FMT " " STR_FMT " " STR_FMT,
                                         STR_ARG(name), STR_ARG(event), STR_ARG(emission->what)));
        webhook_delivery_row(batch_add(batch, WRITE_INSERT_NEW, TABLE_WEBHOOK_DELIVERIES), id, name,
                             event, body, emission->at_us);
    }
}
