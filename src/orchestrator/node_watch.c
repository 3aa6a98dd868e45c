#include "orchestrator/node_watch.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "orchestrator/node_news.h"
#include "orchestrator/orchestrator_internal.h"
#include <stdlib.h>

struct sighting {
    int64_t beat, since_ns; /* which count stands there, and since when we have seen it */
};

struct node_watch {
    struct orchestrator *o;
    struct map *sightings; /* of the other nodes, by name */
    int64_t beat, started_us;
    int64_t turned_ns, searched_ns; /* the last turn, the last look for orphans */
    bool has_joined, is_expelled;
    bool has_death; /* since the last look */
    struct node_news *news;
};

struct node_watch *node_watch_create(struct orchestrator *o)
{
    struct node_watch *watch = calloc(1, sizeof *watch);
    ensure(watch != NULL);
    watch->o = o;
    watch->sightings = map_create();
    watch->news = node_news_create(o);
    return watch;
}

static void forget_sightings(struct node_watch *watch)
{
    size_t position = 0;
    void *sighting;
    while (map_next(watch->sightings, &position, NULL, &sighting))
        free(sighting);
    map_destroy(watch->sightings);
    watch->sightings = map_create();
}

void node_watch_destroy(struct node_watch *watch)
{
    if (!watch)
        return;
    forget_sightings(watch);
    map_destroy(watch->sightings);
    node_news_destroy(watch->news);
    free(watch);
}

/* ---- beating ---- */

static bool beat(struct node_watch *watch, struct context *ctx, struct error *e)
{
    const struct orchestrator_parts *parts = &watch->o->parts;
    struct batch batch;
    int64_t now_us = clock_unix_us(parts->clock);
    if (watch->beat == 0)
        watch->started_us = now_us;
    batch_init(&batch, ctx->arena, UUID_NONE);
    batch.fault = "node_beat";
    struct record *row =
        batch_add(&batch, watch->has_joined ? WRITE_UPDATE : WRITE_UPSERT, TABLE_NODES);
    record_set_text(row, NODES_NODE, parts->node);
    record_set_integer(row, NODES_BEAT, ++watch->beat);
    record_set_integer(row, NODES_STARTED_AT, watch->started_us);
    record_set_integer(row, NODES_SEEN_AT, now_us);
    if (store_commit(parts->store, ctx, &batch, e)) {
        watch->has_joined = true;
        return true;
    }
    if (e->code == ERROR_NOT_FOUND && !watch->is_expelled) {
        watch->is_expelled = true;
        LOG_ERROR("orchestrator.nodes", S("this node was taken for dead"), e);
        if (parts->expelled)
            parts->expelled(parts->expelled_owner);
    }
    return false;
}

/* ---- runs that nobody has ---- */

struct search {
    struct node_watch *watch;
    struct map *living; /* names of nodes that have a row */
    size_t taken;
};

/* Our own too: what began by a commit that was given up and applied all the same was never spawned.  To spawn what lives is harmless. */
static bool is_nobodys(const struct search *search, const struct record *session, bool is_waiting)
{
    str owner = record_text(session, SESSIONS_OWNER_NODE);
    if (str_equal(owner, search->watch->o->parts.node))
        return !is_waiting;
    return str_is_empty(owner) || map_find(search->living, owner) == NULL;
}

