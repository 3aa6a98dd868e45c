/*
 * Run files: exports of runs and test cases, by id from a server or as files.
 */
#ifndef NEXUS_CLI_RUN_FILES_H
#define NEXUS_CLI_RUN_FILES_H

#include "cli/client.h"

/* Is this operand the id of a run?  Else it is a file's name. */
bool run_operand_is_id(str operand);
must_check bool run_file_read(struct arena *arena, str path, str *out, struct error *e);
must_check bool run_file_write(struct arena *arena, str path, str text, struct error *e);
may_suspend bool run_export_fetch(struct client *client, struct context *ctx, str id, str *out,
                                  struct error *e);

void run_show_side(const char *name, str text); /* of a difference */

/* ---- run_cases.c ---- */
int run_cases(struct cli *cli, const struct arguments *arguments);

extern const struct command_group run_record_commands;

#endif
