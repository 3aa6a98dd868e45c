#include "cli/config/config.h"

#include "base/arena.h"
#include "base/json.h"
#include "net/tls.h"
#include "orchestrator/run/agent_definition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(64u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static const char *environment(const char *name)
{
    if (strcmp(name, "LOCAL_KEY") == 0)
        return "a-very-secret-key";
    if (strcmp(name, "NEXUS_SESSIONS_EXPIRY") == 0)
        return "2h";
    if (strcmp(name, "NEXUS_ALLOWED_HOSTS") == 0)
        return "a.example, b.example";
    return NULL;
}

static const char *no_environment(const char *name)
{
    (void) name;
    return NULL;
}

static struct config *read_with(const char *text, const struct config_sources *sources)
{
    struct config *config;
    struct error e = {0};
    if (!config_parse(S("nexus.yaml"), str_from_cstr(text), sources, &config, &e))
        fail_msg("%s", e.message);
    return config;
}

static struct config *config_of(const char *text)
{
    return read_with(text, &(struct config_sources){.environment = no_environment});
}

static void assert_refused(const char *text, const char *message)
{
    struct config *config;
    struct error e = {0};
    struct config_sources sources = {.environment = no_environment};
    if (config_parse(S("nexus.yaml"), str_from_cstr(text), &sources, &config, &e))
        fail_msg("accepted: %s", text);
    if (!strstr(e.message, message))
        fail_msg("'%s' is not in '%s'", message, e.message);
    assert_int_equal(error_exit_code(e.reason), 2);
}

static void test_an_empty_file_gives_the_defaults(void **state)
{
    (void) state;
    OWNED(config) config = config_of("{}");
    assert_true(str_equal(config->listen_address, S("127.0.0.1")));
    assert_int_equal(config->listen_port, 8080);
    assert_true(str_equal(config->data_dir, S("./data")));
    cost budget = config_session_budget(config);
    assert_int_equal(budget.tokens, 200000);
    assert_int_equal(budget.time_ms, 3600000);
    assert_true(budget.cost_nanousd == COST_UNLIMITED && budget.tool_calls == COST_UNLIMITED);
    assert_int_equal(config->provider_count + config->model_count + config->agent_count, 0);
    assert_int_equal(config->responses_expiry_ms, 30ll * 24 * 3600 * 1000);
}

static const char whole[] =
    "listen: \"[::1]:0\"\n"
    "data_dir: /var/lib/nexus\n"
    "providers:\n"
    "  - {name: local, type: openai, base_url: \"http://127.0.0.1:9100/v1\", api_keys: "
    "[\"${env:LOCAL_KEY}\"]}\n"
    "models:\n"
    "  - name: fast\n"
    "    targets: [{provider: local, model: some-model, weight: 1, price: "
    "{input_usd_per_million_tokens: 0.15,\n"
    "               output_usd_per_million_tokens: 0.6}}]\n"
    "agents:\n"
    "  - {name: analyst, model: fast, tools: [data_analysis, {name: time, pinned: true}], "
    "max_steps: "
    "5, timeout: 90s, limits: {cost_usd_per_minute: 0.5, same_action_max: 0},\n"
    "     agents: [assistant, {name: analyst, as: handoff, sticky: true, description: again,\n"
    "              budget: {tokens: 500, time_seconds: 2, cost_usd: '0.5', tool_calls: 3}}]}\n"
    "tools:\n"
    "  http_request:\n"
    "    permissions:\n"
    "      network: {allowed_hosts: [api.example.com], max_response_size: 10MB, timeout: 30s}\n"
    "budgets: {session: {tokens: unlimited, cost_usd: 2.5, tool_calls: null}, alerts: [25, 90]}\n"
    "responses: {expiry: 36h}\n"
    "limits: {drain_timeout: 3s}\n";

