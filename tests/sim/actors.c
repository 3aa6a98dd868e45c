/*
 * Who acts: a user per session who sends messages one after another, somebody who approves and denies, and callers of plain model calls
 * on the same budgets.  They ask any node that is up, and ask again when it dies under their request.
 */
#include "acts.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/usage/plain_call.h"
#include "people.h"
#include <stdlib.h>

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

static struct principal alice_of(const struct errand *call)
{
    return actor_principal(call->world, S("alice"), ROLE_LEVEL_USER);
}

/* ---- the user ---- */

static bool has_session(const struct person *person)
{
    return !uuid_is_none(person->world->session_ids[person->index]);
}

static void ask_session(struct errand *call, void *argument)
{
    struct principal alice = alice_of(call);
    struct session_request request = {.budget = COST_LIMITLESS,
                                      .agent = company_agent(call->world)};
    struct record made;
    struct error e = {0};
    (void) argument;
    if (session_create(call->o, &call->ctx, &alice, &request, &made, &e))
        call->world->session_ids[call->index] = record_uuid(&made, SESSIONS_ID);
}

static void ask_busy(struct errand *call, void *argument)
{
    struct principal alice = alice_of(call);
    struct record session;
    struct error e = {0};
    bool *is_busy = argument;
    *is_busy = !session_get(call->o, &call->ctx, &alice, call->world->session_ids[call->index],
                            &session, &e) ||
               record_has(&session, SESSIONS_LIVE_RUN_ID);
}

static bool is_busy(struct person *person)
{
    bool is_busy = true;
    return !person_ask(person, ask_busy, &is_busy) || is_busy;
}

static void ask_message(struct errand *call, void *argument)
{
    struct principal alice = alice_of(call);
    struct run_request request = {.session_id = call->world->session_ids[call->index],
                                  .content = S("do something")};
    struct error e = {0};
    uuid *run_id = argument;
    if (!run_start(call->o, &call->ctx, &alice, &request, run_id, &e))
        *run_id = UUID_NONE;
}

static void ask_cancel(struct errand *call, void *argument)
{
    struct principal alice = alice_of(call);
    struct error e = {0};
    (void) !run_cancel(call->o, &call->ctx, &alice, *(uuid *) argument, &e);
}

static void send_message(struct person *person)
{
    struct world *world = person->world;
    uuid run_id = UUID_NONE;
    world->runs_started
        [person->index]++; /* also when the acknowledgement is lost: then it may have begun */
    if (!person_ask(person, ask_message, &run_id) || uuid_is_none(run_id) ||
        !world_chance(world, 120))
        return;
    person_doze(person, 0, 2500);
    (void) person_ask(person, ask_cancel, &run_id);
}

static void user(struct person *person)
{
    struct world *world = person->world;
    while (!has_session(person)) {
        (void) person_ask(person, ask_session, NULL);
        person_doze(person, 5, 50); /* a lost acknowledgement leaves a session that nobody uses */
    }
    while (world->runs_started[person->index] < RUNS_PER_SESSION) {
        if (!is_busy(person))
            send_message(person);
        person_doze(person, 20, 400);
    }
    while (is_busy(person))
        person_doze(person, 100, 1000);
}

/* ---- the approver ---- */

static void ask_decisions(struct errand *call, void *argument)
{
    struct world *world = call->world;
    struct principal bob = actor_principal(world, S("bob"), ROLE_LEVEL_OPERATOR);
    struct principal alice = actor_principal(world, S("alice"), ROLE_LEVEL_OPERATOR);
    struct records page;
    struct error e = {0};
    (void) argument;
    if (!approval_list(call->o, &call->ctx, &bob, S("pending"), STR_NONE, 50, &page, &e))
        return;
    for (size_t i = 0; i < page.count; i++) {
        struct approval_decision decision = {
            .approval_id = record_uuid(&page.items[i], APPROVALS_ID),
            .digest = record_text(&page.items[i], APPROVALS_DIGEST),
            .is_approve = world_chance(world, 700),
        };
        e = (struct error){0};
        if (approval_decide(call->o, &call->ctx, &alice, &decision, &e))
            world_violation(world, "the requester approved their own call");
        e = (struct error){0};
        (void) !approval_decide(call->o, &call->ctx, &bob, &decision, &e);
    }
}

