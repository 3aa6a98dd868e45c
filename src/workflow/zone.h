/*
 * Time zones: what the clock on the wall shows, by the system's tzdata (TZif files, RFC 8536), without the C library's one global zone.
 *
 * Reading a file's bytes is pure; fetching them (from the folder of zones) is the caller's business.  Times past the file's last change follow the
 * rule at its end ("CET-1CEST,M3.5.0,M10.5.0/3").  Leap seconds are not counted, as everywhere in Unix time.
 * Thread: a zone is immutable.
 */
#ifndef NEXUS_WORKFLOW_ZONE_H
#define NEXUS_WORKFLOW_ZONE_H

#include "base/error.h"

struct zone;
/* "Europe/Berlin": letters, digits, _ + - in parts, at most 64 bytes; never a way out of the folder of zones. */
bool zone_name_is_lawful(str name);
/* The bytes of a TZif file of version 2 or later; REASON_CORRUPT. */
must_check bool zone_read(struct arena *arena, str bytes, const struct zone **out, struct error *e);
/* A rule as POSIX TZ writes it; REASON_INVALID. */
must_check bool zone_of_rule(struct arena *arena, str rule, const struct zone **out,
                             struct error *e);
const struct zone *zone_utc(void);

/* Seconds that the wall is ahead of UTC at this time (seconds since 1970). */
int64_t zone_offset_s(const struct zone *zone, int64_t unix_s);
/* When the wall shows this time (as if it were UTC): the first time of two; of none, the moment the clock was put forward. */
int64_t zone_from_wall(const struct zone *zone, int64_t wall_s);

/* Days since 1970-01-01 of a date of the Gregorian calendar, and back. */
int64_t days_of_date(int64_t year, int month, int day);
void date_of_days(int64_t days, int64_t *year, int *month, int *day);

#endif
