/*
 * Laws of schedules.  The simulated ones come every so many whole minutes, so what is due can be told without cron: the times of one are
 * the multiples of its period.
 */
#include "base/arena.h"
#include "laws_internal.h"
#include "store/check.h"

#define MINUTE_US 60000000ll
enum { MADE_UP_MAX = 100 };

struct law_schedule {
    str missed, overlap;
    int64_t period_us;
    int64_t next_us, last_us; /* 0: none */
    bool is_paused;
    struct map *started; /* times, as text */
};

/* By its node's own clock. */
static int64_t node_unix_us(const struct node *node)
{
    return clock_unix_us(node->clock.truth) + node->clock.wall_us;
}

/* "* * * * *" or "*" "/N * * * *" */
static int64_t period_of(str cron)
{
    str head, rest;
    int64_t minutes;
    if (!str_cut(cron, ' ', &head, &rest) || !str_starts_with(head, S("*/")) ||
        !str_to_i64(str_from(head, 2), &minutes))
        return MINUTE_US;
    return minutes * MINUTE_US;
}

static void put(struct world *world, struct law_schedule *schedule, const struct record *row)
{
    bool was_paused = schedule->is_paused;
    if (record_has(row, SCHEDULES_CRON)) {
        schedule->period_us = period_of(record_text(row, SCHEDULES_CRON));
        schedule->missed = str_copy(world->arena, record_text(row, SCHEDULES_MISSED));
        schedule->overlap = str_copy(world->arena, record_text(row, SCHEDULES_OVERLAP));
    }
    schedule->is_paused = record_integer(row, SCHEDULES_IS_PAUSED) != 0;
    schedule->next_us = record_integer(row, SCHEDULES_NEXT_AT);
    schedule->last_us =
        record_integer(row, SCHEDULES_LAST_AT); /* it counts from now on, by whatever clock */
    if (was_paused && !schedule->is_paused)
        cover(world, COVER_SCHEDULE_PAUSED);
}

/* The oldest time that is made up for: the wall time may have gone past more of them than that. */
static int64_t oldest_made_up(const struct node *node, const struct law_schedule *schedule)
{
    int64_t now_us = node_unix_us(node);
    return now_us - now_us % schedule->period_us - (MADE_UP_MAX - 1) * schedule->period_us;
}

static void started(struct world *world, const struct node *node, struct law_schedule *schedule,
                    const struct record *row)
{
    int64_t at_us = record_integer(row, SCHEDULES_LAST_AT);
    int64_t late = (at_us - schedule->next_us) / schedule->period_us;
    bool makes_up = str_equal(schedule->missed, S("all"));
    cover(world, COVER_SCHEDULE_STARTED);
    if (at_us % schedule->period_us != 0)
        world_violation(world, "a schedule started an instance at a time that is none of its");
    if (at_us <= schedule->last_us ||
        map_put(schedule->started, str_printf(world->arena, "%lld", (long long) at_us), world))
        world_violation(world, "a schedule started two instances for one time");
    if (schedule->is_paused)
        world_violation(world, "a schedule that is paused started an instance");
    if (at_us < schedule->next_us)
        world_violation(world, "a schedule started an instance before it was due");
    if (makes_up && late > 0 && at_us > oldest_made_up(node, schedule))
        world_violation(world, "a schedule that makes up for all lost %lld times",
                        (long long) late);
    if (record_integer(row, SCHEDULES_NEXT_AT) != at_us + schedule->period_us)
        world_violation(world, "a schedule went on from %lld to %lld us, its period is %lld",
                        (long long) at_us, (long long) record_integer(row, SCHEDULES_NEXT_AT),
                        (long long) schedule->period_us);
    if (late > 0)
        cover(world, COVER_SCHEDULE_MISSED);
    schedule->last_us = at_us;
}

/* Its time passed without an instance: only for what its policies say. */
static void passed(struct world *world, struct law_schedule *schedule, const struct record *row)
{
    str why = record_text(row, SCHEDULES_LAST_ERROR);
    bool is_missed = str_starts_with(why, S("missed")),
         is_overlap = str_starts_with(why, S("skip"));
    if (is_missed && !str_equal(schedule->missed, S("skip")))
        world_violation(world, "a schedule passed over a time that it makes up for");
    if (is_overlap && !str_equal(schedule->overlap, S("skip")))
        world_violation(world, "a schedule passed over a time for an instance that it allows");
    if (!is_missed && !is_overlap)
        world_violation(world, "a schedule could not start an instance: " STR_FMT, STR_ARG(why));
    if (record_integer(row, SCHEDULES_NEXT_AT) <= schedule->next_us)
        world_violation(world, "a schedule did not move on");
    cover(world, is_missed ? COVER_SCHEDULE_MISSED : COVER_SCHEDULE_OVERLAP);
}

/* The wall time went back, and the schedule was put or resumed: only past a time that has its instance. */
static void gone_by(struct world *world, struct law_schedule *schedule, const struct record *row)
{
    int64_t at_us = record_integer(row, SCHEDULES_NEXT_AT) - schedule->period_us;
    if (!map_find(schedule->started, str_printf(world->arena, "%lld", (long long) at_us)))
        world_violation(world, "a schedule went by a time that has no instance");
}

void law_schedules_deinit(struct laws *laws)
{
    size_t position = 0;
    void *value;
    while (map_next(laws->schedules, &position, NULL, &value))
        map_destroy(((struct law_schedule *) value)->started);
    map_destroy(laws->schedules);
}

void law_schedule_write(struct world *world, const struct node *node, const struct write *write)
{
    struct laws *laws = laws_of(world);
    const struct record *row = &write->record;
    str name = record_text(row, SCHEDULES_NAME);
    struct law_schedule *schedule = map_find(laws->schedules, name);
    if (write->op == WRITE_DELETE)
        return;
    if (!schedule) {
        schedule = ARENA_NEW(world->arena, struct law_schedule);
        schedule->started = map_create();
        map_put(laws->schedules, name, schedule);
    }
    int64_t due_us = schedule->next_us;
    if (write_is_insert(write->op) || row->has & 1u << SCHEDULES_IS_PAUSED) {
        put(world, schedule, row);
        return;
    }
    if (record_has(row, SCHEDULES_LAST_AT)) {
        if (node_unix_us(node) - due_us > 2 * MINUTE_US)
            cover(world, COVER_SCHEDULE_MADE_UP);
        started(world, node, schedule, row);
    } else if (record_has(row, SCHEDULES_LAST_ERROR))
        passed(world, schedule, row);
    else
        gone_by(world, schedule, row);
    schedule->next_us = record_integer(row, SCHEDULES_NEXT_AT);
}
