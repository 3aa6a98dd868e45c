/*
 * Deciding an approval: one vote.
 *
 * Look (approval, votes, whose word this is), then one commit that fits only if nothing has changed since: the vote's number is the next
 * one and the approval is still pending.  Who loses that race looks again.
 */
#include "base/arena.h"
#include "orchestrator/approval_internal.h"

/* One look. */
struct voting {
    struct orchestrator *o;
    const struct principal *principal;
    const struct approval_decision *decision;
    struct record approval;
    struct records votes;
    int64_t approving;       /* of the votes so far */
    str delegator;           /* in whose place; empty: in their own right */
    struct persons *persons; /* whose word this may be */
};

/* ---- is there something to decide ---- */

static bool check_open(const struct voting *v, struct error *e)
{
    str status = record_text(&v->approval, APPROVALS_STATUS);
    if (!str_equal(status, S("pending")))
        return error_set(e, REASON_ALREADY_DECIDED, "the approval is already " STR_FMT,
                         STR_ARG(status));
    if (!str_equal(v->decision->digest, record_text(&v->approval, APPROVALS_DIGEST)))
        return error_set(
            e, REASON_STALE_DIGEST,
            "the digest is not the approval's: read it again and decide on what it shows now");
    if (record_integer(&v->approval, APPROVALS_EXPIRES_AT) < clock_unix_us(v->o->parts.clock))
        return error_set(e, REASON_ALREADY_DECIDED, "the approval has expired");
    return true;
}

/* ---- who speaks ---- */

static bool check_parties(const struct voting *v, const struct persons *makers, struct error *e)
{
    if (approval_is_party(&v->approval, v->principal->user_id) ||
        approval_is_party(&v->approval, v->principal->caller_id))
        return error_set(e, REASON_SELF_APPROVAL,
                         "who asked for the run, or whom it is for, may not approve it");
    return approval_check_parties(&v->approval, makers, e);
}

static bool is_registrar(const struct settings *settings, str person)
{
    for (size_t i = 0; i < settings->registrar_count; i++)
        if (str_equal(settings->registrars[i], person))
            return true;
    return false;
}

static bool add_makers(struct voting *v, const struct persons *makers, struct error *e)
{
    const struct settings *settings = orchestrator_acquire(v->o);
    bool is_ok = true;
    for (size_t i = 0; is_ok && i < makers->count; i++)
        is_ok = is_registrar(settings, makers->items[i]) ||
                persons_add(v->persons, makers->items[i], e);
    orchestrator_release(settings);
    return is_ok;
}

static bool has_own_right(struct context *ctx, const struct voting *v)
{
    return approval_may_decide(v->principal) &&
           approval_rule_names(ctx->arena, record_text(&v->approval, APPROVALS_APPROVERS),
                               v->principal->user_id, v->principal->role);
}

/* Adds whoever is behind the delegation; its own parties end it for this approval. */
static bool take_delegation(struct voting *v, struct context *ctx, const struct record *row,
                            bool *is_taken, struct error *e)
{
    str from = record_text(row, APPROVAL_DELEGATIONS_FROM_USER);
    struct persons *behind = ARENA_NEW(ctx->arena, struct persons);
    struct error party = {0};
    *is_taken = false;
    if (!persons_read(ctx->arena, record_text(row, APPROVAL_DELEGATIONS_PERSONS), behind, e))
        return false;
    if (approval_is_party(&v->approval, from) ||
        !approval_check_parties(&v->approval, behind, &party))
        return true;
    if (!approval_person_may(v->o, ctx, v->principal->tenant_id, from, &v->approval, is_taken, e))
        return false;
    if (!*is_taken)
        return true;
    v->delegator = from;
    return persons_add(v->persons, from, e) && add_makers(v, behind, e);
}

static bool has_approved(const struct voting *v, str person)
{
    for (size_t i = 0; i < v->votes.count; i++)
        if (str_equal(person, record_text(&v->votes.items[i], APPROVAL_VOTES_DELEGATED_BY)) ||
            str_equal(person, record_text(&v->votes.items[i], APPROVAL_VOTES_APPROVER)))
            return true;
    return false;
}

