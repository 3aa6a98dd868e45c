#include "runtime/stack_pool_internal.h"

#include "base/ensure.h"
#include "base/spare.h"
#include "runtime/coroutine_switch_internal.h"
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef NEXUS_ASAN
#include <sanitizer/asan_interface.h>
#endif
#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif
#ifndef VALGRIND_STACK_REGISTER
#define VALGRIND_STACK_REGISTER(start, end) 0
#define VALGRIND_STACK_DEREGISTER(id) ((void) (id))
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* Linux 6.13; Debian 12's headers do not know it */
#endif

enum { CANARY_WORDS = 8 };
static const uint64_t canary_word = 0x5afe57ac6b0b5eedu;

struct slab {
    void *map;
    char *base;        /* in the map, aligned to STACK_GUARD_INTERVAL stacks */
    size_t used_count; /* stacks ever handed out; they are set up on first use */
    unsigned valgrind_ids[STACK_SLAB_STACKS];
};

struct stack_pool {
    enum stack_guard guard;
    struct slab **slabs;
    size_t slab_count;
    /* Free stacks are kept beside, not threaded through their memory: that would touch pages given
     * back. */
    void *warm[STACK_POOL_WARM_MAX];
    struct spare warm_spare; /* how many of `warm` there are */
    void **cold;             /* room for every stack of the slabs */
    size_t cold_count;
    size_t taken_count;
};

enum {
    SLAB_BYTES = STACK_SLAB_STACKS * COROUTINE_STACK_BYTES,
    SLAB_ALIGN_BYTES = STACK_GUARD_INTERVAL * COROUTINE_STACK_BYTES,
    SLAB_MAP_BYTES = SLAB_BYTES + SLAB_ALIGN_BYTES,
};
static_assert((SLAB_ALIGN_BYTES & (SLAB_ALIGN_BYTES - 1)) == 0, "rounded by a mask");

static uint64_t *canary_of(void *stack)
{
    return (uint64_t *) stack - CANARY_WORDS; /* the upper end of the gap */
}

static void canary_write(void *stack)
{
    for (size_t i = 0; i < CANARY_WORDS; i++)
        canary_of(stack)[i] = canary_word;
}

static void canary_check(void *stack)
{
    bool canary_is_whole = true;
    for (size_t i = 0; i < CANARY_WORDS; i++)
        canary_is_whole = canary_is_whole && canary_of(stack)[i] == canary_word;
    ensure(canary_is_whole); /* a coroutine overflowed its stack */
}

/* In a sparse pool: is this gap a guard (by its address alone) or does it hold a canary? */
static bool gap_is_guard(const char *gap)
{
    return ((uintptr_t) gap & (SLAB_ALIGN_BYTES - 1)) == 0;
}

static bool has_canary(const struct stack_pool *pool, const void *stack)
{
    return pool->guard == STACK_GUARD_SPARSE &&
           !gap_is_guard((const char *) stack - STACK_GAP_BYTES);
}

static bool guard_install(char *gap)
{
    int result;
    do
        result = madvise(gap, STACK_GAP_BYTES, MADV_GUARD_INSTALL);
    while (result != 0 && (errno == EINTR || errno == EAGAIN));
    return result == 0;
}

static void guard_gap(struct stack_pool *pool, char *gap)
{
    if (pool->guard == STACK_GUARD_EACH && guard_install(gap))
        return;
    /* An old kernel refuses the very first; a later failure would leave stacks without guard or
     * canary. */
    ensure(pool->guard == STACK_GUARD_SPARSE || pool->taken_count == 1);
    pool->guard = STACK_GUARD_SPARSE;
    if (gap_is_guard(gap))
        ensure(mprotect(gap, STACK_GAP_BYTES, PROT_NONE) == 0);
}

