#include "mcp/oauth.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/limits.h"
#include "net/http.h"

enum { SCOPES_BYTES_MAX = 4096, CODE_BYTES_MAX = 64, CLIENT_ID_BYTES_MAX = 2048 };

static bool is_visible(str text, size_t max)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] <= ' ' || text.ptr[i] >= 0x7f)
            return false;
    return text.len <= max;
}

/* ---- URLs ---- */

static bool is_loopback(str host)
{
    if (str_equal_nocase(host, S("localhost")) || str_equal(host, S("::1")))
        return true;
    for (size_t i = 0; i < host.len; i++)
        if (host.ptr[i] != '.' && (host.ptr[i] < '0' || host.ptr[i] > '9'))
            return false;
    return str_starts_with(host, S("127."));
}

bool oauth_url_check(str url, const char *what, struct error *e)
{
    struct http_url parsed;
    struct error why;
    if (!is_visible(url, MCP_OAUTH_URL_BYTES_MAX) || !http_url_parse(url, &parsed, &why))
        return error_set(e, REASON_UNAVAILABLE, "%s is no URL", what);
    return parsed.is_tls || is_loopback(parsed.host) ||
           error_set(e, REASON_UNAVAILABLE, "%s must begin with https://", what);
}

/* Scheme, host and port as written; the path without query and without a "/" at its end. */
static bool split(str url, str *origin, str *path, struct error *e)
{
    struct http_url parsed;
    str query;
    if (!http_url_parse(url, &parsed, e))
        return false;
    size_t begin = str_find(url, S("://")) + 3, end = begin;
    while (end < url.len && url.ptr[end] != '/' && url.ptr[end] != '?')
        end++;
    *origin = str_slice(url, 0, end);
    str_cut(str_from(url, end), '?', path, &query);
    while (str_ends_with(*path, S("/")))
        *path = str_slice(*path, 0, path->len - 1);
    return true;
}

bool oauth_well_known(struct arena *arena, str url, str document, enum oauth_place place, str *out,
                      struct error *e)
{
    str origin, path;
    if (!split(url, &origin, &path, e))
        return false;
    if (place == OAUTH_PLACE_ROOT)
        path = STR_NONE;
    *out = place == OAUTH_PLACE_APPENDED
               ? str_printf(arena, STR_FMT STR_FMT "/.well-known/" STR_FMT, STR_ARG(origin),
                            STR_ARG(path), STR_ARG(document))
               : str_printf(arena, STR_FMT "/.well-known/" STR_FMT STR_FMT, STR_ARG(origin),
                            STR_ARG(document), STR_ARG(path));
    return true;
}

/* ---- the challenge ---- */

/* One name=value of a challenge; false at its end or where it is malformed. */
static bool next_parameter(struct arena *arena, str *rest, str *name, str *value)
{
    size_t i = 0;
    while (i < rest->len && strchr(" \t,", rest->ptr[i]))
        i++;
    *rest = str_from(*rest, i);
    size_t equals = str_find_char(*rest, '=');
    if (equals == STR_NOT_FOUND || equals + 1 >= rest->len)
        return false;
    *name = str_trim(str_slice(*rest, 0, equals));
    /* The next scheme's name stands before its first parameter. */
    size_t space = str_find_char(*name, ' ');
    if (space != STR_NOT_FOUND)
        return false;
    *rest = str_from(*rest, equals + 1);
    if (rest->ptr[0] != '"') {
        for (i = 0; i < rest->len && !strchr(" \t,", rest->ptr[i]); i++)
            ;
        *value = str_slice(*rest, 0, i);
        *rest = str_from(*rest, i);
        return true;
    }
    struct strbuf text;
    strbuf_init(&text, arena, rest->len + 1);
    for (i = 1; i < rest->len && rest->ptr[i] != '"'; i++) {
        if (rest->ptr[i] == '\\' && i + 1 < rest->len)
            i++;
        strbuf_add(&text, str_of(rest->ptr + i, 1));
    }
    if (i >= rest->len)
        return false;
    *value = strbuf_str(&text);
    *rest = str_from(*rest, i + 1);
    return true;
}

