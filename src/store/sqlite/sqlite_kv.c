/*
 * Key-value over the table `kv`. What has expired is not there; it is swept out as the writer
 * passes by.
 */
#include "base/ensure.h"
#include "base/strbuf.h"
#include "store/sqlite/database_internal.h"

enum { PURGE_EVERY = 256 };

struct kv_job {
    struct job job;
    uuid tenant_id;
    str key, value;
    int64_t ttl_ms, delta, sum;
    bool only_if_absent;
    struct arena *arena; /* reads */
};

static struct sqlite_database *database_of(struct kv *kv)
{
    return CONTAINER_OF(kv, struct sqlite_kv, base)->database;
}

static sqlite3_stmt *kv_statement(struct job_thread *thread, enum fixed_statement fixed,
                                  const struct kv_job *kv, struct error *e)
{
    sqlite3_stmt *statement = connection_fixed(&thread->connection, fixed, e);
    if (!statement)
        return NULL;
    bind_uuid(&thread->connection, statement, 1, kv->tenant_id);
    bind_text(statement, 2, kv->key);
    return statement;
}

static bool kv_read(struct job_thread *thread, const struct kv_job *kv, struct arena *arena,
                    bool *is_found, str *value, struct error *e)
{
    sqlite3_stmt *statement = kv_statement(thread, FIXED_KV_GET, kv, e);
    if (!statement)
        return false;
    sqlite3_bind_int64(statement, 3, clock_unix_us(thread->database->clock));
    if (!connection_step(&thread->connection, statement, is_found, e))
        return false;
    if (*is_found)
        *value = column_text(statement, 0, arena);
    sqlite3_reset(statement);
    return true;
}

static void bind_blob(sqlite3_stmt *statement, int parameter, str bytes)
{
    sqlite3_bind_blob64(statement, parameter, bytes.ptr ? bytes.ptr : "", bytes.len, SQLITE_STATIC);
}

static bool kv_write(struct job_thread *writer, const struct kv_job *kv, str value, struct error *e)
{
    struct sqlite_database *database = writer->database;
    sqlite3_stmt *statement = kv_statement(writer, FIXED_KV_PUT, kv, e);
    if (!statement)
        return false;
    bind_blob(statement, 3, value);
    if (kv->ttl_ms)
        sqlite3_bind_int64(statement, 4, clock_unix_us(database->clock) + kv->ttl_ms * 1000);
    else
        sqlite3_bind_null(statement, 4);
    if (!connection_run(&writer->connection, statement, e))
        return false;
    if (atomic_load_explicit(&database->row_count, memory_order_relaxed) % PURGE_EVERY != 0)
        return true;
    statement = connection_fixed(&writer->connection, FIXED_KV_PURGE, e);
    if (!statement)
        return false;
    sqlite3_bind_int64(statement, 1, clock_unix_us(database->clock));
    return connection_run(&writer->connection, statement, e);
}

static bool get_run(struct job_thread *reader, struct job *job, struct error *e)
{
    struct kv_job *kv = CONTAINER_OF(job, struct kv_job, job);
    bool is_found;
    return kv_read(reader, kv, kv->arena, &is_found, &kv->value, e) &&
           (is_found || error_set(e, REASON_NOT_FOUND, "no such key"));
}

static bool put_run(struct job_thread *writer, struct job *job, struct error *e)
{
    struct kv_job *kv = CONTAINER_OF(job, struct kv_job, job);
    bool is_found = false;
    str old;
    if (kv->only_if_absent && !kv_read(writer, kv, writer->connection.arena, &is_found, &old, e))
        return false;
    if (is_found)
        return error_set(e, REASON_CONFLICT, "the key is there already");
    return kv_write(writer, kv, kv->value, e);
}

static bool remove_run(struct job_thread *writer, struct job *job, struct error *e)
{
    struct kv_job *kv = CONTAINER_OF(job, struct kv_job, job);
    sqlite3_stmt *statement = kv_statement(writer, FIXED_KV_REMOVE, kv, e);
    return statement && connection_run(&writer->connection, statement, e);
}

static bool add_run(struct job_thread *writer, struct job *job, struct error *e)
{
    struct kv_job *kv = CONTAINER_OF(job, struct kv_job, job);
    struct arena *arena = writer->connection.arena;
    bool is_found;
    str old;
    int64_t sum = 0;
    if (!kv_read(writer, kv, arena, &is_found, &old, e))
        return false;
    if (is_found && !str_to_i64(old, &sum))
        return error_set(e, REASON_CONFLICT, "the key holds no counter");
    if (__builtin_add_overflow(sum, kv->delta, &sum))
        return error_set(e, REASON_LIMIT, "the counter would overflow");
    kv->sum = sum;
    str text = str_printf(arena, "%lld", (long long) sum);
    if (!is_found)
        return kv_write(writer, kv, text, e);
    sqlite3_stmt *statement =
        kv_statement(writer, FIXED_KV_KEEP, kv, e); /* its end of life stays */
    if (!statement)
        return false;
    bind_blob(statement, 3, text);
    return connection_run(&writer->connection, statement, e);
}

static struct kv_job kv_job_of(job_fn *run, uuid tenant_id, str key)
{
    return (struct kv_job){
        .job = {.run = run, .row_count = 1, .bytes = key.len}, .tenant_id = tenant_id, .key = key};
}

static bool get(struct kv *base, struct context *ctx, uuid tenant_id, str key, str *value,
                struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct kv_job kv = kv_job_of(get_run, tenant_id, key);
    kv.arena = arena;
    if (!job_do(&database_of(base)->reads, ctx, &kv.job, e))
        return false;
    *value = str_copy(ctx->arena, kv.value);
    return true;
}

static bool put(struct kv *base, struct context *ctx, uuid tenant_id, str key, str value,
                int64_t ttl_ms, bool only_if_absent, struct error *e)
{
    struct kv_job kv = kv_job_of(put_run, tenant_id, key);
    kv.value = value;
    kv.job.bytes += value.len;
    kv.ttl_ms = ttl_ms;
    kv.only_if_absent = only_if_absent;
    return job_do(&database_of(base)->writes, ctx, &kv.job, e);
}

static bool remove_key(struct kv *base, struct context *ctx, uuid tenant_id, str key,
                       struct error *e)
{
    struct kv_job kv = kv_job_of(remove_run, tenant_id, key);
    return job_do(&database_of(base)->writes, ctx, &kv.job, e);
}

static bool add(struct kv *base, struct context *ctx, uuid tenant_id, str key, int64_t delta,
                int64_t ttl_ms, int64_t *value, struct error *e)
{
    struct kv_job kv = kv_job_of(add_run, tenant_id, key);
    kv.delta = delta;
    kv.ttl_ms = ttl_ms;
    if (!job_do(&database_of(base)->writes, ctx, &kv.job, e))
        return false;
    *value = kv.sum;
    return true;
}

/* The database owns it. */
static void destroy(struct kv *kv)
{
    (void) kv;
}

static const struct kv_ops sqlite_kv_ops = {
    .name = "sqlite",
    .get = get,
    .put = put,
    .remove = remove_key,
    .add = add,
    .destroy = destroy,
};

void sqlite_kv_init(struct sqlite_database *database)
{
    database->kv = (struct sqlite_kv){.base.ops = &sqlite_kv_ops, .database = database};
}
