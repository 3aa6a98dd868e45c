/* What expressions of a workflow see, and what steps have given. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/workflow_internal.h"

enum { SCOPE_VALUES_MAX = 1 << 20 };

struct sight {
    struct workflow_instance *w;
    struct workflow_lane *lane;
    struct workflow_evaluation *evaluation;
    const struct json *output; /* of the step that asks whether it is good */
    struct workflow_node **seen;
    size_t seen_count, seen_capacity;
    struct error *e;
    bool is_broken;
};

bool workflow_keep(struct workflow_instance *w, str text, const struct json **out, struct error *e)
{
    if (text.len > WORKFLOW_OUTPUT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the output is over %u bytes",
                         WORKFLOW_OUTPUT_BYTES_MAX);
    if (arena_bytes_left(w->run->arena) < 8 * text.len)
        return error_set(e, REASON_LIMIT,
                         "the outputs of this instance are over %u bytes in memory; let steps give "
                         "less, or put large data into files",
                         RUN_ARENA_BYTES_MAX);
    return json_parse(w->run->arena, text, (struct json_limits){0}, out, e);
}

/* What was computed on the turn arena, for as long as the run is in memory. */
static const struct json *keep_tree(struct workflow_instance *w, const struct json *tree)
{
    const struct json *kept = NULL;
    struct error e = {0};
    return workflow_keep(w, json_print(w->run->turn, tree), &kept, &e) ? kept : NULL;
}

/* ---- finding steps ---- */

static struct workflow_node *find_in(const struct workflow_lane *lane, str id)
{
    for (size_t i = lane->count; i > 0; i--)
        if (str_equal(lane->nodes[i - 1]->id, id))
            return lane->nodes[i - 1];
    return NULL;
}

static struct workflow_node *find_visible(const struct workflow_lane *lane, str id)
{
    for (; lane; lane = lane->owner ? lane->owner->lane : NULL) {
        struct workflow_node *node = find_in(lane, id);
        if (node)
            return node;
    }
    return NULL;
}

/* The nearest lane around of a step of this kind. */
static const struct workflow_lane *lane_of_kind(const struct workflow_lane *lane,
                                                enum step_kind kind)
{
    for (; lane && lane->owner; lane = lane->owner->lane)
        if (lane->owner->kind == kind)
            return lane;
    return NULL;
}

/* ---- what steps gave ---- */

static const struct json *make_null(struct workflow_instance *w)
{
    struct json_builder b;
    json_builder_init(&b, w->run->arena, 2);
    json_build_null(&b);
    return json_build_finish(&b);
}

static bool value_of_call(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct run *run = w->run;
    struct record key = record_of(TABLE_TOOL_CALLS), row;
    record_set_uuid(&key, TOOL_CALLS_ID, node->call->id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, &row, e))
        return error_wrap(e, "output of step \"" STR_FMT "\"", STR_ARG(node->path));
    node->label = label_read_text(run->turn, record_text(&row, TOOL_CALLS_LABEL), LABEL_TOOL);
    str output = record_text(&row, TOOL_CALLS_OUTPUT);
    return workflow_keep(w, str_is_empty(output) ? S("null") : output, &node->value, e);
}

static const struct json *answer_tree(struct workflow_instance *w, str content,
                                      const struct json *output)
{
    struct json_builder b;
    const struct json *parsed = NULL;
    if (!output && str_starts_with(str_trim(content), S("{")))
        (void) !json_parse(w->run->arena, content, (struct json_limits){0}, &parsed, NULL);
    json_builder_init(&b, w->run->arena, SCOPE_VALUES_MAX);
    json_build_object_begin(&b);
    json_build_key(&b, S("text"));
    json_build_str(&b, str_copy(w->run->arena, content));
    if (parsed) {
        json_build_key(&b, S("json"));
        json_build_value(&b, parsed);
    }
    json_build_object_end(&b);
    return json_build_finish(&b);
}

