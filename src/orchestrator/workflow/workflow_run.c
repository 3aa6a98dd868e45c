#include "orchestrator/workflow/workflow_run.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/replay/run_environment.h"
#include "orchestrator/session/session_inbox.h"
#include "orchestrator/workflow/workflow_agent.h"
#include "orchestrator/workflow_internal.h"

#include <stdatomic.h>

enum { SHIELDED_LOOK_MS = 200 }; /* between two looks for a drain while nothing can be cancelled */

int64_t workflow_now_us(const struct workflow_instance *w)
{
    const struct run *run = w->run;
    return run->journal.held_us > 0 ? run->journal.held_us : clock_unix_us(run->o->parts.clock);
}

/* ---- preparing ---- */

static str every_tool = S_INIT("*");

static bool is_store_failure(const struct error *e)
{
    return e->reason == REASON_STORE || e->reason == REASON_OVERLOADED_HERE ||
           e->reason == REASON_OUTCOME_UNKNOWN || e->reason == REASON_FENCED ||
           e->code == ERROR_CANCELLED;
}

/* The instance must end with it, unless it must already. */
static void end_with(struct workflow_instance *w, const struct error *why)
{
    if (w->ending.code == ERROR_OK)
        w->ending = *why;
}

static bool load_input(struct workflow_instance *w, struct error *e)
{
    struct run *run = w->run;
    struct record key = record_of(TABLE_MESSAGES);
    struct record *row = ARENA_NEW(run->turn, struct record);
    const struct json *metadata = NULL;
    struct error bad = {0};
    record_set_uuid(&key, MESSAGES_ID, run->state.question_id);
    if (!store_get(run->o->parts.store, &run->shield, run->tenant_id, &key, row, e))
        return error_wrap(e, "input of the workflow");
    w->input_label = (struct label){.origins = LABEL_USER};
    if (record_has(row, MESSAGES_METADATA) &&
        json_parse(run->turn, record_text(row, MESSAGES_METADATA), (struct json_limits){0},
                   &metadata, &bad) &&
        json_get(metadata, S("label")))
        w->input_label = label_read_json(json_get(metadata, S("label")));
    bad = (struct error){0};
    str input = record_text(row, MESSAGES_CONTENT);
    if (w->state->takes_message)
        input = agent_workflow_input(run->turn, input);
    if (!json_parse(run->arena, input, (struct json_limits){0}, &w->input, &bad)) {
        error_wrap(&bad, "input of the workflow");
        end_with(w, &bad);
    }
    return true;
}

static const struct json *about_run(struct workflow_instance *w)
{
    struct run *run = w->run;
    struct json_builder b;
    json_builder_init(&b, run->arena, 16);
    json_build_object_begin(&b);
    json_build_key(&b, S("id"));
    json_build_str(&b, uuid_str(run->arena, run->run_id));
    json_build_key(&b, S("started_at"));
    json_build_str(&b, time_str(run->arena, run->started_us));
    json_build_object_end(&b);
    return json_build_finish(&b);
}

static bool load_definition(struct workflow_instance *w, struct error *e)
{
    struct run *run = w->run;
    struct error bad = {0};
    if (workflow_pinned(run->o, &run->shield, run->tenant_id, w->state->name, w->state->version,
                        w->state->digest, &w->entry, &bad)) {
        w->definition = workflow_entry_definition(w->entry);
        return true;
    }
    if (is_store_failure(&bad))
        return error_copy(e, &bad);
    end_with(w, &bad);
    return true;
}

/* What the steps may call: all that the policy allows, unless it is an agent's run and the agent names tools. */
static void narrow_tools(struct workflow_instance *w)
{
    const struct agent_definition *own;
    struct error gone = {0};
    if (!w->state->takes_message)
        return;
    own = agent_set_find(w->run->settings->agents, w->run->state.agent);
    if (!own) {
        error_set(&gone, REASON_NOT_FOUND, "agent \"" STR_FMT "\" is not configured any more",
                  STR_ARG(w->run->state.agent));
        end_with(w, &gone);
    } else if (own->tool_count > 0) {
        w->agent.tools = own->tools;
        w->agent.tool_details = own->tool_details;
        w->agent.tool_count = own->tool_count;
    }
}

