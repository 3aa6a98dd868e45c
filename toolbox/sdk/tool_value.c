/* Errors, input readers and memory: the part of the SDK that also compiles natively, for tests. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nexus_tool.h"
#include "utf8.h"

bool tool_fail(struct tool_error *e, const char *code, const char *format, ...)
{
    snprintf(e->code, sizeof e->code, "%s", code);
    va_list args;
    va_start(args, format);
    vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
    utf8_mend(e->message);
    return false;
}

bool text_equal(struct text a, struct text b)
{
    return a.len == b.len && memcmp(a.ptr, b.ptr, a.len) == 0;
}

static bool is_absent(yyjson_val *value)
{
    return value == NULL || yyjson_is_null(value);
}

static bool fail_type(const char *name, const char *want, yyjson_val *value, struct tool_error *e)
{
    if (is_absent(value))
        return tool_fail(e, "invalid_input", "\"%s\" is missing: give %s", name, want);
    return tool_fail(e, "invalid_input", "\"%s\" must be %s, not %s", name, want,
                     yyjson_get_type_desc(value));
}

bool tool_text(yyjson_val *object, const char *name, struct text *out, struct tool_error *e)
{
    yyjson_val *value = yyjson_obj_get(object, name);
    if (!yyjson_is_str(value))
        return fail_type(name, "a string", value, e);
    *out = (struct text){yyjson_get_str(value), yyjson_get_len(value)};
    return true;
}

bool tool_text_or(yyjson_val *object, const char *name, struct text fallback, struct text *out,
                  struct tool_error *e)
{
    if (is_absent(yyjson_obj_get(object, name))) {
        *out = fallback;
        return true;
    }
    return tool_text(object, name, out, e);
}

bool tool_integer_or(yyjson_val *object, const char *name, int64_t fallback, int64_t min,
                     int64_t max, int64_t *out, struct tool_error *e)
{
    yyjson_val *value = yyjson_obj_get(object, name);
    if (is_absent(value)) {
        *out = fallback;
        return true;
    }
    int64_t number = 0;
    double real = yyjson_get_real(value);
    if (yyjson_is_sint(value) || (yyjson_is_uint(value) && yyjson_get_uint(value) <= INT64_MAX))
        number = yyjson_get_sint(value);
    else if (yyjson_is_real(value) && real >= -9e15 && real <= 9e15 &&
             real == (double) (int64_t) real)
        number = (int64_t) real; /* models write 10.0 for 10 */
    else
        return fail_type(name, "a whole number", value, e);
    if (number < min || number > max)
        return tool_fail(e, "invalid_input", "\"%s\" is %lld: it must lie between %lld and %lld",
                         name, (long long) number, (long long) min, (long long) max);
    *out = number;
    return true;
}

bool tool_flag_or(yyjson_val *object, const char *name, bool fallback, bool *out,
                  struct tool_error *e)
{
    yyjson_val *value = yyjson_obj_get(object, name);
    if (!is_absent(value) && !yyjson_is_bool(value))
        return fail_type(name, "true or false", value, e);
    *out = is_absent(value) ? fallback : yyjson_get_bool(value);
    return true;
}

int tool_choice(struct text word, const char *const *words)
{
    for (int i = 0; words[i] != NULL; i++)
        if (strlen(words[i]) == word.len && memcmp(words[i], word.ptr, word.len) == 0)
            return i;
    return -1;
}

void tool_list(const char *const *words, char *out, size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (int i = 0; words[i] != NULL; i++) {
        int n = snprintf(out + used, out_bytes - used, "%s%s", i == 0 ? "" : ", ", words[i]);
        if (n < 0 || (size_t) n >= out_bytes - used)
            return;
        used += (size_t) n;
    }
}

void *tool_alloc(size_t bytes)
{
    return tool_realloc(NULL, bytes);
}

#ifndef TOOL_TRACK_MEMORY

void *tool_realloc(void *ptr, size_t bytes)
{
    void *grown = realloc(ptr, bytes == 0 ? 1 : bytes);
    if (grown == NULL)
        __builtin_trap();
    return grown;
}

void tool_free(void *ptr)
{
    free(ptr);
}

#else /* Tests and fuzzers run many calls in one process: what a call leaves behind is found and freed. */

struct tracked {
    struct tracked *next, *previous;
    max_align_t data[];
};

static struct tracked all = {&all, &all};

static void unlink_block(struct tracked *block)
{
    block->next->previous = block->previous;
    block->previous->next = block->next;
}

void *tool_realloc(void *ptr, size_t bytes)
{
    struct tracked *block = NULL;
    if (ptr != NULL) {
        block = (struct tracked *) ((char *) ptr - offsetof(struct tracked, data));
        unlink_block(block);
    }
    block = realloc(block, sizeof *block + bytes);
    if (block == NULL)
        __builtin_trap();
    block->next = all.next;
    block->previous = &all;
    all.next->previous = block;
    all.next = block;
    return block->data;
}

void tool_free(void *ptr)
{
    if (ptr == NULL)
        return;
    struct tracked *block = (struct tracked *) ((char *) ptr - offsetof(struct tracked, data));
    unlink_block(block);
    free(block);
}

void tool_release_all(void);
void tool_release_all(void)
{
    while (all.next != &all)
        tool_free(all.next->data);
}

#endif
