/* nexus tool new, build, test, publish */
#include "cli/tool/tool_author.h"

#include "base/arena.h"
#include "base/limits.h"
#include "cli/api.h"
#include "cli/tool/tool_cases.h"
#include "cli/tool/tool_pack.h"

#include <sys/stat.h>

enum { TEST_JSON_BYTES_MAX = 32 << 20 };

static str folder_of(const struct arguments *arguments)
{
    str folder = arguments_operand(arguments, 0);
    while (folder.len > 1 && folder.ptr[folder.len - 1] == '/')
        folder.len--;
    return str_is_empty(folder) ? S(".") : folder;
}

static str in_folder(struct arena *arena, str folder, str name)
{
    return str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(name));
}

/* ---- build ---- */

static const char *abi_text(enum tool_abi abi)
{
    switch (abi) {
    case TOOL_ABI_WASI_COMMAND: return "wasi-command";
    case TOOL_ABI_NEXUS_EXPORT: return "nexus-export";
    case TOOL_ABI_COMPONENT: return "component";
    case TOOL_ABI_MCP: return "mcp";
    }
    return "";
}

static int64_t file_bytes(struct arena *arena, str path)
{
    struct stat status;
    return stat(str_to_cstr(arena, path), &status) == 0 ? status.st_size : 0;
}

static void write_built(struct json_writer *w, struct arena *arena, const struct tool *tool)
{
    json_object_begin(w);
    json_put_str(w, S("name"), tool->name);
    json_put_str(w, S("version"), tool->version);
    json_key(w, S("modules"));
    json_array_begin(w);
    for (size_t i = 0; i < tool_module_total(tool); i++) {
        digest sum;
        str path = tool_module_at(tool, i, &sum);
        enum tool_abi abi = tool->module_count > 0 ? tool->modules[i].abi : tool->abi;
        json_object_begin(w);
        json_put_str(w, S("file"), path);
        json_put_str(w, S("abi"), str_from_cstr(abi_text(abi)));
        json_put_i64(w, S("bytes"), file_bytes(arena, path));
        json_put_str(w, S("sha256"), digest_hex(arena, sum));
        json_object_end(w);
    }
    json_array_end(w);
    json_object_end(w);
}

static void print_built(struct arena *arena, const struct tool *tool)
{
    printf("built " STR_FMT " " STR_FMT "\n", STR_ARG(tool->name), STR_ARG(tool->version));
    for (size_t i = 0; i < tool_module_total(tool); i++) {
        digest sum;
        str path = tool_module_at(tool, i, &sum);
        enum tool_abi abi = tool->module_count > 0 ? tool->modules[i].abi : tool->abi;
        printf("  " STR_FMT "  %s  %lld bytes  sha256 " STR_FMT "\n", STR_ARG(path), abi_text(abi),
               (long long) file_bytes(arena, path), STR_ARG(digest_hex(arena, sum)));
    }
}

static bool make_module(struct arena *arena, str folder, struct error *e)
{
    struct tool tool;
    struct tool_recipe recipe;
    str text, file = in_folder(arena, folder, PACKAGE_MANIFEST);
    return tool_pack_read_file(arena, file, MANIFEST_BYTES_MAX, &text, e) &&
           package_manifest(arena, file, text, &tool, e) &&
           tool_recipe_read(arena, folder, tool_module_at(&tool, 0, NULL), &recipe, e) &&
           tool_recipe_run(arena, folder, &recipe, e);
}

static bool build_folder(struct cli *cli, str folder, bool is_json, struct error *e)
{
    OWNED(tool_trial) trial = NULL;
    struct strbuf text;
    struct json_writer w;
    if (!make_module(cli->arena, folder, e) || !tool_trial_create(cli->arena, folder, &trial, e))
        return false;
    if (!is_json) {
        print_built(cli->arena, tool_trial_tool(trial));
        return true;
    }
    strbuf_init(&text, cli->arena, 64u << 10);
    json_writer_init(&w, &text);
    write_built(&w, cli->arena, tool_trial_tool(trial));
    printf(STR_FMT "\n", STR_ARG(strbuf_str(&text)));
    return true;
}

