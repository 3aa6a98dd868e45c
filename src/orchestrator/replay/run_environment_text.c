/* What a run was determined by, as JSON: written from what is live, read back for a replay.  Each struct has one table for both. */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/replay/run_environment.h"
#include "orchestrator/workflow_internal.h"

/* ---- members of structs ---- */

enum field_kind { FIELD_STR, FIELD_RAW, FIELD_I64, FIELD_INT, FIELD_BOOL };
struct field {
    const char *member;
    enum field_kind kind; /* RAW: JSON text */
    size_t offset;
    int64_t otherwise; /* when it is not there */
};
#define FIELD(struct_name, name, kind_name, member_name, value)                                    \
    {                                                                                              \
        .member = member_name, .kind = FIELD_##kind_name, .offset = offsetof(struct_name, name),   \
        .otherwise = value                                                                         \
    }

static const struct field agent_fields[] = {
    FIELD(struct agent_definition, name, STR, "name", 0),
    FIELD(struct agent_definition, version, STR, "version", 0),
    FIELD(struct agent_definition, model, STR, "model", 0),
    FIELD(struct agent_definition, instructions, STR, "instructions", 0),
    FIELD(struct agent_definition, steps_max, INT, "steps_max", 1),
    FIELD(struct agent_definition, run_timeout_ms, I64, "run_timeout_ms", 0),
    FIELD(struct agent_definition, max_output_tokens, I64, "max_output_tokens", 0),
};
/* Of another agent: what is told of it. */
static const struct field other_fields[] = {
    FIELD(struct agent_definition, name, STR, "name", 0),
    FIELD(struct agent_definition, version, STR, "version", 0),
    FIELD(struct agent_definition, description, STR, "about", 0),
    FIELD(struct agent_definition, model, STR, "model", 0),
    FIELD(struct agent_definition, instructions, STR, "instructions", 0),
};
static const struct field link_fields[] = {
    FIELD(struct agent_link, name, STR, "name", 0),
    FIELD(struct agent_link, description, STR, "description", 0),
    FIELD(struct agent_link, is_handoff, BOOL, "handoff", 0),
    FIELD(struct agent_link, is_sticky, BOOL, "sticky", 0),
};
static const struct field degrade_fields[] = {
    FIELD(struct degrade_step, when, INT, "when", 0),
    FIELD(struct degrade_step, use, INT, "use", 0),
    FIELD(struct degrade_step, model, STR, "model", 0),
};
static const struct field rate_fields[] = {
    FIELD(struct price_rates, input, I64, "input", 0),
    FIELD(struct price_rates, cached, I64, "cached", 0),
    FIELD(struct price_rates, cache_write, I64, "cache_write", 0),
    FIELD(struct price_rates, output, I64, "output", 0),
    FIELD(struct price_rates, reasoning, I64, "reasoning", 0),
};
static const struct field price_fields[] = {
    FIELD(struct model_price, input_picousd_per_token, I64, "input", 0),
    FIELD(struct model_price, cached_picousd_per_token, I64, "cached", 0),
    FIELD(struct model_price, cache_write_picousd_per_token, I64, "cache_write", 0),
    FIELD(struct model_price, output_picousd_per_token, I64, "output", 0),
    FIELD(struct model_price, reasoning_picousd_per_token, I64, "reasoning", 0),
};
static const struct field model_fields[] = {
    FIELD(struct model, name, STR, "name", 0),
    FIELD(struct model, max_output_tokens, I64, "max_output_tokens", 1),
    FIELD(struct model, deadlines.total_ms, I64, "total_ms", 0),
};
static const struct field tool_fields[] = {
    FIELD(struct tool, name, STR, "name", 0),
    FIELD(struct tool, version, STR, "version", 0),
    FIELD(struct tool, category, STR, "category", 0),
    FIELD(struct tool, description, STR, "description", 0),
    FIELD(struct tool, input_schema, RAW, "input_schema", 0),
    FIELD(struct tool, output_schema, RAW, "output_schema", 0),
    FIELD(struct tool, abi, INT, "abi", TOOL_ABI_NEXUS_EXPORT),
    FIELD(struct tool, source, INT, "source", TOOL_SHIPPED),
    FIELD(struct tool, source_name, STR, "source_name", 0),
    FIELD(struct tool, is_pure, BOOL, "pure", 0),
    FIELD(struct tool, is_idempotent, BOOL, "idempotent", 0),
    FIELD(struct tool, is_output_public, BOOL, "output_public", 0),
    FIELD(struct tool, is_output_trusted, BOOL, "output_trusted", 0),
    FIELD(struct tool, is_sink, BOOL, "sink", 1),
    FIELD(struct tool, notebooks.is_enabled, BOOL, "notebooks", 0),
};
static const struct field approval_fields[] = {
    FIELD(struct approval_rule, quorum, I64, "quorum", 0),
    FIELD(struct approval_rule, approvers, STR, "approvers", 0),
    FIELD(struct approval_rule, expires_ms, I64, "expires_ms", 0),
    FIELD(struct approval_rule, remind_ms, I64, "remind_ms", 0),
};
static const struct field rule_fields[] = {
    FIELD(struct containment_rule, name, STR, "name", 0),
    FIELD(struct containment_rule, tool, STR, "tool", 0),
    FIELD(struct containment_rule, category, STR, "category", 0),
    FIELD(struct containment_rule, host, STR, "host", 0),
    FIELD(struct containment_rule, agent, STR, "agent", 0),
    FIELD(struct containment_rule, when, INT, "when", CONTAINMENT_ALWAYS),
    FIELD(struct containment_rule, verdict, INT, "verdict", CONTAINMENT_DENY),
};
static const struct field containment_fields[] = {
    FIELD(struct containment, mode, INT, "mode", CONTAINMENT_ENFORCE),
    FIELD(struct containment, payloads, INT, "payloads", PAYLOADS_MASK),
    FIELD(struct containment, links_max, I64, "links_max", 0),
    FIELD(struct containment, approvals_max, I64, "approvals_max", 0),
    FIELD(struct containment, keeps_links, BOOL, "keeps_links", 0),
};
/* Enumerations are read and written as what they are: int-sized. */
static_assert(sizeof(enum tool_abi) == sizeof(int) && sizeof(enum degrade_when) == sizeof(int) &&
                  sizeof(enum containment_mode) == sizeof(int),
              "FIELD_INT is for enumerations too");

