#include "base/limits.h"
#include "gateway/call/call_testkit.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <string.h>
#include <cmocka.h>

static struct answer issue(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer key = ask(ctx, kit, HTTP_POST, S("/api/v1/keys"), kit->admin_key,
                            S("{\"name\":\"k\",\"role\":\"user\",\"user_id\":\"alice\"}"));
    assert_int_equal(key.status, 201);
    return key;
}

static void revoke(struct context *ctx, struct gateway_testkit *kit, str id)
{
    str path = str_printf(ctx->arena, "/api/v1/keys/" STR_FMT, STR_ARG(id));
    assert_int_equal(ask(ctx, kit, HTTP_DELETE, path, kit->admin_key, STR_NONE).status, 204);
}

/* The model says one word again and again, for two seconds (the upstream serves one connection at a time). */
static struct http_exchange *begin(struct context *ctx, struct gateway_testkit *kit, str path,
                                   str key)
{
    struct http_exchange *exchange =
        ask_stream(ctx, kit, HTTP_POST, path, key,
                   body_of(ctx, "slow", ",\"stream\":true,\"max_tokens\":100"));
    expect(read_until(ctx, exchange, STR_NONE, S("Hel")), "Hel");
    return exchange;
}

/* is_told: in band, too. */
static void check_revoked(struct context *ctx, struct gateway_testkit *kit, str path, bool is_told)
{
    struct answer key = issue(ctx, kit);
    struct http_exchange *exchange = begin(ctx, kit, path, answer_text(&key, S("key")));
    revoke(ctx, kit, answer_text(&key, S("id")));
    int64_t began_ns = context_now_ns(ctx);
    str text = read_until(ctx, exchange, STR_NONE, STR_NONE); /* to its end */
    assert_true(context_now_ns(ctx) - began_ns < INT64_C(1000000000));
    assert_true(!is_told || str_find(text, S("revoked")) != STR_NOT_FOUND);
    assert_true(str_find(text, S("[DONE]")) == STR_NOT_FOUND);
    assert_true(str_find(text, S("message_stop")) == STR_NOT_FOUND);
    http_exchange_close(exchange);
}

/* Many rounds, while another key is revoked. */
static void check_good(struct context *ctx, struct gateway_testkit *kit, str path)
{
    struct answer other = issue(ctx, kit);
    struct http_exchange *exchange = begin(ctx, kit, path, kit->user_key);
    revoke(ctx, kit, answer_text(&other, S("id")));
    assert_true(context_sleep_ms(ctx, 300, NULL));
    str text = STR_NONE;
    for (int i = 0; i < 5; i++)
        text = read_until(ctx, exchange, STR_NONE, S("Hel"));
    expect(text, "Hel");
    assert_true(str_find(text, S("revoked")) == STR_NOT_FOUND);
    http_exchange_close(exchange);
}

static void streams(struct context *ctx, struct gateway_testkit *kit)
{
    check_revoked(ctx, kit, CHAT, true);
    check_good(ctx, kit, CHAT);
    check_revoked(ctx, kit, MESSAGES, false);
    check_good(ctx, kit, MESSAGES);
    assert_true(context_sleep_ms(ctx, 100, NULL));
    assert_true(spent_tokens(ctx, kit) > 0); /* and nothing is still reserved */
}
static void test_a_revoked_key_ends_its_streams_and_no_other(void **state)
{
    (void) state;
    call_testkit_run_with(streams, (struct gateway_options){.reauthorise_ms = 50});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_revoked_key_ends_its_streams_and_no_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
