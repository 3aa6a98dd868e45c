#include "gateway/mcp/mcp_sessions.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static struct principal person(const char *user, uint8_t key)
{
    struct principal principal = {.user_id = str_from_cstr(user)};
    memset(&principal.tenant_id, 1, sizeof principal.tenant_id);
    memset(&principal.key_id, key, sizeof principal.key_id);
    return principal;
}

static str open_one(struct mcp_sessions *sessions, const struct principal *principal,
                    int64_t now_ns, char id[MCP_SESSION_ID_BYTES])
{
    struct error e = {0};
    assert_true(mcp_sessions_open(sessions, principal, &mcp_revisions[1], now_ns, id, &e));
    return str_of(id, MCP_SESSION_ID_BYTES);
}

static void test_a_session_is_there_for_its_principal_only(void **state)
{
    (void) state;
    char text[MCP_SESSION_ID_BYTES];
    struct mcp_sessions *sessions = mcp_sessions_create(0, 0);
    struct principal alice = person("alice", 1), bob = person("bob", 2), other_key = alice,
                     other_tenant = alice;
    memset(&other_key.key_id, 9, sizeof other_key.key_id);
    memset(&other_tenant.tenant_id, 9, sizeof other_tenant.tenant_id);
    str id = open_one(sessions, &alice, 1, text);
    assert_ptr_equal(mcp_sessions_use(sessions, id, &alice, 2), &mcp_revisions[1]);
    assert_null(mcp_sessions_use(sessions, id, &bob, 2));
    assert_null(mcp_sessions_use(sessions, id, &other_key, 2));
    assert_null(mcp_sessions_use(sessions, id, &other_tenant, 2));
    assert_null(mcp_sessions_use(sessions, S("nothing"), &alice, 2));
    assert_false(mcp_sessions_close(sessions, id, &bob));
    assert_true(mcp_sessions_close(sessions, id, &alice));
    assert_false(mcp_sessions_close(sessions, id, &alice));
    assert_null(mcp_sessions_use(sessions, id, &alice, 3));
    mcp_sessions_destroy(sessions);
}

static void test_ids_never_repeat(void **state)
{
    (void) state;
    char a[MCP_SESSION_ID_BYTES], b[MCP_SESSION_ID_BYTES];
    struct mcp_sessions *sessions = mcp_sessions_create(0, 0);
    struct principal alice = person("alice", 1);
    assert_false(str_equal(open_one(sessions, &alice, 1, a), open_one(sessions, &alice, 1, b)));
    mcp_sessions_destroy(sessions);
}

static void test_an_idle_session_ends_and_one_with_a_request_in_work_does_not(void **state)
{
    (void) state;
    char a[MCP_SESSION_ID_BYTES], b[MCP_SESSION_ID_BYTES];
    struct mcp_sessions *sessions = mcp_sessions_create(0, 1000);
    struct principal alice = person("alice", 1);
    str idle = open_one(sessions, &alice, 0, a), busy = open_one(sessions, &alice, 0, b);
    assert_true(mcp_sessions_enter(sessions, busy));
    assert_non_null(mcp_sessions_use(sessions, idle, &alice, INT64_C(999999999)));
    assert_null(mcp_sessions_use(sessions, idle, &alice, INT64_C(1999999999)));
    assert_non_null(mcp_sessions_use(sessions, busy, &alice, INT64_C(1999999999)));
    mcp_sessions_leave(sessions, busy, INT64_C(2000000000));
    assert_null(mcp_sessions_use(sessions, busy, &alice, INT64_C(9000000000)));
    assert_int_equal(mcp_sessions_count(sessions), 0);
    mcp_sessions_destroy(sessions);
}

static void test_past_its_number_a_key_loses_its_oldest_idle_session(void **state)
{
    (void) state;
    char ids[3][MCP_SESSION_ID_BYTES], theirs[MCP_SESSION_ID_BYTES];
    struct error e = {0};
    struct mcp_sessions *sessions = mcp_sessions_create(2, 0);
    struct principal alice = person("alice", 1), bob = person("bob", 2);
    str first = open_one(sessions, &alice, 1, ids[0]),
        second = open_one(sessions, &alice, 2, ids[1]);
    str bobs = open_one(sessions, &bob, 0, theirs);
    str third = open_one(sessions, &alice, 3, ids[2]);
    assert_null(mcp_sessions_use(sessions, first, &alice, 4));
    assert_non_null(mcp_sessions_use(sessions, second, &alice, 4));
    assert_non_null(mcp_sessions_use(sessions, bobs, &bob, 4));
    assert_true(mcp_sessions_enter(sessions, second) && mcp_sessions_enter(sessions, third));
    assert_false(mcp_sessions_open(sessions, &alice, &mcp_revisions[1], 5, ids[0], &e));
    assert_int_equal(e.reason, REASON_RATE_LIMIT);
    assert_int_equal(mcp_sessions_count(sessions), 3);
    mcp_sessions_destroy(sessions);
}

static void test_the_newest_stream_of_a_session_is_the_one(void **state)
{
    (void) state;
    char text[MCP_SESSION_ID_BYTES];
    struct mcp_sessions *sessions = mcp_sessions_create(0, 0);
    struct principal alice = person("alice", 1);
    str id = open_one(sessions, &alice, 1, text);
    uint64_t old = mcp_sessions_take_stream(sessions, id);
    assert_true(mcp_sessions_has_stream(sessions, id, old));
    uint64_t new = mcp_sessions_take_stream(sessions, id);
    assert_false(mcp_sessions_has_stream(sessions, id, old));
    assert_true(mcp_sessions_has_stream(sessions, id, new));
    assert_true(mcp_sessions_close(sessions, id, &alice));
    assert_false(mcp_sessions_has_stream(sessions, id, new));
    assert_int_equal(mcp_sessions_take_stream(sessions, id), 0);
    mcp_sessions_destroy(sessions);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_session_is_there_for_its_principal_only),
        cmocka_unit_test(test_ids_never_repeat),
        cmocka_unit_test(test_an_idle_session_ends_and_one_with_a_request_in_work_does_not),
        cmocka_unit_test(test_past_its_number_a_key_loses_its_oldest_idle_session),
        cmocka_unit_test(test_the_newest_stream_of_a_session_is_the_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
