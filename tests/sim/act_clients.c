/* Clients that run tools of their own: they bring the results, all of one answer together, sometimes twice, sometimes never. */
#include "acts.h"
#include "base/arena.h"

enum { CALLS_MAX = 4, TURNS_MAX = 400 };

struct serving {
    uuid session_id, run_id;
    bool is_over, is_lazy;
};

static void ask_session(struct errand *call, void *argument)
{
    struct serving *s = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct session_request request = {.budget = COST_LIMITLESS, .agent = S("clerk")};
    struct record made;
    struct error e = {0};
    if (session_create(call->o, &call->ctx, &alice, &request, &made, &e))
        s->session_id = record_uuid(&made, SESSIONS_ID);
}

static void ask_run(struct errand *call, void *argument)
{
    static const struct tool_spec tools[] = {
        {.name = S_INIT("ask_user"), .parameters = S_INIT("{\"type\":\"object\"}")}};
    struct serving *s = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct run_request request = {.session_id = s->session_id,
                                  .content = S("ask the user"),
                                  .client_tools = tools,
                                  .client_tool_count = ARRAY_COUNT(tools)};
    struct error e = {0};
    if (!run_start(call->o, &call->ctx, &alice, &request, &s->run_id, &e)) {
        s->run_id = UUID_NONE;
        s->is_over = e.reason != REASON_OUTCOME_UNKNOWN;
    }
}

static void give(struct errand *call, const struct principal *alice, const struct records *rows)
{
    struct client_result results[CALLS_MAX];
    size_t count = 0;
    struct error e = {0};
    uuid run_id, session_id;
    int64_t last_seq;
    for (size_t i = 0; i < rows->count && count < CALLS_MAX; i++)
        if (str_equal(record_text(&rows->items[i], TOOL_CALLS_TOOL_VERSION), S("client")) &&
            !record_has(&rows->items[i], TOOL_CALLS_OUTPUT))
            results[count++] =
                (struct client_result){.tool_call_id = record_uuid(&rows->items[i], TOOL_CALLS_ID),
                                       .content = S("yes"),
                                       .is_error = world_chance(call->world, 100)};
    if (count > 0 && run_give_results(call->o, &call->ctx, alice, results, count, &run_id,
                                      &session_id, &last_seq, &e))
        cover(call->world, COVER_CLIENT_RESULT);
}

static void ask_serve(struct errand *call, void *argument)
{
    struct serving *s = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct query query = query_of(TABLE_TOOL_CALLS);
    struct record run;
    struct records rows;
    enum run_status status;
    struct error e = {0};
    if (!run_get(call->o, &call->ctx, &alice, s->run_id, &run, &e)) {
        s->is_over = e.code == ERROR_NOT_FOUND;
        return;
    }
    s->is_over = run_status_parse(record_text(&run, AGENT_RUNS_STATUS), &status) &&
                 run_status_is_final(status);
    query_where_uuid(&query, TOOL_CALLS_RUN_ID, s->run_id);
    if (!s->is_over && !s->is_lazy &&
        store_list(orchestrator_parts(call->o)->store, &call->ctx, call->world->tenant_id, &query,
                   &rows, &e))
        give(call, &alice, &rows);
}

static void ask_cancel(struct errand *call, void *argument)
{
    struct serving *s = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct error e = {0};
    (void) !run_cancel(call->o, &call->ctx, &alice, s->run_id, &e);
}

/* What began without their hearing of it waits for nobody: a session has one run at a time, so they look at that. */
static void ask_live(struct errand *call, void *argument)
{
    struct serving *s = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct record session;
    struct error e = {0};
    if (session_get(call->o, &call->ctx, &alice, s->session_id, &session, &e))
        s->run_id = record_uuid(&session, SESSIONS_LIVE_RUN_ID);
    s->is_over = uuid_is_none(s->run_id);
}

static void client(struct person *person)
{
    struct world *world = person->world;
    struct serving s = {.is_lazy = world_chance(world, 150)};
    while (uuid_is_none(s.session_id)) {
        (void) person_ask(person, ask_session, &s);
        person_doze(person, 5, 50);
    }
    bool is_heard = person_ask(person, ask_run, &s);
    for (int turn = 0; turn < TURNS_MAX && !(s.is_over && is_heard) && !world->violation[0];
         turn++) {
        person_doze(person, 50, 2000);
        if (!is_heard || uuid_is_none(s.run_id)) {
            is_heard = person_ask(person, ask_live, &s);
            continue;
        }
        (void) person_ask(person, ask_serve, &s);
        if (s.is_lazy && turn > 10)
            (void) person_ask(person, ask_cancel, &s);
    }
}

void act_clients(struct world *world)
{
    for (int64_t i = world_between(world, 1, 2); i > 0; i--)
        person_start(world, "client", client, (int) i);
}
