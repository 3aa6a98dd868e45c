#include "utf8.h"

#include <string.h>

static bool is_tail(const char *at, const char *end)
{
    return at < end && ((unsigned char) *at & 0xC0) == 0x80;
}

size_t utf8_next(const char *at, const char *end, uint32_t *code)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char lead = (unsigned char) *at;
    if (lead < 0x80) {
        *code = lead;
        return 1;
    }
    size_t len = lead >= 0xF0 && lead < 0xF5   ? 4
                 : lead >= 0xE0 && lead < 0xF0 ? 3
                 : lead >= 0xC2 && lead < 0xE0 ? 2
                                               : 1;
    *code = 0xFFFD;
    if (len == 1)
        return 1;
    uint32_t value = lead & (0x7Fu >> len);
    for (size_t i = 1; i < len; i++) {
        if (!is_tail(at + i, end))
            return 1;
        value = value << 6 | ((unsigned char) at[i] & 0x3F);
    }
    if (value < smallest[len] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000))
        return 1;
    *code = value;
    return len;
}

size_t utf8_put(char *to, uint32_t code)
{
    if (code < 0x80) {
        to[0] = (char) code;
        return 1;
    }
    if (code < 0x800) {
        to[0] = (char) (0xC0 | code >> 6);
        to[1] = (char) (0x80 | (code & 0x3F));
        return 2;
    }
    if (code < 0x10000) {
        to[0] = (char) (0xE0 | code >> 12);
        to[1] = (char) (0x80 | (code >> 6 & 0x3F));
        to[2] = (char) (0x80 | (code & 0x3F));
        return 3;
    }
    to[0] = (char) (0xF0 | code >> 18);
    to[1] = (char) (0x80 | (code >> 12 & 0x3F));
    to[2] = (char) (0x80 | (code >> 6 & 0x3F));
    to[3] = (char) (0x80 | (code & 0x3F));
    return 4;
}

size_t utf8_count(const char *ptr, size_t len)
{
    size_t count = 0;
    for (size_t i = 0; i < len; i++)
        count += ((unsigned char) ptr[i] & 0xC0) != 0x80;
    return count;
}

/* An invalid byte yields 0xFFFD with length 1; the real U+FFFD takes three bytes. */
static bool is_broken(size_t len, uint32_t code)
{
    return len == 1 && code == 0xFFFD;
}

bool utf8_is_valid(const char *ptr, size_t len)
{
    const char *end = len > 0 ? ptr + len : ptr; /* an empty text may have no address */
    for (const char *at = ptr; at < end;) {
        uint32_t code;
        size_t n = utf8_next(at, end, &code);
        if (is_broken(n, code))
            return false;
        at += n;
    }
    return true;
}

size_t utf8_copy_valid(char *to, const char *ptr, size_t len)
{
    const char *end = len > 0 ? ptr + len : ptr; /* an empty text may have no address */
    size_t used = 0;
    for (const char *at = ptr; at < end;) {
        uint32_t code;
        at += utf8_next(at, end, &code);
        used += utf8_put(to + used, code);
    }
    return used;
}

void utf8_mend(char *string)
{
    char *end = string + strlen(string);
    for (char *at = string; at < end;) {
        uint32_t code;
        size_t n = utf8_next(at, end, &code);
        if (is_broken(n, code)) {
            bool is_cut_end = end - at < 4 && (unsigned char) *at >= 0xC2;
            *at = is_cut_end ? '\0' : '?';
            if (is_cut_end)
                return;
        }
        at += n;
    }
}
