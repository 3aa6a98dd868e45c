/*
 * Replays: some runs and instances that have ended are exported by a node, in the middle of all and at the end, and played again from their
 * documents by the program's own code (orchestrator/replay/run_replay.h) when the world has come to rest: every event and every row that it
 * names must come out byte for byte.
 */
#include "acts.h"
#include "base/arena.h"
#include "orchestrator/replay/run_export.h"
#include "orchestrator/replay/run_replay.h"

/* Were two tools at work at the same time?  The events stand in the text in their order. */
static bool has_parallel_calls(str text)
{
    static const str names[] = {S_INIT("\"tool.intended\""), S_INIT("\"tool.completed\"")};
    int open = 0;
    for (size_t at; (at = str_find(text, S("\"tool."))) != STR_NOT_FOUND && open < 2;) {
        text = str_from(text, at);
        if (str_starts_with(text, names[0]))
            open++;
        else if (str_starts_with(text, names[1]) && open > 0)
            open--;
        text = str_from(text, 1);
    }
    return open > 1;
}

/*
 * What a record does not settle yet, so that a replay may differ there: how much was left when others on the same accounts took from them
 * between two looks; what a cancel cut off, or a refusal before the call began; which of two things at work ended first, and a step's
 * timeout beside them; results of a client; what was heard after a wait; the messages of a copied session, and their order where a wall time jumped.
 */
static bool is_settled(const struct world *world, str text)
{
    static const char *const open[] = {
        "\"budget.refused\"",     "\"budget.wind_down\"",
        "\"message.summarised\"", "\"run.degraded\"",
        "\"run.cancelling\"",     "\"run.resumed\"",
        "\"timeout_at\"",         "\"unknown\"",
        "\"client_calls\":[\"",   "\"over_budget\"",
        "\"forked_from\":\"",     "cloned_from",
        "\"run.looping\"",        "\"status\":\"failed\",\"latency_ms\":0,",
    };
    for (size_t i = 0; i < ARRAY_COUNT(open); i++)
        if (str_find(text, str_from_cstr(open[i])) != STR_NOT_FOUND)
            return false;
    return !world->has_clock_jumps && !has_parallel_calls(text);
}

/* One of the newest runs, drawn; one that has not ended is not asked for. */
static void ask_export(struct errand *call, void *argument)
{
    struct world *world = call->world;
    struct stage *stage = world->stage;
    struct principal alice = person_principal(world, "alice");
    struct records page;
    struct error e = {0};
    enum run_status status;
    str text;
    (void) argument;
    if (!run_list(call->o, &call->ctx, &alice, UUID_NONE, STR_NONE, 50, &page, &e) ||
        page.count == 0 || stage->replay_count == REPLAYS)
        return;
    const struct record *run = &page.items[world_between(world, 0, (int64_t) page.count - 1)];
    uuid id = record_uuid(run, AGENT_RUNS_ID);
    if (!run_status_parse(record_text(run, AGENT_RUNS_STATUS), &status) ||
        !run_status_is_final(status) || !run_export(call->o, &call->ctx, &alice, id, &text, &e) ||
        stage->replay_count == REPLAYS || !is_settled(world, text))
        return;
    stage->replays[stage->replay_count++] =
        (struct replayed){.run_id = id,
                          .text = str_copy(world->arena, text),
                          .is_workflow = record_has(run, AGENT_RUNS_WORKFLOW)};
}

static void archivist(struct person *person)
{
    const struct stage *stage = person->world->stage;
    while (person_is_needed(person) && !person->world->violation[0]) {
        person_doze(person, 1000, 30000);
        if (stage->replay_count + 1 < REPLAYS && world_chance(person->world, 300))
            (void) person_ask(person, ask_export, NULL);
    }
    for (int tries = 0; tries < 3 * REPLAYS && stage->replay_count < REPLAYS; tries++) {
        (void) person_ask(person, ask_export, NULL);
        person_doze(person, 1, 50);
    }
}

void act_replays(struct world *world)
{
    servant_start(world, "archivist", archivist, 0);
}

/* ---- at rest ---- */

/* What says nothing of what it would have run with cannot be replayed (docs/replay.md): INVALID. */
static void play(struct world *world, const struct replayed *replayed)
{
    OWNED(arena) arena = arena_create(0);
    struct replay_report *report = ARENA_NEW(arena, struct replay_report);
    struct error e = {0};
    char id[UUID_TEXT_BYTES + 1];
    uuid_format(replayed->run_id, id);
    if (!run_replay(arena, replayed->text, report, &e)) {
        if (e.code != ERROR_INVALID)
            world_violation(world, "run %s cannot be replayed: %s", id, e.message);
        return;
    }
    cover(world, replayed->is_workflow ? COVER_INSTANCE_REPLAYED : COVER_RUN_REPLAYED);
    world_tell(world, "run %s is replayed: %zu events", id, report->events);
    world_note(world, report->compared);
    if (report->is_same)
        return;
    const struct replay_difference *d = &report->differences[0];
    world_violation(world,
                    "the replay of run %s differs at event %lld (" STR_FMT "): recorded " STR_FMT
                    ", replayed " STR_FMT,
                    id, (long long) d->seq, STR_ARG(d->what),
                    STR_ARG(str_cut_utf8(d->recorded, 150)),
                    STR_ARG(str_cut_utf8(d->replayed, 150)));
}

void replays_play(struct world *world)
{
    const struct stage *stage = world->stage;
    for (int i = 0; i < stage->replay_count && !world->violation[0]; i++)
        play(world, &stage->replays[i]);
}
