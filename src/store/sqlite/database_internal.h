/* The parts of one open database and the functions that its threads run. */
#ifndef NEXUS_STORE_SQLITE_DATABASE_INTERNAL_H
#define NEXUS_STORE_SQLITE_DATABASE_INTERNAL_H

#include "base/limits.h"
#include "store/audit_chain.h"
#include "store/commit_health.h"
#include "store/commit_meter.h"
#include "store/sqlite.h"
#include "store/sqlite/job_internal.h"
#include <stdatomic.h>

struct map;
struct vector_cache;

/* A thread that serves a queue. */
struct job_thread {
    struct sqlite_database *database;
    struct job_queue *queue;
    pthread_t thread;
    bool is_started;
    struct connection connection;
    /* Writer only. */
    struct map *audit_heads; /* by the tenant's 16 bytes; at most of this transaction */
    bool has_unsealed;       /* a checkpoint was signed in this transaction */
    struct record row;       /* the row being written, with what the back end adds */
};

struct sqlite_store {
    struct store base;
    struct sqlite_database *database;
};
struct sqlite_kv {
    struct kv base;
    struct sqlite_database *database;
};
struct sqlite_vectors {
    struct vector_index base;
    struct sqlite_database *database;
};

struct sqlite_database {
    struct clock *clock;
    struct random *random;
    char *path; /* nexus.db */
    size_t cache_bytes;
    int checkpoint_pages;
    const char *vfs; /* NULL: the system's */
    bool is_inline;  /* no threads */
    char *node;
    char *seal_folder;
    int lock_fd;
    uint8_t audit_private_key[SIGNATURE_KEY_BYTES], audit_public_key[SIGNATURE_KEY_BYTES];
    struct sqlite_store store;
    struct sqlite_kv kv;
    struct sqlite_vectors vectors;
    struct vector_cache *vector_cache;
    struct job_queue writes, reads;
    struct job_thread writer;
    struct job_thread readers[STORE_READERS_MAX];
    int reader_count;
    atomic_llong commit_count, row_count, failed_submit_count;
    struct commit_meter meter;   /* of the writer's groups */
    struct commit_health health; /* the writer tells */
};

/* writer.c */
must_check bool writer_start(struct sqlite_database *database, struct error *e);
void writer_stop(
    struct sqlite_database *database); /* serves what is queued, signs the audit chains */
void writer_work(struct sqlite_database *database); /* inline: what is queued, as one group */
void writer_sign(struct sqlite_database *database); /* inline: what an idle writer does */
struct connection_options database_connection_options(const struct sqlite_database *database,
                                                      bool is_reader);
/* readers.c */
must_check bool readers_start(struct sqlite_database *database, int count, struct error *e);
void readers_stop(struct sqlite_database *database);
void readers_work(struct sqlite_database *database); /* inline: one job */

/* write.c: inside a transaction, on the writer */
must_check bool write_batch(struct job_thread *writer, const struct batch *batch, struct error *e);
must_check bool write_record(struct job_thread *writer, uuid tenant_id, const struct write *write,
                             struct error *e);

/* audit.c */
must_check bool audit_append(struct job_thread *writer, uuid tenant_id, const struct record *entry,
                             struct error *e);
void audit_forget_heads(struct job_thread *writer); /* after a rollback */
bool audit_has_unsigned(const struct job_thread *writer);
must_check bool audit_sign_all(struct job_thread *writer,
                               struct error *e); /* inside a transaction */
must_check bool audit_verify_rows(struct job_thread *reader, uuid tenant_id, struct arena *arena,
                                  struct audit_report *out, struct error *e);

/*
 * seal.c: the newest checkpoint of each chain is also written to a file beside the audit key,
 * outside the store, after its commit.
 * So cutting the log together with its checkpoints is found too.
 */
void seals_write(struct job_thread *writer);
must_check bool seals_verify(struct job_thread *reader, struct audit_walk *walk, struct error *e);
must_check bool audit_hash_at(struct connection *connection, uuid tenant_id,
                              const struct record *checkpoint, str *out, struct error *e);

/* the three contracts */
void sqlite_store_init(struct sqlite_database *database);
void sqlite_kv_init(struct sqlite_database *database);
must_check bool sqlite_vectors_init(struct sqlite_database *database, size_t dimension,
                                    struct error *e);
void sqlite_vectors_deinit(struct sqlite_database *database);

#endif
