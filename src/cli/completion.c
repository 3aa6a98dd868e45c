/* nexus completion: from the table of commands, a script for the shell */
#include "cli/command.h"

#include "base/arena.h"

#include <stdio.h>

enum { WORDS_MAX = 3 }; /* of a command's name */

static int count_words(str name)
{
    str word;
    int count = 0;
    while (str_next(&name, ' ', &word))
        count++;
    return count;
}

/* The first `count` words of a name. */
static str first_words(str name, int count)
{
    size_t at = 0;
    for (; at < name.len && (name.ptr[at] != ' ' || --count > 0); at++)
        continue;
    return str_slice(name, 0, at);
}

/* Has no row before this one the same word in the group? */
static bool is_first(size_t index, str group, str word)
{
    str other;
    for (size_t i = 0; i < index; i++)
        if (command_word(command_at(i), group, &other) && str_equal(other, word))
            return false;
    return true;
}

/* Those that may follow the group, each once. */
static void print_words(str group)
{
    const struct command *command;
    str word;
    for (size_t i = 0; (command = command_at(i)); i++)
        if (command_word(command, group, &word) && is_first(i, group, word))
            printf(STR_FMT " ", STR_ARG(word));
}

/* What an option may be, where that is a closed set. */
static void print_values(const struct option *options, size_t count)
{
    printf("\n            case \"$previous\" in");
    for (size_t i = 0; i < count; i++) {
        str rest = str_from_cstr(options[i].value), choice;
        if (str_find_char(rest, '|') == STR_NOT_FOUND)
            continue;
        printf(" --%s) choices=\"", options[i].name);
        for (const char *space = ""; str_next(&rest, '|', &choice); space = " ") {
            size_t mark = str_find(choice, S(",..."));
            printf("%s" STR_FMT, space, STR_ARG(str_slice(choice, 0, mark)));
        }
        printf("\" ;;");
    }
    printf(" esac ;;\n");
}

static void print_command(struct cli *cli, const struct command *command)
{
    const struct option *options;
    size_t count = command_options(cli->arena, command, &options);
    printf("        \"%s \"*) choices=\"", command->name);
    print_words(str_from_cstr(command->name)); /* of a command that begins the names of others */
    for (size_t i = 0; i < count; i++)
        printf("%s--%s", i ? " " : "", options[i].name);
    printf("\"");
    print_values(options, count);
}

/* Commands of so many words, and groups of so many that are no commands. */
static void print_cases(struct cli *cli, int words)
{
    const struct command *command;
    str word;
    for (size_t i = 0; (command = command_at(i)); i++)
        if (count_words(str_from_cstr(command->name)) == words)
            print_command(cli, command);
    for (size_t i = 0; (command = command_at(i)); i++) {
        str name = str_from_cstr(command->name), group = first_words(name, words);
        if (count_words(name) <= words || !command_word(command, group, &word))
            continue;
        bool is_told = false;
        for (size_t j = 0; j < i && !is_told; j++)
            is_told = command_word(command_at(j), group, &word) ||
                      str_equal(str_from_cstr(command_at(j)->name), group);
        if (is_told)
            continue;
        printf("        \"" STR_FMT " \"*) choices=\"", STR_ARG(group));
        print_words(group);
        printf("\" ;;\n");
    }
}

/* A case per command and per group, those of more words first: the shell takes the first that fits. */
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
           "    local previous=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    case \"$words\" in\n");
    for (int words = WORDS_MAX; words > 0; words--)
        print_cases(cli, words);
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

static const struct command commands[] = {
    {.name = "completion",
     .operands = "SHELL",
     .summary = "A script that completes commands and options; SHELL: bash",
     .example = "completion bash > /etc/bash_completion.d/nexus",
     .run = completion},
};
const struct command_group completion_commands = {commands, ARRAY_COUNT(commands)};
