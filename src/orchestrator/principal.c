#include "orchestrator/principal.h"
#include "orchestrator/orchestrator_internal.h"

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

bool principal_sees_user(const struct principal *principal, str user_id)
{
    return principal->level >= ROLE_LEVEL_OPERATOR || str_equal(principal->user_id, user_id);
}
