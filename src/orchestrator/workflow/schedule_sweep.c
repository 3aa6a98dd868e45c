#include "base/arena.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/timefmt.h"
#include "orchestrator/journal/run_state.h"
#include "orchestrator/policy/standing.h"
#include "orchestrator/run/run_child.h"
#include "orchestrator/workflow/schedule_internal.h"
#include "orchestrator/workflow/workflow_store.h"

#define DAY_US INT64_C(86400000000)

/* One schedule that is due. */
struct due {
    struct orchestrator *o;
    struct context *ctx;
    uuid tenant_id;
    const struct record *row;
    struct principal principal;
    struct schedule_times times;
    int64_t now_us;
    int64_t due_us;  /* next_at as it was read */
    int64_t for_us;  /* the occurrence to start; 0: none */
    int64_t next_us; /* where next_at moves; 0: it never comes again */
    str problem;     /* why nothing is started; empty: nothing stands against it */
    uuid run_id;
    bool is_there; /* the occurrence has its instance from before */
};

/* ---- which occurrence ---- */

static int64_t next_after(const struct due *d, int64_t after_us)
{
    int64_t next_us;
    return cron_next(&d->times.cron, d->times.zone, after_us, &next_us) ? next_us : 0;
}

/* The newest occurrence up to now; looked for in the last day first, so that a long pause costs little. */
static int64_t newest(const struct due *d)
{
    int64_t from_us = d->now_us - DAY_US > d->due_us ? d->now_us - DAY_US : d->due_us;
    int64_t found_us = d->due_us, next_us = next_after(d, from_us - 1);
    if (next_us == 0 || next_us > d->now_us)
        next_us = next_after(d, d->due_us);
    for (int i = 0; i < SCHEDULE_LOOK_MAX && next_us != 0 && next_us <= d->now_us; i++) {
        found_us = next_us;
        next_us = next_after(d, next_us);
    }
    return found_us;
}

/* From the occurrence at first_us up to now the `keep` newest begin at *from_us; false: there are fewer.  Counted to SCHEDULE_LOOK_MAX. */
static bool kept_from(const struct due *d, int64_t first_us, int keep, int64_t *from_us)
{
    int64_t next_us = first_us;
    int count = 0;
    *from_us = first_us;
    for (; count < SCHEDULE_LOOK_MAX && next_us != 0 && next_us <= d->now_us; count++) {
        if (count >= keep)
            *from_us = next_after(d, *from_us);
        next_us = next_after(d, next_us);
    }
    return count >= keep;
}

/* Where the `keep` newest occurrences from due_us up to now begin; looked for from the last day backwards, as far as it takes. */
static int64_t oldest_kept(const struct due *d, int keep)
{
    int64_t from_us;
    for (int64_t back_us = DAY_US; d->now_us - back_us > d->due_us; back_us *= 2) {
        int64_t first_us = next_after(d, d->now_us - back_us);
        if (first_us != 0 && kept_from(d, first_us, keep, &from_us))
            return from_us;
    }
    (void) kept_from(d, d->due_us, keep, &from_us);
    return from_us;
}

static void choose(struct due *d)
{
    str missed = record_text(d->row, SCHEDULES_MISSED);
    const int64_t grace_us = (int64_t) SCHEDULE_GRACE_MS * 1000;
    bool is_lost = FAULT("plant.lost-schedule"); /* a bug put in on purpose: only the newest */
    if (str_equal(missed, S("all")) && !is_lost) {
        d->for_us = oldest_kept(d, SCHEDULE_MISSED_MAX);
        d->next_us = next_after(d, d->for_us);
        return;
    }
    d->for_us = newest(d);
    d->next_us = next_after(d, d->now_us);
    if (str_equal(missed, S("skip")) && d->now_us - d->for_us > grace_us) {
        d->for_us = 0;
        d->problem = S("missed: its time had passed when this could be started");
    }
}

/* ---- the instance before ---- */

