/*
 * Civil dates: days, times and RFC 3339 in the proleptic Gregorian calendar, years 1 to 9999.
 *
 * An instant is microseconds since 1970-01-01T00:00:00Z.  There is no time zone database: an offset is
 * a fixed number of minutes east of UTC.
 */
#ifndef NEXUS_TOOL_CIVIL_H
#define NEXUS_TOOL_CIVIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct civil {
    int year, month, day;     /* 1..9999, 1..12, 1..31 */
    int hour, minute, second; /* 0..23, 0..59, 0..59 */
    int microsecond;          /* 0..999999 */
    int offset_minutes;       /* east of UTC */
    bool has_time, has_offset;
};

/* Order of the numbers in a date like 3/4/2020; year-first dates need none. */
enum civil_order { CIVIL_YEAR_FIRST, CIVIL_MONTH_FIRST, CIVIL_DAY_FIRST };

/* Reads YYYY-MM-DD or YYYY/MM/DD, with an order given also M/D/YYYY or D/M/YYYY, each with an optional
 * time (T or blank, HH:MM[:SS[.fraction]]) and offset (Z or +HH:MM).  DD.MM.YYYY is always day first.
 * The whole text must match and be a real date. */
bool civil_parse(const char *ptr, size_t len, enum civil_order order, struct civil *out);

int64_t civil_days(int year, int month, int day); /* days since 1970-01-01 */
int64_t civil_to_unix_us(const struct civil *c);  /* no offset means UTC */
bool civil_from_unix_us(int64_t unix_us, int offset_minutes,
                        struct civil *out);   /* false: out of range */
int civil_weekday(const struct civil *c);     /* 1 Monday .. 7 Sunday */
int civil_day_of_year(const struct civil *c); /* 1..366 */
void civil_iso_week(const struct civil *c, int *year, int *week);
int civil_month_days(int year, int month);

/* RFC 3339 with as many decimals as needed; `out` needs CIVIL_TEXT_BYTES. */
enum { CIVIL_TEXT_BYTES = 48 };
void civil_format(const struct civil *c, char *out);

extern const char *const civil_weekday_names[8]; /* index 1..7 */
extern const char *const civil_month_names[13];  /* index 1..12 */

#endif
