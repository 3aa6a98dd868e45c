/* What authorization servers gave for users: one JSON text, sealed into its row of TABLE_MCP_TOKENS. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include "base/seal.h"
#include <stdlib.h>

enum { GRANT_BYTES_MAX = 128 << 10 };

struct mcp_grant *mcp_grant_create(void)
{
    struct mcp_grant *grant = calloc(1, sizeof *grant);
    ensure(grant != NULL);
    grant->arena = arena_create(0);
    return grant;
}

void mcp_grant_destroy(struct mcp_grant *grant)
{
    if (!grant)
        return;
    secret_destroy(grant->access);
    secret_destroy(grant->refresh);
    secret_destroy(grant->client_secret);
    arena_destroy(grant->arena);
    free(grant);
}

static const uint8_t *key_of(const struct mcp_upstream *server)
{
    return (const uint8_t *) secret_reveal(server->client->seal_key).ptr;
}

/* Where a sealed text belongs; lengths first, so that no two places read the same. */
static str place_of(struct arena *arena, const struct mcp_upstream *server,
                    const struct mcp_caller *caller)
{
    return str_printf(arena, "mcp_tokens 1 " STR_FMT " %zu:" STR_FMT " " STR_FMT,
                      STR_ARG(uuid_str(arena, caller->tenant_id)), caller->user_id.len,
                      STR_ARG(caller->user_id), STR_ARG(server->config.name));
}

/* ---- text ---- */

static void put_secret(struct json_writer *w, str key, const struct secret *secret)
{
    if (secret)
        json_put_str(w, key, secret_reveal(secret));
}

static str write_grant(struct arena *arena, const struct mcp_grant *grant)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, GRANT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    put_secret(&w, S("access"), grant->access);
    put_secret(&w, S("refresh"), grant->refresh);
    put_secret(&w, S("client_secret"), grant->client_secret);
    json_put_str(&w, S("url"), grant->url);
    json_put_str(&w, S("issuer"), grant->issuer);
    json_put_str(&w, S("resource"), grant->resource);
    json_put_str(&w, S("scope"), grant->scope);
    json_put_str(&w, S("client_id"), grant->client_id);
    json_put_str(&w, S("token_endpoint"), grant->token_endpoint);
    json_put_str(&w, S("revocation_endpoint"), grant->revocation_endpoint);
    json_put_i64(&w, S("auth"), grant->auth);
    json_put_i64(&w, S("created"), grant->created_us);
    json_put_i64(&w, S("issued"), grant->issued_us);
    json_put_i64(&w, S("expires"), grant->expires_us);
    json_object_end(&w);
    ensure(!strbuf_is_over(&text)); /* every member was bounded when it came */
    return strbuf_str(&text);
}

static struct secret *read_secret(const struct json *root, str key)
{
    str text;
    return json_to_str(json_get(root, key), &text) ? secret_create(text) : NULL;
}

static str read_text(struct mcp_grant *grant, const struct json *root, str key)
{
    return str_copy(grant->arena, json_str_or(root, key, STR_NONE));
}

static struct mcp_grant *read_grant(struct arena *arena, str text)
{
    struct error ignored;
    const struct json *root;
    struct json_limits limits = {.bytes_max = GRANT_BYTES_MAX};
    if (!json_parse(arena, text, limits, &root, &ignored))
        return NULL;
    OWNED(mcp_grant) grant = mcp_grant_create();
    grant->access = read_secret(root, S("access"));
    grant->refresh = read_secret(root, S("refresh"));
    grant->client_secret = read_secret(root, S("client_secret"));
    grant->url = read_text(grant, root, S("url"));
    grant->issuer = read_text(grant, root, S("issuer"));
    grant->resource = read_text(grant, root, S("resource"));
    grant->scope = read_text(grant, root, S("scope"));
    grant->client_id = read_text(grant, root, S("client_id"));
    grant->token_endpoint = read_text(grant, root, S("token_endpoint"));
    grant->revocation_endpoint = read_text(grant, root, S("revocation_endpoint"));
    grant->auth = (enum oauth_client_auth) json_i64_or(root, S("auth"), OAUTH_AUTH_NONE);
    grant->created_us = json_i64_or(root, S("created"), 0);
    grant->issued_us = json_i64_or(root, S("issued"), 0);
    grant->expires_us = json_i64_or(root, S("expires"), 0);
    return grant->access ? GIVE(grant) : NULL;
}

