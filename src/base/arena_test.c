#include "base/arena.h"

#include "base/limits.h"

#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

static bool is_zero(const void *memory, size_t size)
{
    const char *bytes = memory;
    for (size_t i = 0; i < size; i++) {
        if (bytes[i] != 0)
            return false;
    }
    return true;
}

static void test_memory_is_zeroed_and_aligned(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    for (size_t size = 0; size < 40000; size = size * 2 + 3) {
        char *memory = arena_alloc(arena, size);
        assert_int_equal((uintptr_t) memory % 16, 0);
        assert_true(is_zero(memory, size));
        memset(memory, 0xa5, size);
    }
}

static void test_memory_is_zeroed_again_after_a_rewind(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    arena_mark mark = arena_save(arena);
    memset(arena_alloc(arena, 1000), 0xa5, 1000);
    arena_rewind(arena, mark);
    assert_true(is_zero(arena_alloc(arena, 1000), 1000));
}

static void test_memory_is_zeroed_in_a_chunk_taken_from_the_cache(void **state)
{
    (void) state;
    struct arena *arena = arena_create(0);
    memset(arena_alloc(arena, 3000), 0xa5, 3000);
    arena_destroy(arena);
    arena = arena_create(0);
    assert_true(is_zero(arena_alloc(arena, 3000), 3000));
    arena_destroy(arena);
}

static void test_bytes_count_what_was_handed_out(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_int_equal(arena_bytes(arena), 0);
    arena_alloc(arena, 16);
    arena_alloc(arena, 100);
    assert_int_equal(arena_bytes(arena), 16 + 112);
    arena_alloc(arena, 1u << 20);
    assert_int_equal(arena_bytes(arena), 16 + 112 + (1u << 20));
    for (int i = 0; i < 1000; i++)
        arena_alloc(arena, 160);
    assert_int_equal(arena_bytes(arena), 16 + 112 + (1u << 20) + 160000);
}

static void test_an_arena_is_over_one_past_its_limit(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(1u << 20);
    arena_alloc(arena, 1u << 20);
    assert_false(arena_is_over(arena));
    assert_int_equal(arena_bytes_left(arena), 0);
    arena_alloc(arena, 1);
    assert_true(arena_is_over(arena));
    assert_int_equal(arena_bytes_left(arena), 0);
    arena_reset(arena);
    assert_false(arena_is_over(arena));
    assert_int_equal(arena_bytes_left(arena), 1u << 20);
}

static void test_the_default_limit_is_the_one_of_limits_h(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    assert_int_equal(arena_bytes_left(arena), ARENA_BYTES_DEFAULT);
}

static void test_rewinds_give_back_small_and_large_memory(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    arena_mark marks[20];
    size_t bytes[20];
    char *kept[20];
    for (size_t i = 0; i < 20; i++) {
        marks[i] = arena_save(arena);
        bytes[i] = arena_bytes(arena);
        kept[i] = arena_alloc(arena, i % 3 == 0 ? 100000 : 900 * i);
        memset(kept[i], (int) i + 1, 100);
    }
    for (size_t i = 20; i-- > 0;) {
        for (size_t j = 0; j <= i; j++)
            assert_int_equal(kept[j][99], j + 1); /* what lies below a mark survives the rewind */
        arena_rewind(arena, marks[i]);
        assert_int_equal(arena_bytes(arena), bytes[i]);
    }
    assert_int_equal(arena_bytes(arena), 0);
}

static void test_a_large_block_made_just_before_a_mark_survives_its_rewind(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    char *before = arena_alloc(arena, 50000);
    arena_mark mark = arena_save(arena);
    char *after = arena_alloc(arena, 50000);
    after[0] = 1;
    arena_rewind(arena, mark);
    before[49999] = 7;
    assert_int_equal(arena_bytes(arena), 50000);
}

static void test_grow_extends_the_newest_allocation_in_place(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    char *first = arena_alloc(arena, 10);
    memset(first, 'x', 10);
    char *grown = arena_grow(arena, first, 10, 500);
    assert_ptr_equal(grown, first);
    assert_int_equal(grown[9], 'x');
    assert_true(is_zero(grown + 10, 490));
    assert_int_equal(arena_bytes(arena), 512);
}

static void test_grow_copies_when_something_lies_behind(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    char *first = arena_alloc(arena, 10);
    memset(first, 'x', 10);
    arena_alloc(arena, 1);
    char *grown = arena_grow(arena, first, 10, 50000);
    assert_ptr_not_equal(grown, first);
    assert_memory_equal(grown, "xxxxxxxxxx", 10);
    assert_true(is_zero(grown + 10, 50000 - 10));
    assert_int_equal(first[0], 'x'); /* the old one stays readable */
}

static void test_grow_of_nothing_allocates_and_never_shrinks(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    char *memory = arena_grow(arena, NULL, 0, 64);
    assert_true(is_zero(memory, 64));
    assert_ptr_equal(arena_grow(arena, memory, 64, 10), memory);
    assert_int_equal(arena_bytes(arena), 64);
}

