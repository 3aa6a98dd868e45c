/*
 * Runs come to life and leave memory.
 *
 *      run_spawn (any thread) --> its lane: alive? wake it : [ turn: admission.h ] --> [ line of those that wait to load ]
 *                             --> coroutine: run_live --> gone
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "orchestrator/run/run_child.h"
#include "orchestrator/workflow/workflow_run.h"
#include <stdatomic.h>
#include <stdlib.h>

struct spawn {
    struct list link; /* in lane_state.spawns while it waits */
    struct orchestrator *o;
    uuid tenant_id, session_id, run_id;
    bool is_cancel, is_about_inbox;
    bool has_place; /* of the admission's */
    enum priority priority;
    uint64_t user; /* hash of whose turn it uses; 0: nobody's */
    size_t by_bytes;
    char by[256];
};

void lane_init(struct lane_state *lane)
{
    list_init(&lane->runs);
    list_init(&lane->spawns);
    lane->by_id = map_create();
    condition_init(&lane->became_idle);
}

void lane_deinit(struct lane_state *lane)
{
    ensure(list_is_empty(&lane->runs));
    for (struct list *first; (first = list_first(&lane->spawns)) != NULL;) {
        list_remove(first);
        free(LIST_ITEM(first, struct spawn, link));
    }
    map_destroy(lane->by_id);
}

/* Gives back what it holds. */
static void spawn_drop(struct spawn *spawn)
{
    if (spawn->has_place)
        admission_leave(spawn->o->admission, spawn->tenant_id, spawn->priority);
    free(spawn);
}

/* ---- life and death ---- */

static str key_of(const uuid *id)
{
    return str_of((const char *) id->bytes, sizeof id->bytes);
}

struct run *run_create(struct orchestrator *o, size_t lane, struct scheduler *scheduler,
                       uuid tenant_id, uuid session_id, uuid run_id)
{
    struct run *run = calloc(1, sizeof *run);
    ensure(run != NULL);
    run->o = o;
    run->lane = lane;
    run->tenant_id = tenant_id;
    run->session_id = session_id;
    run->run_id = run_id;
    run->root_session_id = session_id;
    run->ceiling = COST_LIMITLESS;
    condition_init(&run->woken);
    run->keep = arena_create(0);
    run->arena = arena_create(RUN_ARENA_BYTES_MAX);
    run->retry_ms = RUN_STORE_RETRY_MS;
    run->turn = arena_create(RUN_ARENA_BYTES_MAX);
    run->settings = orchestrator_acquire(o);
    run->tools = registry_acquire(o->parts.registry);
    context_init(&run->ctx, scheduler, run->turn, DEADLINE_NONE);
    context_init(&run->shield, scheduler, run->turn, DEADLINE_NONE);
    run->ctx.tenant_id = run->shield.tenant_id = tenant_id;
    return run;
}

static void link_run(struct run *run)
{
    struct lane_state *lane = &run->o->lanes[run->lane];
    list_push_back(&lane->runs, &run->link);
    map_put(lane->by_id, key_of(&run->run_id), run);
    lane->run_count++;
    lane->loading_count++;
    run->is_linked = run->is_loading = true;
    atomic_fetch_add(&run->o->active_runs, 1);
}

static void unlink_run(struct run *run)
{
    struct lane_state *lane = &run->o->lanes[run->lane];
    run_is_loaded(run);
    list_remove(&run->link);
    map_remove(lane->by_id, key_of(&run->run_id));
    lane->run_count--;
    atomic_fetch_sub(&run->o->active_runs, 1);
    if (lane->run_count == 0)
        condition_broadcast(&lane->became_idle);
}

void run_destroy(struct run *run)
{
    if (run->has_path) {
        run_ledger_drop(run);
        ledger_close_path(run->o->ledger, &run->path);
    }
    workflow_release(run);
    journal_writer_deinit(&run->journal);
    if (run->is_linked)
        unlink_run(run);
    context_deinit(&run->ctx);
    context_deinit(&run->shield);
    registry_release(run->tools);
    orchestrator_release(run->settings);
    arena_destroy(run->turn);
    arena_destroy(run->arena);
    arena_destroy(run->keep);
    if (run->has_place) /* the next one's turn */
        admission_leave(run->o->admission, run->tenant_id, run->place_priority);
    free(run);
}

