#include "llm/prices.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "runtime/simulated.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

/* ---- cost ---- */

static void test_costs_are_exact_and_rounded_up_once(void **state)
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

static void test_each_class_of_tokens_has_its_rate_or_its_neighbours(void **state)
{
    (void) state;
    struct model_price price = {.is_known = true,
                                .input_picousd_per_token = 3000000,
                                .cached_picousd_per_token = 300000,
                                .cache_write_picousd_per_token = 3750000,
                                .output_picousd_per_token = 15000000,
                                .reasoning_picousd_per_token = 20000000};
    struct usage usage = {.input_tokens = 1000,
                          .cached_tokens = 600,
                          .cache_write_tokens = 300,
                          .output_tokens = 50,
                          .reasoning_tokens = 20};
    assert_int_equal(price_nanousd(&price, &usage),
                     100 * 3000 + 600 * 300 + 300 * 3750 + 30 * 15000 + 20 * 20000);
    price.cached_picousd_per_token = price.cache_write_picousd_per_token =
        price.reasoning_picousd_per_token = PRICE_LIKE_INPUT;
    assert_int_equal(price_nanousd(&price, &usage), 1000 * 3000 + 50 * 15000);
}

static void test_a_long_prompt_is_dearer_as_a_whole(void **state)
{
    (void) state;
    struct model_price price = {
        .is_known = true,
        .input_picousd_per_token = 1000,
        .cached_picousd_per_token = PRICE_LIKE_INPUT,
        .output_picousd_per_token = 4000,
        .long_above_tokens = 200,
        .long_rates = {.input = 2000, .cached = 500, .cache_write = -1, .output = 6000, -1}};
    struct usage usage = {.input_tokens = 200, .output_tokens = 10};
    assert_int_equal(price_nanousd(&price, &usage), 200 + 40);
    usage.input_tokens = 201;
    assert_int_equal(price_nanousd(&price, &usage), 402 + 60);
    usage.cached_tokens = 101;
    assert_int_equal(price_nanousd(&price, &usage), 200 + 51 + 60);
    assert_int_equal(price_bound_nanousd(&price, 200, 10), 240);
    assert_int_equal(price_bound_nanousd(&price, 201, 10), 462);
    price.long_rates.input = 10; /* a discount does not lower the bound of what may stay below it */
    price.long_rates.output = 10;
    price.long_rates.cached = 10;
    assert_int_equal(price_bound_nanousd(&price, 201, 10), 240);
}

static void test_costs_at_the_bounds_saturate_and_never_overflow(void **state)
{
    (void) state;
    struct model_price price = {.is_known = true,
                                .input_picousd_per_token = INT64_MAX,
                                .cached_picousd_per_token = INT64_MAX,
                                .cache_write_picousd_per_token = INT64_MAX,
                                .reasoning_picousd_per_token = INT64_MAX,
                                .output_picousd_per_token = INT64_MAX};
    struct usage usage = {.input_tokens = INT64_MAX,
                          .cached_tokens = INT64_MAX / 3,
                          .cache_write_tokens = INT64_MAX,
                          .reasoning_tokens = INT64_MAX / 2,
                          .output_tokens = INT64_MAX};
    assert_int_equal(price_nanousd(&price, &usage), INT64_MAX);
    assert_int_equal(price_bound_nanousd(&price, INT64_MAX, INT64_MAX), INT64_MAX);
    struct model_price one = {.is_known = true, .input_picousd_per_token = 1};
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = INT64_MAX}),
                     INT64_MAX / 1000 + 1);
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = 1}), 1);
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = 1000}), 1);
    assert_int_equal(price_nanousd(&one, &(struct usage){.input_tokens = 1001}), 2);
}

static int64_t any(struct random *random)
{
    unsigned bits = (unsigned) random_below(random, 40);
    return (int64_t) random_below(random, (1ull << bits) + 1);
}

static int64_t any_rate(struct random *random)
{
    return random_below(random, 4) == 0 ? PRICE_LIKE_INPUT : any(random) & 0x3fffffff;
}

