/*
 * A client's own tools in a call of an agent: its run's calls as ordinary tool calls, and their results back to the run.
 *
 * The id a client sees is "call_" and the 32 hex digits of the tool call's id, so that results find their run without any state here.
 */
#ifndef NEXUS_GATEWAY_CALL_CLIENT_TOOLS_H
#define NEXUS_GATEWAY_CALL_CLIENT_TOOLS_H

#include "gateway/gateway_internal.h"
#include "llm/prompt.h"

str client_call_id(struct arena *arena, uuid tool_call_id);
bool client_call_id_parse(str text, uuid *out);

/* The results at the end of a conversation; *count is 0 when it ends by something else.  SCHEMA for ids that are not an agent's. */
must_check bool client_results_read(struct arena *arena, const struct prompt *prompt,
                                    struct client_result **out, size_t *count, struct error *e);

/* The calls that a run.waiting event tells of, as TOOL_CALL parts on the call's arena; none: *count is 0. */
may_suspend bool client_calls_read(struct api_call *call, const struct json *waiting,
                                   struct part **out, size_t *count, struct error *e);

#endif
