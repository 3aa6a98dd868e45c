/*
 * Replays: some runs and instances that have ended are exported by a node, in the middle of all and at the end, and played again from their
 * documents by the program's own code (orchestrator/replay/run_replay.h) when the world has come to rest: every event and every row that it
 * names must come out byte for byte.  One that does not is no violation of what runs promise: main.c counts them, and bounds how many.
 */
#include "acts.h"
#include "base/arena.h"
#include "orchestrator/replay/run_export.h"
#include "orchestrator/replay/run_replay.h"

/*
 * What a record does not settle yet, so that a replay may differ there: of a run of an agent, the messages of a copied session, and of
 * one that was forked from a run that had summarised what was said, or a summary that no call wrote; of any, their order where a wall time
 * jumped.  Where retention is at work, what was said before a run may be gone.
 */
static bool is_settled(const struct world *world, bool is_workflow, str text)
{
    bool is_summarised = str_find(text, S("\"message.summarised\"")) != STR_NOT_FOUND,
         is_fork = str_find(text, S("\"run.forked\"")) != STR_NOT_FOUND,
         is_clone = str_find(text, S("cloned_from")) != STR_NOT_FOUND,
         is_bare = str_find(text, S("\"is_fallback\":true")) != STR_NOT_FOUND,
         is_open = is_clone || (is_fork && is_summarised) || is_bare;
    return (is_workflow || !is_open) && !world->has_clock_jumps && world->stage->rules.runs_ms == 0;
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
    if (!run_list(call->o, &call->ctx, &alice, &(struct run_filter){0}, STR_NONE, 50, &page, &e) ||
        page.count == 0 || stage->replay_count == REPLAYS)
        return;
    const struct record *run = &page.items[world_between(world, 0, (int64_t) page.count - 1)];
    uuid id = record_uuid(run, AGENT_RUNS_ID);
    if (!run_status_parse(record_text(run, AGENT_RUNS_STATUS), &status) ||
        !run_status_is_final(status) || !run_export(call->o, &call->ctx, &alice, id, &text, &e) ||
        stage->replay_count == REPLAYS ||
        !is_settled(world, record_has(run, AGENT_RUNS_WORKFLOW), text))
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
    world->replays++;
    if (!run_replay(arena, replayed->text, report, &e)) {
        if (e.code != ERROR_INVALID)
            snprintf(world->drift, sizeof world->drift, "run %s cannot be replayed: %s", id,
                     e.message);
        return;
    }
    cover(world, replayed->is_workflow ? COVER_INSTANCE_REPLAYED : COVER_RUN_REPLAYED);
    world_tell(world, "run %s is replayed: %zu events", id, report->events);
    world_note(world, report->compared);
    if (report->is_same || world->drift[0])
        return;
    const struct replay_difference *d = &report->differences[0];
    snprintf(world->drift, sizeof world->drift,
             "the replay of run %s differs at event %lld (" STR_FMT "): recorded " STR_FMT
             ", replayed " STR_FMT,
             id, (long long) d->seq, STR_ARG(d->what), STR_ARG(str_cut_utf8(d->recorded, 150)),
             STR_ARG(str_cut_utf8(d->replayed, 150)));
}

void replays_play(struct world *world)
{
    const struct stage *stage = world->stage;
    for (int i = 0; i < stage->replay_count && !world->violation[0]; i++)
        play(world, &stage->replays[i]);
}
