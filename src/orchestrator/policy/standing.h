/*
 * Standing principals: who acts when nobody has signed in, because a schedule is due or a webhook was called.
 *
 * What somebody left behind to act for them never does more than they could do themselves today: it stands and falls with the key that
 * made it.  A key that was revoked or has expired, a role that was lowered, a list of models or a budget of the key hold for it as they
 * would for a request with that key.  Scopes are for who is there: a standing principal has none, and approves nothing.
 */
#ifndef NEXUS_ORCHESTRATOR_STANDING_H
#define NEXUS_ORCHESTRATOR_STANDING_H

#include "orchestrator/policy/principal.h"
#include "store/store.h"

struct standing {
    uuid tenant_id;
    uuid key_id;   /* UUID_NONE: made without a key; the stored role holds */
    str user_id;   /* for whom */
    str role;      /* when it was made; the lower one of this and the key's is taken */
    str caller_id; /* "schedule:NAME": borrowed */
};

/* DENIED: the key is gone, revoked or expired.  Strings on ctx's arena, or of `standing`. */
may_suspend bool principal_standing(struct store *store, struct clock *clock, struct context *ctx,
                                    const struct standing *standing, struct principal *out,
                                    struct error *e);

#endif
