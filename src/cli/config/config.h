/*
 * Configuration: what the operator wants, read once at start and again at SIGHUP.
 *
 * One YAML file; over it the environment (NEXUS_LISTEN for `listen`, NEXUS_SESSIONS_EXPIRY for `sessions.expiry`), over that the
 * command line.  Every setting is one row of a table (config_table.c) with name, kind, default and help; reading, checking, showing
 * and the reference page come from that table.
 *
 * - Unknown names are refused and the nearest known one is told; errors are "file:line: what; remedy".
 * - "${env:NAME}" and "${file:PATH}" in texts of the file are replaced by the variable or the file's content (without its last
 *   newline).  That is the operator's file only: nothing that arrives by API is read here.
 * - Secrets are held as struct secret and never shown; a text that came from a reference is shown as the reference.
 *
 * A config is immutable and owns all it points to.  Thread: any.  Suspends: never; reads files, so not on a loop.
 */
#ifndef NEXUS_CLI_CONFIG_H
#define NEXUS_CLI_CONFIG_H

#include "base/cost.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/secret.h"
#include "base/yaml.h"
#include "orchestrator/run/agent_definition.h"

struct tls_server_options;

struct config_provider {
    str name, type; /* type: openai, anthropic, offline */
    str base_url;
    str responses; /* the server has the Responses API as well: "true", "false", "auto" */
    struct secret **api_keys;
    size_t api_key_count;
    int64_t connect_timeout_ms, first_byte_timeout_ms, idle_timeout_ms; /* 0: limits.h */
    int64_t places, run_places, places_per_key; /* 0: resilience.provider_*, no bound per key */
};

/* Per million tokens; COST_UNLIMITED: not said. */
struct config_price {
    int64_t input_nanousd, cached_nanousd, cache_write_nanousd, output_nanousd, reasoning_nanousd;
};
struct config_target {
    str provider, model, variant;
    int64_t priority, weight;
    struct config_price price;
    int64_t context_tokens;
};
struct config_variant {
    str name;
    int64_t weight;
};
struct config_model {
    str name;
    str *aliases;
    size_t alias_count;
    struct config_target *targets;
    size_t target_count;
    struct config_variant *variants; /* `split` */
    size_t variant_count;
    int64_t max_output_tokens;
    struct {
        int64_t connect_ms, first_token_ms, between_tokens_ms, attempt_ms,
            total_ms; /* 0: not said */
    } deadlines;
    int64_t retries;
    str hedge_after;        /* as written */
    int64_t hedge_after_ms; /* 0: never; -1: auto */
    str embedder;           /* "true", "false" */
    str filter;             /* empty: none */
    struct {
        str mode; /* "off", "exact", "semantic" */
        int64_t ttl_ms;
        str scope; /* "user", "tenant" */
        str similarity_text;
        double similarity; /* 0..1 */
        str embedder;
    } cache;
};

struct config_filter_rule {
    str name, pattern, group, action;
};
struct config_filter {
    str name, direction;         /* "request", "response", "both" */
    str secrets, pii, injection; /* actions: "off", "flag", "mask", "block" */
    struct config_filter_rule *rules;
    size_t rule_count;
};

struct config_containment_rule {
    str name, tool, category, host, agent; /* empty: any */
    str when, verdict;
};

struct config_degrade {
    str when; /* "provider_unavailable", "budget_low", "overloaded" */
    struct {
        str model, tools; /* tools: "keep", "none" */
        str cached;       /* "true", "false" */
    } use;
};
struct config_agent {
    str name, version, description, model, instructions, workflow;
    str *tools;
    size_t tool_count;
    struct agent_tool *tool_details; /* one each, or NULL; read by config_check */
    str *link_names;                 /* of other agents that it works with ... */
    size_t link_count;
    struct agent_link *links; /* ... one each; read by config_check */
    int64_t steps_max, timeout_ms, max_output_tokens;
    struct agent_limits limits;
    str priority; /* batch, normal, interactive; empty: not said */
    struct config_degrade *degrade;
    size_t degrade_count;
};

struct config {
    struct arena *arena;
    str file;                      /* empty: there is none */
    struct yaml_document document; /* root NULL: there is none */
    struct config_origin *origins; /* of the settings that are not defaults */
    size_t origin_count;

    str listen, listen_address; /* as written; the part before the port */
    uint16_t listen_port;
    str tls_cert_file, tls_key_file; /* both, or both empty: plain HTTP */
    str tls_client_ca_file;          /* empty: clients show no certificate */
    str data_dir, node;
    str cache_dir; /* empty: the user's (folder_for_cache) */
    str log_level_name, log_format;
    enum log_level log_level;
    int64_t threads; /* 0: one per core */
    str *allowed_hosts;
    size_t allowed_host_count;
    str *dns_servers;
    size_t dns_server_count;
    str dns_server_list; /* the same, as net/dns.h takes them; empty: the system's way */

    struct config_provider *providers;
    size_t provider_count;
    struct config_model *models;
    size_t model_count;
    struct config_filter *filters;
    size_t filter_count;
    struct config_agent *agents;
    size_t agent_count;

