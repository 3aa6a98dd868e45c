/*
 * Output for people: text that came from elsewhere without its control characters (a terminal would obey them), short forms, tables.
 * Thread: one at a time; through the C library's streams.
 */
#ifndef NEXUS_CLI_OUTPUT_H
#define NEXUS_CLI_OUTPUT_H

#include "base/json.h"
#include "cli/command.h"

#include <stdio.h>

enum style { STYLE_PLAIN, STYLE_BOLD, STYLE_DIM, STYLE_GREEN, STYLE_YELLOW, STYLE_RED, STYLE_CYAN };
const char *style_on(bool has_colours, enum style style);
const char *style_off(bool has_colours);

/* Newlines and tabs stay when `is_multiline`, else they are spaces; other control characters become "?". */
void output_text(FILE *out, str text, bool is_multiline);
/* The same as one line of at most `max` bytes, "..." when cut. */
str output_short(struct arena *arena, str text, size_t max);
/* A value of a tree as one line: strings without quotes, else compact JSON; "-" for null. */
str output_value(struct arena *arena, const struct json *value);
/* A member of that name for people, in the units in which it is set: what is in nano-USD in USD, running time (time_ms) in seconds.  Anything
   else is as output_value has it, and "-" when that is empty. */
str output_amount(struct arena *arena, str name, const struct json *value);
/* A line of JSON and a newline. */
void output_json(struct arena *arena, const struct json *value);

struct column {
    const char *title;
    const char *pointer; /* into an item, RFC 6901; shown as output_amount does */
    int width;           /* 0: the last one; it is cut too, JSON has all */
};
void output_table(struct cli *cli, struct arena *arena, const struct column *columns,
                  size_t column_count, const struct json *items);
/* "name   value" lines of an object's members; values as output_amount has them, a cost in a few words. */
void output_members(struct arena *arena, const struct json *object);

#endif
