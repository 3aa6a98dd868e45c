#include "orchestrator/ledger/budget_period.h"
#include "base/timefmt.h"

#define DAY_US (86400ll * 1000000)
enum { NAME_BYTES_DAY = 10, NAME_BYTES_MONTH = 7 };

const char *period_text(enum period period)
{
    return period == PERIOD_DAY ? "day" : period == PERIOD_MONTH ? "month" : "";
}

bool period_parse(str text, enum period *out)
{
    for (int i = PERIOD_NONE; i <= PERIOD_MONTH; i++) {
        if (!str_equal(text, str_from_cstr(period_text((enum period) i))))
            continue;
        *out = (enum period) i;
        return true;
    }
    return false;
}

static int64_t day_of(int64_t at_us)
{
    int64_t day = at_us / DAY_US;
    return at_us % DAY_US < 0 ? day - 1 : day;
}

/* Of the month: a day's text says which one of the month it is. */
static int64_t day_in_month(int64_t day)
{
    char text[TIME_TEXT_BYTES + 1];
    time_format(day * DAY_US, text);
    return (text[8] - '0') * 10 + (text[9] - '0');
}

void period_bounds(enum period period, int64_t at_us, int64_t *start_us, int64_t *end_us)
{
    int64_t day = day_of(at_us);
    *start_us = INT64_MIN;
    *end_us = INT64_MAX;
    if (period == PERIOD_NONE)
        return;
    int64_t first = day, next = day + 1;
    if (period == PERIOD_MONTH) {
        first = day - day_in_month(day) + 1;
        next = first + 28;
        while (day_in_month(next) != 1)
            next++;
    }
    *start_us = first * DAY_US;
    *end_us = next * DAY_US;
}

str period_name(enum period period, int64_t since_us, int64_t at_us, char out[PERIOD_NAME_BYTES])
{
    char text[TIME_TEXT_BYTES + 1];
    int64_t start_us, end_us;
    period_bounds(period, at_us, &start_us, &end_us);
    bool is_whole = since_us <= start_us;
    size_t bytes = period == PERIOD_NONE  ? 0
                   : !is_whole            ? TIME_TEXT_BYTES
                   : period == PERIOD_DAY ? NAME_BYTES_DAY
                                          : NAME_BYTES_MONTH;
    time_format(is_whole ? at_us : since_us, text);
    memcpy(out, text, bytes);
    return str_of(out, bytes);
}
