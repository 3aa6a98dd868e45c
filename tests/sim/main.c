/*
 * sim --seeds N [--seed-base K] [--sqlite PER_MILLE] [--jobs N] [--plant NAME] [--twice] [--history] [--verbose]
 *
 * Plays N seeds.  The last line tells seeds, steps, crashes and violations; exit 0 only when there was none.  A violation prints its seed,
 * which alone replays it.  A run whose offline replay differs from its record prints its seed too: exit 0 only while that is less than one
 * replay of DRIFTS_ONE_OF.  --twice plays each seed twice, in two processes, and compares the histories.
 * Seeds are played in child processes, many in each, since a crash leaks its incarnation on purpose; --jobs of them at once.  A child
 * notes in shared memory which seed it plays and what came of those before: when it dies the seed is named, and the next ones are played.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/log.h"
#include "disk.h"
#include "tools.h"
#include "world.h"
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SEEDS_PER_PROCESS = 50, JOBS_MAX = 64, SQLITE_PER_MILLE = 125, DRIFTS_ONE_OF = 100 };

struct options {
    uint64_t seeds, seed_base, sqlite_per_mille, jobs;
    const char *plant;
    bool is_verbose, is_twice, shows_history, shows_coverage;
};
struct tally {
    uint64_t seeds, violations, sqlite_seeds, shared_seeds, replays, drifts;
    int64_t steps, crashes;
    uint64_t history;
    struct coverage coverage;
};

/* ---- one child: a range of seeds ---- */

/* What a child and its parent share: it outlives the child. */
struct progress {
    uint64_t seed; /* in play */
    bool is_over;
    struct tally tally; /* of the seeds before */
};

static void tell_violation(const struct options *options, uint64_t seed, const char *what)
{
    printf("seed %llu: %s\n  replay: build/sim/sim --seeds 1 --seed-base %llu --sqlite %llu%s%s\n",
           (unsigned long long) seed, what, (unsigned long long) seed,
           (unsigned long long) options->sqlite_per_mille, options->plant ? " --plant " : "",
           options->plant ? options->plant : "");
    fflush(stdout);
}

static void count_world(struct tally *tally, const struct world *world)
{
    tally->seeds++;
    tally->steps += world->steps;
    tally->crashes += world->crashes;
    tally->replays += (uint64_t) world->replays;
    tally->drifts += world->drift[0] != 0;
    tally->sqlite_seeds += world->database != NULL;
    tally->shared_seeds += world_is_shared(world);
    coverage_add(&tally->coverage, &world->coverage);
    tally->history = (tally->history ^ world->history) * 0x9e3779b97f4a7c15u;
}

/* Too many replays that differ are as bad as a violation. */
static bool has_failed(const struct tally *tally)
{
    return tally->violations > 0 || tally->drifts * DRIFTS_ONE_OF > tally->replays;
}

static void play(const struct options *options, struct registry *registry, uint64_t first,
                 uint64_t count, struct progress *progress)
{
    struct world *world = calloc(1, sizeof *world);
    struct world_options how = {.registry = registry,
                                .is_verbose = options->is_verbose,
                                .sqlite_per_mille = (int) options->sqlite_per_mille};
    ensure(world != NULL);
    for (uint64_t seed = first; seed < first + count; seed++) {
        progress->seed = seed;
        bool ok = world_play(world, seed, &how);
        count_world(&progress->tally, world);
        if (options->shows_history)
            printf("seed %llu: history %016llx\n", (unsigned long long) seed,
                   (unsigned long long) world->history);
        if (!ok)
            progress->tally.violations++;
        if (!ok || world->drift[0])
            tell_violation(options, seed, ok ? world->drift : world->violation);
        if (options->plant && has_failed(&progress->tally))
            break; /* found: that is what it was planted for */
    }
    free(world);
    fflush(stdout);
    progress->is_over = true;
}

/* ---- the children ---- */

struct worker {
    pid_t pid;
    int end; /* of its pipe, which says that it has ended; -1: none */
    uint64_t first, count;
    struct progress *progress;
};
struct crew {
    const struct options *options;
    struct registry *registry;
    struct worker workers[JOBS_MAX];
    size_t busy;
    struct tally *total;
};

