/* What an instance can do now: its tree of steps beside its definition. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "orchestrator/journal/workflow_state.h"
#include <stdlib.h>

struct walk {
    struct workflow_state *state;
    const struct definition *definition;
    struct workflow_commands *out;
    struct error *e;
};
enum progress { LANE_GOES_ON, LANE_OVER, LANE_FAILED, LANE_BROKEN };

static void emit(struct walk *w, struct workflow_command command)
{
    struct workflow_commands *out = w->out;
    if (out->count == out->capacity) {
        size_t capacity = out->capacity ? out->capacity * 2 : 16;
        out->items = arena_grow(out->arena, out->items, out->capacity * sizeof *out->items,
                                capacity * sizeof *out->items);
        out->capacity = capacity;
    }
    out->items[out->count++] = command;
}

static enum progress unfit(struct walk *w, str path)
{
    error_set(w->e, REASON_CORRUPT,
              "step \"" STR_FMT "\" does not fit the definition " STR_FMT "@" STR_FMT,
              STR_ARG(path), STR_ARG(w->definition->name), STR_ARG(w->definition->version));
    return LANE_BROKEN;
}

/* ---- the definition's steps of a lane ---- */

static bool list_of_lane(const struct definition *definition, const struct workflow_lane *lane,
                         struct step_list *out)
{
    if (!lane->owner) {
        *out = definition->steps;
        return true;
    }
    const struct step *step = workflow_step_of(definition, lane->owner);
    if (!step)
        return false;
    if (step->kind == STEP_MAP || step->kind == STEP_LOOP) {
        *out = step->kind == STEP_MAP ? step->map.steps : step->loop.steps;
        return true;
    }
    if (step->kind == STEP_BRANCH) {
        if (lane->number < 0 || (size_t) lane->number >= step->branch.count)
            return false;
        *out = step->branch.arms[lane->number].steps;
        return true;
    }
    for (size_t i = 0; step->kind == STEP_PARALLEL && i < step->parallel.count; i++)
        if (str_equal(step->parallel.arms[i].name, lane->name)) {
            *out = step->parallel.arms[i].steps;
            return true;
        }
    return false;
}

const struct step *workflow_step_of(const struct definition *definition,
                                    const struct workflow_node *node)
{
    struct step_list list;
    if (node->step)
        return node->step;
    if (node->undoes) {
        const struct step *undone = workflow_step_of(definition, node->undoes);
        return undone ? undone->compensate : NULL;
    }
    if (!list_of_lane(definition, node->lane, &list))
        return NULL;
    for (size_t i = 0; i < list.count; i++)
        if (str_equal(list.items[i]->id, node->id))
            return list.items[i]->kind == node->kind ? list.items[i] : NULL;
    return NULL;
}

/* ---- stopping ---- */

static size_t emit_stops(struct walk *w, const struct workflow_node *around)
{
    size_t count = 0;
    for (size_t i = 0; i < w->state->open_count; i++) {
        struct workflow_node *node = w->state->open[i];
        if (around && !workflow_node_is_in(node, around))
            continue;
        emit(w, (struct workflow_command){.kind = WORKFLOW_STOP, .node = node});
        count++;
    }
    return count;
}

static void fail_node(struct walk *w, struct workflow_node *node, struct workflow_node *failed)
{
    if (emit_stops(w, node) == 0)
        emit(w, (struct workflow_command){.kind = WORKFLOW_FAIL, .node = node, .failed = failed});
}

/* ---- lanes ---- */

static enum progress walk_node(struct walk *w, struct workflow_node *node);

static struct workflow_node *last_of(const struct workflow_lane *lane)
{
    return lane && lane->count > 0 ? lane->nodes[lane->count - 1] : NULL;
}

static struct workflow_node *failed_in(const struct workflow_lane *lane)
{
    struct workflow_node *last = last_of(lane);
    return last && last->status == STEP_FAILED && !last->continues ? last : NULL;
}

static void begin(struct walk *w, struct workflow_lane *lane, const struct step *step)
{
    if (step_kind_is_work(step->kind)) {
        if (w->out->work_count >= WORKFLOW_PARALLEL_MAX)
            return;
        w->out->work_count++;
    }
    emit(w, (struct workflow_command){.kind = WORKFLOW_BEGIN, .step = step, .lane = lane});
}

static enum progress walk_lane(struct walk *w, struct workflow_lane *lane, struct step_list list)
{
    if (lane->is_over)
        return lane->is_failed ? LANE_FAILED : LANE_OVER;
    struct workflow_node *last = last_of(lane);
    if (last) {
        size_t place = lane->count - 1;
        if (place >= list.count || !str_equal(list.items[place]->id, last->id) ||
            list.items[place]->kind != last->kind)
            return unfit(w, last->path);
        last->step = list.items[place];
        if (last->status == STEP_RUNNING || last->status == STEP_RETRYING)
            return walk_node(w, last);
        lane->is_failed = failed_in(lane) != NULL;
        lane->is_over = lane->is_failed || lane->count == list.count;
        if (lane->is_over)
            return lane->is_failed ? LANE_FAILED : LANE_OVER;
    }
    if (list.count == 0) {
        lane->is_over = true;
        return LANE_OVER;
    }
    begin(w, lane, list.items[lane->count]);
    return LANE_GOES_ON;
}

