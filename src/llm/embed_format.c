#include "llm/embed_format.h"
#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "llm/openai_format.h"

#include <math.h>
#include <stdio.h>

static bool is_known_member(str key)
{
    return str_equal(key, S("model")) || str_equal(key, S("input")) ||
           str_equal(key, S("encoding_format")) || str_equal(key, S("dimensions")) ||
           str_equal(key, S("user"));
}

bool embed_has_extra(const struct json *request)
{
    str key;
    const struct json *value;
    struct json_iter it = json_iter(request);
    while (json_next(&it, &key, &value))
        if (!is_known_member(key))
            return true;
    return false;
}

static void write_extra(struct json_writer *w, const struct json *request)
{
    str key;
    const struct json *value;
    struct json_iter it = json_iter(request);
    while (json_next(&it, &key, &value))
        if (!is_known_member(key))
            json_put_value(w, key, value);
}

void embed_write_request(struct json_writer *w, const struct embed_request *request)
{
    json_object_begin(w);
    json_put_str(w, S("model"), request->model);
    json_key(w, S("input"));
    json_array_begin(w);
    for (size_t i = 0; i < request->text_count; i++) {
        if (request->are_tokens)
            json_write_raw(w, request->texts[i]);
        else
            json_write_str(w, request->texts[i]);
    }
    json_array_end(w);
    json_put_str(w, S("encoding_format"), S("base64"));
    if (request->dimensions > 0)
        json_put_i64(w, S("dimensions"), request->dimensions);
    if (!str_is_empty(request->user))
        json_put_str(w, S("user"), request->user);
    write_extra(w, request->extra);
    json_object_end(w);
}

/* ---- answers ---- */

static bool fail_protocol(struct error *e, const char *what)
{
    return error_set(e, REASON_PROVIDER_PROTOCOL, "the answer to an embedding call %s", what);
}

static float unpack_one(const unsigned char *from)
{
    uint32_t bits = (uint32_t) from[0] | (uint32_t) from[1] << 8 | (uint32_t) from[2] << 16 |
                    (uint32_t) from[3] << 24;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static bool unpack(struct arena *arena, str text, float **out, size_t *count, struct error *e)
{
    str bytes;
    if (!base64_decode(arena, text, &bytes) || bytes.len % sizeof(float) != 0)
        return fail_protocol(e, "holds bad base64");
    *count = bytes.len / sizeof(float);
    if (*count > EMBED_DIMENSION_MAX)
        return fail_protocol(e, "has too many dimensions");
    *out = arena_alloc_raw(arena, bytes.len ? bytes.len : 1);
    for (size_t i = 0; i < *count; i++)
        (*out)[i] = unpack_one((const unsigned char *) bytes.ptr + i * sizeof(float));
    return true;
}

static bool read_numbers(struct arena *arena, const struct json *list, float **out, size_t *count,
                         struct error *e)
{
    const struct json *item;
    double value;
    size_t i = 0;
    *count = json_count(list);
    if (*count > EMBED_DIMENSION_MAX)
        return fail_protocol(e, "has too many dimensions");
    *out = arena_alloc_raw(arena, (*count ? *count : 1) * sizeof(float));
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item)) {
        if (!json_to_double(item, &value))
            return fail_protocol(e, "holds something that is no number");
        (*out)[i++] = (float) value;
    }
    return true;
}

static bool read_vector(struct arena *arena, const struct json *item, float **out, size_t *count,
                        struct error *e)
{
    str text;
    const struct json *embedding = json_get(item, S("embedding"));
    bool ok = json_to_str(embedding, &text) ? unpack(arena, text, out, count, e)
              : json_type(embedding) == JSON_ARRAY
                  ? read_numbers(arena, embedding, out, count, e)
                  : fail_protocol(e, "has an item without an embedding");
    if (!ok)
        return false;
    if (*count == 0)
        return fail_protocol(e, "holds an empty vector");
    for (size_t i = 0; i < *count; i++)
        if (!isfinite((*out)[i]))
            return fail_protocol(e, "holds a value that is not finite");
    return true;
}

static void read_usage(const struct json *body, struct usage *out)
{
    const struct json *usage = json_get(body, S("usage"));
    int64_t tokens = json_i64_or(usage, S("prompt_tokens"), -1);
    if (tokens < 0)
        tokens = json_i64_or(usage, S("total_tokens"), -1);
    *out = (struct usage){0};
    if (tokens >= 0 && tokens <= INT64_MAX / 2)
        *out = (struct usage){.input_tokens = tokens, .is_reported = true};
}

