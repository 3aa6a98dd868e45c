#include "cli/arguments.h"

#include "base/arena.h"
#include "base/nearest.h"

#include <stdio.h>

enum { ARGUMENTS_MAX = 4096 };

static const struct option *find_long(const struct option *options, size_t count, str name)
{
    for (size_t i = 0; i < count; i++)
        if (str_equal(str_from_cstr(options[i].name), name))
            return &options[i];
    return NULL;
}

static const struct option *find_letter(const struct option *options, size_t count, char letter)
{
    for (size_t i = 0; i < count; i++)
        if (options[i].letter == letter)
            return &options[i];
    return NULL;
}

static bool unknown(const struct option *options, size_t count, str word, str name, struct error *e)
{
    struct nearest nearest = nearest_to(name);
    for (size_t i = 0; i < count; i++)
        nearest_try(&nearest, str_from_cstr(options[i].name));
    if (!str_is_empty(nearest.name))
        return error_set(e, REASON_USAGE, "unknown option " STR_FMT "; did you mean --" STR_FMT "?",
                         STR_ARG(str_cut_utf8(word, 60)), STR_ARG(nearest.name));
    return error_set(e, REASON_USAGE, "unknown option " STR_FMT "; --help lists them",
                     STR_ARG(str_cut_utf8(word, 60)));
}

/* ---- values out of a closed set ---- */

static const str list_mark = S_INIT(",...");

static bool is_choice(str choices, str value)
{
    str choice;
    while (!str_is_empty(choices) && str_next(&choices, '|', &choice))
        if (str_equal(choice, value))
            return true;
    return false;
}

static bool refuse_choice(const char *what, str choices, str value, struct error *e)
{
    char text[200];
    size_t len = 0;
    str choice;
    while (str_next(&choices, '|', &choice)) {
        int wrote = snprintf(text + len, sizeof text - len, "%s" STR_FMT,
                             len == 0                ? ""
                             : str_is_empty(choices) ? " or "
                                                     : ", ",
                             STR_ARG(choice));
        if (wrote < 0 || (size_t) wrote >= sizeof text - len || str_is_empty(choices))
            break;
        len += (size_t) wrote;
    }
    return error_set(e, REASON_USAGE, "%s: %s, not \"" STR_FMT "\"", what, text,
                     STR_ARG(str_cut_utf8(value, 40)));
}

bool arguments_choice(const char *what, const char *choices, str value, struct error *e)
{
    str all = str_from_cstr(choices), item, rest = value;
    bool is_list = str_ends_with(all, list_mark);
    if (is_list)
        all = str_slice(all, 0, all.len - list_mark.len);
    if (!is_list)
        return is_choice(all, value) || refuse_choice(what, all, value, e);
    while (str_next(&rest, ',', &item))
        if (!is_choice(all, str_trim(item)))
            return refuse_choice(what, all, str_trim(item), e);
    return true;
}

static bool check_value(const struct option *option, str value, struct error *e)
{
    char what[64];
    if (!option->value || !strchr(option->value, '|'))
        return true;
    (void) snprintf(what, sizeof what, "--%s", option->name);
    return arguments_choice(what, option->value, value, e);
}

static bool keep(struct arguments *out, const struct option *option, str value, struct error *e)
{
    if (!option->is_many && arguments_has(out, option->name))
        return error_set(e, REASON_USAGE, "--%s is given twice", option->name);
    if (!check_value(option, value, e))
        return false;
    out->given[out->given_count] = option;
    out->values[out->given_count++] = value;
    return true;
}

bool arguments_parse(struct arena *arena, const struct option *options, size_t option_count,
                     int argc, char **argv, struct arguments *out, struct error *e)
{
    if (argc > ARGUMENTS_MAX)
        return error_set(e, REASON_USAGE, "more than %d words", ARGUMENTS_MAX);
    *out = (struct arguments){.given = ARENA_ARRAY(arena, const struct option *, (size_t) argc + 1),
                              .values = ARENA_ARRAY(arena, str, (size_t) argc + 1),
                              .operands = ARENA_ARRAY(arena, str, (size_t) argc + 1)};
    bool is_over = false;
    for (int i = 0; i < argc; i++) {
        str word = str_from_cstr(argv[i]), name, value = STR_NONE;
        bool has_value = false;
        const struct option *option;
        if (!is_over && str_equal(word, S("--"))) {
            is_over = true;
            continue;
        }
        if (is_over || word.len < 2 || word.ptr[0] != '-') {
            out->operands[out->operand_count++] = word;
            continue;
        }
        if (str_strip_prefix(word, S("--"), &name)) {
            has_value = str_cut(name, '=', &name, &value);
            option = find_long(options, option_count, name);
        } else {
            name = str_from(word, 1);
            option = name.len == 1 ? find_letter(options, option_count, name.ptr[0]) : NULL;
        }
        if (!option)
            return unknown(options, option_count, word, name, e);
        if (has_value && !option->value)
            return error_set(e, REASON_USAGE, "--%s takes no value", option->name);
        if (option->value && !has_value) {
            if (i + 1 >= argc)
                return error_set(e, REASON_USAGE, "--%s needs a value: %s", option->name,
                                 option->value);
            value = str_from_cstr(argv[++i]);
        }
        if (!keep(out, option, value, e))
            return false;
    }
    return true;
}

bool arguments_has(const struct arguments *arguments, const char *name)
{
    str value;
    return arguments_nth(arguments, name, 0, &value);
}

str arguments_get(const struct arguments *arguments, const char *name)
{
    str value = STR_NONE;
    (void) arguments_nth(arguments, name, 0, &value);
    return value;
}

bool arguments_nth(const struct arguments *arguments, const char *name, size_t n, str *out)
{
    for (size_t i = 0; i < arguments->given_count; i++) {
        if (!str_equal(str_from_cstr(arguments->given[i]->name), str_from_cstr(name)))
            continue;
        if (n-- == 0) {
            *out = arguments->values[i];
            return true;
        }
    }
    return false;
}

str arguments_operand(const struct arguments *arguments, size_t index)
{
    return index < arguments->operand_count ? arguments->operands[index] : STR_NONE;
}

bool arguments_number(const struct arguments *arguments, const char *name, int64_t min, int64_t max,
                      int64_t *out, struct error *e)
{
    str text;
    int64_t value;
    if (!arguments_nth(arguments, name, 0, &text))
        return true;
    if (!str_to_i64(text, &value) || value < min || value > max)
        return error_set(e, REASON_USAGE,
                         "--%s: a whole number from %lld to %lld, not \"" STR_FMT "\"", name,
                         (long long) min, (long long) max, STR_ARG(str_cut_utf8(text, 40)));
    *out = value;
    return true;
}
