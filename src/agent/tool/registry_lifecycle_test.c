/* Who gets which version of which tool, how tools come and go, and how they are found. */
#include "agent/sandbox/sandbox_testkit.h"
#include "agent/tool/package.h"
#include "agent/tool/registry.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/arena.h"

static struct arena *arena;
static str dir; /* of shipped tools */
static const uuid none, one = {{1}}, two = {{2}};

static str manifest(const char *name, const char *version)
{
    return str_printf(
        arena,
        "name: %s\nversion: %s\ncategory: test\nabi: nexus-export\nmodule: m.wasm\n"
        "pure: true\nidempotent: true\nlimits: {fuel: 1000, memory: 1MB, time: 1s, "
        "output: 1KB}\npermissions: {languages: [python, javascript]}\n"
        "description: Says %s again.\ninput: {type: object}\noutput: {type: object}\n",
        name, version, name);
}

/* A folder below the test's own; gives its path. */
static str put(const char *folder, const char *name, const char *version)
{
    str path = str_printf(arena, "%s/%s", agent_testkit_dir(), folder);
    mkdir(path.ptr, 0700);
    agent_testkit_write_file(str_printf(arena, "%s/manifest.yaml", folder).ptr,
                             manifest(name, version));
    agent_testkit_write_file(str_printf(arena, "%s/m.wasm", folder).ptr, S("\0asm"));
    return path;
}

static struct registry *open_registry(const char *config)
{
    struct registry *registry;
    struct yaml_document document;
    struct error e;
    struct registry_options options = {.tool_dir = dir};
    if (config) {
        if (!yaml_parse(arena, S("nexus.yaml"), str_from_cstr(config), &document, &e))
            fail_msg("%s", e.message);
        options.tool_config = &document;
    }
    if (!registry_create(&options, &registry, &e))
        fail_msg("%s", e.message);
    return registry;
}

static bool add(struct registry *registry, uuid tenant, const char *name, const char *version,
                struct error *e)
{
    struct tool tool;
    struct registry_package package = {
        .tenant_id = tenant,
        .name = str_from_cstr(name),
        .version = str_from_cstr(version),
        .folder = put(str_printf(arena, "p-%02x-%s-%s", tenant.bytes[0], name, version).ptr, name,
                      version),
        .installed_by = S("root")};
    return registry_read_package(arena, package.folder, &tool, &package.seal, e) &&
           registry_add_packages(registry, &package, 1, e);
}

static void must_add(struct registry *registry, uuid tenant, const char *name, const char *version)
{
    struct error e;
    if (!add(registry, tenant, name, version, &e))
        fail_msg("%s", e.message);
}

static void assert_version(struct registry *registry, uuid tenant, const char *name,
                           const char *range, const char *version)
{
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    struct registry_question question = {.tenant_id = tenant,
                                         .name = str_from_cstr(name),
                                         .range = str_from_cstr(range),
                                         .canary_key = {{9}}};
    const struct tool *tool = registry_resolve(snapshot, &question);
    if (!version && tool)
        fail_msg("got " STR_FMT, STR_ARG(tool->version));
    if (version && (!tool || !str_equal(tool->version, str_from_cstr(version))))
        fail_msg("got " STR_FMT ", wanted %s", STR_ARG(tool ? tool->version : S("none")), version);
    registry_release(snapshot);
}

static void decide(struct registry *registry, struct registry_state state)
{
    struct error e;
    if (!registry_set_states(registry, &state, 1, false, &e))
        fail_msg("%s", e.message);
}

/* ---- which version ---- */

