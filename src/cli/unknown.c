#include "cli/unknown.h"

#include "base/arena.h"
#include "base/nearest.h"
#include "cli/help.h"
#include "cli/output.h"

enum { WORD_BYTES_SHOWN = 60 };

static bool is_option(str word)
{
    return str_starts_with(word, S("-"));
}

static bool is_help(str word)
{
    return str_equal(word, S("--help")) || str_equal(word, S("-h"));
}

static bool is_group(str name)
{
    const struct command *command;
    str word;
    for (size_t i = 0; (command = command_at(i)); i++)
        if (command_word(command, name, &word))
            return true;
    return false;
}

bool unknown_is_group(const struct command *command)
{
    return !*command->operands && is_group(str_from_cstr(command->name));
}

static void show_word(str word)
{
    fprintf(stderr, "`");
    output_text(stderr, str_cut_utf8(word, WORD_BYTES_SHOWN), false);
    fprintf(stderr, "`");
}

static void show_nearest(str group, str asked)
{
    struct nearest nearest = nearest_to(asked);
    const struct command *command;
    str word, last = STR_NONE;
    for (size_t i = 0; (command = command_at(i)); i++)
        if (command_word(command, group, &word))
            nearest_try(&nearest, word);
    if (!str_is_empty(nearest.name)) {
        fprintf(stderr, "; did you mean `" STR_FMT "`?\n", STR_ARG(nearest.name));
        return;
    }
    for (size_t i = 0; !str_is_empty(group) && (command = command_at(i)); i++)
        if (command_word(command, group, &word) && !str_equal(word, last)) {
            fprintf(stderr, "%s" STR_FMT, str_is_empty(last) ? "; there are: " : ", ",
                    STR_ARG(word));
            last = word;
        }
    fprintf(stderr, "\n");
}

/* Without a command there are two. */
static void show_nearest_option(str group, str asked)
{
    struct nearest nearest = nearest_to(asked);
    nearest_try(&nearest, S("--help"));
    if (str_is_empty(group))
        nearest_try(&nearest, S("--version"));
    if (!str_is_empty(nearest.name))
        fprintf(stderr, "; did you mean `" STR_FMT "`?\n", STR_ARG(nearest.name));
    else
        fprintf(stderr, "; options stand behind a whole command\n");
}

/* "nexus runs: no such command `lst`; did you mean `list`?" */
static int refuse(str group, str word)
{
    const char *space = str_is_empty(group) ? "" : " ";
    fprintf(stderr, "nexus%s" STR_FMT ": no such %s ", space, STR_ARG(group),
            is_option(word) ? "option" : "command");
    show_word(word);
    if (!is_option(word))
        show_nearest(group, word);
    else
        show_nearest_option(group, word);
    fprintf(stderr, "  (nexus%s" STR_FMT " --help lists the commands)\n", space, STR_ARG(group));
    return EXIT_USAGE;
}

int unknown_in_group(const char *group, str word)
{
    return refuse(str_from_cstr(group), word);
}

/* The words that begin the name of some command, joined. */
static str deepest_group(struct arena *arena, int argc, char **argv, int *index)
{
    str group = STR_NONE;
    for (; *index < argc; (*index)++) {
        str word = str_from_cstr(argv[*index]);
        str deeper = str_is_empty(group)
                         ? word
                         : str_printf(arena, STR_FMT " " STR_FMT, STR_ARG(group), STR_ARG(word));
        if (str_is_empty(word) || !is_group(deeper))
            break;
        group = deeper;
    }
    return group;
}

int unknown_command(struct cli *cli, int argc, char **argv, int first)
{
    bool is_asked = first > 1; /* nexus help ... */
    str group = deepest_group(cli->arena, argc, argv, &first);
    if (first < argc && !is_help(str_from_cstr(argv[first])))
        return refuse(group, str_from_cstr(argv[first]));
    is_asked = is_asked || first < argc;
    (void) help_overview(cli, group, is_asked || str_is_empty(group) ? stdout : stderr);
    return is_asked ? EXIT_DONE : EXIT_USAGE;
}