static bool place_vectors(struct arena *arena, const struct json *data,
                          const struct embed_request *request, struct embed_reply *out,
                          struct error *e)
{
    const struct json *item;
    size_t position = 0, dimension = 0;
    float *vector = NULL;
    struct json_iter it = json_iter(data);
    while (json_next(&it, NULL, &item)) {
        int64_t index = json_i64_or(item, S("index"), (int64_t) position++);
        if (index < 0 || (size_t) index >= request->text_count || out->vectors[index])
            return fail_protocol(e, "answers an input twice or one that was not asked");
        if (!read_vector(arena, item, &vector, &dimension, e))
            return false;
        if (out->dimension != 0 && dimension != out->dimension)
            return fail_protocol(e, "holds vectors of different lengths");
        out->dimension = dimension;
        out->vectors[index] = vector;
    }
    if (request->dimensions > 0 && (int64_t) out->dimension != request->dimensions)
        return error_set(e, REASON_PROVIDER_PROTOCOL,
                         "%lld dimensions were asked for, the vectors have %zu",
                         (long long) request->dimensions, out->dimension);
    return true;
}

bool embed_read_reply(struct arena *arena, const struct json *body,
                      const struct embed_request *request, struct embed_reply *out, struct error *e)
{
    const struct json *data = json_get(body, S("data")), *error = json_get(body, S("error"));
    struct embed_reply reply = {.model = json_str_or(body, S("model"), STR_NONE)};
    if (json_type(error) == JSON_OBJECT)
        return openai_error_from_json(error, 200, 0, arena, e);
    if (json_type(data) != JSON_ARRAY)
        return fail_protocol(e, "has no data");
    if (json_count(data) != request->text_count)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "%zu inputs were sent, %zu vectors came back",
                         request->text_count, json_count(data));
    reply.model = str_copy(arena, reply.model);
    reply.vectors =
        (const float **) arena_alloc_array(arena, request->text_count, sizeof(const float *));
    if (!place_vectors(arena, data, request, &reply, e))
        return false;
    read_usage(body, &reply.usage);
    *out = reply;
    return true;
}

/* ---- numbers ---- */

void embed_pack(const float *values, size_t count, char *out)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof bits);
        out[4 * i] = (char) (bits & 0xff);
        out[4 * i + 1] = (char) (bits >> 8 & 0xff);
        out[4 * i + 2] = (char) (bits >> 16 & 0xff);
        out[4 * i + 3] = (char) (bits >> 24 & 0xff);
    }
}

/* Powers of ten that a double holds exactly. */
static const double tens[] = {1e0, 1e1, 1e2,  1e3,  1e4,  1e5,  1e6,  1e7,
                              1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};

/* value = digits / 10^scale, digits < 10^9 and so both exact: the quotient is what any reader of the text gets. */
static void shortest(double value, int exponent, uint64_t *digits, int *scale)
{
    for (int count = 6;; count++) {
        *scale = count - 1 - exponent;
        if (*scale < 0)
            *scale = 0;
        *digits = (uint64_t) llround(value * tens[*scale]);
        double back = (double) *digits / tens[*scale];
        if (count >= 9 || (float) back == (float) value)
            return;
    }
}

size_t embed_print_number(float number, char out[EMBED_NUMBER_BYTES])
{
    double value = fabs((double) number);
    uint64_t digits;
    int exponent = 0, scale, at = 0;
    char reversed[EMBED_NUMBER_BYTES];
    if (value == 0) {
        out[0] = '0';
        return 1;
    }
    if (value < 1e-6 || value >= 1e8)
        return (size_t) snprintf(out, EMBED_NUMBER_BYTES, "%.9g", (double) number);
    while (value < 1 ? value * tens[-exponent] < 1 : value >= tens[exponent + 1])
        exponent += value < 1 ? -1 : 1;
    shortest(value, exponent, &digits, &scale);
    while (scale > 0 && digits % 10 == 0) {
        digits /= 10;
        scale--;
    }
    for (int place = 0; digits > 0 || place <= scale; place++) {
        if (place == scale && scale > 0)
            reversed[at++] = '.';
        reversed[at++] = (char) ('0' + digits % 10);
        digits /= 10;
    }
    size_t len = 0;
    if (number < 0)
        out[len++] = '-';
    while (at > 0)
        out[len++] = reversed[--at];
    return len;
}

/* ---- bounds ---- */

int64_t embed_tokens_bound(str text, bool are_tokens)
{
    int64_t count = 1;
    if (!are_tokens)
        return (int64_t) text.len + 8; /* a byte may be a token; and what frames a text */
    for (size_t i = 0; i < text.len; i++)
        count += text.ptr[i] == ',';
    return count;
}
