/* nexus tool new: a folder that builds, passes its tests and can be published, made from the templates in the program. */
#include "cli/tool/tool_author.h"

#include "agent/tool/package.h"
#include "base/arena.h"
#include "cli/shipped.h"
#include "cli/tool/tool_pack.h"
#include "tool_templates.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>

/* What differs between languages in the files that all share. */
static const struct language {
    str name;
    str abi, fuel, memory;
    const char *next; /* to do before the first build */
} languages[] = {
    {S_INIT("c"), S_INIT("nexus-export"), S_INIT("100000000"), S_INIT("8MB"), NULL},
    {S_INIT("go"), S_INIT("wasi-command"), S_INIT("2000000000"), S_INIT("64MB"), NULL},
    {S_INIT("other"), S_INIT("wasi-command"), S_INIT("1000000000"), S_INIT("64MB"),
     "write the program (PROTOCOL.md) and its compiler's command into tool.build"},
};

static const struct language *find_language(str name)
{
    for (size_t i = 0; i < ARRAY_COUNT(languages); i++)
        if (str_equal(languages[i].name, name))
            return &languages[i];
    return NULL;
}

struct word {
    str mark, text;
};

/* `text` with every mark replaced. */
static str fill(struct arena *arena, str text, const struct word *words, size_t count)
{
    struct strbuf out;
    strbuf_init(&out, arena, text.len + (64u << 10));
    while (!str_is_empty(text)) {
        size_t i = 0;
        while (i < count && !str_starts_with(text, words[i].mark))
            i++;
        size_t next = 1;
        if (i < count) {
            strbuf_add(&out, words[i].text);
            next = words[i].mark.len;
        } else {
            size_t at = str_find_char(str_from(text, 1), '@');
            next = at == STR_NOT_FOUND ? text.len : at + 1;
            strbuf_add(&out, str_slice(text, 0, next));
        }
        text = str_from(text, next);
    }
    return strbuf_str(&out);
}

/* Only into a folder that is not there, or empty: nothing of the author's is overwritten. */
static bool claim_folder(struct arena *arena, str folder, struct error *e)
{
    DIR *dir = opendir(str_to_cstr(arena, folder));
    size_t count = 0;
    if (!dir && errno != ENOENT)
        return error_set(e, REASON_USAGE, STR_FMT ": %s", STR_ARG(folder), strerrordesc_np(errno));
    for (struct dirent *entry; dir && (entry = readdir(dir)) != NULL;)
        count += !str_equal(str_from_cstr(entry->d_name), S(".")) &&
                 !str_equal(str_from_cstr(entry->d_name), S(".."));
    if (dir)
        closedir(dir);
    if (count > 0)
        return error_set(e, REASON_USAGE,
                         STR_FMT " is not empty: name another folder, nothing is overwritten",
                         STR_ARG(folder));
    return true;
}

/* The template's place in the new folder; false: it is another language's. */
static bool place_of(const struct language *language, str path, str *out)
{
    str part, rest;
    if (!str_cut(path, '/', &part, &rest) ||
        !(str_equal(part, S("common")) || str_equal(part, language->name)))
        return false;
    *out = str_equal(rest, S("gitignore")) ? S(".gitignore") : rest;
    return true;
}

static bool write_file(struct arena *arena, str folder, str place, str text, struct error *e)
{
    str path = str_printf(arena, STR_FMT "/" STR_FMT, STR_ARG(folder), STR_ARG(place)), parent;
    size_t slash = path.len;
    while (slash > 0 && path.ptr[slash - 1] != '/')
        slash--;
    parent = str_slice(path, 0, slash - 1);
    return folder_make(parent, e) && tool_pack_write_file(path, text, 0644, e);
}

static bool make(struct arena *arena, str name, str category, const struct language *language,
                 str folder, struct error *e)
{
    const struct word words[] = {
        {S("@NAME@"), name},
        {S("@CATEGORY@"), category},
        {S("@ABI@"), language->abi},
        {S("@FUEL@"), language->fuel},
        {S("@MEMORY@"), language->memory},
    };
    struct tool tool;
    str place, manifest = STR_NONE;
    for (size_t i = 0; i < ARRAY_COUNT(tool_templates); i++)
        if (str_equal(str_from_cstr(tool_templates[i].path), S("common/manifest.yaml")))
            manifest = fill(arena, tool_templates[i].bytes, words, ARRAY_COUNT(words));
    if (!package_manifest(arena, S("manifest.yaml"), manifest, &tool, e)) /* name and category */
        return error_wrap(e, "a tool called so cannot be");
    if (!claim_folder(arena, folder, e))
        return false;
    for (size_t i = 0; i < ARRAY_COUNT(tool_templates); i++)
        if (place_of(language, str_from_cstr(tool_templates[i].path), &place) &&
            !write_file(arena, folder, place,
                        fill(arena, tool_templates[i].bytes, words, ARRAY_COUNT(words)), e))
            return false;
    return true;
}

int tool_new(struct cli *cli, const struct arguments *arguments)
{
    struct error e = {0};
    str name = arguments_operand(arguments, 0), folder = arguments_operand(arguments, 1),
        wanted = arguments_get(arguments, "language"),
        category = arguments_get(arguments, "category");
    if (str_is_empty(folder))
        folder = name;
    if (str_is_empty(category))
        category = S("text_processing");
    const struct language *language = find_language(str_is_empty(wanted) ? S("c") : wanted);
    bool is_ok = language || error_set(&e, REASON_USAGE,
                                       "--language is c, go, or other (anything that compiles to "
                                       "WASI preview 1)");
    if (!is_ok || !make(cli->arena, name, category, language, folder, &e))
        return command_fail(cli, "tool new", &e);
    printf("made " STR_FMT "\nnext: cd " STR_FMT "\n", STR_ARG(folder), STR_ARG(folder));
    if (language->next)
        printf("      %s\n", language->next);
    printf("      nexus tool build && nexus tool test\n      nexus tool publish\n");
    return EXIT_DONE;
}
