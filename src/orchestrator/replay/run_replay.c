#include "orchestrator/replay/run_replay.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "orchestrator/replay/run_replay_internal.h"
#include "runtime/scratch_folder.h"
#include "runtime/simulated.h"
#include "store/memory.h"
#include <stdlib.h>

/* ---- rows of the scratch store ---- */

void replay_put(struct replay *r, const struct record *row)
{
    struct batch batch;
    struct error e = {0};
    batch_init(&batch, r->arena, r->record->tenant_id);
    bool is_event = row->table == TABLE_RUN_EVENTS; /* only appended to */
    *batch_add(&batch, is_event ? WRITE_INSERT : WRITE_UPSERT, row->table) = *row;
    if (!store_submit(r->store, &batch, &e))
        replay_differs(r, 0, S("scratch store"), STR_NONE, str_from_cstr(e.message));
}

#define UNLIMITED_BUDGET                                                                           \
    S("{\"tokens\":null,\"time_ms\":null,\"cost_nanousd\":null,\"tool_calls\":null}")

/* The newest summary: its own, or what was there before its question. */
static uuid newest_summary(struct replay *r)
{
    const struct run_recording *record = r->record;
    uuid question, newest = UUID_NONE;
    if (record->solid_count == 0 ||
        !uuid_parse(json_str_or(record->solid[0].data, S("message_id"), STR_NONE), &question))
        return UUID_NONE;
    for (size_t i = r->next; i > record->begun; i--)
        if (record->solid[i - 1].type == EVENT_MESSAGE_SUMMARISED)
            return replay_id_member(record->solid[i - 1].data, "message_id");
    for (size_t i = 0; i < record->messages.count; i++) {
        const struct record *row = &record->messages.items[i];
        const struct json *metadata;
        uuid id = record_uuid(row, MESSAGES_ID);
        bool is_summary = record_has(row, MESSAGES_METADATA) &&
                          json_parse(r->arena, record_text(row, MESSAGES_METADATA),
                                     (struct json_limits){0}, &metadata, NULL) &&
                          json_get(metadata, S("summary"));
        if (is_summary && uuid_compare(id, question) < 0 && uuid_compare(id, newest) > 0)
            newest = id;
    }
    return newest;
}

static void put_session(struct replay *r, str node, int64_t epoch)
{
    struct record row = r->record->session;
    record_set_null(&row, SESSIONS_INBOX_COUNT);
    record_set_null(&row, SESSIONS_SUMMARY_ID);
    if (!uuid_is_none(newest_summary(r)))
        record_set_uuid(&row, SESSIONS_SUMMARY_ID, newest_summary(r));
    record_set_text(&row, SESSIONS_STATUS, S("active"));
    record_set_text(&row, SESSIONS_BUDGET, UNLIMITED_BUDGET);
    record_set_uuid(&row, SESSIONS_LIVE_RUN_ID, r->record->run_id);
    record_set_text(&row, SESSIONS_OWNER_NODE, node);
    record_set_integer(&row, SESSIONS_OWNER_EPOCH, epoch);
    static const int gone[] = {SESSIONS_EXPIRES_AT,      SESSIONS_PARENT_RUN_ID,
                               SESSIONS_ROOT_SESSION_ID, SESSIONS_FORKED_FROM,
                               SESSIONS_FORKED_AT,       SESSIONS_FORKS};
    for (size_t i = 0; i < ARRAY_COUNT(gone); i++)
        record_set_null(&row, gone[i]);
    replay_put(r, &row);
}

static void put_run(struct replay *r, uuid id, bool is_it)
{
    struct record row = r->record->run;
    record_set_uuid(&row, AGENT_RUNS_ID, id);
    record_set_text(&row, AGENT_RUNS_STATUS, is_it ? S("running") : S("completed"));
    record_set_integer(&row, AGENT_RUNS_LAST_SEQ,
                       is_it ? (int64_t) (r->record->begun + r->record->deltas_begun) : 1);
    static const int gone[] = {
        AGENT_RUNS_COMPLETED_AT, AGENT_RUNS_ERROR,     AGENT_RUNS_ERROR_MESSAGE,
        AGENT_RUNS_WAITS_UNTIL,  AGENT_RUNS_WAKES_AT,  AGENT_RUNS_PARENT_RUN_ID,
        AGENT_RUNS_CANCEL_BY,    AGENT_RUNS_BUDGET,    AGENT_RUNS_FORKED_FROM,
        AGENT_RUNS_FORKED_AT,    AGENT_RUNS_REMOVED_AT};
    for (size_t i = 0; i < ARRAY_COUNT(gone); i++)
        record_set_null(&row, gone[i]);
    replay_put(r, &row);
}

