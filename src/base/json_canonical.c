/*
 * RFC 8785, JSON Canonicalization Scheme.
 *
 * Integers past 2^53 lie outside the RFC's domain (I-JSON); they keep all their digits here, so
 * that two different amounts never share a digest.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/json.h"
#include "base/json_internal.h"

#include <stdlib.h>

struct member {
    str key;
    const struct json *value;
};

/*
 * UTF-16 order is byte order of UTF-8 but for one thing: characters past U+FFFF are surrogates
 * there (D800..DFFF) and so come before U+E000..U+FFFF, whose UTF-8 begins with EE or EF.  Ranking
 * those two bytes last mends it.
 */
static int utf16_rank(char c)
{
    int byte = (unsigned char) c;
    return byte == 0xee || byte == 0xef ? byte + 0x10 : byte;
}

static int compare_members(const void *a, const void *b)
{
    str left = ((const struct member *) a)->key, right = ((const struct member *) b)->key;
    for (size_t i = 0; i < left.len && i < right.len; i++) {
        if (left.ptr[i] != right.ptr[i])
            return utf16_rank(left.ptr[i]) - utf16_rank(right.ptr[i]);
    }
    return left.len < right.len ? -1 : left.len > right.len;
}

/* ---- numbers as ECMAScript's Number::toString writes them ---- */

/* value = 0.DIGITS * 10^point: the significant digits without leading or trailing zeros. */
struct decimal {
    bool is_negative;
    char digits[JSON_NUMBER_BYTES];
    int count;
    int point;
};

static struct decimal decimal_of(double value)
{
    struct decimal d = {0};
    char text[JSON_NUMBER_BYTES];
    size_t len = json_format_double(value, text), i = 0;
    bool is_past_point = false;
    if (text[0] == '-') {
        d.is_negative = true;
        i++;
    }
    for (; i < len && text[i] != 'e' && text[i] != 'E'; i++) {
        if (text[i] == '.') {
            is_past_point = true;
        } else if (d.count == 0 && text[i] == '0') {
            d.point -= is_past_point;
        } else {
            d.digits[d.count++] = text[i];
            d.point += !is_past_point;
        }
    }
    if (i < len) {
        int64_t exponent;
        str exponent_text = str_of(text + i + 1, len - i - 1);
        str_strip_prefix(exponent_text, S("+"), &exponent_text);
        ensure(str_to_i64(exponent_text, &exponent));
        d.point += (int) exponent;
    }
    while (d.count > 0 && d.digits[d.count - 1] == '0')
        d.count--;
    return d;
}

static void add_zeros(struct strbuf *out, int count)
{
    for (int i = 0; i < count; i++)
        strbuf_add_char(out, '0');
}

static void add_exponent_form(struct strbuf *out, str digits, int point)
{
    strbuf_add_char(out, digits.ptr[0]);
    if (digits.len > 1) {
        strbuf_add_char(out, '.');
        strbuf_add(out, str_from(digits, 1));
    }
    strbuf_add(out, point > 0 ? S("e+") : S("e-"));
    strbuf_add_i64(out, point > 0 ? point - 1 : 1 - point);
}

/* ECMA-262, Number::toString, radix 10: k digits, n is `point`. */
static void add_double(struct strbuf *out, double value)
{
    struct decimal d = decimal_of(value);
    str digits = str_of(d.digits, (size_t) d.count);
    if (d.count == 0) { /* -0 too */
        strbuf_add_char(out, '0');
        return;
    }
    if (d.is_negative)
        strbuf_add_char(out, '-');
    if (d.count <= d.point && d.point <= 21) {
        strbuf_add(out, digits);
        add_zeros(out, d.point - d.count);
    } else if (d.point > 0 && d.point <= 21) {
        strbuf_add(out, str_slice(digits, 0, (size_t) d.point));
        strbuf_add_char(out, '.');
        strbuf_add(out, str_from(digits, (size_t) d.point));
    } else if (d.point > -6 && d.point <= 0) {
        strbuf_add(out, S("0."));
        add_zeros(out, -d.point);
        strbuf_add(out, digits);
    } else {
        add_exponent_form(out, digits, d.point);
    }
}

/* ---- trees; recursion is as deep as the tree, which json_parse bounded by JSON_DEPTH_MAX ---- */

static void add_value(struct strbuf *out, const struct json *value);

static void add_array(struct strbuf *out, const struct json *array)
{
    const struct json *item;
    struct json_iter it = json_iter(array);
    strbuf_add_char(out, '[');
    for (bool is_first = true; json_next(&it, NULL, &item); is_first = false) {
        if (!is_first)
            strbuf_add_char(out, ',');
        add_value(out, item);
    }
    strbuf_add_char(out, ']');
}

static void add_object(struct strbuf *out, const struct json *object)
{
    size_t count = json_count(object), filled = 0;
    struct member *members = ARENA_ARRAY(out->arena, struct member, count);
    struct json_iter it = json_iter(object);
    while (json_next(&it, &members[filled].key, &members[filled].value))
        filled++;
    qsort(members, count, sizeof(*members), compare_members);
    strbuf_add_char(out, '{');
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            strbuf_add_char(out, ',');
        json_escape(out, members[i].key);
        strbuf_add_char(out, ':');
        add_value(out, members[i].value);
    }
    strbuf_add_char(out, '}');
}

static void add_value(struct strbuf *out, const struct json *value)
{
    double number;
    switch (json_type(value)) {
    case JSON_ARRAY: add_array(out, value); return;
    case JSON_OBJECT: add_object(out, value); return;
    case JSON_REAL:
        if (json_to_double(value, &number))
            add_double(out, number);
        return;
    case JSON_ABSENT:
    case JSON_NULL:
    case JSON_BOOL:
    case JSON_INTEGER:
    case JSON_STRING: json_print_to(out, value); return;
    }
}

str json_canonical(struct arena *arena, const struct json *value)
{
    struct strbuf text;
    strbuf_init(&text, arena, SIZE_MAX / 4);
    add_value(&text, value);
    return strbuf_str(&text);
}
