#include "runtime/mailbox.h"

#include "base/ensure.h"
#include "base/limits.h"
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct message {
    struct message_link link;
    int sender, number;
};

enum { SENDERS = 4, MESSAGES_PER_SENDER = 20000 };

struct world {
    struct loop *loop;
    struct context ctx;
    struct mailbox *mailbox;
    struct error e;
    int received_count;
    int next[SENDERS];
};

static int set_up(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    world->loop = loop_create(clock_system(), random_system(), &world->e);
    ensure(world->loop != NULL);
    world->mailbox = mailbox_create(world->loop, 100);
    context_init(&world->ctx, loop_scheduler(world->loop), NULL, DEADLINE_NONE);
    *state = world;
    return 0;
}

static int tear_down(void **state)
{
    struct world *world = *state;
    mailbox_destroy(world->mailbox);
    context_deinit(&world->ctx);
    loop_destroy(world->loop);
    free(world);
    return 0;
}

static void start(struct world *world, coroutine_fn *fn)
{
    ensure(coroutine_start(loop_scheduler(world->loop), "test", fn, world, &world->e));
}

static struct message *message_create(int sender, int number)
{
    struct message *message = calloc(1, sizeof *message);
    ensure(message != NULL);
    message->sender = sender;
    message->number = number;
    return message;
}

static bool receive_one(struct world *world)
{
    struct message_link *link;
    if (!mailbox_receive(world->mailbox, &world->ctx, &link, &world->e))
        return false;
    struct message *message = CONTAINER_OF(link, struct message, link);
    ensure(message->number == world->next[message->sender]++);
    world->received_count++;
    free(message);
    return true;
}

static void test_a_full_mailbox_refuses_until_one_is_taken(void **state)
{
    struct world *world = *state;
    struct message *spare = message_create(0, 100);
    for (int i = 0; i < 100; i++)
        assert_true(mailbox_send(world->mailbox, &message_create(0, i)->link));
    assert_int_equal(mailbox_count(world->mailbox), 100);
    assert_false(mailbox_send(world->mailbox, &spare->link));
    free(CONTAINER_OF(mailbox_take(world->mailbox), struct message, link));
    assert_true(mailbox_send(world->mailbox, &spare->link));
    for (int i = 1; i <= 100; i++) {
        struct message *message = CONTAINER_OF(mailbox_take(world->mailbox), struct message, link);
        assert_int_equal(message->number, i);
        free(message);
    }
    assert_null(mailbox_take(world->mailbox));
}

static void send_three(void *argument)
{
    struct world *world = argument;
    for (int i = 0; i < 3; i++) {
        ensure(mailbox_send(world->mailbox, &message_create(0, i)->link));
        ensure(context_sleep_ms(&world->ctx, 1, &world->e));
    }
}

static void receive_three(void *argument)
{
    struct world *world = argument;
    for (int i = 0; i < 3; i++)
        ensure(receive_one(world));
    loop_stop(world->loop);
}

static void test_a_coroutine_of_the_same_loop_may_send(void **state)
{
    struct world *world = *state;
    start(world, receive_three);
    start(world, send_three);
    loop_run(world->loop);
    assert_int_equal(world->received_count, 3);
}

static void receive_with_deadline(void *argument)
{
    struct world *world = argument;
    world->ctx.deadline_ns = context_deadline_in(&world->ctx, 5);
    ensure(!receive_one(world));
    loop_stop(world->loop);
}

static void test_receiving_from_an_empty_mailbox_times_out(void **state)
{
    struct world *world = *state;
    start(world, receive_with_deadline);
    loop_run(world->loop);
    assert_int_equal(world->e.code, ERROR_TIMEOUT);
}

static void receive_until_closed(void *argument)
{
    struct world *world = argument;
    while (receive_one(world))
        continue;
    loop_stop(world->loop);
}

static void *send_and_close(void *argument)
{
    struct world *world = argument;
    for (int i = 0; i < 10; i++)
        ensure(mailbox_send(world->mailbox, &message_create(0, i)->link));
    mailbox_close(world->mailbox);
    mailbox_close(world->mailbox);
    struct message *late = message_create(0, 10);
    ensure(!mailbox_send(world->mailbox, &late->link));
    free(late);
    return NULL;
}

static void test_a_closed_mailbox_refuses_and_ends_its_receiver(void **state)
{
    struct world *world = *state;
    pthread_t thread;
    start(world, receive_until_closed);
    assert_int_equal(pthread_create(&thread, NULL, send_and_close, world), 0);
    loop_run(world->loop);
    pthread_join(thread, NULL);
    assert_int_equal(world->received_count, 10);
    assert_int_equal(world->e.code, ERROR_CANCELLED);
}

struct sender {
    struct world *world;
    int index;
    pthread_t thread;
};

static void *send_many(void *argument)
{
    struct sender *sender = argument;
    for (int i = 0; i < MESSAGES_PER_SENDER; i++) {
        struct message *message = message_create(sender->index, i);
        while (!mailbox_send(sender->world->mailbox, &message->link))
            sched_yield();
    }
    return NULL;
}

static void receive_many(void *argument)
{
    struct world *world = argument;
    while (world->received_count < SENDERS * MESSAGES_PER_SENDER)
        ensure(receive_one(world));
    loop_stop(world->loop);
}

static void test_many_threads_send_and_each_keeps_its_order(void **state)
{
    struct world *world = *state;
    struct sender senders[SENDERS];
    start(world, receive_many);
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){world, i, 0};
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_many, &senders[i]), 0);
    }
    loop_run(world->loop);
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
}

/* The receiver destroys the mailbox at once; the sender may still be on its way out of
 * mailbox_send. */
static void receive_and_destroy(void *argument)
{
    struct world *world = argument;
    world->next[0] = 0;
    ensure(receive_one(world));
    mailbox_destroy(GIVE(world->mailbox));
    loop_stop(world->loop);
}

static void *send_one(void *argument)
{
    struct mailbox *mailbox = argument;
    ensure(mailbox_send(mailbox, &message_create(0, 0)->link));
    return NULL;
}

static void test_the_receiver_may_destroy_after_the_last_message(void **state)
{
    struct world *world = *state;
    mailbox_destroy(GIVE(world->mailbox));
    for (int i = 0; i < 300; i++) {
        pthread_t thread;
        world->mailbox = mailbox_create(world->loop, 1);
        start(world, receive_and_destroy);
        assert_int_equal(pthread_create(&thread, NULL, send_one, world->mailbox), 0);
        loop_run(world->loop);
        pthread_join(thread, NULL);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_full_mailbox_refuses_until_one_is_taken),
        TEST(test_a_coroutine_of_the_same_loop_may_send),
        TEST(test_receiving_from_an_empty_mailbox_times_out),
        TEST(test_a_closed_mailbox_refuses_and_ends_its_receiver),
        TEST(test_many_threads_send_and_each_keeps_its_order),
        TEST(test_the_receiver_may_destroy_after_the_last_message),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
