/*
 * Laws of schedules.  The simulated ones come every so many whole minutes, so what is due can be told without cron: the times of one are
 * the multiples of its period.
 *
 * Each commit that moves a schedule on deals with the times from the one that was due up to the newest before the next: that one is
 * started, or passed over with a reason, or has its instance from before; those between must be such as its policy does not make up for.
 */
#include "base/arena.h"
#include "laws_internal.h"
#include "store/check.h"

#define MINUTE_US 60000000ll
#define UNDER_WAY_NS                                                                               \
    (300 * INT64_C(1000000000)) /* a commit is at most that old: cut off, asleep, late */
#define HELD_UP_NS                                                                                 \
    (120 *                                                                                         \
     INT64_C(1000000000)) /* what is due for longer than that, while all is well, is forgotten */
enum { MADE_UP_MAX = 100 };

struct law_schedule {
    str missed, overlap;
    int64_t period_us;
    int64_t next_us;  /* 0: none */
    int64_t moved_ns; /* the true time when it moved on */
    bool is_paused;
    struct map *started; /* times, as text */
};

/* ---- the time ---- */

static int64_t unix_us(const struct node *node)
{
    return clock_unix_us(node->clock.truth) + node->clock.wall_us;
}

void law_clock_changes(struct world *world, const struct node *node)
{
    struct law_clock *clock = &laws_of(world)->clocks[node->index];
    int64_t now_ns = world_now_ns(world);
    bool is_old = clock->changed_ns == 0 || now_ns - clock->changed_ns > UNDER_WAY_NS;
    if (is_old || clock->wall_us < node->clock.wall_us)
        clock->wall_us = node->clock.wall_us;
    clock->changed_ns = now_ns;
}

/* The newest time that the node can have seen when it made what is stored now: its wall time may have been put back since. */
static int64_t newest_us(struct world *world, const struct node *node)
{
    const struct law_clock *clock = &laws_of(world)->clocks[node->index];
    bool is_old = clock->changed_ns == 0 || world_now_ns(world) - clock->changed_ns > UNDER_WAY_NS;
    int64_t wall_us =
        is_old || clock->wall_us < node->clock.wall_us ? node->clock.wall_us : clock->wall_us;
    return clock_unix_us(node->clock.truth) + wall_us;
}

/* ---- rows ---- */

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

/* True: it is new. */
static bool note_started(struct world *world, struct law_schedule *schedule, int64_t at_us)
{
    return !map_put(schedule->started, str_printf(world->arena, "%lld", (long long) at_us), world);
}

/*
 * It counts from now on, by whatever clock.  Of a row that is read again the last time has an instance, though its commit may not have been
 * seen; it may be newer than the next: the wall time went back in between, and the schedule was put or resumed.
 */
static void put(struct world *world, struct law_schedule *schedule, const struct record *row)
{
    bool was_paused = schedule->is_paused, is_put = record_has(row, SCHEDULES_CRON);
    int64_t next_us = record_integer(row, SCHEDULES_NEXT_AT);
    if (is_put) {
        schedule->period_us = period_of(record_text(row, SCHEDULES_CRON));
        schedule->missed = str_copy(world->arena, record_text(row, SCHEDULES_MISSED));
        schedule->overlap = str_copy(world->arena, record_text(row, SCHEDULES_OVERLAP));
    }
    if (record_has(row, SCHEDULES_LAST_AT))
        (void) note_started(world, schedule, record_integer(row, SCHEDULES_LAST_AT));
    schedule->is_paused = record_integer(row, SCHEDULES_IS_PAUSED) != 0;
    if (!is_put && !was_paused && !schedule->is_paused && schedule->next_us != 0 &&
        next_us != schedule->next_us)
        world_violation(world, "a schedule that was not paused was resumed and lost its time");
    schedule->next_us = next_us;
    schedule->moved_ns = world_now_ns(world);
    if (was_paused && !schedule->is_paused)
        cover(world, COVER_SCHEDULE_PAUSED);
}

/* The oldest time that is made up for: the wall time may have gone past more of them than that. */
static int64_t oldest_made_up(int64_t now_us, const struct law_schedule *schedule)
{
    return now_us - now_us % schedule->period_us - (MADE_UP_MAX - 1) * schedule->period_us;
}

/* Up to which time? */
static int64_t moved(struct world *world, const struct node *node, struct law_schedule *schedule,
                     const struct record *row)
{
    int64_t next_us = record_integer(row, SCHEDULES_NEXT_AT),
            for_us = next_us - schedule->period_us, now_us = newest_us(world, node);
    int64_t late = (for_us - schedule->next_us) / schedule->period_us;
    if (next_us % schedule->period_us != 0)
        world_violation(world, "a schedule went on to a time that is none of its");
    if (for_us < schedule->next_us)
        world_violation(world, "a schedule did not move on");
    if (for_us > now_us)
        world_violation(world, "a schedule went by a time that had not come");
    if (str_equal(schedule->missed, S("all")) && late > 0 &&
        for_us > oldest_made_up(now_us, schedule))
        world_violation(world, "a schedule that makes up for all lost %lld times",
                        (long long) late);
    if (late > 0)
        cover(world, COVER_SCHEDULE_MISSED);
    if (unix_us(node) - schedule->next_us > 2 * MINUTE_US && record_has(row, SCHEDULES_LAST_AT))
        cover(world, COVER_SCHEDULE_MADE_UP);
    return for_us;
}

