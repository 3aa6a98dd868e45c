#include "base/uuid.h"

#include "base/arena.h"
#include "base/digest.h"

uuid uuid_make(int64_t unix_ms, const uint8_t random[10])
{
    uuid id;
    uint64_t ms = (uint64_t) unix_ms;
    for (int i = 0; i < 6; i++)
        id.bytes[i] = (uint8_t) (ms >> (40 - 8 * i));
    memcpy(id.bytes + 6, random, 10);
    id.bytes[6] = (uint8_t) (0x70 | (id.bytes[6] & 0x0f)); /* version 7 */
    id.bytes[8] = (uint8_t) (0x80 | (id.bytes[8] & 0x3f)); /* variant 10 */
    return id;
}

uuid uuid_derive(uuid from, str what)
{
    uuid id = from;
    str key = str_of((const char *) from.bytes, sizeof from.bytes);
    digest derived = digest_hmac_sha256(key, what);
    memcpy(id.bytes + 6, derived.bytes, sizeof id.bytes - 6); /* the first six are the time */
    id.bytes[6] = (uint8_t) (0x70 | (id.bytes[6] & 0x0f));
    id.bytes[8] = (uint8_t) (0x80 | (id.bytes[8] & 0x3f));
    return id;
}

uuid uuid_after(uuid id, uuid other)
{
    int64_t ms = 0;
    if (uuid_compare(id, other) > 0)
        return id;
    for (int i = 0; i < 6; i++)
        ms = ms << 8 | other.bytes[i];
    return uuid_make(ms + 1, id.bytes + 6);
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool is_dash_position(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

bool uuid_parse(str text, uuid *out)
{
    uuid id;
    size_t filled = 0;
    if (text.len != UUID_TEXT_BYTES)
        return false;
    for (size_t i = 0; i < UUID_TEXT_BYTES;) {
        if (is_dash_position(i)) {
            if (text.ptr[i++] != '-')
                return false;
            continue;
        }
        int high = hex_value(text.ptr[i]), low = hex_value(text.ptr[i + 1]);
        if (high < 0 || low < 0)
            return false;
        id.bytes[filled++] = (uint8_t) (high << 4 | low);
        i += 2;
    }
    *out = id;
    return true;
}

void uuid_format(uuid id, char out[UUID_TEXT_BYTES + 1])
{
    static const char digits[] = "0123456789abcdef";
    size_t at = 0;
    for (size_t i = 0; i < sizeof(id.bytes); i++) {
        if (is_dash_position(at))
            out[at++] = '-';
        out[at++] = digits[id.bytes[i] >> 4];
        out[at++] = digits[id.bytes[i] & 15];
    }
    out[at] = '\0';
}

str uuid_str(struct arena *arena, uuid id)
{
    char *text = arena_alloc_raw(arena, UUID_TEXT_BYTES + 1);
    uuid_format(id, text);
    return str_of(text, UUID_TEXT_BYTES);
}

int uuid_compare(uuid a, uuid b)
{
    return memcmp(a.bytes, b.bytes, sizeof(a.bytes));
}
