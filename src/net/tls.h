/*
 * TLS over a non-blocking socket: the one door to libssl.
 *
 * Client side:
 * - TLS 1.2 and 1.3, the peer's chain verified against the system's authorities or one file, and
 *   its name (or address) against the host asked for; SNI for names.  There is no switch to turn
 *   verification off.
 * - Sessions are kept per host and port (bounded) and offered again, so a new connection costs no
 *   full handshake.
 * - Idle connections hold no record buffers (SSL_MODE_RELEASE_BUFFERS).
 * - ALPN offers http/1.1 only.
 * Server side:
 * - TLS 1.2 and 1.3, forward-secret AEAD suites only, no renegotiation, no compression.
 * - Sessions are resumed by tickets, which cost the server no memory; their keys end with the
 *   tls_server, so a reload forgets them.
 * - With client_ca_file a client must show a certificate that these authorities have signed.
 * - A client that offers ALPN must offer http/1.1.
 * Thread: a context and its connections belong to one loop; a tls_server is immutable and may be
 * shared.  Creating either reads files, so do that on the blocking pool or before the loops run.
 * Suspends: never; a call that would block says what to wait for.
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
/* Bytes or an end were received that tls_read has not given: no event will tell of them. */
bool tls_has_pending(const struct tls *tls);
void tls_say_goodbye(struct tls *tls); /* nothing more will be written; reading goes on */
void tls_spoil(struct tls *tls);       /* no goodbye any more: what was sent must look cut */
bool tls_was_resumed(const struct tls *tls);

/* ---- server side ---- */

struct tls_server_options {
    str cert_file;      /* PEM: the certificate, then what leads to its authority */
    str key_file;       /* PEM, without a passphrase */
    str client_ca_file; /* PEM; empty: clients show no certificate */
};
struct tls_server; /* counted */

/* Blocks on files.  REASON_CONFIG names the file and what to do about it. */
must_check bool tls_server_create(const struct tls_server_options *options, struct tls_server **out,
                                  struct error *e);
struct tls_server *tls_server_share(struct tls_server *server); /* one more to destroy */
void tls_server_destroy(struct tls_server *server);             /* NULL is fine */
/* Blocks on files.  May others than the owner and his group read it?  False when it is not there. */
bool tls_key_file_is_exposed(str key_file);

/* Borrows fd; the handshake follows.  The connection keeps what it needs of the server. */
struct tls *tls_accept(struct tls_server *server, int fd);

#endif
