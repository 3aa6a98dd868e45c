/* SQL from statement_key and tables.def. */
#include "base/ensure.h"
#include "base/strbuf.h"
#include "store/check.h"
#include "store/cursor.h"
#include "store/sqlite/connection_internal.h"

static const char *column_name(const struct statement_key *key, int column)
{
    return column < 0 ? "tenant_id" : table_def((enum table) key->table)->columns[column].name;
}

/* "tenant_id = ?1 AND key = ?n ..." */
static void add_key_condition(const struct statement_key *key, struct strbuf *out)
{
    strbuf_printf(out, " WHERE tenant_id = ?%d", PARAMETER_TENANT);
    uint32_t keys = table_key_mask((enum table) key->table);
    for (int i = 0; i < RECORD_COLUMNS_MAX; i++)
        if (keys & 1u << i)
            strbuf_printf(out, " AND %s = ?%d", column_name(key, i), PARAMETER_COLUMN + i);
}

static void add_insert(const struct statement_key *key, struct strbuf *out)
{
    const struct table_def *def = table_def((enum table) key->table);
    strbuf_printf(out, "INSERT INTO %s (tenant_id", def->name);
    for (int i = 0; i < def->column_count; i++)
        if (key->mask & 1u << i)
            strbuf_printf(out, ", %s", def->columns[i].name);
    strbuf_printf(out, ") VALUES (?%d", PARAMETER_TENANT);
    for (int i = 0; i < def->column_count; i++)
        if (key->mask & 1u << i)
            strbuf_printf(out, ", ?%d", PARAMETER_COLUMN + i);
    strbuf_add_char(out, ')');
    if (key->kind == STATEMENT_INSERT)
        return;
    uint32_t keys = table_key_mask((enum table) key->table);
    strbuf_add(out, S(" ON CONFLICT (tenant_id"));
    for (int i = 0; i < def->column_count; i++)
        if (keys & 1u << i)
            strbuf_printf(out, ", %s", def->columns[i].name);
    uint32_t given = key->kind == STATEMENT_UPSERT ? key->given & ~keys : 0;
    strbuf_printf(out, ") DO %s", given ? "UPDATE SET " : "NOTHING");
    const char *comma = "";
    for (int i = 0; i < def->column_count; i++) {
        if (!(given & 1u << i))
            continue;
        strbuf_printf(out, "%s%s = excluded.%s", comma, def->columns[i].name, def->columns[i].name);
        comma = ", ";
    }
}

static void add_update(const struct statement_key *key, struct strbuf *out)
{
    const struct table_def *def = table_def((enum table) key->table);
    /* With nothing to set, it is a check that the row is there. */
    strbuf_printf(out, "UPDATE %s SET tenant_id = tenant_id", def->name);
    uint32_t mask = key->mask & ~table_key_mask((enum table) key->table);
    bool is_first = true;
    for (int i = 0; i < def->column_count; i++) {
        if (!(mask & 1u << i))
            continue;
        if (is_first)
            strbuf_truncate(out, out->len - strlen("tenant_id = tenant_id"));
        const char *name = def->columns[i].name;
        strbuf_printf(out, "%s%s = ", is_first ? "" : ", ", name);
        if (key->kind == STATEMENT_ADD && def->columns[i].type == COLUMN_INTEGER)
            strbuf_printf(out, "exact_add(coalesce(%s, 0), ?%d)", name, PARAMETER_COLUMN + i);
        else
            strbuf_printf(out, "?%d", PARAMETER_COLUMN + i);
        is_first = false;
    }
    add_key_condition(key, out);
    if (key->where_column >= 0)
        strbuf_printf(out, " AND %s IS ?%d", column_name(key, key->where_column), PARAMETER_WHERE);
}

static void add_select(const struct statement_key *key, struct strbuf *out)
{
    const struct table_def *def = table_def((enum table) key->table);
    strbuf_add(out, S("SELECT tenant_id"));
    for (int i = 0; i < def->column_count; i++)
        strbuf_printf(out, ", %s", def->columns[i].name);
    strbuf_printf(out, " FROM %s", def->name);
}

