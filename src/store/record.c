#include "store/record.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/timefmt.h"
#include <assert.h>

#define KEY COLUMN_KEY
#define REQUIRED COLUMN_REQUIRED
#define INDEXED COLUMN_INDEXED
#define UNIQUE COLUMN_UNIQUE
#define DUE COLUMN_DUE

#define TABLE(table_name, sql) static const struct column_def columns_of_##table_name[] = {
#define COLUMN(table, column, sql, type, flags) [table##_##column] = {#sql, COLUMN_##type, (flags)},
#define END_TABLE(table_name)                                                                      \
    }                                                                                              \
    ;                                                                                              \
    static_assert((int) table_name##_COLUMN_COUNT <= (int) RECORD_COLUMNS_MAX,                     \
                  "a record has room for its columns");
#include "store/tables.def"
#undef TABLE
#undef COLUMN
#undef END_TABLE

#undef KEY
#undef REQUIRED
#undef INDEXED
#undef UNIQUE
#undef DUE

static const struct table_def table_defs[] = {
#define TABLE(table_name, sql)                                                                     \
    [TABLE_##table_name] = {#sql, columns_of_##table_name, table_name##_COLUMN_COUNT},
#define COLUMN(table, column, sql, type, flags)
#define END_TABLE(table_name)
#include "store/tables.def"
#undef TABLE
#undef COLUMN
#undef END_TABLE
};

#define NOW(table, column)                                                                         \
    {                                                                                              \
        TABLE_##table, table##_##column, DEFAULT_NOW, S_INIT(""), 0, -1                            \
    }
#define TEXT(table, column, text)                                                                  \
    {                                                                                              \
        TABLE_##table, table##_##column, DEFAULT_TEXT, S_INIT(text), 0, -1                         \
    }
#define INTEGER(table, column, integer)                                                            \
    {                                                                                              \
        TABLE_##table, table##_##column, DEFAULT_INTEGER, S_INIT(""), integer, -1                  \
    }
#define PARENT(table, column, parent)                                                              \
    {                                                                                              \
        TABLE_##table, table##_##column, DEFAULT_NONE, S_INIT(""), 0, TABLE_##parent               \
    }
static const struct column_rule rules[] = {
    NOW(TENANTS, CREATED_AT),
    NOW(SESSIONS, CREATED_AT),
    NOW(SESSIONS, UPDATED_AT),
    TEXT(SESSIONS, STATUS, "active"),
    TEXT(SESSIONS, BUDGET, "{\"tokens\":10000,\"time_seconds\":3600}"),
    PARENT(MESSAGES, SESSION_ID, SESSIONS),
    INTEGER(MESSAGES, TOKENS, 0),
    NOW(MESSAGES, CREATED_AT),
    PARENT(AGENT_RUNS, SESSION_ID, SESSIONS),
    NOW(AGENT_RUNS, STARTED_AT),
    PARENT(TOOL_CALLS, RUN_ID, AGENT_RUNS),
    NOW(TOOL_CALLS, CREATED_AT),
    NOW(AUDIT_LOGS, CREATED_AT),
};
#undef NOW
#undef TEXT
#undef INTEGER
#undef PARENT

const struct table_def *table_def(enum table table)
{
    ensure((unsigned) table < TABLE_COUNT);
    return &table_defs[table];
}

const struct column_rule *column_rules(size_t *count)
{
    *count = ARRAY_COUNT(rules);
    return rules;
}

static const struct column_def *column_of(const struct record *r, int column)
{
    const struct table_def *def = table_def(r->table);
    ensure(column >= 0 && column < def->column_count);
    return &def->columns[column];
}

static struct value *value_set(struct record *r, int column)
{
    r->has |= 1u << column;
    struct value *value = &r->values[column];
    value->is_null = false;
    value->text = STR_NONE; /* the widest member: all of the union */
    return value;
}

struct record record_of(enum table table)
{
    return (struct record){.table = table};
}

void record_set_uuid(struct record *r, int column, uuid id)
{
    ensure(column_of(r, column)->type == COLUMN_UUID);
    value_set(r, column)->id = id;
}

void record_set_text(struct record *r, int column, str text)
{
    enum column_type type = column_of(r, column)->type;
    ensure(column_is_text(type));
    value_set(r, column)->text = text;
}

void record_set_integer(struct record *r, int column, int64_t value)
{
    ensure(column_is_integer(column_of(r, column)->type));
    value_set(r, column)->integer = value;
}

void record_set_null(struct record *r, int column)
{
    column_of(r, column);
    value_set(r, column)->is_null = true;
}

bool record_has(const struct record *r, int column)
{
    column_of(r, column);
    return (r->has & 1u << column) && !r->values[column].is_null;
}

uuid record_uuid(const struct record *r, int column)
{
    ensure(column_of(r, column)->type == COLUMN_UUID);
    return record_has(r, column) ? r->values[column].id : UUID_NONE;
}

str record_text(const struct record *r, int column)
{
    enum column_type type = column_of(r, column)->type;
    ensure(column_is_text(type));
    return record_has(r, column) ? r->values[column].text : STR_NONE;
}

int64_t record_integer(const struct record *r, int column)
{
    ensure(column_is_integer(column_of(r, column)->type));
    return record_has(r, column) ? r->values[column].integer : 0;
}

void record_fill_defaults(struct record *r, int64_t now_us)
{
    for (size_t i = 0; i < ARRAY_COUNT(rules); i++) {
        const struct column_rule *rule = &rules[i];
        if (rule->table != r->table || rule->otherwise == DEFAULT_NONE ||
            r->has & 1u << rule->column)
            continue;
        if (rule->otherwise == DEFAULT_TEXT)
            record_set_text(r, rule->column, rule->text);
        else
            record_set_integer(r, rule->column,
                               rule->otherwise == DEFAULT_NOW ? now_us : rule->integer);
    }
}

int value_compare(enum column_type type, const struct value *a, const struct value *b)
{
    if (column_is_integer(type))
        return (a->integer > b->integer) - (a->integer < b->integer);
    return type == COLUMN_UUID ? uuid_compare(a->id, b->id) : str_compare(a->text, b->text);
}

void record_copy(struct arena *arena, struct record *to, const struct record *from)
{
    *to = *from;
    const struct table_def *def = table_def(from->table);
    for (int i = 0; i < def->column_count; i++)
        if (from->has & 1u << i && value_text(def->columns[i].type, &from->values[i]).len > 0)
            to->values[i].text = str_copy(arena, from->values[i].text);
}

static void value_write_json(struct json_writer *w, enum column_type type,
                             const struct value *value)
{
    char buffer[64];
    switch (type) {
    case COLUMN_UUID:
        uuid_format(value->id, buffer);
        json_write_str(w, str_of(buffer, UUID_TEXT_BYTES));
        return;
    case COLUMN_TIME:
        time_format(value->integer, buffer);
        json_write_str(w, str_from_cstr(buffer));
        return;
    case COLUMN_INTEGER: json_write_i64(w, value->integer); return;
    case COLUMN_BOOLEAN: json_write_bool(w, value->integer != 0); return;
    case COLUMN_JSON: json_write_raw(w, value->text); return;
    case COLUMN_TEXT:
    case COLUMN_BLOB: json_write_str(w, value->text); return;
    }
    unreachable_state();
}

void record_write_json(struct json_writer *w, const struct record *r)
{
    const struct table_def *def = table_def(r->table);
    json_object_begin(w);
    for (int i = 0; i < def->column_count; i++) {
        if (!(r->has & 1u << i))
            continue;
        json_key(w, str_from_cstr(def->columns[i].name));
        if (r->values[i].is_null)
            json_write_null(w);
        else
            value_write_json(w, def->columns[i].type, &r->values[i]);
    }
    json_object_end(w);
}
