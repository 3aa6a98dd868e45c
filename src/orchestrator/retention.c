#include "orchestrator/retention.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/journal/run_state.h"
#include "orchestrator/orchestrator_internal.h"

struct sweep {
    struct orchestrator *o;
    struct context *ctx;
    const struct retention_rules *rules;
    int64_t now_us;
    struct retention_progress *progress;
    struct retention_counts *counts;
};

/* ---- what must stay ---- */

static bool has_hold(struct context *ctx, str metadata)
{
    const struct json *tree;
    struct error unreadable = {0};
    if (str_is_empty(metadata))
        return false;
    if (!json_parse(ctx->arena, metadata, (struct json_limits){0}, &tree, &unreadable))
        return true; /* who knows */
    const struct json *hold = json_get(tree, S("hold"));
    bool is_held = true;
    return hold && (!json_to_bool(hold, &is_held) || is_held);
}

/* Does any row of a table name it? */
static bool is_named(struct sweep *s, uuid tenant_id, enum table table, int column, uuid id,
                     bool *out, struct error *e)
{
    struct query query = query_of(table);
    struct records rows;
    query_where_uuid(&query, column, id);
    query.limit = 1;
    if (!store_list(s->o->parts.store, s->ctx, tenant_id, &query, &rows, e))
        return false;
    *out = rows.count > 0;
    return true;
}

/* What was seen in a session's row must stand there still when the run is marked: a condition of that commit. */
static void expect(struct batch *mark, const struct record *session)
{
    static const int seen[] = {SESSIONS_METADATA, SESSIONS_LIVE_RUN_ID, SESSIONS_FORKS};
    for (size_t i = 0; i < ARRAY_COUNT(seen); i++) {
        struct record *row = batch_add(mark, WRITE_UPDATE, TABLE_SESSIONS);
        record_set_uuid(row, SESSIONS_ID, record_uuid(session, SESSIONS_ID));
        batch_where_as(mark, seen[i], session);
    }
}

/* It or its session is under hold, or somebody speaks in the session. */
static never_inline bool is_kept(struct sweep *s, uuid tenant_id, const struct record *run,
                                 struct batch *mark, bool *out, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS),
                  *session = ARENA_NEW(s->ctx->arena, struct record);
    struct error missing = {0};
    *out = has_hold(s->ctx, record_text(run, AGENT_RUNS_METADATA));
    if (*out)
        return true;
    record_set_uuid(&key, SESSIONS_ID, record_uuid(run, AGENT_RUNS_SESSION_ID));
    if (!store_get(s->o->parts.store, s->ctx, tenant_id, &key, session, &missing))
        return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    *out = record_has(session, SESSIONS_LIVE_RUN_ID) ||
           has_hold(s->ctx, record_text(session, SESSIONS_METADATA));
    expect(mark, session);
    return true;
}

static bool is_ended(const struct record *run)
{
    enum run_status status;
    return run_status_parse(record_text(run, AGENT_RUNS_STATUS), &status) &&
           run_status_is_final(status);
}

/* Those above it too: a parent that lives asks for what its child answered. */
static never_inline bool is_kept_by_family(struct sweep *s, uuid tenant_id,
                                           const struct record *run, struct batch *mark, bool *out,
                                           struct error *e)
{
    struct record *above = ARENA_NEW(s->ctx->arena, struct record);
    *above = *run;
    for (int depth = 0; depth <= RUN_CHILD_DEPTH_MAX; depth++) {
        struct record key = record_of(TABLE_AGENT_RUNS);
        struct error missing = {0};
        *out = !is_ended(above);
        if (*out)
            return true;
        if (!is_kept(s, tenant_id, above, mark, out, e))
            return false;
        if (*out || !record_has(above, AGENT_RUNS_PARENT_RUN_ID))
            return true;
        record_set_uuid(&key, AGENT_RUNS_ID, record_uuid(above, AGENT_RUNS_PARENT_RUN_ID));
        if (!store_get(s->o->parts.store, s->ctx, tenant_id, &key, above, &missing))
            return missing.code == ERROR_NOT_FOUND || error_copy(e, &missing);
    }
    return true;
}

/* The sessions are read before it is asked who was forked: a fork that this does not see has changed its session until the mark. */
static bool may_remove(struct sweep *s, uuid tenant_id, const struct record *run,
                       struct batch *mark, bool *out, struct error *e)
{
    uuid id = record_uuid(run, AGENT_RUNS_ID);
    bool is_held = false, is_origin = false, is_parent = false, is_forked = false;
    *out = false;
    if (!is_kept_by_family(s, tenant_id, run, mark, &is_held, e))
        return false;
    if (is_held)
        return true;
    if (!is_named(s, tenant_id, TABLE_AGENT_RUNS, AGENT_RUNS_FORKED_FROM, id, &is_origin, e) ||
        !is_named(s, tenant_id, TABLE_AGENT_RUNS, AGENT_RUNS_PARENT_RUN_ID, id, &is_parent, e) ||
        !is_named(s, tenant_id, TABLE_SESSIONS, SESSIONS_FORKED_FROM,
                  record_uuid(run, AGENT_RUNS_SESSION_ID), &is_forked, e))
        return false;
    *out = !is_origin && !is_parent && !is_forked;
    return true;
}

