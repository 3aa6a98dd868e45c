/* Agents that are workflows: asked in a session, waited for in its inbox, called as tools, handed the run to, crashed. */
#include "orchestrator/workflow/workflow_testkit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"
#include "orchestrator/workflow/workflow_agent.h"

static const char definition[] = "name: w\nversion: 1.0.0\n"
                                 "input: {type: object, required: [message], properties: {message: "
                                 "{type: string, minLength: 3}}}\n"
                                 "output: {answer: '${steps.say.output.text}', found: "
                                 "'${steps.look.output.ok}'}\n"
                                 "steps:\n"
                                 "  - {id: look, tool: lookup, input: {q: '${input.message}'}}\n"
                                 "  - {id: say, model: {prompt: 'plan: ${input.message}'}}\n";

/* ---- the cast ---- */

static str all_tools = S_INIT("*"), one_tool = S_INIT("notify");
static struct agent_link links[] = {
    {.name = S_INIT("planner")},
    {.name = S_INIT("closer"), .is_handoff = true},
};
static struct agent_definition cast[] = {
    {.name = S_INIT("assistant"),
     .instructions = S_INIT("You lead."),
     .tools = &all_tools,
     .tool_count = 1,
     .agents = links,
     .agent_count = 2},
    {.name = S_INIT("planner"), .description = S_INIT("It plans."), .workflow = S_INIT("w@^1")},
    {.name = S_INIT("closer"), .description = S_INIT("It ends."), .workflow = S_INIT("w")},
    {.name = S_INIT("narrow"), .workflow = S_INIT("w"), .tools = &one_tool, .tool_count = 1},
    {.name = S_INIT("lost"), .workflow = S_INIT("nowhere")},
};

static char assistant[] = "assistant", planner[] = "planner", narrow[] = "narrow";

static void put_definition(struct context *ctx, void *unused)
{
    (void) unused;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    play_put(ctx, definition);
}

static void with_cast(struct testkit *kit)
{
    for (size_t i = 0; i < ARRAY_COUNT(links); i++)
        links[i].budget = COST_LIMITLESS;
    for (size_t i = 0; i < ARRAY_COUNT(cast); i++) {
        cast[i].steps_max = 8;
        cast[i].run_timeout_ms = 600000;
    }
    kit->agents = cast;
    kit->agent_count = ARRAY_COUNT(cast);
    play_set(kit, definition, NULL);
    testkit_do(kit, put_definition, NULL);
}

static bool ask(struct context *ctx, str agent, struct run_request *request, struct error *e)
{
    struct session_request session = {.agent = agent, .budget = COST_LIMITLESS};
    struct record row;
    if (!session_create(scene.kit->o, ctx, &scene.user, &session, &row, e))
        return false;
    scene.session_id = request->session_id = record_uuid(&row, SESSIONS_ID);
    return run_start(scene.kit->o, ctx, &scene.user, request, &scene.run_id, e);
}

static void ask_named(struct context *ctx, void *agent)
{
    struct run_request request = {.content = S("go to the moon")};
    struct error e = {0};
    if (!ask(ctx, str_from_cstr(agent), &request, &e))
        fail_msg("%s", e.message);
}

static str answer_of(struct context *ctx, uuid run_id)
{
    struct record key = record_of(TABLE_MESSAGES), row;
    struct error e = {0};
    uuid id;
    const struct json *completed = testkit_event(scene.kit, ctx, run_id, EVENT_RUN_COMPLETED);
    assert_true(uuid_parse(json_str_or(completed, S("message_id"), STR_NONE), &id));
    record_set_uuid(&key, MESSAGES_ID, id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &row, &e));
    return record_text(&row, MESSAGES_CONTENT);
}

static uuid only_child(struct context *ctx, const char *agent)
{
    struct query query = query_of(TABLE_AGENT_RUNS);
    struct records rows;
    struct error e = {0};
    query_where_uuid(&query, AGENT_RUNS_PARENT_RUN_ID, scene.run_id);
    query_where_text(&query, AGENT_RUNS_AGENT, str_from_cstr(agent));
    assert_true(store_list(scene.kit->store, ctx, scene.kit->tenant_id, &query, &rows, &e));
    assert_int_equal(rows.count, 1);
    return record_uuid(&rows.items[0], AGENT_RUNS_ID);
}

/* ---- asked ---- */

