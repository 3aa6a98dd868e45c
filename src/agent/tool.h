/*
 * Tool: what a manifest says of one tool at one version.  Immutable after loading.
 *
 * Source: spec sections 4 and 11; the manifest's form is in toolbox/README.md.
 */
#ifndef NEXUS_AGENT_TOOL_H
#define NEXUS_AGENT_TOOL_H

#include "agent/permissions.h"
#include "base/digest.h"
#include "base/json.h"

enum tool_abi { TOOL_ABI_WASI_COMMAND, TOOL_ABI_NEXUS_EXPORT };

struct tool_limits {
    uint64_t fuel;   /* wasm fuel units */
    int64_t time_ms; /* wall clock, waiting for host calls included */
    size_t memory_bytes;
    size_t output_bytes;
    uint32_t table_elements;
};

struct tool {
    str name, version, category, description, author;
    enum tool_abi abi;
    bool is_pure; /* same input (and files), same output: no effect; may be repeated and cached */
    bool is_idempotent; /* a repeat with the same effect key does no harm */
    struct tool_limits limits;
    struct permissions permissions;
    str input_schema; /* JSON text, 2020-12 */
    str output_schema;
    str *host_calls; /* names the guest may call */
    size_t host_call_count;
    digest module_digest; /* sha256 of the .wasm */
    str module_path;
    digest identity; /* tool_identity(): what may share compiled code and schemas */
};

/* Over name, version, ABI, schemas and module digest.  Whoever fills a struct tool sets `identity` to it last. */
digest tool_identity(const struct tool *tool);

/* category "system" and tools that are neither pure nor idempotent have effects that must not happen twice. */
bool tool_has_effect(const struct tool *tool);
/* Does the manifest's host_calls grant this one? */
bool tool_may_call(const struct tool *tool, str host_call);
/* Name, version, category, description, schemas, permissions, purity, digest. */
void tool_write_json(struct json_writer *w, const struct tool *tool);

#endif
