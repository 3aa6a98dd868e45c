#include "orchestrator/journal/workflow_state.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"

static const char *const status_names[] = {
    [STEP_RUNNING] = "running", [STEP_RETRYING] = "retrying", [STEP_COMPLETED] = "completed",
    [STEP_SKIPPED] = "skipped", [STEP_FAILED] = "failed",
};

static const char *const kind_names[] = {
#define X(name, text) [STEP_##name] = text,
    STEP_KINDS(X)
#undef X
};

const char *step_status_name(enum step_status status)
{
    return status_names[status];
}

bool step_kind_is_leaf(enum step_kind kind)
{
    return kind != STEP_BRANCH && kind != STEP_MAP && kind != STEP_PARALLEL && kind != STEP_LOOP;
}

bool step_kind_is_work(enum step_kind kind)
{
    return kind == STEP_TOOL || kind == STEP_MODEL || kind == STEP_AGENT || kind == STEP_WORKFLOW;
}

struct workflow_state *workflow_state_create(struct arena *arena, const struct json *workflow)
{
    struct workflow_state *state = ARENA_NEW(arena, struct workflow_state);
    state->arena = arena;
    state->name = str_copy(arena, json_str_or(workflow, S("name"), STR_NONE));
    state->version = str_copy(arena, json_str_or(workflow, S("version"), STR_NONE));
    state->digest = str_copy(arena, json_str_or(workflow, S("digest"), STR_NONE));
    state->takes_message = json_bool_or(workflow, S("takes_message"), false);
    return state;
}

/* ---- arrays of pointers ---- */

static void *grow(struct arena *arena, void *items, size_t count, size_t *capacity, size_t bytes)
{
    if (count < *capacity)
        return items;
    size_t wanted = *capacity ? *capacity * 2 : 4;
    void *grown = arena_grow(arena, items, *capacity * bytes, wanted * bytes);
    *capacity = wanted;
    return grown;
}

static void open_add(struct workflow_state *state, struct workflow_node *node)
{
    state->open = grow(state->arena, state->open, state->open_count, &state->open_capacity,
                       sizeof *state->open);
    state->open[state->open_count++] = node;
}

static void open_remove(struct workflow_state *state, const struct workflow_node *node)
{
    for (size_t i = 0; i < state->open_count; i++) {
        if (state->open[i] != node)
            continue;
        memmove(&state->open[i], &state->open[i + 1],
                (state->open_count - i - 1) * sizeof *state->open);
        state->open_count--;
        return;
    }
}

/* ---- places ---- */

static struct workflow_node *lane_find(const struct workflow_lane *lane, str id)
{
    for (size_t i = lane->count; i > 0; i--) /* mostly the newest */
        if (str_equal(lane->nodes[i - 1]->id, id))
            return lane->nodes[i - 1];
    return NULL;
}

static struct workflow_lane *lane_by_name(const struct workflow_node *node, str name)
{
    for (size_t i = 0; i < node->lane_count; i++)
        if (str_equal(node->lanes[i]->name, name))
            return node->lanes[i];
    return NULL;
}

static struct workflow_lane *lane_add(struct workflow_state *state, struct workflow_node *node,
                                      int64_t number, str name)
{
    struct workflow_lane *lane = ARENA_NEW(state->arena, struct workflow_lane);
    *lane = (struct workflow_lane){.owner = node,
                                   .attempt = node->attempt,
                                   .number = number,
                                   .name = str_copy(state->arena, name)};
    size_t place = str_is_empty(name) ? (size_t) number : node->lane_count;
    while (node->lane_count <= place) {
        node->lanes = grow(state->arena, node->lanes, node->lane_count, &node->lane_capacity,
                           sizeof *node->lanes);
        node->lanes[node->lane_count++] = NULL;
    }
    node->lanes[place] = lane;
    return lane;
}

