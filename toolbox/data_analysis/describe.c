/*
 * Describe: one row for each column of the input, with type, counts, range and, for numbers, mean and
 * sample standard deviation.  `distinct` is null for a column with more values than its share of memory.
 */
#include <math.h>
#include <string.h>

#include "accumulate.h"

static const char *const output_names[] = {"column", "type", "count", "nulls",  "distinct",
                                           "min",    "max",  "mean",  "stddev", NULL};
enum { OUTPUT_COLUMNS = 9, DISTINCT_MIN = 1000 };

struct profile {
    uint64_t count, nulls, integers, reals, booleans, texts, dates;
    struct held min, max;
    struct real_sum sum;
    double mean, squares; /* Welford */
    struct hash_set values;
    bool has_too_many;
};

struct describe {
    struct stage base;
    const struct schema *in;
    struct profile *profiles;
    uint32_t distinct_max;
};

static void count_type(struct profile *p, const struct cell *cell)
{
    struct civil date;
    if (cell->type == CELL_INT)
        p->integers++;
    else if (cell->type == CELL_REAL)
        p->reals++;
    else if (cell->type == CELL_BOOL)
        p->booleans++;
    else {
        if (p->dates == p->texts && civil_parse(cell->ptr, cell->len, CIVIL_YEAR_FIRST, &date))
            p->dates++;
        p->texts++;
    }
}

static void count_distinct(struct describe *describe, struct profile *p, const struct cell *cell)
{
    if (p->has_too_many)
        return;
    hash_set_add(&p->values, cell_hash(cell, 0));
    if (p->values.count > describe->distinct_max) {
        p->has_too_many = true;
        hash_set_deinit(&p->values);
    }
}

static bool profile_add(struct describe *describe, struct profile *p, const struct cell *cell)
{
    struct pool *pool = &describe->base.query->pool;
    if (cell->type == CELL_NULL) {
        p->nulls++;
        return true;
    }
    count_type(p, cell);
    count_distinct(describe, p, cell);
    bool is_first = p->count++ == 0;
    if ((is_first || cell_compare(cell, &p->min.cell) < 0) && !held_set(&p->min, cell, pool))
        return false;
    if ((is_first || cell_compare(cell, &p->max.cell) > 0) && !held_set(&p->max, cell, pool))
        return false;
    if (cell_is_number(cell)) {
        double value = cell_real(cell), delta = value - p->mean;
        real_sum_add(&p->sum, value);
        p->mean += delta / (double) (p->integers + p->reals);
        p->squares += delta * (value - p->mean);
    }
    return true;
}

static enum flow describe_push(struct stage *stage, const struct row *row, struct tool_error *e)
{
    struct describe *describe = (struct describe *) stage;
    for (size_t i = 0; i < describe->in->count; i++)
        if (!profile_add(describe, &describe->profiles[i], row_cell(row, i)))
            return fail_pool(e);
    return FLOW_MORE;
}

static const char *type_name(const struct profile *p)
{
    if (p->count == 0)
        return "empty";
    if (p->texts == p->count)
        return p->dates == p->count ? "date" : "text";
    if (p->booleans == p->count)
        return "boolean";
    if (p->integers == p->count)
        return "integer";
    return p->integers + p->reals == p->count ? "number" : "mixed";
}

static struct cell text_cell(struct text text)
{
    return (struct cell){.type = CELL_TEXT, .len = (uint32_t) text.len, .ptr = text.ptr};
}

static struct cell int_cell(uint64_t value)
{
    return (struct cell){.type = CELL_INT, .integer = (int64_t) value};
}

static void profile_row(const struct profile *p, struct text name, struct cell *cells)
{
    const char *type = type_name(p);
    uint64_t numbers = p->integers + p->reals;
    memset(cells, 0, OUTPUT_COLUMNS * sizeof *cells);
    cells[0] = text_cell(name);
    cells[1] = text_cell((struct text){type, strlen(type)});
    cells[2] = int_cell(p->count);
    cells[3] = int_cell(p->nulls);
    if (!p->has_too_many)
        cells[4] = int_cell(p->values.count);
    if (p->count > 0) {
        cells[5] = p->min.cell;
        cells[6] = p->max.cell;
    }
    double mean = (p->sum.sum + p->sum.carry) / (double) numbers;
    double deviation = sqrt(p->squares / (double) (numbers - 1));
    if (numbers > 0 && isfinite(mean))
        cells[7] = (struct cell){.type = CELL_REAL, .real = mean};
    if (numbers > 1 && isfinite(deviation))
        cells[8] = (struct cell){.type = CELL_REAL, .real = deviation};
}

static enum flow describe_finish(struct stage *stage, struct tool_error *e)
{
    struct describe *describe = (struct describe *) stage;
    for (size_t i = 0; i < describe->in->count; i++) {
        struct cell cells[OUTPUT_COLUMNS];
        const struct profile *p = &describe->profiles[i];
        struct text name = describe->in->columns[i].name;
        profile_row(p, name, cells);
        if (p->has_too_many)
            query_note(stage->query, "describe: " TEXT_FMT " has more than %u distinct values",
                       TEXT_ARG(name), (unsigned) describe->distinct_max);
        struct row row = {.schema = &stage->schema, .cells = cells, .line = i + 1};
        enum flow flow = stage_emit(stage, &row, e);
        if (flow != FLOW_MORE)
            return flow;
    }
    return FLOW_MORE;
}

struct stage *describe_create(struct query *query, const struct schema *in)
{
    struct describe *describe = stage_alloc(query, sizeof *describe);
    describe->base.push = describe_push;
    describe->base.finish = describe_finish;
    describe->in = in;
    size_t bytes = in->count * sizeof *describe->profiles;
    describe->profiles = tool_alloc(bytes);
    memset(describe->profiles, 0, bytes);
    size_t share = DISTINCT_MAX / (in->count == 0 ? 1 : in->count);
    describe->distinct_max = (uint32_t) (share < DISTINCT_MIN ? DISTINCT_MIN : share);
    describe->base.schema = schema_create(OUTPUT_COLUMNS);
    for (size_t i = 0; i < OUTPUT_COLUMNS; i++)
        describe->base.schema.columns[i].name =
            (struct text){output_names[i], strlen(output_names[i])};
    return &describe->base;
}
