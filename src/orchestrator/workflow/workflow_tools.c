/* Tool steps: the machinery of a model's tool calls, one call to a step, so that steps go on independently of each other. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/workflow_internal.h"

static struct workflow_node *node_of_call(const struct run *run, const struct call *call)
{
    const struct workflow_state *state = run->state.workflow;
    for (size_t i = 0; i < state->open_count; i++)
        if (state->open[i]->call == call)
            return state->open[i];
    return NULL;
}

static const struct step *step_of(struct workflow_instance *w, struct workflow_node *node)
{
    if (!node->step && w->definition)
        node->step = workflow_step_of(w->definition, node);
    return node->step;
}

/* ---- what run_tools.c asks ---- */

str workflow_arguments(const struct run *run, const struct call *call)
{
    struct workflow_node *node = node_of_call(run, call);
    return node && !str_is_empty(node->arguments) ? node->arguments : S("{}");
}

const struct tool *workflow_find_tool(struct run *run, const struct call *call)
{
    struct workflow_node *node = node_of_call(run, call);
    const struct step *step = node ? step_of(run->workflow, node) : NULL;
    str range = STR_NONE, own = step && step->kind == STEP_TOOL ? step->tool.range : STR_NONE;
    const struct agent_tool *entry = agent_find_tool(run->agent, call->name, &range);
    struct registry_question question = {
        .tenant_id = run->tenant_id,
        .name = call->name,
        .range = str_is_empty(own) ? range : own,
        .canary_key = run->session_id,
    };
    const struct tool *tool = entry ? registry_resolve(run->tools, &question) : NULL;
    if (!tool || (!str_is_empty(range) && !semver_satisfies(tool->version, range)))
        return NULL;
    return registry_effective(run->tools, run->turn, tool, run->tenant_id, entry->permissions);
}

/* The same for every attempt of the step, whatever becomes of this process; the definition's own word goes as it is. */
str workflow_effect_key(struct run *run, const struct planned *p)
{
    struct workflow_node *node = node_of_call(run, p->call);
    if (!node)
        return STR_NONE;
    if (!str_is_empty(node->key))
        return str_copy(run->arena, node->key);
    str content = str_printf(run->turn, STR_FMT "|" STR_FMT "|" STR_FMT "|" STR_FMT,
                             STR_ARG(uuid_str(run->turn, run->run_id)), STR_ARG(node->path),
                             STR_ARG(p->tool->name), STR_ARG(p->arguments));
    return digest_hex(run->arena, digest_sha256(content));
}

/* ---- the view: what the input was made of ---- */

static struct context_item item_of(struct run *run, str id, str source, struct label label,
                                   const struct json *value)
{
    struct context_item item = {.id = id, .source = source, .label = label, .is_made = true};
    if (!value)
        return item;
    str *text = ARENA_NEW(run->turn, str);
    *text = json_print(run->turn, value);
    item.texts = text;
    item.text_count = 1;
    return item;
}

static void set_view(struct workflow_instance *w, struct planned *p,
                     const struct workflow_evaluation *evaluation)
{
    struct run *run = w->run;
    struct context_item *items =
        ARENA_ARRAY(run->turn, struct context_item, evaluation->read_count + 2);
    struct context_view *view = ARENA_NEW(run->turn, struct context_view);
    bool is_plain = !evaluation->label.is_untrusted; /* then nobody looks at the words */
    size_t count = 0;
    items[count] = item_of(run, S("input"), S("input of the workflow"), w->input_label,
                           is_plain ? NULL : w->input);
    items[count++].is_made = false;
    for (size_t i = 0; i < evaluation->read_count; i++) {
        const struct workflow_node *node = evaluation->read[i];
        items[count++] = item_of(run, node->path, node->call ? node->call->name : node->path,
                                 node->label, is_plain ? NULL : node->value);
    }
    if (!label_covers(w->input_label, evaluation->label) && evaluation->read_count == 0)
        items[count++] = item_of(run, S("item"), S("an item of a map"), evaluation->label, NULL);
    *view = (struct context_view){items, count};
    p->view = view;
}

/* ---- work ---- */

