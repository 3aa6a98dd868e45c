#include "cli/run_view.h"

#include "base/arena.h"
#include "base/timefmt.h"
#include "cli/output.h"

enum { SHOWN_BYTES_MAX = 110 };

void run_view_init(struct run_view *view, struct cli *cli, bool is_json, bool is_quiet)
{
    *view = (struct run_view){.cli = cli, .is_json = is_json, .is_quiet = is_quiet};
    view->streams = !is_json && cli->is_terminal_out;
}

/* ---- pieces ---- */

static void close_line(struct run_view *view)
{
    if (view->is_line_open)
        fputc('\n', stdout);
    view->is_line_open = false;
    fflush(stdout);
}

/* "  policy   allow  tool.call data_analysis" */
static void line(struct run_view *view, enum style style, const char *label, str text)
{
    bool has_colours = view->cli->is_terminal_error && view->cli->has_colours;
    close_line(view);
    if (view->is_quiet)
        return;
    fprintf(stderr, "%s%-9s%s ", style_on(has_colours, style), label, style_off(has_colours));
    output_text(stderr, text, false);
    fputc('\n', stderr);
}

static str text_of(const struct json *data, str name)
{
    return json_str_or(data, name, STR_NONE);
}

/* An amount without the parts that are nothing: "21747 tokens, 120 s, $0.0012". */
static str amount_text(struct arena *arena, const struct json *amount)
{
    struct strbuf b;
    int64_t nanousd = 0;
    strbuf_init(&b, arena, 200);
    int64_t tokens = json_i64_or(amount, S("tokens"), 0), ms = json_i64_or(amount, S("time_ms"), 0);
    int64_t calls = json_i64_or(amount, S("tool_calls"), 0);
    if (tokens != 0)
        strbuf_printf(&b, "%lld tokens", (long long) tokens);
    if (calls != 0)
        strbuf_printf(&b, "%s%lld tool call%s", b.len ? ", " : "", (long long) calls,
                      calls == 1 ? "" : "s");
    if (ms != 0)
        strbuf_printf(&b, "%s%lld.%03lld s", b.len ? ", " : "", (long long) (ms / 1000),
                      (long long) (ms % 1000));
    if (str_to_i64(text_of(amount, S("cost_nanousd")), &nanousd) && nanousd != 0)
        strbuf_printf(&b, "%s$" STR_FMT, b.len ? ", " : "",
                      STR_ARG(money_format_usd(arena, nanousd)));
    return b.len ? strbuf_str(&b) : S("nothing");
}

static str short_json(struct arena *arena, const struct json *value)
{
    return output_short(arena, value ? json_print(arena, value) : STR_NONE, SHOWN_BYTES_MAX);
}

/* ---- events ---- */

static void show_message(struct run_view *view, struct arena *arena, const struct json *data)
{
    if (str_equal(text_of(data, S("role")), S("user")))
        line(view, STYLE_BOLD, "question", output_short(arena, text_of(data, S("content")), 2000));
}

/* Of a decision by labels that held something back: the texts that it was for. */
static void show_because(struct run_view *view, struct arena *arena, const struct json *data)
{
    struct json_iter it = json_iter(json_get(data, S("because")));
    const struct json *item;
    if (str_equal(text_of(data, S("verdict")), S("allow")))
        return;
    while (json_next(&it, NULL, &item)) {
        const struct json *label = json_get(item, S("label"));
        line(view, STYLE_DIM, "because",
             str_printf(arena, STR_FMT "%s%s", STR_ARG(text_of(item, S("source"))),
                        json_bool_or(label, S("untrusted"), true) ? "  untrusted" : "",
                        json_bool_or(label, S("private"), true) ? "  private" : ""));
    }
}

static void show_policy(struct run_view *view, struct arena *arena, const struct json *data)
{
    str verdict = text_of(data, S("verdict"));
    bool is_allowed = str_equal(verdict, S("allow"));
    str why = is_allowed ? text_of(data, S("rule")) : text_of(data, S("reason"));
    line(view, is_allowed ? STYLE_GREEN : STYLE_YELLOW, "policy",
         str_printf(arena, STR_FMT "  " STR_FMT " " STR_FMT "  (" STR_FMT ")", STR_ARG(verdict),
                    STR_ARG(text_of(data, S("action"))), STR_ARG(text_of(data, S("resource"))),
                    STR_ARG(why)));
    show_because(view, arena, data);
}

