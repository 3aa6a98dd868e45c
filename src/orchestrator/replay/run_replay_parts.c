#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/replay/run_replay_internal.h"
#include "orchestrator/run_answer_internal.h"
#include <stdlib.h>

/* ---- clock: wall time is that of the next recorded event ---- */

static struct replay *of_clock(struct clock *clock)
{
    return CONTAINER_OF(clock, struct replay_clock, base)->replay;
}

static int64_t recorded_us(const struct replay *r, size_t index)
{
    const struct run_recording *record = r->record;
    return record->solid[index < record->solid_count ? index : record->solid_count - 1].at_us;
}

static int64_t clock_now_us(struct clock *clock)
{
    struct replay *r = of_clock(clock);
    return recorded_us(r, r->next);
}

static int64_t clock_now_ns(struct clock *clock)
{
    return of_clock(clock)->mono_ns;
}

int64_t replay_ns(const struct replay *r, int64_t at_us)
{
    const struct run_recording *record = r->record;
    size_t first = record->begun > 0 ? record->begun - 1 : 0;
    int64_t since_us = at_us - record->solid[first].at_us;
    return 1000000000ll + (since_us > 0 ? since_us : 0) * 1000;
}

/* ---- the writer's tap ---- */

static int64_t delta_at(struct replay *r)
{
    const struct run_recording *record = r->record;
    while (r->delta_next < record->event_count &&
           record->events[r->delta_next].type != EVENT_MODEL_DELTA)
        r->delta_next++;
    return r->delta_next < record->event_count ? record->events[r->delta_next++].at_us
                                               : recorded_us(r, r->next);
}

static int64_t at_us(void *owner, enum event_type type)
{
    struct replay *r = owner;
    const struct run_recording *record = r->record;
    if (type == EVENT_MODEL_DELTA)
        return delta_at(r);
    bool is_there = r->next < record->solid_count;
    if (is_there && record->is_crash[r->next] && type != EVENT_RUN_RESUMED)
        r->is_crash_due = true; /* stored live, it would be recorded */
    r->is_open_ignored = r->is_crash_due || r->is_dead;
    r->open = r->next;
    int64_t at = recorded_us(r, r->next);
    if (!r->is_open_ignored)
        r->next++;
    return at;
}

static void appended(void *owner, const struct event *event)
{
    struct replay *r = owner;
    if (event->type == EVENT_MODEL_DELTA || r->is_open_ignored || r->is_dead)
        return;
    replay_compare_event(r, event);
    if (r->next < r->record->solid_count && r->record->solid[r->next].type == EVENT_RUN_CANCELLING)
        (void) replay_cancel(r);
}

static void flushed(void *owner)
{
    struct replay *r = owner;
    if (!r->is_dead)
        replay_deliver_next(r);
}

/* ---- oracle ---- */

static uuid id_member(const struct json *data, const char *member)
{
    uuid id;
    return uuid_parse(json_str_or(data, str_from_cstr(member), STR_NONE), &id) ? id : UUID_NONE;
}

static uuid fresh_id(struct replay *r)
{
    return uuid_new(&r->clock.base, r->random);
}

static bool is_handed_out(const struct replay *r, uuid id)
{
    for (size_t i = 0; i < r->nested_count; i++)
        if (uuid_equal(r->nested[i], id))
            return true;
    return false;
}

static bool is_models_call(const struct run_recording *record, str id)
{
    for (size_t i = 0; i < record->solid_count; i++) {
        struct json_iter it = json_iter(json_get(record->solid[i].data, S("tool_calls")));
        const struct json *call;
        while (record->solid[i].type == EVENT_MODEL_COMPLETED && json_next(&it, NULL, &call))
            if (str_equal(json_str_or(call, S("tool_call_id"), STR_NONE), id))
                return true;
    }
    return false;
}