/* In the place of whom the decision names; else of the first who may and has not had a word. */
static bool find_delegator(struct voting *v, struct context *ctx, struct error *e)
{
    struct records rows;
    str wanted = v->decision->in_place_of;
    if (!approval_delegations_to(v->o, ctx, v->principal, &rows, e))
        return false;
    for (size_t i = 0; i < rows.count; i++) {
        str from = record_text(&rows.items[i], APPROVAL_DELEGATIONS_FROM_USER);
        bool is_taken,
            fits = str_is_empty(wanted) ? !has_approved(v, from) : str_equal(from, wanted);
        if (!fits)
            continue;
        if (!take_delegation(v, ctx, &rows.items[i], &is_taken, e))
            return false;
        if (is_taken)
            return true;
    }
    if (!str_is_empty(wanted))
        return error_set(e, REASON_DENIED,
                         "there is no delegation by which you may decide this in the place of "
                         "\"" STR_FMT "\"",
                         STR_ARG(str_cut_utf8(wanted, 100)));
    if (approval_may_decide(v->principal))
        return error_set(e, REASON_DENIED,
                         "this approval is for certain persons or roles, and you are none of them");
    return error_set(e, REASON_DENIED,
                     "deciding approvals needs the role operator, the scope approve, or a "
                     "delegation");
}

static bool find_voice(struct voting *v, struct context *ctx, struct error *e)
{
    struct persons *makers = ARENA_NEW(ctx->arena, struct persons);
    v->persons = ARENA_NEW(ctx->arena, struct persons);
    if (!approval_makers_of(v->o, ctx, v->principal, makers, e) || !check_parties(v, makers, e) ||
        !approval_check_credential(v->principal, e) ||
        !persons_add(v->persons, v->principal->user_id, e) || !add_makers(v, makers, e))
        return false;
    if (str_is_empty(v->decision->in_place_of) && has_own_right(ctx, v))
        return true;
    return find_delegator(v, ctx, e);
}

/* ---- beside the votes there are ---- */

static bool check_distinct(struct voting *v, struct context *ctx, struct error *e)
{
    for (size_t i = 0; i < v->votes.count; i++) {
        const struct record *vote = &v->votes.items[i];
        str approver = record_text(vote, APPROVAL_VOTES_APPROVER);
        struct persons *theirs = ARENA_NEW(ctx->arena, struct persons);
        if (!str_equal(record_text(vote, APPROVAL_VOTES_DECISION), S("approve")))
            continue;
        v->approving++;
        if (!v->decision->is_approve) /* who has approved may still think again and deny */
            continue;
        if (str_equal(approver, v->principal->user_id))
            return error_set(e, REASON_ALREADY_DECIDED, "you have approved it already");
        if (!persons_read(ctx->arena, record_text(vote, APPROVAL_VOTES_PERSONS), theirs, e))
            return false;
        for (size_t k = 0; k < theirs->count; k++)
            if (persons_hold(v->persons, theirs->items[k]))
                return error_set(e, REASON_SAME_PERSON,
                                 "\"" STR_FMT "\" may be behind this vote and that of \"" STR_FMT
                                 "\" (docs/approvals.md: persons): another person must approve",
                                 STR_ARG(str_cut_utf8(theirs->items[k], 60)),
                                 STR_ARG(str_cut_utf8(approver, 60)));
    }
    if (v->votes.count >= APPROVAL_VOTES_MAX)
        return error_set(e, REASON_LIMIT, "an approval has at most %u votes", APPROVAL_VOTES_MAX);
    return true;
}

static never_inline bool look(struct voting *v, struct context *ctx, struct error *e)
{
    struct query *query = ARENA_NEW(ctx->arena, struct query);
    *query = query_of(TABLE_APPROVAL_VOTES);
    query_where_uuid(query, APPROVAL_VOTES_APPROVAL_ID, v->decision->approval_id);
    v->approving = 0;
    v->delegator = STR_NONE;
    return approval_get(v->o, ctx, v->principal, v->decision->approval_id, &v->approval, e) &&
           check_open(v, e) &&
           store_list(v->o->parts.store, ctx, v->principal->tenant_id, query, &v->votes, e) &&
           find_voice(v, ctx, e) && check_distinct(v, ctx, e);
}

/* ---- the commit ---- */

static int64_t quorum_of(const struct record *approval)
{
    int64_t quorum = record_integer(approval, APPROVALS_QUORUM);
    return quorum > 0 ? quorum : 1;
}

