#include "laws.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "laws_internal.h"
#include "store/check.h"

struct laws *laws_of(struct world *world)
{
    return world->laws;
}

str law_key(const uuid *id)
{
    return str_of((const char *) id->bytes, sizeof id->bytes);
}

void *law_grow(struct world *world, void *items, size_t count, size_t *capacity, size_t bytes)
{
    if (count < *capacity)
        return items;
    size_t more = *capacity ? *capacity * 2 : 8;
    void *grown = arena_grow(world->arena, items, *capacity * bytes, more * bytes);
    *capacity = more;
    return grown;
}

static void make_maps(struct laws *laws)
{
    laws->runs = map_create();
    laws->calls = map_create();
    laws->approvals = map_create();
    laws->approvals_of_calls = map_create();
    laws->run_list = NULL;
    laws->run_count = laws->run_capacity = 0;
}

static void drop_maps(struct laws *laws)
{
    for (size_t i = 0; i < laws->run_count; i++)
        map_destroy(laws->run_list[i]->steps);
    map_destroy(laws->runs);
    map_destroy(laws->calls);
    map_destroy(laws->approvals);
    map_destroy(laws->approvals_of_calls);
}

void laws_init(struct world *world)
{
    struct laws *laws = ARENA_NEW(world->arena, struct laws);
    world->laws = laws;
    laws->schedules = map_create();
    laws->undone = map_create();
    laws->periods = map_create();
    laws->deliveries = map_create();
    laws->scratch = arena_create(64 << 20);
    make_maps(laws);
}

void laws_deinit(struct world *world)
{
    struct laws *laws = world->laws;
    drop_maps(laws);
    law_schedules_deinit(laws);
    map_destroy(laws->undone);
    map_destroy(laws->periods);
    map_destroy(laws->deliveries);
    arena_destroy(laws->scratch);
}

/* ---- runs ---- */

struct law_run *law_run_find(struct world *world, uuid id)
{
    return map_find(laws_of(world)->runs, law_key(&id));
}

struct law_run *law_run_of(struct world *world, uuid id)
{
    struct laws *laws = laws_of(world);
    struct law_run *run = law_run_find(world, id);
    if (run)
        return run;
    run = ARENA_NEW(world->arena, struct law_run);
    *run = (struct law_run){.id = id, .ceiling = COST_LIMITLESS, .steps = map_create()};
    map_put(laws->runs, law_key(&id), run);
    laws->run_list = law_grow(world, laws->run_list, laws->run_count, &laws->run_capacity,
                              sizeof *laws->run_list);
    laws->run_list[laws->run_count++] = run;
    return run;
}

static void run_row(struct world *world, const struct record *row)
{
    struct law_run *run = law_run_of(world, record_uuid(row, AGENT_RUNS_ID));
    const struct json *budget;
    struct error e = {0};
    run->parent_id = record_uuid(row, AGENT_RUNS_PARENT_RUN_ID);
    run->origin_id = record_uuid(row, AGENT_RUNS_FORKED_FROM);
    run->is_removed = record_has(row, AGENT_RUNS_REMOVED_AT);
    run->is_workflow = record_has(row, AGENT_RUNS_WORKFLOW);
    run->depth = (int) record_integer(row, AGENT_RUNS_DEPTH);
    if (run->depth > 1)
        cover(world, COVER_CHILD_DEEP);
    if (record_has(row, AGENT_RUNS_FORKED_FROM))
        cover(world, COVER_RUN_FORKED);
    if (record_has(row, AGENT_RUNS_BUDGET) &&
        json_parse(laws_of(world)->scratch, record_text(row, AGENT_RUNS_BUDGET),
                   (struct json_limits){0}, &budget, &e))
        (void) cost_read_json(budget, &run->ceiling);
    struct law_run *parent =
        uuid_is_none(run->parent_id) ? NULL : law_run_find(world, run->parent_id);
    if (parent && parent->is_final && !laws_of(world)->is_reading)
        world_violation(world, "a run that has ended began a child run");
    const struct law_run *origin =
        uuid_is_none(run->origin_id) ? NULL : law_run_find(world, run->origin_id);
    if (origin && origin->is_removed)
        world_violation(world, "a run was forked that retention had removed");
}

/* From here on it is gone for everybody: nothing may go on from it. */
static void run_marked(struct world *world, const struct record *row)
{
    const struct laws *laws = laws_of(world);
    struct law_run *run = law_run_of(world, record_uuid(row, AGENT_RUNS_ID));
    if (run->is_removed)
        world_violation(world, "a run was removed twice");
    run->is_removed = true;
    for (size_t i = 0; i < laws->run_count; i++)
        if (uuid_equal(laws->run_list[i]->origin_id, run->id) && !laws->run_list[i]->is_removed)
            world_violation(world, "a run was removed that another one was forked from");
}