static void test_a_whole_file_is_read(void **state)
{
    (void) state;
    OWNED(config) config = read_with(whole, &(struct config_sources){.environment = environment});
    assert_true(str_equal(config->listen_address, S("::1")));
    assert_int_equal(config->provider_count, 1);
    assert_true(secret_equal(config->providers[0].api_keys[0], S("a-very-secret-key")));
    assert_int_equal(config->models[0].targets[0].price.input_nanousd, 150000000);
    assert_int_equal(config->models[0].targets[0].price.cached_nanousd, COST_UNLIMITED);
    assert_int_equal(config->agents[0].tool_count, 2);
    assert_true(str_equal(config->agents[0].tools[1], S("time")));
    assert_true(config->agents[0].tool_details[1].is_pinned);
    assert_int_equal(config->agents[0].timeout_ms, 90000);
    assert_int_equal(config->agents[0].steps_max, 5);
    assert_int_equal(config->agents[0].limits.cost_per_minute_nanousd, 500000000);
    assert_int_equal(config->agents[0].limits.same_action_max, 0);
    assert_int_equal(config->agents[0].limits.same_action_warn, RUN_SAME_ACTION_WARN);
    assert_int_equal(config->agents[0].limits.wind_down_tokens, RUN_WIND_DOWN_TOKENS);
    int alerts[BUDGET_ALERTS_MAX];
    assert_int_equal(config_budget_alerts(config, alerts), 2);
    assert_true(alerts[0] == 250 && alerts[1] == 900);
    assert_int_equal(config->agents[0].link_count, 2);
    const struct agent_link *links = config->agents[0].links;
    assert_true(str_equal(links[0].name, S("assistant")) && !links[0].is_handoff);
    assert_true(cost_equal(links[0].budget, COST_LIMITLESS));
    assert_true(links[1].is_handoff && links[1].is_sticky);
    assert_true(str_equal(links[1].description, S("again")));
    assert_true(cost_equal(links[1].budget, (cost){500, 2000, 500000000, 3}));
    assert_true(config_session_budget(config).tokens == COST_UNLIMITED);
    assert_int_equal(config->session_budget.cost_nanousd, 2500000000);
    assert_int_equal(config->drain_timeout_ms, 3000);
    assert_int_equal(config->responses_expiry_ms, 36 * 3600 * 1000);
}

static void test_environment_overrides_the_file_and_flags_override_both(void **state)
{
    (void) state;
    struct config_override flags[] = {{"listen", "--listen", S("127.0.0.1:9")}};
    struct config_sources sources = {
        .environment = environment, .overrides = flags, .override_count = 1};
    OWNED(config) config = read_with("listen: 127.0.0.1:7\nsessions: {expiry: 1h}\n", &sources);
    assert_int_equal(config->listen_port, 9);
    assert_int_equal(config->session_expiry_ms, 2 * 3600 * 1000);
    assert_int_equal(config->allowed_host_count, 2);
    assert_true(str_equal(config->allowed_hosts[1], S("b.example")));
}

static void test_no_secret_is_shown(void **state)
{
    (void) state;
    struct strbuf text;
    struct json_writer w;
    OWNED(config) config = read_with(whole, &(struct config_sources){.environment = environment});
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    config_write_json(&w, config);
    assert_int_equal(str_find(strbuf_str(&text), S("a-very-secret-key")), STR_NOT_FOUND);
    assert_int_not_equal(str_find(strbuf_str(&text), S("(secret)")), STR_NOT_FOUND);
    assert_int_not_equal(str_find(strbuf_str(&text), S("nexus.yaml:1")), STR_NOT_FOUND);
}

static void test_a_reference_that_stands_for_a_setting_is_shown_as_it_was_written(void **state)
{
    (void) state;
    struct strbuf text;
    struct json_writer w;
    OWNED(config) config = read_with("data_dir: \"/srv/${env:LOCAL_KEY}\"\n",
                                     &(struct config_sources){.environment = environment});
    assert_true(str_equal(config->data_dir, S("/srv/a-very-secret-key")));
    strbuf_init(&text, arena, 1u << 20);
    json_writer_init(&w, &text);
    config_write_json(&w, config);
    assert_int_equal(str_find(strbuf_str(&text), S("a-very-secret-key")), STR_NOT_FOUND);
    assert_int_not_equal(str_find(strbuf_str(&text), S("${env:LOCAL_KEY}")), STR_NOT_FOUND);
}

static void test_a_file_reference_gives_the_content_without_its_last_newline(void **state)
{
    (void) state;
    char path[] = "/tmp/nexus-config-test.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, "from-a-file\n", 12) == 12);
    close(fd);
    str text = str_printf(arena, "node: \"${file:%s}\"\n", path);
    OWNED(config) config = config_of(str_to_cstr(arena, text));
    assert_true(str_equal(config->node, S("from-a-file")));
    unlink(path);
    assert_refused(str_to_cstr(arena, text), "No such file");
}

