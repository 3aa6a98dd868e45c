/*
 * Checks that every back end needs in the same words: is a batch lawful before it is tried, and is
 * a query answerable.
 * They guard against callers, not against the stored data.  Suspends: never.
 */
#ifndef NEXUS_STORE_CHECK_H
#define NEXUS_STORE_CHECK_H

#include "store/store.h"

/*
 * Keys complete, required columns there and not null, JSON well-formed, sizes and counts within
 * limits, audit tables only appended to.
 * The JSON check works on the batch's arena and rewinds it.
 */
must_check bool check_batch(const struct batch *batch, struct error *e);
must_check bool check_query(const struct query *query, struct error *e);
must_check bool check_key(const struct record *key, struct error *e);
size_t record_bytes(const struct record *r); /* of its text values */
bool write_is_insert(enum write_op op);      /* INSERT, INSERT_NEW, UPSERT: may create the row */
uint32_t table_key_mask(enum table table);

/* Passes the fault point `<name>.<side>` of a batch; NULL and "" never fire. */
bool batch_fault(const char *name, const char *side);

#endif
