/*
 * The gateway's inside: what the files of this folder share.
 *
 * struct api_call is one request on its way through the pipeline; it lives on the request's arena.  A handler either replies and returns
 * true, or returns false with an error and nothing sent: the pipeline turns the error into the dialect's own body.
 */
#ifndef NEXUS_GATEWAY_GATEWAY_INTERNAL_H
#define NEXUS_GATEWAY_GATEWAY_INTERNAL_H

#include "gateway/call/call_watch.h"
#include "gateway/gateway.h"
#include "gateway/keys/rate.h"
#include "gateway/queries.h"
#include "gateway/routes.h"

struct route_metrics {
    struct metric_series *duration;
    _Atomic(struct metric_series *) requests[500]; /* by status - 100; made when first needed */
};

struct gateway {
    struct gateway_options options;
    struct orchestrator *orchestrator;
    struct keys *keys;
    struct metrics *metrics;
    struct store *store;
    struct clock *clock;
    struct random *random;
    struct policy *policy;
    struct rate *rate;
    struct streams *streams;
    struct response_cache *cache; /* NULL: none */
    struct embed_batch *embed_batch;
    struct memory *memory; /* NULL: none */
    struct call_watches *watches;
    struct mcp_server *mcp;
    struct arena *arena; /* of what lives as long as the gateway */
    str openapi;         /* the document, made once */
    str openapi_etag;
    struct schema_set *schemas;
    bool is_any_address;                 /* listening on a wildcard */
    struct route_metrics *route_metrics; /* one per route, and one for requests that fit none */
    struct metric_series *streams_open;
    _Atomic bool is_draining;
    _Atomic uint32_t responses_kept; /* stored answers: expired ones are looked for now and then */
};

struct api_call {
    struct gateway *gateway;
    struct http_request *request;
    struct context *ctx;
    const struct api_route *route; /* NULL: none fits */
    str params[ROUTE_PARAMS_MAX];
    struct principal principal;
    digest key_digest; /* of the key as presented: to authorise a stream anew */
    str request_id;
    struct http_headers headers; /* of the reply, before it begins */
    bool is_stream_counted;
    bool is_handed_on;  /* the reply goes on after the handler: who does that calls access_end */
    bool is_idempotent; /* under an Idempotency-Key that is ours to answer */
    str idempotency_key, idempotency_digest;
    str body;                /* JSON routes: the whole body */
    const struct json *json; /* parsed, an object; NULL when there is none */
};

/* ---- gateway.c: what is told of a request when it is over ---- */

/* A plain value, so that it outlives the call; strings as long as whoever holds it says. */
struct access {
    struct gateway *gateway;
    const struct api_route *route; /* NULL: none fits */
    enum http_method method;
    int status;
    int64_t started_ns;
    str path, user_id, request_id, peer;
    trace_context trace;
    uuid key_id;
    bool is_stream_counted;
};
struct access access_begin(const struct api_call *call);
/* Metrics, the access log, the place among the key's streams. */
void access_end(const struct access *access);

/* ---- middleware.c: what happens before a handler ---- */
must_check bool middleware_identify(struct api_call *call,
                                    struct error *e); /* request id and trace */
must_check bool middleware_check_origin(struct api_call *call,
                                        struct error *e); /* Host and Origin */
may_suspend bool middleware_authenticate(struct api_call *call,
                                         struct error *e); /* who, and may they */
must_check bool middleware_limit(struct api_call *call,
                                 struct error *e); /* requests of user, key and tenant */
/* The same once a public route knows whose request it is. */
must_check bool middleware_limit_as(struct api_call *call, const struct principal *principal,
                                    struct error *e);
/* Tokens of user, key and tenant, by an estimate; corrected (used - estimate) when the call has ended.  The latter takes no
   call, for a stream may outlive it. */
must_check bool middleware_take_tokens(struct api_call *call, int64_t tokens, struct error *e);
void middleware_correct_tokens(struct gateway *gateway, const struct principal *principal,
                               int64_t difference);
