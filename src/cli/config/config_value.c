/* one setting from its text */
#include "cli/config/config_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/nearest.h"
#include "base/timefmt.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

void *setting_at(const struct setting *setting, void *base)
{
    return (char *) base + setting->offset;
}

size_t *setting_count_at(const struct setting *setting, void *base)
{
    return (size_t *) (void *) ((char *) base + setting->count_offset);
}

/* ---- values ---- */

static bool read_choice(const struct setting *setting, str text, struct error *e)
{
    str choices = str_from_cstr(setting->choices), choice;
    while (str_next(&choices, '|', &choice))
        if (str_equal(choice, text))
            return true;
    return error_set(e, REASON_CONFIG, "\"" STR_FMT "\" is not one of %s",
                     STR_ARG(str_cut_utf8(text, 60)), setting->choices);
}

static bool check_range(const struct setting *setting, int64_t value, str text, struct error *e)
{
    if (value >= setting->min && value <= setting->max)
        return true;
    const char *unit = setting->kind == SETTING_DURATION ? " milliseconds"
                       : setting->kind == SETTING_BYTES  ? " bytes"
                                                         : "";
    if (setting->max == INT64_MAX)
        return error_set(e, REASON_CONFIG, STR_FMT " is too small; at least %lld%s",
                         STR_ARG(str_cut_utf8(text, 60)), (long long) setting->min, unit);
    return error_set(e, REASON_CONFIG, STR_FMT " is out of range; %lld to %lld%s",
                     STR_ARG(str_cut_utf8(text, 60)), (long long) setting->min,
                     (long long) setting->max, unit);
}

static bool read_number(const struct setting *setting, str text, int64_t *out, struct error *e)
{
    str shown = str_cut_utf8(text, 60);
    int64_t value;
    switch (setting->kind) {
    case SETTING_COUNT:
    case SETTING_AMOUNT:
        if (!str_to_i64(text, &value))
            return error_set(e, REASON_CONFIG, "\"" STR_FMT "\" is no whole number",
                             STR_ARG(shown));
        break;
    case SETTING_DURATION:
        if (str_equal(text, S("never")) && setting->min == 0)
            value = 0;
        else if (!duration_parse(text, &value))
            return error_set(e, REASON_CONFIG,
                             "\"" STR_FMT "\" is no duration; write 250ms, 30s, 5m, 2h or 7d",
                             STR_ARG(shown));
        break;
    case SETTING_BYTES:
        if (!bytes_parse(text, &value))
            return error_set(e, REASON_CONFIG,
                             "\"" STR_FMT "\" is no size; write 10MB, 64MiB or a number of bytes",
                             STR_ARG(shown));
        break;
    case SETTING_MONEY:
        if (!money_parse_usd(text, out) || *out < 0)
            return error_set(e, REASON_CONFIG,
                             "\"" STR_FMT "\" is no amount of money; write 0.25 or 5usd",
                             STR_ARG(shown));
        return true;
    case SETTING_TEXT:
    case SETTING_CHOICE:
    case SETTING_TEXTS:
    case SETTING_SECRETS:
    case SETTING_SECTION:
    case SETTING_ITEMS: unreachable_state();
    }
    if (!check_range(setting, value, text, e))
        return false;
    *out = value;
    return true;
}

/* A list given as one text (environment, command line): comma-separated. */
static void read_list(const struct setting *setting, struct arena *arena, str text, void *base)
{
    str *items = ARENA_ARRAY(arena, str, CONFIG_ITEMS_MAX);
    size_t count = 0;
    str piece;
    while (count < CONFIG_ITEMS_MAX && str_next(&text, ',', &piece))
        if (!str_is_empty(str_trim(piece)))
            items[count++] = str_copy(arena, str_trim(piece));
    *(str **) setting_at(setting, base) = items;
    *setting_count_at(setting, base) = count;
}

bool setting_read_text(const struct setting *setting, struct arena *arena, str text, void *base,
                       struct error *e)
{
    switch (setting->kind) {
    case SETTING_CHOICE:
        if (!read_choice(setting, text, e))
            return false;
        *(str *) setting_at(setting, base) = str_copy(arena, text);
        return true;
    case SETTING_TEXT: *(str *) setting_at(setting, base) = str_copy(arena, text); return true;
    case SETTING_TEXTS: read_list(setting, arena, text, base); return true;
    case SETTING_AMOUNT:
    case SETTING_MONEY:
        if (str_equal(text, S("unlimited")) || str_equal(text, S("null"))) {
            *(int64_t *) setting_at(setting, base) = COST_UNLIMITED;
            return true;
        }
        return read_number(setting, text, setting_at(setting, base), e);
    case SETTING_COUNT:
    case SETTING_DURATION:
    case SETTING_BYTES: return read_number(setting, text, setting_at(setting, base), e);
    case SETTING_SECRETS:
    case SETTING_SECTION:
    case SETTING_ITEMS: break;
    }
    return error_set(e, REASON_CONFIG, "%s can only be set in the file", setting->name);
}

