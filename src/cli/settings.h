/*
 * Settings: from a configuration (or from what discovery found) to the orchestrator's snapshot and the providers it borrows.
 *
 * A provider set outlives every snapshot that was made with it: snapshots are dropped one by one as their last user ends, so sets are
 * kept until the platform stops.  A reload that changes no provider keeps the set.
 */
#ifndef NEXUS_CLI_SETTINGS_H
#define NEXUS_CLI_SETTINGS_H

#include "cli/platform.h"
#include "orchestrator/orchestrator.h"

struct provider_set;

struct settings_sources {
    const struct config *config;
    const struct discovered_provider *discovered; /* used when the configuration has no provider */
    size_t discovered_count;
    const struct provider_type *types;
    size_t type_count;
    struct http_client *(*client_of_loop)(void *owner);
    void *client_owner;
};

must_check bool provider_set_create(const struct settings_sources *sources,
                                    struct provider_set **out, struct error *e);
void provider_set_destroy(struct provider_set *set); /* NULL is fine */
OWNED_DEFINE(provider_set)
bool provider_set_is_stand_in(const struct provider_set *set); /* none of them is a real model */
/* Is it what `config` asks for? */
bool provider_set_fits(const struct provider_set *set, const struct config *config);
/* "ollama (http://127.0.0.1:11434/v1)", comma-separated */
str provider_set_describe(const struct provider_set *set, struct arena *arena);

/* Found providers, kept on an arena of the caller's. */
struct discovered_provider *discovered_copy(struct arena *arena,
                                            const struct discovered_provider *found, size_t count);

/* What a banner says of models, providers and agents. */
void settings_describe(const struct settings *settings, const struct provider_set *set,
                       struct arena *arena, struct platform_info *info);

must_check bool settings_create(const struct settings_sources *sources,
                                const struct provider_set *set, struct settings **out,
                                struct error *e);

#endif
