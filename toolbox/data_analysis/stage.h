/*
 * Stage: one step of a query.  Rows are pushed from stage to stage; a stage holds bounded state.
 *
 *     rows --push--> filter --push--> group ...finish...--push--> sort ...finish...--push--> sink
 *
 * push() gets a row that lives for the call only.  finish() comes once, after the last row, to stages in
 * order; stages that collect (group, describe, sort) push their rows then.  FLOW_STOP from a push says
 * that no further row can change the answer.
 *
 * A stage is bound to its input's schema when it is made, so a wrong column name fails before any row is
 * read.  Stages live until the query ends; nothing is freed one by one.
 */
#ifndef DATA_ANALYSIS_STAGE_H
#define DATA_ANALYSIS_STAGE_H

#include "cell.h"
#include "civil.h"

enum {
    STEPS_MAX = 32,
    CONDITIONS_MAX = 64,
    IN_VALUES_MAX = 1000,
    AGGREGATES_MAX = 64,
    GROUPS_MAX = 100000,
    ACCUMULATORS_MAX = 400000,
    MEDIAN_VALUES_MAX = 4000000,
    DISTINCT_MAX = 1000000,
    SORT_ROWS_MAX = 200000,
    TOP_ROWS_MAX = 10000,
    ROWS_RETURNED_MAX = 1000,
    ROWS_RETURNED_BYTES_MAX = 512 * 1024,
    NOTES_MAX = 16,
    POOL_BYTES_MAX = 40 * 1024 * 1024,
};

enum flow { FLOW_MORE, FLOW_STOP, FLOW_FAIL };

struct query {
    yyjson_mut_doc *output;
    struct pool pool; /* everything that must outlive a row */
    char *notes[NOTES_MAX];
    size_t note_count;
};

struct stage {
    enum flow (*push)(struct stage *stage, const struct row *row, struct tool_error *e);
    enum flow (*finish)(struct stage *stage, struct tool_error *e); /* NULL: nothing is held back */
    struct stage *next;
    struct query *query;
    struct schema schema; /* of the rows it pushes */
};

static inline enum flow stage_emit(struct stage *stage, const struct row *row, struct tool_error *e)
{
    return stage->next->push(stage->next, row, e);
}

/* Something the reader of the answer should know; shown in `notes`.  Repeats past NOTES_MAX are dropped. */
void query_note(struct query *query, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* "limit": the memory that a query may hold is used up. */
enum flow fail_pool(struct tool_error *e);

/* Each makes its stage from the JSON value of its step; NULL on error. */
struct stage *filter_create(struct query *query, const struct schema *in, yyjson_val *step,
                            struct tool_error *e);
struct stage *derive_create(struct query *query, const struct schema *in, yyjson_val *step,
                            struct tool_error *e);
struct stage *group_create(struct query *query, const struct schema *in, yyjson_val *group_by,
                           yyjson_val *aggregate, struct tool_error *e);
struct stage *describe_create(struct query *query, const struct schema *in);
struct stage *sort_create(struct query *query, const struct schema *in, yyjson_val *step,
                          uint64_t first_rows, struct tool_error *e); /* first_rows 0: all */
struct stage *limit_create(struct query *query, const struct schema *in, uint64_t rows,
                           uint64_t skip);
struct stage *select_create(struct query *query, const struct schema *in, yyjson_val *names,
                            struct tool_error *e);
struct stage *distinct_create(struct query *query, const struct schema *in);

/* The end of every query: writes `columns`, `rows` and `row_count`. */
struct stage *sink_create(struct query *query, const struct schema *in);

/* Zeroed memory for a stage, with its query set. */
void *stage_alloc(struct query *query, size_t bytes);

/* Reads a list of column names (or one name) to indexes; *count of them, allocated. */
bool stage_columns(const struct schema *in, yyjson_val *names, const char *what, size_t **indexes,
                   size_t *count, struct tool_error *e);

/* A schema with room for `count` columns. */
struct schema schema_create(size_t count);

#endif
