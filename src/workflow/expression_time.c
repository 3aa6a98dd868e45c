/*
 * Times and durations of expressions, as CEL has them: to the microsecond, in UTC unless an offset is given.  In JSON, and so in lists,
 * maps and results, they are texts: "2026-12-24T18:00:00Z", "5400s".
 */
#include "base/arena.h"
#include "base/timefmt.h"
#include "workflow/expression_internal.h"

#define US_PER_SECOND INT64_C(1000000)
#define US_PER_MINUTE (60 * US_PER_SECOND)
#define US_PER_HOUR (60 * US_PER_MINUTE)
#define US_PER_DAY (24 * US_PER_HOUR)
#define TIME_FIRST_US (INT64_C(-62135596800) * US_PER_SECOND)    /* 0001-01-01T00:00:00Z */
#define TIME_LAST_US (INT64_C(253402300800) * US_PER_SECOND - 1) /* 9999-12-31T23:59:59.999999Z */
#define DURATION_MAX_US (INT64_C(315576000000) * US_PER_SECOND)  /* 10,000 years */

static bool no_overload(struct error *e, const char *wanted, const struct value *found)
{
    return error_set(e, REASON_EXPRESSION, "takes %s, not %s", wanted,
                     value_kind_name(found->kind));
}

/* ---- values ---- */

static bool time_value(int64_t us, struct value *out, struct error *e)
{
    if (us < TIME_FIRST_US || us > TIME_LAST_US)
        return error_set(e, REASON_EXPRESSION, "the time is not of the years 1 to 9999");
    *out = (struct value){.kind = VALUE_TIMESTAMP, .integer = us};
    return true;
}

static bool duration_value(int64_t us, struct value *out, struct error *e)
{
    if (us < -DURATION_MAX_US || us > DURATION_MAX_US)
        return error_set(e, REASON_EXPRESSION, "the duration is over 10,000 years");
    *out = (struct value){.kind = VALUE_DURATION, .integer = us};
    return true;
}

static str time_text(struct arena *arena, int64_t us)
{
    char text[TIME_TEXT_BYTES + 1];
    time_format(us, text);
    str shown = str_of(text, TIME_TEXT_BYTES - 1); /* without the Z */
    while (str_ends_with(shown, S("0")) && us % US_PER_SECOND != 0)
        shown.len--;
    if (us % US_PER_SECOND == 0)
        shown.len -= sizeof ".000000" - 1;
    return str_printf(arena, STR_FMT "Z", STR_ARG(shown));
}

static str duration_text(struct arena *arena, int64_t us)
{
    const char *sign = us < 0 ? "-" : "";
    int64_t whole = us / US_PER_SECOND, rest = us % US_PER_SECOND;
    whole = whole < 0 ? -whole : whole;
    rest = rest < 0 ? -rest : rest;
    if (rest == 0)
        return str_printf(arena, "%s%llds", sign, (long long) whole);
    str text = str_printf(arena, "%s%lld.%06lld", sign, (long long) whole, (long long) rest);
    while (str_ends_with(text, S("0")))
        text.len--;
    return str_printf(arena, STR_FMT "s", STR_ARG(text));
}

str value_time_text(struct arena *arena, const struct value *value)
{
    return value->kind == VALUE_TIMESTAMP ? time_text(arena, value->integer)
                                          : duration_text(arena, value->integer);
}

/* ---- reading durations ---- */

struct unit {
    str name;
    int64_t ns;
};
static const struct unit units[] = {
    {S_INIT("ms"), 1000000},    {S_INIT("us"), 1000},          {S_INIT("\u00b5s"), 1000},
    {S_INIT("ns"), 1},          {S_INIT("d"), 86400000000000}, {S_INIT("h"), 3600000000000},
    {S_INIT("m"), 60000000000}, {S_INIT("s"), 1000000000},
};

static bool take_digit(str *text, int *digit)
{
    if (text->len == 0 || text->ptr[0] < '0' || text->ptr[0] > '9')
        return false;
    *digit = text->ptr[0] - '0';
    *text = str_from(*text, 1);
    return true;
}

