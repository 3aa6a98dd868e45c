/* Requests to authorization servers: documents, registration, tokens.  All through the egress door, without redirects. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/seal.h"
#include "net/egress.h"

#define FORM S("application/x-www-form-urlencoded")
enum { US_PER_S = 1000000, STEP_MS = 10000 };

/* ---- one request ---- */

may_suspend static bool send(struct mcp_upstream *server, struct context *ctx,
                             const struct mcp_fetch *fetch, struct http_exchange **out,
                             struct error *e)
{
    struct mcp_client_options *options = &server->client->options;
    struct arena *arena = ctx->arena;
    struct http_headers headers = {0};
    OWNED(egress_rules) rules = NULL;
    str any = S("*");
    struct http_client *client =
        options->http_client ? options->http_client(options->http_owner, options->loop) : NULL;
    if (!client)
        return error_set(e, REASON_UNAVAILABLE, "this node makes no outside calls");
    struct egress_options allowed = {.allowed_hosts = &any,
                                     .allowed_host_count = 1,
                                     .allowed_ips = server->config.allowed_ips.items,
                                     .allowed_ip_count = server->config.allowed_ips.count};
    if (!egress_rules_create(&allowed, &rules, e))
        return false;
    http_headers_add(&headers, arena, S("Accept"),
                     str_is_empty(fetch->accept) ? S("application/json") : fetch->accept);
    http_headers_add(&headers, arena, S("User-Agent"), S("nexus"));
    if (!str_is_empty(fetch->content_type))
        http_headers_add(&headers, arena, S("Content-Type"), fetch->content_type);
    if (!str_is_empty(fetch->authorization))
        http_headers_add(&headers, arena, S("Authorization"), fetch->authorization);
    struct egress_request request = {.method = fetch->method,
                                     .url = fetch->url,
                                     .headers = &headers,
                                     .body = fetch->body,
                                     .first_byte_timeout_ms = STEP_MS,
                                     .idle_timeout_ms = STEP_MS,
                                     .no_redirects = true};
    return egress_send(rules, client, ctx, &request, out, NULL, e);
}

may_suspend bool mcp_fetch(struct mcp_upstream *server, struct context *ctx,
                           const struct mcp_fetch *fetch, int *status, str *challenge, str *text,
                           struct error *e)
{
    OWNED(http_exchange) exchange = NULL;
    struct context limited;
    context_init_child(&limited, ctx, context_deadline_in(ctx, STEP_MS));
    bool is_ok = send(server, &limited, fetch, &exchange, e);
    if (is_ok) {
        *status = http_exchange_status(exchange);
        if (challenge)
            *challenge = str_copy(ctx->arena, http_headers_get(http_exchange_headers(exchange),
                                                               S("WWW-Authenticate")));
        /* The body of the MCP server's 401 is of no use, and may be a stream that does not end. */
        is_ok =
            challenge || http_exchange_read_all(exchange, &limited, MCP_OAUTH_BYTES_MAX, text, e);
    }
    context_deinit(&limited);
    return is_ok;
}

/* *text empty: there is no such document. */
may_suspend static bool fetch_document(struct mcp_upstream *server, struct context *ctx, str url,
                                       str *text, struct error *e)
{
    int status;
    struct mcp_fetch fetch = {.method = HTTP_GET, .url = url};
    *text = STR_NONE;
    if (!oauth_url_check(url, "the place of a document", e) ||
        !mcp_fetch(server, ctx, &fetch, &status, NULL, text, e))
        return error_wrap(e, STR_FMT, STR_ARG(str_cut_utf8(url, 200)));
    if (status >= 500 || (status >= 300 && status < 400))
        return error_set(e, REASON_UNAVAILABLE, STR_FMT " answers with status %d",
                         STR_ARG(str_cut_utf8(url, 200)), status);
    if (status != 200)
        *text = STR_NONE;
    return true;
}

/* ---- discovery ---- */

may_suspend static bool find_resource(struct mcp_upstream *server, struct context *ctx,
                                      struct oauth_challenge *challenge, struct oauth_resource *out,
                                      struct error *e)
{
    int status;
    str field = STR_NONE, text = STR_NONE, url;
    struct mcp_fetch probe = {.method = HTTP_POST,
                              .url = server->config.url,
                              .body = S("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}"),
                              .content_type = S("application/json"),
                              .accept = S("application/json, text/event-stream")};
    if (!mcp_fetch(server, ctx, &probe, &status, &field, &text, e))
        return false;
    if (status == 401)
        *challenge = oauth_challenge_read(ctx->arena, field);
    if (!str_is_empty(challenge->resource_metadata) &&
        !fetch_document(server, ctx, challenge->resource_metadata, &text, e))
        return false;
    for (int place = OAUTH_PLACE_INSERTED; str_is_empty(text) && place <= OAUTH_PLACE_ROOT; place++)
        if (!oauth_well_known(ctx->arena, server->config.url, S("oauth-protected-resource"),
                              (enum oauth_place) place, &url, e) ||
            !fetch_document(server, ctx, url, &text, e))
            return false;
    if (!str_is_empty(text))
        return oauth_resource_read(ctx->arena, text, server->config.url, out, e);
    if (str_is_empty(server->config.oauth.issuer))
        return error_set(e, REASON_UNAVAILABLE,
                         "the server does not say where to log in (no resource metadata): set "
                         "oauth.issuer of this server");
    *out = (struct oauth_resource){
        .resource = server->config.url, .issuers = &server->config.oauth.issuer, .issuer_count = 1};
    return true;
}

