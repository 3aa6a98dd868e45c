/*
 * Calls out of their chunks, and what people thought of them.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/usage/usage_report.h"

enum { FIND_SLACK_US = 2000000, FEEDBACK_TRIES = 3, DAY_BYTES = 10 };

static bool check_user(const struct principal *principal, str *user_id, struct error *e)
{
    if (principal->level >= ROLE_LEVEL_OPERATOR)
        return true;
    if (!str_is_empty(*user_id) && !str_equal(*user_id, principal->user_id))
        return error_set(e, REASON_DENIED, "the usage of others needs the role operator");
    *user_id = principal->user_id;
    return true;
}

/* ---- a chunk ---- */

static bool decode(struct arena *arena, const struct record *row, struct usage_record **out,
                   size_t *count, struct error *e)
{
    struct usage_reader reader;
    struct error failure = {0};
    size_t most = (size_t) record_integer(row, USAGE_CHUNKS_CALLS);
    if (most > USAGE_CHUNK_RECORDS_MAX)
        return error_set(e, REASON_STORE, "a usage chunk says it has %zu calls", most);
    *count = 0;
    *out = ARENA_ARRAY(arena, struct usage_record, most);
    if (!usage_reader_init(&reader, arena, record_text(row, USAGE_CHUNKS_DATA), e))
        return false;
    while (*count < most && usage_read(&reader, &(*out)[*count], &failure))
        ++*count;
    return failure.code == ERROR_OK || error_copy(e, &failure);
}

static bool fits(const struct usage_filter *filter, const struct usage_record *record)
{
    const struct usage_shape *shape = &record->shape;
    bool is_ok = str_equal(shape->status, S("ok"));
    return (str_is_empty(filter->user_id) || str_equal(filter->user_id, shape->user_id)) &&
           (str_is_empty(filter->model) || str_equal(filter->model, shape->model)) &&
           (str_is_empty(filter->variant) || str_equal(filter->variant, shape->variant)) &&
           (str_is_empty(filter->status) || str_equal(filter->status, shape->status) ||
            (str_equal(filter->status, S("error")) && !is_ok)) &&
           (uuid_is_none(filter->key_id) || uuid_equal(filter->key_id, shape->key_id)) &&
           (uuid_is_none(filter->session_id) ||
            uuid_equal(filter->session_id, record->session_id)) &&
           (filter->from_us == 0 || record->started_us >= filter->from_us) &&
           (filter->to_us == 0 || record->started_us < filter->to_us);
}

static struct usage_record keep(struct arena *arena, const struct usage_record *record)
{
    struct usage_record copy = *record;
    struct usage_shape *shape = &copy.shape;
    str *texts[] = {&shape->user_id,      &shape->dialect, &shape->kind,
                    &shape->model,        &shape->variant, &shape->provider,
                    &shape->target_model, &shape->status,  &shape->basis};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        *texts[i] = str_copy(arena, *texts[i]);
    return copy;
}

/* ---- pages of calls: the cursor names a chunk and how many of its calls, from the newest, are done ---- */

struct walk {
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id;
    const struct usage_filter *filter;
    size_t limit;
    struct usage_page *page;
    struct arena *scratch, *kept; /* of one chunk; of what was found: rows come and go on ctx's */
    uuid chunk_id;                /* where to go on: this chunk or an older one */
    size_t done;
    bool is_full;
};

static bool read_cursor(str cursor, uuid *chunk_id, size_t *done, struct error *e)
{
    int64_t number;
    size_t colon = str_find(cursor, S(":"));
    if (colon == STR_NOT_FOUND || !uuid_parse(str_slice(cursor, 0, colon), chunk_id) ||
        !str_to_i64(str_from(cursor, colon + 1), &number) || number < 0 ||
        number > USAGE_CHUNK_RECORDS_MAX)
        return error_set(e, REASON_INVALID, "?cursor= is not one of this list");
    *done = (size_t) number;
    return true;
}

