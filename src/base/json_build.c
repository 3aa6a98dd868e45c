#include "base/arena.h"
#include "base/ensure.h"
#include "base/json.h"
#include "base/limits.h"

#include <math.h>
#include <yyjson.h>

/*
 * A tree is one array in document order (see json.c): a container holds its count and the bytes up
 * to what comes after it.  While a container is open, its offset holds the index of the one around
 * it instead, so no stack is needed.
 */
static yyjson_val *vals_of(const struct json_builder *b)
{
    return b->values;
}

static yyjson_val *val_of(const struct json *value)
{
    return (yyjson_val *) (uintptr_t) value;
}

static str str_of_val(const yyjson_val *val)
{
    return str_of(val->uni.str, (size_t) (val->tag >> YYJSON_TAG_BIT));
}

/* ---- looking at trees ---- */

size_t json_value_count(const struct json *value)
{
    yyjson_val *val = val_of(value);
    return val ? (size_t) (unsafe_yyjson_get_next(val) - val) : 0;
}

static bool is_open_container(yyjson_val *val)
{
    return unsafe_yyjson_is_ctn(val) && unsafe_yyjson_get_len(val) > 0;
}

size_t json_depth(const struct json *value)
{
    yyjson_val *val = val_of(value);
    if (!val || !unsafe_yyjson_is_ctn(val))
        return 0;
    const yyjson_val *ends[JSON_DEPTH_MAX], *end = unsafe_yyjson_get_next(val);
    size_t depth = 0, greatest = 1;
    for (; val < end; val++) {
        while (depth > 0 && val >= ends[depth - 1])
            depth--;
        if (unsafe_yyjson_is_ctn(val) && depth + 1 > greatest)
            greatest = depth + 1;
        if (is_open_container(val)) {
            ensure(depth < JSON_DEPTH_MAX);
            ends[depth++] = unsafe_yyjson_get_next(val);
        }
    }
    return greatest;
}

/* ---- building ---- */

enum { FIRST_CAPACITY = 4 };

void json_builder_init(struct json_builder *b, struct arena *arena, size_t values_max)
{
    *b = (struct json_builder){.arena = arena, .max = values_max};
}

/* Room for so many more; NULL and is_over when there may be none. */
static yyjson_val *add_values(struct json_builder *b, size_t count)
{
    size_t capacity = b->capacity ? b->capacity : FIRST_CAPACITY;
    if (b->is_over || count > b->max - b->count) {
        b->is_over = true;
        return NULL;
    }
    while (capacity < b->count + count)
        capacity *= 2;
    if (capacity > b->capacity) {
        b->values = arena_grow(b->arena, b->values, b->capacity * sizeof(yyjson_val),
                               capacity * sizeof(yyjson_val));
        b->capacity = capacity;
    }
    b->count += count;
    return vals_of(b) + (b->count - count);
}

/* Counts what comes into the open container: a member by its value. */
static void count_item(struct json_builder *b)
{
    if (b->is_over)
        return;
    if (b->depth == 0) {
        ensure(b->count == 0); /* one value at the top */
        return;
    }
    yyjson_val *open = vals_of(b) + b->open;
    bool is_object = unsafe_yyjson_is_obj(open);
    ensure(!is_object || !b->is_key_next);
    b->is_key_next = is_object;
    open->tag += UINT64_C(1) << YYJSON_TAG_BIT;
}

static void add_scalar(struct json_builder *b, yyjson_val value)
{
    count_item(b);
    yyjson_val *to = add_values(b, 1);
    if (to)
        *to = value;
}

static void begin(struct json_builder *b, uint8_t type)
{
    count_item(b);
    if (b->depth == JSON_DEPTH_MAX)
        b->is_over = true;
    yyjson_val *to = add_values(b, 1);
    if (!to)
        return;
    *to = (yyjson_val){.tag = type, .uni.ofs = b->open};
    b->open = (size_t) (to - vals_of(b));
    b->depth++;
    if (b->depth > b->depth_max)
        b->depth_max = b->depth;
    b->is_key_next = type == YYJSON_TYPE_OBJ;
}

static void end(struct json_builder *b, uint8_t type)
{
    if (b->is_over)
        return;
    ensure(b->depth > 0);
    yyjson_val *open = vals_of(b) + b->open;
    ensure((open->tag & YYJSON_TYPE_MASK) == type && (type == YYJSON_TYPE_ARR || b->is_key_next));
    size_t around = open->uni.ofs;
    open->uni.ofs = (b->count - b->open) * sizeof(yyjson_val);
    b->open = around;
    b->depth--;
    b->is_key_next = b->depth > 0 && unsafe_yyjson_is_obj(vals_of(b) + around);
}

void json_build_object_begin(struct json_builder *b)
{
    begin(b, YYJSON_TYPE_OBJ);
}

void json_build_object_end(struct json_builder *b)
{
    end(b, YYJSON_TYPE_OBJ);
}

void json_build_array_begin(struct json_builder *b)
{
    begin(b, YYJSON_TYPE_ARR);
}

void json_build_array_end(struct json_builder *b)
{
    end(b, YYJSON_TYPE_ARR);
}

static yyjson_val str_val(str value)
{
    return (yyjson_val){
        .tag = ((uint64_t) value.len << YYJSON_TAG_BIT) | YYJSON_TYPE_STR,
        .uni.str = value.ptr ? value.ptr : "",
    };
}

void json_build_key(struct json_builder *b, str key)
{
    ensure(b->is_over || b->is_key_next);
    b->is_key_next = false;
    yyjson_val *to = add_values(b, 1);
    if (to)
        *to = str_val(key);
}

