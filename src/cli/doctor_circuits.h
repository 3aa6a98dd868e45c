/*
 * Doctor's look at a server that runs on this data folder: which circuits are open, and is it pressed.
 */
#ifndef NEXUS_CLI_DOCTOR_CIRCUITS_H
#define NEXUS_CLI_DOCTOR_CIRCUITS_H

#include "cli/command.h"
#include "cli/config/config.h"

struct circuits_view {
    bool is_running; /* false: no server answers there, or none of this data folder */
    size_t open_count, full_count;
    str open, full; /* names, for people; full: others wait for a place there */
    int64_t queued_runs;
    double pressure;
};
/* Blocking, for at most a few seconds. */
struct circuits_view doctor_look_at_circuits(struct cli *cli, const struct arguments *arguments,
                                             const struct config *config);

#endif
