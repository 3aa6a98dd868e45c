/*
 * Stack pool: the stacks of one scheduler's coroutines.
 *
 *      slab: | gap | stack 0 | gap | stack 1 | ...     COROUTINE_STACK_BYTES each, its gap included
 *
 * - Reserved by the slab (one map), touched by the page: what a coroutine never reaches costs
 *   nothing.
 * - An overflow runs into the gap.  Where the kernel has MADV_GUARD_INSTALL (6.13) every gap is a
 *   guard that costs no map.  Elsewhere mprotect guards every STACK_GUARD_INTERVAL-th gap (a
 *   process gets about 65,000 maps) and each gap holds a canary, checked when the stack comes back: an
 *   overflow ends the process then, at the latest.
 * - At most STACK_POOL_WARM_MAX free stacks keep their pages; the pages of further ones, and of those
 *   that nobody needed for a while (stack_pool_rest), go back to the kernel.
 * Thread: the scheduler's.
 */
#ifndef NEXUS_RUNTIME_STACK_POOL_INTERNAL_H
#define NEXUS_RUNTIME_STACK_POOL_INTERNAL_H

#include "base/attributes.h"
#include "base/limits.h"

enum { STACK_GAP_BYTES = 4096, STACK_USABLE_BYTES = COROUTINE_STACK_BYTES - STACK_GAP_BYTES };

enum stack_guard { STACK_GUARD_EACH, STACK_GUARD_SPARSE };

struct stack_pool;

/* EACH falls back to SPARSE by itself when the kernel cannot. */
struct stack_pool *stack_pool_create(enum stack_guard wanted);
void stack_pool_destroy(struct stack_pool *pool); /* all stacks must be back */
/* Gives the lowest usable address; STACK_USABLE_BYTES from there. */
void *stack_pool_take(struct stack_pool *pool);
void stack_pool_give(struct stack_pool *pool, void *stack);
/* Now and then: half of the warm stacks that nobody needed since the last call become cold.  Some
 * microseconds for each. */
void stack_pool_rest(struct stack_pool *pool);
enum stack_guard stack_pool_guard(const struct stack_pool *pool);
size_t stack_pool_warm_count(const struct stack_pool *pool);
size_t stack_pool_slab_count(const struct stack_pool *pool);

#endif
