/* what the rows of the table cannot tell: references between settings */
#include "cli/config/config_internal.h"

#include "agent/tool/registry.h"
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "cli/config/mcp_servers.h"
#include "filter/filter.h"
#include "net/dns.h"
#include "net/egress.h"
#include "net/http.h"
#include "net/tls.h"
#include "orchestrator/run/agent_definition.h"

/* The place of item `index` of a list of the file, for messages. */
static const struct json *item_value(const struct config *config, str list, size_t index)
{
    return json_at(json_get(config->document.root, list), index);
}

/* Puts before a complaint about a setting of the root where it was set: "nexus.yaml:3", "NEXUS_LISTEN". */
static bool tell_place(const struct config *config, const char *name, struct error *e)
{
    for (size_t i = 0; i < config->origin_count; i++)
        if (strcmp(config->origins[i].setting->name, name) == 0)
            return error_wrap(e, STR_FMT, STR_ARG(config->origins[i].where));
    return false;
}

static bool check_listen(struct config *config, struct error *e)
{
    str listen = config->listen, host = listen, port = STR_NONE;
    uint64_t number;
    size_t colon = STR_NOT_FOUND;
    for (size_t i = 0; i < listen.len; i++)
        if (listen.ptr[i] == ':')
            colon = i;
    if (colon != STR_NOT_FOUND) {
        host = str_slice(listen, 0, colon);
        port = str_from(listen, colon + 1);
    }
    if (host.len >= 2 && host.ptr[0] == '[' && host.ptr[host.len - 1] == ']')
        host = str_slice(host, 1, host.len - 1);
    else if (str_find_char(host, ':') != STR_NOT_FOUND)
        return error_set(e, REASON_CONFIG, "listen: write an IPv6 address in brackets: [::1]:8080");
    if (str_equal(host, S("localhost")))
        host = S("127.0.0.1");
    if (str_is_empty(host) || !str_to_u64(port, &number) || number > 65535)
        return error_set(e, REASON_CONFIG,
                         "listen: \"" STR_FMT "\" is not ADDRESS:PORT, as in 127.0.0.1:8080",
                         STR_ARG(str_cut_utf8(listen, 80)));
    config->listen_address = host;
    config->listen_port = (uint16_t) number;
    return true;
}

static bool check_tls(const struct config *config, struct error *e)
{
    bool has_cert = !str_is_empty(config->tls_cert_file),
         has_key = !str_is_empty(config->tls_key_file);
    if (has_cert && !has_key) {
        error_set(e, REASON_CONFIG, "tls.cert_file needs tls.key_file beside it");
        return tell_place(config, "cert_file", e);
    }
    if (has_key && !has_cert) {
        error_set(e, REASON_CONFIG, "tls.key_file needs tls.cert_file beside it");
        return tell_place(config, "key_file", e);
    }
    if (has_cert || str_is_empty(config->tls_client_ca_file))
        return true;
    error_set(e, REASON_CONFIG, "tls.client_ca_file needs tls.cert_file and tls.key_file");
    return tell_place(config, "client_ca_file", e);
}

bool config_tls(const struct config *config, struct tls_server_options *out)
{
    if (str_is_empty(config->tls_cert_file))
        return false;
    *out = (struct tls_server_options){config->tls_cert_file, config->tls_key_file,
                                       config->tls_client_ca_file};
    return true;
}

bool config_check_files(const struct config *config, struct error *e)
{
    struct tls_server_options options;
    struct tls_server *server;
    if (!config_tls(config, &options))
        return true;
    if (!tls_server_create(&options, &server, e))
        return false;
    tls_server_destroy(server);
    if (tls_key_file_is_exposed(options.key_file))
        LOG_WARN("nexus", S("others can read the TLS key: chmod 600, then make a new key"),
                 LOG_STR("file.path", options.key_file));
    return true;
}

static const struct config_provider *find_provider(const struct config *config, str name)
{
    for (size_t i = 0; i < config->provider_count; i++)
        if (str_equal(config->providers[i].name, name))
            return &config->providers[i];
    return NULL;
}

