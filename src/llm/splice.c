#include "llm/splice.h"
#include "base/arena.h"
#include "base/json.h"

enum { CUTS_MAX = 8, NAME_BYTES_MAX = 32 };

/* A stretch of the body and what stands there instead; from == to is an insertion. */
struct cut {
    size_t from, to;
    str text;
};
struct splice {
    struct arena *arena;
    str body;
    const struct splice_table *table;
    const struct dialect_edits *edits;
    struct cut cuts[CUTS_MAX];
    size_t cut_count;
    size_t null_from; /* of a limit that is null; 0: none */
    bool has_limit, has_options, has_too_many;
};

/* ---- a scanner over well-formed JSON; anything else ends it ---- */

static size_t skip_space(str s, size_t at)
{
    while (at < s.len &&
           (s.ptr[at] == ' ' || s.ptr[at] == '\n' || s.ptr[at] == '\r' || s.ptr[at] == '\t'))
        at++;
    return at;
}

/* `at` is on the opening quote; gives the place behind the closing one, or SIZE_MAX. */
static size_t skip_string(str s, size_t at)
{
    for (at++; at < s.len; at++) {
        if (s.ptr[at] == '\\')
            at++;
        else if (s.ptr[at] == '"')
            return at + 1;
    }
    return SIZE_MAX;
}

