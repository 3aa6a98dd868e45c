#include "store/cursor.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/strbuf.h"

/* Binary form, then base64url: version, table, order column + 1, descending, any tenant; each value
   as 8 bytes big endian, 16 bytes of uuid, or 4 bytes of length and the text. */
enum { CURSOR_VERSION = 1, CURSOR_HEAD_BYTES = 5 };

static void cursor_add_column(struct cursor *cursor, int column, enum column_type type)
{
    ensure(cursor->count < CURSOR_VALUES_MAX);
    cursor->columns[cursor->count++] = (struct cursor_column){column, type};
}

void cursor_columns(struct cursor *cursor, const struct query *query, bool is_any_tenant)
{
    const struct table_def *def = table_def(query->table);
    cursor->count = 0;
    if (query->order_column >= 0)
        cursor_add_column(cursor, query->order_column, def->columns[query->order_column].type);
    if (is_any_tenant)
        cursor_add_column(cursor, -1, COLUMN_UUID);
    for (int i = 0; i < def->column_count; i++)
        if (def->columns[i].flags & COLUMN_KEY && i != query->order_column)
            cursor_add_column(cursor, i, def->columns[i].type);
}

static void head_fill(char head[CURSOR_HEAD_BYTES], const struct query *query, bool is_any_tenant)
{
    head[0] = CURSOR_VERSION;
    head[1] = (char) query->table;
    head[2] = (char) (query->order_column + 1);
    head[3] = (char) query->is_descending;
    head[4] = (char) is_any_tenant;
}

static void big_endian_add(struct strbuf *b, uint64_t value, int bytes)
{
    for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8)
        strbuf_add_char(b, (char) (value >> shift & 0xff));
}

static bool big_endian_take(str *rest, int bytes, uint64_t *out)
{
    if (rest->len < (size_t) bytes)
        return false;
    *out = 0;
    for (int i = 0; i < bytes; i++)
        *out = *out << 8 | (uint8_t) rest->ptr[i];
    *rest = str_from(*rest, (size_t) bytes);
    return true;
}

static bool value_take(str *rest, enum column_type type, struct value *out)
{
    uint64_t number;
    if (column_is_integer(type)) {
        if (!big_endian_take(rest, 8, &number))
            return false;
        out->integer = (int64_t) number;
        return true;
    }
    size_t len = sizeof(out->id.bytes);
    if (type != COLUMN_UUID) {
        if (!big_endian_take(rest, 4, &number))
            return false;
        len = (size_t) number;
    }
    if (rest->len < len)
        return false;
    if (type == COLUMN_UUID)
        memcpy(out->id.bytes, rest->ptr, len);
    else
        out->text = str_slice(*rest, 0, len);
    *rest = str_from(*rest, len);
    return true;
}

static bool cursor_decode(struct arena *arena, str text, str *out)
{
    if (text.len > STORE_CURSOR_BYTES_MAX)
        return false;
    char *standard = arena_alloc(arena, text.len + 1);
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        if (c == '+' || c == '/')
            return false;
        standard[i] = c == '-' ? '+' : c == '_' ? '/' : c;
    }
    return base64_decode(arena, str_of(standard, text.len), out);
}

bool cursor_parse(struct cursor *cursor, const struct query *query, bool is_any_tenant,
                  struct arena *arena, struct error *e)
{
    char head[CURSOR_HEAD_BYTES];
    head_fill(head, query, is_any_tenant);
    *cursor = (struct cursor){0};
    cursor_columns(cursor, query, is_any_tenant);
    str rest;
    if (!cursor_decode(arena, query->cursor, &rest) ||
        !str_strip_prefix(rest, str_of(head, sizeof head), &rest))
        return error_set(e, REASON_INVALID,
                         "the cursor is not one of this list: start again without it");
    for (int i = 0; i < cursor->count; i++)
        if (!value_take(&rest, cursor->columns[i].type, &cursor->values[i]))
            return error_set(e, REASON_INVALID, "the cursor is damaged: start again without it");
    if (rest.len > 0)
        return error_set(e, REASON_INVALID, "the cursor is damaged: start again without it");
    return true;
}

bool cursor_print(const struct query *query, bool is_any_tenant, uuid tenant_id,
                  const struct record *last, struct arena *arena, str *out, struct error *e)
{
    struct cursor cursor = {0};
    cursor_columns(&cursor, query, is_any_tenant);
    char head[CURSOR_HEAD_BYTES];
    head_fill(head, query, is_any_tenant);
    struct strbuf b;
    strbuf_init(&b, arena, STORE_CURSOR_BYTES_MAX / 4 * 3);
    strbuf_add(&b, str_of(head, sizeof head));
    for (int i = 0; i < cursor.count; i++) {
        struct value tenant = {.id = tenant_id};
        int column = cursor.columns[i].column;
        const struct value *value = column < 0 ? &tenant : &last->values[column];
        if (column_is_integer(cursor.columns[i].type)) {
            big_endian_add(&b, (uint64_t) value->integer, 8);
        } else if (cursor.columns[i].type == COLUMN_UUID) {
            strbuf_add(&b, str_of((const char *) value->id.bytes, sizeof value->id.bytes));
        } else {
            big_endian_add(&b, value->text.len, 4);
            strbuf_add(&b, value->text);
        }
    }
    if (strbuf_is_over(&b))
        return error_set(e, REASON_LIMIT, "%s: the last row's key is too long for a cursor",
                         table_def(query->table)->name);
    *out = base64url_encode(arena, strbuf_str(&b));
    return true;
}
