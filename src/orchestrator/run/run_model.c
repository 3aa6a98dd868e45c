/*
 * One model call of a run.
 *
 *   policy (model.call) -> reservation -> ONE append (decision + reservation + intent) -> stream -> answer + settlement
 *
 * A model call is no effect: interrupted, it is retried as attempt n+1, and the lost attempt is settled at its reservation.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/guard.h"
#include "orchestrator/policy/answer_links.h"
#include "orchestrator/replay/run_environment.h"
#include "orchestrator/run_answer_internal.h"

/* One attempt, from intent to answer. */
struct model_step {
    struct run *run;
    struct attempt attempt;
    const struct model_target *target;
    struct prompt prompt;
    bool is_decided; /* by the policy: once, whatever targets are looked at */
    bool is_woken;   /* cancelled or out of time while it waited */
    int64_t input_bound, started_ns, ended_ns;
    cost reserved;
    uuid reservation_id;
    int number, step;
    int64_t last_output_max;  /* of a last call: what is left for its answer; 0: it is none */
    struct run_answer answer; /* gathered, on the turn arena */
    struct answer_links links;
    struct context_view view; /* what the model sees, where links are judged by it */
    struct guard_tally found; /* by the content filter */
    struct strbuf pending;    /* text not journaled yet */
    struct timer timer;       /* flushes `pending` */
    int64_t output_bytes, posted_ns;
    struct error post_failure;
};

/* ---- before ---- */

/* What the call may take at most: input bound, the output that fits, time, money. */
static bool bound_cost(struct model_step *a, cost remaining, struct error *e)
{
    struct run *run = a->run;
    const struct agent_definition *agent = run->agent;
    int64_t output = run->model->max_output_tokens;
    if (agent->max_output_tokens > 0 && agent->max_output_tokens < output)
        output = agent->max_output_tokens;
    if (run->aside && run->aside->output_tokens_max < output)
        output = run->aside->output_tokens_max;
    int64_t room =
        remaining.tokens == COST_UNLIMITED ? INT64_MAX : remaining.tokens - a->input_bound;
    cost least = {.tokens = a->input_bound + RUN_OUTPUT_TOKENS_MIN};
    if (a->last_output_max > 0 && a->last_output_max < output)
        output = a->last_output_max;
    if (!run->is_last_call && !ledger_rate_fits(run->o->ledger, &run->path, least, e))
        return false;
    if (room < RUN_OUTPUT_TOKENS_MIN)
        return error_set(e, REASON_BUDGET,
                         "the next model call needs %lld tokens of input and at least %d of "
                         "output, %lld are left; raise the "
                         "session's token budget or start a new session",
                         (long long) a->input_bound, RUN_OUTPUT_TOKENS_MIN,
                         (long long) remaining.tokens);
    if (room < output) {
        output = room;
        run->is_degraded = true;
    }
    if (remaining.cost_nanousd != COST_UNLIMITED && !a->target->price.is_known)
        return error_set(
            e, REASON_BUDGET,
            "model \"" STR_FMT
            "\" has no price and the budget limits money; give it a `price` in the configuration",
            STR_ARG(run->model->name));
    /* An eighth of the time that is left, within [1 s, call timeout]: parallel calls each find room. */
    int64_t time_ms = run->settings->call_timeout_ms;
    if (run->model->deadlines.total_ms > 0 && run->model->deadlines.total_ms < time_ms)
        time_ms = run->model->deadlines.total_ms;
    if (remaining.time_ms != COST_UNLIMITED && remaining.time_ms / 8 < time_ms)
        time_ms = remaining.time_ms / 8 > 1000 ? remaining.time_ms / 8 : 1000;
    a->prompt.max_output_tokens = output;
    a->reserved = (cost){
        .tokens = a->input_bound + output,
        .time_ms = time_ms,
        .cost_nanousd = price_bound_nanousd(&a->target->price, a->input_bound, output),
    };
    return true;
}

