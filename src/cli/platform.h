/*
 * Platform: all parts of a node in this process, as the commands see it.  main.c builds it, because only main.c may name concrete
 * back ends; commands get these functions through struct cli.
 *
 *      start (ready to serve when it returns) --> begin_drain --> is_drained --> destroy
 *
 * Thread: the main thread, which runs no loop.
 */
#ifndef NEXUS_CLI_PLATFORM_H
#define NEXUS_CLI_PLATFORM_H

#include "agent/executor.h"
#include "cli/config/config.h"
#include "orchestrator/policy/policy.h"
#include "store/store.h"

struct platform;
struct provider;
struct provider_options;

/* Kinds of providers that a configuration may name. */
struct provider_type {
    const char *name;
    bool is_stand_in; /* no real model */
    bool (*create)(const struct provider_options *options, struct provider **out, struct error *e);
};

struct platform_info {
    str url; /* "http://127.0.0.1:8080" */
    uint16_t port;
    str data_dir;
    str key_path;    /* of the admin key */
    bool is_key_new; /* made by this start */
    str default_model;
    str models;         /* "fast, large" for people; at most a line */
    str providers;      /* "ollama (http://127.0.0.1:11434/v1)" */
    bool is_discovered; /* they were found, not configured */
    bool is_stand_in;   /* there is no real model */
    str policy_version;
    bool is_policy_off; /* everything is allowed */
    size_t tool_count, tool_error_count, agent_count, resumed_runs, thread_count;
};

struct platform_ops {
    /* Takes the configuration; `sources` stay the caller's and are read again by reload.  Errors say what to do. */
    must_check bool (*start)(const struct config_sources *sources, struct config *give_config,
                             struct platform **out, struct error *e);
    const struct platform_info *(*info)(const struct platform *platform);
    /* Reads configuration, policies and tools again; on an error the old ones stay. */
    must_check bool (*reload)(struct platform *platform, struct error *e);
    void (*begin_drain)(struct platform *platform, int64_t timeout_ms);
    bool (*is_drained)(const struct platform *platform);
    void (*destroy)(struct platform *platform); /* drained, or never started; NULL is fine */
};

/* Single parts, for commands that look at them without a platform (doctor, config check, audit verify offline). */
struct part_ops {
    const struct provider_type *provider_types;
    size_t provider_type_count;
    must_check bool (*create_policy)(str dir, int64_t time_limit_ms, struct policy **out,
                                     struct error *e);
    must_check bool (*create_sandbox)(str cache_dir, struct executor **out, struct error *e);
    /* Blocking; REASON_IN_USE while a platform owns the folder.  Never makes a new store: NOT_FOUND. */
    must_check bool (*open_store)(str data_dir, struct store **out, void **owner, struct error *e);
    void (*close_store)(void *owner);
};

#endif