/* The first decision or intent about a guest's call to this tool that nobody has. */
static uuid nested_id(struct replay *r, str name)
{
    const struct run_recording *record = r->record;
    for (size_t i = r->next; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        bool is_intent = event->type == EVENT_TOOL_INTENDED && recording_is(event, "name", name);
        bool is_decision =
            event->type == EVENT_POLICY_DECIDED && recording_is(event, "resource", name);
        str text = json_str_or(event->data, S("tool_call_id"), STR_NONE);
        uuid id;
        if ((!is_intent && !is_decision) || !uuid_parse(text, &id) || is_handed_out(r, id) ||
            is_models_call(record, text))
            continue;
        r->nested = arena_grow(r->arena, r->nested, r->nested_count * sizeof *r->nested,
                               (r->nested_count + 1) * sizeof *r->nested);
        r->nested[r->nested_count++] = id;
        return id;
    }
    return fresh_id(r);
}

static uuid new_id(void *owner, enum run_id_kind kind, size_t index, str name)
{
    struct replay *r = owner;
    static const enum event_type types[] = {
        [RUN_ID_RESERVATION] = EVENT_BUDGET_RESERVED, [RUN_ID_MESSAGE] = EVENT_MODEL_COMPLETED,
        [RUN_ID_TOOL_CALL] = EVENT_MODEL_COMPLETED,   [RUN_ID_APPROVAL] = EVENT_APPROVAL_REQUESTED,
        [RUN_ID_NESTED_CALL] = EVENT_TOOL_INTENDED,   [RUN_ID_SUMMARY] = EVENT_MESSAGE_SUMMARISED,
        [RUN_ID_STEERING] = EVENT_MESSAGE_ADDED,      [RUN_ID_STOPPED] = EVENT_RUN_LOOPING,
    };
    if (kind == RUN_ID_NESTED_CALL)
        return nested_id(r, name);
    size_t at = recording_find(r->record, r->next, types[kind]);
    if (at == r->record->solid_count || r->is_dead)
        return fresh_id(r);
    const struct json *data = r->record->solid[at].data;
    uuid id = UUID_NONE;
    switch (kind) {
    case RUN_ID_RESERVATION: id = id_member(data, "reservation_id"); break;
    case RUN_ID_MESSAGE:
    case RUN_ID_SUMMARY:
    case RUN_ID_STOPPED:
    case RUN_ID_STEERING: id = id_member(data, "message_id"); break;
    case RUN_ID_TOOL_CALL:
        id = id_member(json_at(json_get(data, S("tool_calls")), index), "tool_call_id");
        break;
    case RUN_ID_APPROVAL: id = id_member(data, "approval_id"); break;
    case RUN_ID_NESTED_CALL: break;
    }
    return uuid_is_none(id) ? fresh_id(r) : id;
}

static cost remaining(void *owner)
{
    struct replay *r = owner;
    const struct run_recording *record = r->record;
    for (size_t i = r->next; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        cost amount, left;
        const struct json *said = json_get(event->data, S("remaining"));
        if (event->type == EVENT_POLICY_DECIDED && !said)
            continue;
        if (event->type != EVENT_POLICY_DECIDED && event->type != EVENT_BUDGET_RESERVED)
            break;
        if (!cost_read_json(said, &left))
            break;
        if (event->type == EVENT_BUDGET_RESERVED) {
            if (!cost_read_json(json_get(event->data, S("amount")), &amount))
                break;
            left = cost_add(left, amount);
        }
        r->remaining = left;
        break;
    }
    return r->remaining;
}

static bool reserve(void *owner, struct error *e)
{
    struct replay *r = owner;
    if (r->next >= r->record->solid_count)
        return true;
    const struct event *event = &r->record->solid[r->next];
    bool is_end = event->type == EVENT_TOOL_COMPLETED || event->type == EVENT_RUN_FAILED;
    bool is_refusal = event->type == EVENT_BUDGET_REFUSED ||
                      event->type == EVENT_BUDGET_WIND_DOWN ||
                      (is_end && recording_is(event, "error", S("over_budget")));
    str message =
        json_str_or(event->data, S("message"), json_str_or(event->data, S("why"), STR_NONE));
    return !is_refusal || error_set(e, REASON_BUDGET, STR_FMT, STR_ARG(message));
}

