#include "civil.h"

#include <stdio.h>

static const int64_t US_PER_SECOND = 1000000;
static const int64_t US_PER_DAY = 86400 * (int64_t) 1000000;

const char *const civil_weekday_names[8] = {"",         "Monday", "Tuesday",  "Wednesday",
                                            "Thursday", "Friday", "Saturday", "Sunday"};
const char *const civil_month_names[13] = {"",        "January",  "February", "March",  "April",
                                           "May",     "June",     "July",     "August", "September",
                                           "October", "November", "December"};

static bool is_leap(int year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

int civil_month_days(int year, int month)
{
    static const int days[13] = {0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month == 2 && is_leap(year) ? 29 : days[month];
}

/* Counts in 400-year eras whose years start in March, so that the leap day comes last. */
int64_t civil_days(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t year_of_era = y - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void from_days(int64_t days, struct civil *out)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month = (5 * day_of_year + 2) / 153;
    out->day = (int) (day_of_year - (153 * month + 2) / 5 + 1);
    out->month = (int) (month < 10 ? month + 3 : month - 9);
    out->year = (int) (year_of_era + era * 400 + (out->month <= 2));
}

int64_t civil_to_unix_us(const struct civil *c)
{
    int64_t seconds = civil_days(c->year, c->month, c->day) * 86400 + c->hour * 3600 +
                      c->minute * 60 + c->second - (int64_t) c->offset_minutes * 60;
    return seconds * US_PER_SECOND + c->microsecond;
}

bool civil_from_unix_us(int64_t unix_us, int offset_minutes, struct civil *out)
{
    static const int64_t limit_us = 253402300800 * (int64_t) 1000000; /* the year 10000 */
    if (unix_us > limit_us || unix_us < -62135596800 * US_PER_SECOND)
        return false;
    int64_t local = unix_us + offset_minutes * 60 * US_PER_SECOND;
    int64_t days = local >= 0 ? local / US_PER_DAY : -((-local + US_PER_DAY - 1) / US_PER_DAY);
    int64_t rest = local - days * US_PER_DAY;
    struct civil c = {.offset_minutes = offset_minutes, .has_time = true, .has_offset = true};
    from_days(days, &c);
    if (c.year < 1 || c.year > 9999)
        return false;
    c.microsecond = (int) (rest % US_PER_SECOND);
    rest /= US_PER_SECOND;
    c.hour = (int) (rest / 3600);
    c.minute = (int) (rest / 60 % 60);
    c.second = (int) (rest % 60);
    *out = c;
    return true;
}

int civil_weekday(const struct civil *c)
{
    int64_t days = civil_days(c->year, c->month, c->day) + 3; /* 1970-01-01 was a Thursday */
    return (int) ((days % 7 + 7) % 7) + 1;
}

int civil_day_of_year(const struct civil *c)
{
    return (int) (civil_days(c->year, c->month, c->day) - civil_days(c->year, 1, 1)) + 1;
}

static int iso_weeks_in(int year)
{
    struct civil first = {.year = year, .month = 1, .day = 1};
    int weekday = civil_weekday(&first);
    return weekday == 4 || (weekday == 3 && is_leap(year)) ? 53 : 52;
}

void civil_iso_week(const struct civil *c, int *year, int *week)
{
    *year = c->year;
    *week = (civil_day_of_year(c) - civil_weekday(c) + 10) / 7;
    if (*week < 1)
        *week = iso_weeks_in(--*year);
    else if (*week > iso_weeks_in(c->year)) {
        *week = 1;
        ++*year;
    }
}

struct cursor {
    const char *at, *end;
};

/* Reads a number of min to max digits. */
static bool take_number(struct cursor *in, int min, int max, int *out)
{
    int value = 0, digits = 0;
    while (digits < max && in->at < in->end && *in->at >= '0' && *in->at <= '9') {
        value = value * 10 + (*in->at++ - '0');
        digits++;
    }
    *out = value;
    return digits >= min;
}

static bool take(struct cursor *in, char c)
{
    if (in->at == in->end || *in->at != c)
        return false;
    in->at++;
    return true;
}

static bool parse_date(struct cursor *in, enum civil_order order, struct civil *c)
{
    struct cursor start = *in;
    if (take_number(in, 4, 4, &c->year) && (take(in, '-') || take(in, '/'))) {
        char separator = in->at[-1];
        return take_number(in, 1, 2, &c->month) && take(in, separator) &&
               take_number(in, 1, 2, &c->day);
    }
    *in = start;
    int first, second;
    if (!take_number(in, 1, 2, &first) || in->at == in->end)
        return false;
    char separator = *in->at++;
    if (separator == '.')
        order = CIVIL_DAY_FIRST;
    else if (separator != '/' && separator != '-')
        return false;
    if (order == CIVIL_YEAR_FIRST)
        return false;
    if (!take_number(in, 1, 2, &second) || !take(in, separator) || !take_number(in, 4, 4, &c->year))
        return false;
    c->month = order == CIVIL_MONTH_FIRST ? first : second;
    c->day = order == CIVIL_MONTH_FIRST ? second : first;
    return true;
}

static bool parse_fraction(struct cursor *in, struct civil *c)
{
    int scale = 100000, digits = 0;
    for (; in->at < in->end && *in->at >= '0' && *in->at <= '9'; in->at++, digits++) {
        c->microsecond += (*in->at - '0') * scale;
        scale /= 10;
    }
    return digits > 0;
}

static bool parse_offset(struct cursor *in, struct civil *c)
{
    if (take(in, 'Z') || take(in, 'z')) {
        c->has_offset = true;
        return true;
    }
    int sign = take(in, '+') ? 1 : take(in, '-') ? -1 : 0;
    if (sign == 0)
        return true;
    int hours, minutes = 0;
    if (!take_number(in, 2, 2, &hours))
        return false;
    bool has_colon = take(in, ':');
    bool has_minutes = take_number(in, 2, 2, &minutes);
    if ((has_colon && !has_minutes) || hours > 14 || minutes > 59)
        return false;
    c->offset_minutes = sign * (hours * 60 + minutes);
    c->has_offset = true;
    return true;
}

static bool parse_time(struct cursor *in, struct civil *c)
{
    c->has_time = true;
    if (!take_number(in, 1, 2, &c->hour) || !take(in, ':') || !take_number(in, 2, 2, &c->minute))
        return false;
    if (take(in, ':')) {
        if (!take_number(in, 2, 2, &c->second))
            return false;
        if ((take(in, '.') || take(in, ',')) && !parse_fraction(in, c))
            return false;
    }
    if (c->second == 60)
        c->second = 59; /* a leap second has no number of its own */
    return c->hour < 24 && c->minute < 60 && c->second < 60 && parse_offset(in, c);
}

bool civil_parse(const char *ptr, size_t len, enum civil_order order, struct civil *out)
{
    struct cursor in = {ptr, ptr + len};
    struct civil c = {0};
    if (!parse_date(&in, order, &c))
        return false;
    if (in.at < in.end) {
        if (!take(&in, 'T') && !take(&in, 't') && !take(&in, ' '))
            return false;
        if (!parse_time(&in, &c))
            return false;
    }
    if (in.at != in.end || c.year < 1 || c.month < 1 || c.month > 12 || c.day < 1 ||
        c.day > civil_month_days(c.year, c.month))
        return false;
    *out = c;
    return true;
}

void civil_format(const struct civil *c, char *out)
{
    int n = snprintf(out, CIVIL_TEXT_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d", c->year, c->month,
                     c->day, c->hour, c->minute, c->second);
    if (c->microsecond != 0) {
        n += snprintf(out + n, (size_t) (CIVIL_TEXT_BYTES - n), ".%06d", c->microsecond);
        while (out[n - 1] == '0')
            out[--n] = '\0';
    }
    int minutes = c->offset_minutes < 0 ? -c->offset_minutes : c->offset_minutes;
    if (minutes == 0)
        snprintf(out + n, (size_t) (CIVIL_TEXT_BYTES - n), "Z");
    else
        snprintf(out + n, (size_t) (CIVIL_TEXT_BYTES - n), "%c%02d:%02d",
                 c->offset_minutes < 0 ? '-' : '+', minutes / 60, minutes % 60);
}