/* ---- steps that hold others ---- */

static enum progress complete(struct walk *w, struct workflow_node *node)
{
    emit(w, (struct workflow_command){.kind = WORKFLOW_COMPLETE, .node = node});
    return LANE_GOES_ON;
}

static enum progress walk_branch(struct walk *w, struct workflow_node *node)
{
    const struct step *step = node->step;
    if (node->arm < 0)
        return complete(w, node);
    if ((size_t) node->arm >= step->branch.count)
        return unfit(w, node->path);
    struct workflow_lane *lane = workflow_lane_of(w->state, node, node->arm, STR_NONE);
    if (failed_in(lane)) {
        fail_node(w, node, failed_in(lane));
        return LANE_GOES_ON;
    }
    enum progress progress = walk_lane(w, lane, step->branch.arms[node->arm].steps);
    return progress == LANE_OVER ? complete(w, node) : progress;
}

/* Of its lanes that failed: not one that was only stopped because another had, if it can be helped. */
static struct workflow_node *cause_of(const struct workflow_node *node)
{
    struct workflow_node *stopped = NULL;
    for (size_t i = 0; i < node->lane_count; i++) {
        struct workflow_node *failed = failed_in(node->lanes[i]);
        if (failed && !str_equal(failed->error, S("cancelled")))
            return failed;
        if (failed && !stopped)
            stopped = failed;
    }
    return stopped;
}

static enum progress walk_parallel(struct walk *w, struct workflow_node *node)
{
    const struct step *step = node->step;
    size_t over = 0;
    if (cause_of(node)) {
        fail_node(w, node, cause_of(node));
        return LANE_GOES_ON;
    }
    for (size_t i = 0; i < step->parallel.count; i++) {
        struct workflow_lane *lane =
            workflow_lane_of(w->state, node, (int64_t) i, step->parallel.arms[i].name);
        enum progress progress = walk_lane(w, lane, step->parallel.arms[i].steps);
        if (progress == LANE_BROKEN)
            return progress;
        over += progress == LANE_OVER;
    }
    return over == step->parallel.count ? complete(w, node) : LANE_GOES_ON;
}

/* Items that have ended since the last look. */
static void count_ended(struct workflow_node *node)
{
    for (size_t i = node->first_open; i < node->lane_count; i++) {
        struct workflow_lane *lane = node->lanes[i];
        if (!lane || lane->is_over || !failed_in(lane))
            continue;
        lane->is_over = lane->is_failed = true;
        node->failed_count++;
    }
}

static enum progress walk_map(struct walk *w, struct workflow_node *node)
{
    const struct step *step = node->step;
    count_ended(node);
    if ((int64_t) node->failed_count > step->map.tolerate) {
        fail_node(w, node, cause_of(node));
        return LANE_GOES_ON;
    }
    int64_t active = 0;
    for (size_t i = node->first_open; (int64_t) i < node->count && active < step->map.parallel;
         i++) {
        struct workflow_lane *lane = workflow_lane_of(w->state, node, (int64_t) i, STR_NONE);
        bool was_over = lane->is_over;
        enum progress progress = walk_lane(w, lane, step->map.steps);
        if (progress == LANE_BROKEN)
            return progress;
        node->done_count += !was_over && progress == LANE_OVER;
        active += progress == LANE_GOES_ON;
        if (i == node->first_open && progress != LANE_GOES_ON)
            node->first_open++;
    }
    return (int64_t) (node->done_count + node->failed_count) == node->count ? complete(w, node)
                                                                            : LANE_GOES_ON;
}

static enum progress walk_loop(struct walk *w, struct workflow_node *node)
{
    const struct step *step = node->step;
    if (node->lane_count > 0) {
        struct workflow_lane *lane =
            workflow_lane_of(w->state, node, (int64_t) node->lane_count - 1, STR_NONE);
        if (failed_in(lane)) {
            fail_node(w, node, failed_in(lane));
            return LANE_GOES_ON;
        }
        enum progress progress = walk_lane(w, lane, step->loop.steps);
        if (progress != LANE_OVER)
            return progress;
        if ((int64_t) node->lane_count >= step->loop.max)
            return complete(w, node);
    }
    emit(w, (struct workflow_command){
                .kind = WORKFLOW_ROUND, .node = node, .number = (int64_t) node->lane_count});
    return LANE_GOES_ON;
}

void workflow_grant_round(struct workflow_state *state, struct workflow_node *node)
{
    workflow_lane_of(state, node, (int64_t) node->lane_count, STR_NONE);
}

