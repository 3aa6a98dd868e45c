/*
 * Vectors over the table `session_memory`: unit vectors as BLOBs, searched by an exact scan of
 * cached matrices.
 */
#include "base/ensure.h"
#include "store/sqlite/database_internal.h"
#include "store/sqlite/vector_cache_internal.h"
#include "store/vector_math.h"

struct vector_job {
    struct job job;
    uuid tenant_id, session_id;
    const struct vector_point *points; /* upsert */
    const uuid *ids;                   /* forget */
    size_t count;
    size_t session_max, user_max; /* upsert; 0: any number */
    size_t dimension;
    const float *vector; /* search: a unit vector */
    str user_id;
    size_t limit;
    struct arena *arena;
    struct vector_point *found;
    size_t found_count;
};

static struct sqlite_vectors *vectors_of(struct vector_index *index)
{
    return CONTAINER_OF(index, struct sqlite_vectors, base);
}

/* ---- writing ---- */

/* How many points there are beside this one. */
static bool count_others(struct connection *connection, sqlite3_stmt *statement, uuid id,
                         size_t *out, struct error *e)
{
    bool has_row;
    bind_uuid(connection, statement, 3, id);
    if (!connection_step(connection, statement, &has_row, e))
        return false;
    *out = has_row ? (size_t) sqlite3_column_int64(statement, 0) : 0;
    sqlite3_reset(statement);
    return true;
}

/* On the writer's thread, so that no other point comes between. */
static bool check_room(struct connection *connection, const struct vector_job *put,
                       const struct vector_point *point, struct error *e)
{
    size_t count = 0;
    if (put->session_max > 0 && !uuid_is_none(point->session_id)) {
        sqlite3_stmt *statement = connection_fixed(connection, FIXED_VECTOR_COUNT_SESSION, e);
        if (!statement)
            return false;
        bind_uuid(connection, statement, 1, put->tenant_id);
        bind_uuid(connection, statement, 2, point->session_id);
        if (!count_others(connection, statement, point->id, &count, e) ||
            !vector_check_room("session", count + 1, put->session_max, e))
            return false;
    }
    if (put->user_max == 0)
        return true;
    sqlite3_stmt *statement = connection_fixed(connection, FIXED_VECTOR_COUNT_USER, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, 1, put->tenant_id);
    bind_text(statement, 2, point->user_id);
    return count_others(connection, statement, point->id, &count, e) &&
           vector_check_room("user", count + 1, put->user_max, e);
}

static bool point_put(struct job_thread *writer, const struct vector_job *put,
                      const struct vector_point *point, struct error *e)
{
    struct connection *connection = &writer->connection;
    if (!check_room(connection, put, point, e))
        return false;
    float *unit = ARENA_ARRAY(connection->arena, float, put->dimension);
    if (!vector_normalise(point->vector, unit, put->dimension))
        return error_set(e, REASON_INVALID, "a vector without direction (zero, or not finite)");
    sqlite3_stmt *statement = connection_fixed(connection, FIXED_VECTOR_PUT, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, 1, put->tenant_id);
    bind_uuid(connection, statement, 2, point->id);
    bind_uuid(connection, statement, 3, point->session_id);
    bind_text(statement, 4, point->user_id);
    sqlite3_bind_int64(statement, 5, point->timestamp_us);
    bind_text(statement, 6, point->content_type);
    bind_text(statement, 7, point->metadata);
    sqlite3_bind_blob64(statement, 8, unit, put->dimension * sizeof(*unit), SQLITE_STATIC);
    if (!connection_run(connection, statement, e))
        return false;
    return sqlite3_changes(connection->db) == 1 ||
           error_set(e, REASON_CONFLICT, "the id belongs to a point of another session");
}

static bool upsert_run(struct job_thread *writer, struct job *job, struct error *e)
{
    struct vector_job *put = CONTAINER_OF(job, struct vector_job, job);
    for (size_t i = 0; i < put->count; i++)
        if (!point_put(writer, put, &put->points[i], e))
            return false;
    return true;
}

static bool forget_one(struct job_thread *writer, const struct vector_job *forget, const uuid *id,
                       struct error *e)
{
    struct connection *connection = &writer->connection;
    sqlite3_stmt *statement =
        connection_fixed(connection, id ? FIXED_VECTOR_FORGET : FIXED_VECTOR_FORGET_SESSION, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, 1, forget->tenant_id);
    bind_uuid(connection, statement, 2, forget->session_id);
    if (id)
        bind_uuid(connection, statement, 3, *id);
    return connection_run(connection, statement, e);
}

static bool forget_run(struct job_thread *writer, struct job *job, struct error *e)
{
    struct vector_job *forget = CONTAINER_OF(job, struct vector_job, job);
    for (size_t i = 0; i < forget->count; i++)
        if (!forget_one(writer, forget, &forget->ids[i], e))
            return false;
    return forget->count > 0 || forget_one(writer, forget, NULL, e);
}

