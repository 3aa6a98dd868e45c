#include "base/strbuf.h"
#include "store/sqlite/schema_internal.h"

/* Microseconds UTC; only for rows that other programs insert: ours bring their own time. */
#define NOW_SQL                                                                                    \
    "(CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) "   \
    "AS INTEGER) * 1000)"

static const char *const further_sql[] = {
    "CREATE UNIQUE INDEX audit_logs_chain ON audit_logs (tenant_id, writer, seq)",
    "CREATE UNIQUE INDEX audit_checkpoints_chain ON audit_checkpoints (tenant_id, writer, seq)",
    "CREATE INDEX agent_runs_live_children ON agent_runs (tenant_id, parent_run_id, id) WHERE "
    "parent_run_id IS NOT NULL AND completed_at IS NULL",
    "CREATE INDEX approvals_of_run ON approvals (tenant_id, run_id, status, id)",
    "CREATE INDEX webhook_deliveries_due ON webhook_deliveries (tenant_id, endpoint, id, next_at) "
    "WHERE next_at IS NOT NULL",
    "CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at, tenant_id, id)",
    "CREATE INDEX webhook_receipts_age ON webhook_receipts (received_at, tenant_id, webhook, "
    "delivery)",
    "CREATE TABLE kv (\n"
    "    tenant_id TEXT NOT NULL,\n"
    "    key TEXT NOT NULL,\n"
    "    value BLOB NOT NULL,\n"
    "    expires_at INTEGER,\n"
    "    PRIMARY KEY (tenant_id, key)\n"
    ") WITHOUT ROWID",
    "CREATE INDEX kv_expires_at ON kv (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE TABLE session_memory (\n"
    "    tenant_id TEXT NOT NULL,\n"
    "    id TEXT NOT NULL,\n"
    "    session_id TEXT NOT NULL,\n"
    "    user_id TEXT NOT NULL,\n"
    "    timestamp INTEGER NOT NULL,\n"
    "    content_type TEXT NOT NULL,\n"
    "    metadata TEXT NOT NULL,\n"
    "    vector BLOB NOT NULL,\n"
    "    PRIMARY KEY (tenant_id, id)\n"
    ")",
    "CREATE INDEX session_memory_session_id ON session_memory (tenant_id, session_id, id)",
    "CREATE INDEX session_memory_user_id ON session_memory (tenant_id, user_id, id)",
};

static const char *type_sql(enum column_type type)
{
    return column_is_integer(type) ? "INTEGER" : type == COLUMN_BLOB ? "BLOB" : "TEXT";
}

static const struct column_rule *rule_of(enum table table, int column, bool is_parent)
{
    size_t count;
    const struct column_rule *rules = column_rules(&count);
    for (size_t i = 0; i < count; i++)
        if (rules[i].table == table && rules[i].column == column &&
            (rules[i].parent >= 0) == is_parent)
            return &rules[i];
    return NULL;
}

static void write_column(struct strbuf *out, enum table table, int column)
{
    const struct column_def *def = &table_def(table)->columns[column];
    strbuf_printf(out, "    %s %s", def->name, type_sql(def->type));
    if (def->flags & (COLUMN_KEY | COLUMN_REQUIRED))
        strbuf_add(out, S(" NOT NULL"));
    const struct column_rule *rule = rule_of(table, column, false);
    if (rule && rule->otherwise == DEFAULT_NOW)
        strbuf_add(out, S(" DEFAULT " NOW_SQL));
    if (rule && rule->otherwise == DEFAULT_TEXT)
        strbuf_printf(out, " DEFAULT '" STR_FMT "'", STR_ARG(rule->text));
    if (rule && rule->otherwise == DEFAULT_INTEGER)
        strbuf_printf(out, " DEFAULT %lld", (long long) rule->integer);
    strbuf_add(out, S(",\n"));
}

static int write_keys(struct strbuf *out, const struct table_def *def, int without)
{
    int count = 0;
    for (int i = 0; i < def->column_count; i++)
        if (def->columns[i].flags & COLUMN_KEY && i != without) {
            strbuf_printf(out, ", %s", def->columns[i].name);
            count++;
        }
    return count;
}

static void write_table(struct strbuf *out, enum table table)
{
    const struct table_def *def = table_def(table);
    strbuf_printf(out, "CREATE TABLE %s (\n    tenant_id TEXT NOT NULL,\n", def->name);
    for (int i = 0; i < def->column_count; i++)
        write_column(out, table, i);
    strbuf_add(out, S("    PRIMARY KEY (tenant_id"));
    int key_count = write_keys(out, def, -1);
    strbuf_add_char(out, ')');
    for (int i = 0; i < def->column_count; i++) {
        const struct column_rule *rule = rule_of(table, i, true);
        if (rule)
            strbuf_printf(out, ",\n    FOREIGN KEY (tenant_id, %s) REFERENCES %s (tenant_id, id)",
                          def->columns[i].name, table_def((enum table) rule->parent)->name);
    }
    /*
     * A row that is found by several columns is stored in their order: a journal's events lie side
     * by side.
     */
    strbuf_printf(out, "\n)%s;\n", key_count > 1 ? " WITHOUT ROWID" : "");
}

static void write_indexes(struct strbuf *out, enum table table)
{
    const struct table_def *def = table_def(table);
    for (int i = 0; i < def->column_count; i++) {
        const char *name = def->columns[i].name;
        if (def->columns[i].flags & COLUMN_UNIQUE)
            strbuf_printf(out, "CREATE UNIQUE INDEX %s_%s ON %s (%s);\n", def->name, name,
                          def->name, name);
        bool is_due = def->columns[i].flags & COLUMN_DUE;
        if (!is_due && !(def->columns[i].flags & COLUMN_INDEXED))
            continue;
        strbuf_printf(out, "CREATE INDEX %s_%s ON %s (%s, %s", def->name, name, def->name,
                      is_due ? name : "tenant_id", is_due ? "tenant_id" : name);
        write_keys(out, def, i);
        strbuf_add_char(out, ')');
        /* Rows without a value are never looked for by it: they need no place in the index. */
        if (!(def->columns[i].flags & (COLUMN_KEY | COLUMN_REQUIRED)))
            strbuf_printf(out, " WHERE %s IS NOT NULL", name);
        strbuf_add(out, S(";\n"));
    }
}

void schema_write_sql(struct strbuf *out)
{
    for (int table = 0; table < TABLE_COUNT; table++) {
        write_table(out, (enum table) table);
        write_indexes(out, (enum table) table);
    }
    for (size_t i = 0; i < ARRAY_COUNT(further_sql); i++)
        strbuf_printf(out, "%s;\n", further_sql[i]);
}
