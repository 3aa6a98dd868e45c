#include "orchestrator/approval_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/orchestrator_testkit.h"

static const str digest_text = S_INIT("d1");

/* An approval that ada's service "robot" asked for on her behalf. */
static uuid make_approval(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    uuid session_id = testkit_session(kit, ctx, &ada, COST_LIMITLESS),
         id = uuid_new(kit->clock, kit->random);
    uuid run_id = uuid_new(kit->clock, kit->random);
    struct batch batch;
    struct error e;
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *run = batch_add(&batch, WRITE_INSERT, TABLE_AGENT_RUNS);
    record_set_uuid(run, AGENT_RUNS_ID, run_id);
    record_set_uuid(run, AGENT_RUNS_SESSION_ID, session_id);
    record_set_text(run, AGENT_RUNS_STATUS, S("completed"));
    record_set_text(run, AGENT_RUNS_COST, S("{}"));
    record_set_text(run, AGENT_RUNS_AGENT, S("assistant"));
    record_set_text(run, AGENT_RUNS_USER_ID, S("ada"));
    record_set_integer(run, AGENT_RUNS_LAST_SEQ, 0);
    record_set_integer(run, AGENT_RUNS_STARTED_AT, clock_unix_us(kit->clock));
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, id);
    record_set_uuid(row, APPROVALS_RUN_ID, run_id);
    record_set_uuid(row, APPROVALS_SESSION_ID, session_id);
    record_set_text(row, APPROVALS_ACTION, S("tool.call"));
    record_set_text(row, APPROVALS_DIGEST, digest_text);
    record_set_text(row, APPROVALS_SUBJECT, S("{}"));
    record_set_text(row, APPROVALS_REQUESTED_BY, S("robot"));
    record_set_text(row, APPROVALS_USER_ID, S("ada"));
    record_set_text(row, APPROVALS_STATUS, S("pending"));
    record_set_integer(row, APPROVALS_CREATED_AT, clock_unix_us(kit->clock));
    record_set_integer(row, APPROVALS_EXPIRES_AT, clock_unix_us(kit->clock) + 1000000);
    if (!store_commit(kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
    return id;
}

static uuid make_key(struct testkit *kit, struct context *ctx, const char *owner, const char *maker)
{
    uuid id = uuid_new(kit->clock, kit->random);
    struct batch batch;
    struct error e;
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_INSERT, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, id);
    record_set_text(row, API_KEYS_NAME, S("k"));
    record_set_text(row, API_KEYS_PREFIX, S("nxs_"));
    record_set_text(row, API_KEYS_HASH, uuid_str(ctx->arena, id));
    record_set_text(row, API_KEYS_USER_ID, str_from_cstr(owner));
    record_set_text(row, API_KEYS_CREATED_BY, str_from_cstr(maker));
    record_set_text(row, API_KEYS_ROLE, S("admin"));
    record_set_text(row, API_KEYS_SCOPES, S("[]"));
    record_set_integer(row, API_KEYS_CREATED_AT, clock_unix_us(kit->clock));
    if (!store_commit(kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
    return id;
}

static void set_rule(struct testkit *kit, struct context *ctx, uuid id, int64_t quorum,
                     const char *approvers)
{
    struct batch batch;
    struct error e;
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, id);
    record_set_integer(row, APPROVALS_QUORUM, quorum);
    if (approvers)
        record_set_text(row, APPROVALS_APPROVERS, str_from_cstr(approvers));
    if (!store_commit(kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

static uuid make_approval_of(struct testkit *kit, struct context *ctx, int64_t quorum)
{
    uuid id = make_approval(kit, ctx);
    set_rule(kit, ctx, id, quorum, NULL);
    return id;
}

/* Signed in with a key of `owner` that `maker` made. */
static struct principal with_key(struct testkit *kit, struct context *ctx, const char *owner,
                                 const char *maker, enum role_level level)
{
    struct principal principal = testkit_principal(kit, owner, level);
    principal.key_id = make_key(kit, ctx, owner, maker);
    return principal;
}

static enum error_reason decide(struct testkit *kit, struct context *ctx,
                                const struct principal *principal, uuid id, str shown)
{
    struct error e = {0};
    struct approval_decision decision = {.approval_id = id, .is_approve = true, .digest = shown};
    return approval_decide(kit->o, ctx, principal, &decision, &e) ? REASON_NONE : e.reason;
}

static str status_of(struct testkit *kit, struct context *ctx, uuid id)
{
    struct principal admin = testkit_principal(kit, "root", ROLE_LEVEL_ADMIN);
    struct record row;
    struct error e;
    assert_true(approval_get(kit->o, ctx, &admin, id, &row, &e));
    return record_text(&row, APPROVALS_STATUS);
}

/* ---- who may ---- */

static void test_neither_the_user_nor_the_requester_may_approve_in_any_role(struct testkit *kit,
                                                                            struct context *ctx)
{
    static const char *const parties[] = {"ada", "robot"};
    uuid id = make_approval(kit, ctx);
    for (size_t i = 0; i < ARRAY_COUNT(parties); i++) {
        struct principal principal = testkit_principal(kit, parties[i], ROLE_LEVEL_ADMIN);
        assert_int_equal(decide(kit, ctx, &principal, id, digest_text), REASON_SELF_APPROVAL);
        principal = testkit_principal(
            kit, "bob", ROLE_LEVEL_ADMIN); /* acting for someone else changes nothing */
        principal.caller_id = str_from_cstr(parties[i]);
        assert_int_equal(decide(kit, ctx, &principal, id, digest_text), REASON_SELF_APPROVAL);
        principal = testkit_principal(kit, parties[i], ROLE_LEVEL_ADMIN);
        principal.caller_id = S("bob");
        assert_int_equal(decide(kit, ctx, &principal, id, digest_text), REASON_SELF_APPROVAL);
    }
    assert_true(str_equal(status_of(kit, ctx, id), S("pending")));
}

static void test_keys_that_a_party_owns_or_made_may_not_approve(struct testkit *kit,
                                                                struct context *ctx)
{
    static const struct {
        const char *owner, *maker;
        enum error_reason reason;
    } keys[] = {
        {"ada", "root", REASON_SELF_APPROVAL}, {"robot", "root", REASON_SELF_APPROVAL},
        {"bob", "ada", REASON_SELF_APPROVAL},  {"bob", "robot", REASON_SELF_APPROVAL},
        {"bob", "root", REASON_NONE},          {"bob", "system", REASON_NONE},
        {"bob", "bob", REASON_NONE},
    };
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
        uuid id = make_approval(kit, ctx);
        struct principal principal = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
        principal.key_id = make_key(kit, ctx, keys[i].owner, keys[i].maker);
        assert_int_equal(decide(kit, ctx, &principal, id, digest_text), keys[i].reason);
    }
    struct principal lost = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    lost.key_id = uuid_new(kit->clock, kit->random); /* a key that is not there speaks for nobody */
    assert_int_equal(decide(kit, ctx, &lost, make_approval(kit, ctx), digest_text),
                     REASON_NOT_FOUND);
}

static void test_deciding_needs_the_role_operator_or_the_scope(struct testkit *kit,
                                                               struct context *ctx)
{
    uuid id = make_approval(kit, ctx);
    struct principal user = testkit_principal(kit, "eve", ROLE_LEVEL_USER);
    assert_int_equal(decide(kit, ctx, &user, id, digest_text),
                     REASON_NOT_FOUND); /* she does not even see it */
    user.scopes = SCOPE_APPROVE;
    assert_int_equal(decide(kit, ctx, &user, id, digest_text), REASON_NONE);
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER);
    assert_int_equal(decide(kit, ctx, &ada, make_approval(kit, ctx), digest_text),
                     REASON_SELF_APPROVAL);
}

static void test_another_tenant_sees_no_approval(struct testkit *kit, struct context *ctx)
{
    uuid id = make_approval(kit, ctx);
    struct principal foreign = testkit_principal(kit, "bob", ROLE_LEVEL_ADMIN);
    struct records rows;
    struct error e;
    foreign.tenant_id = kit->other_tenant_id;
    assert_int_equal(decide(kit, ctx, &foreign, id, digest_text), REASON_NOT_FOUND);
    assert_true(approval_list(kit->o, ctx, &foreign, STR_NONE, STR_NONE, 10, &rows, &e));
    assert_int_equal(rows.count, 0);
}

static void test_a_user_lists_only_approvals_of_their_own(struct testkit *kit, struct context *ctx)
{
    struct principal ada = testkit_principal(kit, "ada", ROLE_LEVEL_USER),
                     eve = testkit_principal(kit, "eve", ROLE_LEVEL_USER);
    struct principal boss = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    struct records rows;
    struct error e;
    make_approval(kit, ctx);
    assert_true(approval_list(kit->o, ctx, &ada, S("pending"), STR_NONE, 10, &rows, &e) &&
                rows.count == 1);
    assert_true(approval_list(kit->o, ctx, &eve, S("pending"), STR_NONE, 10, &rows, &e) &&
                rows.count == 0);
    assert_true(approval_list(kit->o, ctx, &boss, S("pending"), STR_NONE, 10, &rows, &e) &&
                rows.count == 1);
    assert_true(approval_list(kit->o, ctx, &boss, S("denied"), STR_NONE, 10, &rows, &e) &&
                rows.count == 0);
}

/* ---- what and when ---- */

static void test_a_stale_digest_is_a_conflict(struct testkit *kit, struct context *ctx)
{
    struct principal boss = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    uuid id = make_approval(kit, ctx);
    assert_int_equal(decide(kit, ctx, &boss, id, S("d2")), REASON_STALE_DIGEST);
    assert_int_equal(decide(kit, ctx, &boss, id, STR_NONE), REASON_STALE_DIGEST);
    assert_int_equal(error_http_status(REASON_STALE_DIGEST), 409);
    assert_int_equal(decide(kit, ctx, &boss, id, digest_text), REASON_NONE);
}

static void test_an_approval_is_decided_once(struct testkit *kit, struct context *ctx)
{
    struct principal boss = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    struct principal other = testkit_principal(kit, "carl", ROLE_LEVEL_OPERATOR);
    uuid id = make_approval(kit, ctx);
    assert_int_equal(decide(kit, ctx, &boss, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &boss, id, digest_text), REASON_ALREADY_DECIDED);
    assert_int_equal(decide(kit, ctx, &other, id, digest_text), REASON_ALREADY_DECIDED);
    assert_true(str_equal(status_of(kit, ctx, id), S("approved")));
}

struct racer {
    struct testkit *kit;
    uuid id;
    int won, lost;
};

static enum commit_outcome slowly(void *owner, struct context *ctx, const struct batch *batch)
{
    struct error ignored;
    (void) owner;
    (void) batch;
    (void) !context_sleep_ms(ctx, 10, &ignored);
    return COMMIT_OK;
}

static void race(struct context *ctx, void *argument)
{
    struct racer *racer = argument;
    struct principal boss = testkit_principal(racer->kit, "bob", ROLE_LEVEL_OPERATOR);
    enum error_reason reason = decide(racer->kit, ctx, &boss, racer->id, digest_text);
    racer->won += reason == REASON_NONE;
    racer->lost += reason == REASON_ALREADY_DECIDED;
}

static void test_of_those_who_decide_at_the_same_moment_one_wins(struct testkit *kit,
                                                                 struct context *ctx)
{
    struct racer racer = {.kit = kit, .id = make_approval(kit, ctx)};
    struct group group;
    struct error e;
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = slowly});
    group_init(&group, ctx);
    for (int i = 0; i < 8; i++)
        assert_true(group_start(&group, "race", race, &racer, &e));
    group_wait(&group);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_int_equal(racer.won, 1);
    assert_int_equal(racer.lost, 7);
}

