/*
 * The JavaScript engine: QuickJS-ng, unchanged, plus the one knob it lacks on WASI.
 *
 * On WASI the engine leaves its stack check off, so endless recursion would trap and lose all output.
 * engine_limit_stack() turns the check on: recursion then throws a RangeError that code can catch.
 */
#ifndef CODE_EXECUTION_ENGINE_H
#define CODE_EXECUTION_ENGINE_H

#include <stddef.h>

#include "quickjs.h"

/* `bytes` of the C stack below the caller's frame may be used from now on. */
void engine_limit_stack(JSRuntime *runtime, size_t bytes);

#endif
