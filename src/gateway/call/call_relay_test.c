/* Streams on their way through, without any network. */
#include "gateway/call/call_relay.h"

#include "base/arena.h"
#include "base/limits.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROLE                                                                                       \
    "data: "                                                                                       \
    "{\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}," \
    "\"finish_reason\":null}]}\n\n"
#define TEXT(text)                                                                                 \
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text                 \
    "\"},\"finish_reason\":null}],\"usage\":null}\n\n"
#define STOP                                                                                       \
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
#define USAGE                                                                                      \
    "data: "                                                                                       \
    "{\"id\":\"c\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_" \
    "tokens\":9}}\n\n"
#define FAILURE "data: {\"error\":{\"message\":\"no room\",\"type\":\"overloaded_error\"}}\n\n"
#define DONE "data: [DONE]\n\n"

struct fixture {
    struct arena *arena;
    struct call_relay relay;
    struct call_bytes out;
    struct error e;
};

static void take(void *owner, str bytes)
{
    call_bytes_add(owner, bytes);
}

static void begin(struct fixture *f)
{
    *f = (struct fixture){.arena = arena_create(0)};
    f->relay =
        (struct call_relay){.dialect = &openai_chat_dialect, .write = take, .owner = &f->out};
}

static void end(struct fixture *f)
{
    call_relay_deinit(&f->relay);
    call_bytes_free(&f->out);
    arena_destroy(f->arena);
}

static enum call_relay_state feed(struct fixture *f, const char *text)
{
    return call_relay_feed(&f->relay, f->arena, str_from_cstr(text), &f->e);
}

static void expect_out(struct fixture *f, const char *wanted)
{
    str out = call_bytes_str(&f->out);
    if (!str_equal(out, str_from_cstr(wanted)))
        fail_msg(STR_FMT " instead of %s", STR_ARG(out), wanted);
}

static void test_nothing_goes_out_before_the_first_content(void **state)
{
    (void) state;
    struct fixture f;
    begin(&f);
    assert_int_equal(feed(&f, ROLE), CALL_RELAY_HOLDING);
    expect_out(&f, "");
    assert_int_equal(feed(&f, TEXT("a")), CALL_RELAY_FLOWING);
    expect_out(&f, ROLE TEXT("a"));
    assert_int_equal(f.relay.held.len, 0);
    assert_int_equal(feed(&f, STOP USAGE DONE "data: more\n\n"), CALL_RELAY_ENDED);
    expect_out(&f, ROLE TEXT("a") STOP USAGE DONE);
    assert_int_equal(f.relay.glance.usage.output_tokens, 2);
    end(&f);
}

static void test_what_carries_only_usage_is_left_out_when_it_is_ours(void **state)
{
    (void) state;
    struct fixture f;
    begin(&f);
    f.relay.leaves_out_usage = true;
    assert_int_equal(feed(&f, ": note\n\n" ROLE TEXT("a") ": more\n\n" STOP USAGE DONE),
                     CALL_RELAY_ENDED);
    expect_out(&f, ROLE TEXT("a") STOP DONE);
    assert_true(f.relay.glance.usage.is_reported);
    end(&f);
}

static void test_an_error_event_is_a_failure_of_its_class_and_does_not_go_out(void **state)
{
    (void) state;
    struct fixture f;
    begin(&f);
    assert_int_equal(feed(&f, ROLE FAILURE), CALL_RELAY_FAILED);
    assert_int_equal(f.e.reason, REASON_PROVIDER_OVERLOADED);
    expect_out(&f, "");
    end(&f);
    begin(&f);
    assert_int_equal(feed(&f, ROLE TEXT("a") TEXT("b") FAILURE TEXT("c")), CALL_RELAY_FAILED);
    expect_out(&f, ROLE TEXT("a") TEXT("b"));
    assert_int_equal(glance_output_estimate(&f.relay.glance), 2);
    end(&f);
}

static void test_a_cut_is_a_failure_and_a_finish_without_done_is_completed(void **state)
{
    (void) state;
    struct fixture f;
    begin(&f);
    feed(&f, ROLE TEXT("a"));
    assert_int_equal(call_relay_close(&f.relay, f.arena, &f.e), CALL_RELAY_FAILED);
    assert_int_equal(f.e.reason, REASON_PROVIDER_NETWORK);
    end(&f);
    begin(&f);
    feed(&f, ROLE TEXT("a") STOP "data: {\"id\"");
    assert_int_equal(call_relay_close(&f.relay, f.arena, &f.e), CALL_RELAY_FAILED);
    end(&f);
    begin(&f);
    feed(&f, TEXT("a") STOP);
    assert_int_equal(call_relay_close(&f.relay, f.arena, &f.e), CALL_RELAY_ENDED);
    expect_out(&f, TEXT("a") STOP DONE);
    end(&f);
    begin(&f);
    feed(&f, TEXT("a") STOP "data: [DONE]");
    assert_int_equal(call_relay_close(&f.relay, f.arena, &f.e), CALL_RELAY_ENDED);
    expect_out(&f, TEXT("a") STOP DONE);
    end(&f);
}

