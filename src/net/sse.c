#include "net/sse.h"

#include "base/ensure.h"
#include "base/limits.h"

#include <stdlib.h>

/*
 * bytes:   ....|read ... complete events ... |event_start ... the event that is still coming ...
 * |len
 *
 * Feeding drops what was read, appends, and looks for blank lines; taking an event parses it in
 * place, moving its data lines together (what is written never passes what was read).
 */
struct sse_parser {
    char *bytes;
    size_t len, capacity, max;
    size_t read;        /* where the next event to take begins */
    size_t scanned;     /* blank lines were looked for up to here */
    size_t event_start; /* of the event that is still coming */
    size_t bom_seen;    /* bytes of a byte order mark at the very beginning; SIZE_MAX: no longer */
    bool is_line_empty; /* of the line at `scanned` */
    bool is_after_cr;   /* `scanned` follows a CR: an LF there belongs to it */
    char *id;
    size_t id_len, id_capacity;
};

static const char bom[3] = "\xef\xbb\xbf";

struct sse_parser *sse_parser_create(size_t event_bytes_max)
{
    struct sse_parser *parser = calloc(1, sizeof(*parser));
    ensure(parser != NULL);
    parser->max = event_bytes_max ? event_bytes_max : SSE_EVENT_BYTES_MAX;
    parser->is_line_empty = true;
    return parser;
}

void sse_parser_destroy(struct sse_parser *parser)
{
    if (!parser)
        return;
    free(parser->bytes);
    free(parser->id);
    free(parser);
}

static void grow(char **bytes, size_t *capacity, size_t wanted)
{
    if (wanted <= *capacity)
        return;
    size_t larger = *capacity ? *capacity * 2 : 512;
    while (larger < wanted)
        larger *= 2;
    *bytes = realloc(*bytes, larger);
    ensure(*bytes != NULL);
    *capacity = larger;
}

static void drop_read(struct sse_parser *parser)
{
    size_t drop = parser->read;
    if (drop == 0)
        return;
    memmove(parser->bytes, parser->bytes + drop, parser->len - drop);
    parser->len -= drop;
    parser->scanned -= drop;
    parser->event_start -= drop;
    parser->read = 0;
}

/* A byte order mark at the beginning is no content; it may come in pieces. */
static str skip_bom(struct sse_parser *parser, str bytes)
{
    while (parser->bom_seen < sizeof(bom) && bytes.len > 0 &&
           bytes.ptr[0] == bom[parser->bom_seen]) {
        bytes = str_from(bytes, 1);
        parser->bom_seen++;
    }
    return bytes;
}

static void append(struct sse_parser *parser, str bytes)
{
    if (bytes.len == 0)
        return;
    grow(&parser->bytes, &parser->capacity, parser->len + bytes.len);
    memcpy(parser->bytes + parser->len, bytes.ptr, bytes.len);
    parser->len += bytes.len;
}

/* Moves event_start over each event that became whole; false when one is too large. */
static bool scan(struct sse_parser *parser)
{
    for (; parser->scanned < parser->len; parser->scanned++) {
        char c = parser->bytes[parser->scanned];
        bool is_second = parser->is_after_cr && c == '\n';
        parser->is_after_cr = c == '\r';
        if (is_second) {
            if (parser->event_start == parser->scanned)
                parser->event_start++; /* the LF of the CRLF that ended the event before */
            continue;
        }
        if (c != '\r' && c != '\n') {
            parser->is_line_empty = false;
            continue;
        }
        if (parser->is_line_empty) {
            if (parser->scanned - parser->event_start > parser->max)
                return false;
            parser->event_start = parser->scanned + 1;
        }
        parser->is_line_empty = true;
    }
    return parser->len - parser->event_start <= parser->max;
}

bool sse_parser_feed(struct sse_parser *parser, str bytes, struct error *e)
{
    drop_read(parser);
    if (parser->bom_seen < sizeof(bom)) {
        str rest = skip_bom(parser, bytes);
        if (rest.len > 0 &&
            parser->bom_seen < sizeof(bom)) { /* it was none: what looked like it is content */
            append(parser, str_of(bom, parser->bom_seen));
            parser->bom_seen = SIZE_MAX;
        }
        bytes = rest;
    }
    append(parser, bytes);
    if (!scan(parser))
        return error_set(e, REASON_TOO_LARGE, "a server-sent event is larger than %zu bytes",
                         parser->max);
    return true;
}