static struct workflow_lane *past_lane(const struct workflow_node *node, int attempt,
                                       int64_t number, str name)
{
    for (size_t i = 0; i < node->past_count; i++) {
        struct workflow_lane *lane = node->past[i];
        if (lane->attempt == attempt && lane->number == number && str_equal(lane->name, name))
            return lane;
    }
    return NULL;
}

/* One lane of a control step as a path names it: "[3]" or ".left". */
struct lane_name {
    int attempt;
    int64_t number; /* -1: by name */
    str name;
};

static bool may_have_lane(const struct workflow_node *node, const struct lane_name *which)
{
    switch (node->kind) {
    case STEP_BRANCH: return which->number >= 0 && which->number == node->arm;
    case STEP_MAP: return which->number >= 0 && which->number < node->count;
    case STEP_LOOP: return which->number >= 0 && which->number < WORKFLOW_LOOP_MAX;
    case STEP_PARALLEL: return which->number < 0 && node->lane_count < WORKFLOW_STEPS_MAX;
    case STEP_TOOL:
    case STEP_MODEL:
    case STEP_AGENT:
    case STEP_APPROVAL:
    case STEP_SLEEP:
    case STEP_WAIT_SIGNAL:
    case STEP_WORKFLOW:
    case STEP_KIND_COUNT: break;
    }
    return false;
}

static struct workflow_lane *find_lane(struct workflow_state *state, struct workflow_node *node,
                                       const struct lane_name *which, bool creates)
{
    if (which->attempt != node->attempt)
        return past_lane(node, which->attempt, which->number < 0 ? 0 : which->number, which->name);
    struct workflow_lane *lane = which->number < 0 ? lane_by_name(node, which->name)
                                 : (size_t) which->number < node->lane_count
                                     ? node->lanes[which->number]
                                     : NULL;
    if (lane || !creates || node->status != STEP_RUNNING || !may_have_lane(node, which))
        return lane;
    return lane_add(state, node, which->number < 0 ? (int64_t) node->lane_count : which->number,
                    which->name);
}

static str cut_word(str *rest)
{
    size_t end = 0;
    while (end < rest->len && rest->ptr[end] != '.' && rest->ptr[end] != '[' &&
           rest->ptr[end] != ']' && rest->ptr[end] != '#' && rest->ptr[end] != '~')
        end++;
    str word = str_slice(*rest, 0, end);
    *rest = str_from(*rest, end);
    return word;
}

static bool take(str *rest, char c)
{
    if (rest->len == 0 || rest->ptr[0] != c)
        return false;
    *rest = str_from(*rest, 1);
    return true;
}

/* "#2[3]." or ".left." behind a control step's id. */
static bool read_lane(str *rest, struct lane_name *out)
{
    int64_t number;
    *out = (struct lane_name){.attempt = 1, .number = -1};
    if (take(rest, '#')) {
        if (!str_to_i64(cut_word(rest), &number) || number < 2 ||
            number > WORKFLOW_RETRIES_MAX + WORKFLOW_OVERLOADS_MAX)
            return false;
        out->attempt = (int) number;
    }
    if (take(rest, '[')) {
        if (!str_to_i64(cut_word(rest), &out->number) || out->number < 0 || !take(rest, ']'))
            return false;
        return take(rest, '.');
    }
    if (!take(rest, '.'))
        return false;
    out->name = cut_word(rest);
    return !str_is_empty(out->name) && take(rest, '.');
}

struct place {
    struct workflow_lane *lane;
    str id;
    bool is_undo;
};

static bool locate(struct workflow_state *state, str path, bool creates, struct place *out)
{
    struct workflow_lane *lane = &state->root;
    for (unsigned depth = 0; depth <= WORKFLOW_DEPTH_MAX && lane; depth++) {
        struct lane_name which;
        str id = cut_word(&path);
        if (str_is_empty(id))
            return false;
        bool is_undo = take(&path, '~');
        if (str_is_empty(path)) {
            *out = (struct place){lane, id, is_undo};
            return true;
        }
        struct workflow_node *node = lane_find(lane, id);
        if (is_undo || !node || !read_lane(&path, &which))
            return false;
        lane = find_lane(state, node, &which, creates);
    }
    return false;
}

