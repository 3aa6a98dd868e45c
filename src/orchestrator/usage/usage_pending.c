#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"
#include "base/timefmt.h"
#include "orchestrator/policy/audit.h"
#include "orchestrator/usage/usage_pending_internal.h"
#include "runtime/clock.h"
#include <stdlib.h>

enum { SHAPE_BUCKETS = 256, DAY_BYTES = 10 };
#define DAY_US (86400ll * 1000000)

/* A row of USAGE_DAILY. */
struct usage_sum {
    struct usage_sum *next;
    const struct usage_shape *shape;
    int64_t day;
    int64_t amounts[USAGE_DAILY_FEEDBACK_COUNT]; /* by column; those of the key stay 0 */
};
/* A row of USAGE_LATENCY. */
struct usage_latency {
    struct usage_latency *next;
    const struct usage_shape *shape;
    int64_t day;
    const char *measure; /* a literal */
    int64_t counts[USAGE_LATENCY_BUCKETS];
};
struct usage_meters {
    struct metric_series *calls, *duration, *input, *output, *cached, *cost;
};
struct usage_slot {
    struct usage_slot *next; /* in its bucket */
    struct usage_shape shape;
    int64_t day;
    uint32_t number; /* in the chunk */
    struct usage_sum *sum;
    struct usage_latency *duration, *first_token; /* NULL: none yet */
    struct usage_meters meters;
};
struct usage_tenant {
    struct usage_tenant *next;
    uuid id;
    struct usage_slot *slots[SHAPE_BUCKETS];
    struct usage_sum *sums, **sums_end;
    struct usage_latency *latencies, **latencies_end;
    struct usage_writer writer;
    uuid first_call, last_call;
    int64_t first_us, last_us, dropped;
};
struct usage_pending {
    struct arena *arena;
    struct usage_tenant *tenants;
    size_t tenant_count;
};

void usage_meters_init(struct usage_meters_common *meters, struct metrics *metrics)
{
    str completed[] = {S("none"), S("model"), S("completed")},
        failed[] = {S("none"), S("model"), S("failed")}, type = S("model");
    *meters = (struct usage_meters_common){0};
    if (!metrics)
        return;
    meters->completed = metrics_series(metrics, METRIC_AGENT_REQUESTS, completed, 3);
    meters->failed = metrics_series(metrics, METRIC_AGENT_REQUESTS, failed, 3);
    meters->duration = metrics_series(metrics, METRIC_AGENT_REQUEST_DURATION, &type, 1);
}

struct usage_pending *usage_pending_create(void)
{
    struct usage_pending *pending = calloc(1, sizeof *pending);
    ensure(pending != NULL);
    pending->arena = arena_create(256u << 20);
    return pending;
}

void usage_pending_destroy(struct usage_pending *pending)
{
    if (!pending)
        return;
    arena_destroy(pending->arena);
    free(pending);
}

/* ---- finding one's place ---- */

static struct usage_tenant *tenant_of(struct usage_pending *pending, uuid id)
{
    for (struct usage_tenant *tenant = pending->tenants; tenant; tenant = tenant->next)
        if (uuid_equal(tenant->id, id))
            return tenant;
    struct usage_tenant *made = ARENA_NEW(pending->arena, struct usage_tenant);
    made->id = id;
    made->sums_end = &made->sums;
    made->latencies_end = &made->latencies;
    made->next = pending->tenants;
    pending->tenants = made;
    pending->tenant_count++;
    usage_writer_init(&made->writer, pending->arena);
    return made;
}

/* Of what all shapes of one sum have in common, so that they share a bucket. */
static uint64_t hash_of(const struct usage_shape *shape)
{
    uint64_t key;
    memcpy(&key, shape->key_id.bytes + 8, sizeof key);
    uint64_t hash = str_hash(shape->user_id, map_seed()) ^ str_hash(shape->model, map_seed() + 1);
    hash += key * 0x9e3779b97f4a7c15ull;
    return hash ^ hash >> 32;
}

static bool is_same_sum(const struct usage_shape *a, const struct usage_shape *b)
{
    return str_equal(a->user_id, b->user_id) && uuid_equal(a->key_id, b->key_id) &&
           str_equal(a->model, b->model) && str_equal(a->provider, b->provider) &&
           str_equal(a->variant, b->variant) && str_equal(a->kind, b->kind);
}

static bool is_same_shape(const struct usage_shape *a, const struct usage_shape *b)
{
    return is_same_sum(a, b) && str_equal(a->status, b->status) && str_equal(a->basis, b->basis) &&
           str_equal(a->target_model, b->target_model) && str_equal(a->dialect, b->dialect);
}

