/* Steps begin, end, are tried again and undone. */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "base/timefmt.h"
#include "orchestrator/replay/run_environment.h"
#include "orchestrator/workflow_internal.h"

str workflow_attempt_place(struct arena *arena, str path, int attempt)
{
    return str_printf(arena, STR_FMT "#%d", STR_ARG(path), attempt);
}

struct json_writer *workflow_event(struct workflow_instance *w, enum event_type type,
                                   const struct workflow_node *node)
{
    struct json_writer *out = journal_event(&w->run->journal, type);
    json_put_str(out, S("step"), node->path);
    return out;
}

struct json_writer *workflow_started(struct workflow_instance *w, enum step_kind kind, str path,
                                     int attempt, int64_t timeout_ms)
{
    str environment = STR_NONE;
    if (!w->has_noted || w->run->o->oracle) { /* a replay may be in memory for longer */
        w->has_noted = true;
        environment = run_environment_note(w->run);
    }
    struct json_writer *out = journal_event(&w->run->journal, EVENT_RUN_STEP_STARTED);
    json_put_str(out, S("step"), path);
    json_put_str(out, S("kind"), str_from_cstr(step_kind_name(kind)));
    json_put_i64(out, S("attempt"), attempt);
    if (timeout_ms > 0)
        json_put_i64(out, S("timeout_at"), workflow_now_us(w) + timeout_ms * 1000);
    if (!str_is_empty(environment))
        json_put_str(out, S("environment"), environment);
    return out;
}

static struct json_writer *started_event(struct workflow_instance *w, const struct step *step,
                                         str path, int attempt)
{
    return workflow_started(w, step->kind, path, attempt, step->timeout_ms);
}

/* ---- ending ---- */

void workflow_node_completed_as(struct workflow_instance *w, struct workflow_node *node, str output,
                                str label)
{
    struct json_writer *out = workflow_event(w, EVENT_RUN_STEP_COMPLETED, node);
    if (!str_is_empty(output))
        json_put_raw(out, S("output"), output);
    if (!str_is_empty(label))
        json_put_raw(out, S("label"), label);
    journal_close_event(&w->run->journal);
}

void workflow_node_completed(struct workflow_instance *w, struct workflow_node *node, str output)
{
    workflow_node_completed_as(w, node, output, STR_NONE);
}

static bool is_listed(const str *names, size_t count, const char *problem)
{
    for (size_t i = 0; i < count; i++)
        if (str_equal(names[i], str_from_cstr(problem)))
            return true;
    return false;
}

static bool is_retryable(const struct retry *retry, const struct error *why)
{
    const char *problem = error_problem(why->reason);
    if (why->code == ERROR_CANCELLED || is_listed(retry->except, retry->except_count, problem))
        return false;
    return retry->only_count == 0 || is_listed(retry->only, retry->only_count, problem);
}

/* Grows by the factor up to its maximum; the random part is taken off, so that many that failed together do not come back together. */
static int64_t backoff_ms(struct workflow_instance *w, const struct retry *retry, int attempt,
                          const struct error *why)
{
    double wait = (double) retry->backoff_ms;
    double most = retry->backoff_max_ms > 0 ? (double) retry->backoff_max_ms : wait;
    for (int i = 1; i < attempt && wait < most; i++)
        wait *= retry->factor > 1 ? retry->factor : 1;
    wait = wait < most ? wait : most;
    int64_t part = (int64_t) (wait * retry->jitter);
    int64_t ms = run_new_wait(w->run, (int64_t) wait - part, (int64_t) wait);
    return ms > why->retry_after_ms ? ms : why->retry_after_ms;
}

/* There was no room on this node, and nothing was done: the step waits for its turn, whatever its own `retry` says.  Whoever refused it says
   when there may be room; who was refused many times comes less often, so that it does not run out of attempts. */
static const struct retry crowded = {
    .backoff_ms = 50, .backoff_max_ms = 30000, .factor = 1.5, .jitter = 0.5};