/* ---- rows ---- */

static void set_key(struct record *row, const struct mcp_upstream *server,
                    const struct mcp_caller *caller)
{
    record_set_text(row, MCP_TOKENS_USER_ID, caller->user_id);
    record_set_text(row, MCP_TOKENS_SERVER, server->config.name);
}

static struct mcp_grant *open_row(struct mcp_upstream *server, struct arena *arena,
                                  const struct mcp_caller *caller, const struct record *row)
{
    str sealed, plain;
    if (!base64_decode(arena, record_text(row, MCP_TOKENS_SEALED), &sealed) ||
        !seal_open(arena, key_of(server), place_of(arena, server, caller), sealed, &plain))
        return NULL;
    struct mcp_grant *grant = read_grant(arena, plain);
    seal_wipe(plain);
    return grant;
}

may_suspend bool mcp_grant_load(struct mcp_upstream *server, struct context *ctx,
                                const struct mcp_caller *caller, struct mcp_grant **out,
                                struct error *e)
{
    struct error why = {0};
    struct record *key = ARENA_NEW(ctx->arena, struct record);
    struct record *row = ARENA_NEW(ctx->arena, struct record);
    *out = NULL;
    if (!server->client->seal_key)
        return true;
    key->table = row->table = TABLE_MCP_TOKENS;
    set_key(key, server, caller);
    if (!store_get(server->client->options.store, ctx, caller->tenant_id, key, row, &why))
        return why.code == ERROR_NOT_FOUND || error_copy(e, &why);
    OWNED(mcp_grant) grant = open_row(server, ctx->arena, caller, row);
    if (!grant)
        LOG_WARN("nexus.mcp", S("a login cannot be opened: its key is another one (mcp.key)"),
                 LOG_STR("nexus.mcp.server", server->config.name));
    /* A token is for the URL that it was asked for. */
    if (grant && str_equal(grant->url, server->config.url))
        *out = GIVE(grant);
    return true;
}

may_suspend bool mcp_grant_save(struct mcp_upstream *server, struct context *ctx,
                                const struct mcp_caller *caller, const struct mcp_grant *grant,
                                struct error *e)
{
    struct batch batch;
    str plain = write_grant(ctx->arena, grant);
    str sealed =
        seal_close(ctx->arena, key_of(server), place_of(ctx->arena, server, caller), plain);
    seal_wipe(plain);
    batch_init(&batch, ctx->arena, caller->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPSERT, TABLE_MCP_TOKENS);
    set_key(row, server, caller);
    record_set_text(row, MCP_TOKENS_SEALED, base64_encode(ctx->arena, sealed));
    record_set_text(row, MCP_TOKENS_ISSUER, grant->issuer);
    record_set_integer(row, MCP_TOKENS_CREATED_AT, grant->created_us);
    record_set_integer(row, MCP_TOKENS_UPDATED_AT, grant->issued_us);
    return store_commit(server->client->options.store, ctx, &batch, e) ||
           error_wrap(e, "store the login");
}

may_suspend bool mcp_grant_forget(struct mcp_upstream *server, struct context *ctx,
                                  const struct mcp_caller *caller, struct error *e)
{
    struct batch batch;
    batch_init(&batch, ctx->arena, caller->tenant_id);
    set_key(batch_add(&batch, WRITE_DELETE, TABLE_MCP_TOKENS), server, caller);
    return store_commit(server->client->options.store, ctx, &batch, e) ||
           error_wrap(e, "remove the login");
}
