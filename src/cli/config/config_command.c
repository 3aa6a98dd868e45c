/* nexus config ... */
#include "cli/command.h"
#include "cli/config/config_internal.h"
#include "cli/output.h"
#include "cli/settings.h"
#include "cli/shipped.h"

#include "agent/tool/registry.h"
#include "base/arena.h"

static bool load(struct cli *cli, const struct arguments *arguments, struct config **out,
                 struct error *e)
{
    struct config_sources *sources = ARENA_NEW(cli->arena, struct config_sources);
    *sources = command_config_sources(cli, arguments);
    if (arguments->operand_count > 0)
        sources->file = arguments_operand(arguments, 0);
    return config_load(sources, out, e);
}

/* What a start would refuse beside the file itself: policies and tools. */
static bool check_parts(struct cli *cli, const struct config *config, struct error *e)
{
    struct policy *policy;
    struct registry *registry;
    struct registry_options options = {.tool_dir = config->tool_dir,
                                       .tool_config =
                                           config->document.root ? &config->document : NULL};
    str dir = config->policy_dir;
    if (str_is_empty(dir) && !shipped_find(cli->arena, "policies", "policy.dir", &dir, e))
        return false;
    if (!cli->parts->create_policy(dir, config->policy_time_limit_ms, &policy, e))
        return error_wrap(e, "policies in " STR_FMT, STR_ARG(dir));
    policy_destroy(policy);
    if (str_is_empty(options.tool_dir) &&
        !shipped_find(cli->arena, "toolbox", "tools.dir", &options.tool_dir, e))
        return false;
    if (!registry_create(&options, &registry, e))
        return false;
    const struct registry_snapshot *tools = registry_acquire(registry);
    bool is_ok = registry_error_count(tools) == 0 ||
                 error_set(e, REASON_CONFIG, STR_FMT, STR_ARG(registry_error_at(tools, 0)));
    registry_release(tools);
    registry_destroy(registry);
    return is_ok;
}

static int check(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    OWNED(config) config = NULL;
    bool is_json = arguments_has(arguments, "json");
    str unpriced = STR_NONE;
    bool is_ok = load(cli, arguments, &config, &e) && config_check_files(config, &e) &&
                 check_parts(cli, config, &e) && config_unpriced(config, cli->arena, &unpriced, &e);
    if (is_json) {
        struct strbuf text;
        struct json_writer w;
        strbuf_init(&text, cli->arena, 16384);
        json_writer_init(&w, &text);
        json_object_begin(&w);
        json_put_bool(&w, S("ok"), is_ok);
        if (config)
            json_put_str(&w, S("file"), config->file);
        if (!is_ok)
            json_put_str(&w, S("error"), str_from_cstr(e.message));
        if (!str_is_empty(unpriced))
            json_put_str(&w, S("without_price"), unpriced);
        json_object_end(&w);
        printf(STR_FMT "\n", STR_ARG(strbuf_str(&text)));
    } else if (is_ok) {
        printf("ok: " STR_FMT "\n",
               STR_ARG(str_is_empty(config->file) ? S("no file, defaults and environment")
                                                  : config->file));
        if (!str_is_empty(unpriced))
            printf("note: without a price, refused under a budget with money: " STR_FMT "\n",
                   STR_ARG(unpriced));
    } else {
        (void) command_fail(cli, "config check", &e);
    }
    return is_ok ? EXIT_DONE : EXIT_USAGE;
}

static int show(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    OWNED(config) config = NULL;
    struct strbuf text;
    struct json_writer w;
    if (!load(cli, arguments, &config, &e))
        return command_fail(cli, "config show", &e);
    strbuf_init(&text, cli->arena, 8u << 20);
    json_writer_init(&w, &text);
    config_write_json(&w, config);
    if (arguments_has(arguments, "json")) {
        printf(STR_FMT "\n", STR_ARG(strbuf_str(&text)));
        return EXIT_DONE;
    }
    const struct json *tree, *value, *member;
    str name, key;
    if (!json_parse(cli->arena, strbuf_str(&text), (struct json_limits){0}, &tree, &e))
        return command_fail(cli, "config show", &e);
    struct json_iter it = json_iter(tree);
    while (json_next(&it, &name, &value)) {
        if (json_get(value, S("from"))) {
            printf("%-28.*s " STR_FMT "   (" STR_FMT ")\n", STR_ARG(name),
                   STR_ARG(output_value(cli->arena, json_get(value, S("value")))),
                   STR_ARG(json_str_or(value, S("from"), STR_NONE)));
            continue;
        }
        struct json_iter members = json_iter(value);
        while (json_next(&members, &key, &member))
            printf(
                "%-28.*s " STR_FMT "%s" STR_FMT "%s\n",
                STR_ARG(str_printf(cli->arena, STR_FMT "." STR_FMT, STR_ARG(name), STR_ARG(key))),
                STR_ARG(output_value(cli->arena, json_get(member, S("from"))
                                                     ? json_get(member, S("value"))
                                                     : member)),
                json_get(member, S("from")) ? "   (" : "",
                STR_ARG(json_str_or(member, S("from"), STR_NONE)),
                json_get(member, S("from")) ? ")" : "");
    }
    return EXIT_DONE;
}

static int path(struct cli *cli, const struct arguments *arguments)
{
    str file = arguments_get(arguments, "config");
    if (str_is_empty(file))
        file = config_find_file(cli->arena, NULL);
    if (str_is_empty(file)) {
        fprintf(stderr, "no configuration file: defaults and environment (looked at $NEXUS_CONFIG, "
                        "./nexus.yaml, /etc/nexus/nexus.yaml)\n");
        return EXIT_FAILED;
    }
    printf(STR_FMT "\n", STR_ARG(file));
    return EXIT_DONE;
}

static int reference(struct cli *cli, const struct arguments *arguments)
{
    (void) arguments;
    struct strbuf text;
    strbuf_init(&text, cli->arena, CONFIG_REFERENCE_BYTES_MAX);
    config_write_reference(&text);
    printf(STR_FMT, STR_ARG(strbuf_str(&text)));
    return EXIT_DONE;
}

static const struct option options[] = {
    {"config", 'c', "FILE", false,
     "configuration; else $NEXUS_CONFIG, ./nexus.yaml, /etc/nexus/nexus.yaml, or none"},
    {"data", 'd', "DIR", false, "as with serve"},
    {"listen", 'l', "ADDRESS:PORT", false, "as with serve"},
    {"json", 'j', NULL, false, "JSON instead of text"},
};
static const struct command commands[] = {
    {.name = "config check",
     .operands = "[FILE]",
     .summary = "Would a start accept it?  Names file, line and remedy when not",
     .example = "config check nexus.yaml",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .run = check},
    {.name = "config show",
     .operands = "[FILE]",
     .summary = "Every setting in force and where it comes from; no secrets",
     .example = "config show --json",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .run = show},
    {.name = "config path",
     .operands = "",
     .summary = "Which file is read",
     .example = "config path",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .run = path},
    {.name = "config reference",
     .operands = "",
     .summary = "Every setting with default, environment variable and meaning",
     .example = "config reference",
     .run = reference},
};
const struct command_group config_commands = {commands, ARRAY_COUNT(commands)};
