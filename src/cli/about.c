/* nexus version, manual, completion: from the table of commands */
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

/* The words that may follow `prefix` ("" or "session "), each once; rows of one group lie together. */
static void print_words(str prefix)
{
    str last = STR_NONE;
    for (size_t i = 0; i < command_group_count; i++)
        for (size_t j = 0; j < command_groups[i]->count; j++) {
            str rest, word, tail;
            if (!str_strip_prefix(str_from_cstr(command_groups[i]->items[j].name), prefix, &rest))
                continue;
            (void) str_cut(rest, ' ', &word, &tail);
            if (!str_equal(word, last))
                printf(" " STR_FMT, STR_ARG(word));
            last = word;
        }
}

/* A case per command and per word that begins several; the shell picks the longest that fits. */
static int completion(struct cli *cli, const struct arguments *arguments)
{
    if (!str_equal(arguments_operand(arguments, 0), S("bash"))) {
        struct error e = {0};
        error_set(&e, REASON_USAGE, "only bash is known");
        return command_fail(cli, "completion", &e);
    }
    printf("# bash completion of nexus; load it with:  source <(nexus completion bash)\n"
           "_nexus() {\n"
           "    local current=${COMP_WORDS[COMP_CWORD]} words=\"${COMP_WORDS[*]:1:COMP_CWORD-1} \" "
           "choices=\n"
           "    case \"$words\" in\n");
    for (size_t i = command_group_count; i-- > 0;)
        for (size_t j = 0; j < command_groups[i]->count; j++) {
            const struct command *command = &command_groups[i]->items[j];
            const struct option *options;
            size_t count = command_options(cli->arena, command, &options);
            printf("        \"%s \"*) choices=\"", command->name);
            for (size_t k = 0; k < count; k++)
                printf("%s--%s", k ? " " : "", options[k].name);
            printf("\" ;;\n");
        }
    printf("        \"session files \"*) choices=\"");
    print_words(S("session files "));
    printf("\" ;;\n");
    static const str groups[] = {S_INIT("session "), S_INIT("runs "),   S_INIT("approval "),
                                 S_INIT("tool "),    S_INIT("key "),    S_INIT("audit "),
                                 S_INIT("budget "),  S_INIT("config "), S_INIT("workflow "),
                                 S_INIT("schedule ")};
    for (size_t i = 0; i < ARRAY_COUNT(groups); i++) {
        printf("        \"" STR_FMT "\"*) choices=\"", STR_ARG(groups[i]));
        print_words(groups[i]);
        printf("\" ;;\n");
    }
    printf("        *) choices=\"");
    print_words(STR_NONE);
    printf("\" ;;\n"
           "    esac\n"
           "    if [[ $choices == --* && $current != -* ]]; then\n"
           "        mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
           "    else\n"
           "        mapfile -t COMPREPLY < <(compgen -W \"$choices\" -- \"$current\")\n"
           "    fi\n"
           "}\n"
           "complete -F _nexus nexus\n");
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
    {.name = "completion",
     .operands = "SHELL",
     .summary = "A script that completes commands and options; SHELL: bash",
     .example = "completion bash > /etc/bash_completion.d/nexus",
     .run = completion},
};
const struct command_group about_commands = {commands, ARRAY_COUNT(commands)};
