/*
 * A world's store on a disk: the real SQLite back end, without threads, over the disk of vfs.h.
 *
 * Its writer and its reader are sources like any scheduler: what coroutines queued is done when the world chooses them, the writes as one
 * group.  A crash leaves what vfs.h says; the database is opened again from that, checked, and held against what was promised.
 */
#ifndef NEXUS_TESTS_SIM_DISK_H
#define NEXUS_TESTS_SIM_DISK_H

#include "world.h"

void disk_open(struct world *world);
void disk_close(struct world *world);
void disk_crash(struct world *world, bool is_power_cut);
/* Faults come, or not: who looks whether all is well must be able to read. */
void disk_set_faulty(struct world *world, bool is_faulty);
bool disk_store_has_work(struct sqlite_database *database);
void disk_store_work(struct world *world);
/* Once per process, before any world: a database with its tables made, that worlds begin with. */
void disk_prepare(const char *folder);

#endif