static void worker_start(const struct crew *crew, struct worker *worker, uint64_t first,
                         uint64_t count)
{
    int ends[2];
    ensure(pipe(ends) == 0);
    fflush(stdout);
    *worker->progress = (struct progress){.seed = first};
    worker->first = first;
    worker->count = count;
    worker->end = ends[0];
    worker->pid = fork();
    ensure(worker->pid >= 0);
    if (worker->pid == 0) {
        play(crew->options, crew->registry, first, count, worker->progress);
        _exit(0);
    }
    close(ends[1]);
}

static void tally_add(struct tally *total, const struct tally *part)
{
    total->seeds += part->seeds;
    total->steps += part->steps;
    total->crashes += part->crashes;
    total->violations += part->violations;
    total->replays += part->replays;
    total->drifts += part->drifts;
    total->sqlite_seeds += part->sqlite_seeds;
    total->shared_seeds += part->shared_seeds;
    coverage_add(&total->coverage, &part->coverage);
    total->history += part->history; /* children end in any order */
}

/* The seed that it died of, and how. */
static void tell_death(const struct crew *crew, const struct worker *worker, int status)
{
    char what[160];
    if (WIFSIGNALED(status))
        snprintf(what, sizeof what, "the simulation itself died: signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(what, sizeof what, "the simulation itself died: it left with %d",
                 WEXITSTATUS(status));
    tell_violation(crew->options, worker->progress->seed, what);
    crew->total->seeds++;
    crew->total->violations++;
}

static void worker_end(struct crew *crew, struct worker *worker)
{
    const struct progress *progress = worker->progress;
    int status;
    close(worker->end);
    worker->end = -1;
    crew->busy--;
    ensure(waitpid(worker->pid, &status, 0) == worker->pid);
    tally_add(crew->total, &progress->tally);
    if (progress->is_over && status == 0)
        return;
    tell_death(crew, worker, status);
    uint64_t left = worker->first + worker->count - progress->seed - 1;
    if (left == 0 || progress->is_over || crew->options->plant)
        return;
    worker_start(crew, worker, progress->seed + 1, left);
    crew->busy++;
}

/* Waits for one of them. */
static void crew_wait(struct crew *crew)
{
    struct pollfd polls[JOBS_MAX];
    size_t count = crew->options->jobs;
    for (size_t i = 0; i < count; i++)
        polls[i] = (struct pollfd){.fd = crew->workers[i].end, .events = POLLIN};
    ensure(poll(polls, (nfds_t) count, -1) > 0);
    for (size_t i = 0; i < count; i++)
        if (polls[i].revents) {
            worker_end(crew, &crew->workers[i]);
            return;
        }
}

static struct worker *idle_worker(struct crew *crew)
{
    for (size_t i = 0; i < crew->options->jobs; i++)
        if (crew->workers[i].end < 0)
            return &crew->workers[i];
    return NULL;
}

static void play_all(const struct options *options, struct registry *registry, struct tally *total)
{
    struct crew crew = {.options = options, .registry = registry, .total = total};
    size_t bytes = options->jobs * sizeof(struct progress);
    struct progress *shared =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t done = 0;
    ensure(shared != MAP_FAILED);
    for (size_t i = 0; i < options->jobs; i++)
        crew.workers[i] = (struct worker){.end = -1, .progress = &shared[i]};
    for (;;) {
        bool is_enough = options->plant && has_failed(total);
        uint64_t left = is_enough ? 0 : options->seeds - done;
        uint64_t count = left < SEEDS_PER_PROCESS ? left : SEEDS_PER_PROCESS;
        struct worker *idle = count > 0 ? idle_worker(&crew) : NULL;
        if (idle) {
            worker_start(&crew, idle, options->seed_base + done, count);
            done += count;
            crew.busy++;
        } else if (crew.busy > 0) {
            crew_wait(&crew);
        } else {
            break;
        }
    }
    munmap(shared, bytes);
}

/* ---- options ---- */

static bool read_number(const char *text, uint64_t *out)
{
    return text && str_to_u64(str_from_cstr(text), out);
}

static uint64_t *number_of(struct options *options, str name)
{
    return str_equal(name, S("--seeds"))       ? &options->seeds
           : str_equal(name, S("--seed-base")) ? &options->seed_base
           : str_equal(name, S("--sqlite"))    ? &options->sqlite_per_mille
           : str_equal(name, S("--jobs"))      ? &options->jobs
                                               : NULL;
}

