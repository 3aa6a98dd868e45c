/* the table of commands, and what turns a command line into one of them */
#include "cli/command.h"

#include "base/arena.h"
#include "build_info.h"
#include "cli/client.h"
#include "cli/help.h"
#include "cli/unknown.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

const struct command_group *const command_groups[] = {
    &serve_commands,      &run_commands,           &session_commands,      &runs_commands,
    &run_record_commands, &backtest_commands,      &approval_commands,     &tool_commands,
    &mcp_commands,        &tool_registry_commands, &tool_author_commands,  &tool_monitor_commands,
    &budget_commands,     &memory_commands,        &usage_commands,        &key_commands,
    &audit_commands,      &config_commands,        &doctor_commands,       &workflow_commands,
    &schedule_commands,   &workflow_run_commands,  &workflow_api_commands, &webhook_commands,
    &about_commands,      &completion_commands,
};
const size_t command_group_count = ARRAY_COUNT(command_groups);

const struct command *command_at(size_t index)
{
    for (size_t i = 0; i < command_group_count; index -= command_groups[i++]->count)
        if (index < command_groups[i]->count)
            return &command_groups[i]->items[index];
    return NULL;
}

bool command_word(const struct command *command, str group, str *out)
{
    str rest = str_from_cstr(command->name), tail;
    if (!str_is_empty(group) &&
        (!str_strip_prefix(rest, group, &rest) || !str_strip_prefix(rest, S(" "), &rest)))
        return false;
    (void) str_cut(rest, ' ', out, &tail);
    return true;
}

const struct option config_options[] = {
    {"config", 'c', "FILE", false,
     "configuration; else $NEXUS_CONFIG, ./nexus.yaml, /etc/nexus/nexus.yaml, or none"},
    {"data", 'd', "DIR", false, "folder of everything that is kept (data_dir)"},
    {"log-level", 0, "debug|info|warn|error", false, "what is logged: this and worse"},
    {"log-format", 0, "auto|json|text", false, "auto: text on a terminal, else JSON"},
};
const size_t config_option_count = ARRAY_COUNT(config_options);

static const struct option help_option = {"help", 'h', NULL, false, "this help"};

size_t command_options(struct arena *arena, const struct command *command,
                       const struct option **out)
{
    bool is_client = command->work || command->is_client;
    size_t total = command->option_count + (is_client ? client_option_count : 0) + 1, count = 0;
    struct option *options = ARENA_ARRAY(arena, struct option, total);
    for (size_t i = 0; i < command->option_count; i++)
        options[count++] = command->options[i];
    for (size_t i = 0; is_client && i < client_option_count; i++)
        options[count++] = client_options[i];
    options[count++] = help_option;
    *out = options;
    return count;
}

struct config_sources command_config_sources(struct cli *cli, const struct arguments *arguments)
{
    static const struct {
        const char *option, *label, *setting;
    } names[] = {
        {"data", "--data", "data_dir"},
        {"listen", "--listen", "listen"},
        {"roles", "--roles", "roles"},
        {"log-level", "--log-level", "log_level"},
        {"log-format", "--log-format", "log_format"},
    };
    struct config_override *overrides =
        ARENA_ARRAY(cli->arena, struct config_override, ARRAY_COUNT(names));
    struct config_sources sources = {.file = arguments_get(arguments, "config"),
                                     .overrides = overrides};
    for (size_t i = 0; i < ARRAY_COUNT(names); i++)
        if (arguments_has(arguments, names[i].option))
            overrides[sources.override_count++] = (struct config_override){
                names[i].setting, names[i].label, arguments_get(arguments, names[i].option)};
    return sources;
}

int command_fail(const struct cli *cli, const char *command, const struct error *e)
{
    bool has_colours = cli->is_terminal_error && cli->has_colours;
    fprintf(stderr, "%snexus %s:%s %s\n", has_colours ? "\033[31m" : "", command,
            has_colours ? "\033[0m" : "", e->message);
    return error_exit_code(e->reason);
}

/* The command whose words stand in argv from `first` on; the longest wins ("session files put" over "session"). */
static const struct command *find_command(int argc, char **argv, int first, int *word_count)
{
    const struct command *best = NULL, *command;
    *word_count = 0;
    for (size_t i = 0; (command = command_at(i)); i++) {
        str rest = str_from_cstr(command->name), word;
        int count = 0;
        while (str_next(&rest, ' ', &word)) {
            if (first + count >= argc || !str_equal(str_from_cstr(argv[first + count]), word)) {
                count = -1;
                break;
            }
            count++;
        }
        if (count > *word_count) {
            best = command;
            *word_count = count;
        }
    }
    return best;
}

static int run_command(struct cli *cli, const struct command *command, int argc, char **argv)
{
    const struct option *options;
    size_t count = command_options(cli->arena, command, &options);
    struct arguments arguments;
    struct error e = {0};
    for (int i = 0; i < argc && !str_equal(str_from_cstr(argv[i]), S("--")); i++)
        if (str_equal(str_from_cstr(argv[i]), S("--help")) ||
            str_equal(str_from_cstr(argv[i]), S("-h"))) {
            help_command(cli, command, stdout);
            return EXIT_DONE;
        }
    bool is_parsed = arguments_parse(cli->arena, options, count, argc, argv, &arguments, &e);
    if (is_parsed && arguments.operand_count > 0 && unknown_is_group(command))
        return unknown_in_group(command->name, arguments_operand(&arguments, 0));
    if (!is_parsed || !help_check_operands(command, &arguments, &e)) {
        fprintf(stderr, "nexus %s: %s\n  (nexus %s --help)\n", command->name, e.message,
                command->name);
        return EXIT_USAGE;
    }
    return command->work ? client_main(cli, command->name, &arguments, command->work)
                         : command->run(cli, &arguments);
}

int command_main(struct cli *cli, int argc, char **argv)
{
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    cli->is_terminal_out = isatty(STDOUT_FILENO);
    cli->is_terminal_error = isatty(STDERR_FILENO);
    cli->has_colours =
        !(no_color && *no_color) && term && !str_equal(str_from_cstr(term), S("dumb"));
    str first = argc > 1 ? str_from_cstr(argv[1]) : STR_NONE;
    if (str_equal(first, S("--version")) || str_equal(first, S("-V"))) {
        printf("nexus %s\n", NEXUS_VERSION);
        return EXIT_DONE;
    }
    bool is_help = str_equal(first, S("help"));
    int begin = is_help ? 2 : 1, word_count;
    const struct command *command = find_command(argc, argv, begin, &word_count);
    if (!command)
        return unknown_command(cli, argc, argv, begin);
    if (!is_help)
        return run_command(cli, command, argc - begin - word_count, argv + begin + word_count);
    help_command(cli, command, stdout);
    return EXIT_DONE;
}
