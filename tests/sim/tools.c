#include "tools.h"
#include "base/ensure.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct {
    const char *name, *category, *flags;
} tools[] = {
    {"lookup", "data_analysis", "pure: true\nidempotent: true\n"},
    {"pay", "http", "pure: false\nidempotent: false\n"},
    {"notify", "http", "pure: false\nidempotent: true\n"},
    {"wipe", "system", "pure: false\nidempotent: false\n"},
    {"undo", "http", "pure: false\nidempotent: false\n"},
    {"http_request", "http", "pure: false\nidempotent: false\n"},
};

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    ensure(file != NULL);
    ensure(fputs(text, file) >= 0 && fclose(file) == 0);
}

static void write_tool(const char *folder, size_t i)
{
    char path[256], text[1024];
    snprintf(path, sizeof path, "%s/%s", folder, tools[i].name);
    ensure(mkdir(path, 0700) == 0);
    snprintf(path, sizeof path, "%s/%s/tool.wasm", folder, tools[i].name);
    write_file(path, "not run");
    snprintf(path, sizeof path, "%s/%s/manifest.yaml", folder, tools[i].name);
    snprintf(text, sizeof text,
             "name: %s\nversion: 1.0.0\ncategory: %s\nauthor: sim\nabi: nexus-export\nmodule: "
             "tool.wasm\n%s"
             "limits: {fuel: 1000000, memory: 1MB, time: 10s, output: 64KB}\npermissions: "
             "{}\ndescription: simulated\n"
             "input: {type: object}\noutput: {type: object}\n",
             tools[i].name, tools[i].category, tools[i].flags);
    write_file(path, text);
}

static void remove_tool(const char *folder, size_t i)
{
    static const char *const files[] = {"/tool.wasm", "/manifest.yaml", ""};
    char path[256];
    for (size_t f = 0; f < ARRAY_COUNT(files); f++) {
        snprintf(path, sizeof path, "%s/%s%s", folder, tools[i].name, files[f]);
        (void) remove(path);
    }
}

struct registry *tools_registry(const char *parent)
{
    char folder[200];
    struct registry *registry = NULL;
    struct error e = {0};
    snprintf(folder, sizeof folder, "%s/tools", parent);
    ensure(mkdir(folder, 0700) == 0);
    for (size_t i = 0; i < ARRAY_COUNT(tools); i++)
        write_tool(folder, i);
    struct registry_options options = {.tool_dir = str_from_cstr(folder)};
    if (!registry_create(&options, &registry, &e)) {
        fprintf(stderr, "sim: %s\n", e.message);
        exit(2);
    }
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    for (size_t i = 0; i < registry_error_count(snapshot); i++)
        fprintf(stderr, "sim: " STR_FMT "\n", STR_ARG(registry_error_at(snapshot, i)));
    ensure(registry_count(snapshot) == ARRAY_COUNT(tools));
    registry_release(snapshot);
    for (size_t i = 0; i < ARRAY_COUNT(tools); i++)
        remove_tool(folder, i);
    ensure(rmdir(folder) == 0);
    return registry;
}
