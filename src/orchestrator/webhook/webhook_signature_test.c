/* Signatures against the examples of their makers, and every way in which one may be wrong. */
#include "orchestrator/webhook/webhook_signature.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(0);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static str key_of(enum webhook_scheme scheme, const char *secret)
{
    struct error e = {0};
    str key;
    if (!webhook_secret_key(arena, scheme, str_from_cstr(secret), &key, &e))
        fail_msg("%s", e.message);
    return key;
}

/* The example of the Standard Webhooks specification. */
#define STANDARD_SECRET "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
static const struct webhook_signed standard = {
    .id = S_INIT("msg_p5jXN8AQM9LWM0D4loKWxJek"),
    .timestamp = S_INIT("1614265330"),
    .signature = S_INIT("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    .body = S_INIT("{\"test\": 2432232314}"),
};

static bool fits(const struct webhook_signed *request, int64_t now_s)
{
    return webhook_verify(arena, WEBHOOK_STANDARD, key_of(WEBHOOK_STANDARD, STANDARD_SECRET),
                          request, now_s);
}

static void test_the_example_of_the_standard_verifies_and_is_made_again(void **state)
{
    (void) state;
    str key = key_of(WEBHOOK_STANDARD, STANDARD_SECRET);
    assert_true(fits(&standard, 1614265330));
    assert_true(str_equal(webhook_sign(arena, &standard, &key, 1), standard.signature));
    str keys[] = {key, S("another key, of another time")};
    struct webhook_signed both = standard;
    both.signature = webhook_sign(arena, &both, keys, 2);
    assert_true(fits(&both, 1614265330));
    assert_true(webhook_verify(arena, WEBHOOK_STANDARD, keys[1], &both, 1614265330));
}

static void test_a_signature_is_good_for_five_minutes_to_both_sides(void **state)
{
    (void) state;
    assert_true(fits(&standard, 1614265330 + WEBHOOK_WINDOW_S));
    assert_true(fits(&standard, 1614265330 - WEBHOOK_WINDOW_S));
    assert_false(fits(&standard, 1614265330 + WEBHOOK_WINDOW_S + 1));
    assert_false(fits(&standard, 1614265330 - WEBHOOK_WINDOW_S - 1));
}

static void test_whatever_is_changed_fits_no_more(void **state)
{
    (void) state;
    static const char *const ids[] = {"", "msg_p5jXN8AQM9LWM0D4loKWxJeK", "msg p", "msg_p.5"};
    static const char *const times[] = {
        "", "1614265331", "1614265330 ", "+1614265330", "01614265330", "16142653300000", "-1", "x"};
    for (size_t i = 0; i < ARRAY_COUNT(ids); i++) {
        struct webhook_signed request = standard;
        request.id = str_from_cstr(ids[i]);
        assert_false(fits(&request, 1614265330));
    }
    for (size_t i = 0; i < ARRAY_COUNT(times); i++) {
        struct webhook_signed request = standard;
        request.timestamp = str_from_cstr(times[i]);
        assert_false(fits(&request, 1614265330));
    }
    struct webhook_signed request = standard;
    request.body = S("{\"test\": 2432232315}");
    assert_false(fits(&request, 1614265330));
    request.body = STR_NONE;
    assert_false(fits(&request, 1614265330));
}

static void test_one_of_several_signatures_is_enough_up_to_a_bound(void **state)
{
    (void) state;
    static const char *const good[] = {
        "v1,AAAA v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "v1a,g0hM v2,x v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v1,",
    };
    static const char *const bad[] = {
        "",
        "v1,",
        "v1",
        "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OF=",
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1A==",
    };
    struct webhook_signed request = standard;
    for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
        request.signature = str_from_cstr(good[i]);
        assert_true(fits(&request, 1614265330));
    }
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        request.signature = str_from_cstr(bad[i]);
        assert_false(fits(&request, 1614265330));
    }
    str keys[WEBHOOK_SIGNATURES_MAX + 1];
    for (size_t i = 0; i < ARRAY_COUNT(keys); i++)
        keys[i] = str_printf(arena, "%zu: a key that is long enough", i);
    request.signature = webhook_sign(arena, &request, keys, WEBHOOK_SIGNATURES_MAX);
    assert_true(webhook_verify(arena, WEBHOOK_STANDARD, keys[7], &request, 1614265330));
    request.signature = webhook_sign(arena, &request, keys, WEBHOOK_SIGNATURES_MAX + 1);
    assert_false(webhook_verify(arena, WEBHOOK_STANDARD, keys[0], &request, 1614265330));
}

/* The example of GitHub's documentation. */
static void test_githubs_example_verifies(void **state)
{
    (void) state;
    str key = key_of(WEBHOOK_GITHUB, "It's-a-Secret-to-Everybody");
    struct webhook_signed request = {.body = S("Hello, World!"), .signature = STR_NONE};
    key = S("It's a Secret to Everybody");
    request.signature =
        S("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17");
    assert_true(webhook_verify(arena, WEBHOOK_GITHUB, key, &request, 0));
    static const char *const bad[] = {
        "",
        "sha256=",
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "sha1=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e18",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e1",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        request.signature = str_from_cstr(bad[i]);
        assert_false(webhook_verify(arena, WEBHOOK_GITHUB, key, &request, 0));
    }
}