static void test_the_newest_that_is_not_deprecated_is_the_channels(void **state)
{
    (void) state;
    struct registry *registry = open_registry(NULL);
    must_add(registry, none, "echo", "1.0.0");
    must_add(registry, none, "echo", "1.1.0");
    must_add(registry, none, "echo", "2.0.0-rc.1");
    assert_version(registry, one, "echo", "", "1.1.0");
    assert_version(registry, one, "echo", "~1.0", "1.0.0");
    assert_version(registry, one, "echo", "2.0.0-rc.1", "2.0.0-rc.1");
    struct registry_deprecation old = {S("1.1.0"), S("use 1.0 for now")};
    decide(registry, (struct registry_state){
                         .name = S("echo"), .deprecations = &old, .deprecation_count = 1});
    assert_version(registry, one, "echo", "", "1.0.0");
    assert_version(registry, one, "echo", "^1.0", "1.0.0");
    assert_version(registry, one, "echo", "1.1.0", "1.1.0"); /* whoever names it gets it */
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    const struct tool *tool = registry_find(snapshot, S("echo"), S("1.1.0"));
    assert_true(tool->is_deprecated && str_equal(tool->deprecation, S("use 1.0 for now")));
    registry_release(snapshot);
    decide(registry, (struct registry_state){.name = S("echo")});
    assert_version(registry, one, "echo", "", "1.1.0");
    registry_destroy(registry);
}

static void test_a_pin_rolls_back_and_a_tenants_own_goes_first(void **state)
{
    (void) state;
    struct registry *registry = open_registry("tools: {echo: {version: '~1.1'}}");
    must_add(registry, none, "echo", "1.0.0");
    must_add(registry, none, "echo", "1.1.0");
    must_add(registry, none, "echo", "1.2.0");
    assert_version(registry, one, "echo", "", "1.1.0"); /* the configuration's */
    decide(registry, (struct registry_state){.name = S("echo"), .current = S("1.2.0")});
    assert_version(registry, one, "echo", "", "1.2.0");
    decide(registry,
           (struct registry_state){.tenant_id = one, .name = S("echo"), .current = S("1.0.0")});
    assert_version(registry, one, "echo", "", "1.0.0");
    assert_version(registry, two, "echo", "", "1.2.0");
    assert_version(registry, one, "echo", "^1", "1.2.0"); /* a range is meant as it is said */
    registry_remove_package(registry, none, S("echo"), S("1.0.0"));
    assert_version(registry, one, "echo", "", "1.1.0"); /* a pin on nothing pins nothing */
    registry_destroy(registry);
}

static size_t count_canaries(struct registry *registry, size_t keys, bool *is_stable)
{
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    size_t count = 0;
    for (size_t i = 0; i < keys; i++) {
        struct registry_question question = {.tenant_id = one, .name = S("echo")};
        memcpy(question.canary_key.bytes, &i, sizeof i);
        const struct tool *tool = registry_resolve(snapshot, &question);
        count += str_equal(tool->version, S("2.0.0"));
        *is_stable = *is_stable && registry_resolve(snapshot, &question) == tool;
    }
    registry_release(snapshot);
    return count;
}

static void test_a_canary_gets_its_share_and_each_session_stays(void **state)
{
    (void) state;
    static const struct {
        int percent;
        size_t from, to;
    } wanted[] = {{0, 0, 0}, {10, 850, 1150}, {50, 4700, 5300}, {100, 10000, 10000}};
    bool is_stable = true;
    struct registry *registry = open_registry(NULL);
    must_add(registry, none, "echo", "1.0.0");
    must_add(registry, none, "echo", "2.0.0");
    for (size_t i = 0; i < ARRAY_COUNT(wanted); i++) {
        decide(registry, (struct registry_state){.name = S("echo"),
                                                 .canary_version = S("2.0.0"),
                                                 .canary_percent = wanted[i].percent});
        size_t count = count_canaries(registry, 10000, &is_stable);
        print_message("  %d %%: %zu of 10000\n", wanted[i].percent, count);
        assert_in_range(count, wanted[i].from, wanted[i].to);
    }
    assert_true(is_stable);
    registry_destroy(registry);
}

/* ---- who sees what ---- */

static void test_two_tenants_see_their_own_and_the_platforms(void **state)
{
    (void) state;
    struct registry *registry = open_registry(NULL);
    must_add(registry, one, "mine", "1.0.0");
    must_add(registry, two, "mine", "2.0.0");
    must_add(registry, none, "shared", "1.0.0");
    assert_version(registry, one, "mine", "", "1.0.0");
    assert_version(registry, two, "mine", "", "2.0.0");
    assert_version(registry, two, "mine", "1.0.0", NULL);
    assert_version(registry, none, "mine", "", NULL);
    assert_version(registry, one, "shared", "", "1.0.0");
    uuid only_two[] = {two};
    decide(registry, (struct registry_state){.name = S("shared"),
                                             .is_limited = true,
                                             .visible_to = only_two,
                                             .visible_count = 1});
    assert_version(registry, one, "shared", "", NULL);
    assert_version(registry, one, "shared", "1.0.0", NULL);
    assert_version(registry, two, "shared", "", "1.0.0");
    decide(registry,
           (struct registry_state){.tenant_id = two, .name = S("shared"), .is_hidden = true});
    assert_version(registry, two, "shared", "", NULL);
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    size_t index = 0, count = 0;
    str name;
    while (registry_next_name(snapshot, one, &index, &name))
        count++;
    assert_int_equal(count, 1);
    registry_release(snapshot);
    registry_destroy(registry);
}

