#include "llm/guard_large.h"
#include "base/arena.h"
#include "base/limits.h"
#include "runtime/loop.h"

/* One job: a list of texts, or a document with texts in it. */
struct guard_job {
    const struct guard_caller *caller;
    struct arena *arena; /* the caller's, or the job's own */
    struct guard_tally tally;
    struct guard_text { /* of a list */
        str *text;
        str filtered;
        bool is_json;
    } * list;
    const struct json *tree; /* NULL: a list */
    const struct dialect_text *texts;
    size_t count, bytes;
    str out;
    bool is_changed, is_ok;
    struct error failure;
};

static bool filter_list(struct guard_job *job, const struct guard_sink *sink)
{
    const struct guard_caller *c = job->caller;
    for (size_t i = 0; i < job->count; i++) {
        struct guard_text *item = &job->list[i];
        bool ok = item->is_json ? guard_json_text(job->arena, c->rules, sink, c->direction,
                                                  *item->text, &item->filtered, &job->failure)
                                : guard_text(job->arena, c->rules, sink, c->direction, *item->text,
                                             &item->filtered, &job->failure);
        if (!ok)
            return false;
    }
    return true;
}

static void run_job(void *argument)
{
    struct guard_job *job = argument;
    const struct guard_caller *c = job->caller;
    struct guard_sink sink = guard_tally_sink(&job->tally);
    job->is_ok = job->tree
                     ? guard_json(job->arena, c->rules, &sink, c->direction, job->tree, job->texts,
                                  job->count, &job->out, &job->is_changed, &job->failure)
                     : filter_list(job, &sink);
}

/* What the job made goes to the caller's arena. */
static void keep_results(struct guard_job *job, bool is_own)
{
    struct arena *arena = job->caller->arena;
    if (job->is_changed && is_own)
        job->out = str_copy(arena, job->out);
    for (size_t i = 0; !job->tree && i < job->count; i++) {
        struct guard_text *item = &job->list[i];
        if (item->filtered.ptr == item->text->ptr)
            continue;
        *item->text = is_own ? str_copy(arena, item->filtered) : item->filtered;
    }
}

static bool run(struct guard_job *job, struct error *e)
{
    const struct guard_caller *c = job->caller;
    bool is_large = job->bytes > GUARD_LOOP_BYTES_MAX, has_run = true;
    OWNED(arena) own = is_large ? arena_create(SIZE_MAX) : NULL;
    job->arena = is_large ? own : c->arena;
    if (is_large)
        has_run = blocking_call(c->ctx, run_job, job, e);
    else
        run_job(job);
    if (c->tally)
        guard_tally_move(c->tally, &job->tally);
    guard_tally_deinit(&job->tally);
    if (!has_run)
        return false;
    if (!job->is_ok)
        return error_copy(e, &job->failure);
    keep_results(job, is_large);
    return true;
}

/* ---- lists ---- */

static struct guard_job *list_of(const struct guard_caller *caller, size_t count)
{
    struct guard_job *job = ARENA_NEW(caller->arena, struct guard_job);
    job->caller = caller;
    job->list = ARENA_ARRAY(caller->arena, struct guard_text, count + 1);
    return job;
}

static void add_text(struct guard_job *job, str *text, bool is_json)
{
    job->bytes += text->len;
    job->list[job->count++] = (struct guard_text){.text = text, .is_json = is_json};
}

static void add_part(struct guard_job *job, struct part *part)
{
    switch (part->kind) {
    case PART_TEXT:
    case PART_REASONING:
    case PART_TOOL_RESULT: add_text(job, &part->text, false); break;
    case PART_TOOL_CALL: add_text(job, &part->arguments, true); break;
    case PART_IMAGE: break; /* a URL or bytes */
    }
}

bool guard_large_prompt(const struct guard_caller *caller, struct prompt *prompt, struct error *e)
{
    size_t count = 0;
    if (!guard_is_on(caller->rules, caller->direction))
        return true;
    for (size_t i = 0; i < prompt->message_count; i++)
        count += prompt->messages[i].part_count;
    struct guard_job *job = list_of(caller, count);
    for (size_t i = 0; i < prompt->message_count; i++)
        for (size_t j = 0; j < prompt->messages[i].part_count; j++)
            add_part(job, &prompt->messages[i].parts[j]);
    return run(job, e);
}

bool guard_large_reply(const struct guard_caller *caller, struct reply *reply, struct error *e)
{
    if (!guard_is_on(caller->rules, caller->direction))
        return true;
    struct guard_job *job = list_of(caller, reply->part_count);
    for (size_t i = 0; i < reply->part_count; i++)
        add_part(job, &reply->parts[i]);
    return run(job, e);
}

bool guard_large_texts(const struct guard_caller *caller, str *texts, size_t count, struct error *e)
{
    if (!guard_is_on(caller->rules, caller->direction))
        return true;
    struct guard_job *job = list_of(caller, count);
    for (size_t i = 0; i < count; i++)
        add_text(job, &texts[i], false);
    return run(job, e);
}

bool guard_large_json_text(const struct guard_caller *caller, str *json, struct error *e)
{
    if (!guard_is_on(caller->rules, caller->direction))
        return true;
    struct guard_job *job = list_of(caller, 1);
    add_text(job, json, true);
    return run(job, e);
}

/* ---- documents ---- */

bool guard_large_json(const struct guard_caller *caller, const struct json *tree,
                      const struct dialect_text *texts, size_t count, str *out, bool *changed,
                      struct error *e)
{
    *changed = false;
    if (!guard_is_on(caller->rules, caller->direction))
        return true;
    struct guard_job *job = list_of(caller, 0);
    job->tree = tree;
    job->texts = texts;
    job->count = count;
    for (size_t i = 0; i < count; i++) {
        str text;
        if (json_to_str(texts[i].value, &text))
            job->bytes += text.len;
    }
    if (!run(job, e))
        return false;
    *changed = job->is_changed;
    if (job->is_changed)
        *out = job->out;
    return true;
}
