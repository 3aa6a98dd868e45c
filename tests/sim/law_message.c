/*
 * Laws of messages (act_chats.c): what was taken is in its session once; what was refused is not; those that wait have their turn in the
 * order in which they came, those that interrupt before them.
 */
#include "acts.h"
#include "base/arena.h"
#include "laws_internal.h"

static struct said *said_of(struct world *world, str content, struct chat **chat)
{
    str word, index_text, number_text, rest;
    int64_t index, number;
    if (!str_starts_with(content, S("say ")) || !str_cut(content, ' ', &word, &rest) ||
        !str_cut(rest, ' ', &index_text, &rest))
        return NULL;
    (void) str_cut(rest, ' ', &number_text, &rest);
    if (!str_to_i64(index_text, &index) || index < 0 || index >= CHATS ||
        !str_to_i64(number_text, &number) || number < 0 || number >= CHAT_MESSAGES)
        return NULL;
    *chat = &world->stage->chats[index];
    return &(*chat)->said[number];
}

void law_message_row(struct world *world, const struct record *row)
{
    struct chat *chat;
    if (!str_equal(record_text(row, MESSAGES_ROLE), S("user")))
        return;
    struct said *said = said_of(world, record_text(row, MESSAGES_CONTENT), &chat);
    if (!said || !uuid_equal(record_uuid(row, MESSAGES_SESSION_ID), chat->session_id))
        return; /* a copy, or a child's */
    bool is_withdrawn =
        record_has(row, MESSAGES_METADATA) &&
        str_find(record_text(row, MESSAGES_METADATA), S("is_withdrawn")) != STR_NOT_FOUND;
    if (laws_of(world)->is_reading) {
        said->times = said->times > 0 ? said->times : 1;
        return;
    }
    if (++said->times > 1 && !world->database)
        world_violation(world, "a message is in its session %d times", said->times);
    said->order = ++chat->order;
    world_tell(world, "message " STR_FMT " is in its session",
               STR_ARG(str_cut_utf8(said->content, 10)));
    if (is_withdrawn)
        cover(world, COVER_MESSAGE_WITHDRAWN);
    said->was_withdrawn = is_withdrawn;
    if (said->fate == MESSAGE_STEERS &&
        uuid_equal(said->otherwise_run_id, record_uuid(row, MESSAGES_RUN_ID)))
        cover(world, COVER_MESSAGE_LEFT);
}

static bool is_ordered(const struct said *said)
{
    return said->is_heard && said->is_taken && said->times > 0 && !said->was_withdrawn;
}

static void check_order(struct world *world, const struct chat *chat)
{
    for (int i = 0; i < chat->count; i++)
        for (int k = i + 1; k < chat->count; k++) {
            const struct said *first = &chat->said[i], *second = &chat->said[k];
            bool is_alike = first->mode == second->mode && first->mode != DOUBLE_TEXT_UNSAID;
            if (is_ordered(first) && is_ordered(second) && is_alike &&
                first->order > second->order && !world->database)
                world_violation(world,
                                "message %d of a session (%s) had its turn before message "
                                "%d, which came before it",
                                k, double_text_name(second->mode), i);
        }
}

void law_messages_rest(struct world *world)
{
    bool may_be_gone = world->stage->rules.runs_ms > 0 || world->database;
    for (int c = 0; c < CHATS; c++) {
        const struct chat *chat = &world->stage->chats[c];
        for (int i = 0; i < chat->count; i++) {
            const struct said *said = &chat->said[i];
            if (said->is_heard && said->is_taken && said->times == 0 && !may_be_gone)
                world_violation(world, "message %d of a session (%s) was taken and is nowhere", i,
                                said->mode == DOUBLE_TEXT_UNSAID ? "unsaid"
                                                                 : double_text_name(said->mode));
            if (said->is_heard && said->is_refused && said->times > 0)
                world_violation(world, "message %d of a session was refused and is in it", i);
        }
        check_order(world, chat);
    }
}