static bool check_providers(const struct config *config, struct error *e)
{
    for (size_t i = 0; i < config->provider_count; i++) {
        const struct config_provider *provider = &config->providers[i];
        const struct json *value = item_value(config, S("providers"), i);
        if (find_provider(config, provider->name) != provider)
            return yaml_error(&config->document, value, e,
                              "provider \"" STR_FMT "\" is there twice; rename one",
                              STR_ARG(provider->name));
        bool needs_url =
            str_equal(provider->type, S("openai")) || !str_is_empty(provider->base_url);
        if (needs_url && !str_starts_with(provider->base_url, S("http://")) &&
            !str_starts_with(provider->base_url, S("https://")))
            return yaml_error(&config->document, value, e,
                              "provider \"" STR_FMT
                              "\" needs base_url, as in http://127.0.0.1:9100/v1",
                              STR_ARG(provider->name));
    }
    return true;
}

static const struct config_model *find_model(const struct config *config, str name)
{
    for (size_t i = 0; i < config->model_count; i++) {
        const struct config_model *model = &config->models[i];
        if (str_equal(model->name, name))
            return model;
        for (size_t j = 0; j < model->alias_count; j++)
            if (str_equal(model->aliases[j], name))
                return model;
    }
    return NULL;
}

static bool check_name(const struct config *config, const struct config_model *model, str name,
                       const struct json *value, struct error *e)
{
    if (find_model(config, name) != model)
        return yaml_error(&config->document, value, e,
                          "model \"" STR_FMT "\" is there twice; put its targets into one",
                          STR_ARG(name));
    if (str_starts_with(name, S("agent:")))
        return yaml_error(&config->document, value, e,
                          "a model's name may not begin with agent:; those are agents");
    return true;
}

static bool check_targets(const struct config *config, const struct config_model *model,
                          const struct json *value, struct error *e)
{
    if (model->target_count == 0)
        return yaml_error(&config->document, value, e,
                          "model \"" STR_FMT "\" needs at least one target", STR_ARG(model->name));
    for (size_t i = 0; i < model->target_count; i++) {
        const struct config_target *target = &model->targets[i];
        const struct json *at = json_at(json_get(value, S("targets")), i);
        bool has_variant = str_is_empty(target->variant);
        if (!find_provider(config, target->provider))
            return yaml_error(&config->document, at, e,
                              "no provider is named \"" STR_FMT
                              "\"; add it to providers or mend the name",
                              STR_ARG(target->provider));
        for (size_t j = 0; j < model->variant_count; j++)
            has_variant = has_variant || str_equal(model->variants[j].name, target->variant);
        if (!has_variant)
            return yaml_error(&config->document, at, e, "`split` names no variant \"" STR_FMT "\"",
                              STR_ARG(target->variant));
    }
    return true;
}

static bool check_split(const struct config *config, const struct config_model *model,
                        const struct json *value, struct error *e)
{
    for (size_t i = 0; i < model->variant_count; i++) {
        const struct json *at = json_at(json_get(value, S("split")), i);
        bool has_target = false;
        for (size_t j = 0; j < model->target_count; j++)
            has_target =
                has_target || str_equal(model->targets[j].variant, model->variants[i].name);
        if (!has_target)
            return yaml_error(&config->document, at, e, "no target says `variant: " STR_FMT "`",
                              STR_ARG(model->variants[i].name));
        for (size_t j = 0; j < i; j++)
            if (str_equal(model->variants[j].name, model->variants[i].name))
                return yaml_error(&config->document, at, e, "variant \"" STR_FMT "\" is twice",
                                  STR_ARG(model->variants[i].name));
    }
    return true;
}

static bool check_hedge(const struct config *config, struct config_model *model,
                        const struct json *value, struct error *e)
{
    model->hedge_after_ms = 0;
    if (str_equal(model->hedge_after, S("never")))
        return true;
    if (str_equal(model->hedge_after, S("auto"))) {
        model->hedge_after_ms = -1;
        return true;
    }
    return (duration_parse(model->hedge_after, &model->hedge_after_ms) &&
            model->hedge_after_ms > 0) ||
           yaml_error(&config->document, json_get(value, S("hedge_after")), e,
                      "\"" STR_FMT "\" is not never, auto or a duration such as 800ms",
                      STR_ARG(str_cut_utf8(model->hedge_after, 60)));
}

