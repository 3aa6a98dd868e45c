/*
 * Inflate: undoes the content coding of a body, piece by piece, within a bound.
 *
 * gzip (several members one after the other), and deflate in both forms that servers send (zlib's, and bare).  What comes out is bounded
 * by the caller's buffer, so a body that grows a thousandfold costs no more than that buffer.
 * Thread: one at a time.  Suspends: never.
 */
#ifndef NEXUS_NET_INFLATE_H
#define NEXUS_NET_INFLATE_H

#include "base/error.h"
#include "base/strbuf.h"

struct inflate;
/* NULL for a coding that is not known here ("br"), or none. */
struct inflate *inflate_create(str content_encoding);
void inflate_destroy(struct inflate *inflate); /* NULL is fine */
OWNED_DEFINE(inflate)

/* Adds to `out` what a piece becomes, up to out->max; *is_full: there was more.  UNAVAILABLE for damaged bytes. */
must_check bool inflate_piece(struct inflate *inflate, str piece, struct strbuf *out, bool *is_full,
                              struct error *e);
/* After the last piece: false when the body ends in the middle. */
bool inflate_is_complete(const struct inflate *inflate);

#endif
