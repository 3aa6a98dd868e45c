/* Agents that work together or badly, models, shipped workflows: what the settings of a simulated node have. */
#include "acts.h"
#include "base/ensure.h"
#include "orchestrator/workflow/workflow_store.h"
#include <stdio.h>
#include <stdlib.h>

#define LIMITLESS                                                                                  \
    {                                                                                              \
        COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED, COST_UNLIMITED                             \
    }

static str all_tools[] = {S_INIT("*")};
static str some_tools[] = {S_INIT("lookup"), S_INIT("notify"), S_INIT("pay")};
static str one_tool[] = {S_INIT("lookup")};

static const struct agent_link helpers[] = {
    {.name = S_INIT("worker"), .description = S_INIT("does work"), .budget = LIMITLESS},
    {.name = S_INIT("clerk"),
     .description = S_INIT("does little"),
     .budget = {.tokens = 6000,
                .time_ms = COST_UNLIMITED,
                .cost_nanousd = COST_UNLIMITED,
                .tool_calls = 4}},
    {.name = S_INIT("expert"),
     .is_handoff = true,
     .description = S_INIT("knows"),
     .budget = LIMITLESS},
};
static const struct agent_link friends[] = {
    {.name = S_INIT("clerk"), .description = S_INIT("does little"), .budget = LIMITLESS},
};
static const struct degrade_step steps_down[] = {
    {.when = DEGRADE_PROVIDER_UNAVAILABLE, .use = DEGRADE_CACHED},
    {DEGRADE_PROVIDER_UNAVAILABLE, DEGRADE_MODEL, S_INIT("sim-spare")},
    {.when = DEGRADE_BUDGET_LOW, .use = DEGRADE_TOOLLESS},
};

static const struct agent_definition agents[] = {
    {.name = S_INIT("boss"),
     .tools = one_tool,
     .tool_count = 1,
     .agents = helpers,
     .agent_count = 3,
     .steps_max = 8},
    {.name = S_INIT("worker"),
     .tools = some_tools,
     .tool_count = 3,
     .agents = friends,
     .agent_count = 1,
     .steps_max = 6},
    {.name = S_INIT("clerk"), .tools = some_tools, .tool_count = 2, .steps_max = 4},
    {.name = S_INIT("expert"), .tools = all_tools, .tool_count = 1, .steps_max = 6},
    {.name = S_INIT("parrot"),
     .instructions = S_INIT("You are a parrot."),
     .tools = one_tool,
     .tool_count = 1,
     .steps_max = 20,
     .limits = {.same_action_warn = 2, .same_action_max = 4}},
    {.name = S_INIT("humble"),
     .model = S_INIT("sim-frail"),
     .tools = some_tools,
     .tool_count = 3,
     .steps_max = 6,
     .degrade = steps_down,
     .degrade_count = 3},
    {.name = S_INIT("hasty"),
     .tools = some_tools,
     .tool_count = 3,
     .steps_max = 6,
     .limits = {.tokens_per_minute = 4000}},
    {.name = S_INIT("narrow"),
     .model = S_INIT("sim-narrow"),
     .tools = one_tool,
     .tool_count = 1,
     .steps_max = 6},
};

struct agent_set *company_agents(void)
{
    struct agent_set *set = agent_set_create();
    struct error e = {0};
    for (size_t i = 0; i < ARRAY_COUNT(agents); i++) {
        struct agent_definition agent = agents[i];
        agent.version = S("1");
        agent.run_timeout_ms = 600000;
        if (!agent_set_add(set, &agent, &e)) {
            fprintf(stderr, "sim: %s\n", e.message);
            abort();
        }
    }
    ensure(agent_set_check(set, &e));
    return set;
}

str company_agent(struct world *world)
{
    static const str names[] = {S_INIT("boss"),   S_INIT("boss"),   S_INIT("parrot"),
                                S_INIT("humble"), S_INIT("humble"), S_INIT("hasty"),
                                S_INIT("narrow")};
    if (world_chance(world, 450))
        return STR_NONE;
    return names[world_between(world, 0, ARRAY_COUNT(names) - 1)];
}

/* ---- models ---- */

void company_models(struct node *node, struct catalog *catalog)
{
    static const struct {
        const char *name;
        int64_t window;
    } models[] = {{"sim-spare", 0}, {"sim-frail", 0}, {"sim-narrow", 2600}};
    struct model_price price = {
        .is_known = true, .input_picousd_per_token = 100000, .output_picousd_per_token = 400000};
    struct error e = {0};
    for (size_t i = 0; i < ARRAY_COUNT(models); i++) {
        struct model_target target = {.provider = &node->provider.base,
                                      .model = str_from_cstr(models[i].name),
                                      .weight = 1,
                                      .price = price,
                                      .context_tokens_max = models[i].window};
        struct model model = {.name = str_from_cstr(models[i].name),
                              .targets = &target,
                              .target_count = 1,
                              .max_output_tokens = 300};
        if (!catalog_add(catalog, &model, &e)) {
            fprintf(stderr, "sim: %s\n", e.message);
            abort();
        }
    }
}

struct workflow_set *company_workflows(const struct world *world)
{
    struct error e = {0};
    if (!world->stage->rules.has_shipped)
        return NULL;
    struct workflow_set *set = workflow_set_create();
    if (!workflow_set_add_folder(set, S(NEXUS_SOURCE_DIR "/workflows"), "shipped", &e)) {
        fprintf(stderr, "sim: %s\n", e.message);
        abort();
    }
    return set;
}