static void end_attempt(struct workflow_instance *w, struct workflow_node *node,
                        const struct error *why, bool may_retry, bool may_continue)
{
    const struct step *step = node->step;
    bool is_crowded = why->reason == REASON_OVERLOADED_HERE &&
                      node->overloads < WORKFLOW_OVERLOADS_MAX && node->status == STEP_RUNNING &&
                      step && (w->ending.code == ERROR_OK || node->undoes);
    bool is_again = may_retry && step && node->status == STEP_RUNNING &&
                    node->attempt - node->overloads < step->retry.attempts &&
                    is_retryable(&step->retry, why) && (w->ending.code == ERROR_OK || node->undoes);
    int64_t retry_us = 0;
    if (is_crowded)
        retry_us = workflow_now_us(w) + backoff_ms(w, &crowded, node->overloads + 1, why) * 1000;
    else if (is_again)
        retry_us = workflow_now_us(w) +
                   backoff_ms(w, &step->retry, node->attempt - node->overloads, why) * 1000;
    struct json_writer *out = workflow_event(w, EVENT_RUN_STEP_FAILED, node);
    json_put_i64(out, S("attempt"), node->attempt);
    json_put_str(out, S("error"), str_from_cstr(error_problem(why->reason)));
    json_put_str(out, S("message"), str_from_cstr(why->message));
    if (retry_us > 0)
        json_put_i64(out, S("retry_at"), retry_us);
    else if (step && step->continues_on_error && may_continue)
        json_put_bool(out, S("continues"), true);
    journal_close_event(&w->run->journal);
}

void workflow_attempt_failed(struct workflow_instance *w, struct workflow_node *node,
                             const struct error *why, bool may_retry)
{
    end_attempt(w, node, why, may_retry, true);
}

void workflow_node_stopped(struct workflow_instance *w, struct workflow_node *node)
{
    struct error why = {0};
    if (node->is_stopping) {
        error_set(&why, REASON_TIMEOUT, "the step did not end within its timeout");
        workflow_attempt_failed(w, node, &why, true);
        return;
    }
    error_set(&why, REASON_CANCELLED, "the step was stopped");
    end_attempt(w, node, &why, false, false);
}

void workflow_fail(struct workflow_instance *w, struct workflow_node *node,
                   const struct workflow_node *failed)
{
    struct error why = {0};
    enum error_reason reason;
    if (!failed) {
        workflow_node_stopped(w, node);
        return;
    }
    if (!error_reason_find(failed->error, &reason))
        reason = REASON_INTERNAL;
    error_set(&why, reason, STR_FMT ": " STR_FMT, STR_ARG(failed->path), STR_ARG(failed->message));
    workflow_attempt_failed(w, node, &why, true);
}

bool workflow_complete(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    const struct json *ignored;
    struct error why = {0};
    const struct step *step = node->step;
    bool has_template = (step->kind == STEP_MAP && step->map.output) ||
                        (step->kind == STEP_LOOP && step->loop.output);
    if (has_template) { /* what cannot be computed is the step's failure, not its reader's */
        enum step_status status = node->status;
        node->status = STEP_COMPLETED;
        bool ok = workflow_value(w, node, &ignored, &why);
        node->status = status;
        if (!ok && why.reason == REASON_STORE)
            return error_copy(e, &why);
        if (!ok) {
            error_wrap(&why, "output");
            workflow_attempt_failed(w, node, &why, true);
            return true;
        }
    }
    workflow_node_completed(w, node, STR_NONE);
    return true;
}

/* ---- beginning ---- */

/* The step has begun and failed at once: nothing was done. */
static bool begin_failed(struct workflow_instance *w, const struct step *step, str path,
                         int attempt, const struct error *why)
{
    started_event(w, step, path, attempt);
    journal_close_event(&w->run->journal);
    struct workflow_node *node = workflow_state_find(w->state, path);
    if (!node)
        return true; /* the journal's own failure tells */
    node->step = step;
    workflow_attempt_failed(w, node, why, true);
    return true;
}

