#include "cli/node_memory.h"

#include "cli/on_loop.h"
#include "orchestrator/memory/memory.h"

enum { CHECK_TIMEOUT_MS = 60 * 1000 };

void node_memory_offer(struct node_memory *memory, struct node_tools *tools)
{
    node_tools_add_host_call(tools, host_memory_search(&memory->host));
    node_tools_add_host_call(tools, host_memory_store(&memory->host));
}

static bool check(struct context *ctx, void *argument, struct error *e)
{
    struct node_memory *memory = argument;
    return memory_check(memory->memory, ctx, e);
}

bool node_memory_start(struct node_memory *memory, const struct config *config,
                       struct orchestrator *o, struct vector_index *index, struct loop *loop,
                       struct error *e)
{
    struct memory_options options = {.orchestrator = o,
                                     .index = index,
                                     .embedding_model = config->memory.embedding_model,
                                     .session_points_max = (size_t) config->memory.session_points,
                                     .user_points_max = (size_t) config->memory.user_points};
    if (!memory_create(&options, &memory->memory, e))
        return false;
    if (!on_loop_call(loop, "memory", CHECK_TIMEOUT_MS, check, memory, e)) {
        node_memory_stop(memory);
        return false;
    }
    memory->host.memory = memory->memory;
    return true;
}

void node_memory_stop(struct node_memory *memory)
{
    memory->host.memory = NULL;
    memory_destroy(memory->memory);
    memory->memory = NULL;
}
