/* Changes between two configurations: what a reload cannot put in force is told in the log. */
#ifndef NEXUS_CLI_CONFIG_CHANGES_H
#define NEXUS_CLI_CONFIG_CHANGES_H

#include "cli/config/config.h"

/* One warning for each setting that is read at start only and differs. */
void config_warn_fixed(const struct config *old, const struct config *fresh);

#endif
