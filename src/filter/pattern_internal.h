/*
 * Pattern: a regular expression over bytes, read once, used in three ways.
 *
 *      text --pattern_parse--> tree --+-- pattern_print     for the matcher that scans everything (without lookaround: it then
 *                                     |                      finds a little more, which the program below sorts out)
 *                                     +-- pattern_compile   a program: exact ends of matches from a given start
 *                                     `-- hold.c            what may be the beginning of a match
 *
 * All three come from one tree, so they cannot disagree on what the pattern means.  No I/O; everything lives on the arena.
 */
#ifndef NEXUS_FILTER_PATTERN_INTERNAL_H
#define NEXUS_FILTER_PATTERN_INTERNAL_H

#include "base/error.h"
#include "base/strbuf.h"

struct arena;

struct byteset {
    uint64_t bits[4];
};
static inline bool byteset_has(const struct byteset *set, unsigned byte)
{
    return (set->bits[byte >> 6] >> (byte & 63) & 1u) != 0;
}
static inline void byteset_add(struct byteset *set, unsigned byte)
{
    set->bits[byte >> 6] |= UINT64_C(1) << (byte & 63);
}

static inline bool pattern_is_word_byte(int byte)
{
    return byte == '_' || (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= 'a' && byte <= 'z');
}

enum node_kind { NODE_EMPTY, NODE_BYTES, NODE_SEQUENCE, NODE_CHOICE, NODE_REPEAT, NODE_ASSERT };
enum assert_kind {
    ASSERT_WORD_BOUNDARY,
    ASSERT_NO_WORD_BOUNDARY,
    ASSERT_LINE_START,
    ASSERT_LINE_END,
    ASSERT_BEHIND, /* the byte before is of `set` (there is one) */
    ASSERT_NOT_BEHIND,
    ASSERT_AHEAD, /* the next byte is of `set`, the one after it of `second` */
    ASSERT_NOT_AHEAD,
};
enum { REPEAT_FOREVER = -1, BYTE_NONE = -1 };
struct node {
    enum node_kind kind;
    enum assert_kind assert;
    const struct byteset *set;    /* BYTES, ASSERT */
    const struct byteset *second; /* ASSERT_(NOT_)AHEAD of two bytes; or NULL */
    struct node *child, *next;    /* SEQUENCE, CHOICE: a list; REPEAT: one */
    int min, max;                 /* REPEAT */
};

/* REASON_CONFIG: "at position 7: what".  A pattern that matches the empty text is refused. */
must_check bool pattern_parse(struct arena *arena, str text, const struct node **out,
                              struct error *e);
/* For the matcher: finds the ends of all matches, and some more.  Where a byte may not follow, another one must: such a match is told
 * with the byte behind it, and not at all at the end of the text.  Lookaround, leading wide classes (the part before the @ of an
 * address) and large upper counts are left out: they cost the matcher much and tell it little. */
void pattern_print(const struct node *node, struct strbuf *out);
size_t pattern_bytes_min(const struct node *node);
/* The bytes that may stand before a match, when one does. */
struct byteset pattern_before(const struct node *node);
/* Adds the bytes a match may begin with.  True: what follows the node may begin it too. */
bool pattern_first_bytes(const struct node *node, struct byteset *out);

/* ---- the program ---- */

enum instruction_kind { STEP_BYTES, STEP_SPLIT, STEP_JUMP, STEP_ASSERT, STEP_MATCH };
struct instruction {
    uint8_t kind, assert;
    uint16_t to, or_to; /* SPLIT both, JUMP `to` */
    const struct byteset *set, *second;
};
struct program {
    struct instruction *code;
    uint16_t count;
};
/* REASON_CONFIG past FILTER_PROGRAM_MAX instructions. */
must_check bool pattern_compile(struct arena *arena, const struct node *node, struct program *out,
                                struct error *e);

/* The states a program is in; its memory is the thread's (pattern_run_init) and holds one run at a time. */
struct pattern_run {
    uint16_t *now, *later, *stack; /* FILTER_PROGRAM_MAX each; stack twice that */
    uint32_t *seen;
    uint32_t turn;
    uint16_t count, later_count;
    bool is_accepting;
};
/* The bytes around a place, BYTE_NONE beyond an end of the text. */
struct place {
    int before, next, second;
};
void pattern_run_start(struct pattern_run *run, const struct program *program, struct place here);
/* Takes one byte; `here` is the place after it.  False: no state is left (is_accepting may still be true). */
bool pattern_run_step(struct pattern_run *run, const struct program *program, unsigned char byte,
                      struct place here);

#endif
