/*
 * Host call "file_system": the files of the call's workspace, under the calling tool's permissions.
 *
 *   {"operation", "path", "content"?, "encoding"?: "utf-8" | "base64", "pattern"?}
 *     -> {"content"?, "encoding"?, "entries"?, "truncated"?, "stat"?}
 *
 *   read                 content; base64 when it is no UTF-8
 *   write, append        the folders above are made; stat of the file
 *   list                 entries of a folder; pattern: only names that fit
 *   stat, delete         stat; a folder must be empty to be deleted
 *   search               entries below a folder whose names fit the pattern; with content: the lines that hold that text
 *
 * Paths are virtual (agent/sandbox/workspace.h): permissions.paths.read must let through what is read, listed or found, paths.write what is
 * written or deleted; max_file_size bounds a file, allowed_extensions its name.  A list or search leaves out what may not be read.
 * Files that the session's user uploaded lie in the root, by their names, read-only; they win over a file of the same name.
 * Thread: the loop of the call; files are touched on the blocking pool, under the workspace's lock when something changes.
 */
#ifndef NEXUS_AGENT_HOST_FILES_H
#define NEXUS_AGENT_HOST_FILES_H

#include "agent/executor.h"
#include "agent/sandbox/workspace.h"

struct host_files {
    str data_dir;
    struct workspace_limits limits;
};

/* `files` lives as long as the sandbox does. */
struct host_call host_files(const struct host_files *files);

#endif