static void test_tls_files_are_read_and_named_when_they_cannot_be(void **state)
{
    (void) state;
    struct error e = {0};
    struct tls_server_options options;
    OWNED(config) plain = config_of("{}");
    assert_false(config_tls(plain, &options));
    assert_true(config_check_files(plain, &e));
    OWNED(config)
    config = config_of("tls: {cert_file: /nowhere/a.pem, key_file: /nowhere/a.key}\n");
    assert_true(config_tls(config, &options));
    assert_true(str_equal(options.key_file, S("/nowhere/a.key")));
    assert_false(config_check_files(config, &e));
    assert_non_null(strstr(e.message, "tls.cert_file /nowhere/a.pem: No such file"));
    assert_int_equal(e.reason, REASON_CONFIG);
}

static void test_mistakes_name_file_line_and_remedy(void **state)
{
    (void) state;
    assert_refused(
        "listn: x\n",
        "nexus.yaml:1: unknown setting \"listn\" in configuration; did you mean listen?");
    assert_refused("limits:\n  streems_per_key: 3\n",
                   "nexus.yaml:2: unknown setting \"streems_per_key\" in limits; did you mean "
                   "streams_per_key?");
    assert_refused("zzzzzzzzzz: 1\n", "there are: listen, tls, data_dir");
    assert_refused("tls: {cert_file: a.pem}\n", "nexus.yaml:1: tls.cert_file needs tls.key_file");
    assert_refused("tls: {key_file: a.key}\n", "nexus.yaml:1: tls.key_file needs tls.cert_file");
    assert_refused("tls: {client_ca_file: c.pem}\n", "tls.client_ca_file needs tls.cert_file");
    assert_refused("listen: 8080\n", "is not ADDRESS:PORT");
    assert_refused("listen: ::1:8080\n", "in brackets");
    assert_refused("listen: a:99999\n", "is not ADDRESS:PORT");
    assert_refused("log_level: loud\n",
                   "nexus.yaml:1: log_level: \"loud\" is not one of debug|info|warn|error");
    assert_refused("sessions:\n  expiry: 12\n", "nexus.yaml:2: expiry: \"12\" is no duration");
    assert_refused("threads: 1.5\n", "is no whole number");
    assert_refused("budgets: {alerts: [80, 50]}\n", "budgets.alerts: at most 8 rising numbers");
    assert_refused("budgets: {alerts: [101]}\n", "budgets.alerts: at most 8 rising numbers");
    assert_refused("threads: 100000\n", "out of range");
    assert_refused("budgets: {session: {cost_usd: -1}}\n", "no amount of money");
    assert_refused("sessions: {files_quota: lots}\n", "is no size");
    assert_refused("data_dir: [a]\n", "must be one value");
    assert_refused("providers: {a: b}\n", "must be a list");
    assert_refused("allowed_hosts: x\n", "must be a list");
    assert_refused("limits: 3\n", "must be a mapping");
    assert_refused("- a\n", "must be a mapping");
}

static void test_references_between_settings_are_checked(void **state)
{
    (void) state;
    assert_refused("providers:\n  - {type: offline}\n", "nexus.yaml:2: this provider has no name");
    assert_refused("providers:\n  - {name: a, type: openai}\n", "needs base_url");
    assert_refused("providers:\n  - {name: a, type: anthropic, base_url: x}\n", "needs base_url");
    assert_refused("providers:\n  - {name: a, type: offline}\n", "providers without models");
    assert_refused("providers: [{name: a, type: offline}, {name: a, type: offline}]\nmodels: []\n",
                   "is there twice");
    assert_refused("providers: [{name: a, type: offline}]\nmodels:\n  - name: m\n    targets: "
                   "[{provider: b, model: x}]\n",
                   "nexus.yaml:4: no provider is named \"b\"");
    assert_refused("providers: [{name: a, type: offline}]\nmodels:\n  - {name: m, targets: []}\n",
                   "at least one target");
    assert_refused("providers: [{name: a, type: offline}]\nmodels:\n  - {name: m, targets: "
                   "[{provider: a, model: x}]}\n"
                   "agents:\n  - {name: z, model: nope}\n",
                   "nexus.yaml:5: agent \"z\": no model is named \"nope\"");
    assert_refused("tools:\n  time: 3\n", "must hold `permissions:`");
    assert_refused("tools:\n  time:\n    permisions: {}\n",
                   "nexus.yaml:3: unknown member permisions");
    assert_refused("tools:\n  trusted_keys:\n    - {name: a, public_key: xyz}\n", "nexus.yaml:3");
    assert_refused("tools:\n  require_signature: perhaps\n", "nexus.yaml:2");
    assert_refused("tools:\n  time:\n    canary: {version: 1, percent: 200}\n", "nexus.yaml:3");
    assert_refused("agents:\n  - name: a\n    tools:\n      - {name: time, permisions: {}}\n",
                   "nexus.yaml:4: unknown setting \"permisions\"");
    assert_refused("agents:\n  - name: a\n    agents: [nobody]\n", "there is no agent");
    assert_refused("agents:\n  - name: a\n    agents: [{name: a, as: friend}]\n",
                   "as is tool or handoff");
    assert_refused("agents:\n  - name: a\n    agents: [{name: a, sticky: true}]\n",
                   "only a handoff can be sticky");
    assert_refused("agents:\n  - name: a\n    agents: [{name: a, budget: {tokens: 0}}]\n",
                   "budget.tokens");
    assert_refused("agents:\n  - name: a\n    tools:\n      - {permissions: {}}\n",
                   "nexus.yaml:4: an item of tools needs a name");
    assert_refused("agents:\n  - name: a\n    tools:\n      - name: time\n        permissions:\n"
                   "          network: {allowed_ips: [10.0.0.1]}\n",
                   "nexus.yaml:6: allowed_ips stands in the operator's configuration only");
    assert_refused("tools:\n  time:\n    permissions:\n      netwrk: {}\n", "nexus.yaml:4");
}