static void test_resize_shrinks_and_extends_the_newest_large_block(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    char *memory = arena_alloc_raw(arena, 100000);
    memset(memory, 'x', 100000);
    memory = arena_resize_raw(arena, memory, 100000, 300000);
    assert_int_equal(memory[99999], 'x');
    assert_int_equal(arena_bytes(arena), 300000);
    memory = arena_resize_raw(arena, memory, 300000, 32);
    assert_int_equal(memory[31], 'x');
    assert_int_equal(arena_bytes(arena), 32);
    arena_reset(arena);
    assert_int_equal(arena_bytes(arena), 0);
}

static void test_resize_shrinks_the_newest_small_block(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    char *memory = arena_alloc_raw(arena, 1000);
    assert_ptr_equal(arena_resize_raw(arena, memory, 1000, 20), memory);
    assert_int_equal(arena_bytes(arena), 32);
    assert_ptr_equal(arena_alloc(arena, 1), memory + 32);
}

static void test_resize_moves_what_is_not_the_newest(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    char *large = arena_alloc_raw(arena, 20000), *newer = arena_alloc(arena, 20000);
    memset(large, 'x', 20000);
    newer[0] = 1;
    assert_ptr_equal(arena_resize_raw(arena, large, 20000, 100), large);
    char *moved = arena_resize_raw(arena, large, 20000, 40000);
    assert_ptr_not_equal(moved, large);
    assert_int_equal(moved[19999], 'x');
}

static void test_arrays_have_room_for_each_element(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    uint64_t *numbers = ARENA_ARRAY(arena, uint64_t, 1000);
    numbers[999] = 1;
    assert_int_equal(numbers[0], 0);
    assert_int_equal(arena_bytes(arena), 8000);
    struct pair {
        int a, b;
    } *pair = ARENA_NEW(arena, struct pair);
    assert_int_equal(pair->b, 0);
}

static void *make_and_destroy_many(void *unused)
{
    struct arena *arenas[ARENA_CACHE_CHUNKS_MAX + 10]; /* more than the cache keeps */
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < ARRAY_COUNT(arenas); i++) {
            arenas[i] = arena_create(0);
            memset(arena_alloc(arenas[i], 2000), 1, 2000);
        }
        for (size_t i = 0; i < ARRAY_COUNT(arenas); i++)
            arena_destroy(arenas[i]);
    }
    return unused;
}

static void test_a_thread_returns_its_cache_when_it_ends(void **state)
{
    (void) state;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, make_and_destroy_many, NULL), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0); /* the leak checker does the rest */
}

static void test_chunks_that_no_arena_needs_go_back_to_the_heap(void **state)
{
    (void) state;
    struct arena *arenas[100];
    for (size_t i = 0; i < ARRAY_COUNT(arenas); i++)
        arenas[i] = arena_create(0);
    for (size_t i = 0; i < ARRAY_COUNT(arenas); i++)
        arena_destroy(arenas[i]);
    size_t kept = mallinfo2().uordblks;
    if (kept == 0)
        skip();   /* an allocator that does not count, of a sanitizer or valgrind */
    arena_rest(); /* all were in use since it began */
    assert_int_equal(mallinfo2().uordblks, kept);
    for (int i = 0; i < 12; i++)
        arena_rest();
    assert_true(mallinfo2().uordblks + 90 * ARENA_CHUNK_BYTES_FIRST < kept);
    OWNED(arena) arena = arena_create(0);
    memset(arena_alloc(arena, 2000), 1, 2000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_zeroed_and_aligned),
        cmocka_unit_test(test_memory_is_zeroed_again_after_a_rewind),
        cmocka_unit_test(test_memory_is_zeroed_in_a_chunk_taken_from_the_cache),
        cmocka_unit_test(test_bytes_count_what_was_handed_out),
        cmocka_unit_test(test_an_arena_is_over_one_past_its_limit),
        cmocka_unit_test(test_the_default_limit_is_the_one_of_limits_h),
        cmocka_unit_test(test_rewinds_give_back_small_and_large_memory),
        cmocka_unit_test(test_a_large_block_made_just_before_a_mark_survives_its_rewind),
        cmocka_unit_test(test_grow_extends_the_newest_allocation_in_place),
        cmocka_unit_test(test_grow_copies_when_something_lies_behind),
        cmocka_unit_test(test_grow_of_nothing_allocates_and_never_shrinks),
        cmocka_unit_test(test_resize_shrinks_and_extends_the_newest_large_block),
        cmocka_unit_test(test_resize_shrinks_the_newest_small_block),
        cmocka_unit_test(test_resize_moves_what_is_not_the_newest),
        cmocka_unit_test(test_arrays_have_room_for_each_element),
        cmocka_unit_test(test_a_thread_returns_its_cache_when_it_ends),
        cmocka_unit_test(test_chunks_that_no_arena_needs_go_back_to_the_heap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
