#include "agent/permissions.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"

/* ---- reading ---- */

enum { PATTERN_BYTES_MAX = 1024 };

struct reader {
    struct arena *arena;
    const struct yaml_document *document;
    struct error *e;
};

typedef bool item_check(str item);

static bool is_host_pattern(str item)
{
    if (str_equal(item, S("*")))
        return true;
    str_strip_prefix(item, S("*."), &item);
    for (size_t i = 0; i < item.len; i++) {
        char c = item.ptr[i];
        bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '_';
        if (!is_word && c != '.' && c != ':' && c != '[' && c != ']')
            return false;
    }
    return item.len > 0 && item.len <= 253;
}

static bool is_address_pattern(str item)
{
    for (size_t i = 0; i < item.len; i++) {
        char c = item.ptr[i];
        bool is_hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
        if (!is_hex && c != '.' && c != ':' && c != '*' && c != '/')
            return false;
    }
    return item.len > 0 && item.len <= 64;
}

static bool is_word(str item)
{
    return item.len > 0 && item.len <= 64;
}

static bool is_extension(str item)
{
    return is_word(item) && item.ptr[0] == '.';
}

static bool is_path_pattern(str item)
{
    return item.len > 0 && item.len <= PATTERN_BYTES_MAX;
}

static bool read_list(const struct reader *r, const struct json *value, str name, item_check *check,
                      struct str_list *out)
{
    if (json_type(value) != JSON_ARRAY || json_count(value) > PERMISSION_LIST_MAX)
        return yaml_error(r->document, value, r->e, STR_FMT " must be a list of at most %u texts",
                          STR_ARG(name), PERMISSION_LIST_MAX);
    out->items =
        ARENA_ARRAY(r->arena, str, json_count(value) + 1); /* never NULL: an empty list is one */
    out->count = 0;
    const struct json *item;
    struct json_iter it = json_iter(value);
    while (json_next(&it, NULL, &item)) {
        str text;
        if (!json_to_str(item, &text) || !check(text))
            return yaml_error(r->document, item, r->e, "this is nothing that can stand in " STR_FMT,
                              STR_ARG(name));
        out->items[out->count++] = str_copy(r->arena, text);
    }
    return true;
}

static bool read_bytes(const struct reader *r, const struct json *value, str name, int64_t *out)
{
    str text;
    int64_t bytes = 0;
    bool is_ok = json_to_str(value, &text) ? bytes_parse(text, &bytes) : json_to_i64(value, &bytes);
    if (!is_ok || bytes <= 0)
        return yaml_error(r->document, value, r->e, STR_FMT " must be a size such as \"10MB\"",
                          STR_ARG(name));
    *out = bytes;
    return true;
}

static bool read_duration(const struct reader *r, const struct json *value, str name,
                          int64_t *out_ms)
{
    str text;
    int64_t ms = 0;
    if (!json_to_str(value, &text) || !duration_parse(text, &ms) || ms <= 0)
        return yaml_error(r->document, value, r->e, STR_FMT " must be a time such as \"30s\"",
                          STR_ARG(name));
    *out_ms = ms;
    return true;
}

static bool unknown(const struct reader *r, const struct json *value, str name, const char *known)
{
    return yaml_error(r->document, value, r->e, "unknown member " STR_FMT "; known here: %s",
                      STR_ARG(str_cut_utf8(name, 60)), known);
}

static bool need_object(const struct reader *r, const struct json *value, const char *name)
{
    return json_type(value) == JSON_OBJECT ||
           yaml_error(r->document, value, r->e, "%s must have members", name);
}

static bool read_network(const struct reader *r, const struct json *value, struct permissions *out)
{
    if (!need_object(r, value, "network"))
        return false;
    out->network.is_set = true;
    str key;
    const struct json *item;
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &item)) {
        bool is_ok;
        if (str_equal(key, S("allowed_hosts")))
            is_ok = read_list(r, item, key, is_host_pattern, &out->network.allowed_hosts);
        else if (str_equal(key, S("blocked_ips")))
            is_ok = read_list(r, item, key, is_address_pattern, &out->network.blocked_ips);
        else if (str_equal(key, S("allowed_ips")))
            is_ok = read_list(r, item, key, is_address_pattern, &out->network.allowed_ips);
        else if (str_equal(key, S("max_response_size")))
            is_ok = read_bytes(r, item, key, &out->network.max_response_bytes);
        else if (str_equal(key, S("timeout")))
            is_ok = read_duration(r, item, key, &out->network.timeout_ms);
        else
            is_ok = unknown(r, item, key,
                            "allowed_hosts, blocked_ips, allowed_ips, max_response_size, timeout");
        if (!is_ok)
            return false;
    }
    return true;
}

