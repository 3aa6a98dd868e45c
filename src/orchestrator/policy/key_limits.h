/*
 * Limits of a virtual key: their form in requests, answers and API_KEYS.limits.
 *
 *      {"models": ["fast", "agent:*"], "requests_per_minute": 60, "tokens_per_minute": 100000, "streams": 8, "has_budget": true}
 *
 * The budget itself is the ledger's account of level `key`; `has_budget` says that there is one.  Pure.
 */
#ifndef NEXUS_ORCHESTRATOR_KEY_LIMITS_H
#define NEXUS_ORCHESTRATOR_KEY_LIMITS_H

#include "base/json.h"
#include "orchestrator/policy/principal.h"

/* Members that are absent leave `limits` as it is, null or an empty list takes the limit away.  SCHEMA names the member. */
must_check bool key_limits_read(struct arena *arena, const struct json *json,
                                struct key_limits *limits, struct error *e);
/* From the stored text; a text that cannot be read is an error, never "no limits". */
must_check bool key_limits_parse(struct arena *arena, str text, struct key_limits *limits,
                                 bool *has_budget, struct error *e);
bool key_limits_are_any(const struct key_limits *limits);
/* The members, into an object that is open. */
void key_limits_write(struct json_writer *w, const struct key_limits *limits, bool has_budget);
str key_limits_text(struct arena *arena, const struct key_limits *limits, bool has_budget);

#endif
