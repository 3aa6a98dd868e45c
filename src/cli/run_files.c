/* nexus runs replay, fork, diff, export, test: what a recorded run is good for */
#include "cli/run_files.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/uuid.h"
#include "cli/api.h"
#include "orchestrator/replay/run_case.h"
#include "orchestrator/replay/run_diff.h"
#include "orchestrator/replay/run_export.h"
#include "orchestrator/replay/run_replay.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- files and exports ---- */

bool run_operand_is_id(str operand)
{
    uuid id;
    return uuid_parse(operand, &id);
}

bool run_file_read(struct arena *arena, str path, str *out, struct error *e)
{
    size_t most = RUN_EXPORT_BYTES_MAX + (2u << 20);
    FILE *file = fopen(str_to_cstr(arena, path), "re");
    if (!file)
        return error_set(e, REASON_NOT_FOUND, STR_FMT ": %s", STR_ARG(path),
                         strerrordesc_np(errno));
    char *text = arena_alloc_raw(arena, most + 1);
    size_t got = fread(text, 1, most + 1, file);
    bool is_bad = ferror(file) != 0;
    (void) fclose(file);
    if (is_bad || got > most)
        return error_set(e, REASON_TOO_LARGE, STR_FMT " cannot be read, or is over %zu bytes",
                         STR_ARG(path), most);
    *out = str_of(arena_resize_raw(arena, text, most + 1, got), got);
    return true;
}

bool run_file_write(struct arena *arena, str path, str text, struct error *e)
{
    FILE *file = fopen(str_to_cstr(arena, path), "we");
    bool ok = file != NULL && fwrite(text.ptr, 1, text.len, file) == text.len;
    if (file && fclose(file) != 0)
        ok = false;
    return ok || error_set(e, REASON_INTERNAL, STR_FMT " could not be written: %s", STR_ARG(path),
                           strerrordesc_np(errno));
}

bool run_export_fetch(struct client *client, struct context *ctx, str id, str *out, struct error *e)
{
    const struct json *document;
    str path = client_path(ctx, "/api/v1/runs/{}/export", &id);
    if (!client_call(client, ctx, HTTP_GET, path, STR_NONE, &document, e))
        return false;
    *out = json_print(ctx->arena, document);
    return true;
}

/* A record is looked at before it is used, so that one that is broken is told by its name. */
static bool check_record(struct arena *arena, str name, str text, struct error *e)
{
    struct run_recording *record = ARENA_NEW(arena, struct run_recording);
    return run_recording_read(arena, text, record, e) ||
           error_wrap(e, STR_FMT, STR_ARG(str_cut_utf8(name, 200)));
}

static bool fetch(struct client *client, struct context *ctx, str operand, str *out,
                  struct error *e)
{
    if (run_operand_is_id(operand))
        return run_export_fetch(client, ctx, operand, out, e);
    return run_file_read(ctx->arena, operand, out, e) && check_record(ctx->arena, operand, *out, e);
}

/* ---- replay ---- */

void run_show_side(const char *name, str text)
{
    printf("    %s ", name);
    output_text(stdout, str_is_empty(text) ? S("(nothing)") : str_cut_utf8(text, 2000), false);
    printf("\n");
}

static int show_report(struct cli *cli, const struct json *report, bool is_json)
{
    struct json_iter it = json_iter(json_get(report, S("differences")));
    const struct json *item;
    bool is_same = json_bool_or(report, S("same"), false);
    if (is_json) {
        output_json(cli->arena, report);
        return is_same ? EXIT_DONE : EXIT_FAILED;
    }
    printf("%s: %lld of %lld events compared, %lld model calls, %lld tool calls, %lld restarts\n",
           is_same ? "same" : "different", (long long) json_i64_or(report, S("compared"), 0),
           (long long) json_i64_or(report, S("events"), 0),
           (long long) json_i64_or(report, S("model_calls"), 0),
           (long long) json_i64_or(report, S("tool_calls"), 0),
           (long long) json_i64_or(report, S("restarts"), 0));
    while (json_next(&it, NULL, &item)) {
        printf("  event %lld ", (long long) json_i64_or(item, S("seq"), 0));
        output_text(stdout, json_str_or(item, S("what"), STR_NONE), false);
        printf("\n");
        run_show_side("recorded", json_str_or(item, S("recorded"), STR_NONE));
        run_show_side("replayed", json_str_or(item, S("replayed"), STR_NONE));
    }
    return is_same ? EXIT_DONE : EXIT_FAILED;
}

