#include "store/memory/memory_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "store/check.h"
#include <stdlib.h>

static void undo_add(struct memory_store *store, struct row *before, struct row *after)
{
    if (store->undo_count == store->undo_capacity) {
        store->undo_capacity = store->undo_capacity ? 2 * store->undo_capacity : 16;
        store->undo = realloc(store->undo, store->undo_capacity * sizeof(*store->undo));
        ensure(store->undo);
    }
    store->undo[store->undo_count++] = (struct undo){before, after};
}

static void undo_all(struct memory_store *store)
{
    while (store->undo_count > 0) {
        struct undo *undo = &store->undo[--store->undo_count];
        const struct row *any = undo->after ? undo->after : undo->before;
        struct rows *rows = &store->tables[any->record.table];
        bool is_found;
        size_t index = rows_find(rows, any->tenant_id, &any->record, &is_found);
        if (undo->after)
            row_destroy(rows_remove(rows, index));
        if (undo->before)
            rows_insert(rows, index, undo->before);
    }
}

static void undo_forget(struct memory_store *store)
{
    for (size_t i = 0; i < store->undo_count; i++)
        row_destroy(store->undo[i].before);
    store->undo_count = 0;
}

/* Puts a copy of the record where `index` says, in place of the old row when there is one. */
static void put(struct memory_store *store, uuid tenant_id, const struct record *record,
                size_t index, bool is_found)
{
    struct rows *rows = &store->tables[record->table];
    struct row *after = row_create(tenant_id, record);
    struct row *before = is_found ? rows_remove(rows, index) : NULL;
    rows_insert(rows, index, after);
    undo_add(store, before, after);
}

static bool is_unique(const struct memory_store *store, uuid tenant_id, const struct record *record,
                      int column)
{
    const struct rows *rows = &store->tables[record->table];
    enum column_type type = table_def(record->table)->columns[column].type;
    for (size_t i = 0; i < rows->count; i++) {
        const struct row *row = rows->items[i];
        if (!record_has(&row->record, column) ||
            value_compare(type, &row->record.values[column], &record->values[column]) != 0)
            continue;
        bool is_itself;
        size_t index = rows_find(rows, tenant_id, record, &is_itself);
        if (!is_itself || index != i)
            return false;
    }
    return true;
}

static bool parent_exists(const struct memory_store *store, uuid tenant_id,
                          const struct column_rule *rule, uuid id)
{
    struct record key = {.table = (enum table) rule->parent};
    record_set_uuid(&key, 0, id);
    bool is_found;
    rows_find(&store->tables[rule->parent], tenant_id, &key, &is_found);
    return is_found;
}

static bool check_constraints(const struct memory_store *store, uuid tenant_id,
                              const struct record *record, struct error *e)
{
    const struct table_def *def = table_def(record->table);
    for (int i = 0; i < def->column_count; i++)
        if (def->columns[i].flags & COLUMN_UNIQUE && record_has(record, i) &&
            !is_unique(store, tenant_id, record, i))
            return error_set(e, REASON_CONFLICT, "%s.%s is taken", def->name, def->columns[i].name);
    size_t count;
    const struct column_rule *rules = column_rules(&count);
    for (size_t i = 0; i < count; i++)
        if (rules[i].table == record->table && rules[i].parent >= 0 &&
            record_has(record, rules[i].column) &&
            !parent_exists(store, tenant_id, &rules[i], record_uuid(record, rules[i].column)))
            return error_set(e, REASON_NOT_FOUND, "%s: no such row in %s", def->name,
                             table_def((enum table) rules[i].parent)->name);
    return true;
}

static bool has_children(const struct memory_store *store, const struct row *parent,
                         const struct column_rule *rule)
{
    const struct rows *rows = &store->tables[rule->table];
    uuid id = record_uuid(&parent->record, 0);
    for (size_t i = 0; i < rows->count; i++)
        if (uuid_equal(rows->items[i]->tenant_id, parent->tenant_id) &&
            uuid_equal(record_uuid(&rows->items[i]->record, rule->column), id))
            return true;
    return false;
}

