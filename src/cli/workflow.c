/* nexus workflow validate, graph: definitions as files, without a server */
#include "base/arena.h"
#include "base/json.h"
#include "base/limits.h"
#include "cli/output.h"
#include "cli/shipped.h"
#include "cli/tool/tool_pack.h"
#include "cli/workflow_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- files ---- */

static bool find_shipped(struct arena *arena, str name, str *out)
{
    struct error ignored;
    str folder;
    if (str_find_char(name, '/') != STR_NOT_FOUND || str_find_char(name, '.') != STR_NOT_FOUND ||
        !shipped_find(arena, "workflows", "a path", &folder, &ignored))
        return false;
    *out = str_printf(arena, STR_FMT "/" STR_FMT ".yaml", STR_ARG(folder), STR_ARG(name));
    return access(str_to_cstr(arena, *out), R_OK) == 0;
}

bool workflow_file_read(struct arena *arena, str *path, str *out, struct error *e)
{
    str shipped;
    if (access(str_to_cstr(arena, *path), F_OK) != 0 && find_shipped(arena, *path, &shipped))
        *path = shipped;
    return tool_pack_read_file(arena, *path, WORKFLOW_BYTES_MAX, out, e);
}

static bool check(struct arena *arena, str *path, struct definition **out,
                  struct definition_problems *problems, struct error *e)
{
    str text;
    *problems = (struct definition_problems){0};
    return workflow_file_read(arena, path, &text, e) &&
           definition_parse(arena, *path, text, out, problems, e);
}

static void tell_problems(const struct cli *cli, str path,
                          const struct definition_problems *problems)
{
    bool has_colours = cli->is_terminal_error && cli->has_colours;
    for (size_t i = 0; i < problems->count; i++) {
        const struct definition_problem *problem = problems->items + i;
        output_text(stderr, path, false);
        if (problem->line > 0)
            fprintf(stderr, ":%u", problem->line);
        if (problem->column > 0)
            fprintf(stderr, ":%u", problem->column);
        fprintf(stderr, ": %s", style_on(has_colours, STYLE_RED));
        output_text(stderr, problem->path, false);
        fprintf(stderr, "%s%s", style_off(has_colours), problem->path.len > 0 ? ": " : "");
        output_text(stderr, problem->message, false);
        fputc('\n', stderr);
    }
}

bool workflow_file_load(struct cli *cli, const char *command, str path, struct definition **out,
                        int *exit)
{
    struct definition_problems problems;
    struct error e = {0};
    if (check(cli->arena, &path, out, &problems, &e))
        return true;
    *exit = problems.count > 0 ? EXIT_USAGE : command_fail(cli, command, &e);
    tell_problems(cli, path, &problems);
    return false;
}

/* ---- validate ---- */

static void write_problems(struct json_writer *w, const struct definition_problems *problems,
                           const struct error *e)
{
    json_key(w, S("problems"));
    json_array_begin(w);
    for (size_t i = 0; i < problems->count; i++) {
        const struct definition_problem *problem = problems->items + i;
        json_object_begin(w);
        json_put_i64(w, S("line"), problem->line);
        json_put_i64(w, S("column"), problem->column);
        json_put_str(w, S("path"), problem->path);
        json_put_str(w, S("message"), problem->message);
        json_object_end(w);
    }
    if (problems->count == 0 && e->code != ERROR_OK) { /* the file could not be read */
        json_object_begin(w);
        json_put_i64(w, S("line"), 0);
        json_put_i64(w, S("column"), 0);
        json_put_str(w, S("path"), STR_NONE);
        json_put_str(w, S("message"), str_from_cstr(e->message));
        json_object_end(w);
    }
    json_array_end(w);
}

