/*
 * Journal: appends to a run's journal and follows it.
 *
 * A writer gathers events and read-model rows into one batch; journal_flush makes them durable in one commit under the session's
 * fence, then tells the readers.  journal_post does the same without waiting (deltas): order is kept with later flushes.
 * Readers (any number, any loop) read committed events only, so a number never names two things.
 *
 *   struct journal_writer w;  journal_writer_init(...);
 *   struct json_writer *data = journal_event(&w, EVENT_MODEL_REQUESTED);  json_put_...(data ...);   (object already begun)
 *   struct record *r = journal_row(&w, WRITE_INSERT, TABLE_MESSAGES);
 *   if (!journal_flush(&w, ctx, "model_intent", e)) ...
 *
 * The writer folds every event it appends into `state`, so memory and journal cannot drift apart.
 *
 * The text of a stored answer is not kept twice: once the deltas of an attempt are old, journal_compact (retention.h) leaves one row of
 * where they were cut.  Readers see no difference: the same numbers, times and pieces.
 * A fork's journal begins with another run's events, by reference; readers follow it.
 * Thread: the loop that owns the session.
 */
#ifndef NEXUS_ORCHESTRATOR_JOURNAL_H
#define NEXUS_ORCHESTRATOR_JOURNAL_H

#include "orchestrator/journal/run_state.h"
#include "store/store.h"

struct journal_hub;

/* Who listens to a writer and tells it the time: a replay (run_replay.h). */
struct journal_tap {
    void *owner;
    int64_t (*at_us)(void *owner,
                     enum event_type type); /* when the next event of the type happens */
    void (*appended)(void *owner, const struct event *event); /* folded, not durable yet */
    void (*flushed)(void *owner);                             /* what was appended is durable */
};

struct journal_writer {
    struct store *store;
    struct journal_hub *hub;
    struct clock *clock;
    struct run_state *state;
    uuid tenant_id, session_id, run_id;
    str node;
    int64_t epoch;
    int64_t number;      /* of this writer, in the hub */
    struct arena *arena; /* of the pending batch: reset after each flush */
    struct batch batch;
    int64_t
        batch_number; /* tells whether a row of `batch` that somebody remembers is still there */
    struct fence fence;
    int64_t flushed_seq; /* newest event of the batches sent so far */
    struct strbuf data;  /* of the event being written */
    struct json_writer json;
    enum event_type open_type;
    int64_t open_at_us;
    int64_t held_us; /* the time of every event, while it is held; 0: each has its own */
    bool is_open;
    const struct journal_tap *tap; /* NULL: none */
    struct error failure; /* the first event that did not fold: the next flush reports it */
};

void journal_writer_init(struct journal_writer *w, struct store *store, struct journal_hub *hub,
                         struct clock *clock, struct run_state *state, uuid tenant_id,
                         uuid session_id, uuid run_id, str node, int64_t epoch);
void journal_writer_deinit(struct journal_writer *w);
struct json_writer *journal_event(struct journal_writer *w, enum event_type type);
/* The time of the event being written: what is derived from it can be made again from the journal. */
int64_t journal_now_us(struct journal_writer *w);
/* From here on one moment: what is decided now and what is written of it have the same time, until it is freed again. */
void journal_hold_time(struct journal_writer *w);
void journal_free_time(struct journal_writer *w);
void journal_close_event(
    struct journal_writer *w); /* before writing to w->batch by hand; the others do it themselves */
struct record *journal_row(struct journal_writer *w, enum write_op op, enum table table);
bool journal_has_pending(const struct journal_writer *w);
/* `fault` names a fault point (before/after the commit).  FENCED: another writer owns the session: stop at once, write nothing. */
may_suspend bool journal_flush(struct journal_writer *w, struct context *ctx, const char *fault,
                               struct error *e);
/* The same.  On CONFLICT nothing of it is stored: `mend` may bring what the batch depends on up to date (true), and it is committed again,
   JOURNAL_MENDS_MAX times at most.  The events are those that were folded. */
struct journal_mend {
    may_suspend bool (*fn)(void *owner, struct batch *batch);
    void *owner;
};
may_suspend bool journal_flush_mended(struct journal_writer *w, struct context *ctx,
                                      const char *fault, struct journal_mend mend, struct error *e);
must_check bool journal_post(struct journal_writer *w, struct error *e);

/* ---- reading ---- */
struct journal_hub *journal_hub_create(void);
void journal_hub_destroy(struct journal_hub *hub);
/* A new writer of the run: what an earlier one has on its way is nobody's any more.  Its number, from 1 on.  (The writer calls it.) */
int64_t journal_begin(struct journal_hub *hub, uuid run_id);
/* Tells the followers that the writer's events up to `seq` are durable; writer 0: one that offers none.  Any thread.  (The writer calls it.) */
void journal_publish(struct journal_hub *hub, uuid run_id, int64_t writer, int64_t seq);
/* Events on their way to the store, for those who follow the run; journal_publish makes them readable.  (The writer calls it.) */
bool journal_is_followed(struct journal_hub *hub, uuid run_id);
void journal_offer(struct journal_hub *hub, uuid run_id, int64_t writer, const struct event *event,
                   str data);

struct events {
    struct event *items;
    size_t count;
};
/* Committed events after `after_seq`, at most `limit` (1..STORE_PAGE_MAX), on ctx's arena. */
may_suspend bool journal_read(struct store *store, struct context *ctx, uuid tenant_id, uuid run_id,
                              int64_t after_seq, size_t limit, struct events *out, struct error *e);

/* One event out of its row; older versions are brought up to date (event_upgrade.h). */
must_check bool journal_decode(struct arena *arena, const struct record *row, struct event *out,
                               struct error *e);
/* Deltas of answers that are stored, of at most `attempts_max` attempts of one run that ended before `before_us`: many rows become one
   of cuts.  Adds to the batch, which is one for retention, at most RETENTION_ROWS_PER_BATCH rows; *is_done: there are no more. */
may_suspend bool journal_compact(struct store *store, struct context *ctx, uuid run_id,
                                 int64_t before_us, size_t attempts_max, struct batch *batch,
                                 size_t *removed, bool *is_done, struct error *e);

/* Follows a run from any loop: wakes when something newer than `seen` was committed. */
struct journal_follower;
struct journal_follower *journal_follow(struct journal_hub *hub, struct context *ctx, uuid run_id);
/* True when there may be news; TIMEOUT at deadline_ns (then poll the store or send a keep-alive), CANCELLED. */
may_suspend bool journal_wait(struct journal_follower *follower, struct context *ctx, int64_t seen,
                              int64_t deadline_ns, struct error *e);
void journal_unfollow(struct journal_follower *follower);
/* As journal_read, out of memory when the run is at work here and the follower keeps up.  May give fewer than there are. */
may_suspend bool journal_follower_read(struct journal_follower *follower, struct store *store,
                                       struct context *ctx, uuid tenant_id, int64_t after_seq,
                                       size_t limit, struct events *out, struct error *e);

/* One event as readers see it: {"seq","type","at","data"} with content/output joined from rows.  data_only: just data. */
may_suspend bool journal_write_event(struct store *store, struct context *ctx, uuid tenant_id,
                                     const struct event *event, bool data_only,
                                     struct json_writer *w, struct error *e);

#endif