static bool delete_row(struct memory_store *store, uuid tenant_id, const struct record *key,
                       struct error *e)
{
    struct rows *rows = &store->tables[key->table];
    bool is_found;
    size_t index = rows_find(rows, tenant_id, key, &is_found);
    if (!is_found)
        return true;
    size_t count;
    const struct column_rule *rules = column_rules(&count);
    for (size_t i = 0; i < count; i++)
        if (rules[i].parent == (int) key->table &&
            has_children(store, rows->items[index], &rules[i]))
            return error_set(e, REASON_CONFLICT, "%s: rows of %s still refer to it",
                             table_def(key->table)->name, table_def(rules[i].table)->name);
    undo_add(store, rows_remove(rows, index), NULL);
    return true;
}

static bool insert_row(struct memory_store *store, const struct batch *batch,
                       const struct write *write, struct error *e)
{
    struct rows *rows = &store->tables[write->record.table];
    bool is_found;
    size_t index = rows_find(rows, batch->tenant_id, &write->record, &is_found);
    if (is_found && write->op == WRITE_INSERT_NEW)
        return true;
    if (is_found && write->op == WRITE_INSERT)
        return error_set(e, REASON_CONFLICT, "%s: there is a row with this key",
                         table_def(rows->table)->name);
    struct record *record = ARENA_NEW(batch->arena, struct record);
    *record = is_found ? rows->items[index]->record : write->record;
    for (int i = 0; is_found && i < table_def(rows->table)->column_count; i++)
        if (write->record.has & 1u << i)
            record->values[i] = write->record.values[i];
    record->has |= write->record.has;
    if (!is_found)
        record_fill_defaults(record, clock_unix_us(store->clock));
    if (!check_constraints(store, batch->tenant_id, record, e))
        return false;
    put(store, batch->tenant_id, record, index, is_found);
    return true;
}

static bool value_matches(enum column_type type, const struct record *record, int column,
                          const struct value *value)
{
    if (value->is_null || !record_has(record, column))
        return value->is_null && !record_has(record, column);
    return value_compare(type, &record->values[column], value) == 0;
}

static bool update_row(struct memory_store *store, const struct batch *batch,
                       const struct write *write, struct error *e)
{
    struct rows *rows = &store->tables[write->record.table];
    const struct table_def *def = table_def(rows->table);
    bool is_found;
    size_t index = rows_find(rows, batch->tenant_id, &write->record, &is_found);
    const struct record *old = is_found ? &rows->items[index]->record : NULL;
    int where = write->where_column;
    if (where >= 0 &&
        (!is_found || !value_matches(def->columns[where].type, old, where, &write->where_value)))
        return error_set(e, REASON_CONFLICT, "%s: %s has changed meanwhile", def->name,
                         def->columns[where].name);
    if (!is_found)
        return error_set(e, REASON_NOT_FOUND, "%s: no such row", def->name);
    struct record *record = ARENA_NEW(batch->arena, struct record);
    *record = *old;
    for (int i = 0; i < def->column_count; i++) {
        if (!(write->record.has & 1u << i))
            continue;
        bool is_sum = write->op == WRITE_ADD && def->columns[i].type == COLUMN_INTEGER &&
                      !(def->columns[i].flags & COLUMN_KEY);
        int64_t sum = record_has(old, i) ? old->values[i].integer : 0;
        if (is_sum && __builtin_add_overflow(sum, write->record.values[i].integer, &sum))
            return error_set(e, REASON_LIMIT, "%s.%s would overflow", def->name,
                             def->columns[i].name);
        record->values[i] = write->record.values[i];
        if (is_sum)
            record->values[i].integer = sum;
    }
    record->has |= write->record.has;
    if (!check_constraints(store, batch->tenant_id, record, e))
        return false;
    put(store, batch->tenant_id, record, index, true);
    return true;
}