static void add_slab(struct stack_pool *pool)
{
    struct slab *slab = calloc(1, sizeof *slab);
    struct slab **slabs = realloc(pool->slabs, (pool->slab_count + 1) * sizeof(struct slab *));
    void **cold = realloc(pool->cold, (pool->slab_count + 1) * STACK_SLAB_STACKS * sizeof(void *));
    ensure(slab != NULL && slabs != NULL && cold != NULL);
    slab->map = mmap(NULL, SLAB_MAP_BYTES, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
    ensure(slab->map != MAP_FAILED);
    slab->base = (char *) (((uintptr_t) slab->map + SLAB_ALIGN_BYTES - 1) &
                           ~(uintptr_t) (SLAB_ALIGN_BYTES - 1));
    /* A huge page would back 32 stacks at once and make each cost its full reserve.  EINVAL: a
     * kernel without them. */
    (void) madvise(slab->map, SLAB_MAP_BYTES, MADV_NOHUGEPAGE);
    pool->slabs = slabs;
    pool->cold = cold;
    pool->slabs[pool->slab_count++] = slab;
}

static void *carve(struct stack_pool *pool)
{
    if (pool->slab_count == 0 || pool->slabs[pool->slab_count - 1]->used_count == STACK_SLAB_STACKS)
        add_slab(pool);
    struct slab *slab = pool->slabs[pool->slab_count - 1];
    size_t index = slab->used_count++;
    char *gap = slab->base + index * COROUTINE_STACK_BYTES;
    guard_gap(pool, gap);
    char *stack = gap + STACK_GAP_BYTES;
    slab->valgrind_ids[index] = VALGRIND_STACK_REGISTER(stack, stack + STACK_USABLE_BYTES);
    return stack;
}

struct stack_pool *stack_pool_create(enum stack_guard wanted)
{
    struct stack_pool *pool = calloc(1, sizeof *pool);
    ensure(pool != NULL);
    pool->guard = wanted;
    return pool;
}

void stack_pool_destroy(struct stack_pool *pool)
{
    if (!pool)
        return;
    ensure(pool->taken_count == 0);
    for (size_t i = 0; i < pool->slab_count; i++) {
        struct slab *slab = pool->slabs[i];
        for (size_t j = 0; j < slab->used_count; j++)
            VALGRIND_STACK_DEREGISTER(slab->valgrind_ids[j]);
        ensure(munmap(slab->map, SLAB_MAP_BYTES) == 0);
        free(slab);
    }
    free(pool->slabs);
    free(pool->cold);
    free(pool);
}

void *stack_pool_take(struct stack_pool *pool)
{
    pool->taken_count++;
    if (pool->warm_spare.count > 0) {
        spare_took(&pool->warm_spare);
        return pool->warm[pool->warm_spare.count];
    }
    void *stack = pool->cold_count > 0 ? pool->cold[--pool->cold_count] : carve(pool);
    if (has_canary(pool, stack))
        canary_write(stack);
    return stack;
}

/* Its pages go back to the kernel. */
static void cool(struct stack_pool *pool, void *stack)
{
    ensure(madvise(stack, STACK_USABLE_BYTES, MADV_DONTNEED) == 0);
    pool->cold[pool->cold_count++] = stack;
}

void stack_pool_give(struct stack_pool *pool, void *stack)
{
    pool->taken_count--;
    if (has_canary(pool, stack))
        canary_check(stack);
#ifdef NEXUS_ASAN
    /* The last frames were left, not returned from: their red zones are still poisoned. */
    __asan_unpoison_memory_region(stack, STACK_USABLE_BYTES);
#endif
    if (pool->warm_spare.count < STACK_POOL_WARM_MAX) {
        pool->warm[pool->warm_spare.count] = stack;
        spare_gave(&pool->warm_spare);
        return;
    }
    cool(pool, stack);
}

/* Those at the front were in use longest ago. */
void stack_pool_rest(struct stack_pool *pool)
{
    size_t count = spare_rest(&pool->warm_spare);
    for (size_t i = 0; i < count; i++)
        cool(pool, pool->warm[i]);
    memmove(pool->warm, pool->warm + count, pool->warm_spare.count * sizeof pool->warm[0]);
}

enum stack_guard stack_pool_guard(const struct stack_pool *pool)
{
    return pool->guard;
}

size_t stack_pool_warm_count(const struct stack_pool *pool)
{
    return pool->warm_spare.count;
}

size_t stack_pool_slab_count(const struct stack_pool *pool)
{
    return pool->slab_count;
}
