/*
 * Gateway: HTTP in.  Routes, authentication, limits, the native API, compatible dialects, event streams, static pages.
 *
 *      request --> route (one table) --> request id, trace --> auth --> role and scope --> limits --> handler --> reply --> log, metrics
 *
 * Routes, their methods, roles and scopes, and the OpenAPI document come from one table (routes.c).  Errors: problem+json on the
 * native API, the dialect's own body on compatible routes; every reply has X-Request-Id.
 */
#ifndef NEXUS_GATEWAY_GATEWAY_H
#define NEXUS_GATEWAY_GATEWAY_H

#include "gateway/keys/keys.h"
#include "gateway/mcp/mcp_server.h"
#include "net/http_server.h"
#include "orchestrator/orchestrator.h"

struct gateway;
struct mcp_client;
struct memory;
struct response_cache;
struct executor_monitor;
struct executor_guard;

struct gateway_options {
    struct orchestrator *orchestrator;
    struct keys *keys;
    struct metrics *metrics;
    struct response_cache *cache; /* borrowed; NULL: answers are not kept */
    struct clock *clock;
    struct random *random;
    str listen_address; /* as configured, without port; a wildcard lets any literal IP address pass as Host */
    str *allowed_hosts; /* Host values beside the listening address and localhost */
    size_t allowed_host_count;
    int64_t requests_per_minute;                                  /* per user; 0: 6000 */
    int64_t tokens_per_minute;                                    /* per user; 0: no limit */
    int64_t tenant_requests_per_minute, tenant_tokens_per_minute; /* 0: no limit */
    size_t streams_per_key;                                       /* 0: 256 */
    int64_t responses_expiry_ms; /* stored answers of /v1/responses; 0: RESPONSES_EXPIRY_MS */
    /* /readyz: false with the reason while something is missing */
    bool (*is_ready)(void *owner, struct error *e);
    void *ready_owner;
    struct tracer *tracer; /* NULL: no traces */
    int64_t keep_alive_ms; /* a silent stream gets a ping this often; 0: GATEWAY_KEEP_ALIVE_MS */
    int64_t
        reauthorise_ms; /* keys of open model streams are looked at again this often; 0: GATEWAY_REAUTHORISE_MS */
    const struct executor_monitor *monitor; /* borrowed; NULL: no figures of tools */
    struct executor_guard *guard;           /* borrowed; NULL: tools have no circuits */
    struct policy *policy;                  /* NULL: orchestrator_parts(orchestrator)->policy */
    str policy_dir;                         /* shown by GET /api/v1/policies/rules; may be empty */
    struct mcp_server_options mcp;
    struct memory *memory;         /* borrowed; NULL: this node has no memory */
    struct mcp_client *mcp_client; /* borrowed; NULL: this node uses no other servers' tools */
};
must_check bool gateway_create(const struct gateway_options *options, struct gateway **out,
                               struct error *e);
void gateway_destroy(struct gateway *gateway);
/* The http_handler of the server; owner is the gateway. */
void gateway_handle(void *gateway, struct http_request *request);
void gateway_set_draining(struct gateway *gateway);
/* When the server has drained, on each of its loops, before gateway_destroy: until what outlives its request there has ended, or ctx's
   deadline. */
may_suspend_void void gateway_settle(struct gateway *gateway, struct context *ctx);

#endif
