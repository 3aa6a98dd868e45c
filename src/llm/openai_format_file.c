/* a file in a user's message <-> the document block that stands for it in a prompt */
#include "base/arena.h"
#include "llm/openai_format_internal.h"

#define PDF_URL S("data:application/pdf;base64,")

bool openai_read_file(struct arena *arena, const struct json *item, struct part *out)
{
    const struct json *file = json_get(item, S("file"));
    return openai_make_file(arena, json_str_or(file, S("file_data"), STR_NONE),
                            json_str_or(file, S("filename"), STR_NONE), out);
}

bool openai_make_file(struct arena *arena, str file_data, str name, struct part *out)
{
    str data;
    struct strbuf text;
    struct json_writer w;
    if (!str_strip_prefix(file_data, PDF_URL, &data))
        return false;
    strbuf_init(&text, arena, data.len + 6 * name.len + 256);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("document"));
    json_key(&w, S("source"));
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("base64"));
    json_put_str(&w, S("media_type"), S("application/pdf"));
    json_put_str(&w, S("data"), data);
    json_object_end(&w);
    if (name.len > 0)
        json_put_str(&w, S("title"), name);
    json_object_end(&w);
    *out = (struct part){.kind = PART_TEXT, .opaque = strbuf_str(&text)};
    return !strbuf_is_over(&text); /* data that needs escapes is no base64 */
}

/* NULL when the part is no document whose bytes are here. */
static const struct json *parse_document(struct arena *arena, const struct part *part)
{
    const struct json *block = NULL;
    struct error ignored = {0};
    struct json_limits limits = {.allow_duplicates = true};
    if (part->kind != PART_TEXT || !str_starts_with(part->opaque, S("{")) ||
        str_find(str_slice(part->opaque, 0, 256), S("\"document\"")) == STR_NOT_FOUND ||
        !json_parse(arena, part->opaque, limits, &block, &ignored))
        return NULL;
    const struct json *source = json_get(block, S("source"));
    bool is_pdf = str_equal(json_str_or(source, S("type"), STR_NONE), S("base64")) &&
                  str_equal(json_str_or(source, S("media_type"), STR_NONE), S("application/pdf"));
    return is_pdf ? block : NULL;
}

bool openai_is_file(struct arena *arena, const struct part *part)
{
    return parse_document(arena, part) != NULL;
}

void openai_write_file(struct json_writer *w, const struct part *part)
{
    const struct json *block = parse_document(w->out->arena, part);
    str data = json_str_or(json_get(block, S("source")), S("data"), STR_NONE);
    struct strbuf url;
    strbuf_init(&url, w->out->arena, PDF_URL.len + data.len);
    strbuf_add(&url, PDF_URL);
    strbuf_add(&url, data);
    json_object_begin(w);
    json_put_str(w, S("type"), S("file"));
    json_key(w, S("file"));
    json_object_begin(w);
    json_put_str(w, S("filename"), json_str_or(block, S("title"), S("document.pdf")));
    json_put_str(w, S("file_data"), strbuf_str(&url));
    json_object_end(w);
    json_object_end(w);
}