static void run_removed(struct world *world, const struct record *row)
{
    const struct law_run *run = law_run_find(world, record_uuid(row, AGENT_RUNS_ID));
    const struct law_run *parent = run ? law_run_find(world, run->parent_id) : NULL;
    cover(world, COVER_RUN_REMOVED);
    if (run && run->is_begun && !run->is_final)
        world_violation(world, "a run was removed that has not ended");
    if (run && !run->is_removed)
        world_violation(world, "a run's row was removed before it was gone for everybody");
    if (parent && parent->is_begun && !parent->is_final)
        world_violation(world, "a child run was removed while its parent was alive");
}

static void run_status(struct world *world, const struct write *write)
{
    const struct record *row = &write->record;
    struct law_run *run = law_run_of(world, record_uuid(row, AGENT_RUNS_ID));
    if (write->op == WRITE_DELETE)
        run->is_pending = false;
    else if (record_has(row, AGENT_RUNS_STATUS))
        run->is_pending = str_equal(record_text(row, AGENT_RUNS_STATUS), S("pending"));
}

/* What is used below a run is its own use. */
static void run_used(struct world *world, const struct law_event *event)
{
    cost amount;
    if (!cost_read_json(json_get(event->data, S("amount")), &amount))
        return;
    for (struct law_run *run = event->run; run; run = law_run_find(world, run->parent_id)) {
        run->used = cost_add(run->used, amount);
        bool is_over =
            (run->ceiling.tokens != COST_UNLIMITED && run->used.tokens > run->ceiling.tokens) ||
            (run->ceiling.tool_calls != COST_UNLIMITED &&
             run->used.tool_calls > run->ceiling.tool_calls);
        if (is_over)
            world_violation(world,
                            "a run and those below it used %lld tokens and %lld calls, above its "
                            "ceiling of %lld and %lld",
                            (long long) run->used.tokens, (long long) run->used.tool_calls,
                            (long long) run->ceiling.tokens, (long long) run->ceiling.tool_calls);
        if (uuid_is_none(run->parent_id))
            return;
    }
}

static void run_end(struct world *world, const struct law_event *event)
{
    struct laws *laws = laws_of(world);
    struct law_run *run = event->run;
    run->is_final = true;
    run->end = event->type;
    for (size_t i = 0; i < laws->run_count && !laws->is_reading; i++) {
        const struct law_run *child = laws->run_list[i];
        if (uuid_equal(child->parent_id, run->id) && !child->is_final)
            world_violation(world, "a run ended (%s) while its child run was alive",
                            event_type_name(event->type));
    }
    if (event->type == EVENT_RUN_CANCELLED)
        cover(world, COVER_RUN_CANCELLED);
    if (run->is_workflow)
        cover(world, event->type == EVENT_RUN_COMPLETED ? COVER_INSTANCE_COMPLETED
                     : event->type == EVENT_RUN_FAILED  ? COVER_INSTANCE_FAILED
                                                        : COVER_INSTANCE_CANCELLED);
}

static bool has_live_child(struct world *world, const struct law_run *run)
{
    struct laws *laws = laws_of(world);
    for (size_t i = 0; i < laws->run_count; i++)
        if (uuid_equal(laws->run_list[i]->parent_id, run->id) && !laws->run_list[i]->is_final)
            return true;
    return false;
}

static void child_started(struct world *world, const struct law_event *event)
{
    str purpose = law_text(event, "purpose");
    cover(world, str_equal(purpose, S("tool"))      ? COVER_CHILD_TOOL
                 : str_equal(purpose, S("handoff")) ? COVER_CHILD_HANDOFF
                                                    : COVER_CHILD_STEP);
    if (str_equal(purpose, S("tool")) && has_live_child(world, event->run))
        cover(world, COVER_CHILD_FAN_OUT);
}

static void cover_degraded(struct world *world, const struct law_event *event)
{
    str use = law_text(event, "use");
    cover(world, str_equal(use, S("model"))    ? COVER_RUN_DEGRADED_MODEL
                 : str_equal(use, S("cached")) ? COVER_RUN_DEGRADED_CACHED
                                               : COVER_RUN_DEGRADED_TOOLS);
}