struct workflow_node *workflow_state_find(struct workflow_state *state, str path)
{
    struct place place;
    if (!locate(state, path, false, &place))
        return NULL;
    struct workflow_node *node = lane_find(place.lane, place.id);
    return node && place.is_undo ? node->undo : node;
}

struct workflow_lane *workflow_lane_of(struct workflow_state *state, struct workflow_node *node,
                                       int64_t number, str name)
{
    struct lane_name which = {node->attempt, str_is_empty(name) ? number : -1, name};
    struct workflow_lane *lane = find_lane(state, node, &which, true);
    ensure(lane != NULL);
    return lane;
}

str workflow_path(struct arena *arena, const struct workflow_lane *lane, str id)
{
    const struct workflow_node *owner = lane->owner;
    if (!owner)
        return str_copy(arena, id);
    str attempt = lane->attempt > 1 ? str_printf(arena, "#%d", lane->attempt) : STR_NONE;
    if (!str_is_empty(lane->name))
        return str_printf(arena, STR_FMT STR_FMT "." STR_FMT "." STR_FMT, STR_ARG(owner->path),
                          STR_ARG(attempt), STR_ARG(lane->name), STR_ARG(id));
    return str_printf(arena, STR_FMT STR_FMT "[%lld]." STR_FMT, STR_ARG(owner->path),
                      STR_ARG(attempt), (long long) lane->number, STR_ARG(id));
}

bool workflow_node_is_in(const struct workflow_node *node, const struct workflow_node *around)
{
    for (const struct workflow_node *n = node->lane->owner; n; n = n->lane->owner)
        if (n == around)
            return true;
    return false;
}

struct call *workflow_state_call(const struct workflow_state *state, uuid id)
{
    for (size_t i = 0; i < state->open_count; i++)
        if (state->open[i]->call && uuid_equal(state->open[i]->call->id, id))
            return state->open[i]->call;
    return NULL;
}

bool workflow_state_has_signal(const struct workflow_state *state, uuid id)
{
    for (size_t i = 0; i < state->signal_count; i++)
        if (uuid_equal(state->signals[i], id))
            return true;
    return false;
}

/* ---- applying events ---- */

struct applying {
    struct workflow_state *state;
    const struct event *event;
    struct error *e;
};

static bool broken(const struct applying *a, const char *what)
{
    str step = json_str_or(a->event->data, S("step"), STR_NONE);
    return error_set(a->e, REASON_CORRUPT, "journal event %lld (%s) of step \"" STR_FMT "\": %s",
                     (long long) a->event->seq, event_type_name(a->event->type), STR_ARG(step),
                     what);
}

static str text_of(const struct applying *a, const char *member)
{
    return str_copy(a->state->arena, json_str_or(a->event->data, str_from_cstr(member), STR_NONE));
}

static int64_t number_of(const struct applying *a, const char *member, int64_t otherwise)
{
    return json_i64_or(a->event->data, str_from_cstr(member), otherwise);
}

static bool kind_parse(str text, enum step_kind *out)
{
    for (int i = 0; i < STEP_KIND_COUNT; i++)
        if (str_equal(text, str_from_cstr(kind_names[i]))) {
            *out = (enum step_kind) i;
            return true;
        }
    return false;
}

static bool lane_goes_on(const struct workflow_lane *lane)
{
    if (lane->count == 0)
        return true;
    const struct workflow_node *last = lane->nodes[lane->count - 1];
    return last->status == STEP_COMPLETED || last->status == STEP_SKIPPED ||
           (last->status == STEP_FAILED && last->continues);
}

static bool is_alive(const struct workflow_lane *lane)
{
    for (const struct workflow_node *n = lane->owner; n; n = n->lane->owner)
        if (n->status != STEP_RUNNING)
            return false;
    return true;
}