static void test_the_platforms_tool_hides_a_tenants_of_the_same_name(void **state)
{
    (void) state;
    struct registry *registry = open_registry(NULL);
    must_add(registry, one, "echo", "9.0.0");
    assert_version(registry, one, "echo", "", "9.0.0");
    must_add(registry, none, "echo", "1.0.0");
    assert_version(registry, one, "echo", "", "1.0.0");
    assert_version(registry, one, "echo", "9.0.0", NULL);
    uuid only_two[] = {two}; /* a tenant that does not see it keeps its own */
    decide(registry,
           (struct registry_state){
               .name = S("echo"), .is_limited = true, .visible_to = only_two, .visible_count = 1});
    assert_version(registry, one, "echo", "", "9.0.0");
    registry_destroy(registry);
}

/* ---- permissions ---- */

static void test_a_call_gets_what_tenant_and_agent_leave_and_the_tool_stays_the_same(void **state)
{
    (void) state;
    struct registry *registry = open_registry("tools: {echo: {permissions: {max_memory: 64MB}}}");
    must_add(registry, none, "echo", "1.0.0");
    str python = S("python");
    struct permissions tenant = {.languages = {&python, 1}}, agent = {.max_memory_bytes = 1000};
    decide(registry,
           (struct registry_state){.tenant_id = one, .name = S("echo"), .permissions = &tenant});
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    struct registry_question question = {.tenant_id = one, .name = S("echo")};
    const struct tool *tool = registry_resolve(snapshot, &question);
    assert_int_equal(tool->permissions.languages.count, 2);
    assert_int_equal(tool->permissions.max_memory_bytes, 64000000);
    const struct tool *mine = registry_effective(snapshot, arena, tool, one, &agent);
    assert_int_equal(mine->permissions.languages.count, 1);
    assert_int_equal(mine->permissions.max_memory_bytes, 1000);
    assert_memory_equal(&mine->identity, &tool->identity, sizeof tool->identity);
    assert_ptr_equal(registry_effective(snapshot, arena, tool, two, NULL), tool);
    registry_release(snapshot);
    registry_destroy(registry);
}

/* ---- trust ---- */

static void sign(const char *folder, const char *name, const char *version,
                 const uint8_t key[SIGNATURE_KEY_BYTES])
{
    struct tool tool;
    struct error e;
    digest seal;
    str path = put(folder, name, version);
    assert_true(registry_read_package(arena, path, &tool, &seal, &e));
    agent_testkit_write_file(str_printf(arena, "%s/manifest.sig", folder).ptr,
                             package_sign(arena, seal, key));
}

static bool add_folder(struct registry *registry, const char *folder, const char *name,
                       struct error *e)
{
    struct tool tool;
    struct registry_package package = {.name = str_from_cstr(name),
                                       .version = S("1.0.0"),
                                       .folder =
                                           str_printf(arena, "%s/%s", agent_testkit_dir(), folder)};
    return registry_read_package(arena, package.folder, &tool, &package.seal, e) &&
           registry_add_packages(registry, &package, 1, e);
}

