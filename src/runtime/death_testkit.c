#include "runtime/death_testkit.h"

#include "base/ensure.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* cmocka catches these and would go on with the tests in the child. */
static void let_faults_kill(void)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS};
    for (size_t i = 0; i < ARRAY_COUNT(faults); i++)
        signal(faults[i], SIG_DFL);
}

bool process_dies(void (*fn)(void *argument), void *argument)
{
    pid_t child = fork();
    ensure(child >= 0);
    if (child == 0) {
        struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        int silence = open("/dev/null", O_WRONLY);
        ensure(silence >= 0 && dup2(silence, STDERR_FILENO) >= 0);
        let_faults_kill();
        fn(argument);
        _exit(0);
    }
    int status;
    ensure(waitpid(child, &status, 0) == child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}