static bool take_chunk(struct walk *walk, const struct record *row, struct error *e)
{
    struct usage_record *records;
    size_t count;
    uuid id = record_uuid(row, USAGE_CHUNKS_ID);
    size_t skipped = uuid_equal(id, walk->chunk_id) ? walk->done : 0;
    arena_reset(walk->scratch);
    if (!decode(walk->scratch, row, &records, &count, e))
        return error_wrap(e, "chunk " STR_FMT, STR_ARG(uuid_str(walk->scratch, id)));
    walk->chunk_id = id;
    for (walk->done = skipped; walk->done < count && !walk->is_full; walk->done++) {
        const struct usage_record *record = &records[count - 1 - walk->done];
        if (!fits(walk->filter, record))
            continue;
        if (walk->page->count == walk->limit) {
            walk->is_full = true;
            return true;
        }
        walk->page->items[walk->page->count++] = keep(walk->kept, record);
    }
    return true;
}

static void where_chunk(struct query *query, const struct usage_filter *filter)
{
    if (filter->from_us > 0)
        query_where_integer(query, USAGE_CHUNKS_LAST_AT, FILTER_GREATER, filter->from_us - 1);
    if (filter->to_us > 0)
        query_where_integer(query, USAGE_CHUNKS_FIRST_AT, FILTER_LESS, filter->to_us);
}

/* One page of chunks: those older than the one that was looked at last. */
static bool walk_some(struct walk *walk, size_t *read, struct error *e)
{
    struct query query = query_of(TABLE_USAGE_CHUNKS);
    struct records rows;
    arena_mark mark = arena_save(walk->ctx->arena);
    query.is_descending = true;
    query.limit = USAGE_PAGE_CHUNKS;
    where_chunk(&query, walk->filter);
    if (!uuid_is_none(walk->chunk_id)) {
        query_where_uuid(&query, USAGE_CHUNKS_ID, walk->chunk_id);
        query.filters[query.filter_count - 1].op = FILTER_LESS;
    }
    if (!store_list(walk->o->parts.store, walk->ctx, walk->tenant_id, &query, &rows, e))
        return false;
    *read = rows.count;
    bool ok = true;
    for (size_t i = 0; ok && i < rows.count && !walk->is_full; i++)
        ok = take_chunk(walk, &rows.items[i], e);
    arena_rewind(walk->ctx->arena, mark);
    return ok;
}

static bool resume_chunk(struct walk *walk, struct error *e)
{
    struct record key = record_of(TABLE_USAGE_CHUNKS),
                  *row = ARENA_NEW(walk->ctx->arena, struct record);
    struct error missing = {0};
    record_set_uuid(&key, USAGE_CHUNKS_ID, walk->chunk_id);
    if (store_get(walk->o->parts.store, walk->ctx, walk->tenant_id, &key, row, &missing))
        return take_chunk(walk, row, e);
    return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
}

static bool walk_all(struct walk *walk, struct error *e)
{
    size_t chunks = 0, read = USAGE_PAGE_CHUNKS;
    if (!uuid_is_none(walk->chunk_id) && !resume_chunk(walk, e))
        return false;
    while (!walk->is_full && read == USAGE_PAGE_CHUNKS && chunks < USAGE_SCAN_CHUNKS_MAX) {
        if (!walk_some(walk, &read, e))
            return false;
        chunks += read;
    }
    if (walk->is_full || read == USAGE_PAGE_CHUNKS)
        walk->page->next_cursor =
            str_printf(walk->ctx->arena, STR_FMT ":%zu",
                       STR_ARG(uuid_str(walk->ctx->arena, walk->chunk_id)), walk->done);
    return true;
}

bool usage_calls(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                 const struct usage_filter *filter, str cursor, size_t limit,
                 struct usage_page *out, struct error *e)
{
    OWNED(arena) scratch = arena_create(64u << 20);
    OWNED(arena) kept = arena_create(64u << 20);
    struct usage_filter own = *filter;
    struct walk walk = {.o = o,
                        .ctx = ctx,
                        .tenant_id = principal->tenant_id,
                        .filter = &own,
                        .limit = limit,
                        .page = out,
                        .scratch = scratch,
                        .kept = kept};
    *out = (struct usage_page){.items = ARENA_ARRAY(ctx->arena, struct usage_record, limit)};
    if (!check_user(principal, &own.user_id, e) ||
        (!str_is_empty(cursor) && !read_cursor(cursor, &walk.chunk_id, &walk.done, e)) ||
        !usage_log_sync(o->usage, ctx, e) || !walk_all(&walk, e))
        return false;
    for (size_t i = 0; i < out->count; i++)
        out->items[i] = keep(ctx->arena, &out->items[i]);
    return true;
}