static bool decide(struct model_step *a, struct error *e)
{
    struct run *run = a->run;
    struct policy_input input = {.action = S("model.call"), .resource = run->model->name};
    struct policy_decision decision;
    if (a->is_decided)
        return true;
    a->is_decided = true;
    run_decide(run, &run->shield, &input, &decision);
    run_journal_decision(run, &input, &decision, UUID_NONE);
    if (decision.verdict == POLICY_ALLOW)
        return true;
    return error_set(e, REASON_POLICY_DENIED,
                     "the policy does not allow a call of model \"" STR_FMT "\": " STR_FMT,
                     STR_ARG(run->model->name), STR_ARG(decision.reason));
}

static int64_t backoff_ms(struct run *run, int failures, int64_t retry_after_ms)
{
    if (retry_after_ms > 0)
        return retry_after_ms < RUN_MODEL_BACKOFF_MAX_MS ? retry_after_ms
                                                         : RUN_MODEL_BACKOFF_MAX_MS;
    int64_t ceiling = (int64_t) RUN_MODEL_BACKOFF_MS << (failures < 6 ? failures : 6);
    return ceiling / 2 + (int64_t) random_below(run->o->parts.random, (uint64_t) ceiling / 2 + 1);
}

static bool sleep_before(struct model_step *a, int64_t wait_ms, struct error *e)
{
    a->is_woken = wait_ms > 0 && !context_sleep_ms(&a->run->ctx, wait_ms, e);
    return !a->is_woken;
}

static void begin_route(struct model_step *a)
{
    struct run *run = a->run;
    route_begin(&run->route, run->o->parts.router,
                &(struct route_request){
                    .model = run->model,
                    .sticky = str_of((const char *) &run->session_id, sizeof run->session_id),
                    .input_tokens_bound = a->input_bound,
                    .output_tokens_max = run->model->max_output_tokens,
                    .tenant_id = run->tenant_id,
                    .is_run = true,
                });
    run->has_route = true;
    run->model_failure = (struct error){0};
}

static void drop_attempt(struct model_step *a)
{
    struct error unsent = {0};
    error_set(&unsent, REASON_CANCELLED, "not sent");
    attempt_end(&a->attempt, &unsent);
}

/*
 * Its own place among the runs is somebody else's while it waits for one at the provider: a slow provider holds up nobody who has
 * nothing to do with it.  So for a moment there may be more runs at work than places, by those that come back.
 */
static bool wait_for_place(struct model_step *a, struct error *e)
{
    struct run *run = a->run;
    struct admission *admission = run->o->admission;
    struct admission_request again = {.tenant_id = run->tenant_id,
                                      .run_id = run->run_id,
                                      .priority = run->place_priority,
                                      .is_urgent = true};
    bool is_known;
    if (!a->attempt.must_wait)
        return true;
    if (run->has_place)
        admission_leave(admission, run->tenant_id, run->place_priority);
    bool is_in = attempt_enter(&a->attempt, &run->ctx, e);
    if (run->has_place)
        ensure(admission_ask(admission, &again, &is_known));
    a->is_woken = !is_in && e->reason != REASON_OVERLOADED_HERE;
    return is_in;
}

/* Whoever cancels it while it waits for its place wakes it. */
static bool may_call(struct model_step *a, const struct run_oracle *oracle, struct error *e)
{
    bool may = oracle->may_call(oracle->owner, e);
    a->is_woken = !may && e->reason == REASON_CANCELLED;
    return may;
}

/* bound_cost takes an eighth of the time that is left. */
static cost recorded_room(struct run *run)
{
    cost left = run_takes(run);
    if (left.time_ms < COST_UNLIMITED / 8)
        left.time_ms *= 8;
    return left;
}

/* A replay's: the recorded target; the router has no part in it. */
static bool recorded_target(struct model_step *a, const struct run_oracle *oracle, struct error *e)
{
    struct run *run = a->run;
    str provider, model;
    if (!oracle->target(oracle->owner, &provider, &model, e))
        return false;
    for (size_t i = 0; i < run->model->target_count; i++) {
        const struct model_target *target = &run->model->targets[i];
        if (!str_equal(target->provider->name, provider) || !str_equal(target->model, model))
            continue;
        a->attempt = (struct attempt){.target = target, .target_index = i, .first_token_ns = 1};
        a->target = target;
        return decide(a, e) && may_call(a, oracle, e) && bound_cost(a, recorded_room(run), e);
    }
    return error_set(e, REASON_UNAVAILABLE,
                     "the recording has no target \"" STR_FMT "\" of model \"" STR_FMT "\"",
                     STR_ARG(model), STR_ARG(run->model->name));
}