bool workflow_prepare(struct run *run, struct error *e)
{
    struct workflow_instance *w = ARENA_NEW(run->arena, struct workflow_instance);
    workflow_release(run);
    *w = (struct workflow_instance){.run = run, .state = run->state.workflow};
    w->agent = (struct agent_definition){
        .name = run->state.agent,
        .version = w->state->version,
        .tools = &every_tool,
        .tool_count = 1,
        .steps_max = 1,
    };
    narrow_tools(w);
    run->workflow = w;
    run->agent = &w->agent;
    run->model = catalog_find(run->settings->catalog, run->state.model);
    if (!run->model)
        run->model = catalog_default(run->settings->catalog);
    run->ctx.deadline_ns =
        DEADLINE_NONE;    /* times of steps and of the workflow are in the journal */
    run->is_woken = true; /* what came meanwhile is looked at first */
    w->about = about_run(w);
    if (run->has_wake) {
        struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
        record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
        record_set_null(row, AGENT_RUNS_WAKES_AT);
        run->has_wake = false;
    }
    return load_input(w, e) && load_definition(w, e);
}

void workflow_release(struct run *run)
{
    if (!run->workflow)
        return;
    workflow_entry_release(run->workflow->entry);
    run->workflow = NULL;
}

/* ---- the end ---- */

static void put_cost(struct workflow_instance *w, struct json_writer *out)
{
    json_key(out, S("cost"));
    cost_write_json(out, w->run->state.spent);
}

/* {"output": ...}: what a workflow around, or whoever asks, gets exactly as it is. */
static bool add_answer(struct workflow_instance *w, const struct json *output, uuid *message_id,
                       struct error *e)
{
    struct run *run = w->run;
    str text = json_print(run->turn, output), content;
    if (text.len > WORKFLOW_OUTPUT_BYTES_MAX)
        return error_set(e, REASON_TOO_LARGE, "the output of the workflow is over %u bytes",
                         WORKFLOW_OUTPUT_BYTES_MAX);
    if (w->state->takes_message)
        content = agent_workflow_answer(output, text);
    else if (!json_to_str(output, &content))
        content = text;
    if (w->state->takes_message)
        run_journal_text(run, content);
    *message_id = run_new_id(run, RUN_ID_OUTPUT, 0, STR_NONE);
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_MESSAGES);
    run_message_row(row, run, *message_id, ROLE_ASSISTANT, content, (int64_t) (content.len + 3) / 4,
                    str_printf(run->turn, "{\"output\":" STR_FMT "}", STR_ARG(text)));
    record_set_text(row, MESSAGES_METADATA, run_label_metadata(run->turn, w->input_label));
    return true;
}

static bool end_completed(struct workflow_instance *w, struct error *e)
{
    struct run *run = w->run;
    struct error bad = {0};
    const struct json *output = NULL;
    uuid message_id;
    if (!workflow_output(w, &output, &bad) || !add_answer(w, output, &message_id, &bad)) {
        if (is_store_failure(&bad))
            return error_copy(e, &bad);
        end_with(w, &bad);
        return true;
    }
    if (!run_end_look(run, e))
        return false;
    struct json_writer *out = journal_event(&run->journal, EVENT_RUN_COMPLETED);
    json_put_str(out, S("message_id"), uuid_str(run->turn, message_id));
    json_put_str(out, S("finish"), S("stop"));
    put_cost(w, out);
    run_end_write(run, RUN_COMPLETED, NULL);
    w->has_closed = true;
    return true;
}

static bool end_failed(struct workflow_instance *w, const struct error *why, struct error *e)
{
    struct run *run = w->run;
    if (!run_end_look(run, e))
        return false;
    struct json_writer *out = journal_event(&run->journal, EVENT_RUN_FAILED);
    json_put_str(out, S("error"), str_from_cstr(error_problem(why->reason)));
    json_put_str(out, S("message"), str_from_cstr(why->message));
    put_cost(w, out);
    run_end_write(run, RUN_FAILED, why);
    w->has_closed = true;
    return true;
}

