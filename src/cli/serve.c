/* nexus serve: the platform until a signal ends it */
#include "cli/agent_process.h"
#include "cli/command.h"
#include "cli/logging.h"
#include "cli/signals.h"

#include "build_info.h"

#include <signal.h>
#include <stdio.h>

enum { SIGNAL_WAIT_MS = 1000, DRAIN_POLL_MS = 20 };

static void print_banner(const struct cli *cli, const struct platform_info *info)
{
    const char *bold = cli->has_colours ? "\033[1m" : "",
               *warn = cli->has_colours ? "\033[33m" : "";
    const char *plain = cli->has_colours ? "\033[0m" : "";
    fprintf(stderr, "\n  %sNexus %s%s is ready at %s" STR_FMT "%s\n\n", bold, NEXUS_VERSION, plain,
            bold, STR_ARG(info->url), plain);
    fprintf(stderr, "  data      " STR_FMT "\n", STR_ARG(info->data_dir));
    fprintf(stderr, "  admin key " STR_FMT "%s\n", STR_ARG(info->key_path),
            info->is_key_new ? "  (made just now; make keys of your own and rotate it)" : "");
    fprintf(stderr, "  models    " STR_FMT "\n", STR_ARG(info->models));
    fprintf(stderr, "  providers " STR_FMT "%s\n", STR_ARG(info->providers),
            info->is_discovered ? "  (found)" : "");
    fprintf(stderr, "  tools     %zu%s\n", info->tool_count,
            info->tool_error_count ? "  (some were left out: see the log)" : "");
    fprintf(stderr, "  policy    version " STR_FMT "\n", STR_ARG(info->policy_version));
    if (info->is_policy_off)
        fprintf(stderr,
                "\n  %sThe policy is off: every call of every model and tool is allowed.  Remove "
                "policy.engine for real use.%s\n",
                warn, plain);
    if (info->is_stand_in)
        fprintf(stderr,
                "\n  %sThere is no real model here: \"offline\" is a scripted stand-in for trying "
                "things out.\n"
                "  Set OPENAI_API_KEY, start a local model server, or configure providers.%s\n",
                warn, plain);
    fprintf(stderr,
            "\n  nexus run --data " STR_FMT " --server " STR_FMT " \"What time is it in UTC?\"\n\n",
            STR_ARG(info->data_dir), STR_ARG(info->url));
}

static void log_ready(const struct platform_info *info)
{
    LOG_INFO(
        "nexus", S("ready"), LOG_STR("url.full", info->url), LOG_I64("server.port", info->port),
        LOG_STR("service.version", S(NEXUS_VERSION)), LOG_STR("nexus.build", S(NEXUS_BUILD_ID)),
        LOG_STR("nexus.data_dir", info->data_dir), LOG_STR("nexus.admin_key_path", info->key_path),
        LOG_BOOL("nexus.admin_key_new", info->is_key_new), LOG_STR("nexus.models", info->models),
        LOG_STR("nexus.providers", info->providers), LOG_STR("nexus.policy", info->policy_version),
        LOG_I64("nexus.tools", info->tool_count), LOG_I64("nexus.resumed_runs", info->resumed_runs),
        LOG_I64("nexus.threads", info->thread_count));
    if (info->is_policy_off)
        LOG_WARN("nexus", S("the policy is off: every call of every model and tool is allowed; "
                            "remove policy.engine for real use"));
    if (info->is_stand_in)
        LOG_WARN("nexus", S("no real model is configured: \"offline\" is a scripted stand-in; set "
                            "OPENAI_API_KEY, start a local model "
                            "server, or configure providers"));
}

static void reload(struct cli *cli, struct platform *platform)
{
    struct error e = {0};
    if (cli->platform->reload(platform, &e))
        LOG_INFO("nexus", S("configuration, policies and tools were read again"));
    else
        LOG_ERROR("nexus", S("the new configuration is refused; the old one stays"), &e);
}

static int serve_until_signal(struct cli *cli, struct platform *platform, int64_t drain_timeout_ms)
{
    int signal_number;
    while ((signal_number = signals_wait(SIGNAL_WAIT_MS)) == 0 || signal_number == SIGHUP)
        if (signal_number == SIGHUP)
            reload(cli, platform);
    LOG_INFO("nexus", S("stopping: new work is refused, what runs may finish"),
             LOG_I64("process.signal", signal_number));
    cli->platform->begin_drain(platform, drain_timeout_ms);
    while (!cli->platform->is_drained(platform))
        if ((signal_number = signals_wait(DRAIN_POLL_MS)) != 0 && signal_number != SIGHUP)
            signals_die(signal_number);
    cli->platform->destroy(platform);
    LOG_INFO("nexus", S("stopped"));
    return EXIT_DONE;
}

static int serve(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    struct config *config;
    struct platform *platform;
    struct config_sources sources = command_config_sources(cli, arguments);
    struct agent_roles roles;
    if (!agent_roles_parse(arguments_get(arguments, "roles"), &roles, &e))
        return command_fail(cli, "serve", &e);
    if (roles.is_agent_only && arguments_has(arguments, "inherited"))
        return agent_process_serve();
    if (roles.is_agent_only) {
        error_set(&e, REASON_USAGE,
                  "--roles agent: a node starts its agent core itself (sandbox.process: on, or "
                  "--roles gateway,orchestrator,llm); one on another machine does not exist yet");
        return command_fail(cli, "serve", &e);
    }
    signals_block();
    if (!config_load(&sources, &config, &e))
        return command_fail(cli, "serve", &e);
    logging_set(config, cli->is_terminal_error, cli->has_colours);
    int64_t drain_timeout_ms = config->drain_timeout_ms;
    bool has_banner = cli->is_terminal_error && !str_equal(config->log_format, S("json"));
    if (!cli->platform->start(&sources, config, &platform, &e)) {
        if (cli->is_terminal_error)
            return command_fail(cli, "serve", &e);
        LOG_ERROR("nexus", S("the platform could not start"), &e); /* keeps to one form */
        return error_exit_code(e.reason);
    }
    if (has_banner)
        print_banner(cli, cli->platform->info(platform));
    else
        log_ready(cli->platform->info(platform));
    return serve_until_signal(cli, platform, drain_timeout_ms);
}

static const struct option options[] = {
    {"listen", 'l', "ADDRESS:PORT", false, "where to listen; port 0: any free one"},
    {"data", 'd', "DIR", false, "folder of everything that is kept; made when missing"},
    {"config", 'c', "FILE", false,
     "configuration; else $NEXUS_CONFIG, ./nexus.yaml, /etc/nexus/nexus.yaml, or none"},
    {"roles", 0, "ROLES", false,
     "all; gateway,orchestrator,llm: tools run in a process of their own"},
    {"inherited", 0, NULL, false, "for the node itself: its socket is descriptor 3"},
    {"log-level", 0, "debug|info|warn|error", false, "what is logged: this and worse"},
    {"log-format", 0, "auto|json|text", false, "auto: text on a terminal, else JSON"},
};
static const struct command commands[] = {
    {.name = "serve",
     .operands = "",
     .summary = "Start the platform; ready when GET /readyz is 200",
     .details = "The first start on an empty folder makes DIR/admin.key.  SIGTERM and SIGINT "
                "finish what runs and exit 0, a second one\n"
                "ends at once.  SIGHUP reads configuration, policies and tools again; when they "
                "are broken the old ones stay.",
     .example = "serve --listen 127.0.0.1:8080 --data ./data",
     .options = options,
     .option_count = ARRAY_COUNT(options),
     .run = serve},
};
const struct command_group serve_commands = {commands, ARRAY_COUNT(commands)};
