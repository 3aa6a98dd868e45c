/*
 * Budget periods: a limit that begins anew each day or month (UTC).  Pure arithmetic on unix microseconds.
 * A period has a name, by which its spending is kept: "2026-11-23" of a day, "2026-11" of a month.  One that began in the middle,
 * because periods were asked for then, has the name of that moment: it is another one than the whole day or month.
 */
#ifndef NEXUS_ORCHESTRATOR_BUDGET_PERIOD_H
#define NEXUS_ORCHESTRATOR_BUDGET_PERIOD_H

#include "base/str.h"

enum period { PERIOD_NONE, PERIOD_DAY, PERIOD_MONTH };
enum { PERIOD_NAME_BYTES = 28 };

const char *period_text(enum period period); /* "day", "month"; "" of none */
/* Empty is PERIOD_NONE. */
bool period_parse(str text, enum period *out);
/* [*start, *end) holds at_us.  Of PERIOD_NONE: all of time. */
void period_bounds(enum period period, int64_t at_us, int64_t *start_us, int64_t *end_us);
/* Of the period that holds at_us, where periods count from since_us; empty of PERIOD_NONE. */
str period_name(enum period period, int64_t since_us, int64_t at_us, char out[PERIOD_NAME_BYTES]);

#endif