static void write_fields(struct json_writer *w, const struct field *fields, size_t count,
                         const void *base)
{
    for (size_t i = 0; i < count; i++) {
        const char *place = (const char *) base + fields[i].offset;
        str member = str_from_cstr(fields[i].member);
        switch (fields[i].kind) {
        case FIELD_STR: json_put_str(w, member, *(const str *) place); break;
        case FIELD_RAW: json_put_raw(w, member, *(const str *) place); break;
        case FIELD_I64: json_put_i64(w, member, *(const int64_t *) place); break;
        case FIELD_INT: json_put_i64(w, member, *(const int *) place); break;
        case FIELD_BOOL: json_put_bool(w, member, *(const bool *) place); break;
        }
    }
}

static void read_fields(struct arena *arena, const struct json *json, const struct field *fields,
                        size_t count, void *base)
{
    for (size_t i = 0; i < count; i++) {
        char *place = (char *) base + fields[i].offset;
        str member = str_from_cstr(fields[i].member);
        int64_t otherwise = fields[i].otherwise;
        switch (fields[i].kind) {
        case FIELD_STR: *(str *) place = json_str_or(json, member, STR_NONE); break;
        case FIELD_RAW: *(str *) place = json_print(arena, json_get(json, member)); break;
        case FIELD_I64: *(int64_t *) place = json_i64_or(json, member, otherwise); break;
        case FIELD_INT: *(int *) place = (int) json_i64_or(json, member, otherwise); break;
        case FIELD_BOOL: *(bool *) place = json_bool_or(json, member, otherwise != 0); break;
        }
    }
}
#define WRITE(w, fields, base) write_fields(w, fields, ARRAY_COUNT(fields), base)
#define READ(arena, json, fields, base) read_fields(arena, json, fields, ARRAY_COUNT(fields), base)

/* ---- lists ---- */

static void begin_list(struct json_writer *w, const char *member)
{
    json_key(w, str_from_cstr(member));
    json_array_begin(w);
}

