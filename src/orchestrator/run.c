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
#include "orchestrator/run_internal.h"
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

static bool find_definition(struct run *run, struct error *e)
{
    run->agent = agent_set_find(run->settings->agents, run->state.agent);
    if (!run->agent)
        return error_set(e, REASON_NOT_FOUND, "agent \"" STR_FMT "\" is not configured any more",
                         STR_ARG(run->state.agent));
    run->model = catalog_find(run->settings->catalog, run->state.model);
    run->has_route = false;
    return run->model || catalog_error_unknown(run->settings->catalog, run->state.model, e);
}

static bool open_accounts(struct run *run, struct error *e)
{
    struct ledger_limits limits = {.run = COST_LIMITLESS, .key_id = run->principal.key_id};
    if (!session_budget_read(record_text(&run->session, SESSIONS_BUDGET), &limits.session, e))
        return error_wrap(e, "budget of the session");
    if (!ledger_open_path(run->o->ledger, &run->shield, run->tenant_id, run->principal.user_id,
                          run->session_id, UUID_NONE, limits, &run->path, e))
        return false;
    run->path.run_id = run->run_id;
    run->has_path = true;
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
    str key_id = json_str_or(tree, S("key_id"), STR_NONE);
    run->principal.has_key_budget =
        !str_is_empty(key_id) && uuid_parse(key_id, &run->principal.key_id);
    return role_level_parse(run->principal.role, &run->principal.level) ||
           error_set(e, REASON_CORRUPT, "run with the unknown role \"" STR_FMT "\"",
                     STR_ARG(run->principal.role));
}

static bool load_run_row(struct run *run, struct error *e)
{
    struct record key = record_of(TABLE_AGENT_RUNS), row;
    record_set_uuid(&key, AGENT_RUNS_ID, run->run_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, &row, e))
        return error_wrap(e, "run");
    run->started_us = record_integer(&row, AGENT_RUNS_STARTED_AT);
    if (!load_identity(run, record_text(&row, AGENT_RUNS_METADATA), e))
        return false;
    str trace = record_text(&row, AGENT_RUNS_TRACE_ID);
    for (size_t i = 0; i + 1 < trace.len && i / 2 < sizeof run->trace.trace_id; i += 2) {
        int high = trace.ptr[i] <= '9' ? trace.ptr[i] - '0' : trace.ptr[i] - 'a' + 10;
        int low = trace.ptr[i + 1] <= '9' ? trace.ptr[i + 1] - '0' : trace.ptr[i + 1] - 'a' + 10;
        run->trace.trace_id[i / 2] = (uint8_t) (high << 4 | low);
    }
    run->ctx.trace = run->shield.trace = run->trace;
    return true;
}

/* Does the journal say that another coroutine than this one was at work, or that the run waited? */
static bool is_resumption(const struct run *run, int64_t epoch)
{
    return run->state.status == RUN_WAITING || epoch != run->state.epoch;
}

static bool load(struct run *run, struct error *e)
{
    int64_t epoch = 0;
    if (!load_session(run, e) || !load_run_row(run, e) || !own_session(run, &epoch, e) ||
        !fold_journal(run, e))
        return false;
    if (run->has_path)
        run_ledger_reconcile(
            run); /* also for a final run: its last commit may have been applied without our knowing */
    if (run_status_is_final(run->state.status))
        return true;
    if (!run->has_path) {
        if (!open_accounts(run, e))
            return false;
        run_ledger_reconcile(run);
    }
    journal_writer_deinit(&run->journal);
    journal_writer_init(&run->journal, run->o->parts.store, run->o->hub, run->o->parts.clock,
                        &run->state, run->tenant_id, run->session_id, run->run_id,
                        run->o->parts.node, epoch);
    if (is_resumption(run, epoch)) {
        struct json_writer *w = journal_event(&run->journal, EVENT_RUN_RESUMED);
        json_put_i64(w, S("epoch"), epoch);
        json_put_str(w, S("node"), run->o->parts.node);
        struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
        record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
        record_set_text(row, AGENT_RUNS_STATUS, S("running"));
        record_set_null(row, AGENT_RUNS_WAITS_UNTIL);
    }
    return true;
}

/* What needs the definition and the tools: a failure here ends the run by its own journal. */
static bool prepare(struct run *run, struct error *e)
{
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
    if (failure) {
        record_set_text(row, AGENT_RUNS_ERROR, str_from_cstr(error_problem(failure->reason)));
        record_set_text(row, AGENT_RUNS_ERROR_MESSAGE,
                        str_copy(run->turn, str_from_cstr(failure->message)));
    }
    struct record *session = journal_row(&run->journal, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, run->session_id);
    record_set_null(session, SESSIONS_LIVE_RUN_ID);
    record_set_integer(session, SESSIONS_UPDATED_AT, now_us);
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
}

