/*
 * What must hold of webhooks: the end of a run is told to every endpoint that wants it, in its own commit; what is sent stands in a row of
 * the receiver's tenant, of something that has happened; it ends as delivered, which its receiver knows of, or as dead after all attempts;
 * no wait is longer than it may be.
 */
#include "acts.h"
#include "base/arena.h"
#include "laws_internal.h"
#include "store/check.h"

struct law_delivery {
    int hook;
    bool is_over;
    bool is_taken; /* its receiver said so, whoever heard it */
    bool is_gone;  /* its receiver wants no more */
};

static struct law_delivery *delivery_of(struct world *world, uuid id)
{
    struct laws *laws = laws_of(world);
    struct law_delivery *delivery = map_find(laws->deliveries, law_key(&id));
    if (!delivery) {
        delivery = ARENA_NEW(world->arena, struct law_delivery);
        *delivery = (struct law_delivery){.hook = -1};
        map_put(laws->deliveries, law_key(&id), delivery);
    }
    return delivery;
}

static int hook_of(const struct world *world, uuid tenant_id, str name)
{
    for (int i = 0; i < HOOKS; i++)
        if (uuid_equal(hook_tenant(world, i), tenant_id) &&
            str_equal(str_from_cstr(hook_name(i)), name))
            return i;
    return -1;
}

/* ---- rows ---- */

static void check_wait(struct world *world, const struct node *node, const struct record *row)
{
    int64_t attempt = record_integer(row, WEBHOOK_DELIVERIES_ATTEMPTS);
    if (attempt < 1 || attempt > HOOK_RETRIES) {
        if (attempt != 0) /* it begins anew */
            world_violation(world, "a delivery waits after %lld attempts", (long long) attempt);
        return;
    }
    cover(world, COVER_HOOK_RETRIED);
    int64_t most_ms = hook_wait_ms((int) attempt) * 11 / 10 + 1;
    if (most_ms < HOOK_RETRY_AFTER_MS)
        most_ms = HOOK_RETRY_AFTER_MS;
    int64_t wait_us = record_integer(row, WEBHOOK_DELIVERIES_NEXT_AT) -
                      (clock_unix_us(world->clock) + node->clock.wall_us);
    if (!world->has_clock_jumps && wait_us > most_ms * 1000)
        world_violation(world, "a delivery waits %lld ms after attempt %lld, at most %lld are said",
                        (long long) (wait_us / 1000), (long long) attempt, (long long) most_ms);
}

static void delivery_status(struct world *world, const struct node *node,
                            struct law_delivery *delivery, const struct record *row)
{
    str status = record_text(row, WEBHOOK_DELIVERIES_STATUS);
    delivery->is_over = !str_equal(status, S("pending"));
    if (laws_of(world)->is_reading)
        return;
    if (str_equal(status, S("delivered"))) {
        cover(world, COVER_HOOK_DELIVERED);
        if (!delivery->is_taken)
            world_violation(world, "a delivery is said to be delivered, and its receiver has not "
                                   "taken it");
    } else if (str_equal(status, S("dead"))) {
        cover(world, delivery->is_gone ? COVER_HOOK_GONE : COVER_HOOK_DEAD);
        if (!delivery->is_gone && record_integer(row, WEBHOOK_DELIVERIES_ATTEMPTS) <= HOOK_RETRIES)
            world_violation(world, "a delivery is given up after %lld attempts",
                            (long long) record_integer(row, WEBHOOK_DELIVERIES_ATTEMPTS));
    } else if (node) {
        check_wait(world, node, row);
        delivery->is_gone = false;
    }
}

static void delivery_write(struct world *world, const struct node *node, uuid tenant_id,
                           const struct write *write)
{
    const struct record *row = &write->record;
    struct law_delivery *delivery = delivery_of(world, record_uuid(row, WEBHOOK_DELIVERIES_ID));
    if (write->op == WRITE_DELETE) {
        delivery->is_over = true;
        return;
    }
    if (write_is_insert(write->op)) {
        delivery->hook = hook_of(world, tenant_id, record_text(row, WEBHOOK_DELIVERIES_ENDPOINT));
        if (delivery->hook < 0)
            world_violation(world, "a delivery is for an endpoint that its tenant has not");
        if (laws_of(world)->is_reading)
            delivery_status(world, NULL, delivery, row);
    } else if (record_has(row, WEBHOOK_DELIVERIES_STATUS)) {
        delivery_status(world, node, delivery, row);
    }
}

/* ---- what happens is told ---- */

static bool is_told(const struct world *world, const struct batch *batch, int hook, str run_id)
{
    for (size_t i = 0; i < batch->count; i++) {
        const struct record *row = &batch->writes[i].record;
        if (row->table == TABLE_WEBHOOK_DELIVERIES && write_is_insert(batch->writes[i].op) &&
            hook_of(world, batch->tenant_id, record_text(row, WEBHOOK_DELIVERIES_ENDPOINT)) ==
                hook &&
            str_find(record_text(row, WEBHOOK_DELIVERIES_BODY), run_id) != STR_NOT_FOUND)
            return true;
    }
    return false;
}

/* Who made the batch knew of the endpoint when this happened. */
static bool is_known(const struct world *world, const struct node *node, int hook, int64_t at_us)
{
    int64_t since_us = node->knows_hook_us[hook];
    return since_us > 0 && at_us - node->clock.wall_us > since_us && !world->has_clock_jumps;
}

