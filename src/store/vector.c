#include "store/vector.h"

#include "base/limits.h"

static bool check_dimension(const struct vector_index *index, size_t dimension, struct error *e)
{
    return dimension == index->dimension ||
           error_set(e, REASON_INVALID, "a vector of %zu numbers, the index holds vectors of %zu",
                     dimension, index->dimension);
}

static bool check_point(const struct vector_point *point, struct error *e)
{
    if (!point->vector)
        return error_set(e, REASON_INVALID, "a point without a vector");
    if (!str_equal(point->content_type, S("message")) &&
        !str_equal(point->content_type, S("tool_result")) &&
        !str_equal(point->content_type, S("summary")))
        return error_set(e, REASON_INVALID, "content_type is message, tool_result or summary");
    if (point->metadata.len > VECTOR_METADATA_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "metadata has at most %u bytes",
                         VECTOR_METADATA_BYTES_MAX);
    return true;
}

bool vector_upsert(struct vector_index *index, struct context *ctx, uuid tenant_id,
                   const struct vector_point *points, size_t count, size_t dimension,
                   struct error *e)
{
    if (!context_check(ctx, e) || !check_dimension(index, dimension, e))
        return false;
    if (count > VECTOR_POINTS_MAX)
        return error_set(e, REASON_LIMIT, "%zu points at once, at most %u", count,
                         VECTOR_POINTS_MAX);
    for (size_t i = 0; i < count; i++)
        if (!check_point(&points[i], e))
            return false;
    return index->ops->upsert(index, ctx, tenant_id, points, count, e);
}

bool vector_search(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid session_id,
                   str user_id, const float *vector, size_t dimension, size_t limit,
                   struct vector_point **out, size_t *count, struct error *e)
{
    if (!context_check(ctx, e) || !check_dimension(index, dimension, e))
        return false;
    if (limit < 1 || limit > VECTOR_RESULTS_MAX)
        return error_set(e, REASON_INVALID, "limit must be from 1 to %u", VECTOR_RESULTS_MAX);
    return index->ops->search(index, ctx, tenant_id, session_id, user_id, vector, limit, out, count,
                              e);
}

bool vector_forget(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid session_id,
                   const uuid *ids, size_t count, struct error *e)
{
    if (count > VECTOR_POINTS_MAX)
        return error_set(e, REASON_LIMIT, "%zu points at once, at most %u", count,
                         VECTOR_POINTS_MAX);
    return context_check(ctx, e) &&
           index->ops->forget(index, ctx, tenant_id, session_id, ids, count, e);
}

bool vector_find(struct vector_index *index, struct context *ctx, uuid tenant_id, uuid id,
                 struct vector_point *out, struct error *e)
{
    return context_check(ctx, e) && index->ops->find(index, ctx, tenant_id, id, out, e);
}

bool vector_check_room(const char *whose, size_t count, size_t max, struct error *e)
{
    return max == 0 || count <= max ||
           error_set(e, REASON_QUOTA,
                     "the %s has %zu points already, as many as it may: forget some", whose, max);
}

void vector_destroy(struct vector_index *index)
{
    if (index)
        index->ops->destroy(index);
}
