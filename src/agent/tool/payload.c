#include "agent/tool/payload.h"
#include "base/arena.h"

/* One character of the text: raw UTF-8 or a JSON escape; 0 bytes: none that matters begins here. */
struct character {
    uint32_t code;
    size_t bytes;
};

static bool hex4(str text, size_t at, uint32_t *out)
{
    *out = 0;
    if (at + 6 > text.len || text.ptr[at] != '\\' || text.ptr[at + 1] != 'u')
        return false;
    for (size_t i = at + 2; i < at + 6; i++) {
        char c = text.ptr[i];
        uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t) (c - '0')
                         : c >= 'a' && c <= 'f' ? (uint32_t) (c - 'a' + 10)
                         : c >= 'A' && c <= 'F' ? (uint32_t) (c - 'A' + 10)
                                                : 16;
        if (digit > 15)
            return false;
        *out = *out << 4 | digit;
    }
    return true;
}

static struct character read_escape(str text, size_t at)
{
    uint32_t high, low;
    if (!hex4(text, at, &high))
        return (struct character){0, 2}; /* of two bytes: the second is no beginning */
    if (high >= 0xd800 && high < 0xdc00 && hex4(text, at + 6, &low) && low >= 0xdc00 &&
        low < 0xe000)
        return (struct character){0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12};
    return (struct character){high, 6};
}

static struct character read_utf8(str text, size_t at)
{
    const unsigned char *p = (const unsigned char *) text.ptr + at;
    size_t left = text.len - at;
    if (p[0] < 0x80)
        return (struct character){p[0], 1};
    if (p[0] >= 0xf0 && left >= 4)
        return (struct character){(uint32_t) (p[0] & 7) << 18 | (uint32_t) (p[1] & 63) << 12 |
                                      (uint32_t) (p[2] & 63) << 6 | (p[3] & 63),
                                  4};
    if (p[0] >= 0xe0 && p[0] < 0xf0 && left >= 3)
        return (struct character){
            (uint32_t) (p[0] & 15) << 12 | (uint32_t) (p[1] & 63) << 6 | (p[2] & 63), 3};
    if (p[0] >= 0xc0 && p[0] < 0xe0 && left >= 2)
        return (struct character){(uint32_t) (p[0] & 31) << 6 | (p[1] & 63), 2};
    return (struct character){0, 1};
}

static bool is_hidden(uint32_t code)
{
    return code == 0x200b || code == 0x200e || code == 0x200f ||
           (code >= 0x202a && code <= 0x202e) || (code >= 0x2060 && code <= 0x2069) ||
           code == 0xfeff || code == 0x00ad || code == 0x180e ||
           (code >= 0xe0000 && code <= 0xe01ef);
}

static bool is_terminal(uint32_t code)
{
    return code == 0x1b || code == 0x9b || code == 0x07 || code == 0x08 || code == 0x7f;
}

static void count_words(str text, size_t at, struct payload_findings *found)
{
    str rest = str_slice(text, at, at + 11);
    char c = text.ptr[at];
    if (c == '<' && str_equal_nocase(str_slice(rest, 0, 7), S("<script")))
        found->scripts++;
    else if ((c == 'j' || c == 'J') && str_equal_nocase(str_slice(rest, 0, 11), S("javascript:")))
        found->scripts++;
    else if ((c == 'd' || c == 'D') && (str_equal_nocase(str_slice(rest, 0, 10), S("data:text/")) ||
                                        str_equal_nocase(str_slice(rest, 0, 11), S("data:image/"))))
        found->data_urls++;
}

str payload_reveal(struct arena *arena, str json, struct payload_findings *found)
{
    struct strbuf out;
    size_t kept = 0;
    bool is_changed = false;
    *found = (struct payload_findings){0};
    for (size_t at = 0; at < json.len;) {
        struct character c = json.ptr[at] == '\\' ? read_escape(json, at) : read_utf8(json, at);
        bool hides = is_hidden(c.code), escapes = is_terminal(c.code);
        found->hidden += hides;
        found->escapes += escapes;
        count_words(json, at, found);
        if (hides || escapes) {
            if (!is_changed)
                strbuf_init(&out, arena, 4 * json.len + 16); /* "[U+00AD]" of two bytes */
            is_changed = true;
            strbuf_add(&out, str_slice(json, kept, at));
            strbuf_printf(&out, "[U+%04X]", (unsigned) c.code);
            kept = at + c.bytes;
        }
        at += c.bytes;
    }
    if (!is_changed)
        return json;
    strbuf_add(&out, str_from(json, kept));
    return strbuf_str(&out);
}

void payload_write_json(struct json_writer *w, const struct payload_findings *found)
{
    json_object_begin(w);
    json_put_i64(w, S("hidden"), found->hidden);
    json_put_i64(w, S("escapes"), found->escapes);
    json_put_i64(w, S("scripts"), found->scripts);
    json_put_i64(w, S("data_urls"), found->data_urls);
    json_object_end(w);
}
