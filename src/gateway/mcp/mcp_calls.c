#include "gateway/mcp/mcp_calls.h"
#include "base/ensure.h"
#include "base/limits.h"
#include <pthread.h>
#include <stdlib.h>

enum { CALL_RETRY_MS = 1000 };

struct mcp_calls {
    pthread_mutex_t lock;
    struct list in_work;
};

struct mcp_calls *mcp_calls_create(void)
{
    struct mcp_calls *calls = calloc(1, sizeof *calls);
    ensure(calls != NULL);
    pthread_mutex_init(&calls->lock, NULL);
    list_init(&calls->in_work);
    return calls;
}

void mcp_calls_destroy(struct mcp_calls *calls)
{
    if (!calls)
        return;
    ensure(list_is_empty(&calls->in_work));
    pthread_mutex_destroy(&calls->lock);
    free(calls);
}

/* One block: the ticket, then its two texts. */
static struct mcp_ticket *ticket_create(str session, str id)
{
    struct mcp_ticket *ticket = calloc(1, sizeof *ticket + session.len + id.len);
    ensure(ticket != NULL);
    char *text = (char *) (ticket + 1);
    if (session.len > 0)
        memcpy(text, session.ptr, session.len);
    if (id.len > 0)
        memcpy(text + session.len, id.ptr, id.len);
    ticket->session = str_of(text, session.len);
    ticket->id = str_of(text + session.len, id.len);
    atomic_init(&ticket->references, 1);
    return ticket;
}

static void unref(struct mcp_ticket *ticket)
{
    if (atomic_fetch_sub(&ticket->references, 1) == 1)
        free(ticket);
}

static size_t count_of_session(struct mcp_calls *calls, str session)
{
    size_t count = 0;
    LIST_EACH(node, &calls->in_work)
    count += str_equal(LIST_ITEM(node, struct mcp_ticket, link)->session, session);
    return count;
}

bool mcp_calls_enter(struct mcp_calls *calls, str session, str id, struct context *ctx,
                     struct mcp_ticket **out, struct error *e)
{
    struct mcp_ticket *ticket = ticket_create(session, id);
    ticket->calls = calls;
    ticket->loop = loop_current();
    ticket->ctx = ctx;
    pthread_mutex_lock(&calls->lock);
    bool fits = count_of_session(calls, session) < MCP_SERVER_CALLS_PER_SESSION;
    if (fits)
        list_push_back(&calls->in_work, &ticket->link);
    pthread_mutex_unlock(&calls->lock);
    if (fits) {
        *out = ticket;
        return true;
    }
    free(ticket);
    error_set(e, REASON_RATE_LIMIT, "the MCP session has %u calls in work, which is its limit",
              MCP_SERVER_CALLS_PER_SESSION);
    e->retry_after_ms = CALL_RETRY_MS;
    return false;
}

void mcp_calls_set_run(struct mcp_ticket *ticket, uuid run_id)
{
    pthread_mutex_lock(&ticket->calls->lock);
    ticket->run_id = run_id;
    pthread_mutex_unlock(&ticket->calls->lock);
}

void mcp_calls_leave(struct mcp_ticket *ticket)
{
    if (!ticket)
        return;
    pthread_mutex_lock(&ticket->calls->lock);
    list_remove(&ticket->link);
    pthread_mutex_unlock(&ticket->calls->lock);
    ticket->ctx = NULL; /* on its own loop, as whoever cancels it */
    unref(ticket);
}

/* On the request's loop. */
static void cancel_here(void *argument)
{
    struct mcp_ticket *ticket = argument;
    if (ticket->ctx) {
        ticket->is_cancelled = true;
        context_cancel(ticket->ctx);
    }
    unref(ticket);
}

static size_t cancel_all(struct mcp_calls *calls, str session, const str *id)
{
    enum { AT_ONCE = 64 };
    struct mcp_ticket *found[AT_ONCE];
    size_t count = 0;
    pthread_mutex_lock(&calls->lock);
    LIST_EACH(node, &calls->in_work)
    {
        struct mcp_ticket *ticket = LIST_ITEM(node, struct mcp_ticket, link);
        if (count == AT_ONCE || !str_equal(ticket->session, session) ||
            (id && !str_equal(ticket->id, *id)))
            continue;
        atomic_fetch_add(&ticket->references, 1);
        found[count++] = ticket;
    }
    pthread_mutex_unlock(&calls->lock);
    for (size_t i = 0; i < count; i++) {
        if (found[i]->loop)
            loop_post(found[i]->loop, cancel_here, found[i]);
        else
            cancel_here(found[i]);
    }
    return count;
}

bool mcp_calls_cancel(struct mcp_calls *calls, str session, str id)
{
    return cancel_all(calls, session, &id) > 0;
}

size_t mcp_calls_cancel_session(struct mcp_calls *calls, str session)
{
    return cancel_all(calls, session, NULL);
}

bool mcp_calls_take_over(struct mcp_calls *calls, str session, uuid run_id)
{
    bool is_there = false;
    pthread_mutex_lock(&calls->lock);
    LIST_EACH(node, &calls->in_work)
    {
        struct mcp_ticket *ticket = LIST_ITEM(node, struct mcp_ticket, link);
        if (!str_equal(ticket->session, session) || !uuid_equal(ticket->run_id, run_id))
            continue;
        atomic_store(&ticket->is_taken_over, true);
        is_there = true;
    }
    pthread_mutex_unlock(&calls->lock);
    return is_there;
}
