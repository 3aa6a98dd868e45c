/*
 * one text through a set
 *
 * All positions are offsets into the text.  Of each slice: the matcher says which rules may have matched (hits); the hold automaton
 * says from where on the text's end may still become a match; everything before that place is decided, byte by byte, by the rules'
 * programs (only those that were hit, so mostly none), and goes out.
 *
 *      out ........ done ......................... end
 *      | not whole   | may be the beginning         |
 *      | characters  | of a match                   |
 *
 * A place is decided once all bytes that could matter to it are there; so what is decided does not depend on the slices.
 */
#include "filter/filter_internal.h"

#include "base/arena.h"
#include "base/ensure.h"

#include <stdlib.h>

/* A masked match that is longer than what is held: the program's states, until none is left. */
struct going {
    const struct rule *rule;
    uint64_t at; /* the next byte to take */
    uint16_t count;
    uint16_t states[];
};

struct filter_stream {
    const struct filter_set *set;
    hs_stream_t *matcher;
    struct going *going; /* NULL: none */
    uint64_t start;      /* place of the first byte that is kept */
    uint64_t done, out;
    uint64_t masked_until, flagged_until; /* where the last match of the action ended */
    uint64_t hit_end;                     /* the last end of all hits */
    uint64_t hits[FILTER_HIT_WORDS];      /* rules that may have matched between done and hit_end */
    uint16_t kept;
    bool is_blocked, has_before;
    unsigned char bytes[FILTER_WORK_BEFORE +
                        FILTER_HOLD_BYTES_MAX]; /* the byte before start, then those kept */
};

struct slice {
    struct filter_stream *stream;
    struct filter_thread *thread;
    const struct filter_sink *sink;
    const unsigned char
        *text; /* text[0] is at `start`; text[-1] is there when the stream has one */
    uint64_t start, end;
    bool is_last;
};

enum { CHARACTER_BYTES_MAX = 4, LOOKED_AHEAD = 2 };

struct filter_stream *filter_stream_create(const struct filter_set *set)
{
    struct filter_stream *stream = calloc(1, sizeof *stream);
    ensure(stream);
    stream->set = set;
    if (set->database)
        ensure(hs_open_stream(set->database, 0, &stream->matcher) == HS_SUCCESS);
    return stream;
}

void filter_stream_destroy(struct filter_stream *stream)
{
    if (!stream)
        return;
    if (stream->matcher)
        hs_close_stream(stream->matcher, NULL, NULL, NULL);
    free(stream->going);
    free(stream);
}

size_t filter_stream_held(const struct filter_stream *stream)
{
    return stream->kept;
}

size_t filter_set_stream_bytes(const struct filter_set *set)
{
    return sizeof(struct filter_stream) + set->stream_bytes;
}

/* ---- what a slice looks like ---- */

static unsigned char byte_at(const struct slice *slice, uint64_t at)
{
    return slice->text[at - slice->start];
}

static struct place place_at(const struct slice *slice, uint64_t at)
{
    struct place place = {BYTE_NONE, BYTE_NONE, BYTE_NONE};
    if (at > slice->start || slice->stream->has_before)
        place.before = slice->text[(int64_t) (at - slice->start) - 1];
    if (at < slice->end)
        place.next = byte_at(slice, at);
    if (at + 1 < slice->end)
        place.second = byte_at(slice, at + 1);
    return place;
}

static int on_hit(unsigned int id, unsigned long long from, unsigned long long to,
                  unsigned int flags, void *owner)
{
    struct filter_stream *stream = owner;
    (void) from;
    (void) flags;
    stream->hits[id / 64] |= UINT64_C(1) << (id % 64);
    if (to > stream->hit_end)
        stream->hit_end = to;
    return 0;
}

/* ---- matches ---- */

struct match {
    const struct rule *rule;
    uint64_t length;
    bool is_going_on;
};

/* The longest match of the rule from `at` that passes its check; 0: none. */
static struct match longest_match(const struct slice *slice, const struct rule *rule, uint64_t at)
{
    struct pattern_run *run = &slice->thread->run;
    struct match match = {.rule = rule};
    uint8_t ends[FILTER_MATCH_BYTES_MAX];
    size_t end_count = 0, length = 0;
    bool is_alive = true;
    pattern_run_start(run, &rule->program, place_at(slice, at));
    while (is_alive && length < FILTER_MATCH_BYTES_MAX && at + length < slice->end) {
        unsigned char byte = byte_at(slice, at + length);
        length++;
        is_alive = pattern_run_step(run, &rule->program, byte, place_at(slice, at + length));
        if (run->is_accepting)
            ends[end_count++] = (uint8_t) length;
    }
    const char *text = (const char *) slice->text + (at - slice->start);
    while (end_count > 0 && match.length == 0) {
        size_t end = ends[--end_count];
        if (!rule->check || rule->check(str_of(text, end)))
            match.length = end;
    }
    match.is_going_on = match.length > 0 && is_alive && length == FILTER_MATCH_BYTES_MAX &&
                        match.length + FILTER_GOING_ON_BYTES >= length;
    return match;
}

