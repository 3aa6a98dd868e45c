/*
 * Memory: what is kept of conversations and found again by meaning.
 *
 *      store   rights --> content filter --> vector (governed embedding) --> point of the vector index --> audit
 *      search  rights --> policy memory.read --> content filter --> vector --> nearest points of one user --> audit
 *      forget  rights --> points gone --> audit
 *
 * Whose: every point belongs to a tenant, a user and perhaps a session; a search sees one user's points only.  Operators and admins may
 * name another user of their tenant, or a session of theirs, as elsewhere; only the user (or a key with scope act_as) stores.
 * Labels: a point keeps the label of what it was made from; what a search gives back has that label, joined with MEMORY and private.
 * Untrusted stays untrusted.
 * Embedder: a model of the catalog, called and booked like /v1/embeddings; or, when none is configured, the built-in one, which costs
 * nothing and finds shared words and stems, not meaning (every answer says so).  Vectors of another embedder are never compared.
 * What the content filter blocks is never stored; what it masks is stored masked.
 * Bounds: MEMORY_* of limits.h; points of a session and of a user by the options.
 * Thread: any loop.  Suspends: what is marked.
 */
#ifndef NEXUS_ORCHESTRATOR_MEMORY_H
#define NEXUS_ORCHESTRATOR_MEMORY_H

#include "orchestrator/orchestrator.h"
#include "store/vector.h"

struct memory;
struct memory_options {
    struct orchestrator *orchestrator;          /* borrowed */
    struct vector_index *index;                 /* borrowed; its bounds of points are set here */
    str embedding_model;                        /* of the catalog; empty: the built-in embedder */
    size_t session_points_max, user_points_max; /* 0: MEMORY_SESSION_POINTS, MEMORY_USER_POINTS */
};
must_check bool memory_create(const struct memory_options *options, struct memory **out,
                              struct error *e);
void memory_destroy(struct memory *memory); /* loops have ended; NULL is fine */
OWNED_DEFINE(memory)

/* At start, on a coroutine: CONFIG when the model is not there or gives vectors of another dimension than the index holds.  A provider
   that does not answer is logged and looked at with each call. */
may_suspend bool memory_check(struct memory *memory, struct context *ctx, struct error *e);
/* On each loop before memory_destroy: until cancelled upstream calls have ended, or ctx's deadline. */
may_suspend_void void memory_settle(struct memory *memory, struct context *ctx);

struct memory_entry {
    uuid id;         /* UUID_NONE: a new one; an id that is there (same session) is replaced */
    uuid session_id; /* UUID_NONE: of no session */
    str content;
    str metadata;     /* JSON object or empty */
    str content_type; /* message, tool_result, summary; empty: message */
    struct label label;
};
struct memory_item {
    uuid id, session_id;
    str user_id, content, content_type;
    str metadata; /* JSON text or empty */
    struct label label;
    int64_t timestamp_us;
    double score; /* of a search: cosine */
};
/* A session must be open and the caller's own (or with scope act_as). */
may_suspend bool memory_store(struct memory *memory, struct context *ctx,
                              const struct principal *principal, const struct memory_entry *entry,
                              struct memory_item *out, struct error *e);

struct memory_query {
    str text;
    uuid session_id; /* only this session's; UUID_NONE: all of the user's */
    uuid
        account_id; /* open session that the embedding is charged to; UUID_NONE: session_id when open, else the user */
    str user_id;  /* empty: the caller, or the session's owner */
    size_t limit; /* 0: MEMORY_RESULTS_DEFAULT */
};
struct memory_answer {
    struct memory_item *items; /* nearest first */
    size_t count;
    size_t left_out;    /* points that another embedder made: they cannot be compared */
    struct label label; /* of all that is given */
};
may_suspend bool memory_search(struct memory *memory, struct context *ctx,
                               const struct principal *principal, const struct memory_query *query,
                               struct memory_answer *out, struct error *e);

/* NOT_FOUND unless the caller may see it. */
may_suspend bool memory_forget(struct memory *memory, struct context *ctx,
                               const struct principal *principal, uuid id, struct error *e);
may_suspend bool memory_forget_session(struct memory *memory, struct context *ctx,
                                       const struct principal *principal, uuid session_id,
                                       struct error *e);

/* What a caller's own words, or what they bring of elsewhere, are labelled at least: a message is theirs, anything else is unknown. */
struct label memory_label_of_caller(str content_type);
/* Upper bound of what embedding this text takes, for rate limits; 0 for the built-in embedder. */
int64_t memory_tokens_bound(const struct memory *memory, str text);

/* {id, session_id, content, content_type, metadata, timestamp, label}, and score when there is one. */
void memory_item_write_json(struct json_writer *w, struct arena *arena,
                            const struct memory_item *item);
/* "results": [...], "embedder": {name, kind, note?}, "left_out"?: members of an open object. */
void memory_answer_write_json(const struct memory *memory, struct json_writer *w,
                              struct arena *arena, const struct memory_answer *answer);

#endif
