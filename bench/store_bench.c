/*
 * Store benchmark: durable rows per second and the writer's CPU per row, SQLite with
 * synchronous=FULL.
 *
 *     bench_store_bench [seconds per figure] [folder]
 *
 * Rows are messages of 512 bytes.  `coroutines x rows`: that many coroutines, each committing
 * batches of that many rows, so group commit decides how many share one fsync.  The folder decides
 * what is measured: take one on the disk that will hold the data.
 */
#include "base/arena.h"
#include "base/ensure.h"
#include "runtime/loop.h"
#include "store/sqlite.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct bench {
    struct loop *loop;
    struct store *store;
    uuid tenant_id, session_id;
    int coroutines, rows;
    enum { BENCH_MESSAGES, BENCH_AUDIT, BENCH_GET } kind;
    int64_t until_ns;
    int64_t row_count, commit_count;
};

static void ok(bool is_ok, const struct error *e)
{
    if (!is_ok) {
        fprintf(stderr, "%s\n", e->message);
        exit(1);
    }
}

static int64_t cpu_ns_of(const char *thread_name)
{
    int64_t total = 0;
    DIR *tasks = opendir("/proc/self/task");
    ensure(tasks);
    for (struct dirent *task; (task = readdir(tasks));) {
        char path[320], name[32] = "", line[128];
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        if (!fgets(name, sizeof name, file))
            name[0] = '\0';
        fclose(file);
        if (strncmp(name, thread_name, strlen(thread_name)) != 0)
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/schedstat", task->d_name);
        file = fopen(path, "r");
        if (file && fgets(line, sizeof line, file))
            total += strtoll(line, NULL, 10);
        if (file)
            fclose(file);
    }
    closedir(tasks);
    return total;
}

static uuid new_id(void)
{
    return uuid_new(clock_system(), random_system());
}

static void fill(struct bench *bench, struct batch *batch, str content)
{
    for (int i = 0; i < bench->rows && bench->kind == BENCH_MESSAGES; i++) {
        struct record *message = batch_add(batch, WRITE_INSERT, TABLE_MESSAGES);
        record_set_uuid(message, MESSAGES_ID, new_id());
        record_set_uuid(message, MESSAGES_SESSION_ID, bench->session_id);
        record_set_text(message, MESSAGES_ROLE, S("user"));
        record_set_text(message, MESSAGES_CONTENT, content);
        record_set_integer(message, MESSAGES_TOKENS, 128);
    }
    for (int i = 0; i < bench->rows && bench->kind == BENCH_AUDIT; i++) {
        struct record *entry = batch_add(batch, WRITE_INSERT, TABLE_AUDIT_LOGS);
        record_set_uuid(entry, AUDIT_LOGS_ID, new_id());
        record_set_text(entry, AUDIT_LOGS_USER_ID, S("ada"));
        record_set_text(entry, AUDIT_LOGS_ACTION, S("model.call"));
        record_set_text(entry, AUDIT_LOGS_RESOURCE_TYPE, S("model"));
        record_set_text(entry, AUDIT_LOGS_DETAILS, S("{\"model\":\"fast\",\"tokens\":1234}"));
    }
}

static void member(struct context *ctx, void *argument)
{
    struct bench *bench = argument;
    struct error e;
    char content[512];
    memset(content, 'x', sizeof content);
    arena_mark mark = arena_save(ctx->arena);
    while (context_now_ns(ctx) < bench->until_ns) {
        arena_rewind(ctx->arena, mark);
        if (bench->kind == BENCH_GET) {
            struct record key = record_of(TABLE_SESSIONS),
                          *out = ARENA_NEW(ctx->arena, struct record);
            record_set_uuid(&key, SESSIONS_ID, bench->session_id);
            ok(store_get(bench->store, ctx, bench->tenant_id, &key, out, &e), &e);
            bench->row_count++;
            continue;
        }
        struct batch batch;
        batch_init(&batch, ctx->arena, bench->tenant_id);
        fill(bench, &batch, str_of(content, sizeof content));
        ok(store_commit(bench->store, ctx, &batch, &e), &e);
        bench->row_count += bench->rows;
        bench->commit_count++;
    }
}

static void body(void *argument)
{
    struct bench *bench = argument;
    struct error e;
    struct arena *arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, loop_scheduler(bench->loop), arena, DEADLINE_NONE);
    struct group group;
    group_init(&group, &ctx);
    for (int i = 0; i < bench->coroutines; i++)
        ok(group_start(&group, "bench", member, bench, &e), &e);
    group_wait(&group);
    context_deinit(&ctx);
    arena_destroy(arena);
    loop_stop(bench->loop);
}

