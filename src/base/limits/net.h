/* Bounds of HTTP, TLS, DNS; by way of base/limits.h. */
#ifndef NEXUS_BASE_LIMITS_NET_H
#define NEXUS_BASE_LIMITS_NET_H

/* net */
#define HTTP_HEAD_BYTES_MAX (32u << 10)
#define HTTP_HEADER_COUNT_MAX 100
#define HTTP_URI_BYTES_MAX (8u << 10)
#define HTTP_BODY_BYTES_MAX (16u << 20)
#define HTTP_CONNECTIONS_MAX 16384
#define HTTP_HEAD_TIMEOUT_MS 10000
#define HTTP_BODY_IDLE_TIMEOUT_MS 15000
#define HTTP_IDLE_TIMEOUT_MS 75000
#define HTTP_WRITE_IDLE_TIMEOUT_MS 30000
#define HTTP_READ_BUFFER_BYTES                                                                     \
    (64u << 10) /* one read; also what a request may send ahead of its handler */
#define HTTP_WRITE_BUFFER_BYTES                                                                    \
    (64u << 10) /* reply bytes that wait for a slow peer, per connection */
#define HTTP_REPLY_HEAD_BYTES_MAX (32u << 10)
#define HTTP_CHUNK_OVERHEAD_BYTES_MAX                                                              \
    (32u << 10) /* framing, extensions and trailers; 8 more for each byte of body */
#define HTTP_UNREAD_BODY_BYTES_MAX                                                                 \
    (64u << 10) /* of a body nobody read, drained to keep the connection */
#define HTTP_LINGER_BYTES_MAX                                                                      \
    (1u << 20) /* read and dropped after a refusal, so that the peer gets it */
#define HTTP_LINGER_MS 2000
#define HTTP_HALF_CLOSE_GRACE_MS 2000
#define HTTP_ACCEPTS_PER_TURN 64
#define HTTP_BUFFERS_SPARE_MAX 256 /* kept per loop: small ones */
#define HTTP_BUFFERS_LARGE_SPARE_MAX 32
#define HTTP_REQUESTS_SPARE_MAX 256 /* kept per loop */
#define HTTP_DRAIN_CUT_MS 5000      /* for handlers to notice that they were cut */
#define HTTP_INTERIM_ANSWERS_MAX 8
#define HTTP_EXCHANGES_SPARE_MAX 256      /* kept per client */
#define HTTP_RELAY_READ_BYTES (32u << 10) /* of an upstream's body, at once */
#define HTTP_RELAY_HIGH_BYTES (32u << 10) /* wait for a relay's client: its upstream is not read */
#define HTTP_RELAY_LOW_BYTES (8u << 10)   /* it is read again */
#define HTTP_RELAY_OUTPUT_BYTES_MAX                                                                \
    (1u << 20) /* wait for a relay's client whose owner writes more than it was given */
#define HTTP_RELAY_TAIL_MS                                                                         \
    20 /* for the end of a finished relay's upstream body, so that its connection is kept */
#define DNS_CACHE_ENTRIES_MAX 1024
#define DNS_CACHE_MS 30000
#define DNS_CACHE_FAILURE_MS 2000
#define DNS_ADDRESSES_MAX 8
#define DNS_SERVERS_MAX 8u    /* of the configuration's dns.servers */
#define DNS_TTL_MS_MIN 1000   /* an answer of a configured server lives at least, */
#define DNS_TTL_MS_MAX 300000 /* and at most so long, whatever its TTL */
#define DNS_TRY_MS 2000       /* for one server to answer */
#define DNS_TRIES 2
#define DNS_PACKET_BYTES_MAX 1232 /* over UDP; a longer answer is asked for over TCP */
#define DNS_LOOKUP_MS 10000       /* for all servers and tries */
#define TLS_SESSIONS_MAX 256
#define TLS_HANDSHAKE_TIMEOUT_MS 5000
#define TLS_HANDSHAKES_MAX 1024 /* going on at once, per loop; further clients are closed */
#define TLS_TICKET_SECONDS 7200 /* how long a client may resume its session */
#define EGRESS_REDIRECTS_MAX 5
#define EGRESS_PATTERNS_MAX 1024
#define SSE_EVENT_BYTES_MAX (1u << 20)
#define UPSTREAM_CONNECT_TIMEOUT_MS 5000
#define UPSTREAM_FIRST_BYTE_TIMEOUT_MS 120000
#define UPSTREAM_IDLE_TIMEOUT_MS 60000
#define UPSTREAM_POOL_IDLE_MAX 512
#define UPSTREAM_POOL_IDLE_MS 30000

#endif