static void report(const struct slice *slice, const struct match *match, uint64_t at)
{
    struct filter_finding finding = {match->rule->name, match->rule->group, match->rule->action, at,
                                     match->length};
    if (slice->sink->found)
        slice->sink->found(slice->sink->owner, &finding);
}

/* The best match at a place, by action.  One may stay behind for a longer one's sake, never behind another action's. */
static void matches_at(const struct slice *slice, uint64_t at, struct match *best)
{
    struct filter_stream *stream = slice->stream;
    struct place here = place_at(slice, at);
    for (size_t word = 0; word < FILTER_HIT_WORDS; word++)
        for (uint64_t hits = stream->hits[word]; hits; hits &= hits - 1) {
            size_t i = word * 64 + (size_t) __builtin_ctzll(hits);
            if (i >= stream->set->rule_count)
                return;
            const struct rule *rule = &stream->set->rules[i];
            if (!byteset_has(&rule->first, (unsigned) here.next) ||
                (here.before >= 0 && !byteset_has(&rule->before, (unsigned) here.before)))
                continue;
            if ((rule->action == FILTER_MASK && at < stream->masked_until) ||
                (rule->action == FILTER_FLAG && at < stream->flagged_until))
                continue;
            struct match match = longest_match(slice, rule, at);
            if (match.length > best[rule->action].length)
                best[rule->action] = match;
        }
}

/* ---- going out ---- */

static void emit(struct slice *slice, uint64_t until)
{
    struct filter_stream *stream = slice->stream;
    uint64_t from = stream->out > stream->masked_until ? stream->out : stream->masked_until;
    if (from < until)
        strbuf_add(slice->sink->out,
                   str_of((const char *) slice->text + (from - slice->start), until - from));
    if (until > stream->out)
        stream->out = until;
}

/* Bytes of a character at the end of what was decided whose rest is still to come. */
static size_t unfinished_character(const struct slice *slice, uint64_t until)
{
    for (size_t back = 1; back < CHARACTER_BYTES_MAX && slice->start + back <= until; back++) {
        unsigned char byte = byte_at(slice, until - back);
        size_t need = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
        if (byte < 0x80 || byte >= 0xc0)
            return need > back ? back : 0;
    }
    return 0;
}

/* ---- matches that go on ---- */

/* After longest_match() of the same rule: its states, at the bound. */
static void go_on(struct slice *slice, const struct rule *rule, uint64_t at)
{
    struct filter_stream *stream = slice->stream;
    const struct pattern_run *run = &slice->thread->run;
    struct going *going = realloc(stream->going, sizeof *going + run->count * sizeof(uint16_t));
    ensure(going);
    going->rule = rule;
    going->at = at + FILTER_MATCH_BYTES_MAX;
    going->count = run->count;
    memcpy(going->states, run->now, run->count * sizeof(uint16_t));
    stream->going = going;
    stream->masked_until = UINT64_MAX;
}

static void advance_going(struct slice *slice)
{
    struct filter_stream *stream = slice->stream;
    struct going *going = stream->going;
    struct pattern_run *run = &slice->thread->run;
    memcpy(run->now, going->states, going->count * sizeof(uint16_t));
    run->count = going->count;
    bool is_alive = true;
    while (is_alive && going->at < slice->end &&
           (slice->is_last || slice->end - going->at > LOOKED_AHEAD)) {
        is_alive = pattern_run_step(run, &going->rule->program, byte_at(slice, going->at),
                                    place_at(slice, going->at + 1));
        if (is_alive || run->is_accepting)
            going->at++;
    }
    if (!is_alive || slice->is_last) {
        stream->masked_until = going->at;
        free(going);
        stream->going = NULL;
        return;
    }
    going = realloc(going, sizeof *going + run->count * sizeof(uint16_t));
    ensure(going);
    going->count = run->count;
    memcpy(going->states, run->now, run->count * sizeof(uint16_t));
    stream->going = going;
}

/* ---- deciding ---- */

/* Decides from `done` to `until`; gives how far it came (a match that goes on may end it early).  False: blocked. */
static bool decide(struct slice *slice, uint64_t *until)
{
    struct filter_stream *stream = slice->stream;
    for (uint64_t at = stream->done; at < *until && at < stream->hit_end; at++) {
        struct match best[FILTER_ACTION_COUNT] = {{0}};
        matches_at(slice, at, best);
        if (best[FILTER_BLOCK].length > 0) {
            emit(slice, at);
            report(slice, &best[FILTER_BLOCK], at);
            stream->is_blocked = true;
            return false;
        }
        if (best[FILTER_FLAG].length > 0) {
            report(slice, &best[FILTER_FLAG], at);
            stream->flagged_until = at + best[FILTER_FLAG].length;
        }
        struct match *mask = &best[FILTER_MASK];
        if (mask->length == 0)
            continue;
        emit(slice, at);
        strbuf_add(slice->sink->out, mask->rule->mask);
        report(slice, mask, at);
        stream->masked_until = at + mask->length;
        if (!mask->is_going_on)
            continue;
        longest_match(slice, mask->rule, at); /* again, for its states */
        go_on(slice, mask->rule, at);
        advance_going(slice);
        if (stream->going && stream->going->at < *until)
            *until = stream->going->at;
    }
    return true;
}

