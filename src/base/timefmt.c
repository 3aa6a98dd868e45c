#include "base/timefmt.h"

#include "base/arena.h"

#include <stdio.h>

#define US_PER_SECOND INT64_C(1000000)
#define SECONDS_PER_DAY INT64_C(86400)
#define TIME_MIN_US (INT64_C(-62167219200) * US_PER_SECOND)     /* 0000-01-01T00:00:00Z */
#define TIME_MAX_US (INT64_C(253402300800) * US_PER_SECOND - 1) /* 9999-12-31T23:59:59.999999Z */

/*
 * ---- the calendar: Howard Hinnant's days_from_civil and civil_from_days; March is the first month
 * of their year ----
 */

static int64_t days_from_date(int64_t year, int64_t month, int64_t day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    int64_t year_of_era = year - era * 400;
    int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + day_of_era - 719468;
}

static void date_from_days(int64_t days, int *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    int64_t day_of_era = days - era * 146097;
    int64_t year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    int64_t month_index = (5 * day_of_year + 2) / 153;
    *day = (int) (day_of_year - (153 * month_index + 2) / 5 + 1);
    *month = (int) (month_index < 10 ? month_index + 3 : month_index - 9);
    *year = (int) (year_of_era + era * 400 + (*month <= 2));
}

static int days_in_month(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && is_leap);
}

/* ---- times ---- */

static char *put_digits(char *to, int count, int64_t value)
{
    for (int i = count - 1; i >= 0; i--) {
        to[i] = (char) ('0' + value % 10);
        value /= 10;
    }
    return to + count;
}

/* What has no four-digit year is shown as the nearest time that has one. */
void time_format(int64_t unix_us, char out[TIME_TEXT_BYTES + 1])
{
    int year, month, day;
    if (unix_us < TIME_MIN_US)
        unix_us = TIME_MIN_US;
    if (unix_us > TIME_MAX_US)
        unix_us = TIME_MAX_US;
    int64_t us_of_day = unix_us % (SECONDS_PER_DAY * US_PER_SECOND);
    if (us_of_day < 0)
        us_of_day += SECONDS_PER_DAY * US_PER_SECOND;
    date_from_days((unix_us - us_of_day) / (SECONDS_PER_DAY * US_PER_SECOND), &year, &month, &day);
    int64_t second = us_of_day / US_PER_SECOND;
    char *p = put_digits(out, 4, year);
    *p++ = '-';
    p = put_digits(p, 2, month);
    *p++ = '-';
    p = put_digits(p, 2, day);
    *p++ = 'T';
    p = put_digits(p, 2, second / 3600);
    *p++ = ':';
    p = put_digits(p, 2, second / 60 % 60);
    *p++ = ':';
    p = put_digits(p, 2, second % 60);
    *p++ = '.';
    p = put_digits(p, 6, us_of_day % US_PER_SECOND);
    *p++ = 'Z';
    *p = '\0';
}

str time_str(struct arena *arena, int64_t unix_us)
{
    char *text = arena_alloc_raw(arena, TIME_TEXT_BYTES + 1);
    time_format(unix_us, text);
    return str_of(text, TIME_TEXT_BYTES);
}

static bool take_digits(str *text, size_t count, int *out)
{
    int value = 0;
    if (text->len < count)
        return false;
    for (size_t i = 0; i < count; i++) {
        if (text->ptr[i] < '0' || text->ptr[i] > '9')
            return false;
        value = value * 10 + (text->ptr[i] - '0');
    }
    *out = value;
    *text = str_from(*text, count);
    return true;
}

static bool take_char(str *text, char upper, char lower)
{
    if (text->len == 0 || (text->ptr[0] != upper && text->ptr[0] != lower))
        return false;
    *text = str_from(*text, 1);
    return true;
}

static bool take_date(str *text, int64_t *days)
{
    int year, month, day;
    if (!take_digits(text, 4, &year) || !take_char(text, '-', '-') ||
        !take_digits(text, 2, &month) || !take_char(text, '-', '-') || !take_digits(text, 2, &day))
        return false;
    if (month < 1 || month > 12 || day < 1 || day > days_in_month(year, month))
        return false;
    *days = days_from_date(year, month, day);
    return true;
}

/* Digits past the microsecond are checked and dropped. */
static bool take_fraction(str *text, int64_t *us)
{
    *us = 0;
    if (!take_char(text, '.', '.'))
        return true;
    size_t digits = 0;
    for (int digit; take_digits(text, 1, &digit); digits++) {
        if (digits < 6)
            *us = *us * 10 + digit;
    }
    for (size_t i = digits; i < 6; i++)
        *us *= 10;
    return digits > 0;
}

static bool take_offset(str *text, int64_t *seconds)
{
    int hours, minutes;
    *seconds = 0;
    if (take_char(text, 'Z', 'z'))
        return true;
    bool is_negative = text->len > 0 && text->ptr[0] == '-';
    if (!take_char(text, '+', '-') || !take_digits(text, 2, &hours) || !take_char(text, ':', ':') ||
        !take_digits(text, 2, &minutes) || hours > 23 || minutes > 59)
        return false;
    *seconds = hours * 3600 + minutes * 60;
    if (is_negative)
        *seconds = -*seconds;
    return true;
}

