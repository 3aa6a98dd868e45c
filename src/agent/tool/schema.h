/*
 * JSON Schema: does a value fit?  With errors that a model can act on.
 *
 * Schemas come from outside (MCP servers), so compiling and checking run on the blocking pool: their cost is not ours to foresee, and the
 * library behind is too deep for a coroutine's stack.
 */
#ifndef NEXUS_AGENT_SCHEMA_H
#define NEXUS_AGENT_SCHEMA_H

#include "base/json.h"
#include "runtime/context.h"

/* `reason` with "<what> does not fit its schema: <path>: <message>; ..."; REASON_UNSUPPORTED when the schema itself is none. */
may_suspend bool schema_check(struct context *ctx, str schema, str value, const char *what,
                              enum error_reason reason, struct error *e);

/* The same on this thread, which may block and has a stack of its own. */
must_check bool schema_check_here(str schema, str value, const char *what, enum error_reason reason,
                                  struct error *e);

#endif
