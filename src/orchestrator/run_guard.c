/* the content filter of a run's model, where text enters the run: before it is journaled or stored */
#include "base/arena.h"
#include "base/limits.h"
#include "llm/guard.h"
#include "orchestrator/run_internal.h"

/* The texts of {"type": "text", "text"} parts and their like. */
static bool filter_content_parts(struct arena *arena, const struct guard_rules *rules, str *parts,
                                 struct error *e)
{
    const struct json *tree, *item;
    if (str_is_empty(*parts))
        return true;
    if (!json_parse(arena, *parts, (struct json_limits){0}, &tree, e))
        return error_wrap(e, "parts");
    struct dialect_text *texts = ARENA_ARRAY(arena, struct dialect_text, json_count(tree) + 1);
    size_t count = 0;
    struct json_iter it = json_iter(tree);
    while (json_next(&it, NULL, &item))
        texts[count++] = (struct dialect_text){.value = json_get(item, S("text"))};
    bool is_changed;
    return guard_json(arena, rules, NULL, GUARD_REQUEST, tree, texts, count, parts, &is_changed, e);
}

static bool filter_history(struct arena *arena, const struct guard_rules *rules,
                           struct run_request *request, struct error *e)
{
    struct prompt prompt = {.message_count = request->history_count};
    prompt.messages = ARENA_ARRAY(arena, struct prompt_message, request->history_count + 1);
    for (size_t i = 0; i < request->history_count; i++) {
        const struct prompt_message *from = &request->history[i];
        struct prompt_message *message = &prompt.messages[i];
        *message = *from;
        message->parts = ARENA_ARRAY(arena, struct part, from->part_count + 1);
        for (size_t j = 0; j < from->part_count; j++)
            message->parts[j] = from->parts[j];
    }
    request->history = prompt.messages;
    return guard_prompt(arena, rules, NULL, &prompt, e);
}

bool run_guard_request(struct arena *arena, const struct model *model, struct run_request *request,
                       struct error *e)
{
    const struct guard_rules *rules = model->guard;
    return !guard_is_on(rules, GUARD_REQUEST) ||
           (guard_text(arena, rules, NULL, GUARD_REQUEST, request->content, &request->content, e) &&
            filter_content_parts(arena, rules, &request->parts, e) &&
            filter_history(arena, rules, request, e));
}

bool run_guard_output(struct run *run, str *output, struct error *e)
{
    const struct guard_rules *rules = run->model ? run->model->guard : NULL;
    return guard_json_text(run->turn, rules, NULL, GUARD_REQUEST, *output, output, e);
}

void run_guard_content(struct run *run, str *content, bool *is_error)
{
    const struct guard_rules *rules = run->model ? run->model->guard : NULL;
    struct error failure = {0};
    if (guard_text(run->turn, rules, NULL, GUARD_REQUEST, *content, content, &failure))
        return;
    *content = run_prompt_error_content(run->turn, &failure);
    *is_error = true;
}
