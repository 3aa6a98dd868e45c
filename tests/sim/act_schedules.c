/* Schedules: somebody keeps one for some minutes: pauses it, starts it by hand, and removes it. */
#include "acts.h"
#include "base/arena.h"
#include "orchestrator/workflow/schedule.h"
#include "orchestrator/workflow/workflow_store.h"

static const char tick[] = "{\"name\":\"tick\",\"version\":\"1.0.0\",\"steps\":[{\"id\":\"s1\","
                           "\"tool\":\"lookup\",\"input\":{\"amount\":1}},"
                           "{\"id\":\"s2\",\"sleep\":\"${input.n}\"}]}";

struct keeping {
    struct schedule_request request;
    bool is_done, is_there, is_paused;
};

static void ask_tick(struct errand *call, void *argument)
{
    struct keeping *keeping = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct workflow_entry *entry;
    struct error e = {0};
    bool is_new;
    keeping->is_done =
        workflow_put(call->o, &call->ctx, &alice, str_from_cstr(tick), NULL, &entry, &is_new, &e);
    if (keeping->is_done)
        workflow_entry_release(entry);
}

static void ask_put(struct errand *call, void *argument)
{
    struct keeping *keeping = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct record row;
    struct error e = {0};
    bool is_new;
    keeping->is_done =
        schedule_put(call->o, &call->ctx, &alice, &keeping->request, &row, &is_new, &e);
    if (!keeping->is_done && e.code == ERROR_INVALID)
        world_violation(call->world, "a schedule was refused: %s", e.message);
}

static void ask_pause(struct errand *call, void *argument)
{
    struct keeping *keeping = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct record row;
    struct error e = {0};
    keeping->is_done = schedule_pause(call->o, &call->ctx, &alice, keeping->request.name,
                                      keeping->is_paused, &row, &e);
}

static void ask_now(struct errand *call, void *argument)
{
    struct keeping *keeping = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct error e = {0};
    uuid run_id, session_id;
    if (schedule_run_now(call->o, &call->ctx, &alice, keeping->request.name, &run_id, &session_id,
                         &e))
        cover(call->world, COVER_SCHEDULE_NOW);
}

static void ask_remove(struct errand *call, void *argument)
{
    struct keeping *keeping = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct error e = {0};
    keeping->is_done = schedule_remove(call->o, &call->ctx, &alice, keeping->request.name, &e) ||
                       e.code == ERROR_NOT_FOUND;
}

static void insist(struct person *person, call_fn *fn, struct keeping *keeping)
{
    keeping->is_done = false;
    while (!keeping->is_done && !person->world->violation[0]) {
        (void) person_ask(person, fn, keeping);
        person_doze(person, 5, 300);
    }
}

static void keeper(struct person *person)
{
    static const char *const missed[] = {"skip", "one", "all"};
    static const char *const overlap[] = {"skip", "allow", "cancel"};
    struct world *world = person->world;
    struct keeping keeping = {
        .request = {
            .name = str_printf(world->arena, "every%d", person->index),
            .workflow = S("tick"),
            .cron = world_chance(world, 700) ? S("* * * * *") : S("*/2 * * * *"),
            .input = str_printf(world->arena, "{\"n\":%lld}",
                                (long long) (world_chance(world, 300) ? 100 : 1)),
            .missed = str_from_cstr(missed[world_between(world, 0, 2)]),
            .overlap = str_from_cstr(overlap[world_between(world, 0, 2)]),
        }};
    insist(person, ask_tick, &keeping);
    insist(person, ask_put, &keeping);
    for (int64_t turns = world_between(world, 2, 5); turns > 0; turns--) {
        person_doze(person, 10000, 100000);
        if (world_chance(world, 250)) {
            keeping.is_paused = true;
            insist(person, ask_pause, &keeping);
            person_doze(person, 1000, 150000);
            keeping.is_paused = false;
            insist(person, ask_pause, &keeping);
        } else if (world_chance(world, 300))
            (void) person_ask(person, ask_now, &keeping);
        else if (world_chance(world, 300)) /* it is not paused: nothing may change */
            insist(person, ask_pause, &keeping);
    }
    insist(person, ask_remove, &keeping);
}

void act_schedules(struct world *world)
{
    person_start(world, "keeper", keeper, 0);
    if (world_chance(world, 300))
        person_start(world, "keeper", keeper, 1);
}