/* Is it still at work?  One that is not there any more is not. */
static never_inline bool is_live(struct due *d, bool *out, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS), run;
    struct error failure = {0};
    enum run_status status;
    *out = false;
    if (!record_has(d->row, SCHEDULES_LAST_RUN_ID))
        return true;
    record_set_uuid(&key, AGENT_RUNS_ID, record_uuid(d->row, SCHEDULES_LAST_RUN_ID));
    if (!store_get(d->o->parts.store, d->ctx, d->tenant_id, &key, &run, &failure))
        return failure.code == ERROR_NOT_FOUND || error_copy(e, &failure);
    *out = !run_status_parse(record_text(&run, AGENT_RUNS_STATUS), &status) ||
           !run_status_is_final(status);
    return true;
}

static never_inline bool look_at_overlap(struct due *d, struct error *e)
{
    str overlap = record_text(d->row, SCHEDULES_OVERLAP);
    bool live;
    if (d->for_us == 0 || str_equal(overlap, S("allow")))
        return true;
    if (!is_live(d, &live, e))
        return false;
    if (live && str_equal(overlap, S("cancel"))) {
        struct error ignored = {0}; /* it ended meanwhile */
        (void) !run_cancel(d->o, d->ctx, &d->principal, record_uuid(d->row, SCHEDULES_LAST_RUN_ID),
                           &ignored);
    } else if (live) {
        d->for_us = 0;
        d->problem = S("skipped: the instance before is not done");
    }
    return true;
}

/* ---- moving on ---- */

static void write_move(void *owner, struct batch *batch)
{
    struct due *d = owner;
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_SCHEDULES);
    record_set_text(row, SCHEDULES_NAME, record_text(d->row, SCHEDULES_NAME));
    if (FAULT("plant.double-schedule")) /* a bug put in on purpose: its time stays due */
        record_set_integer(row, SCHEDULES_NEXT_AT, d->due_us);
    else if (d->next_us != 0)
        record_set_integer(row, SCHEDULES_NEXT_AT, d->next_us);
    else
        record_set_null(row, SCHEDULES_NEXT_AT);
    if (!d->is_there && str_is_empty(d->problem)) {
        record_set_integer(row, SCHEDULES_LAST_AT, d->for_us);
        record_set_uuid(row, SCHEDULES_LAST_RUN_ID, d->run_id);
        record_set_null(row, SCHEDULES_LAST_ERROR);
    } else if (!d->is_there) { /* else nothing happened now: the row says what did */
        record_set_text(row, SCHEDULES_LAST_ERROR, d->problem);
    }
    batch_where_integer(batch, SCHEDULES_NEXT_AT, d->due_us);
}

static never_inline bool pass_over(struct due *d, struct error *e)
{
    struct batch batch;
    struct error failure = {0};
    batch_init(&batch, d->ctx->arena, d->tenant_id);
    batch.fault = "schedule_pass";
    write_move(d, &batch);
    return store_commit(d->o->parts.store, d->ctx, &batch, &failure) ||
           failure.code == ERROR_CONFLICT || error_copy(e, &failure);
}

/* The same occurrence has the same id, whoever starts it. */
static uuid run_id_of(const struct due *d)
{
    uint8_t salt[10];
    memcpy(salt, d->tenant_id.bytes + 6, sizeof salt);
    str what = str_printf(d->ctx->arena, "schedule " STR_FMT " %lld",
                          STR_ARG(record_text(d->row, SCHEDULES_NAME)), (long long) d->for_us);
    if (FAULT("plant.double-schedule"))
        return uuid_new(d->o->parts.clock, d->o->parts.random);
    return uuid_derive(uuid_make(d->for_us / 1000, salt), what);
}

/* What goes away by itself: the schedule stays due. */
static bool is_passing(const struct error *failure)
{
    return failure->code == ERROR_UNAVAILABLE || failure->code == ERROR_TIMEOUT ||
           failure->code == ERROR_CANCELLED || failure->reason == REASON_RATE_LIMIT;
}

/*
 * Somebody was first.  Another node moved the time with what it started; but when the wall time goes back, a schedule that is put or
 * resumed comes by times whose instances are there (the run may have been removed since, its session stays): those are passed over.
 */
static never_inline bool pass_if_started(struct due *d, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS), session;
    struct error failure = {0};
    record_set_uuid(&key, SESSIONS_ID, run_child_session(d->run_id));
    d->is_there = store_get(d->o->parts.store, d->ctx, d->tenant_id, &key, &session, &failure);
    if (!d->is_there)
        return failure.code == ERROR_NOT_FOUND || error_copy(e, &failure);
    return pass_over(d, e);
}

