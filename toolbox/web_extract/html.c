#include "html.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "html_names.h"
#include "utf8.h"

enum { ATTRIBUTES_MAX = 16, ENTITY_NAME_MAX = 32 };

struct attribute {
    struct text name, value;
};
struct tag {
    struct text name;
    bool is_end, is_empty; /* </x>, <x/> */
    struct attribute attributes[ATTRIBUTES_MAX];
    size_t attribute_count;
};

struct list {
    bool is_ordered;
    int64_t next;
};

struct reader {
    const char *at, *end;
    struct html_page *page;
    bool has_links;

    int newlines; /* owed before the next character */
    bool owes_space, has_cell;
    int pre_depth;
    char prefix[80]; /* of the line that comes: "## ", "  - " */
    struct list lists[HTML_LISTS_MAX];
    size_t list_depth;

    bool is_in_link;
    struct text href;
    struct html_buffer label;

    struct text skipped; /* the element that is passed over; empty: none */
    int skipped_depth;
};

/* ---- buffers ---- */

static void buffer_add(struct html_buffer *b, const char *ptr, size_t len)
{
    if (b->is_over || b->len + len > b->max) {
        b->is_over = true;
        return;
    }
    if (b->len + len > b->capacity) {
        size_t capacity = b->capacity ? b->capacity * 2 : 1024;
        while (capacity < b->len + len)
            capacity *= 2;
        b->ptr = tool_realloc(b->ptr, capacity);
        b->capacity = capacity;
    }
    memcpy(b->ptr + b->len, ptr, len);
    b->len += len;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static bool is_alnum(char c)
{
    return is_letter(c) || (c >= '0' && c <= '9');
}

static bool same(struct text name, const char *word)
{
    return strlen(word) == name.len && strncasecmp(name.ptr, word, name.len) == 0;
}

/* Folded: one blank between words, none at either end. */
static void add_folded(struct html_buffer *b, const char *ptr, size_t len)
{
    if (len == 1 && is_blank(*ptr)) {
        if (b->len > 0 && b->ptr[b->len - 1] != ' ')
            buffer_add(b, " ", 1);
        return;
    }
    buffer_add(b, ptr, len);
}

/* ---- writing ---- */

static void owe(struct reader *r, int newlines)
{
    if (newlines > r->newlines)
        r->newlines = newlines;
    r->owes_space = false;
}

static void settle(struct reader *r)
{
    struct html_buffer *text = &r->page->text;
    if (r->newlines > 0 && text->len > 0)
        buffer_add(text, "\n\n", (size_t) r->newlines);
    if (r->owes_space && r->newlines == 0 && text->len > 0 && r->prefix[0] == 0)
        buffer_add(text, " ", 1);
    r->newlines = 0;
    r->owes_space = false;
    if (r->prefix[0])
        buffer_add(text, r->prefix, strlen(r->prefix));
    r->prefix[0] = 0;
}

/* Controls, and characters that turn the text around or hide text in it. */
static bool is_dropped(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || c == 0x200b || c == 0xad ||
           (c >= 0xe0000 && c <= 0xe0fff);
}

static void put_blank(struct reader *r, char c)
{
    if (r->is_in_link)
        add_folded(&r->label, " ", 1);
    if (r->pre_depth == 0) {
        r->owes_space = true;
        return;
    }
    if (c == '\n')
        r->newlines = r->newlines < 2 ? r->newlines + 1 : 2;
    else if (c != '\r') {
        settle(r);
        buffer_add(&r->page->text, c == '\t' ? "\t" : " ", 1);
    }
}

static void put_character(struct reader *r, uint32_t c)
{
    char bytes[8];
    if (c < 0x80 && is_blank((char) c)) {
        put_blank(r, (char) c);
        return;
    }
    if (c == 0xa0) /* a blank that does not break is a blank here */
        c = ' ';
    if (is_dropped(c))
        return;
    size_t len = utf8_put(bytes, c);
    if (c == ' ') {
        put_blank(r, ' ');
        return;
    }
    settle(r);
    buffer_add(&r->page->text, bytes, len);
    if (r->is_in_link)
        add_folded(&r->label, bytes, len);
}

static void put_words(struct reader *r, const char *words)
{
    for (; *words; words++)
        put_character(r, (unsigned char) *words);
}

/* ---- entities ---- */

static uint32_t number_of(struct text digits)
{
    static const uint16_t high[32] = {
        0x20ac, 0xfffd, 0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
        0x2039, 0x0152, 0xfffd, 0x017d, 0xfffd, 0xfffd, 0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
        0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0xfffd, 0x017e, 0x0178};
    bool is_hex = digits.len > 0 && (digits.ptr[0] == 'x' || digits.ptr[0] == 'X');
    uint32_t value = 0;
    if (digits.len == (is_hex ? 1u : 0u))
        return 0;
    for (size_t i = is_hex; i < digits.len; i++) {
        char c = digits.ptr[i];
        int digit = c >= '0' && c <= '9'             ? c - '0'
                    : is_hex && c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : is_hex && c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                     : -1;
        if (digit < 0)
            return 0;
        value = value * (is_hex ? 16 : 10) + (uint32_t) digit;
        if (value > 0x10ffff)
            return 0xfffd;
    }
    if (value >= 0x80 && value < 0xa0)
        return high[value - 0x80];
    return value == 0 || (value >= 0xd800 && value < 0xe000) ? 0xfffd : value;
}

static uint32_t entity_code(struct text name)
{
    if (name.len > 1 && name.ptr[0] == '#')
        return number_of((struct text){name.ptr + 1, name.len - 1});
    for (size_t i = 0; i < html_entity_count; i++)
        if (strlen(html_entities[i].name) == name.len &&
            memcmp(html_entities[i].name, name.ptr, name.len) == 0)
            return html_entities[i].code;
    return 0;
}

size_t html_entity(struct text name, char *out)
{
    uint32_t code = entity_code(name);
    return code ? utf8_put(out, code) : 0;
}

/* At '&': the character, and `at` behind it; else '&' itself. */
static uint32_t read_entity(const char **at, const char *end)
{
    const char *from = *at + 1, *to = from;
    if (to < end && *to == '#')
        to++;
    while (to < end && to - from < ENTITY_NAME_MAX && is_alnum(*to))
        to++;
    struct text name = {from, (size_t) (to - from)};
    bool is_closed = to < end && *to == ';';
    bool may_be_open =
        name.len > 0 && (name.ptr[0] == '#' || same(name, "amp") || same(name, "lt") ||
                         same(name, "gt") || same(name, "quot") || same(name, "nbsp"));
    uint32_t code = is_closed || may_be_open ? entity_code(name) : 0;
    if (code == 0) {
        (*at)++;
        return '&';
    }
    *at = to + is_closed;
    return code;
}

/* The next character of text that is to be decoded. */
static uint32_t next_character(const char **at, const char *end)
{
    uint32_t code;
    if (**at == '&')
        return read_entity(at, end);
    *at += utf8_next(*at, end, &code);
    return code;
}

static void add_decoded(struct html_buffer *b, struct text value)
{
    const char *at = value.ptr, *end = value.ptr + value.len;
    while (at < end) {
        char bytes[8];
        uint32_t c = next_character(&at, end);
        if (c == 0xa0 || (c < 0x80 && is_blank((char) c)))
            add_folded(b, " ", 1);
        else if (!is_dropped(c))
            buffer_add(b, bytes, utf8_put(bytes, c));
    }
    while (b->len > 0 && b->ptr[b->len - 1] == ' ')
        b->len--;
}

/* ---- tags ---- */

static void skip_blanks(struct reader *r)
{
    while (r->at < r->end && (is_blank(*r->at) || *r->at == '/'))
        r->at++;
}

static struct text read_value(struct reader *r)
{
    while (r->at < r->end && is_blank(*r->at))
        r->at++;
    if (r->at < r->end && (*r->at == '"' || *r->at == '\'')) {
        const char *from = r->at + 1, *to = memchr(from, *r->at, (size_t) (r->end - from));
        r->at = to ? to + 1 : r->end;
        return (struct text){from, (size_t) ((to ? to : r->end) - from)};
    }
    const char *from = r->at;
    while (r->at < r->end && !is_blank(*r->at) && *r->at != '>')
        r->at++;
    return (struct text){from, (size_t) (r->at - from)};
}

static void read_attribute(struct reader *r, struct tag *tag)
{
    const char *from = r->at++; /* a '=' first is part of the name */
    while (r->at < r->end && !is_blank(*r->at) && strchr("/>=", *r->at) == NULL)
        r->at++;
    struct attribute attribute = {.name = {from, (size_t) (r->at - from)}};
    while (r->at < r->end && is_blank(*r->at))
        r->at++;
    if (r->at < r->end && *r->at == '=') {
        r->at++;
        attribute.value = read_value(r);
    }
    if (tag->attribute_count < ATTRIBUTES_MAX)
        tag->attributes[tag->attribute_count++] = attribute;
}

/* At the name's first letter.  False when the page ends within the tag: then it is none. */
static bool read_tag(struct reader *r, struct tag *tag)
{
    const char *from = r->at;
    while (r->at < r->end && !is_blank(*r->at) && *r->at != '/' && *r->at != '>')
        r->at++;
    tag->name = (struct text){from, (size_t) (r->at - from)};
    for (;;) {
        skip_blanks(r);
        if (r->at >= r->end)
            return false;
        if (*r->at == '>') {
            tag->is_empty = r->at[-1] == '/';
            r->at++;
            return true;
        }
        read_attribute(r, tag);
    }
}

static struct text attribute_of(const struct tag *tag, const char *name)
{
    for (size_t i = 0; i < tag->attribute_count; i++)
        if (same(tag->attributes[i].name, name))
            return tag->attributes[i].value.ptr ? tag->attributes[i].value : TEXT("");
    return (struct text){0};
}

static bool has_word(struct text in, const char *word)
{
    size_t len = strlen(word);
    for (size_t at = 0; at + len <= in.len; at++)
        if (strncasecmp(in.ptr + at, word, len) == 0)
            return true;
    return false;
}

static bool is_hidden(const struct tag *tag)
{
    struct text style = attribute_of(tag, "style");
    return attribute_of(tag, "hidden").ptr != NULL ||
           same(attribute_of(tag, "aria-hidden"), "true") || has_word(style, "display:none") ||
           has_word(style, "display: none") || has_word(style, "visibility:hidden") ||
           has_word(style, "visibility: hidden") || has_word(style, "font-size:0");
}

/* Where the end tag of an element without markup inside begins. */
static const char *find_end_tag(const struct reader *r, struct text name)
{
    for (const char *at = r->at; at + 2 + name.len <= r->end; at++) {
        at = memchr(at, '<', (size_t) (r->end - at));
        if (!at || at + 2 + name.len > r->end)
            break;
        if (at[1] == '/' && strncasecmp(at + 2, name.ptr, name.len) == 0 &&
            (at + 2 + name.len == r->end || !is_alnum(at[2 + name.len])))
            return at;
    }
    return r->end;
}

/* ---- elements ---- */

static void begin_item(struct reader *r)
{
    struct list *list = r->list_depth > 0 ? &r->lists[r->list_depth - 1] : NULL;
    int indent = r->list_depth > 1 ? (int) (r->list_depth - 1) * 2 : 0;
    owe(r, 1);
    if (list && list->is_ordered)
        snprintf(r->prefix, sizeof r->prefix, "%*s%lld. ", indent, "", (long long) list->next++);
    else
        snprintf(r->prefix, sizeof r->prefix, "%*s- ", indent, "");
}

static void change_list(struct reader *r, const struct tag *tag, bool is_ordered)
{
    owe(r, r->list_depth > (tag->is_end ? 1u : 0u) ? 1 : 2);
    r->prefix[0] = 0;
    if (tag->is_end && r->list_depth > 0)
        r->list_depth--;
    else if (!tag->is_end && r->list_depth < HTML_LISTS_MAX)
        r->lists[r->list_depth++] = (struct list){.is_ordered = is_ordered, .next = 1};
}

static void begin_cell(struct reader *r)
{
    if (r->has_cell && r->newlines == 0) {
        put_words(r, " |");
        r->owes_space = true;
    }
    r->has_cell = true;
}

static void end_link(struct reader *r)
{
    struct html_page *page = r->page;
    if (!r->is_in_link)
        return;
    r->is_in_link = false;
    while (r->label.len > 0 && r->label.ptr[r->label.len - 1] == ' ')
        r->label.len--;
    if (r->href.len > 0 && page->link_count < HTML_LINKS_MAX)
        page->links[page->link_count++] =
            (struct html_link){r->href, (struct text){r->label.ptr, r->label.len}};
    else
        tool_free(r->label.ptr);
    r->label = (struct html_buffer){0};
}

static void begin_link(struct reader *r, const struct tag *tag)
{
    struct html_buffer href = {.max = HTML_HREF_MAX};
    end_link(r);
    if (!r->has_links || r->page->link_count >= HTML_LINKS_MAX)
        return;
    add_decoded(&href, attribute_of(tag, "href"));
    if (href.is_over)
        href.len = 0;
    r->href = (struct text){href.ptr, href.len};
    r->label = (struct html_buffer){.max = HTML_LINK_TEXT_MAX};
    r->is_in_link = true;
}

static void read_meta(struct reader *r, const struct tag *tag)
{
    struct text name = attribute_of(tag, "name"), property = attribute_of(tag, "property");
    if (r->page->description.len == 0 &&
        (same(name, "description") || same(property, "og:description")))
        add_decoded(&r->page->description, attribute_of(tag, "content"));
}

/* Elements whose content is no markup. */
static bool read_raw(struct reader *r, const struct tag *tag)
{
    if (tag->is_end || !html_name_is(html_raw_names, tag->name.ptr, tag->name.len))
        return false;
    const char *from = r->at, *to = find_end_tag(r, tag->name);
    if (same(tag->name, "title") && r->page->title.len == 0)
        add_decoded(&r->page->title, (struct text){from, (size_t) (to - from)});
    r->at = to;
    return true;
}

static void read_heading(struct reader *r, const struct tag *tag)
{
    owe(r, 2);
    r->prefix[0] = 0;
    if (!tag->is_end)
        snprintf(r->prefix, sizeof r->prefix, "%.*s ", tag->name.ptr[1] - '0', "######");
}

static void read_block(struct reader *r, const struct tag *tag)
{
    struct text name = tag->name;
    if (name.len == 2 && (name.ptr[0] == 'h' || name.ptr[0] == 'H') && name.ptr[1] >= '1' &&
        name.ptr[1] <= '6')
        read_heading(r, tag);
    else if (same(name, "ul") || same(name, "menu") || same(name, "ol"))
        change_list(r, tag, same(name, "ol"));
    else if (same(name, "li") && !tag->is_end)
        begin_item(r);
    else if (same(name, "tr")) {
        owe(r, 1);
        r->has_cell = false;
    } else if ((same(name, "td") || same(name, "th")) && !tag->is_end)
        begin_cell(r);
    else if (same(name, "pre")) {
        owe(r, 2);
        r->pre_depth += tag->is_end ? -1 : 1;
        r->pre_depth = r->pre_depth < 0 ? 0 : r->pre_depth > 100 ? 100 : r->pre_depth;
    } else if (same(name, "br"))
        r->newlines = r->newlines < 2 ? r->newlines + 1 : 2;
    else if (same(name, "hr")) {
        owe(r, 2);
        put_words(r, "---");
        owe(r, 2);
    } else if (html_name_is(html_paragraph_names, name.ptr, name.len)) {
        if (r->prefix[0] == 0) /* <li><p>: the item's own line */
            owe(r, 2);
    } else if (html_name_is(html_block_names, name.ptr, name.len) && r->prefix[0] == 0)
        owe(r, 1);
}

static void read_inline(struct reader *r, const struct tag *tag)
{
    if (same(tag->name, "a")) {
        if (tag->is_end)
            end_link(r);
        else
            begin_link(r, tag);
    } else if (same(tag->name, "img") && !tag->is_end) {
        struct html_buffer alt = {.max = HTML_LINK_TEXT_MAX};
        add_decoded(&alt, attribute_of(tag, "alt"));
        if (alt.len > 0) {
            put_words(r, "[");
            for (const char *at = alt.ptr, *end = alt.ptr + alt.len; at < end;) {
                uint32_t c;
                at += utf8_next(at, end, &c);
                put_character(r, c);
            }
            put_words(r, "]");
        }
        tool_free(alt.ptr);
    } else if (same(tag->name, "meta")) {
        read_meta(r, tag);
    } else if (same(tag->name, "base") && r->page->base.len == 0) {
        add_decoded(&r->page->base, attribute_of(tag, "href"));
    } else if (same(tag->name, "html") && r->page->language.len == 0) {
        add_decoded(&r->page->language, attribute_of(tag, "lang"));
    }
}

/* Within what is passed over: is it over? */
static bool pass_over(struct reader *r, const struct tag *tag)
{
    if (r->skipped.len == 0)
        return false;
    bool is_same = tag->name.len == r->skipped.len &&
                   strncasecmp(tag->name.ptr, r->skipped.ptr, tag->name.len) == 0;
    bool is_optional = html_name_is(html_optional_end_names, r->skipped.ptr, r->skipped.len);
    bool is_block = html_name_is(html_block_names, tag->name.ptr, tag->name.len) ||
                    html_name_is(html_paragraph_names, tag->name.ptr, tag->name.len);
    if (is_optional && is_block && !(is_same && tag->is_end)) {
        r->skipped.len = 0; /* its end tag was left out */
        return false;
    }
    if (is_same && !tag->is_empty)
        r->skipped_depth += tag->is_end ? -1 : 1;
    if (r->skipped_depth == 0)
        r->skipped.len = 0;
    return true;
}

static void read_element(struct reader *r, const struct tag *tag)
{
    if (pass_over(r, tag)) {
        if (r->skipped.len > 0)
            (void) read_raw(r,
                            &(struct tag){.name = same(tag->name, "title") ? TEXT("") : tag->name,
                                          .is_end = tag->is_end});
        return;
    }
    bool is_void = html_name_is(html_void_names, tag->name.ptr, tag->name.len);
    bool is_skipped = html_name_is(html_skipped_names, tag->name.ptr, tag->name.len);
    if (!tag->is_end && !is_void && (is_skipped || is_hidden(tag)) &&
        !html_name_is(html_raw_names, tag->name.ptr, tag->name.len)) {
        if (tag->is_empty && is_skipped)
            return;
        r->skipped = tag->name;
        r->skipped_depth = 1;
        return;
    }
    if (is_void && is_hidden(tag))
        return;
    if (read_raw(r, tag))
        return;
    read_block(r, tag);
    read_inline(r, tag);
}

/* ---- the page ---- */

static void skip_past(struct reader *r, const char *mark)
{
    size_t len = strlen(mark);
    while (r->at < r->end) {
        const char *found = memchr(r->at, mark[0], (size_t) (r->end - r->at));
        if (!found || (size_t) (r->end - found) < len) {
            r->at = r->end;
            return;
        }
        r->at = found + 1;
        if (memcmp(found, mark, len) == 0) {
            r->at = found + len;
            return;
        }
    }
}

/* At '<'. */
static void read_markup(struct reader *r)
{
    size_t left = (size_t) (r->end - r->at);
    if (left >= 4 && memcmp(r->at, "<!--", 4) == 0) {
        r->at += 2; /* "<!-->" is a whole comment */
        skip_past(r, "-->");
        return;
    }
    bool is_end = left >= 2 && r->at[1] == '/';
    char first = left > (is_end ? 2u : 1u) ? r->at[is_end ? 2 : 1] : 0;
    if (is_letter(first)) {
        struct tag tag = {.is_end = is_end};
        r->at += is_end ? 2 : 1;
        if (read_tag(r, &tag))
            read_element(r, &tag);
        return;
    }
    if (is_end || first == '!' || first == '?') {
        skip_past(r, ">");
        return;
    }
    r->at++;
    if (r->skipped.len == 0)
        put_character(r, '<');
}

static struct reader begin(struct text in, size_t text_bytes_max, struct html_page *page)
{
    *page = (struct html_page){.text.max = text_bytes_max,
                               .title.max = HTML_TITLE_MAX,
                               .description.max = HTML_HREF_MAX,
                               .language.max = HTML_LINK_TEXT_MAX,
                               .base.max = HTML_HREF_MAX};
    page->links = tool_alloc(HTML_LINKS_MAX * sizeof *page->links);
    return (struct reader){.at = in.ptr, .end = in.ptr + in.len, .page = page};
}

void html_read_plain(struct text text, size_t text_bytes_max, struct html_page *page)
{
    struct reader r = begin(text, text_bytes_max, page);
    r.pre_depth = 1;
    while (r.at < r.end && !page->text.is_over) {
        uint32_t code;
        r.at += utf8_next(r.at, r.end, &code);
        put_character(&r, code);
    }
    page->is_truncated = page->text.is_over;
}

void html_read(struct text html, size_t text_bytes_max, bool has_links, struct html_page *page)
{
    struct reader r = begin(html, text_bytes_max, page);
    r.has_links = has_links;
    while (r.at < r.end && !page->text.is_over) {
        if (*r.at == '<') {
            read_markup(&r);
            continue;
        }
        if (r.skipped.len > 0) {
            const char *next = memchr(r.at, '<', (size_t) (r.end - r.at));
            r.at = next ? next : r.end;
            continue;
        }
        put_character(&r, next_character(&r.at, r.end));
    }
    end_link(&r);
    page->is_truncated = page->text.is_over;
}

void html_free(struct html_page *page)
{
    for (size_t i = 0; i < page->link_count; i++) {
        tool_free((void *) (uintptr_t) page->links[i].href.ptr);
        tool_free((void *) (uintptr_t) page->links[i].label.ptr);
    }
    tool_free(page->links);
    tool_free(page->text.ptr);
    tool_free(page->title.ptr);
    tool_free(page->description.ptr);
    tool_free(page->language.ptr);
    tool_free(page->base.ptr);
}