static void consume(struct context *ctx, void *argument)
{
    struct racer *racer = argument;
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, ctx->arena, racer->kit->tenant_id);
    approval_consume(&batch, racer->id);
    if (store_commit(racer->kit->store, ctx, &batch, &e))
        racer->won++;
    else
        racer->lost += e.code == ERROR_CONFLICT;
}

/* Whoever would use it: the run, the same run on another node that does not know it is fenced, a second call with the same arguments. */
static void test_an_approval_is_consumed_once_however_many_try_at_the_same_moment(
    struct testkit *kit, struct context *ctx)
{
    struct principal boss = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    struct racer racer = {.kit = kit, .id = make_approval(kit, ctx)};
    struct group group;
    struct error e;
    consume(ctx, &racer);
    assert_int_equal(racer.lost, 1); /* nobody has approved it yet */
    assert_int_equal(decide(kit, ctx, &boss, racer.id, digest_text), REASON_NONE);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = slowly});
    group_init(&group, ctx);
    for (int i = 0; i < 8; i++)
        assert_true(group_start(&group, "consume", consume, &racer, &e));
    group_wait(&group);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    assert_int_equal(racer.won, 1);
    assert_int_equal(racer.lost, 8);
    assert_true(str_equal(status_of(kit, ctx, racer.id), S("consumed")));
    assert_int_equal(decide(kit, ctx, &boss, racer.id, digest_text), REASON_ALREADY_DECIDED);
    consume(ctx, &racer);
    assert_int_equal(racer.won, 1);
}

