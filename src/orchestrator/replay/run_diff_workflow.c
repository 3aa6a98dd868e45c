/* Two instances of workflows beside each other: a step is a place in the tree, whatever its runs and calls are called. */
#include "base/arena.h"
#include "base/limits.h"
#include "base/map.h"
#include "orchestrator/replay/run_diff_internal.h"

struct instance_step {
    str path, kind, status, output, error;
    int64_t attempts, seq; /* seq: of its first run.step_started */
    cost used;             /* of its calls; a child run's own is in its own journal */
    uuid call, child;      /* of the newest attempt */
};
struct instance_steps {
    struct instance_step *items;
    size_t count;
    struct map *by_path; /* place in items, from 1 */
    struct map *by_id;   /* of calls and child runs: the same */
};

static struct instance_step *at_place(struct instance_steps *steps, void *place)
{
    return place ? &steps->items[(uintptr_t) place - 1] : NULL;
}

static struct instance_step *find(struct instance_steps *steps, str path)
{
    return at_place(steps, map_find(steps->by_path, path));
}

static struct instance_step *find_or_add(struct instance_steps *steps, const struct event *event)
{
    str path = json_str_or(event->data, S("step"), STR_NONE);
    struct instance_step *step = find(steps, path);
    if (step)
        return step;
    step = &steps->items[steps->count++];
    *step = (struct instance_step){
        .path = path, .seq = event->seq, .kind = json_str_or(event->data, S("kind"), STR_NONE)};
    (void) map_put(steps->by_path, path, (void *) (uintptr_t) steps->count);
    return step;
}

static void note_ids(struct instance_steps *steps, const struct instance_step *step,
                     const struct json *data)
{
    str call = json_str_or(data, S("tool_call_id"), STR_NONE),
        child = json_str_or(data, S("child_run_id"), STR_NONE);
    void *place = (void *) ((uintptr_t) (step - steps->items) + 1);
    if (!str_is_empty(call))
        (void) map_put(steps->by_id, call, place);
    if (!str_is_empty(child))
        (void) map_put(steps->by_id, child, place);
}

/* Of a tool's call its row, of a child run the answer, of what stands in no other row the event. */
static str output_of(const struct run_recording *r, const struct instance_step *step,
                     const struct json *data)
{
    const struct record *call = recording_row(&r->tool_calls, step->call);
    if (json_get(data, S("output")))
        return json_print(r->arena, json_get(data, S("output")));
    if (call)
        return record_text(call, TOOL_CALLS_OUTPUT);
    const struct json *child = uuid_is_none(step->child) ? NULL : recording_child(r, step->child);
    const struct json *last = json_at(json_get(child, S("events")), 0), *message;
    str answer = json_str_or(json_get(last, S("data")), S("message_id"), STR_NONE);
    struct json_iter it = json_iter(json_get(child, S("messages")));
    while (json_next(&it, NULL, &message))
        if (str_equal(json_str_or(message, S("id"), STR_NONE), answer))
            return json_str_or(message, S("content"), STR_NONE);
    return STR_NONE;
}

static uuid id_of(const struct json *data, const char *member)
{
    uuid id;
    return uuid_parse(json_str_or(data, str_from_cstr(member), STR_NONE), &id) ? id : UUID_NONE;
}

static void add_event(struct instance_steps *steps, const struct run_recording *r,
                      const struct event *event, str *reserved_for)
{
    struct instance_step *step;
    cost used;
    switch ((int) event->type) {
    case EVENT_RUN_STEP_STARTED:
        step = find_or_add(steps, event);
        step->attempts = json_i64_or(event->data, S("attempt"), 1);
        step->status = S("running");
        step->error = step->output = STR_NONE;
        step->call = id_of(event->data, "tool_call_id");
        step->child = id_of(event->data, "child_run_id");
        note_ids(steps, step, event->data);
        break;
    case EVENT_RUN_STEP_COMPLETED:
        step = find_or_add(steps, event);
        step->status =
            json_bool_or(event->data, S("skipped"), false) ? S("skipped") : S("completed");
        step->output = output_of(r, step, event->data);
        break;
    case EVENT_RUN_STEP_FAILED:
        step = find_or_add(steps, event);
        step->status = json_get(event->data, S("retry_at")) ? S("retrying") : S("failed");
        step->error = json_str_or(event->data, S("error"), STR_NONE);
        break;
    case EVENT_TOOL_COMPLETED:
        *reserved_for = json_str_or(event->data, S("tool_call_id"), STR_NONE); /* settled next */
        break;
    case EVENT_BUDGET_SETTLED:
        step = at_place(steps, map_find(steps->by_id, *reserved_for));
        if (step && cost_read_json(json_get(event->data, S("amount")), &used))
            step->used = cost_add(step->used, used);
        break;
    default: break;
    }
}

