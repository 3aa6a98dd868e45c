/*
 * A disk in memory under SQLite, with a disk's faults.
 *
 * What is written is seen at once by whoever reads, and survives a power cut only from the next sync on: of what came after, each sector of
 * 512 bytes survives or not by chance, whatever the order of the writes was (a write may be torn, a later one may be there without an
 * earlier one).  A killed process loses nothing that it wrote.  A file that was never synced may not exist after the cut, a removed one
 * may exist again.  Faults: reads and writes that fail (EIO), a disk that is full for a while, a sync that fails and leaves what it
 * was to save neither saved nor waiting.
 * One disk is in use at a time (vfs_use); files that are open stay with theirs.
 */
#ifndef NEXUS_TESTS_SIM_VFS_H
#define NEXUS_TESTS_SIM_VFS_H

#include "runtime/clock.h"

#define VFS_NAME "nexus-sim"

struct vfs_disk;
struct vfs_faults {
    unsigned read, write, sync; /* one in so many fails; 0: none */
    unsigned full; /* one write in so many finds the disk full, and so do the next ones */
};
struct vfs_counts {
    int64_t writes, syncs, torn, faults;
};

struct vfs_disk *vfs_disk_create(struct random *random);
void vfs_disk_destroy(struct vfs_disk *disk); /* no file of it is used any more */
/* A copy of what is there; all of it counts as synced. */
struct vfs_disk *vfs_disk_copy(const struct vfs_disk *disk, struct random *random);
/* What a power cut leaves of it, or a kill. */
struct vfs_disk *vfs_disk_survivor(struct vfs_disk *disk, bool is_power_cut);
void vfs_disk_set_faults(struct vfs_disk *disk, struct vfs_faults faults);
struct vfs_counts vfs_disk_counts(const struct vfs_disk *disk);
void vfs_use(struct vfs_disk *disk);
/* PRAGMA integrity_check and foreign_key_check of a file on the disk in use; NULL: all is well. */
const char *vfs_check(const char *path);

#endif