/* The router's next target that the budget covers; one that it does not is passed over. */
static bool next_target(struct model_step *a, struct error *e)
{
    struct run *run = a->run;
    struct error refusal = run->model_failure;
    for (;;) {
        int64_t wait_ms = 0;
        const struct error *last = refusal.code == ERROR_OK ? NULL : &refusal;
        if (!route_next(&run->route, last, &a->attempt, &wait_ms, e))
            return false;
        a->target = a->attempt.target;
        if (!sleep_before(a, wait_ms, e)) {
            drop_attempt(a);
            return false;
        }
        if (!decide(a, e)) {
            drop_attempt(a);
            return false;
        }
        refusal = (struct error){0};
        if (wait_for_place(a, &refusal) && bound_cost(a, run_remaining_now(run), &refusal))
            return true;
        attempt_end(&a->attempt, &refusal);
        if (a->is_woken)
            return error_copy(e, &refusal);
    }
}

/* A run has more patience than a caller who holds a connection: what may be retried is waited for. */
static bool choose_target(struct model_step *a, struct error *e)
{
    struct run *run = a->run;
    if (run->o->oracle)
        return recorded_target(a, run->o->oracle, e);
    for (int failures = run->state.failed_in_a_row;; failures++) {
        struct error told = {0};
        if (!run->has_route)
            begin_route(a);
        if (next_target(a, &told))
            return true;
        run->has_route = false;
        if (a->is_woken)
            return error_copy(e, &told);
        enum degrade_when when;
        bool may_degrade = run_degrade_cause(&told, &when) && run_may_degrade(run, when);
        if (!error_may_retry(&told) || failures >= RUN_MODEL_ATTEMPTS_MAX || run->aside ||
            may_degrade)
            return error_copy(e, &told);
        if (!sleep_before(a, backoff_ms(run, failures, told.retry_after_ms), e))
            return false;
    }
}

static void put_purpose(struct json_writer *w, const struct run *run)
{
    if (run->aside)
        json_put_str(w, S("purpose"), str_from_cstr(run->aside->purpose));
}

static void journal_intent(struct model_step *a)
{
    struct run *run = a->run;
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(a->reservation_id, id);
    a->number = run->state.attempt + 1;
    a->step = run->state.step + 1;
    str environment = run_environment_note(run);
    struct json_writer *w = journal_event(&run->journal, EVENT_MODEL_REQUESTED);
    json_put_i64(w, S("attempt"), a->number);
    json_put_i64(w, S("step"), a->step);
    json_put_str(w, S("model"), run->model->name);
    json_put_str(w, S("provider"), a->target->provider->name);
    json_put_str(w, S("provider_model"), a->target->model);
    json_put_i64(w, S("max_output_tokens"), a->prompt.max_output_tokens);
    json_put_str(w, S("reservation_id"), str_of(id, UUID_TEXT_BYTES));
    put_purpose(w, run);
    if (!run->aside && run->room != COST_UNLIMITED)
        json_put_i64(w, S("room"), run->room);
    if (!str_is_empty(environment))
        json_put_str(w, S("environment"), environment);
}

/* ---- the stream ---- */

/* A piece that fits an event even when every byte of it is escaped. */
enum { DELTA_PIECE_BYTES_MAX = SSE_EVENT_BYTES_MAX / 8 };

static void journal_delta(struct model_step *a, str text)
{
    struct json_writer *w = journal_event(&a->run->journal, EVENT_MODEL_DELTA);
    json_put_i64(w, S("attempt"), a->number);
    json_put_str(w, S("text"), text);
}

static void post_delta(struct model_step *a)
{
    struct run *run = a->run;
    str rest = strbuf_str(&a->pending);
    if (rest.len == 0)
        return;
    while (rest.len > 0) {
        str piece = str_cut_utf8(rest, DELTA_PIECE_BYTES_MAX);
        journal_delta(a, piece);
        rest = str_from(rest, piece.len);
    }
    strbuf_truncate(&a->pending, 0);
    a->posted_ns = context_now_ns(&run->shield);
    struct error e = {0};
    if (!journal_post(&run->journal, &e) && a->post_failure.code == ERROR_OK)
        a->post_failure = e; /* met at the next piece */
}

