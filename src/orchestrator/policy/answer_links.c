#include "orchestrator/policy/answer_links.h"
#include "base/attributes.h"
#include "base/str.h"

/*
 * The unit is the word: a run of bytes above blank.  Every address lies within one, and where a reader would skip blanks inside an
 * address (HTML attributes), its pieces are words that no rule lets pass either.
 */
struct word {
    const struct answer_links *links;
    str text;
    struct strbuf *out;
    int defused;
};

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool starts_at(str text, size_t at, const char *what)
{
    str wanted = str_from_cstr(what);
    return str_equal_nocase(str_slice(text, at, at + wanted.len), wanted);
}

static bool is_word_start(str text, size_t at)
{
    return at == 0 || !is_alnum(text.ptr[at - 1]);
}

static bool is_slash(char c)
{
    return c == '/' || c == '\\';
}

/* Where the address that begins at `at` ends: before what cannot be of it, and without the sentence's own marks. */
static size_t address_end(str text, size_t at)
{
    size_t end = at;
    while (end < text.len && !memchr("\"'<>`)]}|\\^{", text.ptr[end], 12))
        end++;
    while (end > at && memchr(".,;:!?*_", text.ptr[end - 1], 8))
        end--;
    return end;
}

static void put(struct word *w, const char *text)
{
    strbuf_add(w->out, str_from_cstr(text));
}

/* "https:" at `at`: the whole address when it may stand, else its first bytes made harmless.  Gives the bytes taken. */
static size_t take_address(struct word *w, size_t at, size_t scheme_bytes)
{
    size_t end = address_end(w->text, at), after = at + scheme_bytes;
    str address = str_slice(w->text, at, end);
    bool is_plain = starts_at(w->text, after, "//") && after + 2 < end &&
                    (is_alnum(w->text.ptr[after + 2]) || w->text.ptr[after + 2] == '[');
    if (is_plain && w->links->may_link(w->links->owner, address)) {
        strbuf_add(w->out, address);
        return end - at;
    }
    put(w, scheme_bytes == 5 ? "hxxp[:]" : "hxxps[:]");
    w->defused++;
    size_t slashes = 0;
    while (after + slashes < w->text.len && is_slash(w->text.ptr[after + slashes]))
        slashes++;
    put(w, slashes > 0 ? "//" : "");
    return scheme_bytes + slashes;
}

enum { WWW_BYTES_MAX = 512 };

/* "www.example.org/x": readers make a link of it. */
static size_t take_www(struct word *w, size_t at)
{
    char address[WWW_BYTES_MAX + 16];
    str bare = str_slice(w->text, at, address_end(w->text, at));
    static const char *const schemes[] = {"https://", "http://"};
    for (size_t i = 0; i < ARRAY_COUNT(schemes) && bare.len <= WWW_BYTES_MAX; i++) {
        size_t scheme_bytes = strlen(schemes[i]);
        memcpy(address, schemes[i], scheme_bytes);
        memcpy(address + scheme_bytes, bare.ptr, bare.len);
        if (!w->links->may_link(w->links->owner, str_of(address, scheme_bytes + bare.len)))
            continue;
        strbuf_add(w->out, bare);
        return bare.len;
    }
    put(w, "www[.]");
    w->defused++;
    return 4;
}

/* Tags that load something as soon as they are shown, or take what is typed. */
static bool is_loading_tag(str text, size_t at)
{
    static const char *const names[] = {"img",     "image", "svg",    "iframe", "frame",  "object",
                                        "embed",   "link",  "script", "style",  "video",  "audio",
                                        "source",  "track", "input",  "form",   "base",   "meta",
                                        "picture", "body",  "table",  "td",     "button", "a"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        size_t end = at + 1 + strlen(names[i]);
        if (starts_at(text, at + 1, names[i]) && (end >= text.len || !is_alnum(text.ptr[end])))
            return true;
    }
    return false;
}

/* Characters that spell an address in a disguise. */
static bool is_disguise(str text, size_t at)
{
    static const char *const names[] = {"&#",   "&colon",   "&sol",  "&bsol", "&period",
                                        "&tab", "&newline", "&lpar", "&lsqb", "&lbrack"};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (starts_at(text, at, names[i]))
            return true;
    return false;
}