static bool replay_there(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *report;
    if (!client_call(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/runs/{}/replay"),
                     STR_NONE, &report, e))
        return false;
    client->exit_code = show_report(client->cli, report, client->is_json);
    return true;
}

static bool replay_here(struct arena *arena, str path, const struct json **report, struct error *e)
{
    str text, out;
    bool is_same;
    if (!run_file_read(arena, path, &text, e))
        return false;
    if (!run_replay_json(arena, text, &out, &is_same, e))
        return error_wrap(e, STR_FMT, STR_ARG(str_cut_utf8(path, 200)));
    return json_parse(arena, out, (struct json_limits){0}, report, e);
}

static int replay(struct cli *cli, const struct arguments *arguments)
{
    const struct json *report;
    struct error e = {0};
    str operand = arguments_operand(arguments, 0);
    if (run_operand_is_id(operand))
        return client_main(cli, "runs replay", arguments, replay_there);
    if (!replay_here(cli->arena, operand, &report, &e))
        return command_fail(cli, "runs replay", &e);
    return show_report(cli, report, arguments_has(arguments, "json"));
}

/* ---- fork ---- */

static bool fork_run(struct client *client, struct context *ctx, struct error *e)
{
    int64_t at = 0;
    struct strbuf text;
    struct json_writer w;
    str message = arguments_get(client->arguments, "message"),
        model = arguments_get(client->arguments, "model");
    if (!arguments_number(client->arguments, "at", 1, INT64_MAX, &at, e))
        return false;
    if (at == 0)
        return error_set(e, REASON_USAGE, "--at NUMBER: the last event that is shared");
    strbuf_init(&text, ctx->arena, MESSAGE_BYTES_MAX + 4096);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_i64(&w, S("at"), at);
    if (!str_is_empty(message))
        json_put_str(&w, S("message"), message);
    if (!str_is_empty(model))
        json_put_str(&w, S("model"), model);
    json_object_end(&w);
    return api_show(client, ctx, HTTP_POST, api_path(client, ctx, "/api/v1/runs/{}/fork"),
                    strbuf_str(&text), e);
}

/* ---- diff ---- */

static void show_instance_side(const struct json *side)
{
    static const char *const members[] = {"kind", "status", "error", "output"};
    for (size_t i = 0; i < ARRAY_COUNT(members); i++) {
        output_text(stdout,
                    str_cut_utf8(json_str_or(side, str_from_cstr(members[i]), STR_NONE), 300),
                    false);
        printf(" ");
    }
    printf("(attempt %lld)\n", (long long) json_i64_or(side, S("attempts"), 0));
}

static void show_step(const struct json *step)
{
    struct json_iter it = json_iter(json_get(step, S("differs")));
    const struct json *item;
    str name;
    str path = json_str_or(step, S("path"), STR_NONE); /* of a workflow's */
    printf("step %lld  ", (long long) json_i64_or(step, S("step"), 0));
    output_text(stdout, path, false);
    printf("%s", str_is_empty(path) ? "" : "  ");
    if (json_bool_or(step, S("same"), false)) {
        printf("same\n");
        return;
    }
    while (json_next(&it, NULL, &item))
        if (json_to_str(item, &name))
            printf(STR_FMT " ", STR_ARG(name));
    printf("\n");
    static const char *const sides[] = {"a", "b"};
    for (size_t i = 0; i < ARRAY_COUNT(sides); i++) {
        const struct json *side = json_get(step, str_from_cstr(sides[i])), *call;
        if (json_type(side) != JSON_OBJECT)
            continue;
        struct json_iter calls = json_iter(json_get(side, S("tool_calls")));
        printf("    %s ", sides[i]);
        if (!str_is_empty(path)) {
            show_instance_side(side);
            continue;
        }
        output_text(stdout, json_str_or(side, S("model"), STR_NONE), false);
        printf(": ");
        output_text(stdout, str_cut_utf8(json_str_or(side, S("text"), STR_NONE), 300), false);
        printf("\n");
        while (json_next(&calls, NULL, &call)) {
            printf("      ");
            output_text(stdout, json_str_or(call, S("name"), STR_NONE), false);
            printf(" ");
            output_text(stdout, json_str_or(call, S("status"), STR_NONE), false);
            printf("\n");
        }
    }
}

