/*
 * Remote server: the sandbox as a process of its own.
 *
 * The process has one inherited socket (remote_protocol.h, "control") and nothing else: no
 * environment, no configuration, no key, no folder, no network.  It raises the wall (wall.h) before
 * the first byte of a module arrives, then either runs guests or compiles the modules of one tool.
 * Everything that a guest may ask of the world goes back over the link as a HOST_CALL.  It ends when
 * the other side goes.
 */
#ifndef NEXUS_AGENT_REMOTE_SERVER_H
#define NEXUS_AGENT_REMOTE_SERVER_H

/* Until the control socket ends; gives the exit code.  Call it first thing, with one thread. */
int remote_server_run(int control_fd);

#endif
