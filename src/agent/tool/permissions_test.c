#include "agent/tool/permissions.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/arena.h"

static struct arena *arena;

static struct permissions read_ok(const char *yaml)
{
    struct yaml_document document;
    struct permissions permissions = {0};
    struct error e;
    if (!yaml_parse(arena, S("test.yaml"), str_from_cstr(yaml), &document, &e) ||
        !permissions_read(arena, &document, document.root, &permissions, &e))
        fail_msg("%s", e.message);
    return permissions;
}

static void assert_refused(const char *yaml, const char *place)
{
    struct yaml_document document;
    struct permissions permissions;
    struct error e;
    assert_true(yaml_parse(arena, S("test.yaml"), str_from_cstr(yaml), &document, &e));
    assert_false(permissions_read(arena, &document, document.root, &permissions, &e));
    print_message("  %s\n", e.message);
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_non_null(strstr(e.message, place));
}

static void assert_list(struct str_list list, const char *wanted)
{
    struct strbuf text;
    strbuf_init(&text, arena, 1000);
    for (size_t i = 0; i < list.count; i++)
        strbuf_printf(&text, "%s" STR_FMT, i ? " " : "", STR_ARG(list.items[i]));
    if (!str_equal(strbuf_str(&text), str_from_cstr(wanted)))
        fail_msg("got " STR_FMT ", wanted %s", STR_ARG(strbuf_str(&text)), wanted);
}

static void test_the_three_examples_are_read_letter_for_letter(void **state)
{
    (void) state;
    struct permissions p =
        read_ok("network: {allowed_hosts: [\"api.example.com\",\"*.safe-domain.com\"], "
                "blocked_ips: [\"127.0.0.1\",\"192.168.*\",\"10.*\"], max_response_size: \"10MB\", "
                "timeout: \"30s\"}");
    assert_list(p.network.allowed_hosts, "api.example.com *.safe-domain.com");
    assert_list(p.network.blocked_ips, "127.0.0.1 192.168.* 10.*");
    assert_int_equal(p.network.max_response_bytes, 10000000);
    assert_int_equal(p.network.timeout_ms, 30000);
    p = read_ok("paths: {read: [\"/tmp/agent-workspace/*\"], write: "
                "[\"/tmp/agent-workspace/output/*\"], execute: []}\n"
                "max_file_size: \"5MB\"\nallowed_extensions: [\".txt\",\".json\",\".csv\"]");
    assert_list(p.paths.read, "/tmp/agent-workspace/*");
    assert_non_null(p.paths.execute.items);
    assert_int_equal(p.paths.execute.count, 0);
    assert_int_equal(p.max_file_bytes, 5000000);
    p = read_ok("languages: [\"python\",\"javascript\"]\nmax_cpu_time: \"10s\"\nmax_memory: "
                "\"128MB\"\nnetwork_access: false");
    assert_list(p.languages, "python javascript");
    assert_int_equal(p.max_cpu_time_ms, 10000);
    assert_int_equal(p.max_memory_bytes, 128000000);
    assert_false(p.network_access);
}

static void test_errors_name_the_line(void **state)
{
    (void) state;
    assert_refused("network:\n  allowed_host: [a]", "test.yaml:2");
    assert_refused("network:\n  allowed_hosts: a", "test.yaml:2");
    assert_refused("network:\n  allowed_hosts:\n    - a\n    - 'http://x/'", "test.yaml:4");
    assert_refused("network:\n  blocked_ips: [localhost]", "test.yaml:2");
    assert_refused("network:\n  timeout: 30", "test.yaml:2");
    assert_refused("languages: [javascript]\nmax_memory: lots", "test.yaml:2");
    assert_refused("allowed_extensions: [txt]", "test.yaml:1");
    assert_refused("network_access: maybe", "test.yaml:1");
    assert_refused("sudo: true", "test.yaml:1");
    assert_refused("[]", "test.yaml:1");
}