static int show_diff(struct arena *arena, str text, bool is_json, struct error *e)
{
    const struct json *diff, *step;
    if (!json_parse(arena, text, (struct json_limits){.bytes_max = RUN_EXPORT_BYTES_MAX}, &diff, e))
        return EXIT_FAILED;
    struct json_iter it = json_iter(json_get(diff, S("steps")));
    if (is_json)
        output_json(arena, diff);
    while (!is_json && json_next(&it, NULL, &step))
        show_step(step);
    return json_bool_or(diff, S("same"), false) ? EXIT_DONE : EXIT_FAILED;
}

static bool diff(struct client *client, struct context *ctx, struct error *e)
{
    str a, b, text;
    bool is_same;
    if (!fetch(client, ctx, arguments_operand(client->arguments, 0), &a, e) ||
        !fetch(client, ctx, arguments_operand(client->arguments, 1), &b, e) ||
        !run_diff_json(ctx->arena, a, b, &text, &is_same, e))
        return false;
    client->exit_code = show_diff(ctx->arena, text, client->is_json, e);
    return e->code == ERROR_OK;
}

/* ---- export ---- */

static bool export_run(struct client *client, struct context *ctx, struct error *e)
{
    str text, id = arguments_operand(client->arguments, 0),
              file = arguments_get(client->arguments, "as-test"), made;
    if (!run_export_fetch(client, ctx, id, &text, e))
        return false;
    if (!str_is_empty(file)) {
        if (!run_case_write(ctx->arena, text, id, &made, e) ||
            !run_file_write(ctx->arena, file, made, e))
            return false;
        printf("%s " STR_FMT "\n", "written", STR_ARG(file));
        return true;
    }
    printf(STR_FMT "\n", STR_ARG(text));
    return true;
}

/* ---- the table ---- */

static const struct option fork_options[] = {
    {"at", 0, "NUMBER", false, "last event that both share; numbers: runs events RUN --json"},
    {"message", 'm', "TEXT", false, "put after it"},
    {"model", 0, "NAME", false, "in place of the run's"},
};
static const struct option export_options[] = {
    {"as-test", 0, "FILE", false, "write a test case with what is expected, for `nexus runs test`"},
};
static const struct option test_options[] = {
    {"live", 0, NULL, false, "ask the server's model instead of the record"},
    {"model", 0, "NAME", false, "with --live: this model instead of the agent's"},
};
static const struct command commands[] = {
    {.name = "runs replay",
     .operands = "RUN",
     .summary =
         "Run it again over its record, without provider and tools, and compare the journals",
     .details = "RUN is an id, or the file of an export, which needs no server.  Exit 1 when "
                "anything differs; the differences name the event and both sides.",
     .example = "runs replay 01a206dd-432e-765f-bd23-516cfbe0aed5",
     .is_client = true,
     .run = replay},
    {.name = "runs fork",
     .operands = "RUN",
     .summary = "A new run that begins with the first events of another one, by reference",
     .example = "runs fork 01a206dd-432e-765f-bd23-516cfbe0aed5 --at 12 --message 'Now in French'",
     .options = fork_options,
     .option_count = ARRAY_COUNT(fork_options),
     .work = fork_run},
    {.name = "runs diff",
     .operands = "RUN RUN",
     .summary = "Two runs (ids or exports) step by step; exit 1 when they differ",
     .example = "runs diff 01a206dd-432e-765f-bd23-516cfbe0aed5 run.json",
     .work = diff},
    {.name = "runs export",
     .operands = "RUN",
     .summary = "A run as one JSON document, or as a test case",
     .example = "runs export 01a206dd-432e-765f-bd23-516cfbe0aed5 --as-test case.json",
     .options = export_options,
     .option_count = ARRAY_COUNT(export_options),
     .work = export_run},
    {.name = "runs test",
     .operands = "FILE...",
     .summary = "Replay test cases and check what they expect; needs no server",
     .details =
         "With --live a server asks its model again, in a session of its own, and the case's "
         "expectations are held against that run: status, names of the tools called in "
         "their order, `contains` and `schema` of the answer, no denied call, ceilings and "
         "half as much again.  What is not compared is said.",
     .example = "runs test cases/refund.json cases/search.json",
     .options = test_options,
     .option_count = ARRAY_COUNT(test_options),
     .is_client = true,
     .run = run_cases},
};
const struct command_group run_record_commands = {commands, ARRAY_COUNT(commands)};
