/* Model calls through to upstreams that fail in every way. */
#include "gateway/call/call_testkit.h"

#include "base/arena.h"
#include "base/limits.h"
#include "llm/response_cache.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void whole(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "whole", "");
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer.body, S(WHOLE)));
    assert_int_equal(answer_header(&answer, S("Nexus-Call-Id")).len, UUID_TEXT_BYTES);
    assert_string_equal(seen, "{\"model\":\"up-whole\",\"x_unknown\":{\"b\": "
                              "1.0},\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    assert_int_equal(spent_tokens(ctx, kit), 8);
    answer = chat(ctx, kit, "whole", ",\"max_tokens\":9000");
    assert_int_equal(answer.status, 200);
    assert_non_null(strstr(seen, "\"max_tokens\":500")); /* the model's own ceiling */
}
static void test_bytes_go_through_unchanged_but_for_the_model(void **state)
{
    (void) state;
    call_testkit_run(whole);
}

static void limited(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer set = ask(ctx, kit, HTTP_PUT, S("/api/v1/budgets/user/alice"), kit->admin_key,
                            S("{\"tokens\":500}"));
    assert_int_equal(set.status, 200);
    struct answer answer = chat(ctx, kit, "whole", "");
    assert_int_equal(answer.status, 200);
    expect(answer_header(&answer, S("Nexus-Degraded")), "output limited to");
    expect(str_from_cstr(seen), "\"max_tokens\":");
    struct answer none = ask(ctx, kit, HTTP_PUT, S("/api/v1/budgets/user/alice"), kit->admin_key,
                             S("{\"tokens\":100}"));
    assert_int_equal(none.status, 200);
    seen[0] = 0;
    answer = chat(ctx, kit, "whole", "");
    assert_int_equal(answer.status, 402);
    assert_string_equal(seen, ""); /* nothing was sent */
}
static void test_a_budget_lowers_the_output_limit_or_refuses_before_sending(void **state)
{
    (void) state;
    call_testkit_run(limited);
}

static void failures(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "busy", "");
    assert_int_equal(answer.status, 429);
    assert_true(str_equal(answer_header(&answer, S("Retry-After")), S("30")));
    expect(answer.body, "slow down");
    assert_true(str_find(answer.body, S("sk-abcdefgh")) == STR_NOT_FOUND);
    assert_int_equal(chat(ctx, kit, "bad", "").status, 400);
    assert_int_equal(spent_tokens(ctx, kit), 0);
    assert_int_equal(chat(ctx, kit, "garbage", "").status, 502);
    assert_int_equal(chat(ctx, kit, "inband", ",\"stream\":true").status, 503);
    assert_int_equal(chat(ctx, kit, "broken", ",\"stream\":true").status, 503);
    assert_int_equal(chat(ctx, kit, "role-cut", ",\"stream\":true").status, 502);
    assert_int_equal(chat(ctx, kit, "json", ",\"stream\":true").status, 502);
}
static void test_an_upstream_failure_keeps_its_class_and_a_true_status(void **state)
{
    (void) state;
    call_testkit_run(failures);
}

static void streams(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "stream", ",\"stream\":true");
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer.body,
                          S(CHUNK_ONE CHUNK_TWO "data: [DONE]\n\n"))); /* nobody asked for usage */
    assert_non_null(strstr(seen, "\"stream_options\":{\"include_usage\":true}"));
    assert_int_equal(answer_header(&answer, S("Nexus-Call-Id")).len, UUID_TEXT_BYTES);
    assert_int_equal(spent_tokens(ctx, kit), 9);
    answer =
        chat(ctx, kit, "stream", ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    assert_true(str_equal(answer.body, S(CHUNK_ONE CHUNK_TWO CHUNK_USAGE "data: [DONE]\n\n")));
}
static void test_a_stream_comes_through_chunk_by_chunk_and_is_settled_by_its_usage(void **state)
{
    (void) state;
    /* each gives its place back, or the next would find none */
    call_testkit_run_with(streams, (struct gateway_options){.streams_per_key = 1});
}