static void test_an_approval_past_its_time_cannot_be_given(struct testkit *kit, struct context *ctx)
{
    struct principal boss = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    uuid id = make_approval(kit, ctx);
    size_t expired;
    struct error e;
    assert_true(approvals_expire(kit->o, ctx, &expired, &e));
    assert_int_equal(expired, 0);
    assert_true(context_sleep_ms(ctx, 1001, &e));
    assert_int_equal(decide(kit, ctx, &boss, id, digest_text), REASON_ALREADY_DECIDED);
    assert_true(approvals_expire(kit->o, ctx, &expired, &e));
    assert_int_equal(expired, 1);
    assert_true(str_equal(status_of(kit, ctx, id), S("expired")));
    assert_true(approvals_expire(kit->o, ctx, &expired, &e));
    assert_int_equal(expired, 0);
}

static void test_a_decision_is_audited_with_its_digest(struct testkit *kit, struct context *ctx)
{
    struct principal boss = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    struct query query = query_of(TABLE_AUDIT_LOGS);
    struct records rows;
    struct error e;
    assert_int_equal(decide(kit, ctx, &boss, make_approval(kit, ctx), digest_text), REASON_NONE);
    query_where_text(&query, AUDIT_LOGS_ACTION, S("approval.approve"));
    assert_true(store_list(kit->store, ctx, kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    assert_true(str_equal(record_text(&rows.items[0], AUDIT_LOGS_USER_ID), S("bob")));
    assert_true(
        str_equal(record_text(&rows.items[0], AUDIT_LOGS_DETAILS), S("{\"digest\":\"d1\"}")));
}

/* ---- several persons ---- */

static struct record row_of(struct testkit *kit, struct context *ctx, uuid id)
{
    struct principal admin = testkit_principal(kit, "root", ROLE_LEVEL_ADMIN);
    struct record row;
    struct error e;
    assert_true(approval_get(kit->o, ctx, &admin, id, &row, &e));
    return row;
}

static void test_a_quorum_needs_so_many_persons(struct testkit *kit, struct context *ctx)
{
    struct principal bob = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR),
                     carl = testkit_principal(kit, "carl", ROLE_LEVEL_OPERATOR),
                     dora = testkit_principal(kit, "dora", ROLE_LEVEL_OPERATOR);
    uuid id = make_approval_of(kit, ctx, 3);
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_ALREADY_DECIDED);
    assert_int_equal(decide(kit, ctx, &carl, id, digest_text), REASON_NONE);
    assert_true(str_equal(status_of(kit, ctx, id), S("pending")));
    struct record row = row_of(kit, ctx, id);
    assert_int_equal(record_integer(&row, APPROVALS_VOTES), 2);
    assert_int_equal(decide(kit, ctx, &dora, id, digest_text), REASON_NONE);
    row = row_of(kit, ctx, id);
    assert_true(str_equal(record_text(&row, APPROVALS_STATUS), S("approved")));
    assert_true(str_equal(record_text(&row, APPROVALS_APPROVER), S("dora")));
    struct records votes;
    struct error e;
    assert_true(approval_votes(kit->o, ctx, &bob, id, &votes, &e));
    assert_int_equal(votes.count, 3);
    for (size_t i = 0; i < votes.count; i++)
        assert_int_equal(record_integer(&votes.items[i], APPROVAL_VOTES_NUMBER), i + 1);
}

