#include "net/egress.h"
#include "net/dns.h"
#include "net/net_testkit.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct egress_rules *rules_of(str host, str blocked, str allowed)
{
    struct egress_rules *rules = NULL;
    struct error e;
    struct egress_options options = {.allowed_hosts = &host,
                                     .allowed_host_count = host.len > 0,
                                     .blocked_ips = &blocked,
                                     .blocked_ip_count = blocked.len > 0,
                                     .allowed_ips = &allowed,
                                     .allowed_ip_count = allowed.len > 0};
    if (!egress_rules_create(&options, &rules, &e))
        assert_int_equal(e.reason, REASON_CONFIG);
    return rules;
}

static bool host_passes(const char *pattern, const char *host)
{
    struct error e;
    OWNED(egress_rules) rules = rules_of(str_from_cstr(pattern), STR_NONE, STR_NONE);
    assert_non_null(rules);
    bool passes = egress_check_host(rules, str_from_cstr(host), &e);
    assert_true(passes || e.reason == REASON_EGRESS_BLOCKED);
    return passes;
}

static bool address_passes(const char *address, const char *blocked, const char *allowed)
{
    struct error e;
    union dns_address parsed;
    OWNED(egress_rules) rules = rules_of(S("*"), str_from_cstr(blocked), str_from_cstr(allowed));
    assert_non_null(rules);
    assert_true(dns_parse_literal(str_from_cstr(address), 80, &parsed));
    bool passes = egress_check_address(rules, &parsed.any, &e);
    assert_true(passes || e.reason == REASON_EGRESS_BLOCKED);
    return passes;
}

static void test_matches_hosts_exactly_or_below_a_domain(void **state)
{
    (void) state;
    assert_true(host_passes("api.example.com", "API.Example.com"));
    assert_true(host_passes("api.example.com", "api.example.com."));
    assert_false(host_passes("api.example.com", "x.api.example.com"));
    assert_false(host_passes("api.example.com", "api.example.com.evil.com"));
    assert_true(host_passes("*.safe-domain.com", "a.safe-domain.com"));
    assert_true(host_passes("*.safe-domain.com", "a.b.safe-domain.com"));
    assert_false(host_passes("*.safe-domain.com", "safe-domain.com"));
    assert_false(host_passes("*.safe-domain.com", "evilsafe-domain.com"));
    assert_false(host_passes("*.safe-domain.com", ".safe-domain.com"));
    assert_true(host_passes("*", "anything.example"));
    assert_true(host_passes("192.0.2.7", "192.0.2.7"));
    assert_false(host_passes("192.0.2.7", "192.0.2.8"));
    assert_true(host_passes("[2001:DB8::1]", "2001:db8:0::1"));
}

static void test_no_list_denies_all(void **state)
{
    (void) state;
    struct error e;
    OWNED(egress_rules) rules = rules_of(STR_NONE, STR_NONE, STR_NONE);
    assert_false(egress_check_host(rules, S("api.example.com"), &e));
}

static void test_refuses_malformed_patterns(void **state)
{
    (void) state;
    static const char *const hosts[] = {"",         "a b",          "*.",      "*x.com",
                                        "a.*.com",  "http://a.com", "a.com/x", "0x7f.1",
                                        "a.com:80", "*.0.0.1"};
    for (size_t i = 1; i < ARRAY_COUNT(hosts); i++)
        assert_null(rules_of(str_from_cstr(hosts[i]), STR_NONE, STR_NONE));
    static const char *const ranges[] = {"10",        "10.*.1",     "10.0.0.0/33", "256.*",
                                         "01.*",      "10.0.0.0/",  "::/129",      "x",
                                         "1.2.3.4.*", "10.0.0.0/-1"};
    for (size_t i = 0; i < ARRAY_COUNT(ranges); i++)
        assert_null(rules_of(S("*"), str_from_cstr(ranges[i]), STR_NONE));
}

static void test_refuses_what_is_not_the_public_internet(void **state)
{
    (void) state;
    static const char *const refused[] = {
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "100.100.100.200",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "2001::1",
        "2001:db8::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "4000::1",
        "100::1",
    };
    for (size_t i = 0; i < ARRAY_COUNT(refused); i++) {
        if (address_passes(refused[i], "", ""))
            fail_msg("%s passes", refused[i]);
    }
    static const char *const passing[] = {"8.8.8.8",     "1.1.1.1",         "100.63.255.255",
                                          "100.128.0.1", "172.15.0.1",      "172.32.0.1",
                                          "11.0.0.1",    "2606:4700::1111", "2a00:1450::1",
                                          "193.0.0.1",   "223.255.255.255"};
    for (size_t i = 0; i < ARRAY_COUNT(passing); i++) {
        if (!address_passes(passing[i], "", ""))
            fail_msg("%s does not pass", passing[i]);
    }
}

