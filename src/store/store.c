#include "store/store.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "store/check.h"

void batch_init(struct batch *batch, struct arena *arena, uuid tenant_id)
{
    *batch = (struct batch){.tenant_id = tenant_id, .arena = arena, .fault = ""};
}

struct record *batch_add(struct batch *batch, enum write_op op, enum table table)
{
    if (batch->count == batch->capacity) {
        size_t capacity = batch->capacity ? 2 * batch->capacity : 8;
        batch->writes =
            arena_grow(batch->arena, batch->writes, batch->capacity * sizeof(struct write),
                       capacity * sizeof(struct write));
        batch->capacity = capacity;
    }
    struct write *write = &batch->writes[batch->count++];
    *write = (struct write){.op = op, .where_column = -1, .record.table = table};
    return &write->record;
}

static struct value *batch_where(struct batch *batch, int column)
{
    ensure(batch->count > 0);
    struct write *write = &batch->writes[batch->count - 1];
    ensure(write->op == WRITE_UPDATE && column >= 0);
    ensure(column < table_def(write->record.table)->column_count);
    write->where_column = column;
    write->where_value = (struct value){.text = STR_NONE};
    return &write->where_value;
}

void batch_where_text(struct batch *batch, int column, str value)
{
    batch_where(batch, column)->text = value;
}

void batch_where_integer(struct batch *batch, int column, int64_t value)
{
    batch_where(batch, column)->integer = value;
}

void batch_where_uuid(struct batch *batch, int column, uuid value)
{
    batch_where(batch, column)->id = value;
}

void batch_where_null(struct batch *batch, int column)
{
    batch_where(batch, column)->is_null = true;
}

void batch_where_as(struct batch *batch, int column, const struct record *read)
{
    if (record_has(read, column))
        *batch_where(batch, column) = read->values[column];
    else
        batch_where_null(batch, column);
}

struct query query_of(enum table table)
{
    return (struct query){.table = table, .order_column = -1, .limit = STORE_PAGE_MAX};
}

static struct filter *query_where(struct query *query, int column, enum filter_op op)
{
    ensure((size_t) query->filter_count < ARRAY_COUNT(query->filters));
    ensure(column >= 0 && column < table_def(query->table)->column_count);
    struct filter *filter = &query->filters[query->filter_count++];
    *filter = (struct filter){.column = column, .op = op, .value.text = STR_NONE};
    return filter;
}

void query_where_text(struct query *query, int column, str value)
{
    query_where(query, column, FILTER_EQUAL)->value.text = value;
}

void query_where_uuid(struct query *query, int column, uuid value)
{
    query_where(query, column, FILTER_EQUAL)->value.id = value;
}

void query_where_integer(struct query *query, int column, enum filter_op op, int64_t value)
{
    query_where(query, column, op)->value.integer = value;
}

void query_where_null(struct query *query, int column, bool is_null)
{
    query_where(query, column, is_null ? FILTER_IS_NULL : FILTER_NOT_NULL);
}

bool store_commit(struct store *store, struct context *ctx, const struct batch *batch,
                  struct error *e)
{
    return context_check(ctx, e) && check_batch(batch, e) &&
           store->ops->commit(store, ctx, batch, e);
}

bool store_submit(struct store *store, const struct batch *batch, struct error *e)
{
    return check_batch(batch, e) && store->ops->submit(store, batch, e);
}

bool store_claim(struct store *store, struct context *ctx, uuid tenant_id, uuid session_id,
                 str node, int64_t *epoch, struct error *e)
{
    ensure(!str_is_empty(node));
    return context_check(ctx, e) &&
           store->ops->claim(store, ctx, tenant_id, session_id, node, epoch, e);
}

bool store_get(struct store *store, struct context *ctx, uuid tenant_id, const struct record *key,
               struct record *out, struct error *e)
{
    return context_check(ctx, e) && check_key(key, e) &&
           store->ops->get(store, ctx, tenant_id, key, out, e);
}

bool store_list(struct store *store, struct context *ctx, uuid tenant_id, const struct query *query,
                struct records *out, struct error *e)
{
    return context_check(ctx, e) && check_query(query, e) &&
           store->ops->list(store, ctx, tenant_id, query, out, e);
}

bool store_list_any_tenant(struct store *store, struct context *ctx, const struct query *query,
                           struct records *out, uuid **tenant_ids, struct error *e)
{
    return context_check(ctx, e) && check_query(query, e) &&
           store->ops->list_any_tenant(store, ctx, query, out, tenant_ids, e);
}

bool store_audit_verify(struct store *store, struct context *ctx, uuid tenant_id,
                        struct audit_report *out, struct error *e)
{
    return context_check(ctx, e) && store->ops->audit_verify(store, ctx, tenant_id, out, e);
}

void store_destroy(struct store *store)
{
    if (store)
        store->ops->destroy(store);
}

struct store_load store_load(struct store *store)
{
    return store->ops->load ? store->ops->load(store) : (struct store_load){0};
}
