/*
 * Provider: one model API behind one contract.
 *
 * A provider belongs to no loop: it is immutable after creation and reaches the calling loop's HTTP
 * client by
 * http_client_of_loop (given in its options), so one instance serves all loops.
 *
 * Errors keep their class: REASON_PROVIDER_RATE_LIMITED, _QUOTA, _AUTH, _INVALID, _OVERLOADED,
 * _TIMEOUT, _NETWORK, _PROTOCOL,
 * and retry_after_ms when the provider said so.  Messages quote at most 300 bytes of the provider's
 * own text, never keys.
 * Cancelling ctx closes the upstream connection at once.
 * Implementations: openai (any compatible server), anthropic, offline; all pass provider_contract.
 */
#ifndef NEXUS_LLM_PROVIDER_H
#define NEXUS_LLM_PROVIDER_H

#include "llm/prompt.h"
#include "runtime/context.h"

struct http_client;
struct http_exchange;
struct http_headers;
struct provider;
struct reply_stream;

/* What a provider can be sent as it is (provider_forward); a set of them is a mask of 1u << dialect. */
enum dialect_id {
    DIALECT_OPENAI_CHAT,
    DIALECT_OPENAI_RESPONSES,
    DIALECT_ANTHROPIC_MESSAGES,
    DIALECT_COUNT
};

enum { PROVIDER_KEY_ANY = -1 };
/* How one call goes out.  All of it is optional: zeroed but for `key`, or NULL, is the provider's own way. */
struct provider_call {
    int key; /* which of the provider's keys (0..key_count-1); PROVIDER_KEY_ANY: in turn */
    int64_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms; /* 0: the provider's own */
    const struct http_headers *headers; /* further fields that travel (anthropic-beta); or NULL */
    bool is_delete;                     /* forward: a DELETE without body in place of the POST */
    /* The answer's head is there, whatever its status: quota and retry fields are read here. */
    void (*on_head)(void *owner, int status, const struct http_headers *headers);
    void *owner;
};

struct embed_request {
    str model;
    const str *texts;
    size_t text_count;
    int64_t dimensions; /* 0: the model's own */
    str user;           /* or empty */
    bool are_tokens;    /* each text is a JSON array of token numbers, sent as it is */
    const struct json
        *extra; /* the caller's own request: members unknown here go on as they are; or NULL */
};
struct embed_reply {
    const float **vectors; /* one for each text, in its order; on ctx's arena */
    size_t dimension;
    str model;
    struct usage usage;
};

struct reply_stream_ops {
    may_suspend bool (*next)(struct reply_stream *stream, struct context *ctx, struct delta *out,
                             struct error *e);
    void (*close)(struct reply_stream *stream);
};
struct reply_stream {
    const struct reply_stream_ops *ops;
};
/* The next piece; strs live until the following call.  DELTA_END comes exactly once, last; a stream
 * cut short is an error
   (PROVIDER_NETWORK), never an END. */
may_suspend bool reply_stream_next(struct reply_stream *stream, struct context *ctx,
                                   struct delta *out, struct error *e);
void reply_stream_close(
    struct reply_stream *stream); /* before END: cancels upstream; NULL is fine */
static inline void reply_stream_destroy(struct reply_stream *stream)
{
    reply_stream_close(stream);
}
OWNED_DEFINE(reply_stream)

struct provider_ops {
    const char *name;
    bool is_stand_in; /* not a real model: every answer says so */
    may_suspend bool (*complete)(struct provider *, struct context *, const struct provider_call *,
                                 const struct prompt *, struct reply *, struct error *);
    may_suspend bool (*stream)(struct provider *, struct context *, const struct provider_call *,
                               const struct prompt *, struct reply_stream **, struct error *);
    /* Sends a body of a dialect the provider speaks as it is (path below the base URL, e.g. "/chat/completions") and gives the
       raw exchange, whatever its status.  For pass-through of equal dialects. */
    may_suspend bool (*forward)(struct provider *, struct context *, const struct provider_call *,
                                str path, str body, struct http_exchange **, struct error *);
    /* NULL: it has no embeddings. */
    may_suspend bool (*embed)(struct provider *, struct context *, const struct provider_call *,
                              const struct embed_request *, struct embed_reply *, struct error *);
    /* Names of its models, on ctx's arena. */
    may_suspend bool (*models)(struct provider *, struct context *, str **names, size_t *count,
                               struct error *);
    void (*destroy)(struct provider *);
};
/* How many calls it may have at once; the router (llm/router.h) keeps to it.  0: no bound. */
struct provider_places {
    int32_t calls, run_calls; /* of everybody; of runs alone */
    int32_t calls_per_key;    /* of its pool of keys: that many times its keys */
    int32_t queue_max;        /* calls that wait for one */
    int64_t wait_ms;          /* at most */
};
struct provider {
    const struct provider_ops *ops;
    str name;                      /* of the configuration: "local" */
    size_t key_count;              /* 0: none needed */
    unsigned speaks;               /* mask of 1u << dialect_id: what forward takes */
    struct provider_places places; /* set before it is used */
};
static inline bool provider_speaks(const struct provider *provider, enum dialect_id dialect)
{
    return (provider->speaks >> dialect & 1u) != 0;
}

may_suspend bool provider_complete(struct provider *provider, struct context *ctx,
                                   const struct provider_call *how, const struct prompt *prompt,
                                   struct reply *reply, struct error *e);
may_suspend bool provider_stream(struct provider *provider, struct context *ctx,
                                 const struct provider_call *how, const struct prompt *prompt,
                                 struct reply_stream **out, struct error *e);
may_suspend bool provider_forward(struct provider *provider, struct context *ctx,
                                  const struct provider_call *how, str path, str body,
                                  struct http_exchange **out, struct error *e);
/* UNSUPPORTED when the provider has no embeddings. */
may_suspend bool provider_embed(struct provider *provider, struct context *ctx,
                                const struct provider_call *how,
                                const struct embed_request *request, struct embed_reply *reply,
                                struct error *e);
may_suspend bool provider_models(struct provider *provider, struct context *ctx, str **names,
                                 size_t *count, struct error *e);
void provider_destroy(struct provider *provider);
OWNED_DEFINE(provider)

struct provider_options {
    str name;
    str base_url;  /* "http://127.0.0.1:9100/v1" */
    str *api_keys; /* may be none (local servers) */
    size_t api_key_count;
    /* The HTTP client of the loop that calls; set by main. */
    struct http_client *(*client_of_loop)(void *owner);
    void *client_owner;
    int64_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms; /* 0: limits.h */
    bool speaks_responses;         /* openai: the server has the Responses API as well */
    struct provider_places places; /* for whoever makes it to pass on */
};
must_check bool provider_openai_create(const struct provider_options *options,
                                       struct provider **out, struct error *e);
/* base_url with or without "/v1" at its end. */
must_check bool provider_anthropic_create(const struct provider_options *options,
                                          struct provider **out, struct error *e);
must_check bool provider_offline_create(str name, struct provider **out, struct error *e);

#endif
