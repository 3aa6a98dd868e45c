/*
 * nexus: the root of the program.  The parts of a node are built here in order and stopped in reverse, and this is the only file that
 * names concrete back ends; what the commands do with them is in cli/.
 */
#include "agent/sandbox/host_clock.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/heap.h"
#include "base/limits.h"
#include "build_info.h"
#include "cli/command.h"
#include "cli/config/config_changes.h"
#include "cli/models.h"
#include "cli/node_drain.h"
#include "cli/node_loops.h"
#include "cli/node_memory.h"
#include "cli/node_tools.h"
#include "cli/node_webhooks.h"
#include "cli/on_loop.h"
#include "cli/shipped.h"
#include "cli/signals.h"
#include "cli/trace_export.h"
#include "cli/warm_up.h"
#include "gateway/gateway.h"
#include "llm/response_cache.h"
#include "net/http_client.h"
#include "orchestrator/sweep.h"
#include "store/sqlite.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    RECOVER_TRIES_MAX = 5,
    START_TIMEOUT_MS = 60 * 1000,
    WARM_UP_MS = 20 * 1000,
    STOP_PATIENCE_MS = 2000,
    HOUSEKEEPING_MS = 250,
};

struct platform {
    struct arena *arena;
    const struct config_sources *sources;
    struct config *config;
    struct platform_info info;
    size_t started_count; /* of steps[] */

    struct sqlite_database *database;
    bool is_store_new;
    struct metrics *metrics;
    struct tracer *tracer; /* NULL: no traces */
    struct response_cache *cache;
    struct trace_job traces;
    struct policy *policy;
    str policy_dir; /* empty: off */
    struct node_tools tools;
    struct node_memory memory;
    struct node_webhooks webhooks;

    struct node_loops node;
    struct http_server *server;

    struct models *models;
    struct settings *settings; /* until the orchestrator has it */
    struct orchestrator *orchestrator;
    struct keys *keys;
    struct gateway *gateway;
    struct on_loop warm_up, warm_up_late, housekeeping;
    struct node_drain drain;
    _Atomic bool is_ready;
};

/* ---- the process ---- */

static bool start_process(struct platform *p, struct error *e)
{
    signals_prepare_process();
    (void) p, (void) e;
    return true;
}

/* ---- store ---- */

static bool start_store(struct platform *p, struct error *e)
{
    if (!folder_make(p->config->data_dir, e))
        return false;
    struct sqlite_options options = {.data_dir = p->config->data_dir,
                                     .node = p->config->node,
                                     .cache_bytes = (size_t) p->config->store_cache_bytes,
                                     .vector_dimension = (size_t) p->config->memory.dimensions,
                                     .clock = clock_system(),
                                     .random = random_system()};
    return sqlite_database_open(&options, &p->database, &p->is_store_new, e);
}

static void stop_store(struct platform *p)
{
    sqlite_database_close(p->database);
}

/* ---- metrics, policy, tools, sandbox ---- */

static bool start_metrics(struct platform *p, struct error *e)
{
    (void) e;
    p->metrics = metrics_create();
    if (!str_is_empty(p->config->tracing_endpoint))
        p->tracer =
            tracer_create(&(struct tracer_options){.sample_ratio = p->config->tracing_sample,
                                                   .service_version = S(NEXUS_VERSION),
                                                   .node = p->config->node,
                                                   .metrics = p->metrics});
    return true;
}

static void stop_metrics(struct platform *p)
{
    tracer_destroy(p->tracer);
    metrics_destroy(p->metrics);
}

static bool create_policy(str dir, int64_t time_limit_ms, struct policy **out, struct error *e)
{
    struct policy_rego_options options = {.dir = dir, .time_limit_ms = time_limit_ms};
    return policy_rego_create(&options, out, e);
}

static bool start_policy(struct platform *p, struct error *e)
{
    p->info.is_policy_off = str_equal(p->config->policy_engine, S("off"));
    if (p->info.is_policy_off) {
        p->policy = policy_off_create();
        p->info.policy_version = S("off");
        return true;
    }
    str dir = p->config->policy_dir;
    if (str_is_empty(dir) && !shipped_find(p->arena, "policies", "policy.dir", &dir, e))
        return false;
    if (!create_policy(dir, p->config->policy_time_limit_ms, &p->policy, e))
        return error_wrap(e, "policies in " STR_FMT, STR_ARG(dir));
    p->policy_dir = dir;
    p->info.policy_version = policy_rego_version(p->policy, p->arena);
    return true;
}

