#include "orchestrator/workflow/workflow_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/workflow/workflow_run.h"
#include "orchestrator/workflow/workflow_store.h"

static struct {
    const char *definition, *input;
} play;

void play_put(struct context *ctx, const char *definition)
{
    struct workflow_entry *entry;
    struct definition_problems problems = {0};
    struct error e = {0};
    bool is_new;
    struct principal ada = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    if (!workflow_put(scene.kit->o, ctx, &ada, str_from_cstr(definition), &problems, &entry,
                      &is_new, &e))
        fail_msg("%s", e.message);
    workflow_entry_release(entry);
}

void play_begin(struct context *ctx, void *unused)
{
    (void) unused;
    struct error e = {0};
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    play_put(ctx, play.definition);
    struct workflow_request request = {.name = S("w"),
                                       .input = str_from_cstr(play.input ? play.input : "{}"),
                                       .budget = COST_LIMITLESS};
    if (!workflow_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &scene.session_id,
                        &e))
        fail_msg("%s", e.message);
}

void play_set(struct testkit *kit, const char *definition, const char *input)
{
    kit->defaults.containment.mode = CONTAINMENT_OFF;
    testkit_crash_only(kit);
    scene_start(kit);
    play.definition = definition;
    play.input = input;
}

void play_wake(struct context *ctx, void *unused)
{
    struct error e = {0};
    size_t woken;
    (void) unused;
    if (!workflows_wake(scene.kit->o, ctx, &woken, &e))
        fail_msg("%s", e.message);
}

static str steps_text(struct context *ctx)
{
    struct strbuf text;
    struct json_writer w;
    struct error e = {0};
    strbuf_init(&text, ctx->arena, 4 << 20);
    json_writer_init(&w, &text);
    if (!workflow_write_steps(scene.kit->o, ctx, &scene.user, scene.run_id, &w, &e))
        fail_msg("%s", e.message);
    return strbuf_str(&text);
}

void assert_output(struct context *ctx, const char *wanted)
{
    struct record key = record_of(TABLE_MESSAGES), row;
    struct error e = {0};
    uuid id;
    assert_at_rest(ctx, "completed");
    assert_true(
        uuid_parse(json_str_or(event(ctx, EVENT_RUN_COMPLETED), S("message_id"), STR_NONE), &id));
    record_set_uuid(&key, MESSAGES_ID, id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &row, &e));
    str parts = record_text(&row, MESSAGES_PARTS); /* {"output":...} */
    assert_str(str_slice(parts, 10, parts.len - 1), wanted);
}

void assert_holds(struct context *ctx, const char *wanted)
{
    str text = steps_text(ctx);
    if (str_find(text, str_from_cstr(wanted)) == STR_NOT_FOUND)
        fail_msg("%s is not in " STR_FMT, wanted, STR_ARG(text));
}

void assert_lacks(struct context *ctx, const char *unwanted)
{
    str text = steps_text(ctx);
    if (str_find(text, str_from_cstr(unwanted)) != STR_NOT_FOUND)
        fail_msg("%s is in " STR_FMT, unwanted, STR_ARG(text));
}