static void check_asked(struct context *ctx, void *unused)
{
    (void) unused;
    struct record row = testkit_run(scene.kit, ctx, scene.run_id);
    const struct json *started = event(ctx, EVENT_RUN_STARTED);
    assert_at_rest(ctx, "completed");
    assert_str(answer_of(ctx, scene.run_id), "first the rocket");
    assert_str(record_text(&row, AGENT_RUNS_AGENT), "planner");
    assert_str(record_text(&row, AGENT_RUNS_WORKFLOW), "w@1.0.0");
    assert_str(json_str_or(started, S("agent"), STR_NONE), "planner");
    assert_true(json_bool_or(json_get(started, S("workflow")), S("takes_message"), false));
    assert_str(scene.kit->tool_input, "{\"q\":\"go to the moon\"}");
    assert_str(scene.kit->prompt_last, "plan: go to the moon");
    assert_str(json_str_or(event(ctx, EVENT_MODEL_DELTA), S("text"), STR_NONE), "first the rocket");
}

static void test_a_message_to_such_an_agent_starts_its_workflow(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit, (struct fake_reply){.text = "first the rocket"});
    testkit_do(kit, ask_named, planner);
    testkit_do(kit, check_asked, NULL);
}

/* ---- waited for in the inbox ---- */

static void send_two(struct context *ctx, void *unused)
{
    struct run_request second = {.content = S("and to mars"), .on_busy = DOUBLE_TEXT_ENQUEUE};
    struct message_outcome outcome;
    struct error e = {0};
    (void) unused;
    ask_named(ctx, planner);
    second.session_id = scene.session_id;
    assert_true(message_send(scene.kit->o, ctx, &scene.user, &second, &outcome, &e));
    assert_int_equal(outcome.fate, MESSAGE_WAITS);
    scene.run_id = outcome.run_id;
}

static void check_second(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_str(answer_of(ctx, scene.run_id), "then another");
    assert_str(scene.kit->prompt_last, "plan: and to mars");
}

static void test_a_message_that_waited_starts_the_workflow_when_its_turn_comes(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit, (struct fake_reply){.text = "first the rocket", .delay_ms = 500});
    testkit_reply(kit, (struct fake_reply){.text = "then another"});
    testkit_do(kit, send_two, NULL);
    testkit_do(kit, check_second, NULL);
}

/* ---- what was said before ---- */

static const char remembering[] =
    "name: w\nversion: 1.0.0\noutput: {answer: '${steps.say.output.text}', before: "
    "'${session.messages}', all: '${size(session.messages)}'}\n"
    "steps:\n"
    "  - {id: look, tool: lookup, input: {n: '${size(session.messages)}'}}\n"
    "  - {id: say, model: {prompt: 'say ${input.message}'}}\n";

static void put_remembering(struct context *ctx, void *unused)
{
    (void) unused;
    scene.user = testkit_principal(scene.kit, "ada", ROLE_LEVEL_USER);
    play_put(ctx, remembering);
}

static void with_memory(struct testkit *kit)
{
    for (size_t i = 0; i < ARRAY_COUNT(cast); i++) {
        cast[i].steps_max = 8;
        cast[i].run_timeout_ms = 600000;
    }
    kit->agents = cast;
    kit->agent_count = ARRAY_COUNT(cast);
    play_set(kit, remembering, NULL);
    testkit_do(kit, put_remembering, NULL);
}

static void send_more(struct context *ctx, void *text)
{
    struct run_request request = {.session_id = scene.session_id, .content = str_from_cstr(text)};
    struct error e = {0};
    if (!run_start(scene.kit->o, ctx, &scene.user, &request, &scene.run_id, &e))
        fail_msg("%s", e.message);
}

static char more[] = "and to mars";

#define FIRST_TURN                                                                                 \
    "[{\"role\":\"user\",\"content\":\"go to the moon\"},"                                         \
    "{\"role\":\"assistant\",\"content\":\"first the rocket\"}]"

static void check_none_before(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"all\":0,\"answer\":\"first the rocket\",\"before\":[]}");
    assert_str(scene.kit->tool_input, "{\"n\":0}");
}

static void check_first_before(struct context *ctx, void *unused)
{
    (void) unused;
    assert_output(ctx, "{\"all\":2,\"answer\":\"then another\",\"before\":" FIRST_TURN "}");
    assert_str(scene.kit->tool_input, "{\"n\":2}");
}