/* A model's or agent's answer is {text, json?}; a workflow's is its output. */
static bool value_of_child(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct run *run = w->run;
    struct record key = record_of(TABLE_MESSAGES), row;
    const struct json *parts = NULL, *metadata = NULL;
    record_set_uuid(&key, MESSAGES_ID, node->child_message);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, &row, e))
        return error_wrap(e, "answer of step \"" STR_FMT "\"", STR_ARG(node->path));
    if (record_has(&row, MESSAGES_PARTS) &&
        !json_parse(run->arena, record_text(&row, MESSAGES_PARTS), (struct json_limits){0}, &parts,
                    e))
        return false;
    bool has_label = record_has(&row, MESSAGES_METADATA) &&
                     json_parse(run->turn, record_text(&row, MESSAGES_METADATA),
                                (struct json_limits){0}, &metadata, NULL) &&
                     json_get(metadata, S("label"));
    node->label =
        has_label ? label_read_json(json_get(metadata, S("label"))) : label_unknown(LABEL_AGENT);
    node->label.origins |= LABEL_AGENT;
    const struct json *output = json_get(parts, S("output"));
    node->value = node->kind == STEP_WORKFLOW && output
                      ? output
                      : answer_tree(w, record_text(&row, MESSAGES_CONTENT), output);
    return node->value || error_set(e, REASON_TOO_LARGE, "the answer is too large");
}

/* ---- steps that hold others ---- */

static bool value_of_lane(struct workflow_instance *w, struct workflow_lane *lane,
                          const struct template *output, struct label *label,
                          const struct json **out, struct error *e)
{
    struct workflow_evaluation evaluation = {0};
    if (output) {
        if (!workflow_fill(w, lane, output, &evaluation, out, e))
            return false;
        *out = keep_tree(w, *out);
        if (!*out)
            return error_set(e, REASON_TOO_LARGE, "the output is over %u bytes",
                             WORKFLOW_OUTPUT_BYTES_MAX);
        *label = label_join(*label, evaluation.label);
        return true;
    }
    struct workflow_node *last = lane && lane->count > 0 ? lane->nodes[lane->count - 1] : NULL;
    if (!last) {
        *out = make_null(w);
        return true;
    }
    if (!workflow_value(w, last, out, e))
        return false;
    *label = label_join(*label, last->label);
    return true;
}

static bool value_of_map(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct json_builder b;
    json_builder_init(&b, w->run->arena, SCOPE_VALUES_MAX);
    json_build_array_begin(&b);
    for (size_t i = 0; i < (size_t) node->count; i++) {
        const struct json *item = NULL;
        struct workflow_lane *lane = i < node->lane_count ? node->lanes[i] : NULL;
        struct workflow_node *last = lane && lane->count > 0 ? lane->nodes[lane->count - 1] : NULL;
        bool is_failed = last && last->status == STEP_FAILED && !last->continues;
        if (is_failed || !lane)
            item = NULL; /* tolerated: null */
        else if (!value_of_lane(w, lane, node->step->map.output, &node->label, &item, e))
            return error_wrap(e, "output of item %zu", i);
        json_build_value(&b, item);
    }
    json_build_array_end(&b);
    node->value = json_build_finish(&b);
    return node->value || error_set(e, REASON_TOO_LARGE, "the list of outputs is too large");
}

static bool value_of_parallel(struct workflow_instance *w, struct workflow_node *node,
                              struct error *e)
{
    struct json_builder b;
    json_builder_init(&b, w->run->arena, SCOPE_VALUES_MAX);
    json_build_object_begin(&b);
    for (size_t i = 0; i < node->lane_count; i++) {
        const struct json *item = NULL;
        if (!value_of_lane(w, node->lanes[i], NULL, &node->label, &item, e))
            return false;
        json_build_key(&b, node->lanes[i]->name);
        json_build_value(&b, item);
    }
    json_build_object_end(&b);
    node->value = json_build_finish(&b);
    return node->value || error_set(e, REASON_TOO_LARGE, "the outputs are too large");
}

static bool value_of_holder(struct workflow_instance *w, struct workflow_node *node,
                            struct error *e)
{
    node->label = (struct label){0};
    if (node->kind == STEP_MAP)
        return value_of_map(w, node, e);
    if (node->kind == STEP_PARALLEL)
        return value_of_parallel(w, node, e);
    struct workflow_lane *last = node->lane_count > 0 ? node->lanes[node->lane_count - 1] : NULL;
    return value_of_lane(w, last, node->kind == STEP_LOOP && last ? node->step->loop.output : NULL,
                         &node->label, &node->value, e);
}

