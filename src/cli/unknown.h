/*
 * Unknown: command lines that name no command.  A group ("runs") shows what is in it; a word that is none of its commands is told the
 * nearest one.  On stderr with EXIT_USAGE, unless help was asked for.
 */
#ifndef NEXUS_CLI_UNKNOWN_H
#define NEXUS_CLI_UNKNOWN_H

#include "cli/command.h"

/* For a command line in which no command was found; `first` is the index of the first word, behind "nexus" or "help". */
int unknown_command(struct cli *cli, int argc, char **argv, int first);
/* `command` takes no operands but begins the names of others ("usage" and "usage calls"): says which of them `word` is nearest to. */
bool unknown_is_group(const struct command *command);
int unknown_in_group(const char *group, str word);

#endif
