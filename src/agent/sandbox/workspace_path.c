/* Names and paths of workspaces: what a tool may write, and where it lies. */
#include "agent/sandbox/workspace.h"
#include "base/digest.h"
#include "base/limits.h"

static bool decode_utf8(str text, size_t *at, uint32_t *out)
{
    static const uint8_t lead_mask[] = {0x7f, 0x1f, 0x0f, 0x07};
    unsigned char c = (unsigned char) text.ptr[*at];
    size_t more = c < 0x80 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
    uint32_t value = c & lead_mask[more];
    if (*at + more >= text.len)
        return false;
    for (size_t i = 1; i <= more; i++)
        value = value << 6 | ((unsigned char) text.ptr[*at + i] & 0x3f);
    *at += more + 1;
    *out = value;
    return true;
}

/* Characters that a person cannot see, or that turn the text around them: a name that holds one shows as another. */
static bool is_deceptive(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0xad || c == 0x61c || c == 0x180e ||
           (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xfff0 && c <= 0xfffb) ||
           (c >= 0xe0000 && c <= 0xe0fff);
}

static bool check_characters(str path, struct error *e)
{
    if (!str_is_utf8(path))
        return error_set(e, REASON_SCHEMA, "the path is no UTF-8");
    for (size_t at = 0; at < path.len;) {
        uint32_t c;
        size_t from = at;
        if (!decode_utf8(path, &at, &c) || is_deceptive(c) || c == '\\')
            return error_set(e, REASON_SCHEMA,
                             "the path has a control, invisible or bidirectional character or a "
                             "backslash at byte %zu; leave it out",
                             from);
    }
    return true;
}

static bool check_name(str name, struct error *e)
{
    if (str_equal(name, S("..")))
        return error_set(e, REASON_PERMISSION,
                         "the path leads out with \"..\"; write where it goes, beginning at "
                         "\"" WORKSPACE_ROOT "/\"");
    if (name.len > WORKSPACE_NAME_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "a name in the path is longer than %u bytes",
                         WORKSPACE_NAME_BYTES_MAX);
    char last = name.ptr[name.len - 1];
    if (last == '.' || last == ' ' || name.ptr[0] == ' ')
        return error_set(e, REASON_SCHEMA,
                         "the name \"" STR_FMT "\" begins with a blank or ends in a dot or blank",
                         STR_ARG(str_cut_utf8(name, 80)));
    if (str_starts_with(name, S(WORKSPACE_TEMPORARY)))
        return error_set(e, REASON_PERMISSION,
                         "names that begin with \"" WORKSPACE_TEMPORARY "\" are the platform's");
    return true;
}

/* Without the root in front. */
static bool below_root(str path, str *out, struct error *e)
{
    str root = S(WORKSPACE_ROOT), rest = path;
    if (!str_starts_with(path, S("/"))) {
        *out = path;
        return true;
    }
    while (str_starts_with(rest, S("//"))) /* "//tmp" is "/tmp" */
        rest = str_from(rest, 1);
    if (str_starts_with(rest, root) && (rest.len == root.len || rest.ptr[root.len] == '/')) {
        *out = str_from(rest, root.len);
        return true;
    }
    return error_set(e, REASON_PERMISSION,
                     "\"" STR_FMT "\" is outside the workspace: paths begin with "
                     "\"" WORKSPACE_ROOT "/\"",
                     STR_ARG(str_cut_utf8(path, 120)));
}

bool workspace_path(struct arena *arena, str path, str *out, struct error *e)
{
    str rest, name;
    if (path.len > WORKSPACE_PATH_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "the path is longer than %u bytes",
                         WORKSPACE_PATH_BYTES_MAX);
    if (!check_characters(path, e) || !below_root(path, &rest, e))
        return false;
    struct strbuf clean;
    size_t depth = 0;
    strbuf_init(&clean, arena, WORKSPACE_PATH_BYTES_MAX);
    while (str_next(&rest, '/', &name)) {
        if (str_is_empty(name) || str_equal(name, S(".")))
            continue;
        if (!check_name(name, e))
            return false;
        if (++depth > WORKSPACE_DEPTH_MAX)
            return error_set(e, REASON_SCHEMA, "the path is deeper than %u folders",
                             WORKSPACE_DEPTH_MAX);
        if (clean.len > 0)
            strbuf_add_char(&clean, '/');
        strbuf_add(&clean, name);
    }
    *out = strbuf_str(&clean);
    return true;
}

str workspace_virtual(struct arena *arena, str relative)
{
    return str_is_empty(relative)
               ? S(WORKSPACE_ROOT)
               : str_printf(arena, WORKSPACE_ROOT "/" STR_FMT, STR_ARG(relative));
}

str workspace_folder(struct arena *arena, uuid tenant_id, uuid session_id, str user_id)
{
    if (!uuid_is_none(session_id))
        return str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(uuid_str(arena, tenant_id)),
                          STR_ARG(uuid_str(arena, session_id)));
    str key = digest_hex(arena, digest_sha256(user_id));
    return str_printf(arena, STR_FMT "/user-" STR_FMT, STR_ARG(uuid_str(arena, tenant_id)),
                      STR_ARG(str_slice(key, 0, 32)));
}

bool workspace_glob(str pattern, str name)
{
    size_t p = 0, t = 0, star = STR_NOT_FOUND, mark = 0;
    while (t < name.len) {
        if (p < pattern.len && pattern.ptr[p] == '*') {
            star = p++;
            mark = t;
        } else if (p < pattern.len && (pattern.ptr[p] == '?' || pattern.ptr[p] == name.ptr[t])) {
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