    str prices_file;     /* goes before the shipped lists; empty: there is none */
    str tool_dir;        /* empty: the shipped ones */
    str roles;           /* --roles: "all", or a list (agent_process.h) */
    str sandbox_process; /* "auto", "on", "off" */
    str policy_engine;   /* "rego", "off" */
    str policy_dir;      /* empty: the shipped ones */
    str workflow_dir;    /* beside the shipped ones; empty: none */
    int64_t policy_time_limit_ms;

    struct {
        str mode;    /* "enforce", "observe", "off" */
        str *inside; /* hosts of the tenant's own */
        size_t inside_count;
        struct config_containment_rule *rules;
        size_t rule_count;
        int64_t links_max, approvals_max;
        str answer_links; /* "defuse", "keep" */
        str payloads;     /* "mask", "flag", "block" */
    } containment;

    struct {
        int64_t tokens, time_seconds, cost_nanousd, tool_calls; /* COST_UNLIMITED: none */
    } session_budget;
    str *budget_alerts; /* percent */
    size_t budget_alert_count;
    int64_t session_expiry_ms, session_files_bytes;
    str session_double_text; /* "reject", "enqueue", "interrupt", "steer" */
    int64_t session_workspace_bytes, session_workspace_files;
    struct { /* docs/resilience.md */
        int64_t tool_places, server_places, tool_queue, tool_wait_ms;
        int64_t provider_places, provider_run_places, provider_queue, provider_wait_ms;
        int64_t active_runs, waiting_runs;
        int64_t shed_lag_ms, shed_memory_bytes, shed_commit_ms; /* 0: not looked at */
    } resilience;
    int64_t approval_expiry_ms, approval_remind_ms;
    int64_t retention_runs_ms, retention_deltas_ms; /* 0: never */
    str *registrars;                                /* persons who hand out keys to others */
    size_t registrar_count;
    struct { /* docs/webhooks.md */
        str *allowed_hosts, *allowed_ips, *blocked_ips;
        size_t allowed_host_count, allowed_ip_count, blocked_ip_count;
        str http; /* "refuse", "allow" */
        str *retries;
        size_t retry_count;
        int64_t timeout_ms, keep_ms;
    } webhooks;
    int64_t responses_expiry_ms; /* of stored answers of /v1/responses */
    struct {                     /* docs/memory.md */
        str embedding_model;     /* empty: the built-in embedder */
        str filter;              /* empty: the embedding model's */
        int64_t dimensions, session_points, user_points;
    } memory;
    struct { /* /mcp */
        str public_url;
        str *authorization_servers;
        size_t authorization_server_count;
        int64_t sessions_per_key, session_idle_ms;
    } mcp_server;
    int64_t tokens_per_minute, tenant_requests_per_minute, tenant_tokens_per_minute; /* 0: none */
    int64_t response_cache_bytes;
    int64_t store_cache_bytes;
    str tracing_endpoint; /* empty: no traces */
    str tracing_sample_text;
    double tracing_sample; /* 0..1 */
    struct secret **tracing_authorization;
    size_t tracing_authorization_count; /* at most 1 */
    int64_t requests_per_minute, streams_per_key, call_timeout_ms, drain_timeout_ms;
};

/* A setting given on the command line; `label` is what messages call it ("--listen"). */
struct config_override {
    const char *name; /* "listen", "log_level", "policy.dir" */
    const char *label;
    str value;
};
struct config_sources {
    str file;         /* empty: looked for, see config_find_file */
    bool has_no_file; /* defaults and environment only */
    const struct config_override *overrides;
    size_t override_count;
    const char *(*environment)(const char *); /* NULL: getenv; tests have their own */
};

/* REASON_CONFIG with "file:line: what; remedy". */
must_check bool config_load(const struct config_sources *sources, struct config **out,
                            struct error *e);
void config_destroy(struct config *config); /* NULL is fine; wipes the secrets */
OWNED_DEFINE(config)

/* The same from a text, for tests and fuzzing; `file` is only a name. */
must_check bool config_parse(str file, str text, const struct config_sources *sources,
                             struct config **out, struct error *e);

/* False: the server speaks plain HTTP.  `out` points into config. */
bool config_tls(const struct config *config, struct tls_server_options *out);
/* What a start would refuse of the files that settings name (TLS); logs a warning when others can
   read the key.  Blocks. */
must_check bool config_check_files(const struct config *config, struct error *e);

/* $NEXUS_CONFIG, ./nexus.yaml, /etc/nexus/nexus.yaml: the first that exists; empty when none does. */
str config_find_file(struct arena *arena, const char *(*environment)(const char *) );

/* The session budget as a cost. */
cost config_session_budget(const struct config *config);

/* Thresholds in thousandths, rising; how many.  config_check has seen them. */
int config_budget_alerts(const struct config *config, int out[BUDGET_ALERTS_MAX]);

/* From one attempt of a delivery to the next, ms; how many.  config_check has seen them. */
int config_webhook_retries(const struct config *config, int64_t out[WEBHOOK_RETRIES_MAX]);

/* The settings in force as JSON, each with its origin; secrets and references are not resolved. */
void config_write_json(struct json_writer *w, const struct config *config);
/* The reference: one entry per setting, as the manual page and docs show it. */
void config_write_reference(struct strbuf *out);

#endif
