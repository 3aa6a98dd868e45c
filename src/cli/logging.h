/*
 * Logging of the process: JSON lines on stderr, or the same lines made readable for a terminal.
 * Thread: set once at start, before threads.
 */
#ifndef NEXUS_CLI_LOGGING_H
#define NEXUS_CLI_LOGGING_H

#include "cli/config/config.h"

void logging_set(const struct config *config, bool is_terminal, bool has_colours);
/* For commands that run a platform inside: nothing below `level`. */
void logging_set_level(enum log_level level);
/* One JSON log line as text: "12:03:04.567 info  nexus.http  listening  server.port=8080". */
str logging_text(struct arena *arena, str json_line, bool has_colours);

#endif
