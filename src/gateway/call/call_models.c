/* GET /v1/models and /v1/models/{name}: models and agents, in OpenAI's form, or in Anthropic's for who names its version. */
#include "base/arena.h"
#include "gateway/call/call_internal.h"

#define AGENT_PREFIX S("agent:")

struct listed {
    str id, owner;
    int64_t created;
};

static bool is_anthropic(const struct api_call *call)
{
    return !str_is_empty(http_request_header(call->request, S("anthropic-version")));
}

static void write_model(struct json_writer *w, const struct listed *model, bool is_for_anthropic)
{
    json_object_begin(w);
    if (is_for_anthropic) {
        json_put_str(w, S("type"), S("model"));
        json_put_str(w, S("id"), model->id);
        json_put_str(w, S("display_name"), model->id);
        if (model->created > 0)
            put_time(w, S("created_at"), model->created * INT64_C(1000000));
        else
            json_put_str(w, S("created_at"), S("1970-01-01T00:00:00Z")); /* not known */
        json_put_str(w, S("lifecycle"), S("active"));
    } else {
        json_put_str(w, S("id"), model->id);
        json_put_str(w, S("object"), S("model"));
        json_put_i64(w, S("created"), model->created);
        json_put_str(w, S("owned_by"), model->owner);
    }
    json_object_end(w);
}

static struct listed of_model(const struct model *model)
{
    return (struct listed){.id = model->name,
                           .created = model->created_unix,
                           .owner = model->target_count > 0 ? model->targets[0].provider->name
                                                            : S("nexus")};
}

static struct listed at(struct api_call *call, const struct settings *settings, size_t index)
{
    size_t models = catalog_count(settings->catalog);
    if (index < models)
        return of_model(catalog_at(settings->catalog, index));
    const struct agent_definition *agent = agent_set_at(settings->agents, index - models);
    return (struct listed){.id =
                               str_printf(call->ctx->arena, "agent:" STR_FMT, STR_ARG(agent->name)),
                           .owner = S("nexus")};
}

static void write_list(struct json_writer *w, struct api_call *call,
                       const struct settings *settings)
{
    bool is_for_anthropic = is_anthropic(call);
    size_t count = catalog_count(settings->catalog) + agent_set_count(settings->agents);
    json_object_begin(w);
    if (!is_for_anthropic)
        json_put_str(w, S("object"), S("list"));
    json_key(w, S("data"));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++) {
        struct listed model = at(call, settings, i);
        write_model(w, &model, is_for_anthropic);
    }
    json_array_end(w);
    if (is_for_anthropic) {
        json_put_bool(w, S("has_more"), false);
        json_put_str(w, S("first_id"), count > 0 ? at(call, settings, 0).id : STR_NONE);
        json_put_str(w, S("last_id"), count > 0 ? at(call, settings, count - 1).id : STR_NONE);
    }
    json_object_end(w);
}

bool route_openai_models(struct api_call *call, struct error *e)
{
    struct reply_writer writer;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    write_list(reply_writer_init(&writer, call), call, settings);
    orchestrator_release(settings);
    return reply_writer_send(&writer, call, 200, e);
}

bool route_openai_model(struct api_call *call, struct error *e)
{
    str name, agent;
    struct reply_writer writer;
    if (!param_text(call, 0, &name, e))
        return false;
    const struct settings *settings = orchestrator_acquire(call->gateway->orchestrator);
    const struct model *model = catalog_find(settings->catalog, name);
    bool is_agent =
        str_strip_prefix(name, AGENT_PREFIX, &agent) && agent_set_find(settings->agents, agent);
    bool ok = model || is_agent || catalog_error_unknown(settings->catalog, name, e);
    struct listed listed = {.id = name, .owner = S("nexus")};
    if (model)
        listed = of_model(model);
    if (ok)
        write_model(reply_writer_init(&writer, call), &listed, is_anthropic(call));
    orchestrator_release(settings);
    return ok && reply_writer_send(&writer, call, 200, e);
}
