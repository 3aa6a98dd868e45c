/*
 * The board: persons who approve together.  They vote at the same moment, twice, on digests that are old, and in each other's place; some
 * let others speak for them for a while.
 */
#include "acts.h"
#include "base/arena.h"
#include "orchestrator/approval/approval.h"

static const char *const members[] = {"carol", "dave", "frank", "erin"};

/* ---- keys: who lets another speak must be one who may speak ---- */

static void ask_key(struct errand *call, void *argument)
{
    struct world *world = call->world;
    struct batch batch;
    struct error e = {0};
    bool *is_made = argument;
    batch_init(&batch, call->ctx.arena, world->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPSERT, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, uuid_derive(world->tenant_id, S("frank")));
    record_set_text(row, API_KEYS_NAME, S("frank"));
    record_set_text(row, API_KEYS_PREFIX, S("nx_frank"));
    record_set_text(row, API_KEYS_HASH, S("f0"));
    record_set_text(row, API_KEYS_USER_ID, S("frank"));
    record_set_text(row, API_KEYS_CREATED_BY, S("system"));
    record_set_text(row, API_KEYS_ROLE, S("operator"));
    record_set_text(row, API_KEYS_SCOPES, S("[]"));
    record_set_integer(row, API_KEYS_CREATED_AT, clock_unix_us(&call->node->clock.base));
    *is_made = store_commit(orchestrator_parts(call->o)->store, &call->ctx, &batch, &e);
}

static void ask_delegate(struct errand *call, void *argument)
{
    struct world *world = call->world;
    struct principal frank = person_principal(world, "frank");
    struct approval_delegation delegation = {
        .to_user = S("erin"),
        .reason = S("on leave"),
        .expires_us =
            clock_unix_us(&call->node->clock.base) + world_between(world, 5, 300) * 1000000,
    };
    struct record out;
    struct error e = {0};
    (void) argument;
    if (world_chance(world, 150))
        (void) !approval_delegation_revoke(call->o, &call->ctx, &frank, S("frank"), S("erin"), &e);
    else
        (void) !approval_delegate(call->o, &call->ctx, &frank, &delegation, &out, &e);
}

static void delegator(struct person *person)
{
    bool is_made = false;
    while (!is_made) {
        (void) person_ask(person, ask_key, &is_made);
        person_doze(person, 5, 50);
    }
    while (person_is_needed(person)) {
        (void) person_ask(person, ask_delegate, NULL);
        person_doze(person, 3000, 60000);
    }
}

/* ---- votes ---- */

static str other_digest(struct errand *call, str right)
{
    return str_printf(call->ctx.arena, STR_FMT "%s", STR_ARG(str_slice(right, 0, right.len - 1)),
                      str_ends_with(right, S("0")) ? "1" : "0");
}

static void vote(struct errand *call, const struct principal *who, const struct record *approval)
{
    struct world *world = call->world;
    struct error e = {0};
    struct approval_decision decision = {
        .approval_id = record_uuid(approval, APPROVALS_ID),
        .digest = record_text(approval, APPROVALS_DIGEST),
        .is_approve = world_chance(world, 850),
    };
    if (world_chance(world, 80)) {
        decision.digest = other_digest(call, decision.digest);
        if (approval_decide(call->o, &call->ctx, who, &decision, &e))
            world_violation(world, "a vote on another digest was taken");
        if (e.reason == REASON_STALE_DIGEST)
            cover(world, COVER_APPROVAL_STALE);
        return;
    }
    bool is_first = world->stage->voting++ == 0;
    bool ok = approval_decide(call->o, &call->ctx, who, &decision, &e);
    if (world->stage->voting-- > 1 && !is_first)
        cover(world, COVER_APPROVAL_RACE);
    if (!ok || !decision.is_approve || !world_chance(world, 150))
        return;
    e = (struct error){0};
    if (approval_decide(call->o, &call->ctx, who, &decision, &e))
        world_violation(world, "one person approved twice");
    if (e.reason == REASON_ALREADY_DECIDED)
        cover(world, COVER_APPROVAL_TWICE);
}

static void ask_votes(struct errand *call, void *argument)
{
    struct world *world = call->world;
    struct principal who = person_principal(world, members[call->index]);
    struct principal reader = person_principal(world, "carol");
    struct records page;
    struct error e = {0};
    (void) argument;
    if (!approval_list(call->o, &call->ctx, &reader, S("pending"), STR_NONE, 50, &page, &e))
        return;
    for (size_t i = 0; i < page.count; i++)
        if (world_chance(world, 700))
            vote(call, &who, &page.items[i]);
}

static void member(struct person *person)
{
    while (person_is_needed(person)) {
        (void) person_ask(person, ask_votes, NULL);
        person_doze(person, 300, 6000);
    }
}

void act_board(struct world *world)
{
    for (size_t i = 0; i < ARRAY_COUNT(members); i++)
        servant_start(world, members[i], member, (int) i);
    servant_start(world, "delegator", delegator, 0);
}
