#include "orchestrator/run_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct scene scene;

void assert_str(str got, const char *wanted)
{
    if (!str_equal(got, str_from_cstr(wanted)))
        fail_msg("\n   got " STR_FMT "\nwanted %s", STR_ARG(got), wanted);
}

const struct json *event(struct context *ctx, enum event_type type)
{
    return testkit_event(scene.kit, ctx, scene.run_id, type);
}

void assert_member(struct context *ctx, enum event_type type, const char *member,
                   const char *wanted)
{
    assert_str(json_str_or(event(ctx, type), str_from_cstr(member), STR_NONE), wanted);
}

void assert_history(struct context *ctx, const char *wanted)
{
    assert_str(testkit_history(scene.kit, ctx, scene.run_id), wanted);
}

void scene_begin_with(struct context *ctx, cost budget)
{
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    scene.session_id = testkit_session(scene.kit, ctx, &scene.user, budget);
    scene.run_id = testkit_start(scene.kit, ctx, &scene.user, scene.session_id, "how warm was it?");
}

void scene_begin(struct context *ctx, void *unused)
{
    (void) unused;
    scene_begin_with(ctx, COST_LIMITLESS);
}

static void decide_first(struct context *ctx, struct records *rows, const char *who)
{
    struct error e = {0};
    struct principal decider = testkit_principal(scene.kit, who, ROLE_LEVEL_ADMIN);
    assert_true(approval_list(scene.kit->o, ctx, &decider, S("pending"), STR_NONE, 10, rows, &e));
    assert_true(rows->count >= 1);
    struct approval_decision decision = {
        .approval_id = record_uuid(&rows->items[0], APPROVALS_ID),
        .is_approve = !str_equal(str_from_cstr(who), S("nay")),
        .digest = record_text(&rows->items[0], APPROVALS_DIGEST),
        .reason = S("because"),
    };
    if (!approval_decide(scene.kit->o, ctx, &decider, &decision, &e))
        fail_msg("%s", e.message);
}

void scene_vote(struct context *ctx, void *who)
{
    struct records rows;
    decide_first(ctx, &rows, who);
}

void scene_approve(struct context *ctx, void *unused)
{
    struct records rows;
    (void) unused;
    decide_first(ctx, &rows, "boss");
    assert_int_equal(rows.count, 1);
}

void assert_at_rest(struct context *ctx, const char *status)
{
    struct record key = record_of(TABLE_SESSIONS), session,
                  run = testkit_run(scene.kit, ctx, scene.run_id);
    struct error e;
    record_set_uuid(&key, SESSIONS_ID, scene.session_id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &session, &e));
    assert_str(record_text(&run, AGENT_RUNS_STATUS), status);
    assert_false(record_has(&session, SESSIONS_LIVE_RUN_ID));
    assert_true(record_has(&run, AGENT_RUNS_COMPLETED_AT));
    assert_int_equal(orchestrator_active_runs(scene.kit->o), 0);
    testkit_check_ledger(scene.kit, ctx, scene.session_id);
}

void scene_resume_unheard(struct context *ctx, void *unused)
{
    struct batch batch;
    struct error e = {0};
    (void) unused;
    batch_init(&batch, ctx->arena, scene.user.tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, scene.session_id);
    record_set_text(row, SESSIONS_STATUS, S("active"));
    if (!store_commit(scene.kit->store, ctx, &batch, &e))
        fail_msg("%s", e.message);
}

void scene_start(struct testkit *kit)
{
    scene = (struct scene){.kit = kit};
}

void scene_start_pair(struct testkit *kit, const char *helper)
{
    static str all_tools = S_INIT("*");
    static struct agent_link links[1];
    static struct agent_definition pair[2];
    links[0] = (struct agent_link){.name = str_from_cstr(helper), .budget = COST_LIMITLESS};
    pair[0] = (struct agent_definition){.name = S("assistant"),
                                        .instructions = S("You lead."),
                                        .agents = links,
                                        .agent_count = ARRAY_COUNT(links)};
    pair[1] =
        (struct agent_definition){.name = links[0].name, .instructions = S("You do your part.")};
    for (size_t i = 0; i < ARRAY_COUNT(pair); i++) {
        pair[i].tools = &all_tools;
        pair[i].tool_count = 1;
        pair[i].steps_max = 8;
        pair[i].run_timeout_ms = 600000;
    }
    kit->agents = pair;
    kit->agent_count = ARRAY_COUNT(pair);
    scene_start(kit);
    testkit_crash_only(kit);
}
