/*
 * Egress: the one door for calls made on behalf of callers (tools, webhooks, images, remote
 * documents).
 *
 *      URL --parsed--> host in the list? --DNS--> address allowed? --dialled: that very one--> answer
 *       ^------------------------------- redirect, without credentials --------------------------'
 *
 * - No allow-list allows nothing.  "*.safe-domain.com" matches names below it, not itself; "*" is
 *   any name.
 * - An address is refused when it matches blocked_ips; else it is allowed when it matches
 *   allowed_ips; else it is refused when it is private, loopback, link-local, metadata, CGNAT,
 *   multicast, unspecified, reserved, or an IPv6 form that carries an IPv4 address (mapped, NAT64,
 *   6to4, Teredo).  So an explicit block beats an explicit exception.
 * - The check is on the address that is connected to (http_client's check_address), pooled
 *   connections included, so a name that resolves differently the second time gains nothing.
 * - Redirects: at most EGRESS_REDIRECTS_MAX, each hop checked like the first; never from https to
 *   http; only harmless header fields (Accept, Accept-Language, User-Agent, Content-Type with the
 *   body) go on.
 * Thread: rules are immutable once made and may be shared; egress_send runs on its client's loop.
 */
#ifndef NEXUS_NET_EGRESS_H
#define NEXUS_NET_EGRESS_H

#include "net/http_client.h"

struct egress_rules;

struct egress_options {
    const str *allowed_hosts; /* "api.example.com", "*.safe-domain.com", "*", "192.0.2.7" */
    size_t allowed_host_count;
    const str *blocked_ips; /* "127.0.0.1", "192.168.*", "10.*", "10.0.0.0/8", "fd00::/8", "*" */
    size_t blocked_ip_count;
    const str *allowed_ips; /* the operator's exceptions to the built-in refusals; the same forms */
    size_t allowed_ip_count;
};
/* REASON_CONFIG names the pattern that is malformed; REASON_LIMIT past EGRESS_PATTERNS_MAX. */
must_check bool egress_rules_create(const struct egress_options *options, struct egress_rules **out,
                                    struct error *e);
void egress_rules_destroy(struct egress_rules *rules); /* NULL is fine */
OWNED_DEFINE(egress_rules)

/* Before DNS.  EGRESS_BLOCKED. */
must_check bool egress_check_host(const struct egress_rules *rules, str host, struct error *e);
/* After DNS.  EGRESS_BLOCKED. */
must_check bool egress_check_address(const struct egress_rules *rules,
                                     const struct sockaddr *address, struct error *e);

/* Fields that whoever is governed (a model, a tool) may not set: they route, frame or authenticate.
   */
bool egress_header_is_reserved(str name);

struct egress_request {
    enum http_method method;
    str url;
    const struct http_headers *headers;
    str body;
    int64_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms; /* 0: limits.h */
    bool no_redirects; /* a redirect is then an answer like any other */
};
/* As http_client_send; *final_url (may be NULL) is where the answer came from, on ctx's arena.
   Errors: those, and INVALID for a malformed URL, EGRESS_BLOCKED for a hop that is not allowed,
   LIMIT past the redirects. */
may_suspend bool egress_send(const struct egress_rules *rules, struct http_client *client,
                             struct context *ctx, const struct egress_request *request,
                             struct http_exchange **out, str *final_url, struct error *e);

#endif
