#include "base/arena.h"
#include "orchestrator/replay/run_replay_internal.h"

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

bool replay_is_crash_next(const struct replay *r)
{
    const struct run_recording *record = r->record;
    return r->next < record->solid_count && record->lives[r->next] > r->life;
}

static int64_t delta_at(struct replay *r)
{
    const struct run_recording *record = r->record;
    while (r->delta_next < record->event_count &&
           record->events[r->delta_next].type != EVENT_MODEL_DELTA)
        r->delta_next++;
    return r->delta_next < record->event_count ? record->events[r->delta_next++].at_us
                                               : recorded_us(r, r->next);
}

/* What is recorded was stored, wherever the live run's batches ended: where little was left it stored what it had used, to have room. */
static void store_recorded(struct replay *r)
{
    const struct run *run = replay_live(r);
    struct batch batch;
    struct error e = {0};
    if (!run || run->state.last_seq == run->journal.flushed_seq)
        return;
    batch_init(&batch, r->arena, r->record->tenant_id);
    for (size_t i = 0; i < run->journal.batch.count; i++) {
        (void) batch_add(&batch, WRITE_INSERT, TABLE_RUN_EVENTS);
        batch.writes[i] = run->journal.batch.writes[i];
    }
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, r->record->run_id);
    record_set_integer(row, AGENT_RUNS_LAST_SEQ, run->state.last_seq);
    if (!store_submit(r->store, &batch, &e))
        replay_differs(r, 0, S("scratch store"), STR_NONE, str_from_cstr(e.message));
}

static int64_t at_us(void *owner, enum event_type type)
{
    struct replay *r = owner;
    if (type == EVENT_MODEL_DELTA)
        return delta_at(r);
    if (type == EVENT_RUN_RESUMED && replay_is_crash_next(r))
        r->life = r->record->lives[r->next]; /* its first node did nothing with it */
    if (replay_is_crash_next(r)) {
        if (!r->is_crash_due && !r->is_dead && !r->is_workflow)
            store_recorded(r);
        r->is_crash_due = true; /* stored live, it would be recorded */
    }
    r->is_open_ignored = r->is_crash_due || r->is_dead;
    r->open = r->next;
    int64_t at = recorded_us(r, r->next);
    if (!r->is_open_ignored)
        r->next++;
    return at;
}

/* News that came between a look and the rest that it led to: the run does not leave memory for it. */
static void note_rest(struct replay *r, const struct event *event)
{
    const struct run_recording *record = r->record;
    struct run *run = replay_live(r);
    bool waits = event->type == EVENT_RUN_WAITING || event->type == EVENT_APPROVAL_VOTED;
    if (run && waits && !r->is_workflow && r->next < record->solid_count &&
        record->solid[r->next].type != EVENT_RUN_RESUMED)
        run->is_woken = true;
}

static void appended(void *owner, const struct event *event)
{
    struct replay *r = owner;
    if (event->type == EVENT_MODEL_DELTA || r->is_open_ignored || r->is_dead)
        return;
    replay_compare_event(r, event);
    replay_hear_at_once(r);
    if (r->is_workflow) /* its turn is not broken off: it hears of it before the next one */
        return;
    if (r->next < r->record->solid_count && !replay_is_crash_next(r) &&
        r->record->solid[r->next].type == EVENT_RUN_CANCELLING)
        (void) replay_cancel(r);
    note_rest(r, event);
}

/* It was about to wait, and was woken before it had left memory: then no run.resumed follows. */
static void stir(struct replay *r)
{
    const struct run_recording *record = r->record;
    struct run *run = replay_live(r);
    bool waits = r->next > 0 && r->next < record->solid_count &&
                 record->solid[r->next - 1].type == EVENT_RUN_WAITING;
    if (!run || !waits || r->stirred == r->next + 1 || replay_is_crash_next(r) ||
        record->solid[r->next].type == EVENT_RUN_RESUMED)
        return;
    r->stirred = r->next + 1;
    run->is_woken = true;
}

