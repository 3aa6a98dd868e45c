#include "agent/mcp/mcp_internal.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/log.h"
#include <stdlib.h>

static void client_executor_destroy(struct executor *executor)
{
    (void) executor; /* the client is its creator's */
}

static const struct executor_ops executor_ops = {"mcp", mcp_call_execute, client_executor_destroy};

struct mcp_client *mcp_client_create(const struct mcp_client_options *options)
{
    struct mcp_client *client = calloc(1, sizeof *client);
    ensure(client != NULL);
    client->executor.ops = &executor_ops;
    client->arena = arena_create(0);
    client->options = *options;
    client->options.version = str_copy(client->arena, options->version);
    if (options->seal_key)
        client->seal_key = secret_create(secret_reveal(options->seal_key));
    client->options.seal_key = client->seal_key;
    list_init(&client->servers);
    list_init(&client->logins);
    return client;
}

void mcp_client_destroy(struct mcp_client *client)
{
    if (!client)
        return;
    ensure(list_is_empty(&client->servers));
    mcp_logins_destroy(client);
    secret_destroy(client->seal_key);
    arena_destroy(client->arena);
    free(client);
}

struct executor *mcp_client_executor(struct mcp_client *client)
{
    return &client->executor;
}

struct mcp_upstream *mcp_client_find(struct mcp_client *client, str name)
{
    LIST_EACH(node, &client->servers)
    {
        struct mcp_upstream *server = LIST_ITEM(node, struct mcp_upstream, link);
        if (str_equal(server->config.name, name))
            return server;
    }
    return NULL;
}

may_suspend bool mcp_client_need(struct mcp_client *client, str name, struct mcp_upstream **out,
                                 struct error *e)
{
    *out = mcp_client_find(client, name);
    if (*out)
        return true;
    return error_set(e, REASON_NOT_FOUND,
                     "there is no MCP server \"" STR_FMT
                     "\" (configure mcp.servers; nexus mcp list)",
                     STR_ARG(str_cut_utf8(name, MCP_SERVER_NAME_BYTES_MAX)));
}

bool mcp_upstream_name_is_valid(str name)
{
    if (str_is_empty(name) || name.len > MCP_SERVER_NAME_BYTES_MAX || name.ptr[0] == '-')
        return false;
    for (size_t i = 0; i < name.len; i++) {
        char c = name.ptr[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && c != '-')
            return false;
    }
    return true;
}

/* ---- configuration ---- */

static void add_text(struct digest_stream *stream, str text)
{
    uint64_t bytes = text.len;
    digest_stream_add(stream, str_of((const char *) &bytes, sizeof bytes));
    digest_stream_add(stream, text);
}

static void add_list(struct digest_stream *stream, const struct str_list *list)
{
    add_text(stream, str_of((const char *) &list->count, sizeof list->count));
    for (size_t i = 0; i < list->count; i++)
        add_text(stream, list->items[i]);
}

static void add_secrets(struct digest_stream *stream, const struct mcp_secret_text *items,
                        size_t count)
{
    add_text(stream, str_of((const char *) &count, sizeof count));
    for (size_t i = 0; i < count; i++) {
        add_text(stream, items[i].name);
        add_text(stream, secret_reveal(items[i].value)); /* into a digest that stays in memory */
    }
}

static void add_oauth(struct digest_stream *stream, const struct mcp_oauth_config *oauth)
{
    add_text(stream, oauth->is_per_user ? S("user") : S("operator"));
    add_text(stream, oauth->client_id);
    add_text(stream, oauth->client_secret ? secret_reveal(oauth->client_secret) : STR_NONE);
    add_text(stream, oauth->redirect_url);
    add_text(stream, oauth->issuer);
    add_text(stream, oauth->may_register ? S("register") : STR_NONE);
    add_list(stream, &oauth->scopes);
}

static digest digest_of(const struct mcp_upstream_config *config)
{
    OWNED(digest_stream) stream = digest_stream_create();
    add_text(stream, config->name);
    add_text(stream, config->url);
    add_text(stream, config->directory);
    add_text(stream, config->category);
    add_text(stream, config->is_first_use ? S("first_use") : S("manual"));
    add_text(stream, str_of((const char *) &config->timeout_ms, sizeof config->timeout_ms));
    add_list(stream, &config->command);
    add_list(stream, &config->allowed_ips);
    add_list(stream, &config->tools);
    add_list(stream, &config->pure);
    add_list(stream, &config->idempotent);
    add_secrets(stream, config->environment, config->environment_count);
    add_secrets(stream, config->headers, config->header_count);
    add_oauth(stream, &config->oauth);
    return digest_stream_finish(stream);
}

static struct str_list copy_list(struct arena *arena, const struct str_list *from)
{
    struct str_list list = {.items = ARENA_ARRAY(arena, str, from->count + 1),
                            .count = from->count};
    for (size_t i = 0; i < from->count; i++)
        list.items[i] = str_copy(arena, from->items[i]);
    return list;
}

static struct mcp_secret_text *copy_secrets(struct arena *arena, const struct mcp_secret_text *from,
                                            size_t count)
{
    struct mcp_secret_text *items = ARENA_ARRAY(arena, struct mcp_secret_text, count + 1);
    for (size_t i = 0; i < count; i++)
        items[i] = (struct mcp_secret_text){str_copy(arena, from[i].name),
                                            secret_create(secret_reveal(from[i].value))};
    return items;
}

