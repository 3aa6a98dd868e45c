/*
 * The contract suites of the store: every back end passes the same.  A back end's test gives a
 * fixture and runs them all.
 * Bodies run in a coroutine of a loop; `reopen` is what a restart is (memory: a clone).
 */
#ifndef NEXUS_STORE_CONTRACT_H
#define NEXUS_STORE_CONTRACT_H

#include "store/kv.h"
#include "store/store.h"
#include "store/vector.h"

enum { CONTRACT_DIMENSION = 24 };
struct store_fixture {
    const char *name;
    void (*open)(struct store_fixture *fixture);
    void (*close)(struct store_fixture *fixture);
    void (*reopen)(struct store_fixture *fixture);
    struct store *store;
    struct kv *kv;
    struct vector_index *vectors;
    void *owner;
};

/* Runs the suites; the number of failed tests. */
int store_contract_run(struct store_fixture *fixture);
int kv_contract_run(struct store_fixture *fixture);
int vector_contract_run(struct store_fixture *fixture);

/* Runs body in a coroutine of a loop of its own until it returns. */
void store_testkit_run(void (*body)(struct context *ctx, void *argument), void *argument);
void testkit_remove_folder(const char *path); /* with the files in it */
uuid test_id(void);
/* Adds a session row (and gives its id) to a batch. */
uuid test_session(struct batch *batch);

#endif
