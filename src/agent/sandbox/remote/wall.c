#include "agent/sandbox/remote/wall.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/strbuf.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

/* Which of this process' own pages were written: the engine asks before it puts them back, else each
   slot of its pool is put back whole.  Newer than the C library's headers. */
#define PAGES_NAME "/proc/self/pagemap"
#define PAGES_SCAN 0xc0606610u /* PAGEMAP_SCAN */
static int pages_fd = -1;

/* ---- before the filter ---- */

static bool set_limit(int which, rlim_t value)
{
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t) which, &limit) != 0)
        return false;
    if (limit.rlim_max < value)
        value = limit.rlim_max;
    limit = (struct rlimit){value, value};
    return setrlimit((__rlimit_resource_t) which, &limit) == 0;
}

bool wall_prepare(int64_t cpu_seconds_max, uint32_t *walls, struct error *e)
{
    pid_t parent = getppid();
    *walls = 0;
    pages_fd = open(PAGES_NAME, O_RDONLY | O_CLOEXEC); /* while /proc/self is still ours */
    if (!set_limit(RLIMIT_CORE, 0) || !set_limit(RLIMIT_NOFILE, REMOTE_FILES_OPEN_MAX) ||
        !set_limit(RLIMIT_FSIZE, REMOTE_CODE_BYTES_MAX) ||
        (cpu_seconds_max > 0 && !set_limit(RLIMIT_CPU, (rlim_t) cpu_seconds_max)))
        return error_set(e, REASON_UNAVAILABLE, "limits of the sandbox process: %s",
                         strerrordesc_np(errno));
    if (unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWIPC) == 0)
        *walls |= WALL_NAMESPACES;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)
        *walls |= WALL_NO_DUMP;
    /* After all that changes credentials: they reset it. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) == 0 && getppid() == parent)
        *walls |= WALL_DIES_WITH_PARENT;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return error_set(e, REASON_UNAVAILABLE, "no-new-privileges: %s", strerrordesc_np(errno));
    *walls |= WALL_NO_NEW_PRIVILEGES;
    return true;
}

/* ---- calls that we answer ourselves ---- */

#if defined(__x86_64__)
#define CALL_RESULT(ctx) (ctx)->uc_mcontext.gregs[REG_RAX]
#define CALL_ARGUMENT_0(ctx) (ctx)->uc_mcontext.gregs[REG_RDI]
#define CALL_ARGUMENT_1(ctx) (ctx)->uc_mcontext.gregs[REG_RSI]
#define CALL_ARGUMENT_2(ctx) (ctx)->uc_mcontext.gregs[REG_RDX]
#elif defined(__aarch64__)
#define CALL_RESULT(ctx) (ctx)->uc_mcontext.regs[0]
#define CALL_ARGUMENT_0(ctx) (ctx)->uc_mcontext.regs[0]
#define CALL_ARGUMENT_1(ctx) (ctx)->uc_mcontext.regs[1]
#define CALL_ARGUMENT_2(ctx) (ctx)->uc_mcontext.regs[2]
#else
#error "the wall knows the registers of x86-64 and arm64 only"
#endif

/* "/proc/self/fd/N" -> N, else -1.  In a signal handler: nothing but loads. */
static int descriptor_of(const char *path)
{
    static const char prefix[] = "/proc/self/fd/";
    int number = 0;
    size_t i = 0;
    for (; i < sizeof prefix - 1; i++)
        if (path[i] != prefix[i])
            return -1;
    if (!path[i])
        return -1;
    for (; path[i]; i++) {
        if (path[i] < '0' || path[i] > '9' || number > 1000000)
            return -1;
        number = number * 10 + (path[i] - '0');
    }
    return number;
}

static long open_again(const char *path)
{
    bool is_pages = path && strcmp(path, PAGES_NAME) == 0;
    int number = is_pages ? pages_fd : path ? descriptor_of(path) : -1;
    if (number < 0)
        return -EPERM;
    int fd = fcntl(number, F_DUPFD_CLOEXEC, 3);
    return fd < 0 ? -errno : fd;
}

