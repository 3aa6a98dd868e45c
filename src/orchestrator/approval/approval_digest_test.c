#include "orchestrator/approval_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/orchestrator_testkit.h"

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
        TESTKIT_BODY(test_the_digest_changes_with_every_part_and_with_nothing_else),
        TESTKIT_BODY(test_arguments_that_are_no_json_have_no_digest),
    };
    return testkit_main(cases, ARRAY_COUNT(cases));
}