/* Whatever the first target does before its first content: the client gets the second one's answer and nothing else. */
static void invisible(struct context *ctx, struct gateway_testkit *kit)
{
    static const char *const streamed[] = {"busy",       "broken",     "inband",     "role-cut",
                                           "role-reset", "role-stall", "role-error", "role-garbage",
                                           "mute",       "gone",       "json",       "garbage"};
    static const char *const whole_ones[] = {"busy", "broken", "garbage", "short", "gone"};
    for (size_t i = 0; i < ARRAY_COUNT(streamed); i++) {
        bool is_clean;
        char name[48];
        snprintf(name, sizeof name, "%s-then-stream", streamed[i]);
        str text = stream_all(ctx, kit, CHAT, body_of(ctx, name, ",\"stream\":true"), &is_clean);
        if (!is_clean || !str_equal(text, S(GOOD)))
            fail_msg("%s: " STR_FMT, name, STR_ARG(text));
    }
    for (size_t i = 0; i < ARRAY_COUNT(whole_ones); i++) {
        char name[48];
        snprintf(name, sizeof name, "%s-then-whole", whole_ones[i]);
        struct answer answer = chat(ctx, kit, name, "");
        if (answer.status != 200 || !str_equal(answer.body, S(WHOLE)))
            fail_msg("%s: %d " STR_FMT, name, answer.status, STR_ARG(answer.body));
    }
    assert_true(spent_tokens(ctx, kit) > 0);
}
static void test_a_failover_before_the_first_content_is_invisible(void **state)
{
    (void) state;
    call_testkit_run(invisible);
}

static void late(struct context *ctx, struct gateway_testkit *kit)
{
    static const struct {
        const char *model, *words;
    } cases[] = {
        {"cut", "ended in the middle"}, {"reset", "provider up"},     {"stall", "next token"},
        {"late-garbage", "not JSON"},   {"late-error", "overloaded"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        bool is_clean;
        char name[48];
        int64_t before = spent_tokens(ctx, kit);
        snprintf(name, sizeof name, "%s-then-stream", cases[i].model);
        str text = stream_all(ctx, kit, CHAT, body_of(ctx, name, ",\"stream\":true"), &is_clean);
        if (is_clean || !str_starts_with(text, S(CHUNK_ONE)))
            fail_msg("%s ended cleanly: " STR_FMT, name, STR_ARG(text));
        expect(text, "{\"error\":{");
        expect(text, cases[i].words);
        assert_true(str_find(text, S("[DONE]")) == STR_NOT_FOUND);
        assert_true(str_find(text, S("\"lo\"")) == STR_NOT_FOUND); /* no other attempt's text */
        int64_t spent = spent_tokens(ctx, kit) - before;
        assert_true(spent > 0 && spent < 500); /* what was seen, not the reservation */
    }
}
static void test_behind_content_a_failure_is_told_in_band_and_the_stream_is_cut(void **state)
{
    (void) state;
    call_testkit_run(late);
}

/* Content that came in one piece with the failure, or waited in the filter, has reached nobody: but the provider made it. */
static void bursts(struct context *ctx, struct gateway_testkit *kit)
{
    static const char *const models[] = {"burst", "masked-burst"};
    for (size_t i = 0; i < ARRAY_COUNT(models); i++) {
        int64_t before = spent_tokens(ctx, kit);
        bool is_clean;
        str text =
            stream_all(ctx, kit, CHAT, body_of(ctx, models[i], ",\"stream\":true"), &is_clean);
        expect(text, "\"error\"");
        if (spent_tokens(ctx, kit) == before)
            fail_msg("%s: nothing was booked", models[i]);
    }
}
static void test_content_that_nobody_saw_is_paid_for(void **state)
{
    (void) state;
    call_testkit_run(bursts);
}

static void hedges(struct context *ctx, struct gateway_testkit *kit)
{
    bool is_clean;
    int64_t began_ns = context_now_ns(ctx);
    atomic_store(&saw_disconnect, false);
    str text = stream_all(ctx, kit, CHAT, body_of(ctx, "hedged", ",\"stream\":true"), &is_clean);
    assert_true(is_clean && str_equal(text, S(GOOD)));
    assert_true(context_now_ns(ctx) - began_ns < INT64_C(2000000000));
    for (int i = 0; i < 50 && !atomic_load(&saw_disconnect); i++)
        assert_true(context_sleep_ms(ctx, 10, NULL));
    assert_true(atomic_load(&saw_disconnect)); /* the slower one was let go */
    struct answer answer = chat(ctx, kit, "hedged-whole", "");
    assert_int_equal(answer.status, 200);
    assert_true(str_equal(answer.body, S(WHOLE)));
    assert_true(spent_tokens(ctx, kit) > 0);
}
static void test_a_slow_attempt_gets_company_and_the_first_content_wins(void **state)
{
    (void) state;
    call_testkit_run(hedges);
}

static void deadlines(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "role-stall", ",\"stream\":true");
    assert_int_equal(answer.status, 504);
    expect(answer.body, "no first token within 300 ms");
    answer = chat(ctx, kit, "brief", "");
    assert_int_equal(answer.status, 504);
    expect(answer.body, "did not answer within 200 ms");
    answer = chat(ctx, kit, "brief", ",\"stream\":true");
    assert_int_equal(answer.status, 504);
    assert_true(spent_tokens(ctx, kit) > 0);
}
static void impatient(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer = chat(ctx, kit, "impatient", "");
    assert_int_equal(answer.status, 200);
    expect(answer.body, "\"content\":\"Hi\"");
    answer = chat(ctx, kit, "impatient-alone", "");
    assert_int_equal(answer.status, 504);
    expect(answer.body, "no whole answer within 150 ms");
}
static void test_a_whole_answer_that_hangs_is_asked_for_elsewhere_in_time(void **state)
{
    (void) state;
    call_testkit_run(impatient);
}