static size_t script_bytes(str text, size_t at)
{
    static const char *const schemes[] = {"javascript:", "vbscript:", "data:", "file:", "blob:"};
    for (size_t i = 0; i < ARRAY_COUNT(schemes); i++)
        if (starts_at(text, at, schemes[i]))
            return strlen(schemes[i]);
    return 0;
}

static bool is_target_start(str text, size_t at)
{
    return at > 0 && memchr("(=\"'<", text.ptr[at - 1], 5) != NULL;
}

/* "//evil.test/x", which takes the scheme of the page; a comment of a program stays. */
static bool is_bare_host(str text, size_t at)
{
    return at + 2 < text.len && is_slash(text.ptr[at]) && is_slash(text.ptr[at + 1]) &&
           (is_target_start(text, at) ||
            (at == 0 && is_alnum(text.ptr[2]) && str_find_char(text, '.') != STR_NOT_FOUND));
}

static size_t take_one(struct word *w, size_t at)
{
    str text = w->text;
    size_t script = script_bytes(text, at);
    if (is_word_start(text, at) && (starts_at(text, at, "http:") || starts_at(text, at, "https:")))
        return take_address(w, at, starts_at(text, at, "https:") ? 6 : 5);
    if (is_word_start(text, at) && starts_at(text, at, "www."))
        return take_www(w, at);
    if (script > 0 && is_target_start(text, at)) {
        strbuf_add(w->out, str_slice(text, at, at + script - 1));
        put(w, "[:]");
        w->defused++;
        return script;
    }
    if (starts_at(text, at, "://") || starts_at(text, at, ":\\\\")) {
        put(w, "[:]//");
        w->defused++;
        return 3;
    }
    if (is_bare_host(text, at)) {
        put(w, "[//]");
        w->defused++;
        return 2;
    }
    if (text.ptr[at] == '<' && is_loading_tag(text, at)) {
        put(w, "&lt;");
        w->defused++;
        return 1;
    }
    if (text.ptr[at] == '&' && is_disguise(text, at)) {
        put(w, "&amp;");
        w->defused++;
        return 1;
    }
    strbuf_add(w->out, str_slice(text, at, at + 1));
    return 1;
}

static void take_word(struct answer_links *links, struct strbuf *out)
{
    struct word w = {.links = links, .text = str_of(links->held, links->held_bytes), .out = out};
    for (size_t at = 0; at < w.text.len;)
        at += take_one(&w, at);
    links->defused += w.defused;
    links->held_bytes = 0;
}

/* A word without end.  What could be an address in it is left out; other long words (code, tables, hashes) pass. */
static void take_long_word(struct answer_links *links, struct strbuf *out)
{
    static const char *const suspicious[] = {":/", ":\\", "//", "\\\\", "](",
                                             "]:", "<",   "&",  "www."};
    str text = str_of(links->held, links->held_bytes);
    bool is_suspicious = links->is_left_out;
    for (size_t i = 0; i < ARRAY_COUNT(suspicious); i++)
        is_suspicious =
            is_suspicious || str_find(text, str_from_cstr(suspicious[i])) != STR_NOT_FOUND;
    if (is_suspicious && !links->is_left_out) {
        strbuf_add(out, S("[a word of more than 4096 bytes was left out: it may be an address]"));
        links->defused++;
    }
    links->is_left_out = is_suspicious;
    size_t kept = is_suspicious ? 0 : 16; /* what is suspicious may begin here */
    if (!is_suspicious)
        strbuf_add(out, str_slice(text, 0, text.len - kept));
    memmove(links->held, links->held + links->held_bytes - kept, kept);
    links->held_bytes = kept;
}

static void end_word(struct answer_links *links, struct strbuf *out)
{
    if (links->is_left_out)
        links->held_bytes = 0;
    take_word(links, out);
    links->is_left_out = false;
}

void answer_links_feed(struct answer_links *links, str piece, struct strbuf *out)
{
    if (!links->may_link) {
        strbuf_add(out, piece);
        return;
    }
    for (size_t i = 0; i < piece.len; i++) {
        char c = piece.ptr[i];
        if ((unsigned char) c <= ' ') {
            end_word(links, out);
            strbuf_add(out, str_of(&piece.ptr[i], 1));
            continue;
        }
        links->held[links->held_bytes++] = c;
        if (links->held_bytes == sizeof links->held)
            take_long_word(links, out);
    }
}

void answer_links_end(struct answer_links *links, struct strbuf *out)
{
    if (links->may_link)
        end_word(links, out);
}