static void stop_policy(struct platform *p)
{
    policy_destroy(p->policy);
}

static bool start_tools(struct platform *p, struct error *e)
{
    return node_tools_open(&p->tools, p->config, p->arena, &p->info, e);
}

/* The executor ends after the loops (agent_process.h). */
static void stop_tools(struct platform *p)
{
    node_tools_close(&p->tools);
}

static bool start_executors(struct platform *p, struct error *e)
{
    node_memory_offer(&p->memory, &p->tools);
    struct node_tools_parts parts = {.config = p->config,
                                     .node = &p->node,
                                     .store = sqlite_database_store(p->database),
                                     .metrics = p->metrics,
                                     .arena = p->arena,
                                     .version = S(NEXUS_VERSION)};
    return node_tools_start(&p->tools, &parts, e);
}

static bool prepare_tool(void *owner, const struct tool *tool, struct error *e)
{
    struct platform *p = owner;
    return p->tools.sandbox.prepare(p->tools.sandbox.executor, tool, e);
}

/* ---- loops ---- */

static bool start_loops(struct platform *p, struct error *e)
{
    p->node.dns_servers = str_copy(p->arena, p->config->dns_server_list);
    bool ok = node_loops_create(&p->node, (size_t) p->config->threads, e);
    p->info.thread_count = p->node.count;
    return ok;
}

static void stop_loops(struct platform *p)
{
    node_loops_destroy(&p->node);
}

/* The port is taken early, so that a second server fails before it touches anything; until all is there the answer is 503. */
static void handle_request(void *owner, struct http_request *request)
{
    struct platform *p = owner;
    if (atomic_load_explicit(&p->is_ready, memory_order_acquire)) {
        gateway_handle(p->gateway, request);
        return;
    }
    static struct http_header items[] = {
        {S_INIT("Content-Type"), S_INIT("application/problem+json")},
        {S_INIT("Retry-After"), S_INIT("1")}};
    static const struct http_headers headers = {
        .items = items, .count = ARRAY_COUNT(items), .capacity = ARRAY_COUNT(items)};
    http_reply(request, 503, &headers,
               S("{\"type\":\"https://nexus.invalid/problems/"
                 "unavailable\",\"title\":\"Starting\",\"status\":503}\n"));
}

static bool start_server(struct platform *p, struct error *e)
{
    struct tls_server_options tls;
    bool is_tls = config_tls(p->config, &tls);
    if (!config_check_files(p->config, e))
        return false;
    struct http_server_options options = {.address = p->config->listen_address,
                                          .port = p->config->listen_port,
                                          .tls = is_tls ? &tls : NULL,
                                          .handler = handle_request,
                                          .owner = p};
    if (!http_server_open(p->node.loops, p->node.count, &options, &p->server, e))
        return error_wrap(e,
                          "listen on " STR_FMT " (--listen or NEXUS_LISTEN names another address)",
                          STR_ARG(p->config->listen));
    bool is_ipv6 = str_find_char(options.address, ':') != STR_NOT_FOUND;
    bool is_any = str_equal(options.address, S("0.0.0.0")) || str_equal(options.address, S("::"));
    str host = is_any ? S("localhost") : options.address;
    p->info.port = http_server_port(p->server);
    p->info.url =
        str_printf(p->arena, is_ipv6 && !is_any ? "%s://[" STR_FMT "]:%u" : "%s://" STR_FMT ":%u",
                   is_tls ? "https" : "http", STR_ARG(host), p->info.port);
    return true;
}

static void stop_server(struct platform *p)
{
    http_server_destroy(p->server);
}

static bool start_threads(struct platform *p, struct error *e)
{
    return node_loops_start_threads(&p->node, e);
}

static void stop_threads(struct platform *p)
{
    node_loops_stop_threads(&p->node);
}

/* ---- models ---- */

static bool create_offline(const struct provider_options *options, struct provider **out,
                           struct error *e)
{
    return provider_offline_create(options->name, out, e);
}

static const struct provider_type provider_types[] = {
    {"openai", false, provider_openai_create},
    {"anthropic", false, provider_anthropic_create},
    {"offline", true, create_offline},
};

static bool start_models(struct platform *p, struct error *e)
{
    p->models = models_create(&(struct models_options){.types = provider_types,
                                                       .type_count = ARRAY_COUNT(provider_types),
                                                       .node = &p->node,
                                                       .metrics = p->metrics,
                                                       .own_port = p->info.port});
    if (models_settings(p->models, p->config, p->arena, &p->info, &p->settings, e))
        return true;
    models_destroy(p->models);
    return false;
}