static void run_coroutine(void *argument)
{
    struct run *run = argument;
    run_live(run);
    bool is_again = run->is_woken && !run->is_draining &&
                    (run->state.status == RUN_WAITING || run->is_out_of_turn || run->is_parked);
    struct orchestrator *o = run->o;
    struct run_turn again = {
        .tenant_id = run->tenant_id,
        .session_id = run->session_id,
        .run_id = run->run_id,
        .priority = principal_priority(&run->principal, PRIORITY_UNSAID, PRIORITY_UNSAID),
    };
    struct run_turn next = again;
    next.run_id = run->next_run_id;
    next.priority = run->next_priority;
    bool is_ended = run_status_is_final(run->state.status);
    if (is_ended || run->is_buried)
        run_parent_wake(run);
    run_destroy(run);
    if (is_again) /* an approval was decided between the last look and now, or its turn has come */
        run_spawn_as(o, &again);
    if (is_ended && !uuid_is_none(next.run_id))
        run_spawn_as(o, &next);
}

/* ---- on the lane ---- */

static void mark_cancelled(struct run *run, const struct spawn *spawn)
{
    if (run->is_cancel_asked)
        return;
    run->cancelled_by = str_copy(run->keep, str_of(spawn->by, spawn->by_bytes));
    run->is_cancel_asked = true;
    context_cancel(&run->ctx);
}

static struct run *begin(const struct spawn *spawn, size_t lane)
{
    struct orchestrator *o = spawn->o;
    struct scheduler *scheduler = o->parts.lanes[lane].scheduler;
    struct run *run =
        run_create(o, lane, scheduler, spawn->tenant_id, spawn->session_id, spawn->run_id);
    struct error e = {0};
    run->has_place = spawn->has_place;
    run->place_priority = spawn->priority;
    link_run(run);
    run_adopt_restored(run);
    if (coroutine_start(scheduler, "run", run_coroutine, run, &e))
        return run;
    LOG_ERROR("orchestrator.run", S("run not started: it resumes at the next start"), &e);
    run_destroy(run);
    return NULL;
}

/* Gives the spawn away; what is not alive begins to load. */
static void spawn_now(struct spawn *spawn, size_t lane)
{
    struct run *run = map_find(spawn->o->lanes[lane].by_id, key_of(&spawn->run_id));
    if (run) {
        run->is_woken = true;
        condition_broadcast(&run->woken);
    } else {
        run = begin(spawn, lane);
        spawn->has_place = false; /* the run's now */
    }
    if (run && spawn->is_cancel)
        mark_cancelled(run, spawn);
    spawn_drop(spawn);
}

void run_is_loaded(struct run *run)
{
    struct orchestrator *o = run->o;
    struct lane_state *lane = &o->lanes[run->lane];
    struct list *first;
    if (!run->is_loading)
        return;
    run->is_loading = false;
    lane->loading_count--;
    while (lane->loading_count < RUN_LOADS_MAX && (first = list_first(&lane->spawns)) != NULL) {
        struct spawn *spawn = LIST_ITEM(first, struct spawn, link);
        list_remove(first);
        if (atomic_load(&o->is_draining)) /* it goes on at the next start */
            spawn_drop(spawn);
        else
            spawn_now(spawn, run->lane);
    }
}

static void spawn_on_lane(void *argument);

/* Its turn has come, on whatever thread: it holds a place. */
static void spawn_admitted(void *argument)
{
    struct spawn *spawn = argument;
    struct lane *lane = &spawn->o->parts.lanes[lane_of_session(spawn->o, spawn->session_id)];
    spawn->has_place = true;
    lane->post(lane, spawn_on_lane, spawn);
}

/* False: it waits for its turn, or does so already. */
static bool take_place(struct spawn *spawn)
{
    bool is_known;
    struct admission_request request = {.tenant_id = spawn->tenant_id,
                                        .run_id = spawn->run_id,
                                        .priority = spawn->priority,
                                        .user = spawn->user,
                                        .is_urgent = spawn->is_cancel,
                                        .start = spawn_admitted,
                                        .argument = spawn};
    if (spawn->has_place || admission_ask(spawn->o->admission, &request, &is_known)) {
        spawn->has_place = true;
        return true;
    }
    if (is_known)
        free(spawn);
    return false;
}

