/*
 * The HTTP half of a provider: address, keys in turn, header fields, timeouts, errors by class, answers as JSON.
 *
 * What every adapter over HTTP shares; an adapter embeds one and adds its words.  The address is base_url + path; a query of
 * the base URL ("?api-version=...") stays behind the path.  A key is copied into the request's headers for the time of
 * sending and wiped behind it.
 *
 *      prompt --adapter's words--> provider_http_send_body --> exchange --> provider_http_read_json --adapter's words--> reply
 *                                                                     \--> provider_stream_create (llm/provider_stream.h)
 *
 * Immutable after init but for the turn of the keys, so one serves all loops.
 */
#ifndef NEXUS_LLM_PROVIDER_HTTP_H
#define NEXUS_LLM_PROVIDER_HTTP_H

#include "base/json.h"
#include "base/limits.h"
#include "llm/provider.h"
#include "net/http_client.h"

#include <stdatomic.h>

struct secret;

/* How an API wants its key, and how it tells failures. */
struct provider_http_words {
    str key_header; /* "Authorization" */
    str key_prefix; /* "Bearer ", or empty */
    /* An error answer -> class; returns false. */
    bool (*error_from_status)(int status, str body, int64_t retry_after_ms, struct arena *arena,
                              struct error *e);
};

struct provider_http {
    struct provider *provider;       /* the one that embeds this: its name and key_count */
    struct arena *arena;             /* of the strings here; the adapter may add its own */
    struct provider_options options; /* times and client; its strings are not kept */
    struct provider_http_words words;
    struct http_url
        url;   /* path_query: the base's path, without slash at its end and without query */
    str query; /* with its '?', or empty */
    struct secret *keys[PROVIDER_KEYS_MAX];
    atomic_size_t next_key;
};

/* Sets provider->name and provider->key_count too.  On failure nothing is left to deinit; the error names the provider.
 * `words` may be changed until the first call. */
must_check bool provider_http_init(struct provider_http *http, struct provider *provider,
                                   const struct provider_options *options,
                                   struct provider_http_words words, struct error *e);
void provider_http_deinit(struct provider_http *http);

struct provider_http_request {
    enum http_method method;
    str path, body, accept;
    /* The adapter's own fields: each gives way to one of the same name in provider_call.headers.  May be NULL. */
    const struct http_headers *headers;
};

/* `how` NULL: the provider's own way.  Whatever the status is, that is success.  The caller's fields never replace the key,
 * the content type or what the connection needs. */
may_suspend bool provider_http_send(struct provider_http *http, struct context *ctx,
                                    const struct provider_call *how, struct arena *scratch,
                                    const struct provider_http_request *request,
                                    struct http_exchange **out, struct error *e);

/* The whole answer as JSON on ctx's arena; any status but 200 is an error of its class. */
may_suspend bool provider_http_read_json(struct provider_http *http, struct context *ctx,
                                         struct http_exchange *exchange, const struct json **out,
                                         struct error *e);

/* Reads an error's body (as much as there is) and gives its class.  Returns false. */
may_suspend bool provider_http_fail_status(struct provider_http *http, struct context *ctx,
                                           struct http_exchange *exchange, struct error *e);

/* What the HTTP client says, as a failure of this provider: TIMEOUT, NETWORK, PROTOCOL.  Our own deadline, cancellation,
 * overload and egress rules stay what they are.  Returns false. */
bool provider_http_fail(const struct provider *provider, struct context *ctx, struct error *e);

/* "provider NAME: ..." in front.  Returns false. */
bool provider_http_fail_named(const struct provider *provider, struct error *e);

/* True for an answer that is one JSON document: an error in a 200, or a server that cannot stream. */
bool provider_http_is_json(const struct http_exchange *exchange);

/* {"data": [{"id": ...}]} -> names: the list of models of every API here. */
must_check bool provider_http_read_models(struct arena *arena, const struct json *body, str **names,
                                          size_t *count, struct error *e);

#endif
