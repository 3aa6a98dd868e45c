#include "base/arena.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "base/spare.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/*
 * Under ASan what was not handed out is poisoned, so that a stale or overrun pointer is found at
 * once.
 */
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_HAS_ASAN 1
#endif
#endif
#ifdef ARENA_HAS_ASAN
#include <sanitizer/asan_interface.h>
#define POISON(ptr, size) ASAN_POISON_MEMORY_REGION((ptr), (size))
#define UNPOISON(ptr, size) ASAN_UNPOISON_MEMORY_REGION((ptr), (size))
#define KEPT_CHUNKS_MAX 0u /* what is destroyed is gone: ASan sees who still uses it */
#else
#define KEPT_CHUNKS_MAX ARENA_CACHE_CHUNKS_MAX
#define POISON(ptr, size) ((void) (ptr), (void) (size))
#define UNPOISON(ptr, size) ((void) (ptr), (void) (size))
#endif

enum { ALIGNMENT = 16 };

/*
 * The bump chunks form a stack; `current` is its top.  A chunk's header is followed by its bytes;
 * the arena itself lies in its first chunk, so that an arena which stays small costs one block (and
 * mostly none: see the cache).
 */
struct chunk {
    struct chunk *previous;
    size_t size;         /* of the whole block */
    size_t start;        /* offset of the first byte that may be handed out */
    size_t used;         /* offset of the first free byte */
    size_t bytes_before; /* handed out by the chunks below */
} __attribute__((aligned(ALIGNMENT)));

/*
 * A large allocation has a block of its own and a node among the small ones.  The node's place in
 * the bump order tells which rewinds free the block; so marks need to know nothing about blocks.
 */
struct large {
    struct large *previous;
    void *memory;
    size_t bytes;
    struct chunk *chunk; /* where this node lies */
    size_t offset;
};

struct arena {
    struct chunk *current;
    struct large *large;
    size_t large_bytes;
    size_t limit_bytes;
};

/* ---- blocks from the system, and the cache of first chunks ---- */

/* Requests come and go by the thousand; each thread keeps some of their first chunks. */
static _Thread_local struct {
    struct chunk *chunks;
    struct spare spare;
    bool is_registered; /* drop_cache() runs when this thread ends */
} cache;

static pthread_key_t cache_key;
static pthread_once_t cache_once = PTHREAD_ONCE_INIT;

static void *system_alloc(size_t size, bool zeroed)
{
    void *memory = zeroed ? calloc(1, size) : malloc(size);
    if (unlikely(memory == NULL))
        ensure_failed("out of memory", __FILE__, __LINE__);
    return memory;
}

static void chunk_free(struct chunk *chunk)
{
    UNPOISON(chunk, chunk->size);
    free(chunk);
}

static void drop_cache(void *unused)
{
    (void) unused;
    while (cache.chunks) {
        struct chunk *chunk = cache.chunks;
        cache.chunks = chunk->previous;
        chunk_free(chunk);
    }
    cache.spare = (struct spare){0};
    cache.is_registered = false;
}

static void create_cache_key(void)
{
    ensure(pthread_key_create(&cache_key, drop_cache) == 0);
}

static struct chunk *chunk_create(size_t size)
{
    struct chunk *chunk = system_alloc(size, false);
    *chunk = (struct chunk){.size = size, .start = sizeof(*chunk), .used = sizeof(*chunk)};
    POISON((char *) chunk + chunk->used, size - chunk->used);
    return chunk;
}

static struct chunk *first_chunk_take(void)
{
    struct chunk *chunk = cache.chunks;
    if (!chunk)
        return chunk_create(ARENA_CHUNK_BYTES_FIRST);
    cache.chunks = chunk->previous;
    spare_took(&cache.spare);
    chunk->previous = NULL;
    chunk->start = chunk->used = sizeof(*chunk);
    return chunk;
}

