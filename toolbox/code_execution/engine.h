/*
 * The JavaScript engine: QuickJS-ng, unchanged, plus what it lacks here.
 *
 * On WASI the engine leaves its stack check off, so endless recursion would trap and lose all output.
 * engine_limit_stack() turns the check on: recursion then throws a RangeError that code can catch.
 *
 * The module is shipped as a snapshot with the engine already made, so what the engine fixes when it is made (the
 * state of Math.random, the seed of its hash tables, the origin of performance.now) would be the same in each call.
 * engine_renew() makes all of it anew.
 */
#ifndef CODE_EXECUTION_ENGINE_H
#define CODE_EXECUTION_ENGINE_H

#include <stddef.h>

#include "quickjs.h"

/* `bytes` of the C stack below the caller's frame may be used from now on. */
void engine_limit_stack(JSRuntime *runtime, size_t bytes);

/* Before the first value of a call; while no Map or Set holds anything. */
void engine_renew(JSContext *ctx, uint64_t seed);

#endif
