#include "charset.h"

#include <string.h>
#include <strings.h>

#include "utf8.h"

enum charset { UNKNOWN, UTF_8, UTF_16_LE, UTF_16_BE, WINDOWS_1252 };
enum { META_LOOK_BYTES = 4096 };

static bool is_name_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == ':' || c == '.';
}

static enum charset of_name(struct text name)
{
    static const struct {
        const char *name;
        enum charset charset;
    } names[] = {
        {"utf-8", UTF_8},
        {"utf8", UTF_8},
        {"utf-16", UTF_16_LE},
        {"utf-16le", UTF_16_LE},
        {"utf-16be", UTF_16_BE},
        {"iso-8859-1", WINDOWS_1252},
        {"latin1", WINDOWS_1252},
        {"windows-1252", WINDOWS_1252},
        {"cp1252", WINDOWS_1252},
        {"us-ascii", WINDOWS_1252},
        {"ascii", WINDOWS_1252},
        {"iso-8859-15", WINDOWS_1252},
        {"iso8859-1", WINDOWS_1252},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strlen(names[i].name) == name.len &&
            strncasecmp(names[i].name, name.ptr, name.len) == 0)
            return names[i].charset;
    return UNKNOWN;
}

/* What stands behind "charset=" in a piece of text. */
static enum charset find_charset(struct text in)
{
    static const char key[] = "charset";
    for (size_t at = 0; at + sizeof key <= in.len; at++) {
        if (strncasecmp(in.ptr + at, key, sizeof key - 1) != 0)
            continue;
        size_t from = at + sizeof key - 1;
        while (from < in.len && strchr(" \t\r\n", in.ptr[from]) != NULL && in.ptr[from] != 0)
            from++;
        if (from >= in.len || in.ptr[from] != '=')
            continue;
        from++;
        while (from < in.len && in.ptr[from] != 0 && strchr(" \t\"'", in.ptr[from]) != NULL)
            from++;
        size_t to = from;
        while (to < in.len && is_name_byte(in.ptr[to]))
            to++;
        enum charset found = of_name((struct text){in.ptr + from, to - from});
        if (found != UNKNOWN)
            return found;
    }
    return UNKNOWN;
}

/* A mark at the beginning is taken away. */
static enum charset of_mark(struct text *page)
{
    static const struct {
        const char *bytes;
        size_t len;
        enum charset charset;
    } marks[] = {
        {"\xef\xbb\xbf", 3, UTF_8}, {"\xff\xfe", 2, UTF_16_LE}, {"\xfe\xff", 2, UTF_16_BE}};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (page->len >= marks[i].len && memcmp(page->ptr, marks[i].bytes, marks[i].len) == 0) {
            page->ptr += marks[i].len;
            page->len -= marks[i].len;
            return marks[i].charset;
        }
    return UNKNOWN;
}

static enum charset of_meta(struct text page)
{
    struct text head = {page.ptr, page.len < META_LOOK_BYTES ? page.len : META_LOOK_BYTES};
    for (size_t at = 0; at + 5 < head.len; at++) {
        if (head.ptr[at] != '<' || strncasecmp(head.ptr + at + 1, "meta", 4) != 0)
            continue;
        const char *end = memchr(head.ptr + at, '>', head.len - at);
        size_t to = end ? (size_t) (end - head.ptr) : head.len;
        enum charset found = find_charset((struct text){head.ptr + at, to - at});
        if (found == UTF_16_LE || found == UTF_16_BE)
            return UTF_8; /* it could be read as ASCII, so it is not */
        if (found != UNKNOWN)
            return found;
    }
    return UNKNOWN;
}

static char *from_windows_1252(struct text page, size_t *len)
{
    static const uint16_t high[32] = {
        0x20ac, 0x81,   0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
        0x2039, 0x0152, 0x8d,   0x017d, 0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
        0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x9d,   0x017e, 0x0178};
    char *out = tool_alloc(page.len * 3 + 1);
    size_t used = 0;
    for (size_t i = 0; i < page.len; i++) {
        unsigned char c = (unsigned char) page.ptr[i];
        used += utf8_put(out + used, c >= 0x80 && c < 0xa0 ? high[c - 0x80] : c);
    }
    *len = used;
    return out;
}

static char *from_utf_16(struct text page, bool is_big, size_t *len)
{
    char *out = tool_alloc(page.len * 2 + 4);
    size_t used = 0;
    uint32_t high = 0;
    for (size_t i = 0; i + 1 < page.len; i += 2) {
        uint32_t a = (unsigned char) page.ptr[i], b = (unsigned char) page.ptr[i + 1];
        uint32_t unit = is_big ? a << 8 | b : b << 8 | a;
        if (unit >= 0xd800 && unit < 0xdc00) {
            high = unit;
            continue;
        }
        if (unit >= 0xdc00 && unit < 0xe000)
            unit = high ? 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00) : 0xfffd;
        high = 0;
        used += utf8_put(out + used, unit);
    }
    *len = used;
    return out;
}

void charset_decode(struct text page, struct text content_type, struct text *out, char **give_copy)
{
    enum charset charset = of_mark(&page);
    if (charset == UNKNOWN)
        charset = find_charset(content_type);
    if (charset == UNKNOWN)
        charset = of_meta(page);
    if (charset == UNKNOWN)
        charset = utf8_is_valid(page.ptr, page.len) ? UTF_8 : WINDOWS_1252;
    *give_copy = NULL;
    *out = page;
    if (charset == WINDOWS_1252)
        *give_copy = from_windows_1252(page, &out->len);
    else if (charset != UTF_8)
        *give_copy = from_utf_16(page, charset == UTF_16_BE, &out->len);
    if (*give_copy)
        out->ptr = *give_copy;
}
