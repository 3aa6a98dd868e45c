/*
 * Store: the journal and the records, in one transaction.
 *
 * The truth of a run is its journal (TABLE_RUN_EVENTS); sessions, messages, agent_runs, tool_calls, audit_logs are read models
 * written in the same batch as the events.  A batch is all or nothing and durable when store_commit returns.
 *
 * Fencing: a session has one live writer.  store_claim makes this node the owner and gives a new epoch; a batch with a fence is
 * applied only while the session row still holds that (node, epoch), else REASON_FENCED and nothing is written.  The owner that claims
 * again keeps its epoch: of its coroutines that found another owner at once, none fences the others out.
 *
 * Every call names a tenant; rows of other tenants do not exist for it.  (store_find_key_any_tenant is the one exception, for
 * authentication, and store_scan_live_runs, for recovery at start.)
 * Thread: any coroutine of any loop; the back end does its work elsewhere.  Implementations: sqlite, memory (later postgres);
 * all pass store_contract.
 */
#ifndef NEXUS_STORE_STORE_H
#define NEXUS_STORE_STORE_H

#include "runtime/context.h"
#include "store/record.h"

enum write_op {
    WRITE_INSERT,     /* CONFLICT when the key exists */
    WRITE_INSERT_NEW, /* nothing happens when the key exists */
    WRITE_UPDATE, /* sets the columns that the record has, by key; expects one row (see `where`) */
    WRITE_UPSERT, /* insert, or set the given columns */
    WRITE_ADD, /* adds INTEGER columns to a row, by key; other set columns are assigned; expects one row */
    WRITE_DELETE, /* by key (all key columns); no row is fine */
};

struct write {
    enum write_op op;
    struct record record;
    /* UPDATE only: applied only while this column has this value; else the whole batch fails with CONFLICT. -1: none. */
    int where_column;
    struct value where_value;
};

struct fence {
    uuid session_id;
    str node;
    int64_t epoch;
};

/* Called once a batch is durable (store_commit and store_submit alike), on whatever thread knows it first: it must be short, thread-safe
   and must not wait.  `failed` instead of `run` when a submitted batch was not stored after all (store_commit tells its caller). */
struct batch_notice {
    void (*run)(const struct batch_notice *notice); /* NULL: none */
    void *owner;
    uuid id;
    int64_t number, source;
    void (*failed)(const struct batch_notice *notice, const struct error *why); /* NULL: none */
};

struct batch {
    uuid tenant_id;
    const struct fence *fence; /* NULL: none */
    struct write *writes;
    size_t count, capacity;
    struct arena *arena;
    struct batch_notice notice; /* copied by value */
    /*
     * A fault point's name, "" for none; static text.  `<fault>.before` and `<fault>.after` are
     * passed around the commit: tests end the process there.
     */
    const char *fault;
    bool
        is_retention; /* may change and remove rows of a journal: what is kept too long (orchestrator/retention.h) */
};

void batch_init(struct batch *batch, struct arena *arena, uuid tenant_id);
/* Adds a write and gives its record to fill. */
struct record *batch_add(struct batch *batch, enum write_op op, enum table table);
/* The last added UPDATE is conditional: column must equal the value. */
void batch_where_text(struct batch *batch, int column, str value);
void batch_where_integer(struct batch *batch, int column, int64_t value);
void batch_where_uuid(struct batch *batch, int column, uuid value);
void batch_where_null(struct batch *batch, int column); /* the column must be null */
void batch_where_as(struct batch *batch, int column,
                    const struct record *read); /* it must be as in this row, null or not */

enum filter_op {
    FILTER_EQUAL,
    FILTER_NOT_EQUAL,
    FILTER_LESS,
    FILTER_GREATER,
    FILTER_IS_NULL,
    FILTER_NOT_NULL
};
struct filter {
    int column;
    enum filter_op op;
    struct value value;
};
struct query {
    enum table table;
    struct filter filters[6]; /* all must hold */
    int filter_count;
    int order_column; /* then by key; -1: by key only */
    bool is_descending;
    size_t limit; /* 1..STORE_PAGE_MAX */
    str cursor;   /* from a previous page, or empty */
};
struct records {
    struct record *items; /* on ctx's arena */
    size_t count;
    str next_cursor; /* empty: no more */
};

