#include "orchestrator/usage/usage.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"

enum {
    IS_STREAM = 1,
    IS_EXACT_HIT = 2,
    IS_SEMANTIC_HIT = 4,
    HAS_SESSION = 8,
    HAS_NEW_SHAPE = 16,
    HAS_FIRST_TOKEN = 32,
    FLAGS_ALL = 63,
    NUMBER_BYTES_MAX = 10,
    FIXED_BYTES_MAX = 1 + 2 * 16 + 12 * NUMBER_BYTES_MAX,
};
static const char magic[4] = {'N', 'X', 'U', '1'};

/* The one order in which a shape's texts are written and read. */
static void shape_texts(struct usage_shape *shape, str *out[USAGE_TEXT_COUNT])
{
    str *texts[USAGE_TEXT_COUNT] = {
        &shape->user_id,  &shape->dialect,      &shape->kind,   &shape->model, &shape->variant,
        &shape->provider, &shape->target_model, &shape->status, &shape->basis,
    };
    memcpy(out, texts, sizeof texts);
}

/* ---- writing ---- */

static void reserve(struct usage_writer *w, size_t bytes)
{
    if (w->capacity - w->len >= bytes)
        return;
    size_t capacity = w->capacity ? 2 * w->capacity : 4096;
    while (capacity - w->len < bytes)
        capacity *= 2;
    w->bytes = arena_resize_raw(w->arena, w->bytes, w->capacity, capacity);
    w->capacity = capacity;
}

static void put_bytes(struct usage_writer *w, const void *bytes, size_t len)
{
    if (len == 0)
        return;
    memcpy(w->bytes + w->len, bytes, len);
    w->len += len;
}

static void put_number(struct usage_writer *w, uint64_t value)
{
    while (value >= 0x80) {
        w->bytes[w->len++] = (uint8_t) (value | 0x80);
        value >>= 7;
    }
    w->bytes[w->len++] = (uint8_t) value;
}

static void put_amount(struct usage_writer *w, int64_t value)
{
    put_number(w, value > 0 ? (uint64_t) value : 0);
}

static void put_shape(struct usage_writer *w, const struct usage_shape *shape)
{
    struct usage_shape copy = *shape;
    str *texts[USAGE_TEXT_COUNT];
    shape_texts(&copy, texts);
    for (size_t i = 0; i < USAGE_TEXT_COUNT; i++) {
        str text = str_cut_utf8(*texts[i], USAGE_NAME_BYTES_MAX);
        reserve(w, text.len + NUMBER_BYTES_MAX);
        put_number(w, text.len);
        put_bytes(w, text.ptr, text.len);
    }
    reserve(w, sizeof shape->key_id.bytes);
    put_bytes(w, shape->key_id.bytes, sizeof shape->key_id.bytes);
}

void usage_writer_init(struct usage_writer *w, struct arena *arena)
{
    *w = (struct usage_writer){.arena = arena};
    reserve(w, sizeof magic);
    put_bytes(w, magic, sizeof magic);
}

static uint8_t flags_of(const struct usage_record *record, bool is_new)
{
    unsigned flags = record->is_stream ? IS_STREAM : 0;
    flags |= record->cache == USAGE_CACHE_EXACT      ? IS_EXACT_HIT
             : record->cache == USAGE_CACHE_SEMANTIC ? IS_SEMANTIC_HIT
                                                     : 0;
    flags |= uuid_is_none(record->session_id) ? 0 : HAS_SESSION;
    flags |= is_new ? HAS_NEW_SHAPE : 0;
    flags |= record->first_token_us >= 0 ? HAS_FIRST_TOKEN : 0;
    return (uint8_t) flags;
}

void usage_write(struct usage_writer *w, const struct usage_record *record, uint32_t *shape_number)
{
    bool is_new = *shape_number == UINT32_MAX;
    reserve(w, FIXED_BYTES_MAX);
    w->bytes[w->len++] = flags_of(record, is_new);
    if (is_new) {
        put_shape(w, &record->shape);
        *shape_number = w->shape_count++;
        reserve(w, FIXED_BYTES_MAX);
    } else {
        put_number(w, *shape_number);
    }
    put_bytes(w, record->call_id.bytes, sizeof record->call_id.bytes);
    if (!uuid_is_none(record->session_id))
        put_bytes(w, record->session_id.bytes, sizeof record->session_id.bytes);
    int64_t step = record->started_us - w->last_started_us;
    put_number(w, (uint64_t) step << 1 ^ (uint64_t) (step >> 63));
    w->last_started_us = record->started_us;
    put_amount(w, record->duration_us);
    if (record->first_token_us >= 0)
        put_amount(w, record->first_token_us);
    put_amount(w, record->input_tokens);
    put_amount(w, record->output_tokens);
    put_amount(w, record->cached_tokens);
    put_amount(w, record->cache_write_tokens);
    put_amount(w, record->reasoning_tokens);
    put_amount(w, record->cost_nanousd);
    put_amount(w, record->time_ms);
    put_amount(w, record->attempts);
    w->record_count++;
}

