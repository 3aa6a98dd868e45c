/* Help: printed from the table of commands and their options.  To a stream of the C library, on the main thread. */
#ifndef NEXUS_CLI_HELP_H
#define NEXUS_CLI_HELP_H

#include "cli/command.h"

#include <stdio.h>

void help_command(struct cli *cli, const struct command *command, FILE *out);
/* All commands, or those that begin with `topic`; false when none does. */
bool help_overview(struct cli *cli, str topic, FILE *out);
/* Are as many operands given as the command's line says ("[X]" may be left out, "X..." may repeat)? */
must_check bool help_check_operands(const struct command *command,
                                    const struct arguments *arguments, struct error *e);

#endif
