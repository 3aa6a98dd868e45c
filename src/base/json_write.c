#include "base/json.h"

#include "base/ensure.h"
#include "base/json_internal.h"
#include "base/utf8_internal.h"

#include <math.h>

enum { WRITER_DEPTH_MAX = 63 };

/* ---- strings ---- */

/*
 * What may stand in a string as it is: ASCII from the space on, less the quote and the backslash.
 */
static bool is_plain(unsigned char c)
{
    return c >= 0x20 && c < 0x80 && c != '"' && c != '\\';
}

static void escape_char(struct strbuf *out, unsigned char c)
{
    static const char digits[] = "0123456789abcdef";
    static const char letters[0x20] = {
        ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r'};
    char text[6] = {'\\', (char) c};
    size_t len = 2;
    if (c < 0x20 && letters[c]) {
        text[1] = letters[c];
    } else if (c < 0x20) {
        memcpy(text + 1, "u00", 3);
        text[4] = digits[c >> 4];
        text[5] = digits[c & 15];
        len = 6;
    }
    strbuf_add(out, str_of(text, len));
}

void json_escape(struct strbuf *out, str value)
{
    const unsigned char *p = (const unsigned char *) value.ptr;
    strbuf_add_char(out, '"');
    for (size_t i = 0; i < value.len;) {
        size_t begin = i, bad = 0;
        while (i < value.len) { /* a run that needs no change is copied in one piece */
            size_t bytes = is_plain(p[i]) ? 1
                           : p[i] >= 0x80 ? utf8_sequence(p + i, value.len - i, &bad)
                                          : 0;
            if (bytes == 0)
                break;
            i += bytes;
        }
        strbuf_add(out, str_slice(value, begin, i));
        if (bad > 0) {
            strbuf_add(out, S("\xef\xbf\xbd"));
            i += bad;
        } else if (i < value.len) {
            escape_char(out, p[i++]);
        }
    }
    strbuf_add_char(out, '"');
}

/* ---- the writer ---- */

void json_writer_init(struct json_writer *w, struct strbuf *out)
{
    *w = (struct json_writer){.out = out};
}

/* The comma before a value, unless it is the first of its level or follows its key. */
static void before_value(struct json_writer *w)
{
    uint64_t level = UINT64_C(1) << w->depth;
    if (w->after_key) {
        w->after_key = false;
        return;
    }
    if (w->has_items & level) {
        ensure(w->depth > 0); /* one value at the top */
        strbuf_add_char(w->out, ',');
    }
    w->has_items |= level;
}

static void begin_level(struct json_writer *w, char bracket)
{
    ensure(w->depth < WRITER_DEPTH_MAX);
    before_value(w);
    strbuf_add_char(w->out, bracket);
    w->depth++;
    w->has_items &= ~(UINT64_C(1) << w->depth);
}

static void end_level(struct json_writer *w, char bracket)
{
    ensure(w->depth > 0 && !w->after_key);
    w->depth--;
    strbuf_add_char(w->out, bracket);
}

void json_object_begin(struct json_writer *w)
{
    begin_level(w, '{');
}

void json_object_end(struct json_writer *w)
{
    end_level(w, '}');
}

void json_array_begin(struct json_writer *w)
{
    begin_level(w, '[');
}

void json_array_end(struct json_writer *w)
{
    end_level(w, ']');
}

void json_key(struct json_writer *w, str key)
{
    ensure(w->depth > 0 && !w->after_key);
    before_value(w);
    json_escape(w->out, key);
    strbuf_add_char(w->out, ':');
    w->after_key = true;
}

void json_write_str(struct json_writer *w, str value)
{
    before_value(w);
    json_escape(w->out, value);
}

void json_write_i64(struct json_writer *w, int64_t value)
{
    before_value(w);
    strbuf_add_i64(w->out, value);
}

void json_write_u64(struct json_writer *w, uint64_t value)
{
    before_value(w);
    strbuf_add_u64(w->out, value);
}

void json_write_double(struct json_writer *w, double value)
{
    char text[JSON_NUMBER_BYTES];
    if (!isfinite(value)) {
        json_write_null(w);
        return;
    }
    before_value(w);
    strbuf_add(w->out, str_of(text, json_format_double(value, text)));
}

void json_write_bool(struct json_writer *w, bool value)
{
    before_value(w);
    strbuf_add(w->out, value ? S("true") : S("false"));
}

void json_write_null(struct json_writer *w)
{
    before_value(w);
    strbuf_add(w->out, S("null"));
}

void json_write_value(struct json_writer *w, const struct json *value)
{
    before_value(w);
    json_print_to(w->out, value);
}

void json_write_raw(struct json_writer *w, str json_text)
{
    before_value(w);
    strbuf_add(w->out, json_text);
}

void json_put_str(struct json_writer *w, str key, str value)
{
    json_key(w, key);
    json_write_str(w, value);
}

void json_put_i64(struct json_writer *w, str key, int64_t value)
{
    json_key(w, key);
    json_write_i64(w, value);
}

void json_put_bool(struct json_writer *w, str key, bool value)
{
    json_key(w, key);
    json_write_bool(w, value);
}

void json_put_double(struct json_writer *w, str key, double value)
{
    json_key(w, key);
    json_write_double(w, value);
}

void json_put_raw(struct json_writer *w, str key, str json_text)
{
    json_key(w, key);
    json_write_raw(w, json_text);
}

void json_put_value(struct json_writer *w, str key, const struct json *value)
{
    json_key(w, key);
    json_write_value(w, value);
}

void json_put_i64_str(struct json_writer *w, str key, int64_t value)
{
    json_key(w, key);
    before_value(w);
    strbuf_add_char(w->out, '"');
    strbuf_add_i64(w->out, value);
    strbuf_add_char(w->out, '"');
}

str json_print(struct arena *arena, const struct json *value)
{
    struct strbuf text;
    strbuf_init(&text, arena, SIZE_MAX / 4); /* a tree was bounded when it was read */
    json_print_to(&text, value);
    return strbuf_str(&text);
}