static void flushed(void *owner)
{
    struct replay *r = owner;
    if (r->is_dead)
        return;
    stir(r);
    if (r->is_workflow)
        replay_workflow_flushed(r);
    else
        replay_deliver_next(r);
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

/* About a child run: its own journal has the decision, this one that it was begun, or why not. */
static void decide_child(struct replay *r, struct policy_decision *out)
{
    const struct run_recording *record = r->record;
    size_t at = r->next;
    if (at < record->solid_count && record->solid[at].type == EVENT_RUN_STEP_STARTED)
        at++; /* begun and failed at once */
    else if (recording_find(record, at, EVENT_RUN_CHILD_STARTED) < record->solid_count) {
        out->verdict = POLICY_ALLOW;
        return;
    }
    str why = at < record->solid_count ? json_str_or(record->solid[at].data, S("message"), STR_NONE)
                                       : STR_NONE;
    size_t said = str_find(why, S("\": "));
    out->reason = said == STR_NOT_FOUND ? STR_NONE : str_from(why, said + 3);
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
    if (str_equal(input->action, S("run.start"))) {
        decide_child(r, out);
        return;
    }
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

/* The request that is asked about: one that is decided now, else the next. */
static const struct event *request_of(const struct replay *r)
{
    const struct run_recording *record = r->record;
    str id = STR_NONE;
    if (r->next < record->solid_count && record->solid[r->next].type == EVENT_APPROVAL_DECIDED)
        id = json_str_or(record->solid[r->next].data, S("approval_id"), STR_NONE);
    for (size_t i = r->next; i > 0 && !str_is_empty(id); i--)
        if (record->solid[i - 1].type == EVENT_APPROVAL_REQUESTED &&
            recording_is(&record->solid[i - 1], "approval_id", id))
            return &record->solid[i - 1];
    size_t at = recording_find(record, r->next, EVENT_APPROVAL_REQUESTED);
    return at < record->solid_count ? &record->solid[at] : NULL;
}

/* How many persons had to approve, who, and until when. */
static bool approval_demands(struct policy *base, struct context *ctx,
                             const struct policy_input *input, str *out, struct error *e)
{
    struct replay *r = CONTAINER_OF(base, struct replay_policy, base)->replay;
    const struct event *asked = request_of(r);
    (void) ctx, (void) input, (void) e;
    *out = STR_NONE;
    if (!asked)
        return true;
    const struct record *row =
        recording_row(&r->record->approvals, replay_id_member(asked->data, "approval_id"));
    int64_t quorum = json_i64_or(asked->data, S("quorum"), 1);
    int64_t expires_ms = (json_i64_or(asked->data, S("expires_at"), 0) - asked->at_us) / 1000;
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, r->arena, 64u << 10);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    if (quorum > 1)
        json_put_i64(&w, S("quorum"), quorum);
    if (expires_ms > 0 && expires_ms != r->environment.approval_expiry_ms)
        json_put_str(&w, S("expires"), str_printf(r->arena, "%lldms", (long long) expires_ms));
    if (row && record_has(row, APPROVALS_APPROVERS))
        json_put_raw(&w, S("approvers"), record_text(row, APPROVALS_APPROVERS));
    json_object_end(&w);
    *out = strbuf_str(&text);
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

/* ---- executor ---- */

/* A guest's own intents say whose they are; what was refused to a guest has no other trace than the decision. */
static bool is_guests(const struct replay *r, const struct event *event, str own, bool *is_intent)
{
    uuid id = replay_id_member(event->data, "tool_call_id");
    *is_intent = event->type == EVENT_TOOL_INTENDED && recording_is(event, "parent_id", own);
    bool is_refused =
        event->type == EVENT_POLICY_DECIDED && json_get(event->data, S("arguments")) != NULL;
    str parent = json_str_or(event->data, S("parent_id"), own); /* older journals do not say */
    return (*is_intent || (is_refused && str_equal(parent, own))) && !replay_is_handed_out(r, id);
}

/* A guest makes the calls that it made, in their order. */
may_suspend_void static void make_guests_calls(struct replay *r, struct context *ctx,
                                               const struct tool_request *request, size_t end)
{
    const struct run_recording *record = r->record;
    char text[UUID_TEXT_BYTES + 1];
    uuid_format(request->call_id, text);
    str own = str_of(text, UUID_TEXT_BYTES);
    for (size_t i = r->next; request->calls && i < end; i++) {
        const struct event *event = &record->solid[i];
        bool is_intent;
        if (!is_guests(r, event, own, &is_intent))
            continue;
        uuid id = replay_id_member(event->data, "tool_call_id");
        const struct record *row = recording_row(&record->tool_calls, id);
        if (is_intent && !row)
            continue;
        str name = json_str_or(event->data, is_intent ? S("name") : S("resource"), STR_NONE);
        str input = is_intent ? record_text(row, TOOL_CALLS_INPUT)
                              : json_str_or(event->data, S("arguments"), STR_NONE);
        str output;
        struct error ignored = {0};
        replay_wait_until_told(r, ctx, recording_named(record, id));
        (void) !request->calls->call(request->calls->owner, ctx, name, input, &output, &ignored);
    }
}

/*
 * The place of a call's end.  A guest that ends one call and asks for the next in one turn has the second asked for in the journal before
 * the first is settled: then it goes on at that place.
 */
static size_t turn_of_end(const struct replay *r, uuid call_id, size_t end)
{
    struct run *run = replay_live(r);
    const struct call *call = run ? run_state_call(&run->state, call_id) : NULL;
    char text[UUID_TEXT_BYTES + 1];
    if (!call || !call->parent || r->is_workflow)
        return end;
    uuid_format(call->parent->id, text);
    for (size_t i = r->next; i < end; i++) {
        bool is_intent;
        if (is_guests(r, &r->record->solid[i], str_of(text, UUID_TEXT_BYTES), &is_intent))
            return recording_named(r->record,
                                   replay_id_member(r->record->solid[i].data, "tool_call_id"));
    }
    return end;
}

static bool execute(struct executor *base, struct context *ctx, const struct tool_request *request,
                    struct tool_result *out, struct error *e)
{
    struct replay *r = CONTAINER_OF(base, struct replay_executor, base)->replay;
    const struct run_recording *record = r->record;
    size_t end = recording_end_of(record, r->life, request->call_id);
    *out = (struct tool_result){0};
    r->report->tool_calls++;
    make_guests_calls(r, ctx, request, end);
    replay_wait_until_told(r, ctx, turn_of_end(r, request->call_id, end));
    if (end == record->solid_count)
        return error_set(e, REASON_CANCELLED, "the recording has no end of this call");
    const struct event *event = &record->solid[end];
    out->latency_ms = json_i64_or(event->data, S("latency_ms"), 0);
    out->latency_us = out->latency_ms * 1000;
    out->fuel = json_i64_or(event->data, S("fuel"), 0);
    if (request->heard && tool_may_call(request->tool, S("memory_search"))) {
        request->heard->label = label_read_json(json_get(event->data, S("label")));
        request->heard->is_told = true;
    }
    if (json_get(event->data, S("error")))
        return error_set(e, replay_reason_of(event->data), STR_FMT,
                         STR_ARG(json_str_or(event->data, S("message"), STR_NONE)));
    const struct record *row = recording_row(&record->tool_calls, request->call_id);
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
    replay_oracle_init(r);
    r->oracle.tap =
        (struct journal_tap){.owner = r, .at_us = at_us, .appended = appended, .flushed = flushed};
}
