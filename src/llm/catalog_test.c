#include "llm/catalog.h"

#include "base/limits.h"
#include "runtime/clock.h"

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

/* Gives the numbers of a list, over and over: catalog_pick needs no more of randomness. */
struct counter {
    struct random base;
    uint64_t next;
};

static void fill_from_counter(struct random *random, void *out, size_t len)
{
    struct counter *counter = CONTAINER_OF(random, struct counter, base);
    memset(out, 0, len);
    uint64_t value = counter->next * 0x9e3779b97f4a7c15ull;
    memcpy(out, &value, len < sizeof value ? len : sizeof value);
    counter->next++;
}

static const struct random_ops counter_ops = {.fill = fill_from_counter};

static void test_targets_are_picked_by_weight_among_those_not_tried(void **state)
{
    (void) state;
    struct counter counter = {.base = {&counter_ops}, .next = 1};
    struct model_target targets[] = {{.provider = &provider, .weight = 1},
                                     {.provider = &provider, .weight = 3},
                                     {.provider = &provider, .weight = 6}};
    struct model model = model_of("a", targets, 3);
    size_t picked[3] = {0}, index = 9;
    for (int i = 0; i < 10000; i++) {
        assert_non_null(catalog_pick(&model, 0, &counter.base, &index));
        picked[index]++;
    }
    assert_in_range(picked[0], 850, 1150);
    assert_in_range(picked[1], 2750, 3250);
    assert_in_range(picked[2], 5700, 6300);
    for (int i = 0; i < 100; i++)
        assert_ptr_equal(catalog_pick(&model, 1 | 4, &counter.base, &index), &targets[1]);
    assert_null(catalog_pick(&model, 7, &counter.base, &index));
}

static void test_prices_are_exact_and_rounded_up_once(void **state)
{
    (void) state;
    /* 7.5 nano-USD a token: three tokens are 22.5, told as 23. */
    struct model_price price = {.is_known = true,
                                .input_picousd_per_token = 7500,
                                .cached_picousd_per_token = 750,
                                .output_picousd_per_token = 30000};
    assert_int_equal(price_nanousd(&price, &(struct usage){.input_tokens = 3}), 23);
    assert_int_equal(price_nanousd(&price, &(struct usage){.input_tokens = 2}), 15);
    assert_int_equal(price_nanousd(&price, &(struct usage){.input_tokens = 10, .cached_tokens = 8}),
                     15 + 6);
    assert_int_equal(
        price_nanousd(&price, &(struct usage){.input_tokens = 10, .cached_tokens = 99}), 8);
    assert_int_equal(price_nanousd(&price, &(struct usage){.input_tokens = 1, .output_tokens = 1}),
                     38);
    assert_int_equal(
        price_nanousd(&price, &(struct usage){.input_tokens = -5, .output_tokens = -5}), 0);
    assert_int_equal(price_nanousd(&price, &(struct usage){0}), 0);
    price.is_known = false;
    assert_int_equal(price_nanousd(&price, &(struct usage){.input_tokens = 3}), 0);
}

static void test_prices_at_the_bounds_saturate_and_never_overflow(void **state)
{
    (void) state;
    struct model_price price = {.is_known = true,
                                .input_picousd_per_token = INT64_MAX,
                                .cached_picousd_per_token = INT64_MAX,
                                .output_picousd_per_token = INT64_MAX};
    struct usage usage = {.input_tokens = INT64_MAX, .output_tokens = INT64_MAX};
    assert_int_equal(price_nanousd(&price, &usage), INT64_MAX);
    assert_int_equal(price_bound_nanousd(&price, INT64_MAX, INT64_MAX), INT64_MAX);
    struct model_price one = {.is_known = true, .input_picousd_per_token = 1};
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = INT64_MAX}),
                     INT64_MAX / 1000 + 1);
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = 1}), 1);
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = 1000}), 1);
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = 1001}), 2);
}

static void test_the_bound_is_never_below_the_price(void **state)
{
    (void) state;
    struct model_price price = {.is_known = true,
                                .input_picousd_per_token = 333,
                                .cached_picousd_per_token = 777,
                                .output_picousd_per_token = 1001};
    for (int64_t input = 0; input < 40; input++) {
        for (int64_t cached = 0; cached <= input; cached += 3) {
            struct usage usage = {
                .input_tokens = input, .cached_tokens = cached, .output_tokens = input / 2};
            assert_true(price_nanousd(&price, &usage) <=
                        price_bound_nanousd(&price, input, input / 2));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_found_and_the_first_is_the_default),
        cmocka_unit_test(test_wrong_models_are_refused),
        cmocka_unit_test(test_an_unknown_model_is_told_with_the_names),
        cmocka_unit_test(test_targets_are_picked_by_weight_among_those_not_tried),
        cmocka_unit_test(test_prices_are_exact_and_rounded_up_once),
        cmocka_unit_test(test_prices_at_the_bounds_saturate_and_never_overflow),
        cmocka_unit_test(test_the_bound_is_never_below_the_price),
    };
    return cmocka_run_group_tests_name("catalog", tests, NULL, NULL);
}