static enum error_reason reason_of(const struct json *data)
{
    enum error_reason reason;
    return error_reason_find(json_str_or(data, S("error"), STR_NONE), &reason) ? reason
                                                                               : REASON_INTERNAL;
}

static bool target(void *owner, str *provider, str *model, struct error *e)
{
    struct replay *r = owner;
    const struct run_recording *record = r->record;
    for (size_t i = r->next; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        if (event->type == EVENT_MODEL_REQUESTED) {
            *provider = json_str_or(event->data, S("provider"), STR_NONE);
            *model = json_str_or(event->data, S("provider_model"), STR_NONE);
            return true;
        }
        if (event->type == EVENT_RUN_FAILED && !recording_is(event, "error", S("over_budget")) &&
            !recording_is(event, "error", S("policy_denied")))
            return error_set(e, reason_of(event->data), STR_FMT,
                             STR_ARG(json_str_or(event->data, S("message"), STR_NONE)));
        if (event->type == EVENT_RUN_FAILED || record->is_crash[i])
            break;
    }
    ensure(r->environment.model.target_count > 0);
    *provider = r->environment.targets[0].provider; /* the code refuses by itself, as it did */
    *model = r->environment.targets[0].model;
    return true;
}

static str environment(void *owner)
{
    struct replay *r = owner;
    size_t at = recording_find(r->record, r->next, EVENT_MODEL_REQUESTED);
    return at < r->record->solid_count
               ? json_str_or(r->record->solid[at].data, S("environment"), STR_NONE)
               : STR_NONE;
}

static bool may_go_on(void *owner)
{
    struct replay *r = owner;
    size_t at = recording_find(r->record, r->next, EVENT_MODEL_FAILED);
    return at < r->record->solid_count &&
           json_bool_or(r->record->solid[at].data, S("will_retry"), false);
}

/* ---- policy ---- */

static bool is_offered(const struct replay *r, str tool)
{
    const struct agent_definition *agent = &r->environment.agent;
    str name;
    for (size_t i = 0; str_strip_prefix(tool, S("agent:"), &name) && i < agent->agent_count; i++)
        if (str_equal(agent->agents[i].name, name))
            return is_offered(r, agent_link_tool(r->arena, &agent->agents[i]));
    for (size_t i = 0; i < r->environment.offered_count; i++)
        if (str_equal(r->environment.offered[i], tool))
            return true;
    return false;
}

static void decide(struct policy *base, struct context *ctx, const struct policy_input *input,
                   struct policy_decision *out)
{
    struct replay *r = CONTAINER_OF(base, struct replay_policy, base)->replay;
    (void) ctx;
    *out = (struct policy_decision){.reason = S("the recording has no such decision"),
                                    .rule = S("replay")};
    bool is_offer = str_equal(input->action, S("tool.call")) && str_is_empty(input->arguments);
    if (is_offer && is_offered(r, input->tool_name))
        out->verdict = POLICY_ALLOW;
    /* About a child run: its own journal has the decision, this one that it was begun. */
    if (str_equal(input->action, S("run.start")))
        out->verdict =
            recording_find(r->record, r->next, EVENT_RUN_CHILD_STARTED) < r->record->solid_count
                ? POLICY_ALLOW
                : POLICY_DENY;
    for (size_t i = r->next; !is_offer && i < r->record->solid_count; i++) {
        const struct event *event = &r->record->solid[i];
        if (event->type != EVENT_POLICY_DECIDED ||
            recording_is(event, "version", S("containment")) ||
            !recording_is(event, "action", input->action) ||
            !recording_is(event, "resource", input->resource))
            continue;
        out->verdict = recording_is(event, "verdict", S("allow"))            ? POLICY_ALLOW
                       : recording_is(event, "verdict", S("needs_approval")) ? POLICY_NEEDS_APPROVAL
                                                                             : POLICY_DENY;
        out->reason = json_str_or(event->data, S("reason"), STR_NONE);
        out->rule = json_str_or(event->data, S("rule"), STR_NONE);
        out->version = json_str_or(event->data, S("version"), STR_NONE);
        return;
    }
}