#define PROVIDER "providers: [{name: a, type: offline}]\nmodels:\n"
#define TARGET "targets: [{provider: a, model: x}]"
static void test_the_rules_of_a_model_are_read(void **state)
{
    (void) state;
    OWNED(config) config = config_of(
        PROVIDER "  - name: m\n"
                 "    aliases: [n, o]\n"
                 "    targets:\n"
                 "      - {provider: a, model: x, priority: 2, weight: 3, variant: trial}\n"
                 "      - {provider: a, model: y, variant: control, price: "
                 "{input_usd_per_million_tokens: 1, output_usd_per_million_tokens: 2, "
                 "cache_write_usd_per_million_tokens: 1.25, reasoning_usd_per_million_tokens: 3}}\n"
                 "    split: [{name: control, weight: 9}, {name: trial}]\n"
                 "    deadlines: {connect: 1s, first_token: 20s, between_tokens: 5s, total: 2m}\n"
                 "    retries: 1\n"
                 "    hedge_after: auto\n"
                 "    cache: {mode: semantic, ttl: 10m, scope: tenant, similarity: 0.9, embedder: "
                 "e}\n"
                 "  - {name: e, embedder: true, hedge_after: 800ms, " TARGET "}\n"
                 "prices: {file: mine.yaml}\n");
    const struct config_model *model = &config->models[0];
    assert_int_equal(model->alias_count, 2);
    assert_int_equal(model->targets[0].priority, 2);
    assert_true(str_equal(model->targets[1].variant, S("control")));
    assert_int_equal(model->targets[1].price.cache_write_nanousd, 1250000000);
    assert_int_equal(model->targets[1].price.reasoning_nanousd, 3000000000);
    assert_int_equal(model->variant_count, 2);
    assert_int_equal(model->variants[0].weight, 9);
    assert_int_equal(model->deadlines.first_token_ms, 20000);
    assert_int_equal(model->deadlines.total_ms, 120000);
    assert_int_equal(model->retries, 1);
    assert_int_equal(model->hedge_after_ms, -1);
    assert_true(model->cache.similarity > 0.89 && model->cache.similarity < 0.91);
    assert_true(str_equal(model->cache.scope, S("tenant")));
    assert_int_equal(config->models[1].hedge_after_ms, 800);
    assert_int_equal(config->models[1].retries, 2);
    assert_int_equal(config->models[1].deadlines.total_ms, 0);
    assert_true(str_equal(config->models[1].cache.mode, S("off")));
    assert_true(str_equal(config->prices_file, S("mine.yaml")));
}