/* The node that is meant, made when it may begin here. */
static bool node_to_begin(const struct applying *a, struct workflow_node **out)
{
    struct workflow_state *state = a->state;
    struct place place;
    str path = json_str_or(a->event->data, S("step"), STR_NONE);
    if (!locate(state, path, !state->is_undoing, &place))
        return broken(a, "there is no such place");
    struct workflow_node *node = lane_find(place.lane, place.id);
    struct workflow_node *undoes = NULL;
    if (place.is_undo) {
        if (!state->is_undoing || !node || node->status != STEP_COMPLETED)
            return broken(a, "only completed steps are undone, and only after run.compensating");
        undoes = node;
        node = node->undo;
    } else if (state->is_undoing) {
        return broken(a, "nothing new begins after run.compensating");
    } else if (!is_alive(place.lane)) {
        return broken(a, "the step around it is not running");
    }
    *out = node;
    if (node)
        return true;
    if (!undoes && !lane_goes_on(place.lane))
        return broken(a, "the step before it has not ended");
    if (state->node_count >= WORKFLOW_NODES_MAX)
        return broken(a, "the instance has too many steps");
    node = ARENA_NEW(state->arena, struct workflow_node);
    node->path = str_copy(state->arena, path);
    node->id = str_copy(state->arena, place.id);
    node->lane = place.lane;
    node->undoes = undoes;
    *out = node;
    return true;
}

/* A node that node_to_begin made becomes part of the tree. */
static void node_attach(struct workflow_state *state, struct workflow_node *node)
{
    state->node_count++;
    if (node->undoes) {
        node->undoes->undo = node;
        return;
    }
    struct workflow_lane *lane = node->lane;
    lane->nodes =
        grow(state->arena, lane->nodes, lane->count, &lane->capacity, sizeof *lane->nodes);
    lane->nodes[lane->count++] = node;
}

static bool read_optional_id(const struct applying *a, const char *member, uuid *out)
{
    str text = json_str_or(a->event->data, str_from_cstr(member), STR_NONE);
    *out = UUID_NONE;
    return str_is_empty(text) || uuid_parse(text, out) || broken(a, "an id is malformed");
}

static void forget_lanes(struct workflow_state *state, struct workflow_node *node)
{
    for (size_t i = 0; i < node->lane_count; i++) {
        if (!node->lanes[i])
            continue;
        node->past = grow(state->arena, node->past, node->past_count, &node->past_capacity,
                          sizeof *node->past);
        node->past[node->past_count++] = node->lanes[i];
    }
    node->lanes = NULL;
    node->lane_count = node->lane_capacity = 0;
    node->first_open = node->done_count = node->failed_count = 0;
}

struct beginning {
    enum step_kind kind;
    int64_t attempt, arm, count;
    uuid call_id, child_id, approval_id;
};

static bool read_beginning(const struct applying *a, struct beginning *out)
{
    *out = (struct beginning){.attempt = number_of(a, "attempt", 1),
                              .arm = number_of(a, "arm", -1),
                              .count = number_of(a, "count", 0)};
    if (!kind_parse(json_str_or(a->event->data, S("kind"), STR_NONE), &out->kind))
        return broken(a, "its kind is unknown");
    if (out->attempt < 1 || out->attempt > WORKFLOW_RETRIES_MAX + WORKFLOW_OVERLOADS_MAX ||
        out->count < 0 || out->count > WORKFLOW_MAP_MAX || out->arm < -1 ||
        out->arm >= (int64_t) WORKFLOW_STEPS_MAX)
        return broken(a, "a number is out of its bounds");
    if (!read_optional_id(a, "tool_call_id", &out->call_id) ||
        !read_optional_id(a, "child_run_id", &out->child_id) ||
        !read_optional_id(a, "approval_id", &out->approval_id))
        return false;
    return uuid_is_none(out->call_id) || !workflow_state_call(a->state, out->call_id) ||
           broken(a, "the call is another step's");
}