static void read_steps(const struct run_recording *r, struct instance_steps *out)
{
    str reserved_for = STR_NONE;
    *out = (struct instance_steps){
        .items = ARENA_ARRAY(r->arena, struct instance_step, r->solid_count + 1),
        .by_path = map_create(),
        .by_id = map_create(),
    };
    for (size_t i = 0; i < r->solid_count; i++)
        add_event(out, r, &r->solid[i], &reserved_for);
}

static void drop_steps(struct instance_steps *steps)
{
    map_destroy(steps->by_path);
    map_destroy(steps->by_id);
}

/* ---- side by side ---- */

enum { ASPECT_COUNT = 6 };
static const char *const aspects[ASPECT_COUNT] = {"kind",   "status", "attempts",
                                                  "output", "error",  "cost"};

static unsigned compare(const struct instance_step *a, const struct instance_step *b)
{
    if (!a || !b)
        return ~0u;
    unsigned differs = !str_equal(a->kind, b->kind) ? 1u : 0;
    differs |= !str_equal(a->status, b->status) ? 2u : 0;
    differs |= a->attempts != b->attempts ? 4u : 0;
    differs |= !str_equal(a->output, b->output) ? 8u : 0;
    differs |= !str_equal(a->error, b->error) ? 16u : 0;
    bool costs_same = a->used.tokens == b->used.tokens && /* time is no aspect */
                      a->used.cost_nanousd == b->used.cost_nanousd &&
                      a->used.tool_calls == b->used.tool_calls;
    return differs | (costs_same ? 0 : 32u);
}

static void write_side(struct json_writer *w, str member, const struct instance_step *step)
{
    json_key(w, member);
    if (!step) {
        json_write_null(w);
        return;
    }
    json_object_begin(w);
    json_put_i64(w, S("seq"), step->seq);
    json_put_str(w, S("kind"), step->kind);
    json_put_str(w, S("status"), step->status);
    json_put_i64(w, S("attempts"), step->attempts);
    json_put_str(w, S("output"), str_cut_utf8(step->output, 4096));
    if (!str_is_empty(step->error))
        json_put_str(w, S("error"), step->error);
    json_key(w, S("cost"));
    cost_write_json(w, step->used);
    json_object_end(w);
}

static void write_pair(struct json_writer *w, size_t number, str path,
                       const struct instance_step *a, const struct instance_step *b)
{
    unsigned differs = compare(a, b);
    json_object_begin(w);
    json_put_i64(w, S("step"), (int64_t) number);
    json_put_str(w, S("path"), path);
    json_put_bool(w, S("same"), differs == 0);
    json_key(w, S("differs"));
    json_array_begin(w);
    for (size_t i = 0; i < ASPECT_COUNT && a && b; i++)
        if (differs >> i & 1u)
            json_write_str(w, str_from_cstr(aspects[i]));
    if (!a || !b)
        json_write_str(w, a ? S("only in a") : S("only in b"));
    json_array_end(w);
    write_side(w, S("a"), a);
    write_side(w, S("b"), b);
    json_object_end(w);
}

bool run_diff_instances(struct json_writer *w, const struct run_recording *left,
                        const struct run_recording *right)
{
    struct instance_steps a, b;
    bool is_same = true;
    size_t number = 0;
    read_steps(left, &a);
    read_steps(right, &b);
    json_key(w, S("steps"));
    json_array_begin(w);
    for (size_t i = 0; i < a.count;
         i++) { /* in the order of the first, then what only the other has */
        const struct instance_step *other = find(&b, a.items[i].path);
        is_same = is_same && compare(&a.items[i], other) == 0;
        write_pair(w, ++number, a.items[i].path, &a.items[i], other);
    }
    for (size_t i = 0; i < b.count; i++) {
        if (find(&a, b.items[i].path))
            continue;
        is_same = false;
        write_pair(w, ++number, b.items[i].path, NULL, &b.items[i]);
    }
    json_array_end(w);
    drop_steps(&a);
    drop_steps(&b);
    return is_same;
}
