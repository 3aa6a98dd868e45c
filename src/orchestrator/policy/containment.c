#include "orchestrator/policy/containment.h"
#include "base/arena.h"
#include "base/limits.h"
#include "net/http.h"

static const char *const verdict_names[] = {
    [CONTAINMENT_ALLOW] = "allow",
    [CONTAINMENT_NEEDS_APPROVAL] = "needs_approval",
    [CONTAINMENT_DENY] = "deny",
};

const char *containment_verdict_name(enum containment_verdict verdict)
{
    return verdict_names[verdict];
}

struct containment containment_defaults(void)
{
    return (struct containment){
        .mode = CONTAINMENT_ENFORCE,
        .links_max = CONTAINMENT_LINKS,
        .approvals_max = CONTAINMENT_APPROVALS,
    };
}

struct containment containment_copy(struct arena *arena, const struct containment *from)
{
    struct containment copy = *from;
    struct containment_rule *rules =
        ARENA_ARRAY(arena, struct containment_rule, from->rule_count + 1);
    str *inside = ARENA_ARRAY(arena, str, from->inside_count + 1);
    for (size_t i = 0; i < from->rule_count; i++) {
        rules[i] = from->rules[i];
        rules[i].name = str_copy(arena, from->rules[i].name);
        rules[i].tool = str_copy(arena, from->rules[i].tool);
        rules[i].category = str_copy(arena, from->rules[i].category);
        rules[i].host = str_copy(arena, from->rules[i].host);
        rules[i].agent = str_copy(arena, from->rules[i].agent);
    }
    for (size_t i = 0; i < from->inside_count; i++)
        inside[i] = str_copy(arena, from->inside[i]);
    copy.rules = rules;
    copy.inside = inside;
    return copy;
}

struct label context_label(const struct context_view *view)
{
    struct label label = {0};
    for (size_t i = 0; i < view->count; i++)
        label = label_join(label, view->items[i].label);
    return label;
}

/* ---- words of a text ---- */

static bool is_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* Could the URL of a text go on with it?  A backslash ends one: it begins an escape of the JSON that texts often are. */
static bool ends_url(char c)
{
    return (unsigned char) c <= ' ' || c == '"' || c == '\'' || c == '<' || c == '>' || c == '`' ||
           c == ')' || c == ']' || c == '}' || c == '|' || c == '\\' || c == '^' || c == '{';
}

/* Full stops and their like after a URL belong to the sentence when the URL ends there. */
static bool ends_url_at(str text, size_t at)
{
    while (at < text.len && memchr(".,;:!?*_", text.ptr[at], 8))
        at++;
    return at >= text.len || ends_url(text.ptr[at]);
}

static bool is_url_start(str text, size_t at)
{
    return at == 0 || !(is_alnum(text.ptr[at - 1]) || memchr("+-.%/", text.ptr[at - 1], 5));
}

/* Next occurrence from `at`; STR_NOT_FOUND. */
static size_t find_from(str text, str needle, size_t at)
{
    size_t found = at > text.len ? STR_NOT_FOUND : str_find(str_from(text, at), needle);
    return found == STR_NOT_FOUND ? found : at + found;
}

bool text_holds_url(str text, str url)
{
    if (url.len == 0)
        return false;
    for (size_t at = 0; (at = find_from(text, url, at)) != STR_NOT_FOUND; at++)
        if (is_url_start(text, at) && ends_url_at(text, at + url.len))
            return true;
    return false;
}

static bool is_host_char(char c)
{
    return is_alnum(c) || c == '-' || c == '_' || c == '%' || c == '@';
}

/* Last labels that are also endings of files: "notes.md" in a sentence names a file. */
static bool looks_like_file(str host)
{
    static const char *const endings[] = {".md", ".zip", ".mov", ".py",  ".sh",  ".rs",  ".pl",
                                          ".ps", ".cc",  ".so",  ".app", ".bat", ".java"};
    for (size_t i = 0; i < ARRAY_COUNT(endings); i++)
        if (str_ends_with(host, str_from_cstr(endings[i])))
            return true;
    return false;
}

static bool host_starts_at(str text, size_t at, bool *has_scheme)
{
    *has_scheme = at >= 3 && str_equal(str_of(text.ptr + at - 3, 3), S("://"));
    return *has_scheme || at == 0 ||
           !(is_host_char(text.ptr[at - 1]) || text.ptr[at - 1] == '.' || text.ptr[at - 1] == '/');
}

