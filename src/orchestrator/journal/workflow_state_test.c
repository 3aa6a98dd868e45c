#include "orchestrator/journal/workflow_state.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/arena.h"
#include "base/limits.h"

#define ID(n) "00000000-0000-7000-8000-00000000000" #n

struct history {
    struct arena *arena;
    struct run_state state;
    struct definition *definition;
};

static void apply(struct history *h, enum event_type type, const char *data, bool is_good)
{
    struct error e = {0};
    struct event event = {.seq = h->state.last_seq + 1, .type = type, .at_us = 1000};
    if (!json_parse(h->arena, str_from_cstr(data), (struct json_limits){0}, &event.data, &e))
        fail_msg("%s: %s", data, e.message);
    bool ok = run_state_apply(&h->state, &event, &e);
    if (ok != is_good)
        fail_msg("%s %s: %s", event_type_name(type), data, ok ? "was taken" : e.message);
    if (!ok)
        assert_int_equal(e.reason, REASON_CORRUPT);
}

static int set_up(void **state)
{
    struct history *h = calloc(1, sizeof *h);
    assert_non_null(h);
    h->arena = arena_create(0);
    run_state_init(&h->state, h->arena);
    apply(
        h, EVENT_RUN_STARTED,
        "{\"message_id\":\"" ID(
            1) "\",\"agent\":\"workflow:w\",\"model\":\"m\",\"user_id\":"
               "\"ada\",\"epoch\":1,\"workflow\":{\"name\":\"w\",\"version\":\"1.0.0\",\"digest\":"
               "\"d\"}}",
        true);
    *state = h;
    return 0;
}

static int tear_down(void **state)
{
    struct history *h = *state;
    definition_destroy(h->definition);
    arena_destroy(h->arena);
    free(h);
    return 0;
}

static void define(struct history *h, const char *steps)
{
    struct definition_problems problems;
    struct error e = {0};
    str text = str_printf(h->arena, "name: w\nversion: 1.0.0\nsteps:\n%s", steps);
    if (!definition_parse(h->arena, S("w.yaml"), text, &h->definition, &problems, &e))
        fail_msg("%s", e.message);
}

static void began(struct history *h, const char *path, const char *kind, const char *more)
{
    char data[256];
    snprintf(data, sizeof data, "{\"step\":\"%s\",\"kind\":\"%s\",\"attempt\":1%s}", path, kind,
             more);
    apply(h, EVENT_RUN_STEP_STARTED, data, true);
}

static void done(struct history *h, const char *path)
{
    char data[128];
    snprintf(data, sizeof data, "{\"step\":\"%s\"}", path);
    apply(h, EVENT_RUN_STEP_COMPLETED, data, true);
}

static void failed(struct history *h, const char *path, const char *more)
{
    char data[200];
    snprintf(data, sizeof data,
             "{\"step\":\"%s\",\"attempt\":1,\"error\":\"timeout\",\"message\":\"late\"%s}", path,
             more);
    apply(h, EVENT_RUN_STEP_FAILED, data, true);
}

/* What can be done, as words: "begin a.b, wait c". */
static void assert_next(struct history *h, bool is_stopping, const char *wanted)
{
    static const char *const names[] = {
        [WORKFLOW_BEGIN] = "begin",   [WORKFLOW_ROUND] = "round",
        [WORKFLOW_RETRY] = "retry",   [WORKFLOW_WAIT] = "wait",
        [WORKFLOW_STOP] = "stop",     [WORKFLOW_COMPLETE] = "complete",
        [WORKFLOW_FAIL] = "fail",     [WORKFLOW_UNDO] = "undo",
        [WORKFLOW_DONE] = "done",     [WORKFLOW_FAILED] = "failed",
        [WORKFLOW_UNDONE] = "undone",
    };
    struct workflow_commands commands = {.arena = h->arena};
    struct error e = {0};
    struct strbuf text;
    if (!workflow_next(h->state.workflow, h->definition, is_stopping, &commands, &e))
        fail_msg("%s", e.message);
    strbuf_init(&text, h->arena, 4096);
    for (size_t i = 0; i < commands.count; i++) {
        const struct workflow_command *c = &commands.items[i];
        str path = c->step   ? workflow_path(h->arena, c->lane, c->step->id)
                   : c->node ? c->node->path
                             : STR_NONE;
        strbuf_printf(&text, "%s%s%s" STR_FMT, i > 0 ? ", " : "", names[c->kind],
                      str_is_empty(path) ? "" : " ", STR_ARG(path));
    }
    strbuf_add_char(&text, '\0');
    assert_string_equal(text.ptr, wanted);
}

