/*
 * Workspace: the files that tools write, one folder per tenant and session, kept beneath its root by the kernel.
 *
 *      data_dir/workspaces/<tenant>/<session>/output/report.csv   is, for a tool,   /tmp/agent-workspace/output/report.csv
 *
 * - Every name is looked up by openat2 with RESOLVE_BENEATH, NO_SYMLINKS, NO_MAGICLINKS and NO_XDEV, so no `..`, link, mount or race
 *   between looking and opening leads out of the root.  Without openat2 (Linux before 5.6) everything is refused: there is no other way.
 * - Only plain files with one name are opened: no pipe, socket, device, and no file that a second (hard) link shares.
 * - A write is whole or not there: it goes to a file beside the target, is synced, and renamed over it.  Names that begin with
 *   WORKSPACE_TEMPORARY are ours; what a crash left of them is removed by a later write.
 * - Bytes and entries are bounded; the sum is taken under the lock, so parallel writers cannot pass it together.
 * Changes (write, append, remove) need the lock.  It is the folder's flock: it holds between processes, and ends with them.
 * Thread: any that may block; an open workspace is used by one at a time.  Suspends: never.
 */
#ifndef NEXUS_AGENT_WORKSPACE_H
#define NEXUS_AGENT_WORKSPACE_H

#include "base/arena.h"
#include "base/error.h"
#include "base/strbuf.h"
#include "base/uuid.h"

#define WORKSPACE_ROOT "/tmp/agent-workspace" /* as tools see it */
#define WORKSPACE_TEMPORARY ".nexus-"

/* A tool's path as the path below the root: "/tmp/agent-workspace/a//b" and "a/b" are "a/b"; the root itself is empty.
   SCHEMA for what is no path (control, invisible or bidirectional characters, names ending in a dot or blank, too long or deep),
   PERMISSION for one that leads out ("..", another absolute path). */
must_check bool workspace_path(struct arena *arena, str path, str *out, struct error *e);
/* The way back: "a/b" is "/tmp/agent-workspace/a/b". */
str workspace_virtual(struct arena *arena, str relative);
/* "<tenant>/<session>"; without a session the user's own: "<tenant>/user-<digest>". */
str workspace_folder(struct arena *arena, uuid tenant_id, uuid session_id, str user_id);

struct workspace_limits {
    int64_t bytes_max;
    size_t entries_max; /* files and folders */
};

struct workspace;
/* NOT_FOUND when nothing was ever written there, unless `is_made`. */
must_check bool workspace_open(str data_dir, str folder, bool is_made, struct workspace **out,
                               struct error *e);
void workspace_close(struct workspace *workspace); /* gives the lock back; NULL is fine */
static inline void workspace_destroy(struct workspace *workspace)
{
    workspace_close(workspace);
}
OWNED_DEFINE(workspace)
/* Does not wait: *is_locked says whether the lock is ours now. */
must_check bool workspace_lock(struct workspace *workspace, bool *is_locked, struct error *e);

struct workspace_entry {
    str path; /* below the root */
    bool is_folder;
    int64_t bytes; /* of a file */
    int64_t modified_us;
};
/* Errors of all below: NOT_FOUND, PERMISSION (links and special files), SCHEMA (a folder where a file is meant and the other way). */
must_check bool workspace_stat(struct workspace *workspace, str path, struct workspace_entry *out,
                               struct error *e);
/* A descriptor to read from, of a plain file; the caller closes it. */
must_check bool workspace_open_file(struct workspace *workspace, str path, int *fd, int64_t *bytes,
                                    struct error *e);
/* TOO_LARGE past `bytes_max`; `out` on the arena. */
must_check bool workspace_read(struct workspace *workspace, struct arena *arena, str path,
                               size_t bytes_max, str *out, struct error *e);

/* Calls `visit` for what lies in a folder, sorted by name, or in all below it; until it answers false (fine as well).  `path` and the
   entry's are on the arena.  Links and special files are passed over.  *is_cut: more than WORKSPACE_WALK_MAX entries. */
typedef bool workspace_visit(void *owner, const struct workspace_entry *entry);
must_check bool workspace_walk(struct workspace *workspace, struct arena *arena, str path,
                               bool is_deep, workspace_visit *visit, void *owner, bool *is_cut,
                               struct error *e);

/* Replaces or makes the file and the folders above it.  QUOTA past the limits, DISK_FULL, STORE. */
must_check bool workspace_write(struct workspace *workspace, const struct workspace_limits *limits,
                                str path, str bytes, struct error *e);
/* A file or an empty folder. */
must_check bool workspace_remove(struct workspace *workspace, str path, struct error *e);

/* Removes a whole workspace; missing is fine.  `limit`: entries at most; false in *is_done when there is more. */
must_check bool workspace_erase(str data_dir, str folder, size_t limit, bool *is_done,
                                struct error *e);
/* The workspaces there are, as folders "<tenant>/<session>", in order, after `after`; at most `max`. */
must_check bool workspace_list(str data_dir, struct arena *arena, str after, size_t max, str *out,
                               size_t *count, struct error *e);

/* '*' any run of characters, '?' one byte: for names. */
bool workspace_glob(str pattern, str name);

#endif
