/*
 * Rows of the memory store: each table is an array of row pointers ordered by (tenant, key
 * columns).
 *
 * A row never changes once it is in a table: a write puts a new row in its place.  So a change is
 * undone by putting the old pointer back, and a clone may copy at leisure.
 */
#ifndef NEXUS_STORE_MEMORY_ROWS_INTERNAL_H
#define NEXUS_STORE_MEMORY_ROWS_INTERNAL_H

#include "store/record.h"

struct row {
    uuid tenant_id;
    struct record record; /* its texts lie behind it, in the same block */
};
struct rows {
    enum table table;
    struct row **items;
    size_t count, capacity;
};

struct row *row_create(uuid tenant_id, const struct record *record); /* deep copy */
void row_destroy(struct row *row);
void rows_deinit(struct rows *rows);
/* Index of the row with this key, or where it would stand. */
size_t rows_find(const struct rows *rows, uuid tenant_id, const struct record *key, bool *is_found);
void rows_insert(struct rows *rows, size_t index, struct row *give_row);
struct row *rows_remove(struct rows *rows, size_t index);

#endif