/* From here on the text waits. */
static uint64_t find_hold(const struct slice *slice)
{
    struct filter_stream *stream = slice->stream;
    if (slice->is_last)
        return slice->end;
    uint64_t room = FILTER_HOLD_BYTES_MAX - (CHARACTER_BYTES_MAX - 1);
    uint64_t from =
        slice->end > room && slice->end - room > stream->done ? slice->end - room : stream->done;
    uint64_t hold = slice->end;
    for (size_t i = 0; i < stream->set->hold_count; i++) {
        uint64_t start = slice->start + hold_start(&stream->set->holds[i], slice->text,
                                                   from - slice->start, slice->end - slice->start);
        hold = start < hold ? start : hold;
    }
    if (stream->going && stream->going->at < hold)
        hold = stream->going->at;
    return hold;
}

static void keep_rest(struct slice *slice)
{
    struct filter_stream *stream = slice->stream;
    uint64_t from = stream->out < stream->done ? stream->out : stream->done;
    ensure(slice->end - from <= FILTER_HOLD_BYTES_MAX);
    if (from > slice->start || stream->has_before) {
        stream->bytes[0] = slice->text[(int64_t) (from - slice->start) - 1];
        stream->has_before = true;
    }
    stream->kept = (uint16_t) (slice->end - from);
    memcpy(stream->bytes + FILTER_WORK_BEFORE, slice->text + (from - slice->start), stream->kept);
    stream->start = from;
}

static bool process(struct slice *slice)
{
    struct filter_stream *stream = slice->stream;
    if (slice->is_last) { /* what ends with the text is not always told by the matcher */
        memset(stream->hits, 0xff, sizeof stream->hits);
        stream->hit_end = slice->end;
    }
    if (stream->going)
        advance_going(slice);
    uint64_t hold = find_hold(slice);
    if (!decide(slice, &hold))
        return false;
    stream->done = hold;
    if (stream->hit_end <= hold)
        memset(stream->hits, 0, sizeof stream->hits);
    uint64_t until = hold;
    if (!slice->is_last)
        until -= unfinished_character(slice, hold);
    if (until > stream->out)
        emit(slice, until);
    keep_rest(slice);
    return true;
}

/* What was kept and the new bytes, side by side. */
static struct slice join(struct filter_stream *stream, struct filter_thread *thread, str text,
                         const struct filter_sink *sink)
{
    size_t before = FILTER_WORK_BEFORE + (size_t) stream->kept;
    memcpy(thread->work, stream->bytes, before);
    if (text.len > 0)
        memcpy(thread->work + before, text.ptr, text.len);
    return (struct slice){.stream = stream,
                          .thread = thread,
                          .sink = sink,
                          .text = thread->work + FILTER_WORK_BEFORE,
                          .start = stream->start,
                          .end = stream->start + stream->kept + text.len};
}

bool filter_stream_feed(struct filter_stream *stream, str text, const struct filter_sink *sink)
{
    if (stream->is_blocked)
        return false;
    if (stream->set->rule_count == 0) {
        strbuf_add(sink->out, text);
        return true;
    }
    struct filter_thread *thread = filter_thread_for(stream->set);
    while (text.len > 0) {
        str piece = str_slice(text, 0, FILTER_SLICE_BYTES);
        text = str_from(text, piece.len);
        ensure(hs_scan_stream(stream->matcher, piece.ptr, (unsigned) piece.len, 0, thread->scratch,
                              on_hit, stream) == HS_SUCCESS);
        struct slice slice = join(stream, thread, piece, sink);
        if (!process(&slice))
            return false;
    }
    return true;
}

bool filter_stream_end(struct filter_stream *stream, const struct filter_sink *sink)
{
    if (stream->is_blocked)
        return false;
    if (stream->set->rule_count == 0)
        return true;
    struct filter_thread *thread = filter_thread_for(stream->set);
    struct slice slice = join(stream, thread, STR_NONE, sink);
    slice.is_last = true;
    if (!process(&slice))
        return false;
    ensure(hs_reset_stream(stream->matcher, 0, NULL, NULL, NULL) == HS_SUCCESS);
    const struct filter_set *set = stream->set;
    hs_stream_t *matcher = stream->matcher;
    *stream = (struct filter_stream){.set = set, .matcher = matcher};
    return true;
}

bool filter_text(const struct filter_set *set, str text, const struct filter_sink *sink)
{
    OWNED(filter_stream) stream = filter_stream_create(set);
    return filter_stream_feed(stream, text, sink) && filter_stream_end(stream, sink);
}

size_t filter_room(size_t bytes)
{
    /* The shortest match is one byte and the longest mask a rule's name in brackets. */
    size_t factor = FILTER_RULE_NAME_BYTES_MAX + 2;
    return bytes > (SIZE_MAX - FILTER_HOLD_BYTES_MAX) / factor
               ? SIZE_MAX
               : (bytes + FILTER_HOLD_BYTES_MAX) * factor;
}
