/*
 * The writer thread: groups what is queued into one transaction.
 *
 * A group is first run straight through.  When a job fails (a conflict, a lost fence) after it has
 * written something, the transaction is undone and the group is run again with a savepoint around
 * each job, so the failing ones are undone alone and their neighbours are committed with one fsync
 * all the same; the common case pays for no savepoints.  When the disk or the file fails, the
 * whole transaction is undone and its jobs are tried one by one, so that what can be stored is
 * stored and each job hears of its own failure.
 *
 * While the store cannot commit (commit_health.h) the writer tries by itself, so that it is known when there is room again.
 */
#include "base/ensure.h"
#include "base/fault.h"
#include "base/heap.h"
#include "base/log.h"
#include "store/check.h"
#include "store/sqlite/database_internal.h"
#include <unistd.h>

/*
 * How long the writer idles before it signs what the audit chains got since their last checkpoint.
 */
enum { AUDIT_SIGN_AFTER_IDLE_MS = 1000 };

static void rollback(struct job_thread *writer)
{
    /* Some failures have rolled back already. */
    if (!sqlite3_get_autocommit(writer->connection.db))
        sqlite3_exec(writer->connection.db, "ROLLBACK", NULL, NULL, NULL);
    audit_forget_heads(writer);
}

enum group_result {
    GROUP_COMMITTED,
    GROUP_LOST,      /* the transaction is undone as a whole */
    GROUP_ENTANGLED, /* undone too: a job failed half-way, savepoints are needed */
};

static bool run_job(struct job_thread *writer, struct job *job)
{
    struct error *e = &job->error;
    if (FAULT("store.commit"))
        return error_set(e, REASON_DISK_FULL,
                         "the disk is full: free some space, nothing was stored");
    bool is_ok = job->run(writer, job, e);
    if (!is_ok)
        audit_forget_heads(writer); /* they may have moved further than the rows */
    return is_ok;
}

static bool run_job_in_savepoint(struct job_thread *writer, struct job *job)
{
    struct connection *connection = &writer->connection;
    if (!connection_run_fixed(connection, FIXED_SAVEPOINT, &job->error))
        return false;
    bool is_ok = run_job(writer, job);
    struct error failure;
    if (connection->is_broken ||
        (!is_ok && !connection_run_fixed(connection, FIXED_ROLLBACK_TO, &failure)))
        return false;
    return connection_run_fixed(connection, FIXED_RELEASE, is_ok ? &job->error : &failure) && is_ok;
}

static enum group_result run_jobs(struct job_thread *writer, struct job *jobs, bool with_savepoints,
                                  struct error *e)
{
    struct connection *connection = &writer->connection;
    for (struct job *job = jobs; job; job = job->next) {
        int64_t changes = sqlite3_total_changes64(connection->db);
        job->is_ok = with_savepoints ? run_job_in_savepoint(writer, job) : run_job(writer, job);
        if (connection->is_broken) {
            error_copy(e, &job->error);
            return GROUP_LOST;
        }
        if (!job->is_ok && !with_savepoints && sqlite3_total_changes64(connection->db) != changes)
            return GROUP_ENTANGLED;
    }
    return GROUP_COMMITTED;
}

static bool commit_group(struct job_thread *writer, struct job *jobs, struct error *e)
{
    for (struct job *job = jobs; job; job = job->next)
        if (job->is_ok && batch_fault(job->fault, "before"))
            return error_set(e, REASON_STORE, "fault point %s.before", job->fault);
    if (FAULT("store.slow"))
        usleep(STORE_FAULT_SLOW_MS * 1000);
    if (FAULT("store.before_commit"))
        return error_set(e, REASON_STORE, "fault point store.before_commit");
    if (!connection_run_fixed(&writer->connection, FIXED_COMMIT, e))
        return false;
    (void) FAULT("store.after_commit");
    if (writer->has_unsealed)
        seals_write(writer);
    long long rows = 0;
    for (struct job *job = jobs; job; job = job->next)
        rows += job->is_ok ? (long long) job->row_count : 0;
    atomic_fetch_add_explicit(&writer->database->commit_count, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&writer->database->row_count, rows, memory_order_relaxed);
    return true;
}