static void test_stripes_form_signs_the_time_and_takes_one_of_several(void **state)
{
    (void) state;
    str key = key_of(WEBHOOK_STRIPE, "whsec_test_secret_of_stripe");
    struct webhook_signed request;
    webhook_sign_as(arena, WEBHOOK_STRIPE, key, STR_NONE, 1700000000, S("{\"id\":\"evt_1\"}"),
                    &request);
    assert_true(webhook_verify(arena, WEBHOOK_STRIPE, key, &request, 1700000300));
    assert_false(webhook_verify(arena, WEBHOOK_STRIPE, key, &request, 1700000301));
    str signature = request.signature, time, rest;
    assert_true(str_cut(signature, ',', &time, &rest));
    request.signature =
        str_printf(arena, "v0=00,v1=00," STR_FMT "," STR_FMT, STR_ARG(rest), STR_ARG(time));
    assert_true(webhook_verify(arena, WEBHOOK_STRIPE, key, &request, 1700000000));
    request.signature = str_printf(arena, "t=1700000001," STR_FMT, STR_ARG(rest));
    assert_false(webhook_verify(arena, WEBHOOK_STRIPE, key, &request, 1700000000));
    request.signature = str_printf(arena, STR_FMT ",t=1700000001", STR_ARG(signature));
    assert_false(webhook_verify(arena, WEBHOOK_STRIPE, key, &request, 1700000000));
    request.signature = rest;
    assert_false(webhook_verify(arena, WEBHOOK_STRIPE, key, &request, 1700000000));
}

static void test_what_is_signed_as_a_sender_does_it_verifies(void **state)
{
    (void) state;
    for (int i = 0; i < WEBHOOK_SCHEME_COUNT; i++) {
        enum webhook_scheme scheme = (enum webhook_scheme) i, again;
        struct error e = {0};
        struct webhook_signed request;
        str key, secret = webhook_secret_make(arena, scheme);
        assert_true(webhook_secret_key(arena, scheme, secret, &key, &e));
        webhook_sign_as(arena, scheme, key, S("try_1"), 1700000000, S("body"), &request);
        assert_true(webhook_verify(arena, scheme, key, &request, 1700000000));
        assert_false(webhook_verify(arena, scheme, S("no key"), &request, 1700000000));
        assert_true(webhook_scheme_parse(str_from_cstr(webhook_scheme_name(scheme)), &again));
        assert_int_equal(again, scheme);
    }
}

static void test_a_deliverys_key_follows_from_what_is_signed(void **state)
{
    (void) state;
    struct webhook_signed request = {.id = S("a"), .body = S("b")};
    str by_id = webhook_delivery_key(arena, WEBHOOK_STANDARD, &request, S("evt"));
    request.body = S("c");
    request.timestamp = S("2");
    assert_true(
        str_equal(by_id, webhook_delivery_key(arena, WEBHOOK_STANDARD, &request, STR_NONE)));
    str by_body = webhook_delivery_key(arena, WEBHOOK_GITHUB, &request, S("evt"));
    request.id = S("another");
    assert_true(
        str_equal(by_body, webhook_delivery_key(arena, WEBHOOK_GITHUB, &request, S("other"))));
    str by_event = webhook_delivery_key(arena, WEBHOOK_STRIPE, &request, S("evt"));
    request.body = S("d");
    assert_true(
        str_equal(by_event, webhook_delivery_key(arena, WEBHOOK_STRIPE, &request, S("evt"))));
    request.body = S("evt");
    assert_false(
        str_equal(by_event, webhook_delivery_key(arena, WEBHOOK_STRIPE, &request, STR_NONE)));
}

static void test_secrets_have_a_form(void **state)
{
    (void) state;
    static const struct {
        enum webhook_scheme scheme;
        const char *secret;
    } bad[] = {
        {WEBHOOK_STANDARD, ""},
        {WEBHOOK_STANDARD, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        {WEBHOOK_STANDARD, "whsec_"},
        {WEBHOOK_STANDARD, "whsec_AAAA"},
        {WEBHOOK_STANDARD, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!"},
        {WEBHOOK_GITHUB, "short"},
        {WEBHOOK_GITHUB, "long enough but with blanks"},
        {WEBHOOK_STRIPE, ""},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct error e = {0};
        str key;
        assert_false(
            webhook_secret_key(arena, bad[i].scheme, str_from_cstr(bad[i].secret), &key, &e));
        assert_int_equal(e.reason, REASON_SCHEMA);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_example_of_the_standard_verifies_and_is_made_again),
        cmocka_unit_test(test_a_signature_is_good_for_five_minutes_to_both_sides),
        cmocka_unit_test(test_whatever_is_changed_fits_no_more),
        cmocka_unit_test(test_one_of_several_signatures_is_enough_up_to_a_bound),
        cmocka_unit_test(test_githubs_example_verifies),
        cmocka_unit_test(test_stripes_form_signs_the_time_and_takes_one_of_several),
        cmocka_unit_test(test_what_is_signed_as_a_sender_does_it_verifies),
        cmocka_unit_test(test_a_deliverys_key_follows_from_what_is_signed),
        cmocka_unit_test(test_secrets_have_a_form),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