static void test_blocked_addresses_come_first_then_the_exceptions(void **state)
{
    (void) state;
    assert_false(address_passes("8.8.8.8", "8.8.*", ""));
    assert_false(address_passes("8.8.8.8", "8.*", ""));
    assert_true(address_passes("8.9.8.8", "8.8.*", ""));
    assert_false(address_passes("8.8.8.8", "8.8.8.8", ""));
    assert_false(address_passes("8.8.8.8", "8.8.8.0/28", ""));
    assert_false(address_passes("8.8.8.8", "*", ""));
    assert_false(address_passes("2606:4700::1111", "2606:4700::/32", ""));
    assert_true(address_passes("8.8.8.8", "8.8.8.0/30", ""));
    assert_true(address_passes("127.0.0.1", "", "127.0.0.1"));
    assert_false(address_passes("127.0.0.2", "", "127.0.0.1"));
    assert_true(address_passes("127.9.9.9", "", "127.*"));
    assert_false(address_passes("127.0.0.1", "127.0.0.1", "127.*"));
    assert_false(address_passes("::ffff:127.0.0.1", "", "127.*"));
    assert_false(address_passes("::ffff:10.1.1.1", "10.*", "::/0"));
    assert_false(address_passes("64:ff9b::a01:101", "10.*", "::/0"));
    assert_false(address_passes("2002:a01:101::1", "10.*", "::/0"));
}

static void test_knows_the_fields_that_a_model_may_not_set(void **state)
{
    (void) state;
    static const char *const reserved[] = {"Host",
                                           "cookie",
                                           "AUTHORIZATION",
                                           "Proxy-Authorization",
                                           "Content-Length",
                                           "Transfer-Encoding",
                                           "X-Forwarded-For",
                                           "Connection",
                                           "TE"};
    for (size_t i = 0; i < ARRAY_COUNT(reserved); i++)
        assert_true(egress_header_is_reserved(str_from_cstr(reserved[i])));
    assert_false(egress_header_is_reserved(S("Accept")));
    assert_false(egress_header_is_reserved(S("X-Custom")));
}

/* ---- calls, on loopback by exception ---- */

static struct raw_server server;
static str requests[16];
static _Atomic size_t request_count;

/* "/hop/N" redirects to "/hop/N-1", "/hop/0" is the end; "/to?URL" redirects there. */
static void serve(int fd, size_t index, void *argument)
{
    (void) index;
    (void) argument;
    for (;;) {
        char answer[512];
        str request = raw_read_request(fd);
        if (request.len == 0)
            return;
        requests[atomic_fetch_add(&request_count, 1) % ARRAY_COUNT(requests)] = request;
        str line, target, rest;
        str_cut(request, '\r', &line, &rest);
        str_cut(str_from(line, str_find_char(line, ' ') + 1), ' ', &target, &rest);
        if (str_strip_prefix(target, S("/hop/"), &rest) && rest.ptr[0] != '0')
            snprintf(answer, sizeof(answer),
                     "HTTP/1.1 302 Found\r\nLocation: %c\r\nContent-Length: 0\r\n\r\n",
                     rest.ptr[0] - 1);
        else if (str_strip_prefix(target, S("/to?"), &rest))
            snprintf(answer, sizeof(answer),
                     "HTTP/1.1 307 X\r\nLocation: " STR_FMT "\r\nContent-Length: 2\r\n\r\nxx",
                     STR_ARG(rest));
        else
            snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend");
        raw_send(fd, str_from_cstr(answer));
    }
}

struct call {
    const char *path, *allowed_host;
    enum http_method method;
    bool is_fine;
    int status;
    char final_url[256];
    struct error e;
};

static void run_call(struct context *ctx, struct loop *loop, void *argument)
{
    struct call *call = argument;
    struct http_client *client = NULL;
    struct http_header items[] = {{S_INIT("Authorization"), S_INIT("Bearer key")},
                                  {S_INIT("X-Api-Key"), S_INIT("key")},
                                  {S_INIT("Accept"), S_INIT("a/b")},
                                  {S_INIT("Content-Type"), S_INIT("t/u")}};
    struct http_headers headers = {items, ARRAY_COUNT(items), ARRAY_COUNT(items)};
    OWNED(egress_rules) rules =
        rules_of(str_from_cstr(call->allowed_host ? call->allowed_host : "localhost"), STR_NONE,
                 S("127.0.0.1"));
    assert_true(http_client_create(loop, NULL, &client, &call->e));
    struct egress_request request = {
        .method = call->method,
        .url = str_printf(ctx->arena, "http://localhost:%u%s", server.port, call->path),
        .headers = &headers,
        .body = call->method == HTTP_POST ? S("body") : STR_NONE,
    };
    {
        OWNED(http_exchange) exchange = NULL;
        str url = STR_NONE;
        call->is_fine = egress_send(rules, client, ctx, &request, &exchange, &url, &call->e);
        if (call->is_fine) {
            str body;
            call->status = http_exchange_status(exchange);
            snprintf(call->final_url, sizeof(call->final_url), STR_FMT, STR_ARG(url));
            assert_true(http_exchange_read_all(exchange, ctx, 100, &body, &call->e));
        }
    }
    http_client_destroy(client);
}