static long stat_descriptor(int fd, const char *path, void *out)
{
    if (!path || path[0])
        return -EPERM;
    return syscall(SYS_fstat, fd, out) == 0 ? 0 : -errno;
}

static void on_refused_call(int number, siginfo_t *info, void *context)
{
    (void) number;
    ucontext_t *ctx = context;
    int before = errno;
    long result = -EPERM;
    if (info->si_syscall == SYS_openat)
        result = open_again((const char *) (uintptr_t) CALL_ARGUMENT_1(ctx));
    else if (info->si_syscall == SYS_newfstatat)
        result = stat_descriptor((int) CALL_ARGUMENT_0(ctx),
                                 (const char *) (uintptr_t) CALL_ARGUMENT_1(ctx),
                                 (void *) (uintptr_t) CALL_ARGUMENT_2(ctx)); /* NOLINT */
    errno = before;
    CALL_RESULT(ctx) = (__typeof__(CALL_RESULT(ctx))) result;
}

/* ---- the filter ---- */

static const char *const allowed[] = {
    /* descriptors that are there */
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "lseek",
    "close",
    "fstat",
    "ftruncate",
    "fallocate",
    "recvmsg",
    "sendmsg",
    "poll",
    "ppoll",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_ctl",
    "epoll_create1",
    "eventfd2",
    "pipe2",
    "memfd_create",
    /* memory; mmap and mprotect below */
    "munmap",
    "mremap",
    "madvise",
    "brk",
    "membarrier",
    "mincore",
    /* threads; clone below */
    "futex",
    "futex_waitv",
    "set_robust_list",
    "rseq",
    "sched_yield",
    "sched_getaffinity",
    "gettid",
    "getpid",
    "exit",
    "exit_group",
    "restart_syscall",
    "getcpu",
    "set_tid_address",
    /* signals to oneself */
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "rt_sigtimedwait",
    /* time, chance, what the machine is */
    "clock_gettime",
    "clock_getres",
    "clock_nanosleep",
    "nanosleep",
    "gettimeofday",
    "time",
    "getrandom",
    "uname",
    "sysinfo",
    "getrusage",
    "times",
};

/* Nothing of ours tries these: who does has been taken over. */
static const char *const deadly[] = {
    "socket",
    "socketpair",
    "connect",
    "bind",
    "listen",
    "accept",
    "accept4",
    "execve",
    "execveat",
    "fork",
    "vfork",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "setns",
    "unshare",
    "bpf",
    "perf_event_open",
    "keyctl",
    "add_key",
    "request_key",
    "init_module",
    "finit_module",
    "kexec_load",
    "userfaultfd",
    "open_by_handle_at",
    "setuid",
    "setgid",
    "setresuid",
    "setresgid",
    "capset",
};

static bool add_names(scmp_filter_ctx filter, uint32_t action, const char *const *names,
                      size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int number = seccomp_syscall_resolve_name(names[i]);
        if (number < 0)
            continue; /* another processor's, or newer than the library */
        if (seccomp_rule_add(filter, action, number, 0) != 0)
            return false;
    }
    return true;
}

/* Allowed when the masked argument has this value. */
static bool allow_when(scmp_filter_ctx filter, int number, unsigned argument, uint64_t mask,
                       uint64_t value)
{
    struct scmp_arg_cmp rule = SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, mask, value);
    return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, number, 1, &rule) == 0;
}