/* Behind "Bearer ", wherever it stands: at the start or after another challenge. */
static bool find_bearer(str field, str *rest)
{
    for (size_t i = 0; i + 7 <= field.len; i++)
        if (str_equal_nocase(str_slice(field, i, i + 7), S("Bearer ")) &&
            (i == 0 || strchr(" ,\t", field.ptr[i - 1]))) {
            *rest = str_from(field, i + 7);
            return true;
        }
    return false;
}

struct oauth_challenge oauth_challenge_read(struct arena *arena, str field)
{
    struct oauth_challenge out = {0};
    str rest, name, value;
    if (memchr(field.ptr ? field.ptr : "", 0, field.len) || !find_bearer(field, &rest))
        return out;
    while (next_parameter(arena, &rest, &name, &value)) {
        if (str_equal_nocase(name, S("resource_metadata")))
            out.resource_metadata = value;
        else if (str_equal_nocase(name, S("scope")))
            out.scope = value;
        else if (str_equal_nocase(name, S("error")))
            out.error = value;
    }
    return out;
}

/* ---- documents ---- */

static bool parse(struct arena *arena, str text, const char *what, const struct json **out,
                  struct error *e)
{
    struct error why;
    struct json_limits limits = {.bytes_max = MCP_OAUTH_BYTES_MAX, .depth_max = 16};
    if (text.len <= MCP_OAUTH_BYTES_MAX && json_parse(arena, text, limits, out, &why) &&
        json_type(*out) == JSON_OBJECT)
        return true;
    return error_set(e, REASON_UNAVAILABLE, "%s is no JSON object", what);
}

/* An endpoint that must be (or may be absent: then empty). */
static bool read_endpoint(const struct json *root, str key, bool is_needed, str *out,
                          struct error *e)
{
    char what[64];
    snprintf(what, sizeof what, STR_FMT " of the authorization server", STR_ARG(key));
    *out = json_str_or(root, key, STR_NONE);
    if (str_is_empty(*out) && !is_needed)
        return true;
    return oauth_url_check(*out, what, e);
}

static bool has_text(const struct json *list, str wanted)
{
    str text;
    const struct json *item;
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &text) && str_equal(text, wanted))
            return true;
    return false;
}

static str join_scopes(struct arena *arena, const struct json *list)
{
    str text;
    struct strbuf all;
    const struct json *item;
    strbuf_init(&all, arena, SCOPES_BYTES_MAX);
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &item)) {
        if (!json_to_str(item, &text) || str_is_empty(text) || !is_visible(text, 256))
            continue;
        if (strbuf_str(&all).len > 0)
            strbuf_add(&all, S(" "));
        strbuf_add(&all, text);
    }
    return strbuf_is_over(&all) ? STR_NONE : strbuf_str(&all);
}

/* The same origin, and the path the same or whole segments of the other's beginning. */
static bool covers(str resource, str server_url)
{
    struct error ignored;
    struct http_url a, b;
    str origin, path, whole, rest;
    if (!http_url_parse(resource, &a, &ignored) || !http_url_parse(server_url, &b, &ignored) ||
        a.is_tls != b.is_tls || a.port != b.port || !str_equal_nocase(a.host, b.host) ||
        !split(resource, &origin, &path, &ignored) || !split(server_url, &origin, &whole, &ignored))
        return false;
    return str_strip_prefix(whole, path, &rest) && (str_is_empty(rest) || rest.ptr[0] == '/');
}

bool oauth_resource_read(struct arena *arena, str text, str server_url, struct oauth_resource *out,
                         struct error *e)
{
    str issuer;
    const struct json *root, *item;
    if (!parse(arena, text, "the resource metadata", &root, e))
        return false;
    *out = (struct oauth_resource){.resource = json_str_or(root, S("resource"), STR_NONE),
                                   .issuers = ARENA_ARRAY(arena, str, MCP_OAUTH_ISSUERS_MAX)};
    if (!is_visible(out->resource, MCP_OAUTH_URL_BYTES_MAX) || !covers(out->resource, server_url))
        return error_set(e, REASON_UNAVAILABLE,
                         "the resource metadata is of another resource than this server");
    struct json_iter it = json_iter(json_get(root, S("authorization_servers")));
    while (json_next(&it, NULL, &item) && out->issuer_count < MCP_OAUTH_ISSUERS_MAX) {
        if (!json_to_str(item, &issuer))
            continue;
        if (!oauth_url_check(issuer, "an authorization server of the resource metadata", e))
            return false;
        out->issuers[out->issuer_count++] = issuer;
    }
    if (out->issuer_count == 0)
        return error_set(e, REASON_UNAVAILABLE,
                         "the resource metadata names no authorization server");
    out->scopes = join_scopes(arena, json_get(root, S("scopes_supported")));
    return true;
}

