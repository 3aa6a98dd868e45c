#include "llm/catalog.h"

#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

static struct provider provider = {.name = S_INIT("p")};

static struct model model_of(const char *name, struct model_target *targets, size_t count)
{
    return (struct model){.name = str_from_cstr(name),
                          .targets = targets,
                          .target_count = count,
                          .max_output_tokens = 100};
}

static void test_names_are_found_and_the_first_is_the_default(void **state)
{
    (void) state;
    OWNED(catalog) catalog = catalog_create();
    struct error e = {0};
    struct model_target target = {.provider = &provider, .model = S("m"), .weight = 1};
    assert_null(catalog_default(catalog));
    for (int i = 0; i < 20; i++) {
        char name[16];
        snprintf(name, sizeof name, "m%d", i);
        struct model model = model_of(name, &target, 1);
        assert_true(catalog_add(catalog, &model, &e));
    }
    assert_int_equal(catalog_count(catalog), 20);
    assert_ptr_equal(catalog_default(catalog), catalog_find(catalog, S("m0")));
    assert_ptr_equal(catalog_at(catalog, 19), catalog_find(catalog, S("m19")));
    assert_null(catalog_find(catalog, S("m20")));
}

static void test_wrong_models_are_refused(void **state)
{
    (void) state;
    OWNED(catalog) catalog = catalog_create();
    struct error e = {0};
    static struct model_target targets[MODEL_TARGETS_MAX + 1];
    for (size_t i = 0; i < ARRAY_COUNT(targets); i++)
        targets[i] = (struct model_target){.provider = &provider, .model = S("m"), .weight = 1};
    struct model model = model_of("a", targets, MODEL_TARGETS_MAX);
    assert_true(catalog_add(catalog, &model, &e));
    assert_false(catalog_add(catalog, &model, &e));
    assert_non_null(strstr(e.message, "twice"));
    model = model_of("b", targets, MODEL_TARGETS_MAX + 1);
    assert_false(catalog_add(catalog, &model, &e));
    model = model_of("b", targets, 0);
    assert_false(catalog_add(catalog, &model, &e));
    model = model_of("", targets, 1);
    assert_false(catalog_add(catalog, &model, &e));
    model = model_of("b", targets, 1);
    model.max_output_tokens = 0;
    assert_false(catalog_add(catalog, &model, &e));
    struct model_target weightless = {.provider = &provider, .model = S("m"), .weight = 0};
    model = model_of("b", &weightless, 1);
    assert_false(catalog_add(catalog, &model, &e));
    weightless.weight = 1;
    weightless.price.output_picousd_per_token = -1;
    assert_false(catalog_add(catalog, &model, &e));
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_int_equal(catalog_count(catalog), 1);
}

static void test_an_unknown_model_is_told_with_the_names(void **state)
{
    (void) state;
    OWNED(catalog) catalog = catalog_create();
    struct error e = {0};
    assert_false(catalog_error_unknown(catalog, S("x"), &e));
    assert_string_equal(e.message, "no model 'x': none is configured");
    struct model_target target = {.provider = &provider, .model = S("m"), .weight = 1};
    struct model fast = model_of("fast", &target, 1), slow = model_of("slow", &target, 1);
    assert_true(catalog_add(catalog, &fast, &e) && catalog_add(catalog, &slow, &e));
    assert_false(catalog_error_unknown(catalog, S("x"), &e));
    assert_string_equal(e.message, "no model 'x'; known are: fast, slow");
    assert_int_equal(e.reason, REASON_UNKNOWN_MODEL);
    for (int i = 0; i < 100; i++) {
        char name[32];
        snprintf(name, sizeof name, "a-rather-long-name-%d", i);
        struct model model = model_of(name, &target, 1);
        assert_true(catalog_add(catalog, &model, &e));
    }
    assert_false(catalog_error_unknown(catalog, S("x"), &e));
    assert_non_null(strstr(e.message, " more"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_found_and_the_first_is_the_default),
        cmocka_unit_test(test_wrong_models_are_refused),
        cmocka_unit_test(test_an_unknown_model_is_told_with_the_names),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