static struct model_price any_price(struct random *random)
{
    struct model_price price = {.is_known = true,
                                .input_picousd_per_token = any(random) & 0x3fffffff,
                                .cached_picousd_per_token = any_rate(random),
                                .cache_write_picousd_per_token = any_rate(random),
                                .output_picousd_per_token = any(random) & 0x3fffffff,
                                .reasoning_picousd_per_token = any_rate(random)};
    if (random_below(random, 2))
        price.long_above_tokens = 1 + any(random);
    price.long_rates =
        (struct price_rates){any(random) & 0x3fffffff, any_rate(random), any_rate(random),
                             any(random) & 0x3fffffff, any_rate(random)};
    return price;
}

/* The sum in words of the price list, over 128 bits, and the smallest whole nano-USD that is not below it. */
static __int128 exact_picousd(const struct model_price *price, const struct usage *u)
{
    bool is_long = price->long_above_tokens > 0 && u->input_tokens > price->long_above_tokens;
    int64_t input = is_long ? price->long_rates.input : price->input_picousd_per_token;
    int64_t cached = is_long ? price->long_rates.cached : price->cached_picousd_per_token;
    int64_t write = is_long ? price->long_rates.cache_write : price->cache_write_picousd_per_token;
    int64_t output = is_long ? price->long_rates.output : price->output_picousd_per_token;
    int64_t reasoning = is_long ? price->long_rates.reasoning : price->reasoning_picousd_per_token;
    __int128 sum = (__int128) u->input_tokens * input + (__int128) u->output_tokens * output;
    if (cached >= 0)
        sum += (__int128) u->cached_tokens * (cached - input);
    if (write >= 0)
        sum += (__int128) u->cache_write_tokens * (write - input);
    if (reasoning >= 0)
        sum += (__int128) u->reasoning_tokens * (reasoning - output);
    return sum;
}

static void test_random_costs_are_the_exact_sum_and_within_their_bound(void **state)
{
    (void) state;
    struct random *random = random_seeded_create(11);
    for (int i = 0; i < 200000; i++) {
        struct model_price price = any_price(random);
        struct usage usage = {.input_tokens = any(random), .output_tokens = any(random)};
        usage.cached_tokens = (int64_t) random_below(random, (uint64_t) usage.input_tokens + 1);
        usage.cache_write_tokens = (int64_t) random_below(
            random, (uint64_t) (usage.input_tokens - usage.cached_tokens) + 1);
        usage.reasoning_tokens = (int64_t) random_below(random, (uint64_t) usage.output_tokens + 1);
        int64_t cost = price_nanousd(&price, &usage);
        __int128 exact = exact_picousd(&price, &usage);
        if (exact > (__int128) INT64_MAX * 1000)
            continue;
        assert_true((__int128) cost * 1000 >= exact && (__int128) cost * 1000 < exact + 1000);
        int64_t more = any(random); /* the bound is of more tokens mostly */
        assert_true(cost <=
                    price_bound_nanousd(&price, usage.input_tokens + more, usage.output_tokens));
        assert_true(cost <=
                    price_bound_nanousd(&price, usage.input_tokens, usage.output_tokens + more));
    }
    random_seeded_destroy(random);
}

/* ---- lists ---- */

static int64_t day(const char *text)
{
    char full[32];
    int64_t us = 0;
    snprintf(full, sizeof full, "%sT12:00:00Z", text);
    assert_true(time_parse(str_from_cstr(full), &us));
    return us;
}

static const char list[] =
    "version: \"7\"\n"
    "date: 2026-11-05\n"
    "source: somewhere\n"
    "providers:\n"
    "  - provider: one\n"
    "    hosts: [api.one.example, \"*.one.example\"]\n"
    "    models:\n"
    "      - {model: m, aliases: [\"m-audio*\", other], valid_to: 2026-01-31,\n"
    "         input: \"2.50\", output: \"10\"}\n"
    "      - {model: m, valid_from: 2026-02-01, input: \"0.075\",\n"
    "         cached: \"0.0375\", cache_write: \"1\", output: \"0.000001\",\n"
    "         reasoning: \"3\", long_prompt: {above_tokens: 200000,\n"
    "         input: \"9\", output: \"8\"}}\n";

static struct prices *parse(const char *text)
{
    struct prices *prices = NULL;
    struct error e = {0};
    if (!prices_parse(S("list.yaml"), str_from_cstr(text), &prices, &e))
        fail_msg("%s", e.message);
    return prices;
}

