#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/map.h"
#include "llm/router.h"
#include "orchestrator/node_watch.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/replay/run_environment.h"
#include "orchestrator/tools/tool_admin.h"
#include "orchestrator/webhook/webhook.h"
#include "orchestrator/webhook/webhook_tell.h"
#include "orchestrator/workflow/workflow_store.h"
#include <stdatomic.h>
#include <stdlib.h>

/* ---- life ---- */

bool orchestrator_create(const struct orchestrator_parts *parts, struct orchestrator **out,
                         struct error *e)
{
    ensure(parts->lane_count > 0 && parts->settings != NULL);
    if (catalog_count(parts->settings->catalog) == 0)
        return error_set(e, REASON_CONFIG, "no model is configured and none was found");
    struct orchestrator *o = calloc(1, sizeof *o);
    ensure(o != NULL && parts->router != NULL);
    o->parts = *parts;
    router_adopt(parts->router, parts->settings->catalog);
    o->settings = parts->settings;
    o->settings->references = 1;
    pthread_mutex_init(&o->settings_lock, NULL);
    o->workflows = workflow_cache_create();
    o->webhooks = webhooks_create(parts);
    o->ledger = ledger_create(parts->store, parts->clock, parts->random);
    ledger_configure(o->ledger, &(struct ledger_options){.is_shared = parts->is_shared,
                                                         .node = parts->node,
                                                         .alerted = webhook_tell_budget,
                                                         .alerted_owner = o,
                                                         .metrics = parts->metrics});
    ledger_set_thresholds(o->ledger, parts->settings->alerts, parts->settings->alert_count);
    o->usage = usage_log_create(&(struct usage_log_parts){
        .store = parts->store,
        .ledger = o->ledger,
        .metrics = parts->metrics,
        .clock = parts->clock,
        .random = parts->random,
        .lane = &parts->lanes[0],
    });
    o->model_calls_allowed = metrics_series(parts->metrics, METRIC_POLICY_DECISIONS,
                                            (str[]){S("model.call"), S("allow")}, 2);
    o->hub = journal_hub_create();
    o->restored = restored_runs_create();
    o->watch = parts->is_shared ? node_watch_create(o) : NULL;
    o->lanes = calloc(parts->lane_count, sizeof *o->lanes);
    ensure(o->lanes != NULL);
    for (size_t i = 0; i < parts->lane_count; i++) {
        lane_init(&o->lanes[i]);
    }
    o->admission = admission_create(&(struct admission_options){
        .places = parts->run_places, .queue_max = parts->run_queue_max, .metrics = parts->metrics});
    o->user_seed = map_seed();
    o->overload =
        overload_create(&(struct overload_options){.lanes = parts->lanes,
                                                   .lane_count = parts->lane_count,
                                                   .admission = o->admission,
                                                   .clock = parts->clock,
                                                   .metrics = parts->metrics,
                                                   .store = parts->store,
                                                   .lag_ms = parts->shed_lag_ms,
                                                   .commit_ms = parts->shed_commit_ms,
                                                   .memory_bytes = parts->shed_memory_bytes});
    condition_init(&o->tool_admin.became_idle);
    *out = o;
    return true;
}

void orchestrator_destroy(struct orchestrator *o)
{
    if (!o)
        return;
    for (size_t i = 0; i < o->parts.lane_count; i++)
        lane_deinit(&o->lanes[i]);
    for (size_t i = 0; i < o->parts.lane_count; i++)
        run_environments_destroy(o->lanes[i].environments);
    usage_log_destroy(o->usage);
    orchestrator_release(o->settings);
    restored_runs_destroy(o);
    ledger_destroy(o->ledger);
    journal_hub_destroy(o->hub);
    node_watch_destroy(o->watch);
    pthread_mutex_destroy(&o->settings_lock);
    workflow_cache_destroy(o->workflows);
    webhooks_destroy(o->webhooks);
    overload_destroy(o->overload);
    admission_destroy(o->admission);
    free(o->lanes);
    free(o);
}

const struct orchestrator_parts *orchestrator_parts(const struct orchestrator *o)
{
    return &o->parts;
}

struct ledger *orchestrator_ledger(struct orchestrator *o)
{
    return o->ledger;
}

struct usage_log *orchestrator_usage(struct orchestrator *o)
{
    return o->usage;
}

struct journal_hub *orchestrator_hub(struct orchestrator *o)
{
    return o->hub;
}

struct overload *orchestrator_overload(struct orchestrator *o)
{
    return o->overload;
}

struct admission *orchestrator_admission(struct orchestrator *o)
{
    return o->admission;
}

size_t orchestrator_active_runs(struct orchestrator *o)
{
    return atomic_load(&o->active_runs);
}

/* ---- settings ---- */

const struct settings *orchestrator_acquire(struct orchestrator *o)
{
    pthread_mutex_lock(&o->settings_lock);
    struct settings *settings = o->settings;
    atomic_fetch_add(&settings->references, 1);
    pthread_mutex_unlock(&o->settings_lock);
    return settings;
}

void settings_destroy(struct settings *settings)
{
    if (!settings)
        return;
    catalog_destroy(settings->catalog);
    agent_set_destroy(settings->agents);
    workflow_set_destroy(settings->workflows);
    arena_destroy(settings->arena);
    free(settings);
}

void orchestrator_release(const struct settings *settings)
{
    struct settings *held = (struct settings *) (uintptr_t) settings;
    if (atomic_fetch_sub(&held->references, 1) == 1)
        settings_destroy(held);
}