static bool read_paths(const struct reader *r, const struct json *value, struct permissions *out)
{
    if (!need_object(r, value, "paths"))
        return false;
    out->paths.is_set = true;
    str key;
    const struct json *item;
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &item)) {
        struct str_list *list = str_equal(key, S("read"))      ? &out->paths.read
                                : str_equal(key, S("write"))   ? &out->paths.write
                                : str_equal(key, S("execute")) ? &out->paths.execute
                                                               : NULL;
        if (!list)
            return unknown(r, item, key, "read, write, execute");
        if (!read_list(r, item, key, is_path_pattern, list))
            return false;
    }
    return true;
}

static bool read_member(const struct reader *r, str key, const struct json *item,
                        struct permissions *out)
{
    if (str_equal(key, S("network")))
        return read_network(r, item, out);
    if (str_equal(key, S("paths")))
        return read_paths(r, item, out);
    if (str_equal(key, S("max_file_size")))
        return read_bytes(r, item, key, &out->max_file_bytes);
    if (str_equal(key, S("allowed_extensions")))
        return read_list(r, item, key, is_extension, &out->allowed_extensions);
    if (str_equal(key, S("languages")))
        return read_list(r, item, key, is_word, &out->languages);
    if (str_equal(key, S("max_cpu_time")))
        return read_duration(r, item, key, &out->max_cpu_time_ms);
    if (str_equal(key, S("max_memory")))
        return read_bytes(r, item, key, &out->max_memory_bytes);
    if (!str_equal(key, S("network_access")))
        return unknown(r, item, key,
                       "network, paths, max_file_size, allowed_extensions, languages, "
                       "max_cpu_time, max_memory, "
                       "network_access");
    out->is_network_access_set = true;
    return json_to_bool(item, &out->network_access) ||
           yaml_error(r->document, item, r->e, "network_access is true or false");
}

bool permissions_read(struct arena *arena, const struct yaml_document *document,
                      const struct json *value, struct permissions *out, struct error *e)
{
    struct reader r = {.arena = arena, .document = document, .e = e};
    struct permissions permissions = {0};
    if (!need_object(&r, value, "permissions"))
        return false;
    str key;
    const struct json *item;
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &item))
        if (!read_member(&r, key, item, &permissions))
            return false;
    *out = permissions;
    return true;
}

/* ---- intersecting ---- */

typedef bool pattern_covers(str wide, str narrow);

static bool covers_same(str wide, str narrow)
{
    return str_equal_nocase(wide, narrow);
}

static bool covers_host(str wide, str narrow)
{
    if (str_equal(wide, S("*")) || str_equal_nocase(wide, narrow))
        return true;
    str domain;
    if (!str_strip_prefix(wide, S("*"), &domain) || narrow.len <= domain.len)
        return false;
    return str_equal_nocase(str_from(narrow, narrow.len - domain.len), domain);
}

/* '*' stands for any run of characters. */
static bool glob_matches(str pattern, str text)
{
    size_t p = 0, t = 0, star = STR_NOT_FOUND, mark = 0;
    while (t < text.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.len && pattern.ptr[p] == text.ptr[t]) {
            p++;
            t++;
        } else if (star != STR_NOT_FOUND) {
            p = star + 1;
            t = ++mark;
        } else {
            return false;
        }
    }
    while (p < pattern.len && pattern.ptr[p] == '*')
        p++;
    return p == pattern.len;
}

static void keep_covered(const struct str_list *from, const struct str_list *by,
                         pattern_covers *covers, struct str_list *out)
{
    for (size_t i = 0; i < from->count; i++) {
        bool is_covered = false, is_there = false;
        for (size_t j = 0; j < by->count && !is_covered; j++)
            is_covered = covers(by->items[j], from->items[i]);
        for (size_t j = 0; j < out->count && !is_there; j++)
            is_there = str_equal(out->items[j], from->items[i]);
        if (is_covered && !is_there)
            out->items[out->count++] = from->items[i];
    }
}

/* What both lists let through: of each the patterns that lie within one of the other. */
static struct str_list intersect_lists(struct arena *arena, struct str_list a, struct str_list b,
                                       pattern_covers *covers)
{
    if (a.count == 0 && b.items)
        return b;
    if (!b.items)
        return a;
    struct str_list out = {.items = ARENA_ARRAY(arena, str, a.count + b.count + 1)};
    keep_covered(&a, &b, covers, &out);
    keep_covered(&b, &a, covers, &out);
    return out;
}

static struct str_list join_lists(struct arena *arena, struct str_list a, struct str_list b)
{
    if (!a.items || !b.items)
        return a.items ? a : b;
    struct str_list out = {.items = ARENA_ARRAY(arena, str, a.count + b.count + 1)};
    keep_covered(&a, &a, covers_same, &out);
    keep_covered(&b, &b, covers_same, &out);
    return out;
}

/* 0 is "not set". */
static int64_t smaller(int64_t a, int64_t b)
{
    if (a == 0 || b == 0)
        return a + b;
    return a < b ? a : b;
}

