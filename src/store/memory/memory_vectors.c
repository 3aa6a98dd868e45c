/* Vectors in memory: one list of points, scanned whole. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "store/memory.h"
#include "store/vector_math.h"
#include <pthread.h>
#include <stdlib.h>

struct memory_vectors {
    struct vector_index base;
    pthread_mutex_t lock;
    struct point **points;
    size_t count, capacity;
};
struct point {
    uuid tenant_id;
    struct vector_point shown; /* texts and vector lie behind, in the same block */
    float unit[];
};

static struct memory_vectors *memory_of(struct vector_index *index)
{
    return CONTAINER_OF(index, struct memory_vectors, base);
}

static str text_take(char **end, str text)
{
    if (text.len > 0)
        memcpy(*end, text.ptr, text.len);
    *end += text.len;
    return str_of(*end - text.len, text.len);
}

static struct point *point_create(uuid tenant_id, const struct vector_point *from, size_t dimension)
{
    size_t vector_bytes = dimension * sizeof(float);
    struct point *point = malloc(sizeof *point + vector_bytes + from->user_id.len +
                                 from->content_type.len + from->metadata.len);
    ensure(point);
    point->tenant_id = tenant_id;
    point->shown = *from;
    char *end = (char *) point->unit + vector_bytes;
    point->shown.user_id = text_take(&end, from->user_id);
    point->shown.content_type = text_take(&end, from->content_type);
    point->shown.metadata = text_take(&end, from->metadata);
    point->shown.vector = NULL;
    if (vector_normalise(from->vector, point->unit, dimension))
        return point;
    free(point);
    return NULL;
}

/* Index of the point, or count. */
static size_t point_find(const struct memory_vectors *vectors, uuid tenant_id, uuid id)
{
    size_t i = 0;
    while (i < vectors->count && !(uuid_equal(vectors->points[i]->tenant_id, tenant_id) &&
                                   uuid_equal(vectors->points[i]->shown.id, id)))
        i++;
    return i;
}

static void point_put(struct memory_vectors *vectors, struct point *give_point)
{
    size_t i = point_find(vectors, give_point->tenant_id, give_point->shown.id);
    if (i < vectors->count) {
        free(vectors->points[i]);
    } else if (vectors->count++ == vectors->capacity) {
        vectors->capacity = vectors->capacity ? 2 * vectors->capacity : 16;
        vectors->points = realloc(vectors->points, vectors->capacity * sizeof(*vectors->points));
        ensure(vectors->points);
    }
    vectors->points[i] = give_point;
}

static bool check_sessions(const struct memory_vectors *vectors, uuid tenant_id,
                           const struct vector_point *points, size_t count, struct error *e)
{
    for (size_t i = 0; i < count; i++) {
        size_t found = point_find(vectors, tenant_id, points[i].id);
        if (found < vectors->count &&
            !uuid_equal(vectors->points[found]->shown.session_id, points[i].session_id))
            return error_set(e, REASON_CONFLICT, "the id belongs to a point of another session");
    }
    return true;
}

static bool is_among(const struct vector_point *points, size_t count, uuid id)
{
    for (size_t i = 0; i < count; i++)
        if (uuid_equal(points[i].id, id))
            return true;
    return false;
}

/* As if the first points of the call were there: those of the last one's session and user. */
static bool check_room_for(const struct memory_vectors *vectors, uuid tenant_id,
                           const struct vector_point *points, size_t count, struct error *e)
{
    const struct vector_point *last = &points[count - 1];
    size_t of_session = 0, of_user = 0;
    for (size_t i = 0; i < count; i++) {
        of_session += uuid_equal(points[i].session_id, last->session_id);
        of_user += str_equal(points[i].user_id, last->user_id);
    }
    for (size_t i = 0; i < vectors->count; i++) {
        const struct point *point = vectors->points[i];
        if (!uuid_equal(point->tenant_id, tenant_id) || is_among(points, count, point->shown.id))
            continue;
        of_session += uuid_equal(point->shown.session_id, last->session_id);
        of_user += str_equal(point->shown.user_id, last->user_id);
    }
    return (uuid_is_none(last->session_id) ||
            vector_check_room("session", of_session, vectors->base.session_points_max, e)) &&
           vector_check_room("user", of_user, vectors->base.user_points_max, e);
}

static bool check_room(const struct memory_vectors *vectors, uuid tenant_id,
                       const struct vector_point *points, size_t count, struct error *e)
{
    for (size_t i = 1; i <= count; i++)
        if (!check_room_for(vectors, tenant_id, points, i, e))
            return false;
    return true;
}

