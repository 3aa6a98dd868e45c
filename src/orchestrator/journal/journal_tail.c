#include "orchestrator/journal/journal_tail.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <stdlib.h>

struct kept {
    struct event event; /* without data */
    int64_t writer;
    size_t bytes;
    char *text;
};

/* A ring: numbers first_seq .. first_seq + count - 1 without a gap, at events[seq % JOURNAL_TAIL_EVENTS]. */
struct journal_tail {
    struct kept events[JOURNAL_TAIL_EVENTS];
    int64_t first_seq;
    size_t count, bytes;
    int64_t committed_seq;
};

static size_t place_of(int64_t seq)
{
    return (size_t) ((uint64_t) seq % JOURNAL_TAIL_EVENTS);
}

static void drop(struct journal_tail *tail, int64_t seq)
{
    struct kept *kept = &tail->events[place_of(seq)];
    tail->bytes -= kept->bytes;
    tail->count--;
    free(kept->text);
    *kept = (struct kept){0};
}

static void drop_first(struct journal_tail *tail)
{
    drop(tail, tail->first_seq++);
}

/* All from this number on. */
static void truncate_at(struct journal_tail *tail, int64_t seq)
{
    while (tail->count > 0 && tail->first_seq + (int64_t) tail->count > seq)
        drop(tail, tail->first_seq + (int64_t) tail->count - 1);
    if (tail->committed_seq >= seq)
        tail->committed_seq = seq - 1;
}

struct journal_tail *journal_tail_create(void)
{
    struct journal_tail *tail = calloc(1, sizeof *tail);
    ensure(tail != NULL);
    return tail;
}

void journal_tail_destroy(struct journal_tail *tail)
{
    if (!tail)
        return;
    while (tail->count > 0)
        drop_first(tail);
    free(tail);
}

void journal_tail_begin(struct journal_tail *tail)
{
    truncate_at(tail, tail->committed_seq + 1);
}

void journal_tail_offer(struct journal_tail *tail, int64_t writer, const struct event *event,
                        str data)
{
    truncate_at(tail, event->seq);
    if (tail->count > 0 && tail->first_seq + (int64_t) tail->count != event->seq)
        truncate_at(tail, tail->first_seq);
    if (data.len > JOURNAL_TAIL_BYTES)
        return; /* a gap: the next one begins anew */
    while (tail->count == JOURNAL_TAIL_EVENTS ||
           (tail->count > 0 && tail->bytes + data.len > JOURNAL_TAIL_BYTES))
        drop_first(tail);
    if (tail->count == 0)
        tail->first_seq = event->seq;
    struct kept *kept = &tail->events[place_of(event->seq)];
    kept->text = malloc(data.len + 1);
    ensure(kept->text != NULL);
    memcpy(kept->text, data.ptr, data.len);
    kept->writer = writer;
    kept->bytes = data.len;
    kept->event = *event;
    kept->event.data = NULL;
    tail->bytes += data.len;
    tail->count++;
}

/* Of the numbers that are durable now, the first that was offered by somebody else; seq + 1: none. */
static int64_t first_of_others(const struct journal_tail *tail, int64_t writer, int64_t seq)
{
    int64_t end = tail->first_seq + (int64_t) tail->count;
    int64_t at =
        tail->committed_seq + 1 > tail->first_seq ? tail->committed_seq + 1 : tail->first_seq;
    for (; at < end && at <= seq; at++)
        if (tail->events[place_of(at)].writer != writer)
            return at;
    return seq + 1;
}

void journal_tail_commit(struct journal_tail *tail, int64_t writer, int64_t seq)
{
    int64_t taken = first_of_others(tail, writer, seq);
    if (taken <= seq)
        truncate_at(tail, taken);
    if (seq > tail->committed_seq)
        tail->committed_seq = seq;
}

size_t journal_tail_read(const struct journal_tail *tail, int64_t after_seq, size_t limit,
                         struct arena *arena, struct event *events, str *data)
{
    size_t count = 0;
    int64_t seq = after_seq + 1, end = tail->first_seq + (int64_t) tail->count;
    if (tail->count == 0 || seq < tail->first_seq)
        return 0;
    for (; seq < end && seq <= tail->committed_seq && count < limit; seq++, count++) {
        const struct kept *kept = &tail->events[place_of(seq)];
        events[count] = kept->event;
        data[count] = str_copy(arena, str_of(kept->text, kept->bytes));
    }
    return count;
}
