/*
 * Cursor: where a page of a list ended, as opaque text: the values of the last row that the order
 * is made of.
 *
 * A cursor is a position, not a row number: rows that come or go meanwhile neither repeat nor hide
 * others.  It comes back from outside, so it is parsed as such; one of another query (table,
 * order, direction) is REASON_INVALID.
 * Order of values: order column (if any), tenant (when listing over all), key columns.
 */
#ifndef NEXUS_STORE_CURSOR_H
#define NEXUS_STORE_CURSOR_H

#include "store/store.h"

enum { CURSOR_VALUES_MAX = 9 }; /* tenant, order, and the widest key */
struct cursor_column {
    int column; /* -1: tenant_id */
    enum column_type type;
};
struct cursor {
    int count;
    struct cursor_column columns[CURSOR_VALUES_MAX];
    struct value values[CURSOR_VALUES_MAX];
};

/* What the query is ordered by; values stay empty. */
void cursor_columns(struct cursor *cursor, const struct query *query, bool is_any_tenant);
/* query->cursor must not be empty; strings are on the arena. */
must_check bool cursor_parse(struct cursor *cursor, const struct query *query, bool is_any_tenant,
                             struct arena *arena, struct error *e);
/* REASON_LIMIT when a value is too long to page over (STORE_CURSOR_BYTES_MAX). */
must_check bool cursor_print(const struct query *query, bool is_any_tenant, uuid tenant_id,
                             const struct record *last, struct arena *arena, str *out,
                             struct error *e);

#endif
