/*
 * Model calls of the compatible routes: what the files call_*.c share.  One pipeline serves every dialect, models and agents.
 *
 *   call.c          routes; reads the request, tells models from agents
 *   call_plain.c    one governed call of a model: cache, attempts in turn or side by side, settlement, whole answers
 *   call_attempt.c  one attempt, up to its first content: nothing has reached the client yet, so another one can step in
 *   call_stream.c   the rest of a stream that was passed through: on callbacks, without a coroutine
 *   call_relay.c    what is done to the bytes of such a stream; pure
 *   call_local.c    the rest of a stream from deltas (the provider speaks another dialect, or none)
 *   call_agent.c    agent:NAME: a run, its deltas, its answer
 *   call_count.c    count_tokens
 *   call_models.c   the models lists
 */
#ifndef NEXUS_GATEWAY_CALL_INTERNAL_H
#define NEXUS_GATEWAY_CALL_INTERNAL_H

#include "gateway/call/call_relay.h"
#include "gateway/gateway_internal.h"
#include "gateway/responses/responses.h"
#include "llm/dialect.h"
#include "llm/response_cache.h"
#include "net/http_client.h"
#include "orchestrator/usage/plain_call.h"

/* A model call as it was asked for; on the call's arena. */
struct model_call {
    struct api_call *call;
    const struct dialect *dialect;
    struct arena *arena; /* of the tree: the call's, or a larger one */
    const struct json *json;
    struct dialect_request request;
    str body; /* goes up where dialects are equal; the call's, but for what the filter masked */
    bool is_masked;                   /* json and body are not the caller's any more */
    uuid session_id;                  /* X-Nexus-Session, or UUID_NONE */
    struct responses_call *responses; /* NULL: a dialect without a memory */
};

/* Each sends the whole answer, or begins it and hands it on; or returns false, and then nothing was sent unless http_reply_has_begun. */
may_suspend bool call_plain(struct model_call *m, struct error *e);
may_suspend bool call_agent(struct model_call *m, struct error *e);

/* What a caller says of the dialect's version: goes on to an upstream that speaks it. */
void call_travel(const struct api_call *call, struct http_headers *out);

/* ---- answers ---- */
struct dialect_answer call_answer(const struct model_call *m);
/* What dialect.to_prompt reads: with the history where there is one. */
const struct json *call_tree(const struct model_call *m);
may_suspend bool call_stream_begin(struct api_call *call, struct error *e);
/* After the reply began: the error as an event, then a cut that no client takes for an end.  Returns false. */
may_suspend bool call_stream_fail(struct model_call *m, const struct error *failure);
/* Stores an answer where the dialect has a memory; before its last bytes go out. */
may_suspend_void void call_keep(struct model_call *m, str answer);

/* ---- one governed call of a model ---- */
struct plain_work {
    struct model_call *m;
    struct plain_call plain;
    struct context ctx; /* the call's, with the total deadline */
    int64_t total_ms;
    struct http_headers travel; /* go on to an upstream of the same dialect */
    struct cache_fill *fill;    /* NULL: the answer is not kept */
    int64_t token_estimate;     /* taken from the rate, corrected at the end */
    bool is_ended;              /* booked, or handed on to who will */
};

enum attempt_stage { ATTEMPT_OPENING, ATTEMPT_READY, ATTEMPT_FAILED };

/* One attempt.  READY: `relay` and `exchange` (a stream passed through), `stream` and `first` (deltas), `body` (a whole answer passed
   through) or `reply` (a whole one). */
struct call_attempt {
    struct plain_work *work;
    struct plain_attempt plain;
    struct arena *arena; /* what it makes lives here */
    struct context ctx;  /* with the deadline of the first token */
    enum attempt_stage stage;
    struct error failure;
    bool is_forwarded;
    bool has_head; /* some answer came */
    void (*on_head)(void *owner, int status, const struct http_headers *headers); /* the router's */
    void *head_owner;
    struct condition *changed; /* of a race: told when it is READY or FAILED */
    struct call_relay relay;
    struct http_exchange *exchange;
    struct reply_stream *stream;
    struct reply_stream counted; /* below the filter: what it holds back or masks is paid for too */
    struct reply_stream *uncounted;
    struct glance_state seen; /* by `counted`, for an estimate when the provider tells no usage */
    struct delta first;
    struct reply reply;
    str body;
    struct usage usage;
    int64_t estimated_output; /* -1: nothing is known */
};

/* Runs it until it is READY or FAILED.  `parent`: its own or a hedge's context. */
may_suspend_void void attempt_open(struct call_attempt *a, struct context *parent);
/* Closes what is open.  Harmless twice. */
void attempt_close(struct call_attempt *a);
/* Books it.  Never suspends. */
void attempt_settle(struct call_attempt *a, const struct error *failure);
/* The call is over by this attempt: books both, keeps or drops what was collected for the cache.  Never suspends. */
void work_end(struct plain_work *work, struct call_attempt *a, const struct error *failure);
/* Header fields that tell how the answer came about. */
void work_put_headers(struct plain_work *work, const struct call_attempt *a);
struct plain_result attempt_result(const struct call_attempt *a, const struct usage *usage,
                                   int64_t estimated_output, const struct error *failure);
/* What the HTTP client says of an upstream, as a failure of its provider.  Returns false. */
bool attempt_network_failure(str provider, struct error *e);

/* ---- READY attempts to their end.  True: everything is sent and booked, or will be. ---- */
may_suspend bool call_stream_relay(struct call_attempt *a, struct error *e);
may_suspend bool call_stream_deltas(struct call_attempt *a, struct error *e);

#endif
