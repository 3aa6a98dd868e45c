#include "base/ensure.h"
#include "store/sqlite/database_internal.h"
#include "store/sqlite/schema_internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static bool fail_file(struct error *e, const char *what, const char *path)
{
    return error_set(e, errno == ENOSPC || errno == EDQUOT ? REASON_DISK_FULL : REASON_STORE,
                     "%s %s: %s", what, path, strerror(errno));
}

/* ---- one owner ---- */

static bool lock_take(struct sqlite_database *database, const char *path, struct error *e)
{
    database->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (database->lock_fd < 0)
        return fail_file(e, "open", path);
    char text[32] = "";
    if (flock(database->lock_fd, LOCK_EX | LOCK_NB) != 0) {
        ssize_t len = pread(database->lock_fd, text, sizeof text - 1, 0);
        text[len > 0 ? strcspn(text, "\n") : 0] = '\0';
        return error_set(
            e, REASON_IN_USE,
            "the data folder is in use by process %s (%s): stop it, or use another folder",
            *text ? text : "?", path);
    }
    int len = snprintf(text, sizeof text, "%d\n", (int) getpid());
    if (ftruncate(database->lock_fd, 0) != 0 ||
        pwrite(database->lock_fd, text, (size_t) len, 0) != len)
        return fail_file(e, "write", path);
    return true;
}

/* ---- the key of the audit checkpoints ---- */

static bool audit_key_read(struct sqlite_database *database, const char *path, struct error *e)
{
    char text[2 * SIGNATURE_KEY_BYTES + 2];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fail_file(e, "open", path);
    ssize_t len = read(fd, text, sizeof text);
    close(fd);
    digest key;
    bool is_key = len >= 2 * SIGNATURE_KEY_BYTES &&
                  digest_parse_hex(str_of(text, 2 * SIGNATURE_KEY_BYTES), &key);
    if (is_key)
        memcpy(database->audit_private_key, key.bytes, sizeof key.bytes);
    explicit_bzero(&key, sizeof key);
    explicit_bzero(text, sizeof text);
    return is_key ||
           error_set(e, REASON_CORRUPT, "%s holds no key: restore it from a backup", path);
}

static bool audit_key_create(struct sqlite_database *database, const char *path, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    digest key;
    digest_random_bytes(key.bytes, sizeof key.bytes);
    memcpy(database->audit_private_key, key.bytes, sizeof key.bytes);
    str text = str_printf(arena, STR_FMT "\n", STR_ARG(digest_hex(arena, key)));
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return fail_file(e, "create", path);
    bool is_written = write(fd, text.ptr, text.len) == (ssize_t) text.len && fsync(fd) == 0;
    close(fd);
    return is_written || fail_file(e, "write", path);
}

static bool audit_key_open(struct sqlite_database *database, const char *path, bool is_new,
                           struct error *e)
{
    bool exists = access(path, F_OK) == 0;
    if (!exists && !is_new)
        return error_set(e, REASON_CONFIG, "the audit key %s is missing: restore it from a backup",
                         path);
    if (exists ? !audit_key_read(database, path, e) : !audit_key_create(database, path, e))
        return false;
    signature_public_key(database->audit_private_key, database->audit_public_key);
    return true;
}

/* ---- opening and closing ---- */

