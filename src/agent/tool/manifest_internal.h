/*
 * Manifest: manifest.yaml of one tool, to a struct tool.  (Form: toolbox/README.md.)
 *
 * Unknown members, missing ones and wrong forms are REASON_CONFIG with "file:line: ...".  Pure: the
 * module's file is not touched; module_path is the file's bare name, module_digest and identity are
 * empty.
 */
#ifndef NEXUS_AGENT_MANIFEST_INTERNAL_H
#define NEXUS_AGENT_MANIFEST_INTERNAL_H

#include "agent/tool/tool.h"

/* `file` is only a name for messages; everything in `out` is on the arena. */
must_check bool manifest_read(struct arena *arena, str file, str text, struct tool *out,
                              struct error *e);

#endif
