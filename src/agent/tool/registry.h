/*
 * Registry: the tools that can be called, by name and version.
 *
 *      folder (tool_dir) --.
 *      packages -----------+--> tools --(configuration, states)--> snapshot --> resolve, search, effective permissions
 *      dynamic sources ----'
 *
 * An immutable snapshot behind a pointer with a reference count: every change makes a new one, calls in flight keep theirs (tools,
 * texts and module paths included).  What does not change is shared between snapshots and never read again.
 * A directory holds one folder per tool with manifest.yaml and its modules.  A broken manifest refuses that tool with file and line
 * and never the others; the errors are listed.
 * States are decisions of people about tools (pin, canary, deprecation, visibility, permissions): of the platform (tenant UUID_NONE) or
 * of a tenant; whoever keeps them tells the registry.
 * Thread: any for reading.  Changes: any; one at a time inside; those that read files say "blocking".
 */
#ifndef NEXUS_AGENT_REGISTRY_H
#define NEXUS_AGENT_REGISTRY_H

#include "agent/tool/tool.h"

struct registry;
struct registry_snapshot;

struct registry_options {
    str tool_dir; /* build/toolbox or the installed folder */
    /* Configuration whose root has `tools:`, read at once; see below.  May be NULL. */
    const struct yaml_document *tool_config;
};
must_check bool registry_create(const struct registry_options *options, struct registry **out,
                                struct error *e);
void registry_destroy(struct registry *registry);
must_check bool registry_reload(struct registry *registry,
                                struct error *e); /* blocking; a failure keeps the old one */
/*
 * The same with a new configuration (as in the options), one at a time:
 *   tools: {dir, trusted_keys: [{name, public_key}], require_signature, NAME: {permissions, version, canary: {version, percent}}}
 */
must_check bool registry_reconfigure(struct registry *registry,
                                     const struct yaml_document *tool_config, struct error *e);

/* Is `tools:` of this configuration sound?  With file and line. */
must_check bool registry_check_config(const struct yaml_document *tool_config, struct error *e);

const struct registry_snapshot *registry_acquire(struct registry *registry); /* release it again */
void registry_release(const struct registry_snapshot *snapshot);
size_t registry_count(const struct registry_snapshot *snapshot);
const struct tool *registry_at(const struct registry_snapshot *snapshot,
                               size_t index); /* by name, then newest first */
/* Of the platform's own tools, without states.  `range`: empty (newest), "1.2.3", "1.2" (any 1.2.x), "^1.2", "~1.2", ">=1.0", ">=1.0 <2".  A prerelease fits only a range that
   names one of the same version.  The newest that fits; NULL when nothing does. */
const struct tool *registry_find(const struct registry_snapshot *snapshot, str name, str range);

/*
 * Which tool is meant, by somebody: only what their tenant may see, the operator's pins and canaries applied.
 *
 * `range` empty: the channel's version: the canary's for its percentage of the keys; else the pinned one; else the newest that is
 * neither deprecated nor a canary.  A tenant's own decision goes before the platform's, and that before the configuration's.
 * A range picks the newest that fits, deprecated ones last.  A tool of the platform hides a tenant's own of the same name.
 */
struct registry_question {
    uuid tenant_id;
    str name, range;
    uuid canary_key; /* the session or run: the same one always gets the same version */
};
const struct tool *registry_resolve(const struct registry_snapshot *snapshot,
                                    const struct registry_question *question);
/* Is it the platform's or the tenant's own? */
bool registry_is_visible(const struct tool *tool, uuid tenant_id);
/* ... and does nobody hide it from this tenant?  What registry_resolve and search look at. */
bool registry_shows(const struct registry_snapshot *snapshot, const struct tool *tool,
                    uuid tenant_id);
/* The next tool name at or behind *index that the tenant may see; false at the end. */
bool registry_next_name(const struct registry_snapshot *snapshot, uuid tenant_id, size_t *index,
                        str *name);