/* How busy a back end is and whether it can commit: what overload (orchestrator/overload.h) and /readyz look at. */
struct store_load {
    int64_t queued, queue_max; /* batches that wait for the writer; queue_max 0: it has no queue */
    int64_t
        commit_us; /* what the newest commits took, or the age of the one at work (commit_meter.h) */
    enum error_reason failing; /* why it cannot commit (commit_health.h); REASON_NONE: it can */
    int64_t failing_since_us;  /* Unix time */
};

struct audit_report {
    bool ok;
    int64_t entries;
    str first_bad; /* id or description of the first entry that does not fit; empty when ok */
};

struct store;
struct store_ops {
    const char *name;
    /* must not keep pointers into the batch after it returns */
    may_suspend bool (*commit)(struct store *store, struct context *ctx, const struct batch *batch,
                               struct error *e);
    /* Queues a copy of a batch without waiting; failures are counted and logged.  UNAVAILABLE when the queue is full. */
    bool (*submit)(struct store *store, const struct batch *batch, struct error *e);
    may_suspend bool (*claim)(struct store *store, struct context *ctx, uuid tenant_id,
                              uuid session_id, str node, int64_t *epoch, struct error *e);
    /* NOT_FOUND when there is no such row.  `key` has the key columns set. */
    may_suspend bool (*get)(struct store *store, struct context *ctx, uuid tenant_id,
                            const struct record *key, struct record *out, struct error *e);
    may_suspend bool (*list)(struct store *store, struct context *ctx, uuid tenant_id,
                             const struct query *query, struct records *out, struct error *e);
    /* By a UNIQUE or any column over all tenants: API_KEYS by hash; AGENT_RUNS by status at recovery; TENANTS. */
    may_suspend bool (*list_any_tenant)(struct store *store, struct context *ctx,
                                        const struct query *query, struct records *out,
                                        uuid **tenant_ids, struct error *e);
    may_suspend bool (*audit_verify)(struct store *store, struct context *ctx, uuid tenant_id,
                                     struct audit_report *out, struct error *e);
    void (*destroy)(struct store *store);
    struct store_load (*load)(
        struct store *store); /* any thread, waits for nothing; NULL: not known */
};
struct store {
    const struct store_ops *ops;
};

may_suspend bool store_commit(struct store *store, struct context *ctx, const struct batch *batch,
                              struct error *e);
bool store_submit(struct store *store, const struct batch *batch, struct error *e);
may_suspend bool store_claim(struct store *store, struct context *ctx, uuid tenant_id,
                             uuid session_id, str node, int64_t *epoch, struct error *e);
may_suspend bool store_get(struct store *store, struct context *ctx, uuid tenant_id,
                           const struct record *key, struct record *out, struct error *e);
may_suspend bool store_list(struct store *store, struct context *ctx, uuid tenant_id,
                            const struct query *query, struct records *out, struct error *e);
may_suspend bool store_list_any_tenant(struct store *store, struct context *ctx,
                                       const struct query *query, struct records *out,
                                       uuid **tenant_ids, struct error *e);
may_suspend bool store_audit_verify(struct store *store, struct context *ctx, uuid tenant_id,
                                    struct audit_report *out, struct error *e);
void store_destroy(struct store *store);
struct store_load store_load(struct store *store); /* any thread, waits for nothing */

struct query query_of(enum table table); /* by key, ascending, STORE_PAGE_MAX, no filter */
void query_where_text(struct query *query, int column, str value);
void query_where_uuid(struct query *query, int column, uuid value);
void query_where_integer(struct query *query, int column, enum filter_op op, int64_t value);
void query_where_null(struct query *query, int column, bool is_null);

#endif
