/*
 * Warm-up: every tool's code is compiled (or loaded from what was compiled before) when the program starts, so that a first call is as
 * quick as any.  A tool that cannot be compiled is logged; the others go on.
 */
#ifndef NEXUS_CLI_WARM_UP_H
#define NEXUS_CLI_WARM_UP_H

#include "agent/executor.h"
#include "agent/tool/registry.h"

/* Interpreters as components take ten times as long to compile as all the rest. */
enum warm_up_part { WARM_UP_QUICK, WARM_UP_COMPONENTS };

/* `prepare` blocks; it is called on the blocking pool, several at once. */
may_suspend bool warm_up(struct context *ctx, enum warm_up_part part, struct registry *registry,
                         struct executor *executor,
                         bool (*prepare)(struct executor *executor, const struct tool *tool,
                                         struct error *e),
                         struct error *e);

#endif
