/* Approvals as the run that waits for them sees them: what they need, how they stand, and their single use. */
#include "base/arena.h"
#include "base/fault.h"
#include "orchestrator/approval_internal.h"
#include "orchestrator/run_tools_internal.h"

/* ---- what an approval of a call needs ---- */

static bool join_rules_of_policy(struct run *run, const struct policy_input *input,
                                 struct approval_rule *rule, struct error *e)
{
    str text = STR_NONE;
    const struct json *list, *item;
    if (!run_approval_demands(run, input, &text, e))
        return false;
    if (str_is_empty(text))
        return true;
    if (!json_parse(run->turn, text, (struct json_limits){0}, &list, e))
        return false;
    bool is_list = json_type(list) == JSON_ARRAY;
    struct json_iter it = json_iter(is_list ? list : NULL);
    if (is_list && json_count(list) > APPROVAL_RULES_MAX)
        return error_set(e, REASON_LIMIT, "more than %u rules", APPROVAL_RULES_MAX);
    for (item = list; !is_list || json_next(&it, NULL, &item);) {
        struct approval_rule one;
        if (!approval_rule_read(run->turn, item, &one, e) ||
            !approval_rule_join(run->turn, rule, &one, e))
            return false;
        if (!is_list)
            break;
    }
    return true;
}

bool run_approval_rule(struct run *run, const struct tool *tool, const struct policy_input *input,
                       struct approval_rule *out, struct error *e)
{
    *out = (struct approval_rule){0};
    return (join_rules_of_policy(run, input, out, e) &&
            approval_rule_join(run->turn, out, &tool->approval, e)) ||
           error_wrap(e, "what an approval of tool \"" STR_FMT "\" needs cannot be told",
                      STR_ARG(tool->name));
}

/* ---- how it stands ---- */

static const struct {
    str name;
    enum approval_status status;
} statuses[] = {
    {S_INIT("pending"), APPROVAL_PENDING},   {S_INIT("approved"), APPROVAL_APPROVED},
    {S_INIT("denied"), APPROVAL_DENIED},     {S_INIT("expired"), APPROVAL_EXPIRED},
    {S_INIT("consumed"), APPROVAL_CONSUMED},
};

/* It was asked for in the commit that is being made: its row is in no store yet.  NULL: it is. */
static struct record *unstored_row(struct run *run, uuid id)
{
    for (size_t i = 0; i < run->journal.batch.count; i++) {
        struct write *write = &run->journal.batch.writes[i];
        if (write->op == WRITE_INSERT && write->record.table == TABLE_APPROVALS &&
            uuid_equal(record_uuid(&write->record, APPROVALS_ID), id))
            return &write->record;
    }
    return NULL;
}

static bool get_row(struct run *run, uuid id, struct record *row, struct error *e)
{
    const struct record *unstored = unstored_row(run, id);
    if (unstored) {
        *row = *unstored;
        return true;
    }
    struct record key = record_of(TABLE_APPROVALS);
    record_set_uuid(&key, APPROVALS_ID, id);
    return store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, row, e);
}

static void journal_vote(struct run *run, const struct record *vote, int64_t votes, int64_t quorum)
{
    struct json_writer *w = journal_event(&run->journal, EVENT_APPROVAL_VOTED);
    str delegator = record_text(vote, APPROVAL_VOTES_DELEGATED_BY);
    json_put_str(w, S("approval_id"),
                 uuid_str(run->turn, record_uuid(vote, APPROVAL_VOTES_APPROVAL_ID)));
    json_put_i64(w, S("number"), record_integer(vote, APPROVAL_VOTES_NUMBER));
    json_put_str(w, S("approver"), record_text(vote, APPROVAL_VOTES_APPROVER));
    json_put_str(w, S("decision"), record_text(vote, APPROVAL_VOTES_DECISION));
    if (!str_is_empty(delegator))
        json_put_str(w, S("delegated_by"), delegator);
    json_put_i64(w, S("votes"), votes);
    json_put_i64(w, S("quorum"), quorum);
    journal_close_event(&run->journal);
}

static bool journal_votes(struct run *run, uuid id, int64_t quorum, struct error *e)
{
    struct query *query = ARENA_NEW(run->turn, struct query);
    struct records votes;
    int64_t approving = 0;
    *query = query_of(TABLE_APPROVAL_VOTES);
    query_where_uuid(query, APPROVAL_VOTES_APPROVAL_ID, id);
    if (!store_list(run->o->parts.store, &run->shield, run->tenant_id, query, &votes, e))
        return false;
    for (size_t i = 0; i < votes.count; i++) {
        const struct record *vote = &votes.items[i];
        approving += str_equal(record_text(vote, APPROVAL_VOTES_DECISION), S("approve"));
        if (record_integer(vote, APPROVAL_VOTES_NUMBER) > run_state_votes(&run->state, id))
            journal_vote(run, vote, approving, quorum);
    }
    return true;
}

