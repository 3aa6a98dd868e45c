/*
 * The shell around the fold: loads a run's journal, asks run_state_next what to do, does it, until the run is final or waits.
 *
 *   spawn --> load (rows, events, ledger) --> [ command --> step ]* --> final | waiting (dropped from memory) | fenced (dropped)
 *                 ^                                |
 *                 +------ a failed commit ---------+      the journal is the truth: load it again, reconcile, go on
 *
 * A fresh start and a resume are the same code.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/log.h"
#include "orchestrator/run/run_child.h"
#include "orchestrator/session/session_inbox.h"
#include "orchestrator/webhook/webhook_tell.h"
#include "orchestrator/workflow/workflow_run.h"
#include <stdatomic.h>
#include <stdlib.h>

/* ---- loading ---- */

static bool load_session(struct run *run, struct error *e)
{
    struct record key = record_of(TABLE_SESSIONS);
    record_set_uuid(&key, SESSIONS_ID, run->session_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, &run->session, e))
        return error_wrap(e, "session of the run");
    run->policy_context = record_text(&run->session, SESSIONS_POLICY_CONTEXT);
    run->principal = (struct principal){
        .tenant_id = run->tenant_id,
        .user_id = record_text(&run->session, SESSIONS_USER_ID),
        .caller_id = record_text(&run->session, SESSIONS_REQUESTED_BY),
        .role = record_text(&run->session, SESSIONS_ROLE),
        .is_run = true,
    };
    return true;
}

/* Makes this node the session's one writer; the epoch fences everyone else out. */
static bool own_session(struct run *run, int64_t *epoch, struct error *e)
{
    const struct orchestrator_parts *parts = &run->o->parts;
    if (str_equal(record_text(&run->session, SESSIONS_OWNER_NODE), parts->node)) {
        *epoch = record_integer(&run->session, SESSIONS_OWNER_EPOCH);
        return true;
    }
    return store_claim(parts->store, &run->shield, run->tenant_id, run->session_id, parts->node,
                       epoch, e);
}

static bool fold_journal(struct run *run, struct error *e)
{
    run_state_init(&run->state, run->arena);
    for (;;) {
        struct events events;
        if (!journal_read(run->o->parts.store, &run->shield, run->tenant_id, run->run_id,
                          run->state.last_seq, STORE_PAGE_MAX, &events, e))
            return false;
        for (size_t i = 0; i < events.count; i++)
            if (!run_state_apply(&run->state, &events.items[i], e))
                return false;
        if (events.count < STORE_PAGE_MAX)
            return run->state.last_seq > 0 ||
                   error_set(e, REASON_CORRUPT, "the run has no journal");
    }
}

/* What the run was begun with goes before what its agent says. */
static void narrow_agent(struct run *run)
{
    int64_t wanted = run->state.max_output_tokens, own = run->agent->max_output_tokens;
    if (wanted == 0 || (own > 0 && own <= wanted))
        return;
    struct agent_definition *narrow = ARENA_NEW(run->arena, struct agent_definition);
    *narrow = *run->agent;
    narrow->max_output_tokens = wanted;
    run->agent = narrow;
}

static bool find_definition(struct run *run, struct error *e)
{
    run->agent = run_bare_agent(run);
    if (!run->agent)
        run->agent = agent_set_find(run->settings->agents, run->state.agent);
    if (!run->agent)
        return error_set(e, REASON_NOT_FOUND, "agent \"" STR_FMT "\" is not configured any more",
                         STR_ARG(run->state.agent));
    narrow_agent(run);
    run->model = catalog_find(run->settings->catalog, run->state.model);
    run->has_route = false;
    return run->model || catalog_error_unknown(run->settings->catalog, run->state.model, e);
}

static bool open_accounts(struct run *run, struct error *e)
{
    struct ledger_ancestor above[RUN_CHILD_DEPTH_MAX];
    struct ledger_limits limits = {
        .run = run->ceiling,
        .key_id = run->principal.key_id,
        .ancestors = above,
        .ancestor_count = run->depth,
    };
    for (int i = 0; i < run->depth; i++)
        above[i] = (struct ledger_ancestor){run->ancestors[i].run_id, run->ancestors[i].budget};
    if (!session_budget_read(run->root_budget, &limits.session, e))
        return error_wrap(e, "budget of the session");
    if (!ledger_open_path(run->o->ledger, &run->shield, run->tenant_id, run->principal.user_id,
                          run->root_session_id, run->run_id, limits, &run->path, e))
        return false;
    run->path.run_id = run->run_id;
    run->has_path = true;
    return true;
}