/* How many persons had to approve. */
static bool approval_demands(struct policy *base, struct context *ctx,
                             const struct policy_input *input, str *out, struct error *e)
{
    struct replay *r = CONTAINER_OF(base, struct replay_policy, base)->replay;
    (void) ctx, (void) input, (void) e;
    size_t at = recording_find(r->record, r->next, EVENT_APPROVAL_REQUESTED);
    int64_t quorum =
        at < r->record->solid_count ? json_i64_or(r->record->solid[at].data, S("quorum"), 1) : 1;
    *out = quorum > 1 ? str_printf(r->arena, "{\"quorum\":%lld}", (long long) quorum) : STR_NONE;
    return true;
}

static bool reload(struct policy *policy, struct error *e)
{
    (void) policy, (void) e;
    return true;
}

static void destroy_policy(struct policy *policy)
{
    (void) policy; /* part of the replay */
}

static const struct policy_ops policy_ops = {.name = "replay",
                                             .decide = decide,
                                             .approval_demands = approval_demands,
                                             .reload = reload,
                                             .destroy = destroy_policy};

/* ---- waiting ---- */

may_suspend_void static void wait_for_ever(struct replay *r, struct context *ctx)
{
    struct error never = {0};
    r->blocked++;
    (void) !condition_wait(&r->never, ctx, &never);
    r->blocked--;
}

/* A recorded end that a cancel brought waits for the cancel. */
static bool is_cancel(const struct run_recording *record, size_t at)
{
    return at < record->solid_count && recording_is(&record->solid[at], "error", S("cancelled")) &&
           recording_find(record, at, EVENT_RUN_CANCELLING) < record->solid_count;
}

may_suspend_void static void sleep_until(struct context *ctx, int64_t deadline_ns)
{
    struct error ignored = {0};
    (void) !context_sleep_until(ctx, deadline_ns, &ignored);
}

/* ---- provider ---- */

struct replay_stream {
    struct reply_stream base;
    struct replay *replay;
    struct arena *arena;
    struct delta *deltas;
    int64_t *due_ns;
    size_t count, position, end; /* end: its solid event */
    int64_t end_ns;
};

static bool next_delta(struct reply_stream *base, struct context *ctx, struct delta *out,
                       struct error *e)
{
    struct replay_stream *s = (struct replay_stream *) base;
    struct replay *r = s->replay;
    if (s->position < s->count) {
        sleep_until(ctx, s->due_ns[s->position]);
        *out = s->deltas[s->position++];
        return true;
    }
    if (r->emitting > 0 && s->position == s->count) {
        r->emitting--;
        s->position++;
    }
    if (s->end == r->record->solid_count || is_cancel(r->record, s->end)) {
        sleep_until(ctx, s->end_ns);
        wait_for_ever(r, ctx);
        if (s->end == r->record->solid_count)
            return error_set(e, REASON_CANCELLED, "the recording has no end of this call");
    } else {
        sleep_until(ctx, s->end_ns);
    }
    const struct event *end = &r->record->solid[s->end];
    if (end->type == EVENT_MODEL_FAILED)
        return error_set(e, reason_of(end->data), STR_FMT,
                         STR_ARG(json_str_or(end->data, S("message"), STR_NONE)));
    const struct json *usage = json_get(end->data, S("usage"));
    *out = (struct delta){.kind = DELTA_END};
    for (int i = FINISH_NONE; i <= FINISH_OTHER; i++)
        if (recording_is(end, "finish", str_from_cstr(finish_name((enum finish) i))))
            out->finish = (enum finish) i;
    out->usage = (struct usage){
        .input_tokens = json_i64_or(usage, S("input_tokens"), 0),
        .output_tokens = json_i64_or(usage, S("output_tokens"), 0),
        .cached_tokens = json_i64_or(usage, S("cached_tokens"), 0),
        .cache_write_tokens = json_i64_or(usage, S("cache_write_tokens"), 0),
        .reasoning_tokens = json_i64_or(usage, S("reasoning_tokens"), 0),
        .is_reported = json_bool_or(usage, S("is_reported"), false),
    };
    return true;
}

