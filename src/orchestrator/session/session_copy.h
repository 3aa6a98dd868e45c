/*
 * A session that is made of messages that exist already: by a clone or an import.
 *
 *      copy_begin (a closed session) --> [ copy_message ... copy_flush ]* --> copy_end (opens it)
 *
 * Memory is that of one batch: copy_flush rewinds ctx's arena to where copy_begin left it, so what must last longer is allocated before.
 */
#ifndef NEXUS_ORCHESTRATOR_SESSION_COPY_H
#define NEXUS_ORCHESTRATOR_SESSION_COPY_H

#include "base/arena.h"
#include "orchestrator/orchestrator_internal.h"

struct copy_rules {
    const struct record *from; /* policy_context and double_text; NULL: none */
    str user_id, role, agent, metadata, action;
    cost budget;
};
struct copy {
    struct orchestrator *o;
    struct context *ctx;
    const struct principal *principal;
    uuid session_id; /* of the new one */
    uuid summary_id; /* the newest summary among its messages; UUID_NONE: none */
    size_t count;
    struct batch batch;
    arena_mark mark;
};
may_suspend bool copy_begin(struct copy *c, const struct copy_rules *rules, struct error *e);
/* A message's row to fill: role, content, tokens, created_at, parts, metadata. */
struct record *copy_message(struct copy *c, uuid *id);
may_suspend bool copy_flush(struct copy *c, struct error *e);
may_suspend bool copy_end(struct copy *c, struct record *out, struct error *e);

/* The lower one of this role and the principal's own. */
str copy_role(const struct principal *principal, str role);

#endif
