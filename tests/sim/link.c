#include "link.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "laws.h"
#include "store/check.h"
#include "witness.h"
#include <stdlib.h>

/* A batch on its way, in memory of its own. */
struct packet {
    struct list link;
    struct world *world;
    struct node *node; /* NULL: its sender has given up */
    struct arena *arena;
    struct batch batch;
    struct fence fence;
    int64_t delay_ms;
};

struct link {
    struct store base;
    struct node *node;
    struct world *world;
    struct list submitted; /* of packets, the oldest first */
    bool is_pumping;
};

static struct link *link_of(struct store *store)
{
    return CONTAINER_OF(store, struct link, base);
}

/* ---- packets ---- */

static struct packet *packet_create(struct link *link, const struct batch *batch)
{
    struct packet *packet = calloc(1, sizeof *packet);
    ensure(packet != NULL);
    packet->world = link->world;
    packet->node = link->node;
    packet->arena = arena_create(64 << 20);
    packet->batch = *batch;
    packet->batch.arena = packet->arena;
    packet->batch.writes = ARENA_ARRAY(packet->arena, struct write, batch->count);
    for (size_t i = 0; i < batch->count; i++) {
        struct write *write = &packet->batch.writes[i];
        const struct write *from = &batch->writes[i];
        *write = *from;
        record_copy(packet->arena, &write->record, &from->record);
        if (from->where_column >= 0 &&
            column_is_text(table_def(from->record.table)->columns[from->where_column].type) &&
            !from->where_value.is_null)
            write->where_value.text = str_copy(packet->arena, from->where_value.text);
    }
    if (batch->fence) {
        packet->fence = *batch->fence;
        packet->fence.node = str_copy(packet->arena, batch->fence->node);
        packet->batch.fence = &packet->fence;
    }
    return packet;
}

static void packet_destroy(struct packet *packet)
{
    arena_destroy(packet->arena);
    free(packet);
}

static bool apply(struct world *world, const struct node *node, struct context *ctx,
                  const struct batch *batch, struct error *e)
{
    bool ok = world->store->ops->commit(world->store, ctx, batch, e);
    if (ok)
        witness_batch(world, node, batch);
    else if (world->is_verbose && e->reason != REASON_CONFLICT)
        world_tell(world, "%s: not stored: %s", node->name, e->message);
    return ok;
}

/* ---- the way there and back ---- */

static void wait_ms(struct context *ctx, int64_t ms)
{
    struct context patient;
    struct error ignored = {0};
    context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    (void) !context_sleep_ms(&patient, ms, &ignored);
    context_deinit(&patient);
}

static int64_t cut_ms(const struct link *link)
{
    int64_t left_ns = link->node->cut_until - world_now_ns(link->world);
    return left_ns > 0 ? left_ns / 1000000 + 1 : 0;
}

/* Where what was given up is applied in the end, or refused. */
static void late_main(void *argument)
{
    struct packet *packet = argument;
    struct world *world = packet->world;
    struct context ctx;
    struct error e = {0};
    context_init(&ctx, world->outside, packet->arena, DEADLINE_NONE);
    (void) !context_sleep_ms(&ctx, packet->delay_ms, &e);
    bool ok = apply(world, packet->node, &ctx, &packet->batch, &e);
    if (ok)
        cover(world, COVER_LINK_LATE);
    world_tell(world, "a late request of node%c is %s", 'A' + packet->node->index,
               ok ? "applied" : "refused");
    context_deinit(&ctx);
    packet_destroy(packet);
}

static void send_late(struct link *link, const struct batch *batch)
{
    struct packet *packet = packet_create(link, batch);
    struct error e = {0};
    packet->batch.notice = (struct batch_notice){0};
    packet->batch.fault = "";
    packet->delay_ms = world_between(link->world, 0, 20000);
    bool is_started = coroutine_start(link->world->outside, "late", late_main, packet, &e);
    ensure(is_started);
}

static bool lose(struct link *link, struct error *e)
{
    link->world->has_lost_acknowledgement = true;
    cover(link->world, COVER_LINK_LOST);
    return error_set(e, REASON_OUTCOME_UNKNOWN, "the acknowledgement of a commit was lost");
}

/* False: it did not arrive, or nobody knows. */
static bool go_there(struct link *link, struct context *ctx, const struct batch *batch,
                     struct error *e)
{
    struct world *world = link->world;
    wait_ms(ctx, world_between(world, 0, 20));
    if (world_chance(world, 8)) {
        cover(world, COVER_LINK_REFUSED);
        return error_set(e, REASON_STORE, "the commit failed");
    }
    if (world_chance(world, 4))
        return lose(link, e);
    int64_t ms = cut_ms(link);
    if (ms == 0)
        return true;
    int64_t fate = world_between(world, 0, 99);
    if (fate < 30) {
        wait_ms(ctx, world_between(world, 10, 200));
        return error_set(e, REASON_STORE, "the store cannot be reached");
    }
    if (fate < 70) {
        wait_ms(ctx, ms);
        return true;
    }
    wait_ms(ctx, world_between(world, 1000, 4000));
    if (batch && fate < 80)
        send_late(link, batch);
    return lose(link, e);
}

