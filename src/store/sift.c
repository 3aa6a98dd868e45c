#include "store/sift.h"

#include "base/arena.h"
#include "base/limits.h"
#include "store/cursor.h"

/* Takes what is wanted of one page.  The cursor stands behind the last row that was looked at. */
static bool take(uuid tenant_id, const struct query *query, const struct records *rows,
                 sift_fn *is_wanted, const void *owner, size_t limit, struct arena *arena,
                 struct records *out, struct error *e)
{
    out->next_cursor = rows->next_cursor;
    for (size_t i = 0; i < rows->count; i++) {
        if (!is_wanted(owner, &rows->items[i]))
            continue;
        out->items[out->count++] = rows->items[i];
        if (out->count == limit)
            return i + 1 == rows->count || cursor_print(query, false, tenant_id, &rows->items[i],
                                                        arena, &out->next_cursor, e);
    }
    return true;
}

bool store_sift(struct store *store, struct context *ctx, uuid tenant_id, const struct query *query,
                sift_fn *is_wanted, const void *owner, struct records *out, struct error *e)
{
    struct query *page = ARENA_NEW(ctx->arena, struct query);
    struct records found = {.items = ARENA_ARRAY(ctx->arena, struct record, query->limit)}, rows;
    *page = *query;
    page->limit = STORE_PAGE_MAX;
    for (size_t read = 0; read < STORE_SIFT_ROWS_MAX; read += STORE_PAGE_MAX) {
        if (!store_list(store, ctx, tenant_id, page, &rows, e) ||
            !take(tenant_id, page, &rows, is_wanted, owner, query->limit, ctx->arena, &found, e))
            return false;
        if (found.count == query->limit || str_is_empty(found.next_cursor))
            break;
        page->cursor = found.next_cursor;
    }
    *out = found;
    return true;
}