static void test_only_trusted_signatures_count_where_one_is_required(void **state)
{
    (void) state;
    uint8_t key[SIGNATURE_KEY_BYTES] = {3}, stranger[SIGNATURE_KEY_BYTES] = {4},
            public_key[SIGNATURE_KEY_BYTES];
    struct error e;
    signature_public_key(key, public_key);
    str config = str_printf(arena,
                            "tools: {require_signature: true, trusted_keys: [{name: author, "
                            "public_key: '" STR_FMT "'}]}",
                            STR_ARG(str_hex(arena, public_key, sizeof public_key)));
    struct registry *registry = open_registry(config.ptr);
    sign("signed", "good", "1.0.0", key);
    sign("strange", "strange", "1.0.0", stranger);
    put("plain", "plain", "1.0.0");
    assert_true(add_folder(registry, "signed", "good", &e));
    assert_true(add_folder(registry, "strange", "strange", &e));
    assert_true(add_folder(registry, "plain", "plain", &e));
    assert_version(registry, one, "good", "", "1.0.0");
    assert_version(registry, one, "strange", "", NULL);
    assert_version(registry, one, "plain", "", NULL);
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    assert_true(str_equal(registry_find(snapshot, S("good"), STR_NONE)->signer, S("author")));
    assert_int_equal(registry_error_count(snapshot), 2);
    registry_release(snapshot);
    struct yaml_document open; /* the same tools under another configuration */
    assert_true(yaml_parse(arena, S("nexus.yaml"), S("tools: {}"), &open, &e));
    assert_true(registry_reconfigure(registry, &open, &e));
    assert_version(registry, one, "plain", "", "1.0.0");
    registry_destroy(registry);
}

static void test_what_was_changed_after_signing_or_installing_is_refused(void **state)
{
    (void) state;
    uint8_t key[SIGNATURE_KEY_BYTES] = {3};
    struct error e;
    struct tool tool;
    digest seal;
    struct registry *registry = open_registry(NULL);
    sign("signed", "good", "1.0.0", key);
    agent_testkit_write_file("signed/m.wasm", S("\0asm!"));
    assert_false(registry_read_package(arena, str_printf(arena, "%s/signed", agent_testkit_dir()),
                                       &tool, &seal, &e));
    print_message("  %s\n", e.message);
    assert_int_equal(e.code, ERROR_DENIED);
    must_add(registry, none, "echo", "1.0.0");
    struct registry_package package = {.name = S("echo"),
                                       .version = S("1.0.0"),
                                       .folder = put("p-00-echo-1.0.0", "echo", "1.0.0")};
    assert_true(registry_read_package(arena, package.folder, &tool, &package.seal, &e));
    agent_testkit_write_file("p-00-echo-1.0.0/m.wasm", S("\0asm?"));
    assert_false(registry_add_packages(registry, &package, 1, &e));
    print_message("  %s\n", e.message);
    assert_version(registry, one, "echo", "", "1.0.0"); /* what was loaded stays */
    registry_destroy(registry);
}

/* ---- tools from elsewhere ---- */

static void test_a_source_is_replaced_as_a_whole_and_copied(void **state)
{
    (void) state;
    struct error e;
    put("tools/echo", "echo", "1.0.0");
    struct registry *registry = open_registry(NULL);
    OWNED(arena) passing = arena_create(0);
    str host = str_copy(passing, S("a.org"));
    struct tool tools[2] = {{.name = str_copy(passing, S("remote_one")),
                             .version = S("1.0.0"),
                             .category = S("mcp"),
                             .description = str_copy(passing, S("Looks up train times.")),
                             .abi = TOOL_ABI_MCP,
                             .source = TOOL_FROM_MCP,
                             .source_name = S("trains"),
                             .permissions = {.network = {.allowed_hosts = {&host, 1}}},
                             .input_schema = S("{}"),
                             .output_schema = S("{}")},
                            {.name = S("remote_two"), .version = S("1.0.0"), .category = S("mcp")}};
    assert_true(registry_set_source(registry, S("trains"), tools, 2, &e));
    const struct registry_snapshot *old = registry_acquire(registry);
    arena_reset(passing);
    memset(arena_alloc(passing, 4096), 'x', 4096);
    assert_true(str_equal(registry_find(old, S("remote_one"), STR_NONE)->description,
                          S("Looks up train times.")));
    tools[0] = (struct tool){.name = S("remote_three"), .version = S("1.0.0")};
    assert_true(registry_set_source(registry, S("trains"), tools, 1, &e));
    assert_version(registry, one, "remote_three", "", "1.0.0");
    assert_version(registry, one, "remote_one", "", NULL);
    assert_non_null(
        registry_find(old, S("remote_one"), STR_NONE)); /* calls in flight keep theirs */
    registry_release(old);
    tools[0].name = S("echo");
    assert_false(registry_set_source(registry, S("trains"), tools, 1, &e));
    assert_int_equal(e.code, ERROR_CONFLICT);
    assert_version(registry, one, "remote_three", "", "1.0.0");
    assert_true(registry_set_source(registry, S("trains"), NULL, 0, &e));
    assert_version(registry, one, "remote_three", "", NULL);
    registry_destroy(registry);
}