static bool come_back(struct link *link, struct context *ctx, struct error *e)
{
    struct world *world = link->world;
    if (world_chance(world, 500))
        wait_ms(ctx, world_between(world, 0, 10));
    if (cut_ms(link) == 0 && !world_chance(world, 4))
        return true;
    wait_ms(ctx, world_between(world, 200, 3000));
    return lose(link, e);
}

/* ---- what nobody waits for ---- */

static void apply_submitted(struct link *link, struct context *ctx)
{
    for (;;) {
        struct list *first = list_pop_front(&link->submitted);
        struct error e = {0};
        if (!first)
            return;
        struct packet *packet = LIST_ITEM(first, struct packet, link);
        bool is_lost = world_chance(link->world, 3);
        bool ok = !is_lost || error_set(&e, REASON_STORE, "a submitted batch was lost");
        ok = ok && apply(link->world, link->node, ctx, &packet->batch, &e);
        if (!ok && packet->batch.notice.failed)
            packet->batch.notice.failed(&packet->batch.notice, &e);
        packet_destroy(packet);
    }
}

static void pump_main(void *argument)
{
    struct link *link = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, link->node->lanes[0].scheduler, arena, DEADLINE_NONE);
    wait_ms(&ctx, world_between(link->world, 0, 8));
    for (int64_t ms; (ms = cut_ms(link)) > 0;)
        wait_ms(&ctx, ms);
    link->is_pumping = false;
    apply_submitted(link, &ctx);
    context_deinit(&ctx);
}

static bool submit(struct store *base, const struct batch *batch, struct error *e)
{
    struct link *link = link_of(base);
    struct packet *packet = packet_create(link, batch);
    (void) e;
    list_push_back(&link->submitted, &packet->link);
    if (link->is_pumping)
        return true;
    struct error failure = {0};
    link->is_pumping = true;
    bool is_started =
        coroutine_start(link->node->lanes[0].scheduler, "pump", pump_main, link, &failure);
    ensure(is_started);
    return true;
}

/* ---- the contract ---- */

static bool commit(struct store *base, struct context *ctx, const struct batch *batch,
                   struct error *e)
{
    struct link *link = link_of(base);
    if (!go_there(link, ctx, batch, e))
        return false;
    apply_submitted(link, ctx);
    return apply(link->world, link->node, ctx, batch, e) && come_back(link, ctx, e);
}

static bool claim(struct store *base, struct context *ctx, uuid tenant_id, uuid session_id,
                  str node, int64_t *epoch, struct error *e)
{
    struct link *link = link_of(base);
    struct store *store = link->world->store;
    if (!go_there(link, ctx, NULL, e) ||
        !store->ops->claim(store, ctx, tenant_id, session_id, node, epoch, e))
        return false;
    witness_claim(link->world, link->node, session_id, *epoch);
    return come_back(link, ctx, e);
}

static bool read_gets_through(struct link *link, struct context *ctx, struct error *e)
{
    struct world *world = link->world;
    if (world_chance(world, 200))
        wait_ms(ctx, world_between(world, 0, 5));
    if (world_chance(world, 1))
        return error_set(e, REASON_STORE, "the read failed");
    int64_t ms = cut_ms(link);
    if (ms == 0)
        return true;
    if (world_chance(world, 500)) {
        wait_ms(ctx, world_between(world, 10, 1000));
        return error_set(e, REASON_STORE, "the store cannot be reached");
    }
    wait_ms(ctx, ms);
    return true;
}

static bool get(struct store *base, struct context *ctx, uuid tenant_id, const struct record *key,
                struct record *out, struct error *e)
{
    struct link *link = link_of(base);
    struct store *store = link->world->store;
    return read_gets_through(link, ctx, e) && store->ops->get(store, ctx, tenant_id, key, out, e);
}

static bool list(struct store *base, struct context *ctx, uuid tenant_id, const struct query *query,
                 struct records *out, struct error *e)
{
    struct link *link = link_of(base);
    struct store *store = link->world->store;
    return read_gets_through(link, ctx, e) &&
           store->ops->list(store, ctx, tenant_id, query, out, e);
}

static bool read_any(struct link *link, struct context *ctx, const struct query *query,
                     struct records *out, uuid **tenant_ids, struct error *e)
{
    struct store *store = link->world->store;
    int64_t asked_us = clock_unix_us(link->world->clock);
    if (!store->ops->list_any_tenant(store, ctx, query, out, tenant_ids, e))
        return false;
    if (query->table == TABLE_WEBHOOK_ENDPOINTS)
        law_webhook_listed(link->node, asked_us);
    return true;
}

static bool list_any_tenant(struct store *base, struct context *ctx, const struct query *query,
                            struct records *out, uuid **tenant_ids, struct error *e)
{
    struct link *link = link_of(base);
    return read_gets_through(link, ctx, e) && read_any(link, ctx, query, out, tenant_ids, e);
}

