#include "base/str.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/utf8_internal.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static unsigned char lower(char c)
{
    return (unsigned char) (c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Equal letters are mostly of the same case too. */
bool str_same_letters(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (a[i] != b[i] && lower(a[i]) != lower(b[i]))
            return false;
    }
    return true;
}

int str_compare(str a, str b)
{
    size_t common = a.len < b.len ? a.len : b.len;
    int order = common ? memcmp(a.ptr, b.ptr, common) : 0;
    if (order != 0)
        return order;
    return a.len < b.len ? -1 : a.len > b.len;
}

bool str_ends_with(str s, str suffix)
{
    return s.len >= suffix.len && str_equal(str_from(s, s.len - suffix.len), suffix);
}

bool str_strip_prefix(str s, str prefix, str *rest)
{
    if (!str_starts_with(s, prefix))
        return false;
    *rest = str_from(s, prefix.len);
    return true;
}

str str_trim(str s)
{
    size_t from = 0, to = s.len;
    while (from < to && is_space(s.ptr[from]))
        from++;
    while (to > from && is_space(s.ptr[to - 1]))
        to--;
    return str_slice(s, from, to);
}

size_t str_find(str s, str needle)
{
    if (needle.len == 0)
        return 0;
    if (needle.len > s.len)
        return STR_NOT_FOUND;
    const char *found = memmem(s.ptr, s.len, needle.ptr, needle.len);
    return found ? (size_t) (found - s.ptr) : STR_NOT_FOUND;
}

size_t str_find_char(str s, char c)
{
    const char *found = s.len ? memchr(s.ptr, c, s.len) : NULL;
    return found ? (size_t) (found - s.ptr) : STR_NOT_FOUND;
}

bool str_cut(str s, char separator, str *head, str *tail)
{
    size_t at = str_find_char(s, separator);
    bool is_found = at != STR_NOT_FOUND;
    *head = is_found ? str_slice(s, 0, at) : s;
    *tail = is_found ? str_from(s, at + 1) : STR_NONE;
    return is_found;
}

/*
 * The end is told from an empty last piece by ptr: `rest` is the absent string only after the last
 * piece.
 */
bool str_next(str *rest, char separator, str *piece)
{
    if (rest->ptr == NULL)
        return false;
    str_cut(*rest, separator, piece, rest);
    return true;
}

bool str_to_u64(str s, uint64_t *out)
{
    uint64_t value = 0;
    if (s.len == 0)
        return false;
    for (size_t i = 0; i < s.len; i++) {
        if (!is_digit(s.ptr[i]) || __builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t) (s.ptr[i] - '0'), &value))
            return false;
    }
    *out = value;
    return true;
}

bool str_to_i64(str s, int64_t *out)
{
    bool is_negative = s.len > 0 && s.ptr[0] == '-';
    uint64_t magnitude;
    if (!str_to_u64(is_negative ? str_from(s, 1) : s, &magnitude))
        return false;
    if (magnitude > (uint64_t) INT64_MAX + is_negative)
        return false;
    *out = is_negative ? (int64_t) (0 - magnitude) : (int64_t) magnitude;
    return true;
}

static size_t count_digits(str s, size_t from)
{
    size_t i = from;
    while (i < s.len && is_digit(s.ptr[i]))
        i++;
    return i - from;
}

/*
 * [-] digits [. digits] [e [+-] digits], with digits on at least one side of the point: what strtod
 * takes, less hexadecimal, inf, nan, '+' and white space.
 */
static bool is_decimal(str s)
{
    size_t i = s.len > 0 && s.ptr[0] == '-';
    size_t whole = count_digits(s, i), fraction = 0;
    i += whole;
    if (i < s.len && s.ptr[i] == '.') {
        fraction = count_digits(s, i + 1);
        i += 1 + fraction;
    }
    if (whole + fraction == 0)
        return false;
    if (i < s.len && (s.ptr[i] == 'e' || s.ptr[i] == 'E')) {
        i++;
        if (i < s.len && (s.ptr[i] == '+' || s.ptr[i] == '-'))
            i++;
        size_t exponent = count_digits(s, i);
        if (exponent == 0)
            return false;
        i += exponent;
    }
    return i == s.len;
}

bool str_to_double(str s, double *out)
{
    char text[NUMBER_TEXT_BYTES_MAX];
    if (s.len >= sizeof(text) || !is_decimal(s))
        return false;
    memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    double value = strtod(text, NULL); /* the program never leaves the "C" locale */
    if (!isfinite(value))
        return false;
    *out = value;
    return true;
}

str str_copy(struct arena *arena, str s)
{
    if (s.len == 0)
        return s.ptr ? S("") : STR_NONE;
    return str_of(memcpy(arena_alloc_raw(arena, s.len), s.ptr, s.len), s.len);
}

char *str_to_cstr(struct arena *arena, str s)
{
    char *text = arena_alloc_raw(arena, s.len + 1);
    if (s.len)
        memcpy(text, s.ptr, s.len);
    text[s.len] = '\0';
    return text;
}

