/*
 * Plain embed: the attempts of one governed embedding, in batches with the texts of other callers of the tenant.
 *
 *      plain_call_begin --> plain_embed_run --> plain_call_end
 *
 * Each attempt takes the router's next target and a reservation of its own, and is booked by what the provider said (plain_call.h).
 * A refusal before any work costs nothing; whatever else went wrong may have been worked on.
 * Thread: the caller's loop.  Suspends: run.
 */
#ifndef NEXUS_ORCHESTRATOR_PLAIN_EMBED_H
#define NEXUS_ORCHESTRATOR_PLAIN_EMBED_H

#include "llm/embed_batch.h"
#include "orchestrator/usage/plain_call.h"

struct plain_embed {
    struct plain_call *plain; /* begun */
    struct embed_batch *batch;
    struct arena *arena;          /* of the vectors */
    struct embed_request request; /* its model is put in for each attempt */
    bool is_tried_once;           /* what fails is not tried again */
    /* results */
    struct embed_outcome outcome;
    const struct provider *provider; /* of the last attempt */
};
may_suspend bool plain_embed_run(struct orchestrator *o, struct context *ctx,
                                 struct plain_embed *embed, struct error *e);
/* How long a call of this model may take. */
int64_t plain_embed_total_ms(const struct plain_call *plain);

#endif