static void test_the_narrower_list_wins(void **state)
{
    (void) state;
    struct permissions a = read_ok("network: {allowed_hosts: ['*.example.com', 'b.org'], "
                                   "blocked_ips: ['1.1.1.1'], max_response_size: 10MB}\n"
                                   "languages: [javascript, python]\nmax_memory: 128MB");
    struct permissions b = read_ok(
        "network: {allowed_hosts: ['api.example.com', 'c.org', '*'], blocked_ips: ['2.2.2.2'], "
        "allowed_ips: ['127.0.0.1'], max_response_size: 1MB, timeout: 5s}\nlanguages: "
        "[javascript]");
    struct permissions both = permissions_intersect(arena, &a, &b);
    assert_list(both.network.allowed_hosts, "*.example.com b.org api.example.com");
    assert_list(both.network.blocked_ips, "1.1.1.1 2.2.2.2");
    assert_list(both.network.allowed_ips, "127.0.0.1");
    assert_int_equal(both.network.max_response_bytes, 1000000);
    assert_int_equal(both.network.timeout_ms, 5000);
    assert_list(both.languages, "javascript");
    assert_int_equal(both.max_memory_bytes, 128000000);
}

static void test_lists_left_out_and_empty_ones(void **state)
{
    (void) state;
    struct permissions left_out = read_ok("{}"), empty = read_ok("network: {allowed_hosts: []}");
    struct permissions some = read_ok("network: {allowed_hosts: [a.org]}");
    struct permissions exception = read_ok("network: {allowed_ips: ['127.0.0.1']}");
    assert_list(permissions_intersect(arena, &empty, &some).network.allowed_hosts,
                "a.org"); /* the operator fills it */
    assert_list(permissions_intersect(arena, &left_out, &some).network.allowed_hosts, "a.org");
    assert_list(permissions_intersect(arena, &some, &left_out).network.allowed_hosts, "a.org");
    assert_list(permissions_intersect(arena, &some, &empty).network.allowed_hosts,
                ""); /* the operator takes it away */
    assert_list(permissions_intersect(arena, &left_out, &left_out).network.allowed_hosts, "");
    assert_list(permissions_intersect(arena, &exception, &some).network.allowed_ips,
                ""); /* only the operator's count */
}

static void test_a_wide_host_never_covers_its_bare_domain(void **state)
{
    (void) state;
    struct permissions a = read_ok("network: {allowed_hosts: ['*.example.com']}");
    struct permissions b =
        read_ok("network: {allowed_hosts: ['example.com', 'evilexample.com', 'x.EXAMPLE.com']}");
    assert_list(permissions_intersect(arena, &a, &b).network.allowed_hosts, "x.EXAMPLE.com");
}

static void test_network_access_needs_both(void **state)
{
    (void) state;
    struct permissions yes = read_ok("network_access: true"), no = read_ok("network_access: false"),
                       unset = read_ok("{}");
    assert_true(permissions_intersect(arena, &yes, &yes).network_access);
    assert_false(permissions_intersect(arena, &yes, &no).network_access);
    assert_false(permissions_intersect(arena, &no, &yes).network_access);
    assert_true(permissions_intersect(arena, &yes, &unset).network_access);
    assert_false(permissions_intersect(arena, &unset, &unset).network_access);
}

static void test_reading_files_follows_paths_and_extensions(void **state)
{
    (void) state;
    struct permissions
        none = read_ok("{}"),
        some = read_ok("paths: {read: ['data/*.csv', 'notes.txt']}\nallowed_extensions: [.csv]");
    assert_true(permissions_allow_read(&none, S("any")));
    assert_true(permissions_allow_read(&some, S("data/a.csv")));
    assert_false(permissions_allow_read(&some, S("data/a.json")));
    assert_false(permissions_allow_read(&some, S("notes.txt")));
    assert_false(permissions_allow_read(&some, S("other.csv")));
    struct permissions empty = read_ok("paths: {write: ['*']}");
    assert_false(permissions_allow_read(&empty, S("a")));
}

static void test_what_is_written_reads_back(void **state)
{
    (void) state;
    struct permissions p = read_ok(
        "network: {allowed_hosts: [a.org], blocked_ips: ['10.*'], max_response_size: 10MB, "
        "timeout: 30s}\n"
        "paths: {read: ['*'], execute: []}\nlanguages: []\nmax_cpu_time: 1s\nnetwork_access: true");
    struct strbuf text, again;
    struct json_writer w;
    strbuf_init(&text, arena, 10000);
    json_writer_init(&w, &text);
    permissions_write_json(&w, &p);
    strbuf_add_char(&text, '\0');
    struct permissions q = read_ok(text.ptr);
    strbuf_init(&again, arena, 10000);
    json_writer_init(&w, &again);
    permissions_write_json(&w, &q);
    strbuf_add_char(&again, '\0');
    assert_string_equal(text.ptr, again.ptr);
}