bool oauth_server_read(struct arena *arena, str text, str issuer, struct oauth_server *out,
                       struct error *e)
{
    const struct json *root;
    if (!parse(arena, text, "the authorization server's metadata", &root, e))
        return false;
    *out = (struct oauth_server){.issuer = json_str_or(root, S("issuer"), STR_NONE)};
    if (str_is_empty(issuer) || !str_equal(out->issuer, issuer))
        return error_set(e, REASON_UNAVAILABLE,
                         "the authorization server's metadata is of another issuer");
    if (!read_endpoint(root, S("authorization_endpoint"), true, &out->authorization_endpoint, e) ||
        !read_endpoint(root, S("token_endpoint"), true, &out->token_endpoint, e) ||
        !read_endpoint(root, S("registration_endpoint"), false, &out->registration_endpoint, e) ||
        !read_endpoint(root, S("revocation_endpoint"), false, &out->revocation_endpoint, e))
        return false;
    if (!has_text(json_get(root, S("code_challenge_methods_supported")), S("S256")))
        return error_set(e, REASON_UNAVAILABLE,
                         "the authorization server does not offer PKCE with S256");
    out->tells_issuer =
        json_bool_or(root, S("authorization_response_iss_parameter_supported"), false);
    out->takes_documents = json_bool_or(root, S("client_id_metadata_document_supported"), false);
    const struct json *methods = json_get(root, S("token_endpoint_auth_methods_supported"));
    out->secret_auth =
        has_text(methods, S("client_secret_post")) && !has_text(methods, S("client_secret_basic"))
            ? OAUTH_AUTH_POST
            : OAUTH_AUTH_BASIC;
    return true;
}

/* ---- answers ---- */

bool oauth_tokens_read(struct arena *arena, str text, struct oauth_tokens *out, struct error *e)
{
    const struct json *root;
    if (!parse(arena, text, "the answer of the token endpoint", &root, e))
        return false;
    *out = (struct oauth_tokens){
        .access_token = json_str_or(root, S("access_token"), STR_NONE),
        .refresh_token = json_str_or(root, S("refresh_token"), STR_NONE),
        .scope = json_str_or(root, S("scope"), STR_NONE),
        .expires_in_s = json_i64_or(root, S("expires_in"), 0),
    };
    if (str_is_empty(out->access_token) ||
        !is_visible(out->access_token, MCP_OAUTH_TOKEN_BYTES_MAX) ||
        !is_visible(out->refresh_token, MCP_OAUTH_TOKEN_BYTES_MAX))
        return error_set(e, REASON_UNAVAILABLE, "the token endpoint gave no usable token");
    if (!str_equal_nocase(json_str_or(root, S("token_type"), STR_NONE), S("Bearer")))
        return error_set(e, REASON_UNAVAILABLE, "the token endpoint gave no bearer token");
    if (out->scope.len > SCOPES_BYTES_MAX || !str_is_utf8(out->scope))
        out->scope = STR_NONE;
    if (out->expires_in_s < 0 || out->expires_in_s > 10ll * 365 * 86400)
        out->expires_in_s = 0;
    return true;
}

str oauth_refusal_code(struct arena *arena, str text)
{
    const struct json *root;
    struct error ignored;
    if (!parse(arena, text, "the refusal", &root, &ignored))
        return S("no reason told");
    str code = json_str_or(root, S("error"), STR_NONE);
    for (size_t i = 0; i < code.len; i++)
        if (!(code.ptr[i] >= 'a' && code.ptr[i] <= 'z') && code.ptr[i] != '_')
            return S("no reason told");
    return str_is_empty(code) || code.len > CODE_BYTES_MAX ? S("no reason told") : code;
}

