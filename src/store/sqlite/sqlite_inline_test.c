/* The SQLite back end without threads, as the simulation drives it: nothing moves before sqlite_database_work is called. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "store/sqlite.h"
#include "store/store_contract.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
/* after the above: cmocka wants them first */
#include <cmocka.h>

enum { ASKERS = 5 };

static const uuid tenant = {{4, 5, 6}};
static char folder[64];
static struct sqlite_database *database;
static struct scheduler *scheduler;

static void must_open(void)
{
    struct error e;
    bool is_new;
    struct sqlite_options options = {
        .data_dir = str_from_cstr(folder),
        .node = S("n1"),
        .clock = clock_system(),
        .random = random_system(),
        .is_inline = true,
    };
    if (!sqlite_database_open(&options, &database, &is_new, &e))
        fail_msg("%s", e.message);
}

static void close_database(void)
{
    sqlite_database_close(database);
    database = NULL;
}

static int begin(void **state)
{
    (void) state;
    snprintf(folder, sizeof folder, "/tmp/nexus-inline-XXXXXX");
    ensure(mkdtemp(folder) != NULL);
    scheduler = scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    must_open();
    return 0;
}

static int end(void **state)
{
    char seals[96];
    (void) state;
    close_database();
    scheduler_destroy(scheduler);
    snprintf(seals, sizeof seals, "%s/audit.key.seals", folder);
    testkit_remove_folder(seals);
    testkit_remove_folder(folder);
    return 0;
}

/* ---- who asks ---- */

struct asker {
    struct arena *arena;
    uuid id;
    bool is_read, is_twice; /* twice: a row that is there, which the store refuses */
    bool is_done, is_ok;
};

static int notices, failures;

static void count_notice(const struct batch_notice *notice)
{
    (void) notice;
    notices++;
}

static void ask(void *argument)
{
    struct asker *asker = argument;
    struct context ctx;
    struct error e = {0};
    struct store *store = sqlite_database_store(database);
    context_init(&ctx, scheduler, asker->arena, DEADLINE_NONE);
    if (asker->is_read) {
        struct record key = record_of(TABLE_SESSIONS), row;
        record_set_uuid(&key, SESSIONS_ID, asker->id);
        asker->is_ok = store_get(store, &ctx, tenant, &key, &row, &e);
    } else {
        struct batch batch;
        batch_init(&batch, asker->arena, tenant);
        batch.notice = (struct batch_notice){.run = count_notice};
        asker->id = test_session(&batch);
        if (asker->is_twice) {
            struct record again = batch.writes[0].record;
            *batch_add(&batch, WRITE_INSERT, again.table) = again;
        }
        asker->is_ok = store_commit(store, &ctx, &batch, &e);
    }
    asker->is_done = true;
    context_deinit(&ctx);
}

static void run_ready(void)
{
    while (scheduler_ready_count(scheduler) > 0)
        (void) scheduler_run_ready(scheduler, 1);
}

static void begin_asking(struct asker *asker)
{
    struct error e;
    asker->arena = arena_create(0);
    assert_true(coroutine_start(scheduler, "asker", ask, asker, &e));
    run_ready();
}

static bool is_stored(uuid id)
{
    struct asker reader = {.is_read = true, .id = id};
    begin_asking(&reader);
    sqlite_database_work(database, SQLITE_WORK_READ);
    run_ready();
    assert_true(reader.is_done);
    arena_destroy(reader.arena);
    return reader.is_ok;
}

/* ---- what is promised ---- */

static void test_a_commit_waits_for_the_work_and_is_stored_then(void **state)
{
    struct asker asker = {0};
    (void) state;
    begin_asking(&asker);
    assert_false(asker.is_done);
    assert_int_equal(sqlite_database_statistics(database).write_queue, 1);
    sqlite_database_work(database, SQLITE_WORK_READ); /* not its kind */
    run_ready();
    assert_false(asker.is_done);
    sqlite_database_work(database, SQLITE_WORK_WRITES);
    assert_false(asker.is_done); /* it moves when its scheduler does */
    run_ready();
    assert_true(asker.is_done && asker.is_ok);
    assert_int_equal(sqlite_database_statistics(database).write_queue, 0);
    assert_true(is_stored(asker.id));
    arena_destroy(asker.arena);
}

