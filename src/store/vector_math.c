#include "store/vector_math.h"

#include <math.h>

/*
 * Eight sums side by side, so that the compiler may use wide registers without reordering what
 * floats forbid to reorder.
 */
enum { LANES = 8 };

float vector_dot(const float *a, const float *b, size_t dimension)
{
    float sums[LANES] = {0};
    size_t i = 0;
    for (; i + LANES <= dimension; i += LANES)
        for (size_t lane = 0; lane < LANES; lane++)
            sums[lane] += a[i + lane] * b[i + lane];
    float sum = 0;
    for (; i < dimension; i++)
        sum += a[i] * b[i];
    for (size_t lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

bool vector_normalise(const float *from, float *to, size_t dimension)
{
    double square = 0;
    for (size_t i = 0; i < dimension; i++)
        square += (double) from[i] * (double) from[i];
    if (!isfinite(square) || square <= 0)
        return false;
    double scale = 1 / sqrt(square);
    for (size_t i = 0; i < dimension; i++)
        to[i] = (float) ((double) from[i] * scale);
    return true;
}

static bool is_better(const struct ranked *a, const struct ranked *b)
{
    if (a->score > b->score || a->score < b->score)
        return a->score > b->score;
    return uuid_compare(a->id, b->id) < 0;
}

void ranking_offer(struct ranking *ranking, float score, uuid id, size_t index)
{
    struct ranked offered = {score, id, index};
    if (ranking->count == ranking->limit &&
        !is_better(&offered, &ranking->items[ranking->limit - 1]))
        return;
    size_t place = ranking->count < ranking->limit ? ranking->count++ : ranking->limit - 1;
    for (; place > 0 && is_better(&offered, &ranking->items[place - 1]); place--)
        ranking->items[place] = ranking->items[place - 1];
    ranking->items[place] = offered;
}