static bool begin_branch(struct workflow_instance *w, struct workflow_lane *lane,
                         const struct step *step, str path, int attempt, struct error *e)
{
    int64_t arm = -1;
    for (size_t i = 0; i < step->branch.count && arm < 0; i++) {
        bool holds = true;
        if (step->branch.arms[i].when &&
            !workflow_test(w, lane, step->branch.arms[i].when, &holds, e))
            return error_wrap(e, "when of arm %zu", i);
        if (holds)
            arm = (int64_t) i;
    }
    json_put_i64(started_event(w, step, path, attempt), S("arm"), arm);
    return true;
}

static bool begin_map(struct workflow_instance *w, struct workflow_lane *lane,
                      const struct step *step, str path, int attempt, struct error *e)
{
    struct workflow_node probe = {.path = path, .lane = lane, .step = step, .kind = STEP_MAP};
    if (!workflow_items(w, &probe, e))
        return false;
    json_put_i64(started_event(w, step, path, attempt), S("count"),
                 (int64_t) json_count(probe.items));
    journal_close_event(&w->run->journal);
    struct workflow_node *node = workflow_state_find(w->state, path);
    if (node) {
        node->items = probe.items;
        node->items_label = probe.items_label;
    }
    return true;
}

static bool read_until(struct workflow_instance *w, const struct json *value, int64_t *wakes_us,
                       struct error *e)
{
    double seconds;
    int64_t us;
    str text = STR_NONE;
    if (json_to_str(value, &text) && expression_duration(text, &us))
        seconds = (double) us / 1e6;
    else if (!json_to_double(value, &seconds))
        return time_parse(text, wakes_us) ||
               error_set(e, REASON_SCHEMA,
                         "a sleep is a number of seconds, a duration such as 90s or a time such as "
                         "2026-01-31T08:00:00Z");
    if (!(seconds >= 0) || seconds > 366.0 * 100 * 86400)
        return error_set(e, REASON_SCHEMA, "a sleep lasts 0 seconds or more");
    *wakes_us = workflow_now_us(w) + (int64_t) (seconds * 1e6);
    return true;
}

static bool begin_sleep(struct workflow_instance *w, struct workflow_lane *lane,
                        const struct step *step, str path, int attempt, struct error *e)
{
    int64_t wakes_us = workflow_now_us(w) + step->sleep.ms * 1000;
    const struct json *until;
    if (step->sleep.until && (!workflow_evaluate(w, lane, step->sleep.until, NULL, &until, e) ||
                              !read_until(w, until, &wakes_us, e)))
        return false;
    json_put_i64(started_event(w, step, path, attempt), S("wakes_at"), wakes_us);
    return true;
}

static bool begin_signal(struct workflow_instance *w, const struct step *step, str path,
                         int attempt, struct error *e)
{
    struct json_writer *out = started_event(w, step, path, attempt);
    int64_t ms = step->signal.timeout_ms;
    if (ms > 0 && step->timeout_ms == 0)
        json_put_i64(out, S("timeout_at"), workflow_now_us(w) + ms * 1000);
    json_put_str(out, S("name"), step->signal.name);
    journal_close_event(&w->run->journal);
    struct workflow_node *node = workflow_state_find(w->state, path);
    if (!node)
        return true;
    node->step = step;
    return workflow_signal_take(w, node, e);
}