static void test_one_deny_denies_also_of_who_has_approved(struct testkit *kit, struct context *ctx)
{
    struct principal bob = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR),
                     carl = testkit_principal(kit, "carl", ROLE_LEVEL_OPERATOR);
    struct error e = {0};
    uuid id = make_approval_of(kit, ctx, 2);
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_NONE);
    struct approval_decision deny = {
        .approval_id = id, .digest = digest_text, .reason = S("on second thought")};
    assert_true(approval_decide(kit->o, ctx, &bob, &deny, &e));
    assert_true(str_equal(status_of(kit, ctx, id), S("denied")));
    assert_int_equal(decide(kit, ctx, &carl, id, digest_text), REASON_ALREADY_DECIDED);
}

static void test_keys_of_one_person_count_once(struct testkit *kit, struct context *ctx)
{
    struct principal first = with_key(kit, ctx, "bob", "system", ROLE_LEVEL_ADMIN),
                     second = with_key(kit, ctx, "bob", "system", ROLE_LEVEL_ADMIN),
                     made = with_key(kit, ctx, "puppet", "bob", ROLE_LEVEL_ADMIN),
                     other = with_key(kit, ctx, "carl", "system", ROLE_LEVEL_ADMIN);
    uuid id = make_approval_of(kit, ctx, 2);
    assert_int_equal(decide(kit, ctx, &first, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &second, id, digest_text), REASON_ALREADY_DECIDED);
    assert_int_equal(decide(kit, ctx, &made, id, digest_text), REASON_SAME_PERSON);
    assert_true(str_equal(status_of(kit, ctx, id), S("pending")));
    assert_int_equal(decide(kit, ctx, &other, id, digest_text), REASON_NONE);
    assert_true(str_equal(status_of(kit, ctx, id), S("approved")));

    id = make_approval_of(kit, ctx, 2); /* the other way round: the puppet first */
    assert_int_equal(decide(kit, ctx, &made, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &first, id, digest_text), REASON_SAME_PERSON);
    id = make_approval_of(kit, ctx, 2); /* two puppets of one person */
    struct principal twin = with_key(kit, ctx, "twin", "bob", ROLE_LEVEL_ADMIN);
    assert_int_equal(decide(kit, ctx, &made, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &twin, id, digest_text), REASON_SAME_PERSON);
}