static void write_names(struct json_writer *w, const char *member, const str *names, size_t count)
{
    begin_list(w, member);
    for (size_t i = 0; i < count; i++)
        json_write_str(w, names[i]);
    json_array_end(w);
}

static size_t read_names(struct arena *arena, const struct json *list, str **out)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    size_t count = 0;
    *out = ARENA_ARRAY(arena, str, json_count(list) + 1);
    while (json_next(&it, NULL, &item))
        count += json_to_str(item, &(*out)[count]);
    return count;
}

static void write_numbers(struct json_writer *w, const char *member, const int64_t *numbers,
                          size_t count)
{
    begin_list(w, member);
    for (size_t i = 0; i < count; i++)
        json_write_i64(w, numbers[i]);
    json_array_end(w);
}

static int64_t number_at(const struct json *list, size_t index)
{
    int64_t value = 0;
    (void) json_to_i64(json_at(list, index), &value);
    return value;
}

/* ---- agents ---- */

static void write_other(struct json_writer *w, const struct agent_definition *other)
{
    WRITE(w, other_fields, other);
    write_names(w, "tools", other->tools, other->tool_count);
}

static void write_links(struct json_writer *w, const struct agent_set *agents,
                        const struct agent_definition *agent)
{
    begin_list(w, "agents");
    for (size_t i = 0; i < agent->agent_count; i++) {
        const struct agent_link *link = &agent->agents[i];
        const struct agent_definition *other = agent_set_find(agents, link->name);
        json_object_begin(w);
        WRITE(w, link_fields, link);
        if (other) { /* its name stands there already */
            write_fields(w, other_fields + 1, ARRAY_COUNT(other_fields) - 1, other);
            write_names(w, "tools", other->tools, other->tool_count);
        }
        json_key(w, S("budget"));
        cost_write_json(w, link->budget);
        json_object_end(w);
    }
    json_array_end(w);
}

static void write_degrade(struct json_writer *w, const struct agent_definition *agent)
{
    if (agent->degrade_count == 0)
        return;
    begin_list(w, "degrade");
    for (size_t i = 0; i < agent->degrade_count; i++) {
        json_object_begin(w);
        WRITE(w, degrade_fields, &agent->degrade[i]);
        json_object_end(w);
    }
    json_array_end(w);
}

static void write_agent(struct json_writer *w, const struct agent_set *agents,
                        const struct agent_definition *agent)
{
    const struct agent_limits *limits = &agent->limits;
    const int64_t numbers[] = {limits->tokens_per_minute, limits->cost_per_minute_nanousd,
                               limits->same_action_warn, limits->same_action_max,
                               limits->wind_down_tokens};
    json_key(w, S("agent"));
    json_object_begin(w);
    WRITE(w, agent_fields, agent);
    write_numbers(w, "limits", numbers, ARRAY_COUNT(numbers));
    write_links(w, agents, agent);
    write_names(w, "tools", agent->tools, agent->tool_count);
    begin_list(w, "pinned");
    for (size_t i = 0; agent->tool_details && i < agent->tool_count; i++)
        if (agent->tool_details[i].is_pinned)
            json_write_str(w, agent->tools[i]);
    json_array_end(w);
    write_degrade(w, agent);
    json_object_end(w);
}

static void read_other(struct arena *arena, const struct json *json, struct agent_definition *out)
{
    *out = (struct agent_definition){.steps_max = 1, .run_timeout_ms = 60 * 1000};
    READ(arena, json, other_fields, out);
    out->tool_count = read_names(arena, json_get(json, S("tools")), &out->tools);
}

static void read_links(struct arena *arena, const struct json *list, struct run_environment *out)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    struct agent_link *links = ARENA_ARRAY(arena, struct agent_link, json_count(list) + 1);
    out->others = ARENA_ARRAY(arena, struct agent_definition, json_count(list) + 1);
    while (json_next(&it, NULL, &item)) {
        struct agent_link *link = &links[out->agent.agent_count++];
        READ(arena, item, link_fields, link);
        link->budget = COST_LIMITLESS;
        (void) cost_read_json(json_get(item, S("budget")), &link->budget);
        read_other(arena, item, &out->others[out->other_count++]);
    }
    out->agent.agents = links;
}

