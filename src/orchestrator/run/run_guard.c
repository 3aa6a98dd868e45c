/* the content filter of a run's model, where text enters the run: before it is journaled or stored */
#include "base/arena.h"
#include "base/limits.h"
#include "llm/guard_large.h"
#include "orchestrator/content_audit.h"
#include "orchestrator/run_internal.h"

/* The texts of {"type": "text", "text"} parts and their like. */
static bool filter_content_parts(const struct guard_caller *caller, str *parts, struct error *e)
{
    const struct json *tree, *item;
    if (str_is_empty(*parts))
        return true;
    if (!json_parse(caller->arena, *parts, (struct json_limits){0}, &tree, e))
        return error_wrap(e, "parts");
    struct dialect_text *texts =
        ARENA_ARRAY(caller->arena, struct dialect_text, json_count(tree) + 1);
    size_t count = 0;
    struct json_iter it = json_iter(tree);
    while (json_next(&it, NULL, &item))
        texts[count++] = (struct dialect_text){.value = json_get(item, S("text"))};
    bool is_changed;
    return guard_large_json(caller, tree, texts, count, parts, &is_changed, e);
}

static bool filter_history(const struct guard_caller *caller, struct run_request *request,
                           struct error *e)
{
    struct arena *arena = caller->arena;
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
    return guard_large_prompt(caller, &prompt, e);
}

bool run_guard_request(struct context *ctx, const struct model *model, struct run_request *request,
                       struct guard_tally *found, struct error *e)
{
    struct guard_caller caller = {ctx, ctx->arena, model->guard, found, GUARD_REQUEST};
    return !guard_is_on(model->guard, GUARD_REQUEST) ||
           (guard_large_texts(&caller, &request->content, 1, e) &&
            filter_content_parts(&caller, &request->parts, e) &&
            filter_history(&caller, request, e));
}

bool run_guard_results(struct context *ctx, const struct model *model,
                       const struct client_result **results, size_t count,
                       struct guard_tally *found, struct error *e)
{
    const struct guard_rules *rules = model ? model->guard : NULL;
    struct guard_caller caller = {ctx, ctx->arena, rules, found, GUARD_REQUEST};
    if (!guard_is_on(rules, GUARD_REQUEST))
        return true;
    struct client_result *copies = ARENA_ARRAY(ctx->arena, struct client_result, count);
    str *texts = ARENA_ARRAY(ctx->arena, str, count);
    for (size_t i = 0; i < count; i++)
        texts[i] = (*results)[i].content;
    if (!guard_large_texts(&caller, texts, count, e))
        return false;
    for (size_t i = 0; i < count; i++) {
        copies[i] = (*results)[i];
        copies[i].content = texts[i];
    }
    *results = copies;
    return true;
}

void run_guard_audit(struct run *run, struct guard_tally *found)
{
    content_audit_post(run->o,
                       &(struct content_audit){
                           .principal = &run->principal,
                           .model = run->model ? run->model->name : STR_NONE,
                           .run_id = run->run_id,
                           .session_id = run->session_id,
                       },
                       found);
}

bool run_guard_output(struct run *run, struct context *ctx, str *output, struct error *e)
{
    struct guard_tally found = {0};
    struct guard_caller caller = {ctx, run->turn, run->model ? run->model->guard : NULL, &found,
                                  GUARD_REQUEST};
    bool ok = guard_large_json_text(&caller, output, e);
    run_guard_audit(run, &found);
    return ok;
}

void run_guard_content(struct run *run, str *content, bool *is_error)
{
    struct guard_tally found = {0};
    struct error failure = {0};
    struct guard_caller caller = {&run->shield, run->turn, run->model ? run->model->guard : NULL,
                                  &found, GUARD_REQUEST};
    bool ok = guard_large_texts(&caller, content, 1, &failure);
    run_guard_audit(run, &found);
    if (ok)
        return;
    *content = run_prompt_error_content(run->turn, &failure);
    *is_error = true;
}