static bool apply_started(const struct applying *a)
{
    struct workflow_node *node = NULL;
    struct beginning begin;
    if (!read_beginning(a, &begin) || !node_to_begin(a, &node))
        return false;
    bool is_new = node->attempt == 0;
    if (!is_new && (node->status != STEP_RETRYING || node->kind != begin.kind))
        return broken(a, "the step has begun already");
    if (begin.attempt != node->attempt + 1)
        return broken(a, "its attempt is not the next");
    if (node->undoes && !step_kind_is_leaf(begin.kind))
        return broken(a, "what undoes a step holds no others");
    if (is_new)
        node_attach(a->state, node);
    forget_lanes(a->state, node);
    if (is_new && step_kind_is_leaf(begin.kind))
        open_add(a->state, node);
    node->kind = begin.kind;
    node->status = STEP_RUNNING;
    node->attempt = (int) begin.attempt;
    node->started_us = a->event->at_us;
    node->ended_us = 0;
    node->timeout_us = number_of(a, "timeout_at", 0);
    node->wakes_us = number_of(a, "wakes_at", 0);
    node->arm = begin.arm;
    node->count = begin.count;
    node->child_run_id = begin.child_id;
    node->is_child_ended = false;
    node->child_message = UUID_NONE;
    node->approval_id = begin.approval_id;
    node->key = text_of(a, "key");
    node->error = node->message = node->output = node->output_label = STR_NONE;
    node->is_stopping = node->has_cancelled_child = false;
    node->call = NULL;
    if (uuid_is_none(begin.call_id))
        return true;
    node->call = ARENA_NEW(a->state->arena, struct call);
    *node->call = (struct call){.id = begin.call_id,
                                .call_id = node->path,
                                .name = text_of(a, "name"),
                                .state = CALL_REQUESTED};
    return true;
}

static void end_node(const struct applying *a, struct workflow_node *node, enum step_status status)
{
    node->status = status;
    node->ended_us = a->event->at_us;
    node->wakes_us = node->timeout_us = 0;
    if (step_kind_is_leaf(node->kind))
        open_remove(a->state, node);
}

static bool has_open_inside(const struct workflow_state *state, const struct workflow_node *node)
{
    if (step_kind_is_leaf(node->kind))
        return false;
    for (size_t i = 0; i < state->open_count; i++)
        if (workflow_node_is_in(state->open[i], node))
            return true;
    return false;
}

static bool apply_skipped(const struct applying *a)
{
    struct workflow_node *node = NULL;
    enum step_kind kind;
    if (!kind_parse(json_str_or(a->event->data, S("kind"), STR_NONE), &kind))
        return broken(a, "its kind is unknown");
    if (!node_to_begin(a, &node))
        return false;
    if (node->attempt != 0 || node->undoes)
        return broken(a, "the step has begun already");
    node_attach(a->state, node);
    node->kind = kind;
    node->attempt = 1;
    node->status = STEP_SKIPPED;
    node->started_us = node->ended_us = a->event->at_us;
    return true;
}

static bool find_begun(const struct applying *a, struct workflow_node **out)
{
    struct place place;
    if (!locate(a->state, json_str_or(a->event->data, S("step"), STR_NONE), false, &place))
        return broken(a, "there is no such place");
    struct workflow_node *node = lane_find(place.lane, place.id);
    if (node && place.is_undo)
        node = node->undo;
    *out = node;
    if (!node || (node->status != STEP_RUNNING && node->status != STEP_RETRYING))
        return broken(a, "the step is not open");
    return !has_open_inside(a->state, node) || broken(a, "a step inside it is open");
}

static bool apply_completed(const struct applying *a)
{
    struct workflow_node *node = NULL;
    if (json_bool_or(a->event->data, S("skipped"), false))
        return apply_skipped(a);
    if (!find_begun(a, &node))
        return false;
    if (node->status != STEP_RUNNING)
        return broken(a, "the step waits for its next attempt");
    if (node->call && node->call->state != CALL_DONE)
        return broken(a, "its tool call is not done");
    const struct json *output = json_get(a->event->data, S("output"));
    if (output)
        node->output = json_print(a->state->arena, output);
    if (json_get(a->event->data, S("label")))
        node->output_label = json_print(a->state->arena, json_get(a->event->data, S("label")));
    node->order = ++a->state->completed_count;
    end_node(a, node, STEP_COMPLETED);
    return true;
}

