#include "cli/node_loops.h"

#include "base/limits.h"
#include "cli/on_loop.h"
#include "net/http_client.h"

#include <unistd.h>

enum { START_TIMEOUT_MS = 60 * 1000 };

static void lane_post(struct lane *lane, void (*fn)(void *argument), void *argument)
{
    loop_post(lane->owner, fn, argument);
}

bool node_loops_create(struct node_loops *node, size_t wanted, struct error *e)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (wanted == 0)
        wanted = cores > 0 ? (size_t) cores : 1;
    if (wanted > LOOP_COUNT_MAX - 1) /* one is left for a command in the same process */
        wanted = LOOP_COUNT_MAX - 1;
    for (; node->count < wanted; node->count++) {
        struct loop *loop = loop_create(clock_system(), random_system(), e);
        if (!loop)
            return false;
        node->loops[node->count] = loop;
        node->lanes[node->count] =
            (struct lane){.scheduler = loop_scheduler(loop), .post = lane_post, .owner = loop};
    }
    return true;
}

void node_loops_destroy(struct node_loops *node)
{
    blocking_pool_stop();
    for (size_t i = node->count; i-- > 0;)
        loop_destroy(node->loops[i]);
}

struct http_client *node_loops_client(void *owner)
{
    struct node_loops *node = owner;
    struct loop *current = loop_current();
    for (size_t i = 0; i < node->count; i++)
        if (node->loops[i] == current)
            return node->clients[i];
    return NULL;
}

static bool create_client(struct context *ctx, void *argument, struct error *e)
{
    (void) ctx;
    struct node_loops *node = argument;
    struct http_client_options options = {.dns_servers = node->dns_servers};
    return http_client_create(loop_current(), &options, &node->clients[node->thread_count], e);
}

static bool destroy_client(struct context *ctx, void *argument, struct error *e)
{
    (void) ctx;
    (void) e;
    http_client_destroy(argument);
    return true;
}

bool node_loops_start_threads(struct node_loops *node, struct error *e)
{
    for (; node->thread_count < node->count; node->thread_count++) {
        struct loop *loop = node->loops[node->thread_count];
        if (!loop_start_thread(loop, "nexus-loop", e))
            break;
        if (!on_loop_call(loop, "start", START_TIMEOUT_MS, create_client, node, e)) {
            node->thread_count++;
            break;
        }
    }
    if (node->thread_count == node->count && node->clients[node->count - 1])
        return true;
    node_loops_stop_threads(node);
    return false;
}

void node_loops_stop_threads(struct node_loops *node)
{
    for (size_t i = 0; i < node->thread_count; i++) {
        struct on_loop job;
        on_loop_begin(&job, node->loops[i], "stop", 0, destroy_client, node->clients[i]);
        on_loop_join(&job);
    }
    for (size_t i = 0; i < node->thread_count; i++)
        loop_stop(node->loops[i]);
    for (size_t i = 0; i < node->thread_count; i++)
        loop_join_thread(node->loops[i]);
    node->thread_count = 0;
}
