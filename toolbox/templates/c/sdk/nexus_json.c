/* JSON: RFC 8259 to a tree, and back by a writer. */
#include "nexus.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEPTH_MAX = 64, NUMBER_BYTES_MAX = 64, FIRST_BYTES = 256 };

struct json {
    struct json *next, *first, *last;
    struct text name, text; /* text: of a number as written, of a text without its escapes */
    size_t count;
    enum json_kind kind;
    bool truth;
};

struct out {
    char *ptr;
    size_t len, capacity;
    int depth;
    bool is_object[DEPTH_MAX + 1], has_items[DEPTH_MAX + 1], after_name;
};

/* Running out of the sandbox's memory ends the call; the host reports it as the memory limit. */
static void *allocate(void *old, size_t bytes)
{
    void *memory = realloc(old, bytes);
    if (!memory)
        __builtin_trap();
    return memory;
}

struct text text_of(const char *terminated)
{
    return (struct text){terminated, strlen(terminated)};
}

bool text_equal(struct text a, struct text b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

/* ---- reading ---- */

struct reader {
    const char *at, *end;
    int depth;
};

static bool read_value(struct reader *r, struct json *out);

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
}

static bool take(struct reader *r, char c)
{
    skip_blanks(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

static bool take_word(struct reader *r, const char *word)
{
    size_t len = strlen(word);
    if ((size_t) (r->end - r->at) < len || memcmp(r->at, word, len) != 0)
        return false;
    r->at += len;
    return true;
}

static bool read_hex4(struct reader *r, uint32_t *out)
{
    uint32_t value = 0;
    if (r->end - r->at < 4)
        return false;
    for (int i = 0; i < 4; i++) {
        char c = *r->at++;
        uint32_t digit;
        if (c >= '0' && c <= '9')
            digit = (uint32_t) (c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (uint32_t) (c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (uint32_t) (c - 'A') + 10;
        else
            return false;
        value = value << 4 | digit;
    }
    *out = value;
    return true;
}

static size_t put_utf8(char *to, uint32_t c)
{
    if (c < 0x80) {
        to[0] = (char) c;
        return 1;
    }
    size_t count = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char first[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = count - 1; i > 0; i--, c >>= 6)
        to[i] = (char) (0x80 | (c & 0x3f));
    to[0] = (char) (first[count] | c);
    return count;
}

/* Behind the backslash and the u; a pair of surrogates is one character, half of one is refused. */
static bool read_unicode(struct reader *r, char *to, size_t *count)
{
    uint32_t high, low;
    if (!read_hex4(r, &high))
        return false;
    if (high >= 0xdc00 && high <= 0xdfff)
        return false;
    if (high >= 0xd800 && high <= 0xdbff) {
        if (!take_word(r, "\\u") || !read_hex4(r, &low) || low < 0xdc00 || low > 0xdfff)
            return false;
        high = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    }
    *count = put_utf8(to, high);
    return true;
}

static bool read_escape(struct reader *r, char *to, size_t *count)
{
    static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
    if (r->at == r->end)
        return false;
    char c = *r->at++;
    if (c == 'u')
        return read_unicode(r, to, count);
    const char *found = c ? strchr(from, c) : NULL;
    if (!found)
        return false;
    *to = into[found - from];
    *count = 1;
    return true;
}

/* Behind the opening quote.  Without escapes the text lies in the input; an escape is never shorter than what it stands for. */
static bool read_text(struct reader *r, struct text *out)
{
    const char *start = r->at;
    while (r->at < r->end && *r->at != '"' && *r->at != '\\' && (unsigned char) *r->at >= 0x20)
        r->at++;
    if (r->at < r->end && *r->at == '"') {
        *out = (struct text){start, (size_t) (r->at++ - start)};
        return true;
    }
    size_t len = (size_t) (r->at - start), count;
    const char *close = r->at;
    while (close < r->end && *close != '"')
        close += *close == '\\' && close + 1 < r->end ? 2 : 1;
    char *copy = allocate(NULL, (size_t) (close - start) + 1);
    memcpy(copy, start, len);
    while (r->at < r->end && *r->at != '"') {
        if ((unsigned char) *r->at < 0x20)
            return false;
        if (*r->at != '\\') {
            copy[len++] = *r->at++;
            continue;
        }
        r->at++;
        if (!read_escape(r, copy + len, &count))
            return false;
        len += count;
    }
    *out = (struct text){copy, len};
    return r->at++ < r->end;
}

static size_t skip_digits(struct reader *r)
{
    const char *start = r->at;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9')
        r->at++;
    return (size_t) (r->at - start);
}

static bool read_number(struct reader *r, struct json *out)
{
    const char *start = r->at;
    take_word(r, "-");
    const char *whole = r->at;
    size_t digits = skip_digits(r);
    if (digits == 0 || (digits > 1 && *whole == '0'))
        return false;
    if (take_word(r, ".") && skip_digits(r) == 0)
        return false;
    if (take_word(r, "e") || take_word(r, "E")) {
        if (!take_word(r, "+"))
            take_word(r, "-");
        if (skip_digits(r) == 0)
            return false;
    }
    out->kind = JSON_NUMBER;
    out->text = (struct text){start, (size_t) (r->at - start)};
    return true;
}

static struct json *add_item(struct json *container)
{
    struct json *item = allocate(NULL, sizeof *item);
    *item = (struct json){0};
    if (container->last)
        container->last->next = item;
    else
        container->first = item;
    container->last = item;
    container->count++;
    return item;
}

static bool read_items(struct reader *r, struct json *out, char close)
{
    if (++r->depth > DEPTH_MAX)
        return false;
    out->kind = close == '}' ? JSON_OBJECT : JSON_ARRAY;
    if (!take(r, close)) {
        do {
            struct json *item = add_item(out);
            if (close == '}' && (!take(r, '"') || !read_text(r, &item->name) || !take(r, ':')))
                return false;
            if (!read_value(r, item))
                return false;
        } while (take(r, ','));
        if (!take(r, close))
            return false;
    }
    r->depth--;
    return true;
}

static bool read_value(struct reader *r, struct json *out)
{
    skip_blanks(r);
    if (r->at == r->end)
        return false;
    switch (*r->at) {
    case '{': r->at++; return read_items(r, out, '}');
    case '[': r->at++; return read_items(r, out, ']');
    case '"':
        r->at++;
        out->kind = JSON_TEXT;
        return read_text(r, &out->text);
    case 't':
        out->kind = JSON_BOOL;
        out->truth = true;
        return take_word(r, "true");
    case 'f': out->kind = JSON_BOOL; return take_word(r, "false");
    case 'n': out->kind = JSON_NULL; return take_word(r, "null");
    default: return read_number(r, out);
    }
}

const struct json *json_parse(struct text text)
{
    struct reader r = {text.ptr, text.ptr + text.len, 0};
    struct json *root = allocate(NULL, sizeof *root);
    *root = (struct json){0};
    if (!read_value(&r, root))
        return NULL;
    skip_blanks(&r);
    return r.at == r.end ? root : NULL;
}

enum json_kind json_kind_of(const struct json *value)
{
    return value ? value->kind : JSON_ABSENT;
}

const struct json *json_get(const struct json *object, const char *name)
{
    struct text wanted = text_of(name);
    if (json_kind_of(object) != JSON_OBJECT)
        return NULL;
    for (const struct json *item = object->first; item; item = item->next)
        if (text_equal(item->name, wanted))
            return item;
    return NULL;
}

const struct json *json_first(const struct json *array_or_object)
{
    return array_or_object ? array_or_object->first : NULL;
}

const struct json *json_next(const struct json *item)
{
    return item ? item->next : NULL;
}

struct text json_name(const struct json *member)
{
    return member ? member->name : (struct text){0};
}

size_t json_count(const struct json *array_or_object)
{
    return array_or_object ? array_or_object->count : 0;
}

bool json_text(const struct json *value, struct text *out)
{
    if (json_kind_of(value) != JSON_TEXT)
        return false;
    *out = value->text;
    return true;
}

bool json_real(const struct json *value, double *out)
{
    if (json_kind_of(value) != JSON_NUMBER)
        return false;
    char *copy = allocate(NULL, value->text.len + 1);
    memcpy(copy, value->text.ptr, value->text.len);
    copy[value->text.len] = '\0';
    *out = strtod(copy, NULL);
    free(copy);
    return true;
}

bool json_integer(const struct json *value, int64_t *out)
{
    const double limit = 9223372036854775808.0; /* 2^63 */
    double real;
    if (json_kind_of(value) != JSON_NUMBER)
        return false;
    bool is_negative = value->text.ptr[0] == '-';
    size_t i = is_negative;
    int64_t whole = 0;
    for (; i < value->text.len && value->text.ptr[i] >= '0' && value->text.ptr[i] <= '9'; i++) {
        int digit = value->text.ptr[i] - '0';
        if (__builtin_mul_overflow(whole, 10, &whole) ||
            __builtin_add_overflow(whole, is_negative ? -digit : digit, &whole))
            return false;
    }
    if (i < value->text.len) { /* 1e3 and 2.0 are whole too */
        if (!json_real(value, &real) || real < -limit || real >= limit || real != floor(real))
            return false;
        whole = (int64_t) real;
    }
    *out = whole;
    return true;
}

bool json_bool(const struct json *value, bool *out)
{
    if (json_kind_of(value) != JSON_BOOL)
        return false;
    *out = value->truth;
    return true;
}

/* ---- writing ---- */

struct out *out_create(void)
{
    struct out *out = allocate(NULL, sizeof *out);
    *out = (struct out){0};
    return out;
}

static void put(struct out *out, const char *bytes, size_t count)
{
    if (count > out->capacity - out->len) {
        size_t doubled = out->capacity ? 2 * out->capacity : FIRST_BYTES;
        out->capacity = doubled - out->len < count ? out->len + count : doubled;
        out->ptr = allocate(out->ptr, out->capacity);
    }
    memcpy(out->ptr + out->len, bytes, count);
    out->len += count;
}

struct text nexus_out_bytes(const struct out *out);
struct text nexus_out_bytes(const struct out *out)
{
    return (struct text){out->ptr, out->len};
}

/* The comma, if one belongs here. */
static void begin_value(struct out *out)
{
    if (!out->after_name && out->has_items[out->depth])
        put(out, ",", 1);
    out->after_name = false;
    out->has_items[out->depth] = true;
}

static void open_container(struct out *out, bool is_object)
{
    begin_value(out);
    if (++out->depth > DEPTH_MAX)
        __builtin_trap();
    out->is_object[out->depth] = is_object;
    out->has_items[out->depth] = false;
    put(out, is_object ? "{" : "[", 1);
}

void out_object(struct out *out)
{
    open_container(out, true);
}

void out_array(struct out *out)
{
    open_container(out, false);
}

void out_end(struct out *out)
{
    if (out->depth == 0)
        __builtin_trap();
    put(out, out->is_object[out->depth] ? "}" : "]", 1);
    out->depth--;
}

/* Length of the UTF-8 sequence at the front, 0 when there is none. */
static size_t sequence(const unsigned char *at, size_t left)
{
    size_t count = at[0] < 0x80 ? 1 : at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
    if (count == 1)
        return 1;
    if (at[0] < 0xc2 || at[0] > 0xf4 || count > left)
        return 0;
    for (size_t i = 1; i < count; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    bool is_long = (at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xf0 && at[1] < 0x90);
    bool is_outside = (at[0] == 0xed && at[1] > 0x9f) || (at[0] == 0xf4 && at[1] > 0x8f);
    return is_long || is_outside ? 0 : count;
}

static void put_quoted(struct out *out, struct text value)
{
    const unsigned char *at = (const unsigned char *) value.ptr;
    put(out, "\"", 1);
    for (size_t left = value.len, count; left > 0; at += count, left -= count) {
        char escape[8];
        count = sequence(at, left);
        if (count == 0) {
            put(out, "\xef\xbf\xbd", 3);
            count = 1;
        } else if (*at == '"' || *at == '\\') {
            put(out, *at == '"' ? "\\\"" : "\\\\", 2);
        } else if (*at < 0x20) {
            put(out, escape, (size_t) snprintf(escape, sizeof escape, "\\u%04x", *at));
        } else {
            put(out, (const char *) at, count);
        }
    }
    put(out, "\"", 1);
}

static void put_name(struct out *out, struct text name)
{
    begin_value(out);
    put_quoted(out, name);
    put(out, ":", 1);
    out->after_name = true;
}

void out_name(struct out *out, const char *name)
{
    put_name(out, text_of(name));
}

void out_text(struct out *out, struct text value)
{
    begin_value(out);
    put_quoted(out, value);
}

static void put_plain(struct out *out, struct text value)
{
    begin_value(out);
    put(out, value.ptr, value.len);
}

void out_integer(struct out *out, int64_t value)
{
    char digits[NUMBER_BYTES_MAX];
    int count = snprintf(digits, sizeof digits, "%lld", (long long) value);
    put_plain(out, (struct text){digits, (size_t) count});
}

void out_real(struct out *out, double value)
{
    char digits[NUMBER_BYTES_MAX];
    if (!isfinite(value)) {
        out_null(out);
        return;
    }
    /* The shortest of these that reads back as the same number. */
    int count = 0;
    for (int precision = 15; precision <= 17; precision++) {
        count = snprintf(digits, sizeof digits, "%.*g", precision, value);
        if (strtod(digits, NULL) == value) /* NOLINT: exactly equal is meant */
            break;
    }
    put_plain(out, (struct text){digits, (size_t) count});
}

void out_bool(struct out *out, bool value)
{
    put_plain(out, text_of(value ? "true" : "false"));
}

void out_null(struct out *out)
{
    put_plain(out, text_of("null"));
}

void out_value(struct out *out, const struct json *value)
{
    switch (json_kind_of(value)) {
    case JSON_ABSENT:
    case JSON_NULL: out_null(out); return;
    case JSON_BOOL: out_bool(out, value->truth); return;
    case JSON_NUMBER: put_plain(out, value->text); return;
    case JSON_TEXT: out_text(out, value->text); return;
    case JSON_ARRAY:
    case JSON_OBJECT: break;
    }
    open_container(out, value->kind == JSON_OBJECT);
    for (const struct json *item = value->first; item; item = item->next) {
        if (value->kind == JSON_OBJECT)
            put_name(out, item->name);
        out_value(out, item);
    }
    out_end(out);
}
