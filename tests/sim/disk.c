#include "disk.h"
#include "base/arena.h"
#include "base/ensure.h"
#include "laws.h"
#include "store/sqlite.h"
#include "vfs.h"
#include "witness.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE "sim/nexus.db"

struct disk {
    struct vfs_disk *files;
    char key[160]; /* path of the audit key: a real file, and its seals beside it */
    int checkpoint_pages;
};

static const struct vfs_faults faults = {.read = 6000, .write = 3000, .sync = 400, .full = 8000};
static char folder[128]; /* of the keys; with the process's number */
static struct vfs_disk *prepared;

/* ---- the key, which is no secret here: 64 hex digits ---- */

static void write_key(const char *path)
{
    FILE *file = fopen(path, "we");
    ensure(file != NULL);
    for (int i = 0; i < 64; i++)
        fputc("0123456789abcdef"[i * 7 % 16], file);
    ensure(fclose(file) == 0);
}

static void remove_key(const char *path)
{
    char seals[200], file[512];
    snprintf(seals, sizeof seals, "%s.seals", path);
    DIR *dir = opendir(seals);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(file, sizeof file, "%s/%s", seals, entry->d_name);
        unlink(file);
    }
    if (dir)
        closedir(dir);
    rmdir(seals);
    unlink(path);
}

/* ---- opening ---- */

static bool open_database(struct world *world, struct clock *clock, struct random *random,
                          const struct disk *disk, struct sqlite_database **out, struct error *e)
{
    bool is_new;
    struct sqlite_options options = {
        .data_dir = S("sim"),
        .node = S("sim"),
        .audit_key_path = str_from_cstr(disk->key),
        .cache_bytes = 256 << 10,
        .clock = clock,
        .random = random,
        .vfs = VFS_NAME,
        .is_inline = true,
        .checkpoint_pages = disk->checkpoint_pages,
    };
    (void) world;
    return sqlite_database_open(&options, out, &is_new, e);
}

void disk_prepare(const char *where)
{
    struct clock *clock = clock_manual_create(1700000000000000ll, 1000000000ll);
    struct random *random = random_seeded_create(1);
    struct disk disk = {.files = vfs_disk_create(random), .checkpoint_pages = 1000};
    struct sqlite_database *database;
    struct error e = {0};
    snprintf(folder, sizeof folder, "%s", where);
    snprintf(disk.key, sizeof disk.key, "%s/prepared.key", folder);
    write_key(disk.key);
    vfs_use(disk.files);
    if (!open_database(NULL, clock, random, &disk, &database, &e)) {
        fprintf(stderr, "sim: %s\n", e.message);
        exit(2);
    }
    sqlite_database_close(database);
    prepared = vfs_disk_copy(disk.files, random);
    remove_key(disk.key);
}

static bool use(struct world *world, struct vfs_disk *files)
{
    struct disk *disk = world->disk;
    struct error e = {0};
    disk->files = files;
    vfs_use(files);
    if (!open_database(world, world->clock, world->random, disk, &world->database, &e)) {
        world_violation(world, "the database does not open after a crash: %s", e.message);
        return false;
    }
    world->store = sqlite_database_store(world->database);
    return true;
}

void disk_open(struct world *world)
{
    static const int pages[] = {10, 50, 200, 1000, 4000};
    struct disk *disk = ARENA_NEW(world->arena, struct disk);
    world->disk = disk;
    disk->checkpoint_pages = pages[world_between(world, 0, ARRAY_COUNT(pages) - 1)];
    snprintf(disk->key, sizeof disk->key, "%s/%d.key", folder, (int) getpid());
    remove_key(disk->key);
    write_key(disk->key);
    if (use(world, vfs_disk_copy(prepared, world->random)))
        vfs_disk_set_faults(disk->files, faults);
}

void disk_close(struct world *world)
{
    vfs_disk_set_faults(world->disk->files, (struct vfs_faults){0});
    remove_key(world->disk->key);
    /* The database stays as it is, with what may be queued: the process ends soon. */
}

/* On a copy: to look is to recover. */
static const char *look_at(struct world *world, struct vfs_disk *disk)
{
    struct vfs_disk *copy = vfs_disk_copy(disk, world->random);
    vfs_use(copy);
    const char *problem = vfs_check(DATABASE);
    vfs_disk_destroy(copy);
    return problem;
}

void disk_crash(struct world *world, bool is_power_cut)
{
    struct vfs_disk *survivor = vfs_disk_survivor(world->disk->files, is_power_cut);
    world_tell(world, "the disk sees a %s: %lld sectors lost so far, %lld faults",
               is_power_cut ? "power cut" : "kill", (long long) vfs_disk_counts(survivor).torn,
               (long long) vfs_disk_counts(survivor).faults);
    const char *problem = look_at(world, survivor);
    if (problem) {
        world_violation(world, "the database is damaged after a crash: %s", problem);
        return;
    }
    witness_forget(world);
    if (!use(world, survivor))
        return;
    witness_check_promises(world);
    laws_read_again(world);
    cover(world, COVER_DISK_CRASH);
    vfs_disk_set_faults(survivor, faults);
}

void disk_set_faulty(struct world *world, bool is_faulty)
{
    if (world->disk)
        vfs_disk_set_faults(world->disk->files, is_faulty ? faults : (struct vfs_faults){0});
}

/* ---- its threads' work ---- */

bool disk_store_has_work(struct sqlite_database *database)
{
    struct sqlite_statistics now = sqlite_database_statistics(database);
    return now.write_queue + now.read_queue > 0;
}

void disk_store_work(struct world *world)
{
    struct sqlite_statistics now = sqlite_database_statistics(world->database);
    if (world->is_calm)
        vfs_disk_set_faults(world->disk->files, (struct vfs_faults){0});
    if (world_chance(world, 20))
        sqlite_database_work(world->database, SQLITE_WORK_SIGN);
    bool is_reading = now.write_queue == 0 || (now.read_queue > 0 && world_chance(world, 500));
    sqlite_database_work(world->database, is_reading ? SQLITE_WORK_READ : SQLITE_WORK_WRITES);
}