bool run_hold_reserved(struct run *run, struct error *e)
{
    if (!run->has_path && !open_accounts(run, e))
        return false;
    run_ledger_reconcile(run);
    return true;
}

/* Who asked for this run, and with which role: never more than the session's. */
static bool load_identity(struct run *run, str metadata, struct error *e)
{
    const struct json *tree = NULL;
    if (!str_is_empty(metadata) &&
        !json_parse(run->turn, metadata, (struct json_limits){0}, &tree, e))
        return error_wrap(e, "metadata of the run");
    run->principal.role = json_str_or(tree, S("role"), run->principal.role);
    run->principal.caller_id = json_str_or(tree, S("caller_id"), run->principal.caller_id);
    run->principal.priority = priority_said(json_str_or(tree, S("priority"), STR_NONE));
    str key_id = json_str_or(tree, S("key_id"), STR_NONE);
    run->principal.has_key_budget =
        !str_is_empty(key_id) && uuid_parse(key_id, &run->principal.key_id);
    return role_level_parse(run->principal.role, &run->principal.level) ||
           error_set(e, REASON_CORRUPT, "run with the unknown role \"" STR_FMT "\"",
                     STR_ARG(run->principal.role));
}

static bool load_run_row(struct run *run, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS), *row = ARENA_NEW(run->turn, struct record);
    record_set_uuid(&key, AGENT_RUNS_ID, run->run_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, row, e))
        return error_wrap(e, "run");
    if (record_has(row,
                   AGENT_RUNS_REMOVED_AT)) /* its journal may be half gone: that is no damage */
        return error_set(e, REASON_NOT_FOUND, "run: it had ended and is being removed");
    run->started_us = record_integer(row, AGENT_RUNS_STARTED_AT);
    run->has_wake = record_has(row, AGENT_RUNS_WAKES_AT);
    run->has_wake_time =
        run->has_wake && record_integer(row, AGENT_RUNS_WAKES_AT) != RUN_WAKES_WITH_SESSION;
    run->is_pending =
        str_equal(record_text(row, AGENT_RUNS_STATUS), str_from_cstr(run_status_name(RUN_PENDING)));
    if (record_has(row, AGENT_RUNS_CANCEL_BY) && !run->is_cancel_asked)
        run->cancelled_by = str_copy(run->keep, record_text(row, AGENT_RUNS_CANCEL_BY));
    if (!load_identity(run, record_text(row, AGENT_RUNS_METADATA), e) ||
        !run_ancestors_load(run, row, e))
        return false;
    str trace = record_text(row, AGENT_RUNS_TRACE_ID);
    for (size_t i = 0; i + 1 < trace.len && i / 2 < sizeof run->trace.trace_id; i += 2) {
        int high = trace.ptr[i] <= '9' ? trace.ptr[i] - '0' : trace.ptr[i] - 'a' + 10;
        int low = trace.ptr[i + 1] <= '9' ? trace.ptr[i + 1] - '0' : trace.ptr[i + 1] - 'a' + 10;
        run->trace.trace_id[i / 2] = (uint8_t) (high << 4 | low);
    }
    run->ctx.trace = run->shield.trace = run->trace;
    return true;
}

/* Does the journal say that another coroutine than this one was at work, or that the run waited? */
static bool is_resumption(const struct run *run)
{
    return run->state.status == RUN_WAITING || run->epoch != run->state.epoch;
}

/* Whoever was asked to cancel it may have died before it was heard.  Once the journal says so, what is left to do is done. */
static void hear_noted_cancel(struct run *run)
{
    if (run->is_cancel_asked || str_is_empty(run->cancelled_by) || run->state.is_cancelling)
        return;
    run->is_cancel_asked = true;
    context_cancel(&run->ctx);
}

