/*
 * A start: what the last life left goes on.
 *
 *      running --> [ fold; what is reserved stands in the ledger again ]* --> spawn all
 *      pending --> spawn all: whose turn it is begins
 *      waiting --> spawn those that have news: a decision, a client's results, a signal
 *
 * A run that waits has nothing reserved (run_state.h), so nobody needs to look into its journal; that of an interrupted one is folded
 * twice, first for its reservations alone, so that none goes on before all reservations stand and yet few are in memory at once.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/map.h"
#include "orchestrator/run_internal.h"
#include <stdlib.h>

/* ---- reservations without their runs ---- */

struct restored {
    uuid run_id; /* key of the map */
    struct ledger_path path;
    size_t count;
    struct held_reservation held[];
};

struct restored_runs {
    pthread_mutex_t lock;
    struct map *by_id;
    bool
        is_complete; /* every interrupted run was looked at: not again when the start is tried again */
};

static str key_of(const uuid *id)
{
    return str_of((const char *) id->bytes, sizeof id->bytes);
}

struct restored_runs *restored_runs_create(void)
{
    struct restored_runs *runs = calloc(1, sizeof *runs);
    ensure(runs != NULL);
    runs->by_id = map_create();
    pthread_mutex_init(&runs->lock, NULL);
    return runs;
}

void restored_runs_destroy(struct orchestrator *o)
{
    size_t position = 0;
    void *value;
    while (map_next(o->restored->by_id, &position, NULL, &value)) {
        struct restored *restored = value;
        for (size_t i = 0; i < restored->count; i++)
            ledger_release(o->ledger, &restored->path, restored->held[i].amount);
        ledger_close_path(o->ledger, &restored->path);
        free(restored);
    }
    map_destroy(o->restored->by_id);
    pthread_mutex_destroy(&o->restored->lock);
    free(o->restored);
}

/* A start that failed is tried again: what it has restored stands already. */
static bool is_restored(struct orchestrator *o, uuid run_id)
{
    pthread_mutex_lock(&o->restored->lock);
    bool is_known = map_find(o->restored->by_id, key_of(&run_id)) != NULL;
    pthread_mutex_unlock(&o->restored->lock);
    return is_known;
}

/* The run gives them away. */
static void keep_restored(struct run *run)
{
    struct restored_runs *runs = run->o->restored;
    struct restored *restored = malloc(sizeof *restored + run->held_count * sizeof *restored->held);
    ensure(restored != NULL);
    *restored =
        (struct restored){.run_id = run->run_id, .path = run->path, .count = run->held_count};
    memcpy(restored->held, run->held, run->held_count * sizeof *run->held);
    run->has_path = false;
    run->held_count = 0;
    pthread_mutex_lock(&runs->lock);
    map_put(runs->by_id, key_of(&restored->run_id), restored);
    pthread_mutex_unlock(&runs->lock);
}

void run_adopt_restored(struct run *run)
{
    struct restored_runs *runs = run->o->restored;
    pthread_mutex_lock(&runs->lock);
    struct restored *restored = map_remove(runs->by_id, key_of(&run->run_id));
    pthread_mutex_unlock(&runs->lock);
    if (!restored)
        return;
    run->path = restored->path;
    run->has_path = true;
    run->held = ARENA_ARRAY(run->keep, struct held_reservation, restored->count);
    run->held_count = run->held_capacity = restored->count;
    memcpy(run->held, restored->held, restored->count * sizeof *run->held);
    free(restored);
}

/* ---- a page of runs, several at once ---- */

struct page {
    struct orchestrator *o;
    struct records rows;
    uuid *tenants;
    bool (*look)(struct page *page, struct context *ctx, size_t index, struct error *e);
    size_t next;
    size_t *spawned;
    struct error failure; /* the first */
};

static void look_at_rest(struct context *ctx, void *argument)
{
    struct page *page = argument;
    while (page->next < page->rows.count && page->failure.code == ERROR_OK) {
        struct error e = {0};
        size_t index = page->next++;
        arena_mark mark = arena_save(ctx->arena);
        if (!page->look(page, ctx, index, &e) && page->failure.code == ERROR_OK)
            page->failure = e;
        arena_rewind(ctx->arena, mark);
    }
}

static bool look_at_page(struct page *page, struct context *ctx, struct error *e)
{
    struct group group;
    group_init(&group, ctx);
    for (int i = 0; i < RUN_RECOVERY_PARALLEL; i++)
        if (!group_start(&group, "recover", look_at_rest, page, &page->failure))
            break;
    group_wait(&group);
    return page->failure.code == ERROR_OK || error_copy(e, &page->failure);
}

static bool look_at_all(struct orchestrator *o, struct context *ctx, enum run_status status,
                        bool (*look)(struct page *, struct context *, size_t, struct error *),
                        size_t *spawned, struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    OWNED(arena) cursors = arena_create(0);
    query_where_text(&query, AGENT_RUNS_STATUS, str_from_cstr(run_status_name(status)));
    for (;;) {
        arena_mark mark = arena_save(ctx->arena);
        struct page page = {.o = o, .look = look, .spawned = spawned};
        if (!store_list_any_tenant(o->parts.store, ctx, &query, &page.rows, &page.tenants, e) ||
            !look_at_page(&page, ctx, e))
            return false;
        arena_reset(cursors);
        query.cursor = str_copy(cursors, page.rows.next_cursor);
        arena_rewind(ctx->arena, mark);
        if (str_is_empty(query.cursor))
            return true;
    }
}

