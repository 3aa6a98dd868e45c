/* settings: what an agent says of the other agents that it works with */
#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "cli/config/config_internal.h"
#include "orchestrator/run/agent_definition.h"

static bool read_amount(const struct json *value, int64_t scale, int64_t *out)
{
    int64_t amount;
    if (!json_to_i64(value, &amount) || amount <= 0 || amount > COST_UNLIMITED / scale)
        return false;
    *out = amount * scale;
    return true;
}

static bool read_money(const struct json *value, int64_t *out)
{
    str text;
    double number;
    if (json_to_str(value, &text))
        return money_parse_usd(text, out) && *out > 0;
    if (!json_to_double(value, &number) || !(number > 0) || number > 9e9)
        return false;
    *out = (int64_t) (number * 1e9 + 0.5);
    return true;
}

static bool read_budget(struct config *config, const struct json *budget, cost *out,
                        struct error *e)
{
    str key;
    const struct json *value;
    struct json_iter it = json_iter(budget);
    *out = COST_LIMITLESS;
    if (json_type(budget) != JSON_OBJECT)
        return yaml_error(&config->document, budget, e,
                          "budget: {tokens, time_seconds, cost_usd, tool_calls}");
    while (json_next(&it, &key, &value)) {
        bool ok = str_equal(key, S("tokens"))         ? read_amount(value, 1, &out->tokens)
                  : str_equal(key, S("time_seconds")) ? read_amount(value, 1000, &out->time_ms)
                  : str_equal(key, S("tool_calls"))   ? read_amount(value, 1, &out->tool_calls)
                  : str_equal(key, S("cost_usd"))     ? read_money(value, &out->cost_nanousd)
                                                      : false;
        if (!ok)
            return yaml_error(&config->document, value, e,
                              "budget." STR_FMT
                              ": a budget has tokens, time_seconds, tool_calls (whole numbers over "
                              "0) and cost_usd (a decimal over 0)",
                              STR_ARG(str_cut_utf8(key, 60)));
    }
    return true;
}

static bool read_link(struct config *config, const struct json *item, struct agent_link *to,
                      struct error *e)
{
    str key, text;
    const struct json *value;
    struct json_iter it = json_iter(item);
    while (json_next(&it, &key, &value)) {
        if (str_equal(key, S("name")))
            continue;
        if (str_equal(key, S("as"))) {
            bool is_text = json_to_str(value, &text);
            to->is_handoff = is_text && str_equal(text, S("handoff"));
            if (!to->is_handoff && !(is_text && str_equal(text, S("tool"))))
                return yaml_error(&config->document, value, e, "as is tool or handoff");
        } else if (str_equal(key, S("sticky"))) {
            if (!json_to_bool(value, &to->is_sticky))
                return yaml_error(&config->document, value, e, "sticky is true or false");
        } else if (str_equal(key, S("description"))) {
            if (!json_to_str(value, &to->description))
                return yaml_error(&config->document, value, e, "description is a text");
        } else if (str_equal(key, S("budget"))) {
            if (!read_budget(config, value, &to->budget, e))
                return false;
        } else {
            return yaml_error(&config->document, value, e,
                              "unknown setting \"" STR_FMT
                              "\"; an agent of an agent has name, as, budget, description, sticky",
                              STR_ARG(str_cut_utf8(key, 60)));
        }
    }
    if (to->is_sticky && !to->is_handoff)
        return yaml_error(&config->document, item, e, "only a handoff can be sticky (as: handoff)");
    return true;
}

static bool is_agent(const struct config *config, str name)
{
    if (str_equal(name, S("assistant")))
        return true;
    for (size_t i = 0; i < config->agent_count; i++)
        if (str_equal(config->agents[i].name, name))
            return true;
    return false;
}

bool config_read_agent_links(struct config *config, struct config_agent *agent,
                             const struct json *value, struct error *e)
{
    const struct json *list = json_get(value, S("agents")), *item;
    struct json_iter it = json_iter(list);
    size_t index = 0;
    agent->links = ARENA_ARRAY(config->arena, struct agent_link, agent->link_count + 1);
    if (agent->link_count > RUN_AGENTS_MAX)
        return yaml_error(&config->document, list, e, "at most %u other agents", RUN_AGENTS_MAX);
    for (; json_next(&it, NULL, &item); index++) {
        struct agent_link *link = &agent->links[index];
        *link = (struct agent_link){.name = agent->link_names[index], .budget = COST_LIMITLESS};
        if (json_type(item) == JSON_OBJECT && !read_link(config, item, link, e))
            return false;
        if (!is_agent(config, link->name))
            return yaml_error(&config->document, item, e,
                              "agent \"" STR_FMT "\": there is no agent \"" STR_FMT "\"",
                              STR_ARG(agent->name), STR_ARG(link->name));
    }
    return true;
}

/* ---- workflows ---- */

bool config_check_agent_workflow(struct config *config, const struct config_agent *agent,
                                 const struct json *value, struct error *e)
{
    static const char *const of_models[] = {"instructions",      "agents", "max_steps", "timeout",
                                            "max_output_tokens", "limits", "degrade"};
    if (str_is_empty(agent->workflow))
        return true;
    for (size_t i = 0; i < ARRAY_COUNT(of_models); i++) {
        const struct json *member = json_get(value, str_from_cstr(of_models[i]));
        if (member)
            return yaml_error(&config->document, member, e,
                              "agent \"" STR_FMT
                              "\" is a workflow: %s stands in its definition, or "
                              "in the agents of its steps",
                              STR_ARG(agent->name), of_models[i]);
    }
    return true;
}

/* ---- degradation ---- */

static bool has_model(const struct config *config, str name)
{
    for (size_t i = 0; i < config->model_count; i++)
        if (str_equal(config->models[i].name, name))
            return true;
    return config->model_count == 0; /* what is found at the start */
}

bool config_check_degrade(struct config *config, const struct config_agent *agent,
                          const struct json *value, struct error *e)
{
    const struct json *list = json_get(value, S("degrade")), *item;
    struct json_iter it = json_iter(list);
    if (agent->degrade_count > DEGRADE_STEPS_MAX)
        return yaml_error(&config->document, list, e, "at most %d steps", DEGRADE_STEPS_MAX);
    for (size_t i = 0; i < agent->degrade_count && json_next(&it, NULL, &item); i++) {
        const struct config_degrade *step = &agent->degrade[i];
        int uses = !str_is_empty(step->use.model) + str_equal(step->use.cached, S("true")) +
                   str_equal(step->use.tools, S("none"));
        if (uses != 1)
            return yaml_error(&config->document, item, e,
                              "use is one of {model: NAME}, {cached: true}, {tools: none}");
        if (!str_is_empty(step->use.model) && !has_model(config, step->use.model))
            return yaml_error(&config->document, item, e, "there is no model \"" STR_FMT "\"",
                              STR_ARG(step->use.model));
    }
    return true;
}
