/*
 * Shipped: where the program finds what belongs to it (tools, policies), relative to its own file.
 *
 *      build/release/nexus        build/release/toolbox, ../../policies
 *      /usr/bin/nexus             /usr/share/nexus/toolbox, /usr/share/nexus/policies
 */
#ifndef NEXUS_CLI_SHIPPED_H
#define NEXUS_CLI_SHIPPED_H

#include "base/error.h"

/* Folder "toolbox" or "policies"; REASON_CONFIG names where it was looked for and the setting to use instead. */
must_check bool shipped_find(struct arena *arena, const char *folder, const char *setting, str *out,
                             struct error *e);

/* mkdir -p with mode 0700 for what is new. */
must_check bool folder_make(str path, struct error *e);
/* rm -rf of a temporary folder that this process made; follows no links. */
void folder_remove(const char *path);

#endif
