/*
 * What only the SQLite back end promises: schema, one owner, crash safety, the audit log's
 * evidence, other programs' view.
 */
#include "store/sqlite.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "base/fault.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/strbuf.h"
#include "store/sqlite/schema_internal.h"
#include "store/store_contract.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
/* after the above: cmocka wants them first */
#include <cmocka.h>

static char folder[64];
static struct sqlite_database *database;

static char *path_of(const char *name)
{
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static bool try_open(struct error *e)
{
    bool is_new;
    struct sqlite_options options = {
        .data_dir = str_from_cstr(folder),
        .node = S("n1"),
        .clock = clock_system(),
        .random = random_system(),
    };
    return sqlite_database_open(&options, &database, &is_new, e);
}

static void must_open(void)
{
    struct error e;
    if (!try_open(&e))
        fail_msg("%s", e.message);
}

static void close_database(void)
{
    sqlite_database_close(database);
    database = NULL;
}

static int folder_make(void **state)
{
    (void) state;
    snprintf(folder, sizeof folder, "/tmp/nexus-sqlite-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int folder_remove(void **state)
{
    (void) state;
    close_database();
    testkit_remove_folder(path_of("audit.key.seals"));
    testkit_remove_folder(folder);
    return 0;
}

/* Runs SQL as another program would and gives the rows as text. */
static int add_row(void *out, int count, char **values, char **names)
{
    (void) names;
    for (int i = 0; i < count; i++)
        strbuf_printf(out, "%s%s", i ? "|" : "", values[i] ? values[i] : "NULL");
    strbuf_add_char(out, '\n');
    return 0;
}

static void query_text(sqlite3 *db, const char *sql, struct strbuf *out)
{
    char *message = NULL;
    if (sqlite3_exec(db, sql, add_row, out, &message) != SQLITE_OK)
        fail_msg("%s: %s", sql, message);
}

static void tamper(const char *sql)
{
    sqlite3 *db;
    ensure(sqlite3_open(path_of("nexus.db"), &db) == SQLITE_OK);
    struct arena *arena = arena_create(0);
    struct strbuf ignored;
    strbuf_init(&ignored, arena, 1 << 20);
    query_text(db, sql, &ignored);
    sqlite3_close(db);
    arena_destroy(arena);
}

/* ---- schema ---- */

static void describe(sqlite3 *db, struct strbuf *out)
{
    static const char *const queries[] = {
        "SELECT 'column', m.name, c.name, c.type, c.\"notnull\", c.dflt_value, c.pk FROM "
        "sqlite_master m,"
        " pragma_table_info(m.name) c WHERE m.type = 'table' AND m.name <> 'schema_migrations' "
        "ORDER BY m.name, c.cid",
        "SELECT 'reference', m.name, f.\"table\", f.\"from\", f.\"to\" FROM sqlite_master m, "
        "pragma_foreign_key_list(m.name) f"
        " WHERE m.type = 'table' ORDER BY m.name, f.id, f.seq",
        "SELECT 'index', m.name, i.name, i.\"unique\", x.seqno, x.name FROM sqlite_master m, "
        "pragma_index_list(m.name) i,"
        " pragma_index_info(i.name) x WHERE m.type = 'table' AND m.name <> 'schema_migrations'"
        " ORDER BY m.name, i.name, x.seqno",
        "SELECT 'rowid', name, wr FROM pragma_table_list WHERE schema = 'main' AND name NOT LIKE "
        "'sqlite%'"
        " AND name <> 'schema_migrations' ORDER BY name",
    };
    for (size_t i = 0; i < ARRAY_COUNT(queries); i++)
        query_text(db, queries[i], out);
}

static void test_the_migrated_schema_is_that_of_the_tables(void **state)
{
    (void) state;
    must_open();
    struct arena *arena = arena_create(0);
    struct strbuf expected, live, sql;
    strbuf_init(&expected, arena, 1 << 20);
    strbuf_init(&live, arena, 1 << 20);
    strbuf_init(&sql, arena, 1 << 20);
    schema_write_sql(&sql);
    strbuf_add_char(&sql, '\0');
    sqlite3 *db;
    ensure(sqlite3_open(":memory:", &db) == SQLITE_OK);
    query_text(db, sql.ptr, &expected);
    describe(db, &expected);
    sqlite3_close(db);
    ensure(sqlite3_open(path_of("nexus.db"), &db) == SQLITE_OK);
    describe(db, &live);
    sqlite3_close(db);
    assert_true(expected.len > 4000);
    assert_int_equal(live.len, expected.len);
    assert_memory_equal(live.ptr, expected.ptr, live.len);
    arena_destroy(arena);
}

static void test_other_programs_may_query_and_insert(void **state)
{
    (void) state;
    must_open();
    sqlite3 *db;
    ensure(sqlite3_open(path_of("nexus.db"), &db) == SQLITE_OK);
    struct arena *arena = arena_create(0);
    struct strbuf out;
    strbuf_init(&out, arena, 1 << 20);
    query_text(db,
               "SELECT id, user_id, created_at, updated_at, status, budget, policy_context, "
               "metadata FROM sessions;"
               "SELECT id, session_id, role, content, tokens, created_at, metadata FROM messages;"
               "SELECT id, session_id, status, started_at, completed_at, cost, trace_id, "
               "error_message, metadata FROM agent_runs;"
               "SELECT id, run_id, tool_name, tool_version, input, output, latency_ms, status, "
               "error_message, created_at"
               " FROM tool_calls;"
               "SELECT id, user_id, action, resource_type, resource_id, details, ip_address, "
               "user_agent, created_at"
               " FROM audit_logs;"
               "INSERT INTO sessions (tenant_id, id, user_id, requested_by, role) VALUES ('t', "
               "'s', 'u', 'u', 'user');"
               "SELECT status, json_extract(budget, '$.tokens'), abs(created_at / 1000000 - "
               "strftime('%s', 'now')) < 5"
               " FROM sessions",
               &out);
    assert_true(str_equal(strbuf_str(&out), S("active|10000|1\n")));
    sqlite3_close(db);
    arena_destroy(arena);
}

static void test_newer_or_changed_schemas_are_refused(void **state)
{
    (void) state;
    struct error e;
    must_open();
    close_database();
    tamper("UPDATE schema_migrations SET checksum = 'x'");
    assert_false(try_open(&e));
    assert_int_equal(e.reason, REASON_CORRUPT);
    tamper("INSERT INTO schema_migrations VALUES (999, 'future', 'x', 0)");
    assert_false(try_open(&e));
    assert_int_equal(e.reason, REASON_CONFIG);
}

/* ---- the folder ---- */

static void test_a_folder_has_one_owner(void **state)
{
    (void) state;
    struct error e;
    must_open();
    struct sqlite_database *first = database;
    assert_false(try_open(&e));
    assert_int_equal(e.reason, REASON_IN_USE);
    char pid[16];
    snprintf(pid, sizeof pid, "%d", (int) getpid());
    assert_non_null(strstr(e.message, pid));
    sqlite_database_close(first);
    must_open();
}

static void test_files_are_private_and_the_audit_key_is_needed(void **state)
{
    (void) state;
    struct error e;
    static const char *const files[] = {"nexus.db", "nexus.db-wal", "audit.key", "nexus.lock"};
    must_open();
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        struct stat status;
        assert_int_equal(stat(path_of(files[i]), &status), 0);
        assert_int_equal(status.st_mode & 0777, 0600);
    }
    close_database();
    assert_int_equal(unlink(path_of("audit.key")), 0);
    assert_false(try_open(&e));
    assert_int_equal(e.reason, REASON_CONFIG);
    assert_non_null(strstr(e.message, "audit.key"));
}

static void test_a_damaged_file_is_refused(void **state)
{
    (void) state;
    struct error e;
    must_open();
    close_database();
    int fd = open(path_of("nexus.db"), O_WRONLY);
    assert_int_equal(pwrite(fd, "no database here", 16, 0), 16);
    close(fd);
    assert_false(try_open(&e));
    assert_int_equal(e.reason, REASON_CORRUPT);
}

static void test_vectors_of_another_size_are_refused(void **state)
{
    (void) state;
    struct error e;
    must_open();
    close_database();
    tamper(
        "INSERT INTO session_memory VALUES ('t', 'i', 's', 'u', 1, 'message', '{}', zeroblob(16))");
    assert_false(try_open(&e));
    assert_int_equal(e.reason, REASON_CONFIG);
}

/* ---- audit ---- */

static const uuid audited = {{1, 2, 3}};
#define AUDITED "'01020300-0000-0000-0000-000000000000'"

static void write_audit(struct context *ctx, void *argument)
{
    struct error e;
    for (int i = 0; i < *(int *) argument; i++) {
        struct batch batch;
        batch_init(&batch, ctx->arena, audited);
        struct record *entry = batch_add(&batch, WRITE_INSERT, TABLE_AUDIT_LOGS);
        record_set_uuid(entry, AUDIT_LOGS_ID, test_id());
        record_set_text(entry, AUDIT_LOGS_USER_ID, S("ada"));
        record_set_text(entry, AUDIT_LOGS_ACTION, S("tool.call"));
        record_set_text(entry, AUDIT_LOGS_RESOURCE_TYPE, S("tool"));
        record_set_text(entry, AUDIT_LOGS_DETAILS, S("{\"n\":1}"));
        assert_true(store_commit(sqlite_database_store(database), ctx, &batch, &e));
    }
}

struct verdict {
    bool ok;
    int64_t entries;
    char first_bad[256];
};

static void read_verdict(struct context *ctx, void *argument)
{
    struct verdict *verdict = argument;
    struct error e;
    struct audit_report report;
    assert_true(store_audit_verify(sqlite_database_store(database), ctx, audited, &report, &e));
    verdict->ok = report.ok;
    verdict->entries = report.entries;
    snprintf(verdict->first_bad, sizeof verdict->first_bad, STR_FMT, STR_ARG(report.first_bad));
}

static struct verdict verify_after(const char *sql)
{
    struct verdict verdict;
    int count = 12;
    must_open();
    store_testkit_run(write_audit, &count);
    close_database(); /* signs */
    if (sql)
        tamper(sql);
    must_open();
    store_testkit_run(read_verdict, &verdict);
    close_database();
    unlink(path_of("nexus.db"));
    unlink(path_of("audit.key"));
    testkit_remove_folder(path_of("audit.key.seals"));
    return verdict;
}

static void test_any_change_of_the_audit_log_is_found(void **state)
{
    (void) state;
    static const char *const changes[] = {
        "UPDATE audit_logs SET user_id = 'eve' WHERE seq = 7",
        "UPDATE audit_logs SET created_at = created_at + 1 WHERE seq = 7",
        "UPDATE audit_logs SET details = '{\"n\": 1}' WHERE seq = 7",
        "UPDATE audit_logs SET resource_id = '' WHERE seq = 7",
        "UPDATE audit_logs SET writer = 'n0' WHERE seq = 7",
        "UPDATE audit_logs SET id = 'ffffffff-0000-0000-0000-000000000000' WHERE seq = 7",
        "DELETE FROM audit_logs WHERE seq = 7",
        "DELETE FROM audit_logs WHERE seq = 12",
        "DELETE FROM audit_logs WHERE seq > 3",
        "DELETE FROM audit_logs",
        "DELETE FROM audit_logs; DELETE FROM audit_checkpoints",
        "UPDATE audit_logs SET seq = seq + 100",
        "UPDATE audit_checkpoints SET hash = (SELECT hash FROM audit_logs WHERE seq = 11)",
        "UPDATE audit_checkpoints SET seq = 11",
        "UPDATE audit_checkpoints SET signature = replace(signature, substr(signature, 5, 1), 'A') "
        "|| 'A'",
        "UPDATE audit_logs SET tenant_id = 'ffffffff-0000-0000-0000-000000000000' WHERE seq = 12",
    };
    struct verdict verdict = verify_after(NULL);
    assert_true(verdict.ok);
    assert_int_equal(verdict.entries, 12);
    for (size_t i = 0; i < ARRAY_COUNT(changes); i++) {
        verdict = verify_after(changes[i]);
        if (verdict.ok || verdict.first_bad[0] == '\0')
            fail_msg("not found: %s (%s)", changes[i], verdict.first_bad);
    }
}

/* Someone who can write the database and recomputes every hash is still caught by the signature. */
static void test_a_rewritten_chain_is_found(void **state)
{
    (void) state;
    int count = 5;
    must_open();
    store_testkit_run(write_audit, &count);
    close_database();
    char key[128], kept[128];
    snprintf(key, sizeof key, "%s", path_of("audit.key"));
    snprintf(kept, sizeof kept, "%s", path_of("acks"));
    assert_int_equal(rename(key, kept), 0);
    assert_int_equal(unlink(path_of("nexus.db")), 0);
    testkit_remove_folder(path_of("audit.key.seals"));
    must_open(); /* the forger's own store, in itself perfect */
    store_testkit_run(write_audit, &count);
    close_database();
    assert_int_equal(rename(kept, key), 0);
    struct verdict verdict;
    must_open();
    store_testkit_run(read_verdict, &verdict);
    assert_false(verdict.ok);
    assert_non_null(strstr(verdict.first_bad, "bad signature"));
}

/* ---- crashes ---- */

enum { CRASH_ROUNDS = 6, CRASH_WRITERS = 16, CRASH_BATCH_ROWS = 5 };

static int acks_fd;

static void crash_writer(struct context *ctx, void *argument)
{
    (void) argument;
    struct error e;
    for (;;) {
        uuid run = test_id();
        struct batch batch;
        batch_init(&batch, ctx->arena, audited);
        for (int i = 1; i <= CRASH_BATCH_ROWS; i++) {
            struct record *event = batch_add(&batch, WRITE_INSERT, TABLE_RUN_EVENTS);
            record_set_uuid(event, RUN_EVENTS_RUN_ID, run);
            record_set_integer(event, RUN_EVENTS_SEQ, i);
            record_set_text(event, RUN_EVENTS_TYPE, S("run.started"));
            record_set_integer(event, RUN_EVENTS_VERSION, 1);
            record_set_integer(event, RUN_EVENTS_AT, i);
            record_set_text(event, RUN_EVENTS_DATA, S("{}"));
        }
        struct record *entry = batch_add(&batch, WRITE_INSERT, TABLE_AUDIT_LOGS);
        record_set_uuid(entry, AUDIT_LOGS_ID, run);
        record_set_text(entry, AUDIT_LOGS_USER_ID, S("ada"));
        record_set_text(entry, AUDIT_LOGS_ACTION, S("run.start"));
        record_set_text(entry, AUDIT_LOGS_RESOURCE_TYPE, S("run"));
        if (!store_commit(sqlite_database_store(database), ctx, &batch, &e))
            _exit(1);
        if (write(acks_fd, run.bytes, sizeof run.bytes) != sizeof run.bytes)
            _exit(1);
    }
}

static void crash_body(struct context *ctx, void *argument)
{
    struct error e;
    struct group group;
    group_init(&group, ctx);
    for (int i = 0; i < CRASH_WRITERS; i++)
        if (!group_start(&group, "writer", crash_writer, argument, &e))
            _exit(1);
    group_wait(&group);
}

static void crash_child(const char *fault)
{
    struct error e;
#ifdef NEXUS_FAULTS
    fault_arm(str_from_cstr(fault));
#else
    (void) fault;
#endif
    acks_fd = open(path_of("acks"), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (acks_fd < 0 || !try_open(&e))
        _exit(1);
    store_testkit_run(crash_body, NULL);
    _exit(1);
}

struct crash_check {
    int acknowledged, stored;
};

static void count_batches(struct context *ctx, void *argument)
{
    struct crash_check *check = argument;
    struct store *store = sqlite_database_store(database);
    struct error e;
    uuid run;
    int fd = open(path_of("acks"), O_RDONLY);
    while (read(fd, run.bytes, sizeof run.bytes) == sizeof run.bytes) {
        struct query query = query_of(TABLE_RUN_EVENTS);
        query_where_uuid(&query, RUN_EVENTS_RUN_ID, run);
        struct records page;
        arena_mark mark = arena_save(ctx->arena);
        assert_true(store_list(store, ctx, audited, &query, &page, &e));
        assert_int_equal(page.count, CRASH_BATCH_ROWS);
        arena_rewind(ctx->arena, mark);
        check->acknowledged++;
    }
    close(fd);
}

#ifdef NEXUS_FAULTS
/* Nobody asks for anything after the first failure: the store has to find out by itself. */
static void find_no_room(struct context *ctx, void *argument)
{
    struct store *store = sqlite_database_store(database);
    struct batch batch;
    struct error e;
    (void) argument;
    batch_init(&batch, ctx->arena, audited);
    (void) test_session(&batch);
    assert_int_equal(store_load(store).failing, REASON_NONE);
    fault_arm(S("store.commit:*"));
    assert_false(store_commit(store, ctx, &batch, &e));
    assert_int_equal(store_load(store).failing, REASON_DISK_FULL);
    assert_true(store_load(store).failing_since_us > 0);
    assert_true(context_sleep_ms(ctx, STORE_PROBE_MS + STORE_SETTLE_MS, &e));
    assert_int_equal(store_load(store).failing, REASON_DISK_FULL);
    fault_arm(S(""));
    for (int i = 0; i < 100 && store_load(store).failing != REASON_NONE; i++)
        assert_true(context_sleep_ms(ctx, STORE_PROBE_MS / 10, &e));
    assert_int_equal(store_load(store).failing, REASON_NONE);
}

static void test_a_store_without_room_finds_out_by_itself_when_there_is_some(void **state)
{
    (void) state;
    must_open();
    store_testkit_run(find_no_room, NULL);
    close_database();
}
#endif

static void test_what_was_acknowledged_survives_a_kill_and_is_whole(void **state)
{
    (void) state;
    struct crash_check check = {0};
    static const char *const faults[CRASH_ROUNDS] = {
        "", "store.before_commit:3:kill", "store.after_commit:4:kill",
        "", "store.before_commit:9:kill", "store.after_commit:12:kill"};
    for (int round = 0; round < CRASH_ROUNDS; round++) {
        pid_t child = fork();
        if (child == 0)
            crash_child(faults[round]);
        if (!*faults[round]) {
            usleep(150000 + 50000 * round);
            kill(child, SIGKILL);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        must_open();
        check = (struct crash_check){0};
        store_testkit_run(count_batches, &check);
        struct verdict verdict;
        store_testkit_run(read_verdict, &verdict);
        assert_true(verdict.ok);
        assert_true(verdict.entries >= check.acknowledged);
        close_database();
    }
    assert_true(check.acknowledged > 0);
    tamper("CREATE TEMP TABLE x (n CHECK (n = 0)); INSERT INTO x SELECT count(*) FROM"
           " (SELECT run_id FROM run_events GROUP BY run_id HAVING count(*) <> 5)");
    print_message("%d batches were acknowledged over %d kills\n", check.acknowledged, CRASH_ROUNDS);
}

/* ---- without a loop ---- */

static void test_it_works_on_a_plain_thread(void **state)
{
    (void) state;
    struct error e;
    must_open();
    struct scheduler *scheduler =
        scheduler_create(clock_system(), random_system(), (struct scheduler_hooks){0});
    struct arena *arena = arena_create(0);
    struct context ctx;
    context_init(&ctx, scheduler, arena, DEADLINE_NONE);
    struct batch batch;
    batch_init(&batch, arena, audited);
    uuid session = test_session(&batch);
    assert_true(store_commit(sqlite_database_store(database), &ctx, &batch, &e));
    struct record key = record_of(TABLE_SESSIONS), out;
    record_set_uuid(&key, SESSIONS_ID, session);
    assert_true(store_get(sqlite_database_store(database), &ctx, audited, &key, &out, &e));
    assert_int_equal(sqlite_database_statistics(database).rows, 1);
    context_deinit(&ctx);
    arena_destroy(arena);
    scheduler_destroy(scheduler);
}

/* ---- the sweeps' questions ---- */

static bool plan_names(struct connection *connection, const char *sql, const char *index)
{
    char explain[8192];
    bool found = false;
    sqlite3_stmt *statement = NULL;
    snprintf(explain, sizeof explain, "EXPLAIN QUERY PLAN %s", sql);
    if (sqlite3_prepare_v2(connection->db, explain, -1, &statement, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sqlite3_errmsg(connection->db), sql);
    while (sqlite3_step(statement) == SQLITE_ROW)
        found = found || strstr((const char *) sqlite3_column_text(statement, 3), index);
    sqlite3_finalize(statement);
    return found;
}

/* What is asked over all tenants every second must not walk over every row there ever was. */
static void test_what_is_due_is_found_by_its_own_index(void **state)
{
    (void) state;
    struct connection *connection = malloc(sizeof *connection);
    struct arena *arena = arena_create(0);
    struct error e;
    int count = 0;
    ensure(connection);
    must_open();
    struct connection_options options = {.path = str_from_cstr(path_of("nexus.db")),
                                         .cache_bytes = 1 << 20,
                                         .checkpoint_pages = 1000,
                                         .is_reader = true};
    assert_true(connection_open(connection, &options, &e));
    for (int table = 0; table < TABLE_COUNT; table++)
        for (int column = 0; column < table_def((enum table) table)->column_count; column++) {
            const struct column_def *def = &table_def((enum table) table)->columns[column];
            struct statement_key key;
            struct strbuf sql;
            char index[128];
            bool is_due = def->flags & COLUMN_DUE;
            if (!is_due &&
                (!(def->flags & COLUMN_INDEXED) || (def->flags & (COLUMN_KEY | COLUMN_REQUIRED))))
                continue;
            memset(&key, 0, sizeof key);
            key.kind = STATEMENT_LIST;
            key.table = (uint8_t) table;
            key.order_column = -1;
            key.is_any_tenant = true;
            key.filter_count = 1;
            key.filters[0].column = (int8_t) column;
            key.filters[0].op = FILTER_LESS;
            strbuf_init(&sql, arena, 8192);
            statement_sql(&key, &sql);
            /* Of many that are not due yet none is looked at. */
            snprintf(index, sizeof index, "%s_%s%s%s%s", table_def((enum table) table)->name,
                     def->name, is_due ? " (" : "", is_due ? def->name : "", is_due ? "<?)" : "");
            if (!plan_names(connection, str_to_cstr(arena, strbuf_str(&sql)), index))
                fail_msg("%s is not used", index);
            count++;
        }
    assert_true(count >= 5);
    connection_close(connection);
    free(connection);
    arena_destroy(arena);
}

static struct statement_key list_of(enum table table, int filter_count)
{
    struct statement_key key;
    memset(&key, 0, sizeof key);
    key.kind = STATEMENT_LIST;
    key.table = (uint8_t) table;
    key.order_column = -1;
    key.filter_count = (uint8_t) filter_count;
    return key;
}

static void assert_searched(struct connection *connection, const struct statement_key *key,
                            const char *plan)
{
    struct strbuf sql;
    OWNED(arena) arena = arena_create(0);
    strbuf_init(&sql, arena, 8192);
    statement_sql(key, &sql);
    if (!plan_names(connection, str_to_cstr(arena, strbuf_str(&sql)), plan))
        fail_msg("not so: %s", plan);
}

/* A client that follows a run asks what stands below it every few seconds. */
static void test_what_stands_below_a_run_is_found_by_index(void **state)
{
    (void) state;
    struct connection *connection = malloc(sizeof *connection);
    struct error e;
    ensure(connection);
    must_open();
    struct connection_options options = {.path = str_from_cstr(path_of("nexus.db")),
                                         .cache_bytes = 1 << 20,
                                         .checkpoint_pages = 1000,
                                         .is_reader = true};
    assert_true(connection_open(connection, &options, &e));
    struct statement_key children = list_of(TABLE_AGENT_RUNS, 2);
    children.filters[0].column = AGENT_RUNS_PARENT_RUN_ID;
    children.filters[1].column = AGENT_RUNS_REMOVED_AT;
    children.filters[1].op = FILTER_IS_NULL;
    children.has_cursor = true;
    assert_searched(connection, &children,
                    "INDEX agent_runs_parent_run_id (tenant_id=? AND parent_run_id=? AND id>?)");
    children.filter_count = 3;
    children.filters[2] = children.filters[1];
    children.filters[1].column = AGENT_RUNS_COMPLETED_AT;
    assert_searched(connection, &children,
                    "INDEX agent_runs_live_children (tenant_id=? AND parent_run_id=? AND id>?)");
    struct statement_key approvals = list_of(TABLE_APPROVALS, 2);
    approvals.filters[0].column = APPROVALS_RUN_ID;
    approvals.filters[1].column = APPROVALS_STATUS;
    assert_searched(connection, &approvals,
                    "INDEX approvals_of_run (tenant_id=? AND run_id=? AND status=?)");
    connection_close(connection);
    free(connection);
}

/* ---- memory ---- */

static int cache_bytes(const struct connection *connection)
{
    int used = 0, highest = 0;
    sqlite3_db_status(connection->db, SQLITE_DBSTATUS_CACHE_USED, &used, &highest, 0);
    return used;
}

static void test_a_connection_with_little_to_do_gives_its_cache_back(void **state)
{
    (void) state;
    const int64_t second_ns = 1000000000;
    struct connection *connection = malloc(sizeof *connection);
    ensure(connection);
    struct error e;
    struct connection_options options = {.path = str_from_cstr(path_of("cache.db")),
                                         .cache_bytes = 8 << 20,
                                         .checkpoint_pages = 1000};
    assert_true(connection_open(connection, &options, &e));
    assert_int_equal(
        sqlite3_exec(
            connection->db,
            "CREATE TABLE t AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            "LIMIT 2000) SELECT i, hex(zeroblob(500)) AS x FROM n",
            NULL, NULL, NULL),
        SQLITE_OK);
    int full = cache_bytes(connection);
    assert_true(full > 1 << 20);
    /* What a migration read does not stay either, although no job ever comes. */
    int64_t now_ns = 100 * second_ns;
    assert_int_equal(connection_rest_ms(connection), STORE_REST_MS);
    assert_true(connection_rest(connection, now_ns, false));
    assert_true(cache_bytes(connection) < full / 10);
    assert_int_equal(connection_rest_ms(connection), -1);
    for (unsigned i = 0; i <= STORE_REST_JOBS; i++) /* there is much to do: it stays */
        assert_false(connection_rest(connection, now_ns, true) && i > 0);
    assert_int_equal(sqlite3_exec(connection->db, "SELECT sum(length(x)) FROM t", NULL, NULL, NULL),
                     SQLITE_OK);
    now_ns += STORE_REST_MS * second_ns / 1000;
    assert_false(connection_rest(connection, now_ns, true));
    assert_true(cache_bytes(connection) > 1 << 20);
    assert_int_equal(connection_rest_ms(connection), STORE_REST_MS);
    now_ns += STORE_REST_MS * second_ns / 1000;
    assert_true(connection_rest(connection, now_ns, false));
    assert_true(cache_bytes(connection) < full / 10);
    assert_int_equal(connection_rest_ms(connection), -1);
    connection_close(connection);
    free(connection);
}

#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, folder_make, folder_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_migrated_schema_is_that_of_the_tables),
        TEST(other_programs_may_query_and_insert),
        TEST(newer_or_changed_schemas_are_refused),
        TEST(a_folder_has_one_owner),
        TEST(files_are_private_and_the_audit_key_is_needed),
        TEST(a_damaged_file_is_refused),
        TEST(vectors_of_another_size_are_refused),
        TEST(any_change_of_the_audit_log_is_found),
        TEST(a_rewritten_chain_is_found),
        TEST(what_was_acknowledged_survives_a_kill_and_is_whole),
#ifdef NEXUS_FAULTS
        TEST(a_store_without_room_finds_out_by_itself_when_there_is_some),
#endif
        TEST(it_works_on_a_plain_thread),
        TEST(what_is_due_is_found_by_its_own_index),
        TEST(what_stands_below_a_run_is_found_by_index),
        TEST(a_connection_with_little_to_do_gives_its_cache_back),
    };
    return cmocka_run_group_tests_name("sqlite", tests, NULL, NULL);
}
