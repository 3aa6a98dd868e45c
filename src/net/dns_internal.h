/*
 * Asking configured DNS servers.  Blocking: for the blocking pool.
 */
#ifndef NEXUS_NET_DNS_INTERNAL_H
#define NEXUS_NET_DNS_INTERNAL_H

#include "net/dns.h"

/* A and AAAA of a name, CNAMEs followed; families alternate.  No answer leaves the count at 0.  *lifetime_ms: the shortest TTL, bounded.
 */
void dns_ask(const char *servers, const char *host, struct dns_answer *out, int64_t *lifetime_ms);

#endif