static struct usage_sum *sum_of(struct usage_pending *pending, struct usage_tenant *tenant,
                                const struct usage_slot *bucket, const struct usage_slot *slot)
{
    for (; bucket; bucket = bucket->next)
        if (bucket->day == slot->day && is_same_sum(&bucket->shape, &slot->shape))
            return bucket->sum;
    struct usage_sum *made = ARENA_NEW(pending->arena, struct usage_sum);
    made->shape = &slot->shape;
    made->day = slot->day;
    *tenant->sums_end = made;
    tenant->sums_end = &made->next;
    return made;
}

static struct usage_latency *latency_of(struct usage_pending *pending, struct usage_tenant *tenant,
                                        const struct usage_slot *slot, const char *measure)
{
    const struct usage_shape *shape = &slot->shape;
    for (struct usage_latency *found = tenant->latencies; found; found = found->next)
        if (found->day == slot->day && found->measure == measure &&
            str_equal(found->shape->model, shape->model) &&
            str_equal(found->shape->provider, shape->provider) &&
            str_equal(found->shape->variant, shape->variant))
            return found;
    struct usage_latency *made = ARENA_NEW(pending->arena, struct usage_latency);
    made->shape = shape;
    made->day = slot->day;
    made->measure = measure;
    *tenant->latencies_end = made;
    tenant->latencies_end = &made->next;
    return made;
}

static void meters_find(struct usage_meters *meters, struct metrics *metrics,
                        const struct usage_shape *shape)
{
    str model = shape->model;
    if (!metrics)
        return;
    meters->calls = metrics_series(metrics, METRIC_MODEL_CALLS,
                                   (str[]){model, shape->provider, shape->status}, 3);
    meters->duration = metrics_series(metrics, METRIC_MODEL_DURATION, &model, 1);
    meters->input = metrics_series(metrics, METRIC_MODEL_TOKENS, (str[]){model, S("input")}, 2);
    meters->output = metrics_series(metrics, METRIC_MODEL_TOKENS, (str[]){model, S("output")}, 2);
    meters->cached = metrics_series(metrics, METRIC_MODEL_TOKENS, (str[]){model, S("cached")}, 2);
    meters->cost = metrics_series(metrics, METRIC_MODEL_COST, &model, 1);
}

static struct usage_shape copy_shape(struct arena *arena, const struct usage_shape *shape)
{
    struct usage_shape copy = *shape;
    str *texts[] = {&copy.user_id,  &copy.dialect,      &copy.kind,   &copy.model, &copy.variant,
                    &copy.provider, &copy.target_model, &copy.status, &copy.basis};
    for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
        *texts[i] = str_copy(arena, str_cut_utf8(*texts[i], USAGE_NAME_BYTES_MAX));
    return copy;
}

static never_inline struct usage_slot *make_slot(struct usage_pending *pending,
                                                 struct usage_tenant *tenant,
                                                 struct metrics *metrics,
                                                 struct usage_slot **bucket, int64_t day,
                                                 const struct usage_shape *shape)
{
    struct usage_slot *made = ARENA_NEW(pending->arena, struct usage_slot);
    made->shape = copy_shape(pending->arena, shape);
    made->day = day;
    made->number = UINT32_MAX;
    made->sum = sum_of(pending, tenant, *bucket, made);
    meters_find(&made->meters, metrics, &made->shape);
    made->next = *bucket;
    *bucket = made;
    return made;
}

static struct usage_slot *slot_of(struct usage_pending *pending, struct usage_tenant *tenant,
                                  struct metrics *metrics, int64_t day,
                                  const struct usage_shape *shape)
{
    struct usage_slot **bucket = &tenant->slots[hash_of(shape) % SHAPE_BUCKETS];
    for (struct usage_slot *slot = *bucket; slot; slot = slot->next)
        if (slot->day == day && is_same_shape(&slot->shape, shape))
            return slot;
    return make_slot(pending, tenant, metrics, bucket, day, shape);
}

/* ---- adding ---- */

/* The day on which it ended: when it is counted. */
static int64_t day_of(const struct usage_record *record)
{
    return (record->started_us + record->duration_us) / DAY_US;
}

static bool is_error(const struct usage_record *record)
{
    return !str_equal(record->shape.status, S("ok"));
}