/* A new file is ours alone before SQLite writes to it; the WAL takes over its mode. */
static bool file_prepare(const char *path, const char *vfs, bool *is_empty, struct error *e)
{
    sqlite3_vfs *other = vfs ? sqlite3_vfs_find(vfs) : NULL;
    int exists = 0;
    if (vfs && !other)
        return error_set(e, REASON_STORE, "there is no VFS %s", vfs);
    if (other) {
        *is_empty =
            other->xAccess(other, path, SQLITE_ACCESS_EXISTS, &exists) != SQLITE_OK || !exists;
        return true;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        return fail_file(e, "open", path);
    *is_empty = status.st_size == 0;
    close(fd);
    return true;
}

static bool open_files(struct sqlite_database *database, const struct sqlite_options *options,
                       bool *is_new, struct arena *arena, struct error *e)
{
    char *folder = str_to_cstr(arena, options->data_dir);
    if (!options->vfs && mkdir(folder, 0700) != 0 && errno != EEXIST)
        return fail_file(e, "create", folder);
    char *lock = str_to_cstr(arena, str_printf(arena, "%s/nexus.lock", folder));
    char *key = str_is_empty(options->audit_key_path)
                    ? str_to_cstr(arena, str_printf(arena, "%s/audit.key", folder))
                    : str_to_cstr(arena, options->audit_key_path);
    str seals = str_printf(arena, "%s.seals", key);
    database->seal_folder = strndup(seals.ptr, seals.len);
    ensure(database->seal_folder);
    if (mkdir(database->seal_folder, 0700) != 0 && errno != EEXIST)
        return fail_file(e, "create", database->seal_folder);
    bool is_empty = false;
    if ((!options->vfs && !lock_take(database, lock, e)) ||
        !file_prepare(database->path, options->vfs, &is_empty, e) ||
        !audit_key_open(database, key, is_empty, e))
        return false;
    struct connection *connection = &database->writer.connection;
    struct connection_options opening = database_connection_options(database, false);
    return connection_open(connection, &opening, e) &&
           schema_migrate(connection, clock_unix_us(database->clock), is_new, e);
}

struct connection_options database_connection_options(const struct sqlite_database *database,
                                                      bool is_reader)
{
    return (struct connection_options){
        .path = str_from_cstr(database->path),
        .vfs = database->vfs,
        .cache_bytes = database->cache_bytes,
        .checkpoint_pages = database->checkpoint_pages,
        .is_reader = is_reader,
    };
}

bool sqlite_database_open(const struct sqlite_options *options, struct sqlite_database **out,
                          bool *is_new, struct error *e)
{
    OWNED(arena) arena = arena_create(0);
    struct sqlite_database *database = calloc(1, sizeof *database);
    ensure(database);
    database->clock = options->clock;
    database->random = options->random;
    database->cache_bytes = options->cache_bytes ? options->cache_bytes : STORE_CACHE_BYTES_DEFAULT;
    database->checkpoint_pages =
        options->checkpoint_pages ? options->checkpoint_pages : STORE_CHECKPOINT_PAGES;
    database->vfs = options->vfs;
    database->is_inline = options->is_inline;
    database->lock_fd = -1;
    database->node = strndup(options->node.ptr ? options->node.ptr : "", options->node.len);
    str path = str_printf(arena, STR_FMT "/nexus.db", STR_ARG(options->data_dir));
    database->path = strndup(path.ptr, path.len);
    ensure(database->node && database->path);
    database->health.path = database->path;
    sqlite_store_init(database);
    sqlite_kv_init(database);
    int readers = options->reader_count > 0 ? options->reader_count : 2;
    if (open_files(database, options, is_new, arena, e) &&
        sqlite_vectors_init(database, options->vector_dimension, e) &&
        readers_start(database, readers < STORE_READERS_MAX ? readers : STORE_READERS_MAX, e) &&
        writer_start(database, e)) {
        *out = database;
        return true;
    }
    sqlite_database_close(database);
    return error_wrap(e, "store");
}

void sqlite_database_close(struct sqlite_database *database)
{
    if (!database)
        return;
    writer_stop(database);
    readers_stop(database);
    if (database->writer.connection.db)
        sqlite3_wal_checkpoint_v2(database->writer.connection.db, NULL, SQLITE_CHECKPOINT_TRUNCATE,
                                  NULL, NULL);
    connection_close(&database->writer.connection);
    sqlite_vectors_deinit(database);
    if (database->lock_fd >= 0)
        close(database->lock_fd); /* and with it the lock */
    explicit_bzero(database->audit_private_key, sizeof database->audit_private_key);
    free(database->seal_folder);
    free(database->path);
    free(database->node);
    free(database);
}

void sqlite_database_work(struct sqlite_database *database, enum sqlite_work work)
{
    ensure(database->is_inline);
    if (work == SQLITE_WORK_WRITES)
        writer_work(database);
    else if (work == SQLITE_WORK_READ)
        readers_work(database);
    else
        writer_sign(database);
}

struct store *sqlite_database_store(struct sqlite_database *database)
{
    return &database->store.base;
}

struct kv *sqlite_database_kv(struct sqlite_database *database)
{
    return &database->kv.base;
}

struct vector_index *sqlite_database_vectors(struct sqlite_database *database)
{
    return &database->vectors.base;
}

static size_t queue_count(struct job_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    size_t count = queue->count;
    pthread_mutex_unlock(&queue->lock);
    return count;
}

struct sqlite_statistics sqlite_database_statistics(struct sqlite_database *database)
{
    return (struct sqlite_statistics){
        .commits = atomic_load(&database->commit_count),
        .rows = atomic_load(&database->row_count),
        .failed_submits = atomic_load(&database->failed_submit_count),
        .write_queue = queue_count(&database->writes),
        .read_queue = queue_count(&database->reads),
    };
}