static void write_vote(const struct voting *v, struct context *ctx, struct batch *batch,
                       int64_t now_us)
{
    struct record *row = batch_add(batch, WRITE_INSERT, TABLE_APPROVAL_VOTES);
    record_set_uuid(row, APPROVAL_VOTES_APPROVAL_ID, v->decision->approval_id);
    record_set_integer(row, APPROVAL_VOTES_NUMBER, (int64_t) v->votes.count + 1);
    record_set_text(row, APPROVAL_VOTES_APPROVER, v->principal->user_id);
    record_set_text(row, APPROVAL_VOTES_DECISION,
                    v->decision->is_approve ? S("approve") : S("deny"));
    record_set_text(row, APPROVAL_VOTES_DIGEST, v->decision->digest);
    record_set_text(row, APPROVAL_VOTES_PERSONS, persons_json(ctx->arena, v->persons));
    record_set_integer(row, APPROVAL_VOTES_CREATED_AT, now_us);
    if (!str_is_empty(v->decision->reason))
        record_set_text(row, APPROVAL_VOTES_REASON, v->decision->reason);
    if (!str_is_empty(v->delegator))
        record_set_text(row, APPROVAL_VOTES_DELEGATED_BY, v->delegator);
    if (!uuid_is_none(v->principal->key_id))
        record_set_uuid(row, APPROVAL_VOTES_KEY_ID, v->principal->key_id);
}

static void write_approval(const struct voting *v, struct batch *batch, int64_t now_us)
{
    int64_t approving = v->approving + v->decision->is_approve;
    bool is_last = !v->decision->is_approve || approving >= quorum_of(&v->approval);
    struct record *row = batch_add(batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, v->decision->approval_id);
    record_set_integer(row, APPROVALS_VOTES, approving);
    if (is_last) {
        record_set_text(row, APPROVALS_STATUS,
                        v->decision->is_approve ? S("approved") : S("denied"));
        record_set_text(row, APPROVALS_APPROVER, v->principal->user_id);
        record_set_integer(row, APPROVALS_DECIDED_AT, now_us);
        record_set_null(row, APPROVALS_REMIND_AT);
        if (!str_is_empty(v->decision->reason))
            record_set_text(row, APPROVALS_REASON, v->decision->reason);
    }
    batch_where_text(batch, APPROVALS_STATUS, S("pending"));
}

static str audit_details(const struct voting *v, struct context *ctx)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, ctx->arena, 8192);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("digest"), v->decision->digest);
    if (quorum_of(&v->approval) > 1) {
        json_put_i64(&w, S("votes"), v->approving + v->decision->is_approve);
        json_put_i64(&w, S("quorum"), quorum_of(&v->approval));
    }
    if (!str_is_empty(v->delegator))
        json_put_str(&w, S("delegated_by"), v->delegator);
    json_object_end(&w);
    return strbuf_str(&text);
}

static never_inline bool commit(const struct voting *v, struct context *ctx, struct error *e)
{
    struct batch batch;
    int64_t now_us = clock_unix_us(v->o->parts.clock);
    batch_init(&batch, ctx->arena, v->principal->tenant_id);
    batch.fault = "approval_decide";
    write_vote(v, ctx, &batch, now_us);
    write_approval(v, &batch, now_us);
    audit_add(&batch, v->o->parts.clock, v->o->parts.random, v->principal,
              &(struct audit_entry){
                  .action = v->decision->is_approve ? S("approval.approve") : S("approval.deny"),
                  .resource_type = S("approval"),
                  .resource_id = uuid_str(ctx->arena, v->decision->approval_id),
                  .details = audit_details(v, ctx),
              });
    return store_commit(v->o->parts.store, ctx, &batch, e);
}

static bool check_reason(const struct approval_decision *decision, struct error *e)
{
    return decision->reason.len <= APPROVAL_REASON_BYTES_MAX ||
           error_set(e, REASON_SCHEMA, "reason is over %u bytes", APPROVAL_REASON_BYTES_MAX);
}

bool approval_decide(struct orchestrator *o, struct context *ctx, const struct principal *principal,
                     const struct approval_decision *decision, struct error *e)
{
    struct voting *v = ARENA_NEW(ctx->arena, struct voting);
    *v = (struct voting){.o = o, .principal = principal, .decision = decision};
    if (!check_reason(decision, e))
        return false;
    for (int attempt = 1;; attempt++) {
        struct error failure = {0};
        if (!look(v, ctx, e))
            return false;
        bool ok = commit(v, ctx, &failure);
        if (!ok && failure.reason == REASON_CONFLICT && attempt < APPROVAL_VOTE_ATTEMPTS)
            continue; /* another vote, a decision or the expiry came first: what is there now? */
        if (ok || failure.reason == REASON_OUTCOME_UNKNOWN) /* the run looks for itself */
            run_wake(o, ctx, principal->tenant_id, record_uuid(&v->approval, APPROVALS_SESSION_ID),
                     record_uuid(&v->approval, APPROVALS_RUN_ID));
        if (ok)
            metrics_add(o->parts.metrics, METRIC_APPROVAL_VOTES, 1,
                        (str[]){decision->is_approve ? S("approve") : S("deny")}, 1);
        return ok || error_copy(e, &failure);
    }
}