/* Did the run itself make this row, after it had begun? */
static bool is_made(const struct replay *r, uuid id)
{
    return recording_named(r->record, id) < r->record->solid_count;
}

static void put_event(struct replay *r, const struct event *event)
{
    struct record row = record_of(TABLE_RUN_EVENTS);
    record_set_uuid(&row, RUN_EVENTS_RUN_ID, r->record->run_id);
    record_set_integer(&row, RUN_EVENTS_SEQ, event->seq);
    record_set_text(&row, RUN_EVENTS_TYPE, str_from_cstr(event_type_name(event->type)));
    record_set_integer(&row, RUN_EVENTS_VERSION, event_type_version(event->type));
    record_set_integer(&row, RUN_EVENTS_AT, event->at_us);
    record_set_text(&row, RUN_EVENTS_DATA, json_print(r->arena, event->data));
    replay_put(r, &row);
}

/* What was there when the run began. */
static void seed(struct replay *r)
{
    const struct run_recording *record = r->record;
    int64_t begun_us = record_integer(&record->run, AGENT_RUNS_STARTED_AT);
    put_session(r, S("replay"), 0);
    put_run(r, record->run_id, true);
    for (size_t i = 0; i < record->begun + record->deltas_begun; i++)
        put_event(r, &record->events[i]);
    for (size_t i = 0; i < record->messages.count; i++) {
        struct record row = record->messages.items[i];
        uuid of = record_uuid(&row, MESSAGES_RUN_ID);
        if (uuid_equal(of, record->run_id) && is_made(r, record_uuid(&row, MESSAGES_ID)))
            continue;
        if (!uuid_is_none(of) && !uuid_equal(of, record->run_id))
            put_run(r, of, false);
        record_set_uuid(&row, MESSAGES_SESSION_ID, record->session_id);
        replay_put(r, &row);
    }
    for (size_t i = 0; i < record->tool_calls.count; i++) {
        const struct record *row = &record->tool_calls.items[i];
        uuid of = record_uuid(row, TOOL_CALLS_RUN_ID);
        if (uuid_equal(of, record->run_id) && is_made(r, record_uuid(row, TOOL_CALLS_ID)))
            continue;
        if (!uuid_equal(of, record->run_id))
            put_run(r, of, false);
        replay_put(r, row);
    }
    for (size_t i = 0; i < record->workflows.count; i++)
        replay_put(r, &record->workflows.items[i]);
    for (size_t i = 0; i < record->files.count; i++)
        if (record_integer(&record->files.items[i], SESSION_FILES_CREATED_AT) < begun_us)
            replay_put(r, &record->files.items[i]);
}

/* ---- the world ---- */

struct posted {
    void (*fn)(void *argument);
    void *argument;
};

static void run_posted(void *argument)
{
    struct posted posted = *(struct posted *) argument;
    free(argument);
    posted.fn(posted.argument);
}

static void post(struct lane *lane, void (*fn)(void *argument), void *argument)
{
    struct posted *posted = malloc(sizeof *posted);
    struct error e = {0};
    ensure(posted != NULL);
    *posted = (struct posted){fn, argument};
    bool is_started = coroutine_start(lane->scheduler, "post", run_posted, posted, &e);
    ensure(is_started);
}

/* What the node never stored is held until it is gone. */
static enum commit_outcome before_commit(void *owner, struct context *ctx,
                                         const struct batch *batch)
{
    struct replay *r = owner;
    struct error never = {0};
    (void) batch;
    if (r->is_dead)
        return COMMIT_FAIL;
    if (!r->is_crash_due)
        return COMMIT_OK;
    while (!r->is_dead)
        if (!condition_wait(&r->released, ctx, &never))
            break;
    return COMMIT_FAIL;
}

static bool make_registry(struct replay *r, struct error *e)
{
    struct scratch_folder scratch;
    if (!scratch_folder_make(&scratch, S("replay"), e)) /* the registry wants one; it stays empty */
        return false;
    struct registry_options options = {.tool_dir = scratch_folder_path(&scratch)};
    bool ok = registry_create(&options, &r->registry, e);
    scratch_folder_remove(&scratch);
    return ok && registry_set_source(r->registry, S("recording"), r->environment.tools,
                                     r->environment.tool_count, e);
}

