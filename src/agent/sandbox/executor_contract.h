/*
 * The contract suite of executors that run wasm tools: the sandbox in this process and the one in a
 * process of its own pass the same.
 */
#ifndef NEXUS_AGENT_EXECUTOR_CONTRACT_H
#define NEXUS_AGENT_EXECUTOR_CONTRACT_H

#include "agent/executor.h"

struct executor_fixture {
    const char *name;
    const char *guest_source; /* tests/guests/behave.c; a compiler for it is there */
    /* A new one with these host calls; the suite destroys it. */
    struct executor *(*open)(const char *cache_dir, const struct host_call *host_calls,
                             size_t host_call_count);
};
/* The number of failed tests. */
int executor_contract_run(const struct executor_fixture *fixture);

#endif