static void stop_models(struct platform *p)
{
    models_destroy(p->models);
}

/* ---- orchestrator ---- */

static bool start_orchestrator(struct platform *p, struct error *e)
{
    uint8_t incarnation[4]; /* two lives of one node are two writers */
    random_system()->ops->fill(random_system(), incarnation, sizeof incarnation);
    if (!node_webhooks_start(&p->webhooks, p->config, &p->node, p->arena, e))
        return false;
    struct orchestrator_parts parts = {
        .webhooks = &p->webhooks.options,
        .store = sqlite_database_store(p->database),
        .policy = p->policy,
        .registry = p->tools.registry,
        .executor = p->tools.executor,
        .prepare_tool = prepare_tool,
        .prepare_owner = p,
        .metrics = p->metrics,
        .router = models_router(p->models),
        .tracer = p->tracer,
        .clock = clock_system(),
        .random = random_system(),
        .lanes = p->node.lanes,
        .lane_count = p->node.count,
        .run_places = (size_t) p->config->resilience.active_runs,
        .run_queue_max = (size_t) p->config->resilience.waiting_runs,
        .shed_lag_ms = p->config->resilience.shed_lag_ms,
        .shed_memory_bytes = p->config->resilience.shed_memory_bytes,
        .shed_commit_ms = p->config->resilience.shed_commit_ms,
        .node = str_printf(p->arena, STR_FMT "." STR_FMT, STR_ARG(p->config->node),
                           STR_ARG(str_hex(p->arena, incarnation, sizeof incarnation))),
        .data_dir = str_copy(p->arena, p->config->data_dir), /* outlives a reload */
        .settings = p->settings,
    };
    if (orchestrator_create(&parts, &p->orchestrator, e))
        return true;
    node_webhooks_stop(&p->webhooks);
    return false;
}

static void stop_orchestrator(struct platform *p)
{
    orchestrator_destroy(p->orchestrator);
    node_webhooks_stop(&p->webhooks);
}

static bool start_memory(struct platform *p, struct error *e)
{
    return node_memory_start(&p->memory, p->config, p->orchestrator,
                             sqlite_database_vectors(p->database), p->node.loops[0], e);
}

static void stop_memory(struct platform *p)
{
    node_memory_stop(&p->memory);
}

/* ---- keys ---- */

/* A store without a tenant has never given out a key, whatever became of the pepper. */
static bool open_keys(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    struct store *store = sqlite_database_store(p->database);
    struct query query = query_of(TABLE_TENANTS);
    struct records tenants;
    uuid *tenant_ids;
    if (!store_list_any_tenant(store, ctx, &query, &tenants, &tenant_ids, e))
        return false;
    struct keys_options options = {
        .store = store,
        .clock = clock_system(),
        .random = random_system(),
        .pepper_path = str_printf(p->arena, STR_FMT "/keys.pepper", STR_ARG(p->config->data_dir)),
        .may_create_pepper = tenants.count == 0};
    if (!keys_create(&options, &p->keys, e))
        return false;
    if (keys_bootstrap(p->keys, ctx, p->info.key_path, &p->info.is_key_new, e))
        return true;
    keys_destroy(p->keys);
    return false;
}

static bool start_keys(struct platform *p, struct error *e)
{
    p->info.key_path = str_printf(p->arena, STR_FMT "/admin.key", STR_ARG(p->config->data_dir));
    return on_loop_call(p->node.loops[0], "keys", START_TIMEOUT_MS, open_keys, p, e);
}

static void stop_keys(struct platform *p)
{
    keys_destroy(p->keys);
}

/* ---- recovery, gateway, what runs beside ---- */

static bool recover(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    for (int i = 1; i < RECOVER_TRIES_MAX; i++) {
        struct error late = {
            0}; /* the last life's commits may still arrive: what was read is read again */
        if (orchestrator_recover(p->orchestrator, ctx, &p->info.resumed_runs, &late))
            return true;
        if (late.code != ERROR_CONFLICT)
            return error_copy(e, &late);
    }
    return orchestrator_recover(p->orchestrator, ctx, &p->info.resumed_runs, e);
}

static bool start_recovery(struct platform *p, struct error *e)
{
    return on_loop_call(p->node.loops[0], "recover", 0, recover, p, e) ||
           error_wrap(e, "go on with interrupted runs");
}

