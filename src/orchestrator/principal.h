/*
 * Principal: who calls, as authenticated.  Plain data, borrowed strings of the request.
 *
 * user_id is whom the work is for; caller_id is who authenticated (they differ under scope `act_as`; both are audited and neither may
 * approve).  Roles: admin, operator, user, viewer.
 */
#ifndef NEXUS_ORCHESTRATOR_PRINCIPAL_H
#define NEXUS_ORCHESTRATOR_PRINCIPAL_H

#include "base/uuid.h"

enum role_level { ROLE_LEVEL_VIEWER, ROLE_LEVEL_USER, ROLE_LEVEL_OPERATOR, ROLE_LEVEL_ADMIN };

enum scope { SCOPE_PLATFORM = 1, SCOPE_ACT_AS = 2, SCOPE_APPROVE = 4 };

struct principal {
    uuid tenant_id;
    str user_id;
    str caller_id;
    str role; /* "admin" ... */
    enum role_level level;
    unsigned scopes; /* enum scope bits */
    uuid key_id;     /* the API key, UUID_NONE otherwise */
    str ip_address, user_agent, request_id;
};

bool role_level_parse(str text, enum role_level *out);

#endif
