/* A user's way to a token: the URL, the callback, the end. */
#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/digest.h"
#include "base/ensure.h"
#include "base/timefmt.h"
#include <stdlib.h>

enum { SECRET_BYTES = 32, US_PER_MS = 1000, SHOWN_BYTES_MAX = 64 << 10 };

/* Begun, and not come back yet. */
struct pending {
    struct list link; /* of client->logins, oldest first */
    struct mcp_upstream *server;
    struct arena *arena;
    struct mcp_caller caller;
    digest state; /* of it, not itself */
    struct secret *verifier;
    struct mcp_grant *client; /* a grant without a token: who we are, and where to ask */
    str redirect_url;
    bool tells_issuer;
    int64_t expires_us;
};

static void pending_destroy(struct pending *pending)
{
    if (!pending)
        return;
    secret_destroy(pending->verifier);
    mcp_grant_destroy(pending->client);
    arena_destroy(pending->arena);
    free(pending);
}
OWNED_DEFINE(pending)

static void take_out(struct mcp_client *client, struct pending *pending)
{
    list_remove(&pending->link);
    client->login_count--;
}

void mcp_logins_destroy(struct mcp_client *client)
{
    while (!list_is_empty(&client->logins)) {
        struct pending *pending = LIST_ITEM(client->logins.next, struct pending, link);
        take_out(client, pending);
        pending_destroy(pending);
    }
}

void mcp_logins_forget_server(struct mcp_client *client, const struct mcp_upstream *server)
{
    LIST_EACH(node, &client->logins)
    {
        struct pending *pending = LIST_ITEM(node, struct pending, link);
        if (pending->server != server)
            continue;
        take_out(client, pending);
        pending_destroy(pending);
    }
}

static void drop_expired(struct mcp_client *client)
{
    int64_t now_us = clock_unix_us(client->options.clock);
    LIST_EACH(node, &client->logins)
    {
        struct pending *pending = LIST_ITEM(node, struct pending, link);
        if (pending->expires_us > now_us)
            continue;
        take_out(client, pending);
        pending_destroy(pending);
    }
}

static bool is_same_caller(const struct mcp_caller *a, const struct mcp_caller *b)
{
    return uuid_equal(a->tenant_id, b->tenant_id) && str_equal(a->user_id, b->user_id);
}

static bool is_waiting(struct mcp_client *client, const struct mcp_upstream *server,
                       const struct mcp_caller *caller)
{
    drop_expired(client);
    LIST_EACH(node, &client->logins)
    {
        const struct pending *pending = LIST_ITEM(node, struct pending, link);
        if (pending->server == server && is_same_caller(&pending->caller, caller))
            return true;
    }
    return false;
}

/* A place for one more; the user's own oldest makes room. */
static bool make_room(struct mcp_client *client, const struct mcp_caller *caller, struct error *e)
{
    size_t count = 0;
    struct pending *oldest = NULL;
    drop_expired(client);
    LIST_EACH(node, &client->logins)
    {
        struct pending *pending = LIST_ITEM(node, struct pending, link);
        if (!is_same_caller(&pending->caller, caller))
            continue;
        if (!oldest)
            oldest = pending;
        count++;
    }
    if (count >= MCP_LOGINS_PER_USER) {
        take_out(client, oldest);
        pending_destroy(oldest);
    }
    return client->login_count < MCP_LOGINS_MAX ||
           error_set(e, REASON_OVERLOADED_HERE, "%u logins wait for their users already",
                     MCP_LOGINS_MAX);
}

static str random_text(struct arena *arena)
{
    uint8_t bytes[SECRET_BYTES];
    digest_random_bytes(bytes, sizeof bytes);
    str text = base64url_encode(arena, str_of((const char *) bytes, sizeof bytes));
    explicit_bzero(bytes, sizeof bytes);
    return text;
}

/* ---- begin ---- */