static struct workflow_work *work_add(struct workflow_instance *w, struct workflow_node *node)
{
    struct run *run = w->run;
    struct workflow_work *work = ARENA_NEW(run->turn, struct workflow_work);
    *work = (struct workflow_work){.instance = w, .node = node};
    condition_init(&work->step.changed);
    condition_init(&work->step.decided);
    work->planned = (struct planned){.run = run, .step = &work->step, .call = node->call};
    work->step.items[work->step.count++] = &work->planned;
    node->work = work;
    if (w->work_count == w->work_capacity) {
        size_t capacity = w->work_capacity ? w->work_capacity * 2 : 16;
        w->works = arena_grow(run->turn, w->works, w->work_capacity * sizeof *w->works,
                              capacity * sizeof *w->works);
        w->work_capacity = capacity;
    }
    w->works[w->work_count++] = work;
    return work;
}

static void work_remove(struct workflow_instance *w, size_t index)
{
    struct workflow_work *work = w->works[index];
    work->node->work = NULL;
    memmove(&w->works[index], &w->works[index + 1], (w->work_count - index - 1) * sizeof *w->works);
    w->work_count--;
}

/* ---- beginning ---- */

static bool fill_arguments(struct workflow_instance *w, struct workflow_lane *lane,
                           const struct step *step, struct workflow_evaluation *evaluation,
                           str *out, struct error *e)
{
    const struct json *tree = NULL;
    *out = S("{}");
    if (!step->input)
        return true;
    if (!workflow_fill(w, lane, step->input, evaluation, &tree, e))
        return error_wrap(e, "input");
    if (json_type(tree) != JSON_OBJECT)
        return error_set(e, REASON_SCHEMA, "the input of a tool is an object, not %s",
                         json_type_name(json_type(tree)));
    *out = str_copy(w->run->arena, json_print(w->run->turn, tree));
    return true;
}

static bool fill_key(struct workflow_instance *w, struct workflow_lane *lane,
                     const struct step *step, str *out, struct error *e)
{
    const struct json *tree;
    str text;
    *out = STR_NONE;
    if (!step->idempotency_key)
        return true;
    if (!workflow_fill(w, lane, step->idempotency_key, NULL, &tree, e))
        return error_wrap(e, "idempotency_key");
    if (!json_to_str(tree, &text))
        text = json_print(w->run->turn, tree);
    if (str_is_empty(text) || text.len > WORKFLOW_KEY_BYTES_MAX)
        return error_set(e, REASON_SCHEMA, "an idempotency_key has 1 to %u bytes",
                         WORKFLOW_KEY_BYTES_MAX);
    for (size_t i = 0; i < text.len; i++)
        if (text.ptr[i] < ' ' || text.ptr[i] > '~')
            return error_set(e, REASON_SCHEMA, "an idempotency_key is printable ASCII");
    *out = text;
    return true;
}

/* Decided at once: refused, or an approval is asked for, or its intent stands in the batch. */
static void after_plan(struct workflow_instance *w, struct workflow_work *work)
{
    struct planned *p = &work->planned;
    if (!p->is_done)
        return;
    struct workflow_node *node = work->node;
    for (size_t i = w->work_count; i > 0; i--)
        if (w->works[i - 1] == work)
            work_remove(w, i - 1);
    if (node->call->state == CALL_DONE)
        workflow_attempt_failed(w, node, &p->failure, p->failure.code != ERROR_DENIED);
}

bool workflow_tool_begin(struct workflow_instance *w, struct workflow_lane *lane,
                         const struct step *step, str path, int attempt, struct error *e)
{
    struct run *run = w->run;
    struct workflow_evaluation evaluation = {0};
    str arguments, key;
    if (!fill_arguments(w, lane, step, &evaluation, &arguments, e) ||
        !fill_key(w, lane, step, &key, e))
        return false;
    uuid call_id = uuid_derive(run->run_id, workflow_attempt_place(run->turn, path, attempt));
    struct json_writer *out = workflow_started(w, STEP_TOOL, path, attempt, step->timeout_ms);
    json_put_str(out, S("tool_call_id"), uuid_str(run->turn, call_id));
    json_put_str(out, S("name"), step->tool.name);
    if (!str_is_empty(key))
        json_put_str(out, S("key"), key);
    journal_close_event(&run->journal);
    struct workflow_node *node = workflow_state_find(w->state, path);
    if (!node || !node->call)
        return true; /* the journal's own failure tells */
    node->step = step;
    node->arguments = arguments;
    struct workflow_work *work = work_add(w, node);
    set_view(w, &work->planned, &evaluation);
    run_tools_plan(&work->planned);
    journal_close_event(&run->journal);
    after_plan(w, work);
    return true;
}