static const struct unit *take_unit(str *text)
{
    for (size_t i = 0; i < ARRAY_COUNT(units); i++) {
        if (!str_starts_with(*text, units[i].name))
            continue;
        *text = str_from(*text, units[i].name.len);
        return &units[i];
    }
    return NULL;
}

/* A number with a unit: 90m, 1.5h, .5s.  Nanoseconds; what is smaller is dropped. */
static bool take_part(str *text, __int128 *ns)
{
    enum { DIGITS_MAX = 18 };
    int64_t whole = 0, fraction = 0, scale = 1;
    int digit, count = 0;
    for (; take_digit(text, &digit); count++) {
        if (count == DIGITS_MAX)
            return false;
        whole = whole * 10 + digit;
    }
    bool has_point = str_starts_with(*text, S("."));
    if (has_point)
        *text = str_from(*text, 1);
    for (; has_point && take_digit(text, &digit); count++)
        if (scale < INT64_C(1000000000000000)) {
            fraction = fraction * 10 + digit;
            scale *= 10;
        }
    const struct unit *unit = count > 0 ? take_unit(text) : NULL;
    if (!unit)
        return false;
    *ns += (__int128) whole * unit->ns + (__int128) fraction * unit->ns / scale;
    return true;
}

bool expression_duration(str text, int64_t *us)
{
    __int128 ns = 0;
    bool is_negative = str_starts_with(text, S("-"));
    if (is_negative || str_starts_with(text, S("+")))
        text = str_from(text, 1);
    if (str_equal(text, S("0"))) {
        *us = 0;
        return true;
    }
    do {
        if (!take_part(&text, &ns) || ns > (__int128) DURATION_MAX_US * 1000)
            return false;
    } while (text.len > 0);
    *us = (int64_t) (ns / 1000);
    if (is_negative)
        *us = -*us;
    return true;
}

/* ---- making them ---- */

static bool no_time(str text, struct error *e)
{
    return error_set(e, REASON_EXPRESSION,
                     "\"" STR_FMT "\" is no time such as 2026-12-24T18:00:00Z",
                     STR_ARG(str_cut_utf8(text, 40)));
}

static bool no_duration(str text, struct error *e)
{
    return error_set(e, REASON_EXPRESSION,
                     "\"" STR_FMT "\" is no duration such as 90s, 1h30m or 7d",
                     STR_ARG(str_cut_utf8(text, 40)));
}

bool expression_check_time(str text, struct arena *arena, struct error *e)
{
    int64_t us;
    (void) arena;
    return time_parse(text, &us) || no_time(text, e);
}

bool expression_check_duration(str text, struct arena *arena, struct error *e)
{
    int64_t us;
    (void) arena;
    return expression_duration(text, &us) || no_duration(text, e);
}

/* timestamp("2026-12-24T18:00:00Z"), timestamp(seconds since 1970) */
bool call_timestamp(struct work *work, const struct value *arguments, size_t count,
                    struct value *out, struct error *e)
{
    int64_t us;
    (void) work;
    (void) count;
    if (arguments->kind == VALUE_TIMESTAMP) {
        *out = *arguments;
        return true;
    }
    if (arguments->kind == VALUE_INTEGER)
        return time_value(__builtin_mul_overflow(arguments->integer, US_PER_SECOND, &us) ? INT64_MAX
                                                                                         : us,
                          out, e);
    if (arguments->kind != VALUE_STRING)
        return no_overload(e, "a string or an int", arguments);
    return time_parse(arguments->text, &us) ? time_value(us, out, e) : no_time(arguments->text, e);
}

bool call_duration(struct work *work, const struct value *arguments, size_t count,
                   struct value *out, struct error *e)
{
    int64_t us;
    (void) work;
    (void) count;
    if (arguments->kind == VALUE_DURATION) {
        *out = *arguments;
        return true;
    }
    if (arguments->kind != VALUE_STRING)
        return no_overload(e, "a string", arguments);
    return expression_duration(arguments->text, &us) ? duration_value(us, out, e)
                                                     : no_duration(arguments->text, e);
}