static void first_chunk_give(struct chunk *chunk)
{
    if (cache.spare.count + 1 > KEPT_CHUNKS_MAX) {
        chunk_free(chunk);
        return;
    }
    if (unlikely(!cache.is_registered)) {
        pthread_once(&cache_once, create_cache_key);
        ensure(pthread_setspecific(cache_key, &cache) ==
               0); /* any non-NULL value: it makes drop_cache() run */
        cache.is_registered = true;
    }
    POISON((char *) chunk + sizeof(*chunk), chunk->size - sizeof(*chunk));
    chunk->previous = cache.chunks;
    cache.chunks = chunk;
    spare_gave(&cache.spare);
}

/* ---- allocation ---- */

static size_t round_up(size_t size)
{
    return (size + ALIGNMENT - 1) & ~(size_t) (ALIGNMENT - 1);
}

static size_t size_taken(size_t size)
{
    ensure(size <= SIZE_MAX / 4);
    return size == 0 ? ALIGNMENT : round_up(size);
}

static void *bump(struct chunk *chunk, size_t size)
{
    size_t taken = size_taken(size);
    if (unlikely(taken > chunk->size - chunk->used))
        return NULL;
    void *memory = (char *) chunk + chunk->used;
    chunk->used += taken;
    UNPOISON(memory, size);
    return memory;
}

/*
 * A new chunk on top, twice the size of the last (within the bounds), or as much as this allocation
 * needs.
 */
static void *bump_in_new_chunk(struct arena *arena, size_t size)
{
    struct chunk *below = arena->current;
    size_t chunk_bytes = below->size < ARENA_CHUNK_BYTES_MAX ? below->size * 2 : below->size;
    while (chunk_bytes < sizeof(struct chunk) + size_taken(size))
        chunk_bytes *= 2;
    struct chunk *chunk = chunk_create(chunk_bytes);
    chunk->previous = below;
    chunk->bytes_before = below->bytes_before + below->used - below->start;
    arena->current = chunk;
    return bump(chunk, size);
}

static void *alloc_small(struct arena *arena, size_t size)
{
    void *memory = bump(arena->current, size);
    return likely(memory != NULL) ? memory : bump_in_new_chunk(arena, size);
}

/*
 * What the node takes of the bump chunks is subtracted, so that arena_bytes() counts exactly what
 * was asked for.
 */
static size_t large_counted(size_t bytes)
{
    return size_taken(bytes) - size_taken(sizeof(struct large));
}

static void *alloc_large(struct arena *arena, size_t size, bool zeroed)
{
    struct large *node = alloc_small(arena, sizeof(*node));
    *node = (struct large){
        .previous = arena->large,
        .memory = system_alloc(size, zeroed),
        .bytes = size,
        .chunk = arena->current,
        .offset = (size_t) ((char *) node - (char *) arena->current),
    };
    arena->large = node;
    arena->large_bytes += large_counted(size);
    return node->memory;
}

static void free_newest_large(struct arena *arena)
{
    struct large *node = arena->large;
    arena->large = node->previous;
    arena->large_bytes -= large_counted(node->bytes);
    free(node->memory);
}

static void *alloc(struct arena *arena, size_t size, bool zeroed)
{
    void *memory = bump(arena->current, size);
    if (unlikely(memory == NULL)) {
        if (size >= ARENA_LARGE_BYTES)
            return alloc_large(arena, size, zeroed);
        memory = bump_in_new_chunk(arena, size);
    }
    return zeroed ? memset(memory, 0, size) : memory;
}

/* The last thing the current chunk handed out, if that is where `memory` ends. */
static bool is_last_small(const struct arena *arena, const void *memory, size_t bytes)
{
    const struct chunk *chunk = arena->current;
    uintptr_t begin = (uintptr_t) chunk + chunk->start;
    uintptr_t end = (uintptr_t) chunk + chunk->used;
    return (uintptr_t) memory >= begin && (uintptr_t) memory < end &&
           (uintptr_t) memory + size_taken(bytes) == end;
}

static bool resize_in_place(struct arena *arena, void *old, size_t old_bytes, size_t new_bytes)
{
    struct chunk *chunk = arena->current;
    if (!is_last_small(arena, old, old_bytes))
        return false;
    size_t offset = (size_t) ((char *) old - (char *) chunk);
    if (size_taken(new_bytes) > chunk->size - offset)
        return false;
    chunk->used = offset + size_taken(new_bytes);
    POISON(old, chunk->size - offset);
    UNPOISON(old, new_bytes);
    return true;
}

