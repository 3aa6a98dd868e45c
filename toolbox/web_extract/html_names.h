/*
 * The names that html.c knows: elements by what they do to the text, and entities.
 */
#ifndef NEXUS_TOOL_HTML_NAMES_H
#define NEXUS_TOOL_HTML_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Lists end with NULL. */
extern const char *const html_raw_names[];          /* no markup inside: script, title ... */
extern const char *const html_skipped_names[];      /* no text for a reader */
extern const char *const html_void_names[];         /* never have an end tag */
extern const char *const html_optional_end_names[]; /* may leave theirs out */
extern const char *const html_paragraph_names[];    /* an empty line before and after */
extern const char *const html_block_names[];        /* a line of their own */
bool html_name_is(const char *const *names, const char *name, size_t len);

struct html_entity_name {
    const char *name;
    uint32_t code;
};
extern const struct html_entity_name html_entities[];
extern const size_t html_entity_count;

#endif
