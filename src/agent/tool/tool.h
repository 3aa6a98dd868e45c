/*
 * Tool: what a manifest says of one tool at one version.  Immutable after loading.
 *
 * Source: spec sections 4 and 11; the manifest's form is in toolbox/README.md.
 */
#ifndef NEXUS_AGENT_TOOL_H
#define NEXUS_AGENT_TOOL_H

#include "agent/tool/approval_rule.h"
#include "agent/tool/permissions.h"
#include "base/digest.h"
#include "base/json.h"
#include "base/uuid.h"

enum tool_abi {
    TOOL_ABI_WASI_COMMAND,
    TOOL_ABI_NEXUS_EXPORT,
    TOOL_ABI_COMPONENT, /* WIT world nexus:tool: two strings, host calls */
    TOOL_ABI_MCP,       /* no module: an MCP server runs it */
};

/* Where a tool came from: what a person trusts it for. */
enum tool_source { TOOL_SHIPPED, TOOL_INSTALLED, TOOL_FROM_MCP };

/* One of several modules of a tool: which one runs is said by a member of the input. */
struct tool_module {
    str value; /* of the member named by tool->module_member: "python" */
    enum tool_abi abi;
    str path;
    digest digest;
};

struct tool_limits {
    uint64_t fuel;   /* wasm fuel units */
    int64_t time_ms; /* wall clock, waiting for host calls included */
    size_t memory_bytes;
    size_t output_bytes;
    uint32_t table_elements;
};

/* Interpreters that live on between calls (notebooks.h); off unless the operator turns them on. */
struct tool_notebooks {
    bool is_enabled;
    size_t memory_bytes; /* of each; lowers the tool's own limit */
    int64_t idle_ms;     /* it ends after so long without a call */
    uint32_t per_session_max;
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
    str module_member; /* "language"; empty: one module, the one above */
    struct tool_module *modules;
    size_t module_count;
    struct tool_notebooks notebooks;
    struct approval_rule approval; /* what the operator demands of approvals of its calls */
    enum tool_source source;
    str source_name;        /* TOOL_FROM_MCP: the server, TOOL_INSTALLED: who installed it */
    str signer;             /* name of the trusted key whose signature was verified; empty: none */
    uuid tenant_id;         /* UUID_NONE: every tenant sees it */
    bool is_deprecated;     /* still callable by whoever pins it; said in answers and lists */
    str deprecation;        /* why, and what to use instead */
    bool is_output_public;  /* labels.h: what it gives back carries no private data of the tenant */
    bool is_output_trusted; /* ... and is nobody's free text: no instructions can hide in it */
    bool is_sink;           /* what it is given leaves the platform, or changes something outside */
    digest identity;        /* tool_identity(): what may share compiled code and schemas */
};

/* The module that runs for a value of the member `module_member`; NULL: none does. */
const struct tool_module *tool_find_module(const struct tool *tool, str value);
/* The module that this input asks for, by copy: of a tool with one module that one, of an input without the member the
   first, whose schema refuses it.  SCHEMA: no module runs such a value. */
must_check bool tool_choose_module(struct arena *arena, const struct tool *tool,
                                   const struct json *input, struct tool_module *out,
                                   struct error *e);
/* The same tool with this module and no other, and an identity of its own.  Borrows from both. */
struct tool tool_with_module(const struct tool *tool, const struct tool_module *module);
/* Of several modules together, for whoever fills a struct tool: its module_digest. */
digest tool_modules_digest(const struct tool *tool);
/* Over name, version, ABI, schemas and module digest.  Whoever fills a struct tool sets `identity` to it last. */
digest tool_identity(const struct tool *tool);

/* The tool as it counts for this input.  A call in a notebook depends on what earlier ones left there, so it may not be
   repeated, and what it gives is as untrusted and private as anything that was ever put in. */
const struct tool *tool_of_call(struct arena *arena, const struct tool *tool, str input);
/* Does this input name a notebook, of a tool that knows them?  Then its name. */
bool tool_names_notebook(const struct tool *tool, const struct json *input, str *name);

/* category "system" and tools that are neither pure nor idempotent have effects that must not happen twice. */
bool tool_has_effect(const struct tool *tool);
/* Does the manifest's host_calls grant this one? */
bool tool_may_call(const struct tool *tool, str host_call);
/* Deep: everything lies on the arena afterwards. */
void tool_copy(struct arena *arena, struct tool *to, const struct tool *from);
void permissions_copy(struct arena *arena, struct permissions *to, const struct permissions *from);
/* Name, version, category, description, schemas, permissions, purity, digest. */
void tool_write_json(struct json_writer *w, const struct tool *tool);
void tool_write_members(struct json_writer *w,
                        const struct tool *tool); /* the same inside an object */

#endif
