#include "cli/config/mcp_servers.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "cli/config/config_internal.h"
#include "mcp/oauth.h"
#include "net/egress.h"
#include <stdlib.h>

enum { SECRETS_MAX = 64, LIST_MAX = 256 };

struct reader {
    const struct yaml_document *document;
    const char *(*environment)(const char *);
    struct mcp_servers *servers;
};

static bool resolve(const struct reader *reader, const struct json *value, const char *what,
                    str *out, struct error *e)
{
    str raw;
    struct error why;
    if (!json_to_str(value, &raw))
        return yaml_error(reader->document, value, e, "%s must be a text", what);
    if (config_resolve(reader->servers->arena, raw, reader->environment, out, &why))
        return true;
    return yaml_error(reader->document, value, e, "%s: %s", what, why.message);
}

static bool read_list(const struct reader *reader, const struct json *value, const char *what,
                      struct str_list *out, struct error *e)
{
    const struct json *item;
    if (json_type(value) != JSON_ARRAY || json_count(value) > LIST_MAX)
        return yaml_error(reader->document, value, e, "%s must be a list of texts", what);
    out->items = ARENA_ARRAY(reader->servers->arena, str, json_count(value) + 1);
    struct json_iter it = json_iter(value);
    while (json_next(&it, NULL, &item))
        if (!resolve(reader, item, what, &out->items[out->count++], e))
            return false;
    return true;
}

static bool read_secrets(const struct reader *reader, const struct json *value, const char *what,
                         struct mcp_secret_text **out, size_t *count, struct error *e)
{
    str name, text;
    const struct json *item;
    if (json_type(value) != JSON_OBJECT || json_count(value) > SECRETS_MAX)
        return yaml_error(reader->document, value, e, "%s must be a mapping of names to texts",
                          what);
    *out = ARENA_ARRAY(reader->servers->arena, struct mcp_secret_text, json_count(value) + 1);
    struct json_iter it = json_iter(value);
    while (json_next(&it, &name, &item)) {
        if (!resolve(reader, item, what, &text, e))
            return false;
        if (!http_header_is_safe(name, text))
            return yaml_error(reader->document, item, e, "%s: " STR_FMT " is not one line of text",
                              what, STR_ARG(str_cut_utf8(name, 60)));
        (*out)[(*count)++] =
            (struct mcp_secret_text){str_copy(reader->servers->arena, name), secret_create(text)};
    }
    return true;
}

static bool read_approve(const struct reader *reader, const struct json *value,
                         struct mcp_upstream_config *out, struct error *e)
{
    str text;
    if (!resolve(reader, value, "approve", &text, e))
        return false;
    out->is_first_use = str_equal(text, S("first_use"));
    return out->is_first_use || str_equal(text, S("manual")) ||
           yaml_error(reader->document, value, e, "approve is manual or first_use");
}

static bool read_timeout(const struct reader *reader, const struct json *value,
                         struct mcp_upstream_config *out, struct error *e)
{
    str text;
    struct error why;
    struct setting setting = {.name = "timeout",
                              .kind = SETTING_DURATION,
                              .offset = offsetof(struct mcp_upstream_config, timeout_ms),
                              .min = 1,
                              .max = TOOL_TIME_MS_MAX};
    return resolve(reader, value, "timeout", &text, e) &&
           (setting_read_text(&setting, reader->servers->arena, text, out, &why) ||
            yaml_error(reader->document, value, e, "timeout: %s", why.message));
}

static bool read_client_secret(const struct reader *reader, const struct json *value,
                               struct mcp_oauth_config *out, struct error *e)
{
    str text;
    if (!resolve(reader, value, "client_secret", &text, e))
        return false;
    if (str_is_empty(text) || text.len > MCP_OAUTH_TOKEN_BYTES_MAX)
        return yaml_error(reader->document, value, e, "client_secret is empty or too long");
    out->client_secret = secret_create(text);
    return true;
}

static bool read_oauth_url(const struct reader *reader, const struct json *value, const char *what,
                           str *out, struct error *e)
{
    struct error why;
    return resolve(reader, value, what, out, e) &&
           (oauth_url_check(*out, what, &why) ||
            yaml_error(reader->document, value, e, "%s", why.message));
}

