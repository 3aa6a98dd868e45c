#include "gateway/call/call_relay.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "net/sse.h"
#include <stdlib.h>

/* ---- bytes on the heap: a relay outlives its request's arena ---- */

void call_bytes_add(struct call_bytes *bytes, str more)
{
    enum { FIRST = 512 };
    if (more.len == 0)
        return;
    if (bytes->len + more.len > bytes->capacity) {
        size_t larger = bytes->capacity > 0 ? bytes->capacity : FIRST;
        while (larger < bytes->len + more.len)
            larger *= 2;
        bytes->ptr = realloc(bytes->ptr, larger);
        ensure(bytes->ptr != NULL);
        bytes->capacity = larger;
    }
    memcpy(bytes->ptr + bytes->len, more.ptr, more.len);
    bytes->len += more.len;
}

void call_bytes_free(struct call_bytes *bytes)
{
    free(bytes->ptr);
    *bytes = (struct call_bytes){0};
}

void call_relay_deinit(struct call_relay *relay)
{
    guard_events_destroy(GIVE(relay->guard));
    call_bytes_free(&relay->held);
    call_bytes_free(&relay->last);
    call_bytes_free(&relay->partial);
}

/* ---- out ---- */

static void put(struct call_relay *relay, str bytes)
{
    if (bytes.len == 0)
        return;
    if (relay->state == CALL_RELAY_FLOWING && relay->write) {
        relay->write(relay->owner, bytes);
        return;
    }
    call_bytes_add(&relay->held, bytes);
}

/* What was held while nothing flowed goes out first. */
static void begin_to_flow(struct call_relay *relay)
{
    if (relay->state != CALL_RELAY_HOLDING)
        return;
    relay->state = CALL_RELAY_FLOWING;
    if (!relay->write || relay->held.len == 0)
        return;
    relay->write(relay->owner, call_bytes_str(&relay->held));
    call_bytes_free(&relay->held);
}

static enum call_relay_state fail(struct call_relay *relay, enum error_reason reason,
                                  const char *what, struct error *e)
{
    relay->state = CALL_RELAY_FAILED;
    error_set(e, reason, "%s", what);
    return relay->state;
}

/* ---- one event ---- */

/* The line at `at`, which is whole or the last; *next: behind its end.  False: it has not come whole. */
static bool find_line(str bytes, size_t at, str *line, size_t *next)
{
    const char *lf = memchr(bytes.ptr + at, '\n', bytes.len - at);
    size_t stop = lf ? (size_t) (lf - bytes.ptr) : bytes.len;
    const char *cr = memchr(bytes.ptr + at, '\r', stop - at);
    if (cr)
        stop = (size_t) (cr - bytes.ptr);
    *line = str_slice(bytes, at, stop);
    *next = stop + 1;
    if (cr && *next < bytes.len && bytes.ptr[*next] == '\n')
        (*next)++;
    return lf || (cr && *next < bytes.len); /* a CR at the very end may be half of CR LF */
}

static bool has_field(str line, str name, str *value)
{
    if (!str_starts_with(line, name) || (line.len > name.len && line.ptr[name.len] != ':'))
        return false;
    *value = str_from(line, name.len + 1);
    if (value->len > 0 && value->ptr[0] == ' ')
        *value = str_from(*value, 1);
    return true;
}

/* Data in one line, as everybody sends it, is a slice of the block; several are joined on the arena. */
static bool read_block(str block, struct arena *scratch, str *event, str *data)
{
    bool has_data = false;
    *event = *data = STR_NONE;
    str_strip_prefix(block, S("\xef\xbb\xbf"), &block); /* a byte order mark */
    for (size_t at = 0; at < block.len;) {
        str line, value;
        (void) find_line(block, at, &line, &at);
        if (has_field(line, S("event"), &value)) {
            *event = value;
        } else if (has_field(line, S("data"), &value)) {
            *data = has_data
                        ? str_printf(scratch, STR_FMT "\n" STR_FMT, STR_ARG(*data), STR_ARG(value))
                        : value;
            has_data = true;
        }
    }
    return has_data;
}

/* ---- the content filter ---- */

enum { EVENT_TEXTS_MAX = 256 };

struct filtered {
    struct call_relay *relay;
    struct arena *scratch;
    bool is_named; /* the dialect's events have names, which are their types */
    bool is_last;  /* kept for later */
};