/* A run that waited in the inbox begins when its turn has come. */
static bool load_rows(struct run *run, struct error *e)
{
    run->is_out_of_turn = false;
    if (!load_session(run, e) || !load_run_row(run, e))
        return false;
    if (!run->is_pending)
        return true;
    hear_noted_cancel(run);
    if (!session_inbox_begin(run, e))
        return false;
    return run->is_out_of_turn || (load_session(run, e) && load_run_row(run, e));
}

/* It came due while its session is paused: it would come again and again, in the place of others.  If this fails, it does once more. */
static void stop_clock(struct run *run)
{
    struct batch batch;
    struct error ignored = {0};
    struct fence fence = {run->session_id, run->o->parts.node, run->epoch};
    if (!run->has_wake_time)
        return;
    batch_init(&batch, run->turn, run->tenant_id);
    batch.fence = &fence;
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
    record_set_integer(row, AGENT_RUNS_WAKES_AT, RUN_WAKES_WITH_SESSION);
    (void) !store_commit(run->o->parts.store, &run->shield, &batch, &ignored);
}

static bool load(struct run *run, struct error *e)
{
    run->epoch = 0;
    if (!load_rows(run, e))
        return false;
    if (run->is_out_of_turn)
        return true;
    if (!own_session(run, &run->epoch, e) || !fold_journal(run, e))
        return false;
    /* Also for a run that is final, or paused: its last commit may have been applied without our knowing. */
    if (run->has_path)
        run_ledger_reconcile(run);
    hear_noted_cancel(run);
    run->is_out_of_turn = run->state.status == RUN_WAITING && session_is_paused(&run->session) &&
                          !run->is_cancel_asked;
    if (run->is_out_of_turn) { /* whoever resumes the session spawns it */
        stop_clock(run);
        return true;
    }
    if (run_status_is_final(run->state.status))
        return true;
    if (!run->has_path && !run_hold_reserved(run, e))
        return false;
    journal_writer_deinit(&run->journal);
    journal_writer_init(&run->journal, run->o->parts.store, run->o->hub, run->o->parts.clock,
                        &run->state, run->tenant_id, run->session_id, run->run_id,
                        run->o->parts.node, run->epoch);
    if (run->o->oracle)
        run->journal.tap = &run->o->oracle->tap;
    if (is_resumption(run)) {
        if (run->state.epoch > run->epoch) /* between its rows and its journal: that is no damage */
            return error_set(e, REASON_FENCED, "another node has gone on with the run");
        struct json_writer *w = journal_event(&run->journal, EVENT_RUN_RESUMED);
        json_put_i64(w, S("epoch"), run->epoch);
        json_put_str(w, S("node"), run->o->parts.node);
        struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
        record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
        record_set_text(row, AGENT_RUNS_STATUS, S("running"));
        record_set_null(row, AGENT_RUNS_WAITS_UNTIL);
        record_set_null(row, AGENT_RUNS_WAKES_AT);
    }
    return true;
}

/* What needs the definition and the tools: a failure here ends the run by its own journal. */
static never_inline bool prepare(struct run *run, struct error *e)
{
    if (run->state.workflow)
        return workflow_prepare(run, e);
    if (!find_definition(run, e))
        return false;
    run->ctx.deadline_ns = context_deadline_in(&run->shield, run->agent->run_timeout_ms);
    return run_client_tools_offer(run, e) && run_prompt_load(run, e) && run_tools_offer(run, e);
}

/* ---- ending ---- */

static str cost_text(struct run *run)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, run->turn, 512);
    json_writer_init(&w, &text);
    cost_write_json(&w, run->state.spent);
    return strbuf_str(&text);
}