static void run_event(struct world *world, const struct law_event *event)
{
    struct law_run *run = event->run;
    if (run->is_final)
        world_violation(world, "%s was written behind the end of a run",
                        event_type_name(event->type));
    if (event_is_final(event->type))
        run_end(world, event);
    if (event->type == EVENT_RUN_CANCELLING && has_live_child(world, run))
        cover(world, COVER_TREE_CANCELLED);
    if (event->type == EVENT_RUN_CHILD_STARTED)
        child_started(world, event);
    if (event->type == EVENT_BUDGET_SETTLED)
        run_used(world, event);
    if (event->type == EVENT_RUN_DEGRADED)
        cover_degraded(world, event);
    if (event->type == EVENT_MESSAGE_SUMMARISED)
        cover(world, COVER_SESSION_SUMMARISED);
}

/* ---- events ---- */

str law_text(const struct law_event *event, const char *member)
{
    return json_str_or(event->data, str_from_cstr(member), STR_NONE);
}

uuid law_id(const struct law_event *event, const char *member)
{
    uuid id;
    return uuid_parse(law_text(event, member), &id) ? id : UUID_NONE;
}

static void event_row(struct world *world, const struct record *row)
{
    struct laws *laws = laws_of(world);
    struct law_event event = {.run = law_run_of(world, record_uuid(row, RUN_EVENTS_RUN_ID)),
                              .seq = record_integer(row, RUN_EVENTS_SEQ),
                              .at_us = record_integer(row, RUN_EVENTS_AT)};
    struct error e = {0};
    event.run->is_begun = true;
    if (!event_type_parse(record_text(row, RUN_EVENTS_TYPE), &event.type)) {
        world_violation(world, "an event of an unknown type was stored");
        return;
    }
    world->coverage.events[event.type] += !laws->is_reading;
    if (event.type == EVENT_MODEL_DELTA && !event.run->is_final)
        return;
    if (!json_parse(laws->scratch, record_text(row, RUN_EVENTS_DATA), (struct json_limits){0},
                    &event.data, &e)) {
        world_violation(world, "an event that cannot be read was stored: %s", e.message);
        return;
    }
    run_event(world, &event);
    if (event.run->is_workflow)
        law_workflow_event(world, &event);
}

/* ---- rows ---- */

static void period_row(struct world *world, const struct record *row)
{
    str subject = str_printf(world->arena, STR_FMT " " STR_FMT,
                             STR_ARG(record_text(row, BUDGET_PERIODS_LEVEL)),
                             STR_ARG(record_text(row, BUDGET_PERIODS_SUBJECT)));
    str period = str_copy(world->arena, record_text(row, BUDGET_PERIODS_PERIOD));
    const str *before = map_find(laws_of(world)->periods, subject);
    if (before && str_equal(*before, period))
        return;
    if (before)
        cover(world, COVER_PERIOD_ROLLED);
    str *kept = ARENA_NEW(world->arena, str);
    *kept = period;
    map_put(laws_of(world)->periods, subject, kept);
}

static void look_at(struct world *world, const struct node *node, const struct write *write)
{
    const struct record *row = &write->record;
    bool is_new = write_is_insert(write->op);
    if (row->table == TABLE_AGENT_RUNS)
        run_status(world, write);
    if (row->table == TABLE_AGENT_RUNS && is_new)
        run_row(world, row);
    else if (row->table == TABLE_AGENT_RUNS && write->op == WRITE_DELETE)
        run_removed(world, row);
    else if (row->table == TABLE_AGENT_RUNS && record_has(row, AGENT_RUNS_REMOVED_AT))
        run_marked(world, row);
    else if (row->table == TABLE_RUN_EVENTS && is_new)
        event_row(world, row);
    else if (row->table == TABLE_RUN_SIGNALS && is_new)
        law_signal_row(world, row);
    else if (row->table == TABLE_APPROVALS)
        law_approval_write(world, write);
    else if (row->table == TABLE_APPROVAL_VOTES && is_new)
        law_vote_row(world, row);
    else if (row->table == TABLE_SCHEDULES)
        law_schedule_write(world, node, write);
    else if (row->table == TABLE_BUDGET_PERIODS && is_new)
        period_row(world, row);
    else if (row->table == TABLE_MESSAGES && is_new)
        law_message_row(world, row);
    else if (row->table == TABLE_SESSIONS && record_has(row, SESSIONS_STATUS) && !is_new &&
             str_equal(record_text(row, SESSIONS_STATUS), S("expired")))
        cover(world, COVER_SESSION_EXPIRED);
}