bool workflow_value(struct workflow_instance *w, struct workflow_node *node,
                    const struct json **out, struct error *e)
{
    bool ok = true;
    if (!node->step) /* after a load nobody has walked over what was completed before */
        node->step = workflow_step_of(w->definition, node);
    if (!node->step)
        return error_set(e, REASON_CORRUPT, "step \"" STR_FMT "\" is not in the definition",
                         STR_ARG(node->path));
    if (!node->value && node->status != STEP_COMPLETED)
        node->value = make_null(w);
    else if (!node->value && !step_kind_is_leaf(node->kind))
        ok = value_of_holder(w, node, e);
    else if (!node->value && node->call)
        ok = value_of_call(w, node, e);
    else if (!node->value && !uuid_is_none(node->child_message))
        ok = value_of_child(w, node, e);
    else if (!node->value && !str_is_empty(node->output)) {
        node->label = str_is_empty(node->output_label)
                          ? (struct label){.origins = LABEL_USER}
                          : label_read_text(w->run->turn, node->output_label, LABEL_WEB);
        ok = workflow_keep(w, node->output, &node->value, e);
    } else if (!node->value)
        node->value = make_null(w);
    if (ok)
        *out = node->value;
    return ok;
}

/* ---- the scope ---- */

static void note_read(struct sight *s, struct workflow_node *node)
{
    struct workflow_evaluation *evaluation = s->evaluation;
    if (!evaluation)
        return;
    evaluation->label = label_join(evaluation->label, node->label);
    if (evaluation->read_count == evaluation->read_capacity) {
        size_t capacity = evaluation->read_capacity ? evaluation->read_capacity * 2 : 4;
        evaluation->read = arena_grow(s->w->run->turn, evaluation->read,
                                      evaluation->read_capacity * sizeof *evaluation->read,
                                      capacity * sizeof *evaluation->read);
        evaluation->read_capacity = capacity;
    }
    evaluation->read[evaluation->read_count++] = node;
}

static void build_error(struct json_builder *b, str error, str message)
{
    if (str_is_empty(error)) {
        json_build_null(b);
        return;
    }
    json_build_object_begin(b);
    json_build_key(b, S("type"));
    json_build_str(b, error);
    json_build_key(b, S("message"));
    json_build_str(b, message);
    json_build_object_end(b);
}

static bool is_seen(struct sight *s, struct workflow_node *node)
{
    for (size_t i = 0; i < s->seen_count; i++)
        if (s->seen[i] == node)
            return true;
    if (s->seen_count == s->seen_capacity) {
        size_t capacity = s->seen_capacity ? s->seen_capacity * 2 : 4;
        s->seen = arena_grow(s->w->run->turn, s->seen, s->seen_capacity * sizeof *s->seen,
                             capacity * sizeof *s->seen);
        s->seen_capacity = capacity;
    }
    s->seen[s->seen_count++] = node;
    return false;
}

static void visit_step(void *owner, str id)
{
    struct sight *s = owner;
    const struct json *value;
    struct workflow_node *node = find_visible(s->lane, id);
    if (!node || s->is_broken || node->status == STEP_RUNNING || node->status == STEP_RETRYING ||
        is_seen(s, node))
        return;
    if (!workflow_value(s->w, node, &value, s->e)) {
        s->is_broken = true;
        return;
    }
    note_read(s, node);
}

/* {output, status, error} of a step that has ended; visit_step has its output. */
static const struct json *find_step(void *owner, str id)
{
    struct sight *s = owner;
    struct json_builder b;
    struct workflow_node *node = find_visible(s->lane, id);
    if (!node || node->status == STEP_RUNNING || node->status == STEP_RETRYING)
        return NULL;
    json_builder_init(&b, s->w->run->turn, SCOPE_VALUES_MAX);
    json_build_object_begin(&b);
    json_build_key(&b, S("output"));
    json_build_value(&b, node->value);
    json_build_key(&b, S("status"));
    json_build_str(&b, str_from_cstr(step_status_name(node->status)));
    json_build_key(&b, S("error"));
    build_error(&b, node->error, node->message);
    json_build_object_end(&b);
    return json_build_finish(&b);
}

static const struct json *index_tree(struct sight *s, int64_t index)
{
    struct json_builder b;
    json_builder_init(&b, s->w->run->turn, 1);
    json_build_i64(&b, index);
    return json_build_finish(&b);
}

/*
 * What each round of the loop gave, the first one first: the output of a round may read that of the round before, which is there by then.
 * Kept with the round, so in a running instance only the newest is computed.
 */