static void close_stream(struct reply_stream *base)
{
    struct replay_stream *s = (struct replay_stream *) base;
    if (s->position <= s->count && s->replay->emitting > 0)
        s->replay->emitting--;
    arena_destroy(s->arena);
    free(s);
}

static const struct reply_stream_ops stream_ops = {next_delta, close_stream};

static void add_delta(struct replay_stream *s, struct delta delta, int64_t due_ns)
{
    s->deltas[s->count] = delta;
    s->due_ns[s->count++] = due_ns;
}

/* When a piece came: as long before the end as in the recording. */
static int64_t piece_due_ns(const struct replay_stream *s, const struct event *piece)
{
    const struct run_recording *record = s->replay->record;
    int64_t now_ns = s->replay->mono_ns;
    if (s->end == record->solid_count)
        return now_ns;
    int64_t due_ns = s->end_ns - (record->solid[s->end].at_us - piece->at_us) * 1000;
    return due_ns > now_ns ? due_ns : now_ns;
}

/* The pieces of text as they were posted. */
static size_t add_pieces(struct replay_stream *s, str attempt)
{
    const struct run_recording *record = s->replay->record;
    size_t bytes = 0;
    int64_t least_ns = 0;
    for (size_t i = 0; i < record->event_count; i++) {
        const struct event *event = &record->events[i];
        if (event->type != EVENT_MODEL_DELTA ||
            !str_equal(str_i64(s->arena, json_i64_or(event->data, S("attempt"), 0)), attempt))
            continue;
        str text = json_str_or(event->data, S("text"), STR_NONE);
        int64_t due_ns = piece_due_ns(s, event);
        if (due_ns < least_ns)
            due_ns = least_ns;
        if (due_ns > s->end_ns && s->end < record->solid_count)
            due_ns = s->end_ns; /* the last piece goes out with the end */
        add_delta(s, (struct delta){.kind = DELTA_TEXT, .text = text}, due_ns);
        least_ns = due_ns + RUN_DELTA_DELAY_MS * 1000000ll;
        bytes += text.len;
    }
    return bytes;
}

static void add_call_delta(struct replay_stream *s, const struct part *part, int index)
{
    add_delta(
        s,
        (struct delta){
            .kind = DELTA_TOOL_CALL, .index = index, .call_id = part->call_id, .name = part->name},
        s->end_ns);
    add_delta(s,
              (struct delta){.kind = DELTA_TOOL_ARGUMENTS, .index = index, .text = part->arguments},
              s->end_ns);
}

