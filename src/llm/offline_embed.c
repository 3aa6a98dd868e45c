/*
 * The stand-in's vectors.  A text is a bag of features: each word, and each run of three letters within " word ".  A feature's hash
 * chooses a place and a sign; the counts are damped by a square root and the vector is made as long as 1.  So texts that share words
 * or stems are near, texts that share nothing are near a right angle, and the same text gives the same vector anywhere, for ever.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "llm/offline_internal.h"
#include "store/vector_math.h"

#include <math.h>

enum { GRAM = 3, WORD_WEIGHT = 3, BYTES_PER_TOKEN = 4 };

/* FNV-1a with a final mix: fixed for ever, unlike the hash of tables. */
static uint64_t feature_hash(const char *bytes, size_t len, uint64_t kind)
{
    uint64_t hash = 0xcbf29ce484222325ull ^ kind;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ (unsigned char) bytes[i]) * 0x100000001b3ull;
    hash ^= hash >> 33;
    hash *= 0xff51afd7ed558ccdull;
    return hash ^ hash >> 33;
}

static void add_feature(float *vector, size_t dimension, uint64_t hash, float weight)
{
    vector[(hash >> 1) % dimension] += (hash & 1) != 0 ? weight : -weight;
}

static bool is_word_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || (c & 0x80) != 0;
}

static void add_word(float *vector, size_t dimension, str word)
{
    char gram[GRAM];
    add_feature(vector, dimension, feature_hash(word.ptr, word.len, 1), WORD_WEIGHT);
    for (size_t i = 0; i < word.len; i++) { /* with a blank before and behind */
        gram[0] = i == 0 ? ' ' : word.ptr[i - 1];
        gram[1] = word.ptr[i];
        gram[2] = i + 1 == word.len ? ' ' : word.ptr[i + 1];
        add_feature(vector, dimension, feature_hash(gram, GRAM, 2), 1);
    }
}

static const float *vector_of(struct context *ctx, struct arena *scratch, str text,
                              size_t dimension)
{
    arena_mark mark = arena_save(scratch);
    float *vector = ARENA_ARRAY(ctx->arena, float, dimension);
    str lower = str_lower(scratch, text);
    for (size_t at = 0; at < lower.len;) {
        size_t end = at;
        while (end < lower.len && is_word_byte(lower.ptr[end]))
            end++;
        if (end > at)
            add_word(vector, dimension, str_slice(lower, at, end));
        at = end + 1;
    }
    for (size_t i = 0; i < dimension; i++)
        vector[i] = vector[i] < 0 ? -sqrtf(-vector[i]) : sqrtf(vector[i]);
    if (!vector_normalise(vector, vector, dimension)) { /* no words, or all of them cancel out */
        memset(vector, 0, dimension * sizeof *vector);
        vector[(feature_hash(lower.ptr, lower.len, 3) >> 1) % dimension] = 1;
    }
    arena_rewind(scratch, mark);
    return vector;
}

bool offline_embed(struct provider *provider, struct context *ctx, const struct provider_call *how,
                   const struct embed_request *request, struct embed_reply *reply, struct error *e)
{
    (void) how;
    if (request->dimensions > (int64_t) EMBED_DIMENSION_MAX)
        return error_set(e, REASON_PROVIDER_INVALID, STR_FMT ": at most %u dimensions are possible",
                         STR_ARG(provider->name), EMBED_DIMENSION_MAX);
    OWNED(arena) scratch = arena_create(0);
    size_t dimension =
        request->dimensions > 0 ? (size_t) request->dimensions : VECTOR_DIMENSION_DEFAULT;
    const float **vectors =
        (const float **) arena_alloc_array(ctx->arena, request->text_count, sizeof(const float *));
    int64_t tokens = 0;
    for (size_t i = 0; i < request->text_count; i++) {
        vectors[i] = vector_of(ctx, scratch, request->texts[i], dimension);
        tokens += (int64_t) ((request->texts[i].len + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN);
        if (i % 64 == 63)
            coroutine_yield();
    }
    *reply = (struct embed_reply){.vectors = vectors,
                                  .dimension = dimension,
                                  .model = request->model,
                                  .usage = {.input_tokens = tokens, .is_reported = true}};
    return context_check(ctx, e);
}
