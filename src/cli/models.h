/*
 * Models: what a node knows of providers, from one configuration to the next: the sets of providers, the compiled filters, the router's
 * health of targets and what discovery found.
 *
 *      create --> models_settings (the first snapshot) ... models_reload (each SIGHUP) --> destroy
 *
 * Thread: the main thread.
 */
#ifndef NEXUS_CLI_MODELS_H
#define NEXUS_CLI_MODELS_H

#include "cli/node_loops.h"
#include "cli/platform.h"

struct models;

struct models_options {
    const struct provider_type *types;
    size_t type_count;
    struct node_loops *node; /* threads started */
    struct metrics *metrics;
    uint16_t own_port; /* not looked at by discovery */
};
struct models *models_create(const struct models_options *options);
void models_destroy(struct models *models); /* no snapshot in use; NULL is fine */
struct router *models_router(struct models *models);

/* The first snapshot, and what a banner says of it.  Looks for local servers when the configuration names no provider. */
must_check bool models_settings(struct models *models, const struct config *config,
                                struct arena *arena, struct platform_info *info,
                                struct settings **out, struct error *e);
/* A snapshot of a changed configuration; providers and filters that did not change are kept. */
must_check bool models_reload(struct models *models, const struct config *config,
                              struct settings **out, struct error *e);

#endif