str str_lower(struct arena *arena, str s)
{
    char *text = arena_alloc_raw(arena, s.len);
    for (size_t i = 0; i < s.len; i++)
        text[i] = (char) lower(s.ptr[i]);
    return str_of(text, s.len);
}

str str_printf(struct arena *arena, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int len = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    ensure(len >= 0);
    char *text = arena_alloc_raw(arena, (size_t) len + 1);
    va_start(arguments, format);
    vsnprintf(text, (size_t) len + 1, format, arguments);
    va_end(arguments);
    return str_of(text, (size_t) len);
}

str str_join(struct arena *arena, const str *parts, size_t count)
{
    size_t len = 0, at = 0;
    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    char *text = arena_alloc_raw(arena, len);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(text + at, parts[i].ptr, parts[i].len);
        at += parts[i].len;
    }
    return str_of(text, len);
}

str str_i64(struct arena *arena, int64_t value)
{
    char digits[21];
    size_t at = sizeof(digits);
    uint64_t magnitude = value < 0 ? 0 - (uint64_t) value : (uint64_t) value;
    do {
        digits[--at] = (char) ('0' + magnitude % 10);
        magnitude /= 10;
    } while (magnitude != 0);
    if (value < 0)
        digits[--at] = '-';
    return str_copy(arena, str_of(digits + at, sizeof(digits) - at));
}

str str_hex(struct arena *arena, const void *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *from = bytes;
    char *text = arena_alloc_raw(arena, len * 2);
    for (size_t i = 0; i < len; i++) {
        text[2 * i] = digits[from[i] >> 4];
        text[2 * i + 1] = digits[from[i] & 15];
    }
    return str_of(text, len * 2);
}

bool str_is_utf8(str s)
{
    const unsigned char *p = (const unsigned char *) s.ptr;
    size_t i = 0;
    while (i < s.len) {
        uint64_t eight;
        if (s.len - i >= sizeof(eight)) { /* most text is ASCII: eight bytes at a time */
            memcpy(&eight, p + i, sizeof(eight));
            if ((eight & 0x8080808080808080u) == 0) {
                i += sizeof(eight);
                continue;
            }
        }
        size_t bytes = utf8_sequence(p + i, s.len - i, NULL);
        if (bytes == 0)
            return false;
        i += bytes;
    }
    return true;
}

/* Steps back over at most the three bytes that a cut sequence can have before the cut. */
str str_cut_utf8(str s, size_t max)
{
    if (s.len <= max)
        return s;
    const unsigned char *p = (const unsigned char *) s.ptr;
    size_t begin = max;
    while (begin > 0 && max - begin < 3 && (p[begin] & 0xc0) == 0x80)
        begin--;
    size_t bytes = utf8_sequence(p + begin, s.len - begin, NULL);
    bool is_split = begin < max && bytes > max - begin;
    return str_slice(s, 0, is_split ? begin : max);
}

/*
 * ---- SipHash-1-3 (Aumasson, Bernstein): keyed, so that outside keys cannot be chosen to collide
 * ----
 */

static inline uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

struct sip {
    uint64_t v0, v1, v2, v3;
};

/* By value and in place: the four words stay in registers, which is half of the time. */
static inline __attribute__((always_inline)) struct sip sip_round(struct sip s)
{
    s.v0 += s.v1;
    s.v1 = rotate(s.v1, 13) ^ s.v0;
    s.v0 = rotate(s.v0, 32);
    s.v2 += s.v3;
    s.v3 = rotate(s.v3, 16) ^ s.v2;
    s.v0 += s.v3;
    s.v3 = rotate(s.v3, 21) ^ s.v0;
    s.v2 += s.v1;
    s.v1 = rotate(s.v1, 17) ^ s.v2;
    s.v2 = rotate(s.v2, 32);
    return s;
}

static inline __attribute__((always_inline)) struct sip sip_word(struct sip s, uint64_t word)
{
    s.v3 ^= word;
    s = sip_round(s);
    s.v0 ^= word;
    return s;
}

/*
 * One 64-bit seed makes both halves of the key: the seed is secret, the difference between the
 * halves need not be.
 */
uint64_t str_hash(str s, uint64_t seed)
{
    uint64_t k0 = seed, k1 = rotate(seed, 32) ^ 0x9e3779b97f4a7c15u;
    struct sip sip = {k0 ^ 0x736f6d6570736575u, k1 ^ 0x646f72616e646f6du, k0 ^ 0x6c7967656e657261u,
                      k1 ^ 0x7465646279746573u};
    const char *p = s.ptr;
    uint64_t word;
    for (size_t left = s.len; left >= sizeof(word); left -= sizeof(word), p += sizeof(word)) {
        memcpy(&word, p, sizeof(word));
        sip = sip_word(sip, word);
    }
    word = (uint64_t) s.len << 56;
    for (size_t i = 0; i < s.len % sizeof(word); i++)
        word |= (uint64_t) (unsigned char) p[i] << (8 * i);
    sip = sip_word(sip, word);
    sip.v2 ^= 0xff;
    sip = sip_round(sip_round(sip_round(sip)));
    return sip.v0 ^ sip.v1 ^ sip.v2 ^ sip.v3;
}