static bool begin_kind(struct workflow_instance *w, struct workflow_lane *lane,
                       const struct step *step, str path, int attempt, struct error *e)
{
    switch (step->kind) {
    case STEP_TOOL: return workflow_tool_begin(w, lane, step, path, attempt, e);
    case STEP_MODEL:
    case STEP_AGENT:
    case STEP_WORKFLOW: return workflow_child_begin(w, lane, step, path, attempt, e);
    case STEP_APPROVAL: return workflow_approval_begin(w, lane, step, path, attempt, e);
    case STEP_BRANCH: return begin_branch(w, lane, step, path, attempt, e);
    case STEP_MAP: return begin_map(w, lane, step, path, attempt, e);
    case STEP_PARALLEL:
    case STEP_LOOP: started_event(w, step, path, attempt); return true;
    case STEP_SLEEP: return begin_sleep(w, lane, step, path, attempt, e);
    case STEP_WAIT_SIGNAL: return begin_signal(w, step, path, attempt, e);
    case STEP_KIND_COUNT: break;
    }
    unreachable_state();
}

static bool is_of_store(const struct error *e)
{
    return e->reason == REASON_STORE || e->reason == REASON_OVERLOADED_HERE ||
           e->reason == REASON_OUTCOME_UNKNOWN || e->reason == REASON_FENCED ||
           e->reason == REASON_CORRUPT || e->code == ERROR_CANCELLED;
}

/* What cannot begin fails; only the store's failures are ours. */
static bool begin_or_fail(struct workflow_instance *w, struct workflow_lane *lane,
                          const struct step *step, str path, int attempt, struct error *e)
{
    struct error why = {0};
    bool ok = begin_kind(w, lane, step, path, attempt, &why);
    journal_close_event(&w->run->journal);
    if (ok)
        return true;
    return is_of_store(&why) ? error_copy(e, &why) : begin_failed(w, step, path, attempt, &why);
}

bool workflow_begin(struct workflow_instance *w, const struct workflow_command *command,
                    struct error *e)
{
    const struct step *step = command->step;
    str path = workflow_path(w->run->turn, command->lane, step->id);
    struct error why = {0};
    bool holds = true;
    if (step->when && !workflow_test(w, command->lane, step->when, &holds, &why)) {
        if (is_of_store(&why))
            return error_copy(e, &why);
        error_wrap(&why, "when");
        return begin_failed(w, step, path, 1, &why);
    }
    if (holds)
        return begin_or_fail(w, command->lane, step, path, 1, e);
    struct json_writer *out = journal_event(&w->run->journal, EVENT_RUN_STEP_COMPLETED);
    json_put_str(out, S("step"), path);
    json_put_str(out, S("kind"), str_from_cstr(step_kind_name(step->kind)));
    json_put_bool(out, S("skipped"), true);
    journal_close_event(&w->run->journal);
    return true;
}

bool workflow_again(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    return begin_or_fail(w, node->lane, node->step, node->path, node->attempt + 1, e);
}

bool workflow_undo(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    str path = str_printf(w->run->turn, STR_FMT "~",
                          STR_ARG(workflow_path(w->run->turn, node->lane, node->id)));
    return begin_or_fail(w, node->lane, node->step->compensate, path, 1, e);
}

bool workflow_round(struct workflow_instance *w, struct workflow_node *node, struct error *e)
{
    struct error why = {0};
    bool holds = true;
    if (node->step->loop.while_) {
        /* The condition is asked where the round would stand: it sees loop.index and, of the round before, its steps. */
        struct workflow_lane *last =
            node->lane_count > 0 ? node->lanes[node->lane_count - 1] : NULL;
        struct workflow_lane next = {.owner = node,
                                     .attempt = node->attempt,
                                     .number = (int64_t) node->lane_count,
                                     .nodes = last ? last->nodes : NULL,
                                     .count = last ? last->count : 0};
        if (!workflow_test(w, &next, node->step->loop.while_, &holds, &why)) {
            if (is_of_store(&why))
                return error_copy(e, &why);
            error_wrap(&why, "while");
            workflow_attempt_failed(w, node, &why, true);
            return true;
        }
    }
    if (holds && node->step->loop.steps.count > 0) {
        workflow_grant_round(w->state, node);
        return true;
    }
    return workflow_complete(w, node, e);
}
