/*
 * Records: typed rows of the tables in tables.def.  Pure data, no I/O.
 *
 * A record is one row, whole or in part: `has` tells which columns are set (a NULL value is set and null).
 *
 *      struct record r = record_of(TABLE_SESSIONS);
 *      record_set_uuid(&r, SESSIONS_ID, id);  record_set_text(&r, SESSIONS_STATUS, S("active"));
 *
 * Strings are borrowed: they must live as long as the record is used (until store_commit returns).
 * Reading the wrong type is an ensure: columns are ours, not the outside's.
 */
#ifndef NEXUS_STORE_RECORD_H
#define NEXUS_STORE_RECORD_H

#include "base/json.h"
#include "base/uuid.h"

enum table {
#define TABLE(name, sql) TABLE_##name,
#define COLUMN(table, name, sql, type, flags)
#define END_TABLE(name)
#include "store/tables.def"
#undef TABLE
#undef COLUMN
#undef END_TABLE
    TABLE_COUNT
};

/* SESSIONS_ID, SESSIONS_USER_ID, ..., SESSIONS_COLUMN_COUNT; MESSAGES_ID ... */
#define TABLE(name, sql)                                                                           \
    enum name##_column                                                                             \
    {
#define COLUMN(table, name, sql, type, flags) table##_##name,
#define END_TABLE(name)                                                                            \
    name##_COLUMN_COUNT                                                                            \
    }                                                                                              \
    ;
#include "store/tables.def"
#undef TABLE
#undef COLUMN
#undef END_TABLE

enum column_type {
    COLUMN_UUID,
    COLUMN_TEXT,
    COLUMN_INTEGER,
    COLUMN_JSON,
    COLUMN_TIME,
    COLUMN_BOOLEAN,
    COLUMN_BLOB
};
enum column_flag {
    COLUMN_KEY = 1,
    COLUMN_REQUIRED = 2,
    COLUMN_INDEXED = 4,
    COLUMN_UNIQUE = 8,
    COLUMN_DUE = 16
};

struct column_def {
    const char *name;
    enum column_type type;
    unsigned flags;
};
struct table_def {
    const char *name;
    const struct column_def *columns; /* tenant_id is not among them: every table has it */
    int column_count;
};
const struct table_def *table_def(enum table table);

enum { RECORD_COLUMNS_MAX = 28 };

struct value {
    bool is_null;
    union {              /* by the column's type */
        int64_t integer; /* INTEGER, TIME, BOOLEAN */
        uuid id;         /* UUID */
        str text;        /* TEXT, JSON, BLOB */
    };
};
struct record {
    enum table table;
    uint32_t has; /* bit per column */
    struct value values[RECORD_COLUMNS_MAX];
};

struct record record_of(enum table table);
void record_set_uuid(struct record *r, int column, uuid id);
void record_set_text(struct record *r, int column, str text);         /* TEXT, JSON, BLOB */
void record_set_integer(struct record *r, int column, int64_t value); /* INTEGER, TIME, BOOLEAN */
void record_set_null(struct record *r, int column);
bool record_has(const struct record *r, int column);        /* set and not null */
uuid record_uuid(const struct record *r, int column);       /* UUID_NONE when null */
str record_text(const struct record *r, int column);        /* STR_NONE when null */
int64_t record_integer(const struct record *r, int column); /* 0 when null */

/*
 * What the spec says of some columns beyond their type: a default for inserts that leave them out, and the table whose row (of the
 * same tenant) a UUID column must name.  Back ends make their constraints from this list; the memory back end follows it itself.
 */
enum column_default { DEFAULT_NONE, DEFAULT_NOW, DEFAULT_TEXT, DEFAULT_INTEGER };
struct column_rule {
    enum table table;
    int column;
    enum column_default otherwise;
    str text;        /* DEFAULT_TEXT */
    int64_t integer; /* DEFAULT_INTEGER */
    int parent;      /* an enum table, or -1 */
};
const struct column_rule *column_rules(size_t *count);
/* Sets the columns that an insert left out and that have a default. */
void record_fill_defaults(struct record *r, int64_t now_us);

static inline bool column_is_integer(enum column_type type)
{
    return type == COLUMN_INTEGER || type == COLUMN_TIME || type == COLUMN_BOOLEAN;
}
static inline bool column_is_text(enum column_type type)
{
    return type == COLUMN_TEXT || type == COLUMN_JSON || type == COLUMN_BLOB;
}
/* The text of a value; STR_NONE when it is null or of a type without. */
static inline str value_text(enum column_type type, const struct value *value)
{
    return column_is_text(type) && !value->is_null ? value->text : STR_NONE;
}
/* Order of two non-null values of one type: numbers by size, everything else bytewise. */
int value_compare(enum column_type type, const struct value *a, const struct value *b);
/* Deep copy: strings go to the arena. */
void record_copy(struct arena *arena, struct record *to, const struct record *from);

/* Whole record to a JSON object: times RFC 3339, JSON columns embedded, nulls written. */
void record_write_json(struct json_writer *w, const struct record *r);

#endif
