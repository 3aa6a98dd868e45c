/*
 * What the files of anthropic_format share.
 */
#ifndef NEXUS_LLM_ANTHROPIC_FORMAT_INTERNAL_H
#define NEXUS_LLM_ANTHROPIC_FORMAT_INTERNAL_H

#include "llm/anthropic_format.h"

/* A usage object; `so_far` keeps what the object leaves out (message_delta after message_start). */
struct usage anthropic_read_usage(const struct json *usage, struct usage so_far);
/* Of a stream: message_start tells the input, and an output that has only begun, so nothing is reported before message_delta tells the rest.
   A stream that breaks between the two is booked by what was seen of it. */
struct usage anthropic_begin_usage(const struct json *usage);
struct usage anthropic_end_usage(const struct json *usage, struct usage begun);
enum finish anthropic_read_finish(str reason);
str anthropic_finish_word(enum finish finish);
void anthropic_write_usage(struct json_writer *w, const struct usage *usage);

/* The opaque of a thinking block's part: {"signature": ...}, or what another provider's part had. */
str anthropic_signature_opaque(struct arena *arena, str signature);
/* The signature that says it: the part's own, or the prefix with another provider's opaque; empty when there is none. */
str anthropic_opaque_signature(struct arena *arena, str opaque);

/* An opaque that is a whole block. */
bool anthropic_is_whole(struct arena *arena, str opaque);
/* Parses an opaque; NULL when it is no JSON object. */
const struct json *anthropic_parse_opaque(struct arena *arena, str opaque);
/* {"name": {...}} of those members of an object that are in the list; empty when there are none. */
str anthropic_pick(struct arena *arena, const struct json *object, const str *names, size_t count);

/* "input": an object.  Arguments that are no JSON object travel as {"arguments": text}. */
void anthropic_put_input(struct json_writer *w, str arguments);

#endif
