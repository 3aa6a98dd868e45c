/*
 * OAuth for MCP clients: the documents and answers of authorization servers, and what is made for them.
 *
 *      401 WWW-Authenticate --> resource metadata --> authorization server metadata --> authorization URL ... code --> tokens
 *
 * Pure: no I/O; everything borrows the input's tree or lives on the arena.  What comes from outside is refused when it could lead astray:
 * a resource that is not the server's, an issuer that is not the one asked, endpoints without TLS, a server without PKCE S256.
 * No error quotes a token, a code or free text of the other side.
 * Source: RFC 6749, 6750, 7009, 7591, 7636, 8414, 8707, 9207, 9728; OpenID Connect Discovery 1.0; OAuth Client ID Metadata Documents.
 */
#ifndef NEXUS_MCP_OAUTH_H
#define NEXUS_MCP_OAUTH_H

#include "base/json.h"

/* https, or http on a loopback address (or localhost); at most MCP_OAUTH_URL_BYTES_MAX. */
must_check bool oauth_url_check(str url, const char *what, struct error *e);

/* The value of WWW-Authenticate.  Members that are not there are empty; a malformed field has none. */
struct oauth_challenge {
    str resource_metadata, scope, error;
};
struct oauth_challenge oauth_challenge_read(struct arena *arena, str field);

/* "https://h/a/b" and "oauth-x": https://h/.well-known/oauth-x/a/b; without `with_path` the origin's own; is_behind: https://h/a/b/.well-known/oauth-x. */
enum oauth_place { OAUTH_PLACE_INSERTED, OAUTH_PLACE_ROOT, OAUTH_PLACE_APPENDED };
must_check bool oauth_well_known(struct arena *arena, str url, str document, enum oauth_place place,
                                 str *out, struct error *e);

/* RFC 9728. */
struct oauth_resource {
    str resource; /* as it is asked for by `resource` */
    str *issuers; /* at least one, at most MCP_OAUTH_ISSUERS_MAX */
    size_t issuer_count;
    str scopes; /* all that are supported, with spaces between; empty: not told */
};
/* `resource` must be the server's URL or a prefix of it (whole segments, the same origin). */
must_check bool oauth_resource_read(struct arena *arena, str text, str server_url,
                                    struct oauth_resource *out, struct error *e);

/* How a client with a secret says who it is. */
enum oauth_client_auth { OAUTH_AUTH_NONE, OAUTH_AUTH_BASIC, OAUTH_AUTH_POST };
/* RFC 8414, OpenID Connect Discovery. */
struct oauth_server {
    str issuer, authorization_endpoint, token_endpoint;
    str registration_endpoint, revocation_endpoint; /* empty: none */
    bool tells_issuer;                              /* RFC 9207: the callback has `iss` */
    bool takes_documents;                           /* client ids that are URLs */
    enum oauth_client_auth secret_auth;             /* BASIC or POST */
};
must_check bool oauth_server_read(struct arena *arena, str text, str issuer,
                                  struct oauth_server *out, struct error *e);

/* An answer of the token endpoint. */
struct oauth_tokens {
    str access_token, refresh_token, scope;
    int64_t expires_in_s; /* 0: not told */
};
must_check bool oauth_tokens_read(struct arena *arena, str text, struct oauth_tokens *out,
                                  struct error *e);
/* `error` of a refusal when it is a plain code ("invalid_grant"), else "no reason told".  Never free text. */
str oauth_refusal_code(struct arena *arena, str text);

struct oauth_client {
    str client_id, client_secret; /* no secret: a public client */
};
must_check bool oauth_registration_read(struct arena *arena, str text, struct oauth_client *out,
                                        struct error *e);
/* What is registered, and (with a client_id) the client's metadata document. */
str oauth_client_document(struct arena *arena, str client_id, str redirect_url, str scopes);

/* S256 of a verifier. */
str oauth_pkce_challenge(struct arena *arena, str verifier);

/* application/x-www-form-urlencoded and queries; empty values are left out. */
void oauth_form_add(struct strbuf *form, struct arena *arena, str name, str value);
struct oauth_question {
    str client_id, redirect_url, scope, state, verifier, resource;
};
str oauth_authorization_url(struct arena *arena, const struct oauth_server *server,
                            const struct oauth_question *question);
/* Basic credentials: "Basic ..." of RFC 6749 section 2.3.1. */
str oauth_basic(struct arena *arena, str client_id, str client_secret);

/* RFC 9207: what the callback said is the issuer that was asked.  DENIED. */
must_check bool oauth_issuer_check(str expected, bool tells_issuer, str iss, struct error *e);

#endif