/* ---- one call ---- */

/* A version 7 id begins with the milliseconds of its making: when the call began. */
static int64_t id_time_us(uuid id)
{
    int64_t ms = 0;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | id.bytes[i];
    return ms * 1000;
}

static bool find_in(struct arena *arena, const struct record *row, uuid call_id,
                    struct usage_record *out, bool *is_found, struct error *e)
{
    struct usage_record *records;
    size_t count;
    if (!decode(arena, row, &records, &count, e))
        return false;
    for (size_t i = 0; i < count && !*is_found; i++) {
        *is_found = uuid_equal(records[i].call_id, call_id);
        if (*is_found)
            *out = records[i];
    }
    return true;
}

static bool find_call(struct orchestrator *o, struct context *ctx, uuid tenant_id, uuid call_id,
                      struct usage_record *out, bool *is_found, struct error *e)
{
    OWNED(arena) scratch = arena_create(64u << 20);
    OWNED(arena) kept = arena_create(64u << 20);
    struct query query = query_of(TABLE_USAGE_CHUNKS);
    int64_t at_us = id_time_us(call_id);
    query.limit = USAGE_PAGE_CHUNKS;
    where_chunk(&query, &(struct usage_filter){.from_us = at_us - FIND_SLACK_US + 1,
                                               .to_us = at_us + FIND_SLACK_US});
    bool ok = true, is_over = false;
    for (size_t chunks = 0; ok && !is_over && chunks < USAGE_FIND_CHUNKS_MAX;
         chunks += USAGE_PAGE_CHUNKS) {
        struct records rows;
        arena_mark mark = arena_save(ctx->arena);
        ok = store_list(o->parts.store, ctx, tenant_id, &query, &rows, e);
        for (size_t i = 0; ok && i < rows.count && !*is_found; i++) {
            arena_reset(scratch);
            ok = find_in(scratch, &rows.items[i], call_id, out, is_found, e);
            if (ok && *is_found)
                *out = keep(kept, out);
        }
        is_over = !ok || *is_found || str_is_empty(rows.next_cursor);
        query.cursor = is_over ? STR_NONE : str_copy(kept, rows.next_cursor);
        arena_rewind(ctx->arena, mark);
    }
    if (ok && *is_found)
        *out = keep(ctx->arena, out);
    return ok;
}

bool usage_find(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                uuid call_id, struct usage_record *out, struct error *e)
{
    bool is_found = false;
    if (id_time_us(call_id) <= clock_unix_us(o->parts.clock) + FIND_SLACK_US &&
        (!usage_log_sync(o->usage, ctx, e) ||
         !find_call(o, ctx, principal->tenant_id, call_id, out, &is_found, e)))
        return false;
    return (is_found && principal_sees_user(principal, out->shape.user_id)) ||
           error_set(e, REASON_NOT_FOUND, "there is no call " STR_FMT,
                     STR_ARG(uuid_str(ctx->arena, call_id)));
}

/* ---- feedback ---- */

struct feedback {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    const struct usage_score *score;
    struct usage_record call;
};

static void set_key(const struct feedback *f, struct record *row)
{
    record_set_uuid(row, USAGE_FEEDBACK_CALL_ID, f->score->call_id);
    record_set_text(row, USAGE_FEEDBACK_USER_ID, f->principal->user_id);
}

static void fill(const struct feedback *f, struct record *row)
{
    set_key(f, row);
    record_set_integer(row, USAGE_FEEDBACK_SCORE, f->score->thousandths);
    if (str_is_empty(f->score->comment))
        record_set_null(row, USAGE_FEEDBACK_COMMENT);
    else
        record_set_text(row, USAGE_FEEDBACK_COMMENT, f->score->comment);
    record_set_text(row, USAGE_FEEDBACK_MODEL, f->call.shape.model);
    record_set_text(row, USAGE_FEEDBACK_VARIANT, f->call.shape.variant);
    record_set_integer(row, USAGE_FEEDBACK_CREATED_AT, clock_unix_us(f->o->parts.clock));
}

