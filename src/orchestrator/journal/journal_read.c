/*
 * Reading a journal: rows -> events.
 *
 *   rows of the run --.                        .-- a row of cuts stands for the pieces of an answer's text
 *                      +--> decode, upgrade --+
 *   the run before ---'  (fork: up to FORKED_AT)
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/journal/event_upgrade.h"
#include "orchestrator/journal/journal.h"

/* What a page is gathered with. */
struct reading {
    struct store *store;
    struct context *ctx;
    uuid tenant_id;
    struct event *items;
    size_t count, limit;
};

bool journal_decode(struct arena *arena, const struct record *row, struct event *out,
                    struct error *e)
{
    out->seq = record_integer(row, RUN_EVENTS_SEQ);
    out->at_us = record_integer(row, RUN_EVENTS_AT);
    str type = record_text(row, RUN_EVENTS_TYPE);
    if (!event_type_parse(type, &out->type))
        return error_set(e, REASON_CORRUPT,
                         "journal event %lld has the unknown type \"" STR_FMT "\"",
                         (long long) out->seq, STR_ARG(type));
    const struct json *data;
    return (json_parse(arena, record_text(row, RUN_EVENTS_DATA), (struct json_limits){0}, &data,
                       e) &&
            event_upgrade(arena, out->type, record_integer(row, RUN_EVENTS_VERSION), data,
                          &out->data, e)) ||
           error_wrap(e, "journal event %lld", (long long) out->seq);
}

/* ---- a row of cuts: {"attempt", "message_id", "from": first number, "start": offset, "cuts": [[bytes, microseconds], ...]} ---- */

