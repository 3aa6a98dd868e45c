#include "store/memory/memory_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "store/cursor.h"
#include <stdlib.h>

/* A reader gives every column: the unset ones are null. */
static void row_give(const struct row *row, struct arena *arena, struct record *out)
{
    record_copy(arena, out, &row->record);
    for (int i = 0; i < table_def(out->table)->column_count; i++)
        if (!(out->has & 1u << i))
            record_set_null(out, i);
}

bool memory_get(struct memory_store *store, struct arena *arena, uuid tenant_id,
                const struct record *key, struct record *out, struct error *e)
{
    const struct rows *rows = &store->tables[key->table];
    bool is_found;
    size_t index = rows_find(rows, tenant_id, key, &is_found);
    if (!is_found)
        return error_set(e, REASON_NOT_FOUND, "%s: no such row", table_def(key->table)->name);
    row_give(rows->items[index], arena, out);
    return true;
}

static bool filter_holds(const struct filter *filter, const struct record *record)
{
    bool has = record_has(record, filter->column);
    enum column_type type = table_def(record->table)->columns[filter->column].type;
    int order = has ? value_compare(type, &record->values[filter->column], &filter->value) : 0;
    switch (filter->op) {
    case FILTER_EQUAL: return has && order == 0;
    case FILTER_NOT_EQUAL: return has && order != 0;
    case FILTER_LESS: return has && order < 0;
    case FILTER_GREATER: return has && order > 0;
    case FILTER_IS_NULL: return !has;
    case FILTER_NOT_NULL: return has;
    }
    unreachable_state();
}

static int value_order(const struct cursor_column *column, const struct row *row,
                       const struct value *value)
{
    struct value tenant = {.id = row->tenant_id};
    return value_compare(column->type,
                         column->column < 0 ? &tenant : &row->record.values[column->column], value);
}

static int cursor_order(const struct cursor *cursor, const struct row *row)
{
    int order = 0;
    for (int i = 0; i < cursor->count && order == 0; i++)
        order = value_order(&cursor->columns[i], row, &cursor->values[i]);
    return order;
}

struct sort {
    struct cursor columns;
    bool is_descending;
};

static int row_order(const void *a, const void *b, void *argument)
{
    const struct sort *sort = argument;
    const struct row *left = *(struct row *const *) a, *right = *(struct row *const *) b;
    int order = 0;
    for (int i = 0; i < sort->columns.count && order == 0; i++) {
        int column = sort->columns.columns[i].column;
        struct value tenant = {.id = right->tenant_id};
        order = value_order(&sort->columns.columns[i], left,
                            column < 0 ? &tenant : &right->record.values[column]);
    }
    return sort->is_descending ? -order : order;
}

bool memory_list(struct memory_store *store, struct arena *arena, const uuid *tenant_id,
                 const struct query *query, struct records *out, uuid **tenant_ids, struct error *e)
{
    const struct rows *rows = &store->tables[query->table];
    struct cursor from;
    bool has_cursor = !str_is_empty(query->cursor);
    if (has_cursor && !cursor_parse(&from, query, !tenant_id, arena, e))
        return false;
    struct row **found = malloc((rows->count + 1) * sizeof(*found));
    ensure(found);
    size_t count = 0;
    for (size_t i = 0; i < rows->count; i++) {
        struct row *row = rows->items[i];
        bool fits = !tenant_id || uuid_equal(row->tenant_id, *tenant_id);
        for (int f = 0; f < query->filter_count && fits; f++)
            fits = filter_holds(&query->filters[f], &row->record);
        int order = fits && has_cursor ? cursor_order(&from, row) : 1;
        if (fits && (!has_cursor || (query->is_descending ? order < 0 : order > 0)))
            found[count++] = row;
    }
    struct sort sort = {.is_descending = query->is_descending};
    cursor_columns(&sort.columns, query, !tenant_id);
    qsort_r(found, count, sizeof(*found), row_order, &sort);

    struct records page = {.count = count < query->limit ? count : query->limit};
    page.items = ARENA_ARRAY(arena, struct record, page.count);
    uuid *tenants = ARENA_ARRAY(arena, uuid, page.count);
    for (size_t i = 0; i < page.count; i++) {
        row_give(found[i], arena, &page.items[i]);
        tenants[i] = found[i]->tenant_id;
    }
    free(found);
    if (count > page.count &&
        !cursor_print(query, !tenant_id, tenants[page.count - 1], &page.items[page.count - 1],
                      arena, &page.next_cursor, e))
        return false;
    *out = page;
    if (tenant_ids)
        *tenant_ids = tenants;
    return true;
}

