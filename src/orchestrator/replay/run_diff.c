#include "orchestrator/replay/run_diff.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/ledger/ledger.h"
#include "orchestrator/replay/run_diff_internal.h"

/* ---- a recording as steps ---- */

static uuid id_of(const struct json *data, const char *member)
{
    uuid id;
    return uuid_parse(json_str_or(data, str_from_cstr(member), STR_NONE), &id) ? id : UUID_NONE;
}

static str content_of(const struct run_recording *r, uuid id)
{
    const struct record *row = recording_row(&r->messages, id);
    return row ? record_text(row, MESSAGES_CONTENT) : STR_NONE;
}

static void read_call(const struct run_recording *r, const struct json *asked,
                      struct run_step_call *out)
{
    const struct record *row = recording_row(&r->tool_calls, id_of(asked, "tool_call_id"));
    *out = (struct run_step_call){.name = json_str_or(asked, S("name"), STR_NONE)};
    if (!row)
        return;
    out->arguments = record_text(row, TOOL_CALLS_INPUT);
    out->status = record_text(row, TOOL_CALLS_STATUS);
    out->result = record_has(row, TOOL_CALLS_OUTPUT) ? record_text(row, TOOL_CALLS_OUTPUT)
                                                     : record_text(row, TOOL_CALLS_ERROR_MESSAGE);
}

static void read_step(const struct run_recording *r, const struct event *event,
                      const struct json *asked, struct run_step *out)
{
    struct json_iter it = json_iter(json_get(event->data, S("tool_calls")));
    const struct json *call;
    out->seq = event->seq;
    out->model = json_str_or(asked, S("model"), STR_NONE);
    out->provider = json_str_or(asked, S("provider"), STR_NONE);
    out->finish = json_str_or(event->data, S("finish"), STR_NONE);
    out->text = content_of(r, id_of(event->data, "message_id"));
    out->calls = ARENA_ARRAY(r->arena, struct run_step_call, it.count + 1);
    while (json_next(&it, NULL, &call))
        read_call(r, call, &out->calls[out->call_count++]);
}

/* Which call of the step an event is about. */
static struct run_step_call *find_call(const struct run_recording *r, struct run_step *step,
                                       const struct event *event)
{
    const struct record *row = recording_row(&r->tool_calls, id_of(event->data, "tool_call_id"));
    for (size_t i = 0; row && i < step->call_count; i++)
        if (str_equal(step->calls[i].name, record_text(row, TOOL_CALLS_TOOL_NAME)) &&
            str_equal(step->calls[i].arguments, record_text(row, TOOL_CALLS_INPUT)))
            return &step->calls[i];
    return NULL;
}

size_t run_steps(const struct run_recording *r, struct run_step **out)
{
    const struct json *asked = NULL;
    struct run_step *steps = ARENA_ARRAY(r->arena, struct run_step, r->solid_count + 1);
    size_t count = 0;
    for (size_t i = 0; i < r->solid_count; i++) {
        const struct event *event = &r->solid[i];
        struct run_step *step = count > 0 ? &steps[count - 1] : NULL;
        cost used;
        if (event->type == EVENT_MODEL_REQUESTED)
            asked = event->data;
        if (event->type == EVENT_MODEL_COMPLETED)
            read_step(r, event, asked, &steps[count++]);
        if (event->type == EVENT_POLICY_DECIDED && step && find_call(r, step, event))
            find_call(r, step, event)->verdict = json_str_or(event->data, S("verdict"), STR_NONE);
        if (event->type == EVENT_BUDGET_SETTLED && count > 0 &&
            cost_read_json(json_get(event->data, S("amount")), &used))
            steps[count - 1].used = cost_add(steps[count - 1].used, used);
    }
    *out = steps;
    return count;
}

str run_answer_of(const struct run_recording *r)
{
    size_t at = recording_find(r, 0, EVENT_RUN_COMPLETED);
    return at < r->solid_count ? content_of(r, id_of(r->solid[at].data, "message_id")) : STR_NONE;
}

/* ---- side by side ---- */

static void write_call(struct json_writer *w, const struct run_step_call *call)
{
    json_object_begin(w);
    json_put_str(w, S("name"), call->name);
    if (!str_is_empty(call->arguments))
        json_put_raw(w, S("arguments"), call->arguments);
    json_put_str(w, S("status"), call->status);
    if (!str_is_empty(call->verdict))
        json_put_str(w, S("verdict"), call->verdict);
    json_put_str(w, S("result"), str_cut_utf8(call->result, 4096));
    json_object_end(w);
}

static void write_step(struct json_writer *w, str member, const struct run_step *step)
{
    json_key(w, member);
    if (!step) {
        json_write_null(w);
        return;
    }
    json_object_begin(w);
    json_put_i64(w, S("seq"), step->seq);
    json_put_str(w, S("model"), step->model);
    json_put_str(w, S("provider"), step->provider);
    json_put_str(w, S("text"), str_cut_utf8(step->text, 16384));
    json_put_str(w, S("finish"), step->finish);
    json_key(w, S("cost"));
    cost_write_json(w, step->used);
    json_key(w, S("tool_calls"));
    json_array_begin(w);
    for (size_t i = 0; i < step->call_count; i++)
        write_call(w, &step->calls[i]);
    json_array_end(w);
    json_object_end(w);
}

