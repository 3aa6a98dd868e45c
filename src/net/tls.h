/*
 * TLS, client side, over a non-blocking socket: the one door to libssl.
 *
 * - TLS 1.2 and 1.3, the peer's chain verified against the system's authorities or one file, and
 *   its name (or address) against the host asked for; SNI for names.  There is no switch to turn
 *   verification off.
 * - Sessions are kept per host and port (bounded) and offered again, so a new connection costs no
 *   full handshake.
 * - Idle connections hold no record buffers (SSL_MODE_RELEASE_BUFFERS).
 * - ALPN offers http/1.1 only.
 * Thread: a context and its connections belong to one loop; creating one reads files, so do that on
 * the blocking pool. Suspends: never; a call that would block says what to wait for.
 */
#ifndef NEXUS_NET_TLS_H
#define NEXUS_NET_TLS_H

#include "base/error.h"

struct tls_context;
struct tls;

/* ca_file empty: the system's.  Blocks on files. */
must_check bool tls_context_create(str ca_file, struct tls_context **out, struct error *e);
void tls_context_destroy(struct tls_context *context); /* NULL is fine; no connection may be open */

enum tls_result { TLS_DONE, TLS_WANT_READ, TLS_WANT_WRITE, TLS_ENDED, TLS_FAILED };

/* Borrows fd.  host: what the certificate must name. */
must_check bool tls_open(struct tls_context *context, int fd, str host, uint16_t port,
                         struct tls **out, struct error *e);
void tls_close(struct tls *tls); /* NULL is fine; says goodbye when the connection is still good */
enum tls_result tls_handshake(struct tls *tls, struct error *e);
/* TLS_ENDED: the peer said goodbye.  A connection cut without one is TLS_FAILED. */
enum tls_result tls_read(struct tls *tls, void *bytes, size_t room, size_t *count, struct error *e);
/* May take a part.  After WANT_* the same bytes must be offered again (their place may differ). */
enum tls_result tls_write(struct tls *tls, const void *bytes, size_t len, size_t *count,
                          struct error *e);
bool tls_was_resumed(const struct tls *tls);

#endif