/* The answer's row: thoughts, calls and what a provider must get back; its text is in the pieces, when it was all there. */
static bool add_answer(struct replay_stream *s, size_t piece_bytes, struct error *e)
{
    const struct run_recording *record = s->replay->record;
    const struct event *end = &record->solid[s->end];
    const struct record *row =
        recording_row(&record->messages, MESSAGES_ID, id_member(end->data, "message_id"));
    const struct json *parts = NULL;
    if (!row)
        return error_set(e, REASON_CORRUPT, "the recording has no message of the answer");
    if (record_has(row, MESSAGES_PARTS) &&
        !json_parse(s->arena, record_text(row, MESSAGES_PARTS), (struct json_limits){0}, &parts, e))
        return false;
    str content = record_text(row, MESSAGES_CONTENT);
    struct prompt_message message = run_answer_read(s->arena, content, parts);
    size_t pieces = s->count;
    bool is_in_pieces = piece_bytes == content.len && json_count(json_get(parts, S("order"))) == 0;
    struct delta *text = ARENA_ARRAY(s->arena, struct delta, pieces + 1);
    int64_t *due_ns = ARENA_ARRAY(s->arena, int64_t, pieces + 1);
    memcpy(text, s->deltas, pieces * sizeof *text);
    memcpy(due_ns, s->due_ns, pieces * sizeof *due_ns);
    s->deltas = ARENA_ARRAY(s->arena, struct delta, pieces + 2 * message.part_count + 1);
    s->due_ns = ARENA_ARRAY(s->arena, int64_t, pieces + 2 * message.part_count + 1);
    s->count = 0;
    bool has_text = false;
    int calls = 0;
    for (size_t i = 0; i < message.part_count; i++) {
        const struct part *part = &message.parts[i];
        if (part->kind == PART_TOOL_CALL)
            add_call_delta(s, part, calls++);
        else if (part->kind == PART_REASONING)
            add_delta(
                s,
                (struct delta){.kind = DELTA_REASONING, .text = part->text, .opaque = part->opaque},
                0);
        else if (!is_in_pieces)
            add_delta(
                s, (struct delta){.kind = DELTA_TEXT, .text = part->text, .opaque = part->opaque},
                pieces > 0 ? due_ns[0] : s->end_ns);
        else if (!has_text) {
            has_text = true;
            for (size_t k = 0; k < pieces; k++)
                add_delta(s, text[k], due_ns[k]);
        }
    }
    return true;
}

/* What a broken call had sent beside text is in no row; its size is, where it was paid for by it. */
static void add_unrecorded(struct replay_stream *s, const struct prompt *prompt, size_t bytes,
                           str reservation)
{
    const struct run_recording *record = s->replay->record;
    size_t at =
        recording_find_alive(record, s->end, EVENT_BUDGET_SETTLED, "reservation_id", reservation);
    cost used;
    if (at == record->solid_count || recording_is(&record->solid[at], "basis", S("reported")) ||
        !cost_read_json(json_get(record->solid[at].data, S("amount")), &used))
        return;
    int64_t more = used.tokens - prompt_input_tokens_bound(prompt) - (int64_t) bytes;
    if (more <= 0 || more > RUN_EXPORT_BYTES_MAX)
        return;
    char *filler = arena_alloc(s->arena, (size_t) more + 1);
    memset(filler, ' ', (size_t) more);
    add_delta(s, (struct delta){.kind = DELTA_REASONING, .text = str_of(filler, (size_t) more)},
              s->end_ns);
}

static int64_t attempt_ms(const struct run_recording *record, size_t end, str reservation)
{
    const struct event *event = &record->solid[end];
    cost used;
    if (event->type == EVENT_MODEL_COMPLETED)
        return json_i64_or(event->data, S("latency_ms"), 0);
    size_t at =
        recording_find_alive(record, end, EVENT_BUDGET_SETTLED, "reservation_id", reservation);
    return at < record->solid_count &&
                   cost_read_json(json_get(record->solid[at].data, S("amount")), &used)
               ? used.time_ms
               : 0;
}

static size_t find_end(const struct run_recording *record, size_t from, int64_t attempt)
{
    for (size_t i = from; i < record->solid_count && !record->is_crash[i]; i++) {
        const struct event *event = &record->solid[i];
        if ((event->type == EVENT_MODEL_COMPLETED || event->type == EVENT_MODEL_FAILED) &&
            json_i64_or(event->data, S("attempt"), 0) == attempt)
            return i;
    }
    return record->solid_count;
}

