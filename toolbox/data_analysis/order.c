/*
 * Steps that choose and order whole rows: sort, limit, select, distinct.
 *
 * Sorting keeps rows, so it is bounded.  When a limit follows at once only the best rows are kept: the
 * buffer takes twice as many as asked for, is sorted and cut when full, and what remains is copied to a
 * fresh pool, so that any number of rows can pass through.
 */
#include <stdlib.h>
#include <string.h>

#include "stage.h"

enum { TOP_BUFFER_MIN = 1024 };

/* ---- sort --------------------------------------------------------------------------------------- */

struct sort_key {
    size_t column;
    bool is_descending;
};

struct sort {
    struct stage base;
    const struct schema *in;
    struct sort_key *keys;
    size_t key_count;
    size_t first_rows; /* 0: all */
    struct cell **rows;
    size_t row_count, row_capacity;
    struct pool pool;
};

/* Nulls come last in either direction. */
static int compare_rows(const struct sort *sort, const struct cell *a, const struct cell *b)
{
    for (size_t i = 0; i < sort->key_count; i++) {
        const struct cell *x = &a[sort->keys[i].column], *y = &b[sort->keys[i].column];
        int order = cell_compare(x, y);
        bool has_null = x->type == CELL_NULL || y->type == CELL_NULL;
        if (order != 0)
            return sort->keys[i].is_descending && !has_null ? -order : order;
    }
    return 0;
}

/* Merge sort, bottom up: stable, and no worst case that burns the fuel. */
static void sort_rows(struct sort *sort)
{
    size_t count = sort->row_count;
    struct cell **from = sort->rows, **to = tool_alloc(count * sizeof *to);
    struct cell **spare = to;
    for (size_t width = 1; width < count; width *= 2) {
        for (size_t low = 0; low < count; low += 2 * width) {
            size_t middle = low + width < count ? low + width : count;
            size_t high = low + 2 * width < count ? low + 2 * width : count;
            size_t i = low, j = middle;
            for (size_t k = low; k < high; k++)
                to[k] = i < middle && (j == high || compare_rows(sort, from[i], from[j]) <= 0)
                            ? from[i++]
                            : from[j++];
        }
        struct cell **swapped = from;
        from = to;
        to = swapped;
    }
    if (from != sort->rows)
        memcpy(sort->rows, from, count * sizeof *from);
    tool_free(spare);
}

static bool keep_row(struct sort *sort, const struct cell *cells, struct cell **out)
{
    size_t count = sort->in->count;
    struct cell *kept = pool_alloc(&sort->pool, count * sizeof *kept);
    if (kept == NULL)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!cell_keep(&sort->pool, &cells[i], &kept[i]))
            return false;
    *out = kept;
    return true;
}

/* Sorts, keeps the first rows and moves them to a fresh pool. */
static bool cut_rows(struct sort *sort)
{
    struct pool old = sort->pool;
    sort_rows(sort);
    if (sort->row_count > sort->first_rows)
        sort->row_count = sort->first_rows;
    pool_init(&sort->pool, POOL_BYTES_MAX - old.used);
    bool ok = true;
    for (size_t i = 0; ok && i < sort->row_count; i++)
        ok = keep_row(sort, sort->rows[i], &sort->rows[i]);
    pool_deinit(&old);
    sort->pool.max = POOL_BYTES_MAX;
    return ok;
}

/* Room for one more row: cuts what can be cut, else the array grows. */
static bool make_room(struct sort *sort)
{
    if (sort->first_rows > 0 && sort->row_capacity > 0)
        return cut_rows(sort);
    size_t wanted = sort->first_rows > 0 ? sort->first_rows * 2 : sort->row_capacity * 2;
    sort->row_capacity = wanted < TOP_BUFFER_MIN ? TOP_BUFFER_MIN : wanted;
    sort->rows = tool_realloc(sort->rows, sort->row_capacity * sizeof *sort->rows);
    return true;
}

/* A row that no sort can bring among the first: with one wanted, one comparison tells. */
static bool is_beaten(const struct sort *sort, const struct cell *cells)
{
    return sort->first_rows == 1 && sort->row_count >= 1 &&
           compare_rows(sort, sort->rows[0], cells) <= 0;
}

static enum flow sort_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    struct sort *sort = (struct sort *) stage;
    for (size_t i = 0; i < sort->in->count; i++)
        row_cell(row, i);
    if (is_beaten(sort, row->cells))
        return FLOW_MORE;
    if (sort->first_rows == 0 && sort->row_count >= SORT_ROWS_MAX) {
        tool_fail(
            e, "limit",
            "sort holds at most %d rows; filter or aggregate first, or put a limit of at most %d "
            "right after the sort",
            SORT_ROWS_MAX, TOP_ROWS_MAX);
        return FLOW_FAIL;
    }
    if (sort->row_count == sort->row_capacity && !make_room(sort))
        return fail_pool(e);
    if (!keep_row(sort, row->cells, &sort->rows[sort->row_count]))
        return fail_pool(e);
    sort->row_count++;
    return FLOW_MORE;
}

