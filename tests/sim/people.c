#include "people.h"
#include "base/arena.h"
#include "base/ensure.h"
#include <stdlib.h>

struct request {
    struct list link;
    struct errand call;
    call_fn *fn;
    void *argument;
    struct waiter waiter;
    bool is_done, is_broken;
};

struct start {
    struct person person;
    person_fn *fn;
};

static void person_main(void *argument)
{
    struct start *start = argument;
    start->fn(&start->person);
    start->person.world->people--;
    context_deinit(&start->person.ctx);
    arena_destroy(start->person.arena);
    free(start);
}

void person_start(struct world *world, const char *name, person_fn *fn, int index)
{
    struct start *start = calloc(1, sizeof *start);
    struct error e = {0};
    ensure(start != NULL);
    start->fn = fn;
    start->person = (struct person){.world = world, .index = index, .arena = arena_create(0)};
    context_init(&start->person.ctx, world->outside, start->person.arena, DEADLINE_NONE);
    world->people++;
    bool is_started = coroutine_start(world->outside, name, person_main, start, &e);
    ensure(is_started);
}

void person_doze(struct person *person, int64_t low_ms, int64_t high_ms)
{
    struct error ignored = {0};
    int64_t ms = world_between(person->world, low_ms, high_ms);
    (void) !context_sleep_ms(&person->ctx, ms, &ignored);
    arena_reset(person->arena);
}

void call_doze(struct errand *call, int64_t low_ms, int64_t high_ms)
{
    struct error ignored = {0};
    (void) !context_sleep_ms(&call->ctx, world_between(call->world, low_ms, high_ms), &ignored);
}

static void request_main(void *argument)
{
    struct request *request = argument;
    OWNED(arena) arena = arena_create(0);
    context_init(&request->call.ctx, request->call.node->lanes[0].scheduler, arena, DEADLINE_NONE);
    request->fn(&request->call, request->argument);
    context_deinit(&request->call.ctx);
    request->is_done = true;
    list_remove(&request->link);
    waiter_wake(&request->waiter);
}

/* The request is on the heap: when its node dies its coroutine is never seen again. */
bool person_ask_node(struct person *person, struct node *node, call_fn *fn, void *argument)
{
    struct world *world = person->world;
    struct error e = {0};
    if (node->state != NODE_UP)
        return false;
    struct request *request = calloc(1, sizeof *request);
    ensure(request != NULL);
    request->fn = fn;
    request->argument = argument;
    request->call =
        (struct errand){.world = world, .node = node, .o = node->o, .index = person->index};
    waiter_init(&request->waiter, &person->ctx);
    list_push_back(&world->requests, &request->link);
    bool is_started =
        coroutine_start(node->lanes[0].scheduler, "request", request_main, request, &e);
    ensure(is_started);
    while (!request->is_done && !request->is_broken)
        (void) !waiter_wait(&request->waiter, &e);
    bool is_done = request->is_done;
    free(request);
    return is_done;
}

bool person_ask(struct person *person, call_fn *fn, void *argument)
{
    struct world *world = person->world;
    int first = (int) world_between(world, 0, world->node_count - 1);
    for (int i = 0; i < world->node_count; i++) {
        struct node *node = &world->nodes[(first + i) % world->node_count];
        if (node->state == NODE_UP)
            return person_ask_node(person, node, fn, argument);
    }
    person_doze(person, 50, 500);
    return false;
}

void people_lose(struct node *node)
{
    struct list *next;
    for (struct list *at = node->world->requests.next; at != &node->world->requests; at = next) {
        struct request *request = LIST_ITEM(at, struct request, link);
        next = at->next;
        if (request->call.node != node)
            continue;
        list_remove(at);
        request->is_broken = true;
        waiter_wake(&request->waiter);
    }
}