static bool read_oauth_member(const struct reader *reader, str key, const struct json *value,
                              struct mcp_oauth_config *out, struct error *e)
{
    str text;
    if (str_equal(key, S("client_id")))
        return resolve(reader, value, "client_id", &out->client_id, e);
    if (str_equal(key, S("client_secret")))
        return read_client_secret(reader, value, out, e);
    if (str_equal(key, S("scopes")))
        return read_list(reader, value, "scopes", &out->scopes, e);
    if (str_equal(key, S("redirect_url")))
        return read_oauth_url(reader, value, "redirect_url", &out->redirect_url, e);
    if (str_equal(key, S("issuer")))
        return read_oauth_url(reader, value, "issuer", &out->issuer, e);
    if (str_equal(key, S("register")))
        return json_to_bool(value, &out->may_register) ||
               yaml_error(reader->document, value, e, "register is true or false");
    if (str_equal(key, S("per")))
        return resolve(reader, value, "per", &text, e) &&
               (str_equal(text, S("user")) ||
                yaml_error(reader->document, value, e,
                           "per is user: for one login of the operator use headers"));
    return yaml_error(reader->document, value, e,
                      "unknown setting \"" STR_FMT "\"; oauth has client_id, client_secret, "
                      "scopes, redirect_url, issuer, register, per",
                      STR_ARG(str_cut_utf8(key, 60)));
}

static bool read_oauth(const struct reader *reader, const struct json *value,
                       struct mcp_oauth_config *out, struct error *e)
{
    str key;
    const struct json *member;
    if (json_type(value) != JSON_OBJECT)
        return yaml_error(reader->document, value, e, "oauth is a mapping; {per: user} will do");
    struct json_iter it = json_iter(value);
    while (json_next(&it, &key, &member))
        if (!read_oauth_member(reader, key, member, out, e))
            return false;
    out->is_per_user = true;
    return !out->client_secret || !str_is_empty(out->client_id) ||
           yaml_error(reader->document, value, e, "client_secret goes with a client_id");
}

static bool read_member(const struct reader *reader, str key, const struct json *value,
                        struct mcp_upstream_config *out, struct error *e)
{
    if (str_equal(key, S("name")))
        return resolve(reader, value, "name", &out->name, e);
    if (str_equal(key, S("command")))
        return read_list(reader, value, "command", &out->command, e);
    if (str_equal(key, S("directory")))
        return resolve(reader, value, "directory", &out->directory, e);
    if (str_equal(key, S("env")))
        return read_secrets(reader, value, "env", &out->environment, &out->environment_count, e);
    if (str_equal(key, S("url")))
        return resolve(reader, value, "url", &out->url, e);
    if (str_equal(key, S("headers")))
        return read_secrets(reader, value, "headers", &out->headers, &out->header_count, e);
    if (str_equal(key, S("allowed_ips")))
        return read_list(reader, value, "allowed_ips", &out->allowed_ips, e);
    if (str_equal(key, S("tools")))
        return read_list(reader, value, "tools", &out->tools, e);
    if (str_equal(key, S("pure")))
        return read_list(reader, value, "pure", &out->pure, e);
    if (str_equal(key, S("idempotent")))
        return read_list(reader, value, "idempotent", &out->idempotent, e);
    if (str_equal(key, S("category")))
        return resolve(reader, value, "category", &out->category, e);
    if (str_equal(key, S("timeout")))
        return read_timeout(reader, value, out, e);
    if (str_equal(key, S("approve")))
        return read_approve(reader, value, out, e);
    if (str_equal(key, S("oauth")))
        return read_oauth(reader, value, &out->oauth, e);
    return yaml_error(
        reader->document, value, e,
        "unknown setting \"" STR_FMT "\"; a server has name, command, directory, env, "
        "url, headers, allowed_ips, tools, pure, idempotent, category, timeout, approve, oauth",
        STR_ARG(str_cut_utf8(key, 60)));
}

static bool check_url(const struct reader *reader, const struct json *value,
                      const struct mcp_upstream_config *config, struct error *e)
{
    struct error why;
    struct http_url url;
    struct egress_rules *rules;
    if (!http_url_parse(config->url, &url, &why))
        return yaml_error(reader->document, json_get(value, S("url")), e, "url: %s", why.message);
    struct egress_options options = {.allowed_hosts = &url.host,
                                     .allowed_host_count = 1,
                                     .allowed_ips = config->allowed_ips.items,
                                     .allowed_ip_count = config->allowed_ips.count};
    if (!egress_rules_create(&options, &rules, &why))
        return yaml_error(reader->document, value, e, "allowed_ips: %s", why.message);
    egress_rules_destroy(rules);
    return true;
}