static bool upsert(struct vector_index *index, struct context *ctx, uuid tenant_id,
                   const struct vector_point *points, size_t count, struct error *e)
{
    struct sqlite_database *database = vectors_of(index)->database;
    struct vector_job put = {
        .job = {.run = upsert_run, .row_count = count ? count : 1},
        .tenant_id = tenant_id,
        .points = points,
        .count = count,
        .session_max = index->session_points_max,
        .user_max = index->user_points_max,
        .dimension = index->dimension,
    };
    for (size_t i = 0; i < count; i++)
        put.job.bytes += points[i].metadata.len + index->dimension * sizeof(float);
    bool is_ok = job_do(&database->writes, ctx, &put.job, e);
    for (size_t i = 0; i < count; i++)
        vector_cache_drop(database->vector_cache, tenant_id, points[i].session_id);
    return is_ok;
}

static bool forget(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid session_id,
                   const uuid *ids, size_t count, struct error *e)
{
    struct sqlite_database *database = vectors_of(index)->database;
    struct vector_job forget = {
        .job = {.run = forget_run, .row_count = count ? count : 1},
        .tenant_id = tenant_id,
        .session_id = session_id,
        .ids = ids,
        .count = count,
    };
    bool is_ok = job_do(&database->writes, ctx, &forget.job, e);
    vector_cache_drop(database->vector_cache, tenant_id, session_id);
    return is_ok;
}

/* ---- searching ---- */

static bool entry_load(struct job_thread *reader, const struct vector_job *search,
                       struct vector_entry *entry, struct error *e)
{
    struct connection *connection = &reader->connection;
    bool is_session = !uuid_is_none(search->session_id);
    sqlite3_stmt *statement =
        connection_fixed(connection, is_session ? FIXED_VECTOR_SESSION : FIXED_VECTOR_USER, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, 1, search->tenant_id);
    if (is_session)
        bind_uuid(connection, statement, 2, search->session_id);
    bind_text(statement, 3, search->user_id);
    sqlite3_bind_int64(statement, 4, VECTOR_SCAN_POINTS_MAX + 1);
    bool has_row;
    while (connection_step(connection, statement, &has_row, e)) {
        if (!has_row)
            return true;
        uuid id;
        const float *vector = sqlite3_column_blob(statement, 1);
        bool is_vector =
            (size_t) sqlite3_column_bytes(statement, 1) == search->dimension * sizeof(*vector);
        bool is_ok =
            column_uuid(statement, 0, &id, e) &&
            (is_vector || error_set(e, REASON_CORRUPT, "a stored vector has another dimension")) &&
            (entry->count < VECTOR_SCAN_POINTS_MAX ||
             error_set(e, REASON_LIMIT, "more than %u vectors to scan: search within a session",
                       VECTOR_SCAN_POINTS_MAX));
        if (!is_ok) {
            sqlite3_reset(statement);
            return false;
        }
        vector_entry_add(entry, id, vector, search->dimension);
    }
    return false;
}

static bool entry_get(struct job_thread *reader, const struct vector_job *search,
                      struct vector_entry **out, struct error *e)
{
    struct vector_cache *cache = reader->database->vector_cache;
    *out = vector_cache_find(cache, search->tenant_id, search->session_id, search->user_id);
    if (*out)
        return true;
    uint64_t generation = vector_cache_generation(cache);
    *out = vector_entry_create(search->tenant_id, search->session_id, search->user_id);
    if (!entry_load(reader, search, *out, e)) {
        vector_cache_release(cache, *out);
        return false;
    }
    vector_cache_keep(cache, *out, generation);
    return true;
}

/* The point's row; has_row false when there is none (any more). */
static bool point_get(struct connection *connection, struct vector_job *search,
                      const struct ranked *ranked, bool *has_row, struct error *e)
{
    sqlite3_stmt *statement = connection_fixed(connection, FIXED_VECTOR_GET, e);
    if (!statement)
        return false;
    bind_uuid(connection, statement, 1, search->tenant_id);
    bind_uuid(connection, statement, 2, ranked->id);
    if (!connection_step(connection, statement, has_row, e))
        return false;
    if (!*has_row)
        return true;
    struct vector_point *point = &search->found[search->found_count];
    *point = (struct vector_point){
        .id = ranked->id,
        .user_id = column_text(statement, 1, search->arena),
        .timestamp_us = sqlite3_column_int64(statement, 2),
        .content_type = column_text(statement, 3, search->arena),
        .metadata = column_text(statement, 4, search->arena),
        .score = (double) ranked->score,
    };
    bool is_ok = column_uuid(statement, 0, &point->session_id, e);
    sqlite3_reset(statement);
    return is_ok;
}

static bool find_run(struct job_thread *reader, struct job *job, struct error *e)
{
    struct vector_job *find = CONTAINER_OF(job, struct vector_job, job);
    struct ranked ranked = {.id = *find->ids};
    bool has_row;
    find->found = ARENA_NEW(find->arena, struct vector_point);
    if (!point_get(&reader->connection, find, &ranked, &has_row, e))
        return false;
    find->found_count = has_row;
    return true;
}