/* ---- after an approval, after a load ---- */

static bool restore(struct workflow_instance *w, struct workflow_node *node,
                    struct workflow_evaluation *evaluation, struct error *e)
{
    const struct step *step = step_of(w, node);
    if (!step || !str_is_empty(node->arguments))
        return true;
    return fill_arguments(w, node->lane, step, evaluation, &node->arguments, e);
}

bool workflow_tool_approved(struct workflow_instance *w, struct workflow_node *node,
                            struct error *e)
{
    struct workflow_evaluation evaluation = {0};
    node->arguments = STR_NONE; /* what was read has its labels again */
    if (!restore(w, node, &evaluation, e))
        return false;
    struct workflow_work *work = work_add(w, node);
    set_view(w, &work->planned, &evaluation);
    run_tools_plan(&work->planned);
    journal_close_event(&w->run->journal);
    after_plan(w, work);
    return true;
}

static bool recover_nested(struct workflow_instance *w, struct workflow_work *work, struct error *e)
{
    struct run_state *state = &w->run->state;
    for (size_t i = state->nested_count; i > 0; i--) {
        struct call *call = state->nested[i - 1];
        bool is_again;
        if (call->parent != work->node->call || call->state != CALL_INTENDED)
            continue;
        struct planned *p = ARENA_NEW(w->run->turn, struct planned);
        *p = (struct planned){.run = w->run, .step = &work->step, .call = call};
        if (!run_tools_resume(p, &is_again, e))
            return false;
        journal_close_event(&w->run->journal);
    }
    return true;
}

bool workflow_tool_recover(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct workflow_evaluation evaluation = {0};
    bool is_again;
    if (!restore(w, node, &evaluation, e))
        return false;
    if (node->call->state == CALL_AWAITING)
        return true;
    if (node->call->state == CALL_APPROVED || node->call->state == CALL_REQUESTED)
        return workflow_tool_approved(w, node, e);
    if (node->call->state != CALL_INTENDED)
        return true;
    if (!step_of(w, node)) /* without its definition nobody knows what it was given */
        node->call->has_nested_effects = true;
    struct workflow_work *work = work_add(w, node);
    set_view(w, &work->planned, &evaluation);
    if (!recover_nested(w, work, e) || !run_tools_resume(&work->planned, &is_again, e))
        return false;
    journal_close_event(&w->run->journal);
    if (is_again)
        return true;
    struct error why = work->planned.failure;
    work_remove(w, w->work_count - 1);
    bool is_unknown = str_equal(node->call->status, S("unknown"));
    if (is_unknown)
        why.reason = REASON_OUTCOME_UNKNOWN;
    workflow_attempt_failed(w, node, &why, !is_unknown || FAULT("plant.double-compensation"));
    return true;
}

/* ---- at work ---- */

static void run_work(struct context *ctx, void *argument)
{
    struct workflow_work *work = argument;
    struct run *run = work->instance->run;
    struct context own;
    int64_t deadline_ns = DEADLINE_NONE;
    if (work->node->timeout_us > 0)
        deadline_ns = context_now_ns(ctx) +
                      (work->node->timeout_us - clock_unix_us(run->o->parts.clock)) * 1000;
    context_init_child(&own, ctx, deadline_ns);
    work->ctx = &own;
    if (work->is_stopped)
        context_cancel(&own);
    run_tools_execute(&work->planned, &own);
    work->ctx = NULL;
    context_deinit(&own);
    condition_broadcast(&run->woken);
}

