/*
 * Addresses in an answer: a link or picture that nobody named is a way out without a click.
 *
 *      pieces of the answer --> answer_links_feed --> text that may go out;   answer_links_end --> the rest
 *
 * Each address (a scheme and what follows, a Markdown target, an attribute of HTML) is held back until it is whole and then judged by
 * `may_link`.  One that may not stand is made harmless, readable all the same:
 *      https://evil.test/x  ->  hxxps[:]//evil.test/x        ](//evil.test/x)  ->  ]([//]evil.test/x)        <img  ->  &lt;img
 * What comes out depends on the text alone, not on how it was cut.  Held back is the word being written, at most
 * ANSWER_LINK_BYTES_MAX bytes; of a longer one that may be an address nothing comes out but a note.
 * Thread: one.  Suspends: never.
 */
#ifndef NEXUS_ORCHESTRATOR_ANSWER_LINKS_H
#define NEXUS_ORCHESTRATOR_ANSWER_LINKS_H

#include "base/limits.h"
#include "base/strbuf.h"

struct answer_links {
    bool (*may_link)(void *owner, str url); /* NULL: everything may stand */
    void *owner;
    int defused; /* how many */
    /* inside */
    char held[ANSWER_LINK_BYTES_MAX];
    size_t held_bytes;
    bool is_left_out; /* the rest of a long word */
};
void answer_links_feed(struct answer_links *links, str piece, struct strbuf *out);
void answer_links_end(struct answer_links *links, struct strbuf *out);

#endif
