#include "cli/models.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "cli/filter_bank.h"
#include "cli/on_loop.h"
#include "cli/settings.h"
#include "llm/router.h"

#include <stdlib.h>

enum { PROVIDER_SETS_MAX = 256, DISCOVERY_TIMEOUT_MS = 60 * 1000 };

struct models {
    struct models_options options;
    struct arena *arena; /* of what was found */
    struct router *router;
    struct filter_bank *filters;
    struct provider_set
        *sets[PROVIDER_SETS_MAX]; /* the newest is in use; older ones may still be borrowed */
    size_t set_count;
    struct discovered_provider *discovered;
    size_t discovered_count;
};

struct models *models_create(const struct models_options *options)
{
    struct models *models = calloc(1, sizeof *models);
    ensure(models != NULL);
    models->options = *options;
    models->arena = arena_create(0);
    models->router = router_create(clock_system(), random_system(), options->metrics);
    return models;
}

void models_destroy(struct models *models)
{
    if (!models)
        return;
    while (models->set_count > 0)
        provider_set_destroy(models->sets[--models->set_count]);
    filter_bank_release(models->filters);
    router_destroy(models->router);
    arena_destroy(models->arena);
    free(models);
}

struct router *models_router(struct models *models)
{
    return models->router;
}

static struct settings_sources sources_of(struct models *models, const struct config *config)
{
    return (struct settings_sources){.config = config,
                                     .discovered = models->discovered,
                                     .discovered_count = models->discovered_count,
                                     .types = models->options.types,
                                     .type_count = models->options.type_count,
                                     .client_of_loop = node_loops_client,
                                     .client_owner = models->options.node,
                                     .metrics = models->options.metrics,
                                     .filters = &models->filters};
}

static bool discover(struct context *ctx, void *argument, struct error *e)
{
    struct models *models = argument;
    struct discovered_provider *found;
    size_t count;
    if (!discover_providers(ctx, models->options.node->clients[0], models->options.own_port, &found,
                            &count, e))
        return false;
    models->discovered = discovered_copy(models->arena, found, count);
    models->discovered_count = count;
    return true;
}

/* Providers of their own for this configuration; kept only when its settings can be made. */
static bool make(struct models *models, const struct settings_sources *sources,
                 struct settings **out, struct error *e)
{
    struct provider_set *set;
    if (models->set_count == PROVIDER_SETS_MAX)
        return error_set(e, REASON_LIMIT, "the providers were changed %d times; restart",
                         PROVIDER_SETS_MAX);
    if (!provider_set_create(sources, &set, e))
        return false;
    if (!settings_create(sources, set, out, e)) {
        provider_set_destroy(set);
        return false;
    }
    models->sets[models->set_count++] = set;
    return true;
}

bool models_settings(struct models *models, const struct config *config, struct arena *arena,
                     struct platform_info *info, struct settings **out, struct error *e)
{
    if (config->provider_count == 0 && !on_loop_call(models->options.node->loops[0], "discover",
                                                     DISCOVERY_TIMEOUT_MS, discover, models, e))
        return error_wrap(e, "look for models");
    struct settings_sources sources = sources_of(models, config);
    if (!make(models, &sources, out, e))
        return false;
    settings_describe(*out, models->sets[models->set_count - 1], arena, info);
    info->is_discovered = config->provider_count == 0 && models->discovered_count > 0;
    return true;
}

bool models_reload(struct models *models, const struct config *config, struct settings **out,
                   struct error *e)
{
    struct settings_sources sources = sources_of(models, config);
    struct provider_set *newest = models->sets[models->set_count - 1];
    return provider_set_fits(newest, config) ? settings_create(&sources, newest, out, e)
                                             : make(models, &sources, out, e);
}
