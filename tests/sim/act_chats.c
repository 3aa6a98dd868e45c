/*
 * Chats: somebody who does not wait for the answer before the next message, in a session with one of the four policies; who pauses the
 * session meanwhile, clones it, forks a run of it.
 */
#include "acts.h"
#include "base/arena.h"
#include "orchestrator/replay/run_fork.h"
#include "orchestrator/session/session_inbox.h"

struct chatting {
    struct chat *chat;
    struct said *said;
    uuid session_id, run_id;
    bool is_done;
};

static struct principal alice_of(const struct errand *call)
{
    return person_principal(call->world, "alice");
}

/* ---- the session ---- */

static void ask_session(struct errand *call, void *argument)
{
    static const char *const policies[] = {"reject", "enqueue", "interrupt", "steer"};
    struct chatting *c = argument;
    struct principal alice = alice_of(call);
    struct session_request request = {
        .budget = COST_LIMITLESS,
        .agent = world_chance(call->world, 400) ? S("narrow") : company_agent(call->world),
        .double_text = str_from_cstr(policies[world_between(call->world, 0, 3)])};
    struct record made;
    struct error e = {0};
    if (session_create(call->o, &call->ctx, &alice, &request, &made, &e))
        c->session_id = record_uuid(&made, SESSIONS_ID);
}

static void ask_pause(struct errand *call, void *argument)
{
    struct chatting *c = argument;
    struct principal alice = alice_of(call);
    struct record row;
    struct error e = {0};
    if (session_pause(call->o, &call->ctx, &alice, c->session_id, &row, &e))
        cover(call->world, COVER_SESSION_PAUSED);
}

/* Until it is known not to be paused. */
static void ask_resume(struct errand *call, void *argument)
{
    struct chatting *c = argument;
    struct principal alice = alice_of(call);
    struct record row;
    struct error e = {0};
    bool is_resumed = session_resume(call->o, &call->ctx, &alice, c->session_id, &row, &e);
    if (is_resumed)
        cover(call->world, COVER_SESSION_RESUMED);
    e = (struct error){0};
    c->is_done = is_resumed || (session_get(call->o, &call->ctx, &alice, c->session_id, &row, &e) &&
                                !str_equal(record_text(&row, SESSIONS_STATUS), S("paused")));
}

static void pause(struct person *person, struct chatting *c)
{
    (void) person_ask(person, ask_pause, c);
    person_doze(person, 50, 20000);
    c->is_done = false;
    while (!c->is_done && !person->world->violation[0]) {
        (void) person_ask(person, ask_resume, c);
        person_doze(person, 5, 300);
    }
}

/* ---- messages ---- */

static void note_fate(struct world *world, struct said *said, const struct message_outcome *out)
{
    said->is_taken = true;
    cover(world, out->fate == MESSAGE_BEGINS           ? COVER_MESSAGE_BEGINS
                 : out->fate == MESSAGE_STEERS         ? COVER_MESSAGE_STEERS
                 : said->mode == DOUBLE_TEXT_INTERRUPT ? COVER_MESSAGE_INTERRUPTS
                                                       : COVER_MESSAGE_WAITS);
}

static void ask_message(struct errand *call, void *argument)
{
    struct chatting *c = argument;
    struct principal alice = alice_of(call);
    struct run_request request = {
        .session_id = c->session_id, .content = c->said->content, .on_busy = c->said->mode};
    struct message_outcome out;
    struct error e = {0};
    if (message_send(call->o, &call->ctx, &alice, &request, &out, &e)) {
        note_fate(call->world, c->said, &out);
        world_tell(call->world, "message " STR_FMT " is taken: fate %d, run %02x%02x",
                   STR_ARG(str_cut_utf8(c->said->content, 10)), (int) out.fate,
                   out.run_id.bytes[14], out.run_id.bytes[15]);
        c->said->fate = out.fate;
        c->said->otherwise_run_id = out.otherwise_run_id;
        c->run_id = out.run_id;
        return;
    }
    c->said->is_refused = e.reason == REASON_SESSION_BUSY;
    if (c->said->is_refused)
        cover(call->world, COVER_MESSAGE_REFUSED);
}