static bool apply_failed(const struct applying *a)
{
    struct workflow_node *node = NULL;
    if (!find_begun(a, &node))
        return false;
    int64_t retry_us = number_of(a, "retry_at", 0);
    if (number_of(a, "attempt", 0) != node->attempt)
        return broken(a, "it is another attempt's");
    if (node->call && node->call->state == CALL_INTENDED)
        return broken(a, "its tool call is not done");
    if (retry_us != 0 && node->status != STEP_RUNNING)
        return broken(a, "the step waits for its next attempt already");
    node->error = text_of(a, "error");
    node->message = text_of(a, "message");
    node->overloads += str_equal(node->error, S("overloaded_here"));
    if (retry_us != 0) {
        node->status = STEP_RETRYING;
        node->ended_us = a->event->at_us;
        node->wakes_us = retry_us;
        node->timeout_us = 0;
        node->is_stopping = false; /* that was the attempt, not the step */
        return true;
    }
    node->continues = json_bool_or(a->event->data, S("continues"), false);
    end_node(a, node, STEP_FAILED);
    return true;
}

static bool apply_child_completed(const struct applying *a)
{
    uuid id, message_id;
    enum run_status status;
    if (!read_optional_id(a, "child_run_id", &id) ||
        !read_optional_id(a, "message_id", &message_id))
        return false;
    if (!run_status_parse(json_str_or(a->event->data, S("status"), STR_NONE), &status))
        return broken(a, "its status is unknown");
    for (size_t i = 0; i < a->state->open_count; i++) {
        struct workflow_node *node = a->state->open[i];
        if (uuid_is_none(id) || !uuid_equal(node->child_run_id, id))
            continue;
        node->is_child_ended = true;
        node->child_status = status;
        node->child_message = message_id;
    }
    return true;
}

static bool apply_compensating(const struct applying *a)
{
    struct workflow_state *state = a->state;
    if (state->is_undoing)
        return broken(a, "it is being undone already");
    if (state->open_count > 0)
        return broken(a, "a step is open");
    state->is_undoing = true;
    state->is_cancelled =
        str_equal(json_str_or(a->event->data, S("reason"), STR_NONE), S("cancelled"));
    state->failure = text_of(a, "error");
    state->failure_message = text_of(a, "message");
    return true;
}

static bool apply_signalled(const struct applying *a)
{
    struct workflow_state *state = a->state;
    uuid id;
    if (!uuid_parse(json_str_or(a->event->data, S("signal_id"), STR_NONE), &id))
        return broken(a, "an id is missing or malformed");
    if (workflow_state_has_signal(state, id))
        return broken(a, "the signal was taken before");
    if (state->signal_count >= RUN_SIGNALS_MAX)
        return broken(a, "too many signals");
    state->signals = grow(state->arena, state->signals, state->signal_count,
                          &state->signal_capacity, sizeof *state->signals);
    state->signals[state->signal_count++] = id;
    return true;
}

bool workflow_state_apply(struct workflow_state *state, const struct event *event, struct error *e)
{
    struct applying a = {state, event, e};
    if (event->type == EVENT_RUN_STEP_STARTED)
        return apply_started(&a);
    if (event->type == EVENT_RUN_STEP_COMPLETED)
        return apply_completed(&a);
    if (event->type == EVENT_RUN_STEP_FAILED)
        return apply_failed(&a);
    if (event->type == EVENT_RUN_CHILD_COMPLETED)
        return apply_child_completed(&a);
    if (event->type == EVENT_RUN_COMPENSATING)
        return apply_compensating(&a);
    if (event->type == EVENT_RUN_SIGNALLED)
        return apply_signalled(&a);
    return true;
}