static bool choose_issuer(const struct mcp_upstream *server, const struct oauth_resource *resource,
                          str *out, struct error *e)
{
    str wanted = server->config.oauth.issuer;
    *out = resource->issuers[0];
    if (str_is_empty(wanted))
        return true;
    for (size_t i = 0; i < resource->issuer_count; i++)
        if (str_equal(resource->issuers[i], wanted)) {
            *out = wanted;
            return true;
        }
    return error_set(e, REASON_UNAVAILABLE,
                     "the server does not name the authorization server of oauth.issuer");
}

may_suspend static bool find_server(struct mcp_upstream *server, struct context *ctx, str issuer,
                                    struct oauth_server *out, struct error *e)
{
    static const struct {
        str document;
        enum oauth_place place;
    } places[] = {{S_INIT("oauth-authorization-server"), OAUTH_PLACE_INSERTED},
                  {S_INIT("openid-configuration"), OAUTH_PLACE_INSERTED},
                  {S_INIT("openid-configuration"), OAUTH_PLACE_APPENDED}};
    str text, url;
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        if (!oauth_well_known(ctx->arena, issuer, places[i].document, places[i].place, &url, e) ||
            !fetch_document(server, ctx, url, &text, e))
            return false;
        if (!str_is_empty(text))
            return oauth_server_read(ctx->arena, text, issuer, out, e);
    }
    return error_set(e, REASON_UNAVAILABLE, "authorization server " STR_FMT " has no metadata",
                     STR_ARG(str_cut_utf8(issuer, 200)));
}

may_suspend bool mcp_oauth_discover(struct mcp_upstream *server, struct context *ctx,
                                    struct mcp_discovery *out, struct error *e)
{
    str issuer;
    struct oauth_challenge challenge = {0};
    struct oauth_resource resource;
    const struct mcp_oauth_config *config = &server->config.oauth;
    if (!find_resource(server, ctx, &challenge, &resource, e) ||
        !choose_issuer(server, &resource, &issuer, e) ||
        !find_server(server, ctx, issuer, &out->server, e))
        return error_wrap(e, "find out how to log in at MCP server " STR_FMT,
                          STR_ARG(server->config.name));
    out->resource = resource.resource;
    struct strbuf scopes;
    strbuf_init(&scopes, ctx->arena, 64u << 10);
    for (size_t i = 0; i < config->scopes.count; i++) {
        strbuf_add(&scopes, i > 0 ? S(" ") : STR_NONE);
        strbuf_add(&scopes, config->scopes.items[i]);
    }
    out->scope = config->scopes.count > 0         ? strbuf_str(&scopes)
                 : !str_is_empty(challenge.scope) ? challenge.scope
                                                  : resource.scopes;
    return true;
}

may_suspend bool mcp_oauth_register(struct mcp_upstream *server, struct context *ctx,
                                    const struct oauth_server *at, str redirect_url,
                                    struct oauth_client *out, struct error *e)
{
    int status;
    str text;
    struct mcp_fetch fetch = {
        .method = HTTP_POST,
        .url = at->registration_endpoint,
        .body = oauth_client_document(ctx->arena, STR_NONE, redirect_url, STR_NONE),
        .content_type = S("application/json")};
    if (!mcp_fetch(server, ctx, &fetch, &status, NULL, &text, e))
        return error_wrap(e, "register as a client");
    if (status != 200 && status != 201)
        return error_set(e, REASON_UNAVAILABLE,
                         "the authorization server does not register us: status %d, " STR_FMT,
                         status, STR_ARG(oauth_refusal_code(ctx->arena, text)));
    bool is_read = oauth_registration_read(ctx->arena, text, out, e);
    return is_read;
}

/* ---- tokens ---- */

/* The operator's secret as it is now, where the client is the operator's: it may have been changed since the login. */
static const struct secret *client_secret_of(const struct mcp_upstream *server,
                                             const struct mcp_grant *grant)
{
    const struct mcp_oauth_config *config = &server->config.oauth;
    return str_equal(config->client_id, grant->client_id) ? config->client_secret
                                                          : grant->client_secret;
}

static void add_client(struct mcp_upstream *server, struct strbuf *form, struct context *ctx,
                       const struct mcp_grant *grant, struct mcp_fetch *fetch)
{
    const struct secret *secret = client_secret_of(server, grant);
    if (grant->auth == OAUTH_AUTH_BASIC && secret) {
        fetch->authorization = oauth_basic(ctx->arena, grant->client_id, secret_reveal(secret));
        return;
    }
    oauth_form_add(form, ctx->arena, S("client_id"), grant->client_id);
    if (secret)
        oauth_form_add(form, ctx->arena, S("client_secret"), secret_reveal(secret));
}

