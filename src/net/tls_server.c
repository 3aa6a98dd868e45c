#include "net/tls_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

#include <errno.h>
#include <openssl/err.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct tls_server {
    SSL_CTX *ssl;
    BIO_METHOD *socket_method;
    _Atomic size_t share_count;
};

/* libssl frees a connection's BIO method never: it must outlive all connections, so it is made
   once. */
static BIO_METHOD *shared_method(void)
{
    static _Atomic(BIO_METHOD *) shared;
    BIO_METHOD *method = atomic_load(&shared), *none = NULL;
    if (method)
        return method;
    method = tls_socket_method_create();
    if (atomic_compare_exchange_strong(&shared, &none, method))
        return method;
    BIO_meth_free(method);
    return none;
}

/* A key with a passphrase must not ask for it on the terminal. */
static int no_passphrase(char *buffer, int size, int is_writing, void *owner)
{
    (void) buffer;
    (void) size;
    (void) is_writing;
    (void) owner;
    return -1;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                           const unsigned char *offered, unsigned offered_len, void *owner)
{
    static const unsigned char ours[] = "\x08http/1.1";
    (void) ssl;
    (void) owner;
    unsigned char *chosen;
    if (SSL_select_next_proto(&chosen, out_len, ours, sizeof(ours) - 1, offered, offered_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static bool configure(SSL_CTX *ssl, struct error *e)
{
    static const unsigned char context_id[] = "nexus";
    static const char groups[] = "X25519:P-256:P-384";
    SSL_CTX_set_min_proto_version(ssl, TLS1_2_VERSION);
    SSL_CTX_set_options(ssl, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ssl, 1);                          /* a record in one recv */
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF); /* tickets only */
    SSL_CTX_set_num_tickets(ssl, 1);
    SSL_CTX_set_timeout(ssl, TLS_TICKET_SECONDS);
    SSL_CTX_set_default_passwd_cb(ssl, no_passphrase);
    SSL_CTX_set_alpn_select_cb(ssl, choose_protocol, NULL);
    bool is_fine =
        SSL_CTX_set_cipher_list(ssl, "ECDHE+AESGCM:ECDHE+CHACHA20") == 1 &&
        SSL_CTX_ctrl(ssl, SSL_CTRL_SET_GROUPS_LIST, 0, (void *) (uintptr_t) groups) == 1 &&
        SSL_CTX_set_session_id_context(ssl, context_id, sizeof(context_id) - 1) == 1;
    return is_fine || error_set(e, REASON_INTERNAL, "TLS: libssl refuses its settings");
}

/* ---- files ---- */

static bool check_file(str setting, const char *path, struct error *e)
{
    if (!*path)
        return error_set(e, REASON_CONFIG, STR_FMT " is missing: TLS needs a certificate and a key",
                         STR_ARG(setting));
    if (access(path, R_OK) == 0)
        return true;
    return error_set(e, REASON_CONFIG, STR_FMT " %s: %s; check the path and that Nexus may read it",
                     STR_ARG(setting), path, strerror(errno));
}

static bool load_certificate(SSL_CTX *ssl, const char *cert, const char *key, struct error *e)
{
    char text[160];
    if (!check_file(S("tls.cert_file"), cert, e) || !check_file(S("tls.key_file"), key, e))
        return false;
    if (SSL_CTX_use_certificate_chain_file(ssl, cert) != 1)
        return error_set(e, REASON_CONFIG,
                         "tls.cert_file %s: %s; it must hold a certificate in PEM, the server's "
                         "own first",
                         cert, tls_problem(text, sizeof(text)));
    if (SSL_CTX_use_PrivateKey_file(ssl, key, SSL_FILETYPE_PEM) != 1) {
        bool is_other = ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH ||
                        ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_TYPE_MISMATCH;
        const char *problem = tls_problem(text, sizeof(text));
        if (is_other)
            return error_set(e, REASON_CONFIG,
                             "tls.key_file %s does not belong to the certificate in %s: give the "
                             "key that the certificate was made for",
                             key, cert);
        return error_set(e, REASON_CONFIG,
                         "tls.key_file %s: %s; it must hold a private key in PEM without a "
                         "passphrase",
                         key, problem);
    }
    return true;
}

static bool load_client_authorities(SSL_CTX *ssl, const char *path, struct error *e)
{
    char text[160];
    if (!check_file(S("tls.client_ca_file"), path, e))
        return false;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (!names || SSL_CTX_load_verify_locations(ssl, path, NULL) != 1) {
        sk_X509_NAME_pop_free(names, X509_NAME_free);
        return error_set(e, REASON_CONFIG,
                         "tls.client_ca_file %s: %s; it must hold the authorities' certificates "
                         "in PEM",
                         path, tls_problem(text, sizeof(text)));
    }
    SSL_CTX_set_client_CA_list(ssl, names); /* given away */
    SSL_CTX_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    return true;
}

bool tls_key_file_is_exposed(str key_file)
{
    OWNED(arena) arena = arena_create(0);
    struct stat status;
    return stat(str_to_cstr(arena, key_file), &status) == 0 && (status.st_mode & S_IRWXO) != 0;
}

/* ---- life ---- */

bool tls_server_create(const struct tls_server_options *options, struct tls_server **out,
                       struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct tls_server *server = calloc(1, sizeof(*server));
    ensure(server != NULL);
    server->ssl = SSL_CTX_new(TLS_server_method());
    ensure(server->ssl != NULL);
    server->socket_method = shared_method();
    atomic_init(&server->share_count, 1);
    ERR_clear_error();
    bool is_fine =
        configure(server->ssl, e) &&
        load_certificate(server->ssl, str_to_cstr(arena, options->cert_file),
                         str_to_cstr(arena, options->key_file), e) &&
        (options->client_ca_file.len == 0 ||
         load_client_authorities(server->ssl, str_to_cstr(arena, options->client_ca_file), e));
    if (!is_fine) {
        tls_server_destroy(server);
        return false;
    }
    *out = server;
    return true;
}

struct tls_server *tls_server_share(struct tls_server *server)
{
    atomic_fetch_add_explicit(&server->share_count, 1, memory_order_relaxed);
    return server;
}

void tls_server_destroy(struct tls_server *server)
{
    if (!server || atomic_fetch_sub_explicit(&server->share_count, 1, memory_order_acq_rel) > 1)
        return;
    SSL_CTX_free(server->ssl); /* lives on while connections use it */
    free(server);
}

struct tls *tls_accept(struct tls_server *server, int fd)
{
    struct tls *tls = tls_create(server->ssl, server->socket_method, fd);
    SSL_set_accept_state(tls->ssl);
    return tls;
}
