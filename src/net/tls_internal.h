/*
 * What both sides of TLS share: one connection over a borrowed non-blocking socket, and how libssl's
 * errors are told.
 */
#ifndef NEXUS_NET_TLS_INTERNAL_H
#define NEXUS_NET_TLS_INTERNAL_H

#include "net/tls.h"

#include <openssl/ssl.h>

struct tls {
    SSL *ssl;
    struct tls_context *context; /* NULL: we are the server */
    int fd;
    bool is_broken;
    char *origin; /* "host:port"; NULL: we are the server */
};

/* A BIO that never raises SIGPIPE; one per process side and context. */
BIO_METHOD *tls_socket_method_create(void);
/* A connection of this context over fd; the caller says which side it is. */
struct tls *tls_create(SSL_CTX *ssl, BIO_METHOD *method, int fd);
/* The oldest entry of libssl's queue as text; the queue is emptied. */
const char *tls_problem(char *text, size_t room);

#endif
