/*
 * Arguments: the words of a command line, read by a table of options.
 *
 * "--name value", "--name=value", "-n value"; flags take none; "--" ends the options; options and operands may mix.  An option given
 * twice is refused unless it is_many.  Pure; everything borrowed from argv.
 *
 * What the help calls a value says what it may be: "COUNT" anything; "day|month" one of these; "day|user|model,..." some of these with
 * commas between.  Anything else is refused with the list.
 */
#ifndef NEXUS_CLI_ARGUMENTS_H
#define NEXUS_CLI_ARGUMENTS_H

#include "base/error.h"

struct option {
    const char *name;  /* without dashes */
    char letter;       /* 0: none */
    const char *value; /* what the help calls it, or what it may be; NULL: a flag */
    bool is_many;
    const char *help;
};

struct arguments {
    const struct option **given; /* in order */
    str *values;
    size_t given_count;
    str *operands;
    size_t operand_count;
};

/* REASON_USAGE, naming the nearest option for an unknown one. */
must_check bool arguments_parse(struct arena *arena, const struct option *options,
                                size_t option_count, int argc, char **argv, struct arguments *out,
                                struct error *e);
/* One of `choices` ("day|month"), as an option's value is; `what` is named in the error. */
must_check bool arguments_choice(const char *what, const char *choices, str value, struct error *e);
bool arguments_has(const struct arguments *arguments, const char *name);
str arguments_get(const struct arguments *arguments,
                  const char *name); /* STR_NONE when not given */
/* The n-th value of an is_many option; false past the last. */
bool arguments_nth(const struct arguments *arguments, const char *name, size_t n, str *out);
str arguments_operand(const struct arguments *arguments, size_t index); /* STR_NONE past the last */
/* An option's value as a whole number; `out` is untouched when it is not given. */
must_check bool arguments_number(const struct arguments *arguments, const char *name, int64_t min,
                                 int64_t max, int64_t *out, struct error *e);

#endif