static bool open_stream(struct replay_stream *s, const struct prompt *prompt, struct error *e)
{
    struct replay *r = s->replay;
    const struct run_recording *record = r->record;
    const struct json *asked = NULL;
    for (size_t i = r->next; i > 0 && !asked; i--)
        if (record->solid[i - 1].type == EVENT_MODEL_REQUESTED)
            asked = record->solid[i - 1].data;
    int64_t attempt = json_i64_or(asked, S("attempt"), 0);
    str reservation = json_str_or(asked, S("reservation_id"), STR_NONE);
    s->end = find_end(record, r->next, attempt);
    bool has_end = s->end < record->solid_count;
    s->end_ns = r->mono_ns + (has_end ? attempt_ms(record, s->end, reservation) : 0) * 1000000ll;
    s->deltas = ARENA_ARRAY(s->arena, struct delta, record->event_count + 2);
    s->due_ns = ARENA_ARRAY(s->arena, int64_t, record->event_count + 2);
    size_t bytes = add_pieces(s, str_i64(s->arena, attempt));
    if (!has_end)
        return true;
    if (record->solid[s->end].type == EVENT_MODEL_COMPLETED)
        return add_answer(s, bytes, e);
    add_unrecorded(s, prompt, bytes, reservation);
    return true;
}

static bool stream(struct provider *base, struct context *ctx, const struct provider_call *how,
                   const struct prompt *prompt, struct reply_stream **out, struct error *e)
{
    struct replay *r = CONTAINER_OF(base, struct replay_provider, base)->replay;
    (void) how, (void) ctx;
    struct replay_stream *s = calloc(1, sizeof *s);
    ensure(s != NULL);
    *s =
        (struct replay_stream){.base = {.ops = &stream_ops}, .replay = r, .arena = arena_create(0)};
    r->report->model_calls++;
    r->emitting++;
    if (!open_stream(s, prompt, e)) {
        close_stream(&s->base);
        return false;
    }
    *out = &s->base;
    return true;
}

static bool complete(struct provider *base, struct context *ctx, const struct provider_call *how,
                     const struct prompt *prompt, struct reply *out, struct error *e)
{
    (void) base, (void) ctx, (void) how, (void) prompt, (void) out;
    return error_set(e, REASON_UNSUPPORTED, "runs stream their model calls");
}

static bool forward(struct provider *base, struct context *ctx, const struct provider_call *how,
                    str path, str body, struct http_exchange **out, struct error *e)
{
    (void) base, (void) ctx, (void) how, (void) path, (void) body, (void) out;
    return error_set(e, REASON_UNSUPPORTED, "a replay sends nothing");
}

static bool models(struct provider *base, struct context *ctx, str **names, size_t *count,
                   struct error *e)
{
    (void) base, (void) ctx, (void) names, (void) count;
    return error_set(e, REASON_UNSUPPORTED, "a replay asks nobody");
}

static void destroy_provider(struct provider *provider)
{
    (void) provider; /* part of the replay */
}

static const struct provider_ops real_ops = {
    .name = "replay",
    .complete = complete,
    .stream = stream,
    .forward = forward,
    .models = models,
    .destroy = destroy_provider,
};
static const struct provider_ops stand_in_ops = {
    .name = "replay",
    .is_stand_in = true,
    .complete = complete,
    .stream = stream,
    .forward = forward,
    .models = models,
    .destroy = destroy_provider,
};

struct provider *replay_provider(struct replay *r, str name, bool is_stand_in)
{
    for (size_t i = 0; i < r->provider_count; i++)
        if (str_equal(r->providers[i].base.name, name))
            return &r->providers[i].base;
    if (r->provider_count == REPLAY_PROVIDERS_MAX)
        return NULL;
    struct replay_provider *made = &r->providers[r->provider_count++];
    *made = (struct replay_provider){
        .base = {.ops = is_stand_in ? &stand_in_ops : &real_ops, .name = name}, .replay = r};
    return &made->base;
}

/* ---- executor ---- */

