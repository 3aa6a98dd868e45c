#include "cli/tool/tool_author.h"

#include "base/arena.h"
#include "base/limits.h"
#include "base/yaml.h"
#include "cli/tool/tool_pack.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* How to come by a compiler on Debian, and what a failure of one that is there mostly means. */
static const struct {
    str program;
    const char *install, *hint;
} compilers[] = {
    {S_INIT("clang"), "apt install clang lld wasi-libc libclang-rt-14-dev-wasm32",
     "when headers, wasm-ld or libclang_rt are missing: apt install lld wasi-libc "
     "libclang-rt-14-dev-wasm32"},
    {S_INIT("go"), "apt install -t bookworm-backports golang-go (1.21 or newer)",
     "the target wasip1 needs Go 1.21 or newer: apt install -t bookworm-backports golang-go"},
    {S_INIT("tinygo"), "see tinygo.org for its Debian package", NULL},
    {S_INIT("zig"), "pip install ziglang, and [python3, -m, ziglang, build-exe, ...] in tool.build",
     NULL},
    {S_INIT("rustc"), "apt install rustc libstd-rust-dev-wasm32",
     "when the target is missing: apt install libstd-rust-dev-wasm32 (target wasm32-wasi)"},
    {S_INIT("cargo"), "apt install cargo libstd-rust-dev-wasm32",
     "when the target is missing: apt install libstd-rust-dev-wasm32 (target wasm32-wasi)"},
    {S_INIT("npx"), "apt install nodejs npm", NULL},
    {S_INIT("python3"), "apt install python3", NULL},
};

static bool is_there(struct arena *arena, str folder, str name)
{
    struct stat status;
    char *path =
        str_to_cstr(arena, str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(name)));
    return stat(path, &status) == 0 && S_ISREG(status.st_mode);
}

/* ---- the way of a language ---- */

static bool add_words(struct arena *arena, struct tool_recipe *recipe, const str *words,
                      size_t count)
{
    struct tool_command *command = &recipe->commands[recipe->command_count++];
    command->words = ARENA_ARRAY(arena, str, count);
    command->count = count;
    for (size_t i = 0; i < count; i++)
        command->words[i] = words[i];
    return true;
}

static int is_source(const struct dirent *entry)
{
    str name = str_from_cstr(entry->d_name);
    return str_ends_with(name, S(".c")) && name.ptr[0] != '.' && name.ptr[0] != '-';
}

/* The C files of the folder and of its folder sdk, by name. */
static bool find_sources(struct arena *arena, str folder, str *words, size_t *count,
                         struct error *e)
{
    static const char *const places[] = {"", "sdk/"};
    size_t first = *count;
    for (size_t i = 0; i < ARRAY_COUNT(places); i++) {
        struct dirent **entries;
        char *path =
            str_to_cstr(arena, str_printf(arena, STR_FMT "/%s", STR_ARG(folder), places[i]));
        int total = scandir(path, &entries, is_source, alphasort);
        for (int j = 0; j < total; j++) {
            if (*count - first < TOOL_BUILD_SOURCES_MAX)
                words[(*count)++] = str_printf(arena, "%s%s", places[i], entries[j]->d_name);
            free(entries[j]);
        }
        if (total >= 0)
            free(entries);
    }
    if (*count - first == TOOL_BUILD_SOURCES_MAX)
        return error_set(e, REASON_CONFIG,
                         STR_FMT "/tool.build:1: over %u C files: write the `build` yourself",
                         STR_ARG(folder), TOOL_BUILD_SOURCES_MAX - 1);
    return *count > first ||
           error_set(e, REASON_CONFIG, STR_FMT ": there is no C file in it", STR_ARG(folder));
}

static bool default_c(struct arena *arena, str folder, str module, struct tool_recipe *recipe,
                      struct error *e)
{
    str fixed[] = {S("clang"),
                   S("--target=wasm32-wasi"),
                   S("-mexec-model=reactor"),
                   S("-O2"),
                   S("-std=gnu17"),
                   S("-Wall"),
                   S("-Wextra"),
                   S("-Isdk"),
                   S("-Wl,--strip-debug"),
                   S("-o"),
                   module};
    str *words = ARENA_ARRAY(arena, str, ARRAY_COUNT(fixed) + TOOL_BUILD_SOURCES_MAX);
    size_t count = 0;
    for (; count < ARRAY_COUNT(fixed); count++)
        words[count] = fixed[count];
    return find_sources(arena, folder, words, &count, e) && add_words(arena, recipe, words, count);
}

static bool default_go(struct arena *arena, str module, struct tool_recipe *recipe)
{
    str words[] = {S("go"), S("build"), S("-trimpath"), S("-ldflags=-s -w"),
                   S("-o"), module,     S(".")};
    str *environment = ARENA_ARRAY(arena, str, recipe->environment_count + 2);
    environment[0] = S("GOOS=wasip1");
    environment[1] = S("GOARCH=wasm");
    for (size_t i = 0; i < recipe->environment_count; i++)
        environment[i + 2] = recipe->environment[i];
    recipe->environment = environment;
    recipe->environment_count += 2;
    return add_words(arena, recipe, words, ARRAY_COUNT(words));
}

