/*
 * What waiters, loops and the blocking pool need of the scheduler: to suspend the running coroutine
 * and to make one ready.
 */
#ifndef NEXUS_RUNTIME_SCHEDULER_INTERNAL_H
#define NEXUS_RUNTIME_SCHEDULER_INTERNAL_H

#include "runtime/scheduler.h"

struct coroutine *coroutine_current(void); /* NULL outside */
/* Until coroutine_wake.  Wake-ups may be spurious: look again.  Ends the process outside a
 * coroutine or in a NO_SUSPEND stretch. */
void coroutine_suspend(void);
void coroutine_wake(struct coroutine *coroutine); /* nothing unless it is suspended */
/* Of the coroutine that has lived longest; NULL when there is none. */
const char *scheduler_oldest_name(struct scheduler *scheduler);

#endif
