/*
 * Tools in the making: `nexus tool new`, `build`, `test`, `publish`.  A tool's folder on its author's machine:
 *
 *      manifest.yaml    what the platform knows (agent/tool/package.h)
 *      tool.build       how the module is made: {language, build: [[word, ...], ...], environment: {NAME: value}}
 *      tests.yaml       inputs and what must come of them (cli/tool/tool_cases.h)
 *
 * Building starts the author's own compiler with the author's own rights, as words, never by a shell.  Testing runs the module in the
 * same sandbox that a node has, in this process, with a cache of its own; nothing leaves the machine.
 * Thread: the main thread, unless said.  Blocking.
 */
#ifndef NEXUS_CLI_TOOL_AUTHOR_H
#define NEXUS_CLI_TOOL_AUTHOR_H

#include "agent/executor.h"
#include "base/limits.h"
#include "cli/command.h"

#include <stdio.h>

#define TOOL_BUILD_FILE S("tool.build")
#define TOOL_TESTS_FILE S("tests.yaml")

struct client;
struct tool_cases;

/* ---- tool_recipe.c: how a module is made ---- */

struct tool_command {
    str *words;
    size_t count;
};
struct tool_recipe {
    str language; /* "c", "go", "other" */
    struct tool_command commands[TOOL_BUILD_COMMANDS_MAX];
    size_t command_count;
    str *environment; /* "NAME=value", beside the author's own */
    size_t environment_count;
};
/* tool.build of the folder; without one the language is told by its files.  `module` is what the default way makes. */
must_check bool tool_recipe_read(struct arena *arena, str folder, str module,
                                 struct tool_recipe *out, struct error *e);
/* The same from the text of a tool.build. */
must_check bool tool_recipe_parse(struct arena *arena, str file, str text, str folder, str module,
                                  struct tool_recipe *out, struct error *e);
/* Runs the commands in the folder; what they print goes to stderr. */
must_check bool tool_recipe_run(struct arena *arena, str folder, const struct tool_recipe *recipe,
                                struct error *e);

/* ---- tool_trial.c: the sandbox of an author ---- */

struct tool_trial;
/* The tool of a folder, its module compiled, its imports, exports and schemas checked. */
must_check bool tool_trial_create(struct arena *arena, str folder, struct tool_trial **out,
                                  struct error *e);
void tool_trial_destroy(struct tool_trial *trial); /* NULL is fine */
OWNED_DEFINE(tool_trial)
const struct tool *tool_trial_tool(const struct tool_trial *trial);

struct tool_verdict {
    bool is_ok;
    str *differences; /* lines: what was expected and what came */
    size_t difference_count;
    struct tool_result result; /* figures; the output and log lie on the arena */
};
struct tool_case;
void tool_trial_run(struct tool_trial *trial, struct arena *arena, const struct tool_case *test,
                    struct tool_verdict *out);

/* tool_new.c */
int tool_new(struct cli *cli, const struct arguments *arguments);

/* tool_registry.c */
must_check bool tool_sign(struct arena *arena, str path, str key_file, struct error *e);
may_suspend bool tool_upload(struct client *client, struct context *ctx, str path,
                             const struct json **answer, struct error *e);

#endif
