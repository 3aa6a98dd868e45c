/* What there is to work with: tools, models, agents. */
#include "base/arena.h"
#include "base/limits.h"
#include "gateway/bodies.h"
#include "gateway/gateway_internal.h"
#include "llm/router.h"

static void end_page(struct json_writer *w)
{
    json_array_end(w);
    json_key(w, S("next_cursor"));
    json_write_null(w);
    json_object_end(w);
}

static struct json_writer *begin_page(struct reply_writer *writer, struct api_call *call)
{
    struct json_writer *w = reply_writer_init(writer, call);
    json_object_begin(w);
    json_key(w, S("items"));
    json_array_begin(w);
    return w;
}

/* ---- tools ---- */

static struct registry *registry_of(struct api_call *call)
{
    return orchestrator_parts(call->gateway->orchestrator)->registry;
}

bool route_tool_invoke(struct api_call *call, struct error *e)
{
    struct tool_invocation invocation = {0};
    struct tool_result *result = ARENA_NEW(call->ctx->arena, struct tool_result);
    struct reply_writer writer;
    str version = STR_NONE;
    if (!param_text(call, 0, &invocation.name, e) ||
        !body_read_invocation(call->ctx->arena, call->json, &invocation, e) ||
        !tool_invoke(call->gateway->orchestrator, call->ctx, &call->principal, &invocation, result,
                     &version, e))
        return false;
    struct json_writer *w = reply_writer_init(&writer, call);
    json_object_begin(w);
    json_put_raw(w, S("output"), result->output);
    json_put_str(w, S("tool_version"), version);
    json_put_i64(w, S("latency_ms"), result->latency_ms);
    json_put_i64(w, S("latency_us"), result->latency_us);
    json_put_i64(w, S("fuel"), result->fuel);
    json_put_i64(w, S("memory_bytes"), (int64_t) result->memory_bytes);
    json_put_str(w, S("log"), result->log);
    json_object_end(w);
    return reply_writer_send(&writer, call, 200, e);
}

/* ---- models ---- */

static void put_rate(struct json_writer *w, str name, int64_t rate, int64_t like)
{
    json_put_i64_str(w, name, rate == PRICE_LIKE_INPUT ? like : rate);
}

static void write_target(struct json_writer *w, const struct model_target *target)
{
    json_object_begin(w);
    json_put_str(w, S("provider"), target->provider->name);
    json_put_str(w, S("model"), target->model);
    json_put_i64(w, S("weight"), target->weight);
    json_put_bool(w, S("is_stand_in"), target->provider->ops->is_stand_in);
    json_key(w, S("price"));
    if (target->price.is_known) {
        const struct model_price *price = &target->price;
        json_object_begin(w);
        put_rate(w, S("input_picousd_per_token"), price->input_picousd_per_token, 0);
        put_rate(w, S("cached_picousd_per_token"), price->cached_picousd_per_token,
                 price->input_picousd_per_token);
        put_rate(w, S("cache_write_picousd_per_token"), price->cache_write_picousd_per_token,
                 price->input_picousd_per_token);
        put_rate(w, S("output_picousd_per_token"), price->output_picousd_per_token, 0);
        put_rate(w, S("reasoning_picousd_per_token"), price->reasoning_picousd_per_token,
                 price->output_picousd_per_token);
        json_object_end(w);
    } else {
        json_write_null(w);
    }
    json_object_end(w);
}

