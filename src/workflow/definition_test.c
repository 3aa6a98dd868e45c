#include "workflow/definition.h"

#include "base/arena.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct arena *arena;

static int set_up(void **state)
{
    (void) state;
    arena = arena_create(256u << 20);
    return 0;
}

static int tear_down(void **state)
{
    (void) state;
    arena_destroy(arena);
    return 0;
}

static struct definition *read(str text)
{
    struct definition *definition = NULL;
    struct definition_problems problems;
    struct error e = {0};
    if (!definition_parse(arena, S("w.yaml"), text, &definition, &problems, &e))
        fail_msg("%s", e.message);
    assert_int_equal(problems.count, 0);
    return definition;
}

static struct definition_problems refuse(str text, struct error *e)
{
    struct definition *definition = NULL;
    struct definition_problems problems;
    *e = (struct error){0};
    if (definition_parse(arena, S("w.yaml"), text, &definition, &problems, e))
        fail_msg("accepted: %.*s", STR_ARG(text));
    assert_true(problems.count > 0);
    return problems;
}

/* "line path: message" for each, one a line. */
static const char *listed(const struct definition_problems *problems)
{
    struct strbuf out;
    strbuf_init(&out, arena, 1u << 20);
    for (size_t i = 0; i < problems->count; i++)
        strbuf_printf(&out, "%u " STR_FMT ": " STR_FMT "\n", problems->items[i].line,
                      STR_ARG(problems->items[i].path), STR_ARG(problems->items[i].message));
    return str_to_cstr(arena, strbuf_str(&out));
}

#define HEAD "name: w\nversion: 1.0.0\nsteps:\n"

/* A problem of a definition with these steps (line 4 on). */
static void assert_problem(const char *steps, const char *expected)
{
    struct error e;
    str text = str_printf(arena, HEAD "%s", steps);
    struct definition_problems problems = refuse(text, &e);
    const char *all = listed(&problems);
    if (!strstr(all, expected))
        fail_msg("not found: %s\nin: %s", expected, all);
}

static str file(const char *path)
{
    char name[512];
    snprintf(name, sizeof name, "%s/%s", NEXUS_SOURCE_DIR, path);
    FILE *stream = fopen(name, "rb");
    assert_non_null(stream);
    char *bytes = arena_alloc(arena, 1u << 16);
    size_t len = fread(bytes, 1, 1u << 16, stream);
    fclose(stream);
    return str_of(bytes, len);
}

static void test_each_kind_of_step_is_read(void **state)
{
    (void) state;
    struct definition *d = read(file("tests/corpus/definition/all-kinds.yaml"));
    assert_true(str_equal(d->name, S("all-kinds")) && str_equal(d->version, S("1.2.3-rc.1")));
    assert_int_equal(d->timeout_ms, 3600000);
    assert_int_equal(d->budget.cost_nanousd, 500000000);
    assert_int_equal(d->budget.time_ms, 60000);
    assert_true(str_equal(d->input_schema, S("{\"type\":\"object\"}")));
    assert_int_equal(d->steps.count, 9);
    assert_int_equal(d->step_count, 17);
    assert_non_null(d->output);

    const struct step *call = step_list_find(d->steps, S("call"));
    assert_int_equal(call->kind, STEP_TOOL);
    assert_true(str_equal(call->tool.name, S("http_request")) &&
                str_equal(call->tool.range, S("^1")));
    assert_int_equal(call->retry.attempts, 3);
    assert_int_equal(call->retry.backoff_max_ms, 60000);
    assert_int_equal(call->retry.except_count, 1);
    assert_true(call->continues_on_error && call->when && call->idempotency_key && call->input);
    assert_int_equal(call->timeout_ms, 30000);
    assert_int_equal(call->compensate->kind, STEP_TOOL);
    assert_int_equal(call->compensate->retry.attempts, 1);
    assert_int_equal(call->line, 8);

    const struct step *think = step_list_find(d->steps, S("think"));
    assert_true(str_equal(think->model.model, S("fast")) && think->model.system && think->input);
    assert_int_equal(think->model.max_output_tokens, 500);
    assert_int_equal(think->retry.attempts, 1);
    const struct step *research = step_list_find(d->steps, S("research"));
    assert_int_equal(research->agent.budget.tokens, 20000);
    assert_true(research->agent.budget.tool_calls == COST_UNLIMITED);
    const struct step *ok = step_list_find(d->steps, S("ok"));
    assert_int_equal(ok->approval.quorum, 2);
    assert_int_equal(ok->approval.expires_ms, 86400000);
    assert_true(
        str_equal(ok->approval.approvers, S("{\"users\":[\"ann\"],\"roles\":[\"admin\"]}")));

    const struct step *which = step_list_find(d->steps, S("which"));
    assert_int_equal(which->branch.count, 3);
    assert_true(which->branch.arms[0].when && !which->branch.arms[2].when);
    assert_int_equal(which->branch.arms[0].steps.items[0]->sleep.ms, 300000);
    assert_non_null(which->branch.arms[1].steps.items[1]->sleep.until);
    const struct step *each = step_list_find(d->steps, S("each"));
    assert_true(str_equal(each->map.as, S("thing")) && each->map.over && each->map.output);
    assert_int_equal(each->map.parallel, 64);
    assert_int_equal(each->map.steps.items[0]->loop.max, 10);
    const struct step *both = step_list_find(d->steps, S("both"));
    assert_int_equal(both->parallel.count, 2);
    assert_true(str_equal(both->parallel.arms[1].name, S("b")));
    assert_int_equal(step_list_find(d->steps, S("go"))->signal.timeout_ms, 86400000);
    const struct step *sub = step_list_find(d->steps, S("sub"));
    assert_true(str_equal(sub->workflow.range, S("^1")) && sub->input);
    assert_int_equal(sub->workflow.budget.cost_nanousd, 2500000000);
    assert_null(step_list_find(d->steps, S("nope")));
    definition_destroy(d);
}

