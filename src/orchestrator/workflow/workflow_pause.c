/*
 * An instance whose session is paused.
 *
 *      at work --pause--> run.pausing: what is at work ends, nothing begins --> run.waiting {is_paused}, out of memory
 *         ^                    |                                                       |
 *         `------resume--------+<------------------------resume------------------------'
 *
 * A cancel ends it in each of them; what fails, or was the last step, ends it as ever; what there is to undo waits.
 */
#include "orchestrator/run/run_child.h"
#include "orchestrator/workflow_internal.h"

bool workflow_is_held_back(const struct workflow_instance *w)
{
    return w->run->state.is_pausing && !w->run->state.is_cancelling;
}

void workflow_put_approvals(struct workflow_instance *w, struct json_writer *out)
{
    json_key(out, S("approvals"));
    json_array_begin(out);
    for (size_t i = 0; i < w->state->open_count; i++) {
        const struct workflow_node *node = w->state->open[i];
        if (node->status != STEP_RUNNING)
            continue;
        if (!uuid_is_none(node->approval_id))
            json_write_str(out, uuid_str(w->run->turn, node->approval_id));
        else if (node->call && node->call->state == CALL_AWAITING)
            json_write_str(out, uuid_str(w->run->turn, node->call->approval_id));
    }
    json_array_end(out);
}

void workflow_set_waiting(struct workflow_instance *w, bool is_waiting, int64_t wakes_us)
{
    struct run *run = w->run;
    struct record *row = journal_row(&run->journal, WRITE_UPDATE, TABLE_AGENT_RUNS);
    record_set_uuid(row, AGENT_RUNS_ID, run->run_id);
    if (is_waiting)
        record_set_text(row, AGENT_RUNS_STATUS, S("waiting"));
    if (wakes_us > 0)
        record_set_integer(row, AGENT_RUNS_WAKES_AT, wakes_us);
}

bool workflow_must_rest(const struct workflow_instance *w)
{
    const struct run *run = w->run;
    bool is_paused = run->state.is_pausing || session_is_paused(&run->session);
    return is_paused && w->work_count == 0 && !run->is_cancel_asked && !run->state.is_cancelling;
}

bool workflow_rest(struct workflow_instance *w, bool *is_parked, struct error *e)
{
    struct run *run = w->run;
    if (run->has_lost_sight)
        run_children_spawn(run);
    struct json_writer *out = journal_event(&run->journal, EVENT_RUN_WAITING);
    workflow_put_approvals(w, out);
    json_put_bool(out, S("is_paused"), true);
    workflow_set_waiting(w, true, RUN_WAKES_WITH_SESSION);
    w->is_leaving = true;
    if (!run_flush(run, "run_waiting", e))
        return false;
    *is_parked = !run->is_cancel_asked; /* woken meanwhile: it is loaded again */
    return true;
}

void workflow_note_pause(struct workflow_instance *w)
{
    struct run *run = w->run;
    bool is_paused = session_is_paused(&run->session);
    if (is_paused == run->state.is_pausing || run->state.is_cancelling)
        return;
    json_put_bool(journal_event(&run->journal, EVENT_RUN_PAUSING), S("is_paused"), is_paused);
    journal_close_event(&run->journal);
}