static void timer_fired(struct timer *timer)
{
    post_delta(CONTAINER_OF(timer, struct model_step, timer));
}

static void add_text(struct model_step *a, str piece)
{
    struct scheduler *scheduler = a->run->ctx.scheduler;
    strbuf_add(&a->pending, piece);
    int64_t due_ns = a->posted_ns + RUN_DELTA_DELAY_MS * 1000000ll;
    if (a->pending.len >= RUN_DELTA_BYTES_MAX || context_now_ns(&a->run->shield) >= due_ns) {
        timer_disarm(scheduler, &a->timer);
        post_delta(a);
    } else if (a->timer.heap_index == 0) {
        timer_arm(scheduler, &a->timer, due_ns);
    }
}

static bool may_link(void *owner, str url)
{
    struct model_step *a = owner;
    return containment_may_link(&a->run->settings->containment, &a->view, url);
}

/* Once something untrusted is in the context, addresses that nobody named do not go out alive. */
static void watch_links(struct model_step *a)
{
    const struct containment *rules = &a->run->settings->containment;
    if (rules->mode != CONTAINMENT_ENFORCE || rules->keeps_links ||
        !run_label_context(a->run).is_untrusted)
        return;
    a->view = run_label_view(a->run, NULL);
    a->links.may_link = may_link;
    a->links.owner = a;
}

/* The text that may go out now.  Another kind of part, or an end, ends the word being written. */
static str pass_links(struct model_step *a, const struct delta *delta)
{
    struct strbuf text;
    size_t room = delta->text.len + a->links.held_bytes + 64;
    if (!a->links.may_link)
        return delta->kind == DELTA_TEXT ? delta->text : STR_NONE;
    strbuf_init(&text, a->run->turn, 16 * room);
    if (delta->kind == DELTA_TEXT)
        answer_links_feed(&a->links, delta->text, &text);
    if (delta->kind != DELTA_TEXT || delta->opaque.len > 0)
        answer_links_end(&a->links, &text);
    return strbuf_str(&text);
}

static bool take_text(struct model_step *a, const struct delta *delta, str text, struct error *e)
{
    struct delta piece = {.kind = DELTA_TEXT, .text = text};
    if (delta->kind == DELTA_TEXT)
        piece.opaque = delta->opaque;
    if (!run_answer_add(&a->answer, &piece, e))
        return false;
    if (!a->run->aside)
        add_text(a, text);
    return true;
}

static bool take_delta(struct model_step *a, const struct delta *delta, struct error *e)
{
    bool is_call = delta->kind == DELTA_TOOL_CALL || delta->kind == DELTA_TOOL_ARGUMENTS;
    a->output_bytes += (int64_t) delta->text.len;
    if (is_call && a->run->is_last_call) /* it was offered none */
        return true;
    str text = pass_links(a, delta);
    if ((text.len > 0 || delta->kind == DELTA_TEXT) && !take_text(a, delta, text, e))
        return false;
    if (delta->kind != DELTA_TEXT && delta->kind != DELTA_END &&
        !run_answer_add(&a->answer, delta, e))
        return false;
    return a->post_failure.code == ERROR_OK || error_copy(e, &a->post_failure);
}

static bool pull(struct model_step *a, struct context *ctx, struct reply_stream *stream,
                 struct delta *end, struct error *e)
{
    for (;;) {
        struct delta delta = {0};
        if (!reply_stream_next(stream, ctx, &delta, e) || !take_delta(a, &delta, e))
            return false;
        attempt_first_token(&a->attempt);
        if (delta.kind != DELTA_END)
            continue;
        *end = delta;
        return true;
    }
}

