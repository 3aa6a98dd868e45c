/*
 * Mailbox: many senders on any threads, one receiver coroutine on one loop.  Sending gives the
 * payload away.
 * Bounded: a full mailbox refuses (false) and the sender decides.  Used between loops and from
 * worker threads.
 * Order: of sending, so per sender too.  A closed mailbox refuses sends; what is in it can still be
 * received.
 */
#ifndef NEXUS_RUNTIME_MAILBOX_H
#define NEXUS_RUNTIME_MAILBOX_H

#include "runtime/loop.h"

struct mailbox;
struct message_link {
    struct message_link *next;
};

/* max_messages: 1..MAILBOX_MESSAGES_MAX. */
struct mailbox *mailbox_create(struct loop *receiver, size_t max_messages);
/* On the receiver's loop, or after it ended.  Must be empty, and nobody may begin a send any more:
   close, let the senders end, take the rest, destroy. */
void mailbox_destroy(struct mailbox *mailbox);
OWNED_DEFINE(mailbox)
/* Any thread; idempotent; who waits gets CANCELLED once it is empty. */
void mailbox_close(struct mailbox *mailbox);
/* Any thread; false: full or closed, and the message stays the caller's. */
bool mailbox_send(struct mailbox *mailbox, struct message_link *give_message);
/* Oldest message; waits while empty.  ERROR_CANCELLED, ERROR_TIMEOUT per ctx; CANCELLED when closed
 * and empty. */
may_suspend bool mailbox_receive(struct mailbox *mailbox, struct context *ctx,
                                 struct message_link **out, struct error *e);
/* The same without waiting; NULL while empty. */
struct message_link *mailbox_take(struct mailbox *mailbox);
size_t mailbox_count(struct mailbox *mailbox);

#endif
