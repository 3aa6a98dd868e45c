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

void scene_start(struct testkit *kit)
{
    scene = (struct scene){.kit = kit};
}
