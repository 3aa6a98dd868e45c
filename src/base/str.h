/*
 * str: a borrowed, read-only piece of text or bytes.  Passed by value, not terminated, never owned.
 * {NULL, 0} is the absent string and also the empty one; str_is_empty() is true for both.
 * Results that point into an argument live as long as the argument does.
 */
#ifndef NEXUS_BASE_STR_H
#define NEXUS_BASE_STR_H

#include "base/attributes.h"
#include <string.h>

struct arena;

typedef struct {
    const char *ptr;
    size_t len;
} str;

#define S(literal) ((str){("" literal), sizeof(literal) - 1})
#define S_INIT(literal)                                                                            \
    {                                                                                              \
        ("" literal), sizeof(literal) - 1                                                          \
    } /* for static initialisers */
#define STR_NONE ((str){NULL, 0})
#define STR_FMT "%.*s"
#define STR_ARG(s) (int) ((s).len > 0x7fffffff ? 0x7fffffff : (s).len), ((s).ptr ? (s).ptr : "")

static inline str str_of(const char *ptr, size_t len)
{
    return (str){ptr, len};
}
static inline bool str_is_empty(str s)
{
    return s.len == 0;
}
static inline bool str_equal(str a, str b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}
static inline str str_from_cstr(const char *text) /* NULL gives STR_NONE */
{
    return text ? str_of(text, strlen(text)) : STR_NONE;
}
bool str_same_letters(const char *a, const char *b, size_t len);
static inline bool str_equal_nocase(
    str a, str b) /* ASCII; mostly the lengths or the first letters differ */
{
    return a.len == b.len && (a.len == 0 || (((a.ptr[0] ^ b.ptr[0]) & ~0x20) == 0 &&
                                             str_same_letters(a.ptr, b.ptr, a.len)));
}
int str_compare(str a, str b); /* bytewise, like strcmp */
static inline bool str_starts_with(str s, str prefix)
{
    return s.len >= prefix.len && str_equal(str_of(s.ptr, prefix.len), prefix);
}
bool str_ends_with(str s, str suffix);
bool str_strip_prefix(str s, str prefix, str *rest);       /* false leaves rest alone */
static inline str str_slice(str s, size_t from, size_t to) /* clamped to s */
{
    if (to > s.len)
        to = s.len;
    if (from > to)
        from = to;
    return s.ptr ? str_of(s.ptr + from, to - from) : STR_NONE;
}
static inline str str_from(str s, size_t from) /* the rest from an offset, clamped */
{
    return str_slice(s, from, s.len);
}
str str_trim(str s); /* ASCII white space on both ends */
#define STR_NOT_FOUND SIZE_MAX
size_t str_find(str s, str needle); /* offset or STR_NOT_FOUND */
size_t str_find_char(str s, char c);
/* Cuts at the first separator.  False when there is none: then head = s, tail is empty. */
bool str_cut(str s, char separator, str *head, str *tail);
/* Next piece of a list: `rest` moves on; false at the end.  Empty pieces are returned. */
bool str_next(str *rest, char separator, str *piece);

/* Whole-string parses: false on anything else (empty, sign where none fits, overflow, trailing bytes). */
bool str_to_u64(str s, uint64_t *out);
bool str_to_i64(str s, int64_t *out);
bool str_to_double(str s, double *out);

str str_copy(struct arena *arena, str s);
char *str_to_cstr(struct arena *arena, str s); /* terminated copy; embedded NULs are kept */
str str_lower(struct arena *arena, str s);     /* ASCII */
str str_printf(struct arena *arena, const char *format, ...) format_like(2, 3);
/* For hot paths: what str_printf does with "%lld" and "%.*s%.*s", for a tenth of its time. */
str str_i64(struct arena *arena, int64_t value);
str str_join(struct arena *arena, const str *parts, size_t count);
str str_hex(struct arena *arena, const void *bytes, size_t len);
bool str_is_utf8(str s);
/* Cuts to at most `max` bytes without splitting a UTF-8 sequence. */
str str_cut_utf8(str s, size_t max);
uint64_t str_hash(str s, uint64_t seed); /* keyed, for maps that hold outside keys */

#endif