/* ---- reading ---- */

static bool broken(const struct usage_reader *r, struct error *e)
{
    return error_set(e, REASON_STORE, "a usage chunk is broken, %zu bytes before its end",
                     (size_t) (r->end - r->at));
}

static bool get_bytes(struct usage_reader *r, size_t len, const uint8_t **out, struct error *e)
{
    if ((size_t) (r->end - r->at) < len)
        return broken(r, e);
    *out = r->at;
    r->at += len;
    return true;
}

static bool get_number(struct usage_reader *r, uint64_t *out, struct error *e)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (r->at == r->end)
            return broken(r, e);
        uint8_t byte = *r->at++;
        if (shift == 63 && byte > 1)
            return broken(r, e);
        value |= (uint64_t) (byte & 0x7f) << shift;
        if (byte < 0x80) {
            *out = value;
            return true;
        }
    }
    return broken(r, e);
}

static bool get_amount(struct usage_reader *r, int64_t *out, struct error *e)
{
    uint64_t value;
    if (!get_number(r, &value, e))
        return false;
    if (value > INT64_MAX)
        return broken(r, e);
    *out = (int64_t) value;
    return true;
}

static bool get_id(struct usage_reader *r, uuid *out, struct error *e)
{
    const uint8_t *bytes;
    if (!get_bytes(r, sizeof out->bytes, &bytes, e))
        return false;
    memcpy(out->bytes, bytes, sizeof out->bytes);
    return true;
}

static bool get_text(struct usage_reader *r, str *out, struct error *e)
{
    uint64_t len;
    const uint8_t *bytes;
    if (!get_number(r, &len, e))
        return false;
    if (len > USAGE_NAME_BYTES_MAX)
        return broken(r, e);
    if (!get_bytes(r, (size_t) len, &bytes, e))
        return false;
    *out = str_of((const char *) bytes, (size_t) len);
    return true;
}

static bool get_new_shape(struct usage_reader *r, struct usage_shape *out, struct error *e)
{
    str *texts[USAGE_TEXT_COUNT];
    *out = (struct usage_shape){0};
    shape_texts(out, texts);
    for (size_t i = 0; i < USAGE_TEXT_COUNT; i++)
        if (!get_text(r, texts[i], e))
            return false;
    if (!get_id(r, &out->key_id, e))
        return false;
    if (r->shape_count == r->shape_capacity) {
        size_t capacity = r->shape_capacity ? 2 * r->shape_capacity : 8;
        r->shapes = arena_grow(r->arena, r->shapes, r->shape_capacity * sizeof *r->shapes,
                               capacity * sizeof *r->shapes);
        r->shape_capacity = capacity;
    }
    r->shapes[r->shape_count++] = *out;
    return true;
}

static bool get_shape(struct usage_reader *r, bool is_new, struct usage_shape *out, struct error *e)
{
    uint64_t number;
    if (is_new)
        return get_new_shape(r, out, e);
    if (!get_number(r, &number, e))
        return false;
    if (number >= r->shape_count)
        return broken(r, e);
    *out = r->shapes[number];
    return true;
}

static bool get_start(struct usage_reader *r, int64_t *out, struct error *e)
{
    uint64_t coded;
    if (!get_number(r, &coded, e))
        return false;
    int64_t step = (int64_t) (coded >> 1 ^ (0 - (coded & 1)));
    if (__builtin_add_overflow(r->last_started_us, step, &r->last_started_us))
        return broken(r, e);
    *out = r->last_started_us;
    return true;
}

bool usage_reader_init(struct usage_reader *r, struct arena *arena, str data, struct error *e)
{
    *r = (struct usage_reader){.arena = arena,
                               .at = (const uint8_t *) data.ptr,
                               .end = (const uint8_t *) data.ptr + data.len};
    if (data.len < sizeof magic || memcmp(data.ptr, magic, sizeof magic) != 0)
        return error_set(e, REASON_STORE, "not a usage chunk that this version knows");
    r->at += sizeof magic;
    return true;
}

