#include "acts.h"
#include "base/arena.h"
#include "laws.h"
#include <stdio.h>

static const struct {
    unsigned per_mille;
    void (*start)(struct world *world);
} acts[ACT_COUNT] = {
    [ACT_INSTANCES] = {450, act_instances}, [ACT_CHATS] = {350, act_chats},
    [ACT_SCHEDULES] = {150, act_schedules}, [ACT_BOARD] = {350, act_board},
    [ACT_CLIENTS] = {120, act_clients},     [ACT_REPLAYS] = {250, act_replays},
    [ACT_WEBHOOKS] = {150, act_webhooks},
};

void acts_draw(struct world *world)
{
    struct stage *stage = ARENA_NEW(world->arena, struct stage);
    struct rules *rules = &stage->rules;
    world->stage = stage;
    for (int i = 0; i < ACT_COUNT; i++)
        rules->acts[i] = world_chance(world, acts[i].per_mille);
    rules->has_users =
        world_chance(world, 600) || !(rules->acts[ACT_INSTANCES] || rules->acts[ACT_CHATS]);
    rules->has_shipped = rules->acts[ACT_INSTANCES] && world_chance(world, 250);
    rules->has_day = world_chance(world, 150);
    rules->quorum = rules->acts[ACT_BOARD] ? world_between(world, 0, 3) : 0;
    rules->expiry_ms = world_chance(world, 150) ? world_between(world, 2, 60) * 1000 : 0;
    rules->approval_expiry_ms =
        world_chance(world, 300) ? world_between(world, 10, 120) * 1000 : 600000;
    rules->approval_remind_ms = world_chance(world, 300) ? world_between(world, 2, 20) * 1000 : 0;
    rules->runs_ms = world_chance(world, 100) ? world_between(world, 20, 200) * 1000 : 0;
    rules->deltas_ms = world_chance(world, 300) ? world_between(world, 2, 60) * 1000 : 0;
}

void acts_start(struct world *world)
{
    servant_start(world, "approver", approver, 0);
    for (int i = 0; i < ACT_COUNT; i++)
        if (world->stage->rules.acts[i])
            acts[i].start(world);
}

/* ---- servants ---- */

bool person_is_needed(const struct person *person)
{
    const struct world *world = person->world;
    return world->people > world->servants + 1 || laws_have_live_runs(world);
}

void servant_start(struct world *world, const char *name, person_fn *fn, int index)
{
    world->servants++;
    person_start(world, name, fn, index);
}

/* ---- who ---- */

static const struct {
    const char *name;
    enum role_level level;
} persons[] = {
    {"alice", ROLE_LEVEL_USER},    {"bob", ROLE_LEVEL_OPERATOR}, {"carol", ROLE_LEVEL_ADMIN},
    {"dave", ROLE_LEVEL_OPERATOR}, {"erin", ROLE_LEVEL_USER},    {"frank", ROLE_LEVEL_OPERATOR},
};

struct principal person_principal(const struct world *world, const char *name)
{
    for (size_t i = 0; i < ARRAY_COUNT(persons); i++)
        if (str_equal(str_from_cstr(name), str_from_cstr(persons[i].name)))
            return actor_principal(world, str_from_cstr(name), persons[i].level);
    return actor_principal(world, str_from_cstr(name), ROLE_LEVEL_USER);
}

/* ---- following ---- */

void acts_follow(struct world *world, uuid run_id)
{
    struct stage *stage = world->stage;
    if (uuid_is_none(run_id) || stage->followed_count == FOLLOWED || !world_chance(world, 200))
        return;
    stage->followed[stage->followed_count].run_id = run_id;
    person_start(world, "follower", follower, stage->followed_count++);
}
