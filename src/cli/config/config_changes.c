#include "cli/config/config_changes.h"

#include "base/arena.h"

static bool is_same_tree(struct arena *arena, const struct config *a, const struct config *b,
                         str name)
{
    return str_equal(json_print(arena, json_get(a->document.root, name)),
                     json_print(arena, json_get(b->document.root, name)));
}

void config_warn_fixed(const struct config *old, const struct config *fresh)
{
    OWNED(arena) arena = arena_create(0);
    const struct {
        const char *name;
        bool is_same;
    } fixed[] = {
        {"listen", str_equal(old->listen, fresh->listen)},
        {"tls (on or off)", str_is_empty(old->tls_cert_file) == str_is_empty(fresh->tls_cert_file)},
        {"data_dir", str_equal(old->data_dir, fresh->data_dir)},
        {"cache_dir", str_equal(old->cache_dir, fresh->cache_dir)},
        {"roles", str_equal(old->roles, fresh->roles)},
        {"sandbox.process", str_equal(old->sandbox_process, fresh->sandbox_process)},
        {"node", str_equal(old->node, fresh->node)},
        {"threads", old->threads == fresh->threads},
        {"policy.engine", str_equal(old->policy_engine, fresh->policy_engine)},
        {"policy.dir", str_equal(old->policy_dir, fresh->policy_dir)},
        {"tools", is_same_tree(arena, old, fresh, S("tools"))},
        {"dns", is_same_tree(arena, old, fresh, S("dns"))},
        {"sessions.workspace_quota",
         old->session_workspace_bytes == fresh->session_workspace_bytes},
        {"sessions.workspace_files",
         old->session_workspace_files == fresh->session_workspace_files},
        {"webhooks", is_same_tree(arena, old, fresh, S("webhooks"))},
        {"allowed_hosts", is_same_tree(arena, old, fresh, S("allowed_hosts"))},
        {"limits.requests_per_minute", old->requests_per_minute == fresh->requests_per_minute},
        {"limits.tokens_per_minute", old->tokens_per_minute == fresh->tokens_per_minute},
        {"limits.tenant_requests_per_minute",
         old->tenant_requests_per_minute == fresh->tenant_requests_per_minute},
        {"limits.tenant_tokens_per_minute",
         old->tenant_tokens_per_minute == fresh->tenant_tokens_per_minute},
        {"memory.embedding_model",
         str_equal(old->memory.embedding_model, fresh->memory.embedding_model)},
        {"memory.dimensions", old->memory.dimensions == fresh->memory.dimensions},
        {"memory.session_points", old->memory.session_points == fresh->memory.session_points},
        {"memory.user_points", old->memory.user_points == fresh->memory.user_points},
        {"mcp_server", is_same_tree(arena, old, fresh, S("mcp_server"))},
        {"cache.max_bytes", old->response_cache_bytes == fresh->response_cache_bytes},
        {"responses.expiry", old->responses_expiry_ms == fresh->responses_expiry_ms},
        {"limits.streams_per_key", old->streams_per_key == fresh->streams_per_key},
    };
    for (size_t i = 0; i < ARRAY_COUNT(fixed); i++)
        if (!fixed[i].is_same)
            LOG_WARN("nexus", S("this setting changes at the next start only"),
                     LOG_STR("nexus.setting", str_from_cstr(fixed[i].name)));
}