/* The agent, and those that it may call: their runs are recorded, so their names and what the model was told of them are enough. */
static bool add_agents(struct agent_set *agents, const struct run_environment *from,
                       struct error *e)
{
    for (size_t i = 0; i < from->other_count; i++)
        if (!str_equal(from->others[i].name, from->agent.name) &&
            !agent_set_add(agents, &from->others[i], e))
            return false;
    for (size_t i = 0; i < from->agent_count; i++)
        if (!agent_set_add(agents, &from->agents[i], e))
            return false;
    struct agent_definition agent = from->agent;
    if (agent.run_timeout_ms == 0) /* it is a workflow, whose times are in the journal */
        agent.run_timeout_ms = 60 * 1000;
    /* "workflow:NAME", "model:NAME": what the run makes by itself */
    return str_find_char(agent.name, ':') != STR_NOT_FOUND || agent_set_add(agents, &agent, e);
}

static bool set_providers(struct replay *r, struct environment_model *from, struct error *e)
{
    for (size_t i = 0; i < from->model.target_count; i++) {
        from->model.targets[i].provider =
            replay_provider(r, from->targets[i].provider, from->targets[i].is_stand_in);
        if (!from->model.targets[i].provider)
            return error_set(e, REASON_LIMIT, "the recording has too many providers");
    }
    return true;
}

static bool add_model(const struct run_environment *from, struct catalog *catalog, str name,
                      struct error *e)
{
    struct model model = from->model.model; /* what others run with is recorded elsewhere */
    if (str_is_empty(name) || catalog_find(catalog, name))
        return true;
    for (size_t i = 0; i < from->model_count; i++)
        if (str_equal(from->models[i].model.name, name))
            model = from->models[i].model;
    model.name = name;
    return catalog_add(catalog, &model, e);
}

static bool add_models(struct replay *r, struct catalog *catalog, struct error *e)
{
    struct run_environment *from = &r->environment;
    if (!set_providers(r, &from->model, e))
        return false;
    for (size_t i = 0; i < from->model_count; i++)
        if (!set_providers(r, &from->models[i], e))
            return false;
    for (size_t i = 0; i < from->known_count; i++)
        if (!add_model(from, catalog, from->known[i], e))
            return false;
    if (!add_model(from, catalog, from->model.model.name, e))
        return false;
    for (size_t i = 0; i < from->other_count; i++)
        if (!add_model(from, catalog, from->others[i].model, e))
            return false;
    return true;
}

static bool make_settings(struct replay *r, struct settings **out, struct error *e)
{
    const struct run_environment *from = &r->environment;
    struct settings *settings = calloc(1, sizeof *settings);
    ensure(settings != NULL);
    *settings = (struct settings){
        .catalog = catalog_create(),
        .agents = agent_set_create(),
        .session_budget = COST_LIMITLESS,
        .call_timeout_ms = from->call_timeout_ms,
        .approval_expiry_ms = from->approval_expiry_ms,
        .containment = from->containment,
    };
    *out = settings;
    return add_models(r, settings->catalog, e) && add_agents(settings->agents, from, e);
}

/* Node and epoch of the writer that goes on at the next event. */
static void find_writer(const struct replay *r, str *node, int64_t *epoch)
{
    const struct run_recording *record = r->record;
    size_t at = r->next < record->solid_count && record->solid[r->next].type == EVENT_RUN_RESUMED
                    ? r->next + 1
                    : r->next;
    *node = S("replay");
    *epoch = 0;
    for (size_t i = 0; i < at && i < record->solid_count; i++) {
        if (!json_get(record->solid[i].data, S("epoch")) ||
            !json_get(record->solid[i].data, S("node")))
            continue;
        *epoch = json_i64_or(record->solid[i].data, S("epoch"), *epoch);
        *node = json_str_or(record->solid[i].data, S("node"), *node);
    }
}

/* Once: a run may have had hundreds of lives in one. */
static bool read_environment(struct replay *r, struct error *e)
{
    const struct json *environment = recording_environment(r->record, r->next, e);
    if (!environment || environment == r->environment_read)
        return environment != NULL;
    r->environment_read = environment;
    return run_environment_read(r->arena, environment, &r->environment, e);
}

