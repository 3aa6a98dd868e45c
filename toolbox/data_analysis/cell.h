/*
 * Cell, column, row: the values that flow through a query.
 *
 * A CSV field stays RAW (bytes in the read buffer) until a step looks at it; row_cell() then reads it in
 * the light of its column's kind, so that columns nobody asks for cost nothing.
 *
 *     NUMBER column: "12" int, "1.5" real, "NA" and the like null, anything else text
 *     TEXT column:   always text ("00123" stays as it is)
 *     MIXED column:  nothing known (no value in the sample, or JSON): each cell for itself
 *
 * An empty field is null.  A whole number outside 64 bits becomes a real.
 * Ownership: the text of a cell lives in the source's buffer until the next row is read; who keeps a
 * cell longer copies it (cell_keep).
 */
#ifndef DATA_ANALYSIS_CELL_H
#define DATA_ANALYSIS_CELL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus_tool.h"
#include "pool.h"

enum cell_type { CELL_NULL, CELL_BOOL, CELL_INT, CELL_REAL, CELL_TEXT, CELL_RAW };

struct cell {
    enum cell_type type;
    uint32_t len;
    union {
        bool boolean;
        int64_t integer;
        double real;
        const char *ptr;
    };
};

enum column_kind { KIND_MIXED, KIND_NUMBER, KIND_TEXT };

struct column {
    struct text name;
    enum column_kind kind;
};

struct schema {
    struct column *columns;
    size_t count;
};

struct row {
    const struct schema *schema;
    struct cell *cells; /* schema->count of them */
    uint64_t line;      /* where it began in the source, from 1 */
};

/* How strictly text is taken for a number: STRICT refuses leading zeros and whole numbers beyond 64 bits
 * (identifiers, not quantities), LENIENT takes both. */
enum number_mode { NUMBER_STRICT, NUMBER_LENIENT };

bool number_parse(const char *ptr, size_t len, enum number_mode mode, struct cell *out);

/* NA, N/A, NaN, null, None, - : what people write for "no value" in a column of numbers. */
bool text_is_missing(const char *ptr, size_t len);

void cell_resolve(struct cell *cell, enum column_kind kind);

static inline const struct cell *row_cell(const struct row *row, size_t index)
{
    struct cell *cell = &row->cells[index];
    if (cell->type == CELL_RAW)
        cell_resolve(cell, row->schema->columns[index].kind);
    return cell;
}

static inline struct text cell_text(const struct cell *cell)
{
    return (struct text){cell->ptr, cell->len};
}

static inline bool cell_is_number(const struct cell *cell)
{
    return cell->type == CELL_INT || cell->type == CELL_REAL;
}

static inline double cell_real(const struct cell *cell)
{
    return cell->type == CELL_INT ? (double) cell->integer : cell->real;
}

/* A number, also from text that reads as one.  False: there is none. */
bool cell_to_number(const struct cell *cell, struct cell *out);

/* Total order: booleans, numbers, text by bytes; null after all.  -1, 0 or 1. */
int cell_compare(const struct cell *a, const struct cell *b);

/* Equal cells (1 and 1.0 are equal) have equal hashes. */
uint64_t cell_hash(const struct cell *cell, uint64_t seed);
bool cell_equal(const struct cell *a, const struct cell *b);

/* Copies a cell whose text must outlive the row.  False: the pool is full. */
bool cell_keep(struct pool *pool, const struct cell *from, struct cell *to);

/* Index of the column, or fails naming those that exist. */
bool schema_find(const struct schema *schema, struct text name, size_t *index,
                 struct tool_error *e);

#endif