/* ---- public ---- */

struct arena *arena_create(size_t limit_bytes)
{
    struct chunk *chunk = first_chunk_take();
    struct arena *arena = bump(chunk, sizeof(*arena));
    *arena = (struct arena){
        .current = chunk,
        .limit_bytes = limit_bytes ? limit_bytes : ARENA_BYTES_DEFAULT,
    };
    chunk->start = chunk->used;
    return arena;
}

void arena_destroy(struct arena *arena)
{
    if (!arena)
        return;
    arena_reset(arena);
    first_chunk_give(arena->current);
}

void arena_rest(void)
{
    for (size_t left = spare_rest(&cache.spare); left > 0; left--) {
        struct chunk *chunk = cache.chunks;
        cache.chunks = chunk->previous;
        chunk_free(chunk);
    }
}

void *arena_alloc(struct arena *arena, size_t size)
{
    return alloc(arena, size, true);
}

void *arena_alloc_raw(struct arena *arena, size_t size)
{
    return alloc(arena, size, false);
}

void *arena_alloc_array(struct arena *arena, size_t count, size_t element_bytes)
{
    size_t size;
    ensure(!__builtin_mul_overflow(count, element_bytes, &size));
    return alloc(arena, size, true);
}

void *arena_grow(struct arena *arena, void *old, size_t old_bytes, size_t new_bytes)
{
    if (!old)
        return alloc(arena, new_bytes, true);
    if (new_bytes <= old_bytes)
        return old;
    if (!resize_in_place(arena, old, old_bytes, new_bytes)) {
        void *moved = alloc(arena, new_bytes, false);
        memcpy(moved, old, old_bytes);
        old = moved;
    }
    memset((char *) old + old_bytes, 0, new_bytes - old_bytes);
    return old;
}

void *arena_resize_raw(struct arena *arena, void *old, size_t old_bytes, size_t new_bytes)
{
    if (resize_in_place(arena, old, old_bytes, new_bytes))
        return old;
    struct large *large = arena->large;
    if (large && large->memory == old) {
        arena->large_bytes += large_counted(new_bytes) - large_counted(large->bytes);
        if (new_bytes > large->bytes)
            large->memory = realloc(old, new_bytes);
        large->bytes = new_bytes;
        ensure(large->memory != NULL);
        return large->memory;
    }
    if (new_bytes <= old_bytes)
        return old;
    void *moved = alloc(arena, new_bytes, false);
    if (old_bytes > 0)
        memcpy(moved, old, old_bytes);
    return moved;
}

arena_mark arena_save(const struct arena *arena)
{
    return (arena_mark){arena->current, arena->current->used};
}

void arena_rewind(struct arena *arena, arena_mark mark)
{
    while (arena->current != mark.chunk) {
        struct chunk *chunk = arena->current;
        ensure(chunk->previous != NULL); /* else the mark is of another arena, or stale */
        while (arena->large && arena->large->chunk == chunk)
            free_newest_large(arena);
        arena->current = chunk->previous;
        chunk_free(chunk);
    }
    struct chunk *chunk = arena->current;
    ensure(mark.used >= chunk->start && mark.used <= chunk->used);
    while (arena->large && arena->large->chunk == chunk && arena->large->offset >= mark.used)
        free_newest_large(arena);
    chunk->used = mark.used;
    POISON((char *) chunk + chunk->used, chunk->size - chunk->used);
}

void arena_reset(struct arena *arena)
{
    struct chunk *first = arena->current;
    while (first->previous)
        first = first->previous;
    arena_rewind(arena, (arena_mark){first, first->start});
}

size_t arena_bytes(const struct arena *arena)
{
    const struct chunk *chunk = arena->current;
    return chunk->bytes_before + (chunk->used - chunk->start) + arena->large_bytes;
}

size_t arena_bytes_left(const struct arena *arena)
{
    size_t bytes = arena_bytes(arena);
    return bytes < arena->limit_bytes ? arena->limit_bytes - bytes : 0;
}

bool arena_is_over(const struct arena *arena)
{
    return arena_bytes(arena) > arena->limit_bytes;
}