static bool end_cancelled(struct workflow_instance *w, struct error *e)
{
    struct run *run = w->run;
    if (!run_end_look(run, e))
        return false;
    struct json_writer *out = journal_event(&run->journal, EVENT_RUN_CANCELLED);
    json_put_str(out, S("by"), run->state.cancelled_by);
    put_cost(w, out);
    run_end_write(run, RUN_CANCELLED, NULL);
    w->has_closed = true;
    return true;
}

static void error_of(struct error *out, str problem, str path, str message)
{
    enum error_reason reason;
    if (!error_reason_find(problem, &reason))
        reason = REASON_INTERNAL;
    if (str_is_empty(path))
        error_set(out, reason, STR_FMT, STR_ARG(message));
    else
        error_set(out, reason, "step \"" STR_FMT "\": " STR_FMT, STR_ARG(path), STR_ARG(message));
}

/* Nothing is open: undo what was done, or end. */
static bool end_or_undo(struct workflow_instance *w, const struct workflow_node *failed,
                        struct error *e)
{
    struct error why = w->ending;
    if (failed)
        error_of(&why, failed->error, failed->path, failed->message);
    if (!w->definition || !workflow_can_undo(w->state, w->definition))
        return w->is_cancelled ? end_cancelled(w, e) : end_failed(w, &why, e);
    struct json_writer *out = journal_event(&w->run->journal, EVENT_RUN_COMPENSATING);
    json_put_str(out, S("reason"), w->is_cancelled ? S("cancelled") : S("failed"));
    if (!w->is_cancelled) {
        json_put_str(out, S("error"), str_from_cstr(error_problem(why.reason)));
        json_put_str(out, S("message"), str_from_cstr(why.message));
    }
    journal_close_event(&w->run->journal);
    w->has_turned = true;
    return true;
}

static bool end_undone(struct workflow_instance *w, struct error *e)
{
    struct workflow_state *state = w->state;
    struct error why = {0};
    struct strbuf broken;
    strbuf_init(&broken, w->run->turn, ERROR_MESSAGE_BYTES);
    for (size_t i = 0; i < state->undo_count; i++) {
        const struct workflow_node *undo = state->undo_list[i]->undo;
        if (undo && undo->status == STEP_FAILED)
            strbuf_printf(&broken, "%s" STR_FMT " (" STR_FMT ")", broken.len > 0 ? ", " : "",
                          STR_ARG(state->undo_list[i]->path), STR_ARG(undo->message));
    }
    if (broken.len > 0) {
        error_set(&why, REASON_COMPENSATION_FAILED,
                  "not undone: " STR_FMT "; the instance was ended by: " STR_FMT,
                  STR_ARG(strbuf_str(&broken)),
                  STR_ARG(state->is_cancelled ? S("a cancellation") : state->failure_message));
        return end_failed(w, &why, e);
    }
    if (state->is_cancelled)
        return end_cancelled(w, e);
    error_of(&why, state->failure, STR_NONE, state->failure_message);
    return end_failed(w, &why, e);
}

/* ---- one command ---- */

static void due_at(struct workflow_instance *w, int64_t at_us)
{
    if (at_us > 0 && at_us < w->due_us)
        w->due_us = at_us;
}

static bool stop(struct workflow_instance *w, struct workflow_node *node, bool *did,
                 struct error *e)
{
    bool is_closed = true;
    if (!node->step && w->definition)
        node->step = workflow_step_of(w->definition, node);
    *did = true;
    if (node->call && node->status == STEP_RUNNING) {
        *did = !node->work;
        return workflow_tool_stop(w, node, e);
    }
    if (!workflow_wait_stop(w, node, &is_closed, e))
        return false;
    *did = is_closed;
    if (is_closed)
        workflow_node_stopped(w, node);
    return true;
}

static bool wait_for(struct workflow_instance *w, struct workflow_node *node, bool *did)
{
    if (node->kind == STEP_SLEEP && node->wakes_us <= workflow_now_us(w)) {
        workflow_node_completed(w, node, STR_NONE);
        *did = true;
        return true;
    }
    due_at(w, node->kind == STEP_SLEEP ? node->wakes_us : 0);
    due_at(w, node->work ? 0 : node->timeout_us); /* a call at work has its own deadline */
    return true;
}

