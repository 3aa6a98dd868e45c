/*
 * Sift: a page of those rows of a list that somebody wants, where no index tells them apart.
 *
 * The list is read in its order until the page is full, the list ends, or STORE_SIFT_ROWS_MAX rows have been read: then a page may have
 * fewer rows than asked for, or none, and still a next_cursor.  So one request costs no more however rare they are.
 * Thread: as store_list.  Suspends: yes.
 */
#ifndef NEXUS_STORE_SIFT_H
#define NEXUS_STORE_SIFT_H

#include "store/store.h"

typedef bool sift_fn(const void *owner, const struct record *row);

/* query->limit: rows of the page; its cursor is one of store_list or of an earlier page. */
may_suspend bool store_sift(struct store *store, struct context *ctx, uuid tenant_id,
                            const struct query *query, sift_fn *is_wanted, const void *owner,
                            struct records *out, struct error *e);

#endif