static void test_garbage_is_a_failure_before_and_behind_the_content(void **state)
{
    (void) state;
    struct fixture f;
    begin(&f);
    assert_int_equal(feed(&f, "data: <html>\n\n"), CALL_RELAY_FAILED);
    assert_int_equal(f.e.reason, REASON_PROVIDER_PROTOCOL);
    end(&f);
    begin(&f);
    assert_int_equal(feed(&f, TEXT("a") "data: \x01\x02\n\n"), CALL_RELAY_FAILED);
    assert_int_equal(f.e.reason, REASON_PROVIDER_PROTOCOL);
    expect_out(&f, TEXT("a"));
    end(&f);
}

static void test_lines_may_end_as_they_like_and_come_in_any_piece(void **state)
{
    (void) state;
    static const char stream[] =
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n"
        "data:{\"choices\":[{\"delta\":\r\ndata: {\"content\":\"b\"}}]}\n\n"
        "event: x\rdata: {\"choices\":[{\"delta\":{\"content\":\"c\"}}]}\r\r"
        "data: [DONE]\n\n";
    for (size_t step = 1; step < sizeof stream; step++) {
        struct fixture f;
        begin(&f);
        str rest = str_from_cstr(stream);
        enum call_relay_state reached = CALL_RELAY_HOLDING;
        for (; rest.len > 0; rest = str_from(rest, step))
            reached = call_relay_feed(&f.relay, f.arena, str_slice(rest, 0, step), &f.e);
        assert_int_equal(reached, CALL_RELAY_ENDED);
        expect_out(&f, stream);
        assert_int_equal(f.relay.glance.event_count, 3);
        end(&f);
    }
}

static void test_the_last_event_can_be_held_back(void **state)
{
    (void) state;
    struct fixture f;
    begin(&f);
    f.relay.holds_end = true;
    assert_int_equal(feed(&f, TEXT("a") STOP DONE), CALL_RELAY_ENDED);
    expect_out(&f, TEXT("a") STOP);
    assert_true(str_equal(call_bytes_str(&f.relay.last), S(DONE)));
    end(&f);
}

static void test_what_is_held_and_what_is_kept_of_an_event_are_bounded(void **state)
{
    (void) state;
    struct fixture f;
    begin(&f);
    enum call_relay_state reached = CALL_RELAY_HOLDING;
    size_t sent = 0;
    while (reached == CALL_RELAY_HOLDING) {
        reached = feed(&f, ROLE);
        sent += sizeof ROLE - 1;
    }
    assert_int_equal(reached, CALL_RELAY_FLOWING);
    assert_true(sent > CALL_HELD_BYTES_MAX && sent <= CALL_HELD_BYTES_MAX + sizeof ROLE);
    assert_int_equal(f.out.len, sent);
    feed(&f, "data: ");
    char *filler = malloc(SSE_EVENT_BYTES_MAX + 1);
    memset(filler, 'x', SSE_EVENT_BYTES_MAX + 1);
    str more = str_of(filler, SSE_EVENT_BYTES_MAX - 6);
    assert_int_equal(call_relay_feed(&f.relay, f.arena, more, &f.e), CALL_RELAY_FLOWING);
    assert_int_equal(feed(&f, "x"), CALL_RELAY_FAILED);
    assert_int_equal(f.e.reason, REASON_PROVIDER_PROTOCOL);
    free(filler);
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_goes_out_before_the_first_content),
        cmocka_unit_test(test_what_carries_only_usage_is_left_out_when_it_is_ours),
        cmocka_unit_test(test_an_error_event_is_a_failure_of_its_class_and_does_not_go_out),
        cmocka_unit_test(test_a_cut_is_a_failure_and_a_finish_without_done_is_completed),
        cmocka_unit_test(test_garbage_is_a_failure_before_and_behind_the_content),
        cmocka_unit_test(test_lines_may_end_as_they_like_and_come_in_any_piece),
        cmocka_unit_test(test_the_last_event_can_be_held_back),
        cmocka_unit_test(test_what_is_held_and_what_is_kept_of_an_event_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