static int build(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    return build_folder(cli, folder_of(arguments), arguments_has(arguments, "json"), &e)
               ? EXIT_DONE
               : command_fail(cli, "tool build", &e);
}

/* ---- test ---- */

static bool read_cases(struct arena *arena, str folder, struct tool_cases *out, struct error *e)
{
    str text, file = in_folder(arena, folder, TOOL_TESTS_FILE);
    return tool_pack_read_file(arena, file, TOOL_TESTS_BYTES_MAX, &text, e) &&
           tool_cases_read(arena, file, text, out, e);
}

static void print_verdict(struct cli *cli, FILE *out, const struct tool_case *test,
                          const struct tool_verdict *verdict)
{
    bool has_colours = out == stdout && cli->is_terminal_out && cli->has_colours;
    const struct tool_result *result = &verdict->result;
    fprintf(out, "%s%s%s  ", style_on(has_colours, verdict->is_ok ? STYLE_GREEN : STYLE_RED),
            verdict->is_ok ? "ok  " : "FAIL", style_off(has_colours));
    output_text(out, test->name, false);
    fprintf(out, "  (%.2f ms, fuel %lld, memory %zu KiB)\n", (double) result->latency_us / 1000,
            (long long) result->fuel, result->memory_bytes >> 10);
    for (size_t i = 0; i < verdict->difference_count; i++) {
        fprintf(out, "      ");
        output_text(out, verdict->differences[i], false);
        fprintf(out, "\n");
    }
    if (!verdict->is_ok && !str_is_empty(result->log)) {
        fprintf(out, "      log: ");
        output_text(out, str_trim(result->log), false);
        fprintf(out, "\n");
    }
}

static void write_verdict(struct json_writer *w, const struct tool_case *test,
                          const struct tool_verdict *verdict)
{
    const struct tool_result *result = &verdict->result;
    json_object_begin(w);
    json_put_str(w, S("name"), test->name);
    json_put_bool(w, S("ok"), verdict->is_ok);
    json_put_i64(w, S("latency_us"), result->latency_us);
    json_put_i64(w, S("cpu_us"), result->cpu_us);
    json_put_i64(w, S("fuel"), result->fuel);
    json_put_i64(w, S("memory_bytes"), (int64_t) result->memory_bytes);
    if (!str_is_empty(result->log))
        json_put_str(w, S("log"), result->log);
    json_key(w, S("differences"));
    json_array_begin(w);
    for (size_t i = 0; i < verdict->difference_count; i++)
        json_write_str(w, verdict->differences[i]);
    json_array_end(w);
    json_object_end(w);
}

/* Runs those that `only` names (empty: all), told one by one; as one JSON document at the end. */
static size_t run_cases(struct cli *cli, struct tool_trial *trial, const struct tool_cases *cases,
                        str only, FILE *out, struct json_writer *w, size_t *failed)
{
    size_t count = 0;
    for (size_t i = 0; i < cases->count; i++) {
        OWNED(arena) arena = arena_create(256u << 20);
        struct tool_verdict verdict;
        if (!str_is_empty(only) && !str_equal(only, cases->items[i].name))
            continue;
        tool_trial_run(trial, arena, &cases->items[i], &verdict);
        count++;
        *failed += !verdict.is_ok;
        if (w)
            write_verdict(w, &cases->items[i], &verdict);
        else
            print_verdict(cli, out, &cases->items[i], &verdict);
    }
    return count;
}

struct test_run {
    str folder, only; /* `only` empty: all */
    FILE *out;
    bool is_json;
    size_t failed;
};