static bool retry(struct workflow_instance *w, struct workflow_node *node, bool *did,
                  struct error *e)
{
    *did = node->wakes_us <= workflow_now_us(w);
    due_at(w, node->wakes_us);
    return !*did || workflow_again(w, node, e);
}

static bool execute(struct workflow_instance *w, const struct workflow_command *command, bool *did,
                    struct error *e)
{
    bool is_new = command->kind == WORKFLOW_BEGIN || command->kind == WORKFLOW_ROUND ||
                  command->kind == WORKFLOW_RETRY || command->kind == WORKFLOW_UNDO;
    *did = false;
    if (is_new && (w->is_letting_go || workflow_is_held_back(w)))
        return true;
    *did = true;
    switch (command->kind) {
    case WORKFLOW_BEGIN: return workflow_begin(w, command, e);
    case WORKFLOW_ROUND: return workflow_round(w, command->node, e);
    case WORKFLOW_RETRY: return retry(w, command->node, did, e);
    case WORKFLOW_WAIT: *did = false; return wait_for(w, command->node, did);
    case WORKFLOW_STOP: return stop(w, command->node, did, e);
    case WORKFLOW_COMPLETE: return workflow_complete(w, command->node, e);
    case WORKFLOW_FAIL: workflow_fail(w, command->node, command->failed); return true;
    case WORKFLOW_UNDO: return workflow_undo(w, command->node, e);
    case WORKFLOW_DONE: return end_completed(w, e);
    case WORKFLOW_FAILED: return end_or_undo(w, command->failed, e);
    case WORKFLOW_UNDONE: return end_undone(w, e);
    }
    unreachable_state();
}

/* Does all that can be done, as far as one append holds it; *is_full: there is more. */
static bool advance(struct workflow_instance *w, bool *is_full, struct error *e)
{
    struct run *run = w->run;
    bool did = true;
    *is_full = false;
    while (did && !w->has_closed && !w->has_turned) {
        did = false;
        w->due_us = INT64_MAX;
        if (!workflow_next(w->state, w->definition, w->ending.code != ERROR_OK, &w->commands, e))
            return false;
        for (size_t i = 0; i < w->commands.count && !w->has_closed && !w->has_turned; i++) {
            bool one = false;
            *is_full = run->journal.batch.count >= WORKFLOW_BATCH_ROWS ||
                       arena_bytes(run->journal.arena) > WORKFLOW_TURN_BYTES;
            if (*is_full)
                return true;
            if (!execute(w, &w->commands.items[i], &one, e))
                return false;
            journal_close_event(&run->journal);
            if (run->journal.failure.code != ERROR_OK)
                return error_copy(e, &run->journal.failure);
            did = did || one;
        }
        w->is_letting_go = arena_bytes(run->turn) > WORKFLOW_TURN_BYTES;
    }
    return true;
}

/* ---- what ends the instance or a step from outside ---- */

static void note_cancel(struct workflow_instance *w)
{
    struct run *run = w->run;
    if (run->is_cancel_asked && !run->state.is_cancelling) {
        struct json_writer *out = journal_event(&run->journal, EVENT_RUN_CANCELLING);
        json_put_str(out, S("by"), run->cancelled_by);
        journal_close_event(&run->journal);
    }
    if (!run->state.is_cancelling || w->ending.code != ERROR_OK || w->state->is_undoing)
        return;
    w->is_cancelled = true;
    error_set(&w->ending, REASON_CANCELLED, "the run was cancelled");
}

static int64_t deadline_us(const struct workflow_instance *w)
{
    int64_t ms = w->definition ? w->definition->timeout_ms : 0;
    return ms > 0 && !w->state->is_undoing ? w->run->started_us + ms * 1000 : 0;
}

static void note_limits(struct workflow_instance *w)
{
    struct run *run = w->run;
    struct error why = {0};
    int64_t end_us = deadline_us(w);
    if (run->fatal.code != ERROR_OK)
        end_with(w, &run->fatal);
    if (end_us > 0 && end_us <= workflow_now_us(w)) {
        error_set(&why, REASON_TIMEOUT, "the workflow did not end within its timeout");
        end_with(w, &why);
    }
    if (arena_is_over(run->arena) && !w->state->is_undoing) {
        error_set(&why, REASON_LIMIT, "the instance is over %u bytes in memory",
                  RUN_ARENA_BYTES_MAX);
        end_with(w, &why);
    }
}