static bool boot(struct replay *r, struct error *e)
{
    struct settings *settings = NULL;
    str node;
    int64_t epoch;
    bool is_loaded_again = r->life > 0 && r->record->solid[r->next].type != EVENT_RUN_RESUMED;
    if (!is_loaded_again && !read_environment(r, e))
        return false;
    if (!make_registry(r, e))
        return false;
    if (!make_settings(r, &settings, e)) {
        settings_destroy(settings);
        return false;
    }
    find_writer(r, &node, &epoch);
    put_session(r, node, epoch);
    memory_store_set_hooks(r->store,
                           (struct memory_store_hooks){.owner = r, .before_commit = before_commit});
    condition_init(&r->never);
    condition_init(&r->released);
    r->is_crash_due = r->is_dead = false;
    r->blocked = r->emitting = r->listening = 0;
    r->scheduler = scheduler_create(&r->clock.base, r->random, (struct scheduler_hooks){0});
    r->lane = (struct lane){.scheduler = r->scheduler, .post = post, .owner = r};
    r->metrics = metrics_create();
    r->router = router_create(&r->clock.base, r->random, NULL);
    struct orchestrator_parts parts = {
        .store = r->store,
        .router = r->router,
        .policy = &r->policy.base,
        .registry = r->registry,
        .executor = &r->executor.base,
        .metrics = r->metrics,
        .clock = &r->clock.base,
        .random = r->random,
        .lanes = &r->lane,
        .lane_count = 1,
        .node = node,
        .data_dir = S("/nonexistent"),
        .settings = settings,
    };
    if (!orchestrator_create(&parts, &r->o, e)) {
        settings_destroy(settings);
        return false;
    }
    r->o->oracle = &r->oracle;
    return true;
}

struct body {
    struct replay *r;
    void (*fn)(struct replay *r, struct context *ctx);
};

static void run_body(void *argument)
{
    struct body *body = argument;
    struct context ctx;
    context_init(&ctx, body->r->scheduler, body->r->arena, DEADLINE_NONE);
    body->fn(body->r, &ctx);
    context_deinit(&ctx);
}

/* Runs fn on a coroutine until nothing moves any more, or only in circles. */
static void do_now(struct replay *r, void (*fn)(struct replay *r, struct context *ctx))
{
    struct body body = {r, fn};
    struct error e = {0};
    bool is_started = coroutine_start(r->scheduler, "replay", run_body, &body, &e);
    ensure(is_started);
    for (size_t i = 0; i < RUN_REPLAY_QUIET_MAX; i++) {
        while (scheduler_run_ready(r->scheduler, 1000))
            continue;
        int64_t next_ns = scheduler_next_deadline_ns(r->scheduler);
        if (next_ns == INT64_MAX)
            return;
        if (next_ns > r->mono_ns)
            r->mono_ns = next_ns;
        scheduler_run_timers(r->scheduler);
    }
}

static void drain(struct replay *r, struct context *ctx)
{
    struct context now;
    struct error e = {0};
    context_init(&now, ctx->scheduler, ctx->arena, context_now_ns(ctx));
    (void) !orchestrator_drain(r->o, &now, &e);
    context_deinit(&now);
}

/* The node stops: what the store has is what is left. */
static void stop(struct replay *r)
{
    if (r->o) {
        r->is_dead = true;
        condition_broadcast(&r->released);
        int64_t mono_ns = r->mono_ns;
        do_now(r, drain);
        r->mono_ns = mono_ns;
        orchestrator_destroy(r->o);
    }
    if (r->scheduler)
        scheduler_destroy(r->scheduler);
    router_destroy(r->router);
    metrics_destroy(r->metrics);
    registry_destroy(r->registry);
    r->o = NULL;
    r->scheduler = NULL;
    r->router = NULL;
    r->metrics = NULL;
    r->registry = NULL;
    r->provider_count = 0;
}

static bool restart(struct replay *r, struct error *e)
{
    struct store *survivor = memory_store_clone(r->store);
    stop(r);
    store_destroy(r->store);
    r->store = survivor;
    r->report->resumes++;
    return boot(r, e);
}

/* ---- going on ---- */

struct run *replay_live(const struct replay *r)
{
    struct list *runs = &r->o->lanes[0].runs;
    return list_is_empty(runs) ? NULL : LIST_ITEM(runs->next, struct run, link);
}

