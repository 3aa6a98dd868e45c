/* The content filter on the compatible routes: what it costs the loop, and what the audit log says. */
#include "gateway/call/call_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

/* Every group masks; "forbidden" blocks. */
static struct filter_set *whole_set(void)
{
    struct error e = {0};
    struct filter_set *set = NULL;
    struct filter_rule rule = {
        .name = S("word"), .pattern = S("\\bforbidden\\b"), .action = FILTER_BLOCK};
    struct filter_options options = {
        .groups = {FILTER_MASK, FILTER_MASK, FILTER_MASK}, .rules = &rule, .rule_count = 1};
    if (!filter_set_create(&options, &set, &e))
        fail_msg("%s", e.message);
    return set;
}

static void with_filter(call_scenario *body)
{
    struct filter_set *set = whole_set();
    masking = blocking = (struct guard_rules){.name = S("all"), .sets = {set, set}};
    call_testkit_run(body);
    masking = blocking = (struct guard_rules){0};
    filter_set_destroy(set);
}

/* ---- large bodies ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { LARGE_BYTES = 1 << 20 };
#else
enum { LARGE_BYTES = 4 << 20 };
#endif

struct large_ask {
    struct gateway_testkit *kit;
    str path, body;
    int status;
    bool is_blocked;
    _Atomic bool is_done;
};

static void ask_large(struct context *ctx, void *argument)
{
    struct large_ask *large = argument;
    struct answer answer =
        ask(ctx, large->kit, HTTP_POST, large->path, large->kit->user_key, large->body);
    large->status = answer.status;
    large->is_blocked = str_find(answer.body, S("content_blocked")) != STR_NOT_FOUND;
    atomic_store(&large->is_done, true);
}

/* Near misses all the way, and the forbidden word at the very end. */
static str large_text(struct arena *arena)
{
    struct strbuf text;
    strbuf_init(&text, arena, LARGE_BYTES + 100);
    while (text.len < LARGE_BYTES)
        strbuf_add(&text, S("4111 1111 AB12 "));
    strbuf_add(&text, S("forbidden"));
    return strbuf_str(&text);
}

/* The slowest answer to a health check while the filter works, and how many there were. */
static int64_t watch_health(struct context *ctx, struct gateway_testkit *kit,
                            struct large_ask *large, int *count)
{
    int64_t slowest_ns = 0;
    *count = 0;
    while (!atomic_load(&large->is_done)) {
        arena_mark mark = arena_save(ctx->arena);
        int64_t began_ns = context_now_ns(ctx);
        assert_int_equal(ask(ctx, kit, HTTP_GET, S("/healthz"), STR_NONE, STR_NONE).status, 200);
        int64_t took_ns = context_now_ns(ctx) - began_ns;
        slowest_ns = took_ns > slowest_ns ? took_ns : slowest_ns;
        ++*count;
        arena_rewind(ctx->arena, mark);
    }
    return slowest_ns;
}

static void check_large(struct context *ctx, struct gateway_testkit *kit, str path, str body)
{
    struct large_ask large = {.kit = kit, .path = path, .body = body};
    struct group group;
    struct error e = {0};
    int count;
    int before = atomic_load(&request_count);
    group_init(&group, ctx);
    int64_t began_ns = context_now_ns(ctx);
    assert_true(group_start(&group, "large", ask_large, &large, &e));
    int64_t slowest_ns = watch_health(ctx, kit, &large, &count);
    int64_t took_ns = context_now_ns(ctx) - began_ns;
    group_wait(&group);
    print_message("%zu bytes took %lld ms; of %d health checks the slowest took %lld ms\n",
                  body.len, (long long) took_ns / 1000000, count, (long long) slowest_ns / 1000000);
    assert_int_equal(large.status, 403);
    assert_true(large.is_blocked);
    assert_int_equal(atomic_load(&request_count), before); /* nothing went out */
    /* Reading and parsing the body is the loop's own work, some tens of ms; filtering it is not. */
    assert_true(count > 20);
    assert_true(slowest_ns < took_ns / 3);
}

static void filter_large(struct context *ctx, struct gateway_testkit *kit)
{
    str text = large_text(ctx->arena);
    check_large(ctx, kit, CHAT,
                str_printf(ctx->arena,
                           "{\"model\":\"blocked\",\"messages\":[{\"role\":\"user\",\"content\":"
                           "\"" STR_FMT "\"}]}",
                           STR_ARG(text)));
}

static void test_a_loop_answers_others_while_a_large_body_is_filtered(void **state)
{
    (void) state;
    with_filter(filter_large);
}

/* ---- what the audit log says ---- */