static void test_shipped_definitions_are_lawful(void **state)
{
    static const char *const names[] = {"approval-gate", "book-trip", "map-reduce",
                                        "planner-executor", "reviewer"};
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        char path[64];
        snprintf(path, sizeof path, "workflows/%s.yaml", names[i]);
        struct definition *d = read(file(path));
        assert_true(str_equal(d->name, str_from_cstr(names[i])));
        definition_destroy(d);
    }
}

static void test_yaml_and_json_of_the_same_thing_have_the_same_digest(void **state)
{
    (void) state;
    struct definition *yaml = read(file("tests/corpus/definition/all-kinds.yaml"));
    struct definition *json = read(yaml->canonical);
    assert_true(str_equal(yaml->digest, json->digest) &&
                str_equal(yaml->canonical, json->canonical));
    assert_int_equal(yaml->digest.len, 64);
    definition_destroy(json);
    definition_destroy(yaml);
    struct definition *d = read(S("{\"name\":\"a\",\"version\":\"1.0.0\",\"steps\":[{\"id\":\"s\","
                                  "\"model\":{\"prompt\":\"\\ud83d\\ude00\\/\"}}]}"));
    definition_destroy(d);
}

static void test_all_problems_are_told_by_line_with_what_to_do(void **state)
{
    struct error e;
    (void) state;
    struct definition_problems problems = refuse(file("tests/corpus/definition/bad.yaml"), &e);
    assert_string_equal(
        listed(&problems),
        "1 name: is no name: letters, digits, _ and (not first) - and ., at most 64\n"
        "2 version: must be a text, not integer; put it in quotes\n"
        "3 descripton: there is no member \"descripton\"; did you mean \"description\"?\n"
        "4 timeout: needs a unit: write a duration such as 30s, 5m or 1h\n"
        "8 steps[0].input.x: reads steps.b, which does not stand before it; move that step up\n"
        "8 steps[0].input.y: there is no variable \"inptu\"; did you mean \"input\"?\n"
        "8 steps[0].input.z: column 6: a value is missing before }\n"
        "9 steps[1].id: \"a\" is the id of another step of this list; name one of them otherwise\n"
        "9 steps[1]: is both \"tool\" and \"model\"; make two steps of it\n"
        "13 steps[2].branch: has no else: end it with an arm without `when`, such as {steps: []}\n"
        "14 steps[2].branch[0].when: \"item\" is known only inside a map\n"
        "15 steps[2].branch[0].steps[0].retry.backof: there is no member \"backof\"; did you mean "
        "\"backoff\"?\n"
        "15 steps[2].branch[0].steps[0].retry.attempts: must be a whole number from 1 to 100\n"
        "16 steps[2].compensate: may be a tool, agent or workflow step, not approval; put the rest "
        "into a workflow of its own\n"
        "19 steps[3].map.over: is missing; add \"over\"\n"
        "19 steps[3].map.steps[0].when: \"loop\" is known only inside a loop\n"
        "20 steps[4].id: is missing; name the step, so that others can read it\n"
        "21 steps[4].idempotency_key: reads steps.e; no such step stands before it in this list or "
        "one around it\n"
        "23 steps[5].model.modle: there is no member \"modle\"; did you mean \"model\"?\n"
        "24 steps[5].version: is only for tool steps\n");
    assert_non_null(strstr(e.message, "20 problems, the first: w.yaml:1: name: is no name"));
    assert_int_equal(e.reason, REASON_CONFIG);
}

