/*
 * sim --seeds N [--seed-base K] [--plant NAME] [--verbose]
 *
 * Plays N seeds.  The last line tells seeds, steps, crashes and violations; exit 0 only when there was none.  A violation prints its seed,
 * which alone replays it.  Each batch of seeds is played in a child process, since a crash leaks its incarnation on purpose.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/log.h"
#include "world.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SEEDS_PER_PROCESS = 100 };

struct options {
    uint64_t seeds, seed_base;
    const char *plant;
    bool is_verbose;
};
struct tally {
    uint64_t seeds, violations;
    int64_t steps, crashes;
};

static const struct {
    const char *name, *category, *flags;
} tools[] = {
    {"lookup", "data_analysis", "pure: true\nidempotent: true\n"},
    {"pay", "http", "pure: false\nidempotent: false\n"},
    {"notify", "http", "pure: false\nidempotent: true\n"},
    {"wipe", "system", "pure: false\nidempotent: false\n"},
};

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");
    ensure(file != NULL);
    ensure(fputs(text, file) >= 0 && fclose(file) == 0);
}

/* The registry reads manifests from a folder; nothing of the module is ever run. */
static struct registry *make_registry(void)
{
    char dir[] = "/tmp/nexus-sim-XXXXXX", path[256], text[1024];
    ensure(mkdtemp(dir) != NULL);
    for (size_t i = 0; i < ARRAY_COUNT(tools); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, tools[i].name);
        ensure(mkdir(path, 0700) == 0);
        snprintf(path, sizeof path, "%s/%s/tool.wasm", dir, tools[i].name);
        write_file(path, "not run");
        snprintf(path, sizeof path, "%s/%s/manifest.yaml", dir, tools[i].name);
        snprintf(text, sizeof text,
                 "name: %s\nversion: 1.0.0\ncategory: %s\nauthor: sim\nabi: nexus-export\nmodule: "
                 "tool.wasm\n%s"
                 "limits: {fuel: 1000000, memory: 1MB, time: 10s, output: 64KB}\npermissions: "
                 "{}\ndescription: simulated\n"
                 "input: {type: object}\noutput: {type: object}\n",
                 tools[i].name, tools[i].category, tools[i].flags);
        write_file(path, text);
    }
    struct registry_options options = {.tool_dir = str_from_cstr(dir)};
    struct registry *registry = NULL;
    struct error e = {0};
    if (!registry_create(&options, &registry, &e)) {
        fprintf(stderr, "sim: %s\n", e.message);
        exit(2);
    }
    const struct registry_snapshot *snapshot = registry_acquire(registry);
    for (size_t i = 0; i < registry_error_count(snapshot); i++)
        fprintf(stderr, "sim: " STR_FMT "\n", STR_ARG(registry_error_at(snapshot, i)));
    ensure(registry_count(snapshot) == ARRAY_COUNT(tools));
    registry_release(snapshot);
    for (size_t i = 0; i < ARRAY_COUNT(tools); i++) {
        snprintf(path, sizeof path, "%s/%s/tool.wasm", dir, tools[i].name);
        unlink(path);
        snprintf(path, sizeof path, "%s/%s/manifest.yaml", dir, tools[i].name);
        unlink(path);
        snprintf(path, sizeof path, "%s/%s", dir, tools[i].name);
        rmdir(path);
    }
    rmdir(dir);
    return registry;
}

static void play(const struct options *options, struct registry *registry, uint64_t first,
                 uint64_t count, struct tally *tally)
{
    struct world *world = calloc(1, sizeof *world);
    ensure(world != NULL);
    for (uint64_t seed = first; seed < first + count; seed++) {
        bool ok = world_play(world, seed, registry, options->is_verbose);
        tally->seeds++;
        tally->steps += world->steps;
        tally->crashes += world->crashes;
        if (ok)
            continue;
        tally->violations++;
        printf("seed %llu: %s\n  replay: build/dev/sim --seeds 1 --seed-base %llu%s%s\n",
               (unsigned long long) seed, world->violation, (unsigned long long) seed,
               options->plant ? " --plant " : "", options->plant ? options->plant : "");
        if (options->plant)
            break; /* found: that is what it was planted for */
    }
    free(world);
    fflush(stdout);
}

static bool play_in_child(const struct options *options, struct registry *registry, uint64_t first,
                          uint64_t count, struct tally *total)
{
    int ends[2];
    ensure(pipe(ends) == 0);
    pid_t child = fork();
    ensure(child >= 0);
    if (child == 0) {
        struct tally tally = {0};
        play(options, registry, first, count, &tally);
        ensure(write(ends[1], &tally, sizeof tally) == (ssize_t) sizeof tally);
        _exit(0);
    }
    close(ends[1]);
    struct tally tally;
    int status;
    bool ok = read(ends[0], &tally, sizeof tally) == (ssize_t) sizeof tally;
    close(ends[0]);
    ensure(waitpid(child, &status, 0) == child);
    if (!ok || status != 0) {
        printf("seeds %llu to %llu: the simulation itself died (status %d)\n",
               (unsigned long long) first, (unsigned long long) (first + count - 1), status);
        total->violations++;
        return false;
    }
    total->seeds += tally.seeds;
    total->steps += tally.steps;
    total->crashes += tally.crashes;
    total->violations += tally.violations;
    return tally.violations == 0;
}

static bool read_number(const char *text, uint64_t *out)
{
    return text && str_to_u64(str_from_cstr(text), out);
}

static bool read_options(int argc, char **argv, struct options *out)
{
    *out = (struct options){.seeds = 1000, .seed_base = 1};
    for (int i = 1; i < argc; i++) {
        str option = str_from_cstr(argv[i]);
        bool has_value = i + 1 < argc;
        if (str_equal(option, S("--verbose")))
            out->is_verbose = true;
        else if (str_equal(option, S("--seeds")) && has_value &&
                 read_number(argv[i + 1], &out->seeds))
            i++;
        else if (str_equal(option, S("--seed-base")) && has_value &&
                 read_number(argv[i + 1], &out->seed_base))
            i++;
        else if (str_equal(option, S("--plant")) && has_value)
            out->plant = argv[++i];
        else
            return false;
    }
    return true;
}

/* Runs end with errors on purpose: only what the simulation itself says is wanted. */
static void drop_line(void *context, enum log_level level, str line)
{
    (void) context;
    (void) level;
    (void) line;
}

int main(int argc, char **argv)
{
    struct options options;
    if (!read_options(argc, argv, &options)) {
        fputs("usage: sim [--seeds N] [--seed-base K] [--plant overspend|double-effect] "
              "[--verbose]\n",
              stderr);
        return 2;
    }
    log_set_sink(drop_line, NULL);
    if (options.plant) {
        OWNED(arena) arena = arena_create(0);
        fault_arm(str_printf(arena, "plant.%s:*", options.plant));
    }
    struct registry *registry = make_registry();
    struct tally total = {0};
    for (uint64_t done = 0; done < options.seeds; done += SEEDS_PER_PROCESS) {
        uint64_t count =
            options.seeds - done < SEEDS_PER_PROCESS ? options.seeds - done : SEEDS_PER_PROCESS;
        if (!play_in_child(&options, registry, options.seed_base + done, count, &total) &&
            options.plant)
            break;
    }
    registry_destroy(registry);
    printf("%llu seeds, %lld steps, %lld crashes, %llu violations\n",
           (unsigned long long) total.seeds, (long long) total.steps, (long long) total.crashes,
           (unsigned long long) total.violations);
    return total.violations ? 1 : 0;
}