/* ---- taking ---- */

static void set_id(struct sse_parser *parser, str value)
{
    if (memchr(value.ptr, 0, value.len))
        return;
    grow(&parser->id, &parser->id_capacity, value.len + 1);
    memcpy(parser->id, value.ptr, value.len);
    parser->id_len = value.len;
}

struct taking {
    size_t data_at, data_len; /* where the joined data lie */
    bool has_data;
    str event;
};

static void take_field(struct sse_parser *parser, struct taking *taking, str line)
{
    str name, value;
    str_cut(line, ':', &name, &value);
    if (value.len > 0 && value.ptr[0] == ' ')
        value = str_from(value, 1);
    if (str_equal(name, S("data"))) {
        char *to = parser->bytes + taking->data_at;
        if (taking->has_data)
            to[taking->data_len++] = '\n'; /* at most where this line's name stood */
        else
            taking->data_at = (size_t) (line.ptr - parser->bytes);
        to = parser->bytes + taking->data_at;
        if (value.len > 0)
            memmove(to + taking->data_len, value.ptr, value.len);
        taking->data_len += value.len;
        taking->has_data = true;
    } else if (str_equal(name, S("event"))) {
        taking->event = value;
    } else if (str_equal(name, S("id"))) {
        set_id(parser, value.len ? value : S(""));
    }
}

/* The line at *at, without its end; moves *at behind the end.  The caller knows that there is one.
   */
static str next_line(const struct sse_parser *parser, size_t *at)
{
    size_t start = *at;
    while (parser->bytes[*at] != '\r' && parser->bytes[*at] != '\n')
        (*at)++;
    str line = str_of(parser->bytes + start, *at - start);
    bool is_cr = parser->bytes[(*at)++] == '\r';
    if (is_cr && *at < parser->len && parser->bytes[*at] == '\n')
        (*at)++;
    return line;
}

bool sse_parser_next(struct sse_parser *parser, struct sse_event *out)
{
    while (parser->read < parser->event_start) {
        struct taking taking = {0};
        size_t at = parser->read;
        if (parser->bytes[at] == '\n' || parser->bytes[at] == '\r') { /* a blank line of its own */
            (void) next_line(parser, &at);
            parser->read = at < parser->event_start ? at : parser->event_start;
            continue;
        }
        for (str line = next_line(parser, &at); line.len > 0; line = next_line(parser, &at))
            take_field(parser, &taking, line);
        parser->read = at < parser->event_start ? at : parser->event_start;
        if (!taking.has_data)
            continue;
        *out = (struct sse_event){
            .id = str_of(parser->id, parser->id_len),
            .event = taking.event,
            .data = str_of(parser->bytes + taking.data_at, taking.data_len),
        };
        return true;
    }
    return false;
}

bool sse_parser_has_partial(const struct sse_parser *parser)
{
    return parser->len > parser->event_start;
}

/* ---- writing ---- */

/* Up to the first line end: whatever a name holds, it cannot become a field of its own. */
static str one_line(str text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] == '\r' || text.ptr[i] == '\n' || text.ptr[i] == 0)
            return str_slice(text, 0, i);
    }
    return text;
}

static void write_field(struct strbuf *b, str name, str value)
{
    if (value.len == 0)
        return;
    strbuf_add(b, name);
    strbuf_add(b, one_line(value));
    strbuf_add_char(b, '\n');
}

void sse_write(struct strbuf *b, str id, str event, str data)
{
    write_field(b, S("id: "), id);
    write_field(b, S("event: "), event);
    size_t start = 0;
    for (size_t i = 0; i <= data.len; i++) {
        if (i < data.len && data.ptr[i] != '\n' && data.ptr[i] != '\r')
            continue;
        strbuf_add(b, S("data: "));
        strbuf_add(b, str_slice(data, start, i));
        strbuf_add_char(b, '\n');
        if (i + 1 < data.len && data.ptr[i] == '\r' && data.ptr[i + 1] == '\n')
            i++;
        start = i + 1;
    }
    strbuf_add_char(b, '\n');
}

void sse_write_comment(struct strbuf *b, str text)
{
    strbuf_add(b, S(": "));
    strbuf_add(b, one_line(text));
    strbuf_add(b, S("\n\n"));
}
