#include "cli/settings.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

/* Any provider will do: these are about what settings make of them. */
static bool create(const struct provider_options *options, struct provider **out, struct error *e)
{
    return provider_offline_create(options->name, out, e);
}

static const struct provider_type types[] = {
    {"openai", false, create}, {"anthropic", false, create}, {"offline", true, create}};

struct made {
    struct config *config;
    struct provider_set *set;
    struct settings *settings;
};

static struct made make(const char *text)
{
    struct made made = {0};
    struct error e = {0};
    struct settings_sources sources = {.types = types, .type_count = ARRAY_COUNT(types)};
    if (!config_parse(S("nexus.yaml"), str_from_cstr(text), &(struct config_sources){0},
                      &made.config, &e))
        fail_msg("%s", e.message);
    sources.config = made.config;
    if (!provider_set_create(&sources, &made.set, &e) ||
        !settings_create(&sources, made.set, &made.settings, &e))
        fail_msg("%s", e.message);
    return made;
}

static void drop(struct made *made)
{
    settings_destroy(made->settings);
    provider_set_destroy(made->set);
    config_destroy(made->config);
}

static const struct model *model_of(const struct made *made, const char *name)
{
    const struct model *model = catalog_find(made->settings->catalog, str_from_cstr(name));
    assert_non_null(model);
    return model;
}

static const char listed[] =
    "prices: {file: \"" NEXUS_SOURCE_DIR "/prices\"}\n"
    "providers:\n"
    "  - {name: openai, type: openai, base_url: \"https://api.openai.com/v1\"}\n"
    "  - {name: claude, type: anthropic}\n"
    "  - {name: local, type: openai, base_url: \"http://127.0.0.1:9/v1\"}\n"
    "models:\n"
    "  - {name: mini, aliases: [small], targets: [{provider: openai, model: gpt-4o-mini}]}\n"
    "  - {name: haiku, targets: [{provider: claude, model: claude-haiku-4-5}]}\n"
    "  - name: own\n"
    "    targets:\n"
    "      - {provider: openai, model: gpt-4o-mini, price: {input_usd_per_million_tokens: 9,\n"
    "         output_usd_per_million_tokens: 8, cached_usd_per_million_tokens: 1}}\n"
    "      - {provider: local, model: gpt-4o-mini, priority: 1}\n";

static void test_a_targets_own_price_goes_before_the_lists_and_no_price_is_unknown(void **state)
{
    (void) state;
    struct made made = make(listed);
    const struct model *mini = model_of(&made, "small");
    assert_ptr_equal(mini, model_of(&made, "mini"));
    assert_true(mini->targets[0].price.is_known);
    assert_int_equal(mini->targets[0].price.input_picousd_per_token, 150000);
    assert_int_equal(model_of(&made, "haiku")->targets[0].price.cache_write_picousd_per_token,
                     1250000);
    const struct model *own = model_of(&made, "own");
    assert_int_equal(own->targets[0].price.input_picousd_per_token, 9000000);
    assert_int_equal(own->targets[0].price.cached_picousd_per_token, 1000000);
    assert_int_equal(own->targets[0].price.cache_write_picousd_per_token, PRICE_LIKE_INPUT);
    assert_false(own->targets[1].price.is_known); /* the name of a model says not who sells it */
    assert_int_equal(own->targets[1].priority, 1);
    OWNED(arena) arena = arena_create(0);
    struct error e = {0};
    str unpriced;
    assert_true(config_unpriced(made.config, arena, &unpriced, &e));
    assert_true(str_equal(unpriced, S("own (local/gpt-4o-mini)")));
    drop(&made);
}