/* ---- removing ---- */

static bool commit(struct sweep *s, struct batch *batch, struct error *e)
{
    batch->is_retention = true;
    batch->fault = "retention";
    if (batch->count > 0 && !store_commit(s->o->parts.store, s->ctx, batch, e))
        return false;
    s->counts->rows += batch->count;
    return true;
}

/* Everything of a table that names the run, batch by batch. */
static bool remove_rows(struct sweep *s, uuid tenant_id, enum table table, int column, uuid run_id,
                        struct error *e)
{
    const struct table_def *def = table_def(table);
    for (;;) {
        struct query query = query_of(table);
        struct records rows;
        struct batch batch;
        arena_mark mark = arena_save(s->ctx->arena);
        query_where_uuid(&query, column, run_id);
        query.limit = STORE_PAGE_MAX;
        if (!store_list(s->o->parts.store, s->ctx, tenant_id, &query, &rows, e))
            return false;
        batch_init(&batch, s->ctx->arena, tenant_id);
        for (size_t i = 0; i < rows.count; i++) {
            struct record *gone = batch_add(&batch, WRITE_DELETE, table);
            for (int c = 0; c < def->column_count; c++)
                if (def->columns[c].flags & COLUMN_KEY) {
                    gone->values[c] = rows.items[i].values[c];
                    gone->has |= 1u << c;
                }
        }
        bool ok = commit(s, &batch, e);
        size_t count = rows.count;
        arena_rewind(s->ctx->arena, mark);
        if (!ok || count < STORE_PAGE_MAX)
            return ok;
    }
}

/* Before the approvals: without them nobody would find the votes again. */
static bool remove_votes(struct sweep *s, uuid tenant_id, uuid run_id, struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    query_where_uuid(&query, APPROVALS_RUN_ID, run_id);
    for (;;) {
        struct records approvals;
        if (!store_list(s->o->parts.store, s->ctx, tenant_id, &query, &approvals, e))
            return false;
        for (size_t i = 0; i < approvals.count; i++)
            if (!remove_rows(s, tenant_id, TABLE_APPROVAL_VOTES, APPROVAL_VOTES_APPROVAL_ID,
                             record_uuid(&approvals.items[i], APPROVALS_ID), e))
                return false;
        if (str_is_empty(approvals.next_cursor))
            return true;
        query.cursor = approvals.next_cursor;
    }
}

/* From this commit on it is gone for everybody.  *out false: what was looked at has changed meanwhile; the next round looks again. */
static bool mark_run(struct sweep *s, uuid tenant_id, const struct record *run, struct batch *mark,
                     bool *out, struct error *e)
{
    uuid id = record_uuid(run, AGENT_RUNS_ID);
    struct error changed = {0};
    struct principal nobody = {.tenant_id = tenant_id,
                               .user_id = S("retention"),
                               .caller_id = S("retention"),
                               .role = S("admin"),
                               .level = ROLE_LEVEL_ADMIN};
    struct record *row = batch_add(mark, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, id);
    record_set_integer(row, AGENT_RUNS_REMOVED_AT, s->now_us);
    batch_where_null(mark, AGENT_RUNS_REMOVED_AT);
    audit_add(mark, s->o->parts.clock, s->o->parts.random, &nobody,
              &(struct audit_entry){
                  .action = S("run.remove"),
                  .resource_type = S("run"),
                  .resource_id = uuid_str(s->ctx->arena, id),
                  .details = str_printf(s->ctx->arena, "{\"ended_at\":%lld}",
                                        (long long) record_integer(run, AGENT_RUNS_COMPLETED_AT)),
              });
    mark->fault = "retention";
    *out = store_commit(s->o->parts.store, s->ctx, mark, &changed);
    return *out || changed.code == ERROR_CONFLICT || error_copy(e, &changed);
}

/* Of a run that is marked.  Its row goes last: by it the next sweep finds what was interrupted. */
static bool remove_rest(struct sweep *s, uuid tenant_id, uuid id, struct error *e)
{
    static const struct {
        enum table table;
        int column;
    } tables[] = {
        {TABLE_RUN_EVENTS, RUN_EVENTS_RUN_ID}, {TABLE_APPROVALS, APPROVALS_RUN_ID},
        {TABLE_TOOL_CALLS, TOOL_CALLS_RUN_ID}, {TABLE_RUN_SIGNALS, RUN_SIGNALS_RUN_ID},
        {TABLE_MESSAGES, MESSAGES_RUN_ID},
    };
    if (!remove_votes(s, tenant_id, id, e))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(tables); i++)
        if (!remove_rows(s, tenant_id, tables[i].table, tables[i].column, id, e))
            return false;
    struct batch batch;
    batch_init(&batch, s->ctx->arena, tenant_id);
    struct record *gone = batch_add(&batch, WRITE_DELETE, TABLE_AGENT_RUNS);
    record_set_uuid(gone, AGENT_RUNS_ID, id);
    s->counts->runs++;
    return commit(s, &batch, e);
}

