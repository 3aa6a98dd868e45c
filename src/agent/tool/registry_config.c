/* `tools:` of the configuration: what the operator grants, pins and trusts. */
#include "agent/tool/registry_internal.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include <stdlib.h>

struct reading {
    struct configuration *to;
    const struct yaml_document *document;
    struct error *e;
};

static bool read_key(struct reading *r, const struct json *item)
{
    struct trusted_key *key = &r->to->keys[r->to->key_count];
    str name = json_str_or(item, S("name"), STR_NONE);
    if (json_type(item) != JSON_OBJECT || json_count(item) != 2 || str_is_empty(name) ||
        !package_key_read(json_str_or(item, S("public_key"), STR_NONE), key->public_key))
        return yaml_error(
            r->document, item, r->e,
            "a trusted key is {name: TEXT, public_key: 64 hexadecimal digits}; `nexus "
            "tool keygen` prints one");
    for (size_t i = 0; i < r->to->key_count; i++)
        if (str_equal(r->to->keys[i].name, name))
            return yaml_error(r->document, item, r->e, "key " STR_FMT " is there twice",
                              STR_ARG(str_cut_utf8(name, 60)));
    key->name = str_copy(r->to->arena, name);
    r->to->key_count++;
    return true;
}

static bool read_keys(struct reading *r, const struct json *value)
{
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (json_type(value) != JSON_ARRAY || json_count(value) > REGISTRY_TRUSTED_KEYS_MAX)
        return yaml_error(r->document, value, r->e,
                          "trusted_keys must be a list of at most %u keys",
                          REGISTRY_TRUSTED_KEYS_MAX);
    while (json_next(&it, NULL, &item))
        if (!read_key(r, item))
            return false;
    return true;
}

static bool read_canary(struct reading *r, const struct json *value, struct configured_tool *to)
{
    int64_t percent = -1;
    str version = json_str_or(value, S("version"), STR_NONE);
    if (json_type(value) != JSON_OBJECT || json_count(value) != 2 || !semver_is_valid(version) ||
        !json_to_i64(json_get(value, S("percent")), &percent) || percent < 0 || percent > 100)
        return yaml_error(r->document, value, r->e,
                          "canary must be {version: MAJOR.MINOR.PATCH, percent: 0 to 100}");
    to->canary_version = str_copy(r->to->arena, version);
    to->canary_percent = (int) percent;
    return true;
}

static bool read_version(struct reading *r, const struct json *value, struct configured_tool *to)
{
    str range;
    if (!json_to_str(value, &range) || str_is_empty(str_trim(range)) || range.len > 100)
        return yaml_error(r->document, value, r->e,
                          "version must be a version or a range in quotes, such as \"1.2.0\" or "
                          "\"^1.2\"");
    to->version = str_copy(r->to->arena, range);
    return true;
}

static bool read_notebook_bound(struct reading *r, str key, const struct json *value,
                                struct tool_notebooks *to)
{
    str text;
    int64_t number = 0;
    if (str_equal(key, S("enabled")))
        return json_to_bool(value, &to->is_enabled) ||
               yaml_error(r->document, value, r->e, "enabled is true or false");
    if (str_equal(key, S("memory"))) {
        bool is_ok = json_to_str(value, &text) && bytes_parse(text, &number) && number > 0;
        to->memory_bytes = (size_t) number;
        return is_ok ||
               yaml_error(r->document, value, r->e, "memory must be a size such as \"128MB\"");
    }
    if (str_equal(key, S("idle"))) {
        bool is_ok = json_to_str(value, &text) && duration_parse(text, &to->idle_ms) &&
                     to->idle_ms > 0 && to->idle_ms <= SANDBOX_NOTEBOOK_IDLE_MS_MAX;
        return is_ok || yaml_error(r->document, value, r->e,
                                   "idle must be a time such as \"15m\", at most a day");
    }
    if (str_equal(key, S("per_session"))) {
        bool is_ok = json_to_i64(value, &number) && number > 0 &&
                     number <= SANDBOX_NOTEBOOKS_PER_SESSION_MAX;
        to->per_session_max = (uint32_t) number;
        return is_ok || yaml_error(r->document, value, r->e, "per_session must be 1 to %u",
                                   SANDBOX_NOTEBOOKS_PER_SESSION_MAX);
    }
    return yaml_error(r->document, value, r->e,
                      "unknown member " STR_FMT
                      " of notebooks; known here: enabled, memory, idle, per_session",
                      STR_ARG(str_cut_utf8(key, 60)));
}

