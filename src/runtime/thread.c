#include "runtime/thread_internal.h"

#include <signal.h>
#include <stdio.h>

enum { THREAD_NAME_BYTES = 16 }; /* the kernel's limit, terminator included */

static void block_signals(sigset_t *before)
{
    static const int faults[] = {SIGSEGV, SIGBUS,  SIGFPE, SIGILL,
                                 SIGABRT, SIGTRAP, SIGSYS, SIGPROF};
    sigset_t blocked;
    sigfillset(&blocked);
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
        sigdelset(&blocked, faults[i]);
    pthread_sigmask(SIG_SETMASK, &blocked, before);
}

bool thread_start(pthread_t *out, const char *name, void *(*fn)(void *argument), void *argument,
                  struct error *e)
{
    sigset_t before;
    block_signals(&before); /* the new thread inherits it, so there is no moment without */
    int failure = pthread_create(out, NULL, fn, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failure != 0)
        return error_set(e, REASON_UNAVAILABLE, "start thread %s: %s", name,
                         strerrordesc_np(failure));
    char short_name[THREAD_NAME_BYTES];
    snprintf(short_name, sizeof short_name, "%s", name);
    (void) pthread_setname_np(*out, short_name); /* only for debuggers */
    return true;
}
