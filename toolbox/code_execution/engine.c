/* Compiles the engine in one piece, because these fields are seen by quickjs.c only. */
#include "quickjs.c"

#include "engine.h"

void engine_limit_stack(JSRuntime *runtime, size_t bytes)
{
    uintptr_t here = (uintptr_t) __builtin_frame_address(0);
    runtime->stack_top = here;
    runtime->stack_size = bytes;
    runtime->stack_limit = here > bytes ? here - bytes : 1;
}

void engine_renew(JSContext *ctx, uint64_t seed)
{
    ctx->random_state = seed != 0 ? seed : 1;
    ctx->hash_seed = (uint32_t) xorshift64star(&ctx->random_state);
    JS_AddPerformance(ctx);
}
