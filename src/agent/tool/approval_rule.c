#include "agent/tool/approval_rule.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"

/* Of principals: orchestrator/policy/principal.c. */
static const str role_names[] = {S_INIT("admin"), S_INIT("operator"), S_INIT("user"),
                                 S_INIT("viewer")};

/* ---- reading ---- */

static bool is_role(str name)
{
    for (size_t i = 0; i < ARRAY_COUNT(role_names); i++)
        if (str_equal(role_names[i], name))
            return true;
    return false;
}

static bool check_names(const struct json *list, bool are_roles, struct error *e)
{
    const struct json *item;
    str name;
    struct json_iter it = json_iter(list);
    if (list && (json_type(list) != JSON_ARRAY || json_count(list) > APPROVAL_APPROVERS_MAX))
        return error_set(e, REASON_SCHEMA,
                         "approvers: users and roles are lists of at most %u names",
                         APPROVAL_APPROVERS_MAX);
    while (json_next(&it, NULL, &item)) {
        if (!json_to_str(item, &name) || str_is_empty(name) || name.len > APPROVAL_PERSON_BYTES_MAX)
            return error_set(e, REASON_SCHEMA, "approvers: a name has 1 to %u bytes",
                             APPROVAL_PERSON_BYTES_MAX);
        if (are_roles && !is_role(name))
            return error_set(e, REASON_SCHEMA,
                             "approvers: there is no role \"" STR_FMT
                             "\"; roles are admin, operator, user, viewer",
                             STR_ARG(str_cut_utf8(name, 60)));
    }
    return true;
}

/* {"users": [...], "roles": [...]}: one of both at least. */
static bool check_approvers(const struct json *value, struct error *e)
{
    str key;
    const struct json *member, *users = json_get(value, S("users")),
                               *roles = json_get(value, S("roles"));
    struct json_iter it = json_iter(value);
    if (json_type(value) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "approvers must be {users: [...], roles: [...]}");
    while (json_next(&it, &key, &member))
        if (!str_equal(key, S("users")) && !str_equal(key, S("roles")))
            return error_set(e, REASON_SCHEMA,
                             "approvers: unknown member " STR_FMT "; known here: users, roles",
                             STR_ARG(str_cut_utf8(key, 60)));
    if (json_count(users) + json_count(roles) == 0)
        return error_set(e, REASON_SCHEMA, "approvers names nobody: nothing could be approved");
    return check_names(users, false, e) && check_names(roles, true, e);
}

/* How many persons it can name: with a role, nobody knows. */
static int64_t persons_of(const struct json *approvers)
{
    const struct json *roles = json_get(approvers, S("roles"));
    return json_count(roles) > 0 ? INT64_MAX
                                 : (int64_t) json_count(json_get(approvers, S("users")));
}

static bool read_approvers(struct arena *arena, const struct json *value, struct approval_rule *out,
                           struct error *e)
{
    bool is_list = json_type(value) == JSON_ARRAY;
    const struct json *item = value;
    struct json_iter it = json_iter(is_list ? value : NULL);
    if (is_list && (json_count(value) == 0 || json_count(value) > APPROVAL_APPROVER_LISTS_MAX))
        return error_set(e, REASON_SCHEMA, "approvers: 1 to %u lists", APPROVAL_APPROVER_LISTS_MAX);
    while (!is_list || json_next(&it, NULL, &item)) {
        if (!check_approvers(item, e))
            return false;
        if (out->quorum > persons_of(item))
            return error_set(e, REASON_SCHEMA, "quorum %lld of %lld persons can never be reached",
                             (long long) out->quorum, (long long) persons_of(item));
        if (!is_list)
            break;
    }
    str text = json_canonical(arena, value);
    out->approvers = is_list ? text : str_printf(arena, "[" STR_FMT "]", STR_ARG(text));
    return true;
}

static bool read_time(const struct json *value, const char *name, int64_t max_ms, int64_t *out_ms,
                      struct error *e)
{
    str text;
    return (json_to_str(value, &text) && duration_parse(text, out_ms) &&
            *out_ms >= APPROVAL_TIME_MS_MIN && *out_ms <= max_ms) ||
           error_set(e, REASON_SCHEMA, "%s must be a time such as \"2h\", 1s to %lld days", name,
                     (long long) (max_ms / 86400000));
}

