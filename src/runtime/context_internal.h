/*
 * Waits that nothing cuts short: for joining what is known to end (a group's children, a job on the
 * blocking pool).
 */
#ifndef NEXUS_RUNTIME_CONTEXT_INTERNAL_H
#define NEXUS_RUNTIME_CONTEXT_INTERNAL_H

#include "runtime/context.h"

void waiter_join(struct waiter *waiter); /* suspends until woken, whatever ctx says */
void condition_join(struct condition *condition, struct context *ctx);

#endif