/*
 * The tool with the permissions that count for this tenant and agent (NULL: none said): the tool itself when nobody narrows it, else a
 * copy on the arena with the same identity.  It lives as long as both.
 */
const struct tool *registry_effective(const struct registry_snapshot *snapshot, struct arena *arena,
                                      const struct tool *tool, uuid tenant_id,
                                      const struct permissions *agent);
/* What each level says of a tool, for explanations; `agent` may be NULL. */
struct permission_levels registry_levels(const struct registry_snapshot *snapshot,
                                         const struct tool *tool, uuid tenant_id,
                                         const struct permissions *agent);

/* ---- search ---- */
struct registry_search {
    uuid tenant_id, canary_key;
    str query;                                             /* words of a person or of a message */
    bool (*accepts)(void *owner, const struct tool *tool); /* NULL: all */
    void *owner;
};
struct registry_hit {
    const struct tool *tool; /* at the version the tenant would get */
    double score;
};
/* The best `max` by name and description, best first; tools without any of the words are not among them. */
size_t registry_find_words(const struct registry_snapshot *snapshot,
                           const struct registry_search *search, struct registry_hit *out,
                           size_t max);

/* ---- tools from elsewhere ---- */

/* Tools that come from elsewhere than folders: replaces all of `source_name`'s (count 0: removes them) in a new snapshot.  Everything
   is copied.  Thread: any; not blocking.  CONFLICT names a tool that a folder or the platform has under the same name. */
must_check bool registry_set_source(struct registry *registry, str source_name,
                                    const struct tool *tools, size_t count, struct error *e);

/* A package as it was installed; the folder holds its files. */
struct registry_package {
    uuid tenant_id; /* UUID_NONE: the platform's */
    str name, version;
    str folder;
    digest
        seal; /* package_seal() at the installation: files that do not fit it any more are refused */
    str installed_by; /* for source_name */
};
/* Reads a folder like a package's without adding it: tool and seal on the arena.  Blocking. */
must_check bool registry_read_package(struct arena *arena, str folder, struct tool *out,
                                      digest *seal, struct error *e);
/* May a package with this manifest.sig (empty: none) be installed?  Gives the name of the key that signed it, or empty.  DENIED. */
must_check bool registry_check_signature(struct registry *registry, struct arena *arena,
                                         str signature, digest seal, str *signer, struct error *e);
/* Adds them, or replaces what has the same tenant, name and version.  Those that cannot be read are listed among the errors, never fatal;
   with one package the error is given too.  Blocking. */
must_check bool registry_add_packages(struct registry *registry,
                                      const struct registry_package *packages, size_t count,
                                      struct error *e);
void registry_remove_package(struct registry *registry, uuid tenant_id, str name, str version);

/* ---- states ---- */
struct registry_deprecation {
    str version, text;
};
struct registry_state {
    uuid tenant_id; /* UUID_NONE: the platform */
    str name;
    str current; /* pinned version; empty: the channel's rule */
    str canary_version;
    int canary_percent; /* 0..100 */
    bool is_hidden;     /* a tenant: for itself; the platform: for all */
    bool is_limited;    /* platform: only these tenants see it */
    const uuid *visible_to;
    size_t visible_count;
    const struct registry_deprecation
        *deprecations; /* of the tenant's own tools; the platform: of the platform's */
    size_t deprecation_count;
    const struct permissions *permissions; /* a tenant's narrowing; NULL: none */
};
/* One changed state, copied; or, with is_all, all there are. */
must_check bool registry_set_states(struct registry *registry, const struct registry_state *states,
                                    size_t count, bool is_all, struct error *e);
/* NULL: nothing was decided. */
const struct registry_state *registry_state(const struct registry_snapshot *snapshot,
                                            uuid tenant_id, str name);

size_t registry_error_count(const struct registry_snapshot *snapshot);
str registry_error_at(const struct registry_snapshot *snapshot,
                      size_t index); /* "file:line: ..." */

bool semver_is_valid(str version);
bool semver_satisfies(str version, str range);
int semver_compare(str a, str b); /* <0, 0, >0; build metadata does not count */

#endif