static enum flow sort_finish(struct stage *stage, struct tool_error *e)
{
    struct sort *sort = (struct sort *) stage;
    sort_rows(sort);
    size_t count = sort->row_count;
    if (sort->first_rows > 0 && count > sort->first_rows)
        count = sort->first_rows;
    for (size_t i = 0; i < count; i++) {
        struct row row = {.schema = &stage->schema, .cells = sort->rows[i], .line = i + 1};
        enum flow flow = stage_emit(stage, &row, e);
        if (flow != FLOW_MORE)
            return flow;
    }
    return FLOW_MORE;
}

static bool read_key(const struct schema *in, yyjson_val *from, struct sort_key *out,
                     struct tool_error *e)
{
    static const char *const orders[] = {"asc", "desc", "ascending", "descending", NULL};
    struct text column, order = TEXT("asc");
    if (yyjson_is_str(from))
        column = (struct text){yyjson_get_str(from), yyjson_get_len(from)};
    else if (!yyjson_is_obj(from))
        return tool_fail(e, "invalid_input", "sort: each key is an object {column, order}");
    else if (!tool_text(from, "column", &column, e) ||
             !tool_text_or(from, "order", order, &order, e))
        return false;
    int found = tool_choice(order, orders);
    if (found < 0)
        return tool_fail(e, "invalid_input", "sort: \"order\" is asc or desc");
    out->is_descending = found % 2 == 1;
    return schema_find(in, column, &out->column, e);
}

struct stage *sort_create(struct query *query, const struct schema *in, yyjson_val *step,
                          uint64_t first_rows, struct tool_error *e)
{
    struct sort *sort = stage_alloc(query, sizeof *sort);
    sort->base.push = sort_push;
    sort->base.finish = sort_finish;
    sort->base.schema = *in;
    sort->in = in;
    sort->first_rows = (size_t) first_rows;
    pool_init(&sort->pool, POOL_BYTES_MAX);
    bool is_list = yyjson_is_arr(step);
    sort->key_count = is_list ? yyjson_arr_size(step) : 1;
    if (sort->key_count == 0 || sort->key_count > CONDITIONS_MAX) {
        tool_fail(e, "invalid_input", "sort must list 1 to %d keys {column, order}",
                  CONDITIONS_MAX);
        return NULL;
    }
    sort->keys = tool_alloc(sort->key_count * sizeof *sort->keys);
    for (size_t i = 0; i < sort->key_count; i++)
        if (!read_key(in, is_list ? yyjson_arr_get(step, i) : step, &sort->keys[i], e))
            return NULL;
    return &sort->base;
}

/* ---- limit -------------------------------------------------------------------------------------- */

struct limit {
    struct stage base;
    uint64_t left, skip;
};

static enum flow limit_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    struct limit *limit = (struct limit *) stage;
    if (limit->skip > 0) {
        limit->skip--;
        return FLOW_MORE;
    }
    if (limit->left == 0)
        return FLOW_STOP;
    limit->left--;
    enum flow flow = stage_emit(stage, row, e);
    return flow == FLOW_MORE && limit->left == 0 ? FLOW_STOP : flow;
}

struct stage *limit_create(struct query *query, const struct schema *in, uint64_t rows,
                           uint64_t skip)
{
    struct limit *limit = stage_alloc(query, sizeof *limit);
    limit->base.push = limit_push;
    limit->base.schema = *in;
    limit->left = rows;
    limit->skip = skip;
    return &limit->base;
}

/* ---- select ------------------------------------------------------------------------------------- */

struct select {
    struct stage base;
    size_t *columns;
    struct cell *cells;
};

static enum flow select_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    struct select *select = (struct select *) stage;
    for (size_t i = 0; i < stage->schema.count; i++)
        select->cells[i] = row->cells[select->columns[i]];
    struct row chosen = {.schema = &stage->schema, .cells = select->cells, .line = row->line};
    return stage_emit(stage, &chosen, e);
}

struct stage *select_create(struct query *query, const struct schema *in, yyjson_val *names,
                            struct tool_error *e)
{
    struct select *select = stage_alloc(query, sizeof *select);
    select->base.push = select_push;
    size_t count;
    if (!stage_columns(in, names, "select", &select->columns, &count, e))
        return NULL;
    select->base.schema = schema_create(count);
    for (size_t i = 0; i < count; i++)
        select->base.schema.columns[i] = in->columns[select->columns[i]];
    select->cells = tool_alloc(count * sizeof *select->cells);
    return &select->base;
}

/* ---- distinct ----------------------------------------------------------------------------------- */

struct distinct {
    struct stage base;
    struct hash_set seen;
};

static enum flow distinct_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    struct distinct *distinct = (struct distinct *) stage;
    uint64_t hash = 0;
    for (size_t i = 0; i < row->schema->count; i++)
        hash = cell_hash(row_cell(row, i), hash);
    if (!hash_set_add(&distinct->seen, hash))
        return FLOW_MORE;
    if (distinct->seen.count > DISTINCT_MAX) {
        tool_fail(e, "limit", "distinct keeps at most %d combinations; filter first", DISTINCT_MAX);
        return FLOW_FAIL;
    }
    return stage_emit(stage, row, e);
}

struct stage *distinct_create(struct query *query, const struct schema *in)
{
    struct distinct *distinct = stage_alloc(query, sizeof *distinct);
    distinct->base.push = distinct_push;
    distinct->base.schema = *in;
    return &distinct->base;
}
