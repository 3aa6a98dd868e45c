#include "runtime/stack_pool_internal.h"

#include "runtime/death_testkit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

static bool page_is_resident(char *address)
{
    unsigned char resident;
    char *page = (char *) ((uintptr_t) address & ~(uintptr_t) 4095);
    assert_int_equal(mincore(page, 1, &resident), 0);
    return resident & 1;
}

static void write_byte(void *address)
{
    *(volatile char *) address = 1;
}

static void test_a_stack_is_usable_to_both_ends(void **state)
{
    (void) state;
    struct stack_pool *pool = stack_pool_create(STACK_GUARD_EACH);
    char *stack = stack_pool_take(pool);
    memset(stack, 0xaa, STACK_USABLE_BYTES);
    stack_pool_give(pool, stack);
    stack_pool_destroy(pool);
}

static void test_a_returned_stack_is_taken_again_while_warm(void **state)
{
    (void) state;
    struct stack_pool *pool = stack_pool_create(STACK_GUARD_EACH);
    void *first = stack_pool_take(pool);
    stack_pool_give(pool, first);
    assert_int_equal(stack_pool_warm_count(pool), 1);
    assert_ptr_equal(stack_pool_take(pool), first);
    stack_pool_give(pool, first);
    stack_pool_destroy(pool);
}

static void test_writing_below_a_stack_ends_the_process(void **state)
{
    (void) state;
    struct stack_pool *pool = stack_pool_create(STACK_GUARD_EACH);
    char *first = stack_pool_take(pool);
    char *second = stack_pool_take(pool);
    if (stack_pool_guard(pool) == STACK_GUARD_EACH) {
        assert_true(process_dies(write_byte, first - 1));
        assert_true(process_dies(write_byte, second - 1));
        assert_true(process_dies(write_byte, second - STACK_GAP_BYTES));
    }
    stack_pool_give(pool, first);
    stack_pool_give(pool, second);
    stack_pool_destroy(pool);
}

static void give_back(void *argument)
{
    void **pair = argument;
    stack_pool_give(pair[0], pair[1]);
}

static void test_without_kernel_guards_a_canary_tells_the_overflow(void **state)
{
    (void) state;
    struct stack_pool *pool = stack_pool_create(STACK_GUARD_SPARSE);
    char *guarded = stack_pool_take(pool);
    char *plain = stack_pool_take(pool);
    assert_true(process_dies(write_byte, guarded - 1));
    assert_false(process_dies(give_back, (void *[]){pool, plain}));
    plain[-1] ^= 1;
    assert_true(process_dies(give_back, (void *[]){pool, plain}));
    plain[-1] ^= 1;
    stack_pool_give(pool, plain);
    stack_pool_give(pool, guarded);
    stack_pool_destroy(pool);
}

static void check_trim(enum stack_guard guard)
{
    enum { COUNT = STACK_POOL_WARM_MAX + 40 };
    struct stack_pool *pool = stack_pool_create(guard);
    static char *stacks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        stacks[i] = stack_pool_take(pool);
        stacks[i][STACK_USABLE_BYTES - 1] = 1;
    }
    for (size_t i = 0; i < COUNT; i++)
        stack_pool_give(pool, stacks[i]);
    assert_int_equal(stack_pool_warm_count(pool), STACK_POOL_WARM_MAX);
    size_t resident = 0;
    for (size_t i = 0; i < COUNT; i++)
        resident += page_is_resident(&stacks[i][STACK_USABLE_BYTES - 1]);
    assert_int_equal(resident, STACK_POOL_WARM_MAX);
    /* All of them serve again, without a new slab; guards and canaries survived. */
    size_t slabs = stack_pool_slab_count(pool);
    for (size_t i = 0; i < COUNT; i++) {
        stacks[i] = stack_pool_take(pool);
        memset(stacks[i], 0x55, STACK_USABLE_BYTES);
    }
    assert_int_equal(stack_pool_slab_count(pool), slabs);
    if (stack_pool_guard(pool) == STACK_GUARD_EACH)
        assert_true(process_dies(write_byte, stacks[COUNT - 1] - 1));
    for (size_t i = 0; i < COUNT; i++)
        stack_pool_give(pool, stacks[i]);
    stack_pool_destroy(pool);
}

static void test_stacks_past_the_watermark_give_their_pages_back(void **state)
{
    (void) state;
    check_trim(STACK_GUARD_EACH);
    check_trim(STACK_GUARD_SPARSE);
}

static void check_rest(enum stack_guard guard)
{
    enum { COUNT = 64 };
    struct stack_pool *pool = stack_pool_create(guard);
    char *stacks[COUNT];
    for (size_t i = 0; i < COUNT; i++) {
        stacks[i] = stack_pool_take(pool);
        stacks[i][STACK_USABLE_BYTES - 1] = 1;
    }
    for (size_t i = 0; i < COUNT; i++)
        stack_pool_give(pool, stacks[i]);
    stack_pool_rest(pool); /* all were in use since it began */
    assert_int_equal(stack_pool_warm_count(pool), COUNT);
    char *used = stack_pool_take(pool);
    stack_pool_give(pool, used);
    stack_pool_rest(pool);
    assert_int_equal(stack_pool_warm_count(pool), COUNT / 2);
    assert_true(page_is_resident(&used[STACK_USABLE_BYTES - 1]));
    for (int i = 0; i < 10; i++)
        stack_pool_rest(pool);
    assert_int_equal(stack_pool_warm_count(pool), 0);
    size_t resident = 0;
    for (size_t i = 0; i < COUNT; i++)
        resident += page_is_resident(&stacks[i][STACK_USABLE_BYTES - 1]);
    assert_int_equal(resident, 0);
    for (size_t i = 0; i < COUNT; i++) {
        stacks[i] = stack_pool_take(pool);
        memset(stacks[i], 0x55, STACK_USABLE_BYTES);
    }
    assert_int_equal(stack_pool_slab_count(pool), 1);
    for (size_t i = 0; i < COUNT; i++)
        stack_pool_give(pool, stacks[i]);
    stack_pool_destroy(pool);
}

static void test_stacks_that_nobody_needs_lose_their_pages(void **state)
{
    (void) state;
    check_rest(STACK_GUARD_EACH);
    check_rest(STACK_GUARD_SPARSE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_stack_is_usable_to_both_ends),
        cmocka_unit_test(test_a_returned_stack_is_taken_again_while_warm),
        cmocka_unit_test(test_writing_below_a_stack_ends_the_process),
        cmocka_unit_test(test_without_kernel_guards_a_canary_tells_the_overflow),
        cmocka_unit_test(test_stacks_past_the_watermark_give_their_pages_back),
        cmocka_unit_test(test_stacks_that_nobody_needs_lose_their_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