static void add_sums(struct usage_pending *pending, struct usage_tenant *tenant,
                     struct usage_slot *slot, const struct usage_record *record)
{
    static const char duration[] = "duration", first_token[] = "first_token";
    int64_t *amounts = slot->sum->amounts;
    amounts[USAGE_DAILY_REQUESTS]++;
    amounts[USAGE_DAILY_ERRORS] += is_error(record);
    amounts[USAGE_DAILY_CACHE_HITS] += record->cache != USAGE_CACHE_NONE;
    amounts[USAGE_DAILY_INPUT_TOKENS] += record->input_tokens;
    amounts[USAGE_DAILY_OUTPUT_TOKENS] += record->output_tokens;
    amounts[USAGE_DAILY_CACHED_TOKENS] += record->cached_tokens;
    amounts[USAGE_DAILY_CACHE_WRITE_TOKENS] += record->cache_write_tokens;
    amounts[USAGE_DAILY_REASONING_TOKENS] += record->reasoning_tokens;
    amounts[USAGE_DAILY_NANOUSD] += record->cost_nanousd;
    amounts[USAGE_DAILY_TIME_MS] += record->time_ms;
    amounts[USAGE_DAILY_DURATION_US] += record->duration_us;
    if (!slot->duration)
        slot->duration = latency_of(pending, tenant, slot, duration);
    slot->duration->counts[usage_latency_bucket(record->duration_us)]++;
    if (record->first_token_us < 0)
        return;
    amounts[USAGE_DAILY_FIRST_TOKEN_US] += record->first_token_us;
    amounts[USAGE_DAILY_FIRST_TOKENS]++;
    if (!slot->first_token)
        slot->first_token = latency_of(pending, tenant, slot, first_token);
    slot->first_token->counts[usage_latency_bucket(record->first_token_us)]++;
}

static void add_metrics(const struct usage_meters *meters, const struct usage_meters_common *common,
                        struct metrics *metrics, const struct usage_record *record)
{
    double seconds = (double) record->duration_us / 1e6;
    if (!metrics)
        return;
    metric_add(meters->calls, 1);
    metric_observe(meters->duration, seconds);
    metric_add(meters->input, record->input_tokens);
    metric_add(meters->output, record->output_tokens);
    if (record->cached_tokens > 0)
        metric_add(meters->cached, record->cached_tokens);
    if (record->cost_nanousd > 0)
        metric_add(meters->cost, record->cost_nanousd);
    metric_observe(common->duration, seconds);
    if (uuid_is_none(record->session_id)) {
        metric_add(is_error(record) ? common->failed : common->completed, 1);
        return;
    }
    char session[UUID_TEXT_BYTES + 1];
    uuid_format(record->session_id, session);
    metrics_add(metrics, METRIC_AGENT_REQUESTS, 1,
                (str[]){str_of(session, UUID_TEXT_BYTES), S("model"),
                        is_error(record) ? S("failed") : S("completed")},
                3);
}

static void add_line(struct usage_tenant *tenant, struct usage_slot *slot,
                     const struct usage_record *record)
{
    if (tenant->writer.record_count >= USAGE_CHUNK_RECORDS_MAX) {
        tenant->dropped++;
        return;
    }
    if (tenant->writer.record_count == 0) {
        tenant->first_call = record->call_id;
        tenant->first_us = tenant->last_us = record->started_us;
    }
    tenant->last_call = record->call_id;
    if (record->started_us < tenant->first_us)
        tenant->first_us = record->started_us;
    if (record->started_us > tenant->last_us)
        tenant->last_us = record->started_us;
    struct usage_record line = *record;
    line.shape = slot->shape;
    usage_write(&tenant->writer, &line, &slot->number);
}

size_t usage_pending_add(struct usage_pending *pending, const struct usage_meters_common *common,
                         struct metrics *metrics, uuid tenant_id, const struct usage_record *record)
{
    struct usage_tenant *tenant = tenant_of(pending, tenant_id);
    struct usage_slot *slot = slot_of(pending, tenant, metrics, day_of(record), &record->shape);
    add_sums(pending, tenant, slot, record);
    add_metrics(&slot->meters, common, metrics, record);
    add_line(tenant, slot, record);
    return tenant->writer.record_count;
}

/* ---- writing ---- */

size_t usage_pending_tenant_count(const struct usage_pending *pending)
{
    return pending->tenant_count;
}

uuid usage_pending_tenant(const struct usage_pending *pending, size_t i)
{
    const struct usage_tenant *tenant = pending->tenants;
    for (; i > 0; i--)
        tenant = tenant->next;
    return tenant->id;
}

static str day_text(struct arena *arena, int64_t day)
{
    char text[TIME_TEXT_BYTES + 1];
    time_format(day * DAY_US, text);
    return str_copy(arena, str_of(text, DAY_BYTES));
}

static str key_text(struct arena *arena, uuid key_id)
{
    return uuid_is_none(key_id) ? S("") : uuid_str(arena, key_id);
}

static void set_daily_key(struct record *row, struct arena *arena, const struct usage_sum *sum)
{
    const struct usage_shape *shape = sum->shape;
    record_set_text(row, USAGE_DAILY_DAY, day_text(arena, sum->day));
    record_set_text(row, USAGE_DAILY_USER_ID, shape->user_id);
    record_set_text(row, USAGE_DAILY_KEY_ID, key_text(arena, shape->key_id));
    record_set_text(row, USAGE_DAILY_MODEL, shape->model);
    record_set_text(row, USAGE_DAILY_PROVIDER, shape->provider);
    record_set_text(row, USAGE_DAILY_VARIANT, shape->variant);
    record_set_text(row, USAGE_DAILY_KIND, shape->kind);
}