static bool audit_verify(struct store *base, struct context *ctx, uuid tenant_id,
                         struct audit_report *out, struct error *e)
{
    struct store *store = link_of(base)->world->store;
    return store->ops->audit_verify(store, ctx, tenant_id, out, e);
}

static void destroy(struct store *base)
{
    free(link_of(base));
}

static struct store_load load(struct store *base)
{
    return store_load(link_of(base)->world->store);
}

static const struct store_ops network_ops = {
    .name = "network",
    .commit = commit,
    .submit = submit,
    .claim = claim,
    .get = get,
    .list = list,
    .list_any_tenant = list_any_tenant,
    .audit_verify = audit_verify,
    .destroy = destroy,
    .load = load,
};

/* ---- a store on the node's own disk ---- */

/* The disk has it: whoever asked may hear of it much later, when others have built on it. */
struct asked {
    struct link *link;
    const struct batch *batch;
};

static void local_committed(const struct batch_notice *notice)
{
    const struct asked *asked = notice->owner;
    const struct batch_notice *own = &asked->batch->notice;
    witness_batch(asked->link->world, asked->link->node, asked->batch);
    witness_promise(asked->link->world, asked->batch);
    if (own->run)
        own->run(own);
}

static bool local_commit(struct store *base, struct context *ctx, const struct batch *batch,
                         struct error *e)
{
    struct link *link = link_of(base);
    struct world *world = link->world;
    struct asked asked = {link, batch};
    struct batch watched = *batch;
    watched.notice = (struct batch_notice){.run = local_committed, .owner = &asked};
    witness_ask(world, batch);
    if (world->store->ops->commit(world->store, ctx, &watched, e))
        return true;
    if (e->reason != REASON_CONFLICT)
        world_tell(world, "%s: not stored: %s", link->node->name, e->message);
    world->has_lost_acknowledgement = true; /* of a broken disk nobody knows either */
    return false;
}

/* Stands between the store and whoever submitted, to see when it is stored. */
static void local_stored(const struct batch_notice *notice)
{
    struct packet *packet = notice->owner;
    const struct batch_notice *own = &packet->batch.notice;
    witness_batch(packet->world, packet->node, &packet->batch);
    witness_promise(packet->world, &packet->batch);
    if (own->run)
        own->run(own);
    packet_destroy(packet);
}

static void local_failed(const struct batch_notice *notice, const struct error *why)
{
    struct packet *packet = notice->owner;
    const struct batch_notice *own = &packet->batch.notice;
    if (own->failed)
        own->failed(own, why);
    packet_destroy(packet);
}

static bool local_submit(struct store *base, const struct batch *batch, struct error *e)
{
    struct link *link = link_of(base);
    struct store *store = link->world->store;
    struct packet *packet = packet_create(link, batch);
    struct batch watched = *batch;
    watched.notice =
        (struct batch_notice){.run = local_stored, .failed = local_failed, .owner = packet};
    witness_ask(link->world, batch);
    if (store->ops->submit(store, &watched, e))
        return true;
    packet_destroy(packet);
    return false;
}

static bool local_claim(struct store *base, struct context *ctx, uuid tenant_id, uuid session_id,
                        str node, int64_t *epoch, struct error *e)
{
    struct link *link = link_of(base);
    struct store *store = link->world->store;
    if (!store->ops->claim(store, ctx, tenant_id, session_id, node, epoch, e))
        return false;
    witness_claim(link->world, link->node, session_id, *epoch);
    return true;
}

static bool local_get(struct store *base, struct context *ctx, uuid tenant_id,
                      const struct record *key, struct record *out, struct error *e)
{
    struct store *store = link_of(base)->world->store;
    return store->ops->get(store, ctx, tenant_id, key, out, e);
}

static bool local_list(struct store *base, struct context *ctx, uuid tenant_id,
                       const struct query *query, struct records *out, struct error *e)
{
    struct store *store = link_of(base)->world->store;
    return store->ops->list(store, ctx, tenant_id, query, out, e);
}

static bool local_list_any_tenant(struct store *base, struct context *ctx,
                                  const struct query *query, struct records *out, uuid **tenant_ids,
                                  struct error *e)
{
    return read_any(link_of(base), ctx, query, out, tenant_ids, e);
}

static const struct store_ops local_ops = {
    .name = "local",
    .commit = local_commit,
    .submit = local_submit,
    .claim = local_claim,
    .get = local_get,
    .list = local_list,
    .list_any_tenant = local_list_any_tenant,
    .audit_verify = audit_verify,
    .destroy = destroy,
    .load = load,
};

struct link *link_create(struct node *node)
{
    struct link *link = calloc(1, sizeof *link);
    ensure(link != NULL);
    link->base.ops = node->world->database ? &local_ops : &network_ops;
    link->node = node;
    link->world = node->world;
    list_init(&link->submitted);
    return link;
}

struct store *link_store(struct link *link)
{
    return &link->base;
}