may_suspend bool middleware_read_body(struct api_call *call, struct error *e);
/* The same person with the same rights as when the stream began?  For streams that stay open. */
may_suspend bool middleware_reauthorise(struct api_call *call, struct error *e);
must_check bool middleware_take_stream(
    struct api_call *call, struct error *e); /* streams per key; given back when the call ends */

/* ---- reply.c ---- */
void reply_header(struct api_call *call, str name, str value);
void reply_call_id(struct api_call *call, uuid id); /* Nexus-Call-Id: of the usage record */
/* Sends the common header fields with it (request id, trace, rate). */
void reply_send(struct api_call *call, int status, str content_type, str body);
void reply_json(struct api_call *call, int status, str body);
void reply_empty(struct api_call *call, int status);
void reply_error(struct api_call *call, const struct error *e);
must_check bool reply_stream_begin(struct api_call *call, str content_type, struct error *e);
/* A JSON document on the call's arena. */
struct reply_writer {
    struct strbuf text;
    struct json_writer w;
};
struct json_writer *reply_writer_init(struct reply_writer *writer, struct api_call *call);
bool reply_writer_send(struct reply_writer *writer, struct api_call *call, int status,
                       struct error *e);
/* The member "usage" of a tool: what its calls cost, for operators (handlers_monitor.c). */
void tool_usage_write(struct api_call *call, const struct tool *tool, struct json_writer *w);
void put_id(struct json_writer *w, str name, uuid id);      /* null when it is none */
void put_time(struct json_writer *w, str name, int64_t us); /* null for 0 */
/* A text shown whole with control and bidirectional characters escaped as \u{...}. */
str text_made_visible(struct arena *arena, str text);

/* ---- idempotency.c ---- */
/* True with *is_answered when a stored answer was sent.  Else, when a key was given, the call is remembered. */
may_suspend bool idempotency_begin(struct api_call *call, bool *is_answered, struct error *e);
/* Before the answer of a remembered call goes out: it is stored first, so that a repeat finds it. */
may_suspend_void void idempotency_finish(struct api_call *call, int status, str body);
may_suspend_void void idempotency_forget(struct api_call *call);

/* ---- helpers of handlers ---- */
must_check bool param_uuid(struct api_call *call, size_t index, const char *what, uuid *out,
                           struct error *e);
must_check bool param_text(struct api_call *call, size_t index, str *out,
                           struct error *e); /* percent-decoded */
/* Empty when it is not given; of a closed set (queries.def) it is one of that. */
str query_text(struct api_call *call, str name);
must_check bool query_page(struct api_call *call, str *cursor, size_t *limit, struct error *e);
must_check bool query_i64(struct api_call *call, str name, int64_t min, int64_t max, int64_t *out,
                          struct error *e);
typedef bool write_item(struct api_call *call, struct json_writer *w, const struct record *row,
                        struct error *e);
/* {"items": [...], "next_cursor": ...} */
must_check bool reply_page(struct api_call *call, const struct records *rows, write_item *write,
                           struct error *e);

/* ---- events.c: a run's journal as it grows ---- */
may_suspend bool events_stream(struct api_call *call, uuid run_id, int64_t after, struct error *e);
may_suspend bool events_list(struct api_call *call, uuid run_id, int64_t after, int64_t limit,
                             struct error *e);
/* Of run.waiting: nobody has to do anything, and the run goes on soon (a sleep, another attempt). */
bool event_waits_for_clock(const struct json *data, int64_t now_us);
/* Of run.waiting without approvals and calls of the client: "Run ID waits until ...". */
str event_waiting_text(struct arena *arena, uuid run_id, const struct json *data);

/* ---- openapi.c, page.c ---- */
str openapi_document(struct arena *arena);
/* The schemas as trees. */
struct schema_set *schema_set_create(struct arena *arena);
/* Has the body of a native route only members that its request schema has?  So what is documented is what is read. */
must_check bool schema_set_check(const struct schema_set *set, struct arena *arena,
                                 const struct api_route *route, const struct json *body,
                                 struct error *e);
str page_html(const struct http_request *request);

#endif