static void show_reserved(struct run_view *view, struct arena *arena, const struct json *data)
{
    const struct json *tokens = json_path(data, S("/remaining/tokens"));
    line(view, STYLE_DIM, "budget",
         str_printf(arena,
                    "reserved for the " STR_FMT ": " STR_FMT "  (then left: " STR_FMT " tokens)",
                    STR_ARG(text_of(data, S("for"))),
                    STR_ARG(amount_text(arena, json_get(data, S("amount")))),
                    STR_ARG(json_type(tokens) == JSON_INTEGER ? json_print(arena, tokens)
                                                              : S("unlimited"))));
}

static void show_settled(struct run_view *view, struct arena *arena, const struct json *data)
{
    line(view, STYLE_DIM, "budget",
         str_printf(arena, "used by the " STR_FMT ": " STR_FMT, STR_ARG(text_of(data, S("for"))),
                    STR_ARG(amount_text(arena, json_get(data, S("amount"))))));
}

static void show_refused(struct run_view *view, struct arena *arena, const struct json *data)
{
    line(view, STYLE_RED, "budget",
         str_printf(arena, "refused: " STR_FMT, STR_ARG(text_of(data, S("message")))));
}

static void show_model(struct run_view *view, struct arena *arena, const struct json *data)
{
    line(view, STYLE_CYAN, "model",
         str_printf(arena, STR_FMT "  (step %lld, provider " STR_FMT ")",
                    STR_ARG(text_of(data, S("model"))), (long long) json_i64_or(data, S("step"), 0),
                    STR_ARG(text_of(data, S("provider")))));
}

static void show_delta(struct run_view *view, struct arena *arena, const struct json *data)
{
    (void) arena;
    int64_t attempt = json_i64_or(data, S("attempt"), 0);
    if (!view->streams)
        return;
    if (attempt != view->attempt) /* a newer attempt voids what the older one said */
        close_line(view);
    view->attempt = attempt;
    output_text(stdout, text_of(data, S("text")), true);
    fflush(stdout);
    view->is_line_open = view->has_shown_deltas = true;
}

static void show_model_failed(struct run_view *view, struct arena *arena, const struct json *data)
{
    line(view, STYLE_RED, "model",
         str_printf(arena, "failed: " STR_FMT "%s", STR_ARG(text_of(data, S("message"))),
                    json_bool_or(data, S("will_retry"), false) ? "  (another attempt follows)"
                                                               : ""));
}

static void show_tool(struct run_view *view, struct arena *arena, const struct json *data)
{
    line(view, STYLE_CYAN, "tool",
         str_printf(arena, STR_FMT " " STR_FMT "  " STR_FMT, STR_ARG(text_of(data, S("name"))),
                    STR_ARG(text_of(data, S("version"))),
                    STR_ARG(short_json(arena, json_get(data, S("input"))))));
}

static void show_tool_result(struct run_view *view, struct arena *arena, const struct json *data)
{
    str status = text_of(data, S("status"));
    bool is_ok = str_equal(status, S("succeeded"));
    str result =
        is_ok ? short_json(arena, json_get(data, S("output"))) : text_of(data, S("message"));
    line(view, is_ok ? STYLE_GREEN : STYLE_RED, "result",
         str_printf(arena, STR_FMT " in %lld ms  " STR_FMT, STR_ARG(status),
                    (long long) json_i64_or(data, S("latency_ms"), 0), STR_ARG(result)));
}

static void show_approval(struct run_view *view, struct arena *arena, const struct json *data)
{
    int64_t expires_us = json_i64_or(data, S("expires_at"), 0); /* a text where it is no number */
    str until = expires_us > 0 ? time_str(arena, expires_us)
                               : output_value(arena, json_get(data, S("expires_at")));
    line(view, STYLE_YELLOW, "approval",
         str_printf(arena, "needed: " STR_FMT "  (until " STR_FMT ")",
                    STR_ARG(text_of(data, S("approval_id"))), STR_ARG(until)));
}

