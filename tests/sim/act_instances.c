/* Workflows: somebody writes definitions, some start instances and perhaps pause and cancel them, a herald sends signals. */
#include "acts.h"
#include "base/arena.h"
#include "definitions.h"
#include "orchestrator/workflow/workflow_store.h"

enum { DEFINITIONS = 3, STARTERS = 2 };

/* ---- who writes ---- */

struct writing {
    str text;
    bool is_stored;
};

static void ask_put(struct errand *call, void *argument)
{
    struct writing *writing = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct workflow_entry *entry;
    struct definition_problems problems = {0};
    struct error e = {0};
    bool is_new;
    writing->is_stored =
        workflow_put(call->o, &call->ctx, &alice, writing->text, &problems, &entry, &is_new, &e);
    if (writing->is_stored)
        workflow_entry_release(entry);
    else if (e.code == ERROR_INVALID)
        world_violation(call->world, "a definition was refused: %s: " STR_FMT, e.message,
                        STR_ARG(str_cut_utf8(writing->text, 300)));
}

static person_fn starter, herald;

static void author(struct person *person)
{
    struct world *world = person->world;
    int64_t count = world_between(world, 1, DEFINITIONS);
    for (int i = 0; i < DEFINITIONS; i++) { /* a step may name any that stands before it */
        struct writing writing = {0};
        if (i < count) {
            str text = definition_draw(world, person->arena, i);
            writing.text = str_copy(world->arena, text);
            world_tell(world, "definition " STR_FMT, STR_ARG(writing.text));
        }
        while (i < count && !writing.is_stored && !world->violation[0]) {
            (void) person_ask(person, ask_put, &writing);
            person_doze(person, 5, 200);
        }
    }
    world->stage->definition_count = (int) count;
    for (int64_t i = world_between(world, 1, STARTERS); i > 0; i--)
        person_start(world, "starter", starter, (int) i);
}

/* ---- who starts ---- */

struct starting {
    str name, input;
    uuid run_id;     /* chosen by who starts it: it begins once, however often it is asked for */
    uuid session_id; /* once it is known to be started */
    bool is_started, is_over, is_going;
};

static void ask_start(struct errand *call, void *argument)
{
    struct starting *starting = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct workflow_request request = {.name = starting->name,
                                       .input = starting->input,
                                       .budget = COST_LIMITLESS,
                                       .run_id = starting->run_id};
    struct error e = {0};
    uuid run_id;
    starting->is_started =
        workflow_start(call->o, &call->ctx, &alice, &request, &run_id, &starting->session_id, &e);
    starting->is_over = starting->is_started || e.code == ERROR_CONFLICT ||
                        e.code == ERROR_DENIED || e.code == ERROR_LIMIT;
    if (!starting->is_started && e.code == ERROR_INVALID)
        world_violation(call->world, "an instance was refused: %s", e.message);
}

static void ask_end(struct errand *call, void *argument)
{
    struct principal alice = person_principal(call->world, "alice");
    struct error e = {0};
    (void) !run_cancel(call->o, &call->ctx, &alice, *(uuid *) argument, &e);
}

/* ---- who pauses it ---- */

static void ask_pause(struct errand *call, void *argument)
{
    struct starting *starting = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct record row;
    struct error e = {0};
    if (session_pause(call->o, &call->ctx, &alice, starting->session_id, &row, &e))
        cover(call->world, COVER_INSTANCE_PAUSED);
}

/* Until it is known not to be paused. */
static void ask_resume(struct errand *call, void *argument)
{
    struct starting *starting = argument;
    struct principal alice = person_principal(call->world, "alice");
    struct record row;
    struct error e = {0};
    starting->is_going =
        session_resume(call->o, &call->ctx, &alice, starting->session_id, &row, &e);
    e = (struct error){0};
    starting->is_going =
        starting->is_going ||
        (session_get(call->o, &call->ctx, &alice, starting->session_id, &row, &e) &&
         !str_equal(record_text(&row, SESSIONS_STATUS), S("paused")));
}

static void pause(struct person *person, struct starting *starting)
{
    struct world *world = person->world;
    person_doze(person, 0, world_chance(world, 700) ? 800 : 20000);
    (void) person_ask(person, ask_pause, starting);
    person_doze(person, 0, world_chance(world, 500) ? 500 : 20000);
    starting->is_going = false;
    while (!starting->is_going && !world->violation[0]) {
        (void) person_ask(person, ask_resume, starting);
        person_doze(person, 5, 300);
    }
}