static bool start_gateway(struct platform *p, struct error *e)
{
    p->cache = response_cache_create(
        &(struct response_cache_options){.bytes_max = (size_t) p->config->response_cache_bytes,
                                         .clock = clock_system(),
                                         .metrics = p->metrics});
    struct gateway_options options = {
        .orchestrator = p->orchestrator,
        .keys = p->keys,
        .cache = p->cache,
        .tracer = p->tracer,
        .metrics = p->metrics,
        .clock = clock_system(),
        .random = random_system(),
        .listen_address = p->config->listen_address,
        .policy_dir = p->policy_dir,
        .allowed_hosts = p->config->allowed_hosts,
        .allowed_host_count = p->config->allowed_host_count,
        .requests_per_minute = p->config->requests_per_minute,
        .tokens_per_minute = p->config->tokens_per_minute,
        .tenant_requests_per_minute = p->config->tenant_requests_per_minute,
        .tenant_tokens_per_minute = p->config->tenant_tokens_per_minute,
        .streams_per_key = (size_t) p->config->streams_per_key,
        .responses_expiry_ms = p->config->responses_expiry_ms,
        .policy = p->policy,
        .monitor = p->tools.monitor,
        .guard = p->tools.guard,
        .memory = p->memory.memory,
        .mcp_client = p->tools.mcp,
        .mcp = {.public_url = p->config->mcp_server.public_url,
                .is_tls = !str_is_empty(p->config->tls_cert_file),
                .version = S(NEXUS_VERSION),
                .sessions_per_key = (size_t) p->config->mcp_server.sessions_per_key,
                .session_idle_ms = p->config->mcp_server.session_idle_ms,
                .authorization_servers = p->config->mcp_server.authorization_servers,
                .authorization_server_count = p->config->mcp_server.authorization_server_count}};
    return gateway_create(&options, &p->gateway, e);
}

static bool settle_gateway(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    gateway_settle(p->gateway, ctx);
    return context_check(ctx, e);
}

static void stop_gateway(struct platform *p)
{
    struct error late;
    for (size_t i = 0; i < p->node.count; i++)
        if (!on_loop_call(p->node.loops[i], "gateway", STOP_PATIENCE_MS, settle_gateway, p, &late))
            LOG_WARN("nexus.gateway", S("calls are still ending"),
                     LOG_STR("error.message", str_from_cstr(late.message)));
    gateway_destroy(p->gateway);
    response_cache_destroy(p->cache);
}

static bool prepare_tools(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    return warm_up(ctx, WARM_UP_QUICK, p->tools.registry, p->tools.sandbox.executor,
                   p->tools.sandbox.prepare, e);
}

static bool prepare_components(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    return warm_up(ctx, WARM_UP_COMPONENTS, p->tools.registry, p->tools.sandbox.executor,
                   p->tools.sandbox.prepare, e);
}

static bool connect_servers(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    return node_tools_connect(&p->tools, ctx, p->config, e);
}

static bool disconnect_servers(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    return node_tools_disconnect(&p->tools, ctx, e);
}

static bool keep_house(struct context *ctx, void *argument, struct error *e)
{
    struct platform *p = argument;
    struct sweeper *sweeper = sweeper_create(p->orchestrator);
    do {
        metrics_set(p->metrics, METRIC_HTTP_CONNECTIONS,
                    (double) http_server_connection_count(p->server), NULL, 0);
        metrics_set(p->metrics, METRIC_RUNS_ACTIVE,
                    (double) orchestrator_active_runs(p->orchestrator), NULL, 0);
    } while (orchestrator_sweep(sweeper, ctx, e) && context_sleep_ms(ctx, HOUSEKEEPING_MS, e));
    sweeper_destroy(sweeper);
    return false;
}

static bool start_services(struct platform *p, struct error *e)
{
    if (!on_loop_call(p->node.loops[0], "mcp", START_TIMEOUT_MS, connect_servers, p, e))
        return error_wrap(e, "mcp");
    on_loop_begin(&p->warm_up, p->node.loops[p->node.count - 1], "warm_up", 0, prepare_tools, p);
    if (!on_loop_wait_for(&p->warm_up, WARM_UP_MS))
        LOG_WARN("nexus.tools",
                 S("tools are still being compiled; their first calls may have to wait"));
    on_loop_begin(&p->warm_up_late, p->node.loops[p->node.count - 1], "warm_up", 0,
                  prepare_components, p);
    on_loop_begin(&p->housekeeping, p->node.loops[0], "housekeeping", 0, keep_house, p);
    trace_job_start(&p->traces, p->tracer, p->metrics, p->config, &p->node, p->arena);
    atomic_store_explicit(&p->is_ready, true, memory_order_release);
    return true;
}