void orchestrator_reconfigure(struct orchestrator *o, struct settings *give_settings)
{
    give_settings->references = 1;
    router_adopt(o->parts.router, give_settings->catalog);
    pthread_mutex_lock(&o->settings_lock);
    struct settings *old = o->settings;
    give_settings->version = old->version + 1;
    o->settings = give_settings;
    pthread_mutex_unlock(&o->settings_lock);
    ledger_set_thresholds(o->ledger, give_settings->alerts, give_settings->alert_count);
    orchestrator_release(old);
}

/* ---- lanes ---- */

size_t lane_of_session(const struct orchestrator *o, uuid session_id)
{
    return (size_t) (str_hash(str_of((const char *) session_id.bytes, sizeof session_id.bytes), 0) %
                     o->parts.lane_count);
}

struct hop {
    struct orchestrator *o;
    size_t lane, home;
    struct context *caller;
    void (*fn)(struct context *ctx, void *argument);
    void *argument;
    struct waiter waiter;
};

static void hop_back(void *argument)
{
    struct hop *hop = argument;
    waiter_wake(&hop->waiter);
}

static void hop_coroutine(void *argument)
{
    struct hop *hop = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, hop->o->parts.lanes[hop->lane].scheduler, arena, DEADLINE_NONE);
    ctx.tenant_id = hop->caller->tenant_id;
    hop->fn(&ctx, hop->argument);
    context_deinit(&ctx);
    struct lane *home = &hop->o->parts.lanes[hop->home];
    home->post(home, hop_back, hop);
}

static void hop_there(void *argument)
{
    struct hop *hop = argument;
    struct error e = {0};
    bool is_started = coroutine_start(hop->o->parts.lanes[hop->lane].scheduler, "lane_call",
                                      hop_coroutine, hop, &e);
    ensure(is_started); /* a drain's: no lane is out of coroutines for it */
}

static size_t lane_of_scheduler(const struct orchestrator *o, const struct scheduler *scheduler)
{
    for (size_t i = 0; i < o->parts.lane_count; i++)
        if (o->parts.lanes[i].scheduler == scheduler)
            return i;
    unreachable_state();
}

void lane_call(struct orchestrator *o, size_t lane, struct context *ctx,
               void (*fn)(struct context *ctx, void *argument), void *argument)
{
    struct hop hop = {.o = o,
                      .lane = lane,
                      .home = lane_of_scheduler(o, ctx->scheduler),
                      .caller = ctx,
                      .fn = fn,
                      .argument = argument};
    if (hop.home == lane) {
        fn(ctx, argument);
        return;
    }
    struct context shield;
    struct error never;
    context_init(&shield, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    waiter_init(&hop.waiter, &shield);
    o->parts.lanes[lane].post(&o->parts.lanes[lane], hop_there, &hop);
    if (!waiter_wait(&hop.waiter, &never))
        unreachable_state();
    context_deinit(&shield);
}

/* ---- recovery ---- */

bool orchestrator_recover(struct orchestrator *o, struct context *ctx, size_t *resumed,
                          struct error *e)
{
    *resumed = 0;
    if (!tools_load(o, ctx, e) || !webhooks_load(o, ctx, e) ||
        (!o->has_settled_leases && !ledger_recover(o->ledger, ctx, e)))
        return false;
    o->has_settled_leases = true; /* when a start is tried again there may be newer ones */
    return o->watch ? node_watch_join(o->watch, ctx, resumed, e) : runs_recover(o, ctx, resumed, e);
}

/* ---- drain ---- */

struct drain {
    struct orchestrator *o;
    size_t lane;
    int64_t deadline_ns;
};

/* On the lane: waits until it is idle or the deadline, then drops the rest, which resumes at the next start. */
static void drain_lane(struct context *ctx, void *argument)
{
    struct drain *drain = argument;
    struct lane_state *lane = &drain->o->lanes[drain->lane];
    struct error e = {0};
    struct context patient; /* the caller's own deadline must not cut the clean-up short */
    context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    LIST_EACH(node, &lane->runs)
    {
        struct run *run = LIST_ITEM(node, struct run, link);
        condition_broadcast(&run->woken); /* who only waits for others leaves at once */
    }
    while (lane->run_count > 0 &&
           condition_wait_until(&lane->became_idle, &patient, drain->deadline_ns, &e))
        continue;
    LIST_EACH(node, &lane->runs)
    {
        struct run *run = LIST_ITEM(node, struct run, link);
        run->is_draining = true;
        context_cancel(&run->ctx);
    }
    struct error late = {0};
    int64_t give_up_ns = drain->deadline_ns + 5000000000ll;
    while (lane->run_count > 0 &&
           condition_wait_until(&lane->became_idle, &patient, give_up_ns, &late))
        continue;
    lane->is_closed = true; /* a request that was in work may still start or wake a run */
    context_deinit(&patient);
}

/* Batches that runs posted without waiting tell the hub when they are stored, which goes with us: let the store pass them first. */
static void let_posts_pass(struct orchestrator *o, struct context *ctx)
{
    struct context patient;
    struct error e = {0};
    context_init(&patient, ctx->scheduler, ctx->arena, DEADLINE_NONE);
    if (!usage_log_sync(o->usage, &patient, &e))
        LOG_WARN("orchestrator", S("the store did not take its last batch"),
                 LOG_STR("error.message", str_from_cstr(e.message)));
    context_deinit(&patient);
}

bool orchestrator_drain(struct orchestrator *o, struct context *ctx, struct error *e)
{
    atomic_store(&o->is_draining, true);
    for (size_t i = 0; i < o->parts.lane_count; i++) {
        struct drain drain = {o, i, ctx->deadline_ns};
        lane_call(o, i, ctx, drain_lane, &drain);
    }
    let_posts_pass(o, ctx);
    size_t left = orchestrator_active_runs(o);
    if (left > 0)
        return error_set(e, REASON_TIMEOUT,
                         "%zu runs did not stop in time; they resume at the next start", left);
    return true;
}
