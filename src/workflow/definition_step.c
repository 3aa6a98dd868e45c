#include "base/arena.h"
#include "base/timefmt.h"
#include "workflow/definition_internal.h"

static const char *const kind_names[] = {
#define X(name, text) text,
    STEP_KINDS(X)
#undef X
};

const char *step_kind_name(enum step_kind kind)
{
    return kind_names[kind];
}

/* ---- what a kind of step says ---- */

static void read_tool(struct definition_reader *r, const struct json *object, struct step *step)
{
    need_name(r, object, "tool", &step->tool.name);
    read_text(r, object, "version", &step->tool.range);
    read_template(r, object, "input", &step->input);
    read_template(r, object, "idempotency_key", &step->idempotency_key);
}

static void need_template(struct definition_reader *r, const struct json *object, const char *name,
                          const struct template **out)
{
    str ignored;
    if (member_of(object, name))
        read_template(r, object, name, out);
    else
        need_text(r, object, name, &ignored); /* says that it is missing */
}

static void read_model(struct definition_reader *r, const struct json *model, struct step *step)
{
    if (!read_object(r, model,
                     MEMBERS("prompt", "model", "system", "response_format", "max_output_tokens")))
        return;
    read_text(r, model, "model", &step->model.model);
    read_template(r, model, "system", &step->model.system);
    need_template(r, model, "prompt", &step->input);
    read_json_text(r, model, "response_format", &step->model.response_format);
    read_count(r, model, "max_output_tokens", 1, INT32_MAX, &step->model.max_output_tokens);
}

static void read_agent(struct definition_reader *r, const struct json *agent, struct step *step)
{
    step->agent.budget = COST_LIMITLESS;
    if (!read_object(r, agent, MEMBERS("name", "prompt", "budget")))
        return;
    need_name(r, agent, "name", &step->agent.name);
    need_template(r, agent, "prompt", &step->input);
    read_budget(r, agent, "budget", &step->agent.budget);
}

static void read_texts(struct definition_reader *r, const struct json *object, const char *name)
{
    const struct json *list = member_of(object, name), *item;
    struct json_iter it = json_iter(list);
    str text;
    size_t mark = path_enter(r, str_from_cstr(name));
    bool ok = !list || json_type(list) == JSON_ARRAY;
    while (ok && list && json_next(&it, NULL, &item))
        ok = json_to_str(item, &text) && text.len > 0;
    if (!ok)
        definition_problem(r, list, "must be a list of names");
    path_leave(r, mark);
}

static void read_approvers(struct definition_reader *r, const struct json *approval, str *out)
{
    const struct json *approvers = member_of(approval, "approvers");
    if (!approvers)
        return;
    size_t mark = path_enter(r, S("approvers"));
    if (read_object(r, approvers, MEMBERS("users", "roles"))) {
        read_texts(r, approvers, "users");
        read_texts(r, approvers, "roles");
        *out = json_print(r->arena, approvers);
    }
    path_leave(r, mark);
}

static void read_approval(struct definition_reader *r, const struct json *approval,
                          struct step *step)
{
    int64_t quorum = 1;
    if (read_object(r, approval,
                    MEMBERS("title", "show", "quorum", "approvers", "expires", "remind"))) {
        need_template(r, approval, "title", &step->approval.title);
        read_template(r, approval, "show", &step->input);
        read_count(r, approval, "quorum", 1, WORKFLOW_QUORUM_MAX, &quorum);
        read_approvers(r, approval, &step->approval.approvers);
        read_duration(r, approval, "expires", 1000, &step->approval.expires_ms);
        read_duration(r, approval, "remind", 1000, &step->approval.remind_ms);
    }
    step->approval.quorum = (int) quorum;
}

static void read_signal(struct definition_reader *r, const struct json *signal, struct step *step)
{
    if (!read_object(r, signal, MEMBERS("name", "timeout")))
        return;
    need_name(r, signal, "name", &step->signal.name);
    read_duration(r, signal, "timeout", 1, &step->signal.timeout_ms);
}