static bool check_server(const struct reader *reader, const struct json *value,
                         const struct mcp_upstream_config *config, struct error *e)
{
    const struct mcp_servers *servers = reader->servers;
    bool is_stdio = config->command.count > 0;
    if (!mcp_upstream_name_is_valid(config->name))
        return yaml_error(reader->document, value, e,
                          "the name of an MCP server is 1 to %u of a-z, 0-9 and -",
                          MCP_SERVER_NAME_BYTES_MAX);
    for (size_t i = 0; i < servers->count; i++)
        if (str_equal(servers->items[i].name, config->name))
            return yaml_error(reader->document, value, e, "two MCP servers are called " STR_FMT,
                              STR_ARG(config->name));
    if (is_stdio == !str_is_empty(config->url))
        return yaml_error(reader->document, value, e,
                          "an MCP server has either a command or a url");
    if (is_stdio && (config->header_count > 0 || config->allowed_ips.count > 0))
        return yaml_error(reader->document, value, e, "headers and allowed_ips go with a url");
    if (is_stdio && config->oauth.is_per_user)
        return yaml_error(reader->document, value, e, "oauth goes with a url");
    if (!is_stdio && (config->environment_count > 0 || !str_is_empty(config->directory)))
        return yaml_error(reader->document, value, e, "env and directory go with a command");
    return is_stdio || check_url(reader, value, config, e);
}

static bool read_servers(const struct reader *reader, const struct json *list, struct error *e)
{
    str key;
    const struct json *value, *member;
    struct mcp_servers *servers = reader->servers;
    if (json_type(list) != JSON_ARRAY || json_count(list) > MCP_SERVERS_MAX)
        return yaml_error(reader->document, list, e, "mcp.servers is a list of at most %u servers",
                          MCP_SERVERS_MAX);
    servers->items = ARENA_ARRAY(servers->arena, struct mcp_upstream_config, json_count(list) + 1);
    struct json_iter it = json_iter(list);
    while (json_next(&it, NULL, &value)) {
        struct mcp_upstream_config *config = &servers->items[servers->count];
        struct json_iter members = json_iter(value);
        bool is_fine = json_type(value) == JSON_OBJECT ||
                       yaml_error(reader->document, value, e, "an MCP server is a mapping");
        while (is_fine && json_next(&members, &key, &member))
            is_fine = read_member(reader, key, member, config, e);
        is_fine = is_fine && check_server(reader, value, config, e);
        servers->count++; /* what it holds by now is given back with the others */
        if (!is_fine)
            return false;
    }
    return true;
}

const char *config_environment(const char *name)
{
    return getenv(name);
}

bool mcp_servers_read(const struct config *config, const char *(*environment)(const char *),
                      struct mcp_servers **out, struct error *e)
{
    str key;
    const struct json *value;
    OWNED(mcp_servers) servers = calloc(1, sizeof *servers);
    ensure(servers != NULL);
    servers->arena = arena_create(0);
    struct reader reader = {&config->document, environment, servers};
    const struct json *section = json_get(config->document.root, S("mcp"));
    if (section && json_type(section) != JSON_OBJECT && json_type(section) != JSON_NULL)
        return yaml_error(&config->document, section, e, "mcp has the member servers");
    struct json_iter it = json_iter(section);
    while (json_next(&it, &key, &value)) {
        if (!str_equal(key, S("servers")))
            return yaml_error(&config->document, value, e,
                              "unknown setting \"" STR_FMT "\"; mcp has the member servers",
                              STR_ARG(str_cut_utf8(key, 60)));
        if (!read_servers(&reader, value, e))
            return false;
    }
    *out = GIVE(servers);
    return true;
}

static void destroy_secrets(struct mcp_secret_text *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        secret_destroy(items[i].value);
}

void mcp_servers_destroy(struct mcp_servers *servers)
{
    if (!servers)
        return;
    for (size_t i = 0; i < servers->count; i++) {
        destroy_secrets(servers->items[i].environment, servers->items[i].environment_count);
        destroy_secrets(servers->items[i].headers, servers->items[i].header_count);
        secret_destroy(servers->items[i].oauth.client_secret);
    }
    arena_destroy(servers->arena);
    free(servers);
}