static const struct json *entries(struct context *ctx, struct gateway_testkit *kit,
                                  const char *action, size_t wanted)
{
    str path = str_printf(ctx->arena, "/api/v1/audit?action=%s", action);
    struct answer answer = ask(ctx, kit, HTTP_GET, path, kit->admin_key, STR_NONE);
    const struct json *items = json_get(answer.json, S("items"));
    if (json_count(items) != wanted)
        fail_msg("%zu entries: " STR_FMT, json_count(items), STR_ARG(answer.body));
    assert_true(str_find(answer.body, S("alice@example.com")) == STR_NOT_FOUND);
    assert_true(str_find(answer.body, S("4111 1111 1111 1111")) == STR_NOT_FOUND);
    return items;
}

static int64_t count_of(const struct json *entry, const char *rule)
{
    struct json_iter it = json_iter(json_path(entry, S("/details/rules")));
    const struct json *item;
    while (json_next(&it, NULL, &item))
        if (str_equal(json_str_or(item, S("rule"), STR_NONE), str_from_cstr(rule)))
            return json_i64_or(item, S("count"), -1);
    return 0;
}

static str member(const struct json *entry, const char *pointer)
{
    str text = STR_NONE;
    (void) !json_to_str(json_path(entry, str_from_cstr(pointer)), &text);
    return text;
}

static void audits(struct context *ctx, struct gateway_testkit *kit)
{
    struct answer answer =
        ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
            S("{\"model\":\"masked\",\"messages\":[{\"role\":\"user\",\"content\":\"write to "
              "alice@example.com and bob@example.com, card 4111 1111 1111 1111\"}]}"));
    assert_int_equal(answer.status, 200);
    const struct json *entry = json_at(entries(ctx, kit, "content.masked", 1), 0);
    assert_int_equal(count_of(entry, "email"), 2);
    assert_int_equal(count_of(entry, "card"), 1);
    assert_true(str_equal(member(entry, "/details/direction"), S("request")));
    assert_true(str_equal(member(entry, "/resource_id"), S("masked")));
    assert_int_equal(member(entry, "/details/call_id").len, UUID_TEXT_BYTES);
    assert_true(str_equal(member(entry, "/user_id"), S("alice")));

    answer = ask(ctx, kit, HTTP_POST, CHAT, kit->user_key,
                 S("{\"model\":\"blocked\",\"messages\":[{\"role\":\"user\",\"content\":\"it is "
                   "forbidden\"}]}"));
    assert_int_equal(answer.status, 403);
    entry = json_at(entries(ctx, kit, "content.blocked", 1), 0);
    assert_int_equal(count_of(entry, "word"), 1);

    /* a clean call leaves no trace */
    answer = chat(ctx, kit, "masked", "");
    assert_int_equal(answer.status, 200);
    entries(ctx, kit, "content.masked", 1);
    entries(ctx, kit, "content.blocked", 1);
}

static void test_what_was_masked_or_blocked_is_audited_once_and_without_its_bytes(void **state)
{
    (void) state;
    with_filter(audits);
}

static void audits_stream(struct context *ctx, struct gateway_testkit *kit)
{
    bool is_clean;
    const struct filter_set *requests = masking.sets[GUARD_REQUEST];
    masking.sets[GUARD_REQUEST] = NULL;
    str text =
        stream_all(ctx, kit, CHAT, body_of(ctx, "masked-stream", ",\"stream\":true"), &is_clean);
    assert_true(is_clean);
    expect(text, "[WORD]");
    const struct json *entry = json_at(entries(ctx, kit, "content.masked", 1), 0);
    assert_int_equal(count_of(entry, "word"), 1);
    assert_true(str_equal(member(entry, "/details/direction"), S("answer")));
    assert_true(str_equal(member(entry, "/user_id"), S("alice")));
    masking.sets[GUARD_REQUEST] = requests;
}

static void test_a_masked_stream_makes_one_entry(void **state)
{
    (void) state;
    struct error e = {0};
    struct filter_set *set = NULL;
    struct filter_rule rule = {
        .name = S("word"), .pattern = S("(?i)\\bhello\\b"), .action = FILTER_MASK};
    struct filter_options options = {.rules = &rule, .rule_count = 1};
    assert_true(filter_set_create(&options, &set, &e));
    masking = (struct guard_rules){.name = S("masking"), .sets = {set, set}};
    call_testkit_run(audits_stream);
    masking = (struct guard_rules){0};
    filter_set_destroy(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_loop_answers_others_while_a_large_body_is_filtered),
        cmocka_unit_test(test_what_was_masked_or_blocked_is_audited_once_and_without_its_bytes),
        cmocka_unit_test(test_a_masked_stream_makes_one_entry),
    };
    cmocka_set_test_filter(getenv("NEXUS_TEST"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
