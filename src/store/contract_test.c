/* The contract suites over every back end. */
#include "base/arena.h"
#include "base/ensure.h"
#include "store/memory.h"
#include "store/sqlite.h"
#include "store/store_contract.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* ---- memory ---- */

static void memory_open(struct store_fixture *fixture)
{
    fixture->store = memory_store_create(clock_system(), random_system(),
                                         (struct memory_store_hooks){0}, S("test"));
    fixture->kv = memory_kv_create(clock_system());
    fixture->vectors = memory_vector_create(CONTRACT_DIMENSION);
}

static void memory_close(struct store_fixture *fixture)
{
    store_destroy(fixture->store);
    kv_destroy(fixture->kv);
    vector_destroy(fixture->vectors);
}

static void memory_reopen(struct store_fixture *fixture)
{
    struct store *clone = memory_store_clone(fixture->store);
    store_destroy(fixture->store);
    fixture->store = clone;
}

/* ---- sqlite ---- */

static char folder[64];

static void sqlite_attach(struct store_fixture *fixture)
{
    struct sqlite_options options = {
        .data_dir = str_from_cstr(folder),
        .node = S("test"),
        .vector_dimension = CONTRACT_DIMENSION,
        .clock = clock_system(),
        .random = random_system(),
    };
    struct sqlite_database *database;
    struct error e;
    bool is_new;
    if (!sqlite_database_open(&options, &database, &is_new, &e)) {
        fprintf(stderr, "%s\n", e.message);
        abort();
    }
    fixture->owner = database;
    fixture->store = sqlite_database_store(database);
    fixture->kv = sqlite_database_kv(database);
    fixture->vectors = sqlite_database_vectors(database);
}

static void sqlite_open(struct store_fixture *fixture)
{
    snprintf(folder, sizeof folder, "/tmp/nexus-store-XXXXXX");
    ensure(mkdtemp(folder));
    sqlite_attach(fixture);
}

static void sqlite_reopen(struct store_fixture *fixture)
{
    sqlite_database_close(fixture->owner);
    sqlite_attach(fixture);
}

static void sqlite_close(struct store_fixture *fixture)
{
    char seals[128];
    sqlite_database_close(fixture->owner);
    snprintf(seals, sizeof seals, "%s/audit.key.seals", folder);
    testkit_remove_folder(seals);
    testkit_remove_folder(folder);
}

int main(void)
{
    struct store_fixture memory = {
        .name = "memory", .open = memory_open, .close = memory_close, .reopen = memory_reopen};
    struct store_fixture sqlite = {
        .name = "sqlite", .open = sqlite_open, .close = sqlite_close, .reopen = sqlite_reopen};
    int failed = 0;
    struct store_fixture *fixtures[] = {&memory, &sqlite};
    for (size_t i = 0; i < ARRAY_COUNT(fixtures); i++)
        failed += store_contract_run(fixtures[i]) + kv_contract_run(fixtures[i]) +
                  vector_contract_run(fixtures[i]);
    return failed;
}
