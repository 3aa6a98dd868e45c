/*
 * Embedding batches: the texts of several callers in few upstream calls.
 *
 *      embed_batch_run --> pieces --> queue of the group --> batch (one upstream call) --> vectors to each caller
 *
 * A group is what may share a call: provider, key, model, dimensions, tenant (never two tenants).  A batch goes out at once when nothing of
 * its group is in flight, so a lone caller waits for nobody; else when it is full, when EMBED_BATCH_WAIT_MS have passed since its
 * oldest text came, or when a call of the group has come back.  An input too large for one call (EMBED_INPUTS_MAX texts,
 * EMBED_BATCH_TOKENS_MAX by the upper bound) goes out in several pieces.  Token arrays and requests
 * with members of a server's own (embed_request.extra) are passed on by themselves.
 *
 * - Order and values: a caller gets its own vectors in its own order, or an error; never a part.
 * - An upstream refusal of the input (PROVIDER_INVALID, TOO_LARGE) of a batch of several callers is halved until only who caused it
 *   has it.  Any other failure is everybody's: each caller's router decides what is next.
 * - A caller that leaves takes its texts along when they were not sent; a call that nobody waits for any more is cancelled.
 * - The provider's usage is shared out by each piece's token bound; the shares of a call add up to it exactly.
 * - The timeouts of a call are those of the first caller in it; on_head is told to every caller.  `user` goes
 *   along when all callers in the call name the same one.  Caller's own header fields do not travel.
 * Thread: any loop; each loop has queues of its own.  Suspends: run.
 */
#ifndef NEXUS_LLM_EMBED_BATCH_H
#define NEXUS_LLM_EMBED_BATCH_H

#include "llm/provider.h"
#include "observe/metrics.h"

struct embed_batch;
struct embed_batch *embed_batch_create(struct metrics *metrics); /* may be NULL */
void embed_batch_destroy(
    struct embed_batch *batch); /* no caller may be left, loops have ended; NULL is fine */
OWNED_DEFINE(embed_batch)

struct embed_call {
    struct provider *provider;
    const struct provider_call *how; /* NULL: the provider's own way */
    struct embed_request request;    /* borrowed for the call */
    uuid tenant_id;
    struct arena *arena; /* of the vectors; NULL: ctx's */
};
struct embed_outcome {
    struct embed_reply reply; /* its usage holds for what was done of a call that failed, too */
    bool was_sent;            /* some upstream call with a text of ours began */
    bool had_head;            /* and the provider said something to it */
};
/* UNSUPPORTED when the provider has no embeddings; OVERLOADED_HERE past EMBED_BATCH_QUEUE_MAX.  *out is set in either case. */
may_suspend bool embed_batch_run(struct embed_batch *batch, struct context *ctx,
                                 const struct embed_call *call, struct embed_outcome *out,
                                 struct error *e);

/* Callers that left may leave cancelled upstream calls behind, which end soon: until those of this loop have, or ctx's deadline.
   embed_batch_destroy must not find any. */
may_suspend_void void embed_batch_settle(struct embed_batch *batch, struct context *ctx);

#endif
