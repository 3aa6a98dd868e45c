/*
 * Followers: read a run's journal as it grows, from any node that is up; when one dies they go on at another where they were.  Each event is
 * seen once and in order, and what was seen is what is stored in the end.
 */
#include "acts.h"
#include "base/arena.h"
#include "base/limits.h"

struct following {
    uuid run_id;
    int64_t seen;
    uint64_t digest;
    bool is_over, is_gone;
    int visits;
};

static uint64_t mix(uint64_t mixed, const struct event *event, struct arena *arena)
{
    str text = json_canonical(arena, event->data);
    mixed = (mixed ^ (uint64_t) event->seq << 8 ^ event->type) * 0x9e3779b97f4a7c15u;
    for (size_t i = 0; i < text.len; i++)
        mixed = (mixed ^ (unsigned char) text.ptr[i]) * 0x100000001b3u;
    return mixed;
}

static bool take(struct errand *call, struct following *f, const struct events *events)
{
    for (size_t i = 0; i < events->count; i++) {
        const struct event *event = &events->items[i];
        if (event->seq != f->seen + 1) {
            world_violation(call->world, "a follower saw event %lld after %lld",
                            (long long) event->seq, (long long) f->seen);
            return false;
        }
        f->seen = event->seq;
        f->digest = mix(f->digest, event, call->ctx.arena);
        f->is_over = f->is_over || event_is_final(event->type);
    }
    return true;
}

static void ask_follow(struct errand *call, void *argument)
{
    struct following *f = argument;
    struct journal_follower *follower =
        journal_follow(orchestrator_hub(call->o), &call->ctx, f->run_id);
    bool goes_on = true;
    f->visits++;
    for (int64_t turns = world_between(call->world, 1, 400); turns > 0 && goes_on && !f->is_over;
         turns--) {
        struct events events;
        struct error e = {0};
        arena_mark mark = arena_save(call->ctx.arena);
        goes_on = journal_follower_read(follower, orchestrator_parts(call->o)->store, &call->ctx,
                                        call->world->tenant_id, f->seen,
                                        (size_t) world_between(call->world, 1, 40), &events, &e) &&
                  take(call, f, &events);
        if (goes_on && events.count == 0)
            (void) !journal_wait(follower, &call->ctx, f->seen,
                                 context_deadline_in(&call->ctx, 2000), &e);
        arena_rewind(call->ctx.arena, mark);
    }
    journal_unfollow(follower);
}

static void ask_is_gone(struct errand *call, void *argument)
{
    struct following *f = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct record run;
    struct error e = {0};
    f->is_gone =
        !run_get(call->o, &call->ctx, &alice, f->run_id, &run, &e) && e.code == ERROR_NOT_FOUND;
}

/* On a node that is up: the store itself may have no reader without one. */
static void ask_compare(struct errand *call, void *argument)
{
    struct following *f = argument;
    uint64_t stored = 0;
    int64_t seen = 0;
    while (seen < f->seen) {
        struct events events;
        struct error e = {0};
        if (!journal_read(orchestrator_parts(call->o)->store, &call->ctx, call->world->tenant_id,
                          f->run_id, seen, STORE_PAGE_MAX, &events, &e))
            return;
        if (events.count == 0)
            return; /* retention was here */
        for (size_t i = 0; i < events.count; i++)
            stored = mix(stored, &events.items[i], call->ctx.arena);
        seen = events.items[events.count - 1].seq;
    }
    f->is_gone = true;
    if (stored != f->digest || seen != f->seen)
        world_violation(call->world,
                        "a follower saw other events than are stored: up to %lld, "
                        "stored %lld",
                        (long long) f->seen, (long long) seen);
}

void follower(struct person *person)
{
    struct world *world = person->world;
    struct following f = {.run_id = world->stage->followed[person->index].run_id};
    bool may_be_removed = world->stage->rules.runs_ms > 0;
    while (!f.is_over && !f.is_gone && !world->violation[0]) {
        (void) person_ask(person, ask_follow, &f);
        if (!f.is_over && f.seen == 0)
            (void) person_ask(person, ask_is_gone, &f);
        if (!f.is_over && may_be_removed)
            (void) person_ask(person, ask_is_gone, &f);
        person_doze(person, 1, 500);
    }
    if (!f.is_over)
        return;
    cover(world, COVER_FOLLOWED);
    if (f.visits > 1)
        cover(world, COVER_FOLLOWED_ON);
    for (int i = 0; i < 20 && !may_be_removed && !f.is_gone; i++) {
        (void) person_ask(person, ask_compare, &f);
        person_doze(person, 10, 1000);
    }
}