static void test_what_queued_is_one_commit_and_a_bad_batch_harms_no_other(void **state)
{
    struct asker askers[ASKERS] = {{0}};
    (void) state;
    askers[2].is_twice = true;
    for (int i = 0; i < ASKERS; i++)
        begin_asking(&askers[i]);
    int64_t before = sqlite_database_statistics(database).commits;
    sqlite_database_work(database, SQLITE_WORK_WRITES);
    run_ready();
    assert_int_equal(sqlite_database_statistics(database).commits - before, 1);
    for (int i = 0; i < ASKERS; i++) {
        assert_true(askers[i].is_done);
        assert_int_equal(askers[i].is_ok, i != 2);
        assert_int_equal(is_stored(askers[i].id), i != 2);
        arena_destroy(askers[i].arena);
    }
}

static void test_reads_are_served_one_by_one(void **state)
{
    struct asker readers[ASKERS] = {{0}};
    (void) state;
    for (int i = 0; i < ASKERS; i++) {
        readers[i].is_read = true;
        begin_asking(&readers[i]);
    }
    for (size_t left = ASKERS; left > 0; left--) {
        int done = 0;
        assert_int_equal(sqlite_database_statistics(database).read_queue, left);
        sqlite_database_work(database, SQLITE_WORK_READ);
        run_ready();
        for (int i = 0; i < ASKERS; i++)
            done += readers[i].is_done;
        assert_int_equal(done, ASKERS - (int) left + 1);
    }
    for (int i = 0; i < ASKERS; i++)
        arena_destroy(readers[i].arena);
}

static void test_who_is_no_coroutine_is_served_at_once(void **state)
{
    struct asker asker = {.arena = arena_create(0)};
    (void) state;
    ask(&asker);
    assert_true(asker.is_done && asker.is_ok);
    asker.is_read = true;
    asker.is_ok = false;
    ask(&asker);
    assert_true(asker.is_ok);
    arena_destroy(asker.arena);
}

static void count_failure(const struct batch_notice *notice, const struct error *why)
{
    (void) notice;
    (void) why;
    failures++;
}

static uuid submit(struct arena *arena, bool is_twice)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, arena, tenant);
    batch.notice = (struct batch_notice){.run = count_notice, .failed = count_failure};
    uuid id = test_session(&batch);
    if (is_twice) {
        struct record again = batch.writes[0].record;
        *batch_add(&batch, WRITE_INSERT, again.table) = again;
    }
    assert_true(store_submit(sqlite_database_store(database), &batch, &e));
    return id;
}

static void test_what_was_submitted_is_told_of_when_it_is_stored_or_refused(void **state)
{
    OWNED(arena) arena = arena_create(0);
    (void) state;
    notices = failures = 0;
    uuid good = submit(arena, false), bad = submit(arena, true);
    assert_int_equal(notices + failures, 0);
    sqlite_database_work(database, SQLITE_WORK_WRITES);
    assert_int_equal(notices, 1);
    assert_int_equal(failures, 1);
    assert_true(is_stored(good));
    assert_false(is_stored(bad));
}

/* Others read what is stored, and may build on it, before who asked for it hears of it: whoever keeps account of what is stored listens here. */
static void test_a_commit_gives_notice_when_it_is_stored_and_not_when_its_asker_goes_on(
    void **state)
{
    struct asker good = {0}, bad = {.is_twice = true};
    (void) state;
    notices = 0;
    begin_asking(&good);
    begin_asking(&bad);
    assert_int_equal(notices, 0);
    sqlite_database_work(database, SQLITE_WORK_WRITES);
    assert_int_equal(notices, 1);
    assert_false(good.is_done || bad.is_done);
    assert_true(is_stored(good.id));
    run_ready();
    assert_true(good.is_ok && bad.is_done && !bad.is_ok);
    assert_int_equal(notices, 1);
    arena_destroy(good.arena);
    arena_destroy(bad.arena);
}

static void test_closing_stores_what_is_queued(void **state)
{
    OWNED(arena) arena = arena_create(0);
    (void) state;
    uuid id = submit(arena, false);
    close_database();
    must_open();
    assert_true(is_stored(id));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_commit_waits_for_the_work_and_is_stored_then, begin,
                                        end),
        cmocka_unit_test_setup_teardown(
            test_what_queued_is_one_commit_and_a_bad_batch_harms_no_other, begin, end),
        cmocka_unit_test_setup_teardown(test_reads_are_served_one_by_one, begin, end),
        cmocka_unit_test_setup_teardown(test_who_is_no_coroutine_is_served_at_once, begin, end),
        cmocka_unit_test_setup_teardown(
            test_what_was_submitted_is_told_of_when_it_is_stored_or_refused, begin, end),
        cmocka_unit_test_setup_teardown(
            test_a_commit_gives_notice_when_it_is_stored_and_not_when_its_asker_goes_on, begin,
            end),
        cmocka_unit_test_setup_teardown(test_closing_stores_what_is_queued, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