static void show_decision(struct run_view *view, struct arena *arena, const struct json *data)
{
    line(view, STYLE_YELLOW, "approval",
         str_printf(arena, STR_FMT " by " STR_FMT, STR_ARG(text_of(data, S("decision"))),
                    STR_ARG(output_value(arena, json_get(data, S("approver"))))));
}

static void note_waiting(struct run_view *view, struct arena *arena, const struct json *data)
{
    (void) arena;
    str id = STR_NONE;
    bool is_clock = json_type(json_get(data, S("wakes_at"))) > JSON_NULL &&
                    json_count(json_get(data, S("approvals"))) == 0;
    if (is_clock) /* nobody has to do anything: it goes on */
        return;
    (void) json_to_str(json_at(json_get(data, S("approvals")), 0), &id);
    view->is_waiting = true;
    snprintf(view->approval_id, sizeof view->approval_id, STR_FMT, STR_ARG(id));
    close_line(view);
}

/* "  step      each[3].book" */
static void show_step(struct run_view *view, struct arena *arena, const struct json *data)
{
    str attempt =
        json_i64_or(data, S("attempt"), 1) > 1
            ? str_printf(arena, "  (attempt %lld)", (long long) json_i64_or(data, S("attempt"), 1))
            : STR_NONE;
    line(view, STYLE_CYAN, "step",
         str_printf(arena, STR_FMT STR_FMT, STR_ARG(text_of(data, S("step"))), STR_ARG(attempt)));
}

static void show_step_failed(struct run_view *view, struct arena *arena, const struct json *data)
{
    line(view, STYLE_RED, "step",
         str_printf(arena, STR_FMT " failed: " STR_FMT, STR_ARG(text_of(data, S("step"))),
                    STR_ARG(text_of(data, S("message")))));
}

static void note_child(struct run_view *view, struct arena *arena, const struct json *data)
{
    (void) arena;
    (void) data;
    view->has_children = true;
}

static void show_completed(struct run_view *view, struct arena *arena, const struct json *data)
{
    view->is_completed = true;
    view->is_cut_short = json_get(data, S("ended_by")) != NULL;
    close_line(view);
    if (!view->has_shown_deltas && !view->is_json) {
        output_text(stdout, text_of(data, S("content")), true);
        fputc('\n', stdout);
        fflush(stdout);
    }
    if (!view->has_children) /* else run_view_total tells */
        line(view, STYLE_BOLD, "cost", amount_text(arena, json_get(data, S("cost"))));
}

static void show_failed(struct run_view *view, struct arena *arena, const struct json *data)
{
    view->is_failed = true;
    view->failure = REASON_INTERNAL;
    (void) error_reason_find(text_of(data, S("error")), &view->failure);
    line(view, STYLE_RED, "failed",
         str_printf(arena, STR_FMT ": " STR_FMT, STR_ARG(text_of(data, S("error"))),
                    STR_ARG(text_of(data, S("message")))));
}

static void show_cancelled(struct run_view *view, struct arena *arena, const struct json *data)
{
    view->is_cancelled = true;
    line(view, STYLE_YELLOW, "cancelled",
         str_printf(arena, "by " STR_FMT, STR_ARG(text_of(data, S("by")))));
}

static const struct {
    const char *type;
    void (*show)(struct run_view *view, struct arena *arena, const struct json *data);
} shows[] = {
    {"message.added", show_message},       {"policy.decided", show_policy},
    {"budget.reserved", show_reserved},    {"budget.settled", show_settled},
    {"budget.refused", show_refused},      {"model.requested", show_model},
    {"model.delta", show_delta},           {"model.failed", show_model_failed},
    {"tool.intended", show_tool},          {"tool.completed", show_tool_result},
    {"approval.requested", show_approval}, {"approval.decided", show_decision},
    {"run.waiting", note_waiting},         {"run.completed", show_completed},
    {"run.failed", show_failed},           {"run.cancelled", show_cancelled},
    {"run.step_started", show_step},       {"run.step_failed", show_step_failed},
    {"run.child_started", note_child},
};

