/*
 * What the commands of workflows share: definitions as files, instances that are followed.
 */
#ifndef NEXUS_CLI_WORKFLOW_FILES_H
#define NEXUS_CLI_WORKFLOW_FILES_H

#include "cli/command.h"
#include "cli/run_view.h"
#include "workflow/definition.h"

/* The text of `path`; a name without a slash and an end, such as "book-trip", is a shipped definition when there is no such file.
   `*path` is then where it was found. */
must_check bool workflow_file_read(struct arena *arena, str *path, str *out, struct error *e);
/* Reads and checks.  False: told on stderr, one line per problem ("file:line: path: what"), and *exit is the exit code. */
must_check bool workflow_file_load(struct cli *cli, const char *command, str path,
                                   struct definition **out, int *exit);

/* Ends in .yaml, .yml or .json. */
bool workflow_is_file_name(str path);

/* Files of the folder of `path` with the workflows that it names, or that these name in turn; found by the names in them.  What stands in
   no file there may be known to the platform.  False: told on stderr, and *exit is the exit code. */
struct workflow_paths {
    str *items; /* on the command's arena */
    size_t count;
};
must_check bool workflow_find_beside(struct cli *cli, str path, struct workflow_paths *out,
                                     int *exit);

/* ---- on a client's coroutine ---- */

/* Stores the file's definition; *out is the server's. */
may_suspend bool workflow_put_file(struct client *client, struct context *ctx, str path,
                                   const struct json **out, struct error *e);
/* JSON text, or @FILE with it; nothing: {}. */
must_check bool workflow_read_input(struct context *ctx, str given, str *out, struct error *e);

/* How an instance is told: its steps as lines on stderr, its output on stdout. */
struct workflow_following {
    struct run_view view; /* how it ends */
    bool stops_at_wait;   /* for people, a signal or the clock */
    bool is_asked_here;   /* approvals: at this terminal, if there is one */
};
follow_fn workflow_show_event;
follow_wait_fn workflow_show_wait;
/* To its end; the client's exit code is the run's. */
may_suspend bool workflow_follow(struct client *client, struct context *ctx, str run_id,
                                 struct error *e);

#endif