static void read_degrade(struct arena *arena, const struct json *list, struct agent_definition *out)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    struct degrade_step *steps = ARENA_ARRAY(arena, struct degrade_step, json_count(list) + 1);
    while (json_next(&it, NULL, &item) && out->degrade_count < DEGRADE_STEPS_MAX) {
        struct degrade_step *step = &steps[out->degrade_count];
        READ(arena, item, degrade_fields, step);
        out->degrade_count +=
            (unsigned) step->when <= DEGRADE_OVERLOADED && (unsigned) step->use <= DEGRADE_TOOLLESS;
    }
    out->degrade = steps;
}

static void read_agent(struct arena *arena, const struct json *json, struct agent_definition *out)
{
    str *pinned;
    size_t pinned_count = read_names(arena, json_get(json, S("pinned")), &pinned);
    const struct json *limits = json_get(json, S("limits"));
    *out = (struct agent_definition){
        .limits = {.tokens_per_minute = number_at(limits, 0),
                   .cost_per_minute_nanousd = number_at(limits, 1),
                   .same_action_warn = number_at(limits, 2),
                   .same_action_max = number_at(limits, 3),
                   .wind_down_tokens = number_at(limits, 4)},
    };
    READ(arena, json, agent_fields, out);
    out->tool_count = read_names(arena, json_get(json, S("tools")), &out->tools);
    struct agent_tool *details = ARENA_ARRAY(arena, struct agent_tool, out->tool_count + 1);
    for (size_t i = 0; i < out->tool_count; i++)
        for (size_t k = 0; k < pinned_count; k++)
            details[i].is_pinned = details[i].is_pinned || str_equal(out->tools[i], pinned[k]);
    out->tool_details = details;
    read_degrade(arena, json_get(json, S("degrade")), out);
}

/* ---- models ---- */

static void write_price(struct json_writer *w, const struct model_price *price)
{
    if (!price->is_known)
        return;
    json_key(w, S("price"));
    json_object_begin(w);
    WRITE(w, price_fields, price);
    json_object_end(w);
    if (price->long_above_tokens == 0)
        return;
    json_put_i64(w, S("long_above_tokens"), price->long_above_tokens);
    json_key(w, S("long_price"));
    json_object_begin(w);
    WRITE(w, rate_fields, &price->long_rates);
    json_object_end(w);
}

static void write_model(struct json_writer *w, const struct model *model)
{
    json_object_begin(w);
    WRITE(w, model_fields, model);
    begin_list(w, "targets");
    for (size_t i = 0; i < model->target_count; i++) {
        const struct model_target *target = &model->targets[i];
        json_object_begin(w);
        json_put_str(w, S("provider"), target->provider->name);
        json_put_str(w, S("model"), target->model);
        json_put_str(w, S("variant"), target->variant);
        json_put_bool(w, S("stand_in"), target->provider->ops->is_stand_in);
        if (target->context_tokens_max > 0) /* what is summarised depends on it */
            json_put_i64(w, S("context_tokens"), target->context_tokens_max);
        write_price(w, &target->price);
        json_object_end(w);
    }
    json_array_end(w);
    json_object_end(w);
}

static struct model_price read_price(struct arena *arena, const struct json *target)
{
    struct model_price price = {.is_known = json_get(target, S("price")) != NULL};
    READ(arena, json_get(target, S("price")), price_fields, &price);
    READ(arena, json_get(target, S("long_price")), rate_fields, &price.long_rates);
    price.long_above_tokens = json_i64_or(target, S("long_above_tokens"), 0);
    return price;
}

static void read_model(struct arena *arena, const struct json *json, struct environment_model *out)
{
    const struct json *targets = json_get(json, S("targets")), *item;
    struct json_iter it = json_iter(targets);
    struct model *model = &out->model;
    *model = (struct model){0};
    READ(arena, json, model_fields, model);
    model->targets = ARENA_ARRAY(arena, struct model_target, json_count(targets) + 1);
    out->targets = ARENA_ARRAY(arena, struct environment_target, json_count(targets) + 1);
    while (json_next(&it, NULL, &item)) {
        size_t i = model->target_count++;
        out->targets[i] = (struct environment_target){
            .provider = json_str_or(item, S("provider"), STR_NONE),
            .model = json_str_or(item, S("model"), STR_NONE),
            .is_stand_in = json_bool_or(item, S("stand_in"), false),
        };
        model->targets[i] = (struct model_target){
            .model = out->targets[i].model,
            .variant = json_str_or(item, S("variant"), STR_NONE),
            .weight = 1,
            .price = read_price(arena, item),
            .context_tokens_max = json_i64_or(item, S("context_tokens"), 0),
        };
    }
}