static void read_workflow(struct definition_reader *r, const struct json *workflow,
                          struct step *step)
{
    step->workflow.budget = COST_LIMITLESS;
    if (!read_object(r, workflow, MEMBERS("name", "version", "input", "budget")))
        return;
    need_name(r, workflow, "name", &step->workflow.name);
    read_text(r, workflow, "version", &step->workflow.range);
    read_template(r, workflow, "input", &step->input);
    read_budget(r, workflow, "budget", &step->workflow.budget);
}

/* 5m, a time of day and date, or an expression that gives seconds or a time. */
static void read_sleep(struct definition_reader *r, const struct json *value, struct step *step)
{
    int64_t unix_us;
    str text;
    if (!json_to_str(value, &text))
        definition_problem(r, value,
                           "must be a duration (30s, 5m, 1h), a time or an expression in ${}");
    else if (str_find(text, S("${")) != STR_NOT_FOUND)
        parse_expression_at(r, value, text, &step->sleep.until);
    else if (time_parse(text, &unix_us))
        parse_expression_at(r, value, str_printf(r->arena, "'" STR_FMT "'", STR_ARG(text)),
                            &step->sleep.until);
    else
        (void) duration_at(r, value, text, 0, &step->sleep.ms);
}

/* ---- steps that hold steps ---- */

static void read_branch(struct definition_reader *r, const struct json *list, struct step *step)
{
    struct json_iter it = json_iter(list);
    const struct json *item;
    bool has_else = false;
    struct branch_arm *arms = ARENA_ARRAY(r->arena, struct branch_arm, json_count(list) + 1);
    if (json_type(list) != JSON_ARRAY || json_count(list) == 0) {
        definition_problem(r, list,
                           "must be a list of arms: [{when: ..., steps: [...]}, ..., "
                           "{steps: [...]}]");
        return;
    }
    for (; json_next(&it, NULL, &item); step->branch.count++) {
        size_t mark = path_enter_index(r, it.index - 1);
        struct branch_arm *arm = arms + step->branch.count;
        if (has_else)
            definition_problem(r, item,
                               "is never reached: the arm before it has no `when`; put "
                               "that one last");
        has_else = false;
        if (read_object(r, item, MEMBERS("when", "steps"))) {
            read_expression(r, item, "when", &arm->when);
            has_else = !member_of(item, "when");
            arm->steps =
                read_steps(r, item, "steps", (struct place){.outer = r->place}, (struct inner){0});
        }
        path_leave(r, mark);
    }
    step->branch.arms = arms;
    if (!has_else)
        definition_problem(r, list,
                           "has no else: end it with an arm without `when`, such as "
                           "{steps: []}");
}

static void read_map(struct definition_reader *r, const struct json *map, struct step *step)
{
    int64_t parallel = 8;
    str ignored;
    step->map.as = S("item");
    if (!read_object(r, map, MEMBERS("over", "as", "parallel", "tolerate", "steps", "output")))
        return;
    if (member_of(map, "over"))
        read_expression(r, map, "over", &step->map.over);
    else
        need_text(r, map, "over", &ignored);
    read_text(r, map, "as", &step->map.as);
    if (!is_identifier(step->map.as)) {
        definition_problem(r, map, "as: must be a name that begins with a letter");
        step->map.as = S("item");
    }
    read_count(r, map, "parallel", 1, WORKFLOW_PARALLEL_MAX, &parallel);
    read_count(r, map, "tolerate", 0, WORKFLOW_MAP_MAX, &step->map.tolerate);
    step->map.parallel = (int) parallel;
    step->map.steps =
        read_steps(r, map, "steps", (struct place){.outer = r->place, .item = step->map.as},
                   (struct inner){.output = &step->map.output});
}

static void read_loop(struct definition_reader *r, const struct json *loop, struct step *step)
{
    str ignored;
    step->loop.max = 1;
    if (!read_object(r, loop, MEMBERS("while", "max", "steps", "output")))
        return;
    struct place place = {.outer = r->place, .is_loop = true};
    if (!member_of(loop, "max"))
        need_text(r, loop, "max", &ignored);
    read_count(r, loop, "max", 1, WORKFLOW_LOOP_MAX, &step->loop.max);
    step->loop.steps =
        read_steps(r, loop, "steps", place, (struct inner){&step->loop.output, &step->loop.while_});
}