enum { ASPECT_COUNT = 7 };
static const char *const aspects[ASPECT_COUNT] = {"model",    "text",    "tool_calls", "arguments",
                                                  "verdicts", "results", "cost"};

/* A bit per aspect; time is no aspect: two runs never take the same. */
static unsigned compare(const struct run_step *a, const struct run_step *b)
{
    if (!a || !b)
        return ~0u;
    unsigned differs = !str_equal(a->model, b->model) ? 1u : 0;
    differs |= !str_equal(a->text, b->text) ? 2u : 0;
    differs |= a->call_count != b->call_count ? 4u : 0;
    for (size_t i = 0; i < a->call_count && i < b->call_count; i++) {
        const struct run_step_call *x = &a->calls[i], *y = &b->calls[i];
        differs |= !str_equal(x->name, y->name) ? 4u : 0;
        differs |= !str_equal(x->arguments, y->arguments) ? 8u : 0;
        differs |= !str_equal(x->verdict, y->verdict) ? 16u : 0;
        differs |= !str_equal(x->status, y->status) || !str_equal(x->result, y->result) ? 32u : 0;
    }
    bool costs_same = a->used.tokens == b->used.tokens &&
                      a->used.cost_nanousd == b->used.cost_nanousd &&
                      a->used.tool_calls == b->used.tool_calls;
    return differs | (costs_same ? 0 : 64u);
}

static void write_pair(struct json_writer *w, size_t number, const struct run_step *a,
                       const struct run_step *b, unsigned differs)
{
    json_object_begin(w);
    json_put_i64(w, S("step"), (int64_t) number);
    json_put_bool(w, S("same"), differs == 0);
    json_key(w, S("differs"));
    json_array_begin(w);
    for (size_t i = 0; i < ASPECT_COUNT && a && b; i++)
        if (differs >> i & 1u)
            json_write_str(w, str_from_cstr(aspects[i]));
    if (!a || !b)
        json_write_str(w, a ? S("only in a") : S("only in b"));
    json_array_end(w);
    write_step(w, S("a"), a);
    write_step(w, S("b"), b);
    json_object_end(w);
}

static void write_run(struct json_writer *w, str member, const struct run_recording *r,
                      size_t steps)
{
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(r->run_id, id);
    json_key(w, member);
    json_object_begin(w);
    json_put_str(w, S("run_id"), str_of(id, UUID_TEXT_BYTES));
    json_put_str(w, S("status"), record_text(&r->run, AGENT_RUNS_STATUS));
    json_put_i64(w, S("steps"), (int64_t) steps);
    json_put_raw(w, S("cost"), record_text(&r->run, AGENT_RUNS_COST));
    json_put_str(w, S("answer"), str_cut_utf8(run_answer_of(r), 16384));
    json_object_end(w);
}

/* Runs of agents: the n-th step of one beside the n-th of the other. */
static bool write_steps(struct json_writer *w, const struct run_step *left, size_t left_count,
                        const struct run_step *right, size_t right_count)
{
    size_t most = left_count > right_count ? left_count : right_count;
    bool is_same = true;
    json_key(w, S("steps"));
    json_array_begin(w);
    for (size_t i = 0; i < most; i++) {
        const struct run_step *x = i < left_count ? &left[i] : NULL,
                              *y = i < right_count ? &right[i] : NULL;
        unsigned differs = compare(x, y);
        is_same = is_same && differs == 0;
        write_pair(w, i + 1, x, y, differs);
    }
    json_array_end(w);
    return is_same;
}

bool run_diff_json(struct arena *arena, str a, str b, str *out, bool *is_same, struct error *e)
{
    struct run_recording *left = ARENA_NEW(arena, struct run_recording),
                         *right = ARENA_NEW(arena, struct run_recording);
    struct run_step *left_steps, *right_steps;
    struct strbuf text;
    struct json_writer w;
    if (!run_recording_read(arena, a, left, e) || !run_recording_read(arena, b, right, e))
        return false;
    bool is_instance = record_has(&left->run, AGENT_RUNS_WORKFLOW);
    if (is_instance != record_has(&right->run, AGENT_RUNS_WORKFLOW))
        return error_set(e, REASON_INVALID,
                         "one is a run of an agent, the other an instance of a workflow: they have "
                         "no steps in common");
    size_t left_count = run_steps(left, &left_steps), right_count = run_steps(right, &right_steps);
    strbuf_init(&text, arena, RUN_EXPORT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    write_run(&w, S("a"), left, left_count);
    write_run(&w, S("b"), right, right_count);
    *is_same = is_instance ? run_diff_instances(&w, left, right)
                           : write_steps(&w, left_steps, left_count, right_steps, right_count);
    *is_same = *is_same && str_equal(record_text(&left->run, AGENT_RUNS_STATUS),
                                     record_text(&right->run, AGENT_RUNS_STATUS));
    json_put_bool(&w, S("same"), *is_same);
    json_object_end(&w);
    *out = strbuf_str(&text);
    return !strbuf_is_over(&text) || error_set(e, REASON_TOO_LARGE, "the comparison is too long");
}
