#include "store/check.h"

#include "base/arena.h"
#include "base/fault.h"
#include "base/limits.h"
#include <stdio.h>

uint32_t table_key_mask(enum table table)
{
    const struct table_def *def = table_def(table);
    uint32_t mask = 0;
    for (int i = 0; i < def->column_count; i++)
        if (def->columns[i].flags & COLUMN_KEY)
            mask |= 1u << i;
    return mask;
}

bool write_is_insert(enum write_op op)
{
    return op == WRITE_INSERT || op == WRITE_INSERT_NEW || op == WRITE_UPSERT;
}

size_t record_bytes(const struct record *r)
{
    size_t bytes = 0;
    const struct table_def *def = table_def(r->table);
    for (int i = 0; i < def->column_count; i++)
        if (r->has & 1u << i)
            bytes += value_text(def->columns[i].type, &r->values[i]).len;
    return bytes;
}

bool batch_fault(const char *name, const char *side)
{
#ifdef NEXUS_FAULTS
    if (!name || !*name)
        return false;
    char point[128];
    snprintf(point, sizeof point, "%s.%s", name, side);
    return FAULT(point);
#else
    (void) name;
    (void) side;
    return false;
#endif
}

/* Filled by the back end or by a default. */
static bool column_is_filled_later(enum table table, int column)
{
    if (table == TABLE_AUDIT_LOGS && (column == AUDIT_LOGS_WRITER || column == AUDIT_LOGS_SEQ ||
                                      column == AUDIT_LOGS_PREV_HASH || column == AUDIT_LOGS_HASH))
        return true;
    size_t count;
    const struct column_rule *rules = column_rules(&count);
    for (size_t i = 0; i < count; i++)
        if (rules[i].table == table && rules[i].column == column)
            return rules[i].otherwise != DEFAULT_NONE;
    return false;
}

static bool check_value(const struct batch *batch, const struct record *r, int column,
                        struct error *e)
{
    const struct table_def *def = table_def(r->table);
    const struct column_def *column_def = &def->columns[column];
    str text = value_text(column_def->type, &r->values[column]);
    if (text.len > STORE_VALUE_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "%s.%s has %zu bytes, at most %u are stored",
                         def->name, column_def->name, text.len, STORE_VALUE_BYTES_MAX);
    if (column_def->type != COLUMN_JSON)
        return true;
    arena_mark mark = arena_save(batch->arena);
    const struct json *ignored;
    bool is_json =
        json_parse(batch->arena, text, (struct json_limits){.allow_duplicates = true}, &ignored, e);
    arena_rewind(batch->arena, mark);
    return is_json || error_wrap(e, "%s.%s", def->name, column_def->name);
}

static bool check_columns(const struct batch *batch, const struct write *write, struct error *e)
{
    const struct record *r = &write->record;
    const struct table_def *def = table_def(r->table);
    for (int i = 0; i < def->column_count; i++) {
        const struct column_def *column = &def->columns[i];
        bool is_set = r->has & 1u << i;
        bool is_null = is_set && r->values[i].is_null;
        bool is_needed = column->flags & COLUMN_KEY ||
                         (write_is_insert(write->op) && column->flags & COLUMN_REQUIRED &&
                          !column_is_filled_later(r->table, i));
        if (is_needed && !is_set)
            return error_set(e, REASON_INVALID, "%s.%s is missing", def->name, column->name);
        if (is_null && column->flags & (COLUMN_KEY | COLUMN_REQUIRED))
            return error_set(e, REASON_INVALID, "%s.%s may not be null", def->name, column->name);
        if (is_null && write->op == WRITE_ADD && column->type == COLUMN_INTEGER)
            return error_set(e, REASON_INVALID, "%s.%s: null cannot be added", def->name,
                             column->name);
        if (is_set && !is_null && !check_value(batch, r, i, e))
            return false;
    }
    return true;
}

static bool check_write(const struct batch *batch, const struct write *write, struct error *e)
{
    const struct record *r = &write->record;
    const char *name = table_def(r->table)->name;
    if (r->table == TABLE_AUDIT_CHECKPOINTS ||
        (r->table == TABLE_AUDIT_LOGS && write->op != WRITE_INSERT))
        return error_set(e, REASON_INVALID, "%s is only appended to", name);
    bool is_removal = write->op == WRITE_UPDATE || write->op == WRITE_DELETE;
    if (r->table == TABLE_RUN_EVENTS && write->op != WRITE_INSERT &&
        write->op != WRITE_INSERT_NEW && !(batch->is_retention && is_removal))
        return error_set(e, REASON_INVALID, "%s is a journal: it is only appended to", name);
    if (write->where_column >= 0 && write->op != WRITE_UPDATE)
        return error_set(e, REASON_INVALID, "%s: only an update may be conditional", name);
    return check_columns(batch, write, e);
}

bool check_batch(const struct batch *batch, struct error *e)
{
    if (batch->count > STORE_BATCH_ROWS_MAX)
        return error_set(e, REASON_LIMIT, "a batch of %zu rows, at most %d fit", batch->count,
                         STORE_BATCH_ROWS_MAX);
    for (size_t i = 0; i < batch->count; i++)
        if (!check_write(batch, &batch->writes[i], e))
            return false;
    return true;
}

bool check_key(const struct record *key, struct error *e)
{
    const struct table_def *def = table_def(key->table);
    for (int i = 0; i < def->column_count; i++)
        if (def->columns[i].flags & COLUMN_KEY && !record_has(key, i))
            return error_set(e, REASON_INVALID, "%s.%s is missing", def->name,
                             def->columns[i].name);
    return true;
}

bool check_query(const struct query *query, struct error *e)
{
    const struct table_def *def = table_def(query->table);
    if (query->limit < 1 || query->limit > STORE_PAGE_MAX)
        return error_set(e, REASON_INVALID, "limit must be from 1 to %d", STORE_PAGE_MAX);
    if (query->filter_count < 0 || (size_t) query->filter_count > ARRAY_COUNT(query->filters))
        return error_set(e, REASON_INVALID, "%s: too many filters", def->name);
    for (int i = 0; i < query->filter_count; i++)
        if (query->filters[i].column < 0 || query->filters[i].column >= def->column_count)
            return error_set(e, REASON_INVALID, "%s: a filter names no column", def->name);
    if (query->order_column < 0)
        return true;
    /* A null has no place in the order of a cursor. */
    if (query->order_column >= def->column_count ||
        !(def->columns[query->order_column].flags & (COLUMN_KEY | COLUMN_REQUIRED)))
        return error_set(e, REASON_INVALID, "%s cannot be ordered by that column", def->name);
    return true;
}
