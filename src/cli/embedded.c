#include "cli/embedded.h"

#include "base/arena.h"
#include "cli/client.h"
#include "cli/logging.h"
#include "cli/shipped.h"
#include "cli/signals.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { POLL_MS = 10, DRAIN_MS = 5000 };

static bool make_folder(struct embedded *embedded, struct error *e)
{
    struct arena *arena = embedded->cli->arena;
    const char *tmp = getenv("TMPDIR");
    embedded->folder =
        str_to_cstr(arena, str_printf(arena, "%s/nexus-run.XXXXXX", tmp && *tmp ? tmp : "/tmp"));
    return mkdtemp(embedded->folder) ||
           error_set(e, REASON_UNAVAILABLE, "no temporary folder %s; set TMPDIR or give --data DIR",
                     embedded->folder);
}

static struct config_sources sources_of(const struct embedded *embedded, const char *command,
                                        const struct arguments *arguments)
{
    static const char *const served_only[] = {"tls.cert_file", "tls.key_file",
                                              "tls.client_ca_file"};
    struct config_sources sources = command_config_sources(embedded->cli, arguments);
    struct config_override *overrides =
        ARENA_ARRAY(embedded->cli->arena, struct config_override,
                    sources.override_count + ARRAY_COUNT(served_only) + 2);
    memcpy(overrides, sources.overrides, sources.override_count * sizeof *overrides);
    overrides[sources.override_count++] =
        (struct config_override){"listen", "--listen", S("127.0.0.1:0")};
    for (size_t i = 0; i < ARRAY_COUNT(served_only); i++)
        overrides[sources.override_count++] =
            (struct config_override){served_only[i], command, STR_NONE};
    if (embedded->is_temporary)
        overrides[sources.override_count++] =
            (struct config_override){"data_dir", "--data", str_from_cstr(embedded->folder)};
    sources.overrides = overrides;
    return sources;
}

static bool start(struct embedded *embedded, const char *command, const struct arguments *arguments,
                  struct error *e)
{
    struct cli *cli = embedded->cli;
    struct config *config;
    struct config_sources *sources = ARENA_NEW(cli->arena, struct config_sources);
    *sources = sources_of(embedded, command, arguments);
    if (!config_load(sources, &config, e))
        return false;
    logging_set(config, cli->is_terminal_error, cli->has_colours);
    if (!arguments_has(arguments, "log-level"))
        log_set_level(LOG_LEVEL_ERROR);
    if (!cli->platform->start(sources, config, &embedded->platform, e))
        return false;
    embedded->info = cli->platform->info(embedded->platform);
    return true;
}

bool embedded_open(struct embedded *embedded, struct cli *cli, const char *command,
                   const struct arguments *arguments, struct error *e)
{
    *embedded = (struct embedded){
        .cli = cli,
        .is_temporary = str_is_empty(arguments_get(arguments, "data")),
    };
    if (embedded->is_temporary && !make_folder(embedded, e))
        return false;
    if (start(embedded, command, arguments, e))
        return true;
    if (embedded->is_temporary)
        folder_remove(embedded->folder);
    return false;
}

void embedded_close(struct embedded *embedded)
{
    const struct platform_ops *ops = embedded->cli->platform;
    ops->begin_drain(embedded->platform, DRAIN_MS);
    while (!ops->is_drained(embedded->platform))
        if (signals_wait(POLL_MS) == SIGINT)
            break;
    ops->destroy(embedded->platform);
    if (embedded->is_temporary)
        folder_remove(embedded->folder);
}

bool embedded_key(const struct embedded *embedded, str *out, struct error *e)
{
    return client_read_key_file(embedded->cli->arena, embedded->info->key_path, out, e);
}

void embedded_tell_stand_in(const struct embedded *embedded)
{
    if (embedded->info->is_stand_in)
        fprintf(stderr, "There is no real model here: \"offline\" is a scripted stand-in.  Set "
                        "OPENAI_API_KEY, start a local model server, or configure providers.\n");
}