static void write_final_rows(struct run *run, enum run_status status, const struct error *failure)
{
    struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
    int64_t now_us = clock_unix_us(run->o->parts.clock);
    record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
    record_set_text(row, AGENT_RUNS_STATUS, str_from_cstr(run_status_name(status)));
    record_set_integer(row, AGENT_RUNS_COMPLETED_AT, now_us);
    record_set_text(row, AGENT_RUNS_COST, cost_text(run));
    if (status == RUN_COMPLETED && !str_is_empty(run_degraded_why(run)))
        record_set_text(row, AGENT_RUNS_DEGRADED, run_degraded_why(run));
    if (failure) {
        record_set_text(row, AGENT_RUNS_ERROR, str_from_cstr(error_problem(failure->reason)));
        record_set_text(row, AGENT_RUNS_ERROR_MESSAGE,
                        str_copy(run->turn, str_from_cstr(failure->message)));
    }
    struct record *session = journal_row(&run->journal, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, run->session_id);
    record_set_integer(session, SESSIONS_UPDATED_AT, now_us);
    if (run->depth > 0) /* nobody else speaks in a child's session */
        record_set_text(session, SESSIONS_STATUS, S("closed"));
    if (run->settings->session_expiry_ms > 0) /* idle from now on */
        record_set_integer(session, SESSIONS_EXPIRES_AT,
                           now_us + run->settings->session_expiry_ms * 1000);
    session_inbox_pass_on(run, session);
    audit_add(
        &run->journal.batch, run->o->parts.clock, run->o->parts.random, &run->principal,
        &(struct audit_entry){
            .action = status == RUN_COMPLETED ? S("run.complete")
                      : status == RUN_FAILED  ? S("run.fail")
                                              : S("run.cancel"),
            .resource_type = S("run"),
            .resource_id = uuid_str(run->turn, run->run_id),
            .details = str_printf(run->turn, "{\"cost\":" STR_FMT "}", STR_ARG(cost_text(run))),
        });
    webhook_tell_end(run, status, failure);
}

bool run_end_look(struct run *run, struct error *e)
{
    return session_inbox_look(run, e);
}

void run_end_write(struct run *run, enum run_status status, const struct error *failure)
{
    write_final_rows(run, status, failure);
}

static void put_cost(struct run *run, struct json_writer *w)
{
    json_key(w, S("cost"));
    cost_write_json(w, run->state.spent);
}

static bool complete(struct run *run, struct error *e)
{
    if (!session_inbox_look(run, e))
        return false;
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_COMPLETED);
    json_put_str(w, S("message_id"), uuid_str(run->turn, run->state.answer_id));
    json_put_str(w, S("finish"), run->state.finish);
    put_cost(run, w);
    str degraded = run_degraded_why(run);
    if (!str_is_empty(degraded))
        json_put_str(w, S("degraded"), degraded);
    run_put_ended_by(run, w);
    write_final_rows(run, RUN_COMPLETED, NULL);
    return run_flush_end(run, "run_completed", e);
}

bool run_fail(struct run *run, const struct error *failure, struct error *e)
{
    if (!run_children_end(run, e) || !run_tools_abandon(run, e) || !session_inbox_look(run, e))
        return false;
    if (failure->reason == REASON_BUDGET) {
        struct json_writer *refused = journal_event(&run->journal, EVENT_BUDGET_REFUSED);
        json_put_str(refused, S("message"), str_from_cstr(failure->message));
    }
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_FAILED);
    json_put_str(w, S("error"), str_from_cstr(error_problem(failure->reason)));
    json_put_str(w, S("message"), str_from_cstr(failure->message));
    put_cost(run, w);
    write_final_rows(run, RUN_FAILED, failure);
    return run_flush_end(run, "run_failed", e);
}

static bool cancel(struct run *run, struct error *e)
{
    if (!run_children_end(run, e) || !run_tools_abandon(run, e) || !session_inbox_look(run, e))
        return false;
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_CANCELLED);
    json_put_str(w, S("by"), run->state.cancelled_by);
    put_cost(run, w);
    write_final_rows(run, RUN_CANCELLED, NULL);
    return run_flush_end(run, "run_cancelled", e);
}

/* ---- waiting ---- */

static void list_waiting(struct run *run, struct json_writer *w, const char *member,
                         enum call_state wanted)
{
    json_key(w, str_from_cstr(member));
    json_array_begin(w);
    for (size_t i = 0; i < run->state.call_count; i++) {
        const struct call *call = &run->state.calls[i];
        if (call->state == wanted)
            json_write_str(
                w, uuid_str(run->turn, wanted == CALL_AWAITING ? call->approval_id : call->id));
    }
    json_array_end(w);
}

static bool waits_for_client(const struct run *run)
{
    for (size_t i = 0; i < run->state.call_count; i++)
        if (run->state.calls[i].state == CALL_CLIENT)
            return true;
    return false;
}