static void measure(struct bench *bench, struct sqlite_database *database, const char *name,
                    double seconds)
{
    struct error e;
    bench->loop = loop_create(clock_system(), random_system(), &e);
    ensure(bench->loop);
    bench->row_count = bench->commit_count = 0;
    int64_t start_ns = clock_monotonic_ns(clock_system());
    bench->until_ns = start_ns + (int64_t) (seconds * 1e9);
    const char *thread = bench->kind == BENCH_GET ? "store-read" : "store-writer";
    int64_t cpu_ns = cpu_ns_of(thread);
    int64_t commits = sqlite_database_statistics(database).commits;
    ok(coroutine_start(loop_scheduler(bench->loop), "bench", body, bench, &e), &e);
    loop_run(bench->loop);
    loop_destroy(bench->loop);
    double elapsed = (double) (clock_monotonic_ns(clock_system()) - start_ns) / 1e9;
    cpu_ns = cpu_ns_of(thread) - cpu_ns;
    commits = sqlite_database_statistics(database).commits - commits;
    printf("%-9s %3d x %3d   %9.0f rows/s   %6.2f us CPU/row (%s)   %6.1f rows/transaction\n", name,
           bench->coroutines, bench->rows, (double) bench->row_count / elapsed,
           (double) cpu_ns / 1e3 / (double) bench->row_count, thread,
           commits ? (double) bench->row_count / (double) commits : 0.0);
}

static void add_session(struct bench *bench, struct scheduler *scheduler)
{
    struct error e;
    struct arena *arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, scheduler, arena, DEADLINE_NONE);
    struct batch batch;
    batch_init(&batch, arena, bench->tenant_id);
    struct record *session = batch_add(&batch, WRITE_INSERT, TABLE_SESSIONS);
    record_set_uuid(session, SESSIONS_ID, bench->session_id);
    record_set_text(session, SESSIONS_USER_ID, S("ada"));
    record_set_text(session, SESSIONS_REQUESTED_BY, S("ada"));
    record_set_text(session, SESSIONS_ROLE, S("user"));
    ok(store_commit(bench->store, &ctx, &batch, &e), &e);
    context_deinit(&ctx);
    arena_destroy(arena);
}

static void folder_remove(const char *path)
{
    DIR *folder = opendir(path);
    ensure(folder);
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(folder), entry->d_name, 0);
    closedir(folder);
    ensure(rmdir(path) == 0);
}

int main(int count, char **arguments)
{
    double seconds = count > 1 ? strtod(arguments[1], NULL) : 2;
    char folder[256];
    snprintf(folder, sizeof folder, "%s/nexus-bench-XXXXXX", count > 2 ? arguments[2] : "/tmp");
    ensure(mkdtemp(folder));
    struct sqlite_options options = {.data_dir = str_from_cstr(folder),
                                     .node = S("bench"),
                                     .clock = clock_system(),
                                     .random = random_system()};
    struct sqlite_database *database;
    struct error e;
    bool is_new;
    ok(sqlite_database_open(&options, &database, &is_new, &e), &e);
    struct bench bench = {
        .store = sqlite_database_store(database), .tenant_id = new_id(), .session_id = new_id()};
    struct scheduler *scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    add_session(&bench, scheduler);
    scheduler_destroy(scheduler);

    static const struct {
        const char *name;
        int kind, coroutines, rows;
    } runs[] = {
        {"messages", BENCH_MESSAGES, 1, 1},
        {"messages", BENCH_MESSAGES, 64, 1},
        {"messages", BENCH_MESSAGES, 64, 5},
        {"messages", BENCH_MESSAGES, 250, 2},
        {"messages", BENCH_MESSAGES, 2, 500},
        {"audit", BENCH_AUDIT, 250, 1},
        {"audit", BENCH_AUDIT, 2, 500},
        {"get", BENCH_GET, 1, 1},
        {"get", BENCH_GET, 64, 1},
    };
    for (size_t i = 0; i < ARRAY_COUNT(runs); i++) {
        bench.kind = runs[i].kind;
        bench.coroutines = runs[i].coroutines;
        bench.rows = runs[i].rows;
        measure(&bench, database, runs[i].name, seconds);
    }
    sqlite_database_close(database);
    char seals[300];
    snprintf(seals, sizeof seals, "%s/audit.key.seals", folder);
    folder_remove(seals);
    folder_remove(folder);
    return 0;
}
