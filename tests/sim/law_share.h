/*
 * Law of shares, where nodes share a store: no node's share of an account is ever below zero, and at rest, when no run has anything
 * reserved, what an account has leased is what its nodes have of it.
 */
#ifndef NEXUS_TESTS_SIM_LAW_SHARE_H
#define NEXUS_TESTS_SIM_LAW_SHARE_H

#include "world.h"

/* It has been stored. */
void law_share_batch(struct world *world, const struct node *node, const struct batch *batch);
may_suspend_void void law_share_rest(struct world *world, struct context *ctx);

#endif