static void test_problems_of_steps(void **state)
{
    static const struct {
        const char *steps, *problem;
    } cases[] = {
        {"  - {id: a, tool: t, retry: {}}", "retry.attempts: is missing"},
        {"  - {id: a, tool: t, retry: {attempts: 101}}", "from 1 to 100"},
        {"  - {id: a, tool: t, retry: {attempts: 2, backoff: 5m, max_backoff: 1m}}",
         "max_backoff is less than backoff"},
        {"  - {id: a, tool: t, retry: {attempts: 2, factor: 0.5}}", "a number from 1 to 10"},
        {"  - {id: a, tool: t, retry: {attempts: 2, jitter: 2}}", "a number from 0 to 1"},
        {"  - {id: a, tool: t, retry: {attempts: 2, except: [nope]}}", "names no kind of error"},
        {"  - {id: a, tool: t, retry: {attempts: 2, only: timeout}}", "must be a list of errors'"},
        {"  - {id: a, tool: t, timeout: 5 minutes}", "is no duration; write one such as"},
        {"  - {id: a, tool: t, timeout: 400d}", "must lie between 1ms and 366d"},
        {"  - {id: a, tool: t, timeout: 0s}", "must lie between 1ms"},
        {"  - {id: a, tool: t, on_error: ignore}", "must be fail or continue"},
        {"  - {id: a-b, tool: t}", "must be letters, digits and _"},
        {"  - {id: 7, tool: t}", "must be letters, digits and _"},
        {"  - {id: a, tool: 't t'}", "tool: is no name"},
        {"  - {id: a}", "does nothing; give it one of tool, model"},
        {"  - 5", "steps[0]: must be a mapping with members such as \"id\", not integer"},
        {"  - {id: a, tool: t, when: 'input.x >'}", "column 10: a value is missing at the end"},
        {"  - {id: a, tool: t, when: true}", "must be an expression in quotes, not boolean"},
        {"  - {id: a, model: {}}", "steps[0].model.prompt: is missing; add \"prompt\""},
        {"  - {id: a, model: hi}", "must be a mapping with members such as \"prompt\""},
        {"  - {id: a, model: {prompt: x, max_output_tokens: 0}}", "from 1 to 2147483647"},
        {"  - {id: a, agent: {prompt: x}}", "agent.name: is missing"},
        {"  - {id: a, agent: {name: n, prompt: x, budget: {tokens: -1}}}",
         "budget.tokens: must be"},
        {"  - {id: a, agent: {name: n, prompt: x, budget: {cost_usd: a lot}}}",
         "an amount such as"},
        {"  - {id: a, agent: {name: n, prompt: x, budget: {token: 1}}}", "did you mean \"tokens\""},
        {"  - {id: a, approval: {quorum: 2}}", "approval.title: is missing"},
        {"  - {id: a, approval: {title: x, quorum: 17}}", "from 1 to 16"},
        {"  - {id: a, approval: {title: x, approvers: {users: ann}}}", "must be a list of names"},
        {"  - {id: a, approval: {title: x, expires: 10ms}}", "must lie between 1000ms"},
        {"  - {id: a, branch: []}", "must be a list of arms"},
        {"  - {id: a, branch: [{steps: []}, {when: 'true', steps: []}]}", "is never reached"},
        {"  - {id: a, branch: [{when: 'true', steps: 1}, {steps: []}]}", "must be a list of steps"},
        {"  - {id: a, map: {over: input.x, as: 1a, steps: []}}", "as: must be a name"},
        {"  - {id: a, map: {over: input.x, parallel: 65, steps: []}}", "from 1 to 64"},
        {"  - {id: a, map: {over: input.x, tolerate: -1, steps: []}}", "from 0 to 10000"},
        {"  - {id: a, parallel: {}}", "must be a mapping of 1 to 64 arms"},
        {"  - {id: a, parallel: {'a b': []}}", "is no name of an arm"},
        {"  - {id: a, loop: {while: 'true', steps: []}}", "loop.max: is missing"},
        {"  - {id: a, loop: {max: 10001, steps: []}}", "from 1 to 10000"},
        {"  - {id: a, loop: {max: 2, while: 'has(steps.y)', steps: [{id: x, tool: t}]}}",
         "reads steps.y; no such step"},
        {"  - {id: order, tool: t}\n  - {id: b, tool: t, when: 'has(steps.odrer)'}",
         "did you mean steps.order?"},
        {"  - {id: a, sleep: 5}", "must be a duration (30s, 5m, 1h), a time or an expression"},
        {"  - {id: a, sleep: soon}", "is no duration"},
        {"  - {id: a, wait_signal: {timeout: 1d}}", "wait_signal.name: is missing"},
        {"  - {id: a, workflow: {name: w, inputs: 1}}", "did you mean \"input\"?"},
        {"  - {id: a, workflow: {name: w}, input: 1}", "belongs inside the mapping under"},
        {"  - {id: a, tool: t, compensate: {sleep: 1s}}", "not sleep; put the rest"},
        {"  - {id: a, tool: t, compensate: undo}", "must be a step: {tool: ..., input: ...}"},
        {"  - {id: a, tool: t, compensate: {tool: u, when: 'true'}}", "no member \"when\""},
        {"  - {id: a, tool: t, input: '${error.type}'}", "only inside a compensation"},
        {"  - {id: a, tool: t, input: '${output.x}'}", "only in `expect`"},
        {"  - {id: a, sleep: 1s, expect: 'true'}", "may have `expect` only when it is a tool"},
        {"  - {id: a, tool: t, expect: 'output.'}", "a name must follow the point"},
        {"  - {id: a, tool: t, input: '${steps.a.output}'}", "does not stand before it"},
        {"  - {id: a, branch: [{steps: [{id: in, tool: t}]}]}\n"
         "  - {id: b, tool: t, input: '${steps.in.output}'}",
         "5 steps[1].input: reads steps.in; no such step"},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++)
        assert_problem(cases[i].steps, cases[i].problem);
}

