#include "orchestrator/replay/run_case.h"
#include "agent/tool/schema.h"
#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/replay/run_diff.h"

/* ---- making one ---- */

static str question_of(const struct run_recording *r)
{
    uuid id;
    size_t at = recording_find(r, 0, EVENT_RUN_STARTED);
    const struct record *row = NULL;
    if (at < r->solid_count &&
        uuid_parse(json_str_or(r->solid[at].data, S("message_id"), STR_NONE), &id))
        row = recording_row(&r->messages, id);
    return row ? record_text(row, MESSAGES_CONTENT) : STR_NONE;
}

static bool has_denied_call(const struct run_recording *r)
{
    for (size_t i = 0; i < r->tool_calls.count; i++) {
        const struct record *row = &r->tool_calls.items[i];
        if (uuid_equal(record_uuid(row, TOOL_CALLS_RUN_ID), r->run_id) &&
            str_equal(record_text(row, TOOL_CALLS_STATUS), S("denied")))
            return true;
    }
    return false;
}

static cost cost_of(const struct run_recording *r)
{
    cost spent = {0}, used;
    for (size_t i = 0; i < r->solid_count; i++)
        if (r->solid[i].type == EVENT_BUDGET_SETTLED &&
            cost_read_json(json_get(r->solid[i].data, S("amount")), &used))
            spent = cost_add(spent, used);
    return spent;
}

static void write_expectations(struct json_writer *w, const struct run_recording *r)
{
    struct run_step *steps;
    size_t count = run_steps(r, &steps);
    json_key(w, S("expect"));
    json_object_begin(w);
    json_put_str(w, S("status"), record_text(&r->run, AGENT_RUNS_STATUS));
    json_key(w, S("answer"));
    json_object_begin(w);
    json_put_str(w, S("equals"), run_answer_of(r));
    json_object_end(w);
    json_key(w, S("tool_calls"));
    json_array_begin(w);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < steps[i].call_count; k++) {
            json_object_begin(w);
            json_put_str(w, S("name"), steps[i].calls[k].name);
            if (!str_is_empty(steps[i].calls[k].arguments))
                json_put_raw(w, S("arguments"), steps[i].calls[k].arguments);
            json_object_end(w);
        }
    json_array_end(w);
    json_put_bool(w, S("no_denied_call"), !has_denied_call(r));
    cost spent = cost_of(r);
    json_put_i64_str(w, S("cost_nanousd_max"), spent.cost_nanousd);
    json_put_i64(w, S("tokens_max"), spent.tokens);
    json_object_end(w);
}

bool run_case_write(struct arena *arena, str export_text, str name, str *out, struct error *e)
{
    struct run_recording *r = ARENA_NEW(arena, struct run_recording);
    struct strbuf text;
    struct json_writer w;
    if (!run_recording_read(arena, export_text, r, e))
        return false;
    strbuf_init(&text, arena, RUN_EXPORT_BYTES_MAX + (1u << 20));
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("format"), S("nexus.run_test"));
    json_put_i64(&w, S("version"), RUN_CASE_VERSION);
    json_put_str(&w, S("name"), name);
    json_put_str(&w, S("question"), question_of(r));
    write_expectations(&w, r);
    json_put_raw(&w, S("recording"), export_text);
    json_object_end(&w);
    *out = strbuf_str(&text);
    return !strbuf_is_over(&text) || error_set(e, REASON_TOO_LARGE, "the test case is too large");
}

/* ---- checking ---- */

static void fail(struct arena *arena, struct run_case_failures *out, const char *format, ...)
    format_like(3, 4);

static void fail(struct arena *arena, struct run_case_failures *out, const char *format, ...)
{
    struct strbuf text;
    va_list arguments;
    if (out->count == RUN_CASE_FAILURES_MAX)
        return;
    strbuf_init(&text, arena, 16384);
    va_start(arguments, format);
    strbuf_vprintf(&text, format, arguments);
    va_end(arguments);
    out->items[out->count++] = strbuf_str(&text);
}

static void note(struct run_case_failures *out, str text)
{
    if (out->note_count < ARRAY_COUNT(out->notes))
        out->notes[out->note_count++] = text;
}

