/*
 * Agent process: where a node runs its guests: in this process, or in one of its own behind a wall
 * (agent/sandbox/remote/executor_remote.h).  docs/second-wall.md says what each costs and keeps out.
 *
 *      sandbox.process    auto: its own as soon as there is more than one tenant at the start
 *                         on, off
 *      --roles            a list without "agent" is `on`
 */
#ifndef NEXUS_CLI_AGENT_PROCESS_H
#define NEXUS_CLI_AGENT_PROCESS_H

#include "agent/executor.h"

struct store;

/* --roles: "all", "agent", or a list of gateway, orchestrator, agent, llm. */
struct agent_roles {
    bool is_agent_only; /* this is the sandbox process */
    bool has_agent;
};
/* REASON_USAGE names the roles there are, or what cannot be split yet. */
must_check bool agent_roles_parse(str text, struct agent_roles *out, struct error *e);

/* `nexus serve --roles agent` as the node starts it; gives the exit code.  The first thing the
   process does. */
int agent_process_serve(void);

struct agent_place {
    str process;         /* sandbox.process */
    str roles;           /* --roles; empty: all */
    size_t tenant_count; /* at the start */
    str cache_dir;       /* folder for compiled code: wasm/ or wasm-apart/ below it */
    const struct host_call *host_calls;
    size_t host_call_count;
};
struct agent_executor {
    struct executor *executor;
    bool (*prepare)(struct executor *executor, const struct tool *tool, struct error *e);
    bool is_apart;
};
/* Blocking: waits for the process to be up.  The executor must be destroyed after the loops ended. */
must_check bool agent_executor_create(const struct agent_place *place, struct agent_executor *out,
                                      struct error *e);
/* 0, 1, or 2 for more. */
may_suspend bool agent_count_tenants(struct store *store, struct context *ctx, size_t *out,
                                     struct error *e);

/* For doctor: starts a process and says which walls stand, in one line on the arena. */
must_check bool agent_process_probe(str cache_dir, struct arena *arena, str *out, struct error *e);

#endif