static bool call_provider(struct model_step *a, struct delta *end, struct error *e)
{
    struct run *run = a->run;
    struct context call;
    context_init_child(&call, &run->ctx, context_deadline_in(&run->ctx, a->reserved.time_ms));
    call.arena = run->turn;
    OWNED(reply_stream) stream = NULL;
    bool ok = provider_stream(a->target->provider, &call, &a->attempt.how, &a->prompt, &stream, e);
    if (ok) { /* filtered before anything of it is journaled */
        struct guard_sink sink = guard_tally_sink(&a->found);
        stream = guard_stream_create(GIVE(stream), run->model->guard, &sink);
    }
    ok = ok && pull(a, &call, stream, end, e);
    timer_disarm(run->ctx.scheduler, &a->timer);
    if (ok || a->answer.call_count == 0)
        post_delta(a);
    a->ended_ns = context_now_ns(&run->shield);
    reply_stream_close(GIVE(stream));
    run_guard_audit(run, &a->found);
    context_deinit(&call);
    return ok;
}

/* ---- after ---- */

static str usage_details(struct model_step *a, const struct usage *usage)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, a->run->turn, 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("provider"), a->target->provider->name);
    json_put_str(&w, S("provider_model"), a->target->model);
    if (!str_is_empty(a->target->variant))
        json_put_str(&w, S("variant"), a->target->variant);
    json_put_i64(&w, S("attempt"), a->number);
    json_put_i64(&w, S("input_tokens"), usage->input_tokens);
    json_put_i64(&w, S("output_tokens"), usage->output_tokens);
    json_put_i64(&w, S("cached_tokens"), usage->cached_tokens);
    json_put_i64(&w, S("cache_write_tokens"), usage->cache_write_tokens);
    json_put_i64(&w, S("reasoning_tokens"), usage->reasoning_tokens);
    json_object_end(&w);
    return strbuf_str(&text);
}

static void settle(struct model_step *a, struct usage usage, const char *basis)
{
    struct run *run = a->run;
    struct settlement settlement = {
        .reserved = a->reserved,
        .used =
            {
                .tokens = usage.input_tokens + usage.output_tokens,
                .time_ms = (a->ended_ns - a->started_ns) / 1000000,
                .cost_nanousd = price_nanousd(&a->target->price, &usage),
            },
        .kind = "model",
        .basis = basis,
        .model = run->model->name,
        .details = usage_details(a, &usage),
    };
    if (settlement.used.time_ms > a->reserved.time_ms)
        settlement.used.time_ms =
            a->reserved.time_ms; /* the deadline is checked late by a scheduler turn at most */
    run_settle(run, a->reservation_id, &settlement);
}

static void count_call(struct model_step *a, const struct usage *usage, str outcome)
{
    struct metrics *metrics = a->run->o->parts.metrics;
    str model = a->run->model->name;
    metrics_add(metrics, METRIC_MODEL_CALLS, 1, (str[]){model, a->target->provider->name, outcome},
                3);
    metrics_observe(metrics, METRIC_MODEL_DURATION,
                    (double) (context_now_ns(&a->run->shield) - a->started_ns) / 1e9, &model, 1);
    metrics_add(metrics, METRIC_MODEL_TOKENS, usage->input_tokens, (str[]){model, S("input")}, 2);
    metrics_add(metrics, METRIC_MODEL_TOKENS, usage->output_tokens, (str[]){model, S("output")}, 2);
    metrics_add(metrics, METRIC_MODEL_COST, price_nanousd(&a->target->price, usage), &model, 1);
}

