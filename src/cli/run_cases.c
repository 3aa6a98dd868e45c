/* nexus runs test: test cases made of runs, over their records or live */
#include "base/arena.h"
#include "base/limits.h"
#include "cli/api.h"
#include "cli/follow.h"
#include "cli/run_files.h"
#include "orchestrator/replay/run_case.h"
#include "orchestrator/replay/run_replay.h"
#include "runtime/scheduler.h"

/* ---- over the record ---- */

struct verdict {
    struct replay_report *report;
    struct run_case_failures failures;
};

static bool try_case(struct arena *arena, str path, struct verdict *out, struct error *e)
{
    str text;
    struct run_recording *record = ARENA_NEW(arena, struct run_recording);
    out->report = ARENA_NEW(arena, struct replay_report);
    return run_file_read(arena, path, &text, e) && run_recording_read(arena, text, record, e) &&
           run_replay(arena, text, out->report, e) &&
           run_case_check(arena, text, record, RUN_CASE_RECORDED, &out->failures, e);
}

static bool show_verdict(const struct verdict *verdict, str path)
{
    const struct replay_report *report = verdict->report;
    bool is_same = !report || report->is_same;
    bool is_passed = is_same && verdict->failures.count == 0;
    printf("%s ", is_passed ? "ok    " : "FAILED");
    output_text(stdout, path, false);
    printf("\n");
    if (!is_same && report->difference_count > 0) {
        printf("    the replay differs at event %lld ", (long long) report->differences[0].seq);
        output_text(stdout, report->differences[0].what, false);
        printf("\n");
        run_show_side("recorded", report->differences[0].recorded);
        run_show_side("replayed", report->differences[0].replayed);
    }
    for (size_t i = 0; i < verdict->failures.count; i++) {
        printf("    ");
        output_text(stdout, verdict->failures.items[i], false);
        printf("\n");
    }
    for (size_t i = 0; i < verdict->failures.note_count; i++) {
        printf("    %s ", i == 0 ? "not compared:" : "             ");
        output_text(stdout, verdict->failures.notes[i], false);
        printf("\n");
    }
    return is_passed;
}

static bool show_failure(str path, const struct error *e)
{
    printf("FAILED ");
    output_text(stdout, path, false);
    printf("\n    %s\n", e->message);
    return false;
}

static int show_sum(size_t count, size_t failed)
{
    printf("%zu of %zu passed\n", count - failed, count);
    return failed == 0 ? EXIT_DONE : EXIT_FAILED;
}

static bool test_recorded(str path)
{
    OWNED(arena) arena = arena_create(0);
    struct verdict *verdict = ARENA_NEW(arena, struct verdict);
    struct error e = {0};
    return try_case(arena, path, verdict, &e) ? show_verdict(verdict, path)
                                              : show_failure(path, &e);
}

/* ---- live ---- */

static bool open_session(struct client *client, struct context *ctx, str agent, str *id,
                         struct error *e)
{
    const struct json *session;
    struct strbuf body;
    struct json_writer w;
    strbuf_init(&body, ctx->arena, 4096);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("agent"), agent);
    json_object_end(&w);
    if (!client_call(client, ctx, HTTP_POST, S("/api/v1/sessions"), strbuf_str(&body), &session, e))
        return false;
    *id = str_copy(ctx->arena, json_str_or(session, S("id"), STR_NONE));
    return true;
}

static bool ask(struct client *client, struct context *ctx,
                const struct run_case_question *question, str *run_id, struct error *e)
{
    str session, model = arguments_get(client->arguments, "model");
    const struct json *answer;
    struct strbuf body;
    struct json_writer w;
    if (!open_session(client, ctx, question->agent, &session, e))
        return false;
    strbuf_init(&body, ctx->arena, 8 * (size_t) MESSAGE_BYTES_MAX);
    json_writer_init(&w, &body);
    json_object_begin(&w);
    json_put_str(&w, S("content"), question->content);
    if (!str_is_empty(model))
        json_put_str(&w, S("model"), model);
    json_object_end(&w);
    str path = client_path(ctx, "/api/v1/sessions/{}/messages", &session);
    if (!client_call(client, ctx, HTTP_POST, path, strbuf_str(&body), &answer, e))
        return false;
    *run_id = str_copy(ctx->arena, json_str_or(answer, S("run_id"), STR_NONE));
    return true;
}