/* A leap second (only ever 23:59:60 UTC) reads as the second after it, as in POSIX time. */
static bool leap_second_is_lawful(int64_t unix_second, int second)
{
    int64_t of_day = unix_second % SECONDS_PER_DAY;
    return second < 60 || of_day == 0;
}

bool time_parse(str text, int64_t *unix_us)
{
    int64_t days, us, offset_s;
    int hour, minute, second;
    if (!take_date(&text, &days) || !take_char(&text, 'T', 't') || !take_digits(&text, 2, &hour) ||
        !take_char(&text, ':', ':') || !take_digits(&text, 2, &minute) ||
        !take_char(&text, ':', ':') || !take_digits(&text, 2, &second) ||
        !take_fraction(&text, &us) || !take_offset(&text, &offset_s) || text.len > 0)
        return false;
    if (hour > 23 || minute > 59 || second > 60)
        return false;
    int64_t unix_second = days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset_s;
    if (!leap_second_is_lawful(unix_second, second))
        return false;
    *unix_us = unix_second * US_PER_SECOND + us;
    return true;
}

/* ---- amounts with a unit ---- */

struct unit {
    str name;
    int64_t factor;
};

static bool parse_with_unit(str text, const struct unit *units, size_t unit_count, int64_t *out)
{
    size_t digits = 0;
    uint64_t amount;
    while (digits < text.len && text.ptr[digits] >= '0' && text.ptr[digits] <= '9')
        digits++;
    if (!str_to_u64(str_slice(text, 0, digits), &amount) || amount > INT64_MAX)
        return false;
    str name = str_from(text, digits);
    for (size_t i = 0; i < unit_count; i++) {
        int64_t product;
        if (!str_equal(name, units[i].name))
            continue;
        if (__builtin_mul_overflow((int64_t) amount, units[i].factor, &product))
            return false;
        *out = product;
        return true;
    }
    return false;
}

bool duration_parse(str text, int64_t *out_ms)
{
    static const struct unit units[] = {{S_INIT("ms"), 1},
                                        {S_INIT("s"), 1000},
                                        {S_INIT("m"), 60 * 1000},
                                        {S_INIT("h"), 3600 * 1000},
                                        {S_INIT("d"), 24 * 3600 * 1000}};
    return parse_with_unit(text, units, ARRAY_COUNT(units), out_ms);
}

bool bytes_parse(str text, int64_t *out_bytes)
{
    static const struct unit units[] = {
        {S_INIT(""), 1},          {S_INIT("B"), 1},         {S_INIT("KB"), 1000},
        {S_INIT("kB"), 1000},     {S_INIT("MB"), 1000000},  {S_INIT("GB"), 1000000000},
        {S_INIT("KiB"), 1 << 10}, {S_INIT("MiB"), 1 << 20}, {S_INIT("GiB"), 1 << 30},
    };
    return parse_with_unit(text, units, ARRAY_COUNT(units), out_bytes);
}

/* ---- money: integers all the way, a fraction of nine digits is exactly a nano-dollar ---- */

enum { NANO_DIGITS = 9 };
#define NANOUSD_PER_USD INT64_C(1000000000)

bool money_parse_usd(str text, int64_t *out_nanousd)
{
    str whole, fraction;
    uint64_t dollars, nano = 0;
    int64_t amount;
    if (str_ends_with(text, S("usd")))
        text = str_slice(text, 0, text.len - 3);
    bool has_fraction = str_cut(text, '.', &whole, &fraction);
    if (!str_to_u64(whole, &dollars) || dollars > INT64_MAX)
        return false;
    if (has_fraction) {
        if (fraction.len > NANO_DIGITS || !str_to_u64(fraction, &nano))
            return false;
        for (size_t i = fraction.len; i < NANO_DIGITS; i++)
            nano *= 10;
    }
    if (__builtin_mul_overflow((int64_t) dollars, NANOUSD_PER_USD, &amount) ||
        __builtin_add_overflow(amount, (int64_t) nano, &amount))
        return false;
    *out_nanousd = amount;
    return true;
}

str money_format_usd(struct arena *arena, int64_t nanousd)
{
    uint64_t magnitude = nanousd < 0 ? 0 - (uint64_t) nanousd : (uint64_t) nanousd;
    char fraction[NANO_DIGITS + 1] = {0};
    put_digits(fraction, NANO_DIGITS, (int64_t) (magnitude % (uint64_t) NANOUSD_PER_USD));
    int digits = NANO_DIGITS;
    while (digits > 2 && fraction[digits - 1] == '0')
        digits--;
    return str_printf(arena, "%s%llu.%.*s", nanousd < 0 ? "-" : "",
                      (unsigned long long) (magnitude / (uint64_t) NANOUSD_PER_USD), digits,
                      fraction);
}