static void journal_completed(struct model_step *a, const struct delta *end,
                              const struct usage *usage, uuid message_id, const uuid *ids)
{
    struct run *run = a->run;
    struct json_writer *w = journal_event(&run->journal, EVENT_MODEL_COMPLETED);
    json_put_i64(w, S("attempt"), a->number);
    json_put_i64(w, S("step"), a->step);
    json_put_str(w, S("message_id"), uuid_str(run->turn, message_id));
    bool is_silenced = run->is_last_call && end->finish == FINISH_TOOL_CALLS;
    json_put_str(w, S("finish"),
                 str_from_cstr(finish_name(is_silenced ? FINISH_STOP : end->finish)));
    json_put_bool(w, S("stand_in"), a->target->provider->ops->is_stand_in);
    json_key(w, S("usage"));
    json_object_begin(w);
    json_put_i64(w, S("input_tokens"), usage->input_tokens);
    json_put_i64(w, S("output_tokens"), usage->output_tokens);
    json_put_i64(w, S("cached_tokens"), usage->cached_tokens);
    if (usage->cache_write_tokens > 0)
        json_put_i64(w, S("cache_write_tokens"), usage->cache_write_tokens);
    json_put_i64(w, S("reasoning_tokens"), usage->reasoning_tokens);
    json_put_bool(w, S("is_reported"), end->usage.is_reported);
    json_object_end(w);
    json_put_i64(w, S("latency_ms"), (a->ended_ns - a->started_ns) / 1000000);
    put_purpose(w, run);
    json_key(w, S("label"));
    label_write_json(w, run->aside ? run->aside->label : run_label_context(run));
    if (a->links.defused > 0) /* addresses of the answer that were made harmless */
        json_put_i64(w, S("links_defused"), a->links.defused);
    json_key(w, S("tool_calls"));
    json_array_begin(w);
    for (size_t i = 0; i < a->answer.call_count; i++) {
        struct part call = run_answer_call(&a->answer, i);
        json_object_begin(w);
        json_put_str(w, S("tool_call_id"), uuid_str(run->turn, ids[i]));
        json_put_str(w, S("call_id"), call.call_id);
        json_put_str(w, S("name"), call.name);
        json_object_end(w);
    }
    json_array_end(w);
}

/* Without a report: what was sent at most, and one token per byte that came: an upper bound. */
static struct usage estimate(const struct model_step *a)
{
    int64_t output = a->output_bytes < a->prompt.max_output_tokens ? a->output_bytes
                                                                   : a->prompt.max_output_tokens;
    return (struct usage){.input_tokens = a->input_bound, .output_tokens = output};
}

/* Of an aside: its caller makes a row of it. */
static bool complete_aside(struct model_step *a, const struct delta *end, struct error *e)
{
    struct run *run = a->run;
    struct usage usage = end->usage.is_reported ? end->usage : estimate(a);
    if (a->answer.call_count > 0)
        return error_set(e, REASON_PROVIDER_PROTOCOL, "the model called a tool that was not there");
    run->aside->text = run_answer_text(&a->answer);
    journal_completed(a, end, &usage, run->aside->message_id, NULL);
    settle(a, usage, end->usage.is_reported ? "reported" : "estimated");
    count_call(a, &usage, S("ok"));
    return true;
}

/* False: the answer cannot be kept, and nothing was journaled. */
static never_inline bool complete_attempt(struct model_step *a, const struct delta *end,
                                          struct error *e)
{
    struct run *run = a->run;
    uuid ids[RUN_TOOL_CALLS_PARALLEL_MAX];
    str parts;
    for (size_t i = 0; i < a->answer.call_count; i++)
        ids[i] = run_new_id(run, RUN_ID_TOOL_CALL, i, STR_NONE);
    if (!run_answer_write(&a->answer, ids, &parts, e))
        return false;
    struct usage usage = end->usage.is_reported ? end->usage : estimate(a);
    uuid message_id = run_new_id(run, RUN_ID_MESSAGE, 0, STR_NONE);
    journal_completed(a, end, &usage, message_id, ids);
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_MESSAGES);
    run_message_row(row, run, message_id, ROLE_ASSISTANT, run_answer_text(&a->answer),
                    usage.output_tokens, parts);
    record_set_text(row, MESSAGES_METADATA, run_label_metadata(run->turn, run_label_context(run)));
    settle(a, usage, end->usage.is_reported ? "reported" : "estimated");
    count_call(a, &usage, S("ok"));
    run_prompt_add(run, run_answer_message(&a->answer, run->arena));
    run_label_last(run, uuid_str(run->turn, message_id), S("assistant"),
                   run->items[run->message_count - 1].label);
    run_prompt_rows(run, run->message_count - 1, message_id);
    return true;
}

/* Was nothing used?  A refusal before any token costs nothing. */
static bool was_refused(const struct model_step *a, const struct error *failure)
{
    return a->output_bytes == 0 &&
           (failure->reason == REASON_PROVIDER_RATE_LIMITED ||
            failure->reason == REASON_PROVIDER_QUOTA || failure->reason == REASON_PROVIDER_AUTH ||
            failure->reason == REASON_PROVIDER_INVALID ||
            failure->reason == REASON_PROVIDER_OVERLOADED ||
            failure->reason == REASON_PROVIDER_CIRCUIT);
}

