#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/loop.h"
#include "store/store_contract.h"
#include <dirent.h>
#include <unistd.h>

struct test_run {
    struct loop *loop;
    void (*body)(struct context *ctx, void *argument);
    void *argument;
};

static void run_body(void *argument)
{
    struct test_run *run = argument;
    struct arena *arena = arena_create(256u << 20);
    struct context ctx;
    context_init(&ctx, loop_scheduler(run->loop), arena, DEADLINE_NONE);
    run->body(&ctx, run->argument);
    context_deinit(&ctx);
    arena_destroy(arena);
    loop_stop(run->loop);
}

void store_testkit_run(void (*body)(struct context *ctx, void *argument), void *argument)
{
    struct error e;
    struct test_run run = {loop_create(clock_system(), random_system(), &e), body, argument};
    ensure(run.loop);
    ensure(coroutine_start(loop_scheduler(run.loop), "test", run_body, &run, &e));
    loop_run(run.loop);
    loop_destroy(run.loop);
}

uuid test_id(void)
{
    return uuid_new(clock_system(), random_system());
}

uuid test_session(struct batch *batch)
{
    uuid id = test_id();
    struct record *session = batch_add(batch, WRITE_INSERT, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, id);
    record_set_text(session, SESSIONS_USER_ID, S("ada"));
    record_set_text(session, SESSIONS_REQUESTED_BY, S("ada"));
    record_set_text(session, SESSIONS_ROLE, S("user"));
    return id;
}

/* A folder of plain files. */
void testkit_remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    ensure(rmdir(path) == 0);
}
