/*
 * Names to addresses, on the blocking pool, with a small cache: the system's way (getaddrinfo), or servers that the configuration names
 * (c-ares: they and nothing else are asked, neither /etc/hosts nor search domains).
 *
 * - IP literals need no look-up.  A host that ends in a number but is no plain dotted quad
 *   ("0x7f.1", "127.1", "017.0.0.1") is refused: the C library would read an address out of it.
 * - Answers live DNS_CACHE_MS, those of configured servers as long as their TTL says, within DNS_TTL_MS_MIN and _MAX; failures live
 *   DNS_CACHE_FAILURE_MS.  Look-ups of one name at the same time share one call.
 * - Addresses alternate between families, each in the order the system prefers (RFC 6724, RFC
 *   8305).
 * Thread: the cache belongs to one loop.
 */
#ifndef NEXUS_NET_DNS_H
#define NEXUS_NET_DNS_H

#include "base/limits.h"
#include "runtime/loop.h"

#include <netinet/in.h>

union dns_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};
struct dns_answer {
    size_t count;
    union dns_address addresses[DNS_ADDRESSES_MAX]; /* with the port asked for */
};

struct dns_cache;
/* `servers`: "127.0.0.1:5353,[::1]:53", checked by dns_servers_check; empty: the system's way. */
struct dns_cache *dns_cache_create(str servers);
void dns_cache_destroy(struct dns_cache *cache); /* no look-up may be under way; NULL is fine */

/* UNAVAILABLE when the name does not resolve; INVALID for what is neither a name nor an address. */
may_suspend bool dns_resolve(struct dns_cache *cache, struct context *ctx, str host, uint16_t port,
                             struct dns_answer *out, struct error *e);

/* Addresses with or without a port, as one list for dns_cache_create.  REASON_CONFIG names the wrong one. */
must_check bool dns_servers_check(const str *servers, size_t count, struct arena *arena, str *list,
                                  struct error *e);

bool dns_parse_literal(str host, uint16_t port,
                       union dns_address *out); /* "1.2.3.4" or "::1", nothing looser */
bool dns_host_is_odd_number(str host);          /* ends in a number, but is no dotted quad */
socklen_t dns_address_len(const union dns_address *address);
/* Text without port, for messages; at least INET6_ADDRSTRLEN bytes. */
const char *dns_address_text(const struct sockaddr *address, char *out, size_t room);

#endif
