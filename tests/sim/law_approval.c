/* Laws of approvals. */
#include "base/arena.h"
#include "base/digest.h"
#include "laws_internal.h"
#include "store/check.h"

enum status { PENDING, APPROVED, DENIED, EXPIRED, CONSUMED, STATUS_COUNT };
static const char *const names[] = {"pending", "approved", "denied", "expired", "consumed"};

enum { VOTERS_MAX = 16 };
struct law_approval {
    enum status status;
    uuid id, call_id;
    str digest, user, requester, tool;
    const struct json *arguments;
    int64_t quorum;
    str voters[VOTERS_MAX]; /* who approved; with "for NAME" who let them */
    int voter_count;
    bool is_denied;
};

static bool status_of(const struct record *row, enum status *out)
{
    for (int i = 0; i < STATUS_COUNT; i++)
        if (str_equal(record_text(row, APPROVALS_STATUS), str_from_cstr(names[i]))) {
            *out = (enum status) i;
            return true;
        }
    return false;
}

static struct law_approval *find(struct world *world, uuid id)
{
    return map_find(laws_of(world)->approvals, law_key(&id));
}

static void asked(struct world *world, const struct record *row)
{
    struct laws *laws = laws_of(world);
    struct law_approval *approval = ARENA_NEW(world->arena, struct law_approval);
    str subject = record_text(row, APPROVALS_SUBJECT);
    const struct json *tree;
    struct error e = {0};
    *approval = (struct law_approval){
        .id = record_uuid(row, APPROVALS_ID),
        .call_id = record_uuid(row, APPROVALS_TOOL_CALL_ID),
        .digest = str_copy(world->arena, record_text(row, APPROVALS_DIGEST)),
        .user = str_copy(world->arena, record_text(row, APPROVALS_USER_ID)),
        .requester = str_copy(world->arena, record_text(row, APPROVALS_REQUESTED_BY)),
        .quorum = record_integer(row, APPROVALS_QUORUM),
    };
    (void) status_of(row, &approval->status);
    if (approval->quorum > 1)
        cover(world, COVER_APPROVAL_QUORUM);
    if (!str_equal(approval->digest, digest_hex(laws->scratch, digest_sha256(subject))))
        world_violation(world, "the digest of an approval is not its subject's");
    if (!json_parse(world->arena, subject, (struct json_limits){0}, &tree, &e)) {
        world_violation(world, "the subject of an approval cannot be read");
        return;
    }
    approval->tool = json_str_or(tree, S("tool"), STR_NONE);
    approval->arguments = json_get(tree, S("arguments"));
    map_put(laws->approvals, law_key(&approval->id), approval);
    if (!uuid_is_none(approval->call_id))
        map_put(laws->approvals_of_calls, law_key(&approval->call_id), approval);
}

static void check_quorum(struct world *world, const struct law_approval *approval)
{
    int64_t quorum = approval->quorum > 1 ? approval->quorum : 1;
    if (approval->voter_count < quorum)
        world_violation(world, "an approval that needs %lld persons was approved by %d",
                        (long long) quorum, approval->voter_count);
    for (int i = 0; i < approval->voter_count; i++) {
        if (str_equal(approval->voters[i], approval->user) ||
            str_equal(approval->voters[i], approval->requester))
            world_violation(world, "a party approved its own request");
        for (int k = 0; k < i; k++)
            if (str_equal(approval->voters[i], approval->voters[k]))
                world_violation(world, "one person counted twice for one approval");
    }
}

static void moved(struct world *world, struct law_approval *approval, enum status to)
{
    enum status from = approval->status;
    bool is_lawful = to == CONSUMED ? from == APPROVED : from == PENDING;
    if (!is_lawful)
        world_violation(world, "an approval went from %s to %s", names[from], names[to]);
    if (to == APPROVED || to == CONSUMED)
        check_quorum(world, approval);
    if (to == DENIED && !approval->is_denied)
        world_violation(world, "an approval was denied by nobody");
    approval->status = to;
    cover(world, to == CONSUMED  ? COVER_APPROVAL_CONSUMED
                 : to == DENIED  ? COVER_APPROVAL_DENIED
                 : to == EXPIRED ? COVER_APPROVAL_EXPIRED
                                 : COVER_APPROVAL_APPROVED);
}

void law_approval_write(struct world *world, const struct write *write)
{
    const struct record *row = &write->record;
    enum status to;
    if (write_is_insert(write->op)) {
        asked(world, row);
        return;
    }
    struct law_approval *approval = find(world, record_uuid(row, APPROVALS_ID));
    if (record_has(row, APPROVALS_REMINDERS))
        cover(world, COVER_APPROVAL_REMINDED);
    if (!approval || write->op == WRITE_DELETE || !status_of(row, &to))
        return;
    moved(world, approval, to);
}

void law_vote_row(struct world *world, const struct record *row)
{
    struct law_approval *approval = find(world, record_uuid(row, APPROVAL_VOTES_APPROVAL_ID));
    bool is_reading = laws_of(world)->is_reading;
    if (!approval) {
        world_violation(world, "a vote on an approval that is not there");
        return;
    }
    if (approval->status != PENDING && !is_reading)
        world_violation(world, "a vote on an approval that is %s", names[approval->status]);
    if (!str_equal(record_text(row, APPROVAL_VOTES_DIGEST), approval->digest))
        world_violation(world, "a vote on another digest than the approval's");
    if (record_has(row, APPROVAL_VOTES_DELEGATED_BY))
        cover(world, COVER_APPROVAL_DELEGATED);
    if (!str_equal(record_text(row, APPROVAL_VOTES_DECISION), S("approve")))
        approval->is_denied = true;
    else if (approval->voter_count < VOTERS_MAX)
        approval->voters[approval->voter_count++] =
            str_copy(world->arena, record_text(row, APPROVAL_VOTES_APPROVER));
}

/* What needs another person (policy of simulated_parts.c: category system) has one, who said yes to exactly this. */
void law_approval_effect(struct world *world, const struct tool_request *request)
{
    struct laws *laws = laws_of(world);
    const struct law_approval *approval =
        map_find(laws->approvals_of_calls, law_key(&request->call_id));
    const struct json *input;
    struct error e = {0};
    if (!approval) {
        if (str_equal(request->tool->category, S("system")))
            world_violation(world, "a " STR_FMT " call ran and nobody had been asked",
                            STR_ARG(request->tool->name));
        return;
    }
    if (approval->status != CONSUMED)
        world_violation(world, "a " STR_FMT " call ran while its approval is %s",
                        STR_ARG(request->tool->name), names[approval->status]);
    if (!str_equal(approval->tool, request->tool->name) ||
        !json_parse(laws->scratch, request->input, (struct json_limits){0}, &input, &e) ||
        !str_equal(json_canonical(laws->scratch, input),
                   json_canonical(laws->scratch, approval->arguments)))
        world_violation(world, "a call ran with other arguments than were approved");
}
