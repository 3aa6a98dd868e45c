/*
 * Command: one word (or two) after `nexus`, as a row of a table.
 *
 * Parsing, help, completion and the manual page come from the rows.  Every command takes --help; those that talk to a server take
 * --server, --key and --json as well.  Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 over budget, 5 waiting for approval.
 */
#ifndef NEXUS_CLI_COMMAND_H
#define NEXUS_CLI_COMMAND_H

#include "cli/arguments.h"
#include "cli/platform.h"

struct client;
struct context;

/* What every command may use; made by main.c. */
struct cli {
    const struct platform_ops *platform;
    const struct part_ops *parts;
    struct arena *arena; /* of the whole process */
    bool is_terminal_out, is_terminal_error, has_colours;
};

enum exit_code { EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_DENIED, EXIT_OVER_BUDGET, EXIT_WAITING };

struct command {
    const char *name; /* "serve", "session create" */
    const char *
        operands; /* "PROMPT", "SESSION NAME PATH"; "" for none; a word in brackets may be left out */
    const char *summary; /* one line */
    const char *details; /* more lines, may be NULL */
    const char *example; /* without the leading "nexus " */
    const struct option *options;
    size_t option_count;
    bool is_client; /* `run` that talks to a server later: the options of a client come along too */
    /* One of the two.  `work` talks to a server, on a coroutine (client.h); the options of a client come along. */
    int (*run)(struct cli *cli, const struct arguments *arguments);
    bool (*work)(struct client *client, struct context *ctx, struct error *e);
};
/* Rows of one file. */
struct command_group {
    const struct command *items;
    size_t count;
};
extern const struct command_group serve_commands, run_commands, session_commands, runs_commands,
    approval_commands, tool_commands, tool_registry_commands, tool_monitor_commands,
    tool_author_commands, key_commands, audit_commands, budget_commands, usage_commands,
    workflow_commands, schedule_commands, workflow_run_commands, workflow_api_commands,
    run_record_commands, backtest_commands, config_commands, doctor_commands, about_commands,
    completion_commands, mcp_commands, memory_commands, webhook_commands;

extern const struct command_group *const command_groups[];
extern const size_t command_group_count;

/* All rows, one after the other; NULL past the last. */
const struct command *command_at(size_t index);
/* The word of a command's name that follows the group's ("session" of "session create"; empty: the first); false when it is not in it. */
bool command_word(const struct command *command, str group, str *out);

/* Parses argv and runs; the process's exit code. */
int command_main(struct cli *cli, int argc, char **argv);
/* The options a command takes, those common to its kind included. */
size_t command_options(struct arena *arena, const struct command *command,
                       const struct option **out);

/* "nexus COMMAND: message" on stderr; the exit code that belongs to the error. */
int command_fail(const struct cli *cli, const char *command, const struct error *e);

/* --config, --data, --listen, --log-level, --log-format as sources of a configuration. */
struct config_sources command_config_sources(struct cli *cli, const struct arguments *arguments);
extern const struct option config_options[];
extern const size_t config_option_count;

#endif