static void print_report(struct arena *arena, str path, const struct definition *definition,
                         const struct definition_problems *problems, const struct error *e)
{
    enum { REPORT_BYTES_MAX = 1 << 20 };
    struct strbuf text;
    struct json_writer w;
    strbuf_init(&text, arena, REPORT_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_put_str(&w, S("file"), path);
    json_put_bool(&w, S("valid"), definition != NULL);
    if (definition) {
        json_put_str(&w, S("name"), definition->name);
        json_put_str(&w, S("version"), definition->version);
        json_put_str(&w, S("digest"), definition->digest);
        json_put_i64(&w, S("steps"), (int64_t) definition->step_count);
    }
    write_problems(&w, problems, e);
    json_object_end(&w);
    printf(STR_FMT "\n", STR_ARG(strbuf_str(&text)));
}

/* One file; its exit code. */
static int validate_file(struct cli *cli, str path, bool as_json)
{
    struct definition *definition = NULL;
    struct definition_problems problems;
    struct error e = {0};
    arena_mark mark = arena_save(cli->arena);
    bool ok = check(cli->arena, &path, &definition, &problems, &e);
    int exit = ok ? EXIT_DONE : EXIT_USAGE;
    if (as_json) {
        print_report(cli->arena, path, ok ? definition : NULL, &problems, &e);
    } else if (ok) {
        output_text(stdout, path, false);
        printf(": ok, " STR_FMT " " STR_FMT ", %zu step%s\n", STR_ARG(definition->name),
               STR_ARG(definition->version), definition->step_count,
               definition->step_count == 1 ? "" : "s");
    } else if (problems.count > 0) {
        tell_problems(cli, path, &problems);
    } else {
        exit = command_fail(cli, "workflow validate", &e);
    }
    definition_destroy(definition);
    arena_rewind(cli->arena, mark);
    return exit;
}

static int worse(int a, int b)
{
    return a > b ? a : b;
}

/* All definitions in it, not in folders below it. */
static int validate_folder(struct cli *cli, str folder, bool as_json)
{
    struct dirent **names = NULL;
    struct error e = {0};
    int worst = EXIT_DONE, found = 0;
    int count = scandir(str_to_cstr(cli->arena, folder), &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        str name = str_from_cstr(names[i]->d_name);
        if (workflow_is_file_name(name) && name.ptr[0] != '.') {
            bool has_slash = str_ends_with(folder, S("/"));
            str path = str_printf(cli->arena, STR_FMT "%s" STR_FMT, STR_ARG(folder),
                                  has_slash ? "" : "/", STR_ARG(name));
            worst = worse(worst, validate_file(cli, path, as_json));
            found++;
        }
        free(names[i]);
    }
    free(names);
    if (found > 0)
        return worst;
    error_set(&e, REASON_USAGE, "folder " STR_FMT " has no definitions (*.yaml, *.yml, *.json)",
              STR_ARG(folder));
    return command_fail(cli, "workflow validate", &e);
}

static int validate(struct cli *cli, const struct arguments *arguments)
{
    int worst = EXIT_DONE;
    bool as_json = arguments_has(arguments, "json");
    for (size_t i = 0; i < arguments->operand_count; i++) {
        struct stat about;
        str path = arguments_operand(arguments, i);
        bool is_folder = stat(str_to_cstr(cli->arena, path), &about) == 0 && S_ISDIR(about.st_mode);
        worst = worse(worst, is_folder ? validate_folder(cli, path, as_json)
                                       : validate_file(cli, path, as_json));
    }
    return worst;
}

/* ---- graph ---- */

static int graph(struct cli *cli, const struct arguments *arguments)
{
    struct definition *definition = NULL;
    struct error e = {0};
    int exit = EXIT_DONE;
    str format = arguments_get(arguments, "format"), output = arguments_get(arguments, "output");
    if (str_is_empty(format))
        format = str_ends_with(output, S(".svg")) ? S("svg") : S("mermaid");
    bool is_svg = str_equal(format, S("svg"));
    if (!is_svg && !str_equal(format, S("mermaid"))) {
        error_set(&e, REASON_USAGE, "--format is mermaid or svg");
        return command_fail(cli, "workflow graph", &e);
    }
    if (!workflow_file_load(cli, "workflow graph", arguments_operand(arguments, 0), &definition,
                            &exit))
        return exit;
    str picture = is_svg ? definition_svg(cli->arena, definition)
                         : definition_mermaid(cli->arena, definition);
    if (str_is_empty(output))
        fwrite(picture.ptr, 1, picture.len, stdout);
    else if (!tool_pack_write_file(output, picture, 0644, &e))
        exit = command_fail(cli, "workflow graph", &e);
    definition_destroy(definition);
    return exit;
}

static const struct option validate_options[] = {
    {"json", 0, NULL, false, "one JSON object per file"},
};
static const struct option graph_options[] = {
    {"format", 'f', "FORMAT", false, "mermaid (default) or svg"},
    {"output", 'o', "FILE", false, "write it there; *.svg makes the format svg"},
};
static const struct command commands[] = {
    {.name = "workflow validate",
     .operands = "FILE...",
     .summary = "check definitions of workflows",
     .details =
         "Needs no server. All problems of a file are told, each as FILE:LINE: PATH: WHAT. Of a "
         "folder all definitions in it. A name such as book-trip is a shipped definition. Exit "
         "code 2: there are problems.",
     .example = "workflow validate order.yaml",
     .options = validate_options,
     .option_count = ARRAY_COUNT(validate_options),
     .run = validate},
    {.name = "workflow graph",
     .operands = "FILE",
     .summary = "draw a workflow as Mermaid or SVG",
     .details = "Needs no server. The SVG stands alone: no script, no font, light and dark.",
     .example = "workflow graph order.yaml --output order.svg",
     .options = graph_options,
     .option_count = ARRAY_COUNT(graph_options),
     .run = graph},
};
const struct command_group workflow_commands = {commands, ARRAY_COUNT(commands)};