static bool upsert(struct vector_index *index, struct context *ctx, uuid tenant_id,
                   const struct vector_point *points, size_t count, struct error *e)
{
    struct memory_vectors *vectors = memory_of(index);
    struct point **made = ARENA_ARRAY(ctx->arena, struct point *, count);
    bool is_ok = true;
    for (size_t i = 0; i < count && is_ok; i++) {
        made[i] = point_create(tenant_id, &points[i], index->dimension);
        is_ok = made[i] ||
                error_set(e, REASON_INVALID, "a vector without direction (zero, or not finite)");
    }
    pthread_mutex_lock(&vectors->lock);
    is_ok = is_ok && check_sessions(vectors, tenant_id, points, count, e) &&
            check_room(vectors, tenant_id, points, count, e);
    for (size_t i = 0; i < count; i++) {
        if (is_ok)
            point_put(vectors, made[i]);
        else
            free(made[i]);
    }
    pthread_mutex_unlock(&vectors->lock);
    return is_ok;
}

static bool is_searched(const struct point *point, uuid tenant_id, uuid session_id, str user_id)
{
    return uuid_equal(point->tenant_id, tenant_id) && str_equal(point->shown.user_id, user_id) &&
           (uuid_is_none(session_id) || uuid_equal(point->shown.session_id, session_id));
}

static void shown_copy(struct arena *arena, const struct point *point, struct vector_point *out)
{
    *out = point->shown;
    out->user_id = str_copy(arena, out->user_id);
    out->content_type = str_copy(arena, out->content_type);
    out->metadata = str_copy(arena, out->metadata);
}

static bool search(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid session_id,
                   str user_id, const float *vector, size_t limit, struct vector_point **out,
                   size_t *count, struct error *e)
{
    struct memory_vectors *vectors = memory_of(index);
    float *unit = ARENA_ARRAY(ctx->arena, float, index->dimension);
    if (!vector_normalise(vector, unit, index->dimension))
        return error_set(e, REASON_INVALID, "a vector without direction (zero, or not finite)");
    struct ranking ranking = {.limit = limit,
                              .items = ARENA_ARRAY(ctx->arena, struct ranked, limit)};
    pthread_mutex_lock(&vectors->lock);
    for (size_t i = 0; i < vectors->count; i++) {
        const struct point *point = vectors->points[i];
        if (is_searched(point, tenant_id, session_id, user_id))
            ranking_offer(&ranking, vector_dot(point->unit, unit, index->dimension),
                          point->shown.id, i);
    }
    *count = ranking.count;
    *out = ARENA_ARRAY(ctx->arena, struct vector_point, ranking.count);
    for (size_t i = 0; i < ranking.count; i++) {
        shown_copy(ctx->arena, vectors->points[ranking.items[i].index], &(*out)[i]);
        (*out)[i].score = (double) ranking.items[i].score;
    }
    pthread_mutex_unlock(&vectors->lock);
    return true;
}

static bool is_forgotten(const struct point *point, uuid tenant_id, uuid session_id,
                         const uuid *ids, size_t count)
{
    if (!uuid_equal(point->tenant_id, tenant_id) ||
        !uuid_equal(point->shown.session_id, session_id))
        return false;
    bool is_named = count == 0;
    for (size_t i = 0; i < count; i++)
        is_named = is_named || uuid_equal(ids[i], point->shown.id);
    return is_named;
}

static bool forget(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid session_id,
                   const uuid *ids, size_t count, struct error *e)
{
    struct memory_vectors *vectors = memory_of(index);
    (void) ctx;
    (void) e;
    pthread_mutex_lock(&vectors->lock);
    size_t kept = 0;
    for (size_t i = 0; i < vectors->count; i++) {
        if (is_forgotten(vectors->points[i], tenant_id, session_id, ids, count))
            free(vectors->points[i]);
        else
            vectors->points[kept++] = vectors->points[i];
    }
    vectors->count = kept;
    pthread_mutex_unlock(&vectors->lock);
    return true;
}

static bool find(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid id,
                 struct vector_point *out, struct error *e)
{
    struct memory_vectors *vectors = memory_of(index);
    pthread_mutex_lock(&vectors->lock);
    size_t i = point_find(vectors, tenant_id, id);
    bool is_found = i < vectors->count;
    if (is_found)
        shown_copy(ctx->arena, vectors->points[i], out);
    pthread_mutex_unlock(&vectors->lock);
    return is_found || error_set(e, REASON_NOT_FOUND, "there is no such point");
}

static void destroy(struct vector_index *index)
{
    struct memory_vectors *vectors = memory_of(index);
    for (size_t i = 0; i < vectors->count; i++)
        free(vectors->points[i]);
    free(vectors->points);
    pthread_mutex_destroy(&vectors->lock);
    free(vectors);
}

static const struct vector_index_ops memory_vector_ops = {
    .name = "memory",
    .upsert = upsert,
    .search = search,
    .forget = forget,
    .find = find,
    .destroy = destroy,
};

struct vector_index *memory_vector_create(size_t dimension)
{
    ensure(dimension >= 1 && dimension <= VECTOR_DIMENSION_MAX);
    struct memory_vectors *vectors = calloc(1, sizeof *vectors);
    ensure(vectors && pthread_mutex_init(&vectors->lock, NULL) == 0);
    vectors->base = (struct vector_index){.ops = &memory_vector_ops, .dimension = dimension};
    return &vectors->base;
}