/* One transaction; unless it is committed, nothing of it is stored. */
static enum group_result run_group(struct job_thread *writer, struct job *jobs,
                                   bool with_savepoints, struct error *e)
{
    connection_start_job(&writer->connection);
    enum group_result result = GROUP_LOST;
    if (connection_run_fixed(&writer->connection, FIXED_BEGIN, e))
        result = run_jobs(writer, jobs, with_savepoints, e);
    if (result == GROUP_COMMITTED && !commit_group(writer, jobs, e))
        result = GROUP_LOST;
    if (result != GROUP_COMMITTED)
        rollback(writer);
    return result;
}

static bool store_group(struct job_thread *writer, struct job *jobs, struct error *e)
{
    enum group_result result = run_group(writer, jobs, false, e);
    if (result == GROUP_ENTANGLED)
        result = run_group(writer, jobs, true, e);
    return result == GROUP_COMMITTED;
}

static void tell_health(struct job_thread *writer, const struct job *jobs, bool is_written)
{
    struct sqlite_database *database = writer->database;
    const struct error *failure = NULL;
    for (const struct job *job = jobs; job; job = job->next)
        if (!job->is_ok && commit_health_counts(&job->error))
            failure = &job->error;
    if (failure)
        commit_health_failed(&database->health, database->clock, failure);
    else if (is_written)
        commit_health_stored(&database->health, database->clock);
}

static void finish_group(struct job *jobs)
{
    for (struct job *next, *job = jobs; job; job = next) {
        next = job->next;
        if (job->is_ok && job->notice) {
            if (job->notice->run)
                job->notice->run(job->notice);
            job->notice = NULL; /* stored it is, whatever a fault point says below */
        }
        if (job->is_ok && batch_fault(job->fault, "after"))
            job->is_ok = error_set(&job->error, REASON_STORE, "fault point %s.after", job->fault);
        job_finish(job, job->is_ok);
    }
}

/* A transaction that wrote nothing says nothing of the disk. */
static bool store_and_tell(struct job_thread *writer, struct job *jobs, struct error *failure)
{
    int64_t changes = sqlite3_total_changes64(writer->connection.db);
    bool is_stored = store_group(writer, jobs, failure);
    if (is_stored)
        tell_health(writer, jobs, sqlite3_total_changes64(writer->connection.db) != changes);
    return is_stored;
}

static void job_lost(struct job_thread *writer, struct job *job, const struct error *failure)
{
    error_copy(&job->error, failure);
    job->is_ok = false;
    tell_health(writer, job, false);
}

static void store_jobs(struct job_thread *writer, struct job *jobs)
{
    struct error failure;
    bool is_alone = jobs->next == NULL;
    if (store_and_tell(writer, jobs, &failure)) {
        finish_group(jobs);
        return;
    }
    for (struct job *next, *job = jobs; job; job = next) {
        next = job->next;
        job->next = NULL;
        if (is_alone || !store_and_tell(writer, job, &failure))
            job_lost(writer, job, &failure);
        finish_group(job);
    }
}

/* ---- while it cannot commit ---- */

/* As much as a busy moment writes; the row is purged with others that have expired. */
static bool probe_run(struct job_thread *writer, struct job *job, struct error *e)
{
    static const str key = S_INIT("store.probe");
    sqlite3_stmt *statement = connection_fixed(&writer->connection, FIXED_KV_PUT, e);
    (void) job;
    if (!statement)
        return false;
    bind_uuid(&writer->connection, statement, 1, UUID_NONE);
    bind_text(statement, 2, key);
    sqlite3_bind_zeroblob(statement, 3, STORE_PROBE_BYTES);
    sqlite3_bind_int64(statement, 4,
                       clock_unix_us(writer->database->clock) + STORE_SETTLE_MS * 1000ll);
    return connection_run(&writer->connection, statement, e);
}

static void probe(struct job_thread *writer)
{
    struct job job = {.run = probe_run, .row_count = 1};
    struct error failure;
    if (!store_and_tell(writer, &job, &failure))
        job_lost(writer, &job, &failure);
}

