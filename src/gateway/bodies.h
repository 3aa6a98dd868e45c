/*
 * Bodies: JSON of a request to the request of the layer below.  Pure: an arena and a tree in, plain data out; what is wrong is
 * REASON_SCHEMA naming the member.  `json` may be NULL (no body).
 */
#ifndef NEXUS_GATEWAY_BODIES_H
#define NEXUS_GATEWAY_BODIES_H

#include "gateway/keys/keys.h"
#include "orchestrator/memory/memory.h"
#include "orchestrator/orchestrator.h"

/* Sets *e; false.  `known`: names with a space between.  A member that is misspelt would be one that was never said. */
bool body_refuse_member(str name, str known, struct error *e);
must_check bool body_read_session(struct arena *arena, const struct json *json,
                                  struct session_request *out, struct error *e);
must_check bool body_read_session_change(struct arena *arena, const struct json *json,
                                         struct session_change *out, struct error *e);
/* UUID_NONE: the whole history. */
must_check bool body_read_clone(const struct json *json, uuid *at_message, struct error *e);
/* session_id stays as it is. */
must_check bool body_read_message(struct arena *arena, const struct json *json,
                                  struct run_request *out, bool *is_stream, struct error *e);
must_check bool body_read_decision(const struct json *json, struct approval_decision *out,
                                   struct error *e);
struct approval_delegation;
must_check bool body_read_delegation(const struct json *json, struct approval_delegation *out,
                                     struct error *e);
/* name stays as it is. */
must_check bool body_read_invocation(struct arena *arena, const struct json *json,
                                     struct tool_invocation *out, struct error *e);
/* Limits of the key itself go to out->limits, those of its account to *budget. */
must_check bool body_read_key(struct arena *arena, const struct json *json, struct key_request *out,
                              cost *budget, struct error *e);
/* The member "budget" ({tokens, time_seconds, cost_usd, tool_calls}); what it does not name stays as it is. */
must_check bool body_read_budget(struct arena *arena, const struct json *json, cost *out,
                                 struct error *e);
/* Who is not said stays as it is. */
must_check bool body_read_memory(struct arena *arena, const struct json *json,
                                 struct memory_entry *out, struct error *e);
must_check bool body_read_memory_query(const struct json *json, struct memory_query *out,
                                       struct error *e);
must_check bool body_read_policy_input(struct arena *arena, const struct json *json,
                                       struct policy_input *out, struct error *e);
/* A member that is absent or null means no limit: the document is the whole of the limits. */
must_check bool body_read_limits(struct arena *arena, const struct json *json,
                                 struct ledger_setting *out, struct error *e);

#endif
