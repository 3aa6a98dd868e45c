/*
 * Switching between stacks: the only place that knows boost.context and the sanitizers' fiber
 * calls.
 *
 * An execution is one side of a switch: a stack and the place where it stopped.  The thread's own
 * stack is one side, each coroutine another.  Every switch is announced to ASan (else it reports
 * stack addresses as wild) and TSan (else it sees one impossible thread); the last switch away from
 * a stack says so, which frees ASan's fake frames.
 * An execution never changes thread, so addresses of thread-locals that a compiler keeps across a
 * switch stay right.
 */
#ifndef NEXUS_RUNTIME_COROUTINE_SWITCH_INTERNAL_H
#define NEXUS_RUNTIME_COROUTINE_SWITCH_INTERNAL_H

#include "base/attributes.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NEXUS_ASAN 1
#endif
#if __has_feature(thread_sanitizer)
#define NEXUS_TSAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) && !defined(NEXUS_ASAN)
#define NEXUS_ASAN 1
#endif
#if defined(__SANITIZE_THREAD__) && !defined(NEXUS_TSAN)
#define NEXUS_TSAN 1
#endif

typedef void execution_entry(void *argument);

struct execution {
    void *position;           /* boost's context; meaningless while this side runs */
    const void *stack_bottom; /* of a coroutine; the thread's own is learnt from ASan */
    size_t stack_bytes;
    struct execution *origin; /* who switched here last */
    execution_entry *entry;
    void *argument;
    void *fake_stack; /* ASan */
    void *fiber;      /* TSan */
};

/* The calling thread's own stack. */
void execution_adopt_thread(struct execution *execution);
/* A fresh stack; the first switch to it calls entry(argument), which ends with execution_finish and
 * never returns. */
void execution_init(struct execution *execution, void *stack_bottom, size_t stack_bytes,
                    execution_entry *entry, void *argument);
/* Leaves `from` (the running side) for `to`; returns when somebody switches back to `from`. */
void execution_switch(struct execution *from, struct execution *to);
noreturn_function void execution_finish(struct execution *from, struct execution *to);
/* After the finish, from another side. */
void execution_release(struct execution *execution);

#endif