static void spawn(struct replay *r)
{
    run_spawn(r->o, r->record->tenant_id, r->record->session_id, r->record->run_id);
}

static bool goes_on_elsewhere(const struct replay *r)
{
    str node;
    int64_t epoch;
    find_writer(r, &node, &epoch);
    return !str_equal(node, r->o->parts.node);
}

/* What came before the first event of its new life, and was told to the one before in vain. */
static void hear_again(struct replay *r)
{
    if (r->is_workflow)
        return;
    r->steered = r->next;
    replay_hear_at_once(r);
}

static bool resume(struct replay *r, struct error *e)
{
    const struct run_recording *record = r->record;
    size_t first = r->next + (record->solid[r->next].type == EVENT_RUN_RESUMED);
    bool is_cancelled =
        first < record->solid_count && record->solid[first].type == EVENT_RUN_CANCELLING;
    str node;
    int64_t epoch;
    int64_t then_ns = replay_ns(r, record->solid[r->next].at_us); /* what it waited for took time */
    if (then_ns > r->mono_ns)
        r->mono_ns = then_ns;
    if (replay_is_crash_next(r) || goes_on_elsewhere(r)) {
        r->life = record->lives[r->next];
        if (!restart(r, e))
            return false;
        hear_again(r);
    } else {
        find_writer(r, &node, &epoch);
        put_session(r, node, epoch);
    }
    if (r->is_workflow)
        replay_workflow_recovers(r);
    if (is_cancelled)
        run_spawn_cancelled(r->o, r->record->tenant_id, record->session_id, record->run_id,
                            json_str_or(record->solid[first].data, S("by"), STR_NONE));
    else
        spawn(r);
    return true;
}

/* The call at work that the next event is of goes on: it is the one whose turn has come. */
static void tell(struct replay *r)
{
    int64_t then_ns = replay_ns(r, r->record->solid[r->next].at_us);
    if (then_ns > r->mono_ns)
        r->mono_ns = then_ns;
    r->heard = r->next + 1;
    condition_broadcast(&r->released);
}

static bool is_from_others(const struct event *event)
{
    return event->type == EVENT_RUN_CHILD_COMPLETED || event->type == EVENT_TOOL_COMPLETED ||
           event->type == EVENT_APPROVAL_VOTED || event->type == EVENT_APPROVAL_DECIDED;
}

/* Nothing can run: does the record say that something comes now?  *has_acted: it did. */
static bool act(struct replay *r, bool *has_acted, struct error *e)
{
    const struct run_recording *record = r->record;
    *has_acted = false;
    if (r->next >= record->solid_count)
        return true;
    const struct event *next = &record->solid[r->next];
    bool is_parked = orchestrator_active_runs(r->o) == 0;
    bool is_crash = replay_is_crash_next(r);
    if (next->type == EVENT_RUN_RESUMED || is_crash) {
        bool is_due = is_crash ? r->is_crash_due || r->emitting == 0 : is_parked;
        *has_acted = is_due;
        return !is_due || resume(r, e);
    }
    if (r->is_workflow) {
        *has_acted = replay_workflow_act(r);
        return true;
    }
    if (r->listening > 0 && r->heard <= r->next) {
        tell(r);
        *has_acted = true;
        return true;
    }
    if (is_from_others(next) && r->poked_at != r->next + 1) {
        r->poked_at = r->next + 1; /* it waits for this one, in memory or out of it */
        replay_deliver_next(r);
        spawn(r);
        *has_acted = true;
        return true;
    }
    bool is_ended_by_cancel =
        next->type == EVENT_MODEL_FAILED && recording_is(next, "error", S("cancelled"));
    if (next->type == EVENT_RUN_CANCELLING || (is_ended_by_cancel && r->blocked > 0))
        *has_acted = replay_cancel(r);
    return true;
}

/* ---- the run ---- */

static bool is_over(const struct replay *r)
{
    return r->is_lost ||
           (r->next >= r->record->solid_count &&
            (r->blocked > 0 || orchestrator_active_runs(r->o) == 0) && r->emitting == 0);
}

