#include "orchestrator/run/run_below.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/run/run_child.h"

struct descent {
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id;
    bool is_live_only;
    uuid *ids; /* runs to look into, in the order in which they were found */
    size_t count;
    size_t row_count; /* read so far */
    bool is_whole;    /* nothing below was left out */
    cost spent;
};

static void look_into(struct descent *d, const struct record *run)
{
    if (run_row_is_bare(run))
        return;
    if (d->count == RUN_BELOW_PARENTS_MAX)
        d->is_whole = false;
    else
        d->ids[d->count++] = record_uuid(run, AGENT_RUNS_ID);
}

static void descend_from(struct descent *d, struct orchestrator *o, struct context *ctx,
                         const struct principal *principal, const struct record *run)
{
    *d = (struct descent){.o = o,
                          .ctx = ctx,
                          .tenant_id = principal->tenant_id,
                          .ids = ARENA_ARRAY(ctx->arena, uuid, RUN_BELOW_PARENTS_MAX),
                          .is_whole = true};
    look_into(d, run);
}

static void take_child(struct descent *d, const struct record *child)
{
    cost spent;
    if (!d->is_live_only &&
        cost_read_text(d->ctx->arena, record_text(child, AGENT_RUNS_COST), &spent))
        d->spent = cost_add(d->spent, spent);
    look_into(d, child);
}

/* Live ones have an index of their own: of those that have ended none is walked over. */
static struct query *children_query(struct descent *d, uuid run_id)
{
    struct query *query = ARENA_NEW(d->ctx->arena, struct query);
    *query = query_of(TABLE_AGENT_RUNS);
    query_where_uuid(query, AGENT_RUNS_PARENT_RUN_ID, run_id);
    if (d->is_live_only)
        query_where_null(query, AGENT_RUNS_COMPLETED_AT, true);
    query_where_null(query, AGENT_RUNS_REMOVED_AT, true);
    return query;
}

/* Page by page; the arena is then as it was. */
static bool take_children(struct descent *d, uuid run_id, int64_t *count, struct error *e)
{
    struct arena *arena = d->ctx->arena;
    arena_mark before = arena_save(arena);
    char *cursor = arena_alloc(arena, STORE_CURSOR_BYTES_MAX);
    struct query *query = children_query(d, run_id);
    *count = 0;
    do {
        struct records page;
        if (d->row_count >= RUN_BELOW_ROWS_MAX) {
            d->is_whole = false;
            break;
        }
        arena_mark mark = arena_save(arena);
        if (!store_list(d->o->parts.store, d->ctx, d->tenant_id, query, &page, e))
            return false;
        for (size_t i = 0; i < page.count; i++)
            take_child(d, &page.items[i]);
        *count += (int64_t) page.count;
        d->row_count += page.count;
        ensure(page.next_cursor.len <= STORE_CURSOR_BYTES_MAX);
        if (page.next_cursor.len > 0)
            memcpy(cursor, page.next_cursor.ptr, page.next_cursor.len);
        query->cursor = str_of(cursor, page.next_cursor.len);
        arena_rewind(arena, mark);
    } while (!str_is_empty(query->cursor));
    arena_rewind(arena, before);
    return true;
}

bool run_below_read(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct record *run, struct run_below *out, struct error *e)
{
    struct descent d;
    *out = (struct run_below){0};
    descend_from(&d, o, ctx, principal, run);
    if (!cost_read_text(ctx->arena, record_text(run, AGENT_RUNS_COST), &d.spent))
        d.spent = (cost){0};
    for (size_t i = 0; i < d.count; i++) {
        int64_t children;
        if (!take_children(&d, d.ids[i], &children, e))
            return false;
        if (i == 0)
            out->children = children;
    }
    out->spent = d.spent;
    out->is_whole = d.is_whole;
    return true;
}

static bool take_approvals(struct descent *d, uuid run_id, struct run_wait *waits, size_t *count,
                           struct error *e)
{
    struct records page;
    arena_mark mark = arena_save(d->ctx->arena);
    struct query *query = ARENA_NEW(d->ctx->arena, struct query);
    *query = query_of(TABLE_APPROVALS);
    query_where_uuid(query, APPROVALS_RUN_ID, run_id);
    query_where_text(query, APPROVALS_STATUS, S("pending"));
    query->limit = RUN_WAITS_MAX - *count;
    if (!store_list(d->o->parts.store, d->ctx, d->tenant_id, query, &page, e))
        return false;
    for (size_t i = 0; i < page.count; i++)
        waits[(*count)++] = (struct run_wait){record_uuid(&page.items[i], APPROVALS_ID), run_id};
    arena_rewind(d->ctx->arena, mark);
    return true;
}

bool run_waits_read(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct record *run, struct run_wait **out, size_t *count, struct error *e)
{
    struct descent d;
    *out = ARENA_ARRAY(ctx->arena, struct run_wait, RUN_WAITS_MAX);
    *count = 0;
    if (record_has(run, AGENT_RUNS_COMPLETED_AT)) /* one that has ended left nothing live below */
        return true;
    descend_from(&d, o, ctx, principal, run);
    d.is_live_only = true;
    for (size_t i = 0; i < d.count && *count < RUN_WAITS_MAX; i++) {
        int64_t children;
        if (!take_approvals(&d, d.ids[i], *out, count, e))
            return false;
        if (*count < RUN_WAITS_MAX && !take_children(&d, d.ids[i], &children, e))
            return false;
    }
    return true;
}