/* ---- references ---- */

bool config_has_reference(str text)
{
    return str_find(text, S("${")) != STR_NOT_FOUND;
}

static bool read_reference_file(struct arena *arena, str path, str *out, struct error *e)
{
    enum { REFERENCE_FILE_BYTES_MAX = 64 << 10 };
    int fd = open(str_to_cstr(arena, path), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return error_set(e, REASON_CONFIG, "${file:" STR_FMT "}: %s", STR_ARG(path),
                         strerrordesc_np(errno));
    char *bytes = arena_alloc_raw(arena, REFERENCE_FILE_BYTES_MAX + 1);
    size_t len = 0;
    ssize_t got;
    while ((got = read(fd, bytes + len, REFERENCE_FILE_BYTES_MAX + 1 - len)) > 0)
        len += (size_t) got;
    int failure = errno;
    close(fd);
    if (got < 0)
        return error_set(e, REASON_CONFIG, "${file:" STR_FMT "}: %s", STR_ARG(path),
                         strerrordesc_np(failure));
    if (len > REFERENCE_FILE_BYTES_MAX)
        return error_set(e, REASON_CONFIG, "${file:" STR_FMT "} is over %d bytes", STR_ARG(path),
                         REFERENCE_FILE_BYTES_MAX);
    while (len > 0 && (bytes[len - 1] == '\n' || bytes[len - 1] == '\r'))
        len--;
    if (!str_is_utf8(str_of(bytes, len)) || memchr(bytes, 0, len))
        return error_set(e, REASON_CONFIG, "${file:" STR_FMT "} is no text", STR_ARG(path));
    *out = str_of(bytes, len);
    return true;
}

static bool resolve_one(struct arena *arena, str reference,
                        const char *(*environment)(const char *), str *out, struct error *e)
{
    str name;
    if (str_strip_prefix(reference, S("env:"), &name)) {
        const char *value = environment(str_to_cstr(arena, name));
        if (!value)
            return error_set(e, REASON_CONFIG,
                             "the environment has no " STR_FMT
                             "; export it, or write the value as ${file:PATH}",
                             STR_ARG(str_cut_utf8(name, 60)));
        *out = str_from_cstr(value);
        return true;
    }
    if (str_strip_prefix(reference, S("file:"), &name))
        return read_reference_file(arena, name, out, e);
    return error_set(e, REASON_CONFIG, "${" STR_FMT "}: a reference is ${env:NAME} or ${file:PATH}",
                     STR_ARG(str_cut_utf8(reference, 60)));
}

bool config_resolve(struct arena *arena, str text, const char *(*environment)(const char *),
                    str *out, struct error *e)
{
    struct strbuf b;
    size_t at;
    strbuf_init(&b, arena, YAML_BYTES_MAX);
    while ((at = str_find(text, S("${"))) != STR_NOT_FOUND) {
        str rest = str_from(text, at + 2), value;
        size_t end = str_find_char(rest, '}');
        if (end == STR_NOT_FOUND)
            return error_set(e, REASON_CONFIG,
                             "a reference begins with ${ but does not end with }");
        if (!resolve_one(arena, str_slice(rest, 0, end), environment, &value, e))
            return false;
        strbuf_add(&b, str_slice(text, 0, at));
        strbuf_add(&b, value);
        text = str_from(rest, end + 1);
    }
    strbuf_add(&b, text);
    if (strbuf_is_over(&b))
        return error_set(e, REASON_CONFIG, "the value with its references is over %u bytes",
                         YAML_BYTES_MAX);
    *out = strbuf_str(&b);
    return true;
}

/* ---- names ---- */

const char *setting_nearest(const struct setting_table *table, str name)
{
    struct nearest nearest = nearest_to(name);
    for (size_t i = 0; i < table->count; i++)
        nearest_try(&nearest, str_from_cstr(table->rows[i].name));
    return nearest.name.ptr;
}

str setting_environment_name(struct arena *arena, str path)
{
    struct strbuf b;
    strbuf_init(&b, arena, 256);
    strbuf_add(&b, S("NEXUS_"));
    for (size_t i = 0; i < path.len; i++) {
        char c = path.ptr[i];
        strbuf_add_char(&b, c == '.' ? '_' : c >= 'a' && c <= 'z' ? (char) (c - 'a' + 'A') : c);
    }
    return strbuf_str(&b);
}