static const char lost_text[] =
    "the node stopped while the call was in flight; it counts at its reservation";

static void settle_lost(struct run *run, uuid reservation_id, cost reserved)
{
    run_settle(run, reservation_id,
               &(struct settlement){.reserved = reserved,
                                    .used = reserved,
                                    .kind = "model",
                                    .basis = "reserved",
                                    .model = run->state.model});
}

/* An attempt that a stopping node gave up is told as one that a crash lost. */
static str failure_name(const struct error *failure)
{
    return failure->reason == REASON_DRAINING ? S("interrupted")
                                              : str_from_cstr(error_problem(failure->reason));
}

static void fail_attempt(struct model_step *a, const struct error *failure, bool will_retry)
{
    struct run *run = a->run;
    struct json_writer *w = journal_event(&run->journal, EVENT_MODEL_FAILED);
    json_put_i64(w, S("attempt"), a->number);
    json_put_i64(w, S("step"), a->step);
    json_put_str(w, S("error"), failure_name(failure));
    json_put_str(w, S("message"), str_from_cstr(failure->message));
    json_put_bool(w, S("will_retry"), will_retry);
    put_purpose(w, run);
    struct usage usage = was_refused(a, failure) ? (struct usage){0} : estimate(a);
    if (failure->reason == REASON_DRAINING && strcmp(failure->message, lost_text) == 0)
        settle_lost(run, a->reservation_id, a->reserved); /* as a replay is told of one */
    else
        settle(a, usage, was_refused(a, failure) ? "reported" : "estimated");
    count_call(a, &usage, failure_name(failure));
}

/* This node stops.  What came is known, so that is settled; without the append the next start would count the whole reservation. */
static bool interrupt_attempt(struct model_step *a, const struct error *failure, struct error *e)
{
    struct error late = {0}, interrupted = {0};
    error_set(&interrupted, REASON_DRAINING,
              "the node was stopped while the call was in flight; what came of it counts");
    fail_attempt(a, &interrupted, true);
    (void) !run_flush(a->run, "model_interrupted", &late);
    return error_copy(e, failure);
}

/* A call cannot be made as it was meant: does the agent's definition say what to do instead? */
static bool degrade(struct model_step *a, struct error *e)
{
    enum degrade_when when;
    const struct run_oracle *oracle = a->run->o->oracle;
    if (oracle && !oracle->does(oracle->owner, EVENT_RUN_DEGRADED))
        return false;
    if (a->is_woken || !run_degrade_cause(e, &when) || !run_degrade(a->run, when))
        return false;
    *e = (struct error){0};
    return run_flush(a->run, "run_degraded", e);
}

static bool handle_failure(struct model_step *a, const struct error *failure, struct error *e)
{
    struct run *run = a->run;
    bool is_ours = run->ctx.is_cancelled || context_now_ns(&run->shield) >= run->ctx.deadline_ns;
    bool has_patience =
        error_may_retry(failure) && run->state.failed_in_a_row + 1 < RUN_MODEL_ATTEMPTS_MAX;
    const struct run_oracle *oracle = run->o->oracle;
    bool will_retry = oracle ? oracle->may_go_on(oracle->owner)
                             : !is_ours && (has_patience || route_may_go_on(&run->route, failure));
    run->model_failure = *failure;
    if (run->is_draining)
        return interrupt_attempt(a, failure, e);
    fail_attempt(a, failure, will_retry);
    if (!run_flush(run, "model_failed", e))
        return false;
    if (run->aside) { /* whoever asked does without */
        run->aside->failure = *failure;
        run->has_route = false;
        return true;
    }
    if (will_retry)
        return true;
    (void) error_copy(e, failure);
    return !is_ours && degrade(a, e);
}

