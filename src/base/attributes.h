/*
 * Attributes: the few words this code base adds to C.
 *
 * may_suspend   marks a function that can wait: other coroutines run meanwhile, so look things up again after it.
 * must_check    the result says whether it worked; ignoring it does not compile.
 * format_like   printf-style checking.
 * OWNED(type)   a local that is destroyed on every return path; GIVE(x) hands it on instead.
 */
#ifndef NEXUS_BASE_ATTRIBUTES_H
#define NEXUS_BASE_ATTRIBUTES_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define must_check __attribute__((warn_unused_result))
#define may_suspend must_check
#define may_suspend_void
#define format_like(format_index, first_index)                                                     \
    __attribute__((format(printf, format_index, first_index)))
#define noreturn_function __attribute__((noreturn))
#define never_inline __attribute__((noinline))
/* What leads to it is an exception: the compiler moves those branches out of the way of the others. */
#define cold_path __attribute__((cold))
/* For a large local that is written before it is read: the build clears all others. */
#if defined(__has_attribute)
#if __has_attribute(uninitialized)
#define not_cleared __attribute__((uninitialized))
#endif
#endif
#ifndef not_cleared
#define not_cleared
#endif
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* Declares the clean-up that OWNED(type) uses: type_destroy(struct type *), NULL is fine. */
#define OWNED_DEFINE(type)                                                                         \
    static inline void type##_cleanup(struct type **type##_slot)                                   \
    {                                                                                              \
        type##_destroy(*type##_slot);                                                              \
    }
#define OWNED(type) __attribute__((cleanup(type##_cleanup))) struct type *

/* Hands an owned pointer on: the local becomes NULL. */
#define GIVE(x)                                                                                    \
    __extension__({                                                                                \
        __typeof__(x) given_ = (x);                                                                \
        (x) = NULL;                                                                                \
        given_;                                                                                    \
    })

#define ARRAY_COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *) ((char *) (ptr) -offsetof(type, member)))

#endif