bool run_view_event(struct run_view *view, struct context *ctx, const struct run_event *event)
{
    bool is_quiet = view->is_quiet;
    if (view->is_json) {
        printf("{\"seq\":%lld,\"type\":\"" STR_FMT "\",\"data\":" STR_FMT "}\n",
               (long long) event->seq, STR_ARG(event->type), STR_ARG(event->text));
        fflush(stdout);
        view->is_quiet = true;
    }
    for (size_t i = 0; i < ARRAY_COUNT(shows); i++)
        if (str_equal(event->type, str_from_cstr(shows[i].type)))
            shows[i].show(view, ctx->arena, event->data);
    view->is_quiet = is_quiet;
    return !view->is_waiting && !run_event_is_final(event->type);
}

/* As JSON it is no event of the run, and so has no number. */
static void print_wait(struct arena *arena, const struct awaited_approval *approval)
{
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, 1024);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("type"), S("waiting_on"));
    json_key(&w, S("data"));
    json_object_begin(&w);
    json_put_str(&w, S("approval_id"), approval->id);
    json_put_str(&w, S("run_id"), approval->run_id);
    json_object_end(&w);
    json_object_end(&w);
    printf(STR_FMT "\n", STR_ARG(strbuf_str(&text)));
    fflush(stdout);
}

bool run_view_wait(struct run_view *view, struct context *ctx,
                   const struct awaited_approval *approval)
{
    if (view->is_json)
        print_wait(ctx->arena, approval);
    else
        line(view, STYLE_YELLOW, "approval",
             str_printf(ctx->arena, "needed: " STR_FMT "  (by run " STR_FMT ")",
                        STR_ARG(approval->id), STR_ARG(approval->run_id)));
    if (!view->is_waiting)
        snprintf(view->approval_id, sizeof view->approval_id, STR_FMT, STR_ARG(approval->id));
    view->is_waiting = true;
    view->wait_count++;
    return false;
}

void run_view_tell_waiting(const struct run_view *view, str server, str data)
{
    if (view->is_json || !view->is_waiting)
        return;
    if (!view->approval_id[0]) {
        fprintf(stderr, "\nThe run waits for a signal, or for results of its client's tools.\n");
        return;
    }
    fprintf(stderr, "\nThe run waits for an approval by another person.  To see and to decide:\n");
    if (!str_is_empty(data))
        fprintf(stderr, "  nexus serve --data " STR_FMT "\n", STR_ARG(data));
    fprintf(stderr,
            "  nexus approval show %s --server " STR_FMT
            "\n  nexus approval approve %s --server " STR_FMT "\n",
            view->approval_id, STR_ARG(server), view->approval_id, STR_ARG(server));
    if (view->wait_count > 1)
        fprintf(stderr, "It waits for %d; all are in\n  nexus approval list --server " STR_FMT "\n",
                view->wait_count, STR_ARG(server));
}

void run_view_total(struct run_view *view, struct client *client, struct context *ctx, str run_id)
{
    const struct json *run;
    struct error e = {0};
    if (!view->is_completed || !view->has_children || view->is_json || view->is_quiet)
        return;
    str path = client_path(ctx, "/api/v1/runs/{}", &run_id);
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &run, &e)) {
        line(view, STYLE_BOLD, "cost",
             str_printf(ctx->arena, "could not be asked for: %s", e.message));
        return;
    }
    const struct json *total = json_get(run, S("cost_total"));
    bool is_whole = json_type(total) == JSON_OBJECT;
    str amount = amount_text(ctx->arena, is_whole ? total : json_get(run, S("cost")));
    line(view, STYLE_BOLD, "cost",
         str_printf(ctx->arena, STR_FMT "  (%s the runs that it began)", STR_ARG(amount),
                    is_whole ? "with" : "without"));
}

int run_view_exit_code(const struct run_view *view)
{
    if (view->is_completed)
        return view->is_cut_short ? error_exit_code(REASON_BUDGET) : EXIT_DONE;
    if (view->is_waiting)
        return EXIT_WAITING;
    if (!view->is_failed)
        return EXIT_FAILED;
    int code = error_exit_code(view->failure);
    return code == EXIT_USAGE ? EXIT_FAILED : code; /* the command line was right: the run failed */
}
