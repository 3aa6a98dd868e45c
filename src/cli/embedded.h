/*
 * Embedded: a platform of its own inside the process of a command that was given no server.
 *
 *      embedded_open (ready to serve) --> client_open(info->url, embedded_key) ... client_close --> embedded_close (drained)
 *
 * Without --data everything is kept in a temporary folder, which goes with it.  It listens on a port of the kernel's choice on 127.0.0.1, without
 * TLS whatever the configuration says: nobody but us comes here.
 * Thread: the main thread, after signals_block.
 */
#ifndef NEXUS_CLI_EMBEDDED_H
#define NEXUS_CLI_EMBEDDED_H

#include "cli/command.h"

struct embedded {
    struct cli *cli;
    struct platform *platform;
    const struct platform_info *info;
    bool is_temporary;
    char *folder; /* the temporary one */
};
/* `command` for messages.  False: nothing is left behind. */
must_check bool embedded_open(struct embedded *embedded, struct cli *cli, const char *command,
                              const struct arguments *arguments, struct error *e);
void embedded_close(struct embedded *embedded);
/* Of its administrator. */
must_check bool embedded_key(const struct embedded *embedded, str *out, struct error *e);
/* Says on stderr that there is no real model, when there is none. */
void embedded_tell_stand_in(const struct embedded *embedded);

#endif
