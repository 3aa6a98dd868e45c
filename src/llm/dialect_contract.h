/*
 * What every dialect must do, as one suite (cmocka assertions) run against each, and against each pair.
 *
 *      dialect_contract           alone: what is written is read again with the same meaning; a stream, however it is cut, says what
 *                                 the whole answer says; a glance at it tells kinds, finish and usage; edits keep every other byte;
 *                                 the filter sees every word; errors keep their class
 *      dialect_contract_pair      a request of `in` for a model of `out`, and its answer back: nothing is lost that both can say
 *
 * Prompts and replies are made of a seed: seed 0 gives the rich ones by hand, any other a random one.  What two dialects can both say
 * is told by a table in dialect_contract.c.
 */
#ifndef NEXUS_LLM_DIALECT_CONTRACT_H
#define NEXUS_LLM_DIALECT_CONTRACT_H

#include "base/limits.h"
#include "llm/dialect.h"

void dialect_contract(const struct dialect *dialect, uint64_t seed);
void dialect_contract_pair(const struct dialect *in, const struct dialect *out, uint64_t seed);

/* ---- of use elsewhere ---- */

/* A prompt that uses every member; a reply likewise. */
struct prompt *dialect_contract_prompt(struct arena *arena, uint64_t seed);
struct reply *dialect_contract_reply(struct arena *arena, uint64_t seed);

/* Deltas -> reply, as the reader of a stream sees it.  A delta whose opaque is an object ends its part. */
struct dialect_collector {
    struct arena *arena;
    struct reply reply;
    struct strbuf *texts;                  /* of the parts */
    size_t calls[PROVIDER_TOOL_CALLS_MAX]; /* part of each call */
    size_t call_count;
    bool is_closed; /* the last part takes no more pieces */
};
void dialect_collector_init(struct dialect_collector *collector, struct arena *arena);
void dialect_collector_add(struct dialect_collector *collector, const struct delta *delta);
struct reply dialect_collector_reply(struct dialect_collector *collector);

/* Reads a stream of the dialect, fed in pieces of random length; false with the error it holds, or PROVIDER_NETWORK when it has
 * no end. */
bool dialect_contract_read_stream(struct arena *arena, const struct dialect *dialect, str bytes,
                                  uint64_t seed, struct reply *out, struct error *e);
/* Writes a reply as a stream, its texts cut at random places. */
str dialect_contract_write_stream(struct arena *arena, const struct dialect *dialect,
                                  const struct reply *reply, uint64_t seed);

#endif