/* "example.org." ends a sentence; "example.org.evil.test" is another host. */
static bool host_ends_at(str text, size_t at, bool *has_path)
{
    *has_path = at < text.len && (text.ptr[at] == '/' || text.ptr[at] == ':');
    if (at >= text.len)
        return true;
    if (text.ptr[at] == '.')
        return at + 1 >= text.len || !is_alnum(text.ptr[at + 1]);
    if (text.ptr[at] == ':')
        return at + 1 >= text.len || !is_alnum(text.ptr[at + 1]);
    return !is_host_char(text.ptr[at]);
}

static size_t find_nocase(str text, str needle, size_t from)
{
    for (size_t at = from; at + needle.len <= text.len; at++)
        if (str_equal_nocase(str_of(text.ptr + at, needle.len), needle))
            return at;
    return STR_NOT_FOUND;
}

static bool holds_authority(str text, str authority)
{
    bool is_plain = str_find_char(authority, '.') != STR_NOT_FOUND && !looks_like_file(authority);
    for (size_t at = 0; (at = find_nocase(text, authority, at)) != STR_NOT_FOUND; at++) {
        bool has_scheme, has_path;
        if (host_starts_at(text, at, &has_scheme) &&
            host_ends_at(text, at + authority.len, &has_path) &&
            (is_plain || has_scheme || has_path))
            return true;
    }
    return false;
}

/* "example.org:8080" as it stands in the URL; without a port for the usual one. */
static str authority_of(str url)
{
    size_t from = str_find(url, S("://"));
    if (from == STR_NOT_FOUND)
        return STR_NONE;
    str rest = str_from(url, from + 3);
    size_t end = 0;
    while (end < rest.len && rest.ptr[end] != '/' && rest.ptr[end] != '?' && rest.ptr[end] != '#')
        end++;
    return str_slice(rest, 0, end);
}

bool text_holds_host(str text, str url)
{
    struct http_url parsed;
    if (!http_url_parse(url, &parsed, NULL))
        return false;
    str authority = authority_of(url);
    if (holds_authority(text, authority))
        return true;
    bool is_usual = parsed.port == (parsed.is_tls ? 443 : 80);
    return is_usual && holds_authority(text, parsed.host);
}

/* ---- whose words ---- */

static bool is_named_text(const struct context_item *item)
{
    return !item->label.is_untrusted && !item->label.is_private && !item->is_made;
}

static bool any_text(const struct context_view *view, bool (*counts)(const struct context_item *),
                     bool (*holds)(str text, str needle), str needle)
{
    for (size_t i = 0; i < view->count; i++)
        for (size_t j = 0; counts(&view->items[i]) && j < view->items[i].text_count; j++)
            if (holds(view->items[i].texts[j], needle))
                return true;
    return false;
}

static bool is_public(const struct context_item *item)
{
    return !item->label.is_private && !item->is_made;
}

/* A text of the arguments that is a word, or several, of a trusted one. */
static bool holds_words(str text, str words)
{
    if (words.len == 0)
        return true;
    for (size_t at = 0; (at = find_from(text, words, at)) != STR_NOT_FOUND; at++) {
        size_t end = at + words.len;
        bool begins = at == 0 || !is_alnum(text.ptr[at - 1]) || !is_alnum(words.ptr[0]);
        bool ends =
            end >= text.len || !is_alnum(text.ptr[end]) || !is_alnum(words.ptr[words.len - 1]);
        if (begins && ends)
            return true;
    }
    return false;
}

/* "/book/ch2.html" or "ch2.html" as an attribute or a Markdown target of a page of the same host. */
static bool holds_reference(str text, str reference)
{
    for (size_t at = 0; (at = find_from(text, reference, at)) != STR_NOT_FOUND; at++)
        if (at > 0 && memchr("\"'=(<", text.ptr[at - 1], 5) &&
            ends_url_at(text, at + reference.len))
            return true;
    return false;
}

