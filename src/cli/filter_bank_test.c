#include "cli/filter_bank.h"

#include "base/arena.h"
#include "cli/settings.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const char *no_environment(const char *name)
{
    (void) name;
    return NULL;
}

static bool read(const char *text, struct config **out, struct error *e)
{
    struct config_sources sources = {.environment = no_environment};
    return config_parse(S("nexus.yaml"), str_from_cstr(text), &sources, out, e);
}

#define MODELS                                                                                     \
    "providers: [{name: a, type: offline}]\n"                                                      \
    "models:\n"                                                                                    \
    "  - {name: m, filter: strict, targets: [{provider: a, model: x}]}\n"                          \
    "  - {name: n, targets: [{provider: a, model: x}]}\n"
#define FILTERS                                                                                    \
    "filters:\n"                                                                                   \
    "  - name: strict\n"                                                                           \
    "    direction: response\n"                                                                    \
    "    groups: {injection: off}\n"                                                               \
    "    rules:\n"                                                                                 \
    "      - {name: ticket-id, pattern: 'TICKET-\\d+', action: block, group: internal}\n"          \
    "      - {name: word, pattern: '(?i)\\bmoss\\b'}\n"

static void test_a_filter_is_read_and_compiled(void **state)
{
    (void) state;
    struct error e = {0};
    OWNED(config) config = NULL;
    struct filter_bank *bank = NULL;
    OWNED(arena) arena = arena_create(0);
    if (!read(MODELS FILTERS, &config, &e) || !filter_bank_take(NULL, config, NULL, &bank, &e))
        fail_msg("%s", e.message);
    const struct guard_rules *rules = filter_bank_find(bank, config->models[0].filter);
    assert_non_null(rules);
    assert_false(guard_is_on(rules, GUARD_REQUEST));
    assert_true(guard_is_on(rules, GUARD_REPLY));
    str out;
    assert_true(guard_text(arena, rules, NULL, GUARD_REPLY, S("Moss grows"), &out, &e));
    assert_true(str_equal(out, S("[WORD] grows")));
    assert_false(guard_text(arena, rules, NULL, GUARD_REPLY, S("see TICKET-12"), &out, &e));
    assert_int_equal(e.reason, REASON_CONTENT_BLOCKED);
    assert_non_null(strstr(e.message, "ticket-id (internal)"));
    assert_null(filter_bank_find(bank, config->models[1].filter));
    filter_bank_release(bank);
}

static void test_a_bank_is_kept_until_a_filter_changes(void **state)
{
    (void) state;
    struct error e = {0};
    struct filter_bank *kept = NULL, *first, *second, *third;
    OWNED(config) a = NULL;
    OWNED(config) b = NULL;
    assert_true(read(MODELS FILTERS, &a, &e) && read(FILTERS MODELS "      \n", &b, &e));
    assert_true(filter_bank_take(&kept, a, NULL, &first, &e));
    assert_true(filter_bank_take(&kept, b, NULL, &second, &e));
    assert_ptr_equal(first, second);
    OWNED(config) c = NULL;
    assert_true(read(MODELS FILTERS "      - {name: more, pattern: x+y}\n", &c, &e));
    assert_true(filter_bank_take(&kept, c, NULL, &third, &e));
    assert_ptr_not_equal(first, third);
    assert_non_null(
        filter_bank_find(first, S("strict"))); /* whoever holds the old one still has it */
    filter_bank_release(first);
    filter_bank_release(second);
    filter_bank_release(third);
    filter_bank_release(kept);
}

static void test_mistakes_are_told_with_their_line(void **state)
{
    (void) state;
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {MODELS, "nexus.yaml:3: no filter is named \"strict\""},
        {MODELS FILTERS "      - {name: bad, pattern: 'a(b'}\n",
         "nexus.yaml:12: filter rule bad: at position 2: this group has no end"},
        {MODELS FILTERS "      - {name: word, pattern: ab}\n",
         "nexus.yaml:12: rule \"word\" is there twice"},
        {MODELS FILTERS "  - {name: strict}\n", "nexus.yaml:12: filter \"strict\" is there twice"},
        {"filters: [{name: f, groups: {pii: hide}}]\n",
         "\"hide\" is not one of off|flag|mask|block"},
        {"filters: [{name: f, groups: {spam: mask}}]\n", "spam"},
        {"filters: [{name: f, direction: up}]\n", "is not one of request|response|both"},
        {"filters: [{name: f, rules: [{name: a b, pattern: x}]}]\n", "a name has 1 to 64"},
        {"filters: [{name: f, rules: [{name: a}]}]\n", "pattern"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct error e = {0};
        struct config *config = NULL;
        if (read(wrong[i].text, &config, &e)) {
            config_destroy(config);
            fail_msg("accepted: %s", wrong[i].text);
        }
        if (!strstr(e.message, wrong[i].says))
            fail_msg("\"%s\" does not say \"%s\"", e.message, wrong[i].says);
    }
}

static bool create(const struct provider_options *options, struct provider **out, struct error *e)
{
    return provider_offline_create(options->name, out, e);
}

static void test_a_model_of_the_settings_has_its_rules(void **state)
{
    (void) state;
    static const struct provider_type types[] = {{"offline", true, create}};
    struct error e = {0};
    struct filter_bank *kept = NULL;
    struct settings *settings = NULL;
    OWNED(provider_set) set = NULL;
    OWNED(config) config = NULL;
    assert_true(read(MODELS FILTERS, &config, &e));
    struct settings_sources sources = {
        .config = config, .types = types, .type_count = 1, .filters = &kept};
    if (!provider_set_create(&sources, &set, &e) || !settings_create(&sources, set, &settings, &e))
        fail_msg("%s", e.message);
    filter_bank_release(kept); /* the catalog has its own */
    assert_true(guard_is_on(catalog_find(settings->catalog, S("m"))->guard, GUARD_REPLY));
    assert_null(catalog_find(settings->catalog, S("n"))->guard);
    settings_destroy(settings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_filter_is_read_and_compiled),
        cmocka_unit_test(test_a_bank_is_kept_until_a_filter_changes),
        cmocka_unit_test(test_mistakes_are_told_with_their_line),
        cmocka_unit_test(test_a_model_of_the_settings_has_its_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