static void test_earlier_turns_of_the_session_are_there(struct testkit *kit)
{
    with_memory(kit);
    testkit_reply(kit, (struct fake_reply){.text = "first the rocket"});
    testkit_reply(kit, (struct fake_reply){.text = "then another"});
    testkit_do(kit, ask_named, planner);
    testkit_do(kit, check_none_before, NULL);
    testkit_do(kit, send_more, more);
    testkit_do(kit, check_first_before, NULL);
}

static void test_earlier_turns_are_the_same_after_a_crash(struct testkit *kit)
{
    with_memory(kit);
    testkit_reply(kit, (struct fake_reply){.text = "first the rocket"});
    testkit_do(kit, ask_named, planner);
    testkit_reply(kit, (struct fake_reply){.text = "lost", .delay_ms = 10000});
    testkit_begin(kit, send_more, more);
    testkit_run_ms(kit, 200);
    testkit_crash(kit);
    testkit_reply(kit, (struct fake_reply){.text = "then another"});
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_first_before, NULL);
}

static str output_text(struct context *ctx)
{
    struct record key = record_of(TABLE_MESSAGES), row;
    struct error e = {0};
    uuid id;
    assert_true(
        uuid_parse(json_str_or(event(ctx, EVENT_RUN_COMPLETED), S("message_id"), STR_NONE), &id));
    record_set_uuid(&key, MESSAGES_ID, id);
    assert_true(store_get(scene.kit->store, ctx, scene.kit->tenant_id, &key, &row, &e));
    return record_text(&row, MESSAGES_PARTS);
}

/* Of many the newest, from a turn's question on. */
static void check_bounded(struct context *ctx, void *unused)
{
    (void) unused;
    const struct json *parts, *before;
    struct error e = {0};
    assert_true(json_parse(ctx->arena, output_text(ctx), (struct json_limits){0}, &parts, &e));
    before = json_get(json_get(parts, S("output")), S("before"));
    assert_int_equal(json_count(before), WORKFLOW_SESSION_MESSAGES_MAX);
    assert_str(json_str_or(json_at(before, 0), S("role"), STR_NONE), "user");
    assert_str(json_str_or(json_at(before, json_count(before) - 1), S("role"), STR_NONE),
               "assistant");
}

static void test_of_many_turns_the_newest_are_there(struct testkit *kit)
{
    with_memory(kit);
    testkit_do(kit, ask_named, planner);
    for (int i = 0; i < WORKFLOW_SESSION_MESSAGES_MAX / 2 + 3; i++)
        testkit_do(kit, send_more, more);
    testkit_do(kit, check_bounded, NULL);
}

/* ---- called ---- */

static void check_called(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    uuid child = only_child(ctx, "planner");
    assert_str(answer_of(ctx, child), "first the rocket");
    assert_true(str_find(scene.kit->prompt_last_result, S("first the rocket")) != STR_NOT_FOUND);
    assert_str(answer_of(ctx, scene.run_id), "so be it");
}

static void test_such_an_agent_is_called_as_a_tool(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(
        kit, (struct fake_reply){.calls = {{"agent_planner", "{\"message\":\"go to the moon\"}"}},
                                 .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "first the rocket"});
    testkit_reply(kit, (struct fake_reply){.text = "so be it"});
    testkit_do(kit, ask_named, assistant);
    testkit_do(kit, check_called, NULL);
}

static void check_handed(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_str(answer_of(ctx, scene.run_id), "the end");
    assert_str(answer_of(ctx, only_child(ctx, "closer")), "the end");
}

static void test_a_run_is_handed_to_such_an_agent(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit, (struct fake_reply){
                           .calls = {{"handoff_closer", "{\"message\":\"bring it to an end\"}"}},
                           .call_count = 1});
    testkit_reply(kit, (struct fake_reply){.text = "the end"});
    testkit_do(kit, ask_named, assistant);
    testkit_do(kit, check_handed, NULL);
}

/* A model that says too little is told so: the input does not fit. */
static void check_short(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "completed");
    assert_true(str_find(scene.kit->prompt_last_result, S("input")) != STR_NOT_FOUND);
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 0);
}

static void test_what_does_not_fit_the_input_is_an_error_for_who_called(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit, (struct fake_reply){.calls = {{"agent_planner", "{\"message\":\"x\"}"}},
                                           .call_count = 1});
    testkit_do(kit, ask_named, assistant);
    testkit_do(kit, check_short, NULL);
}

/* ---- refused ---- */

