/*
 * One step of UTF-8 (RFC 3629, Unicode 15 table 3-7): no overlong forms, no surrogates, nothing
 * past U+10FFFF.
 */
#ifndef NEXUS_BASE_UTF8_INTERNAL_H
#define NEXUS_BASE_UTF8_INTERNAL_H

#include "base/attributes.h"

/*
 * The length of the sequence that begins at p, 1 to 4; or 0 when it is not well-formed.  Then *bad
 * (if not NULL) is the length of the "maximal subpart", the bytes that one U+FFFD replaces.
 */
static inline size_t utf8_sequence(const unsigned char *p, size_t len, size_t *bad)
{
    if (p[0] < 0x80)
        return 1;
    size_t need = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    unsigned char low = p[0] == 0xe0 ? 0xa0 : p[0] == 0xf0 ? 0x90 : 0x80;
    unsigned char high = p[0] == 0xed ? 0x9f : p[0] == 0xf4 ? 0x8f : 0xbf;
    size_t have = 1;
    if (p[0] >= 0xc2 && p[0] <= 0xf4) {
        while (have < need && have < len && p[have] >= low && p[have] <= high) {
            low = 0x80;
            high = 0xbf;
            have++;
        }
        if (have == need)
            return need;
    }
    if (bad)
        *bad = have;
    return 0;
}

#endif