/* ---- tools ---- */

static void put_digest(struct json_writer *w, struct arena *arena, const char *member, digest value)
{
    json_put_str(w, str_from_cstr(member), digest_hex(arena, value));
}

static digest read_digest(const struct json *json, const char *member)
{
    digest out = {0};
    str hex = json_str_or(json, str_from_cstr(member), STR_NONE);
    for (size_t i = 0; i + 1 < hex.len && i / 2 < sizeof out.bytes; i += 2) {
        int high = hex.ptr[i] <= '9' ? hex.ptr[i] - '0' : hex.ptr[i] - 'a' + 10;
        int low = hex.ptr[i + 1] <= '9' ? hex.ptr[i + 1] - '0' : hex.ptr[i + 1] - 'a' + 10;
        out.bytes[i / 2] = (uint8_t) (high << 4 | low);
    }
    return out;
}

static void write_tool(struct json_writer *w, struct arena *arena, const struct tool *tool)
{
    const int64_t limits[] = {(int64_t) tool->limits.fuel, tool->limits.time_ms,
                              (int64_t) tool->limits.memory_bytes,
                              (int64_t) tool->limits.output_bytes, tool->limits.table_elements};
    json_object_begin(w);
    WRITE(w, tool_fields, tool);
    json_key(w, S("permissions"));
    permissions_write_json(w, &tool->permissions);
    write_numbers(w, "limits", limits, ARRAY_COUNT(limits));
    write_names(w, "host_calls", tool->host_calls, tool->host_call_count);
    put_digest(w, arena, "digest", tool->module_digest);
    put_digest(w, arena, "identity", tool->identity);
    json_key(w, S("approval"));
    json_object_begin(w);
    WRITE(w, approval_fields, &tool->approval);
    json_object_end(w);
    json_object_end(w);
}

static bool read_permissions(struct arena *arena, const struct json *json, struct permissions *out,
                             struct error *e)
{
    struct yaml_document document;
    return yaml_parse(arena, S("permissions"), json_print(arena, json), &document, e) &&
           permissions_read(arena, &document, document.root, out, e);
}

static bool read_tool(struct arena *arena, const struct json *json, struct tool *out,
                      struct error *e)
{
    const struct json *limits = json_get(json, S("limits"));
    *out = (struct tool){
        .limits = {.fuel = (uint64_t) number_at(limits, 0),
                   .time_ms = number_at(limits, 1),
                   .memory_bytes = (size_t) number_at(limits, 2),
                   .output_bytes = (size_t) number_at(limits, 3),
                   .table_elements = (uint32_t) number_at(limits, 4)},
        .module_digest = read_digest(json, "digest"),
        .identity = read_digest(json, "identity"),
    };
    READ(arena, json, tool_fields, out);
    READ(arena, json_get(json, S("approval")), approval_fields, &out->approval);
    out->host_call_count = read_names(arena, json_get(json, S("host_calls")), &out->host_calls);
    return !str_is_empty(out->name) &&
           read_permissions(arena, json_get(json, S("permissions")), &out->permissions, e);
}

/* ---- settings ---- */

static void write_settings(struct json_writer *w, const struct settings *settings)
{
    const struct containment *rules = &settings->containment;
    json_key(w, S("settings"));
    json_object_begin(w);
    json_put_i64(w, S("call_timeout_ms"), settings->call_timeout_ms);
    json_put_i64(w, S("approval_expiry_ms"), settings->approval_expiry_ms);
    json_key(w, S("containment"));
    json_object_begin(w);
    WRITE(w, containment_fields, rules);
    write_names(w, "inside", rules->inside, rules->inside_count);
    begin_list(w, "rules");
    for (size_t i = 0; i < rules->rule_count; i++) {
        json_object_begin(w);
        WRITE(w, rule_fields, &rules->rules[i]);
        json_object_end(w);
    }
    json_array_end(w);
    json_object_end(w);
    json_object_end(w);
}

