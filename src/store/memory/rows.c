#include "store/memory/rows_internal.h"

#include "base/ensure.h"
#include "store/check.h"
#include <stdlib.h>

struct row *row_create(uuid tenant_id, const struct record *record)
{
    struct row *row = malloc(sizeof *row + record_bytes(record));
    ensure(row);
    *row = (struct row){.tenant_id = tenant_id, .record = *record};
    char *text = (char *) (row + 1);
    const struct table_def *def = table_def(record->table);
    for (int i = 0; i < def->column_count; i++) {
        struct value *value = &row->record.values[i];
        if (!(record->has & 1u << i) || value_text(def->columns[i].type, value).len == 0)
            continue;
        memcpy(text, value->text.ptr, value->text.len);
        value->text.ptr = text;
        text += value->text.len;
    }
    return row;
}

void row_destroy(struct row *row)
{
    free(row);
}

void rows_deinit(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        row_destroy(rows->items[i]);
    free(rows->items);
    *rows = (struct rows){.table = rows->table};
}

static int row_compare(const struct row *row, uuid tenant_id, const struct record *key)
{
    int order = uuid_compare(row->tenant_id, tenant_id);
    const struct table_def *def = table_def(key->table);
    for (int i = 0; i < def->column_count && order == 0; i++)
        if (def->columns[i].flags & COLUMN_KEY)
            order = value_compare(def->columns[i].type, &row->record.values[i], &key->values[i]);
    return order;
}

size_t rows_find(const struct rows *rows, uuid tenant_id, const struct record *key, bool *is_found)
{
    size_t low = 0, high = rows->count;
    *is_found = false;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = row_compare(rows->items[middle], tenant_id, key);
        if (order == 0) {
            *is_found = true;
            return middle;
        }
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void rows_insert(struct rows *rows, size_t index, struct row *give_row)
{
    ensure(index <= rows->count);
    if (rows->count == rows->capacity) {
        rows->capacity = rows->capacity ? 2 * rows->capacity : 16;
        rows->items = realloc(rows->items, rows->capacity * sizeof(*rows->items));
        ensure(rows->items);
    }
    memmove(rows->items + index + 1, rows->items + index,
            (rows->count - index) * sizeof(*rows->items));
    rows->items[index] = give_row;
    rows->count++;
}

struct row *rows_remove(struct rows *rows, size_t index)
{
    ensure(index < rows->count);
    struct row *row = rows->items[index];
    rows->count--;
    memmove(rows->items + index, rows->items + index + 1,
            (rows->count - index) * sizeof(*rows->items));
    return row;
}
