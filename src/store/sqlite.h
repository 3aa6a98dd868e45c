/*
 * SQLite back end: one file `nexus.db` in the data folder, WAL, synchronous=FULL.
 *
 * One writer thread: no commit timer, it takes what queued during the last commit (at most
 * STORE_GROUP_ROWS_MAX rows) as the next transaction and acknowledges after the commit.  A batch
 * that fails (conflict, fence) is undone alone, and its neighbours share the fsync all the same.
 * When the disk or the file fails, the transaction is rolled back and its batches are retried one
 * by one.  So a bad batch never harms its neighbours, and after a failure the store goes on
 * working.
 * Waiting: a call returns when its work is done, never earlier: deadline and cancellation are
 * looked at before a commit is queued and before a read is begun, not afterwards (an unknown
 * outcome is worse than a late one).  Called outside a coroutine of a loop, it blocks the thread.
 * 2-4 reader threads with their own connections serve get and list.
 * A data folder has one owner: a second process gets REASON_IN_USE (an advisory lock on
 * `nexus.lock`, held for life, naming the pid).
 * Migrations run at open: numbered, checksummed, in one transaction each; a newer schema than the
 * program knows is refused.
 * The audit chain is hashed by the writer at commit; checkpoints are signed every
 * AUDIT_CHECKPOINT_ENTRIES entries with the key in `audit.key` (0600) outside the database, and
 * the newest one of each chain is also kept beside the key in `audit.key.seals/`: who can write
 * the database alone can neither forge nor cut the log unseen.  A backup holds database, key and
 * seals.
 */
#ifndef NEXUS_STORE_SQLITE_H
#define NEXUS_STORE_SQLITE_H

#include "store/kv.h"
#include "store/store.h"
#include "store/vector.h"

struct sqlite_options {
    str data_dir;
    str node;                /* writer of the audit chain */
    str audit_key_path;      /* empty: data_dir/audit.key, created when missing on an empty store */
    int reader_count;        /* 0: 2; at most STORE_READERS_MAX */
    size_t vector_dimension; /* 0: VECTOR_DIMENSION_DEFAULT; CONFIG when others are stored */
    size_t cache_bytes;      /* pages kept in memory, for each connection; 0: 16 MiB */
    struct clock *clock;
    struct random *random;
    int checkpoint_pages; /* of the WAL, before they go into the database; 0: 4000 */
    /*
     * The simulation's.  vfs: how files are reached (NULL: the system's); the data folder is the VFS's, only key and seals are
     * files, and nothing is locked.  is_inline: there are no threads; what coroutines ask for is done when sqlite_database_work is
     * called, what others ask for at once.
     */
    const char *vfs;
    bool is_inline;
};

/* One database, three contracts over it.  Blocking: call at start, not on a loop. */
struct sqlite_database;
must_check bool sqlite_database_open(const struct sqlite_options *options,
                                     struct sqlite_database **out, bool *is_new, struct error *e);
void sqlite_database_close(
    struct sqlite_database *database); /* flushes the queue, checkpoints, joins */
struct store *sqlite_database_store(struct sqlite_database *database);          /* borrowed */
struct kv *sqlite_database_kv(struct sqlite_database *database);                /* borrowed */
struct vector_index *sqlite_database_vectors(struct sqlite_database *database); /* borrowed */

struct sqlite_statistics {
    int64_t commits, rows; /* since the start */
    int64_t failed_submits;
    size_t write_queue, read_queue;
};
struct sqlite_statistics sqlite_database_statistics(
    struct sqlite_database *database); /* any thread */

/* Inline only: all queued writes as one group, one queued read, or the signing that an idle writer does. */
enum sqlite_work { SQLITE_WORK_WRITES, SQLITE_WORK_READ, SQLITE_WORK_SIGN };
void sqlite_database_work(struct sqlite_database *database, enum sqlite_work work);

#endif