static bool is_link_of_page(const struct context_item *page, const struct http_url *url)
{
    struct http_url base;
    if (!is_public(page) || !http_url_parse(page->source, &base, NULL) ||
        !str_equal_nocase(base.host, url->host) || base.port != url->port ||
        base.is_tls != url->is_tls)
        return false;
    size_t slash = base.path_query.len;
    str path = base.path_query;
    size_t query = str_find_char(path, '?');
    if (query != STR_NOT_FOUND)
        slash = query;
    while (slash > 0 && path.ptr[slash - 1] != '/')
        slash--;
    str folder = str_slice(path, 0, slash), relative = STR_NONE;
    bool is_below = str_strip_prefix(url->path_query, folder, &relative) && relative.len > 0;
    for (size_t i = 0; i < page->text_count; i++)
        if (holds_reference(page->texts[i], url->path_query) ||
            (is_below && holds_reference(page->texts[i], relative)))
            return true;
    return false;
}

/* Does the URL stand in a text that is not private, whole or as a reference of a page of its host? */
static bool is_link(const struct context_view *view, str url)
{
    struct http_url parsed;
    if (any_text(view, is_public, text_holds_url, url))
        return true;
    if (!http_url_parse(url, &parsed, NULL))
        return false;
    for (size_t i = 0; i < view->count; i++)
        if (is_link_of_page(&view->items[i], &parsed))
            return true;
    return false;
}

static bool is_named_url(const struct context_view *view, str url)
{
    return any_text(view, is_named_text, text_holds_url, url);
}

/* Pages that were opened without anybody's having named them. */
static int64_t count_links(const struct context_view *view)
{
    int64_t count = 0;
    for (size_t i = 0; i < view->count; i++)
        count += (view->items[i].label.origins & LABEL_WEB) &&
                 str_find(view->items[i].source, S("://")) != STR_NOT_FOUND &&
                 !is_named_url(view, view->items[i].source);
    return count;
}

/* ---- hosts ---- */

static bool host_matches(str pattern, str host)
{
    str suffix;
    if (str_strip_prefix(pattern, S("*."), &suffix))
        return host.len > suffix.len + 1 && host.ptr[host.len - suffix.len - 1] == '.' &&
               str_equal_nocase(str_from(host, host.len - suffix.len), suffix);
    return str_equal_nocase(pattern, host);
}

bool containment_is_inside(const struct containment *rules, str url)
{
    struct http_url parsed;
    if (!http_url_parse(url, &parsed, NULL))
        return false;
    for (size_t i = 0; i < rules->inside_count; i++)
        if (host_matches(rules->inside[i], parsed.host))
            return true;
    return false;
}

/* ---- the request of a network tool ---- */

/* Headers that say nothing: any other one is a place to hide a word. */
static bool is_plain_header(str name, str value)
{
    static const str names[] = {S_INIT("accept"), S_INIT("content-type")};
    static const str values[] = {
        S_INIT("*/*"),
        S_INIT("application/json"),
        S_INIT("application/json; charset=utf-8"),
        S_INIT("application/xml"),
        S_INIT("text/html"),
        S_INIT("text/plain"),
        S_INIT("text/csv"),
    };
    bool is_known = false;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        is_known = is_known || str_equal_nocase(name, names[i]);
    for (size_t i = 0; is_known && i < ARRAY_COUNT(values); i++)
        if (str_equal_nocase(value, values[i]))
            return true;
    return false;
}

struct request {
    str url;
    bool is_reading;  /* GET or HEAD */
    bool has_payload; /* a body, a header that may carry words, a member nobody knows */
};

static bool headers_are_plain(const struct json *headers)
{
    struct json_iter it = json_iter(headers);
    const struct json *item;
    str name, value;
    while (json_next(&it, &name, &item))
        if (!json_to_str(item, &value) || !is_plain_header(name, value))
            return false;
    return headers == NULL || json_type(headers) == JSON_OBJECT;
}

static struct request request_of(const struct json *arguments)
{
    str method = json_str_or(arguments, S("method"), S("GET")), key;
    struct request request = {
        .url = json_str_or(arguments, S("url"), STR_NONE),
        .is_reading = str_equal(method, S("GET")) || str_equal(method, S("HEAD")),
        .has_payload = !headers_are_plain(json_get(arguments, S("headers"))),
    };
    struct json_iter it = json_iter(arguments);
    const struct json *spelt = json_get(arguments, S("method")), *item;
    if (spelt && json_type(spelt) != JSON_STRING)
        request.has_payload = true;
    while (json_next(&it, &key, &item))
        if (!str_equal(key, S("url")) && !str_equal(key, S("method")) &&
            !str_equal(key, S("headers")))
            request.has_payload = true;
    return request;
}