/* ---- tool.build ---- */

static bool read_command(struct arena *arena, const struct yaml_document *document,
                         const struct json *value, struct tool_command *out, struct error *e)
{
    const struct json *item;
    struct json_iter it = json_iter(value);
    size_t count = json_count(value);
    if (json_type(value) != JSON_ARRAY || count == 0 || count > TOOL_BUILD_WORDS_MAX)
        return yaml_error(document, value, e,
                          "a command is a list of 1 to %u words, as in [clang, -o, x.wasm, x.c]; "
                          "there is no shell",
                          TOOL_BUILD_WORDS_MAX);
    out->words = ARENA_ARRAY(arena, str, count);
    while (json_next(&it, NULL, &item)) {
        str *word = &out->words[out->count++];
        if (!json_to_str(item, word) || str_find_char(*word, '\0') != STR_NOT_FOUND)
            return yaml_error(document, item, e,
                              "each word of a command is a text: put it in \"\"");
    }
    return !str_is_empty(out->words[0]) ||
           yaml_error(document, value, e, "a command begins with a program");
}

static bool read_commands(struct arena *arena, const struct yaml_document *document,
                          const struct json *value, struct tool_recipe *out, struct error *e)
{
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (json_type(value) != JSON_ARRAY || json_count(value) > TOOL_BUILD_COMMANDS_MAX)
        return yaml_error(document, value, e, "build must be a list of at most %u commands",
                          TOOL_BUILD_COMMANDS_MAX);
    while (json_next(&it, NULL, &item))
        if (!read_command(arena, document, item, &out->commands[out->command_count++], e))
            return false;
    return true;
}

static bool read_environment(struct arena *arena, const struct yaml_document *document,
                             const struct json *value, struct tool_recipe *out, struct error *e)
{
    str name, text;
    const struct json *item;
    struct json_iter it = json_iter(value);
    if (value && (json_type(value) != JSON_OBJECT || json_count(value) > TOOL_BUILD_WORDS_MAX))
        return yaml_error(document, value, e, "environment must be members NAME: text");
    out->environment = ARENA_ARRAY(arena, str, json_count(value) + 1);
    while (json_next(&it, &name, &item)) {
        if (!json_to_str(item, &text) || str_is_empty(name) ||
            str_find_char(name, '=') != STR_NOT_FOUND)
            return yaml_error(document, item, e, "environment must be members NAME: text");
        out->environment[out->environment_count++] =
            str_printf(arena, STR_FMT "=" STR_FMT, STR_ARG(name), STR_ARG(text));
    }
    return true;
}

static bool use_default(struct arena *arena, str folder, str module, struct tool_recipe *out,
                        struct error *e)
{
    if (str_equal(out->language, S("c")))
        return default_c(arena, folder, module, out, e);
    if (str_equal(out->language, S("go")))
        return default_go(arena, module, out);
    return error_set(e, REASON_CONFIG,
                     STR_FMT "/tool.build:1: say how the module is made: build: [[COMPILER, "
                             "WORD, ...]]; an empty list when something else makes it",
                     STR_ARG(folder));
}

bool tool_recipe_parse(struct arena *arena, str file, str text, str folder, str module,
                       struct tool_recipe *out, struct error *e)
{
    struct yaml_document document;
    str key;
    const struct json *item;
    *out = (struct tool_recipe){.language = S("other")};
    if (!yaml_parse(arena, file, text, &document, e))
        return false;
    const struct json *root = document.root, *language = json_get(root, S("language"));
    if (json_type(root) != JSON_OBJECT)
        return yaml_error(&document, root, e, "it must have members: language, build, environment");
    struct json_iter it = json_iter(root);
    while (json_next(&it, &key, &item))
        if (!str_equal(key, S("language")) && !str_equal(key, S("build")) &&
            !str_equal(key, S("environment")))
            return yaml_error(&document, item, e,
                              "unknown member " STR_FMT "; known: language, build, environment",
                              STR_ARG(str_cut_utf8(key, 60)));
    if (language && (!json_to_str(language, &out->language) ||
                     !(str_equal(out->language, S("c")) || str_equal(out->language, S("go")) ||
                       str_equal(out->language, S("other")))))
        return yaml_error(&document, language, e, "language must be c, go or other");
    if (!read_environment(arena, &document, json_get(root, S("environment")), out, e))
        return false;
    if (json_get(root, S("build")))
        return read_commands(arena, &document, json_get(root, S("build")), out, e);
    return use_default(arena, folder, module, out, e);
}

