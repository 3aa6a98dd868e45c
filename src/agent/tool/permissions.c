#include "agent/tool/permissions.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include <stddef.h>

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

bool permissions_read_narrowing(struct arena *arena, const struct yaml_document *document,
                                const struct json *value, struct permissions *out, struct error *e)
{
    if (!permissions_read(arena, document, value, out, e))
        return false;
    return !out->network.allowed_ips.items ||
           yaml_error(document, json_get(json_get(value, S("network")), S("allowed_ips")), e,
                      "allowed_ips stands in the operator's configuration only");
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

/* ---- the values: one table says how each is combined ---- */

enum value_kind {
    VALUE_LIST,      /* left out: nothing */
    VALUE_OPEN,      /* a list; left out: anything */
    VALUE_UNION,     /* a list of what is forbidden */
    VALUE_OPERATORS, /* a list that only the configuration has */
    VALUE_BYTES,     /* the smaller one */
    VALUE_TIME,
    VALUE_FLAG, /* both */
};
static const struct value_row {
    const char *name;
    enum value_kind kind;
    size_t offset;
    pattern_covers *covers;
} value_rows[PERMISSION_VALUE_COUNT] = {
    {"network.allowed_hosts", VALUE_LIST, offsetof(struct permissions, network.allowed_hosts),
     covers_host},
    {"network.blocked_ips", VALUE_UNION, offsetof(struct permissions, network.blocked_ips),
     covers_same},
    {"network.allowed_ips", VALUE_OPERATORS, offsetof(struct permissions, network.allowed_ips),
     covers_same},
    {"network.max_response_size", VALUE_BYTES,
     offsetof(struct permissions, network.max_response_bytes), NULL},
    {"network.timeout", VALUE_TIME, offsetof(struct permissions, network.timeout_ms), NULL},
    {"paths.read", VALUE_LIST, offsetof(struct permissions, paths.read), glob_matches},
    {"paths.write", VALUE_LIST, offsetof(struct permissions, paths.write), glob_matches},
    {"paths.execute", VALUE_LIST, offsetof(struct permissions, paths.execute), glob_matches},
    {"max_file_size", VALUE_BYTES, offsetof(struct permissions, max_file_bytes), NULL},
    {"allowed_extensions", VALUE_OPEN, offsetof(struct permissions, allowed_extensions),
     covers_same},
    {"languages", VALUE_LIST, offsetof(struct permissions, languages), covers_same},
    {"max_cpu_time", VALUE_TIME, offsetof(struct permissions, max_cpu_time_ms), NULL},
    {"max_memory", VALUE_BYTES, offsetof(struct permissions, max_memory_bytes), NULL},
    {"network_access", VALUE_FLAG, offsetof(struct permissions, network_access), NULL},
};

static const struct str_list *list_of(const struct permissions *permissions,
                                      const struct value_row *row)
{
    return (const struct str_list *) ((const char *) permissions + row->offset);
}

static int64_t number_of(const struct permissions *permissions, const struct value_row *row)
{
    return *(const int64_t *) ((const char *) permissions + row->offset);
}

static bool is_list(const struct value_row *row)
{
    return row->kind <= VALUE_OPERATORS;
}

/* What a level that may only narrow leaves of a list. */
static struct str_list narrow_list(struct arena *arena, const struct value_row *row,
                                   struct str_list base, struct str_list by)
{
    if (row->kind == VALUE_UNION)
        return join_lists(arena, base, by);
    if (!by.items || row->kind == VALUE_OPERATORS)
        return base;
    if (!base.items)
        return row->kind == VALUE_OPEN ? by : base;
    return base.count == 0 ? base : intersect_lists(arena, base, by, row->covers);
}

static struct str_list grant_list(struct arena *arena, const struct value_row *row,
                                  struct str_list asked, struct str_list granted)
{
    if (row->kind == VALUE_UNION)
        return join_lists(arena, asked, granted);
    if (row->kind == VALUE_OPERATORS)
        return granted;
    return intersect_lists(arena, asked, granted, row->covers);
}

static struct permissions combine(struct arena *arena, const struct permissions *a,
                                  const struct permissions *b, bool is_grant)
{
    struct permissions out = {.network.is_set = a->network.is_set || b->network.is_set,
                              .paths.is_set = a->paths.is_set || b->paths.is_set};
    for (size_t i = 0; i < PERMISSION_VALUE_COUNT; i++) {
        const struct value_row *row = &value_rows[i];
        void *to = (char *) &out + row->offset;
        if (is_list(row))
            *(struct str_list *) to = (is_grant ? grant_list : narrow_list)(
                arena, row, *list_of(a, row), *list_of(b, row));
        else if (row->kind != VALUE_FLAG)
            *(int64_t *) to = smaller(number_of(a, row), number_of(b, row));
    }
    bool has_a = a->is_network_access_set, has_b = b->is_network_access_set;
    out.is_network_access_set = has_a || has_b;
    out.network_access = (a->network_access || (is_grant && !has_a)) &&
                         (b->network_access || !has_b) && out.is_network_access_set;
    return out;
}

struct permissions permissions_intersect(struct arena *arena, const struct permissions *a,
                                         const struct permissions *b)
{
    return combine(arena, a, b, true);
}

struct permissions permissions_narrow(struct arena *arena, const struct permissions *base,
                                      const struct permissions *by)
{
    static str anything = S_INIT("*");
    struct permissions from = *base;
    if (!from.paths.is_set &&
        by->paths.is_set) { /* without paths every file of the session may be read */
        from.paths.read = (struct str_list){&anything, 1};
        from.paths.write = from.paths.execute = (struct str_list){&anything, 0};
    }
    return combine(arena, &from, by, false);
}

/* ---- the levels ---- */

const char *permission_level_name(enum permission_level level)
{
    static const char *const names[] = {"manifest", "configuration", "tenant", "agent"};
    return names[level];
}

const char *permission_value_name(size_t index)
{
    return value_rows[index].name;
}

bool permission_value_is_set(const struct permissions *permissions, size_t index)
{
    const struct value_row *row = &value_rows[index];
    if (is_list(row))
        return list_of(permissions, row)->items != NULL;
    return row->kind == VALUE_FLAG ? permissions->is_network_access_set
                                   : number_of(permissions, row) > 0;
}

static bool is_same_value(const struct permissions *a, const struct permissions *b, size_t index)
{
    const struct value_row *row = &value_rows[index];
    if (permission_value_is_set(a, index) != permission_value_is_set(b, index))
        return false;
    if (row->kind == VALUE_FLAG)
        return a->network_access == b->network_access;
    if (!is_list(row))
        return number_of(a, row) == number_of(b, row);
    const struct str_list *x = list_of(a, row), *y = list_of(b, row);
    bool is_same = x->count == y->count;
    for (size_t i = 0; is_same && i < x->count; i++)
        is_same = str_equal(x->items[i], y->items[i]);
    return is_same;
}

struct permissions permissions_effective(struct arena *arena,
                                         const struct permission_levels *levels,
                                         struct permission_trace *trace)
{
    static const struct permissions nothing;
    struct permissions now =
        levels->at[PERMISSION_MANIFEST] ? *levels->at[PERMISSION_MANIFEST] : nothing;
    now.network.allowed_ips = (struct str_list){0}; /* a tool cannot except itself */
    if (trace)
        *trace = (struct permission_trace){0};
    for (int level = PERMISSION_CONFIGURATION; level < PERMISSION_LEVEL_COUNT; level++) {
        const struct permissions *by = levels->at[level];
        if (!by)
            continue;
        struct permissions next = level == PERMISSION_CONFIGURATION
                                      ? permissions_intersect(arena, &now, by)
                                      : permissions_narrow(arena, &now, by);
        for (size_t i = 0; trace && i < PERMISSION_VALUE_COUNT; i++)
            if (!is_same_value(&now, &next, i))
                trace->decided_by[i] = (enum permission_level) level;
        now = next;
    }
    return now;
}

bool permissions_allow_path(const struct str_list *patterns, str path)
{
    for (size_t i = 0; i < patterns->count; i++)
        if (glob_matches(patterns->items[i], path))
            return true;
    return false;
}

bool permissions_allow_extension(const struct permissions *permissions, str name)
{
    const struct str_list *extensions = &permissions->allowed_extensions;
    if (!extensions->items)
        return true;
    for (size_t i = 0; i < extensions->count; i++) {
        str extension = extensions->items[i];
        if (name.len > extension.len &&
            str_equal_nocase(str_from(name, name.len - extension.len), extension))
            return true;
    }
    return false;
}

bool permissions_allow_read(const struct permissions *permissions, str name)
{
    bool is_granted =
        !permissions->paths.is_set || permissions_allow_path(&permissions->paths.read, name);
    return is_granted && permissions_allow_extension(permissions, name);
}

/* ---- writing: in a form that permissions_read takes ---- */

static void put_items(struct json_writer *w, const struct str_list *list)
{
    json_array_begin(w);
    for (size_t i = 0; i < list->count; i++)
        json_write_str(w, list->items[i]);
    json_array_end(w);
}

static void put_list(struct json_writer *w, str name, const struct str_list *list)
{
    if (!list->items)
        return;
    json_key(w, name);
    put_items(w, list);
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

void permission_value_write(struct json_writer *w, const struct permissions *permissions,
                            size_t index)
{
    const struct value_row *row = &value_rows[index];
    OWNED(arena) arena = arena_create(0);
    if (!permission_value_is_set(permissions, index))
        json_write_null(w);
    else if (is_list(row))
        put_items(w, list_of(permissions, row));
    else if (row->kind == VALUE_FLAG)
        json_write_bool(w, permissions->network_access);
    else if (row->kind == VALUE_TIME)
        json_write_str(w, str_printf(arena, "%lldms", (long long) number_of(permissions, row)));
    else
        json_write_i64(w, number_of(permissions, row));
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
