#include "cli/help.h"

#include "base/arena.h"
#include "cli/client.h"

enum { OPTION_WIDTH = 26 }; /* what is longer has its help on the next line */

static const char *bold(const struct cli *cli, FILE *out)
{
    return out == stdout && cli->is_terminal_out && cli->has_colours ? "\033[1m" : "";
}

static const char *plain(const struct cli *cli, FILE *out)
{
    return *bold(cli, out) ? "\033[0m" : "";
}

static void print_option(struct cli *cli, const struct option *option, FILE *out)
{
    char letter[4] = {'-', option->letter, ',', '\0'};
    str name = str_printf(cli->arena, "%s --%s%s%s", option->letter ? letter : "   ", option->name,
                          option->value ? " " : "", option->value ? option->value : "");
    const char *many = option->is_many ? " (may be repeated)" : "";
    if (name.len > OPTION_WIDTH)
        fprintf(out, "  " STR_FMT "\n%*s%s%s\n", STR_ARG(name), OPTION_WIDTH + 3, "", option->help,
                many);
    else
        fprintf(out, "  %-*.*s %s%s\n", OPTION_WIDTH, STR_ARG(name), option->help, many);
}

void help_command(struct cli *cli, const struct command *command, FILE *out)
{
    const struct option *options;
    size_t count = command_options(cli->arena, command, &options);
    fprintf(out, "%snexus %s%s [options]%s%s\n\n%s\n", bold(cli, out), command->name,
            plain(cli, out), *command->operands ? " " : "", command->operands, command->summary);
    if (command->details)
        fprintf(out, "%s\n", command->details);
    fprintf(out, "\nOptions:\n");
    for (size_t i = 0; i < count; i++)
        print_option(cli, &options[i], out);
    fprintf(out, "\nExample:\n  nexus %s\n", command->example);
}

bool help_overview(struct cli *cli, str topic, FILE *out)
{
    size_t shown = 0;
    str prefix =
        str_is_empty(topic) ? STR_NONE : str_printf(cli->arena, STR_FMT " ", STR_ARG(topic));
    for (size_t i = 0; i < command_group_count; i++)
        for (size_t j = 0; j < command_groups[i]->count; j++) {
            const struct command *command = &command_groups[i]->items[j];
            str name = str_from_cstr(command->name);
            if (!str_is_empty(topic) && !str_equal(name, topic) && !str_starts_with(name, prefix))
                continue;
            if (shown++ == 0)
                fprintf(out, "%snexus%s%s" STR_FMT " COMMAND [options]\n\n%s", bold(cli, out),
                        plain(cli, out), str_is_empty(topic) ? "" : " ", STR_ARG(topic),
                        str_is_empty(topic) ? "Runs AI agents under policy, budget, sandbox, "
                                              "journal and audit.\n\n"
                                            : "");
            str line = str_printf(cli->arena, "%s%s%s", command->name,
                                  *command->operands ? " " : "", command->operands);
            fprintf(out, "  %-38.*s %s\n", STR_ARG(line), command->summary);
        }
    if (shown > 0)
        fprintf(out, "\n`nexus COMMAND --help` tells more, with an example.\n"
                     "Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 4 over budget, 5 waiting "
                     "for approval.\n"
                     "Environment: NEXUS_SERVER (URL), NEXUS_API_KEY, NEXUS_CONFIG, and "
                     "NEXUS_<SETTING> for each setting.\n");
    return shown > 0;
}

bool help_check_operands(const struct command *command, const struct arguments *arguments,
                         struct error *e)
{
    size_t needed = 0, allowed = 0;
    str rest = str_from_cstr(command->operands), word;
    while (!str_is_empty(rest) && str_next(&rest, ' ', &word)) {
        bool is_optional = word.ptr[0] == '[';
        bool is_many = str_find(word, S("...")) != STR_NOT_FOUND;
        needed += !is_optional;
        allowed = is_many ? SIZE_MAX : allowed + 1;
    }
    if (arguments->operand_count < needed)
        return error_set(e, REASON_USAGE, "it needs %s", command->operands);
    if (arguments->operand_count > allowed)
        return error_set(e, REASON_USAGE, "\"" STR_FMT "\" is one word too many%s%s",
                         STR_ARG(arguments_operand(arguments, allowed)),
                         *command->operands ? "; it takes " : "", command->operands);
    return true;
}