/* The run leaves memory, unless a child ends soon.  Its row stays `running`: so a start brings it and its children back. */
static bool wait_for_children(struct run *run, bool *is_parked, struct error *e)
{
    struct error woken;
    if (!run_flush(run, "run_parked", e))
        return false;
    int64_t until_ns = context_deadline_in(&run->ctx, RUN_CHILD_LINGER_MS);
    if (!run->is_woken && !run->is_cancel_asked && !atomic_load(&run->o->is_draining))
        (void) !condition_wait_until(&run->woken, &run->ctx, until_ns, &woken);
    *is_parked = !run->is_woken && !run->is_cancel_asked && !run->is_draining;
    return true;
}

static bool wait_for_others_to_act(struct run *run, bool *is_parked, struct error *e)
{
    bool is_waiting, was_waiting = run->state.status == RUN_WAITING;
    run->is_woken = false;
    if (!run_tools_check_awaited(run, &is_waiting, e))
        return false;
    if (!is_waiting && was_waiting) { /* its row said so: a start would pass it over */
        struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
        record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
        record_set_text(row, AGENT_RUNS_STATUS, S("running"));
        record_set_null(row, AGENT_RUNS_WAITS_UNTIL);
    }
    if (!is_waiting)
        return run_flush(run, "approval_decided", e);
    if (run_state_live_children(&run->state) > 0)
        return wait_for_children(run, is_parked, e);
    if (run->state.status != RUN_WAITING) {
        struct json_writer *w = journal_event(&run->journal, EVENT_RUN_WAITING);
        list_waiting(run, w, "approvals", CALL_AWAITING);
        list_waiting(run, w, "client_calls", CALL_CLIENT);
        struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
        record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
        record_set_text(row, AGENT_RUNS_STATUS, S("waiting"));
        if (waits_for_client(run))
            record_set_integer(row, AGENT_RUNS_WAITS_UNTIL,
                               clock_unix_us(run->o->parts.clock) +
                                   RUN_CLIENT_RESULT_WAIT_MS * 1000);
    }
    if (!run_flush(run, "run_waiting", e))
        return false;
    *is_parked = !run->is_woken && !run->is_cancel_asked;
    return true;
}

/* The session is paused: what runs would go on goes on when it is resumed.  (An instance of a workflow looks itself.) */
static bool must_pause(const struct run *run, enum run_command_kind kind)
{
    bool goes_on = kind == RUN_DO_CALLS || kind == RUN_DO_MODEL;
    bool is_at_rest = run->state.reservation_count == 0; /* nothing of it is in flight */
    return goes_on && is_at_rest && session_is_paused(&run->session) && !run->is_cancel_asked;
}

static bool park_paused(struct run *run, bool *is_parked, struct error *e)
{
    run->is_woken = false;
    if (run->has_lost_sight)
        run_children_spawn(run);
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_WAITING);
    list_waiting(run, w, "approvals", CALL_AWAITING);
    list_waiting(run, w, "client_calls", CALL_CLIENT);
    json_put_bool(w, S("is_paused"), true);
    struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
    record_set_text(row, AGENT_RUNS_STATUS, S("waiting"));
    record_set_integer(row, AGENT_RUNS_WAKES_AT, RUN_WAKES_WITH_SESSION);
    if (!run_flush(run, "run_waiting", e))
        return false;
    *is_parked = !run->is_cancel_asked; /* woken meanwhile: it is loaded again */
    return true;
}

/* ---- the loop ---- */

static void journal_cancelling(struct run *run)
{
    if (!run->is_cancel_asked || run->state.is_cancelling || run_status_is_final(run->state.status))
        return;
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_CANCELLING);
    json_put_str(w, S("by"), run->cancelled_by);
    journal_close_event(&run->journal);
}

/* Who cancels while it is made ready, or drains, says so at the next command. */
static bool call_model(struct run *run, struct error *e)
{
    bool is_ready = session_inbox_steer(run, e) && run_tools_refresh(run, e) &&
                    (run->state.is_winding_down || run_context_fit(run, e));
    return is_ready && (run->is_cancel_asked || run->is_draining || run_model_step(run, e));
}

