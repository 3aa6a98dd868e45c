/* Decisions about tools: who may make them, what they may say, how two writers meet, and that they are there after a start. */
#include "orchestrator/tools/tool_admin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "orchestrator/orchestrator_testkit.h"

static struct principal admin_of(struct testkit *kit)
{
    struct principal admin = testkit_principal(kit, "root", ROLE_LEVEL_ADMIN);
    admin.scopes = SCOPE_PLATFORM;
    return admin;
}

static enum error_reason change(struct testkit *kit, struct context *ctx,
                                const struct principal *principal, struct tool_target target,
                                const char *json)
{
    const struct json *parsed;
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct error e = {0};
    assert_true(json_parse(ctx->arena, str_from_cstr(json), (struct json_limits){0}, &parsed, &e));
    if (tool_change_state(kit->o, ctx, principal, &target, parsed, row, &e))
        return REASON_NONE;
    return e.reason;
}

static str version_of(struct testkit *kit, str name)
{
    const struct registry_snapshot *tools = registry_acquire(kit->registry);
    struct registry_question question = {.tenant_id = kit->tenant_id, .name = name};
    const struct tool *tool = registry_resolve(tools, &question);
    str version = tool ? str_copy(kit->arena, tool->version) : STR_NONE;
    registry_release(tools);
    return version;
}

static void test_what_may_be_said_and_by_whom(struct testkit *kit, struct context *ctx)
{
    struct principal admin = admin_of(kit),
                     user = testkit_principal(kit, "ada", ROLE_LEVEL_OPERATOR),
                     local = testkit_principal(kit, "tom", ROLE_LEVEL_ADMIN);
    struct tool_target target = {.name = S("lookup")};
    struct tool_target everywhere = {.name = S("lookup"), .is_platform = true};
    local.scopes = 0;
    static const struct {
        const char *json;
        enum error_reason reason;
    } wrong[] = {
        {"{}", REASON_SCHEMA},
        {"{\"flavour\":1}", REASON_SCHEMA},
        {"{\"current\":3}", REASON_SCHEMA},
        {"{\"current\":\"9.9.9\"}", REASON_NOT_FOUND},
        {"{\"canary\":{\"version\":\"1.0.0\",\"percent\":101}}", REASON_SCHEMA},
        {"{\"hidden\":\"yes\"}", REASON_SCHEMA},
        {"{\"visible_to\":[]}", REASON_DENIED},
        {"{\"deprecated\":{\"1.0.0\":\"mine it is not\"}}", REASON_NOT_FOUND},
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++)
        assert_int_equal(change(kit, ctx, &admin, target, wrong[i].json), wrong[i].reason);
    assert_int_equal(change(kit, ctx, &user, target, "{\"hidden\":true}"), REASON_DENIED);
    assert_int_equal(change(kit, ctx, &local, everywhere, "{\"hidden\":true}"), REASON_DENIED);
    assert_int_equal(
        change(kit, ctx, &admin, everywhere, "{\"deprecated\":{\"1.0.0\":\"use another\"}}"),
        REASON_NONE);
    assert_int_equal(change(kit, ctx, &admin, everywhere, "{\"visible_to\":[\"x\"]}"),
                     REASON_SCHEMA);
    target.name = S("nonsense");
    assert_int_equal(change(kit, ctx, &admin, target, "{\"hidden\":true}"), REASON_NOT_FOUND);
}

static void test_the_second_of_two_writers_is_told(struct testkit *kit, struct context *ctx)
{
    struct principal admin = admin_of(kit);
    struct tool_target target = {.name = S("lookup"), .if_match = S("0")};
    assert_int_equal(change(kit, ctx, &admin, target, "{\"current\":\"1.0.0\"}"), REASON_NONE);
    assert_int_equal(change(kit, ctx, &admin, target, "{\"current\":null}"), REASON_PRECONDITION);
    target.if_match = S("1");
    assert_int_equal(change(kit, ctx, &admin, target, "{\"current\":null}"), REASON_NONE);
}

static void test_what_was_decided_is_there_after_a_start(struct testkit *kit, struct context *ctx)
{
    struct principal admin = admin_of(kit);
    struct tool_target target = {.name = S("lookup")};
    struct error e = {0};
    assert_int_equal(change(kit, ctx, &admin, target, "{\"hidden\":true}"), REASON_NONE);
    assert_true(str_is_empty(version_of(kit, S("lookup"))));
    assert_true(registry_set_states(kit->registry, NULL, 0, true, &e)); /* as a fresh process */
    assert_true(str_equal(version_of(kit, S("lookup")), S("1.0.0")));
    assert_true(tools_load(kit->o, ctx, &e));
    assert_true(str_is_empty(version_of(kit, S("lookup"))));
    assert_int_equal(change(kit, ctx, &admin, target, "{\"hidden\":false}"), REASON_NONE);
    assert_true(str_equal(version_of(kit, S("lookup")), S("1.0.0")));
}

static void test_permissions_are_read_as_yaml_and_only_narrow(struct testkit *kit,
                                                              struct context *ctx)
{
    struct principal admin = admin_of(kit);
    struct tool_target target = {.name = S("lookup")};
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    struct error e = {0};
    assert_true(tool_set_permissions(kit->o, ctx, &admin, &target,
                                     S("max_memory: 1MB\nlanguages: []\n"), row, &e));
    assert_true(str_equal(record_text(row, TOOL_STATES_PERMISSIONS),
                          S("{\"languages\":[],\"max_memory\":1000000}")));
    assert_false(
        tool_set_permissions(kit->o, ctx, &admin, &target, S("max_memory: much\n"), row, &e));
    assert_non_null(strstr(e.message, "permissions:1"));
    assert_true(tool_set_permissions(kit->o, ctx, &admin, &target, S("{}"), row, &e));
    assert_false(record_has(row, TOOL_STATES_PERMISSIONS));
}

int main(void)
{
    static const struct testkit_case cases[] = {
        TESTKIT_BODY(test_what_may_be_said_and_by_whom),
        TESTKIT_BODY(test_the_second_of_two_writers_is_told),
        TESTKIT_BODY(test_what_was_decided_is_there_after_a_start),
        TESTKIT_BODY(test_permissions_are_read_as_yaml_and_only_narrow),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