static void ask_cancel(struct errand *call, void *argument)
{
    struct chatting *c = argument;
    struct principal alice = alice_of(call);
    struct error e = {0};
    (void) !run_cancel(call->o, &call->ctx, &alice, c->run_id, &e);
}

/* Longer than the window of the narrow model after a few. */
static str words(struct person *person, int number)
{
    struct world *world = person->world;
    struct strbuf text;
    strbuf_init(&text, world->arena, 4096);
    strbuf_printf(&text, "say %d %d", person->index, number);
    for (int64_t i = world_between(world, 0, 120); i > 0; i--)
        strbuf_add(&text, S(" and more"));
    return strbuf_str(&text);
}

static void say(struct person *person, struct chatting *c, int number)
{
    struct world *world = person->world;
    struct chat *chat = c->chat;
    c->said = &chat->said[chat->count++];
    *c->said = (struct said){.content = words(person, number),
                             .mode = world_chance(world, 700)
                                         ? chat->mode
                                         : (enum double_text) world_between(world, 0, 3)};
    c->run_id = UUID_NONE;
    c->said->is_heard = person_ask(person, ask_message, c);
    acts_follow(world, c->run_id);
    if (uuid_is_none(c->run_id) || !world_chance(world, 120))
        return;
    person_doze(person, 0, 2000);
    c->said->is_withdrawn = true;
    (void) person_ask(person, ask_cancel, c);
}

/* ---- copies ---- */

static void ask_clone(struct errand *call, void *argument)
{
    struct chatting *c = argument;
    struct principal alice = alice_of(call);
    struct record made;
    struct run_request request = {.content = S("go on"), .on_busy = DOUBLE_TEXT_REJECT};
    struct message_outcome out;
    struct error e = {0};
    if (!session_clone(call->o, &call->ctx, &alice, c->session_id, UUID_NONE, &made, &e))
        return;
    cover(call->world, COVER_SESSION_CLONED);
    request.session_id = record_uuid(&made, SESSIONS_ID);
    (void) !message_send(call->o, &call->ctx, &alice, &request, &out, &e);
}

static void ask_fork(struct errand *call, void *argument)
{
    struct chatting *c = argument;
    struct principal alice = alice_of(call);
    struct fork_request request = {.run_id = c->run_id,
                                   .at = world_between(call->world, 3, 40),
                                   .message =
                                       world_chance(call->world, 500) ? S("and else") : STR_NONE};
    struct forked_run made;
    struct error e = {0};
    if (run_fork(call->o, &call->ctx, &alice, &request, &made, &e))
        c->is_done = true;
}

static void copy(struct person *person, struct chatting *c)
{
    struct world *world = person->world;
    if (world_chance(world, 300))
        (void) person_ask(person, ask_clone, c);
    c->is_done = false;
    for (int i = 0; i < 12 && !c->is_done && !uuid_is_none(c->run_id); i++)
        (void) person_ask(person, ask_fork, c);
}

static void chatter(struct person *person)
{
    struct world *world = person->world;
    struct chatting c = {.chat = &world->stage->chats[person->index]};
    while (uuid_is_none(c.session_id)) {
        (void) person_ask(person, ask_session, &c);
        person_doze(person, 5, 50);
    }
    c.chat->mode = world_chance(world, 400) ? DOUBLE_TEXT_UNSAID
                                            : (enum double_text) world_between(world, 0, 3);
    c.chat->session_id = c.session_id;
    for (int64_t i = 0, count = world_between(world, 2, CHAT_MESSAGES); i < count; i++) {
        say(person, &c, (int) i);
        person_doze(person, 0, world_chance(world, 700) ? 800 : 6000);
        if (world_chance(world, 120))
            pause(person, &c);
    }
    if (world_chance(world, 400))
        copy(person, &c);
}

void act_chats(struct world *world)
{
    for (int64_t i = world_between(world, 1, CHATS); i > 0; i--)
        person_start(world, "chatter", chatter, (int) i - 1);
}
