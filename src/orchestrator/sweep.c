#include "orchestrator/sweep.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/approval/approval.h"
#include "orchestrator/budget_sweep.h"
#include "orchestrator/node_watch.h"
#include "orchestrator/orchestrator_internal.h"
#include "orchestrator/retention.h"
#include "orchestrator/webhook/webhook.h"
#include "orchestrator/workflow/schedule.h"
#include "orchestrator/workflow/workflow_run.h"
#include <stdlib.h>

struct sweeper {
    struct orchestrator *o;
    int64_t *due_ns;
    struct arena *workspace_arena;
    str workspace_after; /* where the next look at workspaces goes on */
    struct retention_progress retention;
    struct schedule_progress schedules;
};

static bool sweep_approvals(struct sweeper *s, struct context *ctx, struct error *e)
{
    size_t expired;
    return approvals_expire(s->o, ctx, &expired, e);
}

static bool sweep_reminders(struct sweeper *s, struct context *ctx, struct error *e)
{
    size_t reminded;
    return approvals_remind(s->o, ctx, &reminded, e);
}

static bool sweep_client_results(struct sweeper *s, struct context *ctx, struct error *e)
{
    size_t expired;
    return runs_expire(s->o, ctx, &expired, e);
}

static bool sweep_workspaces(struct sweeper *s, struct context *ctx, struct error *e)
{
    size_t removed;
    return session_workspaces_sweep(s->o, ctx, &s->workspace_after, s->workspace_arena, &removed,
                                    e);
}

static bool sweep_nodes(struct sweeper *s, struct context *ctx, struct error *e)
{
    return s->o->watch == NULL || node_watch_turn(s->o->watch, ctx, e);
}

/* Steps that sleep, wait for their next attempt or run out of time. */
static bool sweep_wakes(struct sweeper *s, struct context *ctx, struct error *e)
{
    size_t woken;
    return workflows_wake(s->o, ctx, &woken, e);
}

static bool sweep_schedules(struct sweeper *s, struct context *ctx, struct error *e)
{
    size_t started;
    return schedules_sweep(s->o, ctx, &s->schedules, &started, e);
}

static bool sweep_sessions(struct sweeper *s, struct context *ctx, struct error *e)
{
    size_t expired;
    return sessions_expire(s->o, ctx, &expired, e);
}

static bool sweep_budgets(struct sweeper *s, struct context *ctx, struct error *e)
{
    return budgets_sweep(s->o, ctx, e);
}

static bool sweep_shares(struct sweeper *s, struct context *ctx, struct error *e)
{
    return budgets_bury(s->o, ctx, e);
}

static bool sweep_retention(struct sweeper *s, struct context *ctx, struct error *e)
{
    struct retention_counts counts;
    const struct settings *settings = orchestrator_acquire(s->o);
    struct retention_rules rules = settings->retention;
    orchestrator_release(settings);
    return retention_sweep(s->o, ctx, &rules, &s->retention, &counts, e);
}

static bool sweep_overload(struct sweeper *s, struct context *ctx, struct error *e)
{
    (void) ctx;
    (void) e;
    overload_sample(s->o->overload);
    return true;
}

static bool sweep_webhooks(struct sweeper *s, struct context *ctx, struct error *e)
{
    return webhooks_sweep(s->o, ctx, e);
}

static const struct sweep {
    const char *name;
    int64_t every_ms;
    may_suspend bool (*run)(struct sweeper *s, struct context *ctx, struct error *e);
} sweeps[] = {
    {"overload", 250, sweep_overload},        {"approvals", 30000, sweep_approvals},
    {"reminders", 5000, sweep_reminders},     {"client_results", 30000, sweep_client_results},
    {"workspaces", 30000, sweep_workspaces},  {"retention", 1000, sweep_retention},
    {"sessions", 30000, sweep_sessions},      {"wakes", 250, sweep_wakes},
    {"schedules", 1000, sweep_schedules},     {"budgets", BUDGET_SWEEP_MS, sweep_budgets},
    {"shares", BUDGET_BURY_MS, sweep_shares}, {"nodes", NODE_BEAT_MS, sweep_nodes},
    {"webhooks", 250, sweep_webhooks},
};

struct sweeper *sweeper_create(struct orchestrator *o)
{
    struct sweeper *s = calloc(1, sizeof *s);
    ensure(s != NULL);
    s->o = o;
    s->due_ns = calloc(ARRAY_COUNT(sweeps), sizeof *s->due_ns);
    ensure(s->due_ns != NULL);
    s->workspace_arena = arena_create(0);
    s->retention.keep = arena_create(0);
    s->schedules.keep = arena_create(0);
    return s;
}

void sweeper_destroy(struct sweeper *s)
{
    if (!s)
        return;
    webhooks_settle(s->o);
    arena_destroy(s->workspace_arena);
    arena_destroy(s->retention.keep);
    arena_destroy(s->schedules.keep);
    free(s->due_ns);
    free(s);
}

bool orchestrator_sweep(struct sweeper *s, struct context *ctx, struct error *e)
{
    for (size_t i = 0; i < ARRAY_COUNT(sweeps); i++) {
        int64_t now_ns = context_now_ns(ctx);
        struct error failure = {0};
        if (now_ns < s->due_ns[i])
            continue;
        s->due_ns[i] = now_ns + sweeps[i].every_ms * 1000000;
        arena_mark mark = arena_save(ctx->arena);
        bool ok = sweeps[i].run(s, ctx, &failure);
        arena_rewind(ctx->arena, mark);
        if (!ok && failure.code != ERROR_CANCELLED)
            LOG_ERROR("orchestrator.sweep", S("a sweep failed; it is tried again"), &failure,
                      LOG_STR("nexus.sweep", str_from_cstr(sweeps[i].name)));
        if (!context_check(ctx, e) && e->code == ERROR_CANCELLED)
            return false;
    }
    return true;
}