/* ---- deciding ---- */

static int64_t limit_or(int64_t given, int64_t otherwise)
{
    return given > 0 ? given : otherwise;
}

struct question {
    const struct containment *rules;
    struct arena *arena;
    const struct containment_input *input;
    const struct json *arguments;
    struct containment_decision *out;
    bool is_untrusted, is_private;
};

static void answer(struct question *q, enum containment_verdict verdict, const char *rule,
                   str reason)
{
    q->out->verdict = verdict;
    q->out->rule = str_from_cstr(rule);
    q->out->reason = reason;
}

static void pass(struct question *q, const char *rule, const char *reason)
{
    answer(q, CONTAINMENT_ALLOW, rule, str_from_cstr(reason));
}

/* What a person may allow; where nobody can be asked, or has been asked too often, it is refused. */
static void ask(struct question *q, const char *rule, const char *what)
{
    const struct containment_input *input = q->input;
    bool is_tiring =
        input->asked_before >= limit_or(q->rules->approvals_max, CONTAINMENT_APPROVALS);
    bool can_ask = input->may_ask && !is_tiring;
    str reason =
        str_printf(q->arena, "tool \"" STR_FMT "\": %s, while the context holds %s%s%s%s",
                   STR_ARG(input->tool->name), what, q->is_untrusted ? "untrusted" : "",
                   q->is_untrusted && q->is_private ? " and " : "", q->is_private ? "private" : "",
                   can_ask     ? " text; a person decides"
                   : is_tiring ? " text; persons have been asked often enough in this run"
                               : " text, and nobody can be asked here");
    answer(q, can_ask ? CONTAINMENT_NEEDS_APPROVAL : CONTAINMENT_DENY, rule, reason);
}

static bool is_workspace_tool(const struct tool *tool)
{
    return tool->host_call_count == 1 && tool_may_call(tool, S("file_system"));
}

/* Reading and writing below the caller's own workspace stays there, and what is read comes back with its label. */
static void decide_workspace(struct question *q)
{
    str operation = json_str_or(q->arguments, S("operation"), STR_NONE);
    str path = json_str_or(q->arguments, S("path"), STR_NONE);
    if (!str_equal(operation, S("delete")))
        pass(q, "own_workspace", "it stays in the caller's own workspace");
    else if (any_text(&q->input->view, is_named_text, holds_words, path) && path.len > 0)
        pass(q, "own_workspace", "the path to delete was named by the person");
    else
        ask(q, "workspace_delete", "it would delete a file that no trusted text names");
}

static void decide_system(struct question *q)
{
    if (is_workspace_tool(q->input->tool))
        decide_workspace(q);
    else
        ask(q, "system_tool", "a system tool would be called");
}

static bool is_named_word(struct question *q, str word)
{
    str quoted = str_printf(q->arena, "\"" STR_FMT "\"", STR_ARG(word));
    return any_text(&q->input->view, is_named_text, holds_words, word) ||
           str_find(q->input->tool->input_schema, quoted) != STR_NOT_FOUND;
}

/* Does the schema, or one of its choices, allow a value of that type? */
static bool schema_allows(const struct json *schema, str type, int depth)
{
    static const str choices[] = {S_INIT("anyOf"), S_INIT("oneOf")};
    const struct json *own = json_get(schema, S("type")), *item;
    str name;
    if (json_to_str(own, &name) && str_equal(name, type))
        return true;
    struct json_iter it = json_iter(json_type(own) == JSON_ARRAY ? own : NULL);
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &name) && str_equal(name, type))
            return true;
    for (size_t i = 0; depth > 0 && i < ARRAY_COUNT(choices); i++) {
        it = json_iter(json_get(schema, choices[i]));
        while (json_next(&it, NULL, &item))
            if (schema_allows(item, type, depth - 1))
                return true;
    }
    return false;
}

/* What the schema, or the first of its choices that knows it, says of a member (of an object) or of the items (of an array: no key). */
static const struct json *schema_of(const struct json *schema, const str *key, int depth)
{
    static const str choices[] = {S_INIT("anyOf"), S_INIT("oneOf")};
    const struct json *item, *found = key ? json_get(json_get(schema, S("properties")), *key)
                                          : json_get(schema, S("items"));
    for (size_t i = 0; !found && depth > 0 && i < ARRAY_COUNT(choices); i++) {
        struct json_iter it = json_iter(json_get(schema, choices[i]));
        while (!found && json_next(&it, NULL, &item))
            found = schema_of(item, key, depth - 1);
    }
    return found;
}