static struct mcp_oauth_config copy_oauth(struct arena *arena, const struct mcp_oauth_config *from)
{
    struct mcp_oauth_config to = *from;
    to.client_id = str_copy(arena, from->client_id);
    to.redirect_url = str_copy(arena, from->redirect_url);
    to.issuer = str_copy(arena, from->issuer);
    to.scopes = copy_list(arena, &from->scopes);
    if (from->client_secret)
        to.client_secret = secret_create(secret_reveal(from->client_secret));
    return to;
}

static struct mcp_upstream *server_create(struct mcp_client *client,
                                          const struct mcp_upstream_config *from)
{
    struct mcp_upstream *server = calloc(1, sizeof *server);
    ensure(server != NULL);
    struct arena *arena = server->arena = arena_create(0);
    server->client = client;
    server->config = *from;
    server->config.name = str_copy(arena, from->name);
    server->config.directory = str_copy(arena, from->directory);
    server->config.url = str_copy(arena, from->url);
    server->config.category = str_copy(arena, from->category);
    server->config.command = copy_list(arena, &from->command);
    server->config.allowed_ips = copy_list(arena, &from->allowed_ips);
    server->config.tools = copy_list(arena, &from->tools);
    server->config.pure = copy_list(arena, &from->pure);
    server->config.idempotent = copy_list(arena, &from->idempotent);
    server->config.environment = copy_secrets(arena, from->environment, from->environment_count);
    server->config.headers = copy_secrets(arena, from->headers, from->header_count);
    server->config.oauth = copy_oauth(arena, &from->oauth);
    list_init(&server->works);
    list_init(&server->persons);
    server->config_digest = digest_of(from);
    return server;
}

struct wanted {
    const struct mcp_upstream_config *servers;
    size_t count;
};

static const struct mcp_upstream_config *find_wanted(const struct wanted *wanted, str name)
{
    for (size_t i = 0; i < wanted->count; i++)
        if (str_equal(wanted->servers[i].name, name))
            return &wanted->servers[i];
    return NULL;
}

/* Its tools go with it, unless another of its name follows at once. */
may_suspend static bool end_server(struct mcp_client *client, struct context *ctx,
                                   struct mcp_upstream *server, bool is_replaced, struct error *e)
{
    struct error failure;
    if (!mcp_upstream_stop(server, ctx, e))
        return false;
    list_remove(&server->link);
    if (!is_replaced &&
        !registry_set_source(client->options.registry, server->config.name, NULL, 0, &failure))
        LOG_ERROR("nexus.mcp", S("tools of a server that is gone could not be removed"), &failure,
                  LOG_STR("nexus.mcp.server", server->config.name));
    mcp_upstream_destroy(server);
    return true;
}

may_suspend static bool configure_there(struct mcp_client *client, struct context *ctx,
                                        void *argument, str *output, struct error *e)
{
    const struct wanted *wanted = argument;
    (void) output;
    LIST_EACH(node, &client->servers)
    {
        struct mcp_upstream *server = LIST_ITEM(node, struct mcp_upstream, link);
        const struct mcp_upstream_config *same = find_wanted(wanted, server->config.name);
        if (same && digest_equal(digest_of(same), server->config_digest))
            continue;
        if (!end_server(client, ctx, server, same != NULL, e))
            return false;
    }
    for (size_t i = 0; i < wanted->count && !client->is_stopped; i++) {
        if (mcp_client_find(client, wanted->servers[i].name))
            continue;
        struct mcp_upstream *server = server_create(client, &wanted->servers[i]);
        list_push_back(&client->servers, &server->link);
        if (!mcp_upstream_start(server, e)) {
            list_remove(&server->link);
            mcp_upstream_destroy(server);
            return false;
        }
    }
    return true;
}

may_suspend bool mcp_client_configure(struct mcp_client *client, struct context *ctx,
                                      const struct mcp_upstream_config *servers, size_t count,
                                      struct error *e)
{
    struct wanted wanted = {servers, count};
    if (count > MCP_SERVERS_MAX)
        return error_set(e, REASON_CONFIG, "more than %u MCP servers", MCP_SERVERS_MAX);
    return mcp_hop(client, ctx, configure_there, &wanted, NULL, 0, e);
}

may_suspend static bool stop_there(struct mcp_client *client, struct context *ctx, void *argument,
                                   str *output, struct error *e)
{
    (void) argument, (void) output;
    client->is_stopped = true;
    LIST_EACH(node, &client->servers) /* all at once, then one by one */
    context_cancel(&LIST_ITEM(node, struct mcp_upstream, link)->ctx);
    while (!list_is_empty(&client->servers)) {
        struct mcp_upstream *server = LIST_ITEM(client->servers.next, struct mcp_upstream, link);
        if (!end_server(client, ctx, server, true, e))
            return false;
    }
    return true;
}

may_suspend bool mcp_client_stop(struct mcp_client *client, struct context *ctx, struct error *e)
{
    return mcp_hop(client, ctx, stop_there, NULL, NULL, 0, e);
}