static void add_filter(const struct statement_key *key, int index, struct strbuf *out)
{
    static const char *const operators[] = {
        [FILTER_EQUAL] = "=",   [FILTER_NOT_EQUAL] = "<>",    [FILTER_LESS] = "<",
        [FILTER_GREATER] = ">", [FILTER_IS_NULL] = "IS NULL", [FILTER_NOT_NULL] = "IS NOT NULL",
    };
    uint8_t op = key->filters[index].op;
    strbuf_printf(out, " AND %s %s", column_name(key, key->filters[index].column), operators[op]);
    if (op != FILTER_IS_NULL && op != FILTER_NOT_NULL)
        strbuf_printf(out, " ?%d", PARAMETER_FILTER + index);
}

/*
 * Over all tenants the planner, which knows nothing of how rows are spread, walks the whole table in the order that is asked for.  What is
 * looked for by a column that few rows have a value in stands in the small index of that column: it is named.
 */
static int sparse_column(const struct statement_key *key)
{
    const struct table_def *def = table_def((enum table) key->table);
    for (int i = 0; key->is_any_tenant && i < key->filter_count; i++) {
        int column = key->filters[i].column;
        unsigned flags = column >= 0 ? def->columns[column].flags : 0;
        bool is_sparse =
            (flags & (COLUMN_INDEXED | COLUMN_DUE)) && !(flags & (COLUMN_KEY | COLUMN_REQUIRED));
        if (is_sparse && key->filters[i].op != FILTER_IS_NULL &&
            key->filters[i].op != FILTER_NOT_EQUAL)
            return column;
    }
    return -1;
}

static void add_list(const struct statement_key *key, struct strbuf *out)
{
    struct query query = {.table = (enum table) key->table, .order_column = key->order_column};
    struct cursor order;
    cursor_columns(&order, &query, key->is_any_tenant);
    add_select(key, out);
    int sparse = sparse_column(key);
    if (sparse >= 0)
        strbuf_printf(out, " INDEXED BY %s_%s", table_def((enum table) key->table)->name,
                      column_name(key, sparse));
    strbuf_printf(out, key->is_any_tenant ? " WHERE 1" : " WHERE tenant_id = ?%d",
                  PARAMETER_TENANT);
    for (int i = 0; i < key->filter_count; i++)
        add_filter(key, i, out);
    for (int i = 0; key->has_cursor && i < order.count; i++)
        strbuf_printf(out, "%s%s", i ? ", " : " AND (", column_name(key, order.columns[i].column));
    for (int i = 0; key->has_cursor && i < order.count; i++)
        strbuf_printf(out, "%s?%d",
                      i                    ? ", "
                      : key->is_descending ? ") < ("
                                           : ") > (",
                      PARAMETER_CURSOR + i);
    if (key->has_cursor)
        strbuf_add_char(out, ')');
    for (int i = 0; i < order.count; i++)
        strbuf_printf(out, "%s%s%s", i ? ", " : " ORDER BY ",
                      column_name(key, order.columns[i].column), key->is_descending ? " DESC" : "");
    strbuf_printf(out, " LIMIT ?%d", PARAMETER_LIMIT);
}

void statement_sql(const struct statement_key *key, struct strbuf *out)
{
    switch ((enum statement_kind) key->kind) {
    case STATEMENT_INSERT:
    case STATEMENT_INSERT_NEW:
    case STATEMENT_UPSERT: add_insert(key, out); return;
    case STATEMENT_UPDATE:
    case STATEMENT_ADD: add_update(key, out); return;
    case STATEMENT_DELETE:
        strbuf_printf(out, "DELETE FROM %s", table_def((enum table) key->table)->name);
        add_key_condition(key, out);
        return;
    case STATEMENT_GET:
        add_select(key, out);
        add_key_condition(key, out);
        return;
    case STATEMENT_LIST: add_list(key, out); return;
    case STATEMENT_NONE:
    case STATEMENT_FIXED: break;
    }
    unreachable_state();
}