/* ---- hot ---- */

static atomic_bool is_over;
static atomic_size_t lookups;

static void *use_all_the_time(void *argument)
{
    struct registry *registry = argument;
    while (!atomic_load(&is_over)) {
        const struct registry_snapshot *snapshot = registry_acquire(registry);
        struct registry_question question = {.tenant_id = one, .name = S("hot")};
        const struct tool *tool = registry_resolve(snapshot, &question);
        /* A call would keep the tool as long as this. */
        for (int i = 0; tool && i < 100; i++)
            if (!str_starts_with(tool->description, S("Says")) || tool->module_path.len == 0)
                abort();
        registry_release(snapshot);
        atomic_fetch_add(&lookups, 1);
    }
    return NULL;
}

static void test_a_tool_is_removed_and_replaced_while_it_is_used(void **state)
{
    (void) state;
    pthread_t users[3];
    struct registry *registry = open_registry(NULL);
    must_add(registry, none, "hot", "1.0.0");
    for (size_t i = 0; i < ARRAY_COUNT(users); i++)
        pthread_create(&users[i], NULL, use_all_the_time, registry);
    for (int i = 0; i < 200; i++) {
        registry_remove_package(registry, none, S("hot"), S("1.0.0"));
        must_add(registry, none, "hot", i % 2 ? "1.0.0" : "1.1.0");
        must_add(registry, none, "hot", "1.0.0");
    }
    atomic_store(&is_over, true);
    for (size_t i = 0; i < ARRAY_COUNT(users); i++)
        pthread_join(users[i], NULL);
    print_message("  %zu uses\n", atomic_load(&lookups));
    assert_version(registry, one, "hot", "", "1.1.0");
    registry_destroy(registry);
}

/* ---- bounds and speed ---- */

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double) t.tv_sec * 1e3 + (double) t.tv_nsec / 1e6;
}

static struct tool *many(size_t count)
{
    static const char *const verbs[] = {"convert", "fetch", "sort",   "count", "translate",
                                        "rotate",  "parse", "render", "merge", "validate"},
                             *const things[] = {"invoice", "image",   "calendar", "tree",
                                                "address", "ledger",  "route",    "recipe",
                                                "sensor",  "contract"};
    struct tool *tools = ARENA_ARRAY(arena, struct tool, count);
    for (size_t i = 0; i < count; i++)
        tools[i] = (struct tool){
            .name = str_printf(arena, "%s_%s_%zu", verbs[i % 10], things[i / 10 % 10], i / 100),
            .version = S("1.0.0"),
            .category = S("test"),
            .description = str_printf(arena,
                                      "Will %s the %s numbered %zu for the people of the office, "
                                      "quickly, with care and without asking twice.",
                                      verbs[i % 10], things[i / 10 % 10], i / 100),
            .input_schema = S("{}"),
            .output_schema = S("{}")};
    return tools;
}

static void test_a_thousand_tools_are_searched_within_a_millisecond(void **state)
{
    (void) state;
    enum { TOOLS = 1000, ROUNDS = 200 };
    struct error e;
    struct registry *registry = open_registry(NULL);
    assert_true(registry_set_source(registry, S("many"), many(TOOLS), TOOLS, &e));
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    struct registry_hit hits[10];
    struct registry_search search = {
        .tenant_id = one, .query = S("please translate recipe number 7 for me, with care")};
    double start = cpu_ms();
    for (int i = 0; i < ROUNDS; i++)
        assert_int_equal(registry_find_words(snapshot, &search, hits, 10), 10);
    double each = (cpu_ms() - start) / ROUNDS;
    print_message("  %.3f ms of CPU a search\n", each);
    assert_true(str_equal(hits[0].tool->name, S("translate_recipe_7")));
    assert_true(each < 20); /* also when instrumented; the figure is printed */
    registry_release(snapshot);
    registry_destroy(registry);
}

