/*
 * Calls that the guest of a tool call makes.
 *
 *      guest's coroutine: ask ----> step.items ---> the step plans it, appends the intent, waits for the commit
 *                          wait <---- decided <---- release
 *                          execute, answer the guest; the step settles it
 *
 * So a nested call is governed as one of the model's: policy, budget, one append before its effect, one row.  It never waits for a
 * person: what needs approval is refused.  A guest that is called by a guest may call nothing more.
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_tools_internal.h"

/* The fold takes so many and breaks off at one more; those of an earlier attempt count as well. */
static bool has_room(const struct tool_step *step, const struct run *run)
{
    size_t waiting = 0;
    for (size_t i = 0; i < step->count; i++)
        waiting += step->items[i]->is_asked;
    return step->count < ARRAY_COUNT(step->items) &&
           run->state.nested_count + waiting < RUN_NESTED_CALLS_MAX;
}

static struct planned *ask(struct planned *parent, str name, str input)
{
    struct run *run = parent->run;
    struct planned *p = ARENA_NEW(run->turn, struct planned);
    *p = (struct planned){
        .run = run,
        .step = parent->step,
        .parent = parent,
        .arguments = str_copy(run->turn, input),
        .asked = {.id = run_new_id(run, RUN_ID_NESTED_CALL, 0, name),
                  .name = str_copy(run->turn, name),
                  .parent = parent->call},
        .is_asked = true,
    };
    p->call = &p->asked;
    parent->nested_count++;
    parent->step->items[parent->step->count++] = p;
    condition_broadcast(&parent->step->changed);
    if (run->workflow) /* its driver waits for all its steps at once */
        condition_broadcast(&run->woken);
    return p;
}

/* The guest ended before its call began. */
static void give_up(struct planned *p, const struct error *why)
{
    if (p->is_done)
        return;
    p->failure = *why;
    p->is_done = true;
    if (p->is_asked)
        p->is_settled = true; /* nothing is journaled of it */
    p->is_asked = false;
    condition_broadcast(&p->step->changed);
}

may_suspend static bool wait_for_intent(struct planned *p, struct context *ctx, struct error *e)
{
    while (!p->is_ready && !p->is_done)
        if (!condition_wait(&p->step->decided, ctx, e)) {
            give_up(p, e);
            return false;
        }
    return true;
}

may_suspend static bool call_tool(void *owner, struct context *ctx, str name, str input,
                                  str *output, struct error *e)
{
    struct planned *parent = owner;
    if (parent->parent)
        return error_set(e, REASON_PERMISSION,
                         "a tool that was called by a tool may call no other one");
    if (!has_room(parent->step, parent->run))
        return error_set(e, REASON_LIMIT, "tools may make at most %d calls for one answer",
                         RUN_NESTED_CALLS_MAX);
    struct planned *p = ask(parent, name, input);
    if (!wait_for_intent(p, ctx, e))
        return false;
    if (!p->is_done) {
        p->is_running = true;
        run_tools_execute(p, ctx);
    }
    if (p->failure.code != ERROR_OK)
        return error_copy(e, &p->failure);
    *output = str_copy(ctx->arena, p->result.output);
    return true;
}

struct tool_calls run_nested_calls(struct planned *p)
{
    return (struct tool_calls){.owner = p, .call = call_tool};
}

bool run_nested_is_asked(const struct tool_step *step)
{
    for (size_t i = 0; i < step->count; i++)
        if (step->items[i]->is_asked)
            return true;
    return false;
}

void run_nested_plan(struct tool_step *step)
{
    for (size_t i = 0; i < step->count; i++) {
        struct planned *p = step->items[i];
        if (!p->is_asked)
            continue;
        p->is_asked = false;
        run_tools_plan(p);
    }
}

void run_nested_release(struct tool_step *step)
{
    for (size_t i = 0; i < step->count; i++)
        if (step->items[i]->parent && !step->items[i]->is_asked)
            step->items[i]->is_ready = true;
    condition_broadcast(&step->decided);
}