/* Who we are at that authorization server. */
may_suspend static bool choose_client(struct mcp_upstream *server, struct context *ctx,
                                      const struct oauth_server *at, const struct mcp_login *login,
                                      struct pending *pending, struct error *e)
{
    const struct mcp_oauth_config *config = &server->config.oauth;
    struct mcp_grant *client = pending->client;
    struct oauth_client registered = {0};
    bool has_document = at->takes_documents && str_is_empty(config->redirect_url) &&
                        str_starts_with(login->base_url, S("https://"));
    if (!str_is_empty(config->client_id)) {
        client->client_id = str_copy(client->arena, config->client_id);
        if (config->client_secret)
            client->client_secret = secret_create(secret_reveal(config->client_secret));
    } else if (has_document) {
        client->client_id =
            str_printf(client->arena, STR_FMT MCP_CLIENT_DOCUMENT_PATH, STR_ARG(login->base_url));
    } else if (config->may_register && !str_is_empty(at->registration_endpoint)) {
        if (!mcp_oauth_register(server, ctx, at, pending->redirect_url, &registered, e))
            return false;
        client->client_id = str_copy(client->arena, registered.client_id);
        if (!str_is_empty(registered.client_secret))
            client->client_secret = secret_create(registered.client_secret);
    } else {
        return error_set(e, REASON_CONFIG,
                         "the authorization server of MCP server " STR_FMT " does not know this "
                         "node: set oauth.client_id of the server%s",
                         STR_ARG(server->config.name),
                         str_is_empty(at->registration_endpoint) ? ""
                                                                 : ", or oauth.register: true");
    }
    client->auth = client->client_secret ? at->secret_auth : OAUTH_AUTH_NONE;
    return true;
}

static bool set_redirect(struct pending *pending, const struct mcp_upstream *server,
                         const struct mcp_login *login, struct error *e)
{
    struct error why;
    str own = server->config.oauth.redirect_url;
    pending->redirect_url =
        str_is_empty(own)
            ? str_printf(pending->arena, STR_FMT MCP_CALLBACK_PATH, STR_ARG(login->base_url))
            : str_copy(pending->arena, own);
    return oauth_url_check(pending->redirect_url, "the callback", &why) ||
           error_set(e, REASON_CONFIG,
                     "logins come back to an https address or this machine only: set "
                     "mcp_server.public_url, or oauth.redirect_url of the server");
}

may_suspend static bool prepare(struct mcp_upstream *server, struct context *ctx,
                                const struct mcp_login *login, struct pending *pending, str *url,
                                struct error *e)
{
    struct mcp_discovery *found = ARENA_NEW(ctx->arena, struct mcp_discovery);
    struct mcp_grant *client = pending->client;
    if (!set_redirect(pending, server, login, e) || !mcp_oauth_discover(server, ctx, found, e) ||
        !choose_client(server, ctx, &found->server, login, pending, e))
        return false;
    client->issuer = str_copy(client->arena, found->server.issuer);
    client->resource = str_copy(client->arena, found->resource);
    client->scope = str_copy(client->arena, found->scope);
    client->token_endpoint = str_copy(client->arena, found->server.token_endpoint);
    client->revocation_endpoint = str_copy(client->arena, found->server.revocation_endpoint);
    pending->tells_issuer = found->server.tells_issuer;
    str state = random_text(ctx->arena), verifier = random_text(ctx->arena);
    pending->state = digest_sha256(state);
    pending->verifier = secret_create(verifier);
    struct oauth_question question = {.client_id = client->client_id,
                                      .redirect_url = pending->redirect_url,
                                      .scope = client->scope,
                                      .state = state,
                                      .verifier = verifier,
                                      .resource = client->resource};
    *url = oauth_authorization_url(ctx->arena, &found->server, &question);
    return true;
}

static struct pending *pending_create(struct mcp_upstream *server, const struct mcp_caller *caller)
{
    struct pending *pending = calloc(1, sizeof *pending);
    ensure(pending != NULL);
    pending->arena = arena_create(0);
    pending->server = server;
    pending->caller =
        (struct mcp_caller){caller->tenant_id, str_copy(pending->arena, caller->user_id)};
    pending->client = mcp_grant_create();
    return pending;
}

static bool need_server(struct mcp_client *client, const struct mcp_login *login,
                        struct mcp_upstream **out, struct error *e)
{
    if (!mcp_client_need(client, login->server, out, e))
        return false;
    if (!(*out)->config.oauth.is_per_user)
        return error_set(e, REASON_UNSUPPORTED,
                         "MCP server " STR_FMT " has no logins of users (configure its `oauth`)",
                         STR_ARG(login->server));
    return client->seal_key ||
           error_set(e, REASON_UNAVAILABLE, "this node has no key to seal tokens with");
}

may_suspend static bool begin(struct mcp_upstream *server, struct context *ctx,
                              const struct mcp_login *login, str *json, struct error *e)
{
    str url;
    struct strbuf text;
    struct json_writer w;
    struct mcp_client *client = server->client;
    OWNED(pending) pending = pending_create(server, &login->caller);
    if (!prepare(server, ctx, login, pending, &url, e) || !make_room(client, &login->caller, e))
        return false;
    pending->expires_us = clock_unix_us(client->options.clock) + MCP_LOGIN_MS * US_PER_MS;
    strbuf_init(&text, ctx->arena, SHOWN_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("server"), server->config.name);
    json_put_str(&w, S("authorization_url"), url);
    json_put_str(&w, S("expires_at"), time_str(ctx->arena, pending->expires_us));
    json_object_end(&w);
    *json = strbuf_str(&text);
    list_push_back(&client->logins, &pending->link);
    client->login_count++;
    (void) GIVE(pending); /* the list's */
    return true;
}