static void read_containment(struct arena *arena, const struct json *json, struct containment *out)
{
    const struct json *rules = json_get(json, S("rules")), *item;
    struct json_iter it = json_iter(rules);
    struct containment_rule *made =
        ARENA_ARRAY(arena, struct containment_rule, json_count(rules) + 1);
    str *inside;
    *out = (struct containment){.rules = made};
    READ(arena, json, containment_fields, out);
    out->inside_count = read_names(arena, json_get(json, S("inside")), &inside);
    out->inside = inside;
    while (json_next(&it, NULL, &item))
        READ(arena, item, rule_fields, &made[out->rule_count++]);
}

/* ---- what an instance of a workflow needs ---- */

struct needed {
    struct run *run;
    const struct tool **tools;
    const struct agent_definition **agents;
    size_t tool_count, agent_count;
    bool calls_others;
};

static void need_tool(struct needed *n, str name, str range)
{
    struct run *run = n->run;
    struct registry_question question = {
        .tenant_id = run->tenant_id, .name = name, .range = range, .canary_key = run->session_id};
    const struct tool *tool = registry_resolve(run->tools, &question);
    for (size_t i = 0; tool && i < n->tool_count; i++)
        if (str_equal(n->tools[i]->name, tool->name) &&
            str_equal(n->tools[i]->version, tool->version))
            return;
    if (!tool)
        return;
    tool = registry_effective(run->tools, run->turn, tool, run->tenant_id, NULL);
    n->tools = arena_grow(run->turn, n->tools, n->tool_count * sizeof *n->tools,
                          (n->tool_count + 1) * sizeof *n->tools);
    n->tools[n->tool_count++] = tool;
    size_t index = 0;
    bool is_first = !n->calls_others && tool_may_call(tool, S("tool_call"));
    n->calls_others = n->calls_others || is_first;
    while (is_first && registry_next_name(run->tools, run->tenant_id, &index, &name))
        need_tool(n, name, STR_NONE); /* its guest may call any */
}

static void need_agent(struct needed *n, str name)
{
    const struct agent_definition *agent = agent_set_find(n->run->settings->agents, name);
    for (size_t i = 0; agent && i < n->agent_count; i++)
        if (n->agents[i] == agent)
            return;
    if (!agent)
        return;
    n->agents = arena_grow(n->run->turn, n->agents, n->agent_count * sizeof *n->agents,
                           (n->agent_count + 1) * sizeof *n->agents);
    n->agents[n->agent_count++] = agent;
}

static void need_list(struct needed *n, struct step_list list);

static void need_step(struct needed *n, const struct step *step)
{
    if (step->kind == STEP_TOOL)
        need_tool(n, step->tool.name, step->tool.range);
    if (step->kind == STEP_AGENT)
        need_agent(n, step->agent.name);
    if (step->kind == STEP_MAP)
        need_list(n, step->map.steps);
    if (step->kind == STEP_LOOP)
        need_list(n, step->loop.steps);
    for (size_t i = 0; step->kind == STEP_BRANCH && i < step->branch.count; i++)
        need_list(n, step->branch.arms[i].steps);
    for (size_t i = 0; step->kind == STEP_PARALLEL && i < step->parallel.count; i++)
        need_list(n, step->parallel.arms[i].steps);
    if (step->compensate)
        need_step(n, step->compensate);
}

/* As deep as a definition may be: WORKFLOW_DEPTH_MAX. */
static void need_list(struct needed *n, struct step_list list)
{
    for (size_t i = 0; i < list.count; i++)
        need_step(n, list.items[i]);
}

static void write_needed(struct run *run, struct json_writer *w)
{
    struct needed n = {.run = run};
    if (run->workflow->definition)
        need_list(&n, run->workflow->definition->steps);
    begin_list(w, "agents");
    for (size_t i = 0; i < n.agent_count; i++) {
        json_object_begin(w);
        write_other(w, n.agents[i]);
        json_object_end(w);
    }
    json_array_end(w);
    begin_list(w, "tools");
    for (size_t i = 0; i < n.tool_count; i++)
        write_tool(w, run->turn, n.tools[i]);
    json_array_end(w);
}

/* ---- the whole ---- */