static void emit(void *owner, str json)
{
    struct filtered *filtered = owner;
    const struct json *tree;
    struct error ignored = {0};
    struct strbuf text;
    str name = STR_NONE;
    arena_mark mark = arena_save(filtered->scratch);
    struct json_limits limits = {.bytes_max = 2 * SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    if (filtered->is_named && json_parse(filtered->scratch, json, limits, &tree, &ignored))
        name = json_str_or(tree, S("type"), STR_NONE);
    strbuf_init(&text, filtered->scratch, json.len + name.len + 64);
    sse_write(&text, STR_NONE, name, json);
    if (filtered->is_last)
        call_bytes_add(&filtered->relay->last, strbuf_str(&text));
    else
        put(filtered->relay, strbuf_str(&text));
    arena_rewind(filtered->scratch, mark);
}

/* What may go out of an event, in place of its bytes. */
static bool filter_event(struct call_relay *relay, struct arena *scratch, str data, bool is_last,
                         struct error *e)
{
    const struct json *tree;
    struct error parse = {0};
    struct json_limits limits = {.bytes_max = SSE_EVENT_BYTES_MAX, .allow_duplicates = true};
    struct filtered filtered = {.relay = relay,
                                .scratch = scratch,
                                .is_named = relay->dialect->id != DIALECT_OPENAI_CHAT,
                                .is_last = is_last};
    if (!json_parse(scratch, data, limits, &tree, &parse))
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "the provider sent an event that is not JSON");
    struct dialect_text *texts = ARENA_ARRAY(scratch, struct dialect_text, EVENT_TEXTS_MAX);
    size_t count = relay->dialect->texts(DOCUMENT_EVENT, tree, texts, EVENT_TEXTS_MAX);
    if (count > EVENT_TEXTS_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the provider sent an event of %zu texts",
                         count);
    return guard_event(relay->guard, scratch, tree, texts, count, emit, &filtered, e);
}

static bool filter_end(struct call_relay *relay, struct arena *scratch, struct error *e)
{
    struct filtered filtered = {
        .relay = relay, .scratch = scratch, .is_named = relay->dialect->id != DIALECT_OPENAI_CHAT};
    return guard_events_end(relay->guard, scratch, emit, &filtered, e);
}

/* False: *e is why the stream has failed. */
static bool look(struct call_relay *relay, struct arena *scratch, str block, str *data,
                 bool *is_kept, enum glance_kind *kind, struct error *e)
{
    str event;
    *kind = GLANCE_LIFECYCLE;
    *is_kept = false;
    if (block.len > SSE_EVENT_BYTES_MAX)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the provider sent an event over %u bytes",
                         SSE_EVENT_BYTES_MAX);
    if (!read_block(block, scratch, &event, data) || str_is_empty(*data))
        return true;
    if (!relay->dialect->glance(&relay->glance, scratch, event, *data, kind, e))
        return false;
    *is_kept = *kind != GLANCE_USAGE || !relay->leaves_out_usage;
    return true;
}

/* ---- cutting into events ---- */

/* What a feed looks at; bytes before `from` have gone out, or were left out. */
struct run {
    str bytes;
    size_t from;
};

static void flush(struct call_relay *relay, struct run *run, size_t until)
{
    put(relay, str_slice(run->bytes, run->from, until));
    run->from = until;
}

static bool stop(struct call_relay *relay, enum call_relay_state state)
{
    relay->state = state;
    return false;
}

/* Behind the filter: what it lets through goes out, and of the block nothing. */
static bool take_filtered(struct call_relay *relay, struct arena *scratch, str block, str data,
                          bool is_end, struct error *e)
{
    if (is_end && !filter_end(relay, scratch, e))
        return stop(relay, CALL_RELAY_FAILED);
    if (!str_starts_with(data, S("{")))
        put(relay, block); /* [DONE] */
    else if (!filter_event(relay, scratch, data, is_end && relay->holds_end, e))
        return stop(relay, CALL_RELAY_FAILED);
    return !is_end || stop(relay, CALL_RELAY_ENDED);
}

