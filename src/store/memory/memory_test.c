/*
 * What only the memory back end promises: hooks and clones, for the simulation; it runs without a
 * loop.
 */
#include "store/memory.h"
#include "base/arena.h"
#include "base/limits.h"
#include "runtime/simulated.h"
#include "store/store_contract.h"
#include <setjmp.h>
#include <stdarg.h>
/* after the above: cmocka wants them first */
#include <cmocka.h>

struct world {
    struct scheduler *scheduler;
    struct arena *arena;
    struct context ctx;
    struct store *store;
    enum commit_outcome outcome;
};

static const uuid tenant = {{7}};

static enum commit_outcome decide(void *owner, struct context *ctx, const struct batch *batch)
{
    struct world *world = owner;
    assert_ptr_equal(ctx, &world->ctx);
    assert_int_equal(batch->count, 1);
    return world->outcome;
}

static int world_make(void **state)
{
    static struct world world;
    world.scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    world.arena = arena_create(0);
    world.outcome = COMMIT_OK;
    context_init(&world.ctx, world.scheduler, world.arena, DEADLINE_NONE);
    struct memory_store_hooks hooks = {.owner = &world, .before_commit = decide};
    world.store = memory_store_create(clock_system(), random_system(), hooks, S("n1"));
    *state = &world;
    return 0;
}

static int world_end(void **state)
{
    struct world *world = *state;
    store_destroy(world->store);
    context_deinit(&world->ctx);
    arena_destroy(world->arena);
    scheduler_destroy(world->scheduler);
    return 0;
}

static bool exists(struct world *world, struct store *store, uuid session)
{
    struct error e;
    struct record key = record_of(TABLE_SESSIONS), out;
    record_set_uuid(&key, SESSIONS_ID, session);
    return store_get(store, &world->ctx, tenant, &key, &out, &e);
}

static bool commit_session(struct world *world, struct store *store, uuid *session)
{
    struct error e;
    struct batch batch;
    batch_init(&batch, world->arena, tenant);
    *session = test_session(&batch);
    return store_commit(store, &world->ctx, &batch, &e);
}

static void test_the_hook_decides_what_becomes_of_a_commit(void **state)
{
    struct world *world = *state;
    uuid session;
    assert_true(commit_session(world, world->store, &session));
    assert_true(exists(world, world->store, session));
    world->outcome = COMMIT_FAIL;
    assert_false(commit_session(world, world->store, &session));
    assert_false(exists(world, world->store, session));
    world->outcome = COMMIT_APPLIED_BUT_FAIL;
    assert_false(commit_session(world, world->store, &session));
    assert_true(exists(world, world->store, session));
}

static void test_a_clone_goes_its_own_way(void **state)
{
    struct world *world = *state;
    uuid before, after, only;
    assert_true(commit_session(world, world->store, &before));
    struct store *clone = memory_store_clone(world->store);
    assert_true(commit_session(world, world->store, &after));
    assert_true(commit_session(world, clone, &only));
    assert_true(exists(world, clone, before) && exists(world, world->store, before));
    assert_false(exists(world, clone, after));
    assert_false(exists(world, world->store, only));
    store_destroy(clone);
    assert_true(exists(world, world->store, before));
}

static enum commit_outcome take_long(void *owner, struct context *ctx, const struct batch *batch)
{
    (void) ctx;
    (void) batch;
    clock_manual_advance_ns(owner, 700 * 1000000ll);
    return COMMIT_OK;
}

static void test_what_the_hook_takes_is_the_load(void **state)
{
    struct world *world = *state;
    struct clock *manual = clock_manual_create(1700000000000000, 1000000000);
    struct memory_store_hooks hooks = {.owner = manual, .before_commit = take_long};
    struct store *slow = memory_store_create(manual, random_system(), hooks, S("n1"));
    uuid session;
    assert_int_equal(store_load(slow).commit_us, 0);
    assert_true(commit_session(world, slow, &session));
    assert_int_equal(store_load(slow).commit_us, 700000);
    clock_manual_advance_ns(manual, (STORE_LOAD_IDLE_MS + 1) * 1000000ll);
    assert_int_equal(store_load(slow).commit_us, 0); /* long ago */
    store_destroy(slow);
    clock_manual_destroy(manual);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, world_make, world_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_hook_decides_what_becomes_of_a_commit),
        TEST(a_clone_goes_its_own_way),
        TEST(what_the_hook_takes_is_the_load),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