static void test_mistakes_in_the_rules_of_a_model_are_refused(void **state)
{
    (void) state;
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"  - {name: m, aliases: [m], " TARGET "}\n", "names itself twice"},
        {"  - {name: m, " TARGET "}\n  - {name: n, aliases: [m], " TARGET "}\n", "twice"},
        {"  - {name: m, aliases: [\"agent:x\"], " TARGET "}\n", "agent:"},
        {"  - {name: m, targets: [{provider: a, model: x, variant: v}]}\n",
         "nexus.yaml:3: `split` names no variant \"v\""},
        {"  - {name: m, split: [{name: v}], " TARGET "}\n", "no target says"},
        {"  - {name: m, hedge_after: soon, " TARGET "}\n", "not never, auto or a duration"},
        {"  - {name: m, hedge_after: 0s, " TARGET "}\n", "not never, auto or a duration"},
        {"  - {name: m, cache: {similarity: 2}, " TARGET "}\n", "above 0 and up to 1"},
        {"  - {name: m, cache: {mode: semantic, embedder: m}, " TARGET "}\n", "embedder: true"},
        {"  - {name: m, cache: {mode: all}, " TARGET "}\n", "is not one of"},
        {"  - {name: m, retries: 99, " TARGET "}\n", "out of range"},
        {"  - {name: m, targets: [{provider: a, model: x, priority: -1}]}\n", "out of range"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        char text[600];
        snprintf(text, sizeof text, "%s%s", PROVIDER, wrong[i].text);
        assert_refused(text, wrong[i].says);
    }
}

static void test_a_memory_names_an_embedder_and_a_filter_that_are_there(void **state)
{
    (void) state;
    assert_refused("memory: {embedding_model: vectors}\n",
                   "memory.embedding_model needs the name of a model that has `embedder: true`");
    assert_refused("providers: [{name: a, type: offline}]\nmodels:\n  - {name: m, " TARGET
                   "}\nmemory: {embedding_model: m}\n",
                   "nexus.yaml:4: memory.embedding_model needs the name");
    assert_refused("memory: {filter: strict}\n", "no filter is named \"strict\"");
    assert_refused("memory: {dimensions: 0}\n", "dimensions");
    assert_refused("memory: {user_points: 100001}\n", "user_points");
}

static void test_a_broken_reference_is_refused_without_its_value(void **state)
{
    (void) state;
    assert_refused("node: \"${env:NOT_THERE}\"\n",
                   "nexus.yaml:1: node: the environment has no NOT_THERE");
    assert_refused("node: \"${env:NOT_THERE\"\n", "does not end with }");
    assert_refused("node: \"${vault:x}\"\n", "a reference is ${env:NAME} or ${file:PATH}");
}

static void test_a_bad_flag_is_named_as_the_flag(void **state)
{
    (void) state;
    struct config *config;
    struct error e = {0};
    struct config_override flags[] = {{"log_level", "--log-level", S("loud")}};
    struct config_sources sources = {.environment = no_environment,
                                     .has_no_file = true,
                                     .overrides = flags,
                                     .override_count = 1};
    assert_false(config_load(&sources, &config, &e));
    assert_non_null(strstr(e.message, "--log-level: \"loud\" is not one of"));
}

static void test_the_reference_tells_every_setting(void **state)
{
    (void) state;
    struct strbuf text;
    strbuf_init(&text, arena, 1u << 20);
    config_write_reference(&text);
    assert_int_not_equal(str_find(strbuf_str(&text), S("`sessions.expiry` = `30d`")),
                         STR_NOT_FOUND);
    assert_int_not_equal(str_find(strbuf_str(&text), S("[NEXUS_SESSIONS_EXPIRY]")), STR_NOT_FOUND);
    assert_int_not_equal(str_find(strbuf_str(&text), S("`models[].targets[].provider` (required)")),
                         STR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_empty_file_gives_the_defaults),
        cmocka_unit_test(test_a_whole_file_is_read),
        cmocka_unit_test(test_environment_overrides_the_file_and_flags_override_both),
        cmocka_unit_test(test_no_secret_is_shown),
        cmocka_unit_test(test_a_reference_that_stands_for_a_setting_is_shown_as_it_was_written),
        cmocka_unit_test(test_a_file_reference_gives_the_content_without_its_last_newline),
        cmocka_unit_test(test_tls_files_are_read_and_named_when_they_cannot_be),
        cmocka_unit_test(test_mistakes_name_file_line_and_remedy),
        cmocka_unit_test(test_references_between_settings_are_checked),
        cmocka_unit_test(test_the_rules_of_a_model_are_read),
        cmocka_unit_test(test_mistakes_in_the_rules_of_a_model_are_refused),
        cmocka_unit_test(test_a_memory_names_an_embedder_and_a_filter_that_are_there),
        cmocka_unit_test(test_a_broken_reference_is_refused_without_its_value),
        cmocka_unit_test(test_a_bad_flag_is_named_as_the_flag),
        cmocka_unit_test(test_the_reference_tells_every_setting),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