static size_t skip_value(str s, size_t at)
{
    size_t depth = 0;
    while (at < s.len) {
        char c = s.ptr[at];
        if (c == '"') {
            at = skip_string(s, at);
            if (at == SIZE_MAX || depth == 0)
                return at;
            continue;
        }
        if (c == '{' || c == '[')
            depth++;
        else if ((c == '}' || c == ']') && depth-- <= 1)
            return depth == 0 ? at + 1
                              : at; /* the end of this container, or of the one around a scalar */
        else if (depth == 0 && (c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t'))
            return at;
        at++;
    }
    return depth == 0 ? at : SIZE_MAX;
}

struct member {
    str name;        /* between the quotes, as written */
    size_t from, to; /* the value */
};

/* Moves *at (behind the opening brace, or behind a member) to behind the next member.  1: a member, 0: the end, -1: malformed. */
static int next_member(str s, size_t *at, struct member *out)
{
    size_t i = skip_space(s, *at);
    if (i < s.len && s.ptr[i] == ',')
        i = skip_space(s, i + 1);
    if (i >= s.len)
        return -1;
    if (s.ptr[i] == '}') {
        *at = i;
        return 0;
    }
    if (s.ptr[i] != '"')
        return -1;
    size_t end = skip_string(s, i);
    if (end == SIZE_MAX)
        return -1;
    out->name = str_slice(s, i + 1, end - 1);
    i = skip_space(s, end);
    if (i >= s.len || s.ptr[i] != ':')
        return -1;
    out->from = skip_space(s, i + 1);
    out->to = skip_value(s, out->from);
    if (out->to == SIZE_MAX || out->to <= out->from || out->to > s.len)
        return -1;
    *at = out->to;
    return 1;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Names may be written with escapes: "mod\u0065l" is model. */
static bool is_named(str written, str name)
{
    char text[NAME_BYTES_MAX];
    size_t len = 0;
    if (str_find_char(written, '\\') == STR_NOT_FOUND)
        return str_equal(written, name);
    for (size_t i = 0; i < written.len; len++) {
        if (len == sizeof text)
            return false;
        if (written.ptr[i] != '\\') {
            text[len] = written.ptr[i++];
            continue;
        }
        if (i + 6 > written.len || written.ptr[i + 1] != 'u' || written.ptr[i + 2] != '0' ||
            written.ptr[i + 3] != '0')
            return false; /* no other escape stands for a letter or an underscore */
        int high = hex_value(written.ptr[i + 4]), low = hex_value(written.ptr[i + 5]);
        if (high < 0 || low < 0)
            return false;
        text[len] = (char) (high << 4 | low);
        i += 6;
    }
    return str_equal(str_of(text, len), name);
}

/* ---- the edits ---- */

/* Kept in the body's order.  More than CUTS_MAX is only possible with names that come twice. */
static void cut(struct splice *s, size_t from, size_t to, str text)
{
    if (s->cut_count == CUTS_MAX) {
        s->has_too_many = true;
        return;
    }
    size_t i = s->cut_count++;
    for (; i > 0 && s->cuts[i - 1].from > from; i--)
        s->cuts[i] = s->cuts[i - 1];
    s->cuts[i] = (struct cut){from, to, text};
}

static str json_string(struct arena *arena, str text)
{
    struct strbuf out;
    struct json_writer w;
    strbuf_init(&out, arena, 6 * text.len + 16);
    json_writer_init(&w, &out);
    json_write_str(&w, text);
    return strbuf_str(&out);
}

static void edit_limit(struct splice *s, const struct member *member)
{
    int64_t said;
    str value = str_slice(s->body, member->from, member->to);
    if (str_equal(value, S("null"))) {
        s->null_from = member->from;
        return;
    }
    s->has_limit = true;
    bool is_lower = str_to_i64(value, &said) && said <= s->edits->max_output_tokens;
    if (!is_lower)
        cut(s, member->from, member->to, str_i64(s->arena, s->edits->max_output_tokens));
}

static bool edit_options(struct splice *s, const struct member *member)
{
    s->has_options = true;
    if (s->body.ptr[member->from] != '{') {
        cut(s, member->from, member->to, S("{\"include_usage\":true}"));
        return true;
    }
    size_t at = member->from + 1;
    struct member inner;
    int found;
    bool is_empty = true;
    while ((found = next_member(s->body, &at, &inner)) == 1) {
        is_empty = false;
        if (!is_named(inner.name, S("include_usage")))
            continue;
        cut(s, inner.from, inner.to, S("true"));
        return true;
    }
    cut(s, member->from + 1, member->from + 1,
        is_empty ? S("\"include_usage\":true") : S("\"include_usage\":true,"));
    return found == 0;
}

static bool is_limit(const struct splice_table *table, str name)
{
    for (size_t i = 0; i < SPLICE_LIMITS_MAX; i++)
        if (!str_is_empty(table->limits[i]) && is_named(name, table->limits[i]))
            return true;
    return false;
}

static bool wants_options(const struct splice *s)
{
    return s->edits->include_usage && !str_is_empty(s->table->stream_options);
}

static bool edit_member(struct splice *s, const struct member *member)
{
    if (is_named(member->name, S("model"))) {
        cut(s, member->from, member->to, json_string(s->arena, s->edits->model));
        return true;
    }
    if (s->edits->max_output_tokens > 0 && is_limit(s->table, member->name))
        edit_limit(s, member);
    if (wants_options(s) && is_named(member->name, s->table->stream_options))
        return edit_options(s, member);
    return true;
}

static str added_limit(const struct splice *s)
{
    bool is_second = s->edits->is_new_limit_name && !str_is_empty(s->table->limits[1]);
    return s->table->limits[is_second ? 1 : 0];
}

/* New members go before the closing brace; a limit that is null gets its value in place. */
static void add_members(struct splice *s, size_t end, bool is_empty)
{
    struct strbuf text;
    strbuf_init(&text, s->arena, 256);
    bool needs_limit = s->edits->max_output_tokens > 0 && !s->has_limit;
    if (needs_limit && s->null_from > 0)
        cut(s, s->null_from, s->null_from + 4, str_i64(s->arena, s->edits->max_output_tokens));
    else if (needs_limit) {
        strbuf_add(&text, is_empty ? S("\"") : S(",\""));
        strbuf_add(&text, added_limit(s));
        strbuf_add(&text, S("\":"));
        strbuf_add_i64(&text, s->edits->max_output_tokens);
    }
    if (wants_options(s) && !s->has_options) {
        strbuf_add(&text, is_empty && text.len == 0 ? S("\"") : S(",\""));
        strbuf_add(&text, s->table->stream_options);
        strbuf_add(&text, S("\":{\"include_usage\":true}"));
    }
    if (text.len > 0)
        cut(s, end, end, strbuf_str(&text));
}

static str assemble(struct splice *s)
{
    size_t total = s->body.len, at = 0;
    for (size_t i = 0; i < s->cut_count; i++)
        total += s->cuts[i].text.len;
    char *out = arena_alloc_raw(s->arena, total + 1), *to = out;
    for (size_t i = 0; i <= s->cut_count; i++) {
        size_t until = i < s->cut_count ? s->cuts[i].from : s->body.len;
        memcpy(to, s->body.ptr + at, until - at);
        to += until - at;
        if (i == s->cut_count)
            break;
        memcpy(to, s->cuts[i].text.ptr, s->cuts[i].text.len);
        to += s->cuts[i].text.len;
        at = s->cuts[i].to;
    }
    return str_of(out, (size_t) (to - out));
}

bool splice_request(struct arena *arena, str body, const struct splice_table *table,
                    const struct dialect_edits *edits, str *out, struct error *e)
{
    struct splice s = {.arena = arena, .body = body, .table = table, .edits = edits};
    struct member member;
    size_t at = skip_space(body, 0);
    bool is_empty = true, is_well_formed = at < body.len && body.ptr[at] == '{';
    int found = 0;
    at++;
    while (is_well_formed && (found = next_member(body, &at, &member)) == 1) {
        is_empty = false;
        is_well_formed = edit_member(&s, &member);
    }
    if (!is_well_formed || found != 0)
        return error_set(e, REASON_JSON, "the body is not a JSON object");
    add_members(&s, at, is_empty);
    if (s.has_too_many)
        return error_set(e, REASON_JSON, "the body has a member twice");
    *out = assemble(&s);
    return true;
}
