/*
 * Asking a node from outside.  The request runs on a coroutine of a node that is up; person_ask comes back when it has ended (true) or
 * when its node has died (false: whether it was done is not known), or when no node was up (false).
 */
#ifndef NEXUS_TESTS_SIM_PEOPLE_H
#define NEXUS_TESTS_SIM_PEOPLE_H

#include "world.h"

struct person {
    struct world *world;
    int index;
    struct arena *arena;
    struct context ctx; /* on the outside scheduler */
};

struct errand {
    struct world *world;
    struct node *node;
    struct orchestrator *o;
    struct context ctx; /* on the node's first lane */
    int index;          /* the person's */
};
typedef void call_fn(struct errand *call, void *argument);

typedef void person_fn(struct person *person);
void person_start(struct world *world, const char *name, person_fn *fn, int index);
may_suspend_void bool person_ask(struct person *person, call_fn *fn, void *argument);
may_suspend_void bool person_ask_node(struct person *person, struct node *node, call_fn *fn,
                                      void *argument);
may_suspend_void void person_doze(struct person *person, int64_t low_ms, int64_t high_ms);
void call_doze(struct errand *call, int64_t low_ms, int64_t high_ms);

/* A node died: its requests break. */
void people_lose(struct node *node);

#endif