/* One whole block of run->bytes; false when the stream is over, well or not. */
static bool take_block(struct call_relay *relay, struct arena *scratch, struct run *run,
                       size_t from, size_t to, struct error *e)
{
    bool is_kept;
    enum glance_kind kind;
    str data = STR_NONE, block = str_slice(run->bytes, from, to);
    bool is_good = look(relay, scratch, block, &data, &is_kept, &kind, e);
    bool is_end = is_good && kind == GLANCE_END;
    if (is_good && kind != GLANCE_LIFECYCLE && kind != GLANCE_USAGE)
        begin_to_flow(relay);
    if (!is_good || !is_kept || relay->guard || (is_end && relay->holds_end)) {
        flush(relay, run, from);
        run->from = to;
    }
    if (!is_good)
        return stop(relay, CALL_RELAY_FAILED);
    if (relay->guard && is_kept)
        return take_filtered(relay, scratch, block, data, is_end, e);
    if (!is_end)
        return true;
    if (relay->holds_end)
        call_bytes_add(&relay->last, block);
    flush(relay, run, to);
    return stop(relay, CALL_RELAY_ENDED);
}

/* From the line at *line to behind the end of its block, or 0 when that has not come; *line: the one that is still coming. */
static size_t find_block_end(str bytes, size_t *line)
{
    str text;
    size_t next;
    while (*line < bytes.len && find_line(bytes, *line, &text, &next)) {
        *line = next;
        if (str_is_empty(text))
            return next;
    }
    return 0;
}

/* What has not come whole waits. */
static void keep_rest(struct call_relay *relay, str all, size_t from, size_t line)
{
    struct call_bytes *partial = &relay->partial;
    size_t rest = all.len - from;
    relay->line_start = line - from;
    if (rest == 0) {
        call_bytes_free(partial);
    } else if (partial->len > 0) {
        memmove(partial->ptr, partial->ptr + from, rest);
        partial->len = rest;
    } else {
        call_bytes_add(partial, str_from(all, from));
    }
}

static bool is_over(const struct call_relay *relay)
{
    return relay->state == CALL_RELAY_ENDED || relay->state == CALL_RELAY_FAILED;
}

enum call_relay_state call_relay_feed(struct call_relay *relay, struct arena *scratch, str bytes,
                                      struct error *e)
{
    if (is_over(relay) || bytes.len == 0)
        return relay->state;
    bool is_joined = relay->partial.len > 0;
    size_t from = 0, line = is_joined ? relay->line_start : 0, end;
    if (is_joined)
        call_bytes_add(&relay->partial, bytes);
    struct run run = {.bytes = is_joined ? call_bytes_str(&relay->partial) : bytes};
    while ((end = find_block_end(run.bytes, &line)) > 0) {
        if (!take_block(relay, scratch, &run, from, end, e))
            return relay->state;
        from = end;
    }
    flush(relay, &run, from);
    keep_rest(relay, run.bytes, from, line);
    if (relay->partial.len > SSE_EVENT_BYTES_MAX)
        return fail(relay, REASON_PROVIDER_PROTOCOL, "the provider sent an event that is too large",
                    e);
    if (relay->held.len > CALL_HELD_BYTES_MAX)
        begin_to_flow(relay);
    return relay->state;
}

/* Some servers leave out the blank line behind the last event.  Any other event in part is a cut. */
static bool partial_is_end(struct call_relay *relay, struct arena *scratch)
{
    struct glance_state copy = relay->glance;
    struct error ignored = {0};
    enum glance_kind kind;
    str event, data, block = call_bytes_str(&relay->partial);
    return read_block(block, scratch, &event, &data) && !str_is_empty(data) &&
           relay->dialect->glance(&copy, scratch, event, data, &kind, &ignored) &&
           kind == GLANCE_END;
}

enum call_relay_state call_relay_close(struct call_relay *relay, struct arena *scratch,
                                       struct error *e)
{
    if (is_over(relay))
        return relay->state;
    if (relay->partial.len > 0 && partial_is_end(relay, scratch))
        return call_relay_feed(relay, scratch, S("\n\n"), e);
    bool is_whole = relay->glance.has_finish && relay->partial.len == 0;
    if (is_whole && !str_is_empty(relay->dialect->stream_end))
        return call_relay_feed(relay, scratch, relay->dialect->stream_end, e);
    return fail(relay, REASON_PROVIDER_NETWORK,
                "the provider's stream ended in the middle of the answer", e);
}