static void test_an_own_list_names_a_provider_as_the_configuration_does(void **state)
{
    (void) state;
    char path[] = "/tmp/nexus-prices.XXXXXX", text[512];
    int fd = mkstemp(path);
    static const char list[] = "version: \"1\"\ndate: 2026-01-01\nsource: contract\nproviders:\n"
                               "  - provider: local\n    models:\n"
                               "      - {model: x, input: \"0.5\", output: \"1\"}\n";
    assert_true(fd >= 0 && write(fd, list, sizeof list - 1) == (ssize_t) sizeof list - 1);
    close(fd);
    snprintf(text, sizeof text,
             "prices: {file: %s}\nproviders:\n  - {name: local, type: openai, base_url: "
             "\"http://127.0.0.1:9/v1\"}\nmodels:\n  - {name: m, targets: [{provider: local, "
             "model: x}]}\n",
             path);
    struct made made = make(text);
    assert_int_equal(model_of(&made, "m")->targets[0].price.input_picousd_per_token, 500000);
    drop(&made);
    unlink(path);
}

static void test_rules_of_a_model_reach_the_catalog(void **state)
{
    (void) state;
    struct made made = make("providers: [{name: a, type: offline}]\n"
                            "models:\n"
                            "  - name: m\n"
                            "    targets: [{provider: a, model: x, variant: v, weight: 4}]\n"
                            "    split: [{name: v, weight: 2}]\n"
                            "    deadlines: {first_token: 3s, total: 9s}\n"
                            "    retries: 0\n"
                            "    hedge_after: 250ms\n"
                            "    cache: {mode: exact, ttl: 5m, scope: tenant}\n"
                            "  - {name: e, embedder: true, targets: [{provider: a, model: y}]}\n");
    const struct model *model = model_of(&made, "m");
    assert_int_equal(model->variant_count, 1);
    assert_int_equal(model->variants[0].weight, 2);
    assert_true(str_equal(model->targets[0].variant, S("v")));
    assert_int_equal(model->deadlines.first_token_ms, 3000);
    assert_int_equal(model->deadlines.total_ms, 9000);
    assert_int_equal(model->deadlines.connect_ms, 0);
    assert_int_equal(model->retries_max, 0);
    assert_int_equal(model->hedge_after_ms, 250);
    assert_int_equal(model->cache.mode, MODEL_CACHE_EXACT);
    assert_int_equal(model->cache.ttl_ms, 300000);
    assert_true(model->cache.is_tenant_wide);
    assert_false(model->is_embedder);
    assert_true(model->targets[0].price.is_known); /* the stand-in costs nothing */
    assert_true(model_of(&made, "e")->is_embedder);
    drop(&made);
}

static void test_a_folder_of_workflows_that_cannot_be_read_is_named(void **state)
{
    struct error e = {0};
    struct settings *settings = NULL;
    struct settings_sources sources = {.types = types, .type_count = ARRAY_COUNT(types)};
    struct provider_set *set = NULL;
    struct config *config = NULL;
    (void) state;
    if (!config_parse(S("nexus.yaml"), S("workflows: {dir: /there/is/no/such/folder}\n"),
                      &(struct config_sources){0}, &config, &e))
        fail_msg("%s", e.message);
    sources.config = config;
    if (!provider_set_create(&sources, &set, &e))
        fail_msg("%s", e.message);
    assert_false(settings_create(&sources, set, &settings, &e));
    assert_non_null(strstr(e.message, "/there/is/no/such/folder"));
    assert_non_null(strstr(e.message, "workflows.dir"));
    provider_set_destroy(set);
    config_destroy(config);
}

static void test_a_broken_price_list_is_named(void **state)
{
    (void) state;
    struct config *config = NULL;
    struct error e = {0};
    str unpriced;
    OWNED(arena) arena = arena_create(0);
    assert_true(config_parse(S("nexus.yaml"), S("prices: {file: /no/such/list.yaml}\n"),
                             &(struct config_sources){0}, &config, &e));
    assert_false(config_unpriced(config, arena, &unpriced, &e));
    assert_non_null(strstr(e.message, "prices.file: price list /no/such/list.yaml"));
    config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_targets_own_price_goes_before_the_lists_and_no_price_is_unknown),
        cmocka_unit_test(test_an_own_list_names_a_provider_as_the_configuration_does),
        cmocka_unit_test(test_rules_of_a_model_reach_the_catalog),
        cmocka_unit_test(test_a_folder_of_workflows_that_cannot_be_read_is_named),
        cmocka_unit_test(test_a_broken_price_list_is_named),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