static void stop_services(struct platform *p)
{
    struct error late;
    if (!on_loop_call(p->node.loops[0], "mcp", STOP_PATIENCE_MS, disconnect_servers, p, &late))
        LOG_WARN("nexus.mcp", S("servers are still ending"),
                 LOG_STR("error.message", str_from_cstr(late.message)));
    on_loop_cancel(&p->warm_up);
    on_loop_cancel(&p->warm_up_late);
    on_loop_join(&p->warm_up);
    on_loop_join(&p->warm_up_late);
    on_loop_cancel(&p->housekeeping);
    on_loop_join(&p->housekeeping);
    trace_job_stop(&p->traces);
}

/* ---- the list ---- */

static const struct step {
    const char *name;
    bool (*start)(struct platform *p, struct error *e);
    void (*stop)(struct platform *p); /* NULL: nothing to stop */
} steps[] = {
    {"process", start_process, NULL},
    {"store", start_store, stop_store},
    {"metrics", start_metrics, stop_metrics},
    {"policy", start_policy, stop_policy},
    {"tools", start_tools, stop_tools},
    {"loops", start_loops, stop_loops},
    {"server", start_server, stop_server},
    {"threads", start_threads, stop_threads},
    {"executors", start_executors, NULL},
    {"models", start_models, stop_models},
    {"orchestrator", start_orchestrator, stop_orchestrator},
    {"keys", start_keys, stop_keys},
    {"memory", start_memory, stop_memory},
    {"gateway", start_gateway, stop_gateway},
    {"recovery", start_recovery, NULL},
    {"services", start_services, stop_services},
};

/* ---- drain ---- */

static void platform_begin_drain(struct platform *p, int64_t timeout_ms)
{
    if (p->gateway)
        gateway_set_draining(p->gateway);
    node_drain_begin(&p->drain, p->node.loops[0], p->server, p->orchestrator, timeout_ms);
}

static bool platform_is_drained(const struct platform *p)
{
    return node_drain_is_done(&p->drain);
}

/* ---- life ---- */

/* What cannot be interrupted (a compilation, a name being resolved) must not hold up the end of the process. */
static bool platform_is_stuck(struct platform *p)
{
    if (p->node.thread_count == 0 || !p->warm_up_late.loop)
        return false;
    on_loop_cancel(&p->warm_up);
    on_loop_cancel(&p->warm_up_late);
    bool is_warm = on_loop_wait_for(&p->warm_up, STOP_PATIENCE_MS) &&
                   on_loop_wait_for(&p->warm_up_late, STOP_PATIENCE_MS);
    return !is_warm || (p->orchestrator && orchestrator_active_runs(p->orchestrator) > 0);
}

static void platform_destroy(struct platform *p)
{
    if (!p)
        return;
    struct error late;
    if (p->node.thread_count > 0) {
        if (!p->drain.is_begun)
            platform_begin_drain(p, 0);
        if (!node_drain_wait(&p->drain, &late))
            LOG_WARN("nexus",
                     S("not everything ended in time; interrupted runs go on at the next start"),
                     LOG_STR("error.message", str_from_cstr(late.message)));
    }
    if (platform_is_stuck(p)) {
        LOG_WARN("nexus", S("left without waiting for work that cannot be interrupted; the next "
                            "start goes on with it"));
        return; /* as after a crash: what was acknowledged is durable, threads end with the process */
    }
    while (p->started_count > 0) {
        const struct step *step = &steps[--p->started_count];
        if (step->stop)
            step->stop(p);
    }
    config_destroy(p->config);
    arena_destroy(p->arena);
    free(p);
}

static bool platform_start(const struct config_sources *sources, struct config *give_config,
                           struct platform **out, struct error *e)
{
    struct platform *p = calloc(1, sizeof *p);
    ensure(p != NULL);
    p->arena = arena_create(0);
    p->sources = sources;
    p->config = give_config;
    p->info.data_dir = give_config->data_dir;
    heap_start();
    for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
        LOG_DEBUG("nexus", S("start"), LOG_STR("nexus.step", str_from_cstr(steps[i].name)));
        if (!steps[i].start(p, e)) {
            platform_destroy(p);
            return false;
        }
        p->started_count++;
    }
    *out = p;
    return true;
}