static never_inline bool do_command(struct run *run, struct run_command command, bool *is_parked,
                                    struct error *e)
{
    if (!session_inbox_hear(run, e))
        return false;
    if (must_pause(run, command.kind))
        return park_paused(run, is_parked, e);
    switch (command.kind) {
    case RUN_DO_NOTHING: return true;
    case RUN_DO_LOSE_ATTEMPT: return run_model_lose_attempt(run, e);
    case RUN_DO_RECOVER_CALL: return run_tools_recover(run, command.call, e);
    case RUN_DO_CALLS: return run_tools_step(run, e);
    case RUN_DO_WAIT: return wait_for_others_to_act(run, is_parked, e);
    case RUN_DO_MODEL: return call_model(run, e);
    case RUN_DO_COMPLETE: return complete(run, e);
    case RUN_DO_CANCEL: return cancel(run, e);
    case RUN_DO_WORKFLOW: return workflow_step(run, is_parked, e);
    }
    unreachable_state();
}

/* ---- failures ---- */

/* A load failed: is it worth another try?  If not, says so and leaves the run as it can be left. */
static bool is_worth_another(struct run *run, const struct error *failure)
{
    bool is_broken = failure->reason == REASON_CORRUPT;
    if (!is_broken && failure->reason != REASON_FENCED && failure->code != ERROR_NOT_FOUND)
        return true;
    if (failure->code == ERROR_NOT_FOUND)
        run_ledger_removed(run);
    if (is_broken)
        run_bury(run, failure, false);
    else
        LOG_ERROR("orchestrator.run", S("run dropped"), failure,
                  LOG_STR("nexus.run.id", uuid_str(run->turn, run->run_id)));
    return false;
}

/* A failure that is not the run's own: the store did not take an append, or this node is fenced out. */
static bool is_store_failure(const struct error *e)
{
    return e->reason == REASON_STORE || e->reason == REASON_OUTCOME_UNKNOWN ||
           e->reason == REASON_DISK_FULL || e->reason == REASON_CONFLICT ||
           e->reason == REASON_OVERLOADED_HERE;
}

enum outcome { OUTCOME_FINAL, OUTCOME_PARKED, OUTCOME_DROPPED, OUTCOME_RELOAD };

static never_inline enum outcome settle_failure(struct run *run, const struct error *failure)
{
    if (failure->reason == REASON_FENCED)
        return OUTCOME_DROPPED;
    if (run->is_draining)
        return OUTCOME_DROPPED;
    const struct error *unwritable = &run->journal.failure;
    if (unwritable->code != ERROR_OK && !is_store_failure(unwritable))
        run->fatal = *unwritable; /* the same step would fail the same way again */
    if (is_store_failure(failure) || unwritable->code != ERROR_OK)
        return OUTCOME_RELOAD;
    if (failure->code == ERROR_CANCELLED && run->is_cancel_asked)
        return OUTCOME_FINAL; /* not yet: the loop appends run.cancelled next */
    struct error e = {0};
    if (run_fail(run, failure, &e))
        return OUTCOME_FINAL;
    if (e.reason == REASON_FENCED)
        return OUTCOME_DROPPED;
    if (!is_store_failure(&e)) { /* loaded again it is what the store has: then it is buried */
        run->refusals++;
        run->refusal = (struct error){0};
        error_set(&run->refusal, e.reason, "%s; it was to end with: %s", e.message,
                  failure->message);
    }
    return OUTCOME_RELOAD;
}

static never_inline enum outcome work(struct run *run)
{
    struct error e = {0};
    if (!prepare(run, &e))
        return settle_failure(run, &e);
    while (!run_status_is_final(run->state.status)) {
        bool is_parked = false;
        journal_cancelling(run);
        struct run_command command = run_state_next(&run->state);
        e = (struct error){0};
        if (!run_keep_outcomes(run, &e))
            return settle_failure(run, &e);
        if (run->is_draining)
            return OUTCOME_DROPPED;
        arena_mark mark = arena_save(run->turn);
        bool is_recovery = command.kind == RUN_DO_LOSE_ATTEMPT ||
                           command.kind == RUN_DO_RECOVER_CALL || command.kind == RUN_DO_WORKFLOW;
        bool ok = run->fatal.code != ERROR_OK && !is_recovery
                      ? error_copy(&e, &run->fatal)
                      : do_command(run, command, &is_parked, &e);
        if (ok && run->journal.failure.code !=
                      ERROR_OK) /* the state did not move: the next command would be the same */
            ok = error_copy(&e, &run->journal.failure);
        if (ok && arena_is_over(run->arena) && !run->workflow)
            ok = error_set(&e, REASON_LIMIT, "the run's conversation is over %u bytes",
                           RUN_ARENA_BYTES_MAX);
        if (!ok) {
            enum outcome outcome = settle_failure(run, &e);
            if (outcome != OUTCOME_FINAL)
                return outcome;
        }
        run->is_parked = is_parked;
        if (is_parked)
            return OUTCOME_PARKED;
        if (!journal_has_pending(&run->journal)) {
            arena_rewind(run->turn, mark);
            run->retry_ms = RUN_STORE_RETRY_MS; /* the store takes appends again */
            run->refusals = 0;
        }
    }
    return OUTCOME_FINAL;
}