/* Whoever should approve something is not here: such a run is not waited for. */
static bool go_on(void *is_waiting, struct context *ctx, const struct run_event *event)
{
    (void) ctx;
    *(bool *) is_waiting = str_equal(event->type, S("run.waiting"));
    return !*(bool *) is_waiting;
}

static bool stop_at_wait(void *is_waiting, struct context *ctx,
                         const struct awaited_approval *approval)
{
    (void) ctx;
    (void) approval;
    *(bool *) is_waiting = true;
    return false;
}

/* Reading recordings goes deep: on the thread's stack, not the coroutine's. */
struct live_case {
    struct arena *arena;
    str text, played; /* the case; the export of the live run, once there is one */
    struct run_case_question question;
    struct verdict *verdict;
    struct error failure;
    bool ok;
};

static void read_question(void *argument)
{
    struct live_case *live = argument;
    live->ok = run_case_question(live->arena, live->text, &live->question, &live->failure);
}

static void check_played(void *argument)
{
    struct live_case *live = argument;
    struct run_recording *record = ARENA_NEW(live->arena, struct run_recording);
    live->ok = run_recording_read(live->arena, live->played, record, &live->failure) &&
               run_case_check(live->arena, live->text, record, RUN_CASE_LIVE,
                              &live->verdict->failures, &live->failure);
}

static bool try_live(struct client *client, struct context *ctx, str path, struct verdict *out,
                     struct error *e)
{
    struct live_case *live = ARENA_NEW(ctx->arena, struct live_case);
    str run_id;
    bool is_waiting = false;
    *live = (struct live_case){.arena = ctx->arena, .verdict = out};
    if (!run_file_read(ctx->arena, path, &live->text, e))
        return false;
    coroutine_on_thread_stack(read_question, live);
    if (!live->ok)
        return error_copy(e, &live->failure);
    if (!ask(client, ctx, &live->question, &run_id, e) ||
        !follow_run(client, ctx, run_id, 0, go_on, stop_at_wait, &is_waiting, e))
        return false;
    if (is_waiting)
        return error_set(e, REASON_NEEDS_APPROVAL,
                         "run " STR_FMT " waits for somebody: a live test has nobody who decides",
                         STR_ARG(run_id));
    if (!run_export_fetch(client, ctx, run_id, &live->played, e))
        return false;
    coroutine_on_thread_stack(check_played, live);
    return live->ok || error_copy(e, &live->failure);
}

static bool test_live(struct client *client, struct context *ctx, struct error *e)
{
    const struct arguments *arguments = client->arguments;
    size_t failed = 0;
    (void) e;
    for (size_t i = 0; i < arguments->operand_count; i++) {
        struct verdict *verdict = ARENA_NEW(ctx->arena, struct verdict);
        struct error why = {0};
        str path = arguments->operands[i];
        bool is_passed = try_live(client, ctx, path, verdict, &why) ? show_verdict(verdict, path)
                                                                    : show_failure(path, &why);
        failed += !is_passed;
    }
    client->exit_code = show_sum(arguments->operand_count, failed);
    return true;
}

int run_cases(struct cli *cli, const struct arguments *arguments)
{
    size_t failed = 0;
    struct error e = {0};
    if (arguments_has(arguments, "live"))
        return client_main(cli, "runs test", arguments, test_live);
    if (!str_is_empty(arguments_get(arguments, "model"))) {
        error_set(&e, REASON_USAGE, "--model goes with --live: a record has its model");
        return command_fail(cli, "runs test", &e);
    }
    for (size_t i = 0; i < arguments->operand_count; i++)
        failed += !test_recorded(arguments->operands[i]);
    return show_sum(arguments->operand_count, failed);
}