/* ---- one run ---- */

static int64_t deltas_ms(const struct sweep *s)
{
    return s->rules->deltas_ms == 0 ? RETENTION_DELTAS_MS : s->rules->deltas_ms;
}

static bool compact(struct sweep *s, uuid tenant_id, const struct record *run, struct error *e)
{
    bool is_done = false;
    for (int turn = 0; !is_done && turn < RETENTION_BATCHES_PER_RUN; turn++) {
        struct batch batch;
        size_t removed = 0;
        arena_mark mark = arena_save(s->ctx->arena);
        batch_init(&batch, s->ctx->arena, tenant_id);
        bool ok = journal_compact(s->o->parts.store, s->ctx, record_uuid(run, AGENT_RUNS_ID),
                                  s->now_us - deltas_ms(s) * 1000, RETENTION_ATTEMPTS_PER_RUN,
                                  &batch, &removed, &is_done, e) &&
                  commit(s, &batch, e);
        arena_rewind(s->ctx->arena, mark);
        if (!ok)
            return false;
        s->counts->deltas += removed;
    }
    return true;
}

/* Ended long enough ago, and not yet when the round before this one began. */
static bool is_to_compact(const struct sweep *s, int64_t ended_us)
{
    int64_t ms = deltas_ms(s);
    return ms >= 0 && ended_us < s->now_us - ms * 1000 &&
           ended_us >= s->progress->last_round_us - ms * 1000;
}

static bool look_at(struct sweep *s, uuid tenant_id, const struct record *run, struct error *e)
{
    bool is_final = is_ended(run);
    int64_t ended_us = record_integer(run, AGENT_RUNS_COMPLETED_AT);
    bool is_old = is_final && s->rules->runs_ms > 0 && ended_us > 0 &&
                  ended_us < s->now_us - s->rules->runs_ms * 1000;
    bool is_free = false;
    struct batch mark;
    if (record_has(run, AGENT_RUNS_REMOVED_AT))
        return true; /* another node is at it, or the next sweep */
    batch_init(&mark, s->ctx->arena, tenant_id);
    if (is_old && !may_remove(s, tenant_id, run, &mark, &is_free, e))
        return false;
    if (is_free && !mark_run(s, tenant_id, run, &mark, &is_free, e))
        return false;
    if (is_free)
        return remove_rest(s, tenant_id, record_uuid(run, AGENT_RUNS_ID), e);
    struct error gone = {0};
    return !is_final || !is_to_compact(s, ended_us) || compact(s, tenant_id, run, &gone) ||
           gone.code == ERROR_NOT_FOUND /* another node has removed it */ || error_copy(e, &gone);
}

/* What a crash or a failure has interrupted, whatever the rules are now. */
static bool finish_begun(struct sweep *s, struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    uuid *tenants;
    query_where_null(&query, AGENT_RUNS_REMOVED_AT, false);
    query.limit = RETENTION_RUNS_PER_SWEEP;
    if (!store_list_any_tenant(s->o->parts.store, s->ctx, &query, &rows, &tenants, e))
        return false;
    for (size_t i = 0; i < rows.count; i++)
        if (!remove_rest(s, tenants[i], record_uuid(&rows.items[i], AGENT_RUNS_ID), e))
            return false;
    return true;
}

bool retention_sweep(struct orchestrator *o, struct context *ctx,
                     const struct retention_rules *rules, struct retention_progress *progress,
                     struct retention_counts *out, struct error *e)
{
    struct sweep s = {.o = o,
                      .ctx = ctx,
                      .rules = rules,
                      .now_us = clock_unix_us(o->parts.clock),
                      .progress = progress,
                      .counts = out};
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    uuid *tenants;
    *out = (struct retention_counts){0};
    if (!finish_begun(&s, e))
        return false;
    if (str_is_empty(progress->cursor))
        progress->round_us = s.now_us;
    query.limit =
        RETENTION_RUNS_PER_SWEEP; /* of all runs: so each sweep reads as few, however many wait */
    query.cursor = progress->cursor;
    if (!store_list_any_tenant(o->parts.store, ctx, &query, &rows, &tenants, e))
        return false;
    for (size_t i = 0; i < rows.count; i++)
        if (record_has(&rows.items[i], AGENT_RUNS_COMPLETED_AT) &&
            !look_at(&s, tenants[i], &rows.items[i], e))
            return false;
    arena_reset(progress->keep);
    progress->cursor = str_copy(progress->keep, rows.next_cursor);
    if (str_is_empty(progress->cursor))
        progress->last_round_us = progress->round_us;
    return true;
}