static bool audit_append(struct memory_store *store, const struct batch *batch,
                         const struct write *write, struct error *e)
{
    struct audit_head head;
    memory_audit_head(store, batch->tenant_id, &head);
    str writer = str_from_cstr(store->node);
    struct write *insert = ARENA_NEW(batch->arena, struct write);
    *insert = *write;
    record_fill_defaults(&insert->record, clock_unix_us(store->clock));
    audit_chain_append(&head, writer, &insert->record, batch->arena);
    if (!insert_row(store, batch, insert, e))
        return false;
    if (head.seq - head.checkpoint_seq < AUDIT_CHECKPOINT_ENTRIES)
        return true;
    audit_chain_checkpoint(&head, writer, store->audit_key, uuid_new(store->clock, store->random),
                           clock_unix_us(store->clock), batch->arena, &insert->record);
    return insert_row(store, batch, insert, e);
}

static bool write_row(struct memory_store *store, const struct batch *batch,
                      const struct write *write, struct error *e)
{
    if (write->record.table == TABLE_AUDIT_LOGS)
        return audit_append(store, batch, write, e);
    if (write->op == WRITE_DELETE)
        return delete_row(store, batch->tenant_id, &write->record, e);
    if (write_is_insert(write->op))
        return insert_row(store, batch, write, e);
    return update_row(store, batch, write, e);
}

static bool fence_holds(const struct memory_store *store, uuid tenant_id, const struct fence *fence,
                        struct error *e)
{
    struct record key = {.table = TABLE_SESSIONS};
    record_set_uuid(&key, SESSIONS_ID, fence->session_id);
    const struct rows *rows = &store->tables[TABLE_SESSIONS];
    bool is_found;
    size_t index = rows_find(rows, tenant_id, &key, &is_found);
    const struct record *session = is_found ? &rows->items[index]->record : NULL;
    if (is_found && str_equal(record_text(session, SESSIONS_OWNER_NODE), fence->node) &&
        record_integer(session, SESSIONS_OWNER_EPOCH) == fence->epoch)
        return true;
    if (FAULT("plant.two-writers")) /* a bug put in on purpose: the fence is open */
        return true;
    return error_set(e, REASON_FENCED,
                     "the session has another owner than " STR_FMT " at epoch %lld",
                     STR_ARG(fence->node), (long long) fence->epoch);
}

bool memory_apply(struct memory_store *store, const struct batch *batch, struct error *e)
{
    if (batch->fence && !fence_holds(store, batch->tenant_id, batch->fence, e))
        return false;
    arena_mark mark = arena_save(batch->arena);
    bool is_ok = true;
    for (size_t i = 0; i < batch->count && is_ok; i++)
        is_ok = write_row(store, batch, &batch->writes[i], e);
    if (is_ok)
        undo_forget(store);
    else
        undo_all(store);
    arena_rewind(batch->arena, mark);
    return is_ok;
}

bool memory_claim(struct memory_store *store, uuid tenant_id, uuid session_id, str node,
                  int64_t *epoch, struct error *e)
{
    struct record key = {.table = TABLE_SESSIONS};
    record_set_uuid(&key, SESSIONS_ID, session_id);
    struct rows *rows = &store->tables[TABLE_SESSIONS];
    bool is_found;
    size_t index = rows_find(rows, tenant_id, &key, &is_found);
    if (!is_found)
        return error_set(e, REASON_NOT_FOUND, "sessions: no such row");
    key = rows->items[index]->record;
    bool is_own = record_has(&key, SESSIONS_OWNER_EPOCH) &&
                  str_equal(record_text(&key, SESSIONS_OWNER_NODE), node);
    *epoch = record_integer(&key, SESSIONS_OWNER_EPOCH) + (is_own ? 0 : 1);
    record_set_text(&key, SESSIONS_OWNER_NODE, node);
    record_set_integer(&key, SESSIONS_OWNER_EPOCH, *epoch);
    put(store, tenant_id, &key, index, true);
    undo_forget(store);
    return true;
}