static void spawn_on_lane(void *argument)
{
    struct spawn *spawn = argument;
    struct orchestrator *o = spawn->o;
    size_t index = lane_of_session(o, spawn->session_id);
    struct lane_state *lane = &o->lanes[index];
    struct run *run = map_find(lane->by_id, key_of(&spawn->run_id));
    /* A replay is of one run: the others are recorded. */
    bool is_foreign = o->oracle && !uuid_equal(o->oracle->run_id, spawn->run_id);
    if (run && spawn->is_about_inbox && !is_foreign) {
        run->is_inbox_told = true;
        if (run->workflow) /* a pause is news for it, whatever it waits for */
            condition_broadcast(&run->woken);
    }
    if (is_foreign || spawn->is_about_inbox || (!run && lane->is_closed)) {
        spawn_drop(spawn);
        return;
    }
    if (!run && !take_place(spawn))
        return;
    if (!run && lane->loading_count >= RUN_LOADS_MAX)
        list_push_back(&lane->spawns, &spawn->link);
    else
        spawn_now(spawn, index);
}

static void post_spawn(struct orchestrator *o, struct spawn spawn)
{
    struct spawn *copy = malloc(sizeof *copy);
    ensure(copy != NULL);
    *copy = spawn;
    struct lane *lane = &o->parts.lanes[lane_of_session(o, spawn.session_id)];
    lane->post(lane, spawn_on_lane, copy);
}

void run_spawn(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id)
{
    run_spawn_as(o, &(struct run_turn){.tenant_id = tenant_id,
                                       .session_id = session_id,
                                       .run_id = run_id,
                                       .priority = PRIORITY_NORMAL});
}

void run_spawn_as(struct orchestrator *o, const struct run_turn *turn)
{
    uint64_t user = str_is_empty(turn->user_id) ? 0 : str_hash(turn->user_id, o->user_seed);
    post_spawn(o, (struct spawn){.o = o,
                                 .tenant_id = turn->tenant_id,
                                 .session_id = turn->session_id,
                                 .run_id = turn->run_id,
                                 .priority = turn->priority,
                                 .user = user});
}

/* These texts are ours: no space is in them, and a quotation mark within a text of it has a backslash before it. */
enum priority priority_of_text(str metadata)
{
    const str member = S("\"priority\":\"");
    str name, rest;
    enum priority priority;
    size_t at = str_find(metadata, member);
    bool is_said = at != STR_NOT_FOUND &&
                   str_cut(str_from(metadata, at + member.len), '"', &name, &rest) &&
                   priority_parse(name, &priority);
    return is_said ? priority : PRIORITY_NORMAL;
}

enum priority run_row_priority(const struct record *row)
{
    return priority_of_text(record_text(row, AGENT_RUNS_METADATA));
}

void run_spawn_row(struct orchestrator *o, uuid tenant_id, const struct record *row)
{
    run_spawn_as(o, &(struct run_turn){.tenant_id = tenant_id,
                                       .session_id = record_uuid(row, AGENT_RUNS_SESSION_ID),
                                       .run_id = record_uuid(row, AGENT_RUNS_ID),
                                       .priority = run_row_priority(row)});
}

void run_wake(struct orchestrator *o, struct context *ctx, uuid tenant_id, uuid session_id,
              uuid run_id)
{
    struct record key = record_of(TABLE_AGENT_RUNS), *row = ARENA_NEW(ctx->arena, struct record);
    struct error unknown = {0};
    record_set_uuid(&key, AGENT_RUNS_ID, run_id);
    if (store_get(o->parts.store, ctx, tenant_id, &key, row, &unknown))
        run_spawn_row(o, tenant_id, row);
    else
        run_spawn(o, tenant_id, session_id, run_id);
}

void run_spawn_cancelled(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id,
                         str cancelled_by)
{
    struct spawn spawn = {.o = o,
                          .tenant_id = tenant_id,
                          .session_id = session_id,
                          .run_id = run_id,
                          .priority = PRIORITY_NORMAL,
                          .is_cancel = true};
    str by = str_cut_utf8(cancelled_by, sizeof spawn.by);
    memcpy(spawn.by, by.ptr, by.len);
    spawn.by_bytes = by.len;
    post_spawn(o, spawn);
}

void run_tell_inbox(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id)
{
    post_spawn(o, (struct spawn){.o = o,
                                 .tenant_id = tenant_id,
                                 .session_id = session_id,
                                 .run_id = run_id,
                                 .priority = PRIORITY_NORMAL,
                                 .is_about_inbox = true});
}