static void check_schema(struct arena *arena, const struct json *schema, str answer,
                         struct run_case_failures *out)
{
    struct error why = {0};
    const struct json *tree;
    if (!json_parse(arena, answer, (struct json_limits){0}, &tree, &why))
        fail(arena, out, "the answer is no JSON: %s", why.message);
    else if (!schema_check_here(json_print(arena, schema), answer, "the answer", REASON_SCHEMA,
                                &why))
        fail(arena, out, "%s", why.message);
}

static void check_answer(struct arena *arena, const struct json *expect, str answer,
                         enum run_case_mode mode, struct run_case_failures *out)
{
    const struct json *wanted = json_get(expect, S("answer")), *item;
    struct json_iter it = json_iter(json_get(wanted, S("contains")));
    str text;
    if (json_get(wanted, S("schema")))
        check_schema(arena, json_get(wanted, S("schema")), answer, out);
    if (json_get(wanted, S("equals")) && mode == RUN_CASE_LIVE)
        note(out, S("the words of the answer (give `contains` or `schema`)"));
    else if (json_get(wanted, S("equals")) && json_to_str(json_get(wanted, S("equals")), &text) &&
             !str_equal(text, answer))
        fail(arena, out, "the answer is \"" STR_FMT "\", expected \"" STR_FMT "\"",
             STR_ARG(str_cut_utf8(answer, 500)), STR_ARG(str_cut_utf8(text, 500)));
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &text) && str_find(answer, text) == STR_NOT_FOUND)
            fail(arena, out, "the answer does not contain \"" STR_FMT "\"",
                 STR_ARG(str_cut_utf8(text, 500)));
}

/* As one list, whatever the steps: a model may ask for two at once or one after the other. */
static size_t all_calls(const struct run_recording *r, struct run_step_call **out)
{
    struct run_step *steps;
    size_t step_count = run_steps(r, &steps), count = 0, total = 0;
    for (size_t i = 0; i < step_count; i++)
        total += steps[i].call_count;
    *out = ARENA_ARRAY(r->arena, struct run_step_call, total + 1);
    for (size_t i = 0; i < step_count; i++)
        for (size_t k = 0; k < steps[i].call_count; k++)
            (*out)[count++] = steps[i].calls[k];
    return count;
}

static bool are_same_arguments(struct arena *arena, const struct json *wanted, str got)
{
    const struct json *tree;
    size_t steps = 100000;
    struct error unreadable = {0};
    return !wanted || (json_parse(arena, got, (struct json_limits){0}, &tree, &unreadable) &&
                       json_equal(wanted, tree, &steps));
}

static void check_calls(struct arena *arena, const struct json *expect,
                        const struct run_recording *r, enum run_case_mode mode,
                        struct run_case_failures *out)
{
    const struct json *wanted = json_get(expect, S("tool_calls")), *item;
    struct json_iter it = json_iter(wanted);
    struct run_step_call *calls;
    size_t count = all_calls(r, &calls), at = 0;
    if (!wanted)
        return;
    if (mode == RUN_CASE_LIVE && json_count(wanted) > 0)
        note(out, S("the arguments of tool calls"));
    for (; json_next(&it, NULL, &item); at++) {
        str name = json_str_or(item, S("name"), STR_NONE);
        if (at >= count)
            fail(arena, out, "tool call %zu is missing: " STR_FMT, at + 1, STR_ARG(name));
        else if (!str_equal(calls[at].name, name))
            fail(arena, out, "tool call %zu is " STR_FMT ", expected " STR_FMT, at + 1,
                 STR_ARG(calls[at].name), STR_ARG(name));
        else if (mode == RUN_CASE_RECORDED &&
                 !are_same_arguments(arena, json_get(item, S("arguments")), calls[at].arguments))
            fail(arena, out, "tool call %zu (" STR_FMT ") has the arguments " STR_FMT, at + 1,
                 STR_ARG(name), STR_ARG(str_cut_utf8(calls[at].arguments, 500)));
    }
    for (; at < count; at++)
        fail(arena, out, "tool call %zu was not expected: " STR_FMT, at + 1,
             STR_ARG(calls[at].name));
}

static int64_t with_slack(int64_t most, enum run_case_mode mode)
{
    return mode == RUN_CASE_LIVE ? most + most / 100 * RUN_CASE_SLACK_PERCENT +
                                       most % 100 * RUN_CASE_SLACK_PERCENT / 100
                                 : most;
}