bool usage_read(struct usage_reader *r, struct usage_record *out, struct error *e)
{
    if (r->at == r->end)
        return false;
    uint8_t flags = *r->at++;
    bool is_twice = (flags & IS_EXACT_HIT) && (flags & IS_SEMANTIC_HIT);
    if (flags > FLAGS_ALL || is_twice)
        return broken(r, e);
    *out = (struct usage_record){
        .first_token_us = -1,
        .is_stream = flags & IS_STREAM,
        .cache = flags & IS_EXACT_HIT      ? USAGE_CACHE_EXACT
                 : flags & IS_SEMANTIC_HIT ? USAGE_CACHE_SEMANTIC
                                           : USAGE_CACHE_NONE,
    };
    int64_t *amounts[] = {
        &out->input_tokens,     &out->output_tokens, &out->cached_tokens, &out->cache_write_tokens,
        &out->reasoning_tokens, &out->cost_nanousd,  &out->time_ms,       &out->attempts};
    if (!get_shape(r, flags & HAS_NEW_SHAPE, &out->shape, e) || !get_id(r, &out->call_id, e) ||
        ((flags & HAS_SESSION) && !get_id(r, &out->session_id, e)) ||
        !get_start(r, &out->started_us, e) || !get_amount(r, &out->duration_us, e) ||
        ((flags & HAS_FIRST_TOKEN) && !get_amount(r, &out->first_token_us, e)))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(amounts); i++)
        if (!get_amount(r, amounts[i], e))
            return false;
    return true;
}

/* ---- as JSON ---- */

static void put_id(struct json_writer *w, str name, uuid id)
{
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(id, text);
    json_key(w, name);
    if (uuid_is_none(id))
        json_write_null(w);
    else
        json_write_str(w, str_of(text, UUID_TEXT_BYTES));
}

static void put_ms(struct json_writer *w, str name, int64_t us)
{
    json_key(w, name);
    if (us < 0)
        json_write_null(w);
    else
        json_write_double(w, (double) us / 1000);
}

void usage_write_json(struct json_writer *w, const struct usage_record *record)
{
    static const str caches[] = {S_INIT("none"), S_INIT("exact"), S_INIT("semantic")};
    const struct usage_shape *shape = &record->shape;
    char started[TIME_TEXT_BYTES + 1];
    time_format(record->started_us, started);
    json_object_begin(w);
    put_id(w, S("call_id"), record->call_id);
    json_put_str(w, S("user_id"), shape->user_id);
    put_id(w, S("key_id"), shape->key_id);
    put_id(w, S("session_id"), record->session_id);
    json_put_str(w, S("started_at"), str_from_cstr(started));
    json_put_str(w, S("dialect"), shape->dialect);
    json_put_str(w, S("kind"), shape->kind);
    json_put_str(w, S("model"), shape->model);
    json_put_str(w, S("variant"), shape->variant);
    json_put_str(w, S("provider"), shape->provider);
    json_put_str(w, S("target_model"), shape->target_model);
    json_put_str(w, S("status"), shape->status);
    json_put_str(w, S("basis"), shape->basis);
    json_put_str(w, S("cache"), caches[record->cache]);
    json_put_bool(w, S("stream"), record->is_stream);
    json_put_i64(w, S("attempts"), record->attempts);
    put_ms(w, S("duration_ms"), record->duration_us);
    put_ms(w, S("first_token_ms"), record->first_token_us);
    json_put_i64(w, S("input_tokens"), record->input_tokens);
    json_put_i64(w, S("output_tokens"), record->output_tokens);
    json_put_i64(w, S("cached_tokens"), record->cached_tokens);
    json_put_i64(w, S("cache_write_tokens"), record->cache_write_tokens);
    json_put_i64(w, S("reasoning_tokens"), record->reasoning_tokens);
    json_put_i64_str(w, S("cost_nanousd"), record->cost_nanousd);
    json_object_end(w);
}

/* ---- latencies ---- */

static const int64_t bounds_ms[USAGE_LATENCY_BUCKETS - 1] = {
    1, 2, 5, 10, 25, 50, 100, 200, 400, 700, 1000, 1500, 2500, 4000, 7000, 12000, 30000, 60000};

int usage_latency_bucket(int64_t duration_us)
{
    int bucket = 0;
    while (bucket < USAGE_LATENCY_BUCKETS - 1 && duration_us > bounds_ms[bucket] * 1000)
        bucket++;
    return bucket;
}

double usage_latency_quantile(const int64_t counts[USAGE_LATENCY_BUCKETS], double share)
{
    int64_t total = 0;
    for (int i = 0; i < USAGE_LATENCY_BUCKETS; i++)
        total += counts[i];
    double wanted = share * (double) total, before = 0;
    for (int i = 0; i < USAGE_LATENCY_BUCKETS; i++) {
        double low = i ? (double) bounds_ms[i - 1] : 0;
        if (counts[i] > 0 && before + (double) counts[i] >= wanted) {
            double high = i < USAGE_LATENCY_BUCKETS - 1 ? (double) bounds_ms[i] : 2 * low;
            return low + (high - low) * (wanted - before) / (double) counts[i];
        }
        before += (double) counts[i];
    }
    return 0;
}