static never_inline bool start(struct due *d, bool *is_started, struct error *e)
{
    struct workflow_request request = {
        .input = record_text(d->row, SCHEDULES_INPUT),
        .budget = COST_LIMITLESS,
        .run_id = run_id_of(d),
        .also = write_move,
        .also_owner = d,
    };
    struct error failure = {0};
    uuid session_id;
    d->run_id = request.run_id;
    schedule_cut_workflow(record_text(d->row, SCHEDULES_WORKFLOW), &request.name, &request.range);
    *is_started =
        workflow_start(d->o, d->ctx, &d->principal, &request, &d->run_id, &session_id, &failure);
    if (*is_started)
        return true;
    if (failure.code == ERROR_CONFLICT)
        return pass_if_started(d, e);
    if (is_passing(&failure))
        return error_copy(e, &failure);
    d->problem = str_copy(d->ctx->arena, str_from_cstr(failure.message));
    return pass_over(d, e);
}

static bool read_due(struct due *d, struct error *e)
{
    const struct record *row = d->row;
    str name = record_text(row, SCHEDULES_NAME);
    d->due_us = record_integer(row, SCHEDULES_NEXT_AT);
    struct standing standing = {
        .tenant_id = d->tenant_id,
        .key_id =
            record_has(row, SCHEDULES_KEY_ID) ? record_uuid(row, SCHEDULES_KEY_ID) : UUID_NONE,
        .user_id = record_text(row, SCHEDULES_USER_ID),
        .role = record_text(row, SCHEDULES_ROLE),
        .caller_id = str_printf(d->ctx->arena, "schedule:" STR_FMT, STR_ARG(name)),
    };
    bool is_known = principal_standing(d->o->parts.store, d->o->parts.clock, d->ctx, &standing,
                                       &d->principal, e);
    d->principal.priority = PRIORITY_BATCH + 1; /* nobody waits for what the clock starts */
    return is_known && schedule_times_read(d->ctx, record_text(row, SCHEDULES_CRON),
                                           record_text(row, SCHEDULES_TIME_ZONE), &d->times, e);
}

/* Its time zone may have gone, its row may be damaged: told in the row, and not tried again until somebody puts it anew. */
static bool give_up(struct due *d, const struct error *why, struct error *e)
{
    if (is_passing(why))
        return error_copy(e, why);
    d->for_us = d->next_us = 0;
    d->problem = str_copy(d->ctx->arena, str_from_cstr(why->message));
    return pass_over(d, e);
}

static never_inline bool do_one(struct due *d, bool *is_started, struct error *e)
{
    struct error failure = {0};
    *is_started = false;
    if (!read_due(d, &failure))
        return give_up(d, &failure, e);
    choose(d);
    if (!look_at_overlap(d, e))
        return false;
    return d->for_us != 0 ? start(d, is_started, e) : pass_over(d, e);
}

static void keep_place(struct schedule_progress *progress, str cursor)
{
    arena_reset(progress->keep);
    progress->cursor = str_copy(progress->keep, cursor);
}

bool schedules_sweep(struct orchestrator *o, struct context *ctx,
                     struct schedule_progress *progress, size_t *started, struct error *e)
{
    struct query query = query_of(TABLE_SCHEDULES);
    struct records page;
    uuid *tenants;
    bool ok = true;
    int64_t now_us = clock_unix_us(o->parts.clock);
    *started = 0;
    query_where_integer(&query, SCHEDULES_NEXT_AT, FILTER_LESS, now_us + 1);
    query.limit = SCHEDULE_SWEEP_MAX;
    query.cursor = progress->cursor;
    if (!store_list_any_tenant(o->parts.store, ctx, &query, &page, &tenants, e))
        return false;
    keep_place(progress, page.next_cursor);
    for (size_t i = 0; i < page.count; i++) {
        struct due d = {
            .o = o, .ctx = ctx, .tenant_id = tenants[i], .row = &page.items[i], .now_us = now_us};
        struct error failure = {0};
        bool is_started;
        if (!do_one(&d, &is_started, &failure))
            ok = error_copy(e, &failure); /* the others are not held up; the sweeper logs it */
        *started += is_started;
        if (failure.code == ERROR_CANCELLED)
            return false;
    }
    return ok;
}
