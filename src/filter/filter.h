/*
 * Filter: finds secrets, personal data, injected instructions and what the operator named in text that arrives in pieces.
 *
 *      rules --compile--> filter_set (immutable, shared)            text --> filter_stream --> safe bytes + findings
 *
 * A rule is a pattern, a check of what it found (Luhn, mod 97, ...) and an action:
 *      flag    the text goes on, a finding says what was in it
 *      mask    the match is replaced: [EMAIL], [CARD], [TICKET_ID] for a rule of that name
 *      block   nothing from the match's first byte on leaves; the stream is over
 *
 * The verdict depends on the text alone, never on how it was cut: whatever is decided is decided at a place of the text that all
 * cuts share.  What is a match:
 *   - Of all places where a rule matches, the leftmost counts, there the longest that passes its check.  Each action has its own
 *     row of matches that do not overlap; so a flag hides no mask, and neither hides a block.  Of equal ones the earlier rule
 *     counts: the operator's own, then secrets, personal data, injection.
 *   - A match must come about within FILTER_MATCH_BYTES_MAX bytes.  One that can still go on there (a key block, a long token)
 *     is decided there; the mask then swallows all bytes until the pattern can go on no more, without keeping them.
 *     (A finding of action flag then tells the length so far.)
 *
 * Held back is only what may become a match: the longest end of the text that some rule's match may begin with, at most
 * FILTER_HOLD_BYTES_MAX bytes (and of a UTF-8 sequence the bytes until it is whole).  With e-mail addresses looked for that is
 * mostly the word being written.
 *
 * Patterns of the operator: literals, . [classes] \d \w \s (ASCII), groups, |, * + ? {m,n}, \b \B, ^ $ (of lines), lookaround
 * of one byte, ahead also of two: (?<![0-9]) (?=x) (?!\\.[0-9]); (?i) at the start.  Everything is linear in the text: no backreferences, no longer lookaround.
 * Bytes beyond ASCII are UTF-8 as written; "." and [^...] take whole characters.
 *
 * Cost: some 5 ns a byte of prose, at worst (text full of near misses) 400 ns: a loop should not take more than some 100 KiB at once.
 * Findings say where, never what.  Memory: a set 1 to 2 MiB, a stream well under 4 KiB, and nothing more while it waits.
 * Thread: a set may be shared by all; a stream belongs to one thread at a time.  Suspends: never.
 */
#ifndef NEXUS_FILTER_FILTER_H
#define NEXUS_FILTER_FILTER_H

#include "base/error.h"
#include "base/strbuf.h"

enum filter_action { FILTER_OFF, FILTER_FLAG, FILTER_MASK, FILTER_BLOCK, FILTER_ACTION_COUNT };
const char *filter_action_name(enum filter_action action); /* "off", "flag", "mask", "block" */
bool filter_action_parse(str text, enum filter_action *out);

enum filter_group { FILTER_SECRETS, FILTER_PII, FILTER_INJECTION, FILTER_GROUP_COUNT };
const char *filter_group_name(enum filter_group group); /* "secrets", "pii", "injection" */
bool filter_group_parse(str text, enum filter_group *out);

struct filter_rule { /* of the operator */
    str name;        /* [A-Za-z0-9_-]{1,64} */
    str pattern;
    str group; /* for findings; empty: "custom" */
    enum filter_action action;
};
struct filter_options {
    enum filter_action groups[FILTER_GROUP_COUNT];
    const struct filter_rule *rules;
    size_t rule_count; /* at most FILTER_USER_RULES_MAX */
};

/* One rule alone: all but what only a whole set can tell.  Quick.  REASON_CONFIG as filter_set_create. */
must_check bool filter_rule_check(const struct filter_rule *rule, struct error *e);

struct filter_set;
/* Compiling takes some 100 ms of CPU and a deep stack: at start and on the blocking pool, not on a loop.  Copies what it needs.
 * REASON_CONFIG names the rule and the place in its pattern. */
must_check bool filter_set_create(const struct filter_options *options, struct filter_set **out,
                                  struct error *e);
void filter_set_destroy(struct filter_set *set); /* no stream of it may be left; NULL is fine */
OWNED_DEFINE(filter_set)
size_t filter_set_rule_count(const struct filter_set *set);
size_t filter_set_bytes(const struct filter_set *set);        /* all memory of the set */
size_t filter_set_stream_bytes(const struct filter_set *set); /* of one stream */

struct filter_finding {
    str rule, group; /* live as long as the set */
    enum filter_action action;
    uint64_t offset, length; /* bytes of the text as it came; length: as far as it was known */
};
/* Called in the order of offsets within one feed. */
typedef void filter_found(void *owner, const struct filter_finding *finding);
struct filter_sink {
    struct strbuf *out; /* appended to; its maximum must leave room for masks (see filter_room) */
    filter_found *found;
    void *owner;
};

struct filter_stream;
struct filter_stream *filter_stream_create(const struct filter_set *set); /* the set is borrowed */
void filter_stream_destroy(struct filter_stream *stream);                 /* NULL is fine */
OWNED_DEFINE(filter_stream)
/* Appends what is safe now.  False: blocked, at this call or before; nothing more comes out. */
must_check bool filter_stream_feed(struct filter_stream *stream, str text,
                                   const struct filter_sink *sink);
/* The text is over: the rest comes out.  Afterwards the stream is as new, for another text (unless it is blocked). */
must_check bool filter_stream_end(struct filter_stream *stream, const struct filter_sink *sink);
size_t filter_stream_held(const struct filter_stream *stream); /* bytes that wait */

/* A text that is there as a whole. */
must_check bool filter_text(const struct filter_set *set, str text, const struct filter_sink *sink);
/* What `bytes` of text can at most become. */
size_t filter_room(size_t bytes);

#endif
