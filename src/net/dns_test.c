#include "net/dns.h"
#include "net/net_testkit.h"

#include "base/arena.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_reads_plain_literals_only(void **state)
{
    (void) state;
    union dns_address address;
    char text[INET6_ADDRSTRLEN];
    assert_true(dns_parse_literal(S("192.0.2.7"), 81, &address));
    assert_int_equal(address.v4.sin_family, AF_INET);
    assert_int_equal(ntohs(address.v4.sin_port), 81);
    assert_string_equal(dns_address_text(&address.any, text, sizeof(text)), "192.0.2.7");
    assert_true(dns_parse_literal(S("::1"), 82, &address));
    assert_int_equal(ntohs(address.v6.sin6_port), 82);
    static const char *const others[] = {"",           "127.1", "0x7f.0.0.1", "127.0.0.01",
                                         "127.0.0.1.", "[::1]", "::1%lo",     "1.2.3.4.5"};
    for (size_t i = 0; i < ARRAY_COUNT(others); i++)
        assert_false(dns_parse_literal(str_from_cstr(others[i]), 0, &address));
}

static void test_tells_numbers_in_disguise_from_names(void **state)
{
    (void) state;
    static const char *const odd[] = {"127.1", "1",   "0x7f.1",   "0x",
                                      "a.0x1", "a.1", "1.2.3.4.", "08.1.1.1"};
    for (size_t i = 0; i < ARRAY_COUNT(odd); i++) {
        if (!dns_host_is_odd_number(str_from_cstr(odd[i])))
            fail_msg("%s", odd[i]);
    }
    static const char *const fine[] = {"1.2.3.4", "a", "1a", "1.com", "0xg.a", "a.b1", "x.1a", ""};
    for (size_t i = 0; i < ARRAY_COUNT(fine); i++)
        assert_false(dns_host_is_odd_number(str_from_cstr(fine[i])));
}

struct lookups {
    struct dns_cache *cache;
    size_t found_count, cancelled_count;
};

static void look_up(struct context *ctx, void *argument)
{
    struct lookups *lookups = argument;
    struct dns_answer answer;
    struct error e;
    if (dns_resolve(lookups->cache, ctx, S("localhost"), 80, &answer, &e)) {
        assert_true(answer.count >= 1);
        lookups->found_count++;
    } else if (e.code == ERROR_CANCELLED) {
        lookups->cancelled_count++;
    }
}

static void resolve_together(struct context *ctx, struct loop *loop, void *argument)
{
    (void) loop;
    struct lookups *lookups = argument;
    struct error e;
    struct group cancelled, group;
    struct dns_answer answer;
    lookups->cache = dns_cache_create(STR_NONE);
    /* The one that makes the call is cancelled; those that wait for it get their answer all the same. */
    group_init(&cancelled, ctx);
    group_init(&group, ctx);
    assert_true(group_start(&cancelled, "first", look_up, lookups, &e));
    for (int i = 0; i < 50; i++)
        assert_true(group_start(&group, "other", look_up, lookups, &e));
    coroutine_yield();
    group_cancel(&cancelled);
    group_wait(&cancelled);
    group_wait(&group);
    assert_true(dns_resolve(lookups->cache, ctx, S("127.0.0.9"), 80, &answer, &e));
    assert_int_equal(answer.count, 1);
    assert_false(dns_resolve(lookups->cache, ctx, S("127.9"), 80, &answer, &e));
    assert_int_equal(e.reason, REASON_INVALID);
    assert_false(dns_resolve(lookups->cache, ctx, S(""), 80, &answer, &e));
    assert_false(dns_resolve(lookups->cache, ctx, S("a\0b"), 80, &answer, &e));
    assert_int_equal(e.reason, REASON_INVALID);
    dns_cache_destroy(lookups->cache);
}

static void test_lookups_of_one_name_share_a_call(void **state)
{
    (void) state;
    struct lookups lookups = {0};
    net_testkit_run(resolve_together, &lookups);
    assert_int_equal(lookups.found_count + lookups.cancelled_count, 51);
    assert_true(lookups.found_count >= 50);
    blocking_pool_stop();
}

static void test_servers_are_addresses_with_or_without_a_port(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(0);
    struct error e;
    str list;
    const str fine[] = {S_INIT("192.0.2.1"), S_INIT("127.0.0.1:5353"), S_INIT("2001:db8::1"),
                        S_INIT("[2001:db8::1]:53")};
    const char *const wrong[] = {"",          "dns.example", "192.0.2.1:", "192.0.2.1:0",
                                 "1.2.3:53",  "[::1",        "[::1]53",    "192.0.2.1:70000",
                                 "1.1.1.1,x", "::1 ",        "127.1:53"};
    assert_true(dns_servers_check(fine, ARRAY_COUNT(fine), arena, &list, &e));
    assert_true(str_equal(list, S("192.0.2.1,127.0.0.1:5353,2001:db8::1,[2001:db8::1]:53")));
    assert_true(dns_servers_check(NULL, 0, arena, &list, &e) && str_is_empty(list));
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        str one = str_from_cstr(wrong[i]);
        if (dns_servers_check(&one, 1, arena, &list, &e))
            fail_msg("%s is taken", wrong[i]);
        assert_int_equal(e.reason, REASON_CONFIG);
    }
    str many[DNS_SERVERS_MAX + 1];
    for (size_t i = 0; i < ARRAY_COUNT(many); i++)
        many[i] = fine[0];
    assert_true(dns_servers_check(many, DNS_SERVERS_MAX, arena, &list, &e));
    assert_false(dns_servers_check(many, DNS_SERVERS_MAX + 1, arena, &list, &e));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_servers_are_addresses_with_or_without_a_port),
        cmocka_unit_test(test_reads_plain_literals_only),
        cmocka_unit_test(test_tells_numbers_in_disguise_from_names),
        cmocka_unit_test(test_lookups_of_one_name_share_a_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