/* The store failed an append: what is in memory may be ahead of the journal.  Wait a little, load it again, go on. */
static bool reload(struct run *run)
{
    for (;;) {
        struct error e = {0}, woken = {0};
        if (run->is_draining || !context_sleep_ms(&run->shield, run->retry_ms, &woken))
            return false;
        run->retry_ms =
            run->retry_ms * 2 < RUN_STORE_RETRY_MAX_MS ? run->retry_ms * 2 : RUN_STORE_RETRY_MAX_MS;
        workflow_release(run);
        arena_reset(run->turn);
        arena_reset(run->arena);
        run->messages = NULL;
        run->message_count = run->message_capacity = run->offered_count = 0;
        run->has_lost_sight = true;
        bool is_loaded = load(run, &e);
        if (is_loaded && run->refusals >= RUN_REFUSALS_MAX) {
            run_bury(run, &run->refusal, true);
            return false;
        }
        if (is_loaded)
            return true;
        if (!is_worth_another(run, &e))
            return false;
    }
}

static void count_outcome(struct run *run)
{
    struct metrics *metrics = run->o->parts.metrics;
    double seconds = (double) (clock_unix_us(run->o->parts.clock) - run->started_us) / 1e6;
    str status = str_from_cstr(run_status_name(run->state.status)), agent = run->state.agent;
    metrics_add(metrics, METRIC_AGENT_REQUESTS, 1,
                (str[]){uuid_str(run->turn, run->session_id), agent, status}, 3);
    metrics_observe(metrics, METRIC_AGENT_REQUEST_DURATION, seconds, &agent, 1);
}

static void write_utilization(struct run *run)
{
    struct ledger_view view = ledger_view(run->o->ledger, &run->path, ACCOUNT_SESSION);
    str session = uuid_str(run->turn, run->root_session_id);
    cost used = cost_add(view.spent, view.reserved);
    for (int i = 0; i < COST_FIELD_COUNT; i++) {
        int64_t limit = *cost_field(&view.limit, i);
        if (limit == COST_UNLIMITED || limit <= 0)
            continue;
        metrics_set(run->o->parts.metrics, METRIC_BUDGET_UTILIZATION,
                    (double) *cost_field(&used, i) / (double) limit,
                    (str[]){session, str_from_cstr(cost_field_name(i))}, 2);
    }
}

bool run_load_accounts(struct run *run, struct error *e)
{
    if (!load_session(run, e) || !load_run_row(run, e) || !fold_journal(run, e))
        return false;
    if (run_status_is_final(run->state.status) || run->state.reservation_count == 0)
        return true;
    return run_hold_reserved(run, e);
}

void run_live(struct run *run)
{
    struct error e = {0};
    enum outcome outcome = OUTCOME_RELOAD;
    bool is_loaded = load(run, &e);
    if (!is_loaded && is_worth_another(run, &e))
        is_loaded = reload(run);
    run_is_loaded(run);
    if (run->is_out_of_turn)
        return;
    while (is_loaded && outcome == OUTCOME_RELOAD) {
        if (run_status_is_final(run->state.status) || run->is_out_of_turn)
            break; /* paused meanwhile: whoever resumes the session spawns it */
        outcome = work(run);
        if (outcome == OUTCOME_RELOAD)
            is_loaded = reload(run);
    }
    if (run->has_path)
        write_utilization(run);
    if (outcome == OUTCOME_FINAL)
        count_outcome(run);
}