static void test_a_list_goes_step_by_step(void **state)
{
    struct history *h = *state;
    define(h, "  - {id: a, sleep: 1s}\n  - {id: b, sleep: 1s}\n");
    assert_next(h, false, "begin a");
    began(h, "a", "sleep", "");
    assert_next(h, false, "wait a");
    done(h, "a");
    assert_next(h, false, "begin b");
    apply(h, EVENT_RUN_STEP_COMPLETED, "{\"step\":\"b\",\"kind\":\"sleep\",\"skipped\":true}",
          true);
    assert_next(h, false, "done");
}

static void test_a_failed_step_is_tried_again_and_then_fails_the_instance(void **state)
{
    struct history *h = *state;
    define(h, "  - {id: a, sleep: 1s}\n  - {id: b, sleep: 1s}\n");
    began(h, "a", "sleep", "");
    failed(h, "a", ",\"retry_at\":5000");
    assert_next(h, false, "retry a");
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"a\",\"kind\":\"sleep\",\"attempt\":3}", false);
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"a\",\"kind\":\"sleep\",\"attempt\":2}", true);
    apply(h, EVENT_RUN_STEP_FAILED,
          "{\"step\":\"a\",\"attempt\":2,\"error\":\"timeout\",\"message\":\"late\"}", true);
    assert_next(h, false, "failed");
}

static void test_a_failure_may_be_passed_by(void **state)
{
    struct history *h = *state;
    define(h, "  - {id: a, sleep: 1s}\n  - {id: b, sleep: 1s}\n");
    began(h, "a", "sleep", "");
    failed(h, "a", ",\"continues\":true");
    assert_next(h, false, "begin b");
}

static void test_maps_keep_their_bound_and_tolerate_what_they_say(void **state)
{
    struct history *h = *state;
    define(h, "  - {id: m, map: {over: 'input.l', parallel: 2, tolerate: 1, steps: [{id: x, sleep: "
              "1s}]}}\n");
    assert_next(h, false, "begin m");
    began(h, "m", "map", ",\"count\":3");
    assert_next(h, false, "begin m[0].x, begin m[1].x");
    began(h, "m[0].x", "sleep", "");
    began(h, "m[1].x", "sleep", "");
    failed(h, "m[0].x", "");
    assert_next(h, false, "wait m[1].x, begin m[2].x");
    began(h, "m[2].x", "sleep", "");
    done(h, "m[1].x");
    failed(h, "m[2].x", "");
    assert_next(h, false, "fail m");
}

static void test_a_parallel_step_that_fails_stops_its_other_arms_first(void **state)
{
    struct history *h = *state;
    define(h, "  - {id: p, parallel: {l: [{id: x, sleep: 1s}], r: [{id: y, sleep: 1s}]}}\n");
    began(h, "p", "parallel", "");
    assert_next(h, false, "begin p.l.x, begin p.r.y");
    began(h, "p.l.x", "sleep", "");
    began(h, "p.r.y", "sleep", "");
    failed(h, "p.l.x", "");
    assert_next(h, false, "stop p.r.y");
    apply(h, EVENT_RUN_STEP_FAILED, "{\"step\":\"p\",\"attempt\":1}", false); /* an arm is open */
    failed(h, "p.r.y", "");
    assert_next(h, false, "fail p");
    failed(h, "p", "");
    assert_next(h, false, "failed");
}

static void test_branches_and_loops_go_where_the_journal_says(void **state)
{
    struct history *h = *state;
    define(h,
           "  - {id: b, branch: [{when: 'input.x', steps: [{id: x, sleep: 1s}]}, {steps: [{id: y, "
           "sleep: 1s}]}]}\n  - {id: l, loop: {max: 2, steps: [{id: z, sleep: 1s}]}}\n");
    began(h, "b", "branch", ",\"arm\":1");
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"b[0].x\",\"kind\":\"sleep\",\"attempt\":1}",
          false);
    assert_next(h, false, "begin b[1].y");
    began(h, "b[1].y", "sleep", "");
    done(h, "b[1].y");
    assert_next(h, false, "complete b");
    done(h, "b");
    began(h, "l", "loop", "");
    assert_next(h, false, "round l");
    workflow_grant_round(h->state.workflow, workflow_state_find(h->state.workflow, S("l")));
    assert_next(h, false, "begin l[0].z");
    began(h, "l[0].z", "sleep", "");
    done(h, "l[0].z");
    assert_next(h, false, "round l");
    began(h, "l[1].z", "sleep", "");
    done(h, "l[1].z");
    assert_next(h, false, "complete l");
}

