/*
 * Fault points: named places where a test makes the world fail.  Compiled out of release builds.
 *
 *   if (FAULT("store.commit")) return error_set(e, REASON_DISK_FULL, ...);
 *
 * NEXUS_FAULT="store.commit:3,journal.after_intent:1:kill" arms points: at the n-th pass the point fires once
 * (":kill" ends the process with SIGKILL there instead; a count of "*" fires each time).  "trace" fires nothing and writes a line
 * "fault point NAME" to stderr at each pass of any point: so a test learns which there are.  Thread: any.
 */
#ifndef NEXUS_BASE_FAULT_H
#define NEXUS_BASE_FAULT_H

#include "base/str.h"

#ifdef NEXUS_FAULTS
bool fault_fires(const char *point);
void fault_arm(
    str specification); /* the form above; replaces what was armed; used by main and tests */
#define FAULT(point) (fault_fires(point))
#else
#define FAULT(point) (false)
#endif

#endif
