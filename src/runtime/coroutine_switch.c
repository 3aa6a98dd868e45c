#include "runtime/coroutine_switch_internal.h"

#include "base/ensure.h"

#ifdef NEXUS_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef NEXUS_TSAN
#include <sanitizer/tsan_interface.h>
#endif

/* boost.context's C entry points (boost/context/detail/fcontext.hpp is C++ only). */
struct transfer {
    void *position; /* of the side that jumped */
    void *data;
};
extern struct transfer jump_fcontext(void *to, void *data);
extern void *make_fcontext(void *stack_top, size_t bytes, void (*entry)(struct transfer));

/*
 * Always inline, without optimisation too: TSan notes each function's entry and exit on the fiber
 * that is current, so a function that left on another fiber than it was entered on would unbalance
 * both.
 */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE void announce_leave(struct execution *from, struct execution *to, bool is_last)
{
#ifdef NEXUS_ASAN
    __sanitizer_start_switch_fiber(is_last ? NULL : &from->fake_stack, to->stack_bottom,
                                   to->stack_bytes);
#endif
#ifdef NEXUS_TSAN
    __tsan_switch_to_fiber(to->fiber, 0);
#endif
    (void) from;
    (void) to;
    (void) is_last;
}

ALWAYS_INLINE void announce_arrival(struct execution *here, void *origin_position)
{
    here->origin->position = origin_position;
#ifdef NEXUS_ASAN
    __sanitizer_finish_switch_fiber(here->fake_stack, &here->origin->stack_bottom,
                                    &here->origin->stack_bytes);
#endif
}

static void start_execution(struct transfer transfer)
{
    struct execution *here = transfer.data;
    announce_arrival(here, transfer.position);
    here->entry(here->argument);
    unreachable_state();
}

void execution_adopt_thread(struct execution *execution)
{
#ifdef NEXUS_TSAN
    execution->fiber = __tsan_get_current_fiber();
#else
    (void) execution;
#endif
}

void execution_init(struct execution *execution, void *stack_bottom, size_t stack_bytes,
                    execution_entry *entry, void *argument)
{
    *execution = (struct execution){
        .position =
            make_fcontext((char *) stack_bottom + stack_bytes, stack_bytes, start_execution),
        .stack_bottom = stack_bottom,
        .stack_bytes = stack_bytes,
        .entry = entry,
        .argument = argument,
    };
#ifdef NEXUS_TSAN
    execution->fiber = __tsan_create_fiber(0);
#endif
}

never_inline void execution_switch(struct execution *from, struct execution *to)
{
    to->origin = from;
    announce_leave(from, to, false);
    struct transfer transfer = jump_fcontext(to->position, to);
    announce_arrival(from, transfer.position);
}

never_inline void execution_finish(struct execution *from, struct execution *to)
{
    to->origin = from;
    announce_leave(from, to, true);
    jump_fcontext(to->position, to);
    unreachable_state();
}

void execution_release(struct execution *execution)
{
#ifdef NEXUS_TSAN
    __tsan_destroy_fiber(execution->fiber);
#endif
    execution->fiber = NULL;
    execution->position = NULL;
}
