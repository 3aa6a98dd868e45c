/*
 * Time as text: RFC 3339 in UTC with microseconds ("2026-11-23T04:05:06.000007Z") and sizes/durations of the
 * configuration ("10MB", "64MiB", "30s", "5m", "250ms").
 */
#ifndef NEXUS_BASE_TIMEFMT_H
#define NEXUS_BASE_TIMEFMT_H

#include "base/str.h"

enum { TIME_TEXT_BYTES = 27 };
void time_format(int64_t unix_us, char out[TIME_TEXT_BYTES + 1]);
str time_str(struct arena *arena, int64_t unix_us);
bool time_parse(str text, int64_t *unix_us);    /* RFC 3339 with any offset */
bool duration_parse(str text, int64_t *out_ms); /* ms, s, m, h, d; a bare number is refused */
bool bytes_parse(
    str text,
    int64_t *out_bytes); /* B, KB, MB, GB (1000s), KiB, MiB, GiB (1024s); a bare number is bytes */
bool money_parse_usd(
    str text, int64_t *out_nanousd); /* decimal "5", "0.25", "5usd"; at most 9 fraction digits */
str money_format_usd(struct arena *arena,
                     int64_t nanousd); /* "0.001234567": no trailing zeros beyond two digits */

#endif