void workflow_note_timeout(struct workflow_instance *w, struct workflow_node *node)
{
    int64_t now = workflow_now_us(w);
    if (node->timeout_us > 0 && node->timeout_us <= now && !node->work)
        node->is_stopping = true;
    for (node = node->lane->owner; node; node = node->lane->owner)
        if (node->timeout_us > 0 && node->timeout_us <= now)
            node->is_stopping = true;
}

static void note_timeouts(struct workflow_instance *w)
{
    for (size_t i = 0; i < w->state->open_count; i++)
        workflow_note_timeout(w, w->state->open[i]);
}

static void due_of_holders(struct workflow_instance *w)
{
    if (w->ending.code == ERROR_OK) /* else it is over, and what must end is waited for */
        due_at(w, deadline_us(w));
    for (size_t i = 0; i < w->state->open_count; i++)
        for (struct workflow_node *node = w->state->open[i]->lane->owner; node;
             node = node->lane->owner)
            due_at(w, node->is_stopping ? 0 : node->timeout_us);
}

/* ---- waiting ---- */

static bool has_children(const struct workflow_instance *w)
{
    for (size_t i = 0; i < w->state->open_count; i++) {
        const struct workflow_node *node = w->state->open[i];
        if (node->status == STEP_RUNNING && !uuid_is_none(node->child_run_id) &&
            !node->is_child_ended)
            return true;
    }
    return false;
}

static bool has_news(const struct workflow_instance *w)
{
    const struct run *run = w->run;
    return (run->is_woken && !workflow_is_held_back(w)) || run->is_inbox_told || run->is_draining ||
           workflow_tools_have_news(w) || (run->is_cancel_asked && !run->state.is_cancelling);
}

static int64_t ns_of(struct workflow_instance *w, int64_t at_us)
{
    if (at_us == INT64_MAX)
        return DEADLINE_NONE;
    int64_t ahead_us = at_us - workflow_now_us(w);
    return context_now_ns(&w->run->shield) + (ahead_us > 0 ? ahead_us * 1000 : 0);
}

/* Until something comes, or `until_ns`. */
static void wait_for_news(struct workflow_instance *w, int64_t until_ns)
{
    struct run *run = w->run;
    struct error woken = {0};
    bool is_shielded = context_is_cancelled(&run->ctx);
    int64_t look_ns = context_now_ns(&run->shield) + SHIELDED_LOOK_MS * 1000000ll;
    if (is_shielded && look_ns < until_ns)
        until_ns = look_ns;
    if (!has_news(w))
        (void) !condition_wait_until(&run->woken, is_shielded ? &run->shield : &run->ctx, until_ns,
                                     &woken);
}

static void write_parked(struct workflow_instance *w, bool is_waiting)
{
    struct run *run = w->run;
    if (is_waiting) {
        struct json_writer *out = journal_event(&run->journal, EVENT_RUN_WAITING);
        workflow_put_approvals(w, out);
        if (w->due_us != INT64_MAX)
            json_put_i64(out, S("wakes_at"), w->due_us);
    } else if (w->due_us == INT64_MAX) {
        return;
    }
    workflow_set_waiting(w, is_waiting, w->due_us == INT64_MAX ? 0 : w->due_us);
}

/* Its row says that it waits, or sleeps, and it does not: with its next append it says so, for a start to find it. */
static void note_goes_on(struct run *run)
{
    struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
    record_set_text(row, AGENT_RUNS_STATUS, S("running"));
    record_set_null(row, AGENT_RUNS_WAKES_AT);
}

/* Until then, or until there is news; while nothing can be cancelled in looks of its own. */
static void linger(struct workflow_instance *w, int64_t until_ns)
{
    bool is_shielded = context_is_cancelled(&w->run->ctx);
    do
        wait_for_news(w, until_ns);
    while (is_shielded && !has_news(w) && !atomic_load(&w->run->o->is_draining) &&
           context_now_ns(&w->run->shield) < until_ns);
}

