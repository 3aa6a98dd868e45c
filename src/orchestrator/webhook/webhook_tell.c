#include "orchestrator/webhook/webhook_tell.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/webhook/webhook.h"

struct told {
    struct strbuf text;
    struct json_writer w;
};

static struct json_writer *data_begin(struct told *told, struct arena *arena)
{
    strbuf_init(&told->text, arena, WEBHOOK_EVENT_BYTES_MAX);
    json_writer_init(&told->w, &told->text);
    json_object_begin(&told->w);
    return &told->w;
}

static str data_end(struct told *told)
{
    json_object_end(&told->w);
    return strbuf_str(&told->text);
}

static void put_id(struct json_writer *w, struct arena *arena, const char *name, uuid id)
{
    if (!uuid_is_none(id))
        json_put_str(w, str_from_cstr(name), uuid_str(arena, id));
}

/* ---- runs ---- */

static enum webhook_event event_of(enum run_status status)
{
    return status == RUN_COMPLETED ? WEBHOOK_RUN_COMPLETED
           : status == RUN_FAILED  ? WEBHOOK_RUN_FAILED
                                   : WEBHOOK_RUN_CANCELLED;
}

struct ending {
    struct orchestrator *o;
    struct batch *batch;
    uuid run_id, session_id, message_id;
    str user_id, agent;
    enum run_status status;
    const struct error *failure;
    cost spent;
    int64_t started_us, ended_us;
};

/* The kind of failure only: a message may quote what was said. */
static void tell_end(const struct ending *end)
{
    struct arena *arena = end->batch->arena;
    struct told told;
    str workflow;
    struct json_writer *w = data_begin(&told, arena);
    put_id(w, arena, "run_id", end->run_id);
    put_id(w, arena, "session_id", end->session_id);
    json_put_str(w, S("status"), str_from_cstr(run_status_name(end->status)));
    json_put_str(w, S("agent"), end->agent);
    if (str_strip_prefix(end->agent, S("workflow:"), &workflow))
        json_put_str(w, S("workflow"), workflow);
    json_put_str(w, S("user_id"), end->user_id);
    if (end->failure)
        json_put_str(w, S("error"), str_from_cstr(error_problem(end->failure->reason)));
    if (end->status == RUN_COMPLETED)
        put_id(w, arena, "message_id", end->message_id);
    json_key(w, S("cost"));
    cost_write_json(w, end->spent);
    json_put_str(w, S("started_at"), time_str(arena, end->started_us));
    json_put_str(w, S("ended_at"), time_str(arena, end->ended_us));
    struct webhook_emission emission = {.event = event_of(end->status),
                                        .from = end->run_id,
                                        .at_us = end->ended_us,
                                        .data = data_end(&told)};
    webhook_emit(end->o, end->batch, end->batch->tenant_id, &emission);
}

void webhook_tell_end(struct run *run, enum run_status status, const struct error *failure)
{
    if (run->depth > 0 || !webhook_wants(run->o, run->tenant_id, event_of(status)))
        return;
    journal_close_event(&run->journal);
    struct ending end = {.o = run->o,
                         .batch = &run->journal.batch,
                         .run_id = run->run_id,
                         .session_id = run->session_id,
                         .message_id = run->state.answer_id,
                         .user_id = run->principal.user_id,
                         .agent = run->state.agent,
                         .status = status,
                         .failure = failure,
                         .spent = run->state.spent,
                         .started_us = run->started_us,
                         .ended_us = clock_unix_us(run->o->parts.clock)};
    tell_end(&end);
}

void webhook_tell_unbegun(struct orchestrator *o, struct batch *batch,
                          const struct run_beginning *beginning)
{
    enum run_status status = beginning->failure ? RUN_FAILED : RUN_CANCELLED;
    if (!uuid_is_none(beginning->parent_run_id) ||
        !webhook_wants(o, batch->tenant_id, event_of(status)))
        return;
    struct ending end = {.o = o,
                         .batch = batch,
                         .run_id = beginning->run_id,
                         .session_id = beginning->session_id,
                         .user_id = beginning->user_id,
                         .agent = beginning->agent,
                         .status = status,
                         .failure = beginning->failure,
                         .started_us = beginning->now_us,
                         .ended_us = beginning->now_us};
    tell_end(&end);
}

/* ---- approvals ---- */

