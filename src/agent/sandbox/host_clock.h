/*
 * Host call "clock": the wall clock, as {"unix_us": microseconds}.  No input, no permission needed
 * beyond the manifest's grant.
 */
#ifndef NEXUS_AGENT_HOST_CLOCK_H
#define NEXUS_AGENT_HOST_CLOCK_H

#include "agent/executor.h"

struct host_call host_clock(void);

#endif
