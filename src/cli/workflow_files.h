/*
 * Definitions of workflows as files: what the commands that take FILE share.
 */
#ifndef NEXUS_CLI_WORKFLOW_FILES_H
#define NEXUS_CLI_WORKFLOW_FILES_H

#include "cli/command.h"
#include "workflow/definition.h"

/* The text of `path`; a name without a slash and an end, such as "book-trip", is a shipped definition when there is no such file.
   `*path` is then where it was found. */
must_check bool workflow_file_read(struct arena *arena, str *path, str *out, struct error *e);
/* Reads and checks.  False: told on stderr, one line per problem ("file:line: path: what"), and *exit is the exit code. */
must_check bool workflow_file_load(struct cli *cli, const char *command, str path,
                                   struct definition **out, int *exit);

#endif
