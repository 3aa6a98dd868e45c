#include "llm/provider_contract.h"

#include "base/arena.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#define SAYS "please [[offline {\"script\":[{\"text\":\"one two three\"}]}]]"
#define CALLS                                                                                      \
    "[[offline "                                                                                   \
    "{\"script\":[{\"tool_calls\":[{\"name\":\"add\",\"arguments\":{\"a\":1,\"b\":\"two "          \
    "words\"}},"                                                                                   \
    "{\"name\":\"time\",\"arguments\":{}}]}]}]]"
#define FAILS "[[offline {\"script\":[{\"error\":\"rate_limited\",\"retry_after_ms\":1500}]}]]"
#define SLEEPS "[[offline {\"script\":[{\"sleep_ms\":5000,\"text\":\"late\"}]}]]"

struct asked {
    struct part part;
    struct prompt_message message;
    struct prompt prompt;
    struct tool_spec tools[2];
};

static struct prompt *ask(struct context *ctx, const char *text)
{
    struct asked *asked = ARENA_NEW(ctx->arena, struct asked);
    asked->part = (struct part){.kind = PART_TEXT, .text = str_from_cstr(text)};
    asked->message =
        (struct prompt_message){.role = ROLE_USER, .parts = &asked->part, .part_count = 1};
    asked->tools[0] =
        (struct tool_spec){.name = S("add"), .parameters = S("{\"type\":\"object\"}")};
    asked->tools[1] =
        (struct tool_spec){.name = S("time"), .parameters = S("{\"type\":\"object\"}")};
    asked->prompt = (struct prompt){.model = S("m"),
                                    .messages = &asked->message,
                                    .message_count = 1,
                                    .tools = asked->tools,
                                    .tool_count = 2,
                                    .parallel_tool_calls = -1,
                                    .max_output_tokens = 1000,
                                    .temperature = -1};
    return &asked->prompt;
}

bool provider_contract_drain(struct reply_stream *stream, struct context *ctx, struct reply *out,
                             struct error *e)
{
    struct strbuf *pieces = ARENA_ARRAY(ctx->arena, struct strbuf, 66);
    size_t calls = 0;
    struct delta delta;
    *out = (struct reply){.parts = ARENA_ARRAY(ctx->arena, struct part, 66)};
    for (size_t i = 0; i < 66; i++)
        strbuf_init(&pieces[i], ctx->arena, 1u << 20);
    do {
        if (!reply_stream_next(stream, ctx, &delta, e))
            return false;
        struct part *call = &out->parts[1 + delta.index];
        if (delta.kind == DELTA_TEXT)
            strbuf_add(&pieces[0], delta.text);
        if (delta.kind == DELTA_TOOL_CALL) {
            assert_int_equal(delta.index, calls); /* in order, each begun once */
            *call = (struct part){.kind = PART_TOOL_CALL,
                                  .call_id = str_copy(ctx->arena, delta.call_id),
                                  .name = str_copy(ctx->arena, delta.name)};
            calls++;
        }
        if (delta.kind == DELTA_TOOL_ARGUMENTS) {
            assert_true(delta.index >= 0 && (size_t) delta.index < calls);
            strbuf_add(&pieces[1 + delta.index], delta.text);
        }
    } while (delta.kind != DELTA_END);
    out->parts[0] = (struct part){.kind = PART_TEXT, .text = strbuf_str(&pieces[0])};
    for (size_t i = 0; i < calls; i++)
        out->parts[1 + i].arguments = strbuf_str(&pieces[1 + i]);
    out->part_count = 1 + calls;
    out->finish = delta.finish;
    out->usage = delta.usage;
    return true;
}

static struct reply complete(struct provider *provider, struct context *ctx, const char *text)
{
    struct reply reply;
    struct error e = {0};
    if (!provider_complete(provider, ctx, NULL, ask(ctx, text), &reply, &e))
        fail_msg("complete: %s", e.message);
    return reply;
}

static struct reply stream(struct provider *provider, struct context *ctx, const char *text)
{
    struct reply reply;
    struct error e = {0};
    OWNED(reply_stream) stream = NULL;
    if (!provider_stream(provider, ctx, NULL, ask(ctx, text), &stream, &e))
        fail_msg("stream: %s", e.message);
    if (!provider_contract_drain(stream, ctx, &reply, &e))
        fail_msg("next: %s", e.message);
    return reply;
}