static void test_problems_of_the_head(void **state)
{
    static const struct {
        const char *text, *problem;
    } cases[] = {
        {"", "1 : must be a mapping with members such as \"name\", not null"},
        {"[]", "must be a mapping"},
        {"{}", "1 name: is missing; add \"name\""},
        {"name: w\nversion: 1.0\nsteps: []", "2 version: must be a text"},
        {"name: w\nversion: 1.0.x\nsteps: []", "must have three numbers, as in 1.0.0"},
        {"name: w\nversion: 01.0.0\nsteps: []", "must have three numbers"},
        {"name: w\nversion: 1.0.0-\nsteps: []", "must have three numbers"},
        {"name: w\nversion: 1.0.0\nsteps: []", "3 steps: is empty"},
        {"name: w\nversion: 1.0.0\nsteps: {a: 1}", "3 steps: must be a list of steps, not object"},
        {"name: w\nversion: 1.0.0", "1 steps: is missing; add \"steps\""},
        {"name: w\nversion: 1.0.0\ninput: string\nsteps: [{id: a, tool: t}]",
         "3 input: must be a mapping, not string"},
        {"name: w\nversion: 1.0.0\nsteps: [{id: a, tool: t}]\noutput: '${steps.b.output}'",
         "4 output: reads steps.b; no such step"},
        {"name: [", "2 : did not find expected"},
        {"a: 1\n\tb: 2", "2 : found a tab character"},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct error e;
        struct definition_problems problems = refuse(str_from_cstr(cases[i].text), &e);
        if (!strstr(listed(&problems), cases[i].problem))
            fail_msg("not found: %s in %s", cases[i].problem, listed(&problems));
    }
}

/* Line and place are those of what is wrong inside the schema. */
static void test_an_input_that_is_no_schema_is_a_problem(void **state)
{
    static const struct {
        const char *input, *problem;
    } cases[] = {
        {"  type: object\n  properties:\n    n: {type: objekt}", "6 input.properties.n.type: "},
        {"  type: objekt", "4 input.type: is no JSON Schema: "},
        {"  properties: 5", "4 input.properties: is no JSON Schema: "},
        {"  properties:\n    a: {}\n    b/c: {minLength: -1}",
         "6 input.properties.b/c.minLength: "},
        {"  allOf:\n    - {}\n    - {required: x}", "6 input.allOf[1].required: "},
        {"  pattern: '('", "4 input.pattern: is no JSON Schema: "},
        {"  $ref: '#/$defs/none'", "3 input: is no JSON Schema: "},
        {"  $ref: 'http://127.0.0.1:1/schema'", "3 input: is no JSON Schema: "},
    };
    (void) state;
    for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
        struct error e;
        str text =
            str_printf(arena, "name: w\nversion: 1.0.0\ninput:\n%s\nsteps: [{id: a, tool: t}]",
                       cases[i].input);
        struct definition_problems problems = refuse(text, &e);
        assert_int_equal(problems.count, 1);
        if (!str_starts_with(str_from_cstr(listed(&problems)), str_from_cstr(cases[i].problem)))
            fail_msg("not found: %s in %s", cases[i].problem, listed(&problems));
    }
    definition_destroy(read(S("name: w\nversion: 1.0.0\ninput: {$ref: '#/$defs/n', $defs: {n: "
                              "{type: [object, 'null']}}}\nsteps: [{id: a, tool: t}]")));
}

