#include "cli/signals.h"

#include <signal.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static void signals_ours(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
}

void signals_block(void)
{
    sigset_t set;
    signals_ours(&set);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
}

int signals_wait(int64_t ms)
{
    sigset_t set;
    signals_ours(&set);
    struct timespec timeout = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    int number = sigtimedwait(&set, NULL, &timeout);
    return number > 0 ? number : 0;
}

void signals_die(int signal_number)
{
    _exit(128 + signal_number);
}

void signals_prepare_process(void)
{
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    /* A file at its limit (ulimit -f) is a full disk: the write tells. */
    signal(SIGXFSZ, SIG_IGN);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void) setrlimit(RLIMIT_NOFILE, &files); /* doctor tells when it is low */
    }
}