static void read_parallel(struct definition_reader *r, const struct json *object, struct step *step)
{
    struct json_iter it = json_iter(object);
    const struct json *item;
    str name;
    if (json_type(object) != JSON_OBJECT || json_count(object) == 0 ||
        json_count(object) > WORKFLOW_PARALLEL_MAX) {
        definition_problem(r, object, "must be a mapping of 1 to %d arms, {a: [steps], b: [steps]}",
                           WORKFLOW_PARALLEL_MAX);
        return;
    }
    struct parallel_arm *arms = ARENA_ARRAY(r->arena, struct parallel_arm, json_count(object));
    for (; json_next(&it, &name, &item); step->parallel.count++) {
        struct parallel_arm *arm = arms + step->parallel.count;
        arm->name = name;
        if (!is_identifier(name))
            definition_problem(r, item,
                               "\"" STR_FMT "\" is no name of an arm: letters, digits and _",
                               STR_ARG(str_cut_utf8(name, 60)));
        arm->steps = read_steps(r, object, str_to_cstr(r->arena, name),
                                (struct place){.outer = r->place}, (struct inner){0});
    }
    step->parallel.arms = arms;
}

/* ---- one step ---- */

static void read_kind(struct definition_reader *r, const struct json *object, struct step *step)
{
    const char *name = kind_names[step->kind];
    const struct json *value = member_of(object, name);
    if (step->kind == STEP_TOOL) {
        read_tool(r, object, step);
        return;
    }
    size_t mark = path_enter(r, str_from_cstr(name));
    switch (step->kind) {
    case STEP_MODEL: read_model(r, value, step); break;
    case STEP_AGENT: read_agent(r, value, step); break;
    case STEP_APPROVAL: read_approval(r, value, step); break;
    case STEP_BRANCH: read_branch(r, value, step); break;
    case STEP_MAP: read_map(r, value, step); break;
    case STEP_PARALLEL: read_parallel(r, value, step); break;
    case STEP_LOOP: read_loop(r, value, step); break;
    case STEP_SLEEP: read_sleep(r, value, step); break;
    case STEP_WAIT_SIGNAL: read_signal(r, value, step); break;
    case STEP_WORKFLOW: read_workflow(r, value, step); break;
    case STEP_TOOL:
    case STEP_KIND_COUNT: break;
    }
    path_leave(r, mark);
}

/* Exactly one member says what the step is. */
static bool find_kind(struct definition_reader *r, const struct json *object, struct step *step)
{
    size_t found = 0;
    for (size_t i = 0; i < STEP_KIND_COUNT; i++) {
        if (!member_of(object, kind_names[i]))
            continue;
        if (found++ == 0)
            step->kind = (enum step_kind) i;
        else
            definition_problem(r, object, "is both \"%s\" and \"%s\"; make two steps of it",
                               kind_names[step->kind], kind_names[i]);
    }
    if (found == 0)
        definition_problem(
            r, object,
            "does nothing; give it one of tool, model, agent, approval, branch, map, "
            "parallel, loop, sleep, wait_signal, workflow");
    return found > 0;
}

static void read_on_error(struct definition_reader *r, const struct json *object, struct step *step)
{
    str text = S("fail");
    read_text(r, object, "on_error", &text);
    step->continues_on_error = str_equal(text, S("continue"));
    if (!step->continues_on_error && !str_equal(text, S("fail"))) {
        size_t mark = path_enter(r, S("on_error"));
        definition_problem(r, member_of(object, "on_error"), "must be fail or continue");
        path_leave(r, mark);
    }
}

#define KIND_MEMBERS                                                                               \
    "tool", "model", "agent", "approval", "branch", "map", "parallel", "loop", "sleep",            \
        "wait_signal", "workflow"
#define TOOL_MEMBERS "version", "input", "idempotency_key"

