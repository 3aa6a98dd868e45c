#include "window.h"

#include <stdlib.h>
#include <string.h>

void window_init(struct window *window, const struct byte_source *source)
{
    *window = (struct window){.source = source, .capacity = WINDOW_CHUNK_BYTES};
    window->buffer = tool_alloc(window->capacity);
    window->at = window->end = window->buffer;
}

void window_deinit(struct window *window)
{
    tool_free(window->buffer);
    *window = (struct window){0};
}

static bool make_room(struct window *window, uint64_t line, struct tool_error *e)
{
    size_t kept = (size_t) (window->end - window->at);
    if (kept > 0)
        memmove(window->buffer, window->at, kept);
    if (kept > window->capacity / 2) {
        if (window->capacity >= 2 * (size_t) WINDOW_RECORD_BYTES_MAX)
            return tool_fail(
                e, "limit",
                "the record that begins at line %llu is longer than %d MiB; is a closing "
                "quote or bracket missing?",
                (unsigned long long) line, WINDOW_RECORD_BYTES_MAX >> 20);
        window->capacity *= 2;
        window->buffer = tool_realloc(window->buffer, window->capacity);
    }
    window->at = window->buffer;
    window->end = window->buffer + kept;
    return true;
}

bool window_more(struct window *window, uint64_t line, struct tool_error *e)
{
    if (window->is_last)
        return true;
    if (!make_room(window, line, e))
        return false;
    size_t room = (size_t) (window->buffer + window->capacity - window->end);
    size_t got = 0;
    if (!window->source->read(window->source, window->offset, window->end, room, &got, e))
        return false;
    window->end += got;
    window->offset += got;
    window->is_last = got < room;
    return true;
}

static bool read_text(const struct byte_source *source, uint64_t offset, void *to, size_t size,
                      size_t *got, struct tool_error *e)
{
    (void) e;
    uint64_t left = offset < source->name.len ? source->name.len - offset : 0;
    *got = left < size ? (size_t) left : size;
    if (*got > 0)
        memcpy(to, source->name.ptr + offset, *got);
    return true;
}

struct byte_source byte_source_text(struct text text)
{
    return (struct byte_source){.read = read_text, .name = text};
}
