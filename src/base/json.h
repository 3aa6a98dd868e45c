/*
 * JSON: read to a tree on an arena, write by a streaming writer, canonical form for digests.
 *
 * The one door to yyjson (json.c).  Reading bounds size and depth and (by default) refuses duplicate keys; numbers keep
 * 64-bit integers exactly.  Trees are read-only and live as long as the arena they were parsed on; strings in them point
 * into the tree.  Every getter accepts NULL and a wrong type and says so by its result, so chains need one check.
 * Thread: any, one at a time per tree.  Suspends: never.
 */
#ifndef NEXUS_BASE_JSON_H
#define NEXUS_BASE_JSON_H

#include "base/error.h"
#include "base/strbuf.h"

struct json; /* a value in a tree: object, array, string, number, bool or null */

enum json_type {
    JSON_ABSENT,
    JSON_NULL,
    JSON_BOOL,
    JSON_INTEGER,
    JSON_REAL,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

struct json_limits {
    size_t bytes_max; /* 0: JSON_BYTES_MAX */
    size_t depth_max; /* 0: JSON_DEPTH_MAX */
    bool
        allow_duplicates; /* keep the first of two equal keys; only where meaning cannot depend on it */
};

/*
 * REASON_JSON with byte offset, line and what was expected; REASON_TOO_LARGE; depth and duplicates are REASON_JSON.
 * A tree takes the text's bytes and 16 per value (a key is one); where that would put the arena over its limit the answer
 * is REASON_TOO_LARGE and nothing was built.  On failure the arena is as it was.  depth_max may not pass JSON_DEPTH_MAX.
 */
must_check bool json_parse(struct arena *arena, str text, struct json_limits limits,
                           const struct json **out, struct error *e);

enum json_type json_type(const struct json *value); /* JSON_ABSENT for NULL */
const char *json_type_name(enum json_type type);
const struct json *json_get(const struct json *object, str key); /* NULL when absent or no object */
const struct json *json_path(const struct json *value,
                             str pointer); /* RFC 6901 pointer; NULL when absent */
const struct json *json_at(const struct json *array, size_t index); /* O(index) */
size_t json_count(const struct json *array_or_object);

/* Typed reads: true and *out set only when the type is right. */
bool json_to_str(const struct json *value, str *out);
bool json_to_i64(const struct json *value,
                 int64_t *out); /* integers that fit, and reals without a fraction that fit */
bool json_to_double(const struct json *value, double *out);
bool json_to_bool(const struct json *value, bool *out);
/* Reads with a default, for optional members whose type was checked elsewhere or does not matter. */
str json_str_or(const struct json *object, str key, str otherwise);
int64_t json_i64_or(const struct json *object, str key, int64_t otherwise);
bool json_bool_or(const struct json *object, str key, bool otherwise);

/* Iteration: struct json_iter it = json_iter(v); while (json_next(&it, &key, &item)) ... ; key is empty in arrays. */
struct json_iter {
    const struct json *container;
    size_t index, count;
    const void *position;
};
struct json_iter json_iter(const struct json *container); /* any other type: an empty iteration */
bool json_next(struct json_iter *it, str *key, const struct json **item); /* key may be NULL */

/* Member readers for request bodies: absent (or null, which many clients send for it) is fine (true, *out untouched), wrong
 * type is REASON_SCHEMA naming the member. */
must_check bool json_read_str(const struct json *object, str key, str *out, struct error *e);
must_check bool json_read_i64(const struct json *object, str key, int64_t min, int64_t max,
                              int64_t *out, struct error *e);
must_check bool json_read_bool(const struct json *object, str key, bool *out, struct error *e);
must_check bool json_read_double(const struct json *object, str key, double *out, struct error *e);
/* The same for a member that must be there. */
must_check bool json_need_str(const struct json *object, str key, str *out, struct error *e);

/* ---- writing ---- */

/* A streaming writer over a strbuf: commas and nesting are its own business.  Misuse is an ensure. */
struct json_writer {
    struct strbuf *out;
    uint64_t has_items; /* one bit per level */
    int depth;          /* at most 63 */
    bool after_key;
};

void json_writer_init(struct json_writer *w, struct strbuf *out);
void json_object_begin(struct json_writer *w);
void json_object_end(struct json_writer *w);
void json_array_begin(struct json_writer *w);
void json_array_end(struct json_writer *w);
void json_key(struct json_writer *w, str key);
void json_write_str(struct json_writer *w, str value); /* invalid UTF-8 becomes U+FFFD */
void json_write_i64(struct json_writer *w, int64_t value);
void json_write_u64(struct json_writer *w, uint64_t value);
void json_write_double(struct json_writer *w,
                       double value); /* shortest that reads back; NaN and infinities: null */
void json_write_bool(struct json_writer *w, bool value);
void json_write_null(struct json_writer *w);
void json_write_value(struct json_writer *w,
                      const struct json *value);           /* a tree; NULL writes null */
void json_write_raw(struct json_writer *w, str json_text); /* trusted JSON text, unchanged */
/* Key and value in one. */
void json_put_str(struct json_writer *w, str key, str value);
void json_put_i64(struct json_writer *w, str key, int64_t value);
void json_put_bool(struct json_writer *w, str key, bool value);
void json_put_double(struct json_writer *w, str key, double value);
void json_put_raw(struct json_writer *w, str key, str json_text);
void json_put_value(struct json_writer *w, str key, const struct json *value);
void json_put_i64_str(struct json_writer *w, str key,
                      int64_t value); /* as a decimal string: money */

str json_print(struct arena *arena, const struct json *value); /* compact text */
/* RFC 8785 canonical form (keys by UTF-16 code units, numbers per ECMAScript), for digests.  Integers past 2^53, which lie
 * outside that RFC, keep all their digits: two different amounts never share a digest. */
str json_canonical(struct arena *arena, const struct json *value);

/* ---- building trees ---- */

/*
 * Builds a tree on an arena, value by value in the order of the text, as the writer does; but what is put in as a tree is
 * not printed and read again: its values are copied, 16 bytes each, and its strings are shared.  Strings are borrowed: they
 * are UTF-8 and live as long as the tree.  Passing a bound does nothing further and sets a sticky flag.  Misuse (a value
 * where a key belongs, an end too many) is an ensure; that keys are unlike each other is the caller's business.
 */
struct json_builder {
    struct arena *arena;
    void *values;
    size_t count, capacity, max; /* values */
    size_t open;                 /* index of the innermost open container */
    size_t depth, depth_max;     /* open ones; depth_max: of any that was put in */
    bool is_key_next, is_over;   /* is_over: more than max values, or deeper than JSON_DEPTH_MAX */
};
void json_builder_init(struct json_builder *b, struct arena *arena, size_t values_max);
void json_build_object_begin(struct json_builder *b);
void json_build_object_end(struct json_builder *b);
void json_build_array_begin(struct json_builder *b);
void json_build_array_end(struct json_builder *b);
void json_build_key(struct json_builder *b, str key);
void json_build_str(struct json_builder *b, str value);
void json_build_i64(struct json_builder *b, int64_t value);
void json_build_double(struct json_builder *b, double value); /* NaN and infinities: null */
void json_build_bool(struct json_builder *b, bool value);
void json_build_null(struct json_builder *b);
void json_build_value(struct json_builder *b, const struct json *value); /* NULL: null */
/* The tree, when one whole value was built; NULL when a bound was passed. */
const struct json *json_build_finish(struct json_builder *b);

size_t json_depth(const struct json *value);       /* 0 of a scalar, 1 of [] and [1] */
size_t json_value_count(const struct json *value); /* values in it, keys and itself included */
/* As values: objects whatever the order of members; 1 and 1.0 are equal.  The work is bounded by *steps, which is counted
 * down; false and *steps 0 when they did not do. */
bool json_equal(const struct json *a, const struct json *b, size_t *steps);

#endif
