/* What stands below a run, from its rows: how many, what it cost, what is waited for; and how much of that is looked at. */
#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/run/run_below.h"

enum { ROWS_PER_BATCH = 500 };

/* ---- rows ---- */

struct planting {
    struct context *ctx;
    uuid tenant_id;
    struct batch batch;
};

static void store_planted(struct planting *p)
{
    struct error e = {0};
    if (p->batch.count > 0 && !store_commit(scene.kit->store, p->ctx, &p->batch, &e))
        fail_msg("%s", e.message);
    batch_init(&p->batch, p->ctx->arena, p->tenant_id);
}

static struct planting planting_in(struct context *ctx, uuid tenant_id)
{
    struct planting p = {.ctx = ctx, .tenant_id = tenant_id};
    batch_init(&p.batch, ctx->arena, tenant_id);
    return p;
}

static uuid fresh_id(void)
{
    return uuid_new(scene.kit->clock, scene.kit->random);
}

/* A run of so many tokens below `parent`; live when `status` is not completed. */
static void plant_as(struct planting *p, uuid id, uuid parent, const char *agent,
                     const char *status, int64_t tokens)
{
    struct record *row = batch_add(&p->batch, WRITE_INSERT, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, id);
    record_set_uuid(row, AGENT_RUNS_SESSION_ID, scene.session_id);
    record_set_text(row, AGENT_RUNS_STATUS, str_from_cstr(status));
    record_set_integer(row, AGENT_RUNS_STARTED_AT, 1);
    if (str_equal(str_from_cstr(status), S("completed")))
        record_set_integer(row, AGENT_RUNS_COMPLETED_AT, 2);
    record_set_text(row, AGENT_RUNS_COST,
                    str_printf(p->ctx->arena,
                               "{\"tokens\":%lld,\"time_ms\":0,\"cost_nanousd\":\"%lld\","
                               "\"tool_calls\":0}",
                               (long long) tokens, (long long) tokens * 10));
    record_set_text(row, AGENT_RUNS_AGENT, str_from_cstr(agent));
    record_set_text(row, AGENT_RUNS_USER_ID, S("ada"));
    record_set_integer(row, AGENT_RUNS_LAST_SEQ, 1);
    record_set_integer(row, AGENT_RUNS_DEPTH, 1);
    record_set_uuid(row, AGENT_RUNS_PARENT_RUN_ID, parent);
    if (p->batch.count >= ROWS_PER_BATCH)
        store_planted(p);
}

static uuid plant(struct planting *p, uuid parent, const char *agent, const char *status,
                  int64_t tokens)
{
    uuid id = fresh_id();
    plant_as(p, id, parent, agent, status, tokens);
    return id;
}

/* The scene's session, as this tenant's. */
static void plant_session(struct planting *p)
{
    struct error e = {0};
    struct record key = record_of(TABLE_SESSIONS);
    struct record *row = batch_add(&p->batch, WRITE_INSERT, TABLE_SESSIONS);
    record_set_uuid(&key, SESSIONS_ID, scene.session_id);
    if (!store_get(scene.kit->store, p->ctx, scene.kit->tenant_id, &key, row, &e))
        fail_msg("%s", e.message);
}

static uuid plant_approval(struct planting *p, uuid run_id, const char *status)
{
    uuid id = fresh_id();
    struct record *row = batch_add(&p->batch, WRITE_INSERT, TABLE_APPROVALS);
    record_set_uuid(row, APPROVALS_ID, id);
    record_set_uuid(row, APPROVALS_RUN_ID, run_id);
    record_set_uuid(row, APPROVALS_SESSION_ID, scene.session_id);
    record_set_text(row, APPROVALS_ACTION, S("tool.call"));
    record_set_text(row, APPROVALS_DIGEST, S("00"));
    record_set_text(row, APPROVALS_SUBJECT, S("{}"));
    record_set_text(row, APPROVALS_REQUESTED_BY, S("ada"));
    record_set_text(row, APPROVALS_USER_ID, S("ada"));
    record_set_text(row, APPROVALS_STATUS, str_from_cstr(status));
    record_set_integer(row, APPROVALS_CREATED_AT, 1);
    record_set_integer(row, APPROVALS_EXPIRES_AT, 2);
    return id;
}

/* ---- what is read ---- */

static struct record row_of(struct context *ctx, uuid run_id)
{
    return testkit_run(scene.kit, ctx, run_id);
}

static struct run_below below(struct context *ctx, uuid run_id)
{
    struct run_below out;
    struct error e = {0};
    struct record row = row_of(ctx, run_id);
    if (!run_below_read(scene.kit->o, ctx, &scene.user, &row, &out, &e))
        fail_msg("%s", e.message);
    return out;
}

static size_t waits(struct context *ctx, uuid run_id, struct run_wait **out)
{
    size_t count;
    struct error e = {0};
    struct record row = row_of(ctx, run_id);
    if (!run_waits_read(scene.kit->o, ctx, &scene.user, &row, out, &count, &e))
        fail_msg("%s", e.message);
    return count;
}

/* ---- scripts ---- */