static void set_daily_key(const struct feedback *f, struct record *row)
{
    const struct usage_shape *shape = &f->call.shape;
    struct arena *arena = f->ctx->arena;
    str day = str_slice(time_str(arena, f->call.started_us + f->call.duration_us), 0, DAY_BYTES);
    record_set_text(row, USAGE_DAILY_DAY, day);
    record_set_text(row, USAGE_DAILY_USER_ID, shape->user_id);
    record_set_text(row, USAGE_DAILY_KEY_ID,
                    uuid_is_none(shape->key_id) ? S("") : uuid_str(arena, shape->key_id));
    record_set_text(row, USAGE_DAILY_MODEL, shape->model);
    record_set_text(row, USAGE_DAILY_PROVIDER, shape->provider);
    record_set_text(row, USAGE_DAILY_VARIANT, shape->variant);
    record_set_text(row, USAGE_DAILY_KIND, shape->kind);
}

static void add_to_daily(const struct feedback *f, struct batch *batch, const struct record *old)
{
    int64_t before = old ? record_integer(old, USAGE_FEEDBACK_SCORE) : 0,
            now = f->score->thousandths;
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_USAGE_DAILY);
    set_daily_key(f, row);
    for (int i = USAGE_DAILY_REQUESTS; i < USAGE_DAILY_COLUMN_COUNT; i++)
        record_set_integer(row, i, 0);
    row = batch_add(batch, WRITE_ADD, TABLE_USAGE_DAILY);
    set_daily_key(f, row);
    record_set_integer(row, USAGE_DAILY_FEEDBACK_COUNT, old ? 0 : 1);
    record_set_integer(row, USAGE_DAILY_FEEDBACK_SUM, now - before);
    record_set_integer(row, USAGE_DAILY_FEEDBACK_SQUARES, now * now - before * before);
}

static bool store_feedback(const struct feedback *f, struct error *e)
{
    struct batch batch;
    struct error missing = {0};
    struct record *old = ARENA_NEW(f->ctx->arena, struct record),
                  *key = ARENA_NEW(f->ctx->arena, struct record);
    key->table = TABLE_USAGE_FEEDBACK;
    set_key(f, key);
    bool has_old =
        store_get(f->o->parts.store, f->ctx, f->principal->tenant_id, key, old, &missing);
    if (!has_old && missing.code != ERROR_NOT_FOUND)
        return error_copy(e, &missing);
    batch_init(&batch, f->ctx->arena, f->principal->tenant_id);
    fill(f, batch_add(&batch, has_old ? WRITE_UPDATE : WRITE_INSERT, TABLE_USAGE_FEEDBACK));
    if (has_old)
        batch_where_integer(&batch, USAGE_FEEDBACK_SCORE,
                            record_integer(old, USAGE_FEEDBACK_SCORE));
    add_to_daily(f, &batch, has_old ? old : NULL);
    return store_commit(f->o->parts.store, f->ctx, &batch, e);
}

bool usage_feedback(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                    const struct usage_score *score, struct error *e)
{
    struct feedback f = {.o = o, .ctx = ctx, .principal = principal, .score = score};
    if (score->thousandths < 0 || score->thousandths > 1000)
        return error_set(e, REASON_SCHEMA, "score must be from 0 to 1");
    if (score->comment.len > USAGE_COMMENT_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "comment is over %u bytes", USAGE_COMMENT_BYTES_MAX);
    if (!usage_find(o, ctx, principal, score->call_id, &f.call, e))
        return false;
    for (int i = 0; i < FEEDBACK_TRIES; i++) { /* the same person may score twice at once */
        *e = (struct error){0};
        if (store_feedback(&f, e))
            return true;
        if (e->reason != REASON_CONFLICT)
            return false;
    }
    return false;
}