static void test_a_price_is_found_by_name_host_and_day(void **state)
{
    (void) state;
    OWNED(prices) prices = parse(list);
    assert_int_equal(prices_count(prices), 2);
    assert_true(str_equal(prices_date(prices), S("2026-11-05")));
    assert_true(str_equal(prices_version(prices), S("7")));
    struct model_price price = prices_find(prices, S("one"), S("m"), day("2026-01-31"));
    assert_true(price.is_known);
    assert_int_equal(price.input_picousd_per_token, 2500000);
    assert_int_equal(price.cached_picousd_per_token, PRICE_LIKE_INPUT);
    assert_int_equal(price.output_picousd_per_token, 10000000);
    price = prices_find(prices, S("api.one.example"), S("m"), day("2026-02-01"));
    assert_int_equal(price.input_picousd_per_token, 75000);
    assert_int_equal(price.cached_picousd_per_token, 37500);
    assert_int_equal(price.cache_write_picousd_per_token, 1000000);
    assert_int_equal(price.output_picousd_per_token, 1);
    assert_int_equal(price.reasoning_picousd_per_token, 3000000);
    assert_int_equal(price.long_above_tokens, 200000);
    assert_int_equal(price.long_rates.input, 9000000);
    assert_int_equal(price.long_rates.reasoning, PRICE_LIKE_INPUT);
    assert_true(
        prices_find(prices, S("eu.one.example"), S("m-2026-02-03"), day("2026-06-01")).is_known);
    assert_true(prices_find(prices, S("ONE"), S("m-20260203"), day("2026-06-01")).is_known);
    assert_true(prices_find(prices, S("one"), S("m-audio-new"), day("2026-01-01")).is_known);
    assert_true(prices_find(prices, S("one"), S("other"), day("2026-01-01")).is_known);
}

static void test_what_is_not_in_the_list_is_not_known(void **state)
{
    (void) state;
    OWNED(prices) prices = parse(list);
    static const struct {
        const char *provider, *model;
    } unknown[] = {{"two", "m"},
                   {"one.example", "m"},
                   {"127.0.0.1", "m"},
                   {"one", "m2"},
                   {"one", "m-mini"},
                   {"one", ""},
                   {"one", "m-audio-new"},
                   {"one", "other"},
                   {"", "m"},
                   {"evilone.example", "m"},
                   {"one", "m-2026-02"}};
    for (size_t i = 0; i < ARRAY_COUNT(unknown); i++)
        assert_false(prices_find(prices, str_from_cstr(unknown[i].provider),
                                 str_from_cstr(unknown[i].model), day("2026-06-01"))
                         .is_known);
}

static void test_a_wrong_list_is_refused_with_its_line(void **state)
{
    (void) state;
#define HEAD "version: a\ndate: 2026-01-01\nsource: s\nproviders:\n  - provider: p\n    models:\n"
    static const struct {
        const char *text, *says;
    } wrong[] = {
        {"[]", "list.yaml:1"},
        {"version: a\ndate: 2026-01-01\nproviders: []\n", "source"},
        {"version: a\ndate: tomorrow\nsource: s\nproviders: []\n", "list.yaml:2"},
        {HEAD "      - {model: m, input: \"1\"}\n", "\"output\""},
        {HEAD "      - {model: m, input: 1.5, output: \"1\"}\n", "in quotes"},
        {HEAD "      - {model: m, input: \"-1\", output: \"1\"}\n", "list.yaml:7"},
        {HEAD "      - {model: m, input: \"0.0000001\", output: \"1\"}\n", "six decimals"},
        {HEAD "      - {model: m, input: \"1\", output: \"1\", image: \"1\"}\n", "unknown member"},
        {HEAD "      - {model: m, valid_from: 2026-13-01, input: \"1\", output: \"1\"}\n", "a day"},
        {HEAD "      - {model: m, valid_from: 2026-02-02, valid_to: 2026-01-01, input: \"1\", "
              "output: \"1\"}\n",
         "before"},
        {HEAD "      - {model: m, input: \"1\", output: \"1\"}\n      - {model: n, aliases: [m], "
              "input: \"1\", output: \"1\"}\n",
         "list.yaml:8"},
        {HEAD "      - {model: m, input: \"1\", output: \"1\", long_prompt: {above_tokens: 0, "
              "input: \"1\", output: \"1\"}}\n",
         "above_tokens"},
        {"version: a\ndate: 2026-01-01\nsource: s\nproviders: [{provider: p}]\n", "models"},
    };
#undef HEAD
    for (size_t i = 0; i < ARRAY_COUNT(wrong); i++) {
        struct prices *prices = NULL;
        struct error e = {0};
        assert_false(prices_parse(S("list.yaml"), str_from_cstr(wrong[i].text), &prices, &e));
        assert_int_equal(e.reason, REASON_CONFIG);
        if (!strstr(e.message, wrong[i].says) || !strstr(e.message, "list.yaml:"))
            fail_msg("\"%s\" does not say %s", e.message, wrong[i].says);
    }
}