static void add_minter(struct testkit *kit, struct context *ctx, uuid key_id, const char *names)
{
    struct batch batch;
    struct error e;
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, key_id);
    record_set_text(row, API_KEYS_MINTERS, str_from_cstr(names));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
}

/* ada -> a key for "x" -> with it a key for "y"; or ada gave bob's key a new text. */
static void test_who_had_a_hand_in_a_key_before_is_behind_it(struct testkit *kit,
                                                             struct context *ctx)
{
    struct principal y = with_key(kit, ctx, "y", "x", ROLE_LEVEL_ADMIN);
    add_minter(kit, ctx, y.key_id, "[\"ada\"]");
    assert_int_equal(decide(kit, ctx, &y, make_approval(kit, ctx), digest_text),
                     REASON_SELF_APPROVAL);
    struct principal bob = with_key(kit, ctx, "bob", "system", ROLE_LEVEL_ADMIN),
                     z = with_key(kit, ctx, "z", "system", ROLE_LEVEL_ADMIN);
    add_minter(kit, ctx, z.key_id, "[\"bob\"]");
    uuid id = make_approval_of(kit, ctx, 2);
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &z, id, digest_text), REASON_SAME_PERSON);
}

static void test_a_registrar_is_not_behind_the_keys_of_others_but_stays_a_party(struct testkit *kit,
                                                                                struct context *ctx)
{
    struct principal bob = with_key(kit, ctx, "bob", "root", ROLE_LEVEL_OPERATOR),
                     carl = with_key(kit, ctx, "carl", "root", ROLE_LEVEL_OPERATOR),
                     of_ada = with_key(kit, ctx, "dora", "ada", ROLE_LEVEL_OPERATOR);
    static const str registrars[] = {S_INIT("root"), S_INIT("ada")};
    struct settings *settings = (struct settings *) (uintptr_t) orchestrator_acquire(kit->o);
    uuid id = make_approval_of(kit, ctx, 2);
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &carl, id, digest_text), REASON_SAME_PERSON);
    settings->registrars = registrars;
    settings->registrar_count = ARRAY_COUNT(registrars);
    id = make_approval_of(kit, ctx, 2);
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &of_ada, id, digest_text), REASON_SELF_APPROVAL);
    assert_int_equal(decide(kit, ctx, &carl, id, digest_text), REASON_NONE);
    settings->registrar_count = 0;
    orchestrator_release(settings);
}

static void test_only_who_is_named_approves(struct testkit *kit, struct context *ctx)
{
    struct principal bob = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR),
                     carl = testkit_principal(kit, "carl", ROLE_LEVEL_OPERATOR),
                     dora = testkit_principal(kit, "dora", ROLE_LEVEL_ADMIN);
    uuid id = make_approval(kit, ctx);
    set_rule(kit, ctx, id, 1,
             "[{\"users\":[\"bob\"],\"roles\":[\"admin\"]},{\"users\":[\"bob\",\"carl\"]}]");
    assert_int_equal(decide(kit, ctx, &carl, id, digest_text), REASON_DENIED);
    assert_int_equal(decide(kit, ctx, &dora, id, digest_text), REASON_DENIED);
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_NONE);
    id = make_approval(kit, ctx);
    set_rule(kit, ctx, id, 1, "[{\"roles\":[\"admin\"]}]");
    assert_int_equal(decide(kit, ctx, &bob, id, digest_text), REASON_DENIED);
    assert_int_equal(decide(kit, ctx, &dora, id, digest_text), REASON_NONE);
}

static void test_runs_tools_and_who_acts_for_another_approve_nothing(struct testkit *kit,
                                                                     struct context *ctx)
{
    uuid id = make_approval(kit, ctx);
    struct principal run = testkit_principal(kit, "bob", ROLE_LEVEL_ADMIN);
    run.is_run = true;
    assert_int_equal(decide(kit, ctx, &run, id, digest_text), REASON_DENIED);
    struct principal actor = testkit_principal(kit, "bob", ROLE_LEVEL_ADMIN);
    actor.caller_id = S("carl");
    assert_int_equal(decide(kit, ctx, &actor, id, digest_text), REASON_DENIED);
    assert_true(str_equal(status_of(kit, ctx, id), S("pending")));
}

static void test_a_revoked_key_approves_nothing(struct testkit *kit, struct context *ctx)
{
    struct principal bob = with_key(kit, ctx, "bob", "system", ROLE_LEVEL_ADMIN);
    struct batch batch;
    struct error e;
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, bob.key_id);
    record_set_integer(row, API_KEYS_REVOKED_AT, clock_unix_us(kit->clock));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_int_equal(decide(kit, ctx, &bob, make_approval(kit, ctx), digest_text),
                     REASON_UNAUTHENTICATED);
}

