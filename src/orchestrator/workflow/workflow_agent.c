#include "orchestrator/workflow/workflow_agent.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run/agent_definition.h"
#include "orchestrator/workflow/workflow_store.h"

str agent_workflow_input(struct arena *arena, str message)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 8 * (size_t) MESSAGE_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("message"), message);
    json_object_end(&w);
    return strbuf_str(&text);
}

static bool find(struct orchestrator *o, struct context *ctx, uuid tenant_id, str name, str range,
                 str message, struct workflow_entry **entry, struct error *e)
{
    if (!workflow_resolve(o, ctx, tenant_id, name, range, entry, e))
        return false;
    if (workflow_check_input(ctx, workflow_entry_definition(*entry),
                             agent_workflow_input(ctx->arena, message), e))
        return true;
    workflow_entry_release(*entry);
    return false;
}

bool agent_workflow_find(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                         const struct agent_definition *agent, str message,
                         struct agent_workflow *out, struct error *e)
{
    struct workflow_entry *entry;
    str name, range;
    *out = (struct agent_workflow){.budget = COST_LIMITLESS};
    if (!agent_workflow_parts(agent, &name, &range))
        return true;
    if (!find(o, ctx, tenant_id, name, range, message, &entry, e))
        return error_wrap(e, "agent \"" STR_FMT "\"", STR_ARG(agent->name));
    const struct definition *definition = workflow_entry_definition(entry);
    *out = (struct agent_workflow){
        .pinned = {definition->name, definition->version, definition->digest, true},
        .entry = entry,
        .budget = definition->budget,
    };
    return true;
}

bool agent_workflow_check(struct orchestrator *o, struct context *ctx, uuid tenant_id,
                          const struct agent_definition *agent, struct error *e)
{
    struct workflow_entry *entry;
    str name, range;
    if (!agent_workflow_parts(agent, &name, &range))
        return true;
    if (!workflow_resolve(o, ctx, tenant_id, name, range, &entry, e))
        return error_wrap(e, "agent \"" STR_FMT "\"", STR_ARG(agent->name));
    workflow_entry_release(entry);
    return true;
}

void agent_workflow_pin(struct orchestrator *o, struct arena *arena, struct batch *batch,
                        const struct agent_workflow *workflow)
{
    if (workflow->entry)
        workflow_pin(o, arena, batch, workflow->entry);
}

void agent_workflow_release(struct agent_workflow *workflow)
{
    workflow_entry_release(workflow->entry);
    *workflow = (struct agent_workflow){.budget = COST_LIMITLESS};
}

static bool has_more_than_text(str parts)
{
    return str_find(parts, S("\"image_url\"")) != STR_NOT_FOUND;
}

bool agent_workflow_check_request(const struct agent_definition *agent,
                                  const struct run_request *request, struct error *e)
{
    const char *what = request->client_tool_count > 0            ? "tools of the caller"
                       : !str_is_empty(request->response_format) ? "a response_format"
                       : has_more_than_text(request->parts)      ? "images"
                                                                 : NULL;
    return str_is_empty(agent->workflow) || !what ||
           error_set(e, REASON_INVALID,
                     "agent \"" STR_FMT "\" is a workflow: it takes a text, and no %s",
                     STR_ARG(agent->name), what);
}

str agent_workflow_answer(const struct json *output, str printed)
{
    str text;
    if (json_to_str(output, &text) || json_to_str(json_get(output, S("answer")), &text) ||
        json_to_str(json_get(output, S("text")), &text))
        return text;
    return printed;
}
