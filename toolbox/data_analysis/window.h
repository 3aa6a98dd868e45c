/*
 * Window: a bounded view on a long input that is read from front to back.
 *
 *     bytes:   ....consumed....[at          end]....not read yet....
 *
 * A parser looks at [at, end); when it needs more of the record it is in, window_more() keeps those
 * bytes, moves them to the front of the buffer and reads on.  The bytes may be changed in place.
 */
#ifndef DATA_ANALYSIS_WINDOW_H
#define DATA_ANALYSIS_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nexus_tool.h"

enum {
    WINDOW_CHUNK_BYTES = 256 * 1024,
    WINDOW_RECORD_BYTES_MAX = 4 * 1024 * 1024, /* one CSV record or one JSON value */
};

/* Where bytes come from: a file of the session, or text given in the call. */
struct byte_source {
    bool (*read)(const struct byte_source *source, uint64_t offset, void *to, size_t size,
                 size_t *got, struct tool_error *e);
    struct text name; /* of the file, or the text itself */
    bool is_file;
};

struct window {
    const struct byte_source *source;
    char *buffer, *at, *end;
    size_t capacity;
    uint64_t offset; /* of the next byte to read */
    bool is_last;    /* nothing follows `end` */
};

void window_init(struct window *window, const struct byte_source *source);
void window_deinit(struct window *window);

/* Reads more behind `end`; afterwards is_last is set or there is at least one more byte.  Pointers into
 * the window move.  Fails when the record is longer than the maximum; `line` is for that message. */
bool window_more(struct window *window, uint64_t line, struct tool_error *e);

/* A source over bytes in memory. */
struct byte_source byte_source_text(struct text text);

#endif