struct voter {
    struct testkit *kit;
    uuid id;
    const char *name;
    enum error_reason reason;
};

static void vote(struct context *ctx, void *argument)
{
    struct voter *voter = argument;
    struct principal principal = testkit_principal(voter->kit, voter->name, ROLE_LEVEL_OPERATOR);
    voter->reason = decide(voter->kit, ctx, &principal, voter->id, digest_text);
}

static void test_two_last_votes_at_once_are_one_after_the_other(struct testkit *kit,
                                                                struct context *ctx)
{
    static const char *const names[] = {"bob", "carl", "dora", "emil", "fred", "gina"};
    struct voter voters[ARRAY_COUNT(names)];
    struct group group;
    struct error e;
    uuid id = make_approval_of(kit, ctx, 4);
    int given = 0, late = 0;
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = slowly});
    group_init(&group, ctx);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        voters[i] = (struct voter){kit, id, names[i], REASON_NONE};
        assert_true(group_start(&group, "vote", vote, &voters[i], &e));
    }
    group_wait(&group);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        given += voters[i].reason == REASON_NONE;
        late += voters[i].reason == REASON_ALREADY_DECIDED;
    }
    assert_int_equal(given, 4);
    assert_int_equal(late, 2);
    struct record row = row_of(kit, ctx, id);
    assert_int_equal(record_integer(&row, APPROVALS_VOTES), 4);
    assert_true(str_equal(record_text(&row, APPROVALS_STATUS), S("approved")));
}

static void test_a_vote_against_the_expiry_is_one_or_the_other(struct testkit *kit,
                                                               struct context *ctx)
{
    struct voter voter = {kit, make_approval(kit, ctx), "bob", REASON_NONE};
    struct group group;
    struct error e;
    size_t expired;
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){.before_commit = slowly});
    assert_true(context_sleep_ms(ctx, 995, &e)); /* the vote is given in time, its commit is not */
    group_init(&group, ctx);
    assert_true(group_start(&group, "vote", vote, &voter, &e));
    assert_true(context_sleep_ms(ctx, 6, &e));
    assert_true(approvals_expire(kit->o, ctx, &expired, &e));
    group_wait(&group);
    memory_store_set_hooks(kit->store, (struct memory_store_hooks){0});
    str status = status_of(kit, ctx, voter.id);
    assert_true(str_equal(status, voter.reason == REASON_NONE ? S("approved") : S("expired")));
}

/* ---- delegation ---- */

static enum error_reason delegate_until(struct testkit *kit, struct context *ctx,
                                        const struct principal *from, const char *to, int64_t ms)
{
    struct error e = {0};
    struct record row;
    struct approval_delegation wanted = {.to_user = str_from_cstr(to),
                                         .expires_us = clock_unix_us(kit->clock) + ms * 1000};
    return approval_delegate(kit->o, ctx, from, &wanted, &row, &e) ? REASON_NONE : e.reason;
}

static void test_a_delegate_approves_in_anothers_place_and_both_are_in_the_vote(struct testkit *kit,
                                                                                struct context *ctx)
{
    struct principal boss = with_key(kit, ctx, "boss", "system", ROLE_LEVEL_ADMIN),
                     helper = testkit_principal(kit, "helper", ROLE_LEVEL_USER);
    struct records votes;
    struct error e;
    uuid id = make_approval(kit, ctx);
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_NOT_FOUND);
    assert_int_equal(delegate_until(kit, ctx, &boss, "helper", 500), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_NONE);
    assert_true(str_equal(status_of(kit, ctx, id), S("approved")));
    assert_true(approval_votes(kit->o, ctx, &boss, id, &votes, &e));
    assert_true(str_equal(record_text(&votes.items[0], APPROVAL_VOTES_APPROVER), S("helper")));
    assert_true(str_equal(record_text(&votes.items[0], APPROVAL_VOTES_DELEGATED_BY), S("boss")));

    id = make_approval_of(kit, ctx, 2); /* the two are one vote */
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &boss, id, digest_text), REASON_SAME_PERSON);
    assert_true(context_sleep_ms(ctx, 501, &e)); /* and it ends */
    assert_int_equal(decide(kit, ctx, &helper, make_approval(kit, ctx), digest_text),
                     REASON_NOT_FOUND);
}