/* ---- every member in every wrong form ---- */

static void test_every_member_refuses_every_wrong_form(void **state)
{
    (void) state;
    static const char *const lists[] = {"network:\n  allowed_hosts", "network:\n  blocked_ips",
                                        "network:\n  allowed_ips",   "paths:\n  read",
                                        "paths:\n  write",           "paths:\n  execute",
                                        "allowed_extensions",        "languages"},
                             *const sizes[] = {"network:\n  max_response_size", "max_file_size",
                                               "max_memory"},
                             *const times[] = {"network:\n  timeout", "max_cpu_time"},
                             *const no_list[] = {"x",   "3",     "true", "{a: b}",
                                                 "[3]", "[[a]]", "['']"},
                             *const no_size[] = {"[1]",      "true",          "-1", "0",  "\"ten\"",
                                                 "\"-5MB\"", "\"5 parsecs\"", "{}", "1.5"},
                             *const no_time[] = {"30",      "true",   "\"soon\"",
                                                 "\"-3s\"", "\"0s\"", "[]"},
                             *const no_flag[] = {"1", "\"yes\"", "yes", "[]", "null"};
    struct {
        const char *const *members;
        size_t member_count;
        const char *const *forms;
        size_t form_count;
    } all[] = {{lists, ARRAY_COUNT(lists), no_list, ARRAY_COUNT(no_list)},
               {sizes, ARRAY_COUNT(sizes), no_size, ARRAY_COUNT(no_size)},
               {times, ARRAY_COUNT(times), no_time, ARRAY_COUNT(no_time)},
               {(const char *const[]){"network_access"}, 1, no_flag, ARRAY_COUNT(no_flag)}};
    for (size_t k = 0; k < ARRAY_COUNT(all); k++)
        for (size_t i = 0; i < all[k].member_count; i++)
            for (size_t j = 0; j < all[k].form_count; j++) {
                struct yaml_document document;
                struct permissions permissions;
                struct error e;
                bool is_inner = strchr(all[k].members[i], ':') != NULL;
                str yaml = str_printf(arena, "%s: %s\n", all[k].members[i], all[k].forms[j]);
                assert_true(yaml_parse(arena, S("test.yaml"), yaml, &document, &e));
                if (permissions_read(arena, &document, document.root, &permissions, &e))
                    fail_msg("read: " STR_FMT, STR_ARG(yaml));
                assert_int_equal(e.reason, REASON_CONFIG);
                if (!strstr(e.message, is_inner ? "test.yaml:2" : "test.yaml:1"))
                    fail_msg("no line in: %s", e.message);
            }
    assert_refused("network: []", "test.yaml:1");
    assert_refused("paths: x", "test.yaml:1");
    assert_refused("netwrk: {}", "test.yaml:1");
    assert_refused("languages: []\npaths:\n  reed: []", "test.yaml:3");
}

/* ---- levels ---- */

static struct permissions narrow(struct permissions base, const char *by)
{
    struct permissions other = read_ok(by);
    return permissions_narrow(arena, &base, &other);
}

static void test_a_level_that_narrows_never_widens(void **state)
{
    (void) state;
    struct permissions none = read_ok("network: {allowed_hosts: []}\nlanguages: []"),
                       some = read_ok("network: {allowed_hosts: ['*.a.org', b.org], timeout: 10s, "
                                      "blocked_ips: ['10.*']}\n"
                                      "languages: [python]\nmax_memory: 64MB");
    assert_list(narrow(none, "network: {allowed_hosts: ['*']}").network.allowed_hosts, "");
    assert_list(narrow(none, "languages: [python]").languages, "");
    assert_false(narrow(none, "network_access: true").network_access);
    assert_list(narrow(some, "network: {allowed_hosts: ['x.a.org', c.org]}").network.allowed_hosts,
                "x.a.org");
    assert_list(narrow(some, "network: {allowed_hosts: []}").network.allowed_hosts, "");
    assert_list(narrow(some, "languages: [python, javascript]").languages, "python");
    assert_list(narrow(some, "network: {blocked_ips: ['8.*']}").network.blocked_ips, "10.* 8.*");
    assert_int_equal(narrow(some, "network: {timeout: 60s}").network.timeout_ms, 10000);
    assert_int_equal(narrow(some, "network: {timeout: 2s}").network.timeout_ms, 2000);
    assert_int_equal(narrow(some, "max_memory: 1GB").max_memory_bytes, 64000000);
    assert_list(narrow(some, "max_memory: 1GB").network.allowed_hosts, "*.a.org b.org");
    assert_list(narrow(some, "allowed_extensions: [.txt]").allowed_extensions, ".txt");
}

