#include "runtime/context.h"

#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "runtime/context_internal.h"
#include <stdlib.h>

struct group_child {
    struct group *group;
    struct context ctx;
    group_fn *fn;
    void *argument;
};

static void child_destroy(struct group_child *child)
{
    context_deinit(&child->ctx);
    arena_destroy(child->ctx.arena);
    free(child);
}

static void child_main(void *argument)
{
    struct group_child *child = argument;
    struct group *group = child->group;
    child->fn(&child->ctx, child->argument);
    child_destroy(child);
    group->live_count--;
    condition_broadcast(&group->changed);
}

void group_init(struct group *group, struct context *ctx)
{
    *group = (struct group){.ctx = ctx};
    context_init_child(&group->shared, ctx, DEADLINE_NONE);
    condition_init(&group->changed);
}

bool group_start(struct group *group, const char *name, group_fn *fn, void *argument,
                 struct error *e)
{
    if (group->live_count >= GROUP_CHILDREN_MAX)
        return error_set(e, REASON_LIMIT, "start of %s: a group has at most %d children at a time",
                         name, GROUP_CHILDREN_MAX);
    struct group_child *child = calloc(1, sizeof *child);
    ensure(child != NULL);
    child->group = group;
    child->fn = fn;
    child->argument = argument;
    context_init_child(&child->ctx, &group->shared, DEADLINE_NONE);
    child->ctx.arena = arena_create(0);
    if (!coroutine_start(group->ctx->scheduler, name, child_main, child, e)) {
        child_destroy(child);
        return false;
    }
    group->live_count++;
    group->started_count++;
    return true;
}

void group_cancel(struct group *group)
{
    context_cancel(&group->shared);
}

void group_wait(struct group *group)
{
    /* Cancelling the parent reached the children already: they are below it in the tree of
     * contexts. */
    while (group->live_count > 0)
        condition_join(&group->changed, group->ctx);
    context_deinit(&group->shared);
}
