/* what the rows of the table cannot tell: references between settings */
#include "cli/config_internal.h"

#include "agent/permissions.h"
#include "base/arena.h"

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

static const struct config_provider *find_provider(const struct config *config, str name)
{
    for (size_t i = 0; i < config->provider_count; i++)
        if (str_equal(config->providers[i].name, name))
            return &config->providers[i];
    return NULL;
}

static bool has_model(const struct config *config, str name)
{
    for (size_t i = 0; i < config->model_count; i++)
        if (str_equal(config->models[i].name, name))
            return true;
    return false;
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
        if (str_equal(provider->type, S("anthropic")))
            return yaml_error(&config->document, json_get(value, S("type")), e,
                              "type anthropic is not in this version; use an OpenAI-compatible "
                              "endpoint (type: openai)");
        bool is_openai = str_equal(provider->type, S("openai"));
        if (is_openai && !str_starts_with(provider->base_url, S("http://")) &&
            !str_starts_with(provider->base_url, S("https://")))
            return yaml_error(&config->document, value, e,
                              "provider \"" STR_FMT
                              "\" needs base_url, as in http://127.0.0.1:9100/v1",
                              STR_ARG(provider->name));
    }
    return true;
}

static bool check_models(const struct config *config, struct error *e)
{
    if (config->provider_count > 0 && config->model_count == 0)
        return yaml_error(&config->document, json_get(config->document.root, S("providers")), e,
                          "providers without models: add `models: [{name: ..., targets: "
                          "[{provider: ..., model: ...}]}]`");
    for (size_t i = 0; i < config->model_count; i++) {
        const struct config_model *model = &config->models[i];
        const struct json *value = item_value(config, S("models"), i);
        for (size_t j = 0; j < i; j++)
            if (str_equal(config->models[j].name, model->name))
                return yaml_error(&config->document, value, e,
                                  "model \"" STR_FMT "\" is there twice; put its targets into one",
                                  STR_ARG(model->name));
        if (str_starts_with(model->name, S("agent:")))
            return yaml_error(&config->document, value, e,
                              "a model's name may not begin with agent:; those are agents");
        if (model->target_count == 0)
            return yaml_error(&config->document, value, e,
                              "model \"" STR_FMT "\" needs at least one target",
                              STR_ARG(model->name));
        for (size_t j = 0; j < model->target_count; j++)
            if (!find_provider(config, model->targets[j].provider))
                return yaml_error(&config->document, json_at(json_get(value, S("targets")), j), e,
                                  "no provider is named \"" STR_FMT
                                  "\"; add it to providers or mend the name",
                                  STR_ARG(model->targets[j].provider));
    }
    return true;
}

static bool check_agents(const struct config *config, struct error *e)
{
    for (size_t i = 0; i < config->agent_count; i++) {
        const struct config_agent *agent = &config->agents[i];
        const struct json *value = item_value(config, S("agents"), i);
        if (!str_is_empty(agent->model) && config->model_count > 0 &&
            !has_model(config, agent->model))
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

/* The permissions of tools are read again by the registry; here so that `config check` tells of them too. */
static bool check_tools(const struct config *config, struct error *e)
{
    str name, key;
    const struct json *tool, *member;
    struct json_iter it = json_iter(json_get(config->document.root, S("tools")));
    while (json_next(&it, &name, &tool)) {
        if (str_equal(name, S("dir")))
            continue;
        if (json_type(tool) != JSON_OBJECT)
            return yaml_error(&config->document, tool, e,
                              "tools." STR_FMT " must hold `permissions:`",
                              STR_ARG(str_cut_utf8(name, 60)));
        struct json_iter members = json_iter(tool);
        while (json_next(&members, &key, &member)) {
            struct permissions permissions;
            if (!str_equal(key, S("permissions")))
                return yaml_error(&config->document, member, e,
                                  "unknown setting \"" STR_FMT "\"; a tool has `permissions`",
                                  STR_ARG(str_cut_utf8(key, 60)));
            if (!permissions_read(config->arena, &config->document, member, &permissions, e))
                return false;
        }
    }
    return true;
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
    return check_providers(config, e) && check_models(config, e) && check_agents(config, e) &&
           check_tools(config, e);
}
