/*
 * strbuf: builds a str on an arena, always with a maximum.
 *
 * Appending past the maximum does nothing and sets a sticky flag that strbuf_is_over() tells; so a long list of appends
 * needs one check at its end.
 */
#ifndef NEXUS_BASE_STRBUF_H
#define NEXUS_BASE_STRBUF_H

#include "base/str.h"
#include <stdarg.h>

struct strbuf {
    struct arena *arena;
    char *ptr;
    size_t len, capacity, max;
    bool is_over;
};

void strbuf_init(struct strbuf *b, struct arena *arena, size_t max_bytes);
void strbuf_add(struct strbuf *b, str s);
void strbuf_add_char(struct strbuf *b, char c);
void strbuf_add_u64(struct strbuf *b, uint64_t value);
void strbuf_add_i64(struct strbuf *b, int64_t value);
void strbuf_printf(struct strbuf *b, const char *format, ...) format_like(2, 3);
void strbuf_vprintf(struct strbuf *b, const char *format, va_list arguments) format_like(2, 0);
char *strbuf_reserve(struct strbuf *b,
                     size_t bytes); /* NULL when over; then write and strbuf_commit */
void strbuf_commit(struct strbuf *b, size_t bytes);
void strbuf_truncate(struct strbuf *b, size_t len); /* also forgets is_over when it fits again */
static inline str strbuf_str(const struct strbuf *b)
{
    return (str){b->ptr, b->len};
}
static inline bool strbuf_is_over(const struct strbuf *b)
{
    return b->is_over;
}

#endif