/* Rows of runs stand behind their first events in a batch: they are looked at first. */
void laws_batch(struct world *world, const struct node *node, const struct batch *batch)
{
    struct laws *laws = laws_of(world);
    arena_mark mark = arena_save(laws->scratch);
    if (!world->is_calm)
        laws->unrest_ns = world_now_ns(world);
    for (size_t i = 0; i < batch->count; i++)
        if (batch->writes[i].record.table == TABLE_AGENT_RUNS)
            look_at(world, node, &batch->writes[i]);
    for (size_t i = 0; i < batch->count; i++)
        if (batch->writes[i].record.table != TABLE_AGENT_RUNS)
            look_at(world, node, &batch->writes[i]);
    if (batch->is_retention)
        cover(world, COVER_DELTAS_REMOVED);
    law_workflow_end_of_batch(world, batch);
    law_webhook_batch(world, node, batch);
    arena_rewind(laws->scratch, mark);
}

/* ---- after a crash of the disk ---- */

static void read_table(struct world *world, enum table table)
{
    struct laws *laws = laws_of(world);
    OWNED(arena) arena = arena_create(0);
    struct context ctx = {.arena = arena, .deadline_ns = DEADLINE_NONE};
    struct query query = query_of(table);
    str cursor = STR_NONE;
    do {
        struct records page;
        struct error e = {0};
        query.cursor = cursor;
        if (!world->store->ops->list(world->store, &ctx, world->tenant_id, &query, &page, &e)) {
            world_violation(world, "the store cannot list %s: %s", table_def(table)->name,
                            e.message);
            return;
        }
        for (size_t i = 0; i < page.count; i++) {
            arena_mark mark = arena_save(laws->scratch);
            look_at(world, NULL, &(struct write){.op = WRITE_INSERT, .record = page.items[i]});
            arena_rewind(laws->scratch, mark);
        }
        cursor = str_copy(world->arena, page.next_cursor);
        arena_reset(arena);
    } while (!str_is_empty(cursor));
}

void laws_read_again(struct world *world)
{
    struct laws *laws = laws_of(world);
    static const enum table tables[] = {TABLE_AGENT_RUNS,     TABLE_RUN_SIGNALS, TABLE_APPROVALS,
                                        TABLE_APPROVAL_VOTES, TABLE_RUN_EVENTS,  TABLE_SCHEDULES,
                                        TABLE_MESSAGES};
    drop_maps(laws);
    make_maps(laws);
    laws->is_reading = true;
    for (size_t i = 0; i < ARRAY_COUNT(tables); i++)
        read_table(world, tables[i]);
    law_webhook_read_again(world);
    laws->is_reading = false;
}

/* ---- effects ---- */

void laws_effect(struct world *world, const struct tool_request *request)
{
    law_approval_effect(world, request);
    const struct law_call *call = map_find(laws_of(world)->calls, law_key(&request->call_id));
    if (!call || !str_ends_with(call->path, S("~")) ||
        (request->tool->is_idempotent || !str_equal(request->tool->name, S("undo"))))
        return;
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(call->run_id, id);
    str key = str_printf(world->arena, "%.36s " STR_FMT, id, STR_ARG(call->path));
    int *count = map_find(laws_of(world)->undone, key);
    if (!count) {
        count = ARENA_NEW(world->arena, int);
        map_put(laws_of(world)->undone, key, count);
    }
    if (++*count > 1)
        world_violation(world, "step " STR_FMT " was undone %d times, and once may have worked",
                        STR_ARG(call->path), *count);
}

/* It says itself that it did nothing: it may be tried again. */
void laws_effect_failed(struct world *world, const struct tool_request *request)
{
    const struct law_call *call = map_find(laws_of(world)->calls, law_key(&request->call_id));
    char id[UUID_TEXT_BYTES + 1];
    if (!call || !str_ends_with(call->path, S("~")))
        return;
    uuid_format(call->run_id, id);
    str key = str_printf(world->arena, "%.36s " STR_FMT, id, STR_ARG(call->path));
    int *count = map_find(laws_of(world)->undone, key);
    if (count)
        *count = 0;
}

/* ---- at rest ---- */

bool laws_have_live_runs(const struct world *world)
{
    const struct laws *laws = world->laws;
    for (size_t i = 0; i < laws->run_count; i++) {
        const struct law_run *run = laws->run_list[i];
        if (run->is_pending || (run->is_begun && !run->is_final))
            return true;
    }
    return false;
}

void laws_end(struct world *world, struct context *ctx)
{
    struct laws *laws = laws_of(world);
    (void) ctx;
    for (size_t i = 0; i < laws->run_count; i++) {
        const struct law_run *run = laws->run_list[i];
        if (run->is_begun && !run->is_final)
            world_violation(world, "a run has not ended at rest");
    }
    law_messages_rest(world);
    law_webhooks_rest(world);
}
