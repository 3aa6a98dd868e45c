#include "cli/agent_process.h"

#include "agent/sandbox/remote/executor_remote.h"
#include "agent/sandbox/remote/remote_process.h"
#include "agent/sandbox/remote/remote_server.h"
#include "agent/sandbox/remote/wall.h"
#include "base/arena.h"
#include "base/log.h"
#include "store/store.h"

static const char *const command[] = {"nexus", "serve", "--roles", "agent", "--inherited", NULL};

bool agent_roles_parse(str text, struct agent_roles *out, struct error *e)
{
    static const char *const names[] = {"gateway", "orchestrator", "llm", "agent"};
    bool has[ARRAY_COUNT(names)] = {false};
    str rest = text, name;
    *out = (struct agent_roles){.has_agent = true};
    if (str_is_empty(text) || str_equal(text, S("all")))
        return true;
    while (str_next(&rest, ',', &name)) {
        size_t i = 0;
        while (i < ARRAY_COUNT(names) && !str_equal(str_trim(name), str_from_cstr(names[i])))
            i++;
        if (i == ARRAY_COUNT(names))
            return error_set(e, REASON_USAGE,
                             "--roles: there is no role \"" STR_FMT
                             "\"; there are gateway, orchestrator, agent, llm, and all",
                             STR_ARG(str_cut_utf8(name, 40)));
        has[i] = true;
    }
    bool has_rest = has[0] && has[1] && has[2], has_any = has[0] || has[1] || has[2];
    if (has_any && !has_rest)
        return error_set(e, REASON_USAGE,
                         "--roles " STR_FMT
                         ": gateway, orchestrator and llm are still one process; "
                         "only the agent core can be split off (--roles gateway,orchestrator,llm)",
                         STR_ARG(text));
    out->has_agent = has[3];
    out->is_agent_only = has[3] && !has_any;
    return true;
}

int agent_process_serve(void)
{
    return remote_server_run(REMOTE_CONTROL_FD);
}

/* ---- the executor ---- */

static bool create_apart(const struct agent_place *place, struct agent_executor *out,
                         struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct executor_remote_options options = {
        .cache_dir = str_printf(arena, STR_FMT "/wasm-apart", STR_ARG(place->cache_dir)),
        .command = command,
        .host_calls = place->host_calls,
        .host_call_count = place->host_call_count};
    *out = (struct agent_executor){.prepare = executor_remote_prepare, .is_apart = true};
    if (!executor_remote_create(&options, &out->executor, e))
        return error_wrap(e, "sandbox.process");
    struct executor_remote_state state = executor_remote_state(out->executor);
    LOG_INFO("nexus.sandbox", S("tools run in a process of their own"),
             LOG_I64("process.pid", state.pid),
             LOG_STR("nexus.walls", wall_names(arena, state.walls)));
    return true;
}

static bool create_here(const struct agent_place *place, struct agent_executor *out,
                        struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct sandbox_options options = {
        .cache_dir = str_printf(arena, STR_FMT "/wasm", STR_ARG(place->cache_dir)),
        .host_calls = place->host_calls,
        .host_call_count = place->host_call_count,
        .clock = clock_system()};
    *out = (struct agent_executor){.prepare = sandbox_prepare};
    return sandbox_create(&options, &out->executor, e);
}

bool agent_executor_create(const struct agent_place *place, struct agent_executor *out,
                           struct error *e)
{
    struct agent_roles roles;
    if (!agent_roles_parse(place->roles, &roles, e))
        return false;
    bool is_off = str_equal(place->process, S("off"));
    if (!roles.has_agent && is_off)
        return error_set(e, REASON_CONFIG,
                         "--roles without agent needs the sandbox as a process of its own, but "
                         "sandbox.process is off");
    bool is_apart = !roles.has_agent || str_equal(place->process, S("on")) ||
                    (!is_off && place->tenant_count > 1);
    return is_apart ? create_apart(place, out, e) : create_here(place, out, e);
}

bool agent_count_tenants(struct store *store, struct context *ctx, size_t *out, struct error *e)
{
    struct query query = query_of(TABLE_TENANTS);
    struct records tenants;
    uuid *tenant_ids;
    query.limit = 2;
    if (!store_list_any_tenant(store, ctx, &query, &tenants, &tenant_ids, e))
        return false;
    *out = tenants.count;
    return true;
}

bool agent_process_probe(str cache_dir, struct arena *arena, str *out, struct error *e)
{
    struct executor_remote_options options = {.cache_dir = cache_dir, .command = command};
    struct executor *executor;
    if (!executor_remote_create(&options, &executor, e))
        return false;
    uint32_t walls = executor_remote_state(executor).walls;
    executor_destroy(executor);
    *out = wall_names(arena, walls);
    return true;
}