may_suspend static bool begin_there(struct mcp_client *client, struct context *ctx, void *argument,
                                    str *output, struct error *e)
{
    const struct mcp_login *login = argument;
    struct mcp_upstream *server;
    struct mcp_work work;
    if (!need_server(client, login, &server, e) || !mcp_work_begin(&work, ctx, server, e))
        return false;
    bool is_ok = begin(server, &work.ctx, login, output, e);
    mcp_work_end(&work);
    return is_ok;
}

may_suspend bool mcp_login_begin(struct mcp_client *client, struct context *ctx,
                                 const struct mcp_login *login, str *json, struct error *e)
{
    struct mcp_login copy = *login;
    return mcp_hop(client, ctx, begin_there, &copy, json, 1, e);
}

/* ---- the callback ---- */

enum { OUTPUT_SERVER, OUTPUT_USER };

/* What the login brought, in the store and in memory; whatever stood there is replaced. */
may_suspend static bool keep(struct pending *pending, struct context *ctx,
                             struct mcp_grant *give_grant, struct error *e)
{
    struct mcp_person *person;
    OWNED(mcp_grant) grant = give_grant;
    struct mcp_upstream *server = pending->server;
    if (!mcp_person_get(server, &pending->caller, &person, e))
        return false;
    bool is_ok = mcp_person_lock(person, ctx, e);
    if (is_ok) {
        is_ok =
            mcp_note(server, ctx, &pending->caller, S("mcp.login"), grant->issuer, STR_NONE, e) &&
            mcp_grant_save(server, ctx, &pending->caller, grant, e);
        if (is_ok) {
            mcp_person_end_session(person);
            mcp_person_set(person, GIVE(grant));
        }
        mcp_person_unlock(person);
    }
    mcp_person_let_go(person);
    return is_ok;
}

may_suspend static bool finish(struct pending *pending, struct context *ctx,
                               const struct mcp_callback *callback, struct error *e)
{
    bool is_final;
    struct mcp_grant *grant;
    struct mcp_exchange exchange = {.from = pending->client,
                                    .code = callback->code,
                                    .verifier = secret_reveal(pending->verifier),
                                    .redirect_url = pending->redirect_url};
    if (!oauth_issuer_check(pending->client->issuer, pending->tells_issuer, callback->iss, e))
        return false;
    if (!str_is_empty(callback->error) || str_is_empty(callback->code))
        return error_set(e, REASON_DENIED, "the authorization server did not grant it");
    return mcp_oauth_exchange(pending->server, ctx, &exchange, &grant, &is_final, e) &&
           keep(pending, ctx, grant, e);
}

static bool set_unknown(struct error *e)
{
    return error_set(e, REASON_DENIED,
                     "this login is not known: it was used already, is too old, or was never "
                     "begun; begin it again");
}

static struct pending *find_state(struct mcp_client *client, str state)
{
    digest wanted = digest_sha256(state);
    drop_expired(client);
    LIST_EACH(node, &client->logins)
    {
        struct pending *pending = LIST_ITEM(node, struct pending, link);
        if (!str_is_empty(state) && digest_equal(pending->state, wanted))
            return pending;
    }
    return NULL;
}

static void tell_whose(const struct pending *pending, struct arena *arena, str *outputs)
{
    outputs[OUTPUT_SERVER] = str_copy(arena, pending->server->config.name);
    outputs[OUTPUT_USER] = str_copy(arena, pending->caller.user_id);
}

static bool look_there(struct mcp_client *client, struct context *ctx, void *argument, str *outputs,
                       struct error *e)
{
    const struct mcp_callback *callback = argument;
    const struct pending *pending = find_state(client, callback->state);
    if (!pending)
        return set_unknown(e);
    tell_whose(pending, ctx->arena, outputs);
    return true;
}

may_suspend static bool finish_there(struct mcp_client *client, struct context *ctx, void *argument,
                                     str *outputs, struct error *e)
{
    const struct mcp_callback *callback = argument;
    struct mcp_work work;
    OWNED(pending) pending = find_state(client, callback->state);
    if (!pending)
        return set_unknown(e);
    take_out(client, pending); /* good once, however it ends */
    if (!mcp_work_begin(&work, ctx, pending->server, e))
        return false;
    bool is_ok = finish(pending, &work.ctx, callback, e);
    tell_whose(pending, ctx->arena, outputs);
    mcp_work_end(&work);
    return is_ok;
}

