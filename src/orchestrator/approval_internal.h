/*
 * Approvals, shared by approval.c (reading, by the clock), approval_vote.c (deciding), approval_person.c (who is behind a word, and what
 * they may do) and approval_delegation.c.
 */
#ifndef NEXUS_ORCHESTRATOR_APPROVAL_INTERNAL_H
#define NEXUS_ORCHESTRATOR_APPROVAL_INTERNAL_H

#include "base/limits.h"
#include "orchestrator/approval/approval.h"
#include "orchestrator/orchestrator_internal.h"

/* A set of names; on an arena, it is large. */
struct persons {
    str items[APPROVAL_PERSONS_MAX];
    size_t count;
};
must_check bool persons_add(struct persons *persons, str name, struct error *e); /* once each */
bool persons_hold(const struct persons *persons, str name);
str persons_json(struct arena *arena, const struct persons *persons);
/* Adds the names of such a JSON list; CORRUPT when it is none. */
must_check bool persons_read(struct arena *arena, str json, struct persons *persons,
                             struct error *e);

/* Approved becomes consumed, in the batch that holds what it was given for; a second batch that would do so fails with CONFLICT. */
void approval_consume(struct batch *batch, uuid approval_id);

bool approval_is_party(const struct record *approval, str person);
/* SELF_APPROVAL when one of them is a party. */
must_check bool approval_check_parties(const struct record *approval, const struct persons *persons,
                                       struct error *e);

/* Everybody who had a hand in a key, its owner aside. */
must_check bool approval_key_makers(struct arena *arena, const struct record *key_row,
                                    struct persons *makers, struct error *e);
/* The same of the key that the principal came with; none when it is no key. */
may_suspend bool approval_makers_of(struct orchestrator *o, struct context *ctx,
                                    const struct principal *principal, struct persons *makers,
                                    struct error *e);
/* Who is nobody's person: runs, tools, and who acts for another.  DENIED. */
must_check bool approval_check_credential(const struct principal *principal, struct error *e);
/* May somebody with this role and these scopes decide approvals at all? */
bool approval_may_decide(const struct principal *principal);
/* May this person, by a live key of theirs that no party had a hand in, decide it?  `approval` NULL: any. */
may_suspend bool approval_person_may(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                                     str person, const struct record *approval, bool *may,
                                     struct error *e);
/* Live delegations to the principal, as rows of APPROVAL_DELEGATIONS. */
may_suspend bool approval_delegations_to(struct orchestrator *o, struct context *ctx,
                                         const struct principal *principal, struct records *out,
                                         struct error *e);

#endif