static bool test_folder(struct cli *cli, struct test_run *run, struct error *e)
{
    OWNED(tool_trial) trial = NULL;
    struct tool_cases cases;
    struct strbuf text;
    struct json_writer w;
    if (!read_cases(cli->arena, run->folder, &cases, e) ||
        !tool_trial_create(cli->arena, run->folder, &trial, e))
        return false;
    strbuf_init(&text, cli->arena, TEST_JSON_BYTES_MAX);
    json_writer_init(&w, &text);
    json_object_begin(&w);
    json_key(&w, S("tests"));
    json_array_begin(&w);
    size_t count =
        run_cases(cli, trial, &cases, run->only, run->out, run->is_json ? &w : NULL, &run->failed);
    json_array_end(&w);
    json_put_i64(&w, S("passed"), (int64_t) (count - run->failed));
    json_put_i64(&w, S("failed"), (int64_t) run->failed);
    json_object_end(&w);
    if (count == 0)
        return str_is_empty(run->only)
                   ? error_set(e, REASON_USAGE, STR_FMT "/tests.yaml has no test",
                               STR_ARG(run->folder))
                   : error_set(e, REASON_USAGE, "there is no test \"" STR_FMT "\"",
                               STR_ARG(run->only));
    if (run->is_json)
        fprintf(run->out, STR_FMT "\n", STR_ARG(strbuf_str(&text)));
    else
        fprintf(run->out, "%zu passed, %zu failed\n", count - run->failed, run->failed);
    return true;
}

static int test(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    struct test_run run = {.folder = folder_of(arguments),
                           .only = arguments_get(arguments, "case"),
                           .out = stdout,
                           .is_json = arguments_has(arguments, "json")};
    if (!test_folder(cli, &run, &e))
        return command_fail(cli, "tool test", &e);
    return run.failed > 0 ? EXIT_FAILED : EXIT_DONE;
}

/* ---- publish ---- */

/* A signature that was made before the last build is told of here, not by the server. */
static bool check_signature(struct arena *arena, str folder, struct error *e)
{
    struct package package;
    struct tool tool;
    struct package_signature signature;
    if (!tool_pack_folder(arena, folder, &package, &tool, e))
        return false;
    const struct package_file *manifest = package_find(&package, PACKAGE_MANIFEST),
                              *sealed = package_find(&package, PACKAGE_SIGNATURE);
    return !sealed ||
           package_verify(sealed->bytes, package_seal(&tool, digest_sha256(manifest->bytes)),
                          &signature, e) ||
           error_wrap(e, "the folder's manifest.sig: sign again (--sign KEYFILE) or remove it");
}

/* A way to call it that can be copied: the first test that is to succeed. */
static void print_call(struct cli *cli, str folder, const struct json *answer)
{
    struct tool_cases cases;
    struct error none;
    str input = S("{}");
    if (read_cases(cli->arena, folder, &cases, &none))
        for (size_t i = cases.count; i > 0; i--)
            if (!cases.items[i - 1].is_failure)
                input = cases.items[i - 1].input;
    printf("call it: nexus tool invoke ");
    output_text(stdout, json_str_or(answer, S("name"), STR_NONE), false);
    printf(" '");
    for (size_t i = 0; i < input.len; i++)
        if (input.ptr[i] == '\'')
            printf("'\\''");
        else
            output_text(stdout, str_slice(input, i, i + 1), false);
    printf("'\n");
}

static bool upload(struct client *client, struct context *ctx, struct error *e)
{
    const struct json *answer;
    str folder = folder_of(client->arguments);
    if (!tool_upload(client, ctx, folder, &answer, e))
        return false;
    if (client->is_json) {
        output_json(ctx->arena, answer);
        return true;
    }
    str name = json_str_or(answer, S("name"), STR_NONE);
    printf("%s " STR_FMT " " STR_FMT "\n",
           json_bool_or(answer, S("is_new"), true) ? "published" : "was there already:",
           STR_ARG(name), STR_ARG(json_str_or(answer, S("version"), STR_NONE)));
    printf("address: " STR_FMT "/api/v1/tools/" STR_FMT "\n", STR_ARG(client->base_url),
           STR_ARG(name));
    print_call(client->cli, folder, answer);
    return true;
}