may_suspend static bool come_back(struct mcp_client *client, struct context *ctx, mcp_hop_fn *fn,
                                  const struct mcp_callback *callback, str *server, str *user_id,
                                  struct error *e)
{
    str outputs[MCP_HOP_OUTPUTS] = {{0}};
    struct mcp_callback copy = *callback;
    if (!mcp_hop(client, ctx, fn, &copy, outputs, 2, e))
        return false;
    *server = outputs[OUTPUT_SERVER];
    *user_id = outputs[OUTPUT_USER];
    return true;
}

may_suspend bool mcp_login_look(struct mcp_client *client, struct context *ctx,
                                const struct mcp_callback *callback, str *server, str *user_id,
                                struct error *e)
{
    return come_back(client, ctx, look_there, callback, server, user_id, e);
}

may_suspend bool mcp_login_finish(struct mcp_client *client, struct context *ctx,
                                  const struct mcp_callback *callback, str *server, str *user_id,
                                  struct error *e)
{
    return come_back(client, ctx, finish_there, callback, server, user_id, e);
}

/* ---- show, forget ---- */

static void put_text(struct json_writer *w, str key, str value)
{
    json_key(w, key);
    if (str_is_empty(value))
        json_write_null(w);
    else
        json_write_str(w, value);
}

static str when(struct arena *arena, int64_t us)
{
    return us > 0 ? time_str(arena, us) : STR_NONE;
}

static str write_state(struct mcp_upstream *server, struct arena *arena,
                       const struct mcp_person *person)
{
    struct strbuf text;
    struct json_writer w;
    const struct mcp_grant *grant = person->grant;
    strbuf_init(&text, arena, SHOWN_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("server"), server->config.name);
    json_put_str(&w, S("user_id"), person->caller.user_id);
    json_put_str(&w, S("state"), grant ? S("logged_in") : S("none"));
    json_put_bool(&w, S("is_waiting"), is_waiting(server->client, server, &person->caller));
    put_text(&w, S("issuer"), grant ? grant->issuer : STR_NONE);
    put_text(&w, S("scope"), grant ? grant->scope : STR_NONE);
    put_text(&w, S("logged_in_at"), grant ? when(arena, grant->created_us) : STR_NONE);
    put_text(&w, S("expires_at"), grant ? when(arena, grant->expires_us) : STR_NONE);
    json_put_bool(&w, S("is_renewable"), grant && grant->refresh);
    json_object_end(&w);
    return strbuf_str(&text);
}

may_suspend static bool forget(struct mcp_upstream *server, struct context *ctx,
                               struct mcp_person *person, struct error *e)
{
    if (!person->grant)
        return true;
    if (!mcp_note(server, ctx, &person->caller, S("mcp.logout"), person->grant->issuer, STR_NONE,
                  e) ||
        !mcp_grant_forget(server, ctx, &person->caller, e))
        return false;
    mcp_person_end_session(person); /* as long as it has a token to say so with */
    mcp_oauth_revoke(server, ctx, person->grant);
    mcp_person_set(person, NULL);
    return true;
}

struct asked {
    const struct mcp_login *login;
    bool is_logout;
};

may_suspend static bool state_there(struct mcp_client *client, struct context *ctx, void *argument,
                                    str *output, struct error *e)
{
    const struct asked *asked = argument;
    struct mcp_upstream *server;
    struct mcp_person *person;
    struct mcp_work work;
    if (!need_server(client, asked->login, &server, e) || !mcp_work_begin(&work, ctx, server, e))
        return false;
    bool is_ok = mcp_person_get(server, &asked->login->caller, &person, e);
    if (is_ok) {
        is_ok = mcp_person_lock(person, &work.ctx, e);
        if (is_ok) {
            is_ok = mcp_person_load(person, &work.ctx, e) &&
                    (!asked->is_logout || forget(server, &work.ctx, person, e));
            mcp_person_unlock(person);
        }
        if (is_ok)
            *output = write_state(server, ctx->arena, person);
        mcp_person_let_go(person);
    }
    mcp_work_end(&work);
    return is_ok;
}

may_suspend bool mcp_login_show(struct mcp_client *client, struct context *ctx,
                                const struct mcp_login *login, str *json, struct error *e)
{
    struct asked asked = {login, false};
    return mcp_hop(client, ctx, state_there, &asked, json, 1, e);
}

may_suspend bool mcp_login_forget(struct mcp_client *client, struct context *ctx,
                                  const struct mcp_login *login, struct error *e)
{
    struct asked asked = {login, true};
    return mcp_hop(client, ctx, state_there, &asked, NULL, 0, e);
}