static bool is_in_schema(const struct json *schema, const char *type)
{
    return schema_allows(schema, str_from_cstr(type), CONTAINMENT_SCHEMA_DEPTH_MAX);
}

/*
 * Every text and number is a trusted text's own; keys as well, since a key may carry a word.  What is no word may still say something by
 * its number, order and shape: so there are few values of all kinds together, and true, false and null stand only where the tool's schema
 * has such a member.  Depth is bounded by the parser.
 */
static bool are_named_words(struct question *q, const struct json *value, const struct json *schema,
                            int *left)
{
    struct json_iter it = json_iter(value);
    const struct json *item;
    str key, text;
    if (--*left < 0)
        return false;
    switch (json_type(value)) {
    case JSON_STRING: return json_to_str(value, &text) && is_named_word(q, text);
    case JSON_INTEGER:
    case JSON_REAL: return is_named_word(q, json_print(q->arena, value));
    case JSON_BOOL: return is_in_schema(schema, "boolean");
    case JSON_NULL: return is_in_schema(schema, "null");
    case JSON_OBJECT:
        while (json_next(&it, &key, &item))
            if (!is_named_word(q, key) ||
                !are_named_words(q, item, schema_of(schema, &key, CONTAINMENT_SCHEMA_DEPTH_MAX),
                                 left))
                return false;
        return true;
    case JSON_ARRAY:
        while (json_next(&it, NULL, &item))
            if (!are_named_words(q, item, schema_of(schema, NULL, CONTAINMENT_SCHEMA_DEPTH_MAX),
                                 left))
                return false;
        return true;
    case JSON_ABSENT: break;
    }
    return false;
}

static void decide_words(struct question *q)
{
    const struct json *schema = NULL;
    struct error unread = {0};
    int left = CONTAINMENT_WORDS_MAX;
    if (!json_parse(q->arena, q->input->tool->input_schema, (struct json_limits){0}, &schema,
                    &unread))
        schema = NULL;
    if (are_named_words(q, q->arguments, schema, &left)) {
        q->out->arguments = (struct label){.origins = LABEL_USER};
        pass(q, "named_words", "every word that it would send is one of the person's own");
    } else {
        ask(q, q->is_private ? "private_out" : "unnamed_words",
            "it would send words that are not the person's own");
    }
}

static void decide_request(struct question *q, const struct request *request)
{
    const struct context_view *view = &q->input->view;
    bool is_out = !containment_is_inside(q->rules, request->url);
    bool is_named = is_named_url(view, request->url);
    bool is_host_named = any_text(view, is_named_text, text_holds_host, request->url);
    bool is_bare_reading = request->is_reading && !request->has_payload;
    if (is_named && is_bare_reading) {
        q->out->arguments = (struct label){.origins = LABEL_USER};
        pass(q, "named_url", "the whole address stands in trusted text and nothing else is sent");
    } else if (q->is_private && is_out) {
        ask(q, "private_out", "it would send words that may be private to another host");
    } else if (!request->is_reading && !is_named) {
        ask(q, "unnamed_change", "it would change something at an address nobody named");
    } else if (is_host_named) {
        pass(q, "named_host", "the host was named in trusted text");
    } else if (is_out && is_bare_reading && is_link(view, request->url) &&
               count_links(view) < limit_or(q->rules->links_max, CONTAINMENT_LINKS)) {
        pass(q, "public_link", "the address stands whole in a text that is public");
    } else {
        ask(q, "unnamed_host", "it would send words to a host that no trusted text names");
    }
}

static bool is_sink(const struct tool *tool)
{
    return tool->is_sink || (tool->source == TOOL_FROM_MCP && !tool->is_pure);
}

static bool is_network_tool(const struct tool *tool)
{
    return tool_may_call(tool, S("http_request")) || tool_may_call(tool, S("web_extract"));
}