struct permissions permissions_intersect(struct arena *arena, const struct permissions *a,
                                         const struct permissions *b)
{
    struct permissions out = {0};
    out.network.is_set = a->network.is_set || b->network.is_set;
    out.network.allowed_hosts =
        intersect_lists(arena, a->network.allowed_hosts, b->network.allowed_hosts, covers_host);
    out.network.blocked_ips = join_lists(arena, a->network.blocked_ips, b->network.blocked_ips);
    out.network.allowed_ips = b->network.allowed_ips;
    out.network.max_response_bytes =
        smaller(a->network.max_response_bytes, b->network.max_response_bytes);
    out.network.timeout_ms = smaller(a->network.timeout_ms, b->network.timeout_ms);
    out.paths.is_set = a->paths.is_set || b->paths.is_set;
    out.paths.read = intersect_lists(arena, a->paths.read, b->paths.read, glob_matches);
    out.paths.write = intersect_lists(arena, a->paths.write, b->paths.write, glob_matches);
    out.paths.execute = intersect_lists(arena, a->paths.execute, b->paths.execute, glob_matches);
    out.max_file_bytes = smaller(a->max_file_bytes, b->max_file_bytes);
    out.allowed_extensions =
        intersect_lists(arena, a->allowed_extensions, b->allowed_extensions, covers_same);
    out.languages = intersect_lists(arena, a->languages, b->languages, covers_same);
    out.max_cpu_time_ms = smaller(a->max_cpu_time_ms, b->max_cpu_time_ms);
    out.max_memory_bytes = smaller(a->max_memory_bytes, b->max_memory_bytes);
    out.is_network_access_set = a->is_network_access_set || b->is_network_access_set;
    out.network_access = (a->network_access || !a->is_network_access_set) &&
                         (b->network_access || !b->is_network_access_set) &&
                         out.is_network_access_set;
    return out;
}

bool permissions_allow_read(const struct permissions *permissions, str name)
{
    const struct str_list *read = &permissions->paths.read,
                          *extensions = &permissions->allowed_extensions;
    bool is_granted = !permissions->paths.is_set;
    for (size_t i = 0; i < read->count && !is_granted; i++)
        is_granted = glob_matches(read->items[i], name);
    if (!is_granted || !extensions->items)
        return is_granted;
    for (size_t i = 0; i < extensions->count; i++) {
        str extension = extensions->items[i];
        if (name.len > extension.len &&
            str_equal_nocase(str_from(name, name.len - extension.len), extension))
            return true;
    }
    return false;
}

/* ---- writing: in a form that permissions_read takes ---- */

static void put_list(struct json_writer *w, str name, const struct str_list *list)
{
    if (!list->items)
        return;
    json_key(w, name);
    json_array_begin(w);
    for (size_t i = 0; i < list->count; i++)
        json_write_str(w, list->items[i]);
    json_array_end(w);
}

static void put_bytes(struct json_writer *w, str name, int64_t bytes)
{
    if (bytes > 0)
        json_put_i64(w, name, bytes);
}

static void put_duration(struct json_writer *w, str name, int64_t ms)
{
    OWNED(arena) arena = arena_create(0);
    if (ms > 0)
        json_put_str(w, name, str_printf(arena, "%lldms", (long long) ms));
}

static void write_network(struct json_writer *w, const struct permissions *permissions)
{
    json_key(w, S("network"));
    json_object_begin(w);
    put_list(w, S("allowed_hosts"), &permissions->network.allowed_hosts);
    put_list(w, S("blocked_ips"), &permissions->network.blocked_ips);
    put_list(w, S("allowed_ips"), &permissions->network.allowed_ips);
    put_bytes(w, S("max_response_size"), permissions->network.max_response_bytes);
    put_duration(w, S("timeout"), permissions->network.timeout_ms);
    json_object_end(w);
}

static void write_paths(struct json_writer *w, const struct permissions *permissions)
{
    json_key(w, S("paths"));
    json_object_begin(w);
    put_list(w, S("read"), &permissions->paths.read);
    put_list(w, S("write"), &permissions->paths.write);
    put_list(w, S("execute"), &permissions->paths.execute);
    json_object_end(w);
}

void permissions_write_json(struct json_writer *w, const struct permissions *permissions)
{
    json_object_begin(w);
    if (permissions->network.is_set)
        write_network(w, permissions);
    if (permissions->paths.is_set)
        write_paths(w, permissions);
    put_bytes(w, S("max_file_size"), permissions->max_file_bytes);
    put_list(w, S("allowed_extensions"), &permissions->allowed_extensions);
    put_list(w, S("languages"), &permissions->languages);
    put_duration(w, S("max_cpu_time"), permissions->max_cpu_time_ms);
    put_bytes(w, S("max_memory"), permissions->max_memory_bytes);
    if (permissions->is_network_access_set)
        json_put_bool(w, S("network_access"), permissions->network_access);
    json_object_end(w);
}
