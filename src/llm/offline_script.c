/*
 * Scripts for tests: a user message with a line  [[offline {"script": [step, ...]}]]  is answered
 * by its steps.
 *
 *   {"text": "..."}                                     says it
 *   {"tool_calls": [{"name": "...", "arguments": {}}]}  calls; arguments may be a string, sent as
 *   it is
 *   {"tokens": n}                                       n tokens of filler
 *   {"error": "rate_limited", "retry_after_ms": 5}      fails with that class, whenever its turn is
 *   asked for
 *   "sleep_ms": n                                       in any step, or as a step of its own before
 *   another
 *
 * Which step?  The number of assistant messages behind the user's message; steps that only sleep do
 * not count.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/limits.h"
#include "llm/offline_internal.h"

static bool find_script(const struct offline_turn *turn, size_t user, const struct json **script)
{
    static const char marker[] = "[[offline ";
    const struct json *tree;
    struct error ignored = {0};
    str text = prompt_message_text(turn->arena, &turn->prompt->messages[user]);
    size_t begin = str_find(text, S("[[offline "));
    if (begin == STR_NOT_FOUND)
        return false;
    text = str_from(text, begin + sizeof marker - 1);
    size_t end = str_find_char(text, '\n');
    str line = str_trim(str_slice(text, 0, end == STR_NOT_FOUND ? text.len : end));
    if (!str_ends_with(line, S("]]")))
        return false;
    struct json_limits limits = {.bytes_max = OFFLINE_SCRIPT_BYTES_MAX};
    if (!json_parse(turn->arena, str_slice(line, 0, line.len - 2), limits, &tree, &ignored))
        return false;
    *script = json_get(tree, S("script"));
    return json_type(*script) == JSON_ARRAY && json_count(*script) <= OFFLINE_SCRIPT_STEPS_MAX;
}

static size_t count_turns(const struct prompt *prompt, size_t user)
{
    size_t turns = 0;
    for (size_t i = user + 1; i < prompt->message_count; i++)
        turns += prompt->messages[i].role == ROLE_ASSISTANT;
    return turns;
}

static void play_calls(struct offline_turn *turn, const struct json *calls)
{
    const struct json *item;
    struct json_iter it = json_iter(calls);
    while (json_next(&it, NULL, &item)) {
        const struct json *arguments = json_get(item, S("arguments"));
        str text;
        if (!json_to_str(arguments, &text))
            text = arguments ? json_print(turn->arena, arguments) : S("{}");
        offline_call(turn, json_str_or(item, S("name"), STR_NONE), text);
    }
}

static void play_filler(struct offline_turn *turn, int64_t tokens)
{
    turn->is_plain = true;
    for (int64_t i = 0; i < tokens && !strbuf_is_over(&turn->text); i++)
        strbuf_add(&turn->text, S("word")); /* four bytes: one token by the stand-in's own count */
}

static void play_error(struct offline_turn *turn, const struct json *step)
{
    enum error_reason reason;
    str name = json_str_or(step, S("error"), STR_NONE);
    if (str_equal(name, S("quota")))
        name = S("provider_quota");
    else if (str_equal(name, S("invalid")))
        name = S("provider_invalid");
    else if (str_equal(name, S("timeout")))
        name = S("provider_timeout");
    if (!error_reason_find(name, &reason))
        reason = REASON_PROVIDER_PROTOCOL;
    turn->has_error = true;
    error_set(&turn->error, reason, "the offline stand-in was told to fail: " STR_FMT,
              STR_ARG(name));
    turn->error.retry_after_ms = json_i64_or(step, S("retry_after_ms"), 0);
}

static bool only_sleeps(const struct json *step)
{
    return json_count(step) == 1 && json_get(step, S("sleep_ms"));
}

static void add_sleep(struct offline_turn *turn, const struct json *step)
{
    int64_t ms = json_i64_or(step, S("sleep_ms"), 0);
    turn->sleep_ms += ms < 0 ? 0 : ms;
    if (turn->sleep_ms > OFFLINE_SLEEP_MS_MAX)
        turn->sleep_ms = OFFLINE_SLEEP_MS_MAX;
}

static void play_step(struct offline_turn *turn, const struct json *step)
{
    str text = json_str_or(step, S("text"), STR_NONE);
    add_sleep(turn, step);
    if (json_get(step, S("error"))) {
        play_error(turn, step);
        return;
    }
    strbuf_add(&turn->text, text);
    play_filler(turn, json_i64_or(step, S("tokens"), 0));
    turn->is_plain = json_i64_or(step, S("tokens"), 0) > 0;
    play_calls(turn, json_get(step, S("tool_calls")));
}

bool offline_play_script(struct offline_turn *turn)
{
    size_t user = offline_last_user(turn->prompt);
    const struct json *script, *step;
    if (user == turn->prompt->message_count || !find_script(turn, user, &script))
        return false;
    size_t position = count_turns(turn->prompt, user), at = 0;
    struct json_iter it = json_iter(script);
    while (json_next(&it, NULL, &step)) {
        if (only_sleeps(step)) {
            if (at == position)
                add_sleep(turn, step);
            continue;
        }
        if (at++ == position) {
            play_step(turn, step);
            return true;
        }
    }
    offline_say(turn, "the script has ended.");
    return true;
}
