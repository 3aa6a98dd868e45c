/*
 * web_extract: a page's readable text.
 *
 * The page is fetched by the host (http_request, under this tool's own permissions.network) or given.  Its bytes are nobody's friend:
 * they are read here, inside the sandbox, and only text leaves.
 */
#include <string.h>
#include <strings.h>

#include "charset.h"
#include "html.h"

enum { TEXT_MAX_DEFAULT = 50000, TEXT_MAX = 500000, TEXT_MIN = 100 };

/* ---- fetching ---- */

static int base64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static struct text from_base64(struct text in)
{
    char *out = tool_alloc(in.len + 1);
    size_t used = 0;
    uint32_t bits = 0;
    int count = 0;
    for (size_t i = 0; i < in.len; i++) {
        int value = base64_value(in.ptr[i]);
        if (value < 0)
            continue;
        bits = bits << 6 | (uint32_t) value;
        if (++count == 4) {
            out[used++] = (char) (bits >> 16);
            out[used++] = (char) (bits >> 8);
            out[used++] = (char) bits;
            count = 0;
        }
    }
    if (count == 3) {
        out[used++] = (char) (bits >> 10);
        out[used++] = (char) (bits >> 2);
    } else if (count == 2) {
        out[used++] = (char) (bits >> 4);
    }
    return (struct text){out, used};
}

static struct text member(yyjson_val *object, const char *name)
{
    yyjson_val *value = yyjson_obj_get(object, name);
    return yyjson_is_str(value) ? (struct text){yyjson_get_str(value), yyjson_get_len(value)}
                                : TEXT("");
}

static bool begins(struct text t, const char *word)
{
    size_t len = strlen(word);
    return t.len >= len && strncasecmp(t.ptr, word, len) == 0;
}

struct source {
    struct text bytes, content_type, url;
    int64_t status; /* 0: given, not fetched */
    bool is_cut;
};

static bool is_readable_type(struct text type)
{
    static const char *const types[] = {"text/", "application/xhtml", "application/xml",
                                        "application/json", NULL};
    if (type.len == 0)
        return true;
    for (int i = 0; types[i] != NULL; i++)
        if (begins(type, types[i]))
            return true;
    return false;
}

static bool fetch(struct text url, struct source *out, struct tool_error *e)
{
    yyjson_val *answer;
    yyjson_mut_doc *request = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(request), *headers = yyjson_mut_obj(request);
    yyjson_mut_doc_set_root(request, root);
    yyjson_mut_obj_add_strn(request, root, "url", url.ptr, url.len);
    yyjson_mut_obj_add_str(request, headers, "Accept",
                           "text/html, application/xhtml+xml, text/*;q=0.8");
    yyjson_mut_obj_add_val(request, root, "headers", headers);
    if (!tool_host_call("http_request", request, &answer, e))
        return false;
    out->status = yyjson_get_sint(yyjson_obj_get(answer, "status"));
    out->bytes = member(answer, "body");
    out->url = member(answer, "url");
    out->content_type = member(yyjson_obj_get(answer, "headers"), "content-type");
    out->is_cut = yyjson_is_true(yyjson_obj_get(answer, "truncated"));
    bool is_base64 = yyjson_is_true(yyjson_obj_get(answer, "body_base64"));
    if (is_base64)
        out->bytes = from_base64(out->bytes);
    if (!is_readable_type(out->content_type))
        return tool_fail(e, "invalid_input", "the page is " TEXT_FMT ", no text; use http_request",
                         TEXT_ARG(out->content_type));
    if (!is_base64) /* the host found UTF-8, whatever the header says */
        out->content_type = begins(out->content_type, "text/plain")
                                ? TEXT("text/plain; charset=utf-8")
                                : TEXT("text/html; charset=utf-8");
    return true;
}

/* ---- links ---- */

static size_t origin_len(struct text url)
{
    size_t at = begins(url, "https://") ? 8 : begins(url, "http://") ? 7 : 0;
    if (at == 0)
        return 0;
    while (at < url.len && strchr("/?#", url.ptr[at]) == NULL)
        at++;
    return at;
}