static enum progress walk_node(struct walk *w, struct workflow_node *node)
{
    if (node->status == STEP_RETRYING) {
        emit(w, (struct workflow_command){
                    .kind = node->is_stopping ? WORKFLOW_STOP : WORKFLOW_RETRY, .node = node});
        return LANE_GOES_ON;
    }
    if (step_kind_is_leaf(node->kind)) {
        emit(w, (struct workflow_command){.kind = node->is_stopping ? WORKFLOW_STOP : WORKFLOW_WAIT,
                                          .node = node});
        return LANE_GOES_ON;
    }
    if (node->is_stopping) {
        fail_node(w, node, NULL);
        return LANE_GOES_ON;
    }
    switch (node->kind) {
    case STEP_BRANCH: return walk_branch(w, node);
    case STEP_PARALLEL: return walk_parallel(w, node);
    case STEP_MAP: return walk_map(w, node);
    case STEP_LOOP: return walk_loop(w, node);
    case STEP_TOOL:
    case STEP_MODEL:
    case STEP_AGENT:
    case STEP_APPROVAL:
    case STEP_SLEEP:
    case STEP_WAIT_SIGNAL:
    case STEP_WORKFLOW:
    case STEP_KIND_COUNT: break;
    }
    unreachable_state();
}

/* ---- undoing ---- */

struct gathering {
    struct walk *walk;
    struct workflow_node **items;
    size_t count, capacity;
};

static void gather_lane(struct gathering *g, const struct workflow_lane *lane)
{
    for (size_t i = 0; lane && i < lane->count; i++) {
        struct workflow_node *node = lane->nodes[i];
        for (size_t k = 0; k < node->past_count; k++)
            gather_lane(g, node->past[k]);
        for (size_t k = 0; k < node->lane_count; k++)
            gather_lane(g, node->lanes[k]);
        node->step = workflow_step_of(g->walk->definition, node);
        if (node->status != STEP_COMPLETED || !node->step || !node->step->compensate)
            continue;
        if (g->count == g->capacity) {
            size_t capacity = g->capacity ? g->capacity * 2 : 16;
            g->items = arena_grow(g->walk->state->arena, g->items, g->capacity * sizeof *g->items,
                                  capacity * sizeof *g->items);
            g->capacity = capacity;
        }
        g->items[g->count++] = node;
    }
}

static int newest_first(const void *a, const void *b)
{
    const struct workflow_node *left = *(struct workflow_node *const *) a;
    const struct workflow_node *right = *(struct workflow_node *const *) b;
    if (FAULT(
            "plant.undo-order")) /* a bug put in on purpose: what was done first is undone first */
        return left->order < right->order ? -1 : left->order > right->order ? 1 : 0;
    return left->order < right->order ? 1 : left->order > right->order ? -1 : 0;
}

static void gather_undo_list(struct walk *w)
{
    struct workflow_state *state = w->state;
    if (state->has_undo_list)
        return;
    struct gathering g = {.walk = w};
    gather_lane(&g, &state->root);
    if (g.count > 1)
        qsort(g.items, g.count, sizeof *g.items, newest_first);
    state->undo_list = g.items;
    state->undo_count = g.count;
    state->has_undo_list = true;
}

bool workflow_can_undo(struct workflow_state *state, const struct definition *definition)
{
    struct walk w = {.state = state, .definition = definition};
    state->has_undo_list = false;
    gather_undo_list(&w);
    state->has_undo_list = state->is_undoing;
    return state->undo_count > 0;
}

static void walk_undo(struct walk *w)
{
    struct workflow_state *state = w->state;
    gather_undo_list(w);
    for (; state->undo_index < state->undo_count; state->undo_index++) {
        struct workflow_node *node = state->undo_list[state->undo_index];
        struct workflow_node *undo = node->undo;
        if (!undo) {
            emit(w, (struct workflow_command){.kind = WORKFLOW_UNDO, .node = node});
            return;
        }
        undo->step = node->step->compensate;
        if (undo->status == STEP_RUNNING || undo->status == STEP_RETRYING) {
            walk_node(w, undo);
            return;
        }
    }
    emit(w, (struct workflow_command){.kind = WORKFLOW_UNDONE});
}

/* ---- the instance ---- */

static void walk_end(struct walk *w, struct workflow_node *failed)
{
    if (emit_stops(w, NULL) == 0)
        emit(w, (struct workflow_command){.kind = WORKFLOW_FAILED, .failed = failed});
}

bool workflow_next(struct workflow_state *state, const struct definition *definition,
                   bool is_stopping, struct workflow_commands *out, struct error *e)
{
    struct walk w = {.state = state, .definition = definition, .out = out, .e = e};
    out->count = out->work_count = 0;
    for (size_t i = 0; i < state->open_count; i++)
        out->work_count +=
            step_kind_is_work(state->open[i]->kind) && state->open[i]->status == STEP_RUNNING;
    if (state->is_undoing) {
        walk_undo(&w);
        return true;
    }
    if (is_stopping || failed_in(&state->root)) {
        walk_end(&w, is_stopping ? NULL : failed_in(&state->root));
        return true;
    }
    enum progress progress = walk_lane(&w, &state->root, definition->steps);
    if (progress == LANE_OVER)
        emit(&w, (struct workflow_command){.kind = WORKFLOW_DONE});
    return progress != LANE_BROKEN;
}
