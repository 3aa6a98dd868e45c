/*
 * All of the runtime at once, under load: many coroutines that sleep and are cancelled, loops that
 * pass messages round, tens of thousands parked.  Sanitizer builds do the same with fewer (a fiber
 * costs TSan almost a megabyte).
 */
#include "runtime/mailbox.h"

#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/coroutine_switch_internal.h"
#include "runtime/simulated.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef NEXUS_TSAN
enum { SLEEPERS = 500, PARKED = 500, TOKENS = 200, HOPS = 50 };
#elif defined(NEXUS_ASAN)
enum { SLEEPERS = 10000, PARKED = 20000, TOKENS = 500, HOPS = 100 };
#else
enum { SLEEPERS = 10000, PARKED = 50000, TOKENS = 1000, HOPS = 200 };
#endif

static size_t resident_bytes(void)
{
    unsigned long total = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    ensure(file && fscanf(file, "%lu %lu", &total, &resident) == 2);
    fclose(file);
    return (size_t) resident * (size_t) sysconf(_SC_PAGESIZE);
}

/* ---- sleeps and cancels ---- */

enum { SLEEPS_EACH = 5 };

struct night {
    struct loop *loop;
    struct random *random;
    struct context root;
    struct context beds[SLEEPERS];
    bool is_asleep[SLEEPERS];
    size_t next, live_count, slept_count, cancelled_count;
};

static void sleep_badly(void *argument)
{
    struct night *night = argument;
    size_t index = night->next++;
    struct context *ctx = &night->beds[index];
    struct error e;
    context_init_child(ctx, &night->root, DEADLINE_NONE);
    night->is_asleep[index] = true;
    bool ok = true;
    for (int i = 0; ok && i < SLEEPS_EACH; i++) {
        ok = context_sleep_ms(ctx, (int64_t) random_below(night->random, 40), &e);
        ensure(ok || e.code == ERROR_CANCELLED);
    }
    night->is_asleep[index] = false;
    context_deinit(ctx);
    *(ok ? &night->slept_count : &night->cancelled_count) += 1;
    night->live_count--;
}

static void wake_at_random(void *argument)
{
    struct night *night = argument;
    struct error e;
    while (night->live_count > 0) {
        for (int i = 0; i < 20; i++) {
            size_t index = random_below(night->random, SLEEPERS);
            if (night->is_asleep[index])
                context_cancel(&night->beds[index]);
        }
        ensure(context_sleep_ms(&night->root, 1, &e));
    }
    loop_stop(night->loop);
}

static void test_many_coroutines_sleep_and_are_cancelled(void **state)
{
    (void) state;
    static struct night night;
    struct error e;
    night.random = random_seeded_create(11);
    night.loop = loop_create(clock_system(), random_system(), &e);
    assert_non_null(night.loop);
    context_init(&night.root, loop_scheduler(night.loop), NULL, DEADLINE_NONE);
    night.live_count = SLEEPERS;
    for (int i = 0; i < SLEEPERS; i++)
        assert_true(
            coroutine_start(loop_scheduler(night.loop), "sleeper", sleep_badly, &night, &e));
    assert_true(coroutine_start(loop_scheduler(night.loop), "waker", wake_at_random, &night, &e));
    loop_run(night.loop);
    assert_int_equal(night.slept_count + night.cancelled_count, SLEEPERS);
    assert_true(night.slept_count > 0 && night.cancelled_count > 0);
    printf("%d coroutines: %zu slept through, %zu cancelled\n", SLEEPERS, night.slept_count,
           night.cancelled_count);
    context_deinit(&night.root);
    loop_destroy(night.loop);
    random_seeded_destroy(night.random);
}

/* ---- tokens that hop between loops ---- */

enum { LOOPS = 3 };

struct token {
    struct message_link link;
    int hops_left;
};

struct ring;

struct node {
    struct ring *ring;
    struct loop *loop;
    struct mailbox *mailbox;
    struct random *random;
    size_t received_count, blocking_count;
};

struct ring {
    struct node nodes[LOOPS];
    atomic_size_t live_tokens;
    atomic_size_t refused_count;
};

static void count_up(void *argument)
{
    ++*(size_t *) argument;
}

/*
 * A full mailbox refuses; a sender that may wait then waits, and tries any of them again: senders
 * that insisted on one could hold each other up for ever (a node's children all wait for its own
 * mailbox, which only children that end could empty).
 */
static void send_patiently(struct node *node, struct context *ctx, struct token *token)
{
    struct error e;
    struct node *nodes = node->ring->nodes;
    while (!mailbox_send(nodes[random_below(node->random, LOOPS)].mailbox, &token->link)) {
        node->ring->refused_count++;
        ensure(context_sleep_ms(ctx, 1, &e));
    }
}

static void retire(struct ring *ring, struct token *token)
{
    free(token);
    if (atomic_fetch_sub(&ring->live_tokens, 1) == 1)
        for (int i = 0; i < LOOPS; i++)
            mailbox_close(ring->nodes[i].mailbox);
}

struct errand {
    struct node *node;
    struct token *token;
};