static void test_sizes_are_bounded(void **state)
{
    struct strbuf text;
    struct error e;
    (void) state;
    strbuf_init(&text, arena, 4u << 20);
    strbuf_add(&text, S(HEAD));
    for (size_t i = 0; i < WORKFLOW_STEPS_MAX; i++)
        strbuf_printf(&text, "  - {id: s%zu, tool: t}\n", i);
    definition_destroy(read(strbuf_str(&text)));
    strbuf_add(&text, S("  - {id: last, tool: t}\n"));
    strbuf_add(&text, S("output: ${steps.last.output}\n"));
    struct definition_problems problems = refuse(strbuf_str(&text), &e);
    assert_string_equal(listed(&problems),
                        "3 steps: more than 1000 steps in all; use workflow steps\n");

    strbuf_truncate(&text, sizeof HEAD - 1);
    for (size_t i = 0; i < 200; i++)
        strbuf_add(&text, S("  - {id: 1, tool: t}\n"));
    problems = refuse(strbuf_str(&text), &e);
    assert_int_equal(problems.count, WORKFLOW_PROBLEMS_MAX);

    for (size_t depth = WORKFLOW_DEPTH_MAX; depth <= WORKFLOW_DEPTH_MAX + 1; depth++) {
        strbuf_truncate(&text, sizeof HEAD - 1);
        strbuf_add(&text, S("  ["));
        for (size_t i = 1; i < depth; i++)
            strbuf_add(&text, S("{id: a, loop: {max: 1, steps: ["));
        strbuf_add(&text, S("{id: a, tool: t}"));
        for (size_t i = 1; i < depth; i++)
            strbuf_add(&text, S("]}}"));
        strbuf_add(&text, S("]"));
        if (depth == WORKFLOW_DEPTH_MAX)
            definition_destroy(read(strbuf_str(&text)));
        else
            problems = refuse(strbuf_str(&text), &e);
    }
    assert_non_null(strstr(listed(&problems), "nested deeper than 16"));

    char *large = arena_alloc(arena, WORKFLOW_BYTES_MAX + 1);
    memset(large, ' ', WORKFLOW_BYTES_MAX + 1);
    (void) refuse(str_of(large, WORKFLOW_BYTES_MAX + 1), &e);
    assert_int_equal(e.reason, REASON_TOO_LARGE);
}

static void test_pictures_show_every_step_and_escape_what_is_written(void **state)
{
    (void) state;
    struct definition *d =
        read(S(HEAD "  - id: one\n    tool: t\n    when: 'input.a < 3 && \"<b>\" != \"\"'\n"
                    "    compensate: {tool: undo_it}\n"
                    "  - id: two\n    branch:\n      - {when: 'input.x > 1', steps: [{id: three, "
                    "sleep: 90s}]}\n      - steps: []\n"));
    const char *svg = str_to_cstr(arena, definition_svg(arena, d));
    const char *mermaid = str_to_cstr(arena, definition_mermaid(arena, d));
    static const char *const words[] = {"one", "two", "three", "undo_it", "90s", "else"};
    for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
        assert_non_null(strstr(svg, words[i]));
        assert_non_null(strstr(mermaid, words[i]));
    }
    assert_non_null(strstr(svg, "input.a &lt; 3 &amp;&amp; &quot;&lt;b&gt;&quot;"));
    assert_null(strstr(svg, "<b>"));
    assert_null(strstr(mermaid, "<b>"));
    assert_non_null(strstr(mermaid, "n2[\"one<br/>tool t\"]"));
    assert_true(
        str_starts_with(str_from_cstr(svg), S("<svg xmlns=\"http://www.w3.org/2000/svg\"")));
    definition_destroy(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_kind_of_step_is_read),
        cmocka_unit_test(test_shipped_definitions_are_lawful),
        cmocka_unit_test(test_yaml_and_json_of_the_same_thing_have_the_same_digest),
        cmocka_unit_test(test_all_problems_are_told_by_line_with_what_to_do),
        cmocka_unit_test(test_problems_of_steps),
        cmocka_unit_test(test_problems_of_the_head),
        cmocka_unit_test(test_an_input_that_is_no_schema_is_a_problem),
        cmocka_unit_test(test_sizes_are_bounded),
        cmocka_unit_test(test_pictures_show_every_step_and_escape_what_is_written),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
