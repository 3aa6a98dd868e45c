/*
 * Webhooks: doors in and out for whoever has no API key.
 *
 * In: a signed request starts a workflow, or signals a run of one.  The signature is the authentication (webhook_signature.h).
 *
 *      POST --> row (or a decoy) --> two HMACs --> seen before? --> one commit: receipt + the run (or the signal)
 *
 *   The run belongs to who made the webhook, with the role they had and as long as the key is good that they had (policy/standing.h):
 *   policy, budget and rate limits are theirs.  What the request says is labelled as web and untrusted.  One delivery starts one run,
 *   however often it comes: the receipt is stored with what it started and kept for WEBHOOK_RECEIPTS_MS.  A webhook that is not there and
 *   a signature that does not fit give the same answer after the same work.
 *
 * Out: endpoints of a tenant are told of what happens to its runs, approvals and budgets.
 *
 *      event's own commit + a row per endpoint --sweep--> POST --2xx--> delivered
 *                                                 ^        |--410--> dead, and the endpoint pauses
 *                                                 '--later-+--else, attempts used up--> dead
 *
 *   The row is in the commit of the event that causes it, so a crash loses none; it may be sent twice (the id stays the same).  Rows hold
 *   ids and states, no content.  Per endpoint WEBHOOK_PENDING_MAX may wait; an event beyond that is dropped, counted, and said by a row
 *   `dropped`, one an hour.  Where several nodes share a store, one claims a delivery before it sends it.
 *
 * Secrets are sealed in their rows and shown once.  Changing one leaves the one before valid for a while, in both directions.
 * Thread: any coroutine; emitting: any thread.  A node without `webhooks` in its parts answers UNAVAILABLE and emits nothing.
 */
#ifndef NEXUS_ORCHESTRATOR_WEBHOOK_H
#define NEXUS_ORCHESTRATOR_WEBHOOK_H

#include "orchestrator/orchestrator.h"
#include "orchestrator/webhook/webhook_signature.h"

/* ---- what a node brings along ---- */

struct webhook_header {
    str name, value;
};
struct webhook_send {
    str url, body;
    const struct webhook_header *headers;
    size_t header_count;
};
struct webhook_answer {
    int status;
    int64_t retry_after_ms; /* 0: not said */
};
struct webhook_options {
    const struct secret *seal_key; /* SEAL_KEY_BYTES; borrowed */
    /* May this node send there at all?  Before an endpoint is kept; EGRESS_BLOCKED, SCHEMA. */
    bool (*check_url)(void *owner, str url, struct error *e);
    /* One request and the head of its answer, within ctx's deadline; no redirects. */
    may_suspend bool (*send)(void *owner, struct context *ctx, const struct webhook_send *request,
                             struct webhook_answer *out, struct error *e);
    void *owner;
    int64_t retry_ms[WEBHOOK_RETRIES_MAX]; /* from one attempt to the next */
    int retry_count;                       /* 0: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h */
    int64_t timeout_ms;                    /* of one attempt; 0: WEBHOOK_TIMEOUT_MS */
    int64_t keep_ms;                       /* what is over is kept that long; 0: WEBHOOK_KEEP_MS */
};

/* ---- in: for who keeps them ---- */

struct webhook_request {
    str name;
    str workflow;    /* "name" or "name@range": starts it; or empty: */
    str signal_name; /* signals the run that the body names ... */
    str run_pointer; /* ... at this JSON Pointer; empty: /run_id */
    str scheme;      /* standard, github, stripe; empty: standard */
    str secret;      /* empty: a new one is made */
};
/* CONFLICT when the name is taken.  *secret is shown this once. */
may_suspend bool webhook_create(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal,
                                const struct webhook_request *request, struct record *out,
                                str *secret, struct error *e);
/* Rows of TABLE_WEBHOOKS: one's own; an operator's: all. */
may_suspend bool webhook_get(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, str name, struct record *out,
                             struct error *e);
may_suspend bool webhook_list(struct orchestrator *o, struct context *ctx,
                              const struct principal *principal, str cursor, size_t limit,
                              struct records *out, struct error *e);
may_suspend bool webhook_remove(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, str name, struct error *e);
/* DENIED for a webhook of somebody with a higher role: who knows its secret acts with that role. */
struct webhook_rotation {
    str secret;         /* empty: a new one is made */
    int64_t overlap_ms; /* the one before is good that long; -1: WEBHOOK_OVERLAP_MS */
};
may_suspend bool webhook_rotate(struct orchestrator *o, struct context *ctx,
                                const struct principal *principal, str name,
                                const struct webhook_rotation *rotation, struct record *out,
                                str *secret, struct error *e);

/* ---- in: the requests ---- */

struct webhook_post {
    str tenant, name; /* as the path says them */
    str body;
    const struct webhook_header *headers; /* names in any case */
    size_t header_count;
    str ip_address, user_agent, request_id;
    /* Whose request it turned out to be: may they now?  (Rate limits.)  NULL: yes. */
    bool (*admit)(void *owner, const struct principal *principal, struct error *e);
    void *owner;
};
struct webhook_outcome {
    uuid run_id, session_id; /* session: of one that began now */
    uuid signal_id;          /* UUID_NONE: a run was started */
    bool is_repeat;          /* it came before: that run, that signal */
};
/* UNAUTHENTICATED says nothing of why. */
may_suspend bool webhook_receive(struct orchestrator *o, struct context *ctx,
                                 const struct webhook_post *post, struct webhook_outcome *out,
                                 struct error *e);
