#include "minds.h"
#include <stdio.h>

static bool is_told(const struct prompt *prompt, str words)
{
    for (size_t i = 0; i < prompt->message_count; i++)
        for (size_t k = 0; k < prompt->messages[i].part_count; k++)
            if (str_find(prompt->messages[i].parts[k].text, words) != STR_NOT_FOUND)
                return true;
    return false;
}

/* Answers since the person's last words. */
static size_t turns_of(const struct prompt *prompt)
{
    size_t turns = 0;
    for (size_t i = prompt->message_count; i > 0 && prompt->messages[i - 1].role != ROLE_USER; i--)
        turns += prompt->messages[i - 1].role == ROLE_ASSISTANT;
    return turns;
}

static void add_call(struct world *world, struct mind *mind, str name)
{
    int at = mind->call_count++;
    bool is_agent = str_starts_with(name, S("agent_")) || str_starts_with(name, S("handoff_"));
    snprintf(mind->names[at], sizeof mind->names[at], "%.*s", STR_ARG(name));
    if (is_agent)
        snprintf(mind->arguments[at], sizeof mind->arguments[at], "{\"message\":\"do part %d\"}",
                 at);
    else
        snprintf(mind->arguments[at], sizeof mind->arguments[at], "{\"amount\":%lld}",
                 (long long) world_between(world, 1, 9));
}

static void draw_calls(struct world *world, const struct prompt *prompt, struct mind *mind)
{
    int64_t count = world_between(world, 1, MIND_CALLS_MAX);
    for (int64_t i = 0; i < count; i++) {
        size_t pick = (size_t) world_between(world, 0, (int64_t) prompt->tool_count - 1);
        str name = prompt->tools[pick].name;
        bool is_handoff = str_starts_with(name, S("handoff_"));
        if (is_handoff && mind->call_count > 0 && !world_chance(world, 100))
            continue; /* in an answer of its own, as the tool says; mostly */
        add_call(world, mind, name);
        if (is_handoff && !world_chance(world, 100))
            return;
    }
}

void mind_draw(struct world *world, const struct prompt *prompt, struct mind *out)
{
    static const char *const documents[] = {
        "{\"tasks\":[\"one\",\"two\"],\"approved\":true,\"remarks\":\"fine\"}",
        "{\"tasks\":[\"one\"],\"approved\":false,\"remarks\":\"again\"}",
        "no json",
    };
    *out = (struct mind){.text = "word "};
    bool is_parrot = is_told(prompt, S("You are a parrot.")) && world_chance(world, 900);
    if (is_parrot && prompt->tool_count > 0) {
        snprintf(out->names[0], sizeof out->names[0], "lookup");
        snprintf(out->arguments[0], sizeof out->arguments[0], "{\"amount\":1}");
        out->call_count = 1;
    } else if (prompt->tool_count > 0 && turns_of(prompt) < 2 && world_chance(world, 700))
        draw_calls(world, prompt, out);
    else if (prompt->tool_count == 0 && world_chance(world, 20))
        add_call(world, out, S("lookup")); /* nobody offered it */
    out->text_count = (int) world_between(world, 1, 5);
    if (str_is_empty(prompt->response_format))
        return;
    out->text_count = 1;
    out->text = documents[world_between(world, 0, ARRAY_COUNT(documents) - 1)];
}