static void check_cost(struct arena *arena, const struct json *expect,
                       const struct run_recording *r, enum run_case_mode mode,
                       struct run_case_failures *out)
{
    cost spent = cost_of(r);
    int64_t most;
    const struct json *money = json_get(expect, S("cost_nanousd_max"));
    str text;
    bool has_most = json_to_str(money, &text) ? str_to_i64(text, &most) : json_to_i64(money, &most);
    if (has_most && spent.cost_nanousd > with_slack(most, mode))
        fail(arena, out, "it cost %lld nano-USD, expected at most %lld",
             (long long) spent.cost_nanousd, (long long) with_slack(most, mode));
    if (json_to_i64(json_get(expect, S("tokens_max")), &most) &&
        spent.tokens > with_slack(most, mode))
        fail(arena, out, "it used %lld tokens, expected at most %lld", (long long) spent.tokens,
             (long long) with_slack(most, mode));
    if (mode == RUN_CASE_LIVE && (has_most || json_get(expect, S("tokens_max"))))
        note(out, S("cost and tokens up to half over their ceilings"));
}

static bool read_case(struct arena *arena, str case_text, const struct json **out, struct error *e)
{
    struct json_limits limits = {.bytes_max = RUN_EXPORT_BYTES_MAX + (2u << 20)};
    if (!json_parse(arena, case_text, limits, out, e))
        return error_wrap(e, "the test case");
    return (str_equal(json_str_or(*out, S("format"), STR_NONE), S("nexus.run_test")) &&
            json_i64_or(*out, S("version"), 0) == RUN_CASE_VERSION) ||
           error_set(e, REASON_INVALID,
                     "this is no test case; make one with `nexus runs export RUN --as-test "
                     "FILE`");
}

bool run_case_check(struct arena *arena, str case_text, const struct run_recording *run,
                    enum run_case_mode mode, struct run_case_failures *out, struct error *e)
{
    const struct json *document;
    out->count = out->note_count = 0;
    if (!read_case(arena, case_text, &document, e))
        return false;
    const struct json *expect = json_get(document, S("expect"));
    str status = json_str_or(expect, S("status"), STR_NONE),
        is = record_text(&run->run, AGENT_RUNS_STATUS);
    if (!str_is_empty(status) && !str_equal(status, is))
        fail(arena, out, "the run is " STR_FMT ", expected " STR_FMT, STR_ARG(is), STR_ARG(status));
    check_answer(arena, expect, run_answer_of(run), mode, out);
    check_calls(arena, expect, run, mode, out);
    if (json_bool_or(expect, S("no_denied_call"), false) && has_denied_call(run))
        fail(arena, out, "a tool call was denied");
    check_cost(arena, expect, run, mode, out);
    return true;
}

/* ---- asking it again ---- */

static const char *why_not_live(const struct run_recording *r)
{
    uuid question = UUID_NONE;
    size_t at = recording_find(r, 0, EVENT_RUN_STARTED);
    if (record_has(&r->run, AGENT_RUNS_WORKFLOW))
        return "it is an instance of a workflow, which no model answers: test the runs that it "
               "started";
    if (r->files.count > 0)
        return "its session had files, which a new one has not";
    if (at == r->solid_count || json_count(json_get(r->solid[at].data, S("client_tools"))) > 0)
        return "its caller brought tools of its own";
    (void) uuid_parse(json_str_or(r->solid[at].data, S("message_id"), STR_NONE), &question);
    for (size_t i = 0; i < r->messages.count; i++)
        if (uuid_compare(record_uuid(&r->messages.items[i], MESSAGES_ID), question) < 0)
            return "it went on from an earlier conversation, which a new session has not";
    return NULL;
}

bool run_case_question(struct arena *arena, str case_text, struct run_case_question *out,
                       struct error *e)
{
    const struct json *document;
    struct run_recording *r = ARENA_NEW(arena, struct run_recording);
    if (!read_case(arena, case_text, &document, e) || !run_recording_read(arena, case_text, r, e))
        return false;
    const char *why = why_not_live(r);
    if (why)
        return error_set(e, REASON_UNSUPPORTED, "it cannot be played live: %s", why);
    *out = (struct run_case_question){
        .agent = record_text(&r->run, AGENT_RUNS_AGENT),
        .content = json_str_or(document, S("question"), STR_NONE),
    };
    return !str_is_empty(out->content) ||
           error_set(e, REASON_INVALID, "the test case has no question");
}