static void test_one_tool_past_the_bound_is_refused(void **state)
{
    (void) state;
    struct error e;
    struct registry *registry = open_registry(NULL);
    struct tool *tools = many(REGISTRY_TOOLS_MAX + 1);
    assert_true(registry_set_source(registry, S("a"), tools, REGISTRY_TOOLS_MAX - 1, &e));
    assert_true(registry_set_source(registry, S("b"), tools + REGISTRY_TOOLS_MAX - 1, 1, &e));
    assert_false(registry_set_source(registry, S("c"), tools + REGISTRY_TOOLS_MAX, 1, &e));
    assert_int_equal(e.reason, REASON_LIMIT);
    registry_destroy(registry);
}

/* ---- search ---- */

static void test_search_knows_names_endings_and_beginnings(void **state)
{
    (void) state;
    struct error e;
    struct registry_hit hits[3];
    struct tool tools[] = {
        {.name = S("http_request"),
         .version = S("1.0.0"),
         .description = S("Sends a request to a web server and gives its answer.")},
        {.name = S("web_extract"),
         .version = S("1.0.0"),
         .description = S("Readable text of a web page.")},
        {.name = S("weather"),
         .version = S("1.0.0"),
         .description = S("Forecasts of rain, wind and temperature.")},
    };
    static const struct {
        const char *query, *wanted;
    } questions[] = {{"http_request", "http_request"},
                     {"will it rain tomorrow?", "weather"},
                     {"forecasting temperatures", "weather"},
                     {"send requests", "http_request"},
                     {"extr", "web_extract"},
                     {"text of that page please", "web_extract"}};
    struct registry *registry = open_registry(NULL);
    assert_true(registry_set_source(registry, S("some"), tools, ARRAY_COUNT(tools), &e));
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    for (size_t i = 0; i < ARRAY_COUNT(questions); i++) {
        struct registry_search search = {.query = str_from_cstr(questions[i].query)};
        size_t count = registry_find_words(snapshot, &search, hits, ARRAY_COUNT(hits));
        if (count == 0 || !str_equal(hits[0].tool->name, str_from_cstr(questions[i].wanted)))
            fail_msg("%s found " STR_FMT, questions[i].query,
                     STR_ARG(count ? hits[0].tool->name : S("nothing")));
    }
    struct registry_search nothing = {.query = S("quantum of the")};
    assert_int_equal(registry_find_words(snapshot, &nothing, hits, 3), 0);
    registry_release(snapshot);
    registry_destroy(registry);
}

static int fresh_dir(void **state)
{
    (void) state;
    arena = arena_create(256u << 20);
    dir = str_printf(arena, "%s/tools", agent_testkit_dir());
    mkdir(dir.ptr, 0700);
    atomic_store(&is_over, false);
    return 0;
}

static int remove_dir(void **state)
{
    (void) state;
    arena_destroy(arena);
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'/*", agent_testkit_dir());
    return system(command); /* banned-ok: a fixed command of a test */
}

static int teardown(void **state)
{
    (void) state;
    agent_testkit_remove();
    return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh_dir, remove_dir)
int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_newest_that_is_not_deprecated_is_the_channels),
        TEST(test_a_pin_rolls_back_and_a_tenants_own_goes_first),
        TEST(test_a_canary_gets_its_share_and_each_session_stays),
        TEST(test_two_tenants_see_their_own_and_the_platforms),
        TEST(test_the_platforms_tool_hides_a_tenants_of_the_same_name),
        TEST(test_a_call_gets_what_tenant_and_agent_leave_and_the_tool_stays_the_same),
        TEST(test_only_trusted_signatures_count_where_one_is_required),
        TEST(test_what_was_changed_after_signing_or_installing_is_refused),
        TEST(test_a_source_is_replaced_as_a_whole_and_copied),
        TEST(test_a_tool_is_removed_and_replaced_while_it_is_used),
        TEST(test_a_thousand_tools_are_searched_within_a_millisecond),
        TEST(test_one_tool_past_the_bound_is_refused),
        TEST(test_search_knows_names_endings_and_beginnings),
    };
    return cmocka_run_group_tests(tests, NULL, teardown);
}
