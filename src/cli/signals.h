/*
 * Signals: taken by the main thread with a deadline, never by handlers.  signals_block comes before the first thread is made, so every
 * thread inherits the mask and only signals_wait sees SIGINT, SIGTERM and SIGHUP.
 */
#ifndef NEXUS_CLI_SIGNALS_H
#define NEXUS_CLI_SIGNALS_H

#include "base/attributes.h"

void signals_block(void);
/* A closed peer is an error of a write, not a signal; as many open files as the hard limit allows. */
void signals_prepare_process(void);
/* The next signal, or 0 after `ms` without one. */
int signals_wait(int64_t ms);
/* Like the shell's account of a process that the signal ended.  Does not return and cleans nothing up. */
noreturn_function void signals_die(int signal_number);

#endif