/* A guest makes the calls that it made, in their order. */
may_suspend_void static void make_guests_calls(struct replay *r, struct context *ctx,
                                               const struct tool_request *request, size_t end)
{
    const struct run_recording *record = r->record;
    char own[UUID_TEXT_BYTES + 1];
    uuid_format(request->call_id, own);
    for (size_t i = r->next; request->calls && i < end; i++) {
        const struct event *event = &record->solid[i];
        bool is_own = event->type == EVENT_TOOL_INTENDED &&
                      recording_is(event, "parent_id", str_of(own, UUID_TEXT_BYTES));
        bool is_refused =
            event->type == EVENT_POLICY_DECIDED && json_get(event->data, S("arguments")) != NULL;
        uuid id = id_member(event->data, "tool_call_id");
        const struct record *row = recording_row(&record->tool_calls, TOOL_CALLS_ID, id);
        if ((!is_own && !is_refused) || is_handed_out(r, id) || (is_own && !row))
            continue;
        str name = json_str_or(event->data, is_own ? S("name") : S("resource"), STR_NONE);
        str input = is_own ? record_text(row, TOOL_CALLS_INPUT)
                           : json_str_or(event->data, S("arguments"), STR_NONE);
        str output;
        struct error ignored = {0};
        sleep_until(ctx, replay_ns(r, event->at_us));
        (void) !request->calls->call(request->calls->owner, ctx, name, input, &output, &ignored);
    }
}

static bool execute(struct executor *base, struct context *ctx, const struct tool_request *request,
                    struct tool_result *out, struct error *e)
{
    struct replay *r = CONTAINER_OF(base, struct replay_executor, base)->replay;
    const struct run_recording *record = r->record;
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(request->call_id, id);
    size_t end = recording_find_alive(record, r->next, EVENT_TOOL_COMPLETED, "tool_call_id",
                                      str_of(id, UUID_TEXT_BYTES));
    *out = (struct tool_result){0};
    r->report->tool_calls++;
    make_guests_calls(r, ctx, request, end);
    if (end == record->solid_count) {
        wait_for_ever(r, ctx);
        return error_set(e, REASON_CANCELLED, "the recording has no end of this call");
    }
    const struct event *event = &record->solid[end];
    sleep_until(ctx, replay_ns(r, event->at_us));
    if (is_cancel(record, end))
        wait_for_ever(r, ctx);
    out->latency_ms = json_i64_or(event->data, S("latency_ms"), 0);
    out->latency_us = out->latency_ms * 1000;
    out->fuel = json_i64_or(event->data, S("fuel"), 0);
    if (request->heard && tool_may_call(request->tool, S("memory_search"))) {
        request->heard->label = label_read_json(json_get(event->data, S("label")));
        request->heard->is_told = true;
    }
    if (json_get(event->data, S("error")))
        return error_set(e, reason_of(event->data), STR_FMT,
                         STR_ARG(json_str_or(event->data, S("message"), STR_NONE)));
    const struct record *row = recording_row(&record->tool_calls, TOOL_CALLS_ID, request->call_id);
    if (!row)
        return error_set(e, REASON_CORRUPT, "the recording has no row of the tool call");
    out->output = record_text(row, TOOL_CALLS_OUTPUT);
    return true;
}

static void destroy_executor(struct executor *executor)
{
    (void) executor; /* part of the replay */
}

static const struct executor_ops executor_ops = {"replay", execute, destroy_executor};

void replay_parts_init(struct replay *r)
{
    static const struct clock_ops clock_ops = {.unix_us = clock_now_us,
                                               .monotonic_ns = clock_now_ns};
    r->clock = (struct replay_clock){.base = {.ops = &clock_ops}, .replay = r};
    r->policy = (struct replay_policy){.base = {.ops = &policy_ops}, .replay = r};
    r->executor = (struct replay_executor){.base = {.ops = &executor_ops}, .replay = r};
    r->oracle = (struct run_oracle){
        .owner = r,
        .run_id = r->record->run_id,
        .tap = {.owner = r, .at_us = at_us, .appended = appended, .flushed = flushed},
        .new_id = new_id,
        .remaining = remaining,
        .reserve = reserve,
        .target = target,
        .environment = environment,
        .may_go_on = may_go_on,
    };
}