static const struct platform_info *platform_info(const struct platform *p)
{
    return &p->info;
}

/* ---- reload ---- */

static bool reload_policies_and_tools(struct platform *p, const struct config *fresh,
                                      struct error *e)
{
    if (!policy_reload(p->policy, e))
        return error_wrap(e, "policies");
    return registry_reconfigure(p->tools.registry, fresh->document.root ? &fresh->document : NULL,
                                e) ||
           error_wrap(e, "tools");
}

struct tls_reload {
    struct http_server *server;
    struct tls_server_options options;
};

static bool reload_tls(struct context *ctx, void *argument, struct error *e)
{
    struct tls_reload *reload = argument;
    return http_server_reload_tls(reload->server, ctx, &reload->options, e);
}

/* New files under the same names count: that is how certificates are renewed. */
static bool reload_certificate(struct platform *p, const struct config *fresh, struct error *e)
{
    struct tls_reload reload = {.server = p->server};
    struct tls_server_options old;
    if (!config_tls(p->config, &old) || !config_tls(fresh, &reload.options))
        return true; /* between plain HTTP and TLS it changes at a start only */
    return on_loop_call(p->node.loops[0], "tls", START_TIMEOUT_MS, reload_tls, &reload, e) ||
           error_wrap(e, "tls");
}

static bool platform_reload(struct platform *p, struct error *e)
{
    OWNED(config) fresh = NULL;
    struct settings *settings;
    if (!config_load(p->sources, &fresh, e) || !config_check_files(fresh, e))
        return false;
    /* What can be refused comes first, so that a broken part leaves everything as it was. */
    if (!models_reload(p->models, fresh, &settings, e))
        return false;
    if (!reload_certificate(p, fresh, e) || !reload_policies_and_tools(p, fresh, e)) {
        settings->references = 1;
        orchestrator_release(settings);
        return false;
    }
    config_warn_fixed(p->config, fresh);
    orchestrator_reconfigure(p->orchestrator, settings);
    log_set_level(fresh->log_level);
    struct config *old = p->config;
    p->config = GIVE(fresh);
    p->config->data_dir = str_copy(p->config->arena, old->data_dir); /* what is in force */
    p->info.data_dir = p->config->data_dir;
    config_destroy(old);
    return on_loop_call(p->node.loops[0], "mcp", START_TIMEOUT_MS, connect_servers, p, e) ||
           error_wrap(e, "mcp");
}

/* ---- single parts ---- */

static bool create_bare_sandbox(str cache_dir, struct executor **out, struct error *e)
{
    static struct host_call host_calls[1];
    host_calls[0] = host_clock();
    struct sandbox_options options = {.cache_dir = cache_dir,
                                      .host_calls = host_calls,
                                      .host_call_count = 1,
                                      .clock = clock_system()};
    return sandbox_create(&options, out, e);
}

static bool open_store(str data_dir, struct store **out, void **owner, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct sqlite_database *database;
    bool is_new;
    if (access(str_to_cstr(arena, str_printf(arena, STR_FMT "/nexus.db", STR_ARG(data_dir))),
               F_OK) != 0)
        return error_set(e, REASON_NOT_FOUND,
                         "no store in " STR_FMT "; name a server's folder with --data",
                         STR_ARG(data_dir));
    struct sqlite_options options = {
        .data_dir = data_dir, .node = S("cli"), .clock = clock_system(), .random = random_system()};
    if (!sqlite_database_open(&options, &database, &is_new, e))
        return false;
    *out = sqlite_database_store(database);
    *owner = database;
    return true;
}

static void close_store(void *owner)
{
    sqlite_database_close(owner);
}

int main(int argc, char **argv)
{
    static const struct platform_ops platform = {
        .start = platform_start,
        .info = platform_info,
        .reload = platform_reload,
        .begin_drain = platform_begin_drain,
        .is_drained = platform_is_drained,
        .destroy = platform_destroy,
    };
    static const struct part_ops parts = {
        .provider_types = provider_types,
        .provider_type_count = ARRAY_COUNT(provider_types),
        .create_policy = create_policy,
        .create_sandbox = create_bare_sandbox,
        .open_store = open_store,
        .close_store = close_store,
    };
#ifdef NEXUS_FAULTS
    fault_arm(str_from_cstr(getenv("NEXUS_FAULT")));
#endif
    OWNED(arena) arena = arena_create(64u << 20);
    struct cli cli = {.platform = &platform, .parts = &parts, .arena = arena};
    return command_main(&cli, argc, argv);
}