static bool has_scheme(struct text href)
{
    for (size_t i = 0; i < href.len; i++) {
        char c = href.ptr[i];
        if (c == ':')
            return i > 0;
        bool is_scheme = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                         (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
        if (!is_scheme)
            return false;
    }
    return false;
}

static struct text join(struct text a, size_t a_len, struct text b)
{
    char *out = tool_alloc(a_len + b.len + 1);
    memcpy(out, a.ptr, a_len);
    memcpy(out + a_len, b.ptr, b.len);
    return (struct text){out, a_len + b.len};
}

/* A link as it is seen from the page; empty: none that leads anywhere. */
static struct text resolve(struct text base, struct text href)
{
    if (has_scheme(href))
        return begins(href, "http:") || begins(href, "https:") || begins(href, "mailto:")
                   ? href
                   : TEXT("");
    size_t origin = origin_len(base);
    if (origin == 0 || href.len == 0 || href.ptr[0] == '#')
        return href.len > 0 && href.ptr[0] != '#' ? href : TEXT("");
    if (begins(href, "//"))
        return join(base, begins(base, "https:") ? 6 : 5, href);
    if (href.ptr[0] == '/')
        return join(base, origin, href);
    size_t path = origin;
    while (path < base.len && base.ptr[path] != '?' && base.ptr[path] != '#')
        path++;
    if (href.ptr[0] == '?')
        return join(base, path, href);
    while (path > origin && base.ptr[path - 1] != '/')
        path--;
    struct text folder =
        path > origin ? (struct text){base.ptr, path} : join(base, origin, TEXT("/"));
    return join(folder, folder.len, href);
}

static void add_links(yyjson_mut_doc *output, yyjson_mut_val *root, const struct html_page *page,
                      struct text url)
{
    yyjson_mut_val *list = yyjson_mut_arr(output);
    struct text base =
        page->base.len > 0 ? resolve(url, (struct text){page->base.ptr, page->base.len}) : url;
    for (size_t i = 0; i < page->link_count; i++) {
        struct text href = resolve(base, page->links[i].href), label = page->links[i].label;
        if (href.len == 0)
            continue;
        yyjson_mut_val *link = yyjson_mut_arr_add_obj(output, list);
        yyjson_mut_obj_add_strn(output, link, "text", label.len ? label.ptr : "", label.len);
        yyjson_mut_obj_add_strn(output, link, "url", href.ptr, href.len);
    }
    yyjson_mut_obj_add_val(output, root, "links", list);
}

/* ---- the tool ---- */

static void add_text(yyjson_mut_doc *output, yyjson_mut_val *root, const char *name,
                     const struct html_buffer *buffer)
{
    if (buffer->len > 0)
        yyjson_mut_obj_add_strn(output, root, name, buffer->ptr, buffer->len);
}

static bool get_source(yyjson_val *input, struct source *out, struct tool_error *e)
{
    struct text url, html;
    if (!tool_text_or(input, "url", TEXT(""), &url, e) ||
        !tool_text_or(input, "html", TEXT(""), &html, e))
        return false;
    if ((url.len > 0) == (html.len > 0))
        return tool_fail(e, "invalid_input", "give \"url\" or \"html\", one of them");
    if (html.len > 0) {
        *out = (struct source){.bytes = html, .content_type = TEXT("text/html; charset=utf-8")};
        return true;
    }
    if (!begins(url, "http://") && !begins(url, "https://"))
        return tool_fail(e, "invalid_input",
                         "\"url\" must begin with https:// or http:// and name a host");
    return fetch(url, out, e);
}

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    struct source source = {0};
    struct html_page page;
    struct text html;
    char *copy;
    bool has_links;
    int64_t max;
    if (!tool_integer_or(input, "max_chars", TEXT_MAX_DEFAULT, TEXT_MIN, TEXT_MAX, &max, e) ||
        !tool_flag_or(input, "links", true, &has_links, e) || !get_source(input, &source, e))
        return false;
    charset_decode(source.bytes, source.content_type, &html, &copy);
    if (begins(source.content_type, "text/plain") ||
        begins(source.content_type, "application/json"))
        html_read_plain(html, (size_t) max, &page);
    else
        html_read(html, (size_t) max, has_links, &page);
    yyjson_mut_val *root = yyjson_mut_obj(output);
    yyjson_mut_doc_set_root(output, root);
    add_text(output, root, "title", &page.title);
    add_text(output, root, "description", &page.description);
    add_text(output, root, "language", &page.language);
    yyjson_mut_obj_add_strn(output, root, "text", page.text.len ? page.text.ptr : "",
                            page.text.len);
    if (has_links)
        add_links(output, root, &page, source.url);
    yyjson_mut_obj_add_bool(output, root, "truncated", page.is_truncated || source.is_cut);
    if (source.status != 0) {
        yyjson_mut_obj_add_strn(output, root, "url", source.url.ptr, source.url.len);
        yyjson_mut_obj_add_sint(output, root, "status", source.status);
    }
    return true;
}
