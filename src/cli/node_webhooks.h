/*
 * Node webhooks: how this node sends to endpoints: through the egress door, and no further than the operator's configuration says.
 *
 * Thread: the main thread starts and stops; requests are made on the loops.
 */
#ifndef NEXUS_CLI_NODE_WEBHOOKS_H
#define NEXUS_CLI_NODE_WEBHOOKS_H

#include "cli/config/config.h"
#include "cli/node_loops.h"
#include "net/egress.h"
#include "orchestrator/webhook/webhook.h"

struct node_webhooks {
    struct node_loops *node;
    struct egress_rules *rules;
    struct secret *key;
    bool is_http_allowed;
    bool has_hosts; /* else nothing is allowed, and that is worth a remedy */
    struct webhook_options options;
};

/* The key that seals secrets is DATA/webhook.key, made when there is none.  Blocking. */
must_check bool node_webhooks_start(struct node_webhooks *webhooks, const struct config *config,
                                    struct node_loops *node, struct arena *arena, struct error *e);
void node_webhooks_stop(struct node_webhooks *webhooks);

#endif