/* `version: ^1` of a step that is no tool would be read by nobody. */
static void refuse_tool_members(struct definition_reader *r, const struct json *object,
                                const struct step *step)
{
    static const char *const names[] = {TOOL_MEMBERS};
    for (size_t i = 0; i < ARRAY_COUNT(names) && step->kind != STEP_TOOL; i++) {
        const struct json *value = member_of(object, names[i]);
        bool is_inside = step->kind == STEP_WORKFLOW && i < 2;
        if (!value)
            continue;
        size_t mark = path_enter(r, str_from_cstr(names[i]));
        definition_problem(r, value,
                           is_inside ? "belongs inside the mapping under \"workflow\""
                                     : "is only for tool steps");
        path_leave(r, mark);
    }
}

/* What has come is good; it is asked of steps that get something from outside. */
static void read_expect(struct definition_reader *r, const struct json *object, struct step *step)
{
    const struct place *outer = r->place;
    struct place inner = {.outer = outer, .has_output = true};
    if (!member_of(object, "expect"))
        return;
    if (step->kind == STEP_BRANCH || step->kind == STEP_MAP || step->kind == STEP_PARALLEL ||
        step->kind == STEP_LOOP || step->kind == STEP_SLEEP || step->kind == STEP_APPROVAL) {
        definition_problem(r, object,
                           "may have `expect` only when it is a tool, model, agent, workflow or "
                           "wait_signal step");
        return;
    }
    r->place = &inner;
    read_expression(r, object, "expect", &step->expect);
    r->place = outer;
}

static const struct step *read_compensation(struct definition_reader *r, const struct json *object,
                                            const struct step *of)
{
    const struct json *value = member_of(object, "compensate");
    const struct place *outer = r->place;
    if (!value)
        return NULL;
    struct step *step = ARENA_NEW(r->arena, struct step);
    struct place place = {.outer = outer, .ids = &of->id, .id_count = 1, .has_error = true};
    size_t mark = path_enter(r, S("compensate"));
    step->id = of->id;
    step->line = (uint32_t) yaml_line(&r->document, value);
    r->place = &place;
    if (json_type(value) != JSON_OBJECT) {
        definition_problem(r, value, "must be a step: {tool: ..., input: ...}");
    } else if (find_kind(r, value, step)) {
        if (step->kind != STEP_TOOL && step->kind != STEP_AGENT && step->kind != STEP_WORKFLOW)
            definition_problem(r, value,
                               "may be a tool, agent or workflow step, not %s; put the "
                               "rest into a workflow of its own",
                               kind_names[step->kind]);
        else if (read_object(r, value,
                             MEMBERS("tool", "agent", "workflow", TOOL_MEMBERS, "expect", "timeout",
                                     "retry"))) {
            read_kind(r, value, step);
            read_expect(r, value, step);
        }
        refuse_tool_members(r, value, step);
        read_duration(r, value, "timeout", 1, &step->timeout_ms);
        read_retry(r, value, &step->retry);
    }
    r->place = outer;
    path_leave(r, mark);
    return step;
}

static void read_step(struct definition_reader *r, const struct json *object, struct step *step)
{
    step->line = (uint32_t) yaml_line(&r->document, object);
    step->retry.attempts = 1;
    if (!read_object(r, object,
                     MEMBERS("id", KIND_MEMBERS, TOOL_MEMBERS, "when", "expect", "timeout", "retry",
                             "on_error", "compensate")))
        return;
    read_expression(r, object, "when", &step->when);
    read_duration(r, object, "timeout", 1, &step->timeout_ms);
    read_retry(r, object, &step->retry);
    read_on_error(r, object, step);
    if (find_kind(r, object, step))
        read_kind(r, object, step);
    read_expect(r, object, step);
    refuse_tool_members(r, object, step);
    step->compensate = read_compensation(r, object, step);
}

/* ---- lists ---- */