void workflow_tools_start(struct workflow_instance *w)
{
    for (size_t i = 0; i < w->work_count; i++) {
        struct workflow_work *work = w->works[i];
        if (work->is_live)
            continue;
        work->is_live = true;
        work->planned.is_running = true;
        if (group_start(&w->group, "step", run_work, work, &work->planned.failure))
            continue;
        work->planned.is_running = false;
        work->planned.is_done = true;
    }
    for (size_t i = 0; i < w->work_count; i++)
        run_nested_release(&w->works[i]->step);
}

bool workflow_tools_have_news(const struct workflow_instance *w)
{
    for (size_t i = 0; i < w->work_count; i++)
        if (w->works[i]->planned.is_done || run_nested_is_asked(&w->works[i]->step))
            return true;
    return false;
}

bool workflow_tools_may_precede(const struct workflow_instance *w)
{
    for (size_t i = 0; i < w->work_count; i++)
        if (!run_tools_may_precede(&w->works[i]->planned))
            return false;
    return w->work_count > 0;
}

bool workflow_may_repeat(const struct run *run, const struct call *call)
{
    struct workflow_node *node = node_of_call(run, call);
    return node && !str_is_empty(node->key);
}

/* May it have happened although it failed?  Then only what is idempotent, by the tool's word or the definition's, is tried again. */
static bool may_try_again(const struct planned *p, str status)
{
    if (FAULT(
            "plant.double-compensation")) /* a bug put in on purpose: it repeats what may have happened */
        return true;
    if (p->failure.code != ERROR_DENIED && workflow_may_repeat(p->run, p->call))
        return true;
    if (p->failure.code == ERROR_DENIED)
        return false;
    if (!str_equal(status, S("unknown")))
        return true;
    return p->tool && (p->tool->is_pure || p->tool->is_idempotent);
}

static bool settle_work(struct workflow_instance *w, struct workflow_work *work, struct error *e)
{
    struct workflow_node *node = work->node;
    struct planned *p = &work->planned;
    run_tools_settle(&work->step);
    journal_close_event(&w->run->journal);
    if (node->call->state != CALL_DONE)
        return true; /* the journal's own failure tells */
    node->label = p->label;
    if (p->failure.code == ERROR_OK) {
        struct error too_large = {0};
        bool is_kept = workflow_keep(w, p->result.output, &node->value, &too_large);
        if (is_kept && workflow_is_expected(w, node, node->value, &too_large)) {
            workflow_node_completed(w, node, STR_NONE);
            return true;
        }
        node->value = NULL;
        workflow_attempt_failed(w, node, &too_large, is_kept);
        return true;
    }
    struct error why = p->failure;
    bool may_retry = may_try_again(p, node->call->status);
    if (!may_retry && str_equal(node->call->status, S("unknown")))
        why.reason = REASON_OUTCOME_UNKNOWN;
    if (work->is_stopped && !node->is_stopping)
        may_retry = false;
    (void) e;
    workflow_attempt_failed(w, node, &why, may_retry);
    return true;
}

bool workflow_tools_settle(struct workflow_instance *w, struct error *e)
{
    for (size_t i = 0; i < w->work_count && w->run->journal.batch.count < WORKFLOW_BATCH_ROWS;) {
        struct workflow_work *work = w->works[i];
        run_nested_plan(&work->step);
        run_tools_settle(&work->step); /* a guest's calls, and itself when it is done */
        if (!work->planned.is_done) {
            i++;
            continue;
        }
        if (!settle_work(w, work, e))
            return false;
        work_remove(w, i);
    }
    journal_close_event(&w->run->journal);
    return true;
}

/* ---- stopping ---- */

bool workflow_tool_stop(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct workflow_work *work = node->work;
    if (work) {
        if (!work->is_stopped && work->ctx)
            context_cancel(work->ctx);
        work->is_stopped = true;
        return true; /* its end comes */
    }
    if (node->call && node->call->state != CALL_DONE &&
        !run_tools_abandon_call(w->run, node->call, e))
        return false;
    journal_close_event(&w->run->journal);
    workflow_node_stopped(w, node);
    return true;
}