bool route_model_list(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = begin_page(&writer, call);
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    for (size_t i = 0; i < catalog_count(settings->catalog); i++) {
        const struct model *model = catalog_at(settings->catalog, i);
        json_object_begin(w);
        json_put_str(w, S("name"), model->name);
        json_put_i64(w, S("max_output_tokens"), model->max_output_tokens);
        json_key(w, S("targets"));
        json_array_begin(w);
        for (size_t j = 0; j < model->target_count; j++)
            write_target(w, &model->targets[j]);
        json_array_end(w);
        json_object_end(w);
    }
    orchestrator_release(settings);
    end_page(w);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_model_targets(struct api_call *call, struct error *e)
{
    str name;
    struct reply_writer writer;
    if (!param_text(call, 0, &name, e))
        return false;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    const struct model *model = catalog_find(settings->catalog, name);
    if (model) {
        struct json_writer *w = reply_writer_init(&writer, call);
        json_object_begin(w);
        json_put_str(w, S("model"), model->name);
        json_key(w, S("targets"));
        router_write_model_json(orchestrator_parts(call->gateway->orchestrator)->router, model, w);
        json_object_end(w);
    } else {
        (void) catalog_error_unknown(settings->catalog, name, e);
    }
    orchestrator_release(settings);
    return model && reply_writer_send(&writer, call, 200, e);
}

/* ---- agents ---- */

static void write_link(struct json_writer *w, const struct agent_link *link)
{
    json_object_begin(w);
    json_put_str(w, S("name"), link->name);
    json_put_str(w, S("as"), link->is_handoff ? S("handoff") : S("tool"));
    json_put_bool(w, S("sticky"), link->is_sticky);
    json_key(w, S("budget"));
    if (cost_equal(link->budget, COST_LIMITLESS))
        json_write_null(w);
    else
        cost_write_json(w, link->budget);
    json_object_end(w);
}

static void write_agent(struct json_writer *w, const struct agent_definition *agent)
{
    json_object_begin(w);
    json_put_str(w, S("name"), agent->name);
    json_put_str(w, S("version"), agent->version);
    json_put_str(w, S("description"), agent->description);
    json_put_str(w, S("model"), agent->model);
    if (!str_is_empty(agent->workflow))
        json_put_str(w, S("workflow"), agent->workflow);
    json_key(w, S("tools"));
    json_array_begin(w);
    for (size_t i = 0; i < agent->tool_count; i++)
        json_write_str(w, agent->tools[i]);
    json_array_end(w);
    json_key(w, S("agents"));
    json_array_begin(w);
    for (size_t i = 0; i < agent->agent_count; i++)
        write_link(w, &agent->agents[i]);
    json_array_end(w);
    json_put_i64(w, S("steps_max"), agent->steps_max);
    json_put_i64(w, S("run_timeout_ms"), agent->run_timeout_ms);
    json_put_i64(w, S("max_output_tokens"), agent->max_output_tokens);
    json_object_end(w);
}

bool route_agent_list(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    struct json_writer *w = begin_page(&writer, call);
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    for (size_t i = 0; i < agent_set_count(settings->agents); i++)
        write_agent(w, agent_set_at(settings->agents, i));
    orchestrator_release(settings);
    end_page(w);
    return reply_writer_send(&writer, call, 200, e);
}

static bool unknown_agent(str name, struct error *e)
{
    return error_set(e, REASON_NOT_FOUND,
                     "there is no agent \"" STR_FMT "\"; see GET /api/v1/agents", STR_ARG(name));
}

bool route_agent_get(struct api_call *call, struct error *e)
{
    str name;
    struct reply_writer writer;
    if (!param_text(call, 0, &name, e))
        return false;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    const struct agent_definition *agent = agent_set_find(settings->agents, name);
    if (agent)
        write_agent(reply_writer_init(&writer, call), agent);
    orchestrator_release(settings);
    return agent ? reply_writer_send(&writer, call, 200, e) : unknown_agent(name, e);
}

static void write_agent_tools(struct api_call *call, struct json_writer *w,
                              const struct agent_definition *agent)
{
    const struct registry_snapshot *tools = registry_acquire(registry_of(call));
    uuid tenant_id = call->principal.tenant_id;
    size_t index = 0;
    str name, range = STR_NONE;
    json_array_begin(w);
    while (registry_next_name(tools, tenant_id, &index, &name)) {
        const struct agent_tool *entry = agent_find_tool(agent, name, &range);
        struct registry_question question = {.tenant_id = tenant_id, .name = name, .range = range};
        const struct tool *tool = entry ? registry_resolve(tools, &question) : NULL;
        if (tool)
            tool_write_json(w, registry_effective(tools, call->ctx->arena, tool, tenant_id,
                                                  entry->permissions));
    }
    json_array_end(w);
    registry_release(tools);
}

bool route_agent_capabilities(struct api_call *call, struct error *e)
{
    str name;
    struct reply_writer writer;
    if (!param_text(call, 0, &name, e))
        return false;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    const struct agent_definition *agent = agent_set_find(settings->agents, name);
    if (agent) {
        const struct model *model = catalog_default(settings->catalog);
        struct json_writer *w = reply_writer_init(&writer, call);
        json_object_begin(w);
        json_key(w, S("agent"));
        write_agent(w, agent);
        json_put_str(w, S("model"),
                     str_is_empty(agent->model) && model ? model->name : agent->model);
        json_key(w, S("tools"));
        write_agent_tools(call, w, agent);
        json_key(w, S("apis"));
        json_write_raw(w, S("[\"/api/v1/sessions/{id}/messages\",\"/v1/chat/completions\"]"));
        json_object_end(w);
    }
    orchestrator_release(settings);
    return agent ? reply_writer_send(&writer, call, 200, e) : unknown_agent(name, e);
}