static bool read_member(str key, const struct json *value, struct approval_rule *out,
                        struct error *e)
{
    if (str_equal(key, S("quorum")))
        return (json_to_i64(value, &out->quorum) && out->quorum >= 1 &&
                out->quorum <= APPROVAL_QUORUM_MAX) ||
               error_set(e, REASON_SCHEMA, "quorum must be 1 to %d persons", APPROVAL_QUORUM_MAX);
    if (str_equal(key, S("expires")))
        return read_time(value, "expires", APPROVAL_EXPIRES_MS_MAX, &out->expires_ms, e);
    if (str_equal(key, S("remind")))
        return read_time(value, "remind", APPROVAL_EXPIRES_MS_MAX, &out->remind_ms, e);
    return str_equal(key, S("approvers")) ||
           error_set(e, REASON_SCHEMA,
                     "unknown member " STR_FMT
                     " of an approval; known here: quorum, approvers, expires, remind",
                     STR_ARG(str_cut_utf8(key, 60)));
}

bool approval_rule_read(struct arena *arena, const struct json *value, struct approval_rule *out,
                        struct error *e)
{
    struct approval_rule rule = {0};
    str key;
    const struct json *member;
    struct json_iter it = json_iter(value);
    bool is_there = value && json_type(value) != JSON_NULL;
    if (is_there && json_type(value) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA,
                         "what an approval needs is {quorum, approvers, expires, remind}");
    while (is_there && json_next(&it, &key, &member))
        if (!read_member(key, member, &rule, e))
            return false;
    const struct json *approvers = is_there ? json_get(value, S("approvers")) : NULL;
    if (approvers && json_type(approvers) != JSON_NULL &&
        !read_approvers(arena, approvers, &rule, e))
        return false;
    *out = rule;
    return true;
}

/* ---- two at once ---- */

static int64_t sooner(int64_t a_ms, int64_t b_ms)
{
    if (a_ms == 0 || b_ms == 0)
        return a_ms + b_ms;
    return a_ms < b_ms ? a_ms : b_ms;
}

static str inner(str list)
{
    return str_slice(list, 1, list.len - 1);
}

bool approval_rule_join(struct arena *arena, struct approval_rule *to,
                        const struct approval_rule *other, struct error *e)
{
    str joined = str_is_empty(to->approvers) ? other->approvers : to->approvers;
    bool is_other = !str_is_empty(other->approvers) && !str_equal(to->approvers, other->approvers);
    if (is_other && !str_is_empty(to->approvers))
        joined = str_printf(arena, "[" STR_FMT "," STR_FMT "]", STR_ARG(inner(to->approvers)),
                            STR_ARG(inner(other->approvers)));
    if (joined.len > APPROVAL_APPROVERS_BYTES_MAX)
        return error_set(e, REASON_LIMIT, "the rules name more than %u bytes of approvers",
                         APPROVAL_APPROVERS_BYTES_MAX);
    to->approvers = joined;
    if (other->quorum > to->quorum)
        to->quorum = other->quorum;
    to->expires_ms = sooner(to->expires_ms, other->expires_ms);
    to->remind_ms = sooner(to->remind_ms, other->remind_ms);
    return true;
}

/* ---- who is named ---- */

static bool holds(const struct json *names, str wanted)
{
    const struct json *item;
    str name;
    struct json_iter it = json_iter(names);
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &name) && str_equal(name, wanted))
            return true;
    return false;
}

bool approval_rule_names(struct arena *arena, str approvers, str user, str role)
{
    const struct json *lists, *item;
    struct error unread = {0};
    if (str_is_empty(approvers))
        return true;
    if (!json_parse(arena, approvers, (struct json_limits){0}, &lists, &unread) ||
        json_type(lists) != JSON_ARRAY)
        return false;
    struct json_iter it = json_iter(lists);
    while (json_next(&it, NULL, &item))
        if (!holds(json_get(item, S("users")), user) && !holds(json_get(item, S("roles")), role))
            return false;
    return true;
}