static bool check_cache(const struct config *config, struct config_model *model,
                        const struct json *value, struct error *e)
{
    const struct json *cache = json_get(value, S("cache"));
    double similarity = 0;
    if (!str_to_double(model->cache.similarity_text, &similarity) ||
        !(similarity > 0 && similarity <= 1))
        return yaml_error(&config->document, cache, e,
                          "similarity is a number above 0 and up to 1, as in 0.95");
    model->cache.similarity = similarity;
    if (!str_equal(model->cache.mode, S("semantic")))
        return true;
    const struct config_model *embedder = find_model(config, model->cache.embedder);
    return (embedder && str_equal(embedder->embedder, S("true"))) ||
           yaml_error(&config->document, cache, e,
                      "mode semantic needs `embedder:` with the name of a model that has "
                      "`embedder: true`");
}

static bool check_model(const struct config *config, struct config_model *model,
                        const struct json *value, struct error *e)
{
    if (!check_name(config, model, model->name, value, e))
        return false;
    for (size_t i = 0; i < model->alias_count; i++) {
        if (!check_name(config, model, model->aliases[i], value, e))
            return false;
        bool is_twice = str_equal(model->aliases[i], model->name);
        for (size_t j = 0; j < i; j++)
            is_twice = is_twice || str_equal(model->aliases[i], model->aliases[j]);
        if (is_twice)
            return yaml_error(&config->document, value, e,
                              "model \"" STR_FMT "\" names itself twice", STR_ARG(model->name));
    }
    return check_targets(config, model, value, e) && check_split(config, model, value, e) &&
           check_hedge(config, model, value, e) && check_cache(config, model, value, e);
}

static const struct config_filter *find_filter(const struct config *config, str name)
{
    for (size_t i = 0; i < config->filter_count; i++)
        if (str_equal(config->filters[i].name, name))
            return &config->filters[i];
    return NULL;
}

static bool check_filter_rules(const struct config *config, const struct config_filter *filter,
                               const struct json *value, struct error *e)
{
    for (size_t i = 0; i < filter->rule_count; i++) {
        const struct json *at = json_at(json_get(value, S("rules")), i);
        struct filter_rule rule = {.name = filter->rules[i].name,
                                   .pattern = filter->rules[i].pattern};
        struct error failure = {0};
        if (!filter_rule_check(&rule, &failure))
            return yaml_error(&config->document, at, e, "%s", failure.message);
        for (size_t j = 0; j < i; j++)
            if (str_equal(filter->rules[j].name, rule.name))
                return yaml_error(&config->document, at, e,
                                  "rule \"" STR_FMT "\" is there twice; rename one",
                                  STR_ARG(rule.name));
    }
    return true;
}

static bool check_filters(const struct config *config, struct error *e)
{
    for (size_t i = 0; i < config->filter_count; i++) {
        const struct config_filter *filter = &config->filters[i];
        const struct json *value = item_value(config, S("filters"), i);
        if (find_filter(config, filter->name) != filter)
            return yaml_error(&config->document, value, e,
                              "filter \"" STR_FMT "\" is there twice; rename one",
                              STR_ARG(filter->name));
        if (filter->rule_count > FILTER_USER_RULES_MAX)
            return yaml_error(&config->document, value, e, "a filter has at most %u rules",
                              FILTER_USER_RULES_MAX);
        if (!check_filter_rules(config, filter, value, e))
            return false;
    }
    for (size_t i = 0; i < config->model_count; i++) {
        str name = config->models[i].filter;
        const struct json *value = item_value(config, S("models"), i);
        if (!str_is_empty(name) && !find_filter(config, name))
            return yaml_error(&config->document, json_get(value, S("filter")), e,
                              "no filter is named \"" STR_FMT
                              "\"; add it to filters or mend the name",
                              STR_ARG(name));
    }
    return true;
}

