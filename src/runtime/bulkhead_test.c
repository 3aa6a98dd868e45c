#include "runtime/bulkhead.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/loop.h"

enum { LOOPS = 2, CALLERS = 40, ROUNDS = 50, PLACES = 3 };

struct shared {
    struct bulkhead door;
    struct loop *loops[LOOPS];
    _Atomic int inside, inside_max, passed, refused, left;
};

static void call(struct shared *s, struct context *ctx)
{
    struct error e = {0}, ignored = {0};
    if (!bulkhead_enter(&s->door, ctx, &(struct bulkhead_entry){S("door"), UUID_NONE, 20000}, &e)) {
        atomic_fetch_add(&s->refused, 1);
        return;
    }
    int inside = atomic_fetch_add(&s->inside, 1) + 1, most = atomic_load(&s->inside_max);
    while (inside > most && !atomic_compare_exchange_weak(&s->inside_max, &most, inside))
        continue;
    (void) !context_sleep_ms(ctx, inside % 2, &ignored);
    atomic_fetch_sub(&s->inside, 1);
    atomic_fetch_add(&s->passed, 1);
    bulkhead_leave(&s->door);
}

static void caller(void *argument)
{
    struct shared *s = argument;
    struct context ctx;
    OWNED(arena) arena = arena_create(0);
    context_init(&ctx, loop_scheduler(loop_current()), arena, DEADLINE_NONE);
    for (int i = 0; i < ROUNDS; i++)
        call(s, &ctx);
    context_deinit(&ctx);
    if (atomic_fetch_sub(&s->left, 1) == 1)
        for (size_t i = 0; i < LOOPS; i++)
            loop_stop(s->loops[i]);
}

static void start(void *argument)
{
    struct error e = {0};
    for (int i = 0; i < CALLERS / LOOPS; i++)
        if (!coroutine_start(loop_scheduler(loop_current()), "caller", caller, argument, &e))
            unreachable_state();
}

static void test_callers_of_two_loops_share_the_places_and_all_come_through(void **state)
{
    static struct shared s;
    struct error e = {0};
    (void) state;
    bulkhead_init(&s.door, PLACES, 2 * CALLERS); /* one owner may take three quarters of it */
    atomic_store(&s.left, CALLERS);
    for (size_t i = 0; i < LOOPS; i++) {
        s.loops[i] = loop_create(clock_system(), random_system(), &e);
        assert_non_null(s.loops[i]);
        loop_post(s.loops[i], start, &s);
    }
    assert_true(loop_start_thread(s.loops[1], "other", &e));
    loop_run(s.loops[0]);
    loop_join_thread(s.loops[1]);
    assert_int_equal(atomic_load(&s.passed), CALLERS * ROUNDS);
    assert_int_equal(atomic_load(&s.refused), 0);
    assert_in_range(atomic_load(&s.inside_max), 1, PLACES);
    assert_int_equal(bulkhead_look(&s.door).in_use, 0);
    for (size_t i = 0; i < LOOPS; i++)
        loop_destroy(s.loops[i]);
    bulkhead_deinit(&s.door);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_callers_of_two_loops_share_the_places_and_all_come_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
