/*
 * Principal: who calls, as authenticated.  Plain data, borrowed strings of the request.
 *
 * user_id is whom the work is for; caller_id is who authenticated (they differ under scope `act_as`; both are audited and neither may
 * approve).  Roles: admin, operator, user, viewer.
 */
#ifndef NEXUS_ORCHESTRATOR_PRINCIPAL_H
#define NEXUS_ORCHESTRATOR_PRINCIPAL_H

#include "base/error.h"
#include "base/uuid.h"

enum role_level { ROLE_LEVEL_VIEWER, ROLE_LEVEL_USER, ROLE_LEVEL_OPERATOR, ROLE_LEVEL_ADMIN };

enum scope { SCOPE_PLATFORM = 1, SCOPE_ACT_AS = 2, SCOPE_APPROVE = 4 };

/* How urgent a piece of work is: what is refused first when a node is overloaded (overload.h). */
enum priority { PRIORITY_BATCH, PRIORITY_NORMAL, PRIORITY_INTERACTIVE, PRIORITY_COUNT };
const char *priority_name(enum priority priority);
bool priority_parse(str text, enum priority *out);

/* What a key may do of its own (a virtual key), besides its role; 0 and empty: no such limit. */
struct key_limits {
    int64_t requests_per_minute, tokens_per_minute, streams;
    /* Names it may ask for, one a line, "agent:NAME" too; a "*" at the end of a name stands for any rest. */
    str models;
    int priority_max; /* the most urgent it may ask for, + 1; 0: any */
};
enum { PRIORITY_UNSAID = 0 }; /* where a priority is kept + 1 */

struct principal {
    uuid tenant_id;
    str user_id;
    str caller_id;
    str role; /* "admin" ... */
    enum role_level level;
    unsigned scopes; /* enum scope bits */
    uuid key_id;     /* the API key, UUID_NONE otherwise */
    bool is_run;     /* made from a run's rows: nobody signed in */
    bool
        has_key_budget; /* the key has an account of its own: what is called with it counts there too */
    struct key_limits limits;
    int priority; /* what this request asked for, + 1; PRIORITY_UNSAID */
    str ip_address, user_agent, request_id;
};

/*
 * How urgent work of this principal is.  `agent` and `session` (each + 1, or PRIORITY_UNSAID) are what these say.  The least urgent of
 * all that was said holds, so each of them only lowers, and never is it more than the key may; normal when nothing was said.
 */
enum priority principal_priority(const struct principal *principal, int agent, int session);
/* A name, or empty, + 1. */
int priority_said(str name);
/* The most urgent it can turn out to be when agent and session are not known yet. */
enum priority principal_priority_most(const struct principal *principal);

bool role_level_parse(str text, enum role_level *out);

/* Is the principal allowed to see what this user owns? */
bool principal_sees_user(const struct principal *principal, str user_id);

/* May this key ask for that model or agent ("agent:NAME")?  DENIED with the names it may ask for. */
must_check bool principal_check_model(const struct principal *principal, str model,
                                      struct error *e);

#endif
