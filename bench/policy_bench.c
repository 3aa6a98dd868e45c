/*
 * What a policy decision costs: the shipped policies, asked as a plain model call, a tool call and
 * a refusal ask them.
 *
 *     bench_policy_bench POLICY_DIR        (default: policies in the working folder)
 *
 * "interpreted": each question is new (the memo is off); "remembered": asked before, as on the hot
 * path.  The callers' names, sessions and budgets change from question to question, as in life.
 */
#include "orchestrator/policy/policy.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "runtime/scheduler.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { INTERPRETED = 4000, REMEMBERED = 400000, WARM_UP = 100, NS_PER_S = 1000000000 };

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t) now.tv_sec * NS_PER_S + now.tv_nsec;
}

struct bench {
    struct scheduler *scheduler;
    struct policy *interpreting, *remembering;
};

static const struct {
    const char *name;
    struct policy_input input;
} questions[] = {
    {"model call, allowed, no rule name",
     {.action = S_INIT("model.call"),
      .resource = S_INIT("fast"),
      .user_id = S_INIT("ada"),
      .role = S_INIT("user"),
      .tenant = S_INIT("0192f0c0-0000-7000-8000-000000000001"),
      .remaining = COST_LIMITLESS,
      .skips_rule = true}},
    {"model call, allowed, rule named",
     {.action = S_INIT("model.call"),
      .resource = S_INIT("fast"),
      .user_id = S_INIT("ada"),
      .role = S_INIT("user"),
      .tenant = S_INIT("0192f0c0-0000-7000-8000-000000000001"),
      .remaining = COST_LIMITLESS}},
    {"tool call, allowed, rule named",
     {.action = S_INIT("tool.call"),
      .resource = S_INIT("text_processing"),
      .user_id = S_INIT("ada"),
      .role = S_INIT("user"),
      .tenant = S_INIT("0192f0c0-0000-7000-8000-000000000001"),
      .tool_name = S_INIT("text_processing"),
      .tool_version = S_INIT("1.0.0"),
      .tool_category = S_INIT("text_processing"),
      .remaining = {.tokens = 200000,
                    .time_ms = 3600000,
                    .cost_nanousd = COST_UNLIMITED,
                    .tool_calls = COST_UNLIMITED},
      .arguments = S_INIT("{\"operation\":\"upper\",\"text\":\"the quick brown fox\"}")}},
    {"tool call, denied",
     {.action = S_INIT("tool.call"),
      .resource = S_INIT("http_request"),
      .user_id = S_INIT("ada"),
      .role = S_INIT("viewer"),
      .tenant = S_INIT("0192f0c0-0000-7000-8000-000000000001"),
      .tool_name = S_INIT("http_request"),
      .tool_version = S_INIT("1.0.0"),
      .tool_category = S_INIT("http"),
      .remaining = {.tokens = 200000,
                    .time_ms = 3600000,
                    .cost_nanousd = COST_UNLIMITED,
                    .tool_calls = COST_UNLIMITED},
      .arguments = S_INIT("{\"url\":\"http://example.org/\"}")}},
};

/* The same question by another user in another session with less left in the budget. */
static struct policy_input next_input(const struct policy_input *input, int i, str user)
{
    struct policy_input next = *input;
    next.user_id = user;
    next.session_id.bytes[0] = (uint8_t) (1 + i % 200);
    next.remaining.tokens = 100000 + (i & 0xffff);
    return next;
}

static double cpu_us(struct policy *policy, struct context *ctx, const struct policy_input *input,
                     int count)
{
    struct policy_decision decision;
    int64_t began_ns = 0;
    for (int i = -WARM_UP; i < count; i++) {
        if (i == 0)
            began_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
        arena_mark mark = arena_save(ctx->arena);
        char user[] = "user-000";
        user[5] = (char) ('0' + (i + WARM_UP) / 100 % 10);
        user[6] = (char) ('0' + (i + WARM_UP) / 10 % 10);
        user[7] = (char) ('0' + (i + WARM_UP) % 10);
        struct policy_input next = next_input(input, i + WARM_UP, str_of(user, sizeof user - 1));
        policy_decide(policy, ctx, &next, &decision);
        arena_rewind(ctx->arena, mark);
    }
    return (double) (now_ns(CLOCK_THREAD_CPUTIME_ID) - began_ns) / 1000 / count;
}

static void measure(void *argument)
{
    struct bench *bench = argument;
    OWNED(arena) arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, bench->scheduler, arena, DEADLINE_NONE);
    for (size_t i = 0; i < ARRAY_COUNT(questions); i++) {
        double interpreted = cpu_us(bench->interpreting, &ctx, &questions[i].input, INTERPRETED);
        double remembered = cpu_us(bench->remembering, &ctx, &questions[i].input, REMEMBERED);
        printf("%-36s interpreted %8.2f us cpu   remembered %8.3f us cpu   %6.0fx\n",
               questions[i].name, interpreted, remembered, interpreted / remembered);
    }
    struct policy_memo_counts counts = policy_rego_memo_counts(bench->remembering);
    printf("%-36s %llu interpreted of %llu\n", "1,000 users, shrinking budgets",
           (unsigned long long) (counts.misses + counts.unaskable),
           (unsigned long long) (counts.hits + counts.misses + counts.unaskable));
    context_deinit(&ctx);
}

static struct policy *open_policy(const char *dir, bool has_no_memo)
{
    struct error e;
    struct policy *policy;
    struct policy_rego_options options = {
        .dir = str_from_cstr(dir), .time_limit_ms = 1000, .has_no_memo = has_no_memo};
    if (policy_rego_create(&options, &policy, &e))
        return policy;
    fprintf(stderr, "%s\n", e.message);
    exit(1);
}

int main(int count, char **arguments)
{
    struct error e;
    const char *dir = count > 1 ? arguments[1] : "policies";
    struct bench bench = {.interpreting = open_policy(dir, true),
                          .remembering = open_policy(dir, false)};
    bench.scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    log_set_level(LOG_LEVEL_ERROR); /* it does hold its loop */
    ensure(coroutine_start(bench.scheduler, "bench", measure, &bench, &e));
    scheduler_run_ready(bench.scheduler, SIZE_MAX);
    scheduler_destroy(bench.scheduler);
    policy_destroy(bench.interpreting);
    policy_destroy(bench.remembering);
    return 0;
}
