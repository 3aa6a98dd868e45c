/*
 * Usage: one record per governed call without a run, and the chunk that many of them are stored in.
 *
 * A chunk is "NXU1" and then the records, each (numbers are LEB128, signed ones zigzag, texts a length and bytes):
 *      1 byte   1 streamed, 2 exact or 4 semantic hit of the cache, 8 has a session, 16 a new shape, 32 first token known
 *      shape    a new one: user, dialect, kind, model, variant, provider, target model, status, basis as texts; the key as 16 bytes (zeros:
 *               none); it gets the next number, from 0.  Else the number of one before.
 *      16 bytes call id; 16 bytes session id when there is one
 *      signed   started_us less that of the record before (the first: of 0)
 *      numbers  duration_us; first_token_us when known; tokens: input, output, cached, cache write, reasoning; cost; time_ms; attempts
 * What repeats is said once, so a call takes about 45 bytes.
 * Pure data, no lock.  Reading checks every bound: a chunk that does not fit its form is an error.
 */
#ifndef NEXUS_ORCHESTRATOR_USAGE_H
#define NEXUS_ORCHESTRATOR_USAGE_H

#include "base/error.h"
#include "base/json.h"
#include "base/uuid.h"

enum usage_cache { USAGE_CACHE_NONE, USAGE_CACHE_EXACT, USAGE_CACHE_SEMANTIC };
enum { USAGE_TEXT_COUNT = 9 };

/* What records have in common. */
struct usage_shape {
    str user_id, dialect, kind, model, variant, provider, target_model;
    str status; /* "ok" or the problem's name */
    str basis;  /* of the last settlement */
    uuid key_id;
};
struct usage_record {
    struct usage_shape shape;
    uuid call_id, session_id;
    int64_t started_us;
    int64_t duration_us;
    int64_t first_token_us; /* after started_us; -1: not known */
    int64_t input_tokens, output_tokens, cached_tokens, cache_write_tokens, reasoning_tokens;
    int64_t cost_nanousd, time_ms;
    int64_t attempts;
    enum usage_cache cache;
    bool is_stream;
};

/* ---- writing ---- */

struct usage_writer {
    struct arena *arena;
    uint8_t *bytes;
    size_t len, capacity;
    int64_t last_started_us;
    uint32_t shape_count, record_count;
};
void usage_writer_init(struct usage_writer *w, struct arena *arena);
/* shape_number: in the order they were first written; UINT32_MAX: a new one, which gets *shape_number = the next. */
void usage_write(struct usage_writer *w, const struct usage_record *record, uint32_t *shape_number);

/* ---- reading ---- */

struct usage_reader {
    struct arena *arena; /* of the shapes */
    const uint8_t *at, *end;
    struct usage_shape *shapes;
    size_t shape_count, shape_capacity;
    int64_t last_started_us;
};
must_check bool usage_reader_init(struct usage_reader *r, struct arena *arena, str data,
                                  struct error *e);
/* False at the end (*e is untouched) or when the chunk is broken (*e says where). Texts are borrowed from `data`. */
must_check bool usage_read(struct usage_reader *r, struct usage_record *out, struct error *e);

/* Members of one call's record, without braces' neighbours: a whole object. */
void usage_write_json(struct json_writer *w, const struct usage_record *record);

/* ---- latencies ---- */

enum { USAGE_LATENCY_BUCKETS = 19 };
int usage_latency_bucket(int64_t duration_us);
/* The latency that this share (0..1) of the calls stayed under, interpolated within its bucket, in ms; 0 when there are none. */
double usage_latency_quantile(const int64_t counts[USAGE_LATENCY_BUCKETS], double share);

#endif