/*
 * Nothing is at work.  What comes soon is waited for in memory; else the run leaves it.  With live children its row stays `running`, so
 * that a start brings all of them back.  A node that stops has no patience for it.
 */
static bool park(struct workflow_instance *w, bool *is_parked, struct error *e)
{
    struct run *run = w->run;
    bool is_family = has_children(w);
    journal_hold_time(&run->journal);
    int64_t linger_ms = is_family ? WORKFLOW_CHILD_LINGER_MS : WORKFLOW_LINGER_MS;
    int64_t linger_us = workflow_now_us(w) + linger_ms * 1000;
    due_of_holders(w);
    bool is_soon = w->due_us < linger_us;
    if ((is_soon || is_family) && atomic_load(&run->o->is_draining)) {
        journal_free_time(&run->journal);
        run->is_draining = true;
        return true;
    }
    if (is_soon || is_family) {
        int64_t until_us = w->due_us < linger_us ? w->due_us : linger_us;
        journal_free_time(&run->journal);
        linger(w, ns_of(w, until_us));
        if (is_soon || has_news(w) || atomic_load(&run->o->is_draining))
            return true;
    }
    if (!has_news(w)) {
        write_parked(w, !is_family);
        w->is_leaving = true;
    }
    journal_free_time(&run->journal);
    if (!w->is_leaving)
        return true;
    if (!run_flush(run, is_family ? "run_parked" : "run_waiting", e))
        return false;
    bool is_told = run->is_inbox_told; /* who waits is paused already */
    run->is_inbox_told = false;
    *is_parked = !has_news(w);
    run->is_inbox_told = is_told;
    if (!*is_parked && !run->is_draining)
        note_goes_on(run);
    return true;
}

/* ---- the loop ---- */

static bool recover_all(struct workflow_instance *w, struct error *e)
{
    struct workflow_state *state = w->state;
    struct workflow_node **open =
        ARENA_ARRAY(w->run->turn, struct workflow_node *, state->open_count + 1);
    size_t count = state->open_count;
    if (count > 0)
        memcpy(open, state->open, count * sizeof *open);
    for (size_t i = 0; i < count; i++) {
        struct workflow_node *node = open[i];
        if (node->status == STEP_RUNNING && node->call && !node->work &&
            !workflow_tool_recover(w, node, e))
            return false;
    }
    return true;
}

/* Calls that were in flight when the run left memory. */
static bool recover(struct workflow_instance *w, struct error *e)
{
    journal_hold_time(&w->run->journal);
    bool ok = recover_all(w, e);
    journal_free_time(&w->run->journal);
    return ok;
}

static bool look(struct workflow_instance *w, struct error *e)
{
    if (!w->run->is_woken || workflow_is_held_back(w))
        return true;
    w->run->is_woken = false;
    return workflow_look(w, e);
}

/*
 * May what is pending wait for what comes next?  Only while nothing but pure steps is at work or about to be: then their intents,
 * outcomes and successors are one append.  Whoever follows the instance does not wait long.
 */
static bool may_hold(struct workflow_instance *w, bool is_full)
{
    struct run *run = w->run;
    int64_t now_ns = context_now_ns(&run->shield);
    if (w->has_closed || w->has_turned || is_full || w->child_count > 0 || run->is_draining ||
        !workflow_tools_may_precede(w) || !run_has_room(run))
        return false;
    if (w->held_ns == 0) {
        bool is_followed = journal_is_followed(run->o->hub, run->run_id);
        int64_t ms = is_followed ? WORKFLOW_HOLD_FOLLOWED_MS : WORKFLOW_HOLD_MS;
        w->held_ns = now_ns + ms * 1000000;
    }
    return now_ns < w->held_ns;
}

static bool append(struct workflow_instance *w, bool is_full, struct error *e)
{
    if (may_hold(w, is_full))
        return true;
    w->held_ns = 0;
    if (w->has_closed ? !run_flush_end(w->run, "workflow_end", e)
                      : !run_flush(w->run, "workflow_step", e))
        return false;
    if (w->has_noted && !w->is_note_stored)
        run_environment_stored(w->run);
    w->is_note_stored = w->has_noted;
    return true;
}

