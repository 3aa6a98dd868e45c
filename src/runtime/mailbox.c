#include "runtime/mailbox.h"

#include "base/ensure.h"
#include "base/limits.h"
#include <stdatomic.h>
#include <stdlib.h>

/*
 * Senders push onto a stack; the receiver takes the whole stack and turns it round.  A push onto an
 * empty stack rings the receiver's loop, so there is a ring for each time the receiver may have
 * found nothing.
 *
 * Counted references, because two owners cannot be ordered: the receiver may get a message and
 * destroy the mailbox while its sender is still on the way out of mailbox_send, or while a ring is
 * on its way to the loop.
 */
struct mailbox {
    struct loop *loop;
    size_t max_messages;
    struct message_link *oldest; /* taken, in order; the receiver's */
    struct condition arrived;
    _Alignas(64) _Atomic(struct message_link *) newest; /* the line that senders write */
    atomic_size_t count;
    atomic_int references;
    atomic_bool is_closed;
};

static void mailbox_release(struct mailbox *mailbox)
{
    if (atomic_fetch_sub_explicit(&mailbox->references, 1, memory_order_acq_rel) == 1)
        free(mailbox);
}

static void on_ring(void *argument)
{
    struct mailbox *mailbox = argument;
    condition_signal(&mailbox->arrived);
    mailbox_release(mailbox);
}

static void on_close(void *argument)
{
    struct mailbox *mailbox = argument;
    condition_broadcast(&mailbox->arrived);
    mailbox_release(mailbox);
}

/* Takes over a reference. */
static void ring(struct mailbox *mailbox)
{
    if (loop_current() == mailbox->loop)
        on_ring(mailbox);
    else
        loop_post(mailbox->loop, on_ring, mailbox);
}

static void push(struct mailbox *mailbox, struct message_link *message, bool *was_empty)
{
    struct message_link *newest = atomic_load_explicit(&mailbox->newest, memory_order_relaxed);
    do
        message->next = newest;
    while (!atomic_compare_exchange_weak_explicit(&mailbox->newest, &newest, message,
                                                  memory_order_release, memory_order_relaxed));
    *was_empty = newest == NULL;
}

static void take_all(struct mailbox *mailbox)
{
    struct message_link *newest =
        atomic_exchange_explicit(&mailbox->newest, NULL, memory_order_acquire);
    while (newest) {
        struct message_link *next = newest->next;
        newest->next = mailbox->oldest;
        mailbox->oldest = newest;
        newest = next;
    }
}

struct mailbox *mailbox_create(struct loop *receiver, size_t max_messages)
{
    ensure(max_messages > 0 && max_messages <= MAILBOX_MESSAGES_MAX);
    struct mailbox *mailbox = aligned_alloc(_Alignof(struct mailbox), sizeof *mailbox);
    ensure(mailbox != NULL);
    *mailbox = (struct mailbox){.loop = receiver, .max_messages = max_messages};
    condition_init(&mailbox->arrived);
    atomic_init(&mailbox->references, 1);
    return mailbox;
}

void mailbox_destroy(struct mailbox *mailbox)
{
    if (!mailbox)
        return;
    ensure(mailbox_count(mailbox) == 0);
    ensure(list_is_empty(&mailbox->arrived.waiters));
    mailbox_release(mailbox);
}

void mailbox_close(struct mailbox *mailbox)
{
    if (atomic_exchange(&mailbox->is_closed, true))
        return;
    atomic_fetch_add_explicit(&mailbox->references, 1, memory_order_relaxed);
    loop_post(mailbox->loop, on_close, mailbox);
}

bool mailbox_send(struct mailbox *mailbox, struct message_link *give_message)
{
    if (atomic_load_explicit(&mailbox->is_closed, memory_order_acquire))
        return false;
    if (atomic_fetch_add_explicit(&mailbox->count, 1, memory_order_relaxed) >=
        mailbox->max_messages) {
        atomic_fetch_sub_explicit(&mailbox->count, 1, memory_order_relaxed);
        return false;
    }
    atomic_fetch_add_explicit(&mailbox->references, 1, memory_order_relaxed);
    bool was_empty;
    push(mailbox, give_message, &was_empty);
    if (was_empty)
        ring(mailbox);
    else
        mailbox_release(mailbox);
    return true;
}

struct message_link *mailbox_take(struct mailbox *mailbox)
{
    if (!mailbox->oldest)
        take_all(mailbox);
    struct message_link *message = mailbox->oldest;
    if (!message)
        return NULL;
    mailbox->oldest = message->next;
    message->next = NULL;
    atomic_fetch_sub_explicit(&mailbox->count, 1, memory_order_release);
    return message;
}

bool mailbox_receive(struct mailbox *mailbox, struct context *ctx, struct message_link **out,
                     struct error *e)
{
    struct message_link *message;
    while (!(message = mailbox_take(mailbox))) {
        if (atomic_load_explicit(&mailbox->is_closed, memory_order_acquire))
            return error_set(e, REASON_CANCELLED, "the mailbox is closed");
        if (!condition_wait(&mailbox->arrived, ctx, e))
            return false;
    }
    *out = message;
    return true;
}

size_t mailbox_count(struct mailbox *mailbox)
{
    return atomic_load_explicit(&mailbox->count, memory_order_acquire);
}
