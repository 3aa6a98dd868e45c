/*
 * Loops: a run that asks for the same thing again and again.
 *
 * Two answers of a model are the same when they ask for the same calls with the same arguments (in canonical form), or say the same words.
 * Counted is what came in a row up to now, from the conversation itself, so it needs no state of its own and a resume counts the same.
 *
 *      limits.same_action_warn in a row   the model is told so, run.looping "warned"
 *      limits.same_action_max             the run ends with what it has, run.looping "stopped"; its answer is its last words
 */
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/run_internal.h"

struct repetition {
    int count;
    str what; /* "tool lookup", "the answer" */
};

/* ---- counting ---- */

static str canonical_arguments(struct arena *arena, str arguments)
{
    const struct json *tree;
    struct error e = {0};
    if (!json_parse(arena, arguments, (struct json_limits){0}, &tree, &e))
        return arguments;
    return json_canonical(arena, tree);
}

static bool same_part(struct arena *arena, const struct part *a, const struct part *b)
{
    return str_equal(a->name, b->name) && (str_equal(a->arguments, b->arguments) ||
                                           str_equal(canonical_arguments(arena, a->arguments),
                                                     canonical_arguments(arena, b->arguments)));
}

static const struct part *next_call(const struct prompt_message *message, size_t *position)
{
    while (*position < message->part_count) {
        const struct part *part = &message->parts[(*position)++];
        if (part->kind == PART_TOOL_CALL)
            return part;
    }
    return NULL;
}

static bool same_calls(struct arena *arena, const struct prompt_message *a,
                       const struct prompt_message *b)
{
    size_t in_a = 0, in_b = 0, count = 0;
    for (;; count++) {
        const struct part *of_a = next_call(a, &in_a), *of_b = next_call(b, &in_b);
        if (!of_a || !of_b)
            return !of_a && !of_b && count > 0;
        if (!same_part(arena, of_a, of_b))
            return false;
    }
}

static bool same_words(struct arena *arena, const struct prompt_message *a,
                       const struct prompt_message *b)
{
    str words = prompt_message_text(arena, a);
    return words.len > 0 && str_equal(words, prompt_message_text(arena, b));
}

static const struct prompt_message *answer_before(const struct run *run, size_t *position)
{
    while (*position > 0)
        if (run->messages[--*position].role == ROLE_ASSISTANT)
            return &run->messages[*position];
    return NULL;
}

typedef bool same_fn(struct arena *arena, const struct prompt_message *a,
                     const struct prompt_message *b);

/* Of this run's own answers. */
static int count_same(const struct run *run, same_fn *same, int at_most)
{
    size_t position = run->message_count;
    const struct prompt_message *newest = answer_before(run, &position), *older;
    int count = newest ? 1 : 0;
    arena_mark mark = arena_save(run->turn);
    while (count > 0 && count < at_most && count < run->state.step &&
           (older = answer_before(run, &position)) && same(run->turn, newest, older))
        count++;
    arena_rewind(run->turn, mark);
    return count;
}

static struct repetition repetition_of(struct run *run, int at_most)
{
    size_t position = run->message_count, at = 0;
    const struct prompt_message *newest = answer_before(run, &position);
    struct repetition calls = {count_same(run, same_calls, at_most), S("the calls")},
                      words = {count_same(run, same_words, at_most), S("the answer")};
    const struct part *call = newest ? next_call(newest, &at) : NULL;
    if (call)
        calls.what = str_printf(run->turn, "tool " STR_FMT, STR_ARG(call->name));
    return words.count > calls.count ? words : calls;
}

/* ---- acting ---- */

static struct json_writer *journal_looping(struct run *run, str what, int count, const char *action)
{
    struct json_writer *w = journal_event(&run->journal, EVENT_RUN_LOOPING);
    json_put_str(w, S("what"), what);
    json_put_i64(w, S("count"), count);
    json_put_str(w, S("action"), str_from_cstr(action));
    return w;
}

static str last_words_of(const struct run *run)
{
    size_t position = run->message_count;
    const struct prompt_message *answer;
    for (int step = run->state.step; step > 0 && (answer = answer_before(run, &position)); step--) {
        str words = prompt_message_text(run->turn, answer);
        if (words.len > 0)
            return words;
    }
    return STR_NONE;
}

/* Its answer: what it said last, and why it ends here. */
static bool stop(struct run *run, const struct repetition *found, struct error *e)
{
    str why = str_printf(run->turn, STR_FMT " was repeated %d times in a row", STR_ARG(found->what),
                         found->count);
    str words = last_words_of(run);
    str text = str_printf(run->turn, STR_FMT "%s(Stopped: " STR_FMT ".)", STR_ARG(words),
                          str_is_empty(words) ? "" : "\n\n", STR_ARG(why));
    uuid message_id = run_new_id(run, RUN_ID_STOPPED, 0, STR_NONE);
    struct json_writer *w = journal_looping(run, why, found->count, "stopped");
    json_put_str(w, S("message_id"), uuid_str(run->turn, message_id));
    struct record *row = journal_row(&run->journal, WRITE_INSERT, TABLE_MESSAGES);
    run_message_row(row, run, message_id, ROLE_ASSISTANT, text, 0, STR_NONE);
    record_set_text(row, MESSAGES_METADATA, run_label_metadata(run->turn, run_label_context(run)));
    metrics_add(run->o->parts.metrics, METRIC_RUN_LOOPS, 1, (str[]){S("stopped")}, 1);
    return run_flush(run, "loop_stopped", e);
}

static void warn(struct run *run, const struct repetition *found, int warn_at,
                 struct prompt *prompt)
{
    size_t count = prompt->message_count;
    struct prompt_message *messages = ARENA_ARRAY(run->turn, struct prompt_message, count + 1);
    struct part *part = ARENA_NEW(run->turn, struct part);
    memcpy(messages, prompt->messages, count * sizeof *messages);
    *part = (struct part){.kind = PART_TEXT,
                          .text = str_printf(run->turn,
                                             "Note: " STR_FMT
                                             " was repeated %d times in a row without any change. "
                                             "Do something else, or answer with what you have.",
                                             STR_ARG(found->what), found->count)};
    messages[count] = (struct prompt_message){.role = ROLE_USER, .parts = part, .part_count = 1};
    prompt->messages = messages;
    prompt->message_count = count + 1;
    if (found->count != warn_at) /* the journal has it */
        return;
    journal_looping(run, found->what, found->count, "warned");
    journal_close_event(&run->journal);
    metrics_add(run->o->parts.metrics, METRIC_RUN_LOOPS, 1, (str[]){S("warned")}, 1);
}

/* 0: never. */
static int limit_of(int64_t said, int otherwise)
{
    return said == 0 ? otherwise : said < 0 ? 0 : (int) said;
}

bool run_loop_check(struct run *run, struct prompt *prompt, bool *is_stopped, struct error *e)
{
    const struct agent_limits *limits = &run->agent->limits;
    int warn_at = limit_of(limits->same_action_warn, RUN_SAME_ACTION_WARN),
        stop_at = limit_of(limits->same_action_max, RUN_SAME_ACTION_MAX);
    *is_stopped = false;
    if (run->aside || run->is_last_call || (warn_at == 0 && stop_at == 0) || run->state.step < 2)
        return true;
    struct repetition found = repetition_of(run, stop_at > warn_at ? stop_at : warn_at);
    if (stop_at > 0 && found.count >= stop_at) {
        *is_stopped = true;
        return stop(run, &found, e);
    }
    if (warn_at > 0 && found.count >= warn_at)
        warn(run, &found, warn_at, prompt);
    return true;
}