static void test_session_files_can_be_narrowed_where_no_paths_were_said(void **state)
{
    (void) state;
    struct permissions free_reader = read_ok("{}");
    struct permissions p = narrow(free_reader, "paths: {read: ['data/*']}");
    assert_true(permissions_allow_read(&p, S("data/a.csv")));
    assert_false(permissions_allow_read(&p, S("secret.csv")));
    p = narrow(free_reader, "paths: {read: ['*'], write: ['*']}");
    assert_int_equal(p.paths.write.count, 0); /* writing was never there */
}

static void test_the_operators_exceptions_have_no_place_below(void **state)
{
    (void) state;
    struct yaml_document document;
    struct permissions permissions;
    struct error e;
    assert_true(yaml_parse(arena, S("tenant.yaml"), S("network:\n  allowed_ips: ['10.0.0.1']\n"),
                           &document, &e));
    assert_false(permissions_read_narrowing(arena, &document, document.root, &permissions, &e));
    print_message("  %s\n", e.message);
    assert_non_null(strstr(e.message, "tenant.yaml:2"));
    struct permissions manifest = read_ok("network: {allowed_ips: ['127.0.0.1']}");
    struct permission_levels levels = {{&manifest}};
    assert_list(permissions_effective(arena, &levels, NULL).network.allowed_ips, "");
}

static size_t value_index(const char *name)
{
    for (size_t i = 0; i < PERMISSION_VALUE_COUNT; i++)
        if (strcmp(permission_value_name(i), name) == 0)
            return i;
    fail_msg("no value %s", name);
    return 0;
}

static void test_each_value_names_the_level_that_decided_it(void **state)
{
    (void) state;
    struct permissions manifest = read_ok("network: {allowed_hosts: ['*'], timeout: 30s}\n"
                                          "max_memory: 64MB\nlanguages: [python, javascript]"),
                       operators = read_ok("network: {allowed_hosts: ['*.a.org'], timeout: 60s}"),
                       tenant = read_ok("network: {allowed_hosts: ['*.a.org'], timeout: 5s}\n"
                                        "languages: [python]"),
                       agent = read_ok("max_memory: 32MB");
    struct permission_levels levels = {{&manifest, &operators, &tenant, &agent}};
    struct permission_trace trace;
    struct permissions p = permissions_effective(arena, &levels, &trace);
    assert_list(p.network.allowed_hosts, "*.a.org");
    assert_int_equal(trace.decided_by[value_index("network.allowed_hosts")],
                     PERMISSION_CONFIGURATION);
    assert_int_equal(trace.decided_by[value_index("network.timeout")], PERMISSION_TENANT);
    assert_int_equal(trace.decided_by[value_index("languages")], PERMISSION_TENANT);
    assert_int_equal(trace.decided_by[value_index("max_memory")], PERMISSION_AGENT);
    assert_int_equal(trace.decided_by[value_index("max_file_size")], PERMISSION_MANIFEST);
    assert_false(permission_value_is_set(&p, value_index("max_file_size")));
    assert_string_equal(permission_level_name(PERMISSION_TENANT), "tenant");
}

static int setup(void **state)
{
    (void) state;
    arena = arena_create(0);
    return 0;
}

static int teardown(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_three_examples_are_read_letter_for_letter),
        cmocka_unit_test(test_errors_name_the_line),
        cmocka_unit_test(test_the_narrower_list_wins),
        cmocka_unit_test(test_lists_left_out_and_empty_ones),
        cmocka_unit_test(test_a_wide_host_never_covers_its_bare_domain),
        cmocka_unit_test(test_network_access_needs_both),
        cmocka_unit_test(test_reading_files_follows_paths_and_extensions),
        cmocka_unit_test(test_what_is_written_reads_back),
        cmocka_unit_test(test_every_member_refuses_every_wrong_form),
        cmocka_unit_test(test_a_level_that_narrows_never_widens),
        cmocka_unit_test(test_session_files_can_be_narrowed_where_no_paths_were_said),
        cmocka_unit_test(test_the_operators_exceptions_have_no_place_below),
        cmocka_unit_test(test_each_value_names_the_level_that_decided_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