static void test_a_delegation_gives_no_more_than_its_giver_may_now(struct testkit *kit,
                                                                   struct context *ctx)
{
    struct principal boss = with_key(kit, ctx, "boss", "system", ROLE_LEVEL_ADMIN),
                     helper = testkit_principal(kit, "helper", ROLE_LEVEL_USER);
    struct batch batch;
    struct error e;
    assert_int_equal(delegate_until(kit, ctx, &boss, "helper", 900), REASON_NONE);
    uuid id = make_approval(kit, ctx);
    set_rule(kit, ctx, id, 1, "[{\"users\":[\"carl\"]}]");
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_DENIED);
    set_rule(kit, ctx, id, 1, "[{\"users\":[\"boss\"]}]");
    batch_init(&batch, ctx->arena, kit->tenant_id); /* the giver's right has gone */
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_API_KEYS);
    record_set_uuid(row, API_KEYS_ID, boss.key_id);
    record_set_text(row, API_KEYS_ROLE, S("user"));
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_DENIED);
}

static void test_a_delegation_helps_no_party_and_does_not_pass_on(struct testkit *kit,
                                                                  struct context *ctx)
{
    struct principal boss = with_key(kit, ctx, "boss", "system", ROLE_LEVEL_ADMIN),
                     ada = with_key(kit, ctx, "ada", "system", ROLE_LEVEL_ADMIN),
                     puppet = with_key(kit, ctx, "puppet", "ada", ROLE_LEVEL_ADMIN),
                     helper = testkit_principal(kit, "helper", ROLE_LEVEL_USER);
    uuid id = make_approval(kit, ctx);
    assert_int_equal(delegate_until(kit, ctx, &boss, "ada", 900), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &ada, id, digest_text), REASON_SELF_APPROVAL);
    assert_int_equal(delegate_until(kit, ctx, &ada, "helper", 900), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_DENIED);
    assert_int_equal(delegate_until(kit, ctx, &puppet, "helper", 900), REASON_NONE);
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_DENIED);
    assert_int_equal(delegate_until(kit, ctx, &helper, "friend", 900), REASON_DENIED);
    assert_int_equal(delegate_until(kit, ctx, &boss, "helper", 900), REASON_NONE);
    assert_int_equal(delegate_until(kit, ctx, &helper, "friend", 900), REASON_DENIED);
    struct principal stranger = testkit_principal(kit, "friend", ROLE_LEVEL_USER);
    assert_int_equal(decide(kit, ctx, &stranger, id, digest_text), REASON_NOT_FOUND);
    assert_int_equal(decide(kit, ctx, &helper, id, digest_text), REASON_NONE);
}

static void test_one_who_stands_for_two_is_one_vote_of_two_persons(struct testkit *kit,
                                                                   struct context *ctx)
{
    struct principal boss = with_key(kit, ctx, "boss", "system", ROLE_LEVEL_ADMIN),
                     chief = with_key(kit, ctx, "chief", "system", ROLE_LEVEL_ADMIN),
                     bob = testkit_principal(kit, "bob", ROLE_LEVEL_OPERATOR);
    struct error e = {0};
    uuid id = make_approval_of(kit, ctx, 2);
    assert_int_equal(delegate_until(kit, ctx, &boss, "bob", 900), REASON_NONE);
    assert_int_equal(delegate_until(kit, ctx, &chief, "bob", 900), REASON_NONE);
    struct approval_decision decision = {
        .approval_id = id, .is_approve = true, .digest = digest_text, .in_place_of = S("boss")};
    assert_true(approval_decide(kit->o, ctx, &bob, &decision, &e));
    decision.in_place_of = S("chief");
    assert_false(approval_decide(kit->o, ctx, &bob, &decision, &e));
    assert_int_equal(e.reason, REASON_ALREADY_DECIDED);
    decision.in_place_of = S("nobody");
    assert_false(approval_decide(kit->o, ctx, &bob, &decision, &e));
    assert_int_equal(decide(kit, ctx, &chief, id, digest_text), REASON_NONE);
    assert_true(str_equal(status_of(kit, ctx, id), S("approved")));
}

