#include "cli/output.h"

#include "base/arena.h"
#include "base/timefmt.h"

enum { LAST_COLUMN_BYTES_MAX = 140, MEMBER_WIDTH = 20, REAL_DIGITS = 3 };

const char *style_on(bool has_colours, enum style style)
{
    static const char *const codes[] = {
        [STYLE_PLAIN] = "",         [STYLE_BOLD] = "\033[1m",    [STYLE_DIM] = "\033[2m",
        [STYLE_GREEN] = "\033[32m", [STYLE_YELLOW] = "\033[33m", [STYLE_RED] = "\033[31m",
        [STYLE_CYAN] = "\033[36m",
    };
    return has_colours ? codes[style] : "";
}

const char *style_off(bool has_colours)
{
    return has_colours ? "\033[0m" : "";
}

/* C1 controls are C2 80..C2 9F in UTF-8; bidirectional marks and overrides are D8 9C, E2 80 8E..8F, E2 80 AA..AE and E2 81 A6..A9. */
static size_t hidden_bytes(str text, size_t at)
{
    const unsigned char *s = (const unsigned char *) text.ptr + at;
    size_t left = text.len - at;
    if (s[0] < 0x20 || s[0] == 0x7f)
        return 1;
    if (left >= 2 && s[0] == 0xc2 && s[1] >= 0x80 && s[1] <= 0x9f)
        return 2;
    if (left >= 2 && s[0] == 0xd8 && s[1] == 0x9c) /* U+061C */
        return 2;
    if (left >= 3 && s[0] == 0xe2 &&
        ((s[1] == 0x80 && ((s[2] >= 0xaa && s[2] <= 0xae) || s[2] == 0x8e || s[2] == 0x8f)) ||
         (s[1] == 0x81 && s[2] >= 0xa6 && s[2] <= 0xa9)))
        return 3;
    return 0;
}

void output_text(FILE *out, str text, bool is_multiline)
{
    size_t from = 0;
    for (size_t at = 0; at < text.len;) {
        size_t hidden = hidden_bytes(text, at);
        char c = text.ptr[at];
        if (hidden == 0 || (is_multiline && (c == '\n' || c == '\t'))) {
            at++;
            continue;
        }
        fwrite(text.ptr + from, 1, at - from, out);
        fputc(c == '\n' || c == '\t' || c == '\r' ? ' ' : '?', out);
        at += hidden;
        from = at;
    }
    if (text.len > from)
        fwrite(text.ptr + from, 1, text.len - from, out);
}

str output_short(struct arena *arena, str text, size_t max)
{
    if (text.len <= max)
        return text;
    return str_printf(arena, STR_FMT "...", STR_ARG(str_cut_utf8(text, max > 3 ? max - 3 : 0)));
}

str output_value(struct arena *arena, const struct json *value)
{
    str text;
    if (json_type(value) == JSON_ABSENT || json_type(value) == JSON_NULL)
        return S("-");
    return json_to_str(value, &text) ? text : json_print(arena, value);
}

/* Milliseconds as seconds: "90", "0.25". */
static str seconds_text(struct arena *arena, int64_t ms)
{
    str text = str_printf(arena, "%s%llu.%03u", ms < 0 ? "-" : "",
                          (unsigned long long) (ms < 0 ? 0 - (uint64_t) ms : (uint64_t) ms) / 1000,
                          (unsigned) (ms < 0 ? 0 - (uint64_t) ms : (uint64_t) ms) % 1000);
    while (text.ptr[text.len - 1] == '0')
        text.len--;
    return text.ptr[text.len - 1] == '.' ? str_slice(text, 0, text.len - 1) : text;
}

