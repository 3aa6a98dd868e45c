/* What comes from outside, live, comes from the record: ids, what is left, refusals, targets, waits. */
#include "base/arena.h"
#include "base/ensure.h"
#include "orchestrator/replay/run_replay_internal.h"

uuid replay_id_member(const struct json *data, const char *member)
{
    uuid id;
    return uuid_parse(json_str_or(data, str_from_cstr(member), STR_NONE), &id) ? id : UUID_NONE;
}

enum error_reason replay_reason_of(const struct json *data)
{
    enum error_reason reason;
    str name = json_str_or(data, S("error"), STR_NONE);
    if (str_equal(name, S("interrupted"))) /* run_model.c: the node was stopped */
        return REASON_DRAINING;
    return error_reason_find(name, &reason) ? reason : REASON_INTERNAL;
}

/* The event that comes next; NULL: the record ends here. */
static const struct event *next_event(const struct replay *r)
{
    return r->next < r->record->solid_count ? &r->record->solid[r->next] : NULL;
}

static bool is_next(const struct replay *r, enum event_type type)
{
    const struct event *event = next_event(r);
    return event && event->type == type;
}

/* ---- ids ---- */

static uuid fresh_id(struct replay *r)
{
    return uuid_new(&r->clock.base, r->random);
}

bool replay_is_handed_out(const struct replay *r, uuid id)
{
    size_t at = recording_named(r->record, id);
    return at < r->record->solid_count && r->handed_out[at];
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
        uuid id = replay_id_member(event->data, "tool_call_id");
        if ((!is_intent && !is_decision) || uuid_is_none(id) || replay_is_handed_out(r, id) ||
            recording_is_asked(record, id))
            continue;
        r->handed_out[recording_named(record, id)] = true;
        return id;
    }
    return fresh_id(r);
}

/* Of an answer: a model's, another agent's after a handoff, or an earlier one. */
static size_t next_answer(const struct replay *r)
{
    const struct run_recording *record = r->record;
    for (size_t i = r->next; i < record->solid_count; i++) {
        enum event_type type = record->solid[i].type;
        bool may_have = type == EVENT_TOOL_COMPLETED || type == EVENT_RUN_DEGRADED;
        if (type == EVENT_MODEL_COMPLETED ||
            (may_have && json_get(record->solid[i].data, S("message_id"))))
            return i;
    }
    return record->solid_count;
}

static uuid new_id(void *owner, enum run_id_kind kind, size_t index, str name)
{
    struct replay *r = owner;
    static const struct {
        enum event_type type;
        const char *member;
    } places[] = {
        [RUN_ID_RESERVATION] = {EVENT_BUDGET_RESERVED, "reservation_id"},
        [RUN_ID_MESSAGE] = {EVENT_MODEL_COMPLETED, "message_id"},
        [RUN_ID_TOOL_CALL] = {EVENT_MODEL_COMPLETED, "tool_call_id"}, /* of one of its calls */
        [RUN_ID_APPROVAL] = {EVENT_APPROVAL_REQUESTED, "approval_id"},
        [RUN_ID_NESTED_CALL] = {EVENT_TOOL_INTENDED, "tool_call_id"},
        [RUN_ID_STOPPED] = {EVENT_RUN_LOOPING, "message_id"},
        [RUN_ID_SUMMARY] = {EVENT_MESSAGE_SUMMARISED, "message_id"},
        [RUN_ID_STEERING] = {EVENT_MESSAGE_ADDED, "message_id"},
        [RUN_ID_OUTPUT] = {EVENT_RUN_COMPLETED, "message_id"},
    };
    if (kind == RUN_ID_NESTED_CALL)
        return nested_id(r, name);
    size_t at = kind == RUN_ID_MESSAGE ? next_answer(r)
                                       : recording_find(r->record, r->next, places[kind].type);
    if (at == r->record->solid_count || r->is_dead)
        return fresh_id(r);
    const struct json *data = r->record->solid[at].data;
    if (kind == RUN_ID_TOOL_CALL)
        data = json_at(json_get(data, S("tool_calls")), index);
    uuid id = replay_id_member(data, places[kind].member);
    return uuid_is_none(id) ? fresh_id(r) : id;
}

