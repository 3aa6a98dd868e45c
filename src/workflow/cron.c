#include "workflow/cron.h"

enum {
    DAY_S = 86400,
    DAYS_LOOKED_AT = 41 * 366
}; /* 29 February on one weekday comes within 40 years */

/* ---- reading ---- */

struct field {
    const char *name;
    int min, max;
    const char *words; /* three letters each, from `first_word` on */
    int first_word;
};
static const struct field fields[] = {
    {"minute", 0, 59, NULL, 0},
    {"hour", 0, 23, NULL, 0},
    {"day", 1, 31, NULL, 0},
    {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec", 1},
    {"weekday", 0, 7, "sunmontuewedthufrisat", 0},
};
enum { MINUTE, HOUR, DAY, MONTH, WEEKDAY, FIELD_COUNT };

static bool fail(const struct field *field, str piece, struct error *e)
{
    return error_set(e, REASON_INVALID,
                     "\"" STR_FMT "\" is no %s: write *, a number from %d to %d, a range (a-b), a "
                     "step (*/n) or a list of them%s",
                     STR_ARG(str_cut_utf8(piece, 40)), field->name, field->min, field->max,
                     field->words ? ", or names of three letters" : "");
}

static bool read_value(const struct field *field, str text, int *out)
{
    uint64_t number;
    for (int i = 0; field->words && text.len == 3 && field->words[i * 3]; i++) {
        if (str_equal_nocase(text, str_of(field->words + (size_t) i * 3, 3))) {
            *out = field->first_word + i;
            return true;
        }
    }
    if (text.len > 2 || !str_to_u64(text, &number) || (int) number < field->min ||
        (int) number > field->max)
        return false;
    *out = (int) number;
    return true;
}

/* *, a, a-b, each perhaps with /n */
static bool read_piece(const struct field *field, str piece, uint64_t *bits)
{
    str range, step_text, from_text, to_text;
    uint64_t step = 1;
    int from = field->min, to = field->max;
    bool has_step = str_cut(piece, '/', &range, &step_text);
    if (has_step && (!str_to_u64(step_text, &step) || step == 0 || step > (uint64_t) field->max))
        return false;
    if (!str_equal(range, S("*"))) {
        bool has_to = str_cut(range, '-', &from_text, &to_text);
        if (!read_value(field, from_text, &from))
            return false;
        to = has_step ? field->max : from;
        if (has_to && (!read_value(field, to_text, &to) || to < from))
            return false;
    }
    for (int i = from; i <= to; i += (int) step)
        *bits |= UINT64_C(1) << i;
    return true;
}

static bool read_field(const struct field *field, str text, uint64_t *bits, bool *has_last,
                       struct error *e)
{
    str rest = text, piece;
    *bits = 0;
    while (str_next(&rest, ',', &piece)) {
        if (field == &fields[DAY] && str_equal_nocase(piece, S("L")))
            *has_last = true;
        else if (!read_piece(field, piece, bits))
            return fail(field, piece, e);
    }
    return true;
}

static str words_of(str text)
{
    static const struct {
        str name, fields;
    } names[] = {
        {S_INIT("@hourly"), S_INIT("0 * * * *")},   {S_INIT("@daily"), S_INIT("0 0 * * *")},
        {S_INIT("@midnight"), S_INIT("0 0 * * *")}, {S_INIT("@weekly"), S_INIT("0 0 * * 0")},
        {S_INIT("@monthly"), S_INIT("0 0 1 * *")},  {S_INIT("@yearly"), S_INIT("0 0 1 1 *")},
        {S_INIT("@annually"), S_INIT("0 0 1 1 *")},
    };
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        if (str_equal(text, names[i].name))
            return names[i].fields;
    }
    return text;
}

