/*
 * Who acts: a user per session who sends messages one after another, somebody who approves and denies, and callers of plain model calls
 * on the same budgets.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/plain_call.h"
#include "world.h"
#include <stdio.h>
#include <stdlib.h>

struct actor {
    struct world *world;
    int index;
    struct arena *arena;
    struct context ctx;
};

struct principal actor_principal(const struct world *world, str user, enum role_level level)
{
    return (struct principal){
        .tenant_id = world->tenant_id,
        .user_id = user,
        .caller_id = user,
        .role = level == ROLE_LEVEL_ADMIN      ? S("admin")
                : level == ROLE_LEVEL_OPERATOR ? S("operator")
                                               : S("user"),
        .level = level,
    };
}

static void doze(struct actor *actor, int64_t low_ms, int64_t high_ms)
{
    struct error ignored = {0};
    (void) !context_sleep_ms(&actor->ctx, world_between(actor->world, low_ms, high_ms), &ignored);
    arena_reset(actor->arena);
}

static void start_actor(struct world *world, const char *name, coroutine_fn *fn, int index)
{
    struct actor *actor = calloc(1, sizeof *actor);
    struct error e = {0};
    ensure(actor != NULL);
    actor->world = world;
    actor->index = index;
    actor->arena = arena_create(0);
    context_init(&actor->ctx, world->scheduler, actor->arena, DEADLINE_NONE);
    bool is_started = coroutine_start(world->scheduler, name, fn, actor, &e);
    ensure(is_started);
}

static void end_actor(struct actor *actor)
{
    context_deinit(&actor->ctx);
    arena_destroy(actor->arena);
    free(actor);
}

/* ---- the budget of the user, and the sessions ---- */

static bool has_session(struct actor *actor)
{
    return !uuid_is_none(actor->world->session_ids[actor->index]);
}

static void open_session(struct actor *actor)
{
    struct world *world = actor->world;
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_USER);
    struct session_request request = {.budget = COST_LIMITLESS};
    struct record made;
    struct error e = {0};
    if (session_create(world->o, &actor->ctx, &alice, &request, &made, &e))
        world->session_ids[actor->index] = record_uuid(&made, SESSIONS_ID);
    doze(actor, 5, 50); /* a lost acknowledgement leaves a session that nobody uses */
}

static void watch_accounts(struct actor *actor)
{
    struct world *world = actor->world;
    struct record session;
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_USER);
    struct error e = {0};
    struct ledger_limits limits = {.session = {.tokens = 30000,
                                               .time_ms = 3600000,
                                               .cost_nanousd = COST_UNLIMITED,
                                               .tool_calls = 40},
                                   .run = COST_LIMITLESS};
    if (world->has_watch[actor->index] ||
        !session_get(world->o, &actor->ctx, &alice, world->session_ids[actor->index], &session,
                     &e) ||
        !ledger_open_path(orchestrator_ledger(world->o), &actor->ctx, world->tenant_id, S("alice"),
                          world->session_ids[actor->index], UUID_NONE, limits,
                          &world->watch[actor->index], &e))
        return;
    world->has_watch[actor->index] = true;
}

/* ---- the user ---- */

static bool is_busy(struct actor *actor)
{
    struct world *world = actor->world;
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_USER);
    struct record session;
    struct error e = {0};
    return !session_get(world->o, &actor->ctx, &alice, world->session_ids[actor->index], &session,
                        &e) ||
           record_has(&session, SESSIONS_LIVE_RUN_ID);
}

static void send_message(struct actor *actor)
{
    struct world *world = actor->world;
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_USER);
    struct run_request request = {.session_id = world->session_ids[actor->index],
                                  .content = S("do something")};
    struct error e = {0};
    uuid run_id;
    world->runs_started
        [actor->index]++; /* also when the acknowledgement is lost: then it may have begun */
    if (!run_start(world->o, &actor->ctx, &alice, &request, &run_id, &e))
        return;
    if (world->run_count < ARRAY_COUNT(world->run_ids))
        world->run_ids[world->run_count++] = run_id;
    if (!world_chance(world, 80))
        return;
    doze(actor, 0, 800);
    (void) !run_cancel(world->o, &actor->ctx, &alice, run_id, &e);
}

static void user(void *argument)
{
    struct actor *actor = argument;
    struct world *world = actor->world;
    while (!has_session(actor))
        open_session(actor);
    while (!world->has_watch[actor->index]) {
        watch_accounts(actor);
        doze(actor, 1, 5);
    }
    while (world->runs_started[actor->index] < RUNS_PER_SESSION) {
        if (!is_busy(actor))
            send_message(actor);
        doze(actor, 20, 400);
    }
    while (is_busy(actor))
        doze(actor, 100, 1000);
    world->live_actors--;
    end_actor(actor);
}

/* ---- the approver ---- */