static struct call call_path(const char *path)
{
    struct call call = {.path = path};
    atomic_store(&request_count, 0);
    net_testkit_run(run_call, &call);
    return call;
}

static void test_follows_redirects_without_credentials(void **state)
{
    (void) state;
    struct call call = call_path("/hop/5");
    assert_true(call.is_fine);
    assert_int_equal(call.status, 200);
    assert_int_equal(atomic_load(&request_count), 6);
    assert_true(str_find(requests[0], S("Bearer key")) != STR_NOT_FOUND);
    for (size_t i = 1; i < 6; i++) {
        assert_true(str_find(requests[i], S("key")) == STR_NOT_FOUND);
        assert_true(str_find(requests[i], S("Accept: a/b")) != STR_NOT_FOUND);
    }
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "http://localhost:%u/hop/0", server.port);
    assert_string_equal(call.final_url, wanted);
    call = call_path("/hop/6");
    assert_false(call.is_fine);
    assert_int_equal(call.e.code, ERROR_LIMIT);
    assert_int_equal(atomic_load(&request_count), 6);
}

static void test_checks_each_hop(void **state)
{
    (void) state;
    static const char *const targets[] = {"/to?http://evil.example/", "/to?//evil.example/x",
                                          "/to?http://127.0.0.1/",
                                          "/to?http://169.254.169.254/latest", "/to?http://[::1]/"};
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++) {
        struct call call = call_path(targets[i]);
        assert_false(call.is_fine);
        assert_int_equal(call.e.reason, REASON_EGRESS_BLOCKED);
        assert_int_equal(atomic_load(&request_count), 1);
    }
    static const char *const malformed[] = {"/to?ftp://localhost/", "/to?http://user@localhost/",
                                            "/to?http://0x7f.1/", "/to?file:///etc/passwd"};
    for (size_t i = 0; i < ARRAY_COUNT(malformed); i++) {
        struct call call = call_path(malformed[i]);
        assert_false(call.is_fine);
        assert_int_equal(call.e.reason, REASON_INVALID);
    }
}

static void test_an_allowed_name_at_a_refused_address_is_not_reached(void **state)
{
    (void) state;
    struct egress_rules *rules = rules_of(S("localhost"), STR_NONE, STR_NONE);
    struct error e;
    union dns_address address;
    assert_true(egress_check_host(rules, S("localhost"), &e));
    assert_true(dns_parse_literal(S("127.0.0.1"), 80, &address));
    assert_false(egress_check_address(rules, &address.any, &e));
    egress_rules_destroy(rules);
}

static void test_a_post_keeps_its_body_only_where_the_status_says_so(void **state)
{
    (void) state;
    struct call call = {.path = "/to?/end", .method = HTTP_POST};
    atomic_store(&request_count, 0);
    net_testkit_run(run_call, &call);
    assert_true(call.is_fine);
    assert_true(str_starts_with(requests[1], S("POST /end ")));
    assert_true(str_ends_with(requests[1], S("\r\n\r\nbody")));
    assert_true(str_find(requests[1], S("Content-Type: t/u")) != STR_NOT_FOUND);
    call = (struct call){.path = "/hop/1", .method = HTTP_POST};
    atomic_store(&request_count, 0);
    net_testkit_run(run_call, &call);
    assert_true(call.is_fine);
    assert_true(str_starts_with(requests[1], S("GET /hop/0 ")));
    assert_true(str_find(requests[1], S("Content-")) == STR_NOT_FOUND);
}

static int start_server(void **state)
{
    (void) state;
    raw_server_start(&server, serve, NULL);
    return 0;
}

static int stop_server(void **state)
{
    (void) state;
    raw_server_stop(&server);
    raw_free_all();
    blocking_pool_stop();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_matches_hosts_exactly_or_below_a_domain),
        cmocka_unit_test(test_no_list_denies_all),
        cmocka_unit_test(test_refuses_malformed_patterns),
        cmocka_unit_test(test_refuses_what_is_not_the_public_internet),
        cmocka_unit_test(test_blocked_addresses_come_first_then_the_exceptions),
        cmocka_unit_test(test_knows_the_fields_that_a_model_may_not_set),
        cmocka_unit_test(test_follows_redirects_without_credentials),
        cmocka_unit_test(test_checks_each_hop),
        cmocka_unit_test(test_an_allowed_name_at_a_refused_address_is_not_reached),
        cmocka_unit_test(test_a_post_keeps_its_body_only_where_the_status_says_so),
    };
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