bool oauth_registration_read(struct arena *arena, str text, struct oauth_client *out,
                             struct error *e)
{
    const struct json *root;
    if (!parse(arena, text, "the answer of the registration endpoint", &root, e))
        return false;
    *out = (struct oauth_client){json_str_or(root, S("client_id"), STR_NONE),
                                 json_str_or(root, S("client_secret"), STR_NONE)};
    return (!str_is_empty(out->client_id) && is_visible(out->client_id, CLIENT_ID_BYTES_MAX) &&
            is_visible(out->client_secret, MCP_OAUTH_TOKEN_BYTES_MAX)) ||
           error_set(e, REASON_UNAVAILABLE, "the registration endpoint gave no usable client id");
}

/* ---- what is sent ---- */

str oauth_client_document(struct arena *arena, str client_id, str redirect_url, str scopes)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 64u << 10);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    if (!str_is_empty(client_id))
        json_put_str(&w, S("client_id"), client_id);
    json_put_str(&w, S("client_name"), S("Nexus"));
    json_key(&w, S("redirect_uris"));
    json_array_begin(&w);
    json_write_str(&w, redirect_url);
    json_array_end(&w);
    json_put_raw(&w, S("grant_types"), S("[\"authorization_code\",\"refresh_token\"]"));
    json_put_raw(&w, S("response_types"), S("[\"code\"]"));
    json_put_str(&w, S("token_endpoint_auth_method"), S("none"));
    if (!str_is_empty(scopes))
        json_put_str(&w, S("scope"), scopes);
    json_object_end(&w);
    return strbuf_str(&text);
}

str oauth_pkce_challenge(struct arena *arena, str verifier)
{
    digest hash = digest_sha256(verifier);
    return base64url_encode(arena, str_of((const char *) hash.bytes, sizeof hash.bytes));
}

void oauth_form_add(struct strbuf *form, struct arena *arena, str name, str value)
{
    if (str_is_empty(value))
        return;
    if (strbuf_str(form).len > 0)
        strbuf_add(form, S("&"));
    strbuf_add(form, name);
    strbuf_add(form, S("="));
    strbuf_add(form, http_percent_encode(arena, value));
}

str oauth_authorization_url(struct arena *arena, const struct oauth_server *server,
                            const struct oauth_question *question)
{
    struct strbuf query;
    str endpoint = server->authorization_endpoint;
    strbuf_init(&query, arena, 64u << 10);
    oauth_form_add(&query, arena, S("response_type"), S("code"));
    oauth_form_add(&query, arena, S("client_id"), question->client_id);
    oauth_form_add(&query, arena, S("redirect_uri"), question->redirect_url);
    oauth_form_add(&query, arena, S("scope"), question->scope);
    oauth_form_add(&query, arena, S("state"), question->state);
    oauth_form_add(&query, arena, S("code_challenge"),
                   oauth_pkce_challenge(arena, question->verifier));
    oauth_form_add(&query, arena, S("code_challenge_method"), S("S256"));
    oauth_form_add(&query, arena, S("resource"), question->resource);
    return str_printf(arena, STR_FMT "%s" STR_FMT, STR_ARG(endpoint),
                      str_find_char(endpoint, '?') == STR_NOT_FOUND ? "?" : "&",
                      STR_ARG(strbuf_str(&query)));
}

str oauth_basic(struct arena *arena, str client_id, str client_secret)
{
    str pair =
        str_printf(arena, STR_FMT ":" STR_FMT, STR_ARG(http_percent_encode(arena, client_id)),
                   STR_ARG(http_percent_encode(arena, client_secret)));
    return str_printf(arena, "Basic " STR_FMT, STR_ARG(base64_encode(arena, pair)));
}

bool oauth_issuer_check(str expected, bool tells_issuer, str iss, struct error *e)
{
    if (str_is_empty(iss) && tells_issuer)
        return error_set(e, REASON_DENIED, "the answer does not say which issuer it is of");
    return str_is_empty(iss) || str_equal(iss, expected) ||
           error_set(e, REASON_DENIED, "the answer is of another issuer than was asked");
}
