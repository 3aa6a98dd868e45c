/*
 * Shipped: where the program finds what belongs to it (tools, policies), relative to its own file.
 *
 *      build/release/nexus        build/release/toolbox, ../../policies
 *      /usr/bin/nexus             /usr/share/nexus/toolbox, /usr/share/nexus/policies
 *
 * And the folders that it makes for itself.
 */
#ifndef NEXUS_CLI_SHIPPED_H
#define NEXUS_CLI_SHIPPED_H

#include "base/error.h"

/* Folder "toolbox" or "policies"; REASON_CONFIG names where it was looked for and the setting to use instead. */
must_check bool shipped_find(struct arena *arena, const char *folder, const char *setting, str *out,
                             struct error *e);

/* mkdir -p with mode 0700 for what is new. */
must_check bool folder_make(str path, struct error *e);
/* Where compiled tools are kept: `cache_dir` as configured, else the user's cache folder ($XDG_CACHE_HOME/nexus,
   ~/.cache/nexus), which all data folders of this user share, else DATA/cache.  It exists afterwards. */
must_check bool folder_for_cache(struct arena *arena, str cache_dir, str data_dir, str *out,
                                 struct error *e);
/* rm -rf of a temporary folder that this process made; follows no links. */
void folder_remove(const char *path);

#endif