void webhook_tell_approval(struct run *run, const struct approval_request *request,
                           int64_t expires_us, str tool)
{
    struct told told;
    if (!webhook_wants(run->o, run->tenant_id, WEBHOOK_APPROVAL_REQUESTED))
        return;
    journal_close_event(&run->journal);
    struct batch *batch = &run->journal.batch;
    struct json_writer *w = data_begin(&told, batch->arena);
    put_id(w, batch->arena, "approval_id", request->id);
    put_id(w, batch->arena, "run_id", request->run_id);
    put_id(w, batch->arena, "session_id", request->session_id);
    put_id(w, batch->arena, "tool_call_id", request->tool_call_id);
    json_put_str(w, S("action"), request->action);
    if (!str_is_empty(tool))
        json_put_str(w, S("tool"), tool);
    json_put_str(w, S("digest"), request->digest);
    json_put_str(w, S("user_id"), request->user_id);
    json_put_i64(w, S("quorum"), request->rule.quorum > 0 ? request->rule.quorum : 1);
    json_put_str(w, S("expires_at"), time_str(batch->arena, expires_us));
    struct webhook_emission emission = {.event = WEBHOOK_APPROVAL_REQUESTED,
                                        .from = request->id,
                                        .at_us = clock_unix_us(run->o->parts.clock),
                                        .data = data_end(&told)};
    webhook_emit(run->o, batch, run->tenant_id, &emission);
}

void webhook_tell_reminder(struct orchestrator *o, struct batch *batch,
                           const struct record *approval, int64_t reminder)
{
    struct told told;
    if (!webhook_wants(o, batch->tenant_id, WEBHOOK_APPROVAL_REMINDED))
        return;
    struct json_writer *w = data_begin(&told, batch->arena);
    uuid id = record_uuid(approval, APPROVALS_ID);
    put_id(w, batch->arena, "approval_id", id);
    put_id(w, batch->arena, "run_id", record_uuid(approval, APPROVALS_RUN_ID));
    put_id(w, batch->arena, "session_id", record_uuid(approval, APPROVALS_SESSION_ID));
    json_put_str(w, S("action"), record_text(approval, APPROVALS_ACTION));
    json_put_str(w, S("digest"), record_text(approval, APPROVALS_DIGEST));
    json_put_str(w, S("user_id"), record_text(approval, APPROVALS_USER_ID));
    json_put_i64(w, S("reminder"), reminder);
    json_put_i64(w, S("votes"), record_integer(approval, APPROVALS_VOTES));
    json_put_i64(w, S("quorum"),
                 record_has(approval, APPROVALS_QUORUM) ? record_integer(approval, APPROVALS_QUORUM)
                                                        : 1);
    json_put_str(w, S("expires_at"),
                 time_str(batch->arena, record_integer(approval, APPROVALS_EXPIRES_AT)));
    struct webhook_emission emission = {.event = WEBHOOK_APPROVAL_REMINDED,
                                        .from = id,
                                        .what = str_i64(batch->arena, reminder),
                                        .at_us = clock_unix_us(o->parts.clock),
                                        .data = data_end(&told)};
    webhook_emit(o, batch, batch->tenant_id, &emission);
}

/* ---- budgets ---- */

void webhook_tell_budget(void *orchestrator, const struct ledger_alert *alert, struct batch *batch)
{
    struct orchestrator *o = orchestrator;
    struct told told;
    char period[PERIOD_NAME_BYTES];
    if (!webhook_wants(o, alert->tenant_id, WEBHOOK_BUDGET_ALERTED))
        return;
    int64_t now_us = clock_unix_us(o->parts.clock);
    struct json_writer *w = data_begin(&told, batch->arena);
    json_put_str(w, S("level"), str_from_cstr(account_level_name(alert->level)));
    json_put_str(w, S("subject"), alert->subject);
    json_put_str(w, S("resource"), str_from_cstr(alert->resource));
    json_put_i64(w, S("threshold_percent"), alert->threshold / 10);
    json_put_i64_str(w, S("limit"), alert->limit);
    json_put_i64_str(w, S("spent"), alert->spent);
    if (alert->period.period != PERIOD_NONE)
        json_put_str(w, S("period"),
                     period_name(alert->period.period, alert->period.since_us, now_us, period));
    struct webhook_emission emission = {.event = WEBHOOK_BUDGET_ALERTED,
                                        .from = uuid_new(o->parts.clock, o->parts.random),
                                        .at_us = now_us,
                                        .data = data_end(&told)};
    webhook_emit(o, batch, alert->tenant_id, &emission);
}
