/*
 * Wall: what the sandbox process gives up before it touches foreign bytes.
 *
 * Order: wall_prepare, then wall_raise, both on the only thread there is; every later thread is
 * behind the wall too.  Afterwards the process has the descriptors it was given and can compute,
 * talk over them and make threads and anonymous memory.  It cannot open anything by name, make or
 * reach a socket, start a program or a process, trace, mount, change its limits, or make memory that
 * is writable and executable at once.  Attempts at the worst (sockets, programs, tracing, mounting)
 * kill the process; other calls fail with EPERM.
 *
 * Two names still work: "/proc/self/fd/N" gives a duplicate of descriptor N, "/proc/self/pagemap"
 * one of a descriptor from before (which of our own pages are there; no addresses of the machine).
 * No kernel opens anything for them; a SIGSYS handler of ours makes the duplicate, so that code which
 * wants a path (wasmtime's loader and pool) can be given a descriptor.
 *
 * Needs seccomp in the kernel: without it wall_raise fails and the process must not go on.
 * Namespaces (user, network, mount, IPC) are taken where the kernel allows them.
 */
#ifndef NEXUS_AGENT_WALL_H
#define NEXUS_AGENT_WALL_H

#include "base/error.h"

enum wall {
    WALL_NO_NEW_PRIVILEGES = 1 << 0,
    WALL_SECCOMP = 1 << 1,
    WALL_NAMESPACES = 1 << 2,
    WALL_NO_DUMP = 1 << 3,
    WALL_NO_OPEN = 1 << 4,        /* tried: a file could not be opened */
    WALL_NO_EXEC_MEMORY = 1 << 5, /* tried: no memory that is writable and executable */
    WALL_DIES_WITH_PARENT = 1 << 6,
};
/* Without these the process must not run anybody's code. */
enum { WALL_NEEDED = WALL_NO_NEW_PRIVILEGES | WALL_SECCOMP | WALL_NO_OPEN | WALL_NO_DUMP };

/* Limits, namespaces, death with the parent.  cpu_seconds_max 0: none. */
must_check bool wall_prepare(int64_t cpu_seconds_max, uint32_t *walls, struct error *e);
/* The filter; then looks whether it holds. */
must_check bool wall_raise(uint32_t *walls, struct error *e);
/* "no-new-privileges, seccomp, ..." */
str wall_names(struct arena *arena, uint32_t walls);

#endif