static void test_each_deadline_has_an_error_of_its_own(void **state)
{
    (void) state;
    call_testkit_run(deadlines);
}

static void leaves(struct context *ctx, struct gateway_testkit *kit)
{
    atomic_store(&saw_disconnect, false);
    struct http_exchange *exchange = ask_stream(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                                                body_of(ctx, "slow", ",\"stream\":true"));
    read_until(ctx, exchange, STR_NONE, S("Hel"));
    http_exchange_close(exchange);
    int64_t began_ns = context_now_ns(ctx);
    for (int i = 0; i < 450 && !atomic_load(&saw_disconnect); i++)
        assert_true(context_sleep_ms(ctx, 5, NULL));
    assert_true(atomic_load(&saw_disconnect));
    assert_true(context_now_ns(ctx) - began_ns < INT64_C(1000000000));
    assert_true(context_sleep_ms(ctx, 50, NULL));
    int64_t spent = spent_tokens(ctx, kit);
    assert_true(spent > 0 && spent < 1000); /* an estimate, not the reservation */
}
static void test_a_client_that_leaves_ends_the_upstream_call(void **state)
{
    (void) state;
    call_testkit_run(leaves);
}

static void pings(struct context *ctx, struct gateway_testkit *kit)
{
    struct http_exchange *exchange = ask_stream(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                                                body_of(ctx, "patient", ",\"stream\":true"));
    str text = read_until(ctx, exchange, STR_NONE, S(": keep-alive"));
    expect(text, ": keep-alive\n\n");
    http_exchange_close(exchange);
}
static void test_a_silent_stream_is_kept_awake(void **state)
{
    (void) state;
    call_testkit_run_with(pings, (struct gateway_options){.keep_alive_ms = 50});
}

static void caches(struct context *ctx, struct gateway_testkit *kit)
{
    bool is_clean;
    struct answer first = chat(ctx, kit, "cached", "");
    assert_true(str_equal(answer_header(&first, S("Nexus-Cache")), S("miss")));
    int64_t spent = spent_tokens(ctx, kit);
    struct answer again = chat(ctx, kit, "cached", "");
    expect(answer_header(&again, S("Nexus-Cache")), "hit; age=");
    assert_true(str_equal(first.body, again.body));
    assert_int_equal(atomic_load(&request_count), 1);
    assert_int_equal(spent_tokens(ctx, kit), spent);
    struct answer other = chat(ctx, kit, "cached", ",\"temperature\":1");
    assert_true(str_equal(answer_header(&other, S("Nexus-Cache")), S("miss")));
    struct http_header beta = {S("OpenAI-Beta"), S("thing-2026")};
    other =
        ask_with(ctx, kit, HTTP_POST, CHAT, kit->user_key, body_of(ctx, "cached", ""), &beta, 1);
    assert_true(str_equal(answer_header(&other, S("Nexus-Cache")), S("miss")));
    struct http_header no_cache = {S("Cache-Control"), S("no-cache")};
    struct answer fresh = ask_with(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                                   body_of(ctx, "cached", ""), &no_cache, 1);
    assert_true(str_is_empty(answer_header(&fresh, S("Nexus-Cache"))));
    assert_int_equal(atomic_load(&request_count), 4);
    str body = body_of(ctx, "cached-stream", ",\"stream\":true");
    assert_true(str_equal(stream_all(ctx, kit, CHAT, body, &is_clean), S(GOOD)));
    assert_int_equal(atomic_load(&request_count), 5);
    assert_true(str_equal(stream_all(ctx, kit, CHAT, body, &is_clean), S(GOOD)));
    assert_true(is_clean);
    assert_int_equal(atomic_load(&request_count), 5);
}
static void test_an_answer_is_given_again_from_the_cache_and_says_so(void **state)
{
    (void) state;
    struct response_cache_options options = {.clock = clock_system()};
    struct response_cache *cache = response_cache_create(&options);
    call_testkit_run_with(caches, (struct gateway_options){.cache = cache});
    response_cache_destroy(cache);
}

