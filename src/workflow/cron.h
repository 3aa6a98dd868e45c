/*
 * Cron: when a schedule is due, in a time zone.
 *
 *      minute hour day month weekday        "30 9 * * mon-fri"   "0,30 8-18/2 1,L jan *"
 *
 * Fields: `*`, numbers, ranges, lists, steps (`*`/15, 8-18/2, 5/10), names of months and weekdays (three letters; 0 and 7 are Sunday), `L` as
 * a day: the month's last.  When both day and weekday are limited, either will do.  @hourly @daily @midnight @weekly @monthly @yearly @annually.
 *
 * When clocks change: a schedule whose hour is `*` follows the clock that always runs: it comes every hour, none twice and none left out.
 * Any other comes once for each time it names: a time that the wall's clock skips comes at the moment it skips (once, however many
 * were skipped), a time that it shows twice comes the first time.
 * Pure; by value.
 */
#ifndef NEXUS_WORKFLOW_CRON_H
#define NEXUS_WORKFLOW_CRON_H

#include "workflow/zone.h"

struct cron {
    uint64_t minutes;            /* bit n: minute n */
    uint32_t hours, days;        /* days: bits 1..31 */
    uint16_t months;             /* bits 1..12 */
    uint8_t weekdays;            /* bits 0 (Sunday)..6 */
    bool has_last_day;           /* L */
    bool has_days, has_weekdays; /* limited */
    bool is_every_hour;          /* hour is `*` */
};
/* REASON_INVALID: which field, and what fits. */
must_check bool cron_parse(str text, struct cron *out, struct error *e);
/* The first time after `after_us`; both in microseconds since 1970.  False: it never comes (31 February). */
must_check bool cron_next(const struct cron *cron, const struct zone *zone, int64_t after_us,
                          int64_t *out_us);

#endif