str output_amount(struct arena *arena, str name, const struct json *value)
{
    str text = output_value(arena, value);
    bool is_money = str_find(name, S("nanousd")) != STR_NOT_FOUND;
    double fraction;
    int64_t amount;
    if (str_is_empty(text))
        return S("-");
    if (!is_money && json_type(value) == JSON_REAL && json_to_double(value, &fraction))
        return str_printf(arena, "%.*f", REAL_DIGITS, fraction);
    if (!is_money && !str_equal(name, S("time_ms")))
        return text;
    if (str_to_i64(text, &amount))
        return is_money ? money_format_usd(arena, amount) : seconds_text(arena, amount);
    if (is_money && str_to_double(text, &fraction) && fraction > -1e18 && fraction < 1e18)
        return money_format_usd(arena,
                                (int64_t) fraction); /* a mean: less than a nano-USD is nothing */
    return text;
}

void output_json(struct arena *arena, const struct json *value)
{
    str text = json_print(arena, value);
    fwrite(text.ptr, 1, text.len, stdout);
    fputc('\n', stdout);
}

static int width_of(str text)
{
    int width = 0;
    for (size_t i = 0; i < text.len; i++)
        width += (text.ptr[i] & 0xc0) != 0x80;
    return width;
}

static void print_cell(struct arena *arena, str text, int width)
{
    str shown = output_short(arena, text, width > 0 ? (size_t) width : LAST_COLUMN_BYTES_MAX);
    output_text(stdout, shown, false);
    if (width > 0)
        printf("%*s  ", width - width_of(shown) > 0 ? width - width_of(shown) : 0, "");
}

static str last_part(str pointer)
{
    str head;
    while (str_cut(pointer, '/', &head, &pointer))
        continue;
    return head;
}

void output_table(struct cli *cli, struct arena *arena, const struct column *columns,
                  size_t column_count, const struct json *items)
{
    bool has_colours = cli->is_terminal_out && cli->has_colours;
    const struct json *item;
    struct json_iter it = json_iter(items);
    printf("%s", style_on(has_colours, STYLE_BOLD));
    for (size_t i = 0; i < column_count; i++)
        print_cell(arena, str_from_cstr(columns[i].title), columns[i].width);
    printf("%s\n", style_off(has_colours));
    while (json_next(&it, NULL, &item)) {
        for (size_t i = 0; i < column_count; i++) {
            str pointer = str_from_cstr(columns[i].pointer);
            print_cell(arena, output_amount(arena, last_part(pointer), json_path(item, pointer)),
                       columns[i].width);
        }
        fputc('\n', stdout);
    }
    if (json_count(items) == 0)
        printf("(none)\n");
}

/* {"tokens", "time_ms", "cost_nanousd", "tool_calls"} in a few words; false when it is none. */
static bool cost_text(struct arena *arena, const struct json *object, str *out)
{
    static const struct {
        str member;
        const char *before, *behind;
    } parts[] = {{S_INIT("tokens"), "", " tokens"},
                 {S_INIT("time_ms"), "", " s"},
                 {S_INIT("cost_nanousd"), "$", ""},
                 {S_INIT("tool_calls"), "", " tool calls"}};
    struct strbuf text;
    if (json_type(object) != JSON_OBJECT || json_count(object) != ARRAY_COUNT(parts))
        return false;
    strbuf_init(&text, arena, 256);
    for (size_t i = 0; i < ARRAY_COUNT(parts); i++) {
        const struct json *value = json_get(object, parts[i].member);
        if (!value)
            return false;
        strbuf_printf(&text, "%s%s" STR_FMT "%s", i ? ", " : "", parts[i].before,
                      STR_ARG(output_amount(arena, parts[i].member, value)), parts[i].behind);
    }
    *out = strbuf_str(&text);
    return true;
}

void output_members(struct arena *arena, const struct json *object)
{
    int width = MEMBER_WIDTH;
    str name, text;
    const struct json *value;
    struct json_iter it = json_iter(object);
    while (json_next(&it, &name, &value))
        width = (int) name.len > width ? (int) name.len : width;
    it = json_iter(object);
    while (json_next(&it, &name, &value)) {
        if (!cost_text(arena, value, &text))
            text = output_amount(arena, name, value);
        printf("%-*.*s ", width, STR_ARG(name));
        output_text(stdout, text, true);
        fputc('\n', stdout);
    }
}
