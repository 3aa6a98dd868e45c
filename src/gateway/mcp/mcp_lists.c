/*
 * What a list of tools is made of: the registry's snapshot, the settings' (agents), the policy.  A change of any of them is a new
 * generation.  One snapshot is kept acquired, so that its address stands for it alone.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "gateway/mcp/mcp_internal.h"
#include <pthread.h>
#include <stdlib.h>

enum { POLICY_VERSION_BYTES_MAX = 80 };

struct mcp_lists {
    struct gateway *gateway;
    pthread_mutex_t lock;
    const struct registry_snapshot *tools;
    uint64_t settings_version;
    char policy_version[POLICY_VERSION_BYTES_MAX];
    size_t policy_version_bytes;
    int64_t generation, looked_ns;
};

struct mcp_lists *mcp_lists_create(struct gateway *gateway)
{
    struct mcp_lists *lists = calloc(1, sizeof *lists);
    ensure(lists != NULL);
    lists->gateway = gateway;
    pthread_mutex_init(&lists->lock, NULL);
    return lists;
}

void mcp_lists_destroy(struct mcp_lists *lists)
{
    if (!lists)
        return;
    if (lists->tools)
        registry_release(lists->tools);
    pthread_mutex_destroy(&lists->lock);
    free(lists);
}

/* It comes with every decision: the one way to it that all engines have. */
static str policy_version(struct mcp_lists *lists, struct context *ctx)
{
    struct policy_input *input = ARENA_NEW(ctx->arena, struct policy_input);
    struct policy_decision decision = {0};
    input->action = S("output");
    input->remaining = COST_LIMITLESS;
    policy_decide(lists->gateway->policy, ctx, input, &decision);
    return str_slice(decision.version, 0, POLICY_VERSION_BYTES_MAX);
}

static bool is_policy(const struct mcp_lists *lists, str version)
{
    return str_equal(str_of(lists->policy_version, lists->policy_version_bytes), version);
}

static void look(struct mcp_lists *lists, str policy, const struct registry_snapshot *tools,
                 uint64_t settings_version)
{
    bool is_same = lists->tools == tools && lists->settings_version == settings_version &&
                   is_policy(lists, policy);
    if (lists->tools)
        registry_release(lists->tools);
    lists->tools = tools; /* acquired by the caller */
    lists->settings_version = settings_version;
    lists->policy_version_bytes = policy.len;
    if (policy.len > 0)
        memcpy(lists->policy_version, policy.ptr, policy.len);
    if (!is_same)
        lists->generation++;
}

int64_t mcp_lists_generation(struct mcp_lists *lists, struct context *ctx)
{
    int64_t now_ns = context_now_ns(ctx);
    pthread_mutex_lock(&lists->lock);
    bool is_fresh =
        lists->generation > 0 && now_ns - lists->looked_ns < MCP_SERVER_LISTS_MS * INT64_C(1000000);
    int64_t generation = lists->generation;
    if (!is_fresh)
        lists->looked_ns = now_ns;
    pthread_mutex_unlock(&lists->lock);
    if (is_fresh)
        return generation;
    struct orchestrator *o = lists->gateway->orchestrator;
    str policy = policy_version(lists, ctx);
    const struct settings *settings = orchestrator_acquire(o);
    uint64_t settings_version = settings->version;
    orchestrator_release(settings);
    pthread_mutex_lock(&lists->lock);
    look(lists, policy, registry_acquire(orchestrator_parts(o)->registry), settings_version);
    generation = lists->generation;
    pthread_mutex_unlock(&lists->lock);
    return generation;
}