static void pass_on(struct context *ctx, void *argument)
{
    struct errand *errand = argument;
    struct node *node = errand->node;
    struct token *token = errand->token;
    struct error e;
    free(errand);
    if (token->hops_left % 16 == 0) {
        size_t ran = 0;
        ensure(blocking_call(ctx, count_up, &ran, &e));
        node->blocking_count += ran;
    }
    if (token->hops_left % 8 == 0)
        ensure(context_sleep_ms(ctx, (int64_t) random_below(node->random, 3), &e));
    if (token->hops_left-- == 0)
        retire(node->ring, token);
    else
        send_patiently(node, ctx, token);
}

static void serve_node(void *argument)
{
    struct node *node = argument;
    struct context ctx;
    struct group group;
    struct error e;
    struct message_link *link;
    context_init(&ctx, loop_scheduler(node->loop), NULL, DEADLINE_NONE);
    group_init(&group, &ctx);
    while (mailbox_receive(node->mailbox, &ctx, &link, &e)) {
        struct errand *errand = malloc(sizeof *errand);
        ensure(errand != NULL);
        *errand = (struct errand){node, CONTAINER_OF(link, struct token, link)};
        node->received_count++;
        while (!group_start(&group, "errand", pass_on, errand, &e))
            ensure(context_sleep_ms(&ctx, 1, &e));
    }
    ensure(e.code == ERROR_CANCELLED);
    group_wait(&group);
    context_deinit(&ctx);
    loop_stop(node->loop);
}

static void test_loops_exchange_messages(void **state)
{
    (void) state;
    static struct ring ring;
    struct error e;
    ring.live_tokens = TOKENS;
    for (int i = 0; i < LOOPS; i++) {
        struct node *node = &ring.nodes[i];
        *node =
            (struct node){.ring = &ring, .loop = loop_create(clock_system(), random_system(), &e)};
        assert_non_null(node->loop);
        node->mailbox = mailbox_create(node->loop, TOKENS / 2);
        node->random = random_seeded_create(100 + (uint64_t) i);
        assert_true(coroutine_start(loop_scheduler(node->loop), "node", serve_node, node, &e));
    }
    for (int i = 0; i < TOKENS; i++) {
        struct token *token = calloc(1, sizeof *token);
        assert_non_null(token);
        token->hops_left = HOPS;
        assert_true(mailbox_send(ring.nodes[i % LOOPS].mailbox, &token->link));
    }
    for (int i = 0; i < LOOPS; i++)
        assert_true(loop_start_thread(ring.nodes[i].loop, "stress", &e));
    for (int i = 0; i < LOOPS; i++)
        loop_join_thread(ring.nodes[i].loop);
    size_t received = 0, blocking = 0;
    for (int i = 0; i < LOOPS; i++) {
        received += ring.nodes[i].received_count;
        blocking += ring.nodes[i].blocking_count;
        mailbox_destroy(ring.nodes[i].mailbox);
        loop_destroy(ring.nodes[i].loop);
        random_seeded_destroy(ring.nodes[i].random);
    }
    blocking_pool_stop();
    assert_int_equal(received, TOKENS * (HOPS + 1));
    printf("%d loops: %zu messages, %zu blocking calls, %zu refused by full mailboxes\n", LOOPS,
           received, blocking, ring.refused_count);
}

/* ---- parked coroutines ---- */

static void park(void *argument)
{
    struct context *ctx = argument;
    struct error e;
    ensure(!context_sleep_ms(ctx, 3600 * 1000, &e));
    ensure(e.code == ERROR_CANCELLED);
}

static void test_parked_coroutines_cost_little(void **state)
{
    (void) state;
    struct clock *clock = clock_manual_create(0, 0);
    struct scheduler *scheduler =
        scheduler_create(clock, random_system(), (struct scheduler_hooks){0});
    struct context ctx;
    struct error e;
    context_init(&ctx, scheduler, NULL, DEADLINE_NONE);
    size_t before = resident_bytes();
    for (int i = 0; i < PARKED; i++)
        assert_true(coroutine_start(scheduler, "parked", park, &ctx, &e));
    assert_false(scheduler_run_ready(scheduler, SIZE_MAX));
    assert_int_equal(scheduler_coroutine_count(scheduler), PARKED);
    size_t parked = resident_bytes();
    context_cancel(&ctx);
    assert_false(scheduler_run_ready(scheduler, SIZE_MAX));
    size_t after = resident_bytes();
    assert_int_equal(scheduler_coroutine_count(scheduler), 0);
    printf("%d parked coroutines: %zu bytes each; resident before %zu KiB, parked %zu, after %zu\n",
           PARKED, (parked - before) / PARKED, before / 1024, parked / 1024, after / 1024);
#if !defined(NEXUS_ASAN) && !defined(NEXUS_TSAN)
    assert_in_range((parked - before) / PARKED, 1024, 12 * 1024);
    /* What goes back: all but the warm stacks and the allocator's own. */
    assert_true(after - before < (parked - before) / 2);
#endif
    context_deinit(&ctx);
    scheduler_destroy(scheduler);
    clock_manual_destroy(clock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parked_coroutines_cost_little),
        cmocka_unit_test(test_many_coroutines_sleep_and_are_cancelled),
        cmocka_unit_test(test_loops_exchange_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