/* ---- running ---- */

/* A run that cannot be read is told of when it is loaded. */
static bool restore(struct page *page, struct context *ctx, size_t index, struct error *e)
{
    const struct record *row = &page->rows.items[index];
    if (is_restored(page->o, record_uuid(row, AGENT_RUNS_ID)))
        return true;
    struct run *run =
        run_create(page->o, 0, ctx->scheduler, page->tenants[index],
                   record_uuid(row, AGENT_RUNS_SESSION_ID), record_uuid(row, AGENT_RUNS_ID));
    struct error broken = {0};
    bool ok = run_load_accounts(run, &broken);
    if (ok && run->has_path)
        keep_restored(run);
    run_destroy(run);
    bool is_of_store = broken.reason == REASON_STORE || broken.reason == REASON_OVERLOADED_HERE ||
                       broken.code == ERROR_CANCELLED;
    return ok || !is_of_store || error_copy(e, &broken);
}

static void spawn_row(struct page *page, size_t index)
{
    const struct record *row = &page->rows.items[index];
    if (FAULT("plant.lost-run")) /* a bug put in on purpose: nobody goes on with it */
        return;
    run_spawn_row(page->o, page->tenants[index], row);
    ++*page->spawned;
}

static bool spawn(struct page *page, struct context *ctx, size_t index, struct error *e)
{
    (void) ctx, (void) e;
    spawn_row(page, index);
    return true;
}

/* ---- waiting ---- */

static bool has_row(struct page *page, struct context *ctx, size_t index, struct query *query,
                    bool *has, struct error *e)
{
    struct records rows;
    query->limit = 1;
    if (!store_list(page->o->parts.store, ctx, page->tenants[index], query, &rows, e))
        return false;
    *has = rows.count > 0;
    return true;
}

/* Something was answered; or nothing is asked, and nobody knows what it waits for.  (What was denied long ago counts too: then it looks once in vain.) */
static bool has_decision(struct page *page, struct context *ctx, size_t index, bool *has,
                         struct error *e)
{
    struct query query = query_of(TABLE_APPROVALS);
    struct records rows;
    query_where_uuid(&query, APPROVALS_RUN_ID,
                     record_uuid(&page->rows.items[index], AGENT_RUNS_ID));
    if (!store_list(page->o->parts.store, ctx, page->tenants[index], &query, &rows, e))
        return false;
    *has = rows.count == 0 && !record_has(&page->rows.items[index], AGENT_RUNS_WORKFLOW) &&
           !record_has(&page->rows.items[index], AGENT_RUNS_WAITS_UNTIL);
    for (size_t i = 0; i < rows.count; i++) {
        str status = record_text(&rows.items[i], APPROVALS_STATUS);
        *has = *has || (!str_equal(status, S("pending")) && !str_equal(status, S("consumed")));
    }
    return true;
}

static bool has_results(struct page *page, struct context *ctx, size_t index, bool *has,
                        struct error *e)
{
    struct query query = query_of(TABLE_TOOL_CALLS);
    query_where_uuid(&query, TOOL_CALLS_RUN_ID,
                     record_uuid(&page->rows.items[index], AGENT_RUNS_ID));
    query_where_text(&query, TOOL_CALLS_STATUS, S("running"));
    return has_row(page, ctx, index, &query, has, e);
}

static bool has_signal(struct page *page, struct context *ctx, size_t index, bool *has,
                       struct error *e)
{
    struct query query = query_of(TABLE_RUN_SIGNALS);
    query_where_uuid(&query, RUN_SIGNALS_RUN_ID,
                     record_uuid(&page->rows.items[index], AGENT_RUNS_ID));
    return has_row(page, ctx, index, &query, has, e);
}

/* Its session was paused; whoever resumed it may have died before it was spawned. */
static bool is_of_pause(const struct record *row)
{
    return record_has(row, AGENT_RUNS_WAKES_AT) &&
           record_integer(row, AGENT_RUNS_WAKES_AT) == RUN_WAKES_WITH_SESSION;
}

/* Of a sleep the clock brings news (the sweeps). */
static bool spawn_if_told(struct page *page, struct context *ctx, size_t index, struct error *e)
{
    const struct record *row = &page->rows.items[index];
    bool is_workflow = record_has(row, AGENT_RUNS_WORKFLOW);
    bool has_client = record_has(row, AGENT_RUNS_WAITS_UNTIL);
    bool is_told = record_has(row, AGENT_RUNS_CANCEL_BY) || is_of_pause(row), is_decided = false;
    if (!is_told && has_client && !has_results(page, ctx, index, &is_told, e))
        return false;
    if (!is_told && is_workflow && !has_signal(page, ctx, index, &is_told, e))
        return false;
    if (!is_told && !has_decision(page, ctx, index, &is_decided, e))
        return false;
    if (is_told || is_decided)
        spawn_row(page, index);
    return true;
}

bool runs_recover(struct orchestrator *o, struct context *ctx, size_t *resumed, struct error *e)
{
    if (!o->restored->is_complete && !look_at_all(o, ctx, RUN_RUNNING, restore, resumed, e))
        return false;
    o->restored->is_complete = true; /* from here on runs are spawned, which take them along */
    return look_at_all(o, ctx, RUN_PENDING, spawn, resumed, e) &&
           look_at_all(o, ctx, RUN_RUNNING, spawn, resumed, e) &&
           look_at_all(o, ctx, RUN_WAITING, spawn_if_told, resumed, e);
}