static bool need_rounds(struct sight *s, const struct workflow_lane *here)
{
    struct workflow_node *loop = here->owner;
    if (!loop->step)
        loop->step = workflow_step_of(s->w->definition, loop);
    if (!loop->step || loop->step->kind != STEP_LOOP)
        return error_set(s->e, REASON_CORRUPT, "step \"" STR_FMT "\" is no loop",
                         STR_ARG(loop->path));
    for (int64_t i = 0; i < here->number; i++) {
        struct workflow_lane *round = loop->lanes[i];
        if (!round->value && !value_of_lane(s->w, round, loop->step->loop.output, &round->label,
                                            &round->value, s->e))
            return error_wrap(s->e, "output of round %lld", (long long) i);
    }
    if (here->number > 0 && s->evaluation)
        s->evaluation->label =
            label_join(s->evaluation->label, loop->lanes[here->number - 1]->label);
    return true;
}

static bool is_item(const struct workflow_lane *lane, str name)
{
    for (; lane && lane->owner; lane = lane->owner->lane)
        if (lane->owner->kind == STEP_MAP && lane->owner->step &&
            str_equal(lane->owner->step->map.as, name))
            return true;
    return false;
}

static bool need_session(struct sight *s)
{
    if (!s->w->session && !workflow_session_load(s->w, s->e))
        return false;
    if (s->evaluation)
        s->evaluation->label = label_join(s->evaluation->label, s->w->session_label);
    return true;
}

static void visit_variable(void *owner, str name)
{
    struct sight *s = owner;
    if (!s->is_broken && str_equal(name, S("session")) && !is_item(s->lane, name))
        s->is_broken = !need_session(s);
    const struct workflow_lane *loop = lane_of_kind(s->lane, STEP_LOOP);
    if (loop && !s->is_broken && str_equal(name, S("loop")))
        s->is_broken = !need_rounds(s, loop);
}

/* {index, last}: visit_variable has computed what `last` is. */
static const struct json *loop_tree(struct sight *s, const struct workflow_lane *loop)
{
    struct json_builder b;
    json_builder_init(&b, s->w->run->turn, SCOPE_VALUES_MAX);
    json_build_object_begin(&b);
    json_build_key(&b, S("index"));
    json_build_i64(&b, loop->number);
    json_build_key(&b, S("last"));
    json_build_value(&b, loop->number > 0 ? loop->owner->lanes[loop->number - 1]->value : NULL);
    json_build_object_end(&b);
    return json_build_finish(&b);
}

static const struct json *item_of(const struct workflow_lane *lane)
{
    return lane->owner->items ? json_at(lane->owner->items, (size_t) lane->number) : NULL;
}

/* An item of the map around by the name that the map gives it. */
static const struct json *find_item(const struct workflow_lane *lane, str name)
{
    for (; lane && lane->owner; lane = lane->owner->lane)
        if (lane->owner->kind == STEP_MAP && lane->owner->step &&
            str_equal(lane->owner->step->map.as, name))
            return item_of(lane);
    return NULL;
}

static const struct json *error_tree(struct sight *s)
{
    struct json_builder b;
    if (!s->w->state->is_undoing)
        return NULL;
    bool is_cancel = s->w->state->is_cancelled && str_is_empty(s->w->state->failure);
    json_builder_init(&b, s->w->run->turn, 8);
    build_error(&b, is_cancel ? S("cancelled") : s->w->state->failure,
                s->w->state->failure_message);
    return json_build_finish(&b);
}

static const struct json *find(void *owner, str name)
{
    struct sight *s = owner;
    const struct workflow_lane *map = lane_of_kind(s->lane, STEP_MAP);
    const struct workflow_lane *loop = lane_of_kind(s->lane, STEP_LOOP);
    if (str_equal(name, S("input")))
        return s->w->input;
    if (str_equal(name, S("run")))
        return s->w->about;
    if (s->output && str_equal(name, S("output")))
        return s->output;
    if (str_equal(name, S("index")) && map)
        return index_tree(s, map->number);
    if (str_equal(name, S("loop")) && loop)
        return loop_tree(s, loop);
    if (str_equal(name, S("error")))
        return error_tree(s);
    if (str_equal(name, S("session")) && !is_item(s->lane, name))
        return s->w->session;
    return find_item(s->lane, name);
}

/* Items of the maps around, before anything inside is computed. */
static bool need_items(struct sight *s)
{
    for (struct workflow_lane *lane = s->lane; lane && lane->owner; lane = lane->owner->lane) {
        if (lane->owner->kind != STEP_MAP)
            continue;
        if (!lane->owner->items && !workflow_items(s->w, lane->owner, s->e))
            return false;
        if (s->evaluation)
            s->evaluation->label = label_join(s->evaluation->label, lane->owner->items_label);
    }
    return true;
}

