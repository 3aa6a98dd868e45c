/* code_execution: runs a script in a sandbox inside the sandbox and gives back its result and output. */
#include <stdio.h>
#include <string.h>

#include "javascript.h"
#include "utf8.h"

static bool check_files(yyjson_val *files, struct tool_error *e)
{
    size_t i, max;
    yyjson_val *name, *content;
    if (files != NULL && !yyjson_is_obj(files))
        return tool_fail(e, "invalid_input", "\"files\" must be an object {name: text}");
    yyjson_obj_foreach(files, i, max, name, content)
    {
        if (!yyjson_is_str(content))
            return tool_fail(e, "invalid_input",
                             "\"files\": the content of \"%s\" must be a string",
                             yyjson_get_str(name));
    }
    return true;
}

static yyjson_val *present(yyjson_val *value)
{
    return yyjson_is_null(value) ? NULL : value;
}

static void add_capture(yyjson_mut_doc *doc, yyjson_mut_val *root, const char *name,
                        struct capture *capture)
{
    char note[80];
    if (capture->dropped > 0) {
        snprintf(note, sizeof note, "\n[%llu more bytes were cut off]\n",
                 (unsigned long long) capture->dropped);
        capture->max += sizeof note;
        capture_add(capture, note, strlen(note));
    }
    char *valid = tool_alloc(capture->len * 3);
    size_t len = utf8_copy_valid(valid, capture->bytes, capture->len);
    yyjson_mut_obj_add_strn(doc, root, name, valid, len);
}

void nexus_prepare(void);

/* Run once when the module is built; calls begin behind it. */
__attribute__((export_name("nexus_prepare"))) void nexus_prepare(void)
{
    script_prepare();
}

bool tool_run(yyjson_val *input, yyjson_mut_doc *output, struct tool_error *e)
{
    static const char *const names[] = {"javascript", "js", NULL};
    struct text language;
    struct script script = {0};
    if (!tool_text(input, "language", &language, e) || !tool_text(input, "code", &script.code, e))
        return false;
    if (tool_choice(language, names) < 0)
        return tool_fail(e, "invalid_input",
                         "language \"" TEXT_FMT
                         "\" is not in this build, which has javascript only; "
                         "rewrite the code in JavaScript",
                         TEXT_ARG(language));
    script.input = yyjson_obj_get(input, "input");
    script.files = present(yyjson_obj_get(input, "files"));
    if (!check_files(script.files, e))
        return false;

    struct script_outcome outcome;
    script_run(&script, output, &outcome);
    uint64_t dropped = outcome.out.dropped + outcome.err.dropped;
    if (dropped > FLOOD_BYTES)
        return tool_fail(e, "output_limit",
                         "the script printed %llu MiB, of which at most %d KiB can be kept; print "
                         "less, or give a "
                         "summary in `result`",
                         (unsigned long long) (dropped >> 20), STDOUT_BYTES_MAX >> 10);
    yyjson_mut_val *root = yyjson_mut_obj(output);
    if (outcome.result != NULL)
        yyjson_mut_obj_add_val(output, root, "result", outcome.result);
    add_capture(output, root, "stdout", &outcome.out);
    add_capture(output, root, "stderr", &outcome.err);
    yyjson_mut_obj_add_int(output, root, "exit_code", outcome.exit_code);
    if (outcome.files != NULL)
        yyjson_mut_obj_add_val(output, root, "files", outcome.files);
    yyjson_mut_doc_set_root(output, root);
    return true;
}
