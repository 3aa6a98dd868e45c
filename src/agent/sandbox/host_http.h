/*
 * Host call "http_request": one request through the egress door, under the calling tool's
 * permissions.network.
 *
 *   {"method"?, "url", "headers"?: {name: text}, "body"?: text, "body_base64"?: bool}
 *     -> {"status", "headers": {name: text}, "body": text, "truncated": bool, "body_base64"?: true, "url"}
 *
 * allowed_hosts, blocked_ips, allowed_ips decide on what is really connected to, each redirect
 * included (net/egress.h).  gzip and deflate are undone here.  A body over max_response_size, as it is after that, is cut and said to be; one that is no
 * UTF-8 comes as base64.  Methods other than GET and HEAD carry the call's effect key as
 * Idempotency-Key, so a repeat after a crash can be recognised. Tools of category "code" need
 * network_access as well.
 */
#ifndef NEXUS_AGENT_HOST_HTTP_H
#define NEXUS_AGENT_HOST_HTTP_H

#include "agent/executor.h"

struct http_client;
struct loop;

struct host_http {
    /* The client of the loop that this runs on; NULL when there is none. */
    struct http_client *(*client)(void *owner, struct loop *loop);
    void *owner;
};

/* `http` lives as long as the sandbox does. */
struct host_call host_http(struct host_http *http);

#endif
