/*
 * Doctor's look at a running server, the one that is named (--server, NEXUS_SERVER) or the one of this configuration: which circuits are
 * open, and is it pressed.
 */
#ifndef NEXUS_CLI_DOCTOR_CIRCUITS_H
#define NEXUS_CLI_DOCTOR_CIRCUITS_H

#include "cli/command.h"
#include "cli/config/config.h"

struct circuits_view {
    str server;      /* its URL */
    bool is_named;   /* by an option or the environment: somebody expects it there */
    bool is_own;     /* where this configuration listens */
    bool is_running; /* false: it did not answer, or not to us; why is in `failure` */
    str failure;
    size_t open_count, full_count;
    str open, full; /* names, for people; full: others wait for a place there */
    int64_t queued_runs;
    double pressure;
};
/* Blocking, for at most a few seconds. */
struct circuits_view doctor_look_at_circuits(struct cli *cli, const struct arguments *arguments,
                                             const struct config *config);

#endif
