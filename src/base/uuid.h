/*
 * uuid: 128-bit ids, version 7 (RFC 9562): 48 bits of Unix milliseconds, then random.  Sorts by creation time.
 * Random and time are passed in, so that the simulation is repeatable.
 */
#ifndef NEXUS_BASE_UUID_H
#define NEXUS_BASE_UUID_H

#include "base/str.h"

typedef struct {
    uint8_t bytes[16];
} uuid;

enum { UUID_TEXT_BYTES = 36 };
#define UUID_NONE ((uuid){{0}})

uuid uuid_make(int64_t unix_ms, const uint8_t random[10]);
/* An id that follows from another one and a text: whoever derives it again gets the same.  It sorts by the time of `from`. */
uuid uuid_derive(uuid from, str what);
/* The id, or where it does not sort behind `other` one with its randomness that does: a clock was behind the one that made `other`. */
uuid uuid_after(uuid id, uuid other);
bool uuid_parse(str text, uuid *out); /* canonical 8-4-4-4-12 hex, either case */
void uuid_format(uuid id, char out[UUID_TEXT_BYTES + 1]);
str uuid_str(struct arena *arena, uuid id);
int uuid_compare(uuid a, uuid b);
static inline bool uuid_equal(uuid a, uuid b)
{
    uint64_t left[2], right[2];
    memcpy(left, a.bytes, sizeof left);
    memcpy(right, b.bytes, sizeof right);
    return ((left[0] ^ right[0]) | (left[1] ^ right[1])) == 0;
}
static inline bool uuid_is_none(uuid id)
{
    return uuid_equal(id, UUID_NONE);
}

#endif