static void decide_page(struct actor *actor, const struct records *page)
{
    struct world *world = actor->world;
    struct principal bob = actor_principal(world, S("bob"), ROLE_LEVEL_OPERATOR);
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_OPERATOR);
    for (size_t i = 0; i < page->count; i++) {
        struct approval_decision decision = {
            .approval_id = record_uuid(&page->items[i], APPROVALS_ID),
            .digest = record_text(&page->items[i], APPROVALS_DIGEST),
            .is_approve = world_chance(world, 700),
        };
        struct error e = {0};
        if (approval_decide(world->o, &actor->ctx, &alice, &decision, &e))
            world_violation(world, "the requester approved their own call");
        e = (struct error){0};
        (void) !approval_decide(world->o, &actor->ctx, &bob, &decision, &e);
    }
}

static void approver(void *argument)
{
    struct actor *actor = argument;
    struct world *world = actor->world;
    struct principal bob = actor_principal(world, S("bob"), ROLE_LEVEL_OPERATOR);
    while (world->live_actors > 0) {
        struct records page;
        struct error e = {0};
        size_t expired;
        if (world_chance(world, 800) &&
            approval_list(world->o, &actor->ctx, &bob, S("pending"), STR_NONE, 50, &page, &e))
            decide_page(actor, &page);
        (void) !approvals_expire(world->o, &actor->ctx, &expired, &e);
        doze(actor, 200, 3000);
    }
    end_actor(actor);
}

/* ---- plain calls on the same accounts ---- */

/* Sends one attempt; false: it failed in a way that another may follow. */
static bool attempt_once(struct actor *actor, struct plain_attempt *attempt, struct error *failure)
{
    struct world *world = actor->world;
    const struct plain_call *call = attempt->call;
    doze(actor, 1, 400);
    struct usage usage = {
        .input_tokens = world_between(world, 1, call->request.input_tokens_bound),
        .output_tokens = world_between(world, 0, attempt->max_output_tokens),
        .is_reported = true,
    };
    struct plain_result result = {.usage = &usage, .estimated_output = -1};
    if (world_chance(world, 200)) {
        error_set(failure, REASON_PROVIDER_OVERLOADED, "simulated");
        result.failure = failure;
        result.was_refused = world_chance(world, 500);
    }
    if (world_chance(world, 150))
        result.usage = NULL;
    plain_attempt_end(world->o, attempt, &result);
    return result.failure == NULL;
}

/* Two at once, as a hedge does: the loser is cancelled, but was worked on. */
static void hedge(struct actor *actor, struct plain_call *call)
{
    struct plain_attempt second;
    struct error e = {0}, lost = {0};
    struct plain_result result = {.estimated_output = world_between(actor->world, 0, 3),
                                  .failure = &lost};
    error_set(&lost, REASON_CANCELLED, "the hedge lost");
    if (!plain_attempt_begin(actor->world->o, &actor->ctx, call, NULL, &second, &e))
        return;
    doze(actor, 1, 50);
    plain_attempt_end(actor->world->o, &second, &result);
}

static void call_once(struct actor *actor, struct plain_call *call)
{
    struct world *world = actor->world;
    struct error failure = {0}, e = {0};
    const struct error *last = NULL;
    bool ok = false;
    for (int i = 0; i < 3 && !ok; i++) {
        struct plain_attempt attempt;
        e = (struct error){0};
        if (!plain_attempt_begin(world->o, &actor->ctx, call, last, &attempt, &e))
            break;
        if (world_chance(world, 100))
            hedge(actor, call);
        ok = attempt_once(actor, &attempt, &failure);
        last = &failure;
    }
    plain_call_end(world->o, call, PLAIN_CACHE_NONE, ok ? NULL : last ? last : &e);
}

static void plain_caller(void *argument)
{
    struct actor *actor = argument;
    struct world *world = actor->world;
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_USER);
    for (int i = 0; i < 12; i++) {
        struct plain_request request = {.model = S("sim"),
                                        .session_id = world->session_ids[actor->index],
                                        .input_tokens_bound = world_between(world, 10, 900)};
        struct plain_call *call = calloc(1, sizeof *call);
        struct error e = {0};
        ensure(call != NULL);
        if (!uuid_is_none(request.session_id) &&
            plain_call_begin(world->o, &actor->ctx, &alice, &request, call, &e))
            call_once(actor, call);
        free(call);
        doze(actor, 1, 300);
    }
    end_actor(actor);
}

/* The user's own limit binds all sessions together: tight enough that calls are refused. */
static void set_limit(void *argument)
{
    struct actor *actor = argument;
    struct world *world = actor->world;
    struct error e = {0};
    cost limit = COST_LIMITLESS;
    limit.tokens = 45000;
    while (!ledger_set_limit(orchestrator_ledger(world->o), &actor->ctx, world->tenant_id,
                             ACCOUNT_USER, S("alice"), limit, &e))
        doze(actor, 1, 10);
    for (int i = 0; i < SESSIONS; i++) {
        world->live_actors++;
        start_actor(world, "user", user, i);
        start_actor(world, "plain", plain_caller, i);
    }
    start_actor(world, "approver", approver, 0);
    end_actor(actor);
}

void actors_start(struct world *world)
{
    start_actor(world, "limit", set_limit, 0);
}