static void check_refusals(struct context *ctx, void *unused)
{
    static const struct tool_spec own = {.name = S_INIT("mine"), .parameters = S_INIT("{}")};
    struct run_request requests[] = {
        {.content = S("go to the moon"), .client_tools = &own, .client_tool_count = 1},
        {.content = S("go to the moon"), .response_format = S("{\"type\":\"json_object\"}")},
        {.content = S("go to the moon"),
         .parts = S("[{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:,\"}}]")},
        {.content = S("no")},
    };
    static const enum error_reason reasons[] = {REASON_INVALID, REASON_INVALID, REASON_INVALID,
                                                REASON_SCHEMA};
    (void) unused;
    for (size_t i = 0; i < ARRAY_COUNT(requests); i++) {
        struct error e = {0};
        assert_false(ask(ctx, S("planner"), &requests[i], &e));
        assert_int_equal(e.reason, reasons[i]);
    }
    struct run_request request = {.content = S("go to the moon")};
    struct error e = {0};
    assert_false(ask(ctx, S("lost"), &request, &e));
    assert_int_equal(e.reason, REASON_NOT_FOUND);
}

static void test_what_such_an_agent_does_not_take_is_refused(struct testkit *kit)
{
    with_cast(kit);
    testkit_do(kit, check_refusals, NULL);
}

static void check_narrow(struct context *ctx, void *unused)
{
    (void) unused;
    assert_at_rest(ctx, "failed");
    assert_int_equal(testkit_tool(scene.kit, "lookup")->begun, 0);
    assert_holds(ctx, "lookup");
}

static void test_the_agents_tools_narrow_what_the_steps_may_call(struct testkit *kit)
{
    with_cast(kit);
    testkit_do(kit, ask_named, narrow);
    testkit_do(kit, check_narrow, NULL);
}

/* ---- the node dies ---- */

static void test_such_a_run_goes_on_after_a_crash(struct testkit *kit)
{
    with_cast(kit);
    testkit_reply(kit, (struct fake_reply){.text = "lost with the node", .delay_ms = 5000});
    testkit_reply(kit, (struct fake_reply){.text = "first the rocket"});
    testkit_begin(kit, ask_named, planner);
    testkit_run_ms(kit, 1000);
    testkit_crash(kit);
    testkit_run_ms(kit, 60000);
    testkit_do(kit, check_asked, NULL);
    assert_int_equal(testkit_tool(kit, "lookup")->effects, 1);
}

/* ---- answers ---- */

static void assert_answer(struct testkit *kit, const char *output, const char *wanted)
{
    const struct json *tree;
    struct error e = {0};
    assert_true(json_parse(kit->arena, str_from_cstr(output), (struct json_limits){0}, &tree, &e));
    assert_str(agent_workflow_answer(tree, str_from_cstr(output)), wanted);
}

static void test_an_output_is_an_answer(struct testkit *kit)
{
    assert_answer(kit, "\"as it is\"", "as it is");
    assert_answer(kit, "{\"text\":\"b\",\"answer\":\"a\"}", "a");
    assert_answer(kit, "{\"answer\":1,\"text\":\"b\"}", "b");
    assert_answer(kit, "{\"n\":1}", "{\"n\":1}");
    assert_answer(kit, "[\"x\"]", "[\"x\"]");
    assert_answer(kit, "null", "null");
}

static const struct testkit_case cases[] = {
    TESTKIT_SCRIPT(test_a_message_to_such_an_agent_starts_its_workflow),
    TESTKIT_SCRIPT(test_a_message_that_waited_starts_the_workflow_when_its_turn_comes),
    TESTKIT_SCRIPT(test_earlier_turns_of_the_session_are_there),
    TESTKIT_SCRIPT(test_earlier_turns_are_the_same_after_a_crash),
    TESTKIT_SCRIPT(test_of_many_turns_the_newest_are_there),
    TESTKIT_SCRIPT(test_such_an_agent_is_called_as_a_tool),
    TESTKIT_SCRIPT(test_a_run_is_handed_to_such_an_agent),
    TESTKIT_SCRIPT(test_what_does_not_fit_the_input_is_an_error_for_who_called),
    TESTKIT_SCRIPT(test_what_such_an_agent_does_not_take_is_refused),
    TESTKIT_SCRIPT(test_the_agents_tools_narrow_what_the_steps_may_call),
    TESTKIT_SCRIPT(test_such_a_run_goes_on_after_a_crash),
    TESTKIT_SCRIPT(test_an_output_is_an_answer),
};

int main(void)
{
    return testkit_main(cases, ARRAY_COUNT(cases));
}
