/* nexus version, manual: from the table of commands */
#include "cli/command.h"

#include "base/arena.h"
#include "build_info.h"

#include <stdio.h>

static int version(struct cli *cli, const struct arguments *arguments)
{
    (void) cli;
    if (arguments_has(arguments, "json"))
        printf("{\"version\":\"%s\",\"build\":\"%s\",\"kind\":\"%s\"}\n", NEXUS_VERSION,
               NEXUS_BUILD_ID, NEXUS_BUILD_KIND);
    else
        printf("nexus %s (%s, build %s)\n", NEXUS_VERSION, NEXUS_BUILD_KIND, NEXUS_BUILD_ID);
    return EXIT_DONE;
}

/* ---- the manual page ---- */

/* A line that begins with a dot or quote would be a request to roff; a backslash an escape. */
static void print_roff(const char *text)
{
    for (const char *c = text; *c; c++) {
        if (*c == '\\')
            printf("\\e");
        else if (*c == '-')
            printf("\\-");
        else if ((*c == '.' || *c == '\'') && (c == text || c[-1] == '\n'))
            printf("\\&%c", *c);
        else
            putchar(*c);
    }
}

static void print_manual_entry(struct cli *cli, const struct command *command)
{
    const struct option *options;
    size_t count = command_options(cli->arena, command, &options);
    printf(".SS ");
    print_roff(command->name);
    printf(" %s\n", command->operands);
    print_roff(command->summary);
    printf(".\n");
    if (command->details) {
        print_roff(command->details);
        putchar('\n');
    }
    for (size_t i = 0; i < count; i++) {
        printf(".TP\n.B \\-\\-");
        print_roff(options[i].name);
        printf(" %s\n", options[i].value ? options[i].value : "");
        print_roff(options[i].help);
        putchar('\n');
    }
    printf(".PP\nExample: ");
    print_roff("nexus ");
    print_roff(command->example);
    putchar('\n');
}

static int manual(struct cli *cli, const struct arguments *arguments)
{
    (void) arguments;
    printf(".TH NEXUS 1 \"\" \"nexus %s\" \"User Commands\"\n.SH NAME\nnexus \\- run AI agents "
           "under policy, budget, sandbox, "
           "journal and audit\n.SH SYNOPSIS\n.B nexus\nCOMMAND [options]\n.SH COMMANDS\n",
           NEXUS_VERSION);
    for (size_t i = 0; i < command_group_count; i++)
        for (size_t j = 0; j < command_groups[i]->count; j++)
            print_manual_entry(cli, &command_groups[i]->items[j]);
    printf(".SH EXIT STATUS\n0 done, 1 failed, 2 usage, 3 denied, 4 over budget, 5 waiting for "
           "approval.\n"
           ".SH ENVIRONMENT\nNEXUS_SERVER (URL of the server), NEXUS_API_KEY, NEXUS_CONFIG "
           "(configuration file), and NEXUS_<SETTING> "
           "for each setting that\n.B nexus config reference\nlists.\n");
    return EXIT_DONE;
}

static const struct option version_options[] = {{"json", 'j', NULL, false, "JSON instead of text"}};
static const struct command commands[] = {
    {.name = "version",
     .operands = "",
     .summary = "Version and build",
     .example = "version --json",
     .options = version_options,
     .option_count = ARRAY_COUNT(version_options),
     .run = version},
    {.name = "manual",
     .operands = "",
     .summary = "The manual page, for man",
     .example = "manual | man -l -",
     .run = manual},
};
const struct command_group about_commands = {commands, ARRAY_COUNT(commands)};