static bool scope_begin(struct sight *s, struct workflow_instance *w, struct workflow_lane *lane,
                        struct workflow_evaluation *evaluation, struct error *e)
{
    *s = (struct sight){.w = w, .lane = lane, .evaluation = evaluation, .e = e};
    if (evaluation)
        evaluation->label = label_join(evaluation->label, w->input_label);
    return need_items(s);
}

bool workflow_fill(struct workflow_instance *w, struct workflow_lane *lane,
                   const struct template *tree, struct workflow_evaluation *evaluation,
                   const struct json **out, struct error *e)
{
    struct sight s;
    if (!scope_begin(&s, w, lane, evaluation, e))
        return false;
    template_each_step(tree, visit_step, &s);
    template_each_variable(tree, visit_variable, &s);
    return !s.is_broken && template_fill(tree, &(struct expression_scope){find, &s, find_step},
                                         w->run->turn, out, e);
}

bool workflow_evaluate(struct workflow_instance *w, struct workflow_lane *lane,
                       const struct expression *expression, struct workflow_evaluation *evaluation,
                       const struct json **out, struct error *e)
{
    struct sight s;
    if (!scope_begin(&s, w, lane, evaluation, e))
        return false;
    expression_each_step(expression, visit_step, &s);
    expression_each_variable(expression, visit_variable, &s);
    return !s.is_broken &&
           expression_evaluate(expression, &(struct expression_scope){find, &s, find_step},
                               w->run->turn, out, e);
}

bool workflow_test(struct workflow_instance *w, struct workflow_lane *lane,
                   const struct expression *expression, bool *out, struct error *e)
{
    struct sight s;
    if (!scope_begin(&s, w, lane, NULL, e))
        return false;
    expression_each_step(expression, visit_step, &s);
    expression_each_variable(expression, visit_variable, &s);
    return !s.is_broken &&
           expression_test(expression, &(struct expression_scope){find, &s, find_step},
                           w->run->turn, out, e);
}

bool workflow_is_expected(struct workflow_instance *w, struct workflow_node *node,
                          const struct json *output, struct error *why)
{
    struct sight s;
    bool holds = true;
    if (!node->step || !node->step->expect)
        return true;
    if (!scope_begin(&s, w, node->lane, NULL, why))
        return false;
    s.output = output;
    expression_each_step(node->step->expect, visit_step, &s);
    expression_each_variable(node->step->expect, visit_variable, &s);
    if (s.is_broken ||
        !expression_test(node->step->expect, &(struct expression_scope){find, &s, find_step},
                         w->run->turn, &holds, why))
        return error_wrap(why, "expect");
    return holds ||
           error_set(why, REASON_TOOL_FAILED, "the output is not what the step expects: " STR_FMT,
                     STR_ARG(str_cut_utf8(json_print(w->run->turn, output), 300)));
}

/* ---- items of a map, the instance's output ---- */

bool workflow_items(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct workflow_evaluation evaluation = {0};
    const struct json *items;
    if (!node->step)
        node->step = workflow_step_of(w->definition, node);
    if (!node->step || node->step->kind != STEP_MAP)
        return error_set(e, REASON_CORRUPT, "step \"" STR_FMT "\" is no map", STR_ARG(node->path));
    if (!workflow_evaluate(w, node->lane, node->step->map.over, &evaluation, &items, e))
        return error_wrap(e, "over");
    if (json_type(items) != JSON_ARRAY)
        return error_set(e, REASON_SCHEMA, "`over` must give a list, not %s",
                         json_type_name(json_type(items)));
    if (json_count(items) > WORKFLOW_MAP_MAX)
        return error_set(e, REASON_LIMIT, "`over` gives %zu items; %d are allowed",
                         json_count(items), WORKFLOW_MAP_MAX);
    node->items = keep_tree(w, items);
    node->items_label = evaluation.label;
    return node->items ||
           error_set(e, REASON_TOO_LARGE, "the items are over %u bytes", WORKFLOW_OUTPUT_BYTES_MAX);
}

bool workflow_output(struct workflow_instance *w, const struct json **out, struct error *e)
{
    struct label label = {0};
    if (!value_of_lane(w, &w->state->root, w->definition->output, &label, out, e))
        return error_wrap(e, "output of the workflow");
    w->input_label = label_join(w->input_label, label);
    return true;
}