static bool add_conditions(scmp_filter_ctx filter)
{
    static const int fcntls[] = {F_GETFD,         F_SETFD,     F_GETFL,    F_SETFL,
                                 F_DUPFD_CLOEXEC, F_ADD_SEALS, F_GET_SEALS};
    static const int names[] = {PR_SET_NAME, PR_GET_NAME, PR_SET_VMA};
    const uint64_t all = UINT64_MAX;
    bool is_ok = allow_when(filter, SCMP_SYS(mmap), 2, PROT_EXEC, 0) &&
                 allow_when(filter, SCMP_SYS(mmap), 2, PROT_WRITE | PROT_EXEC, PROT_EXEC) &&
                 allow_when(filter, SCMP_SYS(mprotect), 2, PROT_EXEC, 0) &&
                 allow_when(filter, SCMP_SYS(mprotect), 2, PROT_WRITE | PROT_EXEC, PROT_EXEC) &&
                 allow_when(filter, SCMP_SYS(clone), 0, CLONE_THREAD, CLONE_THREAD) &&
                 allow_when(filter, SCMP_SYS(tgkill), 0, all, (uint64_t) getpid()) &&
                 allow_when(filter, SCMP_SYS(prlimit64), 2, all, 0) &&
                 allow_when(filter, SCMP_SYS(ioctl), 1, 0xffffffff, FIONBIO) &&
                 allow_when(filter, SCMP_SYS(ioctl), 1, 0xffffffff, PAGES_SCAN);
    for (size_t i = 0; is_ok && i < ARRAY_COUNT(fcntls); i++)
        is_ok = allow_when(filter, SCMP_SYS(fcntl), 1, 0xffffffff, (uint64_t) fcntls[i]);
    for (size_t i = 0; is_ok && i < ARRAY_COUNT(names); i++)
        is_ok = allow_when(filter, SCMP_SYS(prctl), 0, 0xffffffff, (uint64_t) names[i]);
    return is_ok;
}

/* Callers of these know another way. */
static bool add_absent(scmp_filter_ctx filter)
{
    static const char *const absent[] = {"clone3", "statx", "io_uring_setup", "close_range"};
    return add_names(filter, SCMP_ACT_ERRNO(ENOSYS), absent, ARRAY_COUNT(absent));
}

static bool load_filter(void)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    if (!filter)
        return false;
    bool is_ok = add_names(filter, SCMP_ACT_ALLOW, allowed, ARRAY_COUNT(allowed)) &&
                 add_names(filter, SCMP_ACT_KILL_PROCESS, deadly, ARRAY_COUNT(deadly)) &&
                 seccomp_rule_add(filter, SCMP_ACT_TRAP, SCMP_SYS(openat), 0) == 0 &&
                 seccomp_rule_add(filter, SCMP_ACT_TRAP, SCMP_SYS(newfstatat), 0) == 0 &&
                 add_absent(filter) && add_conditions(filter) &&
                 seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS) == 0 &&
                 seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2) == 0 &&
                 seccomp_load(filter) == 0;
    seccomp_release(filter);
    return is_ok;
}

bool wall_raise(uint32_t *walls, struct error *e)
{
    struct sigaction action = {.sa_sigaction = on_refused_call,
                               .sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGSYS, &action, NULL) != 0 || !load_filter())
        return error_set(e, REASON_UNAVAILABLE,
                         "the kernel takes no seccomp filter, and without one the sandbox process "
                         "must not run (CONFIG_SECCOMP_FILTER)");
    *walls |= WALL_SECCOMP;
    int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == EPERM)
        *walls |= WALL_NO_OPEN;
    void *memory =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        *walls |= WALL_NO_EXEC_MEMORY;
    if ((*walls & WALL_NEEDED) == WALL_NEEDED)
        return true;
    return error_set(e, REASON_UNAVAILABLE, "the wall of the sandbox process does not hold");
}

str wall_names(struct arena *arena, uint32_t walls)
{
    static const char *const names[] = {"no-new-privileges", "seccomp",       "namespaces",
                                        "no core dump",      "no file opens", "no writable code",
                                        "dies with the node"};
    struct strbuf text;
    strbuf_init(&text, arena, 256);
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (walls & (1u << i))
            strbuf_printf(&text, "%s%s", text.len ? ", " : "", names[i]);
    return strbuf_str(&text);
}
