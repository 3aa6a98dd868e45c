#include "gateway/mcp/mcp_state.h"
#include "gateway/gateway_testkit.h"

#include "base/arena.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void states(struct context *ctx, struct gateway_testkit *kit)
{
    struct error e = {0};
    struct mcp_state out = {0}, state = {.expires_s = 1000};
    struct principal alice = {.user_id = S("alice")}, bob = {.user_id = S("bob")};
    state.run_id = uuid_new(kit->base->clock, kit->base->random);
    state.session_id = uuid_new(kit->base->clock, kit->base->random);
    const struct json *arguments, *same, *other;
    assert_true(
        json_parse(ctx->arena, S("{\"a\":1,\"b\":2}"), (struct json_limits){0}, &arguments, &e));
    assert_true(json_parse(ctx->arena, S("{\"b\":2,\"a\":1}"), (struct json_limits){0}, &same, &e));
    assert_true(json_parse(ctx->arena, S("{\"a\":2}"), (struct json_limits){0}, &other, &e));
    digest call = mcp_state_call(ctx->arena, S("agent_x"), arguments);
    str text = mcp_state_seal(ctx->arena, kit->keys, &alice, call, &state);
    assert_true(mcp_state_open(ctx->arena, kit->keys, &alice,
                               mcp_state_call(ctx->arena, S("agent_x"), same), text, 1000, &out,
                               &e));
    assert_true(uuid_equal(out.run_id, state.run_id));
    assert_true(uuid_equal(out.session_id, state.session_id));
    assert_false(mcp_state_open(ctx->arena, kit->keys, &alice, call, text, 1001, &out, &e));
    assert_false(mcp_state_open(ctx->arena, kit->keys, &bob, call, text, 1, &out, &e));
    assert_false(mcp_state_open(ctx->arena, kit->keys, &alice,
                                mcp_state_call(ctx->arena, S("agent_x"), other), text, 1, &out,
                                &e));
    assert_false(mcp_state_open(ctx->arena, kit->keys, &alice,
                                mcp_state_call(ctx->arena, S("agent_y"), arguments), text, 1, &out,
                                &e));
    for (size_t i = 0; i < text.len; i += 7) {
        char *forged = str_to_cstr(ctx->arena, text);
        forged[i] = forged[i] == 'a' ? 'b' : 'a';
        assert_false(mcp_state_open(ctx->arena, kit->keys, &alice, call, str_of(forged, text.len),
                                    1, &out, &e));
    }
    assert_false(mcp_state_open(ctx->arena, kit->keys, &alice, call, STR_NONE, 1, &out, &e));
}
static void test_a_state_is_good_for_its_caller_and_call_until_it_expires(void **state)
{
    (void) state;
    gateway_testkit_run(states);
}

static const struct json *parsed(struct arena *arena, const char *text)
{
    const struct json *tree;
    assert_true(json_parse(arena, str_from_cstr(text), (struct json_limits){0}, &tree, NULL));
    return tree;
}

static void test_event_ids_come_back_as_they_were(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct mcp_event_id out, run = {.seq = 12}, lists = {.seq = 3};
    const struct json *pair = parsed(arena, "[\"x-\\u00e9\", 7]");
    assert_true(uuid_parse(S("0192d3a5-0000-7000-8000-000000000001"), &run.run_id));
    run.id = json_at(pair, 0);
    run.token = json_at(pair, 1);
    str text = mcp_event_id_write(arena, &run);
    assert_true(mcp_event_id_read(arena, text, &out));
    assert_true(uuid_equal(out.run_id, run.run_id) && out.seq == 12);
    assert_true(mcp_id_equal(out.id, run.id) && mcp_id_equal(out.token, run.token));
    run.token = NULL;
    assert_true(mcp_event_id_read(arena, mcp_event_id_write(arena, &run), &out));
    assert_null(out.token);
    assert_true(mcp_event_id_read(arena, mcp_event_id_write(arena, &lists), &out));
    assert_true(uuid_is_none(out.run_id) && out.seq == 3);
}

static void test_event_ids_that_were_never_given_are_refused(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct mcp_event_id out;
    static const char *const bad[] = {
        "",
        "lists.",
        "lists.-1",
        "lists.x",
        "run.",
        "run.1.2.3",
        "12",
        "run.0192d3a5-0000-7000-8000-000000000001.-1.WzEsbnVsbF0",
        "run.0192d3a5-0000-7000-8000-000000000001.1.****",
        "run.0192d3a5-0000-7000-8000-000000000001.1.e30", /* {} */
        "run.00000000-0000-0000-0000-000000000000.1.WzEsbnVsbF0",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        if (mcp_event_id_read(arena, str_from_cstr(bad[i]), &out))
            fail_msg("%s", bad[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_state_is_good_for_its_caller_and_call_until_it_expires),
        cmocka_unit_test(test_event_ids_come_back_as_they_were),
        cmocka_unit_test(test_event_ids_that_were_never_given_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
