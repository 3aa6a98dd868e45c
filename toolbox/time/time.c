/* time: the clock, and arithmetic on dates with fixed offsets from UTC. */
#include <stdio.h>
#include <string.h>

#include "civil.h"
#include "nexus_tool.h"

enum { OFFSET_MINUTES_MAX = 14 * 60 };

static const int64_t US = 1000000;

static void add_civil(yyjson_mut_doc *doc, yyjson_mut_val *root, const struct civil *c)
{
    char text[CIVIL_TEXT_BYTES];
    int week_year, week;
    civil_format(c, text);
    civil_iso_week(c, &week_year, &week);
    int64_t us = civil_to_unix_us(c);
    int64_t seconds = us >= 0 ? us / US : -((-us + US - 1) / US);
    yyjson_mut_obj_add_strcpy(doc, root, "time", text);
    text[10] = '\0';
    yyjson_mut_obj_add_strcpy(doc, root, "date", text);
    yyjson_mut_obj_add_int(doc, root, "unix", seconds);
    yyjson_mut_obj_add_int(doc, root, "unix_us", us);
    yyjson_mut_obj_add_str(doc, root, "weekday", civil_weekday_names[civil_weekday(c)]);
    yyjson_mut_obj_add_int(doc, root, "day_of_year", civil_day_of_year(c));
    snprintf(text, sizeof text, "%04d-W%02d", week_year, week);
    yyjson_mut_obj_add_strcpy(doc, root, "iso_week", text);
}

/* "Z", "UTC", "+02:00", "-0530" or "+2".  A zone's name is refused: its rules are not known here. */
static bool read_offset(yyjson_val *input, const char *name, int fallback, int *minutes,
                        struct tool_error *e)
{
    struct text offset;
    if (!tool_text_or(input, name, TEXT(""), &offset, e))
        return false;
    *minutes = fallback;
    if (offset.len == 0)
        return true;
    *minutes = 0;
    if (text_equal(offset, TEXT("Z")) || text_equal(offset, TEXT("UTC")) ||
        text_equal(offset, TEXT("GMT")))
        return true;
    char copy[8], extra;
    int hours = 0, rest = 0;
    snprintf(copy, sizeof copy, "%.*s", (int) (offset.len < 7 ? offset.len : 7), offset.ptr);
    bool is_signed = (copy[0] == '+' || copy[0] == '-') && offset.len <= 6;
    bool ok = is_signed &&
              (sscanf(copy + 1, "%2d:%2d%c", &hours, &rest, &extra) == 2 ||
               (strlen(copy) == 5 && sscanf(copy + 1, "%2d%2d%c", &hours, &rest, &extra) == 2) ||
               (strlen(copy) <= 3 && sscanf(copy + 1, "%2d%c", &hours, &extra) == 1));
    *minutes = (copy[0] == '-' ? -1 : 1) * (hours * 60 + rest);
    if (ok && hours >= 0 && rest >= 0 && rest < 60 && hours * 60 + rest <= OFFSET_MINUTES_MAX)
        return true;
    return tool_fail(
        e, "invalid_input",
        "\"%s\" must be an offset such as +02:00, not \"" TEXT_FMT
        "\": there is no time zone database here, so look up the zone's offset for that date",
        name, TEXT_ARG(offset));
}

/* RFC 3339 text (or a date, or another order by date_order), or Unix seconds as a number. */
static bool read_time(yyjson_val *input, const char *name, struct civil *out, struct tool_error *e)
{
    static const char *const orders[] = {"ymd", "mdy", "dmy", NULL};
    struct text text, order;
    yyjson_val *value = yyjson_obj_get(input, name);
    if (!tool_text_or(input, "date_order", TEXT("ymd"), &order, e))
        return false;
    int chosen = tool_choice(order, orders);
    if (chosen < 0)
        return tool_fail(e, "invalid_input", "\"date_order\" is ymd, mdy or dmy");
    if (yyjson_is_num(value)) {
        double seconds = yyjson_get_num(value);
        if (seconds > -1e11 && seconds < 1e12 &&
            civil_from_unix_us((int64_t) (seconds * 1e6), 0, out))
            return true;
        return tool_fail(e, "invalid_input", "\"%s\" is outside the years 1 to 9999", name);
    }
    if (!tool_text(input, name, &text, e))
        return false;
    if (civil_parse(text.ptr, text.len, (enum civil_order) chosen, out))
        return true;
    return tool_fail(
        e, "invalid_input",
        "\"%s\": \"" TEXT_FMT "\" is not a date I can read; write 2024-03-31, "
        "2024-03-31T14:05:00Z or 2024-03-31T14:05:00+02:00 (for 3/31/2024 add date_order mdy or "
        "dmy)",
        name, TEXT_ARG(text));
}

static bool finish(yyjson_mut_doc *doc, yyjson_mut_val *root, int64_t us, int offset,
                   struct tool_error *e)
{
    struct civil c;
    if (!civil_from_unix_us(us, offset, &c))
        return tool_fail(e, "invalid_input", "the result is outside the years 1 to 9999");
    add_civil(doc, root, &c);
    return true;
}