static bool check_models(const struct config *config, struct error *e)
{
    if (config->provider_count > 0 && config->model_count == 0)
        return yaml_error(&config->document, json_get(config->document.root, S("providers")), e,
                          "providers without models: add `models: [{name: ..., targets: "
                          "[{provider: ..., model: ...}]}]`");
    for (size_t i = 0; i < config->model_count; i++)
        if (!check_model(config, &config->models[i], item_value(config, S("models"), i), e))
            return false;
    return true;
}

static bool read_agent_tool(struct config *config, const struct json *item, struct agent_tool *to,
                            struct error *e)
{
    str key;
    const struct json *value;
    struct json_iter it = json_iter(item);
    while (json_next(&it, &key, &value)) {
        if (str_equal(key, S("name")))
            continue;
        if (str_equal(key, S("pinned"))) {
            if (!json_to_bool(value, &to->is_pinned))
                return yaml_error(&config->document, value, e, "pinned is true or false");
            continue;
        }
        if (!str_equal(key, S("permissions")))
            return yaml_error(&config->document, value, e,
                              "unknown setting \"" STR_FMT
                              "\"; a tool of an agent has name, permissions, pinned",
                              STR_ARG(str_cut_utf8(key, 60)));
        struct permissions *permissions = ARENA_NEW(config->arena, struct permissions);
        if (!permissions_read_narrowing(config->arena, &config->document, value, permissions, e))
            return false;
        to->permissions = permissions;
    }
    return true;
}

/* What an agent says of its tools beside their names. */
static bool read_agent_tools(struct config *config, struct config_agent *agent,
                             const struct json *value, struct error *e)
{
    const struct json *item;
    size_t index = 0;
    struct json_iter it = json_iter(json_get(value, S("tools")));
    while (json_next(&it, NULL, &item)) {
        if (json_type(item) == JSON_OBJECT && !agent->tool_details)
            agent->tool_details =
                ARENA_ARRAY(config->arena, struct agent_tool, agent->tool_count + 1);
        if (json_type(item) == JSON_OBJECT &&
            !read_agent_tool(config, item, &agent->tool_details[index], e))
            return false;
        index++;
    }
    return true;
}

static bool check_agents(struct config *config, struct error *e)
{
    for (size_t i = 0; i < config->agent_count; i++) {
        struct config_agent *agent = &config->agents[i];
        const struct json *value = item_value(config, S("agents"), i);
        if (!read_agent_tools(config, agent, value, e) ||
            !config_read_agent_links(config, agent, value, e) ||
            !config_check_degrade(config, agent, value, e) ||
            !config_check_agent_workflow(config, agent, value, e))
            return false;
        if (!str_is_empty(agent->model) && config->model_count > 0 &&
            !find_model(config, agent->model))
            return yaml_error(&config->document, json_get(value, S("model")), e,
                              "agent \"" STR_FMT "\": no model is named \"" STR_FMT "\"",
                              STR_ARG(agent->name), STR_ARG(agent->model));
        for (size_t j = 0; j < i; j++)
            if (str_equal(config->agents[j].name, agent->name))
                return yaml_error(&config->document, value, e,
                                  "agent \"" STR_FMT "\" is there twice; rename one",
                                  STR_ARG(agent->name));
    }
    return true;
}

/* The registry reads it again; here so that `config check` tells of it too. */
static bool check_budgets(const struct config *config, struct error *e)
{
    int thresholds[BUDGET_ALERTS_MAX];
    if ((size_t) config_budget_alerts(config, thresholds) == config->budget_alert_count)
        return true;
    return error_set(e, REASON_CONFIG,
                     "budgets.alerts: at most %d rising numbers from 1 to 100 (per cent)",
                     BUDGET_ALERTS_MAX);
}

