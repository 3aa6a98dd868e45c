/* Base64 of RFC 4648; declared in digest.h. */
#include "base/arena.h"
#include "base/digest.h"

static const char standard_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_alphabet[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static str encode(struct arena *arena, str data, const char *alphabet, bool is_padded)
{
    const unsigned char *from = (const unsigned char *) data.ptr;
    char *text = arena_alloc_raw(arena, (data.len + 2) / 3 * 4);
    char *to = text;
    for (size_t left = data.len; left > 0;) {
        size_t taken = left < 3 ? left : 3;
        uint32_t bits = (uint32_t) from[0] << 16;
        bits |= taken > 1 ? (uint32_t) from[1] << 8 : 0;
        bits |= taken > 2 ? from[2] : 0;
        for (size_t i = 0; i <= taken; i++)
            *to++ = alphabet[bits >> (18 - 6 * i) & 63];
        for (size_t i = taken; is_padded && i < 3; i++)
            *to++ = '=';
        from += taken;
        left -= taken;
    }
    return str_of(text, (size_t) (to - text));
}

str base64_encode(struct arena *arena, str data)
{
    return encode(arena, data, standard_alphabet, true);
}

str base64url_encode(struct arena *arena, str data)
{
    return encode(arena, data, url_alphabet, false);
}

static int sextet(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Padding is all there or not there at all. */
static bool strip_padding(str *text)
{
    size_t padding = 0;
    while (padding < 2 && padding < text->len && text->ptr[text->len - 1 - padding] == '=')
        padding++;
    if (padding > 0 && text->len % 4 != 0)
        return false;
    *text = str_slice(*text, 0, text->len - padding);
    return text->len % 4 != 1;
}

/* Left-over bits must be zero: then a value has one spelling, and equal texts mean equal bytes. */
bool base64_decode(struct arena *arena, str text, str *out)
{
    uint32_t bits = 0;
    if (!strip_padding(&text))
        return false;
    size_t bytes = text.len / 4 * 3 + (text.len % 4 == 0 ? 0 : text.len % 4 - 1);
    char *data = arena_alloc_raw(arena, bytes);
    char *to = data;
    for (size_t i = 0; i < text.len; i++) {
        int value = sextet(text.ptr[i]);
        if (value < 0)
            return false;
        bits = bits << 6 | (uint32_t) value;
        switch (i % 4) {
        case 1: *to++ = (char) (bits >> 4); break;
        case 2: *to++ = (char) (bits >> 2); break;
        case 3: *to++ = (char) bits; break;
        default: break;
        }
    }
    uint32_t left_over = text.len % 4 == 2 ? bits & 15 : text.len % 4 == 3 ? bits & 3 : 0;
    if (left_over != 0)
        return false;
    *out = str_of(data, bytes);
    return true;
}