static bool read_options(int argc, char **argv, struct options *out)
{
    *out = (struct options){
        .seeds = 1000, .seed_base = 1, .sqlite_per_mille = SQLITE_PER_MILLE, .jobs = 1};
    for (int i = 1; i < argc; i++) {
        str option = str_from_cstr(argv[i]);
        uint64_t *number = number_of(out, option);
        if (number && (++i >= argc || !read_number(argv[i], number)))
            return false;
        if (number)
            continue;
        if (str_equal(option, S("--verbose")))
            out->is_verbose = true;
        else if (str_equal(option, S("--history")))
            out->shows_history = true;
        else if (str_equal(option, S("--coverage")))
            out->shows_coverage = true;
        else if (str_equal(option, S("--twice")))
            out->is_twice = true;
        else if (str_equal(option, S("--plant")) && i + 1 < argc)
            out->plant = argv[++i];
        else
            return false;
    }
    return out->jobs >= 1 && out->jobs <= JOBS_MAX && out->sqlite_per_mille <= 1000;
}

/* Runs end with errors on purpose: what the nodes log is for those who want all of it. */
static void drop_line(void *context, enum log_level level, str line)
{
    const struct options *options = context;
    (void) level;
    if (options->is_verbose)
        printf("    %.*s\n", STR_ARG(line));
}

/* The same seeds once more, in other processes and another grouping: the histories must be the same. */
static void compare(const struct options *options, struct registry *registry, struct tally *total)
{
    struct options one = *options;
    struct tally again = {0}, first = {0};
    for (uint64_t seed = 0; seed < options->seeds; seed++) {
        struct tally alone[2] = {{0}, {0}};
        one.seeds = 1;
        one.seed_base = options->seed_base + seed;
        one.shows_history = false;
        for (int i = 0; i < 2; i++)
            play_all(&one, registry, &alone[i]);
        if (alone[0].history != alone[1].history || alone[0].steps != alone[1].steps) {
            printf("seed %llu: played again it has another history: %016llx, %016llx\n",
                   (unsigned long long) one.seed_base, (unsigned long long) alone[0].history,
                   (unsigned long long) alone[1].history);
            total->violations++;
        }
        first.steps += alone[0].steps;
        again.steps += alone[1].steps;
    }
    if (first.steps != total->steps) {
        printf("played one by one the seeds take %lld steps, together %lld\n",
               (long long) first.steps, (long long) total->steps);
        total->violations++;
    }
}

int main(int argc, char **argv)
{
    struct options options;
    if (!read_options(argc, argv, &options)) {
        fputs("usage: sim [--seeds N] [--seed-base K] [--sqlite PER_MILLE] [--jobs N] "
              "[--plant NAME] [--twice] [--history] [--verbose]\n",
              stderr);
        return 2;
    }
    /* Arenas come and go by the thousand: they stay in the heap, and the kernel clears no page twice. */
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    mallopt(M_TOP_PAD, 4 << 20);
    char folder[] = "/tmp/nexus-sim-XXXXXX";
    ensure(mkdtemp(folder) != NULL);
    log_set_sink(drop_line, &options);
    struct registry *registry = tools_registry(folder);
    disk_prepare(folder);
    if (options.plant) {
        OWNED(arena) arena = arena_create(0);
        fault_arm(str_printf(arena, "plant.%s:*", options.plant));
    }
    struct tally total = {0};
    play_all(&options, registry, &total);
    if (options.is_twice)
        compare(&options, registry, &total);
    size_t never = options.shows_coverage ? coverage_print(&total.coverage) : 0;
    registry_destroy(registry);
    if (rmdir(folder) != 0)
        fprintf(stderr, "sim: %s was not empty\n", folder);
    printf("%llu of them with several nodes, %llu with SQLite on a faulty disk\n",
           (unsigned long long) total.shared_seeds, (unsigned long long) total.sqlite_seeds);
    printf("%llu replays of what had ended, %llu of them differ\n",
           (unsigned long long) total.replays, (unsigned long long) total.drifts);
    printf("%llu seeds, %lld steps, %lld crashes, %llu violations\n",
           (unsigned long long) total.seeds, (long long) total.steps, (long long) total.crashes,
           (unsigned long long) total.violations);
    return has_failed(&total) || never ? 1 : 0;
}