/* The same with a request that this node signs as the sender would: for trying a webhook. */
may_suspend bool webhook_try(struct orchestrator *o, struct context *ctx,
                             const struct principal *principal, str name, str body,
                             struct webhook_outcome *out, struct error *e);

/* ---- out: for who keeps them ---- */

enum webhook_event {
    WEBHOOK_RUN_COMPLETED,
    WEBHOOK_RUN_FAILED,
    WEBHOOK_RUN_CANCELLED,
    WEBHOOK_APPROVAL_REQUESTED,
    WEBHOOK_APPROVAL_REMINDED,
    WEBHOOK_BUDGET_ALERTED,
    WEBHOOK_TESTED, /* only by webhook_endpoint_test */
    WEBHOOK_EVENT_COUNT
};
const char *webhook_event_name(enum webhook_event event); /* "run.completed" */

struct webhook_endpoint_request {
    str name, url;
    const struct json *events;  /* array of names; "*": all; NULL: all */
    const struct json *include; /* array; "answer": of run.completed; NULL: nothing */
    str secret;                 /* as of scheme standard; empty: a new one is made */
};
may_suspend bool webhook_endpoint_create(struct orchestrator *o, struct context *ctx,
                                         const struct principal *principal,
                                         const struct webhook_endpoint_request *request,
                                         struct record *out, str *secret, struct error *e);
may_suspend bool webhook_endpoint_get(struct orchestrator *o, struct context *ctx,
                                      const struct principal *principal, str name,
                                      struct record *out, struct error *e);
may_suspend bool webhook_endpoint_list(struct orchestrator *o, struct context *ctx,
                                       const struct principal *principal, str cursor, size_t limit,
                                       struct records *out, struct error *e);
/* What waits for it ends as dead. */
may_suspend bool webhook_endpoint_remove(struct orchestrator *o, struct context *ctx,
                                         const struct principal *principal, str name,
                                         struct error *e);
/* Paused: nothing is sent; events go on to be kept, up to the bound. */
may_suspend bool webhook_endpoint_pause(struct orchestrator *o, struct context *ctx,
                                        const struct principal *principal, str name, bool is_paused,
                                        struct record *out, struct error *e);
may_suspend bool webhook_endpoint_rotate(struct orchestrator *o, struct context *ctx,
                                         const struct principal *principal, str name,
                                         const struct webhook_rotation *rotation,
                                         struct record *out, str *secret, struct error *e);
/* An event webhook.test, also where the endpoint did not ask for it. */
may_suspend bool webhook_endpoint_test(struct orchestrator *o, struct context *ctx,
                                       const struct principal *principal, str name,
                                       uuid *delivery_id, struct error *e);

/* ---- out: deliveries ---- */

struct webhook_delivery_filter {
    str endpoint, status; /* empty: any */
};
/* Newest first. */
may_suspend bool webhook_delivery_list(struct orchestrator *o, struct context *ctx,
                                       const struct principal *principal,
                                       const struct webhook_delivery_filter *filter, str cursor,
                                       size_t limit, struct records *out, struct error *e);
may_suspend bool webhook_delivery_get(struct orchestrator *o, struct context *ctx,
                                      const struct principal *principal, uuid id,
                                      struct record *out, struct error *e);
/* Again, from the first attempt on, whatever became of it; CONFLICT while it waits for an attempt that is under way. */
may_suspend bool webhook_delivery_retry(struct orchestrator *o, struct context *ctx,
                                        const struct principal *principal, uuid id,
                                        struct record *out, struct error *e);
/* All dead ones of an endpoint, the oldest first, at most WEBHOOK_REDELIVER_MAX a call; *is_more: there are others. */
may_suspend bool webhook_redeliver(struct orchestrator *o, struct context *ctx,
                                   const struct principal *principal, str endpoint, int64_t *count,
                                   bool *is_more, struct error *e);

/* ---- out: events ---- */

/* Is there an endpoint for it?  A look into memory; nothing at all on a node where nobody has one. */
bool webhook_wants(struct orchestrator *o, uuid tenant_id, enum webhook_event event);
struct webhook_emission {
    enum webhook_event event;
    uuid from; /* ids of deliveries follow from this one and `what` ... */
    str what;  /* ... so that the same event is the same delivery */
    int64_t at_us;
    str data; /* JSON object */
};
/* A row for each endpoint that wants it, for the batch of what happens. */
void webhook_emit(struct orchestrator *o, struct batch *batch, uuid tenant_id,
                  const struct webhook_emission *emission);

/* ---- by the clock ---- */

/* At a start, before runs go on: who has endpoints. */
may_suspend bool webhooks_load(struct orchestrator *o, struct context *ctx, struct error *e);
/* Sends what is due (on coroutines of its own), removes what is kept too long, notes refused requests in the audit log. */
may_suspend bool webhooks_sweep(struct orchestrator *o, struct context *ctx, struct error *e);
/* Ends what sweeps began; on a coroutine of the same scheduler.  Nothing is lost: it is sent later. */
may_suspend_void void webhooks_settle(struct orchestrator *o);

struct webhooks; /* of an orchestrator */
struct webhooks *webhooks_create(const struct orchestrator_parts *parts);
void webhooks_destroy(struct webhooks *webhooks); /* settled; NULL is fine */

#endif
