#include "orchestrator/policy/principal.h"
#include "base/str.h"

bool role_level_parse(str text, enum role_level *out)
{
    static const struct {
        str name;
        enum role_level level;
    } roles[] = {
        {S_INIT("viewer"), ROLE_LEVEL_VIEWER},
        {S_INIT("user"), ROLE_LEVEL_USER},
        {S_INIT("operator"), ROLE_LEVEL_OPERATOR},
        {S_INIT("admin"), ROLE_LEVEL_ADMIN},
    };
    for (size_t i = 0; i < ARRAY_COUNT(roles); i++) {
        if (!str_equal(text, roles[i].name))
            continue;
        *out = roles[i].level;
        return true;
    }
    return false;
}

static const char *const priority_names[PRIORITY_COUNT] = {[PRIORITY_BATCH] = "batch",
                                                           [PRIORITY_NORMAL] = "normal",
                                                           [PRIORITY_INTERACTIVE] = "interactive"};

const char *priority_name(enum priority priority)
{
    return priority_names[priority];
}

bool priority_parse(str text, enum priority *out)
{
    for (int i = 0; i < PRIORITY_COUNT; i++) {
        if (!str_equal(text, str_from_cstr(priority_names[i])))
            continue;
        *out = (enum priority) i;
        return true;
    }
    return false;
}

static int lower_of(int a, int b)
{
    return a == PRIORITY_UNSAID || (b != PRIORITY_UNSAID && b < a) ? b : a;
}

enum priority principal_priority(const struct principal *principal, int agent, int session)
{
    int said = lower_of(principal->priority, lower_of(agent, session));
    if (said == PRIORITY_UNSAID)
        said = PRIORITY_NORMAL + 1;
    return (enum priority)(lower_of(said, principal->limits.priority_max) - 1);
}

int priority_said(str name)
{
    enum priority priority;
    return priority_parse(name, &priority) ? (int) priority + 1 : PRIORITY_UNSAID;
}

enum priority principal_priority_most(const struct principal *principal)
{
    int most = lower_of(principal->priority, principal->limits.priority_max);
    return most == PRIORITY_UNSAID ? PRIORITY_INTERACTIVE : (enum priority)(most - 1);
}

bool principal_sees_user(const struct principal *principal, str user_id)
{
    return principal->level >= ROLE_LEVEL_OPERATOR || str_equal(principal->user_id, user_id);
}

static bool fits_name(str pattern, str model)
{
    if (!str_ends_with(pattern, S("*")))
        return str_equal(pattern, model);
    return str_starts_with(model, str_slice(pattern, 0, pattern.len - 1));
}

bool principal_check_model(const struct principal *principal, str model, struct error *e)
{
    enum { NAMES_BYTES_MAX = 300 };
    str rest = principal->limits.models, name;
    if (str_is_empty(rest))
        return true;
    while (!str_is_empty(rest) && str_next(&rest, '\n', &name))
        if (fits_name(name, model))
            return true;
    char names[NAMES_BYTES_MAX + 1];
    str shown = str_cut_utf8(principal->limits.models, NAMES_BYTES_MAX);
    for (size_t i = 0; i < shown.len; i++)
        names[i] = shown.ptr[i] == '\n' ? ' ' : shown.ptr[i];
    return error_set(e, REASON_DENIED,
                     "this key may not ask for \"" STR_FMT "\"; it may ask for: %.*s",
                     STR_ARG(str_cut_utf8(model, 120)), (int) shown.len, names);
}
