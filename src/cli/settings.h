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

struct filter_bank; /* filter_bank.h */
struct provider_set;

struct settings_sources {
    const struct config *config;
    const struct discovered_provider *discovered; /* used when the configuration has no provider */
    size_t discovered_count;
    const struct provider_type *types;
    size_t type_count;
    struct http_client *(*client_of_loop)(void *owner);
    void *client_owner;
    struct metrics *metrics; /* findings of content filters are counted there; may be NULL */
    /* The compiled filters, kept from one call to the next (owned by the caller, filter_bank_release); NULL: compiled each time. */
    struct filter_bank **filters;
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

/* Where a provider's calls go: its base_url, or the usual one of its type. */
str config_base_url(const struct config_provider *provider);

/* Configured targets without a price, for people: "fast (local/some-model), ..."; empty: all have one.  Under a money budget these are
   refused.  Reads the price lists. */
must_check bool config_unpriced(const struct config *config, struct arena *arena, str *out,
                                struct error *e);

/* Those that ship and those of workflows.dir. */
struct workflow_set;
must_check bool settings_read_workflows(const struct config *config, struct workflow_set **out,
                                        struct error *e);
must_check bool settings_create(const struct settings_sources *sources,
                                const struct provider_set *set, struct settings **out,
                                struct error *e);

#endif