static void put_cost(struct run *run, struct json_writer *w)
{
    json_key(w, S("cost"));
    cost_write_json(w, run->state.spent);
}

static bool complete(struct run *run, struct error *e)
{
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_COMPLETED);
    json_put_str(w, S("message_id"), uuid_str(run->turn, run->state.answer_id));
    json_put_str(w, S("finish"), run->state.finish);
    put_cost(run, w);
    if (run->is_degraded && str_equal(run->state.finish, S("length")))
        json_put_str(w, S("degraded"),
                     S("budget: the answer was cut at the tokens that were left"));
    write_final_rows(run, RUN_COMPLETED, NULL);
    return run_flush(run, "run_completed", e);
}

bool run_fail(struct run *run, const struct error *failure, struct error *e)
{
    if (!run_tools_abandon(run, e))
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
    return run_flush(run, "run_failed", e);
}

static bool cancel(struct run *run, struct error *e)
{
    if (!run_tools_abandon(run, e))
        return false;
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_CANCELLED);
    json_put_str(w, S("by"), run->state.cancelled_by);
    put_cost(run, w);
    write_final_rows(run, RUN_CANCELLED, NULL);
    return run_flush(run, "run_cancelled", e);
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

/* True when the run goes on; false: it waits and leaves memory. */
static bool wait_for_others_to_act(struct run *run, bool *is_parked, struct error *e)
{
    bool is_waiting;
    run->is_woken = false;
    if (!run_tools_check_awaited(run, &is_waiting, e))
        return false;
    if (!is_waiting)
        return run_flush(run, "approval_decided", e);
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

/* ---- the loop ---- */

static void journal_cancelling(struct run *run)
{
    if (!run->is_cancel_asked || run->state.is_cancelling || run_status_is_final(run->state.status))
        return;
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_CANCELLING);
    json_put_str(w, S("by"), run->cancelled_by);
    journal_close_event(&run->journal);
}

static bool do_command(struct run *run, struct run_command command, bool *is_parked,
                       struct error *e)
{
    switch (command.kind) {
    case RUN_DO_NOTHING: return true;
    case RUN_DO_LOSE_ATTEMPT: return run_model_lose_attempt(run, e);
    case RUN_DO_RECOVER_CALL: return run_tools_recover(run, command.call, e);
    case RUN_DO_CALLS: return run_tools_step(run, e);
    case RUN_DO_WAIT: return wait_for_others_to_act(run, is_parked, e);
    case RUN_DO_MODEL: return run_tools_refresh(run, e) && run_model_step(run, e);
    case RUN_DO_COMPLETE: return complete(run, e);
    case RUN_DO_CANCEL: return cancel(run, e);
    }
    unreachable_state();
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
    return e.reason == REASON_FENCED ? OUTCOME_DROPPED : OUTCOME_RELOAD;
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
        if (run->is_draining)
            return OUTCOME_DROPPED;
        e = (struct error){0};
        arena_mark mark = arena_save(run->turn);
        bool is_recovery =
            command.kind == RUN_DO_LOSE_ATTEMPT || command.kind == RUN_DO_RECOVER_CALL;
        bool ok = run->fatal.code != ERROR_OK && !is_recovery
                      ? error_copy(&e, &run->fatal)
                      : do_command(run, command, &is_parked, &e);
        if (ok && run->journal.failure.code !=
                      ERROR_OK) /* the state did not move: the next command would be the same */
            ok = error_copy(&e, &run->journal.failure);
        if (ok && arena_is_over(run->arena))
            ok = error_set(&e, REASON_LIMIT, "the run's conversation is over %u bytes",
                           RUN_ARENA_BYTES_MAX);
        if (!ok) {
            enum outcome outcome = settle_failure(run, &e);
            if (outcome != OUTCOME_FINAL)
                return outcome;
        }
        if (is_parked)
            return OUTCOME_PARKED;
        if (!journal_has_pending(&run->journal)) {
            arena_rewind(run->turn, mark);
            run->retry_ms = RUN_STORE_RETRY_MS; /* the store takes appends again */
        }
    }
    return OUTCOME_FINAL;
}

/*
 * The journal does not fold: nothing can be appended to it any more.  The rows say so and the session is free again; the events stay as
 * they are, for whoever looks into it.
 */