/* ---- accounts ---- */

/* Of a step that failed as soon as it was begun, if that is what comes next: its end.  NULL: it is not. */
static const struct event *refused_step(const struct replay *r)
{
    const struct run_recording *record = r->record;
    size_t end = r->next + 1;
    if (!is_next(r, EVENT_RUN_STEP_STARTED) || end >= record->solid_count || record->is_crash[end])
        return NULL;
    const struct event *begun = &record->solid[end - 1], *ended = &record->solid[end];
    bool is_same = recording_is(ended, "step", json_str_or(begun->data, S("step"), STR_NONE));
    bool has_child = json_get(begun->data, S("child_run_id")) != NULL;
    return ended->type == EVENT_RUN_STEP_FAILED && is_same && !has_child ? ended : NULL;
}

/* A run that is started gets no more than there is: the record has its ceiling, or that nothing was left for it. */
static bool is_left_for_child(const struct replay *r, cost *left)
{
    const struct event *event = next_event(r);
    if (is_next(r, EVENT_RUN_CHILD_STARTED)) {
        *left = COST_LIMITLESS;
        (void) cost_read_json(json_get(event->data, S("budget")), left);
        return true;
    }
    const struct event *refused = refused_step(r);
    if (!refused || !recording_is(refused, "error", S("over_budget")))
        return false;
    *left = (cost){0};
    return true;
}