/* What came, and what can be done: all of it in one moment. */
static bool gather(struct workflow_instance *w, bool *is_full, struct error *e)
{
    struct run *run = w->run;
    note_cancel(w);
    workflow_note_pause(w);
    note_limits(w);
    if (!workflow_tools_settle(w, e) || !look(w, e))
        return false;
    note_timeouts(w);
    if (run->journal.failure.code != ERROR_OK)
        return error_copy(e, &run->journal.failure);
    return run_keep_outcomes(run, e) && advance(w, is_full, e);
}

/* One turn: ONE append, of it or of several, and off they go. */
static bool turn(struct workflow_instance *w, bool *is_full, struct error *e)
{
    struct run *run = w->run;
    journal_hold_time(&run->journal);
    bool ok = gather(w, is_full, e);
    journal_free_time(&run->journal);
    if (!ok || !append(w, *is_full, e))
        return false;
    if (w->has_closed)
        return true;
    workflow_spawn_children(w);
    workflow_tools_start(w);
    return true;
}

/* `held_ns` 0: nothing is held. */
static int64_t earlier(int64_t due_ns, int64_t held_ns)
{
    return held_ns > 0 && held_ns < due_ns ? held_ns : due_ns;
}

static bool drive(struct workflow_instance *w, bool *is_parked, struct error *e)
{
    struct run *run = w->run;
    if (!recover(w, e))
        return false;
    while (!run->is_draining) {
        bool is_full = false;
        if (!session_inbox_hear(run, e))
            return false;
        if (workflow_must_rest(w))
            return workflow_rest(w, is_parked, e);
        if (!turn(w, &is_full, e))
            return false;
        if (w->has_closed || w->has_turned || run->is_draining)
            return true;
        if (is_full || has_news(w) || workflow_must_rest(w))
            continue;
        if (w->work_count == 0 && w->is_letting_go)
            return true;
        if (w->work_count == 0 && !park(w, is_parked, e))
            return false;
        if (w->is_leaving)
            return true;
        due_of_holders(w);
        if (w->work_count > 0)
            wait_for_news(w, earlier(ns_of(w, w->due_us), w->held_ns));
    }
    return true;
}

/* The node stops.  What ended by then is known. */
static bool keep_outcomes(struct workflow_instance *w, struct error *e)
{
    struct run *run = w->run;
    journal_hold_time(&run->journal);
    bool ok = workflow_tools_settle(w, e);
    journal_free_time(&run->journal);
    return ok && run_keep_outcomes(run, e);
}

bool workflow_step(struct run *run, bool *is_parked, struct error *e)
{
    struct workflow_instance *w = run->workflow;
    w->commands = (struct workflow_commands){.arena = run->turn};
    w->works = NULL;
    w->work_count = w->work_capacity = 0;
    w->children = NULL;
    w->child_count = w->child_capacity = 0;
    w->has_closed = w->has_turned = w->is_letting_go = w->is_leaving = false;
    w->held_ns = 0;
    /* What undoes goes on although the run was cancelled. */
    group_init(&w->group, w->state->is_undoing ? &run->shield : &run->ctx);
    bool ok = drive(w, is_parked, e);
    if (w->work_count > 0)
        group_cancel(&w->group);
    group_wait(&w->group);
    if (ok && run->is_draining && !w->has_closed)
        ok = keep_outcomes(w, e);
    for (size_t i = 0; i < w->work_count; i++)
        w->works[i]->node->work = NULL;
    return ok;
}

/* ---- by the clock ---- */

bool workflows_wake(struct orchestrator *o, struct context *ctx, size_t *woken, struct error *e)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    query_where_integer(&query, AGENT_RUNS_WAKES_AT, FILTER_LESS,
                        clock_unix_us(o->parts.clock) + 1);
    query.limit = WORKFLOW_WAKES_PAGE;
    struct records page;
    uuid *tenants;
    *woken = 0;
    if (!store_list_any_tenant(o->parts.store, ctx, &query, &page, &tenants, e))
        return false;
    for (size_t i = 0; i < page.count; i++, ++*woken)
        run_spawn_row(o, tenants[i], &page.items[i]);
    return true;
}