bool tool_recipe_read(struct arena *arena, str folder, str module, struct tool_recipe *out,
                      struct error *e)
{
    str text, file = str_printf(arena, STR_FMT "/tool.build", STR_ARG(folder));
    if (is_there(arena, folder, TOOL_BUILD_FILE))
        return tool_pack_read_file(arena, file, TOOL_BUILD_FILE_BYTES_MAX, &text, e) &&
               tool_recipe_parse(arena, file, text, folder, module, out, e);
    *out =
        (struct tool_recipe){.language = is_there(arena, folder, S("go.mod")) ? S("go") : S("c")};
    return use_default(arena, folder, module, out, e);
}

/* ---- running it ---- */

static bool has_name(const char *entry, str pair)
{
    str name, value;
    str_cut(pair, '=', &name, &value);
    return strncmp(entry, name.ptr, name.len) == 0 && entry[name.len] == '=';
}

/* The author's own environment, with what the recipe says in its place. */
static char **make_environment(struct arena *arena, const struct tool_recipe *recipe)
{
    size_t total = 0, count = 0;
    while (environ[total])
        total++;
    char **all = ARENA_ARRAY(arena, char *, total + recipe->environment_count + 1);
    for (size_t i = 0; i < total; i++) {
        bool is_replaced = false;
        for (size_t j = 0; j < recipe->environment_count && !is_replaced; j++)
            is_replaced = has_name(environ[i], recipe->environment[j]);
        if (!is_replaced)
            all[count++] = environ[i];
    }
    for (size_t i = 0; i < recipe->environment_count; i++)
        all[count++] = str_to_cstr(arena, recipe->environment[i]);
    return all;
}

static int spawn(struct arena *arena, str folder, const struct tool_command *command,
                 char **environment, pid_t *pid)
{
    char **words = ARENA_ARRAY(arena, char *, command->count + 1);
    posix_spawn_file_actions_t actions;
    for (size_t i = 0; i < command->count; i++)
        words[i] = str_to_cstr(arena, command->words[i]);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addchdir_np(&actions, str_to_cstr(arena, folder));
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
    int failure = posix_spawnp(pid, words[0], &actions, NULL, words, environment);
    posix_spawn_file_actions_destroy(&actions);
    return failure;
}

/* Its exit status; false: it was ended because it took too long. */
static bool wait_for(pid_t pid, int *status)
{
    int handle = (int) syscall(SYS_pidfd_open, pid, 0), ready = 1;
    struct pollfd waited = {.fd = handle, .events = POLLIN};
    if (handle >= 0)
        while ((ready = poll(&waited, 1, TOOL_BUILD_MS_MAX)) < 0 && errno == EINTR)
            continue;
    if (handle >= 0)
        close(handle);
    if (ready == 0)
        kill(pid, SIGKILL);
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        continue;
    return ready != 0;
}

static str program_of(const struct tool_command *command)
{
    str path = command->words[0], head, rest = path;
    while (str_cut(rest, '/', &head, &rest))
        continue;
    return head;
}

static const char *advice(str program, bool is_missing)
{
    for (size_t i = 0; i < ARRAY_COUNT(compilers); i++)
        if (str_equal(compilers[i].program, program))
            return is_missing ? compilers[i].install : compilers[i].hint;
    return is_missing ? "install it, or name its path in tool.build" : NULL;
}

static bool run_command(struct arena *arena, str folder, const struct tool_command *command,
                        char **environment, struct error *e)
{
    pid_t pid;
    int status = 0;
    str program = program_of(command);
    int failure = spawn(arena, folder, command, environment, &pid);
    if (failure == ENOENT)
        return error_set(e, REASON_NOT_FOUND, "there is no program " STR_FMT " here: %s",
                         STR_ARG(command->words[0]), advice(program, true));
    if (failure)
        return error_set(e, REASON_UNAVAILABLE, "start " STR_FMT ": %s", STR_ARG(command->words[0]),
                         strerrordesc_np(failure));
    if (!wait_for(pid, &status))
        return error_set(e, REASON_TIMEOUT, STR_FMT " ran over %d s and was ended",
                         STR_ARG(program), TOOL_BUILD_MS_MAX / 1000);
    const char *hint = advice(program, false);
    if (WIFSIGNALED(status))
        return error_set(e, REASON_TOOL_FAILED, STR_FMT " was ended by signal %d", STR_ARG(program),
                         WTERMSIG(status));
    if (WEXITSTATUS(status) == 0)
        return true;
    return error_set(e, REASON_TOOL_FAILED, STR_FMT " ended with status %d%s%s%s", STR_ARG(program),
                     WEXITSTATUS(status), hint ? " (" : "", hint ? hint : "", hint ? ")" : "");
}

bool tool_recipe_run(struct arena *arena, str folder, const struct tool_recipe *recipe,
                     struct error *e)
{
    char **environment = make_environment(arena, recipe);
    fflush(stdout);
    for (size_t i = 0; i < recipe->command_count; i++)
        if (!run_command(arena, folder, &recipe->commands[i], environment, e))
            return false;
    return true;
}