static void test_a_list_has_a_bound(void **state)
{
    (void) state;
    OWNED(arena) arena = arena_create(4 << 20);
    for (int past = 0; past < 2; past++) {
        OWNED(prices) prices = NULL;
        struct error e = {0};
        struct strbuf text;
        strbuf_init(&text, arena, 1 << 20);
        strbuf_add(&text, S("version: a\ndate: 2026-01-01\nsource: s\nproviders:\n  - provider: "
                            "p\n    models:\n"));
        for (int i = 0; i < PRICE_ENTRIES_MAX + past; i++)
            strbuf_printf(&text, "      - {model: m%d, input: \"1\", output: \"1\"}\n", i);
        assert_int_equal(prices_parse(S("list.yaml"), strbuf_str(&text), &prices, &e), !past);
        if (past)
            assert_non_null(strstr(e.message, "more than"));
    }
}

static void test_a_missing_file_and_a_folder_without_lists_are_refused(void **state)
{
    (void) state;
    struct prices *prices = NULL;
    struct error e = {0};
    assert_false(prices_load(S("/no/such/file.yaml"), &prices, &e));
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_false(prices_load(S(NEXUS_SOURCE_DIR "/src/llm"), &prices, &e));
    assert_non_null(strstr(e.message, "no price lists"));
}

static void test_the_shipped_lists_are_in_order(void **state)
{
    (void) state;
    OWNED(prices) prices = NULL;
    struct error e = {0};
    if (!prices_load(S(NEXUS_SOURCE_DIR "/prices"), &prices, &e))
        fail_msg("%s", e.message);
    assert_true(prices_count(prices) > 70);
    assert_true(str_compare(prices_date(prices), S("2026-11-01")) > 0);
    struct model_price price =
        prices_find(prices, S("api.openai.com"), S("gpt-4o-mini-2024-07-18"), day("2026-11-20"));
    assert_int_equal(price.input_picousd_per_token, 150000);
    assert_int_equal(price.cached_picousd_per_token, 75000);
    assert_int_equal(price.output_picousd_per_token, 600000);
    price = prices_find(prices, S("api.openai.com"), S("gpt-4o-2024-05-13"), day("2026-11-20"));
    assert_int_equal(price.input_picousd_per_token, 5000000);
    price = prices_find(prices, S("api.anthropic.com"), S("claude-haiku-4-5-20251001"),
                        day("2026-11-20"));
    assert_int_equal(price.cache_write_picousd_per_token, 1250000);
    price = prices_find(prices, S("generativelanguage.googleapis.com"), S("gemini-3.6-flash"),
                        day("2027-01-01"));
    assert_int_equal(price.output_picousd_per_token, 7500000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_costs_are_exact_and_rounded_up_once),
        cmocka_unit_test(test_each_class_of_tokens_has_its_rate_or_its_neighbours),
        cmocka_unit_test(test_a_long_prompt_is_dearer_as_a_whole),
        cmocka_unit_test(test_costs_at_the_bounds_saturate_and_never_overflow),
        cmocka_unit_test(test_random_costs_are_the_exact_sum_and_within_their_bound),
        cmocka_unit_test(test_a_price_is_found_by_name_host_and_day),
        cmocka_unit_test(test_what_is_not_in_the_list_is_not_known),
        cmocka_unit_test(test_a_wrong_list_is_refused_with_its_line),
        cmocka_unit_test(test_a_list_has_a_bound),
        cmocka_unit_test(test_a_missing_file_and_a_folder_without_lists_are_refused),
        cmocka_unit_test(test_the_shipped_lists_are_in_order),
    };
    return cmocka_run_group_tests_name("prices", tests, NULL, NULL);
}