/* Everything before the server.  With --json the tests are told on stderr: stdout is the answer. */
static bool prepare(struct cli *cli, const struct arguments *arguments, struct error *e)
{
    struct test_run run = {.folder = folder_of(arguments),
                           .out = arguments_has(arguments, "json") ? stderr : stdout};
    str key = arguments_get(arguments, "sign");
    if (!make_module(cli->arena, run.folder, e) || !test_folder(cli, &run, e))
        return false;
    if (run.failed > 0)
        return error_set(e, REASON_TOOL_FAILED, "%zu tests failed: nothing was published",
                         run.failed);
    return (str_is_empty(key) || tool_sign(cli->arena, run.folder, key, e)) &&
           check_signature(cli->arena, run.folder, e);
}

static int publish(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    str archive;
    if (!prepare(cli, arguments, &e))
        return command_fail(cli, "tool publish", &e);
    if (!arguments_has(arguments, "dry-run"))
        return client_main(cli, "tool publish", arguments, upload);
    if (!tool_pack(cli->arena, folder_of(arguments), &archive, &e))
        return command_fail(cli, "tool publish", &e);
    if (arguments_has(arguments, "json"))
        printf("{\"package_bytes\":%zu,\"sha256\":\"" STR_FMT "\",\"sent\":false}\n", archive.len,
               STR_ARG(digest_hex(cli->arena, digest_sha256(archive))));
    else
        printf("would publish a package of %zu bytes; nothing was sent\n", archive.len);
    return EXIT_DONE;
}

/* ---- the table ---- */

static const struct option new_options[] = {
    {"language", 'l', "c|go|other", false, "the template's; else c"},
    {"category", 0, "CATEGORY", false, "as policies name it; else text_processing"},
};
static const struct option build_options[] = {{"json", 'j', NULL, false, "JSON instead of text"}};
static const struct option test_options[] = {
    {"case", 0, "NAME", false, "only the test of this name"},
    {"json", 'j', NULL, false, "JSON instead of text"},
};
static const struct option publish_options[] = {
    {"sign", 0, "KEYFILE", false, "sign it with this private key (tool keygen)"},
    {"dry-run", 'n', NULL, false, "everything but the upload"},
    {"platform", 'p', NULL, false, "for all tenants, not only your own; needs the scope platform"},
};
static const struct command commands[] = {
    {.name = "tool new",
     .operands = "NAME [DIR]",
     .summary = "Make the folder of a new tool, with source and tests that work",
     .details = "Only into a new or empty folder.  docs/tool-authors.md goes through it.",
     .example = "tool new word_count --language go",
     .options = new_options,
     .option_count = ARRAY_COUNT(new_options),
     .run = tool_new},
    {.name = "tool build",
     .operands = "[DIR]",
     .summary = "Make a tool's module as its tool.build says, and check it like the server",
     .example = "tool build ./word_count",
     .options = build_options,
     .option_count = ARRAY_COUNT(build_options),
     .run = build},
    {.name = "tool test",
     .operands = "[DIR]",
     .summary = "Run a tool's tests.yaml in the sandbox, without a server",
     .details = "Exit codes: 0 all passed, 1 some failed, 2 a file is not as it should be.",
     .example = "tool test ./word_count --case 'counts words'",
     .options = test_options,
     .option_count = ARRAY_COUNT(test_options),
     .run = test},
    {.name = "tool publish",
     .operands = "[DIR]",
     .summary = "Build, test, sign and install a tool on a server",
     .example = "tool publish ./word_count --sign author.key",
     .options = publish_options,
     .option_count = ARRAY_COUNT(publish_options),
     .is_client = true,
     .run = publish},
};
const struct command_group tool_author_commands = {commands, ARRAY_COUNT(commands)};