static void test_a_delegation_is_listed_by_its_ends_and_ended_by_them(struct testkit *kit,
                                                                      struct context *ctx)
{
    struct principal boss = with_key(kit, ctx, "boss", "system", ROLE_LEVEL_OPERATOR),
                     helper = testkit_principal(kit, "helper", ROLE_LEVEL_USER),
                     other = testkit_principal(kit, "other", ROLE_LEVEL_OPERATOR);
    struct records rows;
    struct error e = {0};
    assert_int_equal(delegate_until(kit, ctx, &boss, "boss", 900), REASON_SCHEMA);
    assert_int_equal(delegate_until(kit, ctx, &boss, "helper", -1), REASON_SCHEMA);
    assert_int_equal(delegate_until(kit, ctx, &boss, "helper", APPROVAL_DELEGATION_MS_MAX + 1000),
                     REASON_SCHEMA);
    assert_int_equal(delegate_until(kit, ctx, &boss, "helper", 900), REASON_NONE);
    assert_true(approval_delegations(kit->o, ctx, &helper, STR_NONE, 10, &rows, &e));
    assert_int_equal(rows.count, 1);
    assert_true(approval_delegations(kit->o, ctx, &other, STR_NONE, 10, &rows, &e));
    assert_int_equal(rows.count, 0);
    assert_false(approval_delegation_revoke(kit->o, ctx, &other, S("boss"), S("helper"), &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
    assert_true(approval_delegation_revoke(kit->o, ctx, &helper, S("boss"), S("helper"), &e));
    assert_int_equal(decide(kit, ctx, &helper, make_approval(kit, ctx), digest_text),
                     REASON_NOT_FOUND);
}

/* ---- reminders ---- */

static void note_reminder(void *owner, struct context *ctx, uuid tenant_id,
                          const struct record *approval)
{
    (void) ctx;
    (void) tenant_id;
    assert_true(record_has(approval, APPROVALS_DIGEST));
    ++*(int *) owner;
}

static void test_reminders_come_at_their_times_and_end(struct testkit *kit, struct context *ctx)
{
    struct batch batch;
    struct error e;
    int told = 0;
    size_t reminded, total = 0;
    uuid id = make_approval(kit, ctx);
    kit->o->parts.approval_reminded = note_reminder;
    kit->o->parts.reminded_owner = &told;
    batch_init(&batch, ctx->arena, kit->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, id);
    record_set_integer(row, APPROVALS_EXPIRES_AT, clock_unix_us(kit->clock) + 3600000000);
    record_set_integer(row, APPROVALS_REMIND_AT, clock_unix_us(kit->clock) + 1000000);
    record_set_integer(row, APPROVALS_REMIND_MS, 1000);
    assert_true(store_commit(kit->store, ctx, &batch, &e));
    assert_true(approvals_remind(kit->o, ctx, &reminded, &e));
    assert_int_equal(reminded, 0);
    for (int i = 0; i < APPROVAL_REMINDERS_MAX + 5; i++, total += reminded) {
        assert_true(context_sleep_ms(ctx, 1001, &e));
        assert_true(approvals_remind(kit->o, ctx, &reminded, &e));
    }
    assert_int_equal(total, APPROVAL_REMINDERS_MAX);
    assert_int_equal(told, APPROVAL_REMINDERS_MAX);
    struct record after = row_of(kit, ctx, id);
    assert_int_equal(record_integer(&after, APPROVALS_REMINDERS), APPROVAL_REMINDERS_MAX);
    assert_false(record_has(&after, APPROVALS_REMIND_AT));
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_neither_the_user_nor_the_requester_may_approve_in_any_role),
        TESTKIT_BODY(test_keys_that_a_party_owns_or_made_may_not_approve),
        TESTKIT_BODY(test_deciding_needs_the_role_operator_or_the_scope),
        TESTKIT_BODY(test_another_tenant_sees_no_approval),
        TESTKIT_BODY(test_a_user_lists_only_approvals_of_their_own),
        TESTKIT_BODY(test_a_stale_digest_is_a_conflict),
        TESTKIT_BODY(test_an_approval_is_decided_once),
        TESTKIT_BODY(test_of_those_who_decide_at_the_same_moment_one_wins),
        TESTKIT_BODY(test_an_approval_is_consumed_once_however_many_try_at_the_same_moment),
        TESTKIT_BODY(test_an_approval_past_its_time_cannot_be_given),
        TESTKIT_BODY(test_a_decision_is_audited_with_its_digest),
        TESTKIT_BODY(test_a_quorum_needs_so_many_persons),
        TESTKIT_BODY(test_one_deny_denies_also_of_who_has_approved),
        TESTKIT_BODY(test_keys_of_one_person_count_once),
        TESTKIT_BODY(test_who_had_a_hand_in_a_key_before_is_behind_it),
        TESTKIT_BODY(test_a_registrar_is_not_behind_the_keys_of_others_but_stays_a_party),
        TESTKIT_BODY(test_only_who_is_named_approves),
        TESTKIT_BODY(test_runs_tools_and_who_acts_for_another_approve_nothing),
        TESTKIT_BODY(test_a_revoked_key_approves_nothing),
        TESTKIT_BODY(test_two_last_votes_at_once_are_one_after_the_other),
        TESTKIT_BODY(test_a_vote_against_the_expiry_is_one_or_the_other),
        TESTKIT_BODY(test_a_delegate_approves_in_anothers_place_and_both_are_in_the_vote),
        TESTKIT_BODY(test_a_delegation_gives_no_more_than_its_giver_may_now),
        TESTKIT_BODY(test_a_delegation_helps_no_party_and_does_not_pass_on),
        TESTKIT_BODY(test_one_who_stands_for_two_is_one_vote_of_two_persons),
        TESTKIT_BODY(test_a_delegation_is_listed_by_its_ends_and_ended_by_them),
        TESTKIT_BODY(test_reminders_come_at_their_times_and_end),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