static bool message_text(struct reading *r, const struct json *data, str *out, struct error *e)
{
    struct record key = record_of(TABLE_MESSAGES), *row = ARENA_NEW(r->ctx->arena, struct record);
    uuid id;
    struct error missing = {0};
    if (!uuid_parse(json_str_or(data, S("message_id"), STR_NONE), &id))
        return error_set(e, REASON_CORRUPT, "a row of cuts names no message");
    record_set_uuid(&key, MESSAGES_ID, id);
    *out = STR_NONE;
    if (!store_get(r->store, r->ctx, r->tenant_id, &key, row, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    *out = record_text(row, MESSAGES_CONTENT);
    return true;
}

static const struct json *delta_data(struct arena *arena, int64_t attempt, str text)
{
    struct json_builder b;
    json_builder_init(&b, arena, 8);
    json_build_object_begin(&b);
    json_build_key(&b, S("attempt"));
    json_build_i64(&b, attempt);
    json_build_key(&b, S("text"));
    json_build_str(&b, text);
    json_build_object_end(&b);
    return json_build_finish(&b);
}

static bool expand_cuts(struct reading *r, const struct event *row, int64_t after_seq,
                        struct error *e)
{
    str text;
    int64_t seq = json_i64_or(row->data, S("from"), row->seq),
            attempt = json_i64_or(row->data, S("attempt"), 0);
    int64_t offset = json_i64_or(row->data, S("start"), 0), at_us = row->at_us;
    struct json_iter it = json_iter(json_get(row->data, S("cuts")));
    const struct json *cut;
    if (!message_text(r, row->data, &text, e))
        return false;
    for (; json_next(&it, NULL, &cut); seq++) {
        int64_t bytes = 0, us = 0;
        if (!json_to_i64(json_at(cut, 0), &bytes) || !json_to_i64(json_at(cut, 1), &us) ||
            bytes < 0 || offset < 0)
            return error_set(e, REASON_CORRUPT, "journal event %lld: a cut is malformed",
                             (long long) row->seq);
        str piece = str_slice(text, (size_t) offset, (size_t) (offset + bytes));
        offset += bytes;
        if (seq <= after_seq || r->count == r->limit)
            continue;
        r->items[r->count++] = (struct event){
            .seq = seq,
            .type = EVENT_MODEL_DELTA,
            .at_us = at_us - us,
            .data = delta_data(r->ctx->arena, attempt, piece),
        };
    }
    return true;
}

static int64_t first_seq_of(const struct event *row)
{
    return row->type == EVENT_MODEL_DELTA ? json_i64_or(row->data, S("from"), row->seq) : row->seq;
}

/* ---- rows ---- */

static bool list_rows(struct reading *r, uuid run_id, int64_t after_seq, struct records *rows,
                      struct error *e)
{
    struct query query = query_of(TABLE_RUN_EVENTS);
    query_where_uuid(&query, RUN_EVENTS_RUN_ID, run_id);
    query_where_integer(&query, RUN_EVENTS_SEQ, FILTER_GREATER, after_seq);
    query.order_column = RUN_EVENTS_SEQ;
    query.limit = r->limit - r->count;
    return store_list(r->store, r->ctx, r->tenant_id, &query, rows, e);
}

static bool take_rows(struct reading *r, const struct event *decoded, size_t count,
                      int64_t after_seq, int64_t up_to, struct error *e)
{
    for (size_t i = 0; i < count && r->count < r->limit; i++) {
        if (first_seq_of(&decoded[i]) > up_to)
            break;
        if (decoded[i].type == EVENT_MODEL_DELTA && json_get(decoded[i].data, S("cuts"))) {
            if (!expand_cuts(r, &decoded[i], after_seq, e))
                return false;
            continue;
        }
        r->items[r->count++] = decoded[i];
    }
    while (r->count > 0 && r->items[r->count - 1].seq > up_to)
        r->count--; /* of the last row of cuts */
    return true;
}

/* The run that this one begins with, if any.  What retention is removing (retention.h) is not read: its first events go first. */
static bool find_origin(struct reading *r, uuid run_id, uuid *origin, int64_t *at, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS), *row = ARENA_NEW(r->ctx->arena, struct record);
    struct error missing = {0};
    record_set_uuid(&key, AGENT_RUNS_ID, run_id);
    *origin = UUID_NONE;
    if (!store_get(r->store, r->ctx, r->tenant_id, &key, row, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    if (record_has(row, AGENT_RUNS_REMOVED_AT))
        return error_set(e, REASON_NOT_FOUND, "the run has been removed");
    if (record_has(row, AGENT_RUNS_FORKED_FROM)) {
        *origin = record_uuid(row, AGENT_RUNS_FORKED_FROM);
        *at = record_integer(row, AGENT_RUNS_FORKED_AT);
    }
    return true;
}

static bool read_chain(struct reading *r, uuid run_id, int64_t after_seq, int64_t up_to, int depth,
                       struct error *e)
{
    struct records rows;
    if (!list_rows(r, run_id, after_seq, &rows, e))
        return false;
    struct event *decoded = ARENA_ARRAY(r->ctx->arena, struct event, rows.count + 1);
    for (size_t i = 0; i < rows.count; i++)
        if (!journal_decode(r->ctx->arena, &rows.items[i], &decoded[i], e))
            return false;
    bool has_gap = rows.count > 0 && first_seq_of(&decoded[0]) > after_seq + 1;
    if (has_gap || (rows.count == 0 && depth > 0)) {
        uuid origin;
        int64_t at = 0;
        if (!find_origin(r, run_id, &origin, &at, e))
            return false;
        if (depth >= RUN_FORK_DEPTH_MAX)
            return error_set(e, REASON_CORRUPT, "more than %d runs stand behind this fork",
                             RUN_FORK_DEPTH_MAX);
        if (!uuid_is_none(origin) && at > after_seq &&
            !read_chain(r, origin, after_seq, at < up_to ? at : up_to, depth + 1, e))
            return false;
    }
    return take_rows(r, decoded, rows.count, after_seq, up_to, e);
}

bool journal_read(struct store *store, struct context *ctx, uuid tenant_id, uuid run_id,
                  int64_t after_seq, size_t limit, struct events *out, struct error *e)
{
    struct reading r = {.store = store,
                        .ctx = ctx,
                        .tenant_id = tenant_id,
                        .items = ARENA_ARRAY(ctx->arena, struct event, limit),
                        .limit = limit};
    if (!read_chain(&r, run_id, after_seq, INT64_MAX, 0, e))
        return false;
    *out = (struct events){r.items, r.count};
    return true;
}

/* ---- compaction ---- */

/* Pieces of one attempt whose numbers follow each other. */
struct pieces {
    int64_t attempt, first_seq, last_seq, last_at_us;
    size_t start, count, first; /* offset in the answer; index of the first event */
};

struct compaction {
    struct reading *r;
    struct batch *batch;
    uuid run_id;
    const struct event *events;
    size_t count, removed;
    bool is_full; /* the batch takes no more: the rest comes with another one */
};

static void write_cuts(struct compaction *c, const struct pieces *p, str message_id)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, c->r->ctx->arena, SSE_EVENT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_i64(&w, S("attempt"), p->attempt);
    json_put_str(&w, S("message_id"), message_id);
    json_put_i64(&w, S("from"), p->first_seq);
    json_put_i64(&w, S("start"), (int64_t) p->start);
    json_key(&w, S("cuts"));
    json_array_begin(&w);
    for (size_t i = 0; i < p->count; i++) {
        const struct event *event = &c->events[p->first + i];
        json_array_begin(&w);
        json_write_i64(&w, (int64_t) json_str_or(event->data, S("text"), STR_NONE).len);
        json_write_i64(&w, p->last_at_us - event->at_us);
        json_array_end(&w);
    }
    json_array_end(&w);
    json_object_end(&w);
    if (strbuf_is_over(&text))
        return; /* too many pieces for one row: they stay */
    struct record *row = batch_add(c->batch, WRITE_UPDATE, TABLE_RUN_EVENTS);
    record_set_uuid(row, RUN_EVENTS_RUN_ID, c->run_id);
    record_set_integer(row, RUN_EVENTS_SEQ, p->last_seq);
    record_set_text(row, RUN_EVENTS_DATA, strbuf_str(&text));
    for (int64_t seq = p->first_seq; seq < p->last_seq; seq++) {
        row = batch_add(c->batch, WRITE_DELETE, TABLE_RUN_EVENTS);
        record_set_uuid(row, RUN_EVENTS_RUN_ID, c->run_id);
        record_set_integer(row, RUN_EVENTS_SEQ, seq);
        c->removed++;
    }
}

/* Do the pieces join to the answer's text? */
static bool is_whole(const struct compaction *c, size_t end, int64_t attempt, str text)
{
    size_t offset = 0;
    for (size_t i = 0; i < end; i++) {
        const struct event *event = &c->events[i];
        if (event->type != EVENT_MODEL_DELTA ||
            json_i64_or(event->data, S("attempt"), 0) != attempt)
            continue;
        struct json_iter it = json_iter(json_get(event->data, S("cuts")));
        const struct json *cut;
        int64_t bytes;
        while (json_next(&it, NULL, &cut))
            if (json_to_i64(json_at(cut, 0), &bytes))
                offset += (size_t) bytes;
        str piece = json_str_or(event->data, S("text"), STR_NONE);
        if (!str_equal(str_slice(text, offset, offset + piece.len), piece))
            return false;
        offset += piece.len;
    }
    return offset == text.len;
}

static void end_pieces(struct compaction *c, struct pieces *p, str message_id)
{
    if (p->count > 0 && c->batch->count + p->count <= RETENTION_ROWS_PER_BATCH)
        write_cuts(c, p, message_id);
    else if (p->count > 0)
        c->is_full = true;
    p->count = 0;
}

/* The answer of `completed` at index `end`: its pieces stand before it. */
static bool compact_attempt(struct compaction *c, size_t end, struct error *e)
{
    enum { PIECES_MAX = 200 }; /* in one row of cuts */
    const struct json *data = c->events[end].data;
    int64_t attempt = json_i64_or(data, S("attempt"), 0);
    str text, message_id = json_str_or(data, S("message_id"), STR_NONE);
    struct pieces p = {.attempt = attempt};
    size_t offset = 0;
    if (!message_text(c->r, data, &text, e))
        return false;
    if (!is_whole(c, end, attempt, text))
        return true;
    for (size_t i = 0; i < end && !c->is_full; i++) {
        const struct event *event = &c->events[i];
        if (event->type != EVENT_MODEL_DELTA ||
            json_i64_or(event->data, S("attempt"), 0) != attempt)
            continue;
        bool is_cut = json_get(event->data, S("cuts")) != NULL;
        if (is_cut || p.count == PIECES_MAX || (p.count > 0 && p.last_seq + 1 != event->seq))
            end_pieces(c, &p, message_id);
        if (is_cut) {
            struct json_iter it = json_iter(json_get(event->data, S("cuts")));
            const struct json *cut;
            int64_t bytes;
            while (json_next(&it, NULL, &cut))
                if (json_to_i64(json_at(cut, 0), &bytes))
                    offset += (size_t) bytes;
            continue;
        }
        if (p.count == 0)
            p = (struct pieces){
                .attempt = attempt, .first_seq = event->seq, .start = offset, .first = i};
        p.last_seq = event->seq;
        p.last_at_us = event->at_us;
        p.count++;
        offset += json_str_or(event->data, S("text"), STR_NONE).len;
    }
    end_pieces(c, &p, message_id);
    return true;
}

bool journal_compact(struct store *store, struct context *ctx, uuid run_id, int64_t before_us,
                     size_t attempts_max, struct batch *batch, size_t *removed, bool *is_done,
                     struct error *e)
{
    struct reading r = {
        .store = store, .ctx = ctx, .tenant_id = batch->tenant_id, .limit = STORE_PAGE_MAX};
    int64_t after_seq = 0;
    struct event *events = NULL;
    size_t count = 0, capacity = 0, attempts = 0;
    for (size_t read = STORE_PAGE_MAX; read == STORE_PAGE_MAX;) {
        struct records rows;
        if (!list_rows(&r, run_id, after_seq, &rows, e))
            return false;
        read = rows.count;
        if (count + read > capacity) {
            size_t more = (count + read) * 2;
            events =
                arena_grow(ctx->arena, events, capacity * sizeof *events, more * sizeof *events);
            capacity = more;
        }
        for (size_t i = 0; i < read; i++)
            if (!journal_decode(ctx->arena, &rows.items[i], &events[count++], e))
                return false;
        if (count > 0)
            after_seq = events[count - 1].seq;
    }
    struct compaction c = {
        .r = &r, .batch = batch, .run_id = run_id, .events = events, .count = count};
    for (size_t i = 0; i < count && attempts < attempts_max && !c.is_full; i++)
        if (events[i].type == EVENT_MODEL_COMPLETED && events[i].at_us < before_us) {
            if (!compact_attempt(&c, i, e))
                return false;
            attempts++;
        }
    *removed = c.removed;
    *is_done = !c.is_full;
    return true;
}
