/* Sub-workflows in files beside a file: what a command without a server needs to run it. */
#include "base/arena.h"
#include "base/limits.h"
#include "cli/workflow_files.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

/* A file of the folder. */
struct neighbour {
    str path, stem;
    struct definition *definition; /* NULL: it is none, or cannot be read */
    bool is_taken;
};

struct search {
    struct cli *cli;
    struct neighbour *items;
    size_t count;
    const struct step
        *lacking; /* names a workflow whose file is there, but is not what it should be */
    const struct neighbour *wrong;
};

bool workflow_is_file_name(str path)
{
    return str_ends_with(path, S(".yaml")) || str_ends_with(path, S(".yml")) ||
           str_ends_with(path, S(".json"));
}

/* ---- the folder ---- */

static void folder_and_name(struct arena *arena, str path, str *folder, str *name)
{
    size_t slash = path.len;
    while (slash > 0 && path.ptr[slash - 1] != '/')
        slash--;
    *folder = slash > 0 ? str_copy(arena, str_slice(path, 0, slash)) : S("./");
    *name = str_from(path, slash);
}

static void read_neighbour(struct search *s, str folder, str name)
{
    struct arena *arena = s->cli->arena;
    struct neighbour *neighbour = &s->items[s->count++];
    struct definition *definition;
    struct definition_problems problems = {0};
    struct error ignored = {0};
    str text, stem, end;
    name = str_copy(arena, name);
    str_cut(name, '.', &stem, &end);
    *neighbour = (struct neighbour){
        .path = str_equal(folder, S("./"))
                    ? name
                    : str_printf(arena, STR_FMT STR_FMT, STR_ARG(folder), STR_ARG(name)),
        .stem = stem,
    };
    str path = neighbour->path;
    if (workflow_file_read(arena, &path, &text, &ignored) &&
        definition_parse(arena, path, text, &definition, &problems, &ignored))
        neighbour->definition = definition;
}

static bool read_folder(struct search *s, str folder, str but, struct error *e)
{
    struct dirent **names = NULL;
    int count = scandir(str_to_cstr(s->cli->arena, folder), &names, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        str name = str_from_cstr(names[i]->d_name);
        if (workflow_is_file_name(name) && name.ptr[0] != '.' && !str_equal(name, but) &&
            s->count < WORKFLOW_SET_MAX)
            read_neighbour(s, folder, name);
        free(names[i]);
    }
    free(names);
    return count >= 0 ||
           error_set(e, REASON_CONFIG, "folder " STR_FMT " cannot be read", STR_ARG(folder));
}

/* ---- who is named ---- */

static void look_in(struct search *s, struct step_list list);

static void take(struct search *s, const struct step *step)
{
    bool is_found = false;
    for (size_t i = 0; i < s->count; i++) {
        struct neighbour *neighbour = &s->items[i];
        if (!neighbour->definition || !str_equal(neighbour->definition->name, step->workflow.name))
            continue;
        is_found = true;
        if (neighbour->is_taken)
            continue;
        neighbour->is_taken = true;
        look_in(s, neighbour->definition->steps);
    }
    for (size_t i = 0; i < s->count && !is_found; i++)
        if (str_equal(s->items[i].stem, step->workflow.name) && !s->lacking) {
            s->lacking = step;
            s->wrong = &s->items[i];
        }
}

static void look_at(struct search *s, const struct step *step)
{
    switch (step->kind) {
    case STEP_WORKFLOW: take(s, step); break;
    case STEP_MAP: look_in(s, step->map.steps); break;
    case STEP_LOOP: look_in(s, step->loop.steps); break;
    case STEP_BRANCH:
        for (size_t i = 0; i < step->branch.count; i++)
            look_in(s, step->branch.arms[i].steps);
        break;
    case STEP_PARALLEL:
        for (size_t i = 0; i < step->parallel.count; i++)
            look_in(s, step->parallel.arms[i].steps);
        break;
    case STEP_TOOL:
    case STEP_MODEL:
    case STEP_AGENT:
    case STEP_APPROVAL:
    case STEP_SLEEP:
    case STEP_WAIT_SIGNAL:
    case STEP_KIND_COUNT: break;
    }
    if (step->compensate)
        look_at(s, step->compensate);
}

static void look_in(struct search *s, struct step_list list)
{
    for (size_t i = 0; i < list.count; i++)
        look_at(s, list.items[i]);
}

/* ---- all of it ---- */

/* Of the file that has the name of what is looked for, and is something else. */
static int tell_wrong(const struct search *s)
{
    struct definition *definition;
    struct error e = {0};
    int exit = EXIT_USAGE;
    if (!s->wrong->definition &&
        !workflow_file_load(s->cli, "workflow run", s->wrong->path, &definition, &exit))
        return exit;
    str name = s->wrong->definition ? s->wrong->definition->name : STR_NONE;
    error_set(&e, REASON_USAGE,
              "no file beside it defines workflow \"" STR_FMT "\", which step \"" STR_FMT
              "\" needs; " STR_FMT " defines \"" STR_FMT "\"",
              STR_ARG(s->lacking->workflow.name), STR_ARG(s->lacking->id), STR_ARG(s->wrong->path),
              STR_ARG(name));
    return command_fail(s->cli, "workflow run", &e);
}

static void close_all(struct search *s, struct definition *top)
{
    for (size_t i = 0; i < s->count; i++)
        definition_destroy(s->items[i].definition);
    definition_destroy(top);
}

bool workflow_find_beside(struct cli *cli, str path, struct workflow_paths *out, int *exit)
{
    struct definition *top;
    struct error e = {0};
    str folder, name;
    struct search s = {.cli = cli,
                       .items = ARENA_ARRAY(cli->arena, struct neighbour, WORKFLOW_SET_MAX)};
    *out = (struct workflow_paths){0};
    if (!workflow_file_load(cli, "workflow run", path, &top, exit))
        return false;
    folder_and_name(cli->arena, path, &folder, &name);
    if (!read_folder(&s, folder, name, &e))
        *exit = command_fail(cli, "workflow run", &e);
    look_in(&s, top->steps);
    if (s.lacking)
        *exit = tell_wrong(&s);
    out->items = ARENA_ARRAY(cli->arena, str, s.count + 1);
    for (size_t i = 0; i < s.count; i++)
        if (s.items[i].is_taken)
            out->items[out->count++] = s.items[i].path;
    close_all(&s, top);
    return !s.lacking && e.code == ERROR_OK;
}