static bool run_now(yyjson_val *input, yyjson_mut_doc *doc, yyjson_mut_val *root,
                    struct tool_error *e)
{
    int offset;
    yyjson_val *answer;
    yyjson_mut_doc *request = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(request, yyjson_mut_obj(request));
    if (!read_offset(input, "offset", 0, &offset, e) ||
        !tool_host_call("clock", request, &answer, e))
        return false;
    yyjson_val *us = yyjson_obj_get(answer, "unix_us");
    if (!yyjson_is_int(us))
        return tool_fail(e, "internal", "the host's clock gave no time");
    return finish(doc, root, yyjson_get_sint(us), offset, e);
}

/* parse, format and convert: the same instant, in the offset asked for or its own. */
static bool run_convert(yyjson_val *input, yyjson_mut_doc *doc, yyjson_mut_val *root,
                        struct tool_error *e)
{
    struct civil c;
    int offset;
    return read_time(input, "time", &c, e) &&
           read_offset(input, "offset", c.offset_minutes, &offset, e) &&
           finish(doc, root, civil_to_unix_us(&c), offset, e);
}

/* Months are added in the calendar: January 31 plus one month is the last of February. */
static void add_months(struct civil *c, int64_t months)
{
    int64_t total = (int64_t) c->year * 12 + c->month - 1 + months;
    c->year = (int) (total / 12);
    c->month = (int) (total % 12) + 1;
    int days = civil_month_days(c->year, c->month);
    c->day = c->day > days ? days : c->day;
}

static bool run_add(yyjson_val *input, yyjson_mut_doc *doc, yyjson_mut_val *root,
                    struct tool_error *e)
{
    static const struct {
        const char *name;
        int64_t seconds;
    } units[] = {
        {"weeks", 604800}, {"days", 86400}, {"hours", 3600}, {"minutes", 60}, {"seconds", 1}};
    static const int64_t amount_max = 400000000000; /* seconds in more than 10,000 years */
    struct civil c;
    int64_t years, months, amount, seconds = 0;
    if (!read_time(input, "time", &c, e) ||
        !tool_integer_or(input, "years", 0, -9999, 9999, &years, e) ||
        !tool_integer_or(input, "months", 0, -120000, 120000, &months, e))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        int64_t bound = amount_max / units[i].seconds;
        if (!tool_integer_or(input, units[i].name, 0, -bound, bound, &amount, e))
            return false;
        seconds += amount * units[i].seconds;
    }
    int64_t total = (int64_t) c.year * 12 + c.month - 1 + years * 12 + months;
    if (total < 12 || total >= 10000 * 12)
        return tool_fail(e, "invalid_input", "the result is outside the years 1 to 9999");
    add_months(&c, years * 12 + months);
    return finish(doc, root, civil_to_unix_us(&c) + seconds * US, c.offset_minutes, e);
}

static bool run_diff(yyjson_val *input, yyjson_mut_doc *doc, yyjson_mut_val *root,
                     struct tool_error *e)
{
    struct civil from, to;
    char text[80];
    if (!read_time(input, "time", &from, e) || !read_time(input, "until", &to, e))
        return false;
    int64_t us = civil_to_unix_us(&to) - civil_to_unix_us(&from);
    uint64_t size = us < 0 ? 0 - (uint64_t) us : (uint64_t) us, seconds = size / 1000000;
    double exact = (double) us / 1e6;
    snprintf(text, sizeof text, "%s%llu days %02u:%02u:%02u", us < 0 ? "-" : "",
             (unsigned long long) (seconds / 86400), (unsigned) (seconds / 3600 % 24),
             (unsigned) (seconds / 60 % 60), (unsigned) (seconds % 60));
    if (us % US == 0)
        yyjson_mut_obj_add_int(doc, root, "seconds", us / US);
    else
        yyjson_mut_obj_add_real(doc, root, "seconds", exact);
    yyjson_mut_obj_add_real(doc, root, "days", exact / 86400);
    yyjson_mut_obj_add_strcpy(doc, root, "text", text);
    return true;
}

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    static const struct {
        const char *name;
        bool (*run)(yyjson_val *, yyjson_mut_doc *, yyjson_mut_val *, struct tool_error *);
    } operations[] = {{"now", run_now},         {"parse", run_convert}, {"format", run_convert},
                      {"convert", run_convert}, {"add", run_add},       {"diff", run_diff}};
    struct text operation;
    yyjson_mut_val *root = yyjson_mut_obj(output);
    yyjson_mut_doc_set_root(output, root);
    if (!tool_text_or(input, "operation", TEXT("now"), &operation, e))
        return false;
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (strlen(operations[i].name) == operation.len &&
            memcmp(operations[i].name, operation.ptr, operation.len) == 0)
            return operations[i].run(input, output, root, e);
    return tool_fail(e, "invalid_input",
                     "unknown operation \"" TEXT_FMT
                     "\"; use now, parse, format, convert, add or diff",
                     TEXT_ARG(operation));
}
