/*
 * What the files of the dialects' contract share: chance by seed, and a parser that does not fail.
 */
#ifndef NEXUS_LLM_DIALECT_TESTKIT_INTERNAL_H
#define NEXUS_LLM_DIALECT_TESTKIT_INTERNAL_H

#include "llm/dialect_contract.h"

uint64_t dialect_testkit_random(uint64_t *state);
size_t dialect_testkit_below(uint64_t *state, size_t count);
/* Fails the test when the text is no JSON. */
const struct json *dialect_testkit_parse(struct arena *arena, str text);

#endif