/* ---- what is started ---- */

static const struct {
    const char *name, *input;
} shipped[] = {
    {"book-trip", "{\"order\":\"o1\",\"base\":\"https://booking.test\"}"},
    {"approval-gate",
     "{\"endpoint\":\"https://pay.test\",\"limit\":10,\"payment\":{\"id\":\"p\",\"to\":\"x\","
     "\"amount\":20}}"},
    {"map-reduce", "{\"question\":\"q\",\"documents\":[{\"title\":\"a\",\"text\":\"t\"},"
                   "{\"title\":\"b\",\"text\":\"u\"}]}"},
    {"planner-executor", "{\"goal\":\"g\"}"},
    {"reviewer", "{\"task\":\"t\"}"},
};

static void choose(struct person *person, struct starting *starting)
{
    static const char *const items[] = {"[]", "[1]", "[1,2]", "[1,2,3,4]"};
    struct world *world = person->world;
    *starting = (struct starting){.run_id = uuid_new(world->clock, world->random)};
    if (world->stage->rules.has_shipped && world_chance(world, 600)) {
        size_t i = (size_t) world_between(world, 0, ARRAY_COUNT(shipped) - 1);
        starting->name = str_from_cstr(shipped[i].name);
        starting->input = str_from_cstr(shipped[i].input);
        cover(world, COVER_INSTANCE_SHIPPED);
        return;
    }
    starting->name =
        str_printf(world->arena, "w%lld",
                   (long long) world_between(world, 0, world->stage->definition_count - 1));
    starting->input = str_printf(world->arena, "{\"n\":%lld,\"items\":%s}",
                                 (long long) world_between(world, 0, 9),
                                 items[world_between(world, 0, ARRAY_COUNT(items) - 1)]);
    cover(world, COVER_INSTANCE);
}

static void starter(struct person *person)
{
    struct world *world = person->world;
    for (int64_t count = world_between(world, 1, 3); count > 0; count--) {
        struct starting starting;
        choose(person, &starting);
        while (!starting.is_over && !world->violation[0]) {
            (void) person_ask(person, ask_start, &starting);
            person_doze(person, 5, 300);
        }
        acts_follow(world, starting.run_id);
        while (starting.is_started && world_chance(world, 300))
            pause(person, &starting);
        if (world_chance(world, 250)) {
            person_doze(person, 0, world_chance(world, 500) ? 1500 : 30000);
            (void) person_ask(person, ask_end, &starting.run_id);
        }
        person_doze(person, 100, 5000);
    }
}

/* ---- who sends signals: to every instance that is there, also to those whose start nobody heard of ---- */

static void send_one(struct errand *call, const struct principal *alice, uuid run_id)
{
    struct world *world = call->world;
    str name = world_chance(world, 700) ? S("go") : S("news");
    int times = world_chance(world, 150) ? 2 : 1;
    for (int i = 0; i < times; i++) {
        struct error e = {0};
        uuid signal_id;
        if (workflow_signal(call->o, &call->ctx, alice, run_id, name, S("{\"ok\":true}"),
                            &signal_id, &e))
            cover(world, i ? COVER_SIGNAL_DUPLICATE : COVER_SIGNAL_SENT);
    }
}

static void ask_signals(struct errand *call, void *argument)
{
    struct world *world = call->world;
    struct principal alice = person_principal(world, "alice");
    str cursor = STR_NONE;
    (void) argument;
    do {
        struct records page;
        struct error e = {0};
        if (!run_list(call->o, &call->ctx, &alice, &(struct run_filter){0}, cursor, 50, &page, &e))
            return;
        for (size_t i = 0; i < page.count; i++) {
            const struct record *run = &page.items[i];
            enum run_status status;
            if (record_has(run, AGENT_RUNS_WORKFLOW) &&
                run_status_parse(record_text(run, AGENT_RUNS_STATUS), &status) &&
                !run_status_is_final(status) && world_chance(world, 350))
                send_one(call, &alice, record_uuid(run, AGENT_RUNS_ID));
        }
        cursor = page.next_cursor;
    } while (!str_is_empty(cursor));
}

static void herald(struct person *person)
{
    while (person_is_needed(person)) {
        person_doze(person, 500, 12000);
        (void) person_ask(person, ask_signals, NULL);
    }
}

void act_instances(struct world *world)
{
    person_start(world, "author", author, 0);
    servant_start(world, "herald", herald, 0);
}