void approver(struct person *person)
{
    struct world *world = person->world;
    while (person_is_needed(person)) {
        if (world_chance(world, 800))
            (void) person_ask(person, ask_decisions, NULL);
        person_doze(person, 200, 3000);
    }
}

/* ---- plain calls on the same accounts ---- */

/* Sends one attempt; false: it failed in a way that another may follow. */
static bool attempt_once(struct errand *at, struct plain_attempt *attempt, struct error *failure)
{
    struct world *world = at->world;
    const struct plain_call *call = attempt->call;
    call_doze(at, 1, 400);
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
    plain_attempt_end(at->o, attempt, &result);
    return result.failure == NULL;
}

/* Two at once, as a hedge does: the loser is cancelled, but was worked on. */
static void hedge(struct errand *at, struct plain_call *call)
{
    struct plain_attempt second;
    struct error e = {0}, lost = {0};
    struct plain_result result = {.estimated_output = world_between(at->world, 0, 3),
                                  .failure = &lost};
    error_set(&lost, REASON_CANCELLED, "the hedge lost");
    if (!plain_attempt_begin(at->o, &at->ctx, call, NULL, &second, &e))
        return;
    call_doze(at, 1, 50);
    plain_attempt_end(at->o, &second, &result);
}

static void try_call(struct errand *at, struct plain_call *call)
{
    struct world *world = at->world;
    struct error failure = {0}, e = {0};
    const struct error *last = NULL;
    bool ok = false;
    for (int i = 0; i < 3 && !ok; i++) {
        struct plain_attempt attempt;
        e = (struct error){0};
        if (!plain_attempt_begin(at->o, &at->ctx, call, last, &attempt, &e))
            break;
        if (world_chance(world, 100))
            hedge(at, call);
        ok = attempt_once(at, &attempt, &failure);
        last = &failure;
    }
    cover(world, ok ? COVER_PLAIN_CALL : COVER_BUDGET_REFUSED);
    plain_call_end(at->o, call, PLAIN_CACHE_NONE, ok ? NULL : last ? last : &e);
}

static void ask_plain(struct errand *at, void *argument)
{
    struct world *world = at->world;
    struct principal alice = alice_of(at);
    struct plain_request request = {.model = S("sim"),
                                    .session_id = world->session_ids[at->index],
                                    .input_tokens_bound = world_between(world, 10, 900)};
    struct plain_call *call = calloc(1, sizeof *call);
    struct error e = {0};
    (void) argument;
    ensure(call != NULL);
    if (!uuid_is_none(request.session_id) &&
        plain_call_begin(at->o, &at->ctx, &alice, &request, call, &e))
        try_call(at, call);
    free(call);
}

static void plain_caller(struct person *person)
{
    for (int i = 0; i < 12; i++) {
        (void) person_ask(person, ask_plain, NULL);
        person_doze(person, 1, 300);
    }
}

/* ---- all of them ---- */

static void ask_limit(struct errand *call, void *argument)
{
    struct error e = {0};
    struct ledger_setting setting = {.limit = COST_LIMITLESS};
    bool *is_set = argument;
    setting.limit.tokens = 45000;
    setting.period = call->world->stage->rules.has_day ? PERIOD_DAY : PERIOD_NONE;
    *is_set = ledger_set(orchestrator_ledger(call->o), &call->ctx, call->world->tenant_id,
                         ACCOUNT_USER, S("alice"), &setting, &e);
}

/* The user's own limit binds all sessions together: tight enough that calls are refused. */
static void beginner(struct person *person)
{
    struct world *world = person->world;
    bool is_set = false;
    while (!is_set) {
        (void) person_ask(person, ask_limit, &is_set);
        person_doze(person, 1, 10);
    }
    for (int i = 0; i < SESSIONS && world->stage->rules.has_users; i++) {
        person_start(world, "user", user, i);
        person_start(world, "plain", plain_caller, i);
    }
    acts_start(world);
}

void actors_start(struct world *world)
{
    person_start(world, "beginner", beginner, 0);
}