void memory_audit_head(struct memory_store *store, uuid tenant_id, struct audit_head *out)
{
    audit_head_init(out, tenant_id);
    const struct rows *rows = &store->tables[TABLE_AUDIT_LOGS];
    for (size_t i = 0; i < rows->count; i++) {
        const struct record *entry = &rows->items[i]->record;
        if (!uuid_equal(rows->items[i]->tenant_id, tenant_id) ||
            record_integer(entry, AUDIT_LOGS_SEQ) < out->seq)
            continue;
        out->seq = record_integer(entry, AUDIT_LOGS_SEQ);
        memcpy(out->hash, record_text(entry, AUDIT_LOGS_HASH).ptr, sizeof out->hash);
    }
    rows = &store->tables[TABLE_AUDIT_CHECKPOINTS];
    for (size_t i = 0; i < rows->count; i++) {
        int64_t seq = record_integer(&rows->items[i]->record, AUDIT_CHECKPOINTS_SEQ);
        if (uuid_equal(rows->items[i]->tenant_id, tenant_id) && seq > out->checkpoint_seq)
            out->checkpoint_seq = seq;
    }
}

static int entry_order(const void *a, const void *b)
{
    const struct record *left = &(*(struct row *const *) a)->record,
                        *right = &(*(struct row *const *) b)->record;
    int order =
        str_compare(record_text(left, AUDIT_LOGS_WRITER), record_text(right, AUDIT_LOGS_WRITER));
    int64_t left_seq = record_integer(left, AUDIT_LOGS_SEQ),
            right_seq = record_integer(right, AUDIT_LOGS_SEQ);
    return order ? order : (left_seq > right_seq) - (left_seq < right_seq);
}

static str hash_at(struct row *const *entries, size_t count, str writer, int64_t seq)
{
    for (size_t i = 0; i < count; i++)
        if (record_integer(&entries[i]->record, AUDIT_LOGS_SEQ) == seq &&
            str_equal(record_text(&entries[i]->record, AUDIT_LOGS_WRITER), writer))
            return record_text(&entries[i]->record, AUDIT_LOGS_HASH);
    return STR_NONE;
}

void memory_audit_verify(struct memory_store *store, struct arena *arena, uuid tenant_id,
                         struct audit_report *out)
{
    const struct rows *rows = &store->tables[TABLE_AUDIT_LOGS];
    struct row **entries = malloc((rows->count + 1) * sizeof(*entries));
    ensure(entries);
    size_t count = 0;
    for (size_t i = 0; i < rows->count; i++)
        if (uuid_equal(rows->items[i]->tenant_id, tenant_id))
            entries[count++] = rows->items[i];
    qsort(entries, count, sizeof(*entries), entry_order);

    uint8_t public_key[SIGNATURE_KEY_BYTES];
    signature_public_key(store->audit_key, public_key);
    OWNED(arena) scratch = arena_create(0);
    struct audit_walk walk;
    audit_walk_init(&walk, tenant_id, public_key, arena, scratch);
    for (size_t i = 0; i < count; i++)
        audit_walk_entry(&walk, &entries[i]->record);
    rows = &store->tables[TABLE_AUDIT_CHECKPOINTS];
    for (size_t i = 0; i < rows->count; i++) {
        const struct record *checkpoint = &rows->items[i]->record;
        if (uuid_equal(rows->items[i]->tenant_id, tenant_id))
            audit_walk_checkpoint(&walk, checkpoint,
                                  hash_at(entries, count,
                                          record_text(checkpoint, AUDIT_CHECKPOINTS_WRITER),
                                          record_integer(checkpoint, AUDIT_CHECKPOINTS_SEQ)));
    }
    free(entries);
    *out = walk.report;
}
