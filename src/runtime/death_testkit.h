/*
 * For tests of what must end the process: runs fn(argument) in a forked child and tells whether the
 * child died (by a signal, or by a sanitizer's error exit).  Without threads around only: the child
 * has none of them.
 */
#ifndef NEXUS_RUNTIME_DEATH_TESTKIT_H
#define NEXUS_RUNTIME_DEATH_TESTKIT_H

#include "base/attributes.h"

bool process_dies(void (*fn)(void *argument), void *argument);

#endif
