#include "orchestrator/overload.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/ensure.h"
#include "orchestrator/orchestrator.h"
#include "runtime/simulated.h"
#include "store/store.h"

/* A lane that runs what is posted when it is told to. */
struct lazy {
    void (*fn)(void *argument);
    void *argument;
};

static void post_later(struct lane *lane, void (*fn)(void *argument), void *argument)
{
    *(struct lazy *) lane->owner = (struct lazy){fn, argument};
}

struct scene {
    struct clock *clock;
    struct lazy lazy;
    struct lane lane;
    struct admission *admission;
    struct overload *overload;
};

static void scene_init(struct scene *s, int64_t lag_ms, int64_t memory_bytes, size_t queue_max)
{
    s->clock = clock_manual_create(1700000000000000, 1000000000);
    s->lazy = (struct lazy){0};
    s->lane = (struct lane){.post = post_later, .owner = &s->lazy};
    s->admission =
        admission_create(&(struct admission_options){.places = 1, .queue_max = queue_max});
    s->overload = overload_create(&(struct overload_options){.lanes = &s->lane,
                                                             .lane_count = 1,
                                                             .admission = s->admission,
                                                             .clock = s->clock,
                                                             .lag_ms = lag_ms,
                                                             .memory_bytes = memory_bytes});
}

static void arrive(struct scene *s)
{
    if (s->lazy.fn)
        s->lazy.fn(s->lazy.argument);
    s->lazy = (struct lazy){0};
}

static void scene_deinit(struct scene *s)
{
    arrive(s);
    overload_destroy(s->overload);
    admission_destroy(s->admission);
    clock_manual_destroy(s->clock);
}

static bool admits(struct scene *s, enum priority priority)
{
    struct error e = {0};
    bool ok = overload_admits(s->overload, priority, &e);
    assert_true(ok || (e.reason == REASON_OVERLOADED_HERE && e.retry_after_ms > 0));
    return ok;
}

static void test_a_loop_that_runs_late_presses_and_one_that_has_caught_up_does_not(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, 100, 0, 10);
    overload_sample(s.overload);
    clock_manual_advance_ns(s.clock, 300 * 1000000ll); /* the note is still on its way */
    overload_sample(s.overload);
    assert_int_equal(overload_look(s.overload).lag_ms, 300);
    assert_int_equal(overload_look(s.overload).pressure_milli, 1500);
    assert_false(admits(&s, PRIORITY_BATCH));
    assert_true(admits(&s, PRIORITY_NORMAL));
    overload_sample(s.overload);
    assert_int_equal(overload_look(s.overload).pressure_milli, 2250);
    assert_false(admits(&s, PRIORITY_NORMAL));
    assert_true(admits(&s, PRIORITY_INTERACTIVE));
    arrive(&s);
    for (int i = 0; i < 12; i++) {
        overload_sample(s.overload);
        arrive(&s);
    }
    assert_true(admits(&s, PRIORITY_BATCH));
    assert_int_equal(overload_look(s.overload).refused[PRIORITY_BATCH], 1);
    assert_int_equal(overload_look(s.overload).refused[PRIORITY_NORMAL], 1);
    scene_deinit(&s);
}

static void test_the_least_urgent_goes_first(void **state)
{
    static const struct {
        int64_t pressure_milli;
        bool batch, normal, interactive;
    } cases[] = {{999, true, true, true},
                 {1000, false, true, true},
                 {1999, false, true, true},
                 {2000, false, false, true},
                 {4000, false, false, false}};
    (void) state;
    struct scene s;
    scene_init(&s, 100, 0, 10);
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        overload_pretend(s.overload, cases[i].pressure_milli);
        assert_int_equal(admits(&s, PRIORITY_BATCH), cases[i].batch);
        assert_int_equal(admits(&s, PRIORITY_NORMAL), cases[i].normal);
        assert_int_equal(admits(&s, PRIORITY_INTERACTIVE), cases[i].interactive);
    }
    scene_deinit(&s);
}

static void test_memory_counts_only_when_it_has_a_limit(void **state)
{
    (void) state;
    struct scene s;
    scene_init(&s, 0, 0, 10);
    overload_sample(s.overload);
    assert_int_equal(overload_look(s.overload).pressure_milli, 0);
    scene_deinit(&s);
    scene_init(&s, 0, 4096, 10);
    overload_sample(s.overload);
    assert_true(overload_look(s.overload).memory_bytes > 4096);
    assert_false(admits(&s, PRIORITY_INTERACTIVE));
    scene_deinit(&s);
}

/* A store that says what it is told to. */
struct told {
    struct store base;
    struct store_load load;
};

static struct store_load tell_load(struct store *store)
{
    return CONTAINER_OF(store, struct told, base)->load;
}

static void test_a_slow_disk_presses_and_batch_goes_before_everything_times_out(void **state)
{
    static const struct store_ops ops = {.name = "told", .load = tell_load};
    (void) state;
    struct scene s;
    struct told store = {.base.ops = &ops};
    scene_init(&s, 0, 0, 10);
    overload_destroy(s.overload);
    s.overload = overload_create(&(struct overload_options){.lanes = &s.lane,
                                                            .lane_count = 1,
                                                            .admission = s.admission,
                                                            .clock = s.clock,
                                                            .store = &store.base,
                                                            .commit_ms = 200});
    overload_sample(s.overload);
    assert_true(admits(&s, PRIORITY_BATCH));
    store.load = (struct store_load){.commit_us = 300000, .queue_max = 1000};
    for (int i = 0; i < 8; i++)
        overload_sample(s.overload);
    assert_false(admits(&s, PRIORITY_BATCH));
    assert_true(admits(&s, PRIORITY_NORMAL));
    assert_int_equal(overload_look(s.overload).commit_ms, 300);
    store.load = (struct store_load){.commit_us = 4000, .queued = 500, .queue_max = 1000};
    for (int i = 0; i < 16; i++)
        overload_sample(s.overload);
    assert_in_range(overload_look(s.overload).pressure_milli, 1000,
                    1001); /* half full is its limit */
    assert_int_equal(overload_look(s.overload).store_queued, 500);
    store.load = (struct store_load){.commit_us = 4000, .queue_max = 1000};
    for (int i = 0; i < 16; i++)
        overload_sample(s.overload);
    assert_true(admits(&s, PRIORITY_BATCH));
    scene_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_loop_that_runs_late_presses_and_one_that_has_caught_up_does_not),
        cmocka_unit_test(test_the_least_urgent_goes_first),
        cmocka_unit_test(test_memory_counts_only_when_it_has_a_limit),
        cmocka_unit_test(test_a_slow_disk_presses_and_batch_goes_before_everything_times_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
