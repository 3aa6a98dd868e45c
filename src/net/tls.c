#include "net/tls_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/map.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

struct tls_context {
    SSL_CTX *ssl;
    BIO_METHOD *socket_method;
    struct map *sessions; /* "host:port" to SSL_SESSION */
};

/* ---- a BIO that never raises SIGPIPE ---- */

static int socket_write(BIO *bio, const char *bytes, int len)
{
    const struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t count = send(tls->fd, bytes, (size_t) len, MSG_NOSIGNAL);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_write(bio);
    return (int) count;
}

static int socket_read(BIO *bio, char *bytes, int room)
{
    const struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    ssize_t count = recv(tls->fd, bytes, (size_t) room, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        BIO_set_retry_read(bio);
    return (int) count;
}

static long socket_control(BIO *bio, int command, long number, void *pointer)
{
    (void) bio;
    (void) number;
    (void) pointer;
    return command == BIO_CTRL_FLUSH;
}

BIO_METHOD *tls_socket_method_create(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket");
    ensure(method != NULL);
    BIO_meth_set_write(method, socket_write);
    BIO_meth_set_read(method, socket_read);
    BIO_meth_set_ctrl(method, socket_control);
    return method;
}

/* ---- sessions ---- */

static void forget_sessions(struct tls_context *context)
{
    size_t position = 0;
    str key;
    void *session;
    while (map_next(context->sessions, &position, &key, &session))
        SSL_SESSION_free(session);
    map_destroy(context->sessions);
    context->sessions = NULL;
}

static int on_new_session(SSL *ssl, SSL_SESSION *session)
{
    struct tls *tls = SSL_get_app_data(ssl);
    struct tls_context *context = tls->context;
    if (map_count(context->sessions) >=
        TLS_SESSIONS_MAX) { /* rare: starting afresh costs a handshake per host */
        forget_sessions(context);
        context->sessions = map_create();
    }
    SSL_SESSION *old = map_put(context->sessions, str_from_cstr(tls->origin), session);
    if (old)
        SSL_SESSION_free(old);
    return 1; /* the reference is ours now */
}

/* ---- contexts ---- */

const char *tls_problem(char *text, size_t room)
{
    unsigned long code = ERR_get_error();
    if (code == 0)
        return "connection cut";
    ERR_error_string_n(code, text, room);
    ERR_clear_error();
    const char *colon = strrchr(text, ':'); /* the reason is the last part */
    return colon && colon[1] ? colon + 1 : text;
}

static bool load_authorities(struct tls_context *context, str ca_file, struct error *e)
{
    if (ca_file.len == 0) {
        if (SSL_CTX_set_default_verify_paths(context->ssl) != 1)
            return error_set(e, REASON_CONFIG,
                             "the system's certificate authorities cannot be loaded");
        return true;
    }
    OWNED(arena) arena = arena_create(0);
    char text[160];
    if (SSL_CTX_load_verify_locations(context->ssl, str_to_cstr(arena, ca_file), NULL) != 1)
        return error_set(e, REASON_CONFIG, "certificate authorities from " STR_FMT ": %s",
                         STR_ARG(ca_file), tls_problem(text, sizeof(text)));
    return true;
}

bool tls_context_create(str ca_file, struct tls_context **out, struct error *e)
{
    static const unsigned char alpn[] = "\x08http/1.1";
    struct tls_context *context = calloc(1, sizeof(*context));
    ensure(context != NULL);
    context->ssl = SSL_CTX_new(TLS_client_method());
    ensure(context->ssl != NULL);
    context->socket_method = tls_socket_method_create();
    context->sessions = map_create();
    SSL_CTX_set_min_proto_version(context->ssl, TLS1_2_VERSION);
    SSL_CTX_set_verify(context->ssl, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(context->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                       SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(context->ssl,
                                   SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context->ssl, on_new_session);
    SSL_CTX_set_alpn_protos(context->ssl, alpn, sizeof(alpn) - 1);
    if (!load_authorities(context, ca_file, e)) {
        tls_context_destroy(context);
        return false;
    }
    *out = context;
    return true;
}

void tls_context_destroy(struct tls_context *context)
{
    if (!context)
        return;
    forget_sessions(context);
    SSL_CTX_free(context->ssl);
    BIO_meth_free(context->socket_method);
    free(context);
}

/* ---- connections ---- */

static bool is_address(const char *host)
{
    struct in6_addr address;
    return inet_pton(AF_INET, host, &address) == 1 || inet_pton(AF_INET6, host, &address) == 1;
}

static bool expect_host(SSL *ssl, const char *host)
{
    X509_VERIFY_PARAM *parameters = SSL_get0_param(ssl);
    if (is_address(host))
        return X509_VERIFY_PARAM_set1_ip_asc(parameters, host) == 1;
    X509_VERIFY_PARAM_set_hostflags(parameters, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return X509_VERIFY_PARAM_set1_host(parameters, host, 0) == 1 &&
           SSL_ctrl(ssl, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name,
                    (void *) (uintptr_t) host) == 1;
}

struct tls *tls_create(SSL_CTX *ssl, BIO_METHOD *method, int fd)
{
    struct tls *tls = calloc(1, sizeof(*tls));
    ensure(tls != NULL);
    tls->fd = fd;
    tls->ssl = SSL_new(ssl);
    BIO *bio = BIO_new(method);
    ensure(tls->ssl != NULL && bio != NULL);
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_app_data(tls->ssl, tls);
    return tls;
}

bool tls_open(struct tls_context *context, int fd, str host, uint16_t port, struct tls **out,
              struct error *e)
{
    char name[256];
    if (host.len == 0 || host.len >= sizeof(name))
        return error_set(e, REASON_INVALID, "a host name of %zu bytes", host.len);
    memcpy(name, host.ptr, host.len);
    name[host.len] = 0;
    struct tls *tls = tls_create(context->ssl, context->socket_method, fd);
    tls->context = context;
    tls->origin = malloc(sizeof(name) + 8);
    ensure(tls->origin != NULL);
    snprintf(tls->origin, sizeof(name) + 8, "%s:%u", name, port);
    SSL_set_connect_state(tls->ssl);
    if (!expect_host(tls->ssl, name)) {
        tls->is_broken = true;
        tls_close(tls);
        return error_set(e, REASON_INVALID, "\"%s\" cannot be the name of a TLS server", name);
    }
    SSL_SESSION *session = map_find(context->sessions, str_from_cstr(tls->origin));
    if (session)
        SSL_set_session(tls->ssl, session);
    *out = tls;
    return true;
}

void tls_close(struct tls *tls)
{
    if (!tls)
        return;
    tls_say_goodbye(tls);
    SSL_free(tls->ssl);
    free(tls->origin);
    free(tls);
}

static enum tls_result explain(struct tls *tls, int result, const char *what, struct error *e)
{
    char text[160];
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ: return TLS_WANT_READ;
    case SSL_ERROR_WANT_WRITE: return TLS_WANT_WRITE;
    case SSL_ERROR_ZERO_RETURN: return TLS_ENDED;
    default: break;
    }
    tls->is_broken = true;
    const char *peer = tls->origin ? tls->origin : "a client";
    long verdict = SSL_get_verify_result(tls->ssl);
    if (verdict != X509_V_OK) {
        ERR_clear_error();
        error_set(e, REASON_UNAVAILABLE, "TLS with %s: certificate: %s", peer,
                  X509_verify_cert_error_string(verdict));
    } else {
        error_set(e, REASON_UNAVAILABLE, "TLS with %s: %s: %s", peer, what,
                  tls_problem(text, sizeof(text)));
    }
    return TLS_FAILED;
}

enum tls_result tls_handshake(struct tls *tls, struct error *e)
{
    ERR_clear_error();
    int result = SSL_do_handshake(tls->ssl);
    return result == 1 ? TLS_DONE : explain(tls, result, "handshake", e);
}

enum tls_result tls_read(struct tls *tls, void *bytes, size_t room, size_t *count, struct error *e)
{
    if (tls->is_broken) {
        error_set(e, REASON_UNAVAILABLE, "TLS: the connection failed earlier");
        return TLS_FAILED;
    }
    ERR_clear_error();
    int result = SSL_read_ex(tls->ssl, bytes, room, count);
    return result == 1 ? TLS_DONE : explain(tls, result, "read", e);
}

enum tls_result tls_write(struct tls *tls, const void *bytes, size_t len, size_t *count,
                          struct error *e)
{
    ERR_clear_error();
    int result = SSL_write_ex(tls->ssl, bytes, len, count);
    return result == 1 ? TLS_DONE : explain(tls, result, "write", e);
}

bool tls_has_pending(const struct tls *tls)
{
    return tls->is_broken || SSL_has_pending(tls->ssl) == 1 ||
           (SSL_get_shutdown(tls->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
}

void tls_say_goodbye(struct tls *tls)
{
    ERR_clear_error();
    if (!tls->is_broken && SSL_is_init_finished(tls->ssl))
        (void) SSL_shutdown(tls->ssl);
    ERR_clear_error();
}

void tls_spoil(struct tls *tls)
{
    tls->is_broken = true;
}

bool tls_was_resumed(const struct tls *tls)
{
    return SSL_session_reused(tls->ssl) == 1;
}