static bool search_run(struct job_thread *reader, struct job *job, struct error *e)
{
    struct vector_job *search = CONTAINER_OF(job, struct vector_job, job);
    struct connection *connection = &reader->connection;
    struct vector_entry *entry;
    if (!entry_get(reader, search, &entry, e))
        return false;
    struct ranking ranking = {.limit = search->limit,
                              .items =
                                  ARENA_ARRAY(connection->arena, struct ranked, search->limit)};
    for (size_t i = 0; i < entry->count; i++)
        ranking_offer(
            &ranking,
            vector_dot(entry->vectors + i * search->dimension, search->vector, search->dimension),
            entry->ids[i], i);
    vector_cache_release(reader->database->vector_cache, entry);
    search->found = ARENA_ARRAY(search->arena, struct vector_point, ranking.count);
    for (size_t i = 0; i < ranking.count; i++) {
        bool has_row;
        if (!point_get(connection, search, &ranking.items[i], &has_row, e))
            return false;
        search->found_count += has_row;
    }
    return true;
}

static bool search(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid session_id,
                   str user_id, const float *vector, size_t limit, struct vector_point **out,
                   size_t *count, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    float *unit = ARENA_ARRAY(arena, float, index->dimension);
    if (!vector_normalise(vector, unit, index->dimension))
        return error_set(e, REASON_INVALID, "a vector without direction (zero, or not finite)");
    struct vector_job search = {
        .job = {.run = search_run, .row_count = 1},
        .tenant_id = tenant_id,
        .session_id = session_id,
        .user_id = user_id,
        .vector = unit,
        .dimension = index->dimension,
        .limit = limit,
        .arena = arena,
    };
    if (!job_do(&vectors_of(index)->database->reads, ctx, &search.job, e))
        return false;
    *count = search.found_count;
    *out = ARENA_ARRAY(ctx->arena, struct vector_point, search.found_count);
    for (size_t i = 0; i < search.found_count; i++) {
        (*out)[i] = search.found[i];
        (*out)[i].user_id = str_copy(ctx->arena, search.found[i].user_id);
        (*out)[i].content_type = str_copy(ctx->arena, search.found[i].content_type);
        (*out)[i].metadata = str_copy(ctx->arena, search.found[i].metadata);
    }
    return true;
}

static bool find(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid id,
                 struct vector_point *out, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct vector_job find = {
        .job = {.run = find_run, .row_count = 1},
        .tenant_id = tenant_id,
        .ids = &id,
        .arena = arena,
    };
    if (!job_do(&vectors_of(index)->database->reads, ctx, &find.job, e))
        return false;
    if (find.found_count == 0)
        return error_set(e, REASON_NOT_FOUND, "there is no such point");
    *out = find.found[0];
    out->user_id = str_copy(ctx->arena, out->user_id);
    out->content_type = str_copy(ctx->arena, out->content_type);
    out->metadata = str_copy(ctx->arena, out->metadata);
    return true;
}

/* The database owns it. */
static void destroy(struct vector_index *index)
{
    (void) index;
}

static const struct vector_index_ops sqlite_vector_ops = {
    .name = "sqlite",
    .upsert = upsert,
    .search = search,
    .forget = forget,
    .find = find,
    .destroy = destroy,
};

/* A dimension that is not the stored one would make every search fail later: it fails here. */
static bool check_stored_dimension(struct connection *connection, size_t dimension, struct error *e)
{
    sqlite3_stmt *statement;
    if (sqlite3_prepare_v2(connection->db, "SELECT length(vector) FROM session_memory LIMIT 1", -1,
                           &statement, NULL) != SQLITE_OK)
        return connection_fail(connection, e);
    bool has_row;
    bool is_ok = connection_step(connection, statement, &has_row, e);
    int64_t stored =
        is_ok && has_row ? sqlite3_column_int64(statement, 0) / (int64_t) sizeof(float) : 0;
    sqlite3_finalize(statement);
    if (is_ok && stored && stored != (int64_t) dimension)
        return error_set(e, REASON_CONFIG,
                         "the memory holds vectors of %lld numbers, the embedder gives %zu",
                         (long long) stored, dimension);
    return is_ok;
}

bool sqlite_vectors_init(struct sqlite_database *database, size_t dimension, struct error *e)
{
    size_t wanted = dimension ? dimension : VECTOR_DIMENSION_DEFAULT;
    if (wanted > VECTOR_DIMENSION_MAX)
        return error_set(e, REASON_CONFIG, "vectors have at most %u numbers", VECTOR_DIMENSION_MAX);
    if (!check_stored_dimension(&database->writer.connection, wanted, e))
        return false;
    database->vectors = (struct sqlite_vectors){
        .base = {.ops = &sqlite_vector_ops, .dimension = wanted}, .database = database};
    database->vector_cache = vector_cache_create(wanted);
    return true;
}

void sqlite_vectors_deinit(struct sqlite_database *database)
{
    vector_cache_destroy(database->vector_cache);
    database->vector_cache = NULL;
}
