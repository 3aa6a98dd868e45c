#include "base/strbuf.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <stdio.h>

void strbuf_init(struct strbuf *b, struct arena *arena, size_t max_bytes)
{
    *b = (struct strbuf){.arena = arena, .max = max_bytes};
}

static void grow(struct strbuf *b, size_t needed)
{
    size_t capacity = b->capacity ? b->capacity : STRBUF_BYTES_FIRST / 2;
    while (capacity < needed)
        capacity = capacity > SIZE_MAX / 8 ? needed : capacity * 2;
    b->ptr = arena_grow(b->arena, b->ptr, b->capacity, capacity);
    b->capacity = capacity;
}

char *strbuf_reserve(struct strbuf *b, size_t bytes)
{
    if (unlikely(b->is_over || bytes > b->max - b->len)) {
        b->is_over = true;
        return NULL;
    }
    if (unlikely(bytes > b->capacity - b->len || b->ptr == NULL))
        grow(b, b->len + bytes);
    return b->ptr + b->len;
}

void strbuf_commit(struct strbuf *b, size_t bytes)
{
    ensure(bytes <= b->capacity - b->len);
    b->len += bytes;
}

void strbuf_add(struct strbuf *b, str s)
{
    if (s.len == 0)
        return;
    char *to = strbuf_reserve(b, s.len);
    if (!to)
        return;
    memcpy(to, s.ptr, s.len);
    b->len += s.len;
}

void strbuf_add_char(struct strbuf *b, char c)
{
    char *to = strbuf_reserve(b, 1);
    if (!to)
        return;
    *to = c;
    b->len++;
}

void strbuf_add_u64(struct strbuf *b, uint64_t value)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char) ('0' + value % 10);
        value /= 10;
    } while (value != 0);
    strbuf_add(b, str_of(digits + at, sizeof(digits) - at));
}

void strbuf_add_i64(struct strbuf *b, int64_t value)
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
    strbuf_add(b, str_of(digits + at, sizeof(digits) - at));
}

void strbuf_printf(struct strbuf *b, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    strbuf_vprintf(b, format, arguments);
    va_end(arguments);
}

/*
 * vsnprintf writes a terminator that does not belong to the text, so it is measured first and given
 * its own room.
 */
void strbuf_vprintf(struct strbuf *b, const char *format, va_list arguments)
{
    va_list again;
    va_copy(again, arguments);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    ensure(len >= 0);
    if (!strbuf_reserve(b, (size_t) len))
        return;
    if ((size_t) len + 1 > b->capacity - b->len)
        grow(b, b->len + (size_t) len + 1);
    vsnprintf(b->ptr + b->len, (size_t) len + 1, format, arguments);
    b->len += (size_t) len;
}

void strbuf_truncate(struct strbuf *b, size_t len)
{
    ensure(len <= b->len);
    b->len = len;
    b->is_over = false;
}
