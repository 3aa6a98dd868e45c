#include "orchestrator/orchestrator_internal.h"

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

static enum error_reason decide(struct testkit *kit, struct context *ctx,
                                const struct principal *principal, uuid id, str shown)
{
    struct error e = {0};
    struct approval_decision decision = {id, true, shown, STR_NONE};
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
    assert_int_equal(decide(kit, ctx, &ada, make_approval(kit, ctx), digest_text), REASON_DENIED);
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

/* ---- the digest ---- */

static str digest_of(struct arena *arena, const struct approval_subject *subject)
{
    str json, text;
    struct error e;
    if (!approval_digest(arena, subject, &json, &text, &e))
        fail_msg("%s", e.message);
    return text;
}

static void test_the_digest_changes_with_every_part_and_with_nothing_else(struct testkit *kit,
                                                                          struct context *ctx)
{
    struct tool tool = {.name = S("wipe"), .version = S("1.0.0")};
    struct approval_subject base = {.tenant_id = kit->tenant_id,
                                    .run_id = kit->tenant_id,
                                    .tool_call_id = kit->tenant_id,
                                    .tool = &tool,
                                    .arguments = S("{\"a\":1,\"b\":[2,3]}")};
    str wanted = digest_of(ctx->arena, &base);
    assert_int_equal(wanted.len, 64);
    struct approval_subject same = base;
    same.arguments =
        S(" { \"b\" : [2, 3.0], \"a\":1e0 } "); /* canonical: neither order nor spelling count */
    assert_true(str_equal(digest_of(ctx->arena, &same), wanted));

    str host = S("example.com");
    struct tool tools[] = {tool, tool, tool, tool, tool};
    tools[0].name = S("wipf");
    tools[1].version = S("1.0.1");
    tools[2].module_digest = digest_sha256(S("another module"));
    tools[3].permissions.network.is_set = true;
    tools[3].permissions.network.allowed_hosts = (struct str_list){&host, 1};
    tools[4].permissions.max_file_bytes = 5;
    struct approval_subject other[5 + 5];
    for (size_t i = 0; i < ARRAY_COUNT(other); i++)
        other[i] = base;
    for (size_t i = 0; i < ARRAY_COUNT(tools); i++)
        other[i].tool = &tools[i];
    other[5].tenant_id = kit->other_tenant_id;
    other[6].run_id = kit->other_tenant_id;
    other[7].tool_call_id = kit->other_tenant_id;
    other[8].arguments = S("{\"a\":1,\"b\":[3,2]}");
    other[9].arguments = S("{\"a\":\"1\",\"b\":[2,3]}");
    for (size_t i = 0; i < ARRAY_COUNT(other); i++) {
        assert_false(str_equal(digest_of(ctx->arena, &other[i]), wanted));
        for (size_t k = 0; k < i; k++)
            assert_false(
                str_equal(digest_of(ctx->arena, &other[i]), digest_of(ctx->arena, &other[k])));
    }
}

static void test_arguments_that_are_no_json_have_no_digest(struct testkit *kit, struct context *ctx)
{
    struct tool tool = {.name = S("wipe"), .version = S("1.0.0")};
    struct approval_subject subject = {.tenant_id = kit->tenant_id, .tool = &tool};
    static const char *const wrong[] = {"{\"a\":", "{},\"tool\":\"lookup\"", "{\"a\":1,\"a\":2}",
                                        ""};
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        str json, text;
        struct error e = {0};
        subject.arguments = str_from_cstr(wrong[i]);
        assert_false(approval_digest(ctx->arena, &subject, &json, &text, &e));
        assert_int_equal(e.code, ERROR_INVALID);
    }
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
        TESTKIT_BODY(test_an_approval_past_its_time_cannot_be_given),
        TESTKIT_BODY(test_a_decision_is_audited_with_its_digest),
        TESTKIT_BODY(test_the_digest_changes_with_every_part_and_with_nothing_else),
        TESTKIT_BODY(test_arguments_that_are_no_json_have_no_digest),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
