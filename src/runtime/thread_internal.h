/*
 * Threads of ours: named, and deaf to signals meant for the process (those go to the main thread;
 * faults stay where they are).
 */
#ifndef NEXUS_RUNTIME_THREAD_INTERNAL_H
#define NEXUS_RUNTIME_THREAD_INTERNAL_H

#include "base/error.h"
#include <pthread.h>

must_check bool thread_start(pthread_t *out, const char *name, void *(*fn)(void *argument),
                             void *argument, struct error *e);

#endif