bool run_approval_look(struct run *run, uuid id, struct approval_outcome *out, struct error *e)
{
    struct record *row = ARENA_NEW(run->turn, struct record);
    if (!get_row(run, id, row, e))
        return false;
    struct approval_outcome outcome = {.approver = record_text(row, APPROVALS_APPROVER),
                                       .reason = record_text(row, APPROVALS_REASON),
                                       .digest = record_text(row, APPROVALS_DIGEST),
                                       .approvers = record_text(row, APPROVALS_APPROVERS),
                                       .votes = record_integer(row, APPROVALS_VOTES),
                                       .quorum = record_integer(row, APPROVALS_QUORUM)};
    str status = record_text(row, APPROVALS_STATUS);
    bool is_known = false;
    for (size_t i = 0; !is_known && i < ARRAY_COUNT(statuses); i++) {
        is_known = str_equal(status, statuses[i].name);
        if (is_known)
            outcome.status = statuses[i].status;
    }
    if (!is_known)
        return error_set(e, REASON_CORRUPT, "an approval with the status \"" STR_FMT "\"",
                         STR_ARG(str_cut_utf8(status, 60)));
    if (outcome.quorum < 1)
        outcome.quorum = 1;
    *out = outcome;
    bool has_votes = outcome.votes > 0 || outcome.status == APPROVAL_DENIED;
    return !has_votes || journal_votes(run, id, outcome.quorum, e);
}

bool run_approval_covers(struct run *run, const struct call *call, const struct tool *tool,
                         str arguments, str approved, struct error *failure)
{
    str subject, now;
    if (!approval_digest(
            run->turn,
            &(struct approval_subject){run->tenant_id, run->run_id, call->id, tool, arguments},
            &subject, &now, failure))
        return false;
    return str_equal(now, approved) ||
           error_set(failure, REASON_STALE_DIGEST,
                     "the tool, its permissions or its arguments have changed since the approval "
                     "was asked for");
}

/* ---- its end ---- */

void run_approval_consume(struct run *run, uuid id)
{
    if (FAULT("plant.approval-reused")) /* a bug put in on purpose: it can be used again */
        return;
    journal_close_event(&run->journal);
    approval_consume(&run->journal.batch, id);
}

bool run_approval_withdraw(struct run *run, uuid id, struct error *e)
{
    struct record *row = ARENA_NEW(run->turn, struct record);
    if (!get_row(run, id, row, e))
        return false;
    if (!str_equal(record_text(row, APPROVALS_STATUS), S("pending")))
        return true;
    struct record *unstored = unstored_row(run, id);
    struct record *update =
        unstored ? unstored : journal_row(&run->journal, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(update, APPROVALS_ID, id);
    record_set_text(update, APPROVALS_STATUS, S("expired"));
    record_set_integer(update, APPROVALS_DECIDED_AT, clock_unix_us(run->o->parts.clock));
    record_set_null(update, APPROVALS_REMIND_AT);
    if (unstored)
        return true;
    batch_where_text(&run->journal.batch, APPROVALS_STATUS, S("pending"));
    return true;
}

static bool is_withdrawal(const struct write *write)
{
    return write->op == WRITE_UPDATE && write->record.table == TABLE_APPROVALS &&
           write->where_column == APPROVALS_STATUS &&
           str_equal(record_text(&write->record, APPROVALS_STATUS), S("expired"));
}

/* False too when nobody can say. */
static bool is_decided(struct run *run, const struct record *withdrawn)
{
    struct record key = record_of(TABLE_APPROVALS), *row = ARENA_NEW(run->turn, struct record);
    struct error ignored = {0};
    record_set_uuid(&key, APPROVALS_ID, record_uuid(withdrawn, APPROVALS_ID));
    return store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, row, &ignored) &&
           !str_equal(record_text(row, APPROVALS_STATUS), S("pending"));
}

bool run_approval_mend(struct run *run, struct batch *batch)
{
    size_t kept = 0, count = batch->count;
    for (size_t i = 0; i < count; i++)
        if (!is_withdrawal(&batch->writes[i]) || !is_decided(run, &batch->writes[i].record))
            batch->writes[kept++] = batch->writes[i];
    batch->count = kept;
    return kept < count;
}