static void end_of_run(struct world *world, const struct node *node, const struct batch *batch,
                       const struct record *event)
{
    enum event_type type;
    char id[UUID_TEXT_BYTES + 1];
    uuid run_id = record_uuid(event, RUN_EVENTS_RUN_ID);
    const struct law_run *run = law_run_find(world, run_id);
    if (!event_type_parse(record_text(event, RUN_EVENTS_TYPE), &type) || !event_is_final(type) ||
        !run || run->depth > 0 || !uuid_is_none(run->parent_id))
        return;
    uuid_format(run_id, id);
    for (int i = 0; i < HOOKS; i++) {
        bool is_wanted = i == 0 || (i == 1 && type != EVENT_RUN_CANCELLED);
        if (is_wanted && is_known(world, node, i, record_integer(event, RUN_EVENTS_AT)) &&
            !is_told(world, batch, i, str_of(id, UUID_TEXT_BYTES)))
            world_violation(world, "the end of run %s (%s) is not told to the endpoint %s", id,
                            event_type_name(type), hook_name(i));
    }
}

void law_webhook_batch(struct world *world, const struct node *node, const struct batch *batch)
{
    for (size_t i = 0; i < batch->count && world->stage->rules.acts[ACT_WEBHOOKS]; i++) {
        const struct write *write = &batch->writes[i];
        if (write->record.table == TABLE_WEBHOOK_DELIVERIES)
            delivery_write(world, node, batch->tenant_id, write);
        else if (write->record.table == TABLE_WEBHOOK_ENDPOINTS && write_is_insert(write->op)) {
            int hook = hook_of(world, batch->tenant_id,
                               record_text(&write->record, WEBHOOK_ENDPOINTS_NAME));
            if (hook >= 0)
                world->stage->hook_made_us[hook] = clock_unix_us(world->clock);
        } else if (write->record.table == TABLE_RUN_EVENTS && write_is_insert(write->op) && node)
            end_of_run(world, node, batch, &write->record);
    }
}

void law_webhook_listed(struct node *node, int64_t asked_us)
{
    for (int i = 0; i < HOOKS; i++) {
        int64_t made_us = node->world->stage->hook_made_us[i];
        if (made_us > 0 && made_us < asked_us && node->knows_hook_us[i] == 0)
            node->knows_hook_us[i] = clock_unix_us(node->world->clock);
    }
}

void law_webhook_read_again(struct world *world)
{
    OWNED(arena) arena = arena_create(0);
    struct context ctx = {.arena = arena, .deadline_ns = DEADLINE_NONE};
    uuid tenants[] = {hook_tenant(world, 0), hook_tenant(world, HOOKS - 1)};
    for (size_t t = 0; t < ARRAY_COUNT(tenants) && world->stage->rules.acts[ACT_WEBHOOKS]; t++) {
        struct query query = query_of(TABLE_WEBHOOK_DELIVERIES);
        struct records page;
        struct error e = {0};
        do {
            if (!world->store->ops->list(world->store, &ctx, tenants[t], &query, &page, &e)) {
                world_violation(world, "the store cannot list deliveries: %s", e.message);
                return;
            }
            for (size_t i = 0; i < page.count; i++)
                delivery_write(world, NULL, tenants[t],
                               &(struct write){.op = WRITE_INSERT, .record = page.items[i]});
            query.cursor = page.next_cursor;
        } while (!str_is_empty(query.cursor));
    }
}

/* ---- what its receiver hears ---- */

static void check_cause(struct world *world, struct arena *arena, str body)
{
    const struct json *tree;
    struct error e = {0};
    uuid run_id;
    if (!json_parse(arena, body, (struct json_limits){0}, &tree, &e)) {
        world_violation(world, "a delivery cannot be read: %s", e.message);
        return;
    }
    str type = json_str_or(tree, S("type"), STR_NONE);
    if (!str_starts_with(type, S("run.")) ||
        !uuid_parse(json_str_or(json_get(tree, S("data")), S("run_id"), STR_NONE), &run_id))
        return;
    const struct law_run *run = law_run_find(world, run_id);
    if (run && (!run->is_final || !str_equal(str_from_cstr(event_type_name(run->end)), type)))
        world_violation(world, "a receiver is told " STR_FMT ", which has not happened",
                        STR_ARG(type));
}

void law_webhook_heard(struct world *world, struct context *ctx, int hook,
                       const struct webhook_signed *request, int status)
{
    struct record key = record_of(TABLE_WEBHOOK_DELIVERIES),
                  *row = ARENA_NEW(ctx->arena, struct record);
    struct error e = {0};
    uuid id = UUID_NONE;
    (void) !uuid_parse(request->id, &id);
    record_set_uuid(&key, WEBHOOK_DELIVERIES_ID, id);
    bool is_there =
        world->store->ops->get(world->store, ctx, hook_tenant(world, hook), &key, row, &e);
    if (is_there ? !str_equal(record_text(row, WEBHOOK_DELIVERIES_ENDPOINT),
                              str_from_cstr(hook_name(hook)))
                 : e.code == ERROR_NOT_FOUND)
        world_violation(world, "%s hears of what is not its own, or was never stored",
                        hook_name(hook));
    check_cause(world, ctx->arena, request->body);
    struct law_delivery *delivery = delivery_of(world, id);
    if (delivery->is_taken)
        cover(world, COVER_HOOK_TWICE);
    if (hook == HOOKS - 1)
        cover(world, COVER_HOOK_OTHERS);
    delivery->is_taken = delivery->is_taken || (status >= 200 && status < 300);
    delivery->is_gone = delivery->is_gone || status == 410;
}

/* ---- at rest ---- */

bool law_webhooks_wait(const struct world *world)
{
    size_t position = 0;
    void *value;
    while (map_next(world->laws->deliveries, &position, NULL, &value))
        if (!((const struct law_delivery *) value)->is_over)
            return true;
    return false;
}

void law_webhooks_rest(struct world *world)
{
    if (law_webhooks_wait(world))
        world_violation(world, "a delivery is neither delivered nor dead at rest");
}