/* Its id; one that is missing or stands twice is a problem, and the step is known as nothing. */
static str read_id(struct definition_reader *r, const struct json *object, const str *ids,
                   size_t count)
{
    const struct json *value = member_of(object, "id");
    str id = STR_NONE;
    size_t mark = path_enter(r, S("id"));
    if (!value)
        definition_problem(r, object, "is missing; name the step, so that others can read it");
    else if (!json_to_str(value, &id) || !is_identifier(id))
        definition_problem(r, value,
                           "must be letters, digits and _, not beginning with a digit, at "
                           "most 64");
    for (size_t i = 0; i < count && id.len > 0; i++) {
        if (str_equal(ids[i], id)) {
            definition_problem(r, value,
                               "\"" STR_FMT "\" is the id of another step of this list; "
                               "name one of them otherwise",
                               STR_ARG(str_cut_utf8(id, 64)));
            break;
        }
    }
    path_leave(r, mark);
    return is_identifier(id) ? id : STR_NONE;
}

/* Ids of the whole list, for telling "too late" from "nowhere". */
static str *collect_ids(struct definition_reader *r, const struct json *list)
{
    str *ids = ARENA_ARRAY(r->arena, str, json_count(list) + 1);
    struct json_iter it = json_iter(list);
    const struct json *item;
    for (size_t i = 0; json_next(&it, NULL, &item); i++)
        ids[i] = json_str_or(item, S("id"), STR_NONE);
    return ids;
}

static struct step_list read_items(struct definition_reader *r, const struct json *list,
                                   struct place *place)
{
    size_t count = json_count(list);
    struct json_iter it = json_iter(list);
    const struct json *item;
    const struct step **items = ARENA_ARRAY(r->arena, const struct step *, count + 1);
    str *ids = ARENA_ARRAY(r->arena, str, count + 1);
    const str *all = collect_ids(r, list);
    place->ids = ids;
    for (size_t i = 0; json_next(&it, NULL, &item); i++) {
        struct step *step = ARENA_NEW(r->arena, struct step);
        size_t mark = path_enter_index(r, i);
        place->later = all + i;
        place->later_count = count - i;
        items[i] = step;
        if (json_type(item) == JSON_OBJECT)
            step->id = read_id(r, item, ids, place->id_count);
        read_step(r, item, step);
        ids[place->id_count++] = step->id;
        path_leave(r, mark);
    }
    place->later_count = 0;
    return (struct step_list){items, count};
}

/* False: it was not read, and so nothing that reads its steps can be looked at. */
static bool read_list(struct definition_reader *r, const struct json *list, struct place *place,
                      struct step_list *out)
{
    size_t before = r->step_count;
    if (json_type(list) != JSON_ARRAY) {
        definition_problem(r, list, "must be a list of steps, not %s",
                           json_type_name(json_type(list)));
        return false;
    }
    if (r->depth == WORKFLOW_DEPTH_MAX) {
        definition_problem(r, list, "lists of steps are nested deeper than %u; use a workflow step",
                           WORKFLOW_DEPTH_MAX);
        return false;
    }
    r->step_count += json_count(list);
    if (r->step_count > WORKFLOW_STEPS_MAX) {
        if (before <= WORKFLOW_STEPS_MAX) /* told once */
            definition_problem(r, list, "more than %u steps in all; use workflow steps",
                               WORKFLOW_STEPS_MAX);
        return false;
    }
    r->depth++;
    *out = read_items(r, list, place);
    r->depth--;
    return true;
}

struct step_list read_steps(struct definition_reader *r, const struct json *object,
                            const char *name, struct place place, struct inner inner)
{
    const struct json *list = member_of(object, name);
    const struct place *outer = r->place;
    struct step_list steps = {0};
    if (!list) {
        member_missing(r, object, name);
        return steps;
    }
    size_t mark = path_enter(r, str_from_cstr(name));
    r->place = &place;
    bool is_read = read_list(r, list, &place, &steps);
    path_leave(r, mark);
    if (is_read && inner.output)
        read_template(r, object, "output", inner.output);
    if (is_read && inner.while_)
        read_expression(r, object, "while", inner.while_);
    r->place = outer;
    return steps;
}

const struct step *step_list_find(struct step_list list, str id)
{
    for (size_t i = 0; i < list.count; i++) {
        if (str_equal(list.items[i]->id, id))
            return list.items[i];
    }
    return NULL;
}