static cost remaining(void *owner)
{
    struct replay *r = owner;
    const struct run_recording *record = r->record;
    cost left;
    if (is_left_for_child(r, &left))
        return left;
    for (size_t i = r->next; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        cost amount;
        const struct json *said = json_get(event->data, S("remaining"));
        bool may_lack = event->type == EVENT_POLICY_DECIDED ||
                        event->type == EVENT_MESSAGE_SUMMARISED; /* no budget asked for it */
        if (may_lack && !said)
            continue;
        if (!may_lack && event->type != EVENT_BUDGET_RESERVED)
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

/* What ended the step that puts a conversation together before it came to its call. */
static bool is_call_given_up(const struct event *event)
{
    switch ((int) event->type) {
    case EVENT_BUDGET_REFUSED:
    case EVENT_BUDGET_WIND_DOWN:
    case EVENT_RUN_DEGRADED:
    case EVENT_RUN_CANCELLING:
    case EVENT_RUN_RESUMED:
    case EVENT_RUN_WAITING: return true;
    case EVENT_RUN_LOOPING: return recording_is(event, "action", S("stopped"));
    default: return event_is_final(event->type);
    }
}

/* A summary says what it was made to fit, else the call after it does.  Where none came of it no summary was made either: there was room. */
static cost room(void *owner)
{
    struct replay *r = owner;
    const struct run_recording *record = r->record;
    cost left = COST_LIMITLESS;
    if (is_next(r, EVENT_MESSAGE_SUMMARISED) &&
        cost_read_json(json_get(next_event(r)->data, S("remaining")), &left))
        return left;
    for (size_t i = r->next; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        if (is_call_given_up(event))
            return COST_LIMITLESS;
        if (event->type != EVENT_MODEL_REQUESTED || json_get(event->data, S("purpose")))
            continue;
        left = COST_LIMITLESS;
        left.tokens = json_i64_or(event->data, S("room"), COST_UNLIMITED);
        return left.tokens == COST_UNLIMITED ? remaining(owner) : left; /* older: it is not told */
    }
    return COST_LIMITLESS;
}

static cost takes(void *owner)
{
    struct replay *r = owner;
    cost left = remaining(owner), amount;
    if (is_next(r, EVENT_BUDGET_RESERVED) &&
        cost_read_json(json_get(next_event(r)->data, S("amount")), &amount)) {
        left.tokens = amount.tokens;
        left.time_ms = amount.time_ms;
    }
    return left;
}

static bool reserve(void *owner, struct error *e)
{
    struct replay *r = owner;
    const struct event *event = next_event(r);
    if (!event)
        return true;
    bool is_refusal =
        event->type == EVENT_BUDGET_REFUSED || event->type == EVENT_BUDGET_WIND_DOWN ||
        (event->type == EVENT_RUN_DEGRADED && recording_is(event, "why", S("budget_low"))) ||
        (event->type == EVENT_RUN_FAILED && recording_is(event, "error", S("over_budget")));
    str message =
        json_str_or(event->data, S("message"), json_str_or(event->data, S("why"), STR_NONE));
    if (event->type == EVENT_TOOL_COMPLETED) /* a reservation that is made stands before it */
        return error_set(e, replay_reason_of(event->data), STR_FMT, STR_ARG(message));
    return !is_refusal || error_set(e, REASON_BUDGET, STR_FMT, STR_ARG(message));
}

static bool level_of(str name, enum account_level *out)
{
    for (int i = 0; i < ACCOUNT_LEVEL_COUNT; i++)
        if (str_equal(str_from_cstr(account_level_name((enum account_level) i)), name)) {
            *out = (enum account_level) i;
            return true;
        }
    return false;
}

static void alerts(void *owner, struct ledger_alerts *out)
{
    struct replay *r = owner;
    const struct run_recording *record = r->record;
    out->count = 0;
    for (size_t i = r->next; i < record->solid_count && out->count < LEDGER_ALERTS_MAX; i++) {
        const struct event *event = &record->solid[i];
        struct ledger_alert *alert = &out->items[out->count];
        if (event->type != EVENT_BUDGET_ALERTED)
            break;
        *alert = (struct ledger_alert){
            .subject = json_str_or(event->data, S("subject"), STR_NONE),
            .resource = "",
            .threshold = (int) json_i64_or(event->data, S("threshold"), 0),
        };
        for (int k = 0; k < COST_FIELD_COUNT; k++)
            if (recording_is(event, "resource", str_from_cstr(cost_field_name(k))))
                alert->resource = cost_field_name(k);
        out->count += level_of(json_str_or(event->data, S("level"), STR_NONE), &alert->level);
    }
}

/* ---- model calls ---- */

static bool fail_as(const struct event *event, struct error *e)
{
    if (event->type == EVENT_RUN_DEGRADED) /* what it was is in no row: its cause is */
        return error_set(
            e, recording_is(event, "why", S("budget_low")) ? REASON_BUDGET : REASON_UNAVAILABLE,
            "no target is there");
    return error_set(e, replay_reason_of(event->data), STR_FMT,
                     STR_ARG(json_str_or(event->data, S("message"), STR_NONE)));
}

static bool may_call(void *owner, struct error *e)
{
    struct replay *r = owner;
    const struct event *event = next_event(r);
    if (!event || !reserve(owner, e))
        return !event;
    if (event->type == EVENT_RUN_FAILED || event->type == EVENT_RUN_DEGRADED)
        return fail_as(event, e);
    if (event->type == EVENT_MESSAGE_SUMMARISED) /* without the call that was to write it */
        return error_set(e, REASON_UNAVAILABLE, "no target is there");
    if (event->type == EVENT_RUN_CANCELLING && !replay_is_crash_next(r)) {
        (void) replay_cancel(r);
        return error_set(e, REASON_CANCELLED, "cancelled while it waited for its place");
    }
    return true;
}

static bool target(void *owner, str *provider, str *model, struct error *e)
{
    struct replay *r = owner;
    const struct run_recording *record = r->record;
    bool is_decided = is_next(r, EVENT_POLICY_DECIDED); /* so there was one */
    if (is_next(r, EVENT_MESSAGE_SUMMARISED))
        return may_call(owner, e);
    for (size_t i = r->next; i < record->solid_count; i++) {
        const struct event *event = &record->solid[i];
        if (event->type == EVENT_MODEL_REQUESTED) {
            *provider = json_str_or(event->data, S("provider"), STR_NONE);
            *model = json_str_or(event->data, S("provider_model"), STR_NONE);
            return true;
        }
        if (event->type == EVENT_RUN_DEGRADED && i == r->next)
            return fail_as(event, e);
        if (event->type == EVENT_RUN_FAILED && !is_decided &&
            !recording_is(event, "error", S("over_budget")) &&
            !recording_is(event, "error", S("policy_denied")))
            return fail_as(event, e);
        if (event->type == EVENT_RUN_FAILED || event->type == EVENT_RUN_DEGRADED ||
            record->lives[i] > r->life)
            break;
    }
    const struct environment_model *usual = &r->environment.model;
    const struct run *run = replay_live(r);
    for (size_t i = 0; run && i < r->environment.model_count; i++)
        if (str_equal(r->environment.models[i].model.name, run->model->name))
            usual = &r->environment.models[i];
    ensure(usual->model.target_count > 0);
    *provider = usual->targets[0].provider; /* the code refuses by itself, as it did */
    *model = usual->targets[0].model;
    return true;
}

static str environment(void *owner)
{
    struct replay *r = owner;
    if (is_next(r, EVENT_RUN_STEP_STARTED))
        return json_str_or(next_event(r)->data, S("environment"), STR_NONE);
    size_t at = recording_find(r->record, r->next, EVENT_MODEL_REQUESTED);
    return at < r->record->solid_count
               ? json_str_or(r->record->solid[at].data, S("environment"), STR_NONE)
               : STR_NONE;
}

/* The row of a run that was begun names the version. */
static bool child(void *owner, uuid child_run_id, str *range, struct error *e)
{
    struct replay *r = owner;
    const struct event *refused = refused_step(r);
    if (refused)
        return fail_as(refused, e);
    const struct json *run = json_get(recording_child(r->record, child_run_id), S("run"));
    str name, version;
    if (str_cut(json_str_or(run, S("workflow"), STR_NONE), '@', &name, &version))
        *range = str_printf(r->arena, "=" STR_FMT, STR_ARG(version));
    return true;
}

static bool is_cut(void *owner)
{
    return replay_is_crash_next(owner);
}

static bool may_go_on(void *owner)
{
    struct replay *r = owner;
    size_t at = recording_find(r->record, r->next, EVENT_MODEL_FAILED);
    return at < r->record->solid_count &&
           json_bool_or(r->record->solid[at].data, S("will_retry"), false);
}

/* ---- degradation ---- */

static bool does(void *owner, enum event_type type)
{
    return is_next(owner, type);
}

static bool degrades(void *owner, enum degrade_when *when)
{
    struct replay *r = owner;
    const struct event *event = next_event(r);
    if (!is_next(r, EVENT_RUN_DEGRADED))
        return false;
    if (recording_is(event, "why", S("overloaded")))
        *when = DEGRADE_OVERLOADED;
    else if (recording_is(event, "why", S("budget_low")))
        *when = DEGRADE_BUDGET_LOW;
    else
        return false; /* only a call that failed shows it */
    return true;
}

static bool earlier(void *owner, uuid *run_id, str *answer, str *metadata)
{
    struct replay *r = owner;
    const struct event *event = next_event(r);
    if (!is_next(r, EVENT_RUN_DEGRADED) || !recording_is(event, "use", S("cached")))
        return false;
    const struct record *row =
        recording_row(&r->record->messages, replay_id_member(event->data, "message_id"));
    if (!row)
        return false;
    *run_id = replay_id_member(event->data, "from_run_id");
    *answer = record_text(row, MESSAGES_CONTENT);
    *metadata = record_text(row, MESSAGES_METADATA);
    return true;
}

/* ---- waits ---- */

/* As long as the record says; what it cannot have been shows as a difference. */
static int64_t wait_ms(void *owner, int64_t least, int64_t most)
{
    struct replay *r = owner;
    size_t at = recording_find(r->record, r->next, EVENT_RUN_STEP_FAILED);
    if (at == r->record->solid_count)
        return most;
    const struct event *event = &r->record->solid[at];
    int64_t ms = (json_i64_or(event->data, S("retry_at"), 0) - event->at_us) / 1000;
    return ms >= least ? ms : most; /* a refusal may have asked for more than `most` */
}

void replay_oracle_init(struct replay *r)
{
    r->oracle = (struct run_oracle){
        .owner = r,
        .run_id = r->record->run_id,
        .new_id = new_id,
        .remaining = remaining,
        .room = room,
        .takes = takes,
        .reserve = reserve,
        .target = target,
        .may_call = may_call,
        .environment = environment,
        .may_go_on = may_go_on,
        .is_cut = is_cut,
        .child = child,
        .wait_ms = wait_ms,
        .alerts = alerts,
        .does = does,
        .degrades = degrades,
        .earlier = earlier,
    };
}