static never_inline bool take_if_orphan(struct search *search, struct context *ctx, uuid tenant_id,
                                        const struct record *run, bool is_waiting, struct error *e)
{
    struct orchestrator *o = search->watch->o;
    struct record key = record_of(TABLE_SESSIONS), session;
    struct error missing = {0};
    record_set_uuid(&key, SESSIONS_ID, record_uuid(run, AGENT_RUNS_SESSION_ID));
    if (!store_get(o->parts.store, ctx, tenant_id, &key, &session, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    /* The news that a waiting run waits for may have died with the node that heard it. */
    if (!is_nobodys(search, &session, is_waiting) && !(is_waiting && search->watch->has_death))
        return true;
    if (FAULT("plant.lost-run")) /* a bug put in on purpose: nobody goes on with it */
        return true;
    run_spawn_row(o, tenant_id, run);
    search->taken++;
    return true;
}

static bool search_status(struct search *search, struct context *ctx, enum run_status status,
                          struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    query_where_text(&query, AGENT_RUNS_STATUS, str_from_cstr(run_status_name(status)));
    for (;;) {
        struct records page;
        uuid *tenants;
        if (!store_list_any_tenant(search->watch->o->parts.store, ctx, &query, &page, &tenants, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            if (!take_if_orphan(search, ctx, tenants[i], &page.items[i], status == RUN_WAITING, e))
                return false;
        if (str_is_empty(page.next_cursor))
            return true;
        query.cursor = page.next_cursor;
    }
}

static bool take_orphans(struct search *search, struct context *ctx, struct error *e)
{
    bool ok = search_status(search, ctx, RUN_PENDING, e) &&
              search_status(search, ctx, RUN_RUNNING, e) &&
              search_status(search, ctx, RUN_WAITING, e);
    if (ok) {
        search->watch->searched_ns = context_now_ns(ctx);
        search->watch->has_death = false;
    }
    if (search->taken > 0)
        LOG_INFO("orchestrator.nodes", S("runs taken over"),
                 LOG_I64("nexus.run.count", (int64_t) search->taken));
    return ok;
}

/* ---- the others ---- */

/* False when the row was not ours to remove: it lives, or another node was first. */
static bool remove_node(struct node_watch *watch, struct context *ctx, str node, int64_t seen_beat)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, UUID_NONE);
    batch.fault = "node_remove";
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_NODES);
    record_set_text(row, NODES_NODE, node);
    record_set_integer(row, NODES_BEAT, seen_beat + 1);
    batch_where_integer(&batch, NODES_BEAT, seen_beat);
    row = batch_add(&batch, WRITE_DELETE, TABLE_NODES);
    record_set_text(row, NODES_NODE, node);
    if (!store_commit(watch->o->parts.store, ctx, &batch, &e) && e.reason != REASON_OUTCOME_UNKNOWN)
        return false;
    LOG_WARN("orchestrator.nodes", S("a node is late: its runs go on elsewhere"),
             LOG_STR("nexus.node", node));
    return true;
}

/* How long has this count stood still? */
static int64_t still_ns(struct node_watch *watch, str node, int64_t beat_count, int64_t now_ns)
{
    struct sighting *sighting = map_find(watch->sightings, node);
    if (!sighting) {
        sighting = calloc(1, sizeof *sighting);
        ensure(sighting != NULL);
        map_put(watch->sightings, node, sighting);
    } else if (sighting->beat == beat_count) {
        return now_ns - sighting->since_ns;
    }
    *sighting = (struct sighting){beat_count, now_ns};
    return 0;
}

static bool look_around(struct node_watch *watch, struct context *ctx, struct search *search,
                        struct error *e)
{
    struct query query = query_of(TABLE_NODES);
    struct records rows;
    query.limit = NODES_MAX < STORE_PAGE_MAX ? NODES_MAX : STORE_PAGE_MAX;
    if (!store_list(watch->o->parts.store, ctx, UUID_NONE, &query, &rows, e))
        return false;
    int64_t now_ns = context_now_ns(ctx);
    if (map_count(watch->sightings) > NODES_MAX)
        forget_sightings(watch); /* names of the dead gather */
    for (size_t i = 0; i < rows.count; i++) {
        str node = record_text(&rows.items[i], NODES_NODE);
        int64_t seen = record_integer(&rows.items[i], NODES_BEAT);
        bool is_late = !str_equal(node, watch->o->parts.node) &&
                       still_ns(watch, node, seen, now_ns) >= NODE_LATE_MS * 1000000ll;
        if (is_late && remove_node(watch, ctx, node, seen)) {
            free(map_remove(watch->sightings, node));
            watch->has_death = true;
        } else {
            map_put(search->living, node, watch);
        }
    }
    return true;
}

bool node_watch_turn(struct node_watch *watch, struct context *ctx, struct error *e)
{
    int64_t now_ns = context_now_ns(ctx);
    OWNED(map) living = map_create();
    struct search search = {.watch = watch, .living = living};
    if (watch->turned_ns > 0 && now_ns - watch->turned_ns >= NODE_LATE_MS * 500000ll)
        forget_sightings(watch); /* we slept: what stood still meanwhile tells nothing */
    watch->turned_ns = now_ns;
    if (!beat(watch, ctx, e) || !look_around(watch, ctx, &search, e))
        return false;
    map_put(living, watch->o->parts.node, watch);
    bool is_time = now_ns - watch->searched_ns >= NODE_ORPHANS_MS * 1000000ll;
    if (!node_news_turn(watch->news, ctx, e))
        return false;
    return (!watch->has_death && !is_time) || take_orphans(&search, ctx, e);
}

bool node_watch_join(struct node_watch *watch, struct context *ctx, size_t *resumed,
                     struct error *e)
{
    OWNED(map) living = map_create();
    struct search search = {.watch = watch, .living = living};
    watch->turned_ns = context_now_ns(ctx);
    if (!beat(watch, ctx, e) || !look_around(watch, ctx, &search, e))
        return false;
    map_put(living, watch->o->parts.node, watch);
    bool ok = take_orphans(&search, ctx, e);
    *resumed += search.taken;
    return ok;
}
