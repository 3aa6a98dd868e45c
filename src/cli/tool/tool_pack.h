/*
 * Packing: a tool's folder (manifest.yaml, its modules, manifest.sig when it is there) as a package, and back to a file.
 * Blocking; on the main thread of a command or on the client's coroutine (a command has nothing else to do).
 */
#ifndef NEXUS_CLI_TOOL_PACK_H
#define NEXUS_CLI_TOOL_PACK_H

#include "agent/tool/package.h"

/* A file's bytes on the arena, at most `max`. */
must_check bool tool_pack_read_file(struct arena *arena, str path, size_t max, str *out,
                                    struct error *e);
/* By rename: complete or not at all. */
must_check bool tool_pack_write_file(str path, str bytes, int mode, struct error *e);
/* What the manifest of a folder names; checked as the server will (package_tool). */
must_check bool tool_pack_folder(struct arena *arena, str folder, struct package *out,
                                 struct tool *tool, struct error *e);
/* A package's bytes: of a folder, or of a .nexus-tool file as it is. */
must_check bool tool_pack(struct arena *arena, str path, str *archive, struct error *e);
bool tool_pack_is_folder(struct arena *arena, str path);

#endif