bool cron_parse(str text, struct cron *out, struct error *e)
{
    str rest = words_of(str_trim(text)), words[FIELD_COUNT], word;
    uint64_t bits[FIELD_COUNT];
    size_t count = 0;
    bool has_last = false;
    while (str_next(&rest, ' ', &word)) {
        if (word.len == 0)
            continue;
        if (count < FIELD_COUNT)
            words[count] = word;
        count++;
    }
    if (count != FIELD_COUNT)
        return error_set(e, REASON_INVALID,
                         "a schedule has five fields (minute hour day month weekday), as in "
                         "\"30 9 * * mon-fri\", or is one of @hourly, @daily, @weekly, @monthly, "
                         "@yearly");
    for (size_t i = 0; i < FIELD_COUNT; i++) {
        if (!read_field(&fields[i], words[i], &bits[i], &has_last, e))
            return false;
    }
    *out = (struct cron){
        .minutes = bits[MINUTE],
        .hours = (uint32_t) bits[HOUR],
        .days = (uint32_t) bits[DAY],
        .months = (uint16_t) bits[MONTH],
        .weekdays = (uint8_t) ((bits[WEEKDAY] & 0x7f) | (bits[WEEKDAY] >> 7 & 1)),
        .has_last_day = has_last,
        .has_days = words[DAY].ptr[0] != '*',
        .has_weekdays = words[WEEKDAY].ptr[0] != '*',
        .is_every_hour = str_equal(words[HOUR], S("*")),
    };
    return true;
}

/* ---- asking ---- */

static int64_t floor_divide(int64_t a, int64_t b)
{
    return a / b - (a % b < 0);
}

static bool is_on_day(const struct cron *cron, int64_t days)
{
    int64_t year, next_year;
    int month, day, next_month, next_day;
    date_of_days(days, &year, &month, &day);
    date_of_days(days + 1, &next_year, &next_month, &next_day);
    bool is_day = (cron->days >> day & 1) || (cron->has_last_day && next_day == 1);
    bool is_weekday = cron->weekdays >> (((days + 4) % 7 + 7) % 7) & 1;
    bool fits = cron->has_days && cron->has_weekdays ? is_day || is_weekday : is_day && is_weekday;
    return fits && (cron->months >> month & 1);
}

/* Hours and minutes of one day on the wall; the first that comes after `after_s`. */
static bool next_of_day(const struct cron *cron, const struct zone *zone, int64_t days,
                        int64_t after_s, int64_t *out_s)
{
    for (int hour = 0; hour < 24; hour++) {
        if (!(cron->hours >> hour & 1))
            continue;
        for (int minute = 0; minute < 60; minute++) {
            if (!(cron->minutes >> minute & 1))
                continue;
            int64_t at = zone_from_wall(zone, days * DAY_S + hour * 3600 + minute * 60);
            if (at > after_s) {
                *out_s = at;
                return true;
            }
        }
    }
    return false;
}

/* zone_from_wall never goes back as the wall goes on, so the first that is later is the next. */
static bool next_by_wall(const struct cron *cron, const struct zone *zone, int64_t after_s,
                         int64_t *out_s)
{
    int64_t first = floor_divide(after_s + zone_offset_s(zone, after_s), DAY_S) - 1;
    for (int64_t days = first; days < first + DAYS_LOOKED_AT; days++) {
        if (is_on_day(cron, days) && next_of_day(cron, zone, days, after_s, out_s))
            return true;
    }
    return false;
}

/* Along the clock that always runs, whatever the wall's does. */
static bool next_by_clock(const struct cron *cron, const struct zone *zone, int64_t after_s,
                          int64_t *out_s)
{
    int64_t at = floor_divide(after_s, 60) * 60 + 60, end = at + (int64_t) DAY_S * DAYS_LOOKED_AT;
    while (at < end) {
        int64_t wall = at + zone_offset_s(zone, at), days = floor_divide(wall, DAY_S);
        int64_t of_day = wall - days * DAY_S;
        if (!is_on_day(cron, days)) {
            /* Two hours of distance from midnight: the wall's clock may be put by so much on the way. */
            bool is_far = of_day < DAY_S - 3 * 3600;
            bool is_tomorrow = is_on_day(cron, days + 1);
            at += is_far ? DAY_S - 2 * 3600 - of_day : is_tomorrow ? 60 : DAY_S - 3 * 3600;
        } else if ((cron->minutes >> (of_day / 60 % 60) & 1) && at - of_day % 60 > after_s) {
            *out_s = at - of_day % 60;
            return true;
        } else {
            at += 60;
        }
    }
    return false;
}

bool cron_next(const struct cron *cron, const struct zone *zone, int64_t after_us, int64_t *out_us)
{
    int64_t after_s = floor_divide(after_us, 1000000), next_s;
    bool is_found = cron->is_every_hour ? next_by_clock(cron, zone, after_s, &next_s)
                                        : next_by_wall(cron, zone, after_s, &next_s);
    if (is_found)
        *out_us = next_s * 1000000;
    return is_found;
}
