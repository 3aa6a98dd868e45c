/*
 * Waiting runs whose news was never brought: a decision, a signal, a message, a cancel or a resumption whose commit was given up and applied
 * all the same woke nobody.  Each turn looks at NODE_WAITING_RUNS runs that wait without a time to wake at, and wakes those for which
 * something is there:
 *
 *      cancelled; its session resumed; all that it asked approval for decided      it goes on: each time it is looked at
 *      signals, messages                                                           once, until there are others: it may want none of them
 *
 * A run that waits for nothing of these stays out of memory: to load it would write to its journal.
 * Thread: the sweeps' coroutine.  Bound: what was seen of NODE_NEWS_RUNS_MAX runs is remembered; beyond that they are woken once more.
 */
#ifndef NEXUS_ORCHESTRATOR_NODE_NEWS_H
#define NEXUS_ORCHESTRATOR_NODE_NEWS_H

#include "orchestrator/orchestrator.h"

struct node_news;
struct node_news *node_news_create(struct orchestrator *o);
void node_news_destroy(struct node_news *news);
may_suspend bool node_news_turn(struct node_news *news, struct context *ctx, struct error *e);

#endif