static struct mcp_grant *make_grant(struct mcp_upstream *server, const struct mcp_grant *from,
                                    const struct oauth_tokens *tokens, bool is_login)
{
    struct mcp_grant *grant = mcp_grant_create();
    struct arena *arena = grant->arena;
    int64_t now_us = clock_unix_us(server->client->options.clock);
    grant->access = secret_create(tokens->access_token);
    /* A server that does not rotate says nothing of it. */
    if (!str_is_empty(tokens->refresh_token))
        grant->refresh = secret_create(tokens->refresh_token);
    else if (!is_login && from->refresh)
        grant->refresh = secret_create(secret_reveal(from->refresh));
    if (from->client_secret)
        grant->client_secret = secret_create(secret_reveal(from->client_secret));
    grant->url = str_copy(arena, server->config.url);
    grant->issuer = str_copy(arena, from->issuer);
    grant->resource = str_copy(arena, from->resource);
    grant->scope = str_copy(arena, str_is_empty(tokens->scope) ? from->scope : tokens->scope);
    grant->client_id = str_copy(arena, from->client_id);
    grant->token_endpoint = str_copy(arena, from->token_endpoint);
    grant->revocation_endpoint = str_copy(arena, from->revocation_endpoint);
    grant->auth = from->auth;
    grant->created_us = is_login ? now_us : from->created_us;
    grant->issued_us = now_us;
    grant->expires_us = tokens->expires_in_s > 0 ? now_us + tokens->expires_in_s * US_PER_S : 0;
    return grant;
}

may_suspend bool mcp_oauth_exchange(struct mcp_upstream *server, struct context *ctx,
                                    const struct mcp_exchange *exchange, struct mcp_grant **out,
                                    bool *is_final, struct error *e)
{
    int status = 0;
    str text = STR_NONE;
    struct strbuf form;
    struct oauth_tokens tokens;
    struct arena *arena = ctx->arena;
    const struct mcp_grant *from = exchange->from;
    bool is_login = !str_is_empty(exchange->code);
    struct mcp_fetch fetch = {
        .method = HTTP_POST, .url = from->token_endpoint, .content_type = FORM};
    *is_final = false;
    strbuf_init(&form, arena, 256u << 10);
    oauth_form_add(&form, arena, S("grant_type"),
                   is_login ? S("authorization_code") : S("refresh_token"));
    if (is_login) {
        oauth_form_add(&form, arena, S("code"), exchange->code);
        oauth_form_add(&form, arena, S("code_verifier"), exchange->verifier);
        oauth_form_add(&form, arena, S("redirect_uri"), exchange->redirect_url);
    } else {
        oauth_form_add(&form, arena, S("refresh_token"), secret_reveal(from->refresh));
    }
    oauth_form_add(&form, arena, S("resource"), from->resource);
    add_client(server, &form, ctx, from, &fetch);
    fetch.body = strbuf_str(&form);
    bool is_sent = mcp_fetch(server, ctx, &fetch, &status, NULL, &text, e);
    seal_wipe(fetch.body);
    seal_wipe(fetch.authorization);
    if (!is_sent)
        return error_wrap(e, "the token endpoint");
    if (status != 200) {
        str code = oauth_refusal_code(arena, text);
        *is_final = str_equal(code, S("invalid_grant")); /* others are the operator's to mend */
        return error_set(e, *is_final ? REASON_DENIED : REASON_UNAVAILABLE,
                         "the token endpoint refuses: status %d, " STR_FMT, status, STR_ARG(code));
    }
    bool is_read = oauth_tokens_read(arena, text, &tokens, e);
    if (is_read)
        *out = make_grant(server, from, &tokens, is_login);
    seal_wipe(text);
    return is_read;
}

may_suspend_void void mcp_oauth_revoke(struct mcp_upstream *server, struct context *ctx,
                                       const struct mcp_grant *grant)
{
    if (str_is_empty(grant->revocation_endpoint))
        return;
    const struct secret *secrets[] = {grant->refresh, grant->access};
    static const str hints[] = {S_INIT("refresh_token"), S_INIT("access_token")};
    for (size_t i = 0; i < ARRAY_COUNT(secrets); i++) {
        int status;
        str text;
        struct strbuf form;
        struct error ignored;
        struct mcp_fetch fetch = {
            .method = HTTP_POST, .url = grant->revocation_endpoint, .content_type = FORM};
        if (!secrets[i])
            continue;
        strbuf_init(&form, ctx->arena, 128u << 10);
        oauth_form_add(&form, ctx->arena, S("token"), secret_reveal(secrets[i]));
        oauth_form_add(&form, ctx->arena, S("token_type_hint"), hints[i]);
        add_client(server, &form, ctx, grant, &fetch);
        fetch.body = strbuf_str(&form);
        (void) !mcp_fetch(server, ctx, &fetch, &status, NULL, &text, &ignored);
        seal_wipe(fetch.body);
        seal_wipe(fetch.authorization);
    }
}
