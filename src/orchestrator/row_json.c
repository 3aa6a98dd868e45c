#include "orchestrator/row_json.h"
#include "base/arena.h"

static void write_value(struct json_writer *w, const struct column_def *column,
                        const struct value *value)
{
    char id[UUID_TEXT_BYTES + 1];
    json_key(w, str_from_cstr(column->name));
    switch (column->type) {
    case COLUMN_UUID:
        uuid_format(value->id, id);
        json_write_str(w, str_of(id, UUID_TEXT_BYTES));
        break;
    case COLUMN_JSON: json_write_raw(w, value->text); break;
    case COLUMN_TEXT:
    case COLUMN_BLOB: json_write_str(w, value->text); break;
    case COLUMN_BOOLEAN: json_write_bool(w, value->integer != 0); break;
    case COLUMN_INTEGER:
    case COLUMN_TIME: json_write_i64(w, value->integer); break;
    }
}

void row_write_json(struct json_writer *w, const struct record *row)
{
    const struct table_def *table = table_def(row->table);
    json_object_begin(w);
    for (int i = 0; i < table->column_count; i++)
        if (record_has(row, i) && table->columns[i].type != COLUMN_BLOB)
            write_value(w, &table->columns[i], &row->values[i]);
    json_object_end(w);
}

static bool read_value(struct arena *arena, const struct column_def *column, int index,
                       const struct json *json, struct record *out)
{
    uuid id;
    str text;
    int64_t number;
    bool is_true;
    switch (column->type) {
    case COLUMN_UUID:
        if (!json_to_str(json, &text) || !uuid_parse(text, &id))
            return false;
        record_set_uuid(out, index, id);
        return true;
    case COLUMN_JSON: record_set_text(out, index, json_print(arena, json)); return true;
    case COLUMN_TEXT:
    case COLUMN_BLOB:
        if (!json_to_str(json, &text))
            return false;
        record_set_text(out, index, text);
        return true;
    case COLUMN_BOOLEAN:
        if (!json_to_bool(json, &is_true))
            return false;
        record_set_integer(out, index, is_true);
        return true;
    case COLUMN_INTEGER:
    case COLUMN_TIME:
        if (!json_to_i64(json, &number))
            return false;
        record_set_integer(out, index, number);
        return true;
    }
    return false;
}

bool row_read_json(struct arena *arena, enum table table, const struct json *json,
                   struct record *out, struct error *e)
{
    const struct table_def *def = table_def(table);
    *out = record_of(table);
    for (int i = 0; i < def->column_count; i++) {
        const struct json *value = json_get(json, str_from_cstr(def->columns[i].name));
        bool is_absent = json_type(value) == JSON_ABSENT || json_type(value) == JSON_NULL;
        if (!is_absent && !read_value(arena, &def->columns[i], i, value, out))
            return error_set(e, REASON_INVALID, "a row of %s: \"%s\" has a wrong type", def->name,
                             def->columns[i].name);
        bool is_needed = (def->columns[i].flags & (COLUMN_KEY | COLUMN_REQUIRED)) != 0;
        if (is_absent && is_needed && def->columns[i].type != COLUMN_BLOB)
            return error_set(e, REASON_INVALID, "a row of %s has no \"%s\"", def->name,
                             def->columns[i].name);
    }
    return true;
}
