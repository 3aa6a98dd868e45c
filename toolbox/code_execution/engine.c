/* Compiles the engine in one piece, because the stack limit is a field only quickjs.c can see. */
#include "quickjs.c"

#include "engine.h"

void engine_limit_stack(JSRuntime *runtime, size_t bytes)
{
    uintptr_t here = (uintptr_t) __builtin_frame_address(0);
    runtime->stack_top = here;
    runtime->stack_size = bytes;
    runtime->stack_limit = here > bytes ? here - bytes : 1;
}