static void start_attempt(struct model_step *a, struct run *run)
{
    *a = (struct model_step){.run = run, .timer = {.fire = timer_fired}};
    a->prompt = (struct prompt){
        .messages = run->messages,
        .message_count = run->message_count,
        .tools = run->offered,
        .tool_count = run->offered_count,
        .response_format = run->state.response_format,
        .parallel_tool_calls = -1,
        .temperature = -1,
    };
    if (run->aside) {
        a->prompt.messages = run->aside->messages;
        a->prompt.message_count = run->aside->message_count;
        a->prompt.tools = NULL;
        a->prompt.tool_count = 0;
        a->prompt.response_format = STR_NONE;
        run->has_route = false;
    }
    if (run->state.is_toolless) {
        a->prompt.tools = NULL;
        a->prompt.tool_count = 0;
    }
    run_last_prompt(run, &a->prompt, &a->last_output_max);
    run_answer_init(&a->answer, run->turn);
    watch_links(a);
    strbuf_init(&a->pending, run->turn, MESSAGE_BYTES_MAX);
    a->input_bound = prompt_input_tokens_bound(&a->prompt);
}

/* Reservation and intent: what must be durable before a byte goes out. */
static bool commit_intent(struct model_step *a, struct error *e)
{
    struct run *run = a->run;
    a->prompt.model = a->target->model;
    if (!decide(a, e) || !run_reserve(run, "model", UUID_NONE, a->reserved, &a->reservation_id, e))
        return false;
    journal_intent(a);
    if (!run_flush(run, "model_intent", e))
        return false;
    run_environment_stored(run);
    return true;
}

/* An aside is not made: no reason for the run to fail. */
static never_inline bool do_without(struct model_step *a, struct error *e)
{
    struct run *run = a->run;
    if (!run->aside)
        return false;
    run->aside->failure = *e;
    *e = (struct error){0};
    run->has_route = false;
    return true;
}

never_inline bool run_model_step(struct run *run, struct error *e)
{
    struct model_step *a = ARENA_NEW(run->turn, struct model_step);
    bool is_stopped;
    if (run_degrade_ahead(run))
        return run_flush(run, "run_degraded", e);
    run_hold_back(run);
    start_attempt(a, run);
    bool is_checked = run_loop_check(run, &a->prompt, &is_stopped, e);
    if (!is_checked || is_stopped)
        return is_checked;
    a->input_bound = prompt_input_tokens_bound(&a->prompt);
    if (run->state.step >= run->agent->steps_max && !run->aside && !run->is_last_call)
        return error_set(e, REASON_LIMIT,
                         "the run reached its %d model calls without a final answer",
                         run->agent->steps_max);
    if (!choose_target(a, e)) /* who cancels or drains says so at the next command */
        return degrade(a, e) || do_without(a, e) ||
               (a->is_woken && (run->is_cancel_asked || run->is_draining)) || run_wind_down(run, e);
    if (!commit_intent(a, e)) {
        drop_attempt(a);
        return e->reason == REASON_BUDGET &&
               (degrade(a, e) || do_without(a, e) || run_wind_down(run, e));
    }
    a->started_ns = context_now_ns(&run->shield);
    struct delta end = {0};
    struct error failure = {0};
    if (!call_provider(a, &end, &failure)) {
        attempt_end(&a->attempt, &failure);
        return handle_failure(a, &failure, e);
    }
    attempt_end(&a->attempt, NULL);
    bool is_kept =
        run->aside ? complete_aside(a, &end, &failure) : complete_attempt(a, &end, &failure);
    if (!is_kept)
        return handle_failure(a, &failure, e);
    run->has_route = false;
    return true;
}

bool run_model_lose_attempt(struct run *run, struct error *e)
{
    struct open_reservation *open =
        run_state_reservation(&run->state, run->state.model_reservation_id);
    if (!open)
        return error_set(e, REASON_CORRUPT, "the model call in flight has no open reservation");
    cost reserved = open->amount;
    struct json_writer *w = journal_event(&run->journal, EVENT_MODEL_FAILED);
    json_put_i64(w, S("attempt"), run->state.attempt);
    json_put_i64(w, S("step"), run->state.step + 1);
    json_put_str(w, S("error"), S("interrupted"));
    json_put_str(w, S("message"), str_from_cstr(lost_text));
    json_put_bool(w, S("will_retry"), true);
    journal_close_event(&run->journal);
    settle_lost(run, run->state.model_reservation_id, reserved);
    run->state.failed_in_a_row = 0; /* an interruption is not the provider's failure */
    return true;
}