static void decide_by_defaults(struct question *q)
{
    const struct tool *tool = q->input->tool;
    struct request request = request_of(q->arguments);
    if (!q->is_untrusted)
        pass(q, "trusted_context", "nothing untrusted is in the context");
    else if (str_equal(tool->category, S("system")))
        decide_system(q);
    else if (!is_sink(tool))
        pass(q, "no_sink", "the tool sends and changes nothing");
    else if (is_network_tool(tool) && request.url.len > 0)
        decide_request(q, &request);
    else
        decide_words(q);
}

static bool rule_matches(const struct question *q, const struct containment_rule *rule)
{
    const struct tool *tool = q->input->tool;
    str url = json_str_or(q->arguments, S("url"), STR_NONE);
    struct http_url parsed;
    bool is_time = rule->when == CONTAINMENT_ALWAYS ||
                   (rule->when == CONTAINMENT_WHEN_UNTRUSTED && q->is_untrusted) ||
                   (rule->when == CONTAINMENT_WHEN_PRIVATE && q->is_untrusted && q->is_private);
    bool is_host = str_is_empty(rule->host) ||
                   (http_url_parse(url, &parsed, NULL) && host_matches(rule->host, parsed.host));
    return is_time && is_host && (str_is_empty(rule->tool) || str_equal(rule->tool, tool->name)) &&
           (str_is_empty(rule->category) || str_equal(rule->category, tool->category)) &&
           (str_is_empty(rule->agent) || str_equal(rule->agent, q->input->agent));
}

static void apply_rule(struct question *q, const struct containment_rule *rule)
{
    str reason =
        str_printf(q->arena, "rule \"" STR_FMT "\" of the configuration", STR_ARG(rule->name));
    if (rule->verdict == CONTAINMENT_NEEDS_APPROVAL) {
        ask(q, "", "a rule of the configuration wants a person to decide");
        q->out->rule = rule->name;
        return;
    }
    q->out->verdict = rule->verdict;
    q->out->rule = rule->name;
    q->out->reason = reason;
}

/* Oldest first: who brought in what was not there before, and all that are untrusted up to a bound. */
static void trace(struct question *q)
{
    const struct context_view *view = &q->input->view;
    q->out->because = ARENA_ARRAY(q->arena, const struct context_item *, CONTAINMENT_TRACE_MAX + 1);
    for (size_t i = 0; i < view->count && q->out->because_count < CONTAINMENT_TRACE_MAX; i++) {
        const struct context_item *item = &view->items[i];
        if (item->label.is_untrusted || item->label.is_private)
            q->out->because[q->out->because_count++] = item;
    }
}

static bool decide_by_rules(struct question *q)
{
    for (size_t i = 0; i < q->rules->rule_count; i++)
        if (rule_matches(q, &q->rules->rules[i])) {
            apply_rule(q, &q->rules->rules[i]);
            return true;
        }
    return false;
}

void containment_decide(const struct containment *rules, struct arena *arena,
                        const struct containment_input *input, struct containment_decision *out)
{
    struct question q = {.rules = rules, .arena = arena, .input = input, .out = out};
    struct error e = {0};
    *out = (struct containment_decision){.context = context_label(&input->view)};
    out->arguments = out->context;
    q.is_untrusted = out->context.is_untrusted;
    q.is_private = out->context.is_private;
    if (rules->mode == CONTAINMENT_OFF)
        pass(&q, "off", "containment is switched off by the configuration");
    else if (!str_is_empty(input->approver))
        pass(&q, "approved", "a person approved exactly this call");
    else if (!json_parse(arena, input->arguments, (struct json_limits){0}, &q.arguments, &e))
        ask(&q, "unreadable", "its arguments cannot be read");
    else if (!decide_by_rules(&q))
        decide_by_defaults(&q);
    if (out->context.is_untrusted)
        trace(&q);
    if (rules->mode == CONTAINMENT_OBSERVE && out->verdict != CONTAINMENT_ALLOW) {
        out->reason = str_printf(arena, "only observed, would be %s: " STR_FMT,
                                 containment_verdict_name(out->verdict), STR_ARG(out->reason));
        out->verdict = CONTAINMENT_ALLOW;
    }
}

bool containment_may_link(const struct containment *rules, const struct context_view *view, str url)
{
    struct label label = context_label(view);
    if (!label.is_untrusted || rules->mode != CONTAINMENT_ENFORCE || rules->keeps_links)
        return true;
    if (is_named_url(view, url))
        return true;
    if (label.is_private)
        return false;
    return is_link(view, url) || any_text(view, is_named_text, text_holds_host, url);
}