/* ---- arithmetic ---- */

bool expression_time_arithmetic(enum op op, const struct value *a, const struct value *b,
                                struct value *out, bool *is_done, struct error *e)
{
    int64_t us = 0; /* both are far from the bounds of 64 bits */
    bool is_time_a = a->kind == VALUE_TIMESTAMP, is_time_b = b->kind == VALUE_TIMESTAMP;
    bool is_duration_a = a->kind == VALUE_DURATION, is_duration_b = b->kind == VALUE_DURATION;
    *is_done = false;
    if ((op != OP_ADD && op != OP_SUBTRACT) || (!is_time_a && !is_duration_a) ||
        (!is_time_b && !is_duration_b))
        return true;
    us = op == OP_ADD ? a->integer + b->integer : a->integer - b->integer;
    if (is_duration_a && is_duration_b) {
        *is_done = true;
        return duration_value(us, out, e);
    }
    if (is_time_a && is_time_b && op == OP_SUBTRACT) {
        *is_done = true;
        return duration_value(us, out, e);
    }
    if ((is_time_a && is_duration_b) || (is_duration_a && is_time_b && op == OP_ADD)) {
        *is_done = true;
        return time_value(us, out, e);
    }
    return true;
}

/* ---- parts ---- */

struct calendar {
    int year, month, day; /* month from 1, day from 1 */
    int64_t days;         /* since 1970-01-01 */
    int64_t us_of_day;
};

static int digits_of(const char *text, int count)
{
    int value = 0;
    for (int i = 0; i < count; i++)
        value = value * 10 + (text[i] - '0');
    return value;
}

static struct calendar calendar_of(int64_t us)
{
    char text[TIME_TEXT_BYTES + 1];
    int64_t us_of_day = us % US_PER_DAY;
    us_of_day += us_of_day < 0 ? US_PER_DAY : 0;
    time_format(us, text);
    return (struct calendar){
        .year = digits_of(text, 4),
        .month = digits_of(text + 5, 2),
        .day = digits_of(text + 8, 2),
        .days = (us - us_of_day) / US_PER_DAY,
        .us_of_day = us_of_day,
    };
}

/* "+02:00", "-08:00", "05:30", "UTC" */
static bool read_offset(const struct value *zone, int64_t *us, struct error *e)
{
    str text = zone->text;
    int hours, minutes;
    *us = 0;
    if (zone->kind != VALUE_STRING)
        return no_overload(e, "an offset such as \"+02:00\"", zone);
    if (str_equal(text, S("UTC")) || str_equal(text, S("Z")))
        return true;
    bool is_negative = str_starts_with(text, S("-"));
    if (is_negative || str_starts_with(text, S("+")))
        text = str_from(text, 1);
    bool has_form = text.len == 5 && text.ptr[2] == ':';
    for (size_t i = 0; has_form && i < text.len; i++)
        has_form = i == 2 || (text.ptr[i] >= '0' && text.ptr[i] <= '9');
    hours = has_form ? digits_of(text.ptr, 2) : 99;
    minutes = has_form ? digits_of(text.ptr + 3, 2) : 99;
    if (hours > 14 || minutes > 59)
        return error_set(
            e, REASON_EXPRESSION,
            "a zone is UTC or an offset such as +02:00: the rules behind names change, "
            "and what was computed once must be computed again");
    *us = hours * US_PER_HOUR + minutes * US_PER_MINUTE;
    if (is_negative)
        *us = -*us;
    return true;
}

static bool find_calendar(const struct value *arguments, size_t count, struct calendar *out,
                          struct error *e)
{
    int64_t offset_us = 0;
    struct value shifted = {0};
    if (arguments->kind != VALUE_TIMESTAMP)
        return no_overload(e, "a timestamp", arguments);
    if ((count == 2 && !read_offset(arguments + 1, &offset_us, e)) ||
        !time_value(arguments->integer + offset_us, &shifted, e))
        return false;
    *out = calendar_of(shifted.integer);
    return true;
}