static bool check_webhooks(const struct config *config, struct error *e)
{
    int64_t waits_ms[WEBHOOK_RETRIES_MAX];
    OWNED(egress_rules) rules = NULL;
    const struct egress_options options = {
        .allowed_hosts = config->webhooks.allowed_hosts,
        .allowed_host_count = config->webhooks.allowed_host_count,
        .blocked_ips = config->webhooks.blocked_ips,
        .blocked_ip_count = config->webhooks.blocked_ip_count,
        .allowed_ips = config->webhooks.allowed_ips,
        .allowed_ip_count = config->webhooks.allowed_ip_count,
    };
    size_t count = (size_t) config_webhook_retries(config, waits_ms);
    if (count == 0 || count != config->webhooks.retry_count)
        return error_set(e, REASON_CONFIG,
                         "webhooks.retries: 1 to %d durations such as 5s, each at most 7d",
                         WEBHOOK_RETRIES_MAX);
    return egress_rules_create(&options, &rules, e) || error_wrap(e, "webhooks");
}

static bool check_tools(const struct config *config, struct error *e)
{
    return registry_check_config(&config->document, e);
}

static bool check_tracing(struct config *config, struct error *e)
{
    struct http_url url;
    str text = config->tracing_sample_text;
    bool is_percent = str_ends_with(text, S("%"));
    if (is_percent)
        text = str_slice(text, 0, text.len - 1);
    double share = 0, whole = is_percent ? 100 : 1;
    if (!str_to_double(text, &share) || !(share >= 0 && share <= whole)) {
        error_set(e, REASON_CONFIG, "tracing.sample: write a share such as 1%% or 0.01");
        return tell_place(config, "sample", e);
    }
    config->tracing_sample = share / whole;
    if (config->tracing_authorization_count > 1)
        return error_set(e, REASON_CONFIG, "tracing.authorization: at most one value");
    if (str_is_empty(config->tracing_endpoint) || http_url_parse(config->tracing_endpoint, &url, e))
        return true;
    error_wrap(e, "tracing.endpoint");
    e->reason = REASON_CONFIG;
    return tell_place(config, "endpoint", e);
}

static bool check_dns(struct config *config, struct error *e)
{
    return dns_servers_check(config->dns_servers, config->dns_server_count, config->arena,
                             &config->dns_server_list, e) ||
           tell_place(config, "servers", e);
}

static bool check_memory(const struct config *config, struct error *e)
{
    const struct json *value = json_get(config->document.root, S("memory"));
    str name = config->memory.embedding_model, filter = config->memory.filter;
    const struct config_model *model = find_model(config, name);
    if (!str_is_empty(name) && (!model || !str_equal(model->embedder, S("true"))))
        return yaml_error(&config->document, json_get(value, S("embedding_model")), e,
                          "memory.embedding_model needs the name of a model that has "
                          "`embedder: true`");
    return str_is_empty(filter) || find_filter(config, filter) ||
           yaml_error(&config->document, json_get(value, S("filter")), e,
                      "no filter is named \"" STR_FMT "\"; add it to filters or mend the name",
                      STR_ARG(filter));
}

/* Read again at the start; here so that `config check` tells of it too. */
static bool check_mcp(const struct config *config, struct error *e)
{
    OWNED(mcp_servers) servers = NULL;
    return mcp_servers_read(config, config_environment, &servers, e);
}

bool config_check(struct config *config, struct error *e)
{
    bool has_level = log_level_parse(config->log_level_name, &config->log_level);
    if (!has_level)
        return error_set(e, REASON_CONFIG, "log_level: \"" STR_FMT "\"",
                         STR_ARG(config->log_level_name));
    if (str_is_empty(config->data_dir)) {
        error_set(e, REASON_CONFIG, "data_dir is empty; name a folder");
        return tell_place(config, "data_dir", e);
    }
    if (str_is_empty(config->node) || config->node.len > 48) {
        error_set(e, REASON_CONFIG, "node must have 1 to 48 bytes");
        return tell_place(config, "node", e);
    }
    if (!check_listen(config, e))
        return tell_place(config, "listen", e);
    if (!check_tls(config, e))
        return false;
    return check_providers(config, e) && check_models(config, e) && check_filters(config, e) &&
           check_agents(config, e) && check_budgets(config, e) && check_webhooks(config, e) &&
           check_memory(config, e) && check_tools(config, e) && check_mcp(config, e) &&
           check_tracing(config, e) && check_dns(config, e);
}