static void check_family(struct context *ctx, void *unused)
{
    (void) unused;
    struct run_wait *found;
    struct planting p = planting_in(ctx, scene.kit->tenant_id);
    scene_begin(ctx, NULL);
    uuid root = plant(&p, scene.run_id, "leader", "running", 0);
    uuid done = plant(&p, root, "helper", "completed", 100);
    uuid live = plant(&p, root, "helper", "waiting", 20);
    (void) plant(&p, root, "model:tiny", "completed", 3);
    uuid deep = plant(&p, live, "helper", "waiting", 4000);
    (void) plant(&p, done, "helper", "completed", 50000);
    uuid own = plant_approval(&p, root, "pending");
    uuid inner = plant_approval(&p, deep, "pending");
    (void) plant_approval(&p, live, "approved");
    (void) plant_approval(&p, done, "pending"); /* of a run that has ended: nobody waits */
    store_planted(&p);
    struct run_below all = below(ctx, root);
    assert_int_equal(all.children, 3);
    assert_true(all.is_whole);
    assert_int_equal(all.spent.tokens, 54123);
    assert_int_equal(all.spent.cost_nanousd, 541230);
    assert_int_equal(waits(ctx, root, &found), 2);
    assert_true(uuid_equal(found[0].approval_id, own) && uuid_equal(found[0].run_id, root));
    assert_true(uuid_equal(found[1].approval_id, inner) && uuid_equal(found[1].run_id, deep));
    assert_int_equal(waits(ctx, done, &found), 0);
}

static void test_cost_and_approvals_of_all_below_are_those_of_the_run(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, check_family, NULL);
}

static void check_tenants(struct context *ctx, void *unused)
{
    (void) unused;
    struct run_wait *found;
    uuid other = scene.kit->other_tenant_id;
    struct planting p = planting_in(ctx, scene.kit->tenant_id), q = planting_in(ctx, other);
    scene_begin(ctx, NULL);
    uuid root = plant(&p, scene.run_id, "leader", "running", 7);
    store_planted(&p);
    plant_session(&q);
    plant_as(&q, root, scene.run_id, "leader", "running", 0);
    uuid theirs = plant(&q, root, "helper", "waiting", 1000);
    (void) plant_approval(&q, theirs, "pending");
    (void) plant_approval(&q, root, "pending");
    store_planted(&q);
    struct run_below all = below(ctx, root);
    assert_int_equal(all.children, 0);
    assert_int_equal(all.spent.tokens, 7);
    assert_int_equal(waits(ctx, root, &found), 0);
}

static void test_another_tenants_rows_are_not_seen_even_if_they_name_the_run(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, check_tenants, NULL);
}

static void check_rows(struct context *ctx, void *unused)
{
    (void) unused;
    struct planting p = planting_in(ctx, scene.kit->tenant_id);
    scene_begin(ctx, NULL);
    uuid root = plant(&p, scene.run_id, "leader", "running", 0);
    for (size_t i = 0; i < RUN_BELOW_ROWS_MAX - 1; i++)
        (void) plant(&p, root, "model:tiny", "completed", 1);
    store_planted(&p);
    struct run_below all = below(ctx, root);
    assert_true(all.is_whole);
    assert_int_equal(all.spent.tokens, RUN_BELOW_ROWS_MAX - 1);
    for (size_t i = 0; i < STORE_PAGE_MAX; i++)
        (void) plant(&p, root, "model:tiny", "completed", 1);
    store_planted(&p);
    all = below(ctx, root);
    assert_false(all.is_whole);
    assert_int_equal(all.children, RUN_BELOW_ROWS_MAX);
}

static void test_a_run_of_very_many_is_not_added_up(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, check_rows, NULL);
}

static void check_parents(struct context *ctx, void *unused)
{
    (void) unused;
    struct run_wait *found;
    struct planting p = planting_in(ctx, scene.kit->tenant_id);
    scene_begin(ctx, NULL);
    uuid root = plant(&p, scene.run_id, "leader", "running", 0), child = root;
    for (size_t i = 1; i < RUN_BELOW_PARENTS_MAX; i++) {
        child = plant(&p, root, "helper", "waiting", 1);
        (void) plant_approval(&p, child, "pending");
    }
    store_planted(&p);
    assert_true(below(ctx, root).is_whole);
    assert_int_equal(waits(ctx, root, &found), RUN_WAITS_MAX);
    child = plant(&p, root, "helper", "waiting", 1);
    store_planted(&p);
    struct run_below all = below(ctx, root);
    assert_false(all.is_whole);
    assert_int_equal(all.children, RUN_BELOW_PARENTS_MAX);
}

static void test_only_so_many_runs_are_looked_into(struct testkit *kit)
{
    scene_start(kit);
    testkit_do(kit, check_parents, NULL);
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_SCRIPT(test_cost_and_approvals_of_all_below_are_those_of_the_run),
        TESTKIT_SCRIPT(test_another_tenants_rows_are_not_seen_even_if_they_name_the_run),
        TESTKIT_SCRIPT(test_a_run_of_very_many_is_not_added_up),
        TESTKIT_SCRIPT(test_only_so_many_runs_are_looked_into),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
