/*
 * Registry: the tools that can be called, by name and version.
 *
 * An immutable snapshot behind an atomic pointer with a reference count: a reload makes a new one, calls in flight keep theirs.
 * A directory holds one folder per tool with manifest.yaml and its module.  A broken manifest refuses that tool with file and line
 * and never the others; the errors are listed.
 * Thread: any for reading; reload on the blocking pool.
 */
#ifndef NEXUS_AGENT_REGISTRY_H
#define NEXUS_AGENT_REGISTRY_H

#include "agent/tool.h"

struct registry;
struct registry_snapshot;

struct registry_options {
    str tool_dir; /* build/toolbox or the installed folder */
    /* Configuration whose root has `tools:`, read at once: tools.NAME.permissions are intersected.  May be NULL. */
    const struct yaml_document *tool_config;
};
must_check bool registry_create(const struct registry_options *options, struct registry **out,
                                struct error *e);
void registry_destroy(struct registry *registry);
must_check bool registry_reload(struct registry *registry,
                                struct error *e); /* blocking; a failure keeps the old one */
/* The same with a new configuration of the tools' permissions (as in the options); one at a time. */
must_check bool registry_reconfigure(struct registry *registry,
                                     const struct yaml_document *tool_config, struct error *e);

const struct registry_snapshot *registry_acquire(struct registry *registry); /* release it again */
void registry_release(const struct registry_snapshot *snapshot);
size_t registry_count(const struct registry_snapshot *snapshot);
const struct tool *registry_at(const struct registry_snapshot *snapshot,
                               size_t index); /* by name, then newest first */
/* `range`: empty (newest), "1.2.3", "1.2" (any 1.2.x), "^1.2", "~1.2", ">=1.0", ">=1.0 <2".  A prerelease fits only a range that
   names one of the same version.  The newest that fits; NULL when nothing does. */
const struct tool *registry_find(const struct registry_snapshot *snapshot, str name, str range);
size_t registry_error_count(const struct registry_snapshot *snapshot);
str registry_error_at(const struct registry_snapshot *snapshot,
                      size_t index); /* "file:line: ..." */

bool semver_is_valid(str version);
bool semver_satisfies(str version, str range);
int semver_compare(str a, str b); /* <0, 0, >0; build metadata does not count */

#endif
