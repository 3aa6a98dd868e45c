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

/* ---- when to come back ---- */

enum { QUEUE = 8, HELD_MS = 5, PATIENCE_MS = 20000 };

static void hold(void *argument)
{
    struct shared *s = argument;
    struct context ctx;
    struct error e = {0}, ignored = {0};
    OWNED(arena) arena = arena_create(0);
    context_init(&ctx, loop_scheduler(loop_current()), arena, DEADLINE_NONE);
    assert_true(bulkhead_enter(
        &s->door, &ctx,
        &(struct bulkhead_entry){S("door"), uuid_derive(UUID_NONE, S("a")), PATIENCE_MS}, &e));
    (void) !context_sleep_ms(&ctx, HELD_MS, &ignored);
    bulkhead_leave(&s->door);
    context_deinit(&ctx);
    atomic_fetch_sub(&s->left, 1);
}

static int64_t refused_for(struct shared *s, struct context *ctx)
{
    struct error e = {0};
    struct bulkhead_entry entry = {S("door"), uuid_derive(UUID_NONE, S("a")), PATIENCE_MS};
    assert_false(bulkhead_enter(&s->door, ctx, &entry, &e));
    assert_int_equal(e.reason, REASON_OVERLOADED_HERE);
    return e.retry_after_ms;
}

static void hold_many(struct shared *s, int count)
{
    struct error e = {0};
    atomic_fetch_add(&s->left, count);
    for (int i = 0; i < count; i++)
        assert_true(coroutine_start(loop_scheduler(loop_current()), "hold", hold, s, &e));
}

/* One inside and three quarters of the queue. */
enum { HOLDERS = 1 + 3 * QUEUE / 4 };

static void come_back(void *argument)
{
    struct shared *s = argument;
    struct context ctx;
    struct error ignored = {0};
    OWNED(arena) arena = arena_create(0);
    context_init(&ctx, loop_scheduler(loop_current()), arena, DEADLINE_NONE);
    hold_many(s, HOLDERS);
    (void) !context_sleep_ms(&ctx, 1, &ignored);
    assert_in_range(refused_for(s, &ctx), 1, 1000); /* nothing is known yet of how long it takes */
    while (atomic_load(&s->left) > 0)
        (void) !context_sleep_ms(&ctx, 1, &ignored);
    hold_many(s, HOLDERS);
    (void) !context_sleep_ms(&ctx, 1, &ignored);
    /* Seven of 5 ms each: on a busy machine many times that, but no 20 s. */
    assert_in_range(refused_for(s, &ctx), HELD_MS, PATIENCE_MS / 10);
    while (atomic_load(&s->left) > 0)
        (void) !context_sleep_ms(&ctx, 1, &ignored);
    context_deinit(&ctx);
    loop_stop(s->loops[0]);
}

static void begin_come_back(void *argument)
{
    struct error e = {0};
    assert_true(coroutine_start(loop_scheduler(loop_current()), "back", come_back, argument, &e));
}

static void test_who_finds_the_queue_full_is_told_when_it_will_be_served(void **state)
{
    static struct shared s;
    struct error e = {0};
    (void) state;
    bulkhead_init(&s.door, 1, QUEUE);
    s.loops[0] = loop_create(clock_system(), random_system(), &e);
    assert_non_null(s.loops[0]);
    loop_post(s.loops[0], begin_come_back, &s);
    loop_run(s.loops[0]);
    loop_destroy(s.loops[0]);
    bulkhead_deinit(&s.door);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_finds_the_queue_full_is_told_when_it_will_be_served),
        cmocka_unit_test(test_callers_of_two_loops_share_the_places_and_all_come_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