/* ---- the content filter ---- */

static struct filter_set *set_of(const char *pattern, enum filter_action action)
{
    struct error e = {0};
    struct filter_set *set = NULL;
    struct filter_rule rule = {
        .name = S("word"), .pattern = str_from_cstr(pattern), .action = action};
    struct filter_options options = {.rules = &rule, .rule_count = 1};
    if (!filter_set_create(&options, &set, &e))
        fail_msg("%s", e.message);
    return set;
}

static void filters(struct context *ctx, struct gateway_testkit *kit)
{
    bool is_clean;
    struct answer answer = chat(ctx, kit, "masked", "");
    assert_int_equal(answer.status, 200);
    expect(answer.body, "\"content\":\"[WORD]\"");
    expect(answer.body, "\"x_new\":[1.5"); /* the rest as it came */
    expect(str_from_cstr(seen), "\"content\":\"[WORD]\"");
    expect(str_from_cstr(seen), "\"model\":\"up-whole\"");
    str text =
        stream_all(ctx, kit, CHAT, body_of(ctx, "masked-stream", ",\"stream\":true"), &is_clean);
    assert_true(is_clean);
    expect(text, "[WORD]");
    assert_true(str_find(text, S("Hel")) == STR_NOT_FOUND); /* though it came in two pieces */
    expect(text, "\"finish_reason\":\"stop\"");
    assert_true(str_ends_with(text, S("data: [DONE]\n\n")));

    int before = atomic_load(&request_count);
    answer = chat(ctx, kit, "blocked", "");
    assert_int_equal(answer.status, 403);
    expect(answer.body, "content_blocked");
    answer = ask(ctx, kit, HTTP_POST, S("/v1/messages/count_tokens"), kit->user_key,
                 body_of(ctx, "blocked-count", ""));
    assert_true(str_equal(answer_header(&answer, S("Nexus-Estimate")), S("true")));
    assert_int_equal(atomic_load(&request_count), before); /* nothing went out */
    const struct filter_set *requests = blocking.sets[GUARD_REQUEST];
    blocking.sets[GUARD_REQUEST] = NULL;
    answer = chat(ctx, kit, "blocked", "");
    assert_int_equal(answer.status, 403);
    answer = chat(ctx, kit, "blocked-stream", ",\"stream\":true");
    assert_true(str_find(answer.body, S("lo\"")) == STR_NOT_FOUND);
    expect(answer.body, "content_blocked");
    blocking.sets[GUARD_REQUEST] = requests;
    assert_true(spent_tokens(ctx, kit) > 0); /* the provider did its work */
}
static void test_the_filter_masks_and_blocks_both_ways(void **state)
{
    (void) state;
    struct filter_set *mask = set_of("(?i)\\bhi\\b|hello", FILTER_MASK),
                      *block = set_of("(?i)\\bhi\\b|hello", FILTER_BLOCK);
    masking = (struct guard_rules){.name = S("masking"), .sets = {mask, mask}};
    blocking = (struct guard_rules){.name = S("blocking"), .sets = {block, block}};
    call_testkit_run(filters);
    masking = blocking = (struct guard_rules){0};
    filter_set_destroy(mask);
    filter_set_destroy(block);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_go_through_unchanged_but_for_the_model),
        cmocka_unit_test(test_a_budget_lowers_the_output_limit_or_refuses_before_sending),
        cmocka_unit_test(test_an_upstream_failure_keeps_its_class_and_a_true_status),
        cmocka_unit_test(test_a_stream_comes_through_chunk_by_chunk_and_is_settled_by_its_usage),
        cmocka_unit_test(test_a_failover_before_the_first_content_is_invisible),
        cmocka_unit_test(test_behind_content_a_failure_is_told_in_band_and_the_stream_is_cut),
        cmocka_unit_test(test_content_that_nobody_saw_is_paid_for),
        cmocka_unit_test(test_a_slow_attempt_gets_company_and_the_first_content_wins),
        cmocka_unit_test(test_each_deadline_has_an_error_of_its_own),
        cmocka_unit_test(test_a_whole_answer_that_hangs_is_asked_for_elsewhere_in_time),
        cmocka_unit_test(test_a_client_that_leaves_ends_the_upstream_call),
        cmocka_unit_test(test_a_silent_stream_is_kept_awake),
        cmocka_unit_test(test_an_answer_is_given_again_from_the_cache_and_says_so),
        cmocka_unit_test(test_the_filter_masks_and_blocks_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
