/* The sandbox process' parts: remote_server.c (control, links, calls) and remote_server_code.c. */
#ifndef NEXUS_AGENT_REMOTE_SERVER_INTERNAL_H
#define NEXUS_AGENT_REMOTE_SERVER_INTERNAL_H

#include "agent/executor.h"
#include "agent/sandbox/remote/remote_protocol.h"
#include "base/limits.h"
#include "base/list.h"
#include "net/packet.h"

/* A tool as it was registered: schemas, and descriptors of its modules and their code. */
struct server_tool {
    struct list link;
    uint64_t number;
    struct arena *arena;
    struct tool tool; /* module paths are /proc/self/fd/N */
    int descriptors[2 * REMOTE_MODULES_MAX];
    size_t descriptor_count;
    size_t use_count; /* calls, and 1 for being registered */
};
struct server_tool *server_tool_create(uint64_t number, str body, struct error *e);
void server_tool_release(struct server_tool *tool);
/* MODULE or CODE.  Takes the descriptor. */
must_check bool server_tool_add(struct server_tool *tool, const struct packet *packet,
                                struct error *e);

/* Code by digest of the module, for all tools; asked on the threads that load. */
struct sandbox_code server_codes(void);
void server_codes_remove(digest module);

/* One tool from the control socket, compiled into the descriptors that came with it. */
int server_compile(int control_fd, struct packet_reader *reader, struct executor *sandbox);

#endif