void json_build_str(struct json_builder *b, str value)
{
    add_scalar(b, str_val(value));
}

void json_build_i64(struct json_builder *b, int64_t value)
{
    yyjson_val val = {.tag = YYJSON_TYPE_NUM | YYJSON_SUBTYPE_UINT, .uni.u64 = (uint64_t) value};
    if (value < 0)
        val = (yyjson_val){.tag = YYJSON_TYPE_NUM | YYJSON_SUBTYPE_SINT, .uni.i64 = value};
    add_scalar(b, val);
}

void json_build_double(struct json_builder *b, double value)
{
    if (isfinite(value))
        add_scalar(b, (yyjson_val){.tag = YYJSON_TYPE_NUM | YYJSON_SUBTYPE_REAL, .uni.f64 = value});
    else
        json_build_null(b);
}

void json_build_bool(struct json_builder *b, bool value)
{
    add_scalar(b, (yyjson_val){.tag = YYJSON_TYPE_BOOL |
                                      (value ? YYJSON_SUBTYPE_TRUE : YYJSON_SUBTYPE_FALSE)});
}

void json_build_null(struct json_builder *b)
{
    add_scalar(b, (yyjson_val){.tag = YYJSON_TYPE_NULL});
}

void json_build_value(struct json_builder *b, const struct json *value)
{
    if (!value) {
        json_build_null(b);
        return;
    }
    count_item(b);
    size_t count = json_value_count(value), depth = json_depth(value);
    if (b->depth + depth > JSON_DEPTH_MAX)
        b->is_over = true;
    yyjson_val *to = add_values(b, count);
    if (!to)
        return;
    if (b->depth + depth > b->depth_max)
        b->depth_max = b->depth + depth;
    memcpy(to, val_of(value), count * sizeof(yyjson_val));
}

const struct json *json_build_finish(struct json_builder *b)
{
    if (b->is_over)
        return NULL;
    ensure(b->depth == 0 && b->count > 0);
    return b->values;
}

/* ---- equality ---- */

static bool take_steps(size_t *steps, size_t count)
{
    bool is_enough = *steps > count;
    *steps = is_enough ? *steps - count : 0;
    return is_enough;
}

/* Integers exactly; an integer and a real as numbers, without rounding the integer first. */
static bool numbers_equal(yyjson_val *a, yyjson_val *b)
{
    if (unsafe_yyjson_is_real(a) && unsafe_yyjson_is_real(b))
        return unsafe_yyjson_get_real(a) == unsafe_yyjson_get_real(b);
    if (!unsafe_yyjson_is_real(a) && !unsafe_yyjson_is_real(b)) {
        bool is_below_a = unsafe_yyjson_is_sint(a) && unsafe_yyjson_get_sint(a) < 0;
        bool is_below_b = unsafe_yyjson_is_sint(b) && unsafe_yyjson_get_sint(b) < 0;
        return is_below_a == is_below_b && a->uni.u64 == b->uni.u64;
    }
    yyjson_val *real = unsafe_yyjson_is_real(a) ? a : b, *whole = real == a ? b : a;
    double number = unsafe_yyjson_get_real(real);
    if (number != trunc(number) || number < -0x1p63 || number >= 0x1p64)
        return false;
    if (number < 0)
        return unsafe_yyjson_is_sint(whole) && (int64_t) number == unsafe_yyjson_get_sint(whole);
    return !(unsafe_yyjson_is_sint(whole) && unsafe_yyjson_get_sint(whole) < 0) &&
           (uint64_t) number == unsafe_yyjson_get_uint(whole);
}

/* The member of that key; members mostly stand in the same order, so it is looked for there first. */
static const struct json *same_member(const struct json *object, str key, yyjson_val *likely_key,
                                      size_t *steps)
{
    if (likely_key && str_equal(str_of_val(likely_key), key))
        return (const struct json *) (likely_key + 1);
    return take_steps(steps, json_count(object)) ? json_get(object, key) : NULL;
}

static bool objects_equal(const struct json *a, const struct json *b, size_t *steps)
{
    struct json_iter it = json_iter(a), other = json_iter(b);
    const struct json *item;
    str key;
    while (json_next(&it, &key, &item)) {
        yyjson_val *likely_key = val_of(other.position);
        const struct json *same = same_member(b, key, likely_key, steps);
        json_next(&other, NULL, NULL);
        if (!same || !json_equal(item, same, steps))
            return false;
    }
    return true;
}

bool json_equal(const struct json *a, const struct json *b, size_t *steps)
{
    enum json_type type = json_type(a), other = json_type(b);
    bool is_number = type == JSON_INTEGER || type == JSON_REAL;
    if (!take_steps(steps, 1))
        return false;
    if (is_number && (other == JSON_INTEGER || other == JSON_REAL))
        return numbers_equal(val_of(a), val_of(b));
    if (type != other)
        return false;
    if (type == JSON_STRING) {
        str text = str_of_val(val_of(a));
        return take_steps(steps, text.len / 64) && str_equal(text, str_of_val(val_of(b)));
    }
    if (type == JSON_BOOL)
        return unsafe_yyjson_get_bool(val_of(a)) == unsafe_yyjson_get_bool(val_of(b));
    if (json_count(a) != json_count(b))
        return false;
    if (type == JSON_OBJECT)
        return objects_equal(a, b, steps);
    struct json_iter it = json_iter(a), those = json_iter(b);
    const struct json *item, *that;
    while (json_next(&it, NULL, &item) && json_next(&those, NULL, &that)) {
        if (!json_equal(item, that, steps))
            return false;
    }
    return true;
}