static int64_t day_of_year(const struct calendar *calendar)
{
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int year = calendar->year;
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return before[calendar->month - 1] + (is_leap && calendar->month > 2) + calendar->day - 1;
}

enum part {
    PART_YEAR,
    PART_MONTH, /* from 0, as all but PART_DATE and PART_YEAR */
    PART_DATE,
    PART_DAY_OF_MONTH,
    PART_DAY_OF_WEEK, /* 0: Sunday */
    PART_DAY_OF_YEAR,
    PART_HOURS,
    PART_MINUTES,
    PART_SECONDS,
    PART_MILLISECONDS,
};

static int64_t part_of_time(const struct calendar *calendar, enum part part)
{
    int64_t us = calendar->us_of_day, day = (calendar->days + 4) % 7; /* 1970 began on a Thursday */
    switch (part) {
    case PART_YEAR: return calendar->year;
    case PART_MONTH: return calendar->month - 1;
    case PART_DATE: return calendar->day;
    case PART_DAY_OF_MONTH: return calendar->day - 1;
    case PART_DAY_OF_WEEK: return day < 0 ? day + 7 : day;
    case PART_DAY_OF_YEAR: return day_of_year(calendar);
    case PART_HOURS: return us / US_PER_HOUR;
    case PART_MINUTES: return us / US_PER_MINUTE % 60;
    case PART_SECONDS: return us / US_PER_SECOND % 60;
    case PART_MILLISECONDS: break;
    }
    return us / 1000 % 1000;
}

/* The whole duration in hours, minutes, seconds; of milliseconds those past the second, as in CEL. */
static int64_t part_of_duration(int64_t us, enum part part)
{
    return part == PART_HOURS     ? us / US_PER_HOUR
           : part == PART_MINUTES ? us / US_PER_MINUTE
           : part == PART_SECONDS ? us / US_PER_SECOND
                                  : us / 1000 % 1000;
}

static bool get_part(const struct value *arguments, size_t count, enum part part, struct value *out,
                     struct error *e)
{
    struct calendar calendar = {0};
    if (arguments->kind == VALUE_DURATION && part >= PART_HOURS && count == 1) {
        *out = value_of_integer(part_of_duration(arguments->integer, part));
        return true;
    }
    if (!find_calendar(arguments, count, &calendar, e))
        return false;
    *out = value_of_integer(part_of_time(&calendar, part));
    return true;
}

bool call_get_full_year(struct work *work, const struct value *arguments, size_t count,
                        struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_YEAR, out, e);
}

bool call_get_month(struct work *work, const struct value *arguments, size_t count,
                    struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_MONTH, out, e);
}

bool call_get_date(struct work *work, const struct value *arguments, size_t count,
                   struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_DATE, out, e);
}

bool call_get_day_of_month(struct work *work, const struct value *arguments, size_t count,
                           struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_DAY_OF_MONTH, out, e);
}

bool call_get_day_of_week(struct work *work, const struct value *arguments, size_t count,
                          struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_DAY_OF_WEEK, out, e);
}

bool call_get_day_of_year(struct work *work, const struct value *arguments, size_t count,
                          struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_DAY_OF_YEAR, out, e);
}

bool call_get_hours(struct work *work, const struct value *arguments, size_t count,
                    struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_HOURS, out, e);
}

bool call_get_minutes(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_MINUTES, out, e);
}

bool call_get_seconds(struct work *work, const struct value *arguments, size_t count,
                      struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_SECONDS, out, e);
}

bool call_get_milliseconds(struct work *work, const struct value *arguments, size_t count,
                           struct value *out, struct error *e)
{
    (void) work;
    return get_part(arguments, count, PART_MILLISECONDS, out, e);
}
