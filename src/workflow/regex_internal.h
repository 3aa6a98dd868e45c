/*
 * Inside of regular expressions: source -> tree (regex_parse.c) -> program -> an answer (regex.c).
 */
#ifndef NEXUS_WORKFLOW_REGEX_INTERNAL_H
#define NEXUS_WORKFLOW_REGEX_INTERNAL_H

#include "workflow/regex.h"

enum regex_place { /* what is asked of the place between two characters */
                   PLACE_TEXT_BEGIN,
                   PLACE_TEXT_END,
                   PLACE_LINE_BEGIN,
                   PLACE_LINE_END,
                   PLACE_WORD,
                   PLACE_NOT_WORD,
};
struct regex_range {
    uint32_t first, last; /* characters */
};
enum regex_kind {
    REGEX_EMPTY,
    REGEX_SET, /* one character out of `ranges` */
    REGEX_PLACE,
    REGEX_LIST,   /* `child` and its siblings, one after the other */
    REGEX_CHOICE, /* one of them */
    REGEX_REPEAT, /* `child`, min to max times */
};
enum { REGEX_ENDLESS = -1 };
struct regex_node {
    enum regex_kind kind;
    struct regex_node *child, *last, *next; /* `last`: of the children */
    struct regex_range *ranges;
    uint32_t range_count;
    bool is_negated, ignores_case;
    enum regex_place place;
    int min, max; /* REGEX_ENDLESS: no end */
};
must_check bool regex_parse(struct arena *arena, str source, struct regex_node **out,
                            struct error *e);

/* One character at *at, which moves past it; bytes that are no UTF-8 are characters beyond all others. */
uint32_t regex_character(str text, size_t *at);

#endif