static void test_what_was_done_is_undone_newest_first_and_each_once(void **state)
{
    struct history *h = *state;
    define(h,
           "  - {id: a, tool: t, compensate: {tool: u}}\n"
           "  - {id: m, map: {over: 'input.l', steps: [{id: x, tool: t, compensate: {tool: u}}]}}\n"
           "  - {id: c, sleep: 1s}\n");
    began(h, "a", "tool", "");
    done(h, "a");
    began(h, "m", "map", ",\"count\":2");
    began(h, "m[0].x", "tool", "");
    began(h, "m[1].x", "tool", "");
    done(h, "m[1].x");
    done(h, "m[0].x");
    done(h, "m");
    began(h, "c", "sleep", "");
    assert_next(h, true, "stop c");
    apply(h, EVENT_RUN_COMPENSATING, "{\"reason\":\"failed\"}", false); /* c is open */
    failed(h, "c", "");
    assert_next(h, false, "failed");
    assert_true(workflow_can_undo(h->state.workflow, h->definition));
    apply(h, EVENT_RUN_COMPENSATING, "{\"reason\":\"failed\",\"error\":\"timeout\"}", true);
    assert_next(h, false, "undo m[0].x");
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"c~\",\"kind\":\"tool\",\"attempt\":1}", false);
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"d\",\"kind\":\"tool\",\"attempt\":1}", false);
    began(h, "m[0].x~", "tool", "");
    assert_next(h, false, "wait m[0].x~");
    done(h, "m[0].x~");
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"m[0].x~\",\"kind\":\"tool\",\"attempt\":1}",
          false);
    began(h, "m[1].x~", "tool", "");
    failed(h, "m[1].x~", "");
    assert_next(h, false, "undo a");
    began(h, "a~", "tool", "");
    done(h, "a~");
    assert_next(h, false, "undone");
}

static void test_the_fold_refuses_what_cannot_have_happened(void **state)
{
    struct history *h = *state;
    static const char *const bad[] = {
        "{\"step\":\"\",\"kind\":\"sleep\",\"attempt\":1}",
        "{\"step\":\"a[\",\"kind\":\"sleep\",\"attempt\":1}",
        "{\"step\":\"a[0].b\",\"kind\":\"sleep\",\"attempt\":1}",
        "{\"step\":\"a\",\"kind\":\"nap\",\"attempt\":1}",
        "{\"step\":\"a\",\"kind\":\"sleep\",\"attempt\":2}",
        "{\"step\":\"a~\",\"kind\":\"sleep\",\"attempt\":1}",
        "{\"step\":\"a\",\"kind\":\"map\",\"attempt\":1,\"count\":-1}",
        "{\"step\":\"a\",\"kind\":\"tool\",\"attempt\":1,\"tool_call_id\":\"x\"}",
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
        apply(h, EVENT_RUN_STEP_STARTED, bad[i], false);
    apply(h, EVENT_RUN_STEP_COMPLETED, "{\"step\":\"a\"}", false);
    apply(h, EVENT_RUN_STEP_FAILED, "{\"step\":\"a\",\"attempt\":1}", false);
    began(h, "a", "sleep", "");
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"a\",\"kind\":\"sleep\",\"attempt\":1}", false);
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"b\",\"kind\":\"sleep\",\"attempt\":1}", false);
    apply(h, EVENT_RUN_COMPLETED, "{\"message_id\":\"" ID(1) "\"}", false);
    done(h, "a");
    apply(h, EVENT_RUN_STEP_COMPLETED, "{\"step\":\"a\"}", false);
    apply(h, EVENT_RUN_SIGNALLED, "{\"signal_id\":\"" ID(5) "\",\"name\":\"go\"}", true);
    apply(h, EVENT_RUN_SIGNALLED, "{\"signal_id\":\"" ID(5) "\",\"name\":\"go\"}", false);
    assert_int_equal(h->state.workflow->node_count, 1);
}

static void test_an_attempt_of_a_map_begins_with_empty_lanes(void **state)
{
    struct history *h = *state;
    define(h, "  - {id: m, map: {over: 'input.l', steps: [{id: x, sleep: 1s}]}}\n");
    began(h, "m", "map", ",\"count\":1");
    began(h, "m[0].x", "sleep", "");
    failed(h, "m[0].x", "");
    assert_next(h, false, "fail m");
    failed(h, "m", ",\"retry_at\":5");
    apply(h, EVENT_RUN_STEP_STARTED, "{\"step\":\"m\",\"kind\":\"map\",\"attempt\":2,\"count\":1}",
          true);
    assert_next(h, false, "begin m#2[0].x");
    began(h, "m#2[0].x", "sleep", "");
    done(h, "m#2[0].x");
    assert_next(h, false, "complete m");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        TEST(test_a_list_goes_step_by_step),
        TEST(test_a_failed_step_is_tried_again_and_then_fails_the_instance),
        TEST(test_a_failure_may_be_passed_by),
        TEST(test_maps_keep_their_bound_and_tolerate_what_they_say),
        TEST(test_a_parallel_step_that_fails_stops_its_other_arms_first),
        TEST(test_branches_and_loops_go_where_the_journal_says),
        TEST(test_what_was_done_is_undone_newest_first_and_each_once),
        TEST(test_the_fold_refuses_what_cannot_have_happened),
        TEST(test_an_attempt_of_a_map_begins_with_empty_lanes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