static void write_tools(struct run *run, struct json_writer *w)
{
    size_t index = 0;
    str name;
    begin_list(w, "tools");
    while (registry_next_name(run->tools, run->tenant_id, &index, &name)) {
        const struct tool *tool = run_find_tool(run, name);
        if (tool)
            write_tool(w, run->turn, tool);
    }
    json_array_end(w);
    begin_list(w, "offered");
    for (size_t i = 0; i < run->offered_count; i++)
        json_write_str(w, run->offered[i].name);
    json_array_end(w);
}

/* Other models that the run may come to, and which there are at all: an unknown one is refused with their names. */
static void write_models(struct run *run, struct json_writer *w)
{
    const struct catalog *catalog = run->settings->catalog;
    begin_list(w, "models");
    for (size_t i = 0; i < run->agent->degrade_count; i++) {
        const struct model *model = catalog_find(catalog, run->agent->degrade[i].model);
        if (model && model != run->model)
            write_model(w, model);
    }
    json_array_end(w);
    begin_list(w, "known");
    for (size_t i = 0; i < catalog_count(catalog); i++)
        json_write_str(w, catalog_at(catalog, i)->name);
    json_array_end(w);
}

str run_environment_text(struct run *run)
{
    struct strbuf text;
    struct json_writer w;
    bool starts_others =
        run->workflow || run->agent->agent_count > 0 || run->agent->degrade_count > 0;
    strbuf_init(&text, run->turn, RUN_ENVIRONMENT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_agent(&w, run->settings->agents, run->agent);
    if (run->model) {
        json_key(&w, S("model"));
        write_model(&w, run->model);
    }
    if (starts_others)
        write_models(run, &w);
    write_settings(&w, run->settings);
    if (run->workflow)
        write_needed(run, &w);
    else
        write_tools(run, &w);
    json_object_end(&w);
    return strbuf_is_over(&text) ? STR_NONE : strbuf_str(&text);
}

static bool read_tools(struct arena *arena, const struct json *list, struct run_environment *out,
                       struct error *e)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    out->tools = ARENA_ARRAY(arena, struct tool, json_count(list) + 1);
    while (json_next(&it, NULL, &item))
        if (!read_tool(arena, item, &out->tools[out->tool_count++], e))
            return error_wrap(e, "a tool of the run's environment");
    return true;
}

static void read_models(struct arena *arena, const struct json *list, struct run_environment *out)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    out->models = ARENA_ARRAY(arena, struct environment_model, json_count(list) + 1);
    while (json_next(&it, NULL, &item))
        read_model(arena, item, &out->models[out->model_count++]);
}

static void read_agents(struct arena *arena, const struct json *list, struct run_environment *out)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    out->agents = ARENA_ARRAY(arena, struct agent_definition, json_count(list) + 1);
    while (json_next(&it, NULL, &item))
        read_other(arena, item, &out->agents[out->agent_count++]);
}

bool run_environment_read(struct arena *arena, const struct json *json, struct run_environment *out,
                          struct error *e)
{
    const struct json *settings = json_get(json, S("settings"));
    *out = (struct run_environment){
        .call_timeout_ms = json_i64_or(settings, S("call_timeout_ms"), 0),
        .approval_expiry_ms = json_i64_or(settings, S("approval_expiry_ms"), 0),
    };
    read_agent(arena, json_get(json, S("agent")), &out->agent);
    read_links(arena, json_get(json_get(json, S("agent")), S("agents")), out);
    read_agents(arena, json_get(json, S("agents")), out);
    read_model(arena, json_get(json, S("model")), &out->model);
    read_models(arena, json_get(json, S("models")), out);
    out->known_count = read_names(arena, json_get(json, S("known")), &out->known);
    read_containment(arena, json_get(settings, S("containment")), &out->containment);
    out->offered_count = read_names(arena, json_get(json, S("offered")), &out->offered);
    if (!read_tools(arena, json_get(json, S("tools")), out, e))
        return false;
    bool is_workflow = str_starts_with(out->agent.name, S("workflow:"));
    return (!str_is_empty(out->agent.name) &&
            (is_workflow || !str_is_empty(out->model.model.name))) ||
           error_set(e, REASON_INVALID, "the run's environment names no agent or no model");
}
