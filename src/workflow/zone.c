#include "workflow/zone.h"

#include "base/arena.h"
#include "base/limits.h"

enum { DAY_S = 86400, HEADER_BYTES = 44 };

/* One end of daylight saving: day n of the year in one of three ways, and seconds after midnight. */
struct turn {
    char kind; /* M: month, week, weekday; J: day 1..365 without leap days; N: day 0..365 */
    int month, week, day;
    int64_t at_s;
};
struct rule {
    int64_t standard_s, saving_s; /* ahead of UTC */
    bool has_saving;
    struct turn begin, end;
};
struct zone {
    const int64_t *changes; /* ascending */
    const uint8_t *types;   /* after the change of that index */
    const int32_t *offsets; /* by type */
    size_t change_count, type_count;
    bool has_rule;
    struct rule rule;
};

/* ---- dates: eras of 400 years, years beginning in March ---- */

int64_t days_of_date(int64_t year, int month, int day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void date_of_days(int64_t days, int64_t *year, int *month, int *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097, of_era = days - era * 146097;
    int64_t years = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int64_t of_year = of_era - (365 * years + years / 4 - years / 100);
    int64_t shifted = (5 * of_year + 2) / 153;
    *day = (int) (of_year - (153 * shifted + 2) / 5 + 1);
    *month = (int) (shifted < 10 ? shifted + 3 : shifted - 9);
    *year = years + era * 400 + (*month <= 2);
}

static int64_t floor_days(int64_t seconds)
{
    return seconds >= 0 ? seconds / DAY_S : -((-seconds + DAY_S - 1) / DAY_S);
}

/* ---- rules ---- */

struct cursor {
    str rest;
    bool is_bad;
};

static char peek(const struct cursor *c)
{
    return c->rest.len > 0 ? c->rest.ptr[0] : '\0';
}

static bool take(struct cursor *c, char wanted)
{
    if (c->rest.len == 0 || c->rest.ptr[0] != wanted)
        return false;
    c->rest = str_from(c->rest, 1);
    return true;
}

static int64_t number(struct cursor *c, int64_t max)
{
    int64_t value = 0;
    size_t digits = 0;
    for (; digits < 4 && peek(c) >= '0' && peek(c) <= '9'; digits++) {
        value = value * 10 + (peek(c) - '0');
        c->rest = str_from(c->rest, 1);
    }
    if (digits == 0 || value > max)
        c->is_bad = true;
    return value;
}

/* [+-]hh[:mm[:ss]] */
static int64_t clock_time(struct cursor *c)
{
    int64_t sign = 1;
    if (take(c, '-'))
        sign = -1;
    else
        (void) take(c, '+');
    int64_t seconds = number(c, 167) * 3600;
    if (take(c, ':'))
        seconds += number(c, 59) * 60;
    if (take(c, ':'))
        seconds += number(c, 59);
    return sign * seconds;
}

static void skip_name(struct cursor *c)
{
    size_t len = 0;
    if (take(c, '<')) {
        while (peek(c) != '>' && c->rest.len > 0) {
            c->rest = str_from(c->rest, 1);
            len++;
        }
        c->is_bad |= !take(c, '>');
    } else {
        while ((peek(c) >= 'a' && peek(c) <= 'z') || (peek(c) >= 'A' && peek(c) <= 'Z')) {
            c->rest = str_from(c->rest, 1);
            len++;
        }
    }
    c->is_bad |= len < 3;
}

static struct turn read_turn(struct cursor *c)
{
    struct turn turn = {.kind = 'N', .at_s = 7200};
    if (take(c, 'M')) {
        turn.kind = 'M';
        turn.month = (int) number(c, 12);
        c->is_bad |= turn.month == 0 || !take(c, '.');
        turn.week = (int) number(c, 5);
        c->is_bad |= turn.week == 0 || !take(c, '.');
        turn.day = (int) number(c, 6);
    } else {
        turn.kind = take(c, 'J') ? 'J' : 'N';
        turn.day = (int) number(c, 365);
        c->is_bad |= turn.kind == 'J' && turn.day == 0;
    }
    if (take(c, '/'))
        turn.at_s = clock_time(c);
    return turn;
}

static bool read_rule(str text, struct rule *out)
{
    struct cursor c = {.rest = text};
    skip_name(&c);
    out->standard_s = -clock_time(&c); /* POSIX counts westwards */
    if (c.rest.len == 0)
        return !c.is_bad;
    out->has_saving = true;
    skip_name(&c);
    out->saving_s = out->standard_s + 3600;
    if (peek(&c) != ',')
        out->saving_s = -clock_time(&c);
    c.is_bad |= !take(&c, ',');
    out->begin = read_turn(&c);
    c.is_bad |= !take(&c, ',');
    out->end = read_turn(&c);
    return !c.is_bad && c.rest.len == 0;
}

static bool is_leap(int64_t year)
{
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* On the wall's clock, in seconds since 1970. */
static int64_t turn_of_year(const struct turn *turn, int64_t year)
{
    int64_t days = days_of_date(year, 1, 1);
    if (turn->kind == 'J') {
        days += turn->day - 1 + (is_leap(year) && turn->day >= 60);
    } else if (turn->kind == 'N') {
        days += turn->day;
    } else {
        int64_t first = days_of_date(year, turn->month, 1);
        int64_t next = turn->month == 12 ? days_of_date(year + 1, 1, 1)
                                         : days_of_date(year, turn->month + 1, 1);
        int64_t weekday = ((first + 4) % 7 + 7) % 7; /* 1970-01-01 was a Thursday */
        days = first + (turn->day - weekday + 7) % 7 + (turn->week - 1) * 7;
        while (days >= next)
            days -= 7;
    }
    return days * DAY_S + turn->at_s;
}

static int64_t offset_of_rule(const struct rule *rule, int64_t unix_s)
{
    int64_t year;
    int month, day;
    if (!rule->has_saving)
        return rule->standard_s;
    date_of_days(floor_days(unix_s + rule->standard_s), &year, &month, &day);
    int64_t begin = turn_of_year(&rule->begin, year) - rule->standard_s;
    int64_t end = turn_of_year(&rule->end, year) - rule->saving_s;
    bool is_saving = begin < end ? unix_s >= begin && unix_s < end  /* north */
                                 : unix_s >= begin || unix_s < end; /* south */
    return is_saving ? rule->saving_s : rule->standard_s;
}

/* ---- files ---- */

struct counts {
    size_t ut, standard, leap, times, types, chars;
};

static uint64_t big_endian(const char *bytes, size_t count)
{
    uint64_t value = 0;
    for (size_t i = 0; i < count; i++)
        value = value << 8 | (unsigned char) bytes[i];
    return value;
}

static bool read_header(str bytes, struct counts *out, char *version)
{
    if (bytes.len < HEADER_BYTES || !str_starts_with(bytes, S("TZif")))
        return false;
    size_t *fields[] = {&out->ut,    &out->standard, &out->leap,
                        &out->times, &out->types,    &out->chars};
    *version = bytes.ptr[4];
    for (size_t i = 0; i < ARRAY_COUNT(fields); i++)
        *fields[i] = (size_t) big_endian(bytes.ptr + 20 + 4 * i, 4);
    return out->times <= ZONE_CHANGES_MAX && out->types >= 1 && out->types <= 256 &&
           out->chars <= 4096 && out->leap <= 4096 && out->ut <= 256 && out->standard <= 256;
}

static size_t block_bytes(const struct counts *counts, size_t time_bytes)
{
    return counts->times * (time_bytes + 1) + counts->types * 6 + counts->chars +
           counts->leap * (time_bytes + 4) + counts->standard + counts->ut;
}

static bool read_block(struct arena *arena, str block, const struct counts *counts,
                       struct zone *zone)
{
    int64_t *changes = ARENA_ARRAY(arena, int64_t, counts->times);
    uint8_t *types = ARENA_ARRAY(arena, uint8_t, counts->times);
    int32_t *offsets = ARENA_ARRAY(arena, int32_t, counts->types);
    const char *type_at = block.ptr + counts->times * 8, *offset_at = type_at + counts->times;
    for (size_t i = 0; i < counts->times; i++) {
        changes[i] = (int64_t) big_endian(block.ptr + i * 8, 8);
        types[i] = (uint8_t) type_at[i];
        if (types[i] >= counts->types || (i > 0 && changes[i] <= changes[i - 1]))
            return false;
    }
    for (size_t i = 0; i < counts->types; i++) {
        offsets[i] = (int32_t) big_endian(offset_at + i * 6, 4);
        if (offsets[i] < -2 * DAY_S || offsets[i] > 2 * DAY_S)
            return false;
    }
    zone->changes = changes;
    zone->types = types;
    zone->offsets = offsets;
    zone->change_count = counts->times;
    zone->type_count = counts->types;
    return true;
}

bool zone_read(struct arena *arena, str bytes, const struct zone **out, struct error *e)
{
    struct zone *zone = ARENA_NEW(arena, struct zone);
    struct counts counts;
    char version = 0;
    str rest = bytes, rule;
    bool ok = read_header(rest, &counts, &version) && version >= '2';
    if (ok) { /* the first block has 32-bit times; the second is the one */
        rest = str_from(rest, HEADER_BYTES + block_bytes(&counts, 4));
        ok = read_header(rest, &counts, &version);
    }
    if (ok) {
        rest = str_from(rest, HEADER_BYTES);
        ok = rest.len >= block_bytes(&counts, 8) && read_block(arena, rest, &counts, zone);
    }
    if (ok) {
        rest = str_from(rest, block_bytes(&counts, 8));
        ok = str_strip_prefix(rest, S("\n"), &rest) && str_cut(rest, '\n', &rule, &rest);
    }
    if (ok && rule.len > 0) {
        zone->has_rule = true;
        ok = read_rule(rule, &zone->rule);
    }
    if (!ok)
        return error_set(e, REASON_CORRUPT, "the data of the time zone are damaged");
    *out = zone;
    return true;
}

bool zone_of_rule(struct arena *arena, str rule, const struct zone **out, struct error *e)
{
    struct zone *zone = ARENA_NEW(arena, struct zone);
    zone->has_rule = true;
    if (!read_rule(rule, &zone->rule))
        return error_set(e, REASON_INVALID, "\"" STR_FMT "\" is no rule of a time zone",
                         STR_ARG(str_cut_utf8(rule, 80)));
    *out = zone;
    return true;
}

const struct zone *zone_utc(void)
{
    static const struct zone utc = {.has_rule = true};
    return &utc;
}

bool zone_name_is_lawful(str name)
{
    if (name.len == 0 || name.len > 64 || name.ptr[0] == '/' || name.ptr[name.len - 1] == '/')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '_' || c == '+' || c == '-';
        if (!is_word && (c != '/' || name.ptr[i - 1] == '/'))
            return false;
    }
    return true;
}

/* ---- asking ---- */

int64_t zone_offset_s(const struct zone *zone, int64_t unix_s)
{
    size_t low = 0, high = zone->change_count; /* changes before `low` are not later than unix_s */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (zone->changes[middle] <= unix_s)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == zone->change_count && zone->has_rule)
        return offset_of_rule(&zone->rule, unix_s);
    return zone->offsets[low == 0 ? 0 : zone->types[low - 1]];
}

/* The first second from `low` on (not after `high`) with the offset that holds at `high`. */
static int64_t change_between(const struct zone *zone, int64_t low, int64_t high)
{
    int64_t offset = zone_offset_s(zone, high);
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (zone_offset_s(zone, middle) == offset)
            high = middle;
        else
            low = middle + 1;
    }
    return high;
}

int64_t zone_from_wall(const struct zone *zone, int64_t wall_s)
{
    int64_t before = zone_offset_s(zone, wall_s - DAY_S);
    int64_t after = zone_offset_s(zone, wall_s + DAY_S);
    bool fits_before = zone_offset_s(zone, wall_s - before) == before;
    bool fits_after = zone_offset_s(zone, wall_s - after) == after;
    if (fits_before && fits_after)
        return wall_s - (before > after ? before : after);
    if (fits_before || fits_after)
        return wall_s - (fits_before ? before : after);
    return change_between(zone, wall_s - DAY_S, wall_s + DAY_S);
}
