/* The reader threads: each serves one job after the other on a connection of its own. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/heap.h"
#include "store/sqlite/database_internal.h"
#include <stdio.h>

static void serve(struct job_thread *reader, struct job *job)
{
    connection_start_job(&reader->connection);
    bool is_late = job->deadline_ns != DEADLINE_NONE &&
                   clock_monotonic_ns(reader->database->clock) >= job->deadline_ns;
    if (is_late)
        error_set(&job->error, REASON_TIMEOUT, "the deadline passed while the read was queued");
    job_finish(job, !is_late && job->run(reader, job, &job->error));
}

static void *reader_run(void *argument)
{
    struct job_thread *reader = argument;
    for (;;) {
        struct job *job;
        enum take taken =
            job_queue_take(reader->queue, 1, connection_rest_ms(&reader->connection), &job);
        if (taken == TAKE_CLOSED)
            return NULL;
        if (taken == TAKE_JOBS)
            serve(reader, job);
        if (connection_rest(&reader->connection, clock_monotonic_ns(reader->database->clock),
                            taken == TAKE_JOBS)) {
            arena_rest();
            heap_rest();
        }
    }
}

void readers_work(struct sqlite_database *database)
{
    struct job *job;
    if (job_queue_take(&database->reads, 1, 0, &job) == TAKE_JOBS)
        serve(&database->readers[0], job);
}

static void work_inline(void *owner)
{
    readers_work(owner);
}

bool readers_start(struct sqlite_database *database, int count, struct error *e)
{
    ensure(count >= 1 && count <= STORE_READERS_MAX);
    job_queue_init(&database->reads, STORE_READ_QUEUE_MAX, STORE_QUEUE_BYTES_MAX);
    if (database->is_inline) {
        database->reads.work = work_inline;
        database->reads.owner = database;
        count = 1;
    }
    for (int i = 0; i < count; i++) {
        struct job_thread *reader = &database->readers[i];
        reader->database = database;
        reader->queue = &database->reads;
        struct connection_options options = database_connection_options(database, true);
        if (!connection_open(&reader->connection, &options, e))
            return false;
        database->reader_count = i + 1;
        if (database->is_inline)
            return true;
        if (pthread_create(&reader->thread, NULL, reader_run, reader) != 0)
            return error_set(e, REASON_STORE, "a reader thread of the store could not be started");
        reader->is_started = true;
        char name[16];
        snprintf(name, sizeof name, "store-read-%d", i);
        pthread_setname_np(reader->thread, name);
    }
    return true;
}

void readers_stop(struct sqlite_database *database)
{
    if (database->readers[0].queue == NULL)
        return;
    job_queue_close(&database->reads);
    while (database->is_inline && database->reads.count > 0)
        readers_work(database);
    for (int i = 0; i < STORE_READERS_MAX; i++) {
        if (database->readers[i].is_started)
            pthread_join(database->readers[i].thread, NULL);
        connection_close(&database->readers[i].connection);
    }
    job_queue_deinit(&database->reads);
}