static bool play(struct replay *r, struct error *e)
{
    replay_hear_at_once(r); /* what came before its first event of its own */
    spawn(r);
    size_t seen = r->next, quiet = 0;
    for (size_t i = 0; i < RUN_REPLAY_SWITCHES_MAX && quiet < RUN_REPLAY_QUIET_MAX; i++) {
        quiet = r->next == seen ? quiet + 1 : 0;
        seen = r->next;
        if (scheduler_run_ready(r->scheduler, 1) || scheduler_ready_count(r->scheduler) > 0)
            continue;
        bool has_acted = false;
        if (is_over(r))
            return true;
        if (!act(r, &has_acted, e))
            return false;
        if (has_acted)
            continue;
        int64_t next_ns = scheduler_next_deadline_ns(r->scheduler);
        if (next_ns == INT64_MAX || (r->blocked > 0 && r->is_crash_due))
            return true;
        if (next_ns > r->mono_ns)
            r->mono_ns = next_ns;
        scheduler_run_timers(r->scheduler);
    }
    return true;
}

static void check_end(struct replay *r)
{
    const struct run_recording *record = r->record;
    if (r->is_lost || r->next >= record->solid_count)
        return;
    const struct event *missing = &record->solid[r->next];
    replay_differs(r, missing->seq, str_from_cstr(event_type_name(missing->type)),
                   json_print(r->arena, missing->data), STR_NONE);
}

static bool replay_record(struct arena *arena, const struct run_recording *record,
                          struct replay_report *out, struct error *e)
{
    *out = (struct replay_report){.events = record->event_count};
    struct replay *r = ARENA_NEW(arena, struct replay);
    r->arena = arena;
    r->record = record;
    r->report = out;
    r->next = record->begun;
    r->is_workflow = record_has(&record->run, AGENT_RUNS_WORKFLOW);
    r->has_turn_times = replay_workflow_has_turn_times(record);
    r->handed_out = ARENA_ARRAY(arena, bool, record->solid_count + 1);
    r->mono_ns = 1000000000ll;
    r->remaining = COST_LIMITLESS;
    r->delta_next = record->begun + record->deltas_begun;
    replay_parts_init(r);
    r->random = random_seeded_create(str_hash(str_of((const char *) &record->run_id, 16), 0));
    r->store =
        memory_store_create(&r->clock.base, r->random, (struct memory_store_hooks){0}, S("replay"));
    seed(r);
    bool is_begun_only = record->begun == record->solid_count; /* nothing of its own yet */
    bool ok = is_begun_only || (boot(r, e) && play(r, e));
    if (ok && !is_begun_only) {
        check_end(r);
        memory_store_set_hooks(r->store, (struct memory_store_hooks){0});
        r->is_dead = true;
        do_now(r, replay_compare_rows);
    }
    stop(r);
    store_destroy(r->store);
    random_seeded_destroy(r->random);
    out->is_same = ok && out->difference_count == 0;
    return ok;
}

/* ---- lives that nothing tells of ---- */

/* The solid event that differs first; solid_count: none does. */
static size_t find_difference(const struct run_recording *record,
                              const struct replay_report *report)
{
    size_t i = 0;
    uuid id;
    str text;
    if (report->difference_count == 0)
        return record->solid_count;
    if (str_strip_prefix(report->differences[0].what, S("message "), &text) &&
        uuid_parse(str_slice(text, 0, UUID_TEXT_BYTES), &id)) /* its row */
        return recording_named(record, id);
    while (i < record->solid_count && record->solid[i].seq != report->differences[0].seq)
        i++;
    return i;
}

/* What a conversation shows in: its size, a summary that is made of it, and the order in which a decision names what is untrusted in it. */
static bool is_of_prompt(const struct event *event)
{
    return event->type == EVENT_MESSAGE_SUMMARISED ||
           (event->type == EVENT_POLICY_DECIDED && json_get(event->data, S("because"))) ||
           (event->type == EVENT_BUDGET_RESERVED && recording_is(event, "for", S("model")));
}

/* A model call that is decided on twice: what reserves for it failed in the store, which is no refusal. */
static bool is_decided_again(const struct run_recording *record, size_t at)
{
    for (size_t i = at - 1; i <= at; i++)
        if (record->solid[i].type != EVENT_POLICY_DECIDED ||
            !recording_is(&record->solid[i], "action", S("model.call")))
            return false;
    return true;
}

/* Does the run come to this event as it should, but for what it was loaded again for? */
static bool may_follow_a_load(const struct run_recording *record, size_t at)
{
    return is_of_prompt(&record->solid[at]) || (at > record->begun && is_decided_again(record, at));
}