static bool read_notebooks(struct reading *r, const struct json *value, struct tool_notebooks *to)
{
    str key;
    const struct json *member;
    struct json_iter it = json_iter(value);
    *to = (struct tool_notebooks){.memory_bytes = SANDBOX_NOTEBOOK_MEMORY_BYTES,
                                  .idle_ms = SANDBOX_NOTEBOOK_IDLE_MS,
                                  .per_session_max = SANDBOX_NOTEBOOKS_PER_SESSION};
    if (json_type(value) != JSON_OBJECT)
        return yaml_error(r->document, value, r->e,
                          "notebooks must be {enabled: true, memory, idle, per_session}");
    while (json_next(&it, &key, &member))
        if (!read_notebook_bound(r, key, member, to))
            return false;
    return true;
}

static bool read_approval(struct reading *r, const struct json *value, struct configured_tool *to)
{
    struct error why = {0};
    return approval_rule_read(r->to->arena, value, &to->approval, &why) ||
           yaml_error(r->document, value, r->e, "approval: %s", why.message);
}

static bool read_tool_member(struct reading *r, str key, const struct json *value,
                             struct configured_tool *to)
{
    if (str_equal(key, S("permissions"))) {
        to->has_permissions = true;
        return permissions_read(r->to->arena, r->document, value, &to->permissions, r->e);
    }
    if (str_equal(key, S("version")))
        return read_version(r, value, to);
    if (str_equal(key, S("canary")))
        return read_canary(r, value, to);
    if (str_equal(key, S("notebooks")))
        return read_notebooks(r, value, &to->notebooks);
    if (str_equal(key, S("approval")))
        return read_approval(r, value, to);
    return yaml_error(r->document, value, r->e,
                      "unknown member " STR_FMT
                      "; known here: permissions, version, canary, notebooks, approval",
                      STR_ARG(str_cut_utf8(key, 60)));
}

static bool read_tool(struct reading *r, str name, const struct json *value)
{
    struct configured_tool *to = &r->to->items[r->to->count];
    str key;
    const struct json *member;
    struct json_iter it = json_iter(value);
    if (json_type(value) != JSON_OBJECT)
        return yaml_error(r->document, value, r->e,
                          "tools." STR_FMT
                          " must hold `permissions:` (or version, canary), or be one of dir, "
                          "trusted_keys, require_signature",
                          STR_ARG(str_cut_utf8(name, 60)));
    while (json_next(&it, &key, &member))
        if (!read_tool_member(r, key, member, to))
            return false;
    to->name = str_copy(r->to->arena, name);
    r->to->count++;
    return true;
}

static bool read_tools(struct reading *r, const struct json *tools)
{
    str name;
    const struct json *value;
    struct json_iter it = json_iter(tools);
    if (json_type(tools) != JSON_OBJECT || json_count(tools) > REGISTRY_TOOLS_MAX)
        return yaml_error(r->document, tools, r->e,
                          "tools must have the names of tools as members");
    r->to->items = ARENA_ARRAY(r->to->arena, struct configured_tool, json_count(tools) + 1);
    while (json_next(&it, &name, &value)) {
        bool is_ok = true;
        if (str_equal(name, S("trusted_keys")))
            is_ok = read_keys(r, value);
        else if (str_equal(name, S("require_signature")))
            is_ok = json_to_bool(value, &r->to->needs_signature) ||
                    yaml_error(r->document, value, r->e, "require_signature is true or false");
        else if (!str_equal(name, S("dir")))
            is_ok = read_tool(r, name, value);
        if (!is_ok)
            return false;
    }
    return true;
}

bool configuration_read(const struct yaml_document *document, struct configuration **out,
                        struct error *e)
{
    struct configuration *configuration = calloc(1, sizeof *configuration);
    ensure(configuration != NULL);
    configuration->arena = arena_create(0);
    atomic_init(&configuration->references, 1);
    const struct json *tools = document ? json_get(document->root, S("tools")) : NULL;
    struct reading reading = {configuration, document, e};
    if (tools && json_type(tools) != JSON_NULL && !read_tools(&reading, tools)) {
        configuration_release(configuration);
        return false;
    }
    *out = configuration;
    return true;
}

bool registry_check_config(const struct yaml_document *tool_config, struct error *e)
{
    struct configuration *configuration;
    if (!configuration_read(tool_config, &configuration, e))
        return false;
    configuration_release(configuration);
    return true;
}

void configuration_release(struct configuration *configuration)
{
    if (!configuration || atomic_fetch_sub(&configuration->references, 1) != 1)
        return;
    arena_destroy(configuration->arena);
    free(configuration);
}

const struct configured_tool *configuration_find(const struct configuration *configuration,
                                                 str name)
{
    for (size_t i = 0; i < configuration->count; i++)
        if (str_equal(configuration->items[i].name, name))
            return &configuration->items[i];
    return NULL;
}

str configuration_signer(const struct configuration *configuration,
                         const uint8_t public_key[SIGNATURE_KEY_BYTES])
{
    for (size_t i = 0; i < configuration->key_count; i++)
        if (digest_bytes_equal(configuration->keys[i].public_key, public_key, SIGNATURE_KEY_BYTES))
            return configuration->keys[i].name;
    return STR_NONE;
}