static void bury(struct run *run, const struct error *failure)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, run->turn, run->tenant_id);
    struct record *row = batch_add(&batch, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
    record_set_text(row, AGENT_RUNS_STATUS, str_from_cstr(run_status_name(RUN_FAILED)));
    record_set_integer(row, AGENT_RUNS_COMPLETED_AT, clock_unix_us(run->o->parts.clock));
    record_set_text(row, AGENT_RUNS_ERROR, str_from_cstr(error_problem(REASON_CORRUPT)));
    record_set_text(row, AGENT_RUNS_ERROR_MESSAGE,
                    str_copy(run->turn, str_from_cstr(failure->message)));
    row = batch_add(&batch, WRITE_UPDATE, TABLE_SESSIONS);
    record_set_uuid(row, SESSIONS_ID, run->session_id);
    record_set_null(row, SESSIONS_LIVE_RUN_ID);
    batch_where_uuid(&batch, SESSIONS_LIVE_RUN_ID, run->run_id);
    if (!store_commit(run->o->parts.store, &run->shield, &batch, &e))
        LOG_ERROR("orchestrator.run", S("the end of a broken run was not stored"), &e);
}

/* A load failed: is it worth another try?  If not, says so and leaves the run as it can be left. */
static bool is_worth_another(struct run *run, const struct error *failure)
{
    bool is_broken = failure->reason == REASON_CORRUPT;
    if (!is_broken && failure->reason != REASON_FENCED && failure->code != ERROR_NOT_FOUND)
        return true;
    LOG_ERROR("orchestrator.run", S("run dropped"), failure,
              LOG_STR("nexus.run.id", uuid_str(run->turn, run->run_id)));
    if (is_broken)
        bury(run, failure);
    return false;
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
        arena_reset(run->turn);
        arena_reset(run->arena);
        run->messages = NULL;
        run->message_count = run->message_capacity = run->offered_count = 0;
        if (load(run, &e))
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
    str session = uuid_str(run->turn, run->session_id);
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

/* Reservations of the last life must all stand in the ledger before anyone makes a new one. */
static void wait_for_others(struct run *run)
{
    struct error never = {0};
    run->is_recovering = false;
    atomic_fetch_sub(&run->o->recovering, 1);
    while (atomic_load(&run->o->recovering) > 0 &&
           context_sleep_ms(&run->shield, RUN_RECOVERY_POLL_MS, &never))
        continue;
}

static void run_main(struct context *unused, struct run *run)
{
    (void) unused;
    struct error e = {0};
    enum outcome outcome = OUTCOME_RELOAD;
    bool is_loaded = load(run, &e);
    if (!is_loaded && is_worth_another(run, &e))
        is_loaded = reload(run);
    if (run->is_recovering)
        wait_for_others(run);
    while (is_loaded && outcome == OUTCOME_RELOAD) {
        if (run_status_is_final(run->state.status))
            break;
        outcome = work(run);
        if (outcome == OUTCOME_RELOAD)
            is_loaded = reload(run);
    }
    if (run->has_path)
        write_utilization(run);
    if (outcome == OUTCOME_FINAL)
        count_outcome(run);
}

/* ---- life and death ---- */

static struct run *run_create(struct orchestrator *o, size_t lane, uuid tenant_id, uuid session_id,
                              uuid run_id)
{
    struct run *run = calloc(1, sizeof *run);
    ensure(run != NULL);
    run->o = o;
    run->lane = lane;
    run->tenant_id = tenant_id;
    run->session_id = session_id;
    run->run_id = run_id;
    run->keep = arena_create(0);
    run->arena = arena_create(RUN_ARENA_BYTES_MAX);
    run->retry_ms = RUN_STORE_RETRY_MS;
    run->turn = arena_create(RUN_ARENA_BYTES_MAX);
    run->settings = orchestrator_acquire(o);
    run->tools = registry_acquire(o->parts.registry);
    struct scheduler *scheduler = o->parts.lanes[lane].scheduler;
    context_init(&run->ctx, scheduler, run->turn, DEADLINE_NONE);
    context_init(&run->shield, scheduler, run->turn, DEADLINE_NONE);
    run->ctx.tenant_id = run->shield.tenant_id = tenant_id;
    list_push_back(&o->lanes[lane].runs, &run->link);
    o->lanes[lane].run_count++;
    atomic_fetch_add(&o->active_runs, 1);
    return run;
}

static void run_destroy(struct run *run)
{
    struct orchestrator *o = run->o;
    struct lane_state *lane = &o->lanes[run->lane];
    if (run->is_recovering)
        atomic_fetch_sub(&o->recovering, 1);
    if (run->has_path) {
        run_ledger_drop(run);
        ledger_close_path(o->ledger, &run->path);
    }
    journal_writer_deinit(&run->journal);
    list_remove(&run->link);
    lane->run_count--;
    atomic_fetch_sub(&o->active_runs, 1);
    if (lane->run_count == 0)
        condition_broadcast(&lane->became_idle);
    context_deinit(&run->ctx);
    context_deinit(&run->shield);
    registry_release(run->tools);
    orchestrator_release(run->settings);
    arena_destroy(run->turn);
    arena_destroy(run->arena);
    arena_destroy(run->keep);
    free(run);
}

static void run_coroutine(void *argument)
{
    struct run *run = argument;
    run_main(&run->ctx, run);
    bool is_again = run->is_woken && run->state.status == RUN_WAITING && !run->is_draining;
    struct orchestrator *o = run->o;
    uuid tenant_id = run->tenant_id, session_id = run->session_id, run_id = run->run_id;
    run_destroy(run);
    if (is_again) /* an approval was decided between the last look and now */
        run_spawn(o, tenant_id, session_id, run_id);
}

struct spawn {
    struct orchestrator *o;
    uuid tenant_id, session_id, run_id;
    bool is_cancel, is_recovering;
    size_t by_bytes;
    char by[256];
};

static struct run *find_run(struct lane_state *lane, uuid run_id)
{
    LIST_EACH(node, &lane->runs)
    {
        struct run *run = LIST_ITEM(node, struct run, link);
        if (uuid_equal(run->run_id, run_id))
            return run;
    }
    return NULL;
}

static void mark_cancelled(struct run *run, const struct spawn *spawn)
{
    if (run->is_cancel_asked)
        return;
    run->cancelled_by = str_copy(run->keep, str_of(spawn->by, spawn->by_bytes));
    run->is_cancel_asked = true;
    context_cancel(&run->ctx);
}

static void spawn_on_lane(void *argument)
{
    struct spawn *spawn = argument;
    struct orchestrator *o = spawn->o;
    size_t lane = lane_of_session(o, spawn->session_id);
    struct run *run = find_run(&o->lanes[lane], spawn->run_id);
    if (run) {
        run->is_woken = true;
        if (spawn->is_recovering) /* counted once already */
            atomic_fetch_sub(&o->recovering, 1);
    } else if (o->lanes[lane].is_closed) {
        if (spawn->is_recovering)
            atomic_fetch_sub(&o->recovering, 1);
    } else {
        struct error e = {0};
        run = run_create(o, lane, spawn->tenant_id, spawn->session_id, spawn->run_id);
        run->is_recovering = spawn->is_recovering;
        if (!coroutine_start(o->parts.lanes[lane].scheduler, "run", run_coroutine, run, &e)) {
            LOG_ERROR("orchestrator.run", S("run not started: it resumes at the next start"), &e);
            run_destroy(run); /* gives its count back */
            run = NULL;
        }
    }
    if (run && spawn->is_cancel)
        mark_cancelled(run, spawn);
    free(spawn);
}

static void post_spawn(struct orchestrator *o, struct spawn spawn)
{
    struct spawn *copy = malloc(sizeof *copy);
    ensure(copy != NULL);
    *copy = spawn;
    struct lane *lane = &o->parts.lanes[lane_of_session(o, spawn.session_id)];
    lane->post(lane, spawn_on_lane, copy);
}

void run_spawn(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id)
{
    post_spawn(o, (struct spawn){
                      .o = o, .tenant_id = tenant_id, .session_id = session_id, .run_id = run_id});
}

void run_spawn_recovering(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id)
{
    atomic_fetch_add(&o->recovering, 1);
    post_spawn(o, (struct spawn){.o = o,
                                 .tenant_id = tenant_id,
                                 .session_id = session_id,
                                 .run_id = run_id,
                                 .is_recovering = true});
}

void run_spawn_cancelled(struct orchestrator *o, uuid tenant_id, uuid session_id, uuid run_id,
                         str cancelled_by)
{
    struct spawn spawn = {.o = o,
                          .tenant_id = tenant_id,
                          .session_id = session_id,
                          .run_id = run_id,
                          .is_cancel = true};
    str by = str_cut_utf8(cancelled_by, sizeof spawn.by);
    memcpy(spawn.by, by.ptr, by.len);
    spawn.by_bytes = by.len;
    post_spawn(o, spawn);
}