static void check_text(const struct reply *reply)
{
    assert_true(str_find(reply->parts[0].text, S("one two three")) != STR_NOT_FOUND);
    assert_int_equal(reply->finish, FINISH_STOP);
    assert_true(!reply->usage.is_reported || reply->usage.output_tokens > 0);
}

static void check_calls(const struct part *calls, size_t count, enum finish finish)
{
    assert_int_equal(count, 2);
    assert_true(str_equal(calls[0].name, S("add")) && str_equal(calls[1].name, S("time")));
    assert_true(str_equal(calls[0].arguments, S("{\"a\":1,\"b\":\"two words\"}")));
    assert_true(str_equal(calls[1].arguments, S("{}")));
    assert_true(calls[0].call_id.len > 0 && calls[1].call_id.len > 0);
    assert_false(str_equal(calls[0].call_id, calls[1].call_id));
    assert_int_equal(finish, FINISH_TOOL_CALLS);
}

static void check_failures(struct provider *provider, struct context *ctx)
{
    struct reply reply;
    struct reply_stream *never = NULL;
    struct error e = {0};
    assert_false(provider_complete(provider, ctx, NULL, ask(ctx, FAILS), &reply, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_RATE_LIMITED);
    assert_int_equal(e.retry_after_ms, 1500);
    e = (struct error){0};
    assert_false(provider_stream(provider, ctx, NULL, ask(ctx, FAILS), &never, &e));
    assert_int_equal(e.reason, REASON_PROVIDER_RATE_LIMITED);
    assert_null(never);
}

/* Our own deadline is TIMEOUT, a cancelled context CANCELLED; both at once, not after the
 * provider's five seconds. */
static void check_waits(struct provider *provider, struct context *ctx)
{
    struct reply reply;
    struct error e = {0};
    struct context child;
    int64_t before = context_now_ns(ctx);
    context_init_child(&child, ctx, context_deadline_in(ctx, 50));
    assert_false(provider_complete(provider, &child, NULL, ask(ctx, SLEEPS), &reply, &e));
    assert_int_equal(e.code, ERROR_TIMEOUT);
    assert_int_equal(e.reason, REASON_TIMEOUT);
    context_deinit(&child);
    context_init_child(&child, ctx, DEADLINE_NONE);
    context_cancel(&child);
    e = (struct error){0};
    assert_false(provider_complete(provider, &child, NULL, ask(ctx, SAYS), &reply, &e));
    assert_int_equal(e.code, ERROR_CANCELLED);
    context_deinit(&child);
    assert_true(context_now_ns(ctx) - before < 2000000000ll);
}

static void check_early_close(struct provider *provider, struct context *ctx)
{
    struct error e = {0};
    struct delta delta;
    struct reply_stream *stream = NULL;
    assert_true(provider_stream(provider, ctx, NULL, ask(ctx, SAYS), &stream, &e));
    assert_true(reply_stream_next(stream, ctx, &delta, &e));
    reply_stream_close(stream);
    reply_stream_close(NULL);
}

void provider_contract(struct provider *provider, struct context *ctx)
{
    struct reply whole = complete(provider, ctx, SAYS), streamed = stream(provider, ctx, SAYS);
    check_text(&whole);
    check_text(&streamed);
    assert_true(str_equal(whole.parts[0].text, streamed.parts[0].text));
    if (provider->ops->is_stand_in)
        assert_true(str_find(whole.parts[0].text, S("stand-in")) != STR_NOT_FOUND);
    whole = complete(provider, ctx, CALLS);
    check_calls(whole.parts, whole.part_count, whole.finish);
    streamed = stream(provider, ctx, CALLS);
    check_calls(streamed.parts + 1, streamed.part_count - 1, streamed.finish);
    check_failures(provider, ctx);
    check_waits(provider, ctx);
    check_early_close(provider, ctx);
    str *names;
    size_t count;
    struct error e = {0};
    assert_true(provider_models(provider, ctx, &names, &count, &e));
    assert_true(count > 0 && names[0].len > 0);
    complete(provider, ctx, SAYS); /* and it still works */
}