static void serve(struct job_thread *writer, struct job *jobs)
{
    struct sqlite_database *database = writer->database;
    int64_t began_ns = clock_monotonic_ns(database->clock);
    commit_meter_begin(&database->meter, began_ns);
    store_jobs(writer, jobs);
    commit_meter_end(&database->meter, began_ns, clock_monotonic_ns(database->clock));
}

static void sign_audit(struct job_thread *writer)
{
    struct error e;
    struct connection *connection = &writer->connection;
    connection_start_job(connection);
    if (connection_run_fixed(connection, FIXED_BEGIN, &e) && audit_sign_all(writer, &e) &&
        connection_run_fixed(connection, FIXED_COMMIT, &e)) {
        seals_write(writer);
        return;
    }
    /* They will be signed with the next entries. */
    rollback(writer);
    if (commit_health_counts(&e)) /* it has its own line, once */
        commit_health_failed(&writer->database->health, writer->database->clock, &e);
    else
        LOG_ERROR("store", S("the audit chains could not be signed"), &e);
}

void writer_work(struct sqlite_database *database)
{
    struct job *jobs;
    struct job_thread *writer = &database->writer;
    if (job_queue_take(writer->queue, STORE_GROUP_ROWS_MAX, 0, &jobs) == TAKE_JOBS)
        serve(writer, jobs);
}

static void work_inline(void *owner)
{
    writer_work(owner);
}

void writer_sign(struct sqlite_database *database)
{
    if (audit_has_unsigned(&database->writer))
        sign_audit(&database->writer);
}

static int idle_ms_of(struct job_thread *writer)
{
    struct sqlite_database *database = writer->database;
    int64_t probe_ms = commit_health_probe_ms(&database->health, database->clock);
    if (probe_ms >= 0)
        return (int) probe_ms;
    return audit_has_unsigned(writer) ? AUDIT_SIGN_AFTER_IDLE_MS
                                      : connection_rest_ms(&writer->connection);
}

/* Signing waits for a store that can commit. */
static void idle(struct job_thread *writer, enum take taken)
{
    struct sqlite_database *database = writer->database;
    int64_t probe_ms = commit_health_probe_ms(&database->health, database->clock);
    if (probe_ms == 0 && taken != TAKE_CLOSED)
        probe(writer);
    else if (taken != TAKE_JOBS && (probe_ms < 0 || taken == TAKE_CLOSED) &&
             audit_has_unsigned(writer))
        sign_audit(writer);
}

static void *writer_run(void *argument)
{
    struct job_thread *writer = argument;
    for (;;) {
        struct job *jobs;
        enum take taken =
            job_queue_take(writer->queue, STORE_GROUP_ROWS_MAX, idle_ms_of(writer), &jobs);
        if (taken == TAKE_JOBS)
            serve(writer, jobs);
        idle(writer, taken);
        if (taken == TAKE_CLOSED)
            return NULL;
        if (connection_rest(&writer->connection, clock_monotonic_ns(writer->database->clock),
                            taken == TAKE_JOBS))
            heap_give_back(); /* here it holds nobody up, and the node has little to do */
    }
}

bool writer_start(struct sqlite_database *database, struct error *e)
{
    struct job_thread *writer = &database->writer;
    job_queue_init(&database->writes, STORE_QUEUE_MAX, STORE_QUEUE_BYTES_MAX);
    writer->database = database;
    writer->queue = &database->writes;
    if (database->is_inline) {
        database->writes.work = work_inline;
        database->writes.owner = database;
        writer->is_started = true;
        return true;
    }
    if (pthread_create(&writer->thread, NULL, writer_run, writer) != 0)
        return error_set(e, REASON_STORE, "the store's writer thread could not be started");
    pthread_setname_np(writer->thread, "store-writer");
    writer->is_started = true;
    return true;
}

void writer_stop(struct sqlite_database *database)
{
    struct job_thread *writer = &database->writer;
    if (!writer->is_started)
        return;
    job_queue_close(&database->writes);
    if (!database->is_inline)
        pthread_join(writer->thread, NULL);
    while (database->writes.count > 0)
        writer_work(database);
    job_queue_deinit(&database->writes);
    audit_forget_heads(writer);
    writer->is_started = false;
}