/* May an append have ended before this event, with nothing in flight? */
static bool may_be_loaded(const struct run_recording *record, size_t at)
{
    if (is_decided_again(record, at))
        return true;
    switch ((int) record->solid[at - 1].type) {
    case EVENT_POLICY_DECIDED:
    case EVENT_BUDGET_RESERVED:
    case EVENT_TOOL_INTENDED:
    case EVENT_MODEL_REQUESTED: return false;
    default: return true;
    }
}

/*
 * An append that failed while nothing was in flight leaves no trace: the run was loaded again and did the same once more.  But a failed
 * call's words are others out of its row than out of memory, which shows in the size of the next model call, and calls stand in the order
 * in which they were asked for, no longer in that of their ends.  So where only that differs, or a call was decided on twice, places are
 * tried at which the run may have been loaded again; the one that explains it is kept.
 */
static bool try_lives(struct arena *arena, struct run_recording *record, struct replay_report *out,
                      struct error *e)
{
    size_t differs = find_difference(record, out), tries = 0;
    if (differs == record->solid_count || !may_follow_a_load(record, differs))
        return true;
    for (size_t at = differs; at > record->begun + 1; at--) {
        if (record->is_crash[at])
            break; /* what stood before it came from rows already */
        if (!may_be_loaded(record, at) || tries++ == RUN_REPLAY_LOADS_MAX)
            continue;
        struct replay_report *again = ARENA_NEW(arena, struct replay_report);
        recording_set_crash(record, at, true);
        if (!replay_record(arena, record, again, e))
            return false;
        if (find_difference(record, again) > differs) {
            *out = *again;
            return true;
        }
        recording_set_crash(record, at, false);
    }
    return true;
}

bool run_replay(struct arena *arena, str text, struct replay_report *out, struct error *e)
{
    struct run_recording *record = ARENA_NEW(arena, struct run_recording);
    *out = (struct replay_report){0};
    if (!run_recording_read(arena, text, record, e) || !replay_record(arena, record, out, e))
        return false;
    bool is_agents = !record_has(&record->run, AGENT_RUNS_WORKFLOW);
    for (size_t known = SIZE_MAX; is_agents && !out->is_same && out->difference_count != known;) {
        known = out->difference_count;
        if (!try_lives(arena, record, out, e))
            return false;
    }
    return true;
}

/* ---- the report ---- */

static void put_side(struct json_writer *w, str member, str text)
{
    if (str_is_empty(text))
        return;
    json_put_str(w, member, str_cut_utf8(text, 4096));
}

void replay_report_write(struct json_writer *w, const struct replay_report *report)
{
    json_object_begin(w);
    json_put_bool(w, S("same"), report->is_same);
    json_put_i64(w, S("events"), (int64_t) report->events);
    json_put_i64(w, S("compared"), (int64_t) report->compared);
    json_put_i64(w, S("model_calls"), (int64_t) report->model_calls);
    json_put_i64(w, S("tool_calls"), (int64_t) report->tool_calls);
    json_put_i64(w, S("restarts"), (int64_t) report->resumes);
    json_put_i64(w, S("difference_count"), (int64_t) report->difference_count);
    json_key(w, S("differences"));
    json_array_begin(w);
    for (size_t i = 0; i < report->difference_count && i < RUN_REPLAY_DIFFERENCES_MAX; i++) {
        const struct replay_difference *difference = &report->differences[i];
        json_object_begin(w);
        if (difference->seq > 0)
            json_put_i64(w, S("seq"), difference->seq);
        json_put_str(w, S("what"), difference->what);
        put_side(w, S("recorded"), difference->recorded);
        put_side(w, S("replayed"), difference->replayed);
        json_object_end(w);
    }
    json_array_end(w);
    json_object_end(w);
}

bool run_replay_json(struct arena *arena, str text, str *out, bool *is_same, struct error *e)
{
    struct replay_report *report = ARENA_NEW(arena, struct replay_report);
    struct strbuf buffer;
    struct json_writer w;
    if (!run_replay(arena, text, report, e))
        return false;
    strbuf_init(&buffer, arena, 4u << 20);
    json_writer_init(&w, &buffer);
    replay_report_write(&w, report);
    *out = strbuf_str(&buffer);
    *is_same = report->is_same;
    return true;
}