static void write_sum(struct batch *batch, const struct usage_sum *sum)
{
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_USAGE_DAILY);
    set_daily_key(row, batch->arena, sum);
    for (int i = USAGE_DAILY_REQUESTS; i < USAGE_DAILY_COLUMN_COUNT; i++)
        record_set_integer(row, i, 0);
    row = batch_add(batch, WRITE_ADD, TABLE_USAGE_DAILY);
    set_daily_key(row, batch->arena, sum);
    for (int i = USAGE_DAILY_REQUESTS; i < USAGE_DAILY_FEEDBACK_COUNT; i++)
        record_set_integer(row, i, sum->amounts[i]);
}

static void set_latency_key(struct record *row, struct arena *arena,
                            const struct usage_latency *latency)
{
    record_set_text(row, USAGE_LATENCY_DAY, day_text(arena, latency->day));
    record_set_text(row, USAGE_LATENCY_MODEL, latency->shape->model);
    record_set_text(row, USAGE_LATENCY_PROVIDER, latency->shape->provider);
    record_set_text(row, USAGE_LATENCY_VARIANT, latency->shape->variant);
    record_set_text(row, USAGE_LATENCY_MEASURE, str_from_cstr(latency->measure));
}

static void write_latency(struct batch *batch, const struct usage_latency *latency)
{
    struct record *row = batch_add(batch, WRITE_INSERT_NEW, TABLE_USAGE_LATENCY);
    set_latency_key(row, batch->arena, latency);
    for (int i = 0; i < USAGE_LATENCY_BUCKETS; i++)
        record_set_integer(row, USAGE_LATENCY_LE_0 + i, 0);
    row = batch_add(batch, WRITE_ADD, TABLE_USAGE_LATENCY);
    set_latency_key(row, batch->arena, latency);
    for (int i = 0; i < USAGE_LATENCY_BUCKETS; i++)
        record_set_integer(row, USAGE_LATENCY_LE_0 + i, latency->counts[i]);
}

static void put_id(struct json_writer *w, str name, struct arena *arena, uuid id)
{
    json_put_str(w, name, uuid_str(arena, id));
}

static str audit_details(struct arena *arena, const struct usage_tenant *tenant, str sha256)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_i64(&w, S("calls"), tenant->writer.record_count);
    put_id(&w, S("first_call"), arena, tenant->first_call);
    put_id(&w, S("last_call"), arena, tenant->last_call);
    json_put_str(&w, S("sha256"), sha256);
    if (tenant->dropped > 0)
        json_put_i64(&w, S("unrecorded"), tenant->dropped);
    json_object_end(&w);
    return strbuf_str(&text);
}

/* The chunk goes first: where it exists already, the batch was stored before and nothing of it is stored again. */
static void write_chunk(struct batch *batch, struct clock *clock, struct random *random, uuid id,
                        const struct usage_tenant *tenant)
{
    struct arena *arena = batch->arena;
    str data = str_of((const char *) tenant->writer.bytes, tenant->writer.len);
    str sha256 = digest_hex(arena, digest_sha256(data));
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_USAGE_CHUNKS);
    record_set_uuid(row, USAGE_CHUNKS_ID, id);
    record_set_integer(row, USAGE_CHUNKS_FIRST_AT, tenant->first_us);
    record_set_integer(row, USAGE_CHUNKS_LAST_AT, tenant->last_us);
    record_set_integer(row, USAGE_CHUNKS_CALLS, tenant->writer.record_count);
    record_set_text(row, USAGE_CHUNKS_DIGEST, sha256);
    record_set_text(row, USAGE_CHUNKS_DATA, data);
    struct principal node = {.user_id = S("nexus"), .caller_id = S("nexus")};
    audit_add(batch, clock, random, &node,
              &(struct audit_entry){.action = S("model.calls"),
                                    .resource_type = S("usage_chunk"),
                                    .resource_id = uuid_str(arena, id),
                                    .details = audit_details(arena, tenant, sha256)});
}

void usage_pending_write(struct usage_pending *pending, struct clock *clock, struct random *random,
                         uuid chunk_id, struct batch *batch)
{
    struct usage_tenant *tenant = pending->tenants;
    while (tenant && !uuid_equal(tenant->id, batch->tenant_id))
        tenant = tenant->next;
    if (!tenant)
        return;
    write_chunk(batch, clock, random, chunk_id, tenant);
    for (const struct usage_sum *sum = tenant->sums; sum; sum = sum->next)
        write_sum(batch, sum);
    for (const struct usage_latency *found = tenant->latencies; found; found = found->next)
        write_latency(batch, found);
}