static void started(struct world *world, struct law_schedule *schedule, const struct record *row,
                    int64_t for_us)
{
    int64_t at_us = record_integer(row, SCHEDULES_LAST_AT);
    cover(world, COVER_SCHEDULE_STARTED);
    if (!note_started(world, schedule, at_us))
        world_violation(world, "a schedule started two instances for one time");
    if (at_us != for_us)
        world_violation(world,
                        "a schedule started for %lld and went on to %lld us, its period is "
                        "%lld",
                        (long long) at_us, (long long) record_integer(row, SCHEDULES_NEXT_AT),
                        (long long) schedule->period_us);
}

/* Its time passed without an instance: only for what its policies say. */
static void passed(struct world *world, const struct node *node,
                   const struct law_schedule *schedule, const struct record *row, int64_t for_us)
{
    str why = record_text(row, SCHEDULES_LAST_ERROR);
    bool is_missed = str_starts_with(why, S("missed")),
         is_overlap = str_starts_with(why, S("skip"));
    if (is_missed && !str_equal(schedule->missed, S("skip")))
        world_violation(world, "a schedule passed over a time that it makes up for");
    if (is_missed && newest_us(world, node) - for_us <= MINUTE_US)
        world_violation(world, "a schedule took a time for missed that had just come");
    if (is_overlap && !str_equal(schedule->overlap, S("skip")))
        world_violation(world, "a schedule passed over a time for an instance that it allows");
    if (!is_missed && !is_overlap)
        world_violation(world, "a schedule could not start an instance: " STR_FMT, STR_ARG(why));
    cover(world, is_missed ? COVER_SCHEDULE_MISSED : COVER_SCHEDULE_OVERLAP);
}

/* The wall time went back, and the schedule was put or resumed: only past a time that has its instance. */
static void gone_by(struct world *world, const struct law_schedule *schedule, int64_t for_us)
{
    if (!map_find(schedule->started, str_printf(world->arena, "%lld", (long long) for_us)))
        world_violation(world, "a schedule went by a time that has no instance");
}

/* Nobody would miss a schedule that stands still. */
static void not_forgotten(struct world *world, const struct law_schedule *schedule)
{
    int64_t now_ns = world_now_ns(world), late_us = INT64_MAX;
    if (schedule->next_us == 0 || now_ns - laws_of(world)->unrest_ns < HELD_UP_NS ||
        now_ns - schedule->moved_ns < HELD_UP_NS)
        return;
    for (int i = 0; i < world->node_count; i++) {
        int64_t node_late_us = unix_us(&world->nodes[i]) - schedule->next_us;
        late_us = node_late_us < late_us ? node_late_us : late_us;
    }
    if (late_us > HELD_UP_NS / 1000)
        world_violation(world, "a time of a schedule is due for %lld s and was not started",
                        (long long) (late_us / 1000000));
}

static void tell(const struct world *world, const struct node *node, const struct write *write)
{
    const struct record *row = &write->record;
    world_tell(world, "schedule " STR_FMT " is %s: last %lld, next %lld s, %s %lld s " STR_FMT,
               STR_ARG(record_text(row, SCHEDULES_NAME)),
               !node                                  ? "read again"
               : write->op == WRITE_DELETE            ? "removed"
               : record_has(row, SCHEDULES_IS_PAUSED) ? "put, paused or resumed"
               : record_has(row, SCHEDULES_LAST_AT)   ? "started"
                                                      : "passed",
               (long long) record_integer(row, SCHEDULES_LAST_AT) / 1000000,
               (long long) record_integer(row, SCHEDULES_NEXT_AT) / 1000000,
               node ? node->name : "the disk", node ? (long long) unix_us(node) / 1000000 : 0,
               STR_ARG(record_text(row, SCHEDULES_LAST_ERROR)));
}

void law_schedules_deinit(struct laws *laws)
{
    size_t position = 0;
    void *value;
    while (map_next(laws->schedules, &position, NULL, &value))
        map_destroy(((struct law_schedule *) value)->started);
    map_destroy(laws->schedules);
}

static struct law_schedule *schedule_of(struct world *world, str name)
{
    struct laws *laws = laws_of(world);
    struct law_schedule *schedule = map_find(laws->schedules, name);
    if (schedule)
        return schedule;
    schedule = ARENA_NEW(world->arena, struct law_schedule);
    schedule->started = map_create();
    map_put(laws->schedules, name, schedule);
    return schedule;
}

void law_schedule_write(struct world *world, const struct node *node, const struct write *write)
{
    const struct record *row = &write->record;
    struct law_schedule *schedule = schedule_of(world, record_text(row, SCHEDULES_NAME));
    tell(world, node, write);
    if (node && (write->op == WRITE_DELETE || row->has & 1u << SCHEDULES_IS_PAUSED))
        not_forgotten(world, schedule);
    if (write->op == WRITE_DELETE)
        return;
    if (write_is_insert(write->op) || row->has & 1u << SCHEDULES_IS_PAUSED) {
        put(world, schedule, row);
        return;
    }
    if (schedule->is_paused)
        world_violation(world, "a schedule that is paused moved on");
    int64_t for_us = moved(world, node, schedule, row);
    if (record_has(row, SCHEDULES_LAST_AT))
        started(world, schedule, row, for_us);
    else if (record_has(row, SCHEDULES_LAST_ERROR))
        passed(world, node, schedule, row, for_us);
    else
        gone_by(world, schedule, for_us);
    schedule->next_us = record_integer(row, SCHEDULES_NEXT_AT);
    schedule->moved_ns = world_now_ns(world);
}
